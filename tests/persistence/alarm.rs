//! What expires in a store that nobody touches: no swarm, no behaviour, no call.

use std::time::Duration;

use libp2p::PeerId;
use libp2p_peerstore::{Cause, Event, MemoryDatastore, PeerStoreBehaviour, Subscription};

use crate::{
    support::{Hand, Recording, addr},
    swarm::{Gossip, inbound},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Late by this at most.
const STEP: Duration = Duration::from_secs(64);

fn news(events: &mut Subscription) -> Vec<Event> {
    std::iter::from_fn(|| events.try_next()).collect()
}

#[test]
fn what_expires_in_a_quiet_store_is_told_and_goes_from_the_datastore() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let gossip: Vec<PeerId> = (0..300).map(|_| PeerId::random()).collect();
    for (n, peer) in gossip.iter().enumerate() {
        // Each at an IP address of its own: few are believed to be at one.
        let at = format!("/ip4/10.0.{}.{}/tcp/4001", n / 200, n % 200 + 1);
        store.learn(&Gossip(*peer, at.parse().unwrap()));
    }
    assert_eq!(store.len(), gossip.len());
    let tagged = PeerId::random();
    store.addresses().pin(tagged, [addr(2)]);
    let short = Some(10 * MINUTE);
    store.tags().set(tagged, "short", 1, short).unwrap();
    hand.flush(&store);
    let mut events = store.subscribe();

    hand.advance(10 * MINUTE + STEP);
    let heard = news(&mut events);
    let is_it = |event: &Event| match event {
        Event::TagsChanged { peer, tags, cause } => {
            *peer == tagged && tags.is_empty() && *cause == Cause::Expired
        }
        _ => false,
    };
    assert!(heard.len() == 1 && is_it(&heard[0]), "{heard:?}");

    hand.advance(8 * HOUR);
    let gone = news(&mut events);
    let is_it = |event: &&Event| {
        let Event::PeerRemoved { peer, cause } = event else {
            return false;
        };
        gossip.contains(peer) && *cause == Cause::Expired
    };
    assert_eq!(gone.iter().filter(is_it).count(), gossip.len());
    hand.advance(30 * SECOND);
    assert_eq!((datastore.memory.len(), store.unsaved()), (1, 0));
}

/// A peer that only came by is not for the disk, so that no commit says when it expires.
#[test]
fn what_is_not_for_the_disk_expires_in_a_quiet_store_too() {
    let mut hand = Hand::default();
    let store = hand.open(MemoryDatastore::default());
    let later = PeerId::random();
    store.learn(&Gossip(later, addr(1)));
    hand.flush(&store);
    let mut behaviour = PeerStoreBehaviour::new(store.clone()).unwrap();
    let peer = PeerId::random();
    inbound(&mut behaviour, peer, &addr(50_001));
    drop(behaviour);
    hand.settle();
    let mut events = store.subscribe();
    hand.advance(HOUR + STEP);
    let gone = news(&mut events);
    let is_it = |event: &Event| matches!(event, Event::PeerRemoved { peer: gone, cause: Cause::Expired } if *gone == peer);
    assert!(gone.len() == 1 && is_it(&gone[0]), "{gone:?}");
}

/// A laptop that does nothing else is woken once in a minute, however many moments there are at which something expires.
#[test]
fn a_quiet_store_wakes_once_in_a_step_at_most() {
    let mut hand = Hand::default();
    // A commit collects too: there is none meanwhile.
    let store = hand.open_with(Recording::default(), |config| {
        config.with_max_commit_delay(24 * HOUR)
    });
    let peer = PeerId::random();
    store.addresses().pin(peer, [addr(1)]);
    for n in 1..=30_u32 {
        let ttl = Some(HOUR + n * 10 * SECOND);
        store.tags().set(peer, &n.to_string(), 1, ttl).unwrap();
    }
    hand.flush(&store);
    hand.advance(HOUR);
    let mut events = store.subscribe();
    let mut told = 0;
    for _ in 0..320 {
        hand.advance(SECOND);
        told += usize::from(!news(&mut events).is_empty());
    }
    assert!((4..=6).contains(&told), "told {told} times");
    hand.advance(STEP);
    assert!(store.tags().get(&peer).unwrap().is_empty());
}
