//! What js-libp2p 0.30 wrote loads whole, what this crate writes can be read there, and what neither of them
//! knows stays as it is.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used)]

#[path = "support/datastore.rs"]
mod support;
#[path = "support/wire.rs"]
mod wire;

#[cfg(feature = "fs")]
#[path = "js_fixture/folder.rs"]
mod folder;
#[path = "js_fixture/foreign.rs"]
mod foreign;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use futures::executor::block_on;
use libp2p::{Multiaddr, PeerId, identity::PublicKey};
use libp2p_peerstore::{Datastore, LoadReport, MemoryDatastore, PeerStore};
use serde_json::Value;

use support::{Hand, Recording, addr, addrs_key, b32, keys_key, metadata_key, protos_key};
use wire::JsAddresses;

// --- the fixture -------------------------------------------------------------------------------------------

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/js-libp2p-0.30")
}

/// One line of `peers.jsonl`.
#[derive(Debug)]
struct Expected {
    id: PeerId,
    b32: String,
    addresses: Vec<(String, Vec<u8>)>,
    certified: bool,
    record: Option<(u64, Vec<u8>)>,
    protocols: Vec<String>,
    public_key: Option<Vec<u8>>,
    /// Whether the peer id contains the key.
    is_inline: bool,
    metadata: BTreeMap<String, Vec<u8>>,
}

fn hex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().unwrap().iter();
    items
        .map(|item| item.as_str().unwrap().to_owned())
        .collect()
}

fn expected() -> Vec<Expected> {
    let lines = fs::read_to_string(fixture().join("peers.jsonl")).unwrap();
    let peers = lines.lines().map(|line| {
        let peer: Value = serde_json::from_str(line).unwrap();
        let bytes = peer["addrBytes"].as_array().unwrap().iter().map(hex);
        let record = peer["record"].as_object();
        let metadata = peer["metadata"].as_object().unwrap().iter();
        Expected {
            id: peer["id"].as_str().unwrap().parse().unwrap(),
            b32: peer["b32"].as_str().unwrap().to_owned(),
            addresses: strings(&peer["addrs"]).into_iter().zip(bytes).collect(),
            certified: peer["certified"].as_bool().unwrap(),
            record: record.map(|record| (record["seq"].as_u64().unwrap(), hex(&record["raw"]))),
            protocols: strings(&peer["protocols"]),
            public_key: (!peer["pubKey"].is_null()).then(|| hex(&peer["pubKey"])),
            is_inline: peer["keyType"] != "rsa",
            metadata: metadata
                .map(|(key, value)| (key.clone(), hex(value)))
                .collect(),
        }
    });
    peers.collect()
}

/// The fixture's folder as a datastore. Returns how many entries it has.
fn datastore() -> (MemoryDatastore, usize) {
    fn read(folder: &Path, root: &Path, into: &MemoryDatastore) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, root, into);
                continue;
            }
            let parts = path.strip_prefix(root).unwrap().iter();
            let key: String = parts
                .map(|part| format!("/{}", part.to_str().unwrap()))
                .collect();
            let key = key.strip_suffix(".data").unwrap();
            block_on(into.put(key, fs::read(&path).unwrap())).unwrap();
        }
    }
    let memory = MemoryDatastore::default();
    let root = fixture().join("store");
    read(&root, &root, &memory);
    let entries = memory.len();
    assert!(entries > 24 * 2, "{entries}");
    (memory, entries)
}

