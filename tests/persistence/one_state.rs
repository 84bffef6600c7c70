//! What is on disk of a peer is what it was at one moment, whatever changes while a commit is made.

use std::collections::BTreeSet;

use futures::{FutureExt, executor::block_on, future::RemoteHandle};
use libp2p::PeerId;
use libp2p_peerstore::{Batch, Datastore, FlushError, MemoryDatastore, PeerStore};

use crate::support::{
    Act, Hand, Recording, addr, addrs_key, b32, deletes, keys_of, metadata_key, protos_key, puts,
    sorted,
};

type Flushing = RemoteHandle<Result<(), FlushError>>;

/// A flush that is between taking what is dirty and writing it: it looks for what a deleted peer has left.
fn between(hand: &mut Hand, datastore: &Recording, store: &PeerStore) -> Flushing {
    datastore.take_commits();
    datastore.hold_queries();
    store.delete(&PeerId::random());
    let (queries, flushing) = (datastore.queries().len(), store.clone());
    let flush = hand.start(async move { flushing.flush().await });
    assert_eq!(datastore.queries().len(), queries + 1);
    flush
}

fn released(hand: &mut Hand, datastore: &Recording, flush: Flushing) -> Batch {
    datastore.release();
    hand.settle();
    flush.now_or_never().unwrap().unwrap();
    datastore.take_commit()
}

fn known(hand: &mut Hand, store: &PeerStore) -> PeerId {
    let peer = PeerId::random();
    store.addresses().set(peer, [addr(1)]);
    store.protocols().set(peer, ["/old"]);
    store.metadata().set(peer, "old", "x").unwrap();
    hand.flush(store);
    peer
}

/// A known peer has changed, and a flush is about to write that.
fn begun() -> (Hand, Recording, PeerStore, PeerId, Flushing) {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let peer = known(&mut hand, &store);
    store.protocols().set(peer, ["/new"]);
    let flush = between(&mut hand, &datastore, &store);
    (hand, datastore, store, peer, flush)
}

#[test]
fn what_changes_before_it_is_written_is_written_whole() {
    let (mut hand, datastore, store, peer, flush) = begun();
    store.addresses().set(peer, [addr(2)]);
    store.protocols().set(peer, ["/newer"]);
    store.metadata().delete_value(&peer, "old");
    let batch = released(&mut hand, &datastore, flush);
    assert_eq!(puts(&batch), [addrs_key(&peer), protos_key(&peer)]);
    assert!(deletes(&batch).contains(&metadata_key(&peer, "old")));
    let again = hand.open(datastore.memory.clone());
    assert_eq!(again.addresses().get(&peer).unwrap(), [addr(2)]);
    // It may have come after what the commit holds: it stays marked.
    hand.flush(&store);
    assert_eq!(store.unsaved(), 0);
}

#[test]
fn a_peer_that_comes_back_before_it_is_written_has_nothing_of_its_former_life() {
    for act in [Act::Succeed, Act::FailAfterApplying] {
        let (mut hand, datastore, store, peer, flush) = begun();
        store.delete(&peer);
        store.addresses().set(peer, [addr(3)]);
        datastore.next([act]);
        datastore.release();
        hand.settle();
        assert_eq!(flush.now_or_never().unwrap().is_ok(), act == Act::Succeed);
        let batch = datastore.take_commit();
        assert_eq!(puts(&batch), [addrs_key(&peer)]);
        assert_eq!(keys_of(&datastore.memory), [addrs_key(&peer)]);
        hand.flush(&store);
        assert_eq!(keys_of(&datastore.memory), [addrs_key(&peer)]);
    }
}

/// The flush was asked for when the peer was there: on disk it is as it was then, or gone.
#[test]
fn a_peer_that_goes_before_it_is_written_goes_with_the_same_commit() {
    let (mut hand, datastore, store, peer, flush) = begun();
    store.delete(&peer);
    released(&mut hand, &datastore, flush);
    assert_eq!(keys_of(&datastore.memory), Vec::<String>::new());
}

// --- more of one peer than one commit takes ----------------------------------------------------------------

/// Metadata of a run under larger limits, or of another program: so many keys of one peer.
fn surplus(memory: &MemoryDatastore, peer: &PeerId, keys: usize) {
    let mut batch = Batch::default();
    let prefix = format!("/peers/metadata/{}/", b32(peer));
    for n in 0..keys {
        batch.put(format!("{prefix}{n}"), Vec::new());
    }
    block_on(memory.commit(batch)).unwrap();
}

#[test]
fn a_peer_with_too_much_metadata_for_one_commit_goes_in_several_and_keeps_nobody_waiting() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let (huge, other, gone) = (PeerId::random(), PeerId::random(), PeerId::random());
    surplus(&datastore.memory, &huge, 150_000);
    surplus(&datastore.memory, &gone, 10);
    let store = hand.open(datastore.clone());
    store.delete(&huge);
    store.delete(&gone);
    store.addresses().add(other, [addr(1)]);
    hand.flush(&store);
    assert_eq!(keys_of(&datastore.memory), [addrs_key(&other)]);
    assert_eq!(store.unsaved(), 0);
    let commits = datastore.take_commits();
    let most = commits.iter().map(Batch::len).max().unwrap();
    assert!(commits.len() > 1 && most < 70_000, "{most}");
    assert_eq!(puts(&commits[0]), [addrs_key(&other)]);
}

/// It may have been promised: what the peer has now stays there until it is written with the last of these commits.
#[test]
fn what_a_peer_still_has_does_not_go_with_its_surplus() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let peer = PeerId::random();
    let store = hand.open(datastore.clone());
    store.addresses().add(peer, [addr(1)]);
    store.metadata().set(peer, "100", "x").unwrap();
    hand.flush(&store);
    surplus(&datastore.memory, &peer, 100);
    surplus(&datastore.memory, &peer, 150_000);
    datastore.take_commits();
    store.delete(&peer);
    store.addresses().add(peer, [addr(1)]);
    store.metadata().set(peer, "100", "x").unwrap();
    hand.flush(&store);
    let held = BTreeSet::from([addrs_key(&peer), metadata_key(&peer, "100")]);
    let mut commits = datastore.take_commits();
    let last = commits.pop().unwrap();
    assert!(!commits.is_empty());
    for commit in commits {
        let touched = commit.iter().filter(|(key, _)| held.contains(*key));
        assert_eq!(touched.count(), 0);
    }
    assert_eq!(puts(&last), sorted(held.iter().cloned()));
    assert_eq!(keys_of(&datastore.memory), sorted(held));
}
