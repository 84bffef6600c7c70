//! What few peers have, kept apart so that the others do not pay for it.

use std::{collections::BTreeMap, num::NonZeroU64};

use libp2p_identity::PublicKey;

use super::Tags;
use crate::{address::Address, clock::Timestamp, signed::SignedRecord};

/// What of a record has no place in the compact form.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    /// Only a key that the peer id does not contain.
    pub(crate) public_key: Option<Box<PublicKey>>,
    /// All but what identify tells.
    pub(crate) metadata: BTreeMap<String, Vec<u8>>,
    pub(crate) tags: Tags,
    /// The latest signed peer record, while one of its addresses is there.
    pub(crate) signed: Option<Box<SignedRecord>>,
    /// By its hash, the one that was held until the peer dropped all of its addresses.
    pub(super) withdrawn: Option<NonZeroU64>,
    /// Addresses that the peer or the user took away, or where somebody else answered: until when hearsay alone does
    /// not bring them back.
    pub(crate) dropped: Vec<(Address, Timestamp)>,
    pub(crate) foreign: Option<Box<Foreign>>,
}

impl Rare {
    /// Whether there is none of it.
    pub(crate) fn is_none(&self) -> bool {
        self.is_nothing()
            && self.signed.is_none()
            && self.withdrawn.is_none()
            && self.dropped.is_empty()
    }

    /// Whether no book holds anything of it.
    pub(crate) fn is_nothing(&self) -> bool {
        self.tags.is_empty() && self.has_at_most_tags()
    }

    /// Forgets what was dropped too long ago; the rest stays dropped for longer where `until` says so.
    pub(crate) fn keep_dropped(
        &mut self,
        now: Timestamp,
        until: impl Fn(&Address) -> Option<Timestamp>,
    ) {
        self.dropped.retain_mut(|(address, dropped)| {
            let lasts = *dropped > now;
            *dropped = until(address).unwrap_or_default().max(*dropped);
            lasts
        });
    }

    /// Whether there are tags, and no book holds anything else of it.
    pub(crate) fn has_only_tags(&self) -> bool {
        !self.tags.is_empty() && self.has_at_most_tags()
    }

    fn has_at_most_tags(&self) -> bool {
        self.public_key.is_none() && self.metadata.is_empty() && self.foreign.is_none()
    }

    /// Whether the application marked the peer as one that it cares for.
    pub(crate) fn is_cared_for(&self) -> bool {
        !self.tags.is_empty() || self.has_user_metadata()
    }

    pub(crate) fn has_user_metadata(&self) -> bool {
        !self.metadata.is_empty()
    }
}

/// What a foreign or newer program wrote and this one does not understand, written back as it was.
#[derive(Debug, Clone, Default)]
pub(crate) struct Foreign {
    /// Unknown fields of the addresses value.
    pub(crate) addresses: Vec<u8>,
    /// Addresses that do not parse: the field that each stood in, and its message.
    pub(crate) unreadable: Vec<(u32, Vec<u8>)>,
    /// Unknown fields within addresses.
    pub(crate) in_addresses: Vec<(Address, Box<[u8]>)>,
    /// Unknown fields of the protocols value.
    pub(crate) protocols: Vec<u8>,
}

impl Foreign {
    pub(super) fn clear_addresses(&mut self) {
        self.addresses.clear();
        self.unreadable.clear();
        self.in_addresses.clear();
    }
}
