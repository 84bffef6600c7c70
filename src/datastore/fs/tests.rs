//! What a commit is after each step of it has failed, and what becomes of names that a file system confuses.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, io, path::Path, sync::Arc};

use futures::{TryStreamExt, executor::block_on};
use parking_lot::Mutex;
use tempfile::TempDir;

use super::{
    FsDatastore, Hold, KeyValue, Lock,
    folder::Folder,
    name::{Names, SERVICE},
    opening::move_all,
};
use crate::datastore::{Batch, Datastore, DatastoreError};

/// Lets mutations of the folder fail.
#[derive(Debug, Clone, Default)]
pub(super) struct Fault(Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    steps: Vec<String>,
    /// The steps that fail: from, and how many.
    fail: Option<(usize, usize)>,
}

impl Fault {
    pub(super) fn step(&self, what: &'static str, path: &Path) -> io::Result<()> {
        let mut plan = self.0.lock();
        let step = plan.steps.len();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        plan.steps.push(format!("{what} {name}"));
        match plan.fail {
            Some((from, count)) if step >= from && step - from < count => {
                Err(io::Error::new(io::ErrorKind::StorageFull, "told to fail"))
            }
            _ => Ok(()),
        }
    }
}

impl Fault {
    /// From now on `count` mutations fail, after `from` that do not.
    fn set(&self, from: usize, count: usize) {
        *self.0.lock() = Plan {
            steps: Vec::new(),
            fail: Some((from, count)),
        };
    }

    fn clear(&self) {
        self.0.lock().fail = None;
    }

    /// How many mutations there were since it was set.
    fn steps(&self) -> usize {
        self.0.lock().steps.len()
    }
}

type Content = BTreeMap<String, Vec<u8>>;

fn content(datastore: &FsDatastore) -> Content {
    let entries: Vec<KeyValue> = block_on(datastore.query("").try_collect()).unwrap();
    let count = entries.len();
    let content: Content = entries.into_iter().collect();
    assert_eq!(content.len(), count, "a key was answered twice");
    for (key, value) in &content {
        assert_eq!(block_on(datastore.get(key)).unwrap().as_ref(), Some(value));
    }
    content
}

fn after(before: &Content, batch: &Batch) -> Content {
    let mut content = before.clone();
    for (key, value) in batch.iter() {
        match value {
            Some(value) => content.insert(key.to_owned(), value.to_vec()),
            None => content.remove(key),
        };
    }
    content
}

/// In memory where that is possible: nothing here is about what a disk does with a sync.
fn folder() -> TempDir {
    let memory = tempfile::tempdir_in("/dev/shm");
    memory.or_else(|_| tempfile::tempdir()).unwrap()
}

fn open(path: &Path) -> FsDatastore {
    FsDatastore::open(path).unwrap()
}

/// What is in the datastore's own folder, the lock aside.
fn service(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path.join(SERVICE)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "lock").collect()
}

fn first() -> Batch {
    let mut batch = Batch::default();
    for peer in 0..4 {
        batch.put(format!("/peers/addrs/{peer}"), vec![1; peer]);
        batch.put(format!("/peers/metadata/{peer}/note"), b"old".to_vec());
        batch.put(format!("/peers/metadata/{peer}/a//b"), b"old".to_vec());
    }
    batch
}

/// New values, longer and shorter, new and old folders, and deletions that leave folders empty.
fn second(peers: usize) -> Batch {
    let mut batch = Batch::default();
    for peer in 2..2 + peers {
        batch.put(format!("/peers/addrs/{peer}"), b"new".to_vec());
        batch.put(format!("/peers/metadata/{peer}/../x"), b"new".to_vec());
        batch.put(format!("/peers/protos/{peer}"), Vec::new());
        batch.delete(format!("/peers/metadata/{peer}/note"));
    }
    for key in ["addrs/0", "metadata/0/note", "metadata/0/a//b"] {
        batch.delete(format!("/peers/{key}"));
    }
    batch
}

