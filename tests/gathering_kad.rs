//! What Kademlia teaches the store, on real swarms and in every order of the behaviour's fields: whatever it says of
//! addresses is merged, and nothing is dropped.

// `[address.clone()]` reads better than `std::slice::from_ref(&address)`.
#![allow(clippy::cloned_ref_to_slice_refs, clippy::unwrap_used)]

#[path = "support/swarm.rs"]
mod swarm;

use std::{net::TcpListener, time::Duration};

use libp2p::{
    Multiaddr, PeerId, identity::Keypair, kad, kad::QueryResult, swarm::NetworkBehaviour,
};
use libp2p_peerstore::{Cause, Event, Sources, Standing};
use swarm::*;

in_every_order!(
    a_node_that_knows_one_address_learns_of_others,
    the_routing_table_is_merged,
    the_closest_peers_are_merged,
    what_a_query_that_timed_out_has_found_is_merged,
    addresses_that_a_query_adds_to_a_dial_are_merged,
    an_announced_provider_is_merged,
    a_peer_that_could_be_in_the_routing_table_is_merged,
    a_peer_that_waits_for_a_place_in_the_routing_table_is_merged,
);

/// A port that takes connections and never answers: a dial to it neither succeeds nor fails while the test lasts.
fn silence() -> (TcpListener, Multiaddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = at(listener.local_addr().unwrap().port());
    (listener, address)
}

/// A peer of Kademlia's alone: it says nothing else of itself.
fn server() -> Node<Kad> {
    Setup::default().build(|_, key| kad(key))
}

fn sources<B: NetworkBehaviour>(a: &Node<B>, peer: PeerId, address: &Multiaddr) -> Sources {
    a.info(peer, address)
        .map_or(Sources::empty(), |info| info.sources)
}

/// What the results of `GetClosestPeers` so far say of the addresses of a peer.
fn found<N: Observing>(a: &Node<N>, peer: PeerId) -> Option<Vec<Multiaddr>> {
    let results = a.kad_events().filter_map(|event| match event {
        kad::Event::OutboundQueryProgressed {
            result: QueryResult::GetClosestPeers(result),
            ..
        } => Some(match result {
            Ok(found) => &found.peers,
            Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
        }),
        _ => None,
    });
    let infos = results.flatten().filter(|info| info.peer_id == peer);
    infos.map(|info| info.addrs.clone()).last()
}

async fn a_node_that_knows_one_address_learns_of_others<N: Observing>() {
    let mut a = observing::<N>();
    let (mut bootstrap, mut x, mut y) = (plain(), plain(), plain());
    let entrance = bootstrap.listen().await;
    let (x_address, y_address) = (x.listen().await, y.listen().await);
    let table = &mut bootstrap.swarm.behaviour_mut().kad;
    table.add_address(&x.id, x_address.clone());
    table.add_address(&y.id, y_address.clone());

    let me = a.id;
    let kad = a.swarm.behaviour_mut().b();
    kad.add_address(&bootstrap.id, entrance.clone());
    kad.get_closest_peers(me);
    let (b_id, x_id, y_id) = (bootstrap.id, x.id, y.id);
    until((&mut a, &mut bootstrap, &mut x, &mut y), |(a, _, _, _)| {
        a.store.is_connected(&x_id) && a.store.is_connected(&y_id) && found(a, x_id).is_some()
    })
    .await;

    assert_eq!(sorted(a.store.peer_ids()), sorted(vec![b_id, x_id, y_id]));
    for (peer, address) in [(b_id, entrance), (x_id, x_address), (y_id, y_address)] {
        assert_eq!(a.addresses(peer), [address.clone()]);
        let info = a.info(peer, &address).unwrap();
        assert_eq!(info.standing, Standing::Proven);
        assert!(info.sources.contains(Sources::KADEMLIA | Sources::DIALLED));
    }
    // Each became known once, before anything else was said of it, and by Kademlia.
    let news = a.news();
    for peer in [b_id, x_id, y_id] {
        let mut about = news.iter().filter(|event| event.peer() == Some(peer));
        assert!(matches!(about.next(), Some(Event::PeerAdded { .. })));
        assert!(matches!(
            about.next(),
            Some(Event::AddressesChanged {
                cause: Cause::Discovery,
                ..
            })
        ));
        assert!(!about.any(|event| matches!(event, Event::PeerAdded { .. })));
    }
}

