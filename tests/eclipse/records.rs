//! Signed records of peers that nobody met: keys cost nothing either.

use libp2p_core::PeerRecord;
use libp2p_identity::Keypair;
use libp2p_peerstore::{AcceptedRecord, RecordError, Sources};

use super::*;

/// A record of a new peer that says that it is at an address, as others pass it on.
fn passed_on(node: &Node, told: Multiaddr) -> Result<AcceptedRecord, RecordError> {
    let record = PeerRecord::new_interop(&Keypair::generate_ed25519(), vec![told]).unwrap();
    let envelope = record.into_signed_envelope();
    node.store.learned(Source::Discovery).peer_record(&envelope)
}

#[test]
fn a_flood_of_records_that_others_pass_on_is_a_flood_of_hearsay() {
    const CAPACITY: usize = 100;
    let (mut node, friends) = Node::with_friends_and(CAPACITY, 20);
    let neighbours: Vec<PeerId> = (0..20).map(|_| PeerId::random()).collect();
    for (n, neighbour) in neighbours.iter().enumerate() {
        let told = ip(60, n as u8);
        node.identify(*neighbour, &told, std::slice::from_ref(&told), false);
    }
    for n in 0..400 {
        let accepted = passed_on(&node, spread(n, 300)).unwrap();
        // What it says of itself stands as its own word all the same.
        let infos = node.store.addresses().infos(&accepted.peer).unwrap();
        assert_eq!(infos[0].sources, Sources::CERTIFIED);
        assert_eq!(infos[0].standing, Standing::SelfTold);
    }
    let store = &node.store;
    assert!(friends.iter().all(|friend| store.contains(friend)));
    assert!(neighbours.iter().all(|peer| store.contains(peer)));
    let held = store.len() - friends.len() - neighbours.len();
    assert!((1..=CAPACITY * 2 / 5).contains(&held), "{held}");
    assert_eq!(store.refusals().total(), 0);
    // Who tells of itself finds room at their cost.
    let newcomers: Vec<PeerId> = (0..60).map(|_| PeerId::random()).collect();
    for (n, newcomer) in newcomers.iter().enumerate() {
        let told = ip(70, n as u8);
        node.identify(*newcomer, &told, std::slice::from_ref(&told), false);
    }
    assert!(newcomers.iter().all(|peer| node.store.contains(peer)));
}

#[test]
fn eight_records_that_others_pass_on_are_about_one_ip_address() {
    let mut node = Node::new();
    let mut peers = Vec::new();
    for n in 0..20 {
        let port = node.port();
        match passed_on(&node, at(&format!("/ip4/9.9.9.9/tcp/{port}"))) {
            Ok(accepted) => peers.push(accepted.peer),
            Err(error) => assert!(
                n >= 8 && matches!(error, RecordError::Refused(Refused::TooManyClaims)),
                "{error}"
            ),
        }
    }
    assert_eq!((peers.len(), node.store.len()), (8, 8));
    // With what is only said otherwise they are as many together.
    let told = at("/ip4/9.9.9.9/tcp/77");
    assert_eq!(
        node.gossip(PeerId::random(), std::slice::from_ref(&told)),
        1
    );
    // One of them comes from somewhere: it is more than heard of, and another may be said to be there.
    let endpoint = listener(&ip(20, 1));
    node.established(peers[0], &endpoint);
    assert_eq!(
        node.gossip(PeerId::random(), std::slice::from_ref(&told)),
        0
    );
    node.closed(peers[0], &endpoint);
    assert_eq!(
        node.gossip(PeerId::random(), std::slice::from_ref(&told)),
        1
    );
    // One that brings its record itself is not counted.
    let key = Keypair::generate_ed25519();
    node.established(key.public().to_peer_id(), &endpoint);
    let record = PeerRecord::new_interop(&key, vec![told]).unwrap();
    let taken = node
        .store
        .consume_peer_record(record.into_signed_envelope());
    assert!(taken.is_ok(), "{taken:?}");
}

#[test]
fn records_that_peers_bring_themselves_are_in_the_share_of_where_they_come_from() {
    let mut node = Node::new();
    for n in 0..CAPACITY as u32 {
        node.identify(
            PeerId::random(),
            &spread(n, 5_000),
            &[spread(n, 5_000)],
            false,
        );
    }
    let mut brought = Vec::new();
    for n in 0..200 {
        let key = Keypair::generate_ed25519();
        let peer = key.public().to_peer_id();
        let endpoint = listener(&at(&format!("/ip4/70.1.1.{n}/tcp/1")));
        node.established(peer, &endpoint);
        let record = PeerRecord::new_interop(&key, vec![spread(n, 15_000)]).unwrap();
        let mut learned = node.store.learned(Source::Discovery);
        learned.peer_record(&record.into_signed_envelope()).unwrap();
        node.closed(peer, &endpoint);
        brought.push(peer);
    }
    let held = brought.iter().filter(|peer| node.store.contains(peer));
    let held = held.count();
    assert!((1..=CAPACITY / 32).contains(&held), "{held}");
}
