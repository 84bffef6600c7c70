//! What the model found, each as a test of its own.

use std::time::Duration;

use futures::executor::block_on;
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_peerstore::{
    AddressInfo, Cause, Clock, Config, ManualClock, MemoryDatastore, PeerStore, Refused, Source,
    Sources, Standing,
};

use super::check::support::*;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

fn info(store: &PeerStore, peer: PeerId, address: &Multiaddr) -> AddressInfo {
    let infos = store.addresses().infos(&peer).unwrap();
    let info = infos.into_iter().find(|info| info.address == *address);
    info.unwrap()
}

/// A dial by address alone gives a connection whose address has no `/p2p/<peer>`, a dial by peer id one that has. The
/// end of the one ended the use of the address by the other, so that it aged while it was connected.
#[test]
fn an_address_is_in_use_while_any_connection_is_there_in_whatever_form() {
    for forms in [[false, true], [true, false]] {
        let (store, clock) = clocked();
        let mut swarm = Swarm::of(&store);
        for full in forms {
            let address = if full { with_id(at(1), peer(1)) } else { at(1) };
            swarm.dialled(peer(1), address);
        }
        swarm.closed(peer(1));
        assert_eq!(info(&store, peer(1), &at(1)).expires, None);
        clock.advance(400 * DAY);
        assert_eq!(info(&store, peer(1), &at(1)).standing, Standing::Proven);
        swarm.closed(peer(1));
        assert!(info(&store, peer(1), &at(1)).expires.is_some());
    }
}

/// A list of which nothing is fit to be stored changes nothing. One that held only an address of this node itself took
/// all others away, and stored none.
#[test]
fn a_list_of_nothing_but_this_nodes_own_address_changes_nothing() {
    let store = store();
    let mut swarm = Swarm::of(&store);
    swarm.wrong_peer(peer(1), peer(LOCAL), at(9));
    identify(&store, peer(1), &ports([1, 2]));
    assert_eq!(did(identify(&store, peer(1), &ports([9]))), (false, 1));
    assert_eq!(did(store.addresses().set(peer(1), ports([9]))), (false, 1));
    assert_eq!(store.addresses().get(&peer(1)), Some(ports([1, 2])));
    assert_eq!(store.refusals().get(Refused::OwnAddress), 2);
    assert_eq!(store.refusals().total(), 2);
    // Beside others it is left out.
    assert_eq!(did(identify(&store, peer(1), &ports([9, 2]))), (true, 1));
    assert_eq!(store.addresses().get(&peer(1)), Some(ports([2])));
}

/// A peer that has two addresses at one IP address took the places of two others there.
#[test]
fn who_proves_to_be_at_an_ip_address_takes_one_place_there_with_however_many_addresses() {
    let store = store_with(|config| config.with_max_claims_per_ip(size(3)));
    let mut swarm = Swarm::of(&store);
    for n in 1..=3 {
        gossip(&store, peer(n), &ports([1]));
    }
    store.learned(Source::Identify).add(peer(9), &ports([2, 3]));
    swarm.dialled(peer(9), at(4));
    let left = (1..=3).filter(|n| store.contains(&peer(*n))).count();
    assert_eq!(left, 2);
}

/// The address of a connection may be one that is not stored. That was counted as refused once more when the connection
/// ended.
#[test]
fn the_end_of_a_connection_refuses_nothing() {
    let store = store_with(|config| config.with_max_address_len(size(7)));
    let mut swarm = Swarm::of(&store);
    swarm.proved(peer(1), at(1));
    assert_eq!(store.refusals().get(Refused::AddressTooLong), 1);
}

/// That identify left a pinned address out of its list was not written, unless something else was.
#[test]
fn what_the_peer_no_longer_says_of_a_pinned_address_stays_so_after_a_restart() {
    let datastore = MemoryDatastore::default();
    let open = || {
        let store = PeerStore::open(peer(LOCAL), datastore.clone(), Config::default());
        block_on(store).unwrap()
    };
    let store = open();
    store.addresses().pin(peer(1), ports([1]));
    identify(&store, peer(1), &ports([1, 2]));
    block_on(store.flush()).unwrap();
    identify(&store, peer(1), &ports([2]));
    let sources = |store: &PeerStore| info(store, peer(1), &at(1)).sources;
    assert_eq!(sources(&store), Sources::PINNED);
    block_on(store.shutdown()).unwrap();
    drop(store);
    assert_eq!(sources(&open()), Sources::PINNED);
}

