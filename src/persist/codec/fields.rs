//! One peer as a line of JSON, field by field and without loss, for the export and import of the command line.
//!
//! The first fields are those of the file that describes the test data of js-libp2p (`tests/data`); `docs/cli.md` explains all
//! of them. What fields cannot say byte for byte (numbers of fields that nobody has used yet inside a history, another order,
//! a value that does not decode) is in `raw`.

use std::collections::BTreeMap;

use libp2p_core::Multiaddr;
use libp2p_identity::{KeyType, PeerId, PublicKey};
use prost::Message;
use serde::{Deserialize, Serialize};

use super::{
    ADDRESSES_FIELD, ADDRESSES_FIELDS, AddressMessage, AddressesValue, CertifiedRecord, Format,
    HistoryMessage, LearntMessage, NEWER_ADDRESSES_FIELD, ProtocolsValue, TagMessage, joined,
    readable_by_js, unknown_fields,
};
use crate::{
    persist::{key, limits::MAX_VALUE_LEN},
    record::is_inlined,
    view::inlined_key,
};

/// Why a line is not one of a peer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LineError(String);

fn bad(reason: impl Into<String>) -> LineError {
    LineError(reason.into())
}

/// Everything that a datastore holds of one peer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Line {
    pub id: String,
    #[serde(default)]
    pub b32: Option<String>,
    #[serde(default)]
    pub key_type: Option<String>,
    #[serde(default)]
    pub addrs: Vec<String>,
    #[serde(default)]
    pub addr_bytes: Vec<String>,
    #[serde(default)]
    pub certified: bool,
    #[serde(default)]
    pub record: Option<RecordField>,
    #[serde(default)]
    pub protocols: Vec<String>,
    #[serde(default)]
    pub pub_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addr_info: Vec<AddrInfo>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<Unreadable>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rust_record: Option<RecordField>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<TagField>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_micros: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_proven: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dials: Option<Dials>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addrs_format: Option<FormatField>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub addrs_unknown: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocols_format: Option<FormatField>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocols_source: Option<u64>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub protocols_unknown: String,
    #[serde(default, skip_serializing_if = "Raw::is_empty")]
    pub raw: Raw,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordField {
    pub seq: u64,
    pub raw: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unknown: String,
}

/// What is known of the address at the same place in `addrs`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AddrInfo {
    #[serde(default)]
    pub certified: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<HistoryField>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unknown: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HistoryField {
    /// The bits of [`Sources`](crate::Sources).
    pub sources: u32,
    pub first_heard: u64,
    pub last_heard: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<u64>,
    #[serde(default)]
    pub successes: u32,
    #[serde(default)]
    pub failures: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wrong_peer: bool,
}

/// The message of an address that this version cannot parse, and the field in which it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Unreadable {
    pub field: u32,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TagField {
    pub name: String,
    pub value: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unknown: String,
}

/// What the node that wrote this had learnt of dials in general.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dials {
    pub successes: Vec<f64>,
    pub outcomes: Vec<f64>,
    pub at: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FormatField {
    pub version: u32,
    pub changed_at: u64,
}

/// Values that the fields cannot say byte for byte, in hex.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Raw {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addrs: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protos: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<String>,
}

impl Raw {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The values under the keys of one peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values {
    pub addresses: Option<Vec<u8>>,
    pub protocols: Option<Vec<u8>>,
    pub public_key: Option<Vec<u8>>,
    /// `None` when they were not asked for.
    pub metadata: Option<BTreeMap<String, Vec<u8>>>,
}

impl Line {
    /// The line of a peer.
    pub fn new(peer: &PeerId, values: &Values) -> Self {
        let mut line = Self {
            id: peer.to_string(),
            b32: Some(key::b32(peer)),
            ..Self::default()
        };
        line.take_key(peer, values.public_key.as_deref());
        // One that no node decodes has no fields, only bytes.
        let is_read = |bytes: &&Vec<u8>| bytes.len() <= MAX_VALUE_LEN;
        if let Some(bytes) = values.addresses.as_ref().filter(is_read) {
            let _ = line.take_addresses(bytes);
        }
        if let Some(bytes) = values.protocols.as_ref().filter(is_read) {
            let _ = line.take_protocols(bytes);
        }
        let raw = |value: &Option<Vec<u8>>, said: Option<Vec<u8>>| {
            let differs = value.is_some() && *value != said;
            value.as_deref().filter(|_| differs).map(hex)
        };
        line.raw = Raw {
            addrs: raw(&values.addresses, line.addresses().ok().flatten()),
            protos: raw(&values.protocols, line.protocols().ok().flatten()),
            keys: raw(&values.public_key, line.public_key(peer).ok().flatten()),
        };
        line.metadata = values.metadata.as_ref().map(|metadata| {
            let metadata = metadata.iter();
            metadata
                .map(|(key, value)| (key.clone(), hex(value)))
                .collect()
        });
        line
    }

