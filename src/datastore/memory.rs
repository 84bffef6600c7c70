//! A datastore that forgets with the process: for tests, and to try persistence without a file.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream, stream::BoxStream};

use super::{Batch, Datastore, DatastoreError, KeyValue};
use crate::sync::Mutex;

/// How many entries a query copies at a time.
const PAGE: usize = 256;

/// A [`Datastore`] in memory. Clones share their content, so that a store can be opened on it again.
#[derive(Debug, Clone, Default)]
pub struct MemoryDatastore(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl MemoryDatastore {
    /// How many keys it holds.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// A copy of all that it holds, in the order of the keys.
    pub fn entries(&self) -> Vec<KeyValue> {
        let entries = self.0.lock();
        entries
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    }

    /// Up to a page of entries that begin with `prefix`, from `start` on.
    fn page(&self, prefix: &str, start: Bound<&str>) -> Vec<KeyValue> {
        let entries = self.0.lock();
        entries
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(PAGE)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}

impl Datastore for MemoryDatastore {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        async move { Ok(self.0.lock().get(key).cloned()) }.boxed()
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        let first = self.page(prefix, Bound::Included(prefix));
        stream::unfold(first, move |page| async move {
            let last = page.last()?.0.clone();
            let next = self.page(prefix, Bound::Excluded(&last));
            Some((stream::iter(page.into_iter().map(Ok)), next))
        })
        .flatten()
        .boxed()
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        async move {
            let mut entries = self.0.lock();
            for (key, value) in batch {
                match value {
                    Some(value) => entries.insert(key, value),
                    None => entries.remove(&key),
                };
            }
            Ok(())
        }
        .boxed()
    }
}
