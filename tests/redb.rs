//! The datastore in one file: what is in it after a restart, who may open it, and what a bad file is told.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used)]

#[path = "support/skip.rs"]
mod skip;
#[path = "support/datastore.rs"]
mod support;

use std::{
    env,
    error::Error as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use futures::{StreamExt, TryStreamExt, executor::block_on};
use libp2p::PeerId;
use libp2p_peerstore::{
    Batch, Config, Datastore, DatastoreError, KeyValue, Peer, PeerStore, RedbDatastore,
};
use tempfile::TempDir;

use support::addr;

/// A folder that goes with the test, and a path in it.
fn file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.redb");
    (folder, path)
}

fn open(path: &Path) -> RedbDatastore {
    RedbDatastore::open(path).unwrap()
}

fn open_store(local: PeerId, path: &Path) -> PeerStore {
    block_on(PeerStore::open(local, open(path), Config::default())).unwrap()
}

fn entries(datastore: &RedbDatastore) -> Vec<KeyValue> {
    block_on(datastore.query("").try_collect()).unwrap()
}

/// The error of opening, which must name the path.
fn error(path: &Path) -> DatastoreError {
    let error = RedbDatastore::open(path).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    error
}

fn hint(path: &Path) -> &'static str {
    match error(path) {
        DatastoreError::Open { hint, .. } => hint,
        other => panic!("{other:?}"),
    }
}

// --- content -----------------------------------------------------------------------------------------------

#[test]
fn peers_survive_a_restart_in_the_same_process() {
    let (_folder, path) = file();
    let local = PeerId::random();
    let mut known: Vec<Peer> = Vec::new();
    for run in 0..3 {
        let store = open_store(local, &path);
        let report = store.load_report();
        assert_eq!((report.peers, report.entries), (300 * run, 900 * run));
        for peer in &known {
            let again = store.get(&peer.id).unwrap();
            // Its confidence fades with the time that passes meanwhile.
            let kept = |peer: &Peer| {
                let infos = peer.addresses.iter();
                let kept = infos.map(|info| (info.address.clone(), info.sources, info.last_heard));
                kept.collect::<Vec<_>>()
            };
            assert_eq!(kept(&again), kept(peer));
            assert_eq!(again.protocols, peer.protocols);
            assert_eq!(again.metadata, peer.metadata);
        }
        for _ in 0..300 {
            let peer = PeerId::random();
            store.addresses().add(peer, [addr(1), addr(2)]);
            store.protocols().set(peer, ["/b", "/a"]);
            store.metadata().set(peer, "empty", "").unwrap();
        }
        block_on(store.shutdown()).unwrap();
        known = store.peers();
        // The store is still there, and the file is free.
    }
    assert_eq!(known.len(), 900);
}

#[test]
fn a_large_batch_is_one_commit_and_is_read_back_in_pages() {
    let (_folder, path) = file();
    let datastore = open(&path);
    let mut batch = Batch::default();
    for n in 0..20_000 {
        batch.put(format!("/peers/addrs/{n:05}"), vec![n as u8; n % 300]);
    }
    batch.put("/other", Vec::new());
    let expected: Vec<KeyValue> = batch
        .iter()
        .map(|(key, value)| (key.to_owned(), value.unwrap().to_vec()))
        .collect();
    block_on(datastore.commit(batch)).unwrap();
    assert!(entries(&datastore) == expected);
    block_on(datastore.close()).unwrap();

    let datastore = open(&path);
    assert!(entries(&datastore) == expected);
    let page: Vec<KeyValue> = block_on(datastore.query("/peers/addrs/001").try_collect()).unwrap();
    assert_eq!(page.len(), 100);
    assert_eq!(block_on(datastore.get("/other")).unwrap(), Some(Vec::new()));
}

#[test]
fn a_new_file_is_readable_by_its_owner_only() {
    let (_folder, path) = file();
    let datastore = open(&path);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    drop(datastore);
}

#[test]
fn an_empty_file_is_a_new_one() {
    let (_folder, path) = file();
    fs::write(&path, b"").unwrap();
    let datastore = open(&path);
    assert_eq!(entries(&datastore), []);
    block_on(datastore.put("/a", vec![1])).unwrap();
    drop(datastore);
    assert_eq!(entries(&open(&path)).len(), 1);
}

#[test]
fn a_file_that_was_opened_and_never_written_is_empty() {
    let (_folder, path) = file();
    drop(open(&path));
    let store = open_store(PeerId::random(), &path);
    assert!(store.is_empty());
}

