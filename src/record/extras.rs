//! The rules for public keys and metadata.

use std::sync::Arc;

use libp2p_identity::{PeerId, PublicKey};

use super::{Books, Delta, Record, Rules, is_inlined};
use crate::{config::Config, refusal::Refused};

impl Record {
    /// Takes the public key that belongs to the peer id, unless the id contains it anyway.
    pub(crate) fn set_public_key(&mut self, key: &PublicKey, delta: &mut Delta) {
        // Identify tells the same key each time: what is kept has been checked.
        if self.rare.public_key.as_deref() == Some(key) {
            return;
        }
        if PeerId::from_public_key(key) != self.id {
            delta.refuse(Refused::KeyMismatch);
        } else if self.rare.public_key.is_none() && !is_inlined(&self.id) {
            self.rare.public_key = Some(Box::new(key.clone()));
            delta.change(Books::KEY);
        }
    }

    pub(crate) fn clear_public_key(&mut self, delta: &mut Delta) {
        if self.rare.public_key.take().is_some() {
            delta.change(Books::KEY);
        }
    }

    pub(crate) fn set_metadata(
        &mut self,
        key: &str,
        value: &[u8],
        rules: Rules<'_>,
        delta: &mut Delta,
    ) {
        if let Err(reason) = check_metadata(key, value, rules.config) {
            delta.refuse(reason);
            return;
        }
        let kept = self.metadata_value(key);
        if kept == Some(value) {
            return;
        }
        if kept.is_none() && self.metadata_len() >= rules.config.max_metadata_per_peer().get() {
            delta.refuse(Refused::TooManyMetadata);
            return;
        }
        self.put_metadata(key, value);
        delta.metadata.push(key.to_owned());
        delta.change(Books::METADATA);
    }

    pub(crate) fn delete_metadata(&mut self, key: &str, delta: &mut Delta) {
        let was_there = match self.text(key) {
            Some(text) => text.take().is_some(),
            None => self.rare.metadata.remove(key).is_some(),
        };
        if was_there {
            delta.metadata.push(key.to_owned());
            delta.change(Books::METADATA);
        }
    }

    pub(crate) fn clear_metadata(&mut self, delta: &mut Delta) {
        for key in [crate::AGENT_VERSION, crate::PROTOCOL_VERSION] {
            self.delete_metadata(key, delta);
        }
        for (key, _) in std::mem::take(&mut self.rare.metadata) {
            delta.metadata.push(key);
            delta.change(Books::METADATA);
        }
    }

    pub(crate) fn metadata_value(&self, key: &str) -> Option<&[u8]> {
        match key {
            crate::AGENT_VERSION => self.agent.as_deref(),
            crate::PROTOCOL_VERSION => self.version.as_deref(),
            _ => self.rare.metadata.get(key).map(Vec::as_slice),
        }
    }

    pub(crate) fn metadata_len(&self) -> usize {
        let texts = [&self.agent, &self.version];
        texts.into_iter().flatten().count() + self.rare.metadata.len()
    }

    pub(crate) fn put_metadata(&mut self, key: &str, value: &[u8]) {
        match self.text(key) {
            Some(text) => *text = Some(value.into()),
            None => {
                self.rare.metadata.insert(key.to_owned(), value.to_vec());
            }
        }
    }

    /// Where the value of one of the two keys lies that identify fills.
    fn text(&mut self, key: &str) -> Option<&mut Option<Arc<[u8]>>> {
        match key {
            crate::AGENT_VERSION => Some(&mut self.agent),
            crate::PROTOCOL_VERSION => Some(&mut self.version),
            _ => None,
        }
    }
}

/// Whether this is the public key that is known of a peer, in its id or beside it.
#[cfg(feature = "identify")]
pub(crate) fn is_key_of(key: &PublicKey, peer: PeerId, rare: Option<&super::Rare>) -> bool {
    /// What stands before an ed25519 key in the message that is the id.
    const ED25519: [u8; 4] = [0x08, 0x01, 0x12, 0x20];
    if !is_inlined(&peer) {
        let known = rare.and_then(|rare| rare.public_key.as_deref());
        return known == Some(key);
    }
    let hash: &libp2p_core::multihash::Multihash<64> = peer.as_ref();
    match key.clone().try_into_ed25519() {
        // Compared without making the message.
        Ok(key) => hash.digest().strip_prefix(&ED25519) == Some(&key.to_bytes()),
        Err(_) => hash.digest() == key.encode_protobuf(),
    }
}

/// Whether identify fills this metadata key.
pub(crate) fn is_of_identify(key: &str) -> bool {
    key == crate::AGENT_VERSION || key == crate::PROTOCOL_VERSION
}

/// Whether a metadata entry is fit to be stored.
pub(crate) fn check_metadata(key: &str, value: &[u8], config: &Config) -> Result<(), Refused> {
    if key.is_empty() {
        Err(Refused::EmptyMetadataKey)
    } else if key.len() > config.max_metadata_key_len().get() {
        Err(Refused::MetadataKeyTooLong)
    } else if value.len() > config.max_metadata_value_len().get() {
        Err(Refused::MetadataValueTooLong)
    } else {
        Ok(())
    }
}
