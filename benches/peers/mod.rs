//! Peers that look like real ones, the same in every run: what the measurements feed to both stores.
//!
//! A peer is made from its number alone, and everything that it hands out is allocated anew: two stores never
//! share an address, and nothing is left of a peer once it is dropped.

use std::net::{Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, identify,
    identity::{Keypair, PublicKey, rsa},
    multiaddr::Protocol,
    swarm::ConnectionId,
};

const SEED: u64 = 0x7065_6572_7374_6f72;

/// Addresses of each peer.
pub const ADDRESSES: usize = 4;

/// A protocol that one peer in a hundred speaks.
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

/// What comes before the modulus of a 2,048 bit RSA key in its X.509 form.
const RSA_PREFIX: [u8; 33] = [
    0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01,
    0x01, 0x05, 0x00, 0x03, 0x82, 0x01, 0x0f, 0x00, 0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01,
    0x00,
];
/// And after it: the exponent 65,537.
const RSA_SUFFIX: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];

/// One peer.
pub struct Peer {
    pub id: PeerId,
    pub key: PublicKey,
    number: u64,
}

impl Peer {
    /// A peer as nearly all are today: its id contains its key.
    pub fn ed25519(number: u64) -> Self {
        let mut secret = [0; 32];
        random(number).fill(&mut secret);
        let keys = Keypair::ed25519_from_bytes(secret).expect("any 32 bytes are a secret key");
        Self::new(number, keys.public())
    }

    /// A peer whose id is a hash of its key. No secret key belongs to it: nothing is signed here.
    pub fn rsa(number: u64) -> Self {
        let mut modulus = [0; 256];
        random(number).fill(&mut modulus);
        modulus[0] |= 0x80;
        let encoded = [&RSA_PREFIX[..], &modulus, &RSA_SUFFIX].concat();
        let key = rsa::PublicKey::try_decode_x509(&encoded).expect("the encoding of an RSA key");
        Self::new(number, PublicKey::from(key))
    }

    fn new(number: u64, key: PublicKey) -> Self {
        Self {
            id: key.to_peer_id(),
            key,
            number,
        }
    }

    /// IPv4 and IPv6, each with TCP and QUIC, as a public node announces them.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        let mut random = random(!self.number);
        let v4 = Ipv4Addr::from(random.u32(0x0b00_0000..0x7f00_0000));
        let v6 = Ipv6Addr::from((0x2001 << 112) | (random.u128(..) >> 16));
        let port = random.u16(1_024..);
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

    /// The report of identify about this peer: 20 protocols in one of 50 sets, and one of 200 agents.
    pub fn identify(&self) -> identify::Event {
        let agent = self.number % 200;
        // The first set is rare, the others are common.
        let set = match self.number % 100 {
            0 => 0,
            other => 1 + other % 49,
        };
        let common = COMMON_PROTOCOLS.into_iter().map(str::to_owned);
        let own = (0..8).map(|service| format!("/example-{set}/service-{service}/1.0.0"));
        identify::Event::Received {
            connection_id: ConnectionId::new_unchecked(0),
            peer_id: self.id,
            info: identify::Info {
                public_key: self.key.clone(),
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
