//! Values: what is under the keys of one peer, of each kind. What was read is written so that it is read again as the
//! same, and written as the same.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::FutureExt;
use libp2p_core::{PeerRecord, SignedEnvelope};
use libp2p_identity::{Keypair, PeerId, PublicKey};
use prost::encoding;

use crate::{
    Batch, Config, Datastore, LoadReport, MemoryDatastore, Peer, PeerStore, RecordFormat, Source,
    clock::Timestamp,
    inner::Inner,
    persist::{self, codec, key},
    state::{Now, State},
};

/// When everything is read: the first day of 2025.
const NOW: Timestamp = Timestamp(1_735_689_600);

/// Reads the bytes as a value, the first one saying of which kind, under generous and under narrow limits.
///
/// # Panics
///
/// When what is written after that is read as something else.
pub fn values(bytes: &[u8]) {
    let (kind, value) = bytes.split_first().unwrap_or((&0, &[]));
    let config = if kind & 0x80 == 0 {
        Config::default()
    } else {
        narrow()
    };
    // What is not saved here need not be: there is no engine that one could wait for.
    let config = Arc::new(config.with_drop_deadline(Duration::ZERO));
    let peer = key_pair().public().to_peer_id();
    let b32 = key::b32(&peer);
    match kind % 8 {
        0 | 1 => stays(&config, peer, vec![(key::addresses(&b32), value.to_vec())]),
        2 => stays(&config, peer, vec![(key::protocols(&b32), value.to_vec())]),
        3 => public_key(&config, value),
        4 => metadata(&config, peer, value),
        5 => envelope(&config, value),
        6 => signed(&config, value),
        // Both books of a peer that another program wrote.
        _ => {
            let len = value.first().map_or(0, |len| usize::from(*len));
            let rest = value.get(1..).unwrap_or_default();
            let (addresses, protocols) = rest.split_at(rest.len().min(len));
            let entries = vec![
                (key::addresses(&b32), addresses.to_vec()),
                (key::protocols(&b32), protocols.to_vec()),
            ];
            stays(&config, peer, entries);
        }
    }
}

fn narrow() -> Config {
    let size = |n| std::num::NonZeroUsize::new(n).expect("it is not zero");
    Config::default()
        .with_max_addresses_per_peer(size(3))
        .with_max_address_len(size(24))
        .with_max_protocols_per_peer(size(3))
        .with_max_protocol_len(size(12))
        .with_max_metadata_per_peer(size(1))
        .with_max_metadata_key_len(size(6))
        .with_max_metadata_value_len(size(10))
        .with_max_tags_per_peer(size(2))
        .with_max_tag_name_len(size(5))
        .with_max_signed_record_len(size(200))
}

fn key_pair() -> &'static Keypair {
    static KEY: OnceLock<Keypair> = OnceLock::new();
    KEY.get_or_init(|| Keypair::ed25519_from_bytes([7; 32]).expect("a key"))
}

/// The key and the value of each entry of a datastore.
type Entries = Vec<(String, Vec<u8>)>;

fn load(config: &Arc<Config>, entries: &Entries) -> (State, LoadReport) {
    let datastore = MemoryDatastore::default();
    let mut batch = Batch::default();
    for (key, value) in entries {
        batch.put(key, value.clone());
    }
    let commit = datastore.commit(batch).now_or_never();
    commit.expect("it waits for nothing").expect("no error");
    // Nobody has this id.
    let local = PeerId::from_bytes(&[0x12, 1, 0]).expect("an id");
    let load = persist::load(&datastore, local, config.clone(), now());
    let loaded = load.now_or_never().expect("it waits for nothing");
    loaded.expect("nothing fails")
}

fn now() -> Now {
    Now {
        wall: NOW,
        elapsed: Duration::ZERO,
    }
}

/// All that would be written of a peer.
fn written(state: &State, peer: &PeerId) -> Entries {
    let Some(view) = state.known(peer, now()) else {
        return Vec::new();
    };
    let b32 = key::b32(peer);
    let mut entries = Vec::new();
    if let Some(value) = codec::encode_addresses(&view, &state.model) {
        entries.push((key::addresses(&b32), value));
    }
    if let Some(value) = codec::encode_protocols(&view) {
        entries.push((key::protocols(&b32), value));
    }
    if let Some(key) = view.rare().and_then(|rare| rare.public_key.as_deref()) {
        entries.push((key::public_key(&b32), codec::encode_public_key(key)));
    }
    for (name, value) in view.metadata() {
        entries.push((key::metadata(&b32, &name), value));
    }
    entries
}

/// The peer as people see it, in a form that can be compared. How confident the store is in an address does not only
/// depend on the peer, and what only came in on a connection is not written.
fn seen(state: &State, peer: &PeerId) -> Option<Peer> {
    let view = state.known(peer, now())?;
    Some(view.peer(state.rules(now())))
}

