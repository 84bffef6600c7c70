//! Questions about many peers: which are found, in which order, and what is copied and asked on the way.

#![allow(clippy::unwrap_used)]

use std::{cmp::Reverse, collections::HashSet, ops::ControlFlow, time::Duration};

use futures::executor::block_on;
use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, multihash::Multihash, transport::PortUse},
    kad::KBucketKey,
    swarm::{
        ConnectionId, FromSwarm, NetworkBehaviour, StreamProtocol, behaviour::ConnectionEstablished,
    },
};
use libp2p_peerstore::{
    AGENT_VERSION, Clock, Config, ManualClock, MemoryDatastore, Order, Peer, PeerStore,
    PeerStoreBehaviour, Source, public_only,
};
use proptest::{collection::vec, option, prelude::*, sample::subsequence};

const MINUTE: Duration = Duration::from_secs(60);

const PROTOCOLS: [&str; 4] = ["/a/1", "/b/1", "/c/1", "/d/1"];
const AGENTS: [&str; 3] = ["kubo/0.30", "kubo/0.31", "rust-libp2p/0.57"];
const TAGS: [&str; 2] = ["friend", "relay"];
const ADDRESSES: [&str; 5] = [
    "/ip4/8.8.8.8/tcp/1",
    "/ip4/8.8.4.4/udp/1/quic-v1",
    "/ip4/10.0.0.1/tcp/1",
    "/ip6/::1/tcp/1",
    "/dns4/example.com/tcp/1/ws",
];

fn peer(n: u32) -> PeerId {
    let mut key = [7; 36];
    key[..4].copy_from_slice(&[0, 36, 8, 1]);
    key[32..].copy_from_slice(&n.to_be_bytes());
    PeerId::from_multihash(Multihash::wrap(0, &key).unwrap()).unwrap()
}

fn at(address: &str) -> Multiaddr {
    address.parse().unwrap()
}

fn clocked() -> (PeerStore, ManualClock) {
    let clock = ManualClock::default();
    let config = Config::default().with_clock(clock.clone());
    (PeerStore::in_memory(peer(u32::MAX), config), clock)
}

fn filled(n: u32) -> PeerStore {
    let (store, _) = clocked();
    for n in 0..n {
        store.addresses().add(peer(n), [at("/ip4/8.8.8.8/tcp/1")]);
    }
    store
}

fn connect(behaviour: &mut PeerStoreBehaviour, n: u32) {
    let endpoint = ConnectedPoint::Dialer {
        address: at(&format!("/ip4/9.9.9.9/tcp/{}", n + 1)),
        role_override: Endpoint::Dialer,
        port_use: PortUse::Reuse,
    };
    behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
        peer_id: peer(n),
        connection_id: ConnectionId::new_unchecked(n as usize),
        endpoint: &endpoint,
        failed_addresses: &[],
        other_established: 0,
    }));
}

/// What is told of one peer.
#[derive(Debug, Clone)]
struct Told {
    protocols: Vec<&'static str>,
    addresses: Vec<&'static str>,
    by_itself: bool,
    agent: Option<&'static str>,
    tags: Vec<&'static str>,
    latency: Option<u64>,
    connected: bool,
    /// How long before the next one.
    minutes: u32,
}

fn told() -> impl Strategy<Value = Told> {
    (
        subsequence(&PROTOCOLS[..], 0..=PROTOCOLS.len()),
        subsequence(&ADDRESSES[..], 0..=ADDRESSES.len()),
        any::<bool>(),
        option::of(proptest::sample::select(&AGENTS[..])),
        subsequence(&TAGS[..], 0..=TAGS.len()),
        option::of(1u64..500),
        prop::bool::weighted(0.2),
        0u32..20,
    )
        .prop_map(
            |(protocols, addresses, by_itself, agent, tags, latency, connected, minutes)| Told {
                protocols,
                addresses,
                by_itself,
                agent,
                tags,
                latency,
                connected,
                minutes,
            },
        )
}

fn tell(store: &PeerStore, behaviour: &mut PeerStoreBehaviour, clock: &ManualClock, all: &[Told]) {
    for (n, told) in (0..).zip(all) {
        let addresses: Vec<Multiaddr> = told.addresses.iter().map(|text| at(text)).collect();
        match told.by_itself {
            true => store.learned(Source::Identify).add(peer(n), &addresses),
            false => store.addresses().add(peer(n), addresses),
        };
        store
            .protocols()
            .add(peer(n), told.protocols.iter().copied());
        if let Some(agent) = told.agent {
            store.metadata().set(peer(n), AGENT_VERSION, agent).unwrap();
        }
        for tag in &told.tags {
            store.tags().set(peer(n), tag, 1, None).unwrap();
        }
        if told.connected {
            connect(behaviour, n);
        }
        if let Some(latency) = told.latency {
            store
                .learned(Source::Discovery)
                .latency(peer(n), Duration::from_millis(latency));
        }
        clock.advance(told.minutes * MINUTE);
    }
}