/// A batch whose every step fails, one after the other.
fn fail_at_each_step(batch: &Batch, count: usize) {
    let (mut undone, mut finished) = (0, 0);
    for (step, crash) in (0..).flat_map(|step| [(step, true), (step, false)]) {
        let folder = folder();
        let path = folder.path();
        let datastore = open(path);
        block_on(datastore.commit(first())).unwrap();
        let before = content(&datastore);
        let done = after(&before, batch);
        assert_ne!(before, done);

        let fault = datastore.shared.folder().fault.clone();
        fault.set(step, count);
        let result = block_on(datastore.commit(batch.clone()));
        let reached = fault.steps() > step;
        assert!(reached || result.is_ok());
        let now = content(&datastore);
        let now_is_before = now == before;
        assert!(now_is_before || now == done, "step {step}: half a commit");
        assert!(result.is_err() || now == done, "step {step}");

        if crash {
            // The machine is gone in this moment.
            drop(datastore);
            let datastore = open(path);
            let after_crash = content(&datastore);
            assert!(after_crash == before || after_crash == done, "step {step}");
            assert!(result.is_err() || after_crash == done, "step {step}");
            assert_eq!(service(path), [""; 0], "step {step}");
            block_on(datastore.commit(batch.clone())).unwrap();
            assert_eq!(content(&datastore), done);
        } else {
            // The disk has room again. One key is written without a journal, and must not be undone by an old one.
            fault.clear();
            block_on(datastore.put("/peers/addrs/2", b"newest".to_vec())).unwrap();
            let mut expected = now;
            expected.insert("/peers/addrs/2".into(), b"newest".to_vec());
            assert_eq!(content(&datastore), expected, "step {step}");
            drop(datastore);
            assert_eq!(content(&open(path)), expected, "step {step}");
            assert_eq!(service(path), [""; 0], "step {step}");
        }
        undone += usize::from(result.is_err() && now_is_before);
        finished += usize::from(result.is_err() && !now_is_before);
        if !reached && !crash {
            break;
        }
    }
    assert!(undone > 2 && finished > 10, "{undone} {finished}");
}

#[test]
fn a_commit_is_whole_or_not_at_all_whatever_step_fails_once() {
    fail_at_each_step(&second(2), 1);
}

#[test]
fn a_commit_is_whole_or_not_at_all_whatever_step_it_ends_at() {
    fail_at_each_step(&second(2), usize::MAX);
}

#[test]
fn a_commit_that_syncs_the_file_system_is_whole_or_not_at_all() {
    let batch = second(12);
    assert!(batch.len() > 32);
    fail_at_each_step(&batch, usize::MAX);
}

#[test]
fn a_commit_of_one_key_is_done_or_not_and_needs_no_journal() {
    for step in 0.. {
        let folder = folder();
        let datastore = open(folder.path());
        block_on(datastore.put("/a/b", b"old".to_vec())).unwrap();
        let fault = datastore.shared.folder().fault.clone();
        fault.set(step, usize::MAX);
        let result = block_on(datastore.put("/a/b", b"new".to_vec()));
        assert!(!datastore.shared.folder().has_journal());
        let reached = fault.steps() > step;
        let value = block_on(datastore.get("/a/b")).unwrap().unwrap();
        assert!(value == b"new" || (result.is_err() && value == b"old"));
        drop(datastore);
        assert_eq!(
            block_on(open(folder.path()).get("/a/b")).unwrap(),
            Some(value)
        );
        if !reached {
            assert!(step >= 4, "{step}");
            return;
        }
    }
}

