//! What connections and dials teach the store, on real swarms and in every order of the behaviour's fields. What
//! no transport of the tests can cause (relays, hole punching, moving connections) is fed to the behaviour.

// `[address.clone()]` reads better than `std::slice::from_ref(&address)`.
#![allow(clippy::cloned_ref_to_slice_refs, clippy::unwrap_used)]

#[path = "gathering/failures.rs"]
mod failures;
#[path = "support/swarm.rs"]
mod swarm;

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    multiaddr::Protocol,
    swarm::{
        AddressChange, ConnectionId, DialError, FromSwarm, SwarmEvent,
        behaviour::ConnectionEstablished, dial_opts::DialOpts,
    },
};
use libp2p_peerstore::{Cause, Event, Refused, Sources, Standing};
use swarm::*;

in_every_order!(
    a_dialled_address_is_proven_and_those_that_failed_before_it_are_marked,
    a_dial_by_address_alone_proves_the_address_of_whoever_answers,
    an_inbound_address_has_the_lowest_standing,
    an_inbound_address_is_offered_only_while_nothing_better_is_known,
    an_inbound_address_is_not_stored_when_something_better_is_known,
    a_relayed_inbound_connection_says_nothing_about_addresses,
    a_hole_punched_connection_counts_as_inbound,
    a_connection_that_moves_tells_its_new_address_without_proof,
    an_inbound_connection_that_moves_counts_as_inbound,
    the_local_peer_is_never_stored,
    connections_are_counted_until_they_close,
    a_peer_without_a_record_is_counted_as_connected,
);

/// Only what the events say of addresses: whose, which, and why.
fn told(news: &[Event]) -> Vec<(PeerId, Vec<Multiaddr>, Cause)> {
    let addresses = news.iter().filter_map(|event| match event {
        Event::AddressesChanged {
            peer,
            addresses,
            cause,
        } => Some((*peer, addresses.to_vec(), *cause)),
        _ => None,
    });
    addresses.collect()
}

// --- connections of our own ----------------------------------------------------------------------------------

async fn a_dialled_address_is_proven_and_those_that_failed_before_it_are_marked<N: Alone>() {
    let (mut a, mut b) = (alone::<N>(), silent());
    let address = b.listen().await;
    a.store.addresses().add(b.id, [refused(1), refused(2)]);
    a.news();

    // One after the other, so that the first two have failed for certain.
    let opts = DialOpts::peer_id(b.id)
        .addresses(vec![refused(1), refused(2), refused(3), address.clone()])
        .override_dial_concurrency_factor(1.try_into().unwrap())
        .build();
    a.swarm.dial(opts).unwrap();
    let peer = b.id;
    until((&mut a, &mut b), |(a, _)| a.is_connected(peer)).await;

    let proven = a.info(peer, &address).unwrap();
    assert_eq!(proven.standing, Standing::Proven);
    assert_eq!(proven.sources, Sources::DIALLED);
    assert_eq!((proven.successes, proven.failures), (1, 0));
    assert!(proven.last_success.is_some());
    for failed in [refused(1), refused(2)] {
        let failed = a.info(peer, &failed).unwrap();
        assert_eq!(failed.standing, Standing::Hearsay);
        assert_eq!((failed.successes, failed.failures), (0, 1));
        assert!(failed.last_failure.is_some());
    }
    // What only failed and was not known before is nothing to keep.
    assert_eq!(a.info(peer, &refused(3)), None);
    assert_eq!(a.store.addresses().get(&peer).unwrap()[0], address);

    let news = a.news();
    let [(who, addresses, cause)] = &told(&news)[..] else {
        panic!("one change of addresses expected: {news:?}");
    };
    assert_eq!((who, cause), (&peer, &Cause::Dial));
    assert_eq!(
        sorted(addresses.clone()),
        sorted(vec![refused(1), refused(2), address])
    );
    assert_eq!(news.len(), 1);
}

async fn a_dial_by_address_alone_proves_the_address_of_whoever_answers<N: Alone>() {
    let (mut a, mut b) = (alone::<N>(), silent());
    let address = b.listen().await;
    a.swarm.dial(address.clone()).unwrap();
    let peer = b.id;
    until((&mut a, &mut b), |(a, _)| a.is_connected(peer)).await;

    assert_eq!(a.addresses(peer), [address.clone()]);
    assert_eq!(a.info(peer, &address).unwrap().standing, Standing::Proven);
    let news = a.news();
    assert!(matches!(news[0], Event::PeerAdded { peer: added } if added == peer));
    assert_eq!(told(&news), [(peer, vec![address], Cause::Dial)]);
    assert_eq!(news.len(), 2);
}

// --- connections of others -----------------------------------------------------------------------------------

