//! Which addresses the swarm dials: the store's, each once, whoever else offers them, and the application's own.

// `[address.clone()]` reads better than `std::slice::from_ref(&address)`.
#![allow(clippy::cloned_ref_to_slice_refs, clippy::unwrap_used)]

#[path = "support/swarm.rs"]
mod swarm;

use libp2p::{
    Multiaddr, PeerId,
    core::transport::ListenerId,
    identify,
    identity::Keypair,
    swarm::{DialError, NetworkBehaviour, SwarmEvent},
};
use libp2p_peerstore::{
    Config, DEFAULT_MAX_DIAL_ADDRESSES, ManualClock, MemoryDatastore, PeerStore, Source, Sources,
};
use swarm::*;

in_every_order!(
    a_peer_is_dialled_by_its_id_from_the_store_alone,
    a_peer_is_dialled_by_its_id_after_a_restart,
    each_address_is_dialled_once_whoever_else_offers_it,
    each_address_is_dialled_once_when_the_application_gives_it_too,
    each_address_fails_once,
    what_a_push_took_back_is_not_dialled,
    what_a_push_took_back_is_dialled_when_addresses_are_passed_on,
    what_a_push_took_back_is_dialled_when_the_gate_is_off,
    the_addresses_of_the_application_are_never_touched,
    nobody_goes_round_the_limit_of_a_dial,
    what_several_behaviours_offer_for_a_dial_is_together_no_more_than_its_limit,
    what_others_tell_as_they_are_asked_fills_up_a_dial,
    the_best_address_is_dialled_first,
    a_peer_that_the_store_does_not_know_is_dialled_as_others_offer,
);

/// Both ways in which the swarm can pace a dial.
const PACES: [bool; 2] = [false, true];

/// What `b` listens on, and what the other side has been told.
struct Met {
    one: Multiaddr,
    two: Multiaddr,
    second: ListenerId,
}

/// `a` has met `b` and is no longer connected: store, identify's cache and Kademlia's routing table know both
/// addresses of it. The first is proven, the second only told.
async fn met<N: Observing>(a: &mut Node<N>, b: &mut Node<Plain>) -> Met {
    let one = b.listen().await;
    let (second, two) = b.listener().await;
    let peer = b.id;
    connect(a, b, &one).await;
    until((&mut *a, &mut *b), |(a, _)| a.identified(peer) > 0).await;
    for address in [&one, &two] {
        a.swarm
            .behaviour_mut()
            .b()
            .add_address(&peer, address.clone());
    }
    until((&mut *a, &mut *b), |(a, _)| {
        let info = a.info(peer, &two);
        info.is_some_and(|info| info.sources.contains(Sources::KADEMLIA | Sources::IDENTIFY))
    })
    .await;
    assert_eq!(a.addresses(peer), sorted(vec![one.clone(), two.clone()]));
    disconnect(a, b).await;
    Met { one, two, second }
}

/// As [`met`], and then `b` has taken back its second address by a push.
async fn met_and_took_back<N: Observing>(a: &mut Node<N>, b: &mut Node<Plain>) -> Met {
    let met = met(a, b).await;
    let peer = b.id;
    let before = a.identified(peer);
    connect(a, b, &met.one).await;
    until((&mut *a, &mut *b), |(a, _)| a.identified(peer) > before).await;
    b.stop_listening(met.second).await;
    until((&mut *a, &mut *b), |(a, _)| {
        a.addresses(peer) == [met.one.clone()]
    })
    .await;
    disconnect(a, b).await;
    met
}

/// Waits until the dial that is under way has led to a connection.
async fn connected<A: NetworkBehaviour, B: NetworkBehaviour>(a: &mut Node<A>, b: &mut Node<B>) {
    let (a_id, b_id) = (a.id, b.id);
    until((a, b), |(a, b)| {
        a.is_connected(b_id) && b.is_connected(a_id)
    })
    .await;
}

fn forms(peer: PeerId, addresses: &[&Multiaddr]) -> Vec<Multiaddr> {
    sorted(
        addresses
            .iter()
            .map(|address| with_id(address, peer))
            .collect(),
    )
}

