//! Files that were damaged while nobody used them.

use std::{error::Error as _, fs, path::PathBuf};

use futures::executor::block_on;
use libp2p::PeerId;
use libp2p_peerstore::{Config, DatastoreError, PeerStore, RedbDatastore};
use tempfile::TempDir;

use crate::Patient;

/// A file with peers in it, and its bytes.
fn written() -> (TempDir, PathBuf, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.redb");
    let patient = Patient::on(&path);
    let mut hand = patient.hand;
    hand.shutdown(patient.store);
    let bytes = fs::read(&path).unwrap();
    (folder, path, bytes)
}

fn hint(path: &PathBuf) -> &'static str {
    let error = RedbDatastore::open(path).unwrap_err();
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
    match error {
        DatastoreError::Open { hint, .. } => hint,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_cut_at_any_tenth_of_its_length_is_an_error() {
    let (_folder, path, bytes) = written();
    for tenth in 1..10 {
        let cut = &bytes[..bytes.len() * tenth / 10];
        fs::write(&path, cut).unwrap();
        assert!(hint(&path).contains("it is damaged"));
        assert!(
            fs::read(&path).unwrap() == cut,
            "it is left for whoever can repair it"
        );
    }
}

#[test]
fn a_file_of_another_format_version_is_named() {
    let (_folder, path, bytes) = written();
    // The versions stand in both commit slots.
    for (version, says) in [
        (1, "older version of redb"),
        (2, "older version of redb"),
        (4, "newer version of redb"),
    ] {
        let mut other = bytes.clone();
        (other[64], other[192]) = (version, version);
        fs::write(&path, &other).unwrap();
        let hint = hint(&path);
        assert!(hint.contains(says), "{version}: {hint}");
    }
}

#[derive(Debug, Default)]
struct Outcomes {
    refused: usize,
    opened: usize,
    panics: usize,
}

/// Opens a store on what is there, reads it, and writes to it: each works or is an error.
fn open(path: &PathBuf, outcomes: &mut Outcomes) {
    let refused = |error: &dyn std::error::Error, outcomes: &mut Outcomes| {
        let mut error = Some(error);
        while let Some(cause) = error {
            outcomes.panics += usize::from(cause.to_string().contains("panicked"));
            error = cause.source();
        }
        outcomes.refused += 1;
    };
    let datastore = match RedbDatastore::open(path) {
        Ok(datastore) => datastore,
        Err(error) => {
            assert!(error.source().is_some());
            return refused(&error, outcomes);
        }
    };
    let store = match block_on(PeerStore::open(
        PeerId::random(),
        datastore,
        Config::default(),
    )) {
        Ok(store) => store,
        Err(error) => return refused(&error, outcomes),
    };
    crate::learn(&store);
    match block_on(store.shutdown()) {
        Ok(()) => outcomes.opened += 1,
        Err(error) => refused(&error, outcomes),
    }
}

fn flip(rounds: usize, seed: u64) {
    let (_folder, path, bytes) = written();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut outcomes = Outcomes::default();
    for _ in 0..rounds {
        let mut damaged = bytes.clone();
        // Sometimes in the header, which says how the rest is read.
        let most = if random.u8(..3) == 0 {
            320
        } else {
            damaged.len()
        };
        for _ in 0..1 << random.u8(..7) {
            damaged[random.usize(..most)] = random.u8(..);
        }
        if random.u8(..10) == 0 {
            // A page of nothing.
            let page = random.usize(..damaged.len() / 4096) * 4096;
            damaged[page..page + 4096].fill(0);
        }
        fs::write(&path, &damaged).unwrap();
        open(&path, &mut outcomes);
    }
    println!("{rounds} damaged files: {outcomes:?}");
    assert_eq!(outcomes.refused + outcomes.opened, rounds);
    assert_eq!(outcomes.panics, 0, "redb panicked, which was caught");
}

#[test]
fn a_file_with_random_bytes_flipped_opens_or_is_an_error() {
    flip(80, 1);
}

#[test]
#[ignore = "the long form, for a release build"]
fn thousands_of_files_with_random_bytes_flipped_open_or_are_an_error() {
    (2..12).for_each(|seed| flip(1_000, seed));
}
