//! The behaviour: what the swarm tells goes into the store, what the store tells goes to the swarm.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::Stream;
use libp2p_core::{
    ConnectedPoint, Endpoint, Multiaddr,
    transport::{PortUse, TransportError},
    upgrade::DeniedUpgrade,
};
use libp2p_identity::PeerId;
use libp2p_swarm::{
    AddressChange, ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent,
    ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour, NewExternalAddrOfPeer,
    StreamProtocol, SubstreamProtocol, SupportedProtocols, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, behaviour::ConnectionEstablished, handler::ConnectionEvent,
};

use crate::{
    address::{Sources, bare, without_given},
    error::BehaviourError,
    event::{Cause, Event, Subscription},
    record::{Delta, Record, Rules},
    state::By,
    store::PeerStore,
};

/// A [`NetworkBehaviour`] that feeds a [`PeerStore`] from its swarm, offers the store's addresses at every dial by
/// peer id, and yields the store's events.
///
/// It speaks no protocol of its own and keeps no connection alive. Its place among the other behaviours does not
/// matter. What each swarm event does to the store is listed in the [crate documentation](crate).
#[derive(Debug)]
pub struct PeerStoreBehaviour {
    store: PeerStore,
    /// `None` when [`Config::swarm_events`](crate::Config::swarm_events) is off.
    events: Option<Subscription>,
}

impl PeerStoreBehaviour {
    /// A behaviour for one swarm.
    ///
    /// # Errors
    ///
    /// [`BehaviourError::AlreadyAttached`] when the store has a live behaviour already.
    pub fn new(store: PeerStore) -> Result<Self, BehaviourError> {
        if !store.inner().attach() {
            return Err(BehaviourError::AlreadyAttached);
        }
        let events = store
            .inner()
            .config()
            .swarm_events()
            .then(|| store.subscribe());
        Ok(Self { store, events })
    }

    /// The store that this behaviour feeds.
    pub fn store(&self) -> &PeerStore {
        &self.store
    }

