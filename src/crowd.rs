//! The members of one class, by address group, so that the most crowded group is known at once.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
};

use hashbrown::HashTable;

use crate::{group::Group, seat::List};

/// Slots by group.
///
/// ```text
/// index:  hash of the group ──► number of the group
/// groups: [ group, place among its equals, members [slot, slot, …] ]
/// sizes:  1 ──► [number, number, …], 2 ──► […], …      the last entry holds the most crowded groups
/// ```
///
/// Whoever has no group is not in a crowd, however many they are.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    index: HashTable<u32>,
    groups: Vec<Members>,
    free: Vec<u32>,
    sizes: BTreeMap<u32, Vec<u32>>,
    alone: Vec<u32>,
    len: usize,
}

/// Where a slot stands: its list in the upper three bits, the number of its group there, or [`ALONE`], in the others;
/// and its place in the group.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place {
    group: u32,
    at: u32,
}

const LIST_SHIFT: u32 = 29;
const ALONE: u32 = (1 << LIST_SHIFT) - 1;

impl Place {
    pub(crate) fn list(self) -> List {
        List::ALL[(self.group >> LIST_SHIFT) as usize % List::ALL.len()]
    }

    pub(crate) fn in_list(self, list: List) -> Self {
        let group = self.number() | (list as u32) << LIST_SHIFT;
        Self { group, ..self }
    }

    fn number(self) -> u32 {
        self.group & ALONE
    }
}

#[derive(Debug)]
struct Members {
    group: Group,
    among_equals: u32,
    slots: Slots,
}

/// Most groups have one member, which needs no allocation.
#[derive(Debug)]
enum Slots {
    One(u32),
    Many(Vec<u32>),
}

impl Slots {
    fn as_slice(&self) -> &[u32] {
        match self {
            Slots::One(slot) => std::slice::from_ref(slot),
            Slots::Many(slots) => slots,
        }
    }

    fn push(&mut self, slot: u32) {
        match self {
            Slots::One(first) => *self = Slots::Many(vec![*first, slot]),
            Slots::Many(slots) => slots.push(slot),
        }
    }
}

impl Crowd {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The size of the most crowded group; 0 when all are alone.
    pub(crate) fn max_size(&self) -> usize {
        let last = self.sizes.last_key_value();
        last.map_or(0, |(size, _)| *size as usize)
    }

    /// The members of a group.
    pub(crate) fn members(&self, group: Group, hasher: &RandomState) -> &[u32] {
        let number = self.number(group, hasher);
        let members = number.and_then(|number| self.groups.get(number as usize));
        members.map_or(&[], |members| members.slots.as_slice())
    }

    /// The group in which somebody stands.
    pub(crate) fn group(&self, place: Place) -> Option<Group> {
        let members = self.groups.get(place.number() as usize);
        members.map(|members| members.group)
    }

    pub(crate) fn join(&mut self, slot: u32, group: Option<Group>, hasher: &RandomState) -> Place {
        self.len += 1;
        let Some(group) = group else {
            self.alone.push(slot);
            return Place {
                group: ALONE,
                at: (self.alone.len() - 1) as u32,
            };
        };
        let number = match self.number(group, hasher) {
            Some(number) => {
                self.leave_equals(number);
                self.groups[number as usize].slots.push(slot);
                number
            }
            None => self.found(group, slot, hasher),
        };
        self.join_equals(number);
        Place {
            group: number,
            at: (self.groups[number as usize].slots.as_slice().len() - 1) as u32,
        }
    }

    /// Takes a slot out. Returns the slot that moved into its place.
    pub(crate) fn leave(&mut self, place: Place, hasher: &RandomState) -> Option<u32> {
        self.len -= 1;
        let at = place.at as usize;
        let number = place.number();
        if number == ALONE {
            self.alone.swap_remove(at);
            return self.alone.get(at).copied();
        }
        self.leave_equals(number);
        let members = &mut self.groups[number as usize];
        let moved = match &mut members.slots {
            Slots::One(_) => {
                let hash = hasher.hash_one(members.group);
                if let Ok(entry) = self.index.find_entry(hash, |n| *n == number) {
                    entry.remove();
                }
                self.free.push(number);
                return None;
            }
            Slots::Many(slots) => {
                slots.swap_remove(at);
                let moved = slots.get(at).copied();
                if let [last] = slots[..] {
                    members.slots = Slots::One(last);
                }
                moved
            }
        };
        self.join_equals(number);
        moved
    }

