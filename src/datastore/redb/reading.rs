//! The file of a [`RedbDatastore`], opened so that nothing is ever written to it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    ops::Bound,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use redb::{BackendError, StorageBackend, backends::FileBackend};

use super::{RedbDatastore, RedbStorage, medium::Medium};
use crate::datastore::DatastoreError;

impl RedbDatastore {
    /// Opens the file at `path` to be read only: for tools that look at the store of a node that is not running. A commit
    /// fails.
    ///
    /// The file is neither made nor changed, and may lie on a disk that is read-only. One that a crash has left is put in
    /// order in memory. Several such readers can have it open at a time, and no node meanwhile.
    ///
    /// # Errors
    ///
    /// As [`RedbDatastore::open`], and when there is no such file.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, DatastoreError> {
        let path = path.as_ref().to_path_buf();
        let location = path.display().to_string();
        let refused = |hint, source: io::Error| DatastoreError::Open {
            location: location.clone(),
            hint,
            source: source.into(),
        };
        let metadata = fs::metadata(&path).map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::NotFound => "there is no such file; check the path",
                io::ErrorKind::PermissionDenied => "this user may not read it; check who owns it",
                _ => "it cannot be looked at",
            };
            refused(hint, error)
        })?;
        if !metadata.is_file() {
            let hint = "it is no file; name the file of the datastore";
            return Err(refused(hint, io::ErrorKind::InvalidInput.into()));
        }
        if metadata.len() == 0 {
            // redb would make a database of it.
            let hint = "it is an empty file, and no peer store; check the path";
            return Err(refused(hint, io::ErrorKind::InvalidData.into()));
        }
        let mut opened = Self::open_medium(Medium::other(location, Reading(path)))?;
        opened.read_only = true;
        Ok(opened)
    }
}

struct Reading(PathBuf);

impl RedbStorage for Reading {
    type Backend = Overlay;

    fn open(&self) -> io::Result<Overlay> {
        let file = FileBackend::new(File::open(&self.0)?).map_err(io::Error::other)?;
        let len = file.len()?;
        Ok(Overlay {
            file,
            written: Mutex::new(Written {
                len,
                of_file: len,
                pages: BTreeMap::new(),
            }),
        })
    }

    fn create(&self) -> io::Result<Overlay> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn copy(&self) -> io::Result<Overlay> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn install(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_folder(&self) -> io::Result<()> {
        Ok(())
    }
}

const PAGE: usize = 4_096;

/// A file, and over it what redb has written since: its notes about being open, and what it puts in order.
#[derive(Debug)]
struct Overlay {
    file: FileBackend,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    len: u64,
    /// So much of the file still counts; what lies behind it was cut off.
    of_file: u64,
    /// By number.
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
}

impl Overlay {
    fn page(&self, written: &Written, number: u64) -> io::Result<Box<[u8; PAGE]>> {
        if let Some(page) = written.pages.get(&number) {
            return Ok(page.clone());
        }
        let mut page = Box::new([0; PAGE]);
        let start = number * PAGE as u64;
        let there = written.of_file.saturating_sub(start).min(PAGE as u64) as usize;
        if there > 0 {
            self.file.read(start, &mut page[..there])?;
        }
        Ok(page)
    }
}

/// The parts of a range that lie in one page each: the number of the page, where in it the part begins, and its length.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let start = (at % PAGE as u64) as usize;
        let part = (PAGE - start).min(len - done);
        done += part;
        (part > 0).then_some((at / PAGE as u64, start, part))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written.lock();
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > written.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = out;
        for (number, start, part) in parts(offset, rest.len()) {
            let (out, others) = std::mem::take(&mut rest).split_at_mut(part);
            rest = others;
            out.copy_from_slice(&self.page(&written, number)?[start..start + part]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.written.lock();
        if len < written.len {
            let (last, kept) = (len / PAGE as u64, (len % PAGE as u64) as usize);
            written.pages.split_off(&(last + u64::from(kept > 0)));
            if let Some(page) = written.pages.get_mut(&last) {
                page[kept..].fill(0);
            }
            written.of_file = written.of_file.min(len);
        }
        written.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written.lock();
        let mut rest = data;
        for (number, start, part) in parts(offset, data.len()) {
            let (now, others) = rest.split_at(part);
            rest = others;
            let mut page = self.page(&written, number)?;
            page[start..start + part].copy_from_slice(now);
            written.pages.insert(number, page);
        }
        written.len = written.len.max(offset + data.len() as u64);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    // Who only reads shares: other readers may come in, and a node that writes may not.

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
