//! Addresses of one peer: how many, how long, and which of them make room.

use std::time::Duration;

use libp2p_core::Multiaddr;
use libp2p_peerstore::{DEFAULT_MAX_ADDRESSES_PER_PEER, PeerStore, Refused, Source, Standing};

use crate::support::*;

fn limited(limit: usize) -> PeerStore {
    store_with(|config| config.with_max_addresses_per_peer(size(limit)))
}

fn known(store: &PeerStore) -> Vec<Multiaddr> {
    sorted(store.addresses().get(&peer(1)).unwrap_or_default())
}

#[test]
fn addresses_are_added_up_to_the_limit() {
    let store = limited(3);
    let book = store.addresses();
    assert_eq!(did(book.add(peer(1), ports([1, 2]))), (true, 0));
    assert_eq!(did(book.add(peer(1), ports([3]))), (true, 0));
    assert_eq!(did(book.add(peer(1), ports([4]))), (false, 1));
    assert_eq!(did(gossip(&store, peer(1), &ports([4, 1, 5]))), (false, 2));
    assert_eq!(known(&store), ports([1, 2, 3]));
    assert_eq!(store.refusals().get(Refused::TooManyAddresses), 3);
    assert_eq!(store.refusals().total(), 3);
    book.remove(peer(1), ports([1]));
    assert_eq!(did(book.add(peer(1), ports([4, 5]))), (true, 1));
    assert_eq!(known(&store), ports([2, 3, 4]));
}

#[test]
fn of_a_list_that_is_too_long_the_first_are_stored() {
    for n in 3..=5 {
        let store = limited(3);
        let over = usize::from(n) - 3;
        let book = store.addresses();
        assert_eq!(did(book.add(peer(1), ports(1..=n))), (true, over));
        assert_eq!(did(book.set(peer(2), ports(1..=n))), (true, over));
        assert_eq!(did(book.pin(peer(3), ports(1..=n))), (true, over));
        assert_eq!(did(identify(&store, peer(4), &ports(1..=n))), (true, over));
        assert_eq!(did(gossip(&store, peer(5), &ports(1..=n))), (true, over));
        for n in 1..=5 {
            assert_eq!(book.get(&peer(n)), Some(ports([1, 2, 3])));
        }
        let refused = store.refusals().get(Refused::TooManyAddresses);
        assert_eq!(refused, 5 * over as u64);
    }
}

#[test]
fn of_a_list_that_is_too_long_the_known_addresses_stay_in_whatever_order() {
    let store = limited(2);
    identify(&store, peer(1), &ports([1, 2, 3, 4]));
    let mut events = store.subscribe();
    assert_eq!(
        did(identify(&store, peer(1), &ports([4, 3, 2, 1]))),
        (false, 2)
    );
    assert_eq!(
        did(store.addresses().set(peer(1), ports([3, 4, 1, 2]))),
        (false, 2)
    );
    assert_eq!(known(&store), ports([1, 2]));
    assert_eq!(heard(&mut events), []);
    // One that is no longer told makes room for one that is.
    assert_eq!(did(identify(&store, peer(1), &ports([4, 3, 2]))), (true, 1));
    assert_eq!(known(&store), ports([2, 4]));
}

#[test]
fn ten_thousand_addresses_at_once_fill_the_book_and_no_more() {
    let limit = DEFAULT_MAX_ADDRESSES_PER_PEER.get();
    let (many, over) = (ports(1..=10_000), 10_000 - limit);
    let store = store();
    let book = store.addresses();
    assert_eq!(did(book.add(peer(1), many.clone())), (true, over));
    assert_eq!(did(book.set(peer(2), many.clone())), (true, over));
    assert_eq!(did(book.pin(peer(3), many.clone())), (true, over));
    assert_eq!(did(identify(&store, peer(4), &many)), (true, over));
    assert_eq!(did(gossip(&store, peer(5), &many)), (true, over));
    for n in 1..=5 {
        assert_eq!(book.get(&peer(n)).unwrap(), many[..limit], "{n}");
    }
    let refused = store.refusals().get(Refused::TooManyAddresses);
    assert_eq!(refused, 5 * over as u64);
    // Taking them away, known and unknown, is no error.
    assert_eq!(did(book.remove(peer(1), many)), (true, 0));
    assert_eq!(book.get(&peer(1)), Some(vec![]));
}

#[test]
fn an_address_may_be_as_long_as_the_limit_and_no_longer() {
    let named = |len: usize| -> Multiaddr {
        let address: Multiaddr = format!("/dns/{}", "a".repeat(len - 2)).parse().unwrap();
        assert_eq!(address.len(), len);
        address
    };
    let store = store_with(|config| config.with_max_address_len(size(20)));
    let book = store.addresses();
    assert_eq!(did(book.add(peer(1), [named(20), named(21)])), (true, 1));
    assert_eq!(did(book.set(peer(1), [named(21)])), (false, 1));
    assert_eq!(did(gossip(&store, peer(1), &[named(21)])), (false, 1));
    // The peer's own id at the end does not count, and does not hide what is too long either.
    let with_own_id = [with_id(named(20), peer(1)), with_id(named(21), peer(1))];
    assert_eq!(did(book.add(peer(2), [named(100)])), (false, 1));
    assert_eq!(did(book.add(peer(1), with_own_id)), (false, 1));
    assert_eq!(known(&store), [named(20)]);
    assert_eq!(store.refusals().get(Refused::AddressTooLong), 5);
    assert_eq!(store.refusals().total(), 5);
    assert!(!store.contains(&peer(2)));
}

