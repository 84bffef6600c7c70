//! Clocks that jump, stand still, or start before their time: within a run everything follows elapsed time, a jump deletes
//! nothing, nothing lives for ever after it, and nobody spins.

#![allow(clippy::unwrap_used)]

#[path = "support/datastore.rs"]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{executor::block_on, future::BoxFuture};
use libp2p::{PeerId, swarm::NetworkBehaviour};
use libp2p_peerstore::{
    Clock, Config, ManualClock, MemoryDatastore, PeerStore, PeerStoreBehaviour, Source, SystemClock,
};
use parking_lot::Mutex;

use support::{Hand, Recording, addr};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The day on which the manual clock starts.
fn today() -> SystemTime {
    ManualClock::default().started()
}

/// A clock whose wall time is set by hand, and which counts how often it is looked at.
#[derive(Clone)]
struct Jumping {
    wall: Arc<Mutex<SystemTime>>,
    clock: ManualClock,
    looks: Arc<AtomicUsize>,
    sleeps: Arc<AtomicUsize>,
}

impl Jumping {
    fn new(hand: &Hand, wall: SystemTime) -> Self {
        Self {
            wall: Arc::new(Mutex::new(wall)),
            clock: hand.clock.clone(),
            looks: Arc::default(),
            sleeps: Arc::default(),
        }
    }
}

impl Clock for Jumping {
    fn started(&self) -> SystemTime {
        *self.wall.lock()
    }

    fn elapsed(&self) -> Duration {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.clock.elapsed()
    }

    fn sleep_until(&self, deadline: Duration) -> BoxFuture<'static, ()> {
        self.sleeps.fetch_add(1, Ordering::SeqCst);
        self.clock.sleep_until(deadline)
    }
}

/// A store with a peer that is gossip (an hour), one that told of itself (a day), and a tag for ten minutes.
fn populate(store: &PeerStore) -> [PeerId; 3] {
    let [gossip, told, tagged] = [(); 3].map(|()| PeerId::random());
    store.learned(Source::Kademlia).add(gossip, &[addr(1)]);
    store.learned(Source::Identify).add(told, &[addr(2)]);
    store.addresses().pin(tagged, [addr(3)]);
    store
        .tags()
        .set(tagged, "short", 7, Some(HOUR / 6))
        .unwrap();
    [gossip, told, tagged]
}

/// Which of what `populate` made is still known.
fn alive(store: &PeerStore, [gossip, told, tagged]: [PeerId; 3]) -> [bool; 4] {
    let tag = store.tags().get_value(&tagged, "short").is_some();
    [
        store.contains(&gossip),
        store.contains(&told),
        store.contains(&tagged),
        tag,
    ]
}

// --- within a run ------------------------------------------------------------------------------------------

/// Jumps of the wall clock change nothing: everything ends after its time, neither earlier nor later.
fn follows_elapsed_time(start: SystemTime, jumps: impl Fn(SystemTime) -> Vec<SystemTime>) {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let clock = Jumping::new(&hand, start);
    let store = hand.open_with(datastore.clone(), |config| {
        config.with_clock(clock.clone()).with_hearsay_lifetime(HOUR)
    });
    let peers = populate(&store);
    let mut jumps = jumps(start).into_iter().cycle();
    let mut pass = |hand: &mut Hand, time: Duration| {
        for _ in 0..4 {
            *clock.wall.lock() = jumps.next().unwrap();
            hand.advance(time / 4);
            hand.flush(&store);
        }
        alive(&store, peers)
    };
    assert_eq!(pass(&mut hand, HOUR / 6 - 2 * SECOND), [true; 4]);
    assert_eq!(pass(&mut hand, 4 * SECOND), [true, true, true, false]);
    assert_eq!(pass(&mut hand, HOUR * 4 / 5), [true, true, true, false]);
    assert_eq!(pass(&mut hand, HOUR / 10), [false, true, true, false]);
    assert_eq!(pass(&mut hand, 22 * HOUR), [false, true, true, false]);
    assert_eq!(pass(&mut hand, 2 * HOUR), [false, false, true, false]);
    assert_eq!(pass(&mut hand, YEAR), [false, false, true, false]);
    assert_eq!(datastore.memory.len(), 1, "and it is so on disk");
    assert_eq!(store.unsaved(), 0);
}

#[test]
fn a_clock_that_jumps_forward_by_a_year_and_back_again_changes_nothing() {
    follows_elapsed_time(today(), |start| vec![start + YEAR, start]);
}

