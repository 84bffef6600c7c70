//! The rules for public keys and metadata.

use libp2p_identity::{PeerId, PublicKey};

use super::{Books, Delta, Record, Rules, is_inlined};
use crate::{config::Config, refusal::Refused};

impl Record {
    /// Takes the public key that belongs to the peer id, unless the id contains it anyway.
    pub(crate) fn set_public_key(&mut self, key: &PublicKey, delta: &mut Delta) {
        // Identify tells the same key each time: what is kept has been checked.
        if self.public_key.as_deref() == Some(key) {
            return;
        }
        if PeerId::from_public_key(key) != self.id {
            delta.refuse(Refused::KeyMismatch);
        } else if self.public_key.is_none() && !is_inlined(&self.id) {
            self.public_key = Some(Box::new(key.clone()));
            delta.change(Books::KEY);
        }
    }

    pub(crate) fn clear_public_key(&mut self, delta: &mut Delta) {
        if self.public_key.take().is_some() {
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
        let has_room = self.metadata.len() < rules.config.max_metadata_per_peer().get();
        match self.metadata.get_mut(key) {
            Some(kept) if kept == value => return,
            Some(kept) => *kept = value.to_vec(),
            None if has_room => {
                self.metadata.insert(key.to_owned(), value.to_vec());
            }
            None => {
                delta.refuse(Refused::TooManyMetadata);
                return;
            }
        }
        delta.metadata.push(key.to_owned());
        delta.change(Books::METADATA);
    }

    pub(crate) fn delete_metadata(&mut self, key: &str, delta: &mut Delta) {
        if self.metadata.remove(key).is_some() {
            delta.metadata.push(key.to_owned());
            delta.change(Books::METADATA);
        }
    }

    pub(crate) fn clear_metadata(&mut self, delta: &mut Delta) {
        for (key, _) in std::mem::take(&mut self.metadata) {
            delta.metadata.push(key);
            delta.change(Books::METADATA);
        }
    }
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
