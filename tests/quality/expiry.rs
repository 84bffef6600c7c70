//! When what is known is forgotten.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures::executor::block_on;
use libp2p_peerstore::{
    AGENT_VERSION, Cause, Clock, Config, ManualClock, MemoryDatastore, Source, Standing,
};
use libp2p_swarm::{NetworkBehaviour, ToSwarm};

use super::*;
use crate::support::*;

/// The swarm's task: polled when it is woken, and only then.
#[derive(Default)]
struct Task {
    woken: AtomicBool,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
    }
}

impl Task {
    /// What the behaviour yields until it waits for something.
    fn run(self: &Arc<Self>, swarm: &mut Swarm) -> Vec<Told> {
        let waker = Waker::from(self.clone());
        let mut context = Context::from_waker(&waker);
        let mut yielded = Vec::new();
        loop {
            self.woken.store(false, Ordering::SeqCst);
            match swarm.behaviour.poll(&mut context) {
                Poll::Ready(ToSwarm::GenerateEvent(event)) => yielded.push(event.into()),
                Poll::Ready(other) => panic!("{other:?}"),
                Poll::Pending if self.is_woken() => {}
                Poll::Pending => return yielded,
            }
        }
    }

    fn is_woken(&self) -> bool {
        self.woken.load(Ordering::SeqCst)
    }
}

#[test]
fn each_standing_is_hidden_at_its_instant_and_collected_when_the_alarm_wakes_the_behaviour() {
    type Make = fn(&PeerStore, &mut Swarm);
    let makes: [(&str, Duration, Make); 6] = [
        ("inbound", HOUR, |_, swarm| {
            swarm.seen_inbound(peer(1), at(1));
        }),
        ("hearsay", 8 * HOUR, |store, _| {
            gossip(store, peer(1), &ports([1]));
        }),
        ("hearsay that failed", 8 * HOUR, |store, swarm| {
            gossip(store, peer(1), &ports([1]));
            swarm.dial_failed(peer(1), ports([1]));
        }),
        ("self-told", DAY, |store, _| {
            identify(store, peer(1), &ports([1]));
        }),
        ("proven", 14 * DAY, |_, swarm| swarm.proved(peer(1), at(1))),
        ("proven that failed often", 14 * DAY / 4, |_, swarm| {
            swarm.proved(peer(1), at(1));
            (0..9).for_each(|_| swarm.dial_failed(peer(1), ports([1])));
        }),
    ];
    for (what, lifetime, make) in makes {
        let (store, clock) = clocked();
        let mut swarm = Swarm::of(&store);
        let task = Arc::new(Task::default());
        make(&store, &mut swarm);
        task.run(&mut swarm);
        let expires = info(&store, peer(1), &at(1)).unwrap().expires.unwrap();
        let start = std::time::UNIX_EPOCH + 1_735_689_600 * SECOND;
        assert_eq!(expires, start + lifetime, "{what}");

        clock.advance(lifetime - SECOND);
        assert!(!task.is_woken(), "{what}");
        assert_eq!(store.addresses().get(&peer(1)), Some(ports([1])), "{what}");

        clock.advance(SECOND);
        // Nothing has collected it yet.
        assert_eq!(store.addresses().get(&peer(1)), None, "{what}");
        assert!(!store.contains(&peer(1)) && store.get(&peer(1)).is_none());
        assert!(store.peers().is_empty() && store.peer_ids().is_empty());
        assert!(store.addresses().infos(&peer(1)).is_none());
        assert!(store.addresses().multiaddrs_for_peer(&peer(1)).is_empty());
        assert!(store.bootstrap_peers(9).is_empty());
        assert!(swarm.offers(peer(1)).is_empty(), "{what}");

        assert!(task.is_woken(), "{what}");
        let told = task.run(&mut swarm);
        assert_eq!(told, [Told::Removed(peer(1), Cause::Expired)], "{what}");
        assert!(store.is_empty());
        assert_eq!(
            clock.sleepers(),
            0,
            "{what}: there is nothing left to wait for"
        );
    }
}

