//! A datastore that fails, hangs or panics: nothing is lost, nothing is written twice at once.

use std::{error::Error as _, time::Duration};

use futures::FutureExt;
use libp2p::PeerId;
use libp2p_peerstore::{
    Batch, DatastoreError, Event, FlushError, OpenError, PeerStore, PeerStoreBehaviour,
    Subscription,
};

use crate::{
    support::{Act, Hand, Recording, addr, addrs_key, protos_key, puts, sorted},
    swarm::{Gossip, dial_failed},
};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn touch(store: &PeerStore) -> PeerId {
    let peer = PeerId::random();
    assert!(store.addresses().add(peer, [addr(1)]).changed);
    peer
}

/// The failed commits that a reader was told of: how many peers were unsaved, and what the datastore said.
fn failures(events: &mut Subscription) -> Vec<(usize, String)> {
    let mut failures = Vec::new();
    while let Some(event) = events.try_next() {
        if let Event::CommitFailed { error, unsaved } = event {
            failures.push((unsaved, error.to_string()));
        }
    }
    failures
}

const REFUSED: &str = "cannot commit in `faulty datastore`";

fn value<'a>(batch: &'a Batch, key: &str) -> &'a [u8] {
    let found = batch.iter().find(|(other, _)| *other == key);
    found.unwrap().1.unwrap()
}

// --- failing -----------------------------------------------------------------------------------------------

#[test]
fn a_failed_commit_loses_nothing_and_says_so() {
    for act in [Act::Fail, Act::FailAfterApplying] {
        let (mut hand, datastore) = (Hand::default(), Recording::default());
        let store = hand.open(datastore.clone());
        let mut events = store.subscribe();
        datastore.next([act]);
        let peers: Vec<PeerId> = (0..5).map(|_| touch(&store)).collect();
        hand.settle();
        assert_eq!(failures(&mut events), [(5, REFUSED.to_owned())]);
        assert_eq!(store.unsaved(), 5);
        assert_eq!(datastore.take_commit().len(), 5);

        hand.advance(SECOND - MILLISECOND);
        assert_eq!(datastore.started(), 1);
        hand.advance(MILLISECOND);
        let expected = sorted(peers.iter().map(addrs_key));
        assert_eq!(puts(&datastore.take_commit()), expected);
        assert_eq!((store.unsaved(), failures(&mut events)), (0, vec![]));
        assert_eq!(hand.open(datastore.memory.clone()).len(), 5);
    }
}

#[test]
fn the_pause_between_retries_grows_to_a_minute_and_ends_with_success() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let mut events = store.subscribe();
    let pauses = [1, 2, 4, 8, 16, 32, 60, 60];
    datastore.next(pauses.map(|_| Act::Fail));
    for _ in 0..5 {
        touch(&store);
    }
    hand.settle();
    for (tried, pause) in pauses.into_iter().enumerate() {
        assert_eq!(datastore.started(), tried + 1);
        hand.advance(pause * SECOND - MILLISECOND);
        assert_eq!(datastore.started(), tried + 1, "within {pause} s");
        hand.advance(MILLISECOND);
    }
    assert_eq!(datastore.started(), pauses.len() + 1);
    assert_eq!(failures(&mut events).len(), pauses.len());
    assert_eq!(store.unsaved(), 0);

    datastore.next([Act::Fail]);
    hand.advance(SECOND);
    for _ in 0..5 {
        touch(&store);
    }
    hand.settle();
    hand.advance(SECOND);
    assert_eq!(datastore.started(), pauses.len() + 3);
    assert_eq!(store.unsaved(), 0);
}

/// Fewer peers than the threshold are retried after the same pause, not after another maximum delay.
#[test]
fn a_single_peer_is_retried_after_the_pause_as_well() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    datastore.next([Act::Fail, Act::Fail]);
    touch(&store);
    hand.advance(30 * SECOND);
    assert_eq!(datastore.started(), 1);
    hand.advance(SECOND);
    assert_eq!(datastore.started(), 2);
    hand.advance(2 * SECOND);
    assert_eq!((datastore.started(), store.unsaved()), (3, 0));
}

