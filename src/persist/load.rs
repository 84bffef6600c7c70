//! Reading everything at start, in bounded memory: what cannot be used is skipped, counted and left in place.

use std::{
    cmp::Reverse,
    collections::{HashMap, hash_map},
    mem,
    sync::Arc,
};

use futures::StreamExt;
use libp2p_identity::PeerId;
use libp2p_swarm::StreamProtocol;

use super::{
    LoadReport, codec,
    codec::{StoredProtocols, Undecodable},
    engine::breathe,
    key::{self, Key},
};
use crate::{
    address::{Address, bare_bytes},
    clock::Timestamp,
    config::Config,
    datastore::{Datastore, DatastoreError},
    metrics::Counts,
    record::{Books, Class, Foreign, Record, check_metadata, check_protocols, is_inlined},
    refusal::Reasons,
    seat::List,
    state::{Now, State},
};

/// Reads the datastore into a new state. No events, nothing dirty.
pub(crate) async fn load(
    datastore: &dyn Datastore,
    local: PeerId,
    config: Arc<Config>,
    now: Now,
) -> Result<(State, LoadReport), DatastoreError> {
    let mut loader = Loader {
        state: State::new(local, config, true),
        lists: HashMap::new(),
        report: LoadReport::default(),
        now,
        skipped: false,
        incomplete: false,
        without_addresses: Vec::new(),
        again: false,
    };
    loader.pass(datastore).await?;
    if loader.incomplete {
        // A peer got its place after other books of it had been skipped for want of room.
        loader.again = true;
        loader.pass(datastore).await?;
    }
    let Loader {
        mut state,
        mut report,
        ..
    } = loader;
    report.expired = state.expire_loaded(now);
    report.peers = state.table.len();
    state.loaded = now.wall;
    // Loading is nobody's news.
    state.counts = Counts::default();
    Ok((state, report))
}

/// As much of a key as belongs into a log, with what a terminal would act on escaped.
fn shown(key: &str) -> String {
    let start: String = key.chars().take(256).collect();
    start.escape_debug().to_string()
}

/// Lists of protocols that are kept while loading, as they stand on disk, and how long a value with one may be.
const MAX_LISTS: usize = 256;
const MAX_LISTED_LEN: usize = 4_096;

/// Addresses in one value of which each is compared with all before it: more than most peers have, and few enough.
const MAX_COMPARED: usize = 64;

struct Loader {
    state: State,
    /// What the names on disk are, for lists that were read just now.
    lists: HashMap<Box<[u8]>, Arc<[StreamProtocol]>>,
    report: LoadReport,
    now: Now,
    /// A book other than the addresses was skipped, because its peer is not known (any longer) and the store is
    /// full.
    skipped: bool,
    /// After that, a peer was taken in, so that it may have been one of its books.
    incomplete: bool,
    /// Peers of which another book came before the addresses, if those come at all. What they are worth is not
    /// known by then: they yield to any peer with addresses, as they do where the addresses come first.
    without_addresses: Vec<PeerId>,
    /// The second pass: it only completes peers that are known, and counts nothing.
    again: bool,
}

impl Loader {
    async fn pass(&mut self, datastore: &dyn Datastore) -> Result<(), DatastoreError> {
        let mut entries = datastore.query(key::ROOT);
        let mut seen: usize = 0;
        while let Some(entry) = entries.next().await {
            let (key, value) = entry?;
            self.entry(&key, value);
            seen = seen.wrapping_add(1);
            // Whoever gives up the opening is heard, even if this never ends.
            breathe(seen).await;
        }
        Ok(())
    }

    fn entry(&mut self, key: &str, value: Vec<u8>) {
        let before = self.report;
        self.report.entries += 1;
        match key::parse(key) {
            None => {
                self.report.foreign += 1;
                tracing::debug!(
                    key = shown(key),
                    "skipped an entry that is not of a peer store"
                );
            }
            Some(parsed) if parsed.peer() == self.state.local => {
                self.report.local += 1;
                tracing::debug!(key = shown(key), "skipped an entry about the local peer");
            }
            Some(parsed) => {
                if let Err(error) = self.apply(parsed, value) {
                    self.report.undecodable += 1;
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(
                        key = shown(key),
                        error,
                        "skipped an entry that cannot be decoded"
                    );
                }
            }
        }
        if self.again {
            self.report = before;
        }
    }

