//! What happens to the folder of files while it is in use.

use std::{fs, path::Path};

use libp2p_peerstore::FsDatastore;

use crate::Patient;

fn on(path: &Path) -> Patient {
    Patient::new(FsDatastore::open(path).unwrap())
}

/// Something happens to the folder; the next flush says so, and the ones after it save everything.
fn survives(what: impl FnOnce(&Path), more: usize) {
    let above = tempfile::tempdir().unwrap();
    let path = above.path().join("store");
    let mut patient = on(&path);
    what(&path);
    patient.live();
    let said = patient.flush_fails();
    assert!(said.contains(path.to_str().unwrap()), "{said}");
    assert!(said.contains("deleted or replaced"), "{said}");
    FsDatastore::open(&path).unwrap_err();
    patient.recovers();
    patient.assert_saved(|| FsDatastore::open(&path).unwrap(), more);
}

#[test]
fn a_folder_that_vanished_is_written_anew_with_everything() {
    survives(|path| fs::remove_dir_all(path).unwrap(), 0);
}

#[test]
fn a_folder_that_was_made_again_gets_everything() {
    survives(
        |path| {
            fs::remove_dir_all(path).unwrap();
            fs::create_dir(path).unwrap();
        },
        0,
    );
}

#[test]
fn a_folder_that_another_node_left_keeps_its_peers_and_gets_ours() {
    survives(
        |path| {
            let other = path.with_file_name("other");
            let patient = on(&other);
            let mut hand = patient.hand;
            hand.shutdown(patient.store);
            fs::remove_dir_all(path).unwrap();
            fs::rename(other, path).unwrap();
        },
        60,
    );
}

/// A letter where the folder was is named until it is moved away.
#[test]
fn a_file_in_its_place_is_left_alone() {
    let above = tempfile::tempdir().unwrap();
    let path = above.path().join("store");
    let mut patient = on(&path);
    fs::remove_dir_all(&path).unwrap();
    fs::write(&path, "a letter").unwrap();
    patient.live();
    for _ in 0..3 {
        let said = patient.flush_fails();
        assert!(
            said.contains(path.to_str().unwrap()) && said.contains("where a folder should be"),
            "{said}"
        );
    }
    assert_eq!(fs::read(&path).unwrap(), b"a letter");
    fs::remove_file(&path).unwrap();
    patient.recovers();
    patient.assert_saved(|| FsDatastore::open(&path).unwrap(), 0);
}
