//! Eight threads of random operations, while a behaviour polls and commits fail at random.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    task::{Context, Waker},
    thread,
    time::Duration,
};

use futures::{StreamExt, executor::block_on};
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_peerstore::{
    Config, Event, ManualClock, MemoryDatastore, Peer, PeerStore, Source,
    testing::{Fault, FaultyDatastore},
};
use libp2p_swarm::NetworkBehaviour;

use crate::support::*;

const THREADS: usize = 8;
/// Peers that one thread alone changes.
const OWN: usize = 12;
/// Peers that all of them change.
const SHARED: usize = 6;
const NAMES: [&str; 3] = ["/a", "/b", "/c"];

fn faulty(seed: u64) -> (FaultyDatastore, MemoryDatastore) {
    let memory = MemoryDatastore::default();
    let faulty = FaultyDatastore::new(memory.clone());
    faulty.fail_commits_at_random(seed, 0.3, FAULTS);
    (faulty, memory)
}

const FAULTS: [Fault; 3] = [Fault::Fail, Fault::FailAfterApplying, Fault::Panic];

/// Commits as often as it can.
fn eager(clock: &ManualClock) -> Config {
    Config::default()
        .with_clock(clock.clone())
        .with_commit_threshold(size(1))
        .with_min_commit_interval(Duration::ZERO)
}

fn open(datastore: impl libp2p_peerstore::Datastore, config: Config) -> PeerStore {
    block_on(PeerStore::open(peer(LOCAL), datastore, config)).unwrap()
}

/// What one thread, or the disk, knows of a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Known {
    addresses: BTreeSet<Multiaddr>,
    protocols: BTreeSet<String>,
    metadata: BTreeMap<String, Vec<u8>>,
    tags: BTreeSet<String>,
}

