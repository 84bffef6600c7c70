//! The store's threads, run in many orders by the model checker `shuttle`: between any two steps at a lock another one may go
//! on. A wake-up that is lost is a deadlock there, and found.
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" cargo test --no-default-features --test shuttle --target-dir target/shuttle
//! ```

#![cfg(shuttle)]
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    num::NonZeroUsize,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use libp2p_identity::PeerId;
use libp2p_peerstore::{
    Batch, Config, Datastore, DatastoreError, Event, KeyValue, ManualClock, MemoryDatastore,
    PeerStore,
};
use shuttle::{
    Runner,
    future::block_on,
    scheduler::{PctScheduler, RandomScheduler},
    thread,
};

/// Orders that are tried of each test, at random, and as many again with few but well-placed switches.
const ORDERS: usize = 2_000;

fn check(test: impl Fn() + Send + Sync + Clone + 'static) {
    let mut config = shuttle::Config::new();
    // As much as a thread has; the default is for small models.
    config.stack_size = 1024 * 1024;
    Runner::new(RandomScheduler::new(ORDERS), config.clone()).run(test.clone());
    Runner::new(PctScheduler::new(3, ORDERS), config).run(test);
}

/// Every change is due at once; the store's own thread is one of the model's.
fn eager(clock: &ManualClock) -> Config {
    Config::default()
        .with_commit_threshold(NonZeroUsize::MIN)
        .with_min_commit_interval(Duration::ZERO)
        .with_clock(clock.clone())
        .with_executor(|engine| drop(shuttle::future::spawn(engine)))
}

fn open(datastore: impl Datastore, config: Config) -> PeerStore {
    block_on(PeerStore::open(PeerId::random(), datastore, config)).unwrap()
}

/// Peers with the same ids in each run.
fn peer(n: u8) -> PeerId {
    let hash = [&[0x12, 0x20][..], &[n; 32]].concat();
    PeerId::from_bytes(&hash).unwrap()
}

fn meet(store: &PeerStore, n: u8) {
    let address = format!("/ip4/192.0.2.{n}/tcp/4001").parse().unwrap();
    store.addresses().add(peer(n), [address]);
}

#[test]
fn what_was_there_before_a_flush_is_on_disk_after_it() {
    check(|| {
        let memory = MemoryDatastore::default();
        let store = open(memory.clone(), eager(&ManualClock::default()));
        let (one, other) = (store.clone(), store.clone());
        let writers = [
            thread::spawn(move || (1..4).for_each(|n| meet(&one, n))),
            thread::spawn(move || (4..6).for_each(|n| meet(&other, n))),
        ];
        meet(&store, 6);
        block_on(store.flush()).unwrap();
        let again = open(memory.clone(), eager(&ManualClock::default()));
        assert!(again.contains(&peer(6)));
        for writer in writers {
            writer.join().unwrap();
        }
        block_on(store.shutdown()).unwrap();
        assert_eq!((memory.len(), store.unsaved()), (6, 0));
    });
}

#[test]
fn two_flushes_and_a_shutdown_at_once_all_end() {
    check(|| {
        let memory = MemoryDatastore::default();
        let store = open(memory.clone(), eager(&ManualClock::default()));
        let flushes = [1, 2].map(|n| {
            let store = store.clone();
            thread::spawn(move || {
                meet(&store, n);
                // The one that comes behind the shutdown is told so.
                block_on(store.flush()).is_ok()
            })
        });
        meet(&store, 3);
        block_on(store.shutdown()).unwrap();
        let flushed = flushes.map(|flush| usize::from(flush.join().unwrap()));
        assert!(memory.len() > flushed.iter().sum());
    });
}

#[test]
fn whoever_drops_the_last_handle_finds_everything_saved() {
    check(|| {
        let memory = MemoryDatastore::default();
        let store = open(memory.clone(), eager(&ManualClock::default()));
        let other = store.clone();
        let writer = thread::spawn(move || meet(&other, 1));
        meet(&store, 2);
        drop(store);
        writer.join().unwrap();
        assert_eq!(memory.len(), 2);
    });
}

