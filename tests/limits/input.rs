//! Bad input: the good items are stored, the bad ones are counted by reason, and nothing panics.

use std::time::Duration;

use libp2p_core::Multiaddr;
use libp2p_peerstore::{Refusals, Refused};

use crate::support::*;

#[test]
fn of_a_list_with_bad_addresses_the_good_ones_are_stored_and_the_bad_ones_counted() {
    let store = store_with(|config| config.with_max_address_len(size(20)));
    let long: Multiaddr = "/dns/a-name-that-is-too-long/tcp/1".parse().unwrap();
    let told = [
        at(1),
        Multiaddr::empty(),
        with_id(at(2), peer(9)),
        long.clone(),
        long,
        at(3),
    ];
    assert_eq!(did(store.addresses().add(peer(1), told.clone())), (true, 4));
    assert_eq!(store.addresses().get(&peer(1)), Some(ports([1, 3])));
    let counted: Vec<_> = store.refusals().iter().collect();
    assert_eq!(
        counted,
        [
            (Refused::EmptyAddress, 1),
            (Refused::AddressTooLong, 2),
            (Refused::ForeignPeerId, 1),
        ]
    );
    assert_eq!(
        did(store.addresses().set(peer(1), told.clone())),
        (false, 4)
    );
    assert_eq!(did(store.addresses().pin(peer(2), told.clone())), (true, 4));
    assert_eq!(did(store.addresses().remove(peer(1), told)), (true, 4));
    assert_eq!(store.addresses().get(&peer(1)), Some(vec![]));
    assert_eq!(store.refusals().total(), 16);
}

#[test]
fn of_a_list_with_bad_protocols_the_good_ones_are_stored_and_the_bad_ones_counted() {
    let store = store_with(|config| config.with_max_protocol_len(size(5)));
    let told = ["/a", "", "b", "/too long", "too long", "/c"];
    assert_eq!(did(store.protocols().add(peer(1), told)), (true, 4));
    assert_eq!(spoken(&store, peer(1)).unwrap(), ["/a", "/c"]);
    let counted: Vec<_> = store.refusals().iter().collect();
    assert_eq!(
        counted,
        [(Refused::InvalidProtocol, 2), (Refused::ProtocolTooLong, 2)]
    );
}

#[test]
fn every_reason_is_counted_on_its_own() {
    let store = store_with(|config| {
        config
            .with_max_peers(size(1))
            .with_max_addresses_per_peer(size(2))
            .with_max_address_len(size(20))
            .with_max_protocols_per_peer(size(1))
            .with_max_protocol_len(size(5))
            .with_max_metadata_per_peer(size(1))
            .with_max_metadata_key_len(size(5))
            .with_max_metadata_value_len(size(5))
    });
    let (addresses, protocols) = (store.addresses(), store.protocols());
    let refused_once = |reason: Refused, provoke: &dyn Fn()| {
        let before = store.refusals();
        provoke();
        let after = store.refusals();
        assert_eq!(after.get(reason), before.get(reason) + 1, "{reason}");
        assert_eq!(after.total(), before.total() + 1, "{reason}");
    };

    addresses.pin(peer(1), ports([1]));
    addresses.add(peer(1), ports([2]));
    refused_once(Refused::EmptyAddress, &|| {
        addresses.add(peer(1), [Multiaddr::empty()]);
    });
    refused_once(Refused::AddressTooLong, &|| {
        let long = "/dns/a-name-that-is-too-long/tcp/1";
        addresses.add(peer(1), [long.parse().unwrap()]);
    });
    refused_once(Refused::ForeignPeerId, &|| {
        addresses.add(peer(1), [with_id(at(1), peer(2))]);
    });
    refused_once(Refused::TooManyAddresses, &|| {
        addresses.add(peer(1), ports([3]));
    });
    refused_once(Refused::DroppedAddress, &|| {
        addresses.remove(peer(1), ports([2]));
        gossip(&store, peer(1), &ports([2]));
    });
    refused_once(Refused::InvalidProtocol, &|| {
        protocols.add(peer(1), ["a"]);
    });
    refused_once(Refused::ProtocolTooLong, &|| {
        protocols.add(peer(1), ["/12345"]);
    });
    refused_once(Refused::TooManyProtocols, &|| {
        protocols.add(peer(1), ["/a", "/b"]);
    });
    refused_once(Refused::KeyMismatch, &|| {
        store.keys().set(peer(1), key(2)).unwrap_err();
    });
    let metadata = |key: &str, value: &str| {
        store.metadata().set(peer(1), key, value).unwrap_err();
    };
    refused_once(Refused::EmptyMetadataKey, &|| metadata("", "1"));
    refused_once(Refused::MetadataKeyTooLong, &|| metadata("123456", "1"));
    refused_once(Refused::MetadataValueTooLong, &|| metadata("1", "123456"));
    refused_once(Refused::TooManyMetadata, &|| {
        store.metadata().set(peer(1), "a", "1").unwrap();
        metadata("b", "1");
    });
    refused_once(Refused::LocalPeer, &|| {
        addresses.add(peer(LOCAL), ports([1]));
    });
    refused_once(Refused::StoreFull, &|| {
        gossip(&store, peer(2), &ports([1]));
    });
    refused_once(Refused::Ignored, &|| {
        store.delete_for(&peer(1), Duration::from_secs(60));
        gossip(&store, peer(1), &ports([1]));
    });
    // None was forgotten here.
    let counted: Vec<_> = store.refusals().iter().map(|(reason, _)| reason).collect();
    assert_eq!(counted, Refused::ALL);
}

#[test]
fn refusals_begin_at_zero_for_each_store() {
    store().addresses().add(peer(LOCAL), ports([1]));
    assert_eq!(store().refusals(), Refusals::default());
    assert!(Refused::ALL.map(|reason| store().refusals().get(reason)) == [0; Refused::ALL.len()]);
}

#[test]
fn a_list_of_nothing_but_bad_input_makes_nobody_known_whatever_its_length() {
    let store = store();
    let mut events = store.subscribe();
    let foreign = with_id(at(1), peer(9));
    let addresses = std::iter::repeat_n(foreign, 10_000);
    assert_eq!(
        did(store.addresses().add(peer(1), addresses.clone())),
        (false, 10_000)
    );
    assert_eq!(
        did(store.addresses().set(peer(1), addresses)),
        (false, 10_000)
    );
    let names = std::iter::repeat_n("no slash", 10_000);
    assert_eq!(did(store.protocols().set(peer(1), names)), (false, 10_000));
    assert!(store.is_empty());
    assert_eq!(heard(&mut events), []);
    assert_eq!(store.refusals().total(), 30_000);
}
