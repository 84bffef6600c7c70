//! A behaviour, and observed behaviours beside it, are told by a swarm and by their peers whatever comes. After each
//! event the store is within its limits, knows who is connected, tells each difference and nothing else, and offers
//! nothing that it must not.

mod mirror;
mod scripted;
mod talk;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::NonZeroUsize,
    task::{Context, Poll, Waker},
    time::Duration,
};

use libp2p_core::{ConnectedPoint, Endpoint, Multiaddr, multiaddr::Protocol, transport::PortUse};
use libp2p_identify as identify;
use libp2p_identity::PeerId;
use libp2p_kad as kad;
use libp2p_peerstore::{
    Config, Event, ManualClock, Observed, PeerStore, PeerStoreBehaviour, Subscription,
};
use libp2p_swarm::{
    AddressChange, ConnectionClosed, ConnectionDenied, ConnectionId, DialFailure, FromSwarm,
    NetworkBehaviour, NewExternalAddrOfPeer, ToSwarm, behaviour::ConnectionEstablished,
};

use crate::bytes::Bytes;

use self::{
    mirror::{Mirror, copy},
    scripted::{Dial, Scripted, scripted},
    talk::LOCAL,
};

/// Lets happen what the bytes say.
///
/// # Panics
///
/// When the store does something that it must not.
pub fn run(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let mut world = World::new(&mut bytes);
    while !bytes.is_empty() {
        world.happen(&mut bytes);
        world.check();
    }
    world.end();
}

struct World {
    config: Config,
    clock: ManualClock,
    store: PeerStore,
    behaviour: PeerStoreBehaviour,
    identify: Observed<Scripted<identify::Event>>,
    kad: Observed<Scripted<kad::Event>>,
    /// Connections that are open.
    open: Vec<(ConnectionId, PeerId, ConnectedPoint)>,
    /// Dials that the behaviour asked for.
    dials: VecDeque<(ConnectionId, PeerId)>,
    connections: usize,
    /// What turned out to be an address of this node, and is in no offer until that may be over.
    own: Vec<Multiaddr>,
    events: Subscription,
    mirror: Mirror,
    /// What waits for the behaviour to be polled, should it keep up.
    expected: Vec<Event>,
    refused: u64,
}

impl World {
    fn new(bytes: &mut Bytes<'_>) -> Self {
        let clock = ManualClock::default();
        let (config, options) = config(bytes);
        let config = config.with_clock(clock.clone());
        let store = PeerStore::in_memory(talk::peer(LOCAL), config.clone());
        let mut behaviour = PeerStoreBehaviour::new(store.clone()).unwrap();
        if options & 1 != 0 {
            behaviour = behaviour.with_feelers(Duration::from_secs(30));
        }
        if options & 2 != 0 {
            let two = NonZeroUsize::new(2).unwrap();
            behaviour = behaviour.with_redial(two, two);
        }
        Self {
            identify: store.observe(scripted()),
            kad: store
                .observe(scripted())
                .pass_dial_addresses(options & 4 != 0),
            open: Vec::new(),
            dials: VecDeque::new(),
            connections: 0,
            own: Vec::new(),
            events: store.subscribe(),
            mirror: Mirror {
                peers: BTreeMap::new(),
                // A small queue drops what later events have made obsolete, and then tells how many it lost.
                strict: config.event_capacity().get() > 8,
            },
            expected: Vec::new(),
            refused: 0,
            behaviour,
            store,
            config,
            clock,
        }
    }

    // --- what happens ---------------------------------------------------------------------------------------------

    fn happen(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.next() % 32 {
            0..=3 => self.dialled(bytes),
            4..=5 => self.accepted(bytes),
            6..=7 => self.closed(bytes),
            8 => self.moved(bytes),
            9..=11 => self.dial_failed(bytes),
            12 => {
                let (peer_id, addr) = (talk::who(bytes), talk::address(bytes));
                let found = NewExternalAddrOfPeer {
                    peer_id,
                    addr: &addr,
                };
                self.behaviour
                    .on_swarm_event(FromSwarm::NewExternalAddrOfPeer(found));
            }
            13 => self.own_addresses(bytes),
            14..=18 => {
                let said = talk::identify(bytes);
                self.identify.script.push_back(said);
                self.listen();
            }
            19..=22 => {
                let said = talk::kad(bytes);
                self.kad.script.push_back(said);
                self.listen();
            }
            23 => {
                let (peer, protocols) = (talk::who(bytes), talk::protocols(bytes));
                let connection = ConnectionId::new_unchecked(0);
                self.behaviour
                    .on_connection_handler_event(peer, connection, protocols);
            }
            24..=26 => self.asked(bytes),
            27 => self.hooks(bytes),
            28..=29 => self.clock.advance(talk::duration(bytes)),
            _ => self.poll(),
        }
    }

