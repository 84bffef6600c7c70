//! Peers that look like real ones, the same in every run: what the measurements feed to both stores.
//!
//! A peer is made from its number alone, and everything that it hands out is allocated anew: two stores never
//! share an address, and nothing is left of a peer once it is dropped.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    ops::Range,
    thread,
};

use fastrand::Rng;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, identify,
    identity::{PublicKey, ed25519, rsa},
    multiaddr::Protocol,
    swarm::ConnectionId,
};

const SEED: u64 = 0x7065_6572_7374_6f72;

/// Addresses of each peer.
pub const ADDRESSES: usize = 4;

/// A protocol that only the peers speak which are told so.
pub const RARE_PROTOCOL: &str = "/example-0/service-0/1.0.0";

/// Protocols that every peer speaks; eight more depend on which of 50 sets it has.
const COMMON_PROTOCOLS: [&str; 12] = [
    "/ipfs/id/1.0.0",
    "/ipfs/id/push/1.0.0",
    "/ipfs/ping/1.0.0",
    "/ipfs/kad/1.0.0",
    "/ipfs/lan/kad/1.0.0",
    "/ipfs/bitswap/1.2.0",
    "/libp2p/dcutr",
    "/libp2p/autonat/1.0.0",
    "/libp2p/circuit/relay/0.2.0/hop",
    "/libp2p/circuit/relay/0.2.0/stop",
    "/meshsub/1.1.0",
    "/floodsub/1.0.0",
];

/// What comes before the key in the id of a peer with an ed25519 key: the identity hash of its protobuf form.
const ED25519_ID: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
/// What comes before the modulus of a 2,048 bit RSA key in its X.509 form.
const RSA_PREFIX: [u8; 33] = [
    0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01,
    0x01, 0x05, 0x00, 0x03, 0x82, 0x01, 0x0f, 0x00, 0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01,
    0x00,
];
/// And after it: the exponent 65,537.
const RSA_SUFFIX: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];

/// One peer.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    pub id: PeerId,
    number: u64,
}

impl Peer {
    /// A peer whose id looks as nearly all do today, with 32 bytes that are hardly ever a key. For where none is needed.
    pub fn keyless(number: u64) -> Self {
        let mut bytes = [0; 32];
        random(number).fill(&mut bytes);
        Self::with_ed25519(number, &bytes)
    }

    /// A peer as nearly all are today: its id contains its key. Nobody knows the secret one: nothing is signed here.
    pub fn ed25519(number: u64) -> Self {
        let mut random = random(number);
        loop {
            let mut bytes = [0; 32];
            random.fill(&mut bytes);
            // Every other number is a point of the curve.
            if ed25519::PublicKey::try_from_bytes(&bytes).is_ok() {
                return Self::with_ed25519(number, &bytes);
            }
        }
    }

    /// Many of them, on all cores.
    pub fn many(numbers: Range<u64>) -> Vec<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from) as u64;
        let share = (numbers.end - numbers.start).div_ceil(cores).max(1);
        let starts = numbers.clone().step_by(share as usize);
        let parts = starts.map(|start| start..numbers.end.min(start + share));
        thread::scope(|scope| {
            let make = |part: Range<u64>| scope.spawn(|| part.map(Self::ed25519).collect());
            let parts: Vec<thread::ScopedJoinHandle<'_, Vec<Self>>> = parts.map(make).collect();
            let made = parts.into_iter().map(|part| part.join().expect("no panic"));
            made.flatten().collect()
        })
    }

    fn with_ed25519(number: u64, key: &[u8; 32]) -> Self {
        let bytes = [&ED25519_ID[..], key].concat();
        let id = PeerId::from_bytes(&bytes).expect("the form of such an id");
        Self { id, number }
    }

    /// A peer whose id is a hash of its key, and that key.
    pub fn rsa(number: u64) -> (Self, PublicKey) {
        let mut modulus = [0; 256];
        random(number).fill(&mut modulus);
        modulus[0] |= 0x80;
        let encoded = [&RSA_PREFIX[..], &modulus, &RSA_SUFFIX].concat();
        let key = rsa::PublicKey::try_decode_x509(&encoded).expect("the encoding of an RSA key");
        let key = PublicKey::from(key);
        let id = key.to_peer_id();
        (Self { id, number }, key)
    }

    /// Whether this is one of those that come after each `n` peers.
    pub fn is_one_in(&self, n: u64) -> bool {
        self.number.is_multiple_of(n)
    }

    /// The key that the id of an ed25519 peer contains.
    fn key(&self) -> PublicKey {
        let id = self.id.to_bytes();
        PublicKey::try_decode_protobuf(&id[2..]).expect("made with a key")
    }

    /// IPv4 and IPv6, each with TCP and QUIC, as a public node announces them.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        self.moved_by(0)
    }

    /// The same with another port: what the peer tells after it has moved so far.
    pub fn moved_by(&self, ports: u16) -> Vec<Multiaddr> {
        let mut random = random(!self.number);
        let v4 = Ipv4Addr::from(random.u32(0x0b00_0000..0x7f00_0000));
        let v6 = Ipv6Addr::from((0x2001 << 112) | (random.u128(..) >> 16));
        let port = random.u16(1_024..).wrapping_add(ports);
        [Protocol::from(v4), Protocol::from(v6)]
            .into_iter()
            .flat_map(|ip| {
                let ip = Multiaddr::from(ip);
                let tcp = ip.clone().with(Protocol::Tcp(port));
                let quic = ip.with(Protocol::Udp(port)).with(Protocol::QuicV1);
                [tcp, quic]
            })
            // Copied into a block of its own size, as identify reads one from the wire.
            .map(|address| {
                Multiaddr::try_from(address.to_vec()).expect("it was a multiaddr before")
            })
            .collect()
    }

    /// What identify reports of this ed25519 peer: 20 protocols in one of 50 sets, and one of 200 agents.
    pub fn identify(&self, rare: bool) -> identify::Event {
        self.identify_with(self.key(), rare)
    }

    /// The same of a peer with another key.
    pub fn identify_with(&self, public_key: PublicKey, rare: bool) -> identify::Event {
        let agent = self.number % 200;
        // The first set is rare.
        let set = if rare { 0 } else { 1 + self.number % 49 };
        let common = COMMON_PROTOCOLS.into_iter().map(str::to_owned);
        let own = (0..8).map(|service| format!("/example-{set}/service-{service}/1.0.0"));
        identify::Event::Received {
            connection_id: ConnectionId::new_unchecked(0),
            peer_id: self.id,
            info: identify::Info {
                public_key,
                protocol_version: format!("ipfs/0.{}.0", agent % 4),
                agent_version: format!("example-node/1.{}.{}/linux", agent / 10, agent % 10),
                listen_addrs: self.addresses(),
                protocols: common
                    .chain(own)
                    .map(|name| StreamProtocol::try_from_owned(name).expect("it starts with /"))
                    .collect(),
                observed_addr: Multiaddr::from(Ipv4Addr::LOCALHOST),
                signed_peer_record: None,
            },
        }
    }
}

fn random(number: u64) -> Rng {
    Rng::with_seed(SEED ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
