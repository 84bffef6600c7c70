//! Another peer answers than the one that was expected.

use libp2p_core::transport::ListenerId;
use libp2p_peerstore::{Cause, Refused, Source, Sources, Standing};
use libp2p_swarm::{FromSwarm, NetworkBehaviour, NewListenAddr, behaviour::ExternalAddrConfirmed};

use super::*;
use crate::support::*;

#[test]
fn hearsay_does_not_bring_it_back_for_six_hours() {
    let (store, clock) = clocked_with(|config| {
        let config = config.with_hearsay_lifetime(HOUR);
        config.with_max_hearsay_lifetime(HOUR)
    });
    let mut swarm = Swarm::of(&store);
    gossip(&store, peer(1), &ports([1, 2]));
    swarm.wrong_peer(peer(1), peer(2), at(1));
    assert_eq!(store.addresses().get(&peer(1)), Some(ports([2])));

    let sources = [
        Source::Kademlia,
        Source::Rendezvous,
        Source::Mdns,
        Source::Discovery,
    ];
    // Nor when all else that was known of the peer is forgotten meanwhile.
    for minutes in (0..6 * 60).step_by(45) {
        for source in sources {
            let told = store.learned(source).add(peer(1), &ports([1]));
            assert_eq!(did(told), (false, 1), "{source:?} after {minutes} min");
        }
        swarm.found(peer(1), &at(1));
        let left = if minutes < 60 { ports([2]) } else { vec![] };
        assert_eq!(
            store.addresses().get(&peer(1)),
            Some(left),
            "after {minutes} min"
        );
        clock.advance(45 * MINUTE);
    }
    assert_eq!(store.refusals().get(Refused::DroppedAddress), 8 * 5);
    assert_eq!(did(gossip(&store, peer(1), &ports([1]))), (true, 0));
}

#[test]
fn after_six_hours_hearsay_counts_again_and_the_peers_own_word_at_any_time() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    store.addresses().pin(peer(1), ports([9]));
    gossip(&store, peer(1), &ports([1, 2]));
    swarm.wrong_peer(peer(1), peer(3), at(1));
    swarm.wrong_peer(peer(1), peer(3), at(2));
    store.learned(Source::Identify).add(peer(1), &ports([2]));
    assert!(info(&store, peer(1), &at(2)).is_some());

    clock.advance(6 * HOUR - SECOND);
    assert_eq!(did(gossip(&store, peer(1), &ports([1]))), (false, 1));
    clock.advance(SECOND);
    assert_eq!(did(gossip(&store, peer(1), &ports([1]))), (true, 0));
}

#[test]
fn what_there_was_reason_to_believe_in_stays_known_and_is_not_offered_while_blocked() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    let (pinned, certified, proven) = (peer(1), peer(2), peer(3));
    store.addresses().pin(pinned, ports([1]));
    store.learned(Source::Identify).add(certified, &ports([1]));
    store
        .learned(Source::Identify)
        .certify(certified, &ports([1]));
    swarm.proved(proven, at(1));
    for peer in [pinned, certified, proven] {
        let before = info(&store, peer, &at(1)).unwrap();
        swarm.wrong_peer(peer, other(), at(1));
        let after = info(&store, peer, &at(1)).unwrap();
        assert_eq!((after.failures, after.sources), (1, before.sources));
        // Much worse than after any other failure.
        assert!(after.confidence < 0.1 * before.confidence, "{after:?}");
    }
    // What the user pinned is tried all the same.
    assert_eq!(swarm.offers(pinned), [with_id(at(1), pinned)]);
    assert!(swarm.offers(certified).is_empty());
    assert!(swarm.offers(proven).is_empty());

    // Neither gossip nor a further failure of another kind ends it.
    gossip(&store, proven, &ports([1]));
    swarm.dial_failed(proven, ports([1]));
    clock.advance(6 * HOUR - SECOND);
    assert!(swarm.offers(certified).is_empty());
    assert!(swarm.offers(proven).is_empty());
    clock.advance(SECOND);
    assert_eq!(swarm.offers(certified), [with_id(at(1), certified)]);
    assert_eq!(swarm.offers(proven), [with_id(at(1), proven)]);
    // A success ends it at once.
    swarm.wrong_peer(proven, other(), at(1));
    swarm.proved(proven, at(1));
    assert_eq!(swarm.offers(proven), [with_id(at(1), proven)]);
}

