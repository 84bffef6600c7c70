//! Ping: how long a message to the peer and back takes.

use libp2p_ping::Event;

use super::{Learned, Teach};

impl Teach for Event {
    /// A ping that failed says nothing of the time, and a connection that dies says so itself.
    fn teach(&self, learned: &mut Learned<'_>) {
        if let Ok(latency) = self.result {
            learned.latency(self.peer, latency);
        }
    }
}
