//! A node of js-libp2p 3 and one of rust-libp2p with a peer store, over TCP, Noise and Yamux.

use std::time::{Duration, Instant};

use libp2p::{
    Multiaddr, PeerId,
    core::SignedEnvelope,
    identify,
    identity::{Keypair, PublicKey},
    ping,
    swarm::NetworkBehaviour,
};
use libp2p_peerstore::{
    AGENT_VERSION, Config, Datastore, Event, FsDatastore, MemoryDatastore, Observed,
    PROTOCOL_VERSION, PeerStore, PeerStoreBehaviour, RecordFormat, Sources, Standing,
};
use serde_json::{Value, json};

use crate::{addresses, child::Js, hex, peer_id, swarm::*, text, texts, to_hex};

/// As the documentation composes a node, and with ping: js-libp2p names nobody to others who does not answer that.
#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "Out")]
struct Composed {
    peer_store: PeerStoreBehaviour,
    identify: Observed<identify::Behaviour>,
    kad: Observed<Kad>,
    ping: Observed<ping::Behaviour>,
}

type Rust = Node<Composed>;

fn rust() -> Rust {
    rust_with(identify)
}

fn rust_with(identify: impl FnOnce(&Keypair) -> identify::Behaviour) -> Rust {
    Setup::default().build(|store, key| Composed {
        peer_store: PeerStoreBehaviour::new(store.clone()).unwrap(),
        identify: store.observe(identify(key)),
        kad: store.observe(kad(key)),
        ping: store.observe(ping::Behaviour::default()),
    })
}

/// Whether js-libp2p has told of this, of this peer.
fn told(js: &Js, event: &str, peer: PeerId) -> bool {
    js.event(event).any(|event| event["id"] == peer.to_string())
}

/// What a node of js-libp2p says of itself.
struct Said {
    id: PeerId,
    all: Value,
}

impl Said {
    async fn by(js: &mut Js) -> Self {
        let all = js.call("self", json!({})).await;
        let id = peer_id(&all["id"]);
        Self { id, all }
    }

    fn addresses(&self) -> Vec<Multiaddr> {
        addresses(&self.all["addresses"])
    }

    fn protocols(&self) -> Vec<String> {
        texts(&self.all["protocols"])
    }

    /// The store holds that, and nothing else.
    fn is_held_by(&self, store: &PeerStore) {
        let peer = store.get(&self.id).unwrap();
        let known = peer.addresses.iter().map(|info| info.address.clone());
        assert_eq!(sorted(known.collect()), sorted(self.addresses()));
        assert_eq!(names(&peer.protocols), self.protocols());
        let metadata = |key| String::from_utf8(peer.metadata[key].clone()).unwrap();
        assert_eq!(metadata(AGENT_VERSION), text(&self.all["agent"]));
        assert_eq!(
            metadata(PROTOCOL_VERSION),
            text(&self.all["protocolVersion"])
        );
        assert_eq!(peer.metadata.len(), 2);
        let key = PublicKey::try_decode_protobuf(&hex(&self.all["publicKey"])).unwrap();
        assert_eq!(peer.public_key, Some(key));
    }
}

/// js-libp2p has heard the node identify itself, and holds what it told.
async fn js_holds_what_we_told(rust: &mut Rust, js: &mut Js, ours: &Multiaddr) {
    let id = rust.id;
    until((&mut *rust, &mut *js), |(_, js)| told(js, "identified", id)).await;
    let asked = js.ask("peer", json!({ "peer": id.to_string() }));
    let held = get((&mut *rust, &mut *js), |(_, js)| js.answer(asked)).await;
    assert_eq!(addresses(&held["addresses"]), [ours.clone()]);
    let names = ["id/1.0.0", "id/push/1.0.0", "kad/1.0.0", "ping/1.0.0"];
    assert_eq!(
        texts(&held["protocols"]),
        names.map(|name| format!("/ipfs/{name}"))
    );
    assert_eq!(held["agent"], "rule-tester/7");
    assert_eq!(held["protocolVersion"], "/rule/1.0.0");
    let key = PublicKey::try_decode_protobuf(&hex(&held["publicKey"])).unwrap();
    assert_eq!(key.to_peer_id(), rust.id);
}

