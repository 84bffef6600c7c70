//! What many peers have alike, kept once: lists of protocols, and the names and versions of their software.
//!
//! Each is counted by use and goes with its last use, so that nobody can make it grow by more than one entry for each peer
//! that is known. Texts of strangers are hashed with a secret of this process.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use hashbrown::HashTable;
use libp2p_swarm::StreamProtocol;

/// Lists of protocols, and who speaks which.
///
/// ```text
/// index:     what the names hash to, in any order ──► number of the list
/// lists:     [ the names, who has the list [slot, slot, …], its places among the lists of each name ]
/// speakers:  name ──► numbers of the lists that contain it
/// ```
///
/// Two lists of the same names are one, in the order of whoever was first.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    index: HashTable<u32>,
    lists: Vec<List>,
    free: Vec<u32>,
    speakers: HashTable<Speakers>,
    hasher: RandomState,
}

#[derive(Debug)]
struct List {
    names: Arc<[StreamProtocol]>,
    hash: u64,
    members: Vec<u32>,
    /// Where the list stands in the lists of each of its names.
    places: Box<[u32]>,
}

#[derive(Debug)]
struct Speakers {
    name: StreamProtocol,
    lists: Vec<u32>,
}

/// How far a walk over those who speak a protocol has come: so many lists, and members of the last of them, are left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bookmark {
    lists: usize,
    members: usize,
}

impl Bookmark {
    pub(crate) const START: Self = Self {
        lists: usize::MAX,
        members: usize::MAX,
    };
}

/// What going to another list takes, in members.
const STEPS_PER_LIST: usize = 16;

impl Lists {
    pub(crate) fn get(&self, number: u32) -> Option<&Arc<[StreamProtocol]>> {
        self.lists.get(number as usize).map(|list| &list.names)
    }

    /// Adds a peer to those who have a list without duplicates. Returns the number of the list, and the place of the
    /// peer.
    pub(crate) fn join(&mut self, names: &Arc<[StreamProtocol]>, slot: u32) -> (u32, u32) {
        let hash = self.hash(names);
        let (lists, index) = (&mut self.lists, &self.index);
        let is_it = |number: &u32| {
            let list = &lists[*number as usize];
            list.hash == hash && same_set(&list.names, names)
        };
        let number = match index.find(hash, is_it) {
            Some(number) => *number,
            None => self.found(names.clone(), hash),
        };
        let members = &mut self.lists[number as usize].members;
        members.push(slot);
        (number, (members.len() - 1) as u32)
    }

    /// Takes a peer out. Returns the slot that moved into its place.
    pub(crate) fn leave(&mut self, number: u32, place: u32) -> Option<u32> {
        let list = self.lists.get_mut(number as usize)?;
        let place = place as usize;
        if place < list.members.len() {
            list.members.swap_remove(place);
        }
        if list.members.is_empty() {
            self.abandon(number);
            return None;
        }
        if list.members.len() < list.members.capacity() / 4 {
            list.members.shrink_to(list.members.len() * 2);
        }
        list.members.get(place).copied()
    }

    /// Some of those who speak a protocol, and where to go on: `None` at the end. It goes from the end to the beginning,
    /// so that whoever stays is met although others go in between and the last take their places.
    pub(crate) fn speakers(
        &self,
        name: &str,
        from: Bookmark,
        steps: usize,
    ) -> (Vec<u32>, Option<Bookmark>) {
        let hash = self.hasher.hash_one(name);
        let speakers = self
            .speakers
            .find(hash, |other| other.name.as_ref() == name);
        let lists = speakers.map_or(&[][..], |speakers| &speakers.lists);
        let (mut found, mut steps) = (Vec::new(), steps);
        // The list where it stopped may be gone, or have taken the place of another: before it, nothing was met yet.
        let mut at = match from.lists > lists.len() {
            true => Bookmark {
                lists: lists.len(),
                ..Bookmark::START
            },
            false => from,
        };
        while let Some(number) = at.lists.checked_sub(1).and_then(|list| lists.get(list)) {
            if steps < STEPS_PER_LIST {
                return (found, Some(at));
            }
            let members = &self.lists[*number as usize].members;
            let end = at.members.min(members.len());
            let start = end.saturating_sub(steps);
            found.extend_from_slice(&members[start..end]);
            steps = (steps - (end - start)).saturating_sub(STEPS_PER_LIST);
            at = match start {
                0 => Bookmark {
                    lists: at.lists - 1,
                    ..Bookmark::START
                },
                members => Bookmark { members, ..at },
            };
        }
        (found, None)
    }

