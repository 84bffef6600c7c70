//! Which addresses belong together: whoever has one of them can cheaply have many.
//!
//! | address | group | second level |
//! | --- | --- | --- |
//! | IPv4 | /16 | |
//! | IPv6 | /32 (in 2001:470::/32, where anybody gets a /48 for nothing, /36) | /48 |
//! | 6to4, Teredo, NAT64, IPv4-mapped IPv6 | as the IPv4 address inside | |
//! | a DNS name | its last two labels | |
//! | through a relay | the relay's id | |
//! | a private, link-local or loopback address, memory, a Unix socket | none | |
//! | anything else | one group for each kind | |

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU64,
};

use libp2p_core::multiaddr::Protocol;

use crate::address::{direct_ip, first_ip, protocols};

/// Bits of a group or site that say what the rest of it is.
const KIND: u32 = 56;
const IP4: u64 = 1 << KIND;
const IP6: u64 = 2 << KIND;
const DNS: u64 = 3 << KIND;
const RELAY: u64 = 4 << KIND;
const OTHER: u64 = 5 << KIND;
const KINDS: u64 = 0x7f << KIND;

/// Set when the address was only claimed, by somebody who was not seen there.
const CLAIMED: u64 = 1 << 63;

/// A group of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Group(NonZeroU64);

/// The smallest unit that is told apart within a group: the /48 of an IPv6 address, and else the group itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Site(NonZeroU64);

impl Group {
    /// The group of an address; `None` where groups mean nothing, in private networks.
    pub(crate) fn of(address: &(impl AsRef<[u8]> + ?Sized)) -> Option<Self> {
        Site::of(address).map(Site::group)
    }

    /// As it goes to disk: a bit that is always set, above it the number within its kind (of an IPv4 address its first
    /// 16 bits, of an IPv6 address its first 48 without those that tell sites apart, else a hash), and from bit
    /// [`KIND`] on the kind.
    pub(crate) fn number(self) -> u64 {
        self.0.get() & !CLAIMED
    }

    /// The group of a number from disk, if it is one.
    pub(crate) fn from_number(number: u64) -> Option<Self> {
        let is_kind = (IP4..=OTHER).contains(&(number & KINDS));
        let is_group = is_kind && number & 1 == 1 && number & CLAIMED == 0;
        let group = Self(NonZeroU64::new(number).filter(|_| is_group)?);
        (group.site().group() == group).then_some(group)
    }

    /// A site of the group that stands for all of it.
    pub(crate) fn site(self) -> Site {
        Site(self.0)
    }

    /// Whether it is a group of names.
    pub(crate) fn is_dns(self) -> bool {
        self.0.get() & KINDS == DNS
    }

    /// The group as one that was only claimed: it tells crowds apart, and no share is limited by it.
    pub(crate) fn claimed(self) -> Self {
        Self(self.0 | CLAIMED)
    }

    /// The group of addresses itself, whether it was only claimed or not.
    pub(crate) fn of_addresses(self) -> Self {
        NonZeroU64::new(self.0.get() & !CLAIMED).map_or(self, Self)
    }

    pub(crate) fn is_claimed(self) -> bool {
        self.0.get() & CLAIMED != 0
    }
}

impl Site {
    pub(crate) fn of(address: &(impl AsRef<[u8]> + ?Sized)) -> Option<Self> {
        match direct_ip(address.as_ref()) {
            Some(IpAddr::V4(ip)) => return (!is_private_ip4(ip)).then(|| Self::of_ip4(ip)),
            Some(IpAddr::V6(ip)) => return (!is_private_ip6(ip)).then(|| Self::of_ip6(ip)),
            None => {}
        }
        let mut site = None;
        let mut private = false;
        let mut relay = None;
        for protocol in protocols(address.as_ref()) {
            match protocol {
                Protocol::P2p(peer) => relay = Some(hashed(peer)),
                // The relay is what is dialled, wherever it is itself.
                Protocol::P2pCircuit => return Some(Self::new(RELAY, relay.unwrap_or(0))),
                _ if site.is_some() || private => {}
                Protocol::Ip4(ip) => {
                    private = is_private_ip4(ip);
                    site = (!private).then(|| Self::of_ip4(ip));
                }
                Protocol::Ip6(ip) => {
                    private = is_private_ip6(ip);
                    site = (!private).then(|| Self::of_ip6(ip));
                }
                Protocol::Dns(name)
                | Protocol::Dns4(name)
                | Protocol::Dns6(name)
                | Protocol::Dnsaddr(name) => site = Some(Self::new(DNS, hashed(domain(&name)))),
                Protocol::Memory(_) | Protocol::Unix(_) => private = true,
                _ => {}
            }
        }
        if private {
            return None;
        }
        site.or_else(|| {
            let first = protocols(address.as_ref()).next()?;
            Some(Self::new(OTHER, hashed(first.tag())))
        })
    }

