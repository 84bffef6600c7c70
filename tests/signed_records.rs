//! Signed peer records: which are taken, what they do to addresses, and how long they are kept.

#![allow(clippy::unwrap_used)]

use std::{num::NonZeroUsize, time::Duration};

use futures::executor::block_on;
use libp2p::identify;
use libp2p_core::{
    ConnectedPoint, Endpoint, Multiaddr, PeerRecord, SignedEnvelope, transport::PortUse,
};
use libp2p_identity::{Keypair, PeerId};
use libp2p_peerstore::{
    AcceptedRecord, Batch, Config, Datastore, Event, ManualClock, MemoryDatastore, PeerStore,
    PeerStoreBehaviour, RecordError, RecordFormat, Refused, Source, Standing,
};
use libp2p_swarm::{ConnectionId, FromSwarm, NetworkBehaviour, behaviour::ConnectionEstablished};
use proptest::prelude::*;
use prost::Message;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const LOCAL: u8 = 255;
const BOTH: [RecordFormat; 2] = [RecordFormat::Interop, RecordFormat::Legacy];

fn key(n: u8) -> Keypair {
    Keypair::ed25519_from_bytes([n; 32]).unwrap()
}

fn peer(n: u8) -> PeerId {
    key(n).public().to_peer_id()
}

fn at(port: u16) -> Multiaddr {
    format!("/ip4/198.51.100.1/tcp/{port}").parse().unwrap()
}

fn ports(ports: &[u16]) -> Vec<Multiaddr> {
    ports.iter().map(|port| at(*port)).collect()
}

fn config(clock: &ManualClock) -> Config {
    Config::default().with_clock(clock.clone())
}

fn clocked() -> (PeerStore, ManualClock) {
    let clock = ManualClock::default();
    (PeerStore::in_memory(peer(LOCAL), config(&clock)), clock)
}

fn store() -> PeerStore {
    clocked().0
}

fn open(memory: &MemoryDatastore) -> PeerStore {
    let config = config(&ManualClock::default());
    block_on(PeerStore::open(peer(LOCAL), memory.clone(), config)).unwrap()
}

// --- envelopes -----------------------------------------------------------------------------------------------

#[derive(Message)]
struct Payload {
    #[prost(bytes = "vec", tag = "1")]
    peer_id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    seq: u64,
    #[prost(message, repeated, tag = "3")]
    addresses: Vec<AddressInfo>,
}

#[derive(Message)]
struct AddressInfo {
    #[prost(bytes = "vec", tag = "1")]
    multiaddr: Vec<u8>,
}

fn domain(format: RecordFormat) -> (&'static str, &'static [u8]) {
    match format {
        RecordFormat::Interop => ("libp2p-peer-record", &[0x03, 0x01]),
        _ => ("libp2p-routing-state", b"/libp2p/routing-state-record"),
    }
}

/// What `signer` signs about `subject`.
fn signed(
    format: RecordFormat,
    signer: u8,
    subject: u8,
    seq: u64,
    addresses: &[Multiaddr],
) -> SignedEnvelope {
    let addresses = addresses.iter().map(|address| AddressInfo {
        multiaddr: address.to_vec(),
    });
    let payload = Payload {
        peer_id: peer(subject).to_bytes(),
        seq,
        addresses: addresses.collect(),
    };
    let (domain, payload_type) = domain(format);
    let (domain, payload_type) = (domain.to_owned(), payload_type.to_vec());
    SignedEnvelope::new(&key(signer), domain, payload_type, payload.encode_to_vec()).unwrap()
}

/// A record of peer 1 in the shared format.
fn record(seq: u64, listed: &[u16]) -> SignedEnvelope {
    signed(RecordFormat::Interop, 1, 1, seq, &ports(listed))
}

/// The same envelope with a byte of its signature changed.
fn forged(envelope: &SignedEnvelope) -> SignedEnvelope {
    let mut bytes = bytes(envelope);
    *bytes.last_mut().unwrap() ^= 1;
    SignedEnvelope::from_protobuf_encoding(&bytes).unwrap()
}

fn bytes(envelope: &SignedEnvelope) -> Vec<u8> {
    envelope.clone().into_protobuf_encoding()
}

// --- what the store holds ------------------------------------------------------------------------------------

