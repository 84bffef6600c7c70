//! Queries that answer in any order, twice, or with an error.

use std::{collections::HashMap, error::Error as _};

use libp2p::PeerId;
use libp2p_peerstore::{DatastoreError, KeyValue, MemoryDatastore, OpenError, Source};

use crate::{
    all_of, sound,
    support::{Hand, Scripted, addr},
};

/// Entries in another order, the same in every run of the test.
fn shuffled(mut entries: Vec<KeyValue>, seed: u64) -> Vec<KeyValue> {
    let mut state = seed;
    for last in (1..entries.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        entries.swap(last, (state >> 33) as usize % (last + 1));
    }
    entries
}

fn scripted(entries: Vec<KeyValue>) -> Scripted {
    Scripted::new(entries.into_iter().map(Some))
}

/// Peers of different worth, each with something in three books: those told by gossip, and those told by
/// themselves.
fn peers(gossip: usize, told: usize) -> (Vec<PeerId>, Vec<PeerId>, Vec<KeyValue>) {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let store = hand.open(memory.clone());
    let make = |source, count: usize| {
        let ids: Vec<PeerId> = (0..count).map(|_| PeerId::random()).collect();
        for (n, peer) in ids.iter().enumerate() {
            store.learned(source).add(*peer, &[addr(1), addr(2)]);
            store.protocols().add(*peer, [format!("/p/{n}")]);
            store
                .metadata()
                .set(*peer, "AgentVersion", [n as u8])
                .unwrap();
        }
        ids
    };
    let ids = (make(Source::Mdns, gossip), make(Source::Identify, told));
    hand.shutdown(store);
    assert_eq!(memory.len(), 3 * (gossip + told));
    (ids.0, ids.1, memory.entries())
}

#[test]
fn the_order_of_the_entries_does_not_matter() {
    let (gossip, told, entries) = peers(10, 10);
    let mut hand = Hand::default();
    let reference = hand.open(scripted(entries.clone()));
    assert_eq!(reference.load_report(), sound(20, 60));
    for seed in 0..50 {
        let datastore = scripted(shuffled(entries.clone(), seed));
        let store = hand.open(datastore.clone());
        assert_eq!(store.load_report(), sound(20, 60));
        for peer in gossip.iter().chain(&told) {
            let known = store.get(peer).unwrap();
            assert_eq!(all_of(&known), all_of(&reference.get(peer).unwrap()));
        }
        hand.flush(&store);
        assert_eq!(datastore.recording.started(), 0);
        // Whatever came first, the whole of a peer goes.
        store.addresses().delete(&told[0]);
        store.delete(&told[1]);
        hand.shutdown(store);
        assert_eq!(datastore.recording.started(), 1);
    }
}

#[test]
fn entries_that_come_twice_are_loaded_once() {
    let (gossip, told, entries) = peers(5, 5);
    let mut hand = Hand::default();
    let reference = hand.open(scripted(entries.clone()));
    let twice = [entries.clone(), entries.clone()].concat();
    for seed in 0..20 {
        let store = hand.open(scripted(shuffled(twice.clone(), seed)));
        assert_eq!(store.load_report(), sound(10, 60));
        for peer in gossip.iter().chain(&told) {
            let known = store.get(peer).unwrap();
            assert_eq!(all_of(&known), all_of(&reference.get(peer).unwrap()));
        }
    }
}

#[test]
fn in_any_order_the_best_of_too_many_peers_are_kept_whole() {
    let (gossip, told, entries) = peers(30, 10);
    let mut hand = Hand::default();
    let reference = hand.open(scripted(entries.clone()));
    for room in [10, 15, 39] {
        for seed in 0..60 {
            let datastore = scripted(shuffled(entries.clone(), seed));
            let store = hand.open_with(datastore.clone(), |config| {
                config.with_max_peers(room.try_into().unwrap())
            });
            let mut report = sound(room, 120);
            report.left_on_disk = 40 - room;
            assert_eq!(store.load_report(), report, "room {room}, seed {seed}");
            assert!(told.iter().all(|peer| store.contains(peer)));
            for known in store.peers() {
                assert!(told.contains(&known.id) || gossip.contains(&known.id));
                let whole = reference.get(&known.id).unwrap();
                assert_eq!(all_of(&known), all_of(&whole), "room {room}, seed {seed}");
            }
            hand.flush(&store);
            assert_eq!(datastore.recording.started(), 0);
        }
    }
}

#[test]
fn a_query_that_fails_half_way_fails_the_open_and_says_why() {
    let (_, _, entries) = peers(5, 5);
    let mut hand = Hand::default();
    for at in [0, 1, 15, 30] {
        let mut items: Vec<Option<KeyValue>> = entries.iter().cloned().map(Some).collect();
        items.insert(at, None);
        let datastore = Scripted::new(items);
        let config = hand.config();
        let error = hand.try_open(datastore.clone(), config).unwrap_err();
        assert_eq!(error.to_string(), "could not load the peer store");
        let cause = error.source().unwrap();
        assert_eq!(cause.to_string(), "cannot read in `scripted datastore`");
        assert_eq!(cause.source().unwrap().to_string(), "told to fail");
        assert!(matches!(
            error,
            OpenError::Load(DatastoreError::Failed { .. })
        ));
        // Nothing was written over what could not be read, and the datastore is released.
        assert_eq!(datastore.recording.started(), 0);
        assert_eq!(datastore.recording.closes(), 1);
    }
}

#[test]
fn a_query_that_fails_while_a_peer_is_deleted_fails_that_commit_only() {
    let (gossip, _, entries) = peers(2, 0);
    let mut hand = Hand::default();
    let datastore = scripted(entries);
    let store = hand.open(datastore.clone());
    datastore.fail_queries(1);
    store.delete(&gossip[0]);
    let failed = hand.block(store.flush()).unwrap_err();
    assert_eq!(failed.to_string(), "could not save 1 peers");
    assert_eq!(
        failed.source().unwrap().to_string(),
        "cannot read in `scripted datastore`"
    );
    assert_eq!((datastore.recording.started(), store.unsaved()), (0, 1));
    hand.flush(&store);
    assert_eq!((datastore.recording.started(), store.unsaved()), (1, 0));
    let batch = datastore.recording.take_commit();
    let deleted: HashMap<_, _> = batch.iter().collect();
    assert_eq!(deleted.len(), 4);
    assert!(deleted.values().all(Option::is_none));
}
