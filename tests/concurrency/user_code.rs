//! The user's code may use the store wherever it is called, and may panic there: no lock is held, and nothing is left
//! broken.

use std::{
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, SystemTime},
};

use futures::{FutureExt, Stream, executor::block_on, future::BoxFuture, stream::BoxStream};
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_peerstore::{
    Batch, Clock, Config, Datastore, DatastoreError, Event, KeyValue, Learned, ManualClock,
    MemoryDatastore, PeerStore, Teach,
    testing::{Call, FaultyDatastore},
};
use libp2p_swarm::NetworkBehaviour;

use crate::support::*;

/// Uses a store, and what this thread does inside that does not do it again. From another thread, so that a lock that
/// is held is waited for even if it could be taken twice.
#[derive(Clone, Default)]
struct Inside {
    store: Arc<OnceLock<PeerStore>>,
    times: Arc<AtomicUsize>,
    busy: Arc<AtomicBool>,
}

impl Inside {
    fn give(&self, store: &PeerStore) {
        self.store.set(store.clone()).unwrap();
    }

    fn times(&self) -> usize {
        self.times.load(Ordering::SeqCst)
    }

    fn act(&self) {
        let Some(store) = self.store.get() else {
            return;
        };
        // Each time it changes the store, which may be why it is called again.
        if self.times() >= 50 || self.busy.swap(true, Ordering::SeqCst) {
            return;
        }
        let using = store.clone();
        finishes(move || use_everything(&using));
        self.times.fetch_add(1, Ordering::SeqCst);
        self.busy.store(false, Ordering::SeqCst);
    }
}

fn use_everything(store: &PeerStore) {
    let peer = PeerId::random();
    store.addresses().add(peer, ports([1]));
    store.protocols().add(peer, ["/a"]);
    store.metadata().set(peer, "a", "x").unwrap();
    store.tags().set(peer, "a", 1, None).unwrap();
    assert!(store.contains(&peer) && !store.peers().is_empty());
    assert!(store.peers_supporting("/a").contains(&peer));
    store.bootstrap_peers(2);
    drop((store.subscribe(), store.watch(peer)));
    let _ = store.flush().now_or_never();
    assert!(store.delete(&peer));
}

#[test]
fn a_filter_may_use_the_store_wherever_it_is_asked() {
    let inside = Inside::default();
    let asked = inside.clone();
    let store = store_with(|config| {
        config.with_address_filter(move |_: &PeerId, _: &Multiaddr| {
            asked.act();
            true
        })
    });
    inside.give(&store);
    finishes(move || {
        let mut swarm = Swarm::of(&store);
        gossip(&store, peer(1), &ports([1]));
        identify(&store, peer(1), &ports([1, 2]));
        swarm.accepted(peer(2), at(3));
        swarm.found(peer(3), &at(3));
        swarm.moved(peer(2), at(4));
        assert_eq!(inside.times(), 6);
    });
}

/// A waker that uses the store when it is cloned, dropped or woken.
struct Thorough(Inside);

impl Wake for Thorough {
    fn wake(self: Arc<Self>) {
        self.0.act();
    }
}

impl Drop for Thorough {
    fn drop(&mut self) {
        self.0.act();
    }
}

#[test]
fn wakers_may_use_the_store_when_they_are_woken_and_when_they_are_dropped() {
    let store = store();
    let inside = Inside::default();
    inside.give(&store);
    finishes(move || {
        let mut all = store.subscribe();
        let mut one = store.watch(peer(1));
        let waker = || Waker::from(Arc::new(Thorough(inside.clone())));
        let mut wait = |waker: Waker| {
            let cx = &mut Context::from_waker(&waker);
            assert!(Pin::new(&mut all).poll_next(cx).is_pending());
            assert!(Pin::new(&mut one).poll_next(cx).is_pending());
            while all.try_next().is_some() {}
        };
        wait(waker());
        // The first one is dropped: another takes its place.
        let before = inside.times();
        wait(waker());
        assert!(inside.times() > before);
        // Both readers are woken.
        let before = inside.times();
        store.addresses().add(peer(1), ports([1]));
        assert!(inside.times() > before);
        // The last ones go with their readers.
        drop((all, one));
    });
}

