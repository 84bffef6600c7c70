//! Moving from one datastore to another: everything arrives, in bounded pieces, and a second run goes on where the
//! first one ended.

#![cfg(all(feature = "testing", feature = "redb", feature = "fs"))]
#![allow(clippy::unwrap_used)]

#[path = "support/datastore.rs"]
mod support;

use std::{collections::BTreeMap, error::Error as _, num::NonZeroUsize};

use futures::{TryStreamExt, executor::block_on};
use libp2p::PeerId;
use libp2p_peerstore::{
    Batch, Config, Datastore, FsDatastore, KeyValue, MemoryDatastore, MigrationError,
    MigrationOptions, MigrationReport, PeerStore, RedbDatastore, migrate,
    testing::{Call, Fault, FaultyDatastore, RecordingDatastore},
};

use support::{addr, addrs_key, keys_key, metadata_key, protos_key};

fn size(n: usize) -> NonZeroUsize {
    n.try_into().unwrap()
}

fn options() -> MigrationOptions {
    MigrationOptions::default()
}

fn run(
    from: &dyn Datastore,
    to: &dyn Datastore,
    options: &MigrationOptions,
) -> Result<MigrationReport, MigrationError> {
    block_on(migrate(from, to, options, |_| {}))
}

fn entries(datastore: &dyn Datastore) -> Vec<KeyValue> {
    let mut entries: Vec<KeyValue> = block_on(datastore.query("").try_collect()).unwrap();
    entries.sort();
    entries
}

/// A datastore as a store leaves it: three entries for each peer.
fn written(peers: usize) -> MemoryDatastore {
    let memory = MemoryDatastore::default();
    let open = PeerStore::open(PeerId::random(), memory.clone(), Config::default());
    let store = block_on(open).unwrap();
    for _ in 0..peers {
        let peer = PeerId::random();
        store.addresses().add(peer, [addr(1), addr(2)]);
        store.protocols().set(peer, ["/b", "/a"]);
        store.metadata().set(peer, "a/../b", "").unwrap();
    }
    block_on(store.shutdown()).unwrap();
    memory
}

#[test]
fn everything_arrives_from_each_datastore_in_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let source = written(200);
    let redb = RedbDatastore::open(folder.path().join("peers.redb")).unwrap();
    let fs = FsDatastore::open(folder.path().join("folder")).unwrap();
    let portable = FsDatastore::open_portable(folder.path().join("portable")).unwrap();
    let last = MemoryDatastore::default();
    let row: [&dyn Datastore; 5] = [&source, &redb, &fs, &portable, &last];
    for pair in row.windows(2) {
        let report = run(pair[0], pair[1], &options()).unwrap();
        assert_eq!(
            (report.entries, report.written, report.peers),
            (600, 600, 200)
        );
        assert_eq!((report.foreign, report.undecodable), (0, 0));
        assert_eq!(entries(pair[1]), source.entries());
    }
    block_on(fs.close()).unwrap();
    drop(fs);
    let again = FsDatastore::open(folder.path().join("folder")).unwrap();
    let store = block_on(PeerStore::open(PeerId::random(), again, Config::default())).unwrap();
    assert_eq!((store.len(), store.load_report().foreign), (200, 0));
    assert!(
        store
            .peers()
            .iter()
            .all(|peer| peer.metadata.contains_key("a/../b"))
    );
}

#[test]
fn commits_are_bounded_in_entries_and_in_bytes_and_each_is_told() {
    let source = MemoryDatastore::default();
    for n in 0..95 {
        block_on(source.put(&format!("/peers/addrs/{n:02}"), vec![0; 82])).unwrap();
    }
    block_on(source.put("/peers/large", vec![0; 10_000])).unwrap();
    let run = |options: MigrationOptions| {
        let target = RecordingDatastore::new(MemoryDatastore::default());
        let mut told = Vec::new();
        let report = block_on(migrate(&source, &target, &options, |so_far| {
            told.push(*so_far)
        }))
        .unwrap();
        assert_eq!(target.inner().entries(), source.entries());
        assert_eq!(told.last(), Some(&report));
        assert!(
            told.windows(2)
                .all(|pair| pair[0].entries <= pair[1].entries)
        );
        let sizes: Vec<usize> = target.take_commits().iter().map(Batch::len).collect();
        assert_eq!(sizes.iter().sum::<usize>(), 96);
        assert!(told.len() >= sizes.len());
        sizes
    };
    let sizes = run(options().with_batch(size(10)));
    assert_eq!(sizes, [10, 10, 10, 10, 10, 10, 10, 10, 10, 6]);
    // 97 bytes in each entry, with its key.
    let sizes = run(options().with_batch_bytes(size(970)));
    assert_eq!(sizes, [10, 10, 10, 10, 10, 10, 10, 10, 10, 6]);
    assert_eq!(run(options()), [96]);
    assert_eq!(run(options().with_batch_bytes(size(1))), [1; 96]);
}