// --- by the peer id alone ------------------------------------------------------------------------------------

async fn a_peer_is_dialled_by_its_id_from_the_store_alone<N: Observing>() {
    for smart in PACES {
        let mut a: Node<N> = Setup::default().smart_dial(smart).observing();
        let mut b = plain();
        let address = b.listen().await;
        // As people give it to each other.
        a.store.addresses().add(b.id, [with_id(&address, b.id)]);
        assert_eq!(a.dial(b.id), [with_id(&address, b.id)]);
        connected(&mut a, &mut b).await;
    }
}

async fn a_peer_is_dialled_by_its_id_after_a_restart<N: Observing>() {
    let datastore = MemoryDatastore::default();
    let key = Keypair::generate_ed25519();
    let id = key.public().to_peer_id();
    let mut b = plain();
    let address = b.listen().await;

    let open = || PeerStore::open(id, datastore.clone(), Config::default());
    let store = open().await.unwrap();
    let mut a: Node<N> = Setup::with_store(key.clone(), store.clone()).observing();
    connect(&mut a, &mut b, &address).await;
    rounds(&mut a, &mut b, 0).await;
    store.shutdown().await.unwrap();
    drop((a, store));
    until(&mut b, |b| !b.is_connected(id)).await;

    let mut a: Node<N> = Setup::with_store(key, open().await.unwrap()).observing();
    assert_eq!(a.dial(b.id), [with_id(&address, b.id)]);
    connected(&mut a, &mut b).await;
}

// --- once each -----------------------------------------------------------------------------------------------

async fn each_address_is_dialled_once_whoever_else_offers_it<N: Observing>() {
    for smart in PACES {
        let mut a: Node<N> = Setup::default().smart_dial(smart).observing();
        let mut b = plain();
        let Met { one, .. } = met(&mut a, &mut b).await;
        // The one that is proven, alone: beside it the other could only spoil the dial.
        assert_eq!(a.dial(b.id), [with_id(&one, b.id)]);
        connected(&mut a, &mut b).await;
    }
}

async fn each_address_is_dialled_once_when_the_application_gives_it_too<N: Observing>() {
    for smart in PACES {
        let mut a: Node<N> = Setup::default().smart_dial(smart).observing();
        let mut b = plain();
        let Met { one, two, .. } = met(&mut a, &mut b).await;
        for given in [
            vec![one.clone()],
            vec![with_id(&two, b.id)],
            vec![two.clone(), with_id(&one, b.id)],
        ] {
            let opts = always(b.id)
                .addresses(given.clone())
                .extend_addresses_through_behaviour()
                .build();
            let dialled = a.dial_with(opts);
            // What the application gives, and what is proven, each once.
            let given_two = given
                .iter()
                .any(|given| *given == two || *given == with_id(&two, b.id));
            let expected = if given_two {
                forms(b.id, &[&one, &two])
            } else {
                forms(b.id, &[&one])
            };
            assert_eq!(sorted(dialled), expected, "given {given:?}");
        }
        connected(&mut a, &mut b).await;
    }
}