#[test]
fn failures_in_a_row_lose_nothing_that_a_reader_has_seen() {
    let folder = folder();
    let datastore = open(folder.path());
    let fault = datastore.shared.folder().fault.clone();
    let mut expected = Content::new();
    for round in 0..60_u8 {
        // A little later each time, in commits that meet in some of their keys.
        fault.set(usize::from(round) / 2, 3);
        let mut batch = Batch::default();
        for key in 0..5 {
            batch.put(format!("/{}/{key}", round % 3), vec![round; 3]);
            batch.delete(format!("/{}/{key}", (round + 1) % 3));
        }
        let result = block_on(datastore.commit(batch.clone()));
        let now = content(&datastore);
        let done = after(&expected, &batch);
        assert!(
            now == done || (result.is_err() && now == expected),
            "{round}"
        );
        expected = now;
    }
    fault.clear();
    block_on(datastore.close()).unwrap();
    drop(datastore);
    assert_eq!(service(folder.path()), [""; 0]);
    assert_eq!(content(&open(folder.path())), expected);
}

/// As when another thread starts a program at that moment: until that runs, it holds every file of this process.
#[test]
fn a_closed_or_dropped_folder_can_be_opened_while_a_fork_still_has_its_lock() {
    let folder = folder();
    for closes in [true, false] {
        let datastore = open(folder.path());
        let lock = datastore.shared.state.lock();
        let Hold::Owner {
            _lock: Lock(file), ..
        } = &lock.hold
        else {
            panic!("it was opened just now");
        };
        let inherited = file.try_clone().unwrap();
        drop(lock);
        assert!(FsDatastore::open(folder.path()).is_err());
        if closes {
            block_on(datastore.close()).unwrap();
        }
        drop(datastore);
        drop(FsDatastore::open(folder.path()).unwrap());
        drop(inherited);
    }
}

#[test]
fn closing_finishes_a_commit_or_says_so_and_lets_the_folder_go() {
    let folder = folder();
    let path = folder.path();
    let datastore = open(path);
    let fault = datastore.shared.folder().fault.clone();
    // The journal is written by then.
    fault.set(5, usize::MAX);
    block_on(datastore.commit(first())).unwrap_err();
    assert!(datastore.shared.folder().has_journal());
    let seen = content(&datastore);
    assert_eq!(seen, after(&Content::new(), &first()));
    let error = block_on(datastore.close()).unwrap_err();
    assert!(error.to_string().contains(path.to_str().unwrap()));
    // Still held by a variable, and free.
    let again = open(path);
    assert_eq!(content(&again), seen);
    block_on(datastore.close()).unwrap();
}

#[test]
fn a_folder_on_a_full_disk_is_opened_and_read() {
    let folder = folder();
    let datastore = open(folder.path());
    let fault = datastore.shared.folder().fault.clone();
    fault.set(5, usize::MAX);
    block_on(datastore.commit(first())).unwrap_err();
    drop(datastore);
    // A folder is where a file shall be, as a disk cannot be full for a moment here.
    let obstacle = folder.path().join("peers/addrs/0.data");
    fs::create_dir_all(&obstacle).unwrap();
    let expected = after(&Content::new(), &first());
    for _ in 0..2 {
        let datastore = open(folder.path());
        assert_eq!(content(&datastore), expected);
        block_on(datastore.put("/x", vec![])).unwrap_err();
        block_on(datastore.delete("/x")).unwrap_err();
        block_on(datastore.close()).unwrap_err();
    }
    fs::remove_dir(&obstacle).unwrap();
    let datastore = open(folder.path());
    assert_eq!(content(&datastore), expected);
    assert_eq!(service(folder.path()), [""; 0]);
}

