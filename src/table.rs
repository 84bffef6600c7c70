//! All records: found by peer id, walked in pages, and sorted into classes so that room is made in constant
//! time.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use libp2p_identity::PeerId;

use crate::{
    crowd::{Crowd, Place, pick},
    group::Group,
    record::{Class, Record},
    schedule::Due,
    seat::{List, Seat},
};

/// How many members of the most crowded groups are compared when one of them must go.
const SAMPLE: usize = 8;

/// How many slots are tried to find a random member of a list that holds a good part of all.
const TRIES: usize = 64;

/// The records of a store.
///
/// ```text
/// index:   hash of the peer id ──► slot
/// slots:   [ record | free | record | … ]      a slot keeps its number while its record lives
/// lists:   hearsay { group: [slot, slot, …] }  inbound {…}  …  pinned {…}
/// ```
///
/// Peer ids are chosen by strangers, so the hash is keyed with a secret of this process.
#[derive(Debug)]
pub(crate) struct Table {
    index: HashTable<u32>,
    slots: Vec<Option<Box<Row>>>,
    free: Vec<u32>,
    lists: [Crowd; List::ALL.len()],
    hasher: RandomState,
    /// Counts the random choices: hashed, it is a sequence that a stranger cannot foresee.
    choices: u64,
}

#[derive(Debug)]
struct Row {
    record: Record,
    seat: Seat,
    /// Where the slot stands in its list.
    place: Place,
    /// Where the record stands in the schedule.
    scheduled: Option<Due>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            index: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            lists: Default::default(),
            hasher: RandomState::new(),
            choices: 0,
        }
    }
}

impl Table {
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn get(&self, id: &PeerId) -> Option<&Record> {
        let row = self.slots.get(self.slot(id)? as usize)?.as_ref()?;
        Some(&row.record)
    }

    pub(crate) fn contains(&self, id: &PeerId) -> bool {
        self.slot(id).is_some()
    }

    /// Changes a record and sorts it into its list and group again. `None` when there is no such peer.
    pub(crate) fn change<R>(
        &mut self,
        id: &PeerId,
        change: impl FnOnce(&mut Record) -> R,
    ) -> Option<R> {
        let slot = self.slot(id)?;
        let row = self.slots.get_mut(slot as usize)?.as_mut()?;
        let result = change(&mut row.record);
        let seat = row.record.seat();
        if seat != row.seat {
            self.stand_up(slot);
            self.sit_down(slot, seat);
        }
        Some(result)
    }

