//! A store as the documentation describes it, in the plainest way: a map of peers, each with lists and maps, and
//! nothing that is shared, packed, indexed or collected later. Time is in seconds since 1970.
//!
//! Where the documentation leaves a choice to the store (who makes room), the model is told what the store chose, and
//! checks that it was allowed to.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use libp2p_core::Multiaddr;
use libp2p_identity::{PeerId, PublicKey};
use libp2p_peerstore::{Config, Refused, Sources};

use super::{
    naive_addresses::Address,
    ops::Setup,
    universe::{self, Reach, Scope, about},
};

/// The grain of all times of addresses, in seconds.
pub const STEP: u64 = 64;

/// Failures count between two proofs that the network works, with at most so many seconds between them.
const MAX_GAP: u64 = 600;

/// The store as it should be.
pub struct Naive {
    pub config: Config,
    pub filtered: bool,
    pub now: u64,
    pub peers: BTreeMap<PeerId, Known>,
    pub links: BTreeMap<PeerId, Vec<Link>>,
    pub refusals: BTreeMap<Refused, u64>,
    /// Until when nothing is learnt of a peer.
    ignored: BTreeMap<PeerId, u64>,
    /// Addresses that turned out to be this node's own.
    pub own: BTreeSet<Multiaddr>,
    /// When each part of the network last proved to work, and the failures since then.
    proofs: BTreeMap<Scope, u64>,
    provisional: BTreeMap<Scope, Vec<(PeerId, Multiaddr)>>,
    /// Whom the store chose to make room: for a peer, and at an IP address.
    pub evicted: VecDeque<PeerId>,
    pub displaced: VecDeque<PeerId>,
}

/// What is known of one peer.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// In the order in which they came.
    pub addresses: Vec<Address>,
    pub protocols: BTreeSet<String>,
    pub key: Option<PublicKey>,
    pub metadata: BTreeMap<String, Vec<u8>>,
    /// Value, and when it expires.
    pub tags: BTreeMap<String, (u8, Option<u64>)>,
    pub latency: Option<Latency>,
    /// When anything was last said of it.
    pub heard: u64,
    /// What hearsay does not bring back, and until when; the one that was dropped first stands first.
    pub dropped: Vec<(Multiaddr, u64)>,
}

/// In microseconds.
#[derive(Debug, Clone)]
pub struct Latency {
    pub mean: u64,
    /// What the last event said.
    pub told: u64,
    /// All means since then: one of them is on disk.
    pub since: Vec<u64>,
}

/// A connection.
#[derive(Debug, Clone)]
pub struct Link {
    /// Without `/p2p/<peer>`.
    pub address: Multiaddr,
    pub dialled: bool,
    /// `None` through a relay.
    pub reach: Option<Reach>,
    pub scope: Scope,
}

/// Who asks for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    User,
    /// What the swarm learns; with whether the peer spoke for itself, or was dialled.
    Swarm {
        first_hand: bool,
    },
}

/// What a rule did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Did {
    pub changed: bool,
    pub addresses_changed: bool,
    pub refused: Vec<Refused>,
}

impl Did {
    pub fn refuse(&mut self, reason: Refused) {
        self.refused.push(reason);
    }

    pub fn change_addresses(&mut self) {
        (self.changed, self.addresses_changed) = (true, true);
    }

    fn refused(reason: Refused) -> Self {
        let refused = vec![reason];
        Self {
            refused,
            ..Self::default()
        }
    }
}

impl Known {
    /// Whether no book holds anything.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
            && self.protocols.is_empty()
            && self.key.is_none()
            && self.metadata.is_empty()
            && self.tags.is_empty()
    }

    pub fn find(&mut self, address: &Multiaddr) -> Option<&mut Address> {
        self.addresses
            .iter_mut()
            .find(|known| known.address == *address)
    }

    /// Whether the application gave it metadata of its own: all but the two keys of identify.
    pub fn has_user_metadata(&self) -> bool {
        let of_identify = [universe::metadata_key(0), universe::metadata_key(1)];
        self.metadata.keys().any(|key| !of_identify.contains(key))
    }

    /// Whether only others spoke of it.
    pub fn is_hearsay_only(&self) -> bool {
        let first_hand =
            Sources::PINNED | Sources::IDENTIFY | Sources::CERTIFIED | Sources::DIALLED;
        !self
            .addresses
            .iter()
            .any(|known| known.sources.intersects(first_hand))
    }
}

impl Naive {
    pub fn new(setup: &Setup, now: u64) -> Self {
        Self {
            config: setup.config.clone(),
            filtered: setup.filtered,
            now,
            peers: BTreeMap::new(),
            links: BTreeMap::new(),
            refusals: BTreeMap::new(),
            ignored: BTreeMap::new(),
            own: BTreeSet::new(),
            proofs: BTreeMap::new(),
            provisional: BTreeMap::new(),
            evicted: VecDeque::new(),
            displaced: VecDeque::new(),
        }
    }