    /// The peer, and the values that belong under its keys.
    ///
    /// # Errors
    ///
    /// When the line contradicts itself, or holds what is not of its kind.
    pub fn values(&self) -> Result<(PeerId, Values), LineError> {
        let peer: PeerId = self.id.parse().map_err(|_| {
            let id: String = self.id.chars().take(80).collect();
            bad(format!(
                "`id` is not a peer id in base58: `{}`",
                id.escape_debug()
            ))
        })?;
        if self.b32.as_ref().is_some_and(|b32| *b32 != key::b32(&peer)) {
            return Err(bad("`b32` is not the spelling of `id`"));
        }
        let values = Values {
            addresses: or_raw("addrs", &self.raw.addrs, self.addresses()?)?,
            protocols: or_raw("protos", &self.raw.protos, self.protocols()?)?,
            public_key: or_raw("keys", &self.raw.keys, self.public_key(&peer)?)?,
            metadata: match &self.metadata {
                None => None,
                Some(metadata) => {
                    let one = |(name, value): (&String, &String)| {
                        if name.is_empty() {
                            return Err(bad("`metadata` has an empty key"));
                        }
                        let value = unhex(value, || format!("metadata `{}`", name.escape_debug()));
                        Ok((name.clone(), value?))
                    };
                    Some(metadata.iter().map(one).collect::<Result<_, _>>()?)
                }
            },
        };
        self.check_raw(&peer, &values)?;
        Ok((peer, values))
    }

    /// Bytes in `raw` must say what the fields beside them say: else somebody edited one of the two.
    fn check_raw(&self, peer: &PeerId, values: &Values) -> Result<(), LineError> {
        if self.raw.is_empty() {
            return Ok(());
        }
        let said = Line::new(peer, values);
        let addresses = |line: &Line| {
            (
                (line.addrs.clone(), line.addr_bytes.clone(), line.certified),
                (line.record.clone(), line.rust_record.clone()),
                (
                    line.addr_info.clone(),
                    line.unreadable.clone(),
                    line.tags.clone(),
                ),
                (
                    line.latency_micros,
                    line.first_proven,
                    line.source,
                    line.dials.clone(),
                ),
                (line.addrs_format, line.addrs_unknown.clone()),
            )
        };
        let protocols = |line: &Line| {
            (
                line.protocols.clone(),
                line.protocols_format,
                line.protocols_source,
                line.protocols_unknown.clone(),
            )
        };
        let differs = if self.raw.addrs.is_some() && addresses(self) != addresses(&said) {
            "addrs"
        } else if self.raw.protos.is_some() && protocols(self) != protocols(&said) {
            "protos"
        } else if self.raw.keys.is_some() && self.pub_key != said.pub_key {
            "keys"
        } else {
            return Ok(());
        };
        Err(bad(format!(
            "`raw.{differs}` says something else than the fields beside it; remove `raw.{differs}` if you changed the fields"
        )))
    }

    // --- out of values -------------------------------------------------------------------------------------

