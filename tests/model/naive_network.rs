//! The connections of this node, and whether failures are the network's fault, as the documentation has it.

use std::collections::BTreeSet;

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;

use super::{
    naive::{Did, Naive, STEP},
    universe::{Reach, Scope, about},
};

/// A connection.
#[derive(Debug, Clone)]
pub struct Link {
    /// Without `/p2p/<peer>`.
    pub address: Multiaddr,
    pub dialled: bool,
    /// It goes on at another address than the one where it was made.
    pub moved: bool,
    /// `None` through a relay.
    pub reach: Option<Reach>,
    pub scope: Scope,
}

/// When part of the network proved to work.
#[derive(Debug, Clone, Default)]
pub struct Proofs {
    last: Option<u64>,
    /// The silences between proofs, as long as each counts.
    silences: Vec<f64>,
}

impl Naive {
    /// Notes for all addresses whether a connection is open there.
    pub fn note_links(&mut self) {
        let step = self.step();
        for (id, known) in &mut self.peers {
            let links = self.links.get(id).map_or(&[][..], Vec::as_slice);
            for known in &mut known.addresses {
                let at: Vec<&Link> = links
                    .iter()
                    .filter(|link| link.address == known.address)
                    .collect();
                if at.is_empty() {
                    if known.in_use || known.held {
                        let mut grain = known.grain(known.told(), &self.config);
                        if known.in_use {
                            grain = grain.max(self.config.proven_lifetime() / 4);
                            known.success = Some(step);
                        }
                        known.unwritten = known.unwritten.max(grain.as_secs() + STEP);
                        known.last_heard = step;
                    }
                    (known.in_use, known.held) = (false, false);
                }
                known.held |= at.iter().any(|link| !link.dialled);
            }
        }
    }

    /// A dial failed, and the network may be why.
    pub fn provisional_failure(&mut self, peer: PeerId, address: &Multiaddr) {
        self.said_nothing(peer, address);
        let failures = self.provisional.entry(about(address).scope).or_default();
        failures.push((peer, address.clone()));
    }

    /// A dial came to nothing that counts.
    pub fn said_nothing(&mut self, peer: PeerId, address: &Multiaddr) {
        let Some(address) = self.bare(&peer, address, &mut Did::default()) else {
            return;
        };
        let (last, times) = self.silent.entry((peer, address)).or_default();
        *times = if self.now - *last > 3_600 {
            1
        } else {
            *times + 1
        };
        *last = self.now;
    }

    /// Something was heard of an address, or it failed for all to see.
    pub fn said_something(&mut self, peer: PeerId, address: &Multiaddr) {
        if let Some(address) = self.bare(&peer, address, &mut Did::default()) {
            self.silent.remove(&(peer, address));
        }
    }

    /// Whether others are dialled beside an address since it said nothing: for 2 minutes, twice as long each time, and
    /// an hour at most.
    pub fn is_silent(&self, peer: PeerId, address: &Multiaddr) -> bool {
        let tried = self.silent.get(&(peer, address.clone()));
        tried.is_some_and(|(last, times)| {
            let minutes = (1..*times).fold(2, |minutes, _| 60.min(2 * minutes));
            self.now < last + minutes * 60
        })
    }

    /// Part of the network proved to work: failures since the last proof count, if that was not unusually long ago.
    pub fn works(&mut self, scope: Scope) {
        let worked = self.proofs.entry(scope).or_default().add(self.now);
        let failures = self.provisional.remove(&scope).unwrap_or_default();
        if !worked {
            self.silent
                .retain(|(_, address), _| about(address).scope != scope);
            return;
        }
        for (peer, address) in failures {
            self.dial_failed(peer, &address, false);
        }
    }

    /// Something came over the connections to a peer.
    pub fn alive(&mut self, peer: &PeerId) {
        let links = self.links.get(peer).into_iter().flatten();
        let scopes: BTreeSet<Scope> = links.map(|link| link.scope).collect();
        scopes.into_iter().for_each(|scope| self.works(scope));
    }

    /// The nearest addresses that a peer can tell of itself.
    pub fn nearest_from(&self, peer: &PeerId) -> Reach {
        let links = self.links.get(peer).into_iter().flatten();
        let nearest = links.filter_map(|link| link.reach).min();
        nearest.unwrap_or_else(|| self.nearest_from_anybody())
    }

    /// The nearest addresses that strangers can tell: as near as the farthest of our own connections.
    pub fn nearest_from_anybody(&self) -> Reach {
        let links = self.links.values().flatten();
        let farthest = links.filter_map(|link| link.reach).max();
        farthest.unwrap_or(Reach::Machine)
    }
}

impl Proofs {
    /// The network proved to work now. Returns whether the silence before was no longer than is believed: four times
    /// the usual one, at least a minute and at most ten. The usual one is that in which a random moment falls, and what
    /// is an hour older counts half, where no more than was believed of a silence is time; a first minute is as if ten
    /// had been usual enough to be believed.
    fn add(&mut self, now: u64) -> bool {
        let Some(before) = self.last.replace(now) else {
            return false;
        };
        let silence = (now - before) as f64;
        // From the latest to the earliest; what came before all is as old as they are.
        let (mut sum, mut squares, mut age) = (0.0, 0.0, 0.0_f64);
        for counted in self.silences.iter().rev() {
            let weight = (-age / 3_600.0).exp2();
            sum += weight * counted;
            squares += weight * counted * counted;
            age += counted;
        }
        let weight = (-age / 3_600.0).exp2();
        sum += weight * 60.0;
        squares += weight * 60.0 * 150.0;
        let believed = (4.0 * squares / sum).clamp(60.0, 600.0);
        self.silences.push(silence.min(believed));
        silence <= believed
    }
}