/// What a store holds is what was put into the one of js-libp2p.
fn assert_holds(store: &PeerStore, expected: &[Expected]) {
    assert_eq!(store.len(), expected.len());
    for expected in expected {
        let peer = store.get(&expected.id).unwrap();
        let addresses = store.addresses().get(&expected.id).unwrap();
        let text_and_bytes = addresses.iter().map(|a| (a.to_string(), a.to_vec()));
        assert_eq!(text_and_bytes.collect::<Vec<_>>(), expected.addresses);
        for info in &peer.addresses {
            assert_eq!(info.is_certified(), expected.certified, "{}", expected.id);
        }
        let record = peer.signed_record.map(|r| (r.seq, r.envelope.to_vec()));
        assert_eq!(record, expected.record, "{}", expected.id);
        let protocols = store.protocols().get(&expected.id).unwrap();
        let protocols: Vec<String> = protocols.iter().map(ToString::to_string).collect();
        assert_eq!(protocols, expected.protocols);
        let key = store.keys().get(&expected.id);
        assert_eq!(key, peer.public_key);
        assert_eq!(
            key.as_ref().map(PublicKey::encode_protobuf),
            expected.public_key
        );
        assert_eq!(peer.metadata, expected.metadata);
    }
}

/// js-libp2p would find in the datastore what it put there.
fn assert_js_reads(memory: &MemoryDatastore, expected: &[Expected]) {
    let mut entries: BTreeMap<String, Vec<u8>> = memory.entries().into_iter().collect();
    for expected in expected {
        let addresses = entries.remove(&format!("/peers/addrs/{}", expected.b32));
        let bytes = expected.addresses.iter().map(|(_, bytes)| bytes.clone());
        let addresses = addresses.map_or(
            JsAddresses {
                addresses: vec![],
                record: None,
            },
            |value| JsAddresses::decode(&value),
        );
        let js = JsAddresses {
            addresses: bytes.map(|bytes| (bytes, expected.certified)).collect(),
            record: expected.record.clone(),
        };
        assert_eq!(addresses, js, "{}", expected.id);
        assert!(js.addresses.iter().all(|(bytes, _)| wire::js_parses(bytes)));

        let protocols = entries.remove(&format!("/peers/protos/{}", expected.b32));
        let protocols = protocols.map(|value| wire::js_protocols(&value));
        assert_eq!(protocols.unwrap_or_default(), expected.protocols);

        let key = entries.remove(&format!("/peers/keys/{}", expected.b32));
        match expected.is_inline {
            true => assert_eq!(key, None),
            false => assert_eq!(key, expected.public_key),
        }
        for (name, value) in &expected.metadata {
            let stored = entries.remove(&format!("/peers/metadata/{}/{name}", expected.b32));
            assert_eq!(stored.as_ref(), Some(value), "{name}");
        }
    }
    assert_eq!(entries, BTreeMap::new(), "nothing else was written");
}

// --- tests -------------------------------------------------------------------------------------------------

#[test]
fn the_fixture_has_what_its_readme_promises() {
    let expected = expected();
    assert_eq!(expected.len(), 24);
    let (memory, _) = datastore();
    assert_js_reads(&memory, &expected);
    for peer in &expected {
        assert_eq!(b32(&peer.id), peer.b32);
    }
    // So that none of the comparisons is one of nothing with nothing.
    assert!(
        expected
            .iter()
            .any(|peer| peer.certified && peer.record.is_some())
    );
    assert!(
        expected
            .iter()
            .any(|peer| peer.addresses.len() > 1 && !peer.certified)
    );
    assert!(expected.iter().any(|peer| peer.protocols.is_empty()));
    assert!(
        expected
            .iter()
            .any(|peer| !peer.is_inline && peer.public_key.is_some())
    );
    let names = expected.iter().flat_map(|peer| peer.metadata.keys());
    assert!(names.filter(|name| name.contains('/')).count() > 1);
    let values = expected.iter().flat_map(|peer| peer.metadata.values());
    assert!(values.filter(|value| value.is_empty()).count() > 1);
}

#[test]
fn what_js_libp2p_wrote_loads_whole() {
    let mut hand = Hand::default();
    let (memory, entries) = datastore();
    let before = memory.entries();
    let recording = Recording::on(memory.clone());
    let store = hand.open(recording.clone());
    let mut report = LoadReport::default();
    (report.peers, report.entries) = (24, entries);
    assert_eq!(store.load_report(), report);
    assert_holds(&store, &expected());

    assert_eq!(store.unsaved(), 0);
    hand.advance(std::time::Duration::from_secs(3_600));
    hand.shutdown(store);
    assert_eq!(recording.started(), 0);
    assert_eq!(memory.entries(), before);
}

