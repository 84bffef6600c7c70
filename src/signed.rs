//! Signed peer records: what a peer wrote of itself, whoever passed it on.
//!
//! A signature is checked here, before the store's lock is taken. What a record that holds does to the addresses
//! is a rule of [`Record`](crate::record::Record).

use std::{borrow::Cow, fmt, sync::Arc};

use libp2p_core::{
    Multiaddr, PeerRecord, SignedEnvelope,
    peer_record::FromEnvelopeError,
    signed_envelope::{DecodingError, ReadPayloadError},
};
use libp2p_identity::PeerId;
use prost::Message;

use crate::{
    event::Cause,
    record::Verdict,
    refusal::{Reasons, Refused},
    state::{By, Changed},
    store::PeerStore,
};

/// In which of its two forms a signed peer record is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum RecordFormat {
    /// The one that go-libp2p and js-libp2p share: signing domain `libp2p-peer-record`, payload type `0x0301`.
    Interop,
    /// The one of rust-libp2p alone, which its identify uses: signing domain `libp2p-routing-state`.
    Legacy,
}

/// A signed peer record as it was received: the envelope, and the sequence number inside it.
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SignedRecord {
    /// The sequence number: a higher one replaces a lower one.
    pub seq: u64,
    /// In which form it is signed.
    pub format: RecordFormat,
    /// The signed envelope in its protobuf encoding.
    #[cfg_attr(feature = "serde", serde(with = "crate::serial::bytes"))]
    pub envelope: Arc<[u8]>,
    /// Whether the signature was checked in this run.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) verified: bool,
    /// Protobuf fields of a newer version, kept as they are.
    #[cfg_attr(feature = "serde", serde(with = "crate::serial::bytes", default))]
    pub(crate) unknown: Arc<[u8]>,
}

impl SignedRecord {
    /// The envelope, decoded; its signature is not checked by this.
    ///
    /// # Errors
    ///
    /// When the bytes are not a signed envelope. [`PeerStore::signed_peer_record`] never returns such a record.
    pub fn to_signed_envelope(&self) -> Result<SignedEnvelope, DecodingError> {
        SignedEnvelope::from_protobuf_encoding(&self.envelope)
    }
}

impl PartialEq for SignedRecord {
    /// The same content, whether or not its signature was checked in this run.
    fn eq(&self, other: &Self) -> bool {
        let content = |record: &Self| (record.seq, record.format);
        content(self) == content(other)
            && self.envelope == other.envelope
            && self.unknown == other.unknown
    }
}

impl Eq for SignedRecord {}

impl fmt::Debug for SignedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedRecord")
            .field("seq", &self.seq)
            .field("format", &self.format)
            .field("envelope_len", &self.envelope.len())
            .finish()
    }
}

/// A signed peer record that the store took, see [`PeerStore::consume_peer_record`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct AcceptedRecord {
    /// The peer that signed it, and that it is about.
    #[cfg_attr(feature = "serde", serde(with = "crate::serial::peer_id"))]
    pub peer: PeerId,
    /// In which form it is signed.
    pub format: RecordFormat,
    /// Its sequence number.
    pub seq: u64,
    /// Whether the store held just this record already. Its addresses then count as heard of again.
    pub repeated: bool,
}

