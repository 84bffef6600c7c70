//! Why a call of the store failed.

use std::{io, sync::Arc, time::Duration};

use crate::datastore::DatastoreError;

/// Why [`PeerStore::open`](crate::PeerStore::open) failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The datastore could not be read.
    #[error("could not load the peer store")]
    Load(#[source] DatastoreError),
    /// The thread of the persistence engine could not be started.
    #[error("could not start the thread of the peer store")]
    Thread(#[source] io::Error),
    /// The executor of [`Config::with_executor`](crate::Config::with_executor) dropped the persistence engine.
    #[error(
        "the executor dropped the engine of the peer store before it had loaded; let it run, or use the default thread"
    )]
    ExecutorGone,
}

/// Why [`PeerStore::flush`](crate::PeerStore::flush) or [`PeerStore::shutdown`](crate::PeerStore::shutdown) could
/// not promise that everything is on disk. What is unsaved is still in memory, and still tried again (until the
/// shutdown).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The datastore did not take the commit.
    #[error("could not save {unsaved} peers")]
    Failed {
        /// Peers with changes that are not on disk for certain.
        unsaved: usize,
        /// What the datastore said.
        #[source]
        source: Arc<DatastoreError>,
    },
    /// The datastore did not answer in time; it may still finish.
    #[error("{unsaved} peers were not saved within {deadline:?}; the datastore is slow or hangs")]
    Deadline {
        /// Peers with changes that are not on disk for certain.
        unsaved: usize,
        /// [`Config::flush_deadline`](crate::Config::flush_deadline).
        deadline: Duration,
    },
    /// The store was shut down before, or its executor is gone: later changes stay in memory.
    #[error("the peer store is shut down; changes stay in memory")]
    Closed,
}

/// Why [`PeerStoreBehaviour::new`](crate::PeerStoreBehaviour::new) failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BehaviourError {
    /// The store has a live behaviour already, in this swarm or another one.
    #[error(
        "the peer store has a behaviour already; one store serves one swarm, so open another store or drop the first behaviour"
    )]
    AlreadyAttached,
}
