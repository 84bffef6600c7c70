//! A datastore that holds what it should not, or answers as it should not: what is sound is loaded, what is not
//! is counted and left where it is, and nothing panics.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used)]

#[path = "support/datastore.rs"]
mod support;
#[path = "support/wire.rs"]
mod wire;

#[path = "bad_datastore/streams.rs"]
mod streams;
#[path = "bad_datastore/values.rs"]
mod values;

use std::time::Duration;

use futures::executor::block_on;
use libp2p::{PeerId, identity::PublicKey};
use libp2p_peerstore::{
    Config, Datastore, KeyValue, LoadReport, MemoryDatastore, Peer, PeerStore, Source, Sources,
};

use support::{Hand, addr, addrs_key, b32, keys_key, keys_of, metadata_key, protos_key, sorted};

fn put(memory: &MemoryDatastore, key: impl AsRef<str>, value: &[u8]) {
    block_on(memory.put(key.as_ref(), value.to_vec())).unwrap();
}

fn get(memory: &MemoryDatastore, key: impl AsRef<str>) -> Option<Vec<u8>> {
    block_on(memory.get(key.as_ref())).unwrap()
}

/// The RSA keys of the js-libp2p fixture: a peer id does not contain them.
fn rsa_keys() -> Vec<PublicKey> {
    let peers = include_str!("data/js-libp2p-0.30/peers.jsonl").lines();
    let keys = peers.filter_map(|line| {
        let peer: serde_json::Value = serde_json::from_str(line).unwrap();
        let key = peer["pubKey"].as_str()?;
        let bytes = data_encoding::HEXLOWER.decode(key.as_bytes()).unwrap();
        (peer["keyType"] == "rsa").then(|| PublicKey::try_decode_protobuf(&bytes).unwrap())
    });
    keys.collect()
}

/// Everything about a peer that can be compared.
fn all_of(peer: &Peer) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        peer.id,
        peer.addresses.clone(),
        peer.protocols.clone(),
        peer.public_key.clone(),
        peer.metadata.clone(),
    )
}

/// What `open` reports of sound peers.
fn sound(peers: usize, entries: usize) -> LoadReport {
    let mut report = LoadReport::default();
    (report.peers, report.entries) = (peers, entries);
    report
}

/// A peer with something in each book, in a datastore with nothing else.
fn sound_peer() -> (PeerId, MemoryDatastore) {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let store = hand.open(memory.clone());
    let key = rsa_keys().remove(0);
    let peer = PeerId::from(key.clone());
    store.addresses().add(peer, [addr(1), addr(2)]);
    store
        .addresses()
        .pin(peer, ["/ip4/192.0.2.1/udp/1/quic-v1".parse().unwrap()]);
    store.protocols().add(peer, ["/a", "/b"]);
    store.keys().set(peer, key).unwrap();
    store.metadata().set(peer, "note", "x").unwrap();
    hand.shutdown(store);
    assert_eq!(memory.len(), 4);
    (peer, memory)
}

// --- keys --------------------------------------------------------------------------------------------------

