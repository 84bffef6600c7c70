//! What of the evidence survives a restart.

use futures::executor::block_on;
use libp2p_peerstore::{Clock, Config, ManualClock, MemoryDatastore, Source, Standing};

use super::*;
use crate::support::*;

/// Opens the store so much later.
fn open(
    memory: &MemoryDatastore,
    clock: &ManualClock,
    pause: Duration,
) -> (PeerStore, ManualClock) {
    open_with(memory, clock, pause, |config| config)
}

fn open_with(
    memory: &MemoryDatastore,
    clock: &ManualClock,
    pause: Duration,
    config: impl FnOnce(Config) -> Config,
) -> (PeerStore, ManualClock) {
    let clock = ManualClock::starting_at(clock.started() + clock.elapsed() + pause);
    let config = config(Config::default().with_clock(clock.clone()));
    let store = PeerStore::open(peer(LOCAL), memory.clone(), config);
    (block_on(store).unwrap(), clock)
}

#[test]
fn the_evidence_is_there_after_a_restart() {
    let memory = MemoryDatastore::default();
    let (store, clock) = open(&memory, &ManualClock::default(), Duration::ZERO);
    let mut swarm = Swarm::of(&store);
    let (good, doubtful, blocked) = (peer(1), peer(2), peer(3));
    (0..3).for_each(|_| swarm.proved(good, at(1)));
    gossip(&store, good, &ports([2]));
    clock.advance(16 * STEP);
    swarm.proved(doubtful, at(1));
    swarm.dial_failed(doubtful, ports([1]));
    swarm.dial_failed(doubtful, ports([1]));
    swarm.proved(blocked, at(1));
    swarm.wrong_peer(blocked, peer(4), at(1));
    // A connection that is still open has no end yet.
    swarm.dialled(peer(5), at(1));
    clock.advance(MINUTE);
    assert_eq!(info(&store, peer(5), &at(1)).unwrap().expires, None);
    let offered = swarm.offers(good);
    drop(swarm);
    block_on(store.shutdown()).unwrap();

    let (again, later) = open(&memory, &clock, Duration::ZERO);
    let mut swarm = Swarm::of(&again);
    for n in 1..=5 {
        let before = store.addresses().infos(&peer(n)).unwrap();
        let after = again.addresses().infos(&peer(n)).unwrap();
        assert_eq!(after.len(), before.len());
        for (after, before) in after.iter().zip(&before) {
            let what = |info: &AddressInfo| (info.address.clone(), info.sources, info.standing);
            assert_eq!(what(after), what(before));
            assert_eq!(after.first_heard, before.first_heard);
            assert_eq!(after.last_heard, before.last_heard);
            assert_eq!(after.last_success, before.last_success);
            assert_eq!(after.last_failure, before.last_failure);
            assert_eq!(after.successes, before.successes);
            assert_eq!(after.failures, before.failures);
            assert_eq!(after.expires, before.expires);
            assert_eq!(after.back_off.is_some(), before.back_off.is_some());
            let moved = (after.confidence - before.confidence).abs();
            assert!(moved < 0.01, "{after:?} {before:?}");
        }
    }
    assert_eq!(info(&again, good, &at(1)).unwrap().successes, 3);
    assert_eq!(info(&again, doubtful, &at(1)).unwrap().failures, 2);
    assert_eq!(swarm.offers(good), offered);
    // Where another peer answered, nobody dials before the six hours are over.
    assert!(swarm.offers(blocked).is_empty());
    later.advance(6 * HOUR - MINUTE - SECOND);
    assert!(swarm.offers(blocked).is_empty());
    later.advance(SECOND);
    assert_eq!(swarm.offers(blocked), [with_id(at(1), blocked)]);
}

/// The confidence in addresses of which only the standing is known: hearsay, self-told, and proven once.
fn priors(store: &PeerStore) -> [f64; 3] {
    gossip(store, peer(101), &ports([1]));
    identify(store, peer(102), &ports([1]));
    [101, 102, 1].map(|n| info(store, peer(n), &at(1)).unwrap().confidence)
}

