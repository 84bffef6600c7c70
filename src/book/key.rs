//! The key book.

use libp2p_identity::{PeerId, PublicKey};

use crate::{
    event::Cause, inner::Inner, record::Record, refusal::Refused, state::By, view::inlined_key,
};

/// The public keys of peers, by [`PeerStore::keys`](crate::PeerStore::keys).
///
/// The id of an ed25519 or secp256k1 key contains the key: for such a peer the book answers from the id, known
/// or not, and stores nothing. Private keys are never stored.
#[derive(Debug, Clone, Copy)]
pub struct KeyBook<'a> {
    store: &'a Inner,
}

impl<'a> KeyBook<'a> {
    pub(crate) fn new(store: &'a Inner) -> Self {
        Self { store }
    }

    /// Stores the public key of a peer. Returns whether it was not known before.
    ///
    /// # Errors
    ///
    /// [`Refused::KeyMismatch`] when the key does not hash to the peer id; [`Refused::LocalPeer`] and
    /// [`Refused::StoreFull`] as for any write.
    pub fn set(&self, peer: PeerId, key: PublicKey) -> Result<bool, Refused> {
        super::single(self.store, peer, |state, now| {
            state.edit(peer, By::User, Cause::User, now, |record, _, delta| {
                record.set_public_key(&key, delta);
            })
        })
    }

    /// The public key of a peer.
    pub fn get(&self, peer: &PeerId) -> Option<PublicKey> {
        inlined_key(peer).or_else(|| {
            self.store
                .read(|state, now| state.known(peer, now)?.public_key())
        })
    }

    /// Forgets the stored public key of a peer. Returns whether there was one. A key that the peer id contains
    /// is still answered.
    pub fn delete(&self, peer: &PeerId) -> bool {
        super::delete(self.store, *peer, Record::clear_public_key)
    }
}
