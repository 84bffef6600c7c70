//! Which failures count, and which say something of this node only.

use std::io;

use libp2p_core::transport::TransportError;
use libp2p_identity::PeerId;
use libp2p_peerstore::{PeerStore, Source};
use libp2p_swarm::{ConnectionDenied, DialError};

use super::*;
use crate::support::*;

fn failures(store: &PeerStore, peer: PeerId, port: u16) -> u32 {
    info(store, peer, &at(port)).unwrap().failures
}

/// A stranger at a public address of its own.
fn stranger(n: u32) -> (PeerId, Multiaddr) {
    let [_, a, b, c] = n.to_be_bytes();
    let address = format!("/ip4/{}.{b}.{c}.1/tcp/4001", 60 + a);
    (PeerId::random(), address.parse().unwrap())
}

/// Two nodes that live through the same, but one of them dials.
struct Twin {
    store: PeerStore,
    swarm: Swarm,
}

#[test]
fn an_hour_offline_with_ten_thousand_failing_dials_leaves_every_proven_address_as_it_was() {
    let clock = libp2p_peerstore::ManualClock::default();
    let config = libp2p_peerstore::Config::default().with_clock(clock.clone());
    let twin = || {
        let store = PeerStore::in_memory(peer(LOCAL), config.clone());
        let swarm = Swarm::of(&store);
        Twin { store, swarm }
    };
    let (mut dialling, mut idle) = (twin(), twin());
    let friends: Vec<_> = (0..100).map(stranger).collect();
    let lan: (PeerId, Multiaddr) = (peer(7), "/ip4/192.168.1.7/tcp/1".parse().unwrap());
    let both = |dialling: &mut Twin, idle: &mut Twin, act: &dyn Fn(&mut Twin)| {
        act(dialling);
        act(idle);
    };
    both(&mut dialling, &mut idle, &|twin| {
        for (friend, address) in &friends {
            twin.swarm.proved(*friend, address.clone());
            twin.store
                .learned(Source::Identify)
                .add(*friend, &ports([9]));
        }
    });

    // The network goes: dials time out, and only the neighbour still answers.
    for n in 0..10_000 {
        let (friend, address) = &friends[n % friends.len()];
        dialling.swarm.timed_out(*friend, [address.clone()]);
        both(&mut dialling, &mut idle, &|twin| {
            if n % 3 == 0 {
                twin.swarm.proved(lan.0, lan.1.clone());
            }
        });
        clock.advance(HOUR / 10_000);
    }
    // While it lasts others are offered, too, but after the proven address.
    for (friend, address) in &friends {
        let infos = dialling.store.addresses().infos(friend).unwrap();
        assert_eq!(infos, idle.store.addresses().infos(friend).unwrap());
        let offers = dialling.swarm.offers(*friend);
        assert_eq!(offers[0], with_id(address.clone(), *friend));
    }
    let compare = |dialling: &mut Twin, idle: &mut Twin| {
        for (friend, address) in &friends {
            let infos = dialling.store.addresses().infos(friend).unwrap();
            assert_eq!(infos, idle.store.addresses().infos(friend).unwrap());
            assert_eq!(infos[0].address, *address);
            assert_eq!((infos[0].failures, infos[0].back_off), (0, None));
            let offers = dialling.swarm.offers(*friend);
            assert_eq!(offers, [with_id(address.clone(), *friend)]);
            assert_eq!(offers, idle.swarm.offers(*friend));
        }
    };
    // And it comes back: what failed meanwhile counts no more.
    both(&mut dialling, &mut idle, &|twin| {
        twin.swarm.proved(peer(8), at(8));
        twin.swarm.accepted(peer(9), at(9));
    });
    compare(&mut dialling, &mut idle);
}

