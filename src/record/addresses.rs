//! The rules for addresses: what adds, what replaces, what takes away, and who makes room for whom.

use libp2p_core::Multiaddr;

use super::{Books, Delta, Record, Rules};
use crate::{
    address::{Entry, Sources, Standing, bare},
    refusal::Refused,
};

/// How many dropped addresses of one peer are remembered as dropped.
const MAX_DROPPED: usize = 32;

impl Record {
    /// Adds what `sources` told. Nothing is dropped by it, except to make room.
    pub(crate) fn add_addresses(
        &mut self,
        told: &[Multiaddr],
        sources: Sources,
        rules: Rules<'_>,
        delta: &mut Delta,
    ) {
        let limit = rules.config.max_addresses_per_peer().get();
        let mut newcomers = Vec::new();
        for address in told {
            let Some(address) = self.normalise(address, rules, delta) else {
                continue;
            };
            // Known ones are refreshed first, so that a newcomer does not displace one told in the same breath.
            if let Some(entry) = self.find(&address) {
                hear(entry, sources, rules, delta);
            } else if self.is_dropped(&address, sources, rules) {
                delta.refuse(Refused::DroppedAddress);
            } else if !newcomers.contains(&address) {
                if newcomers.len() < limit {
                    newcomers.push(address);
                } else {
                    delta.refuse(Refused::TooManyAddresses);
                }
            }
        }
        for address in newcomers {
            self.place(Entry::new(address, sources, rules.now), rules, delta);
        }
    }

    /// Replaces the addresses by what `source` told as the complete list. Pinned ones stay. An empty list, or
    /// one of which nothing is fit to be stored, says nothing and changes nothing.
    pub(crate) fn replace_addresses(
        &mut self,
        told: &[Multiaddr],
        source: Sources,
        rules: Rules<'_>,
        delta: &mut Delta,
    ) {
        let limit = rules.config.max_addresses_per_peer().get();
        // Of a list that is too long the known ones are kept first: identify tells it in an order of chance, and
        // the book must not flap between two parts of it.
        let (mut complete, mut newcomers) = (Vec::new(), Vec::new());
        for address in told {
            let Some(address) = self.normalise(address, rules, delta) else {
                continue;
            };
            let part = match self.find(&address) {
                Some(_) => &mut complete,
                None => &mut newcomers,
            };
            if part.contains(&address) {
                continue;
            }
            if part.len() < limit {
                part.push(address);
            } else {
                delta.refuse(Refused::TooManyAddresses);
            }
        }
        for address in newcomers {
            if complete.len() < limit {
                complete.push(address);
            } else {
                delta.refuse(Refused::TooManyAddresses);
            }
        }
        if complete.is_empty() {
            return;
        }
        // What was dropped before is not in the list of today either: it stays dropped for as long again.
        for (address, dropped) in &mut self.dropped {
            if !complete.contains(address) {
                *dropped = rules.now;
            }
        }

        let keep_proven = rules.config.keep_proven_on_replace();
        let gone = self.addresses.extract_if(.., |entry| {
            if complete.contains(&entry.address) {
                return false;
            }
            if entry.is_pinned() || (keep_proven && rules.standing(entry) == Standing::Proven) {
                entry.sources.remove(source);
                return false;
            }
            true
        });
        let gone: Vec<Entry> = gone.collect();
        for entry in gone {
            self.drop_entry(entry, rules, delta);
        }
        self.add_addresses(&complete, source, rules, delta);
    }

    /// Takes addresses away for good: hearsay alone does not bring them back.
    pub(crate) fn remove_addresses(
        &mut self,
        told: &[Multiaddr],
        rules: Rules<'_>,
        delta: &mut Delta,
    ) {
        for address in told {
            let Some(address) = self.normalise(address, rules, delta) else {
                continue;
            };
            if let Some(at) = self.addresses.iter().position(|e| e.address == address) {
                let entry = self.addresses.remove(at);
                self.drop_entry(entry, rules, delta);
            }
        }
    }