#[test]
fn a_second_run_writes_nothing_and_what_changed_meanwhile_is_written() {
    let (source, target) = (written(50), MemoryDatastore::default());
    run(&source, &target, &options()).unwrap();
    let recording = RecordingDatastore::new(target.clone());
    let report = run(&source, &recording, &options()).unwrap();
    assert_eq!((report.written, report.unchanged), (0, 150));
    assert_eq!(recording.commits_started(), 0);

    let (key, _) = source.entries().swap_remove(7);
    block_on(target.put(&key, b"other".to_vec())).unwrap();
    block_on(target.put("/peers/only here", vec![])).unwrap();
    let report = run(&source, &target, &options().with_keep_existing(true)).unwrap();
    assert_eq!((report.written, report.unchanged, report.kept), (0, 149, 1));
    assert_eq!(block_on(target.get(&key)).unwrap().unwrap(), b"other");
    let report = run(&source, &target, &options()).unwrap();
    assert_eq!((report.written, report.unchanged, report.kept), (1, 149, 0));
    assert_eq!(target.len(), 151);
}

#[test]
fn a_run_that_fails_anywhere_is_completed_by_the_next() {
    let source = written(40);
    let options = options().with_batch(size(16));
    for commit in 0..8 {
        for fault in [Fault::Fail, Fault::FailAfterApplying] {
            let target = FaultyDatastore::new(MemoryDatastore::default());
            target.fail_commit(commit, fault);
            let error = run(&source, &target, &options).unwrap_err();
            let MigrationError::Commit { report, .. } = &error else {
                panic!("{error:?}");
            };
            assert_eq!(report.written, commit * 16);
            assert!(error.to_string().contains("run the migration again"));
            assert_eq!(
                error.source().unwrap().to_string(),
                "cannot commit in `faulty datastore`"
            );
            let report = run(&source, &target, &options).unwrap();
            assert_eq!(report.written + report.unchanged, 120);
            let applied = commit + usize::from(fault == Fault::FailAfterApplying);
            assert_eq!(report.unchanged, (applied * 16).min(120));
            assert_eq!(target.inner().entries(), source.entries());
        }
    }
    let faulty = FaultyDatastore::new(source.clone());
    for fault in [Fault::Fail, Fault::FailAfterApplying] {
        faulty.fail(Call::Query, 0, fault);
        let target = MemoryDatastore::default();
        let error = run(&faulty, &target, &options).unwrap_err();
        assert!(matches!(error, MigrationError::Read { .. }), "{error:?}");
        run(&faulty, &target, &options).unwrap();
        assert_eq!(target.entries(), source.entries());
    }
}

#[test]
fn a_run_that_is_dropped_is_completed_by_the_next() {
    let (source, target) = (
        written(40),
        FaultyDatastore::new(MemoryDatastore::default()),
    );
    let options = options().with_batch(size(16));
    target.hold(Call::Commit);
    target.release_one();
    let mut executor = libp2p_peerstore::testing::ManualExecutor::default();
    let (from, to, pieces) = (source.clone(), target.clone(), options.clone());
    let handle = executor.start(async move { migrate(&from, &to, &pieces, |_| {}).await });
    assert_eq!(target.inner().len(), 16);
    drop(handle);
    executor.settle();
    target.release();
    assert_eq!(run(&source, &target, &options).unwrap().unchanged, 16);
    assert_eq!(target.inner().entries(), source.entries());
}

#[test]
fn foreign_and_undecodable_entries_are_counted_and_copied_unless_left_out() {
    let source = written(10);
    let peer = PeerId::random();
    let foreign = ["/peers/other", "/peers/addrs/QmX", "/peers/metadata/x"];
    let undecodable = [addrs_key(&peer), protos_key(&peer), keys_key(&peer)];
    for key in foreign.map(str::to_owned).iter().chain(&undecodable) {
        block_on(source.put(key, vec![0xff; 3])).unwrap();
    }
    block_on(source.put(&metadata_key(&peer, "any"), vec![0xff; 3])).unwrap();
    block_on(source.put("/pk/elsewhere", vec![1])).unwrap();

    let target = MemoryDatastore::default();
    let report = run(&source, &target, &options()).unwrap();
    assert_eq!((report.foreign, report.undecodable), (3, 3));
    assert_eq!(
        (report.entries, report.written, report.left_out),
        (37, 37, 0)
    );
    let expected: BTreeMap<_, _> = source.entries().into_iter().collect();
    let mut here = expected.clone();
    here.remove("/pk/elsewhere");
    assert_eq!(target.entries(), Vec::from_iter(here.clone()));

    let target = MemoryDatastore::default();
    let report = run(&source, &target, &options().with_only_readable(true)).unwrap();
    assert_eq!((report.written, report.left_out), (31, 6));
    here.retain(|key, _| !foreign.contains(&key.as_str()) && !undecodable.contains(key));
    assert_eq!(target.entries(), Vec::from_iter(here));
    // What a store says of it agrees.
    let store = block_on(PeerStore::open(
        PeerId::random(),
        source.clone(),
        Config::default(),
    ));
    let loaded = store.unwrap().load_report();
    assert_eq!((loaded.foreign, loaded.undecodable), (3, 3));

    let target = MemoryDatastore::default();
    let report = run(&source, &target, &options().with_prefix("")).unwrap();
    assert_eq!((report.entries, report.foreign), (38, 4));
    assert_eq!(target.entries(), Vec::from_iter(expected));
}

#[test]
fn nothing_is_a_migration_too() {
    let report = run(
        &MemoryDatastore::default(),
        &MemoryDatastore::default(),
        &options(),
    );
    assert_eq!(report.unwrap(), MigrationReport::default());
}