#[test]
fn js_libp2p_reads_what_is_written_over_its_own() {
    let mut hand = Hand::default();
    let (memory, _) = datastore();
    let expected = expected();
    let recording = Recording::on(memory.clone());
    let store = hand.open(recording.clone());
    for peer in &expected {
        // Each book is touched, and left as it was.
        assert!(store.addresses().add(peer.id, [addr(1)]).changed);
        assert!(store.addresses().remove(peer.id, [addr(1)]).changed);
        assert!(store.protocols().add(peer.id, ["/touched"]).changed);
        assert!(store.protocols().remove(peer.id, ["/touched"]).changed);
        if let Some(key) = peer.public_key.as_ref().filter(|_| !peer.is_inline) {
            assert!(store.keys().delete(&peer.id));
            let key = PublicKey::try_decode_protobuf(key).unwrap();
            assert_eq!(store.keys().set(peer.id, key), Ok(true));
        }
        for (name, value) in &peer.metadata {
            assert!(store.metadata().delete_value(&peer.id, name));
            assert_eq!(store.metadata().set(peer.id, name, value), Ok(true));
        }
    }
    hand.flush(&store);
    let written = support::puts(&recording.take_commit());
    for peer in &expected {
        let mut keys = vec![];
        if !peer.addresses.is_empty() {
            keys.push(addrs_key(&peer.id));
        }
        if !peer.protocols.is_empty() {
            keys.push(protos_key(&peer.id));
        }
        if !peer.is_inline && peer.public_key.is_some() {
            keys.push(keys_key(&peer.id));
        }
        keys.extend(
            peer.metadata
                .keys()
                .map(|name| metadata_key(&peer.id, name)),
        );
        assert!(keys.iter().all(|key| written.contains(key)), "{keys:?}");
    }

    assert_js_reads(&memory, &expected);
    let again = hand.open(memory.clone());
    assert_holds(&again, &expected);
    assert_eq!(
        again.load_report().foreign + again.load_report().undecodable,
        0
    );
}

#[test]
fn what_this_crate_adds_stands_in_fields_from_sixteen_up() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let store = hand.open(memory.clone());
    let peer = PeerId::random();
    store.addresses().pin(peer, [addr(1)]);
    store.protocols().add(peer, ["/p"]);
    hand.flush(&store);
    let value = |key: String| block_on(memory.get(&key)).unwrap().unwrap();
    let numbers = |bytes: &[u8]| {
        let fields = wire::fields(bytes).into_iter();
        fields.map(|(number, _)| number).collect::<Vec<_>>()
    };
    let addresses = value(addrs_key(&peer));
    assert_eq!(numbers(&addresses), [1, 16]);
    let address = wire::one(&addresses, 1).unwrap();
    assert_eq!(numbers(address.bytes()), [1, 2, 16]);
    let protocols = value(protos_key(&peer));
    assert_eq!(numbers(&protocols), [1, 16]);
    // The number of the format, and the time of the book's last change.
    for value in [addresses, protocols] {
        let format = wire::one(&value, 16).unwrap();
        let start = 1_735_689_600;
        assert_eq!(wire::one(format.bytes(), 1).unwrap().number(), 1);
        assert_eq!(wire::one(format.bytes(), 2).unwrap().number(), start);
    }
}

