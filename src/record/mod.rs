//! One peer as the store keeps it in memory, and the rules for what may happen to it.
//!
//! Nothing here knows of the swarm, of events or of a datastore: a rule changes the record and notes in a
//! [`Delta`] what that means for them.

mod addresses;
mod evidence;
mod extras;
mod latency;
mod names;
mod protocols;
mod rare;
mod rules;
mod signed;
mod tags;

use std::sync::Arc;

use bitflags::bitflags;
use libp2p_core::multihash::Multihash;
use libp2p_identity::PeerId;
use libp2p_swarm::StreamProtocol;

use crate::{
    address::{Entry, Standing},
    claims,
    clock::Timestamp,
    compact::Known,
    group::Site,
    history::Epoch,
    links::Links,
    refusal::{Reasons, Refused},
    seat::{Seat, seat},
};

pub(crate) use evidence::Outcome;
#[cfg(feature = "identify")]
pub(crate) use extras::is_key_of;
pub(crate) use extras::{check_metadata, is_of_identify};
pub(crate) use latency::Latency;
pub(crate) use protocols::check_protocols;
pub(crate) use rare::{Foreign, Rare};
pub(crate) use rules::Rules;
pub(crate) use signed::Verdict;
pub(crate) use tags::{KeptTag, Tags};

bitflags! {
    /// Some of the books. Only the first four have values of their own on disk: tags and latency stand in that
    /// of the addresses.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub(crate) struct Books: u8 {
        const ADDRESSES = 1;
        const PROTOCOLS = 1 << 1;
        const KEY = 1 << 2;
        const METADATA = 1 << 3;
        const TAGS = 1 << 4;
        const LATENCY = 1 << 5;
    }
}

/// When anything was last heard of a peer: of its addresses, or that they or its protocols changed.
pub(crate) fn last_heard<'a>(
    known: impl Iterator<Item = Known<'a>>,
    epoch: Epoch,
    changed: Timestamp,
) -> Timestamp {
    let heard = known.map(|known| known.history.last_heard).max();
    let heard = heard.and_then(|step| epoch.time(step));
    heard.unwrap_or_default().max(changed)
}

/// What a peer is worth when the store is full, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Class {
    Hearsay,
    Inbound,
    SelfTold,
    Proven,
    Connected,
    Pinned,
}

/// What a rule did to a record.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    /// Books in which something is really different: these are events.
    pub(crate) changed: Books,
    /// Books that must be written soon.
    pub(crate) save: Books,
    /// Books whose small print changed (a failure, another source): written with the next commit.
    pub(crate) save_later: Books,
    /// The metadata keys that changed.
    pub(crate) metadata: Vec<String>,
    /// What was refused, by reason.
    pub(crate) refused: Reasons,
    /// What came of dials, by the standing that the address had: the model learns from it.
    pub(crate) outcomes: Vec<(Standing, bool)>,
    /// mDNS told something.
    pub(crate) announced: bool,
}

impl Delta {
    fn change(&mut self, book: Books) {
        self.changed |= book;
        self.save |= book;
    }

    fn refuse(&mut self, reason: Refused) {
        self.refused.count(reason);
    }
}

/// What else decides what a peer is worth, beside its addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) connected: bool,
    /// Connected, and only by connections that came in.
    pub(crate) accepted: bool,
    /// The application marked it as one that it cares for.
    pub(crate) cared_for: bool,
    /// Protocols or a public key are known, which are not gossiped: they come from the peer itself.
    pub(crate) speaks: bool,
    /// From where the peer came when it last told of itself.
    pub(crate) source: Option<Site>,
}

