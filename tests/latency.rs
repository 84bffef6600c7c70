//! Latency: a mean that pings move, told when it has moved noticeably.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures::{StreamExt, executor::block_on, future::Either, pin_mut};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, noise, ping, swarm::SwarmEvent, tcp, yamux};
use libp2p_identity::{Keypair, PeerId};
use libp2p_peerstore::{
    Config, Event, ManualClock, MemoryDatastore, Observed, PeerStore, PeerStoreBehaviour, Source,
    Subscription,
};
use libp2p_swarm::{ConnectionId, NetworkBehaviour};
use proptest::prelude::*;

fn peer(n: u8) -> PeerId {
    let key = Keypair::ed25519_from_bytes([n; 32]).unwrap();
    key.public().to_peer_id()
}

fn at(port: u16) -> Multiaddr {
    format!("/ip4/198.51.100.1/tcp/{port}").parse().unwrap()
}

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn config() -> Config {
    Config::default().with_clock(ManualClock::default())
}

/// A store that knows one peer.
fn store() -> PeerStore {
    let store = PeerStore::in_memory(peer(255), config());
    store.addresses().pin(peer(1), [at(1)]);
    store
}

fn pinged(store: &PeerStore, latency: Duration) {
    store.learn(&ping::Event {
        peer: peer(1),
        connection: ConnectionId::new_unchecked(1),
        result: Ok(latency),
    });
}

fn latency(store: &PeerStore) -> Option<Duration> {
    store.get(&peer(1))?.latency
}

/// The latencies that events told.
fn told(events: &mut Subscription) -> Vec<Duration> {
    std::iter::from_fn(|| events.try_next())
        .filter_map(|event| match event {
            Event::LatencyChanged { latency, .. } => Some(latency),
            _ => None,
        })
        .collect()
}

#[test]
fn the_first_ping_is_the_mean_and_each_further_one_weighs_a_tenth() {
    let store = store();
    assert_eq!(latency(&store), None);
    pinged(&store, millis(100));
    assert_eq!(latency(&store), Some(millis(100)));
    pinged(&store, millis(200));
    assert_eq!(latency(&store), Some(millis(110)));
    pinged(&store, millis(10));
    assert_eq!(latency(&store), Some(millis(100)));
}

#[test]
fn a_ping_that_failed_changes_nothing() {
    let store = store();
    pinged(&store, millis(100));
    store.learn(&ping::Event {
        peer: peer(1),
        connection: ConnectionId::new_unchecked(1),
        result: Err(ping::Failure::Timeout),
    });
    assert_eq!(latency(&store), Some(millis(100)));
}

#[test]
fn nothing_is_kept_of_a_peer_that_is_not_known() {
    let store = PeerStore::in_memory(peer(255), config());
    pinged(&store, millis(100));
    store
        .learned(Source::Discovery)
        .latency(peer(255), millis(1));
    assert!(store.is_empty());
}

#[test]
fn a_move_by_more_than_a_quarter_is_told_and_smaller_ones_are_not() {
    let store = store();
    let mut events = store.subscribe();
    pinged(&store, millis(100));
    assert_eq!(told(&mut events), [millis(100)]);
    // Each is noticeable alone, the mean of them is not.
    for n in 0..1_000 {
        pinged(&store, millis(if n % 2 == 0 { 150 } else { 50 }));
    }
    assert_eq!(told(&mut events), []);
    // 100, then 120, then more than a quarter above what was told.
    (0..2).for_each(|_| pinged(&store, millis(300)));
    let told = told(&mut events);
    assert!(told.len() == 1 && told[0] > millis(125), "{told:?}");
}

