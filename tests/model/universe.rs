//! Everything that a run can be about: few peers, few addresses, few names, so that they meet often. What the
//! documentation says about an address stands beside it in a table, so that the model computes nothing.

use std::{str::FromStr, sync::OnceLock};

use libp2p_core::{Multiaddr, multiaddr::Protocol, multihash::Multihash};
use libp2p_identity::{PeerId, PublicKey};

use super::support;

// --- peers -------------------------------------------------------------------------------------------------

/// How many peers there are beside the local one.
pub const PEERS: u8 = 9;

/// Where the local peer stands among the peers: it is never stored.
pub const LOCAL: u8 = PEERS;

/// One of the peers. The first has a key that its id contains, the next two one that it does not.
pub fn peer(n: u8) -> PeerId {
    static ALL: OnceLock<Vec<PeerId>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let hashed = |n: u8| {
            let hash = Multihash::wrap(0x12, &[n; 32]).unwrap();
            PeerId::from_multihash(hash).unwrap()
        };
        let mut all: Vec<PeerId> = (0..3).map(|n| key(n).to_peer_id()).collect();
        all.extend((3..PEERS).map(hashed));
        all.push(support::peer(support::LOCAL));
        all
    });
    all[usize::from(n.min(LOCAL))]
}

/// All peers, the local one last.
pub fn peers() -> impl Iterator<Item = PeerId> {
    (0..=LOCAL).map(peer)
}

/// The keys of the first peers.
pub fn key(n: u8) -> PublicKey {
    static ALL: OnceLock<[PublicKey; 3]> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let other = include_bytes!(
            "../data/js-libp2p-0.30/store/peers/keys/bafzbeic6ccufyvku3uggjut2yydwqquwpx5mzdwsl3b5l253wqhp5wuuqm.data"
        );
        let other = PublicKey::try_decode_protobuf(other).unwrap();
        [support::key(1), support::rsa_key(), other]
    });
    all[usize::from(n % 3)].clone()
}

/// The key that an id contains: only the first peer and the local one have such ids.
pub fn inlined_key(id: &PeerId) -> Option<PublicKey> {
    match *id {
        id if id == peer(0) => Some(key(0)),
        id if id == peer(LOCAL) => {
            static LOCALS: OnceLock<PublicKey> = OnceLock::new();
            let key = LOCALS.get_or_init(|| support::key(support::LOCAL));
            Some(key.clone())
        }
        _ => None,
    }
}

// --- addresses ---------------------------------------------------------------------------------------------

/// From where an address means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    Machine,
    Local,
    Public,
}

/// Parts of the network that work or fail together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Ip4,
    Ip6,
    Private,
    Relay,
}

/// One address, and what is to be known about it.
#[derive(Debug, Clone)]
pub struct Place {
    pub address: Multiaddr,
    pub reach: Reach,
    pub scope: Scope,
    /// The IPv4 address or IPv6 /64 at which a direct connection would end.
    pub spot: Option<&'static str>,
    /// A DNS name, of which a dial asks a server.
    pub name: Option<Name>,
    /// Whether js-libp2p 0.30 knows all of it. What it does not know is stored behind the rest.
    pub known_to_js: bool,
}

/// What a DNS name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// An IP address.
    Host,
    /// Whatever its owner says.
    Dnsaddr,
}

pub const PLACES: u8 = 25;

