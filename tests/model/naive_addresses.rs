//! The rules for addresses, as the documentation has them.

use libp2p_core::{Multiaddr, multiaddr::Protocol};
use libp2p_identity::PeerId;
use libp2p_peerstore::{Refused, Sources, Standing};

use super::{
    naive::{Did, Known, Naive},
    naive_address::{Address, is_word_of_strangers},
    universe::{self, Name, Reach, about},
};

/// How many dropped addresses of one peer are remembered as dropped.
const MAX_DROPPED: usize = 32;

/// The most bytes that `/p2p/<peer>` adds to an address.
const PEER_ID_LEN: usize = 47;

impl Known {
    /// The IP addresses at which only strangers say that it is.
    pub fn claims(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.addresses.iter().filter_map(Address::claim)
    }

    /// Whether hearsay must not bring the address back.
    fn is_dropped(&mut self, address: &Multiaddr, sources: Sources, now: u64) -> bool {
        self.dropped.retain(|(_, until)| *until > now);
        let hearsay = [
            Sources::KADEMLIA,
            Sources::RENDEZVOUS,
            Sources::MDNS,
            Sources::DISCOVERY,
        ];
        if hearsay.contains(&sources) {
            return self.dropped.iter().any(|(dropped, _)| dropped == address);
        }
        self.dropped.retain(|(dropped, _)| dropped != address);
        false
    }

    /// Takes an address away, so that hearsay does not bring it back.
    pub fn drop_address(&mut self, at: usize, until: u64) {
        let gone = self.addresses.remove(at);
        if gone.sources != Sources::INBOUND {
            if self.dropped.len() >= MAX_DROPPED {
                self.dropped.remove(0);
            }
            self.dropped.push((gone.address, until));
        }
    }
}

impl Naive {
    /// The form in which an address of a peer is stored; `None` for one that says nothing, or is refused.
    pub fn bare(&self, peer: &PeerId, address: &Multiaddr, did: &mut Did) -> Option<Multiaddr> {
        let max = self.config.max_address_len().get();
        let mut parts: Vec<Protocol<'_>> = address.iter().collect();
        if parts.is_empty() {
            did.refuse(Refused::EmptyAddress);
            return None;
        }
        if address.len() > max + PEER_ID_LEN {
            did.refuse(Refused::AddressTooLong);
            return None;
        }
        while let Some(Protocol::P2p(last)) = parts.last() {
            if last != peer {
                did.refuse(Refused::ForeignPeerId);
                return None;
            }
            parts.pop();
        }
        let bare: Multiaddr = parts.into_iter().collect();
        if bare.len() > max {
            did.refuse(Refused::AddressTooLong);
            return None;
        }
        (!bare.is_empty()).then_some(bare)
    }

    pub fn standing(&self, address: &Address) -> Standing {
        let lifetime = self.config.proven_lifetime();
        let proven = address.success.is_some_and(|at| self.since(at) < lifetime);
        let own_word = address.lifetime(Standing::SelfTold, &self.config);
        if address.in_use || proven {
            Standing::Proven
        } else if address.told() == Standing::SelfTold
            && address.is_told_by_others()
            && self.since(address.last_heard) >= own_word
        {
            Standing::Hearsay
        } else {
            address.told()
        }
    }

    /// Whether the time of the last success is more than a quarter of its lifetime old.
    pub fn is_success_stale(&self, address: &Address) -> bool {
        let grain = self.config.proven_lifetime() / 4;
        address.success.is_none_or(|at| self.since(at) > grain)
    }

    /// Whether another peer answered at the address, not long ago.
    pub fn is_blocked(&self, address: &Address) -> bool {
        let block = self.config.wrong_peer_block();
        address.wrong_peer && address.failure.is_some_and(|at| self.since(at) < block)
    }

    /// What a filter leaves of what was learnt.
    pub fn filtered(&self, told: &[Multiaddr], did: &mut Did) -> Vec<Multiaddr> {
        let mut admitted = told.to_vec();
        if self.filtered {
            admitted.retain(universe::is_admitted);
        }
        let refused = told.len() - admitted.len();
        did.refused
            .extend(std::iter::repeat_n(Refused::Filtered, refused));
        admitted
    }

