//! What a commit writes, and what comes back of it.

use std::{collections::HashMap, time::Duration};

use libp2p::{PeerId, identity::Keypair};
use libp2p_peerstore::{Config, MemoryDatastore, Peer, PeerStoreBehaviour, Sources};

use crate::{
    support::{
        Hand, Recording, addr, addrs_key, deletes, keys_key, keys_of, metadata_key, protos_key,
        puts, sorted,
    },
    swarm::{Certified, Gossip, Told, dial_failed, dialled, inbound},
};

const MINUTE: Duration = Duration::from_secs(60);
const PROVEN: Duration = libp2p_peerstore::DEFAULT_PROVEN_LIFETIME;

/// An RSA key, which a peer id does not contain: that of a peer of the js-libp2p fixture.
fn rsa_key() -> libp2p::identity::PublicKey {
    let peers = include_str!("../data/js-libp2p-0.30/peers.jsonl");
    let peer = peers
        .lines()
        .find(|line| line.contains(r#""keyType":"rsa""#));
    let peer: serde_json::Value = serde_json::from_str(peer.unwrap()).unwrap();
    let bytes = data_encoding::HEXLOWER.decode(peer["pubKey"].as_str().unwrap().as_bytes());
    libp2p::identity::PublicKey::try_decode_protobuf(&bytes.unwrap()).unwrap()
}

/// Everything about a peer that can be compared between two runs. Not its confidence, which this node's own luck so far
/// plays a part in, nor a back-off, in which chance does; nor when an address expires while a connection uses it.
fn all_of(peer: &Peer) -> impl PartialEq + std::fmt::Debug + use<> {
    let addresses = peer.addresses.iter().map(|info| {
        let mut info = info.clone();
        info.confidence = 0.0;
        info.back_off = info.back_off.map(|_| MINUTE);
        if peer.connected {
            info.expires = info.last_success.map(|at| at + PROVEN);
        }
        info
    });
    let mut addresses: Vec<_> = addresses.collect();
    addresses.sort_by(|a, b| a.address.cmp(&b.address));
    (
        peer.id,
        addresses,
        peer.protocols.clone(),
        peer.public_key.clone(),
        peer.metadata.clone(),
        peer.signed_record.clone(),
    )
}

#[test]
fn everything_known_of_a_peer_survives_a_restart() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let store = hand.open(memory.clone());
    let key = rsa_key();
    let peer = PeerId::from(key.clone());
    let mut behaviour = PeerStoreBehaviour::new(store.clone()).unwrap();

    store.learn(&Gossip(peer, addr(1)));
    hand.advance(7 * MINUTE);
    store.learn(&Told(peer, addr(1)));
    store.addresses().add(peer, [addr(2)]);
    store.addresses().pin(peer, [addr(3)]);
    store.learn(&Certified(peer, addr(1)));
    hand.advance(20 * MINUTE);
    store.learn(&Gossip(peer, addr(2)));
    dialled(&mut behaviour, peer, &addr(4));
    dialled(&mut behaviour, peer, &addr(4));
    hand.advance(MINUTE);
    dial_failed(&mut behaviour, peer, &addr(2));
    dial_failed(&mut behaviour, peer, &addr(2));
    dial_failed(&mut behaviour, peer, &addr(4));
    store.protocols().set(peer, ["/b/1", "/a/1", "/c/1"]);
    assert_eq!(store.keys().set(peer, key.clone()), Ok(true));
    for (name, value) in [
        ("note", "x"),
        ("a/b", "slash"),
        ("a", "no slash"),
        ("empty", ""),
    ] {
        assert_eq!(store.metadata().set(peer, name, value), Ok(true));
    }
    drop(behaviour);
    hand.shutdown(store.clone());

    hand.advance(MINUTE);
    let before = store.get(&peer).unwrap();
    let store = hand.open(memory.clone());
    let after = store.get(&peer).unwrap();
    assert_eq!(all_of(&after), all_of(&before));
    assert!(!after.connected);
    // What dials made of the confidence is there. The rest of it is this node's own luck, which starts again.
    for info in &after.addresses {
        let before = before.addresses.iter().find(|b| b.address == info.address);
        let moved = (info.confidence - before.unwrap().confidence).abs();
        let dialled = info.successes + info.failures > 0;
        assert!(moved < if dialled { 0.01 } else { 0.1 }, "{info:?}");
    }

    // Not by their own equality alone: what was put in is there.
    let infos: HashMap<_, _> = after
        .addresses
        .iter()
        .map(|i| (i.address.clone(), i))
        .collect();
    let sources = |port| infos[&addr(port)].sources;
    let told = Sources::KADEMLIA | Sources::IDENTIFY | Sources::CERTIFIED;
    assert_eq!(sources(1), told);
    assert_eq!(sources(2), Sources::APPLICATION | Sources::KADEMLIA);
    assert_eq!(sources(3), Sources::PINNED);
    assert_eq!(sources(4), Sources::DIALLED);
    let heard = [1, 2, 3, 4].map(|port| {
        let info = infos[&addr(port)];
        let since = info.last_heard.duration_since(info.first_heard);
        since.unwrap().as_secs()
    });
    // In steps of 64 seconds; the connection ended a minute after it began.
    let step = |minutes: u64| 60 * minutes / 64 * 64;
    assert_eq!(heard, [0, step(27) - step(7), 0, step(28) - step(27)]);
    assert_eq!(
        (infos[&addr(4)].successes, infos[&addr(4)].failures),
        (2, 1)
    );
    assert_eq!(
        (infos[&addr(2)].successes, infos[&addr(2)].failures),
        (0, 2)
    );
    let start = std::time::UNIX_EPOCH + Duration::from_secs(1_735_689_600);
    assert_eq!(infos[&addr(1)].first_heard, start);
    let at = |minutes| Some(start + Duration::from_secs(step(minutes)));
    assert_eq!(infos[&addr(4)].last_success, at(28));
    assert_eq!(infos[&addr(2)].last_failure, at(28));
    assert_eq!(after.public_key, Some(key));
    assert_eq!(after.metadata["a/b"], b"slash");
    assert_eq!(after.metadata["empty"], b"");

    // A pin is as firm after the restart as before.
    store.learn(&Told(peer, addr(9)));
    assert_eq!(sorted_ports(&store.addresses().get(&peer).unwrap()), [3, 9]);
}

fn sorted_ports(addresses: &[libp2p::Multiaddr]) -> Vec<u16> {
    let ports = addresses.iter().filter_map(|address| {
        address.iter().find_map(|protocol| match protocol {
            libp2p::multiaddr::Protocol::Tcp(port) => Some(port),
            _ => None,
        })
    });
    let mut ports: Vec<u16> = ports.collect();
    ports.sort_unstable();
    ports
}

#[test]
fn a_key_that_the_peer_id_contains_is_not_written() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    for keypair in [Keypair::generate_ed25519(), Keypair::generate_secp256k1()] {
        let peer = PeerId::from(keypair.public());
        assert_eq!(store.keys().set(peer, keypair.public()), Ok(false));
        store.addresses().add(peer, [addr(1)]);
        hand.flush(&store);
        assert_eq!(puts(&datastore.take_commit()), [addrs_key(&peer)]);
    }
}

