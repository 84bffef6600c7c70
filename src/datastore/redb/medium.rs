//! Where the database lies, how it is opened there, and whether what lies there is still the same.

use std::{
    any::Any,
    fmt,
    fs::{File, Metadata, OpenOptions},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::SystemTime,
};

use redb::{Builder, Database, DatabaseError, StorageError, backends::FileBackend};

use crate::datastore::DatastoreError;

/// Bytes of the file that redb may keep in memory: 16 MiB. The store reads everything once, at start, and
/// writes afterwards; redb's own default (1 GiB) is for databases that are read all the time.
const CACHE: usize = 16 * 1024 * 1024;

/// Opens a database on storage of another kind.
pub(super) type OpenBackend =
    Box<dyn Fn(&Builder) -> Result<Database, DatabaseError> + Send + Sync>;

pub(super) enum Medium {
    File(PathBuf),
    Other { location: String, open: OpenBackend },
}

impl fmt::Debug for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Medium").field(&self.location()).finish()
    }
}

/// What a file looks like from outside, where the system can tell: which one it is, and when it was last written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trace {
    device: u64,
    inode: u64,
    len: u64,
    modified: Option<SystemTime>,
}

impl Trace {
    #[cfg(unix)]
    fn of(metadata: &Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: metadata.modified().ok(),
        })
    }

    #[cfg(not(unix))]
    fn of(_: &Metadata) -> Option<Self> {
        None
    }

    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

impl Medium {
    pub(super) fn location(&self) -> String {
        match self {
            Medium::File(path) => path.display().to_string(),
            Medium::Other { location, .. } => location.clone(),
        }
    }

    /// What the path leads to now. `Err` when it leads nowhere.
    pub(super) fn trace(&self) -> io::Result<Option<Trace>> {
        match self {
            Medium::File(path) => Ok(Trace::of(&path.metadata()?)),
            Medium::Other { .. } => Ok(None),
        }
    }

    /// Opens the database, or creates it. `before` is what was in use until now: where a disk has gone, no new file is
    /// made in the folder that it was mounted on.
    pub(super) fn open(&self, before: Option<Trace>) -> Result<Database, DatastoreError> {
        let mut builder = Database::builder();
        builder
            .set_cache_size(CACHE)
            // Without it redb trusts the file, and panics later where it is damaged. It reads the file once
            // more, as the store does at start anyway.
            .set_check_integrity_on_open(true);
        let opened = match self {
            Medium::File(path) => {
                let file = open_file(path, before)?;
                let open = || builder.create_with_backend(FileBackend::new(file)?);
                catch_unwind(AssertUnwindSafe(open))
            }
            Medium::Other { open, .. } => catch_unwind(AssertUnwindSafe(|| open(&builder))),
        };
        match opened {
            Ok(Ok(database)) => Ok(database),
            Ok(Err(error)) => Err(self.cannot_open(error)),
            Err(panic) => Err(DatastoreError::Open {
                location: self.location(),
                hint: DAMAGED,
                source: message(&*panic).into(),
            }),
        }
    }

    fn cannot_open(&self, error: DatabaseError) -> DatastoreError {
        let location = self.location();
        let hint = match &error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                return DatastoreError::Locked { location };
            }
            DatabaseError::UpgradeRequired(_) => {
                "an older version of redb wrote it; convert it with that version, or start with a new file"
            }
            DatabaseError::Storage(StorageError::Corrupted(_)) => DAMAGED,
            DatabaseError::Storage(StorageError::Io(error)) => match error.kind() {
                io::ErrorKind::InvalidData => "it is not a redb file; choose another path",
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "its disk is full; make room on it"
                }
                _ => "it cannot be read or written; look at its disk",
            },
            _ => "the file cannot be used",
        };
        DatastoreError::Open {
            location,
            hint,
            source: error.into(),
        }
    }
}

const DAMAGED: &str = "it is damaged, of a newer version of redb, or not a peer store; move it away to start with a new file";

fn open_file(path: &Path, before: Option<Trace>) -> Result<File, DatastoreError> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let folder = folder.metadata().ok().and_then(|found| Trace::of(&found));
    let disk_is_gone = match (before, folder) {
        (Some(before), Some(folder)) => before.device != folder.device,
        _ => false,
    };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(!disk_is_gone);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|error| DatastoreError::Open {
        location: path.display().to_string(),
        hint: match error.kind() {
            io::ErrorKind::NotFound if disk_is_gone => {
                "the disk that it was on is not mounted; mount it again"
            }
            io::ErrorKind::NotFound => "its folder does not exist; create it first",
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "it cannot be read and written; check who owns it, and whether the disk is read-only"
            }
            io::ErrorKind::IsADirectory => "it is a folder; name a file in it",
            _ => "the file cannot be opened or created",
        },
        source: error.into(),
    })
}

/// What a panic said.
pub(super) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("redb panicked: {}", text.unwrap_or("no message"))
}
