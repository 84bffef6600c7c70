//! The end of a store: by `shutdown`, and by dropping the last handle.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, executor::block_on, join};
use libp2p::PeerId;
use libp2p_peerstore::{
    Config, FlushError, MemoryDatastore, PeerStore, PeerStoreBehaviour, RedbDatastore,
};

use crate::{
    support::{Act, Hand, Recording, addr, addrs_key, keys_of, puts},
    swarm::{Gossip, dialled},
};

const SECOND: Duration = Duration::from_secs(1);

fn touch(store: &PeerStore) -> PeerId {
    let peer = PeerId::random();
    assert!(store.addresses().add(peer, [addr(1)]).changed);
    peer
}

/// A store with a thread of its own, as an application has it.
fn open(datastore: Recording, config: Config) -> PeerStore {
    block_on(PeerStore::open(PeerId::random(), datastore, config)).unwrap()
}

// --- shutdown ----------------------------------------------------------------------------------------------

#[test]
fn shutdown_saves_what_is_left_and_closes_the_datastore_once() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let peer = touch(&store);
    hand.block(store.shutdown()).unwrap();
    assert_eq!(puts(&datastore.take_commit()), [addrs_key(&peer)]);
    assert_eq!(datastore.closes(), 1);

    let other = store.clone();
    hand.block(store.shutdown()).unwrap();
    hand.block(other.shutdown()).unwrap();
    drop((store, other));
    hand.settle();
    assert_eq!((datastore.started(), datastore.closes()), (1, 1));
    assert!(!datastore.is_held());
}

#[test]
fn shutdown_of_a_store_that_has_nothing_to_save_closes_the_datastore() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    hand.block(store.shutdown()).unwrap();
    assert_eq!((datastore.started(), datastore.closes()), (0, 1));
}

#[test]
fn after_shutdown_reads_work_and_writes_stay_in_memory() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let peer = touch(&store);
    hand.block(store.shutdown()).unwrap();

    assert_eq!(store.addresses().get(&peer).unwrap(), [addr(1)]);
    assert!(store.addresses().add(peer, [addr(2)]).changed);
    let other = touch(&store);
    assert!(store.delete(&peer));
    assert_eq!(store.peer_ids(), [other]);
    let result = hand.block(store.flush());
    assert!(matches!(result, Err(FlushError::Closed)), "{result:?}");
    let result = hand.block(store.shutdown());
    assert!(matches!(result, Err(FlushError::Closed)), "{result:?}");
    assert_eq!(store.unsaved(), 0);
    hand.advance(60 * 60 * SECOND);
    assert_eq!(datastore.started(), 1);
    assert_eq!(keys_of(&datastore.memory), [addrs_key(&peer)]);
}