#[test]
fn the_waker_of_a_flush_may_use_the_store() {
    let datastore = FaultyDatastore::new(MemoryDatastore::default());
    let open = PeerStore::open(peer(LOCAL), datastore.clone(), Config::default());
    let store = block_on(open).unwrap();
    datastore.hold(Call::Commit);
    let inside = Inside::default();
    inside.give(&store);
    finishes(move || {
        store.addresses().add(peer(1), ports([1]));
        let mut flush = store.flush().boxed();
        let waker = Waker::from(Arc::new(Thorough(inside.clone())));
        let cx = &mut Context::from_waker(&waker);
        assert!(flush.poll_unpin(cx).is_pending());
        datastore.release();
        while inside.times() == 0 {
            std::thread::yield_now();
        }
        assert!(matches!(flush.poll_unpin(cx), Poll::Ready(Ok(()))));
    });
}

/// A clock that uses the store each time it is asked.
struct Asked {
    clock: ManualClock,
    inside: Inside,
}

impl Clock for Asked {
    fn started(&self) -> SystemTime {
        self.inside.act();
        self.clock.started()
    }

    fn elapsed(&self) -> Duration {
        self.inside.act();
        self.clock.elapsed()
    }

    fn sleep_until(&self, deadline: Duration) -> BoxFuture<'static, ()> {
        self.inside.act();
        self.clock.sleep_until(deadline)
    }
}

/// A datastore that uses the store in every call.
struct Storing {
    memory: MemoryDatastore,
    inside: Inside,
}

impl Datastore for Storing {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        self.inside.act();
        self.memory.get(key)
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        self.inside.act();
        self.memory.query(prefix)
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        self.inside.act();
        self.memory.commit(batch)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DatastoreError>> {
        self.inside.act();
        self.memory.close()
    }
}

#[test]
fn a_clock_a_datastore_and_an_executor_may_use_the_store() {
    let (clock, storing, running) = (Inside::default(), Inside::default(), Inside::default());
    let runs = running.clone();
    let config = Config::default()
        .with_commit_threshold(size(1))
        .with_min_commit_interval(Duration::ZERO)
        .with_clock(Asked {
            clock: ManualClock::default(),
            inside: clock.clone(),
        })
        .with_executor(move |engine| {
            let runs = runs.clone();
            // Uses the store around every poll of the engine.
            let mut engine = engine;
            std::thread::spawn(move || {
                block_on(futures::future::poll_fn(move |cx| {
                    runs.act();
                    let polled = engine.poll_unpin(cx);
                    runs.act();
                    polled
                }));
            });
        });
    finishes(move || {
        let datastore = Storing {
            memory: MemoryDatastore::default(),
            inside: storing.clone(),
        };
        let store = block_on(PeerStore::open(peer(LOCAL), datastore, config)).unwrap();
        for inside in [&clock, &storing, &running] {
            inside.give(&store);
        }
        let mut swarm = Swarm::of(&store);
        gossip(&store, peer(1), &ports([1]));
        swarm.proved(peer(2), at(2));
        let cx = &mut Context::from_waker(Waker::noop());
        while swarm.behaviour.poll(cx).is_ready() {}
        block_on(store.flush()).unwrap();
        store.delete(&peer(1));
        block_on(store.flush()).unwrap();
        block_on(store.shutdown()).unwrap();
        for inside in [clock, storing, running] {
            assert!(inside.times() > 0);
        }
    });
}

struct Told(Inside);

impl Teach for Told {
    fn teach(&self, learned: &mut Learned<'_>) {
        self.0.act();
        learned.add(peer(9), &ports([9]));
        self.0.act();
    }
}

#[test]
fn visitors_predicates_iterators_and_teachers_may_use_the_store() {
    let store = store();
    let inside = Inside::default();
    inside.give(&store);
    finishes(move || {
        (1..6).for_each(|n| _ = store.addresses().add(peer(n), ports([1])));
        store.for_each(|_| {
            inside.act();
            ControlFlow::<()>::Continue(())
        });
        store.filter(|_| {
            inside.act();
            true
        });
        let lazily = |n: u16| {
            inside.act();
            at(n)
        };
        store.addresses().add(peer(1), (1..4).map(lazily));
        store.addresses().set(peer(1), (1..4).map(lazily));
        store.addresses().pin(peer(1), (1..4).map(lazily));
        store.learn(&Told(inside.clone()));
        assert_eq!(inside.times(), 5 + 5 + 9 + 2);
    });
}

