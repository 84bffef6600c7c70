//! A store and a model of it live through the same run, and give the same answers after each of its operations.
//!
//! [`run`] takes bytes, so that a property test and a fuzzer can call it alike; it panics where store and model differ.
//! Neither of the two is used here or below.

#[path = "../support/api.rs"]
pub mod support;

mod act;
mod compare;
mod expect;
mod mirror;
mod naive;
mod naive_address;
mod naive_addresses;
mod naive_books;
mod naive_confidence;
mod naive_dials;
mod naive_network;
mod naive_room;
mod ops;
mod tasks;
mod universe;

use std::{
    thread,
    time::{Duration, UNIX_EPOCH},
};

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_peerstore::{
    Cause, Clock, Event, ManualClock, MemoryDatastore, PeerStore, Subscription,
};

use self::{
    mirror::Mirror,
    naive::{Naive, Written},
    ops::{Op, Restart, Setup},
    support::Swarm,
    tasks::Tasks,
    universe::{Scope, about},
};

pub use self::ops::BLOCK;

/// Does to a store and to the model what the bytes say.
///
/// # Panics
///
/// When the two differ.
pub fn run(bytes: &[u8]) {
    let (setup, ops) = ops::read(bytes);
    let mut world = World::new(setup);
    for op in &ops {
        world.apply(op);
    }
    // What is left at the end is on disk, and nothing else.
    world.apply(&Op::Restart(Restart::ShutdownThenDrop));
    world.tasks.block_on(world.store.shutdown()).unwrap();
}

/// What a run consists of, for whoever must understand one that fails.
pub fn describe(bytes: &[u8]) -> String {
    let (setup, ops) = ops::read(bytes);
    let ops: Vec<String> = ops.iter().map(|op| format!("  {op:?}\n")).collect();
    format!("{setup:#?}\n{}", ops.concat())
}

/// The store, and the model of it.
struct World {
    setup: Setup,
    clock: ManualClock,
    datastore: MemoryDatastore,
    /// What runs of the store beside its callers.
    tasks: Tasks,
    store: PeerStore,
    swarm: Swarm,
    events: Subscription,
    naive: Naive,
    mirror: Mirror,
    /// Whether something may have expired that is not collected yet.
    collected: bool,
    /// How often all was compared.
    comparisons: usize,
}

impl World {
    fn new(mut setup: Setup) -> Self {
        let clock = ManualClock::default();
        setup.config = setup.config.with_clock(clock.clone());
        let tasks = Tasks::default();
        setup.config = setup.config.with_executor(tasks.executor());
        let datastore = MemoryDatastore::default();
        let store = open(&setup, &datastore, &tasks);
        let started = clock.started().duration_since(UNIX_EPOCH).unwrap();
        Self {
            naive: Naive::new(&setup, started.as_secs()),
            mirror: Mirror::default(),
            collected: true,
            comparisons: 0,
            swarm: Swarm::of(&store),
            events: store.subscribe(),
            store,
            tasks,
            datastore,
            clock,
            setup,
        }
    }