    /// As it stands in the compact form.
    pub(crate) fn bits(self) -> u64 {
        self.0.get()
    }

    pub(crate) fn from_bits(bits: u64) -> Option<Self> {
        NonZeroU64::new(bits).map(Self)
    }

    fn new(kind: u64, rest: u64) -> Self {
        Self(NonZeroU64::MIN | kind | (rest << 1))
    }

    fn of_ip4(ip: Ipv4Addr) -> Self {
        Self::new(IP4, u64::from(u32::from(ip) >> 16))
    }

    fn of_ip6(ip: Ipv6Addr) -> Self {
        match embedded_ip4(ip) {
            Some(ip) => Self::of_ip4(ip),
            None => Self::new(IP6, (u128::from(ip) >> 80) as u64),
        }
    }

    pub(crate) fn group(self) -> Group {
        /// The /32 in which a tunnel broker gives everybody a /48 for nothing.
        const TUNNELS: u64 = 0x2001_0470;
        let bits = self.0.get();
        if bits & KINDS != IP6 {
            return Group(self.0);
        }
        // One bit is there for not being zero, below the 48 of the site.
        let is_tunnel = (bits >> 17) & 0xffff_ffff == TUNNELS;
        let site_bits = if is_tunnel { 12 } else { 16 };
        Group(NonZeroU64::MIN | (bits >> (site_bits + 1) << (site_bits + 1)))
    }
}

/// The IPv4 address inside an IPv6 address that leads to it: mapped, 6to4, Teredo (the client's), NAT64.
pub(crate) fn embedded_ip4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = u128::from(ip);
    let at = |shift: u32| Some(Ipv4Addr::from((bits >> shift) as u32));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => at(0),
        // An IPv4-compatible address, but for "unspecified" and loopback.
        [0, 0, 0, 0, 0, 0, high, _] if high != 0 => at(0),
        [0x2002, ..] => at(80),
        [0x2001, 0, ..] => Some(Ipv4Addr::from(!(bits as u32))),
        _ => None,
    }
}

/// Of this machine, or of networks that others can have too: private, shared (carrier NAT), link-local.
pub(crate) fn is_private_ip4(ip: Ipv4Addr) -> bool {
    Reach::of_ip4(ip) != Reach::Public && !ip.is_multicast() && !ip.is_broadcast()
}

/// As [`is_private_ip4`], also by the IPv4 address inside.
pub(crate) fn is_private_ip6(ip: Ipv6Addr) -> bool {
    Reach::of_ip6(ip) != Reach::Public && !ip.is_multicast()
}

/// From where an address means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reach {
    /// On this machine only.
    Machine,
    /// On a local network; multicast and broadcast, too, as nothing else is to be reached that way.
    Local,
    /// Everywhere.
    Public,
}

impl Reach {
    /// Of where the first connection goes that a dial would make: through a relay, the one to the relay.
    pub(crate) fn of(address: &(impl AsRef<[u8]> + ?Sized)) -> Self {
        match first_ip(address.as_ref()) {
            Some(IpAddr::V4(ip)) => return Self::of_ip4(ip),
            Some(IpAddr::V6(ip)) => return Self::of_ip6(ip),
            None => {}
        }
        for protocol in protocols(address.as_ref()) {
            match protocol {
                Protocol::Ip4(ip) => return Self::of_ip4(ip),
                Protocol::Ip6(ip) => return Self::of_ip6(ip),
                Protocol::Memory(_) | Protocol::Unix(_) => return Reach::Machine,
                Protocol::Dns(name)
                | Protocol::Dns4(name)
                | Protocol::Dns6(name)
                | Protocol::Dnsaddr(name) => return Self::of_name(&name),
                _ => {}
            }
        }
        Reach::Public
    }

    fn of_ip4(ip: Ipv4Addr) -> Self {
        let [a, b, ..] = ip.octets();
        // All of 0.0.0.0/8 is this host.
        if ip.is_loopback() || a == 0 {
            Reach::Machine
        } else if ip.is_private()
            || ip.is_link_local()
            || (a == 100 && b & 0xc0 == 64)
            || ip.is_multicast()
            || ip.is_broadcast()
        {
            Reach::Local
        } else {
            Reach::Public
        }
    }