#[tokio::test]
async fn who_dialled_us_is_known_as_it_says_of_itself_and_knows_us() {
    for key_type in ["Ed25519", "secp256k1"] {
        let Some(mut js) = Js::node(key_type).await else {
            return;
        };
        let mut rust = rust();
        let said = Said::by(&mut js).await;
        let ours = rust.listen().await;
        let address = with_id(&ours, rust.id).to_string();
        let dialled = js.ask("dial", json!({ "address": address }));
        until((&mut rust, &mut js), |(rust, _)| {
            rust.identified(said.id) > 0
        })
        .await;
        said.is_held_by(&rust.store);
        for address in said.addresses() {
            let info = rust.info(said.id, &address).unwrap();
            assert_eq!(info.standing, Standing::SelfTold);
        }
        assert!(rust.store.is_connected(&said.id));
        get((&mut rust, &mut js), |(_, js)| js.answer(dialled)).await;
        js_holds_what_we_told(&mut rust, &mut js, &ours).await;
    }
}

#[tokio::test]
async fn whom_we_dialled_is_known_as_it_says_of_itself_and_knows_us() {
    // An RSA key is in no peer id: what the store holds is what identify told.
    for key_type in ["Ed25519", "RSA"] {
        let Some(mut js) = Js::node(key_type).await else {
            return;
        };
        let mut rust = rust();
        let said = Said::by(&mut js).await;
        let ours = rust.listen().await;
        // By its id alone: the store knows where.
        rust.store.addresses().add(said.id, said.addresses());
        rust.dial(said.id);
        until((&mut rust, &mut js), |(rust, _)| {
            rust.identified(said.id) > 0
        })
        .await;
        said.is_held_by(&rust.store);
        let dialled = said.addresses();
        assert_eq!(dialled.len(), 1);
        let info = rust.info(said.id, &dialled[0]).unwrap();
        assert_eq!(info.standing, Standing::Proven);
        js_holds_what_we_told(&mut rust, &mut js, &ours).await;
    }
}

#[tokio::test]
async fn a_new_address_of_ours_reaches_the_store_of_js_by_a_push() {
    let Some(mut js) = Js::node("Ed25519").await else {
        return;
    };
    let mut rust = rust();
    let said = Said::by(&mut js).await;
    let first = rust.listen().await;
    rust.swarm.dial(to(said.id, &said.addresses()[0])).unwrap();
    js_holds_what_we_told(&mut rust, &mut js, &first).await;
    let second = rust.listen().await;
    let id = rust.id.to_string();
    let both = sorted(vec![first, second]);
    until((&mut rust, &mut js), |(_, js)| {
        let mut updates = js.event("peer").filter(|peer| peer["id"] == id);
        updates.any(|peer| sorted(addresses(&peer["addresses"])) == both)
    })
    .await;
}

/// js-libp2p gathers its changes for so long before it pushes them.
const DEBOUNCE: Duration = Duration::from_secs(1);

/// What a machine that does much else may take on top. Identify by itself asks again after five minutes only.
const BUSY: Duration = Duration::from_secs(20);

/// Until the store says that the protocols of a peer are others, and have this one, or not. Returns how long that took.
async fn follows(
    rust: &mut Rust,
    js: &mut Js,
    peer: PeerId,
    protocol: &str,
    speaks: bool,
) -> Duration {
    let asked = Instant::now();
    let news = get((&mut *rust, js), |(rust, _)| {
        let news = rust.news().into_iter();
        let mut sets = news.filter_map(|event| match event {
            Event::ProtocolsChanged {
                peer: other,
                protocols,
                ..
            } if other == peer => Some(protocols),
            _ => None,
        });
        sets.find(|set| set.iter().any(|name| name.as_ref() == protocol) == speaks)
    })
    .await;
    assert_eq!(
        names(&news),
        rust.protocols(peer),
        "the book says what the event said"
    );
    let took = asked.elapsed();
    assert!(took < DEBOUNCE + BUSY, "{took:?}");
    took
}

