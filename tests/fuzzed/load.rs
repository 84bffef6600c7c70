//! A store is opened on a datastore that holds anything. What it takes is within its limits, its report adds up, and
//! what it writes of it is read as the same.

mod bytes;
#[path = "../support/wire.rs"]
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use libp2p_core::{Multiaddr, SignedEnvelope, multihash::Multihash};
use libp2p_identity::{Keypair, PeerId, PublicKey};
use libp2p_peerstore::{
    Batch, Config, Datastore, DatastoreError, FlushError, KeyValue, MAX_TAG_VALUE, MemoryDatastore,
    Peer, PeerStore, Sources, testing::ManualExecutor,
};

use self::{
    bytes::Bytes,
    wire::{bytes_field, varint_field},
};

/// When [`ManualExecutor`] begins.
const NOW: u64 = 1_735_689_600;

/// Opens a store on what the bytes say.
///
/// # Panics
///
/// When the store holds more than it may, counts otherwise than there is, or writes what is read as something else.
pub fn run(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let mut executor = ManualExecutor::default();
    let config = config(executor.config(), &mut bytes);
    let mut entries = BTreeMap::new();
    let mut ours = BTreeMap::new();
    while !bytes.is_empty() {
        let (key, value, peer) = entry(&mut bytes);
        if let Some(peer) = peer {
            ours.insert(key.clone(), peer);
        }
        entries.insert(key, value);
    }
    let datastore = MemoryDatastore::default();
    write(&datastore, &entries);

    let first = open(&mut executor, datastore.clone(), &config);
    assert_report(&first.store, &entries, &ours);
    assert_bounds(&first.store, &config);
    assert_eq!(
        datastore.entries(),
        entries.clone().into_iter().collect::<Vec<_>>()
    );

    let written = first.write_back(&mut executor);
    let second = open(&mut executor, written.clone(), &config);
    let report = second.store.load_report();
    let amiss = [
        report.foreign,
        report.undecodable,
        report.local,
        report.refused,
        report.expired,
        report.left_on_disk,
    ];
    assert_eq!((report.entries, amiss), (written.len(), [0; 6]));
    assert_eq!(
        second.write_back(&mut executor).entries(),
        written.entries()
    );
    // At the end: it checks signatures, and what they do not cover goes.
    assert_same(&first.store, &second.store);
}

// --- what is in the datastore -------------------------------------------------------------------------------------

fn config(config: Config, bytes: &mut Bytes<'_>) -> Config {
    let size = |n: usize| NonZeroUsize::new(n).unwrap();
    let limits = bytes.next();
    let mut config = config;
    if limits & 1 != 0 {
        config = config.with_max_peers(size(1 + bytes.below(4)));
    }
    if limits & 2 != 0 {
        config = config
            .with_max_addresses_per_peer(size(1 + bytes.below(3)))
            .with_max_address_len(size(8 + bytes.below(16)));
    }
    if limits & 4 != 0 {
        config = config
            .with_max_protocols_per_peer(size(2))
            .with_max_protocol_len(size(8))
            .with_max_metadata_per_peer(size(1))
            .with_max_metadata_key_len(size(6))
            .with_max_metadata_value_len(size(4));
    }
    if limits & 8 != 0 {
        config = config
            .with_max_tags_per_peer(size(2))
            .with_max_tag_name_len(size(4))
            .with_max_signed_record_len(size(180));
    }
    config
}

/// An entry, and of whom it is if its key is one that this crate writes for sure.
fn entry(bytes: &mut Bytes<'_>) -> (String, Vec<u8>, Option<PeerId>) {
    let who = bytes.below(PEERS);
    let (peer, b32) = &peers()[who];
    match bytes.next() % 16 {
        0..=5 => (
            format!("/peers/addrs/{b32}"),
            addresses(bytes, who),
            Some(*peer),
        ),
        6..=8 => (
            format!("/peers/protos/{b32}"),
            protocols(bytes),
            Some(*peer),
        ),
        9..=10 => (
            format!("/peers/keys/{b32}"),
            public_key(bytes, who),
            Some(*peer),
        ),
        11..=13 => {
            let names = ["AgentVersion", "ProtocolVersion", "a/b", "k"];
            let name = match bytes.below(6) {
                n @ 0..4 => names[n].to_owned(),
                _ => bytes.text(20),
            };
            let known = (!name.is_empty()).then_some(*peer);
            let key = format!("/peers/metadata/{b32}/{name}");
            (key, bytes.some(40).to_vec(), known)
        }
        14 => (
            format!("/peers/{}", bytes.text(40)),
            bytes.some(8).to_vec(),
            None,
        ),
        _ => {
            // Another spelling of a peer, or more behind it.
            let spelt = match bytes.below(3) {
                0 => b32.to_uppercase(),
                1 => peer.to_base58(),
                _ => format!("{b32}{}", bytes.text(3)),
            };
            let book = bytes.pick(&["addrs", "protos", "keys", "metadata"]);
            (
                format!("/peers/{book}/{spelt}"),
                bytes.some(8).to_vec(),
                None,
            )
        }
    }
}

