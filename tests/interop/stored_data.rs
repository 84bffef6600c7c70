//! Folders that go from js-libp2p 0.30.13 to this crate and back.

use std::{collections::BTreeMap, fs, path::Path};

use futures::executor::block_on;
use libp2p::{Multiaddr, PeerId, identity::Keypair};
use libp2p_peerstore::{Config, Datastore, FsDatastore, PeerStore};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{child::Js, format, hex, peer_id, swarm::sorted, texts, to_hex};

/// What is known of one peer, in a form in which both sides can be compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Held {
    /// The bytes of each address, and whether it is certified.
    addresses: Vec<(String, bool)>,
    record: Option<(u64, String)>,
    protocols: Vec<String>,
    public_key: Option<String>,
    metadata: BTreeMap<String, String>,
}

type Peers = BTreeMap<PeerId, Held>;

/// What was put into the fixture.
fn fixture() -> Peers {
    let lines = include_str!("../data/js-libp2p-0.30/peers.jsonl").lines();
    let peers = lines.map(|line| {
        let peer: Value = serde_json::from_str(line).unwrap();
        let certified = peer["certified"].as_bool().unwrap();
        let addresses = texts(&peer["addrBytes"]).into_iter();
        let held = Held {
            addresses: sorted(addresses.map(|address| (address, certified)).collect()),
            public_key: peer["pubKey"].as_str().map(str::to_owned),
            ..Held::of(&peer)
        };
        (peer_id(&peer["id"]), held)
    });
    peers.collect()
}

impl Held {
    /// What the fixture and `store.js` write alike.
    fn of(peer: &Value) -> Self {
        let metadata = peer["metadata"].as_object().unwrap().iter();
        let record = peer["record"].as_object();
        Self {
            record: record
                .map(|record| (record["seq"].as_u64().unwrap(), to_hex(hex(&record["raw"])))),
            protocols: sorted(texts(&peer["protocols"])),
            metadata: metadata
                .map(|(name, value)| (name.clone(), to_hex(hex(value))))
                .collect(),
            ..Self::default()
        }
    }

    fn add(&mut self, address: &Multiaddr) {
        self.addresses.push((to_hex(address), false));
        self.addresses.sort();
    }

    /// As js-libp2p 0.30 finds it after a restart: it takes the first part of a metadata key for all of it.
    fn reread(&self) -> Self {
        let name = |name: &String| name.split('/').next().unwrap().to_owned();
        let metadata = self.metadata.iter();
        Self {
            metadata: metadata
                .map(|(key, value)| (name(key), value.clone()))
                .collect(),
            ..self.clone()
        }
    }
}

fn reread(peers: &Peers) -> Peers {
    peers
        .iter()
        .map(|(id, held)| (*id, held.reread()))
        .collect()
}

/// What js-libp2p holds.
async fn held_by_js(js: &mut Js) -> Peers {
    let peers = js.call("peers", json!({})).await;
    let peers = peers.as_array().unwrap().iter().map(|peer| {
        let certified = peer["certified"].as_array().unwrap().iter();
        let addresses = texts(&peer["addresses"]).into_iter();
        let held = Held {
            addresses: sorted(
                addresses
                    .zip(certified.map(|flag| flag.as_bool().unwrap()))
                    .collect(),
            ),
            public_key: peer["publicKey"].as_str().map(str::to_owned),
            ..Held::of(peer)
        };
        (peer_id(&peer["id"]), held)
    });
    peers.collect()
}

/// What a store of ours holds.
fn held(store: &PeerStore) -> Peers {
    let peers = store.peers().into_iter().map(|peer| {
        let addresses = peer.addresses.iter();
        let addresses = addresses.map(|info| (to_hex(&info.address), info.is_certified()));
        let protocols = peer.protocols.iter().map(ToString::to_string);
        let metadata = peer.metadata.iter();
        let held = Held {
            addresses: sorted(addresses.collect()),
            record: peer
                .signed_record
                .map(|record| (record.seq, to_hex(record.envelope))),
            protocols: sorted(protocols.collect()),
            public_key: peer.public_key.map(|key| to_hex(key.encode_protobuf())),
            metadata: metadata
                .map(|(name, value)| (name.clone(), to_hex(value)))
                .collect(),
        };
        (peer.id, held)
    });
    peers.collect()
}