    fn take_key(&mut self, peer: &PeerId, value: Option<&[u8]>) {
        let stored = value.and_then(|bytes| PublicKey::try_decode_protobuf(bytes).ok());
        let stored = stored.filter(|key| PeerId::from_public_key(key) == *peer);
        let known = stored.or_else(|| inlined_key(peer));
        self.key_type = known.as_ref().map(|key| {
            let name = match key.key_type() {
                KeyType::Ed25519 => "ed25519",
                KeyType::RSA => "rsa",
                KeyType::Secp256k1 => "secp256k1",
                KeyType::Ecdsa => "ecdsa",
            };
            name.to_owned()
        });
        self.pub_key = known.map(|key| hex(&key.encode_protobuf()));
    }

    fn take_addresses(&mut self, bytes: &[u8]) -> Result<(), prost::DecodeError> {
        let value = AddressesValue::decode(bytes)?;
        self.addrs_unknown = hex(&unknown_fields(bytes, &ADDRESSES_FIELDS)?);
        let fields = [
            (ADDRESSES_FIELD, value.addresses),
            (NEWER_ADDRESSES_FIELD, value.newer_addresses),
        ];
        for (field, messages) in fields {
            for message in messages {
                if self.take_address(&message).is_none() {
                    self.unreadable.push(Unreadable {
                        field,
                        message: hex(&message),
                    });
                }
            }
        }
        let all = |certified| {
            self.addr_info
                .iter()
                .all(|info| info.certified == certified)
        };
        self.certified = !self.addr_info.is_empty() && all(Some(true));
        if self.addr_info.iter().all(|info| {
            let plain = AddrInfo {
                certified: Some(self.certified),
                ..AddrInfo::default()
            };
            *info == plain
        }) {
            // The fields that js-libp2p knows say it all.
            self.addr_info.clear();
        }
        let record = |bytes: Option<Vec<u8>>| {
            let bytes = bytes?;
            let record = CertifiedRecord::decode(&bytes[..]).ok()?;
            Some(RecordField {
                seq: record.seq,
                raw: hex(&record.envelope),
                unknown: hex(&unknown_fields(&bytes, &[1, 2]).ok()?),
            })
        };
        self.record = record(value.certified_record);
        self.rust_record = record(value.legacy_record);
        for bytes in value.tags {
            let tag = TagMessage::decode(&bytes[..]);
            let unknown = unknown_fields(&bytes, &[1, 2, 3]);
            if let (Ok(tag), Ok(unknown)) = (tag, unknown) {
                self.tags.push(TagField {
                    name: tag.name,
                    value: tag.value,
                    expires: tag.expires,
                    unknown: hex(&unknown),
                });
            }
        }
        self.latency_micros = value.latency;
        self.first_proven = value.first_proven;
        self.source = value.source;
        let sums = |sums: Vec<f32>| -> Option<Vec<f64>> {
            let mut sums = sums.into_iter();
            let all = sums
                .by_ref()
                .map(|sum| sum.is_finite().then_some(f64::from(sum)));
            all.collect()
        };
        self.dials = value.learnt.and_then(|learnt| {
            Some(Dials {
                successes: sums(learnt.successes)?,
                outcomes: sums(learnt.outcomes)?,
                at: learnt.at,
            })
        });
        self.addrs_format = value.format.map(FormatField::from);
        Ok(())
    }

    fn take_address(&mut self, bytes: &[u8]) -> Option<()> {
        let message = AddressMessage::decode(bytes).ok()?;
        let unknown = unknown_fields(bytes, &[1, 2, 16]).ok()?;
        let address = Multiaddr::try_from(message.multiaddr.clone()).ok()?;
        if address.is_empty() {
            return None;
        }
        self.addrs.push(address.to_string());
        self.addr_bytes.push(hex(&message.multiaddr));
        self.addr_info.push(AddrInfo {
            certified: message.is_certified,
            history: message.history.map(HistoryField::from),
            unknown: hex(&unknown),
        });
        Some(())
    }

    fn take_protocols(&mut self, bytes: &[u8]) -> Result<(), prost::DecodeError> {
        let value = ProtocolsValue::decode(bytes)?;
        self.protocols_unknown = hex(&unknown_fields(bytes, &[1, 16, 17])?);
        self.protocols = value.protocols;
        self.protocols_format = value.format.map(FormatField::from);
        self.protocols_source = value.source;
        Ok(())
    }

