//! What a swarm, identify and Kademlia can say, made of bytes: few peers, few addresses, so that they meet often, and
//! now and then something that nobody would think of.

use std::{
    convert::Infallible,
    io,
    sync::OnceLock,
    task::{Context, Poll, Waker},
    time::Duration,
};

use libp2p_core::{
    Multiaddr, SignedEnvelope,
    multiaddr::Protocol,
    multihash::Multihash,
    transport::{ListenerId, TransportError},
};
use libp2p_identify as identify;
use libp2p_identity::{Keypair, PeerId, PublicKey};
use libp2p_kad as kad;
use libp2p_swarm::{
    ConnectionDenied, ConnectionId, DialError, ExpiredListenAddr, ExternalAddrExpired, FromSwarm,
    ListenerClosed, ListenerError, NetworkBehaviour, NewListenAddr, StreamProtocol,
    StreamUpgradeError, ToSwarm,
    behaviour::{ExternalAddrConfirmed, NewExternalAddrCandidate, NewListener},
    dial_opts::PeerCondition,
};

use crate::bytes::Bytes;

// --- peers --------------------------------------------------------------------------------------------------------

/// The number of the local peer, after the others.
pub const LOCAL: u8 = 8;

/// One of the peers. The first two have keys that their ids contain, which cost time to compute; the next one has
/// another, and those of the rest are not known.
pub fn peer(n: u8) -> PeerId {
    static ALL: OnceLock<Vec<PeerId>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let hashed = |n: u8| {
            let hash = Multihash::wrap(0x12, &[n; 32]).unwrap();
            PeerId::from_multihash(hash).unwrap()
        };
        let mut all: Vec<PeerId> = [0, 1, 4].map(|n| key(n).to_peer_id()).into();
        all.extend((3..LOCAL).map(hashed));
        all.push(key(5).to_peer_id());
        all
    });
    all[usize::from(n)]
}

pub fn is_inlined(id: &PeerId) -> bool {
    (0..2).any(|n| peer(n) == *id)
}

fn key_pair(n: u8) -> Keypair {
    Keypair::ed25519_from_bytes([n + 1; 32]).unwrap()
}

fn key(n: u8) -> PublicKey {
    static ALL: OnceLock<Vec<PublicKey>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let mut all: Vec<_> = (0..6).map(|n| key_pair(n).public()).collect();
        all[4] = PublicKey::try_decode_protobuf(include_bytes!(
            "../data/js-libp2p-0.30/store/peers/keys/bafzbeib62xhk572yyxtefinkot2llam6lkjlc4hnogkh52an7b3tllophi.data"
        ))
        .unwrap();
        all
    });
    all[usize::from(n % 6)].clone()
}

/// A peer, perhaps the local one.
pub fn who(bytes: &mut Bytes<'_>) -> PeerId {
    peer(bytes.next() % (LOCAL + 1))
}

/// A peer to which there can be a connection.
pub fn remote(bytes: &mut Bytes<'_>) -> PeerId {
    peer(bytes.next() % LOCAL)
}

pub fn somebody(bytes: &mut Bytes<'_>) -> Option<PeerId> {
    match bytes.next() % 16 {
        15 => None,
        n => Some(peer(n % (LOCAL + 1))),
    }
}

// --- addresses ----------------------------------------------------------------------------------------------------

fn places() -> &'static [Multiaddr] {
    static ALL: OnceLock<Vec<Multiaddr>> = OnceLock::new();
    ALL.get_or_init(|| {
        let relay = peer(7);
        let long = format!("/dns/{}", "a".repeat(60));
        let through = format!("/ip4/203.0.113.1/tcp/4001/p2p/{relay}/p2p-circuit");
        let circuit = format!("/p2p/{relay}/p2p-circuit");
        [
            "/ip4/203.0.113.1/tcp/4001",
            "/ip4/203.0.113.1/udp/4001/quic-v1",
            "/ip4/203.0.113.2/tcp/4001",
            "/ip4/198.51.100.7/tcp/4001",
            "/ip6/2001:db8:0:1::1/tcp/4001",
            "/ip6/2001:db8:0:1::2/udp/1/quic-v1",
            "/ip4/10.0.0.5/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/dns4/boot.example.org/tcp/443",
            "/dnsaddr/example.org",
            "/dns/a.example.org/tcp/1/ws",
            &through,
            &circuit,
            "/memory/7",
            &long,
        ]
        .into_iter()
        .map(|text| text.parse().unwrap())
        .collect()
    })
}

