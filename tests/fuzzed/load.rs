//! A store is opened on a datastore that holds anything. What it takes is within its limits, its report adds up, and
//! what it writes of it is read as the same.

mod entries;
#[path = "../support/wire.rs"]
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_peerstore::{
    Batch, Config, Datastore, DatastoreError, FlushError, KeyValue, MAX_TAG_VALUE, MemoryDatastore,
    Peer, PeerStore, Sources, testing::ManualExecutor,
};

use crate::bytes::Bytes;

use self::entries::{config, entry, key, local, peers};

/// Opens a store on what the bytes say.
///
/// # Panics
///
/// When the store holds more than it may, counts otherwise than there is, or writes what is read as something else.
pub fn run(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let mut executor = ManualExecutor::default();
    let config = config(executor.config(), &mut bytes);
    let mut entries = BTreeMap::new();
    let mut ours = BTreeMap::new();
    while !bytes.is_empty() {
        let (key, value, peer) = entry(&mut bytes);
        if let Some(peer) = peer {
            ours.insert(key.clone(), peer);
        }
        entries.insert(key, value);
    }
    let datastore = MemoryDatastore::default();
    write(&datastore, &entries);

    let first = open(&mut executor, datastore.clone(), &config);
    assert_report(&first.store, &entries, &ours);
    assert_bounds(&first.store, &config);
    assert_eq!(
        datastore.entries(),
        entries.clone().into_iter().collect::<Vec<_>>()
    );

    let written = first.write_back(&mut executor);
    let second = open(&mut executor, written.clone(), &config);
    let report = second.store.load_report();
    let amiss = [
        report.foreign,
        report.undecodable,
        report.local,
        report.refused,
        report.expired,
        report.left_on_disk,
    ];
    assert_eq!((report.entries, amiss), (written.len(), [0; 6]));
    assert_eq!(
        second.write_back(&mut executor).entries(),
        written.entries()
    );
    // At the end: it checks signatures, and what they do not cover goes.
    assert_same(&first.store, &second.store);
}

// --- stores -------------------------------------------------------------------------------------------------------

/// A datastore that is found empty by the first commit, as if it had been replaced: then everything is written.
#[derive(Clone)]
struct Replaced {
    before: MemoryDatastore,
    after: MemoryDatastore,
    found: Arc<AtomicBool>,
}

impl Replaced {
    fn current(&self) -> &MemoryDatastore {
        match self.found.load(Ordering::Relaxed) {
            false => &self.before,
            true => &self.after,
        }
    }
}

impl Datastore for Replaced {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        self.current().get(key)
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        self.current().query(prefix).boxed()
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        if !self.found.swap(true, Ordering::Relaxed) {
            let location = "memory".to_owned();
            return futures::future::ready(Err(DatastoreError::Lost { location })).boxed();
        }
        self.after.commit(batch)
    }
}

struct Opened {
    store: PeerStore,
    datastore: Replaced,
}

fn open(executor: &mut ManualExecutor, before: MemoryDatastore, config: &Config) -> Opened {
    let datastore = Replaced {
        before,
        after: MemoryDatastore::default(),
        found: Default::default(),
    };
    let open = PeerStore::open(local(), datastore.clone(), config.clone());
    let store = executor.block_on(open).unwrap();
    Opened { store, datastore }
}

impl Opened {
    /// Lets the store write all that it holds, into a datastore that is empty.
    fn write_back(&self, executor: &mut ManualExecutor) -> MemoryDatastore {
        // What has expired may have been due at once, and been the first commit.
        let was_found = self.datastore.found.load(Ordering::Relaxed);
        // Of whom nothing is known, and there is something to commit.
        self.store.delete(&key(4).to_peer_id());
        let found = executor.block_on(self.store.flush());
        let is_lost = matches!(found, Err(FlushError::Failed { .. }));
        assert!(was_found != is_lost, "{found:?}");
        executor.block_on(self.store.flush()).unwrap();
        assert_eq!(self.store.unsaved(), 0);
        self.datastore.after.clone()
    }
}

fn write(datastore: &MemoryDatastore, entries: &BTreeMap<String, Vec<u8>>) {
    let mut batch = Batch::default();
    for (key, value) in entries {
        batch.put(key, value.clone());
    }
    datastore.commit(batch).now_or_never().unwrap().unwrap();
}

// --- what must hold -----------------------------------------------------------------------------------------------