pub fn other() -> PeerId {
    peer(77)
}

#[test]
fn the_peer_that_answered_learns_the_address_as_its_own_word() {
    let store = store();
    let mut swarm = Swarm::of(&store);
    gossip(&store, peer(1), &ports([1]));
    swarm.wrong_peer(peer(1), peer(2), at(1));
    let told = info(&store, peer(2), &at(1)).unwrap();
    assert_eq!(told.sources, Sources::IDENTIFY);
    assert_eq!((told.standing, told.successes), (Standing::SelfTold, 0));
    // Also when nothing is known of the one that was expected.
    swarm.wrong_peer(peer(3), peer(4), at(2));
    assert!(!store.contains(&peer(3)));
    assert_eq!(store.addresses().get(&peer(4)), Some(ports([2])));
}

#[test]
fn the_peer_that_answered_is_not_created_when_the_store_is_full() {
    let store = store_with(|config| config.with_max_peers(size(2)));
    let mut swarm = Swarm::of(&store);
    store.addresses().pin(peer(1), ports([1]));
    gossip(&store, peer(2), &ports([2]));
    swarm.wrong_peer(peer(1), peer(3), at(1));
    assert_eq!(sorted(store.peer_ids()), sorted(vec![peer(1), peer(2)]));
    assert_eq!(store.refusals().get(Refused::StoreFull), 1);
    // One that is known learns it all the same.
    swarm.wrong_peer(peer(1), peer(2), at(1));
    assert!(info(&store, peer(2), &at(1)).is_some());
}

#[test]
fn what_has_expired_leaves_its_place_to_the_peer_that_answered() {
    let (store, clock) =
        clocked_with(|config| config.with_max_peers(size(21)).with_hearsay_lifetime(HOUR));
    let mut swarm = Swarm::of(&store);
    // Twenty that lose an address each, and go on, before the one that goes.
    for n in 1..=20 {
        identify(&store, peer(n), &ports([1]));
        gossip(&store, peer(n), &ports([2]));
    }
    clock.advance(STEP);
    gossip(&store, peer(21), &ports([2]));
    clock.advance(HOUR);
    swarm.wrong_peer(peer(1), peer(30), at(1));
    assert!(store.contains(&peer(30)));
    assert_eq!(store.refusals().get(Refused::StoreFull), 0);

    // Nor does the peer itself hold one that it needs.
    let (store, clock) =
        clocked_with(|config| config.with_max_peers(size(41)).with_hearsay_lifetime(HOUR));
    let mut swarm = Swarm::of(&store);
    for n in 1..=40 {
        store.addresses().pin(peer(n), ports([1]));
        gossip(&store, peer(n), &ports([2]));
    }
    clock.advance(STEP);
    gossip(&store, peer(41), &ports([2]));
    let mut told = store.subscribe();
    clock.advance(HOUR);
    swarm.wrong_peer(peer(1), peer(41), at(1));
    assert_eq!(store.addresses().get(&peer(41)), Some(ports([1])));
    assert!(heard(&mut told).contains(&Told::Removed(peer(41), Cause::Expired)));
}

#[test]
fn an_address_of_this_node_is_refused_for_those_too_of_whom_it_was_known_before() {
    let store = store();
    let mut swarm = Swarm::of(&store);
    gossip(&store, peer(1), &ports([1]));
    gossip(&store, peer(2), &ports([1, 2]));
    identify(&store, peer(3), &ports([1, 3]));
    store.addresses().pin(peer(4), ports([1]));
    swarm.wrong_peer(peer(1), peer(LOCAL), at(1));

    assert_eq!(did(gossip(&store, peer(2), &ports([1]))), (false, 1));
    assert_eq!(store.refusals().get(Refused::OwnAddress), 1);
    assert_eq!(swarm.offers(peer(2)), [with_id(at(2), peer(2))]);
    // The complete list of a peer without what is refused: it goes.
    assert_eq!(did(identify(&store, peer(3), &ports([1, 3]))), (true, 1));
    assert_eq!(store.addresses().get(&peer(3)), Some(ports([3])));
    assert_eq!(did(store.addresses().set(peer(2), ports([1]))), (false, 1));
    // What the user pinned is the user's word.
    assert_eq!(swarm.offers(peer(4)), [with_id(at(1), peer(4))]);
}

