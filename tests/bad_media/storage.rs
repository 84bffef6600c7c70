//! A disk that is full, or read-only, below redb.

use futures::executor::block_on;
use libp2p_peerstore::Datastore;

use crate::{
    Patient,
    disk::{Disk, Failing},
};

#[test]
fn a_full_disk_is_named_and_what_did_not_fit_is_saved_when_there_is_room() {
    let disk = Disk::default();
    let mut patient = Patient::new(disk.open().unwrap());
    disk.limit(Some(disk.len()));
    patient.live();
    // More than fits into what is free in the file.
    (0..4_000).for_each(|_| _ = crate::learn(&patient.store));
    for _ in 0..3 {
        let said = patient.flush_fails();
        assert!(said.contains("`disk`"), "{said}");
    }
    disk.limit(None);
    patient.recovers();
    patient.assert_saved(|| Disk::with(disk.durable()).open().unwrap(), 0);
}

#[test]
fn a_disk_that_became_read_only_is_named_and_written_when_it_can_be() {
    let disk = Disk::default();
    let mut patient = Patient::new(disk.open().unwrap());
    disk.fail(Failing::ReadOnly);
    patient.live();
    let said = patient.flush_fails();
    assert!(
        said.contains("`disk`") && said.contains("read-only"),
        "{said}"
    );
    let said = patient.flush_fails();
    assert!(said.contains("whether the disk is read-only"), "{said}");
    disk.fail(Failing::None);
    patient.recovers();
    patient.assert_saved(|| Disk::with(disk.durable()).open().unwrap(), 0);
}

/// redb says nothing of what it could not write while it closes a file: whoever opens that next would build on it.
#[test]
fn a_file_whose_closing_failed_is_copied_to_where_it_is_on_the_disk_for_certain() {
    let disk = Disk::default();
    let datastore = disk.open().unwrap();
    block_on(datastore.put("/a", vec![1])).unwrap();
    assert_eq!(disk.installs(), 1);
    disk.fail(Failing::Sync(0, None));
    block_on(datastore.close()).unwrap();
    assert!(!disk.is_to_fail(), "closing synced nothing");
    assert_eq!(disk.installs(), 2);
    block_on(datastore.close()).unwrap();
    assert_eq!(disk.installs(), 2, "it is somebody else's by then");
    let found = Disk::with(disk.durable()).open().unwrap();
    assert_eq!(block_on(found.get("/a")).unwrap(), Some(vec![1]));
}