#[test]
fn small_print_that_failed_to_be_saved_is_retried_too() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let mut behaviour = PeerStoreBehaviour::new(store.clone()).unwrap();
    let peer = touch(&store);
    hand.flush(&store);
    dial_failed(&mut behaviour, peer, &addr(1));
    datastore.next([Act::Fail]);
    hand.block(store.flush()).unwrap_err();
    hand.settle();
    hand.advance(SECOND);
    assert_eq!((datastore.started(), store.unsaved()), (3, 0));
}

#[test]
fn the_retry_writes_a_record_as_it_is_by_then() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    datastore.next([Act::FailAfterApplying]);
    let peers: Vec<PeerId> = (0..5).map(|_| touch(&store)).collect();
    store.metadata().set(peers[3], "note", "x").unwrap();
    hand.settle();
    datastore.take_commit();

    store.addresses().set(peers[0], [addr(2)]);
    store.protocols().add(peers[1], ["/p"]);
    store.delete(&peers[2]);
    store.metadata().delete_value(&peers[3], "note");
    hand.advance(SECOND);
    assert_eq!(datastore.started(), 2);
    let again = hand.open(datastore.memory.clone());
    assert_eq!(again.len(), 4);
    assert_eq!(again.addresses().get(&peers[0]).unwrap(), [addr(2)]);
    assert_eq!(again.protocols().get(&peers[1]).unwrap().len(), 1);
    assert!(again.metadata().get(&peers[3]).unwrap().is_empty());
    assert_eq!(datastore.memory.len(), 5);
}

#[test]
fn a_flush_that_fails_says_how_many_peers_are_unsaved_and_why() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    datastore.next([Act::Fail, Act::Fail]);
    (0..3).for_each(|_| {
        touch(&store);
    });
    for _ in 0..2 {
        // The pause is for the engine's own attempts; who asks is answered.
        match hand.block(store.flush()).unwrap_err() {
            FlushError::Failed { unsaved, source } => {
                assert_eq!((unsaved, source.to_string()), (3, REFUSED.to_owned()));
            }
            other => panic!("{other}"),
        }
    }
    hand.flush(&store);
    assert_eq!((datastore.started(), store.unsaved()), (3, 0));
}

#[test]
fn what_a_row_of_commits_has_written_is_not_written_again_when_a_later_one_fails() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let never = usize::MAX.try_into().unwrap();
    let store = hand.open_with(datastore.clone(), |config| {
        config.with_commit_threshold(never)
    });
    for _ in 0..9_000 {
        touch(&store);
    }
    datastore.next([Act::Succeed, Act::Fail]);
    let failed = hand.block(store.flush()).unwrap_err();
    let parts: Vec<usize> = datastore.take_commits().iter().map(Batch::len).collect();
    assert_eq!(parts.len(), 2, "a third part was not tried");
    let left = 9_000 - parts[0];
    assert!(
        matches!(failed, FlushError::Failed { unsaved, .. } if unsaved == left),
        "{failed}"
    );
    assert_eq!((store.unsaved(), datastore.memory.len()), (left, parts[0]));

    hand.flush(&store);
    let rest: usize = datastore.take_commits().iter().map(Batch::len).sum();
    assert_eq!((rest, store.unsaved()), (left, 0));
    assert_eq!(datastore.memory.len(), 9_000);
}

// --- changes during a commit -------------------------------------------------------------------------------

