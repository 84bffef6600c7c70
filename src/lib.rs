//! x
#![cfg_attr(docsrs, feature(doc_cfg))]

mod address;
mod behaviour;
mod book;
mod clock;
mod config;
mod datastore;
mod error;
mod event;
mod observe;
mod peer;
mod persist;
mod record;
mod refusal;
mod state;
mod store;
mod table;

pub use address::{AddressInfo, Source, Sources, Standing};
pub use behaviour::{Handler, PeerStoreBehaviour};
pub use book::{AddressBook, KeyBook, MetadataBook, ProtocolBook};
pub use clock::{Clock, ManualClock, SystemClock};
pub use config::*;
#[cfg(feature = "redb")]
pub use datastore::RedbDatastore;
pub use datastore::{Batch, Datastore, DatastoreError, KeyValue, MemoryDatastore};
pub use error::{BehaviourError, FlushError, OpenError};
pub use event::{Cause, Event, Subscription};
pub use observe::{Learned, Observed, Teach};
pub use peer::{Peer, SignedRecord};
pub use persist::LoadReport;
pub use refusal::{Refusals, Refused};
pub use state::Changed;
pub use store::PeerStore;

/// The metadata key under which identify keeps the name and version of a peer's software, as in js-libp2p.
pub const AGENT_VERSION: &str = "AgentVersion";

/// The metadata key under which identify keeps the protocol version of a peer, as in js-libp2p.
pub const PROTOCOL_VERSION: &str = "ProtocolVersion";