/// The ports of peer 1 that are certified, and those that are not.
fn held(store: &PeerStore) -> (Vec<u16>, Vec<u16>) {
    let mut held = (Vec::new(), Vec::new());
    let addresses = store.get(&peer(1)).map(|peer| peer.addresses);
    for info in addresses.unwrap_or_default() {
        let port = info
            .address
            .to_string()
            .rsplit('/')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        match info.is_certified() {
            true => held.0.push(port),
            false => held.1.push(port),
        }
    }
    held.0.sort();
    held.1.sort();
    held
}

/// The envelope of peer 1 that is handed on.
fn handed_on(store: &PeerStore) -> Option<Vec<u8>> {
    Some(store.signed_peer_record(&peer(1))?.envelope.to_vec())
}

fn take(store: &PeerStore, envelope: &SignedEnvelope) -> Result<AcceptedRecord, RecordError> {
    store.consume_peer_record(envelope.clone())
}

/// What identify reports of peer 1.
fn identified(store: &PeerStore, listed: &[u16], envelope: Option<&SignedEnvelope>) {
    store.learn(&identify::Event::Received {
        connection_id: ConnectionId::new_unchecked(1),
        peer_id: peer(1),
        info: identify::Info {
            public_key: key(1).public(),
            protocol_version: "/test/1".to_owned(),
            agent_version: "test".to_owned(),
            listen_addrs: ports(listed),
            protocols: Vec::new(),
            observed_addr: at(1),
            signed_peer_record: envelope.cloned(),
        },
    });
}

// --- what is taken -------------------------------------------------------------------------------------------

#[test]
fn both_formats_are_taken_and_the_store_says_which_it_was() {
    for format in BOTH {
        let store = store();
        let mut events = store.subscribe();
        let envelope = signed(format, 1, 1, 7, &ports(&[1, 2]));
        let accepted = take(&store, &envelope).unwrap();
        assert_eq!((accepted.peer, accepted.seq), (peer(1), 7));
        assert_eq!((accepted.format, accepted.repeated), (format, false));
        assert_eq!(held(&store), (vec![1, 2], vec![]));
        let record = store.signed_peer_record(&peer(1)).unwrap();
        assert_eq!((record.seq, record.format), (7, format));
        assert_eq!(record.to_signed_envelope().unwrap(), envelope);
        assert!(matches!(events.try_next(), Some(Event::PeerAdded { .. })));
        assert!(matches!(
            events.try_next(),
            Some(Event::AddressesChanged { .. })
        ));
        assert!(events.try_next().is_none());
    }
}

#[test]
fn records_made_by_libp2p_itself_are_taken() {
    let interop = PeerRecord::new_interop(&key(1), ports(&[1])).unwrap();
    let legacy = PeerRecord::new(&key(1), ports(&[1])).unwrap();
    for (record, format) in [(interop, BOTH[0]), (legacy, BOTH[1])] {
        let accepted = take(&store(), &record.into_signed_envelope()).unwrap();
        assert_eq!(accepted.format, format);
    }
}

#[test]
fn the_records_of_the_js_fixture_are_taken_as_the_shared_format_and_kept_byte_for_byte() {
    let peers = include_str!("data/js-libp2p-0.30/peers.jsonl").lines();
    let mut taken = 0;
    for line in peers {
        let of: serde_json::Value = serde_json::from_str(line).unwrap();
        let Some(raw) = of["record"]["raw"].as_str() else {
            continue;
        };
        let raw = data_encoding::HEXLOWER.decode(raw.as_bytes()).unwrap();
        let envelope = SignedEnvelope::from_protobuf_encoding(&raw).unwrap();
        let store = store();
        let accepted = take(&store, &envelope).unwrap();
        assert_eq!(accepted.peer.to_string(), of["id"].as_str().unwrap());
        assert_eq!(accepted.seq, of["record"]["seq"].as_u64().unwrap());
        assert_eq!(accepted.format, RecordFormat::Interop);
        assert!(PeerRecord::from_signed_envelope(envelope).is_err());
        let handed_on = store.signed_peer_record(&accepted.peer).unwrap();
        assert_eq!(*handed_on.envelope, *raw);
        taken += 1;
    }
    assert_eq!(taken, 4);
}

#[test]
fn certified_proves_authorship_and_counts_as_self_told() {
    let store = store();
    take(&store, &record(1, &[1])).unwrap();
    let info = &store.get(&peer(1)).unwrap().addresses[0];
    assert!(info.is_certified());
    assert_eq!(info.standing, Standing::SelfTold);
}

// --- what is refused -----------------------------------------------------------------------------------------

