//! Protocols and metadata of one peer.

use libp2p_peerstore::{
    DEFAULT_MAX_METADATA_PER_PEER, DEFAULT_MAX_PROTOCOLS_PER_PEER, Refused, Source,
};
use libp2p_swarm::StreamProtocol;

use crate::support::*;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("/{n:05}")).collect()
}

#[test]
fn protocols_are_added_up_to_the_limit() {
    let store = store_with(|config| config.with_max_protocols_per_peer(size(3)));
    let book = store.protocols();
    assert_eq!(did(book.add(peer(1), ["/a", "/b"])), (true, 0));
    assert_eq!(did(book.add(peer(1), ["/c"])), (true, 0));
    assert_eq!(did(book.add(peer(1), ["/d"])), (false, 1));
    // A known one is no further one.
    assert_eq!(did(book.add(peer(1), ["/d", "/a", "/e"])), (false, 2));
    assert_eq!(spoken(&store, peer(1)).unwrap(), ["/a", "/b", "/c"]);
    assert_eq!(store.refusals().get(Refused::TooManyProtocols), 3);
    assert_eq!(store.refusals().total(), 3);
    book.remove(peer(1), ["/a"]);
    assert_eq!(did(book.add(peer(1), ["/d", "/e"])), (true, 1));
    assert_eq!(spoken(&store, peer(1)).unwrap(), ["/b", "/c", "/d"]);
}

#[test]
fn of_a_list_that_is_too_long_the_same_protocols_are_kept_in_whatever_order() {
    let store = store_with(|config| config.with_max_protocols_per_peer(size(2)));
    let book = store.protocols();
    assert_eq!(did(book.set(peer(1), ["/b", "/a"])), (true, 0));
    assert_eq!(did(book.set(peer(1), ["/c", "/b", "/a", "/d"])), (false, 2));
    let mut events = store.subscribe();
    let told = ["/d", "/a", "/c", "/b"].map(StreamProtocol::new);
    let mut learned = store.learned(Source::Identify);
    assert_eq!(did(learned.protocols(peer(1), &told)), (false, 2));
    assert_eq!(spoken(&store, peer(1)).unwrap(), ["/b", "/a"]);
    assert_eq!(heard(&mut events), []);
    assert_eq!(store.refusals().get(Refused::TooManyProtocols), 4);
}

#[test]
fn a_protocol_name_may_be_as_long_as_the_limit_and_no_longer() {
    let store = store_with(|config| config.with_max_protocol_len(size(5)));
    let book = store.protocols();
    assert_eq!(
        did(book.add(peer(1), ["/1234", "/12345", "/é34"])),
        (true, 1)
    );
    // Bytes count, not characters.
    assert_eq!(did(book.add(peer(1), ["/é345"])), (false, 1));
    let told = ["/12345", "/x"].map(StreamProtocol::new);
    let mut learned = store.learned(Source::Identify);
    assert_eq!(did(learned.protocols(peer(1), &told)), (true, 1));
    assert_eq!(spoken(&store, peer(1)).unwrap(), ["/x"]);
    assert_eq!(store.refusals().get(Refused::ProtocolTooLong), 3);
    assert_eq!(store.refusals().total(), 3);
}

#[test]
fn ten_thousand_protocols_at_once_fill_the_book_and_no_more() {
    let limit = DEFAULT_MAX_PROTOCOLS_PER_PEER.get();
    let (many, over) = (names(10_000), 10_000 - limit);
    let told: Vec<_> = many
        .iter()
        .map(|name| StreamProtocol::try_from_owned(name.clone()).unwrap())
        .collect();
    let store = store();
    let book = store.protocols();
    assert_eq!(did(book.add(peer(1), &many)), (true, over));
    assert_eq!(did(book.set(peer(2), &many)), (true, over));
    let mut learned = store.learned(Source::Identify);
    assert_eq!(did(learned.protocols(peer(3), &told)), (true, over));
    for n in 1..=3 {
        assert_eq!(spoken(&store, peer(n)).unwrap(), many[..limit], "{n}");
    }
    assert_eq!(
        store.refusals().get(Refused::TooManyProtocols),
        3 * over as u64
    );
    // Told again they change nothing.
    assert_eq!(did(book.add(peer(1), &many)), (false, over));
    assert_eq!(did(book.set(peer(2), &many)), (false, over));
    assert_eq!(did(learned.protocols(peer(3), &told)), (false, over));
}

