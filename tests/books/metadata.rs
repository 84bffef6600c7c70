//! The metadata book.

use std::collections::BTreeMap;

use libp2p_peerstore::{AGENT_VERSION, PROTOCOL_VERSION, Refused, Source};

use crate::support::*;

#[test]
fn set_tells_whether_the_value_is_different_from_before() {
    let store = store();
    let book = store.metadata();
    assert_eq!(book.set(peer(1), "place", "Lisbon"), Ok(true));
    assert_eq!(book.set(peer(1), "place", "Lisbon"), Ok(false));
    assert_eq!(book.set(peer(1), "place", b"Porto"), Ok(true));
    let value = book.get_value(&peer(1), "place");
    assert_eq!(value.as_deref(), Some(&b"Porto"[..]));
}

#[test]
fn a_value_may_be_empty_and_any_bytes() {
    let store = store();
    let book = store.metadata();
    let bytes: Vec<u8> = (0..=255).collect();
    assert_eq!(book.set(peer(1), "none", []), Ok(true));
    assert_eq!(book.set(peer(1), "all", &bytes), Ok(true));
    assert_eq!(book.get_value(&peer(1), "none"), Some(vec![]));
    assert_eq!(book.get_value(&peer(1), "all"), Some(bytes));
}

#[test]
fn a_key_may_hold_any_character() {
    let store = store();
    let book = store.metadata();
    let keys = ["a/b", "/", "a", "a/", "//", " ", "\0", "ключ", "🗝", ".."];
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(book.set(peer(1), key, [n as u8]), Ok(true));
    }
    let expected: BTreeMap<String, Vec<u8>> = keys
        .iter()
        .enumerate()
        .map(|(n, key)| ((*key).to_owned(), vec![n as u8]))
        .collect();
    assert_eq!(book.get(&peer(1)), Some(expected));
    assert!(book.delete_value(&peer(1), "a/b"));
    assert_eq!(book.get_value(&peer(1), "a"), Some(vec![2]));
    assert_eq!(book.get(&peer(1)).unwrap().len(), keys.len() - 1);
}

#[test]
fn a_key_has_at_least_one_character() {
    let store = store();
    let refused = store.metadata().set(peer(1), "", "x");
    assert_eq!(refused, Err(Refused::EmptyMetadataKey));
    assert!(!store.contains(&peer(1)));
    assert_eq!(store.refusals().get(Refused::EmptyMetadataKey), 1);
}

#[test]
fn reads_of_what_is_not_there() {
    let store = store();
    let book = store.metadata();
    assert_eq!(book.get(&peer(1)), None);
    assert_eq!(book.get_value(&peer(1), "a"), None);
    store.protocols().add(peer(1), ["/x"]);
    assert_eq!(book.get(&peer(1)), Some(BTreeMap::new()));
    assert_eq!(book.get_value(&peer(1), "a"), None);
}

#[test]
fn delete_value_tells_whether_there_was_one_and_leaves_the_peer_known() {
    let store = store();
    let book = store.metadata();
    assert!(!book.delete_value(&peer(1), "foo"));
    assert!(!store.contains(&peer(1)));
    book.set(peer(1), "foo", "1").unwrap();
    book.set(peer(1), "foobar", "2").unwrap();
    assert!(!book.delete_value(&peer(1), "fo"));
    assert!(book.delete_value(&peer(1), "foo"));
    assert!(!book.delete_value(&peer(1), "foo"));
    assert_eq!(book.get_value(&peer(1), "foobar"), Some(b"2".to_vec()));
    assert!(book.delete_value(&peer(1), "foobar"));
    assert_eq!(book.get(&peer(1)), Some(BTreeMap::new()));
    assert!(store.contains(&peer(1)));
}

#[test]
fn delete_takes_every_value_of_this_peer_only() {
    let store = store();
    let book = store.metadata();
    assert!(!book.delete(&peer(1)));
    for n in [1, 2] {
        book.set(peer(n), "a", "1").unwrap();
        book.set(peer(n), "b", "2").unwrap();
    }
    store.addresses().add(peer(2), ports([1]));
    assert!(book.delete(&peer(1)));
    assert!(!book.delete(&peer(1)));
    assert!(!store.contains(&peer(1)));
    assert_eq!(book.get(&peer(2)).unwrap().len(), 2);
    assert!(book.delete(&peer(2)));
    assert_eq!(book.get(&peer(2)), Some(BTreeMap::new()));
    assert_eq!(store.addresses().get(&peer(2)), Some(ports([1])));
}

#[test]
fn the_versions_that_identify_tells_are_metadata() {
    let store = store();
    let mut learned = store.learned(Source::Identify);
    assert_eq!(
        did(learned.metadata(peer(1), AGENT_VERSION, b"go/1")),
        (true, 0)
    );
    assert_eq!(
        did(learned.metadata(peer(1), PROTOCOL_VERSION, b"x")),
        (true, 0)
    );
    assert_eq!(
        did(learned.metadata(peer(1), PROTOCOL_VERSION, b"x")),
        (false, 0)
    );
    assert_eq!(did(learned.metadata(peer(1), "", b"x")), (false, 1));
    let peer = store.get(&peer(1)).unwrap();
    assert_eq!(peer.agent_version().as_deref(), Some("go/1"));
    assert_eq!(peer.metadata["ProtocolVersion"], b"x");
    assert_eq!(peer.metadata["AgentVersion"], b"go/1");
}
