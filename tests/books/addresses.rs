//! The address book.

use std::time::Duration;

use libp2p_core::{Multiaddr, multiaddr::Protocol};
use libp2p_peerstore::{Refused, Source, Sources, Standing};

use crate::support::*;

#[test]
fn set_replaces_the_addresses() {
    let store = store();
    let book = store.addresses();
    assert_eq!(did(book.set(peer(1), ports([1, 2]))), (true, 0));
    assert_eq!(book.get(&peer(1)), Some(ports([1, 2])));
    assert_eq!(did(book.set(peer(1), ports([2, 3]))), (true, 0));
    assert_eq!(book.get(&peer(1)), Some(ports([2, 3])));
}

#[test]
fn set_of_an_equal_set_does_nothing_and_keeps_the_order() {
    let store = store();
    let book = store.addresses();
    book.set(peer(1), ports([1, 2, 3]));
    assert_eq!(did(book.set(peer(1), ports([1, 2, 3]))), (false, 0));
    assert_eq!(did(book.set(peer(1), ports([3, 1, 2]))), (false, 0));
    assert_eq!(did(book.set(peer(1), ports([3, 2, 1, 1]))), (false, 0));
    assert_eq!(book.get(&peer(1)), Some(ports([1, 2, 3])));
}

#[test]
fn an_empty_set_is_ignored() {
    let store = store();
    let book = store.addresses();
    book.set(peer(1), ports([1, 2]));
    assert_eq!(did(book.set(peer(1), [])), (false, 0));
    assert_eq!(book.get(&peer(1)), Some(ports([1, 2])));
    assert_eq!(did(book.set(peer(2), [])), (false, 0));
    assert!(!store.contains(&peer(2)));
}

#[test]
fn a_set_of_which_nothing_is_fit_is_ignored() {
    let store = store();
    let book = store.addresses();
    book.set(peer(1), ports([1]));
    let foreign = with_id(at(2), peer(2));
    let written = book.set(peer(1), [foreign.clone(), Multiaddr::empty()]);
    assert_eq!(did(written), (false, 2));
    assert_eq!(book.get(&peer(1)), Some(ports([1])));
    assert_eq!(did(book.set(peer(3), [foreign])), (false, 1));
    assert!(!store.contains(&peer(3)));
}

#[test]
fn add_is_a_union() {
    let store = store();
    let book = store.addresses();
    assert_eq!(did(book.add(peer(1), ports([1]))), (true, 0));
    assert_eq!(did(book.add(peer(1), ports([2, 1, 3]))), (true, 0));
    assert_eq!(book.get(&peer(1)), Some(ports([1, 2, 3])));
}

#[test]
fn add_of_what_is_known_does_nothing() {
    let store = store();
    let book = store.addresses();
    book.add(peer(1), ports([1, 2]));
    assert_eq!(did(book.add(peer(1), ports([2]))), (false, 0));
    assert_eq!(did(book.add(peer(1), ports([2, 1]))), (false, 0));
    assert_eq!(did(book.add(peer(1), [])), (false, 0));
    assert_eq!(book.get(&peer(1)), Some(ports([1, 2])));
}

#[test]
fn add_of_nothing_makes_nobody_known() {
    let store = store();
    assert_eq!(did(store.addresses().add(peer(1), [])), (false, 0));
    assert_eq!(store.addresses().get(&peer(1)), None);
    assert!(store.is_empty());
}

#[test]
fn an_address_told_twice_is_stored_once() {
    let store = store();
    let book = store.addresses();
    let told = [at(1), at(1), with_id(at(1), peer(1))];
    assert_eq!(did(book.add(peer(1), told.clone())), (true, 0));
    assert_eq!(book.get(&peer(1)), Some(ports([1])));
    assert_eq!(did(book.set(peer(1), told)), (false, 0));
    assert_eq!(did(book.add(peer(1), ports([1]))), (false, 0));
}

#[test]
fn the_peers_own_id_at_the_end_is_stripped() {
    let store = store();
    let book = store.addresses();
    book.add(peer(1), [with_id(at(1), peer(1))]);
    book.set(peer(2), [with_id(at(2), peer(2))]);
    assert_eq!(book.get(&peer(1)), Some(ports([1])));
    assert_eq!(book.get(&peer(2)), Some(ports([2])));
    let removed = book.remove(peer(1), [with_id(at(1), peer(1))]);
    assert_eq!(did(removed), (true, 0));
    assert_eq!(book.get(&peer(1)), Some(vec![]));
}

