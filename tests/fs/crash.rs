//! What is left when a process is killed, and who is kept out while one lives.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use futures::{StreamExt, executor::block_on};
use libp2p_peerstore::{Batch, Datastore, DatastoreError, FsDatastore, KeyValue};

use crate::{SERVICE, entries, files, folder, get, keys, open, put, refused, skip::skipped, text};

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

/// What a folder is that was removed and made again: everything is lost, once, and the new one is held as the old one was.
#[test]
fn a_folder_that_is_removed_or_made_again_is_taken_and_told_to_be_lost_once() {
    let above = folder();
    let root = above.path().join("store");
    let again: [fn(&Path); 4] = [
        |root| fs::remove_dir_all(root).unwrap(),
        |root| {
            fs::remove_dir_all(root).unwrap();
            fs::create_dir(root).unwrap();
        },
        |root| fs::remove_dir_all(root.join(SERVICE)).unwrap(),
        |root| fs::remove_file(root.join(SERVICE).join("lock")).unwrap(),
    ];
    for (n, change) in again.into_iter().enumerate() {
        let datastore = open(&root);
        let clone = datastore.clone();
        put(&datastore, "/a/b", "1");
        change(&root);
        let error = block_on(datastore.put("/a/c", vec![])).unwrap_err();
        assert!(
            matches!(&error, DatastoreError::Lost { location } if location == root.to_str().unwrap()),
            "{n}: {error:?}"
        );
        assert!(matches!(
            FsDatastore::open(&root),
            Err(DatastoreError::Locked { .. })
        ));
        put(&datastore, "/a/c", "2");
        // Each handle is told, as each may be of another store.
        let error = block_on(clone.put("/a/d", vec![])).unwrap_err();
        assert!(matches!(error, DatastoreError::Lost { .. }), "{error:?}");
        put(&clone, "/a/d", "3");
        let kept = if n < 2 { None } else { Some("1".to_owned()) };
        assert_eq!(get(&datastore, "/a/b"), kept, "{n}");
        block_on(datastore.close()).unwrap();
        assert_eq!(get(&open(&root), "/a/c").unwrap(), "2");
        fs::remove_dir_all(&root).unwrap();
    }
}

#[test]
fn a_folder_of_others_in_its_place_is_written_to_only_when_they_let_it_go() {
    let above = folder();
    let (root, other) = (above.path().join("store"), above.path().join("other"));
    let datastore = open(&root);
    put(&datastore, "/a", "mine");
    let theirs = open(&other);
    put(&theirs, "/b", "theirs");
    fs::rename(&root, above.path().join("away")).unwrap();
    fs::rename(&other, &root).unwrap();
    for _ in 0..2 {
        let error = block_on(datastore.put("/a", vec![])).unwrap_err();
        assert!(matches!(error, DatastoreError::Locked { .. }), "{error:?}");
    }
    drop(theirs);
    let error = block_on(datastore.put("/a", vec![])).unwrap_err();
    assert!(matches!(error, DatastoreError::Lost { .. }), "{error:?}");
    put(&datastore, "/a", "again");
    assert_eq!(keys(&datastore), ["/a", "/b"]);
    assert_eq!(files(&above.path().join("away")), ["a.data"]);
}

#[test]
fn a_query_does_not_mix_two_folders() {
    let above = folder();
    let root = above.path().join("store");
    let datastore = open(&root);
    let mut batch = Batch::default();
    (0..50).for_each(|n| batch.put(format!("/{n}"), vec![]));
    block_on(datastore.commit(batch)).unwrap();
    block_on(async {
        let mut query = datastore.query("/");
        query.next().await.unwrap().unwrap();
        fs::remove_dir_all(&root).unwrap();
        datastore.clone().put("/x", vec![]).await.unwrap_err();
        let rest: Vec<_> = query.collect().await;
        assert!(
            matches!(rest[..], [Err(DatastoreError::Lost { .. })]),
            "{rest:?}"
        );
    });
}

/// What is done to a path.
type Act = fn(&Path);

/// What was begun is finished first, or nothing else is begun: the journal does not grow with each attempt.
#[test]
fn a_file_that_cannot_be_written_holds_up_commits_that_leave_nothing_behind() {
    let obstacles: [(Act, Act, &str); 3] = [
        (
            |path| fs::create_dir_all(path).unwrap(),
            |path| fs::remove_dir(path).unwrap(),
            "not a file; move it away",
        ),
        (
            |path| symlink("nowhere", path).unwrap(),
            |path| fs::remove_file(path).unwrap(),
            "a symbolic link",
        ),
        (
            // The folder is another user's.
            |path| {
                fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o500))
                    .unwrap()
            },
            |path| {
                fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o700))
                    .unwrap()
            },
            "check who owns it",
        ),
    ];
    for (put_there, remove, says) in obstacles {
        let folder = folder();
        let path = folder.path().join("peers/addrs/0.data");
        let datastore = open(folder.path());
        put(&datastore, "/peers/addrs/1", "old");
        put_there(&path);
        if says.contains("owns") && fs::write(path.with_file_name("probe"), "").is_ok() {
            skipped("permissions", "this user may write to folders of others");
            continue;
        }
        let commit = |round: u8| {
            let mut batch = Batch::default();
            for key in 0..3 {
                batch.put(format!("/peers/addrs/{key}"), vec![b'a' + round; 9]);
            }
            batch.put(format!("/peers/protos/{round}"), vec![round]);
            block_on(datastore.commit(batch))
        };
        let journal = folder.path().join(SERVICE).join("journal");
        commit(0).unwrap_err();
        // Some of these obstacles are an error to a query, too.
        let seen = || {
            let keys = [
                "addrs/0",
                "addrs/1",
                "addrs/2",
                "protos/0",
                "protos/1",
                "protos/19",
            ];
            keys.map(|key| get(&datastore, &format!("/peers/{key}")))
        };
        let (written, before) = (fs::read(&journal).unwrap(), seen());
        assert_eq!(before[0].as_deref(), Some("aaaaaaaaa"));
        for round in 1..20 {
            let text = text(&commit(round).unwrap_err());
            assert!(
                text.contains("addrs/0.data`") && text.contains(says),
                "{text}"
            );
            assert!(fs::read(&journal).unwrap() == written, "round {round}");
            assert_eq!(seen(), before, "round {round}");
            block_on(datastore.put("/x", vec![])).unwrap_err();
        }
        assert_eq!(get(&datastore, "/x"), None);
        remove(&path);
        // Two in one: what was begun, and what is new.
        put(&datastore, "/x", "1");
        assert!(!journal.exists());
        commit(20).unwrap();
        assert_eq!(get(&datastore, "/peers/addrs/0").unwrap(), "uuuuuuuuu");
        assert_eq!(entries(&datastore).len(), 6);
    }
}
