//! After any run of insertions, changes and removals the table holds what a plain map holds, and its tables of what
//! records share hold what the records use and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use libp2p_core::Multiaddr;
use libp2p_swarm::StreamProtocol;
use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{
    address::Address,
    group::Group,
    history::{Epoch, History},
    record::{Books, Latency},
    seat::Seat,
};

/// What a record has, all of it chosen by a few bytes.
#[derive(Debug, Clone)]
struct Content {
    addresses: Vec<(u8, [u8; History::LEN])>,
    protocols: BTreeSet<u8>,
    agent: Option<u8>,
    version: Option<u8>,
    /// Metadata and dropped addresses: what few have.
    rare: (Vec<u8>, Vec<u8>),
    latency: Option<(u32, u32)>,
    source: Option<u8>,
    flags: (bool, bool, u8),
    moments: [u32; 4],
    due: Option<u32>,
}

prop_compose! {
    fn content()(
        addresses in vec((0..20_u8, any::<[u8; History::LEN]>()), 0..6),
        protocols in prop::collection::btree_set(0..8_u8, 0..5),
        agent in option::of(0..4_u8),
        version in option::of(0..4_u8),
        rare in (vec(0..5_u8, 0..3), vec(0..20_u8, 0..3)),
        latency in option::of((1..9_u32, 0..9_u32)),
        source in option::of(0..20_u8),
        flags in (any::<bool>(), any::<bool>(), 0..16_u8),
        moments in any::<[u32; 4]>(),
        due in option::of(0..100_u32),
    ) -> Content {
        Content { addresses, protocols, agent, version, rare, latency, source, flags, moments, due }
    }
}

#[derive(Debug, Clone)]
enum Act {
    /// Puts the record in, or gives it this content.
    Put(u8, Content),
    /// Takes the record out and puts it back as it is.
    Touch(u8),
    Remove(u8),
    /// Everything that is due by then comes out of the schedule.
    Due(u32),
}

fn act() -> impl Strategy<Value = Act> {
    let who = || 0..24_u8;
    prop_oneof![
        4 => (who(), content()).prop_map(|(n, content)| Act::Put(n, content)),
        1 => who().prop_map(Act::Touch),
        2 => who().prop_map(Act::Remove),
        1 => (0..100_u32).prop_map(Act::Due),
    ]
}

fn at(n: u8) -> Multiaddr {
    let text = match n % 5 {
        0 => format!("/ip4/8.{n}.1.1/tcp/1"),
        1 => format!("/ip6/2a01:{n}::1/udp/1/quic-v1"),
        2 => format!("/dns/{}", "a".repeat(100 + usize::from(n) * 2)),
        3 => "/ip4/10.0.0.1/tcp/1".to_owned(),
        _ => format!("/ip4/9.9.1.{n}/tcp/1"),
    };
    text.parse().expect("a multiaddr")
}

fn name(n: u8) -> StreamProtocol {
    StreamProtocol::try_from_owned(format!("/{n}")).expect("it begins with a slash")
}

fn text(n: u8) -> Arc<[u8]> {
    Arc::from(vec![n; usize::from(n)])
}

fn speakers(table: &Table, protocol: &str) -> Vec<u32> {
    let (slots, rest) = table.speakers(protocol, Bookmark::START, usize::MAX);
    assert!(rest.is_none());
    slots
}

/// Gives a record its content.
fn fill(record: &mut Record, content: &Content) {
    let Content { moments, .. } = *content;
    let second = |n: usize| Timestamp(moments[n].into());
    record.epoch = Epoch::from_bytes(moments[0].to_le_bytes());
    let entry = |(n, history): &(u8, [u8; History::LEN])| Entry {
        address: Address::from(at(*n).as_ref()),
        history: match n % 2 {
            0 => History::read(history),
            _ => History::read(&history[..History::SHORT_LEN]),
        },
    };
    record.addresses = content.addresses.iter().map(entry).collect();
    record.heard = second(1);
    record.addresses_changed = second(2);
    record.protocols_changed = second(3);
    record.first_proven = (moments[1] % 2 == 0).then(|| second(0));
    let names: Vec<StreamProtocol> = content.protocols.iter().copied().map(name).collect();
    record.put_protocols(names);
    record.agent = content.agent.map(text);
    record.version = content.version.map(text);
    record.latency = content
        .latency
        .and_then(|(mean, told)| Latency::restored(mean, told));
    record.source = content.source.and_then(|n| Site::of(&at(n)));
    (record.connected, record.accepted) = (content.flags.0, content.flags.1);
    record.saved = Books::from_bits_truncate(content.flags.2);
    let (metadata, dropped) = &content.rare;
    record.rare = Rare::default();
    for n in metadata {
        record.rare.metadata.insert(n.to_string(), vec![*n]);
    }
    record.rare.dropped = dropped
        .iter()
        .map(|n| (Address::from(at(*n).as_ref()), second(2)))
        .collect();
}

