//! A node that remembers its peers: six nodes in one process, and what the peer store of one of them learns.
//!
//! Run it with
//!
//! ```text
//! cargo run --example quickstart
//! ```
//!
//! It needs no arguments, uses no network but this machine's own loopback, and takes a few seconds. You will see
//!
//! 1. node 0 start with the address of one other node, and learn of the rest through the DHT;
//! 2. another node change the protocols that it speaks, and node 0 learn of it at once;
//! 3. node 0 stop, with all that it knows in a file;
//! 4. node 0 start again from that file, and reach every peer by nothing but the peer's id.
//!
//! The last line tells what came of it. When a step does not happen, the program says which one, and fails.
//!
//! All that an application writes for its peer store is in the first part: the `Behaviour` and `open_store`. The
//! event loop below them knows nothing of a peer store. The rest of the file tells the story.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder,
    core::ConnectedPoint,
    identify,
    identity::Keypair,
    kad, noise,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use libp2p_peerstore::{
    AGENT_VERSION, BehaviourError, Config, Event, Observed, PROTOCOL_VERSION, PeerStore,
    PeerStoreBehaviour, RedbDatastore,
};
use tokio::{sync::mpsc, task::JoinHandle};

#[path = "shared/steps.rs"]
mod steps;
#[path = "shared/text.rs"]
mod text;

use steps::{Result, in_time, until};
use text::{chain, plain, plain_list};

/// Nodes other than node 0.
const OTHERS: usize = 5;

// --- What an application writes ------------------------------------------------------------------------------

/// The peer store takes its place among the other behaviours, and observes those that have something to tell.
#[derive(NetworkBehaviour)]
struct Behaviour {
    peer_store: PeerStoreBehaviour,
    identify: Observed<identify::Behaviour>,
    kad: Observed<kad::Behaviour<kad::store::MemoryStore>>,
}

fn behaviour(name: &str, key: &Keypair, store: &PeerStore) -> Result<Behaviour, BehaviourError> {
    let local_peer_id = key.public().to_peer_id();
    let record_store = kad::store::MemoryStore::new(local_peer_id);
    let identify_config = identify::Config::new("quickstart/1".to_owned(), key.public())
        .with_agent_version(format!("quickstart, {name}"));
    Ok(Behaviour {
        peer_store: PeerStoreBehaviour::new(store.clone())?,
        identify: store.observe(identify::Behaviour::new(identify_config)),
        kad: store.observe(kad::Behaviour::new(local_peer_id, record_store)),
    })
}

/// Node 0 keeps its peers in a file. The others will do with `PeerStore::in_memory`.
async fn open_store(local_peer_id: PeerId, file: &Path) -> Result<PeerStore> {
    let datastore = RedbDatastore::open(file)?;
    Ok(PeerStore::open(local_peer_id, datastore, Config::default()).await?)
}

/// The event loop of a node. It handles what this application cares for: peers that speak Kademlia belong into
/// the DHT's routing table, and the node can be given another role in the DHT. The swarm polls the peer store on
/// its own, like any other behaviour. The loop ends when the other end of `roles` is dropped.
async fn run(mut swarm: Swarm<Behaviour>, mut roles: mpsc::Receiver<kad::Mode>) {
    loop {
        tokio::select! {
            role = roles.recv() => match role {
                Some(role) => swarm.behaviour_mut().kad.set_mode(Some(role)),
                None => return,
            },
            event = swarm.select_next_some() => {
                if let SwarmEvent::Behaviour(BehaviourEvent::Identify(
                    identify::Event::Received { peer_id, info, .. },
                )) = event
                    && info.protocols.contains(&kad::PROTOCOL_NAME)
                {
                    for address in info.listen_addrs {
                        swarm.behaviour_mut().kad.add_address(&peer_id, address);
                    }
                }
            }
        }
    }
}

// --- The story -----------------------------------------------------------------------------------------------

