//! A behaviour that says what it is told to, to stand in for identify and Kademlia.

use std::{
    collections::VecDeque,
    convert::Infallible,
    task::{Context, Poll},
};

use libp2p_core::{Endpoint, Multiaddr, transport::PortUse};
use libp2p_identity::PeerId;
use libp2p_peerstore::Observed;
use libp2p_swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};

/// A behaviour that says what it is told to.
pub struct Scripted<E> {
    pub script: VecDeque<ToSwarm<E, Infallible>>,
    /// What it adds to the next dial.
    pub addresses: Vec<Multiaddr>,
}

impl<E: Send + 'static> NetworkBehaviour for Scripted<E> {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = E;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        Ok(std::mem::take(&mut self.addresses))
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
        self.script.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

pub fn scripted<E>() -> Scripted<E> {
    Scripted {
        script: VecDeque::new(),
        addresses: Vec::new(),
    }
}

/// What the observed behaviours have in common.
pub trait Dial {
    fn added(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        given: &[Multiaddr],
    ) -> Vec<Multiaddr>;
}

impl<E: Send + 'static> Dial for Observed<Scripted<E>> {
    fn added(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        given: &[Multiaddr],
    ) -> Vec<Multiaddr> {
        let role = Endpoint::Dialer;
        self.handle_pending_outbound_connection(connection, peer, given, role)
            .unwrap()
    }
}