/// One peer as rules see it. Between two changes it lies in its compact form, see [`Packed`](crate::compact::Packed).
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) id: PeerId,
    /// The moment from which the times of the addresses count.
    pub(crate) epoch: Epoch,
    pub(crate) addresses: Vec<Entry>,
    /// When anybody last said anything of the peer in this run, or it was loaded.
    pub(crate) heard: Timestamp,
    /// When a dial to the peer first succeeded.
    pub(crate) first_proven: Option<Timestamp>,
    /// Without duplicates; `None` rather than empty.
    pub(crate) protocols: Option<Arc<[StreamProtocol]>>,
    /// What identify told of the software: metadata that nearly every peer has, and many have alike.
    pub(crate) agent: Option<Arc<[u8]>>,
    pub(crate) version: Option<Arc<[u8]>>,
    pub(crate) latency: Option<Latency>,
    /// Books of which something may stand in the datastore.
    pub(crate) saved: Books,
    pub(crate) connected: bool,
    /// Connected, and only by connections that came in.
    pub(crate) accepted: bool,
    /// From where the peer came when it last told of itself.
    pub(crate) source: Option<Site>,
    /// When the content of the two books last changed: stores can be merged by it.
    pub(crate) addresses_changed: Timestamp,
    pub(crate) protocols_changed: Timestamp,
    /// What few peers have.
    pub(crate) rare: Rare,
}

impl Record {
    pub(crate) fn new(id: PeerId, now: Timestamp) -> Self {
        Self {
            id,
            epoch: Epoch::for_time(now),
            addresses: Vec::new(),
            heard: now,
            first_proven: None,
            protocols: None,
            agent: None,
            version: None,
            latency: None,
            saved: Books::empty(),
            connected: false,
            accepted: false,
            source: None,
            addresses_changed: Timestamp::default(),
            protocols_changed: Timestamp::default(),
            rare: Rare::default(),
        }
    }

    /// Whether no book holds anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.addresses.is_empty()
            && self.protocols.is_none()
            && self.agent.is_none()
            && self.version.is_none()
            && self.rare.is_nothing()
    }

    /// The protocols; empty when none are known.
    pub(crate) fn protocols(&self) -> &[StreamProtocol] {
        self.protocols.as_deref().unwrap_or_default()
    }

    /// Notes when the changed books changed, tags with the addresses as on disk.
    pub(crate) fn stamp(&mut self, changed: Books, now: Timestamp) {
        if changed.contains(Books::ADDRESSES) {
            self.release_signed();
        }
        if changed.intersects(Books::ADDRESSES | Books::TAGS) {
            self.addresses_changed = now;
        }
        if changed.contains(Books::PROTOCOLS) {
            self.protocols_changed = now;
        }
    }

    /// Notes who is connected, and from where.
    pub(crate) fn note_links(&mut self, links: &Links) {
        let (connected, accepted, source) = links.standing(&self.id);
        (self.connected, self.accepted) = (connected, accepted);
        self.source = source.or(self.source);
    }

    /// The addresses as they will lie in the compact form.
    pub(crate) fn known(&self) -> impl ExactSizeIterator<Item = Known<'_>> + Clone {
        self.addresses.iter().map(|entry| Known {
            address: entry.address.as_ref(),
            history: entry.history,
        })
    }

    pub(crate) fn facts(&self) -> Facts {
        Facts {
            connected: self.connected,
            accepted: self.accepted,
            cared_for: self.rare.is_cared_for(),
            speaks: self.protocols.is_some() || self.rare.public_key.is_some(),
            source: self.source,
        }
    }

    pub(crate) fn seat(&self) -> Seat {
        seat(self.known(), &self.facts())
    }

    /// When anything was last heard of the peer.
    pub(crate) fn last_heard(&self) -> Timestamp {
        let changed = self.addresses_changed.max(self.protocols_changed);
        last_heard(self.known(), self.epoch, changed)
    }

    pub(crate) fn is_hearsay_only(&self) -> bool {
        claims::is_hearsay_only(self.known(), self.source.is_some())
    }
}

/// Whether a peer id is made of a key itself, not of its hash. Decoding that key costs microseconds, as a point
/// on a curve is computed; this costs nothing.
pub(crate) fn is_inlined(id: &PeerId) -> bool {
    // The multihash code of the identity "hash".
    const IDENTITY: u64 = 0;
    let hash: &Multihash<64> = id.as_ref();
    hash.code() == IDENTITY
}