async fn the_routing_table_is_merged<N: Observing>() {
    let mut a = observing::<N>();
    let peer = PeerId::random();
    a.store.addresses().add(peer, [refused(1)]);
    a.news();
    for (n, address) in [(2, refused(2)), (3, refused(3))] {
        a.swarm
            .behaviour_mut()
            .b()
            .add_address(&peer, address.clone());
        until(&mut a, |a| sources(a, peer, &address) == Sources::KADEMLIA).await;
        assert_eq!(a.addresses(peer).len(), n);
    }
    assert_eq!(
        a.addresses(peer),
        sorted(vec![refused(1), refused(2), refused(3)])
    );
    assert_eq!(sources(&a, peer, &refused(1)), Sources::APPLICATION);
    assert_eq!(
        a.info(peer, &refused(2)).unwrap().standing,
        Standing::Hearsay
    );
    let changes = a.news();
    assert_eq!(changes.len(), 2);
    assert!(changes.iter().all(|event| matches!(
        event,
        Event::AddressesChanged {
            cause: Cause::Discovery,
            ..
        }
    )));
}

/// `a` is connected to `x`, of which a third node will tell an address that `x` itself does not list.
async fn another_address_of_a_connected_peer<N: Observing>(
    a: &mut Node<N>,
) -> (
    Node<Plain>,
    Node<Plain>,
    Multiaddr,
    (TcpListener, Multiaddr),
) {
    let (mut teller, mut x) = (plain(), plain());
    let entrance = teller.listen().await;
    let listed = x.listen().await;
    let (open, other) = silence();
    let table = &mut teller.swarm.behaviour_mut().kad;
    table.add_address(&x.id, listed.clone());
    table.add_address(&x.id, other.clone());
    let x_id = x.id;
    connect(a, &mut x, &listed).await;
    until((&mut *a, &mut x), |(a, _)| a.identified(x_id) > 0).await;
    assert_eq!(a.addresses(x_id), [listed.clone()]);
    a.swarm
        .behaviour_mut()
        .b()
        .add_address(&teller.id, entrance);
    (teller, x, listed, (open, other))
}

async fn the_closest_peers_are_merged<N: Observing>() {
    let mut a = observing::<N>();
    let (mut teller, mut x, listed, (_open, other)) =
        another_address_of_a_connected_peer(&mut a).await;
    let peer = x.id;
    a.news();
    a.swarm.behaviour_mut().b().get_closest_peers(peer);
    until((&mut a, &mut teller, &mut x), |(a, _, _)| {
        found(a, peer).is_some()
    })
    .await;
    assert!(found(&a, peer).unwrap().contains(&with_id(&other, peer)));
    // It was connected all the time: no dial has told the address.
    assert_eq!(
        a.addresses(peer),
        sorted(vec![listed.clone(), other.clone()])
    );
    assert_eq!(sources(&a, peer, &other), Sources::KADEMLIA);
    assert_eq!(a.info(peer, &listed).unwrap().standing, Standing::Proven);
    let changes = a.news();
    let mut of_x = changes.iter().filter(|event| event.peer() == Some(peer));
    assert!(matches!(
        of_x.next(),
        Some(Event::AddressesChanged {
            cause: Cause::Discovery,
            ..
        })
    ));
    assert!(of_x.next().is_none());
}

async fn what_a_query_that_timed_out_has_found_is_merged<N: Observing>() {
    let mut a: Node<N> = Setup::default().compose(
        // Kademlia looks at the time only when something else wakes the swarm.
        |store, key| store.observe(restless_identify(key)),
        |store, key| {
            store.observe(kad_with(key, |config| {
                config.set_query_timeout(Duration::from_secs(2));
            }))
        },
    );
    let (mut teller, mut x, listed, (_open, other)) =
        another_address_of_a_connected_peer(&mut a).await;
    let peer = x.id;
    // The query waits for this one until its time is over.
    let ghost = PeerId::random();
    let (_silence, nowhere) = silence();
    a.swarm.behaviour_mut().b().add_address(&ghost, nowhere);
    a.swarm.behaviour_mut().b().get_closest_peers(peer);
    until((&mut a, &mut teller, &mut x), |(a, _, _)| {
        a.kad_events().any(|event| {
            matches!(
                event,
                kad::Event::OutboundQueryProgressed {
                    result: QueryResult::GetClosestPeers(Err(_)),
                    ..
                }
            )
        })
    })
    .await;
    assert!(found(&a, peer).unwrap().contains(&with_id(&other, peer)));
    // Identify, which does not list it, may have had another word by now.
    assert!(a.news().iter().any(|event| matches!(
        event,
        Event::AddressesChanged { peer: p, addresses, cause: Cause::Discovery }
            if *p == peer && sorted(addresses.to_vec()) == sorted(vec![listed.clone(), other.clone()])
    )));
}

