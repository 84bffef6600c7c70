//! A million invented peers into a store with ten thousand places, of which a thousand are proven.

use std::{
    collections::HashMap, net::Ipv4Addr, num::NonZeroUsize, ops::ControlFlow, time::Duration,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    multiaddr::Protocol,
    multihash::Multihash,
    swarm::{
        ConnectionClosed, ConnectionId, FromSwarm, NetworkBehaviour,
        behaviour::ConnectionEstablished,
    },
};
use libp2p_peerstore::{Config, ManualClock, PeerStore, PeerStoreBehaviour, Source, Standing};

use crate::random::hash;

const CAPACITY: usize = 10_000;
const PROVEN: u64 = 1_000;
const INVENTED: u64 = 1_000_000;
/// A newcomer is to be known still after so many others came.
const PATIENCE: u64 = 10_000;
/// Restarts, and peers to dial first at each.
const RESTARTS: usize = 1_000;
const PICKS: usize = 16;

/// Where the honest peers live: no invented one comes from their /16 groups, unless it is said.
const HONEST: u64 = 1 << 20;
/// One of them.
const VICTIM: u64 = HONEST + 7;

#[derive(Clone, Copy)]
enum Way {
    /// Kademlia tells of peers in so many address groups.
    Hearsay { groups: u64 },
    /// Kademlia tells of peers in the group of an honest peer.
    HearsayInVictimsGroup,
    /// Peers connect from so many groups, and tell of themselves.
    Identify { groups: u64 },
}

pub fn run() {
    println!("{INVENTED} invented peers into {CAPACITY} places with {PROVEN} proven");
    println!(
        "  {:44} {:>8} {:>9} {:>14} {:>9}",
        "flood", "proven", "hearsay", "largest source", "newcomer"
    );
    for (title, way) in [
        ("hearsay, 4 groups", Way::Hearsay { groups: 4 }),
        ("hearsay, 200 groups", Way::Hearsay { groups: 200 }),
        ("hearsay, 65,536 groups", Way::Hearsay { groups: 65_536 }),
        (
            "hearsay, all in an honest peer's group",
            Way::HearsayInVictimsGroup,
        ),
        (
            "identify over inbound, 1 remote group",
            Way::Identify { groups: 1 },
        ),
        (
            "identify over inbound, 50 remote groups",
            Way::Identify { groups: 50 },
        ),
        (
            "identify over inbound, 2,000 remote groups",
            Way::Identify { groups: 2_000 },
        ),
    ] {
        flood(title, way);
    }
    bootstrap();
}

fn flood(title: &str, way: Way) {
    let mut node = Node::new();
    let proven: Vec<PeerId> = (0..PROVEN)
        .map(|peer| node.proven(peer, HONEST + peer % 250))
        .collect();
    let mut sources: HashMap<PeerId, u64> = HashMap::new();
    let (mut newcomers, mut known) = (Vec::new(), 0);
    for arrival in 0..INVENTED {
        let peer = id(INVENTED + arrival);
        match way {
            Way::Hearsay { groups } => node.told(peer, address(arrival % groups, arrival)),
            Way::HearsayInVictimsGroup => node.told(peer, address(VICTIM, arrival)),
            Way::Identify { groups } => {
                sources.insert(peer, arrival % groups);
                node.identified(
                    peer,
                    address(arrival % groups, arrival),
                    address(hash(arrival), arrival),
                );
            }
        }
        if arrival % 100 == 0 {
            node.clock.advance(Duration::from_secs(1));
        }
        // Now and then an honest peer connects from its own group and tells of itself, and goes.
        if arrival % PATIENCE == 0 && arrival + PATIENCE < INVENTED {
            let peer = id(3 * INVENTED + arrival);
            let home = address(HONEST + 300 + arrival / PATIENCE, arrival);
            node.identified(peer, home.clone(), home);
            newcomers.push((arrival + PATIENCE, peer));
        }
        if let Some((_, peer)) = newcomers
            .first()
            .copied()
            .filter(|(at, _)| *at == arrival + 1)
        {
            newcomers.remove(0);
            known += u64::from(node.store().contains(&peer));
        }
    }
    let kept = proven
        .iter()
        .filter(|peer| node.store().contains(peer))
        .count() as u64;
    let (mut hearsay, mut by_source) = (0_usize, HashMap::<u64, usize>::new());
    node.store().for_each(|peer| {
        let best = peer.addresses.iter().map(|info| info.standing).max();
        hearsay += usize::from(best == Some(Standing::Hearsay));
        if let Some(source) = sources.get(&peer.id) {
            *by_source.entry(*source).or_default() += 1;
        }
        ControlFlow::<()>::Continue(())
    });
    let largest = by_source.values().copied().max().unwrap_or_default();
    let full = node.store().len() >= CAPACITY;
    let verdict = |holds: bool| if holds { "ok" } else { "MISSED" };
    println!(
        "  {title:44} {:>8} {:>9} {:>14} {:>9}",
        format!("{kept} {}", verdict(kept == PROVEN)),
        format!(
            "{hearsay} {}",
            verdict(!full || hearsay <= CAPACITY * 2 / 5)
        ),
        format!("{largest} {}", verdict(!full || largest <= CAPACITY / 32)),
        format!("{known}/99 {}", verdict(known == 99)),
    );
}