/// A question, to be asked in two ways.
#[derive(Debug, Clone)]
struct Asked {
    speaks: Vec<Vec<&'static str>>,
    connected: Option<bool>,
    seen_within: Option<Duration>,
    min_confidence: Option<f64>,
    public: bool,
    transport: Option<&'static str>,
    tag: Option<&'static str>,
    agent: Option<&'static str>,
    /// A predicate of the user's.
    even: bool,
    order: Option<Order>,
}

fn asked() -> impl Strategy<Value = Asked> {
    let order = prop_oneof![
        Just(Order::Confidence),
        Just(Order::LastSeen),
        Just(Order::Latency),
        any::<[u8; 4]>().prop_map(Order::distance_to),
    ];
    (
        vec(subsequence(&PROTOCOLS[..], 0..=3), 0..3),
        option::weighted(0.3, any::<bool>()),
        option::weighted(0.3, (0u32..200).prop_map(|n| n * MINUTE)),
        option::weighted(0.3, 0.0..1.0),
        prop::bool::weighted(0.3),
        option::weighted(
            0.2,
            proptest::sample::select(&["tcp", "quic-v1", "ws", "ip6"][..]),
        ),
        option::weighted(0.2, proptest::sample::select(&TAGS[..])),
        option::weighted(
            0.2,
            proptest::sample::select(&["", "kubo/", "kubo/0.31", "js"][..]),
        ),
        prop::bool::weighted(0.3),
        option::weighted(0.7, order),
    )
        .prop_map(
            |(
                speaks,
                connected,
                seen_within,
                min_confidence,
                public,
                transport,
                tag,
                agent,
                even,
                order,
            )| Asked {
                speaks,
                connected,
                seen_within,
                min_confidence,
                public,
                transport,
                tag,
                agent,
                even,
                order,
            },
        )
}

impl Asked {
    fn ask<'a>(&self, store: &'a PeerStore) -> libp2p_peerstore::Query<'a> {
        let mut query = store.query();
        for any in &self.speaks {
            query = query.speaks_any(any.iter().copied());
        }
        if let Some(connected) = self.connected {
            query = query.connected(connected);
        }
        if let Some(within) = self.seen_within {
            query = query.seen_within(within);
        }
        if let Some(confidence) = self.min_confidence {
            query = query.min_confidence(confidence);
        }
        if self.public {
            query = query.with_public_address();
        }
        if let Some(name) = self.transport {
            query = query.transport(name);
        }
        if let Some(tag) = self.tag {
            query = query.tagged(tag);
        }
        if let Some(agent) = self.agent {
            query = query.agent(agent);
        }
        if self.even {
            query = query.matching(|peer| peer.addresses.len().is_multiple_of(2));
        }
        match self.order {
            Some(order) => query.order_by(order),
            None => query,
        }
    }

    /// The same, of a copy.
    fn holds(&self, peer: &Peer, clock: &ManualClock) -> bool {
        let now = clock.started() + clock.elapsed();
        let speaks = |any: &Vec<&str>| any.iter().any(|name| peer.supports(name));
        let has = |name: &str| {
            peer.multiaddrs()
                .any(|addr| addr.iter().any(|part| part.tag() == name))
        };
        self.speaks.iter().all(speaks)
            && self
                .connected
                .is_none_or(|connected| connected == peer.connected)
            && self
                .seen_within
                .is_none_or(|within| now.duration_since(peer.last_seen).unwrap() <= within)
            && self
                .min_confidence
                .is_none_or(|min| peer.confidence().is_some_and(|best| best >= min))
            && (!self.public
                || peer
                    .multiaddrs()
                    .any(|address| public_only(&peer.id, address)))
            && self.transport.is_none_or(has)
            && self.tag.is_none_or(|tag| peer.tags.contains_key(tag))
            && self.agent.is_none_or(|prefix| {
                peer.agent_version()
                    .is_some_and(|name| name.starts_with(prefix))
            })
            && (!self.even || peer.addresses.len().is_multiple_of(2))
    }
}