fn addresses(bytes: &mut Bytes<'_>, who: usize) -> Vec<u8> {
    let mut value = Vec::new();
    let fields = bytes.next();
    if fields == 0 {
        return bytes.some(255).to_vec();
    }
    for _ in 0..fields % 8 {
        let field = match bytes.next() % 16 {
            n @ 0..=6 => bytes_field(if n < 4 { 1 } else { 17 }, &address(bytes, who)),
            7..=8 => bytes_field(18, &tag(bytes)),
            9 => varint_field(19, bytes.number()),
            10 => varint_field(21, time(bytes)),
            11 => {
                let record = [
                    varint_field(1, bytes.number()),
                    bytes_field(2, &envelope(bytes)),
                ];
                bytes_field(bytes.pick(&[2, 20]), &record.concat())
            }
            12 => varint_field(22, bytes.number()),
            13 => bytes_field(23, &learnt(bytes)),
            14 => bytes_field(
                16,
                &[varint_field(1, 1), varint_field(2, time(bytes))].concat(),
            ),
            _ => bytes_field(40 + u64::from(bytes.next()), bytes.some(8)),
        };
        value.extend(field);
    }
    value
}

fn address(bytes: &mut Bytes<'_>, who: usize) -> Vec<u8> {
    let mut multiaddr = match bytes.next() {
        n @ 0..200 => multiaddrs()[usize::from(n) % multiaddrs().len()].to_vec(),
        _ => bytes.some(24).to_vec(),
    };
    if bytes.next() % 8 == 0 {
        // js-libp2p stores some so.
        let id = peers()[who].0.to_bytes();
        multiaddr.extend([0xa5, 3, id.len() as u8]);
        multiaddr.extend(id);
    }
    let mut message = bytes_field(1, &multiaddr);
    let parts = bytes.next();
    if parts & 1 != 0 {
        message.extend(varint_field(2, u64::from(parts & 2 != 0)));
    }
    if parts & 4 != 0 {
        message.extend(bytes_field(16, &history(bytes)));
    }
    if parts & 8 != 0 {
        message.extend(bytes_field(30, bytes.some(4)));
    }
    message
}

fn history(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let sources = u64::from(u16::from_le_bytes([bytes.next(), bytes.next()]));
    let mut history = varint_field(1, sources);
    for field in [2, 3] {
        history.extend(varint_field(field, time(bytes)));
    }
    let parts = bytes.next();
    for (bit, field) in [(1, 4), (2, 5), (4, 9)] {
        if parts & bit != 0 {
            history.extend(varint_field(field, time(bytes)));
        }
    }
    for (bit, field) in [(8, 6), (16, 7), (32, 8), (64, 10)] {
        if parts & bit != 0 {
            history.extend(varint_field(field, u64::from(bytes.next()) * 2));
        }
    }
    history
}

fn tag(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let mut tag = bytes_field(1, bytes.text(6).as_bytes());
    tag.extend(varint_field(2, u64::from(bytes.next() % 104)));
    if bytes.coin() {
        tag.extend(varint_field(3, time(bytes)));
    }
    if bytes.next() % 4 == 1 {
        tag.extend(varint_field(9, bytes.number()));
    }
    tag
}

fn learnt(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let mut learnt = Vec::new();
    for field in [1, 2] {
        let count = if bytes.next() == 0 { 3 } else { 4 };
        let floats = (0..count).flat_map(|_| {
            let value = f32::from(bytes.next()) * if field == 1 { 0.5 } else { 1.2 };
            let odd = [f32::NAN, f32::INFINITY, -1.0];
            let value = odd
                .get(usize::from(bytes.next() / 8))
                .copied()
                .unwrap_or(value);
            value.to_le_bytes()
        });
        learnt.extend(bytes_field(field, &floats.collect::<Vec<_>>()));
    }
    learnt.extend(varint_field(3, time(bytes)));
    learnt
}

