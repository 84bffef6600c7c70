//! Addresses of every odd kind, from strangers and from the peer itself, and what becomes of each.

use libp2p::{Multiaddr, PeerId};
use libp2p_peerstore::{Refused, Source, Standing, public_only};

use crate::{
    Full,
    support::{Swarm, did, peer, store, store_with},
    swarm::{Setup, connect, disconnect, plain, until},
};

fn parsed(address: &str) -> Multiaddr {
    address
        .parse()
        .unwrap_or_else(|error| panic!("{address}: {error}"))
}

/// Odd, and no more than a failed dial to whoever believes it.
fn useless() -> Vec<Multiaddr> {
    let (relay, onward) = (peer(101), peer(102));
    let onion = format!("/onion3/{}:1", "a".repeat(56));
    [
        // Nested relays.
        &format!("/ip4/9.9.9.9/tcp/1/p2p/{relay}/p2p-circuit/p2p/{onward}/p2p-circuit"),
        &format!("/ip4/9.9.9.9/tcp/1{}", "/p2p-circuit".repeat(20)),
        "/p2p-circuit",
        // Protocols that no transport of a usual node speaks.
        &onion,
        "/ip4/9.9.9.9/sctp/1",
        "/ip4/9.9.9.9/udp/1/utp",
        "/ip4/9.9.9.9/tcp/1/http/ws/tls/noise",
        "/tcp/1/ip4/9.9.9.9",
        "/tls",
        // Ports of zero, and none.
        "/ip4/9.9.9.9/tcp/0",
        "/ip4/9.9.9.9/udp/0/quic-v1",
        "/ip4/9.9.9.9",
        // Reserved.
        "/ip4/240.0.0.1/tcp/1",
        "/ip6/2001:db8::1/tcp/1",
    ]
    .map(parsed)
    .to_vec()
}

/// Would make us send into our own machine or network.
fn near() -> Vec<Multiaddr> {
    [
        "/ip4/0.0.0.0/tcp/1",
        "/ip4/127.0.0.1/tcp/22",
        "/ip4/224.0.0.251/udp/5353/quic-v1",
        "/ip4/239.255.255.250/udp/1900/quic-v1",
        "/ip4/255.255.255.255/udp/1/quic-v1",
        "/ip6/ff02::1/udp/1/quic-v1",
        "/ip6/::1/tcp/1",
        "/memory/1",
        "/unix/socket",
    ]
    .map(parsed)
    .to_vec()
}

#[test]
fn odd_addresses_are_bounded_and_those_of_our_own_network_are_refused_to_strangers() {
    let store = store();
    let mut swarm = Swarm::of(&store);
    // A connection to the internet: from now on strangers tell of nothing that is near.
    let far = peer(1);
    swarm.dialled(far, parsed("/ip4/20.1.1.1/tcp/1"));
    for source in [Source::Kademlia, Source::Rendezvous, Source::Discovery] {
        let stranger = PeerId::random();
        let told = store.learned(source).add(stranger, &near());
        assert_eq!(did(told), (false, near().len()), "{source:?}");
        assert!(!store.contains(&stranger));
        let told = store.learned(source).add(PeerId::random(), &useless());
        assert_eq!(did(told), (true, 0), "{source:?}");
    }
    let told = store.learned(Source::Identify).replace(far, &near());
    assert_eq!(told.refused, near().len());
    let refused = store.refusals().get(Refused::OutOfScope);
    assert_eq!(refused, 4 * near().len() as u64);

    // Nothing of it is ever more than a word, and none of it is offered beside what is proven.
    let told = store.learned(Source::Identify).replace(far, &{
        let mut told = useless();
        told.push(parsed("/ip4/20.1.1.1/tcp/1"));
        told
    });
    assert_eq!(told.refused, 0);
    let infos = store.addresses().infos(&far).unwrap();
    let proven = infos
        .iter()
        .filter(|info| info.standing == Standing::Proven);
    assert_eq!((proven.count(), infos.len()), (1, useless().len() + 1));
    assert_eq!(
        swarm.offers(far),
        [parsed(&format!("/ip4/20.1.1.1/tcp/1/p2p/{far}"))]
    );
}

#[test]
fn the_ready_made_filter_leaves_nothing_near() {
    let store = store_with(|config| config.with_address_filter(public_only));
    let told = store.learned(Source::Identify).replace(peer(1), &near());
    assert_eq!(did(told), (false, near().len()));
    assert_eq!(store.refusals().get(Refused::Filtered), near().len() as u64);
}

#[test]
fn names_of_255_bytes_are_kept_and_longer_addresses_than_the_limit_refused() {
    let store = store();
    let label = "a".repeat(63);
    let name = format!("{label}.{label}.{label}.{label}");
    assert_eq!(name.len(), 255);
    let long = parsed(&format!("/dns4/{name}/tcp/1"));
    let path = "b".repeat(300);
    let longer = parsed(&format!("/dns4/{name}/tcp/1/tls/http-path/{path}"));
    let told = store
        .learned(Source::Kademlia)
        .add(peer(1), &[long.clone(), longer]);
    assert_eq!(did(told), (true, 1));
    assert_eq!(store.refusals().get(Refused::AddressTooLong), 1);
    assert_eq!(store.addresses().get(&peer(1)), Some(vec![long]));
}

/// The transport and the swarm see every one of them too.
#[tokio::test]
async fn a_peer_that_lists_every_odd_address_is_dialled_all_the_same() {
    let mut a: Node = Setup::default().observing();
    let mut odd = plain();
    let address = odd.listen().await;
    for told in useless().into_iter().chain(near()) {
        odd.swarm.add_external_address(told);
    }
    let peer = odd.id;
    connect(&mut a, &mut odd, &address).await;
    until((&mut a, &mut odd), |(a, _)| a.identified(peer) > 0).await;
    assert!(a.addresses(peer).len() > 10);
    disconnect(&mut a, &mut odd).await;
    assert_eq!(a.dial(peer), [crate::swarm::with_id(&address, peer)]);
    until((&mut a, &mut odd), |(a, _)| a.is_connected(peer)).await;

    // Without an address that works the dial ends, each time, and panics nowhere.
    disconnect(&mut a, &mut odd).await;
    a.store.addresses().remove(peer, [address]);
    for round in 1..=3 {
        let dialled = a.dial(peer);
        assert!(dialled.len() <= 4, "{dialled:?}");
        until(&mut a, |a| a.dial_errors(peer).len() >= round).await;
    }
}

type Node = crate::swarm::Node<Full>;