    /// How many different lists there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    fn hash(&self, names: &[StreamProtocol]) -> u64 {
        // A sum, so that the order makes no difference.
        let hashes = names.iter().map(|name| self.hasher.hash_one(name.as_ref()));
        hashes.fold(0, u64::wrapping_add)
    }

    fn found(&mut self, names: Arc<[StreamProtocol]>, hash: u64) -> u32 {
        let number = self.free.pop().unwrap_or(self.lists.len() as u32);
        let hasher = &self.hasher;
        let mut places = Vec::with_capacity(names.len());
        for name in &*names {
            let speakers = self.speakers.entry(
                hasher.hash_one(name.as_ref()),
                |other| other.name == *name,
                |other| hasher.hash_one(other.name.as_ref()),
            );
            let mut speakers = speakers.or_insert_with(|| Speakers {
                name: name.clone(),
                lists: Vec::new(),
            });
            let lists = &mut speakers.get_mut().lists;
            places.push(lists.len() as u32);
            lists.push(number);
        }
        let list = List {
            names,
            hash,
            members: Vec::new(),
            places: places.into(),
        };
        match self.lists.get_mut(number as usize) {
            Some(vacant) => *vacant = list,
            None => self.lists.push(list),
        }
        let lists = &self.lists;
        self.index
            .insert_unique(hash, number, |number| lists[*number as usize].hash);
        number
    }

    /// The last who had the list has it no longer.
    fn abandon(&mut self, number: u32) {
        let list = &mut self.lists[number as usize];
        let (names, places) = (
            std::mem::take(&mut list.names),
            std::mem::take(&mut list.places),
        );
        if let Ok(entry) = self.index.find_entry(list.hash, |other| *other == number) {
            entry.remove();
        }
        list.members = Vec::new();
        for (name, place) in names.iter().zip(places) {
            let hash = self.hasher.hash_one(name.as_ref());
            let Ok(mut entry) = self.speakers.find_entry(hash, |other| other.name == *name) else {
                continue;
            };
            let lists = &mut entry.get_mut().lists;
            lists.swap_remove(place as usize);
            let moved = lists.get(place as usize).copied();
            if lists.is_empty() {
                entry.remove();
            }
            if let Some(moved) = moved {
                let moved = &mut self.lists[moved as usize];
                let at = moved.names.iter().position(|other| other == name);
                if let Some(at) = at {
                    moved.places[at] = place;
                }
            }
        }
        self.free.push(number);
    }
}

/// Whether a list holds the same as one without duplicates. Nearly always it does, and in the same order.
pub(crate) fn same_set(unique: &[StreamProtocol], other: &[StreamProtocol]) -> bool {
    /// Beyond so many names they are hashed rather than searched.
    const MANY: usize = 64;
    let same = |(a, b): (&StreamProtocol, &StreamProtocol)| a.as_ref() == b.as_ref();
    if unique.len() != other.len() {
        return false;
    }
    if unique.iter().zip(other).all(same) {
        return true;
    }
    // Each of the one in the other, not the other way round: that may name one thing twice in the place of two.
    if unique.len() <= MANY {
        return unique.iter().all(|name| other.contains(name));
    }
    let other: std::collections::HashSet<&StreamProtocol> = other.iter().collect();
    unique.iter().all(|name| other.contains(name))
}