/// All of a record as text.
fn text_of(record: &Record) -> String {
    format!("{record:?}")
}

/// The table, and a plain map of what it must hold.
#[derive(Default)]
struct Both {
    table: Table,
    plain: BTreeMap<u8, (Content, u32)>,
    /// When each is due, by the schedule's word.
    due: BTreeMap<u8, u32>,
}

fn id(n: u8) -> PeerId {
    static IDS: std::sync::OnceLock<Vec<PeerId>> = std::sync::OnceLock::new();
    IDS.get_or_init(|| (0..=255).map(|_| PeerId::random()).collect())[usize::from(n)]
}

impl Both {
    fn act(&mut self, act: &Act) {
        match act {
            Act::Put(n, content) => self.put(*n, content),
            Act::Touch(n) => {
                if let Some(slot) = self.table.find(&id(*n)) {
                    let before = format!("{:?}", self.table.packed(slot));
                    self.table.change(slot, |_| ());
                    assert_eq!(format!("{:?}", self.table.packed(slot)), before);
                }
            }
            Act::Remove(n) => {
                if let Some(slot) = self.table.find(&id(*n)) {
                    self.table.remove(slot);
                }
                self.plain.remove(n);
                self.due.remove(n);
            }
            Act::Due(now) => self.pop_due(*now),
        }
    }

    fn put(&mut self, n: u8, content: &Content) {
        let slot = match self.table.find(&id(n)) {
            Some(slot) => {
                self.table.change(slot, |record| fill(record, content));
                slot
            }
            None => {
                let mut record = Record::new(id(n), Timestamp::default());
                fill(&mut record, content);
                self.table.insert(record)
            }
        };
        self.plain.insert(n, (content.clone(), slot));
        if let Some(due) = content.due {
            self.table.schedule(slot, Due::at(Timestamp(due.into())));
            // A later moment changes nothing.
            let earliest = self.due.get(&n).map_or(due, |other| due.min(*other));
            self.due.insert(n, earliest);
        }
    }

    fn pop_due(&mut self, now: u32) {
        let mut last = 0;
        while let Some(slot) = self.table.pop_due(Timestamp(now.into())) {
            let view = self.table.view(slot).expect("what is scheduled is there");
            let whose = self.plain.keys().find(|n| id(**n) == view.id()).copied();
            let due = whose.and_then(|n| self.due.remove(&n)).expect("it was due");
            assert!(due <= now && due >= last);
            last = due;
        }
        assert!(self.due.values().all(|due| *due > now));
    }

    /// Fails unless the two hold the same, and nothing is left of what is gone.
    fn assert_same(&mut self) {
        let Self { table, plain, due } = self;
        assert_eq!(table.len(), plain.len());
        let next = due.values().min().map(|at| Timestamp((*at).into()));
        assert_eq!(table.next_due(), next);
        let (page, _) = table.page(0, usize::MAX);
        let walked: BTreeSet<PeerId> = page.map(|view| view.id()).collect();
        assert_eq!(walked, plain.keys().map(|n| id(*n)).collect());
        let indexed: usize = table.index.iter().map(HashTable::len).sum();
        assert_eq!(indexed, plain.len());
        for n in 0..24 {
            let Some((content, slot)) = plain.get(&n) else {
                assert!(table.find(&id(n)).is_none());
                continue;
            };
            // A slot is the same for as long as its record lives.
            assert_eq!(table.find(&id(n)), Some(*slot));
            let mut expected = Record::new(id(n), Timestamp::default());
            fill(&mut expected, content);
            // Shared lists are in the order of whoever was first.
            let mut found = table.change(*slot, |record| {
                let mut names = record.protocols().to_vec();
                names.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
                let kept = record.protocols.clone();
                record.put_protocols(names);
                let found = text_of(record);
                record.protocols = kept;
                found
            });
            assert_eq!(found.take(), Some(text_of(&expected)));
            assert_eq!(table.seat(*slot), Some(expected.seat()));
        }
        self.assert_nothing_leaks();
    }

