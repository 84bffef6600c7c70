//! All books at once, walks over the store, and the handle.

use std::{ops::ControlFlow, sync::Barrier, thread, time::Duration};

use futures::executor::block_on;
use libp2p_identity::PeerId;
use libp2p_peerstore::{Cause, FlushError, LoadReport, PeerStore, Refused, Source, Standing};

use crate::support::*;

/// A store with four peers, each known to one book only, in the order address, protocol, key, metadata.
fn one_book_each() -> (PeerStore, [PeerId; 4]) {
    let store = store();
    let rsa = rsa_key().to_peer_id();
    store.addresses().add(peer(1), ports([1]));
    store.protocols().add(peer(2), ["/x"]);
    store.keys().set(rsa, rsa_key()).unwrap();
    store.metadata().set(peer(4), "a", "b").unwrap();
    (store, [peer(1), peer(2), rsa, peer(4)])
}

fn ids(peers: &[libp2p_peerstore::Peer]) -> Vec<PeerId> {
    sorted(peers.iter().map(|peer| peer.id).collect())
}

#[test]
fn a_peer_that_only_one_book_knows_is_in_every_listing() {
    let (store, peers) = one_book_each();
    let all = sorted(peers.to_vec());
    assert_eq!(ids(&store.peers()), all);
    assert_eq!(sorted(store.peer_ids()), all);
    assert_eq!(ids(&store.filter(|_| true)), all);
    let mut met = Vec::new();
    let broken = store.for_each(|peer| {
        met.push(peer.id);
        ControlFlow::<()>::Continue(())
    });
    assert_eq!((sorted(met), broken), (all, None));
    assert_eq!((store.len(), store.is_empty()), (4, false));
    assert!(peers.iter().all(|peer| store.contains(peer)));
    assert!(peers.iter().all(|peer| store.get(peer).is_some()));
}

#[test]
fn what_a_book_does_not_know_of_a_known_peer_reads_as_empty() {
    let (store, peers) = one_book_each();
    let [by_address, by_protocol, by_key, by_metadata] = peers.map(|id| store.get(&id).unwrap());
    assert_eq!(by_address.multiaddrs().collect::<Vec<_>>(), [&at(1)]);
    assert!(by_address.protocols.is_empty() && by_address.metadata.is_empty());
    assert!(by_protocol.supports("/x") && !by_protocol.supports("/y"));
    assert!(by_protocol.addresses.is_empty() && by_protocol.metadata.is_empty());
    assert_eq!(by_key.public_key, Some(rsa_key()));
    assert!(by_key.addresses.is_empty() && by_key.protocols.is_empty());
    assert_eq!(by_metadata.metadata["a"], b"b");
    assert!(by_metadata.addresses.is_empty() && by_metadata.signed_record.is_none());
    assert!(!by_metadata.connected);
    assert_eq!(by_metadata.agent_version(), None);
}

#[test]
fn a_store_without_peers_is_empty() {
    let store = store();
    assert!(store.is_empty() && store.peers().is_empty() && store.peer_ids().is_empty());
    assert!(store.get(&peer(1)).is_none() && !store.contains(&peer(1)));
    assert_eq!(store.local_peer_id(), peer(LOCAL));
    assert_eq!(store.load_report(), LoadReport::default());
    assert_eq!((store.unsaved(), store.refusals().total()), (0, 0));
    store.addresses().add(peer(1), ports([1]));
    assert_eq!(store.unsaved(), 0);
}

#[test]
fn delete_forgets_a_peer_in_all_books() {
    let (store, _) = one_book_each();
    let rsa = rsa_key().to_peer_id();
    store.addresses().pin(rsa, ports([1]));
    store.protocols().add(rsa, ["/x"]);
    store.metadata().set(rsa, "a", "b").unwrap();
    assert!(store.delete(&rsa));
    assert!(!store.contains(&rsa) && store.get(&rsa).is_none());
    assert_eq!(store.addresses().get(&rsa), None);
    assert_eq!(store.protocols().get(&rsa), None);
    assert_eq!(store.keys().get(&rsa), None);
    assert_eq!(store.metadata().get(&rsa), None);
    assert_eq!(store.len(), 3);
    assert!(!store.delete(&rsa));
}

#[test]
fn delete_tells_whether_one_book_or_more_held_the_peer() {
    let (store, peers) = one_book_each();
    assert!(!store.delete(&peer(9)));
    assert_eq!(peers.map(|peer| store.delete(&peer)), [true; 4]);
    assert_eq!(peers.map(|peer| store.delete(&peer)), [false; 4]);
    assert!(store.is_empty());
}

