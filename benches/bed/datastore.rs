//! Stores on disk, and a datastore that looks at what is committed.

use std::{future::ready, path::Path, thread, time::Duration};

use futures::{FutureExt, executor::block_on, future::BoxFuture, stream::BoxStream};
use libp2p::PeerId;
use libp2p_peerstore::{
    Batch, Config, Datastore, DatastoreError, KeyValue, PeerStore, RedbDatastore,
};

use super::node::some;

/// Longer than any measurement.
pub const NEVER: Duration = Duration::from_secs(1 << 32);

/// A store that commits only when it is told to.
pub fn on_demand(peers: usize) -> Config {
    Config::default()
        .with_max_peers(some(peers))
        .with_commit_threshold(some(usize::MAX))
        .with_max_commit_delay(NEVER)
        .with_flush_deadline(NEVER)
}

pub fn open(file: &Path, config: Config) -> PeerStore {
    open_with(
        RedbDatastore::open(file).expect("a folder that can be written"),
        config,
    )
}

pub fn open_with(datastore: impl Datastore, config: Config) -> PeerStore {
    block_on(PeerStore::open(PeerId::random(), datastore, config)).expect("what we wrote ourselves")
}

pub fn flush(store: &PeerStore) {
    block_on(store.flush()).expect("the disk has room");
}

pub fn close(store: PeerStore) {
    block_on(store.shutdown()).expect("the disk has room");
}

/// Commits a batch, and returns when that is done.
pub type Commit<'a> = &'a (dyn Fn(Batch) -> Result<(), DatastoreError> + Sync);

/// redb, of whose batches `look` sees each as it comes, and commits it.
pub struct Watched<F> {
    pub redb: RedbDatastore,
    pub look: F,
}

impl<F> Datastore for Watched<F>
where
    F: Fn(Batch, Commit<'_>) -> Result<(), DatastoreError> + Send + Sync + 'static,
{
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        self.redb.get(key)
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        self.redb.query(prefix)
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        // On another thread, since an executor does not run inside another one of the same crate.
        let commit = |batch| {
            let work = || block_on(self.redb.commit(batch));
            thread::scope(|scope| scope.spawn(work).join()).expect("no panic")
        };
        ready((self.look)(batch, &commit)).boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DatastoreError>> {
        self.redb.close()
    }
}

/// Bytes of the keys and values in a batch.
pub fn bytes_of(batch: &Batch) -> usize {
    let operations = batch.iter();
    operations
        .map(|(key, value)| key.len() + value.map_or(0, <[u8]>::len))
        .sum()
}
