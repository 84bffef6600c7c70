//! All records: found by peer id, walked in pages, and sorted into classes so that room is made in constant
//! time.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use libp2p_identity::PeerId;

use crate::record::{Class, Record};

/// How many members of the least valuable class are compared when one of them must go.
const SAMPLE: usize = 8;

/// The records of a store.
///
/// ```text
/// index:   hash of the peer id ──► slot
/// slots:   [ record | free | record | … ]      a slot keeps its number while its record lives
/// classes: hearsay [slot, slot, …]  inbound […]  …  pinned […]
/// ```
///
/// Peer ids are chosen by strangers, so the hash is keyed with a secret of this process.
#[derive(Debug)]
pub(crate) struct Table {
    index: HashTable<u32>,
    slots: Vec<Option<Box<Row>>>,
    free: Vec<u32>,
    classes: [Vec<u32>; Class::ALL.len()],
    hasher: RandomState,
    /// Counts the random choices: hashed, it is a sequence that a stranger cannot foresee.
    choices: u64,
}

#[derive(Debug)]
struct Row {
    record: Record,
    class: Class,
    /// Where the slot stands in the list of its class.
    place: u32,
    /// Whether the record stands in the schedule.
    scheduled: bool,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            index: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            classes: Default::default(),
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

    /// Changes a record and sorts it into its class again. `None` when there is no such peer.
    pub(crate) fn change<R>(
        &mut self,
        id: &PeerId,
        change: impl FnOnce(&mut Record) -> R,
    ) -> Option<R> {
        let slot = self.slot(id)?;
        let row = self.slots.get_mut(slot as usize)?.as_mut()?;
        let result = change(&mut row.record);
        let class = row.record.class();
        if class != row.class {
            self.leave_class(slot);
            self.join_class(slot, class);
        }
        Some(result)
    }

    /// Puts a new record in. The caller has made sure that the peer is not there yet.
    pub(crate) fn insert(&mut self, record: Record) {
        let hash = self.hasher.hash_one(record.id);
        let class = record.class();
        let row = Some(Box::new(Row {
            record,
            class,
            place: 0,
            scheduled: false,
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
        self.join_class(slot, class);
    }

    pub(crate) fn remove(&mut self, id: &PeerId) -> Option<Record> {
        let slot = self.slot(id)?;
        self.leave_class(slot);
        let hash = self.hasher.hash_one(id);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
        self.free.push(slot);
        let row = self.slots[slot as usize].take()?;
        Some(row.record)
    }

    /// The peer that is worth least: of the lowest class that has members, among a random few, the one that
    /// was heard of longest ago.
    pub(crate) fn least_valuable(&mut self) -> Option<(Class, PeerId)> {
        let (class, members) = Class::ALL
            .into_iter()
            .map(|class| (class, &self.classes[class as usize]))
            .find(|(_, members)| !members.is_empty())?;
        let mut victim: Option<&Record> = None;
        for _ in 0..SAMPLE.min(members.len()) {
            self.choices = self.choices.wrapping_add(1);
            let chosen = self.hasher.hash_one(self.choices) as usize % members.len();
            let Some(row) = &self.slots[members[chosen] as usize] else {
                continue;
            };
            if victim.is_none_or(|victim| row.record.last_heard() < victim.last_heard()) {
                victim = Some(&row.record);
            }
        }
        Some((class, victim?.id))
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

    /// The slot of a record that is not in the schedule yet; from now on it counts as being there.
    pub(crate) fn schedule(&mut self, id: &PeerId) -> Option<u32> {
        let slot = self.slot(id)?;
        let row = self.slots[slot as usize].as_mut()?;
        (!std::mem::replace(&mut row.scheduled, true)).then_some(slot)
    }

    /// A slot came out of the schedule. The record in it, which may be another one by now.
    pub(crate) fn unschedule(&mut self, slot: u32) -> Option<PeerId> {
        let row = self.slots.get_mut(slot as usize)?.as_mut()?;
        row.scheduled = false;
        Some(row.record.id)
    }

    fn slot(&self, id: &PeerId) -> Option<u32> {
        let hash = self.hasher.hash_one(id);
        let found = self.index.find(hash, |slot| {
            let row = self.slots[*slot as usize].as_ref();
            row.is_some_and(|row| row.record.id == *id)
        });
        found.copied()
    }

    fn join_class(&mut self, slot: u32, class: Class) {
        let members = &mut self.classes[class as usize];
        if let Some(row) = &mut self.slots[slot as usize] {
            row.class = class;
            row.place = members.len() as u32;
            members.push(slot);
        }
    }

    fn leave_class(&mut self, slot: u32) {
        let Some(row) = &self.slots[slot as usize] else {
            return;
        };
        let place = row.place;
        let members = &mut self.classes[row.class as usize];
        members.swap_remove(place as usize);
        // The last member took the free place.
        if let Some(moved) = members.get(place as usize)
            && let Some(row) = &mut self.slots[*moved as usize]
        {
            row.place = place;
        }
    }
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
        assert_eq!(table.least_valuable(), Some((Class::Hearsay, ids[0])));
        table.remove(&ids[0]);
        assert_eq!(
            table.least_valuable().map(|(class, _)| class),
            Some(Class::Connected)
        );
        for id in &ids[1..] {
            table.change(id, |record| record.connected = false);
            table.remove(id);
        }
        assert_eq!(table.least_valuable(), None);
    }
}
