//! Datastores that do what a test tells them, and an executor that a test drives by hand.

// Every test file uses its own part of this.
#![allow(dead_code)]

use std::{future::Future, ops::Deref, sync::Arc, time::Duration};

use futures::{
    StreamExt,
    future::{BoxFuture, RemoteHandle},
    stream::{self, BoxStream},
};
use libp2p::{Multiaddr, PeerId};
use libp2p_peerstore::{
    Batch, Config, Datastore, DatastoreError, KeyValue, ManualClock, MemoryDatastore, OpenError,
    PeerStore,
    testing::{
        Call, Fault, FaultyDatastore, ManualExecutor, RecordingDatastore, ScriptedDatastore,
    },
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

/// A [`ManualExecutor`] with what these tests do to stores all the time.
pub struct Hand {
    executor: ManualExecutor,
    pub clock: ManualClock,
}

impl Default for Hand {
    fn default() -> Self {
        let executor = ManualExecutor::default();
        let clock = executor.clock().clone();
        Self { executor, clock }
    }
}

impl Hand {
    pub fn config(&self) -> Config {
        self.executor.config()
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

    pub fn block<F: Future>(&mut self, future: F) -> F::Output {
        self.executor.block_on(future)
    }

    pub fn settle(&mut self) {
        self.executor.settle();
    }

    pub fn advance(&mut self, by: Duration) {
        self.executor.advance(by);
    }

    pub fn start<F>(&mut self, future: F) -> RemoteHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.executor.start(future)
    }

    pub fn result<T: 'static>(&mut self, handle: &mut RemoteHandle<T>) -> Option<T> {
        self.executor.result(handle)
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

/// A [`MemoryDatastore`] that records each commit, and fails or hangs as it is told. Clones share everything.
#[derive(Clone)]
pub struct Recording {
    pub memory: MemoryDatastore,
    faulty: FaultyDatastore,
    recording: RecordingDatastore<FaultyDatastore>,
}

impl Default for Recording {
    fn default() -> Self {
        Self::on(MemoryDatastore::default())
    }
}

impl Deref for Recording {
    type Target = RecordingDatastore<FaultyDatastore>;

    fn deref(&self) -> &Self::Target {
        &self.recording
    }
}

impl Recording {
    /// On what is there already.
    pub fn on(memory: MemoryDatastore) -> Self {
        let faulty = FaultyDatastore::new(memory.clone());
        Self {
            memory,
            recording: RecordingDatastore::new(faulty.clone()),
            faulty,
        }
    }

    /// The next commits do this; later ones succeed again.
    pub fn next(&self, acts: impl IntoIterator<Item = Act>) {
        for (n, act) in acts.into_iter().enumerate() {
            match act {
                Act::Succeed => {}
                Act::Fail => self.faulty.fail_commit(n, Fault::Fail),
                Act::FailAfterApplying => self.faulty.fail_commit(n, Fault::FailAfterApplying),
                Act::Panic => self.faulty.fail_commit(n, Fault::Panic),
            }
        }
    }

    /// All commits from now on succeed.
    pub fn behave(&self) {
        self.faulty.recover();
    }

    /// Commits hang from now on, before they write anything.
    pub fn hold_commits(&self) {
        self.faulty.hold(Call::Commit);
    }

    /// Queries hang from now on, before their first entry.
    pub fn hold_queries(&self) {
        self.faulty.hold(Call::Query);
    }

    /// Closing hangs from now on.
    pub fn hold_closes(&self) {
        self.faulty.hold(Call::Close);
    }

    /// Whatever hangs goes on.
    pub fn release(&self) {
        self.faulty.release();
    }

    pub fn panic_in_query(&self) {
        self.faulty.fail(Call::Query, 0, Fault::Panic);
    }

    pub fn panic_in_close(&self) {
        self.faulty.fail(Call::Close, 0, Fault::Panic);
    }

    /// Runs once, inside the next commit, on whatever thread that runs on.
    pub fn during_commit(&self, act: impl FnOnce() + Send + 'static) {
        self.faulty.during_next_commit(act);
    }

    /// How many commits were asked for, those that failed included.
    pub fn started(&self) -> usize {
        self.commits_started()
    }

    /// The one commit since the last call.
    pub fn take_commit(&self) -> Batch {
        let mut commits = self.take_commits();
        assert_eq!(commits.len(), 1, "{commits:?}");
        commits.remove(0)
    }

    /// Until so many commits were asked for since the start.
    pub async fn commit_started(&self, commits: usize) {
        self.until_commits_started(commits).await;
    }

    /// Until so many commits ended, well or not.
    pub async fn commits_done(&self, commits: usize) {
        self.until_commits_done(commits).await;
    }

    pub async fn query_started(&self, queries: usize) {
        self.until_queries(queries).await;
    }

    pub async fn closed(&self) {
        self.until_closed().await;
    }
}

impl Datastore for Recording {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        self.recording.get(key)
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        self.recording.query(prefix)
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        self.recording.commit(batch)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DatastoreError>> {
        self.recording.close()
    }
}

// --- a datastore with a script for its contents ------------------------------------------------------------

/// A datastore whose query yields exactly what it was given, in that order, whatever the contract says.
#[derive(Clone, Default)]
pub struct Scripted {
    pub recording: Recording,
    script: ScriptedDatastore<Recording>,
    failing: Arc<Mutex<usize>>,
}

impl Scripted {
    /// These entries in this order; `None` is an error in their midst.
    pub fn new(entries: impl IntoIterator<Item = Option<KeyValue>>) -> Self {
        let recording = Recording::default();
        Self {
            script: ScriptedDatastore::new(recording.clone(), entries),
            recording,
            failing: Arc::default(),
        }
    }

    /// The next queries yield an error and nothing else.
    pub fn fail_queries(&self, queries: usize) {
        *self.failing.lock() = queries;
    }
}

impl Datastore for Scripted {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        self.script.get(key)
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        let mut failing = self.failing.lock();
        if *failing > 0 {
            *failing -= 1;
            let error = DatastoreError::failed("read", "scripted datastore", "told to fail");
            return stream::iter([Err(error)]).boxed();
        }
        self.script.query(prefix)
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        self.script.commit(batch)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DatastoreError>> {
        self.script.close()
    }
}
