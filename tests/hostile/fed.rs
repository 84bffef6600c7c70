//! What takes more connections than a test can make: the behaviour is fed with what the swarm would tell.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};
use libp2p_core::multiaddr::Protocol;
use libp2p_peerstore::{
    AGENT_VERSION, MemoryDatastore, PeerStore, Refused, Source, Sources, Standing,
};

use crate::{
    datastore::{Hand, Recording},
    support::{Swarm, did, gossip, identify, peer, size, sorted, store, store_with, with_id},
};

fn ip(n: u32, port: u16) -> Multiaddr {
    let address = Multiaddr::from(Protocol::Ip4(n.into()));
    address.with(Protocol::Tcp(port))
}

/// Public, and in another /16 for each number below 1,000.
fn home(n: u32) -> Multiaddr {
    ip(0x1400_0001 + (n << 16), 4001)
}

/// Peers that were dialled once, each in a group of its own.
fn friends(swarm: &mut Swarm, count: u32) -> Vec<(PeerId, Multiaddr)> {
    let friends = (0..count).map(|n| (PeerId::random(), home(n)));
    let friends: Vec<_> = friends.collect();
    for (friend, address) in &friends {
        swarm.proved(*friend, address.clone());
    }
    friends
}

fn assert_untouched(store: &PeerStore, swarm: &mut Swarm, friends: &[(PeerId, Multiaddr)]) {
    for (friend, address) in friends {
        let infos = store.addresses().infos(friend).unwrap();
        assert_eq!(infos.len(), 1, "{infos:?}");
        assert_eq!(infos[0].standing, Standing::Proven);
        let offered = with_id(address.clone(), *friend);
        assert_eq!(swarm.offers(*friend), [offered]);
    }
}

#[test]
fn a_thousand_connections_that_each_claim_other_addresses_displace_nobody_that_was_dialled() {
    let store = store_with(|config| config.with_max_peers(size(400)));
    let mut swarm = Swarm::of(&store);
    let friends = friends(&mut swarm, 50);
    let mut attackers = Vec::new();
    for n in 0..1_000 {
        let (attacker, from) = (PeerId::random(), home(1_000 + n));
        swarm.accepted(attacker, from.clone());
        // A victim, a friend's address, and forty that nobody has.
        let claimed = (0..40).map(|m| ip(0x2800_0001 + n * 64 + m, 1));
        let told: Vec<_> = [
            ip(0x0909_0909, n as u16 + 1),
            friends[n as usize % 50].1.clone(),
        ]
        .into_iter()
        .chain(claimed)
        .collect();
        identify(&store, attacker, &told);
        attackers.push(attacker);
        assert!(store.len() <= 400);
    }
    assert_eq!(store.connected_peers().len(), 1_000);
    assert_untouched(&store, &mut swarm, &friends);
    let most = store.peers().into_iter().map(|p| p.addresses.len()).max();
    assert!(most <= Some(32));
    let proven = store.filter(|p| p.addresses.iter().any(|a| a.standing == Standing::Proven));
    assert_eq!(proven.len(), 50);
    assert!(store.refusals().get(Refused::TooManyAddresses) >= 10 * 350);
    // Connections that are gone leave nothing behind.
    for attacker in attackers {
        swarm.closed(attacker);
    }
    assert!(store.connected_peers().is_empty());
    assert_untouched(&store, &mut swarm, &friends);
}