#[test]
fn keys_that_are_not_ours_are_counted_and_left_alone() {
    let (peer, memory) = sound_peer();
    let b32 = b32(&peer);
    let other = PeerId::random();
    let foreign = [
        "/peers/".to_owned(),
        "/peers/addrs/".to_owned(),
        "/peers/addrs".to_owned(),
        "/peers/unknown/x".to_owned(),
        format!("/peers/{b32}"),
        format!("/peers/addrs/{b32}/x"),
        format!("/peers/addrs/{b32}a"),
        format!("/peers/addrs/ {b32}"),
        format!("/peers/metadata/{b32}"),
        format!("/peers/metadata/{b32}/"),
        format!("/peers/metadata//{b32}"),
        format!("/peers/ADDRS/{b32}"),
        format!("/peers/gc/addrs/1/{b32}"),
        // A peer id that does not parse.
        "/peers/addrs/b".to_owned(),
        "/peers/addrs/bafzaa".to_owned(),
        "/peers/addrs/not a peer id".to_owned(),
        format!("/peers/addrs/{}", &b32[..b32.len() - 4]),
        format!("/peers/addrs/{}", "b".repeat(100_000)),
        "/peers/addrs/💥".to_owned(),
        // Other spellings of this one.
        format!("/peers/addrs/{}", b32.to_uppercase()),
        format!("/peers/addrs/{peer}"),
        format!("/peers/protos/{}", other.to_base58()),
        format!("/peers/metadata/{}/note", b32.to_uppercase()),
    ];
    for key in &foreign {
        put(&memory, key, b"\x0a\x00");
    }
    let spelt = |base, version: &[u8]| {
        let cid = [version, &peer.to_bytes()].concat();
        format!("/peers/addrs/{}", multibase::encode(base, cid))
    };
    let spelt = [
        spelt(multibase::Base::Base32Upper, &[1, 0x72]),
        spelt(multibase::Base::Base32PadLower, &[1, 0x72]),
        spelt(multibase::Base::Base36Lower, &[1, 0x72]),
        spelt(multibase::Base::Base58Btc, &[1, 0x72]),
        spelt(multibase::Base::Base64Url, &[1, 0x72]),
        // Another codec, another version, a longer spelling of the version.
        spelt(multibase::Base::Base32Lower, &[1, 0x70]),
        spelt(multibase::Base::Base32Lower, &[2, 0x72]),
        spelt(multibase::Base::Base32Lower, &[0x81, 0, 0x72]),
        spelt(multibase::Base::Base32Lower, &[]),
    ];
    for key in &spelt {
        put(&memory, key, b"\x0a\x00");
    }
    // Not under the root at all: not seen, not counted.
    put(&memory, "/peers", b"x");
    put(&memory, "/peerstore/x", b"x");

    let before = memory.entries();
    let mut hand = Hand::default();
    let store = hand.open(memory.clone());
    let mut report = sound(1, 4 + foreign.len() + 9);
    // The upper-case spelling stands in both lists, as one key.
    report.entries -= 1;
    report.foreign = foreign.len() + 9 - 1;
    assert_eq!(store.load_report(), report);
    assert_eq!(store.peer_ids(), [peer]);
    assert_eq!(memory.entries(), before);

    // Neither a change nor the end of the peer touches them.
    store.addresses().add(peer, [addr(3)]);
    hand.flush(&store);
    store.delete(&peer);
    hand.flush(&store);
    let ours = [
        addrs_key(&peer),
        protos_key(&peer),
        keys_key(&peer),
        metadata_key(&peer, "note"),
        // Not a key that this crate writes, but nobody else's either.
        metadata_key(&peer, ""),
    ];
    let left = before.into_iter().filter(|(key, _)| !ours.contains(key));
    assert_eq!(memory.entries(), left.collect::<Vec<KeyValue>>());
}

#[test]
fn the_local_peer_is_skipped_counted_and_left_alone() {
    let (peer, memory) = sound_peer();
    let before = memory.entries();
    let open = |hand: &mut Hand| {
        let config = hand.config();
        hand.block(PeerStore::open(peer, memory.clone(), config))
            .unwrap()
    };
    let mut hand = Hand::default();
    let store = open(&mut hand);
    let mut report = sound(0, 4);
    report.local = 4;
    assert_eq!(store.load_report(), report);
    assert!(store.is_empty() && store.get(&peer).is_none());
    assert_eq!(store.addresses().add(peer, [addr(9)]).refused, 1);
    let other = PeerId::random();
    store.addresses().add(other, [addr(1)]);
    hand.shutdown(store);
    let left = memory
        .entries()
        .into_iter()
        .filter(|(key, _)| *key != addrs_key(&other));
    assert_eq!(left.collect::<Vec<KeyValue>>(), before);

    // The user can clear them away.
    let store = open(&mut hand);
    store.delete(&peer);
    hand.shutdown(store);
    assert_eq!(keys_of(&memory), [addrs_key(&other)]);
}

// --- limits ------------------------------------------------------------------------------------------------