    /// The moment in the grain of addresses.
    pub fn step(&self) -> u64 {
        self.now - self.now % STEP
    }

    pub fn since(&self, at: u64) -> Duration {
        Duration::from_secs(self.now.saturating_sub(at))
    }

    /// The moment so much later, in whole seconds, rounded up.
    pub fn after(&self, duration: Duration) -> u64 {
        self.now + duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
    }

    pub fn is_connected(&self, peer: &PeerId) -> bool {
        self.links.contains_key(peer)
    }

    // --- how a peer changes --------------------------------------------------------------------------------

    /// Applies a rule to a peer, known or not; it becomes known when that leaves something to know, and there is room.
    pub fn edit(
        &mut self,
        peer: PeerId,
        by: By,
        rule: impl FnOnce(&Naive, &mut Known, &mut Did),
    ) -> Did {
        // What has expired is gone for everybody, and news of it is news.
        self.expire();
        let did = self.try_edit(peer, by, rule);
        for reason in &did.refused {
            *self.refusals.entry(*reason).or_default() += 1;
        }
        did
    }

    fn try_edit(
        &mut self,
        peer: PeerId,
        by: By,
        rule: impl FnOnce(&Naive, &mut Known, &mut Did),
    ) -> Did {
        if peer == universe::peer(universe::LOCAL) {
            return Did::refused(Refused::LocalPeer);
        }
        let now = self.now;
        self.ignored.retain(|_, until| *until > now);
        if by != By::User && self.ignored.contains_key(&peer) {
            return Did::refused(Refused::Ignored);
        }
        let known = self.peers.remove(&peer);
        let is_new = known.is_none();
        let mut known = known.unwrap_or_default();
        known.heard = now;
        let mut did = Did::default();
        rule(self, &mut known, &mut did);
        if is_new && known.is_empty() {
            return Did {
                refused: did.refused,
                ..Did::default()
            };
        }
        if is_new && !self.make_room(&peer, &known) {
            let mut refused = did.refused;
            refused.push(Refused::StoreFull);
            return Did {
                refused,
                ..Did::default()
            };
        }
        self.peers.insert(peer, known);
        if by == By::User && did.changed {
            self.ignored.remove(&peer);
        }
        if did.addresses_changed && by == (By::Swarm { first_hand: true }) {
            self.displace_claims(&peer);
        }
        did
    }

    /// As [`Naive::edit`], for a peer that is known; nothing happens otherwise.
    pub fn edit_known(
        &mut self,
        peer: PeerId,
        by: By,
        rule: impl FnOnce(&Naive, &mut Known, &mut Did),
    ) -> Did {
        self.expire();
        match self.peers.contains_key(&peer) {
            true => self.edit(peer, by, rule),
            false => Did::default(),
        }
    }

    /// As [`Naive::edit`], but nobody makes room for the peer.
    pub fn edit_with_room(
        &mut self,
        peer: PeerId,
        by: By,
        rule: impl FnOnce(&Naive, &mut Known, &mut Did),
    ) -> Did {
        self.expire();
        if self.is_full() && !self.peers.contains_key(&peer) {
            *self.refusals.entry(Refused::StoreFull).or_default() += 1;
            return Did::refused(Refused::StoreFull);
        }
        self.edit(peer, by, rule)
    }

    /// Empties something of a peer, and forgets the peer if that was all.
    pub fn empty(&mut self, peer: PeerId, clear: impl FnOnce(&mut Known) -> bool) -> bool {
        let did = self.edit_known(peer, By::User, |_, known, did| did.changed = clear(known));
        if did.changed {
            self.remove_if_empty(&peer);
        }
        did.changed
    }

    pub fn remove_if_empty(&mut self, peer: &PeerId) {
        if self.peers.get(peer).is_some_and(Known::is_empty) && !self.is_connected(peer) {
            self.peers.remove(peer);
        }
    }

    pub fn delete(&mut self, peer: &PeerId, ignore_for: Option<Duration>) -> bool {
        if let Some(duration) = ignore_for {
            self.ignored.insert(*peer, self.after(duration));
        }
        self.peers.remove(peer).is_some()
    }

    // --- expiry --------------------------------------------------------------------------------------------

    /// Forgets what has expired by now.
    pub fn expire(&mut self) {
        let mut gone = Vec::new();
        for (id, known) in &self.peers {
            if self
                .peer_expires(id, known)
                .is_some_and(|at| at <= self.now)
            {
                gone.push(*id);
            }
        }
        for id in gone {
            self.peers.remove(&id);
        }
        let (now, config) = (self.now, &self.config);
        for known in self.peers.values_mut() {
            let expired = |address: &Address| address.expires(config).is_some_and(|at| at <= now);
            known.addresses.retain(|address| !expired(address));
            known
                .tags
                .retain(|_, (_, expires)| expires.is_none_or(|at| at > now));
        }
    }

