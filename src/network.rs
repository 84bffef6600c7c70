//! Whether a failed dial says something about the address, or only that this node is offline.
//!
//! A failure is provisional. It counts when, in its scope, the network proved to work before it and again after it,
//! and the silence between the two proofs is nothing unusual for this node; else it is dropped. So an outage leaves
//! no trace, whatever else still works, however many dials fail in it, and whether it is noticed or not.
//!
//! ```text
//! believed silence = 4 · usual silence,    at least 1 minute, at most 10
//! usual silence    = Σ silence² / Σ silence,    each halved for every hour that passes
//! ```
//!
//! Of a silence that is longer than believed only as much counts, in both sums and as time that passes.
//!
//! That is the length of the silence in which a random moment falls, so that proofs which come in bursts do not hide
//! the pauses between them. Where proofs come at random, 99 of 100 moments lie in a silence that is no longer than
//! four times that. A busy node, which has a proof every few seconds, so takes more than a minute for an outage; one
//! that only now and then has one believes in ten minutes, since it would learn of no failure otherwise.

use std::{collections::VecDeque, time::Duration};

use libp2p_core::{ConnectedPoint, Multiaddr, multiaddr::Protocol};
use libp2p_identity::PeerId;

use crate::{group::Reach, silent::Silent};

/// A silence between two proofs that is always believed to be one in which the network worked, and the longest that
/// ever is.
const SHORT: f64 = 60.0;
const LONGEST: f64 = 10.0 * 60.0;

/// More than so many times the usual silence is taken for an outage.
const UNUSUAL: f64 = 4.0;

/// After so many seconds that count a silence has lost half of its weight.
const HALF_LIFE: f64 = 60.0 * 60.0;

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
    pub(crate) const ALL: [Self; Self::COUNT] = [Self::Ip4, Self::Ip6, Self::Private, Self::Relay];

    /// The scope of a connection. Of a peer that came through a relay only its id is to be seen.
    pub(crate) fn of_connection(endpoint: &ConnectedPoint) -> Self {
        match endpoint.is_relayed() {
            true => Scope::Relay,
            false => Scope::of(endpoint.get_remote_address()),
        }
    }

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
    /// What said nothing when it was dialled, whether that may count later or not.
    pub(crate) silent: Silent,
}

#[derive(Debug)]
struct Works {
    proof: Option<Duration>,
    /// The decayed sums of the silences between proofs, in seconds, and of their squares.
    silence: f64,
    squares: f64,
    /// Failures since the last proof.
    provisional: VecDeque<Failure>,
}

impl Default for Works {
    /// As if there had been a minute of experience, by which the longest silence is believed.
    fn default() -> Self {
        Self {
            proof: None,
            silence: SHORT,
            squares: SHORT * LONGEST / UNUSUAL,
            provisional: VecDeque::new(),
        }
    }
}

impl Works {
    /// A silence of so many seconds is over. Returns whether the network worked in it.
    fn heard_after(&mut self, silence: f64) -> bool {
        let believed = (UNUSUAL * self.squares / self.silence).clamp(SHORT, LONGEST);
        // One outage is not to make the next one usual, however long it was: nor do the silences before it age by it. A
        // node that has become quiet gets used to it step by step.
        let counted = silence.min(believed);
        let keep = (-counted / HALF_LIFE).exp2();
        self.silence = self.silence * keep + counted;
        self.squares = self.squares * keep + counted * counted;
        silence <= believed
    }
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
        let worked = before
            .is_some_and(|before| works.heard_after(now.saturating_sub(before).as_secs_f64()));
        let failures = std::mem::take(&mut works.provisional);
        if worked {
            return failures;
        }
        self.silent.clear_scope(scope);
        VecDeque::new()
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

    /// What became of failures while online and in outages.
    #[derive(Debug, Default)]
    struct Counts {
        online: [usize; 2],
        outage: [usize; 2],
    }

