//! A node for a terminal that keeps a peer store, and tells everything that it learns.
//!
//! Start one node, and a second one with the address that the first one prints:
//!
//! ```text
//! cargo run --example node -- --store first.redb
//! cargo run --example node -- --store second.redb --dial /ip4/127.0.0.1/tcp/…/p2p/12D3KooW…
//! ```
//!
//! Each prints that the other became known, its addresses, its protocols, its software. Stop the second one with
//! Ctrl-C and start it again without `--dial`: it has the same peer id (its key is in `second.redb.key`), it
//! remembers its peers, and reaches any of them by peer id alone:
//!
//! ```text
//! cargo run --example node -- --store second.redb --dial-peer 12D3KooW…
//! ```
//!
//! With `--json` it prints one JSON object per line and nothing else, for scripts. Errors and logs (`RUST_LOG`)
//! go to stderr. It talks to nodes of other libp2p implementations too: TCP, Noise, Yamux, identify, identify-push,
//! ping, and Kademlia as a server of `/ipfs/kad/1.0.0`.

use std::{
    error::Error,
    fs, io,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, identify,
    identity::Keypair,
    kad,
    multiaddr::Protocol,
    noise, ping,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use libp2p_peerstore::{
    Config, Observed, PeerStore, PeerStoreBehaviour, RedbDatastore, Subscription,
};
use tracing_subscriber::EnvFilter;

#[path = "shared/json.rs"]
mod json;
#[path = "shared/report.rs"]
mod report;
#[path = "shared/text.rs"]
mod text;

use report::Report;
use text::chain;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// A libp2p node that remembers its peers.
#[derive(Parser)]
struct Args {
    /// The file that keeps the peers. It is created if it is not there.
    #[arg(long)]
    store: PathBuf,

    /// The file that keeps the node's private key [default: the name of the store with `.key` at its end].
    #[arg(long)]
    key: Option<PathBuf>,

    /// An address to listen on; can be repeated.
    #[arg(long, value_name = "MULTIADDR", default_value = "/ip4/127.0.0.1/tcp/0")]
    listen: Vec<Multiaddr>,

    /// An address to dial at the start; can be repeated. A peer whose id it ends in also goes into the DHT's
    /// routing table.
    #[arg(long, value_name = "MULTIADDR")]
    dial: Vec<Multiaddr>,

    /// A peer to dial at the start, at the addresses that the store remembers; can be repeated.
    #[arg(long, value_name = "PEERID")]
    dial_peer: Vec<PeerId>,

    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    peer_store: PeerStoreBehaviour,
    identify: Observed<identify::Behaviour>,
    kad: Observed<kad::Behaviour<kad::store::MemoryStore>>,
    ping: ping::Behaviour,
}

#[tokio::main]
async fn main() -> ExitCode {
    // Kademlia warns whenever a node that knows nobody looks for peers, which is how every first run begins.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,libp2p_kad=error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("node: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    let stop = stop_signal()?;
    let report = Report::new(args.json);

    // The store's file first: while this process holds it, no other one starts with the same key.
    let datastore = RedbDatastore::open(&args.store)?;
    let key = load_or_create_key(&args.key.unwrap_or_else(|| beside(&args.store)))?;
    // The events are read from a subscription. The swarm need not be woken for them as well.
    let config = Config::default().with_swarm_events(false);
    let store = PeerStore::open(key.public().to_peer_id(), datastore, config).await?;
    let mut events = store.subscribe();
    report.loaded(&store)?;

    let mut swarm = new_swarm(&key, &store)?;
    let ended = async {
        for address in args.listen {
            let listening = swarm.listen_on(address.clone());
            listening.map_err(|error| format!("cannot listen on {address}: {}", chain(&error)))?;
        }
        for address in args.dial {
            dial_address(&mut swarm, address, &report)?;
        }
        for peer in args.dial_peer {
            // The store adds the addresses to the dial; if it has none, that is the error.
            if let Err(error) = swarm.dial(peer) {
                report.dial_failed(Some(peer), &error)?;
            }
        }
        tokio::select! {
            ended = event_loop(&mut swarm, &mut events, &store, &report) => ended,
            () = stop => Ok(()),
        }
    }
    .await;

    // However it ended, what was learnt is saved. The connections go first, so that nothing is learnt meanwhile.
    drop(swarm);
    store.shutdown().await?;
    ended?;
    while let Some(event) = events.try_next() {
        report.store_event(&store, event)?;
    }
    report.saved(&store)?;
    Ok(())
}

async fn event_loop(
    swarm: &mut Swarm<Behaviour>,
    events: &mut Subscription,
    store: &PeerStore,
    report: &Report,
) -> Result<()> {
    loop {
        tokio::select! {
            Some(event) = events.next() => report.store_event(store, event)?,
            event = swarm.select_next_some() => swarm_event(swarm, event, report)?,
        }
    }
}

fn swarm_event(
    swarm: &mut Swarm<Behaviour>,
    event: SwarmEvent<BehaviourEvent>,
    report: &Report,
) -> Result<()> {
    match event {
        SwarmEvent::NewListenAddr { address, .. } => {
            report.listening(*swarm.local_peer_id(), address)?;
        }
        SwarmEvent::ConnectionEstablished {
            peer_id, endpoint, ..
        } => report.connected(peer_id, endpoint.get_remote_address().clone())?,
        SwarmEvent::ConnectionClosed {
            peer_id,
            num_established: 0,
            ..
        } => report.disconnected(peer_id)?,
        SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => {
            report.dial_failed(peer_id, &error)?;
        }
        // Who serves the DHT belongs into its routing table. A node in the open Internet would leave out
        // addresses that only mean something in the other's own network.
        SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
            peer_id,
            info,
            ..
        })) if info.protocols.contains(&kad::PROTOCOL_NAME) => {
            for address in info.listen_addrs {
                swarm.behaviour_mut().kad.add_address(&peer_id, address);
            }
        }
        SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "listener"),
        SwarmEvent::ListenerClosed { reason, .. } => tracing::warn!(?reason, "listener closed"),
        event => tracing::debug!(?event),
    }
    Ok(())
}

