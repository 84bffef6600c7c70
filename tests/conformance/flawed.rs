//! A datastore that is sound but for one flaw.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    thread::{self, ThreadId},
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, pending, poll_fn},
    stream::{self, BoxStream},
};
use libp2p_peerstore::{Batch, Datastore, DatastoreError, KeyValue, MemoryDatastore};

use crate::{Flaw, Flaw as F};

/// A datastore in memory with one flaw.
pub struct Flawed {
    flaw: Flaw,
    pub memory: MemoryDatastore,
    /// What survives.
    pub disk: MemoryDatastore,
    thread: ThreadId,
    closed: AtomicBool,
    busy: AtomicBool,
    readers: AtomicUsize,
    commits: AtomicUsize,
    /// Queries that keep commits out.
    locks: Arc<AtomicUsize>,
    cursor: AtomicUsize,
}

impl Flawed {
    pub fn new(flaw: Flaw, memory: MemoryDatastore) -> Self {
        Self {
            flaw,
            disk: memory.clone(),
            memory,
            thread: thread::current().id(),
            closed: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            readers: AtomicUsize::new(0),
            commits: AtomicUsize::new(0),
            locks: Arc::default(),
            cursor: AtomicUsize::new(0),
        }
    }

    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    fn key(&self, key: &str) -> String {
        match self.flaw {
            F::KeysEndAtZero => key.split('\0').next().unwrap().to_owned(),
            F::KeysHaveNoCase => key.to_lowercase(),
            F::KeysArePaths => {
                let mut parts: Vec<&str> = Vec::new();
                for part in key
                    .split('/')
                    .filter(|part| !part.is_empty() && *part != ".")
                {
                    if part == ".." {
                        parts.pop();
                    } else {
                        parts.push(part);
                    }
                }
                format!("/{}", parts.join("/"))
            }
            F::KeysAreShort => key.chars().take(255).collect(),
            _ => key.to_owned(),
        }
    }

    fn value(&self, mut value: Vec<u8>) -> Vec<u8> {
        match self.flaw {
            F::ValuesAreText => String::from_utf8_lossy(&value).into_owned().into_bytes(),
            F::ValuesAreCut => {
                value.truncate(65_535);
                value
            }
            _ => value,
        }
    }

    fn enter(&self) -> Result<(), DatastoreError> {
        let closed = self.closed.load(SeqCst);
        assert!(!(closed && self.is(F::PanicsOnceClosed)), "flawed");
        let here = thread::current().id() == self.thread;
        assert!(here || !self.is(F::IsBoundToItsThread), "flawed");
        if closed && self.is(F::GoesOnAfterAnError) {
            return refused();
        }
        Ok(())
    }

    fn one(&self, key: String, value: Option<Vec<u8>>) {
        let known = self.knows(&key);
        let mut batch = Batch::default();
        match value {
            Some(_) if known && self.is(F::KeepsTheFirstValue) => {}
            Some(value) if value.is_empty() && self.is(F::EmptyIsAbsent) => batch.delete(key),
            Some(value) => batch.put(key, self.value(value)),
            None if self.is(F::DeletesNothing) => {}
            None if self.is(F::DeletesWhatIsBelow) => {
                let below = self
                    .all()
                    .into_iter()
                    .filter(|(other, _)| other.starts_with(&key));
                below.for_each(|(other, _)| batch.delete(other));
            }
            None => batch.delete(key),
        }
        block_now(self.memory.commit(batch));
    }

    async fn apply(&self, batch: Batch) -> Result<(), DatastoreError> {
        let commits = self.commits.fetch_add(1, SeqCst);
        if batch.is_empty() && self.is(F::EmptyBatchesFail) {
            return refused();
        }
        if self.is(F::EveryTenthCommitIsLost) && commits % 10 == 9 {
            return Ok(());
        }
        while self.locks.load(SeqCst) > 0 {
            pending::<()>().await;
        }
        let deletes_absent = batch
            .iter()
            .any(|(key, value)| value.is_none() && !self.knows(key));
        let puts_known = batch
            .iter()
            .any(|(key, value)| value.is_some() && self.knows(key));
        let strict = self.is(F::BatchesAreInsertions) && batch.len() > 1 && puts_known;
        if (deletes_absent && self.is(F::DeletingNothingIsAnError)) || strict {
            return refused();
        }
        let mixed = batch.iter().any(|(_, value)| value.is_some());
        if self.is(F::ReadsFailDuringCommits) {
            self.busy.store(true, SeqCst);
            a_while().await;
            self.busy.store(false, SeqCst);
        }
        for (n, (key, value)) in batch.into_iter().enumerate() {
            let lost = value.is_none() && mixed && self.is(F::MixedBatchesLoseDeletions);
            if lost || (n >= 1_000 && self.is(F::BatchesAreLimited)) {
                continue;
            }
            if self.is(F::YieldsBetweenKeys) || self.is(F::IsLostWithoutClosing) {
                a_while().await;
            }
            self.one(self.key(&key), value);
        }
        Ok(())
    }

    fn knows(&self, key: &str) -> bool {
        block_now(self.memory.get(key)).is_some()
    }

    fn all(&self) -> Vec<KeyValue> {
        self.memory.entries()
    }

