//! What is not saved yet, and when it is due. Lives under the store's lock; does nothing by itself.

use std::{borrow::Cow, sync::Arc, task::Waker, time::Duration};

use futures::channel::oneshot;
use libp2p_identity::PeerId;

use super::{
    change::{Change, Unwritten},
    dirty::{Changes, Dirty, InFlight, Slots},
};
use crate::{
    clock::Timestamp, compact::Packed, config::Config, datastore::DatastoreError, record::Books,
};

/// The pause after a failed commit: doubled by each further failure, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

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
    pub(crate) changes: Changes,
    /// Slots of records that say themselves what of them is not saved.
    pub(crate) records: Slots,
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
    /// Twice as many as may be in memory.
    max_evicted: usize,
    dirty: Dirty,
    /// How many of the dirty peers made room, or expired.
    evicted: usize,
    /// What most changes are: records that say themselves what of them is not saved, by slot. Some may be gone.
    records: Slots,
    /// How many records say so.
    marked: usize,
    /// How many of the dirty peers ask for a commit.
    hard: usize,
    /// Since when one of them does.
    oldest: Duration,
    /// What is in the commit that is under way, and may be dirty again.
    in_flight: InFlight,
    last_commit: Option<Duration>,
    /// The pause that a failure made, and its end.
    pause: Option<(Duration, Duration)>,
    waiters: Vec<Waiter>,
    closing: bool,
    closed: bool,
    written_after_close: bool,
    told_of_writes_after_close: bool,
    engine: Option<Waker>,
    /// When the engine wakes for what expires; `None` for never.
    expiry_alarm: Option<Timestamp>,
    signal: bool,
}

impl Pending {
    pub(crate) fn new(config: &Config, persistent: bool) -> Self {
        Self {
            persistent,
            threshold: config.commit_threshold().get(),
            min_interval: config.min_commit_interval(),
            max_delay: config.max_commit_delay(),
            max_evicted: config.max_peers().get().saturating_mul(2),
            dirty: Dirty::default(),
            evicted: 0,
            records: Slots::default(),
            marked: 0,
            hard: 0,
            oldest: Duration::ZERO,
            in_flight: InFlight::default(),
            last_commit: None,
            pause: None,
            waiters: Vec::new(),
            closing: false,
            closed: false,
            written_after_close: false,
            told_of_writes_after_close: false,
            engine: None,
            expiry_alarm: None,
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
            metadata: metadata.into_iter().map(Cow::Owned).collect(),
            hard: !save.is_empty(),
            ..Change::default()
        };
        self.add(peer, change, now);
    }

    /// As [`Pending::mark`], in the record itself. `false` when that cannot hold it: then what the record says is to be
    /// taken with [`Pending::take_record`], and marked too.
    pub(crate) fn mark_record(
        &mut self,
        slot: u32,
        peer: &PeerId,
        packed: &mut Packed,
        (save, later): (Books, Books),
        metadata: &[String],
        now: Duration,
    ) -> bool {
        if !self.persistent || self.closed || self.dirty.contains(peer) {
            return false;
        }
        let before = Unwritten::from_bits_retain(packed.dirty());
        let mut unwritten = before | Unwritten::from_bits_truncate((save | later).bits() & 0b111);
        for key in metadata {
            let Some(flag) = Unwritten::of_key(key) else {
                return false;
            };
            unwritten |= flag;
        }
        let hard = !save.is_empty() && !before.contains(Unwritten::HARD);
        if hard {
            unwritten |= Unwritten::HARD;
            self.count_hard(now);
        }
        packed.set_dirty(unwritten.bits());
        if before.is_empty() && !unwritten.is_empty() {
            self.marked += 1;
            self.records.insert(slot);
        }
        true
    }

    /// Takes out what a record says of itself.
    pub(crate) fn take_record(&mut self, packed: &mut Packed) -> Option<Change> {
        let unwritten = Unwritten::from_bits_retain(packed.dirty());
        if unwritten.is_empty() {
            return None;
        }
        packed.set_dirty(0);
        self.marked -= 1;
        Some(unwritten.into_change())
    }

    /// Notes what was taken out of a record.
    pub(crate) fn mark_taken(&mut self, peer: PeerId, change: Change, now: Duration) {
        self.add(peer, change, now);
    }

    /// Notes that nothing of the peer stays on disk, except what is marked afterwards.
    pub(crate) fn purge(&mut self, peer: PeerId, now: Duration) {
        self.purge_for(peer, false, now);
    }

