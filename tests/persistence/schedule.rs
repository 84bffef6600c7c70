//! When a commit starts.

use std::time::{Duration, UNIX_EPOCH};

use libp2p::PeerId;
use libp2p_peerstore::{AddressInfo, MemoryDatastore, PeerStore, PeerStoreBehaviour};

use crate::{
    support::{Hand, Recording, addr, addrs_key, protos_key, puts, sorted},
    swarm::{Certified, Gossip, dial_failed, dialled},
};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Makes a peer dirty.
fn touch(store: &PeerStore) -> PeerId {
    let peer = PeerId::random();
    assert!(store.addresses().add(peer, [addr(1)]).changed);
    peer
}

#[test]
fn four_dirty_peers_wait_and_the_fifth_starts_one_commit() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let mut peers: Vec<PeerId> = (0..4).map(|_| touch(&store)).collect();
    hand.settle();
    assert_eq!(datastore.started(), 0);
    assert_eq!(store.unsaved(), 4);

    peers.push(touch(&store));
    hand.settle();
    let written = puts(&datastore.take_commit());
    assert_eq!(written, sorted(peers.iter().map(addrs_key)));
    assert_eq!(store.unsaved(), 0);
}

#[test]
fn the_threshold_counts_peers_and_not_changes() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let peer = touch(&store);
    for port in 2..30 {
        store.addresses().add(peer, [addr(port)]);
        store.protocols().add(peer, [format!("/p/{port}")]);
        store.metadata().set(peer, "note", [port as u8]).unwrap();
        hand.settle();
    }
    assert_eq!(datastore.started(), 0);
    assert_eq!(store.unsaved(), 1);
}

#[test]
fn the_threshold_is_configurable() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let one = 1.try_into().unwrap();
    let store = hand.open_with(datastore.clone(), |config| {
        config.with_commit_threshold(one)
    });
    let peer = touch(&store);
    hand.settle();
    assert_eq!(puts(&datastore.take_commit()), [addrs_key(&peer)]);
}

#[test]
fn commits_of_the_threshold_keep_their_distance_and_grow_instead() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    for _ in 0..5 {
        touch(&store);
    }
    hand.settle();
    assert_eq!(datastore.take_commit().len(), 5);

    for _ in 0..50 {
        touch(&store);
        hand.settle();
    }
    hand.advance(SECOND - MILLISECOND);
    assert_eq!(datastore.started(), 1);
    assert_eq!(hand.clock.sleepers(), 1);
    hand.advance(MILLISECOND);
    assert_eq!(datastore.take_commit().len(), 50);

    // Long after the last commit, the threshold alone decides.
    hand.advance(MINUTE);
    for _ in 0..5 {
        touch(&store);
    }
    hand.settle();
    assert_eq!(datastore.take_commit().len(), 5);
}

#[test]
fn a_quiet_store_writes_when_its_oldest_change_is_thirty_seconds_old() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    // Nothing to do: nobody waits for the clock.
    assert_eq!(hand.clock.sleepers(), 0);

    let first = touch(&store);
    hand.settle();
    assert_eq!(hand.clock.sleepers(), 1);
    hand.advance(20 * SECOND);
    store.protocols().add(first, ["/p"]);
    let second = touch(&store);
    hand.advance(10 * SECOND - MILLISECOND);
    assert_eq!(datastore.started(), 0);
    hand.advance(MILLISECOND);
    let expected = [addrs_key(&first), addrs_key(&second), protos_key(&first)];
    assert_eq!(puts(&datastore.take_commit()), sorted(expected));
    // Only for the day when the addresses expire.
    assert_eq!((store.unsaved(), hand.clock.sleepers()), (0, 1));

    hand.advance(60 * MINUTE);
    assert_eq!(datastore.started(), 1);
}

#[test]
fn a_flush_waits_for_neither_threshold_nor_interval() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    for _ in 0..3 {
        let peer = touch(&store);
        hand.flush(&store);
        assert_eq!(puts(&datastore.take_commit()), [addrs_key(&peer)]);
    }
    // For the day when the addresses expire.
    assert_eq!(hand.clock.sleepers(), 1);
}

#[test]
fn a_flush_of_nothing_asks_nothing_of_the_datastore() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    hand.flush(&store);
    touch(&store);
    hand.flush(&store);
    hand.flush(&store);
    assert_eq!(datastore.started(), 1);
}

#[test]
fn changes_during_a_commit_gather_for_one_more() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    datastore.hold_commits();
    for _ in 0..5 {
        touch(&store);
    }
    hand.settle();
    assert_eq!(datastore.in_flight(), 1);
    for _ in 0..100 {
        touch(&store);
        hand.settle();
    }
    hand.advance(10 * MINUTE);
    assert_eq!(datastore.started(), 1);
    assert_eq!(store.unsaved(), 105);

    datastore.release();
    hand.settle();
    // The distance is kept from the end of the long commit; the maximum delay has passed meanwhile.
    let sizes: Vec<usize> = datastore.take_commits().iter().map(|b| b.len()).collect();
    assert_eq!(sizes, [5, 100]);
    assert_eq!(datastore.most_in_flight(), 1);
}