async fn each_address_fails_once<N: Observing>() {
    for smart in PACES {
        let mut a: Node<N> = Setup::default().smart_dial(smart).observing();
        // It lists nothing but two ports where it is not.
        let mut b = plain_with(|key| {
            identify::Behaviour::new(identify_config(key).with_hide_listen_addrs(true))
        });
        let (one, two) = (refused(1), refused(2));
        for address in [&one, &two] {
            b.swarm.add_external_address(address.clone());
        }
        let (peer, listening) = (b.id, b.listen().await);
        connect(&mut a, &mut b, &listening).await;
        until((&mut a, &mut b), |(a, _)| a.identified(peer) > 0).await;
        assert_eq!(a.addresses(peer), [one.clone(), two.clone()]);
        let kad = a.swarm.behaviour_mut().b();
        kad.add_address(&peer, one.clone());
        kad.add_address(&peer, two.clone());
        disconnect(&mut a, &mut b).await;

        let opts = always(peer)
            .addresses(vec![two.clone()])
            .extend_addresses_through_behaviour()
            .build();
        let dial = opts.connection_id();
        a.swarm.dial(opts).unwrap();
        let attempts = get(&mut a, |a| {
            a.said.iter().find_map(|event| match event {
                SwarmEvent::OutgoingConnectionError {
                    connection_id,
                    error: DialError::Transport(attempts),
                    ..
                } if *connection_id == dial => Some(
                    attempts
                        .iter()
                        .map(|(address, _)| address.clone())
                        .collect(),
                ),
                _ => None,
            })
        })
        .await;
        assert_eq!(sorted(attempts), forms(peer, &[&one, &two]));
        // Kademlia may have dialled by itself meanwhile: its dials count as well, each once.
        for address in [one, two] {
            until(&mut a, |a| {
                let errors = a.dial_errors(peer);
                let dials = errors
                    .into_iter()
                    .filter(|error| matches!(error, DialError::Transport(_)))
                    .count();
                a.info(peer, &address).unwrap().failures as usize == dials
            })
            .await;
        }
    }
}

// --- what the store no longer offers -------------------------------------------------------------------------

async fn what_a_push_took_back_is_not_dialled<N: Observing>() {
    for smart in PACES {
        let mut a: Node<N> = Setup::default().smart_dial(smart).observing();
        let mut b = plain();
        let Met { one, .. } = met_and_took_back(&mut a, &mut b).await;
        assert_eq!(a.dial(b.id), [with_id(&one, b.id)]);
        // Not even when the dial has addresses of its own.
        let opts = always(b.id)
            .addresses(vec![refused(1)])
            .extend_addresses_through_behaviour()
            .build();
        assert_eq!(sorted(a.dial_with(opts)), forms(b.id, &[&refused(1), &one]));
        connected(&mut a, &mut b).await;
    }
}

async fn what_a_push_took_back_is_dialled_when_addresses_are_passed_on<N: Observing>() {
    let mut b = plain();
    let mut a: Node<N> = Setup::default().compose(
        |store, key| store.observe(identify(key)).pass_dial_addresses(true),
        |store, key| store.observe(kad(key)).pass_dial_addresses(true),
    );
    let Met { one, two, .. } = met_and_took_back(&mut a, &mut b).await;
    // The store itself has not changed its mind.
    assert_eq!(a.addresses(b.id), [one.clone()]);
    let dialled = a.dial(b.id);
    assert_eq!(sorted(dialled), forms(b.id, &[&one, &two]));
}

async fn what_a_push_took_back_is_dialled_when_the_gate_is_off<N: Observing>() {
    let mut b = plain();
    let config = Config::default().with_gate_dials(false);
    let mut a: Node<N> = Setup::with_config(config).observing();
    let Met { one, two, .. } = met_and_took_back(&mut a, &mut b).await;
    let dialled = a.dial(b.id);
    assert_eq!(sorted(dialled), forms(b.id, &[&one, &two]));
}

async fn the_addresses_of_the_application_are_never_touched<N: Observing>() {
    for smart in PACES {
        let mut a: Node<N> = Setup::default().smart_dial(smart).observing();
        let mut b = plain();
        let Met { one, two, .. } = met_and_took_back(&mut a, &mut b).await;
        // Taken back, unknown, unsupported: it is the application's word.
        let given = vec![two.clone(), refused(1), unsupported()];
        let opts = always(b.id).addresses(given.clone()).build();
        let whole: Vec<_> = given.iter().map(|it| with_id(it, b.id)).collect();
        assert_eq!(a.dial_with(opts), whole);
        // And it comes first.
        let opts = always(b.id)
            .addresses(given)
            .extend_addresses_through_behaviour()
            .build();
        let dialled = a.dial_with(opts);
        assert_eq!(dialled[..3], whole);
        assert_eq!(dialled[3..], [with_id(&one, b.id)]);
    }
}

