//! `docs/format.md` says what is really written.

#![cfg(all(feature = "testing", feature = "redb"))]
#![allow(clippy::unwrap_used)]

#[path = "support/api.rs"]
mod api;
#[path = "support/format.rs"]
mod format;
#[path = "support/datastore.rs"]
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::executor::block_on;
use libp2p::{Multiaddr, PeerId, core::PeerRecord, identity::Keypair};
use libp2p_peerstore::{
    AGENT_VERSION, Datastore, LoadReport, MemoryDatastore, PeerStore, RedbDatastore, Source,
    Sources,
};
use libp2p_swarm::StreamProtocol;
use redb::{Database, ReadableDatabase, TableDefinition, TableHandle};

use support::{Hand, addrs_key, b32, keys_key, metadata_key, protos_key};
use wire::Field;

fn address(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

/// What the document's example tells, and the peer of whom it tells that.
fn example() -> (PeerId, MemoryDatastore) {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let store = hand.open(memory.clone());
    let mut swarm = api::Swarm::of(&store);
    let peer = api::peer(7);
    swarm.accepted(peer, address("/ip4/203.0.113.9/tcp/50000"));
    let tcp = address("/ip4/203.0.113.9/tcp/4001");
    let quic = address("/ip4/203.0.113.9/udp/4001/quic-v1");
    api::identify(&store, peer, &[tcp.clone(), quic.clone()]);
    let protocols = ["/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"].map(StreamProtocol::new);
    let mut learned = store.learned(Source::Identify);
    learned.protocols(peer, &protocols);
    learned.metadata(peer, AGENT_VERSION, b"example/1.0");
    hand.advance(Duration::from_secs(3_600));
    // This node has a transport for it: that it failed says something.
    swarm.timed_out(api::peer(8), [quic.clone()]);
    swarm.dialled_after(peer, tcp, &[quic]);
    store
        .learned(Source::Discovery)
        .latency(peer, Duration::from_millis(20));
    let day = Some(Duration::from_secs(24 * 60 * 60));
    store.tags().set(peer, "friend", 50, day).unwrap();
    drop(swarm);
    hand.shutdown(store);
    (peer, memory)
}

#[test]
fn the_example_is_what_a_store_writes() {
    let (peer, memory) = example();
    let keys = [
        addrs_key(&peer),
        metadata_key(&peer, AGENT_VERSION),
        protos_key(&peer),
    ];
    let entries: BTreeMap<String, Vec<u8>> = memory.entries().into_iter().collect();
    let written: Vec<&String> = entries.keys().collect();
    assert_eq!(written, format::block("text keys"));
    for (key, block) in keys.iter().zip(["hex addrs", "hex metadata", "hex protos"]) {
        assert_eq!(entries[key], format::bytes(block), "{block}");
    }
}

#[cfg(feature = "fs")]
#[test]
fn the_files_of_the_example_are_where_the_document_puts_them() {
    let folder = tempfile::tempdir().unwrap();
    let datastore = libp2p_peerstore::FsDatastore::open(folder.path()).unwrap();
    let (_, memory) = example();
    for (key, value) in memory.entries() {
        block_on(datastore.put(&key, value)).unwrap();
    }
    let files = format::block("text files");
    assert_eq!(files.len(), memory.len());
    for (file, (_, value)) in files.iter().zip(memory.entries()) {
        assert_eq!(
            std::fs::read(folder.path().join(file)).unwrap(),
            value,
            "{file}"
        );
    }
}

#[test]
fn the_tables_of_redb_are_those_of_the_document() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.redb");
    let datastore = RedbDatastore::open(&path).unwrap();
    block_on(datastore.put("/peers/protos/x", b"value".to_vec())).unwrap();
    block_on(datastore.close()).unwrap();
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_read().unwrap();
    let names = transaction.list_tables().unwrap();
    let names: Vec<String> = names.map(|table| table.name().to_owned()).collect();
    assert_eq!(names.len(), 2);
    for name in &names {
        assert!(format::DOCUMENT.contains(&format!("`{name}`")), "{name}");
    }
    let peers: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("libp2p-peerstore");
    let peers = transaction.open_table(peers).unwrap();
    assert_eq!(
        peers.get("/peers/protos/x").unwrap().unwrap().value(),
        b"value"
    );
    let stamp: TableDefinition<'_, (), u64> = TableDefinition::new("libp2p-peerstore-stamp");
    let stamp = transaction.open_table(stamp).unwrap();
    assert!(stamp.get(()).unwrap().is_some());
}

// --- the schema --------------------------------------------------------------------------------------------

/// A message of the schema: its fields by number, each with its type.
type Schema = BTreeMap<String, BTreeMap<u64, String>>;

fn schema() -> Schema {
    let (mut schema, mut message) = (Schema::new(), String::new());
    for line in format::block("proto") {
        let line = line
            .split("//")
            .next()
            .unwrap()
            .trim()
            .trim_end_matches(';');
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["message", name, "{"] => message = name.to_owned(),
            [.., kind, _, "=", number] => {
                let fields = schema.entry(message.clone()).or_default();
                let number = number.parse().unwrap();
                assert_eq!(fields.insert(number, kind.to_owned()), None, "{line}");
            }
            [] | ["}"] => {}
            _ => panic!("not a line of the schema: {line}"),
        }
    }
    schema
}