#[test]
fn only_the_books_that_changed_are_written() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let key = rsa_key();
    let peer = PeerId::from(key.clone());
    store.addresses().add(peer, [addr(1)]);
    store.protocols().add(peer, ["/p"]);
    store.keys().set(peer, key).unwrap();
    store.metadata().set(peer, "a", "1").unwrap();
    store.metadata().set(peer, "b", "1").unwrap();
    hand.flush(&store);
    let all = [
        addrs_key(&peer),
        protos_key(&peer),
        keys_key(&peer),
        metadata_key(&peer, "a"),
        metadata_key(&peer, "b"),
    ];
    assert_eq!(puts(&datastore.take_commit()), sorted(all));

    store.addresses().add(peer, [addr(2)]);
    hand.flush(&store);
    assert_eq!(puts(&datastore.take_commit()), [addrs_key(&peer)]);
    store.protocols().remove(peer, ["/p"]);
    hand.flush(&store);
    let batch = datastore.take_commit();
    assert_eq!(
        (puts(&batch), deletes(&batch)),
        (vec![], vec![protos_key(&peer)])
    );
    store.metadata().set(peer, "b", "2").unwrap();
    hand.flush(&store);
    assert_eq!(puts(&datastore.take_commit()), [metadata_key(&peer, "b")]);
    store.keys().delete(&peer);
    store.metadata().delete_value(&peer, "a");
    hand.flush(&store);
    let batch = datastore.take_commit();
    let gone = sorted([keys_key(&peer), metadata_key(&peer, "a")]);
    assert_eq!((puts(&batch), deletes(&batch)), (vec![], gone));
    let left = sorted([addrs_key(&peer), metadata_key(&peer, "b")]);
    assert_eq!(keys_of(&datastore.memory), left);
}

