//! The embedded default: one file, crash-safe, pure Rust.

mod medium;
mod reading;
mod watched;

use std::{
    hash::{BuildHasher, RandomState},
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream, stream::BoxStream};
use parking_lot::Mutex;
use redb::{Database, ReadableDatabase, TableDefinition, TableError};

#[doc(hidden)]
pub use self::medium::RedbStorage;
use self::{
    medium::{Medium, Trace, message},
    watched::Doubt,
};
use super::{Batch, Datastore, DatastoreError, KeyValue};

const TABLE: TableDefinition<&str, &[u8]> = TableDefinition::new("libp2p-peerstore");

/// One row: a random number, new with each commit. A file that is opened again and does not hold the last one is not
/// the one that was in use, or an older state of it.
const STAMP: TableDefinition<(), u64> = TableDefinition::new("libp2p-peerstore-stamp");

/// How many entries a query copies at a time.
const PAGE: usize = 256;

/// A [`Datastore`] in one file, by the embedded database [redb](https://docs.rs/redb).
///
/// The file is created if it is not there, readable by its owner only (its folder is not created). One process
/// at a time can hold it. A commit is one transaction over all its peers, synced before it returns. After a failure
/// the file is opened anew for the next call, so that a disk that recovers is used again. A panic of redb is caught,
/// unless the program aborts on panics, and is a failure like any other.
///
/// After a failed sync the system may show what it has never written, so that everything is copied to a new file, which
/// then takes the place of the old one. (`<name>.unfinished-<number>` beside the file is what a crash left of that, or
/// of the first start.)
///
/// A file that is deleted, replaced or overwritten while it is in use is noticed by the next commit, which fails with
/// [`DatastoreError::Lost`]; the store then writes everything that it holds. (Elsewhere than on Unix it is noticed
/// when the file is gone, or opened anew.) What stands in a file that was put in its place about other peers is left
/// there.
///
/// Clones are the same datastore, and [`Datastore::close`] closes it for all of them.
///
/// What is deleted is no longer readable through the store, but its bytes can stay in free pages of the file.
#[derive(Debug)]
pub struct RedbDatastore {
    shared: Arc<Shared>,
    /// The losses that this handle has told of.
    told: AtomicU64,
    /// Nothing that is committed would reach the file.
    read_only: bool,
}

impl Clone for RedbDatastore {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            told: AtomicU64::new(self.told.load(Ordering::Relaxed)),
            read_only: self.read_only,
        }
    }
}

#[derive(Debug)]
struct Shared {
    medium: Medium,
    /// Whether all that was written to the file is on the disk.
    doubt: Doubt,
    state: Mutex<State>,
    /// Held by a commit, so that stamps are known in the order in which they are written.
    committing: Mutex<()>,
}

#[derive(Debug)]
struct State {
    handle: Handle,
    /// The file as this process left it.
    trace: Option<Trace>,
    /// The stamp in the file.
    stamp: u64,
    /// The stamp of a commit that may have been applied.
    doubtful: Option<u64>,
    /// How often what was committed turned out to be gone.
    losses: u64,
}

/// `Database` is shared so that a long query does not hold the lock.
#[derive(Debug)]
enum Handle {
    Open(Arc<Database>),
    /// After a failure redb refuses to go on with this handle, or it is not wise to.
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
        Self::open_medium(Medium::File(path.as_ref().to_path_buf()))
    }

    /// Opens a database on storage other than a file, for tests that break it.
    ///
    /// # Errors
    ///
    /// As [`RedbDatastore::open`].
    #[doc(hidden)]
    pub fn open_storage(
        location: impl Into<String>,
        storage: impl RedbStorage,
    ) -> Result<Self, DatastoreError> {
        Self::open_medium(Medium::other(location.into(), storage))
    }

    fn open_medium(medium: Medium) -> Result<Self, DatastoreError> {
        let doubt = Doubt::default();
        let opened = medium.open(None, &doubt).and_then(|database| {
            let stamp = guarded(&medium, "open", || stamp_of(&database))?;
            Ok((database, stamp))
        });
        let (database, stamp) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                // Else whoever tries again takes for written what the system has dropped.
                if let Err(error) = medium.settle(&doubt) {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "could not copy the file"
                    );
                }
                return Err(error);
            }
        };
        let state = State {
            handle: Handle::Open(Arc::new(database)),
            trace: medium.trace().ok().flatten(),
            stamp,
            doubtful: None,
            losses: 0,
        };
        Ok(Self {
            shared: Arc::new(Shared {
                medium,
                doubt,
                state: Mutex::new(state),
                committing: Mutex::new(()),
            }),
            told: AtomicU64::new(0),
            read_only: false,
        })
    }

    /// Fails once, through each handle, after what was committed turned out to be gone.
    fn tell_of_losses(&self) -> Result<(), DatastoreError> {
        let losses = self.shared.state.lock().losses;
        if self.told.swap(losses, Ordering::Relaxed) == losses {
            Ok(())
        } else {
            Err(self.shared.lost())
        }
    }

    fn apply(&self, batch: &Batch) -> Result<(), DatastoreError> {
        let shared = &*self.shared;
        if self.read_only {
            let location = shared.medium.location();
            let source = "it was opened to be read only";
            return Err(DatastoreError::failed("commit", location, source));
        }
        let _committing = shared.committing.lock();
        shared.look_at_the_file();
        shared.database("commit")?;
        self.tell_of_losses()?;
        let stamp = new_stamp();
        shared.state.lock().doubtful = Some(stamp);
        shared.run("commit", |database| write(database, batch, stamp))?;
        if shared.committed(stamp) {
            return Ok(());
        }
        // It went into a file that no path leads to any longer.
        shared.give_up();
        shared.database("commit")?;
        self.tell_of_losses()
    }
}

