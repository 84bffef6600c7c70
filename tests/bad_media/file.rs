//! What happens to the file while it is in use.

use std::{
    fs,
    path::{Path, PathBuf},
};

use libp2p_peerstore::RedbDatastore;
use tempfile::TempDir;

use crate::Patient;

fn file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.redb");
    (folder, path)
}

/// As if it had been written a while after the last commit: the clock of a file system may stand still for some
/// milliseconds.
#[cfg(unix)]
fn is_written_later(path: &Path) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.set_modified(modified + std::time::Duration::from_secs(1))
        .unwrap();
}

fn leftovers(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

/// Something happens to the file; the next flush says so, and the ones after it save everything.
fn survives(what: impl FnOnce(&Path)) {
    survives_with(what, 0);
}

fn survives_with(what: impl FnOnce(&Path), more: usize) {
    let (folder, path) = file();
    let mut patient = Patient::on(&path);
    what(&path);
    patient.live();
    let said = patient.flush_fails();
    assert!(said.contains(path.to_str().unwrap()), "{said}");
    assert!(said.contains("deleted or replaced"), "{said}");
    patient.recovers();
    patient.assert_saved(|| RedbDatastore::open(&path).unwrap(), more);
    assert_eq!(leftovers(folder.path()), 1);
}

/// A file with peers of another node.
fn other(path: &Path) -> PathBuf {
    let other = path.with_file_name("other.redb");
    let patient = Patient::on(&other);
    let mut hand = patient.hand;
    hand.shutdown(patient.store);
    other
}

#[test]
fn a_file_that_vanished_is_written_anew_with_everything() {
    survives(|path| fs::remove_file(path).unwrap());
}

#[test]
fn a_new_file_in_place_of_one_that_vanished_is_readable_by_its_owner_only() {
    let (_folder, path) = file();
    let mut patient = Patient::on(&path);
    fs::remove_file(&path).unwrap();
    patient.live();
    patient.flush_fails();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    patient.recovers();
}

#[test]
fn a_file_that_was_moved_away_and_back_is_the_same() {
    let (_folder, path) = file();
    let mut patient = Patient::on(&path);
    let away = path.with_extension("away");
    fs::rename(&path, &away).unwrap();
    fs::rename(&away, &path).unwrap();
    patient.live();
    patient.hand.flush(&patient.store);
    patient.assert_saved(|| RedbDatastore::open(&path).unwrap(), 0);
}

#[test]
fn a_file_that_another_node_left_keeps_its_peers_and_gets_ours() {
    survives_with(|path| fs::rename(other(path), path).unwrap(), 60);
}

/// The peers that were deleted since the backup was made are in it, and so in the file again: who puts it there wants
/// that.
#[test]
fn a_file_that_was_replaced_by_its_own_backup_gets_everything_that_came_since() {
    let (_folder, path) = file();
    let mut patient = Patient::on(&path);
    let backup = path.with_file_name("backup");
    fs::copy(&path, &backup).unwrap();
    (0..10).for_each(|_| _ = crate::learn(&patient.store));
    let deleted = patient.store.peer_ids().into_iter().take(3);
    deleted.for_each(|peer| _ = patient.store.delete(&peer));
    patient.hand.flush(&patient.store);
    fs::rename(&backup, &path).unwrap();
    patient.live();
    let said = patient.flush_fails();
    assert!(said.contains("deleted or replaced"), "{said}");
    patient.recovers();
    patient.assert_saved(|| RedbDatastore::open(&path).unwrap(), 3);
}

/// The same file, with other bytes: redb itself would not notice before the next start.
#[test]
#[cfg(unix)]
fn a_file_that_is_overwritten_by_another_one_gets_everything() {
    survives_with(
        |path| {
            let other = other(path);
            fs::copy(&other, path).unwrap();
            is_written_later(path);
            fs::remove_file(other).unwrap();
        },
        60,
    );
}

/// A copy takes its place: with the rights that the old one had, and where a link leads to.
#[test]
#[cfg(unix)]
fn a_copy_has_the_rights_of_the_file_and_stands_where_a_link_leads_to() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    let (folder, path) = file();
    let link = folder.path().join("link.redb");
    symlink(&path, &link).unwrap();
    fs::write(&path, b"").unwrap();
    let mut patient = Patient::on(&link);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let (before, content) = (fs::metadata(&path).unwrap(), fs::read(&path).unwrap());
    // The same bytes: nothing is lost, but who wrote them is not known.
    fs::write(&path, content).unwrap();
    is_written_later(&path);
    patient.live();
    patient.hand.flush(&patient.store);
    let after = fs::metadata(&path).unwrap();
    assert_ne!(after.ino(), before.ino());
    assert_eq!(after.permissions().mode() & 0o777, 0o640);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    patient.assert_saved(|| RedbDatastore::open(&link).unwrap(), 0);
}

