//! The protocol book.

use libp2p_peerstore::{Refused, Source};
use libp2p_swarm::StreamProtocol;

use crate::support::*;

/// What a known peer speaks.
fn of(store: &libp2p_peerstore::PeerStore, n: u8) -> Vec<String> {
    spoken(store, peer(n)).unwrap()
}

#[test]
fn set_replaces_the_protocols() {
    let store = store();
    let book = store.protocols();
    assert_eq!(did(book.set(peer(1), ["/a", "/b"])), (true, 0));
    assert_eq!(of(&store, 1), ["/a", "/b"]);
    assert_eq!(did(book.set(peer(1), ["/c", "/b"])), (true, 0));
    assert_eq!(of(&store, 1), ["/c", "/b"]);
}

#[test]
fn set_of_an_equal_set_does_nothing_and_keeps_the_order() {
    let store = store();
    let book = store.protocols();
    book.set(peer(1), ["/b", "/a"]);
    assert_eq!(did(book.set(peer(1), ["/a", "/b"])), (false, 0));
    assert_eq!(did(book.set(peer(1), ["/a", "/b", "/a"])), (false, 0));
    assert_eq!(of(&store, 1), ["/b", "/a"]);
}

#[test]
fn an_empty_set_clears_a_known_peer_and_makes_nobody_known() {
    let store = store();
    let book = store.protocols();
    book.set(peer(1), ["/a"]);
    assert_eq!(did(book.set(peer(1), Vec::<String>::new())), (true, 0));
    assert_eq!(of(&store, 1), [""; 0]);
    assert!(store.contains(&peer(1)));
    assert_eq!(did(book.set(peer(1), [""; 0])), (false, 0));
    assert_eq!(did(book.set(peer(2), [""; 0])), (false, 0));
    assert_eq!(book.get(&peer(2)), None);
}

#[test]
fn a_set_of_which_nothing_is_a_protocol_name_is_ignored() {
    let store = store();
    let book = store.protocols();
    book.set(peer(1), ["/a"]);
    assert_eq!(did(book.set(peer(1), ["no slash", ""])), (false, 2));
    assert_eq!(of(&store, 1), ["/a"]);
    assert_eq!(store.refusals().get(Refused::InvalidProtocol), 2);
}

#[test]
fn of_a_list_with_a_bad_name_the_good_ones_are_stored() {
    let store = store();
    let book = store.protocols();
    assert_eq!(did(book.add(peer(1), ["/a", "b", "/c"])), (true, 1));
    assert_eq!(of(&store, 1), ["/a", "/c"]);
    assert_eq!(did(book.set(peer(1), ["/d", "e"])), (true, 1));
    assert_eq!(of(&store, 1), ["/d"]);
}

#[test]
fn add_is_a_union() {
    let store = store();
    let book = store.protocols();
    assert_eq!(did(book.add(peer(1), ["/a"])), (true, 0));
    assert_eq!(did(book.add(peer(1), ["/b", "/a", "/b"])), (true, 0));
    assert_eq!(of(&store, 1), ["/a", "/b"]);
    assert_eq!(did(book.add(peer(1), ["/b"])), (false, 0));
    assert_eq!(did(book.add(peer(1), [""; 0])), (false, 0));
    assert_eq!(did(book.add(peer(2), [""; 0])), (false, 0));
    assert!(!store.contains(&peer(2)));
}

#[test]
fn remove_takes_some_away_and_leaves_the_peer_known() {
    let store = store();
    let book = store.protocols();
    book.add(peer(1), ["/a", "/b"]);
    assert_eq!(did(book.remove(peer(1), ["/x"])), (false, 0));
    assert_eq!(did(book.remove(peer(1), ["/a", "/x"])), (true, 0));
    assert_eq!(of(&store, 1), ["/b"]);
    assert_eq!(did(book.remove(peer(1), ["/b"])), (true, 0));
    assert_eq!(of(&store, 1), [""; 0]);
    assert!(store.contains(&peer(1)));
    assert_eq!(did(book.remove(peer(2), ["/a"])), (false, 0));
    assert!(!store.contains(&peer(2)));
}

