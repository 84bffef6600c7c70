//! The datastore in a folder: where its keys stand, who may open it, what a crash leaves, and what a bad folder is told.

#![cfg(all(feature = "fs", unix))]
#![allow(clippy::unwrap_used)]

#[path = "fs/crash.rs"]
mod crash;
#[path = "support/skip.rs"]
mod skip;

use std::{
    error::Error as _,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use futures::{StreamExt, TryStreamExt, executor::block_on};
use libp2p_peerstore::{Batch, Datastore, DatastoreError, FsDatastore, KeyValue};
use tempfile::TempDir;

use skip::skipped;

const SERVICE: &str = ".libp2p-peerstore";

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(path: &Path) -> FsDatastore {
    FsDatastore::open(path).unwrap()
}

fn entries(datastore: &FsDatastore) -> Vec<KeyValue> {
    let mut entries: Vec<KeyValue> = block_on(datastore.query("").try_collect()).unwrap();
    entries.sort();
    entries
}

fn keys(datastore: &FsDatastore) -> Vec<String> {
    entries(datastore).into_iter().map(|(key, _)| key).collect()
}

fn put(datastore: &FsDatastore, key: &str, value: &str) {
    block_on(datastore.put(key, value.into())).unwrap();
}

fn get(datastore: &FsDatastore, key: &str) -> Option<String> {
    let value = block_on(datastore.get(key)).unwrap();
    value.map(|value| String::from_utf8(value).unwrap())
}

/// Every file below a folder but those of the datastore itself.
fn files(root: &Path) -> Vec<String> {
    let (mut files, mut folders) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with(SERVICE) {
                continue;
            }
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else {
                files.push(
                    path.strip_prefix(root)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned(),
                );
            }
        }
    }
    files.sort();
    files
}