#[test]
#[cfg(unix)]
fn a_file_that_is_emptied_gets_everything() {
    survives(|path| fs::write(path, b"").unwrap());
}

/// What stands in the way is named, and not touched; when it is gone, everything is written.
fn waits_for(what: impl FnOnce(&Path), says: &str, repair: impl FnOnce(&Path)) {
    let (_folder, path) = file();
    let mut patient = Patient::on(&path);
    what(&path);
    patient.live();
    for _ in 0..3 {
        let said = patient.flush_fails();
        assert!(
            said.contains(path.to_str().unwrap()) && said.contains(says),
            "{said}"
        );
    }
    repair(&path);
    patient.recovers();
    patient.assert_saved(|| RedbDatastore::open(&path).unwrap(), 0);
}

#[test]
fn a_file_of_another_kind_in_its_place_is_left_alone() {
    waits_for(
        |path| {
            fs::write(path.with_extension("new"), "a letter").unwrap();
            fs::rename(path.with_extension("new"), path).unwrap();
        },
        "it is not a redb file",
        |path| {
            assert_eq!(fs::read(path).unwrap(), b"a letter");
            fs::remove_file(path).unwrap();
        },
    );
}

#[test]
fn a_folder_in_its_place_is_left_alone() {
    waits_for(
        |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        },
        "it is a folder",
        |path| fs::remove_dir(path).unwrap(),
    );
}

#[test]
fn a_folder_that_is_gone_is_waited_for() {
    waits_for(
        |path| fs::remove_dir_all(path.parent().unwrap()).unwrap(),
        "its folder does not exist",
        |path| fs::create_dir(path.parent().unwrap()).unwrap(),
    );
}

/// In the place of an overwritten file lies what cannot be saved: it is named until it is moved away.
#[test]
#[cfg(unix)]
fn a_file_that_is_overwritten_with_garbage_is_waited_for() {
    waits_for(
        |path| {
            let len = fs::metadata(path).unwrap().len() as usize;
            fs::write(path, vec![0x5a; len]).unwrap();
            is_written_later(path);
        },
        "peers.redb",
        |path| fs::rename(path, path.with_extension("bad")).unwrap(),
    );
}

#[test]
fn a_query_does_not_mix_two_files() {
    use futures::{StreamExt, executor::block_on};
    use libp2p_peerstore::{Batch, Datastore, DatastoreError};
    let (_folder, path) = file();
    let datastore = RedbDatastore::open(&path).unwrap();
    let mut batch = Batch::default();
    (0..1_000).for_each(|n| batch.put(format!("/{n:04}"), vec![1]));
    block_on(datastore.commit(batch)).unwrap();
    let writing = datastore.clone();
    block_on(async {
        let mut query = datastore.query("/");
        query.next().await.unwrap().unwrap();
        fs::remove_file(&path).unwrap();
        assert!(matches!(
            writing.put("/x", vec![]).await,
            Err(DatastoreError::Lost { .. })
        ));
        let rest: Vec<_> = query.collect().await;
        assert!(matches!(
            rest.last(),
            Some(Err(DatastoreError::Lost { .. }))
        ));
        // Each handle is told once.
        writing.put("/x", vec![]).await.unwrap();
        datastore.put("/y", vec![]).await.unwrap();
    });
}