#[test]
fn what_was_learnt_of_dials_in_general_survives_a_restart_and_a_kill() {
    let memory = MemoryDatastore::default();
    let (store, clock) = open(&memory, &ManualClock::default(), Duration::ZERO);
    let mut swarm = Swarm::of(&store);
    let fresh = {
        let store = store_with(|config| config.with_clock(clock.clone()));
        Swarm::of(&store).proved(peer(1), at(1));
        priors(&store)
    };
    swarm.proved(peer(1), at(1));
    for n in 2..=100 {
        // Nothing that others tell is true, and most of what peers tell themselves is.
        gossip(&store, peer(n), &ports([1]));
        swarm.dial_failed(peer(n), ports([1]));
        identify(&store, peer(n), &ports([2]));
        if n % 10 == 0 {
            swarm.dial_failed(peer(n), ports([2]));
        } else {
            swarm.proved(peer(n), at(2));
        }
    }
    let learnt = priors(&store);
    assert!(
        learnt[0] < fresh[0] / 2.0 && learnt[1] > fresh[1] * 1.2,
        "{learnt:?} {fresh:?}"
    );

    let close = |other: [f64; 3]| learnt.iter().zip(other).all(|(a, b)| (a - b).abs() < 0.01);
    // Killed: what was flushed counts.
    block_on(store.flush()).unwrap();
    let (killed, _) = open(&memory, &clock, Duration::ZERO);
    assert!(close(priors(&killed)), "{:?} {learnt:?}", priors(&killed));
    drop(swarm);
    block_on(store.shutdown()).unwrap();
    // And over more than one run, in which nobody is dialled.
    for _ in 0..3 {
        let (again, _) = open(&memory, &clock, Duration::ZERO);
        assert!(close(priors(&again)), "{:?} {learnt:?}", priors(&again));
        block_on(again.shutdown()).unwrap();
    }
}

#[test]
fn of_what_was_learnt_the_latest_counts_whatever_is_read_last() {
    let memory = MemoryDatastore::default();
    let (store, clock) = open(&memory, &ManualClock::default(), Duration::ZERO);
    let mut swarm = Swarm::of(&store);
    let mut confidence = 0.0;
    for n in 1..=50 {
        clock.advance(MINUTE);
        identify(&store, peer(n), &ports([1]));
        swarm.dial_failed(peer(n), ports([1]));
        // Each is written as it was then, and never again.
        block_on(store.flush()).unwrap();
        identify(&store, peer(60), &ports([1]));
        confidence = info(&store, peer(60), &at(1)).unwrap().confidence;
        store.delete(&peer(60));
    }
    let (again, _) = open(&memory, &clock, Duration::ZERO);
    identify(&again, peer(60), &ports([1]));
    let after = info(&again, peer(60), &at(1)).unwrap().confidence;
    assert!((after - confidence).abs() < 0.005, "{after} {confidence}");
}

#[test]
fn a_node_that_was_killed_remembers_what_it_had_committed() {
    let memory = MemoryDatastore::default();
    let (store, clock) = open(&memory, &ManualClock::default(), Duration::ZERO);
    let mut swarm = Swarm::of(&store);
    swarm.dialled(peer(1), at(1));
    block_on(store.flush()).unwrap();

    // The first one is still running, as far as it knows: nothing more of it comes to the disk.
    let (again, later) = open(&memory, &clock, Duration::ZERO);
    let proven = info(&again, peer(1), &at(1)).unwrap();
    assert_eq!(proven.standing, Standing::Proven);
    assert_eq!(
        proven.expires,
        Some(proven.last_success.unwrap() + 14 * DAY)
    );
    later.advance(14 * DAY);
    assert_eq!(again.len(), 0);
}

#[test]
fn after_seven_days_off_what_was_proven_is_there_and_what_has_expired_is_not() {
    let memory = MemoryDatastore::default();
    let (store, clock) = open(&memory, &ManualClock::default(), Duration::ZERO);
    let mut swarm = Swarm::of(&store);
    swarm.proved(peer(1), at(1));
    gossip(&store, peer(1), &ports([2]));
    identify(&store, peer(2), &ports([1]));
    gossip(&store, peer(3), &ports([1]));
    swarm.proved(peer(4), at(1));
    (0..3).for_each(|_| swarm.dial_failed(peer(4), ports([1])));
    store.addresses().pin(peer(5), ports([1]));
    store.learned(Source::Mdns).add(peer(5), &ports([2]));
    store.metadata().set(peer(6), "note", "x").unwrap();
    gossip(&store, peer(6), &ports([1]));
    drop(swarm);
    block_on(store.shutdown()).unwrap();

    let (again, _) = open(&memory, &clock, 7 * DAY);
    let report = again.load_report();
    assert_eq!((report.peers, report.expired), (3, 3), "{report:?}");
    let left = sorted(vec![peer(1), peer(5), peer(6)]);
    assert_eq!(sorted(again.peer_ids()), left);
    for (n, known) in [(1, ports([1])), (5, ports([1])), (6, vec![])] {
        assert_eq!(again.addresses().get(&peer(n)), Some(known));
    }
    let mut swarm = Swarm::of(&again);
    assert_eq!(swarm.offers(peer(1)), [with_id(at(1), peer(1))]);
    assert_eq!(sorted(again.bootstrap_peers(9)), sorted(vec![peer(1)]));

    // And on disk nothing is left of it either.
    drop(swarm);
    block_on(again.shutdown()).unwrap();
    let (once_more, _) = open(&memory, &clock, 7 * DAY);
    let report = once_more.load_report();
    assert_eq!((report.peers, report.expired), (3, 0), "{report:?}");
}