// --- how many, and in which order ----------------------------------------------------------------------------

async fn nobody_goes_round_the_limit_of_a_dial<N: Observing>() {
    let config = Config::default().with_max_dial_addresses(1.try_into().unwrap());
    let mut a: Node<N> = Setup::with_config(config).observing();
    let mut b = plain();
    let Met { one, .. } = met(&mut a, &mut b).await;
    // The one that has been proven.
    assert_eq!(a.dial(b.id), [with_id(&one, b.id)]);
    connected(&mut a, &mut b).await;
}

/// Addresses of another host of this machine's, where nobody listens.
fn elsewhere(n: u16) -> Multiaddr {
    format!("/ip4/127.0.0.2/tcp/{}", n + 1).parse().unwrap()
}

/// A node that has heard of a peer at `known` ports an hour ago, and whose Kademlia has the peer at `fresh` others, of
/// which it has not told yet.
fn heard_of<N: Observing>(known: u16, fresh: u16) -> (Node<N>, PeerId, Vec<Multiaddr>) {
    let clock = ManualClock::default();
    let mut a: Node<N> =
        Setup::with_config(Config::default().with_clock(clock.clone())).observing();
    let peer = PeerId::random();
    let known: Vec<Multiaddr> = (1..=known).map(refused).collect();
    a.store.learned(Source::Kademlia).add(peer, &known);
    clock.advance(std::time::Duration::from_secs(3_600));
    for n in 0..fresh {
        let kad = a.swarm.behaviour_mut().b();
        kad.add_address(&peer, elsewhere(n));
    }
    (a, peer, known)
}

async fn what_several_behaviours_offer_for_a_dial_is_together_no_more_than_its_limit<
    N: Observing,
>() {
    let (mut a, peer, _) = heard_of::<N>(4, 4);
    for _ in 0..2 {
        // What was told in one dial may be in the next.
        assert_eq!(a.dial(peer).len(), DEFAULT_MAX_DIAL_ADDRESSES.get());
        assert_eq!(a.addresses(peer).len(), 8);
    }
}

async fn what_others_tell_as_they_are_asked_fills_up_a_dial<N: Observing>() {
    let (mut a, peer, known) = heard_of::<N>(1, 2);
    let told = [&known[0], &elsewhere(0), &elsewhere(1)];
    assert_eq!(sorted(a.dial(peer)), forms(peer, &told));
    // The store knew nothing that could be dialled, and has no objection.
    let (mut a, peer, _) = heard_of::<N>(0, 2);
    a.store.protocols().set(peer, ["/x"]);
    let told = [&elsewhere(0), &elsewhere(1)];
    assert_eq!(sorted(a.dial(peer)), forms(peer, &told));
}

async fn the_best_address_is_dialled_first<N: Alone>() {
    for smart in PACES {
        let mut a: Node<N> = Setup::default().smart_dial(smart).alone();
        let mut b = silent();
        let address = b.listen().await;
        let peer = b.id;
        a.store.addresses().add(peer, [refused(1)]);
        a.dial(peer);
        until(&mut a, |a| !a.dial_errors(peer).is_empty()).await;
        a.store.addresses().add(peer, [refused(2), address.clone()]);
        connect(&mut a, &mut b, &address).await;
        // Proven, then never tried, then failed; what is proven is dialled alone.
        let order = [&address, &refused(2), &refused(1)];
        let ranked = order.map(|address| with_id(address, peer));
        assert_eq!(a.store.addresses().multiaddrs_for_peer(&peer), ranked);
        assert_eq!(a.dial(peer), ranked[..1]);
    }
}

async fn a_peer_that_the_store_does_not_know_is_dialled_as_others_offer<N: Observing>() {
    let (mut a, mut b) = (observing::<N>(), plain());
    let Met { one, two, .. } = met(&mut a, &mut b).await;
    assert!(a.store.delete(&b.id));
    let dialled = a.dial(b.id);
    assert_eq!(sorted(dialled), forms(b.id, &[&one, &two]));
    connected(&mut a, &mut b).await;
}
