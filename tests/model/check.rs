//! A store and a model of it live through the same run, and give the same answers after each of its operations.
//!
//! [`run`] takes bytes, so that a property test and a fuzzer can call it alike; it panics where store and model differ.
//! Nothing here or below belongs to either of them.

#[path = "../support/api.rs"]
mod support;

mod compare;
mod naive;
mod naive_addresses;
mod naive_books;
mod ops;
mod universe;

use std::time::{Duration, UNIX_EPOCH};

use futures::executor::block_on;
use libp2p_core::{Multiaddr, transport::TransportError};
use libp2p_identity::PeerId;
use libp2p_peerstore::{
    Cause, Changed, Clock, Event, ManualClock, MemoryDatastore, PeerStore, Refused, Source, Sources, Subscription,
};
use libp2p_swarm::{DialError, StreamProtocol};

use self::{
    naive::{By, Did, Naive},
    ops::{Book, Failure, Op, Restart, Setup},
    support::{Swarm, did},
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
    store: PeerStore,
    swarm: Swarm,
    events: Subscription,
    naive: Naive,
}

impl World {
    fn new(mut setup: Setup) -> Self {
        let clock = ManualClock::default();
        setup.config = setup.config.with_clock(clock.clone());
        let datastore = MemoryDatastore::default();
        let store = open(&setup, &datastore);
        let started = clock.started().duration_since(UNIX_EPOCH).unwrap();
        Self {
            naive: Naive::new(&setup, started.as_secs()),
            swarm: Swarm::of(&store),
            events: store.subscribe(),
            store,
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
            Op::Flush => {
                block_on(self.store.flush()).unwrap();
                assert_eq!(self.store.unsaved(), 0);
            }
            op => {
                let said = self.act(op);
                self.hear_who_made_room();
                let expected = self.expect(op);
                assert_eq!(said, expected, "{op:?}");
                assert!(self.naive.evicted.is_empty() && self.naive.displaced.is_empty(), "{op:?}");
            }
        }
        self.naive.expire();
        self.compare();
    }

    // --- the store -----------------------------------------------------------------------------------------

    fn act(&mut self, op: &Op) -> Said {
        let store = &self.store;
        let (addresses, protocols) = (store.addresses(), store.protocols());
        let (metadata, tags) = (store.metadata(), store.tags());
        match op.clone() {
            Op::Add(peer, told) => addresses.add(peer, told).into(),
            Op::Set(peer, told) => addresses.set(peer, told).into(),
            Op::Pin(peer, told) => addresses.pin(peer, told).into(),
            Op::Unpin(peer, told) => addresses.unpin(peer, told).into(),
            Op::Remove(peer, told) => addresses.remove(peer, told).into(),
            Op::Tell(source, peer, told) => store.learned(source).add(peer, &told).into(),
            Op::Identify(peer, told) => store.learned(Source::Identify).replace(peer, &told).into(),
            Op::Withdraw(source, peer, told) => store.learned(source).withdraw(peer, told.as_deref()).into(),
            Op::Certify(peer, told) => store.learned(Source::Identify).certify(peer, &told).into(),
            Op::Found(peer, address) => Said::nothing(self.swarm.found(peer, &address)),
            Op::Dialled(peer, address, failed) => Said::nothing(self.swarm.dialled_after(peer, address, &failed)),
            Op::Accepted(peer, address) if can_be_accepted(&address) => {
                Said::nothing(self.swarm.accepted(peer, address))
            }
            Op::Moved(peer, to) if self.can_move(&peer, &to) => Said::nothing(self.swarm.moved(peer, to)),
            Op::Accepted(..) | Op::Moved(..) => Said::Nothing,
            Op::Closed(peer) => Said::nothing(self.swarm.closed(peer)),
            Op::DialFailed(peer, tried, failure) => Said::nothing(dial_failed(&mut self.swarm, peer, tried, failure)),
            Op::WrongPeer(expected, obtained, address) => {
                Said::nothing(self.swarm.wrong_peer(expected, obtained, address))
            }
            Op::OwnAddressesChanged => Said::nothing(self.swarm.own_address_confirmed(&support::at(9))),
            Op::Alive(peer) => Said::nothing(store.learned(Source::Kademlia).alive(peer)),
            Op::Latency(peer, latency) => store.learned(Source::Discovery).latency(peer, latency).into(),
            Op::SetProtocols(peer, told) => protocols.set(peer, told).into(),
            Op::AddProtocols(peer, told) => protocols.add(peer, told).into(),
            Op::RemoveProtocols(peer, told) => protocols.remove(peer, told).into(),
            Op::LearnProtocols(peer, told) => {
                store.learned(Source::Identify).protocols(peer, &stream_protocols(&told)).into()
            }
            Op::SetKey(peer, n) => store.keys().set(peer, universe::key(n)).into(),
            Op::LearnKey(peer, n) => store.learned(Source::Identify).public_key(peer, &universe::key(n)).into(),
            Op::SetMetadata(peer, key, value) => metadata.set(peer, &key, value).into(),
            Op::LearnMetadata(peer, key, value) => {
                store.learned(Source::Identify).metadata(peer, &key, &value).into()
            }
            Op::DeleteValue(peer, key) => metadata.delete_value(&peer, &key).into(),
            Op::SetTag(peer, name, value, ttl) => tags.set(peer, &name, value, ttl).into(),
            Op::RemoveTag(peer, name) => tags.remove(&peer, &name).into(),
            Op::DeleteBook(peer, Book::Addresses) => addresses.delete(&peer).into(),
            Op::DeleteBook(peer, Book::Protocols) => protocols.delete(&peer).into(),
            Op::DeleteBook(peer, Book::Keys) => store.keys().delete(&peer).into(),
            Op::DeleteBook(peer, Book::Metadata) => metadata.delete(&peer).into(),
            Op::DeleteBook(peer, Book::Tags) => tags.delete(&peer).into(),
            Op::Delete(peer) => store.delete(&peer).into(),
            Op::DeleteFor(peer, duration) => store.delete_for(&peer, duration).into(),
            Op::Pass(..) | Op::Flush | Op::Restart(_) => unreachable!("not an act of one moment"),
        }
    }

