//! Reading a record where it lies. Nothing here allocates but what is handed out.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use libp2p_core::{Multiaddr, multihash::Multihash};
use libp2p_identity::{PeerId, PublicKey};
use libp2p_swarm::StreamProtocol;
use smallvec::SmallVec;

use crate::{
    address::{AddressInfo, Sources, Standing, with_peer},
    bootstrap::Candidate,
    clock::Timestamp,
    compact::{Addresses, Has, Known, Packed},
    group::Group,
    history::{Epoch, Flags},
    peer::Peer,
    quality,
    record::{Books, Class, Facts, Latency, Rare, Rules, is_inlined, is_of_identify, last_heard},
    seat::{Seat, class, seat},
    signed::SignedRecord,
    table::Shared,
};

/// What a peer told of itself, in the block of bytes.
const SELF_TOLD: Has = Has::PROTOCOLS.union(Has::AGENT).union(Has::VERSION);

/// One record of the table.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    packed: &'a Packed,
    id: PeerId,
    /// What few peers have.
    rare: Option<&'a Rare>,
    shared: &'a Shared,
}

/// An address with what is made of it now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ranked<'a> {
    pub(crate) known: Known<'a>,
    pub(crate) standing: Standing,
    pub(crate) confidence: f64,
}

type RankedList<'a> = SmallVec<[Ranked<'a>; 8]>;

impl<'a> View<'a> {
    /// `None` where there is no record.
    pub(crate) fn new(
        packed: &'a Packed,
        rare: Option<&'a Rare>,
        shared: &'a Shared,
    ) -> Option<Self> {
        let id = packed.id()?;
        Some(Self {
            packed,
            id,
            rare,
            shared,
        })
    }

    pub(crate) fn id(&self) -> PeerId {
        self.id
    }

