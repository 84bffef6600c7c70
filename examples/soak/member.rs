//! One node: it joins, meets others, pushes, tells lies, leaves, and comes back as itself or as somebody else.

use std::{
    collections::BTreeMap,
    fs, io,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream::BoxStream};
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, identify,
    identity::Keypair,
    kad,
    multiaddr::Protocol,
    noise,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use libp2p_peerstore::{
    Batch, Cause, Config, Datastore, DatastoreError, Event, KeyValue, Observed, PeerStore,
    PeerStoreBehaviour, RedbDatastore, Source,
};
use tokio::{sync::watch, time};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// How often a node does something by itself.
const PAUSE: Duration = Duration::from_millis(250);

/// Connections that nobody uses end after this.
const IDLE: Duration = Duration::from_secs(10);

/// How often a node that comes back is somebody else, with an empty store.
const REBIRTH: f64 = 0.2;

// --- what all share ----------------------------------------------------------------------------------------

/// What the stores did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// How often a node joined.
    pub lives: u64,
    pub connections: u64,
    /// Pushes that were sent.
    pub pushes: u64,
    pub commits: u64,
    pub evicted: u64,
    pub refusals: u64,
}

impl Counts {
    pub fn since(&self, before: &Self) -> Self {
        Self {
            lives: self.lives - before.lives,
            connections: self.connections - before.connections,
            pushes: self.pushes - before.pushes,
            commits: self.commits - before.commits,
            evicted: self.evicted - before.evicted,
            refusals: self.refusals.saturating_sub(before.refusals),
        }
    }
}

/// Where everybody is, and what was counted.
pub struct World {
    stay: f64,
    homes: Mutex<Vec<Option<(Multiaddr, PeerStore)>>>,
    /// Of nodes that have left.
    refused: Mutex<BTreeMap<String, u64>>,
    lives: AtomicU64,
    connections: AtomicU64,
    pushes: AtomicU64,
    commits: AtomicU64,
    evicted: AtomicU64,
}

impl World {
    pub fn new(nodes: usize, stay: f64) -> Self {
        Self {
            stay,
            homes: Mutex::new(vec![None; nodes]),
            refused: Mutex::default(),
            lives: AtomicU64::default(),
            connections: AtomicU64::default(),
            pushes: AtomicU64::default(),
            commits: AtomicU64::default(),
            evicted: AtomicU64::default(),
        }
    }

    /// What was counted, and how many nodes are there now, with how many peers in their stores.
    pub fn look(&self) -> (Counts, (usize, usize)) {
        let stores = self.stores();
        let peers = stores.iter().map(PeerStore::len).sum();
        let refused: u64 = self.refused().iter().map(|(_, count)| count).sum();
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = Counts {
            lives: get(&self.lives),
            connections: get(&self.connections),
            pushes: get(&self.pushes),
            commits: get(&self.commits),
            evicted: get(&self.evicted),
            refusals: refused,
        };
        (counts, (stores.len(), peers))
    }

    /// What was refused by whoever was ever there, and why.
    pub fn refused(&self) -> Vec<(String, u64)> {
        let mut refused = lock(&self.refused).clone();
        for store in self.stores() {
            add_refusals(&mut refused, &store);
        }
        refused.into_iter().collect()
    }

    fn stores(&self) -> Vec<PeerStore> {
        let homes = lock(&self.homes);
        let homes = homes.iter().flatten();
        homes.map(|(_, store)| store.clone()).collect()
    }

    fn joins(&self, number: usize, address: Multiaddr, store: PeerStore) {
        lock(&self.homes)[number] = Some((address, store));
        self.lives.fetch_add(1, Ordering::Relaxed);
    }

    fn leaves(&self, number: usize) {
        if let Some((_, store)) = lock(&self.homes)[number].take() {
            add_refusals(&mut lock(&self.refused), &store);
        }
    }

    fn somebody(&self) -> Option<Multiaddr> {
        let homes = lock(&self.homes);
        let homes: Vec<_> = homes.iter().flatten().collect();
        fastrand::choice(homes).map(|(address, _)| address.clone())
    }
}

