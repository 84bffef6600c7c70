//! What came of dials, by the place of the address among those that the store offered.

use std::collections::HashMap;

use libp2p_core::{ConnectedPoint, Endpoint, Multiaddr, transport::TransportError};
use libp2p_swarm::{ConnectionId, DialError, DialFailure, behaviour::ConnectionEstablished};

use super::meter::{Dialled, Meter, Rank};
use crate::dial_error::{self, Whose};

/// What the store offered for each dial that is under way: at most
/// [`Config::max_dial_addresses`](crate::Config::max_dial_addresses) for each. The swarm bounds how many dials those are,
/// and tells the end of each.
#[derive(Debug, Default)]
pub(crate) struct Offered(HashMap<ConnectionId, Vec<Multiaddr>>);

impl Offered {
    /// A dial begins. A hole punch is none: nobody takes its address for one to dial.
    pub(crate) fn begun(&mut self, dial: ConnectionId, role: Endpoint, offers: &[Multiaddr]) {
        if role == Endpoint::Dialer {
            self.0.insert(dial, offers.to_vec());
        }
    }

    /// A connection stands: one address answered, and others may have failed before.
    pub(crate) fn established(&mut self, event: &ConnectionEstablished<'_>, meter: &Meter) {
        let Some(offers) = self.0.remove(&event.connection_id) else {
            return;
        };
        for address in event.failed_addresses {
            meter.dialled(Dialled::Failure, rank(&offers, address));
        }
        if let ConnectedPoint::Dialer { address, .. } = event.endpoint {
            meter.dialled(Dialled::Success, rank(&offers, address));
        }
    }

    /// A dial came to nothing. Only what was really tried counts.
    pub(crate) fn failed(&mut self, event: &DialFailure<'_>, meter: &Meter) {
        let Some(offers) = self.0.remove(&event.connection_id) else {
            return;
        };
        match event.error {
            DialError::Transport(attempts) => {
                for (address, error) in attempts {
                    let outcome = match error {
                        TransportError::MultiaddrNotSupported(_) => Dialled::Unsupported,
                        TransportError::Other(error) => match dial_error::whose(error) {
                            Whose::Ours => Dialled::LocalError,
                            Whose::Theirs | Whose::Unknown => Dialled::Failure,
                        },
                    };
                    meter.dialled(outcome, rank(&offers, address));
                }
            }
            DialError::WrongPeerId { address, .. } | DialError::LocalPeerId { address } => {
                meter.dialled(Dialled::WrongPeer, rank(&offers, address));
            }
            DialError::NoAddresses
            | DialError::DialPeerConditionFalse(_)
            | DialError::Aborted
            | DialError::Denied { .. } => {}
        }
    }
}

/// The swarm reports addresses in the form in which they are offered.
fn rank(offers: &[Multiaddr], address: &Multiaddr) -> Rank {
    match offers.iter().position(|offer| offer == address) {
        Some(0) => Rank::First,
        Some(1) => Rank::Second,
        Some(2) => Rank::Third,
        Some(_) => Rank::Later,
        None => Rank::NotOffered,
    }
}
