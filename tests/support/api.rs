//! What the tests of the books, the events and the limits have in common: a store on a manual clock, peers with
//! fixed ids, voices that tell the store something, and events in a form that can be compared.

// Every test file compiles this for itself and uses its own part of it.
#![allow(dead_code)]

use std::{
    io,
    num::NonZeroUsize,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use libp2p_core::{
    ConnectedPoint, Endpoint, Multiaddr,
    multiaddr::Protocol,
    transport::{PortUse, TransportError},
};
use libp2p_identity::{Keypair, PeerId, PublicKey};
use libp2p_peerstore::{
    Cause, Changed, Config, Event, ManualClock, PeerStore, PeerStoreBehaviour, Source, Subscription,
};
use libp2p_swarm::{
    AddressChange, ConnectionClosed, ConnectionId, DialError, DialFailure, FromSwarm,
    NetworkBehaviour, NewExternalAddrOfPeer, StreamProtocol, ToSwarm,
    behaviour::{ConnectionEstablished, ExternalAddrConfirmed},
};

// --- the store ---------------------------------------------------------------------------------------------

/// The local peer of every store here.
pub const LOCAL: u8 = 255;

pub fn store() -> PeerStore {
    clocked().0
}

pub fn clocked() -> (PeerStore, ManualClock) {
    clocked_with(|config| config)
}

pub fn store_with(limits: impl FnOnce(Config) -> Config) -> PeerStore {
    clocked_with(limits).0
}

pub fn clocked_with(limits: impl FnOnce(Config) -> Config) -> (PeerStore, ManualClock) {
    let clock = ManualClock::default();
    let config = limits(Config::default().with_clock(clock.clone()));
    (PeerStore::in_memory(peer(LOCAL), config), clock)
}

pub fn size(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

/// `changed` and `refused`, to be compared in one assertion.
pub fn did(changed: Changed) -> (bool, usize) {
    (changed.changed, changed.refused)
}

/// Fails, instead of hanging for ever, when `act` waits for itself.
pub fn finishes(act: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let acting = thread::spawn(move || {
        act();
        done.send(()).unwrap();
    });
    if is_done.recv_timeout(Duration::from_secs(60)) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("it waits for itself");
    }
    // A panic of its own is the test's.
    if let Err(panic) = acting.join() {
        std::panic::resume_unwind(panic);
    }
}

// --- peers, keys, addresses --------------------------------------------------------------------------------

pub fn key(n: u8) -> PublicKey {
    Keypair::ed25519_from_bytes([n; 32]).unwrap().public()
}

/// The same peer for the same number, in every run.
pub fn peer(n: u8) -> PeerId {
    static PEERS: [OnceLock<PeerId>; 256] = [const { OnceLock::new() }; 256];
    *PEERS[usize::from(n)].get_or_init(|| key(n).to_peer_id())
}

/// An RSA key, which a peer id does not contain.
pub fn rsa_key() -> PublicKey {
    let encoded = include_bytes!(
        "../data/js-libp2p-0.30/store/peers/keys/bafzbeib62xhk572yyxtefinkot2llam6lkjlc4hnogkh52an7b3tllophi.data"
    );
    PublicKey::try_decode_protobuf(encoded).unwrap()
}

pub fn at(port: u16) -> Multiaddr {
    format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap()
}

pub fn ports(ports: impl IntoIterator<Item = u16>) -> Vec<Multiaddr> {
    ports.into_iter().map(at).collect()
}

pub fn with_id(address: Multiaddr, peer: PeerId) -> Multiaddr {
    address.with(Protocol::P2p(peer))
}

/// The protocols of a peer as text.
pub fn spoken(store: &PeerStore, peer: PeerId) -> Option<Vec<String>> {
    let protocols = store.protocols().get(&peer)?;
    Some(protocols.iter().map(|name| name.to_string()).collect())
}

pub fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort();
    items
}

// --- voices ------------------------------------------------------------------------------------------------

/// The peer itself tells its complete list of addresses.
pub fn identify(store: &PeerStore, peer: PeerId, addresses: &[Multiaddr]) -> Changed {
    store.learned(Source::Identify).replace(peer, addresses)
}

/// Kademlia has heard of addresses.
pub fn gossip(store: &PeerStore, peer: PeerId, addresses: &[Multiaddr]) -> Changed {
    store.learned(Source::Kademlia).add(peer, addresses)
}

