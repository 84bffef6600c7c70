//! This store and `libp2p-peer-store` side by side, each with 1,000 and with 100,000 peers.
//!
//! What each side does in each measurement, and what it does not do, is said in `docs/benchmarks.md`.

// Also for the other measurements, so that each uses only a part of it.
#[allow(dead_code)]
mod peers;

use std::{
    cell::{Cell, LazyCell, RefCell},
    hint::black_box,
    num::NonZeroUsize,
    ops::ControlFlow,
    sync::LazyLock,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use criterion::{
    BatchSize, Bencher, BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group,
    criterion_main, measurement::WallTime,
};
use libp2p::{
    Multiaddr, PeerId, identify,
    swarm::{FromSwarm, NewExternalAddrOfPeer},
};
use libp2p_peer_store::{
    Store,
    memory_store::{self, MemoryStore},
};
use libp2p_peerstore::{Config, PeerStore};
use peers::{Peer, RARE_PROTOCOL};

const OURS: &str = "peerstore";
const THEIRS: &str = "libp2p-peer-store";

/// Peers that are added on top of those that are stored, before they are taken away again.
const MAX_NEWCOMERS: usize = 1_000;

/// Without `--bench`, as from `cargo test --benches`, each measurement only runs once to show that it works.
static SIZES: LazyLock<&[usize]> = LazyLock::new(|| {
    if std::env::args().any(|argument| argument == "--bench") {
        &[1_000, 100_000]
    } else {
        &[1_000]
    }
});

/// The largest store's peers, then newcomers. Making the keys takes a while, so that it is done once.
static PEERS: LazyLock<Vec<Peer>> = LazyLock::new(|| {
    let stored = SIZES.iter().max().copied().unwrap_or_default();
    let all = (stored + MAX_NEWCOMERS) as u64;
    Peer::many(0..all)
});

// --- the stores -------------------------------------------------------------------------------------------

fn ours(peers: usize, teach: impl Fn(&PeerStore, &Peer)) -> PeerStore {
    let config = Config::default().with_max_peers(capacity(peers));
    let store = PeerStore::in_memory(PeerId::random(), config);
    PEERS[..peers].iter().for_each(|peer| teach(&store, peer));
    assert_eq!(store.len(), peers);
    store
}

/// This store with addresses only: as much as the other can hold.
fn ours_addresses(peers: usize) -> PeerStore {
    ours(peers, |store, peer| {
        store.addresses().add(peer.id, peer.addresses());
    })
}

/// This store with all that identify tells.
fn ours_identified(peers: usize) -> PeerStore {
    ours(peers, |store, peer| {
        store.learn(&peer.identify(peer.is_one_in(100)))
    })
}

fn theirs(peers: usize) -> MemoryStore {
    let config = memory_store::Config::default().set_peer_capacity(capacity(peers));
    let mut store = MemoryStore::new(config);
    for peer in &PEERS[..peers] {
        for address in peer.addresses() {
            store.add_address(&peer.id, &address);
        }
        take_events(&mut store);
    }
    assert_eq!(store.record_iter().count(), peers);
    store
}

fn capacity(peers: usize) -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(peers + MAX_NEWCOMERS)
}

/// What the swarm does after each change: the queue has no bound, and would be measured instead of the store.
fn take_events(store: &mut MemoryStore) {
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(event) = store.poll(&mut context) {
        black_box(event);
    }
}

/// Something of each peer of a store, over and over, in an order that has nothing to do with that of their coming.
fn in_turn<T: Clone>(peers: usize, what: fn(&'static Peer) -> T) -> impl Iterator<Item = T> {
    let mut all: Vec<T> = PEERS[..peers].iter().map(what).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut all);
    all.into_iter().cycle()
}

fn group<'a>(
    criterion: &'a mut Criterion,
    name: &str,
    peers: usize,
) -> BenchmarkGroup<'a, WallTime> {
    criterion.benchmark_group(format!("{name}/{peers}"))
}

// --- add a new peer ---------------------------------------------------------------------------------------

/// What is told of a peer.
type Told = (PeerId, Vec<Multiaddr>);

