//! Peers, addresses, events and refusals.

use std::{collections::BTreeMap, num::NonZeroUsize, ops::ControlFlow, time::Duration};

use libp2p::{
    Multiaddr, PeerId,
    core::ConnectedPoint,
    identity::Keypair,
    swarm::{ConnectionId, FromSwarm, NetworkBehaviour, behaviour::ConnectionClosed},
};
use libp2p_peerstore::{PeerStore, PeerStoreBehaviour, Refused, Source, Sources, Standing};
use prometheus_client::registry::Registry;

use crate::{
    Bed, Watch,
    openmetrics::Scrape,
    support::{Recording, addr},
    told::{Gossip, Told, dialled, inbound},
};

const HOUR: Duration = Duration::from_secs(60 * 60);
const NOTHING: [&str; 0] = [];

#[test]
fn a_peer_moves_when_it_comes_changes_and_goes_and_a_repeat_moves_nothing() {
    let mut bed = Bed::in_memory(|config| config);
    let peer = PeerId::random();
    bed.store.addresses().add(peer, [addr(1), addr(2)]);
    assert_eq!(
        bed.moved(),
        [
            "addresses{standing=hearsay} +2",
            "events_total{event=addresses_changed,cause=user} +1",
            "events_total{event=peer_added,cause=user} +1",
            "peers{state=hearsay} +1",
        ]
    );
    bed.store.addresses().add(peer, [addr(1), addr(2)]);
    bed.store.delete(&PeerId::random());
    assert_eq!(bed.moved(), NOTHING);

    bed.store.addresses().pin(peer, [addr(1)]);
    assert_eq!(
        bed.moved(),
        ["peers{state=hearsay} -1", "peers{state=pinned} +1"]
    );
    bed.store.addresses().remove(peer, [addr(2)]);
    assert_eq!(
        bed.moved(),
        [
            "addresses{standing=hearsay} -1",
            "events_total{event=addresses_changed,cause=user} +1",
        ]
    );
    bed.store.delete(&peer);
    assert_eq!(
        bed.moved(),
        [
            "addresses{standing=hearsay} -1",
            "events_total{event=addresses_changed,cause=user} +1",
            "events_total{event=peer_removed,cause=user} +1",
            "peers{state=pinned} -1",
        ]
    );
}

#[test]
fn each_book_counts_its_own_event() {
    let mut bed = Bed::in_memory(|config| config);
    let key = Keypair::generate_ecdsa().public();
    let peer = key.to_peer_id();
    let event = |what: &str| format!("events_total{{event={what},cause=user}} +1");
    bed.store.addresses().add(peer, [addr(1)]);
    bed.moved();

    bed.store.protocols().add(peer, ["/a", "/b"]);
    assert_eq!(bed.moved(), [event("protocols_changed")]);
    bed.store.keys().set(peer, key).unwrap();
    assert_eq!(bed.moved(), [event("public_key_known")]);
    bed.store.metadata().set(peer, "x", "1").unwrap();
    bed.store.metadata().set(peer, "y", "1").unwrap();
    let moved = bed.moved();
    assert!(moved.contains(&event("metadata_changed").replace("+1", "+2")));
    bed.store.tags().set(peer, "friend", 7, None).unwrap();
    assert!(bed.moved().contains(&event("tags_changed")));
    let mut learned = bed.store.learned(Source::Discovery);
    learned.latency(peer, Duration::from_millis(20));
    let cause = "events_total{event=latency_changed,cause=discovery} +1";
    assert_eq!(bed.moved(), [cause]);

    // A peer that is deleted: one event for each book that held something, and one for the peer.
    bed.store.delete(&peer);
    let events: Vec<_> = (bed.moved().into_iter())
        .filter(|moved| moved.starts_with("events"))
        .collect();
    let mut expected = vec![
        event("addresses_changed"),
        event("metadata_changed").replace("+1", "+2"),
        event("peer_removed"),
        event("protocols_changed"),
        event("public_key_known"),
        event("tags_changed"),
    ];
    expected.sort();
    assert_eq!(events, expected);
}

/// What subscribers are told is what is counted.
#[test]
fn events_are_counted_as_a_subscriber_hears_them() {
    let mut bed = Bed::in_memory(|config| config);
    let mut events = bed.store.subscribe();
    let peers: Vec<PeerId> = (0..20).map(|_| PeerId::random()).collect();
    for (n, peer) in peers.iter().enumerate() {
        bed.store.learn(&Gossip(*peer, addr(n as u16)));
        bed.store.learn(&Told(*peer, addr(1)));
        bed.store.protocols().add(*peer, ["/a"]);
        bed.store.metadata().set(*peer, "k", [n as u8]).unwrap();
    }
    bed.store.delete(&peers[0]);
    bed.hand.advance(100 * HOUR);
    bed.store.len();
    let heard = std::iter::from_fn(|| events.try_next()).count();
    assert!(heard > 60, "{heard}");
    assert_eq!(bed.watch.now().sum("events_total"), heard as f64);
}

