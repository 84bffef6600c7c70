//! Going through the records in pages, with the lock released in between.

use std::hash::{BuildHasher, RandomState};

use libp2p_identity::PeerId;

use super::condition::Conditions;
use crate::{
    compact::Bookmark,
    inner::{Inner, PAGE},
    record::Rules,
    view::View,
};

/// How many slots, of 4 bytes each, are copied under one hold of the lock.
const PAGE_OF_SLOTS: usize = 4_096;

/// What is taken of a record under the lock, with the slot in which it lies.
pub(super) type Take<T> = fn(u32, View<'_>, Rules<'_>) -> T;

/// The same with what it needs for that.
type Taking<'a, T> = Box<dyn Fn(u32, View<'_>, Rules<'_>) -> T + Send + 'a>;

/// Where to look.
pub(super) enum Slots {
    All,
    These(Vec<u32>),
    Sorted(Vec<Spot>, Marks),
}

/// A slot, and enough of the peer that was in it to see whether it still is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub(super) slot: u32,
    pub(super) mark: u32,
}

/// Makes marks that nobody foresees.
#[derive(Clone, Default)]
pub(super) struct Marks(RandomState);

impl Marks {
    pub(super) fn of(&self, view: &View<'_>) -> u32 {
        self.0.hash_one(view.packed().id_bytes()) as u32
    }
}

/// The slots of those who can meet the conditions at all. A peer keeps its slot while it is stored.
pub(super) fn candidates(inner: &Inner, conditions: &Conditions) -> Slots {
    if conditions.connected == Some(true) {
        return Slots::These(connected(inner));
    }
    let lists = conditions.speaks.iter();
    let fewest = lists
        .map(|any| speakers(inner, any))
        .min_by_key(|slots| slots.len());
    fewest.map_or(Slots::All, Slots::These)
}

fn connected(inner: &Inner) -> Vec<u32> {
    let ids: Vec<PeerId> = inner.read(|state, _| state.connected_peers().copied().collect());
    let pages = ids.chunks(PAGE).flat_map(|page| {
        inner.read(|state, _| -> Vec<u32> {
            let slots = page.iter().filter_map(|id| state.table.find(id));
            slots.collect()
        })
    });
    let mut slots: Vec<u32> = pages.collect();
    slots.sort_unstable();
    slots
}

/// Those who speak one of the protocols.
fn speakers(inner: &Inner, protocols: &[String]) -> Vec<u32> {
    let mut slots = Vec::new();
    for name in protocols {
        let mut next = Some(Bookmark::START);
        while let Some(from) = next {
            let page;
            (page, next) = inner.read(|state, _| state.table.speakers(name, from, PAGE_OF_SLOTS));
            slots.extend(page);
        }
    }
    slots.sort_unstable();
    slots.dedup();
    slots
}

/// What meets the conditions, a page at a time. A page can be empty.
pub(super) struct Scan<'a, T> {
    inner: &'a Inner,
    conditions: Conditions,
    slots: Slots,
    take: Taking<'a, T>,
    /// The next place to look at.
    at: usize,
    /// What comes while the scan goes on does not prolong it.
    end: Option<usize>,
    skip: usize,
    left: usize,
    /// How many are copied under one hold of the lock.
    piece: usize,
}

impl<'a, T> Scan<'a, T> {
    pub(super) fn new(
        inner: &'a Inner,
        conditions: Conditions,
        slots: Slots,
        take: impl Fn(u32, View<'_>, Rules<'_>) -> T + Send + 'a,
    ) -> Self {
        Self {
            inner,
            conditions,
            slots,
            take: Box::new(take),
            at: 0,
            end: None,
            skip: 0,
            left: usize::MAX,
            piece: PAGE,
        }
    }

    /// Only so many, after the first `offset`.
    pub(super) fn window(mut self, offset: usize, limit: Option<usize>) -> Self {
        (self.skip, self.left) = (offset, limit.unwrap_or(usize::MAX));
        self
    }

    /// Copies fewer at a time when few are wanted.
    pub(super) fn in_pieces_of(mut self, wanted: Option<usize>) -> Self {
        self.piece = wanted.unwrap_or(PAGE).clamp(1, PAGE);
        self
    }
}

impl<T> Iterator for Scan<'_, T> {
    type Item = Vec<T>;

    fn next(&mut self) -> Option<Vec<T>> {
        if self.left == 0 {
            return None;
        }
        self.inner.read(|state, now| {
            let rules = state.rules(now);
            let end = *self.end.get_or_insert_with(|| match &self.slots {
                Slots::All => state.table.slots(),
                Slots::These(slots) => slots.len(),
                Slots::Sorted(spots, _) => spots.len(),
            });
            if self.at >= end {
                return None;
            }
            let mut found = Vec::new();
            let page = self.at..end.min(self.at.saturating_add(PAGE));
            for at in page {
                if found.len() == self.piece.min(self.left) {
                    break;
                }
                self.at = at + 1;
                let (slot, spot) = match &self.slots {
                    Slots::All => (Some(at as u32), None),
                    Slots::These(slots) => (slots.get(at).copied(), None),
                    Slots::Sorted(spots, marks) => {
                        let spot = spots.get(at);
                        (spot.map(|spot| spot.slot), spot.zip(Some(marks)))
                    }
                };
                let Some((slot, view)) = slot.and_then(|at| Some((at, state.table.view(at)?)))
                else {
                    continue;
                };
                let is_there = spot.is_none_or(|(spot, marks)| marks.of(&view) == spot.mark);
                if !is_there || !self.conditions.hold(&view, rules) {
                    continue;
                }
                match self.skip {
                    0 => found.push((self.take)(slot, view, rules)),
                    _ => self.skip -= 1,
                }
            }
            self.left -= found.len();
            Some(found)
        })
    }
}