pub fn places() -> &'static [Place] {
    static ALL: OnceLock<Vec<Place>> = OnceLock::new();
    ALL.get_or_init(|| {
        let relay = peer(8);
        let name = |len: usize| format!("/dns/{}", "a".repeat(len));
        let through_relay = format!("/ip4/203.0.113.1/tcp/4001/p2p/{relay}/p2p-circuit");
        let (one, six) = (Some("203.0.113.1"), Some("2001:db8:0:1::/64"));
        use Reach::*;
        use Scope::*;
        let mut all = vec![
            place("/ip4/203.0.113.1/tcp/4001", Public, Ip4, one),
            place("/ip4/203.0.113.1/udp/4001/quic-v1", Public, Ip4, one),
            place(
                "/ip4/198.51.100.7/tcp/4001",
                Public,
                Ip4,
                Some("198.51.100.7"),
            ),
            place("/ip6/2001:db8:0:1::1/tcp/4001", Public, Ip6, six),
            place("/ip6/2001:db8:0:1::2/udp/1/quic-v1", Public, Ip6, six),
            place("/ip4/10.0.0.5/tcp/1", Local, Private, None),
            place("/ip4/127.0.0.1/tcp/1", Machine, Private, None),
            place("/dns4/boot.example.org/tcp/443", Public, Ip4, None),
            place(&through_relay, Public, Relay, None),
            place("/memory/7", Machine, Private, None),
            // 127, 128 and 200 bytes long.
            place(&name(125), Public, Ip4, None),
            place(&name(126), Public, Ip4, None),
            place(&name(197), Public, Ip4, None),
        ];
        // The fourteenth is the one that a filter does not admit.
        for port in 13..19 {
            let text = format!("/ip4/192.0.2.1/tcp/{port}");
            all.push(place(&text, Public, Ip4, Some("192.0.2.1")));
        }
        for (n, spot) in [
            "192.0.2.20",
            "192.0.2.21",
            "192.0.2.22",
            "192.0.2.23",
            "192.0.2.24",
        ]
        .into_iter()
        .enumerate()
        {
            all.push(place(
                &format!("/ip4/{spot}/tcp/{n}"),
                Public,
                Ip4,
                Some(spot),
            ));
        }
        all.push(place("/dnsaddr/boot.example.org", Public, Ip4, None));
        for n in [1, 4, 9] {
            all[n].known_to_js = false;
        }
        for n in [7, 10, 11, 12] {
            all[n].name = Some(Name::Host);
        }
        all[24].name = Some(Name::Dnsaddr);
        assert_eq!(all.len(), usize::from(PLACES));
        assert_eq!(
            [10, 11, 12].map(|n: usize| all[n].address.len()),
            [127, 128, 200]
        );
        all
    })
}

fn place(text: &str, reach: Reach, scope: Scope, spot: Option<&'static str>) -> Place {
    let address = Multiaddr::from_str(text).unwrap();
    Place {
        address,
        reach,
        scope,
        spot,
        name: None,
        known_to_js: true,
    }
}

/// What is to be known about an address, with `/p2p/<peer>` at its end or without.
pub fn about(address: &Multiaddr) -> &'static Place {
    let mut bare = address.clone();
    loop {
        if let Some(place) = places().iter().find(|place| place.address == bare) {
            return place;
        }
        assert!(matches!(bare.pop(), Some(Protocol::P2p(_))), "{address}");
    }
}

/// What a filter of a run admits.
pub fn is_admitted(address: &Multiaddr) -> bool {
    !address.to_string().contains("/tcp/14")
}

// --- names -------------------------------------------------------------------------------------------------

pub const PROTOCOLS: u8 = 8;

/// A protocol name; the last three are not fit to be one.
pub fn protocol(n: u8) -> String {
    match n % (PROTOCOLS + 3) {
        8 => "no-slash".to_owned(),
        9 => String::new(),
        10 => format!("/{}", "x".repeat(256)),
        n => format!("/protocol/{n}"),
    }
}

pub const METADATA_KEYS: u8 = 6;

/// A metadata key: first the two of identify; the last two are not fit to be one.
pub fn metadata_key(n: u8) -> String {
    match n % (METADATA_KEYS + 2) {
        0 => libp2p_peerstore::AGENT_VERSION.to_owned(),
        1 => libp2p_peerstore::PROTOCOL_VERSION.to_owned(),
        2 => "a".to_owned(),
        3 => "a/b/c".to_owned(),
        4 => "é".to_owned(),
        5 => "agentversion".to_owned(),
        6 => String::new(),
        _ => "k".repeat(257),
    }
}

pub fn metadata_value(n: u8) -> Vec<u8> {
    match n {
        250.. => vec![n; 4_097],
        n => vec![n % 3; usize::from(n % 4)],
    }
}

pub const TAGS: u8 = 3;

/// The name of a tag; the last two are not fit to be one.
pub fn tag(n: u8) -> String {
    match n % (TAGS + 2) {
        0 => "keep".to_owned(),
        1 => "ü / 2".to_owned(),
        2 => "x".to_owned(),
        3 => String::new(),
        _ => "t".repeat(129),
    }
}