/// What is written is read as the same, without a complaint, and written as the same.
fn stays(config: &Arc<Config>, peer: PeerId, entries: Entries) {
    let (state, report) = load(config, &entries);
    assert_eq!(report.entries, entries.len());
    assert_eq!(
        (report.foreign, report.local, report.left_on_disk),
        (0, 0, 0)
    );
    assert!(report.undecodable <= entries.len());
    assert!(report.peers + report.expired <= 1);
    assert_eq!(report.peers, usize::from(seen(&state, &peer).is_some()));
    if let Some(peer) = seen(&state, &peer) {
        assert_bounds(&peer, config);
    }

    let first = written(&state, &peer);
    let (again, report) = load(config, &first);
    let amiss = (
        report.foreign,
        report.undecodable,
        report.local,
        report.refused,
        report.expired,
    );
    assert_eq!(amiss, (0, 0, 0, 0, 0), "{first:?}");
    assert_eq!(report.peers, usize::from(!first.is_empty()));
    let second = written(&again, &peer);
    assert_eq!(first, second);
    if let Some(again) = seen(&again, &peer) {
        let before = seen(&state, &peer).expect("it was written");
        assert_same(&before, &again);
    }
}

fn assert_bounds(peer: &Peer, config: &Config) {
    assert!(peer.addresses.len() <= config.max_addresses_per_peer().get());
    for (n, info) in peer.addresses.iter().enumerate() {
        assert!(!info.address.is_empty());
        assert!(info.address.len() <= config.max_address_len().get());
        assert!((0.0..=1.0).contains(&info.confidence));
        let mut before = peer.addresses[..n].iter();
        assert!(before.all(|other| other.address != info.address));
    }
    assert!(peer.protocols.len() <= config.max_protocols_per_peer().get());
    for (n, name) in peer.protocols.iter().enumerate() {
        assert!(name.as_ref().len() <= config.max_protocol_len().get());
        assert!(!peer.protocols[..n].contains(name));
    }
    assert!(peer.metadata.len() <= config.max_metadata_per_peer().get());
    for (name, value) in &peer.metadata {
        assert!(name.len() <= config.max_metadata_key_len().get());
        assert!(value.len() <= config.max_metadata_value_len().get());
    }
    assert!(peer.tags.len() <= config.max_tags_per_peer().get());
    for (name, tag) in &peer.tags {
        assert!(name.len() <= config.max_tag_name_len().get());
        assert!(tag.value <= crate::MAX_TAG_VALUE);
    }
    if let Some(record) = &peer.signed_record {
        assert!(record.envelope.len() <= config.max_signed_record_len().get());
    }
}

fn assert_same(before: &Peer, again: &Peer) {
    let addresses = |peer: &Peer| {
        let kept = peer.addresses.iter();
        let kept = kept.filter(|info| info.sources != crate::Sources::INBOUND);
        let mut kept: Vec<_> = kept
            .map(|info| {
                (
                    info.address.clone(),
                    (info.sources, info.standing, info.successes, info.failures),
                    (info.first_heard, info.last_heard, info.expires),
                    (info.last_success, info.last_failure),
                )
            })
            .collect();
        kept.sort_by(|a, b| a.0.cmp(&b.0));
        kept
    };
    assert_eq!(addresses(before), addresses(again));
    assert_eq!(before.protocols, again.protocols);
    assert_eq!(before.public_key, again.public_key);
    assert_eq!(before.metadata, again.metadata);
    assert_eq!(before.tags, again.tags);
    assert_eq!(before.signed_record, again.signed_record);
    // Alone it is nothing that is kept.
    if !again.addresses.is_empty() || !again.tags.is_empty() {
        assert_eq!(before.latency, again.latency);
    }
}

fn public_key(config: &Arc<Config>, value: &[u8]) {
    let other = key_pair().public().to_peer_id();
    let known = codec::decode_public_key(value, &other);
    assert!(known.is_err() || known.is_ok_and(|key| key.to_peer_id() == other));
    let peer = match PublicKey::try_decode_protobuf(value) {
        Ok(key) => {
            let peer = key.to_peer_id();
            let encoded = codec::encode_public_key(&key);
            let decoded = codec::decode_public_key(&encoded, &peer).expect("it was a key before");
            assert_eq!(decoded, key);
            peer
        }
        Err(_) => other,
    };
    stays(
        config,
        peer,
        vec![(key::public_key(&key::b32(&peer)), value.to_vec())],
    );
}

