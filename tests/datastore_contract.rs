//! Every datastore that this crate ships keeps the rules of the trait; and what they promise beyond those.

#![cfg(all(feature = "testing", feature = "redb", feature = "fs"))]
#![allow(clippy::unwrap_used)]

use std::{
    panic::AssertUnwindSafe,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{
    FutureExt, StreamExt, TryStreamExt,
    executor::block_on,
    future::{BoxFuture, join_all},
    stream::BoxStream,
};
use libp2p_peerstore::{
    Batch, Datastore, DatastoreError, FsDatastore, KeyValue, MemoryDatastore, RedbDatastore,
    testing::{self, Call, Conformance, Fault, FaultyDatastore, RecordingDatastore},
};
use tempfile::TempDir;

// --- the suite ---------------------------------------------------------------------------------------------

/// Paths for one datastore after the other.
struct Paths {
    folder: TempDir,
    count: AtomicUsize,
}

impl Paths {
    /// In memory where that is possible: what is checked here does not depend on the disk, and syncs take time.
    fn new() -> Self {
        let memory = tempfile::tempdir_in("/dev/shm");
        Self {
            folder: memory.or_else(|_| tempfile::tempdir()).unwrap(),
            count: AtomicUsize::new(0),
        }
    }

    fn next(&self) -> PathBuf {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.last()
    }

    fn last(&self) -> PathBuf {
        let last = self.count.load(Ordering::Relaxed);
        self.folder.path().join(last.to_string())
    }
}

/// Checks that a datastore on disk keeps the rules, those about reopening too.
fn check<D: Datastore>(open: impl Fn(PathBuf) -> D + Send + Sync) {
    let (paths, open) = (&Paths::new(), &open);
    let suite = Conformance::new(|| async { open(paths.next()) }).with_reopen(|old| async move {
        drop(old);
        open(paths.last())
    });
    let report = block_on(suite.run());
    report.assert();
    assert_eq!(report.left_out, [""; 0]);
    assert!(report.passed.len() > 30, "{report}");
}

#[test]
fn memory_keeps_the_rules() {
    block_on(testing::conformance(|| async {
        MemoryDatastore::default()
    }));
    // It is as durable as a process: a clone shares its content.
    let suite = Conformance::new(|| async { MemoryDatastore::default() })
        .with_reopen(|old: MemoryDatastore| async move { old.clone() });
    block_on(suite.run()).assert();
}

#[test]
fn redb_keeps_the_rules() {
    check(|path| RedbDatastore::open(path).unwrap());
}

#[test]
fn fs_keeps_the_rules() {
    check(|path| FsDatastore::open(path).unwrap());
}

#[test]
fn fs_with_portable_names_keeps_the_rules() {
    check(|path| FsDatastore::open_portable(path).unwrap());
}

#[test]
fn a_shared_datastore_keeps_the_rules() {
    block_on(testing::conformance(|| async {
        let datastore: Arc<dyn Datastore> = Arc::new(MemoryDatastore::default());
        datastore
    }));
}

#[test]
fn what_stands_before_a_datastore_keeps_the_rules() {
    block_on(testing::conformance(|| async {
        RecordingDatastore::new(FaultyDatastore::new(MemoryDatastore::default()))
    }));
}

#[test]
fn a_datastore_that_takes_its_time_keeps_the_rules() {
    block_on(testing::conformance(|| async { Slow::default() }));
}

/// Every call is pending a few times before it does anything.
#[derive(Default)]
struct Slow(MemoryDatastore);

async fn a_while() {
    let mut left = 3;
    futures::future::poll_fn(|cx| {
        if left == 0 {
            return std::task::Poll::Ready(());
        }
        left -= 1;
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

impl Datastore for Slow {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        Box::pin(async move {
            a_while().await;
            self.0.get(key).await
        })
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        self.0
            .query(prefix)
            .then(|entry| async {
                a_while().await;
                entry
            })
            .boxed()
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        Box::pin(async move {
            a_while().await;
            let done = self.0.commit(batch).await;
            a_while().await;
            done
        })
    }
}

// --- what the datastores here promise beyond the trait -----------------------------------------------------

/// Runs a check on each of them.
fn each(check: impl Fn(&dyn Datastore)) {
    let paths = Paths::new();
    check(&MemoryDatastore::default());
    check(&RedbDatastore::open(paths.next()).unwrap());
    check(&FsDatastore::open(paths.next()).unwrap());
    check(&FsDatastore::open_portable(paths.next()).unwrap());
}

#[test]
fn commits_may_run_at_once() {
    each(|datastore| {
        block_on(join_all((0..20).map(|n| async move {
            let key = format!("/{n}");
            datastore.put(&key, key.clone().into()).await.unwrap();
            assert_eq!(datastore.get(&key).await.unwrap().unwrap(), key.as_bytes());
        })));
        let entries: Vec<_> = block_on(datastore.query("/").try_collect()).unwrap();
        assert_eq!(entries.len(), 20);
    });
}

#[test]
fn keys_may_be_any_text_of_any_length() {
    each(|datastore| {
        let long = [1_000, 4_000, 70_000].map(|len| format!("/{}", "long".repeat(len / 4)));
        let deep = [200, 2_000].map(|len| format!("/{}", "d/".repeat(len)));
        let odd = ["0", "a/b", "..", "\0"].map(str::to_owned);
        let keys: Vec<String> = long.into_iter().chain(deep).chain(odd).collect();
        for key in &keys {
            block_on(datastore.put(key, key.clone().into())).unwrap();
        }
        for key in &keys {
            let found: Vec<_> = block_on(datastore.query(key).try_collect()).unwrap();
            assert!(
                found
                    .iter()
                    .any(|(other, value)| other == key && value == key.as_bytes())
            );
            assert!(
                found
                    .iter()
                    .all(|(other, _)| other.starts_with(key.as_str()))
            );
            assert_eq!(
                block_on(datastore.get(key)).unwrap().unwrap(),
                key.as_bytes()
            );
        }
        let found: Vec<_> = block_on(datastore.query("").try_collect()).unwrap();
        assert_eq!(found.len(), keys.len());
    });
}

#[test]
fn the_last_operation_of_a_key_in_a_batch_counts() {
    let mut batch = Batch::default();
    assert!(batch.is_empty());
    batch.put("/a", b"1".to_vec());
    batch.put("/a", b"2".to_vec());
    batch.put("/b", b"1".to_vec());
    batch.delete("/b");
    batch.delete("/c");
    batch.put("/c", b"1".to_vec());
    assert_eq!((batch.len(), batch.is_empty()), (3, false));
    let operations: Vec<_> = batch.iter().collect();
    let expected: [(&str, Option<&[u8]>); 3] =
        [("/a", Some(b"2")), ("/b", None), ("/c", Some(b"1"))];
    assert_eq!(operations, expected);
    each(|datastore| {
        block_on(datastore.put("/b", b"old".to_vec())).unwrap();
        block_on(datastore.commit(batch.clone())).unwrap();
        let mut found: Vec<_> = block_on(datastore.query("/").try_collect()).unwrap();
        found.sort();
        assert_eq!(
            found,
            [
                ("/a".to_owned(), b"2".to_vec()),
                ("/c".to_owned(), b"1".to_vec())
            ]
        );
    });
}

// --- the faulty and the recording one ----------------------------------------------------------------------

#[test]
fn orders_to_fail_are_carried_out_at_the_call_that_they_name() {
    let datastore = FaultyDatastore::new(MemoryDatastore::default());
    datastore.fail_commit(1, Fault::Fail);
    datastore.fail_commit(2, Fault::FailAfterApplying);
    let results: Vec<bool> = (0..4)
        .map(|n| block_on(datastore.put(&format!("/{n}"), vec![])).is_ok())
        .collect();
    assert_eq!(results, [true, false, false, true]);
    let keys: Vec<String> = datastore
        .inner()
        .entries()
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(keys, ["/0", "/2", "/3"]);

    // Counted from the order on.
    datastore.fail_commit(0, Fault::Fail);
    block_on(datastore.put("/5", vec![])).unwrap_err();
    block_on(datastore.put("/5", vec![])).unwrap();
    datastore.fail(Call::Get, 0, Fault::Fail);
    block_on(datastore.get("/5")).unwrap_err();
    assert!(block_on(datastore.has("/5")).unwrap());
    datastore.fail(Call::Close, 0, Fault::Fail);
    block_on(datastore.close()).unwrap_err();
    block_on(datastore.close()).unwrap();

    datastore.fail(Call::Query, 0, Fault::Fail);
    datastore.fail(Call::Query, 1, Fault::FailAfterApplying);
    let results = || -> Vec<bool> { block_on(datastore.query("/").map(|e| e.is_ok()).collect()) };
    assert_eq!(results(), [false]);
    assert_eq!(results(), [true, true, true, true, false]);
    assert_eq!(results(), [true, true, true, true]);

    datastore.fail_commit(0, Fault::Panic);
    let put = AssertUnwindSafe(datastore.put("/6", vec![]));
    let panics = block_on(put.catch_unwind());
    assert!(panics.is_err());
    datastore.fail_commit(0, Fault::Fail);
    datastore.recover();
    block_on(datastore.put("/6", vec![])).unwrap();
}

#[test]
fn failures_at_random_are_the_same_for_the_same_seed() {
    let run = |seed, probability| -> Vec<bool> {
        let datastore = FaultyDatastore::new(MemoryDatastore::default());
        datastore.fail_commits_at_random(seed, probability, [Fault::Fail]);
        (0..200)
            .map(|_| block_on(datastore.put("/a", vec![])).is_err())
            .collect()
    };
    assert_eq!(run(1, 0.3), run(1, 0.3));
    assert_ne!(run(1, 0.3), run(2, 0.3));
    let failures = run(1, 0.3).into_iter().filter(|failed| *failed).count();
    assert!((30..90).contains(&failures), "{failures}");
    assert_eq!(run(1, 0.0), [false; 200]);
    assert_eq!(run(1, 1.0), [true; 200]);
}

#[test]
fn what_hangs_goes_on_when_it_is_let() {
    let faulty = FaultyDatastore::new(MemoryDatastore::default());
    let datastore = RecordingDatastore::new(faulty.clone());
    faulty.hold(Call::Commit);
    faulty.hold(Call::Query);
    let mut executor = testing::ManualExecutor::default();
    let handles: Vec<_> = (0..3)
        .map(|n| {
            let datastore = datastore.clone();
            executor.start(async move { datastore.put(&format!("/{n}"), vec![]).await })
        })
        .collect();
    let mut counts = || {
        executor.settle();
        (
            datastore.commits_started(),
            datastore.commits_done(),
            faulty.inner().len(),
        )
    };
    assert_eq!(counts(), (3, 0, 0));
    faulty.release_one();
    assert_eq!(counts(), (3, 1, 1));
    drop(handles);
    // Dropped half-way, they end without having done anything.
    assert_eq!(counts(), (3, 3, 1));
    faulty.release();
    let entries: Vec<_> = block_on(datastore.query("/").try_collect()).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!((datastore.in_flight(), datastore.most_in_flight()), (0, 3));
    assert_eq!(datastore.take_commits().len(), 3);
    assert_eq!(datastore.queries(), ["/"]);
    block_on(datastore.get("/0")).unwrap();
    block_on(datastore.close()).unwrap();
    assert_eq!(
        (datastore.gets(), datastore.closes()),
        (vec!["/0".to_owned()], 1)
    );
    block_on(async {
        datastore.until_commits_started(3).await;
        datastore.until_commits_done(3).await;
        datastore.until_queries(1).await;
        datastore.until_closed().await;
    });
    assert!(!datastore.is_held());
    let clone = datastore.clone();
    assert!(datastore.is_held() && clone.is_held());
}

// --- where it is -------------------------------------------------------------------------------------------

#[test]
fn a_datastore_says_where_it_is_also_through_others() {
    let faulty = FaultyDatastore::new(MemoryDatastore::default());
    let recording = RecordingDatastore::new(faulty);
    assert_eq!(recording.location(), "MemoryDatastore");
    assert_eq!(MemoryDatastore::default().location(), "MemoryDatastore");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("peers.redb");
    let datastore: Arc<dyn Datastore> = Arc::new(RedbDatastore::open(&file).unwrap());
    assert_eq!(datastore.location(), file.display().to_string());
    let datastore = FsDatastore::open(folder.path().join("js")).unwrap();
    assert!(datastore.location().ends_with("js"));
}
