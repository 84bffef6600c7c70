//! Where peers are kept between runs: a trait of three calls that anyone can implement.

use std::{error::Error as StdError, sync::Arc};

use futures::{future::BoxFuture, stream::BoxStream};

#[cfg(feature = "fs")]
pub(crate) mod fs;
mod memory;
mod migrate;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "redis")]
pub(crate) mod redis;

#[cfg(feature = "fs")]
pub use fs::FsDatastore;
pub use memory::MemoryDatastore;
pub use migrate::{
    DEFAULT_MIGRATION_BATCH, DEFAULT_MIGRATION_BATCH_BYTES, MigrationError, MigrationOptions,
    MigrationReport, migrate,
};
#[cfg(feature = "redb")]
pub use redb::{RedbDatastore, RedbStorage};
#[cfg(feature = "redis")]
pub use redis::*;

/// A key and its value.
pub type KeyValue = (String, Vec<u8>);

/// A key-value store with batches, injected into a [`PeerStore`](crate::PeerStore).
///
/// # What the store expects
///
/// - **Keys** are non-empty strings that begin with `/`; a metadata key may contain any character. They are shorter than
///   512 bytes as long as [`Config::max_metadata_key_len`](crate::Config::max_metadata_key_len) is the default.
///   **Values** are bytes and may be empty: an empty value is not an absent one.
/// - **Commit is the unit of durability.** When it returns `Ok`, the batch survives a crash of the process and
///   of the machine. A batch has at most one operation per key; all keys of one peer are in one batch, and the
///   datastore applies the part of one peer (the `<b32>` in the keys) whole or not at all. Across peers it may
///   be atomic too, but nothing relies on that.
/// - **An error may mean that the batch was applied.** The store then writes the peers again as they are by
///   then, so a batch must be harmless when it is applied twice.
/// - **One call at a time.** The store never has two commits under way, and waits for one however long it
///   takes. Reads may overlap with a commit when the user makes them.
/// - **Threads.** The store polls these futures on a thread of its own, where they may block, or on the
///   executor of [`Config::with_executor`](crate::Config::with_executor), where they should not. Blocking is a plain
///   wait: `futures::executor::block_on` panics inside another executor of that crate, which the thread is. A datastore
///   that needs a runtime (tokio) captures its handle in the constructor and does its work there. Calls of the
///   store from inside these futures do not dead-lock, but waiting for
///   [`PeerStore::flush`](crate::PeerStore::flush) there does.
/// - **Cancellation.** Dropping a future half-way may leave a commit applied or not, never half a peer.
/// - **A panic** in a commit is caught and reported as a failed commit.
/// - **What is gone.** A commit that finds that earlier ones are no longer there (a file was replaced, a server
///   emptied) fails with [`DatastoreError::Lost`], once: the next batches hold every peer whole.
///
/// With the feature `testing`, `testing::conformance` checks all of this in one call.
///
/// ```
/// use futures::{future::BoxFuture, stream::BoxStream};
/// use libp2p_peerstore::{Batch, Datastore, DatastoreError, KeyValue, MemoryDatastore};
///
/// /// Counts commits on their way to another datastore.
/// struct Counting<D>(D, std::sync::atomic::AtomicUsize);
///
/// impl<D: Datastore> Datastore for Counting<D> {
///     fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
///         self.0.get(key)
///     }
///     fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
///         self.0.query(prefix)
///     }
///     fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
///         self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
///         self.0.commit(batch)
///     }
/// }
///
/// let datastore = Counting(MemoryDatastore::default(), Default::default());
/// # futures::executor::block_on(async {
/// datastore.put("/greeting", b"hello".to_vec()).await?;
/// assert_eq!(datastore.get("/greeting").await?, Some(b"hello".to_vec()));
/// # Ok::<_, DatastoreError>(()) }).unwrap();
/// ```
pub trait Datastore: Send + Sync + 'static {
    /// The value of a key, or `None`.
    ///
    /// # Errors
    ///
    /// When the datastore cannot be read. An absent key is not an error.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>>;

    /// Every key that begins with `prefix`, with its value, each once, in any order.
    ///
    /// The stream is lazy: it holds a bounded part of the result at a time. What is committed meanwhile may or
    /// may not be seen. After an error the stream ends.
    ///
    /// # Errors
    ///
    /// An item is an error when the datastore cannot be read.
    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>>;

    /// Applies a batch and makes it durable. Deleting a key that is not there is no error.
    ///
    /// # Errors
    ///
    /// When the batch may not have been applied, or may not be durable.
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>>;

    /// Where the keys are: what an operator would look for, for the log. A path, an address; never a password.
    /// Default: the name of the type.
    fn location(&self) -> String {
        let name = std::any::type_name::<Self>();
        let name = name.split('<').next().unwrap_or(name);
        name.rsplit("::").next().unwrap_or(name).to_owned()
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    ///
    /// As [`Datastore::get`].
    fn has<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, DatastoreError>> {
        Box::pin(async move { Ok(self.get(key).await?.is_some()) })
    }

    /// Writes one value.
    ///
    /// # Errors
    ///
    /// As [`Datastore::commit`].
    fn put<'a>(
        &'a self,
        key: &'a str,
        value: Vec<u8>,
    ) -> BoxFuture<'a, Result<(), DatastoreError>> {
        let mut batch = Batch::default();
        batch.put(key, value);
        self.commit(batch)
    }

    /// Deletes one key.
    ///
    /// # Errors
    ///
    /// As [`Datastore::commit`].
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), DatastoreError>> {
        let mut batch = Batch::default();
        batch.delete(key);
        self.commit(batch)
    }

    /// Releases files, locks and connections. The store calls it once, after the last commit; later calls of
    /// the other methods may fail. By default it does nothing.
    ///
    /// # Errors
    ///
    /// When something could not be released in order. What was committed is durable all the same.
    fn close(&self) -> BoxFuture<'_, Result<(), DatastoreError>> {
        Box::pin(async { Ok(()) })
    }
}