    // --- into values ---------------------------------------------------------------------------------------

    fn addresses(&self) -> Result<Option<Vec<u8>>, LineError> {
        let mut value = AddressesValue::default();
        let count = self.addrs.len().max(self.addr_bytes.len());
        for (name, len) in [
            ("addrs", self.addrs.len()),
            ("addrBytes", self.addr_bytes.len()),
        ] {
            if len != count && len != 0 {
                return Err(bad(format!(
                    "`{name}` has {len} addresses, and the list beside it {count}"
                )));
            }
        }
        if !self.addr_info.is_empty() && self.addr_info.len() != count {
            return Err(bad(format!(
                "`addrInfo` is of {} addresses, and there are {count}",
                self.addr_info.len()
            )));
        }
        for at in 0..count {
            let address = self.address(at)?;
            let plain = AddrInfo {
                certified: Some(self.certified),
                ..AddrInfo::default()
            };
            let info = self.addr_info.get(at).unwrap_or(&plain);
            let message = AddressMessage {
                multiaddr: address.clone(),
                is_certified: info.certified,
                history: info.history.as_ref().map(HistoryMessage::from),
            };
            let unknown = fields(&info.unknown, || format!("addrInfo[{at}].unknown"))?;
            let message = joined(&message, &unknown);
            match readable_by_js(&address) {
                true => value.addresses.push(message),
                false => value.newer_addresses.push(message),
            }
        }
        for (at, unreadable) in self.unreadable.iter().enumerate() {
            let message = unhex(&unreadable.message, || format!("unreadable[{at}].message"))?;
            match unreadable.field {
                ADDRESSES_FIELD => value.addresses.push(message),
                NEWER_ADDRESSES_FIELD => value.newer_addresses.push(message),
                other => {
                    return Err(bad(format!(
                        "`unreadable[{at}].field` is {other}, not 1 or 17"
                    )));
                }
            }
        }
        let record = |name: &str, record: &Option<RecordField>| {
            let Some(record) = record else {
                return Ok(None);
            };
            let message = CertifiedRecord {
                seq: record.seq,
                envelope: unhex(&record.raw, || format!("{name}.raw"))?,
            };
            let unknown = fields(&record.unknown, || format!("{name}.unknown"))?;
            Ok::<_, LineError>(Some(joined(&message, &unknown)))
        };
        value.certified_record = record("record", &self.record)?;
        value.legacy_record = record("rustRecord", &self.rust_record)?;
        for (at, tag) in self.tags.iter().enumerate() {
            let message = TagMessage {
                name: tag.name.clone(),
                value: tag.value,
                expires: tag.expires,
            };
            let unknown = fields(&tag.unknown, || format!("tags[{at}].unknown"))?;
            value.tags.push(joined(&message, &unknown));
        }
        value.latency = self.latency_micros;
        value.first_proven = self.first_proven;
        value.source = self.source;
        value.learnt = self.dials.as_ref().map(|dials| LearntMessage {
            successes: dials.successes.iter().map(|sum| *sum as f32).collect(),
            outcomes: dials.outcomes.iter().map(|sum| *sum as f32).collect(),
            at: dials.at,
        });
        value.format = self.addrs_format.map(Format::from);
        let unknown = fields(&self.addrs_unknown, || "addrsUnknown".to_owned())?;
        let is_empty = value == AddressesValue::default() && unknown.is_empty();
        Ok((!is_empty).then(|| joined(&value, &unknown)))
    }

    fn address(&self, at: usize) -> Result<Vec<u8>, LineError> {
        let text = self.addrs.get(at);
        let parsed = text.map(|text| text.parse::<Multiaddr>());
        let Some(bytes) = self.addr_bytes.get(at) else {
            let parsed = parsed
                .and_then(Result::ok)
                .filter(|address| !address.is_empty());
            let parsed = parsed.ok_or_else(|| bad(format!("`addrs[{at}]` is not a multiaddr")))?;
            return Ok(parsed.to_vec());
        };
        let bytes = unhex(bytes, || format!("addrBytes[{at}]"))?;
        let address = Multiaddr::try_from(bytes.clone()).ok();
        if address.is_none_or(|address| address.is_empty()) {
            return Err(bad(format!("`addrBytes[{at}]` is not a multiaddr")));
        }
        match parsed {
            // Other programs may spell an address in a way that we do not know: the bytes count.
            None | Some(Err(_)) => Ok(bytes),
            Some(Ok(parsed)) if parsed.as_ref() == bytes => Ok(bytes),
            Some(Ok(_)) => Err(bad(format!(
                "`addrs[{at}]` and `addrBytes[{at}]` are different addresses; remove `addrBytes` if you changed `addrs`"
            ))),
        }
    }