    /// Tells the model whom the store chose where the choice is the store's.
    fn hear_who_made_room(&mut self) {
        let mut last = None;
        while let Some(event) = self.events.try_next() {
            match event {
                Event::AddressesChanged { peer, cause: Cause::Evicted, .. } => {
                    self.naive.displaced.push_back(peer);
                    last = Some(peer);
                    continue;
                }
                // Nothing was left of it after that.
                Event::PeerRemoved { peer, cause: Cause::Evicted } if last == Some(peer) => {}
                Event::PeerRemoved { peer, cause: Cause::Evicted } => self.naive.evicted.push_back(peer),
                Event::Lagged(missed) => panic!("{missed} events were lost"),
                _ => {}
            }
            last = None;
        }
    }

    // --- the model -----------------------------------------------------------------------------------------

    fn expect(&mut self, op: &Op) -> Said {
        const PEER: By = By::Swarm { first_hand: true };
        const OTHERS: By = By::Swarm { first_hand: false };
        let can_move = matches!(op, Op::Moved(peer, to) if self.can_move(peer, to));
        let naive = &mut self.naive;
        match op.clone() {
            Op::Add(peer, told) => naive
                .edit(peer, By::User, |naive, known, did| {
                    naive.add(&peer, known, &told, Sources::APPLICATION, did);
                })
                .into(),
            Op::Set(peer, told) => naive
                .edit(peer, By::User, |naive, known, did| {
                    naive.replace(&peer, known, &told, Sources::APPLICATION, did);
                })
                .into(),
            Op::Pin(peer, told) => naive
                .edit(peer, By::User, |naive, known, did| {
                    naive.add(&peer, known, &told, Sources::PINNED, did);
                })
                .into(),
            Op::Unpin(peer, told) => naive
                .edit_known(peer, By::User, |naive, known, did| naive.unpin(&peer, known, &told, did))
                .into(),
            Op::Remove(peer, told) => naive
                .edit_known(peer, By::User, |naive, known, did| naive.remove(&peer, known, &told, did))
                .into(),
            Op::Tell(source, peer, told) => {
                let by = if source == Source::Identify { PEER } else { OTHERS };
                naive
                    .edit(peer, by, |naive, known, did| {
                        let told = naive.filtered(&told, did);
                        naive.add(&peer, known, &told, source.into(), did);
                    })
                    .into()
            }
            Op::Identify(peer, told) => naive
                .edit(peer, PEER, |naive, known, did| {
                    let told = naive.filtered(&told, did);
                    naive.replace(&peer, known, &told, Sources::IDENTIFY, did);
                })
                .into(),
            Op::Withdraw(source, peer, told) => {
                let did = naive.edit_known(peer, OTHERS, |naive, known, did| {
                    naive.withdraw(&peer, known, told.as_deref(), source.into(), did);
                });
                if did.changed {
                    naive.remove_if_empty(&peer);
                }
                did.into()
            }
            Op::Certify(peer, told) => naive
                .edit_known(peer, PEER, |naive, known, did| naive.certify(&peer, known, &told, did))
                .into(),
            Op::Found(peer, address) => {
                naive.edit(peer, OTHERS, |naive, known, did| {
                    let told = naive.filtered(&[address], did);
                    naive.add(&peer, known, &told, Sources::DISCOVERY, did);
                });
                Said::Nothing
            }
            Op::Dialled(peer, address, failed) => Said::nothing(naive.connected(peer, &address, true, &failed)),
            Op::Accepted(peer, address) if can_be_accepted(&address) => {
                Said::nothing(naive.connected(peer, &address, false, &[]))
            }
            Op::Moved(peer, to) if can_move => Said::nothing(naive.moved(peer, &to)),
            Op::Accepted(..) | Op::Moved(..) => Said::Nothing,
            Op::Closed(peer) => Said::nothing(naive.closed(peer)),
            Op::DialFailed(peer, tried, failure) => {
                for address in tried {
                    match failure {
                        Failure::Refused => {
                            naive.dial_failed(peer, &address, false);
                            naive.works(universe::about(&address).scope);
                        }
                        Failure::TimedOut => naive.provisional_failure(peer, &address),
                        Failure::Unreachable => {}
                        Failure::Unsupported => naive.unsupported(peer, &address),
                    }
                }
                Said::Nothing
            }
            Op::WrongPeer(expected, obtained, address) => {
                Said::nothing(naive.wrong_peer(expected, obtained, &address))
            }
            Op::OwnAddressesChanged => Said::nothing(naive.own.clear()),
            Op::Alive(peer) => Said::nothing(naive.alive(&peer)),
            Op::Latency(peer, latency) => naive.measured_latency(peer, latency).into(),
            Op::SetProtocols(peer, told) => naive.set_protocols(peer, &told).into(),
            Op::AddProtocols(peer, told) => naive.add_protocols(peer, &told).into(),
            Op::RemoveProtocols(peer, told) => naive.remove_protocols(peer, &told).into(),
            Op::LearnProtocols(peer, told) => {
                let told: Vec<String> = stream_protocols(&told).iter().map(ToString::to_string).collect();
                naive.learn_protocols(peer, &told).into()
            }
            Op::SetKey(peer, n) => naive.set_key(peer, &universe::key(n), By::User).single(),
            Op::LearnKey(peer, n) => naive.set_key(peer, &universe::key(n), PEER).into(),
            Op::SetMetadata(peer, key, value) => naive.set_metadata(peer, &key, &value, By::User).single(),
            Op::LearnMetadata(peer, key, value) => naive.set_metadata(peer, &key, &value, PEER).into(),
            Op::DeleteValue(peer, key) => naive.delete_value(peer, &key).into(),
            Op::SetTag(peer, name, value, ttl) => naive.set_tag(peer, &name, value, ttl).single(),
            Op::RemoveTag(peer, name) => naive.empty(peer, |known| known.tags.remove(&name).is_some()).into(),
            Op::DeleteBook(peer, book) => naive
                .empty(peer, |known| match book {
                    Book::Addresses => {
                        known.dropped.clear();
                        !std::mem::take(&mut known.addresses).is_empty()
                    }
                    Book::Protocols => !std::mem::take(&mut known.protocols).is_empty(),
                    Book::Keys => known.key.take().is_some(),
                    Book::Metadata => !std::mem::take(&mut known.metadata).is_empty(),
                    Book::Tags => !std::mem::take(&mut known.tags).is_empty(),
                })
                .into(),
            Op::Delete(peer) => naive.delete(&peer, None).into(),
            Op::DeleteFor(peer, duration) => naive.delete(&peer, Some(duration)).into(),
            Op::Pass(..) | Op::Flush | Op::Restart(_) => unreachable!("not an act of one moment"),
        }
    }