    fn edit(
        &self,
        peer: PeerId,
        cause: Cause,
        rule: impl FnOnce(&mut Record, Rules<'_>, &mut Delta),
    ) {
        let inner = self.store.inner();
        inner.write(peer, |state, now| {
            state.edit(peer, By::Swarm, cause, now, rule)
        });
    }

    fn connection_established(&self, event: ConnectionEstablished<'_>) {
        let peer = event.peer_id;
        // First who is connected, so that a peer that becomes known by this is known as connected.
        self.store
            .inner()
            .with(|state, _| state.connection_opened(peer));
        if !event.failed_addresses.is_empty() {
            self.edit(peer, Cause::Dial, |record, rules, delta| {
                for address in event.failed_addresses {
                    record.dial_failed(address, rules, delta);
                }
            });
        }
        match event.endpoint {
            ConnectedPoint::Dialer {
                address,
                role_override: Endpoint::Dialer,
                ..
            } => self.edit(peer, Cause::Dial, |record, rules, delta| {
                record.dial_succeeded(address, rules, delta);
            }),
            // A hole-punched connection: its address is a mapping of the remote NAT, for us alone.
            ConnectedPoint::Dialer { address, .. } => self.seen_inbound(peer, address),
            ConnectedPoint::Listener { send_back_addr, .. } => {
                self.seen_inbound(peer, send_back_addr);
            }
        }
    }

    fn connection_closed(&self, event: ConnectionClosed<'_>) {
        self.store
            .inner()
            .with(|state, _| state.connection_closed(event.peer_id));
    }

    fn address_change(&self, event: AddressChange<'_>) {
        match event.new {
            ConnectedPoint::Dialer {
                address,
                role_override: Endpoint::Dialer,
                ..
            } => {
                // The peer moved there by itself: nobody has dialled it.
                let told = std::slice::from_ref(address);
                self.edit(event.peer_id, Cause::Dial, |record, rules, delta| {
                    record.add_addresses(told, Sources::DISCOVERY, rules, delta);
                });
            }
            ConnectedPoint::Dialer { address, .. } => self.seen_inbound(event.peer_id, address),
            ConnectedPoint::Listener { send_back_addr, .. } => {
                self.seen_inbound(event.peer_id, send_back_addr);
            }
        }
    }

    fn seen_inbound(&self, peer: PeerId, address: &Multiaddr) {
        self.edit(peer, Cause::Inbound, |record, rules, delta| {
            record.seen_inbound(address, rules, delta);
        });
    }

    fn dial_failure(&self, event: DialFailure<'_>) {
        let Some(peer) = event.peer_id else {
            return;
        };
        match event.error {
            DialError::Transport(attempts) => {
                self.edit_known(peer, |record, rules, delta| {
                    for (address, error) in attempts {
                        match error {
                            TransportError::MultiaddrNotSupported(_) => {
                                record.dial_unsupported(address, rules, delta);
                            }
                            TransportError::Other(error) if is_local(error) => {}
                            TransportError::Other(_) => record.dial_failed(address, rules, delta),
                        }
                    }
                });
            }
            DialError::WrongPeerId { obtained, address } => {
                self.edit_known(peer, |record, rules, delta| {
                    record.dial_failed(address, rules, delta);
                });
                self.wrong_peer(peer, *obtained, address);
            }
            // `LocalPeerId` comes from dials without an expected peer: it says nothing about any other peer.
            // The others say that nothing was dialled, or was broken off by this node.
            DialError::LocalPeerId { .. }
            | DialError::NoAddresses
            | DialError::DialPeerConditionFalse(_)
            | DialError::Aborted
            | DialError::Denied { .. } => {}
        }
    }

    /// Another peer answered than was expected: it told where it is, and nothing was proven, as the connection
    /// did not come about.
    fn wrong_peer(&self, expected: PeerId, obtained: PeerId, address: &Multiaddr) {
        let inner = self.store.inner();
        let max_len = inner.config().max_address_len().get();
        if obtained == self.store.local_peer_id() {
            return;
        }
        let Ok(Some(address)) = bare(&expected, address, max_len) else {
            return;
        };
        self.edit(obtained, Cause::Dial, |record, rules, delta| {
            let told = std::slice::from_ref(&address);
            record.add_addresses(told, Sources::IDENTIFY, rules, delta);
        });
    }

    fn new_external_addr_of_peer(&self, event: NewExternalAddrOfPeer<'_>) {
        let (peer, address) = (event.peer_id, event.addr);
        let inner = self.store.inner();
        if inner.with(|state, _| state.is_echo(&peer, address)) {
            return;
        }
        self.edit(peer, Cause::Discovery, |record, rules, delta| {
            let told = std::slice::from_ref(address);
            record.add_addresses(told, Sources::DISCOVERY, rules, delta);
        });
    }

    fn edit_known(&self, peer: PeerId, rule: impl FnOnce(&mut Record, Rules<'_>, &mut Delta)) {
        let inner = self.store.inner();
        inner.write(peer, |state, now| {
            state.edit_known(peer, By::Swarm, Cause::Dial, now, rule)
        });
    }
}

impl Drop for PeerStoreBehaviour {
    fn drop(&mut self) {
        self.store.inner().detach();
    }
}

impl NetworkBehaviour for PeerStoreBehaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        maybe_peer: Option<PeerId>,
        addresses: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let Some(peer) = maybe_peer else {
            return Ok(Vec::new());
        };
        let offers = self.store.inner().offers(&peer).unwrap_or_default();
        let max_len = self.store.inner().config().max_address_len().get();
        Ok(without_given(&peer, offers, addresses, max_len))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => self.connection_established(event),
            FromSwarm::ConnectionClosed(event) => self.connection_closed(event),
            FromSwarm::AddressChange(event) => self.address_change(event),
            FromSwarm::DialFailure(event) => self.dial_failure(event),
            FromSwarm::NewExternalAddrOfPeer(event) => self.new_external_addr_of_peer(event),
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        _: ConnectionId,
        protocols: THandlerOutEvent<Self>,
    ) {
        self.edit(peer, Cause::Identify, |record, rules, delta| {
            record.learn_protocols(&protocols, rules, delta);
        });
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        let Some(events) = &mut self.events else {
            return Poll::Pending;
        };
        match Pin::new(events).poll_next(cx) {
            Poll::Ready(Some(event)) => Poll::Ready(ToSwarm::GenerateEvent(event)),
            // After shutdown nothing comes any more.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// Whether a dial failed for a reason of this machine's own, which says nothing about the address.
fn is_local(error: &io::Error) -> bool {
    use io::ErrorKind::{
        AddrInUse, AddrNotAvailable, HostUnreachable, NetworkDown, NetworkUnreachable, OutOfMemory,
        PermissionDenied, Unsupported,
    };
    // Process and system limits of open files; they have no kind of their own.
    const OUT_OF_DESCRIPTORS: [i32; 2] = [23, 24];

    let is_local_kind = |error: &io::Error| {
        matches!(
            error.kind(),
            AddrInUse
                | AddrNotAvailable
                | HostUnreachable
                | NetworkDown
                | NetworkUnreachable
                | OutOfMemory
                | PermissionDenied
                | Unsupported
        ) || error
            .raw_os_error()
            .is_some_and(|code| OUT_OF_DESCRIPTORS.contains(&code))
    };
    // Transports wrap what the system said, some several times over; those that are combined hide the error itself
    // (`Either` is no step of the chain), but not its text.
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<io::Error>();
        let is_local = match io {
            Some(io) => is_local_kind(io),
            None => os_error(&error.to_string()).is_some_and(|io| is_local_kind(&io)),
        };
        if is_local {
            return true;
        }
        cause = match io.and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

/// The system's error in a text like `No route to host (os error 113)`.
fn os_error(text: &str) -> Option<io::Error> {
    let (_, code) = text.rsplit_once("(os error ")?;
    let (code, _) = code.split_once(')')?;
    Some(io::Error::from_raw_os_error(code.parse().ok()?))
}

/// The connection handler of [`PeerStoreBehaviour`]: keeps the set of protocols that the remote reports on this
/// connection, whichever behaviour asks for it (identify does), and reports each change of it as a whole.
#[derive(Debug, Default)]
pub struct Handler {
    protocols: SupportedProtocols,
    report: Report,
}

/// Where a changed set of protocols is on its way to the behaviour.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Report {
    /// It is there.
    #[default]
    Done,
    /// It may not be complete yet.
    Changed,
    /// Nothing more came in a whole round of polls.
    Settled,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = std::convert::Infallible;
    type ToBehaviour = Vec<StreamProtocol>;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        // What one message of the remote adds and what it removes comes as two changes, with a poll between them:
        // the set between is none that the remote ever had. The connection polls after each event that it hands to
        // its handlers, and once more when it is woken with nothing left to hand on.
        match self.report {
            Report::Done => Poll::Pending,
            Report::Changed => {
                self.report = Report::Settled;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Report::Settled => {
                self.report = Report::Done;
                let protocols = self.protocols.iter().cloned().collect();
                Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(protocols))
            }
        }
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        match event {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        if let ConnectionEvent::RemoteProtocolsChange(change) = event
            && self.protocols.on_protocols_change(change)
        {
            self.report = Report::Changed;
        }
    }
}