    /// When something expires next.
    pub fn next_expiry(&self) -> Option<u64> {
        let mut next = Vec::new();
        for (id, known) in &self.peers {
            next.extend(
                known
                    .addresses
                    .iter()
                    .filter_map(|address| address.expires(&self.config)),
            );
            next.extend(known.tags.values().filter_map(|(_, expires)| *expires));
            next.extend(self.peer_expires(id, known));
        }
        next.into_iter().filter(|at| *at > self.now).min()
    }

    /// When the whole peer is forgotten; `None` for never.
    fn peer_expires(&self, id: &PeerId, known: &Known) -> Option<u64> {
        if self.is_connected(id) || known.has_user_metadata() {
            return None;
        }
        let mut last = 0;
        for (_, expires) in known.tags.values() {
            last = last.max((*expires)?);
        }
        for (_, until) in &known.dropped {
            last = last.max(*until);
        }
        for address in &known.addresses {
            last = last.max(address.expires(&self.config)?);
        }
        let has_only_tags = !known.tags.is_empty()
            && known.protocols.is_empty()
            && known.key.is_none()
            && known.metadata.is_empty();
        if known.addresses.is_empty() && !has_only_tags {
            let lifetime = self.config.self_told_lifetime().as_secs();
            last = last.max(known.heard + lifetime);
        }
        Some(last)
    }

    // --- the network ---------------------------------------------------------------------------------------

    /// A dial failed, and the network may be why.
    pub fn provisional_failure(&mut self, peer: PeerId, address: &Multiaddr) {
        let failures = self.provisional.entry(about(address).scope).or_default();
        failures.push((peer, address.clone()));
    }

    /// Part of the network proved to work: failures since the last proof count, if that was not long ago.
    pub fn works(&mut self, scope: Scope) {
        let before = self.proofs.insert(scope, self.now);
        let failures = self.provisional.remove(&scope).unwrap_or_default();
        if before.is_none_or(|before| self.now - before > MAX_GAP) {
            return;
        }
        for (peer, address) in failures {
            self.dial_failed(peer, &address, false);
        }
    }

    /// Something came over the connections to a peer.
    pub fn alive(&mut self, peer: &PeerId) {
        let links = self.links.get(peer).into_iter().flatten();
        let scopes: BTreeSet<Scope> = links.map(|link| link.scope).collect();
        scopes.into_iter().for_each(|scope| self.works(scope));
    }

    /// The nearest addresses that a peer can tell of itself.
    pub fn nearest_from(&self, peer: &PeerId) -> Reach {
        let links = self.links.get(peer).into_iter().flatten();
        let nearest = links.filter_map(|link| link.reach).min();
        nearest.unwrap_or_else(|| self.nearest_from_anybody())
    }

    /// The nearest addresses that strangers can tell: as near as the farthest of our own connections.
    pub fn nearest_from_anybody(&self) -> Reach {
        let links = self.links.values().flatten();
        let farthest = links.filter_map(|link| link.reach).max();
        farthest.unwrap_or(Reach::Machine)
    }

    // --- a restart -----------------------------------------------------------------------------------------

    /// All connections end.
    pub fn all_closed(&mut self) {
        let step = self.step();
        self.links.clear();
        for known in self.peers.values_mut() {
            for address in known.addresses.iter_mut().filter(|address| address.in_use) {
                address.in_use = false;
                (address.success, address.last_heard) = (Some(step), step);
            }
        }
    }

    /// The program ends, in order, and begins again: what is not saved goes.
    pub fn restart(&mut self) {
        self.all_closed();
        for known in self.peers.values_mut() {
            for address in &mut known.addresses {
                address.unsupported = false;
            }
            known
                .addresses
                .retain(|address| address.sources != Sources::INBOUND);
            // What js-libp2p does not know is stored behind the rest.
            known
                .addresses
                .sort_by_key(|address| !about(&address.address).known_to_js);
            if known.addresses.is_empty() && known.tags.is_empty() {
                known.latency = None;
            }
            known.dropped.clear();
            known.heard = self.now;
        }
        self.peers.retain(|_, known| !known.is_empty());
        self.refusals.clear();
        self.ignored.clear();
        self.own.clear();
        self.proofs.clear();
        self.provisional.clear();
    }

    /// How many keys the datastore holds after that.
    pub fn keys_on_disk(&self) -> usize {
        let keys = self.peers.values().map(|known| {
            let kept = |known: &Address| known.sources != Sources::INBOUND;
            let addresses = !known.tags.is_empty() || known.addresses.iter().any(kept);
            usize::from(addresses)
                + usize::from(!known.protocols.is_empty())
                + usize::from(known.key.is_some())
                + known.metadata.len()
        });
        keys.sum()
    }
}