impl Known {
    fn of(peer: &Peer) -> Self {
        Self {
            addresses: peer.multiaddrs().cloned().collect(),
            protocols: peer.protocols.iter().map(ToString::to_string).collect(),
            metadata: peer.metadata.clone(),
            tags: peer.tags.keys().cloned().collect(),
        }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Something about a shared peer that is there or not.
fn put_or_take(store: &PeerStore, rng: &mut fastrand::Rng, shared: &[PeerId], balance: &Balance) {
    let (at, name) = (rng.usize(..SHARED), rng.usize(..NAMES.len()));
    let (peer, text) = (shared[at], NAMES[name]);
    let (is_put, changed, book) = match rng.u8(..6) {
        0 => (true, store.protocols().add(peer, [text]).changed, 0),
        1 => (false, store.protocols().remove(peer, [text]).changed, 0),
        2 => (true, store.tags().set(peer, text, 1, None).unwrap(), 1),
        3 => (false, store.tags().remove(&peer, text), 1),
        4 => (true, store.metadata().set(peer, text, "x").unwrap(), 2),
        _ => (false, store.metadata().delete_value(&peer, text), 2),
    };
    if changed {
        let by = if is_put { 1 } else { -1 };
        balance[at][name][book].fetch_add(by, Ordering::Relaxed);
    }
}

type Balance = [[[AtomicI64; 3]; NAMES.len()]; SHARED];

/// One operation on a peer of this thread's own, and what it makes of it.
fn change_own(store: &PeerStore, rng: &mut fastrand::Rng, peer: PeerId, known: &mut Known) {
    let address = at(rng.u16(1..9));
    let (name, value) = (rng.choice(NAMES).unwrap(), vec![rng.u8(..)]);
    let changed = match rng.u8(..12) {
        0..3 => {
            let changed = known.addresses.insert(address.clone());
            (store.addresses().add(peer, [address]).changed, changed)
        }
        3 => {
            let changed = known.addresses.remove(&address);
            (store.addresses().remove(peer, [address]).changed, changed)
        }
        4 => {
            let told = ports([1, 2, rng.u16(3..9)]);
            let new: BTreeSet<_> = told.iter().cloned().collect();
            let changed = known.addresses != new;
            known.addresses = new;
            (store.addresses().set(peer, told).changed, changed)
        }
        5 | 6 => {
            let changed = known.protocols.insert(name.to_owned());
            (store.protocols().add(peer, [name]).changed, changed)
        }
        7 => {
            let changed = known.protocols.remove(name);
            (store.protocols().remove(peer, [name]).changed, changed)
        }
        8 | 9 => {
            let old = known.metadata.insert(name.to_owned(), value.clone());
            let changed = old.as_ref() != Some(&value);
            (store.metadata().set(peer, name, value).unwrap(), changed)
        }
        10 => {
            let changed = known.tags.insert(name.to_owned());
            (store.tags().set(peer, name, 1, None).unwrap(), changed)
        }
        _ => {
            let was_known = store.contains(&peer);
            assert!(was_known || known.is_empty());
            *known = Known::default();
            (store.delete(&peer), was_known)
        }
    };
    assert_eq!(changed.0, changed.1, "what a call says is what it did");
}

/// What holds at every moment at which nobody writes.
fn assert_consistent(store: &PeerStore) {
    let peers = store.peers();
    let ids: BTreeSet<PeerId> = peers.iter().map(|peer| peer.id).collect();
    assert_eq!(ids.len(), peers.len(), "nobody is there twice");
    assert_eq!(store.len(), peers.len());
    assert_eq!(ids, store.peer_ids().into_iter().collect());
    let connected: BTreeSet<PeerId> = store.connected_peers().into_iter().collect();
    for peer in &peers {
        assert!(store.contains(&peer.id));
        assert_eq!(peer.connected, connected.contains(&peer.id));
        assert_eq!(Known::of(&store.get(&peer.id).unwrap()), Known::of(peer));
        let alone = store.addresses().get(&peer.id).unwrap_or_default();
        assert_eq!(
            alone.into_iter().collect::<BTreeSet<_>>(),
            Known::of(peer).addresses
        );
    }
    // The lists of who speaks what agree with the records.
    for name in NAMES {
        let speakers: BTreeSet<PeerId> = store.peers_supporting(name).into_iter().collect();
        let speaking = peers.iter().filter(|peer| peer.supports(name));
        assert_eq!(speakers, speaking.map(|peer| peer.id).collect());
    }
}

/// Flushes until the datastore takes it, and reads what is there.
fn saved(store: &PeerStore, faulty: &FaultyDatastore, memory: &MemoryDatastore) -> Vec<Peer> {
    faulty.recover();
    while block_on(store.flush()).is_err() {}
    assert_eq!(store.unsaved(), 0);
    let entries = memory.entries();
    let copy = MemoryDatastore::default();
    for (key, value) in entries {
        block_on(libp2p_peerstore::Datastore::put(&copy, &key, value)).unwrap();
    }
    let again = open(copy, eager(&ManualClock::default()));
    let report = again.load_report();
    assert_eq!((report.undecodable, report.foreign), (0, 0), "{report:?}");
    again.peers()
}

fn compared<'a>(peers: impl IntoIterator<Item = &'a Peer>) -> BTreeMap<PeerId, Known> {
    let known = peers.into_iter().map(|peer| (peer.id, Known::of(peer)));
    known.filter(|(_, known)| !known.is_empty()).collect()
}

#[track_caller]
fn assert_same(on_disk: &BTreeMap<PeerId, Known>, known: &BTreeMap<PeerId, Known>) {
    for peer in on_disk.keys().chain(known.keys()) {
        assert_eq!(
            on_disk.get(peer),
            known.get(peer),
            "on disk and in memory: {peer}"
        );
    }
}

/// A behaviour that is polled and fed until the rest is done.
fn drive(store: &PeerStore, seed: u64, peers: &[PeerId], done: &AtomicBool) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut swarm = Swarm::of(store);
    while !done.load(Ordering::Relaxed) {
        let peer = *rng.choice(peers).unwrap();
        let address = at(rng.u16(1..9));
        match rng.u8(..6) {
            0 => swarm.dialled(peer, address),
            1 => swarm.closed(peer),
            2 => swarm.dial_failed(peer, [address]),
            3 => swarm.found(peer, &address),
            4 => _ = swarm.offers(peer),
            _ => {
                let told = ports([1, rng.u16(1..9)]);
                store.learned(Source::Identify).replace(peer, &told);
            }
        }
        let cx = &mut Context::from_waker(Waker::noop());
        for _ in 0..rng.u8(..8) {
            if swarm.behaviour.poll(cx).is_pending() {
                break;
            }
        }
    }
}