async fn an_inbound_address_has_the_lowest_standing<N: Alone>() {
    let (mut a, mut b) = (alone::<N>(), silent());
    let seen = dialled_by(&mut a, &mut b).await;

    assert_eq!(a.addresses(b.id), [seen.clone()]);
    let info = a.info(b.id, &seen).unwrap();
    assert_eq!(info.standing, Standing::Inbound);
    assert_eq!(info.sources, Sources::INBOUND);
    assert_eq!((info.successes, info.last_success), (0, None));
    assert_eq!(told(&a.news()), [(b.id, vec![seen], Cause::Inbound)]);
}

async fn an_inbound_address_is_offered_only_while_nothing_better_is_known<N: Alone>() {
    let (mut a, mut b) = (alone::<N>(), silent());
    let seen = dialled_by(&mut a, &mut b).await;
    assert_eq!(a.dial(b.id), [with_id(&seen, b.id)]);

    a.store.addresses().add(b.id, [refused(1)]);
    assert_eq!(a.dial(b.id), [with_id(&refused(1), b.id)]);
    // It is still known, behind what is better.
    assert_eq!(
        a.store.addresses().get(&b.id).unwrap(),
        [refused(1), seen.clone()]
    );
    assert_eq!(a.info(b.id, &seen).unwrap().standing, Standing::Inbound);
}

async fn an_inbound_address_is_not_stored_when_something_better_is_known<N: Alone>() {
    let (mut a, mut b) = (alone::<N>(), silent());
    a.store.addresses().add(b.id, [refused(1)]);
    a.news();
    dialled_by(&mut a, &mut b).await;

    assert_eq!(a.addresses(b.id), [refused(1)]);
    assert!(a.news().is_empty());
    assert!(a.store.is_connected(&b.id));
}

// --- what is fed ---------------------------------------------------------------------------------------------

fn dialer(address: &Multiaddr, role_override: Endpoint) -> ConnectedPoint {
    ConnectedPoint::Dialer {
        address: address.clone(),
        role_override,
        port_use: PortUse::Reuse,
    }
}

fn listener(from: Multiaddr) -> ConnectedPoint {
    ConnectedPoint::Listener {
        local_addr: at(4001),
        send_back_addr: from,
    }
}

fn feed_connection<N: Alone>(a: &mut Node<N>, peer: PeerId, endpoint: &ConnectedPoint) {
    let event = ConnectionEstablished {
        peer_id: peer,
        connection_id: ConnectionId::new_unchecked(7),
        endpoint,
        failed_addresses: &[],
        other_established: 0,
    };
    let behaviour = a.swarm.behaviour_mut();
    behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(event));
}

fn feed_move<N: Alone>(a: &mut Node<N>, peer: PeerId, old: &ConnectedPoint, new: &ConnectedPoint) {
    let event = AddressChange {
        peer_id: peer,
        connection_id: ConnectionId::new_unchecked(7),
        old,
        new,
    };
    let behaviour = a.swarm.behaviour_mut();
    behaviour.on_swarm_event(FromSwarm::AddressChange(event));
}

async fn a_relayed_inbound_connection_says_nothing_about_addresses<N: Alone>() {
    let mut a = alone::<N>();
    let peer = PeerId::random();
    // All that the relay transport knows of the other end.
    feed_connection(&mut a, peer, &listener(Protocol::P2p(peer).into()));
    assert!(!a.store.contains(&peer));
    assert!(a.news().is_empty());

    // Nor does it take the place of what is known.
    a.store.addresses().add(peer, [at(1)]);
    feed_connection(&mut a, peer, &listener(Protocol::P2p(peer).into()));
    assert_eq!(a.addresses(peer), [at(1)]);
}

async fn a_hole_punched_connection_counts_as_inbound<N: Alone>() {
    let mut a = alone::<N>();
    let peer = PeerId::random();
    feed_connection(&mut a, peer, &dialer(&at(1), Endpoint::Listener));
    let info = a.info(peer, &at(1)).unwrap();
    assert_eq!(
        (info.standing, info.sources),
        (Standing::Inbound, Sources::INBOUND)
    );
    assert_eq!(told(&a.news()), [(peer, vec![at(1)], Cause::Inbound)]);

    // Once something better is known, its address is not news.
    a.store.addresses().add(peer, [at(2)]);
    feed_connection(&mut a, peer, &dialer(&at(3), Endpoint::Listener));
    assert_eq!(a.addresses(peer), [at(1), at(2)]);
}

async fn a_connection_that_moves_tells_its_new_address_without_proof<N: Alone>() {
    let mut a = alone::<N>();
    let peer = PeerId::random();
    let (old, new) = (
        dialer(&at(1), Endpoint::Dialer),
        dialer(&at(2), Endpoint::Dialer),
    );
    feed_connection(&mut a, peer, &old);
    a.news();
    feed_move(&mut a, peer, &old, &new);

    assert_eq!(
        a.info(peer, &at(1)).unwrap().standing,
        Standing::Proven,
        "the old address was dialled all the same"
    );
    let moved = a.info(peer, &at(2)).unwrap();
    assert_eq!(moved.standing, Standing::Hearsay);
    assert_eq!((moved.successes, moved.last_success), (0, None));
    assert_eq!(told(&a.news()), [(peer, vec![at(1), at(2)], Cause::Dial)]);
    assert_eq!(a.store.connections(&peer), 1);
}

