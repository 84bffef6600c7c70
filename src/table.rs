//! All records: found by peer id, walked in pages, and sorted into classes so that room is made in constant
//! time.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
};

use hashbrown::HashTable;
use libp2p_identity::PeerId;

use crate::{
    address::Entry,
    clock::Timestamp,
    compact::{Bookmark, Has, Head, Lists, Packed, Texts, id_bytes},
    crowd::{Crowd, Place},
    group::Site,
    links::Links,
    metrics::Standings,
    record::{Books, Rare, Record},
    schedule::{Due, Schedule},
    seat::List,
    view::View,
};

mod seats;

/// The index is in so many parts: each grows by itself, so that no growth takes long.
const SHARDS: usize = 512;

/// Rows in one block: the table grows by such blocks, and moves none.
const BLOCK: usize = 256;

/// The records of a store.
///
/// ```text
/// index:    hash of the peer id ──► slot
/// rows:     [ compact record, place in its list, due, place in the schedule | free | … ]
///           a slot keeps its number while its record lives
/// rare:     slot ──► what few peers have
/// shared:   lists of protocols, texts
/// lists:    hearsay { group: [slot, slot, …] }  inbound {…}  …  pinned {…}
/// schedule: moment ──► [slot, slot, …]
/// ```
///
/// Peer ids are chosen by strangers, so the hash is keyed with a secret of this process.
#[derive(Debug)]
pub(crate) struct Table {
    index: Box<[HashTable<u32>]>,
    rows: Vec<Box<[Row]>>,
    /// Rows that were ever used.
    used: usize,
    free: Vec<u32>,
    rare: BTreeMap<u32, Box<Rare>>,
    shared: Shared,
    lists: [Crowd; List::ALL.len()],
    schedule: Schedule,
    standings: Standings,
    hasher: RandomState,
    /// Counts the random choices: hashed, it is a sequence that a stranger cannot foresee.
    choices: u64,
    /// Where a record is packed before it gets its place.
    scratch: Vec<u8>,
}

/// What many records have alike.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) lists: Lists,
    pub(crate) texts: Texts,
}

/// One record, 32 bytes and what its compact form takes.
#[derive(Debug)]
struct Row {
    packed: Packed,
    /// Where the slot stands in its list.
    place: Place,
    /// Where it stands in the schedule: [`Due::NEVER`] when it does not.
    due: Due,
    due_place: u32,
}

const _: () = assert!(size_of::<Row>() == 32);

impl Row {
    fn vacant() -> Self {
        Self {
            packed: Packed::default(),
            place: Place::default(),
            due: Due::NEVER,
            due_place: 0,
        }
    }
}

impl Default for Table {
    fn default() -> Self {
        Self {
            index: (0..SHARDS).map(|_| HashTable::new()).collect(),
            rows: Vec::new(),
            used: 0,
            free: Vec::new(),
            rare: BTreeMap::new(),
            shared: Shared::default(),
            lists: Default::default(),
            schedule: Schedule::default(),
            standings: Standings::default(),
            hasher: RandomState::new(),
            choices: 0,
            scratch: Vec::new(),
        }
    }
}

impl Table {
    pub(crate) fn len(&self) -> usize {
        self.used - self.free.len()
    }

    // --- finding and reading -------------------------------------------------------------------------------

    /// The slot of a peer: the same for as long as it is stored.
    pub(crate) fn find(&self, id: &PeerId) -> Option<u32> {
        let mut bytes = [0; 66];
        let len = id_bytes(id, &mut bytes);
        self.find_bytes(&bytes[..len])
    }

    fn find_bytes(&self, id: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one(id);
        let is_it = |slot: &u32| {
            self.packed(*slot)
                .is_some_and(|packed| packed.id_bytes() == id)
        };
        self.index[shard(hash)].find(hash, is_it).copied()
    }

