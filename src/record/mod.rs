//! One peer as the store keeps it in memory, and the rules for what may happen to it.
//!
//! Nothing here knows of the swarm, of events or of a datastore: a rule changes the record and notes in a
//! [`Delta`] what that means for them.

mod addresses;
mod extras;
mod latency;
mod protocols;
mod signed;
mod tags;

use std::{
    collections::{BTreeMap, VecDeque},
    hash::RandomState,
    num::NonZeroU64,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bitflags::bitflags;
use libp2p_core::{Multiaddr, multihash::Multihash};
use libp2p_identity::{PeerId, PublicKey};
use libp2p_swarm::StreamProtocol;

use crate::{
    address::{AddressInfo, Entry, Sources, Standing, with_peer},
    bootstrap::Candidate,
    claims::{self, Claims},
    clock::Timestamp,
    config::Config,
    group::{Group, Reach, Site},
    history::{Epoch, Flags},
    links::Links,
    peer::Peer,
    quality::{self, Model},
    refusal::{Refusals, Refused},
    signed::SignedRecord,
};

pub(crate) use addresses::Outcome;
pub(crate) use extras::check_metadata;
pub(crate) use latency::Latency;
pub(crate) use protocols::check_protocols;
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

/// The time, the limits and what this node has learnt: all that a rule depends on.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) now: Timestamp,
    pub(crate) config: &'a Config,
    pub(crate) model: &'a Model,
    /// Addresses that turned out to be this node's own.
    pub(crate) own: &'a VecDeque<Multiaddr>,
    /// What makes the jitter of back-offs unforeseeable.
    pub(crate) secret: &'a RandomState,
    pub(crate) links: &'a Links,
    pub(crate) claims: &'a Claims,
}

impl Rules<'_> {
    pub(crate) fn standing(&self, entry: &Entry, epoch: Epoch) -> Standing {
        let proven = entry.history.flags.contains(Flags::IN_USE)
            || epoch
                .time(entry.history.success)
                .is_some_and(|at| self.now.since(at) < self.config.proven_lifetime());
        if proven {
            Standing::Proven
        } else {
            entry.told()
        }
    }

    fn confidence(&self, entry: &Entry, epoch: Epoch) -> f64 {
        let standing = self.standing(entry, epoch);
        self.model
            .confidence(&entry.history, epoch, standing, self.now)
    }

    /// When the address is forgotten if nothing more is heard of it; `None` for never.
    fn expires(&self, entry: &Entry, epoch: Epoch) -> Option<Timestamp> {
        let history = &entry.history;
        if entry.is_pinned() || history.flags.contains(Flags::IN_USE) {
            return None;
        }
        let lifetime = |standing| quality::lifetime(standing, history, epoch, self.config);
        let heard = epoch.time(history.last_heard).unwrap_or_default();
        let told = heard.after(lifetime(entry.told()));
        let proven = epoch.time(history.success);
        let proven = proven.map(|at| at.after(lifetime(Standing::Proven)));
        Some(proven.map_or(told, |proven| proven.max(told)))
    }

    fn has_expired(&self, entry: &Entry, epoch: Epoch) -> bool {
        let expires = self.expires(entry, epoch);
        expires.is_some_and(|at| at <= self.now)
    }

    /// How long the address is still left alone for its failures.
    fn back_off(&self, entry: &Entry, epoch: Epoch) -> Option<Duration> {
        let failed = epoch.time(entry.history.failure)?;
        let back_off =
            quality::back_off(entry.history.failures, entry.address.as_ref(), self.secret);
        let rest = back_off.checked_sub(self.now.since(failed))?;
        (!rest.is_zero()).then_some(rest)
    }

    /// Whether another peer answered there, so short ago that it is not tried again.
    fn is_blocked(&self, entry: &Entry, epoch: Epoch) -> bool {
        let failed = epoch.time(entry.history.failure).unwrap_or_default();
        entry.history.flags.contains(Flags::WRONG_PEER)
            && self.now.since(failed) < self.config.wrong_peer_block()
    }

    /// Why an address that is not known yet is not taken from these sources, if so.
    ///
    /// Nobody from afar is to make this node dial into its own machine or its local network.
    fn refuses(&self, record: &Record, address: &Multiaddr, sources: Sources) -> Option<Refused> {
        let near = Sources::PINNED
            | Sources::APPLICATION
            | Sources::MDNS
            | Sources::DIALLED
            | Sources::INBOUND;
        if sources.intersects(near) {
            return None;
        }
        let nearest = if sources.intersects(Sources::SELF_TOLD) {
            self.links.nearest_from(&record.id)
        } else if self.config.private_hearsay() {
            Reach::Machine
        } else {
            self.links.nearest_from_anybody()
        };
        if Reach::of(address) < nearest {
            return Some(Refused::OutOfScope);
        }
        if !claims::is_claim(sources) || !record.is_hearsay_only() {
            return None;
        }
        let spot = claims::spot(address, self.secret)?;
        // Another port at the same place is not another claim.
        let is_there = |entry: &Entry| claims::spot(&entry.address, self.secret) == Some(spot);
        let claimed = self.claims.claimants(spot).count();
        (claimed >= self.config.max_claims_per_ip().get() && !record.addresses.iter().any(is_there))
            .then_some(Refused::TooManyClaims)
    }

    /// Whether the time that is kept has become misleading: it is a quarter of its lifetime old.
    pub(crate) fn is_stale(&self, kept: Timestamp, lifetime: Duration) -> bool {
        self.now.since(kept) > lifetime / 4
    }
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
    pub(crate) refused: Refusals,
    /// What came of dials, by the standing that the address had: the model learns from it.
    pub(crate) outcomes: Vec<(Standing, bool)>,
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