#[test]
fn a_deleted_peer_can_be_learnt_of_again() {
    let store = store();
    identify(&store, peer(1), &ports([1]));
    store.delete(&peer(1));
    assert_eq!(did(gossip(&store, peer(1), &ports([1]))), (true, 0));
    let infos = store.addresses().infos(&peer(1)).unwrap();
    assert_eq!(infos[0].standing, Standing::Hearsay);
}

#[test]
fn delete_for_ignores_what_is_learnt_until_its_time_is_over() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    store.addresses().add(peer(1), ports([1]));
    assert!(store.delete_for(&peer(1), Duration::from_secs(60)));
    assert!(!store.contains(&peer(1)));

    clock.advance(Duration::from_secs(59));
    assert_eq!(did(gossip(&store, peer(1), &ports([1]))), (false, 1));
    assert_eq!(did(identify(&store, peer(1), &ports([1]))), (false, 1));
    let mut learned = store.learned(Source::Identify);
    assert_eq!(did(learned.metadata(peer(1), "a", b"b")), (false, 1));
    swarm.found(peer(1), &at(1));
    swarm.dialled(peer(1), at(1));
    assert!(!store.contains(&peer(1)));
    assert_eq!(store.refusals().get(Refused::Ignored), 5);
    // Others are not concerned.
    assert_eq!(did(gossip(&store, peer(2), &ports([1]))), (true, 0));

    clock.advance(Duration::from_secs(1));
    assert_eq!(did(gossip(&store, peer(1), &ports([1]))), (true, 0));
    assert_eq!(store.refusals().total(), 5);
}

#[test]
fn a_ban_that_is_renewed_and_one_of_no_time_end_no_other() {
    let (store, _) = clocked();
    let mut bans: Vec<PeerId> = (0..1_024).map(|_| PeerId::random()).collect();
    for (n, peer) in (1..).zip(&bans) {
        store.delete_for(peer, Duration::from_secs(n * 60));
    }
    let is_ignored = |peer: &PeerId| did(gossip(&store, *peer, &ports([1]))) == (false, 1);
    store.delete_for(&bans[1_000], Duration::from_secs(3_600));
    let newcomer = PeerId::random();
    store.delete_for(&newcomer, Duration::ZERO);
    assert!(bans.iter().all(is_ignored));
    assert!(!is_ignored(&newcomer));
    // One of no time ends a ban, and one more ends the one that would end first.
    store.delete_for(&bans[500], Duration::ZERO);
    assert!(!is_ignored(&bans.remove(500)));
    store.delete_for(&PeerId::random(), Duration::from_secs(3_600));
    assert!(bans.iter().all(is_ignored));
    store.delete_for(&PeerId::random(), Duration::from_secs(3_600));
    assert!(!is_ignored(&bans[0]));
    assert!(bans[1..].iter().all(is_ignored));
}

#[test]
fn delete_for_of_an_unknown_peer_ignores_it_too() {
    let (store, clock) = clocked();
    assert!(!store.delete_for(&peer(1), Duration::MAX));
    clock.advance(Duration::from_secs(100 * 365 * 24 * 3600));
    assert_eq!(did(gossip(&store, peer(1), &ports([1]))), (false, 1));
}

#[test]
fn what_the_user_stores_ends_the_ban() {
    let store = store();
    store.delete_for(&peer(1), Duration::from_secs(60));
    assert_eq!(did(store.addresses().add(peer(1), ports([1]))), (true, 0));
    assert_eq!(did(gossip(&store, peer(1), &ports([2]))), (true, 0));
}

#[test]
fn a_call_of_the_user_that_stores_nothing_does_not_end_the_ban() {
    let store = store();
    store.delete_for(&peer(1), Duration::from_secs(60));
    let (addresses, protocols) = (store.addresses(), store.protocols());
    addresses.add(peer(1), []);
    addresses.add(peer(1), [with_id(at(1), peer(2))]);
    addresses.remove(peer(1), ports([1]));
    protocols.set(peer(1), [""; 0]);
    protocols.remove(peer(1), ["/x"]);
    store.metadata().set(peer(1), "", "x").unwrap_err();
    store.metadata().delete_value(&peer(1), "x");
    store.keys().set(peer(1), key(2)).unwrap_err();
    assert!(!store.delete(&peer(1)));
    assert_eq!(did(gossip(&store, peer(1), &ports([1]))), (false, 1));
    assert!(!store.contains(&peer(1)));
}