#[test]
fn a_connection_that_migrates_to_a_victims_address_proves_nothing_there() {
    let store = store();
    let mut swarm = Swarm::of(&store);
    let (victim, attacker) = (peer(1), peer(2));
    let (its_home, own) = (home(1), home(2));
    swarm.proved(victim, its_home.clone());
    swarm.dialled(attacker, own.clone());
    for _ in 0..3 {
        swarm.moved(attacker, its_home.clone());
        swarm.moved(attacker, own.clone());
    }
    swarm.moved(attacker, its_home.clone());
    let info = |peer: PeerId, address: &Multiaddr| {
        let infos = store.addresses().infos(&peer).unwrap();
        infos.into_iter().find(|info| info.address == *address)
    };
    let there = info(attacker, &its_home).unwrap();
    assert_eq!(there.standing, Standing::Hearsay);
    assert!(!there.sources.contains(Sources::DIALLED));
    assert_eq!(there.successes, 0);
    assert_eq!(swarm.offers(attacker), [with_id(own, attacker)]);
    // Nor when the connection ends there, and the victim is who it was.
    swarm.closed(attacker);
    assert_eq!(
        info(attacker, &its_home).unwrap().standing,
        Standing::Hearsay
    );
    let victims = info(victim, &its_home).unwrap();
    assert_eq!((victims.standing, victims.failures), (Standing::Proven, 0));
    assert_eq!(swarm.offers(victim), [with_id(its_home, victim)]);
}

/// A peer that is at an address displaces one that strangers say is there. Who came there by a migration counted as
/// being there.
#[test]
fn connections_that_migrate_to_an_address_displace_nobody_that_is_said_to_be_there() {
    let store = store();
    let mut swarm = Swarm::of(&store);
    let said: Vec<PeerId> = (0..8).map(|_| PeerId::random()).collect();
    for (n, peer) in (1..).zip(&said) {
        gossip(&store, *peer, &[ip(0x0909_0909, n)]);
    }
    for n in 0..30 {
        let attacker = PeerId::random();
        swarm.dialled(attacker, home(n));
        swarm.moved(attacker, ip(0x0909_0909, 100));
        identify(&store, attacker, &[ip(0x0909_0909, 101), home(n)]);
    }
    assert!(said.iter().all(|peer| store.contains(peer)));
    // One that is dialled there does.
    swarm.proved(PeerId::random(), ip(0x0909_0909, 200));
    assert_eq!(said.iter().filter(|peer| store.contains(peer)).count(), 7);
}

#[test]
fn a_connection_that_migrates_all_the_time_fills_one_book() {
    let store = store();
    let mut swarm = Swarm::of(&store);
    let attacker = peer(2);
    swarm.dialled(attacker, home(0));
    for n in 1..2_000 {
        swarm.moved(attacker, home(n));
    }
    let known = store.addresses().get(&attacker).unwrap();
    assert!(known.len() <= 32 && known.contains(&home(0)));
    swarm.closed(attacker);
    assert!(store.connected_peers().is_empty());
    assert_eq!(swarm.offers(attacker)[0], with_id(home(0), attacker));
}

#[test]
fn ids_that_are_close_to_ours_or_to_each_other_are_like_any_others() {
    const COUNT: u64 = 20_000;
    let flood = |id: &dyn Fn(u64) -> PeerId| {
        let store = store_with(|config| config.with_max_peers(size(2_000)));
        let mut swarm = Swarm::of(&store);
        let friends = friends(&mut swarm, 50);
        let began = Instant::now();
        for n in 0..COUNT {
            gossip(&store, id(n), &[home(n as u32 % 40_000)]);
        }
        let took = began.elapsed();
        assert!(store.len() <= 2_000);
        assert_eq!(store.len(), store.peer_ids().len());
        assert_untouched(&store, &mut swarm, &friends);
        took
    };
    // The digest of a SHA-256 peer id can be chosen freely: nobody asks for a key that fits.
    let sha256 = |digest: [u8; 32]| PeerId::from_bytes(&[&[0x12, 32], &digest[..]].concat());
    let mixed = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let spread = flood(&|n| {
        let mut digest = [0; 32];
        for (part, bytes) in digest.chunks_mut(8).enumerate() {
            bytes.copy_from_slice(&mixed(n * 4 + part as u64 + 1).to_le_bytes());
        }
        sha256(digest).unwrap()
    });
    let local = peer(crate::support::LOCAL).to_bytes();
    let close_by_their_ends = flood(&|n| {
        let mut digest: [u8; 32] = local[local.len() - 32..].try_into().unwrap();
        digest[24..].copy_from_slice(&n.to_be_bytes());
        sha256(digest).unwrap()
    });
    let close_by_their_beginnings = flood(&|n| {
        let mut digest = [0x5a; 32];
        digest[..8].copy_from_slice(&n.to_le_bytes());
        sha256(digest).unwrap()
    });
    // Where they met in one bucket it would be a thousand times as long.
    for close in [close_by_their_ends, close_by_their_beginnings] {
        let most = spread * 10 + Duration::from_millis(500);
        assert!(close < most, "{close:?} instead of {spread:?}");
    }
}

