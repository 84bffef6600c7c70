//! What is left when a process is killed, and who is kept out while one lives.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use futures::executor::block_on;
use libp2p_peerstore::{Batch, Datastore, DatastoreError, FsDatastore, KeyValue};

use crate::{SERVICE, entries, files, folder, get, keys, open, put, refused, text};

#[test]
fn temporary_files_are_ignored_and_removed() {
    let folder = folder();
    let service = folder.path().join(SERVICE);
    put(&open(folder.path()), "/a", "1");
    for name in ["tmp-0", "tmp-17", "tmp-journal", "tmp-Probe-é"] {
        fs::write(service.join(name), "half a val").unwrap();
    }
    let datastore = open(folder.path());
    assert_eq!(keys(&datastore), ["/a"]);
    let left: Vec<_> = fs::read_dir(&service)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["lock"]);
}

#[test]
fn a_damaged_journal_is_an_error_that_says_what_to_do() {
    let folder = folder();
    let journal = folder.path().join(SERVICE).join("journal");
    put(&open(folder.path()), "/a", "1");
    for content in [&b""[..], b"x", b"libp2p-peerstore journal 1\n\n"] {
        fs::write(&journal, content).unwrap();
        let text = refused(folder.path());
        assert!(
            text.contains("journal`: damaged") && text.contains("remove it"),
            "{text}"
        );
        assert_eq!(fs::read(&journal).unwrap(), content);
    }
    fs::remove_file(&journal).unwrap();
    assert_eq!(keys(&open(folder.path())), ["/a"]);
}

/// A program that another thread starts holds every file of this process until it runs.
#[test]
fn a_refused_opening_lets_the_folder_go_while_programs_start() {
    let folder = folder();
    let journal = folder.path().join(SERVICE).join("journal");
    put(&open(folder.path()), "/a", "1");
    fs::write(&journal, "x").unwrap();
    thread::scope(|scope| {
        let programs = scope.spawn(|| {
            for _ in 0..300 {
                Command::new("true").status().unwrap();
            }
        });
        while !programs.is_finished() {
            refused(folder.path());
        }
    });
}

/// The role of this program when it is its own child, and the folder for it.
const ROLE: &str = "PEERSTORE_TEST_ROLE";
const FOLDER: &str = "PEERSTORE_TEST_FOLDER";

fn role() -> Option<(String, PathBuf)> {
    Some((env::var(ROLE).ok()?, env::var_os(FOLDER)?.into()))
}

/// This program again, for one test. Its files can have no more than `blocks` of 512 bytes, and it is told so by an
/// error and not by a signal.
fn child(test: &str, role: &str, folder: &Path, blocks: Option<usize>) -> Command {
    let mut command = Command::new("sh");
    let limit = blocks.map_or(String::new(), |blocks| {
        format!("trap '' XFSZ; ulimit -f {blocks}; ")
    });
    command
        .arg("-c")
        .arg(limit + r#"exec "$0" "$@""#)
        .arg(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads", "1"])
        .env(ROLE, role)
        .env(FOLDER, folder);
    command
}

#[test]
fn a_folder_is_held_by_one_process() {
    const TEST: &str = "crash::a_folder_is_held_by_one_process";
    if let Some((role, path)) = role() {
        match (role.as_str(), FsDatastore::open(&path)) {
            ("locked out", Err(DatastoreError::Locked { .. })) => {}
            ("let in", Ok(datastore)) => assert_eq!(keys(&datastore), ["/a"]),
            (role, outcome) => panic!("{role}: {outcome:?}"),
        }
        println!("the child did its part");
        return;
    }
    let folder = folder();
    let datastore = open(folder.path());
    put(&datastore, "/a", "1");
    for (role, holder) in [("locked out", Some(datastore)), ("let in", None)] {
        let output = child(TEST, role, folder.path(), None).output().unwrap();
        drop(holder);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("the child did its part"), "{output:?}");
    }
}

#[test]
fn a_process_that_is_killed_leaves_whole_commits_and_all_that_it_reported() {
    const TEST: &str =
        "crash::a_process_that_is_killed_leaves_whole_commits_and_all_that_it_reported";
    const KEYS: usize = 6;
    if let Some((_, path)) = role() {
        let datastore = open(&path);
        for round in 0.. {
            let mut batch = Batch::default();
            for key in 0..KEYS {
                // A deletion among them, of a key that the round before has written.
                batch.put(format!("/peers/{key}/x"), format!("{round}").into());
                batch.put(format!("/round/{round}/{key}"), Vec::new());
                batch.delete(format!("/round/{}/{key}", round - 1));
            }
            block_on(datastore.commit(batch)).unwrap();
            println!("committed {round}");
        }
    }
    let folder = folder();
    for run in 1..8 {
        let mut child = child(TEST, "writer", folder.path(), None)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let rounds = lines.map_while(Result::ok).filter_map(|line| {
            let round = line.strip_prefix("committed ")?;
            Some(round.parse::<i64>().unwrap())
        });
        // All that it says until it is gone, so that nothing it reported is forgotten.
        let mut reported = -1;
        for (n, round) in rounds.enumerate() {
            reported = round;
            if n == run {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(reported >= run as i64);

        let datastore = open(folder.path());
        let round: i64 = get(&datastore, "/peers/0/x").unwrap().parse().unwrap();
        assert!(
            round == reported || round == reported + 1,
            "{round} {reported}"
        );
        let mut expected: Vec<KeyValue> = Vec::new();
        for key in 0..KEYS {
            expected.push((format!("/peers/{key}/x"), format!("{round}").into()));
            expected.push((format!("/round/{round}/{key}"), Vec::new()));
        }
        expected.sort();
        assert_eq!(entries(&datastore), expected, "half a commit");
        for (key, _) in expected {
            block_on(datastore.delete(&key)).unwrap();
        }
    }
}

#[test]
fn a_commit_that_does_not_fit_is_not_done_in_part_and_later_ones_are() {
    const TEST: &str = "crash::a_commit_that_does_not_fit_is_not_done_in_part_and_later_ones_are";
    if let Some((_, path)) = role() {
        let datastore = open(&path);
        put(&datastore, "/a", "1");
        let mut batch = Batch::default();
        batch.put("/a", b"2".to_vec());
        batch.put("/large", vec![0; 100_000]);
        let error = block_on(datastore.commit(batch)).unwrap_err();
        assert!(
            text(&error).contains("larger than this process may write"),
            "{}",
            text(&error)
        );
        let error = block_on(datastore.put("/large", vec![0; 100_000])).unwrap_err();
        assert!(text(&error).contains(path.to_str().unwrap()));
        assert_eq!(entries(&datastore), [("/a".to_owned(), b"1".to_vec())]);
        put(&datastore, "/b", "2");
        println!("the child did its part");
        return;
    }
    let folder = folder();
    let output = child(TEST, "small files", folder.path(), Some(16))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("the child did its part"), "{output:?}");
    assert_eq!(keys(&open(folder.path())), ["/a", "/b"]);
    assert_eq!(files(folder.path()), ["a.data", "b.data"]);
}

#[test]
fn the_folder_may_be_removed_while_it_is_open_and_that_is_an_error() {
    let above = folder();
    let root = above.path().join("store");
    let datastore = open(&root);
    put(&datastore, "/a", "1");
    fs::remove_dir_all(&root).unwrap();
    assert_eq!(get(&datastore, "/a"), None);
    let error = block_on(datastore.put("/a", vec![])).unwrap_err();
    assert!(
        text(&error).contains(root.to_str().unwrap()),
        "{}",
        text(&error)
    );
    assert!(!root.exists());
}