#[test]
fn without_a_behaviour_what_has_expired_is_collected_by_writes_and_when_peers_are_counted() {
    for by_count in [true, false] {
        let (store, clock) = clocked();
        let mut events = store.subscribe();
        gossip(&store, peer(1), &ports([1]));
        clock.advance(8 * HOUR);
        heard(&mut events);
        if by_count {
            assert_eq!(store.len(), 0);
        } else {
            gossip(&store, peer(2), &ports([1]));
        }
        assert_eq!(
            heard(&mut events)[0],
            Told::Removed(peer(1), Cause::Expired)
        );
    }
}

#[test]
fn an_address_that_expires_beside_others_is_an_event_of_its_own() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    let task = Arc::new(Task::default());
    identify(&store, peer(1), &ports([1]));
    gossip(&store, peer(1), &ports([2]));
    clock.advance(STEP);
    gossip(&store, peer(1), &ports([3]));
    task.run(&mut swarm);
    let left = |told| vec![Told::Addresses(peer(1), told, Cause::Expired)];

    clock.advance(8 * HOUR - STEP);
    assert_eq!(store.addresses().get(&peer(1)), Some(ports([1, 3])));
    assert_eq!(task.run(&mut swarm), left(ports([1, 3])));
    clock.advance(STEP);
    assert!(task.is_woken());
    assert_eq!(store.addresses().get(&peer(1)), Some(ports([1])));
    assert_eq!(task.run(&mut swarm), left(ports([1])));
    // What is heard of again is news, and its time begins anew.
    gossip(&store, peer(1), &ports([2]));
    assert_eq!(info(&store, peer(1), &at(2)).unwrap().failures, 0);
    let told = Told::Addresses(peer(1), ports([1, 2]), Cause::Discovery);
    assert_eq!(task.run(&mut swarm), [told]);
}

#[test]
fn an_address_lives_on_for_as_long_as_it_is_heard_of_and_hearsay_longer_the_longer_it_was() {
    let (store, clock) = clocked();
    let rest = || {
        let expires = info(&store, peer(1), &at(1)).unwrap().expires.unwrap();
        let now = clock.started() + clock.elapsed();
        expires.duration_since(now).unwrap()
    };
    gossip(&store, peer(1), &ports([1]));
    assert_eq!(rest(), 8 * HOUR);
    for told in 1..=100 {
        clock.advance(30 * STEP);
        gossip(&store, peer(1), &ports([1]));
        assert_eq!(rest(), (8 * HOUR + 8 * told * 30 * STEP).min(2 * DAY));
    }
    clock.advance(2 * DAY - SECOND);
    assert!(store.contains(&peer(1)));
    clock.advance(SECOND);
    assert!(!store.contains(&peer(1)));
    // What comes back after that is news.
    gossip(&store, peer(1), &ports([1]));
    assert_eq!(rest(), 8 * HOUR);
}

#[test]
fn to_be_told_again_from_wherever_never_shortens_the_life_of_an_address() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    let expires = || info(&store, peer(1), &at(1)).unwrap().expires.unwrap();
    let mut learned = store.learned(Source::Identify);
    let mut last = clock.started();
    for day in 0..6 {
        gossip(&store, peer(1), &ports([1]));
        assert!(expires() >= last, "day {day}");
        last = expires();
        if day > 2 {
            learned.replace(peer(1), &ports([1]));
            assert!(expires() >= last, "day {day}");
            last = expires();
        }
        clock.advance(12 * HOUR);
    }
    assert_eq!(
        last,
        clock.started() + clock.elapsed() + 2 * DAY - 12 * HOUR
    );
    // A dial that fails halves what the peer's own word is good for, not what others gave it.
    swarm.dial_failed(peer(1), ports([1]));
    assert_eq!(expires(), last);
}