/// Why the store did not take a signed peer record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The envelope is longer than [`Config::max_signed_record_len`](crate::Config::max_signed_record_len).
    #[error("the signed envelope has {len} bytes, more than `max_signed_record_len`")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The envelope holds something else than a peer record, or one of a form that this version does not know.
    #[error("the envelope does not hold a peer record of a known format")]
    UnknownFormat,
    /// The signature is not that of the key in the envelope.
    #[error("the signature of the peer record is not valid")]
    Forged,
    /// The record is signed by another peer than the one that it is about.
    #[error("the peer record is about another peer than the one that signed it")]
    Foreign,
    /// The payload does not decode, or holds an address that does not.
    #[error("the signed peer record cannot be decoded")]
    Malformed(#[source] FromEnvelopeError),
    /// The record holds no address.
    #[error("the peer record holds no address")]
    Empty,
    /// The store holds a newer record of the peer.
    #[error("the peer record has sequence number {seq}, and the store holds {held}")]
    Outdated {
        /// The sequence number of the record.
        seq: u64,
        /// The sequence number of the record that the store holds.
        held: u64,
    },
    /// The store has held this record, and the peer has since told addresses that replaced all that stand in it.
    #[error("the peer has since dropped every address in this record")]
    Withdrawn,
    /// The store is shut down, and learns nothing any more.
    #[error("the peer store is shut down and takes no peer record from the network")]
    Closed,
    /// The record is sound, and the store does not take the peer, or none of the addresses.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl RecordError {
    /// As what the store counts it, see [`PeerStore::refusals`].
    pub(crate) fn reason(&self) -> Refused {
        match self {
            RecordError::TooLong { .. } => Refused::RecordTooLong,
            RecordError::UnknownFormat
            | RecordError::Forged
            | RecordError::Foreign
            | RecordError::Malformed(_)
            | RecordError::Empty => Refused::InvalidRecord,
            RecordError::Outdated { .. } | RecordError::Withdrawn => Refused::OutdatedRecord,
            // It is not counted: nothing is, of what comes after shutdown.
            RecordError::Closed => Refused::Ignored,
            RecordError::Refused(reason) => *reason,
        }
    }
}

/// A record whose signature is that of its subject.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) peer: PeerId,
    pub(crate) addresses: Vec<Multiaddr>,
    pub(crate) record: SignedRecord,
}

/// Checks an envelope: form, signature, subject, and that it holds an address. Costs at most one signature check, as
/// the two formats have different payload types.
fn verify(envelope: &SignedEnvelope, max_len: usize) -> Result<Verified, RecordError> {
    let bytes = envelope.clone().into_protobuf_encoding();
    if bytes.len() > max_len {
        return Err(RecordError::TooLong { len: bytes.len() });
    }
    #[cfg(test)]
    CHECKS.set(CHECKS.get() + 1);
    let (record, format) = match PeerRecord::from_signed_envelope_interop(envelope.clone()) {
        Err(FromEnvelopeError::BadPayload(ReadPayloadError::UnexpectedPayloadType { .. })) => {
            let record = PeerRecord::from_signed_envelope(envelope.clone());
            (record, RecordFormat::Legacy)
        }
        record => (record, RecordFormat::Interop),
    };
    let record = record.map_err(|error| match error {
        FromEnvelopeError::BadPayload(ReadPayloadError::InvalidSignature) => RecordError::Forged,
        FromEnvelopeError::BadPayload(ReadPayloadError::UnexpectedPayloadType { .. }) => {
            RecordError::UnknownFormat
        }
        FromEnvelopeError::MismatchedSignature => RecordError::Foreign,
        other => RecordError::Malformed(other),
    })?;
    if record.addresses().is_empty() {
        return Err(RecordError::Empty);
    }
    Ok(Verified {
        peer: record.peer_id(),
        addresses: record.addresses().to_vec(),
        record: SignedRecord {
            seq: record.seq(),
            format,
            envelope: bytes.into(),
            verified: true,
            unknown: Arc::default(),
        },
    })
}

/// The addresses in an envelope whose signature was checked before.
fn addresses_of(verified: &[u8]) -> Vec<Multiaddr> {
    #[derive(Message)]
    struct Envelope {
        #[prost(bytes = "vec", tag = "3")]
        payload: Vec<u8>,
    }
    #[derive(Message)]
    struct Payload {
        #[prost(message, repeated, tag = "3")]
        addresses: Vec<Address>,
    }
    #[derive(Message)]
    struct Address {
        #[prost(bytes = "vec", tag = "1")]
        multiaddr: Vec<u8>,
    }
    let envelope = Envelope::decode(verified).unwrap_or_default();
    let payload = Payload::decode(&envelope.payload[..]).unwrap_or_default();
    let addresses = payload.addresses.into_iter();
    addresses
        .filter_map(|address| Multiaddr::try_from(address.multiaddr).ok())
        .collect()
}

