//! Nobody takes the store over: neither by inventing peers, nor with many connections from few networks.

#![allow(clippy::unwrap_used)]

#[path = "eclipse/dials.rs"]
mod dials;
#[path = "eclipse/records.rs"]
mod records;
#[path = "eclipse/restart.rs"]
mod restart;

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use libp2p_core::{ConnectedPoint, Endpoint, Multiaddr, multiaddr::Protocol, transport::PortUse};
use libp2p_identity::PeerId;
use libp2p_peerstore::{
    Config, ManualClock, PeerStore, PeerStoreBehaviour, Refused, Source, Standing, dialable_only,
    public_only,
};
use libp2p_swarm::{
    ConnectionClosed, ConnectionId, FromSwarm, NetworkBehaviour, behaviour::ConnectionEstablished,
};

const CAPACITY: usize = 1_000;
const PROVEN: usize = 100;

/// A store and the swarm that feeds it, played by the test.
struct Node {
    store: PeerStore,
    behaviour: PeerStoreBehaviour,
    connections: usize,
    ports: u16,
}

impl Node {
    fn new() -> Self {
        Self::with(|config| config.with_max_peers(size(CAPACITY)))
    }

    fn with(config: impl FnOnce(Config) -> Config) -> Self {
        let config = config(Config::default().with_clock(ManualClock::default()));
        Self::of(PeerStore::in_memory(PeerId::random(), config))
    }

    fn of(store: PeerStore) -> Self {
        Self {
            behaviour: PeerStoreBehaviour::new(store.clone()).unwrap(),
            store,
            connections: 0,
            ports: 0,
        }
    }

    /// A node that knows a hundred peers by dialling them, in as many groups.
    fn with_friends() -> (Self, Vec<PeerId>) {
        Self::with_friends_and(CAPACITY, PROVEN)
    }

    fn with_friends_and(capacity: usize, proven: usize) -> (Self, Vec<PeerId>) {
        let mut node = Self::with(|config| config.with_max_peers(size(capacity)));
        let friends = (0..proven).map(|n| {
            let friend = PeerId::random();
            node.prove(friend, &ip(5 + (n / 256) as u8, (n % 256) as u8));
            friend
        });
        let friends = friends.collect();
        (node, friends)
    }

    fn id(&mut self) -> ConnectionId {
        self.connections += 1;
        ConnectionId::new_unchecked(self.connections)
    }

    fn established(&mut self, peer_id: PeerId, endpoint: &ConnectedPoint) {
        let connection_id = self.id();
        self.behaviour
            .on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                failed_addresses: &[],
                other_established: 0,
            }));
    }

    fn closed(&mut self, peer_id: PeerId, endpoint: &ConnectedPoint) {
        let connection_id = self.id();
        self.behaviour
            .on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                endpoint,
                cause: None,
                remaining_established: 0,
            }));
    }

    fn prove(&mut self, peer: PeerId, address: &Multiaddr) {
        let endpoint = dialler(address);
        self.established(peer, &endpoint);
        self.closed(peer, &endpoint);
    }

    /// A peer connects from `from`, and says by identify that it is at `told`.
    fn identify(&mut self, peer: PeerId, from: &Multiaddr, told: &[Multiaddr], stays: bool) {
        let endpoint = listener(from);
        self.established(peer, &endpoint);
        self.store.learned(Source::Identify).replace(peer, told);
        if !stays {
            self.closed(peer, &endpoint);
        }
    }

    fn gossip(&self, peer: PeerId, told: &[Multiaddr]) -> usize {
        self.store.learned(Source::Kademlia).add(peer, told).refused
    }

    fn count(&self, standing: Standing) -> usize {
        let best = |peer: &libp2p_peerstore::Peer| {
            let infos = peer.addresses.iter();
            infos.map(|info| info.standing).max()
        };
        self.store.filter(|peer| best(peer) == Some(standing)).len()
    }

    fn port(&mut self) -> u16 {
        self.ports = self.ports % 60_000 + 1;
        self.ports
    }
}