    /// Puts a new record in. The caller has made sure that the peer is not there yet.
    pub(crate) fn insert(&mut self, record: Record) {
        let hash = self.hasher.hash_one(record.id);
        let seat = record.seat();
        let row = Some(Box::new(Row {
            record,
            seat,
            place: Place::default(),
            scheduled: None,
        }));
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = row;
                slot
            }
            None => {
                self.slots.push(row);
                (self.slots.len() - 1) as u32
            }
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hash, slot, |slot| {
            let row = slots[*slot as usize].as_ref();
            row.map_or(0, |row| hasher.hash_one(row.record.id))
        });
        self.sit_down(slot, seat);
    }

    pub(crate) fn remove(&mut self, id: &PeerId) -> Option<Record> {
        let slot = self.slot(id)?;
        self.stand_up(slot);
        let hash = self.hasher.hash_one(id);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
        self.free.push(slot);
        let row = self.slots[slot as usize].take()?;
        Some(row.record)
    }

    /// Where a record stands.
    pub(crate) fn seat(&self, id: &PeerId) -> Option<Seat> {
        let row = self.slots.get(self.slot(id)? as usize)?.as_ref()?;
        Some(row.seat)
    }

    /// How many records stand in a list.
    pub(crate) fn count(&self, list: List) -> usize {
        self.lists[list as usize].len()
    }

    /// How many records of a group stand in a list.
    pub(crate) fn count_group(&self, list: List, group: Group) -> usize {
        self.lists[list as usize].members(group, &self.hasher).len()
    }

    /// The slot of a record: the same for as long as it is stored.
    pub(crate) fn slot_of(&self, id: &PeerId) -> Option<u32> {
        self.slot(id)
    }

    /// The record in a slot.
    pub(crate) fn at(&self, slot: u32) -> Option<&Record> {
        let row = self.slots.get(slot as usize)?.as_ref()?;
        Some(&row.record)
    }

    /// The size of the most crowded group of a list.
    pub(crate) fn max_group(&self, list: List) -> usize {
        self.lists[list as usize].max_size()
    }

    /// The peer that is worth least: of the first of these lists that has members, or of the most crowded one when
    /// several are equal.
    pub(crate) fn least_valuable(&mut self, order: &[&[List]]) -> Option<(Class, PeerId)> {
        let list = order.iter().find_map(|equals| {
            let filled = equals.iter().filter(|list| self.count(**list) > 0);
            filled.max_by_key(|list| self.max_group(**list)).copied()
        })?;
        Some((list.class(), self.worst_of(list)?))
    }

    /// Of a random few in the most crowded groups of a list: one of those that share most with each other, and among
    /// them the one that was heard of longest ago.
    pub(crate) fn worst_of(&mut self, list: List) -> Option<PeerId> {
        let mut sample = Vec::with_capacity(SAMPLE);
        for _ in 0..SAMPLE.min(self.count(list)) {
            let (choices, hasher) = (&mut self.choices, &self.hasher);
            let chosen = self.lists[list as usize].crowded(|| next_choice(choices, hasher));
            sample.extend(chosen);
        }
        sample.sort_unstable();
        sample.dedup();
        let sample = sample
            .into_iter()
            .filter_map(|slot| Some(&self.slots[slot as usize].as_ref()?.record));
        let sample: Vec<_> = sample.map(|record| (record.site(), record)).collect();
        let neighbours = |site| sample.iter().filter(|(other, _)| *other == site).count();
        let worst = sample.iter().max_by_key(|(site, record)| {
            (neighbours(*site), std::cmp::Reverse(record.last_heard()))
        });
        worst.map(|(_, record)| record.id)
    }

    /// A random member of a list and group, other than `spared`.
    pub(crate) fn random_of(
        &mut self,
        list: List,
        group: Group,
        spared: Option<PeerId>,
    ) -> Option<PeerId> {
        for _ in 0..SAMPLE {
            let random = next_choice(&mut self.choices, &self.hasher);
            let members = self.lists[list as usize].members(group, &self.hasher);
            let row = self.slots[pick(members, random)? as usize].as_ref()?;
            if Some(row.record.id) != spared {
                return Some(row.record.id);
            }
        }
        None
    }

    /// A random member of lists that hold a good part of all records, other than `spared`.
    pub(crate) fn random_in(&mut self, lists: &[List], spared: Option<PeerId>) -> Option<PeerId> {
        for _ in 0..TRIES {
            let random = next_choice(&mut self.choices, &self.hasher);
            let slot = random.checked_rem(self.slots.len() as u64)?;
            if let Some(row) = &self.slots[slot as usize]
                && lists.contains(&row.seat.list)
                && Some(row.record.id) != spared
            {
                return Some(row.record.id);
            }
        }
        let list = *lists.iter().max_by_key(|list| self.count(**list))?;
        self.worst_of(list).filter(|worst| Some(*worst) != spared)
    }

    /// The records in the slots from `start` on, at most `slots` slots of them, and where to go on: `None` at
    /// the end. Walking the table so, with the lock released in between, meets every peer that stays.
    pub(crate) fn page(
        &self,
        start: usize,
        slots: usize,
    ) -> (impl Iterator<Item = &Record> + '_, Option<usize>) {
        let end = start.saturating_add(slots).min(self.slots.len());
        let page = self.slots[start.min(end)..end]
            .iter()
            .filter_map(|row| row.as_ref().map(|row| &row.record));
        (page, (end < self.slots.len()).then_some(end))
    }

    /// Records in up to `n` slots chosen at random.
    pub(crate) fn sample(&self, n: usize, mut random: impl FnMut() -> u64) -> Vec<&Record> {
        let slots = self.slots.len();
        let chosen = (0..n.min(slots)).filter_map(|_| {
            let row = self.slots[random() as usize % slots].as_ref()?;
            Some(&row.record)
        });
        chosen.collect()
    }

    /// The slot of a record that is not in the schedule yet, or later than `due`, and where it stood there; from now
    /// on it counts as being there at `due`.
    pub(crate) fn schedule(&mut self, id: &PeerId, due: Due) -> Option<(u32, Option<Due>)> {
        let slot = self.slot(id)?;
        let row = self.slots[slot as usize].as_mut()?;
        if row.scheduled.is_some_and(|before| before <= due) {
            return None;
        }
        Some((slot, row.scheduled.replace(due)))
    }

    /// Where a record stands in the schedule.
    pub(crate) fn scheduled(&self, id: &PeerId) -> Option<(u32, Due)> {
        let slot = self.slot(id)?;
        let row = self.slots[slot as usize].as_ref()?;
        Some((slot, row.scheduled?))
    }

    /// A slot came out of the schedule.
    pub(crate) fn unschedule(&mut self, slot: u32) -> Option<PeerId> {
        let row = self.slots.get_mut(slot as usize)?.as_mut()?;
        row.scheduled = None;
        Some(row.record.id)
    }

    /// How many slots there are, free ones included: a walk that began now is over there.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    fn slot(&self, id: &PeerId) -> Option<u32> {
        let hash = self.hasher.hash_one(id);
        let found = self.index.find(hash, |slot| {
            let row = self.slots[*slot as usize].as_ref();
            row.is_some_and(|row| row.record.id == *id)
        });
        found.copied()
    }

    fn sit_down(&mut self, slot: u32, seat: Seat) {
        if let Some(row) = &mut self.slots[slot as usize] {
            row.seat = seat;
            row.place = self.lists[seat.list as usize].join(slot, seat.group, &self.hasher);
        }
    }

    fn stand_up(&mut self, slot: u32) {
        let Some(row) = &self.slots[slot as usize] else {
            return;
        };
        let place = row.place;
        let moved = self.lists[row.seat.list as usize].leave(place, &self.hasher);
        if let Some(moved) = moved
            && let Some(row) = &mut self.slots[moved as usize]
        {
            row.place = place;
        }
    }
}

