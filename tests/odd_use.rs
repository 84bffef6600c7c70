//! Calls that are given up half-way, handles in unusual places, two stores on one datastore, and the last handle in
//! places where waiting is not welcome: each does what is documented, and none hangs.
//!
//! A `flush` and an `open` that are dropped while the datastore hangs are in `persistence/failure.rs`, the last handle
//! inside a call of the datastore in `persistence/shutdown.rs`, the end of `main` in `end_of_main.rs`.

#![allow(clippy::unwrap_used)]

#[path = "support/datastore.rs"]
mod support;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use futures::{FutureExt, Stream, StreamExt, executor::block_on};
use libp2p::{Multiaddr, PeerId};
use libp2p_peerstore::{
    Config, Datastore, DatastoreError, Event, FlushError, MemoryDatastore, PeerStore,
    RedbDatastore, Source,
};

use support::{Act, Hand, Recording, addr, addrs_key, keys_of, sorted};

const SECOND: Duration = Duration::from_secs(1);

fn touch(store: &PeerStore) -> PeerId {
    let peer = PeerId::random();
    store.addresses().add(peer, [addr(1)]);
    peer
}

fn open(datastore: impl Datastore, config: Config) -> PeerStore {
    block_on(PeerStore::open(PeerId::random(), datastore, config)).unwrap()
}

/// Waits for something that another thread does.
fn soon(mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < until, "nothing came of the wait");
        std::thread::yield_now();
    }
}

// --- given up half-way -------------------------------------------------------------------------------------

#[test]
fn an_open_that_is_never_polled_touches_nothing() {
    let datastore = Recording::default();
    drop(PeerStore::open(
        PeerId::random(),
        datastore.clone(),
        Config::default(),
    ));
    assert_eq!((datastore.queries().len(), datastore.closes()), (0, 0));
    assert!(!datastore.is_held());
}

#[test]
fn an_open_that_is_dropped_half_way_leaves_its_file_to_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.redb");
    let store = open(RedbDatastore::open(&path).unwrap(), Config::default());
    (0..500).for_each(|_| _ = touch(&store));
    block_on(store.shutdown()).unwrap();
    for _ in 0..20 {
        let datastore = RedbDatastore::open(&path).unwrap();
        let mut open = PeerStore::open(PeerId::random(), datastore, Config::default()).boxed();
        let _ = (&mut open).now_or_never();
        drop(open);
        soon(|| match RedbDatastore::open(&path) {
            Ok(_) => true,
            Err(DatastoreError::Locked { .. }) => false,
            Err(error) => panic!("{error}"),
        });
    }
    assert_eq!(
        open(RedbDatastore::open(&path).unwrap(), Config::default()).len(),
        500
    );
}

#[test]
fn a_flush_that_is_dropped_at_any_poll_leaves_a_working_store() {
    for polls in 0..4 {
        let (mut hand, datastore) = (Hand::default(), Recording::default());
        let store = hand.open(datastore.clone());
        touch(&store);
        let mut flush = store.flush().boxed_local().fuse();
        for _ in 0..polls {
            let _ = (&mut flush).now_or_never();
            hand.settle();
        }
        drop(flush);
        touch(&store);
        hand.flush(&store);
        assert_eq!(
            (datastore.memory.len(), store.unsaved()),
            (2, 0),
            "after {polls} polls"
        );
    }
}

#[test]
fn a_shutdown_that_is_never_polled_is_none() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    drop(store.shutdown());
    hand.settle();
    touch(&store);
    hand.flush(&store);
    assert_eq!((datastore.memory.len(), datastore.closes()), (1, 0));
}

#[test]
fn a_shutdown_that_is_dropped_half_way_goes_on() {
    for act in [Act::Succeed, Act::Fail] {
        let (mut hand, datastore) = (Hand::default(), Recording::default());
        let store = hand.open(datastore.clone());
        let mut events = store.subscribe();
        touch(&store);
        datastore.hold_commits();
        datastore.next([act; 3]);
        let closing = store.clone();
        let shutdown = hand.start(async move { closing.shutdown().await });
        assert_eq!(datastore.in_flight(), 1);
        drop(shutdown);
        hand.settle();
        // It is asked for again, or something else is, before and after it has ended.
        let (flushing, closing) = (store.clone(), store.clone());
        let mut flush = hand.start(async move { flushing.flush().await });
        let mut again = hand.start(async move { closing.shutdown().await });
        datastore.release();
        hand.settle();
        let commits = if act == Act::Succeed { 1 } else { 3 };
        assert_eq!((datastore.started(), datastore.closes()), (commits, 1));
        assert_eq!(
            hand.result(&mut flush).unwrap().is_ok(),
            act == Act::Succeed
        );
        assert_eq!(
            hand.result(&mut again).unwrap().is_ok(),
            act == Act::Succeed
        );
        // The outcome stays what it was.
        let once_more = hand.block(store.shutdown());
        assert_eq!(once_more.is_ok(), act == Act::Succeed, "{once_more:?}");
        assert!(matches!(hand.block(store.flush()), Err(FlushError::Closed)));
        while events.next().now_or_never().flatten().is_some() {}
        assert!(
            matches!(events.next().now_or_never(), Some(None)),
            "subscriptions end"
        );
    }
}

