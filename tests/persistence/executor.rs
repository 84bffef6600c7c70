//! On what the engine runs: a thread of its own, or whatever the user gives it.

use std::{
    sync::Arc,
    thread::{self, Thread},
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    executor::{LocalPool, ThreadPool, block_on},
    future::BoxFuture,
    task::LocalSpawnExt,
};
use libp2p::PeerId;
use libp2p_peerstore::{
    Config, Event, FlushError, ManualClock, MemoryDatastore, OpenError, PeerStore,
};
use parking_lot::Mutex;

use crate::support::{Act, Hand, Recording, addr};

const SECOND: Duration = Duration::from_secs(1);

fn touch(store: &PeerStore) -> PeerId {
    let peer = PeerId::random();
    assert!(store.addresses().add(peer, [addr(1)]).changed);
    peer
}

/// Opens, saves by threshold, by flush and by shutdown, and finds it all again.
async fn exercise(datastore: Recording, config: Config) {
    let local = PeerId::random();
    let store = PeerStore::open(local, datastore.clone(), config.clone())
        .await
        .unwrap();
    for _ in 0..5 {
        touch(&store);
    }
    datastore.commits_done(1).await;
    touch(&store);
    store.flush().await.unwrap();
    assert_eq!(datastore.memory.len(), 6);
    touch(&store);
    store.shutdown().await.unwrap();
    assert_eq!((datastore.memory.len(), datastore.closes()), (7, 1));
    let again = PeerStore::open(local, datastore.clone(), config)
        .await
        .unwrap();
    assert_eq!(again.len(), 7);
    again.shutdown().await.unwrap();
}

#[test]
fn a_store_saves_without_any_executor() {
    block_on(exercise(Recording::default(), Config::default()));
}

#[test]
fn a_store_saves_on_tokio() {
    for mut runtime in [
        tokio::runtime::Builder::new_multi_thread(),
        tokio::runtime::Builder::new_current_thread(),
    ] {
        let runtime = runtime.build().unwrap();
        runtime.block_on(exercise(Recording::default(), Config::default()));
        let handle = runtime.handle().clone();
        let config = Config::default().with_executor(move |engine| {
            handle.spawn(engine);
        });
        runtime.block_on(exercise(Recording::default(), config));
    }
}

#[test]
fn a_store_saves_on_a_thread_pool() {
    let pool = ThreadPool::builder().pool_size(1).create().unwrap();
    let config = Config::default().with_executor(move |engine| pool.spawn_ok(engine));
    block_on(exercise(Recording::default(), config));
}

#[test]
fn a_store_saves_on_smol_and_async_std() {
    let config = Config::default().with_executor(|engine| smol::spawn(engine).detach());
    smol::block_on(exercise(Recording::default(), config));
    let config = Config::default().with_executor(|engine| {
        async_std::task::spawn(engine);
    });
    async_std::task::block_on(exercise(Recording::default(), config));
}

#[test]
fn a_store_saves_on_a_pool_that_is_driven_by_hand() {
    let mut pool = LocalPool::new();
    let (engines, queue) = futures::channel::mpsc::unbounded::<BoxFuture<'static, ()>>();
    let run = queue.for_each_concurrent(None, |engine| engine);
    pool.spawner().spawn_local(run).unwrap();
    let config =
        Config::default().with_executor(move |engine| engines.unbounded_send(engine).unwrap());
    pool.run_until(exercise(Recording::default(), config));
}

/// With a thread of its own and a clock in the test's hand, as an application's tests have it.
#[test]
fn a_store_on_its_own_thread_waits_for_the_clock_and_not_for_the_machine() {
    let (clock, datastore) = (ManualClock::default(), Recording::default());
    let config = Config::default().with_clock(clock.clone());
    let store = block_on(PeerStore::open(PeerId::random(), datastore.clone(), config)).unwrap();
    let waits = || {
        while clock.sleepers() == 0 {
            thread::yield_now();
        }
    };
    let mut events = store.subscribe();
    datastore.next([Act::Fail]);
    touch(&store);
    waits();
    assert_eq!(datastore.started(), 0);
    clock.advance(30 * SECOND);
    let failed = block_on(events.by_ref().skip(2).next()).unwrap();
    assert!(
        matches!(failed, Event::CommitFailed { unsaved: 1, .. }),
        "{failed:?}"
    );
    waits();
    assert_eq!((datastore.started(), store.unsaved()), (1, 1));
    clock.advance(SECOND);
    block_on(datastore.commits_done(2));
    block_on(store.shutdown()).unwrap();
    assert_eq!((datastore.started(), datastore.memory.len()), (2, 1));
}