#[test]
fn what_came_and_went_before_the_commit_leaves_nothing() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let peer = PeerId::random();
    store.addresses().add(peer, [addr(1)]);
    store.protocols().add(peer, ["/p"]);
    store.protocols().remove(peer, ["/p"]);
    store.metadata().set(peer, "note", "x").unwrap();
    store.metadata().delete_value(&peer, "note");
    hand.flush(&store);
    let batch = datastore.take_commit();
    assert_eq!(puts(&batch), [addrs_key(&peer)]);
    assert_eq!(deletes(&batch), Vec::<String>::new());
}

#[test]
fn an_address_of_inbound_connections_is_not_written() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let mut behaviour = PeerStoreBehaviour::new(store.clone()).unwrap();
    let stranger = PeerId::random();
    inbound(&mut behaviour, stranger, &addr(50_001));
    assert_eq!(store.addresses().get(&stranger).unwrap(), [addr(50_001)]);
    assert_eq!(store.unsaved(), 0);
    hand.flush(&store);
    assert_eq!(datastore.started(), 0);

    // What else is known of the peer is written.
    store.protocols().add(stranger, ["/p"]);
    hand.flush(&store);
    assert_eq!(puts(&datastore.take_commit()), [protos_key(&stranger)]);

    // The address is left out of what is written of the others.
    let pinned = PeerId::random();
    inbound(&mut behaviour, pinned, &addr(50_001));
    store.addresses().pin(pinned, [addr(1)]);
    assert_eq!(store.addresses().get(&pinned).unwrap().len(), 2);
    hand.flush(&store);
    assert_eq!(puts(&datastore.take_commit()), [addrs_key(&pinned)]);
    let again = hand.open(datastore.memory.clone());
    assert_eq!(again.addresses().get(&pinned).unwrap(), [addr(1)]);

    // An address that identify confirms is no longer one that was only seen.
    store.learn(&Told(stranger, addr(50_001)));
    hand.flush(&store);
    assert_eq!(puts(&datastore.take_commit()), [addrs_key(&stranger)]);
    let again = hand.open(datastore.memory.clone());
    let infos = again.addresses().infos(&stranger).unwrap();
    assert_eq!(infos[0].sources, Sources::INBOUND | Sources::IDENTIFY);
}

#[test]
fn all_keys_of_a_peer_are_in_one_batch_and_each_has_one_operation() {
    const PEERS: usize = 9_000;
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open_with(datastore.clone(), |config| {
        config.with_commit_threshold(usize::MAX.try_into().unwrap())
    });
    let peers: Vec<PeerId> = (0..PEERS).map(|_| PeerId::random()).collect();
    for peer in &peers {
        for port in 1..4 {
            store.addresses().add(*peer, [addr(port)]);
            store.protocols().add(*peer, [format!("/p/{port}")]);
            store.metadata().set(*peer, "note", [port as u8]).unwrap();
        }
    }
    hand.flush(&store);

    let commits = datastore.take_commits();
    assert!(commits.len() > 1, "so many peers are a row of commits");
    assert_eq!(datastore.most_in_flight(), 1);
    let mut batch_of = HashMap::new();
    for (number, batch) in commits.iter().enumerate() {
        for (key, value) in batch.iter() {
            assert!(value.is_some(), "{key}");
            assert_eq!(batch_of.insert(key.to_owned(), number), None, "{key} twice");
        }
    }
    assert_eq!(batch_of.len(), 3 * PEERS);
    for peer in &peers {
        let keys = [
            addrs_key(peer),
            protos_key(peer),
            metadata_key(peer, "note"),
        ];
        assert!(keys.iter().all(|key| batch_of[key] == batch_of[&keys[0]]));
    }
    assert_eq!(hand.open(datastore.memory.clone()).len(), PEERS);
}

