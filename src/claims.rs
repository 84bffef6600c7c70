//! How many peers that are known by hearsay only are said to be at one IP address, whatever the port: else a few
//! strangers could point any number of invented peers, and with them the dials of the whole network, at a victim.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
};

use hashbrown::HashTable;
use libp2p_core::multiaddr::Protocol;
use smallvec::SmallVec;

use crate::{
    address::{Sources, direct_ip, first_ip, protocols},
    compact::Known,
    group::{embedded_ip4, is_private_ip4, is_private_ip6},
};

/// An IPv4 address or an IPv6 /64, as a keyed hash.
pub(crate) type Spot = u32;

/// The spots of one peer.
pub(crate) type Spots = SmallVec<[Spot; 4]>;

/// The table is in so many parts: each grows by itself, so that no growth takes long.
const SHARDS: usize = 64;

/// Who claims which spot. Eight bytes for each claim.
#[derive(Debug)]
pub(crate) struct Claims {
    shards: [HashTable<(Spot, u32)>; SHARDS],
}

impl Default for Claims {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| HashTable::new()),
        }
    }
}

impl Claims {
    pub(crate) fn add(&mut self, spot: Spot, slot: u32) {
        let hash = |(spot, _): &(Spot, u32)| spread(*spot);
        self.shards[shard(spot)].insert_unique(spread(spot), (spot, slot), hash);
    }

    pub(crate) fn remove(&mut self, spot: Spot, slot: u32) {
        let is_it = |claim: &(Spot, u32)| *claim == (spot, slot);
        if let Ok(entry) = self.shards[shard(spot)].find_entry(spread(spot), is_it) {
            entry.remove();
        }
    }

    /// The slots of those who claim a spot.
    pub(crate) fn claimants(&self, spot: Spot) -> impl Iterator<Item = u32> + '_ {
        let same = self.shards[shard(spot)].iter_hash(spread(spot));
        same.filter(move |(other, _)| *other == spot)
            .map(|(_, slot)| *slot)
    }
}

fn shard(spot: Spot) -> usize {
    // The upper bits: within a shard the lower ones choose.
    (spot >> (Spot::BITS - SHARDS.trailing_zeros())) as usize
}

/// The upper bits choose within a bucket, so that all need to differ.
fn spread(spot: Spot) -> u64 {
    u64::from(spot).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The spot of an address to which one would connect directly; `None` in private networks, for names and for relays.
pub(crate) fn spot(address: &(impl AsRef<[u8]> + ?Sized), secret: &RandomState) -> Option<Spot> {
    Some(hashed(spot_bits(address.as_ref())?, secret))
}

fn hashed(bits: u64, secret: &RandomState) -> Spot {
    secret.hash_one(bits) as Spot
}

fn spot_bits(address: &[u8]) -> Option<u64> {
    let ip = match direct_ip(address) {
        Some(ip) => ip,
        None => {
            let ip = first_ip(address)?;
            if protocols(address).any(|part| part == Protocol::P2pCircuit) {
                return None;
            }
            ip
        }
    };
    match ip {
        IpAddr::V4(ip) if !is_private_ip4(ip) => Some(u64::from(u32::from(ip))),
        IpAddr::V6(ip) if !is_private_ip6(ip) => Some(match embedded_ip4(ip) {
            Some(ip) => u64::from(u32::from(ip)),
            None => (u128::from(ip) >> 64) as u64,
        }),
        _ => None,
    }
}

/// The spots that a peer claims by the word of strangers, if it is known by hearsay only. `seen`: as for
/// [`is_first_hand`].
pub(crate) fn claims<'a>(
    addresses: impl Iterator<Item = Known<'a>> + Clone,
    seen: bool,
    secret: &RandomState,
) -> Spots {
    let mut spots = Spots::new();
    if !is_hearsay_only(addresses.clone(), seen) {
        return spots;
    }
    let claimed = addresses.filter(|known| is_claim(known.history.sources));
    let mut last = None;
    for bits in claimed.filter_map(|known| spot_bits(known.address)) {
        // Nearly always another port of the same host stands beside it.
        if last.replace(bits) == Some(bits) {
            continue;
        }
        let spot = hashed(bits, secret);
        if !spots.contains(&spot) {
            spots.push(spot);
        }
    }
    spots
}

pub(crate) fn is_hearsay_only<'a>(
    mut addresses: impl Iterator<Item = Known<'a>>,
    seen: bool,
) -> bool {
    !addresses.any(|known| is_first_hand(known.history.sources, seen) || known.history.is_dialled())
}

/// Whether these sources make of a peer more than one that others invented. A signed record alone does so only for a
/// peer that was `seen` to come from somewhere: anybody can make keys, sign for them, and have that passed on.
pub(crate) fn is_first_hand(sources: Sources, seen: bool) -> bool {
    sources.intersects(Sources::PINNED | Sources::IDENTIFY)
        || seen && sources.contains(Sources::CERTIFIED)
}

/// Whether this may be the word of strangers: not the application's, nor a neighbour's.
pub(crate) fn is_claim(sources: Sources) -> bool {
    let strangers =
        Sources::KADEMLIA | Sources::RENDEZVOUS | Sources::DISCOVERY | Sources::CERTIFIED;
    sources.intersects(strangers) && !sources.intersects(Sources::APPLICATION | Sources::MDNS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_counted_by_spot_and_taken_back_one_by_one() {
        let mut claims = Claims::default();
        for slot in 0..100 {
            claims.add(7, slot);
            claims.add(slot, slot);
        }
        assert_eq!(claims.claimants(7).count(), 101);
        claims.remove(7, 50);
        claims.remove(7, 50);
        assert_eq!(claims.claimants(7).count(), 100);
        assert!(claims.claimants(7).all(|slot| slot != 50));
        assert_eq!(claims.claimants(1_000).count(), 0);
    }

    #[test]
    fn one_ip_address_at_any_port_is_one_spot_and_so_is_an_ipv6_64() {
        let secret = RandomState::new();
        let spot = |address: &str| {
            let address: libp2p_core::Multiaddr = address.parse().expect("a multiaddr");
            spot(&address, &secret)
        };
        let one = spot("/ip4/8.8.8.8/tcp/1");
        assert!(one.is_some());
        assert_eq!(one, spot("/ip4/8.8.8.8/udp/2/quic-v1"));
        assert_eq!(one, spot("/ip6/::ffff:8.8.8.8/tcp/1"));
        assert_ne!(one, spot("/ip4/8.8.8.9/tcp/1"));
        let six = spot("/ip6/2a01:4f8:1:2::1/tcp/1");
        assert_eq!(six, spot("/ip6/2a01:4f8:1:2:ffff::9/tcp/9"));
        assert_ne!(six, spot("/ip6/2a01:4f8:1:3::1/tcp/1"));
        assert_eq!(spot("/ip4/10.0.0.1/tcp/1"), None);
        assert_eq!(spot("/dns4/example.com/tcp/1"), None);
    }
}