#[test]
fn a_change_during_a_commit_is_not_clean_when_it_ends() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let peer = touch(&store);
    datastore.hold_commits();
    let flushing = store.clone();
    let mut flush = hand.start(async move { flushing.flush().await });
    assert_eq!(datastore.in_flight(), 1);
    store.addresses().add(peer, [addr(2)]);
    store.protocols().add(peer, ["/p"]);
    // One peer, though it is both under way and dirty again.
    assert_eq!(store.unsaved(), 1);

    datastore.release();
    hand.result(&mut flush).unwrap().unwrap();
    assert_eq!(store.unsaved(), 1);
    let first = datastore.take_commit();
    assert_eq!(puts(&first), [addrs_key(&peer)]);
    hand.advance(30 * SECOND);
    let second = datastore.take_commit();
    assert_eq!(puts(&second), sorted([addrs_key(&peer), protos_key(&peer)]));
    let key = addrs_key(&peer);
    assert!(value(&second, &key).len() > value(&first, &key).len());
    assert_eq!(store.unsaved(), 0);
}

#[test]
fn a_change_during_a_commit_that_fails_is_written_with_the_retry() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let mut events = store.subscribe();
    let peer = touch(&store);
    datastore.hold_commits();
    datastore.next([Act::Fail]);
    hand.advance(30 * SECOND);
    store.protocols().add(peer, ["/p"]);
    let other = touch(&store);
    datastore.release();
    hand.settle();
    assert_eq!(failures(&mut events), [(2, REFUSED.to_owned())]);
    datastore.take_commit();
    hand.advance(SECOND);
    let expected = sorted([addrs_key(&peer), protos_key(&peer), addrs_key(&other)]);
    assert_eq!(puts(&datastore.take_commit()), expected);
}

#[test]
fn a_peer_that_is_deleted_during_its_commit_is_gone_after_the_next() {
    for act in [None, Some(Act::Fail), Some(Act::FailAfterApplying)] {
        let (mut hand, datastore) = (Hand::default(), Recording::default());
        let store = hand.open(datastore.clone());
        let (deleted, back) = (touch(&store), touch(&store));
        datastore.next(act);
        datastore.hold_commits();
        hand.advance(30 * SECOND);
        assert!(store.delete(&deleted) && store.delete(&back));
        store.addresses().add(back, [addr(2)]);
        datastore.release();
        hand.settle();
        hand.advance(30 * SECOND);
        assert_eq!(store.unsaved(), 0);
        let again = hand.open(datastore.memory.clone());
        assert_eq!(again.peer_ids(), [back]);
        assert_eq!(again.addresses().get(&back).unwrap(), [addr(2)]);
    }
}

// --- hanging -----------------------------------------------------------------------------------------------

#[test]
fn a_late_commit_does_not_overwrite_newer_data() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let peer = touch(&store);
    datastore.hold_commits();
    let (first, second) = (store.clone(), store.clone());
    let mut first = hand.start(async move { first.flush().await });
    hand.advance(30 * SECOND - MILLISECOND);
    assert!(hand.result(&mut first).is_none());
    hand.advance(MILLISECOND);
    match hand.result(&mut first).unwrap().unwrap_err() {
        FlushError::Deadline { unsaved, deadline } => {
            assert_eq!((unsaved, deadline), (1, 30 * SECOND));
        }
        other => panic!("{other}"),
    }

    // Whoever flushes meanwhile waits behind the commit that hangs, and starts none beside it.
    store.addresses().set(peer, [addr(2)]);
    let mut second = hand.start(async move { second.flush().await });
    hand.advance(SECOND);
    assert!(hand.result(&mut second).is_none());
    assert_eq!((datastore.started(), datastore.in_flight()), (1, 1));

    datastore.release();
    hand.result(&mut second).unwrap().unwrap();
    assert_eq!((datastore.started(), datastore.most_in_flight()), (2, 1));
    assert_eq!(store.unsaved(), 0);
    let again = hand.open(datastore.memory.clone());
    assert_eq!(again.addresses().get(&peer).unwrap(), [addr(2)]);
}

#[test]
fn a_flush_deadline_is_configurable_and_takes_nothing_back() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open_with(datastore.clone(), |config| {
        config.with_flush_deadline(SECOND)
    });
    touch(&store);
    datastore.hold_commits();
    let flushing = store.clone();
    let mut flush = hand.start(async move { flushing.flush().await });
    hand.advance(SECOND);
    let late = hand.result(&mut flush).unwrap().unwrap_err();
    assert_eq!(
        late.to_string(),
        "1 peers were not saved within 1s; the datastore is slow or hangs"
    );
    datastore.release();
    hand.settle();
    assert_eq!((datastore.started(), store.unsaved()), (1, 0));
    assert_eq!(datastore.memory.len(), 1);
}