/// Several values, each behind the length of its name and its own.
fn metadata(config: &Arc<Config>, peer: PeerId, mut rest: &[u8]) {
    let b32 = key::b32(&peer);
    let mut entries = std::collections::BTreeMap::new();
    while let Some(([name, len], after)) = rest.split_first_chunk() {
        let (name, after) = after.split_at(after.len().min(usize::from(*name)));
        let (value, after) = after.split_at(after.len().min(usize::from(*len)));
        rest = after;
        let name = String::from_utf8_lossy(name);
        if !name.is_empty() {
            entries.insert(key::metadata(&b32, &name), value.to_vec());
        }
    }
    stays(config, peer, entries.into_iter().collect());
}

/// An envelope from anywhere: whatever it is, nothing is taken whose signature does not hold.
fn envelope(config: &Arc<Config>, value: &[u8]) {
    let Ok(envelope) = SignedEnvelope::from_protobuf_encoding(value) else {
        return;
    };
    let encoded = envelope.clone().into_protobuf_encoding();
    let again = SignedEnvelope::from_protobuf_encoding(&encoded);
    assert_eq!(again.expect("it was an envelope before"), envelope);
    taken(config, envelope);
}

/// A record that is really signed, whatever it says: in either format, or with the domain of one and the type of the
/// other.
fn signed(config: &Arc<Config>, value: &[u8]) {
    let ([form, seq], rest) = value.split_first_chunk().unwrap_or((&[0, 0], &[]));
    let payload = if form & 4 == 0 {
        payload(u64::from(*seq).wrapping_sub(9), rest)
    } else {
        rest.to_vec()
    };
    let domains = ["libp2p-peer-record", "libp2p-routing-state"];
    let types: [&[u8]; 2] = [&[3, 1], b"/libp2p/routing-state-record"];
    let (domain, kind) = (
        domains[usize::from(form & 1)],
        types[usize::from(form & 2) / 2],
    );
    let envelope = SignedEnvelope::new(key_pair(), domain.to_owned(), kind.to_vec(), payload);
    taken(config, envelope.expect("a signature"));
}

/// A peer record: its addresses each behind their length.
fn payload(seq: u64, mut rest: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    let peer = key_pair().public().to_peer_id().to_bytes();
    encoding::bytes::encode(1, &peer, &mut payload);
    encoding::uint64::encode(2, &seq, &mut payload);
    while let Some((len, after)) = rest.split_first() {
        let (address, after) = after.split_at(after.len().min(usize::from(*len)));
        rest = after;
        let mut message = Vec::new();
        encoding::bytes::encode(1, &address.to_vec(), &mut message);
        encoding::bytes::encode(3, &message, &mut payload);
    }
    payload
}

/// What is taken holds by itself, says what the store says of it, and is there after a restart.
fn taken(config: &Arc<Config>, envelope: SignedEnvelope) {
    let store = PeerStore::in_memory(other_peer(), (**config).clone());
    let peer = key_pair().public().to_peer_id();
    // Beside the peer's own list it adds nothing.
    let mut learned = store.learned(Source::Identify);
    assert!(!learned.certify_by_record(peer, &envelope).changed);
    assert!(store.is_empty());
    let accepted = match store.consume_peer_record(envelope.clone()) {
        Ok(accepted) => accepted,
        Err(error) => {
            assert!(store.refusals().total() > 0, "{error}");
            assert!(store.is_empty());
            return;
        }
    };
    assert!(!accepted.repeated);
    let record = match accepted.format {
        RecordFormat::Interop => PeerRecord::from_signed_envelope_interop(envelope.clone()),
        RecordFormat::Legacy => PeerRecord::from_signed_envelope(envelope.clone()),
    };
    let record = record.expect("it was accepted");
    assert_eq!(
        (record.peer_id(), record.seq()),
        (accepted.peer, accepted.seq)
    );
    let held = store
        .signed_peer_record(&accepted.peer)
        .expect("it was taken");
    assert_eq!((held.seq, held.format), (accepted.seq, accepted.format));
    assert_eq!(held.to_signed_envelope().expect("an envelope"), envelope);
    let peer = store.get(&accepted.peer).expect("it was taken");
    assert_bounds(&peer, config);
    assert!(peer.addresses.iter().any(|info| info.is_certified()));
    let again = store.consume_peer_record(envelope);
    assert!(again.is_ok_and(|again| again.repeated));

    let entries = store
        .inner()
        .read(|state, _| written(state, &accepted.peer));
    let (state, report) = load(config, &entries);
    assert_eq!(
        (report.peers, report.refused, report.undecodable),
        (1, 0, 0)
    );
    let store = PeerStore::new(Inner::new(state, report, NOW.to_system_time()));
    let kept = store.signed_peer_record(&accepted.peer);
    assert_eq!(kept.as_ref(), Some(&held), "its signature still holds");
}

fn other_peer() -> PeerId {
    static PEER: OnceLock<PeerId> = OnceLock::new();
    *PEER.get_or_init(|| {
        Keypair::ed25519_from_bytes([8; 32])
            .expect("a key")
            .public()
            .to_peer_id()
    })
}