// --- handles in unusual places -----------------------------------------------------------------------------

/// Everything that a handle can do, from wherever it is.
fn use_everything(store: &PeerStore) {
    let peer = touch(store);
    store.protocols().add(peer, ["/a"]);
    store.metadata().set(peer, "note", "x").unwrap();
    assert!(store.contains(&peer) && store.get(&peer).is_some());
    assert!(!store.is_empty() && !store.peers().is_empty());
    store.bootstrap_peers(3);
    drop((store.subscribe(), store.watch(peer)));
    // Asked for, and not waited for.
    let _ = store.flush().now_or_never();
    store.delete(&peer);
}

#[test]
fn a_handle_may_be_used_inside_a_filter() {
    let (place, calls) = (
        Arc::new(OnceLock::<PeerStore>::new()),
        Arc::new(AtomicUsize::new(0)),
    );
    let (inside, counted) = (place.clone(), calls.clone());
    let filter = move |_: &PeerId, _: &Multiaddr| {
        counted.fetch_add(1, Ordering::SeqCst);
        use_everything(inside.get().unwrap());
        true
    };
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open_with(datastore.clone(), |config| {
        config.with_address_filter(filter)
    });
    place.set(store.clone()).unwrap();
    let peer = PeerId::random();
    store
        .learned(Source::Kademlia)
        .add(peer, &[addr(1), addr(2)]);
    assert_eq!((calls.load(Ordering::SeqCst), store.len()), (2, 1));
    hand.flush(&store);
    assert_eq!(keys_of(&datastore.memory), [addrs_key(&peer)]);
}

/// A waker that uses the store, once.
struct Using(PeerStore, AtomicUsize);

impl Wake for Using {
    fn wake(self: Arc<Self>) {
        if self.1.fetch_add(1, Ordering::SeqCst) < 3 {
            use_everything(&self.0);
        }
    }
}

#[test]
fn a_handle_may_be_used_inside_a_waker() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let using = Arc::new(Using(store.clone(), AtomicUsize::new(0)));
    let waker = Waker::from(using.clone());
    let cx = &mut Context::from_waker(&waker);
    let mut events = store.subscribe();
    let mut flush = store.flush().boxed_local();
    assert!(Pin::new(&mut events).poll_next(cx).is_pending());
    assert!(flush.poll_unpin(cx).is_pending());
    // The subscription wakes it, and then the flush does, on the engine's own ground.
    let peer = touch(&store);
    hand.settle();
    assert!(matches!(flush.poll_unpin(cx), Poll::Ready(Ok(()))));
    assert!(using.1.load(Ordering::SeqCst) >= 2);
    hand.flush(&store);
    assert_eq!(keys_of(&datastore.memory), [addrs_key(&peer)]);
}

#[test]
fn a_handle_may_be_used_for_every_event() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let mut events = store.subscribe();
    (0..5).for_each(|_| _ = touch(&store));
    let mut seen = 0;
    // Each of its own events makes more of them: they are read while they come.
    while let Some(event) = events.try_next() {
        if let Event::PeerAdded { .. } = event
            && seen < 20
        {
            seen += 1;
            use_everything(&store);
        }
    }
    assert_eq!((seen, store.len()), (20, 5));
    hand.flush(&store);
    assert_eq!(datastore.memory.len(), 5);
}

// --- two stores --------------------------------------------------------------------------------------------

#[test]
fn two_stores_on_one_datastore_write_whole_peers_and_the_later_one_stands() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let (a, b) = (hand.open(memory.clone()), hand.open(memory.clone()));
    let (of_a, of_b) = (touch(&a), touch(&b));
    let both = PeerId::random();
    a.addresses().add(both, [addr(1)]);
    b.addresses().add(both, [addr(2)]);
    hand.flush(&a);
    hand.flush(&b);
    assert!(!a.contains(&of_b), "a store reads its datastore once");
    hand.shutdown(a);
    // The end of the one is not the end of the other: this datastore knows no closing.
    let late = touch(&b);
    hand.shutdown(b);
    let expected = sorted([of_a, of_b, both, late].iter().map(addrs_key));
    assert_eq!(keys_of(&memory), expected);
    let again = hand.open(memory);
    assert_eq!((again.len(), again.load_report().undecodable), (4, 0));
    assert_eq!(again.addresses().get(&both).unwrap(), [addr(2)]);
}