#[tokio::main]
async fn main() -> ExitCode {
    match story().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: failed: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn story() -> Result<()> {
    // Removed at the end, and also when a step fails.
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("peers.redb");

    println!("Nodes 1 to {OTHERS} form a DHT.");
    let others = start_others().await?;
    let mut names = HashMap::new();
    for node in &others {
        let name = label(&node.name, &node.id);
        println!("   {name} listens at {}", node.address);
        names.insert(node.id, name);
    }

    println!("\n1. Node 0 starts with an empty store and one address, that of node 1.");
    let key = Keypair::generate_ed25519();
    let store = open_store(key.public().to_peer_id(), &file).await?;
    let mut events = store.subscribe();
    let mut narrator = Narrator {
        store: &store,
        names: &names,
        spoken: HashMap::new(),
    };
    let node = Node::start("node 0", &key, &store, others.first()).await?;
    until(
        "node 0 learns of all other nodes",
        &mut events,
        || others.iter().all(|other| is_known_well(&store, &other.id)),
        |event| narrator.tell(event),
    )
    .await?;

    println!("\n2. Node 3 stops serving the DHT, and pushes the news to its peers.");
    let changing = &others[2];
    changing.roles.send(kad::Mode::Client).await?;
    until(
        "node 0 learns that node 3 no longer serves the DHT",
        &mut events,
        || !serves_dht(&store, &changing.id),
        |event| narrator.tell(event),
    )
    .await?;

    println!("\n3. Node 0 stops.");
    let known = store.len();
    node.stop().await?;
    // This is the promise that everything is on disk.
    store.shutdown().await?;
    println!("   {known} peers are saved");

    println!("\n4. Node 0 starts again from its file. Nobody tells it any address.");
    let store = open_store(key.public().to_peer_id(), &file).await?;
    let restored = store.load_report().peers;
    for other in &others {
        let peer = store.get(&other.id);
        let peer = peer.ok_or_else(|| format!("{} is not in the file", other.name))?;
        println!(
            "   it remembers {}: {}, {} protocols, agent \"{}\"",
            names[&other.id],
            plain_list(peer.multiaddrs()),
            peer.protocols.len(),
            plain(peer.agent_version().unwrap_or_default()),
        );
    }
    let reconnected = dial_everyone(&key, &store, &names).await?;
    store.shutdown().await?;

    for node in others {
        node.stop().await?;
    }
    folder.close()?;
    println!(
        "\nquickstart: ok, {known} peers known, {restored} restored, {reconnected} reconnected without a bootstrap node"
    );
    Ok(())
}

/// Each of these nodes but the first joins through the first. Node 0 is to ask that one, so it knows all others
/// before this returns.
async fn start_others() -> Result<Vec<Node>> {
    let mut nodes: Vec<Node> = Vec::new();
    for number in 1..=OTHERS {
        let key = Keypair::generate_ed25519();
        let store = PeerStore::in_memory(key.public().to_peer_id(), Config::default());
        nodes.push(Node::start(&format!("node {number}"), &key, &store, nodes.first()).await?);
    }
    let store = &nodes[0].store;
    until(
        "node 1 learns of the others",
        &mut store.subscribe(),
        || nodes[1..].iter().all(|other| serves_dht(store, &other.id)),
        |_| {},
    )
    .await?;
    Ok(nodes)
}

/// Whether everything is known about a peer that this story is about.
fn is_known_well(store: &PeerStore, id: &PeerId) -> bool {
    store.get(id).is_some_and(|peer| {
        !peer.addresses.is_empty()
            && peer.supports(kad::PROTOCOL_NAME.as_ref())
            && peer.metadata.contains_key(AGENT_VERSION)
            && peer.metadata.contains_key(PROTOCOL_VERSION)
    })
}

fn serves_dht(store: &PeerStore, id: &PeerId) -> bool {
    let spoken = store.protocols().supports(id, [kad::PROTOCOL_NAME]);
    !spoken.is_empty()
}

/// Starts node 0 anew and dials every peer of its store by its id alone. Returns how many it reached: all, or it
/// is an error.
async fn dial_everyone(
    key: &Keypair,
    store: &PeerStore,
    names: &HashMap<PeerId, String>,
) -> Result<usize> {
    let mut swarm = new_swarm("node 0", key, store)?;
    let peers = store.peer_ids();
    for &peer in &peers {
        // The store fills in the addresses; for a peer without any, this would be an error.
        swarm.dial(peer)?;
    }
    let mut reached = HashSet::new();
    let all = async {
        while reached.len() < peers.len() {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished {
                    peer_id,
                    endpoint: ConnectedPoint::Dialer { .. },
                    ..
                } if peers.contains(&peer_id) && reached.insert(peer_id) => {
                    println!("   it is connected with {} again", names[&peer_id]);
                }
                SwarmEvent::OutgoingConnectionError {
                    peer_id: Some(peer_id),
                    error,
                    ..
                } if !reached.contains(&peer_id) => return Err(error.into()),
                _ => {}
            }
        }
        Ok(reached.len())
    };
    in_time("node 0 reaches every peer that it remembers", all).await
}