    /// Hands on what the observed behaviours say, as a swarm does.
    fn listen(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        loop {
            let said = match self.identify.poll(&mut context) {
                Poll::Ready(said) => Some(said.map_out(|_| ())),
                Poll::Pending => match self.kad.poll(&mut context) {
                    Poll::Ready(said) => Some(said.map_out(|_| ())),
                    Poll::Pending => None,
                },
            };
            match said {
                Some(ToSwarm::NewExternalAddrOfPeer { peer_id, address }) => {
                    let found = NewExternalAddrOfPeer {
                        peer_id,
                        addr: &address,
                    };
                    self.behaviour
                        .on_swarm_event(FromSwarm::NewExternalAddrOfPeer(found));
                }
                Some(_) => {}
                None => return,
            }
        }
    }

    fn connection(&mut self) -> ConnectionId {
        self.connections += 1;
        ConnectionId::new_unchecked(self.connections)
    }

    fn established(
        &mut self,
        connection_id: ConnectionId,
        peer_id: PeerId,
        endpoint: ConnectedPoint,
        failed_addresses: &[Multiaddr],
    ) {
        let other_established = self.count(peer_id);
        self.behaviour
            .on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint: &endpoint,
                failed_addresses,
                other_established,
            }));
        self.open.push((connection_id, peer_id, endpoint));
    }

    fn count(&self, peer: PeerId) -> usize {
        let of = |(_, other, _): &&(_, PeerId, _)| *other == peer;
        self.open.iter().filter(of).count()
    }

    fn dialled(&mut self, bytes: &mut Bytes<'_>) {
        if self.open.len() >= 24 {
            return;
        }
        let (connection, peer) = match self.dials.pop_front() {
            Some(dial) => dial,
            None => (self.connection(), talk::remote(bytes)),
        };
        let address = talk::form(bytes, peer);
        let role_override = if bytes.next() % 8 == 1 {
            Endpoint::Listener
        } else {
            Endpoint::Dialer
        };
        let port_use = PortUse::Reuse;
        let failed = talk::addresses(bytes, peer);
        // As the swarm does: some behaviour may still say no.
        let hook = self.behaviour.handle_established_outbound_connection(
            connection,
            peer,
            &address,
            role_override,
            port_use,
        );
        assert!(hook.is_ok());
        if bytes.next() % 8 == 1 {
            let error = libp2p_swarm::DialError::Denied {
                cause: ConnectionDenied::new("unwanted"),
            };
            self.failed(connection, Some(peer), &error);
            return;
        }
        let endpoint = ConnectedPoint::Dialer {
            address,
            role_override,
            port_use,
        };
        self.established(connection, peer, endpoint, &failed);
    }

    fn accepted(&mut self, bytes: &mut Bytes<'_>) {
        if self.open.len() >= 24 {
            return;
        }
        let (connection, peer) = (self.connection(), talk::remote(bytes));
        let (local_addr, send_back_addr) = (talk::address(bytes), talk::address(bytes));
        let pending = self.behaviour.handle_pending_inbound_connection(
            connection,
            &local_addr,
            &send_back_addr,
        );
        assert!(pending.is_ok());
        let hook = self.behaviour.handle_established_inbound_connection(
            connection,
            peer,
            &local_addr,
            &send_back_addr,
        );
        assert!(hook.is_ok());
        let endpoint = ConnectedPoint::Listener {
            local_addr,
            send_back_addr,
        };
        self.established(connection, peer, endpoint, &[]);
    }

    fn closed(&mut self, bytes: &mut Bytes<'_>) {
        if self.open.is_empty() {
            return;
        }
        let n = usize::from(bytes.next()) % self.open.len();
        self.close(n);
    }

    fn close(&mut self, n: usize) {
        let (connection_id, peer_id, endpoint) = self.open.remove(n);
        let remaining_established = self.count(peer_id);
        self.behaviour
            .on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                endpoint: &endpoint,
                cause: None,
                remaining_established,
            }));
    }

    fn moved(&mut self, bytes: &mut Bytes<'_>) {
        if self.open.is_empty() {
            return;
        }
        let n = usize::from(bytes.next()) % self.open.len();
        let to = talk::address(bytes);
        let (connection_id, peer_id, endpoint) = &mut self.open[n];
        let old = endpoint.clone();
        endpoint.set_remote_address(to);
        self.behaviour
            .on_swarm_event(FromSwarm::AddressChange(AddressChange {
                peer_id: *peer_id,
                connection_id: *connection_id,
                old: &old,
                new: endpoint,
            }));
    }

    fn dial_failed(&mut self, bytes: &mut Bytes<'_>) {
        let (connection, peer) = match self.dials.pop_front() {
            Some((connection, peer)) => (connection, Some(peer)),
            None => (self.connection(), talk::somebody(bytes)),
        };
        let error = talk::dial_error(bytes, peer.unwrap_or(talk::peer(0)));
        if let (libp2p_swarm::DialError::WrongPeerId { obtained, address }, Some(expected)) =
            (&error, peer)
            && *obtained == talk::peer(LOCAL)
            && let Some(bare) = bare(address, expected)
        {
            self.own.push(bare);
        }
        self.failed(connection, peer, &error);
    }

    fn failed(
        &mut self,
        connection_id: ConnectionId,
        peer_id: Option<PeerId>,
        error: &libp2p_swarm::DialError,
    ) {
        self.behaviour
            .on_swarm_event(FromSwarm::DialFailure(DialFailure {
                peer_id,
                error,
                connection_id,
            }));
    }

    /// This node's own addresses, and what else is not about peers.
    fn own_addresses(&mut self, bytes: &mut Bytes<'_>) {
        let address = talk::address(bytes);
        if talk::own_addresses(bytes, &address, |event| {
            self.behaviour.on_swarm_event(event)
        }) {
            self.own.clear();
        }
    }

    /// Somebody dials: the store and the observed behaviours are asked for addresses.
    fn asked(&mut self, bytes: &mut Bytes<'_>) {
        let peer = talk::somebody(bytes);
        let given = match peer {
            Some(peer) => talk::addresses(bytes, peer),
            None => Vec::new(),
        };
        let connection = self.connection();
        if let Some(peer) = peer {
            self.assert_offers(connection, peer, &given);
            self.kad.addresses = talk::addresses(bytes, peer);
            self.identify.addresses = talk::addresses(bytes, peer);
        }
        let kad = &mut self.kad as &mut dyn Dial;
        for behaviour in [kad, &mut self.identify] {
            let added = behaviour.added(connection, peer, &given);
            assert!(peer.is_some() || added.is_empty());
        }
    }

    /// What the store offers is a part of what it knows, fit to be dialled, and each address once.
    fn assert_offers(&mut self, connection: ConnectionId, peer: PeerId, given: &[Multiaddr]) {
        let offers = self.behaviour.handle_pending_outbound_connection(
            connection,
            Some(peer),
            given,
            Endpoint::Dialer,
        );
        let offers = offers.unwrap();
        let known = self.store.addresses().get(&peer).unwrap_or_default();
        assert!(offers.len() <= self.config.max_dial_addresses().get());
        // What has the peer's id twice, and is too long by that, is not taken apart.
        let longest = self.config.max_address_len().get() + 47;
        let comparable: Vec<_> = (given.iter())
            .filter(|given| given.len() <= longest)
            .filter_map(|given| bare(given, peer))
            .collect();
        let mut met = BTreeSet::new();
        for offer in &offers {
            let mut address = offer.clone();
            assert_eq!(address.pop(), Some(Protocol::P2p(peer)), "{offer}");
            assert!(known.contains(&address), "{offer} is not known");
            assert!(!self.own.contains(&address), "{offer} is our own");
            assert!(!comparable.contains(&address), "{offer} was given");
            assert!(met.insert(address), "{offer} twice");
        }
    }

    /// Hooks that hold for no peer.
    fn hooks(&mut self, bytes: &mut Bytes<'_>) {
        let (connection, address) = (self.connection(), talk::address(bytes));
        let offers = self.behaviour.handle_pending_outbound_connection(
            connection,
            None,
            std::slice::from_ref(&address),
            Endpoint::Dialer,
        );
        assert!(offers.unwrap().is_empty());
        let connection = ConnectionId::new_unchecked(usize::from(bytes.next()));
        let error = libp2p_swarm::ListenError::Aborted;
        self.behaviour
            .on_swarm_event(FromSwarm::ListenFailure(libp2p_swarm::ListenFailure {
                local_addr: &address,
                send_back_addr: &address,
                error: &error,
                connection_id: connection,
                peer_id: talk::somebody(bytes),
            }));
    }

    /// The swarm polls the behaviour until it has nothing more to say: all events that were, in their order, and no
    /// others; where the queue is small, at most as many as it holds, and how many it lost.
    fn poll(&mut self) {
        self.read();
        let mut context = Context::from_waker(Waker::noop());
        let most = self.config.event_capacity().get() + 1 + 64;
        let mut events = Vec::new();
        for n in 0.. {
            assert!(n <= most, "it has no end");
            match self.behaviour.poll(&mut context) {
                Poll::Ready(ToSwarm::GenerateEvent(event)) => events.push(event),
                Poll::Ready(ToSwarm::Dial { opts }) => {
                    let peer = opts.get_peer_id().unwrap();
                    assert_ne!(peer, talk::peer(LOCAL));
                    self.dials.push_back((opts.connection_id(), peer));
                }
                Poll::Ready(other) => panic!("{other:?}"),
                Poll::Pending => break,
            }
        }
        // What expires may be collected by the poll itself.
        self.read();
        let expected = std::mem::take(&mut self.expected);
        if !self.config.swarm_events() {
            assert!(events.is_empty());
        } else if self.mirror.strict && expected.len() < self.config.event_capacity().get() {
            assert_eq!(events.len(), expected.len(), "{events:?} {expected:?}");
            assert!(events.iter().zip(&expected).all(mirror::are_same));
        }
        assert!(self.dials.len() <= 64);
        self.dials.truncate(8);
    }

    // --- what must hold -------------------------------------------------------------------------------------------

    fn check(&mut self) {
        // What has expired is hidden at once, and told when it is collected.
        let len = self.store.len();
        assert!(len <= self.config.max_peers().get());
        self.read();
        let mut connected: BTreeMap<PeerId, usize> = BTreeMap::new();
        for (_, peer, _) in &self.open {
            *connected.entry(*peer).or_default() += 1;
        }
        let now = copy(&self.store, &self.config, |known| {
            assert_eq!(known.connected, connected.contains_key(&known.id));
        });
        assert_eq!(self.mirror.peers, now);
        assert_eq!(now.len(), len);
        let told: BTreeSet<PeerId> = self.store.connected_peers().into_iter().collect();
        assert!(told.iter().eq(connected.keys()));
        for n in 0..=LOCAL {
            let count = connected.get(&talk::peer(n)).copied().unwrap_or_default();
            assert_eq!(self.store.connections(&talk::peer(n)), count);
        }
        let refused = self.store.refusals().total();
        assert!(refused >= self.refused);
        self.refused = refused;
    }

    /// Reads what was told, which keeps the copy up to date.
    fn read(&mut self) {
        while let Some(event) = self.events.try_next() {
            if self.config.swarm_events() {
                self.expected.push(event.clone());
            }
            self.mirror.apply(event, &self.store);
        }
    }

    /// All connections end, and nothing is heard for years: then nothing is left.
    fn end(mut self) {
        while !self.open.is_empty() {
            self.close(0);
        }
        self.check();
        self.clock.advance(Duration::from_secs(3 * 365 * 86_400));
        self.check();
        assert_eq!(self.store.len(), 0, "{:?}", self.store.peers());
        self.poll();
        self.check();
    }
}

