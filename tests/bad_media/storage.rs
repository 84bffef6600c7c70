//! A disk that is full, or read-only, below redb.

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
