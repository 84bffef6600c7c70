//! Kademlia: what others say of a peer is merged.
//!
//! All that is visible through public API is used. The addresses of peers that a response named and that
//! Kademlia itself never dialled are not.

use libp2p_kad::{Event, GetClosestPeersError, InboundRequest, QueryResult};

use super::{Learned, Teach};
use crate::address::Source;

impl Teach for Event {
    const SOURCE: Source = Source::Kademlia;

    fn teach(&self, learned: &mut Learned<'_>) {
        match self {
            Event::RoutingUpdated {
                peer, addresses, ..
            } => {
                let addresses: Vec<_> = addresses.iter().cloned().collect();
                learned.add(*peer, &addresses);
            }
            Event::RoutablePeer { peer, address }
            | Event::PendingRoutablePeer { peer, address } => {
                learned.add(*peer, std::slice::from_ref(address));
            }
            Event::OutboundQueryProgressed {
                result: QueryResult::GetClosestPeers(result),
                ..
            } => {
                let peers = match result {
                    Ok(found) => &found.peers,
                    Err(GetClosestPeersError::Timeout { peers, .. }) => peers,
                };
                for found in peers {
                    learned.add(found.peer_id, &found.addrs);
                }
            }
            Event::InboundRequest {
                request:
                    InboundRequest::AddProvider {
                        record: Some(record),
                    },
            } => {
                learned.add(record.provider, &record.addresses);
            }
            _ => {}
        }
    }
}
