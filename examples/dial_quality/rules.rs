//! The competitors: this store, and four others that decide what is kept and what is offered for a dial.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroUsize,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::executor::block_on;
use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint},
    swarm::{
        ConnectionClosed, ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour,
        NewExternalAddrOfPeer, behaviour::ConnectionEstablished,
    },
};
use libp2p_peer_store::{Behaviour as Upstream, memory_store};
use libp2p_peerstore::{
    Batch, Config, Datastore, ManualClock, MemoryDatastore, PeerStore, PeerStoreBehaviour, Source,
    Standing,
};

use crate::{
    random::Random,
    trace::{HOUR, MINUTE, Secs, bare, full},
};

/// The most addresses that any rule hands to the swarm for one dial: as many as it starts at once.
pub const MAX_OFFERED: usize = 8;
/// The most addresses that any rule keeps of a peer.
const MAX_ADDRESSES: usize = 32;
/// So many peers a rule is asked for at a start.
const AT_START: usize = 400;
/// When the trace begins: the 1st of January 2026.
fn start() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_767_225_600)
}

/// A connection, as the swarm reports its beginning and its end.
#[derive(Debug, Clone)]
pub struct Connection {
    pub peer: PeerId,
    pub id: ConnectionId,
    pub endpoint: ConnectedPoint,
}

/// What a store believes of an address that it offers.
#[derive(Debug, Clone)]
pub struct Forecast {
    pub peer: PeerId,
    pub address: Multiaddr,
    pub standing: Standing,
    pub confidence: f64,
}

/// A way to remember addresses.
pub trait Rule {
    /// The time is `now` from here on; it never goes back.
    fn advance(&mut self, now: Secs);
    /// Others told of an address, in the form in which Kademlia hands it on.
    fn heard(&mut self, peer: PeerId, address: &Multiaddr);
    /// The peer told its addresses, in the form in which identify hands them on.
    fn identified(&mut self, peer: PeerId, addresses: &[Multiaddr]);
    fn established(&mut self, connection: &Connection, failed: &[Multiaddr]);
    fn closed(&mut self, connection: &Connection);
    fn dial_failed(&mut self, peer: PeerId, error: &DialError);
    /// Something came over a live connection.
    fn alive(&mut self, _peer: PeerId) {}
    /// What the swarm is given for a dial.
    fn offers(&mut self, peer: PeerId) -> Vec<Multiaddr>;
    /// What it believes of every address that it holds of a peer, or of all peers.
    fn forecasts(&mut self, _peer: Option<PeerId>) -> Vec<Forecast> {
        Vec::new()
    }
    /// Failures in a row that count against each address.
    fn failures(&mut self) -> Option<HashMap<(PeerId, Multiaddr), u32>> {
        None
    }
    /// The node stops and starts again.
    fn restart(&mut self) {}
    /// Which peers to dial first when the node starts again after a pause, with what to dial each at.
    fn at_start(&mut self, pause: Secs) -> Vec<(PeerId, Vec<Multiaddr>)>;
}

/// Names of the rules, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Name {
    Ours,
    /// This store, with all hearsay kept for an hour.
    Hour,
    Upstream,
    Go,
    Random,
    FiveLines,
}

impl Name {
    pub const ALL: [Name; 6] = [
        Name::Ours,
        Name::Hour,
        Name::Upstream,
        Name::Go,
        Name::Random,
        Name::FiveLines,
    ];

    pub fn text(self) -> &'static str {
        match self {
            Name::Ours => "this store",
            Name::Hour => "this store, hearsay 1 h",
            Name::Upstream => "libp2p-peer-store",
            Name::Go => "go-libp2p TTLs",
            Name::Random => "random order",
            Name::FiveLines => "five lines",
        }
    }

    pub fn rule(self, capacity: NonZeroUsize, seed: u64) -> Box<dyn Rule> {
        match self {
            Name::Ours => Box::new(Ours::new(Config::default().with_max_peers(capacity))),
            Name::Hour => {
                let config = Config::default().with_max_peers(capacity);
                let hour = Duration::from_secs(HOUR);
                let config = config.with_hearsay_lifetime(hour);
                Box::new(Ours::new(config.with_max_hearsay_lifetime(hour)))
            }
            Name::Upstream => Box::new(Theirs::new(capacity)),
            plain => Box::new(Plain::new(plain, capacity, seed)),
        }
    }
}