#[test]
fn what_eight_threads_do_equals_a_sequential_history_in_memory_and_on_disk() {
    let clock = ManualClock::default();
    let (faulty, memory) = faulty(1);
    let store = open(faulty.clone(), eager(&clock));
    let shared: Vec<PeerId> = (0..SHARED).map(|_| PeerId::random()).collect();
    let in_swarm: Vec<PeerId> = (0..4).map(|_| PeerId::random()).collect();
    let own: Vec<Vec<PeerId>> = (0..THREADS)
        .map(|_| (0..OWN).map(|_| PeerId::random()).collect())
        .collect();
    // They are there all the time, among those who come and go.
    let stays: Vec<PeerId> = (0..70).map(|_| PeerId::random()).collect();
    for peer in &stays {
        store.addresses().add(*peer, ports([1]));
    }
    let balance = Balance::default();
    let mut models = vec![vec![Known::default(); OWN]; THREADS];
    for round in 0..6 {
        faulty.fail_commits_at_random(round, 0.3, FAULTS);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let swarm = scope.spawn(|| drive(&store, round, &in_swarm, &done));
            let (balance, shared, store, clock) = (&balance, &shared, &store, &clock);
            let stays = &stays;
            let threads = models.iter_mut().zip(&own).enumerate();
            let threads: Vec<_> = threads
                .map(|(n, (model, own))| {
                    scope.spawn(move || {
                        let mut rng = fastrand::Rng::with_seed(round * 100 + n as u64);
                        for step in 0..600 {
                            let at = rng.usize(..OWN);
                            change_own(store, &mut rng, own[at], &mut model[at]);
                            put_or_take(store, &mut rng, shared, balance);
                            if step % 50 == 0 {
                                // Whoever looks while others write sees who stays, and once, and its own.
                                let ids = store.peer_ids();
                                for peer in stays {
                                    assert_eq!(ids.iter().filter(|id| *id == peer).count(), 1);
                                }
                                let mine = store.get(&own[at]).as_ref().map(Known::of);
                                assert_eq!(mine.unwrap_or_default(), model[at]);
                                clock.advance(Duration::from_millis(10));
                            }
                        }
                    })
                })
                .collect();
            let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            done.store(true, Ordering::Relaxed);
            ended.into_iter().for_each(|ended| ended.unwrap());
            swarm.join().unwrap();
        });

        assert_consistent(&store);
        let peers = store.peers();
        let known = compared(&peers);
        for (peer, model) in own.iter().flatten().zip(models.iter().flatten()) {
            assert_eq!(known.get(peer).cloned().unwrap_or_default(), *model);
        }
        for (at, peer) in shared.iter().enumerate() {
            let known = known.get(peer).cloned().unwrap_or_default();
            for (name, text) in NAMES.iter().enumerate() {
                let here = [
                    known.protocols.contains(*text),
                    known.tags.contains(*text),
                    known.metadata.contains_key(*text),
                ];
                let puts = balance[at][name]
                    .each_ref()
                    .map(|n| n.load(Ordering::Relaxed));
                assert_eq!(puts, here.map(i64::from), "round {round}: {text}");
            }
        }
        assert_same(&compared(&saved(&store, &faulty, &memory)), &known);
    }
    block_on(store.shutdown()).unwrap();
}