    fn of_ip6(ip: Ipv6Addr) -> Self {
        if let Some(ip) = embedded_ip4(ip) {
            return Self::of_ip4(ip);
        }
        let first = ip.segments()[0];
        if ip.is_loopback() || ip.is_unspecified() {
            Reach::Machine
        } else if first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80 || ip.is_multicast() {
            Reach::Local
        } else {
            Reach::Public
        }
    }

    /// Names that are never looked up in the public DNS.
    fn of_name(name: &str) -> Self {
        let last = name.trim_end_matches('.').rsplit('.').next();
        match last.unwrap_or_default().to_ascii_lowercase().as_str() {
            "localhost" => Reach::Machine,
            "local" => Reach::Local,
            _ => Reach::Public,
        }
    }
}

/// The last two labels of a name.
fn domain(name: &str) -> String {
    let name = name.trim_end_matches('.');
    let start = name
        .rmatch_indices('.')
        .nth(1)
        .map_or(0, |(dot, _)| dot + 1);
    name[start..].to_ascii_lowercase()
}

/// The number of a name or a relay: the same in the next run, as it goes to disk. Not keyed: whoever wants to stand in
/// the group of another's name or relay need only use that name or relay. Should the hasher of a later compiler differ,
/// the relays of earlier runs have groups of their own until their peers tell of themselves again.
fn hashed(value: impl Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::new().hash_one(value) >> 16
}

#[cfg(test)]
mod tests {
    use libp2p_core::Multiaddr;
    use libp2p_identity::PeerId;

    use super::*;

    fn at(address: &str) -> Multiaddr {
        address.parse().expect("a multiaddr")
    }

    fn group(address: &str) -> Option<Group> {
        Group::of(&at(address))
    }

    #[test]
    fn addresses_that_one_owner_has_are_in_one_group_and_others_are_not() {
        for (one, other, same) in [
            ("/ip4/8.8.1.1/tcp/1", "/ip4/8.8.200.9/udp/9/quic-v1", true),
            ("/ip4/8.8.1.1/tcp/1", "/ip4/8.9.1.1/tcp/1", false),
            (
                "/ip6/2a01:4f8:1::1/tcp/1",
                "/ip6/2a01:4f8:ffff::2/tcp/1",
                true,
            ),
            (
                "/ip6/2a01:4f8:1::1/tcp/1",
                "/ip6/2a01:4f9:1::1/tcp/1",
                false,
            ),
            // The tunnel broker: /36.
            (
                "/ip6/2001:470:1000::1/tcp/1",
                "/ip6/2001:470:1fff::1/tcp/1",
                true,
            ),
            (
                "/ip6/2001:470:1000::1/tcp/1",
                "/ip6/2001:470:2000::1/tcp/1",
                false,
            ),
            // IPv4 in disguise.
            ("/ip4/8.8.1.1/tcp/1", "/ip6/::ffff:8.8.4.4/tcp/1", true),
            ("/ip4/8.8.1.1/tcp/1", "/ip6/2002:808:404::1/tcp/1", true),
            ("/ip4/8.8.1.1/tcp/1", "/ip6/64:ff9b::808:404/tcp/1", true),
            (
                "/ip4/8.8.1.1/tcp/1",
                "/ip6/2001:0:1:2:3:4:f7f7:fbfb/tcp/1",
                true,
            ),
            (
                "/dns4/a.example.com/tcp/1",
                "/dns/b.c.EXAMPLE.com./tcp/2",
                true,
            ),
            ("/dns4/example.com/tcp/1", "/dnsaddr/b.example.com", true),
            (
                "/dns4/a.example.com/tcp/1",
                "/dns4/a.example.org/tcp/1",
                false,
            ),
        ] {
            assert_eq!(group(one) == group(other), same, "{one} {other}");
            assert!(group(one).is_some() && group(other).is_some());
        }
    }