// --- this store --------------------------------------------------------------------------------------------

struct Ours {
    config: Config,
    clock: ManualClock,
    now: Secs,
    datastore: MemoryDatastore,
    behaviour: Option<PeerStoreBehaviour>,
    local: PeerId,
}

impl Ours {
    fn new(config: Config) -> Self {
        let clock = ManualClock::starting_at(start());
        let config = config
            .with_swarm_events(false)
            .with_clock(clock.clone())
            // What is written is written at the end of each run of the node, in one piece.
            .with_commit_threshold(NonZeroUsize::MAX)
            .with_max_commit_delay(Duration::from_secs(365 * 24 * 60 * 60));
        let mut ours = Self {
            config,
            clock,
            now: 0,
            datastore: MemoryDatastore::default(),
            behaviour: None,
            local: PeerId::random(),
        };
        ours.open();
        ours
    }

    fn open(&mut self) {
        let store = PeerStore::open(self.local, self.datastore.clone(), self.config.clone());
        let store = block_on(store).expect("a store in memory opens");
        self.behaviour = PeerStoreBehaviour::new(store).ok();
    }

    fn behaviour(&mut self) -> &mut PeerStoreBehaviour {
        self.behaviour.as_mut().expect("it is open")
    }

    fn store(&self) -> &PeerStore {
        self.behaviour.as_ref().expect("it is open").store()
    }
}

impl Rule for Ours {
    fn advance(&mut self, now: Secs) {
        self.clock.advance(Duration::from_secs(now - self.now));
        self.now = now;
    }

    fn heard(&mut self, peer: PeerId, address: &Multiaddr) {
        let told = full(address, peer);
        self.store().learned(Source::Kademlia).add(peer, &[told]);
    }

    fn identified(&mut self, peer: PeerId, addresses: &[Multiaddr]) {
        let mut identify = self.store().learned(Source::Identify);
        identify.alive(peer);
        identify.replace(peer, addresses);
    }

    fn established(&mut self, connection: &Connection, failed: &[Multiaddr]) {
        let event = established(connection, failed);
        self.behaviour().on_swarm_event(event);
    }

    fn closed(&mut self, connection: &Connection) {
        let event = closed(connection);
        self.behaviour().on_swarm_event(event);
    }

    fn dial_failed(&mut self, peer: PeerId, error: &DialError) {
        let event = failure(peer, error);
        self.behaviour().on_swarm_event(event);
    }

    fn alive(&mut self, peer: PeerId) {
        self.store().learned(Source::Discovery).alive(peer);
    }

    fn offers(&mut self, peer: PeerId) -> Vec<Multiaddr> {
        offers(self.behaviour(), peer)
    }

    fn forecasts(&mut self, peer: Option<PeerId>) -> Vec<Forecast> {
        let peers = match peer {
            Some(peer) => self.store().get(&peer).into_iter().collect(),
            None => self.store().peers(),
        };
        let forecast = |peer: libp2p_peerstore::Peer| {
            let id = peer.id;
            peer.addresses.into_iter().map(move |info| Forecast {
                peer: id,
                address: info.address,
                standing: info.standing,
                confidence: info.confidence,
            })
        };
        peers.into_iter().flat_map(forecast).collect()
    }

    fn failures(&mut self) -> Option<HashMap<(PeerId, Multiaddr), u32>> {
        let peers = self.store().peers().into_iter();
        let counted = peers.flat_map(|peer| {
            let infos = peer.addresses.into_iter();
            infos.map(move |info| ((peer.id, info.address), info.failures))
        });
        Some(counted.collect())
    }