#[test]
fn addresses_that_js_libp2p_does_not_know_stand_where_it_does_not_look() {
    let relay = PeerId::random();
    let onion = "vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd";
    let hash = "uEiDDq4_xNyDorZBH3TlGazyJdOWSwvo4PUo5YHFMrvDE8g";
    let addresses = [
        // Known there.
        "/ip4/192.0.2.1/tcp/1".to_owned(),
        "/ip6/2001:db8::1/udp/1/quic".to_owned(),
        "/ip6zone/eth0/ip6/fe80::1/tcp/1".to_owned(),
        "/ip4/192.0.2.1/dccp/1".to_owned(),
        "/ip4/192.0.2.1/sctp/1".to_owned(),
        "/ip4/192.0.2.1/udp/1/utp".to_owned(),
        "/ip4/192.0.2.1/udp/1/udt".to_owned(),
        "/dns/example.com/tcp/1/ws".to_owned(),
        "/dns4/example.com/tcp/1/wss".to_owned(),
        "/dns6/example.com/tcp/1/http".to_owned(),
        "/dnsaddr/example.com".to_owned(),
        "/dns4/example.com/tcp/443/https".to_owned(),
        "/dns4/example.com/tcp/1/ws/p2p-webrtc-star".to_owned(),
        "/ip4/192.0.2.1/tcp/1/http/p2p-webrtc-direct".to_owned(),
        "/dns4/example.com/tcp/1/ws/p2p-websocket-star".to_owned(),
        "/dns4/example.com/tcp/1/ws/p2p-stardust".to_owned(),
        format!("/ip4/192.0.2.1/tcp/1/p2p/{relay}/p2p-circuit"),
        format!("/onion3/{onion}:1234"),
        "/onion/aaimaq4ygg2iegci:80".to_owned(),
        "/unix/tmp%2Fsocket".to_owned(),
        // Not known there.
        "/ip4/192.0.2.1/udp/1/quic-v1".to_owned(),
        format!("/ip4/192.0.2.1/udp/1/quic-v1/webtransport/certhash/{hash}"),
        format!("/ip4/192.0.2.1/udp/1/webrtc-direct/certhash/{hash}"),
        format!("/ip4/192.0.2.1/udp/1/quic-v1/p2p/{relay}/p2p-circuit/webrtc"),
        "/dns4/example.com/tcp/443/tls/ws".to_owned(),
        "/dns4/example.com/tcp/443/tls/sni/example.com/ws".to_owned(),
        "/dns4/example.com/tcp/443/tls/http/http-path/path".to_owned(),
        "/ip4/192.0.2.1/tcp/1/noise".to_owned(),
        "/ip4/192.0.2.0/ipcidr/24".to_owned(),
        "/ip4/192.0.2.1/tcp/1/x-parity-ws/path".to_owned(),
        "/ip4/192.0.2.1/tcp/1/x-parity-wss/path".to_owned(),
        // Known there by its number, but with text for a value.
        "/memory/1234".to_owned(),
    ];
    let addresses: Vec<Multiaddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let many = addresses.len().try_into().unwrap();
    let store = hand.open_with(memory.clone(), |config| {
        config.with_max_addresses_per_peer(many)
    });
    let peer = PeerId::random();
    assert_eq!(store.addresses().add(peer, addresses.clone()).refused, 0);
    hand.flush(&store);

    let value = block_on(memory.get(&addrs_key(&peer))).unwrap().unwrap();
    let in_field = |number| {
        let messages = wire::all(&value, number).into_iter();
        let multiaddrs = messages.map(|message| {
            let multiaddr = wire::one(message.bytes(), 1).unwrap().bytes().to_vec();
            Multiaddr::try_from(multiaddr).unwrap()
        });
        multiaddrs.collect::<Vec<_>>()
    };
    assert_eq!(in_field(1), addresses[..20]);
    assert_eq!(in_field(17), addresses[20..]);
    assert!(
        in_field(1)
            .iter()
            .all(|address| wire::js_parses(address.as_ref()))
    );
    let missed = in_field(17)
        .into_iter()
        .filter(|a| wire::js_parses(a.as_ref()));
    assert_eq!(missed.collect::<Vec<_>>(), Vec::<Multiaddr>::new());

    let again = hand.open(memory.clone());
    assert_eq!(again.addresses().get(&peer).unwrap(), addresses);
    let infos = again.addresses().infos(&peer).unwrap();
    assert_eq!(infos, store.addresses().infos(&peer).unwrap());
}