#[test]
fn a_proof_that_is_too_old_when_it_is_loaded_protects_nobody_from_eviction() {
    let memory = MemoryDatastore::default();
    let (store, clock) = open(&memory, &ManualClock::default(), Duration::ZERO);
    let mut swarm = Swarm::of(&store);
    let elsewhere = |n: u8| format!("/ip4/60.{n}.0.1/tcp/1").parse().unwrap();
    swarm.proved(peer(1), at(1));
    clock.advance(13 * DAY);
    (2..=20).for_each(|n| swarm.proved(peer(n), elsewhere(n)));
    clock.advance(12 * HOUR);
    identify(&store, peer(1), &ports([1]));
    drop(swarm);
    block_on(store.shutdown()).unwrap();

    let full = |config: Config| config.with_max_peers(size(20));
    let (again, _) = open_with(&memory, &clock, 13 * HOUR, full);
    assert_eq!(again.len(), 20);
    let mut swarm = Swarm::of(&again);
    swarm.proved(peer(21), elsewhere(21));
    assert_eq!(
        sorted(again.peer_ids()),
        sorted((2..=21).map(peer).collect())
    );
}

#[test]
fn dials_of_peers_that_are_known_for_long_are_hardly_ever_a_write() {
    let memory = MemoryDatastore::default();
    // Nothing is written by itself, so that what waits is what was marked.
    let patient = |config: Config| {
        let config = config.with_commit_threshold(size(usize::MAX));
        config.with_max_commit_delay(DAY)
    };
    let (store, clock) = open_with(&memory, &ManualClock::default(), Duration::ZERO, patient);
    let mut swarm = Swarm::of(&store);
    // Until a further success says nothing new of an address.
    for _ in 0..5 {
        (1..=50).for_each(|n| swarm.proved(peer(n), at(n.into())));
    }
    block_on(store.flush()).unwrap();
    clock.advance(MINUTE);
    for n in 1..=50 {
        swarm.proved(peer(n), at(n.into()));
        clock.advance(SECOND);
    }
    // The first, and who was dialled before it.
    assert_eq!(store.unsaved(), 2);
    clock.advance(10 * SECOND);
    swarm.proved(peer(50), at(50));
    assert_eq!(
        store.unsaved(),
        3,
        "a minute later the last two: one waits already"
    );
}

/// Runs of five days, in each of which the address is written once more. Returns after how many days it was `over`.
fn days_until(
    configure: impl Fn(Config) -> Config,
    begin: impl FnOnce(&PeerStore),
    over: impl Fn(&PeerStore) -> bool,
) -> Option<u32> {
    let memory = MemoryDatastore::default();
    let (mut store, mut clock) =
        open_with(&memory, &ManualClock::default(), Duration::ZERO, &configure);
    begin(&store);
    for day in 0..150 {
        if over(&store) {
            return Some(day);
        }
        if day % 5 == 4 {
            store
                .tags()
                .set(peer(1), "day", day as u8 % 100, None)
                .unwrap();
            block_on(store.shutdown()).unwrap();
            (store, clock) = open_with(&memory, &clock, Duration::ZERO, &configure);
        }
        clock.advance(DAY);
    }
    None
}

/// The times of an address reach back 24 days. What was longer ago would be as young at each start.
#[test]
fn a_lifetime_of_weeks_ends_on_a_node_that_restarts_too() {
    let is_proven = |store: &PeerStore| {
        let known = info(store, peer(1), &at(1));
        known.is_some_and(|known| known.standing == Standing::Proven)
    };
    for (days, expected) in [
        (20, Some(20)),
        (24, Some(24)),
        (30, Some(24)),
        (364, Some(24)),
        (365, None),
    ] {
        let proven = days_until(
            |config| config.with_proven_lifetime(days * DAY),
            |store| Swarm::of(store).proved(peer(1), at(1)),
            |store| !is_proven(store),
        );
        assert_eq!(proven, expected, "a proof of {days} days");
        let told = days_until(
            |config| config.with_self_told_lifetime(days * DAY),
            |store| {
                identify(store, peer(1), &ports([1]));
            },
            |store| info(store, peer(1), &at(1)).is_none(),
        );
        assert_eq!(told, expected, "the word of the peer for {days} days");
    }
}
