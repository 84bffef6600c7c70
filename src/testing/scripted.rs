//! A datastore with a script for its contents.

use std::sync::Arc;

use futures::{StreamExt, future::BoxFuture, stream, stream::BoxStream};

use crate::datastore::{Batch, Datastore, DatastoreError, KeyValue, MemoryDatastore};

/// Answers queries with exactly the entries that it was given, in that order and as often as they are in it, whatever
/// the trait says. Everything else goes to another datastore. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct ScriptedDatastore<D = MemoryDatastore> {
    inner: D,
    entries: Arc<[Option<KeyValue>]>,
}

impl<D: Datastore> ScriptedDatastore<D> {
    /// These entries in this order; `None` is an error in their midst, after which, against the rules, the stream goes
    /// on.
    pub fn new(inner: D, entries: impl IntoIterator<Item = Option<KeyValue>>) -> Self {
        Self {
            inner,
            entries: entries.into_iter().collect(),
        }
    }

    /// The datastore that takes the commits.
    pub fn inner(&self) -> &D {
        &self.inner
    }
}

impl<D: Datastore> Datastore for ScriptedDatastore<D> {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        self.inner.get(key)
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        let entries = self.entries.iter().filter(move |entry| match entry {
            Some((key, _)) => key.starts_with(prefix),
            None => true,
        });
        let error = || DatastoreError::failed("read", "scripted datastore", "told to fail");
        stream::iter(entries.map(move |entry| entry.clone().ok_or_else(error))).boxed()
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        self.inner.commit(batch)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DatastoreError>> {
        self.inner.close()
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}
