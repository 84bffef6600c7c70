//! What an address looks like in the store: bare, bounded, and how it came to be known.

use std::{
    fmt,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use bitflags::bitflags;
use libp2p_core::{Multiaddr, multiaddr::Protocol};
use libp2p_identity::PeerId;
use smallvec::SmallVec;

use crate::{escape::Escaped, history::History, refusal::Refused};

bitflags! {
    /// All the ways in which an address came to be known.
    ///
    /// The numbers are written to disk: they are never given another meaning.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Sources: u16 {
        /// The user pinned it: only the user takes it away.
        const PINNED = 1;
        /// It stands in a signed peer record. That proves who wrote it, not that it can be reached.
        const CERTIFIED = 1 << 1;
        /// The peer itself told it, by identify or identify-push.
        const IDENTIFY = 1 << 2;
        /// Kademlia told it.
        const KADEMLIA = 1 << 3;
        /// A rendezvous point told it.
        const RENDEZVOUS = 1 << 4;
        /// mDNS told it.
        const MDNS = 1 << 5;
        /// The application added it through the store.
        const APPLICATION = 1 << 6;
        /// Another discovery protocol told it, or `Swarm::add_peer_address`.
        const DISCOVERY = 1 << 7;
        /// An inbound connection came from it: usually an ephemeral port, or a NAT mapping.
        const INBOUND = 1 << 8;
        /// This node dialled it, and the handshake gave this peer id.
        const DIALLED = 1 << 9;
    }
}

impl Sources {
    /// What the peer itself says.
    pub(crate) const SELF_TOLD: Self = Self::IDENTIFY.union(Self::CERTIFIED);
    /// What others say of the peer.
    pub(crate) const HEARSAY: Self = Self::KADEMLIA
        .union(Self::RENDEZVOUS)
        .union(Self::MDNS)
        .union(Self::APPLICATION)
        .union(Self::DISCOVERY);
}

/// Who tells the store something about a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Source {
    /// The peer itself, by identify or identify-push.
    Identify,
    /// Kademlia.
    Kademlia,
    /// A rendezvous point.
    Rendezvous,
    /// mDNS.
    Mdns,
    /// Any other discovery protocol, or one that cannot be named.
    Discovery,
}

impl Source {
    /// As what the addresses count that a behaviour with this source adds to a dial.
    pub(crate) fn for_dials(self) -> Self {
        match self {
            Source::Identify => Source::Discovery,
            other => other,
        }
    }
}

impl From<Source> for Sources {
    fn from(source: Source) -> Self {
        match source {
            Source::Identify => Sources::IDENTIFY,
            Source::Kademlia => Sources::KADEMLIA,
            Source::Rendezvous => Sources::RENDEZVOUS,
            Source::Mdns => Sources::MDNS,
            Source::Discovery => Sources::DISCOVERY,
        }
    }
}

/// How far an address can be trusted to lead to its peer, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Standing {
    /// Seen on an inbound connection only.
    Inbound,
    /// Told by others: Kademlia, rendezvous, mDNS, the application.
    Hearsay,
    /// Told by the peer itself, signed or not. Where others tell it, too, it is remembered for as long as their word
    /// lasts, and is hearsay once that of the peer is over.
    SelfTold,
    /// This node dialled it, and the handshake gave this peer id, within
    /// [`Config::proven_lifetime`](crate::Config::proven_lifetime).
    Proven,
}

/// Everything that the store knows about one address of a peer.
#[derive(Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct AddressInfo {
    /// The address, without `/p2p/<peer>` at its end.
    pub address: Multiaddr,
    /// All the ways in which it came to be known.
    pub sources: Sources,
    /// What these ways, and the dials so far, make of it now.
    pub standing: Standing,
    /// When it was first heard of. What lies further back than some weeks counts as that. All times are in steps of
    /// 64 seconds.
    pub first_heard: SystemTime,
    /// When it was last heard of, in steps of a quarter of its lifetime.
    pub last_heard: SystemTime,
    /// When a dial to it last succeeded, in steps of a quarter of
    /// [`Config::proven_lifetime`](crate::Config::proven_lifetime).
    pub last_success: Option<SystemTime>,
    /// When a dial to it last failed.
    pub last_failure: Option<SystemTime>,
    /// Dials that succeeded. Stays at 255.
    pub successes: u32,
    /// Dials that failed since the last one that succeeded, and that say something about the address: those
    /// that failed while this node was offline do not count. Stays at 255.
    pub failures: u32,
    /// The estimated chance that a dial made now succeeds, from 0 to 1.
    pub confidence: f64,
    /// How long the address is not offered for dials, because it failed.
    pub back_off: Option<Duration>,
    /// Until when it is remembered if nothing is heard of it; `None` for as long as it is pinned or in use.
    pub expires: Option<SystemTime>,
}