/// Which proof comes, of twenty dials one: dials to honest and to false addresses fail the same way.
fn share_that_counts(prove: impl Fn(&mut Swarm, u32)) -> f64 {
    const DIALS: u32 = 2_000;
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    prove(&mut swarm, u32::MAX);
    let (mut failed, mut counted) = (0, 0);
    let strangers: Vec<_> = (0..DIALS).map(stranger).collect();
    for (n, (peer, address)) in (0..).zip(&strangers) {
        store.addresses().pin(*peer, [address.clone()]);
        if n % 20 == 19 {
            prove(&mut swarm, n);
        } else {
            swarm.timed_out(*peer, [address.clone()]);
            failed += 1;
        }
        clock.advance(SECOND);
    }
    for (peer, address) in &strangers {
        counted += info(&store, *peer, address).unwrap().failures;
    }
    f64::from(counted) / f64::from(failed)
}

#[test]
fn online_nearly_every_failure_counts_whatever_proves_that_the_network_works() {
    let by_success = |swarm: &mut Swarm, n: u32| {
        let (peer, address) = stranger(100_000 + n % 1_000);
        swarm.proved(peer, address);
    };
    let by_inbound = |swarm: &mut Swarm, n: u32| {
        let (peer, address) = stranger(100_000 + n % 1_000);
        swarm.accepted(peer, address);
        swarm.closed(peer);
    };
    let by_refusal = |swarm: &mut Swarm, n: u32| {
        let (peer, address) = stranger(100_000 + n % 1_000);
        swarm.dial_failed(peer, [address]);
    };
    let by_wrong_peer = |swarm: &mut Swarm, n: u32| {
        let (peer, address) = stranger(100_000 + n % 1_000);
        swarm.wrong_peer(peer, PeerId::random(), address);
    };
    for (what, share) in [
        ("success", share_that_counts(by_success)),
        ("inbound", share_that_counts(by_inbound)),
        ("refused", share_that_counts(by_refusal)),
        ("wrong peer", share_that_counts(by_wrong_peer)),
    ] {
        assert!((0.95..=1.0).contains(&share), "{what}: {share}");
    }
}

#[test]
fn an_outage_of_some_minutes_leaves_no_trace_on_a_node_that_dials_all_the_time() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    let friends: Vec<_> = (0..100).map(stranger).collect();
    let lan: Multiaddr = "/ip4/192.168.1.7/tcp/1".parse().unwrap();
    let failures = || {
        let infos = friends
            .iter()
            .map(|(friend, address)| info(&store, *friend, address));
        infos.map(|info| info.unwrap().failures).sum::<u32>()
    };
    for (friend, address) in &friends {
        swarm.proved(*friend, address.clone());
    }
    for _ in 0..3 {
        // Half an hour online, of twenty dials one with success.
        for n in 0..1_800_u32 {
            let (peer, address) = stranger(100_000 + n);
            store.addresses().pin(peer, [address.clone()]);
            if n % 20 == 0 {
                swarm.proved(peer, address);
            } else {
                swarm.timed_out(peer, [address]);
            }
            clock.advance(SECOND);
        }
        // Four minutes offline, noticed by nobody, with a neighbour that answers.
        for n in 0..240 {
            let (friend, address) = &friends[n % friends.len()];
            swarm.timed_out(*friend, [address.clone()]);
            swarm.proved(peer(7), lan.clone());
            clock.advance(SECOND);
        }
        swarm.accepted(peer(9), at(9));
        assert_eq!(failures(), 0);
        for (friend, address) in &friends {
            assert_eq!(swarm.offers(*friend), [with_id(address.clone(), *friend)]);
        }
        swarm.all_closed(peer(9));
    }
    // Online again, what fails counts.
    let (friend, address) = &friends[0];
    swarm.timed_out(*friend, [address.clone()]);
    clock.advance(20 * SECOND);
    swarm.accepted(peer(9), at(9));
    assert_eq!(failures(), 1);
}

#[test]
fn data_on_a_live_connection_proves_that_the_network_works() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    swarm.dialled(peer(2), at(2));
    store.addresses().pin(peer(1), ports([1]));
    clock.advance(MINUTE);
    swarm.timed_out(peer(1), ports([1]));
    assert_eq!(failures(&store, peer(1), 1), 0);
    store.learned(Source::Identify).alive(peer(3));
    assert_eq!(failures(&store, peer(1), 1), 0, "it is not connected");
    store.learned(Source::Identify).alive(peer(2));
    assert_eq!(failures(&store, peer(1), 1), 1);
}

