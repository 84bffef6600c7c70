//! Somebody gossips a fast address of his own for a victim, again and again.

#![allow(clippy::unwrap_used)]

#[path = "support/swarm.rs"]
mod swarm;

use libp2p::swarm::SwarmEvent;
use libp2p_peerstore::{Refused, Source};
use swarm::*;

in_every_order!(
    a_gossiped_impostor_spoils_no_dial_to_a_proven_peer,
    an_impostor_is_found_out_and_stays_out,
);

async fn a_gossiped_impostor_spoils_no_dial_to_a_proven_peer<N: Alone>() {
    for smart in [false, true] {
        let mut a: Node<N> = Setup::default().smart_dial(smart).alone();
        let (mut victim, mut impostor) = (silent(), silent());
        let (good, evil) = (victim.listen().await, impostor.listen().await);
        let peer = victim.id;
        connect(&mut a, &mut victim, &good).await;
        for _ in 0..10 {
            disconnect(&mut a, &mut victim).await;
            a.store
                .learned(Source::Kademlia)
                .add(peer, std::slice::from_ref(&evil));
            assert_eq!(a.dial(peer), [with_id(&good, peer)], "smart dial: {smart}");
            until((&mut a, &mut victim, &mut impostor), |(a, _, _)| {
                a.is_connected(peer)
            })
            .await;
        }
        let failed = a.count(|event| matches!(event, SwarmEvent::OutgoingConnectionError { .. }));
        assert_eq!(failed, 0);
    }
}

async fn an_impostor_is_found_out_and_stays_out<N: Alone>() {
    let mut a: Node<N> = alone();
    let (mut victim, mut impostor) = (silent(), silent());
    let (good, evil) = (victim.listen().await, impostor.listen().await);
    let peer = victim.id;
    // Nothing is proven yet: whoever answers first is found out by the handshake.
    a.store
        .learned(Source::Kademlia)
        .add(peer, std::slice::from_ref(&evil));
    a.dial(peer);
    until((&mut a, &mut impostor), |(a, _)| {
        !a.dial_errors(peer).is_empty()
    })
    .await;
    assert!(!a.addresses(peer).contains(&evil));

    a.store
        .learned(Source::Kademlia)
        .add(peer, &[evil.clone(), good.clone()]);
    assert_eq!(a.store.refusals().get(Refused::DroppedAddress), 1);
    assert_eq!(a.dial(peer), [with_id(&good, peer)]);
    until((&mut a, &mut victim, &mut impostor), |(a, _, _)| {
        a.is_connected(peer)
    })
    .await;
}