impl fmt::Debug for AddressInfo {
    /// As derived, but for the address: a stranger may have chosen the names in it, and it is escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressInfo")
            .field("address", &Escaped(&self.address))
            .field("sources", &self.sources)
            .field("standing", &self.standing)
            .field("first_heard", &self.first_heard)
            .field("last_heard", &self.last_heard)
            .field("last_success", &self.last_success)
            .field("last_failure", &self.last_failure)
            .field("successes", &self.successes)
            .field("failures", &self.failures)
            .field("confidence", &self.confidence)
            .field("back_off", &self.back_off)
            .field("expires", &self.expires)
            .finish()
    }
}

impl AddressInfo {
    /// Whether the user pinned it.
    pub fn is_pinned(&self) -> bool {
        self.sources.contains(Sources::PINNED)
    }

    /// Whether it stands in a signed peer record of the peer.
    pub fn is_certified(&self) -> bool {
        self.sources.contains(Sources::CERTIFIED)
    }
}

/// The bytes of an address in the form that is stored, without an allocation for those that are short.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Address(SmallVec<[u8; 32]>);

impl From<&[u8]> for Address {
    fn from(bytes: &[u8]) -> Self {
        Self(SmallVec::from_slice(bytes))
    }
}

impl AsRef<[u8]> for Address {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq<[u8]> for Address {
    fn eq(&self, bytes: &[u8]) -> bool {
        *self.0 == *bytes
    }
}

/// One address as a record keeps it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) address: Address,
    pub(crate) history: History,
}

/// The most bytes that `/p2p/<peer id>` takes: code, length, and a multihash of an identity of 42 bytes.
const PEER_ID_LEN: usize = 2 + 1 + 2 + 42;

/// Brings an address of `peer` into the form that is stored: without `/p2p/<peer>` at its end.
///
/// `Ok(None)` is an address that says nothing beyond the peer id, as an inbound relayed connection has it.
pub(crate) fn bare(
    peer: &PeerId,
    address: &Multiaddr,
    max_len: usize,
) -> Result<Option<Multiaddr>, Refused> {
    let bare = bare_bytes(peer, address.as_ref(), max_len)?;
    Ok(match bare {
        Some(bare) if bare.len() == address.len() => Some(address.clone()),
        Some(bare) => Multiaddr::try_from(bare.to_vec()).ok(),
        None => None,
    })
}

/// As [`bare`], for the bytes of what is a multiaddr.
pub(crate) fn bare_bytes<'a>(
    peer: &PeerId,
    address: &'a [u8],
    max_len: usize,
) -> Result<Option<&'a [u8]>, Refused> {
    if address.is_empty() {
        return Err(Refused::EmptyAddress);
    }
    // The length is checked first, so that what follows costs a bounded time. The peer's own id does not count:
    // what the store hands out comes back with it.
    if address.len() > max_len.saturating_add(PEER_ID_LEN) {
        return Err(Refused::AddressTooLong);
    }
    // Nearly always nobody's id is in it.
    if !contains(address, P2P) {
        return match address.len() > max_len {
            true => Err(Refused::AddressTooLong),
            false => Ok(Some(address)),
        };
    }
    let (mut rest, mut end, mut is_foreign) = (address, 0, false);
    while let Ok((protocol, after)) = Protocol::from_bytes(rest) {
        rest = after;
        let is_id = matches!(protocol, Protocol::P2p(_));
        if protocol != Protocol::P2p(*peer) {
            (end, is_foreign) = (address.len() - rest.len(), is_id);
        }
    }
    if is_foreign {
        return Err(Refused::ForeignPeerId);
    }
    if end > max_len {
        return Err(Refused::AddressTooLong);
    }
    Ok((end > 0).then(|| &address[..end]))
}

/// The form in which an address is handed to the swarm: with `/p2p/<peer>` at its end, once.
///
/// The swarm compares addresses byte by byte, and this is the form that identify and Kademlia use too.
pub(crate) fn with_peer(address: Multiaddr, peer: PeerId) -> Multiaddr {
    address.with_p2p(peer).unwrap_or_else(|other| other)
}

/// Takes out of `offers` what the application gave for the dial itself, in whichever form: the swarm compares byte
/// by byte, and would dial it twice.
pub(crate) fn without_given(
    peer: &PeerId,
    mut offers: Vec<Multiaddr>,
    given: &[Multiaddr],
    max_len: usize,
) -> Vec<Multiaddr> {
    let bare = |address: &Multiaddr| bare(peer, address, max_len).ok().flatten();
    for given in given.iter().filter_map(bare) {
        offers.retain(|offer| bare(offer).as_ref() != Some(&given));
    }
    offers
}

