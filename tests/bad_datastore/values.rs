//! Values that are not what stands under their key.

use std::time::Duration;

use libp2p::{PeerId, multiaddr::Protocol};
use libp2p_peerstore::{MemoryDatastore, Sources};

use crate::{
    all_of, get, put, rsa_keys, sound, sound_peer,
    support::{Hand, addr, addrs_key, keys_key, keys_of, metadata_key, protos_key},
    wire::{self, bytes_field, js_address, varint_field},
};

const MEBIBYTE: usize = 1024 * 1024;

#[test]
fn a_value_that_is_cut_short_spoils_nothing_else() {
    let (peer, whole) = sound_peer();
    let mut hand = Hand::default();
    let known = hand.open(whole.clone()).get(&peer).unwrap();
    for key in [addrs_key(&peer), protos_key(&peer), keys_key(&peer)] {
        let value = get(&whole, &key).unwrap();
        for len in 0..value.len() {
            let memory = MemoryDatastore::default();
            let witness = PeerId::random();
            put(&memory, protos_key(&witness), &bytes_field(1, b"/witness"));
            for (other, value) in whole.entries() {
                put(&memory, other, &value);
            }
            put(&memory, &key, &value[..len]);
            let before = memory.entries();
            let store = hand.open(memory.clone());

            let is_key = key == keys_key(&peer);
            let is_cut = is_key || wire::try_fields(&value[..len]).is_none();
            let mut report = sound(2, 5);
            report.undecodable = usize::from(is_cut);
            assert_eq!(store.load_report(), report, "{key} cut to {len} bytes");
            assert_eq!(store.protocols().get(&witness).unwrap().len(), 1);
            let left = store.get(&peer).unwrap();
            if key != addrs_key(&peer) {
                assert_eq!(left.addresses, known.addresses);
            }
            if key != protos_key(&peer) {
                assert_eq!(left.protocols, known.protocols);
            }
            assert_eq!(left.public_key.is_none(), is_key);
            assert_eq!(left.metadata, known.metadata);
            hand.shutdown(store);
            assert_eq!(memory.entries(), before);
        }
    }
}

/// Many peers have the same list: what was read of one says nothing of what else stands in the value of another.
#[test]
fn lists_of_protocols_that_begin_alike_are_each_read_whole() {
    let names = |names: &[&str]| -> Vec<u8> {
        let fields = names.iter().map(|name| bytes_field(1, name.as_bytes()));
        fields.flatten().collect()
    };
    let shared = names(&["/a", "/b"]);
    let unknown = bytes_field(99, b"from a later version");
    let long = "x".repeat(300);
    let wrong = names(&["/a", "no slash", "/b", &long]);
    let values: [(Vec<u8>, Option<&[&str]>); 9] = [
        (shared.clone(), Some(&["/a", "/b"])),
        ([&shared[..], &unknown].concat(), Some(&["/a", "/b"])),
        (
            [&shared[..], &unknown, &names(&["/c"])].concat(),
            Some(&["/a", "/b", "/c"]),
        ),
        (names(&["/a", "/b", "/c"]), Some(&["/a", "/b", "/c"])),
        ([&shared[..], &[0x0a, 0x7f, b'/']].concat(), None),
        ([&shared[..], &[0x0a, 1, 0xff]].concat(), None),
        ([&shared[..], &[0x80]].concat(), None),
        (wrong.clone(), Some(&["/a", "/b"])),
        (wrong, Some(&["/a", "/b"])),
    ];
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let mut peers = Vec::new();
    for (value, told) in &values {
        // Each of them once before the others and once behind them.
        for _ in 0..2 {
            let peer = PeerId::random();
            put(&memory, addrs_key(&peer), &js_address_of(1));
            put(&memory, protos_key(&peer), value);
            peers.push((peer, *told));
        }
    }
    let before = memory.entries();
    let store = hand.open(memory.clone());
    for (peer, told) in peers {
        let read = store.protocols().get(&peer).unwrap();
        let read: Vec<&str> = read.iter().map(AsRef::as_ref).collect();
        assert_eq!(read, told.unwrap_or_default(), "{peer}");
    }
    let report = store.load_report();
    assert_eq!((report.undecodable, report.refused), (6, 8));
    hand.shutdown(store);
    assert_eq!(memory.entries(), before);
}

