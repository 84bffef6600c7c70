//! A datastore that tells what it was asked for.

use futures::{FutureExt, future::BoxFuture, stream::BoxStream};

use super::waiting::Waiting;
use crate::datastore::{Batch, Datastore, DatastoreError, KeyValue, MemoryDatastore};

/// Records the calls that go to another datastore, those that fail included. Clones share the record.
#[derive(Debug, Clone, Default)]
pub struct RecordingDatastore<D = MemoryDatastore> {
    inner: D,
    record: Waiting<Record>,
}

#[derive(Debug, Default)]
struct Record {
    commits: Vec<Batch>,
    started: usize,
    done: usize,
    in_flight: usize,
    most_in_flight: usize,
    gets: Vec<String>,
    queries: Vec<String>,
    closes: usize,
}

impl<D: Datastore> RecordingDatastore<D> {
    /// Records what goes to `inner`.
    pub fn new(inner: D) -> Self {
        Self {
            inner,
            record: Waiting::default(),
        }
    }

    /// The datastore behind it.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// The batches that were to be committed since the last call of this, in order.
    pub fn take_commits(&self) -> Vec<Batch> {
        self.record
            .change(|record| std::mem::take(&mut record.commits))
    }

    /// How many commits were begun since the start.
    pub fn commits_started(&self) -> usize {
        self.record.read(|record| record.started)
    }

    /// How many commits ended since the start: well, with an error, by a panic, or because they were dropped.
    pub fn commits_done(&self) -> usize {
        self.record.read(|record| record.done)
    }

    /// How many commits are under way.
    pub fn in_flight(&self) -> usize {
        self.record.read(|record| record.in_flight)
    }

    /// The most commits that were ever under way at once. A store never has more than one.
    pub fn most_in_flight(&self) -> usize {
        self.record.read(|record| record.most_in_flight)
    }

    /// The keys that were read one by one.
    pub fn gets(&self) -> Vec<String> {
        self.record.read(|record| record.gets.clone())
    }

    /// The prefixes that were queried.
    pub fn queries(&self) -> Vec<String> {
        self.record.read(|record| record.queries.clone())
    }

    /// How often it was closed.
    pub fn closes(&self) -> usize {
        self.record.read(|record| record.closes)
    }

    /// Whether somebody else, such as a store, has a clone of this.
    pub fn is_held(&self) -> bool {
        self.record.owners() > 1
    }

    /// Waits until so many commits were begun since the start.
    pub async fn until_commits_started(&self, commits: usize) {
        self.record.until(|record| record.started >= commits).await;
    }

    /// Waits until so many commits ended since the start.
    pub async fn until_commits_done(&self, commits: usize) {
        self.record.until(|record| record.done >= commits).await;
    }

    /// Waits until so many queries were made since the start.
    pub async fn until_queries(&self, queries: usize) {
        self.record
            .until(|record| record.queries.len() >= queries)
            .await;
    }

    /// Waits until it is being closed.
    pub async fn until_closed(&self) {
        self.record.until(|record| record.closes > 0).await;
    }
}

/// Counts a commit as under way, however it ends.
struct InFlight<'a>(&'a Waiting<Record>);

impl<'a> InFlight<'a> {
    fn new(record: &'a Waiting<Record>, batch: &Batch) -> Self {
        record.change(|record| {
            record.commits.push(batch.clone());
            record.started += 1;
            record.in_flight += 1;
            record.most_in_flight = record.most_in_flight.max(record.in_flight);
        });
        Self(record)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.change(|record| {
            record.in_flight -= 1;
            record.done += 1;
        });
    }
}

impl<D: Datastore> Datastore for RecordingDatastore<D> {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        self.record
            .change(|record| record.gets.push(key.to_owned()));
        self.inner.get(key)
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        self.record
            .change(|record| record.queries.push(prefix.to_owned()));
        self.inner.query(prefix)
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        async move {
            let _in_flight = InFlight::new(&self.record, &batch);
            self.inner.commit(batch).await
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DatastoreError>> {
        self.record.change(|record| record.closes += 1);
        self.inner.close()
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}
