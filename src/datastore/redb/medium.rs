//! Where the database lies, how it is opened there, and whether what lies there is still the same.

use std::{
    any::Any,
    fmt,
    fs::{self, File, Metadata, OpenOptions},
    hash::{BuildHasher, RandomState},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::SystemTime,
};

use redb::{Builder, Database, DatabaseError, StorageBackend, StorageError, backends::FileBackend};

use crate::datastore::DatastoreError;

/// Bytes of the file that redb may keep in memory: 16 MiB. The store reads everything once, at start, and
/// writes afterwards; redb's own default (1 GiB) is for databases that are read all the time.
const CACHE: usize = 16 * 1024 * 1024;

/// Storage other than a file, for tests that break it. Hidden because the version of redb would become part of this
/// crate's interface.
#[doc(hidden)]
pub trait RedbStorage: Send + Sync + 'static {
    type Backend: StorageBackend;

    /// Opens what is there: [`io::ErrorKind::NotFound`] when nothing is.
    fn open(&self) -> io::Result<Self::Backend>;

    /// Begins a new one beside it, which is empty.
    fn create(&self) -> io::Result<Self::Backend>;

    /// Begins a new one beside it, which durably holds what reading this one yields.
    fn copy(&self) -> io::Result<Self::Backend>;

    /// Puts the new one into its place, at once and durably.
    fn install(&self) -> io::Result<()>;
}

type OpenBackend = Box<dyn Fn(&Builder) -> Result<Database, DatabaseError> + Send + Sync>;

pub(super) enum Medium {
    File(PathBuf),
    Other {
        location: String,
        open: OpenBackend,
        create: OpenBackend,
        copy: OpenBackend,
        install: Box<dyn Fn() -> io::Result<()> + Send + Sync>,
    },
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
    pub(super) fn other(location: String, storage: impl RedbStorage) -> Self {
        let storage = std::sync::Arc::new(storage);
        let (creating, copying, installing) = (storage.clone(), storage.clone(), storage.clone());
        Medium::Other {
            location,
            open: Box::new(move |builder| {
                builder.create_with_backend(storage.open().map_err(StorageError::Io)?)
            }),
            create: Box::new(move |builder| {
                builder.create_with_backend(creating.create().map_err(StorageError::Io)?)
            }),
            copy: Box::new(move |builder| {
                builder.create_with_backend(copying.copy().map_err(StorageError::Io)?)
            }),
            install: Box::new(move || installing.install()),
        }
    }

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

    /// Opens the database, or makes one. `before` is what was in use until now: where a disk has gone, none is made in
    /// the folder that it was mounted on.
    pub(super) fn open(&self, before: Option<Trace>) -> Result<Database, DatastoreError> {
        match self.attempt(|| self.open_existing()) {
            Err(DatabaseError::Storage(StorageError::Io(error)))
                if error.kind() == io::ErrorKind::NotFound =>
            {
                if self.is_unmounted(before) {
                    return Err(DatastoreError::Open {
                        location: self.location(),
                        hint: "the disk that it was on is not mounted; mount it again",
                        source: error.into(),
                    });
                }
                self.make(false)?;
                let opened = self.attempt(|| self.open_existing());
                opened.map_err(|error| self.cannot_open(error))
            }
            opened => opened.map_err(|error| self.cannot_open(error)),
        }
    }

    fn open_existing(&self) -> Result<Database, DatabaseError> {
        match self {
            Medium::File(path) => {
                let file = OpenOptions::new().read(true).write(true).open(path);
                let file = file.map_err(StorageError::Io)?;
                builder().create_with_backend(FileBackend::new(file)?)
            }
            Medium::Other { open, .. } => open(&builder()),
        }
    }

    /// Copies the database to a new place on the disk, which takes the place of the old one. That is not written to.
    pub(super) fn move_to_new_ground(&self) -> Result<(), DatastoreError> {
        self.make(true)
    }

