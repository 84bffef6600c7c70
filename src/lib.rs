//! A peer store for rust-libp2p: it gathers what a node learns about other peers, answers questions about it,
//! offers the best addresses at every dial, tells who listens what changed, and remembers it across restarts.
//!
//! # Four lines in the behaviour, none in the event loop
//!
//! ```
//! # use libp2p::{identify, kad, swarm::NetworkBehaviour};
//! # use libp2p_peerstore::{Config, Observed, PeerStore, PeerStoreBehaviour, RedbDatastore};
//! # async fn node(keypair: libp2p::identity::Keypair, path: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
//! # let local_peer_id = keypair.public().to_peer_id();
//! # let identify_config = identify::Config::new("/my-app/1.0.0".into(), keypair.public());
//! # let record_store = kad::store::MemoryStore::new(local_peer_id);
//! let store = PeerStore::open(local_peer_id, RedbDatastore::open(path)?, Config::default()).await?;
//!
//! #[derive(NetworkBehaviour)]
//! struct Behaviour {
//!     peer_store: PeerStoreBehaviour,
//!     identify: Observed<identify::Behaviour>,
//!     kad: Observed<kad::Behaviour<kad::store::MemoryStore>>,
//! }
//!
//! let behaviour = Behaviour {
//!     peer_store: PeerStoreBehaviour::new(store.clone())?,
//!     identify: store.observe(identify::Behaviour::new(identify_config)),
//!     kad: store.observe(kad::Behaviour::new(local_peer_id, record_store)),
//! };
//! # drop(behaviour);
//! # store.shutdown().await?;
//! # Ok(()) }
//! # let path = tempfile::tempdir()?;
//! # let keypair = libp2p::identity::Keypair::generate_ed25519();
//! # futures::executor::block_on(node(keypair, &path.path().join("peers.redb")))?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! `swarm.dial(peer_id)` now works for every peer that is known, also after a restart. `store` answers questions,
//! from any task or thread, without waiting:
//!
//! ```
//! # use libp2p_identity::PeerId;
//! # use libp2p_peerstore::{Config, PeerStore};
//! # let store = PeerStore::in_memory(PeerId::random(), Config::default());
//! # let (friend, address) = (PeerId::random(), "/ip4/192.0.2.1/tcp/4001".parse()?);
//! store.addresses().add(friend, [address]);
//! store.protocols().add(friend, ["/chat/1.0.0"]);
//!
//! for peer in store.peers_supporting("/chat/1.0.0") {
//!     println!("{peer} chats at {:?}", store.addresses().get(&peer));
//! }
//! assert!(store.protocols().first_supported(&friend, ["/chat/2.0.0", "/chat/1.0.0"]).is_some());
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! [`PeerStore::query`] asks more of many peers at once: who speaks any of several protocols, was seen today, has a public
//! address and is nearest to a key.
//!
//! The [`guide`] goes through what one does with a store, task by task: [who speaks a
//! protocol](guide#answer-who-speaks-x), [remembering across restarts](guide#remember-peers-across-restarts), [hearing of
//! changes](guide#hear-of-changes), [a datastore of your own](guide#write-your-own-datastore), [a discovery protocol of
//! your own](guide#observe-your-own-discovery-protocol), coming from [`libp2p-peer-store`](guide#migrate-from-libp2p-peer-store)
//! or from [js-libp2p](guide#migrate-from-js-libp2p).
//!
//! # Concepts
//!
//! - A **record** is all that is known about one peer. The **books** are views on it:
//!   [`PeerStore::addresses`], [`PeerStore::protocols`], [`PeerStore::keys`], [`PeerStore::metadata`] and
//!   [`PeerStore::tags`].
//! - [`PeerStoreBehaviour`] hears what the swarm says and offers addresses for dials. [`Observed`] wraps another
//!   behaviour and hears what its events say. Either works without the other.
//! - A [`Datastore`] keeps records between runs. [`RedbDatastore`] is one file; `FsDatastore` (feature `fs`) is the
//!   folder of a js-libp2p node; `RedisDatastore` (feature `redis`) is a server or a cluster for many nodes;
//!   [`MemoryDatastore`] is for tests; anyone can [write another one](guide#write-your-own-datastore). [`migrate`] moves
//!   peers from one to another.
//! - An [`Event`] says that something is different from before. [`PeerStore::subscribe`], [`PeerStore::watch`]
//!   and the behaviour itself yield them.
//!
//! # What is gathered from where
//!
//! Every address is brought into one form first: `/p2p/<peer>` at its end is taken off, one that ends in another
//! peer's id is refused, the id of a relay inside it stays. The local peer is never stored.
//!
//! | what happened | what the store does |
//! | --- | --- |
//! | a connection that this node dialled was established | **adds** the dialled address, as proven; marks those that were tried before it as failed. A hole-punched connection counts as inbound |
//! | an inbound connection was established | **adds** its address with the lowest standing, while nothing better is known |
//! | the address of a connection changed | **adds** the new one, unproven |
//! | a dial failed | marks the addresses that were tried as failed, unless the reason lies on this side. When another peer answered: the address failed for the expected one, and is told, unproven, of the other |
//! | identify answered, or a peer pushed | **replaces** addresses and protocols; sets the public key and the metadata [`AGENT_VERSION`] and [`PROTOCOL_VERSION`]. An empty list of addresses changes none. A signed peer record certifies those of its addresses that are in the list, and is kept |
//! | identify runs without [`Observed`] | protocols are **replaced** all the same, addresses are only **added** |
//! | Kademlia: closest peers found, routing table changed, provider announced, an address added to a dial | **merges** the addresses. Addresses of peers that a response named and that Kademlia never dialled are not visible to anybody |
//! | a ping came back (feature `ping`) | moves the mean of the **latency** by a tenth of the difference |
//! | a signed peer record was handed to [`PeerStore::consume_peer_record`] | **adds** its addresses as certified; what only the record before certified loses that standing |
//! | mDNS or a rendezvous point discovered a peer (features `mdns`, `rendezvous`) | **adds** the addresses; withdraws them when they expire, unless something else told them too |
//! | another behaviour, or `Swarm::add_peer_address`, announced an address of a peer | **adds** it |
//!
//! *Replace* keeps what was pinned ([`AddressBook::pin`]) and drops the rest of what is not in the new list. What
//! was dropped does not come back by hearsay alone for [`Config::hearsay_lifetime`]. *Add* and *merge* never drop.
//!
//! # What this does not do
//!
//! - It exchanges nothing with other nodes; that is what discovery protocols are for.
//! - A dial with addresses of its own (`DialOpts` with `addresses`) asks the store only if
//!   `extend_addresses_through_behaviour` is set. A dial by peer id alone always does.
//! - Identify cuts its messages at 4,096 bytes, and a push that carries only a part of the information is merged
//!   by identify into what the same connection said before. What such a push brings back wrongly is healed by the
//!   next regular identify.
//!
//! # What is saved, and when
//!
//! A commit starts when [`Config::commit_threshold`] peers have changes, at most every
//! [`Config::min_commit_interval`]; when a change is [`Config::max_commit_delay`] old; at [`PeerStore::flush`],
//! [`PeerStore::shutdown`], and when the last handle is dropped. Only the books that changed are written. Only
//! `flush` and `shutdown` promise anything. Keys and values are those of js-libp2p 0.28 to 0.35, with additions
//! that it skips.
//!
//! All of that runs on a thread of the store's own, so that no runtime is needed and a slow disk never slows the
//! swarm; [`Config::with_executor`] hands it to an executor instead.
//!
//! # Limits
//!
//! Whatever a remote peer says ends in a bounded place, and going over a bound is counted
//! ([`PeerStore::refusals`]), not an error. [`Config`] lists every limit with its default.
//!
//! # Features
//!
//! | feature | default | what for |
//! | --- | --- | --- |
//! | `identify` | yes | learn from `libp2p-identify` |
//! | `kad` | yes | learn from `libp2p-kad` |
//! | `redb` | yes | [`RedbDatastore`] |
//! | `fs` | no | `FsDatastore`, a folder in the layout of js-libp2p |
//! | `metrics` | no | `PeerStore::register_metrics`: metrics for Prometheus |
//! | `mdns` | no | learn from `libp2p-mdns` |
//! | `ping` | no | learn latencies from `libp2p-ping` |
//! | `rendezvous` | no | learn from the client of `libp2p-rendezvous` |
//! | `redis` | no | `RedisDatastore`, a Redis or Valkey server or a Redis Cluster; needs tokio |
//! | `redis-tls` | no | the same with `rediss://`, by rustls |
//! | `serde` | no | `Serialize` and `Deserialize` for what the store returns; [`Event`] can only be serialized |
//! | `cli` | no | the binary `peerstore`, for people who operate nodes |
//! | `testing` | no | `testing`: a conformance suite for datastores, and datastores that record, fail and hang |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod address;
mod anchors;
mod behaviour;
mod book;
mod bootstrap;
mod budget;
mod claims;
mod clock;
mod compact;
mod config;
mod crowd;
mod datastore;
mod dial_error;
mod dials;
mod error;
mod escape;
mod event;
mod filter;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod group;
#[cfg(any(doc, doctest))]
pub mod guide;
mod handler;
mod history;
mod inner;
mod links;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(not(feature = "metrics"))]
#[path = "metrics/off.rs"]
mod metrics;
mod network;
mod observe;
mod peer;
mod persist;
mod quality;
mod query;
mod recent;
mod record;
mod redial;
mod refusal;
mod schedule;
mod seat;
#[cfg(feature = "serde")]
mod serial;
mod signed;
mod silent;
mod stacks;
mod state;
mod store;
mod sync;
mod table;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod tool;
mod view;