/// A store that is much too small: eviction, claims, shares and expiry at every step.
#[test]
fn a_crowded_store_keeps_its_bounds_and_its_tables_agree() {
    const CAPACITY: usize = 100;
    let clock = ManualClock::default();
    let (faulty, memory) = faulty(2);
    let config = eager(&clock).with_max_peers(size(CAPACITY));
    let store = open(faulty.clone(), config);
    // Fewer than twice as many as there is room for: when a datastore fails for long, the removal of more than these is
    // not remembered.
    let pool: Vec<PeerId> = (0..190).map(|_| PeerId::random()).collect();
    let tell = |n: u32| -> Multiaddr {
        let ip = std::net::Ipv4Addr::from(0x1400_0001 + ((n % 90) << 16) + n % 3);
        format!("/ip4/{ip}/tcp/{}", n % 5 + 1).parse().unwrap()
    };
    for round in 0..6 {
        faulty.fail_commits_at_random(round, 0.3, FAULTS);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let swarm = scope.spawn(|| drive(&store, round, &pool[..20], &done));
            let threads: Vec<_> = (0..THREADS as u64)
                .map(|n| {
                    let (store, pool, clock) = (&store, &pool, &clock);
                    scope.spawn(move || {
                        let mut rng = fastrand::Rng::with_seed(round * 100 + n);
                        for _ in 0..600 {
                            let peer = *rng.choice(pool).unwrap();
                            let told = [tell(rng.u32(..)), tell(rng.u32(..))];
                            match rng.u8(..10) {
                                0..4 => _ = gossip(store, peer, &told),
                                4 | 5 => _ = identify(store, peer, &told),
                                6 => _ = store.protocols().add(peer, [rng.choice(NAMES).unwrap()]),
                                7 => _ = store.delete(&peer),
                                8 => _ = store.delete_for(&peer, Duration::from_secs(1)),
                                _ => clock.advance(Duration::from_secs(rng.u64(..120))),
                            }
                            assert!(store.len() <= CAPACITY);
                        }
                    })
                })
                .collect();
            let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            done.store(true, Ordering::Relaxed);
            ended.into_iter().for_each(|ended| ended.unwrap());
            swarm.join().unwrap();
        });
        assert_consistent(&store);
        assert!(store.len() <= CAPACITY);
        let known = compared(&store.peers());
        assert_same(&compared(&saved(&store, &faulty, &memory)), &known);
    }

    // The claims are those of the records: as many more are taken at an address as the limit leaves.
    clock.advance(Duration::from_secs(2));
    store
        .peer_ids()
        .iter()
        .for_each(|peer| _ = store.delete(peer));
    assert_consistent(&store);
    for n in 0..90 {
        let before = store.len();
        for _ in 0..12 {
            gossip(&store, PeerId::random(), &[tell(n)]);
        }
        assert_eq!(store.len() - before, 8, "claims left over at {}", tell(n));
        store
            .peer_ids()
            .iter()
            .for_each(|peer| _ = store.delete(peer));
    }
    // So is the schedule: what nobody holds expires, all of it, and leaves nothing on disk.
    for peer in &pool {
        gossip(&store, *peer, &[tell(fastrand::u32(..))]);
    }
    clock.advance(Duration::from_secs(400 * 24 * 60 * 60));
    assert_eq!(store.len(), 0);
    assert_consistent(&store);
    assert!(saved(&store, &faulty, &memory).is_empty());
    assert_eq!(memory.entries(), []);
}

#[test]
fn no_wake_is_lost_between_writers_and_a_reader() {
    let store = store_with(|config| config.with_event_capacity(size(100_000)));
    let mut events = store.subscribe();
    let reader = thread::spawn(move || {
        block_on(async {
            let mut added = BTreeSet::new();
            while added.len() < THREADS * 1_000 {
                match events.next().await {
                    Some(Event::PeerAdded { peer }) => assert!(added.insert(peer)),
                    Some(Event::Lagged(missed)) => panic!("{missed} events were lost"),
                    Some(_) => {}
                    None => panic!("the events ended"),
                }
            }
        });
    });
    let writers = store.clone();
    finishes(move || {
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        writers.addresses().add(PeerId::random(), ports([1]));
                    }
                });
            }
        });
        reader.join().unwrap();
    });
}
