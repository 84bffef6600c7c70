//! The metadata book.

use std::collections::BTreeMap;

use libp2p_identity::PeerId;

use crate::{event::Cause, inner::Inner, record::Record, refusal::Refused, state::By};

/// What else is known of peers, as bytes by string key, by [`PeerStore::metadata`](crate::PeerStore::metadata).
///
/// A key may hold any character, `/` included. Identify sets [`AGENT_VERSION`](crate::AGENT_VERSION) and
/// [`PROTOCOL_VERSION`](crate::PROTOCOL_VERSION). A peer with any other key counts as one that the application
/// cares for: it is as safe from eviction as a peer that was dialled with success.
#[derive(Debug, Clone, Copy)]
pub struct MetadataBook<'a> {
    store: &'a Inner,
}

impl<'a> MetadataBook<'a> {
    pub(crate) fn new(store: &'a Inner) -> Self {
        Self { store }
    }

    /// Sets one value. Returns whether it is different from before.
    ///
    /// # Errors
    ///
    /// [`Refused::EmptyMetadataKey`], [`Refused::MetadataKeyTooLong`], [`Refused::MetadataValueTooLong`] or
    /// [`Refused::TooManyMetadata`] when the entry exceeds the limits of [`Config`](crate::Config);
    /// [`Refused::LocalPeer`] and [`Refused::StoreFull`] as for any write.
    pub fn set(&self, peer: PeerId, key: &str, value: impl AsRef<[u8]>) -> Result<bool, Refused> {
        let value = value.as_ref();
        super::single(self.store, peer, |state, now| {
            state.edit(peer, By::User, Cause::User, now, |record, rules, delta| {
                record.set_metadata(key, value, rules, delta);
            })
        })
    }

    /// All values of a peer. `None` when the peer is not known at all.
    pub fn get(&self, peer: &PeerId) -> Option<BTreeMap<String, Vec<u8>>> {
        self.store
            .read(|state, now| Some(state.known(peer, now)?.metadata()))
    }

    /// One value of a peer.
    pub fn get_value(&self, peer: &PeerId, key: &str) -> Option<Vec<u8>> {
        self.store
            .read(|state, now| Some(state.known(peer, now)?.metadata_value(key)?.to_vec()))
    }

    /// Deletes one value. Returns whether there was one. The peer stays known.
    pub fn delete_value(&self, peer: &PeerId, key: &str) -> bool {
        let written = self.store.write(*peer, |state, now| {
            state.edit_known(*peer, By::User, Cause::User, now, |record, _, delta| {
                record.delete_metadata(key, delta);
            })
        });
        written.changed
    }

    /// Deletes all values of a peer. Returns whether there were any. A peer of which nothing else is known, and
    /// that is not connected, is forgotten altogether.
    pub fn delete(&self, peer: &PeerId) -> bool {
        super::delete(self.store, *peer, Record::clear_metadata)
    }
}
