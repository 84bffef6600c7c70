//! The bytes under each key: what js-libp2p 0.28 to 0.35 reads and writes, and what this crate adds.
//!
//! What it adds stands in field numbers from 16 up, which js-libp2p skips. Fields that this version does not
//! know, and addresses that its multiaddr does not parse, are kept as bytes and written back.

#[cfg(feature = "cli")]
#[allow(missing_docs)]
pub(crate) mod fields;

use std::sync::Arc;

use libp2p_core::multiaddr::Protocol;
use libp2p_identity::{PeerId, PublicKey};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use super::limits::{MAX_UNKNOWN_LEN, MAX_VALUE_LEN, max_addresses_value, max_protocols_value};
use crate::{
    address::{Address, Entry, Sources, is_multiaddr, protocols},
    clock::Timestamp,
    compact::Known,
    config::Config,
    group::{Group, Site},
    history::{Epoch, Flags, History},
    quality::{Learnt, Model},
    record::{KeptTag, Latency},
    signed::{RecordFormat, SignedRecord},
    view::View,
};

/// The layout that this version writes into the `format` fields.
const FORMAT: u32 = 1;

// --- messages ----------------------------------------------------------------------------------------------

/// `/peers/addrs/<b32>`.
#[derive(Clone, PartialEq, Message)]
struct AddressesValue {
    /// Each an [`AddressMessage`]; kept as bytes, so that one that does not decode spoils no other.
    #[prost(bytes = "vec", repeated, tag = "1")]
    addresses: Vec<Vec<u8>>,
    /// A [`CertifiedRecord`].
    #[prost(bytes = "vec", optional, tag = "2")]
    certified_record: Option<Vec<u8>>,
    #[prost(message, optional, tag = "16")]
    format: Option<Format>,
    /// As field 1, for addresses with protocols that js-libp2p 0.30 does not know: one of them in field 1 would
    /// make it drop all addresses of the peer.
    #[prost(bytes = "vec", repeated, tag = "17")]
    newer_addresses: Vec<Vec<u8>>,
    /// Each a [`TagMessage`].
    #[prost(bytes = "vec", repeated, tag = "18")]
    tags: Vec<Vec<u8>>,
    /// The mean latency in microseconds.
    #[prost(uint32, optional, tag = "19")]
    latency: Option<u32>,
    /// When a dial to the peer first succeeded, in seconds since the Unix epoch.
    #[prost(uint64, optional, tag = "21")]
    first_proven: Option<u64>,
    /// As field 2, for a record in rust-libp2p's own format, which js-libp2p could not verify.
    #[prost(bytes = "vec", optional, tag = "20")]
    legacy_record: Option<Vec<u8>>,
    /// The group of addresses from which the peer came when it told its own, see [`Group::number`].
    #[prost(uint64, optional, tag = "22")]
    source: Option<u64>,
    /// What this node had learnt of dials in general when this was written; only beside addresses that were dialled.
    #[prost(message, optional, tag = "23")]
    learnt: Option<LearntMessage>,
}

const ADDRESSES_FIELD: u32 = 1;
const NEWER_ADDRESSES_FIELD: u32 = 17;

/// All that this version knows in that value.
const ADDRESSES_FIELDS: [u32; 10] = [1, 2, 16, 17, 18, 19, 20, 21, 22, 23];

#[derive(Clone, PartialEq, Message)]
struct AddressMessage {
    #[prost(bytes = "vec", tag = "1")]
    multiaddr: Vec<u8>,
    #[prost(bool, optional, tag = "2")]
    is_certified: Option<bool>,
    #[prost(message, optional, tag = "16")]
    history: Option<HistoryMessage>,
}

/// How an address was learnt and what came of dialling it. Times are seconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Message)]
struct HistoryMessage {
    /// The bits of [`Sources`].
    #[prost(uint32, tag = "1")]
    sources: u32,
    #[prost(uint64, tag = "2")]
    first_heard: u64,
    #[prost(uint64, tag = "3")]
    last_heard: u64,
    #[prost(uint64, optional, tag = "4")]
    last_success: Option<u64>,
    #[prost(uint64, optional, tag = "5")]
    last_failure: Option<u64>,
    #[prost(uint32, tag = "6")]
    successes: u32,
    /// Since the last success.
    #[prost(uint32, tag = "7")]
    failures: u32,
    /// The confidence right after the last evidence, in 1/255, and when that was.
    #[prost(uint32, optional, tag = "8")]
    level: Option<u32>,
    #[prost(uint64, optional, tag = "9")]
    evidence: Option<u64>,
    /// Whether another peer answered at the last failure.
    #[prost(bool, tag = "10")]
    wrong_peer: bool,
}