fn config(bytes: &mut Bytes<'_>) -> (Config, u8) {
    let size = |n: usize| NonZeroUsize::new(n).unwrap();
    let mut config = Config::default();
    let limits = bytes.next();
    if limits & 1 != 0 {
        config = config.with_max_peers(size(1 + bytes.below(6)));
    }
    if limits & 2 != 0 {
        config = config
            .with_max_addresses_per_peer(size(1 + bytes.below(4)))
            .with_max_dial_addresses(size(1 + bytes.below(3)));
    }
    if limits & 4 != 0 {
        config = config
            .with_max_protocols_per_peer(size(2))
            .with_max_metadata_per_peer(size(1))
            .with_max_protocol_len(size(8))
            .with_max_metadata_value_len(size(4));
    }
    if limits & 8 != 0 {
        config = config
            .with_max_claims_per_ip(size(1 + bytes.below(2)))
            .with_max_hearsay_names(bytes.below(2));
    }
    if limits & 16 != 0 {
        config = config.with_event_capacity(size(1 + bytes.below(8)));
    }
    if limits & 32 != 0 {
        config = config
            .with_hearsay_lifetime(Duration::from_secs(1_000))
            .with_self_told_lifetime(Duration::from_secs(2_500))
            .with_proven_lifetime(Duration::from_secs(40_000))
            .with_wrong_peer_block(Duration::from_secs(1_800));
    }
    if limits & 64 != 0 {
        config = config.with_max_address_len(size(7 + bytes.below(40)));
    }
    let rules = bytes.next();
    if rules & 8 != 0 {
        config = config.with_address_filter(libp2p_peerstore::public_only);
    }
    config = config
        .with_keep_proven_on_replace(rules & 16 != 0)
        .with_private_hearsay(rules & 32 != 0)
        .with_gate_dials(rules & 64 == 0)
        .with_swarm_events(rules & 128 == 0);
    (config, rules)
}

/// An address without what says whose it is.
fn bare(address: &Multiaddr, peer: PeerId) -> Option<Multiaddr> {
    let mut bare = address.clone();
    while bare.iter().last() == Some(Protocol::P2p(peer)) {
        bare.pop();
    }
    (!bare.is_empty()).then_some(bare)
}
