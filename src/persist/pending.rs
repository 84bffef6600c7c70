//! What is not saved yet, and when it is due. Lives under the store's lock; does nothing by itself.

use std::{
    collections::{BTreeSet, HashMap, HashSet, hash_map::Entry},
    sync::Arc,
    task::Waker,
    time::Duration,
};

use futures::channel::oneshot;
use libp2p_identity::PeerId;

use crate::{config::Config, datastore::DatastoreError, record::Books};

/// The pause after a failed commit: doubled by each further failure, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// More changed metadata keys of one peer than this are not listed: all its metadata is written anew.
const MAX_LISTED_KEYS: usize = 256;

/// What of one peer must be written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Change {
    pub(crate) books: Books,
    /// The metadata keys that changed or went.
    pub(crate) metadata: BTreeSet<String>,
    /// Everything of the peer goes first, also what is not in memory; then what the record holds is written.
    pub(crate) purge: bool,
    /// Whether the change asks for a commit. Others ride with the next one.
    hard: bool,
}

impl Change {
    fn merge(&mut self, other: Change) {
        self.books |= other.books;
        self.metadata.extend(other.metadata);
        self.purge |= other.purge;
        self.hard |= other.hard;
        if self.metadata.len() > MAX_LISTED_KEYS {
            self.metadata.clear();
            self.purge = true;
        }
    }
}

/// How many peers have changes that are not saved, and why the last attempt failed.
#[derive(Debug, Clone)]
pub(crate) struct Unsaved {
    pub(crate) peers: usize,
    pub(crate) error: Arc<DatastoreError>,
}

/// Told when everything that was dirty at its call is written, or was tried.
pub(crate) type Waiter = oneshot::Sender<Result<(), Unsaved>>;

/// What one round of the engine is about.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) changes: Vec<(PeerId, Change)>,
    /// Who waits for these changes to be written.
    pub(crate) waiters: Vec<Waiter>,
    /// Whether the datastore is to be closed afterwards.
    pub(crate) closing: bool,
}

/// What the engine does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Commit,
    /// Not before this moment, in the clock's elapsed time.
    At(Duration),
    /// Not before something changes.
    Idle,
}

#[derive(Debug)]
pub(crate) struct Pending {
    persistent: bool,
    threshold: usize,
    min_interval: Duration,
    max_delay: Duration,
    /// Every peer in memory, and as many again that are gone.
    max_dirty: usize,
    dirty: HashMap<PeerId, Change>,
    /// How many of the dirty peers ask for a commit.
    hard: usize,
    /// Since when one of them does.
    oldest: Duration,
    /// Peers in the commit that is under way, which may be dirty again.
    in_flight: HashSet<PeerId>,
    last_commit: Option<Duration>,
    /// The pause that a failure made, and its end.
    pause: Option<(Duration, Duration)>,
    waiters: Vec<Waiter>,
    closing: bool,
    closed: bool,
    written_after_close: bool,
    told_of_writes_after_close: bool,
    engine: Option<Waker>,
    signal: bool,
}

impl Pending {
    pub(crate) fn new(config: &Config, persistent: bool) -> Self {
        Self {
            persistent,
            threshold: config.commit_threshold().get(),
            min_interval: config.min_commit_interval(),
            max_delay: config.max_commit_delay(),
            max_dirty: config.max_peers().get().saturating_mul(2),
            dirty: HashMap::new(),
            hard: 0,
            oldest: Duration::ZERO,
            in_flight: HashSet::new(),
            last_commit: None,
            pause: None,
            waiters: Vec::new(),
            closing: false,
            closed: false,
            written_after_close: false,
            told_of_writes_after_close: false,
            engine: None,
            signal: false,
        }
    }

    // --- marking -------------------------------------------------------------------------------------------

    /// Notes that books of a peer must be written: `save` soon, `later` with the next commit.
    pub(crate) fn mark(
        &mut self,
        peer: PeerId,
        save: Books,
        later: Books,
        metadata: Vec<String>,
        now: Duration,
    ) {
        let change = Change {
            books: save | later,
            metadata: metadata.into_iter().collect(),
            purge: false,
            hard: !save.is_empty(),
        };
        self.add(peer, change, now);
    }

    /// Notes that nothing of the peer stays on disk, except what is marked afterwards.
    pub(crate) fn purge(&mut self, peer: PeerId, now: Duration) {
        self.forget(&peer);
        let change = Change {
            purge: true,
            hard: true,
            ..Change::default()
        };
        self.add(peer, change, now);
    }