    pub(crate) fn get(&self, id: &PeerId) -> Option<View<'_>> {
        self.view(self.find(id)?)
    }

    /// The record in a slot.
    pub(crate) fn view(&self, slot: u32) -> Option<View<'_>> {
        let packed = self.packed(slot)?;
        View::new(packed, self.rare_of(slot, packed), &self.shared)
    }

    pub(crate) fn packed(&self, slot: u32) -> Option<&Packed> {
        Some(&self.row(slot)?.packed)
    }

    /// For what changes without moving anything.
    pub(crate) fn packed_mut(&mut self, slot: u32) -> Option<&mut Packed> {
        Some(&mut self.row_mut(slot)?.packed)
    }

    #[cfg(feature = "identify")]
    pub(crate) fn rare_mut(&mut self, slot: u32) -> Option<&mut Rare> {
        self.rare.get_mut(&slot).map(|rare| &mut **rare)
    }

    /// The slots of about so many who speak a protocol, and where to go on: `None` at the end. Who speaks it all the
    /// while is met, once at least.
    pub(crate) fn speakers(
        &self,
        protocol: &str,
        from: Bookmark,
        steps: usize,
    ) -> (Vec<u32>, Option<Bookmark>) {
        self.shared.lists.speakers(protocol, from, steps)
    }

    fn rare_of(&self, slot: u32, packed: &Packed) -> Option<&Rare> {
        let has = packed.has().contains(Has::RARE);
        has.then(|| self.rare.get(&slot).map(|rare| &**rare))
            .flatten()
    }

    /// The records in the slots from `start` on, at most `slots` slots of them, and where to go on: `None` at
    /// the end. Walking the table so, with the lock released in between, meets every peer that stays.
    pub(crate) fn page(
        &self,
        start: usize,
        slots: usize,
    ) -> (impl Iterator<Item = View<'_>> + '_, Option<usize>) {
        let end = start.saturating_add(slots).min(self.used);
        let page = (start.min(end)..end).filter_map(|slot| self.view(slot as u32));
        (page, (end < self.used).then_some(end))
    }

    /// Records in up to `n` slots chosen at random.
    pub(crate) fn sample(&self, n: usize, mut random: impl FnMut() -> u64) -> Vec<View<'_>> {
        let slots = self.used;
        let chosen =
            (0..n.min(slots)).filter_map(|_| self.view((random() as usize % slots) as u32));
        chosen.collect()
    }

    /// How many addresses there are, by standing.
    #[cfg(feature = "metrics")]
    pub(crate) fn standings(&self) -> &Standings {
        &self.standings
    }

    /// How many slots there are, free ones included: a walk that began now is over there.
    pub(crate) fn slots(&self) -> usize {
        self.used
    }

    // --- changing ------------------------------------------------------------------------------------------

    /// Changes a record and sorts it into its list and group again. `None` when there is none in the slot.
    pub(crate) fn change<R>(
        &mut self,
        slot: u32,
        change: impl FnOnce(&mut Record) -> R,
    ) -> Option<R> {
        let mut record = self.take_out(slot)?;
        let result = change(&mut record);
        self.put_back(slot, record);
        self.seat_again(slot);
        Some(result)
    }

    /// Puts a new record in. The caller has made sure that the peer is not there yet.
    pub(crate) fn insert(&mut self, record: Record) -> u32 {
        let mut bytes = [0; 66];
        let len = id_bytes(&record.id, &mut bytes);
        let hash = self.hasher.hash_one(&bytes[..len]);
        let seat = record.seat();
        let slot = self.free.pop().unwrap_or_else(|| self.new_row());
        self.put_back(slot, record);
        let (rows, hasher) = (&self.rows, &self.hasher);
        self.index[shard(hash)].insert_unique(hash, slot, |slot| {
            let row = row(rows, *slot);
            row.map_or(0, |row| hasher.hash_one(row.packed.id_bytes()))
        });
        self.sit_down(slot, seat);
        slot
    }

    /// Takes a record out for good.
    pub(crate) fn remove(&mut self, slot: u32) {
        let Some(packed) = self.packed(slot).filter(|packed| !packed.is_vacant()) else {
            return;
        };
        let hash = self.hasher.hash_one(packed.id_bytes());
        let (protocols, texts) = (packed.protocols(), [packed.agent(), packed.version()]);
        let known = row(&self.rows, slot).into_iter();
        let known = known.flat_map(|row| row.packed.addresses());
        self.standings.leave(known.map(|known| known.history));
        self.unschedule(slot);
        self.stand_up(slot);
        if let Ok(entry) = self.index[shard(hash)].find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
        if let Some((list, place)) = protocols {
            self.leave_list(list, place);
        }
        for text in texts.into_iter().flatten() {
            self.shared.texts.release(text);
        }
        self.rare.remove(&slot);
        if let Some(row) = self.row_mut(slot) {
            *row = Row::vacant();
        }
        self.free.push(slot);
    }

    /// Notes who is connected, and from where. Returns the books in which another group stands than is known now.
    pub(crate) fn note_links(&mut self, slot: u32, links: &Links) -> Books {
        let Some(packed) = self.packed_mut(slot) else {
            return Books::empty();
        };
        let Some(id) = packed.id() else {
            return Books::empty();
        };
        let (connected, accepted, source) = links.standing(&id);
        let before = packed.source();
        packed.set(Has::CONNECTED, connected);
        packed.set(Has::ACCEPTED, accepted);
        if source.is_none() || source == before {
            self.seat_again(slot);
            return Books::empty();
        }
        let saved = packed.saved();
        self.change(slot, |record| record.source = source);
        match source.map(Site::group) == before.map(Site::group) {
            true => Books::empty(),
            false => saved & (Books::ADDRESSES | Books::PROTOCOLS),
        }
    }

    /// The record of a slot as rules change it.
    fn take_out(&mut self, slot: u32) -> Option<Record> {
        let head = self.packed(slot)?.head()?;
        let rare = match head.rare {
            true => self.rare.remove(&slot),
            false => None,
        };
        let known = self.packed(slot)?.addresses();
        let addresses = known.map(|known| Entry {
            address: known.address.into(),
            history: known.history,
        });
        let Shared { lists, texts } = &self.shared;
        let text = |number: Option<u32>| texts.get(number?).cloned();
        let record = Record {
            id: head.id,
            epoch: head.epoch,
            addresses: addresses.collect(),
            heard: head.heard,
            first_proven: head.first_proven,
            protocols: head
                .protocols
                .and_then(|(list, _)| lists.get(list).cloned()),
            agent: text(head.agent),
            version: text(head.version),
            latency: head.latency,
            saved: head.saved,
            connected: head.connected,
            accepted: head.accepted,
            source: head.source,
            addresses_changed: head.addresses_changed,
            protocols_changed: head.protocols_changed,
            rare: rare.map(|rare| *rare).unwrap_or_default(),
        };
        let known = record.addresses.iter();
        self.standings.leave(known.map(|entry| entry.history));
        Some(record)
    }

    /// Packs a record into its slot.
    fn put_back(&mut self, slot: u32, record: Record) {
        let known = record.addresses.iter();
        self.standings.join(known.map(|entry| entry.history));
        let before = self.packed(slot);
        let (claims, dirty, protocols, agent, version) = match before {
            Some(packed) if !packed.is_vacant() => (
                packed.has().contains(Has::CLAIMS),
                packed.dirty(),
                packed.protocols(),
                packed.agent(),
                packed.version(),
            ),
            _ => (false, 0, None, None, None),
        };
        let protocols = self.relist(slot, protocols, &record);
        let agent = self.reword(agent, record.agent.as_ref());
        let version = self.reword(version, record.version.as_ref());
        let rare = !record.rare.is_none();
        let head = Head {
            id: record.id,
            epoch: record.epoch,
            heard: record.heard,
            addresses_changed: record.addresses_changed,
            protocols_changed: record.protocols_changed,
            saved: record.saved,
            connected: record.connected,
            accepted: record.accepted,
            claims,
            rare,
            dirty,
            protocols,
            agent,
            version,
            first_proven: record.first_proven,
            latency: record.latency,
            source: record.source,
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        if let Some(row) = self.row_mut(slot) {
            row.packed.pack(&head, record.known(), &mut scratch);
        }
        self.scratch = scratch;
        if rare {
            self.rare.insert(slot, Box::new(record.rare));
        }
    }

    /// Moves a slot from one list of protocols to another, if they differ.
    fn relist(
        &mut self,
        slot: u32,
        before: Option<(u32, u32)>,
        record: &Record,
    ) -> Option<(u32, u32)> {
        if let (Some((list, _)), Some(names)) = (before, &record.protocols)
            && let Some(kept) = self.shared.lists.get(list)
            && std::sync::Arc::ptr_eq(kept, names)
        {
            return before;
        }
        if let Some((list, place)) = before {
            self.leave_list(list, place);
        }
        let names = record.protocols.as_ref()?;
        Some(self.shared.lists.join(names, slot))
    }

    fn leave_list(&mut self, list: u32, place: u32) {
        if let Some(moved) = self.shared.lists.leave(list, place)
            && let Some(packed) = self.packed_mut(moved)
        {
            packed.set_protocols_place(place);
        }
    }

    /// Exchanges one text for another, if they differ.
    fn reword(&mut self, before: Option<u32>, now: Option<&std::sync::Arc<[u8]>>) -> Option<u32> {
        let texts = &mut self.shared.texts;
        if let (Some(number), Some(now)) = (before, now)
            && texts.get(number) == Some(now)
        {
            return before;
        }
        let number = now.map(|now| texts.take(now));
        if let Some(before) = before {
            texts.release(before);
        }
        number
    }

    // --- rows ----------------------------------------------------------------------------------------------

    fn row(&self, slot: u32) -> Option<&Row> {
        row(&self.rows, slot)
    }

    fn row_mut(&mut self, slot: u32) -> Option<&mut Row> {
        let (block, at) = (slot as usize / BLOCK, slot as usize % BLOCK);
        self.rows.get_mut(block)?.get_mut(at)
    }

    fn new_row(&mut self) -> u32 {
        if self.used == self.rows.len() * BLOCK {
            self.rows.push((0..BLOCK).map(|_| Row::vacant()).collect());
        }
        self.used += 1;
        (self.used - 1) as u32
    }
}