async fn open(folder: &Path) -> PeerStore {
    let datastore = FsDatastore::open(folder).unwrap();
    let store = PeerStore::open(PeerId::random(), datastore, Config::default())
        .await
        .unwrap();
    let report = store.load_report();
    assert_eq!(
        (report.foreign, report.undecodable, report.refused),
        (0, 0, 0)
    );
    store
}

async fn close(store: PeerStore) {
    store.shutdown().await.unwrap();
}

fn address(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => fs::write(&to, fs::read(entry.path()).unwrap()).unwrap(),
        }
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn the_folder_of_a_js_node_is_opened_changed_and_given_back_whole() {
    let folder = folder();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/js-libp2p-0.30/store");
    copy(&data, folder.path());
    let Some(mut js) = Js::store(folder.path()).await else {
        return;
    };
    let mut model = fixture();
    assert_eq!(
        held_by_js(&mut js).await,
        reread(&model),
        "what it holds before we do anything"
    );
    drop(js);

    let store = open(folder.path()).await;
    assert_eq!(held(&store), model);
    let rich: Vec<PeerId> = model
        .iter()
        .filter(|(_, held)| held.metadata.len() > 2 && !held.protocols.is_empty())
        .map(|(id, _)| *id)
        .collect();
    let [more, fewer, gone] = rich[..3] else {
        panic!("the fixture has too few peers with metadata")
    };
    let keyless = model.iter().find(|(id, held)| {
        held.public_key.is_some() && id.as_ref().code() == 0x12 && !rich[..3].contains(id)
    });
    let keyless = *keyless.unwrap().0;
    let (tcp, quic) = (
        address("/ip4/192.0.2.7/tcp/4001"),
        address("/ip4/192.0.2.7/udp/4001/quic-v1"),
    );

    store.addresses().add(more, [tcp.clone(), quic.clone()]);
    store.metadata().set(more, "note", "of ours").unwrap();
    store.tags().set(more, "friend", 50, None).unwrap();
    let entry = model.get_mut(&more).unwrap();
    entry.add(&tcp);
    entry.metadata.insert("note".into(), to_hex("of ours"));
    assert!(store.protocols().set(fewer, ["/only/1"]).changed);
    assert!(store.metadata().delete_value(&fewer, "AgentVersion"));
    store.tags().set(fewer, "friend", 50, None).unwrap();
    let entry = model.get_mut(&fewer).unwrap();
    entry.protocols = vec!["/only/1".into()];
    entry.metadata.remove("AgentVersion").unwrap();
    assert!(store.delete(&gone));
    model.remove(&gone).unwrap();
    assert!(store.keys().delete(&keyless));
    model.get_mut(&keyless).unwrap().public_key = None;
    let key = Keypair::generate_secp256k1().public();
    let new = key.to_peer_id();
    store.addresses().add(new, [quic.clone(), tcp.clone()]);
    store.protocols().add(new, ["/new/1", "/new/2"]);
    store.metadata().set(new, "AgentVersion", "new").unwrap();
    let mut entry = Held {
        protocols: vec!["/new/1".into(), "/new/2".into()],
        public_key: Some(to_hex(key.encode_protobuf())),
        metadata: [("AgentVersion".into(), to_hex("new"))].into(),
        ..Held::default()
    };
    entry.add(&tcp);
    model.insert(new, entry);
    close(store).await;

    let mut js = Js::store(folder.path()).await.unwrap();
    assert_eq!(
        held_by_js(&mut js).await,
        reread(&model),
        "what we changed, and no more"
    );

    // The js node goes on with it.
    let late = address("/dns4/example.com/tcp/443/wss");
    js.call(
        "add",
        json!({ "peer": more.to_string(), "addresses": [to_hex(&late)] }),
    )
    .await;
    model.get_mut(&more).unwrap().add(&late);
    js.call(
        "speaks",
        json!({ "peer": keyless.to_string(), "protocols": ["/js/1"] }),
    )
    .await;
    model.get_mut(&keyless).unwrap().protocols = vec!["/js/1".into()];
    js.call("close", json!({})).await;
    drop(js);

    let store = open(folder.path()).await;
    // Where js-libp2p wrote, what it does not know is gone, and only there.
    assert_eq!(store.tags().get_value(&more, "friend"), None);
    assert_eq!(store.tags().get_value(&fewer, "friend"), Some(50));
    model.get_mut(&new).unwrap().add(&quic);
    assert_eq!(held(&store), model);
    close(store).await;
}

