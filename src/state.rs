//! What stands behind the store's one lock: the records, who is connected, who listens, what is dirty.
//!
//! A change goes one way: a rule of [`Record`] changes the record and leaves a [`Delta`]; [`State::edit`] makes
//! events and dirty marks of it. Nothing here waits, writes, logs, or calls code of the user.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    task::Waker,
    time::Duration,
};

use libp2p_core::{ConnectedPoint, Multiaddr};
use libp2p_identity::PeerId;

use crate::{
    address::Sources,
    budget::{MAX_EXPIRED, Pressure},
    claims::{self, Claims, Spot},
    clock::Timestamp,
    config::Config,
    crowd::pick,
    event::{Bus, Cause, Event},
    group::Reach,
    links::Links,
    network::{Failure, Network, Scope},
    persist::Pending,
    quality::Model,
    record::{Books, Delta, Latency, Outcome, Record, Rules, shared},
    refusal::{Refusals, Refused},
    schedule::{Due, Schedule},
    table::Table,
};

/// How many addresses are remembered as this node's own.
const MAX_OWN: usize = 64;

/// How many peers can be ignored at once, see [`State::delete`].
const MAX_IGNORED: usize = 1_024;

/// The rules of this moment, while the table is borrowed for a change.
macro_rules! rules {
    ($state:expr, $now:expr) => {
        Rules {
            now: $now.wall,
            config: &$state.config,
            model: &$state.model,
            own: &$state.own,
            secret: &$state.secret,
            links: &$state.links,
            claims: &$state.claims,
        }
    };
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Changed {
    /// Whether what the store answers is different from before: that which is an event.
    pub changed: bool,
    /// How many items were refused; [`PeerStore::refusals`](crate::PeerStore::refusals) counts the reasons. A call
    /// that is refused as a whole (the local peer, a full store, an ignored peer) counts as one.
    pub refused: usize,
}

/// A write's result, with the reasons: they are logged once the lock is released.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) changed: bool,
    pub(crate) refused: Refusals,
}

/// The present moment: on the wall for what is kept, and since the start for what is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) wall: Timestamp,
    pub(crate) elapsed: Duration,
}

/// Who asks for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// The application: always heard.
    User,
    /// The swarm, or a protocol in it: not heard after shutdown, nor about peers that are ignored.
    Swarm,
}

/// Everything that the store knows, for whoever holds the lock.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) local: PeerId,
    pub(crate) config: Arc<Config>,
    pub(crate) table: Table,
    pub(crate) bus: Bus,
    pub(crate) pending: Pending,
    refusals: Refusals,
    /// False after shutdown: what the swarm learns is no longer stored.
    pub(crate) gathering: bool,
    links: Links,
    pub(crate) pressure: Pressure,
    claims: Claims,
    /// Peers that were deleted for a time, and when that ends.
    ignored: HashMap<PeerId, Timestamp>,
    /// What an observed behaviour has just told the swarm about, and the store has dealt with already.
    announced: Option<(PeerId, Multiaddr)>,
    pub(crate) model: Model,
    network: Network,
    schedule: Schedule,
    /// Addresses that turned out to be this node's own; forgotten when those change.
    own: VecDeque<Multiaddr>,
    secret: RandomState,
}

impl State {
    pub(crate) fn new(local: PeerId, config: Arc<Config>, persistent: bool) -> Self {
        Self {
            local,
            table: Table::default(),
            bus: Bus::default(),
            pending: Pending::new(&config, persistent),
            config,
            refusals: Refusals::default(),
            gathering: true,
            links: Links::default(),
            pressure: Pressure::default(),
            claims: Claims::default(),
            ignored: HashMap::new(),
            announced: None,
            model: Model::default(),
            network: Network::default(),
            schedule: Schedule::default(),
            own: VecDeque::new(),
            secret: RandomState::new(),
        }
    }