#[test]
fn a_forged_foreign_empty_or_unknown_record_is_refused_and_says_which() {
    for format in BOTH {
        let store = store();
        let good = signed(format, 1, 1, 1, &ports(&[1]));
        assert!(matches!(
            take(&store, &forged(&good)),
            Err(RecordError::Forged)
        ));
        let foreign = signed(format, 2, 1, 1, &ports(&[1]));
        assert!(matches!(take(&store, &foreign), Err(RecordError::Foreign)));
        let empty = signed(format, 1, 1, 1, &[]);
        assert!(matches!(take(&store, &empty), Err(RecordError::Empty)));
        let (domain, payload_type) = domain(format);
        let other = |domain: &str, payload_type: &[u8]| {
            let payload_type = payload_type.to_vec();
            SignedEnvelope::new(&key(1), domain.to_owned(), payload_type, vec![0xff; 8]).unwrap()
        };
        let unknown = other(domain, b"something else");
        assert!(matches!(
            take(&store, &unknown),
            Err(RecordError::UnknownFormat)
        ));
        let malformed = other(domain, payload_type);
        assert!(matches!(
            take(&store, &malformed),
            Err(RecordError::Malformed(_))
        ));
        let for_another_use = other("libp2p-relay-rsvp", payload_type);
        assert!(matches!(
            take(&store, &for_another_use),
            Err(RecordError::Forged)
        ));
        assert!(store.is_empty());
        assert_eq!(store.refusals().get(Refused::InvalidRecord), 6);
    }
}

#[test]
fn a_foreign_record_with_a_higher_number_overwrites_nothing() {
    let store = store();
    let good = record(1, &[1]);
    take(&store, &good).unwrap();
    let foreign = signed(RecordFormat::Interop, 2, 1, 9, &ports(&[6]));
    assert!(take(&store, &foreign).is_err());
    assert_eq!(held(&store), (vec![1], vec![]));
    assert_eq!(handed_on(&store), Some(bytes(&good)));
}

#[test]
fn a_record_of_the_local_peer_is_refused() {
    let store = store();
    let own = signed(RecordFormat::Interop, LOCAL, LOCAL, 1, &ports(&[1]));
    let refused = take(&store, &own);
    assert!(matches!(
        refused,
        Err(RecordError::Refused(Refused::LocalPeer))
    ));
    assert!(store.is_empty());
}

#[test]
fn a_record_may_be_as_long_as_the_limit_and_no_longer() {
    let envelope = record(1, &[1]);
    let len = bytes(&envelope).len();
    let with_limit = |limit| {
        let config = config(&ManualClock::default());
        let config = config.with_max_signed_record_len(NonZeroUsize::new(limit).unwrap());
        PeerStore::in_memory(peer(LOCAL), config)
    };
    assert!(take(&with_limit(len), &envelope).is_ok());
    let store = with_limit(len - 1);
    let refused = take(&store, &envelope);
    assert!(matches!(refused, Err(RecordError::TooLong { len: told }) if told == len));
    identified(&store, &[1], Some(&envelope));
    assert_eq!(store.refusals().get(Refused::RecordTooLong), 2);
    assert_eq!(held(&store), (vec![], vec![1]));
}

#[test]
fn a_record_of_which_no_address_is_fit_changes_nothing() {
    let store = store();
    let good = record(1, &[1]);
    take(&store, &good).unwrap();
    let another: Multiaddr = format!("/ip4/198.51.100.1/tcp/1/p2p/{}", peer(2))
        .parse()
        .unwrap();
    let unfit = signed(RecordFormat::Interop, 1, 1, 2, &[another]);
    let refused = take(&store, &unfit);
    assert!(matches!(
        refused,
        Err(RecordError::Refused(Refused::ForeignPeerId))
    ));
    assert_eq!(held(&store), (vec![1], vec![]));
    assert_eq!(handed_on(&store), Some(bytes(&good)));
}

#[test]
fn a_record_is_refused_while_the_store_is_full_of_what_is_worth_more() {
    let config = config(&ManualClock::default()).with_max_peers(NonZeroUsize::MIN);
    let store = PeerStore::in_memory(peer(LOCAL), config);
    store.addresses().pin(peer(2), [at(2)]);
    let refused = take(&store, &record(1, &[1]));
    assert!(matches!(
        refused,
        Err(RecordError::Refused(Refused::StoreFull))
    ));
}

