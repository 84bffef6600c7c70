//! Datastores that do what a test tells them, and an executor that a test drives by hand.

// Every test file uses its own part of this.
#![allow(dead_code)]

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    channel::mpsc,
    executor::LocalPool,
    future::{BoxFuture, RemoteHandle},
    stream::{self, BoxStream},
    task::LocalSpawnExt,
};
use libp2p::{Multiaddr, PeerId};
use libp2p_peerstore::{
    Batch, Config, Datastore, DatastoreError, KeyValue, ManualClock, MemoryDatastore, OpenError,
    PeerStore,
};
use parking_lot::Mutex;

// --- names -------------------------------------------------------------------------------------------------

/// An address that nobody answers at.
pub fn addr(port: u16) -> Multiaddr {
    format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap()
}

/// The peer id as datastore keys spell it, made without the code under test.
pub fn b32(peer: &PeerId) -> String {
    let mut cid = vec![0x01, 0x72];
    cid.extend(peer.to_bytes());
    format!("b{}", data_encoding::BASE32_NOPAD.encode(&cid)).to_lowercase()
}

pub fn addrs_key(peer: &PeerId) -> String {
    format!("/peers/addrs/{}", b32(peer))
}

pub fn protos_key(peer: &PeerId) -> String {
    format!("/peers/protos/{}", b32(peer))
}

pub fn keys_key(peer: &PeerId) -> String {
    format!("/peers/keys/{}", b32(peer))
}

pub fn metadata_key(peer: &PeerId, name: &str) -> String {
    format!("/peers/metadata/{}/{name}", b32(peer))
}

/// The keys that a batch writes.
pub fn puts(batch: &Batch) -> Vec<String> {
    let puts = batch.iter().filter(|(_, value)| value.is_some());
    puts.map(|(key, _)| key.to_owned()).collect()
}

/// The keys that a batch deletes.
pub fn deletes(batch: &Batch) -> Vec<String> {
    let deletes = batch.iter().filter(|(_, value)| value.is_none());
    deletes.map(|(key, _)| key.to_owned()).collect()
}

/// The keys that a datastore holds.
pub fn keys_of(datastore: &MemoryDatastore) -> Vec<String> {
    let entries = datastore.entries().into_iter();
    entries.map(|(key, _)| key).collect()
}

/// A list of keys in the order in which a datastore has them.
pub fn sorted(keys: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut keys: Vec<String> = keys.into_iter().collect();
    keys.sort();
    keys
}

// --- an executor in the test's hand ------------------------------------------------------------------------

/// Runs stores on the test's own thread: nothing happens but in the calls of this, so that a test can say
/// "and nothing more is done" for certain.
pub struct Hand {
    pool: LocalPool,
    engines: mpsc::UnboundedSender<BoxFuture<'static, ()>>,
    pub clock: ManualClock,
}

impl Default for Hand {
    fn default() -> Self {
        let pool = LocalPool::new();
        let (engines, queue) = mpsc::unbounded::<BoxFuture<'static, ()>>();
        let run = queue.for_each_concurrent(None, |engine| engine);
        pool.spawner().spawn_local(run).unwrap();
        Self {
            pool,
            engines,
            clock: ManualClock::default(),
        }
    }
}

impl Hand {
    /// The defaults, on this executor and its clock. Dropping the last handle does not wait, as it would wait
    /// for its own thread.
    pub fn config(&self) -> Config {
        let engines = self.engines.clone();
        Config::default()
            .with_clock(self.clock.clone())
            .with_drop_deadline(Duration::ZERO)
            .with_executor(move |engine| engines.unbounded_send(engine).unwrap())
    }

    pub fn try_open(
        &mut self,
        datastore: impl Datastore,
        config: Config,
    ) -> Result<PeerStore, OpenError> {
        let store = self.block(PeerStore::open(PeerId::random(), datastore, config));
        self.settle();
        store
    }

    pub fn open(&mut self, datastore: impl Datastore) -> PeerStore {
        let config = self.config();
        self.try_open(datastore, config).unwrap()
    }

    pub fn open_with(
        &mut self,
        datastore: impl Datastore,
        configure: impl FnOnce(Config) -> Config,
    ) -> PeerStore {
        let config = configure(self.config());
        self.try_open(datastore, config).unwrap()
    }

    /// Runs a future to its end, and the engines with it.
    pub fn block<F: Future>(&mut self, future: F) -> F::Output {
        self.pool.run_until(future)
    }

    /// Runs until everybody waits for something.
    pub fn settle(&mut self) {
        self.pool.run_until_stalled();
    }