    /// Forgets every address, the unreadable ones and the signed record included.
    pub(crate) fn clear_addresses(&mut self, delta: &mut Delta) {
        if !self.addresses.is_empty() {
            delta.change(Books::ADDRESSES);
        }
        if let Some(foreign) = &mut self.foreign {
            foreign.addresses.clear();
            foreign.unreadable.clear();
            delta.save |= Books::ADDRESSES;
        }
        if self.signed.take().is_some() {
            delta.save |= Books::ADDRESSES;
        }
        self.addresses.clear();
        self.dropped.clear();
    }

    /// A discovery protocol no longer vouches for `told`, or for anything of this peer when that is `None`.
    /// An address without another claim goes.
    pub(crate) fn withdraw(
        &mut self,
        told: Option<&[Multiaddr]>,
        source: Sources,
        rules: Rules<'_>,
        delta: &mut Delta,
    ) {
        let told: Option<Vec<_>> = told.map(|told| {
            let bare = told.iter().filter_map(|a| self.normalise(a, rules, delta));
            bare.collect()
        });
        self.addresses.retain_mut(|entry| {
            let named = told
                .as_ref()
                .is_none_or(|told| told.contains(&entry.address));
            if !named || !entry.sources.intersects(source) {
                return true;
            }
            entry.sources.remove(source);
            delta.save_later |= Books::ADDRESSES;
            if entry.sources.is_empty() {
                delta.change(Books::ADDRESSES);
                return false;
            }
            true
        });
    }

    /// A signed record of the peer contains these addresses. It certifies those that are known, and adds none.
    pub(crate) fn certify(&mut self, signed: &[Multiaddr], rules: Rules<'_>, delta: &mut Delta) {
        for address in signed {
            let Some(address) = self.normalise(address, rules, delta) else {
                continue;
            };
            if let Some(entry) = self.find(&address)
                && !entry.sources.contains(Sources::CERTIFIED)
            {
                entry.sources.insert(Sources::CERTIFIED);
                delta.save_later |= Books::ADDRESSES;
            }
        }
    }

    /// The user no longer pins these addresses; they stay as what others told.
    pub(crate) fn unpin(&mut self, told: &[Multiaddr], rules: Rules<'_>, delta: &mut Delta) {
        for address in told {
            let Some(address) = self.normalise(address, rules, delta) else {
                continue;
            };
            if let Some(entry) = self.find(&address)
                && entry.is_pinned()
            {
                entry.sources.remove(Sources::PINNED);
                entry.sources.insert(Sources::APPLICATION);
                delta.save |= Books::ADDRESSES;
            }
        }
    }

    /// A dial of this node to the address ended in a connection to this peer.
    pub(crate) fn dial_succeeded(
        &mut self,
        address: &Multiaddr,
        rules: Rules<'_>,
        delta: &mut Delta,
    ) {
        let Some(address) = self.normalise(address, rules, delta) else {
            return;
        };
        self.dropped.retain(|(dropped, _)| *dropped != address);
        if self.find(&address).is_none() {
            let entry = Entry::new(address.clone(), Sources::DIALLED, rules.now);
            // Proof is worth more than what it displaces, so that it must be counted before room is made.
            let entry = Entry {
                last_success: Some(rules.now),
                successes: 1,
                ..entry
            };
            self.place(entry, rules, delta);
            return;
        }
        let Some(entry) = self.find(&address) else {
            return;
        };
        hear(entry, Sources::DIALLED, rules, delta);
        entry.successes = entry.successes.saturating_add(1);
        if entry.failures > 0 {
            entry.failures = 0;
            delta.save_later |= Books::ADDRESSES;
        }
        let misleading = entry
            .last_success
            .is_none_or(|at| rules.is_stale(at, rules.config.proven_lifetime()));
        if misleading {
            entry.last_success = Some(rules.now);
            delta.save |= Books::ADDRESSES;
        }
    }

    /// A dial of this node to the address failed, and not for a reason of this node's own.
    pub(crate) fn dial_failed(&mut self, address: &Multiaddr, rules: Rules<'_>, delta: &mut Delta) {
        let Some(address) = self.normalise(address, rules, delta) else {
            return;
        };
        if let Some(entry) = self.find(&address) {
            entry.failures = entry.failures.saturating_add(1);
            entry.last_failure = Some(rules.now);
            delta.save_later |= Books::ADDRESSES;
        }
    }

