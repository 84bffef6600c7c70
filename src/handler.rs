//! The connection handler: which protocols the remote reports.

use std::{
    fmt,
    task::{Context, Poll},
};

use libp2p_core::upgrade::DeniedUpgrade;
use libp2p_swarm::{
    ConnectionHandler, ConnectionHandlerEvent, StreamProtocol, SubstreamProtocol,
    SupportedProtocols, handler::ConnectionEvent,
};

use crate::escape::Escaped;

/// The connection handler of [`PeerStoreBehaviour`](crate::PeerStoreBehaviour): keeps the set of protocols that the
/// remote reports on this connection, whichever behaviour asks for it (identify does), and reports each change of it as
/// a whole.
#[derive(Default)]
pub struct Handler {
    protocols: SupportedProtocols,
    report: Report,
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocols: Vec<_> = self.protocols.iter().map(Escaped).collect();
        f.debug_struct("Handler")
            .field("protocols", &protocols)
            .field("report", &self.report)
            .finish()
    }
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

    #[tracing::instrument(level = "trace", name = "ConnectionHandler::poll", skip(self, cx))]
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
