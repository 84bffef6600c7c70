//! The embedded default: one file, crash-safe, pure Rust.

use std::{
    fs::OpenOptions,
    io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream, stream::BoxStream};
use parking_lot::Mutex;
use redb::{
    Database, DatabaseError, ReadableDatabase, StorageError, TableDefinition, TableError,
    backends::FileBackend,
};

use super::{Batch, Datastore, DatastoreError, KeyValue};

const TABLE: TableDefinition<&str, &[u8]> = TableDefinition::new("libp2p-peerstore");

/// Bytes of the file that redb may keep in memory: 16 MiB. The store reads everything once, at start, and
/// writes afterwards; redb's own default (1 GiB) is for databases that are read all the time.
const CACHE: usize = 16 * 1024 * 1024;

/// How many entries a query copies at a time.
const PAGE: usize = 256;

/// A [`Datastore`] in one file, by the embedded database [redb](https://docs.rs/redb).
///
/// The file is created if it is not there, readable by its owner only (its folder is not created). One process
/// at a time can hold it. A commit is one transaction over all its peers, synced before it returns. After an
/// I/O error the file is opened anew for the next call, so that a disk that recovers is used again.
///
/// What is deleted is no longer readable through the store, but its bytes can stay in free pages of the file.
#[derive(Debug, Clone)]
pub struct RedbDatastore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    state: Mutex<State>,
}

/// `Database` is shared so that a long query does not hold the lock.
#[derive(Debug)]
enum State {
    Open(Arc<Database>),
    /// An I/O error made redb refuse to go on with this handle.
    Broken,
    Closed,
}

impl RedbDatastore {
    /// Opens the file at `path`, or creates it.
    ///
    /// Blocks while redb reads and checks the file, which takes longer for a large one.
    ///
    /// # Errors
    ///
    /// [`DatastoreError::Locked`] when another process or store holds the file, [`DatastoreError::Open`] when
    /// its folder does not exist, it may not be read and written, it is damaged, or it is not a redb file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DatastoreError> {
        let path = path.as_ref().to_path_buf();
        let database = open(&path)?;
        Ok(Self {
            shared: Arc::new(Shared {
                path,
                state: Mutex::new(State::Open(Arc::new(database))),
            }),
        })
    }
}

impl Shared {
    fn location(&self) -> String {
        self.path.display().to_string()
    }

    fn database(&self, operation: &'static str) -> Result<Arc<Database>, DatastoreError> {
        let mut state = self.state.lock();
        match &*state {
            State::Open(database) => Ok(database.clone()),
            State::Closed => Err(DatastoreError::Closed {
                operation,
                location: self.location(),
            }),
            State::Broken => {
                let database = Arc::new(open(&self.path)?);
                *state = State::Open(database.clone());
                Ok(database)
            }
        }
    }

    /// Runs one operation; after an I/O error the next one opens the file anew.
    fn run<R>(
        &self,
        operation: &'static str,
        act: impl FnOnce(&Database) -> Result<R, redb::Error>,
    ) -> Result<R, DatastoreError> {
        let database = self.database(operation)?;
        act(&database).map_err(|error| {
            if matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo) {
                let mut state = self.state.lock();
                if matches!(&*state, State::Open(_)) {
                    *state = State::Broken;
                }
            }
            DatastoreError::failed(operation, self.location(), error)
        })
    }

    /// Up to a page of entries that begin with `prefix`, from `start` on.
    fn page(&self, prefix: &str, start: Bound<&str>) -> Result<Vec<KeyValue>, DatastoreError> {
        self.run("read", |database| {
            let table = match database.begin_read()?.open_table(TABLE) {
                Ok(table) => table,
                // A new file: nothing was ever written.
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let mut page = Vec::new();
            for entry in table.range::<&str>((start, Bound::Unbounded))?.take(PAGE) {
                let (key, value) = entry?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                page.push((key.value().to_owned(), value.value().to_vec()));
            }
            Ok(page)
        })
    }
}

impl Datastore for RedbDatastore {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        async move {
            self.shared.run("read", |database| {
                let table = match database.begin_read()?.open_table(TABLE) {
                    Ok(table) => table,
                    Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                    Err(error) => return Err(error.into()),
                };
                Ok(table.get(key)?.map(|value| value.value().to_vec()))
            })
        }
        .boxed()
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        // Page by page: a query that is kept for long pins no old pages of the file.
        enum At {
            Start,
            After(String),
            End,
        }
        stream::unfold(At::Start, move |at| async move {
            let page = match &at {
                At::Start => self.shared.page(prefix, Bound::Included(prefix)),
                At::After(key) => self.shared.page(prefix, Bound::Excluded(key)),
                At::End => return None,
            };
            match page {
                Ok(page) => {
                    let next = At::After(page.last()?.0.clone());
                    Some((
                        stream::iter(page.into_iter().map(Ok).collect::<Vec<_>>()),
                        next,
                    ))
                }
                Err(error) => Some((stream::iter(vec![Err(error)]), At::End)),
            }
        })
        .flatten()
        .boxed()
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        async move {
            self.shared.run("commit", |database| {
                let transaction = database.begin_write()?;
                {
                    let mut table = transaction.open_table(TABLE)?;
                    for (key, value) in batch.iter() {
                        match value {
                            Some(value) => table.insert(key, value)?,
                            None => table.remove(key)?,
                        };
                    }
                }
                transaction.commit()?;
                Ok(())
            })
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DatastoreError>> {
        async move {
            // Dropping the last reference closes the file and releases its lock.
            *self.shared.state.lock() = State::Closed;
            Ok(())
        }
        .boxed()
    }
}

fn open(path: &Path) -> Result<Database, DatastoreError> {
    let location = || path.display().to_string();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(|error| DatastoreError::Open {
        location: location(),
        hint: match error.kind() {
            io::ErrorKind::NotFound => "its folder does not exist; create it first",
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "it cannot be read and written; check who owns it, and whether the disk is read-only"
            }
            io::ErrorKind::IsADirectory => "it is a folder; name a file in it",
            _ => "the file cannot be opened or created",
        },
        source: error.into(),
    })?;
    FileBackend::new(file)
        .and_then(|backend| {
            Database::builder()
                .set_cache_size(CACHE)
                // Without it redb trusts the file, and panics later where it is damaged. It reads the file once
                // more, as the store does at start anyway.
                .set_check_integrity_on_open(true)
                .create_with_backend(backend)
        })
        .map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                DatastoreError::Locked {
                    location: location(),
                }
            }
            error => DatastoreError::Open {
                location: location(),
                hint: match &error {
                    DatabaseError::UpgradeRequired(_) => {
                        "an older version of redb wrote it; convert it with that version, or start with a new file"
                    }
                    DatabaseError::Storage(StorageError::Corrupted(_)) => {
                        "it is damaged, or not a peer store; move it away to start with a new file"
                    }
                    DatabaseError::Storage(StorageError::Io(error))
                        if error.kind() == io::ErrorKind::InvalidData =>
                    {
                        "it is not a redb file; choose another path"
                    }
                    _ => "the file cannot be used",
                },
                source: error.into(),
            },
        })
}