    /// Whether the latest connection of a peer is one that this node dialled, and an address is as far away.
    fn can_move(&self, peer: &PeerId, to: &Multiaddr) -> bool {
        let links = self.naive.links.get(peer);
        let to = universe::about(to);
        links.and_then(|links| links.last()).is_some_and(|link| {
            link.dialled && link.scope == to.scope && link.reach == Some(to.reach)
        })
    }

    // --- time and restarts ---------------------------------------------------------------------------------

    /// Time passes, from one instant at which something expires to the next. There it is hidden at once; then it is
    /// collected, as a behaviour does when it is polled.
    fn pass(&mut self, duration: Duration, collect: bool) {
        let end = self.naive.now + duration.as_secs();
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
            if next < end || collect {
                assert_eq!(self.store.len(), self.naive.peers.len());
            }
        }
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
                block_on(store.shutdown()).unwrap();
                assert_eq!(store.unsaved(), 0);
                drop(swarm);
            }
            Restart::DropBehaviourThenShutdown => {
                drop(swarm);
                block_on(store.shutdown()).unwrap();
            }
            Restart::DropAll => drop(swarm),
        }
        drop(store);
        if !matches!(how, Restart::ShutdownThenDrop) {
            // Whom only a connection kept expires with it.
            self.naive.all_closed();
            self.naive.expire();
        }
        self.naive.restart();
        assert_eq!(self.datastore.len(), self.naive.keys_on_disk(), "{:#?}", self.datastore.entries());

        let entries = self.datastore.len();
        self.store = open(&self.setup, &self.datastore);
        self.swarm = Swarm::of(&self.store);
        self.events = self.store.subscribe();
        let report = self.store.load_report();
        let amiss = [report.foreign, report.undecodable, report.local, report.refused, report.left_on_disk];
        assert_eq!((report.entries, amiss), (entries, [0; 5]));
        self.adopt_what_was_not_written();
        assert_eq!(report.peers, self.naive.peers.len());
    }
}