// --- Nodes ---------------------------------------------------------------------------------------------------

/// A node whose event loop runs in a task of its own.
struct Node {
    name: String,
    id: PeerId,
    address: Multiaddr,
    store: PeerStore,
    roles: mpsc::Sender<kad::Mode>,
    task: JoinHandle<()>,
}

impl Node {
    /// Starts a node. If there is a node that it can `join`, it does; that is the only address it is told.
    async fn start(
        name: &str,
        key: &Keypair,
        store: &PeerStore,
        join: Option<&Node>,
    ) -> Result<Self> {
        let mut swarm = new_swarm(name, key, store)?;
        let listens = async {
            loop {
                if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                    return Ok(address);
                }
            }
        };
        let address = in_time(&format!("{name} listens"), listens).await?;
        if let Some(node) = join {
            let kad = &mut swarm.behaviour_mut().kad;
            kad.add_address(&node.id, node.address.clone());
            kad.bootstrap()?;
        }
        let (roles, receiver) = mpsc::channel(1);
        Ok(Self {
            name: name.to_owned(),
            id: key.public().to_peer_id(),
            address,
            store: store.clone(),
            roles,
            task: tokio::spawn(run(swarm, receiver)),
        })
    }

    /// Ends the event loop, and with it the swarm.
    async fn stop(self) -> Result<()> {
        drop(self.roles);
        let ended = self.task.map(|ended| Ok(ended?));
        in_time(&format!("{} stops", self.name), ended).await
    }
}

fn new_swarm(name: &str, key: &Keypair, store: &PeerStore) -> Result<Swarm<Behaviour>> {
    let mut swarm = SwarmBuilder::with_existing_identity(key.clone())
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )?
        .with_behaviour(|key| Ok(behaviour(name, key, store)?))?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build();
    // By itself, Kademlia serves others only once the node is known to be reachable from outside.
    swarm.behaviour_mut().kad.set_mode(Some(kad::Mode::Server));
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    Ok(swarm)
}

/// For example "node 3 (…Xy12ab)": the end of a peer id is enough to tell a few peers apart.
fn label(name: &str, id: &PeerId) -> String {
    let id = id.to_base58();
    format!("{name} (…{})", &id[id.len() - 6..])
}

// --- Watching a store ----------------------------------------------------------------------------------------

/// Tells in words what a store learns. It needs no swarm: a handle and a subscription work in any task or thread.
struct Narrator<'a> {
    store: &'a PeerStore,
    names: &'a HashMap<PeerId, String>,
    spoken: HashMap<PeerId, Vec<String>>,
}

impl Narrator<'_> {
    fn tell(&mut self, event: Event) {
        let id = event.peer();
        let name = id
            .and_then(|id| self.names.get(&id))
            .map_or("somebody", String::as_str);
        match event {
            Event::PeerAdded { .. } => println!("   there is {name}"),
            Event::AddressesChanged {
                addresses, cause, ..
            } => {
                let addresses = plain_list(addresses.iter());
                println!("   {name} is at {addresses} [{}]", cause);
            }
            Event::ProtocolsChanged {
                peer,
                protocols,
                cause,
            } => {
                let mut now: Vec<String> = protocols.iter().map(plain).collect();
                now.sort();
                let mut before = self.spoken.insert(peer, now.clone()).unwrap_or_default();
                before.retain(|protocol| !now.contains(protocol));
                if !before.is_empty() {
                    println!("   {name} no longer speaks {}", before.join(", "));
                }
                println!("   {name} speaks {} [{}]", now.join(", "), cause);
            }
            Event::MetadataChanged { peer, key } => {
                let metadata = self.store.metadata();
                let value = metadata.get_value(&peer, &key).unwrap_or_default();
                let value = String::from_utf8_lossy(&value);
                println!("   {name}: {} is \"{}\"", plain(key), plain(value));
            }
            event => println!("   {}", plain(format_args!("{event:?}"))),
        }
    }
}