// --- the swarm ---------------------------------------------------------------------------------------------

/// A behaviour that is fed by hand, with what a swarm would tell it.
pub struct Swarm {
    pub behaviour: PeerStoreBehaviour,
    next: AtomicUsize,
    open: Vec<(PeerId, ConnectedPoint)>,
}

impl Swarm {
    pub fn of(store: &PeerStore) -> Self {
        Self {
            behaviour: PeerStoreBehaviour::new(store.clone()).unwrap(),
            next: AtomicUsize::new(1),
            open: Vec::new(),
        }
    }

    fn id(&self) -> ConnectionId {
        ConnectionId::new_unchecked(self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn established(&mut self, peer_id: PeerId, endpoint: &ConnectedPoint, failed: &[Multiaddr]) {
        let connection_id = self.id();
        self.behaviour
            .on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                failed_addresses: failed,
                other_established: self.connections(peer_id),
            }));
        self.open.push((peer_id, endpoint.clone()));
    }

    fn connections(&self, peer: PeerId) -> usize {
        self.open.iter().filter(|(other, _)| *other == peer).count()
    }

    /// There is a connection.
    pub fn connected(&mut self, peer: PeerId, endpoint: ConnectedPoint) {
        self.established(peer, &endpoint, &[]);
    }

    /// A dial to the address made a connection.
    pub fn dialled(&mut self, peer: PeerId, address: Multiaddr) {
        self.established(peer, &dialer(address), &[]);
    }

    /// The peer connected from the address.
    pub fn accepted(&mut self, peer: PeerId, address: Multiaddr) {
        self.established(peer, &listener(address), &[]);
    }

    /// A dial to the address made a connection, after it had failed at others.
    pub fn dialled_after(&mut self, peer: PeerId, address: Multiaddr, failed: &[Multiaddr]) {
        self.established(peer, &dialer(address), failed);
    }

    /// The latest connection of the peer is gone; nothing happens when there is none.
    pub fn closed(&mut self, peer_id: PeerId) {
        let latest = self.open.iter().rposition(|(peer, _)| *peer == peer_id);
        let Some(latest) = latest else {
            return;
        };
        let (_, endpoint) = self.open.remove(latest);
        let (connection_id, remaining_established) = (self.id(), self.connections(peer_id));
        self.behaviour
            .on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                endpoint: &endpoint,
                cause: None,
                remaining_established,
            }));
    }

    /// All connections of the peer are gone.
    pub fn all_closed(&mut self, peer: PeerId) {
        while self.connections(peer) > 0 {
            self.closed(peer);
        }
    }

    /// The latest connection of the peer, which this node dialled, goes on at another address.
    pub fn moved(&mut self, peer_id: PeerId, to: Multiaddr) {
        let connection_id = self.id();
        let latest = self.open.iter_mut().rfind(|(peer, _)| *peer == peer_id);
        let (_, endpoint) = latest.unwrap();
        let old = std::mem::replace(endpoint, dialer(to));
        self.behaviour
            .on_swarm_event(FromSwarm::AddressChange(AddressChange {
                peer_id,
                connection_id,
                old: &old,
                new: endpoint,
            }));
    }

    /// A dial proved the address, and the connection is gone again.
    pub fn proved(&mut self, peer: PeerId, address: Multiaddr) {
        self.dialled(peer, address);
        self.closed(peer);
    }

    /// A dial to the addresses failed, because nobody listened there.
    pub fn dial_failed(&mut self, peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>) {
        self.dial_failed_by(peer, addresses, || io::ErrorKind::ConnectionRefused.into());
    }

    /// A dial to the addresses failed, because nobody answered in time.
    pub fn timed_out(&mut self, peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>) {
        self.dial_failed_by(peer, addresses, || io::ErrorKind::TimedOut.into());
    }

    pub fn dial_failed_by(
        &mut self,
        peer: PeerId,
        addresses: impl IntoIterator<Item = Multiaddr>,
        error: impl Fn() -> io::Error,
    ) {
        let attempts = addresses
            .into_iter()
            .map(|address| (with_id(address, peer), TransportError::Other(error())));
        self.dial_failed_with(peer, &DialError::Transport(attempts.collect()));
    }

    pub fn dial_failed_with(&mut self, peer: PeerId, error: &DialError) {
        let connection_id = self.id();
        self.behaviour
            .on_swarm_event(FromSwarm::DialFailure(DialFailure {
                peer_id: Some(peer),
                error,
                connection_id,
            }));
    }

    /// Another peer answered than the one that was expected at the address.
    pub fn wrong_peer(&mut self, expected: PeerId, obtained: PeerId, address: Multiaddr) {
        let address = with_id(address, expected);
        let error = DialError::WrongPeerId { obtained, address };
        self.dial_failed_with(expected, &error);
    }

    /// The peer is seen at the address from which it connected; no connection is counted for it.
    pub fn seen_inbound(&mut self, peer_id: PeerId, address: Multiaddr) {
        let (connection_id, endpoint) = (self.id(), listener(address));
        self.behaviour
            .on_swarm_event(FromSwarm::AddressChange(AddressChange {
                peer_id,
                connection_id,
                old: &endpoint,
                new: &endpoint,
            }));
    }

    /// Some behaviour, or the application, told the swarm of an address.
    pub fn found(&mut self, peer_id: PeerId, address: &Multiaddr) {
        self.behaviour
            .on_swarm_event(FromSwarm::NewExternalAddrOfPeer(NewExternalAddrOfPeer {
                peer_id,
                addr: address,
            }));
    }

    /// This node's own addresses are others than before.
    pub fn own_address_confirmed(&mut self, address: &Multiaddr) {
        let confirmed = ExternalAddrConfirmed { addr: address };
        self.behaviour
            .on_swarm_event(FromSwarm::ExternalAddrConfirmed(confirmed));
    }

    /// What the store offers for a dial to the peer.
    pub fn offers(&mut self, peer: PeerId) -> Vec<Multiaddr> {
        let connection = self.id();
        self.behaviour
            .handle_pending_outbound_connection(connection, Some(peer), &[], Endpoint::Dialer)
            .unwrap()
    }

    /// The events that the behaviour yields to its swarm.
    pub fn yielded(&mut self) -> Vec<Told> {
        let mut context = Context::from_waker(Waker::noop());
        let mut yielded = Vec::new();
        while let Poll::Ready(ToSwarm::GenerateEvent(event)) = self.behaviour.poll(&mut context) {
            yielded.push(event.into());
        }
        yielded
    }
}

