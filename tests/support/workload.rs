//! A random workload on a store, the same for the same seed, and the model that the store is compared with.

// Every test file uses its own part of this.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};

use libp2p::{PeerId, multihash::Multihash};
use libp2p_peerstore::PeerStore;

use crate::support::addr;

/// How many peers a workload is about: few, so that each is changed often.
pub const PEERS: u8 = 40;

pub fn peer(n: u8) -> PeerId {
    // The code of SHA2-256: such an id contains no key.
    PeerId::from_multihash(Multihash::wrap(0x12, &[n; 32]).unwrap()).unwrap()
}

#[derive(Debug, Clone)]
pub enum Op {
    Add(u8, u16),
    Replace(u8, Vec<u16>),
    Remove(u8, u16),
    Protocols(u8, BTreeSet<u8>),
    Metadata(u8, u8, Vec<u8>),
    DeleteMetadata(u8, u8),
    Tag(u8, u8, u8),
    Delete(u8),
    Flush,
}

/// What is known of a peer. A peer of which nothing is known is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    pub addresses: BTreeSet<u16>,
    pub protocols: BTreeSet<u8>,
    pub metadata: BTreeMap<u8, Vec<u8>>,
    pub tags: BTreeMap<u8, u8>,
}

impl Known {
    /// How many keys of the datastore it takes.
    fn entries(&self) -> usize {
        let addresses = !self.addresses.is_empty() || !self.tags.is_empty();
        usize::from(addresses) + usize::from(!self.protocols.is_empty()) + self.metadata.len()
    }
}

/// What a store knows, or ought to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model(BTreeMap<u8, Known>);

/// Operations without end, the same for the same seed.
pub fn ops(seed: u64) -> impl Iterator<Item = Op> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(move || {
        let peer = random.u8(..PEERS);
        let port = random.u16(1..12);
        match random.u8(..100) {
            0..25 => Op::Add(peer, port),
            25..40 => Op::Replace(peer, (0..random.u16(1..6)).map(|n| port + n).collect()),
            40..48 => Op::Remove(peer, port),
            48..58 => Op::Protocols(peer, (0..random.u8(..6)).map(|_| random.u8(..9)).collect()),
            58..74 => {
                // Sometimes more than a page of the file.
                let longest = if random.u8(..4) == 0 { 4_096 } else { 60 };
                let value = vec![random.u8(..); random.usize(..=longest)];
                Op::Metadata(peer, random.u8(..5), value)
            }
            74..79 => Op::DeleteMetadata(peer, random.u8(..5)),
            79..84 => Op::Tag(peer, random.u8(..3), random.u8(..=100)),
            84..92 => Op::Delete(peer),
            _ => Op::Flush,
        }
    })
}

impl Model {
    pub fn apply(&mut self, op: &Op) {
        let peer = op.peer().unwrap_or_default();
        let known = self.0.entry(peer).or_default();
        match op {
            Op::Add(_, port) => _ = known.addresses.insert(*port),
            Op::Replace(_, ports) => known.addresses = ports.iter().copied().collect(),
            Op::Remove(_, port) => _ = known.addresses.remove(port),
            Op::Protocols(_, names) => known.protocols = names.clone(),
            Op::Metadata(_, key, value) => _ = known.metadata.insert(*key, value.clone()),
            Op::DeleteMetadata(_, key) => _ = known.metadata.remove(key),
            Op::Tag(_, name, value) => _ = known.tags.insert(*name, *value),
            Op::Delete(_) => *known = Known::default(),
            Op::Flush => {}
        }
        self.0.retain(|_, known| *known != Known::default());
    }

    /// What a store knows about the peers of workloads; it must know about no others.
    pub fn of(store: &PeerStore) -> Self {
        let mut model = BTreeMap::new();
        for n in 0..PEERS {
            let Some(found) = store.get(&peer(n)) else {
                continue;
            };
            let port = |port: &u16| found.multiaddrs().any(|known| *known == addr(*port));
            let name = |name: &u8| {
                let mut names = found.protocols.iter();
                names.any(|known| known.as_ref() == format!("/p/{name}"))
            };
            let known = Known {
                addresses: (1..20).filter(port).collect(),
                protocols: (0..9).filter(name).collect(),
                metadata: found
                    .metadata
                    .iter()
                    .map(|(key, value)| (key.parse().unwrap(), value.clone()))
                    .collect(),
                tags: store
                    .tags()
                    .get(&peer(n))
                    .unwrap_or_default()
                    .into_iter()
                    .map(|(name, tag)| (name.parse().unwrap(), tag.value))
                    .collect(),
            };
            assert_eq!(known.addresses.len(), found.addresses.len());
            assert_eq!(known.protocols.len(), found.protocols.len());
            if known != Known::default() {
                model.insert(n, known);
            }
        }
        assert_eq!(model.len(), store.len(), "it knows peers of nowhere");
        Self(model)
    }

    /// How many keys of the datastore it takes.
    pub fn entries(&self) -> usize {
        self.0.values().map(Known::entries).sum()
    }

    pub fn after(mut self, ops: &[Op]) -> Self {
        ops.iter().for_each(|op| self.apply(op));
        self
    }

    /// Asserts that each peer in `found` is as it was at some moment: after `promised`, or after one of the operations
    /// that followed. Each peer whole, and none that was gone by then.
    pub fn assert_reaches(&self, found: &Model, later: &[Op], context: &dyn std::fmt::Debug) {
        let mut allowed: BTreeMap<u8, Vec<Option<Known>>> = BTreeMap::new();
        let mut now = self.clone();
        for n in 0..PEERS {
            allowed.entry(n).or_default().push(now.0.get(&n).cloned());
        }
        for op in later {
            now.apply(op);
            if let Some(n) = op.peer() {
                allowed.entry(n).or_default().push(now.0.get(&n).cloned());
            }
        }
        for (n, allowed) in allowed {
            let found = found.0.get(&n).cloned();
            assert!(
                allowed.contains(&found),
                "peer {n} is {found:?}\nand not one of {allowed:?}\n{context:?}"
            );
        }
    }
}

impl Op {
    fn peer(&self) -> Option<u8> {
        match self {
            Op::Add(n, _)
            | Op::Replace(n, _)
            | Op::Remove(n, _)
            | Op::Protocols(n, _)
            | Op::Metadata(n, _, _)
            | Op::DeleteMetadata(n, _)
            | Op::Tag(n, _, _)
            | Op::Delete(n) => Some(*n),
            Op::Flush => None,
        }
    }

    /// Does it to a store, all but the flush.
    pub fn perform(&self, store: &PeerStore) {
        match self {
            Op::Add(n, port) => _ = store.addresses().add(peer(*n), [addr(*port)]),
            Op::Replace(n, ports) => {
                let ports = ports.iter().map(|port| addr(*port));
                store.addresses().set(peer(*n), ports);
            }
            Op::Remove(n, port) => _ = store.addresses().remove(peer(*n), [addr(*port)]),
            Op::Protocols(n, names) => {
                let names = names.iter().map(|name| format!("/p/{name}"));
                store.protocols().set(peer(*n), names);
            }
            Op::Metadata(n, key, value) => {
                let key = key.to_string();
                store.metadata().set(peer(*n), &key, value).unwrap();
            }
            Op::DeleteMetadata(n, key) => {
                store.metadata().delete_value(&peer(*n), &key.to_string());
            }
            Op::Tag(n, name, value) => {
                let name = name.to_string();
                store.tags().set(peer(*n), &name, *value, None).unwrap();
            }
            Op::Delete(n) => _ = store.delete(&peer(*n)),
            Op::Flush => {}
        }
    }
}