/// An address that the peer had left out of its list while a connection to it was open came back as one that nobody had
/// ever reached, and aged while it was connected.
#[test]
fn an_address_that_was_dropped_while_it_is_connected_is_in_use_when_it_is_told_again() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    swarm.dialled(peer(1), at(1));
    swarm.accepted(peer(2), at(2));
    for n in [1, 2] {
        identify(&store, peer(n), &ports([3]));
        assert_eq!(store.addresses().get(&peer(n)), Some(ports([3])));
        store.addresses().add(peer(n), ports([n.into()]));
    }
    assert_eq!(info(&store, peer(1), &at(1)).standing, Standing::Proven);
    assert_eq!(info(&store, peer(2), &at(2)).standing, Standing::Hearsay);
    clock.advance(400 * DAY);
    for n in [1, 2] {
        assert_eq!(store.addresses().get(&peer(n)), Some(ports([n.into()])));
        swarm.closed(peer(n));
    }
    clock.advance(2 * DAY);
    // The one was proven until its connection ended, the other is hearsay that was told for long.
    assert!(store.contains(&peer(1)) && !store.contains(&peer(2)));
    clock.advance(12 * DAY - SECOND);
    assert_eq!(store.addresses().get(&peer(1)), Some(ports([1])));
    clock.advance(SECOND);
    assert!(!store.contains(&peer(1)));
}

/// A peer that had said nothing for a day was forgotten the moment its connection ended, with all that it had told.
#[test]
fn a_peer_without_an_address_is_remembered_from_the_end_of_its_last_connection() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    swarm.accepted(peer(1), at(1));
    store.protocols().set(peer(1), ["/x"]);
    store.addresses().remove(peer(1), ports([1]));
    clock.advance(30 * DAY);
    swarm.closed(peer(1));
    let seen = store.get(&peer(1)).unwrap().last_seen;
    assert_eq!(seen, clock.started() + 30 * DAY);
    clock.advance(DAY - SECOND);
    assert_eq!(spoken(&store, peer(1)), Some(vec!["/x".to_owned()]));
    clock.advance(SECOND);
    assert!(!store.contains(&peer(1)));
}

/// A peer with a tag, or a dropped address, that outlived its addresses went with the tag if nobody had collected the
/// addresses, and else when it had been silent for a day.
#[test]
fn when_a_peer_goes_does_not_depend_on_what_was_collected() {
    for collected in [false, true] {
        let (store, clock) = clocked();
        // The tag outlives the address, and the word of the peer both.
        gossip(&store, peer(1), &ports([1]));
        store.protocols().set(peer(1), ["/x"]);
        store.tags().set(peer(1), "t", 1, Some(9 * HOUR)).unwrap();
        // The memory of the dropped address outlives the address.
        identify(&store, peer(2), &ports([1]));
        store.protocols().set(peer(2), ["/x"]);
        clock.advance(20 * HOUR);
        let left = |n| {
            if collected {
                assert_eq!(store.len(), 2);
            }
            assert_eq!(store.addresses().get(&peer(n)), Some(vec![]));
        };
        left(1);
        store.addresses().set(peer(2), ports([2]));
        clock.advance(4 * HOUR - SECOND);
        left(1);
        clock.advance(SECOND);
        assert!(!store.contains(&peer(1)), "collected: {collected}");
        clock.advance(4 * HOUR - SECOND);
        assert_eq!(store.addresses().get(&peer(2)), Some(ports([2])));
        clock.advance(SECOND);
        assert!(!store.contains(&peer(2)), "it went with its last address");
    }
    for collected in [false, true] {
        let (store, clock) = clocked();
        store.tags().set(peer(1), "t", 1, Some(HOUR)).unwrap();
        gossip(&store, peer(1), &ports([1]));
        store.addresses().remove(peer(1), ports([1]));
        for hours in [1, 7, 15] {
            clock.advance(hours * HOUR);
            if collected {
                assert_eq!(store.len(), 1);
            }
            assert!(store.contains(&peer(1)), "collected: {collected}");
        }
        clock.advance(HOUR);
        assert!(!store.contains(&peer(1)), "collected: {collected}");
    }
}

/// What had been dropped days ago, and could come back since, was taken for dropped once more by the next list.
#[test]
fn what_was_dropped_for_long_enough_is_not_dropped_again_by_a_list_without_it() {
    let (store, clock) = clocked();
    identify(&store, peer(1), &ports([1, 2]));
    identify(&store, peer(1), &ports([1]));
    clock.advance(8 * HOUR - SECOND);
    assert_eq!(did(gossip(&store, peer(1), &ports([2]))), (false, 1));
    clock.advance(SECOND);
    identify(&store, peer(1), &ports([1]));
    assert_eq!(did(gossip(&store, peer(1), &ports([2]))), (true, 0));
}