    pub(crate) fn rules(&self, now: Now) -> Rules<'_> {
        rules!(self, now)
    }

    /// A peer, unless it has expired.
    pub(crate) fn known(&self, peer: &PeerId, now: Now) -> Option<&Record> {
        let record = self.table.get(peer)?;
        (!record.has_expired(self.rules(now))).then_some(record)
    }

    pub(crate) fn refusals(&self) -> Refusals {
        self.refusals
    }

    /// Counts what was refused before it came to a record.
    pub(crate) fn refuse(&mut self, reason: Refused) {
        self.refusals.count(reason);
    }

    // --- changing a peer -----------------------------------------------------------------------------------

    /// Applies a rule to a peer; creates the peer when that leaves something worth knowing.
    pub(crate) fn edit(
        &mut self,
        peer: PeerId,
        by: By,
        cause: Cause,
        now: Now,
        rule: impl FnOnce(&mut Record, Rules<'_>, &mut Delta),
    ) -> Written {
        if by == By::Swarm && !self.gathering {
            return Written::default();
        }
        let mut delta = Delta::default();
        if let Err(reason) = self.admit(&peer, by, now) {
            delta.refused.count(reason);
            return self.finish(peer, delta, cause, now);
        }
        // What has expired is gone for everybody, and news of it is news.
        self.collect_peer(&peer, now);
        let claimed = self.claims_of(&peer);
        // What a peer says of itself counts for the place from which it says so.
        let source = (cause == Cause::Identify)
            .then(|| self.links.source(&peer))
            .flatten();
        let rules = rules!(self, now);
        if self.table.contains(&peer) {
            self.table.change(&peer, |record| {
                record.heard = now.wall;
                record.source = source.or(record.source);
                rule(record, rules, &mut delta);
                record.stamp(delta.changed, now.wall);
            });
        } else {
            let mut record = Record::new(peer, now.wall);
            record.source = source;
            rule(&mut record, rules, &mut delta);
            record.stamp(delta.changed, now.wall);
            self.create(record, &mut delta, now);
        }
        if by == By::User && !delta.changed.is_empty() {
            self.ignored.remove(&peer);
        }
        self.update_claims(&peer, claimed);
        if matches!(cause, Cause::Identify | Cause::Dial)
            && delta.changed.contains(Books::ADDRESSES)
        {
            self.displace_claims(&peer, now);
        }
        self.finish(peer, delta, cause, now)
    }

    /// Applies a rule to a peer that is known, and does nothing otherwise.
    pub(crate) fn edit_known(
        &mut self,
        peer: PeerId,
        by: By,
        cause: Cause,
        now: Now,
        rule: impl FnOnce(&mut Record, Rules<'_>, &mut Delta),
    ) -> Written {
        if self.table.contains(&peer) {
            self.edit(peer, by, cause, now, rule)
        } else {
            Written::default()
        }
    }

    /// As [`State::edit`], but a peer that is not known is made only while there is room without removing another.
    pub(crate) fn edit_with_room(
        &mut self,
        peer: PeerId,
        by: By,
        cause: Cause,
        now: Now,
        rule: impl FnOnce(&mut Record, Rules<'_>, &mut Delta),
    ) -> Written {
        // What has expired holds no place.
        self.collect_peer(&peer, now);
        let capacity = self.config.max_peers().get();
        if self.table.len() >= capacity {
            self.collect(MAX_EXPIRED, now);
        }
        let full = self.table.len() >= capacity;
        if full && !self.table.contains(&peer) {
            let mut delta = Delta::default();
            delta.refused.count(Refused::StoreFull);
            return self.finish(peer, delta, cause, now);
        }
        self.edit(peer, by, cause, now, rule)
    }

    /// Whether anything may be stored about the peer.
    fn admit(&mut self, peer: &PeerId, by: By, now: Now) -> Result<(), Refused> {
        if *peer == self.local {
            return Err(Refused::LocalPeer);
        }
        if self.ignored.is_empty() {
            return Ok(());
        }
        self.ignored.retain(|_, until| *until > now.wall);
        if by == By::Swarm && self.ignored.contains_key(peer) {
            return Err(Refused::Ignored);
        }
        Ok(())
    }

    /// Takes a new record in, if it holds anything and there is room for it.
    fn create(&mut self, mut record: Record, delta: &mut Delta, now: Now) {
        if record.is_empty() {
            return;
        }
        // Before room is made: a connection is worth something.
        let peer = record.id;
        record.note_links(&self.links);
        if !self.make_room(record.seat(), now) {
            let refused = std::mem::take(&mut delta.refused);
            *delta = Delta::default();
            delta.refused = refused;
            delta.refused.count(Refused::StoreFull);
            return;
        }
        self.table.insert(record);
        if self.bus.has_reader(&peer) {
            self.bus.publish(Event::PeerAdded { peer });
        }
    }

    /// Makes events, dirty marks and counts of what a rule did.
    fn finish(&mut self, peer: PeerId, delta: Delta, cause: Cause, now: Now) -> Written {
        self.refusals.merge(&delta.refused);
        for (standing, success) in &delta.outcomes {
            self.model.learn(*standing, *success, now.wall);
        }
        self.reschedule(&peer, now);
        self.keep_shares(&peer, now);
        let written = Written {
            changed: !delta.changed.is_empty(),
            refused: delta.refused,
        };
        if written.changed && self.bus.has_reader(&peer) {
            self.publish_changes(peer, delta.changed, &delta.metadata, cause, now);
        }
        if !delta.save.is_empty() || !delta.save_later.is_empty() {
            let Delta {
                save,
                save_later,
                metadata,
                ..
            } = delta;
            self.pending
                .mark(peer, save, save_later, metadata, now.elapsed);
        }
        written
    }

    fn publish_changes(
        &mut self,
        peer: PeerId,
        books: Books,
        metadata: &[String],
        cause: Cause,
        now: Now,
    ) {
        let Some(record) = self.table.get(&peer) else {
            return;
        };
        if books.contains(Books::ADDRESSES) {
            let addresses = shared(record.multiaddrs(self.rules(now)));
            self.bus.publish(Event::AddressesChanged {
                peer,
                addresses,
                cause,
            });
        }
        if books.contains(Books::PROTOCOLS) {
            let protocols = shared(record.protocols.clone());
            self.bus.publish(Event::ProtocolsChanged {
                peer,
                protocols,
                cause,
            });
        }
        if books.contains(Books::KEY) {
            let known = record.public_key.is_some();
            self.bus.publish(Event::PublicKeyKnown { peer, known });
        }
        for key in metadata {
            let key = key.as_str().into();
            self.bus.publish(Event::MetadataChanged { peer, key });
        }
        if books.contains(Books::TAGS) {
            let tags = Arc::new(record.tags.view(now.wall));
            self.bus.publish(Event::TagsChanged { peer, tags, cause });
        }
        if books.contains(Books::LATENCY)
            && let Some(latency) = record.latency.map(Latency::mean)
        {
            self.bus.publish(Event::LatencyChanged { peer, latency });
        }
    }

    // --- removing a peer -----------------------------------------------------------------------------------

    /// The user deletes a peer: each book that held something says so, and nothing of it stays on disk.
    pub(crate) fn delete(&mut self, peer: PeerId, ignore_for: Option<Duration>, now: Now) -> bool {
        if let Some(duration) = ignore_for {
            self.ignored.retain(|_, until| *until > now.wall);
            if self.ignored.len() >= MAX_IGNORED {
                // The one that would be heard of again first makes room.
                let first = self.ignored.iter().min_by_key(|(_, until)| **until);
                if let Some(first) = first.map(|(peer, _)| *peer) {
                    self.ignored.remove(&first);
                }
            }
            self.ignored.insert(peer, now.wall.after(duration));
        }
        self.collect_peer(&peer, now);
        let mut delta = Delta::default();
        let claimed = self.claims_of(&peer);
        let held = self.table.change(&peer, |record| {
            record.clear_addresses(&mut delta);
            record.clear_protocols(&mut delta);
            record.clear_public_key(&mut delta);
            record.clear_metadata(&mut delta);
            record.clear_tags(&mut delta);
        });
        self.update_claims(&peer, claimed);
        if held.is_some() && self.bus.has_reader(&peer) {
            self.publish_changes(peer, delta.changed, &delta.metadata, Cause::User, now);
        }
        self.remove(&peer, Cause::User, now);
        // Also what an earlier run left there, and what was never loaded.
        self.pending.purge(peer, now.elapsed);
        held.is_some()
    }

    /// Removes a peer that has nothing left, unless it is connected.
    pub(crate) fn remove_if_empty(&mut self, peer: &PeerId, cause: Cause, now: Now) {
        let is_empty = |record: &Record| record.is_empty() && !record.connected;
        if self.table.get(peer).is_some_and(is_empty) {
            self.remove(peer, cause, now);
        }
    }

    pub(crate) fn remove(&mut self, peer: &PeerId, cause: Cause, now: Now) {
        if let Some((slot, due)) = self.table.scheduled(peer) {
            self.schedule.remove(due, slot);
        }
        let claimed = self.claims_of(peer);
        self.withdraw_claims(peer, &claimed);
        let Some(record) = self.table.remove(peer) else {
            return;
        };
        if record.saved.is_empty() {
            self.pending.forget(peer);
        } else {
            self.pending.purge_evicted(*peer, now.elapsed);
        }
        if self.bus.has_reader(peer) {
            self.bus.publish(Event::PeerRemoved { peer: *peer, cause });
        }
    }

    // --- expiry --------------------------------------------------------------------------------------------

    /// Collects what had expired before it was loaded, without events, and notes when the rest does. Returns how
    /// many peers are gone.
    pub(crate) fn expire_loaded(&mut self, now: Now) -> usize {
        let (mut expired, mut at) = (0, Some(0));
        while let Some(start) = at {
            let (page, next) = self.table.page(start, 256);
            let peers: Vec<PeerId> = page.map(|record| record.id).collect();
            at = next;
            for peer in peers {
                let before = self.table.len();
                self.collect_peer(&peer, now);
                self.update_claims(&peer, Vec::new());
                self.reschedule(&peer, now);
                expired += before - self.table.len();
            }
        }
        expired
    }

    /// When something may expire next.
    pub(crate) fn next_expiry(&self) -> Option<Timestamp> {
        self.schedule.next()
    }

    /// Collects what has expired, of at most `records` records. Returns whether more may be due.
    pub(crate) fn collect(&mut self, records: usize, now: Now) -> bool {
        for _ in 0..records {
            let Some(slot) = self.schedule.pop(now.wall) else {
                return false;
            };
            if let Some(peer) = self.table.unschedule(slot) {
                self.collect_peer(&peer, now);
                self.reschedule(&peer, now);
            }
        }
        true
    }

    /// Collects what has expired of one peer.
    fn collect_peer(&mut self, peer: &PeerId, now: Now) {
        let rules = self.rules(now);
        let due = |record: &Record| record.next_expiry(rules).is_some_and(|at| at <= now.wall);
        let Some(record) = self.table.get(peer).filter(|record| due(record)) else {
            return;
        };
        if record.has_expired(rules) {
            self.remove(peer, Cause::Expired, now);
            return;
        }
        let mut delta = Delta::default();
        let claimed = self.claims_of(peer);
        let rules = rules!(self, now);
        self.table.change(peer, |record| {
            record.expire_addresses(rules, &mut delta);
            record.expire_tags(rules, &mut delta);
            record.stamp(delta.changed, now.wall);
        });
        self.update_claims(peer, claimed);
        self.finish(*peer, delta, Cause::Expired, now);
    }

    /// Puts a record into the schedule, if it is not there, or not early enough.
    pub(crate) fn reschedule(&mut self, peer: &PeerId, now: Now) {
        let Some(record) = self.table.get(peer) else {
            return;
        };
        if let Some(at) = record.next_expiry(self.rules(now))
            && let Some((slot, before)) = self.table.schedule(peer, Due::at(at))
        {
            if let Some(before) = before {
                self.schedule.remove(before, slot);
            }
            self.schedule.add(Due::at(at), slot);
        }
    }

    // --- dials ---------------------------------------------------------------------------------------------

    /// A dial failed for a reason that may lie with the network: it counts once that has proved to work.
    pub(crate) fn dial_failed(&mut self, peer: PeerId, address: &Multiaddr) {
        let address = address.clone();
        self.network.failed(Failure { peer, address });
    }

    /// Something proved that the network works in the scope of an address.
    pub(crate) fn network_works(&mut self, address: &Multiaddr, now: Now) {
        for Failure { peer, address } in self.network.proved(Scope::of(address), now.elapsed) {
            self.dialled(peer, &address, Outcome::Failure, now);
        }
    }

    /// A dial said something about an address of a peer that is known.
    pub(crate) fn dialled(
        &mut self,
        peer: PeerId,
        address: &Multiaddr,
        outcome: Outcome,
        now: Now,
    ) -> Written {
        self.edit_known(peer, By::Swarm, Cause::Dial, now, |record, rules, delta| {
            record.dialled(address, outcome, rules, delta);
        })
    }

    /// An address turned out to be this node's own.
    pub(crate) fn is_own(&mut self, peer: PeerId, address: Multiaddr, now: Now) -> Written {
        let written = self.edit_known(peer, By::Swarm, Cause::Dial, now, |record, _, delta| {
            record.remove_own(&address, delta);
        });
        if !self.own.contains(&address) {
            if self.own.len() >= MAX_OWN {
                self.own.pop_front();
            }
            self.own.push_back(address);
        }
        written
    }

    /// This node's own addresses changed: what was refused as such may be somebody else's now.
    pub(crate) fn own_addresses_changed(&mut self) {
        self.own.clear();
    }

    // --- connections ---------------------------------------------------------------------------------------

    pub(crate) fn connections(&self, peer: &PeerId) -> usize {
        self.links.count(peer)
    }

    pub(crate) fn connected_peers(&self) -> impl Iterator<Item = &PeerId> + '_ {
        self.links.peers()
    }

    pub(crate) fn connection_opened(&mut self, peer: PeerId, endpoint: &ConnectedPoint, now: Now) {
        self.links.open(peer, endpoint);
        let links = &self.links;
        let moved = self.table.change(&peer, |record| record.note_links(links));
        let mut delta = Delta::default();
        if self.gathering {
            delta.save_later = moved.unwrap_or_default();
        }
        self.finish(peer, delta, Cause::Inbound, now);
    }

    /// A connection ended. Its address ages from now on, unless another connection uses it still.
    pub(crate) fn connection_closed(&mut self, peer: PeerId, address: &Multiaddr, now: Now) {
        let Some(closed) = self.links.close(&peer, address) else {
            return;
        };
        let links = &self.links;
        self.table.change(&peer, |record| record.note_links(links));
        if closed.last {
            self.keep_shares(&peer, now);
        }
        if closed.unused {
            self.no_longer_in_use(peer, &closed.address, now);
        }
    }

    /// A connection goes on at another address: the one that was dialled ages from now on.
    pub(crate) fn connection_moved(
        &mut self,
        peer: PeerId,
        old: &Multiaddr,
        new: &Multiaddr,
        now: Now,
    ) {
        if self.links.moved(&peer, old, new) {
            self.no_longer_in_use(peer, old, now);
        }
    }

    fn no_longer_in_use(&mut self, peer: PeerId, address: &Multiaddr, now: Now) {
        // After shutdown too: it is no news, but the end of what held the address.
        let mut delta = Delta::default();
        let rules = rules!(self, now);
        self.table.change(&peer, |record| {
            record.no_longer_in_use(address, rules, &mut delta);
        });
        self.finish(peer, delta, Cause::Dial, now);
    }

    /// The store closes: what is in use now was good until now.
    pub(crate) fn touch_in_use(&mut self, now: Now) {
        let connected: Vec<PeerId> = self.links.peers().copied().collect();
        for peer in connected {
            let mut delta = Delta::default();
            let rules = rules!(self, now);
            self.table
                .change(&peer, |record| record.touch_in_use(rules, &mut delta));
            self.finish(peer, delta, Cause::Dial, now);
        }
    }

    /// Something came over a live connection to a peer.
    pub(crate) fn heard_from(&mut self, peer: &PeerId, now: Now) {
        for address in self.links.addresses(peer) {
            self.network_works(&address, now);
        }
    }

    /// The behaviour is gone, and with it what it knew of connections.
    pub(crate) fn all_connections_closed(&mut self, now: Now) {
        // As at shutdown: usually this comes just before it.
        self.touch_in_use(now);
        let connected: Vec<PeerId> = self.links.peers().copied().collect();
        for peer in connected {
            for address in self.links.addresses(&peer) {
                self.connection_closed(peer, &address, now);
            }
        }
    }

    // --- who claims what -----------------------------------------------------------------------------------

    fn claims_of(&self, peer: &PeerId) -> Vec<Spot> {
        let record = self.table.get(peer);
        record.map_or_else(Vec::new, |record| record.claims(&self.secret))
    }

    /// Brings up to date what a peer claims, that did claim this before.
    fn update_claims(&mut self, peer: &PeerId, before: Vec<Spot>) {
        let Some(slot) = self.table.slot_of(peer) else {
            return;
        };
        let after = self.claims_of(peer);
        for spot in before.iter().filter(|spot| !after.contains(spot)) {
            self.claims.remove(*spot, slot);
        }
        for spot in after.iter().filter(|spot| !before.contains(spot)) {
            self.claims.add(*spot, slot);
        }
    }

    fn withdraw_claims(&mut self, peer: &PeerId, claimed: &[Spot]) {
        if let Some(slot) = self.table.slot_of(peer) {
            claimed
                .iter()
                .for_each(|spot| self.claims.remove(*spot, slot));
        }
    }

    /// A peer is known at first hand to be where as many as may be are said to be by hearsay: one of them makes room.
    fn displace_claims(&mut self, peer: &PeerId, now: Now) {
        let Some(record) = self.table.get(peer) else {
            return;
        };
        let (secret, links) = (&self.secret, &self.links);
        let limit = self.config.max_claims_per_ip().get();
        let spots = record.addresses.iter().filter_map(|entry| {
            let spot = claims::spot(&entry.address, secret)?;
            let sources = entry.history.sources;
            let is_there = |address: &Multiaddr| claims::spot(address, secret) == Some(spot);
            let is_known = entry.is_dialled()
                || sources.intersects(Sources::SELF_TOLD) && links.is_at(peer, is_there);
            is_known.then_some(spot)
        });
        let crowded = |spot: &Spot| self.claims.claimants(*spot).count() >= limit;
        let spots: Vec<Spot> = spots.filter(crowded).collect();
        for spot in spots {
            let slots: Vec<u32> = self.claims.claimants(spot).collect();
            let random = self.secret.hash_one((spot, self.table.len(), now.elapsed));
            let chosen = pick(&slots, random).and_then(|slot| self.table.at(slot));
            if let Some(displaced) = chosen.map(|record| record.id) {
                self.displace_claim(&displaced, spot, now);
            }
        }
    }

    fn displace_claim(&mut self, peer: &PeerId, spot: Spot, now: Now) {
        let claimed = self.claims_of(peer);
        let secret = &self.secret;
        let mut delta = Delta::default();
        self.table.change(peer, |record| {
            record.displace(
                |address| claims::spot(address, secret) == Some(spot),
                &mut delta,
            );
            record.stamp(delta.changed, now.wall);
        });
        self.update_claims(peer, claimed);
        self.finish(*peer, delta, Cause::Evicted, now);
        self.remove_if_empty(peer, Cause::Evicted, now);
    }

    /// Whether this address may come from hearsay now.
    pub(crate) fn takes_hearsay_at(&self, address: &Multiaddr) -> bool {
        self.config.private_hearsay() || Reach::of(address) >= self.links.nearest_from_anybody()
    }

    // --- echoes --------------------------------------------------------------------------------------------

    /// An observed behaviour is about to tell the swarm about this address, and the store knows it from there.
    pub(crate) fn announce(&mut self, peer: PeerId, address: Multiaddr) {
        self.announced = Some((peer, address));
    }

    /// Whether this is what an observed behaviour has just announced. The swarm delivers such an event before
    /// it polls anything else, so that one place is enough.
    pub(crate) fn is_echo(&mut self, peer: &PeerId, address: &Multiaddr) -> bool {
        let matches = |(p, a): &(PeerId, Multiaddr)| p == peer && a == address;
        self.announced
            .take_if(|announced| matches(announced))
            .is_some()
    }

    /// Whoever must be woken once the lock is released.
    pub(crate) fn take_wakers(&mut self) -> Vec<Waker> {
        let mut wakers = self.bus.take_wakers();
        wakers.extend(self.pending.take_waker());
        wakers
    }
}
