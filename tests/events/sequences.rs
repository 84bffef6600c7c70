//! Which events a change makes, in which order, and which changes make none.

use std::time::Duration;

use libp2p_core::Multiaddr;
use libp2p_peerstore::{Cause, Event, PeerStore, Source, Subscription};
use libp2p_swarm::StreamProtocol;

use crate::support::*;

fn added(n: u8) -> Told {
    Told::Added(peer(n))
}

fn addresses(n: u8, told: impl IntoIterator<Item = u16>, cause: Cause) -> Told {
    Told::Addresses(peer(n), ports(told), cause)
}

fn protocols<const N: usize>(n: u8, told: [&str; N], cause: Cause) -> Told {
    Told::Protocols(peer(n), told.map(str::to_owned).to_vec(), cause)
}

fn metadata(n: u8, key: &str) -> Told {
    Told::Metadata(peer(n), key.to_owned())
}

fn removed(n: u8, cause: Cause) -> Told {
    Told::Removed(peer(n), cause)
}

/// A store and a reader of all its events.
fn read() -> (PeerStore, Subscription) {
    let store = store();
    let events = store.subscribe();
    (store, events)
}

#[test]
fn a_new_peer_is_told_before_what_is_known_of_it() {
    let (store, mut events) = read();
    let rsa = rsa_key().to_peer_id();
    store.addresses().add(peer(1), ports([1]));
    store.protocols().set(peer(2), ["/x"]);
    store.keys().set(rsa, rsa_key()).unwrap();
    store.metadata().set(peer(4), "a", "b").unwrap();
    assert_eq!(
        heard(&mut events),
        [
            added(1),
            addresses(1, [1], Cause::User),
            added(2),
            protocols(2, ["/x"], Cause::User),
            Told::Added(rsa),
            Told::Key(rsa, true),
            added(4),
            metadata(4, "a"),
        ]
    );
    // It is told once.
    store.protocols().add(peer(1), ["/y"]);
    assert_eq!(heard(&mut events), [protocols(1, ["/y"], Cause::User)]);
}

#[test]
fn an_event_names_what_caused_the_change() {
    let (store, mut events) = read();
    let mut swarm = Swarm::of(&store);
    let name = StreamProtocol::new("/x");

    swarm.accepted(peer(1), at(1));
    assert_eq!(
        heard(&mut events),
        [added(1), addresses(1, [1], Cause::Inbound)]
    );
    swarm.found(peer(1), &at(2));
    assert_eq!(heard(&mut events), [addresses(1, [2, 1], Cause::Discovery)]);
    swarm.dialled(peer(1), at(3));
    assert_eq!(heard(&mut events), [addresses(1, [3, 2, 1], Cause::Dial)]);
    for source in [Source::Kademlia, Source::Rendezvous, Source::Mdns] {
        let mut learned = store.learned(source);
        learned.add(peer(2), &ports([1]));
        learned.withdraw(peer(2), None);
        assert_eq!(
            heard(&mut events),
            [
                added(2),
                addresses(2, [1], Cause::Discovery),
                addresses(2, [], Cause::Expired),
                removed(2, Cause::Expired),
            ]
        );
    }
    identify(&store, peer(1), &ports([4]));
    let mut learned = store.learned(Source::Identify);
    learned.protocols(peer(1), std::slice::from_ref(&name));
    learned.metadata(peer(1), "AgentVersion", b"x");
    learned.public_key(rsa_key().to_peer_id(), &rsa_key());
    assert_eq!(
        heard(&mut events),
        [
            addresses(1, [4], Cause::Identify),
            protocols(1, ["/x"], Cause::Identify),
            metadata(1, "AgentVersion"),
            Told::Added(rsa_key().to_peer_id()),
            Told::Key(rsa_key().to_peer_id(), true),
        ]
    );
    store.addresses().pin(peer(1), ports([5]));
    assert_eq!(heard(&mut events), [addresses(1, [4, 5], Cause::User)]);
}

#[test]
fn a_change_is_told_once_with_the_whole_new_set_best_first() {
    let (store, mut events) = read();
    store.addresses().set(peer(1), ports([1, 2, 3]));
    heard(&mut events);
    store.addresses().set(peer(1), ports([4, 3]));
    assert_eq!(heard(&mut events), [addresses(1, [3, 4], Cause::User)]);
    Swarm::of(&store).proved(peer(1), at(5));
    assert_eq!(heard(&mut events), [addresses(1, [5, 3, 4], Cause::Dial)]);
    store.addresses().remove(peer(1), ports([3, 4, 5]));
    assert_eq!(heard(&mut events), [addresses(1, [], Cause::User)]);
    store.protocols().set(peer(1), ["/a", "/b"]);
    store.protocols().add(peer(1), ["/c", "/d"]);
    store.protocols().remove(peer(1), ["/a", "/c"]);
    store.protocols().set(peer(1), [""; 0]);
    assert_eq!(
        heard(&mut events),
        [
            protocols(1, ["/a", "/b"], Cause::User),
            protocols(1, ["/a", "/b", "/c", "/d"], Cause::User),
            protocols(1, ["/b", "/d"], Cause::User),
            protocols(1, [], Cause::User),
        ]
    );
}