/// Whether `a` may come before `b`.
fn may_precede(order: Order, key: &[u8; 4], a: &Peer, b: &Peer) -> bool {
    match order {
        Order::Confidence => a.confidence().unwrap_or(-1.0) >= b.confidence().unwrap_or(-1.0),
        Order::LastSeen => a.last_seen >= b.last_seen,
        Order::Latency => {
            let known = |peer: &Peer| (peer.latency.is_none(), peer.latency);
            known(a) <= known(b)
        }
        _ => {
            let key = KBucketKey::new(key.to_vec());
            let distance = |peer: &Peer| key.distance(&KBucketKey::from(peer.id));
            distance(a) <= distance(b)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever is asked, the answer is that of a filter over copies of all peers, in the order that was asked for.
    #[test]
    fn a_question_is_answered_as_by_a_filter_over_all_peers(
        all in vec(told(), 0..150),
        questions in vec(asked(), 1..6),
        (offset, limit) in (0usize..8, 0usize..12),
    ) {
        let (store, clock) = clocked();
        let mut behaviour = PeerStoreBehaviour::new(store.clone()).unwrap();
        tell(&store, &mut behaviour, &clock, &all);
        for asked in questions {
            let expected: HashSet<PeerId> =
                store.peers().iter().filter(|peer| asked.holds(peer, &clock)).map(|peer| peer.id).collect();
            let ids = asked.ask(&store).ids();
            prop_assert_eq!(ids.len(), expected.len());
            prop_assert_eq!(&ids.iter().copied().collect::<HashSet<_>>(), &expected);
            prop_assert_eq!(asked.ask(&store).count(), ids.len());

            let peers = asked.ask(&store).peers();
            prop_assert_eq!(&peers.iter().map(|peer| peer.id).collect::<Vec<_>>(), &ids);
            let mut shown = Vec::new();
            let broken = asked.ask(&store).for_each(|peer| {
                shown.push(peer.id);
                ControlFlow::<()>::Continue(())
            });
            prop_assert_eq!((broken, &shown), (None, &ids));

            let window: Vec<PeerId> = ids.iter().copied().skip(offset).take(limit).collect();
            let cut = || asked.ask(&store).offset(offset).limit(limit);
            prop_assert_eq!(&cut().ids(), &window);
            prop_assert_eq!(&cut().into_iter().map(|peer| peer.id).collect::<Vec<_>>(), &window);
            prop_assert_eq!(cut().count(), window.len());
            prop_assert_eq!(cut().first().map(|peer| peer.id), window.first().copied());
        }
    }

    #[test]
    fn answers_come_in_the_order_that_was_asked_for(all in vec(told(), 2..150), key in any::<[u8; 4]>()) {
        let (store, clock) = clocked();
        let mut behaviour = PeerStoreBehaviour::new(store.clone()).unwrap();
        tell(&store, &mut behaviour, &clock, &all);
        for order in [Order::Confidence, Order::LastSeen, Order::Latency, Order::distance_to(key)] {
            let peers = store.query().order_by(order).peers();
            prop_assert_eq!(peers.len(), store.len());
            for pair in peers.windows(2) {
                prop_assert!(may_precede(order, &key, &pair[0], &pair[1]), "{order:?}: {pair:?}");
            }
        }
    }
}

#[test]
fn the_nearest_of_many_are_those_of_kademlias_metric() {
    let store = filled(5_000);
    let target = KBucketKey::from(peer(123));
    let mut ids = store.peer_ids();
    ids.sort_by_key(|id| target.distance(&KBucketKey::from(*id)));
    let query = || store.query().order_by(Order::distance_to_peer(&peer(123)));
    assert_eq!(query().limit(20).ids(), ids[..20]);
    assert_eq!(query().offset(2_000).limit(20).ids(), ids[2_000..2_020]);
    assert_eq!(query().first().map(|peer| peer.id), Some(peer(123)));
}

#[test]
fn a_protocol_in_more_lists_than_the_index_goes_through_is_found_all_the_same() {
    let store = filled(3_000);
    for n in 0..1_500 {
        store
            .protocols()
            .add(peer(n), ["/a/1".to_owned(), format!("/{n}")]);
    }
    assert_eq!(store.query().speaks("/a/1").count(), 1_500);
    assert_eq!(store.query().speaks("/a/1").speaks("/7").ids(), [peer(7)]);
    assert_eq!(store.query().speaks_any(["/7", "/a/1"]).count(), 1_500);
    let nobody: [&str; 0] = [];
    assert_eq!(store.query().speaks_any(nobody).count(), 0);
}

#[test]
fn a_predicate_may_use_the_store_and_is_asked_no_longer_than_needed() {
    let store = filled(1_000);
    let mut asked = 0;
    let found = store
        .query()
        .order_by(Order::Confidence)
        .matching(|peer| {
            asked += 1;
            store.delete(&peer.id)
        })
        .limit(3)
        .ids();
    assert_eq!((found.len(), asked, store.len()), (3, 3, 997));
}

#[test]
fn who_takes_the_place_of_a_peer_during_the_answer_is_not_taken_for_it() {
    let store = filled(200);
    let mut answers = store
        .query()
        .order_by(Order::distance_to("key"))
        .limit(150)
        .into_iter();
    let first = answers.next().unwrap().id;
    // All others go, and as many others come to where they were.
    for id in store.peer_ids() {
        if id != first {
            store.delete(&id);
        }
    }
    for n in 1_000..1_200 {
        store.addresses().add(peer(n), [at("/ip4/8.8.8.8/tcp/1")]);
    }
    let rest: Vec<u32> = (answers.map(|peer| peer.id))
        .map(|id| (0..200).find(|n| peer(*n) == id).unwrap())
        .collect();
    assert!(rest.len() < 64, "only what was copied before: {rest:?}");
}

#[test]
fn an_answer_ends_although_each_peer_in_it_brings_another() {
    let store = filled(100);
    let mut next = 1_000;
    for found in store.query() {
        store
            .addresses()
            .add(peer(next), found.multiaddrs().cloned());
        next += 1;
    }
    assert_eq!(next, 1_100);
}

#[test]
fn seen_is_what_was_heard_in_this_run_or_what_was_written() {
    let (memory, clock) = (MemoryDatastore::default(), ManualClock::default());
    let open = || {
        let config = Config::default().with_clock(clock.clone());
        block_on(PeerStore::open(peer(u32::MAX), memory.clone(), config)).unwrap()
    };
    let recently = |store: &PeerStore, minutes: u32| {
        let mut ids = store.query().seen_within(minutes * MINUTE).ids();
        ids.sort_by_key(|id| Reverse(*id == peer(1)));
        ids
    };
    let store = open();
    store.protocols().add(peer(1), PROTOCOLS);
    clock.advance(60 * MINUTE);
    store.protocols().add(peer(2), PROTOCOLS);
    assert_eq!(recently(&store, 59), [peer(2)]);
    assert_eq!(recently(&store, 60), [peer(1), peer(2)]);
    // To hear the same again counts.
    store
        .learned(Source::Identify)
        .protocols(peer(1), &PROTOCOLS.map(StreamProtocol::new));
    assert_eq!(recently(&store, 0), [peer(1), peer(2)]);
    block_on(store.shutdown()).unwrap();
    drop(store);
    clock.advance(10 * MINUTE);
    // Loading is not hearing.
    let store = open();
    assert_eq!(recently(&store, 9), []);
    assert!(recently(&store, 10).contains(&peer(2)));
}

#[test]
fn connected_peers_are_seen_now() {
    let (store, clock) = clocked();
    let mut behaviour = PeerStoreBehaviour::new(store.clone()).unwrap();
    connect(&mut behaviour, 1);
    store.protocols().add(peer(2), PROTOCOLS);
    clock.advance(60 * MINUTE);
    assert_eq!(store.query().seen_within(Duration::ZERO).ids(), [peer(1)]);
    assert_eq!(store.query().connected(true).ids(), [peer(1)]);
    assert_eq!(store.query().connected(false).ids(), [peer(2)]);
    assert_eq!(
        store.query().order_by(Order::LastSeen).ids(),
        [peer(1), peer(2)]
    );
}

#[test]
fn what_has_expired_is_no_answer() {
    let (store, clock) = clocked();
    store.addresses().add(peer(1), [at("/ip4/8.8.8.8/tcp/1")]);
    store.addresses().pin(peer(2), [at("/ip4/8.8.8.8/tcp/1")]);
    store
        .tags()
        .set(peer(2), "friend", 1, Some(MINUTE))
        .unwrap();
    assert_eq!(store.query().tagged("friend").count(), 1);
    clock.advance(100 * 24 * 60 * MINUTE);
    assert_eq!(store.query().with_public_address().ids(), [peer(2)]);
    assert_eq!(store.query().tagged("friend").count(), 0);
}