#[test]
fn another_peers_id_at_the_end_is_refused() {
    let store = store();
    let book = store.addresses();
    let told = [at(1), with_id(at(2), peer(2)), at(3)];
    assert_eq!(did(book.add(peer(1), told)), (true, 1));
    assert_eq!(book.get(&peer(1)), Some(ports([1, 3])));
    assert_eq!(store.refusals().get(Refused::ForeignPeerId), 1);
    assert!(!store.contains(&peer(2)));
}

#[test]
fn an_address_of_nothing_but_the_peers_own_id_is_ignored() {
    let store = store();
    let only_id = Multiaddr::from(Protocol::P2p(peer(1)));
    assert_eq!(
        did(store.addresses().add(peer(1), [only_id.clone()])),
        (false, 0)
    );
    assert!(!store.contains(&peer(1)));
    assert_eq!(
        did(store.addresses().add(peer(1), [only_id, at(1)])),
        (true, 0)
    );
    assert_eq!(store.addresses().get(&peer(1)), Some(ports([1])));
    assert_eq!(store.refusals().total(), 0);
}

#[test]
fn a_relays_id_inside_an_address_stays() {
    let store = store();
    let book = store.addresses();
    let circuit = with_id(at(1), peer(9)).with(Protocol::P2pCircuit);
    let whole = with_id(circuit.clone(), peer(1));
    assert_eq!(
        did(book.add(peer(1), [whole.clone(), circuit.clone()])),
        (true, 0)
    );
    assert_eq!(book.get(&peer(1)), Some(vec![circuit]));
    assert_eq!(book.multiaddrs_for_peer(&peer(1)), [whole]);
}

#[test]
fn remove_takes_some_away() {
    let store = store();
    let book = store.addresses();
    book.add(peer(1), ports([1, 2, 3, 4, 5]));
    let ten_times = std::iter::repeat_n(at(3), 10);
    assert_eq!(did(book.remove(peer(1), ten_times)), (true, 0));
    assert_eq!(book.get(&peer(1)), Some(ports([1, 2, 4, 5])));
    assert_eq!(did(book.remove(peer(1), ports([3, 9]))), (false, 0));
    assert_eq!(did(book.remove(peer(1), [])), (false, 0));
}

#[test]
fn removing_more_than_is_known_leaves_none_and_the_peer_known() {
    let store = store();
    let book = store.addresses();
    book.add(peer(1), ports([1, 2]));
    assert_eq!(did(book.remove(peer(1), ports(1..=9))), (true, 0));
    assert_eq!(book.get(&peer(1)), Some(vec![]));
    assert!(store.contains(&peer(1)));
}

#[test]
fn remove_of_an_unknown_peers_address_does_nothing() {
    let store = store();
    assert_eq!(
        did(store.addresses().remove(peer(1), ports([1]))),
        (false, 0)
    );
    assert!(!store.contains(&peer(1)));
}

#[test]
fn an_unknown_peer_reads_as_none_and_a_known_one_without_addresses_as_an_empty_list() {
    let store = store();
    let book = store.addresses();
    assert_eq!(book.get(&peer(1)), None);
    assert_eq!(book.infos(&peer(1)), None);
    assert!(book.multiaddrs_for_peer(&peer(1)).is_empty());
    store.protocols().add(peer(1), ["/x"]);
    assert_eq!(book.get(&peer(1)), Some(vec![]));
    assert_eq!(book.infos(&peer(1)), Some(vec![]));
    assert!(book.multiaddrs_for_peer(&peer(1)).is_empty());
}

#[test]
fn multiaddrs_for_peer_end_in_the_peer_id_once() {
    let store = store();
    let book = store.addresses();
    book.add(peer(1), [at(1), with_id(at(2), peer(1))]);
    let expected = [with_id(at(1), peer(1)), with_id(at(2), peer(1))];
    assert_eq!(book.multiaddrs_for_peer(&peer(1)), expected);
    let view = store.get(&peer(1)).unwrap();
    assert_eq!(view.p2p_multiaddrs().collect::<Vec<_>>(), expected);
    // What is handed out can be handed back.
    let again = book.multiaddrs_for_peer(&peer(1));
    assert_eq!(did(book.add(peer(1), again)), (false, 0));
}

#[test]
fn what_is_handed_out_can_be_handed_back_up_to_the_longest_address() {
    let store = store_with(|config| config.with_max_address_len(size(at(1).len())));
    let mut swarm = Swarm::of(&store);
    let book = store.addresses();
    assert_eq!(did(book.add(peer(1), ports([1]))), (true, 0));
    let handed_out = book.multiaddrs_for_peer(&peer(1));
    assert_eq!(did(book.set(peer(1), handed_out)), (false, 0));

    // So can what the swarm reports of a dial: it comes with the peer id.
    swarm.dial_failed(peer(1), [at(1)]);
    assert_eq!(book.infos(&peer(1)).unwrap()[0].failures, 1);
    assert_eq!(store.refusals().total(), 0);
}