#[test]
fn a_reader_of_events_is_woken_for_each_peer_or_told_what_it_missed() {
    check(|| {
        let config = Config::default().with_event_capacity(NonZeroUsize::MIN);
        let store = PeerStore::in_memory(PeerId::random(), config);
        let mut events = store.subscribe();
        let writers = [1, 3].map(|first| {
            let store = store.clone();
            thread::spawn(move || (first..first + 2).for_each(|n| meet(&store, n)))
        });
        let reader = thread::spawn(move || {
            let (mut seen, mut told) = (BTreeSet::new(), 0);
            while let Some(event) = block_on(events.next()) {
                match event {
                    Event::Lagged(missed) => told += missed as usize,
                    event => {
                        told += 1;
                        seen.extend(event.peer());
                    }
                }
            }
            (seen, told)
        });
        for writer in writers {
            writer.join().unwrap();
        }
        // The end of the store is the end of its events.
        drop(store);
        let (seen, told) = reader.join().unwrap();
        // Each peer came, and its addresses came.
        assert!(told >= 8 && seen.len() <= 4, "{told} {seen:?}");
    });
}

/// Fails the first commits, before or after it has done them.
struct Failing {
    memory: MemoryDatastore,
    commits: AtomicUsize,
}

impl Datastore for Failing {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        self.memory.get(key)
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        self.memory.query(prefix)
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        async move {
            let failed = || Err(DatastoreError::failed("commit", "memory", "no"));
            match self.commits.fetch_add(1, Ordering::SeqCst) {
                0 => failed(),
                1 => self.memory.commit(batch).await.and_then(|()| failed()),
                _ => self.memory.commit(batch).await,
            }
        }
        .boxed()
    }
}

#[test]
fn what_changes_and_goes_while_commits_fail_is_on_disk_as_it_is_in_memory() {
    check(|| {
        let (memory, clock) = (MemoryDatastore::default(), ManualClock::default());
        let failing = Failing {
            memory: memory.clone(),
            commits: AtomicUsize::new(0),
        };
        let store = open(failing, eager(&clock));
        let (writer, remover) = (store.clone(), store.clone());
        let threads = [
            thread::spawn(move || (1..4).for_each(|n| meet(&writer, n))),
            thread::spawn(move || {
                (1..3).for_each(|n| {
                    remover.delete(&peer(n));
                });
            }),
            thread::spawn(move || (0..3).for_each(|_| clock.advance(Duration::from_secs(2)))),
        ];
        let _ = block_on(store.flush());
        for thread in threads {
            thread.join().unwrap();
        }
        // The third commit at the latest succeeds.
        while block_on(store.flush()).is_err() {}
        assert_eq!(store.unsaved(), 0);
        let known: BTreeSet<PeerId> = store.peer_ids().into_iter().collect();
        let again = open(memory.clone(), eager(&ManualClock::default()));
        let kept: BTreeSet<PeerId> = again.peer_ids().into_iter().collect();
        assert_eq!(kept, known);
    });
}

/// Both sides of one peer: a removal and an addition, in any order, leave events that say what is there.
#[test]
fn a_mirror_kept_from_events_equals_the_store_whatever_the_order() {
    check(|| {
        let store = PeerStore::in_memory(PeerId::random(), Config::default());
        let mut events = store.subscribe();
        let (one, other) = (store.clone(), store.clone());
        let threads = [
            thread::spawn(move || (1..4).for_each(|n| meet(&one, n))),
            thread::spawn(move || {
                (1..4).for_each(|n| {
                    other.delete(&peer(n));
                });
            }),
        ];
        for thread in threads {
            thread.join().unwrap();
        }
        let mut mirror = BTreeSet::new();
        while let Some(event) = events.try_next() {
            match event {
                Event::PeerAdded { peer } => assert!(mirror.insert(peer)),
                Event::PeerRemoved { peer, .. } => assert!(mirror.remove(&peer)),
                _ => {}
            }
        }
        let known: BTreeSet<PeerId> = store.peer_ids().into_iter().collect();
        assert_eq!(mirror, known);
    });
}

#[test]
fn many_readers_and_a_writer_see_whole_peers() {
    check(|| {
        let store = PeerStore::in_memory(PeerId::random(), Config::default());
        let writer = store.clone();
        let writing = thread::spawn(move || {
            for n in 1..4 {
                meet(&writer, n);
                writer.protocols().add(peer(n), ["/a", "/b"]);
            }
        });
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let store = store.clone();
                thread::spawn(move || {
                    for id in store.peers_supporting("/a") {
                        let known = store.get(&id).unwrap();
                        assert_eq!((known.protocols.len(), known.addresses.len()), (2, 1));
                    }
                })
            })
            .collect();
        writing.join().unwrap();
        for reader in readers {
            reader.join().unwrap();
        }
    });
}
