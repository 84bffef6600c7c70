//! The two stores as a swarm has them: behind their behaviours, which hear what identify, Kademlia and the swarm say.

use std::{
    collections::VecDeque,
    convert::Infallible,
    hint::black_box,
    num::NonZeroUsize,
    task::{Context, Poll, Waker},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    identify,
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour,
        NewExternalAddrOfPeer, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::ConnectionEstablished, dummy,
    },
};
use libp2p_peer_store::memory_store::{self, MemoryStore};
use libp2p_peerstore::{Config, Event, Observed, PeerStore, PeerStoreBehaviour, Source};

use super::peers::Peer;

pub fn some(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN)
}

// --- identify without a network ---------------------------------------------------------------------------

/// Says what identify would say, in the same order: first what it received, then each address once more, since its own
/// cache of a hundred peers has forgotten this one.
#[derive(Default)]
pub struct Script(VecDeque<ToSwarm<identify::Event, Infallible>>);

impl Script {
    pub fn received(&mut self, report: identify::Event) {
        let identify::Event::Received { peer_id, info, .. } = &report else {
            return;
        };
        let peer_id = *peer_id;
        let addresses = info.listen_addrs.clone();
        self.0.push_back(ToSwarm::GenerateEvent(report));
        let echo = |address| ToSwarm::NewExternalAddrOfPeer { peer_id, address };
        self.0.extend(addresses.into_iter().map(echo));
    }
}

impl NetworkBehaviour for Script {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = identify::Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.0.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// Polls such a behaviour as the swarm does: events go to `said`, announced addresses to all behaviours at once.
pub fn drain<B: NetworkBehaviour<ToSwarm = identify::Event>>(
    identify: &mut B,
    said: &mut Vec<identify::Event>,
    mut announce: impl FnMut(FromSwarm<'_>),
) {
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(event) = identify.poll(&mut context) {
        match event {
            ToSwarm::GenerateEvent(event) => said.push(event),
            ToSwarm::NewExternalAddrOfPeer { peer_id, address } => {
                let addr = &address;
                announce(FromSwarm::NewExternalAddrOfPeer(NewExternalAddrOfPeer {
                    peer_id,
                    addr,
                }));
            }
            _ => {}
        }
    }
}

// --- ours -------------------------------------------------------------------------------------------------

/// This store in a swarm that observes identify, without the swarm.
pub struct Node {
    pub store: PeerStore,
    pub behaviour: PeerStoreBehaviour,
    pub identify: Observed<Script>,
    /// What identify yielded to the application: its end is off the clock.
    pub said: Vec<identify::Event>,
}

impl Node {
    pub fn new(config: Config) -> Self {
        Self::with(PeerStore::in_memory(PeerId::random(), config))
    }

    pub fn with(store: PeerStore) -> Self {
        Self {
            behaviour: PeerStoreBehaviour::new(store.clone()).expect("the first one"),
            identify: store.observe(Script::default()),
            said: Vec::with_capacity(4_096),
            store,
        }
    }

    /// Identify received this; the swarm polls until nothing is left of it.
    pub fn receive(&mut self, report: identify::Event) {
        self.identify.received(report);
        self.hear();
    }

    pub fn hear(&mut self) {
        let behaviour = &mut self.behaviour;
        let announce = |event: FromSwarm<'_>| behaviour.on_swarm_event(event);
        drain(&mut self.identify, &mut self.said, announce);
    }

    /// One poll of the behaviour.
    pub fn poll(&mut self) -> Poll<ToSwarm<Event, Infallible>> {
        self.behaviour.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// The application takes the events that are there; returns how many.
    pub fn take_events(&mut self) -> usize {
        let mut taken = 0;
        while let Poll::Ready(event) = self.poll() {
            black_box(event);
            taken += 1;
        }
        taken
    }

    pub fn dialled(&mut self, peer: PeerId, address: &Multiaddr) {
        connected(&mut self.behaviour, peer, address);
    }

    pub fn closed(&mut self, peer: PeerId, address: &Multiaddr) {
        closed(&mut self.behaviour, peer, address);
    }

    /// All that a crawler does with a peer: dials it, is told who it is, and hangs up.
    pub fn meet(&mut self, peer: &Peer, report: identify::Event) {
        let addresses = peer.addresses();
        self.dialled(peer.id, &addresses[0]);
        self.receive(report);
        self.closed(peer.id, &addresses[0]);
        self.said.clear();
        self.take_events();
    }
}

/// Kademlia tells of a peer.
pub fn tell(store: &PeerStore, peer: PeerId, addresses: &[Multiaddr]) {
    store.learned(Source::Kademlia).add(peer, addresses);
}

/// The swarm tells a behaviour that its dial came through.
pub fn connected(behaviour: &mut impl NetworkBehaviour, peer_id: PeerId, address: &Multiaddr) {
    let established = ConnectionEstablished {
        peer_id,
        connection_id: ConnectionId::new_unchecked(1),
        endpoint: &dialler(address),
        failed_addresses: &[],
        other_established: 0,
    };
    behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(established));
}

pub fn closed(behaviour: &mut impl NetworkBehaviour, peer_id: PeerId, address: &Multiaddr) {
    let closed = ConnectionClosed {
        peer_id,
        connection_id: ConnectionId::new_unchecked(1),
        endpoint: &dialler(address),
        cause: None,
        remaining_established: 0,
    };
    behaviour.on_swarm_event(FromSwarm::ConnectionClosed(closed));
}

fn dialler(address: &Multiaddr) -> ConnectedPoint {
    ConnectedPoint::Dialer {
        address: address.clone(),
        role_override: Endpoint::Dialer,
        port_use: PortUse::Reuse,
    }
}

// --- theirs -----------------------------------------------------------------------------------------------

pub type Other = libp2p_peer_store::Behaviour<MemoryStore>;

pub fn other(capacity: usize) -> Other {
    let config = memory_store::Config::default().set_peer_capacity(some(capacity));
    Other::new(MemoryStore::new(config))
}

/// What theirs hears of a peer, from whatever source.
pub fn tell_other(other: &mut Other, peer_id: PeerId, addresses: &[Multiaddr]) {
    for addr in addresses {
        let event = NewExternalAddrOfPeer { peer_id, addr };
        other.on_swarm_event(FromSwarm::NewExternalAddrOfPeer(event));
    }
}

/// What the swarm does after each change: the queue has no bound, and would be measured instead of the store.
pub fn take_other_events(other: &mut Other) {
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(event) = other.poll(&mut context) {
        black_box(event);
    }
}