#[test]
fn delete_tells_whether_there_were_addresses() {
    let store = store();
    let book = store.addresses();
    assert!(!book.delete(&peer(1)));
    book.add(peer(1), ports([1, 2]));
    assert!(book.delete(&peer(1)));
    assert!(!book.delete(&peer(1)));
    // Nothing else was known of it.
    assert_eq!(book.get(&peer(1)), None);
    assert!(!store.contains(&peer(1)));
}

#[test]
fn delete_of_the_addresses_leaves_the_other_books_and_other_peers() {
    let store = store();
    let book = store.addresses();
    book.add(peer(1), ports([1]));
    book.add(peer(2), ports([1]));
    store.protocols().add(peer(1), ["/x"]);
    assert!(book.delete(&peer(1)));
    assert_eq!(book.get(&peer(1)), Some(vec![]));
    assert_eq!(spoken(&store, peer(1)), Some(vec!["/x".to_owned()]));
    assert_eq!(book.get(&peer(2)), Some(ports([1])));
    assert!(!book.delete(&peer(1)));
}

#[test]
fn delete_of_the_addresses_keeps_a_connected_peer_known() {
    let store = store();
    let mut swarm = Swarm::of(&store);
    swarm.dialled(peer(1), at(1));
    assert!(store.addresses().delete(&peer(1)));
    assert_eq!(store.addresses().get(&peer(1)), Some(vec![]));
    assert!(store.get(&peer(1)).unwrap().connected);
}

#[test]
fn pinned_addresses_survive_everything_but_the_users_own_removal() {
    let (store, clock) = clocked();
    let book = store.addresses();
    assert_eq!(did(book.pin(peer(1), ports([1]))), (true, 0));
    book.set(peer(1), ports([2]));
    assert_eq!(sorted(book.get(&peer(1)).unwrap()), ports([1, 2]));
    identify(&store, peer(1), &ports([3]));
    assert_eq!(sorted(book.get(&peer(1)).unwrap()), ports([1, 3]));
    store.learned(Source::Mdns).add(peer(1), &ports([1]));
    store.learned(Source::Mdns).withdraw(peer(1), None);
    clock.advance(Duration::from_secs(400 * 24 * 3600));
    identify(&store, peer(1), &ports([4]));
    assert_eq!(sorted(book.get(&peer(1)).unwrap()), ports([1, 4]));

    assert_eq!(did(book.remove(peer(1), ports([1]))), (true, 0));
    assert_eq!(book.get(&peer(1)), Some(ports([4])));
    book.pin(peer(1), ports([5]));
    assert!(book.delete(&peer(1)));
    assert!(!store.contains(&peer(1)));
    book.pin(peer(1), ports([5]));
    assert!(store.delete(&peer(1)));
    assert!(!store.contains(&peer(1)));
}

#[test]
fn a_known_address_can_be_pinned_and_an_unpinned_one_is_like_any_other() {
    let store = store();
    let book = store.addresses();
    gossip(&store, peer(1), &ports([1]));
    book.pin(peer(1), [with_id(at(1), peer(1))]);
    let info = book.infos(&peer(1)).unwrap().remove(0);
    assert_eq!(info.sources, Sources::KADEMLIA | Sources::PINNED);
    assert!(info.is_pinned());
    identify(&store, peer(1), &ports([2]));
    assert_eq!(sorted(book.get(&peer(1)).unwrap()), ports([1, 2]));

    book.unpin(peer(1), ports([1]));
    let infos = book.infos(&peer(1)).unwrap();
    assert!(infos.iter().all(|info| !info.is_pinned()));
    identify(&store, peer(1), &ports([2]));
    assert_eq!(book.get(&peer(1)), Some(ports([2])));
}

#[test]
fn unpin_of_what_is_not_pinned_or_not_known_does_nothing() {
    let store = store();
    assert_eq!(
        did(store.addresses().unpin(peer(1), ports([1]))),
        (false, 0)
    );
    assert!(!store.contains(&peer(1)));
    gossip(&store, peer(1), &ports([1]));
    assert_eq!(
        did(store.addresses().unpin(peer(1), ports([1, 2]))),
        (false, 0)
    );
    let info = store.addresses().infos(&peer(1)).unwrap().remove(0);
    assert_eq!(info.sources, Sources::KADEMLIA);
}

