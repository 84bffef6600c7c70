//! What stands behind the store's one lock: the records, who is connected, who listens, what is dirty.
//!
//! A change goes one way: a rule of [`Record`](crate::record::Record) changes the record and leaves a
//! [`Delta`](crate::record::Delta); [`State::edit`] makes events and dirty marks of it. Nothing here waits, writes, logs,
//! or calls code of the user.

mod connections;
mod edit;
mod expiry;
mod places;
mod repeat;

use std::{
    collections::{HashMap, VecDeque},
    hash::RandomState,
    sync::Arc,
    task::Waker,
    time::Duration,
};

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;

use crate::{
    anchors::Anchors,
    budget::Pressure,
    claims::Claims,
    clock::Timestamp,
    config::Config,
    event::{Bus, Cause},
    links::Links,
    metrics::Counts,
    network::Network,
    persist::Pending,
    quality::Model,
    record::Rules,
    refusal::{Reasons, Refusals, Refused},
    stacks::Stacks,
    table::Table,
    view::View,
};

/// How many addresses are remembered as this node's own.
const MAX_OWN: usize = 64;

/// How many peers can be ignored at once, see [`State::delete`].
const MAX_IGNORED: usize = 1_024;

/// The rules of this moment, while the table is borrowed for a change.
macro_rules! rules {
    ($state:expr, $now:expr) => {
        $crate::record::Rules {
            now: $now.wall,
            loaded: $state.loaded,
            config: &$state.config,
            model: &$state.model,
            own: &$state.own,
            secret: &$state.secret,
            links: &$state.links,
            claims: &$state.claims,
            dialled_there: false,
            silent: &$state.network.silent,
        }
    };
}
use rules;

#[cfg(feature = "identify")]
pub(crate) use repeat::Identified;

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
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
    pub(crate) refused: Reasons,
    /// What made the peer known, if this did.
    pub(crate) added: Option<Cause>,
}

impl Written {
    /// Nothing changed, and so many items were refused.
    pub(crate) fn refused_only(reason: Refused, times: usize) -> Self {
        let mut written = Self::default();
        written.refused.add(reason, times);
        written
    }
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
    /// When it was loaded; zero for a store in memory.
    pub(crate) loaded: Timestamp,
    pub(crate) table: Table,
    pub(crate) bus: Bus,
    pub(crate) pending: Pending,
    refusals: Refusals,
    pub(crate) counts: Counts,
    /// False after shutdown: what the swarm learns is no longer stored.
    pub(crate) gathering: bool,
    links: Links,
    pub(crate) pressure: Pressure,
    claims: Claims,
    /// Peers that were deleted for a time, and when that ends.
    ignored: HashMap<PeerId, Timestamp>,
    pub(crate) model: Model,
    network: Network,
    pub(crate) stacks: Stacks,
    anchors: Anchors,
    /// Whether mDNS has told anything in this run.
    pub(crate) announced: bool,
    /// Addresses that turned out to be this node's own; forgotten when those change.
    own: VecDeque<Multiaddr>,
    secret: RandomState,
}

impl State {
    pub(crate) fn new(local: PeerId, config: Arc<Config>, persistent: bool) -> Self {
        Self {
            local,
            loaded: Timestamp::default(),
            table: Table::default(),
            bus: Bus::default(),
            pending: Pending::new(&config, persistent),
            config,
            refusals: Refusals::default(),
            counts: Counts::default(),
            gathering: true,
            links: Links::default(),
            pressure: Pressure::default(),
            claims: Claims::default(),
            ignored: HashMap::new(),
            model: Model::default(),
            network: Network::default(),
            stacks: Stacks::default(),
            anchors: Anchors::default(),
            announced: false,
            own: VecDeque::new(),
            secret: RandomState::new(),
        }
    }

    pub(crate) fn rules(&self, now: Now) -> Rules<'_> {
        rules!(self, now)
    }

    /// A peer, unless it has expired.
    pub(crate) fn known(&self, peer: &PeerId, now: Now) -> Option<View<'_>> {
        let view = self.table.get(peer)?;
        (!view.has_expired(self.rules(now))).then_some(view)
    }

    pub(crate) fn refusals(&self) -> Refusals {
        self.refusals
    }

    /// Counts what was refused before it came to a record.
    pub(crate) fn refuse(&mut self, reason: Refused, times: usize) {
        self.refusals.add(reason, times);
    }

    /// This node's own addresses changed: what was refused as such may be somebody else's now.
    pub(crate) fn own_addresses_changed(&mut self) {
        self.own.clear();
    }

    /// Whoever must be woken once the lock is released.
    pub(crate) fn take_wakers(&mut self) -> Vec<Waker> {
        let mut wakers = self.bus.take_wakers();
        // An address may come that expires before anything else, and is not for the disk.
        let table = &self.table;
        self.pending
            .note_expiry(|| expiry::end_of_step(table.next_due()));
        wakers.extend(self.pending.take_waker());
        wakers
    }
}