/// Counts the warnings on this thread.
struct Warnings(Arc<AtomicUsize>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if *event.metadata().level() <= tracing::Level::WARN {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn writes_after_shutdown_are_told_of_once() {
    use tracing_subscriber::layer::SubscriberExt;
    let warnings = Arc::new(AtomicUsize::new(0));
    let subscriber = tracing_subscriber::registry().with(Warnings(warnings.clone()));
    tracing::subscriber::with_default(subscriber, || {
        let mut hand = Hand::default();
        let store = hand.open(Recording::default());
        touch(&store);
        hand.block(store.shutdown()).unwrap();
        assert_eq!(warnings.load(Ordering::Relaxed), 0);
        for _ in 0..10 {
            touch(&store);
        }
        assert_eq!(warnings.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn after_shutdown_nothing_more_is_learnt_from_the_swarm() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let mut behaviour = PeerStoreBehaviour::new(store.clone()).unwrap();
    hand.block(store.shutdown()).unwrap();
    let peer = PeerId::random();
    store.learn(&Gossip(peer, addr(1)));
    dialled(&mut behaviour, peer, &addr(1));
    assert!(store.is_empty());
}

#[test]
fn shutdown_ends_every_subscription_after_what_waits_in_it() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let (all, one) = (store.subscribe(), store.watch(PeerId::random()));
    touch(&store);
    hand.block(store.shutdown()).unwrap();
    assert_eq!(block_on(all.count()), 2);
    assert_eq!(block_on(one.count()), 0);
    assert_eq!(block_on(store.subscribe().count()), 0);
}

#[test]
fn shutdown_on_a_datastore_that_fails_says_so_and_closes_it_all_the_same() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    touch(&store);
    datastore.next([Act::Fail; 3]);
    match hand.block(store.shutdown()).unwrap_err() {
        FlushError::Failed { unsaved, .. } => assert_eq!(unsaved, 1),
        other => panic!("{other}"),
    }
    assert_eq!((store.unsaved(), datastore.closes()), (1, 1));
    let again = hand.block(store.shutdown());
    assert!(matches!(again, Err(FlushError::Closed)), "{again:?}");
    hand.advance(60 * SECOND);
    assert_eq!((datastore.started(), datastore.closes()), (3, 1));
}

/// Nobody tries it again after the end.
#[test]
fn a_last_commit_that_fails_is_tried_again_at_once() {
    for act in [Act::Fail, Act::FailAfterApplying, Act::Panic] {
        let (mut hand, datastore) = (Hand::default(), Recording::default());
        let store = hand.open(datastore.clone());
        touch(&store);
        datastore.next([act, act]);
        hand.block(store.shutdown()).unwrap();
        assert_eq!((datastore.started(), datastore.closes()), (3, 1));
        assert_eq!((store.unsaved(), datastore.memory.len()), (0, 1));

        let datastore = Recording::default();
        let store = hand.open(datastore.clone());
        touch(&store);
        datastore.next([act, act]);
        drop(store);
        hand.settle();
        assert_eq!((datastore.memory.len(), datastore.closes()), (1, 1));
    }
}

/// A file that was deleted under the node is noticed by the commit that the end makes, and has to be written anew.
#[test]
fn a_file_that_has_vanished_is_written_anew_at_the_end() {
    for by_drop in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.redb");
        let local = PeerId::random();
        let config = || Config::default().with_drop_deadline(Duration::from_secs(60));
        let open = || {
            let datastore = RedbDatastore::open(&path).unwrap();
            block_on(PeerStore::open(local, datastore, config())).unwrap()
        };
        let store = open();
        let known = touch(&store);
        block_on(store.flush()).unwrap();
        std::fs::remove_file(&path).unwrap();
        touch(&store);
        if !by_drop {
            block_on(store.shutdown()).unwrap();
            assert_eq!(store.unsaved(), 0);
        }
        drop(store);
        let again = open();
        assert_eq!(again.len(), 2, "by drop: {by_drop}");
        assert!(again.contains(&known));
    }
}

/// What was changed while the last commit was under way is what a second call asks for.
#[test]
fn a_second_shutdown_during_the_first_one_saves_what_came_between_them() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    touch(&store);
    datastore.hold_commits();
    let closing = store.clone();
    let mut first = hand.start(async move { closing.shutdown().await });
    assert_eq!(datastore.in_flight(), 1);
    let late = touch(&store);
    let closing = store.clone();
    let mut second = hand.start(async move { closing.shutdown().await });
    datastore.release();
    hand.result(&mut first).unwrap().unwrap();
    hand.result(&mut second).unwrap().unwrap();
    assert!(keys_of(&datastore.memory).contains(&addrs_key(&late)));
    assert_eq!((datastore.started(), datastore.closes()), (2, 1));
}

/// What merely grows old after the end is nothing that was to be saved.
#[test]
fn a_second_shutdown_is_ok_whatever_has_expired_or_was_closed_since() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let mut behaviour = PeerStoreBehaviour::new(store.clone()).unwrap();
    store.learn(&Gossip(PeerId::random(), addr(1)));
    let both = PeerId::random();
    store.learn(&Gossip(both, addr(1)));
    store.metadata().set(both, "note", "x").unwrap();
    dialled(&mut behaviour, PeerId::random(), &addr(1));
    hand.block(store.shutdown()).unwrap();
    hand.advance(24 * 60 * 60 * SECOND);
    assert_eq!(store.len(), 2);
    hand.block(store.shutdown()).unwrap();
    drop(behaviour);
    hand.block(store.shutdown()).unwrap();
}

