//! What happens beside the calls: writing again what a primary took that is gone, and warnings at the start.

use std::{
    collections::HashSet,
    sync::{Weak, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{Shared, failure::Failure, write};

/// How often the primaries are looked at while something was committed lately; after a failure, less and less often.
const WATCH: Duration = Duration::from_secs(1);
const MAX_WATCH: Duration = Duration::from_secs(10);

/// Bytes that are written again at a time.
const REWRITE_BYTES: usize = 1024 * 1024;

/// Looks after what was committed lately for as long as the datastore is there.
pub(super) async fn run(shared: Weak<Shared>) {
    let mut pause = WATCH;
    loop {
        tokio::time::sleep(pause).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        if shared.closed.load(Ordering::Acquire) {
            return;
        }
        pause = match shared.rewrite().await {
            Ok(()) => WATCH,
            Err(failure) => {
                tracing::debug!(error = %failure, "cannot look after what was committed lately");
                (2 * pause).min(MAX_WATCH)
            }
        };
    }
}

impl Shared {
    /// Looks whether other processes have become primaries, and writes again what those before them took.
    async fn rewrite(&self) -> Result<(), Failure> {
        if self.recent.lock().await.is_empty() {
            return Ok(());
        }
        let primaries = self.nodes.primaries().await?;
        let mut recent = self.recent.lock().await;
        let mut rewritten = HashSet::new();
        let mut failure = primaries.failure.clone();
        loop {
            // Who does not answer is asked again the next time.
            let may_be_primary = |slot, run_id: &str| {
                rewritten.contains(&slot) || primaries.of(slot).is_none_or(|now| now == run_id)
            };
            let mut stale = recent.stale(may_be_primary, REWRITE_BYTES);
            if stale.is_empty() {
                break;
            }
            let written =
                write::write(&self.nodes, &stale, Duration::ZERO, self.config.wait()).await;
            rewritten.extend(stale.keys().copied());
            stale.retain(|slot, _| written.done.contains_key(slot));
            recent.add(
                stale,
                &written.done,
                Instant::now(),
                self.config.rewrite_memory,
            );
            if !written.done.is_empty() {
                tracing::info!(
                    slots = written.done.len(),
                    "wrote again what was committed lately: the primary had been replaced, or had failed"
                );
            }
            if written.failure.is_some() {
                failure = written.failure;
                break;
            }
        }
        recent.forget(
            |slot, run_id| primaries.of(slot) == Some(run_id),
            Instant::now(),
        );
        failure.map_or(Ok(()), Err)
    }

    /// Warns of what makes less of a commit than it should be.
    pub(super) async fn warn_of_settings(&self, is_cluster: bool) {
        let topology = self.nodes.topology();
        let Some(node) = topology.primaries().into_iter().next() else {
            return;
        };
        let names = ["appendonly", "appendfsync", "maxmemory-policy"];
        let [log, sync, eviction] = self.nodes.settings(&node, names).await;
        let location = &self.location;
        match (log.as_deref(), sync.as_deref()) {
            _ if is_cluster => {}
            (Some("yes"), Some("always")) => {}
            (Some("yes"), Some(sync)) => tracing::warn!(
                location,
                "what was committed in the last moments can be lost when the server crashes: `appendfsync` is \
                 `{sync}`; with `always` it is not"
            ),
            (Some(_), _) => tracing::warn!(
                location,
                "what was committed since the last snapshot is lost when the server crashes: `appendonly` is off; \
                 with `appendonly yes` and `appendfsync always` it is not"
            ),
            (None, _) => tracing::info!(location, "the server does not tell how durable it is"),
        }
        if let Some(policy) = eviction.filter(|policy| policy.starts_with("allkeys")) {
            tracing::warn!(
                location,
                "the server drops peers when its memory is full: `maxmemory-policy` is `{policy}`; set `noeviction`"
            );
        }
    }
}
