//! The store needs no particular runtime: the same life of a node on tokio, async-std and smol, and persistence
//! without any of them. No transport of rust-libp2p 0.57 but tokio's opens sockets, so the nodes meet in memory.

#![allow(clippy::unwrap_used)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    StreamExt,
    channel::{mpsc, oneshot},
    future::{BoxFuture, Either, FutureExt, poll_fn, select},
    stream::BoxStream,
    task::Poll,
};
use libp2p::{
    Multiaddr, PeerId, Swarm, Transport,
    core::{ConnectedPoint, transport::MemoryTransport, upgrade::Version},
    identify,
    identity::Keypair,
    noise,
    swarm::{self, NetworkBehaviour, SwarmEvent},
    yamux,
};
use libp2p_peerstore::{
    AGENT_VERSION, Batch, Config, Datastore, DatastoreError, Event, KeyValue, MemoryDatastore,
    Observed, PROTOCOL_VERSION, PeerStore, PeerStoreBehaviour, Standing,
};

const AGENT: &str = "guest/2";
const PROTOCOL: &str = "/lodging/1.0.0";
const IDENTIFY: [&str; 2] = ["/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0"];

/// Hands a future to a runtime.
trait Spawn: Fn(BoxFuture<'static, ()>) + Clone + Send + Sync + 'static {}
impl<S: Fn(BoxFuture<'static, ()>) + Clone + Send + Sync + 'static> Spawn for S {}

#[derive(Clone, Copy)]
enum Engine {
    /// On a thread of the store's own.
    OwnThread,
    /// On the runtime.
    Spawned,
}

// --- the runtimes ------------------------------------------------------------------------------------------

fn tokio_spawn(task: BoxFuture<'static, ()>) {
    tokio::spawn(task);
}

fn async_std_spawn(task: BoxFuture<'static, ()>) {
    async_std::task::spawn(task);
}

fn smol_spawn(task: BoxFuture<'static, ()>) {
    smol::spawn(task).detach();
}

#[tokio::test]
async fn a_node_lives_on_tokio_with_one_thread() {
    a_node_lives(tokio_spawn, Engine::OwnThread).await;
}

#[tokio::test]
async fn a_node_and_its_engine_live_on_tokio_with_one_thread() {
    a_node_lives(tokio_spawn, Engine::Spawned).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_lives_on_tokio_with_threads() {
    a_node_lives(tokio_spawn, Engine::OwnThread).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_and_its_engine_live_on_tokio_with_threads() {
    a_node_lives(tokio_spawn, Engine::Spawned).await;
}

#[test]
fn a_node_lives_on_async_std() {
    async_std::task::block_on(a_node_lives(async_std_spawn, Engine::OwnThread));
}

#[test]
fn a_node_and_its_engine_live_on_async_std() {
    async_std::task::block_on(a_node_lives(async_std_spawn, Engine::Spawned));
}

#[test]
fn a_node_lives_on_smol() {
    smol::block_on(a_node_lives(smol_spawn, Engine::OwnThread));
}

#[test]
fn a_node_and_its_engine_live_on_smol() {
    smol::block_on(a_node_lives(smol_spawn, Engine::Spawned));
}

#[test]
fn a_node_and_its_engine_live_on_one_thread_of_smol() {
    let executor = Arc::new(smol::Executor::new());
    let spawner = executor.clone();
    let spawn = move |task| spawner.spawn(task).detach();
    smol::block_on(executor.run(a_node_lives(spawn, Engine::Spawned)));
}

// --- the life of a node ------------------------------------------------------------------------------------

#[derive(NetworkBehaviour)]
struct Host {
    peer_store: PeerStoreBehaviour,
    identify: Observed<identify::Behaviour>,
}

fn identify(key: &Keypair) -> identify::Behaviour {
    let config = identify::Config::new(PROTOCOL.to_owned(), key.public());
    identify::Behaviour::new(config.with_agent_version(AGENT.to_owned()))
}

fn swarm<B: NetworkBehaviour>(key: &Keypair, behaviour: B, spawn: impl Spawn) -> Swarm<B> {
    let transport = MemoryTransport::default()
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(key).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    let config =
        swarm::Config::with_executor(spawn).with_idle_connection_timeout(Duration::from_secs(3600));
    Swarm::new(transport, behaviour, key.public().to_peer_id(), config)
}

fn host(key: &Keypair, store: &PeerStore, spawn: impl Spawn) -> Swarm<Host> {
    let behaviour = Host {
        peer_store: PeerStoreBehaviour::new(store.clone()).unwrap(),
        identify: store.observe(identify(key)),
    };
    swarm(key, behaviour, spawn)
}

/// The same on every runtime: meet, hear, tell, save, stop, remember, dial.
async fn a_node_lives(spawn: impl Spawn, engine: Engine) {
    let (key, guest_key) = (Keypair::generate_ed25519(), Keypair::generate_ecdsa());
    let local = key.public().to_peer_id();
    let mut guest = swarm(&guest_key, identify(&guest_key), spawn.clone());
    let peer = *guest.local_peer_id();
    let (one, two) = (listen(&mut guest).await, listen(&mut guest).await);
    let datastore = MemoryDatastore::default();

    // It meets the guest, and hears addresses, protocols, key and metadata.
    let config = match engine {
        Engine::OwnThread => Config::default(),
        Engine::Spawned => Config::default().with_executor(spawn.clone()),
    };
    let patient = patient(config.clone());
    let store = PeerStore::open(local, datastore.clone(), patient)
        .await
        .unwrap();
    assert_eq!(store.load_report().peers, 0);
    let mut node = host(&key, &store, spawn.clone());
    // A reader elsewhere on the runtime, which nothing wakes but the store.
    let (reader, read) = oneshot::channel();
    let events = store.subscribe();
    spawn(
        async move {
            let _ = reader.send(events.collect::<Vec<_>>().await);
        }
        .boxed(),
    );
    node.dial(one.clone()).unwrap();
    let mut told = Vec::new();
    meet(&mut node, &mut guest, |event| match event {
        SwarmEvent::Behaviour(HostEvent::PeerStore(event)) => {
            told.push(event);
            // Of what identify tells, this comes last.
            matches!(told.last(), Some(Event::MetadataChanged { key, .. }) if **key == *PROTOCOL_VERSION)
        }
        _ => false,
    })
    .await;
    assert!(store.is_connected(&peer));
    assert_knows(&store, peer, &guest_key, &[one.clone(), two.clone()]);

    // It saves what it heard.
    assert_eq!(store.unsaved(), 1);
    within(store.flush()).await.unwrap();
    assert_eq!(store.unsaved(), 0);
    let b32 = multibase(peer);
    let keys: Vec<_> = datastore
        .entries()
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    let expected = [
        format!("/peers/addrs/{b32}"),
        format!("/peers/keys/{b32}"),
        format!("/peers/metadata/{b32}/{AGENT_VERSION}"),
        format!("/peers/metadata/{b32}/{PROTOCOL_VERSION}"),
        format!("/peers/protos/{b32}"),
    ];
    assert_eq!(keys, expected);

    // It stops: the reader saw what the swarm yielded, to the end.
    within(store.shutdown()).await.unwrap();
    let read = within(read).await.unwrap();
    assert_eq!(format!("{read:?}"), format!("{told:?}"));
    assert_eq!(subjects(&read, peer), SUBJECTS);
    drop(node);
    assert!(!store.is_connected(&peer));
    drop_at_once(store);

    // It remembers all of it before it has met anybody.
    let (telling, mut commits) = Telling::new(datastore.clone());
    let store = PeerStore::open(local, telling, quick(config))
        .await
        .unwrap();
    let report = store.load_report();
    assert_eq!((report.peers, report.entries), (1, 5));
    assert!(!store.is_connected(&peer));
    assert_knows(&store, peer, &guest_key, &[one.clone(), two.clone()]);

    // It dials the guest by its id alone.
    let mut node = host(&key, &store, spawn.clone());
    node.dial(peer).unwrap();
    let mut dialled = None;
    let mut identified = false;
    meet(&mut node, &mut guest, |event| {
        match event {
            SwarmEvent::ConnectionEstablished {
                peer_id,
                endpoint: ConnectedPoint::Dialer { address, .. },
                ..
            } => dialled = Some((peer_id, address)),
            SwarmEvent::Behaviour(HostEvent::Identify(identify::Event::Received { .. })) => {
                identified = true;
            }
            _ => {}
        }
        dialled.is_some() && identified
    })
    .await;
    let (who, address) = dialled.unwrap();
    assert_eq!(who, peer);
    let known = [one, two].map(|address| address.with_p2p(peer).unwrap());
    assert!(known.contains(&address), "{address} was dialled");
    assert!(store.is_connected(&peer));

    // A timer of the engine saves what nobody asked it to.
    store.metadata().set(peer, "room", b"7").unwrap();
    let room = format!("/peers/metadata/{b32}/room");
    while !within(commits.next()).await.unwrap().contains(&room) {}
    within(store.shutdown()).await.unwrap();
    assert_eq!(within(datastore.get(&room)).await.unwrap().unwrap(), b"7");
    drop(node);
    drop_at_once(store);
}

/// What identify tells of a peer that was unknown and has been dialled.
const SUBJECTS: [&str; 7] = [
    "added",
    "addresses by dial",
    "addresses by identify",
    "protocols by identify",
    "key",
    AGENT_VERSION,
    PROTOCOL_VERSION,
];

fn subjects(events: &[Event], of: PeerId) -> Vec<String> {
    let subjects = events.iter().map(|event| {
        assert_eq!(event.peer(), Some(of), "{event:?}");
        match event {
            Event::PeerAdded { .. } => "added".to_owned(),
            Event::AddressesChanged { cause, .. } => format!("addresses by {cause}"),
            Event::ProtocolsChanged { cause, .. } => format!("protocols by {cause}"),
            Event::PublicKeyKnown { known: true, .. } => "key".to_owned(),
            Event::MetadataChanged { key, .. } => key.to_string(),
            other => panic!("unexpected: {other:?}"),
        }
    });
    subjects.collect()
}

fn assert_knows(store: &PeerStore, peer: PeerId, key: &Keypair, addresses: &[Multiaddr; 2]) {
    assert_eq!(store.peer_ids(), [peer]);
    let known = store.get(&peer).unwrap();
    // The dialled one is proven, and stands before the one that was only told.
    assert_eq!(known.multiaddrs().cloned().collect::<Vec<_>>(), addresses);
    let standings: Vec<_> = known.addresses.iter().map(|info| info.standing).collect();
    assert_eq!(standings, [Standing::Proven, Standing::SelfTold]);
    let mut protocols: Vec<_> = known.protocols.iter().map(AsRef::as_ref).collect();
    protocols.sort_unstable();
    assert_eq!(protocols, IDENTIFY);
    assert_eq!(known.public_key, Some(key.public()));
    assert_eq!(known.metadata[AGENT_VERSION], AGENT.as_bytes());
    assert_eq!(known.metadata[PROTOCOL_VERSION], PROTOCOL.as_bytes());
    assert_eq!(known.metadata.len(), 2);
}

/// After `shutdown` the last handle has nothing to wait for, even on the only thread of a runtime.
fn drop_at_once(store: PeerStore) {
    let before = Instant::now();
    drop(store);
    assert!(before.elapsed() < DROP_DEADLINE);
}

// --- persistence without a runtime -------------------------------------------------------------------------

#[test]
fn persistence_needs_no_runtime() {
    futures::executor::block_on(async {
        let (local, peer) = (PeerId::random(), PeerId::random());
        let address: Multiaddr = "/ip4/192.0.2.1/tcp/4001".parse().unwrap();
        let (datastore, mut commits) = Telling::new(MemoryDatastore::default());
        let inner = datastore.inner.clone();

        let store = PeerStore::open(local, datastore, quick(Config::default()))
            .await
            .unwrap();
        let mut watched = store.watch(peer);
        store.addresses().add(peer, [address.clone()]);
        let written = within(commits.next()).await.unwrap();
        assert_eq!(written, [format!("/peers/addrs/{}", multibase(peer))]);
        store.protocols().add(peer, [PROTOCOL]);
        within(store.flush()).await.unwrap();
        assert_eq!((store.unsaved(), inner.len()), (0, 2));
        within(store.shutdown()).await.unwrap();
        let added = watched.next().await.unwrap();
        assert!(matches!(added, Event::PeerAdded { peer: of } if of == peer));
        let rest: Vec<_> = within(watched.collect()).await;
        assert_eq!(rest.len(), 2);
        drop_at_once(store);

        let store = PeerStore::open(local, inner.clone(), quick(Config::default()))
            .await
            .unwrap();
        assert_eq!(store.load_report().peers, 1);
        assert_eq!(store.addresses().get(&peer).unwrap(), [address]);
        assert!(store.get(&peer).unwrap().supports(PROTOCOL));
        let backlog = store.watch(peer).next().await.unwrap();
        assert!(matches!(backlog, Event::PeerAdded { .. }));
        // Without a shutdown the end of the last handle saves.
        assert!(store.delete(&peer));
        drop(store);
        assert!(inner.is_empty());
    });
}

#[test]
fn a_spawned_engine_needs_no_runtime_either() {
    let (engines, mut handed) = mpsc::unbounded();
    let config = quick(Config::default()).with_executor(move |engine| {
        engines.unbounded_send(engine).unwrap();
    });
    let datastore = MemoryDatastore::default();
    let inner = datastore.clone();
    let (local, peer) = (PeerId::random(), PeerId::random());
    let life = async move {
        let store = PeerStore::open(local, datastore, config).await.unwrap();
        store.protocols().add(peer, [PROTOCOL]);
        store.flush().await.unwrap();
        assert_eq!(inner.len(), 1);
        store.addresses().delete(&peer);
        store.protocols().delete(&peer);
        store.shutdown().await.unwrap();
        assert!(inner.is_empty());
        drop_at_once(store);
    };
    // One future of the store, polled by hand beside the application's.
    let engine = async {
        handed.next().await.unwrap().await;
        assert!(handed.next().await.is_none());
    };
    futures::executor::block_on(within(futures::future::join(life, engine)));
}

// --- how -----------------------------------------------------------------------------------------------------

/// Longer than any test takes, so that a drop that waits shows.
const DROP_DEADLINE: Duration = Duration::from_secs(20);
const DEADLINE: Duration = Duration::from_secs(90);

/// A store that saves by itself soon after a change.
fn quick(config: Config) -> Config {
    config
        .with_min_commit_interval(Duration::from_millis(1))
        .with_max_commit_delay(Duration::from_millis(5))
        .with_drop_deadline(DROP_DEADLINE)
}

/// A store that saves only when it is asked to.
fn patient(config: Config) -> Config {
    config
        .with_max_commit_delay(Duration::from_secs(3600))
        .with_drop_deadline(DROP_DEADLINE)
}

/// The peer id as the datastore spells it.
fn multibase(peer: PeerId) -> String {
    let cid = [&[0x01, 0x72], &peer.to_bytes()[..]].concat();
    let b32 = data_encoding::BASE32_NOPAD.encode(&cid);
    format!("b{}", b32.to_lowercase())
}

async fn within<F: Future>(work: F) -> F::Output {
    let deadline = futures_timer::Delay::new(DEADLINE);
    match select(Box::pin(work), deadline).await {
        Either::Left((done, _)) => done,
        Either::Right(_) => panic!("nothing came of the wait"),
    }
}

async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>) -> Multiaddr {
    swarm.listen_on("/memory/0".parse().unwrap()).unwrap();
    let listening = async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                return address;
            }
        }
    };
    within(listening).await
}

