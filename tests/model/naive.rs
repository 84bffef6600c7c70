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
use libp2p_peerstore::{Config, Refused, Sources, Standing};

use super::{
    naive_address::Address,
    naive_confidence::{Evidence, Experience},
    naive_network::{Link, Proofs},
    ops::Setup,
    universe::{self, Scope, about},
};

/// The grain of all times of addresses, in seconds.
pub const STEP: u64 = 64;

/// The store as it should be.
pub struct Naive {
    pub config: Config,
    pub filtered: bool,
    pub now: u64,
    /// When it was loaded.
    pub loaded: u64,
    pub peers: BTreeMap<PeerId, Known>,
    pub links: BTreeMap<PeerId, Vec<Link>>,
    pub refusals: BTreeMap<Refused, u64>,
    /// Until when nothing is learnt of a peer.
    ignored: BTreeMap<PeerId, u64>,
    /// Addresses that turned out to be this node's own.
    pub own: BTreeSet<Multiaddr>,
    /// When each part of the network proved to work, and the failures since then.
    pub proofs: BTreeMap<Scope, Proofs>,
    pub provisional: BTreeMap<Scope, Vec<(PeerId, Multiaddr)>>,
    /// When addresses were last dialled and said nothing, and how often in a row.
    pub silent: BTreeMap<(PeerId, Multiaddr), (u64, u32)>,
    /// The protocols of addresses that a transport has dialled, in order.
    pub stacks: BTreeSet<Vec<String>>,
    /// What is learnt from dials in general; `None` when a part of it may not have been written before a restart.
    pub experience: Option<Experience>,
    /// Whom the store chose to make room: for a peer, and at an IP address.
    pub evicted: VecDeque<PeerId>,
    pub displaced: VecDeque<PeerId>,
}

/// What is known of one peer.
#[derive(Debug, Clone, Default, PartialEq)]
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
#[derive(Debug, Clone, PartialEq)]
pub struct Latency {
    pub mean: u64,
    /// What the last event said.
    pub told: u64,
    /// All means since then: one of them is on disk.
    pub since: Vec<u64>,
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
    /// What came of dials, by the standing that the address had.
    pub outcomes: Vec<(Standing, bool)>,
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

    /// Whether any book but those of addresses and tags holds something.
    fn has_more_than_addresses_and_tags(&self) -> bool {
        !self.protocols.is_empty() || self.key.is_some() || !self.metadata.is_empty()
    }
}

/// What the datastore would hold of the peers.
pub type Written = BTreeMap<PeerId, Known>;

impl Naive {
    pub fn new(setup: &Setup, now: u64) -> Self {
        Self {
            config: setup.config.clone(),
            filtered: setup.filtered,
            now,
            loaded: if setup.persistent { now } else { 0 },
            peers: BTreeMap::new(),
            links: BTreeMap::new(),
            refusals: BTreeMap::new(),
            ignored: BTreeMap::new(),
            own: BTreeSet::new(),
            proofs: BTreeMap::new(),
            provisional: BTreeMap::new(),
            silent: BTreeMap::new(),
            stacks: BTreeSet::new(),
            experience: Some(Experience::default()),
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

    /// Whether this node dialled the address with success, and that still counts.
    pub fn is_proven(&self, address: &Address) -> bool {
        let lifetime = self.config.proven_lifetime();
        let is_fresh = address.success.is_some_and(|at| self.since(at) < lifetime);
        address.sources.contains(Sources::DIALLED) && (address.in_use || is_fresh)
    }

    /// Whether only others spoke of a peer.
    pub fn is_hearsay_only(&self, known: &Known) -> bool {
        let first_hand = Sources::PINNED | Sources::IDENTIFY | Sources::CERTIFIED;
        let mut addresses = known.addresses.iter();
        !addresses.any(|known| known.sources.intersects(first_hand) || self.is_proven(known))
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
        self.note_links();
        if let Some(experience) = &mut self.experience {
            for (standing, success) in &did.outcomes {
                experience.learn(*standing, *success);
            }
        }
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

    /// Forgets what has expired at this very moment: no moment at which something does is passed over.
    pub fn expire(&mut self) {
        let (now, config, links) = (self.now, &self.config, &self.links);
        self.peers.retain(|id, known| {
            let (addresses, tags) = (known.addresses.len(), known.tags.len());
            let expired = |address: &Address| address.expires(config).is_some_and(|at| at <= now);
            known.addresses.retain(|address| !expired(address));
            known
                .tags
                .retain(|_, (_, expires)| expires.is_none_or(|at| at > now));
            known.dropped.retain(|(_, until)| *until > now);
            let holds = !known.addresses.is_empty() || !known.tags.is_empty();
            if holds
                || !known.dropped.is_empty()
                || links.contains_key(id)
                || known.has_user_metadata()
            {
                return true;
            }
            // It goes with its last address, and with its last tag if there was nothing else.
            let was_last = addresses > 0 || tags > 0 && !known.has_more_than_addresses_and_tags();
            !was_last && known.heard + config.self_told_lifetime().as_secs() > now
        });
    }

    /// All of which a difference is worth writing.
    pub fn written(&self) -> Written {
        let mut written = self.peers.clone();
        for known in written.values_mut() {
            (known.heard, known.dropped) = (0, Vec::new());
            for known in &mut known.addresses {
                (known.in_use, known.held, known.unsupported) = (false, false, false);
                known.announced = false;
                known.unwritten = 0;
            }
        }
        written
    }

    /// When something may expire next, or be proof no longer.
    pub fn next_expiry(&self) -> Option<u64> {
        let mut next = Vec::new();
        for known in self.peers.values() {
            for address in &known.addresses {
                next.extend(address.expires(&self.config));
                let proof = |at| at + self.config.proven_lifetime().as_secs();
                next.extend(address.success.map(proof));
            }
            next.extend(known.tags.values().filter_map(|(_, expires)| *expires));
            next.extend(known.dropped.iter().map(|(_, until)| *until));
            next.push(known.heard + self.config.self_told_lifetime().as_secs());
        }
        next.into_iter().filter(|at| *at > self.now).min()
    }

    // --- a restart -----------------------------------------------------------------------------------------

    /// All connections end, and nobody hears the announcements of neighbours any more.
    pub fn all_closed(&mut self) {
        let step = self.step();
        let known = self.peers.values_mut();
        for known in known.flat_map(|known| &mut known.addresses) {
            if std::mem::take(&mut known.announced) {
                let grain = known.grain(known.told(), &self.config).as_secs();
                known.unwritten = known.unwritten.max(grain + STEP);
                known.last_heard = step;
            }
        }
        for id in std::mem::take(&mut self.links).into_keys() {
            if let Some(known) = self.peers.get_mut(&id) {
                known.heard = self.now;
            }
        }
        self.note_links();
    }

    /// The program ends, in order, and begins again: what is not saved goes.
    pub fn restart(&mut self) {
        self.all_closed();
        for known in self.peers.values_mut() {
            for address in &mut known.addresses {
                address.unsupported = false;
                if address.evidence != Evidence::None {
                    address.evidence = Evidence::Unknown;
                }
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
        self.loaded = self.now;
        self.experience = self.experience.take().filter(Experience::is_empty);
        self.refusals.clear();
        self.ignored.clear();
        self.own.clear();
        self.proofs.clear();
        self.provisional.clear();
        self.silent.clear();
        self.stacks.clear();
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