async fn an_inbound_connection_that_moves_counts_as_inbound<N: Alone>() {
    let mut a = alone::<N>();
    for (peer, old, new) in [
        (PeerId::random(), listener(at(1)), listener(at(2))),
        (
            PeerId::random(),
            dialer(&at(1), Endpoint::Listener),
            dialer(&at(2), Endpoint::Listener),
        ),
    ] {
        feed_connection(&mut a, peer, &old);
        feed_move(&mut a, peer, &old, &new);
        assert_eq!(a.addresses(peer), [at(1), at(2)]);
        assert_eq!(a.info(peer, &at(2)).unwrap().sources, Sources::INBOUND);

        a.store.addresses().add(peer, [at(3)]);
        feed_move(&mut a, peer, &new, &listener(at(4)));
        assert_eq!(a.addresses(peer), [at(1), at(2), at(3)]);
    }
}

// --- the local peer, and who is connected --------------------------------------------------------------------

async fn the_local_peer_is_never_stored<N: Alone>() {
    let mut a = alone::<N>();
    let (local, own) = (a.id, a.listen().await);
    a.swarm.add_peer_address(local, own.clone());
    assert_eq!(a.store.refusals().get(Refused::LocalPeer), 1);

    // Another peer is said to live where this node listens.
    let other = PeerId::random();
    a.store.addresses().add(other, [own.clone()]);
    // From the port that it listens on it would meet its own connection attempt.
    let dialled = a.dial_with(always(other).allocate_new_port().build());
    assert_eq!(dialled, [with_id(&own, other)]);
    until(&mut a, |a| !a.dial_errors(other).is_empty()).await;
    assert!(matches!(
        a.dial_errors(other)[..],
        [DialError::WrongPeerId { obtained, .. }] if *obtained == local
    ));

    // It is this node's own, and nobody else's: nothing is left of the other.
    assert!(a.info(other, &own).is_none());
    assert!(a.store.peer_ids().is_empty());
    assert_eq!(a.store.addresses().add(other, [own]).refused, 1);
    assert_eq!(a.store.refusals().get(Refused::OwnAddress), 1);
    assert!(!a.store.contains(&local));
    assert!(a.news().iter().all(|event| event.peer() != Some(local)));
}

async fn connections_are_counted_until_they_close<N: Alone>() {
    let (mut a, mut b) = (alone::<N>(), alone::<N>());
    let address = b.listen().await;
    let (a_id, b_id) = (a.id, b.id);
    for _ in 0..2 {
        a.swarm.dial(to(b_id, &address)).unwrap();
    }
    until((&mut a, &mut b), |(a, b)| {
        a.store.connections(&b_id) == 2 && b.store.connections(&a_id) == 2
    })
    .await;
    assert!(a.store.is_connected(&b_id) && b.store.is_connected(&a_id));
    assert_eq!(a.store.connected_peers(), [b_id]);
    assert_eq!(b.store.connected_peers(), [a_id]);
    assert!(a.store.get(&b_id).unwrap().connected);

    let connections: Vec<ConnectionId> = a
        .said
        .iter()
        .filter_map(|event| match event {
            SwarmEvent::ConnectionEstablished { connection_id, .. } => Some(*connection_id),
            _ => None,
        })
        .collect();
    assert!(a.swarm.close_connection(connections[0]));
    until((&mut a, &mut b), |(a, b)| {
        a.store.connections(&b_id) == 1 && b.store.connections(&a_id) == 1
    })
    .await;
    assert!(a.store.is_connected(&b_id) && b.store.is_connected(&a_id));
    assert!(b.store.get(&a_id).unwrap().connected);

    assert!(a.swarm.close_connection(connections[1]));
    until((&mut a, &mut b), |(a, b)| {
        a.store.connections(&b_id) == 0 && b.store.connections(&a_id) == 0
    })
    .await;
    assert!(!a.store.is_connected(&b_id) && !b.store.is_connected(&a_id));
    assert!(a.store.connected_peers().is_empty() && b.store.connected_peers().is_empty());
    // What was learnt stays.
    assert!(!a.store.get(&b_id).unwrap().connected);
    assert_eq!(a.addresses(b_id), [address]);
}

async fn a_peer_without_a_record_is_counted_as_connected<N: Alone>() {
    let mut a = alone::<N>();
    let peer = PeerId::random();
    feed_connection(&mut a, peer, &listener(Protocol::P2p(peer).into()));
    assert!(a.store.is_connected(&peer) && !a.store.contains(&peer));

    // As soon as something is known of it, it is known as connected.
    a.store.addresses().add(peer, [at(1)]);
    assert!(a.store.get(&peer).unwrap().connected);

    // With the behaviour goes what it knew of connections.
    let store = a.store.clone();
    drop(a);
    assert!(!store.is_connected(&peer));
    assert!(store.connected_peers().is_empty());
    assert!(!store.get(&peer).unwrap().connected);
}