/// The codes of `p2p` and `p2p-circuit` as they stand in an address. The same bytes may be part of something else.
const P2P: [u8; 2] = [0xa5, 0x03];
const CIRCUIT: [u8; 2] = [0xa2, 0x02];

fn contains(address: &[u8], code: [u8; 2]) -> bool {
    address.windows(2).any(|bytes| bytes == code)
}

/// The IP address at the beginning of an address, read without taking it apart.
pub(crate) fn first_ip(address: &[u8]) -> Option<IpAddr> {
    const IP4: u8 = 4;
    const IP6: u8 = 41;
    let (code, rest) = address.split_first()?;
    match *code {
        IP4 => Some(IpAddr::from(*rest.first_chunk::<4>()?)),
        IP6 => Some(IpAddr::from(*rest.first_chunk::<16>()?)),
        _ => None,
    }
}

/// As [`first_ip`], if it is surely not that of a relay.
pub(crate) fn direct_ip(address: &[u8]) -> Option<IpAddr> {
    first_ip(address).filter(|_| !contains(address, CIRCUIT))
}

/// Whether it is surely no DNS name that a dial would look up.
pub(crate) fn is_nameless(address: &[u8]) -> bool {
    /// The codes of `dns`, `dns4`, `dns6` and `dnsaddr`.
    const NAMES: std::ops::RangeInclusive<u8> = 53..=56;
    !address.iter().any(|byte| NAMES.contains(byte))
}

/// Whether the bytes are parts of addresses, one after the other.
pub(crate) fn is_multiaddr(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        let Ok((_, after)) = Protocol::from_bytes(rest) else {
            return false;
        };
        rest = after;
    }
    true
}

/// The parts of an address that was a multiaddr before.
pub(crate) fn protocols(address: &[u8]) -> impl Iterator<Item = Protocol<'_>> {
    let mut rest = address;
    std::iter::from_fn(move || {
        let (protocol, after) = Protocol::from_bytes(rest).ok()?;
        rest = after;
        Some(protocol)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> PeerId {
        PeerId::random()
    }

    fn at(address: &str) -> Multiaddr {
        address.parse().expect("a valid multiaddr")
    }

    #[test]
    fn the_peers_own_id_is_stripped_however_often_it_stands_there() {
        let peer = peer();
        let plain = at("/ip4/127.0.0.1/tcp/1");
        let once = plain.clone().with(Protocol::P2p(peer));
        let twice = once.clone().with(Protocol::P2p(peer));
        for address in [&plain, &once, &twice] {
            assert_eq!(bare(&peer, address, 512), Ok(Some(plain.clone())));
        }
    }

    #[test]
    fn another_peers_id_at_the_end_is_refused() {
        let address = at("/ip4/127.0.0.1/tcp/1").with(Protocol::P2p(peer()));
        assert_eq!(bare(&peer(), &address, 512), Err(Refused::ForeignPeerId));
    }

    #[test]
    fn a_relays_id_inside_the_address_stays() {
        let (relay, peer) = (peer(), peer());
        let circuit = at("/ip4/127.0.0.1/tcp/1")
            .with(Protocol::P2p(relay))
            .with(Protocol::P2pCircuit);
        let full = circuit.clone().with(Protocol::P2p(peer));
        assert_eq!(bare(&peer, &full, 512), Ok(Some(circuit.clone())));
        assert_eq!(bare(&peer, &circuit, 512), Ok(Some(circuit)));
    }

    #[test]
    fn an_address_of_nothing_but_the_peer_says_nothing() {
        let peer = peer();
        assert_eq!(bare(&peer, &Protocol::P2p(peer).into(), 512), Ok(None));
        assert_eq!(
            bare(&peer, &Multiaddr::empty(), 512),
            Err(Refused::EmptyAddress)
        );
    }

    #[test]
    fn an_address_may_be_as_long_as_the_limit_and_no_longer() {
        let address = at("/ip4/127.0.0.1/tcp/1");
        let len = address.len();
        assert!(bare(&peer(), &address, len).is_ok());
        assert_eq!(
            bare(&peer(), &address, len - 1),
            Err(Refused::AddressTooLong)
        );
    }

    #[test]
    fn what_is_offered_ends_in_the_peer_id_once() {
        let peer = peer();
        let offered = with_peer(at("/ip4/127.0.0.1/tcp/1"), peer);
        assert_eq!(with_peer(offered.clone(), peer), offered);
        assert!(offered.to_string().ends_with(&peer.to_string()));
    }
}