#[test]
fn a_repeat_of_what_is_known_is_not_written() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let keypair = libp2p::identity::Keypair::generate_ed25519();
    let peer = PeerId::from(keypair.public());
    let write = || {
        store.addresses().pin(peer, [addr(1)]);
        store.addresses().set(peer, [addr(1), addr(2)]);
        store.addresses().add(peer, [addr(2), addr(1)]);
        store.protocols().set(peer, ["/a", "/b"]);
        store.protocols().add(peer, ["/b"]);
        store.keys().set(peer, keypair.public()).unwrap();
        store.metadata().set(peer, "note", "x").unwrap();
        store.learn(&Gossip(peer, addr(1)));
    };
    write();
    hand.flush(&store);
    datastore.take_commit();

    write();
    store.addresses().set(peer, [addr(2), addr(1)]);
    store.addresses().remove(peer, [addr(9)]);
    store.protocols().set(peer, ["/b", "/a"]);
    store.protocols().remove(peer, ["/c"]);
    store.metadata().delete_value(&peer, "nothing");
    assert_eq!(store.unsaved(), 0);
    hand.flush(&store);
    assert_eq!(datastore.started(), 1);
}

#[test]
fn a_time_that_is_merely_refreshed_is_written_once_the_stored_one_misleads() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let peer = PeerId::random();
    store.learn(&Gossip(peer, addr(1)));
    hand.flush(&store);

    // The time of hearsay is kept to a quarter of an hour.
    for _ in 0..3 {
        hand.advance(5 * MINUTE);
        store.learn(&Gossip(peer, addr(1)));
        assert_eq!(store.unsaved(), 0);
    }
    hand.advance(SECOND);
    store.learn(&Gossip(peer, addr(1)));
    assert_eq!(store.unsaved(), 1);
    hand.advance(30 * SECOND);
    assert_eq!(datastore.started(), 2);
}

#[test]
fn a_first_success_is_saved_soon_and_a_failure_rides_along() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let mut behaviour = PeerStoreBehaviour::new(store.clone()).unwrap();
    let peer = PeerId::random();
    store.addresses().add(peer, [addr(1), addr(2)]);
    hand.flush(&store);
    datastore.take_commit();

    dial_failed(&mut behaviour, peer, &addr(2));
    store.learn(&Certified(peer, addr(1)));
    store.learn(&Gossip(peer, addr(1)));
    hand.advance(29 * MINUTE);
    assert_eq!(datastore.started(), 1);
    assert_eq!(store.unsaved(), 1);

    dialled(&mut behaviour, peer, &addr(1));
    hand.advance(30 * SECOND);
    assert_eq!(puts(&datastore.take_commit()), [addrs_key(&peer)]);
    let again = hand.open(datastore.memory.clone());
    let infos = again.addresses().infos(&peer).unwrap();
    let evidence = |info: &AddressInfo| {
        let times = (
            info.first_heard,
            info.last_heard,
            info.last_success,
            info.last_failure,
        );
        (
            info.address.clone(),
            info.sources,
            times,
            info.successes,
            info.failures,
        )
    };
    let before = store.addresses().infos(&peer).unwrap();
    assert!(infos.iter().map(evidence).eq(before.iter().map(evidence)));
    assert_eq!((infos[0].successes, infos[1].failures), (1, 1));
}

#[test]
fn a_repeated_success_is_saved_soon_once_in_each_quarter_of_the_lifetime_of_a_proof() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let mut behaviour = PeerStoreBehaviour::new(store.clone()).unwrap();
    let peer = PeerId::random();
    dialled(&mut behaviour, peer, &addr(1));
    hand.flush(&store);

    // They are counted from a fixed moment.
    let quarter = 14 * 24 * 60 * 60 / 4;
    let start = store.addresses().infos(&peer).unwrap()[0].first_heard;
    let start = start.duration_since(UNIX_EPOCH).unwrap();
    let rest = Duration::from_secs(quarter - start.as_secs() % quarter);
    // Until then it is small print: it waits for a commit that something else starts.
    hand.advance(rest - 2 * MINUTE);
    dialled(&mut behaviour, peer, &addr(1));
    assert_eq!(store.unsaved(), 1);
    hand.advance(MINUTE);
    dialled(&mut behaviour, peer, &addr(1));
    hand.settle();
    assert_eq!((store.unsaved(), datastore.started()), (1, 1));
    // Times are kept in steps of 64 seconds.
    hand.advance(MINUTE + 64 * SECOND);
    dialled(&mut behaviour, peer, &addr(1));
    hand.advance(29 * SECOND);
    assert_eq!(datastore.started(), 1);
    hand.advance(SECOND);
    assert_eq!((store.unsaved(), datastore.started()), (0, 2));
    let again = hand.open(datastore.memory.clone());
    assert_eq!(again.addresses().infos(&peer).unwrap()[0].successes, 4);
}

#[test]
fn loading_makes_nothing_dirty_and_tells_nobody() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let store = hand.open(memory.clone());
    let peer = PeerId::random();
    store.addresses().add(peer, [addr(1)]);
    store.protocols().add(peer, ["/p"]);
    store.metadata().set(peer, "note", "x").unwrap();
    hand.shutdown(store);

    let datastore = Recording::on(memory);
    let store = hand.open(datastore.clone());
    let mut events = store.subscribe();
    assert_eq!(datastore.queries(), ["/peers/"]);
    assert_eq!((store.len(), store.unsaved()), (1, 0));
    // For as long as nothing expires.
    hand.advance(59 * MINUTE);
    hand.flush(&store);
    hand.block(store.shutdown()).unwrap();
    assert_eq!(datastore.started(), 0);
    assert!(events.try_next().is_none());
}
