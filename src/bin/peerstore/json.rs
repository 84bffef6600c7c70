//! JSON for scripts, and for a terminal that nothing in it can harm. `docs/cli.md` documents the shapes.

use std::time::{SystemTime, UNIX_EPOCH};

use libp2p_peerstore::{AddressInfo, Peer, RecordFormat, Sources, Standing, tool};
use serde_json::{Map, Value, json};

/// A value in one line of ASCII. What strangers wrote comes out exactly as they wrote it when the line is parsed.
pub fn line(value: &Value) -> String {
    ascii(&value.to_string())
}

/// Escapes what is not ASCII in a text of JSON: only strings in it hold such characters.
pub fn ascii(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' '..='~' => line.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    line.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    line
}

/// Seconds since 1970.
pub fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The name of a standing, in JSON and in counts.
pub fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Inbound => "inbound",
        Standing::Hearsay => "hearsay",
        Standing::SelfTold => "self_told",
        Standing::Proven => "proven",
        _ => "other",
    }
}

/// The names of sources.
pub fn sources(sources: Sources) -> Vec<String> {
    let names = sources.iter_names();
    names.map(|(name, _)| name.to_lowercase()).collect()
}

pub fn address(info: &AddressInfo) -> Value {
    json!({
        "address": info.address.to_string(),
        "standing": standing(info.standing),
        "confidence": rounded(info.confidence),
        "sources": sources(info.sources),
        "firstHeard": seconds(info.first_heard),
        "lastHeard": seconds(info.last_heard),
        "lastSuccess": info.last_success.map(seconds),
        "lastFailure": info.last_failure.map(seconds),
        "successes": info.successes,
        "failures": info.failures,
        "backOff": info.back_off.map(|rest| rest.as_secs()),
        "expires": info.expires.map(seconds),
    })
}

/// One shape for `ls` and `show`.
pub fn peer(peer: &Peer) -> Map<String, Value> {
    let text = |name: &str| {
        let value = peer.metadata.get(name)?;
        Some(String::from_utf8_lossy(value).into_owned())
    };
    let metadata = peer.metadata.iter();
    let metadata: Map<String, Value> = metadata
        .map(|(name, value)| (name.clone(), tool::hex(value).into()))
        .collect();
    let tags = peer.tags.iter();
    let tags: Map<String, Value> = tags
        .map(|(name, tag)| {
            let tag = json!({ "value": tag.value, "expires": tag.expires.map(seconds) });
            (name.clone(), tag)
        })
        .collect();
    let key = peer.public_key.as_ref();
    let record = peer.signed_record.as_ref().map(|record| {
        let format = match record.format {
            RecordFormat::Interop => "interop",
            _ => "legacy",
        };
        json!({ "seq": record.seq, "format": format, "envelope": tool::hex(&record.envelope) })
    });
    let protocols: Vec<&str> = peer.protocols.iter().map(AsRef::as_ref).collect();
    let object = json!({
        "id": peer.id.to_string(),
        "b32": tool::b32(&peer.id),
        "agent": text(libp2p_peerstore::AGENT_VERSION),
        "protocolVersion": text(libp2p_peerstore::PROTOCOL_VERSION),
        "confidence": peer.confidence().map(rounded),
        "lastSeen": seconds(peer.last_seen),
        "latencyMicros": peer.latency.map(|latency| latency.as_micros() as u64),
        "keyType": key.map(|key| key.key_type().to_string().to_lowercase()),
        "publicKey": key.map(|key| tool::hex(&key.encode_protobuf())),
        "addresses": peer.addresses.iter().map(address).collect::<Vec<_>>(),
        "protocols": protocols,
        "tags": tags,
        "metadata": metadata,
        "signedRecord": record,
    });
    match object {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// To four digits: more would be noise.
pub fn rounded(confidence: f64) -> f64 {
    (confidence * 10_000.0).round() / 10_000.0
}