pub fn address(bytes: &mut Bytes<'_>) -> Multiaddr {
    match bytes.next() {
        n @ 0..240 => places()[usize::from(n) % places().len()].clone(),
        240..248 => {
            Multiaddr::try_from(bytes.some(40).to_vec()).unwrap_or_else(|_| Multiaddr::empty())
        }
        248..252 => Multiaddr::from(Protocol::Ip4(u32::from(bytes.next()).into()))
            .with(Protocol::Tcp(u16::from(bytes.next()))),
        _ => Multiaddr::empty(),
    }
}

/// An address of a peer, in one of the forms in which it is told.
pub fn form(bytes: &mut Bytes<'_>, of: PeerId) -> Multiaddr {
    let address = address(bytes);
    match bytes.next() % 16 {
        0..=7 => address,
        8..=12 => address.with(Protocol::P2p(of)),
        13 => address.with(Protocol::P2p(of)).with(Protocol::P2p(of)),
        14 => address.with(Protocol::P2p(peer(bytes.next() % LOCAL))),
        _ => Protocol::P2p(of).into(),
    }
}

pub fn addresses(bytes: &mut Bytes<'_>, of: PeerId) -> Vec<Multiaddr> {
    let count = match bytes.next() {
        n @ 0..250 => n % 6,
        // More than any limit.
        _ => 40,
    };
    (0..count).map(|_| form(bytes, of)).collect()
}

pub fn duration(bytes: &mut Bytes<'_>) -> Duration {
    const SECONDS: [u64; 16] = [
        0, 1, 30, 63, 64, 300, 660, 1_000, 1_800, 3_600, 21_600, 86_400, 345_600, 1_123_200,
        5_184_000, 34_560_000,
    ];
    Duration::from_secs(bytes.pick(&SECONDS)) + Duration::from_millis(u64::from(bytes.next()))
}

pub fn protocols(bytes: &mut Bytes<'_>) -> Vec<StreamProtocol> {
    let count = match bytes.next() {
        n @ 0..250 => n % 5,
        _ => 60,
    };
    let name = |bytes: &mut Bytes<'_>| match bytes.next() {
        n @ 0..250 => StreamProtocol::try_from_owned(format!("/p/{}", n % 7)).unwrap(),
        _ => StreamProtocol::try_from_owned(format!("/{}", bytes.text(20))).unwrap(),
    };
    (0..count).map(|_| name(bytes)).collect()
}

// --- the swarm ----------------------------------------------------------------------------------------------------

pub fn dial_error(bytes: &mut Bytes<'_>, expected: PeerId) -> DialError {
    match bytes.next() % 16 {
        0..=7 => {
            let attempts = addresses(bytes, expected);
            let error = |bytes: &mut Bytes<'_>, address: &Multiaddr| match bytes.next() % 8 {
                0 => TransportError::MultiaddrNotSupported(address.clone()),
                n => TransportError::Other(
                    [
                        io::ErrorKind::ConnectionRefused,
                        io::ErrorKind::TimedOut,
                        io::ErrorKind::NetworkUnreachable,
                        io::ErrorKind::PermissionDenied,
                        io::ErrorKind::ConnectionReset,
                        io::ErrorKind::AddrInUse,
                        io::ErrorKind::Other,
                    ][usize::from(n) - 1]
                        .into(),
                ),
            };
            let attempts = attempts.into_iter().map(|address| {
                let error = error(bytes, &address);
                (address, error)
            });
            DialError::Transport(attempts.collect())
        }
        8..=10 => DialError::WrongPeerId {
            obtained: who(bytes),
            address: form(bytes, expected),
        },
        11 => DialError::LocalPeerId {
            address: form(bytes, expected),
        },
        12 => DialError::NoAddresses,
        13 => DialError::DialPeerConditionFalse(PeerCondition::Disconnected),
        14 => DialError::Aborted,
        _ => DialError::Denied {
            cause: ConnectionDenied::new("full"),
        },
    }
}