    /// Why an address that is not known is not taken from a source.
    fn refuses(
        &self,
        peer: &PeerId,
        known: &Known,
        address: &Multiaddr,
        sources: Sources,
    ) -> Option<Refused> {
        let near = [
            Sources::PINNED,
            Sources::APPLICATION,
            Sources::MDNS,
            Sources::DIALLED,
            Sources::INBOUND,
        ];
        if near.contains(&sources) {
            return None;
        }
        let by_itself = sources.intersects(Sources::IDENTIFY | Sources::CERTIFIED);
        let nearest = match (by_itself, self.config.private_hearsay()) {
            (true, _) => self.nearest_from(peer),
            (false, true) => Reach::Machine,
            (false, false) => self.nearest_from_anybody(),
        };
        if about(address).reach < nearest {
            return Some(Refused::OutOfScope);
        }
        if by_itself || !self.is_hearsay_only(known) {
            return None;
        }
        let spot = about(address).spot?;
        let is_there = known
            .addresses
            .iter()
            .any(|known| about(&known.address).spot == Some(spot));
        let limit = self.config.max_claims_per_ip().get();
        (!is_there && self.claimants(spot) >= limit).then_some(Refused::TooManyClaims)
    }

    // --- telling -------------------------------------------------------------------------------------------

    pub fn add(
        &self,
        peer: &PeerId,
        known: &mut Known,
        told: &[Multiaddr],
        sources: Sources,
        did: &mut Did,
    ) {
        let limit = self.config.max_addresses_per_peer().get();
        let mut newcomers: Vec<Multiaddr> = Vec::new();
        for address in told {
            let Some(address) = self.bare(peer, address, did) else {
                continue;
            };
            if self.is_own(&address, sources) {
                did.refuse(Refused::OwnAddress);
            } else if self.hear(known, &address, sources) || newcomers.contains(&address) {
            } else if let Some(reason) = self.refuses(peer, known, &address, sources) {
                did.refuse(reason);
            } else if let Some(reason) = self.refuses_name(known, &newcomers, &address, sources) {
                did.refuse(reason);
            } else if known.is_dropped(&address, sources, self.now) {
                did.refuse(Refused::DroppedAddress);
            } else if newcomers.len() < limit {
                newcomers.push(address);
            } else {
                did.refuse(Refused::TooManyAddresses);
            }
        }
        for address in newcomers {
            let newcomer = Address::new(address, sources, self.step());
            self.place(peer, known, newcomer, did);
        }
    }

    /// Whether it turned out to be this node's own. What is pinned is the user's word.
    fn is_own(&self, address: &Multiaddr, sources: Sources) -> bool {
        sources != Sources::PINNED && self.own.contains(address)
    }

    /// Why a DNS name is not taken from strangers, beside what they told before and in the same breath.
    fn refuses_name(
        &self,
        known: &Known,
        newcomers: &[Multiaddr],
        address: &Multiaddr,
        sources: Sources,
    ) -> Option<Refused> {
        let name = about(address).name?;
        if !is_word_of_strangers(sources) {
            return None;
        }
        if name == Name::Dnsaddr {
            return Some(Refused::DnsaddrByHearsay);
        }
        let is_name = |address: &Multiaddr| about(address).name.is_some();
        let before = known.addresses.iter();
        let before = before.filter(|known| known.is_strangers() && is_name(&known.address));
        let new = newcomers.iter().filter(|newcomer| is_name(newcomer));
        let names = before.count() + new.count();
        (names >= self.config.max_hearsay_names()).then_some(Refused::TooManyNames)
    }

    /// Notes that an address was told again, if it is known.
    pub fn hear(&self, known: &mut Known, address: &Multiaddr, sources: Sources) -> bool {
        let step = self.step();
        let Some(known) = known.find(address) else {
            return false;
        };
        known.sources |= sources;
        known.announced |= sources.contains(Sources::MDNS);
        let grain = known.grain(known.told(), &self.config);
        if self.since(known.last_heard) > grain {
            known.last_heard = step;
        }
        if known.in_use && self.is_success_stale(known) {
            known.success = Some(step);
        }
        true
    }

    /// Puts a new address in, in the place of one that is worth less when there is no room. It may be that of an open
    /// connection, if it was dropped meanwhile.
    pub fn place(&self, peer: &PeerId, known: &mut Known, mut newcomer: Address, did: &mut Did) {
        let mut links = self.links.get(peer).into_iter().flatten();
        if links.any(|link| link.address == newcomer.address && link.dialled && !link.moved) {
            newcomer.sources |= Sources::DIALLED;
            (newcomer.in_use, newcomer.success) = (true, Some(self.step()));
        }
        if known.addresses.len() >= self.config.max_addresses_per_peer().get() {
            let Some(victim) = self.who_makes_room(known, &newcomer) else {
                did.refuse(Refused::TooManyAddresses);
                return;
            };
            known.addresses.remove(victim);
        }
        known.addresses.push(newcomer);
        did.change_addresses();
    }

