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

use super::watched::{Doubt, Watched};
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

    /// Begins a new one beside it, which holds what reading this one yields.
    fn copy(&self) -> io::Result<Self::Backend>;

    /// Puts the new one into its place, at once.
    fn install(&self) -> io::Result<()>;

    /// Makes it durable which one is in its place.
    fn sync_folder(&self) -> io::Result<()>;
}

type OpenBackend = Box<dyn Fn(&Doubt) -> Result<Database, DatabaseError> + Send + Sync>;
type Act = Box<dyn Fn() -> io::Result<()> + Send + Sync>;

pub(super) enum Medium {
    File(PathBuf),
    Other {
        location: String,
        open: OpenBackend,
        create: OpenBackend,
        copy: OpenBackend,
        install: Act,
        sync_folder: Act,
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
        let (opening, creating, copying) = (storage.clone(), storage.clone(), storage.clone());
        let installing = storage.clone();
        Medium::Other {
            location,
            open: Box::new(move |doubt| {
                database(opening.open().map_err(StorageError::Io)?, false, doubt)
            }),
            create: Box::new(move |doubt| {
                database(creating.create().map_err(StorageError::Io)?, false, doubt)
            }),
            copy: Box::new(move |doubt| {
                database(copying.copy().map_err(StorageError::Io)?, true, doubt)
            }),
            install: Box::new(move || installing.install()),
            sync_folder: Box::new(move || storage.sync_folder()),
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
    pub(super) fn open(
        &self,
        before: Option<Trace>,
        doubt: &Doubt,
    ) -> Result<Database, DatastoreError> {
        match self.attempt(|| self.open_existing(doubt)) {
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
                self.make(false, doubt)?;
                let opened = self.attempt(|| self.open_existing(doubt));
                opened.map_err(|error| self.cannot_open(error))
            }
            opened => opened.map_err(|error| self.cannot_open(error)),
        }
    }

    fn open_existing(&self, doubt: &Doubt) -> Result<Database, DatabaseError> {
        match self {
            Medium::File(path) => {
                let file = OpenOptions::new().read(true).write(true).open(path);
                let file = file.map_err(StorageError::Io)?;
                database(FileBackend::new(file)?, false, doubt)
            }
            Medium::Other { open, .. } => open(doubt),
        }
    }

    /// Leaves nothing in doubt: what can be read is copied if something of it may not be on the disk.
    pub(super) fn settle(&self, doubt: &Doubt) -> Result<(), DatastoreError> {
        // What was deleted meanwhile needs no copy.
        if doubt.is_there() && self.trace().is_ok() {
            self.move_to_new_ground(doubt)?;
        }
        doubt.clear();
        Ok(())
    }

    /// Copies the database to a new place on the disk, which takes the place of the old one. That is not written to.
    pub(super) fn move_to_new_ground(&self, doubt: &Doubt) -> Result<(), DatastoreError> {
        self.make(true, doubt)
    }

    /// Makes a database elsewhere, empty or as a copy, and puts it into its place when it is complete and sound: whatever
    /// happens meanwhile, in its place lies what was there before, or nothing.
    fn make(&self, copy: bool, doubt: &Doubt) -> Result<(), DatastoreError> {
        let made = self.attempt(|| {
            let of_new = Doubt::default();
            let install: Box<dyn FnOnce() -> io::Result<()>> = match self {
                Medium::File(path) => {
                    let (unfinished, file) = Unfinished::create(path, copy)?;
                    drop(database(FileBackend::new(file)?, copy, &of_new)?);
                    Box::new(move || unfinished.install(path, copy))
                }
                Medium::Other {
                    create,
                    copy: open_copy,
                    install,
                    ..
                } => {
                    let make = if copy { open_copy } else { create };
                    drop(make(&of_new)?);
                    Box::new(install)
                }
            };
            if of_new.is_there() {
                let error = "what was written to a new file may not be on the disk";
                return Err(StorageError::Io(io::Error::other(error)).into());
            }
            install().map_err(StorageError::Io)?;
            // After a power cut the old one could be back, or nothing: another attempt makes another one.
            let synced = self.sync_folder().inspect_err(|_| doubt.raise());
            Ok(synced.map_err(StorageError::Io)?)
        });
        made.map_err(|error| self.cannot_open(error))
    }

    fn sync_folder(&self) -> io::Result<()> {
        match self {
            Medium::File(path) => sync_folder(folder(&target(path, true))),
            Medium::Other { sync_folder, .. } => sync_folder(),
        }
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

/// Opens a database. A copy is synced before, and not left to what redb does with a file that it has not written.
fn database(
    storage: impl StorageBackend,
    is_copy: bool,
    doubt: &Doubt,
) -> Result<Database, DatabaseError> {
    if is_copy {
        storage.sync_data().map_err(StorageError::Io)?;
    }
    builder().create_with_backend(Watched::new(storage, doubt.clone()))
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
fn sync_folder(folder: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if is_not_offered(&error) => {
            tracing::debug!(folder = %folder.display(), %error, "could not sync the folder");
            Ok(())
        }
        synced => synced,
    }
}

/// Whether a folder cannot be synced here, however sound the disk is.
fn is_not_offered(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    matches!(error.kind(), InvalidInput | PermissionDenied | Unsupported)
}

/// What a panic said.
pub(super) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("redb panicked: {}", text.unwrap_or("no message"))
}