/// Something about this node's own addresses. Returns whether they may be others than before.
pub fn own_addresses(
    bytes: &mut Bytes<'_>,
    addr: &Multiaddr,
    mut tell: impl FnMut(FromSwarm<'_>),
) -> bool {
    let listener_id = ListenerId::next();
    let kind = bytes.next() % 8;
    let broken = io::Error::other("broken");
    tell(match kind {
        0 => FromSwarm::NewListenAddr(NewListenAddr { listener_id, addr }),
        1 => FromSwarm::ExpiredListenAddr(ExpiredListenAddr { listener_id, addr }),
        2 => FromSwarm::ExternalAddrConfirmed(ExternalAddrConfirmed { addr }),
        3 => FromSwarm::ExternalAddrExpired(ExternalAddrExpired { addr }),
        4 => FromSwarm::NewExternalAddrCandidate(NewExternalAddrCandidate { addr }),
        5 => FromSwarm::NewListener(NewListener { listener_id }),
        6 => FromSwarm::ListenerError(ListenerError {
            listener_id,
            err: &broken,
        }),
        _ => FromSwarm::ListenerClosed(ListenerClosed {
            listener_id,
            reason: Ok(()),
        }),
    });
    kind < 4
}

// --- identify -----------------------------------------------------------------------------------------------------

pub fn identify(bytes: &mut Bytes<'_>) -> ToSwarm<identify::Event, Infallible> {
    let connection_id = ConnectionId::new_unchecked(usize::from(bytes.next()));
    let peer_id = who(bytes);
    ToSwarm::GenerateEvent(match bytes.next() % 16 {
        0..=9 => identify::Event::Received {
            connection_id,
            peer_id,
            info: info(bytes, peer_id),
        },
        10 => identify::Event::Sent {
            connection_id,
            peer_id,
        },
        // What this node said of itself: nobody learns from it.
        11 => identify::Event::Pushed {
            connection_id,
            peer_id,
            info: info(bytes, peer_id),
        },
        12 => identify::Event::Error {
            connection_id,
            peer_id,
            error: StreamUpgradeError::Timeout,
        },
        // It announces again what it has said.
        _ => {
            let address = form(bytes, peer_id);
            return ToSwarm::NewExternalAddrOfPeer { peer_id, address };
        }
    })
}

fn info(bytes: &mut Bytes<'_>, of: PeerId) -> identify::Info {
    let own = (0..6).find(|n| key(*n).to_peer_id() == of);
    let text = |bytes: &mut Bytes<'_>| match bytes.next() {
        n @ 0..200 => ["", "a", "node/1"][usize::from(n) % 3].to_owned(),
        _ => bytes.text(30),
    };
    identify::Info {
        public_key: match own {
            Some(n) if bytes.next() % 8 != 1 => key(n),
            _ => key(bytes.next()),
        },
        protocol_version: text(bytes),
        agent_version: text(bytes),
        listen_addrs: addresses(bytes, of),
        protocols: protocols(bytes),
        observed_addr: address(bytes),
        signed_peer_record: match bytes.next() {
            n @ 0..100 => Some(envelopes()[usize::from(n) % envelopes().len()].clone()),
            _ => None,
        },
    }
}

/// Records of two peers, in both formats and with several numbers, of which the last one is about somebody else.
fn envelopes() -> &'static [SignedEnvelope] {
    static ALL: OnceLock<Vec<SignedEnvelope>> = OnceLock::new();
    ALL.get_or_init(|| {
        let formats: [(&str, &[u8]); 2] = [
            ("libp2p-peer-record", &[3, 1]),
            ("libp2p-routing-state", b"/libp2p/routing-state-record"),
        ];
        let field = |number: u8, value: &[u8]| {
            let head = [number << 3 | 2, u8::try_from(value.len()).unwrap()];
            [&head[..], value].concat()
        };
        let record = |signer: u8, about: u8, (domain, kind): (&str, &[u8]), seq: u8| {
            let mut payload = field(1, &peer(about).to_bytes());
            payload.extend([2 << 3, seq]);
            for address in &places()[usize::from(seq % 3)..][..2] {
                payload.extend(field(3, &field(1, &address.to_vec())));
            }
            SignedEnvelope::new(&key_pair(signer), domain.to_owned(), kind.to_vec(), payload)
                .unwrap()
        };
        let mut all = Vec::new();
        for signer in 0..2 {
            for format in formats {
                for seq in [1, 2, 127] {
                    all.push(record(signer, signer, format, seq));
                }
            }
        }
        all.push(record(0, 1, formats[0], 5));
        all
    })
}