    fn apply(&mut self, key: Key, value: Vec<u8>) -> Result<(), Undecodable> {
        match key {
            Key::Addresses(peer) => self.addresses(peer, &value),
            Key::Protocols(peer) => self.protocols(peer, &value),
            Key::Keys(peer) => {
                let key = codec::decode_public_key(&value, &peer)
                    .inspect_err(|_| self.note_saved(&peer, Books::KEY))?;
                if is_inlined(&peer) {
                    self.note_saved(&peer, Books::KEY);
                } else {
                    self.attach(peer, Books::KEY, |record| {
                        record.rare.public_key = Some(Box::new(key));
                    });
                }
                Ok(())
            }
            Key::Metadata(peer, name) => {
                self.metadata(peer, name, value);
                Ok(())
            }
        }
    }

    fn addresses(&mut self, peer: PeerId, value: &[u8]) -> Result<(), Undecodable> {
        if self.again {
            return Ok(());
        }
        let stored = codec::decode_addresses(value, &self.state.config, self.now.wall)
            .inspect_err(|_| {
                // The rest of the peer may be sound, and what is wrong here goes when the peer is deleted.
                self.note_saved(&peer, Books::ADDRESSES);
            })?;
        if let Some(model) = stored.model
            && model.learnt_at > self.state.model.learnt_at
        {
            self.state.model = model;
        }
        let config = &self.state.config;
        let (max_len, limit) = (config.address_len_limit(), config.addresses_limit());
        let mut record = Record::new(peer, self.now.wall);
        // Where each address stands, once there are too many to look through.
        let mut places = (stored.entries.len() > MAX_COMPARED).then(HashMap::new);
        for mut entry in stored.entries {
            let address = bare_bytes(&peer, entry.address.as_ref(), max_len);
            match address.map(|address| address.map(Address::from)) {
                Ok(Some(address)) => {
                    let known = match &mut places {
                        Some(places) => match places.entry(address.clone()) {
                            hash_map::Entry::Occupied(at) => record.addresses.get_mut(*at.get()),
                            hash_map::Entry::Vacant(free) => {
                                free.insert(record.addresses.len());
                                None
                            }
                        },
                        None => record.find(&address),
                    };
                    match known {
                        // Another program may have stored it with `/p2p/<peer>` and without.
                        Some(known) => known.history.sources |= entry.history.sources,
                        None => {
                            entry.address = address;
                            record.addresses.push(entry);
                        }
                    }
                }
                Ok(None) => {}
                Err(_) => self.report.refused += 1,
            }
        }
        drop(places);
        if record.addresses.len() > limit {
            self.report.refused += record.addresses.len() - limit;
            let (rules, epoch) = (self.state.rules(self.now), record.epoch);
            // Stable: what is equal stays in its order.
            record.addresses.sort_by_cached_key(|entry| {
                let standing = rules.standing(&entry.history, epoch);
                let confidence = rules.confidence(&entry.history, standing, epoch);
                let lives = !rules.has_expired(&entry.history, epoch);
                // From 0 to 1: such numbers are in the order of their bits.
                let confidence = confidence.to_bits();
                Reverse((entry.history.is_pinned(), lives, standing, confidence))
            });
            record.addresses.truncate(limit);
        }
        let mut unreadable = stored.unreadable;
        let all = unreadable.len();
        unreadable.retain(|(_, message)| message.len() <= 2 * max_len);
        unreadable.truncate(limit);
        self.report.refused += all - unreadable.len();
        self.report.unreadable_addresses += unreadable.len();
        // By the form in which the address is known, and written.
        let in_addresses = stored.in_addresses.into_iter();
        let in_addresses: Vec<_> = in_addresses
            .filter_map(|(address, unknown)| {
                let bare = bare_bytes(&peer, address.as_ref(), max_len).ok()??;
                let bare = Address::from(bare);
                // What was cut off is not written again.
                record.find(&bare).is_some().then_some((bare, unknown))
            })
            .collect();
        if !unreadable.is_empty() || !stored.unknown.is_empty() || !in_addresses.is_empty() {
            record.rare.foreign = Some(Box::new(Foreign {
                addresses: stored.unknown,
                unreadable,
                in_addresses,
                protocols: Vec::new(),
            }));
        }
        let max_record_len = config.max_signed_record_len().get();
        match stored.signed {
            Some(signed) if signed.envelope.len() > max_record_len => self.report.refused += 1,
            signed => record.rare.signed = signed.map(Box::new),
        }
        self.report.refused += stored.unreadable_tags + usize::from(stored.unknown_dropped);
        for (name, tag) in stored.tags {
            // One that has expired is loaded too, so that it is collected, and taken from the datastore.
            let fits = record.rare.tags.load(name, tag, config);
            self.report.refused += usize::from(!fits);
        }
        record.latency = stored.latency;
        record.first_proven = stored.first_proven;
        record.source = stored.source;
        record.addresses_changed = stored.changed_at;
        if record.is_empty() && record.rare.signed.is_none() {
            self.note_saved(&peer, Books::ADDRESSES);
            return Ok(());
        }
        self.take_in(record);
        if stored.from_the_future && self.state.table.find(&peer).is_some() {
            // Else it would be new again at each start until that future has come. It starts no commit.
            let (books, at) = (Books::ADDRESSES, self.now.elapsed);
            self.state
                .pending
                .mark(peer, Books::empty(), books, Vec::new(), at);
        }
        Ok(())
    }