#[test]
fn a_refusal_moves_its_reason_and_nothing_else() {
    let mut bed = Bed::in_memory(|config| config);
    let peer = PeerId::random();
    bed.store.addresses().pin(peer, [addr(1)]);
    bed.moved();
    let foreign: Multiaddr = addr(1).with_p2p(PeerId::random()).unwrap();
    bed.store.addresses().add(peer, [foreign]);
    assert_eq!(bed.moved(), ["refusals_total{reason=foreign_peer_id} +1"]);
    bed.store.protocols().add(peer, ["no-slash", "neither"]);
    assert_eq!(bed.moved(), ["refusals_total{reason=invalid_protocol} +2"]);
    bed.store.tags().set(peer, "x", 101, None).unwrap_err();
    assert_eq!(
        bed.moved(),
        ["refusals_total{reason=tag_value_out_of_range} +1"]
    );
    let local = bed.store.local_peer_id();
    bed.store.addresses().add(local, [addr(1)]);
    assert_eq!(bed.moved(), ["refusals_total{reason=local_peer} +1"]);
}

#[test]
fn every_reason_has_a_series_of_its_own_which_is_the_counter_of_the_store() {
    let bed = Bed::in_memory(|config| config);
    let refusals = bed.watch.now().values.into_keys();
    let refusals: Vec<_> = refusals.filter(|of| of.name == "refusals_total").collect();
    assert_eq!(refusals.len(), Refused::ALL.len());
    // Named as in JSON, by whichever way they come there.
    for &reason in Refused::ALL {
        let mut name = String::new();
        for c in format!("{reason:?}").chars() {
            if c.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(c.to_ascii_lowercase());
        }
        let is_it =
            |of: &&crate::openmetrics::Series| of.labels == [("reason".into(), name.clone())];
        assert!(refusals.iter().any(|of| is_it(&of)), "{name}");
    }
}

#[test]
fn what_expires_is_gone_from_the_scrape_at_its_instant_without_any_write() {
    let mut bed = Bed::in_memory(|config| config);
    bed.store.learn(&Gossip(PeerId::random(), addr(1)));
    bed.moved();
    let lifetime = libp2p_peerstore::DEFAULT_HEARSAY_LIFETIME;
    bed.hand.clock.advance(lifetime - Duration::from_secs(64));
    assert_eq!(bed.moved(), NOTHING);
    bed.hand.clock.advance(Duration::from_secs(64));
    assert_eq!(
        bed.moved(),
        [
            "addresses{standing=hearsay} -1",
            "events_total{event=peer_removed,cause=expired} +1",
            "peers{state=hearsay} -1",
        ]
    );
}

#[test]
fn who_makes_room_is_evicted_and_whom_there_is_no_room_for_is_refused() {
    let mut bed = Bed::in_memory(|config| config.with_max_peers(NonZeroUsize::MIN));
    assert_eq!(bed.watch.last.get("max_peers"), 1.0);
    bed.store.learn(&Gossip(PeerId::random(), addr(1)));
    bed.moved();
    bed.store.addresses().pin(PeerId::random(), [addr(2)]);
    assert_eq!(
        bed.moved(),
        [
            "events_total{event=addresses_changed,cause=user} +1",
            "events_total{event=peer_added,cause=user} +1",
            "events_total{event=peer_removed,cause=evicted} +1",
            "peers{state=hearsay} -1",
            "peers{state=pinned} +1",
        ]
    );
    bed.store.learn(&Gossip(PeerId::random(), addr(3)));
    assert_eq!(bed.moved(), ["refusals_total{reason=store_full} +1"]);
}

fn closed(behaviour: &mut PeerStoreBehaviour, peer: PeerId, endpoint: &ConnectedPoint) {
    behaviour.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
        peer_id: peer,
        connection_id: ConnectionId::new_unchecked(1),
        endpoint,
        cause: None,
        remaining_established: 0,
    }));
}

