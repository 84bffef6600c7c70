//! A datastore that hangs, is slow, errs at random, never ends, or answers with what nobody asked for, under a node that
//! is busy: the swarm keeps its pace, memory stays bounded, and `flush` and `shutdown` end and say what is unsaved.
//!
//! What wrong answers do to the contents of a store is in `bad_datastore.rs`.

#![allow(clippy::unwrap_used)]

#[path = "support/datastore.rs"]
mod support;
#[path = "support/swarm.rs"]
mod swarm;

use std::{
    alloc::System,
    sync::{
        Arc, Condvar, Mutex as StdMutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{
    FutureExt, StreamExt,
    executor::block_on,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use libp2p::{PeerId, identify, identity::Keypair};
use libp2p_peerstore::{
    Batch, Config, Datastore, DatastoreError, FlushError, KeyValue, MemoryDatastore, Observed,
    OpenError, PeerStore, Source,
};
use parking_lot::{Mutex, MutexGuard};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use support::{addr, addrs_key, keys_of, metadata_key, protos_key};
use swarm::{Kad, Node, Setup, StoreFirst, connect, plain, until};

type Busy = Node<StoreFirst<Observed<identify::Behaviour>, Observed<Kad>>>;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The allocations of all threads are counted, so that one test runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock()
}

/// Bytes that are allocated now.
fn memory() -> usize {
    let stats = ALLOCATOR.stats();
    stats
        .bytes_allocated
        .saturating_sub(stats.bytes_deallocated)
}

const MEBIBYTE: usize = 1024 * 1024;

// --- the datastore -----------------------------------------------------------------------------------------

/// What is done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Well,
    /// Never answers.
    Hangs,
    /// Never answers, and blocks the thread meanwhile.
    Blocks,
    /// Blocks the thread for a while, and works.
    IsSlow,
    /// Every other commit fails, by chance.
    Errs,
}

#[derive(Clone)]
struct Misbehaving {
    memory: MemoryDatastore,
    commits: Manner,
    closes: Manner,
    random: Arc<Mutex<fastrand::Rng>>,
    /// Lets go of what blocks.
    released: Arc<(StdMutex<bool>, Condvar)>,
    started: Arc<AtomicUsize>,
}

impl Misbehaving {
    fn new(commits: Manner, closes: Manner) -> Self {
        Self {
            memory: MemoryDatastore::default(),
            commits,
            closes,
            random: Arc::new(Mutex::new(fastrand::Rng::with_seed(1))),
            released: Arc::default(),
            started: Arc::default(),
        }
    }

    fn release(&self) {
        *self.released.0.lock().unwrap() = true;
        self.released.1.notify_all();
    }

    async fn behave(&self, manner: Manner) -> Result<(), DatastoreError> {
        match manner {
            Manner::Well => {}
            Manner::Hangs => futures::future::pending().await,
            Manner::Blocks => {
                let (released, told) = &*self.released;
                drop(
                    told.wait_while(released.lock().unwrap(), |released| !*released)
                        .unwrap(),
                );
            }
            Manner::IsSlow => std::thread::sleep(Duration::from_millis(300)),
            Manner::Errs if self.random.lock().bool() => {
                return Err(DatastoreError::failed("commit", "misbehaving", "by chance"));
            }
            Manner::Errs => {}
        }
        Ok(())
    }
}

impl Datastore for Misbehaving {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        self.memory.get(key)
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        self.memory.query(prefix)
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        async move {
            self.started.fetch_add(1, Ordering::SeqCst);
            self.behave(self.commits).await?;
            self.memory.commit(batch).await
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DatastoreError>> {
        self.behave(self.closes).boxed()
    }
}

// --- the swarm ---------------------------------------------------------------------------------------------

const PEERS: usize = 6;

/// A node with a store meets peers, which identify themselves and push; returns how long that took.
async fn busy(datastore: Misbehaving) -> (Busy, Duration) {
    let config = Config::default()
        .with_commit_threshold(1.try_into().unwrap())
        .with_min_commit_interval(Duration::ZERO)
        .with_flush_deadline(Duration::from_millis(200))
        .with_drop_deadline(Duration::from_millis(100));
    let key = Keypair::generate_ed25519();
    let store = PeerStore::open(key.public().to_peer_id(), datastore, config);
    let store = store.await.unwrap();
    let mut node: Busy = Setup::with_store(key, store).observing();
    let start = Instant::now();
    for _ in 0..PEERS {
        let mut peer = plain();
        let address = peer.listen().await;
        connect(&mut node, &mut peer, &address).await;
        let id = peer.id;
        until((&mut node, &mut peer), |(node, _)| node.identified(id) > 0).await;
        let listening = peer.listen().await;
        peer.swarm.behaviour_mut().identify.push([node.id]);
        until((&mut node, &mut peer), |(node, _)| {
            node.addresses(id).contains(&listening)
        })
        .await;
    }
    (node, start.elapsed())
}

#[test]
fn the_swarm_keeps_its_pace_whatever_the_datastore_does() {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(compare_paces());
}

async fn compare_paces() {
    let (node, usual) = busy(Misbehaving::new(Manner::Well, Manner::Well)).await;
    node.store.shutdown().await.unwrap();
    for manner in [Manner::Hangs, Manner::Blocks, Manner::IsSlow, Manner::Errs] {
        let datastore = Misbehaving::new(manner, Manner::Well);
        let (node, took) = busy(datastore.clone()).await;
        assert!(datastore.started.load(Ordering::SeqCst) > 0);
        // Nothing that it did waited for the datastore: a wait for one of these would not end, or take 300 ms each.
        assert!(
            took < 4 * usual + Duration::from_secs(3),
            "{manner:?}: {took:?}, not {usual:?}"
        );
        assert_eq!(node.store.len(), PEERS);
        if matches!(manner, Manner::Hangs | Manner::Blocks) {
            match node.store.flush().await.unwrap_err() {
                FlushError::Deadline { unsaved, .. } => assert_eq!(unsaved, PEERS),
                other => panic!("{other}"),
            }
            let late = node.store.shutdown().await.unwrap_err().to_string();
            assert!(
                late.starts_with(&format!("{PEERS} peers were not saved within")),
                "{late}"
            );
        }
        datastore.release();
    }
}

// --- deadlines ---------------------------------------------------------------------------------------------

#[test]
fn flush_and_shutdown_end_and_say_how_many_peers_are_unsaved_wherever_it_hangs() {
    let _alone = alone();
    let config = || {
        Config::default()
            .with_flush_deadline(Duration::from_millis(100))
            .with_drop_deadline(Duration::from_millis(100))
            .with_commit_threshold(usize::MAX.try_into().unwrap())
    };
    for manner in [Manner::Hangs, Manner::Blocks] {
        for (commits, closes) in [(manner, Manner::Well), (Manner::Well, manner)] {
            let datastore = Misbehaving::new(commits, closes);
            let open = PeerStore::open(PeerId::random(), datastore.clone(), config());
            let store = block_on(open).unwrap();
            (0..7).for_each(|_| _ = store.addresses().add(PeerId::random(), [addr(1)]));
            let start = Instant::now();
            let flushed = block_on(store.flush());
            let shut_down = block_on(store.shutdown());
            let expected = if closes == Manner::Well { 7 } else { 0 };
            if expected > 0 {
                let late = flushed.unwrap_err();
                assert!(
                    matches!(late, FlushError::Deadline { unsaved: 7, .. }),
                    "{late}"
                );
            }
            match shut_down.unwrap_err() {
                FlushError::Deadline { unsaved, .. } => assert_eq!(unsaved, expected),
                other => panic!("{other}"),
            }
            drop(store);
            let took = start.elapsed();
            assert!(took < Duration::from_secs(20), "{took:?}");
            datastore.release();
        }
    }
}

// --- memory ------------------------------------------------------------------------------------------------

/// Strangers without end are told of while nothing can be saved.
#[test]
fn memory_stays_bounded_while_a_datastore_hangs_or_errs_and_gossip_goes_on() {
    let _alone = alone();
    for manner in [Manner::Hangs, Manner::Errs] {
        let datastore = Misbehaving::new(manner, Manner::Well);
        let config = Config::default()
            .with_max_peers(300.try_into().unwrap())
            .with_min_commit_interval(Duration::ZERO)
            .with_flush_deadline(Duration::from_millis(100))
            .with_drop_deadline(Duration::from_millis(100));
        let open = PeerStore::open(PeerId::random(), datastore.clone(), config);
        let store = block_on(open).unwrap();
        // Nobody reads it.
        let _events = store.subscribe();
        let gossip = |peers: usize| {
            for n in 0..peers {
                let peer = PeerId::random();
                let at = format!("/ip4/11.{}.{}.1/tcp/1", n % 250, n / 250 % 250);
                store
                    .learned(Source::Kademlia)
                    .add(peer, &[at.parse().unwrap()]);
                store.metadata().set(peer, "note", [0; 100]).ok();
            }
        };
        gossip(10_000);
        let warm = memory();
        gossip(20_000);
        let grown = memory().saturating_sub(warm);
        assert!(grown < 2 * MEBIBYTE, "{manner:?}: {grown} bytes more");
        // Every peer in memory, as many again that are gone, and those in the commit that hangs.
        assert!(store.unsaved() <= 900, "{}", store.unsaved());
        assert!(store.len() <= 300);
        if manner == Manner::Hangs {
            assert!(block_on(store.shutdown()).is_err());
        }
    }
}

/// Makes an entry from the prefix of a query, and from how many came before it.
type Make = dyn Fn(&str, usize) -> Option<KeyValue> + Send + Sync;

/// A datastore whose queries yield what a closure makes, for as long as it makes something.
#[derive(Clone)]
struct Yielding {
    memory: MemoryDatastore,
    make: Arc<Make>,
    /// The most memory that was ever in use when an entry was asked for.
    most: Arc<AtomicUsize>,
    yielded: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
}

impl Yielding {
    fn new(make: impl Fn(&str, usize) -> Option<KeyValue> + Send + Sync + 'static) -> Self {
        Self {
            memory: MemoryDatastore::default(),
            make: Arc::new(make),
            most: Arc::default(),
            yielded: Arc::default(),
            closed: Arc::default(),
        }
    }
}

impl Datastore for Yielding {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        self.memory.get(key)
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        let entries = (0..).map_while(move |n| {
            self.most.fetch_max(memory(), Ordering::SeqCst);
            self.yielded.fetch_add(1, Ordering::SeqCst);
            (self.make)(prefix, n).map(Ok)
        });
        stream::iter(entries).boxed()
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        self.memory.commit(batch)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DatastoreError>> {
        self.closed.fetch_add(1, Ordering::SeqCst);
        async { Ok(()) }.boxed()
    }
}

#[test]
fn values_and_keys_of_a_hundred_megabytes_are_held_one_at_a_time() {
    let _alone = alone();
    const HUGE: usize = 100 * MEBIBYTE;
    let peer = PeerId::random();
    let datastore = Yielding::new(move |_, n| {
        let value = |len| vec![0x0a; len];
        Some(match n {
            0..3 => (addrs_key(&PeerId::random()), value(HUGE)),
            3..6 => (protos_key(&PeerId::random()), value(HUGE)),
            6..9 => (metadata_key(&PeerId::random(), "note"), value(HUGE)),
            9 => (metadata_key(&PeerId::random(), &"k".repeat(HUGE)), value(1)),
            10 => (format!("/peers/addrs/{}", "b".repeat(HUGE)), value(1)),
            11 => ("x".repeat(HUGE), value(1)),
            12 => (metadata_key(&peer, "note"), b"sound".to_vec()),
            _ => return None,
        })
    });
    let before = memory();
    let open = PeerStore::open(PeerId::random(), datastore.clone(), Config::default());
    let store = block_on(open).unwrap();
    // Less than before: what an earlier test left to its threads went meanwhile.
    let most = datastore.most.load(Ordering::SeqCst).saturating_sub(before);
    assert!(
        most < HUGE / 2,
        "between two entries {most} bytes were held"
    );
    let held = memory().saturating_sub(before);
    assert!(held < MEBIBYTE, "{held} bytes are held");
    let report = store.load_report();
    assert_eq!((report.peers, report.entries), (1, 13));
    assert_eq!(
        (report.undecodable, report.refused, report.foreign),
        (6, 4, 2)
    );
    assert_eq!(store.metadata().get_value(&peer, "note").unwrap(), b"sound");
    block_on(store.shutdown()).unwrap();
}

/// What other programs wrote beside the data is kept, but not without bound.
#[test]
fn unknown_fields_without_bound_are_not_held_in_memory() {
    let _alone = alone();
    // An unknown field of almost a mebibyte, and an address that is known.
    let value = {
        let mut field = vec![0xa2, 0x06];
        field.extend([0x80 | 0x30, 0x80 | 0x60, 0x3f]);
        field.extend(vec![7; 0x30 | 0x60 << 7 | 0x3f << 14]);
        let multiaddr = addr(1).to_vec();
        field.extend([0x0a, multiaddr.len() as u8 + 2, 0x0a, multiaddr.len() as u8]);
        field.extend(multiaddr);
        field
    };
    assert!(value.len() > MEBIBYTE - 32 * 1024 && value.len() <= MEBIBYTE);
    let datastore =
        Yielding::new(move |_, n| (n < 200).then(|| (addrs_key(&PeerId::random()), value.clone())));
    let before = memory();
    let open = PeerStore::open(PeerId::random(), datastore, Config::default());
    let store = block_on(open).unwrap();
    assert_eq!((store.len(), store.load_report().refused), (200, 200));
    let held = memory().saturating_sub(before);
    assert!(held < 2 * MEBIBYTE, "{held} bytes are held");
}

#[test]
fn an_endless_stream_at_open_takes_bounded_memory_and_ends_when_nobody_waits() {
    let _alone = alone();
    let datastore = Yielding::new(|_, n| {
        let peer = PeerId::random();
        let key = match n % 4 {
            0 => addrs_key(&peer),
            1 => metadata_key(&peer, "note"),
            2 => protos_key(&peer),
            _ => format!("/peers/foreign/{n}"),
        };
        // An address, a protocol, or what is neither.
        Some((key, vec![0x0a, 0x02, b'/', b'a']))
    });
    let config = Config::default().with_max_peers(100.try_into().unwrap());
    let yielded = |n| {
        let until = Instant::now() + Duration::from_secs(60);
        while datastore.yielded.load(Ordering::SeqCst) < n {
            assert!(Instant::now() < until, "it got no further than {n}");
            std::thread::yield_now();
        }
    };
    let mut open = PeerStore::open(PeerId::random(), datastore.clone(), config).boxed_local();
    assert!((&mut open).now_or_never().is_none());
    yielded(20_000);
    let warm = memory();
    yielded(70_000);
    let grown = memory().saturating_sub(warm);
    assert!(grown < MEBIBYTE, "{grown} bytes more");
    drop(open);
    let until = Instant::now() + Duration::from_secs(60);
    while datastore.closed.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < until, "it goes on though nobody waits");
        std::thread::yield_now();
    }
}