// --- Kademlia -----------------------------------------------------------------------------------------------------

pub fn kad(bytes: &mut Bytes<'_>) -> ToSwarm<kad::Event, Infallible> {
    let of = who(bytes);
    ToSwarm::GenerateEvent(match bytes.next() % 16 {
        0..=2 => {
            let mut told = kad::Addresses::new(form(bytes, of));
            for address in addresses(bytes, of) {
                told.insert(address);
            }
            kad::Event::RoutingUpdated {
                peer: of,
                is_new_peer: bytes.coin(),
                addresses: told,
                bucket_range: Default::default(),
                old_peer: somebody(bytes),
            }
        }
        3 => kad::Event::RoutablePeer {
            peer: of,
            address: form(bytes, of),
        },
        4 => kad::Event::PendingRoutablePeer {
            peer: of,
            address: form(bytes, of),
        },
        5 => kad::Event::UnroutablePeer { peer: of },
        6 => kad::Event::ModeChanged {
            new_mode: kad::Mode::Server,
        },
        7..=8 => {
            let record = kad::ProviderRecord::new(vec![1; 32], of, addresses(bytes, of));
            let record = bytes.coin().then_some(record);
            let request = kad::InboundRequest::AddProvider { record };
            kad::Event::InboundRequest { request }
        }
        9 => kad::Event::InboundRequest {
            request: kad::InboundRequest::FindNode {
                num_closer_peers: 3,
            },
        },
        10..=13 => {
            let mut event = query();
            if let kad::Event::OutboundQueryProgressed { result, .. } = &mut event {
                *result = answer(bytes);
            }
            event
        }
        _ => {
            let address = form(bytes, of);
            return ToSwarm::NewExternalAddrOfPeer {
                peer_id: of,
                address,
            };
        }
    })
}

fn answer(bytes: &mut Bytes<'_>) -> kad::QueryResult {
    let key = vec![7; 32];
    let peers = |bytes: &mut Bytes<'_>| {
        let mut peers = Vec::new();
        for _ in 0..bytes.next() % 8 {
            let peer_id = who(bytes);
            let addrs = addresses(bytes, peer_id);
            peers.push(kad::PeerInfo { peer_id, addrs });
        }
        peers
    };
    match bytes.next() % 8 {
        0..=3 => {
            let peers = peers(bytes);
            kad::QueryResult::GetClosestPeers(Ok(kad::GetClosestPeersOk { key, peers }))
        }
        4..=5 => {
            let peers = peers(bytes);
            let error = kad::GetClosestPeersError::Timeout { key, peers };
            kad::QueryResult::GetClosestPeers(Err(error))
        }
        6 => kad::QueryResult::GetProviders(Ok(kad::GetProvidersOk::FoundProviders {
            key: key.into(),
            providers: [who(bytes)].into(),
        })),
        _ => kad::QueryResult::StartProviding(Ok(kad::AddProviderOk { key: key.into() })),
    }
}

/// An event of a query that really was: nobody else can make its number.
fn query() -> kad::Event {
    static EVENT: OnceLock<kad::Event> = OnceLock::new();
    let event = EVENT.get_or_init(|| {
        let local = peer(LOCAL);
        let store = kad::store::MemoryStore::new(local);
        let mut behaviour = kad::Behaviour::new(local, store);
        behaviour.get_closest_peers(peer(0));
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(ToSwarm::GenerateEvent(event)) = behaviour.poll(&mut context)
                && matches!(event, kad::Event::OutboundQueryProgressed { .. })
            {
                return event;
            }
        }
    });
    event.clone()
}