async fn addresses_that_a_query_adds_to_a_dial_are_merged<N: Observing>() {
    let (mut a, mut teller) = (observing::<N>(), server());
    let entrance = teller.listen().await;
    let ghost = PeerId::random();
    let (_silence, nowhere) = silence();
    teller
        .swarm
        .behaviour_mut()
        .add_address(&ghost, nowhere.clone());
    a.store.addresses().add(ghost, [refused(1)]);
    a.news();

    let kad = a.swarm.behaviour_mut().b();
    kad.add_address(&teller.id, entrance);
    kad.get_closest_peers(ghost);
    until((&mut a, &mut teller), |(a, _)| {
        sources(a, ghost, &nowhere) == Sources::KADEMLIA
    })
    .await;
    // No event of Kademlia's has named it: the dial was the only place to see.
    assert_eq!(found(&a, ghost), None);
    let named = a
        .kad_events()
        .any(|event| matches!(event, kad::Event::RoutingUpdated { peer, .. } if *peer == ghost));
    assert!(!named);
    assert_eq!(
        a.addresses(ghost),
        sorted(vec![refused(1), nowhere.clone()])
    );
    // And it was dialled there.
    assert!(a.dialled().contains(&with_id(&nowhere, ghost)));
}

async fn an_announced_provider_is_merged<N: Observing>() {
    let mut a: Node<N> = Setup::default().compose(
        |store, key| store.observe(identify(key)),
        |store, key| {
            store.observe(kad_with(key, |config| {
                config.set_record_filtering(kad::StoreInserts::FilterBoth);
            }))
        },
    );
    let mut b = server();
    let entrance = a.listen().await;
    let peer = b.id;
    a.store.addresses().add(peer, [refused(1)]);
    a.news();
    // Providers announce their external addresses.
    let announced: Multiaddr = "/dns4/provider.example/tcp/4001".parse().unwrap();
    b.swarm.add_external_address(announced.clone());
    let me = a.id;
    let kad = b.swarm.behaviour_mut();
    kad.add_address(&me, entrance);
    kad.start_providing(kad::RecordKey::new(b"a rule")).unwrap();
    until((&mut a, &mut b), |(a, _)| {
        sources(a, peer, &announced) == Sources::KADEMLIA
    })
    .await;
    assert_eq!(a.addresses(peer), sorted(vec![refused(1), announced]));
    let news = a.news();
    assert!(matches!(
        &news[..],
        [Event::AddressesChanged { peer: p, cause: Cause::Discovery, .. }] if *p == peer
    ));
}

async fn a_peer_that_could_be_in_the_routing_table_is_merged<N: Observing>() {
    let mut a: Node<N> = Setup::default().compose(
        |store, key| store.observe(identify(key)),
        |store, key| {
            store.observe(kad_with(key, |config| {
                config.set_kbucket_inserts(kad::BucketInserts::Manual);
            }))
        },
    );
    let mut b = plain();
    let address = b.listen().await;
    let peer = b.id;
    connect(&mut a, &mut b, &address).await;
    until((&mut a, &mut b), |(a, _)| {
        a.kad_events()
            .any(|event| matches!(event, kad::Event::RoutablePeer { peer: p, .. } if *p == peer))
    })
    .await;
    assert_eq!(a.addresses(peer), [address.clone()]);
    assert!(sources(&a, peer, &address).contains(Sources::KADEMLIA | Sources::DIALLED));
}

async fn a_peer_that_waits_for_a_place_in_the_routing_table_is_merged<N: Observing>() {
    let mut a: Node<N> = Setup::default().compose(
        |store, key| store.observe(identify(key)),
        |store, key| {
            store.observe(kad_with(key, |config| {
                config.set_kbucket_size(1.try_into().unwrap());
            }))
        },
    );
    let bucket = |peer: PeerId| {
        let distance = kad::KBucketKey::from(a.id).distance(&kad::KBucketKey::from(peer));
        distance.ilog2()
    };
    // One that is not there holds the only place that the other could have.
    let keys = std::iter::repeat_with(Keypair::generate_ed25519);
    let mut b = keys
        .map(|key| Setup::with_key(key).plain(identify))
        .find(|b| bucket(b.id) == Some(255))
        .unwrap();
    let holder = std::iter::repeat_with(PeerId::random)
        .find(|holder| bucket(*holder) == Some(255))
        .unwrap();
    let (_silence, nowhere) = silence();
    a.swarm.behaviour_mut().b().add_address(&holder, nowhere);

    let address = b.listen().await;
    let peer = b.id;
    connect(&mut a, &mut b, &address).await;
    until((&mut a, &mut b), |(a, _)| {
        a.kad_events().any(
            |event| matches!(event, kad::Event::PendingRoutablePeer { peer: p, .. } if *p == peer),
        )
    })
    .await;
    assert_eq!(a.addresses(peer), [address.clone()]);
    assert!(sources(&a, peer, &address).contains(Sources::KADEMLIA | Sources::DIALLED));
}