    /// Lets time pass, and everybody act on it.
    pub fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        self.settle();
    }

    /// Starts something that goes on in the background, until the handle is dropped.
    pub fn start<F>(&mut self, future: F) -> RemoteHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let handle = self.pool.spawner().spawn_local_with_handle(future).unwrap();
        self.settle();
        handle
    }

    /// The result of something that was started, if it is there by now.
    pub fn result<T: 'static>(&mut self, handle: &mut RemoteHandle<T>) -> Option<T> {
        self.settle();
        handle.now_or_never()
    }

    pub fn flush(&mut self, store: &PeerStore) {
        self.block(store.flush()).unwrap();
        self.settle();
    }

    pub fn shutdown(&mut self, store: PeerStore) {
        self.block(store.shutdown()).unwrap();
        self.settle();
    }
}

// --- a datastore that records, fails and hangs -------------------------------------------------------------

/// What a commit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Succeed,
    /// Nothing is written, and an error returned.
    Fail,
    /// Everything is written, and an error returned all the same.
    FailAfterApplying,
    Panic,
}

/// A [`MemoryDatastore`] that records each commit. Clones share everything.
#[derive(Clone, Default)]
pub struct Recording {
    pub memory: MemoryDatastore,
    shared: Arc<Mutex<Record>>,
}

#[derive(Default)]
struct Record {
    commits: Vec<Batch>,
    started: usize,
    done: usize,
    in_flight: usize,
    most_in_flight: usize,
    queries: Vec<String>,
    closes: usize,
    script: VecDeque<Act>,
    hold_commits: bool,
    hold_queries: bool,
    hold_closes: bool,
    panic_in_query: bool,
    panic_in_close: bool,
    during_commit: Option<Box<dyn FnOnce() + Send>>,
    waiting: Vec<Waker>,
}

impl Recording {
    /// On what is there already.
    pub fn on(memory: MemoryDatastore) -> Self {
        Self {
            memory,
            shared: Arc::default(),
        }
    }

    // --- what it shall do ----------------------------------------------------------------------------------

    /// The next commits do this; later ones succeed again.
    pub fn next(&self, acts: impl IntoIterator<Item = Act>) {
        self.shared.lock().script.extend(acts);
    }

    /// All commits from now on succeed.
    pub fn behave(&self) {
        self.change(|record| record.script.clear());
    }

    /// Commits hang from now on, before they write anything.
    pub fn hold_commits(&self) {
        self.change(|record| record.hold_commits = true);
    }

    /// Queries hang from now on, before their first entry.
    pub fn hold_queries(&self) {
        self.change(|record| record.hold_queries = true);
    }

    /// Closing hangs from now on.
    pub fn hold_closes(&self) {
        self.change(|record| record.hold_closes = true);
    }

    /// Whatever hangs goes on.
    pub fn release(&self) {
        self.change(|record| {
            record.hold_commits = false;
            record.hold_queries = false;
            record.hold_closes = false;
        });
    }

    pub fn panic_in_query(&self) {
        self.change(|record| record.panic_in_query = true);
    }

    pub fn panic_in_close(&self) {
        self.change(|record| record.panic_in_close = true);
    }

    /// Runs once, inside the next commit, on whatever thread that runs on.
    pub fn during_commit(&self, act: impl FnOnce() + Send + 'static) {
        self.change(|record| record.during_commit = Some(Box::new(act)));
    }

    // --- what it did ---------------------------------------------------------------------------------------

    /// How many commits were asked for, those that failed included.
    pub fn started(&self) -> usize {
        self.shared.lock().started
    }

    /// The commits that were asked for since the last call, in order, those that failed included.
    pub fn take_commits(&self) -> Vec<Batch> {
        std::mem::take(&mut self.shared.lock().commits)
    }

    /// The one commit since the last call.
    pub fn take_commit(&self) -> Batch {
        let mut commits = self.take_commits();
        assert_eq!(commits.len(), 1, "{commits:?}");
        commits.remove(0)
    }

    pub fn most_in_flight(&self) -> usize {
        self.shared.lock().most_in_flight
    }

    pub fn in_flight(&self) -> usize {
        self.shared.lock().in_flight
    }

    pub fn queries(&self) -> Vec<String> {
        self.shared.lock().queries.clone()
    }

    pub fn closes(&self) -> usize {
        self.shared.lock().closes
    }

    /// Whether a store still holds this datastore.
    pub fn is_held(&self) -> bool {
        Arc::strong_count(&self.shared) > 1
    }

