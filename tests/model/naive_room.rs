//! Who makes room when the store is full, or an IP address crowded. The choice among equals is the store's.

use libp2p_identity::PeerId;
use libp2p_peerstore::Sources;

use super::{
    naive::{Known, Naive},
    naive_address::Address,
    universe::about,
};

/// What a peer is worth, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Hearsay,
    Inbound,
    SelfTold,
    Proven,
    Connected,
    Pinned,
}

impl Naive {
    pub fn is_full(&self) -> bool {
        self.peers.len() >= self.config.max_peers().get()
    }

    pub fn class(&self, peer: &PeerId, known: &Known) -> Class {
        let all = |all: Sources, known: &Address| all | known.sources;
        let sources = known.addresses.iter().fold(Sources::empty(), all);
        if sources.contains(Sources::PINNED) {
            Class::Pinned
        } else if self.is_connected(peer) {
            Class::Connected
        } else if known.addresses.iter().any(|known| self.is_proven(known))
            || !known.tags.is_empty()
            || known.has_user_metadata()
        {
            Class::Proven
        } else if sources.contains(Sources::IDENTIFY)
            || sources.contains(Sources::CERTIFIED) && known.seen
        {
            Class::SelfTold
        } else if (sources - Sources::INBOUND - Sources::CERTIFIED).is_empty()
            && (!known.protocols.is_empty() || known.key.is_some())
        {
            // Nobody gossips protocols and keys.
            Class::SelfTold
        } else if sources == Sources::INBOUND {
            Class::Inbound
        } else {
            Class::Hearsay
        }
    }

    /// Makes room for a newcomer in the place of one of the least valuable peers, whom the store chose.
    pub fn make_room(&mut self, newcomer: &PeerId, known: &Known) -> bool {
        if !self.is_full() {
            return true;
        }
        let classes = self.peers.iter().map(|(id, known)| self.class(id, known));
        let Some(least) = classes.min() else {
            return true;
        };
        if least == Class::Pinned || least > self.class(newcomer, known) {
            return false;
        }
        let victim = self.evicted.pop_front();
        let victim = victim.expect("somebody made room for the newcomer");
        let class = self.class(&victim, &self.peers[&victim]);
        assert_eq!(class, least, "the least valuable peer goes first: {victim}");
        self.peers.remove(&victim);
        true
    }

    /// Those of whom only strangers say that they are at an IP address.
    pub fn claimants(&self, spot: &str) -> usize {
        let claims =
            |known: &&Known| self.is_hearsay_only(known) && known.claims().any(|at| at == spot);
        self.peers.values().filter(claims).count()
    }

    /// Who proves to be at an IP address takes the place of one of those of whom it is only said.
    pub fn displace_claims(&mut self, peer: &PeerId) {
        let limit = self.config.max_claims_per_ip().get();
        let mut crowded = Vec::new();
        for known in &self.peers[peer].addresses {
            let Some(spot) = about(&known.address).spot else {
                continue;
            };
            let is_there = self.is_proven(known)
                || known
                    .sources
                    .intersects(Sources::IDENTIFY | Sources::CERTIFIED)
                    && self.is_connected_at(peer, spot);
            if is_there && !crowded.contains(&spot) && self.claimants(spot) >= limit {
                crowded.push(spot);
            }
        }
        for spot in crowded {
            if self.claimants(spot) == 0 {
                continue;
            }
            let victim = self.displaced.pop_front();
            let victim = victim.expect("somebody made room at the IP address");
            let known = &self.peers[&victim];
            assert!(self.is_hearsay_only(known) && known.claims().any(|at| at == spot));
            let known = self.peers.get_mut(&victim).expect("the victim is known");
            known.addresses.retain(|known| known.claim() != Some(spot));
            self.remove_if_empty(&victim);
        }
    }

    fn is_connected_at(&self, peer: &PeerId, spot: &str) -> bool {
        let links = self.links.get(peer).into_iter().flatten();
        let mut direct = links.filter(|link| link.reach.is_some() && !link.moved);
        direct.any(|link| about(&link.address).spot == Some(spot))
    }
}