    fn matches(&self, prefix: &str, key: &str) -> bool {
        match self.flaw {
            F::PrefixesArePaths => {
                let folder = prefix.trim_end_matches('/');
                key.strip_prefix(folder)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            F::PrefixesArePatterns if prefix.contains(['_', '%', '*', '?']) => {
                let end = prefix.find(['_', '%', '*', '?']).unwrap();
                key.starts_with(&prefix[..end])
            }
            _ => key.starts_with(prefix),
        }
    }
}

fn refused<T>() -> Result<T, DatastoreError> {
    Err(DatastoreError::failed("do that", "flawed", "a flaw"))
}

pub fn block_now<T>(future: BoxFuture<'_, Result<T, DatastoreError>>) -> T {
    future.now_or_never().unwrap().unwrap()
}

async fn a_while() {
    let mut passed = false;
    poll_fn(|cx| {
        if passed {
            return Poll::Ready(());
        }
        passed = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Keeps commits out while it lives, or for longer.
struct Lock(Arc<AtomicUsize>, Flaw);

impl Drop for Lock {
    fn drop(&mut self) {
        if self.1 == F::QueriesLockCommits {
            self.0.fetch_sub(1, SeqCst);
        }
    }
}

impl Datastore for Flawed {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        async move {
            self.enter()?;
            if self.busy.load(SeqCst) {
                return refused();
            }
            if self.is(F::OneReaderAtATime) {
                let others = self.readers.fetch_add(1, SeqCst);
                thread::sleep(Duration::from_micros(200));
                self.readers.fetch_sub(1, SeqCst);
                if others > 0 {
                    return refused();
                }
            }
            if self.is(F::FuturesAreBoundToTheirThread) {
                let begun = thread::current().id();
                a_while().await;
                assert_eq!(begun, thread::current().id(), "flawed");
            }
            let key = self.key(key);
            let value = self.memory.get(&key).await?;
            if self.is(F::TakesAndPutsBack)
                && let Some(value) = value.clone()
            {
                self.memory.delete(&key).await?;
                a_while().await;
                self.memory.put(&key, value).await?;
            }
            match value {
                None if self.is(F::AbsentIsAnError) => refused(),
                value => Ok(value),
            }
        }
        .boxed()
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        if self.enter().is_err() {
            return stream::repeat_with(refused).take(2).boxed();
        }
        let found = self
            .all()
            .into_iter()
            .filter(move |(key, _)| self.matches(prefix, key));
        let found: Vec<KeyValue> = found.collect();
        match self.flaw {
            F::PagesOverlap => {
                let edge = found.get(256).cloned();
                stream::iter(found.into_iter().chain(edge).map(Ok)).boxed()
            }
            F::PagesLeaveGaps => {
                let entries = found
                    .into_iter()
                    .enumerate()
                    .filter(|(n, _)| n % 1_025 != 1_024);
                stream::iter(entries.map(|(_, entry)| Ok(entry))).boxed()
            }
            F::QueriesLockCommits | F::DroppedQueriesLockCommits => {
                let lock = (!found.is_empty()).then(|| {
                    self.locks.fetch_add(1, SeqCst);
                    Lock(self.locks.clone(), self.flaw)
                });
                let end = move || {
                    // Read to its end, it is released.
                    if let Some(lock) = &lock {
                        lock.0.store(0, SeqCst);
                    }
                    None
                };
                let entries = stream::iter(found.into_iter().map(Ok));
                entries.chain(stream::iter(std::iter::from_fn(end))).boxed()
            }
            F::QueriesShareACursor => {
                self.cursor.store(0, SeqCst);
                let next = move || {
                    let at = self.cursor.fetch_add(1, SeqCst);
                    found.get(at).cloned().map(Ok)
                };
                stream::iter(std::iter::from_fn(next)).boxed()
            }
            F::QueriesPageByNumber => {
                let next = move |at: usize| async move {
                    let entries = self.all().into_iter();
                    let entries = entries.filter(|(key, _)| self.matches(prefix, key));
                    let page: Vec<_> = entries.skip(at).take(100).map(Ok).collect();
                    (!page.is_empty()).then(|| (stream::iter(page), at + 100))
                };
                stream::unfold(0, next).flatten().boxed()
            }
            _ => stream::iter(found.into_iter().map(Ok)).boxed(),
        }
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        if self.is(F::WorksBeforeItIsPolled) {
            let half = batch.len().div_ceil(2);
            for (key, value) in batch.clone().into_iter().take(half) {
                self.one(key, value);
            }
        }
        async move {
            self.enter()?;
            self.apply(batch).await?;
            if self.is(F::ForgetsLargeValues) || !self.keeps_back() {
                self.save();
            }
            Ok(())
        }
        .boxed()
    }

    fn has<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, DatastoreError>> {
        async move {
            let has = self.get(key).await?.is_some();
            Ok(has || self.is(F::HasIsAlwaysTrue))
        }
        .boxed()
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        value: Vec<u8>,
    ) -> BoxFuture<'a, Result<(), DatastoreError>> {
        if self.is(F::PutIsForgotten) {
            return async { Ok(()) }.boxed();
        }
        let mut batch = Batch::default();
        batch.put(key, value);
        self.commit(batch)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DatastoreError>> {
        async move {
            self.closed.store(true, SeqCst);
            self.save();
            match self.is(F::CloseFails) {
                true => refused(),
                false => Ok(()),
            }
        }
        .boxed()
    }
}

impl Flawed {
    pub fn keeps_back(&self) -> bool {
        self.is(F::WritesWhenItIsClosed)
    }

    /// Writes what is in memory to what survives.
    fn save(&self) {
        if !self.keeps_back() && !self.is(F::ForgetsLargeValues) {
            return;
        }
        let mut batch = Batch::default();
        for (key, _) in self.disk.entries() {
            batch.delete(key);
        }
        for (key, value) in self.memory.entries() {
            if value.len() < 100_000 || !self.is(F::ForgetsLargeValues) {
                batch.put(key, value);
            }
        }
        block_now(self.disk.commit(batch));
    }
}