    /// Makes a database elsewhere, empty or as a copy, and puts it into its place when it is complete and sound: whatever
    /// happens meanwhile, in its place lies what was there before, or nothing.
    fn make(&self, copy: bool) -> Result<(), DatastoreError> {
        let made = self.attempt(|| match self {
            Medium::File(path) => {
                let (unfinished, file) = Unfinished::create(path, copy)?;
                drop(builder().create_with_backend(FileBackend::new(file)?)?);
                Ok(unfinished.install(path, copy).map_err(StorageError::Io)?)
            }
            Medium::Other {
                create,
                copy: open_copy,
                install,
                ..
            } => {
                let make = if copy { open_copy } else { create };
                drop(make(&builder())?);
                Ok(install().map_err(StorageError::Io)?)
            }
        });
        made.map_err(|error| self.cannot_open(error))
    }

    /// Whether the folder is on another disk than the file was.
    fn is_unmounted(&self, before: Option<Trace>) -> bool {
        let (Medium::File(path), Some(before)) = (self, before) else {
            return false;
        };
        let folder = folder(path).metadata();
        let folder = folder.ok().and_then(|found| Trace::of(&found));
        folder.is_some_and(|folder| folder.device != before.device)
    }

    /// Does something in redb, whose panic is as good as the word that the file is damaged.
    fn attempt<R>(
        &self,
        act: impl FnOnce() -> Result<R, DatabaseError>,
    ) -> Result<R, DatabaseError> {
        catch_unwind(AssertUnwindSafe(act))
            .unwrap_or_else(|panic| Err(StorageError::Corrupted(message(&*panic)).into()))
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
            DatabaseError::Storage(StorageError::Corrupted(_)) => {
                "it is damaged, of a newer version of redb, or not a peer store; move it away to start with a new file"
            }
            DatabaseError::Storage(StorageError::Io(error)) => match error.kind() {
                io::ErrorKind::NotFound => "its folder does not exist; create it first",
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    "it cannot be read and written; check who owns it, and whether the disk is read-only"
                }
                io::ErrorKind::IsADirectory => "it is a folder; name a file in it",
                io::ErrorKind::InvalidData => "it is not a redb file; choose another path",
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "the disk is full; make room on it"
                }
                _ => "it cannot be opened or created",
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

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder
        .set_cache_size(CACHE)
        // Without it redb trusts the file, and panics later where it is damaged. It reads the file once
        // more, as the store does at start anyway.
        .set_check_integrity_on_open(true);
    builder
}

/// A file that nobody looks for: removed unless it takes its place.
struct Unfinished(PathBuf);

impl Unfinished {
    fn create(path: &Path, copy: bool) -> Result<(Self, File), StorageError> {
        // Two processes that begin at once do not meet.
        let random = RandomState::new().hash_one(());
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".unfinished-{random:016x}"));
        let unfinished = Self(target(path, copy).with_file_name(name));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&unfinished.0)?;
        if copy {
            let mut old = File::open(path)?;
            // Whoever could read and write the old one can go on.
            file.set_permissions(old.metadata()?.permissions())?;
            io::copy(&mut old, &mut file)?;
            file.sync_all()?;
        }
        Ok((unfinished, file))
    }

    fn install(self, path: &Path, replace: bool) -> io::Result<()> {
        let path = target(path, replace);
        if replace {
            fs::rename(&self.0, &path)?;
        } else if let Err(error) = fs::hard_link(&self.0, &path) {
            // Another process was faster, or the disk knows no links.
            if error.kind() != io::ErrorKind::AlreadyExists && !path.try_exists()? {
                fs::rename(&self.0, &path)?;
            }
        }
        sync_folder(folder(&path));
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It may have been renamed.
        let _ = fs::remove_file(&self.0);
    }
}

/// The file itself, where the path is a link to it.
fn target(path: &Path, exists: bool) -> PathBuf {
    let target = if exists {
        path.canonicalize().ok()
    } else {
        None
    };
    target.unwrap_or_else(|| path.to_path_buf())
}

fn folder(path: &Path) -> &Path {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// Makes a name in a folder durable. Some file systems know no such thing, and some folders may not be read.
fn sync_folder(folder: &Path) {
    if cfg!(unix)
        && let Err(error) = File::open(folder).and_then(|folder| folder.sync_all())
    {
        tracing::debug!(folder = %folder.display(), %error, "could not sync the folder");
    }
}

/// What a panic said.
pub(super) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("redb panicked: {}", text.unwrap_or("no message"))
}
