//! Who speaks X? A node meets three others and asks its store whom it can ping.
//!
//! ```text
//! cargo run --example who_speaks
//! ```
//!
//! You will see what each of them says that it speaks, as soon as it says so, and how many can be pinged. Everything
//! happens on this machine's loopback interface.

use std::process::ExitCode;

use libp2p::{
    PeerId, identify,
    identity::Keypair,
    ping,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};
use libp2p_peerstore::{Config, Event, Observed, Order, PeerStore, PeerStoreBehaviour};

#[path = "shared/net.rs"]
mod net;
#[path = "shared/steps.rs"]
mod steps;
#[allow(dead_code)]
#[path = "shared/text.rs"]
mod text;

use steps::{Result, until};
use text::{chain, plain_list};

const PING: &str = "/ipfs/ping/1.0.0";

#[derive(NetworkBehaviour)]
struct Behaviour {
    peer_store: PeerStoreBehaviour,
    identify: Observed<identify::Behaviour>,
    ping: Toggle<ping::Behaviour>,
}

fn behaviour(key: &Keypair, store: &PeerStore, pings: bool) -> Result<Behaviour> {
    let identify = identify::Config::new("/who-speaks/1".to_owned(), key.public());
    Ok(Behaviour {
        peer_store: PeerStoreBehaviour::new(store.clone())?,
        identify: store.observe(identify::Behaviour::new(identify)),
        ping: pings.then(ping::Behaviour::default).into(),
    })
}

#[tokio::main]
async fn main() -> ExitCode {
    match story().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("who_speaks: failed: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn story() -> Result<()> {
    let key = Keypair::generate_ed25519();
    let store = PeerStore::in_memory(key.public().to_peer_id(), Config::default());
    let mut swarm = net::swarm(&key, behaviour(&key, &store, true)?)?;

    let mut others = Vec::new();
    for pings in [true, false, true] {
        let key = Keypair::generate_ed25519();
        let id = key.public().to_peer_id();
        let store = PeerStore::in_memory(id, Config::default());
        let mut other = net::swarm(&key, behaviour(&key, &store, pings)?)?;
        swarm.dial(net::listen(&mut other).await?)?;
        net::run(other);
        others.push(id);
    }
    net::run(swarm);

    // A subscription says what changes, so that nobody has to ask again and again.
    let mut events = store.subscribe();
    let is_known = |peer: &PeerId| {
        let spoken = store.protocols().get(peer);
        spoken.is_some_and(|names| !names.is_empty())
    };
    until(
        "everybody has said what they speak",
        &mut events,
        || others.iter().all(is_known),
        |event| {
            if let Event::ProtocolsChanged {
                peer, protocols, ..
            } = event
            {
                let names: Vec<&str> = protocols.iter().map(AsRef::as_ref).collect();
                println!("{peer} speaks {}", plain_list(names));
            }
        },
    )
    .await?;

    // The short way. It costs as much as there are answers, however many peers are known.
    let mut pingable = store.peers_supporting(PING);
    println!("{} of {} can be pinged", pingable.len(), store.len());

    // The long way, when there is more to ask.
    let mut best = store
        .query()
        .speaks(PING)
        .connected(true)
        .order_by(Order::Confidence)
        .limit(10)
        .ids();
    pingable.sort_unstable();
    best.sort_unstable();
    assert_eq!(pingable, best);

    // And of one peer: which of the versions that this node knows is the first that both speak?
    let first = store
        .protocols()
        .first_supported(&others[0], ["/ipfs/ping/2.0.0", PING]);
    println!("with {}, the one to use is {first:?}", others[0]);

    println!("who_speaks: ok, {} can be pinged", pingable.len());
    Ok(())
}
