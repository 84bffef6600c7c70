//! Copying all peers from one datastore to another.

use std::num::NonZeroUsize;

use futures::StreamExt;

use super::{Batch, Datastore, DatastoreError};
use crate::persist::{
    self,
    key::{self, Key},
};

const fn size(n: usize) -> NonZeroUsize {
    match NonZeroUsize::new(n) {
        Some(n) => n,
        None => NonZeroUsize::MIN,
    }
}

/// 1,024 entries in one batch: few enough to be held in memory, enough for one sync to be worth it.
pub const DEFAULT_MIGRATION_BATCH: NonZeroUsize = size(1_024);
/// 4 MiB of keys and values in one batch, or one entry that is larger.
pub const DEFAULT_MIGRATION_BATCH_BYTES: NonZeroUsize = size(4 * 1_024 * 1_024);

/// What [`migrate`] copies, and in which pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationOptions {
    prefix: String,
    batch: NonZeroUsize,
    batch_bytes: NonZeroUsize,
    keep_existing: bool,
    only_readable: bool,
}

impl Default for MigrationOptions {
    fn default() -> Self {
        Self {
            prefix: key::ROOT.to_owned(),
            batch: DEFAULT_MIGRATION_BATCH,
            batch_bytes: DEFAULT_MIGRATION_BATCH_BYTES,
            keep_existing: false,
            only_readable: false,
        }
    }
}

impl MigrationOptions {
    /// Copies the keys that begin with this; `/peers/` by default, which is all that a peer store writes. The empty
    /// text copies everything, such as what else a js-libp2p node keeps in its folder.
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Entries in one commit; [`DEFAULT_MIGRATION_BATCH`] by default.
    pub fn with_batch(mut self, entries: NonZeroUsize) -> Self {
        self.batch = entries;
        self
    }

    /// Bytes of keys and values in one commit, which may go over by one entry; [`DEFAULT_MIGRATION_BATCH_BYTES`] by
    /// default. Together with [`MigrationOptions::with_batch`] it bounds the memory that is needed.
    pub fn with_batch_bytes(mut self, bytes: NonZeroUsize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// Leaves keys alone that have another value in the target; by default the source wins.
    pub fn with_keep_existing(mut self, keep_existing: bool) -> Self {
        self.keep_existing = keep_existing;
        self
    }

    /// Leaves out what [`PeerStore::open`](crate::PeerStore::open) would skip: foreign and undecodable entries. By
    /// default they are copied like the others, byte for byte.
    pub fn with_only_readable(mut self, only_readable: bool) -> Self {
        self.only_readable = only_readable;
        self
    }
}

/// How far [`migrate`] is, or came.
///
/// `entries` is the sum of `written`, `unchanged`, `kept` and `left_out`, and of the batch at hand in a
/// [`MigrationError`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct MigrationReport {
    /// Entries that were read.
    pub entries: usize,
    /// Bytes of their values.
    pub bytes: u64,
    /// Peers among them, counted by their address books.
    pub peers: usize,
    /// Entries that were written.
    pub written: usize,
    /// Entries that stood in the target with the same value already: a migration that is repeated writes nothing.
    pub unchanged: usize,
    /// Entries that have another value in the target and were left so ([`MigrationOptions::with_keep_existing`]).
    pub kept: usize,
    /// Foreign and undecodable entries that were not copied ([`MigrationOptions::with_only_readable`]).
    pub left_out: usize,
    /// Entries whose key is not one that this crate writes.
    pub foreign: usize,
    /// Entries whose value is cut short, too large, or does not belong to its peer.
    pub undecodable: usize,
}

/// Why a [`migrate`] stopped. What was committed by then stays; running it again goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationError {
    /// The source, or the target while it was compared, could not be read.
    #[error("could not read after {} entries; run the migration again to go on", .report.entries)]
    Read {
        /// How far it came.
        report: Box<MigrationReport>,
        /// What the datastore said.
        #[source]
        source: DatastoreError,
    },
    /// The target did not take a batch.
    #[error("could not write after {} entries; run the migration again to go on", .report.written)]
    Commit {
        /// How far it came.
        report: Box<MigrationReport>,
        /// What the datastore said.
        #[source]
        source: DatastoreError,
    },
}