pub use address::{AddressInfo, Source, Sources, Standing};
pub use behaviour::PeerStoreBehaviour;
pub use book::{AddressBook, KeyBook, MAX_TAG_VALUE, MetadataBook, ProtocolBook, Tag, TagBook};
pub use clock::{Clock, ManualClock, SystemClock};
pub use config::*;
#[cfg(feature = "fs")]
pub use datastore::FsDatastore;
pub use datastore::{
    Batch, DEFAULT_MIGRATION_BATCH, DEFAULT_MIGRATION_BATCH_BYTES, Datastore, DatastoreError,
    KeyValue, MemoryDatastore, MigrationError, MigrationOptions, MigrationReport, migrate,
};
#[cfg(feature = "redis")]
pub use datastore::{
    DEFAULT_REDIS_MAX_VALUE_LEN, DEFAULT_REDIS_REPLICA_TIMEOUT, DEFAULT_REDIS_RETRY_FOR,
    DEFAULT_REDIS_REWRITE_MEMORY, DEFAULT_REDIS_TIMEOUT, RedisConfig, RedisDatastore,
};
#[cfg(feature = "redb")]
pub use datastore::{RedbDatastore, RedbStorage};
pub use error::{BehaviourError, FlushError, OpenError};
pub use event::{Cause, Event, Subscription};
pub use filter::{AddressFilter, dialable_only, public_only};
pub use handler::Handler;
pub use observe::{Learned, Observed, Teach};
pub use peer::Peer;
pub use persist::LoadReport;
pub use query::{Found, Order, Query};
pub use refusal::{Refusals, Refused};
pub use signed::{AcceptedRecord, RecordError, RecordFormat, SignedRecord};
pub use state::Changed;
pub use store::PeerStore;

/// The metadata key under which identify keeps the name and version of a peer's software, as in js-libp2p.
pub const AGENT_VERSION: &str = "AgentVersion";

/// The metadata key under which identify keeps the protocol version of a peer, as in js-libp2p.
pub const PROTOCOL_VERSION: &str = "ProtocolVersion";

/// The code of the README is compiled with the documentation.
#[cfg(all(
    doctest,
    feature = "identify",
    feature = "kad",
    feature = "metrics",
    feature = "redb",
    feature = "redis"
))]
#[doc = include_str!("../README.md")]
struct Readme;