#[test]
fn a_closed_datastore_says_so() {
    let (_folder, path) = file();
    let datastore = open(&path);
    let clone = datastore.clone();
    block_on(datastore.put("/a", vec![1])).unwrap();
    block_on(datastore.close()).unwrap();
    block_on(datastore.close()).unwrap();
    let failures = [
        block_on(clone.get("/a")).unwrap_err(),
        block_on(clone.query("/").next()).unwrap().unwrap_err(),
        block_on(clone.put("/a", vec![2])).unwrap_err(),
    ];
    for failure in failures {
        assert!(
            matches!(failure, DatastoreError::Closed { .. }),
            "{failure:?}"
        );
        assert!(failure.to_string().contains(path.to_str().unwrap()));
    }
    assert_eq!(entries(&open(&path)), [("/a".to_owned(), vec![1])]);
}

#[test]
fn a_query_that_outlives_the_datastore_ends_with_an_error() {
    let (_folder, path) = file();
    let datastore = open(&path);
    let mut batch = Batch::default();
    for n in 0..1_000 {
        batch.put(format!("/{n}"), Vec::new());
    }
    block_on(datastore.commit(batch)).unwrap();
    block_on(async {
        let mut query = datastore.query("/");
        query.next().await.unwrap().unwrap();
        datastore.close().await.unwrap();
        let rest: Vec<_> = query.collect().await;
        let (last, pages) = rest.split_last().unwrap();
        assert!(pages.iter().all(Result::is_ok));
        assert!(
            matches!(last, Err(DatastoreError::Closed { .. })),
            "{last:?}"
        );
        assert!(pages.len() < 999);
    });
}

// --- the lock ----------------------------------------------------------------------------------------------

fn assert_locked(path: &Path) {
    let error = error(path);
    assert!(matches!(error, DatastoreError::Locked { .. }), "{error:?}");
}

#[test]
fn a_file_is_held_by_one_datastore() {
    let (folder, path) = file();
    let datastore = open(&path);
    assert_locked(&path);
    #[cfg(unix)]
    {
        // By whatever name.
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_locked(&link);
    }
    let clone = datastore.clone();
    drop(datastore);
    assert_locked(&path);
    drop(clone);
    drop((open(&path), folder));
}

#[test]
fn a_locked_file_fails_before_the_store_is_opened_and_the_holder_is_unharmed() {
    let (_folder, path) = file();
    let store = open_store(PeerId::random(), &path);
    let peer = PeerId::random();
    store.addresses().add(peer, [addr(1)]);
    for _ in 0..3 {
        assert_locked(&path);
    }
    block_on(store.flush()).unwrap();
    block_on(store.shutdown()).unwrap();
    assert!(open_store(PeerId::random(), &path).contains(&peer));
}

/// The role of this program when it is its own child, and the file for it.
const ROLE: &str = "PEERSTORE_TEST_ROLE";
const FILE: &str = "PEERSTORE_TEST_FILE";

fn child(test: &str, role: &str, path: &Path) -> Output {
    Command::new(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads", "1"])
        .env(ROLE, role)
        .env(FILE, path)
        .output()
        .unwrap()
}

fn role() -> Option<(String, PathBuf)> {
    Some((env::var(ROLE).ok()?, env::var_os(FILE)?.into()))
}

#[test]
fn a_file_is_held_by_one_process() {
    const TEST: &str = "a_file_is_held_by_one_process";
    if let Some((role, path)) = role() {
        match role.as_str() {
            "locked out" => assert_locked(&path),
            "let in" => assert_eq!(entries(&open(&path)).len(), 1),
            other => panic!("{other}"),
        }
        println!("the child did its part");
        return;
    }
    let (_folder, path) = file();
    let datastore = open(&path);
    block_on(datastore.put("/a", vec![1])).unwrap();
    for (role, holder) in [("locked out", Some(datastore)), ("let in", None)] {
        let output = child(TEST, role, &path);
        drop(holder);
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("the child did its part"), "{said}");
    }
}

#[test]
fn what_was_flushed_survives_a_crash_of_the_process() {
    const TEST: &str = "what_was_flushed_survives_a_crash_of_the_process";
    if let Some((_, path)) = role() {
        let store = open_store(PeerId::random(), &path);
        for _ in 0..100 {
            let peer = PeerId::random();
            store.addresses().add(peer, [addr(1)]);
            store.metadata().set(peer, "note", "x").unwrap();
        }
        block_on(store.flush()).unwrap();
        // Neither shut down nor dropped, and with something unsaved.
        store.addresses().add(PeerId::random(), [addr(1)]);
        std::process::abort();
    }
    let (_folder, path) = file();
    for run in 1..=2 {
        let output = child(TEST, "crash", &path);
        assert!(!output.status.success(), "{output:?}");
        let store = open_store(PeerId::random(), &path);
        assert_eq!(store.len(), 100 * run);
        let report = store.load_report();
        assert_eq!((report.undecodable, report.foreign), (0, 0));
        assert!(store.peers().iter().all(|peer| peer.metadata.len() == 1));
        block_on(store.shutdown()).unwrap();
    }
}