fn protocols(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let fields = bytes.next();
    if fields == 0 {
        return bytes.some(255).to_vec();
    }
    let mut value = Vec::new();
    for _ in 0..fields % 8 {
        let names = ["/a", "/b/1.0.0", "/ipfs/id/1.0.0", "no slash", ""];
        let field = match bytes.next() % 8 {
            0..=3 => bytes_field(1, bytes.pick(&names).as_bytes()),
            4 => bytes_field(1, bytes.some(12)),
            5 => bytes_field(
                16,
                &[varint_field(1, 1), varint_field(2, time(bytes))].concat(),
            ),
            6 => varint_field(17, bytes.number()),
            _ => bytes_field(40, bytes.some(8)),
        };
        value.extend(field);
    }
    value
}

fn public_key(bytes: &mut Bytes<'_>, who: usize) -> Vec<u8> {
    match bytes.next() % 4 {
        0 => bytes.some(80).to_vec(),
        1 => key(who + 1).encode_protobuf(),
        _ => key(who).encode_protobuf(),
    }
}

/// Long ago, yesterday, just now, and to come.
fn time(bytes: &mut Bytes<'_>) -> u64 {
    const AGES: [u64; 12] = [
        0, 1, 63, 64, 900, 3_600, 28_800, 86_400, 604_800, 1_209_600, 31_536_000, NOW,
    ];
    match bytes.next() {
        n @ 0..192 => NOW - AGES[usize::from(n) % AGES.len()],
        n @ 192..240 => NOW + AGES[usize::from(n) % AGES.len()],
        _ => bytes.number(),
    }
}

fn envelope(bytes: &mut Bytes<'_>) -> Vec<u8> {
    match bytes.next() {
        n @ 0..200 => envelopes()[usize::from(n) % envelopes().len()].clone(),
        _ => bytes.some(80).to_vec(),
    }
}

// --- who and what there is ----------------------------------------------------------------------------------------

/// How many peers there are. The last one is the local one.
const PEERS: u8 = 7;

/// The peers, and how keys of the datastore spell them.
fn peers() -> &'static [(PeerId, String)] {
    static PEERS_: OnceLock<Vec<(PeerId, String)>> = OnceLock::new();
    PEERS_.get_or_init(|| {
        let hashed = |n: u8| {
            let hash = Multihash::wrap(0x12, &[n; 32]).unwrap();
            PeerId::from_multihash(hash).unwrap()
        };
        let keys = (0..4).map(|n| key(n).to_peer_id());
        let ids = keys.chain([hashed(1), hashed(2), key(5).to_peer_id()]);
        let spelt = ids.map(|id| {
            let cid = [&[1, 0x72], &id.to_bytes()[..]].concat();
            let b32 = data_encoding::BASE32_NOPAD.encode(&cid);
            (id, format!("b{}", b32.to_lowercase()))
        });
        let all: Vec<_> = spelt.collect();
        assert_eq!(all.len(), usize::from(PEERS));
        all
    })
}

fn local() -> PeerId {
    peers()[usize::from(PEERS) - 1].0
}

fn key_pair(n: usize) -> Keypair {
    Keypair::ed25519_from_bytes([n as u8 + 1; 32]).unwrap()
}

/// The fourth is one that an id does not contain.
fn key(n: usize) -> PublicKey {
    static KEYS: OnceLock<Vec<PublicKey>> = OnceLock::new();
    let all = KEYS.get_or_init(|| {
        let mut all: Vec<_> = (0..6).map(|n| key_pair(n).public()).collect();
        all[3] = PublicKey::try_decode_protobuf(include_bytes!(
            "../data/js-libp2p-0.30/store/peers/keys/bafzbeib62xhk572yyxtefinkot2llam6lkjlc4hnogkh52an7b3tllophi.data"
        ))
        .unwrap();
        all
    });
    all[n % all.len()].clone()
}

