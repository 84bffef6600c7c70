//! What is counted under the store's lock: plain numbers, each next to what it counts.

use crate::{
    address::Standing,
    event::Cause,
    history::{Flags, History},
    record::Books,
};

/// What an event tells of, with its name in the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happened {
    PeerAdded,
    AddressesChanged,
    ProtocolsChanged,
    PublicKeyKnown,
    MetadataChanged,
    TagsChanged,
    LatencyChanged,
    PeerRemoved,
}

impl Happened {
    pub(crate) const ALL: [Self; 8] = [
        Self::PeerAdded,
        Self::AddressesChanged,
        Self::ProtocolsChanged,
        Self::PublicKeyKnown,
        Self::MetadataChanged,
        Self::TagsChanged,
        Self::LatencyChanged,
        Self::PeerRemoved,
    ];
}

/// The books, and the event that each makes. Metadata makes one for each key.
const CHANGES: [(Books, Happened); 5] = [
    (Books::ADDRESSES, Happened::AddressesChanged),
    (Books::PROTOCOLS, Happened::ProtocolsChanged),
    (Books::KEY, Happened::PublicKeyKnown),
    (Books::TAGS, Happened::TagsChanged),
    (Books::LATENCY, Happened::LatencyChanged),
];

/// All causes but the last one, [`Cause::Datastore`], of which nothing changes.
pub(super) const CAUSES: usize = Cause::Datastore as usize;

/// The events so far, whether anybody reads them or not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts([[u64; CAUSES]; Happened::ALL.len()]);

impl Counts {
    pub(crate) fn count(&mut self, what: Happened, cause: Cause) {
        self.add(what, cause, 1);
    }

    /// Counts what [`State::finish`](crate::state::State) makes events of: the books that changed, and so many keys.
    pub(crate) fn changed(&mut self, books: Books, metadata: usize, cause: Cause) {
        for (book, what) in CHANGES {
            self.add(what, cause, u64::from(books.contains(book)));
        }
        self.add(Happened::MetadataChanged, cause, metadata as u64);
    }

    pub(crate) fn get(&self, what: Happened, cause: Cause) -> u64 {
        let causes = &self.0[what as usize];
        causes.get(cause as usize).copied().unwrap_or_default()
    }

    fn add(&mut self, what: Happened, cause: Cause, times: u64) {
        if let Some(count) = self.0[what as usize].get_mut(cause as usize) {
            *count = count.wrapping_add(times);
        }
    }
}

/// How many addresses there are, by standing.
///
/// What a record says of itself is enough for that: when a proof becomes too old, or an address is no longer in use,
/// its record is looked at, and says so from then on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Standings([u64; 4]);

impl Standings {
    pub(crate) fn join(&mut self, histories: impl Iterator<Item = History>) {
        for history in histories {
            let count = &mut self.0[standing(&history) as usize];
            *count = count.wrapping_add(1);
        }
    }

    pub(crate) fn leave(&mut self, histories: impl Iterator<Item = History>) {
        for history in histories {
            let count = &mut self.0[standing(&history) as usize];
            *count = count.wrapping_sub(1);
        }
    }

    pub(crate) fn get(&self, standing: Standing) -> u64 {
        self.0[standing as usize]
    }
}

/// As [`Rules::standing`](crate::record::Rules), once what is due has been collected; but what the peer told itself, too,
/// counts as self-told until it is forgotten.
fn standing(history: &History) -> Standing {
    match history.flags.contains(Flags::IN_USE) || history.is_dialled() {
        true => Standing::Proven,
        false => history.told(),
    }
}

/// One number.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally(u64);

impl Tally {
    pub(crate) fn add(&mut self, times: u64) {
        self.0 = self.0.wrapping_add(times);
    }

    pub(crate) fn get(self) -> u64 {
        self.0
    }
}