#[test]
fn shutdown_on_a_datastore_that_hangs_gives_up_and_still_ends_when_it_goes_on() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    touch(&store);
    datastore.hold_commits();
    let closing = store.clone();
    let mut shutdown = hand.start(async move { closing.shutdown().await });
    hand.advance(30 * SECOND);
    let late = hand.result(&mut shutdown).unwrap().unwrap_err();
    assert!(
        matches!(late, FlushError::Deadline { unsaved: 1, .. }),
        "{late}"
    );
    assert_eq!(datastore.closes(), 0);

    let closing = store.clone();
    let mut again = hand.start(async move { closing.shutdown().await });
    datastore.release();
    hand.result(&mut again).unwrap().unwrap();
    assert_eq!((datastore.started(), datastore.closes()), (1, 1));
    assert_eq!((store.unsaved(), datastore.memory.len()), (0, 1));
}

/// `Ok` of a flush is a promise, also when the store is closing while it is asked for.
#[test]
fn a_flush_during_the_shutdown_is_not_told_that_unsaved_changes_are_saved() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    touch(&store);
    datastore.hold_commits();
    let closing = store.clone();
    let mut shutdown = hand.start(async move { closing.shutdown().await });
    assert_eq!(datastore.in_flight(), 1);
    let late = touch(&store);
    let flushing = store.clone();
    let mut flush = hand.start(async move { flushing.flush().await });
    datastore.release();
    hand.result(&mut shutdown).unwrap().unwrap();
    let flushed = hand.result(&mut flush).unwrap();
    let is_saved = keys_of(&datastore.memory).contains(&addrs_key(&late));
    assert_eq!(flushed.is_ok(), is_saved, "{flushed:?}");
    assert_eq!(datastore.closes(), 1);
}

/// Whatever else is going on: once `shutdown` is `Ok`, the datastore is closed and another store can have it.
#[test]
fn shutdown_is_not_over_before_the_datastore_is_closed() {
    for _ in 0..200 {
        let datastore = Recording::default();
        let store = open(datastore.clone(), Config::default());
        touch(&store);
        let (flushed, closed) = block_on(async {
            let flush = store.flush();
            let shutdown = async {
                store.shutdown().await.unwrap();
                datastore.closes()
            };
            join!(flush, shutdown)
        });
        flushed.unwrap();
        assert_eq!(closed, 1);
    }
}

#[test]
fn a_store_in_memory_ends_as_well() {
    let store = PeerStore::in_memory(PeerId::random(), Config::default());
    let events = store.subscribe();
    let peer = touch(&store);
    assert_eq!(store.unsaved(), 0);
    assert!(matches!(store.flush().now_or_never(), Some(Ok(()))));
    assert!(matches!(store.shutdown().now_or_never(), Some(Ok(()))));
    assert!(matches!(store.shutdown().now_or_never(), Some(Ok(()))));
    let flushed = store.flush().now_or_never();
    assert!(matches!(flushed, Some(Err(FlushError::Closed))));
    store.learn(&Gossip(PeerId::random(), addr(1)));
    assert_eq!(store.peer_ids(), [peer]);
    assert_eq!(block_on(events.count()), 2);
}

// --- dropping the last handle ------------------------------------------------------------------------------

