//! What stands behind the store's one lock: the records, who is connected, who listens, what is dirty.
//!
//! A change goes one way: a rule of [`Record`] changes the record and leaves a [`Delta`]; [`State::edit`] makes
//! events and dirty marks of it. Nothing here waits, writes, logs, or calls code of the user.

use std::{collections::HashMap, sync::Arc, task::Waker, time::Duration};

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;

use crate::{
    clock::Timestamp,
    config::Config,
    event::{Bus, Cause, Event},
    persist::Pending,
    record::{Books, Class, Delta, Record, Rules, shared},
    refusal::{Refusals, Refused},
    table::Table,
};

/// How many peers can be ignored at once, see [`State::delete`].
const MAX_IGNORED: usize = 1_024;

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
    /// Connections of each connected peer: bounded by the swarm's own limits, not by the store's.
    connections: HashMap<PeerId, usize>,
    /// Peers that were deleted for a time, and when that ends.
    ignored: HashMap<PeerId, Timestamp>,
    /// What an observed behaviour has just told the swarm about, and the store has dealt with already.
    announced: Option<(PeerId, Multiaddr)>,
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
            connections: HashMap::new(),
            ignored: HashMap::new(),
            announced: None,
        }
    }

    pub(crate) fn rules(&self, now: Now) -> Rules<'_> {
        Rules {
            now: now.wall,
            config: &self.config,
        }
    }

    pub(crate) fn refusals(&self) -> Refusals {
        self.refusals
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
        let rules = Rules {
            now: now.wall,
            config: &self.config,
        };
        if self.table.contains(&peer) {
            self.table.change(&peer, |record| {
                rule(record, rules, &mut delta);
                record.stamp(delta.changed, now.wall);
            });
        } else {
            let mut record = Record::new(peer);
            rule(&mut record, rules, &mut delta);
            record.stamp(delta.changed, now.wall);
            self.create(record, &mut delta, now);
        }
        if by == By::User && !delta.changed.is_empty() {
            self.ignored.remove(&peer);
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
        record.connected = self.connections.contains_key(&record.id);
        if !self.make_room(record.class(), now) {
            let refused = std::mem::take(&mut delta.refused);
            *delta = Delta::default();
            delta.refused = refused;
            delta.refused.count(Refused::StoreFull);
            return;
        }
        let peer = record.id;
        self.table.insert(record);
        if self.bus.has_reader(&peer) {
            self.bus.publish(Event::PeerAdded { peer });
        }
    }

    /// Makes room for a new peer of this class: the least valuable peer goes, unless all are worth more.
    fn make_room(&mut self, newcomer: Class, now: Now) -> bool {
        while self.table.len() >= self.config.max_peers().get() {
            let Some((class, victim)) = self.table.least_valuable() else {
                return false;
            };
            if class > newcomer || class == Class::Pinned {
                return false;
            }
            self.remove(&victim, Cause::Evicted, now);
        }
        true
    }

    /// Makes events, dirty marks and counts of what a rule did.
    fn finish(&mut self, peer: PeerId, delta: Delta, cause: Cause, now: Now) -> Written {
        self.refusals.merge(&delta.refused);
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
        let mut delta = Delta::default();
        let held = self.table.change(&peer, |record| {
            record.clear_addresses(&mut delta);
            record.clear_protocols(&mut delta);
            record.clear_public_key(&mut delta);
            record.clear_metadata(&mut delta);
        });
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

    fn remove(&mut self, peer: &PeerId, cause: Cause, now: Now) {
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

    // --- connections ---------------------------------------------------------------------------------------

    pub(crate) fn connections(&self, peer: &PeerId) -> usize {
        self.connections.get(peer).copied().unwrap_or_default()
    }

    pub(crate) fn connected_peers(&self) -> impl Iterator<Item = &PeerId> + '_ {
        self.connections.keys()
    }

    pub(crate) fn connection_opened(&mut self, peer: PeerId) {
        let connections = self.connections.entry(peer).or_default();
        *connections += 1;
        self.table.change(&peer, |record| record.connected = true);
    }

    pub(crate) fn connection_closed(&mut self, peer: PeerId) {
        let Some(connections) = self.connections.get_mut(&peer) else {
            return;
        };
        *connections = connections.saturating_sub(1);
        if *connections == 0 {
            self.connections.remove(&peer);
            self.table.change(&peer, |record| record.connected = false);
        }
    }

    /// The behaviour is gone, and with it what it knew of connections.
    pub(crate) fn all_connections_closed(&mut self) {
        let connected: Vec<PeerId> = self.connections.drain().map(|(peer, _)| peer).collect();
        for peer in connected {
            self.table.change(&peer, |record| record.connected = false);
        }
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