#[test]
fn ten_thousand_alternating_lists_are_a_commit_for_each_interval_and_no_growth() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let mut waiting = store.subscribe();
    let lists =
        [0, 1].map(|list| -> Vec<Multiaddr> { (1..=20).map(|n| ip(n << 8, list)).collect() });
    let (peer, mut changed) = (PeerId::random(), 0);
    for n in 0..10_000 {
        changed += usize::from(identify(&store, peer, &lists[n % 2]).changed);
        hand.advance(Duration::from_millis(30));
    }
    assert_eq!(changed, 10_000);
    // Five minutes, in which the oldest change waits for thirty seconds: one peer is below the threshold.
    assert!(
        datastore.commits_started() <= 11,
        "{}",
        datastore.commits_started()
    );
    let told = std::iter::from_fn(|| waiting.try_next()).count();
    assert!(told <= 1_025, "{told}");
    assert_eq!(
        sorted(store.addresses().get(&peer).unwrap()),
        sorted(lists[1].clone())
    );
}

#[test]
fn a_peer_at_every_limit_is_saved_and_loaded_whole() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let store = hand.open(memory.clone());
    let peer = PeerId::random();
    let names = |n: usize, len: usize| format!("/{n:03}{}", "x".repeat(len - 4));
    let mut learned = store.learned(Source::Identify);
    let addresses: Vec<Multiaddr> = (0..40)
        .map(|n| {
            let path = "y".repeat(512 - 15);
            let address = format!("/ip4/9.9.9.{n}/tcp/1/tls/http-path/{path}");
            address.parse().unwrap()
        })
        .collect();
    let longest = addresses.iter().map(Multiaddr::len).max().unwrap();
    assert!((500..=512).contains(&longest), "{longest}");
    assert_eq!(learned.replace(peer, &addresses).refused, 8);
    let protocols: Vec<_> = (0..300)
        .map(|n| libp2p::StreamProtocol::try_from_owned(names(n, 256)).unwrap())
        .collect();
    assert_eq!(learned.protocols(peer, &protocols).refused, 44);
    assert_eq!(
        did(learned.metadata(peer, AGENT_VERSION, &[0xff; 4_096])),
        (true, 0)
    );
    assert_eq!(
        did(learned.metadata(peer, AGENT_VERSION, &[0; 4_097])),
        (false, 1)
    );
    for n in 1..64 {
        let told = learned.metadata(peer, &names(n, 256), &[n as u8; 4_096]);
        assert_eq!(did(told), (true, 0));
    }
    assert_eq!(did(learned.metadata(peer, "one more", b"x")), (false, 1));
    for n in 0..32 {
        store.tags().set(peer, &names(n, 128), 100, None).unwrap();
    }
    hand.flush(&store);
    let before = store.get(&peer).unwrap();
    hand.shutdown(store);

    let again = hand.open(memory);
    let report = again.load_report();
    assert_eq!((report.undecodable, report.foreign), (0, 0), "{report:?}");
    let after = again.get(&peer).unwrap();
    let listed = |peer: &libp2p_peerstore::Peer| -> Vec<Multiaddr> {
        sorted(peer.multiaddrs().cloned().collect())
    };
    assert_eq!(listed(&after).len(), 32);
    assert_eq!(listed(&after), listed(&before));
    let spoken = |peer: &libp2p_peerstore::Peer| {
        sorted(peer.protocols.iter().map(|p| p.to_string()).collect())
    };
    assert_eq!(spoken(&after).len(), 256);
    assert_eq!(spoken(&after), spoken(&before));
    assert_eq!(after.metadata.len(), 64);
    assert!(after.metadata == before.metadata);
    assert_eq!(after.tags, before.tags);
}
