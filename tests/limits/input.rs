//! Bad input: the good items are stored, the bad ones are counted by reason, and nothing panics.

use std::time::Duration;

use libp2p_core::{Multiaddr, PeerRecord, SignedEnvelope};
use libp2p_identity::{Keypair, PeerId};
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
    let keypair = Keypair::ed25519_from_bytes([1; 32]).unwrap();
    // A peer record as protobuf: the peer, a number, an address.
    let record = |seq: u8| {
        let field = |n: u8, bytes: &[u8]| [&[n << 3 | 2, bytes.len() as u8][..], bytes].concat();
        let address = field(3, &field(1, &at(4).to_vec()));
        let payload = [field(1, &peer(1).to_bytes()), vec![2 << 3, seq], address].concat();
        let domain = "libp2p-peer-record".to_owned();
        SignedEnvelope::new(&keypair, domain, vec![3, 1], payload).unwrap()
    };
    let max_record_len = 3 * record(1).into_protobuf_encoding().len();
    let store = store_with(|config| {
        config
            .with_max_peers(size(2))
            .with_max_addresses_per_peer(size(2))
            .with_max_address_len(size(20))
            .with_max_claims_per_ip(size(1))
            .with_max_hearsay_names(0)
            .with_max_protocols_per_peer(size(1))
            .with_max_protocol_len(size(5))
            .with_max_metadata_per_peer(size(1))
            .with_max_metadata_key_len(size(5))
            .with_max_metadata_value_len(size(5))
            .with_max_tags_per_peer(size(1))
            .with_max_tag_name_len(size(5))
            .with_max_signed_record_len(size(max_record_len))
            .with_address_filter(|_: &PeerId, address: &Multiaddr| *address != at(666))
    });
    let mut swarm = Swarm::of(&store);
    let (addresses, protocols) = (store.addresses(), store.protocols());
    let mut seen = Vec::new();
    let mut refused_once = |reason: Refused, provoke: &mut dyn FnMut()| {
        let before = store.refusals();
        provoke();
        let after = store.refusals();
        assert_eq!(after.get(reason), before.get(reason) + 1, "{reason}");
        assert_eq!(after.total(), before.total() + 1, "{reason}");
        seen.push(reason);
    };

    addresses.pin(peer(1), ports([1]));
    addresses.add(peer(1), ports([2]));
    refused_once(Refused::EmptyAddress, &mut || {
        addresses.add(peer(1), [Multiaddr::empty()]);
    });
    refused_once(Refused::AddressTooLong, &mut || {
        let long = "/dns/a-name-that-is-too-long/tcp/1";
        addresses.add(peer(1), [long.parse().unwrap()]);
    });
    refused_once(Refused::ForeignPeerId, &mut || {
        addresses.add(peer(1), [with_id(at(1), peer(2))]);
    });
    refused_once(Refused::TooManyAddresses, &mut || {
        addresses.add(peer(1), ports([3]));
    });
    refused_once(Refused::DroppedAddress, &mut || {
        addresses.remove(peer(1), ports([2]));
        gossip(&store, peer(1), &ports([2]));
    });
    refused_once(Refused::OwnAddress, &mut || {
        gossip(&store, peer(1), &ports([7]));
        swarm.wrong_peer(peer(1), peer(LOCAL), at(7));
        identify(&store, peer(1), &ports([1, 7]));
    });
    refused_once(Refused::OutOfScope, &mut || {
        swarm.dialled(peer(1), at(1));
        gossip(&store, peer(1), &["/ip4/10.0.0.1/tcp/1".parse().unwrap()]);
    });
    refused_once(Refused::TooManyClaims, &mut || {
        gossip(&store, peer(2), &ports([1]));
        gossip(&store, peer(3), &ports([2]));
    });
    refused_once(Refused::DnsaddrByHearsay, &mut || {
        gossip(&store, peer(1), &["/dnsaddr/a.b".parse().unwrap()]);
    });
    refused_once(Refused::TooManyNames, &mut || {
        gossip(&store, peer(1), &["/dns/a.b/tcp/1".parse().unwrap()]);
    });
    refused_once(Refused::Filtered, &mut || {
        gossip(&store, peer(1), &ports([666]));
    });
    refused_once(Refused::InvalidProtocol, &mut || {
        protocols.add(peer(1), ["a"]);
    });
    refused_once(Refused::ProtocolTooLong, &mut || {
        protocols.add(peer(1), ["/12345"]);
    });
    refused_once(Refused::TooManyProtocols, &mut || {
        protocols.add(peer(1), ["/a", "/b"]);
    });
    refused_once(Refused::KeyMismatch, &mut || {
        store.keys().set(peer(1), key(2)).unwrap_err();
    });
    let metadata = |key: &str, value: &str| {
        store.metadata().set(peer(1), key, value).unwrap_err();
    };
    refused_once(Refused::EmptyMetadataKey, &mut || metadata("", "1"));
    refused_once(Refused::MetadataKeyTooLong, &mut || metadata("123456", "1"));
    refused_once(Refused::MetadataValueTooLong, &mut || {
        metadata("1", "123456")
    });
    refused_once(Refused::TooManyMetadata, &mut || {
        store.metadata().set(peer(1), "a", "1").unwrap();
        metadata("b", "1");
    });
    let tag = |name: &str, value: u8| {
        let tags = store.tags();
        tags.set(peer(1), name, value, None).unwrap_err();
    };
    refused_once(Refused::EmptyTagName, &mut || tag("", 1));
    refused_once(Refused::TagNameTooLong, &mut || tag("123456", 1));
    refused_once(Refused::TagValueOutOfRange, &mut || tag("a", 101));
    refused_once(Refused::TooManyTags, &mut || {
        store.tags().set(peer(1), "a", 1, None).unwrap();
        tag("b", 1);
    });
    let consume = |envelope| store.consume_peer_record(envelope).unwrap_err();
    refused_once(Refused::RecordTooLong, &mut || {
        let many = std::iter::repeat_n(at(4), 100).collect();
        let long = PeerRecord::new(&keypair, many).unwrap();
        consume(long.into_signed_envelope());
    });
    refused_once(Refused::InvalidRecord, &mut || {
        let (domain, kind) = ("another-domain".to_owned(), b"x".to_vec());
        consume(SignedEnvelope::new(&keypair, domain, kind, vec![]).unwrap());
    });
    refused_once(Refused::OutdatedRecord, &mut || {
        store.consume_peer_record(record(2)).unwrap();
        consume(record(1));
    });
    refused_once(Refused::LocalPeer, &mut || {
        addresses.add(peer(LOCAL), ports([1]));
    });
    refused_once(Refused::StoreFull, &mut || {
        addresses.pin(peer(2), ports([1]));
        gossip(&store, peer(3), &ports([1]));
    });
    refused_once(Refused::Ignored, &mut || {
        store.delete_for(&peer(1), Duration::from_secs(60));
        gossip(&store, peer(1), &ports([1]));
    });
    // None was forgotten here.
    assert_eq!(seen, Refused::ALL);
}

#[test]
fn refusals_begin_at_zero_for_each_store() {
    store().addresses().add(peer(LOCAL), ports([1]));
    assert_eq!(store().refusals(), Refusals::default());
    let store = store();
    assert!(
        Refused::ALL
            .iter()
            .all(|reason| store.refusals().get(*reason) == 0)
    );
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