/// All that an error says.
fn text(error: &DatastoreError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

/// The error of opening, which must name the path.
fn refused(path: &Path) -> String {
    let error = FsDatastore::open(path).unwrap_err();
    assert!(!matches!(error, DatastoreError::Locked { .. }), "{error:?}");
    let text = text(&error);
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    text
}

// --- keys --------------------------------------------------------------------------------------------------

#[test]
fn a_key_is_a_path_with_data_at_its_end() {
    let folder = folder();
    let datastore = open(folder.path());
    for key in [
        "/peers/addrs/x",
        "/a",
        "/a/b.data",
        "/.hidden",
        "/a/..",
        "/Ünï cödé/50%",
    ] {
        put(&datastore, key, key);
    }
    let expected = [
        ".hidden.data",
        "a.data",
        "a/...data",
        "a/b.data.data",
        "peers/addrs/x.data",
        "Ünï cödé/50%.data",
    ];
    assert_eq!(files(folder.path()), expected);
    assert_eq!(
        fs::read(folder.path().join("a/b.data.data")).unwrap(),
        b"/a/b.data"
    );
}

#[test]
fn no_key_leaves_the_folder_or_meets_another() {
    let above = folder();
    let root = above.path().join("store");
    let datastore = open(&root);
    fs::write(above.path().join("outside.data"), "outside").unwrap();
    let hostile = [
        "/../outside",
        "/a/../../outside",
        "//../outside",
        "/./../outside",
        &format!("/{}/outside", above.path().display()),
        "/.libp2p-peerstore/lock",
        "/.libp2p-peerstore/journal",
        "/.libp2p-peerstore/tmp-0",
        "/x",
        "/x/",
        "//x",
        "/x//",
        "/./x",
        "/y/../x",
        "/x.data",
        "/x.data/y",
        "/x/y",
        "/x\0",
        "x",
        "",
        "/",
    ];
    for key in hostile {
        put(&datastore, key, key);
    }
    for key in hostile {
        assert_eq!(get(&datastore, key).unwrap(), key);
    }
    let mut expected: Vec<String> = hostile.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(keys(&datastore), expected);
    assert_eq!(fs::read_dir(above.path()).unwrap().count(), 2);
    assert_eq!(
        fs::read(above.path().join("outside.data")).unwrap(),
        b"outside"
    );
    drop(datastore);
    let datastore = open(&root);
    assert_eq!(keys(&datastore), expected);
    for key in hostile {
        block_on(datastore.delete(key)).unwrap();
    }
    assert_eq!(files(&root), [""; 0]);
    assert_eq!(
        fs::read_dir(&root).unwrap().count(),
        1,
        "empty folders stay"
    );
}

#[test]
fn names_that_a_file_system_may_confuse_are_apart_in_portable_folders() {
    let folder = folder();
    let written = [
        "/m/Note",
        "/m/note",
        "/m/é",
        "/m/con",
        "/M/x",
        "/m/AgentVersion",
        "/m/a~1",
    ];
    // As js-libp2p may have left it.
    let js = open(folder.path());
    written.iter().for_each(|key| put(&js, key, key));
    let before = entries(&js);
    let plain = files(folder.path());
    drop(js);

    let portable = FsDatastore::open_portable(folder.path()).unwrap();
    assert_eq!(entries(&portable), before);
    let names = files(folder.path());
    let lower: std::collections::BTreeSet<String> =
        names.iter().map(|name| name.to_lowercase()).collect();
    assert_eq!(lower.len(), names.len());
    let known = ["m/AgentVersion.data", "m/note.data"];
    assert!(
        known
            .iter()
            .all(|name| names.iter().any(|other| other == name))
    );
    assert!(names.iter().all(|name| {
        known.contains(&name.as_str()) || (name.is_ascii() && *name == name.to_lowercase())
    }));
    put(&portable, "/m/Note", "changed");
    drop(portable);
    // js-libp2p writes one of them again, in its own way: that is the newer value.
    fs::write(folder.path().join("m/é.data"), "from js").unwrap();
    let portable = FsDatastore::open_portable(folder.path()).unwrap();
    assert_eq!(get(&portable, "/m/é").unwrap(), "from js");
    drop(portable);

    // Back on a file system that keeps names apart, they stand where they stood.
    let back = open(folder.path());
    assert_eq!(files(folder.path()), plain);
    assert_eq!(get(&back, "/m/Note").unwrap(), "changed");
    assert_eq!(get(&back, "/m/é").unwrap(), "from js");
    assert_eq!(keys(&back).len(), written.len());
}

#[test]
fn files_of_others_are_neither_read_nor_touched() {
    let folder = folder();
    let path = folder.path();
    put(&open(path), "/a/b", "1");
    let foreign = [
        "README",
        "a/b.data.1234",
        "a/.data",
        "a/x.keyed",
        "a/.b.data.swp",
        "x.data.d/y",
    ];
    fs::create_dir(path.join("x.data.d")).unwrap();
    fs::create_dir(path.join("dir.data")).unwrap();
    fs::write(path.join("dir.data/y.data"), "x").unwrap();
    for file in foreign {
        fs::write(path.join(file), "not ours").unwrap();
    }
    let datastore = open(path);
    assert_eq!(keys(&datastore), ["/a/b"]);
    assert_eq!(get(&datastore, "/dir"), None);
    block_on(datastore.delete("/a/b")).unwrap();
    for file in foreign {
        assert_eq!(fs::read(path.join(file)).unwrap(), b"not ours");
    }
    // A folder stands where the file of this key belongs.
    let error = block_on(datastore.put("/dir", vec![])).unwrap_err();
    assert!(
        text(&error).contains("dir.data`: not a file; move it away"),
        "{}",
        text(&error)
    );
    // A file stands where a folder belongs.
    fs::write(path.join("f"), "x").unwrap();
    assert_eq!(get(&datastore, "/f/x"), None);
    let error = block_on(datastore.put("/f/x", vec![])).unwrap_err();
    assert!(
        text(&error).contains("/f`: not a folder; move it away"),
        "{}",
        text(&error)
    );
    put(&datastore, "/g", "others are not held up");
}

// --- links and other files ---------------------------------------------------------------------------------

#[test]
fn symbolic_links_are_not_followed_and_named() {
    let (outside, folder) = (folder(), folder());
    let path = folder.path();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    put(&open(path), "/a/b", "1");
    symlink(outside.path(), path.join("out")).unwrap();
    symlink(outside.path().join("secret"), path.join("a/secret.data")).unwrap();
    // Harmless, and left alone.
    symlink("nowhere", path.join("a/README")).unwrap();
    let datastore = open(path);
    let failures = [
        block_on(datastore.get("/a/secret")).map(drop),
        block_on(datastore.get("/out/secret")).map(drop),
        block_on(datastore.put("/out/x", vec![])),
        block_on(datastore.put("/a/secret", vec![])),
        block_on(datastore.delete("/a/secret")),
        block_on(datastore.query("/a/").try_collect::<Vec<_>>()).map(drop),
        block_on(datastore.query("").try_collect::<Vec<_>>()).map(drop),
    ];
    for (n, failure) in failures.into_iter().enumerate() {
        let text = text(&failure.unwrap_err());
        assert!(text.contains("symbolic link"), "{n}: {text}");
        assert!(
            text.contains("a/secret.data`") || text.contains("/out`"),
            "{text}"
        );
    }
    assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    fs::remove_file(path.join("out")).unwrap();
    fs::remove_file(path.join("a/secret.data")).unwrap();
    assert_eq!(keys(&datastore), ["/a/b"]);
}

#[test]
fn the_folder_itself_may_be_a_link_and_the_lock_holds_by_every_name() {
    let above = folder();
    let (real, link) = (above.path().join("real"), above.path().join("link"));
    fs::create_dir(&real).unwrap();
    symlink(&real, &link).unwrap();
    let datastore = open(&link);
    assert_eq!(datastore.path(), link);
    put(&datastore, "/a", "1");
    assert!(matches!(
        FsDatastore::open(&real),
        Err(DatastoreError::Locked { .. })
    ));
    // Where it led when it was opened counts.
    fs::remove_file(&link).unwrap();
    put(&datastore, "/b", "1");
    assert_eq!(files(&real), ["a.data", "b.data"]);
}

#[test]
fn a_pipe_does_not_hang_anything() {
    let folder = folder();
    let path = folder.path().join("pipe.data");
    let made = Command::new("mkfifo").arg(&path).status();
    if !made.is_ok_and(|status| status.success()) {
        skipped("mkfifo", "there is no mkfifo");
        return;
    }
    let datastore = open(folder.path());
    assert_eq!(get(&datastore, "/pipe"), None);
    assert_eq!(keys(&datastore), [""; 0]);
    block_on(datastore.put("/pipe", vec![])).unwrap_err();
}

#[test]
fn a_hard_link_elsewhere_keeps_the_old_value() {
    let folder = folder();
    let datastore = open(folder.path());
    put(&datastore, "/a", "old");
    let other = folder.path().join("other");
    fs::hard_link(folder.path().join("a.data"), &other).unwrap();
    put(&datastore, "/a", "new");
    assert_eq!(fs::read(other).unwrap(), b"old");
}

// --- who may open it ---------------------------------------------------------------------------------------

#[test]
fn new_files_are_readable_by_their_owner_only() {
    let above = folder();
    let root = above.path().join("store");
    fs::create_dir(&root).unwrap();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(root.join("open.data"), "js wrote this").unwrap();
    fs::set_permissions(root.join("open.data"), fs::Permissions::from_mode(0o644)).unwrap();
    let datastore = open(&root);
    let mut batch = Batch::default();
    batch.put("/a/b/c", b"1".to_vec());
    batch.put("/a//c", b"1".to_vec());
    block_on(datastore.commit(batch)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    for file in files(&root).into_iter().filter(|file| file != "open.data") {
        assert_eq!(mode(&root.join(&file)), 0o600, "{file}");
    }
    for folder in ["a", "a/b", SERVICE] {
        assert_eq!(mode(&root.join(folder)), 0o700, "{folder}");
    }
    assert_eq!(mode(&root.join(SERVICE).join("lock")), 0o600);
    // What was there stays as it is, until it is written.
    assert_eq!((mode(&root), mode(&root.join("open.data"))), (0o755, 0o644));
    put(&datastore, "/open", "changed");
    assert_eq!(mode(&root.join("open.data")), 0o600);
    let new = above.path().join("new");
    drop(open(&new));
    assert_eq!(mode(&new), 0o700);
}

#[test]
fn a_folder_is_held_by_one_datastore() {
    let folder = folder();
    let datastore = open(folder.path());
    let locked = || match FsDatastore::open(folder.path()) {
        Err(DatastoreError::Locked { location }) => location == folder.path().to_str().unwrap(),
        other => panic!("{other:?}"),
    };
    assert!(locked());
    let clone = datastore.clone();
    drop(datastore);
    assert!(locked());
    block_on(clone.close()).unwrap();
    drop(open(folder.path()));
    let failures = [
        block_on(clone.get("/a")).map(drop),
        block_on(clone.put("/a", vec![])),
        block_on(clone.query("/").next()).unwrap().map(drop),
    ];
    for failure in failures {
        assert!(
            matches!(failure, Err(DatastoreError::Closed { .. })),
            "{failure:?}"
        );
    }
    block_on(clone.close()).unwrap();
}

#[test]
fn a_query_that_outlives_the_datastore_ends_with_an_error() {
    let folder = folder();
    let datastore = open(folder.path());
    for n in 0..10 {
        put(&datastore, &format!("/{n}"), "");
    }
    block_on(async {
        let mut query = datastore.query("/");
        query.next().await.unwrap().unwrap();
        datastore.close().await.unwrap();
        let rest: Vec<_> = query.collect().await;
        assert!(
            matches!(rest[..], [Err(DatastoreError::Closed { .. })]),
            "{rest:?}"
        );
    });
}

#[test]
fn a_path_that_cannot_be_a_folder_is_named() {
    let folder = folder();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(refused(&file).contains("it is a file, or leads through one; name a folder"));
    assert!(refused(&file.join("store")).contains("name a folder"));
    assert!(refused(&folder.path().join("no/where")).contains("create that first"));
    symlink("nowhere", folder.path().join("link")).unwrap();
    assert!(refused(&folder.path().join("link")).contains("what it links to"));
    let taken = folder.path().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join(SERVICE), "x").unwrap();
    assert!(
        refused(&taken).contains("leads through one"),
        "{}",
        refused(&taken)
    );
    fs::remove_file(taken.join(SERVICE)).unwrap();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, taken.join(SERVICE)).unwrap();
    assert!(
        refused(&taken).contains("symbolic link"),
        "{}",
        refused(&taken)
    );
    assert_eq!(fs::read(&file).unwrap(), b"x");
}

#[test]
fn a_folder_that_may_not_be_written_is_named() {
    let folder = folder();
    let path = folder.path().join("store");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(path.join("probe"), "").is_ok() {
        skipped("permissions", "this user may write to read-only folders");
        return;
    }
    assert!(refused(&path).contains("cannot be read and written"));
}
