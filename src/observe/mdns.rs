//! mDNS: what the local network announces is added, and withdrawn when it expires.

use libp2p_mdns::Event;

use super::{Learned, Teach};
use crate::address::Source;

impl Teach for Event {
    const SOURCE: Source = Source::Mdns;

    // It announces to the swarm what `Discovered` says.
    const ECHOES: bool = true;

    fn teach(&self, learned: &mut Learned<'_>) {
        match self {
            Event::Discovered(found) => {
                for (peer, address) in found {
                    learned.add(*peer, std::slice::from_ref(address));
                }
            }
            Event::Expired(gone) => {
                for (peer, address) in gone {
                    learned.withdraw(*peer, Some(std::slice::from_ref(address)));
                }
            }
        }
    }
}