    fn purge_for(&mut self, peer: PeerId, evicted: bool, now: Duration) {
        self.forget(&peer);
        let change = Change {
            purge: true,
            hard: true,
            evicted,
            ..Change::default()
        };
        self.add(peer, change, now);
    }

    /// As [`Pending::purge`], for a peer that made room, or expired. While the datastore refuses everything, strangers
    /// could pile up such purges without end: beyond the bound the entry stays on disk, where it is a peer too many. And
    /// so it does after the end: that is no change that anybody made.
    pub(crate) fn purge_evicted(&mut self, peer: PeerId, now: Duration) {
        if !self.closed && (self.evicted < self.max_evicted || self.dirty.contains(&peer)) {
            self.purge_for(peer, true, now);
        }
    }

    /// Notes that a peer went of which nothing was ever written.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        if self.dirty.get_mut(peer).is_some_and(|change| !change.purge)
            && let Some(change) = self.dirty.remove(peer)
        {
            self.hard -= usize::from(change.hard);
            self.evicted -= usize::from(change.evicted);
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
        let kept = self.dirty.get_or_insert(peer);
        let (was_hard, was_evicted) = (kept.hard, kept.evicted);
        kept.merge(change);
        self.evicted += usize::from(kept.evicted && !was_evicted);
        if kept.hard && !was_hard {
            self.count_hard(now);
        }
    }

    fn count_hard(&mut self, now: Duration) {
        if self.hard == 0 {
            self.oldest = now;
        }
        self.hard += 1;
        // The engine sets its clock at the first one, and need not know of those before the threshold.
        self.signal |= self.hard == 1 || self.hard == self.threshold;
    }

    /// Whether something changed that the datastore did not get before it was closed; says so once.
    pub(crate) fn take_written_after_close(&mut self) -> bool {
        self.written_after_close && !std::mem::replace(&mut self.told_of_writes_after_close, true)
    }

    // --- asking --------------------------------------------------------------------------------------------

    /// Asks for everything to be written; with `close`, for the datastore to be closed afterwards. Returns those who
    /// have given up meanwhile, for the caller to drop without the lock.
    #[must_use]
    pub(crate) fn ask(&mut self, waiter: Option<Waiter>, close: bool) -> Vec<Waiter> {
        self.closing |= close;
        self.signal = true;
        let mut gone = Vec::new();
        // Now and then: while a datastore hangs, one flush after the other may end by its deadline.
        if self.waiters.len() == self.waiters.capacity() {
            gone.extend(self.waiters.extract_if(.., |waiter| waiter.is_canceled()));
        }
        self.waiters.extend(waiter);
        gone
    }

    /// Whether somebody waits for the next commit.
    pub(crate) fn is_asked(&self) -> bool {
        !self.waiters.is_empty()
    }

    pub(crate) fn is_persistent(&self) -> bool {
        self.persistent
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether everything is on disk that was ever changed, before the end and after it.
    pub(crate) fn is_saved(&self) -> bool {
        !self.written_after_close && self.unsaved() == 0
    }

    /// Peers with changes that are not on disk for certain.
    pub(crate) fn unsaved(&self) -> usize {
        // Those who are on both sides, counted from the smaller one.
        let again = if self.dirty.len < self.in_flight.peers.len() {
            let dirty = self.dirty.peers();
            dirty.filter(|peer| self.in_flight.contains(peer)).count()
        } else {
            let rest = self.in_flight.rest();
            rest.filter(|peer| self.dirty.contains(peer)).count()
        };
        self.in_flight.rest + self.marked + self.dirty.len - again
    }

    /// Who is in the commit under way and not on disk yet, and may be marked in a record again.
    pub(crate) fn in_flight(&self) -> impl Iterator<Item = &PeerId> + '_ {
        let marked = self.marked > 0;
        self.in_flight.rest().take_while(move |_| marked)
    }

    /// Peers with changes that wait for a commit.
    #[cfg(feature = "metrics")]
    pub(crate) fn dirty(&self) -> usize {
        self.marked + self.dirty.len
    }

