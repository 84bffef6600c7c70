//! What another version, or another program, wrote and this one does not understand.

use futures::executor::block_on;
use libp2p::PeerId;
use libp2p_peerstore::{Datastore, MemoryDatastore, PeerStore};

use crate::{
    support::{Hand, addr, addrs_key, metadata_key, protos_key},
    wire::{self, bytes_field, fixed64_field, js_address, varint, varint_field},
};

fn value(memory: &MemoryDatastore, key: &str) -> Vec<u8> {
    block_on(memory.get(key)).unwrap().unwrap()
}

/// Fields of every kind that a newer version may add.
fn newer_fields() -> Vec<u8> {
    let mut fields = varint_field(3, 300);
    fields.extend(bytes_field(118, b"a newer field"));
    fields.extend(fixed64_field(119, 7));
    fields.extend(varint_field(2_000_000, 1));
    // The same number twice, as a repeated field has it, and an empty one.
    fields.extend(bytes_field(118, b"once more"));
    fields.extend(bytes_field(120, b""));
    // A group, and a field of four bytes.
    let (begin, end) = (121 << 3 | 3, 121 << 3 | 4);
    fields.extend([varint(begin), varint_field(1, 1), varint(end)].concat());
    fields.extend([varint(122 << 3 | 5), vec![1, 2, 3, 4]].concat());
    fields
}

/// An address of a protocol that nobody has heard of, as js-libp2p would write it.
fn unreadable(number: u8) -> Vec<u8> {
    js_address(&[0xff, 0xff, 0x03, number], number.is_multiple_of(2))
}

#[test]
fn fields_that_are_not_known_are_written_back_byte_for_byte() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let peer = PeerId::random();
    let newer = newer_fields();

    let mut address = js_address(&addr(1).to_vec(), true);
    address.extend(&newer);
    let mut record = varint_field(1, 12);
    record.extend(bytes_field(2, b"envelope"));
    record.extend(&newer);
    let mut addresses = bytes_field(1, &address);
    addresses.extend(bytes_field(2, &record));
    addresses.extend(&newer);
    let mut protocols = bytes_field(1, b"/p");
    protocols.extend(&newer);
    block_on(memory.put(&addrs_key(&peer), addresses)).unwrap();
    block_on(memory.put(&protos_key(&peer), protocols)).unwrap();

    let check = |store: &PeerStore| {
        let peer = store.get(&peer).unwrap();
        assert_eq!(peer.signed_record.unwrap().seq, 12);
        assert!(
            peer.protocols
                .iter()
                .any(|protocol| protocol.as_ref() == "/p")
        );
        assert!(peer.addresses.iter().any(|info| info.is_certified()));
        let report = store.load_report();
        assert_eq!((report.peers, report.entries), (1, 2));
        assert_eq!(
            (report.foreign, report.undecodable, report.refused),
            (0, 0, 0)
        );
    };
    // Twice, so that what this version wrote is met as well.
    for round in 0..2 {
        let store = hand.open(memory.clone());
        check(&store);
        store.addresses().add(peer, [addr(2 + round)]);
        store.protocols().add(peer, [format!("/new/{round}")]);
        hand.shutdown(store);

        let addresses = value(&memory, &addrs_key(&peer));
        assert!(addresses.ends_with(&newer));
        let messages = wire::all(&addresses, 1);
        assert_eq!(messages.len(), 2 + usize::from(round));
        assert!(messages[0].bytes().ends_with(&newer));
        assert!(
            !messages[1]
                .bytes()
                .windows(newer.len())
                .any(|window| window == newer)
        );
        let record = wire::one(&addresses, 2).unwrap();
        assert!(record.bytes().ends_with(&newer));
        assert!(value(&memory, &protos_key(&peer)).ends_with(&newer));
        // Once, not once per round.
        let times = addresses.windows(newer.len()).filter(|w| *w == newer);
        assert_eq!(times.count(), 3);
    }
}