#[test]
fn infos_tell_sources_standing_and_times() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    let started = std::time::UNIX_EPOCH + Duration::from_secs(1_735_689_600);
    // Times are in steps of 64 seconds, rounded down.
    let minutes = |n: u64| started + Duration::from_secs(60 * n / 64 * 64);
    let info = || store.addresses().infos(&peer(1)).unwrap().remove(0);

    gossip(&store, peer(1), &ports([1]));
    let first = info();
    assert_eq!(first.sources, Sources::KADEMLIA);
    assert_eq!(first.standing, Standing::Hearsay);
    assert_eq!((first.first_heard, first.last_heard), (started, started));
    assert_eq!((first.last_success, first.last_failure), (None, None));

    // The time of hearsay is kept to a quarter of an hour: only beyond it is the time told misleading.
    clock.advance(Duration::from_secs(15 * 60));
    gossip(&store, peer(1), &ports([1]));
    assert_eq!(info().last_heard, started);
    clock.advance(Duration::from_secs(60));
    gossip(&store, peer(1), &ports([1]));
    assert_eq!(
        (info().first_heard, info().last_heard),
        (started, minutes(16))
    );

    clock.advance(Duration::from_secs(60));
    swarm.dial_failed(peer(1), ports([1]));
    swarm.dial_failed(peer(1), ports([1]));
    let failed = info();
    assert_eq!((failed.failures, failed.successes), (2, 0));
    assert_eq!(failed.last_failure, Some(minutes(17)));

    clock.advance(Duration::from_secs(60));
    swarm.dialled(peer(1), at(1));
    let proven = info();
    assert_eq!(proven.sources, Sources::KADEMLIA | Sources::DIALLED);
    assert_eq!(proven.standing, Standing::Proven);
    assert_eq!((proven.failures, proven.successes), (0, 1));
    assert_eq!(proven.last_success, Some(minutes(18)));
    assert_eq!(proven.last_failure, Some(minutes(17)));
}

#[test]
fn a_dial_proves_an_address_up_to_the_end_of_the_proven_lifetime() {
    let lifetime = Duration::from_secs(1000);
    let (store, clock) = clocked_with(|config| config.with_proven_lifetime(lifetime));
    let mut swarm = Swarm::of(&store);
    let standing = || store.addresses().infos(&peer(1)).unwrap()[0].standing;
    swarm.proved(peer(1), at(1));
    clock.advance(lifetime - Duration::from_secs(1));
    assert_eq!(standing(), Standing::Proven);
    clock.advance(Duration::from_secs(1));
    assert_eq!(standing(), Standing::Hearsay);
    assert_eq!(store.addresses().get(&peer(1)), Some(ports([1])));
}

#[test]
fn addresses_come_best_first() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    let order = || store.addresses().get(&peer(1)).unwrap();

    swarm.accepted(peer(1), at(1));
    gossip(&store, peer(1), &ports([2, 3]));
    store.learned(Source::Identify).add(peer(1), &ports([4, 5]));
    swarm.dialled(peer(1), at(6));
    // By standing; what is equal stays in the order in which it came.
    assert_eq!(order(), ports([6, 4, 5, 2, 3, 1]));
    assert_eq!(
        store.addresses().multiaddrs_for_peer(&peer(1)),
        order()
            .into_iter()
            .map(|address| with_id(address, peer(1)))
            .collect::<Vec<_>>()
    );

    // Within a standing what failed comes later.
    swarm.dial_failed(peer(1), ports([4, 2]));
    assert_eq!(order(), ports([6, 5, 4, 3, 2, 1]));

    // A proof raises the standing; among proven ones the confidence counts, which a failure before still lowers.
    clock.advance(Duration::from_secs(60));
    swarm.dialled(peer(1), at(2));
    assert_eq!(order(), ports([6, 2, 5, 4, 3, 1]));

    // What was heard of just now comes before what was heard of a while ago.
    clock.advance(Duration::from_secs(1800));
    gossip(&store, peer(1), &ports([7]));
    assert_eq!(order(), ports([6, 2, 5, 4, 7, 3, 1]));

    let infos = store.addresses().infos(&peer(1)).unwrap();
    let worth = |n: usize| (infos[n].standing, infos[n].confidence);
    assert!((1..infos.len()).all(|n| worth(n - 1) > worth(n)));
    let view = store.get(&peer(1)).unwrap();
    assert_eq!(view.addresses, infos);
}

#[test]
fn the_iterator_of_a_caller_may_use_the_store() {
    finishes(|| {
        let store = store();
        let also_known = (1..=3).map(|port| {
            store.addresses().add(peer(2), ports([port]));
            at(port)
        });
        assert_eq!(did(store.addresses().add(peer(1), also_known)), (true, 0));
        assert_eq!(store.addresses().get(&peer(1)), Some(ports([1, 2, 3])));
        assert_eq!(store.addresses().get(&peer(2)), Some(ports([1, 2, 3])));
    });
}
