//! Peers in all: who makes room for whom when the store is full.

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_peerstore::{AGENT_VERSION, Cause, PeerStore, Refused, Source};
use libp2p_swarm::StreamProtocol;

use crate::support::*;

/// How a peer comes to be known, with what it is worth by that.
#[derive(Debug, Clone, Copy, PartialEq)]
enum By {
    Hearsay,
    Inbound,
    SelfTold,
    /// Dialled with success, and disconnected again.
    Proof,
    /// The application keeps something about it.
    Metadata,
    /// A connection in the one direction or the other.
    Dial,
    Accept,
    Pin,
}

impl By {
    const NEWCOMERS: [By; 7] = [
        By::Hearsay,
        By::Inbound,
        By::SelfTold,
        By::Metadata,
        By::Dial,
        By::Accept,
        By::Pin,
    ];
    const RESIDENTS: [By; 8] = [
        By::Hearsay,
        By::Inbound,
        By::SelfTold,
        By::Proof,
        By::Metadata,
        By::Dial,
        By::Accept,
        By::Pin,
    ];

    fn worth(self) -> u8 {
        match self {
            By::Hearsay => 0,
            By::Inbound => 1,
            By::SelfTold => 2,
            By::Proof | By::Metadata => 3,
            By::Dial | By::Accept => 4,
            By::Pin => 5,
        }
    }

    fn make_known(self, store: &PeerStore, swarm: &mut Swarm, peer: PeerId) {
        match self {
            By::Hearsay => _ = gossip(store, peer, &ports([1])),
            By::Inbound => swarm.seen_inbound(peer, at(1)),
            By::SelfTold => _ = identify(store, peer, &ports([1])),
            By::Proof => swarm.proved(peer, at(1)),
            By::Metadata => _ = store.metadata().set(peer, "note", "x"),
            By::Dial => swarm.dialled(peer, at(1)),
            By::Accept => swarm.accepted(peer, at(1)),
            By::Pin => _ = store.addresses().pin(peer, ports([1])),
        }
    }
}

fn limited(limit: usize) -> PeerStore {
    store_with(|config| config.with_max_peers(size(limit)))
}

#[test]
fn the_store_holds_as_many_peers_as_the_limit_and_no_more() {
    let store = limited(3);
    for n in 1..=3 {
        gossip(&store, peer(n), &ports([1]));
        assert_eq!(store.len(), usize::from(n));
    }
    // The next one takes the place of an equal one.
    assert_eq!(did(gossip(&store, peer(4), &ports([1]))), (true, 0));
    assert_eq!(store.len(), 3);
    assert!(store.contains(&peer(4)));
    // A known peer needs no room.
    assert_eq!(did(gossip(&store, peer(4), &ports([2]))), (true, 0));
    assert_eq!(store.len(), 3);
    assert_eq!(store.refusals().total(), 0);
}

#[test]
fn a_full_store_takes_a_newcomer_unless_all_others_are_worth_more() {
    for resident in By::RESIDENTS {
        for newcomer in By::NEWCOMERS {
            let store = limited(1);
            let mut swarm = Swarm::of(&store);
            resident.make_known(&store, &mut swarm, peer(1));
            assert_eq!(store.peer_ids(), [peer(1)], "{resident:?}");
            newcomer.make_known(&store, &mut swarm, peer(2));
            let comes_in = resident != By::Pin && newcomer.worth() >= resident.worth();
            let left = if comes_in { peer(2) } else { peer(1) };
            assert_eq!(store.peer_ids(), [left], "{newcomer:?} after {resident:?}");
            assert_eq!(
                store.refusals().get(Refused::StoreFull),
                u64::from(!comes_in),
                "{newcomer:?} after {resident:?}"
            );
        }
    }
}

#[test]
fn the_least_valuable_peer_goes_first() {
    let order = [
        By::Hearsay,
        By::Inbound,
        By::SelfTold,
        By::Proof,
        By::Dial,
        By::Pin,
    ];
    let store = limited(order.len());
    let mut swarm = Swarm::of(&store);
    let mut events = store.subscribe();
    // The most valuable one comes first, so that the order of arrival plays no part.
    for (n, by) in order.into_iter().enumerate().rev() {
        by.make_known(&store, &mut swarm, peer(n as u8));
    }
    heard(&mut events);
    for newcomer in 100..105 {
        store.addresses().pin(peer(newcomer), ports([1]));
        let victim = peer(newcomer - 100);
        let told = heard(&mut events);
        assert_eq!(told[0], Told::Removed(victim, Cause::Evicted));
        assert_eq!(told.len(), 3);
        assert!(!store.contains(&victim));
    }
    // Only pinned ones are left: they never go.
    let told = store.addresses().pin(peer(105), ports([1]));
    assert_eq!(did(told), (false, 1));
    assert_eq!(store.refusals().get(Refused::StoreFull), 1);
    assert!(store.contains(&peer(5)));
    assert_eq!(heard(&mut events), []);
}