#[test]
fn when_too_many_peers_are_ignored_the_ban_that_ends_first_ends_now() {
    let store = store();
    let peers: Vec<PeerId> = (0..1025).map(|_| PeerId::random()).collect();
    for (n, peer) in peers.iter().enumerate() {
        // The second one would end first.
        let seconds = if n == 1 { 10 } else { 60 };
        store.delete_for(peer, Duration::from_secs(seconds));
    }
    for (n, peer) in peers.iter().enumerate() {
        assert_eq!(gossip(&store, *peer, &ports([1])).changed, n == 1, "{n}");
    }
}

#[test]
fn for_each_stops_where_it_breaks() {
    let store = store();
    for n in 1..=200 {
        store.addresses().add(peer(n), ports([1]));
    }
    let mut met = 0;
    let broken = store.for_each(|peer| {
        met += 1;
        match met {
            100 => ControlFlow::Break(peer.id),
            _ => ControlFlow::Continue(()),
        }
    });
    assert_eq!(met, 100);
    assert!(store.contains(&broken.unwrap()));
}

#[test]
fn a_walk_meets_every_peer_once() {
    let store = store();
    for n in 1..=200 {
        store.addresses().add(peer(n), ports([u16::from(n)]));
    }
    for n in 50..=149 {
        store.delete(&peer(n));
    }
    let expected: Vec<PeerId> = (1..=200)
        .filter(|n| !(50..=149).contains(n))
        .map(peer)
        .collect();
    assert_eq!(ids(&store.peers()), sorted(expected));
}

#[test]
fn a_visitor_may_use_the_store() {
    finishes(|| {
        let store = store();
        for n in 1..=200 {
            store.addresses().add(peer(n), ports([1]));
        }
        let stays = sorted(store.peer_ids());
        let mut met = Vec::new();
        store.for_each(|seen| {
            met.push(seen.id);
            store.addresses().add(seen.id, ports([2]));
            store.addresses().add(PeerId::random(), ports([3]));
            assert!(store.addresses().get(&seen.id).unwrap().contains(&at(2)));
            ControlFlow::<()>::Continue(())
        });
        // Neither is a peer left out, nor does the walk go on for ever.
        assert_eq!(sorted(met), stays);
        assert_eq!(store.len(), 400);

        let found = store.filter(|seen| store.contains(&seen.id) && store.delete(&seen.id));
        assert!(store.is_empty());
        assert_eq!(found.len(), 400);
    });
}

#[test]
fn filter_keeps_the_peers_for_which_it_holds() {
    let (store, [by_address, by_protocol, ..]) = one_book_each();
    store.protocols().add(by_address, ["/x", "/y"]);
    assert_eq!(
        ids(&store.filter(|peer| peer.supports("/x"))),
        sorted(vec![by_address, by_protocol])
    );
    assert!(store.filter(|_| false).is_empty());
}

#[test]
fn peers_supporting_a_protocol_are_found_by_its_whole_name() {
    let (store, [by_address, by_protocol, ..]) = one_book_each();
    assert_eq!(store.peers_supporting("/x"), [by_protocol]);
    store.protocols().add(by_address, ["/x/1", "/x"]);
    assert_eq!(
        sorted(store.peers_supporting("/x")),
        sorted(vec![by_address, by_protocol])
    );
    assert_eq!(store.peers_supporting("/x/1"), [by_address]);
    store.protocols().remove(by_address, ["/x"]);
    assert_eq!(store.peers_supporting("/x"), [by_protocol]);
    assert!(store.peers_supporting("").is_empty());
}

#[test]
fn the_local_peer_is_never_stored() {
    let store = store();
    let mut swarm = Swarm::of(&store);
    let mut events = store.subscribe();
    let local = peer(LOCAL);
    assert!(!store.addresses().add(local, ports([1])).changed);
    assert!(!store.addresses().set(local, ports([1])).changed);
    assert!(!store.addresses().pin(local, ports([1])).changed);
    assert!(!store.protocols().set(local, ["/x"]).changed);
    assert_eq!(store.keys().set(local, key(LOCAL)), Err(Refused::LocalPeer));
    assert_eq!(
        store.metadata().set(local, "a", "b"),
        Err(Refused::LocalPeer)
    );
    assert!(!gossip(&store, local, &ports([1])).changed);
    swarm.found(local, &at(1));
    swarm.dialled(local, at(1));
    assert!(store.is_empty() && !store.delete(&local));
    assert_eq!(store.refusals().get(Refused::LocalPeer), 9);
    assert_eq!(heard(&mut events), []);
    // Its key is in its id, as for any peer.
    assert_eq!(store.keys().get(&local), Some(key(LOCAL)));
}