#[test]
fn what_the_swarm_learns_of_a_peer_under_a_ban_is_refused_and_the_applications_word_ends_it() {
    let store = store();
    store.delete_for(&peer(1), HOUR);
    let refused = store
        .learned(Source::Discovery)
        .peer_record(&record(1, &[1]));
    assert!(matches!(
        refused,
        Err(RecordError::Refused(Refused::Ignored))
    ));
    assert!(take(&store, &record(1, &[1])).is_ok());
    assert!(
        store
            .learned(Source::Discovery)
            .peer_record(&record(2, &[1]))
            .is_ok()
    );
}

#[test]
fn a_record_of_which_no_address_is_taken_changes_nothing() {
    let near = "/ip4/10.0.0.1/tcp/1".parse().unwrap();
    let from_afar = |store: &PeerStore| {
        let mut behaviour = PeerStoreBehaviour::new(store.clone()).unwrap();
        let endpoint = ConnectedPoint::Dialer {
            address: "/ip4/203.0.113.9/tcp/1".parse().unwrap(),
            role_override: Endpoint::Dialer,
            port_use: PortUse::Reuse,
        };
        behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer(9),
            connection_id: ConnectionId::new_unchecked(1),
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
        behaviour
    };
    let pin_all = |store: &PeerStore| {
        store.addresses().pin(peer(1), ports(&[1, 2]));
    };
    // Of a network where this node is not; and for want of room among what is pinned.
    for (reason, listed) in [
        (Refused::OutOfScope, vec![near]),
        (Refused::TooManyAddresses, ports(&[3])),
    ] {
        let clock = ManualClock::default();
        let config = config(&clock).with_max_addresses_per_peer(NonZeroUsize::new(2).unwrap());
        let store = PeerStore::in_memory(peer(LOCAL), config);
        let _behaviour = from_afar(&store);
        take(&store, &record(1, &[1, 2])).unwrap();
        if reason == Refused::TooManyAddresses {
            pin_all(&store);
        }
        let before = (store.addresses().infos(&peer(1)), handed_on(&store));
        let mut events = store.subscribe();
        let refused = take(&store, &signed(RecordFormat::Interop, 1, 1, 2, &listed));
        assert!(
            matches!(refused, Err(RecordError::Refused(why)) if why == reason),
            "{refused:?}"
        );
        let after = (store.addresses().infos(&peer(1)), handed_on(&store));
        assert_eq!(before, after, "{reason:?}");
        assert_eq!(held(&store), (vec![1, 2], vec![]));
        assert!(events.try_next().is_none());
        assert_eq!(store.refusals().get(reason), 1);
    }
}

#[test]
fn the_addresses_of_a_new_record_take_the_places_of_those_before() {
    let config = config(&ManualClock::default());
    let config = config.with_max_addresses_per_peer(NonZeroUsize::new(2).unwrap());
    let store = PeerStore::in_memory(peer(LOCAL), config);
    take(&store, &record(1, &[1, 2])).unwrap();
    take(&store, &record(2, &[3, 4])).unwrap();
    assert_eq!(held(&store), (vec![3, 4], vec![]));
}

#[test]
fn a_record_beside_a_list_that_has_none_of_its_addresses_changes_nothing() {
    let store = store();
    let first = record(1, &[1, 2]);
    identified(&store, &[1, 2], Some(&first));
    identified(&store, &[1, 2], Some(&record(2, &[8, 9])));
    assert_eq!(held(&store), (vec![1, 2], vec![]));
    assert_eq!(handed_on(&store), Some(bytes(&first)));
}

#[test]
fn the_filter_is_asked_for_the_addresses_of_a_record_that_the_swarm_learns() {
    let is_odd = |_: &PeerId, address: &Multiaddr| address.to_string().ends_with(['1', '3']);
    let config = config(&ManualClock::default()).with_address_filter(is_odd);
    let store = PeerStore::in_memory(peer(LOCAL), config);
    let mut learned = store.learned(Source::Discovery);
    let refused = learned.peer_record(&record(1, &[2, 4]));
    assert!(
        matches!(refused, Err(RecordError::Refused(Refused::Filtered))),
        "{refused:?}"
    );
    assert!(!store.contains(&peer(1)));
    assert!(learned.peer_record(&record(1, &[1, 2, 3])).is_ok());
    assert_eq!(held(&store), (vec![1, 3], vec![]));
    // A repeat of it neither; what the application takes is its own word.
    assert!(
        learned
            .peer_record(&record(1, &[1, 2, 3]))
            .unwrap()
            .repeated
    );
    assert_eq!(store.refusals().get(Refused::Filtered), 4);
    take(&store, &record(2, &[1, 2, 3])).unwrap();
    assert_eq!(held(&store), (vec![1, 2, 3], vec![]));
}