#[test]
fn a_refused_newcomer_leaves_no_trace_and_the_call_says_so() {
    let store = limited(1);
    let mut swarm = Swarm::of(&store);
    store.addresses().pin(peer(1), ports([1]));
    let rsa = rsa_key().to_peer_id();
    let (addresses, protocols) = (store.addresses(), store.protocols());
    assert_eq!(did(addresses.add(peer(2), ports([1]))), (false, 1));
    assert_eq!(did(addresses.set(peer(2), ports([1]))), (false, 1));
    assert_eq!(did(protocols.set(peer(2), ["/x"])), (false, 1));
    assert_eq!(store.keys().set(rsa, rsa_key()), Err(Refused::StoreFull));
    assert_eq!(
        store.metadata().set(peer(2), "a", "b"),
        Err(Refused::StoreFull)
    );
    assert_eq!(store.refusals().get(Refused::StoreFull), 5);
    // Nothing was to be stored, so nothing was refused.
    assert_eq!(did(addresses.add(peer(2), [])), (false, 0));
    assert_eq!(did(protocols.set(peer(2), [""; 0])), (false, 0));
    assert_eq!(store.keys().set(peer(2), key(2)), Ok(false));
    assert_eq!(store.refusals().total(), 5);
    // What else was wrong is counted as well.
    let told = [at(1), with_id(at(1), peer(3))];
    assert_eq!(did(addresses.add(peer(2), told)), (false, 2));
    assert_eq!(store.peer_ids(), [peer(1)]);

    // A connection counts all the same.
    swarm.dialled(peer(2), at(1));
    assert!(store.is_connected(&peer(2)) && !store.contains(&peer(2)));
    store.delete(&peer(1));
    gossip(&store, peer(2), &ports([1]));
    assert!(store.get(&peer(2)).unwrap().connected);
}

#[test]
fn ten_thousand_strangers_displace_nobody_of_value() {
    let store = limited(100);
    let mut swarm = Swarm::of(&store);
    for n in 1..=80 {
        let by = By::RESIDENTS[2 + usize::from(n) % 6];
        by.make_known(&store, &mut swarm, peer(n));
    }
    let valued = sorted(store.peer_ids());
    assert_eq!(valued.len(), 80);
    // They are said to be in ten thousand places: at one, eight of them would be too many.
    let place = |n: u16| -> Multiaddr {
        let [a, b] = n.to_be_bytes();
        format!("/ip4/203.{a}.{b}.1/tcp/1").parse().unwrap()
    };
    for n in 0..10_000 {
        gossip(&store, PeerId::random(), &[place(n)]);
        assert!(store.len() <= 100);
    }
    assert_eq!(store.len(), 100);
    assert!(valued.iter().all(|peer| store.contains(peer)));
    assert_eq!(store.refusals().total(), 0);
    // Twenty of value displace the strangers, and the strangers find no room any more.
    for n in 81..=100 {
        identify(&store, peer(n), &ports([1]));
    }
    for n in 0..1000 {
        gossip(&store, PeerId::random(), &[place(n)]);
    }
    assert!((1..=100).all(|n| store.contains(&peer(n))));
    assert_eq!(store.refusals().get(Refused::StoreFull), 1000);
}

#[test]
fn a_peer_is_spared_only_while_it_is_connected() {
    let store = limited(1);
    let mut swarm = Swarm::of(&store);
    gossip(&store, peer(1), &ports([1]));
    store.addresses().add(peer(1), ports([2]));
    swarm.accepted(peer(1), at(50001));
    store.metadata().set(peer(2), "note", "x").unwrap_err();
    swarm.closed(peer(1));
    store.metadata().set(peer(2), "note", "x").unwrap();
    assert_eq!(store.peer_ids(), [peer(2)]);
}

#[test]
fn a_peer_is_spared_only_while_an_address_is_pinned() {
    let store = limited(1);
    store.addresses().pin(peer(1), ports([1]));
    assert!(!gossip(&store, peer(2), &ports([1])).changed);
    store.addresses().unpin(peer(1), ports([1]));
    assert!(gossip(&store, peer(2), &ports([1])).changed);
    assert_eq!(store.peer_ids(), [peer(2)]);
}

#[test]
fn what_the_application_notes_about_a_peer_spares_it_and_what_identify_notes_does_not() {
    let store = limited(1);
    let mut learned = store.learned(Source::Identify);
    gossip(&store, peer(1), &ports([1]));
    learned.metadata(peer(1), AGENT_VERSION, b"x");
    assert!(gossip(&store, peer(2), &ports([1])).changed);
    store.metadata().set(peer(2), "note", "x").unwrap();
    assert!(!gossip(&store, peer(3), &ports([1])).changed);
    assert!(!identify(&store, peer(3), &ports([1])).changed);
    store.metadata().delete_value(&peer(2), "note");
    assert!(gossip(&store, peer(3), &ports([1])).changed);
}

#[test]
fn protocols_and_keys_are_the_word_of_the_peer_itself() {
    let rsa = rsa_key().to_peer_id();
    let name = [StreamProtocol::new("/x")];
    for by_key in [false, true] {
        let store = limited(1);
        let mut learned = store.learned(Source::Identify);
        if by_key {
            learned.public_key(rsa, &rsa_key());
        } else {
            learned.protocols(rsa, &name);
        }
        assert!(!gossip(&store, peer(2), &ports([1])).changed);
        assert_eq!(store.peer_ids(), [rsa]);
        assert!(identify(&store, peer(2), &ports([1])).changed);
        assert_eq!(store.peer_ids(), [peer(2)]);
    }
}