/// The journal that was renamed and not synced may be gone after a power cut, which then must not find half a commit.
#[test]
fn a_journal_in_doubt_is_written_again_before_anything_is_done() {
    let folder = folder();
    let datastore = open(folder.path());
    let fault = datastore.shared.folder().fault.clone();
    fault.set(4, 1);
    block_on(datastore.commit(first())).unwrap_err();
    let steps = fault.0.lock().steps.clone();
    assert_eq!(
        steps[3..],
        [
            "rename journal".to_owned(),
            format!("sync folder {SERVICE}")
        ]
    );
    assert!(datastore.shared.folder().has_journal());
    fault.set(usize::MAX, 0);
    block_on(datastore.commit(Batch::default())).unwrap();
    assert_eq!(fault.0.lock().steps[..5], steps);
    assert_eq!(content(&datastore), after(&Content::new(), &first()));

    // One that another process has left is synced at least.
    fault.set(5, usize::MAX);
    block_on(datastore.commit(second(2))).unwrap_err();
    drop(datastore);
    let datastore = open(folder.path());
    let steps = datastore.shared.folder().fault.0.lock().steps.clone();
    let at = |what: &str| steps.iter().position(|step| step == what).unwrap();
    assert!(
        at(&format!("sync folder {SERVICE}")) < at("remove 0.data"),
        "{steps:?}"
    );
}

/// Whatever fails while another folder is taken in the place of one that is gone: it is told once, and then it works.
#[test]
fn a_folder_that_is_gone_is_taken_again_whatever_step_fails() {
    for step in 0.. {
        let above = folder();
        let root = above.path().join("store");
        let datastore = open(&root);
        block_on(datastore.commit(first())).unwrap();
        let fault = datastore.shared.folder().fault.clone();
        fs::remove_dir_all(&root).unwrap();
        fault.set(step, 1);
        let mut losses = 0;
        for _ in 0..2 {
            match block_on(datastore.commit(second(1))) {
                Err(DatastoreError::Lost { .. }) => losses += 1,
                other => assert!(other.is_err() || losses == 1),
            }
        }
        let reached = fault.steps() > step;
        fault.clear();
        while let Err(error) = block_on(datastore.commit(second(1))) {
            assert!(matches!(error, DatastoreError::Lost { .. }), "{error}");
            losses += 1;
        }
        assert_eq!(losses, 1, "step {step}");
        assert_eq!(content(&datastore), after(&Content::new(), &second(1)));
        drop(datastore);
        // Where names could not be tried out it has portable ones until it is opened again.
        drop(open(&root));
        assert_eq!(service(&root), [""; 0]);
        if !reached {
            assert!(step > 10, "{step}");
            return;
        }
    }
}

#[test]
fn closing_does_nothing_to_a_folder_that_was_put_in_its_place() {
    let above = folder();
    let root = above.path().join("store");
    let datastore = open(&root);
    datastore.shared.folder().fault.set(5, usize::MAX);
    block_on(datastore.commit(first())).unwrap_err();
    fs::remove_dir_all(&root).unwrap();
    fs::create_dir(&root).unwrap();
    datastore.shared.folder().fault.clear();
    let error = block_on(datastore.close()).unwrap_err();
    assert!(matches!(error, DatastoreError::Lost { .. }), "{error}");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
}

#[test]
fn an_empty_commit_finishes_what_is_unfinished() {
    let folder = folder();
    let datastore = open(folder.path());
    let fault = datastore.shared.folder().fault.clone();
    fault.set(5, usize::MAX);
    block_on(datastore.commit(first())).unwrap_err();
    block_on(datastore.commit(Batch::default())).unwrap_err();
    fault.clear();
    block_on(datastore.commit(Batch::default())).unwrap();
    assert!(!datastore.shared.folder().has_journal());
}

#[test]
fn moving_to_portable_names_may_stop_at_any_step() {
    let keys = [
        "/a/Note",
        "/a/note",
        "/a/é",
        "/B/c",
        "/B/D/e",
        "/AgentVersion",
        "/a/AgentVersion",
        "/x//y",
    ];
    for step in 0.. {
        let folder = folder();
        let datastore = open(folder.path());
        for key in keys {
            block_on(datastore.put(key, key.into())).unwrap();
        }
        let expected = content(&datastore);
        let fault = Fault::default();
        let mut moving = Folder {
            root: folder.path().to_owned(),
            names: Names::Portable,
            fault: fault.clone(),
        };
        fault.set(step, usize::MAX);
        let moved = move_all(&moving);
        let reached = fault.steps() > step;
        assert_eq!(moved.is_ok(), !reached);
        drop(datastore);
        // Finished in the one way or in the other.
        let portable = FsDatastore::open_portable(folder.path()).unwrap();
        assert_eq!(content(&portable), expected, "step {step}");
        moving.names = Names::Exact;
        fault.set(step, usize::MAX);
        let _ = move_all(&moving);
        drop(portable);
        assert_eq!(content(&open(folder.path())), expected, "step {step}");
        assert!(folder.path().join("a/Note.data").is_file());
        assert_eq!(service(folder.path()), [""; 0]);
        if !reached {
            assert!(step > 20, "{step}");
            return;
        }
    }
}