#[test]
fn more_changed_metadata_than_is_listed_is_written_all_the_same() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let many = |config: Config| config.with_max_metadata_per_peer(2_000.try_into().unwrap());
    let store = hand.open_with(datastore.clone(), many);
    let peer = PeerId::random();
    store.addresses().add(peer, [addr(1)]);
    for n in 0..1_000 {
        store.metadata().set(peer, &format!("k{n}"), "old").unwrap();
    }
    hand.flush(&store);
    for n in 0..1_000 {
        match n % 2 {
            0 => assert!(store.metadata().delete_value(&peer, &format!("k{n}"))),
            _ => assert_eq!(
                store.metadata().set(peer, &format!("k{n}"), "new"),
                Ok(true)
            ),
        }
    }
    hand.flush(&store);
    let again = hand.open_with(datastore.memory.clone(), many);
    assert_eq!(
        all_of(&again.get(&peer).unwrap()),
        all_of(&store.get(&peer).unwrap())
    );
    assert_eq!(datastore.memory.len(), 501);
}

// --- persist_hearsay ---------------------------------------------------------------------------------------

#[test]
fn hearsay_is_left_out_when_the_user_says_so() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open_with(datastore.clone(), |config| {
        config.with_persist_hearsay(false)
    });
    let mut behaviour = PeerStoreBehaviour::new(store.clone()).unwrap();
    let gossip: Vec<PeerId> = (0..10).map(|_| PeerId::random()).collect();
    for peer in &gossip {
        store.learn(&Gossip(*peer, addr(1)));
    }
    let [told, proven, pinned] = [PeerId::random(), PeerId::random(), PeerId::random()];
    store.learn(&Told(told, addr(1)));
    dialled(&mut behaviour, proven, &addr(1));
    store.addresses().pin(pinned, [addr(1)]);
    hand.flush(&store);
    let expected = [told, proven, pinned]
        .iter()
        .map(addrs_key)
        .collect::<Vec<_>>();
    let batch = datastore.take_commit();
    assert_eq!(puts(&batch), sorted(expected.clone()));
    assert_eq!(deletes(&batch), Vec::<String>::new());

    // To forget one costs nothing.
    store.addresses().delete(&gossip[0]);
    hand.flush(&store);
    assert_eq!(datastore.started(), 1);
    // A peer that becomes more than hearsay is written.
    store.learn(&Told(gossip[1], addr(1)));
    store.addresses().add(gossip[1], [addr(2)]);
    hand.flush(&store);
    assert_eq!(puts(&datastore.take_commit()), [addrs_key(&gossip[1])]);
}

/// What was learnt while the peer was hearsay was not written then; it must not be lost for good.
#[test]
fn a_peer_that_becomes_more_than_hearsay_is_written_whole() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open_with(datastore.clone(), |config| {
        config.with_persist_hearsay(false)
    });
    let mut behaviour = PeerStoreBehaviour::new(store.clone()).unwrap();
    let key = rsa_key();
    let peer = PeerId::from(key.clone());
    store.learn(&Gossip(peer, addr(1)));
    store.protocols().add(peer, ["/p"]);
    store.keys().set(peer, key).unwrap();
    store
        .metadata()
        .set(peer, libp2p_peerstore::AGENT_VERSION, "agent")
        .unwrap();
    hand.flush(&store);
    assert_eq!(datastore.started(), 0);

    dialled(&mut behaviour, peer, &addr(1));
    hand.flush(&store);
    datastore.take_commit();
    let again = hand.open(datastore.memory.clone());
    assert_eq!(
        all_of(&again.get(&peer).unwrap()),
        all_of(&store.get(&peer).unwrap())
    );
}

#[test]
fn a_peer_that_is_hearsay_again_is_taken_back_with_all_that_was_written() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open_with(datastore.clone(), |config| {
        config.with_persist_hearsay(false)
    });
    let peer = PeerId::random();
    store.learn(&Gossip(peer, addr(1)));
    store.protocols().add(peer, ["/p"]);
    store.metadata().set(peer, "friend", "yes").unwrap();
    store
        .metadata()
        .set(peer, libp2p_peerstore::AGENT_VERSION, "agent")
        .unwrap();
    hand.flush(&store);
    assert_eq!(datastore.memory.len(), 4);

    store.metadata().delete_value(&peer, "friend");
    hand.flush(&store);
    assert_eq!(keys_of(&datastore.memory), Vec::<String>::new());

    // And written whole once it is a friend again.
    store.metadata().set(peer, "friend", "yes").unwrap();
    hand.flush(&store);
    let again = hand.open(datastore.memory.clone());
    assert_eq!(
        all_of(&again.get(&peer).unwrap()),
        all_of(&store.get(&peer).unwrap())
    );
}