#[tokio::test]
async fn a_folder_that_js_makes_now_is_read_changed_and_read_back() {
    let folder = folder();
    let Some(mut js) = Js::store(folder.path()).await else {
        return;
    };
    for key_type in ["Ed25519", "secp256k1", "RSA"] {
        let addresses = ["/ip4/192.0.2.1/tcp/4001", "/dns6/example.com/tcp/443/wss"];
        let args = json!({
            "keyType": key_type,
            "addresses": addresses.map(|text| to_hex(address(text))),
            "protocols": ["/b/1", "/a/1"],
            "metadata": { "AgentVersion": to_hex("js"), "a/b": to_hex("c"), "empty": "" },
        });
        js.call("make", args).await;
    }
    let mut model = held_by_js(&mut js).await;
    assert_eq!(model.len(), 3);
    assert!(
        model
            .values()
            .all(|held| held.record.is_some() && held.public_key.is_some())
    );
    js.call("close", json!({})).await;
    drop(js);

    let store = open(folder.path()).await;
    assert_eq!(held(&store), model);
    let new = address("/ip4/192.0.2.2/udp/4001/quic");
    for (id, entry) in &mut model {
        assert!(
            store.signed_peer_record(id).is_some(),
            "the signature is sound"
        );
        store.addresses().add(*id, [new.clone()]);
        entry.add(&new);
        store.protocols().add(*id, ["/c/1"]);
        entry.protocols.push("/c/1".into());
        store.metadata().set(*id, "AgentVersion", "rust").unwrap();
        entry.metadata.insert("AgentVersion".into(), to_hex("rust"));
    }
    assert_eq!(held(&store), model);
    close(store).await;

    let mut js = Js::store(folder.path()).await.unwrap();
    assert_eq!(held_by_js(&mut js).await, reread(&model));
    for id in model.keys() {
        let signer = js.call("signer", json!({ "peer": id.to_string() })).await;
        assert_eq!(signer, id.to_string());
    }
}

/// A peer that speaks a protocol, so that js-libp2p knows it whatever becomes of its addresses.
fn with_protocol(store: &PeerStore, addresses: impl IntoIterator<Item = Multiaddr>) -> PeerId {
    let peer = PeerId::random();
    assert_eq!(store.addresses().add(peer, addresses).refused, 0);
    store.protocols().add(peer, ["/p"]);
    peer
}

#[tokio::test]
async fn js_reads_the_addresses_that_the_document_says_and_the_others_cost_it_nothing() {
    let folder = folder();
    let store = open(folder.path()).await;
    let read = format::addresses("text js-libp2p 0.30 reads");
    let unread = format::addresses("text js-libp2p 0.30 does not read");
    assert!(read.len() > 15 && unread.len() > 10);
    let plain = address("/ip4/192.0.2.1/tcp/1");
    // Each has a peer of its own, with another address that js-libp2p surely reads.
    let of = |addresses: Vec<Multiaddr>| {
        let each = addresses.into_iter().map(|address| {
            let peer = with_protocol(&store, [plain.clone(), address.clone()]);
            (peer, address)
        });
        each.collect::<BTreeMap<_, _>>()
    };
    let (read, unread) = (of(read), of(unread));
    close(store).await;
    let Some(mut js) = Js::store(folder.path()).await else {
        return;
    };
    let peers = held_by_js(&mut js).await;
    assert_eq!(peers.len(), read.len() + unread.len());
    for (peer, address) in &read {
        let mut both = Held::default();
        both.add(&plain);
        both.add(address);
        assert_eq!(peers[peer].addresses, both.addresses, "{address}");
    }
    for (peer, address) in &unread {
        assert_eq!(
            peers[peer].addresses,
            [(to_hex(&plain), false)],
            "{address}"
        );
    }
}