#[test]
fn what_works_in_one_scope_says_nothing_of_another() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    let relay = format!("/ip4/192.0.2.9/tcp/1/p2p/{}/p2p-circuit", peer(9));
    let scopes = [
        "/ip4/192.0.2.1/tcp/1",
        "/ip6/2001:4860::1/tcp/1",
        "/ip4/10.0.0.1/tcp/1",
        &relay,
    ];
    let scopes: Vec<Multiaddr> = scopes.iter().map(|scope| scope.parse().unwrap()).collect();
    store.addresses().pin(peer(1), scopes.clone());
    for proves in &scopes {
        let before = store.addresses().infos(&peer(1)).unwrap();
        swarm.proved(peer(2), proves.clone());
        swarm.timed_out(peer(1), scopes.clone());
        clock.advance(SECOND);
        swarm.proved(peer(2), proves.clone());
        for info in store.addresses().infos(&peer(1)).unwrap() {
            let before = before.iter().find(|b| b.address == info.address);
            let more = info.failures - before.unwrap().failures;
            // Others are still provisional, and were not proven before.
            let earlier = scopes.iter().position(|s| *s == info.address);
            let this = scopes.iter().position(|s| s == proves);
            if earlier > this {
                assert_eq!(more, 0, "{} by {proves}", info.address);
            }
            if earlier == this {
                assert_eq!(more, 1, "{proves}");
            }
        }
        // What waits is dropped: no proof followed in time.
        clock.advance(HOUR);
        scopes
            .iter()
            .for_each(|scope| swarm.proved(peer(2), scope.clone()));
        clock.advance(HOUR);
    }
}

#[test]
fn a_refused_connection_counts_at_once() {
    let store = store();
    let mut swarm = Swarm::of(&store);
    gossip(&store, peer(1), &ports([1]));
    swarm.dial_failed(peer(1), ports([1]));
    assert_eq!(failures(&store, peer(1), 1), 1);
}

#[test]
fn errors_of_this_node_never_count() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    swarm.proved(peer(1), at(1));
    let before = info(&store, peer(1), &at(1)).unwrap();
    // Network and host unreachable, no descriptors left, in the process and in the system.
    for code in [101, 113, 24, 23] {
        let error = move || io::Error::from_raw_os_error(code);
        swarm.dial_failed_by(peer(1), ports([1]), error);
        // Below what transports wrap round it.
        swarm.dial_failed_by(peer(1), ports([1]), move || io::Error::other(error()));
    }
    for kind in [
        io::ErrorKind::AddrNotAvailable,
        io::ErrorKind::PermissionDenied,
        io::ErrorKind::NetworkDown,
    ] {
        swarm.dial_failed_by(peer(1), ports([1]), move || kind.into());
    }
    for error in [
        DialError::Aborted,
        DialError::NoAddresses,
        DialError::LocalPeerId { address: at(1) },
        DialError::Denied {
            cause: ConnectionDenied::new("not now"),
        },
    ] {
        swarm.dial_failed_with(peer(1), &error);
    }
    clock.advance(SECOND);
    swarm.proved(peer(2), at(2));
    let after = info(&store, peer(1), &at(1)).unwrap();
    assert_eq!((after.failures, after.last_failure), (0, None));
    assert_eq!(after.expires, before.expires);
    assert_eq!(swarm.offers(peer(1)), [with_id(at(1), peer(1))]);

    // A transport that this run does not have: nothing is wrong with the address, but nobody can dial it.
    let not_supported = TransportError::MultiaddrNotSupported(at(1));
    let error = DialError::Transport(vec![(with_id(at(1), peer(1)), not_supported)]);
    swarm.dial_failed_with(peer(1), &error);
    assert_eq!(failures(&store, peer(1), 1), 0);
    assert!(swarm.offers(peer(1)).is_empty());
}