/// What a foreign or newer program wrote and this one does not understand, written back as it was.
#[derive(Debug, Clone, Default)]
pub(crate) struct Foreign {
    /// Unknown fields of the addresses value.
    pub(crate) addresses: Vec<u8>,
    /// Addresses that do not parse: the field that each stood in, and its message.
    pub(crate) unreadable: Vec<(u32, Vec<u8>)>,
    /// Unknown fields within addresses.
    pub(crate) in_addresses: Vec<(Multiaddr, Box<[u8]>)>,
    /// Unknown fields of the protocols value.
    pub(crate) protocols: Vec<u8>,
}

impl Foreign {
    fn clear_addresses(&mut self) {
        self.addresses.clear();
        self.unreadable.clear();
        self.in_addresses.clear();
    }
}

/// One peer.
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
    /// In the order in which they were told.
    pub(crate) protocols: Vec<StreamProtocol>,
    /// Only a key that the peer id does not contain.
    pub(crate) public_key: Option<Box<PublicKey>>,
    pub(crate) metadata: BTreeMap<String, Vec<u8>>,
    pub(crate) tags: Tags,
    pub(crate) latency: Option<Latency>,
    /// The latest signed peer record, while one of its addresses is there.
    pub(crate) signed: Option<Box<SignedRecord>>,
    /// By its hash, the one that was held until the peer dropped all of its addresses.
    withdrawn: Option<NonZeroU64>,
    /// Addresses that the peer or the user took away, or where somebody else answered: until when hearsay alone does
    /// not bring them back.
    dropped: Vec<(Multiaddr, Timestamp)>,
    pub(crate) foreign: Option<Box<Foreign>>,
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
}

impl Record {
    pub(crate) fn new(id: PeerId, now: Timestamp) -> Self {
        Self {
            id,
            epoch: Epoch::for_time(now),
            addresses: Vec::new(),
            heard: now,
            first_proven: None,
            protocols: Vec::new(),
            public_key: None,
            metadata: BTreeMap::new(),
            tags: Tags::default(),
            latency: None,
            signed: None,
            withdrawn: None,
            dropped: Vec::new(),
            foreign: None,
            saved: Books::empty(),
            connected: false,
            accepted: false,
            source: None,
            addresses_changed: Timestamp::default(),
            protocols_changed: Timestamp::default(),
        }
    }