    /// Peers in the commit that is under way.
    #[cfg(feature = "metrics")]
    pub(crate) fn committing(&self) -> usize {
        self.in_flight.rest
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

    /// Notes when the engine wakes for what expires.
    pub(crate) fn set_expiry_alarm(&mut self, at: Option<Timestamp>) {
        self.expiry_alarm = at;
    }

    /// Something expires at this moment: the engine is told if it would sleep for longer.
    pub(crate) fn note_expiry(&mut self, next: impl FnOnce() -> Option<Timestamp>) {
        if self.engine.is_some()
            && let Some(next) = next()
            && self.expiry_alarm.is_none_or(|alarm| next < alarm)
        {
            self.signal = true;
        }
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
        (self.hard, self.evicted) = (0, 0);
        self.in_flight = InFlight {
            rest: dirty.len,
            ..InFlight::default()
        };
        Begun {
            changes: Changes(dirty),
            records: std::mem::take(&mut self.records),
            waiters: std::mem::take(&mut self.waiters),
            closing: self.closing,
        }
    }

    /// One more is in the commit under way, before it is said who.
    pub(crate) fn in_flight_too(&mut self) {
        self.in_flight.rest += 1;
    }

    /// What of a peer was marked since the commit under way took it; it stays marked.
    pub(crate) fn marked_since(&self, peer: &PeerId, packed: Option<&Packed>) -> Change {
        let mut since = self.dirty.get(peer).cloned().unwrap_or_default();
        let unwritten = packed.map_or(0, Packed::dirty);
        if unwritten != 0 {
            since.merge(Unwritten::from_bits_retain(unwritten).into_change());
        }
        since
    }

    /// Takes in who is in the commit under way: worked out by the engine, as it takes long for many.
    pub(crate) fn set_in_flight(&mut self, in_flight: InFlight) {
        self.in_flight = in_flight;
    }

    /// The next part of the commit under way, of so many peers, is on disk.
    pub(crate) fn committed(&mut self, peers: usize) {
        self.in_flight.committed += 1;
        self.in_flight.rest -= peers.min(self.in_flight.rest);
    }

    /// Some of what the commit under way did not write is dirty again.
    pub(crate) fn give_back(&mut self, unwritten: Vec<(PeerId, Change)>, now: Duration) {
        for (peer, mut change) in unwritten {
            // As many others may have made room meanwhile.
            let is_gone = change.evicted && change.books.is_empty();
            if is_gone && self.evicted >= self.max_evicted && !self.dirty.contains(&peer) {
                continue;
            }
            // Also what only rode along is tried again.
            change.hard = true;
            self.add(peer, change, now);
        }
    }

    /// Records of the commit under way that it did not come to.
    pub(crate) fn give_back_records(&mut self, slots: &[u32], now: Duration) {
        if slots.is_empty() {
            return;
        }
        self.records.extend(slots);
        // Also what only rode along is tried again.
        self.count_hard(now);
    }

    /// The commit is over, and what it did not write is given back. Returns how many peers are unsaved, and what
    /// the caller is to drop without the lock.
    pub(crate) fn end(&mut self, failed: bool, now: Duration) -> (usize, InFlight) {
        let in_flight = std::mem::take(&mut self.in_flight);
        self.last_commit = Some(now);
        self.pause = failed.then(|| {
            let pause = self
                .pause
                .map_or(FIRST_PAUSE, |(pause, _)| (pause * 2).min(LONGEST_PAUSE));
            (pause, now.saturating_add(pause))
        });
        (self.unsaved(), in_flight)
    }

    /// The datastore is closed: from now on changes stay in memory. Returns those who still wait, and whom there
    /// is no need to wake any longer, for the caller to drop without the lock.
    pub(crate) fn close(&mut self) -> (Vec<Waiter>, Option<Waker>) {
        self.closed = true;
        self.written_after_close |= self.dirty.len + self.marked > 0;
        (std::mem::take(&mut self.waiters), self.engine.take())
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pending() -> Pending {
        Pending::new(&Config::default(), true)
    }

    fn begun(pending: &mut Pending) -> Vec<(PeerId, Change)> {
        pending.begin().changes.into_vec()
    }

    #[test]
    fn a_peer_that_changes_again_during_its_commit_is_unsaved_once() {
        let mut pending = pending();
        let peers: Vec<PeerId> = (0..4).map(|_| mark(&mut pending, SECOND)).collect();
        let changes = begun(&mut pending);
        assert_eq!(pending.unsaved(), 4);
        pending.set_in_flight(InFlight::new(&changes, 2));
        for peer in &peers {
            pending.mark(*peer, Books::KEY, Books::empty(), Vec::new(), SECOND);
        }
        assert_eq!(pending.unsaved(), 4);
        pending.committed(2);
        assert_eq!(pending.unsaved(), 4, "those on disk have changed again");
        let first: Vec<PeerId> = changes[..2].iter().map(|(peer, _)| *peer).collect();
        for peer in &first {
            pending.forget(peer);
        }
        assert_eq!(pending.unsaved(), 2);
        pending.give_back(changes.into_iter().skip(2).collect(), SECOND);
        assert_eq!(pending.end(true, SECOND).0, 2);
    }

    #[test]
    fn who_is_dirty_and_in_flight_counts_once_whichever_are_more() {
        for (in_flight, again, more) in [(10, 3, 0), (10, 3, 40), (3, 3, 1), (40, 0, 1)] {
            let mut pending = pending();
            let peers: Vec<PeerId> = (0..in_flight).map(|_| mark(&mut pending, SECOND)).collect();
            let changes = begun(&mut pending);
            pending.set_in_flight(InFlight::new(&changes, 100));
            for peer in &peers[..again] {
                pending.mark(*peer, Books::KEY, Books::empty(), Vec::new(), SECOND);
            }
            (0..more).for_each(|_| _ = mark(&mut pending, SECOND));
            assert_eq!(pending.unsaved(), in_flight + more);
            pending.committed(in_flight);
            assert_eq!(pending.unsaved(), again + more);
            assert_eq!(pending.end(false, SECOND).0, again + more);
        }
    }

    #[test]
    fn those_who_gave_up_waiting_do_not_pile_up() {
        let mut pending = pending();
        let (sender, patient) = oneshot::channel();
        drop(pending.ask(Some(sender), false));
        for _ in 0..10_000 {
            drop(pending.ask(Some(oneshot::channel().0), false));
        }
        assert!(pending.waiters.capacity() < 100);
        for waiter in pending.begin().waiters {
            drop(waiter.send(Ok(())));
        }
        assert!(futures::executor::block_on(patient).is_ok());
    }

    fn mark(pending: &mut Pending, now: Duration) -> PeerId {
        let peer = PeerId::random();
        pending.mark(peer, Books::ADDRESSES, Books::empty(), Vec::new(), now);
        peer
    }

    #[test]
    fn a_slot_that_one_fresh_peer_after_the_other_is_given_is_noted_once() {
        let mut pending = pending();
        for slot in [70, 3, 64, 3, 70, 0].repeat(1_000) {
            pending.records.insert(slot);
        }
        assert_eq!(pending.records.0.len(), 2);
        let begun = pending.begin().records.into_vec();
        assert_eq!(begun, [0, 3, 64, 70]);
        assert_eq!(pending.records, Slots::default());
        pending.records.insert(1);
        pending.give_back_records(&begun, SECOND);
        assert_eq!(pending.begin().records.into_vec(), [0, 1, 3, 64, 70]);
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
        pending.end(false, SECOND);
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
        assert_eq!(begun(&mut pending).len(), 100);
    }

    #[test]
    fn the_pause_after_failures_grows_and_ends_with_success() {
        let mut pending = pending();
        let mut now = SECOND;
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            (0..5).for_each(|_| {
                mark(&mut pending, now);
            });
            let rest = begun(&mut pending);
            pending.give_back(rest, now);
            pending.end(true, now);
            // The longest pause is longer than the maximum delay, and still the retry waits for it.
            assert_eq!(pending.due(now), Due::At(now + SECOND * pause));
            now += SECOND * pause;
            assert_eq!(pending.due(now), Due::Commit);
        }
        pending.begin();
        pending.end(false, now);
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
    fn what_made_room_is_bounded_whatever_was_deleted_on_demand() {
        let config = Config::default().with_max_peers(NonZeroUsize::MIN);
        let mut pending = Pending::new(&config, true);
        let asked: Vec<PeerId> = (0..50).map(|_| PeerId::random()).collect();
        asked.iter().for_each(|peer| pending.purge(*peer, SECOND));
        for round in 0..2 {
            (0..10).for_each(|_| pending.purge_evicted(PeerId::random(), SECOND));
            let changes = begun(&mut pending);
            assert_eq!(changes.len(), 52, "round {round}");
            // While they are in a commit that fails, others may take their place.
            (0..10).for_each(|_| pending.purge_evicted(PeerId::random(), SECOND));
            pending.give_back(changes, SECOND);
            pending.end(true, SECOND);
        }
    }

    #[test]
    fn a_purge_outlives_what_is_marked_and_forgotten_after_it() {
        let mut pending = pending();
        let peer = PeerId::random();
        pending.purge(peer, SECOND);
        pending.mark(peer, Books::ADDRESSES, Books::empty(), Vec::new(), SECOND);
        pending.forget(&peer);
        assert!(begun(&mut pending)[0].1.purge);
    }
}
