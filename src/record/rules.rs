//! The time, the limits and what this node has learnt: all that a rule depends on, and what follows from it for one
//! address.

use std::{collections::VecDeque, hash::RandomState, time::Duration};

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;

use super::Record;
use crate::{
    address::{Address, Sources, Standing},
    claims::{self, Claims},
    clock::Timestamp,
    compact::Known,
    config::Config,
    group::Reach,
    history::{Epoch, Flags, History},
    links::Links,
    quality::{self, Model},
    refusal::Refused,
    silent::Silent,
};

/// The time, the limits and what this node has learnt: all that a rule depends on.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) now: Timestamp,
    /// When the store was loaded; zero for one in memory.
    pub(crate) loaded: Timestamp,
    pub(crate) config: &'a Config,
    pub(crate) model: &'a Model,
    /// Addresses that turned out to be this node's own.
    pub(crate) own: &'a VecDeque<Multiaddr>,
    /// What makes the jitter of back-offs unforeseeable.
    pub(crate) secret: &'a RandomState,
    pub(crate) links: &'a Links,
    pub(crate) claims: &'a Claims,
    /// What was dialled lately and said nothing.
    pub(crate) silent: &'a Silent,
}

impl Rules<'_> {
    pub(crate) fn standing(&self, history: &History, epoch: Epoch) -> Standing {
        let proven = history.flags.contains(Flags::IN_USE)
            || epoch
                .time(history.success)
                .is_some_and(|at| self.now.since(at) < self.config.proven_lifetime());
        if proven {
            Standing::Proven
        } else if history.told() == Standing::SelfTold && self.is_own_word_over(history, epoch) {
            Standing::Hearsay
        } else {
            history.told()
        }
    }

    /// Whether the peer's own word of it is over, and the address only there still for that of others.
    fn is_own_word_over(&self, history: &History, epoch: Epoch) -> bool {
        let heard = epoch.time(history.last_heard).unwrap_or_default();
        let lifetime = quality::lifetime(Standing::SelfTold, history, epoch, self.config);
        history.is_told_by_others() && self.now.since(heard) >= lifetime
    }

    /// The estimated chance that a dial made now succeeds, for an address of this standing.
    pub(crate) fn confidence(&self, history: &History, standing: Standing, epoch: Epoch) -> f64 {
        self.model.confidence(history, epoch, standing, self.now)
    }

    /// When the address is forgotten if nothing more is heard of it; `None` for never.
    pub(crate) fn expires(&self, history: &History, epoch: Epoch) -> Option<Timestamp> {
        let held = Flags::IN_USE | Flags::HELD | Flags::ANNOUNCED;
        if history.is_pinned() || history.flags.intersects(held) {
            return None;
        }
        let heard = epoch.time(history.last_heard).unwrap_or_default();
        let told = heard.after(quality::told_lifetime(history, epoch, self.config));
        let lifetime = quality::lifetime(Standing::Proven, history, epoch, self.config);
        let proven = epoch.time(history.success).map(|at| at.after(lifetime));
        Some(proven.map_or(told, |proven| proven.max(told)))
    }

    /// When what this node proved of the address is proof no longer; `None` if it is not, or while it is in use.
    pub(crate) fn proof_ends(&self, history: &History, epoch: Epoch) -> Option<Timestamp> {
        let proven = history.is_dialled() && !history.flags.contains(Flags::IN_USE);
        let success = epoch.time(history.success).unwrap_or_default();
        proven.then(|| success.after(self.config.proven_lifetime()))
    }

    pub(crate) fn has_expired(&self, history: &History, epoch: Epoch) -> bool {
        let expires = self.expires(history, epoch);
        expires.is_some_and(|at| at <= self.now)
    }

    /// Whether it turned out to be this node's own, so that nobody is believed who tells it; pinned ones are the
    /// user's word.
    pub(crate) fn is_own(&self, address: &Address, sources: Sources) -> bool {
        sources != Sources::PINNED && self.is_among_own(address.as_ref())
    }

    pub(crate) fn is_among_own(&self, address: &[u8]) -> bool {
        self.own.iter().any(|own| own.as_ref() == address)
    }

    /// How long the address is still left alone for its failures.
    pub(crate) fn back_off(&self, known: &Known<'_>, epoch: Epoch) -> Option<Duration> {
        let failed = epoch.time(known.history.failure)?;
        let back_off = quality::back_off(known.history.failures, known.address, self.secret);
        let rest = back_off.checked_sub(self.now.since(failed))?;
        (!rest.is_zero()).then_some(rest)
    }

    /// Whether another peer answered there, so short ago that it is not tried again.
    pub(crate) fn is_blocked(&self, history: &History, epoch: Epoch) -> bool {
        let failed = epoch.time(history.failure).unwrap_or_default();
        history.flags.contains(Flags::WRONG_PEER)
            && self.now.since(failed) < self.config.wrong_peer_block()
    }

    /// Why an address that is not known yet is not taken from these sources, if so.
    pub(crate) fn refuses(
        &self,
        record: &Record,
        address: &Address,
        sources: Sources,
    ) -> Option<Refused> {
        if self.is_out_of_scope(&record.id, address.as_ref(), sources) {
            return Some(Refused::OutOfScope);
        }
        if !claims::is_claim(sources) || !record.is_hearsay_only() {
            return None;
        }
        let spot = claims::spot(address, self.secret)?;
        // Another port at the same place is not another claim.
        let is_there = |known: Known<'_>| claims::spot(known.address, self.secret) == Some(spot);
        let claimed = self.claims.claimants(spot).count();
        (claimed >= self.config.max_claims_per_ip().get() && !record.known().any(is_there))
            .then_some(Refused::TooManyClaims)
    }

    /// Nobody from afar is to make this node dial into its own machine or its local network.
    pub(crate) fn is_out_of_scope(&self, peer: &PeerId, address: &[u8], sources: Sources) -> bool {
        let near = Sources::PINNED
            | Sources::APPLICATION
            | Sources::MDNS
            | Sources::DIALLED
            | Sources::INBOUND;
        if sources.intersects(near) {
            return false;
        }
        let nearest = if sources.intersects(Sources::SELF_TOLD) {
            self.links.nearest_from(peer)
        } else if self.config.private_hearsay() {
            Reach::Machine
        } else {
            self.links.nearest_from_anybody()
        };
        Reach::of(address) < nearest
    }

    /// Whether to hear of an address again is news: the time when it was last heard has become misleading.
    pub(crate) fn is_word_stale(&self, history: &History, epoch: Epoch) -> bool {
        let told = history.told();
        let lifetime = quality::lifetime(told, history, epoch, self.config);
        let heard = epoch.time(history.last_heard).unwrap_or_default();
        self.is_stale(heard, quality::refreshed_by(told, lifetime))
    }

    /// The same of the proof that a connection in use gives all the time: should the process be killed, the proof is
    /// not to be as old as the connection.
    pub(crate) fn is_proof_stale(&self, history: &History, epoch: Epoch) -> bool {
        let success = epoch.time(history.success).unwrap_or_default();
        history.flags.contains(Flags::IN_USE)
            && self.is_stale(success, self.config.proven_lifetime())
    }

    /// Whether the time that is kept is a quarter of its lifetime old.
    pub(crate) fn is_stale(&self, kept: Timestamp, lifetime: Duration) -> bool {
        self.now.since(kept) > lifetime / 4
    }
}