#[test]
fn after_shutdown_the_swarm_is_told_that_the_store_is_closed() {
    let store = store();
    block_on(store.shutdown()).unwrap();
    let refused = store
        .learned(Source::Discovery)
        .peer_record(&record(1, &[1]));
    assert!(matches!(refused, Err(RecordError::Closed)), "{refused:?}");
    assert_eq!(store.refusals().total(), 0);
    assert!(take(&store, &record(1, &[1])).is_ok());
}

// --- the sequence rule ---------------------------------------------------------------------------------------

#[test]
fn the_sequence_rule_holds_between_any_two_records_whatever_their_formats() {
    let (first, second) = (5, [4, 5, 6]);
    for (of_first, of_second) in BOTH.into_iter().flat_map(|a| BOTH.map(|b| (a, b))) {
        for seq in second {
            let store = store();
            let before = signed(of_first, 1, 1, first, &ports(&[1, 2]));
            let after = signed(of_second, 1, 1, seq, &ports(&[2, 3]));
            take(&store, &before).unwrap();
            let taken = take(&store, &after);
            if seq < first {
                let outdated = matches!(taken, Err(RecordError::Outdated { seq: 4, held: 5 }));
                assert!(outdated, "{taken:?}");
                assert_eq!(held(&store), (vec![1, 2], vec![]));
                assert_eq!(handed_on(&store), Some(bytes(&before)));
                assert_eq!(store.refusals().get(Refused::OutdatedRecord), 1);
            } else {
                assert!(taken.is_ok_and(|taken| !taken.repeated));
                // What is not in the new one is no longer certified, and nothing is dropped.
                assert_eq!(held(&store), (vec![2, 3], vec![1]));
                assert_eq!(handed_on(&store), Some(bytes(&after)));
            }
        }
    }
}

#[test]
fn the_same_bytes_are_a_repeat_that_refreshes_and_no_news() {
    let (store, clock) = clocked();
    let envelope = record(5, &[1]);
    take(&store, &envelope).unwrap();
    let mut events = store.subscribe();
    for _ in 0..20 {
        clock.advance(12 * HOUR);
        assert!(take(&store, &envelope).unwrap().repeated);
    }
    assert!(events.try_next().is_none());
    assert_eq!(
        held(&store),
        (vec![1], vec![]),
        "long after it would have expired"
    );
    clock.advance(DAY + HOUR);
    assert_eq!(handed_on(&store), None);
}

#[test]
fn a_newer_record_with_the_same_addresses_is_no_event_and_is_the_one_that_is_handed_on() {
    let (store, _) = clocked();
    take(&store, &record(5, &[1, 2])).unwrap();
    let mut events = store.subscribe();
    let newer = record(6, &[2, 1]);
    assert!(!take(&store, &newer).unwrap().repeated);
    assert!(events.try_next().is_none());
    assert_eq!(handed_on(&store), Some(bytes(&newer)));
    // With another list it is one.
    take(&store, &record(7, &[1, 2, 3])).unwrap();
    assert!(matches!(
        events.try_next(),
        Some(Event::AddressesChanged { addresses, .. }) if addresses.len() == 3
    ));
}

#[test]
fn a_repeat_brings_no_address_back() {
    let store = store();
    let envelope = record(5, &[1, 2]);
    take(&store, &envelope).unwrap();
    store.addresses().remove(peer(1), [at(2)]);
    assert!(take(&store, &envelope).unwrap().repeated);
    assert_eq!(held(&store), (vec![1], vec![]));
}

