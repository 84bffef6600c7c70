//! The address book.

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;

use crate::{
    address::{AddressInfo, Sources, with_peer},
    event::Cause,
    inner::Inner,
    record::{Delta, Record, Rules},
    state::{By, Changed},
};

/// Where peers can be reached, by [`PeerStore::addresses`](crate::PeerStore::addresses).
///
/// Every call brings addresses into one form first: `/p2p/<peer>` at the end is taken off, an address that ends
/// in another peer's id is refused, the id of a relay inside the address stays.
#[derive(Debug, Clone, Copy)]
pub struct AddressBook<'a> {
    store: &'a Inner,
}

impl<'a> AddressBook<'a> {
    pub(crate) fn new(store: &'a Inner) -> Self {
        Self { store }
    }

    /// Replaces the addresses of a peer, except for pinned ones. An empty list (or one of which nothing is fit
    /// to be stored) changes nothing; so does one that is equal to what is known, whatever its order.
    ///
    /// What is taken away so does not come back by hearsay alone, for
    /// [`Config::hearsay_lifetime`](crate::Config::hearsay_lifetime).
    pub fn set(&self, peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>) -> Changed {
        self.write(peer, addresses, |record, told, rules, delta| {
            record.replace_addresses(told, Sources::APPLICATION, rules, delta);
        })
    }

    /// Adds addresses to those that are known.
    pub fn add(&self, peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>) -> Changed {
        self.write(peer, addresses, |record, told, rules, delta| {
            record.add_addresses(told, Sources::APPLICATION, rules, delta);
        })
    }

    /// Adds addresses and pins them: neither identify, nor the want of room, nor anything but
    /// [`AddressBook::remove`], [`AddressBook::delete`] and [`PeerStore::delete`](crate::PeerStore::delete)
    /// takes them away.
    pub fn pin(&self, peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>) -> Changed {
        self.write(peer, addresses, |record, told, rules, delta| {
            record.add_addresses(told, Sources::PINNED, rules, delta);
        })
    }

    /// Takes the pins off addresses; they stay as what the application told.
    pub fn unpin(&self, peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>) -> Changed {
        self.write_known(peer, addresses, |record, told, rules, delta| {
            record.unpin(told, rules, delta);
        })
    }

    /// Takes addresses away, pinned ones too. Those that are not known are no error. What is taken away so does
    /// not come back by hearsay alone, for [`Config::hearsay_lifetime`](crate::Config::hearsay_lifetime).
    pub fn remove(&self, peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>) -> Changed {
        self.write_known(peer, addresses, |record, told, rules, delta| {
            record.remove_addresses(told, rules, delta);
        })
    }

    /// The addresses of a peer, best first, without `/p2p/<peer>` at their end. `None` when the peer is not
    /// known at all.
    pub fn get(&self, peer: &PeerId) -> Option<Vec<Multiaddr>> {
        self.store.read(|state, now| {
            let view = state.known(peer, now)?;
            Some(view.multiaddrs(state.rules(now)))
        })
    }

    /// The addresses of a peer with all that is known about each, best first. `None` when the peer is not known
    /// at all.
    pub fn infos(&self, peer: &PeerId) -> Option<Vec<AddressInfo>> {
        self.store.read(|state, now| {
            let view = state.known(peer, now)?;
            Some(view.infos(state.rules(now)))
        })
    }

    /// Every address of a peer in the form in which one dials it or tells it to a friend: with `/p2p/<peer>` at
    /// its end, best first. Empty when the peer is not known.
    pub fn multiaddrs_for_peer(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.get(peer)
            .unwrap_or_default()
            .into_iter()
            .map(|address| with_peer(address, *peer))
            .collect()
    }

    /// Forgets the addresses of a peer. Returns whether there were any. A peer of which nothing else is known,
    /// and that is not connected, is forgotten altogether.
    pub fn delete(&self, peer: &PeerId) -> bool {
        super::delete(self.store, *peer, Record::clear_addresses)
    }

    fn write(
        &self,
        peer: PeerId,
        addresses: impl IntoIterator<Item = Multiaddr>,
        rule: impl FnOnce(&mut Record, &[Multiaddr], Rules<'_>, &mut Delta),
    ) -> Changed {
        // The iterator is the caller's code: it runs before the lock is taken.
        let told: Vec<Multiaddr> = addresses.into_iter().collect();
        self.store.write(peer, |state, now| {
            state.edit(peer, By::User, Cause::User, now, |record, rules, delta| {
                rule(record, &told, rules, delta);
            })
        })
    }

    fn write_known(
        &self,
        peer: PeerId,
        addresses: impl IntoIterator<Item = Multiaddr>,
        rule: impl FnOnce(&mut Record, &[Multiaddr], Rules<'_>, &mut Delta),
    ) -> Changed {
        let told: Vec<Multiaddr> = addresses.into_iter().collect();
        self.store.write(peer, |state, now| {
            state.edit_known(peer, By::User, Cause::User, now, |record, rules, delta| {
                rule(record, &told, rules, delta);
            })
        })
    }
}