    /// Of those that are neither pinned nor in use, the one of the lowest standing; of equals the one that was heard of
    /// longest ago, and then the one that came first.
    fn who_makes_room(&self, known: &Known, newcomer: &Address) -> Option<usize> {
        let worth = |address: &Address| (self.standing(address), address.last_heard);
        let mut worst: Option<usize> = None;
        for (at, address) in known.addresses.iter().enumerate() {
            if address.is_pinned() || address.in_use {
                continue;
            }
            if worst.is_none_or(|worst| worth(address) < worth(&known.addresses[worst])) {
                worst = Some(at);
            }
        }
        let victim = &known.addresses[worst?];
        let (theirs, its) = (self.standing(victim), self.standing(newcomer));
        let grain = victim.grain(theirs, &self.config);
        let yields = newcomer.is_pinned()
            || theirs < its
            || theirs == its && self.since(victim.last_heard) > grain;
        worst.filter(|_| yields)
    }

    pub fn replace(
        &self,
        peer: &PeerId,
        known: &mut Known,
        told: &[Multiaddr],
        source: Sources,
        did: &mut Did,
    ) {
        let limit = self.config.max_addresses_per_peer().get();
        // What is known comes first: of a list that is too long it is kept.
        let (mut complete, mut newcomers) = (Vec::new(), Vec::new());
        for address in told {
            let Some(address) = self.bare(peer, address, did) else {
                continue;
            };
            if self.is_own(&address, source) {
                did.refuse(Refused::OwnAddress);
                continue;
            }
            let part = match known.find(&address) {
                Some(_) => &mut complete,
                None => &mut newcomers,
            };
            if part.contains(&address) {
            } else if part.len() < limit {
                part.push(address);
            } else {
                did.refuse(Refused::TooManyAddresses);
            }
        }
        for address in newcomers {
            if let Some(reason) = self.refuses(peer, known, &address, source) {
                did.refuse(reason);
            } else if complete.len() < limit {
                complete.push(address);
            } else {
                did.refuse(Refused::TooManyAddresses);
            }
        }
        if complete.is_empty() {
            return;
        }
        let until = self.after(self.config.hearsay_lifetime());
        for (dropped, its) in &mut known.dropped {
            if !complete.contains(dropped) {
                *its = until.max(*its);
            }
        }
        let mut at = 0;
        while at < known.addresses.len() {
            let address = &known.addresses[at];
            let proven = self.standing(address) == Standing::Proven;
            if complete.contains(&address.address) {
                at += 1;
            } else if address.is_pinned() || self.config.keep_proven_on_replace() && proven {
                known.addresses[at].sources.remove(source);
                at += 1;
            } else {
                known.drop_address(at, until);
                did.change_addresses();
            }
        }
        self.add(peer, known, &complete, source, did);
    }

    // --- taking away ---------------------------------------------------------------------------------------

    pub fn remove(&self, peer: &PeerId, known: &mut Known, told: &[Multiaddr], did: &mut Did) {
        let until = self.after(self.config.hearsay_lifetime());
        for address in told {
            let Some(address) = self.bare(peer, address, did) else {
                continue;
            };
            if let Some(at) = known
                .addresses
                .iter()
                .position(|known| known.address == address)
            {
                known.drop_address(at, until);
                did.change_addresses();
            }
        }
    }

    pub fn unpin(&self, peer: &PeerId, known: &mut Known, told: &[Multiaddr], did: &mut Did) {
        let step = self.step();
        for address in told {
            if let Some(address) = self.bare(peer, address, did)
                && let Some(known) = known.find(&address)
                && known.is_pinned()
            {
                known.sources.remove(Sources::PINNED);
                known.sources.insert(Sources::APPLICATION);
                known.last_heard = step;
            }
        }
    }

    pub fn withdraw(
        &self,
        peer: &PeerId,
        known: &mut Known,
        told: Option<&[Multiaddr]>,
        source: Sources,
        did: &mut Did,
    ) {
        let told: Option<Vec<Multiaddr>> = told.map(|told| {
            told.iter()
                .filter_map(|address| self.bare(peer, address, did))
                .collect()
        });
        let before = known.addresses.len();
        known.addresses.retain_mut(|known| {
            if told
                .as_ref()
                .is_some_and(|told| !told.contains(&known.address))
            {
                return true;
            }
            let told_it = known.sources.contains(source);
            known.sources.remove(source);
            known.announced &= source != Sources::MDNS;
            let expires = known.expires(&self.config);
            let lives = expires.is_none_or(|at| at > self.now);
            !told_it || lives && !known.sources.is_empty()
        });
        if known.addresses.len() < before {
            did.change_addresses();
        }
    }

    pub fn certify(&self, peer: &PeerId, known: &mut Known, told: &[Multiaddr], did: &mut Did) {
        for address in told {
            if let Some(address) = self.bare(peer, address, did)
                && let Some(known) = known.find(&address)
            {
                known.sources.insert(Sources::CERTIFIED);
            }
        }
    }
}