#[test]
fn the_highest_number_is_taken_and_lives_only_while_its_addresses_do() {
    let (store, clock) = clocked();
    let highest = record(u64::MAX, &[1]);
    take(&store, &highest).unwrap();
    let refused = take(&store, &record(9, &[2]));
    assert!(matches!(
        refused,
        Err(RecordError::Outdated {
            seq: 9,
            held: u64::MAX
        })
    ));
    let again = record(u64::MAX, &[1, 3]);
    assert!(take(&store, &again).is_ok(), "equal, and later received");

    store.addresses().add(peer(1), [at(7)]);
    store.addresses().remove(peer(1), ports(&[1, 3]));
    assert_eq!(handed_on(&store), None);
    assert!(take(&store, &record(9, &[2])).is_ok());

    take(&store, &highest).unwrap();
    store.addresses().pin(peer(1), [at(7)]);
    clock.advance(DAY + HOUR);
    assert!(take(&store, &record(9, &[2])).is_ok(), "expired");

    take(&store, &highest).unwrap();
    store.addresses().delete(&peer(1));
    assert!(take(&store, &record(9, &[2])).is_ok(), "deleted");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever comes in whatever order: the certified addresses are those of the record that holds, and that is
    /// the last one of those with the highest number.
    #[test]
    fn the_certified_addresses_are_those_of_the_last_of_the_highest(
        records in proptest::collection::vec(
            (0u64..4, proptest::collection::btree_set(1u16..6, 1..4), any::<bool>()),
            1..12,
        ),
    ) {
        let store = store();
        let mut holds: Option<(u64, Vec<u16>, Vec<u8>)> = None;
        for (seq, listed, legacy) in records {
            let listed: Vec<u16> = listed.into_iter().collect();
            let envelope = signed(BOTH[usize::from(legacy)], 1, 1, seq, &ports(&listed));
            let taken = take(&store, &envelope);
            let outdated = holds.as_ref().is_some_and(|(held, ..)| *held > seq);
            prop_assert_eq!(taken.is_err(), outdated);
            if !outdated {
                holds = Some((seq, listed, bytes(&envelope)));
            }
            let (_, certified, envelope) = holds.as_ref().unwrap();
            prop_assert_eq!(&held(&store).0, certified);
            prop_assert_eq!(handed_on(&store), Some(envelope.clone()));
        }
    }
}

// --- how long it is kept -------------------------------------------------------------------------------------

#[test]
fn the_envelope_is_kept_while_one_of_its_addresses_is() {
    let store = store();
    take(&store, &record(1, &[1, 2])).unwrap();
    store.addresses().add(peer(1), [at(3)]);
    store.addresses().remove(peer(1), [at(1)]);
    assert!(handed_on(&store).is_some());
    store.addresses().remove(peer(1), [at(2)]);
    assert_eq!(handed_on(&store), None);
    assert!(store.get(&peer(1)).unwrap().signed_record.is_none());
    assert_eq!(held(&store), (vec![], vec![3]));
}

#[test]
fn what_only_the_record_told_is_hearsay_once_a_newer_one_leaves_it_out() {
    let store = store();
    store.addresses().pin(peer(1), [at(9)]);
    take(&store, &record(1, &[1, 9])).unwrap();
    take(&store, &record(2, &[2])).unwrap();
    assert_eq!(held(&store), (vec![2], vec![1, 9]));
    let peer = store.get(&peer(1)).unwrap();
    let standing = |port| {
        let mut addresses = peer.addresses.iter();
        addresses
            .find(|info| info.address == at(port))
            .unwrap()
            .standing
    };
    assert_eq!(standing(1), Standing::Hearsay);
    assert_eq!(standing(2), Standing::SelfTold);
}

// --- identify ------------------------------------------------------------------------------------------------

#[test]
fn a_record_of_identify_certifies_what_the_list_holds_adds_nothing_and_is_kept() {
    let store = store();
    let envelope = signed(RecordFormat::Legacy, 1, 1, 1, &ports(&[1, 2]));
    identified(&store, &[1, 3], Some(&envelope));
    assert_eq!(held(&store), (vec![1], vec![3]));
    assert_eq!(handed_on(&store), Some(bytes(&envelope)));
    assert_eq!(
        store.signed_peer_record(&peer(1)).unwrap().format,
        RecordFormat::Legacy
    );
    // What is byte-equal certifies too, for what came into the list since.
    identified(&store, &[1, 2], Some(&envelope));
    assert_eq!(held(&store), (vec![1, 2], vec![]));
}

#[test]
fn a_forged_or_foreign_record_of_identify_certifies_nothing() {
    let store = store();
    let good = signed(RecordFormat::Legacy, 1, 1, 1, &ports(&[1]));
    let another = signed(RecordFormat::Legacy, 2, 2, 1, &ports(&[1]));
    for envelope in [forged(&good), another] {
        identified(&store, &[1], Some(&envelope));
        assert_eq!(held(&store), (vec![], vec![1]));
        assert_eq!(handed_on(&store), None);
    }
    assert_eq!(store.refusals().get(Refused::InvalidRecord), 2);
    assert!(!store.contains(&peer(2)));
}

