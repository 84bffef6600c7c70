//! A transport that remembers what it dialled, and a datastore that remembers what was written.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use futures::{future::BoxFuture, stream::BoxStream};
use libp2p::{
    Multiaddr, PeerId, Transport, TransportError,
    core::{
        muxing::StreamMuxerBox,
        transport::{self, ListenerId, TransportEvent},
    },
};
use libp2p_peerstore::{Batch, Datastore, DatastoreError, KeyValue, MemoryDatastore};

/// The addresses that a transport was given to dial.
pub type Dials = Arc<Mutex<Vec<Multiaddr>>>;

pub struct Recording {
    pub inner: transport::Boxed<(PeerId, StreamMuxerBox)>,
    pub dials: Dials,
}

impl Transport for Recording {
    type Output = (PeerId, StreamMuxerBox);
    type Error = io::Error;
    type ListenerUpgrade = <transport::Boxed<Self::Output> as Transport>::ListenerUpgrade;
    type Dial = <transport::Boxed<Self::Output> as Transport>::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        opts: transport::DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        self.dials.lock().unwrap().push(address.clone());
        self.inner.dial(address, opts)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

// --- a datastore that remembers ----------------------------------------------------------------------------

/// A datastore in memory that notes the keys of each commit.
#[derive(Clone, Default)]
pub struct Ledger {
    inner: MemoryDatastore,
    commits: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Ledger {
    /// The keys that each commit wrote or deleted, in the order of the commits.
    pub fn commits(&self) -> Vec<Vec<String>> {
        self.commits.lock().unwrap().clone()
    }
}

impl Datastore for Ledger {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        self.inner.get(key)
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        self.inner.query(prefix)
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        let keys = batch.iter().map(|(key, _)| key.to_owned()).collect();
        self.commits.lock().unwrap().push(keys);
        self.inner.commit(batch)
    }
}
