//! What a peer has dropped does not come back by hearsay, and comes back by proof or by the peer itself.

use libp2p::kad;
use libp2p_peerstore::{Cause, Refused, Sources, Standing};

use super::{address_lists, meet};
use crate::swarm::*;

in_every_order!(
    kademlia_does_not_bring_back_what_a_push_dropped,
    another_discovery_does_not_bring_back_what_a_push_dropped,
    a_verified_dial_brings_a_dropped_address_back,
    the_peer_itself_brings_a_dropped_address_back,
);

async fn kademlia_does_not_bring_back_what_a_push_dropped<N: Observing>() {
    let (mut a, mut b, mut c) = (observing::<N>(), plain(), plain());
    let one = b.listen().await;
    let (listener, two) = b.listener().await;
    let peer = b.id;
    meet(&mut a, &mut b, &one).await;
    // The routing tables of both others hold the address that is about to go.
    let address = c.listen().await;
    c.swarm.behaviour_mut().kad.add_address(&peer, two.clone());
    let kad = a.swarm.behaviour_mut().b();
    kad.add_address(&peer, two.clone());
    kad.add_address(&c.id, address.clone());
    let found = |a: &Node<N>| a.info(peer, &two).unwrap().sources;
    until(&mut a, |a| found(a).contains(Sources::KADEMLIA)).await;

    b.stop_listening(listener).await;
    until((&mut a, &mut b), |(a, _)| a.identified(peer) == 2).await;
    assert_eq!(a.addresses(peer), [one.clone()]);
    a.news();
    let refused = a.store.refusals().get(Refused::DroppedAddress);

    a.swarm.behaviour_mut().b().get_closest_peers(peer);
    let listed = |a: &Node<N>| {
        a.kad_events().any(|event| match event {
            kad::Event::OutboundQueryProgressed {
                result: kad::QueryResult::GetClosestPeers(Ok(found)),
                ..
            } => found
                .peers
                .iter()
                .any(|info| info.peer_id == peer && info.addrs.contains(&with_id(&two, peer))),
            _ => false,
        })
    };
    until((&mut a, &mut b, &mut c), |(a, _, _)| listed(a)).await;
    assert!(a.store.refusals().get(Refused::DroppedAddress) > refused);
    assert_eq!(a.addresses(peer), [one.clone()]);
    assert!(a.news().iter().all(|event| event.peer() != Some(peer)));

    // Nor does it come back by a dial, to which kad and identify's cache would add it.
    assert_eq!(a.dial(peer), [with_id(&one, peer)]);
    assert_eq!(a.addresses(peer), [one]);
}

async fn another_discovery_does_not_bring_back_what_a_push_dropped<N: Observing>() {
    let (mut a, mut b) = (observing::<N>(), plain());
    let one = b.listen().await;
    let (listener, two) = b.listener().await;
    let peer = b.id;
    meet(&mut a, &mut b, &one).await;
    b.stop_listening(listener).await;
    until((&mut a, &mut b), |(a, _)| a.identified(peer) == 2).await;
    a.news();

    for form in [two.clone(), with_id(&two, peer)] {
        a.swarm.add_peer_address(peer, form);
    }
    assert_eq!(a.store.refusals().get(Refused::DroppedAddress), 2);
    assert_eq!(a.addresses(peer), [one]);
    assert!(a.news().is_empty());

    // The application's own word is not hearsay.
    a.store.addresses().add(peer, [two.clone()]);
    assert!(a.info(peer, &two).is_some());
}

async fn a_verified_dial_brings_a_dropped_address_back<N: Observing>() {
    let (mut a, mut b) = (observing::<N>(), silent());
    let (one, peer) = (b.listen().await, b.id);
    a.store.addresses().add(peer, [one.clone(), refused(1)]);
    a.store.addresses().remove(peer, [one.clone()]);
    a.swarm.add_peer_address(peer, one.clone());
    assert_eq!(a.addresses(peer), [refused(1)]);

    connect(&mut a, &mut b, &one).await;
    assert_eq!(a.info(peer, &one).unwrap().standing, Standing::Proven);
    // And it is no longer under the ban.
    a.store.addresses().delete(&peer);
    a.swarm.add_peer_address(peer, one.clone());
    assert_eq!(a.addresses(peer), [one]);
}

async fn the_peer_itself_brings_a_dropped_address_back<N: Observing>() {
    let (mut a, mut b) = (observing::<N>(), plain());
    let (one, two) = (b.listen().await, b.listen().await);
    let peer = b.id;
    meet(&mut a, &mut b, &one).await;
    a.store.addresses().remove(peer, [two.clone()]);
    a.swarm.add_peer_address(peer, two.clone());
    assert_eq!(a.addresses(peer), [one.clone()]);
    a.news();

    b.swarm.behaviour_mut().identify.push([a.id]);
    until((&mut a, &mut b), |(a, _)| a.identified(peer) == 2).await;
    let both = sorted(vec![one, two]);
    assert_eq!(a.addresses(peer), both);
    assert_eq!(address_lists(&a.news()), [(both, Cause::Identify)]);
}