#[tokio::test]
async fn a_protocol_that_js_registers_or_removes_follows_by_its_push() {
    let Some(mut js) = Js::node("Ed25519").await else {
        return;
    };
    let mut rust = rust();
    let said = Said::by(&mut js).await;
    rust.swarm.dial(to(said.id, &said.addresses()[0])).unwrap();
    // It pushes to those only that it has heard speak identify-push.
    let id = rust.id;
    until((&mut rust, &mut js), |(rust, js)| {
        rust.identified(said.id) > 0 && told(js, "identified", id)
    })
    .await;
    rust.news();
    let before = rust.protocols(said.id);
    let mut took = Vec::new();
    for round in 0..2 {
        let late = format!("/late/{round}");
        js.ask("handle", json!({ "protocol": late }));
        took.push(follows(&mut rust, &mut js, said.id, &late, true).await);
        let with = sorted([before.clone(), vec![late.clone()]].concat());
        assert_eq!(rust.protocols(said.id), with);
        assert_eq!(rust.store.peers_supporting(&late), [said.id]);
        js.ask("unhandle", json!({ "protocol": late }));
        took.push(follows(&mut rust, &mut js, said.id, &late, false).await);
        assert_eq!(rust.protocols(said.id), before);
        assert!(rust.store.peers_supporting(&late).is_empty());
    }
    // A machine that is busy now is not so for each of them.
    assert!(took.iter().min() < Some(&(3 * DEBOUNCE)), "{took:?}");
    // The answer, and four pushes.
    until((&mut rust, &mut js), |(rust, _)| {
        rust.identified(said.id) >= 5
    })
    .await;
}

// --- a DHT of both -----------------------------------------------------------------------------------------

/// What one node's Kademlia has made of an address of another.
fn has_from_kademlia(rust: &Rust, peer: PeerId, address: &Multiaddr) -> bool {
    let info = rust.info(peer, address);
    info.is_some_and(|info| info.sources.contains(Sources::KADEMLIA))
}

#[tokio::test]
async fn two_of_us_find_each_other_through_a_js_node() {
    let Some(mut js) = Js::node("Ed25519").await else {
        return;
    };
    let (mut a, mut b) = (rust(), rust());
    let said = Said::by(&mut js).await;
    let (a_address, b_address) = (a.listen().await, b.listen().await);
    let (a_id, b_id) = (a.id, b.id);
    for node in [&mut a, &mut b] {
        node.swarm.dial(to(said.id, &said.addresses()[0])).unwrap();
    }
    until((&mut a, &mut b, &mut js), |(a, b, js)| {
        let met = a.identified(said.id) > 0 && b.identified(said.id) > 0;
        met && told(js, "routed", a_id) && told(js, "routed", b_id)
    })
    .await;
    for (from, target) in [(a_id, b_id), (b_id, a_id)] {
        let mut query = None;
        until((&mut a, &mut b, &mut js), |(a, b, _)| {
            let (searcher, address) = match from == a_id {
                true => (a, &b_address),
                false => (b, &a_address),
            };
            if has_from_kademlia(searcher, target, address) {
                return true;
            }
            // Until its own routing table has the js node, a query ends as it began.
            let kad = &mut *searcher.swarm.behaviour_mut().kad;
            if query.is_none_or(|query| kad.query(&query).is_none()) {
                query = Some(kad.get_closest_peers(target));
            }
            false
        })
        .await;
    }
    // What the store learnt is enough for a dial by the id alone.
    if !a.is_connected(b_id) {
        a.dial(b_id);
    }
    until((&mut a, &mut b, &mut js), |(a, _, _)| a.is_connected(b_id)).await;
}