/// js-libp2p may store an address with `/p2p/<peer>` at its end, this crate writes it without. What a later version had
/// added to it was lost on the way.
#[test]
fn what_a_later_version_says_of_an_address_stays_with_it_in_whatever_form_it_was_stored() {
    let (mut hand, memory, peer) = (
        Hand::default(),
        MemoryDatastore::default(),
        PeerId::random(),
    );
    let unknown = bytes_field(99, b"from a later version");
    let full = addr(1).with(Protocol::P2p(peer));
    let message = [&js_address(full.as_ref(), false)[..], &unknown].concat();
    put(&memory, addrs_key(&peer), &bytes_field(1, &message));
    let store = hand.open(memory.clone());
    store.addresses().pin(peer, [addr(2)]);
    hand.shutdown(store);
    let value = get(&memory, addrs_key(&peer)).unwrap();
    let bare = bytes_field(1, addr(1).as_ref());
    let kept = wire::all(&value, 1).into_iter().filter(|message| {
        let message = message.bytes();
        message.starts_with(&bare) && message.ends_with(&unknown)
    });
    assert_eq!(kept.count(), 1);
}

fn js_address_of(n: u8) -> Vec<u8> {
    bytes_field(1, &js_address(addr(n.into()).as_ref(), false))
}

#[test]
fn what_cannot_be_decoded_is_left_until_its_book_is_written() {
    let (peer, memory) = sound_peer();
    for key in [addrs_key(&peer), protos_key(&peer), keys_key(&peer)] {
        put(&memory, key, &[0xff; 3]);
    }
    let mut hand = Hand::default();
    let store = hand.open(memory.clone());
    let mut report = sound(1, 4);
    report.undecodable = 3;
    assert_eq!(store.load_report(), report);

    store.metadata().set(peer, "note", "y").unwrap();
    hand.flush(&store);
    for key in [addrs_key(&peer), protos_key(&peer), keys_key(&peer)] {
        assert_eq!(get(&memory, key), Some(vec![0xff; 3]));
    }
    store.addresses().add(peer, [addr(1)]);
    store.protocols().add(peer, ["/p"]);
    store.keys().set(peer, rsa_keys().remove(0)).unwrap();
    hand.flush(&store);
    let again = hand.open(memory.clone());
    assert_eq!(again.load_report(), sound(1, 4));
    assert_eq!(
        all_of(&again.get(&peer).unwrap()),
        all_of(&store.get(&peer).unwrap())
    );
}

#[test]
fn a_peer_of_which_nothing_can_be_decoded_is_not_known_and_can_be_deleted() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let (bad, written, deleted) = (PeerId::random(), PeerId::random(), PeerId::random());
    for peer in [bad, written, deleted] {
        put(&memory, addrs_key(&peer), &[0xff]);
        put(&memory, protos_key(&peer), &[0xff]);
    }
    let store = hand.open(memory.clone());
    let mut report = sound(0, 6);
    report.undecodable = 6;
    assert_eq!(store.load_report(), report);
    assert!(store.is_empty());

    store.addresses().add(written, [addr(1)]);
    assert!(!store.delete(&deleted));
    hand.shutdown(store);
    let kept = [addrs_key(&bad), protos_key(&bad), protos_key(&written)];
    for key in kept {
        assert_eq!(get(&memory, key), Some(vec![0xff]));
    }
    assert_eq!(memory.len(), 4);
    assert_eq!(hand.open(memory).peer_ids(), [written]);
}

