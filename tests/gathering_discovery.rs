//! What discovery protocols teach the store, and how they take it back: a real rendezvous point on the loopback
//! interface, what the application and other behaviours announce, and the events of mDNS.

// `[address.clone()]` reads better than `std::slice::from_ref(&address)`.
#![allow(clippy::cloned_ref_to_slice_refs, clippy::unwrap_used)]

#[path = "support/swarm.rs"]
mod swarm;

use libp2p::{
    Multiaddr, PeerId, identity::Keypair, mdns, rendezvous, swarm::NetworkBehaviour,
    swarm::SwarmEvent, swarm::dummy,
};
use libp2p_peerstore::{
    Cause, Changed, Event, Observed, PeerStore, Refused, Source, Sources, Standing,
};
use swarm::*;

in_every_order!(
    a_rendezvous_point_tells_the_addresses_of_a_peer_once,
    a_registration_that_expires_takes_its_addresses_and_the_peer_with_it,
    a_registration_that_expires_leaves_what_others_told,
    a_client_that_is_not_observed_is_heard_through_the_swarm,
    what_an_observed_behaviour_announces_is_kept_under_its_source,
    the_application_announces_addresses_through_the_swarm,
    what_is_announced_for_somebody_else_is_refused,
    mdns_adds_and_withdraws_its_own_claims_only,
    a_connected_peer_stays_known_without_addresses,
);

const NAMESPACE: &str = "rules";

/// A client of a rendezvous point, observed.
trait Client: Order<Observed<rendezvous::client::Behaviour>, dummy::Behaviour> {}
impl<T: Order<Observed<rendezvous::client::Behaviour>, dummy::Behaviour>> Client for T {}

fn rendezvous(key: &Keypair) -> rendezvous::client::Behaviour {
    rendezvous::client::Behaviour::new(key.clone())
}

fn client<N: Client>() -> Node<N> {
    Setup::default().compose(
        |store, key| store.observe(rendezvous(key)),
        |_, _| dummy::Behaviour,
    )
}

#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "Out")]
struct Point {
    server: rendezvous::server::Behaviour,
}

#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "Out")]
struct Registered {
    client: rendezvous::client::Behaviour,
}

fn namespace() -> rendezvous::Namespace {
    rendezvous::Namespace::from_static(NAMESPACE)
}

fn external() -> Multiaddr {
    "/dns4/registered.example/tcp/4001".parse().unwrap()
}

/// A rendezvous point where one peer is registered for so many seconds; the peer's id and the point's address.
async fn rendezvous_point(ttl: u64) -> (Node<Point>, PeerId, Multiaddr) {
    let mut point = Setup::default().build(|_, _| Point {
        server: rendezvous::server::Behaviour::new(
            rendezvous::server::Config::default().with_min_ttl(1),
        ),
    });
    let address = point.listen().await;
    let mut peer = Setup::default().build(|_, key| Registered {
        client: rendezvous(key),
    });
    connect(&mut peer, &mut point, &address).await;
    peer.swarm.add_external_address(external());
    let client = &mut peer.swarm.behaviour_mut().client;
    client.register(namespace(), point.id, Some(ttl)).unwrap();
    until((&mut peer, &mut point), |(peer, _)| {
        peer.said.iter().any(|event| {
            matches!(
                event,
                SwarmEvent::Behaviour(Out::Client(rendezvous::client::Event::Registered { .. }))
            )
        })
    })
    .await;
    (point, peer.id, address)
}

fn discoveries<B: NetworkBehaviour<ToSwarm = Out>>(a: &Node<B>) -> usize {
    a.count(|event| {
        matches!(
            event,
            SwarmEvent::Behaviour(Out::Client(rendezvous::client::Event::Discovered { .. }))
        )
    })
}

/// Asks the point who is there, and waits for the answer.
async fn discover<B: NetworkBehaviour<ToSwarm = Out>>(
    a: &mut Node<B>,
    point: &mut Node<Point>,
    client: impl FnOnce(&mut B) -> &mut rendezvous::client::Behaviour,
) {
    let before = discoveries(a);
    let client = client(a.swarm.behaviour_mut());
    client.discover(Some(namespace()), None, None, point.id);
    until((a, point), |(a, _)| discoveries(a) > before).await;
}

// --- rendezvous ----------------------------------------------------------------------------------------------