#[tokio::test]
async fn an_unknown_address_in_the_field_of_js_costs_it_the_peers_addresses_until_we_write_them() {
    let folder = folder();
    let plain = address("/ip4/192.0.2.1/tcp/1");
    let store = open(folder.path()).await;
    let (healed, lost) = (
        with_protocol(&store, [plain.clone()]),
        with_protocol(&store, [plain.clone()]),
    );
    let kept = with_protocol(&store, [plain.clone()]);
    close(store).await;
    // As a program would that does not know what js-libp2p 0.30 reads.
    let quic = address("/ip4/192.0.2.1/udp/1/quic-v1");
    let file = |peer: &PeerId| {
        let cid = [&[0x01, 0x72][..], &peer.to_bytes()].concat();
        let b32 = data_encoding::BASE32_NOPAD.encode(&cid).to_lowercase();
        folder.path().join(format!("peers/addrs/b{b32}.data"))
    };
    let entry = |address: &Multiaddr| {
        let bytes = address.to_vec();
        let message = [&[0x0a, bytes.len() as u8][..], &bytes].concat();
        [&[0x0a, message.len() as u8][..], &message].concat()
    };
    for peer in [healed, lost, kept] {
        fs::write(file(&peer), [entry(&plain), entry(&quic)].concat()).unwrap();
    }

    let Some(mut js) = Js::store(folder.path()).await else {
        return;
    };
    let peers = held_by_js(&mut js).await;
    assert!(
        peers
            .values()
            .all(|held| held.addresses.is_empty() && held.protocols == ["/p"])
    );
    // Whatever it changes of such a peer, it deletes the addresses that it did not read.
    js.call(
        "speaks",
        json!({ "peer": lost.to_string(), "protocols": ["/q"] }),
    )
    .await;
    js.call("close", json!({})).await;
    drop(js);
    assert!(!file(&lost).exists() && file(&kept).exists());

    let store = open(folder.path()).await;
    let both = sorted(vec![plain.clone(), quic.clone()]);
    for peer in [healed, kept] {
        assert_eq!(sorted(store.addresses().get(&peer).unwrap()), both);
    }
    let more = address("/ip4/192.0.2.1/tcp/2");
    store.addresses().add(healed, [more.clone()]);
    close(store).await;
    let mut js = Js::store(folder.path()).await.unwrap();
    let peers = held_by_js(&mut js).await;
    let mut expected = Held::default();
    expected.add(&plain);
    expected.add(&more);
    assert_eq!(peers[&healed].addresses, expected.addresses);
    assert!(
        peers[&kept].addresses.is_empty(),
        "what did not change is not written"
    );
}

#[tokio::test]
async fn numbers_that_js_cannot_hold_cost_it_their_last_digits_only() {
    let folder = folder();
    let store = open(folder.path()).await;
    let peer = with_protocol(&store, [address("/ip4/192.0.2.1/tcp/1")]);
    close(store).await;
    let datastore = FsDatastore::open(folder.path()).unwrap();
    let key = {
        use futures::StreamExt;
        let entries = block_on(datastore.query("/peers/addrs/").collect::<Vec<_>>());
        entries.into_iter().next().unwrap().unwrap().0
    };
    let mut value = block_on(datastore.get(&key)).unwrap().unwrap();
    // A sequence number like those of go-libp2p, in nanoseconds, and the largest that fits into fields of ours.
    let seq: u64 = 1_735_689_600_123_456_789;
    let varint = |mut number: u64| {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    };
    let record = [&[0x08][..], &varint(seq), &[0x12, 0x03, 1, 2, 3]].concat();
    value.extend([&[0x12, record.len() as u8][..], &record].concat());
    value.extend([varint(22 << 3), varint(u64::MAX)].concat());
    block_on(datastore.put(&key, value)).unwrap();
    block_on(datastore.close()).unwrap();

    let Some(mut js) = Js::store(folder.path()).await else {
        return;
    };
    let told = &js.call("peers", json!({})).await[0];
    assert_eq!(told["id"], peer.to_string());
    assert_eq!(told["addresses"].as_array().unwrap().len(), 1);
    assert_eq!(told["record"]["seq"].as_f64(), Some(seq as f64));
}
