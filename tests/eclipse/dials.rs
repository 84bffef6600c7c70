//! What the store has refused is not dialled all the same because another behaviour offers it.

use libp2p::kad;
use libp2p_peerstore::Observed;
use libp2p_swarm::{DialError, DialFailure};

use super::*;

type Kad = Observed<kad::Behaviour<kad::store::MemoryStore>>;

fn observed(node: &Node) -> Kad {
    let id = node.store.local_peer_id();
    let records = kad::store::MemoryStore::new(id);
    node.store.observe(kad::Behaviour::new(id, records))
}

/// What Kademlia, which has these addresses of a peer in its table, adds to a dial.
fn added(node: &mut Node, kad: &mut Kad, peer: PeerId, addresses: &[Multiaddr]) -> Vec<Multiaddr> {
    for address in addresses {
        kad.add_address(&peer, address.clone());
    }
    let (id, role) = (node.id(), Endpoint::Dialer);
    let added = kad.handle_pending_outbound_connection(id, Some(peer), &[], role);
    let bare = |mut address: Multiaddr| {
        assert_eq!(address.pop(), Some(Protocol::P2p(peer)));
        address
    };
    added.unwrap().into_iter().map(bare).collect()
}

#[test]
fn at_an_ip_address_where_eight_are_said_to_be_no_ninth_is_dialled() {
    let mut node = Node::new();
    let mut kad = observed(&node);
    let mut dialled = 0;
    for _ in 0..20 {
        let port = node.port();
        let told = at(&format!("/ip4/9.9.9.9/tcp/{port}"));
        dialled += added(&mut node, &mut kad, PeerId::random(), &[told]).len();
    }
    assert_eq!(dialled, 8);
    assert_eq!(node.store.refusals().get(Refused::TooManyClaims), 12);
    // A peer of which nothing is known may be said to be elsewhere too.
    let told = [at("/ip4/9.9.9.9/tcp/1"), ip(20, 1)];
    let passed = added(&mut node, &mut kad, PeerId::random(), &told);
    assert_eq!(passed, told[1..]);
}

#[test]
fn this_nodes_own_address_is_not_dialled_for_a_peer_that_is_not_known() {
    let mut node = Node::new();
    let mut kad = observed(&node);
    let (own, peer) = (ip(20, 1), PeerId::random());
    let error = DialError::WrongPeerId {
        obtained: node.store.local_peer_id(),
        address: own.clone().with(Protocol::P2p(peer)),
    };
    let connection_id = node.id();
    node.behaviour
        .on_swarm_event(FromSwarm::DialFailure(DialFailure {
            peer_id: Some(peer),
            error: &error,
            connection_id,
        }));
    assert!(added(&mut node, &mut kad, PeerId::random(), &[own]).is_empty());
    assert_eq!(node.store.refusals().get(Refused::OwnAddress), 1);
}

#[test]
fn what_the_filter_does_not_admit_is_not_dialled_and_it_is_asked_once() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let slot: Arc<std::sync::OnceLock<PeerStore>> = Arc::default();
    let stored = slot.clone();
    let mut node = Node::with(|config| {
        config.with_address_filter(move |peer: &PeerId, address: &Multiaddr| {
            count.fetch_add(1, Ordering::Relaxed);
            // With the lock held this would wait for ever.
            assert!(stored.get().is_none_or(|store| !store.contains(peer)));
            public_only(peer, address)
        })
    });
    slot.set(node.store.clone()).unwrap();
    let mut kad = observed(&node);
    let near = [at("/ip4/192.168.1.1/tcp/80"), at("/ip4/127.0.0.1/tcp/80")];
    assert!(added(&mut node, &mut kad, PeerId::random(), &near).is_empty());
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    assert_eq!(node.store.refusals().get(Refused::Filtered), 2);
}

#[test]
fn a_dnsaddr_of_a_peer_that_is_not_known_is_dialled() {
    let mut node = Node::new();
    let mut kad = observed(&node);
    let told = [at("/dnsaddr/bootstrap.example.org")];
    let passed = added(&mut node, &mut kad, PeerId::random(), &told);
    assert_eq!(passed, told);
    assert_eq!(node.store.refusals().get(Refused::DnsaddrByHearsay), 1);
}