/// Short texts, counted by use.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    index: HashTable<u32>,
    texts: Vec<Text>,
    free: Vec<u32>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Text {
    bytes: Arc<[u8]>,
    uses: u32,
}

impl Texts {
    pub(crate) fn get(&self, number: u32) -> Option<&Arc<[u8]>> {
        self.texts.get(number as usize).map(|text| &text.bytes)
    }

    /// One more uses this text. Returns its number.
    pub(crate) fn take(&mut self, bytes: &Arc<[u8]>) -> u32 {
        let hash = self.hasher.hash_one(bytes);
        let texts = &mut self.texts;
        if let Some(number) = self
            .index
            .find(hash, |number| texts[*number as usize].bytes == *bytes)
        {
            texts[*number as usize].uses += 1;
            return *number;
        }
        let text = Text {
            bytes: bytes.clone(),
            uses: 1,
        };
        let number = self.free.pop().unwrap_or(texts.len() as u32);
        match texts.get_mut(number as usize) {
            Some(vacant) => *vacant = text,
            None => texts.push(text),
        }
        let (texts, hasher) = (&self.texts, &self.hasher);
        self.index.insert_unique(hash, number, |number| {
            hasher.hash_one(&texts[*number as usize].bytes)
        });
        number
    }

    /// One less uses the text.
    pub(crate) fn release(&mut self, number: u32) {
        let Some(text) = self.texts.get_mut(number as usize) else {
            return;
        };
        text.uses -= 1;
        if text.uses > 0 {
            return;
        }
        let hash = self.hasher.hash_one(&text.bytes);
        *text = Text::default();
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == number) {
            entry.remove();
        }
        self.free.push(number);
    }

    /// How many different texts there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn list(names: &[u8]) -> Arc<[StreamProtocol]> {
        let name = |n: &u8| StreamProtocol::try_from_owned(format!("/{n}"));
        let mut names: Vec<_> = names.to_vec();
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(*name));
        names
            .iter()
            .map(|n| name(n).expect("it begins with a slash"))
            .collect()
    }

    proptest! {
        #[test]
        fn after_any_comings_and_goings_everybody_is_found_by_what_they_speak(
            acts in prop::collection::vec((0..16_u32, prop::collection::vec(0..6_u8, 1..5)), 1..120),
        ) {
            let mut lists = Lists::default();
            let mut members: HashMap<u32, (u32, u32, Arc<[StreamProtocol]>)> = HashMap::new();
            for (slot, names) in acts {
                if let Some((number, place, _)) = members.remove(&slot) {
                    if let Some(moved) = lists.leave(number, place) {
                        members.get_mut(&moved).expect("a member").1 = place;
                    }
                } else {
                    let names = list(&names);
                    let (number, place) = lists.join(&names, slot);
                    members.insert(slot, (number, place, names));
                }
                for n in 0..6 {
                    let name = format!("/{n}");
                    let (mut found, rest) = lists.speakers(&name, Bookmark::START, usize::MAX);
                    assert!(rest.is_none());
                    let speaks = |names: &[StreamProtocol]| names.iter().any(|other| other.as_ref() == name);
                    let mut told: Vec<u32> = members.iter().filter(|(_, (_, _, names))| speaks(names)).map(|(slot, _)| *slot).collect();
                    found.sort_unstable();
                    told.sort_unstable();
                    prop_assert_eq!(found, told);
                }
                let mut different: Vec<Vec<String>> = members.values().map(|(_, _, names)| {
                    let mut names: Vec<String> = names.iter().map(ToString::to_string).collect();
                    names.sort();
                    names
                }).collect();
                different.sort();
                different.dedup();
                prop_assert_eq!(lists.len(), different.len());
            }
        }
    }

    type Members = HashMap<u32, (u32, u32)>;

    /// Whoever is there goes, whoever is not comes.
    fn act(lists: &mut Lists, members: &mut Members, slot: u32, names: &[u8]) {
        match members.remove(&slot) {
            Some((number, place)) => {
                if let Some(moved) = lists.leave(number, place) {
                    members.get_mut(&moved).expect("a member").1 = place;
                }
            }
            None => _ = members.insert(slot, lists.join(&list(names), slot)),
        }
    }

    proptest! {
        #[test]
        fn a_walk_meets_all_who_stay_whoever_comes_and_goes_meanwhile(
            stay in prop::collection::vec(prop::collection::vec(0..4_u8, 0..3), 80),
            // Twenty at once, so that whole lists come and go.
            acts in prop::collection::vec((0..6_u32, 4..9_u8), 8..60),
            steps in STEPS_PER_LIST..64,
        ) {
            let (mut lists, mut members) = (Lists::default(), Members::new());
            let toggle = |lists: &mut _, members: &mut _, (twenty, name): (u32, u8)| {
                for n in 0..20 {
                    act(lists, members, twenty * 20 + n, &[9, name]);
                }
            };
            let (before, during) = acts.split_at(acts.len() / 2);
            let mut stay = (1_000..).zip(&stay);
            for twenty in before {
                for (slot, names) in stay.by_ref().take(20) {
                    act(&mut lists, &mut members, slot, &[&[9], &names[..]].concat());
                }
                toggle(&mut lists, &mut members, *twenty);
            }
            let stayers: Vec<u32> = members.keys().copied().filter(|slot| *slot >= 1_000).collect();
            let (mut met, mut next) = (std::collections::HashSet::new(), Some(Bookmark::START));
            let mut during = during.iter();
            while let Some(from) = next {
                let page;
                (page, next) = lists.speakers("/9", from, steps);
                prop_assert!(page.len() <= steps);
                met.extend(page);
                if let Some(twenty) = during.next() {
                    toggle(&mut lists, &mut members, *twenty);
                }
            }
            for slot in stayers {
                prop_assert!(met.contains(&slot), "{}", slot);
            }
        }
    }

    #[test]
    fn the_same_names_in_another_order_are_the_same_list() {
        let mut lists = Lists::default();
        let (one, other) = (
            lists.join(&list(&[1, 2, 3]), 7),
            lists.join(&list(&[3, 1, 2]), 8),
        );
        assert_eq!(one.0, other.0);
        assert_eq!(lists.len(), 1);
    }

    #[test]
    fn a_list_that_names_one_thing_twice_is_not_the_same_as_one_of_two_things() {
        let names = |numbers: &mut dyn Iterator<Item = u32>| -> Vec<StreamProtocol> {
            let name = |n| StreamProtocol::try_from_owned(format!("/{n}"));
            numbers
                .map(|n| name(n).expect("it begins with a slash"))
                .collect()
        };
        for len in [2, 64, 65, 300] {
            let unique = names(&mut (0..len));
            let repeated = names(&mut (0..len).map(|n| n.min(len - 2)));
            let turned = names(&mut (0..len).rev());
            assert!(!same_set(&unique, &repeated), "{len}");
            assert!(same_set(&unique, &turned), "{len}");
        }
    }

    #[test]
    fn a_text_is_kept_once_and_goes_with_its_last_use() {
        let mut texts = Texts::default();
        let text = |text: &str| Arc::from(text.as_bytes());
        let one = texts.take(&text("a"));
        assert_eq!(texts.take(&text("a")), one);
        let other = texts.take(&text("b"));
        assert_eq!(texts.len(), 2);
        texts.release(one);
        assert_eq!(texts.get(one).map(|text| &**text), Some(&b"a"[..]));
        texts.release(one);
        assert_eq!(texts.len(), 1);
        assert_eq!(texts.take(&text("c")), one, "its number is used again");
        assert_eq!(texts.get(other).map(|text| &**text), Some(&b"b"[..]));
    }
}
