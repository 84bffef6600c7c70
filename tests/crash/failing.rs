//! Failures at every point of a workload: of the datastore as a whole, and of the disk below it.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use libp2p_peerstore::{
    Batch, Datastore, DatastoreError, Event, KeyValue, MemoryDatastore, PeerStore,
};
use parking_lot::Mutex;

use crate::{
    disk::{Disk, Failing},
    eager, recovered,
    support::{Act, Hand, Recording},
    workload::{Model, Op, ops},
};

const SECOND: Duration = Duration::from_secs(1);

/// Performs operations and flushes; returns how many operations were promised at last.
fn run(hand: &mut Hand, store: &PeerStore, done: &[Op]) -> usize {
    let mut promised = 0;
    for (n, op) in done.iter().enumerate() {
        op.perform(store);
        if matches!(op, Op::Flush) {
            if hand.block(store.flush()).is_ok() {
                promised = n + 1;
            }
            hand.settle();
        } else if n % 4 == 0 {
            hand.advance(SECOND);
        }
    }
    promised
}

/// Lets the engine make its own attempts until nothing is unsaved.
fn calm_down(hand: &mut Hand, store: &PeerStore) {
    for _ in 0..20 {
        hand.advance(60 * SECOND);
    }
    assert_eq!(store.unsaved(), 0);
}

// --- the datastore as a whole ------------------------------------------------------------------------------

/// What becomes of commit N.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Act(Act),
    /// It and all later ones fail.
    FailsFromThenOn,
    /// It is applied, but after everybody has given up on it.
    Late,
}

const FATES: [Fate; 5] = [
    Fate::Act(Act::Fail),
    Fate::Act(Act::FailAfterApplying),
    Fate::Act(Act::Panic),
    Fate::FailsFromThenOn,
    Fate::Late,
];

fn commit_n_meets(fate: Fate, n: usize, done: &[Op]) -> bool {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open_with(datastore.clone(), eager);
    let mut events = store.subscribe();
    let context = (fate, n);
    let acts = std::iter::repeat_n(Act::Succeed, n);
    match fate {
        Fate::Act(act) => datastore.next(acts.chain([act])),
        Fate::FailsFromThenOn => datastore.next(acts.chain(vec![Act::Fail; 10_000])),
        Fate::Late => datastore.next(acts),
    }
    let (mut promised, mut at) = (0, 0);
    let mut late = None;
    for (at_now, op) in done.iter().enumerate() {
        at = at_now;
        if fate == Fate::Late && late.is_none() && datastore.started() == n {
            datastore.hold_commits();
            late = Some(at);
        }
        op.perform(&store);
        if matches!(op, Op::Flush) {
            let flushing = store.clone();
            let mut flush = hand.start(async move { flushing.flush().await });
            // The deadline, for one that hangs.
            let outcome = hand.result(&mut flush).unwrap_or_else(|| {
                hand.advance(30 * SECOND);
                hand.result(&mut flush)
                    .expect("it is over after its deadline")
            });
            if outcome.is_ok() {
                promised = at + 1;
            }
        }
        // A crash at this moment: what is on disk is whole for each peer, and holds what was promised.
        if at % 16 == 0 || matches!(op, Op::Flush) {
            let found = recovered(copy(&datastore.memory));
            let promise = Model::default().after(&done[..promised]);
            promise.assert_reaches(&found, &done[promised..=at], &context);
        }
        // Some operations after it began to hang, it goes on.
        if late.is_some_and(|since| at > since + 12) {
            datastore.release();
            hand.settle();
        }
    }
    datastore.release();
    hand.settle();
    assert_eq!(
        Model::of(&store),
        Model::default().after(done),
        "memory is complete: {context:?}"
    );
    assert!(datastore.most_in_flight() <= 1);
    let met = datastore.started() > n;
    // Whatever was not promised by then is kept for when it works again.
    datastore.behave();
    calm_down(&mut hand, &store);
    let found = recovered(copy(&datastore.memory));
    assert_eq!(found, Model::default().after(done), "{context:?} at {at}");
    let mut told = 0;
    while let Some(event) = events.try_next() {
        told += usize::from(matches!(
            event,
            Event::CommitFailed { .. } | Event::Lagged(_)
        ));
    }
    assert!(told > 0 || !met || fate == Fate::Late, "{context:?}");
    met
}

fn copy(memory: &MemoryDatastore) -> MemoryDatastore {
    let copy = MemoryDatastore::default();
    let mut batch = Batch::default();
    for (key, value) in memory.entries() {
        batch.put(key, value);
    }
    copy.commit(batch).now_or_never().unwrap().unwrap();
    copy
}

fn every_commit_fails_once(seed: u64, operations: usize) -> usize {
    let done: Vec<Op> = ops(seed).take(operations).collect();
    let mut tried = 0;
    for fate in FATES {
        let met = (0..)
            .take_while(|n| commit_n_meets(fate, *n, &done))
            .count();
        assert!(met > 5, "{fate:?}: {met}");
        tried += met;
    }
    tried
}