#[test]
fn the_key_of_another_peer_is_not_taken() {
    let mut hand = Hand::default();
    let memory = MemoryDatastore::default();
    let keys = rsa_keys();
    let [honest, victim] = [0, 1].map(|n| PeerId::from(keys[n].clone()));
    for peer in [honest, victim] {
        put(&memory, keys_key(&peer), &keys[0].encode_protobuf());
    }
    // An inline key has no entry; one that stands there must at least be the right one.
    let inline = libp2p::identity::Keypair::generate_ed25519().public();
    let inline_id = PeerId::from(inline.clone());
    put(&memory, keys_key(&inline_id), &inline.encode_protobuf());
    let store = hand.open(memory.clone());
    let mut report = sound(1, 3);
    report.undecodable = 1;
    assert_eq!(store.load_report(), report);
    assert_eq!(store.keys().get(&honest), Some(keys[0].clone()));
    assert_eq!(store.keys().get(&victim), None);
    assert_eq!(store.keys().get(&inline_id), Some(inline));
    assert_eq!(memory.len(), 3);
}

#[test]
fn a_value_of_more_than_a_mebibyte_is_not_decoded() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let padded = |len: usize, first: &[u8]| {
        let mut value = first.to_vec();
        let mut padding = len - value.len() - 2;
        loop {
            let field = bytes_field(100, &vec![0; padding]);
            if value.len() + field.len() <= len {
                value.extend(field);
                break;
            }
            padding -= 1;
        }
        assert_eq!(value.len(), len);
        value
    };
    let address = bytes_field(1, &js_address(addr(1).as_ref(), false));
    let (fits, too_large) = (PeerId::random(), PeerId::random());
    put(&memory, addrs_key(&fits), &padded(MEBIBYTE, &address));
    put(
        &memory,
        addrs_key(&too_large),
        &padded(MEBIBYTE + 1, &address),
    );
    let protocols = padded(MEBIBYTE + 1, &bytes_field(1, b"/p"));
    put(&memory, protos_key(&fits), &protocols);
    put(&memory, keys_key(&fits), &vec![0; 2 * MEBIBYTE]);
    put(&memory, metadata_key(&fits, "note"), &vec![0; 2 * MEBIBYTE]);
    let before = memory.entries();
    let store = hand.open(memory.clone());
    let mut report = sound(1, 5);
    // A metadata value, and what an unknown program wrote beside the address: too much to be kept in memory.
    (report.undecodable, report.refused) = (3, 2);
    assert_eq!(store.load_report(), report);
    assert_eq!(store.addresses().get(&fits).unwrap(), [addr(1)]);
    hand.flush(&store);
    assert!(memory.entries() == before);
    store.delete(&fits);
    hand.shutdown(store);
    assert_eq!(keys_of(&memory), [addrs_key(&too_large)]);
}

/// What is kept of a value never outgrows the limit at which it is read: it would be lost at the next start.
#[test]
fn a_value_at_its_limit_is_read_again_after_it_was_written() {
    for unknown in [
        1,
        16 * 1024,
        16 * 1024 + 1,
        MEBIBYTE - 20_000,
        MEBIBYTE - 100,
    ] {
        let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
        let peer = PeerId::random();
        let unknown = bytes_field(100, &vec![7; unknown]);
        let mut addresses = bytes_field(1, &js_address(addr(1).as_ref(), false));
        addresses.extend(&unknown);
        let mut protocols = bytes_field(1, b"/a");
        protocols.extend(&unknown);
        put(&memory, addrs_key(&peer), &addresses);
        put(&memory, protos_key(&peer), &protocols);
        let store = hand.open(memory.clone());
        let is_kept = unknown.len() <= 16 * 1024;
        let mut report = sound(1, 2);
        report.refused = if is_kept { 0 } else { 2 };
        assert_eq!(store.load_report(), report);
        // What adds to them, up to the limits.
        let many = (2..40).map(addr);
        store.addresses().add(peer, many);
        let names = (0..300).map(|n| format!("/{n}/{}", "n".repeat(200)));
        store.protocols().add(peer, names);
        store.tags().set(peer, "tag", 1, None).unwrap();
        hand.shutdown(store);
        for key in [addrs_key(&peer), protos_key(&peer)] {
            let value = get(&memory, key).unwrap();
            let kept = value.windows(unknown.len()).any(|part| part == unknown);
            assert_eq!(kept, is_kept, "{} bytes", unknown.len());
        }
        let again = hand.open(memory);
        assert_eq!(again.load_report(), sound(1, 2));
        assert_eq!(again.addresses().get(&peer).unwrap().len(), 32);
        assert_eq!(again.protocols().get(&peer).unwrap().len(), 256);
    }
}

