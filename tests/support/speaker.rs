//! A behaviour that claims to speak any protocols, and can change its mind about all of them at once.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll, Waker},
};

use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{
        Endpoint,
        transport::PortUse,
        upgrade::{DeniedUpgrade, InboundUpgrade, UpgradeInfo},
    },
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, NotifyHandler, SubstreamProtocol, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, handler::ConnectionEvent,
    },
};

/// Claims to speak these protocols.
#[derive(Debug, Clone, Default)]
pub struct Claim(Vec<StreamProtocol>);

impl Claim {
    pub fn new(names: &[&'static str]) -> Self {
        Self(names.iter().map(|name| StreamProtocol::new(name)).collect())
    }
}

#[derive(Default)]
pub struct Speaker {
    claim: Claim,
    connections: Vec<(PeerId, ConnectionId)>,
    to_tell: Vec<(PeerId, ConnectionId)>,
    waker: Option<Waker>,
}

impl Speaker {
    pub fn new(names: &[&'static str]) -> Self {
        Self {
            claim: Claim::new(names),
            ..Self::default()
        }
    }

    /// Speaks these protocols from now on, and no others.
    pub fn speak(&mut self, names: &[&'static str]) {
        self.claim = Claim::new(names);
        self.to_tell = self.connections.clone();
        self.waker.take().into_iter().for_each(Waker::wake);
    }

    fn connected(&mut self, id: ConnectionId, peer: PeerId) -> SpeakerHandler {
        self.connections.push((peer, id));
        SpeakerHandler(self.claim.clone())
    }
}

impl NetworkBehaviour for Speaker {
    type ConnectionHandler = SpeakerHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.connected(id, peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.connected(id, peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionClosed(closed) = event {
            self.connections
                .retain(|(_, id)| *id != closed.connection_id);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        let Some((peer_id, connection)) = self.to_tell.pop() else {
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        Poll::Ready(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(connection),
            event: self.claim.clone(),
        })
    }
}

pub struct SpeakerHandler(Claim);

impl ConnectionHandler for SpeakerHandler {
    type FromBehaviour = Claim;
    type ToBehaviour = Infallible;
    type InboundProtocol = Claim;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Claim> {
        SubstreamProtocol::new(self.0.clone(), ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), Infallible>> {
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, claim: Claim) {
        self.0 = claim;
    }

    fn on_connection_event(&mut self, _: ConnectionEvent<'_, Claim, DeniedUpgrade>) {}
}

impl UpgradeInfo for Claim {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Claim {
    type Output = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn upgrade_inbound(self, _: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(()))
    }
}