#[tokio::test]
async fn two_js_nodes_find_each_other_through_us() {
    let (Some(mut one), Some(mut two)) = (Js::node("Ed25519").await, Js::node("secp256k1").await)
    else {
        return;
    };
    let mut rust = rust();
    rust.listen().await;
    let (first, second) = (Said::by(&mut one).await, Said::by(&mut two).await);
    for js in [&first, &second] {
        rust.swarm.dial(to(js.id, &js.addresses()[0])).unwrap();
    }
    let id = rust.id;
    until((&mut rust, &mut one, &mut two), |(rust, one, two)| {
        let met = rust.identified(first.id) > 0 && rust.identified(second.id) > 0;
        met && told(one, "routed", id) && told(two, "routed", id)
    })
    .await;
    first.is_held_by(&rust.store);
    second.is_held_by(&rust.store);
    for (sought, by_first) in [(&second, true), (&first, false)] {
        let js = if by_first { &mut one } else { &mut two };
        let asked = js.ask("find", json!({ "peer": sought.id.to_string() }));
        let found = get((&mut rust, &mut one, &mut two), |(_, one, two)| {
            if by_first {
                one.answer(asked)
            } else {
                two.answer(asked)
            }
        })
        .await;
        let with_its_id = |addresses: Vec<Multiaddr>| {
            let addresses = addresses.into_iter();
            let addresses = addresses.map(|address| address.with_p2p(sought.id).unwrap());
            addresses.collect::<Vec<_>>()
        };
        assert_eq!(
            with_its_id(addresses(&found)),
            with_its_id(sought.addresses())
        );
    }
    // And it leads there.
    let address = with_id(&second.addresses()[0], second.id).to_string();
    let asked = one.ask("dial", json!({ "address": address }));
    get((&mut rust, &mut one, &mut two), |(_, one, _)| {
        one.answer(asked)
    })
    .await;
}

// --- signed records ----------------------------------------------------------------------------------------

#[tokio::test]
async fn a_record_that_js_signed_is_taken_kept_and_handed_on() {
    let (Some(mut author), Some(mut witness), Some(mut third)) = (
        Js::node("Ed25519").await,
        Js::node("Ed25519").await,
        Js::node("Ed25519").await,
    ) else {
        return;
    };
    let said = Said::by(&mut author).await;
    let other = Said::by(&mut witness).await;
    let (id, address) = (
        said.id.to_string(),
        with_id(&other.addresses()[0], other.id).to_string(),
    );
    author.call("dial", json!({ "address": address })).await;
    // One js node told the other by identify; that one's store has it.
    until(&mut witness, |js| told(js, "identified", said.id)).await;
    let seen = witness.call("peer", json!({ "peer": id })).await;
    let record = hex(&seen["record"]);

    let folder = tempfile::tempdir().unwrap();
    let config = Config::default().with_private_hearsay(true);
    let datastore = FsDatastore::open(folder.path()).unwrap();
    let store = PeerStore::open(PeerId::random(), datastore, config)
        .await
        .unwrap();
    let envelope = SignedEnvelope::from_protobuf_encoding(&record).unwrap();
    store.consume_peer_record(envelope).unwrap();
    let known = store.addresses().infos(&said.id).unwrap();
    assert!(known.iter().all(|info| info.is_certified()));
    let known = known.into_iter().map(|info| info.address);
    assert_eq!(sorted(known.collect()), sorted(said.addresses()));
    let kept = store.signed_peer_record(&said.id).unwrap();
    assert_eq!(
        (kept.format, &*kept.envelope),
        (RecordFormat::Interop, &record[..])
    );

    let taken = third
        .call("consume", json!({ "record": to_hex(&kept.envelope) }))
        .await;
    assert_eq!(taken, true);
    let held = third.call("peer", json!({ "peer": id })).await;
    assert_eq!(addresses(&held["addresses"]), said.addresses());

    // js-libp2p 0.30 finds it in the datastore, and the signature sound.
    store.shutdown().await.unwrap();
    let Some(mut js) = Js::store(folder.path()).await else {
        return;
    };
    let peers = js.call("peers", json!({})).await;
    assert_eq!(peers[0]["record"]["raw"], to_hex(&record));
    assert_eq!(peers[0]["record"]["seq"], kept.seq);
    assert_eq!(js.call("signer", json!({ "peer": id })).await, id);
}