    // --- waiting for it ------------------------------------------------------------------------------------

    /// Until so many commits were asked for since the start.
    pub async fn commit_started(&self, commits: usize) {
        self.until(|record| record.started >= commits).await;
    }

    /// Until so many commits ended, well or not.
    pub async fn commits_done(&self, commits: usize) {
        self.until(|record| record.done >= commits).await;
    }

    pub async fn query_started(&self, queries: usize) {
        self.until(|record| record.queries.len() >= queries).await;
    }

    pub async fn closed(&self) {
        self.until(|record| record.closes > 0).await;
    }

    async fn until(&self, holds: impl Fn(&Record) -> bool) {
        poll_fn(|cx| {
            let mut record = self.shared.lock();
            if holds(&record) {
                return Poll::Ready(());
            }
            record.waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn change<R>(&self, change: impl FnOnce(&mut Record) -> R) -> R {
        let (result, waiting) = {
            let mut record = self.shared.lock();
            (change(&mut record), std::mem::take(&mut record.waiting))
        };
        waiting.into_iter().for_each(Waker::wake);
        result
    }
}

/// Counts a commit as under way, however it ends.
struct InFlight<'a>(&'a Recording);

impl<'a> InFlight<'a> {
    fn new(recording: &'a Recording, batch: &Batch) -> Self {
        recording.change(|record| {
            record.commits.push(batch.clone());
            record.started += 1;
            record.in_flight += 1;
            record.most_in_flight = record.most_in_flight.max(record.in_flight);
        });
        Self(recording)
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

/// What a datastore says when it was told to fail.
pub fn refused() -> DatastoreError {
    DatastoreError::failed("commit", "recording", "told to fail")
}

impl Datastore for Recording {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        self.memory.get(key)
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        let panics = self.change(|record| {
            record.queries.push(prefix.to_owned());
            record.panic_in_query
        });
        assert!(!panics, "told to panic in a query");
        let released = self.until(|record| !record.hold_queries);
        let entries = async move {
            released.await;
            self.memory.query(prefix)
        };
        stream::once(entries).flatten().boxed()
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        async move {
            let _in_flight = InFlight::new(self, &batch);
            let act = self.change(|record| record.during_commit.take());
            if let Some(act) = act {
                act();
            }
            self.until(|record| !record.hold_commits).await;
            let act = self.change(|record| record.script.pop_front());
            match act {
                None | Some(Act::Succeed) => self.memory.commit(batch).await,
                Some(Act::Fail) => Err(refused()),
                Some(Act::FailAfterApplying) => {
                    self.memory.commit(batch).await?;
                    Err(refused())
                }
                Some(Act::Panic) => panic!("told to panic in a commit"),
            }
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DatastoreError>> {
        let panics = self.change(|record| {
            record.closes += 1;
            record.panic_in_close
        });
        assert!(!panics, "told to panic in close");
        async move {
            self.until(|record| !record.hold_closes).await;
            Ok(())
        }
        .boxed()
    }
}

// --- a datastore with a script for its contents ------------------------------------------------------------

/// A datastore whose query yields exactly what it was given, in that order, whatever the contract says.
#[derive(Clone, Default)]
pub struct Scripted {
    pub recording: Recording,
    entries: Arc<Vec<Option<KeyValue>>>,
    failing: Arc<Mutex<usize>>,
}

impl Scripted {
    /// These entries in this order; `None` is an error in their midst.
    pub fn new(entries: impl IntoIterator<Item = Option<KeyValue>>) -> Self {
        let entries: Vec<_> = entries.into_iter().collect();
        Self {
            recording: Recording::default(),
            entries: Arc::new(entries),
            failing: Arc::default(),
        }
    }

    /// The next queries yield an error and nothing else.
    pub fn fail_queries(&self, queries: usize) {
        *self.failing.lock() = queries;
    }

    fn error() -> DatastoreError {
        DatastoreError::failed("read", "scripted", "the disk is gone")
    }
}

impl Datastore for Scripted {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        self.recording.get(key)
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        let mut failing = self.failing.lock();
        if *failing > 0 {
            *failing -= 1;
            return stream::iter([Err(Self::error())]).boxed();
        }
        let entries = self.entries.iter().filter(move |entry| match entry {
            Some((key, _)) => key.starts_with(prefix),
            None => true,
        });
        stream::iter(entries.map(|entry| entry.clone().ok_or_else(Self::error))).boxed()
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        self.recording.commit(batch)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DatastoreError>> {
        self.recording.close()
    }
}
