//! The protocol book.

use libp2p_identity::PeerId;
use libp2p_swarm::StreamProtocol;

use crate::{
    event::Cause,
    inner::Inner,
    record::{Delta, Record, Rules, check_protocols},
    refusal::Reasons,
    state::{By, Changed},
};

/// Which protocols peers speak, by [`PeerStore::protocols`](crate::PeerStore::protocols).
///
/// Names can be given as [`StreamProtocol`] or as any string; one that does not begin with a slash is refused.
#[derive(Debug, Clone, Copy)]
pub struct ProtocolBook<'a> {
    store: &'a Inner,
}

impl<'a> ProtocolBook<'a> {
    pub(crate) fn new(store: &'a Inner) -> Self {
        Self { store }
    }

    /// Replaces the protocols of a peer. A list that is equal to what is known, whatever its order, changes
    /// nothing; an empty one clears the protocols of a known peer.
    ///
    /// Of a list that is longer than
    /// [`Config::max_protocols_per_peer`](crate::Config::max_protocols_per_peer) those that come first in the
    /// alphabet are kept, so that the order of the list decides nothing.
    pub fn set<I>(&self, peer: PeerId, protocols: I) -> Changed
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.write(
            peer,
            protocols,
            |record, protocols, refused, rules, delta| {
                // A list of which nothing is a protocol name says nothing; an empty one says that there is none.
                if !protocols.is_empty() || refused.total() == 0 {
                    record.set_protocols(protocols, rules, delta);
                }
            },
        )
    }

    /// Adds protocols to those that are known.
    pub fn add<I>(&self, peer: PeerId, protocols: I) -> Changed
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.write(peer, protocols, |record, protocols, _, rules, delta| {
            record.add_protocols(protocols, rules, delta);
        })
    }

    /// Takes protocols away. Those that are not known are no error. The peer stays known, even with none left.
    pub fn remove<I>(&self, peer: PeerId, protocols: I) -> Changed
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.write(peer, protocols, |record, protocols, _, _, delta| {
            record.remove_protocols(&protocols, delta);
        })
    }

    /// The protocols of a peer. `None` when the peer is not known at all. Their order has no meaning: it is that of whichever peer
    /// first told just these.
    pub fn get(&self, peer: &PeerId) -> Option<Vec<StreamProtocol>> {
        self.store
            .read(|state, now| Some(state.known(peer, now)?.protocols().to_vec()))
    }

    /// Which of `protocols` the peer speaks, in the order in which they are asked for.
    pub fn supports<I>(&self, peer: &PeerId, protocols: I) -> Vec<StreamProtocol>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let known = self.get(peer).unwrap_or_default();
        let asked = protocols.into_iter();
        let spoken = asked.filter_map(|asked| {
            let found = known.iter().find(|known| known.as_ref() == asked.as_ref());
            found.cloned()
        });
        spoken.collect()
    }

    /// The first of `protocols` that the peer speaks.
    pub fn first_supported<I>(&self, peer: &PeerId, protocols: I) -> Option<StreamProtocol>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.supports(peer, protocols).into_iter().next()
    }

    /// Forgets the protocols of a peer. Returns whether there were any. A peer of which nothing else is known,
    /// and that is not connected, is forgotten altogether.
    pub fn delete(&self, peer: &PeerId) -> bool {
        super::delete(self.store, *peer, Record::clear_protocols)
    }

    fn write<I>(
        &self,
        peer: PeerId,
        protocols: I,
        rule: impl FnOnce(&mut Record, Vec<StreamProtocol>, &Reasons, Rules<'_>, &mut Delta),
    ) -> Changed
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        // The iterator is the caller's code: it runs before the lock is taken.
        let mut refused = Reasons::default();
        let protocols = check_protocols(protocols, self.store.config(), &mut refused);
        self.store.write(peer, |state, now| {
            state.edit(peer, By::User, Cause::User, now, |record, rules, delta| {
                delta.refused.merge(&refused);
                rule(record, protocols, &refused, rules, delta);
            })
        })
    }
}