/// Drives both nodes until the first one has told enough.
async fn meet<A: NetworkBehaviour, B: NetworkBehaviour>(
    a: &mut Swarm<A>,
    b: &mut Swarm<B>,
    mut enough: impl FnMut(SwarmEvent<A::ToSwarm>) -> bool,
) {
    within(poll_fn(|cx| {
        loop {
            let other = b.poll_next_unpin(cx).is_ready();
            if let Poll::Ready(Some(event)) = a.poll_next_unpin(cx) {
                if enough(event) {
                    return Poll::Ready(());
                }
            } else if !other {
                return Poll::Pending;
            }
        }
    }))
    .await;
}

/// A datastore that tells the keys of each commit once it is done.
struct Telling {
    inner: MemoryDatastore,
    commits: mpsc::UnboundedSender<Vec<String>>,
}

impl Telling {
    fn new(inner: MemoryDatastore) -> (Self, mpsc::UnboundedReceiver<Vec<String>>) {
        let (commits, told) = mpsc::unbounded();
        (Self { inner, commits }, told)
    }
}

impl Datastore for Telling {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        self.inner.get(key)
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        self.inner.query(prefix)
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        async move {
            let keys = batch.iter().map(|(key, _)| key.to_owned()).collect();
            self.inner.commit(batch).await?;
            // The test may be over.
            let _ = self.commits.unbounded_send(keys);
            Ok(())
        }
        .boxed()
    }
}
