//! What one does with a peer store, task by task. For each there is an example that runs by itself, in `examples/`.
//!
//! (This module holds nothing but documentation.)
//!
//! # Answer who speaks X
//!
//! Identify and identify-push keep the protocols of each peer up to date. [`PeerStore::peers_supporting`] reads an
//! index: it costs as much as there are answers, however many peers are known. [`PeerStore::query`] asks more.
//!
//! ```
//! # use libp2p_identity::PeerId;
//! # use libp2p_peerstore::{Config, Order, PeerStore};
//! # use std::time::Duration;
//! # let store = PeerStore::in_memory(PeerId::random(), Config::default());
//! # let friend = PeerId::random();
//! # store.addresses().add(friend, ["/ip4/8.8.8.8/tcp/4001".parse()?]);
//! # store.protocols().add(friend, ["/chat/1.0.0"]);
//! let all = store.peers_supporting("/chat/1.0.0");
//!
//! let ten_best = store
//!     .query()
//!     .speaks_any(["/chat/2.0.0", "/chat/1.0.0"])
//!     .seen_within(Duration::from_secs(24 * 60 * 60))
//!     .order_by(Order::Confidence)
//!     .limit(10)
//!     .peers();
//!
//! // Of one peer: the first of the versions that this node knows, best first, that it speaks too.
//! let version = store.protocols().first_supported(&friend, ["/chat/2.0.0", "/chat/1.0.0"]);
//! # assert_eq!((all.len(), ten_best.len(), version.is_some()), (1, 1, true));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Run: `cargo run --example who_speaks`.
//!
//! # Remember peers across restarts
//!
//! Open the store on a datastore, and shut it down at the end. In between it saves by itself. After a restart
//! every peer can be dialled by its id; [`PeerStore::bootstrap_peers`] says which are worth it at once,
//! [`PeerStoreBehaviour::with_redial`] dials them for you, and `PeerStore::seed_kademlia` (feature `kad`) fills a routing table.
//!
//! ```
//! # #[cfg(feature = "redb")] {
//! # use libp2p_identity::PeerId;
//! use libp2p_peerstore::{Config, PeerStore, RedbDatastore};
//!
//! # async fn run(local_peer_id: PeerId, file: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
//! let store = PeerStore::open(local_peer_id, RedbDatastore::open(file)?, Config::default()).await?;
//! println!("{} peers remembered", store.load_report().peers);
//!
//! // … the node runs. At its start:
//! for peer in store.bootstrap_peers(8) {
//!     // swarm.dial(peer)?;
//! #   let _ = peer;
//! }
//!
//! // Whatever was learnt before this returns is on disk then. `flush` promises the same in between.
//! store.shutdown().await?;
//! # Ok(()) }
//! # let folder = tempfile::tempdir()?;
//! # futures::executor::block_on(run(PeerId::random(), &folder.path().join("peers.redb")))?;
//! # }
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Without `shutdown` the last handle that is dropped saves what it can within [`Config::drop_deadline`]. The peer id in
//! the call is this node's own, which is never stored: keep the key pair too, or the node is a stranger after each start.
//!
//! Run: `cargo run --example remember`.
//!
//! # Hear of changes
//!
//! A [`Subscription`] is a stream of [`Event`]s, in any task. Its queue is bounded: a reader that sleeps for too long is told
//! how many it missed. [`PeerStore::watch`] begins with what is known of one peer.
//!
//! ```
//! # use libp2p_identity::PeerId;
//! # use libp2p_peerstore::{Config, PeerStore};
//! use futures::StreamExt;
//! use libp2p_peerstore::Event;
//!
//! # let store = PeerStore::in_memory(PeerId::random(), Config::default());
//! # futures::executor::block_on(async {
//! let mut events = store.subscribe();
//! # store.protocols().add(PeerId::random(), ["/chat/1.0.0"]);
//! while let Some(event) = events.next().await {
//!     match event {
//!         Event::ProtocolsChanged { peer, protocols, .. } => {
//!             println!("{peer} speaks {} protocols", protocols.len());
//! #           break;
//!         }
//!         // More came than the reader took: look at everything again.
//!         Event::Lagged(missed) => println!("missed {missed} events"),
//!         _ => {}
//!     }
//! }
//! # });
//! ```
//!
//! The same events come out of the swarm ([`PeerStoreBehaviour`]), unless [`Config::with_swarm_events`] says no.
//!
//! Run: `cargo run --example who_speaks`, which waits for what three peers say of themselves; the example `node` prints every event.
//!
//! # Write your own datastore
//!
//! A [`Datastore`] is three calls: read one key, read all keys with a prefix, and commit a batch. The trait says what
//! they promise; the most important part is that the keys of one peer are written together or not at all, and that
//! nothing is lost once `commit` has returned. `testing::conformance` (feature `testing`) checks every rule in one call:
//!
//! ```
//! # #[cfg(feature = "testing")] {
//! use std::{collections::BTreeMap, sync::Mutex};
//!
//! use futures::{FutureExt, StreamExt, future::BoxFuture, stream, stream::BoxStream};
//! use libp2p_peerstore::{Batch, Datastore, DatastoreError, KeyValue, testing};
//!
//! /// A map behind a lock. Yours talks to a database instead.
//! #[derive(Default)]
//! struct Map(Mutex<BTreeMap<String, Vec<u8>>>);
//!
//! impl Map {
//!     /// The first entry with this prefix, behind this key: a query holds one entry, never the whole result.
//!     fn next(&self, prefix: &str, behind: Option<&str>) -> Option<KeyValue> {
//!         let map = self.0.lock().expect("no panic under the lock");
//!         let mut entries = map.range(prefix.to_owned()..).skip_while(|(key, _)| Some(key.as_str()) <= behind);
//!         let (key, value) = entries.next().filter(|(key, _)| key.starts_with(prefix))?;
//!         Some((key.clone(), value.clone()))
//!     }
//! }
//!
//! impl Datastore for Map {
//!     fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
//!         async move { Ok(self.0.lock().expect("no panic under the lock").get(key).cloned()) }.boxed()
//!     }
//!
//!     fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
//!         stream::unfold(None, move |last: Option<String>| async move {
//!             let entry = self.next(prefix, last.as_deref())?;
//!             let key = entry.0.clone();
//!             Some((Ok(entry), Some(key)))
//!         })
//!         .boxed()
//!     }
//!
//!     fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
//!         async move {
//!             // One lock round all of it: nobody sees half of a batch, and nothing can stop in its midst.
//!             let mut map = self.0.lock().expect("no panic under the lock");
//!             for (key, value) in batch {
//!                 match value {
//!                     Some(value) => map.insert(key, value),
//!                     None => map.remove(&key),
//!                 };
//!             }
//!             Ok(())
//!         }
//!         .boxed()
//!     }
//! }
//!
//! # futures::executor::block_on(async {
//! testing::conformance(|| async { Map::default() }).await;
//! # });
//! # }
//! ```
//!
//! An engine that needs a runtime keeps a handle of it from its constructor. Errors are made with
//! [`DatastoreError::failed`], with what was tried and where, and never with a password. How a store gets on with a
//! datastore that fails, hangs or panics is tried with `testing::FaultyDatastore`.
//!
//!
//! Run: `cargo run --features testing --example own_datastore`.
//!
//! # Observe your own discovery protocol
//!
//! Implement [`Teach`] for what its behaviour yields, and wrap the behaviour with [`PeerStore::observe`]. For an event
//! type of another crate, [`PeerStore::observe_with`] takes the same as a closure. What is learnt so is hearsay: it makes
//! room for what the peers themselves said, and is forgotten when nobody repeats it.
//!
//! ```
//! use libp2p_core::Multiaddr;
//! use libp2p_identity::PeerId;
//! use libp2p_peerstore::{Learned, Teach};
//!
//! /// What my tracker's behaviour yields.
//! enum Tracked {
//!     Came(PeerId, Vec<Multiaddr>),
//!     Went(PeerId),
//! }
//!
//! impl Teach for Tracked {
//!     fn teach(&self, learned: &mut Learned<'_>) {
//!         match self {
//!             Tracked::Came(peer, addresses) => learned.add(*peer, addresses),
//!             Tracked::Went(peer) => learned.withdraw(*peer, None),
//!         };
//!     }
//! }
//!
//! # let store = libp2p_peerstore::PeerStore::in_memory(PeerId::random(), Default::default());
//! # let peer = PeerId::random();
//! # store.learn(&Tracked::Came(peer, vec!["/ip4/8.8.8.8/tcp/4001".parse()?]));
//! # assert!(store.contains(&peer));
//! # store.learn(&Tracked::Went(peer));
//! # assert!(!store.contains(&peer));
//! // In the behaviour: tracker: store.observe(tracker::Behaviour::new(…)), as an `Observed<tracker::Behaviour>`.
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! What comes from elsewhere than a behaviour goes through [`PeerStore::learned`]; a list that the application
//! vouches for, through [`AddressBook::add`] or [`AddressBook::pin`].
//!
//! Run: `cargo run --example own_discovery`.
//!
//! # Migrate from `libp2p-peer-store`
//!
//! | `libp2p-peer-store` 0.1 | here |
//! | --- | --- |
//! | `Behaviour::new(MemoryStore::new(config))` | [`PeerStoreBehaviour::new`] with a clone of a [`PeerStore`], which the application keeps |
//! | `behaviour.address_of_peer(&peer)` | `store.addresses().get(&peer)`, best first |
//! | `store_mut().add_address(&peer, &address)` (permanent) | [`AddressBook::pin`] |
//! | `remove_address` | [`AddressBook::remove`] |
//! | `get_custom_data`, `insert_custom_data` | `store.metadata()`, bytes under names, saved as the rest is |
//! | `record_iter` | [`PeerStore::for_each`], or a `for` loop over [`PeerStore::query`] |
//! | `Config::set_peer_capacity`, `set_record_capacity` | [`Config::with_max_peers`], [`Config::with_max_addresses_per_peer`] |
//! | `Config::set_remove_addr_on_dial_error` | not needed: what failed is left alone for a while, then offered last |
//! | `Event::PeerAddressAdded`, `PeerAddressRemoved` | [`Event::AddressesChanged`] with all addresses; [`Event::PeerAdded`], [`Event::PeerRemoved`] |
//!
//! Wrap identify and kad with [`PeerStore::observe`] in the same move. What a running node knows can be taken over:
//!
//! ```
//! # use libp2p_identity::PeerId;
//! use libp2p_peer_store::memory_store::MemoryStore;
//! use libp2p_peerstore::{PeerStore, Source};
//!
//! fn take_over<T>(old: &MemoryStore<T>, new: &PeerStore) {
//!     for (peer, record) in old.record_iter() {
//!         let addresses: Vec<_> = record.addresses().cloned().collect();
//!         new.learned(Source::Discovery).add(*peer, &addresses);
//!     }
//! }
//! # let mut old: MemoryStore<()> = MemoryStore::new(Default::default());
//! # old.add_address(&PeerId::random(), &"/ip4/8.8.8.8/tcp/4001".parse()?);
//! # let new = PeerStore::in_memory(PeerId::random(), Default::default());
//! # take_over(&old, &new);
//! # assert_eq!(new.len(), 1);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Run: `cargo run --example from_memory_store`.
//!
//! # Migrate from js-libp2p
//!
//! `FsDatastore` (feature `fs`) opens the folder that a js-libp2p node of the versions 0.28 to 0.35 kept its peers in, and can be
//! used as it is; js-libp2p reads what it writes. To leave the folder behind, [`migrate`](crate::migrate()) moves it:
//!
//! ```
//! # #[cfg(all(feature = "fs", feature = "redb"))] {
//! use std::path::Path;
//!
//! use libp2p_peerstore::{Datastore, FsDatastore, MigrationOptions, RedbDatastore, migrate};
//!
//! async fn move_in(folder: &Path, file: &Path) -> Result<(), Box<dyn std::error::Error>> {
//!     let (from, to) = (FsDatastore::open(folder)?, RedbDatastore::open(file)?);
//!     let report = migrate(&from, &to, &MigrationOptions::default(), |_| {}).await?;
//!     println!("{} entries of {} peers", report.entries, report.peers);
//!     to.close().await?;
//!     Ok(from.close().await?)
//! }
//! # let folder = tempfile::tempdir()?;
//! # futures::executor::block_on(move_in(&folder.path().join("js"), &folder.path().join("peers.redb")))?;
//! # }
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Only one of the two nodes may run on the folder at a time. Addresses whose protocols js-libp2p does not know stay where it does not see them.
//! From js-libp2p 0.36 on the layout is another one, which is not read.
//!
//! Run: `cargo run --features fs --example from_js`.

#[allow(unused_imports)]
use crate::{
    AddressBook, Config, Datastore, DatastoreError, Event, Learned, PeerStore, PeerStoreBehaviour,
    Subscription, Teach,
};