#[test]
fn what_large_limits_let_in_is_read_again() {
    let large = |config: libp2p_peerstore::Config| {
        config
            .with_max_addresses_per_peer(6_000.try_into().unwrap())
            .with_max_protocols_per_peer(6_000.try_into().unwrap())
    };
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let store = hand.open_with(memory.clone(), large);
    let peer = PeerId::random();
    let label = "l".repeat(60);
    let address = |n| {
        format!("/dns4/{n}.{label}.{label}.{label}.example/tcp/1")
            .parse()
            .unwrap()
    };
    store.addresses().add(peer, (0..6_000).map(address));
    let names = (0..6_000).map(|n| format!("/{n}/{}", "n".repeat(240)));
    store.protocols().add(peer, names);
    hand.shutdown(store);
    let len = |key| get(&memory, key).unwrap().len();
    assert!(len(addrs_key(&peer)) > MEBIBYTE && len(protos_key(&peer)) > MEBIBYTE);
    let again = hand.open_with(memory, large);
    assert_eq!(again.load_report(), sound(1, 2));
    assert_eq!(again.addresses().get(&peer).unwrap().len(), 6_000);
    assert_eq!(again.protocols().get(&peer).unwrap().len(), 6_000);
}

#[test]
fn addresses_of_other_peers_and_of_nobody_are_refused() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let (peer, other) = (PeerId::random(), PeerId::random());
    let own = addr(1).with_p2p(peer).unwrap();
    let foreign = addr(2).with_p2p(other).unwrap();
    let nowhere: libp2p::Multiaddr = libp2p::multiaddr::Protocol::P2p(peer).into();
    let mut value = Vec::new();
    for address in [&own, &foreign, &nowhere] {
        value.extend(bytes_field(1, &js_address(address.as_ref(), false)));
    }
    put(&memory, addrs_key(&peer), &value);
    let store = hand.open(memory);
    let mut report = sound(1, 1);
    report.refused = 1;
    assert_eq!(store.load_report(), report);
    assert_eq!(store.addresses().get(&peer).unwrap(), [addr(1)]);
}

/// js-libp2p stored both forms of an address side by side; that one of them is certified must not get lost.
#[test]
fn one_address_in_two_forms_is_loaded_once_and_certified_wins() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    for certified_first in [true, false] {
        let peer = PeerId::random();
        let long = addr(1).with_p2p(peer).unwrap();
        let mut value = bytes_field(1, &js_address(addr(1).as_ref(), certified_first));
        value.extend(bytes_field(1, &js_address(long.as_ref(), !certified_first)));
        put(&memory, addrs_key(&peer), &value);
        let store = hand.open(memory.clone());
        let infos = store.addresses().infos(&peer).unwrap();
        assert_eq!(infos.len(), 1);
        assert!(infos[0].is_certified());
    }
}

/// The largest value that is read at all, full of short addresses: a minute is for a machine that has other work.
#[test]
fn a_value_with_tens_of_thousands_of_addresses_does_not_keep_the_opening_for_long() {
    let (peer, memory) = (PeerId::random(), MemoryDatastore::default());
    let mut value = Vec::new();
    for n in 0_u32.. {
        let mut bytes = vec![4, 10];
        bytes.extend(&n.to_be_bytes()[1..]);
        bytes.extend([6, 0, 1]);
        let more = bytes_field(1, &js_address(&bytes, false));
        if value.len() + more.len() > MEBIBYTE {
            break;
        }
        value.extend(more);
        if n == 0 {
            // Once more at the end of those that are compared one by one.
            value.extend(bytes_field(1, &js_address(&bytes, true)));
        }
    }
    put(&memory, addrs_key(&peer), &value);
    let (done, result) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let store = Hand::default().open(memory);
        done.send((store.load_report(), store.addresses().infos(&peer)))
    });
    let loaded = result.recv_timeout(Duration::from_secs(60));
    let (report, infos) = loaded.expect("it is still being read");
    assert_eq!((report.peers, report.undecodable), (1, 0));
    assert!(report.refused > 40_000, "{report:?}");
    let infos = infos.unwrap();
    assert_eq!(infos.len(), 32);
    let first = "/ip4/10.0.0.0/tcp/1".parse().unwrap();
    let first = infos.iter().filter(|info| info.address == first);
    let first: Vec<_> = first.map(|info| info.sources).collect();
    assert_eq!(first, [Sources::IDENTIFY | Sources::CERTIFIED]);
}