    fn protocols(&mut self, peer: PeerId, value: &[u8]) -> Result<(), Undecodable> {
        let (names, stored) = self
            .decode_protocols(value)
            .inspect_err(|_| self.note_saved(&peer, Books::PROTOCOLS))?;
        self.report.refused += usize::from(stored.unknown_dropped);
        if names.is_empty() && stored.unknown.is_empty() {
            self.note_saved(&peer, Books::PROTOCOLS);
            return Ok(());
        }
        self.attach(peer, Books::PROTOCOLS, |record| {
            record.put_protocols(names);
            record.protocols_changed = stored.changed_at;
            record.source = stored.source.or(record.source);
            if !stored.unknown.is_empty() {
                record.rare.foreign.get_or_insert_default().protocols = stored.unknown;
            }
        });
        Ok(())
    }

    /// The names, checked, and the rest. A list that was read for another peer just now is not taken apart again.
    fn decode_protocols(
        &mut self,
        value: &[u8],
    ) -> Result<(Arc<[StreamProtocol]>, StoredProtocols), Undecodable> {
        let config = &self.state.config;
        let listed = codec::listed_protocols(value);
        let listed = listed.filter(|_| value.len() <= MAX_LISTED_LEN);
        let listed = listed.and_then(|(listed, rest)| {
            let stored = codec::decode_protocols(rest, config, self.now.wall).ok()?;
            // Another program may have written names behind the rest, too.
            stored.names.is_empty().then_some((listed, stored))
        });
        let listed = match listed {
            Some((listed, stored)) => match self.lists.get(listed) {
                Some(names) => return Ok((names.clone(), stored)),
                None => Some(listed),
            },
            None => None,
        };
        let mut stored = codec::decode_protocols(value, config, self.now.wall)?;
        let mut refused = Reasons::default();
        let mut names = check_protocols(mem::take(&mut stored.names), config, &mut refused);
        let limit = config.max_protocols_per_peer().get();
        let too_many = names.len().saturating_sub(limit);
        names.truncate(limit);
        let names: Arc<[StreamProtocol]> = names.into();
        let refused = refused.total() as usize + too_many;
        self.report.refused += refused;
        if refused == 0
            && let Some(listed) = listed
        {
            if self.lists.len() == MAX_LISTS {
                self.lists.clear();
            }
            self.lists.insert(listed.into(), names.clone());
        }
        Ok((names, stored))
    }

    fn metadata(&mut self, peer: PeerId, name: String, value: Vec<u8>) {
        if check_metadata(&name, &value, &self.state.config).is_err() {
            self.report.refused += 1;
            self.note_saved(&peer, Books::METADATA);
            return;
        }
        let limit = self.state.config.max_metadata_per_peer().get();
        let mut refused = false;
        self.attach(peer, Books::METADATA, |record| {
            if record.metadata_len() < limit || record.metadata_value(&name).is_some() {
                record.put_metadata(&name, &value);
            } else {
                refused = true;
            }
        });
        self.report.refused += usize::from(refused);
    }