impl<D: Datastore + ?Sized> Datastore for Arc<D> {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        (**self).get(key)
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        (**self).query(prefix)
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        (**self).commit(batch)
    }

    fn location(&self) -> String {
        (**self).location()
    }

    fn has<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, DatastoreError>> {
        (**self).has(key)
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        value: Vec<u8>,
    ) -> BoxFuture<'a, Result<(), DatastoreError>> {
        (**self).put(key, value)
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), DatastoreError>> {
        (**self).delete(key)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DatastoreError>> {
        (**self).close()
    }
}

/// What a commit writes: at most one operation per key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Sorted by key, which puts the operations of a book side by side for engines that keep order.
    operations: std::collections::BTreeMap<String, Option<Vec<u8>>>,
}

impl Batch {
    /// Writes a value; an earlier operation of the same key is forgotten.
    pub fn put(&mut self, key: impl Into<String>, value: Vec<u8>) {
        self.operations.insert(key.into(), Some(value));
    }

    /// Deletes a key; an earlier operation of the same key is forgotten.
    pub fn delete(&mut self, key: impl Into<String>) {
        self.operations.insert(key.into(), None);
    }

    /// How many keys the batch writes or deletes.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether the batch does nothing.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The operations, sorted by key: a value to put, or `None` to delete.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.operations
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_deref()))
    }
}

impl IntoIterator for Batch {
    type Item = (String, Option<Vec<u8>>);
    type IntoIter = std::collections::btree_map::IntoIter<String, Option<Vec<u8>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.operations.into_iter()
    }
}

/// Why a datastore did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatastoreError {
    /// Something else holds the datastore.
    #[error(
        "cannot open `{location}`: another process, or another store in this one, holds it; stop that one or choose another path"
    )]
    Locked {
        /// The path or address.
        location: String,
    },
    /// It cannot be opened.
    #[error("cannot open `{location}`: {hint}")]
    Open {
        /// The path or address.
        location: String,
        /// What is wrong and what to do about it.
        hint: &'static str,
        /// What the engine said.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// An operation failed.
    #[error("cannot {operation} in `{location}`")]
    Failed {
        /// What was tried: `read`, `commit`, `close`.
        operation: &'static str,
        /// The path or address.
        location: String,
        /// What the engine said.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// It was closed before.
    #[error("cannot {operation} in `{location}`: the datastore is closed")]
    Closed {
        /// What was tried.
        operation: &'static str,
        /// The path or address.
        location: String,
    },
    /// What was committed before is no longer there: the file was deleted or replaced, the server emptied. The store
    /// then writes everything that it holds, with the next attempt.
    #[error(
        "`{location}` was deleted or replaced while it was in use; everything that is in memory is written there again"
    )]
    Lost {
        /// The path or address.
        location: String,
    },
    /// It panicked. The text is the panic's message.
    #[error("the datastore panicked while it was asked to {operation}: {message}")]
    Panicked {
        /// What was tried.
        operation: &'static str,
        /// The panic's message.
        message: String,
    },
}

impl DatastoreError {
    /// An operation failed, for implementors: `operation` is what was tried, `location` the path or address
    /// (without passwords).
    pub fn failed(
        operation: &'static str,
        location: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::Failed {
            operation,
            location: location.into(),
            source: source.into(),
        }
    }
}