    fn assert_nothing_leaks(&self) {
        let (table, records) = (&self.table, || {
            self.plain.values().map(|(content, _)| content)
        });
        let different: BTreeSet<_> = records().map(|content| &content.protocols).collect();
        let different = different.iter().filter(|names| !names.is_empty()).count();
        assert_eq!(table.shared.lists.len(), different);
        let texts = records().flat_map(|content| [content.agent, content.version]);
        let texts: BTreeSet<u8> = texts.flatten().collect();
        assert_eq!(table.shared.texts.len(), texts.len());
        let rare =
            records().filter(|content| !content.rare.0.is_empty() || !content.rare.1.is_empty());
        assert_eq!(table.rare.len(), rare.count());
        for n in 0..8 {
            let mut speakers = speakers(table, name(n).as_ref());
            speakers.sort_unstable();
            let speaks = self
                .plain
                .values()
                .filter(|(content, _)| content.protocols.contains(&n));
            let mut expected: Vec<u32> = speaks.map(|(_, slot)| *slot).collect();
            expected.sort_unstable();
            assert_eq!(speakers, expected);
        }
        for list in List::ALL {
            let seats = self
                .plain
                .values()
                .filter_map(|(_, slot)| table.seat(*slot));
            let seats: Vec<Seat> = seats.filter(|seat| seat.list == list).collect();
            assert_eq!(table.count(list), seats.len());
            let groups: BTreeSet<Group> = seats.iter().filter_map(|seat| seat.group).collect();
            let of = |group: Group| {
                seats
                    .iter()
                    .filter(|seat| seat.group == Some(group))
                    .count()
            };
            assert_eq!(
                table.max_group(list),
                groups.iter().map(|g| of(*g)).max().unwrap_or(0)
            );
            for group in groups {
                assert_eq!(table.count_group(list, group), of(group));
            }
        }
    }
}

proptest! {
    #[test]
    fn after_any_run_the_table_holds_what_a_plain_map_holds(acts in vec(act(), 1..60)) {
        let mut both = Both::default();
        for act in &acts {
            both.act(act);
            both.assert_same();
        }
        // No more rows than records were there at once: freed ones are used again.
        prop_assert!(both.table.slots() <= 24);
        for n in 0..24 {
            both.act(&Act::Remove(n));
        }
        both.assert_same();
        prop_assert_eq!(both.table.next_due(), None);
    }
}

fn record_of(n: u8, protocols: &[StreamProtocol], agent: Arc<[u8]>) -> Record {
    let mut record = Record::new(id(n), Timestamp::default());
    record.put_protocols(protocols.to_vec());
    record.agent = Some(agent);
    record
}

#[test]
fn a_list_and_a_text_of_its_own_for_every_peer_go_with_their_peers() {
    let mut table = Table::default();
    let common = name(0);
    for round in 0..4_u32 {
        for n in 0..=255 {
            let own = format!("/own/{round}/{n}");
            let own = StreamProtocol::try_from_owned(own).expect("it begins with a slash");
            let agent = Arc::from(format!("agent {round} {n}").as_bytes());
            let changed = record_of(n, &[common.clone(), own], agent);
            match table.find(&id(n)) {
                Some(slot) => table
                    .change(slot, |record| *record = changed)
                    .expect("it is there"),
                None => _ = table.insert(changed),
            }
        }
        // Each round replaces what the one before had, and leaves nothing of it.
        assert_eq!(
            (table.shared.lists.len(), table.shared.texts.len()),
            (256, 256)
        );
        assert_eq!(speakers(&table, "/0").len(), 256);
        assert!(round == 0 || speakers(&table, &format!("/own/{}/7", round - 1)).is_empty());
        assert_eq!(speakers(&table, &format!("/own/{round}/7")).len(), 1);
    }
    for n in 0..=255 {
        let slot = table.find(&id(n)).expect("it is there");
        table.remove(slot);
        assert_eq!(speakers(&table, "/0").len(), 255 - usize::from(n));
    }
    assert_eq!((table.shared.lists.len(), table.shared.texts.len()), (0, 0));
    assert_eq!((table.len(), table.slots(), table.rare.len()), (0, 256, 0));
}

#[test]
fn the_index_finds_every_record_while_thousands_come_and_go() {
    let mut table = Table::default();
    let mut known: BTreeMap<PeerId, u32> = BTreeMap::new();
    let mut gone = Vec::new();
    for round in 0..20 {
        for _ in 0..500 {
            let id = PeerId::random();
            known.insert(id, table.insert(Record::new(id, Timestamp::default())));
        }
        // Those that happen to come first make room, as the ids are random.
        for _ in 0..round * 25 {
            if let Some((id, slot)) = known.pop_first() {
                table.remove(slot);
                gone.push(id);
            }
        }
        assert_eq!(table.len(), known.len());
        assert!(known.iter().all(|(id, slot)| table.find(id) == Some(*slot)));
        assert!(gone.iter().all(|id| table.find(id).is_none()));
    }
    let slots: BTreeSet<u32> = known.values().copied().collect();
    assert_eq!(slots.len(), known.len());
}
