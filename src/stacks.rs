//! Which stacks of protocols this node can dial.
//!
//! Of the addresses that failed before another one succeeded the swarm tells no errors. That no transport speaks such an
//! address is said at once, so that it would stand among them each time, as if the peer did not answer there. Only where
//! a stack gave anything else once is a failure of it the address's.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use libp2p_core::Multiaddr;

use crate::recent::Recent;

/// How many stacks are remembered. A node has a dozen at most; peers may invent others.
const MAX_STACKS: usize = 256;

/// Stacks are the protocols of an address, in order and without their values: `/ip4/udp/quic-v1`.
#[derive(Debug)]
pub(crate) struct Stacks {
    dialled: Recent<()>,
    secret: RandomState,
}

impl Default for Stacks {
    fn default() -> Self {
        Self {
            dialled: Recent::new(MAX_STACKS),
            secret: RandomState::new(),
        }
    }
}

impl Stacks {
    /// A transport dialled the address, whatever came of it.
    pub(crate) fn dialled(&mut self, address: &Multiaddr) {
        self.dialled.note(self.key(address), ());
    }

    /// Whether a transport of this run has dialled an address like this one.
    pub(crate) fn are_known_of(&self, address: &Multiaddr) -> bool {
        self.dialled.get(self.key(address)).is_some()
    }

    fn key(&self, address: &Multiaddr) -> u64 {
        let mut hasher = self.secret.build_hasher();
        // Whether the id of the peer stands at the end makes no other stack.
        let tags = address.protocol_stack().filter(|tag| *tag != "p2p");
        tags.for_each(|tag| tag.hash(&mut hasher));
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_what_an_address_is_made_of_without_values() {
        let at = |text: &str| text.parse::<Multiaddr>().expect("a multiaddr");
        let mut stacks = Stacks::default();
        stacks.dialled(&at("/ip4/192.0.2.1/udp/1/quic-v1"));
        let id = "12D3KooWFEQvgU4qPPJLwdTqsMkZKFD4zpgHYworfyUW79QyqAs6";
        assert!(stacks.are_known_of(&at(&format!("/ip4/192.0.2.9/udp/4001/quic-v1/p2p/{id}"))));
        for other in [
            "/ip6/2001:db8::1/udp/1/quic-v1",
            "/ip4/192.0.2.1/tcp/1",
            "/ip4/192.0.2.1/udp/1",
            "/ip4/192.0.2.1/udp/1/quic-v1/webtransport",
        ] {
            assert!(!stacks.are_known_of(&at(other)), "{other}");
        }
    }
}
