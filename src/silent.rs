//! Addresses that were dialled lately and said nothing.
//!
//! A failure that does not count leaves an address as it was. If that were all, it would be offered alone at each further
//! dial, for as long as nothing counts: a host that is no longer there, or a family of addresses that this machine does
//! not have. So it is noted here, for a time, and others come to be dialled beside it. This is no evidence: it is never
//! stored, and moves no confidence.

use std::hash::{BuildHasher, RandomState};

use libp2p_identity::PeerId;

use crate::{clock::Timestamp, network::Scope, quality, recent::Recent};

/// How many addresses are remembered.
const MAX_SILENT: usize = 4_096;

#[derive(Debug)]
pub(crate) struct Silent {
    tried: Recent<Tried>,
    secret: RandomState,
}

#[derive(Debug, Clone, Copy)]
struct Tried {
    last: Timestamp,
    /// How often, with no more than the longest back-off between two.
    times: u8,
    scope: Scope,
}

impl Default for Silent {
    fn default() -> Self {
        Self {
            tried: Recent::new(MAX_SILENT),
            secret: RandomState::new(),
        }
    }
}

impl Silent {
    pub(crate) fn is_empty(&self) -> bool {
        self.tried.is_empty()
    }

    /// A dial to the address of a peer came to nothing, and that does not count.
    pub(crate) fn note(&mut self, peer: &PeerId, address: &[u8], scope: Scope, now: Timestamp) {
        let key = self.key(peer, address);
        let before = self.tried.get(key);
        let before = before.filter(|it| now.since(it.last) <= quality::LONGEST_BACK_OFF);
        let times = before.map_or(1, |it| it.times.saturating_add(1));
        let last = now;
        self.tried.note(key, Tried { last, times, scope });
    }

    /// Something was heard of the address.
    pub(crate) fn clear(&mut self, peer: &PeerId, address: &[u8]) {
        if !self.is_empty() {
            self.tried.forget(self.key(peer, address));
        }
    }

    /// An outage of a part of the network is over: what was silent in it may be there.
    pub(crate) fn clear_scope(&mut self, scope: Scope) {
        self.tried.retain(|it| it.scope != scope);
    }

    /// Whether the address said nothing when it was tried, not longer ago than it would be left alone for failures
    /// that count.
    pub(crate) fn contains(&self, peer: &PeerId, address: &[u8], now: Timestamp) -> bool {
        if self.is_empty() {
            return false;
        }
        let tried = self.tried.get(self.key(peer, address));
        tried.is_some_and(|it| now.since(it.last) < quality::full_back_off(it.times))
    }

    fn key(&self, peer: &PeerId, address: &[u8]) -> u64 {
        self.secret.hash_one((peer, address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_735_689_600);
    const MINUTE: u64 = 60;

    #[test]
    fn each_further_silence_is_remembered_for_twice_as_long_up_to_an_hour() {
        let (mut silent, peer) = (Silent::default(), PeerId::random());
        let mut now = NOW;
        for minutes in [2, 4, 8, 16, 32, 60, 60] {
            silent.note(&peer, b"a", Scope::Ip4, now);
            now.0 += minutes * MINUTE - 1;
            assert!(silent.contains(&peer, b"a", now), "{minutes}");
            now.0 += 1;
            assert!(!silent.contains(&peer, b"a", now), "{minutes}");
        }
        // What is long ago counts no longer.
        now.0 += 1;
        silent.note(&peer, b"a", Scope::Ip4, now);
        assert!(!silent.contains(&peer, b"a", now.after(std::time::Duration::from_secs(120))));
    }

    #[test]
    fn each_address_of_each_peer_is_for_itself() {
        let (mut silent, peer) = (Silent::default(), PeerId::random());
        silent.note(&peer, b"a", Scope::Ip4, NOW);
        silent.note(&peer, b"six", Scope::Ip6, NOW);
        assert!(!silent.contains(&peer, b"b", NOW));
        assert!(!silent.contains(&PeerId::random(), b"a", NOW));
        silent.clear(&peer, b"b");
        assert!(silent.contains(&peer, b"a", NOW));
        silent.clear_scope(Scope::Ip4);
        assert!(!silent.contains(&peer, b"a", NOW) && silent.contains(&peer, b"six", NOW));
        silent.clear(&peer, b"six");
        assert!(silent.is_empty());
    }
}