#[test]
fn a_file_is_synced_before_it_is_put_in_place_and_its_folder_behind_that() {
    let folder = folder();
    let datastore = open(folder.path());
    let root = folder
        .path()
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let fault = datastore.shared.folder().fault.clone();
    let steps = |batch: Batch| {
        fault.set(usize::MAX, 0);
        block_on(datastore.commit(batch)).unwrap();
        fault.0.lock().steps.clone()
    };
    let mut one = Batch::default();
    one.put("/a/b", b"1".to_vec());
    let file = |n| {
        [
            format!("make tmp-{n}"),
            format!("write tmp-{n}"),
            format!("write tmp-{n}"),
            format!("sync tmp-{n}"),
        ]
    };
    let mut expected = file(0).to_vec();
    expected.extend(
        [
            "make folder a",
            "rename b.data",
            &format!("sync folder {root}"),
            "sync folder a",
        ]
        .map(str::to_owned),
    );
    assert_eq!(steps(one), expected);

    let mut two = Batch::default();
    two.put("/a/b", b"2".to_vec());
    two.put("/a/c", b"2".to_vec());
    two.delete("/x");
    let mut expected = [
        "make tmp-journal",
        "write tmp-journal",
        "sync tmp-journal",
        "rename journal",
    ]
    .map(str::to_owned)
    .to_vec();
    expected.push(format!("sync folder {SERVICE}"));
    expected.extend(file(0).into_iter().chain(file(1)));
    expected.extend(["rename c.data", "rename b.data"].map(str::to_owned));
    expected.extend([format!("sync folder {root}"), "sync folder a".to_owned()]);
    expected.extend([
        "remove journal".to_owned(),
        format!("sync folder {SERVICE}"),
    ]);
    assert_eq!(steps(two), expected);

    // The last value of a folder takes the folder along.
    let mut none = Batch::default();
    none.delete("/a/b");
    none.delete("/a/c");
    let expected = [
        "remove b.data",
        "remove folder a",
        "remove c.data",
        "remove folder a",
    ]
    .map(str::to_owned);
    let steps = steps(none);
    assert_eq!(steps[5..9], expected);
    assert_eq!(
        steps[9..11],
        [format!("sync folder {root}"), "remove journal".to_owned()]
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_large_commit_syncs_the_file_system_before_the_first_rename_and_behind_the_last() {
    let folder = folder();
    let datastore = open(folder.path());
    let fault = datastore.shared.folder().fault.clone();
    fault.set(usize::MAX, 0);
    block_on(datastore.commit(second(12))).unwrap();
    let steps = fault.0.lock().steps.clone();
    let all = |what: &str| -> Vec<usize> {
        let found = steps
            .iter()
            .enumerate()
            .filter(|(_, step)| step.starts_with(what));
        found.map(|(at, _)| at).collect()
    };
    let (syncs, renames) = (all("sync all"), all("rename"));
    assert_eq!(syncs.len(), 2);
    // The first one is the journal's.
    assert!(renames[0] < syncs[0] && syncs[0] < renames[1]);
    assert!(*renames.last().unwrap() < syncs[1] && syncs[1] < all("remove journal")[0]);
    assert!(*all("write").last().unwrap() < syncs[0]);
}