impl PeerStore {
    /// Takes a signed peer record, in either of the two formats, from wherever it comes, and says which it was.
    ///
    /// Its addresses are added as certified ([`Sources::CERTIFIED`](crate::Sources::CERTIFIED)): that proves who
    /// wrote them, not that they can be reached. Addresses of the record before that are not in the new one lose
    /// that standing; nothing else is dropped. The envelope is kept, and written to the datastore, as long as at
    /// least one of its addresses is.
    ///
    /// A record with a lower sequence number than the one that is held is refused. One with the same number and
    /// the same bytes is a repeat, which refreshes those of its addresses that are still there and adds none. One
    /// with the same number and other content is taken: the number is often a time in whole seconds. A record that
    /// turns out to be unreadable on disk stands in nobody's way. When the addresses of a record are gone, so is its
    /// number.
    ///
    /// The signature is checked without any lock. Calls count as the application's own word; a protocol of your own
    /// uses [`Learned::peer_record`](crate::Learned::peer_record).
    ///
    /// # Errors
    ///
    /// [`RecordError`] says why the record was not taken; nothing is changed then.
    pub fn consume_peer_record(
        &self,
        envelope: SignedEnvelope,
    ) -> Result<AcceptedRecord, RecordError> {
        self.take_record(&envelope, By::User, Cause::User)
    }

    /// The latest signed peer record of a peer, to be handed on to others, if the store holds one that is sound and
    /// at least one of its addresses. The signature of one from the datastore is checked at the first call.
    pub fn signed_peer_record(&self, peer: &PeerId) -> Option<SignedRecord> {
        self.check_stored(peer);
        self.inner().read(|state, now| {
            let view = state.known(peer, now)?;
            view.signed_record(state.rules(now)).cloned()
        })
    }

    pub(crate) fn take_record(
        &self,
        envelope: &SignedEnvelope,
        by: By,
        cause: Cause,
    ) -> Result<AcceptedRecord, RecordError> {
        let inner = self.inner();
        let mut new = match verify(envelope, inner.config().max_signed_record_len().get()) {
            Ok(new) => new,
            Err(error) => {
                inner.with(|state, _| state.refuse(error.reason(), 1));
                tracing::debug!(%error, "refused a signed peer record");
                return Err(error);
            }
        };
        let mut filtered = 0;
        if by == By::Swarm {
            let (admitted, refused) = inner.config().filtered(&new.peer, &new.addresses);
            filtered = refused;
            if let Cow::Owned(admitted) = admitted {
                new.addresses = admitted;
            }
        }
        self.check_stored(&new.peer);
        let (mut verdict, mut refused) = (None, Reasons::default());
        inner.write(new.peer, |state, now| {
            let written = state.edit(new.peer, by, cause, now, |record, rules, delta| {
                delta.refused.add(Refused::Filtered, filtered);
                verdict = Some(record.take_signed(&new, rules, delta));
            });
            refused = written.refused.clone();
            written
        });
        // The peer as a whole was refused: before the rule, or after it for want of room.
        let whole = [Refused::LocalPeer, Refused::Ignored, Refused::StoreFull];
        if let Some(reason) = whole.into_iter().find(|reason| refused.get(*reason) > 0) {
            return Err(reason.into());
        }
        let (seq, format) = (new.record.seq, new.record.format);
        let repeated = match verdict {
            Some(Verdict::New) => false,
            Some(Verdict::Repeat) => true,
            Some(Verdict::Outdated { held }) => return Err(RecordError::Outdated { seq, held }),
            Some(Verdict::Withdrawn) => return Err(RecordError::Withdrawn),
            Some(Verdict::NoAddress) => {
                let reason = refused.iter().next().map(|(reason, _)| reason);
                return Err(reason.unwrap_or(Refused::TooManyAddresses).into());
            }
            // It no longer hears the swarm.
            None => return Err(RecordError::Closed),
        };
        Ok(AcceptedRecord {
            peer: new.peer,
            format,
            seq,
            repeated,
        })
    }