#[test]
fn of_too_many_addresses_the_best_are_kept() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let store = hand.open(memory.clone());
    let peer = PeerId::random();
    for port in 1..=20 {
        let mut learned = store.learned(Source::Kademlia);
        learned.add(peer, &[addr(port)]);
    }
    store.addresses().pin(peer, [addr(7)]);
    let told: Vec<_> = [3, 13].map(addr).to_vec();
    store.learned(Source::Identify).add(peer, &told);
    store
        .protocols()
        .add(peer, (0..10).map(|n| format!("/p/{n}")));
    for n in 0..10 {
        store
            .metadata()
            .set(peer, &format!("k{n}"), [0; 100])
            .unwrap();
    }
    hand.shutdown(store);
    let before = memory.entries();

    let limits = |config: Config| {
        config
            .with_max_addresses_per_peer(4.try_into().unwrap())
            .with_max_protocols_per_peer(4.try_into().unwrap())
            .with_max_metadata_per_peer(4.try_into().unwrap())
    };
    let store = hand.open_with(memory.clone(), limits);
    let mut report = sound(1, 12);
    report.refused = 16 + 6 + 6;
    assert_eq!(store.load_report(), report);
    let known = store.addresses().get(&peer).unwrap();
    assert_eq!((known.len(), &known[..2]), (4, &told[..]));
    assert!(
        known.contains(&addr(7)),
        "a pinned one is never left out: {known:?}"
    );
    assert_eq!(store.protocols().get(&peer).unwrap().len(), 4);
    assert_eq!(store.metadata().get(&peer).unwrap().len(), 4);
    hand.flush(&store);
    assert_eq!(memory.entries(), before);

    // A write of the book drops what is not in memory; delete takes everything.
    store.addresses().remove(peer, [addr(3)]);
    hand.flush(&store);
    let stored = get(&memory, addrs_key(&peer)).unwrap();
    assert_eq!(wire::all(&stored, 1).len(), 3);
    assert_eq!(memory.len(), 12);
    store.delete(&peer);
    hand.flush(&store);
    assert!(memory.is_empty());
}

#[test]
fn what_is_longer_than_the_limits_is_refused_and_left_alone() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let store = hand.open(memory.clone());
    let peer = PeerId::random();
    let long = format!("/dns4/{}.example.com/tcp/1", "a".repeat(60));
    store
        .addresses()
        .add(peer, [addr(1), long.parse().unwrap()]);
    store
        .protocols()
        .add(peer, ["/short".to_owned(), format!("/{}", "l".repeat(60))]);
    store.metadata().set(peer, "value", [0; 60]).unwrap();
    store.metadata().set(peer, &"k".repeat(60), "x").unwrap();
    store.metadata().set(peer, "short", "x").unwrap();
    hand.shutdown(store);
    // js-libp2p takes any string for a protocol.
    let mut protocols = get(&memory, protos_key(&peer)).unwrap();
    protocols.extend(wire::bytes_field(1, b"no slash"));
    protocols.extend(wire::bytes_field(1, b""));
    put(&memory, protos_key(&peer), &protocols);

    let fifty = 50.try_into().unwrap();
    let store = hand.open_with(memory.clone(), |config| {
        config
            .with_max_address_len(fifty)
            .with_max_protocol_len(fifty)
            .with_max_metadata_key_len(fifty)
            .with_max_metadata_value_len(fifty)
    });
    let mut report = sound(1, 5);
    report.refused = 1 + 3 + 2;
    assert_eq!(store.load_report(), report);
    let known = store.get(&peer).unwrap();
    assert_eq!(known.multiaddrs().collect::<Vec<_>>(), [&addr(1)]);
    assert_eq!(known.protocols.len(), 1);
    assert_eq!(known.metadata.into_keys().collect::<Vec<_>>(), ["short"]);
    store.metadata().set(peer, "short", "y").unwrap();
    hand.flush(&store);
    assert_eq!(memory.len(), 5);
    store.delete(&peer);
    hand.flush(&store);
    assert!(memory.is_empty());
}