    #[test]
    fn a_group_is_the_same_by_its_number_and_nothing_else_is_one() {
        let relay = PeerId::random();
        for address in [
            "/ip4/8.8.1.1/tcp/1",
            "/ip6/2a01:4f8:1::1/tcp/1",
            "/ip6/2001:470:1fff::1/tcp/1",
            "/dns4/a.example.com/tcp/1",
            &format!("/ip4/8.8.8.8/tcp/1/p2p/{relay}/p2p-circuit"),
            &format!("/onion3/{}:1", "a".repeat(56)),
        ] {
            let group = group(address).expect("a group");
            assert_eq!(Group::from_number(group.number()), Some(group), "{address}");
            let claimed = group.claimed().number();
            assert_eq!(Group::from_number(claimed), Some(group), "{address}");
            assert_eq!(Group::from_number(group.number() | CLAIMED), None);
            assert_eq!(Group::from_number(group.number() & !1), None);
        }
        // Numbers that this version writes must mean the same in the next one.
        assert_eq!(
            group("/ip4/8.9.1.1/tcp/1").map(Group::number),
            Some(1 << 56 | 0x0809 << 1 | 1)
        );
        for number in [
            0,
            1,
            u64::MAX,
            7 << KIND | 1,
            IP6 | 0xffff_ffff_ffff << 1 | 1,
        ] {
            assert_eq!(Group::from_number(number), None, "{number:x}");
        }
    }

    #[test]
    fn sites_of_a_group_are_told_apart_by_48_bits() {
        let site = |address| Site::of(&at(address));
        let one = site("/ip6/2a01:4f8:1::1/tcp/1");
        assert_eq!(one, site("/ip6/2a01:4f8:1:ffff::1/tcp/1"));
        assert_ne!(one, site("/ip6/2a01:4f8:2::1/tcp/1"));
        assert_eq!(
            one.map(Site::group),
            site("/ip6/2a01:4f8:2::1/tcp/1").map(Site::group)
        );
    }

    #[test]
    fn what_goes_through_a_relay_is_in_the_relays_group_wherever_that_is() {
        let (relay, other) = (PeerId::random(), PeerId::random());
        let through = |ip: &str, relay| group(&format!("/ip4/{ip}/tcp/1/p2p/{relay}/p2p-circuit"));
        assert_eq!(through("8.8.8.8", relay), through("10.0.0.1", relay));
        assert_ne!(through("8.8.8.8", relay), through("8.8.8.8", other));
        assert_ne!(through("8.8.8.8", relay), group("/ip4/8.8.8.8/tcp/1"));
        assert!(through("10.0.0.1", relay).is_some());
    }

    #[test]
    fn private_networks_have_no_groups() {
        for address in [
            "/ip4/10.0.0.1/tcp/1",
            "/ip4/192.168.1.1/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/169.254.169.254/tcp/80",
            "/ip4/100.64.0.1/tcp/1",
            "/ip6/::1/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/ip6/fd00::1/tcp/1",
            "/ip6/::ffff:192.168.1.1/tcp/1",
            "/ip6/64:ff9b::7f00:1/tcp/1",
            "/memory/7",
        ] {
            assert_eq!(group(address), None, "{address}");
        }
    }

    #[test]
    fn what_is_neither_ip_nor_name_is_one_group_for_its_kind() {
        let onion = |c: &str| group(&format!("/onion3/{}:1", c.repeat(56)));
        assert_eq!(onion("a"), onion("b"));
        assert!(onion("a").is_some());
    }

    #[test]
    fn every_address_has_its_reach() {
        for (address, reach) in [
            ("/ip4/127.0.0.1/tcp/1", Reach::Machine),
            ("/ip4/0.0.0.0/tcp/1", Reach::Machine),
            ("/ip6/::1/tcp/1", Reach::Machine),
            ("/ip6/::/tcp/1", Reach::Machine),
            ("/memory/1", Reach::Machine),
            ("/dns4/localhost/tcp/1", Reach::Machine),
            ("/dns4/printer.local/tcp/1", Reach::Local),
            ("/ip4/192.168.1.1/tcp/80", Reach::Local),
            ("/ip4/169.254.169.254/tcp/80", Reach::Local),
            ("/ip6/fe80::1/tcp/1", Reach::Local),
            ("/ip6/2002:c0a8:101::1/tcp/1", Reach::Local),
            ("/ip4/224.0.0.251/udp/5353", Reach::Local),
            ("/ip4/255.255.255.255/udp/1", Reach::Local),
            ("/ip6/ff02::1/udp/1", Reach::Local),
            ("/ip4/8.8.8.8/tcp/1", Reach::Public),
            ("/dns4/example.com/tcp/1", Reach::Public),
        ] {
            assert_eq!(Reach::of(&at(address)), reach, "{address}");
        }
    }
}