fn row(rows: &[Box<[Row]>], slot: u32) -> Option<&Row> {
    let (block, at) = (slot as usize / BLOCK, slot as usize % BLOCK);
    rows.get(block)?.get(at)
}

fn shard(hash: u64) -> usize {
    // Other bits than those by which a table of hashbrown chooses.
    (hash >> 40) as usize % SHARDS
}

/// When records are looked at again.
impl Table {
    /// When the next record is due.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.schedule.next()
    }

    /// When a record is due.
    pub(crate) fn due(&self, slot: u32) -> Due {
        self.row(slot).map_or(Due::NEVER, |row| row.due)
    }

    /// Takes a record out of the schedule that is due.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<u32> {
        let slot = self.schedule.pop(now)?;
        if let Some(row) = self.row_mut(slot) {
            row.due = Due::NEVER;
        }
        Some(slot)
    }

    /// Puts a record into the schedule, unless it stands there no later than that.
    pub(crate) fn schedule(&mut self, slot: u32, due: Due) {
        if self.due(slot) <= due {
            return;
        }
        self.unschedule(slot);
        let place = self.schedule.add(due, slot);
        if let Some(row) = self.row_mut(slot) {
            (row.due, row.due_place) = (due, place);
        }
    }

    fn unschedule(&mut self, slot: u32) {
        let Some(row) = self.row_mut(slot) else {
            return;
        };
        let (due, place) = (std::mem::replace(&mut row.due, Due::NEVER), row.due_place);
        if due == Due::NEVER {
            return;
        }
        if let Some(moved) = self.schedule.remove(due, place)
            && let Some(row) = self.row_mut(moved)
        {
            row.due_place = place;
        }
    }
}