#[test]
fn a_peer_that_is_pinned_tagged_connected_or_noted_by_the_user_stays() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    store.addresses().pin(peer(1), ports([1]));
    store.tags().set(peer(2), "friend", 1, None).unwrap();
    swarm.accepted(peer(3), at(1));
    store.metadata().set(peer(4), "note", "x").unwrap();
    let mut learned = store.learned(Source::Identify);
    // What the peers tell of themselves keeps nobody.
    for n in 1..=6 {
        learned.replace(peer(n), &ports([2]));
        learned.metadata(peer(n), AGENT_VERSION, b"agent");
    }
    store.protocols().add(peer(7), ["/x"]);
    store
        .tags()
        .set(peer(6), "guest", 1, Some(3 * DAY))
        .unwrap();

    clock.advance(DAY - SECOND);
    assert_eq!(store.len(), 7);
    clock.advance(SECOND);
    let known = |peers: &[u8]| sorted(peers.iter().map(|n| peer(*n)).collect());
    assert_eq!(sorted(store.peer_ids()), known(&[1, 2, 3, 4, 6]));
    clock.advance(2 * DAY);
    assert_eq!(sorted(store.peer_ids()), known(&[1, 2, 3, 4]));
    clock.advance(400 * DAY);
    assert_eq!(sorted(store.peer_ids()), known(&[1, 2, 3, 4]));
    assert_eq!(store.addresses().get(&peer(1)), Some(ports([1])));
    assert_eq!(store.addresses().get(&peer(2)), Some(vec![]));

    // And each of them only for as long as that holds.
    store.addresses().unpin(peer(1), ports([1]));
    store.tags().remove(&peer(2), "friend");
    swarm.closed(peer(3));
    store.metadata().delete_value(&peer(4), "note");
    // What was pinned is hearsay that was told for long.
    clock.advance(2 * DAY);
    assert_eq!(store.len(), 0);
}

#[test]
fn an_address_in_use_begins_to_age_when_its_last_connection_ends() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    swarm.dialled(peer(1), at(1));
    swarm.dialled(peer(1), at(1));
    let expires = || info(&store, peer(1), &at(1)).unwrap().expires;
    clock.advance(400 * DAY);
    assert_eq!(expires(), None);
    swarm.closed(peer(1));
    clock.advance(400 * DAY);
    assert_eq!(expires(), None);
    assert!(swarm.offers(peer(1)).len() == 1);

    swarm.closed(peer(1));
    let end = std::time::UNIX_EPOCH + 1_735_689_600 * SECOND + 814 * DAY;
    assert_eq!(expires(), Some(end));
    clock.advance(14 * DAY - SECOND);
    assert!(store.contains(&peer(1)));
    clock.advance(SECOND);
    assert!(!store.contains(&peer(1)));
}

#[test]
fn an_inbound_address_begins_to_age_when_its_last_connection_ends() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    // One is known for nothing else, of the other the peer has also told it.
    identify(&store, peer(2), &ports([2, 3]));
    for _ in 0..2 {
        swarm.accepted(peer(1), at(1));
        swarm.accepted(peer(2), at(2));
    }
    let expires = |n: u8| info(&store, peer(n), &at(n.into())).map(|info| info.expires);
    clock.advance(40 * DAY);
    assert_eq!((expires(1), expires(2)), (Some(None), Some(None)));
    assert_eq!(store.addresses().get(&peer(2)), Some(ports([2])));
    assert_eq!(
        info(&store, peer(1), &at(1)).unwrap().standing,
        Standing::Inbound
    );
    assert_eq!(
        info(&store, peer(2), &at(2)).unwrap().standing,
        Standing::SelfTold
    );
    for n in [1, 2] {
        swarm.closed(peer(n));
        assert_eq!(expires(n), Some(None));
        swarm.closed(peer(n));
    }
    clock.advance(HOUR - SECOND);
    assert!(store.contains(&peer(1)));
    clock.advance(SECOND);
    assert!(!store.contains(&peer(1)));
    clock.advance(23 * HOUR - SECOND);
    assert!(store.contains(&peer(2)));
    clock.advance(SECOND);
    assert!(!store.contains(&peer(2)));
}