#[test]
fn of_too_many_peers_the_best_are_kept_and_the_rest_stays_on_disk() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let store = hand.open(memory.clone());
    let mut peers = Vec::new();
    for (sources, count) in [(Source::Mdns, 30), (Source::Identify, 5)] {
        for _ in 0..count {
            let peer = PeerId::random();
            store.learned(sources).add(peer, &[addr(1)]);
            store.protocols().add(peer, ["/p"]);
            store.metadata().set(peer, "AgentVersion", "x").unwrap();
            peers.push(peer);
        }
    }
    let pinned = PeerId::random();
    store.addresses().pin(pinned, [addr(1)]);
    hand.shutdown(store);
    let before = memory.entries();

    let max = |peers: usize| move |config: Config| config.with_max_peers(peers.try_into().unwrap());
    let store = hand.open_with(memory.clone(), max(6));
    let mut report = sound(6, 35 * 3 + 1);
    report.left_on_disk = 30;
    assert_eq!(store.load_report(), report);
    let best = [&peers[30..], &[pinned]].concat();
    assert_eq!(sorted_ids(store.peer_ids()), sorted_ids(best.clone()));
    for peer in &peers[30..] {
        let known = store.get(peer).unwrap();
        assert_eq!(
            (known.protocols.len(), known.metadata.len()),
            (1, 1),
            "it is whole"
        );
    }
    hand.flush(&store);
    assert_eq!(memory.entries(), before);
    // One that is on disk only can be deleted there.
    assert!(!store.delete(&peers[0]));
    hand.shutdown(store);
    assert_eq!(memory.len(), 34 * 3 + 1);

    let store = hand.open_with(memory.clone(), max(35));
    let mut report = sound(35, 34 * 3 + 1);
    assert_eq!(store.load_report(), report);
    let store = hand.open_with(memory.clone(), max(1));
    (report.peers, report.left_on_disk) = (1, 34);
    assert_eq!(store.load_report(), report);
    assert_eq!(store.peer_ids(), [pinned]);
    assert_eq!(
        store.addresses().infos(&pinned).unwrap()[0].sources,
        Sources::PINNED
    );
}

fn sorted_ids(mut ids: Vec<PeerId>) -> Vec<PeerId> {
    ids.sort();
    ids
}

// --- time --------------------------------------------------------------------------------------------------

#[test]
fn a_time_in_the_future_counts_as_now() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    hand.clock.advance(10 * year);
    let store = hand.open(memory.clone());
    let peer = PeerId::random();
    store.addresses().add(peer, [addr(1)]);
    hand.shutdown(store);

    let mut hand = Hand::default();
    let now = std::time::UNIX_EPOCH + Duration::from_secs(1_735_689_600);
    let store = hand.open(memory.clone());
    let info = store.addresses().infos(&peer).unwrap().remove(0);
    assert_eq!((info.first_heard, info.last_heard), (now, now));
    // It is written so with the next commit, lest it be new again at each start for ten years.
    assert_eq!(store.unsaved(), 1);
    // It ages from now on, and is not held to be fresh for ten years.
    hand.advance(Duration::from_secs(16 * 60));
    store.learned(Source::Kademlia).add(peer, &[addr(1)]);
    let info = store.addresses().infos(&peer).unwrap().remove(0);
    assert_eq!(info.last_heard, now + Duration::from_secs(16 * 60));
}

/// Seconds that no calendar has must not overflow anything.
#[test]
fn the_latest_time_that_can_be_written_counts_as_now() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let peer = PeerId::random();
    let mut history = wire::varint_field(1, u64::from(u32::MAX));
    for field in 2..=5 {
        history.extend(wire::varint_field(field, u64::MAX));
    }
    history.extend(wire::varint_field(6, u64::from(u32::MAX)));
    history.extend(wire::varint_field(7, u64::from(u32::MAX)));
    let mut address = wire::js_address(addr(1).as_ref(), false);
    address.extend(wire::bytes_field(16, &history));
    let mut value = wire::bytes_field(1, &address);
    let format = [wire::varint_field(1, 99), wire::varint_field(2, u64::MAX)].concat();
    value.extend(wire::bytes_field(16, &format));
    put(&memory, addrs_key(&peer), &value);

    let store = hand.open(memory.clone());
    assert_eq!(store.load_report(), sound(1, 1));
    let now = std::time::UNIX_EPOCH + Duration::from_secs(1_735_689_600);
    let info = store.addresses().infos(&peer).unwrap().remove(0);
    let times = [
        Some(info.first_heard),
        Some(info.last_heard),
        info.last_success,
        info.last_failure,
    ];
    assert_eq!(times, [Some(now); 4]);
    assert_eq!((info.successes, info.failures), (255, 255));
    assert!(!info.is_certified(), "the field of js-libp2p decides");
    store.addresses().add(peer, [addr(2)]);
    hand.flush(&store);
    assert_eq!(sorted(keys_of(&memory)), [addrs_key(&peer)]);
}