    /// No transport of this run speaks the address.
    pub(crate) fn dial_unsupported(
        &mut self,
        address: &Multiaddr,
        rules: Rules<'_>,
        delta: &mut Delta,
    ) {
        let Some(address) = self.normalise(address, rules, delta) else {
            return;
        };
        if let Some(entry) = self.find(&address) {
            entry.unsupported = true;
        }
    }

    /// An inbound connection came from the address: stored only while nothing better is known.
    pub(crate) fn seen_inbound(
        &mut self,
        address: &Multiaddr,
        rules: Rules<'_>,
        delta: &mut Delta,
    ) {
        if self.addresses.iter().all(Entry::is_inbound_only) {
            self.add_addresses(
                std::slice::from_ref(address),
                Sources::INBOUND,
                rules,
                delta,
            );
        }
    }

    fn normalise(
        &self,
        address: &Multiaddr,
        rules: Rules<'_>,
        delta: &mut Delta,
    ) -> Option<Multiaddr> {
        match bare(&self.id, address, rules.config.max_address_len().get()) {
            Ok(address) => address,
            Err(reason) => {
                delta.refuse(reason);
                None
            }
        }
    }

    /// Whether the address was dropped not long ago, and only others mention it now.
    fn is_dropped(&mut self, address: &Multiaddr, sources: Sources, rules: Rules<'_>) -> bool {
        let lifetime = rules.config.hearsay_lifetime();
        self.dropped
            .retain(|(_, at)| rules.now.since(*at) < lifetime);
        if Sources::HEARSAY
            .difference(Sources::APPLICATION)
            .contains(sources)
        {
            return self.dropped.iter().any(|(dropped, _)| dropped == address);
        }
        self.dropped.retain(|(dropped, _)| dropped != address);
        false
    }

    /// Notes what was taken away, so that hearsay alone does not bring it back.
    fn drop_entry(&mut self, entry: Entry, rules: Rules<'_>, delta: &mut Delta) {
        delta.change(Books::ADDRESSES);
        if entry.is_inbound_only() {
            // Nobody gossips the port of a connection.
            return;
        }
        if self.dropped.len() >= MAX_DROPPED {
            self.dropped.remove(0);
        }
        self.dropped.push((entry.address, rules.now));
    }

    /// Puts a new address in, in the place of a less valuable one when there is no room.
    fn place(&mut self, entry: Entry, rules: Rules<'_>, delta: &mut Delta) {
        if self.addresses.len() >= rules.config.max_addresses_per_peer().get() {
            let Some(victim) = self.least_valuable(&entry, rules) else {
                delta.refuse(Refused::TooManyAddresses);
                return;
            };
            self.addresses.remove(victim);
        }
        delta.changed |= Books::ADDRESSES;
        if !entry.is_inbound_only() {
            delta.save |= Books::ADDRESSES;
        }
        self.addresses.push(entry);
    }

    /// The address that is worth less than `newcomer`, if there is one: never a pinned one.
    fn least_valuable(&self, newcomer: &Entry, rules: Rules<'_>) -> Option<usize> {
        let (at, victim) = self
            .addresses
            .iter()
            .enumerate()
            .filter(|(_, entry)| !entry.is_pinned())
            .min_by_key(|(_, entry)| (rules.standing(entry), entry.last_heard))?;
        let (worth, needed) = (rules.standing(victim), rules.standing(newcomer));
        let stale = rules.is_stale(victim.last_heard, rules.lifetime(worth));
        let yields = newcomer.is_pinned() || worth < needed || (worth == needed && stale);
        yields.then_some(at)
    }
}

/// An address was heard of again, from `sources`.
fn hear(entry: &mut Entry, sources: Sources, rules: Rules<'_>, delta: &mut Delta) {
    if !entry.sources.contains(sources) {
        // A first success must survive a crash; another source of hearsay may wait.
        let weight = (Sources::DIALLED | Sources::PINNED).intersects(sources);
        let books = if weight {
            &mut delta.save
        } else {
            &mut delta.save_later
        };
        *books |= Books::ADDRESSES;
        entry.sources.insert(sources);
    }
    if rules.is_stale(entry.last_heard, rules.lifetime(rules.standing(entry))) {
        entry.last_heard = rules.now;
        delta.save |= Books::ADDRESSES;
    }
}