#[test]
fn an_address_begins_to_age_when_its_connection_goes_on_elsewhere() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    swarm.dialled(peer(1), at(1));
    clock.advance(DAY);
    swarm.moved(peer(1), at(2));
    assert_eq!(
        sorted(store.addresses().get(&peer(1)).unwrap()),
        ports([1, 2])
    );
    clock.advance(14 * DAY);
    // Nobody dialled the other one.
    assert_eq!(store.addresses().get(&peer(1)), Some(vec![]));
    assert!(store.is_connected(&peer(1)));
    swarm.closed(peer(1));
    assert!(!store.is_connected(&peer(1)));
    clock.advance(DAY);
    assert_eq!(store.len(), 0);
}

#[test]
fn when_the_behaviour_goes_every_address_begins_to_age() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    swarm.dialled(peer(1), at(1));
    clock.advance(100 * DAY);
    drop(swarm);
    clock.advance(14 * DAY - SECOND);
    assert!(store.contains(&peer(1)));
    clock.advance(SECOND);
    assert!(!store.contains(&peer(1)));
}

/// A peer that was dialled once and has told its address each day since then, and nineteen that were dialled yesterday.
fn an_old_proof_among_new_ones(store: &PeerStore, clock: &ManualClock) -> Swarm {
    let mut swarm = Swarm::of(store);
    swarm.proved(peer(1), at(1));
    for day in 0..14 {
        clock.advance(DAY - MINUTE);
        if day == 12 {
            (2..=20).for_each(|n| swarm.proved(peer(n), elsewhere(n)));
        }
        identify(store, peer(1), &ports([1]));
        clock.advance(MINUTE);
    }
    let old = info(store, peer(1), &at(1)).unwrap();
    assert_eq!(old.standing, Standing::SelfTold);
    swarm
}

fn elsewhere(n: u8) -> Multiaddr {
    format!("/ip4/60.{n}.0.1/tcp/1").parse().unwrap()
}

#[test]
fn a_proof_of_more_than_fourteen_days_protects_nobody_from_eviction() {
    let (store, clock) = clocked_with(|config| config.with_max_peers(size(20)));
    let mut swarm = an_old_proof_among_new_ones(&store, &clock);
    swarm.proved(peer(21), elsewhere(21));
    assert_eq!(
        sorted(store.peer_ids()),
        sorted((2..=21).map(peer).collect())
    );
}

#[test]
fn a_new_proof_protects_again() {
    let (store, clock) = clocked_with(|config| config.with_max_peers(size(21)));
    let mut swarm = an_old_proof_among_new_ones(&store, &clock);
    swarm.proved(peer(1), at(1));
    identify(&store, peer(30), &ports([3]));
    swarm.proved(peer(21), elsewhere(21));
    assert_eq!(
        sorted(store.peer_ids()),
        sorted((1..=21).map(peer).collect())
    );
}