    /// Whether no book holds anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.addresses.is_empty()
            && self.protocols.is_empty()
            && self.public_key.is_none()
            && self.metadata.is_empty()
            && self.tags.is_empty()
            && self.foreign.is_none()
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
        self.connected = links.count(&self.id) > 0;
        self.accepted = links.is_accepted(&self.id);
        self.source = links.source(&self.id).or(self.source);
    }

    /// What the peer is worth when room is needed.
    pub(crate) fn class(&self) -> Class {
        let sources = self
            .addresses
            .iter()
            .fold(Sources::empty(), |all, entry| all | entry.history.sources);
        if sources.contains(Sources::PINNED) {
            Class::Pinned
        } else if self.connected {
            Class::Connected
        } else if sources.contains(Sources::DIALLED) || self.is_cared_for() {
            Class::Proven
        } else if sources.intersects(Sources::SELF_TOLD) {
            Class::SelfTold
        } else if sources == Sources::INBOUND {
            Class::Inbound
        } else if sources.is_empty() && (!self.protocols.is_empty() || self.public_key.is_some()) {
            // Protocols and keys are not gossiped: they come from the peer itself.
            Class::SelfTold
        } else {
            Class::Hearsay
        }
    }

    /// When anything was last heard of the peer: the tie-break within a class.
    pub(crate) fn last_heard(&self) -> Timestamp {
        let heard = self
            .addresses
            .iter()
            .map(|entry| entry.history.last_heard)
            .max();
        let heard = heard.and_then(|step| self.epoch.time(step));
        heard
            .unwrap_or_default()
            .max(self.addresses_changed)
            .max(self.protocols_changed)
    }

    /// When something of the peer is forgotten next if nothing more is heard of it; `None` for never.
    pub(crate) fn next_expiry(&self, rules: Rules<'_>) -> Option<Timestamp> {
        let addresses = self.addresses.iter();
        let next = addresses
            .filter_map(|entry| rules.expires(entry, self.epoch))
            .chain(self.tags.next_expiry())
            .min();
        next.or_else(|| self.expires(rules))
    }

    /// When the whole peer is forgotten if nothing more is heard of it: with its last address, and when it has none,
    /// as long after the last word of it as what it told of itself. `None` for never: it is pinned, connected, or
    /// the user gave it metadata or a tag. A tag with a time to live keeps it for that time, and so does an address that
    /// hearsay must not bring back.
    pub(crate) fn expires(&self, rules: Rules<'_>) -> Option<Timestamp> {
        if self.connected || self.has_user_metadata() {
            return None;
        }
        let mut last = self.tags.last_expiry()?;
        // Hearsay is not to bring back what was dropped by letting the rest of the peer be forgotten first.
        last = self
            .dropped
            .iter()
            .fold(last, |last, (_, until)| last.max(*until));
        if self.addresses.is_empty() {
            let only_tags = self.protocols.is_empty()
                && self.public_key.is_none()
                && self.metadata.is_empty()
                && self.foreign.is_none();
            if !only_tags || self.tags.is_empty() {
                last = last.max(self.heard.after(rules.config.self_told_lifetime()));
            }
            return Some(last);
        }
        for entry in &self.addresses {
            last = last.max(rules.expires(entry, self.epoch)?);
        }
        Some(last)
    }

    pub(crate) fn has_expired(&self, rules: Rules<'_>) -> bool {
        // One address that lives is enough, and it is nearly always the first: walks over all peers ask this.
        let mut addresses = self.addresses.iter();
        if addresses.any(|entry| !rules.has_expired(entry, self.epoch)) {
            return false;
        }
        self.expires(rules).is_some_and(|at| at <= rules.now)
    }

    /// Whether the application marked the peer as one that it cares for.
    fn is_cared_for(&self) -> bool {
        !self.tags.is_empty() || self.has_user_metadata()
    }

    fn has_user_metadata(&self) -> bool {
        self.metadata
            .keys()
            .any(|key| key != crate::AGENT_VERSION && key != crate::PROTOCOL_VERSION)
    }

    // --- reading -------------------------------------------------------------------------------------------

    /// The addresses, best first: by standing, then by confidence. What is equal in both stays in the order in
    /// which it came. What has expired is not among them.
    pub(crate) fn ranked(&self, rules: Rules<'_>) -> Vec<&Entry> {
        let alive = self.addresses.iter();
        let alive = alive.filter(|entry| !rules.has_expired(entry, self.epoch));
        let mut ranked: Vec<_> = alive
            .map(|entry| {
                let standing = rules.standing(entry, self.epoch);
                (standing, rules.confidence(entry, self.epoch), entry)
            })
            .collect();
        ranked.sort_by(|a, b| (b.0.cmp(&a.0)).then(b.1.total_cmp(&a.1)));
        ranked.into_iter().map(|(_, _, entry)| entry).collect()
    }

    pub(crate) fn multiaddrs(&self, rules: Rules<'_>) -> Vec<Multiaddr> {
        self.ranked(rules)
            .into_iter()
            .map(|entry| entry.address.clone())
            .collect()
    }

    /// What the store hands to the swarm for a dial, best first, with `/p2p/<peer>`.
    ///
    /// Only the best tier that has an address outside its back-off: the first transport to answer ends the whole dial,
    /// so that beside a proven address any other one could only spoil it. When all are in back-off, the one
    /// that was left alone for longest: somebody wants this dial, and by dialling again comes to all of them.
    pub(crate) fn offers(&self, rules: Rules<'_>) -> Vec<Multiaddr> {
        let mut ranked = self.ranked(rules);
        ranked.retain(|entry| self.may_be_dialled(entry, rules));
        // What the user pinned is taken for what the peer itself says.
        let tier = |entry: &Entry| match rules.standing(entry, self.epoch) {
            Standing::Hearsay if entry.is_pinned() => Standing::SelfTold,
            standing => standing,
        };
        let ready = |entry: &&Entry| rules.back_off(entry, self.epoch).is_none();
        let best = ranked
            .iter()
            .filter(|entry| ready(entry))
            .map(|entry| tier(entry))
            .max();
        let offered: Vec<&Entry> = match best {
            Some(best) => {
                let offered = ranked.into_iter();
                let mut offered: Vec<_> = offered
                    .filter(|entry| tier(entry) == best && ready(entry))
                    .collect();
                let first = offered
                    .first()
                    .map(|entry| rules.confidence(entry, self.epoch));
                let max = rules.config.max_dial_addresses().get();
                let enough = first.is_some_and(|first| first > quality::VERY_GOOD);
                offered.truncate(if enough { max.div_ceil(2) } else { max });
                offered
            }
            None => {
                let left_alone = ranked.into_iter();
                let left_alone = left_alone.min_by_key(|entry| entry.history.failure);
                left_alone.into_iter().collect()
            }
        };
        offered
            .into_iter()
            .map(|entry| with_peer(entry.address.clone(), self.id))
            .collect()
    }

    fn info(&self, entry: &Entry, rules: Rules<'_>) -> AddressInfo {
        let history = &entry.history;
        let time = |step| self.epoch.time(step).map(Timestamp::to_system_time);
        AddressInfo {
            address: entry.address.clone(),
            sources: history.sources,
            standing: rules.standing(entry, self.epoch),
            first_heard: time(history.first_heard).unwrap_or(SystemTime::UNIX_EPOCH),
            last_heard: time(history.last_heard).unwrap_or(SystemTime::UNIX_EPOCH),
            last_success: time(history.success),
            last_failure: time(history.failure),
            successes: history.successes.into(),
            failures: history.failures.into(),
            confidence: rules.confidence(entry, self.epoch),
            back_off: rules.back_off(entry, self.epoch),
            expires: rules
                .expires(entry, self.epoch)
                .map(Timestamp::to_system_time),
        }
    }

    /// What the peer is worth as one to dial after a restart: its best address that is not left alone now.
    pub(crate) fn candidate(&self, rules: Rules<'_>) -> Option<Candidate<Group>> {
        let ranked = self.ranked(rules);
        let mut ranked = ranked.into_iter();
        let best =
            ranked.find(|entry| self.may_be_dialled(entry, rules) && !entry.is_inbound_only())?;
        let proven = rules.standing(best, self.epoch) == Standing::Proven;
        Some(Candidate {
            peer: self.id,
            group: Group::of(&best.address),
            proven,
            first_proven: self.first_proven.filter(|_| proven),
            last_success: self.epoch.time(best.history.success),
            confidence: rules.confidence(best, self.epoch),
        })
    }

    /// Its best unproven address, if there is none that is proven: what a feeler would try.
    pub(crate) fn feeler(&self, rules: Rules<'_>) -> Option<Multiaddr> {
        if self.connected {
            return None;
        }
        let ranked = self.ranked(rules);
        let best = *ranked.first()?;
        let tell =
            [Standing::Hearsay, Standing::SelfTold].contains(&rules.standing(best, self.epoch));
        (tell && self.may_be_dialled(best, rules)).then(|| best.address.clone())
    }

    fn may_be_dialled(&self, entry: &Entry, rules: Rules<'_>) -> bool {
        !entry.history.flags.contains(Flags::UNSUPPORTED)
            && (entry.is_pinned() || !rules.is_blocked(entry, self.epoch))
    }

    pub(crate) fn public_key(&self) -> Option<PublicKey> {
        match &self.public_key {
            Some(key) => Some((**key).clone()),
            None => inlined_key(&self.id),
        }
    }

    pub(crate) fn view(&self, rules: Rules<'_>) -> Peer {
        Peer {
            id: self.id,
            addresses: self.infos(rules),
            protocols: self.protocols.clone(),
            public_key: self.public_key(),
            metadata: self.metadata.clone(),
            tags: self.tags.view(rules.now),
            latency: self.latency.map(Latency::mean),
            signed_record: self.signed_record(rules).cloned(),
            connected: self.connected,
        }
    }

    pub(crate) fn infos(&self, rules: Rules<'_>) -> Vec<AddressInfo> {
        let ranked = self.ranked(rules).into_iter();
        ranked.map(|entry| self.info(entry, rules)).collect()
    }
}

/// The public key that a peer id contains, as those of ed25519 and secp256k1 keys do.
pub(crate) fn inlined_key(id: &PeerId) -> Option<PublicKey> {
    if !is_inlined(id) {
        return None;
    }
    let hash = Multihash::from(*id);
    let key = PublicKey::try_decode_protobuf(hash.digest()).ok()?;
    (PeerId::from_public_key(&key) == *id).then_some(key)
}

/// Whether a peer id is made of a key itself, not of its hash. Decoding that key costs microseconds, as a point
/// on a curve is computed; this costs nothing.
pub(crate) fn is_inlined(id: &PeerId) -> bool {
    // The multihash code of the identity "hash".
    const IDENTITY: u64 = 0;
    Multihash::from(*id).code() == IDENTITY
}

/// A list for an event.
pub(crate) fn shared<T>(items: Vec<T>) -> Arc<[T]> {
    items.into()
}