fn next_choice(choices: &mut u64, hasher: &RandomState) -> u64 {
    *choices = choices.wrapping_add(1);
    hasher.hash_one(*choices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn filled(n: usize) -> (Table, Vec<PeerId>) {
        let mut table = Table::default();
        let ids: Vec<PeerId> = (0..n).map(|_| PeerId::random()).collect();
        for id in &ids {
            table.insert(Record::new(*id, Timestamp::default()));
        }
        (table, ids)
    }

    #[test]
    fn a_record_is_found_until_it_is_removed_and_its_slot_is_used_again() {
        let (mut table, ids) = filled(100);
        for id in &ids[..50] {
            assert_eq!(table.remove(id).map(|record| record.id), Some(*id));
            assert!(table.get(id).is_none());
            assert!(table.remove(id).is_none());
        }
        assert!(ids[50..].iter().all(|id| table.get(id).is_some()));
        for id in &ids[..50] {
            table.insert(Record::new(*id, Timestamp::default()));
        }
        assert_eq!((table.len(), table.slots.len()), (100, 100));
    }

    #[test]
    fn a_walk_in_pages_meets_every_record_once() {
        let (table, mut ids) = filled(100);
        let (mut met, mut at) = (Vec::new(), Some(0));
        while let Some(start) = at {
            let (page, next) = table.page(start, 7);
            met.extend(page.map(|record| record.id));
            at = next;
        }
        met.sort();
        ids.sort();
        assert_eq!(met, ids);
    }

    #[test]
    fn room_is_made_in_the_lowest_class_that_has_members() {
        let (mut table, ids) = filled(10);
        for id in &ids[1..] {
            table.change(id, |record| record.connected = true);
        }
        let order = List::ORDER;
        let least = table.least_valuable(order);
        assert_eq!(least, Some((Class::Hearsay, ids[0])));
        table.remove(&ids[0]);
        assert_eq!(
            table.least_valuable(order).map(|(class, _)| class),
            Some(Class::Connected)
        );
        for id in &ids[1..] {
            table.change(id, |record| record.connected = false);
            table.remove(id);
        }
        assert_eq!(table.least_valuable(order), None);
    }
}