    /// A record that came beside the peer's own list of addresses certifies those that are known, and adds none.
    pub(crate) fn certify_by_record(
        &self,
        peer: PeerId,
        envelope: &SignedEnvelope,
        cause: Cause,
    ) -> Changed {
        let inner = self.inner();
        self.check_stored(&peer);
        let held = inner.read(|state, _| {
            let held = state.table.get(&peer)?.rare()?.signed.as_deref()?;
            Some(held.envelope.clone())
        });
        // Most peers sign anew each time; where they do not, the costly check is not repeated.
        let bytes = envelope.clone().into_protobuf_encoding();
        let checked = match held {
            Some(held) if *held == *bytes => Ok(None),
            _ => verify(envelope, inner.config().max_signed_record_len().get()).and_then(|new| {
                match new.peer == peer {
                    true => Ok(Some(new)),
                    false => Err(RecordError::Foreign),
                }
            }),
        };
        let addresses = match &checked {
            Ok(None) => addresses_of(&bytes),
            _ => Vec::new(),
        };
        inner.write(peer, |state, now| {
            state.edit_known(peer, By::Swarm, cause, now, |record, rules, delta| {
                match &checked {
                    Ok(Some(new)) => record.certify_by(new, rules, delta),
                    // Another thread may have replaced it meanwhile.
                    Ok(None) if record.holds(&bytes) => record.certify(&addresses, rules, delta),
                    Ok(None) => {}
                    Err(error) => delta.refused.count(error.reason()),
                }
            })
        })
    }

    /// Checks the signature of a record that was loaded from the datastore, once. One that does not hold is
    /// forgotten: it would only stand in the way of others.
    fn check_stored(&self, peer: &PeerId) {
        let inner = self.inner();
        let unchecked = inner.read(|state, _| {
            let held = state.table.get(peer)?.rare()?.signed.as_deref()?;
            (!held.verified).then(|| held.envelope.clone())
        });
        let Some(bytes) = unchecked else {
            return;
        };
        let envelope = SignedEnvelope::from_protobuf_encoding(&bytes).ok();
        let checked = envelope.and_then(|envelope| verify(&envelope, usize::MAX).ok());
        let checked = checked.filter(|checked| checked.peer == *peer);
        if checked.is_none() {
            tracing::debug!(%peer, "the stored signed peer record is not sound");
        }
        inner.with(|state, _| {
            if let Some(slot) = state.table.find(peer) {
                state.table.change(slot, |record| {
                    record.checked_stored(&bytes, checked.map(|checked| checked.record));
                });
            }
        });
    }
}

#[cfg(test)]
thread_local! {
    /// Signature checks of this thread.
    static CHECKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use libp2p_identity::Keypair;

    use super::*;
    use crate::{Config, MemoryDatastore, Source};

    /// What identify reports, and how many signature checks it cost.
    fn identified(store: &PeerStore, peer: PeerId, envelope: &SignedEnvelope) -> usize {
        let before = CHECKS.get();
        let mut learned = store.learned(Source::Identify);
        learned.replace(
            peer,
            &["/ip4/198.51.100.1/tcp/1".parse().expect("an address")],
        );
        learned.certify_by_record(peer, envelope);
        CHECKS.get() - before
    }

    #[test]
    fn a_record_that_is_held_already_is_not_verified_again() {
        let key = Keypair::generate_ed25519();
        let peer = key.public().to_peer_id();
        let addresses = vec!["/ip4/198.51.100.1/tcp/1".parse().expect("an address")];
        let record = PeerRecord::new(&key, addresses).expect("a record");
        let envelope = record.into_signed_envelope();
        let memory = MemoryDatastore::default();
        let open = || {
            let open = PeerStore::open(PeerId::random(), memory.clone(), Config::default());
            block_on(open).expect("a store")
        };
        let store = open();
        let checks = [(); 3].map(|()| identified(&store, peer, &envelope));
        assert_eq!(checks, [1, 0, 0]);
        block_on(store.shutdown()).expect("saved");
        drop(store);
        let store = open();
        let checks = [(); 3].map(|()| identified(&store, peer, &envelope));
        assert_eq!(checks, [1, 0, 0], "what was loaded is verified once");
    }
}