#[test]
fn of_two_stores_on_one_file_the_first_to_end_closes_it_and_the_other_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.redb");
    let datastore = RedbDatastore::open(&path).unwrap();
    let (a, b) = (
        open(datastore.clone(), Config::default()),
        open(datastore, Config::default()),
    );
    let (of_a, of_b) = (touch(&a), touch(&b));
    block_on(a.flush()).unwrap();
    block_on(b.flush()).unwrap();
    block_on(a.shutdown()).unwrap();
    touch(&b);
    match block_on(b.flush()).unwrap_err() {
        FlushError::Failed { unsaved, source } => {
            assert!(matches!(*source, DatastoreError::Closed { .. }), "{source}");
            assert!(unsaved == 1 && source.to_string().contains(path.to_str().unwrap()));
        }
        other => panic!("{other}"),
    }
    assert_eq!(b.len(), 2, "memory is complete");
    assert!(block_on(b.shutdown()).is_err());
    drop((a, b));
    let again = open(RedbDatastore::open(&path).unwrap(), Config::default());
    assert!(again.len() == 2 && again.contains(&of_a) && again.contains(&of_b));
}

// --- the last handle ---------------------------------------------------------------------------------------

#[test]
fn the_last_handle_may_go_inside_block_on_of_a_current_thread_runtime() {
    let datastore = Recording::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let open = PeerStore::open(PeerId::random(), datastore.clone(), Config::default());
        let store = open.await.unwrap();
        touch(&store);
        drop(store);
        // The engine has a thread of its own: it is done by now.
        assert_eq!((datastore.memory.len(), datastore.closes()), (1, 1));
    });
    smol::block_on(async {
        let open = PeerStore::open(PeerId::random(), datastore.clone(), Config::default());
        let store = open.await.unwrap();
        touch(&store);
        drop(store);
        assert_eq!((datastore.memory.len(), datastore.closes()), (2, 2));
    });
}

/// The engine cannot go on while its only thread waits for it: the wait ends, and what was unsaved is saved afterwards.
#[test]
fn the_last_handle_may_go_on_the_only_thread_that_its_engine_has() {
    let datastore = Recording::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let handle = runtime.handle().clone();
    let config = Config::default()
        .with_drop_deadline(Duration::from_millis(50))
        .with_executor(move |engine| drop(handle.spawn(engine)));
    let start = Instant::now();
    runtime.block_on(async {
        let open = PeerStore::open(PeerId::random(), datastore.clone(), config);
        let store = open.await.unwrap();
        touch(&store);
        drop(store);
        datastore.closed().await;
    });
    assert!(start.elapsed() < 30 * SECOND);
    assert_eq!((datastore.memory.len(), datastore.closes()), (1, 1));
}

#[test]
fn the_last_handle_may_go_during_a_panic() {
    let datastore = Recording::default();
    let store = open(datastore.clone(), Config::default());
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        touch(&store);
        let _events = store.subscribe();
        panic!("told to panic with a store in hand");
    }));
    assert!(panicked.is_err());
    assert_eq!((datastore.memory.len(), datastore.closes()), (1, 1));
}

#[test]
fn the_last_handle_may_go_during_a_panic_with_a_datastore_that_panics_too() {
    let datastore = Recording::default();
    let store = open(datastore.clone(), Config::default());
    datastore.next([Act::Panic; 3]);
    datastore.panic_in_close();
    let start = Instant::now();
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        touch(&store);
        panic!("told to panic with a store in hand");
    }));
    assert!(panicked.is_err() && start.elapsed() < 30 * SECOND);
    assert_eq!((datastore.memory.len(), datastore.closes()), (0, 1));
}

#[test]
fn handles_may_go_on_many_threads_at_once() {
    for _ in 0..50 {
        let datastore = Recording::default();
        let store = open(datastore.clone(), Config::default());
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let store = store.clone();
                std::thread::spawn(move || touch(&store))
            })
            .collect();
        drop(store);
        threads
            .into_iter()
            .for_each(|thread| _ = thread.join().unwrap());
        assert_eq!((datastore.memory.len(), datastore.closes()), (8, 1));
    }
}
