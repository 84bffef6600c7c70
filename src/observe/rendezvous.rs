//! Rendezvous, client side: what a rendezvous point knows is added, and withdrawn when it expires.

use libp2p_rendezvous::client::Event;

use super::{Learned, Teach};
use crate::address::Source;

impl Teach for Event {
    const SOURCE: Source = Source::Rendezvous;

    // It announces to the swarm what `Discovered` says.
    const ECHOES: bool = true;

    fn teach(&self, learned: &mut Learned<'_>) {
        match self {
            Event::Discovered { registrations, .. } => {
                for registration in registrations {
                    let record = &registration.record;
                    learned.add(record.peer_id(), record.addresses());
                }
            }
            Event::Expired { peer } => {
                learned.withdraw(*peer, None);
            }
            _ => {}
        }
    }
}