#[test]
fn an_address_is_proven_by_a_dial_and_told_again_when_the_proof_is_too_old() {
    let mut bed = Bed::in_memory(|config| config.with_self_told_lifetime(20 * 24 * HOUR));
    let mut behaviour = PeerStoreBehaviour::new(bed.store.clone()).unwrap();
    let peer = PeerId::random();
    bed.store.learn(&Told(peer, addr(1)));
    assert_eq!(
        bed.moved(),
        [
            "addresses{standing=self_told} +1",
            "events_total{event=addresses_changed,cause=identify} +1",
            "events_total{event=peer_added,cause=identify} +1",
            "peers{state=self_told} +1",
        ]
    );
    dialled(&mut behaviour, peer, &addr(1));
    assert_eq!(
        bed.moved(),
        [
            "addresses{standing=proven} +1",
            "addresses{standing=self_told} -1",
            "connected_peers +1",
            "peers{state=connected} +1",
            "peers{state=self_told} -1",
        ]
    );
    let endpoint = ConnectedPoint::Dialer {
        address: addr(1),
        role_override: libp2p::core::Endpoint::Dialer,
        port_use: libp2p::core::transport::PortUse::Reuse,
    };
    closed(&mut behaviour, peer, &endpoint);
    assert_eq!(
        bed.moved(),
        [
            "connected_peers -1",
            "peers{state=connected} -1",
            "peers{state=proven} +1",
        ]
    );
    bed.hand
        .clock
        .advance(libp2p_peerstore::DEFAULT_PROVEN_LIFETIME);
    assert_eq!(
        bed.moved(),
        [
            "addresses{standing=proven} -1",
            "addresses{standing=self_told} +1",
            "peers{state=proven} -1",
            "peers{state=self_told} +1",
        ]
    );
}

#[test]
fn who_connects_is_connected_and_then_seen_inbound_only() {
    let mut bed = Bed::in_memory(|config| config);
    let mut behaviour = PeerStoreBehaviour::new(bed.store.clone()).unwrap();
    let peer = PeerId::random();
    inbound(&mut behaviour, peer, &addr(9));
    assert_eq!(
        bed.moved(),
        [
            "addresses{standing=inbound} +1",
            "connected_peers +1",
            "events_total{event=addresses_changed,cause=inbound} +1",
            "events_total{event=peer_added,cause=inbound} +1",
            "peers{state=connected} +1",
        ]
    );
    drop(behaviour);
    assert_eq!(
        bed.moved(),
        [
            "connected_peers -1",
            "peers{state=connected} -1",
            "peers{state=inbound} +1",
        ]
    );
}

/// The counts are kept when something changes; what the store answers is worked out when it is asked.
#[test]
fn after_any_run_the_counts_are_what_a_walk_over_all_peers_finds() {
    for seed in 0..4 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bed = Bed::new(Recording::default(), |config| {
            config.with_max_peers(16.try_into().unwrap())
        });
        let mut behaviour = PeerStoreBehaviour::new(bed.store.clone()).unwrap();
        let peers: Vec<PeerId> = (0..24).map(|_| PeerId::random()).collect();
        for _ in 0..300 {
            let (peer, at) = (*random.choice(&peers).unwrap(), addr(random.u16(1..6)));
            match random.u8(0..12) {
                0 | 1 => bed.store.learn(&Gossip(peer, at)),
                2 | 3 => bed.store.learn(&Told(peer, at)),
                4 => dialled(&mut behaviour, peer, &at),
                5 => inbound(&mut behaviour, peer, &at),
                6 => crate::told::dial_failed(&mut behaviour, peer, &at),
                7 => closed(
                    &mut behaviour,
                    peer,
                    &ConnectedPoint::Dialer {
                        address: at,
                        role_override: libp2p::core::Endpoint::Dialer,
                        port_use: libp2p::core::transport::PortUse::Reuse,
                    },
                ),
                8 => drop(bed.store.addresses().pin(peer, [at])),
                9 => drop(bed.store.delete(&peer)),
                10 => bed.hand.advance(HOUR * random.u32(0..40)),
                _ => drop(bed.store.addresses().set(peer, [at, addr(7)])),
            }
            check_against_a_walk(&bed, seed);
        }
        bed.hand.advance(1_000 * 24 * HOUR);
        check_against_a_walk(&bed, seed);
    }
}