/// The times of an address are kept in steps of about a minute, and it may be told at the end of one.
#[test]
fn what_was_just_told_has_not_expired_however_short_its_lifetime_is() {
    for short in [Duration::ZERO, SECOND, STEP - SECOND] {
        let (store, clock) = clocked_with(|config| {
            config
                .with_hearsay_lifetime(short)
                .with_max_hearsay_lifetime(short)
                .with_inbound_lifetime(short)
                .with_self_told_lifetime(short)
                .with_proven_lifetime(short)
        });
        clock.advance(STEP - SECOND);
        let mut swarm = Swarm::of(&store);
        gossip(&store, peer(1), &ports([1]));
        identify(&store, peer(2), &ports([1]));
        swarm.proved(peer(3), at(1));
        swarm.accepted(peer(4), at(1));
        swarm.closed(peer(4));
        for n in 1..=4 {
            assert!(store.contains(&peer(n)), "{n}, a lifetime of {short:?}");
        }
        let standing = |n| info(&store, peer(n), &at(1)).unwrap().standing;
        assert_eq!(standing(3), Standing::Proven);
        clock.advance(SECOND);
        assert_eq!(store.len(), 0);
    }
    // Failures shorten it, and not below that.
    let (store, clock) = clocked_with(|config| config.with_self_told_lifetime(2 * STEP));
    let mut swarm = Swarm::of(&store);
    identify(&store, peer(1), &ports([1]));
    (0..3).for_each(|_| swarm.dial_failed(peer(1), ports([1])));
    clock.advance(STEP - SECOND);
    assert!(store.contains(&peer(1)));
}

#[test]
fn what_mdns_announces_stays_until_mdns_takes_it_back() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    let told = ports([1, 2]);
    store.learned(Source::Mdns).add(peer(1), &told);
    gossip(&store, peer(1), &ports([2, 3]));
    // mDNS hears it again and again, and does not tell.
    clock.advance(3 * DAY);
    assert_eq!(store.addresses().get(&peer(1)), Some(told.clone()));
    assert_eq!(info(&store, peer(1), &at(1)).unwrap().expires, None);
    assert_eq!(swarm.offers(peer(1)).len(), 2);
    // What others told of it is too long ago by itself.
    store
        .learned(Source::Mdns)
        .withdraw(peer(1), Some(&ports([2])));
    assert_eq!(store.addresses().get(&peer(1)), Some(ports([1])));
    gossip(&store, peer(1), &ports([1]));
    store
        .learned(Source::Mdns)
        .withdraw(peer(1), None::<&[Multiaddr]>);
    assert_eq!(store.addresses().get(&peer(1)), Some(ports([1])), "gossip");
    assert!(info(&store, peer(1), &at(1)).unwrap().expires.is_some());
    clock.advance(3 * DAY);
    assert!(!store.contains(&peer(1)));
}

#[test]
fn what_mdns_announced_ages_from_when_the_behaviour_goes() {
    let (store, clock) = clocked();
    let swarm = Swarm::of(&store);
    store.learned(Source::Mdns).add(peer(1), &ports([1]));
    clock.advance(30 * DAY);
    drop(swarm);
    let expires = info(&store, peer(1), &at(1)).unwrap().expires;
    assert!(expires.is_some());
    clock.advance(Config::default().max_hearsay_lifetime() - STEP);
    assert!(store.contains(&peer(1)));
    clock.advance(STEP);
    assert!(!store.contains(&peer(1)));
}

#[test]
fn what_mdns_announced_ages_from_the_restart_until_it_is_announced_again() {
    let clock = ManualClock::default();
    let config = || Config::default().with_clock(clock.clone());
    let datastore = MemoryDatastore::default();
    let open = || block_on(PeerStore::open(peer(LOCAL), datastore.clone(), config())).unwrap();
    let store = open();
    store.learned(Source::Mdns).add(peer(1), &ports([1]));
    clock.advance(DAY);
    block_on(store.shutdown()).unwrap();
    drop(store);

    let store = open();
    assert!(info(&store, peer(1), &at(1)).unwrap().expires.is_some());
    let unchanged = store.learned(Source::Mdns).add(peer(1), &ports([1]));
    assert!(!unchanged.changed);
    assert_eq!(info(&store, peer(1), &at(1)).unwrap().expires, None);
    clock.advance(30 * DAY);
    block_on(store.shutdown()).unwrap();
    drop(store);

    let store = open();
    clock.advance(Config::default().max_hearsay_lifetime() + STEP);
    assert!(!store.contains(&peer(1)));
}
