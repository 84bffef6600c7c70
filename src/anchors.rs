//! The two peers that this node dialled last: they are the first to be dialled after a restart, also after one that
//! nobody announced.
//!
//! When a peer was last reached is known exactly in memory, and to some days on disk, as else each dial would be a write.
//! So the records of these two are written when they are others than before.

use std::time::Duration;

use libp2p_identity::PeerId;

/// They are written no more often, however many peers are dialled.
const LEAST: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct Anchors {
    /// The latest first.
    latest: [Option<PeerId>; 2],
    /// Whether they are others than when they were written.
    changed: bool,
    written: Option<Duration>,
}

impl Anchors {
    /// A dial of this node reached the peer.
    pub(crate) fn reached(&mut self, peer: PeerId) {
        if self.latest[0] != Some(peer) {
            self.latest = [Some(peer), self.latest[0]];
            self.changed = true;
        }
    }

    /// Those that are to be written now, if any; with `at_once`, however short ago some were written.
    pub(crate) fn take_due(&mut self, at_once: bool, now: Duration) -> [Option<PeerId>; 2] {
        let is_due = |written: Duration| now.saturating_sub(written) >= LEAST;
        if !self.changed || !at_once && !self.written.is_none_or(is_due) {
            return [None; 2];
        }
        self.changed = false;
        self.written = Some(now);
        self.latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_two_are_due_at_once_and_then_once_a_minute() {
        let mut anchors = Anchors::default();
        let peers: Vec<PeerId> = (0..100).map(|_| PeerId::random()).collect();
        let mut due = Vec::new();
        for second in 0..3_600 {
            let now = Duration::from_secs(second);
            let peer = |second: u64| Some(peers[second as usize % peers.len()]);
            anchors.reached(peers[second as usize % peers.len()]);
            let taken = anchors.take_due(false, now);
            if taken != [None; 2] {
                let before = second.checked_sub(1).and_then(peer);
                assert_eq!(taken, [peer(second), before]);
                due.push(second);
            }
        }
        assert_eq!(due, (0..3_600).step_by(60).collect::<Vec<_>>());
        assert_ne!(
            anchors.take_due(true, Duration::from_secs(3_600)),
            [None; 2]
        );
    }

    #[test]
    fn whoever_is_dialled_again_and_again_is_no_change() {
        let mut anchors = Anchors::default();
        let peer = PeerId::random();
        anchors.reached(peer);
        assert_eq!(anchors.take_due(true, Duration::ZERO), [Some(peer), None]);
        anchors.reached(peer);
        assert_eq!(anchors.take_due(true, Duration::ZERO), [None; 2]);
    }
}