    /// Does the same to both, and compares what they say of it, and all their answers.
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Pass(duration, collect) => self.pass(*duration, *collect),
            Op::Restart(how) => self.restart(*how),
            Op::Flush => self.flush(),
            // What cannot happen.
            Op::Moved(peer, to) if !self.can_move(peer, to) => {}
            Op::Accepted(_, from) if about(from).scope == Scope::Relay => {}
            Op::WrongPeer(expected, obtained, _) if expected == obtained => {}
            op => {
                let before = self.written();
                let said = self.act(op);
                self.hear_events();
                let expected = self.expect(op);
                assert_eq!(said, expected, "{op:?}");
                assert!(
                    self.naive.evicted.is_empty() && self.naive.displaced.is_empty(),
                    "{op:?}"
                );
                // A connection says from where a peer speaks, and a deletion is for what is on disk alone, too.
                let is_plain = !matches!(op, Op::Dialled(..) | Op::Accepted(..) | Op::Delete(_))
                    && !matches!(op, Op::DeleteFor(..));
                if is_plain && before.is_some() && before == self.written() {
                    assert_eq!(self.store.unsaved(), 0, "{op:?} changed nothing");
                }
            }
        }
        self.naive.expire();
        self.compare();
        if !matches!(op, Op::Pass(..)) {
            self.collect();
        }
        if self.collected {
            self.mirror.compare(&self.naive);
        }
        if self.setup.flushes {
            self.flush();
        }
        // What is due is committed now.
        self.tasks.turn();
    }

    /// All that is worth writing, in a run in which everything is written at once.
    fn written(&self) -> Option<Written> {
        let watched = self.setup.flushes && self.setup.persistent && self.collected;
        watched.then(|| self.naive.written())
    }

    /// Collects what has expired, as a behaviour does when it is polled.
    fn collect(&mut self) {
        assert_eq!(self.store.len(), self.naive.peers.len());
        self.collected = true;
        self.hear_events();
    }

    /// Tells the mirror all that happened, and the model whom the store chose where the choice is the store's.
    fn hear_events(&mut self) {
        let events: Vec<Event> = std::iter::from_fn(|| self.events.try_next()).collect();
        self.mirror.hear(&events, &self.store);
        let mut last = None;
        for event in events {
            match event {
                Event::AddressesChanged {
                    peer,
                    cause: Cause::Evicted,
                    ..
                } => {
                    self.naive.displaced.push_back(peer);
                    last = Some(peer);
                    continue;
                }
                // Nothing was left of it after that.
                Event::PeerRemoved {
                    peer,
                    cause: Cause::Evicted,
                } if last == Some(peer) => {}
                Event::PeerRemoved {
                    peer,
                    cause: Cause::Evicted,
                } => self.naive.evicted.push_back(peer),
                _ => {}
            }
            last = None;
        }
    }

    /// Whether the latest connection of a peer is one that this node dialled, and an address is as far away.
    fn can_move(&self, peer: &PeerId, to: &Multiaddr) -> bool {
        let links = self.naive.links.get(peer);
        let to = about(to);
        links.and_then(|links| links.last()).is_some_and(|link| {
            link.dialled && link.scope == to.scope && link.reach == Some(to.reach)
        })
    }

    // --- time and restarts ---------------------------------------------------------------------------------

    /// Time passes, from one instant at which something expires to the next. There it is hidden at once; collected is it
    /// then, or when something else happens.
    fn pass(&mut self, duration: Duration, collect: bool) {
        let end = self.naive.now + duration.as_secs();
        let before = self.naive.peers.len();
        while self.naive.now < end {
            let next = self.naive.next_expiry();
            let next = next.map_or(end, |next| next.min(end));
            if next - self.naive.now > 1 {
                // Not a second earlier.
                self.advance(next - 1);
                self.compare_peers();
            }
            self.advance(next);
            self.naive.expire();
            if next < end {
                self.compare();
            }
            self.collected = false;
            if collect {
                self.collect();
            }
        }
        // A write collects so many peers before it does anything else. What has expired of others takes places yet.
        const COLLECTED_PER_WRITE: usize = 4;
        if before > COLLECTED_PER_WRITE {
            self.collect();
        }
    }

    fn flush(&self) {
        self.tasks.block_on(self.store.flush()).unwrap();
        assert_eq!(self.store.unsaved(), 0);
    }

    fn advance(&mut self, to: u64) {
        self.clock.advance(Duration::from_secs(to - self.naive.now));
        self.naive.now = to;
    }

    fn restart(&mut self, how: Restart) {
        if !self.setup.persistent {
            return;
        }
        // The handles go with the old run; another store stands in for it meanwhile.
        let none = PeerStore::in_memory(self.store.local_peer_id(), self.setup.config.clone());
        let store = std::mem::replace(&mut self.store, none.clone());
        let swarm = std::mem::replace(&mut self.swarm, Swarm::of(&none));
        self.events = none.subscribe();
        match how {
            Restart::ShutdownThenDrop => {
                self.tasks.block_on(store.shutdown()).unwrap();
                assert_eq!(store.unsaved(), 0);
                drop(swarm);
            }
            Restart::DropBehaviourThenShutdown => {
                drop(swarm);
                self.tasks.block_on(store.shutdown()).unwrap();
            }
            Restart::DropAll => drop(swarm),
        }
        // Dropping waits for what another thread does.
        thread::scope(|scope| {
            if matches!(how, Restart::DropAll) {
                scope.spawn(|| self.tasks.finish());
            }
            drop(store);
        });
        if !matches!(how, Restart::ShutdownThenDrop) {
            // Whom only a connection kept expires with it.
            self.naive.all_closed();
            self.naive.expire();
        }
        self.naive.restart();
        assert_eq!(
            self.datastore.len(),
            self.naive.keys_on_disk(),
            "{:#?}",
            self.datastore.entries()
        );

        let entries = self.datastore.len();
        self.store = open(&self.setup, &self.datastore, &self.tasks);
        self.swarm = Swarm::of(&self.store);
        self.events = self.store.subscribe();
        let report = self.store.load_report();
        let amiss = [
            report.foreign,
            report.undecodable,
            report.local,
            report.refused,
            report.left_on_disk,
        ];
        assert_eq!((report.entries, amiss), (entries, [0; 5]));
        self.adopt_what_was_not_written();
        assert_eq!(report.peers, self.naive.peers.len());
        self.mirror = Mirror::of(&self.naive);
        self.collected = true;
    }
}

fn open(setup: &Setup, datastore: &MemoryDatastore, tasks: &Tasks) -> PeerStore {
    let local = universe::peer(universe::LOCAL);
    if setup.persistent {
        let (datastore, config) = (datastore.clone(), setup.config.clone());
        tasks
            .block_on(PeerStore::open(local, datastore, config))
            .unwrap()
    } else {
        PeerStore::in_memory(local, setup.config.clone())
    }
}
