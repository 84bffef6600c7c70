//! A swarm on the loopback interface, and an event loop that does nothing but poll it.

use futures::StreamExt;
use libp2p::{
    Multiaddr, Swarm, SwarmBuilder,
    identity::Keypair,
    multiaddr::Protocol,
    noise,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use tokio::task::JoinHandle;

use crate::steps::Result;

/// TCP, Noise and Yamux round a behaviour.
pub fn swarm<B: NetworkBehaviour>(key: &Keypair, behaviour: B) -> Result<Swarm<B>> {
    Ok(SwarmBuilder::with_existing_identity(key.clone())
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )?
        .with_behaviour(|_| behaviour)?
        .build())
}

/// Starts to listen at some port of this machine; returns the address with the node's id at its end.
pub async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>) -> Result<Multiaddr> {
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let id = *swarm.local_peer_id();
    loop {
        match swarm.select_next_some().await {
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

/// Polls a swarm in a task of its own, until the task is aborted.
pub fn run<B>(mut swarm: Swarm<B>) -> JoinHandle<()>
where
    B: NetworkBehaviour<ToSwarm: Send> + Send,
{
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    })
}