fn multiaddrs() -> &'static [Multiaddr] {
    static ALL: OnceLock<Vec<Multiaddr>> = OnceLock::new();
    ALL.get_or_init(|| {
        let relay = peers()[4].0;
        let through = format!("/ip4/203.0.113.1/tcp/4001/p2p/{relay}/p2p-circuit");
        [
            "/ip4/203.0.113.1/tcp/4001",
            "/ip4/203.0.113.1/udp/4001/quic-v1",
            "/ip4/198.51.100.7/tcp/4001",
            "/ip6/2001:db8:0:1::1/tcp/4001",
            "/ip4/10.0.0.5/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
            "/dns4/boot.example.org/tcp/443/wss",
            "/dnsaddr/example.org",
            &through,
            "/memory/7",
            "/ip4/203.0.113.9/tcp/1/x-parity-ws/%2fpath",
            "/unix/a%2fb",
        ]
        .into_iter()
        .map(|text| text.parse().unwrap())
        .collect()
    })
}

/// Envelopes of two peers in both formats, of which one is forged.
fn envelopes() -> &'static [Vec<u8>] {
    static ALL: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    ALL.get_or_init(|| {
        let formats: [(&str, &[u8]); 2] = [
            ("libp2p-peer-record", &[3, 1]),
            ("libp2p-routing-state", b"/libp2p/routing-state-record"),
        ];
        let mut all = Vec::new();
        for who in 0..2 {
            for (domain, kind) in formats {
                let mut payload = bytes_field(1, &peers()[who].0.to_bytes());
                payload.extend(varint_field(2, 3));
                for address in &multiaddrs()[..2] {
                    payload.extend(bytes_field(3, &bytes_field(1, &address.to_vec())));
                }
                let signed =
                    SignedEnvelope::new(&key_pair(who), domain.to_owned(), kind.to_vec(), payload);
                all.push(signed.unwrap().into_protobuf_encoding());
            }
        }
        *all[1].last_mut().unwrap() ^= 1;
        all
    })
}

// --- stores -------------------------------------------------------------------------------------------------------

/// A datastore that is found empty by the first commit, as if it had been replaced: then everything is written.
#[derive(Clone)]
struct Replaced {
    before: MemoryDatastore,
    after: MemoryDatastore,
    found: std::sync::Arc<AtomicBool>,
}

impl Replaced {
    fn current(&self) -> &MemoryDatastore {
        match self.found.load(Ordering::Relaxed) {
            false => &self.before,
            true => &self.after,
        }
    }
}

impl Datastore for Replaced {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        self.current().get(key)
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        self.current().query(prefix).boxed()
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        if !self.found.swap(true, Ordering::Relaxed) {
            let location = "memory".to_owned();
            return futures::future::ready(Err(DatastoreError::Lost { location })).boxed();
        }
        self.after.commit(batch)
    }
}

struct Opened {
    store: PeerStore,
    datastore: Replaced,
}

fn open(executor: &mut ManualExecutor, before: MemoryDatastore, config: &Config) -> Opened {
    let datastore = Replaced {
        before,
        after: MemoryDatastore::default(),
        found: Default::default(),
    };
    let open = PeerStore::open(local(), datastore.clone(), config.clone());
    let store = executor.block_on(open).unwrap();
    Opened { store, datastore }
}

impl Opened {
    /// Lets the store write all that it holds, into a datastore that is empty.
    fn write_back(&self, executor: &mut ManualExecutor) -> MemoryDatastore {
        // Of whom nothing is known, and there is something to commit.
        self.store.delete(&key(4).to_peer_id());
        let found = executor.block_on(self.store.flush());
        assert!(matches!(found, Err(FlushError::Failed { .. })), "{found:?}");
        executor.block_on(self.store.flush()).unwrap();
        assert_eq!(self.store.unsaved(), 0);
        self.datastore.after.clone()
    }
}

fn write(datastore: &MemoryDatastore, entries: &BTreeMap<String, Vec<u8>>) {
    let mut batch = Batch::default();
    for (key, value) in entries {
        batch.put(key, value.clone());
    }
    datastore.commit(batch).now_or_never().unwrap().unwrap();
}

// --- what must hold -----------------------------------------------------------------------------------------------

/// The report counts each entry once, and each peer.
fn assert_report(
    store: &PeerStore,
    entries: &BTreeMap<String, Vec<u8>>,
    ours: &BTreeMap<String, PeerId>,
) {
    let report = store.load_report();
    assert_eq!(report.entries, entries.len());
    let known = ours.values().filter(|peer| **peer != local()).count();
    let others = entries.len() - ours.len();
    assert!(report.foreign <= others, "{report:?}");
    let locals = ours.len() - known;
    assert!(
        (locals..=locals + others).contains(&report.local),
        "{report:?}"
    );
    let decoded = report.entries - report.foreign - report.local;
    assert!(report.undecodable <= decoded, "{report:?}");
    let peers: BTreeSet<_> = ours.values().filter(|peer| **peer != local()).collect();
    let found = report.peers + report.expired;
    assert!(found <= decoded - report.undecodable, "{report:?}");
    assert!(report.peers <= peers.len() + others, "{report:?}");
    assert_eq!(report.peers, store.len());
    assert_eq!(store.peer_ids().len(), store.len());
}

