//! Dials of real swarms: what came of each address that was tried, and where it stood in the store's offer.

use libp2p::{
    Multiaddr, PeerId,
    swarm::{dial_opts::DialOpts, dummy},
};
use libp2p_peerstore::{Config, Source};

use crate::{Watch, swarm::*};

type Alone = StoreFirst<dummy::Behaviour, dummy::Behaviour>;

fn node(config: Config) -> (Node<Alone>, Watch) {
    let node: Node<Alone> = Setup::with_config(config).alone();
    let watch = Watch::new(&node.store);
    (node, watch)
}

fn dials(watch: &mut Watch) -> Vec<String> {
    let mut moved = watch.moved();
    moved.retain(|moved| moved.starts_with("dials_total"));
    moved
}

/// Dials one address after the other, and waits for the end of it.
async fn dial(opts: DialOpts, a: &mut Node<Alone>, b: &mut Node<dummy::Behaviour>) {
    let (peer, errors) = (b.id, a.dial_errors(b.id).len());
    a.swarm.dial(opts).unwrap();
    until((&mut *a, b), |(a, _)| {
        a.is_connected(peer) || a.dial_errors(peer).len() > errors
    })
    .await;
}

fn in_turn(peer: PeerId) -> DialOpts {
    let one = 1.try_into().unwrap();
    always(peer).override_dial_concurrency_factor(one).build()
}

#[tokio::test]
async fn each_address_counts_at_its_place_in_the_offer() {
    let config = Config::default().with_max_dial_addresses(6.try_into().unwrap());
    let (mut a, mut watch) = node(config);
    let mut b = silent();
    let good = b.listen().await;
    // Equally good, so offered in the order in which they came.
    let told: Vec<Multiaddr> = (1..=4).map(refused).chain([good.clone()]).collect();
    a.store.addresses().add(b.id, told);
    dial(in_turn(b.id), &mut a, &mut b).await;
    assert_eq!(
        dials(&mut watch),
        [
            "dials_total{outcome=failure,rank=1} +1",
            "dials_total{outcome=failure,rank=2} +1",
            "dials_total{outcome=failure,rank=3} +1",
            "dials_total{outcome=failure,rank=4+} +1",
            "dials_total{outcome=success,rank=4+} +1",
        ]
    );
    disconnect(&mut a, &mut b).await;
    assert_eq!(
        dials(&mut watch),
        [""; 0],
        "no end of a connection is a dial"
    );

    // Now it is proven, and the only one that is offered.
    dial(in_turn(b.id), &mut a, &mut b).await;
    assert_eq!(
        dials(&mut watch),
        ["dials_total{outcome=success,rank=1} +1"]
    );
}

#[tokio::test]
async fn what_the_application_dials_by_address_was_not_offered() {
    let (mut a, mut watch) = node(Config::default());
    let mut b = silent();
    let good = b.listen().await;
    dial(to(b.id, &good), &mut a, &mut b).await;
    let success = "dials_total{outcome=success,rank=not_offered} +1";
    assert_eq!(dials(&mut watch), [success]);
    disconnect(&mut a, &mut b).await;

    // Nor is it offered again when the store knows it.
    dial(to(b.id, &good), &mut a, &mut b).await;
    assert_eq!(dials(&mut watch), [success]);
    disconnect(&mut a, &mut b).await;

    // Without a word of who is expected there.
    a.swarm.dial(good).unwrap();
    until((&mut a, &mut b), |(a, b)| a.is_connected(b.id)).await;
    assert_eq!(dials(&mut watch), [success]);
}

#[tokio::test]
async fn who_is_dialled_counts_nothing() {
    let (mut a, mut watch) = node(Config::default());
    let mut b = silent();
    let at = a.listen().await;
    connect(&mut b, &mut a, &at).await;
    let moved = watch.moved();
    assert!(
        moved.contains(&"connected_peers +1".to_owned()),
        "{moved:?}"
    );
    assert!(!moved.iter().any(|moved| moved.starts_with("dials")));
}

#[tokio::test]
async fn what_cannot_be_dialled_says_so() {
    let (mut a, mut watch) = node(Config::default());
    let mut b = silent();
    a.store.addresses().add(b.id, [refused(1), unsupported()]);
    dial(in_turn(b.id), &mut a, &mut b).await;
    assert_eq!(
        dials(&mut watch),
        [
            "dials_total{outcome=failure,rank=1} +1",
            "dials_total{outcome=unsupported,rank=2} +1",
        ]
    );
    // Nothing known, nothing tried, nothing counted.
    let stranger = PeerId::random();
    a.swarm.dial(stranger).unwrap_err();
    assert_eq!(dials(&mut watch), [""; 0]);
}

#[tokio::test]
async fn an_address_where_somebody_else_answers_is_that_of_a_wrong_peer() {
    let (mut a, mut watch) = node(Config::default());
    let (mut b, expected) = (silent(), PeerId::random());
    let at = b.listen().await;
    a.store.addresses().add(expected, [at.clone()]);
    a.swarm.dial(in_turn(expected)).unwrap();
    until((&mut a, &mut b), |(a, _)| {
        !a.dial_errors(expected).is_empty()
    })
    .await;
    assert_eq!(
        dials(&mut watch),
        ["dials_total{outcome=wrong_peer,rank=1} +1"]
    );
}

#[tokio::test]
async fn what_another_behaviour_offers_counts_at_its_place_in_the_stores_offer() {
    let mut a: Node<StoreFirst<_, _>> = observing();
    let mut watch = Watch::new(&a.store);
    let mut b = plain();
    let good = b.listen().await;
    a.store
        .learned(Source::Kademlia)
        .add(b.id, &[refused(1), good.clone()]);
    a.swarm.behaviour_mut().b().add_address(&b.id, good.clone());
    a.swarm.dial(b.id).unwrap();
    until((&mut a, &mut b), |(a, b)| a.is_connected(b.id)).await;
    let moved = dials(&mut watch);
    let not_offered: Vec<_> = moved.iter().filter(|m| m.contains("not_offered")).collect();
    assert!(not_offered.is_empty(), "{moved:?}");
    assert!(
        moved.contains(&"dials_total{outcome=success,rank=2} +1".to_owned()),
        "{moved:?}"
    );
}