/// The report counts each entry once, and each peer.
fn assert_report(
    store: &PeerStore,
    entries: &BTreeMap<String, Vec<u8>>,
    ours: &BTreeMap<String, PeerId>,
) {
    let report = store.load_report();
    assert_eq!(report.entries, entries.len());
    let known = ours.values().filter(|peer| **peer != local()).count();
    let others = entries.len() - ours.len();
    assert!(report.foreign <= others, "{report:?}");
    let locals = ours.len() - known;
    assert!(
        (locals..=locals + others).contains(&report.local),
        "{report:?}"
    );
    let decoded = report.entries - report.foreign - report.local;
    assert!(report.undecodable <= decoded, "{report:?}");
    let peers: BTreeSet<_> = ours.values().filter(|peer| **peer != local()).collect();
    let found = report.peers + report.expired;
    assert!(found <= decoded - report.undecodable, "{report:?}");
    assert!(report.peers <= peers.len() + others, "{report:?}");
    assert_eq!(report.peers, store.len());
    assert_eq!(store.peer_ids().len(), store.len());
}

fn assert_bounds(store: &PeerStore, config: &Config) {
    assert!(store.len() <= config.max_peers().get());
    for peer in store.peers() {
        assert_ne!(peer.id, local());
        assert!(peer.addresses.len() <= config.max_addresses_per_peer().get());
        let mut addresses = BTreeSet::new();
        for info in &peer.addresses {
            assert!(info.address.len() <= config.max_address_len().get());
            assert!((0.0..=1.0).contains(&info.confidence));
            assert!(addresses.insert(&info.address), "{peer:?}");
            let own = libp2p_core::multiaddr::Protocol::P2p(peer.id);
            assert_ne!(info.address.iter().last(), Some(own));
        }
        let names: BTreeSet<&str> = peer.protocols.iter().map(AsRef::as_ref).collect();
        assert_eq!(names.len(), peer.protocols.len());
        assert!(names.len() <= config.max_protocols_per_peer().get());
        for name in names {
            assert!(name.len() <= config.max_protocol_len().get());
            assert!(store.peers_supporting(name).contains(&peer.id));
        }
        assert!(peer.metadata.len() <= config.max_metadata_per_peer().get());
        for (name, value) in &peer.metadata {
            assert!((1..=config.max_metadata_key_len().get()).contains(&name.len()));
            assert!(value.len() <= config.max_metadata_value_len().get());
        }
        assert!(peer.tags.len() <= config.max_tags_per_peer().get());
        for (name, tag) in &peer.tags {
            assert!((1..=config.max_tag_name_len().get()).contains(&name.len()));
            assert!(tag.value <= MAX_TAG_VALUE);
        }
        if let Some(record) = &peer.signed_record {
            assert!(record.envelope.len() <= config.max_signed_record_len().get());
        }
        if let Some(key) = &peer.public_key {
            assert_eq!(key.to_peer_id(), peer.id);
        }
    }
}

/// What was written is there again, and everything was written that is worth it: not what only came in.
fn assert_same(first: &PeerStore, second: &PeerStore) {
    let again: BTreeMap<PeerId, Peer> = second
        .peers()
        .into_iter()
        .map(|peer| (peer.id, peer))
        .collect();
    let mut met = 0;
    for peer in first.peers() {
        let addresses = kept(&peer);
        let Some(again) = again.get(&peer.id) else {
            let is_inlined = first.keys().get(&peer.id).is_none()
                || peers()[..3].iter().any(|(id, _)| *id == peer.id)
                || peer.public_key.is_none();
            let nothing = addresses.is_empty()
                && peer.protocols.is_empty()
                && peer.metadata.is_empty()
                && peer.tags.is_empty();
            assert!(nothing && is_inlined, "{peer:?} was not written");
            continue;
        };
        met += 1;
        assert_eq!(addresses, kept(again));
        assert_eq!(peer.protocols, again.protocols);
        assert_eq!(peer.public_key, again.public_key);
        assert_eq!(peer.metadata, again.metadata);
        assert_eq!(peer.tags, again.tags);
        assert_eq!(peer.signed_record, again.signed_record);
        // Alone it is nothing that is kept.
        if !addresses.is_empty() || !peer.tags.is_empty() {
            assert_eq!(peer.latency, again.latency);
        }
        let signed = first.signed_peer_record(&peer.id);
        assert_eq!(signed, second.signed_peer_record(&peer.id));
    }
    assert_eq!(met, again.len());
}

/// The addresses that are kept, in an order that does not depend on how confident the store is in them.
fn kept(peer: &Peer) -> BTreeMap<Multiaddr, impl PartialEq + std::fmt::Debug + use<>> {
    let kept = peer.addresses.iter();
    let kept = kept.filter(|info| info.sources != Sources::INBOUND);
    kept.map(|info| {
        let heard = (info.first_heard, info.last_heard, info.expires);
        let dialled = (info.last_success, info.last_failure);
        let counts = (info.sources, info.standing, info.successes, info.failures);
        (info.address.clone(), (counts, heard, dialled))
    })
    .collect()
}