fn add_refusals(refused: &mut BTreeMap<String, u64>, store: &PeerStore) {
    for (reason, count) in store.refusals().iter().filter(|(_, count)| *count > 0) {
        *refused.entry(reason.to_string()).or_default() += count;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A datastore that counts its commits.
struct Counted {
    datastore: RedbDatastore,
    world: Arc<World>,
}

impl Datastore for Counted {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        self.datastore.get(key)
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        self.datastore.query(prefix)
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        self.world.commits.fetch_add(1, Ordering::Relaxed);
        self.datastore.commit(batch)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DatastoreError>> {
        self.datastore.close()
    }
}

// --- one node ----------------------------------------------------------------------------------------------

#[derive(NetworkBehaviour)]
struct Behaviour {
    peer_store: PeerStoreBehaviour,
    identify: Observed<identify::Behaviour>,
    kad: Observed<kad::Behaviour<kad::store::MemoryStore>>,
}

/// Who comes back again and again.
pub struct Member {
    number: usize,
    path: PathBuf,
    world: Arc<World>,
    key: Keypair,
}

impl Member {
    pub fn new(number: usize, path: PathBuf, world: Arc<World>) -> Self {
        Self {
            number,
            path,
            world,
            key: Keypair::generate_ed25519(),
        }
    }

    /// Lives one life after the other until everything is stopped.
    pub async fn live(mut self, mut stopped: watch::Receiver<bool>) -> Result<()> {
        while !*stopped.borrow() {
            let store = self.open().await?;
            let mut node = Node::new(&self.key, store.clone(), self.world.clone())?;
            let home = node.listen().await?;
            self.world.joins(self.number, home, store.clone());
            let stay = self.world.stay * (0.5 + fastrand::f64());
            tokio::select! {
                () = node.run() => {}
                () = time::sleep(Duration::from_secs_f64(stay)) => {}
                _ = stopped.changed() => {}
            }
            drop(node);
            self.world.leaves(self.number);
            store.shutdown().await?;
            if fastrand::f64() < REBIRTH {
                self.key = Keypair::generate_ed25519();
                remove(&self.path)?;
            }
        }
        Ok(())
    }

    async fn open(&self) -> Result<PeerStore> {
        let datastore = Counted {
            datastore: RedbDatastore::open(&self.path)?,
            world: self.world.clone(),
        };
        let few = |n| NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN);
        let config = Config::default()
            .with_max_peers(few(24))
            .with_max_addresses_per_peer(few(4))
            .with_max_protocols_per_peer(few(8))
            .with_max_metadata_per_peer(few(4))
            .with_max_tags_per_peer(few(2))
            .with_event_capacity(few(64))
            .with_hearsay_lifetime(Duration::from_secs(20))
            .with_max_hearsay_lifetime(Duration::from_secs(40))
            .with_inbound_lifetime(Duration::from_secs(20))
            .with_self_told_lifetime(Duration::from_secs(60))
            .with_wrong_peer_block(Duration::from_secs(30));
        Ok(PeerStore::open(self.key.public().to_peer_id(), datastore, config).await?)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// One life of a member.
struct Node {
    swarm: Swarm<Behaviour>,
    store: PeerStore,
    world: Arc<World>,
}

impl Node {
    fn new(key: &Keypair, store: PeerStore, world: Arc<World>) -> Result<Self> {
        let id = key.public().to_peer_id();
        let identify = identify::Config::new("/soak/1".to_owned(), key.public())
            .with_push_listen_addr_updates(true)
            .with_agent_version(format!("soak/{}", fastrand::u8(..8)));
        let mut kad = kad::Behaviour::new(id, kad::store::MemoryStore::new(id));
        kad.set_mode(Some(kad::Mode::Server));
        let behaviour = Behaviour {
            peer_store: PeerStoreBehaviour::new(store.clone())?
                .with_redial(NonZeroUsize::MIN, NonZeroUsize::MIN)
                .with_feelers(Duration::from_secs(5)),
            identify: store.observe(identify::Behaviour::new(identify)),
            kad: store.observe(kad),
        };
        let swarm = SwarmBuilder::with_existing_identity(key.clone())
            .with_tokio()
            .with_tcp(
                tcp::Config::default(),
                noise::Config::new,
                yamux::Config::default,
            )?
            .with_behaviour(|_| behaviour)?
            .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE))
            .build();
        Ok(Self {
            swarm,
            store,
            world,
        })
    }

    /// Listens somewhere, and says where.
    async fn listen(&mut self) -> Result<Multiaddr> {
        self.swarm.listen_on(any_port())?;
        let id = *self.swarm.local_peer_id();
        loop {
            match self.swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { address, .. } => {
                    return Ok(address.with(Protocol::P2p(id)));
                }
                SwarmEvent::ListenerClosed {
                    reason: Err(error), ..
                } => return Err(error.into()),
                _ => {}
            }
        }
    }

    async fn run(&mut self) {
        let mut pauses = time::interval(PAUSE);
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.hears(event),
                _ = pauses.tick() => self.acts(),
            }
        }
    }

    fn hears(&mut self, event: SwarmEvent<BehaviourEvent>) {
        let count = match event {
            SwarmEvent::ConnectionEstablished { .. } => &self.world.connections,
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) => {
                let kad = &mut self.swarm.behaviour_mut().kad;
                for address in info.listen_addrs {
                    kad.add_address(&peer_id, address);
                }
                return;
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Pushed { .. })) => {
                &self.world.pushes
            }
            SwarmEvent::Behaviour(BehaviourEvent::PeerStore(Event::PeerRemoved {
                cause: Cause::Evicted,
                ..
            })) => &self.world.evicted,
            _ => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Does one thing of what nodes and their users do.
    fn acts(&mut self) {
        match fastrand::u8(..12) {
            0 | 1 => {
                if let Some(home) = self.world.somebody() {
                    // Its own address is refused, and so is a second connection.
                    let _ = self.swarm.dial(home);
                }
            }
            2 | 3 => {
                for peer in self.store.bootstrap_peers(2) {
                    let _ = self.swarm.dial(peer);
                }
            }
            4 => {
                if let Some(peer) = fastrand::choice(self.store.connected_peers()) {
                    let _ = self.swarm.disconnect_peer_id(peer);
                }
            }
            5 => {
                let kad = &mut self.swarm.behaviour_mut().kad;
                kad.get_closest_peers(PeerId::random());
            }
            6 => {
                // Another listener, or one less: whoever is connected is told by a push.
                if fastrand::bool() {
                    let _ = self.swarm.listen_on(any_port());
                } else {
                    self.swarm.add_external_address(nowhere());
                }
            }
            7 => {
                let gone: Vec<_> = self.swarm.external_addresses().cloned().collect();
                for address in gone {
                    self.swarm.remove_external_address(&address);
                }
            }
            8 => {
                let connected = self.store.connected_peers();
                self.swarm.behaviour_mut().identify.push(connected);
            }
            9 => {
                // Who asks this node is told of peers that are not there.
                let kad = &mut self.swarm.behaviour_mut().kad;
                kad.add_address(&PeerId::random(), nowhere());
            }
            10 => {
                let mut gossip = self.store.learned(Source::Kademlia);
                gossip.add(PeerId::random(), &[nowhere(), nowhere()]);
            }
            _ => self.cares(),
        }
    }

    /// What a user of the store does with a peer.
    fn cares(&self) {
        let Some(peer) = fastrand::choice(self.store.peer_ids()) else {
            return;
        };
        let (key, value) = (format!("note-{}", fastrand::u8(..8)), vec![7; 64]);
        // A fifth note and a third tag are refused, which is counted.
        let _ = self.store.metadata().set(peer, &key, value);
        let name = format!("tag-{}", fastrand::u8(..4));
        let _ = self
            .store
            .tags()
            .set(peer, &name, 50, Some(Duration::from_secs(5)));
        if fastrand::u8(..4) == 0 {
            self.store.delete(&peer);
        }
    }
}

fn any_port() -> Multiaddr {
    address([127, 0, 0, 1], 0)
}

/// An address of this machine at which nobody listens.
fn nowhere() -> Multiaddr {
    address([127, fastrand::u8(1..), fastrand::u8(..), 1], 1)
}

fn address(ip: [u8; 4], port: u16) -> Multiaddr {
    Multiaddr::empty()
        .with(Protocol::Ip4(ip.into()))
        .with(Protocol::Tcp(port))
}
