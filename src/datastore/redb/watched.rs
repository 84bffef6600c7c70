//! Storage that remembers whether something may not have reached the disk. redb does not tell of all of it: what fails while a
//! file is closed fails in silence.

use std::{
    io,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use redb::{BackendError, StorageBackend};

/// Whether the system may have dropped what it was to write, and forgotten about it: Linux takes what it could not
/// write for written. Whoever goes on with such a file loses all of it at the next power cut, so that what can be read is
/// copied to a new file first.
#[derive(Debug, Clone, Default)]
pub(super) struct Doubt(Arc<AtomicBool>);

impl Doubt {
    pub(super) fn is_there(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn clear(&self) {
        self.0.store(false, Ordering::Release);
    }
}

#[derive(Debug)]
pub(super) struct Watched<B> {
    storage: B,
    doubt: Doubt,
}

impl<B> Watched<B> {
    pub(super) fn new(storage: B, doubt: Doubt) -> Self {
        Self { storage, doubt }
    }

    /// A full disk says so before it takes anything.
    fn noted(&self, outcome: io::Result<()>) -> io::Result<()> {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        let is_doubtful = |error: &io::Error| !matches!(error.kind(), StorageFull | QuotaExceeded);
        if outcome.as_ref().is_err_and(is_doubtful) {
            self.doubt.raise();
        }
        outcome
    }
}

impl<B: StorageBackend> StorageBackend for Watched<B> {
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.noted(self.storage.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.noted(self.storage.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.noted(self.storage.write(offset, data))
    }

    // All else is the storage's.

    fn len(&self) -> io::Result<u64> {
        self.storage.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.storage.read(offset, out)
    }

    fn close(&self) -> io::Result<()> {
        self.storage.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.storage.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.storage.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.storage.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.storage.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.storage.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.storage.query_lock_range(start, end)
    }
}
