//! Persistence: what is dirty and when it is due ([`Pending`]), and the engine that writes it.
//!
//! ```text
//! book ──mark──► Pending (under the store's lock) ──signal──► Engine (a future on a thread of its own)
//!                    ▲                                           │ takes what is dirty, encodes it in
//!                    └──── gives back what was not written ◄─────┤ pages, releases the lock, commits
//!                                                                ▼
//!                                                            Datastore
//! ```

mod change;
pub(crate) mod codec;
mod dirty;
mod engine;
pub(crate) mod key;
mod limits;
mod load;
mod pending;
mod readable;
mod story;

pub(crate) use change::Change;
pub(crate) use engine::{Engine, caught};
#[cfg(feature = "cli")]
pub(crate) use limits::MAX_VALUE_LEN;
pub(crate) use load::load;
pub(crate) use pending::{Pending, Unsaved};
pub(crate) use readable::read;

/// What [`PeerStore::open`](crate::PeerStore::open) found in the datastore.
///
/// What is skipped is left where it is, and logged with its key at debug level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct LoadReport {
    /// Peers that are in memory now.
    pub peers: usize,
    /// Entries (keys with their values) under `/peers/`.
    pub entries: usize,
    /// Entries whose key is not one that this crate writes: another layout, another spelling of a peer id.
    pub foreign: usize,
    /// Entries whose value is cut short, too large, or does not belong to its peer.
    pub undecodable: usize,
    /// Entries about the local peer, which is never stored.
    pub local: usize,
    /// Addresses (unreadable ones included), protocols and metadata values beyond the limits of
    /// [`Config`](crate::Config), or not fit for it, and values with more than 16 KiB in fields that this version does
    /// not know. A later write of the book they belong to drops addresses, protocols and such fields among them.
    pub refused: usize,
    /// Addresses that this version cannot parse. They are kept as bytes and written back.
    pub unreadable_addresses: usize,
    /// Peers of which everything had expired. They are deleted from the datastore with the next commit.
    pub expired: usize,
    /// Peers beyond [`Config::max_peers`](crate::Config::max_peers), counted by their addresses: the best are
    /// in memory, these are on disk only.
    pub left_on_disk: usize,
}
