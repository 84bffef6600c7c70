//! How peers come, change and go.

use std::time::Duration;

use libp2p_identity::PeerId;

use super::{By, MAX_IGNORED, Now, State, Written, rules};
use crate::{
    budget::MAX_EXPIRED,
    event::{Cause, Event},
    metrics::Happened,
    persist::Change,
    record::{Books, Delta, Latency, Record, Rules},
    refusal::Refused,
};

impl State {
    /// Applies a rule to a peer; creates the peer when that leaves something worth knowing.
    pub(crate) fn edit(
        &mut self,
        peer: PeerId,
        by: By,
        cause: Cause,
        now: Now,
        rule: impl FnOnce(&mut Record, Rules<'_>, &mut Delta),
    ) -> Written {
        let slot = self.table.find(&peer);
        self.edit_at(slot, peer, by, cause, now, rule)
    }

    /// As [`State::edit`], for whoever knows the slot of the peer already.
    pub(super) fn edit_at(
        &mut self,
        slot: Option<u32>,
        peer: PeerId,
        by: By,
        cause: Cause,
        now: Now,
        rule: impl FnOnce(&mut Record, Rules<'_>, &mut Delta),
    ) -> Written {
        if by == By::Swarm && !self.gathering {
            return Written::default();
        }
        if let Err(reason) = self.admit(&peer, by, now) {
            return self.refused(reason);
        }
        // What has expired is gone for everybody, and news of it is news.
        let slot = slot.filter(|slot| self.is_left(*slot, now));
        // What a peer says of itself counts for the place from which it says so.
        let source = (cause == Cause::Identify)
            .then(|| self.links.source(&peer))
            .flatten();
        let mut delta = Delta::default();
        let claimed = slot.map(|slot| self.claimed(slot)).unwrap_or_default();
        let rules = rules!(self, now);
        let is_new = slot.is_none();
        let slot = match slot {
            Some(slot) => {
                self.table.change(slot, |record| {
                    record.heard = now.wall;
                    // What was dropped too long ago holds the peer no longer, whatever becomes of its addresses now.
                    record.rare.keep_dropped(now.wall, |_| None);
                    record.source = source.or(record.source);
                    rule(record, rules, &mut delta);
                    record.stamp(delta.changed, now.wall);
                });
                Some(slot)
            }
            None => {
                let mut record = Record::new(peer, now.wall);
                // A connection is worth something, and says something of its address.
                record.note_links(&self.links);
                rule(&mut record, rules, &mut delta);
                record.stamp(delta.changed, now.wall);
                self.create(record, &mut delta, now)
            }
        };
        if by == By::User && !delta.changed.is_empty() {
            self.ignored.remove(&peer);
        }
        let Some(slot) = slot else {
            self.refusals.merge(&delta.refused);
            return Written {
                refused: delta.refused,
                ..Written::default()
            };
        };
        if is_new {
            self.counts.count(Happened::PeerAdded, cause);
        }
        self.update_claims(slot, &claimed);
        if matches!(cause, Cause::Identify | Cause::Dial)
            && delta.changed.contains(Books::ADDRESSES)
        {
            self.displace_claims(slot, now);
        }
        Written {
            added: is_new.then_some(cause),
            ..self.finish(slot, peer, delta, cause, now)
        }
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
        match self.find_collected(&peer, now) {
            Some(slot) => self.edit_at(Some(slot), peer, by, cause, now, rule),
            None => Written::default(),
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
        let known = self.find_collected(&peer, now).is_some();
        let capacity = self.config.max_peers().get();
        if self.table.len() >= capacity {
            self.collect(MAX_EXPIRED, now);
        }
        if !known && self.table.len() >= capacity {
            return self.refused(Refused::StoreFull);
        }
        self.edit(peer, by, cause, now, rule)
    }

    fn refused(&mut self, reason: Refused) -> Written {
        self.refusals.count(reason);
        Written::refused_only(reason, 1)
    }

    /// Whether anything may be stored about the peer.
    pub(super) fn admit(&mut self, peer: &PeerId, by: By, now: Now) -> Result<(), Refused> {
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

    /// Takes a new record in, if it holds anything and there is room for it. Returns its slot.
    fn create(&mut self, record: Record, delta: &mut Delta, now: Now) -> Option<u32> {
        if record.is_empty() {
            return None;
        }
        let peer = record.id;
        if !self.make_room(record.seat(), now) {
            let refused = std::mem::take(&mut delta.refused);
            *delta = Delta::default();
            delta.refused = refused;
            delta.refused.count(Refused::StoreFull);
            return None;
        }
        let slot = self.table.insert(record);
        if self.bus.has_reader(&peer) {
            self.bus.publish(Event::PeerAdded { peer });
        }
        Some(slot)
    }

    /// Makes events, dirty marks and counts of what a rule did to the peer in a slot.
    pub(super) fn finish(
        &mut self,
        slot: u32,
        peer: PeerId,
        delta: Delta,
        cause: Cause,
        now: Now,
    ) -> Written {
        self.refusals.merge(&delta.refused);
        self.announced |= delta.announced;
        for (standing, success) in &delta.outcomes {
            self.model.learn(*standing, *success, now.wall);
        }
        self.reschedule(slot, now);
        self.keep_shares(slot, now);
        let written = Written {
            changed: !delta.changed.is_empty(),
            refused: delta.refused,
            added: None,
        };
        let keys = delta.metadata.len();
        self.counts.changed(delta.changed, keys, cause);
        if written.changed && self.bus.has_reader(&peer) {
            self.publish_changes(slot, delta.changed, &delta.metadata, cause, now);
        }
        // What expires after the end is no change that anybody made, and does so again at the next start.
        let is_over = cause == Cause::Expired && self.pending.is_closed();
        if !is_over && (!delta.save.is_empty() || !delta.save_later.is_empty()) {
            let Delta {
                save,
                save_later,
                metadata,
                ..
            } = delta;
            self.mark(slot, peer, (save, save_later), metadata, now);
        }
        written
    }

    /// Notes what of a peer is to be written: in its record if that can hold it.
    pub(super) fn mark(
        &mut self,
        slot: u32,
        peer: PeerId,
        books: (Books, Books),
        metadata: Vec<String>,
        now: Now,
    ) {
        let pending = &mut self.pending;
        if !pending.is_persistent() {
            return;
        }
        if let Some(packed) = self.table.packed_mut(slot) {
            if pending.mark_record(slot, &peer, packed, books, &metadata, now.elapsed) {
                return;
            }
            if let Some(before) = pending.take_record(packed) {
                pending.mark_taken(peer, before, now.elapsed);
            }
        }
        pending.mark(peer, books.0, books.1, metadata, now.elapsed);
    }

    /// Takes out of a record what of it is not saved.
    pub(crate) fn take_unwritten(&mut self, slot: u32) -> Option<(PeerId, Change)> {
        let packed = self.table.packed_mut(slot)?;
        let change = self.pending.take_record(packed)?;
        let peer = packed.id()?;
        self.pending.in_flight_too();
        Some((peer, change))
    }

    /// Some of what a commit did not write is dirty again, with what has changed of it since.
    pub(crate) fn give_back(&mut self, unwritten: Vec<(PeerId, Change)>, now: Now) {
        for (peer, _) in &unwritten {
            let slot = self.table.find(peer);
            let packed = slot.and_then(|slot| self.table.packed_mut(slot));
            if let Some(since) = packed.and_then(|packed| self.pending.take_record(packed)) {
                self.pending.mark_taken(*peer, since, now.elapsed);
            }
        }
        self.pending.give_back(unwritten, now.elapsed);
    }

    /// Peers with changes that are not on disk for certain.
    pub(crate) fn unsaved(&self) -> usize {
        let again = self.pending.in_flight().filter(|peer| {
            let slot = self.table.find(peer);
            let packed = slot.and_then(|slot| self.table.packed(slot));
            packed.is_some_and(|packed| packed.dirty() != 0)
        });
        self.pending.unsaved() - again.count()
    }

    fn publish_changes(
        &mut self,
        slot: u32,
        books: Books,
        metadata: &[String],
        cause: Cause,
        now: Now,
    ) {
        let Some(view) = self.table.view(slot) else {
            return;
        };
        let peer = view.id();
        if books.contains(Books::ADDRESSES) {
            let addresses = view.multiaddrs(self.rules(now)).into();
            self.bus.publish(Event::AddressesChanged {
                peer,
                addresses,
                cause,
            });
        }
        if books.contains(Books::PROTOCOLS) {
            let protocols = view.shared_protocols().cloned().unwrap_or_default();
            self.bus.publish(Event::ProtocolsChanged {
                peer,
                protocols,
                cause,
            });
        }
        if books.contains(Books::KEY) {
            let known = view.rare().is_some_and(|rare| rare.public_key.is_some());
            self.bus.publish(Event::PublicKeyKnown { peer, known });
        }
        for key in metadata {
            let key = key.as_str().into();
            self.bus.publish(Event::MetadataChanged { peer, key });
        }
        if books.contains(Books::TAGS) {
            let tags = view.rare().map(|rare| rare.tags.view(now.wall));
            let tags = tags.unwrap_or_default().into();
            self.bus.publish(Event::TagsChanged { peer, tags, cause });
        }
        if books.contains(Books::LATENCY)
            && let Some(latency) = view.latency().map(Latency::mean)
        {
            self.bus.publish(Event::LatencyChanged { peer, latency });
        }
    }

    // --- removing a peer -----------------------------------------------------------------------------------

    /// The user deletes a peer: each book that held something says so, and nothing of it stays on disk.
    pub(crate) fn delete(&mut self, peer: PeerId, ignore_for: Option<Duration>, now: Now) -> bool {
        if ignore_for == Some(Duration::ZERO) {
            self.ignored.remove(&peer);
        } else if let Some(duration) = ignore_for {
            self.ignored.retain(|_, until| *until > now.wall);
            if self.ignored.len() >= MAX_IGNORED && !self.ignored.contains_key(&peer) {
                // The one that would be heard of again first makes room.
                let first = self.ignored.iter().min_by_key(|(_, until)| **until);
                if let Some(first) = first.map(|(peer, _)| *peer) {
                    self.ignored.remove(&first);
                }
            }
            self.ignored.insert(peer, now.wall.after(duration));
        }
        let slot = self.find_collected(&peer, now);
        if let Some(slot) = slot {
            let mut delta = Delta::default();
            let claimed = self.claimed(slot);
            self.table.change(slot, |record| {
                record.clear_addresses(&mut delta);
                record.clear_protocols(&mut delta);
                record.clear_public_key(&mut delta);
                record.clear_metadata(&mut delta);
                record.clear_tags(&mut delta);
            });
            self.update_claims(slot, &claimed);
            let keys = delta.metadata.len();
            self.counts.changed(delta.changed, keys, Cause::User);
            if self.bus.has_reader(&peer) {
                self.publish_changes(slot, delta.changed, &delta.metadata, Cause::User, now);
            }
            self.remove(slot, Cause::User, now);
        }
        // Also what an earlier run left there, and what was never loaded.
        self.pending.purge(peer, now.elapsed);
        slot.is_some()
    }

    /// Removes a peer that has nothing left, unless it is connected.
    pub(crate) fn remove_if_empty(&mut self, peer: &PeerId, cause: Cause, now: Now) {
        if let Some(slot) = self.table.find(peer) {
            self.remove_slot_if_empty(slot, cause, now);
        }
    }

    pub(super) fn remove_slot_if_empty(&mut self, slot: u32, cause: Cause, now: Now) {
        let view = self.table.view(slot);
        if view.is_some_and(|view| view.is_empty() && !view.connected()) {
            self.remove(slot, cause, now);
        }
    }

    pub(crate) fn remove(&mut self, slot: u32, cause: Cause, now: Now) {
        let Some(view) = self.table.view(slot) else {
            return;
        };
        let (peer, saved) = (view.id(), view.saved());
        self.withdraw_claims(slot);
        if let Some(packed) = self.table.packed_mut(slot) {
            // What goes is not to be written any longer.
            self.pending.take_record(packed);
        }
        self.table.remove(slot);
        if saved.is_empty() {
            self.pending.forget(&peer);
        } else {
            self.pending.purge_evicted(peer, now.elapsed);
        }
        self.counts.count(Happened::PeerRemoved, cause);
        if self.bus.has_reader(&peer) {
            self.bus.publish(Event::PeerRemoved { peer, cause });
        }
    }

    /// The slot of a peer of which nothing is left that has expired.
    pub(super) fn find_collected(&mut self, peer: &PeerId, now: Now) -> Option<u32> {
        let slot = self.table.find(peer)?;
        self.is_left(slot, now).then_some(slot)
    }

    /// Collects what has expired of the peer in a slot. Returns whether it is still there.
    fn is_left(&mut self, slot: u32, now: Now) -> bool {
        let is_due = self.table.due(slot).has_come(now.wall);
        !is_due || self.collect_slot(slot, now)
    }
}