#[test]
fn dropping_the_last_handle_saves() {
    let datastore = Recording::default();
    let store = open(datastore.clone(), Config::default());
    let behaviour = PeerStoreBehaviour::new(store.clone()).unwrap();
    let mut events = store.subscribe();
    let peer = touch(&store);
    drop(store);
    // The behaviour holds the store too.
    assert_eq!(datastore.closes(), 0);
    assert!(behaviour.store().contains(&peer));
    drop(behaviour);
    assert_eq!((datastore.started(), datastore.closes()), (1, 1));
    assert_eq!(keys_of(&datastore.memory), [addrs_key(&peer)]);
    assert_eq!(block_on(async { events.by_ref().count().await }), 2);
}

#[test]
fn dropping_the_last_handle_of_a_hanging_store_waits_for_its_deadline_only() {
    let datastore = Recording::default();
    let deadline = Duration::from_millis(50);
    let store = open(
        datastore.clone(),
        Config::default().with_drop_deadline(deadline),
    );
    touch(&store);
    datastore.hold_commits();
    let start = Instant::now();
    drop(store);
    let waited = start.elapsed();
    assert!(waited >= deadline, "{waited:?}");
    // Far below the default of two seconds, and far above what a loaded machine needs.
    assert!(waited < Duration::from_millis(1_500), "{waited:?}");
    assert_eq!(datastore.closes(), 0);

    // It was only not waited for: when the datastore goes on, the rest is saved.
    datastore.release();
    block_on(datastore.closed());
    assert_eq!(datastore.memory.len(), 1);
}

#[test]
fn dropping_the_last_handle_on_the_engines_own_executor_does_not_wait_for_itself() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    touch(&store);
    drop(store);
    hand.settle();
    assert_eq!((datastore.memory.len(), datastore.closes()), (1, 1));
    assert!(!datastore.is_held());
}

#[test]
fn a_store_may_be_dropped_inside_a_call_of_its_datastore() {
    let datastore = Recording::default();
    // Waiting for itself would take this long.
    let config = Config::default().with_drop_deadline(Duration::from_secs(3_600));
    let store = open(datastore.clone(), config);
    touch(&store);
    let (handle, flushing) = (store.clone(), store.clone());
    datastore.during_commit(move || {
        // Any call is allowed here, and then the handle goes.
        assert_eq!(handle.len(), 1);
        touch(&handle);
        drop(handle);
    });
    drop(store);
    // Whether this handle or the one in the commit is the last one does not matter.
    std::thread::spawn(move || {
        let _ = flushing.flush().now_or_never();
    });
    block_on(datastore.closed());
    assert_eq!(datastore.memory.len(), 2);
}

/// As above, with the last handle for certain inside the commit.
#[test]
fn the_last_handle_may_go_inside_a_call_of_the_datastore() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open_with(datastore.clone(), |config| {
        config.with_drop_deadline(Duration::from_secs(3_600))
    });
    touch(&store);
    datastore.during_commit(move || drop(store));
    hand.advance(30 * SECOND);
    assert_eq!((datastore.started(), datastore.closes()), (1, 1));
    assert!(!datastore.is_held());
}

#[test]
fn a_dropped_store_leaves_its_file_to_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.redb");
    let local = PeerId::random();
    for run in 0..5 {
        let datastore = RedbDatastore::open(&path).unwrap();
        let store = block_on(PeerStore::open(local, datastore, Config::default())).unwrap();
        assert_eq!(store.len(), run);
        touch(&store);
    }
}

#[test]
fn a_subscription_does_not_keep_a_store_alive() {
    let datastore = Recording::default();
    let store = open(datastore.clone(), Config::default());
    let mut events = store.subscribe();
    drop(store);
    assert_eq!(datastore.closes(), 1);
    assert!(block_on(events.next()).is_none());
    drop(events);
    assert!(!datastore.is_held());
}

#[test]
fn a_store_that_was_shut_down_is_dropped_at_once() {
    let datastore = Recording::on(MemoryDatastore::default());
    let config = Config::default().with_drop_deadline(Duration::from_secs(3_600));
    let store = open(datastore.clone(), config);
    block_on(store.shutdown()).unwrap();
    touch(&store);
    drop(store);
    assert_eq!((datastore.started(), datastore.closes()), (0, 1));
}