impl Shared {
    fn lost(&self) -> DatastoreError {
        DatastoreError::Lost {
            location: self.medium.location(),
        }
    }

    fn database(&self, operation: &'static str) -> Result<Arc<Database>, DatastoreError> {
        let mut state = self.state.lock();
        match &state.handle {
            Handle::Open(database) => Ok(database.clone()),
            Handle::Closed => Err(DatastoreError::Closed {
                operation,
                location: self.medium.location(),
            }),
            Handle::Broken => {
                self.medium.settle(&self.doubt)?;
                let database = Arc::new(self.medium.open(state.trace, &self.doubt)?);
                let stamp = guarded(&self.medium, "open", || stamp_of(&database))?;
                if stamp != state.stamp && Some(stamp) != state.doubtful {
                    state.losses += 1;
                }
                (state.stamp, state.doubtful) = (stamp, None);
                state.trace = self.medium.trace().ok().flatten();
                state.handle = Handle::Open(database.clone());
                Ok(database)
            }
        }
    }

    /// Lets go of the file if the path leads to another one, or if somebody else has written to it.
    fn look_at_the_file(&self) {
        let left = match &*self.state.lock() {
            State {
                handle: Handle::Open(_),
                trace,
                ..
            } => *trace,
            // What is opened anew is looked at then.
            _ => return,
        };
        let now = self.medium.trace();
        if now.as_ref().is_ok_and(|now| *now == left) {
            return;
        }
        if let (Some(left), Ok(Some(now))) = (left, now)
            && left.is_same_file(&now)
            && let Err(error) = self.medium.move_to_new_ground(&self.doubt)
        {
            // Closing writes to the file. What was written there instead is to survive that, if it is a database.
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "could not copy the file"
            );
        }
        self.give_up();
    }

    /// Notes a commit that is in the file; whether the path still leads to it.
    fn committed(&self, stamp: u64) -> bool {
        let now = self.medium.trace();
        let mut state = self.state.lock();
        (state.stamp, state.doubtful) = (stamp, None);
        let before = std::mem::replace(&mut state.trace, now.as_ref().ok().copied().flatten());
        match (before, now) {
            (_, Err(_)) => {
                // Where it was is still of interest: a new file is made there only.
                state.trace = before;
                false
            }
            (Some(before), Ok(Some(now))) => before.is_same_file(&now),
            _ => true,
        }
    }

    /// Lets go of the file, which the next call opens anew.
    fn give_up(&self) {
        let mut state = self.state.lock();
        if !matches!(state.handle, Handle::Open(_)) {
            return;
        }
        let handle = std::mem::replace(&mut state.handle, Handle::Broken);
        drop(state);
        // Closing writes to the file, and may find it damaged.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(handle)));
        if let Err(panic) = dropped {
            let location = self.medium.location();
            tracing::warn!(
                location,
                error = message(&*panic),
                "could not close the file"
            );
        }
    }

    /// Runs one operation; after a failure the next one opens the file anew.
    fn run<R>(
        &self,
        operation: &'static str,
        act: impl FnOnce(&Database) -> Result<R, redb::Error>,
    ) -> Result<R, DatastoreError> {
        let database = self.database(operation)?;
        let result = guarded(&self.medium, operation, || act(&database));
        if result.is_err() {
            self.give_up();
        }
        result
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

/// Runs something in redb, and makes an error of its panic.
fn guarded<R>(
    medium: &Medium,
    operation: &'static str,
    act: impl FnOnce() -> Result<R, redb::Error>,
) -> Result<R, DatastoreError> {
    let failed = |source| DatastoreError::failed(operation, medium.location(), source);
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) => Err(failed(Box::<dyn std::error::Error + Send + Sync>::from(
            error,
        ))),
        Err(panic) => Err(failed(message(&*panic).into())),
    }
}

/// The stamp in the file; a file without one gets one.
fn stamp_of(database: &Database) -> Result<u64, redb::Error> {
    match database.begin_read()?.open_table(STAMP) {
        Ok(table) => {
            if let Some(stamp) = table.get(())? {
                return Ok(stamp.value());
            }
        }
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let stamp = new_stamp();
    let transaction = database.begin_write()?;
    transaction.open_table(STAMP)?.insert((), stamp)?;
    transaction.commit()?;
    Ok(stamp)
}

fn write(database: &Database, batch: &Batch, stamp: u64) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(TABLE)?;
        for (key, value) in batch.iter() {
            match value {
                Some(value) => table.insert(key, value)?,
                None => table.remove(key)?,
            };
        }
        transaction.open_table(STAMP)?.insert((), stamp)?;
    }
    transaction.commit()?;
    Ok(())
}

fn new_stamp() -> u64 {
    // Each has keys of its own.
    RandomState::new().hash_one(())
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
            // Half of one file and half of another are not an answer.
            let page = page.and_then(|page| self.tell_of_losses().map(|()| page));
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
        async move { self.apply(&batch) }.boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DatastoreError>> {
        async move {
            // Dropping the last reference closes the file and releases its lock.
            let Shared {
                medium,
                doubt,
                state,
                ..
            } = &*self.shared;
            let closing = std::mem::replace(&mut state.lock().handle, Handle::Closed);
            if matches!(closing, Handle::Closed) {
                return Ok(());
            }
            guarded(medium, "close", || {
                drop(closing);
                Ok(())
            })?;
            // Whoever opens it next cannot know of it.
            medium.settle(doubt)
        }
        .boxed()
    }

    fn location(&self) -> String {
        self.shared.medium.location()
    }
}