#[test]
fn addresses_that_do_not_parse_are_counted_and_written_back() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let peer = PeerId::random();
    let broken: Vec<u8> = js_address(&addr(1).to_vec(), true)[..5].to_vec();
    let mut stored = bytes_field(1, &unreadable(1));
    stored.extend(bytes_field(1, &js_address(&addr(1).to_vec(), false)));
    stored.extend(bytes_field(1, &unreadable(2)));
    stored.extend(bytes_field(17, &unreadable(3)));
    stored.extend(bytes_field(1, &broken));
    block_on(memory.put(&addrs_key(&peer), stored.clone())).unwrap();

    for round in 0..2 {
        let store = hand.open(memory.clone());
        let report = store.load_report();
        assert_eq!((report.peers, report.undecodable), (1, 0));
        assert_eq!(report.unreadable_addresses, 4);
        let known = store.addresses().get(&peer).unwrap();
        assert_eq!(known[0], addr(1));
        assert_eq!(known.len(), 1 + usize::from(round));
        store.addresses().add(peer, [addr(2 + round)]);
        hand.shutdown(store);
        let value = value(&memory, &addrs_key(&peer));
        let [old, newer] = [1, 17].map(|number| {
            let messages = wire::all(&value, number).into_iter();
            messages.map(|m| m.bytes().to_vec()).collect::<Vec<_>>()
        });
        for message in [unreadable(1), unreadable(2), broken.clone()] {
            assert_eq!(old.iter().filter(|other| **other == message).count(), 1);
        }
        assert_eq!(newer, [unreadable(3)]);
    }

    // The user's own word takes them away as well.
    let store = hand.open(memory.clone());
    assert!(store.addresses().delete(&peer));
    hand.shutdown(store);
    assert!(memory.is_empty());
}

#[test]
fn a_peer_of_which_nothing_is_understood_is_known_and_kept() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let (first, second) = (PeerId::random(), PeerId::random());
    let only_unreadable = bytes_field(1, &unreadable(1));
    let only_newer = varint_field(30, 1);
    block_on(memory.put(&addrs_key(&first), only_unreadable.clone())).unwrap();
    block_on(memory.put(&protos_key(&second), only_newer.clone())).unwrap();
    let store = hand.open(memory.clone());
    assert_eq!(
        (store.len(), store.load_report().unreadable_addresses),
        (2, 1)
    );
    for peer in [first, second] {
        assert!(store.get(&peer).unwrap().addresses.is_empty());
        store.metadata().set(peer, "note", "x").unwrap();
    }
    hand.flush(&store);
    // A book that did not change is not written at all.
    assert_eq!(value(&memory, &addrs_key(&first)), only_unreadable);
    assert_eq!(value(&memory, &protos_key(&second)), only_newer);
    assert!(store.delete(&first) && store.delete(&second));
    hand.flush(&store);
    assert!(memory.is_empty());
}

#[test]
fn what_another_book_does_leaves_unknown_fields_alone() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let peer = PeerId::random();
    let mut addresses = bytes_field(1, &js_address(&addr(1).to_vec(), false));
    addresses.extend(newer_fields());
    let mut protocols = bytes_field(1, b"/p");
    protocols.extend(newer_fields());
    block_on(memory.put(&addrs_key(&peer), addresses.clone())).unwrap();
    block_on(memory.put(&protos_key(&peer), protocols.clone())).unwrap();
    let store = hand.open(memory.clone());

    // To clear one book is to take away its unknown fields, and not those of the other.
    assert!(store.protocols().delete(&peer));
    store.metadata().set(peer, "note", "x").unwrap();
    hand.flush(&store);
    assert_eq!(value(&memory, &addrs_key(&peer)), addresses);
    assert_eq!(memory.len(), 2);
    assert_eq!(value(&memory, &metadata_key(&peer, "note")), b"x");
    store.addresses().add(peer, [addr(2)]);
    hand.flush(&store);
    assert!(value(&memory, &addrs_key(&peer)).ends_with(&newer_fields()));
}

#[test]
fn a_signed_record_without_its_addresses_stays_on_disk_until_the_addresses_change() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let peer = PeerId::random();
    let mut record = varint_field(1, u64::MAX);
    record.extend(bytes_field(2, &[7; 500]));
    block_on(memory.put(&addrs_key(&peer), bytes_field(2, &record))).unwrap();
    let store = hand.open(memory.clone());
    assert_eq!(store.load_report().peers, 1);
    store.tags().set(peer, "keep", 1, None).unwrap();
    hand.shutdown(store);
    let stored = || wire::all(&value(&memory, &addrs_key(&peer)), 2);
    assert_eq!(stored()[0].bytes(), record);
    let store = hand.open(memory.clone());
    assert!(store.signed_peer_record(&peer).is_none());
    store.addresses().add(peer, [addr(1)]);
    hand.shutdown(store);
    assert!(stored().is_empty());
}