// --- panics --------------------------------------------------------------------------------------------------

/// Whether it panics as it was told to, and not otherwise.
fn panics(act: impl FnOnce()) -> bool {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(()) => false,
        Err(panic) if panic.downcast_ref::<Planned>().is_some() => true,
        Err(panic) => resume_unwind(panic),
    }
}

/// Not told of by the panic hook.
struct Planned;

fn planned() -> ! {
    resume_unwind(Box::new(Planned))
}

#[test]
fn a_filter_that_panics_leaves_a_working_store() {
    let evil = at(666);
    let store = store_with(|config| {
        config.with_address_filter(move |_: &PeerId, address: &Multiaddr| {
            if *address == evil {
                planned();
            }
            true
        })
    });
    finishes(move || {
        let mut swarm = Swarm::of(&store);
        let mut events = store.subscribe();
        gossip(&store, peer(1), &ports([1]));
        for _ in 0..3 {
            assert!(panics(|| _ = gossip(&store, peer(1), &ports([2, 666, 3]))));
            assert!(panics(|| _ = identify(&store, peer(2), &ports([666]))));
            assert!(panics(|| swarm.found(peer(3), &at(666))));
            assert!(panics(|| swarm.accepted(peer(4), at(666))));
        }
        // Nothing of what was told is there, and everything else is.
        assert_eq!(store.addresses().get(&peer(1)), Some(ports([1])));
        assert!(!store.contains(&peer(2)) && !store.contains(&peer(3)));
        use_everything(&store);
        assert_eq!(did(gossip(&store, peer(2), &ports([2]))), (true, 0));
        let told = std::iter::from_fn(|| events.try_next());
        let added = told.filter(|event| matches!(event, Event::PeerAdded { .. }));
        // Those that are there, and the one that came and went.
        assert_eq!(added.count(), 3);
        assert_eq!(swarm.offers(peer(2)), [with_id(at(2), peer(2))]);
    });
}

struct Panicking(AtomicUsize);

impl Wake for Panicking {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        planned();
    }
}

struct Counting(AtomicUsize);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// The readers behind the one that panicked were not woken, and slept on what had come for them.
#[test]
fn a_waker_that_panics_keeps_no_other_reader_asleep() {
    let store = store();
    let counting = Arc::new(Counting(AtomicUsize::new(0)));
    let panicking = Arc::new(Panicking(AtomicUsize::new(0)));
    let wakers = [
        Waker::from(counting.clone()),
        Waker::from(panicking.clone()),
        Waker::from(counting.clone()),
        Waker::from(panicking.clone()),
        Waker::from(counting.clone()),
    ];
    let mut readers = wakers.clone().map(|_| store.subscribe());
    for (reader, waker) in readers.iter_mut().zip(&wakers) {
        let polled = Pin::new(reader).poll_next(&mut Context::from_waker(waker));
        assert!(matches!(polled, Poll::Pending));
    }
    assert!(panics(|| _ = gossip(&store, peer(1), &ports([1]))));
    assert_eq!(panicking.0.load(Ordering::SeqCst), 2);
    assert_eq!(counting.0.load(Ordering::SeqCst), 3);
    assert!(store.contains(&peer(1)));
    finishes(move || use_everything(&store));
}

#[test]
fn visitors_and_iterators_that_panic_leave_a_working_store() {
    let store = store();
    store.addresses().add(peer(1), ports([1]));
    assert!(panics(|| _ = store.filter(|_| planned())));
    assert!(panics(
        || _ = store.for_each(|_| -> ControlFlow<()> { planned() })
    ));
    let broken = || (2..5).map(|n| if n < 4 { at(n) } else { planned() });
    assert!(panics(|| _ = store.addresses().add(peer(1), broken())));
    assert!(panics(|| _ = store.addresses().set(peer(1), broken())));
    assert!(panics(|| _ = store.addresses().remove(peer(1), broken())));
    assert_eq!(store.addresses().get(&peer(1)), Some(ports([1])));
    finishes(move || use_everything(&store));
}