/// An attacker with a third of the proven peers, all in 20 groups.
fn bootstrap() {
    let mut node = Node::new();
    let bad: Vec<PeerId> = (0..300).map(|peer| node.proven(peer, peer % 20)).collect();
    (300..PROVEN).for_each(|peer| {
        node.proven(peer, HONEST + peer % 350);
    });
    let (mut picks, mut hits, mut early) = (0, 0, 0);
    for _ in 0..RESTARTS {
        let picked = node.store().bootstrap_peers(PICKS);
        picks += picked.len();
        hits += picked.iter().filter(|peer| bad.contains(peer)).count();
        let first = picked.iter().take(PICKS / 2);
        early += first.filter(|peer| bad.contains(peer)).count();
    }
    let share = hits as f64 / picks as f64;
    let early = early as f64 / (RESTARTS * PICKS / 2) as f64;
    let verdict = if share <= 0.4 { "ok" } else { "MISSED" };
    println!(
        "\nAn attacker with 30 % of the proven peers in 20 groups: {:.1} % of the picks (≤ 40 %) {verdict}, {:.1} % of the first half",
        share * 100.0,
        early * 100.0
    );
}

struct Node {
    behaviour: PeerStoreBehaviour,
    clock: ManualClock,
    connections: usize,
}

impl Node {
    fn new() -> Self {
        let clock = ManualClock::default();
        let config = Config::default()
            .with_max_peers(NonZeroUsize::new(CAPACITY).unwrap_or(NonZeroUsize::MIN))
            .with_swarm_events(false)
            .with_clock(clock.clone());
        let store = PeerStore::in_memory(id(0), config);
        let behaviour = PeerStoreBehaviour::new(store).expect("the only one");
        Self {
            behaviour,
            clock,
            connections: 0,
        }
    }

    fn store(&self) -> &PeerStore {
        self.behaviour.store()
    }

    fn told(&mut self, peer: PeerId, address: Multiaddr) {
        self.store().learned(Source::Kademlia).add(peer, &[address]);
    }

    fn proven(&mut self, peer: u64, group: u64) -> PeerId {
        let (peer, address) = (id(1 + peer), address(group, peer));
        let endpoint = ConnectedPoint::Dialer {
            address: address.with(Protocol::P2p(peer)),
            role_override: Endpoint::Dialer,
            port_use: PortUse::Reuse,
        };
        self.connected(peer, &endpoint, |_| {});
        peer
    }

    /// A peer connects from `remote`, claims to listen at `claimed`, and goes.
    fn identified(&mut self, peer: PeerId, remote: Multiaddr, claimed: Multiaddr) {
        let local_addr = Multiaddr::from(Ipv4Addr::new(10, 0, 0, 1));
        let endpoint = ConnectedPoint::Listener {
            local_addr,
            send_back_addr: remote,
        };
        self.connected(peer, &endpoint, |store| {
            store.learned(Source::Identify).replace(peer, &[claimed]);
        });
    }

    fn connected(
        &mut self,
        peer: PeerId,
        endpoint: &ConnectedPoint,
        meanwhile: impl FnOnce(&PeerStore),
    ) {
        self.connections += 1;
        let connection_id = ConnectionId::new_unchecked(self.connections);
        self.behaviour
            .on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id: peer,
                connection_id,
                endpoint,
                failed_addresses: &[],
                other_established: 0,
            }));
        meanwhile(self.behaviour.store());
        self.behaviour
            .on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id: peer,
                connection_id,
                endpoint,
                cause: None,
                remaining_established: 0,
            }));
    }
}

/// The peer id of a number.
fn id(number: u64) -> PeerId {
    let mut digest = [0; 32];
    for (place, chunk) in digest.chunks_mut(8).enumerate() {
        chunk.copy_from_slice(&hash(number.wrapping_mul(4) + place as u64).to_be_bytes());
    }
    let hash = Multihash::wrap(0x12, &digest).ok();
    hash.and_then(|hash| PeerId::from_multihash(hash).ok())
        .expect("a SHA-256 multihash is a peer id")
}

/// An address in a group (a public /16), for each number another one.
fn address(group: u64, number: u64) -> Multiaddr {
    // First bytes of 11 to 98 are public throughout; the last eight of them are for the honest.
    let (first, second) = match group.checked_sub(HONEST) {
        Some(group) => (91 + (group >> 8) as u8 % 8, group as u8),
        None => (11 + (hash(group) % 80) as u8, (hash(group) >> 32) as u8),
    };
    let ip = Ipv4Addr::new(first, second, (number >> 8) as u8, number as u8);
    Multiaddr::from(ip).with(Protocol::Tcp(1_024 + (number >> 16) as u16))
}
