//! Kademlia and dials on real connections.

use libp2p::PeerId;
use libp2p_peerstore::{Config, Refused, Standing};

use crate::{Full, swarm::*};

#[tokio::test]
async fn invented_peers_in_answers_of_kademlia_displace_no_peer_that_was_dialled() {
    const CAPACITY: usize = 12;
    let config = Config::default().with_max_peers(CAPACITY.try_into().unwrap());
    let mut a: Node<Full> = Setup::with_config(config).observing();
    let mut friends = vec![plain(), plain(), plain()];
    let mut known = Vec::new();
    for friend in &mut friends {
        let address = friend.listen().await;
        connect(&mut a, friend, &address).await;
        let id = friend.id;
        until((&mut a, &mut *friend), |(a, _)| a.identified(id) > 0).await;
        disconnect(&mut a, friend).await;
        known.push((id, address));
    }

    let mut liar = plain();
    let entrance = liar.listen().await;
    connect(&mut a, &mut liar, &entrance).await;
    for round in 1..=4 {
        let invented: Vec<PeerId> = (0..60).map(|_| PeerId::random()).collect();
        let table = &mut liar.swarm.behaviour_mut().kad;
        for (n, peer) in invented.iter().enumerate() {
            table.add_address(peer, refused(1 + n as u16 % 6));
        }
        let target = PeerId::random();
        a.swarm.behaviour_mut().b().get_closest_peers(target);
        until((&mut a, &mut liar), |(a, _)| finished(a) >= round).await;
        let table = &mut liar.swarm.behaviour_mut().kad;
        for peer in &invented {
            table.remove_peer(peer);
        }
        assert!(a.store.len() <= CAPACITY);
        assert_eq!(a.store.len(), a.store.peer_ids().len());
        for (friend, address) in &known {
            let info = a.info(*friend, address).unwrap();
            assert_eq!(info.standing, Standing::Proven);
        }
    }
    // They came by in greater numbers than there was room for, and it was said why they were not taken.
    let refusals = a.store.refusals();
    let left_out = refusals.get(Refused::StoreFull) + refusals.get(Refused::TooManyClaims);
    let news = a.news();
    let removed = news
        .iter()
        .filter(|event| matches!(event, libp2p_peerstore::Event::PeerRemoved { .. }));
    assert!(left_out as usize + removed.count() >= 20, "{refusals:?}");
}

/// Queries of Kademlia that have ended.
fn finished(a: &Node<Full>) -> usize {
    let ended = a.kad_events().filter(|event| {
        matches!(event, libp2p::kad::Event::OutboundQueryProgressed { step, .. } if step.last)
    });
    ended.count()
}

#[tokio::test]
async fn our_own_address_claimed_by_another_peer_is_found_out_by_one_dial() {
    let mut a: Node<Full> = Setup::default().observing();
    let own = a.listen().await;
    let mut liar = plain();
    let peer = liar.id;
    liar.swarm.add_external_address(own.clone());
    connect(&mut liar, &mut a, &own).await;
    until((&mut a, &mut liar), |(a, _)| a.identified(peer) > 0).await;
    assert_eq!(a.addresses(peer), [own.clone()]);
    disconnect(&mut liar, &mut a).await;

    // From a port of its own: from the one that it listens on, TCP connects to itself, which is no more than a failure.
    let dial = always(peer).allocate_new_port().build();
    assert_eq!(a.dial_with(dial), [with_id(&own, peer)]);
    until(&mut a, |a| !a.dial_errors(peer).is_empty()).await;
    assert!(
        !a.addresses(peer).contains(&own),
        "{:?}",
        a.dial_errors(peer)
    );
    assert!(!a.store.contains(&a.id));

    let heard = a.identified(peer);
    connect(&mut liar, &mut a, &own).await;
    until((&mut a, &mut liar), |(a, _)| a.identified(peer) > heard).await;
    assert!(!a.addresses(peer).contains(&own));
    assert!(a.store.refusals().get(Refused::OwnAddress) >= 1);
}
