//! For tests: of a [`Datastore`](crate::Datastore) of your own, and of what your program does when a datastore fails
//! (feature `testing`).
//!
//! - [`conformance`] checks a datastore against every rule of the trait, in one call.
//! - [`RecordingDatastore`] tells what a store asked for, and lets a test wait for it.
//! - [`FaultyDatastore`] fails, panics, hangs or lies when it is told to, at the n-th commit or at random.
//! - [`ScriptedDatastore`] answers queries with exactly what it was given.
//! - [`ManualExecutor`] runs stores on the test's own thread and clock, so that a test can say "and nothing more
//!   happens" for certain.
//!
//! They wrap each other and any other datastore; clones share everything. None of them needs a runtime.
//!
//! ```
//! use std::time::Duration;
//!
//! use libp2p_identity::PeerId;
//! use libp2p_peerstore::{
//!     MemoryDatastore, PeerStore,
//!     testing::{Call, Fault, FaultyDatastore, ManualExecutor, RecordingDatastore},
//! };
//!
//! // A disk that is full once, and then hangs.
//! let disk = FaultyDatastore::new(MemoryDatastore::default());
//! let recording = RecordingDatastore::new(disk.clone());
//! disk.fail_commit(0, Fault::Fail);
//!
//! let mut executor = ManualExecutor::default();
//! let store = executor.block_on(PeerStore::open(PeerId::random(), recording.clone(), executor.config()))?;
//! store.protocols().add(PeerId::random(), ["/chat/1.0.0"]);
//! executor.advance(Duration::from_secs(30));
//! assert_eq!(recording.take_commits().len(), 1);
//! assert!(disk.inner().is_empty());
//!
//! disk.hold(Call::Commit);
//! executor.advance(Duration::from_secs(30));
//! assert_eq!((recording.in_flight(), disk.inner().len()), (1, 0));
//! disk.release();
//! executor.settle();
//! assert_eq!((recording.in_flight(), disk.inner().len()), (0, 1));
//! # Ok::<_, libp2p_peerstore::OpenError>(())
//! ```

mod checks;
mod executor;
mod faulty;
mod recording;
mod scripted;
mod suite;
mod waiting;

pub use executor::ManualExecutor;
pub use faulty::{Call, Fault, FaultyDatastore};
pub use recording::RecordingDatastore;
pub use scripted::ScriptedDatastore;
pub use suite::{Conformance, DEFAULT_CHECK_DEADLINE, Report, Violation, conformance};