// --- bad files ---------------------------------------------------------------------------------------------

#[test]
fn a_file_of_another_kind_is_not_touched() {
    let (_folder, path) = file();
    for content in ["x", "{\"peers\": []}\n", &"text\n".repeat(10_000)] {
        fs::write(&path, content).unwrap();
        let hint = hint(&path);
        assert!(hint.contains("not a redb file"), "{hint}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
}

#[test]
fn a_folder_that_does_not_exist_is_named() {
    let (folder, _) = file();
    let path = folder.path().join("nowhere").join("peers.redb");
    assert_eq!(hint(&path), "its folder does not exist; create it first");
    assert!(!path.parent().unwrap().exists());
}

#[test]
fn a_path_that_is_a_folder_is_named() {
    let (folder, _) = file();
    assert_eq!(hint(folder.path()), "it is a folder; name a file in it");
}

#[test]
fn a_path_through_a_file_is_an_error() {
    let (_folder, path) = file();
    fs::write(&path, "x").unwrap();
    hint(&path.join("peers.redb"));
}

#[test]
fn a_file_that_may_not_be_written_is_named() {
    let (_folder, path) = file();
    drop(open(&path));
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions).unwrap();
    if fs::OpenOptions::new().write(true).open(&path).is_ok() {
        skip::skipped("permissions", "this user may write to read-only files");
        return;
    }
    assert!(hint(&path).contains("cannot be read and written"));
}

/// A file with peers in it, closed in order.
fn written() -> (TempDir, PathBuf, Vec<u8>) {
    let (folder, path) = file();
    let datastore = open(&path);
    let mut batch = Batch::default();
    for n in 0..2_000 {
        batch.put(format!("/peers/addrs/{n:05}"), vec![n as u8; 100]);
    }
    block_on(datastore.commit(batch)).unwrap();
    block_on(datastore.close()).unwrap();
    let bytes = fs::read(&path).unwrap();
    (folder, path, bytes)
}

/// Opens a damaged file and reads all of it: that either works or is an error which names the path.
fn survive(path: &Path) {
    let datastore = match RedbDatastore::open(path) {
        Ok(datastore) => datastore,
        Err(error) => {
            assert_calm(&error, path);
            assert!(matches!(error, DatastoreError::Open { .. }), "{error:?}");
            assert!(error.source().is_some());
            return;
        }
    };
    let read: Result<Vec<KeyValue>, _> = block_on(datastore.query("").try_collect());
    if let Err(error) = read {
        assert_calm(&error, path);
    }
    if let Err(error) = block_on(datastore.put("/a", vec![1])) {
        assert_calm(&error, path);
    }
}

/// An error that names the path, and is no panic that was caught.
fn assert_calm(error: &DatastoreError, path: &Path) {
    let text = error.to_string();
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        assert!(!error.to_string().contains("panicked"), "{error}");
        cause = error.source();
    }
}

#[test]
fn a_truncated_file_is_an_error_and_never_a_panic() {
    let (_folder, path, bytes) = written();
    let mut lengths: Vec<usize> = (1..700).step_by(37).collect();
    lengths.extend((1..bytes.len() / 4096).map(|page| page * 4096));
    lengths.extend([320, 511, 512, 4095, 4097, bytes.len() - 1]);
    for len in lengths {
        fs::write(&path, &bytes[..len]).unwrap();
        let error = error(&path);
        assert!(
            matches!(error, DatastoreError::Open { .. }),
            "{len}: {error:?}"
        );
    }
    // The rest of the disk was not its fault: the whole file is still good.
    fs::write(&path, &bytes).unwrap();
    assert_eq!(entries(&open(&path)).len(), 2_000);
}

#[test]
fn a_damaged_file_is_never_a_panic() {
    let (_folder, path, bytes) = written();
    let mut state: u64 = 7;
    let mut random = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    // All over the header, and then anywhere.
    let header = (0..320).step_by(5).map(|at| (at, 1));
    let anywhere: Vec<_> = (0..40)
        .map(|_| (random(bytes.len()), random(64) + 1))
        .collect();
    for (at, len) in header.chain(anywhere) {
        let mut damaged = bytes.clone();
        for byte in damaged.iter_mut().skip(at).take(len) {
            *byte ^= 0x5a;
        }
        fs::write(&path, &damaged).unwrap();
        survive(&path);
    }
}