    /// Adds a peer with its addresses; when the store is full, in the place of one that is worth less.
    fn take_in(&mut self, mut record: Record) {
        record.saved = Books::ADDRESSES;
        if let Some(slot) = self.state.table.find(&record.id) {
            // Another book of the peer came first.
            self.state.table.change(slot, |known| {
                known.epoch = record.epoch;
                known.addresses = record.addresses;
                known.rare.signed = record.rare.signed;
                known.rare.tags = record.rare.tags;
                known.latency = record.latency;
                known.first_proven = record.first_proven;
                known.source = record.source.or(known.source);
                known.addresses_changed = record.addresses_changed;
                known.saved |= Books::ADDRESSES;
                if let Some(foreign) = record.rare.foreign {
                    let protocols = known.rare.foreign.take().map(|known| known.protocols);
                    let protocols = protocols.unwrap_or_default();
                    known.rare.foreign = Some(Box::new(Foreign {
                        protocols,
                        ..*foreign
                    }));
                }
            });
            return;
        }
        while self.is_full() {
            if let Some(victim) = self.without_addresses.pop() {
                self.leave_on_disk_unless_complete(&victim);
                continue;
            }
            let worth = (record.seat().list.class(), record.last_heard());
            match self.state.table.least_valuable(List::ORDER) {
                Some((class, victim)) if self.worth(class, victim) < worth => {
                    self.leave_on_disk(victim);
                }
                _ => {
                    self.report.left_on_disk += 1;
                    return;
                }
            }
        }
        self.incomplete |= self.skipped;
        self.state.table.insert(record);
    }

    /// Takes a peer out again, for the sake of one that is worth more.
    fn leave_on_disk(&mut self, victim: u32) {
        let view = self.state.table.view(victim);
        let Some((peer, saved)) = view.map(|view| (view.id(), view.saved())) else {
            return;
        };
        self.state.table.remove(victim);
        self.state.pending.forget(&peer);
        // Peers are counted by their addresses: those of this one may be still to come, and it with them.
        let has_addresses = saved.contains(Books::ADDRESSES);
        self.report.left_on_disk += usize::from(has_addresses);
        self.skipped |= saved != Books::ADDRESSES;
    }

    /// As [`Loader::leave_on_disk`], if the addresses of the peer have not come in the meantime.
    fn leave_on_disk_unless_complete(&mut self, victim: &PeerId) {
        let Some(slot) = self.state.table.find(victim) else {
            return;
        };
        let view = self.state.table.view(slot);
        if view.is_some_and(|view| !view.saved().contains(Books::ADDRESSES)) {
            self.leave_on_disk(slot);
        }
    }

    /// Adds another book to a peer; makes the peer only while there is room.
    fn attach(&mut self, peer: PeerId, book: Books, change: impl FnOnce(&mut Record)) {
        let slot = match self.state.table.find(&peer) {
            Some(slot) => slot,
            None => {
                if self.again || self.is_full() {
                    self.skipped = true;
                    return;
                }
                self.without_addresses.push(peer);
                self.state.table.insert(Record::new(peer, self.now.wall))
            }
        };
        self.state.table.change(slot, |record| {
            change(record);
            record.saved |= book;
        });
    }

    /// Notes that something of the peer stands on disk that is not in memory.
    fn note_saved(&mut self, peer: &PeerId, book: Books) {
        let table = &mut self.state.table;
        if let Some(slot) = table.find(peer)
            && let Some(packed) = table.packed_mut(slot)
        {
            packed.set_saved(packed.saved() | book);
        }
    }

    fn is_full(&self) -> bool {
        self.state.table.len() >= self.state.config.max_peers().get()
    }

    fn worth(&self, class: Class, slot: u32) -> (Class, Timestamp) {
        let view = self.state.table.view(slot);
        (
            class,
            view.map(|view| view.last_heard()).unwrap_or_default(),
        )
    }
}