    /// A day in which one dial of twenty is a success, at random, with an outage of `outage` seconds every hour: a
    /// failure each `pause` seconds.
    fn a_day(pause: f64, outage: f64, seed: u64) -> Counts {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut network, mut counts) = (Network::default(), Counts::default());
        let mut waiting = Vec::new();
        let failed = failure("/ip4/192.0.2.1/tcp/1");
        let mut at = 0.0;
        while at < 24.0 * 3_600.0 {
            at += pause;
            let offline = at > 3_600.0 && at % 3_600.0 < outage;
            if !offline && random.f64() < 0.05 {
                let counted = network.proved(Scope::Ip4, Duration::from_secs_f64(at));
                assert!(counted.is_empty() || counted.len() == waiting.len());
                for offline in waiting.drain(..) {
                    let count = match offline {
                        true => &mut counts.outage,
                        false => &mut counts.online,
                    };
                    count[0] += 1;
                    count[1] += usize::from(!counted.is_empty());
                }
            } else if waiting.len() < MAX_PROVISIONAL {
                waiting.push(offline);
                network.failed(failed.clone());
            }
        }
        counts
    }

    #[test]
    fn online_nearly_every_failure_counts_at_any_pace_and_none_of_a_short_outage() {
        // A dial each third of a second (ten thousand an hour), each second, every five seconds.
        for (pause, outage) in [(0.36, 120.0), (1.0, 300.0), (5.0, 0.0)] {
            for seed in 0..5 {
                let counts = a_day(pause, outage, seed);
                let ([online, counted], [offline, of_outages]) = (counts.online, counts.outage);
                let share = counted as f64 / online as f64;
                assert!(share >= 0.95, "{pause} s, seed {seed}: {share}");
                assert!(offline > 0 || outage == 0.0);
                assert_eq!(of_outages, 0, "{pause} s, seed {seed}, of {offline}");
            }
        }
    }

    #[test]
    fn a_node_that_has_become_quiet_gets_used_to_it() {
        let mut network = Network::default();
        let mut now = Duration::ZERO;
        for _ in 0..1_000 {
            now += Duration::from_secs(5);
            network.proved(Scope::Ip4, now);
        }
        let mut counts = Vec::new();
        for _ in 0..60 {
            network.failed(failure("/ip4/192.0.2.1/tcp/1"));
            now += Duration::from_secs(240);
            counts.push(network.proved(Scope::Ip4, now).len());
        }
        assert_eq!(counts[0], 0, "as in an outage");
        assert_eq!(counts[55..], [1; 5], "{counts:?}");
    }

    #[test]
    fn after_an_outage_of_any_length_the_next_one_is_believed_no_sooner() {
        for hours in [1, 9, 48] {
            let mut network = Network::default();
            let mut now = Duration::ZERO;
            let mut pass = |network: &mut Network, silence: Duration| {
                network.failed(failure("/ip4/192.0.2.1/tcp/1"));
                now += silence;
                !network.proved(Scope::Ip4, now).is_empty()
            };
            for _ in 0..3_600 {
                pass(&mut network, Duration::from_secs(2));
            }
            assert!(!pass(&mut network, 60 * hours * MINUTE));
            assert!(pass(&mut network, MINUTE), "{hours} h");
            assert!(!pass(&mut network, MINUTE * 3 / 2), "{hours} h");
        }
    }

    #[test]
    fn bursts_of_proofs_do_not_hide_the_pauses_between_them() {
        let mut network = Network::default();
        for minute in 0..600_u32 {
            for second in 0..20 {
                let at = MINUTE * (5 * minute) + Duration::from_secs(second);
                network.proved(Scope::Ip4, at);
            }
            network.failed(failure("/ip4/192.0.2.1/tcp/1"));
        }
        assert_eq!(network.proved(Scope::Ip4, MINUTE * (5 * 600)).len(), 1);
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