fn assert_bounds(store: &PeerStore, config: &Config) {
    assert!(store.len() <= config.max_peers().get());
    for peer in store.peers() {
        assert_ne!(peer.id, local());
        assert!(peer.addresses.len() <= config.max_addresses_per_peer().get());
        let mut addresses = BTreeSet::new();
        for info in &peer.addresses {
            assert!(info.address.len() <= config.max_address_len().get());
            assert!((0.0..=1.0).contains(&info.confidence));
            assert!(addresses.insert(&info.address), "{peer:?}");
            let own = libp2p_core::multiaddr::Protocol::P2p(peer.id);
            assert_ne!(info.address.iter().last(), Some(own));
        }
        let names: BTreeSet<&str> = peer.protocols.iter().map(AsRef::as_ref).collect();
        assert_eq!(names.len(), peer.protocols.len());
        assert!(names.len() <= config.max_protocols_per_peer().get());
        for name in names {
            assert!(name.len() <= config.max_protocol_len().get());
            assert!(store.peers_supporting(name).contains(&peer.id));
        }
        assert!(peer.metadata.len() <= config.max_metadata_per_peer().get());
        for (name, value) in &peer.metadata {
            assert!((1..=config.max_metadata_key_len().get()).contains(&name.len()));
            assert!(value.len() <= config.max_metadata_value_len().get());
        }
        assert!(peer.tags.len() <= config.max_tags_per_peer().get());
        for (name, tag) in &peer.tags {
            assert!((1..=config.max_tag_name_len().get()).contains(&name.len()));
            assert!(tag.value <= MAX_TAG_VALUE);
        }
        if let Some(record) = &peer.signed_record {
            assert!(record.envelope.len() <= config.max_signed_record_len().get());
        }
        if let Some(key) = &peer.public_key {
            assert_eq!(key.to_peer_id(), peer.id);
        }
    }
}

/// What was written is there again, and everything was written that is worth it: not what only came in.
fn assert_same(first: &PeerStore, second: &PeerStore) {
    let again: BTreeMap<PeerId, Peer> = second
        .peers()
        .into_iter()
        .map(|peer| (peer.id, peer))
        .collect();
    let mut met = 0;
    for peer in first.peers() {
        let addresses = kept(&peer);
        let Some(again) = again.get(&peer.id) else {
            let is_inlined = first.keys().get(&peer.id).is_none()
                || peers()[..3].iter().any(|(id, _)| *id == peer.id)
                || peer.public_key.is_none();
            let nothing = addresses.is_empty()
                && peer.protocols.is_empty()
                && peer.metadata.is_empty()
                && peer.tags.is_empty();
            assert!(nothing && is_inlined, "{peer:?} was not written");
            continue;
        };
        met += 1;
        assert_eq!(addresses, kept(again));
        assert_eq!(peer.protocols, again.protocols);
        assert_eq!(peer.public_key, again.public_key);
        assert_eq!(peer.metadata, again.metadata);
        assert_eq!(peer.tags, again.tags);
        assert_eq!(peer.signed_record, again.signed_record);
        // Alone it is nothing that is kept.
        if !addresses.is_empty() || !peer.tags.is_empty() {
            assert_eq!(peer.latency, again.latency);
        }
        let signed = first.signed_peer_record(&peer.id);
        assert_eq!(signed, second.signed_peer_record(&peer.id));
    }
    assert_eq!(met, again.len());
}

/// The addresses that are kept, in an order that does not depend on how confident the store is in them.
fn kept(peer: &Peer) -> BTreeMap<Multiaddr, impl PartialEq + std::fmt::Debug + use<>> {
    let kept = peer.addresses.iter();
    let kept = kept.filter(|info| info.sources != Sources::INBOUND);
    kept.map(|info| {
        let heard = (info.first_heard, info.last_heard, info.expires);
        let dialled = (info.last_success, info.last_failure);
        let counts = (info.sources, info.standing, info.successes, info.failures);
        (info.address.clone(), (counts, heard, dialled))
    })
    .collect()
}
