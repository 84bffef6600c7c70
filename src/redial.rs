//! Dials that the behaviour starts by itself: back to remembered peers at start, and feelers to unproven addresses.
//! Both are off by default.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroUsize,
    time::Duration,
};

use libp2p_core::{Multiaddr, multiaddr::Protocol};
use libp2p_identity::PeerId;
use libp2p_swarm::{
    ConnectionId,
    dial_opts::{DialOpts, PeerCondition},
};

/// Dialling remembered peers at start, see
/// [`PeerStoreBehaviour::with_redial`](crate::PeerStoreBehaviour::with_redial).
#[derive(Debug)]
pub(crate) struct Redial {
    /// Connections to have in the end.
    connections: usize,
    parallel: usize,
    peers: VecDeque<PeerId>,
    dialling: HashMap<ConnectionId, PeerId>,
}

impl Redial {
    pub(crate) fn new(
        connections: NonZeroUsize,
        parallel: NonZeroUsize,
        peers: Vec<PeerId>,
    ) -> Self {
        Self {
            connections: connections.get(),
            parallel: parallel.get(),
            peers: peers.into(),
            dialling: HashMap::new(),
        }
    }

    /// The next dial, if one is due while so many peers are connected.
    pub(crate) fn next(&mut self, connected: usize) -> Option<DialOpts> {
        let wanted = self.connections.saturating_sub(connected);
        if self.dialling.len() >= wanted.min(self.parallel) {
            return None;
        }
        let peer = self.peers.pop_front()?;
        let opts = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .build();
        self.dialling.insert(opts.connection_id(), peer);
        Some(opts)
    }

    /// A dial has come to its end.
    pub(crate) fn ended(&mut self, connection: ConnectionId) -> bool {
        self.dialling.remove(&connection).is_some()
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_done(&self, connected: usize) -> bool {
        self.dialling.is_empty() && (self.peers.is_empty() || connected >= self.connections)
    }
}

/// How long one IP address, and its neighbourhood (/24, or /48 for IPv6), are left in peace after a feeler.
const PER_IP: Duration = Duration::from_secs(10 * 60);
const PER_NEIGHBOURHOOD: Duration = Duration::from_secs(60);

/// Targets that are remembered for that; when they are full, no feeler goes out.
const MAX_TARGETS: usize = 4_096;

/// Dialling an unproven address now and then, see
/// [`PeerStoreBehaviour::with_feelers`](crate::PeerStoreBehaviour::with_feelers).
#[derive(Debug)]
pub(crate) struct Feelers {
    interval: Duration,
    next: Duration,
    /// Until when a target is left in peace: an IP address (all bits) or a neighbourhood (the rest zero).
    targets: HashMap<Target, Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Target {
    Ip(u128),
    Neighbourhood(u128),
}

impl Feelers {
    pub(crate) fn new(interval: Duration, now: Duration) -> Self {
        Self {
            interval,
            next: now.saturating_add(interval),
            targets: HashMap::new(),
        }
    }

    /// When the next feeler is due.
    pub(crate) fn due(&self) -> Duration {
        self.next
    }

    /// The moment has come: sets the next one, and tries the candidates until one may be dialled.
    pub(crate) fn pick(
        &mut self,
        candidates: impl IntoIterator<Item = (PeerId, Multiaddr)>,
        now: Duration,
    ) -> Option<DialOpts> {
        self.next = now.saturating_add(self.interval);
        self.targets.retain(|_, until| *until > now);
        let (peer, address) = candidates
            .into_iter()
            .find(|(_, address)| self.take(address, now))?;
        let opts = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(vec![address])
            .build();
        Some(opts)
    }

    /// Whether the target of the address is not to be left in peace; from now on it is.
    fn take(&mut self, address: &Multiaddr, now: Duration) -> bool {
        let Some([ip, neighbourhood]) = targets(address) else {
            // A name may lead to anybody, and a relay is somebody's who has done nothing.
            return false;
        };
        let in_peace = |target| self.targets.contains_key(target);
        if in_peace(&ip) || in_peace(&neighbourhood) || self.targets.len() + 2 > MAX_TARGETS {
            return false;
        }
        self.targets.insert(ip, now.saturating_add(PER_IP));
        self.targets
            .insert(neighbourhood, now.saturating_add(PER_NEIGHBOURHOOD));
        true
    }
}

fn targets(address: &Multiaddr) -> Option<[Target; 2]> {
    if address.iter().any(|part| part == Protocol::P2pCircuit) {
        return None;
    }
    let (ip, shift) = match address.iter().next()? {
        Protocol::Ip4(ip) => (u128::from(ip.to_bits()), 8),
        Protocol::Ip6(ip) => (ip.to_bits(), 80),
        _ => return None,
    };
    Some([Target::Ip(ip), Target::Neighbourhood(ip >> shift)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(address: &str) -> (PeerId, Multiaddr) {
        (PeerId::random(), address.parse().expect("a multiaddr"))
    }

    fn size(n: usize) -> NonZeroUsize {
        NonZeroUsize::new(n).expect("not zero")
    }

    #[test]
    fn redial_keeps_so_many_dials_under_way_and_stops_at_so_many_connections() {
        let peers: Vec<PeerId> = (0..10).map(|_| PeerId::random()).collect();
        let mut redial = Redial::new(size(4), size(3), peers.clone());
        let dials: Vec<DialOpts> = std::iter::from_fn(|| redial.next(0)).collect();
        assert_eq!(dials.len(), 3);
        assert_eq!(dials[0].get_peer_id(), Some(peers[0]));
        for dial in &dials {
            assert!(redial.ended(dial.connection_id()));
            assert!(!redial.ended(dial.connection_id()), "once");
        }
        assert!(redial.next(3).is_some(), "one is wanting");
        assert!(redial.next(3).is_none(), "and under way");
        assert!(redial.next(4).is_none());
        assert!(!redial.is_done(4), "one is still under way");
    }

    #[test]
    fn a_target_is_left_in_peace_after_a_feeler() {
        let mut feelers = Feelers::new(MINUTE, Duration::ZERO);
        let mut pick = |address, minutes| feelers.pick([at(address)], MINUTE * minutes).is_some();
        assert!(pick("/ip4/192.0.2.1/tcp/1", 1));
        assert!(
            !pick("/ip4/192.0.2.1/tcp/2", 1),
            "the same host, another port"
        );
        assert!(!pick("/ip4/192.0.2.2/tcp/1", 1), "its neighbour");
        assert!(
            pick("/ip4/192.0.2.2/tcp/1", 2),
            "its neighbour a minute later"
        );
        assert!(!pick("/ip4/192.0.2.1/tcp/1", 10));
        assert!(pick("/ip4/192.0.2.1/tcp/1", 11));
        assert!(pick("/ip6/2001:db8::1/tcp/1", 1));
        assert!(!pick("/ip6/2001:db8::2/tcp/1", 1));
        assert!(pick("/ip6/2001:db8:1::2/tcp/1", 1));
        assert!(!pick("/dns4/example.com/tcp/1", 1));
    }

    #[test]
    fn the_first_candidate_that_may_be_dialled_is() {
        let mut feelers = Feelers::new(MINUTE, Duration::ZERO);
        let (a, b) = (at("/dns4/example.com/tcp/1"), at("/ip4/192.0.2.1/tcp/1"));
        let dial = feelers.pick([a, b.clone()], MINUTE);
        assert_eq!(dial.and_then(|dial| dial.get_peer_id()), Some(b.0));
        assert_eq!(feelers.due(), MINUTE * 2);
    }
}
