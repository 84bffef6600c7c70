//! Filters for the addresses that are learnt from the network.

use libp2p_core::{Multiaddr, multiaddr::Protocol};
use libp2p_identity::PeerId;

use crate::{address::protocols, group::Reach};

/// Which addresses are learnt: a function of the peer and of what was told of it.
///
/// See [`Config::with_address_filter`](crate::Config::with_address_filter); [`public_only`] and [`dialable_only`] are
/// ready-made. Any `Fn(&PeerId, &Multiaddr) -> bool` is one.
pub trait AddressFilter: Send + Sync + 'static {
    /// Whether an address may be learnt. Called before the store's lock is taken: it may use the store, and it holds
    /// up the swarm for as long as it takes.
    fn admits(&self, peer: &PeerId, address: &Multiaddr) -> bool;
}

impl<F> AddressFilter for F
where
    F: Fn(&PeerId, &Multiaddr) -> bool + Send + Sync + 'static,
{
    fn admits(&self, peer: &PeerId, address: &Multiaddr) -> bool {
        self(peer, address)
    }
}

/// Admits addresses of the public internet only: none that is private, shared (carrier NAT), link-local, loopback,
/// unspecified, multicast or reserved, nor any within the process. Names are admitted, but for those under
/// `localhost` and `local`. For an address through a relay, the relay's own address counts.
pub fn public_only(_: &PeerId, address: &Multiaddr) -> bool {
    is_public(address.as_ref())
}

/// As [`public_only`], for the bytes of an address.
pub(crate) fn is_public(address: &[u8]) -> bool {
    let is_group = protocols(address).any(|protocol| match protocol {
        Protocol::Ip4(ip) => ip.is_multicast() || ip.octets()[0] >= 240,
        Protocol::Ip6(ip) => ip.is_multicast(),
        _ => false,
    });
    Reach::of(address) == Reach::Public && !is_group
}

/// Admits addresses for which one of the given transports exists, by name as in the text form of a multiaddr. Each is
/// a list of protocols that the address must have after its IP address or name, in this order, and no other ones;
/// what follows `p2p` does not count, so that a way through a relay is admitted when the relay can be reached.
///
/// ```
/// use libp2p_identity::PeerId;
/// use libp2p_peerstore::{AddressFilter, Config, dialable_only};
///
/// // What a node with TCP, QUIC and secure websockets can dial.
/// let filter = dialable_only([&["tcp"][..], &["udp", "quic-v1"], &["tcp", "tls", "ws"]]);
/// let peer = PeerId::random();
/// assert!(filter.admits(&peer, &"/ip4/192.0.2.1/udp/4001/quic-v1".parse()?));
/// assert!(!filter.admits(&peer, &"/ip4/192.0.2.1/udp/4001/webrtc-direct".parse()?));
/// let config = Config::default().with_address_filter(filter);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub fn dialable_only<'a>(
    transports: impl IntoIterator<Item = &'a [&'a str]>,
) -> impl AddressFilter {
    let transports = transports.into_iter();
    let transports: Vec<Vec<String>> = transports
        .map(|names| names.iter().map(|name| (*name).to_owned()).collect())
        .collect();
    move |_: &PeerId, address: &Multiaddr| {
        let told = address.iter();
        let told = told.take_while(|protocol| !matches!(protocol, Protocol::P2p(_)));
        let told: Vec<&str> = told
            .filter(|protocol| !is_host(protocol))
            .map(|protocol| protocol.tag())
            .collect();
        transports.iter().any(|names| *names == told)
    }
}

fn is_host(protocol: &Protocol<'_>) -> bool {
    matches!(
        protocol,
        Protocol::Ip4(_)
            | Protocol::Ip6(_)
            | Protocol::Ip6zone(_)
            | Protocol::Dns(_)
            | Protocol::Dns4(_)
            | Protocol::Dns6(_)
            | Protocol::Dnsaddr(_)
            | Protocol::Certhash(_)
            | Protocol::Sni(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Multiaddr {
        address.parse().expect("a multiaddr")
    }

    #[test]
    fn public_only_admits_what_can_be_reached_from_everywhere() {
        let admits = |address: &str| public_only(&PeerId::random(), &at(address));
        for address in [
            "/ip4/8.8.8.8/tcp/1",
            "/ip6/2a01:4f8::1/udp/1/quic-v1",
            "/dns4/example.com/tcp/1",
        ] {
            assert!(admits(address), "{address}");
        }
        for address in [
            "/ip4/10.0.0.1/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/169.254.169.254/tcp/80",
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/224.0.0.1/tcp/1",
            "/ip4/255.255.255.255/tcp/1",
            "/ip6/::1/tcp/1",
            "/ip6/fd00::1/tcp/1",
            "/ip6/ff02::1/tcp/1",
            "/ip6/64:ff9b::a00:1/tcp/1",
            "/dns4/localhost/tcp/1",
            "/memory/1",
        ] {
            assert!(!admits(address), "{address}");
        }
    }

    #[test]
    fn dialable_only_admits_the_given_transports_and_ways_through_relays_that_have_them() {
        let filter = dialable_only([&["tcp"][..], &["udp", "quic-v1"]]);
        let (peer, relay) = (PeerId::random(), PeerId::random());
        let admits = |address: &str| filter.admits(&peer, &at(address));
        assert!(admits("/ip4/8.8.8.8/tcp/1"));
        assert!(admits("/dns4/example.com/udp/1/quic-v1"));
        assert!(admits(&format!(
            "/ip4/8.8.8.8/tcp/1/p2p/{relay}/p2p-circuit"
        )));
        assert!(!admits("/ip4/8.8.8.8/tcp/1/ws"));
        assert!(!admits("/ip4/8.8.8.8/udp/1/quic"));
        assert!(!admits(&format!(
            "/ip4/8.8.8.8/tcp/1/ws/p2p/{relay}/p2p-circuit"
        )));
    }
}