async fn a_rendezvous_point_tells_the_addresses_of_a_peer_once<N: Client>() {
    let (mut point, peer, address) = rendezvous_point(7200).await;
    let mut a = client::<N>();
    connect(&mut a, &mut point, &address).await;
    a.news();
    for round in 0..3 {
        discover(&mut a, &mut point, |b| b.a()).await;
        assert_eq!(a.addresses(peer), [external()]);
        let info = a.info(peer, &external()).unwrap();
        assert_eq!(
            (info.standing, info.sources),
            (Standing::Hearsay, Sources::RENDEZVOUS)
        );
        let news = a.news();
        match round {
            0 => assert!(
                matches!(
                    &news[..],
                    [
                        Event::PeerAdded { .. },
                        Event::AddressesChanged {
                            cause: Cause::Discovery,
                            ..
                        }
                    ]
                ),
                "{news:?}"
            ),
            _ => assert!(news.is_empty(), "{news:?}"),
        }
    }
}

async fn a_registration_that_expires_takes_its_addresses_and_the_peer_with_it<N: Client>() {
    let (mut point, peer, address) = rendezvous_point(1).await;
    let mut a = client::<N>();
    connect(&mut a, &mut point, &address).await;
    a.news();
    discover(&mut a, &mut point, |b| b.a()).await;
    until((&mut a, &mut point), |(a, _)| !a.store.contains(&peer)).await;
    let news = a.news();
    assert!(
        matches!(
            &news[..],
            [
                Event::PeerAdded { .. },
                Event::AddressesChanged { .. },
                Event::AddressesChanged { addresses, cause: Cause::Expired, .. },
                Event::PeerRemoved { cause: Cause::Expired, .. },
            ] if addresses.is_empty()
        ),
        "{news:?}"
    );
}

async fn a_registration_that_expires_leaves_what_others_told<N: Client>() {
    let (mut point, peer, address) = rendezvous_point(7200).await;
    let mut a = client::<N>();
    connect(&mut a, &mut point, &address).await;
    discover(&mut a, &mut point, |b| b.a()).await;
    a.store.addresses().add(peer, [refused(1)]);
    a.swarm.add_peer_address(peer, external());
    a.news();

    let expired = rendezvous::client::Event::Expired { peer };
    a.store.learn(&expired);
    assert_eq!(a.addresses(peer), sorted(vec![external(), refused(1)]));
    let info = a.info(peer, &external()).unwrap();
    assert_eq!(info.sources, Sources::DISCOVERY);
    assert!(a.news().is_empty());
    // There is nothing left to withdraw.
    a.store.learn(&expired);
    assert_eq!(a.addresses(peer).len(), 2);
}

async fn a_client_that_is_not_observed_is_heard_through_the_swarm<
    N: Order<rendezvous::client::Behaviour, dummy::Behaviour>,
>() {
    let (mut point, peer, address) = rendezvous_point(7200).await;
    let mut a: Node<N> =
        Setup::default().compose(|_, key| rendezvous(key), |_, _| dummy::Behaviour);
    connect(&mut a, &mut point, &address).await;
    discover(&mut a, &mut point, |b| b.a()).await;
    until((&mut a, &mut point), |(a, _)| a.store.contains(&peer)).await;
    let info = a.info(peer, &external()).unwrap();
    assert_eq!(info.sources, Sources::DISCOVERY);
}

async fn what_an_observed_behaviour_announces_is_kept_under_its_source<N: Client>() {
    let (mut point, peer, address) = rendezvous_point(7200).await;
    // Nothing is taken from the events: what is left is what the behaviour announces.
    let mut a: Node<N> = Setup::default().compose(
        |store, key| {
            let observed = store.observe_with(rendezvous(key), |_, _| {});
            observed.with_source(Source::Kademlia)
        },
        |_, _| dummy::Behaviour,
    );
    connect(&mut a, &mut point, &address).await;
    a.news();
    discover(&mut a, &mut point, |b| b.a()).await;
    until((&mut a, &mut point), |(a, _)| a.store.contains(&peer)).await;
    // Once, although the swarm tells the store's own behaviour too.
    let info = a.info(peer, &external()).unwrap();
    assert_eq!(info.sources, Sources::KADEMLIA);
    assert_eq!(a.news().len(), 2);
}

// --- the application -----------------------------------------------------------------------------------------

async fn the_application_announces_addresses_through_the_swarm<N: Alone>() {
    let (mut a, mut b) = (alone::<N>(), silent());
    let address = b.listen().await;
    let peer = b.id;
    for form in [
        address.clone(),
        with_id(&address, peer),
        with_id(&with_id(&address, peer), peer),
    ] {
        a.swarm.add_peer_address(peer, form);
    }
    assert_eq!(a.addresses(peer), [address.clone()]);
    let info = a.info(peer, &address).unwrap();
    assert_eq!(
        (info.standing, info.sources),
        (Standing::Hearsay, Sources::DISCOVERY)
    );
    let news = a.news();
    assert!(
        matches!(
            &news[..],
            [
                Event::PeerAdded { .. },
                Event::AddressesChanged {
                    cause: Cause::Discovery,
                    ..
                }
            ]
        ),
        "{news:?}"
    );
    // That is enough to dial it.
    a.swarm.dial(peer).unwrap();
    until((&mut a, &mut b), |(a, _)| a.is_connected(peer)).await;
}