#[test]
fn an_entry_that_says_nothing_makes_no_peer() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let (empty, dated) = (PeerId::random(), PeerId::random());
    // js-libp2p writes an empty file for a peer without protocols.
    put(&memory, protos_key(&empty), b"");
    put(&memory, addrs_key(&empty), b"");
    let format = [varint_field(1, 1), varint_field(2, 1)].concat();
    put(&memory, addrs_key(&dated), &bytes_field(16, &format));
    put(&memory, protos_key(&dated), &bytes_field(16, &format));
    let store = hand.open(memory.clone());
    assert_eq!(store.load_report(), sound(0, 4));
    assert_eq!(memory.len(), 4);
}

#[test]
fn more_unreadable_addresses_than_the_limit_are_counted_as_refused() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let peer = PeerId::random();
    let mut value = Vec::new();
    for n in 0..10 {
        value.extend(bytes_field(1, &js_address(&[0xff, 0xff, 0x03, n], false)));
    }
    // One that is too long to be kept.
    let long = [&[0xff, 0xff, 0x03][..], &[7; 5_000]].concat();
    value.extend(bytes_field(17, &js_address(&long, false)));
    put(&memory, addrs_key(&peer), &value);
    let four = 4.try_into().unwrap();
    let store = hand.open_with(memory, |config| config.with_max_addresses_per_peer(four));
    let report = store.load_report();
    assert_eq!((report.peers, report.undecodable), (1, 0));
    assert_eq!((report.unreadable_addresses, report.refused), (4, 7));
}

/// Bytes that nobody wrote on purpose: whatever they are taken for, nothing panics and the witness is loaded.
#[test]
fn random_bytes_are_survived() {
    let mut hand = Hand::default();
    let mut seed: u64 = 1;
    let mut random = move || {
        // Knuth's generator: the same bytes in every run.
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as u8
    };
    let (peer, whole) = sound_peer();
    for round in 0..300 {
        let memory = MemoryDatastore::default();
        let witness = PeerId::random();
        put(&memory, protos_key(&witness), &bytes_field(1, b"/witness"));
        for (key, mut value) in whole.entries() {
            if round % 2 == 0 {
                value = (0..random()).map(|_| random()).collect();
            } else {
                // Nearly right is worse than quite wrong.
                for _ in 0..3 {
                    let at = usize::from(random()) % value.len();
                    value[at] = random();
                }
            }
            put(&memory, key, &value);
        }
        let before = memory.entries();
        // Some of the bytes are times: nothing is to be so old that it has expired, as that would be taken off the disk.
        let ages = Duration::from_secs(100 * 365 * 24 * 60 * 60);
        let store = hand.open_with(memory.clone(), |config| {
            config
                .with_hearsay_lifetime(16 * ages)
                .with_self_told_lifetime(16 * ages)
                .with_proven_lifetime(16 * ages)
        });
        let report = store.load_report();
        assert_eq!((report.entries, report.foreign), (5, 0));
        assert_eq!(store.protocols().get(&witness).unwrap().len(), 1);
        // A time that lies in the future is written as what it was taken for; nothing else is.
        if store.unsaved() == 0 {
            hand.flush(&store);
            assert_eq!(memory.entries(), before);
        }
        // What was made of them can be written and read again.
        store.addresses().add(peer, [addr(9)]);
        store.protocols().add(peer, ["/again"]);
        hand.shutdown(store);
        let store = hand.open(memory);
        assert!(store.addresses().get(&peer).unwrap().contains(&addr(9)));
        let undecodable = store.load_report().undecodable;
        assert!(
            undecodable <= 1,
            "only the key may still be wrong: {undecodable}"
        );
    }
}