fn dial_address(swarm: &mut Swarm<Behaviour>, address: Multiaddr, report: &Report) -> Result<()> {
    let peer = match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    };
    if let Some(peer) = peer {
        let kad = &mut swarm.behaviour_mut().kad;
        kad.add_address(&peer, address.clone());
    }
    if let Err(error) = swarm.dial(address) {
        report.dial_failed(peer, &error)?;
    }
    Ok(())
}

fn new_swarm(key: &Keypair, store: &PeerStore) -> Result<Swarm<Behaviour>> {
    let local_peer_id = key.public().to_peer_id();
    let identify = identify::Config::new("ipfs/0.1.0".to_owned(), key.public())
        .with_agent_version(concat!("libp2p-peerstore-node/", env!("CARGO_PKG_VERSION")).to_owned())
        .with_push_listen_addr_updates(true);
    let mut kad = kad::Behaviour::new(local_peer_id, kad::store::MemoryStore::new(local_peer_id));
    // By itself it would wait until it knows that it can be reached from outside.
    kad.set_mode(Some(kad::Mode::Server));
    let behaviour = Behaviour {
        peer_store: PeerStoreBehaviour::new(store.clone())?,
        identify: store.observe(identify::Behaviour::new(identify)),
        kad: store.observe(kad),
        ping: ping::Behaviour::default(),
    };
    Ok(SwarmBuilder::with_existing_identity(key.clone())
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )?
        .with_behaviour(|_| behaviour)?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(120)))
        .build())
}

/// Ends at Ctrl-C or, where there is one, SIGTERM. From this call on neither ends the process by itself.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    })
}

// --- The key -------------------------------------------------------------------------------------------------

/// `peers.redb.key` for `peers.redb`.
fn beside(store: &Path) -> PathBuf {
    let mut key = store.as_os_str().to_owned();
    key.push(".key");
    key.into()
}

/// The private key in `path`, in libp2p's protobuf encoding. Without one the node gets a new key.
fn load_or_create_key(path: &Path) -> Result<Keypair> {
    let shown = path.display();
    match fs::read(path) {
        Ok(bytes) => Keypair::from_protobuf_encoding(&bytes)
            .map_err(|error| format!("{shown} holds no libp2p key: {}", chain(&error)).into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = Keypair::generate_ed25519();
            create_key(path, &key.to_protobuf_encoding()?)
                .map_err(|error| format!("cannot create {shown}: {}", chain(&error)))?;
            Ok(key)
        }
        Err(error) => Err(format!("cannot read {shown}: {}", chain(&error)).into()),
    }
}

/// Creates the file as a whole or not at all, and never over another one. Only its owner can read it (mode 0600).
fn create_key(path: &Path, key: &[u8]) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(key)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    Ok(())
}