#[test]
fn what_changes_nothing_is_no_event() {
    let (store, mut events) = read();
    let mut swarm = Swarm::of(&store);
    let rsa = rsa_key().to_peer_id();
    identify(&store, peer(1), &ports([1, 2]));
    store.protocols().set(peer(1), ["/a", "/b"]);
    store.metadata().set(peer(1), "a", "b").unwrap();
    store.keys().set(rsa, rsa_key()).unwrap();
    swarm.dialled(peer(1), at(1));
    assert_eq!(heard(&mut events).len(), 6);

    // The same, in another order or form, or by another mouth.
    store.addresses().set(peer(1), ports([2, 1]));
    store.addresses().set(peer(1), ports([1, 2, 1]));
    store.addresses().add(peer(1), [with_id(at(2), peer(1))]);
    identify(&store, peer(1), &ports([2, 1]));
    gossip(&store, peer(1), &ports([1]));
    store
        .learned(Source::Identify)
        .certify(peer(1), &ports([1]));
    store.protocols().set(peer(1), ["/b", "/a"]);
    store.protocols().add(peer(1), ["/b"]);
    store.metadata().set(peer(1), "a", "b").unwrap();
    store.keys().set(rsa, rsa_key()).unwrap();
    store.keys().set(peer(1), key(1)).unwrap();
    // Nothing, of nobody, or not fit.
    store.addresses().set(peer(1), []);
    store.addresses().add(peer(2), []);
    store
        .addresses()
        .set(peer(1), [with_id(at(1), peer(2)), Multiaddr::empty()]);
    store.addresses().remove(peer(1), ports([9]));
    store.addresses().remove(peer(2), ports([1]));
    store.addresses().unpin(peer(1), ports([1]));
    store.protocols().set(peer(2), [""; 0]);
    store.protocols().add(peer(1), ["no slash"]);
    store.protocols().remove(peer(1), ["/c"]);
    store.metadata().delete_value(&peer(1), "b");
    store.metadata().set(peer(1), "", "b").unwrap_err();
    store.keys().set(peer(1), key(2)).unwrap_err();
    store.keys().delete(&peer(1));
    store.delete(&peer(2));
    store.learned(Source::Mdns).withdraw(peer(1), None);
    // Connections, failures, further proof, and a pin.
    swarm.dialled(peer(1), at(1));
    swarm.dial_failed(peer(1), ports([2]));
    swarm.accepted(peer(1), at(50001));
    swarm.closed(peer(1));
    store.addresses().pin(peer(1), ports([1]));
    assert_eq!(heard(&mut events), []);
}

#[test]
fn metadata_events_name_the_key() {
    let (store, mut events) = read();
    let book = store.metadata();
    book.set(peer(1), "a/b", "1").unwrap();
    book.set(peer(1), "c", "1").unwrap();
    book.set(peer(1), "a/b", "2").unwrap();
    assert!(book.delete_value(&peer(1), "a/b"));
    assert_eq!(
        heard(&mut events),
        [
            added(1),
            metadata(1, "a/b"),
            metadata(1, "c"),
            metadata(1, "a/b"),
            metadata(1, "a/b"),
        ]
    );
    book.set(peer(1), "d", "1").unwrap();
    heard(&mut events);
    assert!(book.delete(&peer(1)));
    assert_eq!(
        heard(&mut events),
        [metadata(1, "c"), metadata(1, "d"), removed(1, Cause::User)]
    );
}

#[test]
fn a_key_that_is_deleted_is_told_as_no_longer_known() {
    let (store, mut events) = read();
    let rsa = rsa_key().to_peer_id();
    store.keys().set(rsa, rsa_key()).unwrap();
    store.addresses().add(rsa, ports([1]));
    heard(&mut events);
    assert!(store.keys().delete(&rsa));
    assert_eq!(heard(&mut events), [Told::Key(rsa, false)]);
}

#[test]
fn deleting_a_book_tells_an_empty_set_and_the_removal_when_nothing_is_left() {
    let (store, mut events) = read();
    store.addresses().add(peer(1), ports([1, 2]));
    store.protocols().add(peer(1), ["/x"]);
    heard(&mut events);
    store.addresses().delete(&peer(1));
    assert_eq!(heard(&mut events), [addresses(1, [], Cause::User)]);
    store.addresses().delete(&peer(1));
    assert_eq!(heard(&mut events), []);
    store.protocols().delete(&peer(1));
    assert_eq!(
        heard(&mut events),
        [protocols(1, [], Cause::User), removed(1, Cause::User)]
    );
}