#[test]
fn a_clock_that_is_set_back_by_a_day_changes_nothing() {
    follows_elapsed_time(today(), |start| vec![start - DAY]);
}

#[test]
fn a_clock_that_stands_still_changes_nothing() {
    follows_elapsed_time(today(), |start| vec![start]);
}

#[test]
fn a_clock_that_starts_before_1970_changes_nothing() {
    for before in [SECOND, DAY, 30 * YEAR] {
        follows_elapsed_time(UNIX_EPOCH - before, |start| vec![start]);
        // It is set right during the run.
        follows_elapsed_time(UNIX_EPOCH - before, |_| vec![today()]);
    }
}

#[test]
fn a_clock_that_starts_far_ahead_changes_nothing() {
    for ahead in [100 * YEAR, 2_000 * YEAR] {
        let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
        let clock = Jumping::new(&hand, today() + ahead);
        let store = hand.open_with(memory, |config| {
            config.with_clock(clock).with_hearsay_lifetime(HOUR)
        });
        let peers = populate(&store);
        hand.advance(HOUR / 6 + SECOND);
        hand.flush(&store);
        assert_eq!(alive(&store, peers), [true, true, true, false]);
        hand.advance(2 * DAY);
        hand.flush(&store);
        assert_eq!(alive(&store, peers), [false, false, true, false]);
    }
}

// --- from run to run ---------------------------------------------------------------------------------------

fn open_at(hand: &mut Hand, memory: &MemoryDatastore, wall: SystemTime) -> PeerStore {
    let clock = ManualClock::starting_at(wall);
    hand.clock = clock.clone();
    hand.open_with(memory.clone(), |config| {
        config.with_clock(clock).with_hearsay_lifetime(HOUR)
    })
}

/// What was stored by a clock that was a year ahead is there after it was set right, and ages from then on, also in runs
/// that are all shorter than its lifetime.
#[test]
fn what_a_clock_that_was_ahead_has_stored_is_kept_and_does_not_live_for_ever() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let store = open_at(&mut hand, &memory, today() + YEAR);
    let peers = populate(&store);
    hand.shutdown(store);

    let store = open_at(&mut hand, &memory, today());
    assert_eq!(alive(&store, peers), [true; 4]);
    hand.advance(HOUR / 12);
    assert_eq!(alive(&store, peers), [true; 4]);
    hand.shutdown(store);
    for (minutes, expected) in [
        (8, [true, true, true, true]),
        (20, [true, true, true, false]),
        (50, [true, true, true, false]),
        (70, [false, true, true, false]),
        (23 * 60, [false, true, true, false]),
        (25 * 60, [false, false, true, false]),
    ] {
        let store = open_at(&mut hand, &memory, today() + minutes * 60 * SECOND);
        assert_eq!(alive(&store, peers), expected, "after {minutes} minutes");
        hand.shutdown(store);
    }
}

/// The same machine, a day earlier by its clock than at its last run.
#[test]
fn a_clock_that_was_set_back_between_two_runs_deletes_nothing() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let store = open_at(&mut hand, &memory, today());
    let peers = populate(&store);
    hand.shutdown(store);
    for wall in [today() - DAY, today() - YEAR, UNIX_EPOCH - DAY, UNIX_EPOCH] {
        let store = open_at(&mut hand, &memory, wall);
        assert_eq!(alive(&store, peers), [true; 4]);
        hand.shutdown(store);
    }
}

// --- sleep, and nobody spins -------------------------------------------------------------------------------

/// Where time counts on while the machine sleeps: hours pass in one step.
#[test]
fn a_machine_that_sleeps_wakes_to_one_commit() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let clock = Jumping::new(&hand, today());
    let store = hand.open_with(datastore.clone(), |config| {
        config.with_clock(clock.clone()).with_hearsay_lifetime(HOUR)
    });
    let gossip: Vec<PeerId> = (0..500).map(|_| PeerId::random()).collect();
    for peer in &gossip {
        store.learned(Source::Kademlia).add(*peer, &[addr(1)]);
    }
    hand.flush(&store);
    let told = PeerId::random();
    store.learned(Source::Identify).add(told, &[addr(2)]);
    let (commits, looks) = (datastore.started(), clock.looks.load(Ordering::SeqCst));
    hand.advance(8 * HOUR);
    assert_eq!(datastore.started(), commits + 1);
    let looks = clock.looks.load(Ordering::SeqCst) - looks;
    assert!(looks < 50, "the clock was looked at {looks} times");
    // What has expired meanwhile is gone at once for whoever asks, and on disk with one commit more.
    assert!(gossip.iter().all(|peer| !store.contains(peer)));
    assert_eq!(store.peer_ids(), [told]);
    assert_eq!(store.len(), 1);
    hand.flush(&store);
    assert_eq!(datastore.memory.len(), 1);
    assert!(
        datastore.started() <= commits + 3,
        "{}",
        datastore.started()
    );
}