#[test]
fn the_datastore_is_used_on_a_thread_of_its_own() {
    let datastore = Recording::default();
    let on: Arc<Mutex<Option<Thread>>> = Arc::default();
    let seen = on.clone();
    datastore.during_commit(move || *seen.lock() = Some(thread::current()));
    let store = block_on(PeerStore::open(
        PeerId::random(),
        datastore,
        Config::default(),
    ))
    .unwrap();
    touch(&store);
    block_on(store.flush()).unwrap();
    let thread = on.lock().take().unwrap();
    assert_ne!(thread.id(), thread::current().id());
    assert_eq!(thread.name(), Some("peerstore"));
}

#[test]
fn an_executor_that_drops_the_engine_is_told_of_at_open() {
    let config = Config::default().with_executor(drop);
    let datastore = Recording::default();
    let error = block_on(PeerStore::open(PeerId::random(), datastore.clone(), config)).unwrap_err();
    assert!(matches!(error, OpenError::ExecutorGone), "{error}");
    assert!(!datastore.is_held());
}

#[test]
fn an_executor_that_goes_away_later_leaves_a_store_in_memory() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    // Dropping the last handle would wait for this long, if anything could still end.
    let hour = 3_600 * SECOND;
    let store = hand.open_with(datastore.clone(), |config| config.with_drop_deadline(hour));
    touch(&store);
    datastore.hold_commits();
    let flushing = store.clone();
    let mut flush = Box::pin(async move { flushing.flush().await });
    assert!((&mut flush).now_or_never().is_none());
    hand.settle();
    let mut events = store.subscribe();
    drop(hand);

    assert!(!datastore.is_held());
    assert!((&mut flush).now_or_never().unwrap().is_err());
    assert!(events.next().now_or_never().unwrap().is_none());
    assert_eq!(store.unsaved(), 1);
    touch(&store);
    assert_eq!(store.len(), 2);
    assert!(block_on(store.flush()).is_err());
    // Neither the first peer nor the second one is on disk, however often it is asked for.
    for _ in 0..2 {
        let ended = block_on(store.shutdown());
        assert!(matches!(ended, Err(FlushError::Closed)), "{ended:?}");
    }
}

#[test]
fn an_executor_that_goes_away_when_everything_is_saved_has_lost_nothing() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    touch(&store);
    hand.flush(&store);
    drop(hand);
    block_on(store.shutdown()).unwrap();
    touch(&store);
    assert!(block_on(store.shutdown()).is_err());
}

#[test]
fn a_hanging_datastore_keeps_nobody_from_reading_and_writing() {
    let datastore = Recording::default();
    let config = Config::default().with_drop_deadline(Duration::ZERO);
    let store = block_on(PeerStore::open(PeerId::random(), datastore.clone(), config)).unwrap();
    datastore.hold_commits();
    for _ in 0..5 {
        touch(&store);
    }
    block_on(datastore.commit_started(1));
    for _ in 0..1_000 {
        let peer = touch(&store);
        assert!(store.delete(&peer));
    }
    assert_eq!((store.len(), datastore.started()), (5, 1));
    datastore.release();
}

/// "Never" is a setting like any other.
#[test]
fn times_may_be_as_long_as_a_duration_can_be() {
    let never = Duration::MAX;
    let config = Config::default()
        .with_max_commit_delay(never)
        .with_min_commit_interval(never)
        .with_flush_deadline(never)
        .with_drop_deadline(never)
        .with_hearsay_lifetime(never)
        .with_self_told_lifetime(never)
        .with_proven_lifetime(never);
    let datastore = Recording::on(MemoryDatastore::default());
    let few = config.clone().with_max_peers(3.try_into().unwrap());
    let store = block_on(PeerStore::open(PeerId::random(), datastore.clone(), config)).unwrap();
    touch(&store);
    block_on(store.flush()).unwrap();
    for _ in 0..10 {
        touch(&store);
    }
    let peer = touch(&store);
    store.delete_for(&peer, never);
    // The second commit of the threshold is not due before the end of time; the drop saves all the same.
    drop(store);
    assert_eq!((datastore.started(), datastore.memory.len()), (2, 11));

    // A store that is full makes room all the same, though its shares bind for ever from then on.
    let store = PeerStore::in_memory(PeerId::random(), few);
    for _ in 0..10 {
        let peer = touch(&store);
        assert!(store.contains(&peer));
    }
    assert_eq!(store.len(), 3);
}
