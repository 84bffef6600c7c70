//! The tags of peers.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use libp2p_identity::PeerId;

use crate::{event::Cause, inner::Inner, record::Record, refusal::Refused, state::By};

/// The highest value of a tag.
pub const MAX_TAG_VALUE: u8 = 100;

/// What a tag says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Tag {
    /// From 0 to [`MAX_TAG_VALUE`]. What it means is up to whoever set it.
    pub value: u8,
    /// When it expires; `None` for never.
    pub expires: Option<SystemTime>,
}

/// Tags of peers, a value from 0 to 100 by name, by [`PeerStore::tags`](crate::PeerStore::tags).
///
/// The application marks with them the peers that it cares for. A peer with a tag, of whatever value, does not
/// expire, and is as safe from eviction as a peer that was dialled with success. A tag may have a time to live: once
/// that is over no read returns it, and about a minute later at most (in a store with neither
/// swarm nor datastore, with a later change) it is collected, with an
/// [`Event::TagsChanged`](crate::Event::TagsChanged). Tags survive a restart.
///
/// ```
/// # use libp2p_identity::PeerId;
/// # use libp2p_peerstore::{Config, PeerStore, Refused};
/// # use std::time::Duration;
/// # let store = PeerStore::in_memory(PeerId::random(), Config::default());
/// # let friend = PeerId::random();
/// store.tags().set(friend, "keep-alive", 50, None)?;
/// store.tags().set(friend, "in-this-game", 0, Some(Duration::from_secs(600)))?;
/// assert_eq!(store.tags().get_value(&friend, "keep-alive"), Some(50));
/// # Ok::<_, Refused>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct TagBook<'a> {
    store: &'a Inner,
}

impl<'a> TagBook<'a> {
    pub(crate) fn new(store: &'a Inner) -> Self {
        Self { store }
    }

    /// Sets a tag of a peer, for `ttl` from now on or, with `None`, for ever. Use the value 0 for a tag that only
    /// marks. Returns whether value or expiry are different from before.
    ///
    /// A `ttl` counts in whole seconds, rounded up; one of zero ends the tag at once.
    ///
    /// # Errors
    ///
    /// [`Refused::TagValueOutOfRange`] for a value above [`MAX_TAG_VALUE`]; [`Refused::EmptyTagName`],
    /// [`Refused::TagNameTooLong`] or [`Refused::TooManyTags`] when the tag exceeds the limits of
    /// [`Config`](crate::Config); [`Refused::LocalPeer`] and [`Refused::StoreFull`] as for any write.
    pub fn set(
        &self,
        peer: PeerId,
        name: &str,
        value: u8,
        ttl: Option<Duration>,
    ) -> Result<bool, Refused> {
        super::single(self.store, peer, |state, now| {
            let expires = ttl.map(|ttl| now.wall.after(ttl));
            let written = state.edit(peer, By::User, Cause::User, now, |record, rules, delta| {
                record.set_tag(name, value, expires, rules, delta);
            });
            if written.changed {
                state.remove_if_empty(&peer, Cause::User, now);
            }
            written
        })
    }

    /// The tags of a peer. `None` when the peer is not known at all.
    pub fn get(&self, peer: &PeerId) -> Option<BTreeMap<String, Tag>> {
        self.store.read(|state, now| {
            let rare = state.known(peer, now)?.rare();
            Some(
                rare.map(|rare| rare.tags.view(now.wall))
                    .unwrap_or_default(),
            )
        })
    }

    /// The value of one tag of a peer.
    pub fn get_value(&self, peer: &PeerId, name: &str) -> Option<u8> {
        Some(self.get(peer)?.get(name)?.value)
    }

    /// Removes one tag. Returns whether there was one. The peer stays known, even with nothing left.
    pub fn remove(&self, peer: &PeerId, name: &str) -> bool {
        let written = self.store.write(*peer, |state, now| {
            state.edit_known(*peer, By::User, Cause::User, now, |record, _, delta| {
                record.remove_tag(name, delta);
            })
        });
        written.changed
    }

    /// Removes all tags of a peer. Returns whether there were any. A peer of which nothing else is known, and that
    /// is not connected, is forgotten altogether.
    pub fn delete(&self, peer: &PeerId) -> bool {
        super::delete(self.store, *peer, Record::clear_tags)
    }
}