/// Checks that a value is what the schema says, and notes which fields it has.
fn check(schema: &Schema, message: &str, value: &[u8], seen: &mut BTreeSet<(String, u64)>) {
    for (number, field) in wire::fields(value) {
        let kind = schema[message].get(&number);
        let kind = kind.unwrap_or_else(|| panic!("{message} has no field {number}"));
        match (kind.as_str(), &field) {
            ("uint32" | "uint64" | "bool", Field::Varint(_)) | ("bytes", Field::Bytes(_)) => {}
            ("string", Field::Bytes(text)) => {
                std::str::from_utf8(text).unwrap();
            }
            // Packed.
            ("float", Field::Bytes(floats)) => assert_eq!(floats.len() % 4, 0),
            (inner, Field::Bytes(bytes)) if schema.contains_key(inner) => {
                check(schema, inner, bytes, seen);
            }
            (kind, field) => panic!("{message}.{number} is said to be {kind}, and is {field:?}"),
        }
        seen.insert((message.to_owned(), number));
    }
}

#[test]
fn the_schema_has_every_field_that_is_written_and_no_other() {
    let (_, memory) = example();
    let mut hand = Hand::default();
    let store = hand.open(memory.clone());
    let mut swarm = api::Swarm::of(&store);
    // What the example has not: signed records of both kinds, an RSA key, another peer at an address.
    let (one, two) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let addresses = vec![address("/ip4/192.0.2.1/tcp/1")];
    let interop = PeerRecord::new_interop(&one, addresses.clone()).unwrap();
    store
        .consume_peer_record(interop.to_signed_envelope())
        .unwrap();
    let legacy = PeerRecord::new(&two, addresses).unwrap();
    store
        .consume_peer_record(legacy.to_signed_envelope())
        .unwrap();
    let rsa = api::rsa_key();
    store.keys().set(rsa.to_peer_id(), rsa.clone()).unwrap();
    let elsewhere = address("/ip4/198.51.100.1/tcp/1");
    store.addresses().pin(api::peer(8), [elsewhere.clone()]);
    swarm.wrong_peer(api::peer(8), api::peer(9), elsewhere);
    drop(swarm);
    hand.shutdown(store);

    let (schema, mut seen) = (schema(), BTreeSet::new());
    for (key, value) in memory.entries() {
        let message = match key.split('/').nth(2).unwrap() {
            "addrs" => "Addresses",
            "protos" => "Protocols",
            "keys" => "PublicKey",
            "metadata" => continue,
            other => panic!("{other}"),
        };
        check(&schema, message, &value, &mut seen);
    }
    assert!(
        memory
            .entries()
            .iter()
            .any(|(key, _)| *key == keys_key(&rsa.to_peer_id()))
    );
    let fields = |(message, fields): (&String, &BTreeMap<u64, String>)| {
        let numbers = fields.keys().map(|number| (message.clone(), *number));
        numbers.collect::<Vec<_>>()
    };
    let declared: BTreeSet<(String, u64)> = schema.iter().flat_map(fields).collect();
    // RSA is type 0, which protobuf leaves out.
    let never = ("PublicKey".to_owned(), 1);
    let unseen: Vec<_> = declared
        .difference(&seen)
        .filter(|field| **field != never)
        .collect();
    assert!(unseen.is_empty(), "{unseen:?}");
}

#[test]
fn the_bits_of_sources_are_those_of_the_document() {
    for (name, source) in Sources::all().iter_names() {
        let row = format!("| {} | `{name}`", source.bits());
        assert!(format::DOCUMENT.contains(&row), "{row}");
    }
}

#[test]
fn the_addresses_of_the_document_stand_in_the_field_that_it_says() {
    let cases = [
        (1, format::addresses("text js-libp2p 0.30 reads")),
        (17, format::addresses("text js-libp2p 0.30 does not read")),
    ];
    for (field, addresses) in cases {
        let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
        let store = hand.open(memory.clone());
        let peer = PeerId::random();
        assert_eq!(store.addresses().add(peer, addresses.clone()).refused, 0);
        hand.shutdown(store);
        let value = block_on(memory.get(&addrs_key(&peer))).unwrap().unwrap();
        let written = wire::all(&value, field).into_iter();
        let written =
            written.map(|message| wire::one(message.bytes(), 1).unwrap().bytes().to_vec());
        let expected = addresses.iter().map(Multiaddr::to_vec);
        assert_eq!(written.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        assert!(wire::all(&value, 18 - field).is_empty());
    }
}

/// The spelling of the CID is the store's, the message another's: js-libp2p from 0.36 on, and go-libp2p.
#[test]
fn keys_of_other_implementations_are_foreign_and_stay() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let peer = api::peer(7);
    let raw = data_encoding::BASE32_NOPAD.encode(&peer.to_bytes());
    assert!(raw.starts_with("AASAQAISE") && format::DOCUMENT.contains("/peers/addrs/AASAQAISE…"));
    let keys = [
        format!("/peers/{}", b32(&peer)),
        format!("/peers/addrs/{raw}"),
        format!("/peers/keys/{raw}/pub"),
        format!("/peers/keys/{raw}/priv"),
        format!("/peers/metadata/{raw}/protocols"),
    ];
    for key in &keys {
        block_on(memory.put(key, b"value".to_vec())).unwrap();
    }
    let before = memory.entries();
    let store: PeerStore = hand.open(memory.clone());
    let mut report = LoadReport::default();
    (report.entries, report.foreign) = (keys.len(), keys.len());
    assert_eq!(store.load_report(), report);
    store.protocols().add(peer, ["/p"]);
    hand.flush(&store);
    assert!(store.delete(&peer));
    hand.shutdown(store);
    assert_eq!(memory.entries(), before);
}