    /// A random member of the most crowded groups. `random` yields numbers that nobody foresees.
    pub(crate) fn crowded(&self, mut random: impl FnMut() -> u64) -> Option<u32> {
        let slots = match self.sizes.last_key_value() {
            Some((_, equals)) => {
                let number = pick(equals, random())?;
                self.groups[number as usize].slots.as_slice()
            }
            None => &self.alone,
        };
        pick(slots, random())
    }

    fn number(&self, group: Group, hasher: &RandomState) -> Option<u32> {
        let is_it = |number: &u32| self.groups[*number as usize].group == group;
        self.index.find(hasher.hash_one(group), is_it).copied()
    }

    fn found(&mut self, group: Group, slot: u32, hasher: &RandomState) -> u32 {
        let members = Members {
            group,
            among_equals: 0,
            slots: Slots::One(slot),
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.groups[number as usize] = members;
                number
            }
            None => {
                self.groups.push(members);
                (self.groups.len() - 1) as u32
            }
        };
        let groups = &self.groups;
        self.index
            .insert_unique(hasher.hash_one(group), number, |number| {
                hasher.hash_one(groups[*number as usize].group)
            });
        number
    }

    fn join_equals(&mut self, number: u32) {
        let members = &mut self.groups[number as usize];
        let size = members.slots.as_slice().len() as u32;
        let equals = self.sizes.entry(size).or_default();
        members.among_equals = equals.len() as u32;
        equals.push(number);
    }

    fn leave_equals(&mut self, number: u32) {
        let members = &self.groups[number as usize];
        let (at, size) = (members.among_equals, members.slots.as_slice().len() as u32);
        let Some(equals) = self.sizes.get_mut(&size) else {
            return;
        };
        equals.swap_remove(at as usize);
        if let Some(moved) = equals.get(at as usize) {
            self.groups[*moved as usize].among_equals = at;
        }
        if equals.is_empty() {
            self.sizes.remove(&size);
        }
    }
}

/// One of them, by a random number.
pub(crate) fn pick(slots: &[u32], random: u64) -> Option<u32> {
    let at = random.checked_rem(slots.len() as u64)?;
    slots.get(at as usize).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn group(n: u8) -> Group {
        Group::of(
            &format!("/ip4/1.{n}.0.0/tcp/1")
                .parse::<libp2p_core::Multiaddr>()
                .expect("a multiaddr"),
        )
        .expect("public")
    }

    proptest! {
        #[test]
        fn after_any_comings_and_goings_the_most_crowded_group_is_known(
            acts in prop::collection::vec((any::<u8>(), prop::option::of(0..6_u8)), 1..200),
        ) {
            let hasher = RandomState::new();
            let mut crowd = Crowd::default();
            let mut places: HashMap<u32, (Place, Option<u8>)> = HashMap::new();
            for (slot, of) in acts {
                let slot = u32::from(slot % 32);
                if let Some((place, _)) = places.remove(&slot) {
                    if let Some(moved) = crowd.leave(place, &hasher) {
                        places.get_mut(&moved).expect("a member").0 = place;
                    }
                } else {
                    let place = crowd.join(slot, of.map(group), &hasher);
                    places.insert(slot, (place, of));
                }
                prop_assert_eq!(crowd.len(), places.len());
                let count = |g: u8| places.values().filter(|(_, of)| *of == Some(g)).count();
                let max = (0..6).map(count).max().unwrap_or_default();
                prop_assert_eq!(crowd.max_size(), max);
                for g in 0..6 {
                    let mut members = crowd.members(group(g), &hasher).to_vec();
                    members.sort_unstable();
                    let mut told: Vec<u32> =
                        places.iter().filter(|(_, (_, of))| *of == Some(g)).map(|(slot, _)| *slot).collect();
                    told.sort_unstable();
                    prop_assert_eq!(members, told);
                }
                for n in 0..8 {
                    match crowd.crowded(|| hasher.hash_one(n)) {
                        Some(slot) => {
                            let of = places[&slot].1;
                            prop_assert!(of.map_or(max == 0, |g| count(g) == max));
                        }
                        None => prop_assert!(places.is_empty()),
                    }
                }
            }
        }
    }
}