#[test]
fn names_may_be_strings_or_stream_protocols() {
    let store = store();
    let book = store.protocols();
    book.add(peer(1), [StreamProtocol::new("/a")]);
    book.add(peer(1), vec![String::from("/b")]);
    let all = [StreamProtocol::new("/a"), StreamProtocol::new("/b")];
    assert_eq!(book.get(&peer(1)).unwrap(), all);
    assert_eq!(book.supports(&peer(1), &all), all);
}

#[test]
fn supports_keeps_the_callers_order() {
    let store = store();
    let book = store.protocols();
    book.add(peer(1), ["/b", "/a", "/c"]);
    let asked = ["/q", "/a", "/w", "/c", "/b"];
    let found = book.supports(&peer(1), asked);
    assert_eq!(
        found,
        ["/a", "/c", "/b"].map(|name| StreamProtocol::try_from_owned(name.to_owned()).unwrap())
    );
    assert_eq!(
        book.first_supported(&peer(1), asked),
        Some(StreamProtocol::new("/a"))
    );
}

#[test]
fn nothing_is_supported_by_who_speaks_nothing_of_it_or_is_unknown() {
    let store = store();
    let book = store.protocols();
    book.add(peer(1), ["/a"]);
    assert!(book.supports(&peer(1), ["/b", "a", ""]).is_empty());
    assert!(book.supports(&peer(1), [""; 0]).is_empty());
    assert_eq!(book.first_supported(&peer(1), ["/b"]), None);
    assert!(book.supports(&peer(2), ["/a"]).is_empty());
    assert_eq!(book.first_supported(&peer(2), ["/a"]), None);
    assert!(!store.contains(&peer(2)));
}

#[test]
fn an_unknown_peer_reads_as_none_and_a_known_one_without_protocols_as_an_empty_list() {
    let store = store();
    assert_eq!(store.protocols().get(&peer(1)), None);
    store.addresses().add(peer(1), ports([1]));
    assert_eq!(store.protocols().get(&peer(1)), Some(vec![]));
}

#[test]
fn delete_tells_whether_there_were_protocols() {
    let store = store();
    let book = store.protocols();
    assert!(!book.delete(&peer(1)));
    book.add(peer(1), ["/a"]);
    book.add(peer(2), ["/a"]);
    assert!(book.delete(&peer(1)));
    assert!(!store.contains(&peer(1)));
    assert_eq!(of(&store, 2), ["/a"]);
    // The peer stays when another book knows it.
    store.addresses().add(peer(2), ports([1]));
    assert!(book.delete(&peer(2)));
    assert!(!book.delete(&peer(2)));
    assert_eq!(of(&store, 2), [""; 0]);
    assert_eq!(store.addresses().get(&peer(2)), Some(ports([1])));
}

#[test]
fn what_a_peer_tells_replaces_its_protocols() {
    let store = store();
    store.protocols().add(peer(1), ["/a", "/b"]);
    let mut learned = store.learned(Source::Identify);
    let told = [StreamProtocol::new("/c"), StreamProtocol::new("/b")];
    assert_eq!(did(learned.protocols(peer(1), &told)), (true, 0));
    assert_eq!(of(&store, 1), ["/c", "/b"]);
    let turned = [StreamProtocol::new("/b"), StreamProtocol::new("/c")];
    assert_eq!(did(learned.protocols(peer(1), &turned)), (false, 0));
    assert_eq!(did(learned.protocols(peer(1), &[])), (true, 0));
    assert_eq!(of(&store, 1), [""; 0]);
}

#[test]
fn the_iterator_and_the_names_of_a_caller_may_use_the_store() {
    finishes(|| {
        let store = store();
        let book = store.protocols();
        let names = ["/a", "/b"].into_iter().inspect(|name| {
            book.add(peer(2), [name]);
        });
        book.add(peer(1), names);
        let asked = ["/a", "/b"].into_iter().inspect(|name| {
            book.remove(peer(2), [name]);
        });
        assert_eq!(book.supports(&peer(1), asked).len(), 2);
        assert_eq!(of(&store, 1), ["/a", "/b"]);
        assert_eq!(of(&store, 2), [""; 0]);
    });
}