    fn restart(&mut self) {
        let behaviour = self.behaviour.take().expect("it is open");
        let store = behaviour.store().clone();
        drop(behaviour);
        block_on(store.shutdown()).expect("a datastore in memory takes everything");
        drop(store);
        self.open();
    }

    fn at_start(&mut self, pause: Secs) -> Vec<(PeerId, Vec<Multiaddr>)> {
        block_on(self.store().flush()).expect("a datastore in memory takes everything");
        let copy = MemoryDatastore::default();
        let mut batch = Batch::default();
        for (key, value) in self.datastore.entries() {
            batch.put(key, value);
        }
        block_on(copy.commit(batch)).expect("a datastore in memory takes everything");
        let then = start() + Duration::from_secs(self.now + pause);
        let config = self
            .config
            .clone()
            .with_clock(ManualClock::starting_at(then));
        let store = block_on(PeerStore::open(self.local, copy, config)).expect("it opens");
        let mut peers = store.bootstrap_peers(24);
        for peer in store.bootstrap_peers(AT_START) {
            if !peers.contains(&peer) {
                peers.push(peer);
            }
        }
        let mut behaviour = PeerStoreBehaviour::new(store).expect("the only one");
        peers
            .into_iter()
            .map(|peer| (peer, offers(&mut behaviour, peer)))
            .collect()
    }
}

// --- libp2p-peer-store -------------------------------------------------------------------------------------

/// `libp2p-peer-store` itself, with its own defaults but for the capacity.
struct Theirs(Upstream<memory_store::MemoryStore>);

impl Theirs {
    fn new(capacity: NonZeroUsize) -> Self {
        let addresses = NonZeroUsize::new(MAX_ADDRESSES).unwrap_or(NonZeroUsize::MIN);
        let config = memory_store::Config::default()
            .set_peer_capacity(capacity)
            .set_record_capacity(addresses);
        Self(Upstream::new(memory_store::MemoryStore::new(config)))
    }

    fn told(&mut self, peer_id: PeerId, addr: &Multiaddr) {
        let event = NewExternalAddrOfPeer { peer_id, addr };
        self.swarm(FromSwarm::NewExternalAddrOfPeer(event));
    }

    fn swarm(&mut self, event: FromSwarm<'_>) {
        self.0.on_swarm_event(event);
        // Nobody reads its events here; they are not to pile up.
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        while self.0.poll(&mut context).is_ready() {}
    }
}

impl Rule for Theirs {
    fn advance(&mut self, _: Secs) {}

    fn heard(&mut self, peer: PeerId, address: &Multiaddr) {
        self.told(peer, &full(address, peer));
    }

    fn identified(&mut self, peer: PeerId, addresses: &[Multiaddr]) {
        for address in addresses {
            self.told(peer, address);
        }
    }

    fn established(&mut self, connection: &Connection, failed: &[Multiaddr]) {
        self.swarm(established(connection, failed));
    }

    fn closed(&mut self, connection: &Connection) {
        self.swarm(closed(connection));
    }

    fn dial_failed(&mut self, peer: PeerId, error: &DialError) {
        self.swarm(failure(peer, error));
    }

    fn offers(&mut self, peer: PeerId) -> Vec<Multiaddr> {
        offers(&mut self.0, peer)
    }

    /// It gives no order. Its iterator begins with what it touched least recently, which nobody would want: here it is
    /// walked backwards.
    fn at_start(&mut self, _: Secs) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let mut peers: Vec<PeerId> = self
            .0
            .store()
            .record_iter()
            .map(|(peer, _)| *peer)
            .collect();
        peers.reverse();
        peers.truncate(AT_START);
        peers
            .into_iter()
            .map(|peer| (peer, self.offers(peer)))
            .collect()
    }
}