    /// As [`Pending::purge`], for a peer that made room. While the datastore refuses everything, strangers could
    /// pile up such purges without end: beyond the bound the entry stays on disk, where it is a peer too many.
    pub(crate) fn purge_evicted(&mut self, peer: PeerId, now: Duration) {
        if self.dirty.len() < self.max_dirty || self.dirty.contains_key(&peer) {
            self.purge(peer, now);
        }
    }

    /// Notes that a peer went of which nothing was ever written.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        if let Entry::Occupied(entry) = self.dirty.entry(*peer)
            && !entry.get().purge
        {
            self.hard -= usize::from(entry.remove().hard);
        }
    }

    fn add(&mut self, peer: PeerId, change: Change, now: Duration) {
        if !self.persistent {
            return;
        }
        if self.closed {
            self.written_after_close = true;
            return;
        }
        let kept = self.dirty.entry(peer).or_default();
        let was_hard = kept.hard;
        kept.merge(change);
        if kept.hard && !was_hard {
            if self.hard == 0 {
                self.oldest = now;
            }
            self.hard += 1;
            // The engine sets its clock at the first one, and need not know of those before the threshold.
            self.signal |= self.hard == 1 || self.hard == self.threshold;
        }
    }

    /// Whether something changed that the datastore did not get before it was closed; says so once.
    pub(crate) fn take_written_after_close(&mut self) -> bool {
        self.written_after_close && !std::mem::replace(&mut self.told_of_writes_after_close, true)
    }

    // --- asking --------------------------------------------------------------------------------------------

    /// Asks for everything to be written; with `close`, for the datastore to be closed afterwards.
    pub(crate) fn ask(&mut self, waiter: Option<Waiter>, close: bool) {
        self.waiters.extend(waiter);
        self.closing |= close;
        self.signal = true;
    }

    pub(crate) fn is_persistent(&self) -> bool {
        self.persistent
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Peers with changes that are not on disk for certain.
    pub(crate) fn unsaved(&self) -> usize {
        let dirty = self.dirty.keys();
        self.in_flight.len() + dirty.filter(|peer| !self.in_flight.contains(peer)).count()
    }

    pub(crate) fn take_waker(&mut self) -> Option<Waker> {
        if std::mem::take(&mut self.signal) {
            self.engine.take()
        } else {
            None
        }
    }

    // --- the engine's side ---------------------------------------------------------------------------------

    /// Notes whom to wake; returns whom it was before, for the caller to drop without the lock.
    pub(crate) fn set_engine(&mut self, waker: Waker) -> Option<Waker> {
        self.engine.replace(waker)
    }

    /// When the next commit is due.
    pub(crate) fn due(&self, now: Duration) -> Due {
        if !self.waiters.is_empty() || self.closing {
            return Due::Commit;
        }
        if self.hard == 0 {
            return Due::Idle;
        }
        let by_age = self.oldest.saturating_add(self.max_delay);
        let earliest = self.last_commit.map_or(Duration::ZERO, |last| {
            last.saturating_add(self.min_interval)
        });
        let at = match self.pause {
            // What failed is tried again, however few peers it is.
            Some((_, end)) => end.max(earliest),
            None if self.hard >= self.threshold => earliest.min(by_age),
            None => by_age,
        };
        if at <= now { Due::Commit } else { Due::At(at) }
    }

    /// Hands everything that is dirty to the engine, with those who wait for it. What changes from now on is
    /// for the next commit.
    pub(crate) fn begin(&mut self) -> Begun {
        let dirty = std::mem::take(&mut self.dirty);
        self.hard = 0;
        self.in_flight = dirty.keys().copied().collect();
        Begun {
            changes: dirty.into_iter().collect(),
            waiters: std::mem::take(&mut self.waiters),
            closing: self.closing,
        }
    }

    /// These peers of the commit under way are on disk.
    pub(crate) fn committed(&mut self, part: &[(PeerId, Change)]) {
        for (peer, _) in part {
            self.in_flight.remove(peer);
        }
    }

    /// The commit is over; what it did not write is dirty again. Returns how many peers are unsaved.
    pub(crate) fn end(
        &mut self,
        rest: Vec<(PeerId, Change)>,
        failed: bool,
        now: Duration,
    ) -> usize {
        self.in_flight = HashSet::new();
        self.last_commit = Some(now);
        for (peer, mut change) in rest {
            // Also what only rode along is tried again.
            change.hard = true;
            self.add(peer, change, now);
        }
        self.pause = failed.then(|| {
            let pause = self
                .pause
                .map_or(FIRST_PAUSE, |(pause, _)| (pause * 2).min(LONGEST_PAUSE));
            (pause, now.saturating_add(pause))
        });
        self.unsaved()
    }

    /// The datastore is closed: from now on changes stay in memory. Returns those who still wait, and whom there
    /// is no need to wake any longer, for the caller to drop without the lock.
    pub(crate) fn close(&mut self) -> (Vec<Waiter>, Option<Waker>) {
        self.closed = true;
        self.written_after_close |= !self.dirty.is_empty();
        (std::mem::take(&mut self.waiters), self.engine.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pending() -> Pending {
        Pending::new(&Config::default(), true)
    }

    fn mark(pending: &mut Pending, now: Duration) -> PeerId {
        let peer = PeerId::random();
        pending.mark(peer, Books::ADDRESSES, Books::empty(), Vec::new(), now);
        peer
    }

    #[test]
    fn below_the_threshold_a_change_waits_for_the_maximum_delay() {
        let mut pending = pending();
        mark(&mut pending, SECOND);
        mark(&mut pending, SECOND * 5);
        assert_eq!(pending.due(SECOND * 5), Due::At(SECOND * 31));
        assert_eq!(pending.due(SECOND * 31), Due::Commit);
    }

    #[test]
    fn the_threshold_counts_peers_and_not_changes() {
        let mut pending = pending();
        let peer = mark(&mut pending, SECOND);
        for _ in 0..10 {
            pending.mark(peer, Books::PROTOCOLS, Books::empty(), Vec::new(), SECOND);
        }
        assert_ne!(pending.due(SECOND), Due::Commit);
        (0..4).for_each(|_| {
            mark(&mut pending, SECOND);
        });
        assert_eq!(pending.due(SECOND), Due::Commit);
    }

    #[test]
    fn commits_of_the_threshold_keep_their_distance() {
        let mut pending = pending();
        pending.end(Vec::new(), false, SECOND);
        (0..50).for_each(|_| {
            mark(&mut pending, SECOND);
        });
        assert_eq!(pending.due(SECOND), Due::At(SECOND * 2));
        assert_eq!(pending.due(SECOND * 2), Due::Commit);
    }

    #[test]
    fn small_print_never_starts_a_commit() {
        let mut pending = pending();
        for _ in 0..100 {
            pending.mark(
                PeerId::random(),
                Books::empty(),
                Books::ADDRESSES,
                Vec::new(),
                SECOND,
            );
        }
        assert_eq!(pending.due(SECOND * 1_000_000), Due::Idle);
        assert_eq!(pending.begin().changes.len(), 100);
    }

    #[test]
    fn the_pause_after_failures_grows_and_ends_with_success() {
        let mut pending = pending();
        let mut now = SECOND;
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            (0..5).for_each(|_| {
                mark(&mut pending, now);
            });
            let rest = pending.begin().changes;
            pending.end(rest, true, now);
            // The longest pause is longer than the maximum delay, and still the retry waits for it.
            assert_eq!(pending.due(now), Due::At(now + SECOND * pause));
            now += SECOND * pause;
            assert_eq!(pending.due(now), Due::Commit);
        }
        pending.begin();
        pending.end(Vec::new(), false, now);
        (0..5).for_each(|_| {
            mark(&mut pending, now);
        });
        assert_eq!(pending.due(now), Due::At(now + SECOND));
    }

    #[test]
    fn a_peer_that_was_never_written_costs_no_delete() {
        let mut pending = pending();
        let peer = mark(&mut pending, SECOND);
        pending.forget(&peer);
        assert_eq!(pending.unsaved(), 0);
        assert_eq!(pending.due(SECOND * 100), Due::Idle);
    }

    #[test]
    fn a_purge_outlives_what_is_marked_and_forgotten_after_it() {
        let mut pending = pending();
        let peer = PeerId::random();
        pending.purge(peer, SECOND);
        pending.mark(peer, Books::ADDRESSES, Books::empty(), Vec::new(), SECOND);
        pending.forget(&peer);
        assert!(pending.begin().changes[0].1.purge);
    }
}
