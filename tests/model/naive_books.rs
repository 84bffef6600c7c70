//! The rules for everything but addresses, as the documentation has them.

use std::time::Duration;

use libp2p_identity::{PeerId, PublicKey};
use libp2p_peerstore::{MAX_TAG_VALUE, Refused};

use super::naive::{By, Did, Known, Latency, Naive};

impl Naive {
    /// The names that are fit to be stored, each once, in their order.
    fn valid(&self, told: &[String], did: &mut Did) -> Vec<String> {
        let mut valid = Vec::new();
        for name in told {
            if name.len() > self.config.max_protocol_len().get() {
                did.refuse(Refused::ProtocolTooLong);
            } else if !name.starts_with('/') {
                did.refuse(Refused::InvalidProtocol);
            } else if !valid.contains(name) {
                valid.push(name.clone());
            }
        }
        valid
    }

    /// Replaces the protocols; of too many the first of the alphabet stay.
    fn replace_protocols(&self, known: &mut Known, mut told: Vec<String>, did: &mut Did) {
        let limit = self.config.max_protocols_per_peer().get();
        told.sort();
        for _ in limit..told.len() {
            did.refuse(Refused::TooManyProtocols);
        }
        told.truncate(limit);
        let told = told.into_iter().collect();
        did.changed = known.protocols != told;
        known.protocols = told;
    }

    pub fn set_protocols(&mut self, peer: PeerId, told: &[String]) -> Did {
        self.edit(peer, By::User, |naive, known, did| {
            let valid = naive.valid(told, did);
            // A list of which nothing is a name says nothing.
            if !valid.is_empty() || told.is_empty() {
                naive.replace_protocols(known, valid, did);
            }
        })
    }

    pub fn learn_protocols(&mut self, peer: PeerId, told: &[String]) -> Did {
        self.edit(peer, By::Swarm { first_hand: true }, |naive, known, did| {
            let valid = naive.valid(told, did);
            naive.replace_protocols(known, valid, did);
        })
    }

    pub fn add_protocols(&mut self, peer: PeerId, told: &[String]) -> Did {
        self.edit(peer, By::User, |naive, known, did| {
            for name in naive.valid(told, did) {
                if known.protocols.contains(&name) {
                    continue;
                }
                if known.protocols.len() >= naive.config.max_protocols_per_peer().get() {
                    did.refuse(Refused::TooManyProtocols);
                } else {
                    known.protocols.insert(name);
                    did.changed = true;
                }
            }
        })
    }

    pub fn remove_protocols(&mut self, peer: PeerId, told: &[String]) -> Did {
        self.edit(peer, By::User, |naive, known, did| {
            for name in naive.valid(told, did) {
                did.changed |= known.protocols.remove(&name);
            }
        })
    }

    pub fn set_key(&mut self, peer: PeerId, key: &PublicKey, by: By) -> Did {
        self.edit(peer, by, |_, known, did| {
            if key.to_peer_id() != peer {
                did.refuse(Refused::KeyMismatch);
            } else if known.key.is_none() && super::universe::inlined_key(&peer).is_none() {
                known.key = Some(key.clone());
                did.changed = true;
            }
        })
    }

    pub fn set_metadata(&mut self, peer: PeerId, key: &str, value: &[u8], by: By) -> Did {
        self.edit(peer, by, |naive, known, did| {
            let config = &naive.config;
            let is_known = known.metadata.contains_key(key);
            if key.is_empty() {
                did.refuse(Refused::EmptyMetadataKey);
            } else if key.len() > config.max_metadata_key_len().get() {
                did.refuse(Refused::MetadataKeyTooLong);
            } else if value.len() > config.max_metadata_value_len().get() {
                did.refuse(Refused::MetadataValueTooLong);
            } else if !is_known && known.metadata.len() >= config.max_metadata_per_peer().get() {
                did.refuse(Refused::TooManyMetadata);
            } else {
                let before = known.metadata.insert(key.to_owned(), value.to_owned());
                did.changed = before.as_deref() != Some(value);
            }
        })
    }

    pub fn delete_value(&mut self, peer: PeerId, key: &str) -> bool {
        let did = self.edit_known(peer, By::User, |_, known, did| {
            did.changed = known.metadata.remove(key).is_some();
        });
        did.changed
    }

    pub fn set_tag(&mut self, peer: PeerId, name: &str, value: u8, ttl: Option<Duration>) -> Did {
        let expires = ttl.map(|ttl| self.after(ttl));
        let did = self.edit(peer, By::User, |naive, known, did| {
            let config = &naive.config;
            let before = known.tags.get(name).copied();
            if name.is_empty() {
                did.refuse(Refused::EmptyTagName);
            } else if name.len() > config.max_tag_name_len().get() {
                did.refuse(Refused::TagNameTooLong);
            } else if value > MAX_TAG_VALUE {
                did.refuse(Refused::TagValueOutOfRange);
            } else if expires.is_some_and(|at| at <= naive.now) {
                did.changed = known.tags.remove(name).is_some();
            } else if before.is_none() && known.tags.len() >= config.max_tags_per_peer().get() {
                did.refuse(Refused::TooManyTags);
            } else {
                known.tags.insert(name.to_owned(), (value, expires));
                did.changed = before != Some((value, expires));
            }
        });
        if did.changed {
            self.remove_if_empty(&peer);
        }
        did
    }

    /// The mean moves by a tenth of the difference; a move by more than a quarter, and a millisecond, is news.
    pub fn measured_latency(&mut self, peer: PeerId, measured: Duration) -> Did {
        self.alive(&peer);
        let measured = u64::try_from(measured.as_micros()).unwrap().max(1);
        self.edit_known(peer, By::Swarm { first_hand: false }, |_, known, did| {
            let Some(latency) = &mut known.latency else {
                let (mean, told, since) = (measured, measured, vec![measured]);
                known.latency = Some(Latency { mean, told, since });
                did.changed = true;
                return;
            };
            let mean = (latency.mean as f64 * 0.9 + measured as f64 * 0.1)
                .round()
                .max(1.0) as u64;
            let moved = mean.abs_diff(latency.told);
            latency.mean = mean;
            if moved * 4 > latency.told && moved >= 1_000 {
                latency.told = mean;
                latency.since.clear();
                did.changed = true;
            }
            latency.since.push(mean);
        })
    }
}