/// Who came last to a store of `peers` peers: newcomers follow in the order of `PEERS`, and begin anew after its
/// end. The oldest go, so that neither the records nor their memory are those that were touched last.
struct Churn {
    peers: usize,
    next: Cell<usize>,
}

impl Churn {
    fn new(peers: usize) -> Self {
        let next = Cell::new(peers);
        Self { peers, next }
    }

    fn peers(&self, from: usize, count: usize) -> impl Iterator<Item = &'static Peer> {
        (from..from + count).map(|at| &PEERS[at % PEERS.len()])
    }

    /// Times `add` for newcomers, a batch at a time; `forget` takes as many away, off the clock.
    fn time(
        &self,
        bencher: &mut Bencher<'_>,
        mut add: impl FnMut(Told),
        mut forget: impl FnMut(&Peer),
    ) {
        let batch = (self.peers / 10).min(MAX_NEWCOMERS);
        bencher.iter_custom(|times| {
            let mut total = Duration::ZERO;
            let mut left = usize::try_from(times).unwrap_or(usize::MAX);
            while left > 0 {
                let (next, count) = (self.next.get(), batch.min(left));
                let newcomers = self.peers(next, count);
                let told: Vec<Told> = newcomers.map(|p| (p.id, p.addresses())).collect();
                let start = Instant::now();
                told.into_iter().for_each(&mut add);
                total += start.elapsed();
                self.peers(next - self.peers, count).for_each(&mut forget);
                self.next.set(next + count);
                left -= count;
            }
            total
        });
    }
}

fn add_new_peer(criterion: &mut Criterion) {
    for &peers in *SIZES {
        // Built off the clock, by the first measurement that is not filtered out.
        let store = LazyCell::new(|| ours_addresses(peers));
        let other = LazyCell::new(|| RefCell::new(theirs(peers)));
        let (churn, other_churn) = (Churn::new(peers), Churn::new(peers));
        let mut group = group(criterion, "add_new_peer", peers);
        let add = |(peer, addresses): Told| {
            black_box(store.addresses().add(peer, addresses));
        };
        let forget = |peer: &Peer| assert!(store.delete(&peer.id));

        group.bench_function(OURS, |b| {
            LazyCell::force(&store);
            churn.time(b, add, forget);
        });
        group.bench_function("peerstore-with-events", |b| {
            LazyCell::force(&store);
            let events = RefCell::new(store.subscribe());
            let take_events = || {
                while let Some(event) = events.borrow_mut().try_next() {
                    black_box(event);
                }
            };
            let add = |newcomer| {
                add(newcomer);
                take_events();
            };
            let forget = |peer: &Peer| {
                forget(peer);
                take_events();
            };
            churn.time(b, add, forget);
        });
        group.bench_function(THEIRS, |b| {
            LazyCell::force(&other);
            let add = |(peer, addresses): Told| {
                let mut other = other.borrow_mut();
                for address in addresses {
                    black_box(other.add_address(&peer, &address));
                }
                take_events(&mut other);
            };
            let forget = |peer: &Peer| {
                let mut other = other.borrow_mut();
                for address in peer.addresses() {
                    assert!(other.remove_address(&peer.id, &address));
                }
                take_events(&mut other);
            };
            other_churn.time(b, add, forget);
        });
        group.finish();
    }
}

// --- read addresses ---------------------------------------------------------------------------------------

fn read_addresses(criterion: &mut Criterion) {
    for &peers in *SIZES {
        let store = LazyCell::new(|| ours_addresses(peers));
        let other = LazyCell::new(|| theirs(peers));
        let mut group = group(criterion, "read_addresses", peers);

        let mut ids = in_turn(peers, |peer| peer.id);
        group.bench_function(OURS, |b| {
            LazyCell::force(&store);
            b.iter(|| store.addresses().get(&ids.next()?));
        });
        group.bench_function(THEIRS, |b| {
            LazyCell::force(&other);
            b.iter(|| -> Option<Vec<Multiaddr>> {
                let id = ids.next()?;
                let addresses = other.addresses_of_peer(&id)?;
                Some(addresses.cloned().collect())
            });
        });
        group.bench_function("libp2p-peer-store-borrowed", |b| {
            LazyCell::force(&other);
            b.iter(|| {
                let id = ids.next()?;
                for address in other.addresses_of_peer(&id)? {
                    black_box(address);
                }
                Some(())
            });
        });
        group.finish();
    }
}