#[test]
fn deleting_a_peer_is_told_by_the_books_that_held_something_and_then_as_its_removal() {
    let (store, mut events) = read();
    let rsa = rsa_key().to_peer_id();
    store.addresses().add(rsa, ports([1]));
    store.protocols().add(rsa, ["/x"]);
    store.keys().set(rsa, rsa_key()).unwrap();
    store.metadata().set(rsa, "a", "1").unwrap();
    store.metadata().set(rsa, "b", "1").unwrap();
    store.protocols().add(peer(2), ["/x"]);
    store.addresses().add(peer(3), ports([1]));
    store.addresses().remove(peer(3), ports([1]));
    heard(&mut events);

    assert!(store.delete(&rsa));
    assert_eq!(
        heard(&mut events),
        [
            Told::Addresses(rsa, vec![], Cause::User),
            Told::Protocols(rsa, vec![], Cause::User),
            Told::Key(rsa, false),
            Told::Metadata(rsa, "a".to_owned()),
            Told::Metadata(rsa, "b".to_owned()),
            Told::Removed(rsa, Cause::User),
        ]
    );
    assert!(store.delete_for(&peer(2), Duration::from_secs(60)));
    assert_eq!(
        heard(&mut events),
        [protocols(2, [], Cause::User), removed(2, Cause::User)]
    );
    // A peer of which nothing was left.
    assert!(store.delete(&peer(3)));
    assert_eq!(heard(&mut events), [removed(3, Cause::User)]);
    assert!(!store.delete(&rsa));
    gossip(&store, peer(2), &ports([1]));
    assert_eq!(heard(&mut events), []);
}

#[test]
fn a_peer_that_comes_back_is_added_again() {
    let (store, mut events) = read();
    store.addresses().add(peer(1), ports([1]));
    store.delete(&peer(1));
    heard(&mut events);
    gossip(&store, peer(1), &ports([1]));
    assert_eq!(
        heard(&mut events),
        [added(1), addresses(1, [1], Cause::Discovery)]
    );
}

#[test]
fn a_peer_that_makes_room_is_told_as_evicted() {
    let store = store_with(|config| config.with_max_peers(size(1)));
    let mut events = store.subscribe();
    gossip(&store, peer(1), &ports([1]));
    store.protocols().add(peer(1), ["/x"]);
    heard(&mut events);
    gossip(&store, peer(2), &ports([2]));
    // The removal stands for all that was known of the peer, and comes before its successor.
    assert_eq!(
        heard(&mut events),
        [
            removed(1, Cause::Evicted),
            added(2),
            addresses(2, [2], Cause::Discovery),
        ]
    );
    // A newcomer that is refused is no event.
    store.addresses().pin(peer(2), ports([2]));
    gossip(&store, peer(3), &ports([3]));
    assert_eq!(heard(&mut events), []);
}

#[test]
fn an_address_that_makes_room_is_missing_in_the_new_set() {
    let store = store_with(|config| config.with_max_addresses_per_peer(size(2)));
    let mut events = store.subscribe();
    gossip(&store, peer(1), &ports([1, 2]));
    heard(&mut events);
    Swarm::of(&store).dialled(peer(1), at(3));
    assert_eq!(heard(&mut events), [addresses(1, [3, 2], Cause::Dial)]);
}

#[test]
fn the_behaviour_yields_the_same_events() {
    let store = store();
    let mut swarm = Swarm::of(&store);
    let mut events = store.subscribe();
    swarm.dialled(peer(1), at(1));
    store.protocols().add(peer(1), ["/x"]);
    let expected = [
        added(1),
        addresses(1, [1], Cause::Dial),
        protocols(1, ["/x"], Cause::User),
    ];
    assert_eq!(swarm.yielded(), expected);
    assert_eq!(heard(&mut events), expected);
    assert_eq!(swarm.yielded(), []);
}

#[test]
fn the_behaviour_can_be_told_to_yield_no_events() {
    let store = store_with(|config| config.with_swarm_events(false));
    let mut swarm = Swarm::of(&store);
    let mut events = store.subscribe();
    swarm.dialled(peer(1), at(1));
    assert_eq!(swarm.yielded(), []);
    assert_eq!(heard(&mut events).len(), 2);
}

#[test]
fn an_event_knows_its_peer() {
    let (store, mut events) = read();
    let rsa = rsa_key().to_peer_id();
    store.addresses().add(rsa, ports([1]));
    store.protocols().add(rsa, ["/x"]);
    store.keys().set(rsa, rsa_key()).unwrap();
    store.metadata().set(rsa, "a", "b").unwrap();
    store.delete(&rsa);
    let all: Vec<Event> = std::iter::from_fn(|| events.try_next()).collect();
    assert_eq!(all.len(), 10);
    assert!(all.iter().all(|event| event.peer() == Some(rsa)));
    assert_eq!(Event::Lagged(1).peer(), None);
}