#[test]
fn where_this_node_itself_answered_nobody_else_is_until_its_own_addresses_change() {
    let fresh = |swarm: &mut Swarm, by_listening: bool| {
        let (addr, listener_id) = (&at(100), ListenerId::next());
        swarm.behaviour.on_swarm_event(if by_listening {
            FromSwarm::NewListenAddr(NewListenAddr { listener_id, addr })
        } else {
            FromSwarm::ExternalAddrConfirmed(ExternalAddrConfirmed { addr })
        });
    };
    for by_listening in [true, false] {
        let store = store();
        let mut swarm = Swarm::of(&store);
        gossip(&store, peer(1), &ports([1, 2]));
        swarm.wrong_peer(peer(1), peer(LOCAL), at(1));
        assert_eq!(store.addresses().get(&peer(1)), Some(ports([2])));
        assert!(!store.contains(&peer(LOCAL)));

        assert_eq!(did(gossip(&store, peer(1), &ports([1]))), (false, 1));
        assert_eq!(did(gossip(&store, peer(2), &ports([1]))), (false, 1));
        assert_eq!(did(identify(&store, peer(3), &ports([1, 3]))), (true, 1));
        assert_eq!(did(store.addresses().add(peer(4), ports([1]))), (false, 1));
        assert_eq!(store.refusals().get(Refused::OwnAddress), 4);
        assert_eq!(store.refusals().total(), 4);

        fresh(&mut swarm, by_listening);
        for n in 1..=4 {
            assert_eq!(did(gossip(&store, peer(n), &ports([1]))), (true, 0), "{n}");
        }
    }
}

#[test]
fn what_the_user_pinned_stays_though_this_node_itself_answers_there() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    store.addresses().pin(peer(1), ports([1]));
    store.addresses().pin(peer(1), ports([2]));
    swarm.wrong_peer(peer(1), peer(LOCAL), at(1));
    let infos = sorted(store.addresses().get(&peer(1)).unwrap());
    assert_eq!(infos, ports([1, 2]));
    let pinned = info(&store, peer(1), &at(1)).unwrap();
    assert_eq!((pinned.failures, pinned.sources), (1, Sources::PINNED));
    // It is left alone for a while like any that failed.
    assert_eq!(swarm.offers(peer(1)), [with_id(at(2), peer(1))]);
    clock.advance(DAY);
    assert_eq!(swarm.offers(peer(1)).len(), 2);
}

#[test]
fn a_peer_that_only_claimed_to_be_where_this_node_is_goes_with_that() {
    let store = store();
    let mut swarm = Swarm::of(&store);
    gossip(&store, peer(1), &ports([1]));
    gossip(&store, peer(2), &ports([1, 2]));
    swarm.accepted(peer(3), at(3));
    let mut told = store.subscribe();
    for n in 1..=3 {
        swarm.wrong_peer(peer(n), peer(LOCAL), at(if n == 3 { 3 } else { 1 }));
    }
    // The others are known by another address, and by a connection.
    assert_eq!(store.len(), 2);
    assert!(!store.contains(&peer(1)));
    assert!(heard(&mut told).contains(&Told::Removed(peer(1), Cause::Dial)));
}

#[test]
fn the_peer_that_answered_in_the_local_network_learns_so_whatever_connections_there_are() {
    let store = store();
    let mut swarm = Swarm::of(&store);
    let near: Multiaddr = "/ip4/10.0.0.5/tcp/1".parse().unwrap();
    swarm.accepted(peer(9), at(9));
    store.addresses().add(peer(1), [near.clone()]);
    swarm.wrong_peer(peer(1), peer(2), near.clone());
    assert_eq!(
        info(&store, peer(2), &near).unwrap().sources,
        Sources::IDENTIFY
    );
    // By its word alone it does not.
    assert_eq!(did(identify(&store, peer(3), &[near])), (false, 1));
    assert_eq!(store.refusals().get(Refused::OutOfScope), 1);
}