#[test]
fn metadata_is_set_up_to_the_limit_and_can_be_changed_there() {
    let store = store_with(|config| config.with_max_metadata_per_peer(size(2)));
    let book = store.metadata();
    assert_eq!(book.set(peer(1), "a", "1"), Ok(true));
    assert_eq!(book.set(peer(1), "b", "1"), Ok(true));
    assert_eq!(book.set(peer(1), "c", "1"), Err(Refused::TooManyMetadata));
    assert_eq!(book.set(peer(1), "b", "2"), Ok(true));
    assert_eq!(book.set(peer(1), "b", "2"), Ok(false));
    let mut learned = store.learned(Source::Identify);
    assert_eq!(did(learned.metadata(peer(1), "d", b"1")), (false, 1));
    assert_eq!(book.get(&peer(1)).unwrap().len(), 2);
    assert_eq!(store.refusals().get(Refused::TooManyMetadata), 2);
    // Another peer has its own room, and a deleted value makes some.
    assert_eq!(book.set(peer(2), "c", "1"), Ok(true));
    assert!(book.delete_value(&peer(1), "a"));
    assert_eq!(book.set(peer(1), "c", "1"), Ok(true));
}

#[test]
fn a_metadata_key_may_be_as_long_as_the_limit_and_no_longer() {
    let store = store_with(|config| config.with_max_metadata_key_len(size(4)));
    let book = store.metadata();
    assert_eq!(book.set(peer(1), "1234", ""), Ok(true));
    assert_eq!(book.set(peer(1), "éé", ""), Ok(true));
    for too_long in ["12345", "éé5"] {
        assert_eq!(
            book.set(peer(1), too_long, ""),
            Err(Refused::MetadataKeyTooLong)
        );
    }
    assert_eq!(book.get(&peer(1)).unwrap().len(), 2);
    assert_eq!(store.refusals().get(Refused::MetadataKeyTooLong), 2);
}

#[test]
fn a_metadata_value_may_be_as_long_as_the_limit_and_no_longer() {
    let store = store_with(|config| config.with_max_metadata_value_len(size(4)));
    let book = store.metadata();
    assert_eq!(book.set(peer(1), "a", "1234"), Ok(true));
    let too_long = Err(Refused::MetadataValueTooLong);
    assert_eq!(book.set(peer(1), "a", "12345"), too_long);
    assert_eq!(book.set(peer(2), "a", "12345"), too_long);
    assert_eq!(book.set(peer(2), "a", vec![0; 5_000_000]), too_long);
    assert_eq!(book.get_value(&peer(1), "a"), Some(b"1234".to_vec()));
    assert!(!store.contains(&peer(2)));
    assert_eq!(store.refusals().get(Refused::MetadataValueTooLong), 3);
}

#[test]
fn ten_thousand_metadata_keys_fill_the_book_and_no_more() {
    let limit = DEFAULT_MAX_METADATA_PER_PEER.get();
    let store = store();
    let set = names(10_000)
        .iter()
        .filter(|name| store.metadata().set(peer(1), name, "x") == Ok(true))
        .count();
    assert_eq!(set, limit);
    assert_eq!(store.metadata().get(&peer(1)).unwrap().len(), limit);
    let refused = store.refusals().get(Refused::TooManyMetadata);
    assert_eq!(refused, 10_000 - limit as u64);
}
