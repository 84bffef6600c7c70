//! Identify without `Observed`: what the store's own connection handler and the swarm tell is all there is.

use std::time::Duration;

use libp2p::{
    identify, kad,
    swarm::{ConnectionError, NetworkBehaviour, SwarmEvent},
};
use libp2p_peerstore::{AGENT_VERSION, Cause, Sources, Standing};

use super::{KAD, address_lists, protocol_lists, speaking};
use crate::swarm::*;

in_every_order!(
    protocols_follow_what_is_added_and_removed,
    a_swap_of_protocols_is_one_change,
    each_connection_keeps_its_own_set_and_the_last_report_replaces,
    addresses_are_only_added,
    the_handler_does_not_keep_a_connection_alive,
);

/// Identify and Kademlia, neither of them observed.
pub trait Unobserved: Order<identify::Behaviour, Kad> {}
impl<T: Order<identify::Behaviour, Kad>> Unobserved for T {}

fn unobserved<N: Unobserved>() -> Node<N> {
    Setup::default().compose(|_, key| identify(key), |_, key| kad(key))
}

/// Lets the other side push once more: what came before it has arrived by then.
async fn another_push<N: Unobserved, B: NetworkBehaviour>(
    a: &mut Node<N>,
    b: &mut Node<B>,
    push: impl FnOnce(&mut B, libp2p::PeerId),
) {
    let (me, peer) = (a.id, b.id);
    let pushes = a.identified(peer);
    push(b.swarm.behaviour_mut(), me);
    until((a, b), |(a, _)| a.identified(peer) > pushes).await;
}

async fn protocols_follow_what_is_added_and_removed<N: Unobserved>() {
    let (mut a, mut b) = (unobserved::<N>(), plain());
    let address = b.listen().await;
    let peer = b.id;
    connect(&mut a, &mut b, &address).await;
    until((&mut a, &mut b), |(a, _)| a.speaks(peer, KAD)).await;
    let with = a.listed_protocols(peer);
    assert_eq!(a.protocols(peer), with);
    let mut without = with.clone();
    without.retain(|protocol| protocol != KAD);
    a.news();

    for (mode, spoken) in [
        (kad::Mode::Client, &without),
        (kad::Mode::Server, &with),
        (kad::Mode::Client, &without),
    ] {
        b.swarm.behaviour_mut().kad.set_mode(Some(mode));
        until((&mut a, &mut b), |(a, _)| a.protocols(peer) == *spoken).await;
        another_push(&mut a, &mut b, |b, me| b.identify.push([me])).await;
        assert_eq!(
            protocol_lists(&a.news()),
            [(spoken.clone(), Cause::Identify)]
        );
    }
    // The rest of what identify says nobody has heard.
    assert_eq!(a.store.metadata().get_value(&peer, AGENT_VERSION), None);
}

async fn a_swap_of_protocols_is_one_change<N: Unobserved>() {
    let (mut a, mut b) = (unobserved::<N>(), speaking(&["/one/1", "/both/1"]));
    let address = b.listen().await;
    let peer = b.id;
    connect(&mut a, &mut b, &address).await;
    until((&mut a, &mut b), |(a, _)| a.speaks(peer, "/one/1")).await;
    a.news();

    b.swarm
        .behaviour_mut()
        .speaker
        .speak(&["/both/1", "/two/1"]);
    until((&mut a, &mut b), |(a, _)| a.speaks(peer, "/two/1")).await;
    another_push(&mut a, &mut b, |b, me| b.identify.push([me])).await;
    let spoken = a.listed_protocols(peer);
    assert_eq!(protocol_lists(&a.news()), [(spoken, Cause::Identify)]);
}

async fn each_connection_keeps_its_own_set_and_the_last_report_replaces<N: Unobserved>() {
    let (mut a, mut b) = (unobserved::<N>(), plain());
    let address = b.listen().await;
    let peer = b.id;
    for _ in 0..2 {
        a.swarm.dial(to(peer, &address)).unwrap();
    }
    until((&mut a, &mut b), |(a, _)| {
        a.store.connections(&peer) == 2 && a.identified(peer) == 2 && a.speaks(peer, KAD)
    })
    .await;
    let with = a.protocols(peer);
    a.news();

    // Each connection reports the loss; it is one change.
    b.swarm
        .behaviour_mut()
        .kad
        .set_mode(Some(kad::Mode::Client));
    until((&mut a, &mut b), |(a, _)| a.identified(peer) == 4).await;
    another_push(&mut a, &mut b, |b, me| b.identify.push([me])).await;
    let mut without = with.clone();
    without.retain(|protocol| protocol != KAD);
    assert_eq!(
        protocol_lists(&a.news()),
        [(without.clone(), Cause::Identify)]
    );

    // A connection that ends takes nothing with it, and the one that is left goes on reporting whole sets.
    let first = a.said.iter().find_map(|event| match event {
        SwarmEvent::ConnectionEstablished { connection_id, .. } => Some(*connection_id),
        _ => None,
    });
    assert!(a.swarm.close_connection(first.unwrap()));
    until((&mut a, &mut b), |(a, _)| a.store.connections(&peer) == 1).await;
    assert_eq!(a.protocols(peer), without);
    b.swarm
        .behaviour_mut()
        .kad
        .set_mode(Some(kad::Mode::Server));
    until((&mut a, &mut b), |(a, _)| a.speaks(peer, KAD)).await;
    assert_eq!(a.protocols(peer), with);

    // With the last connection nothing is forgotten.
    disconnect(&mut a, &mut b).await;
    assert_eq!(a.protocols(peer), with);
}

async fn addresses_are_only_added<N: Unobserved>() {
    let (mut a, mut b) = (unobserved::<N>(), plain());
    let one = b.listen().await;
    let (listener, two) = b.listener().await;
    let peer = b.id;
    a.store.addresses().add(peer, [refused(1)]);
    a.news();
    connect(&mut a, &mut b, &one).await;
    let all = sorted(vec![refused(1), one.clone(), two.clone()]);
    until((&mut a, &mut b), |(a, _)| a.addresses(peer) == all).await;
    // Who told them the swarm does not say.
    let info = a.info(peer, &two).unwrap();
    assert_eq!(
        (info.standing, info.sources),
        (Standing::Hearsay, Sources::DISCOVERY)
    );
    let causes: Vec<Cause> = address_lists(&a.news())
        .into_iter()
        .map(|(_, cause)| cause)
        .collect();
    assert_eq!(causes, [Cause::Dial, Cause::Discovery]);

    b.stop_listening(listener).await;
    until((&mut a, &mut b), |(a, _)| a.identified(peer) == 2).await;
    assert_eq!(a.addresses(peer), all);
    assert!(address_lists(&a.news()).is_empty());
}

async fn the_handler_does_not_keep_a_connection_alive<N: Unobserved>() {
    let mut a: Node<N> = Setup::default()
        .idle(Duration::from_millis(50))
        .compose(|_, key| identify(key), |_, key| kad(key));
    let mut b = plain();
    let address = b.listen().await;
    let peer = b.id;
    connect(&mut a, &mut b, &address).await;
    let idle = |event: &SwarmEvent<Out>| {
        matches!(
            event,
            SwarmEvent::ConnectionClosed {
                cause: Some(ConnectionError::KeepAliveTimeout),
                ..
            }
        )
    };
    until((&mut a, &mut b), |(a, _)| a.count(idle) == 1).await;
    assert!(!a.store.is_connected(&peer));
    // What it had to say it has said all the same.
    assert_eq!(a.store.peers_supporting(KAD), [peer]);
}
