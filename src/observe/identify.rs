//! Identify and identify-push: what a peer says of itself replaces what was known.

use libp2p_identify::Event;

use super::{Learned, Teach};
use crate::{address::Source, state::Identified};

impl Teach for Event {
    const SOURCE: Source = Source::Identify;

    // Its cache announces again, at will, what `Received` has said, or said long ago.
    const ECHOES: bool = true;

    /// A push is reported like the first answer: as the whole of what the peer has said on that connection.
    fn teach(&self, learned: &mut Learned<'_>) {
        let Event::Received { peer_id, info, .. } = self else {
            return;
        };
        let peer = *peer_id;
        learned.identified(
            peer,
            Identified {
                addresses: &info.listen_addrs,
                protocols: &info.protocols,
                public_key: &info.public_key,
                agent: &info.agent_version,
                version: &info.protocol_version,
            },
        );
        // After a push this is still the record of the first answer: it certifies addresses, and adds none.
        if let Some(envelope) = &info.signed_peer_record {
            learned.certify_by_record(peer, envelope);
        }
    }
}