struct Counting(AtomicUsize);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn neither_engine_nor_behaviour_spin_while_a_clock_stands_still() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let clock = Jumping::new(&hand, today());
    let store = hand.open_with(datastore.clone(), |config| {
        config.with_clock(clock.clone()).with_hearsay_lifetime(HOUR)
    });
    let mut behaviour = PeerStoreBehaviour::new(store.clone()).unwrap();
    populate(&store);
    // A commit that fails, and is to be tried again.
    datastore.next([support::Act::Fail]);
    assert!(hand.block(store.flush()).is_err());
    let woken = Arc::new(Counting(AtomicUsize::new(0)));
    let waker = Waker::from(woken.clone());
    let cx = &mut Context::from_waker(&waker);
    while behaviour.poll(cx).is_ready() {}
    hand.settle();
    let (looks, wakes) = (
        clock.looks.load(Ordering::SeqCst),
        woken.0.load(Ordering::SeqCst),
    );
    for _ in 0..100 {
        hand.settle();
    }
    assert_eq!(
        clock.looks.load(Ordering::SeqCst),
        looks,
        "the engine sleeps"
    );
    assert_eq!(
        woken.0.load(Ordering::SeqCst),
        wakes,
        "the behaviour sleeps"
    );
    assert!(wakes <= 2, "{wakes}");
}

/// While time passes and nothing else happens, one alarm is enough: a timer for each poll would cost more than all else.
#[test]
fn polls_of_the_behaviour_do_not_set_its_alarm_anew() {
    for start in [
        today(),
        today() + Duration::from_millis(250),
        UNIX_EPOCH - YEAR,
    ] {
        let mut hand = Hand::default();
        let clock = Jumping::new(&hand, start);
        let store = hand.open_with(Recording::default(), |config| {
            config.with_clock(clock.clone()).with_hearsay_lifetime(HOUR)
        });
        let mut behaviour = PeerStoreBehaviour::new(store.clone()).unwrap();
        let peers = populate(&store);
        hand.flush(&store);
        let woken = Arc::new(Counting(AtomicUsize::new(0)));
        let waker = Waker::from(woken.clone());
        let cx = &mut Context::from_waker(&waker);
        while behaviour.poll(cx).is_ready() {}
        let sleeps = clock.sleeps.load(Ordering::SeqCst);
        for _ in 0..100 {
            hand.advance(SECOND);
            while behaviour.poll(cx).is_ready() {}
        }
        assert_eq!(clock.sleeps.load(Ordering::SeqCst), sleeps, "{start:?}");
        // And it goes off in time: within a second, the grain of what is stored.
        let wakes = woken.0.load(Ordering::SeqCst);
        hand.advance(HOUR / 6 - 100 * SECOND + SECOND);
        assert!(woken.0.load(Ordering::SeqCst) > wakes, "{start:?}");
        assert_eq!(alive(&store, peers), [true, true, true, false]);
    }
}

/// As many futures as are asked for in real time: the timers of the machine are not spun on either.
#[test]
fn the_machines_own_clock_is_not_spun_on() {
    #[derive(Clone, Default)]
    struct Counted(SystemClock, Arc<AtomicUsize>);

    impl Clock for Counted {
        fn started(&self) -> SystemTime {
            self.0.started()
        }

        fn elapsed(&self) -> Duration {
            self.1.fetch_add(1, Ordering::SeqCst);
            self.0.elapsed()
        }

        fn sleep_until(&self, deadline: Duration) -> BoxFuture<'static, ()> {
            self.0.sleep_until(deadline)
        }
    }

    let (clock, datastore) = (Counted::default(), Recording::default());
    let config = Config::default()
        .with_clock(clock.clone())
        .with_max_commit_delay(Duration::from_millis(200));
    let open = PeerStore::open(PeerId::random(), datastore.clone(), config);
    let store = block_on(open).unwrap();
    store.addresses().add(PeerId::random(), [addr(1)]);
    let before = clock.1.load(Ordering::SeqCst);
    block_on(datastore.commits_done(1));
    let looks = clock.1.load(Ordering::SeqCst) - before;
    assert!(
        looks < 30,
        "the clock was looked at {looks} times within 200 ms"
    );
}