#[test]
fn an_endless_stream_of_metadata_does_not_keep_a_delete_for_ever() {
    let _alone = alone();
    let endless = Arc::new(AtomicUsize::new(1));
    let is_endless = endless.clone();
    let datastore = Yielding::new(move |prefix, n| {
        let deleting = prefix.starts_with("/peers/metadata/");
        (deleting && is_endless.load(Ordering::SeqCst) == 1)
            .then(|| (format!("{prefix}{n}"), Vec::new()))
    });
    let config = Config::default().with_flush_deadline(Duration::from_secs(60));
    let open = PeerStore::open(PeerId::random(), datastore.clone(), config);
    let store = block_on(open).unwrap();
    let peer = PeerId::random();
    store.addresses().add(peer, [addr(1)]);
    block_on(store.flush()).unwrap();
    let before = memory();
    store.delete(&peer);
    // Nobody else waits for that.
    let others: Vec<PeerId> = (0..50).map(|_| PeerId::random()).collect();
    for other in &others {
        store.addresses().add(*other, [addr(1)]);
    }
    match block_on(store.flush()).unwrap_err() {
        FlushError::Failed { unsaved, source } => {
            let said = source.to_string();
            assert!(unsaved == 1 && said.contains("/peers/metadata/"), "{said}");
        }
        other => panic!("{other}"),
    }
    let most = datastore.most.load(Ordering::SeqCst).saturating_sub(before);
    assert!(most < 32 * MEBIBYTE, "{most} bytes were held");
    let saved = |peer: &PeerId| keys_of(&datastore.memory).contains(&addrs_key(peer));
    assert!(others.iter().all(saved));

    endless.store(0, Ordering::SeqCst);
    block_on(store.flush()).unwrap();
    assert_eq!(keys_of(&datastore.memory).len(), others.len());
    assert!(others.iter().all(saved));
}

#[test]
fn a_datastore_that_errs_at_random_gets_everything_in_the_end() {
    let _alone = alone();
    let datastore = Misbehaving::new(Manner::Errs, Manner::Well);
    let open = PeerStore::open(PeerId::random(), datastore.clone(), Config::default());
    let store: Result<PeerStore, OpenError> = block_on(open);
    let store = store.unwrap();
    for _ in 0..200 {
        let peer = PeerId::random();
        store.addresses().add(peer, [addr(1)]);
        if let Err(error) = block_on(store.flush()) {
            assert!(
                matches!(error, FlushError::Failed { unsaved: 1.., .. }),
                "{error}"
            );
        }
    }
    while block_on(store.flush()).is_err() {}
    assert_eq!((datastore.memory.len(), store.unsaved()), (200, 0));
}