fn dialer(address: Multiaddr) -> ConnectedPoint {
    ConnectedPoint::Dialer {
        address,
        role_override: Endpoint::Dialer,
        port_use: PortUse::Reuse,
    }
}

fn listener(address: Multiaddr) -> ConnectedPoint {
    ConnectedPoint::Listener {
        local_addr: at(1),
        send_back_addr: address,
    }
}

// --- events ------------------------------------------------------------------------------------------------

/// An event in a form that can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Added(PeerId),
    Addresses(PeerId, Vec<Multiaddr>, Cause),
    Protocols(PeerId, Vec<String>, Cause),
    Key(PeerId, bool),
    Metadata(PeerId, String),
    Removed(PeerId, Cause),
    Lagged(u64),
}

impl From<Event> for Told {
    fn from(event: Event) -> Self {
        let text = |name: &StreamProtocol| name.to_string();
        match event {
            Event::PeerAdded { peer } => Told::Added(peer),
            Event::AddressesChanged {
                peer,
                addresses,
                cause,
            } => Told::Addresses(peer, addresses.to_vec(), cause),
            Event::ProtocolsChanged {
                peer,
                protocols,
                cause,
            } => Told::Protocols(peer, protocols.iter().map(text).collect(), cause),
            Event::PublicKeyKnown { peer, known } => Told::Key(peer, known),
            Event::MetadataChanged { peer, key } => Told::Metadata(peer, key.to_string()),
            Event::PeerRemoved { peer, cause } => Told::Removed(peer, cause),
            Event::Lagged(missed) => Told::Lagged(missed),
            other => panic!("not an event of a store in memory: {other:?}"),
        }
    }
}

/// Everything that waits in a subscription.
pub fn heard(subscription: &mut Subscription) -> Vec<Told> {
    std::iter::from_fn(|| subscription.try_next())
        .map(Told::from)
        .collect()
}
