//! What the log says of saving at `info` and above: a few lines that tell how it goes, however much is saved.

use std::time::Duration;

use super::Unsaved;

/// A node that learns all the time saves each second: at `info` that is one line in so long.
const TOLD_EVERY: Duration = Duration::from_secs(10 * 60);

/// What was told, and what was not yet.
#[derive(Debug, Default)]
pub(super) struct Story {
    told_at: Option<Duration>,
    /// Peers and commits since then.
    untold: (usize, usize),
    /// Since when the datastore refuses, and how often it did.
    failing: Option<(Duration, usize)>,
}

impl Story {
    /// Everything that was dirty was tried, and so many peers were saved. An outage is told once, at its begin, and its
    /// end once.
    pub(super) fn tried(&mut self, saved: usize, outcome: &Result<(), Unsaved>, now: Duration) {
        self.untold.0 += saved;
        self.untold.1 += usize::from(saved > 0);
        match (outcome, self.failing) {
            (Ok(()), None) => self.saved(saved, now),
            // What had nothing to write proves nothing.
            (Ok(()), Some(_)) if saved == 0 => {}
            (Ok(()), Some((since, failures))) => {
                tracing::info!(
                    peers = saved,
                    failures,
                    elapsed = ?now.saturating_sub(since),
                    "the datastore works again: saved peers"
                );
                (self.failing, self.untold, self.told_at) = (None, (0, 0), Some(now));
            }
            (Err(Unsaved { peers, error }), None) => {
                tracing::warn!(
                    unsaved = peers,
                    error = &**error as &dyn std::error::Error,
                    "could not save peers; nothing is lost, it will be tried again"
                );
                self.failing = Some((now, 1));
            }
            (Err(Unsaved { peers, error }), Some((since, failures))) => {
                tracing::debug!(
                    unsaved = peers,
                    failures = failures + 1,
                    error = &**error as &dyn std::error::Error,
                    "still could not save peers"
                );
                self.failing = Some((since, failures + 1));
            }
        }
    }

    fn saved(&mut self, saved: usize, now: Duration) {
        if saved == 0 {
            return;
        }
        let is_due = |at: Duration| now.saturating_sub(at) >= TOLD_EVERY;
        if self.told_at.is_none_or(is_due) {
            let (peers, commits) = std::mem::take(&mut self.untold);
            tracing::info!(peers, commits, "saved peers");
            self.told_at = Some(now);
        } else {
            tracing::debug!(peers = saved, "saved peers");
        }
    }

    /// The datastore is closed after a last attempt, in which so many peers were saved.
    pub(super) fn closed(saved: usize, known: usize, outcome: &Result<(), Unsaved>) {
        match outcome {
            Ok(()) => tracing::info!(saved, peers = known, "the peer store is shut down"),
            Err(Unsaved { peers, error }) => tracing::warn!(
                saved,
                unsaved = peers,
                error = &**error as &dyn std::error::Error,
                "the peer store is shut down, and could not save everything"
            ),
        }
    }
}