#[test]
fn a_datastore_that_fails_at_commit_n_loses_nothing_for_any_n() {
    let tried = every_commit_fails_once(7, 90);
    println!("{tried} commits met their fate, nothing lost");
}

#[test]
#[ignore = "the long form, for a release build"]
fn a_datastore_that_fails_at_commit_n_of_many_workloads_loses_nothing() {
    let tried: usize = (10..20)
        .map(|seed| every_commit_fails_once(seed, 600))
        .sum();
    println!("{tried} commits met their fate, nothing lost");
}

/// A datastore without transactions applies peers one by one and may stop between two of them.
#[derive(Clone, Default)]
struct PeerByPeer {
    memory: MemoryDatastore,
    /// How many peers it applies before it fails; counts down.
    left: Arc<Mutex<Option<usize>>>,
}

impl Datastore for PeerByPeer {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        self.memory.get(key)
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        self.memory.query(prefix)
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        async move {
            let mut peers = std::collections::BTreeMap::<String, Batch>::new();
            for (key, value) in batch {
                let peer = key.split('/').nth(3).unwrap().to_owned();
                let of_peer = peers.entry(peer).or_default();
                match value {
                    Some(value) => of_peer.put(key, value),
                    None => of_peer.delete(key),
                }
            }
            for batch in peers.into_values() {
                {
                    let mut left = self.left.lock();
                    match &mut *left {
                        Some(0) => {
                            *left = None;
                            return Err(DatastoreError::failed("commit", "model", "told to fail"));
                        }
                        Some(n) => *n -= 1,
                        None => {}
                    }
                }
                self.memory.commit(batch).await?;
            }
            Ok(())
        }
        .boxed()
    }
}

#[test]
fn a_datastore_that_fails_between_two_peers_loses_nothing_for_any_two() {
    let done: Vec<Op> = ops(3).take(150).collect();
    let met = (0..).take_while(|n| {
        let (mut hand, datastore) = (Hand::default(), PeerByPeer::default());
        *datastore.left.lock() = Some(*n);
        let store = hand.open_with(datastore.clone(), eager);
        let promised = run(&mut hand, &store, &done);
        let promise = Model::default().after(&done[..promised]);
        let found = recovered(copy(&datastore.memory));
        promise.assert_reaches(&found, &done[promised..], n);
        calm_down(&mut hand, &store);
        let found = recovered(copy(&datastore.memory));
        assert_eq!(found, Model::default().after(&done), "after {n} peers");
        datastore.left.lock().is_none()
    });
    let met = met.count();
    assert!(met > 100, "{met}");
}

// --- the disk below redb -----------------------------------------------------------------------------------

/// A write, a change of the length or a sync fails, then once or for ever.
fn operation_n_of_the_disk_fails(n: usize, for_ever: bool, done: &[Op]) -> bool {
    let disk = Disk::default();
    let mut hand = Hand::default();
    let store = hand.open_with(disk.open().unwrap(), eager);
    let mut events = store.subscribe();
    let before = disk.count();
    disk.fail(if for_ever {
        Failing::From(n)
    } else {
        Failing::Once(n)
    });
    let promised = run(&mut hand, &store, done);
    let met = disk.count() > before + n;
    assert_eq!(
        Model::of(&store),
        Model::default().after(done),
        "memory is complete"
    );

    // The power fails now.
    let promise = Model::default().after(&done[..promised]);
    let found = recovered(Disk::with(disk.durable()).open().unwrap());
    promise.assert_reaches(&found, &done[promised..], &(n, for_ever));

    // It did not: the disk recovers.
    disk.fail(Failing::None);
    calm_down(&mut hand, &store);
    hand.flush(&store);
    let found = recovered(Disk::with(disk.durable()).open().unwrap());
    assert_eq!(found, Model::default().after(done), "{n} {for_ever}");
    let mut failures = Vec::new();
    while let Some(event) = events.try_next() {
        if let Event::CommitFailed { error, .. } = event {
            failures.push(error.to_string());
        }
    }
    assert!(
        failures.iter().all(|text| text.contains("`disk`")),
        "{failures:?}"
    );
    met
}

fn every_operation_of_the_disk_fails(seed: u64, operations: usize, step: usize) -> usize {
    let done: Vec<Op> = ops(seed).take(operations).collect();
    let mut tried = 0;
    for for_ever in [false, true] {
        let ns = (0..).step_by(step);
        tried += ns
            .take_while(|n| operation_n_of_the_disk_fails(*n, for_ever, &done))
            .count();
    }
    tried
}

#[test]
fn a_disk_that_fails_at_operation_n_loses_nothing() {
    let tried = every_operation_of_the_disk_fails(5, 50, 5);
    assert!(tried > 20, "{tried}");
    println!("{tried} operations of the disk failed, nothing lost");
}

#[test]
#[ignore = "the long form, for a release build"]
fn a_disk_that_fails_at_operation_n_loses_nothing_for_every_n() {
    let tried: usize = (20..25)
        .map(|seed| every_operation_of_the_disk_fails(seed, 250, 1))
        .sum();
    println!("{tried} operations of the disk failed, nothing lost");
}