#[test]
fn after_a_push_the_stale_record_brings_back_nothing_that_was_dropped() {
    let store = store();
    let stale = signed(RecordFormat::Legacy, 1, 1, 1, &ports(&[1, 2]));
    identified(&store, &[1, 2], Some(&stale));
    // The push drops one: by identify and by anybody else, only the other one remains.
    identified(&store, &[2, 3], Some(&stale));
    assert_eq!(held(&store), (vec![2], vec![3]));
    assert!(take(&store, &stale).unwrap().repeated);
    assert_eq!(held(&store), (vec![2], vec![3]));
    // A push drops the other one too.
    identified(&store, &[3], Some(&stale));
    assert_eq!(held(&store), (vec![], vec![3]));
    assert_eq!(handed_on(&store), None);
    assert!(matches!(take(&store, &stale), Err(RecordError::Withdrawn)));
    assert_eq!(held(&store), (vec![], vec![3]));
    // The peer lists them again, or signs again: then they are back.
    identified(&store, &[1, 2], Some(&stale));
    assert_eq!(held(&store), (vec![1, 2], vec![]));
    identified(&store, &[3], None);
    assert!(take(&store, &record(2, &[1])).is_ok());
}

#[test]
fn identify_with_an_older_record_than_the_one_held_certifies_nothing_by_it() {
    let store = store();
    take(&store, &record(5, &[1])).unwrap();
    let older = signed(RecordFormat::Legacy, 1, 1, 4, &ports(&[1, 2]));
    identified(&store, &[1, 2], Some(&older));
    assert_eq!(held(&store), (vec![1], vec![2]));
    assert_eq!(store.signed_peer_record(&peer(1)).unwrap().seq, 5);
    let newer = signed(RecordFormat::Legacy, 1, 1, 6, &ports(&[2]));
    identified(&store, &[1, 2], Some(&newer));
    assert_eq!(held(&store), (vec![2], vec![1]));
    assert_eq!(handed_on(&store), Some(bytes(&newer)));
}

#[test]
fn a_record_that_identify_only_signs_anew_starts_no_commit() {
    let memory = MemoryDatastore::default();
    let clock = ManualClock::default();
    let config = config(&clock);
    let store = block_on(PeerStore::open(peer(LOCAL), memory.clone(), config)).unwrap();
    identified(&store, &[1], Some(&record(1, &[1])));
    block_on(store.flush()).unwrap();
    let mut events = store.subscribe();
    for seq in 2..50 {
        identified(&store, &[1], Some(&record(seq, &[1])));
    }
    clock.advance(2 * HOUR);
    assert_eq!(store.unsaved(), 1, "it waits, and no commit began");
    assert!(events.try_next().is_none());
    block_on(store.shutdown()).unwrap();
    drop(store);
    assert_eq!(open(&memory).signed_peer_record(&peer(1)).unwrap().seq, 49);
}

// --- on disk -------------------------------------------------------------------------------------------------

/// The value of a peer's addresses, as js-libp2p declares it, and this crate's field for its own format.
#[derive(Message)]
struct Value {
    #[prost(message, repeated, tag = "1")]
    addrs: Vec<JsAddress>,
    #[prost(message, optional, tag = "2")]
    certified_record: Option<JsRecord>,
    #[prost(message, optional, tag = "20")]
    legacy: Option<JsRecord>,
}

#[derive(Message)]
struct JsAddress {
    #[prost(bytes = "vec", tag = "1")]
    multiaddr: Vec<u8>,
    #[prost(bool, optional, tag = "2")]
    is_certified: Option<bool>,
}

#[derive(Message)]
struct JsRecord {
    #[prost(uint64, tag = "1")]
    seq: u64,
    #[prost(bytes = "vec", tag = "2")]
    raw: Vec<u8>,
}

fn value(memory: &MemoryDatastore) -> (String, Value) {
    let mut entries = memory.entries().into_iter();
    let (key, value) = entries
        .find(|(key, _)| key.starts_with("/peers/addrs/"))
        .unwrap();
    (key, Value::decode(&value[..]).unwrap())
}