#[test]
fn jitter_below_a_millisecond_is_never_told() {
    let store = store();
    let mut events = store.subscribe();
    for n in 0..1_000 {
        pinged(
            &store,
            Duration::from_micros(if n % 50 < 25 { 40 } else { 900 }),
        );
    }
    assert_eq!(told(&mut events).len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A reader who knows the events alone is never further off than the rule allows.
    #[test]
    fn events_follow_the_mean(pings in proptest::collection::vec(1u64..10_000_000, 1..60)) {
        let store = store();
        let mut events = store.subscribe();
        let mut known = None;
        for ping in pings {
            pinged(&store, Duration::from_micros(ping));
            known = told(&mut events).pop().or(known);
            let (known, mean) = (known.unwrap(), latency(&store).unwrap());
            let off = known.abs_diff(mean);
            prop_assert!(off <= known / 4 || off < millis(1), "{known:?} {mean:?}");
        }
    }

    #[test]
    fn the_mean_stays_between_the_least_and_the_greatest_ping(
        pings in proptest::collection::vec(1u64..10_000_000, 1..60),
    ) {
        let store = store();
        for ping in &pings {
            pinged(&store, Duration::from_micros(*ping));
        }
        let mean = latency(&store).unwrap().as_micros() as u64;
        let (least, most) = (pings.iter().min().unwrap(), pings.iter().max().unwrap());
        prop_assert!((least..=most).contains(&&mean));
    }
}

#[test]
fn the_mean_survives_a_restart_and_goes_on_without_an_event() {
    let memory = MemoryDatastore::default();
    let open = || block_on(PeerStore::open(peer(255), memory.clone(), config())).unwrap();
    let store = open();
    store.addresses().pin(peer(1), [at(1)]);
    pinged(&store, millis(100));
    block_on(store.shutdown()).unwrap();
    drop(store);
    let store = open();
    assert_eq!(latency(&store), Some(millis(100)));
    let mut events = store.subscribe();
    pinged(&store, millis(200));
    assert_eq!(latency(&store), Some(millis(110)));
    assert_eq!(told(&mut events), []);
    assert_eq!(
        told(&mut store.watch(peer(1))),
        [millis(110)],
        "but a new reader is told"
    );
}

#[test]
fn latency_alone_never_starts_a_commit_and_is_no_reason_to_write_a_peer() {
    let memory = MemoryDatastore::default();
    let clock = ManualClock::default();
    let config = Config::default().with_clock(clock.clone());
    let store = block_on(PeerStore::open(peer(255), memory.clone(), config)).unwrap();
    store.protocols().add(peer(1), ["/a"]);
    block_on(store.flush()).unwrap();
    let keys = memory.len();
    for n in 1..100 {
        pinged(&store, millis(n * n));
    }
    // What a commit waits for at most has long passed.
    clock.advance(Duration::from_secs(3_600));
    assert_eq!(store.unsaved(), 1, "it waits for a commit, and none began");
    block_on(store.shutdown()).unwrap();
    assert_eq!(memory.len(), keys, "no value of addresses for it");
}

// --- real swarms ---------------------------------------------------------------------------------------------

#[derive(NetworkBehaviour)]
struct Behaviour {
    peer_store: PeerStoreBehaviour,
    ping: Observed<ping::Behaviour>,
}

fn swarm(key: Keypair) -> (Swarm<Behaviour>, PeerStore) {
    let store = PeerStore::in_memory(key.public().to_peer_id(), Config::default());
    let behaviour = Behaviour {
        peer_store: PeerStoreBehaviour::new(store.clone()).unwrap(),
        ping: store.observe(ping::Behaviour::new(
            ping::Config::new().with_interval(millis(10)),
        )),
    };
    let swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|_| behaviour)
        .unwrap()
        .with_swarm_config(|c| c.with_idle_connection_timeout(Duration::from_secs(60)))
        .build();
    (swarm, store)
}

#[tokio::test]
async fn pings_of_a_real_swarm_reach_both_stores() {
    let (mut a, of_a) = swarm(Keypair::generate_ed25519());
    let (mut b, of_b) = swarm(Keypair::generate_ed25519());
    b.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = b.select_next_some().await {
            break address;
        }
    };
    let (id_a, id_b) = (*a.local_peer_id(), *b.local_peer_id());
    of_a.addresses().add(id_b, [address]);
    a.dial(id_b).unwrap();
    let known = |store: &PeerStore, peer| store.get(peer).and_then(|peer| peer.latency);
    let run = async {
        while known(&of_a, &id_b).is_none() || known(&of_b, &id_a).is_none() {
            let (next_a, next_b) = (a.next(), b.next());
            pin_mut!(next_a, next_b);
            match futures::future::select(next_a, next_b).await {
                Either::Left(_) | Either::Right(_) => {}
            }
        }
    };
    let timely = tokio::time::timeout(Duration::from_secs(60), run).await;
    timely.expect("both know the latency");
    assert!(known(&of_a, &id_b).unwrap() < Duration::from_secs(10));
}
