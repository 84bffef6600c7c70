//! In which list and group each record stands, and who makes room.

use std::hash::{BuildHasher, RandomState};

use super::Table;
use crate::{
    clock::Timestamp,
    crowd::pick,
    group::{Group, Site},
    record::Class,
    seat::{List, Seat, site},
};

/// How many members of the most crowded groups are compared when one of them must go.
const SAMPLE: usize = 8;

/// How many slots are tried to find a random member of a list that holds a good part of all.
const TRIES: usize = 64;

impl Table {
    /// Where a record stands.
    pub(crate) fn seat(&self, slot: u32) -> Option<Seat> {
        let place = self.row(slot)?.place;
        let list = place.list();
        Some(Seat {
            list,
            group: self.lists[list as usize].group(place),
        })
    }

    /// How many records stand in a list.
    pub(crate) fn count(&self, list: List) -> usize {
        self.lists[list as usize].len()
    }

    /// How many records of a group stand in a list.
    pub(crate) fn count_group(&self, list: List, group: Group) -> usize {
        self.lists[list as usize].members(group, &self.hasher).len()
    }

    /// The size of the most crowded group of a list.
    pub(crate) fn max_group(&self, list: List) -> usize {
        self.lists[list as usize].max_size()
    }

    /// The peer that is worth least: of the first of these lists that has members, or of the most crowded one when
    /// several are equal.
    pub(crate) fn least_valuable(&mut self, order: &[&[List]]) -> Option<(Class, u32)> {
        let list = order.iter().find_map(|equals| {
            let filled = equals.iter().filter(|list| self.count(**list) > 0);
            filled.max_by_key(|list| self.max_group(**list)).copied()
        })?;
        Some((list.class(), self.worst_of(list)?))
    }

    /// Of a random few in the most crowded groups of a list: one of those that share most with each other, and among
    /// them the one that was heard of longest ago.
    pub(crate) fn worst_of(&mut self, list: List) -> Option<u32> {
        let mut sample = [0; SAMPLE];
        let mut met = 0;
        for _ in 0..SAMPLE.min(self.count(list)) {
            let (choices, hasher) = (&mut self.choices, &self.hasher);
            let chosen = self.lists[list as usize].crowded(|| next_choice(choices, hasher));
            if let Some(slot) = chosen.filter(|slot| !sample[..met].contains(slot)) {
                sample[met] = slot;
                met += 1;
            }
        }
        let mut sites: [Option<(u32, Option<Site>, Timestamp)>; SAMPLE] = [None; SAMPLE];
        for (place, slot) in sites.iter_mut().zip(&sample[..met]) {
            let view = self.view(*slot);
            *place = view.map(|view| (*slot, site(view.known(), &view.facts()), view.last_heard()));
        }
        let met = || sites.iter().flatten();
        let neighbours = |site: Option<Site>| met().filter(|(_, other, _)| *other == site).count();
        let worst =
            met().max_by_key(|(_, site, heard)| (neighbours(*site), std::cmp::Reverse(*heard)));
        worst.map(|(slot, ..)| *slot)
    }

    /// A random member of a list and group, other than `spared`.
    pub(crate) fn random_of(
        &mut self,
        list: List,
        group: Group,
        spared: Option<u32>,
    ) -> Option<u32> {
        for _ in 0..SAMPLE {
            let random = next_choice(&mut self.choices, &self.hasher);
            let members = self.lists[list as usize].members(group, &self.hasher);
            let slot = pick(members, random)?;
            if Some(slot) != spared {
                return Some(slot);
            }
        }
        None
    }

    /// A random member of lists that hold a good part of all records, other than `spared`.
    pub(crate) fn random_in(&mut self, lists: &[List], spared: Option<u32>) -> Option<u32> {
        for _ in 0..TRIES {
            let random = next_choice(&mut self.choices, &self.hasher);
            let slot = random.checked_rem(self.used as u64)? as u32;
            if let Some(row) = self.row(slot)
                && !row.packed.is_vacant()
                && lists.contains(&row.place.list())
                && Some(slot) != spared
            {
                return Some(slot);
            }
        }
        let list = *lists.iter().max_by_key(|list| self.count(**list))?;
        self.worst_of(list).filter(|worst| Some(*worst) != spared)
    }

    /// Sorts a record anew that may have changed its seat.
    pub(super) fn seat_again(&mut self, slot: u32) {
        let seat = self.view(slot).map(|view| view.seat());
        if let Some(seat) = seat
            && Some(seat) != self.seat(slot)
        {
            self.stand_up(slot);
            self.sit_down(slot, seat);
        }
    }

    pub(super) fn sit_down(&mut self, slot: u32, seat: Seat) {
        let place = self.lists[seat.list as usize].join(slot, seat.group, &self.hasher);
        if let Some(row) = self.row_mut(slot) {
            row.place = place.in_list(seat.list);
        }
    }

    pub(super) fn stand_up(&mut self, slot: u32) {
        let Some(place) = self.row(slot).map(|row| row.place) else {
            return;
        };
        let moved = self.lists[place.list() as usize].leave(place, &self.hasher);
        if let Some(moved) = moved
            && let Some(row) = self.row_mut(moved)
        {
            row.place = place;
        }
    }
}

fn next_choice(choices: &mut u64, hasher: &RandomState) -> u64 {
    *choices = choices.wrapping_add(1);
    hasher.hash_one(*choices)
}