fn check_against_a_walk(bed: &Bed, seed: u64) {
    let now = bed.watch.now();
    let (mut standings, mut peers) = (BTreeMap::new(), 0.0);
    bed.store.for_each(|peer| {
        peers += 1.0;
        for info in bed.store.addresses().infos(&peer.id).unwrap_or_default() {
            // Whose own word is over counts as self-told until it is forgotten.
            let own = Sources::IDENTIFY | Sources::CERTIFIED;
            let standing = match info.standing {
                Standing::Hearsay if info.sources.intersects(own) => Standing::SelfTold,
                standing => standing,
            };
            *standings.entry(standing).or_insert(0.0) += 1.0;
        }
        ControlFlow::<()>::Continue(())
    });
    assert_eq!(now.sum("peers"), peers, "seed {seed}");
    for (standing, name) in [
        (Standing::Inbound, "inbound"),
        (Standing::Hearsay, "hearsay"),
        (Standing::SelfTold, "self_told"),
        (Standing::Proven, "proven"),
    ] {
        let expected = standings.get(&standing).copied().unwrap_or_default();
        let told = now.get(&format!("addresses{{standing={name}}}"));
        assert_eq!(told, expected, "{name}, seed {seed}");
    }
    let connected = bed.store.connected_peers().len();
    assert_eq!(now.get("connected_peers"), connected as f64);
}

#[test]
fn what_a_slow_subscriber_loses_is_counted_once_for_each_that_loses_it() {
    let mut bed = Bed::in_memory(|config| config.with_event_capacity(4.try_into().unwrap()));
    let mut slow = [bed.store.subscribe(), bed.store.subscribe()];
    let touch = |store: &PeerStore| {
        store.addresses().add(PeerId::random(), [addr(1)]);
    };
    (0..2).for_each(|_| touch(&bed.store));
    assert!(!bed.moved().iter().any(|moved| moved.starts_with("missed")));
    (0..20).for_each(|_| touch(&bed.store));
    let mut lost = 0;
    for subscription in &mut slow {
        while let Some(event) = subscription.try_next() {
            if let libp2p_peerstore::Event::Lagged(missed) = event {
                lost += missed;
            }
        }
    }
    assert!(lost >= 2 * 36, "{lost}");
    assert_eq!(bed.watch.now().get("missed_events_total"), lost as f64);
}

#[test]
fn counters_begin_with_the_store_and_any_number_of_registries_tell_the_same() {
    let bed = Bed::in_memory(|config| config);
    bed.store.learn(&Gossip(PeerId::random(), addr(1)));
    let late = Watch::new(&bed.store);
    assert_eq!(late.now(), bed.watch.now());
    assert_eq!(late.now().get("peers{state=hearsay}"), 1.0);

    // Two stores in one registry are told apart by its labels.
    let mut registry = Registry::default();
    let other = Bed::in_memory(|config| config);
    for (name, store) in [("a", &bed.store), ("b", &other.store)] {
        let mut labels = [("store".into(), name.into())].into_iter();
        let labelled = registry.sub_registry_with_labels(labels.by_ref());
        store.register_metrics(labelled.sub_registry_with_prefix("p2p"));
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for (store, peers) in [("a", 1), ("b", 0)] {
        let line = format!("p2p_peers{{store=\"{store}\",state=\"hearsay\"}} {peers}\n");
        assert!(text.contains(&line), "{text}");
    }
}

#[test]
fn a_registry_keeps_no_store_alive_and_tells_nothing_of_one_that_is_gone() {
    let mut bed = Bed::new(Recording::default(), |config| config);
    let Bed { store, watch, .. } = bed;
    drop(store);
    bed.hand.settle();
    assert_eq!(Scrape::of(&watch.registry), Scrape::default());
}

#[test]
fn whatever_strangers_say_no_series_comes_or_goes_and_nothing_of_it_is_told() {
    let mut bed = Bed::in_memory(|config| config);
    let series = |scrape: Scrape| scrape.values.into_keys().collect::<Vec<_>>();
    let before = series(bed.watch.now());
    let evil = "evil\"} 1\nevil{a=\"\\";
    let at: Multiaddr = "/dns4/evil-name.example/tcp/1".parse().unwrap();
    for n in 0..50 {
        let peer = PeerId::random();
        let mut learned = bed.store.learned(Source::Identify);
        learned.replace(peer, &[at.clone(), addr(n)]);
        let protocol = libp2p::StreamProtocol::try_from_owned(format!("/{evil}{n}")).unwrap();
        learned.protocols(peer, &[protocol]);
        learned.metadata(peer, libp2p_peerstore::AGENT_VERSION, evil.as_bytes());
        bed.store.metadata().set(peer, evil, evil).unwrap();
        bed.store.tags().set(peer, evil, 1, None).unwrap();
    }
    assert!(bed.moved().len() > 4);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &bed.watch.registry).unwrap();
    assert!(!text.contains("evil"), "{text}");
    assert_eq!(series(Scrape::parse(&text)), before);
}
