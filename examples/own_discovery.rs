//! Observe your own discovery protocol: what its behaviour yields goes into the store by itself.
//!
//! ```text
//! cargo run --example own_discovery
//! ```
//!
//! The protocol is a notice board: a list of peers in a channel, standing for whatever you have (a tracker, a blockchain, a
//! configuration service). You will see a notice arrive, its peer in the store, a dial by nothing but the peer's id, and the
//! notice withdrawn again.

use std::{
    convert::Infallible,
    process::ExitCode,
    task::{Context, Poll},
};

use futures::{StreamExt, channel::mpsc};
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    identity::Keypair,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};
use libp2p_peerstore::{Config, Learned, Observed, PeerStore, PeerStoreBehaviour, Teach};

#[path = "shared/net.rs"]
mod net;
#[allow(dead_code)]
#[path = "shared/steps.rs"]
mod steps;
#[allow(dead_code)]
#[path = "shared/text.rs"]
mod text;

use steps::{Result, in_time};
use text::chain;

// --- What you write ------------------------------------------------------------------------------------------

/// What the notice board says.
#[derive(Debug, Clone)]
enum Notice {
    Posted(PeerId, Vec<Multiaddr>),
    TakenDown(PeerId),
}

/// This is all that the store needs to know. For an event type of another crate, `PeerStore::observe_with` takes the same as a
/// closure.
impl Teach for Notice {
    fn teach(&self, learned: &mut Learned<'_>) {
        match self {
            Notice::Posted(peer, addresses) => learned.add(*peer, addresses),
            // What somebody else has told as well stays.
            Notice::TakenDown(peer) => learned.withdraw(*peer, None),
        };
    }
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    peer_store: PeerStoreBehaviour,
    board: Observed<Board>,
}

// --- The protocol, which knows nothing of a store ------------------------------------------------------------

struct Board {
    notices: mpsc::UnboundedReceiver<Notice>,
}

impl NetworkBehaviour for Board {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Notice;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let never: Infallible = event;
        match never {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Notice, THandlerInEvent<Self>>> {
        match self.notices.poll_next_unpin(cx) {
            Poll::Ready(Some(notice)) => Poll::Ready(ToSwarm::GenerateEvent(notice)),
            _ => Poll::Pending,
        }
    }
}

// --- The story -----------------------------------------------------------------------------------------------

#[tokio::main]
async fn main() -> ExitCode {
    match story().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("own_discovery: failed: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn story() -> Result<()> {
    let other_key = Keypair::generate_ed25519();
    let other = other_key.public().to_peer_id();
    let mut other_swarm = net::swarm(&other_key, dummy::Behaviour)?;
    let address = net::listen(&mut other_swarm).await?;
    let other_running = net::run(other_swarm);

    let key = Keypair::generate_ed25519();
    let store = PeerStore::in_memory(key.public().to_peer_id(), Config::default());
    let (post, notices) = mpsc::unbounded();
    let behaviour = Behaviour {
        peer_store: PeerStoreBehaviour::new(store.clone())?,
        board: store.observe(Board { notices }),
    };
    let mut swarm = net::swarm(&key, behaviour)?;

    let stranger = PeerId::random();
    post.unbounded_send(Notice::Posted(other, vec![address]))?;
    post.unbounded_send(Notice::Posted(
        stranger,
        vec!["/ip4/127.0.0.1/tcp/1".parse()?],
    ))?;
    in_time("both notices are read", async {
        while store.len() < 2 {
            swarm.select_next_some().await;
        }
        Ok(())
    })
    .await?;
    println!("the board told of {} peers", store.len());

    swarm.dial(other)?;
    in_time("the peer is reached by its id", async {
        while !store.is_connected(&other) {
            swarm.select_next_some().await;
        }
        Ok(())
    })
    .await?;
    println!("reached one of them by its id");

    post.unbounded_send(Notice::TakenDown(stranger))?;
    in_time("the other notice is taken down", async {
        while store.contains(&stranger) {
            swarm.select_next_some().await;
        }
        Ok(())
    })
    .await?;
    other_running.abort();
    println!("own_discovery: ok, {} peer is left", store.len());
    Ok(())
}
