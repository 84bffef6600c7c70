//! What needs a process of its own: few descriptors, another user, mounts that nobody else sees.

#![cfg(unix)]

use std::{
    env,
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use libp2p_peerstore::RedbDatastore;

use crate::{Patient, learn};

/// The folder for this program when it is its own child.
const FOLDER: &str = "PEERSTORE_TEST_FOLDER";
const DONE: &str = "the child did its part";

/// Runs a test in a child that a shell prepares: `$0` is the folder, `$@` the child's command.
fn child(test: &str, shell: &[&str], prepare: &str, folder: &Path) -> Output {
    let exe = env::current_exe().unwrap();
    let (program, arguments) = shell.split_first().unwrap();
    Command::new(program)
        .args(arguments)
        .args(["sh", "-c"])
        .arg(format!("{prepare} && exec \"$@\""))
        .arg(folder)
        .arg(exe)
        .args([test, "--exact", "--nocapture", "--test-threads", "1"])
        .env(FOLDER, folder)
        .output()
        .unwrap()
}

fn assert_done(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains(DONE),
        "{said}{failed}"
    );
}

/// In the child: the folder.
fn folder() -> Option<PathBuf> {
    env::var_os(FOLDER).map(PathBuf::from)
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

/// Every descriptor that is left.
fn exhaust_descriptors() -> Vec<File> {
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    taken
}

#[test]
fn a_process_without_descriptors_saves_what_it_can_and_the_rest_later() {
    const TEST: &str = "child::a_process_without_descriptors_saves_what_it_can_and_the_rest_later";
    let Some(folder) = folder() else {
        let folder = tempfile::tempdir().unwrap();
        return assert_done(&child(TEST, &["env"], "ulimit -n 40", folder.path()));
    };
    let path = folder.join("peers.redb");
    let mut patient = Patient::on(&path);
    let taken = exhaust_descriptors();
    // What is open goes on.
    patient.live();
    patient.hand.flush(&patient.store);
    let none = RedbDatastore::open(folder.join("another.redb")).unwrap_err();
    assert!(none.to_string().contains("another.redb"), "{none}");

    // A file that must be opened anew cannot be.
    let away = folder.with_extension("away");
    fs::rename(&folder, &away).unwrap();
    patient.live();
    let said = patient.flush_fails();
    assert!(said.contains("its folder does not exist"), "{said}");
    let taken = (taken, exhaust_descriptors());
    fs::rename(&away, &folder).unwrap();
    for _ in 0..3 {
        let said = patient.flush_fails();
        assert!(
            said.contains("peers.redb") && said.contains("open files"),
            "{said}"
        );
    }
    drop(taken);
    patient.recovers();
    patient.assert_saved(|| RedbDatastore::open(&path).unwrap(), 0);
    println!("{DONE}");
}

#[test]
fn a_read_only_file_is_named() {
    const TEST: &str = "child::a_read_only_file_is_named";
    if let Some(folder) = folder() {
        let path = folder.join("peers.redb");
        let error = RedbDatastore::open(&path).unwrap_err().to_string();
        assert!(
            error.contains("peers.redb") && error.contains("who owns it"),
            "{error}"
        );
        // Nor can one be made beside it.
        let error = RedbDatastore::open(folder.join("new.redb"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("new.redb") && error.contains("who owns it"),
            "{error}"
        );
        println!("{DONE}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.redb");
    let patient = Patient::on(&path);
    let (mut hand, store) = (patient.hand, patient.store);
    hand.shutdown(store);
    let set =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    set(&path, 0o444);
    set(folder.path(), 0o555);
    let is_root = File::options().write(true).open(&path).is_ok();
    let shell: &[&str] = if is_root {
        &["setpriv", "--reuid", "65534", "--clear-groups"]
    } else {
        &["env"]
    };
    let output = child(TEST, shell, "true", folder.path());
    set(folder.path(), 0o755);
    assert_done(&output);
}

/// A child with mounts of its own, where the system allows that.
fn in_a_namespace(test: &str, prepare: &str) {
    let shell = ["unshare", "--user", "--map-root-user", "--mount"];
    let folder = tempfile::tempdir().unwrap();
    let can = Command::new(shell[0])
        .args(&shell[1..])
        .args(["mount", "-t", "tmpfs", "tmpfs"])
        .arg(folder.path())
        .output();
    if !can.is_ok_and(|output| output.status.success()) {
        crate::skip::skipped(
            "mounts",
            "this system allows no mounts; `storage.rs` has the same with a disk in memory",
        );
        return;
    }
    assert_done(&child(test, &shell, prepare, folder.path()));
}

#[test]
fn a_full_file_system_is_named_and_the_rest_is_saved_when_there_is_room() {
    const TEST: &str =
        "child::a_full_file_system_is_named_and_the_rest_is_saved_when_there_is_room";
    let Some(folder) = folder() else {
        return in_a_namespace(TEST, r#"mount -t tmpfs -o size=16m tmpfs "$0""#);
    };
    let path = folder.join("peers.redb");
    let mut patient = Patient::on(&path);
    let ballast = folder.join("ballast");
    let mut file = File::create(&ballast).unwrap();
    let full = std::io::copy(&mut std::io::repeat(0), &mut file).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    drop(file);
    patient.live();
    // More than fits into what is free in the file.
    (0..3_000).for_each(|_| _ = learn(&patient.store));
    for _ in 0..3 {
        let said = patient.flush_fails();
        assert!(
            said.contains("peers.redb") && said.contains("No space left"),
            "{said}"
        );
    }
    let none = RedbDatastore::open(folder.join("another.redb"))
        .unwrap_err()
        .to_string();
    assert!(
        none.contains("another.redb") && none.contains("the disk is full"),
        "{none}"
    );
    // Nothing is left of the attempt.
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);

    fs::remove_file(ballast).unwrap();
    patient.recovers();
    patient.assert_saved(|| RedbDatastore::open(&path).unwrap(), 0);
    println!("{DONE}");
}

#[test]
fn a_disk_that_is_unmounted_is_waited_for_and_nothing_is_written_in_its_stead() {
    const TEST: &str =
        "child::a_disk_that_is_unmounted_is_waited_for_and_nothing_is_written_in_its_stead";
    let Some(folder) = folder() else {
        // A disk, and the place where it is used.
        let prepare = r#"mount -t tmpfs tmpfs "$0" && mkdir "$0/disk" "$0/place" && mount -t tmpfs tmpfs "$0/disk" && mount --bind "$0/disk" "$0/place""#;
        return in_a_namespace(TEST, prepare);
    };
    let (disk, place) = (folder.join("disk"), folder.join("place"));
    let path = place.join("peers.redb");
    let mut patient = Patient::on(&path);
    run("umount", &["--lazy", place.to_str().unwrap()]);
    patient.live();
    for _ in 0..3 {
        let said = patient.flush_fails();
        assert!(
            said.contains("peers.redb") && said.contains("is not mounted"),
            "{said}"
        );
    }
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0);

    run(
        "mount",
        &["--bind", disk.to_str().unwrap(), place.to_str().unwrap()],
    );
    patient.recovers();
    patient.assert_saved(|| RedbDatastore::open(&path).unwrap(), 0);
    println!("{DONE}");
}

#[cfg(feature = "fs")]
#[test]
fn a_folder_on_a_disk_that_was_unmounted_is_waited_for() {
    use libp2p_peerstore::FsDatastore;
    const TEST: &str = "child::a_folder_on_a_disk_that_was_unmounted_is_waited_for";
    let Some(folder) = folder() else {
        return in_a_namespace(TEST, r#"mount -t tmpfs tmpfs "$0""#);
    };
    let (disk, place) = (folder.join("disk"), folder.join("place"));
    fs::create_dir(&disk).unwrap();
    fs::create_dir(&place).unwrap();
    // One of its own: the other end of the mount is on another device.
    run("mount", &["-t", "tmpfs", "tmpfs", disk.to_str().unwrap()]);
    let bind = || {
        run(
            "mount",
            &["--bind", disk.to_str().unwrap(), place.to_str().unwrap()],
        )
    };
    bind();
    // On the disk itself, and in a folder on it.
    let (itself, below) = (place.clone(), place.join("store"));
    let mut patients = [&itself, &below].map(|path| Patient::new(FsDatastore::open(path).unwrap()));
    run("umount", &["--lazy", place.to_str().unwrap()]);
    for patient in &mut patients {
        patient.live();
        for _ in 0..3 {
            let said = patient.flush_fails();
            assert!(
                said.contains(place.to_str().unwrap()) && said.contains("is not mounted"),
                "{said}"
            );
        }
    }
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0);

    bind();
    let paths = [itself, below];
    for (mut patient, path) in patients.into_iter().zip(paths) {
        patient.recovers();
        patient.assert_saved(|| FsDatastore::open(&path).unwrap(), 0);
    }
    println!("{DONE}");
}

#[test]
fn a_read_only_file_system_is_named() {
    const TEST: &str = "child::a_read_only_file_system_is_named";
    let Some(folder) = folder() else {
        return in_a_namespace(TEST, r#"mount -t tmpfs tmpfs "$0""#);
    };
    let path = folder.join("peers.redb");
    let patient = Patient::on(&path);
    let mut hand = patient.hand;
    hand.shutdown(patient.store);
    run("mount", &["-o", "remount,ro", folder.to_str().unwrap()]);
    for path in [path, folder.join("new.redb")] {
        let error = RedbDatastore::open(&path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        assert!(error.contains("whether the disk is read-only"), "{error}");
    }
    println!("{DONE}");
}