#[test]
fn an_address_makes_room_for_one_of_higher_standing_only() {
    let store = limited(1);
    let mut swarm = Swarm::of(&store);
    let standing = || store.addresses().infos(&peer(1)).unwrap()[0].standing;
    let refused = || store.refusals().get(Refused::TooManyAddresses);

    swarm.accepted(peer(1), at(1));
    swarm.accepted(peer(1), at(11));
    assert_eq!((known(&store), standing()), (ports([1]), Standing::Inbound));
    assert_eq!(refused(), 1);

    gossip(&store, peer(1), &ports([2]));
    assert_eq!((known(&store), standing()), (ports([2]), Standing::Hearsay));
    gossip(&store, peer(1), &ports([12]));
    store.addresses().add(peer(1), ports([12]));
    assert_eq!((known(&store), refused()), (ports([2]), 3));

    store.learned(Source::Identify).add(peer(1), &ports([3]));
    assert_eq!(
        (known(&store), standing()),
        (ports([3]), Standing::SelfTold)
    );
    store.learned(Source::Identify).add(peer(1), &ports([13]));
    gossip(&store, peer(1), &ports([13]));
    assert_eq!((known(&store), refused()), (ports([3]), 5));

    swarm.dialled(peer(1), at(4));
    assert_eq!((known(&store), standing()), (ports([4]), Standing::Proven));
    swarm.dialled(peer(1), at(14));
    store.learned(Source::Identify).add(peer(1), &ports([14]));
    gossip(&store, peer(1), &ports([14]));
    assert_eq!((known(&store), refused()), (ports([4]), 8));

    // What a connection uses stays, whatever comes; once it ends, a pin is worth more.
    store.addresses().pin(peer(1), ports([5]));
    assert_eq!((known(&store), refused()), (ports([4]), 9));
    swarm.all_closed(peer(1));
    store.addresses().pin(peer(1), ports([5]));
    assert_eq!(known(&store), ports([5]));
    store.addresses().pin(peer(1), ports([15]));
    swarm.dialled(peer(1), at(15));
    store.learned(Source::Identify).add(peer(1), &ports([15]));
    identify(&store, peer(1), &ports([15]));
    store.addresses().set(peer(1), ports([15]));
    assert_eq!((known(&store), refused()), (ports([5]), 14));
}

#[test]
fn the_address_of_lowest_standing_makes_room() {
    let store = limited(4);
    let mut swarm = Swarm::of(&store);
    swarm.accepted(peer(1), at(1));
    gossip(&store, peer(1), &ports([2]));
    store.learned(Source::Identify).add(peer(1), &ports([3]));
    swarm.proved(peer(1), at(4));
    for (newcomer, left) in [(5, [2, 3, 4, 5]), (6, [3, 4, 5, 6]), (7, [4, 5, 6, 7])] {
        swarm.proved(peer(1), at(newcomer));
        assert_eq!(known(&store), ports(left));
    }
    // All are proven now, and pinned ones come: they displace neither each other nor what a connection uses.
    swarm.dialled(peer(1), at(4));
    store.addresses().pin(peer(1), ports([8, 9]));
    assert_eq!(known(&store).len(), 4);
    let pinned = ports([10, 11, 12]);
    let told = store.addresses().pin(peer(1), pinned);
    assert_eq!(did(told), (true, 2));
    assert_eq!(known(&store), sorted(ports([4, 8, 9, 10])));
    swarm.closed(peer(1));
    store.addresses().pin(peer(1), ports([11, 12]));
    assert_eq!(known(&store), sorted(ports([8, 9, 10, 11])));
}

#[test]
fn an_address_makes_room_for_its_equal_once_a_quarter_of_its_lifetime_is_over() {
    let second = Duration::from_secs(1);
    let (store, clock) = clocked_with(|config| {
        config
            .with_max_addresses_per_peer(size(2))
            .with_hearsay_lifetime(4 * 256 * second)
            .with_self_told_lifetime(4 * 512 * second)
    });
    // Times are in steps of 64 seconds, and the lifetimes here such that a quarter of them is some steps.
    gossip(&store, peer(1), &ports([1, 2]));
    clock.advance(256 * second);
    assert_eq!(did(gossip(&store, peer(1), &ports([3]))), (false, 1));
    clock.advance(second);
    // What is heard of again in the same breath stays, the other one goes.
    assert_eq!(did(gossip(&store, peer(1), &ports([3, 1]))), (true, 0));
    assert_eq!(known(&store), ports([1, 3]));
    assert_eq!(did(gossip(&store, peer(1), &ports([2]))), (false, 1));

    // Each standing has its own lifetime.
    let mut learned = store.learned(Source::Identify);
    learned.add(peer(2), &ports([1, 2]));
    // It was heard of in the step that began a second ago.
    clock.advance(511 * second);
    assert_eq!(did(learned.add(peer(2), &ports([3]))), (false, 1));
    clock.advance(second);
    assert_eq!(did(learned.add(peer(2), &ports([3]))), (true, 0));
}