fn size(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

fn at(address: &str) -> Multiaddr {
    address.parse().unwrap()
}

/// An address in the /16 `a.b`.
fn ip(a: u8, b: u8) -> Multiaddr {
    at(&format!("/ip4/{a}.{b}.1.1/tcp/4001"))
}

/// One of 2^32 addresses, in `groups` groups that are spread over the public networks.
fn spread(n: u32, groups: u32) -> Multiaddr {
    let group = n % groups;
    let (a, b) = (20 + group / 256 % 60, group % 256);
    let (c, d) = (n / groups / 250 % 250, n / groups % 250 + 1);
    // More groups than these networks have: the rest is IPv6.
    if group >= 60 * 256 {
        return at(&format!("/ip6/2a01:{group:x}:{c:x}:{d:x}::1/tcp/4001"));
    }
    at(&format!("/ip4/{a}.{b}.{c}.{d}/tcp/4001"))
}

fn dialler(address: &Multiaddr) -> ConnectedPoint {
    ConnectedPoint::Dialer {
        address: address.clone(),
        role_override: Endpoint::Dialer,
        port_use: PortUse::Reuse,
    }
}

fn listener(from: &Multiaddr) -> ConnectedPoint {
    ConnectedPoint::Listener {
        local_addr: at("/ip4/8.8.8.8/tcp/4001"),
        send_back_addr: from.clone(),
    }
}

// --- floods ------------------------------------------------------------------------------------------------

/// How much a flood is made of.
#[derive(Clone, Copy)]
struct Scale {
    capacity: usize,
    proven: usize,
    arrivals: u32,
}

/// What fits into an ordinary run of the tests.
const SMALL: Scale = Scale {
    capacity: CAPACITY,
    proven: PROVEN,
    arrivals: 30_000,
};

const FULL: Scale = Scale {
    capacity: 10_000,
    proven: 1_000,
    arrivals: 1_000_000,
};

fn flood_of_hearsay(scale: Scale) {
    // A single group is that of an honest peer.
    for groups in [4, 200, 65_536, 1] {
        let (mut node, friends) = Node::with_friends_and(scale.capacity, scale.proven);
        let newcomer = PeerId::random();
        for n in 0..scale.arrivals {
            if n == scale.arrivals / 2 {
                node.identify(newcomer, &ip(5, 0), &[ip(5, 0)], false);
            }
            let told = match groups {
                1 => at(&format!("/ip4/5.0.{}.{}/tcp/1", n / 250 % 250, n % 250)),
                groups => spread(n, groups),
            };
            node.gossip(PeerId::random(), &[told]);
        }
        let store = &node.store;
        assert!(friends.iter().all(|f| store.contains(f)), "{groups} groups");
        assert!(store.contains(&newcomer), "{groups} groups");
        let (hearsay, most) = (node.count(Standing::Hearsay), scale.capacity * 2 / 5);
        assert!(hearsay <= most, "{groups} groups: {hearsay}");
        assert!(hearsay > most / 2, "{groups} groups: {hearsay}");
    }
}

fn flood_of_identify(scale: Scale, groups: u32, stays: bool) {
    let (mut node, friends) = Node::with_friends_and(scale.capacity, scale.proven);
    let newcomer = PeerId::random();
    let mut sources = HashMap::new();
    for n in 0..scale.arrivals {
        if n == scale.arrivals / 2 {
            node.identify(newcomer, &ip(9, 201), &[ip(9, 201)], false);
        }
        let (peer, from) = (PeerId::random(), spread(n % groups, groups));
        // What it claims is invented, and costs nothing.
        let told = spread(n.wrapping_mul(2_654_435_761), 15_000);
        node.identify(peer, &from, &[told], stays);
        // A share that is used up refuses nobody.
        assert!(node.store.contains(&peer));
        sources.insert(peer, n % groups);
    }
    let store = &node.store;
    let case = format!("{groups} groups, stays: {stays}");
    assert!(friends.iter().all(|f| store.contains(f)), "{case}");
    assert!(store.contains(&newcomer), "{case}");
    assert!(store.len() <= scale.capacity);
    let mut held: HashMap<u32, usize> = HashMap::new();
    for peer in store.peer_ids() {
        if let Some(group) = sources.get(&peer) {
            *held.entry(*group).or_default() += 1;
        }
    }
    let most = held.values().max().copied().unwrap_or_default();
    assert!(most <= scale.capacity / 32, "{case}: {most}");
}

#[test]
fn a_flood_of_hearsay_holds_two_fifths_and_displaces_nobody_of_value() {
    flood_of_hearsay(SMALL);
}

#[test]
fn a_flood_of_identify_holds_a_share_for_each_network_from_which_it_comes() {
    for stays in [false, true] {
        flood_of_identify(SMALL, 1, stays);
        flood_of_identify(SMALL, 50, stays);
        // With more networks than places each has one peer at most, and nobody is in a crowd.
        let scale = Scale {
            capacity: 10_000,
            ..SMALL
        };
        flood_of_identify(scale, 2_000, stays);
    }
}

#[test]
#[ignore = "ten floods of a million: minutes, and only with optimisations"]
fn floods_of_a_million_into_ten_thousand_places() {
    flood_of_hearsay(FULL);
    for stays in [false, true] {
        for groups in [1, 50, 2_000] {
            flood_of_identify(FULL, groups, stays);
        }
    }
}

#[test]
fn connections_that_came_in_are_protected_up_to_a_quarter() {
    let (mut node, friends) = Node::with_friends();
    for n in 0..20_000 {
        node.identify(
            PeerId::random(),
            &spread(n, 5_000),
            &[spread(n, 5_000)],
            true,
        );
    }
    let newcomers: Vec<PeerId> = (0..100).map(|_| PeerId::random()).collect();
    for (n, newcomer) in newcomers.iter().enumerate() {
        node.identify(*newcomer, &ip(10 + 1, n as u8), &[ip(11, n as u8)], false);
    }
    assert!(friends.iter().all(|friend| node.store.contains(friend)));
    let held = newcomers.iter().filter(|n| node.store.contains(n)).count();
    assert!(held >= 90, "{held} of the newcomers");
}

#[test]
fn through_a_relay_the_relay_counts() {
    let (mut node, _) = Node::with_friends();
    let relay = PeerId::random();
    let through = at("/ip4/9.9.9.9/tcp/1")
        .with(Protocol::P2p(relay))
        .with(Protocol::P2pCircuit);
    let mut all = Vec::new();
    for n in 0..5_000 {
        // Fills the store, so that shares bind.
        node.identify(
            PeerId::random(),
            &spread(n, 5_000),
            &[spread(n, 5_000)],
            false,
        );
        let peer = PeerId::random();
        let endpoint = ConnectedPoint::Listener {
            local_addr: through.clone(),
            send_back_addr: Protocol::P2p(peer).into(),
        };
        node.established(peer, &endpoint);
        let told = [spread(n, 15_000)];
        node.store.learned(Source::Identify).replace(peer, &told);
        node.closed(peer, &endpoint);
        all.push(peer);
    }
    let held = all.iter().filter(|peer| node.store.contains(peer)).count();
    assert!((1..=CAPACITY / 32).contains(&held), "{held}");
}

#[test]
fn a_crowd_of_proven_peers_makes_room_for_other_groups_beyond_a_sixteenth() {
    let mut node = Node::new();
    let crowd: Vec<PeerId> = (0..CAPACITY).map(|_| PeerId::random()).collect();
    for (n, peer) in crowd.iter().enumerate() {
        let address = at(&format!("/ip4/7.7.{}.{}/tcp/1", n / 250, n % 250));
        node.prove(*peer, &address);
    }
    assert_eq!(node.store.len(), CAPACITY, "nobody else wants the room");
    let share = CAPACITY / 16;
    let held = |node: &Node| {
        let crowd = crowd.iter();
        crowd.filter(|peer| node.store.contains(peer)).count()
    };
    // They tell of themselves without a connection that is known: one would protect them.
    let tell = |node: &Node, peer: PeerId, told: Multiaddr| {
        node.store.learned(Source::Identify).replace(peer, &[told]);
        node.store.contains(&peer)
    };
    for n in 0..2_000 {
        let (peer, told) = (PeerId::random(), spread(n, 5_000));
        // Hearsay displaces nobody who is proven, and neither do others of the crowd.
        node.gossip(PeerId::random(), std::slice::from_ref(&told));
        assert!(!tell(&node, PeerId::random(), ip(7, 7)));
        // Whoever is elsewhere finds room as long as the crowd has more than its share.
        let beyond = held(&node) > share;
        assert_eq!(tell(&node, peer, told.clone()), beyond);
        if beyond {
            node.prove(peer, &told);
        }
    }
    assert_eq!(held(&node), share);
    assert_eq!(node.count(Standing::Proven), CAPACITY);
}

#[test]
fn names_hold_two_hundredths_by_hearsay() {
    let (node, _) = Node::with_friends();
    for n in 0..20_000 {
        node.gossip(PeerId::random(), &[spread(n, 15_000)]);
        let name = format!("/dns4/a{n}.victim{}.example/tcp/1", n % 7);
        node.gossip(PeerId::random(), &[at(&name)]);
    }
    let is_name = |peer: &libp2p_peerstore::Peer| {
        let address = &peer.addresses[0].address;
        matches!(address.iter().next(), Some(Protocol::Dns4(_)))
    };
    let names = node.store.filter(is_name).len();
    assert!((1..=CAPACITY / 50).contains(&names), "{names}");
}

#[test]
fn strangers_tell_two_names_of_a_peer_and_no_dnsaddr() {
    let node = Node::new();
    let name = |n: u16| at(&format!("/dns4/a.example/tcp/{n}"));
    let relay = PeerId::random();
    let through = at(&format!("/dns/b.example/tcp/1/p2p/{relay}/p2p-circuit"));
    let list = at("/dnsaddr/example.com");
    let peer = PeerId::random();
    // In one breath or one after the other, whoever of them tells it; addresses without a name are free.
    let told = [
        ip(60, 1),
        name(1),
        list.clone(),
        through.clone(),
        name(2),
        ip(60, 2),
    ];
    assert_eq!(node.gossip(peer, &told), 2);
    for source in [Source::Kademlia, Source::Rendezvous, Source::Discovery] {
        let told = [name(1), name(3), list.clone()];
        assert_eq!(node.store.learned(source).add(peer, &told).refused, 2);
    }
    assert_eq!(node.store.refusals().get(Refused::TooManyNames), 4);
    assert_eq!(node.store.refusals().get(Refused::DnsaddrByHearsay), 4);
    let known = node.store.addresses().get(&peer).unwrap();
    assert_eq!(known.len(), 4);
    assert!(known.contains(&through));

    // Those who are no strangers can tell more, and what they tell does not count.
    let (own, mdns) = (PeerId::random(), PeerId::random());
    let names: Vec<_> = (1..=5).map(name).chain([list.clone()]).collect();
    assert_eq!(
        node.store
            .learned(Source::Identify)
            .replace(own, &names)
            .refused,
        0
    );
    assert_eq!(
        node.store.learned(Source::Mdns).add(mdns, &names).refused,
        0
    );
    assert_eq!(
        node.store.addresses().add(PeerId::random(), names).refused,
        0
    );
    assert_eq!(node.gossip(own, &[name(6), name(7), name(8), name(1)]), 1);
}

#[test]
fn how_many_names_strangers_may_tell_is_the_users_to_say() {
    let node = Node::with(|config| config.with_max_hearsay_names(0));
    assert_eq!(
        node.gossip(PeerId::random(), &[at("/dns/a.example/tcp/1")]),
        1
    );
}

#[test]
fn a_store_that_is_not_full_limits_nothing() {
    let mut node = Node::new();
    for n in 0..CAPACITY as u32 / 2 {
        node.gossip(PeerId::random(), &[spread(n, 1)]);
    }
    for n in 0..CAPACITY as u32 / 2 {
        let port = node.port();
        let from = at(&format!("/ip4/9.9.9.9/tcp/{port}"));
        node.identify(PeerId::random(), &from, &[spread(n, 1)], false);
    }
    assert_eq!(node.store.len(), CAPACITY);
    assert_eq!(node.store.refusals().total(), 0);
}

#[test]
fn private_networks_have_no_shares() {
    let mut node = Node::new();
    for n in 0..CAPACITY as u32 * 2 {
        let address = at(&format!("/ip4/10.0.{}.{}/tcp/1", n / 250, n % 250));
        node.identify(
            PeerId::random(),
            &address,
            std::slice::from_ref(&address),
            false,
        );
    }
    assert_eq!(node.store.len(), CAPACITY);
    assert_eq!(node.store.refusals().total(), 0);
}

// --- claims ------------------------------------------------------------------------------------------------

#[test]
fn eight_strangers_are_said_to_be_at_one_ip_address_whatever_the_port() {
    for victim in ["/ip4/9.9.9.9", "/ip6/2a01:4f8:1:2::9"] {
        let mut node = Node::new();
        let mut refused = 0;
        for _ in 0..100 {
            let port = node.port();
            refused += node.gossip(PeerId::random(), &[at(&format!("{victim}/tcp/{port}"))]);
        }
        assert_eq!((node.store.len(), refused), (8, 92), "{victim}");
        assert_eq!(node.store.refusals().get(Refused::TooManyClaims), 92);
        // Another port of one that is there is not another claim.
        let known = node.store.peer_ids()[0];
        assert_eq!(node.gossip(known, &[at(&format!("{victim}/tcp/9"))]), 0);
    }
}

#[test]
fn who_is_really_there_displaces_a_stranger_and_does_not_count() {
    let mut node = Node::new();
    let strangers: Vec<PeerId> = (0..8).map(|_| PeerId::random()).collect();
    for stranger in &strangers {
        let port = node.port();
        node.gossip(*stranger, &[at(&format!("/ip4/9.9.9.9/tcp/{port}"))]);
    }
    let left = |node: &Node| strangers.iter().filter(|s| node.store.contains(s)).count();
    let here = at("/ip4/9.9.9.9/tcp/4001");
    node.prove(PeerId::random(), &here);
    assert_eq!((node.store.len(), left(&node)), (8, 7));
    // Whoever only says that it is there, from elsewhere, displaces nobody.
    node.gossip(PeerId::random(), &[at("/ip4/9.9.9.9/tcp/77")]);
    node.identify(
        PeerId::random(),
        &ip(20, 1),
        std::slice::from_ref(&here),
        false,
    );
    assert_eq!(left(&node), 7);
    for _ in 0..20 {
        node.identify(
            PeerId::random(),
            &at("/ip4/9.9.9.9/tcp/50000"),
            std::slice::from_ref(&here),
            false,
        );
    }
    assert!(left(&node) < 8);
    assert_eq!(node.store.refusals().total(), 0);
}

#[test]
fn a_claim_ends_with_its_address() {
    let node = Node::new();
    let address = at("/ip4/9.9.9.9/tcp/1");
    for _ in 0..50 {
        let peer = PeerId::random();
        assert_eq!(node.gossip(peer, std::slice::from_ref(&address)), 0);
        node.store.delete(&peer);
        let peer = PeerId::random();
        assert_eq!(node.gossip(peer, &[address.clone(), ip(20, 2)]), 0);
        node.store.addresses().remove(peer, [address.clone()]);
        node.store.delete(&peer);
    }
    assert_eq!(node.store.refusals().total(), 0);
}

// --- scope -------------------------------------------------------------------------------------------------

const NEAR: [&str; 4] = [
    "/ip4/127.0.0.1/tcp/80",
    "/ip4/192.168.1.1/tcp/80",
    "/ip4/169.254.169.254/tcp/80",
    "/ip6/fe80::1/tcp/80",
];

#[test]
fn nobody_from_afar_tells_addresses_of_this_machine_or_its_networks() {
    let mut node = Node::new();
    let far = ip(20, 1);
    let near = NEAR.map(at);
    let peer = PeerId::random();
    node.identify(peer, &far, &near, true);
    assert_eq!(node.store.refusals().get(Refused::OutOfScope), 4);
    assert_eq!(node.gossip(PeerId::random(), &near), 4);
    assert!(
        node.store
            .filter(|p| p.addresses.iter().any(|a| near.contains(&a.address)))
            .is_empty()
    );
    // The neighbour on the local network tells of it, but not of this machine.
    let neighbour = PeerId::random();
    node.identify(neighbour, &at("/ip4/192.168.1.7/tcp/1"), &near, true);
    assert_eq!(node.store.addresses().get(&neighbour).unwrap().len(), 3);
    // A process on this machine tells of all.
    let here = PeerId::random();
    node.identify(here, &at("/ip4/127.0.0.1/tcp/50000"), &near, true);
    assert_eq!(node.store.addresses().get(&here).unwrap().len(), 4);
    // So do mDNS and the application, and what was dialled was the application's wish.
    let mut mdns = node.store.learned(Source::Mdns);
    assert_eq!(mdns.add(PeerId::random(), &near).refused, 0);
    assert_eq!(
        node.store.addresses().add(PeerId::random(), near).refused,
        0
    );
    node.prove(PeerId::random(), &at("/ip4/127.0.0.1/tcp/9"));
}

#[test]
fn hearsay_tells_local_addresses_while_all_connections_are_local() {
    let mut node = Node::new();
    let near = NEAR.map(at);
    // Before the first connection.
    assert_eq!(node.gossip(PeerId::random(), &near), 0);
    let (here, there) = (dialler(&at("/ip4/127.0.0.1/tcp/1")), dialler(&ip(20, 1)));
    let (one, other) = (PeerId::random(), PeerId::random());
    node.established(one, &here);
    assert_eq!(node.gossip(PeerId::random(), &near), 0);
    node.established(other, &there);
    assert_eq!(node.gossip(PeerId::random(), &near), 4);
    node.closed(other, &there);
    assert_eq!(node.gossip(PeerId::random(), &near), 0);
    // Or by configuration.
    let mut node = Node::with(|config| config.with_private_hearsay(true));
    node.established(other, &there);
    assert_eq!(node.gossip(PeerId::random(), &near), 0);
}

#[test]
fn what_is_known_from_the_local_network_stays_when_the_peer_repeats_it_from_afar() {
    let mut node = Node::new();
    let (peer, near) = (PeerId::random(), at("/ip4/192.168.1.9/tcp/1"));
    node.store
        .learned(Source::Mdns)
        .add(peer, std::slice::from_ref(&near));
    node.identify(peer, &ip(20, 1), &[near.clone(), ip(20, 1)], true);
    assert!(node.store.addresses().get(&peer).unwrap().contains(&near));
}

#[test]
fn a_relay_does_not_bring_its_clients_near() {
    let mut node = Node::new();
    node.established(PeerId::random(), &dialler(&ip(20, 1)));
    let peer = PeerId::random();
    let local_addr = at("/ip4/192.168.1.1/tcp/1")
        .with(Protocol::P2p(PeerId::random()))
        .with(Protocol::P2pCircuit);
    let endpoint = ConnectedPoint::Listener {
        local_addr,
        send_back_addr: Protocol::P2p(peer).into(),
    };
    node.established(peer, &endpoint);
    let told = node
        .store
        .learned(Source::Identify)
        .replace(peer, &NEAR.map(at));
    assert_eq!(told.refused, 4);
}

// --- filters -----------------------------------------------------------------------------------------------

#[test]
fn a_filter_decides_what_is_learnt_and_not_what_the_application_stores() {
    let mut node = Node::with(|config| config.with_address_filter(public_only));
    let (public, private) = (ip(20, 1), at("/ip4/10.0.0.1/tcp/1"));
    let peer = PeerId::random();
    assert_eq!(node.gossip(peer, &[public.clone(), private.clone()]), 1);
    assert_eq!(
        node.store.addresses().get(&peer).unwrap(),
        std::slice::from_ref(&public)
    );
    let other = PeerId::random();
    node.identify(other, &private, std::slice::from_ref(&private), true);
    assert!(!node.store.contains(&other));
    assert_eq!(node.store.refusals().get(Refused::Filtered), 3);
    assert!(node.store.addresses().add(other, [private]).changed);
}

#[test]
fn a_transport_that_is_not_there_is_not_learnt() {
    let transports = [&["tcp"][..], &["udp", "quic-v1"]];
    let node = Node::with(|config| config.with_address_filter(dialable_only(transports)));
    let peer = PeerId::random();
    let told = ["tcp/1", "udp/1/quic-v1", "tcp/1/ws", "udp/1/webrtc-direct"];
    let told = told.map(|end| at(&format!("/ip4/20.1.1.1/{end}")));
    assert_eq!(node.gossip(peer, &told), 2);
    assert_eq!(node.store.addresses().get(&peer).unwrap(), told[..2]);
}

#[test]
fn a_filter_may_use_the_store() {
    let asked = Arc::new(AtomicUsize::new(0));
    let slot: Arc<std::sync::OnceLock<PeerStore>> = Arc::default();
    let (count, stored) = (asked.clone(), slot.clone());
    let node = Node::with(|config| {
        config.with_address_filter(move |peer: &PeerId, _: &Multiaddr| {
            count.fetch_add(1, Ordering::Relaxed);
            // With the lock held this would wait for ever.
            stored.get().is_none_or(|store| !store.contains(peer))
        })
    });
    slot.set(node.store.clone()).unwrap();
    let peer = PeerId::random();
    assert_eq!(node.gossip(peer, &[ip(20, 1)]), 0);
    assert_eq!(node.gossip(peer, &[ip(20, 2)]), 1);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}