#[test]
fn certified_standing_and_envelope_survive_a_restart_byte_for_byte_in_the_fields_of_js_libp2p() {
    for format in BOTH {
        let memory = MemoryDatastore::default();
        let store = open(&memory);
        let envelope = signed(format, 1, 1, 7, &ports(&[1]));
        take(&store, &envelope).unwrap();
        store.addresses().add(peer(1), [at(2)]);
        block_on(store.shutdown()).unwrap();
        drop(store);

        let (_, value) = value(&memory);
        let flags: Vec<_> = value.addrs.iter().map(|a| a.is_certified).collect();
        assert_eq!(flags, [Some(true), Some(false)]);
        assert_eq!(value.addrs[0].multiaddr, at(1).to_vec());
        let (shared, own) = (value.certified_record, value.legacy);
        let (kept, other) = match format {
            RecordFormat::Interop => (shared, own),
            _ => (own, shared),
        };
        assert!(other.is_none());
        let kept = kept.unwrap();
        assert_eq!((kept.seq, &kept.raw), (7, &bytes(&envelope)));

        let store = open(&memory);
        assert_eq!(held(&store), (vec![1], vec![2]));
        let loaded = store.signed_peer_record(&peer(1)).unwrap();
        assert_eq!((loaded.seq, loaded.format), (7, format));
        assert_eq!(*loaded.envelope, *bytes(&envelope));
        let refused = take(&store, &signed(format, 1, 1, 6, &ports(&[3])));
        assert!(matches!(
            refused,
            Err(RecordError::Outdated { seq: 6, held: 7 })
        ));
        assert!(take(&store, &envelope).unwrap().repeated);
    }
}

#[test]
fn an_envelope_whose_addresses_are_gone_is_gone_from_disk() {
    let memory = MemoryDatastore::default();
    let store = open(&memory);
    take(&store, &record(1, &[1])).unwrap();
    store.addresses().add(peer(1), [at(2)]);
    block_on(store.flush()).unwrap();
    assert!(value(&memory).1.certified_record.is_some());
    store.addresses().remove(peer(1), [at(1)]);
    block_on(store.shutdown()).unwrap();
    assert!(value(&memory).1.certified_record.is_none());
}

#[test]
fn an_unreadable_stored_envelope_is_never_handed_on_and_gives_way_to_any_valid_one() {
    let foreign = signed(RecordFormat::Interop, 2, 2, 9, &ports(&[1]));
    let damaged = forged(&record(9, &[1]));
    for raw in [
        b"not an envelope".to_vec(),
        bytes(&foreign),
        bytes(&damaged),
    ] {
        let memory = MemoryDatastore::default();
        let store = open(&memory);
        take(&store, &record(5, &[1])).unwrap();
        block_on(store.shutdown()).unwrap();
        drop(store);
        let (key, mut stored) = value(&memory);
        stored.certified_record = Some(JsRecord { seq: 9, raw });
        let mut batch = Batch::default();
        batch.put(key, stored.encode_to_vec());
        block_on(memory.commit(batch)).unwrap();

        let store = open(&memory);
        assert_eq!(handed_on(&store), None);
        drop(store);
        let store = open(&memory);
        let lower = record(1, &[1, 2]);
        assert!(take(&store, &lower).is_ok());
        assert_eq!(held(&store), (vec![1, 2], vec![]));
        assert_eq!(handed_on(&store), Some(bytes(&lower)));
    }
}

#[test]
fn a_record_message_that_does_not_decode_spoils_no_address() {
    let memory = MemoryDatastore::default();
    let store = open(&memory);
    take(&store, &record(5, &[1])).unwrap();
    block_on(store.shutdown()).unwrap();
    drop(store);
    let (key, mut stored) = value(&memory);
    stored.certified_record = None;
    let mut value = stored.encode_to_vec();
    // Field 2 with three bytes that are no message.
    value.extend([0x12, 3, 0xff, 0xff, 0xff]);
    let mut batch = Batch::default();
    batch.put(key, value);
    block_on(memory.commit(batch)).unwrap();

    let store = open(&memory);
    assert_eq!(held(&store), (vec![1], vec![]));
    assert_eq!(handed_on(&store), None);
}

/// Within the time of a round of identify, nothing here may depend on how far the clock is.
#[test]
fn a_record_counts_from_its_arrival_and_not_from_its_number() {
    let (store, clock) = clocked();
    take(&store, &record(0, &[1])).unwrap();
    clock.advance(23 * HOUR);
    assert!(handed_on(&store).is_some());
    clock.advance(HOUR + 2 * MINUTE);
    assert!(!store.contains(&peer(1)));
}
