//! Remember peers across restarts: a node meets another, stops, starts again, and reaches it by its id alone.
//!
//! ```text
//! cargo run --example remember
//! ```
//!
//! You will see the first run save one peer, and the second one load it and connect without any address. A new file in the
//! system's temporary folder keeps the peers; it is removed at the end.

use std::{path::Path, process::ExitCode};

use futures::StreamExt;
use libp2p::{Multiaddr, PeerId, Swarm, identify, identity::Keypair, swarm::NetworkBehaviour};
use libp2p_peerstore::{Config, Observed, PeerStore, PeerStoreBehaviour, RedbDatastore, Standing};

#[path = "shared/net.rs"]
mod net;
#[path = "shared/steps.rs"]
mod steps;
#[allow(dead_code)]
#[path = "shared/text.rs"]
mod text;

use steps::{Result, in_time, until};
use text::chain;

#[derive(NetworkBehaviour)]
struct Behaviour {
    peer_store: PeerStoreBehaviour,
    identify: Observed<identify::Behaviour>,
}

fn swarm(key: &Keypair, store: &PeerStore) -> Result<Swarm<Behaviour>> {
    let identify = identify::Config::new("/remember/1".to_owned(), key.public());
    let behaviour = Behaviour {
        peer_store: PeerStoreBehaviour::new(store.clone())?,
        identify: store.observe(identify::Behaviour::new(identify)),
    };
    net::swarm(key, behaviour)
}

#[tokio::main]
async fn main() -> ExitCode {
    match story().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("remember: failed: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn story() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("peers.redb");
    // The same key in both runs, or the second one would be another node.
    let key = Keypair::generate_ed25519();

    let other_key = Keypair::generate_ed25519();
    let other_id = other_key.public().to_peer_id();
    let other_store = PeerStore::in_memory(other_id, Config::default());
    let mut other = swarm(&other_key, &other_store)?;
    let address = net::listen(&mut other).await?;
    net::run(other);

    first_run(&key, &file, address, other_id).await?;
    second_run(&key, &file, other_id).await?;
    println!("remember: ok, reached the peer without an address");
    Ok(())
}

async fn first_run(key: &Keypair, file: &Path, address: Multiaddr, other: PeerId) -> Result<()> {
    let local_peer_id = key.public().to_peer_id();
    let datastore = RedbDatastore::open(file)?;
    let store = PeerStore::open(local_peer_id, datastore, Config::default()).await?;
    let mut events = store.subscribe();
    let mut swarm = swarm(key, &store)?;
    swarm.dial(address)?;
    let running = net::run(swarm);

    let proven = || {
        let infos = store.addresses().infos(&other).unwrap_or_default();
        let proven = infos.iter().any(|info| info.standing == Standing::Proven);
        proven && store.protocols().get(&other).is_some()
    };
    until("the other one is known", &mut events, proven, |_| {}).await?;

    running.abort();
    // Only this, or a flush, promises that everything is on disk.
    store.shutdown().await?;
    println!("the first run saved {} peer", store.len());
    Ok(())
}

async fn second_run(key: &Keypair, file: &Path, other: PeerId) -> Result<()> {
    let local_peer_id = key.public().to_peer_id();
    let datastore = RedbDatastore::open(file)?;
    let store = PeerStore::open(local_peer_id, datastore, Config::default()).await?;
    println!("the second run loaded {} peer", store.load_report().peers);

    let mut swarm = swarm(key, &store)?;
    // Those that are worth dialling at a start, best first.
    for peer in store.bootstrap_peers(8) {
        swarm.dial(peer)?;
    }
    in_time("the other one is connected", async {
        while !store.is_connected(&other) {
            swarm.select_next_some().await;
        }
        Ok(())
    })
    .await?;
    drop(swarm);
    store.shutdown().await?;
    Ok(())
}