/// What became of this node's dials, by [`Standing`](crate::address::Standing) from the least on.
#[derive(Clone, PartialEq, Message)]
struct LearntMessage {
    /// The decayed sum of successes of each.
    #[prost(float, repeated, tag = "1")]
    successes: Vec<f32>,
    /// The decayed sum of all outcomes of each.
    #[prost(float, repeated, tag = "2")]
    outcomes: Vec<f32>,
    /// When the last outcome came, in seconds since the Unix epoch: of all that stand in the datastore the latest counts.
    #[prost(uint64, tag = "3")]
    at: u64,
}

#[derive(Clone, PartialEq, Message)]
struct TagMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    value: u32,
    /// In seconds since the Unix epoch; without it the tag does not expire.
    #[prost(uint64, optional, tag = "3")]
    expires: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct CertifiedRecord {
    #[prost(uint64, tag = "1")]
    seq: u64,
    #[prost(bytes = "vec", tag = "2")]
    envelope: Vec<u8>,
}

/// `/peers/protos/<b32>`.
#[derive(Clone, PartialEq, Message)]
struct ProtocolsValue {
    #[prost(string, repeated, tag = "1")]
    protocols: Vec<String>,
    #[prost(message, optional, tag = "16")]
    format: Option<Format>,
    /// As field 22 of the addresses: who tells no address speaks protocols.
    #[prost(uint64, optional, tag = "17")]
    source: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Format {
    #[prost(uint32, tag = "1")]
    version: u32,
    /// When the content of the book last changed, in seconds since the Unix epoch.
    #[prost(uint64, tag = "2")]
    changed_at: u64,
}

// --- encoding ----------------------------------------------------------------------------------------------

/// The value of a peer's addresses, or `None` when there is nothing to keep. What was only seen on inbound
/// connections is not kept: it leads nowhere by the next start, and says who came to us.
pub(crate) fn encode_addresses(view: &View<'_>, model: &Model) -> Option<Vec<u8>> {
    let mut value = AddressesValue::default();
    let foreign = view.rare().and_then(|rare| rare.foreign.as_deref());
    let kept = |known: &Known<'_>| !known.history.is_inbound_only();
    for known in view.known().filter(kept) {
        let unknown = foreign.and_then(|foreign| {
            let mut of = foreign.in_addresses.iter();
            of.find(|(address, _)| address.as_ref() == known.address)
        });
        let unknown = unknown.map_or(&[][..], |(_, unknown)| unknown);
        let message = encode_address(&known, view.epoch(), unknown);
        if readable_by_js(known.address) {
            value.addresses.push(message);
        } else {
            value.newer_addresses.push(message);
        }
    }
    let mut unknown: &[u8] = &[];
    if let Some(foreign) = foreign {
        for (field, message) in &foreign.unreadable {
            match *field {
                ADDRESSES_FIELD => value.addresses.push(message.clone()),
                _ => value.newer_addresses.push(message.clone()),
            }
        }
        unknown = &foreign.addresses;
    }
    if let Some(signed) = view.rare().and_then(|rare| rare.signed.as_deref()) {
        let message = CertifiedRecord {
            seq: signed.seq,
            envelope: signed.envelope.to_vec(),
        };
        let message = Some(joined(&message, &signed.unknown));
        match signed.format {
            RecordFormat::Interop => value.certified_record = message,
            RecordFormat::Legacy => value.legacy_record = message,
        }
    }
    if let Some(rare) = view.rare() {
        let tags = rare.tags.iter();
        value.tags = tags.map(|(name, tag)| encode_tag(name, tag)).collect();
    }
    if value == AddressesValue::default() && unknown.is_empty() {
        return None;
    }
    // Alone it is nothing to keep: it would say of those who only came to us that they did.
    value.latency = view.latency().map(Latency::as_micros);
    value.first_proven = view.packed().first_proven().map(|at| at.0);
    let mut known = view.known();
    let tells = known.any(|known| known.history.sources.intersects(Sources::SELF_TOLD));
    value.source = view.source_group().filter(|_| tells);
    // Each outcome is written with the address that it is about: what was learnt from it is so too.
    let mut known = view.known().filter(kept);
    let dialled = known.any(|known| known.history.flags.contains(Flags::EVIDENCE));
    value.learnt = model
        .kept()
        .filter(|_| dialled)
        .map(|learnt| LearntMessage {
            successes: learnt.iter().map(|one| one.successes as f32).collect(),
            outcomes: learnt.iter().map(|one| one.outcomes as f32).collect(),
            at: model.learnt_at.0,
        });
    value.format = Some(Format {
        version: FORMAT,
        changed_at: view.packed().addresses_changed().0,
    });
    Some(joined(&value, unknown))
}

fn encode_tag(name: &str, tag: &KeptTag) -> Vec<u8> {
    let message = TagMessage {
        name: name.to_owned(),
        value: tag.value.into(),
        expires: tag.expires.map(|at| at.0),
    };
    joined(&message, &tag.unknown)
}

fn encode_address(known: &Known<'_>, epoch: Epoch, unknown: &[u8]) -> Vec<u8> {
    let history = &known.history;
    let time = |step| epoch.time(step).map(|at| at.0);
    let message = AddressMessage {
        multiaddr: known.address.to_vec(),
        is_certified: Some(history.sources.contains(Sources::CERTIFIED)),
        history: Some(HistoryMessage {
            sources: history.sources.bits().into(),
            first_heard: time(history.first_heard).unwrap_or_default(),
            last_heard: time(history.last_heard).unwrap_or_default(),
            last_success: time(history.success),
            last_failure: time(history.failure),
            successes: history.successes.into(),
            failures: history.failures.into(),
            level: history
                .flags
                .contains(Flags::EVIDENCE)
                .then_some(history.level.into()),
            evidence: time(history.evidence),
            wrong_peer: history.flags.contains(Flags::WRONG_PEER),
        }),
    };
    joined(&message, unknown)
}

/// The value of a peer's protocols, or `None` when there is nothing to keep.
pub(crate) fn encode_protocols(view: &View<'_>) -> Option<Vec<u8>> {
    let foreign = view.rare().and_then(|rare| rare.foreign.as_deref());
    let unknown = foreign.map_or(&[][..], |foreign| &foreign.protocols);
    if view.protocols().is_empty() && unknown.is_empty() {
        return None;
    }
    let value = ProtocolsValue {
        protocols: view.protocols().iter().map(ToString::to_string).collect(),
        format: Some(Format {
            version: FORMAT,
            changed_at: view.packed().protocols_changed().0,
        }),
        source: view.source_group(),
    };
    Some(joined(&value, unknown))
}

/// The value of a peer's public key: its libp2p protobuf message.
pub(crate) fn encode_public_key(key: &PublicKey) -> Vec<u8> {
    key.encode_protobuf()
}

fn joined(message: &impl Message, unknown: &[u8]) -> Vec<u8> {
    let mut bytes = message.encode_to_vec();
    bytes.extend_from_slice(unknown);
    bytes
}

/// Whether the multiaddr 8.1.2 of js-libp2p 0.30 knows every protocol of the address. `memory` stands in its
/// table too, but with another encoding.
fn readable_by_js(address: &[u8]) -> bool {
    protocols(address).all(|protocol| {
        matches!(
            protocol,
            Protocol::Ip4(_)
                | Protocol::Ip6(_)
                | Protocol::Ip6zone(_)
                | Protocol::Tcp(_)
                | Protocol::Udp(_)
                | Protocol::Dccp(_)
                | Protocol::Sctp(_)
                | Protocol::Dns(_)
                | Protocol::Dns4(_)
                | Protocol::Dns6(_)
                | Protocol::Dnsaddr(_)
                | Protocol::P2p(_)
                | Protocol::P2pCircuit
                | Protocol::P2pWebRtcStar
                | Protocol::P2pWebRtcDirect
                | Protocol::P2pStardust
                | Protocol::P2pWebSocketStar
                | Protocol::Udt
                | Protocol::Utp
                | Protocol::Unix(_)
                | Protocol::Http
                | Protocol::Https
                | Protocol::Onion(..)
                | Protocol::Onion3(_)
                | Protocol::Quic
        ) || is_plain_websocket(&protocol)
    })
}

/// `ws` and `wss`; with a path of their own (`x-parity-ws`) they are protocols that js-libp2p does not know.
fn is_plain_websocket(protocol: &Protocol<'_>) -> bool {
    match protocol {
        Protocol::Ws(path) | Protocol::Wss(path) => path == "/",
        _ => false,
    }
}

// --- decoding ----------------------------------------------------------------------------------------------

/// A peer's addresses as a datastore holds them, with times in the epoch of the moment in which they were read.
#[derive(Debug, Default)]
pub(crate) struct StoredAddresses {
    pub(crate) entries: Vec<Entry>,
    pub(crate) signed: Option<SignedRecord>,
    pub(crate) unreadable: Vec<(u32, Vec<u8>)>,
    pub(crate) in_addresses: Vec<(Address, Box<[u8]>)>,
    /// The tags, not checked yet.
    pub(crate) tags: Vec<(String, KeptTag)>,
    /// Tags that do not decode.
    pub(crate) unreadable_tags: usize,
    pub(crate) latency: Option<Latency>,
    pub(crate) first_proven: Option<Timestamp>,
    pub(crate) source: Option<Site>,
    pub(crate) model: Option<Model>,
    pub(crate) unknown: Vec<u8>,
    /// Whether there were more unknown fields than are kept.
    pub(crate) unknown_dropped: bool,
    pub(crate) changed_at: Timestamp,
    /// Whether something in it is said to have happened in the future.
    pub(crate) from_the_future: bool,
}

/// A peer's protocols as a datastore holds them; the names are not checked yet.
#[derive(Debug)]
pub(crate) struct StoredProtocols {
    pub(crate) names: Vec<String>,
    pub(crate) source: Option<Site>,
    pub(crate) unknown: Vec<u8>,
    /// Whether there were more unknown fields than are kept.
    pub(crate) unknown_dropped: bool,
    pub(crate) changed_at: Timestamp,
}

/// Why a value was not understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Undecodable {
    #[error("it has {len} bytes, {most} are the most")]
    TooLarge { len: usize, most: usize },
    #[error("it is not the protobuf message that belongs there")]
    Message(#[from] DecodeError),
    #[error("it is not a public key")]
    Key(#[from] libp2p_identity::DecodingError),
    #[error("the public key does not belong to the peer id")]
    ForeignKey,
}

/// Decodes the value of a peer's addresses. A time that lies in the future counts as `now`.
pub(crate) fn decode_addresses(
    bytes: &[u8],
    config: &Config,
    now: Timestamp,
) -> Result<StoredAddresses, Undecodable> {
    check_len(bytes, max_addresses_value(config))?;
    let epoch = Epoch::for_time(now);
    let value = AddressesValue::decode(bytes)?;
    let unknown = unknown_fields(bytes, &ADDRESSES_FIELDS)?;
    let mut stored = StoredAddresses {
        unknown,
        changed_at: value
            .format
            .map_or(now, |format| past(format.changed_at, now)),
        ..StoredAddresses::default()
    };
    let fields = [
        (ADDRESSES_FIELD, value.addresses),
        (NEWER_ADDRESSES_FIELD, value.newer_addresses),
    ];
    // A clock that was ahead was so for all that it said.
    let written = value.format.map_or(0, |format| format.changed_at);
    let ahead = written.saturating_sub(now.0);
    stored.from_the_future = ahead > 0;
    for (field, messages) in fields {
        for message in messages {
            match decode_address(&message, epoch, now) {
                Some((entry, unknown, latest)) => {
                    stored.from_the_future |= latest > now;
                    if !unknown.is_empty() {
                        let address = entry.address.clone();
                        stored.in_addresses.push((address, unknown.into()));
                    }
                    stored.entries.push(entry);
                }
                None => stored.unreadable.push((field, message)),
            }
        }
    }
    for bytes in value.tags {
        match decode_tag(&bytes) {
            Some((name, mut tag)) => {
                let present = |at: Timestamp| Timestamp(at.0.saturating_sub(ahead));
                tag.expires = tag.expires.map(present);
                stored.tags.push((name, tag));
            }
            None => stored.unreadable_tags += 1,
        }
    }
    stored.latency = value.latency.and_then(Latency::loaded);
    stored.first_proven = value.first_proven.map(|at| past(at, now));
    stored.source = value.source.and_then(source);
    stored.model = value.learnt.and_then(|learnt| decode_model(&learnt, now));
    let records = [
        (RecordFormat::Interop, value.certified_record),
        (RecordFormat::Legacy, value.legacy_record),
    ];
    let records = records.into_iter().filter_map(|(format, bytes)| {
        // One that does not decode spoils nothing else, and gives way to the next one.
        decode_record(format, &bytes?)
    });
    // One alone is kept; two are there only if two programs wrote in turn.
    stored.signed = records.max_by_key(|record| record.seq);
    stored.drop_unknown_beyond_limit();
    Ok(stored)
}

impl StoredAddresses {
    fn drop_unknown_beyond_limit(&mut self) {
        let in_addresses = self.in_addresses.iter().map(|(_, unknown)| unknown.len());
        let in_tags = self.tags.iter().map(|(_, tag)| tag.unknown.len());
        let in_record = self.signed.as_ref().map(|signed| signed.unknown.len());
        let all: usize = in_addresses.chain(in_tags).chain(in_record).sum();
        self.unknown_dropped = all + self.unknown.len() > MAX_UNKNOWN_LEN;
        if !self.unknown_dropped {
            return;
        }
        (self.unknown, self.in_addresses) = (Vec::new(), Vec::new());
        self.tags
            .iter_mut()
            .for_each(|(_, tag)| tag.unknown = Box::default());
        if let Some(signed) = &mut self.signed {
            signed.unknown = Arc::default();
        }
    }
}

fn decode_record(format: RecordFormat, bytes: &[u8]) -> Option<SignedRecord> {
    let record = CertifiedRecord::decode(bytes).ok()?;
    Some(SignedRecord {
        seq: record.seq,
        format,
        envelope: Arc::from(record.envelope),
        verified: false,
        unknown: unknown_fields(bytes, &[1, 2]).ok()?.into(),
    })
}

fn decode_tag(bytes: &[u8]) -> Option<(String, KeptTag)> {
    let message = TagMessage::decode(bytes).ok()?;
    let tag = KeptTag {
        // What is too high stays so, and is refused.
        value: u8::try_from(message.value).unwrap_or(u8::MAX),
        expires: message.expires.map(Timestamp),
        unknown: unknown_fields(bytes, &[1, 2, 3]).ok()?.into(),
    };
    Some((message.name, tag))
}

/// An address, the fields in it that this version does not know, and the latest moment that it speaks of.
fn decode_address(
    bytes: &[u8],
    epoch: Epoch,
    now: Timestamp,
) -> Option<(Entry, Vec<u8>, Timestamp)> {
    let message = AddressMessage::decode(bytes).ok()?;
    let unknown = unknown_fields(bytes, &[1, 2, 16]).ok()?;
    // An address, of which each part is known.
    if message.multiaddr.is_empty() || !is_multiaddr(&message.multiaddr) {
        return None;
    }
    let address = Address::from(&message.multiaddr[..]);
    let step = |at| epoch.step(past(at, now));
    let saturated = |count: u32| u8::try_from(count).unwrap_or(u8::MAX);
    let mut history = match message.history {
        Some(kept) => History {
            sources: Sources::from_bits_truncate(kept.sources as u16),
            flags: Flags::empty(),
            level: saturated(kept.level.unwrap_or_default()),
            evidence: kept.evidence.map(step).unwrap_or_default(),
            first_heard: step(kept.first_heard),
            last_heard: step(kept.last_heard),
            success: kept.last_success.map(step).unwrap_or_default(),
            failure: kept.last_failure.map(step).unwrap_or_default(),
            successes: saturated(kept.successes),
            failures: saturated(kept.failures),
        },
        // Another program wrote it last, which knows peers by identify above all.
        None => History {
            sources: Sources::IDENTIFY,
            first_heard: epoch.step(now),
            last_heard: epoch.step(now),
            ..History::default()
        },
    };
    let certified = message.is_certified == Some(true);
    history.sources.set(Sources::CERTIFIED, certified);
    let kept = message.history.as_ref();
    let evidence = kept.is_some_and(|kept| kept.level.is_some() && kept.evidence.is_some());
    history.flags.set(Flags::EVIDENCE, evidence);
    let wrong_peer = kept.is_some_and(|kept| kept.wrong_peer);
    history.flags.set(Flags::WRONG_PEER, wrong_peer);
    let latest = kept.map_or(0, |kept| {
        let proven = kept.last_success.max(kept.last_failure).max(kept.evidence);
        kept.first_heard
            .max(kept.last_heard)
            .max(proven.unwrap_or_default())
    });
    Some((Entry { address, history }, unknown, Timestamp(latest)))
}

/// The part of the value of a peer's protocols in which their names stand, if it was written in the order of its fields,
/// and the rest of it: most peers have the same names as others. `None` without such a part.
pub(crate) fn listed_protocols(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = bytes;
    loop {
        let mut after = rest;
        let is_name = decode_key(&mut after).is_ok_and(|key| key == (1, WireType::LengthDelimited));
        let len = is_name.then(|| decode_varint(&mut after).ok()).flatten();
        match len.and_then(|len| after.get(usize::try_from(len).ok()?..)) {
            Some(after) => rest = after,
            None => break,
        }
    }
    let listed = bytes.len() - rest.len();
    (listed > 0).then(|| bytes.split_at(listed))
}

/// Decodes the value of a peer's protocols.
pub(crate) fn decode_protocols(
    bytes: &[u8],
    config: &Config,
    now: Timestamp,
) -> Result<StoredProtocols, Undecodable> {
    check_len(bytes, max_protocols_value(config))?;
    let value = ProtocolsValue::decode(bytes)?;
    let mut unknown = unknown_fields(bytes, &[1, 16, 17])?;
    let unknown_dropped = unknown.len() > MAX_UNKNOWN_LEN;
    if unknown_dropped {
        unknown = Vec::new();
    }
    Ok(StoredProtocols {
        names: value.protocols,
        source: value.source.and_then(source),
        unknown,
        unknown_dropped,
        changed_at: value
            .format
            .map_or(now, |format| past(format.changed_at, now)),
    })
}

/// Decodes the value of a peer's public key.
pub(crate) fn decode_public_key(bytes: &[u8], peer: &PeerId) -> Result<PublicKey, Undecodable> {
    check_len(bytes, MAX_VALUE_LEN)?;
    let key = PublicKey::try_decode_protobuf(bytes)?;
    if PeerId::from_public_key(&key) == *peer {
        Ok(key)
    } else {
        Err(Undecodable::ForeignKey)
    }
}

fn check_len(bytes: &[u8], most: usize) -> Result<(), Undecodable> {
    let len = bytes.len();
    if len > most {
        return Err(Undecodable::TooLarge { len, most });
    }
    Ok(())
}

fn decode_model(message: &LearntMessage, now: Timestamp) -> Option<Model> {
    if message.successes.len() != message.outcomes.len() {
        return None;
    }
    let sums = message.successes.iter().zip(&message.outcomes);
    let learnt = sums.map(|(successes, outcomes)| Learnt {
        successes: f64::from(*successes),
        outcomes: f64::from(*outcomes),
    });
    Model::loaded(learnt.collect(), past(message.at, now))
}

fn source(number: u64) -> Option<Site> {
    Group::from_number(number).map(Group::site)
}

fn past(at: u64, now: Timestamp) -> Timestamp {
    Timestamp(at).min(now)
}

/// The fields of a message whose numbers are not in `known`, byte for byte.
fn unknown_fields(bytes: &[u8], known: &[u32]) -> Result<Vec<u8>, DecodeError> {
    let mut unknown = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let field = rest;
        let (number, wire_type) = decode_key(&mut rest)?;
        skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
        if !known.contains(&number) {
            unknown.extend_from_slice(&field[..field.len() - rest.len()]);
        }
    }
    Ok(unknown)
}