/// Copies all peers from one datastore to another, and calls `progress` after each batch.
///
/// Neither may be in use by a store meanwhile. Nothing is deleted, not in the source either, and neither is closed. The
/// source is read as a stream and written in batches of bounded size, so that memory does not grow with it. Every
/// value is compared with what the target has, so that a migration that broke off, or was dropped, is repeated from the
/// start at the price of reading; until it has come to its end, a peer may be there in part. A value that is longer than a
/// target takes (the `max_value_len` of a Redis) is not there afterwards, although it counts as written; the log warns of it.
///
/// ```
/// use libp2p_peerstore::{MemoryDatastore, MigrationOptions, migrate};
///
/// # async fn example(from: MemoryDatastore, to: MemoryDatastore) -> Result<(), Box<dyn std::error::Error>> {
/// let report = migrate(&from, &to, &MigrationOptions::default(), |so_far| {
///     println!("{} entries of {} peers", so_far.entries, so_far.peers);
/// })
/// .await?;
/// println!("{} written, {} of them unreadable", report.written, report.undecodable);
/// # Ok(()) }
/// # futures::executor::block_on(example(Default::default(), Default::default()))?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// When the source cannot be read or the target not be written, with how far it came.
pub async fn migrate(
    from: &dyn Datastore,
    to: &dyn Datastore,
    options: &MigrationOptions,
    mut progress: impl FnMut(&MigrationReport),
) -> Result<MigrationReport, MigrationError> {
    let mut report = MigrationReport::default();
    let (mut batch, mut bytes) = (Batch::default(), 0);
    let mut entries = from.query(&options.prefix);
    while let Some(entry) = entries.next().await {
        let (key, value) = entry.map_err(|source| read_failed(&report, source))?;
        let is_readable = count(&mut report, &key, &value);
        if options.only_readable && !is_readable {
            report.left_out += 1;
            continue;
        }
        let known = to.get(&key).await;
        match known.map_err(|source| read_failed(&report, source))? {
            Some(known) if known == value => report.unchanged += 1,
            Some(_) if options.keep_existing => report.kept += 1,
            _ => {
                bytes += key.len() + value.len();
                batch.put(key, value);
            }
        }
        if batch.len() >= options.batch.get() || bytes >= options.batch_bytes.get() {
            write(to, &mut batch, &mut report).await?;
            bytes = 0;
            progress(&report);
        }
    }
    write(to, &mut batch, &mut report).await?;
    progress(&report);
    Ok(report)
}

fn read_failed(report: &MigrationReport, source: DatastoreError) -> MigrationError {
    MigrationError::Read {
        report: Box::new(*report),
        source,
    }
}

async fn write(
    to: &dyn Datastore,
    batch: &mut Batch,
    report: &mut MigrationReport,
) -> Result<(), MigrationError> {
    let batch = std::mem::take(batch);
    if batch.is_empty() {
        return Ok(());
    }
    let entries = batch.len();
    let committed = to.commit(batch).await;
    committed.map_err(|source| MigrationError::Commit {
        report: Box::new(*report),
        source,
    })?;
    report.written += entries;
    Ok(())
}

/// Counts an entry. Returns whether a store could read it.
fn count(report: &mut MigrationReport, key: &str, value: &[u8]) -> bool {
    report.entries += 1;
    report.bytes += value.len() as u64;
    let Some(key) = key::parse(key) else {
        report.foreign += 1;
        return false;
    };
    report.peers += usize::from(matches!(key, Key::Addresses(_)));
    let is_readable = persist::read(&key, value).is_ok();
    report.undecodable += usize::from(!is_readable);
    is_readable
}