// --- rules of a few lines ----------------------------------------------------------------------------------

/// go-libp2p's `AddressTTL`, for what others tell. Kademlia's own `TempAddrTTL` of 2 minutes would keep less.
const GO_HEARD: Secs = HOUR;
/// go-libp2p's `RecentlyConnectedAddrTTL`, from the end of the connection.
const GO_CONNECTED: Secs = 15 * MINUTE;

/// A map from peers to addresses, with one of three rules. The peer that was heard of least recently makes room.
struct Plain {
    name: Name,
    capacity: usize,
    now: Secs,
    peers: HashMap<PeerId, Known>,
    touched: BTreeMap<u64, PeerId>,
    touches: u64,
    random: Random,
}

#[derive(Default)]
struct Known {
    touch: u64,
    connections: usize,
    addresses: Vec<At>,
}

struct At {
    address: Multiaddr,
    heard: Secs,
    success: Option<Secs>,
    expires: Secs,
}

impl Plain {
    fn new(name: Name, capacity: NonZeroUsize, seed: u64) -> Self {
        Self {
            name,
            capacity: capacity.get(),
            now: 0,
            peers: HashMap::new(),
            touched: BTreeMap::new(),
            touches: 0,
            random: Random::new(seed),
        }
    }

    fn peer(&mut self, peer: PeerId) -> &mut Known {
        self.touches += 1;
        if !self.peers.contains_key(&peer)
            && self.peers.len() >= self.capacity
            && let Some((_, oldest)) = self.touched.pop_first()
        {
            self.peers.remove(&oldest);
        }
        let known = self.peers.entry(peer).or_default();
        self.touched.remove(&known.touch);
        known.touch = self.touches;
        self.touched.insert(self.touches, peer);
        known
    }

    fn told(&mut self, peer: PeerId, address: &Multiaddr, lifetime: Secs) -> &mut At {
        let (now, address) = (self.now, bare(address));
        let known = self.peer(peer);
        let expires = now + lifetime;
        let at = known.addresses.iter().position(|at| at.address == address);
        let at = at.unwrap_or_else(|| {
            if known.addresses.len() >= MAX_ADDRESSES {
                let oldest = known
                    .addresses
                    .iter()
                    .enumerate()
                    .min_by_key(|(_, at)| at.heard);
                let oldest = oldest.map(|(at, _)| at);
                oldest.map(|at| known.addresses.swap_remove(at));
            }
            known.addresses.push(At {
                address,
                heard: now,
                success: None,
                expires,
            });
            known.addresses.len() - 1
        });
        let at = &mut known.addresses[at];
        (at.heard, at.expires) = (now, at.expires.max(expires));
        at
    }

    fn valid(&self, peer: PeerId, now: Secs) -> Vec<&At> {
        let go = self.name == Name::Go;
        let known = self.peers.get(&peer);
        let connected = known.is_some_and(|known| known.connections > 0);
        let addresses = known.into_iter().flat_map(|known| &known.addresses);
        addresses
            .filter(|at| !go || connected || at.expires > now)
            .collect()
    }

    fn offered(&mut self, peer: PeerId, now: Secs) -> Vec<Multiaddr> {
        let mut random = self.random.clone();
        let mut valid: Vec<(u64, &At)> = self
            .valid(peer, now)
            .into_iter()
            .map(|at| (random.next(), at))
            .collect();
        match self.name {
            Name::FiveLines => {
                valid.sort_by_key(|(_, at)| std::cmp::Reverse((at.success, at.heard)));
            }
            _ => valid.sort_by_key(|(random, _)| *random),
        }
        valid.truncate(MAX_OFFERED);
        let offered = valid
            .into_iter()
            .map(|(_, at)| full(&at.address, peer))
            .collect();
        self.random = random;
        offered
    }
}

impl Rule for Plain {
    fn advance(&mut self, now: Secs) {
        self.now = now;
    }