#[test]
fn of_a_race_those_that_failed_count_and_those_that_merely_lost_do_not() {
    let store = store();
    let mut swarm = Swarm::of(&store);
    identify(&store, peer(1), &ports([1, 2, 3]));
    let loser = info(&store, peer(1), &at(2)).unwrap();
    swarm.dialled_after(peer(1), at(1), &[with_id(at(3), peer(1))]);
    assert_eq!(failures(&store, peer(1), 1), 0);
    assert_eq!(failures(&store, peer(1), 3), 1);
    let after = info(&store, peer(1), &at(2)).unwrap();
    assert_eq!((after.failures, after.last_failure), (0, None));
    assert_eq!(
        (after.standing, after.expires),
        (loser.standing, loser.expires)
    );
    assert_eq!(after.back_off, None);
}

#[test]
fn of_a_race_those_count_whose_protocols_this_node_has_dialled_before() {
    let ways: [fn(&mut Swarm, Multiaddr); 4] = [
        |swarm, quic| swarm.proved(peer(2), quic),
        |swarm, quic| swarm.timed_out(peer(2), [quic]),
        |swarm, quic| swarm.dial_failed(peer(2), [quic]),
        |swarm, quic| swarm.wrong_peer(peer(2), peer(3), quic),
    ];
    let quic = |host: u8| -> Multiaddr {
        let address = format!("/ip4/192.0.2.{host}/udp/4001/quic-v1");
        address.parse().unwrap()
    };
    let webtransport: Multiaddr = "/ip4/192.0.2.1/udp/4001/quic-v1/webtransport"
        .parse()
        .unwrap();
    for prove in ways {
        let store = store();
        let mut swarm = Swarm::of(&store);
        let told = [at(1), quic(1), webtransport.clone()];
        identify(&store, peer(1), &told);
        let failed = [&told[1], &told[2]].map(|failed| with_id(failed.clone(), peer(1)));
        let race = |swarm: &mut Swarm| {
            swarm.dialled_after(peer(1), at(1), &failed);
            let failures = |told| info(&store, peer(1), told).unwrap().failures;
            told.each_ref().map(failures)
        };
        assert_eq!(race(&mut swarm), [0; 3], "there may be no transport");
        prove(&mut swarm, quic(2));
        assert_eq!(race(&mut swarm), [0, 1, 0]);
    }
}

#[test]
fn of_a_race_between_scopes_a_failure_in_the_other_scope_is_provisional() {
    let store = store();
    let mut swarm = Swarm::of(&store);
    let six: Multiaddr = "/ip6/2001:4860::1/tcp/1".parse().unwrap();
    identify(&store, peer(1), &[at(1), six.clone()]);
    swarm.dialled_after(peer(1), at(1), &[with_id(six.clone(), peer(1))]);
    assert_eq!(info(&store, peer(1), &six).unwrap().failures, 0);
}

#[test]
fn who_comes_through_a_relay_shows_nothing_of_the_public_network() {
    use libp2p_core::{ConnectedPoint, multiaddr::Protocol};
    use libp2p_peerstore::Source;

    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    let relay = format!("/ip4/192.0.2.9/tcp/1/p2p/{}/p2p-circuit", peer(9));
    let relay: Multiaddr = relay.parse().unwrap();
    store.addresses().pin(peer(1), [at(1), relay.clone()]);
    // As a swarm tells it: where the relay is stands in the local address.
    let endpoint = ConnectedPoint::Listener {
        local_addr: relay.clone(),
        send_back_addr: Protocol::P2p(peer(2)).into(),
    };
    swarm.dialled(peer(3), at(3));
    for _ in 0..2 {
        swarm.connected(peer(2), endpoint.clone());
        swarm.timed_out(peer(1), [at(1), relay.clone()]);
        clock.advance(SECOND);
    }
    let failures = |address: &Multiaddr| info(&store, peer(1), address).unwrap().failures;
    assert_eq!(failures(&at(1)), 0, "nothing was shown of it");
    assert_eq!(failures(&relay), 1);
    // What comes over it says no more.
    store.learned(Source::Kademlia).alive(peer(2));
    assert_eq!(failures(&at(1)), 0);
    assert_eq!(failures(&relay), 2);
    swarm.proved(peer(3), at(3));
    assert_eq!(failures(&at(1)), 2);
}