// --- repeat an identify that changes nothing --------------------------------------------------------------

fn repeat_identify(criterion: &mut Criterion) {
    // Few reports at a time: in a node each one comes fresh from the wire.
    const BATCH: BatchSize = BatchSize::NumIterations(64);

    for &peers in *SIZES {
        let store = LazyCell::new(|| ours_identified(peers));
        let other = LazyCell::new(|| RefCell::new(theirs(peers)));
        let mut group = group(criterion, "repeat_identify", peers);

        let mut told = in_turn(peers, |peer| peer);
        group.bench_function(OURS, |b| {
            LazyCell::force(&store);
            let learn =
                |report: Option<identify::Event>| report.inspect(|report| store.learn(report));
            b.iter_batched(
                || told.next().map(|peer| peer.identify(peer.is_one_in(100))),
                learn,
                BATCH,
            );
        });
        group.bench_function(THEIRS, |b| {
            LazyCell::force(&other);
            let hear = |report: Option<Told>| {
                let mut other = other.borrow_mut();
                report.inspect(|&(peer_id, ref addresses)| {
                    for addr in addresses {
                        let event = NewExternalAddrOfPeer { peer_id, addr };
                        other.on_swarm_event(&FromSwarm::NewExternalAddrOfPeer(event));
                    }
                })
            };
            let mut next = || told.next().map(|peer| (peer.id, peer.addresses()));
            b.iter_batched(&mut next, hear, BATCH);
        });
        group.finish();
    }
}

// --- list peers -------------------------------------------------------------------------------------------

fn list_peers(criterion: &mut Criterion) {
    for &peers in *SIZES {
        let store = LazyCell::new(|| ours_addresses(peers));
        let identified = LazyCell::new(|| ours_identified(peers));
        let other = LazyCell::new(|| theirs(peers));

        let mut ids = walks(criterion, "list_ids", peers);
        ids.bench_function(OURS, |b| {
            LazyCell::force(&store);
            b.iter(|| store.peer_ids());
        });
        ids.bench_function(THEIRS, |b| {
            LazyCell::force(&other);
            b.iter(|| -> Vec<PeerId> { other.record_iter().map(|(id, _)| *id).collect() });
        });
        ids.finish();

        let mut visit = walks(criterion, "visit_addresses", peers);
        visit.bench_function(OURS, |b| {
            LazyCell::force(&store);
            b.iter(|| visit_addresses(&store));
        });
        visit.bench_function("peerstore-identified", |b| {
            LazyCell::force(&identified);
            b.iter(|| visit_addresses(&identified));
        });
        visit.bench_function(THEIRS, |b| {
            LazyCell::force(&other);
            b.iter(|| {
                for (_, record) in other.record_iter() {
                    for address in record.addresses() {
                        black_box(address);
                    }
                }
            });
        });
        visit.finish();

        let mut supporting = walks(criterion, "peers_supporting", peers);
        supporting.bench_function(OURS, |b| {
            LazyCell::force(&identified);
            b.iter(|| {
                let found = identified.peers_supporting(RARE_PROTOCOL);
                assert_eq!(found.len(), peers / 100);
                found
            });
        });
        supporting.finish();
    }
}

/// A group whose figures count for all peers of the store together.
fn walks<'a>(
    criterion: &'a mut Criterion,
    name: &str,
    peers: usize,
) -> BenchmarkGroup<'a, WallTime> {
    let mut group = group(criterion, name, peers);
    group
        .sampling_mode(SamplingMode::Flat)
        .throughput(Throughput::Elements(peers as u64));
    group
}

fn visit_addresses(store: &PeerStore) {
    store.for_each(|peer| {
        for address in peer.multiaddrs() {
            black_box(address);
        }
        ControlFlow::<()>::Continue(())
    });
}

criterion_group! {
    name = store;
    // Short, as there are many: the whole run is to fit into a few minutes on a small machine.
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
        .nresamples(10_000)
        .without_plots();
    targets = add_new_peer, read_addresses, repeat_identify, list_peers
}
criterion_main!(store);