/// rust-libp2p signs for another domain than all others, and js-libp2p drops the whole message for it.
#[tokio::test]
async fn js_learns_nothing_of_who_identifies_itself_with_a_record_in_the_format_of_rust() {
    let Some(mut js) = Js::node("Ed25519").await else {
        return;
    };
    let mut rust = rust_with(|key| {
        let version = "/rule/1.0.0".to_owned();
        let config = identify::Config::new_with_signed_peer_record(version, key);
        identify::Behaviour::new(config)
    });
    let said = Said::by(&mut js).await;
    rust.listen().await;
    rust.swarm.dial(to(said.id, &said.addresses()[0])).unwrap();
    until((&mut rust, &mut js), |(rust, _)| {
        rust.identified(said.id) > 0
    })
    .await;
    said.is_held_by(&rust.store);
    let id = rust.id.to_string();
    let asked = js.ask("identify", json!({ "peer": id }));
    let answer = get((&mut rust, &mut js), |(_, js)| js.try_answer(asked)).await;
    let error = answer.unwrap_err();
    assert!(error.contains("signature"), "{error}");
    let asked = js.ask("peer", json!({ "peer": id }));
    let held = get((&mut rust, &mut js), |(_, js)| js.answer(asked)).await;
    assert_eq!(
        (&held["addresses"], &held["agent"]),
        (&json!([]), &json!(null))
    );
    // What streams have shown it, and nothing that was told.
    let protocols = texts(&held["protocols"]);
    assert!(
        !protocols.iter().any(|name| name == "/ipfs/id/push/1.0.0"),
        "{protocols:?}"
    );
}

// --- one datastore for both --------------------------------------------------------------------------------

#[tokio::test]
async fn what_todays_js_stores_of_peers_is_foreign_to_us_and_our_keys_break_its_list() {
    let (Some(mut js), Some(mut other)) = (Js::node("Ed25519").await, Js::node("Ed25519").await)
    else {
        return;
    };
    let (said, peer) = (Said::by(&mut js).await, Said::by(&mut other).await);
    let address = with_id(&peer.addresses()[0], peer.id).to_string();
    js.call("dial", json!({ "address": address })).await;
    until(&mut js, |js| told(js, "identified", peer.id)).await;
    assert_eq!(
        js.call("list", json!({})).await,
        json!([peer.id.to_string()])
    );

    let memory = MemoryDatastore::default();
    let entries = js.call("entries", json!({})).await;
    for entry in entries.as_array().unwrap() {
        memory
            .put(entry[0].as_str().unwrap(), hex(&entry[1]))
            .await
            .unwrap();
    }
    // Its own entry, and the one of the other.
    assert_eq!(memory.len(), 2);
    let store = PeerStore::open(PeerId::random(), memory.clone(), Config::default())
        .await
        .unwrap();
    let report = store.load_report();
    assert_eq!(
        (report.peers, report.foreign, report.undecodable),
        (0, 2, 0)
    );
    store.addresses().add(said.id, said.addresses());
    store.shutdown().await.unwrap();

    let entries = memory.entries();
    let (key, value) = entries
        .iter()
        .find(|(key, _)| key.starts_with("/peers/addrs/"))
        .unwrap();
    js.call("put", json!({ "key": key, "value": to_hex(value) }))
        .await;
    let asked = js.ask("list", json!({}));
    let answer = get(&mut js, |js| js.try_answer(asked)).await;
    let error = answer.unwrap_err();
    assert!(
        error.contains("Unable to decode multibase string"),
        "{error}"
    );
}