    fn heard(&mut self, peer: PeerId, address: &Multiaddr) {
        self.told(peer, address, GO_HEARD);
    }

    fn identified(&mut self, peer: PeerId, addresses: &[Multiaddr]) {
        for address in addresses {
            self.told(peer, address, GO_CONNECTED);
        }
    }

    fn established(&mut self, connection: &Connection, _: &[Multiaddr]) {
        if connection.endpoint.is_dialer() {
            let now = self.now;
            let address = connection.endpoint.get_remote_address();
            self.told(connection.peer, address, GO_CONNECTED).success = Some(now);
        }
        self.peer(connection.peer).connections += 1;
    }

    fn closed(&mut self, connection: &Connection) {
        let now = self.now;
        let Some(known) = self.peers.get_mut(&connection.peer) else {
            return;
        };
        known.connections = known.connections.saturating_sub(1);
        if known.connections == 0 {
            // What was valid while it was connected is for a while longer.
            for at in &mut known.addresses {
                at.expires = at.expires.max(now + GO_CONNECTED);
            }
        }
    }

    fn dial_failed(&mut self, _: PeerId, _: &DialError) {}

    fn offers(&mut self, peer: PeerId) -> Vec<Multiaddr> {
        self.offered(peer, self.now)
    }

    fn at_start(&mut self, pause: Secs) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let then = self.now + pause;
        let mut peers: Vec<(Option<Secs>, u64, PeerId)> = Vec::new();
        for peer in self.peers.keys() {
            let success = self
                .valid(*peer, then)
                .iter()
                .filter_map(|at| at.success)
                .max();
            let success = success.filter(|_| self.name == Name::FiveLines);
            let first = peer
                .to_bytes()
                .iter()
                .fold(0_u64, |sum, byte| sum.rotate_left(8) ^ u64::from(*byte));
            if !self.valid(*peer, then).is_empty() {
                peers.push((success, crate::random::hash(first), *peer));
            }
        }
        peers.sort_by_key(|(success, random, _)| (std::cmp::Reverse(*success), *random));
        peers.truncate(AT_START);
        peers
            .into_iter()
            .map(|(_, _, peer)| (peer, self.offered(peer, then)))
            .collect()
    }
}

// --- what a swarm says -------------------------------------------------------------------------------------

fn established<'a>(connection: &'a Connection, failed: &'a [Multiaddr]) -> FromSwarm<'a> {
    FromSwarm::ConnectionEstablished(ConnectionEstablished {
        peer_id: connection.peer,
        connection_id: connection.id,
        endpoint: &connection.endpoint,
        failed_addresses: failed,
        other_established: 0,
    })
}

fn closed(connection: &Connection) -> FromSwarm<'_> {
    FromSwarm::ConnectionClosed(ConnectionClosed {
        peer_id: connection.peer,
        connection_id: connection.id,
        endpoint: &connection.endpoint,
        cause: None,
        remaining_established: 0,
    })
}

fn failure(peer: PeerId, error: &DialError) -> FromSwarm<'_> {
    FromSwarm::DialFailure(DialFailure {
        peer_id: Some(peer),
        error,
        connection_id: ConnectionId::new_unchecked(0),
    })
}

/// Asks a behaviour as the swarm does, which drops what is there twice, byte by byte.
fn offers(behaviour: &mut impl NetworkBehaviour, peer: PeerId) -> Vec<Multiaddr> {
    let id = ConnectionId::new_unchecked(0);
    let offers =
        behaviour.handle_pending_outbound_connection(id, Some(peer), &[], Endpoint::Dialer);
    behaviour.on_swarm_event(failure(peer, &DialError::Aborted));
    let mut unique: Vec<Multiaddr> = Vec::new();
    for offer in offers.unwrap_or_default() {
        if !unique.contains(&offer) {
            unique.push(offer);
        }
    }
    unique.truncate(MAX_OFFERED);
    unique
}