async fn what_is_announced_for_somebody_else_is_refused<N: Alone>() {
    let mut a = alone::<N>();
    let (peer, other, me) = (PeerId::random(), PeerId::random(), a.id);
    a.swarm.add_peer_address(peer, with_id(&at(1), other));
    a.swarm.add_peer_address(peer, Multiaddr::empty());
    a.swarm.add_peer_address(me, at(1));
    assert!(a.store.is_empty() && a.news().is_empty());
    let refusals: Vec<_> = a.store.refusals().iter().collect();
    assert_eq!(
        refusals,
        [
            (Refused::EmptyAddress, 1),
            (Refused::ForeignPeerId, 1),
            (Refused::LocalPeer, 1)
        ]
    );
}

// --- mDNS ----------------------------------------------------------------------------------------------------

async fn mdns_adds_and_withdraws_its_own_claims_only<N: Alone>() {
    let (mut a, mut b) = (alone::<N>(), silent());
    let dialled = b.listen().await;
    let peer = b.id;
    let (alone, shared) = (at(1), at(2));
    let all = [&alone, &shared, &dialled];
    let told = all.map(|address| (peer, with_id(address, peer))).to_vec();
    a.store.learn(&mdns::Event::Discovered(told.clone()));
    assert_eq!(
        a.addresses(peer),
        sorted(all.into_iter().cloned().collect())
    );
    for address in all {
        assert_eq!(a.info(peer, address).unwrap().sources, Sources::MDNS);
    }
    connect(&mut a, &mut b, &dialled).await;
    a.swarm.add_peer_address(peer, shared.clone());
    a.news();
    // mDNS repeats itself.
    a.store.learn(&mdns::Event::Discovered(told.clone()));
    assert!(a.news().is_empty());

    a.store.learn(&mdns::Event::Expired(told.clone()));
    assert_eq!(
        a.addresses(peer),
        sorted(vec![dialled.clone(), shared.clone()])
    );
    assert_eq!(a.info(peer, &dialled).unwrap().standing, Standing::Proven);
    assert_eq!(a.info(peer, &shared).unwrap().sources, Sources::DISCOVERY);
    let news = a.news();
    assert!(
        matches!(
            &news[..],
            [Event::AddressesChanged {
                cause: Cause::Expired,
                ..
            }]
        ),
        "{news:?}"
    );

    // What it took back it may tell again.
    a.store.learn(&mdns::Event::Discovered(told.clone()));
    assert_eq!(a.addresses(peer).len(), 3);
    // It tells once, and says when that is over.
    let expires = |a: &Node<N>| a.info(peer, &alone).unwrap().expires;
    assert_eq!(expires(&a), None);
    a.swarm.add_peer_address(peer, alone.clone());
    a.store.learn(&mdns::Event::Expired(told));
    assert!(expires(&a).is_some());
}

async fn a_connected_peer_stays_known_without_addresses<N: Alone>() {
    let (mut a, mut b) = (alone::<N>(), alone::<N>());
    let peer = b.id;
    let mut learned = a.store.learned(Source::Mdns);
    assert!(learned.add(peer, &[at(1)]).changed);
    let inbound = dialled_by(&mut a, &mut b).await;
    assert_ne!(inbound, at(1));
    a.news();

    let told = vec![(peer, at(1))];
    a.store.learn(&mdns::Event::Expired(told.clone()));
    assert_eq!(a.store.addresses().get(&peer), Some(Vec::new()));
    assert!(a.store.get(&peer).unwrap().connected);
    let news = a.news();
    assert!(
        matches!(
            &news[..],
            [Event::AddressesChanged { addresses, cause: Cause::Expired, .. }] if addresses.is_empty()
        ),
        "{news:?}"
    );
    let mut learned = a.store.learned(Source::Mdns);
    assert_eq!(learned.withdraw(peer, None), Changed::default());
}

/// That `observe` takes the behaviour of mDNS is enough: no test sends to the local network.
#[allow(dead_code)]
fn mdns_can_be_observed(
    store: &PeerStore,
    mdns: mdns::tokio::Behaviour,
) -> Observed<mdns::tokio::Behaviour> {
    store.observe(mdns)
}