#[test]
fn every_clone_of_a_handle_is_the_same_store() {
    let store = store();
    let other = store.clone();
    store.addresses().add(peer(1), ports([1]));
    drop(store);
    assert_eq!(other.addresses().get(&peer(1)), Some(ports([1])));
}

#[test]
fn connections_are_counted() {
    let store = store();
    let mut swarm = Swarm::of(&store);
    assert!(!store.is_connected(&peer(1)));
    swarm.dialled(peer(1), at(1));
    swarm.accepted(peer(1), at(2));
    assert_eq!(store.connections(&peer(1)), 2);
    assert_eq!(store.connected_peers(), [peer(1)]);
    swarm.closed(peer(1));
    assert!(store.is_connected(&peer(1)));
    assert!(store.get(&peer(1)).unwrap().connected);
    swarm.closed(peer(1));
    swarm.closed(peer(1));
    assert_eq!(store.connections(&peer(1)), 0);
    assert!(!store.get(&peer(1)).unwrap().connected);
    assert!(store.connected_peers().is_empty());

    // A peer that becomes known while it is connected is known as connected.
    swarm.accepted(peer(2), at(1));
    store.delete(&peer(2));
    gossip(&store, peer(2), &ports([1]));
    assert!(store.get(&peer(2)).unwrap().connected);
    // Without a behaviour nobody is.
    drop(swarm);
    assert!(!store.get(&peer(2)).unwrap().connected);
    assert!(!store.is_connected(&peer(2)));
}

#[test]
fn a_handle_is_used_from_several_threads() {
    fn assert_shared<T: Send + Sync + Clone + 'static>(_: &T) {}
    let store = store_with(|config| config.with_max_addresses_per_peer(size(1000)));
    assert_shared(&store);
    let mut events = store.subscribe();
    let start = Barrier::new(8);
    thread::scope(|scope| {
        for thread in 0..8_u16 {
            let (store, start) = (store.clone(), &start);
            scope.spawn(move || {
                start.wait();
                for n in 0..50 {
                    let port = 1 + thread * 50 + n;
                    let added = store.addresses().add(peer(1), ports([port]));
                    assert_eq!(did(added), (true, 0));
                    let own = peer(10 + thread as u8);
                    let name = format!("/{n}");
                    assert_eq!(did(store.protocols().add(own, [&name])), (true, 0));
                    assert!(spoken(&store, own).unwrap().contains(&name));
                    assert!(store.peers().len() <= 9);
                }
            });
        }
    });
    let addresses = store.addresses().get(&peer(1)).unwrap();
    assert_eq!(sorted(addresses.clone()), sorted(ports(1..=400)));
    assert_eq!(store.len(), 9);
    // Each change was one event, in an order in which the set only grows.
    let told = heard(&mut events);
    let lengths: Vec<usize> = told
        .iter()
        .filter_map(|told| match told {
            Told::Addresses(_, addresses, Cause::User) => Some(addresses.len()),
            _ => None,
        })
        .collect();
    assert_eq!(lengths, (1..=400).collect::<Vec<_>>());
    let count = |wanted: fn(&Told) -> bool| told.iter().filter(|told| wanted(told)).count();
    assert_eq!(count(|told| matches!(told, Told::Added(_))), 9);
    assert_eq!(count(|told| matches!(told, Told::Protocols(..))), 400);
    assert_eq!(told.len(), 9 + 400 + 400);
}

#[test]
fn after_shutdown_reads_work_the_user_writes_and_nothing_is_gathered() {
    let store = store();
    let mut swarm = Swarm::of(&store);
    store.addresses().add(peer(1), ports([1]));
    block_on(store.flush()).unwrap();
    block_on(store.shutdown()).unwrap();
    block_on(store.shutdown()).unwrap();
    assert!(matches!(block_on(store.flush()), Err(FlushError::Closed)));

    assert_eq!(store.addresses().get(&peer(1)), Some(ports([1])));
    assert_eq!(did(gossip(&store, peer(2), &ports([1]))), (false, 0));
    assert_eq!(did(identify(&store, peer(1), &ports([2]))), (false, 0));
    swarm.dialled(peer(3), at(1));
    assert_eq!(store.peer_ids(), [peer(1)]);
    assert_eq!(did(store.addresses().add(peer(2), ports([1]))), (true, 0));
    assert!(store.delete(&peer(1)));
    assert_eq!(store.peer_ids(), [peer(2)]);
}