#[test]
fn a_cancelled_flush_leaves_a_working_store() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let peer = touch(&store);
    datastore.hold_commits();
    let flushing = store.clone();
    let flush = hand.start(async move { flushing.flush().await });
    assert_eq!(datastore.in_flight(), 1);
    drop(flush);
    hand.settle();
    assert_eq!((datastore.in_flight(), store.unsaved()), (1, 1));

    datastore.release();
    hand.settle();
    assert_eq!((datastore.started(), store.unsaved()), (1, 0));
    store.addresses().add(peer, [addr(2)]);
    hand.flush(&store);
    assert_eq!((datastore.started(), store.unsaved()), (2, 0));

    // One that was never polled has done nothing at all.
    store.addresses().add(peer, [addr(3)]);
    drop(store.flush());
    hand.settle();
    assert_eq!(datastore.started(), 2);
}

#[test]
fn an_open_that_is_given_up_releases_the_datastore() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    datastore.hold_queries();
    let config = hand.config();
    let open = PeerStore::open(PeerId::random(), datastore.clone(), config);
    let open = hand.start(open);
    assert_eq!(datastore.queries().len(), 1);
    drop(open);
    hand.settle();
    // Though the query still hangs.
    assert_eq!(datastore.closes(), 1);
    assert!(!datastore.is_held());

    // What it hung on is of no interest to the next one.
    datastore.release();
    let store = hand.open(datastore.clone());
    touch(&store);
    hand.shutdown(store);
    assert_eq!((datastore.memory.len(), datastore.closes()), (1, 2));
}

#[test]
fn an_open_that_is_given_up_when_it_is_done_releases_the_datastore_too() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let config = hand.config();
    let mut open = Box::pin(PeerStore::open(PeerId::random(), datastore.clone(), config));
    // Polled once, the engine loads everything; nobody takes the result.
    assert!((&mut open).now_or_never().is_none());
    hand.settle();
    assert_eq!(datastore.queries().len(), 1);
    drop(open);
    hand.settle();
    assert_eq!((datastore.started(), datastore.closes()), (0, 1));
    assert!(!datastore.is_held());
}

// --- panicking ---------------------------------------------------------------------------------------------

#[test]
fn a_panic_in_a_commit_is_a_failed_commit() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let mut events = store.subscribe();
    datastore.next([Act::Panic]);
    touch(&store);
    hand.advance(30 * SECOND);
    let text = "the datastore panicked while it was asked to commit: told to panic in commit";
    assert_eq!(failures(&mut events), [(1, text.to_owned())]);
    assert_eq!(store.unsaved(), 1);
    hand.advance(SECOND);
    assert_eq!((datastore.started(), store.unsaved()), (2, 0));
    hand.shutdown(store);
    assert_eq!(datastore.closes(), 1);
}

#[test]
fn a_panic_in_a_query_fails_the_open_and_closes_the_datastore() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    datastore.panic_in_query();
    let config = hand.config();
    let error = hand.try_open(datastore.clone(), config).unwrap_err();
    assert!(
        matches!(error, OpenError::Load(DatastoreError::Panicked { .. })),
        "{error:?}"
    );
    let source = error.source().unwrap().to_string();
    assert!(source.contains("told to panic in query"), "{source}");
    assert_eq!(datastore.closes(), 1);
    assert!(!datastore.is_held());
}

#[test]
fn a_panic_in_close_does_not_spoil_the_shutdown() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    datastore.panic_in_close();
    store.learn(&Gossip(PeerId::random(), addr(1)));
    hand.block(store.shutdown()).unwrap();
    hand.settle();
    assert_eq!((datastore.memory.len(), datastore.closes()), (1, 1));
    assert!(!datastore.is_held());
}