/// An address that others had told too, but too long ago, was told to be gone when identify withdrew it, and again when it
/// was collected.
#[test]
fn an_address_that_is_too_old_without_the_word_that_is_withdrawn_goes_with_it() {
    let (store, clock) = clocked();
    let mut learned = store.learned(Source::Identify);
    gossip(&store, peer(1), &ports([1]));
    learned.add(peer(1), &ports([1]));
    store.metadata().set(peer(1), "note", "x").unwrap();
    clock.advance(9 * HOUR);
    let mut events = store.subscribe();
    assert_eq!(did(learned.withdraw(peer(1), None)), (true, 0));
    store.len();
    let gone = Told::Addresses(peer(1), vec![], Cause::Expired);
    assert_eq!(heard(&mut events), [gone]);
}

/// The same name, twice in one list, was one too many.
#[test]
fn a_name_that_is_told_twice_in_one_list_counts_once() {
    let store = store_with(|config| config.with_max_hearsay_names(1));
    let name: Multiaddr = "/dns4/a.example.org/tcp/1".parse().unwrap();
    let told = [name.clone(), with_id(name.clone(), peer(1)), name];
    assert_eq!(did(gossip(&store, peer(1), &told)), (true, 0));
}

/// That something of a peer expired was taken for a word of it.
#[test]
fn a_peer_is_not_seen_when_an_address_of_it_expires() {
    let (store, clock) = clocked();
    identify(&store, peer(1), &ports([1]));
    gossip(&store, peer(1), &ports([2]));
    clock.advance(9 * HOUR);
    assert_eq!(store.len(), 1);
    let peer = store.get(&peer(1)).unwrap();
    assert_eq!(peer.last_seen, clock.started());
    assert_eq!(peer.addresses.len(), 1);
}

/// Peers often come from the very address at which they can be dialled. When the connection that this node had dialled
/// ended, it was the other one that was taken for ended.
#[test]
fn of_two_connections_at_one_address_the_one_that_ends_is_over() {
    let store = store();
    let mut swarm = Swarm::of(&store);
    swarm.accepted(peer(1), at(1));
    swarm.proved(peer(1), at(1));
    store.addresses().remove(peer(1), ports([1]));
    store.addresses().add(peer(1), ports([1]));
    let info = info(&store, peer(1), &at(1));
    assert_eq!((info.standing, info.expires), (Standing::Hearsay, None));
}

/// A filter keeps addresses from being learnt. It also kept a known one from being held by the connection that came from
/// it.
#[test]
fn a_known_address_is_held_by_a_connection_from_it_though_a_filter_would_not_admit_it() {
    let (store, clock) =
        clocked_with(|config| config.with_address_filter(|_: &PeerId, _: &Multiaddr| false));
    let mut swarm = Swarm::of(&store);
    store.addresses().add(peer(1), ports([1]));
    swarm.accepted(peer(1), at(1));
    clock.advance(DAY);
    assert_eq!(store.addresses().get(&peer(1)), Some(ports([1])));
}

/// The end of a connection that came in renewed its address in memory alone: on disk it was as old as the connection.
#[test]
fn what_was_held_until_now_is_known_after_a_restart() {
    for closed_first in [false, true] {
        let clock = ManualClock::default();
        let config = Config::default().with_clock(clock.clone());
        let datastore = MemoryDatastore::default();
        let open = || {
            let store = PeerStore::open(peer(LOCAL), datastore.clone(), config.clone());
            block_on(store).unwrap()
        };
        let store = open();
        let mut swarm = Swarm::of(&store);
        identify(&store, peer(1), &ports([1]));
        swarm.accepted(peer(1), at(1));
        block_on(store.flush()).unwrap();
        clock.advance(10 * DAY);
        if closed_first {
            swarm.closed(peer(1));
        }
        block_on(store.shutdown()).unwrap();
        drop((swarm, store));
        let store = open();
        assert_eq!(store.addresses().get(&peer(1)), Some(ports([1])));
    }
}

/// A peer that had expired, and that nobody had collected, was still known to what changes only what is known.
#[test]
fn a_peer_that_has_expired_is_not_known_to_a_change_of_what_is_known() {
    let (store, clock) = clocked();
    for n in 1..=8 {
        gossip(&store, peer(n), &ports([1]));
    }
    clock.advance(8 * HOUR);
    for n in 1..=8 {
        let unpinned = store.addresses().unpin(peer(n), [Multiaddr::empty()]);
        assert_eq!(did(unpinned), (false, 0));
    }
    assert_eq!(store.refusals().total(), 0);
}

/// Failures can make an address expire at once, by a time that has passed. An address that was dropped, and was free to
/// come back since, then kept the peer for another day.
#[test]
fn a_peer_goes_with_its_last_address_when_what_was_dropped_is_free_again() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    identify(&store, peer(1), &ports([1, 2]));
    identify(&store, peer(1), &ports([1]));
    clock.advance(20 * HOUR);
    assert!(store.contains(&peer(1)));
    swarm.dial_failed(peer(1), ports([1]));
    assert!(!store.contains(&peer(1)));
}