    fn protocols(&self) -> Result<Option<Vec<u8>>, LineError> {
        let value = ProtocolsValue {
            protocols: self.protocols.clone(),
            format: self.protocols_format.map(Format::from),
            source: self.protocols_source,
        };
        let unknown = fields(&self.protocols_unknown, || "protocolsUnknown".to_owned())?;
        let is_empty = value == ProtocolsValue::default() && unknown.is_empty();
        Ok((!is_empty).then(|| joined(&value, &unknown)))
    }

    fn public_key(&self, peer: &PeerId) -> Result<Option<Vec<u8>>, LineError> {
        let Some(text) = &self.pub_key else {
            return Ok(None);
        };
        let bytes = unhex(text, || "pubKey".to_owned())?;
        let key = PublicKey::try_decode_protobuf(&bytes)
            .map_err(|error| bad(format!("`pubKey` is not a public key: {error}")))?;
        if PeerId::from_public_key(&key) != *peer {
            return Err(bad("`pubKey` does not belong to `id`"));
        }
        Ok((!is_inlined(peer)).then_some(bytes))
    }
}

/// What stands in `raw`, or else what the fields say.
fn or_raw(
    name: &str,
    raw: &Option<String>,
    said: Option<Vec<u8>>,
) -> Result<Option<Vec<u8>>, LineError> {
    match raw {
        Some(raw) => Ok(Some(unhex(raw, || format!("raw.{name}"))?)),
        None => Ok(said),
    }
}

impl From<Format> for FormatField {
    fn from(format: Format) -> Self {
        Self {
            version: format.version,
            changed_at: format.changed_at,
        }
    }
}

impl From<FormatField> for Format {
    fn from(format: FormatField) -> Self {
        Self {
            version: format.version,
            changed_at: format.changed_at,
        }
    }
}

impl From<HistoryMessage> for HistoryField {
    fn from(history: HistoryMessage) -> Self {
        Self {
            sources: history.sources,
            first_heard: history.first_heard,
            last_heard: history.last_heard,
            last_success: history.last_success,
            last_failure: history.last_failure,
            successes: history.successes,
            failures: history.failures,
            level: history.level,
            evidence: history.evidence,
            wrong_peer: history.wrong_peer,
        }
    }
}

impl From<&HistoryField> for HistoryMessage {
    fn from(history: &HistoryField) -> Self {
        Self {
            sources: history.sources,
            first_heard: history.first_heard,
            last_heard: history.last_heard,
            last_success: history.last_success,
            last_failure: history.last_failure,
            successes: history.successes,
            failures: history.failures,
            level: history.level,
            evidence: history.evidence,
            wrong_peer: history.wrong_peer,
        }
    }
}

/// Bytes in small hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let prefixed = multibase::encode(multibase::Base::Base16Lower, bytes);
    prefixed[1..].to_owned()
}

fn unhex(text: &str, name: impl Fn() -> String) -> Result<Vec<u8>, LineError> {
    multibase::Base::Base16Lower
        .decode(text.to_ascii_lowercase())
        .map_err(|_| bad(format!("`{}` is not in hexadecimal digits", name())))
}

/// Bytes that are whole fields of a protobuf message: anything else would spoil what it is appended to.
fn fields(text: &str, name: impl Fn() -> String) -> Result<Vec<u8>, LineError> {
    let bytes = unhex(text, &name)?;
    unknown_fields(&bytes, &[])
        .map_err(|_| bad(format!("`{}` does not hold protobuf fields", name())))?;
    Ok(bytes)
}
