//! What is counted outside of the store's lock: dials and commits.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::datastore::Batch;

/// What came of an address that was dialled.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Dialled {
    Success,
    Failure,
    WrongPeer,
    Unsupported,
    LocalError,
}

impl Dialled {
    pub(super) const ALL: [Self; 5] = [
        Self::Success,
        Self::Failure,
        Self::WrongPeer,
        Self::Unsupported,
        Self::LocalError,
    ];
}

/// The place of an address among those that the store offered for its dial.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rank {
    First,
    Second,
    Third,
    Later,
    NotOffered,
}

impl Rank {
    pub(super) const ALL: [Self; 5] = [
        Self::First,
        Self::Second,
        Self::Third,
        Self::Later,
        Self::NotOffered,
    ];
}

#[derive(Debug)]
pub(crate) struct Meter {
    dials: [[AtomicU64; Rank::ALL.len()]; Dialled::ALL.len()],
    commits: AtomicU64,
    failed_commits: AtomicU64,
    committed_peers: AtomicU64,
    pub(super) commit_duration: Histogram,
    pub(super) commit_size: Histogram,
    load_nanos: AtomicU64,
}

impl Default for Meter {
    fn default() -> Self {
        let numbers = || array::from_fn(|_| AtomicU64::default());
        Self {
            dials: array::from_fn(|_| numbers()),
            commits: AtomicU64::default(),
            failed_commits: AtomicU64::default(),
            committed_peers: AtomicU64::default(),
            // A millisecond to 65 seconds: from memory to a disk that is about to fail.
            commit_duration: Histogram::new(exponential_buckets(0.001, 4.0, 9)),
            // 256 bytes to 16 MiB: from one peer to a whole part of 4,096.
            commit_size: Histogram::new(exponential_buckets(256.0, 4.0, 9)),
            load_nanos: AtomicU64::default(),
        }
    }
}

impl Meter {
    /// An address was dialled.
    pub(super) fn dialled(&self, outcome: Dialled, rank: Rank) {
        self.dials[outcome as usize][rank as usize].fetch_add(1, Relaxed);
    }

    /// Reading everything at the start took so long.
    pub(crate) fn loaded(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.load_nanos.store(nanos, Relaxed);
    }

    /// A batch goes to the datastore.
    pub(crate) fn batch(&self, batch: &Batch) {
        let bytes: usize = batch
            .iter()
            .map(|(key, value)| key.len() + value.map_or(0, <[u8]>::len))
            .sum();
        self.commit_size.observe(bytes as f64);
    }

    /// A commit of so many peers succeeded, or one failed.
    pub(crate) fn commit(&self, peers: Result<usize, ()>, took: Duration) {
        match peers {
            Ok(peers) => {
                self.commits.fetch_add(1, Relaxed);
                self.committed_peers.fetch_add(peers as u64, Relaxed);
            }
            Err(()) => {
                self.failed_commits.fetch_add(1, Relaxed);
            }
        }
        self.commit_duration.observe(took.as_secs_f64());
    }

    pub(super) fn dials(&self, outcome: Dialled, rank: Rank) -> u64 {
        self.dials[outcome as usize][rank as usize].load(Relaxed)
    }

    /// Commits that succeeded, and those that failed.
    pub(super) fn commits(&self) -> (u64, u64) {
        (
            self.commits.load(Relaxed),
            self.failed_commits.load(Relaxed),
        )
    }

    pub(super) fn committed_peers(&self) -> u64 {
        self.committed_peers.load(Relaxed)
    }

    pub(super) fn load_duration(&self) -> Duration {
        Duration::from_nanos(self.load_nanos.load(Relaxed))
    }
}