fn open(setup: &Setup, datastore: &MemoryDatastore) -> PeerStore {
    let local = universe::peer(universe::LOCAL);
    if setup.persistent {
        block_on(PeerStore::open(local, datastore.clone(), setup.config.clone())).unwrap()
    } else {
        PeerStore::in_memory(local, setup.config.clone())
    }
}

/// Whoever comes through a relay shows no address.
fn can_be_accepted(address: &Multiaddr) -> bool {
    universe::about(address).scope != universe::Scope::Relay
}

fn dial_failed(swarm: &mut Swarm, peer: PeerId, tried: Vec<Multiaddr>, failure: Failure) {
    use std::io::ErrorKind;
    match failure {
        Failure::Refused => swarm.dial_failed(peer, tried),
        Failure::TimedOut => swarm.timed_out(peer, tried),
        Failure::Unreachable => swarm.dial_failed_by(peer, tried, || ErrorKind::HostUnreachable.into()),
        Failure::Unsupported => {
            let attempt = |address: Multiaddr| {
                let address = support::with_id(address, peer);
                (address.clone(), TransportError::MultiaddrNotSupported(address))
            };
            let attempts = tried.into_iter().map(attempt).collect();
            swarm.dial_failed_with(peer, &DialError::Transport(attempts));
        }
    }
}

/// The names that can come over the wire: each begins with a slash.
fn stream_protocols(names: &[String]) -> Vec<StreamProtocol> {
    let names = names.iter().cloned();
    names.filter_map(|name| StreamProtocol::try_from_owned(name).ok()).collect()
}

/// What a call returned, in a form that is the same for both.
#[derive(Debug, PartialEq)]
enum Said {
    Nothing,
    Changed(bool, usize),
    Single(Result<bool, Refused>),
    WasThere(bool),
}

impl Said {
    fn nothing((): ()) -> Self {
        Said::Nothing
    }
}

impl From<Changed> for Said {
    fn from(changed: Changed) -> Self {
        let (changed, refused) = did(changed);
        Said::Changed(changed, refused)
    }
}

impl From<Result<bool, Refused>> for Said {
    fn from(result: Result<bool, Refused>) -> Self {
        Said::Single(result)
    }
}

impl From<bool> for Said {
    fn from(was_there: bool) -> Self {
        Said::WasThere(was_there)
    }
}

impl From<Did> for Said {
    fn from(did: Did) -> Self {
        Said::Changed(did.changed, did.refused.len())
    }
}

impl Did {
    /// As a call for a single item says it: what was refused is an error.
    fn single(self) -> Said {
        Said::Single(match self.refused.first() {
            Some(reason) => Err(*reason),
            None => Ok(self.changed),
        })
    }
}
