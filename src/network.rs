//! Whether a failed dial says something about the address, or only that this node is offline.
//!
//! A failure is provisional. It counts when, in its scope, the network proved to work before it and again after
//! it, with at most [`MAX_GAP`] between the two; else it is dropped. So an outage that is longer than that leaves
//! no trace, whatever else still works, and however many dials fail in it.

use std::{collections::VecDeque, time::Duration};

use libp2p_core::{Multiaddr, multiaddr::Protocol};
use libp2p_identity::PeerId;

use crate::group::Reach;

/// The longest time between two proofs in which the network counts as working throughout.
const MAX_GAP: Duration = Duration::from_secs(10 * 60);

/// Failures of one scope that wait for a proof; the oldest are dropped beyond.
const MAX_PROVISIONAL: usize = 1_024;

/// Parts of the network that work or fail together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// The public internet by IPv4, and names.
    Ip4,
    /// The public internet by IPv6.
    Ip6,
    /// This machine and its local networks.
    Private,
    /// Through a relay, wherever that is.
    Relay,
}

impl Scope {
    const COUNT: usize = 4;

    pub(crate) fn of(address: &Multiaddr) -> Self {
        if address.iter().any(|p| p == Protocol::P2pCircuit) {
            return Scope::Relay;
        }
        if Reach::of(address) != Reach::Public {
            return Scope::Private;
        }
        match address.iter().next() {
            // The system sends it by IPv4. What else has an IPv4 address inside goes by IPv6.
            Some(Protocol::Ip6(ip)) if ip.to_ipv4_mapped().is_some() => Scope::Ip4,
            Some(Protocol::Ip6(_) | Protocol::Dns6(_)) => Scope::Ip6,
            _ => Scope::Ip4,
        }
    }
}

/// A failure that may count later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) peer: PeerId,
    pub(crate) address: Multiaddr,
}

/// What is known about the network, by scope.
#[derive(Debug, Default)]
pub(crate) struct Network {
    scopes: [Works; Scope::COUNT],
}

#[derive(Debug, Default)]
struct Works {
    proof: Option<Duration>,
    /// Failures since the last proof.
    provisional: VecDeque<Failure>,
}

impl Network {
    /// A dial failed. It waits for the next proof.
    pub(crate) fn failed(&mut self, failure: Failure) {
        let works = &mut self.scopes[Scope::of(&failure.address) as usize];
        if works.provisional.len() >= MAX_PROVISIONAL {
            works.provisional.pop_front();
        }
        works.provisional.push_back(failure);
    }

    /// Something proved that a scope works. Returns the failures that count now, oldest first; those that do not
    /// are dropped.
    pub(crate) fn proved(&mut self, scope: Scope, now: Duration) -> VecDeque<Failure> {
        let works = &mut self.scopes[scope as usize];
        let before = works.proof.replace(now);
        if works.provisional.is_empty() {
            return VecDeque::new();
        }
        let failures = std::mem::take(&mut works.provisional);
        match before {
            Some(before) if now.saturating_sub(before) <= MAX_GAP => failures,
            _ => VecDeque::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn failure(address: &str) -> Failure {
        Failure {
            peer: PeerId::random(),
            address: address.parse().expect("a multiaddr"),
        }
    }

    #[test]
    fn a_failure_between_two_proofs_counts() {
        let mut network = Network::default();
        network.proved(Scope::Ip4, MINUTE);
        let failed = failure("/ip4/192.0.2.1/tcp/1");
        network.failed(failed.clone());
        assert_eq!(network.proved(Scope::Ip4, MINUTE * 2), [failed]);
        assert!(network.proved(Scope::Ip4, MINUTE * 3).is_empty(), "once");
    }

    #[test]
    fn an_outage_leaves_no_trace_even_with_a_neighbour_that_answers() {
        let mut network = Network::default();
        network.proved(Scope::Ip4, Duration::ZERO);
        for second in 0..3_600 {
            network.failed(failure("/ip4/192.0.2.1/tcp/1"));
            network.proved(Scope::Private, Duration::from_secs(second));
        }
        assert!(network.proved(Scope::Ip4, MINUTE * 61).is_empty());
        network.failed(failure("/ip4/192.0.2.1/tcp/1"));
        assert_eq!(network.proved(Scope::Ip4, MINUTE * 62).len(), 1);
    }

    #[test]
    fn the_first_proof_of_a_run_confirms_nothing() {
        let mut network = Network::default();
        network.failed(failure("/ip6/2001:db8::1/tcp/1"));
        assert!(network.proved(Scope::Ip6, MINUTE).is_empty());
    }

    #[test]
    fn failures_that_wait_are_bounded() {
        let mut network = Network::default();
        network.proved(Scope::Ip4, Duration::ZERO);
        (0..10_000).for_each(|_| network.failed(failure("/ip4/192.0.2.1/tcp/1")));
        assert_eq!(network.proved(Scope::Ip4, MINUTE).len(), MAX_PROVISIONAL);
    }

    #[test]
    fn every_address_has_its_scope() {
        for (address, scope) in [
            ("/ip4/8.8.8.8/tcp/1", Scope::Ip4),
            ("/dns4/example.com/tcp/1", Scope::Ip4),
            ("/ip6/2001:db8::1/udp/1/quic-v1", Scope::Ip6),
            ("/ip6/::ffff:10.0.0.1/tcp/1", Scope::Private),
            ("/ip6/::ffff:8.8.8.8/tcp/1", Scope::Ip4),
            ("/ip4/10.0.0.1/tcp/1", Scope::Private),
            ("/ip4/127.0.0.1/tcp/1", Scope::Private),
            ("/ip4/169.254.1.1/tcp/1", Scope::Private),
            ("/ip4/100.64.0.1/tcp/1", Scope::Private),
            ("/ip6/::1/tcp/1", Scope::Private),
            ("/ip6/fe80::1/tcp/1", Scope::Private),
            ("/ip6/fd00::1/tcp/1", Scope::Private),
            // As everywhere else: this host, and the IPv4 address inside.
            ("/ip4/0.0.0.0/tcp/1", Scope::Private),
            ("/ip4/0.1.2.3/tcp/1", Scope::Private),
            ("/ip6/::/tcp/1", Scope::Private),
            ("/ip6/2002:c0a8:101::1/tcp/1", Scope::Private),
            ("/ip6/64:ff9b::a00:1/tcp/1", Scope::Private),
            ("/ip6/64:ff9b::808:808/tcp/1", Scope::Ip6),
            ("/dns4/localhost/tcp/1", Scope::Private),
            ("/dns6/example.com/tcp/1", Scope::Ip6),
            ("/memory/7", Scope::Private),
            (
                "/ip4/8.8.8.8/tcp/1/p2p/12D3KooWFEQvgU4qPPJLwdTqsMkZKFD4zpgHYworfyUW79QyqAs6/p2p-circuit",
                Scope::Relay,
            ),
        ] {
            assert_eq!(
                Scope::of(&address.parse().expect("a multiaddr")),
                scope,
                "{address}"
            );
        }
    }
}
