//! Power cuts: a disk that keeps what was synced, and of the rest what it likes, in any order and in parts.

use std::time::Duration;

use libp2p_peerstore::PeerStore;

use crate::{
    disk::{Disk, Failing, complete, torn},
    eager, recovered,
    support::Hand,
    workload::{Model, Op, ops},
};

/// Runs operations on a store on this disk, and notes on it what is promised.
fn run(disk: &Disk, done: &[Op]) -> (Hand, PeerStore) {
    let mut hand = Hand::default();
    let store = hand.open_with(disk.open().unwrap(), eager);
    let mut promised = 0;
    for (n, op) in done.iter().enumerate() {
        disk.note(promised, n + 1);
        op.perform(&store);
        if matches!(op, Op::Flush) {
            hand.flush(&store);
            promised = n + 1;
        } else if n % 3 == 0 {
            // What the engine does by itself.
            hand.advance(Duration::from_secs(1));
        }
    }
    disk.note(promised, done.len());
    (hand, store)
}

/// Cuts the power at every sync of a workload, in so many ways each time; returns how many syncs and cuts there were.
fn cut_at_every_sync(seed: u64, operations: usize, ways: usize) -> (usize, usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let done: Vec<Op> = ops(seed).take(operations).collect();
    let disk = Disk::default();
    disk.record();
    let (_hand, store) = run(&disk, &done);
    let history = disk.take_history();
    drop(store);

    let check = |image: Vec<u8>, (promised, performed): (usize, usize), context: &str| {
        let found = recovered(Disk::with(image).open().unwrap());
        let promise = Model::default().after(&done[..promised]);
        promise.assert_reaches(&found, &done[promised..performed], &(seed, context));
    };
    let mut cuts = 0;
    for (n, moment) in history.iter().enumerate() {
        check(moment.durable.to_vec(), moment.noted, "nothing of it");
        for way in 0..ways {
            let image = torn(moment, &mut random);
            if way == 0 && n % 5 == 0 {
                cuts += cut_while_recovering(&image, &mut random, |image| {
                    check(image, moment.noted, "again while it recovered");
                });
            }
            check(image, moment.noted, "some of it");
        }
        check(complete(moment), moment.noted, "all of it");
        cuts += ways + 2;
    }
    (history.len(), cuts)
}

/// The power fails once more, while the file is opened.
fn cut_while_recovering(
    image: &[u8],
    random: &mut fastrand::Rng,
    check: impl Fn(Vec<u8>),
) -> usize {
    let disk = Disk::with(image.to_vec());
    disk.record();
    let opened = disk.open().unwrap();
    let history = disk.take_history();
    drop(opened);
    history
        .iter()
        .for_each(|moment| check(torn(moment, random)));
    history.len()
}

#[test]
fn a_power_cut_at_any_sync_loses_nothing_that_was_promised() {
    let (syncs, cuts) = cut_at_every_sync(1, 160, 2);
    assert!(syncs > 40, "{syncs}");
    println!("{syncs} syncs, {cuts} cuts, nothing lost");
}

#[test]
#[ignore = "the long form, for a release build"]
fn power_cuts_in_many_ways_at_every_sync_of_many_workloads_lose_nothing() {
    let (mut syncs, mut cuts) = (0, 0);
    for seed in 2..12 {
        let of_one = cut_at_every_sync(seed, 500, 12);
        (syncs, cuts) = (syncs + of_one.0, cuts + of_one.1);
    }
    println!("{syncs} syncs, {cuts} cuts, nothing lost");
}

/// A sync that fails may drop what it was to write, while reads still see it: the next one that works says nothing
/// about that. Returns how often the power was cut.
fn sync_that_fails_once(seed: u64, operations: usize, after: usize) -> usize {
    let mut random = fastrand::Rng::with_seed(seed);
    let done: Vec<Op> = ops(seed).take(operations).collect();
    let disk = Disk::default();
    let (mut hand, store) = run(&disk, &done[..after]);
    hand.flush(&store);
    // Operations of which all are flushed, and others of which nothing is known.
    disk.note(after, operations);
    disk.record();
    disk.fail(Failing::Sync(0, None));
    for op in &done[after..] {
        op.perform(&store);
    }
    hand.block(store.flush()).unwrap_err();
    // Its own attempts, until it has nothing left to save.
    for _ in 0..10 {
        hand.advance(Duration::from_secs(60));
    }
    assert_eq!(store.unsaved(), 0, "seed {seed}, after {after}");
    hand.flush(&store);
    assert_eq!(
        disk.installs(),
        2,
        "the first one, and a copy that is on the disk for certain"
    );
    disk.note(operations, operations);
    let history = disk.take_history();
    for moment in &history {
        for _ in 0..2 {
            let found = recovered(Disk::with(torn(moment, &mut random)).open().unwrap());
            let promise = Model::default().after(&done[..moment.noted.0]);
            let later = &done[moment.noted.0..];
            promise.assert_reaches(&found, later, &(seed, after));
        }
    }
    let found = recovered(Disk::with(disk.durable()).open().unwrap());
    assert_eq!(
        found,
        Model::default().after(&done),
        "seed {seed}, after {after}"
    );
    2 * history.len() + 1
}

