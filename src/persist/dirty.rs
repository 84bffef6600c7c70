//! Where what is not saved is kept: by peer, by slot, and in the commit under way.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use libp2p_identity::PeerId;

use super::change::Change;

/// What is dirty, in many parts by a keyed hash: each grows by itself, so that no change waits for all of it to be moved.
#[derive(Debug)]
pub(super) struct Dirty {
    shards: Box<[HashMap<PeerId, Change>]>,
    hasher: RandomState,
    pub(super) len: usize,
}

const SHARDS: usize = 256;

impl Default for Dirty {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| HashMap::new()).collect(),
            hasher: RandomState::new(),
            len: 0,
        }
    }
}

impl Dirty {
    pub(super) fn get(&self, peer: &PeerId) -> Option<&Change> {
        // Mostly there are few.
        if self.len == 0 {
            return None;
        }
        self.shards[self.shard_of(peer)].get(peer)
    }

    pub(super) fn get_mut(&mut self, peer: &PeerId) -> Option<&mut Change> {
        self.shard(peer).get_mut(peer)
    }

    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.get(peer).is_some()
    }

    pub(super) fn get_or_insert(&mut self, peer: PeerId) -> &mut Change {
        if !self.contains(&peer) {
            self.len += 1;
        }
        self.shard(&peer).entry(peer).or_default()
    }

    pub(super) fn remove(&mut self, peer: &PeerId) -> Option<Change> {
        let removed = self.shard(peer).remove(peer);
        self.len -= usize::from(removed.is_some());
        removed
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = &PeerId> + '_ {
        self.shards.iter().flat_map(|shard| shard.keys())
    }

    fn shard(&mut self, peer: &PeerId) -> &mut HashMap<PeerId, Change> {
        &mut self.shards[self.shard_of(peer)]
    }

    fn shard_of(&self, peer: &PeerId) -> usize {
        self.hasher.hash_one(peer) as usize % SHARDS
    }
}

/// Everything that was dirty at one moment: to be taken apart without the lock.
#[derive(Debug)]
pub(crate) struct Changes(pub(super) Dirty);

impl Changes {
    pub(crate) fn into_vec(self) -> Vec<(PeerId, Change)> {
        self.0.shards.into_iter().flatten().collect()
    }
}

/// Peers of the commit under way, each with the number of its part; the parts before `committed` are on disk.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    pub(super) peers: HashMap<PeerId, usize>,
    pub(super) committed: usize,
    /// How many peers are in the parts that are not on disk yet.
    pub(super) rest: usize,
}

impl InFlight {
    pub(crate) fn new(changes: &[(PeerId, Change)], part: usize) -> Self {
        let peers = changes.iter().enumerate();
        Self {
            peers: peers.map(|(at, (peer, _))| (*peer, at / part)).collect(),
            committed: 0,
            rest: changes.len(),
        }
    }

    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        let part = self.peers.get(peer);
        part.is_some_and(|part| *part >= self.committed)
    }

    /// Who is not on disk yet.
    pub(super) fn rest(&self) -> impl Iterator<Item = &PeerId> + '_ {
        let parts = self.peers.iter();
        let rest = parts.filter(|(_, part)| **part >= self.committed);
        rest.map(|(peer, _)| peer)
    }
}

/// Slots of the table, a bit for each: however often one of them is given to another peer, it is noted once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Slots(pub(super) Vec<u64>);

impl Slots {
    pub(super) fn insert(&mut self, slot: u32) {
        let (word, bit) = ((slot / u64::BITS) as usize, slot % u64::BITS);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << bit;
    }

    pub(super) fn extend(&mut self, slots: &[u32]) {
        slots.iter().for_each(|slot| self.insert(*slot));
    }

    pub(crate) fn into_vec(self) -> Vec<u32> {
        let words = self.0.into_iter().zip((0..).step_by(u64::BITS as usize));
        let slots = words.flat_map(|(word, first)| {
            let set = (0..u64::BITS).filter(move |bit| word >> bit & 1 == 1);
            set.map(move |bit| first + bit)
        });
        slots.collect()
    }
}
