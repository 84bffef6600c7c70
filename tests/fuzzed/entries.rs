//! What a datastore may hold, made of bytes: now and then what this crate or js-libp2p writes, else anything.

use std::{num::NonZeroUsize, sync::OnceLock};

use libp2p_core::{Multiaddr, SignedEnvelope, multihash::Multihash};
use libp2p_identity::{Keypair, PeerId, PublicKey};
use libp2p_peerstore::Config;

use crate::bytes::Bytes;

use super::wire::{bytes_field, varint_field};

/// When the executor of the tests begins.
const NOW: u64 = 1_735_689_600;

// --- what is in the datastore -------------------------------------------------------------------------------------

pub fn config(config: Config, bytes: &mut Bytes<'_>) -> Config {
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
pub fn entry(bytes: &mut Bytes<'_>) -> (String, Vec<u8>, Option<PeerId>) {
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
    if bytes.next().is_multiple_of(8) {
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
pub fn peers() -> &'static [(PeerId, String)] {
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

pub fn local() -> PeerId {
    peers()[usize::from(PEERS) - 1].0
}

fn key_pair(n: usize) -> Keypair {
    Keypair::ed25519_from_bytes([n as u8 + 1; 32]).unwrap()
}

/// The fourth is one that an id does not contain.
pub fn key(n: usize) -> PublicKey {
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