#[test]
fn a_sync_that_fails_once_loses_nothing_at_the_next_power_cut() {
    let cuts: usize = (0..6).map(|seed| sync_that_fails_once(seed, 120, 90)).sum();
    assert!(cuts > 50, "{cuts}");
}

#[test]
#[ignore = "the long form, for a release build"]
fn a_sync_that_fails_once_at_any_point_loses_nothing_at_the_next_power_cut() {
    let (mut syncs, mut cuts) = (0, 0);
    for seed in 0..20 {
        for after in (20..380).step_by(20) {
            syncs += 1;
            cuts += sync_that_fails_once(seed, 400, after);
        }
    }
    println!("{syncs} failed syncs, {cuts} cuts after them, nothing lost");
}

/// What is done to a store while a sync fails: operations, an end, another start on what the disk seems to hold, and more
/// operations. Returns how often the power was cut, or `None` when the syncs that were to fail never came.
fn syncs_that_drop(
    seed: u64,
    operations: usize,
    first: usize,
    then: Option<usize>,
) -> Option<usize> {
    let mut random = fastrand::Rng::with_seed(seed);
    let done: Vec<Op> = ops(seed).take(operations).collect();
    let disk = Disk::default();
    disk.record();
    disk.fail(Failing::Sync(first, then));
    let context = (seed, first, then);
    let mut promised = 0;
    for part in [0..operations / 2, operations / 2..operations] {
        // Whoever starts a node that did not start tries again.
        let opened = (0..3).find_map(|_| disk.open().ok());
        let mut hand = Hand::default();
        let store = hand.open_with(opened.expect("a third time it opens"), eager);
        for n in part.clone() {
            disk.note(promised, n + 1);
            done[n].perform(&store);
            if matches!(done[n], Op::Flush) {
                if hand.block(store.flush()).is_ok() {
                    promised = n + 1;
                }
            } else if n % 3 == 0 {
                hand.advance(Duration::from_secs(1));
            }
        }
        for _ in 0..10 {
            hand.advance(Duration::from_secs(60));
        }
        assert_eq!(store.unsaved(), 0, "{context:?}");
        hand.flush(&store);
        promised = part.end;
        disk.note(promised, promised);
        hand.shutdown(store);
    }
    let met = !disk.is_to_fail();
    let history = disk.take_history();
    let check = |image: Vec<u8>, (promised, performed): (usize, usize)| {
        let found = recovered(Disk::with(image).open().unwrap());
        let promise = Model::default().after(&done[..promised]);
        promise.assert_reaches(&found, &done[promised..performed], &context);
    };
    // Until then it is as in the other tests.
    let since = history.iter().skip(first);
    for moment in since.clone() {
        check(moment.durable.to_vec(), moment.noted);
        check(torn(moment, &mut random), moment.noted);
    }
    check(disk.durable(), (operations, operations));
    met.then_some(2 * since.len() + 1)
}

/// For every sync of a workload, those of opening, stamping, copying, closing and opening again among them.
#[test]
fn a_sync_that_drops_what_it_was_to_write_loses_nothing_whichever_it_is() {
    let each: Vec<usize> = (0..)
        .map_while(|first| syncs_that_drop(3, 24, first, None))
        .collect();
    assert!(each.len() > 20, "{}", each.len());
    // Those of the copy that the first one leads to.
    let again: Vec<usize> = (0..10)
        .map_while(|then| syncs_that_drop(3, 24, 9, Some(then)))
        .collect();
    assert_eq!(again.len(), 10);
    println!(
        "{} failed syncs, {} cuts after them, nothing lost",
        each.len() + 2 * again.len(),
        each.iter().chain(&again).sum::<usize>()
    );
}

#[test]
#[ignore = "the long form, for a release build"]
fn two_syncs_that_drop_what_they_were_to_write_lose_nothing_whichever_they_are() {
    let (mut syncs, mut cuts) = (0, 0);
    for seed in 0..4 {
        for first in (0..).take_while(|first| syncs_that_drop(seed, 60, *first, None).is_some()) {
            for then in 0..12 {
                let Some(of_one) = syncs_that_drop(seed, 60, first, Some(then)) else {
                    break;
                };
                (syncs, cuts) = (syncs + 2, cuts + of_one);
            }
        }
    }
    println!("{syncs} failed syncs, {cuts} cuts after them, nothing lost");
}
