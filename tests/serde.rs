//! What is serialized reads well, and comes back as it was.

#![allow(clippy::unwrap_used)]

use std::{fmt::Debug, time::Duration};

use libp2p::{Multiaddr, PeerId, core::PeerRecord, identity::Keypair};
use libp2p_peerstore::{
    AGENT_VERSION, AddressInfo, Cause, Config, LoadReport, ManualClock, Peer, PeerStore,
    RecordFormat, Refusals, Refused, Source, Sources, Standing, Tag,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

fn at(address: &str) -> Multiaddr {
    address.parse().unwrap()
}

/// A store with one peer of which everything is known, and whose id does not contain its key.
fn everything() -> (PeerStore, PeerId) {
    let config = Config::default().with_clock(ManualClock::default());
    let store = PeerStore::in_memory(PeerId::random(), config);
    let key = Keypair::generate_ecdsa();
    let peer = key.public().to_peer_id();
    let addresses = vec![
        at("/ip4/8.8.8.8/tcp/4001"),
        at("/dns4/example.com/udp/1/quic-v1"),
    ];
    store.learned(Source::Identify).add(peer, &addresses);
    store.addresses().pin(peer, [at("/ip4/10.0.0.1/tcp/1")]);
    store
        .protocols()
        .add(peer, ["/chat/1.0.0", "/ipfs/id/1.0.0"]);
    store.keys().set(peer, key.public()).unwrap();
    store
        .metadata()
        .set(peer, AGENT_VERSION, b"kubo/0.30")
        .unwrap();
    store.metadata().set(peer, "bytes", [0, 255, 128]).unwrap();
    store.tags().set(peer, "friend", 7, None).unwrap();
    store
        .tags()
        .set(peer, "guest", 0, Some(Duration::from_secs(60)))
        .unwrap();
    store
        .learned(Source::Discovery)
        .latency(peer, Duration::from_micros(12_345));
    let record = PeerRecord::new(&key, addresses).unwrap();
    let envelope = record.to_signed_envelope();
    store.consume_peer_record(envelope).unwrap();
    (store, peer)
}

/// Through JSON, as a value and as text, and through CBOR, in which bytes are bytes.
fn round_trips<T: Serialize + DeserializeOwned + Debug>(value: &T) -> [T; 2] {
    let json = serde_json::to_value(value).unwrap();
    let from_text: T = serde_json::from_str(&json.to_string()).unwrap();
    drop(from_text);
    let mut cbor = Vec::new();
    ciborium::into_writer(value, &mut cbor).unwrap();
    [
        serde_json::from_value(json).unwrap(),
        ciborium::from_reader(&*cbor).unwrap(),
    ]
}

fn same<T: Serialize + DeserializeOwned + Debug + PartialEq>(value: T) {
    for back in round_trips(&value) {
        assert_eq!(back, value);
    }
}

#[test]
fn a_peer_comes_back_as_it_was() {
    let (store, id) = everything();
    let peer = store.get(&id).unwrap();
    for back in round_trips(&peer) {
        let Peer {
            addresses,
            protocols,
            public_key,
            metadata,
            tags,
            latency,
            signed_record,
            connected,
            last_seen,
            ..
        } = &back;
        assert_eq!(back.id, id);
        assert_eq!(*addresses, peer.addresses);
        assert_eq!(*protocols, peer.protocols);
        assert_eq!((public_key.is_some(), public_key), (true, &peer.public_key));
        assert_eq!((metadata.len(), metadata), (2, &peer.metadata));
        assert_eq!((tags.len(), tags), (2, &peer.tags));
        assert_eq!((latency.is_some(), latency), (true, &peer.latency));
        assert_eq!(
            (signed_record.is_some(), signed_record),
            (true, &peer.signed_record)
        );
        assert_eq!((connected, last_seen), (&peer.connected, &peer.last_seen));
    }
}

#[test]
fn json_has_the_text_forms_of_rust_libp2p() {
    let (store, id) = everything();
    let json = serde_json::to_value(store.get(&id).unwrap()).unwrap();
    assert_eq!(json["id"], id.to_base58());
    let addresses = json["addresses"].as_array().unwrap();
    let pinned = addresses
        .iter()
        .find(|info| info["address"] == "/ip4/10.0.0.1/tcp/1")
        .unwrap();
    assert_eq!(pinned["sources"], "PINNED");
    assert_eq!(json["protocols"], json!(["/chat/1.0.0", "/ipfs/id/1.0.0"]));
    assert_eq!(json["metadata"]["bytes"], "mAP+A");
    assert!(json["public_key"].as_str().unwrap().starts_with('m'));
    assert_eq!(json["signed_record"]["format"], "legacy");
    assert_eq!(json["tags"]["friend"], json!({"value": 7, "expires": null}));
}

#[test]
fn small_types_come_back_as_they_were() {
    let (store, id) = everything();
    let infos: Vec<AddressInfo> = store.addresses().infos(&id).unwrap();
    same(infos);
    let tags: Vec<Tag> = store.tags().get(&id).unwrap().into_values().collect();
    same(tags);
    same(vec![
        Sources::empty(),
        Sources::DIALLED | Sources::IDENTIFY,
        Sources::from_bits_retain(1 << 15),
    ]);
    same(vec![
        Standing::Inbound,
        Standing::Hearsay,
        Standing::SelfTold,
        Standing::Proven,
    ]);
    same(vec![Source::Identify, Source::Mdns]);
    same(vec![RecordFormat::Interop, RecordFormat::Legacy]);
    same(vec![Cause::Identify, Cause::Expired]);
    same(Refused::ALL.to_vec());
    same(LoadReport::default());
    same(
        store
            .addresses()
            .add(id, [at("/ip4/9.9.9.9/tcp/1"), Multiaddr::empty()]),
    );
}

#[test]
fn refusals_are_a_map_by_reason() {
    let (store, id) = everything();
    store.addresses().add(id, [Multiaddr::empty()]);
    let refusals: Refusals = store.refusals();
    assert_eq!(
        serde_json::to_value(refusals).unwrap(),
        json!({"empty_address": 1})
    );
    same(refusals);
}

#[test]
fn an_event_says_what_happened_to_whom() {
    let (store, id) = everything();
    let mut events = store.subscribe();
    store.protocols().set(id, ["/new/1"]);
    store.tags().delete(&id);
    store.metadata().delete_value(&id, "bytes");
    let told: Vec<Value> = std::iter::from_fn(|| events.try_next())
        .map(|event| serde_json::to_value(&event).unwrap())
        .collect();
    let peer = id.to_base58();
    assert_eq!(
        told,
        [
            json!({"protocols_changed": {"peer": peer, "protocols": ["/new/1"], "cause": "user"}}),
            json!({"tags_changed": {"peer": peer, "tags": {}, "cause": "user"}}),
            json!({"metadata_changed": {"peer": peer, "key": "bytes"}}),
        ]
    );
}

#[test]
fn what_is_no_peer_is_an_error() {
    let (store, id) = everything();
    let good = serde_json::to_value(store.get(&id).unwrap()).unwrap();
    for (field, bad) in [
        ("id", json!("not an id")),
        ("protocols", json!(["no slash"])),
        ("public_key", json!("mAAAA")),
        ("metadata", json!({"key": "not multibase"})),
        ("addresses", json!([{"address": "/nowhere"}])),
    ] {
        let mut json = good.clone();
        json[field] = bad;
        assert!(serde_json::from_value::<Peer>(json).is_err(), "{field}");
    }
}