    pub(crate) fn packed(&self) -> &'a Packed {
        self.packed
    }

    pub(crate) fn rare(&self) -> Option<&'a Rare> {
        self.rare
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.packed.epoch()
    }

    pub(crate) fn known(&self) -> Addresses<'a> {
        self.packed.addresses()
    }

    pub(crate) fn saved(&self) -> Books {
        self.packed.saved()
    }

    pub(crate) fn connected(&self) -> bool {
        self.packed.has().contains(Has::CONNECTED)
    }

    /// The protocols as they are shared; `None` when there are none.
    pub(crate) fn shared_protocols(&self) -> Option<&'a Arc<[StreamProtocol]>> {
        let (number, _) = self.packed.protocols()?;
        self.shared.lists.get(number)
    }

    pub(crate) fn protocols(&self) -> &'a [StreamProtocol] {
        self.shared_protocols().map_or(&[], |names| names)
    }

    pub(crate) fn agent(&self) -> Option<&'a Arc<[u8]>> {
        self.shared.texts.get(self.packed.agent()?)
    }

    pub(crate) fn version(&self) -> Option<&'a Arc<[u8]>> {
        self.shared.texts.get(self.packed.version()?)
    }

    pub(crate) fn latency(&self) -> Option<Latency> {
        self.packed.latency()
    }

    /// The group of addresses from which the peer came when it told of itself, as it goes to disk. Not the place: that
    /// somebody was there is nobody's business.
    pub(crate) fn source_group(&self) -> Option<u64> {
        Some(self.packed.source()?.group().number())
    }

    // --- what it is worth ----------------------------------------------------------------------------------

    /// Whether no book holds anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.packed.count() == 0
            && !self.packed.has().intersects(SELF_TOLD)
            && self.rare.is_none_or(Rare::is_nothing)
    }

    pub(crate) fn facts(&self) -> Facts {
        let has = self.packed.has();
        Facts {
            connected: has.contains(Has::CONNECTED),
            accepted: has.contains(Has::ACCEPTED),
            cared_for: self.rare.is_some_and(Rare::is_cared_for),
            speaks: has.contains(Has::PROTOCOLS)
                || self.rare.is_some_and(|rare| rare.public_key.is_some()),
            source: self.packed.source(),
        }
    }

    pub(crate) fn class(&self) -> Class {
        class(self.known(), &self.facts())
    }

    pub(crate) fn seat(&self) -> Seat {
        seat(self.known(), &self.facts())
    }

    /// When anything was last heard of the peer: the tie-break within a class.
    pub(crate) fn last_heard(&self) -> Timestamp {
        let packed = self.packed;
        let changed = packed.addresses_changed().max(packed.protocols_changed());
        last_heard(self.known(), self.epoch(), changed)
    }

    /// When anybody last said anything of the peer, or it of itself; now while it is connected.
    pub(crate) fn last_seen(&self, rules: Rules<'_>) -> Timestamp {
        if self.connected() {
            return rules.now;
        }
        // What was loaded counts as heard at that moment, which says nothing. In a run each word of a peer is noted;
        // that something of it expired, or made room, is a change and no word.
        let heard = self.packed.heard();
        if heard > rules.loaded {
            return heard;
        }
        self.last_heard().min(rules.loaded)
    }

    // --- expiry --------------------------------------------------------------------------------------------

    /// When something of the peer is forgotten next, or proof no longer, if nothing more is heard of it; `None` for
    /// never.
    pub(crate) fn next_expiry(&self, rules: Rules<'_>) -> Option<Timestamp> {
        let epoch = self.epoch();
        let addresses = self.known();
        let addresses = addresses.flat_map(|Known { history, .. }| {
            let proof = rules.proof_ends(&history, epoch);
            rules.expires(&history, epoch).into_iter().chain(proof)
        });
        let tags = self.rare.and_then(|rare| rare.tags.next_expiry());
        let next = addresses.chain(tags).min();
        next.or_else(|| self.expires(rules))
    }

    /// When the whole peer is forgotten if nothing more is heard of it: with its last address, with the last tag if there
    /// is nothing else, and as long after the last word of it as what it told of itself if what is left has no time of
    /// its own. `None` for never: it is pinned, connected, or the user gave it metadata or a tag. A tag with a time to
    /// live keeps it for that time, and so does an address that hearsay must not bring back.
    ///
    /// What has expired counts as what it was: the answer is the same whether it has been collected or not.
    fn expires(&self, rules: Rules<'_>) -> Option<Timestamp> {
        if self.connected() {
            return None;
        }
        let (mut last_tag, mut dropped) = (Timestamp::default(), Timestamp::default());
        if let Some(rare) = self.rare {
            if rare.has_user_metadata() {
                return None;
            }
            last_tag = rare.tags.last_expiry()?;
            // Hearsay is not to bring back what was dropped by letting the rest of the peer be forgotten first.
            let until = rare.dropped.iter().map(|(_, until)| *until);
            dropped = until.max().unwrap_or_default();
        }
        let epoch = self.epoch();
        let mut last_address = None;
        for known in self.known() {
            last_address = last_address.max(Some(rules.expires(&known.history, epoch)?));
        }
        if last_address >= Some(last_tag.max(dropped)) {
            return last_address;
        }
        let only_tags =
            !self.packed.has().intersects(SELF_TOLD) && self.rare.is_some_and(Rare::has_only_tags);
        if only_tags && last_tag >= dropped {
            return Some(last_tag);
        }
        let told = self.packed.heard().after(rules.config.self_told_lifetime());
        Some(told.max(last_tag).max(dropped))
    }

    pub(crate) fn has_expired(&self, rules: Rules<'_>) -> bool {
        // One address that lives is enough, and it is nearly always the first: walks over all peers ask this.
        let epoch = self.epoch();
        let lives = |known: Known<'_>| !rules.has_expired(&known.history, epoch);
        if self.known().any(lives) {
            return false;
        }
        self.expires(rules).is_some_and(|at| at <= rules.now)
    }

    // --- addresses -----------------------------------------------------------------------------------------

    /// The addresses that have not expired, in the order in which they came.
    pub(crate) fn alive<'r>(
        &self,
        rules: Rules<'r>,
    ) -> impl Iterator<Item = Known<'a>> + use<'a, 'r> {
        let epoch = self.epoch();
        self.known()
            .filter(move |known| !rules.has_expired(&known.history, epoch))
    }

    /// Whether mDNS announces any of its addresses.
    pub(crate) fn is_announced(&self) -> bool {
        self.known()
            .any(|known| known.history.flags.contains(Flags::ANNOUNCED))
    }

    /// The highest confidence of all addresses; `None` when there are none.
    pub(crate) fn confidence(&self, rules: Rules<'_>) -> Option<f64> {
        let epoch = self.epoch();
        let confidence = |known: Known<'_>| {
            let standing = rules.standing(&known.history, epoch);
            rules.confidence(&known.history, standing, epoch)
        };
        self.alive(rules).map(confidence).max_by(f64::total_cmp)
    }

    /// The addresses, best first: by standing, then by confidence. What is equal in both stays in the order in
    /// which it came. What has expired is not among them.
    pub(crate) fn ranked(&self, rules: Rules<'_>) -> RankedList<'a> {
        let epoch = self.epoch();
        let alive = self.known();
        let alive = alive.filter(|known| !rules.has_expired(&known.history, epoch));
        let mut ranked: RankedList<'a> = alive
            .map(|known| {
                let standing = rules.standing(&known.history, epoch);
                Ranked {
                    known,
                    standing,
                    confidence: rules.confidence(&known.history, standing, epoch),
                }
            })
            .collect();
        ranked.sort_by(|a, b| {
            (b.standing.cmp(&a.standing)).then(b.confidence.total_cmp(&a.confidence))
        });
        ranked
    }

    pub(crate) fn multiaddrs(&self, rules: Rules<'_>) -> Vec<Multiaddr> {
        let ranked = self.ranked(rules);
        ranked
            .iter()
            .filter_map(|of| of.known.multiaddr())
            .collect()
    }

    /// What the store hands to the swarm for a dial, best first, with `/p2p/<peer>`.
    ///
    /// Only the best tier that has an address outside its back-off: the first transport to answer ends the whole dial,
    /// so that beside a proven address any other one could only spoil it. When all are in back-off, the one
    /// that was left alone for longest: somebody wants this dial, and by dialling again comes to all of them.
    ///
    /// What was dialled lately and said nothing goes behind the rest of its tier; when that is all of the tier, half of
    /// the places, or more, are for the best tier in which something else is: else a dial would come to the same again.
    pub(crate) fn offers(&self, rules: Rules<'_>) -> Vec<Multiaddr> {
        let epoch = self.epoch();
        let mut ranked = self.ranked(rules);
        ranked.retain(|of| rules.may_be_dialled(&of.known, epoch));
        // What the user pinned is taken for what the peer itself says.
        let tier = |of: &Ranked<'_>| match of.standing {
            Standing::Hearsay if of.known.history.is_pinned() => Standing::SelfTold,
            standing => standing,
        };
        let ready = |of: &Ranked<'_>| rules.back_off(&of.known, epoch).is_none();
        let best = ranked.iter().filter(|of| ready(of)).map(tier).max();
        let is_silent =
            |of: &Ranked<'_>| rules.silent.contains(&self.id, of.known.address, rules.now);
        let is_next = |of: &Ranked<'_>| ready(of) && !is_silent(of);
        let next = ranked.iter().filter(|of| is_next(of)).map(tier).max();
        let max = rules.config.max_dial_addresses().get();
        match best {
            Some(best) if next.is_some_and(|next| next < best) => {
                let mut places = max / 2;
                ranked.retain(|of| {
                    if tier(of) == best && ready(of) && places > 0 {
                        places -= 1;
                        return true;
                    }
                    Some(tier(of)) == next && is_next(of)
                });
                ranked.truncate(max);
            }
            Some(best) => {
                ranked.retain(|of| tier(of) == best && ready(of));
                if !rules.silent.is_empty() {
                    ranked.sort_by_key(is_silent);
                }
                let first = ranked.first().map(|of| of.confidence);
                let enough = first.is_some_and(|first| first > quality::VERY_GOOD);
                ranked.truncate(if enough { max.div_ceil(2) } else { max });
            }
            None => {
                let left_alone = ranked.iter().copied();
                let left_alone = left_alone.min_by_key(|of| of.known.history.failure);
                ranked = left_alone.into_iter().collect();
            }
        }
        let offered = ranked.iter().filter_map(|of| of.known.multiaddr());
        offered.map(|address| with_peer(address, self.id)).collect()
    }

    fn info(&self, of: &Ranked<'_>, rules: Rules<'_>) -> Option<AddressInfo> {
        let (history, epoch) = (&of.known.history, self.epoch());
        let time = |step| epoch.time(step).map(Timestamp::to_system_time);
        Some(AddressInfo {
            address: of.known.multiaddr()?,
            sources: history.sources,
            standing: of.standing,
            first_heard: time(history.first_heard).unwrap_or(SystemTime::UNIX_EPOCH),
            last_heard: time(history.last_heard).unwrap_or(SystemTime::UNIX_EPOCH),
            last_success: time(history.success),
            last_failure: time(history.failure),
            successes: history.successes.into(),
            failures: history.failures.into(),
            confidence: of.confidence,
            back_off: rules.back_off(&of.known, epoch),
            expires: rules.expires(history, epoch).map(Timestamp::to_system_time),
        })
    }

    pub(crate) fn infos(&self, rules: Rules<'_>) -> Vec<AddressInfo> {
        let ranked = self.ranked(rules);
        ranked
            .iter()
            .filter_map(|of| self.info(of, rules))
            .collect()
    }

    /// What the peer is worth as one to dial after a restart: its best address that is not left alone now.
    pub(crate) fn candidate(&self, rules: Rules<'_>) -> Option<Candidate<Group>> {
        let epoch = self.epoch();
        let ranked = self.ranked(rules);
        let is_fit = |of: &&Ranked<'_>| {
            rules.may_be_dialled(&of.known, epoch) && !of.known.history.is_inbound_only()
        };
        let best = ranked.iter().find(is_fit)?;
        let proven = best.standing == Standing::Proven;
        Some(Candidate {
            peer: self.id,
            group: Group::of(best.known.address),
            proven,
            first_proven: self.packed.first_proven().filter(|_| proven),
            last_success: epoch.time(best.known.history.success),
            confidence: best.confidence,
        })
    }

    /// Its best unproven address, if there is none that is proven: what a feeler would try.
    pub(crate) fn feeler(&self, rules: Rules<'_>) -> Option<Multiaddr> {
        if self.connected() {
            return None;
        }
        let ranked = self.ranked(rules);
        let best = ranked.first()?;
        let tell = [Standing::Hearsay, Standing::SelfTold].contains(&best.standing);
        (tell && rules.may_be_dialled(&best.known, self.epoch()))
            .then(|| best.known.multiaddr())
            .flatten()
    }

    // --- the other books -----------------------------------------------------------------------------------

    pub(crate) fn public_key(&self) -> Option<PublicKey> {
        match self.rare.and_then(|rare| rare.public_key.as_deref()) {
            Some(key) => Some(key.clone()),
            None => inlined_key(&self.id),
        }
    }

    /// What identify told, and what the user gave.
    pub(crate) fn metadata(&self) -> BTreeMap<String, Vec<u8>> {
        let mut metadata = self
            .rare
            .map(|rare| rare.metadata.clone())
            .unwrap_or_default();
        for (key, text) in [
            (crate::AGENT_VERSION, self.agent()),
            (crate::PROTOCOL_VERSION, self.version()),
        ] {
            if let Some(text) = text {
                metadata.insert(key.to_owned(), text.to_vec());
            }
        }
        metadata
    }

    pub(crate) fn metadata_value(&self, key: &str) -> Option<&'a [u8]> {
        match key {
            _ if !is_of_identify(key) => Some(self.rare?.metadata.get(key)?),
            crate::AGENT_VERSION => Some(self.agent()?),
            _ => Some(self.version()?),
        }
    }

    /// The record that holds, while one of its addresses is there.
    pub(crate) fn signed_record(&self, rules: Rules<'_>) -> Option<&'a SignedRecord> {
        let signed = self.rare?.signed.as_deref()?;
        let epoch = self.epoch();
        let mut addresses = self.known();
        let holds = addresses.any(|known| {
            known.history.sources.contains(Sources::CERTIFIED)
                && !rules.has_expired(&known.history, epoch)
        });
        holds.then_some(signed)
    }

    /// Everything, without the public key that the id contains: that costs a computation, so that
    /// [`Peer::with_inlined_key`] does it without the lock.
    pub(crate) fn peer(&self, rules: Rules<'_>) -> Peer {
        let rare = self.rare;
        Peer {
            id: self.id,
            addresses: self.infos(rules),
            protocols: self.protocols().to_vec(),
            public_key: rare.and_then(|rare| rare.public_key.as_deref().cloned()),
            metadata: self.metadata(),
            tags: rare
                .map(|rare| rare.tags.view(rules.now))
                .unwrap_or_default(),
            latency: self.latency().map(Latency::mean),
            signed_record: self.signed_record(rules).cloned(),
            connected: self.connected(),
            last_seen: self.last_seen(rules).to_system_time(),
        }
    }
}

impl Known<'_> {
    /// The address by itself. What is stored was a multiaddr before.
    pub(crate) fn multiaddr(&self) -> Option<Multiaddr> {
        Multiaddr::try_from(self.address.to_vec()).ok()
    }
}

impl Rules<'_> {
    fn may_be_dialled(&self, known: &Known<'_>, epoch: Epoch) -> bool {
        let history = &known.history;
        !history.flags.contains(Flags::UNSUPPORTED)
            && (history.is_pinned()
                || !self.is_blocked(history, epoch) && !self.is_among_own(known.address))
    }
}

/// The public key that a peer id contains, as those of ed25519 and secp256k1 keys do.
pub(crate) fn inlined_key(id: &PeerId) -> Option<PublicKey> {
    if !is_inlined(id) {
        return None;
    }
    let hash: &Multihash<64> = id.as_ref();
    let key = PublicKey::try_decode_protobuf(hash.digest()).ok()?;
    (PeerId::from_public_key(&key) == *id).then_some(key)
}