#[cfg(test)]
mod runs;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Class;

    fn filled(n: usize) -> (Table, Vec<PeerId>) {
        let mut table = Table::default();
        let ids: Vec<PeerId> = (0..n).map(|_| PeerId::random()).collect();
        for id in &ids {
            table.insert(Record::new(*id, Timestamp::default()));
        }
        (table, ids)
    }

    fn slot(table: &Table, id: &PeerId) -> u32 {
        table.find(id).expect("it is there")
    }

    #[test]
    fn a_record_is_found_until_it_is_removed_and_its_slot_is_used_again() {
        let (mut table, ids) = filled(1_000);
        for id in &ids[..500] {
            table.remove(slot(&table, id));
            assert!(table.get(id).is_none());
        }
        assert!(
            ids[500..]
                .iter()
                .all(|id| table.get(id).is_some_and(|view| view.id() == *id))
        );
        for id in &ids[..500] {
            table.insert(Record::new(*id, Timestamp::default()));
        }
        assert_eq!((table.len(), table.slots()), (1_000, 1_000));
    }

    #[test]
    fn a_walk_in_pages_meets_every_record_once() {
        let (table, mut ids) = filled(1_000);
        let (mut met, mut at) = (Vec::new(), Some(0));
        while let Some(start) = at {
            let (page, next) = table.page(start, 7);
            met.extend(page.map(|record| record.id()));
            at = next;
        }
        met.sort();
        ids.sort();
        assert_eq!(met, ids);
    }

    #[test]
    fn room_is_made_in_the_lowest_class_that_has_members() {
        let (mut table, ids) = filled(10);
        let slots: Vec<u32> = ids.iter().map(|id| slot(&table, id)).collect();
        for slot in &slots[1..] {
            table.change(*slot, |record| record.connected = true);
        }
        let order = List::ORDER;
        let least = table.least_valuable(order);
        assert_eq!(least, Some((Class::Hearsay, slots[0])));
        table.remove(slots[0]);
        assert_eq!(
            table.least_valuable(order).map(|(class, _)| class),
            Some(Class::Connected)
        );
        for slot in &slots[1..] {
            table.change(*slot, |record| record.connected = false);
            table.remove(*slot);
        }
        assert_eq!(table.least_valuable(order), None);
    }

    #[test]
    fn what_was_saved_stands_in_the_compact_form() {
        let (mut table, ids) = filled(1);
        let slot = slot(&table, &ids[0]);
        let books = Books::ADDRESSES | Books::METADATA;
        table.change(slot, |record| record.saved = books);
        assert_eq!(table.view(slot).map(|view| view.saved()), Some(books));
    }
}
