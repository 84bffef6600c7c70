//! The other peers: each a swarm while it is online.

use std::time::Duration;

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, identify,
    identity::Keypair,
    noise,
    swarm::{SwarmEvent, dial_opts::DialOpts},
    tcp, yamux,
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{Result, STUCK};
use crate::trace::Place;

/// A peer: a swarm while it is online.
pub(super) struct Remote {
    pub(super) key: Keypair,
    pub(super) id: PeerId,
    pub(super) up: Option<Up>,
}

pub(super) struct Up {
    pub(super) place: Place,
    pub(super) listens: bool,
    /// Whom to dial. The swarm ends with it.
    pub(super) dials: mpsc::Sender<Multiaddr>,
    pub(super) task: JoinHandle<()>,
}

pub(super) fn identify_as(key: &Keypair) -> identify::Behaviour {
    let config = identify::Config::new("/dial-quality/1".to_owned(), key.public());
    // The store is what is measured, not the cache beside it.
    identify::Behaviour::new(config.with_cache_size(0))
}

/// The swarm of a peer that comes online.
pub(super) async fn online(
    key: &Keypair,
    address: Multiaddr,
    listens: bool,
) -> Result<Swarm<identify::Behaviour>> {
    let mut swarm = SwarmBuilder::with_existing_identity(key.clone())
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )?
        .with_behaviour(identify_as)?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::MAX))
        .build();
    if !listens {
        // Where it believes to be, behind a NAT.
        swarm.add_external_address(address);
        return Ok(swarm);
    }
    swarm.listen_on(address)?;
    let listens = async { while listening(&swarm.select_next_some().await).is_none() {} };
    tokio::time::timeout(STUCK, listens).await?;
    Ok(swarm)
}

pub(super) fn listening<T>(event: &SwarmEvent<T>) -> Option<Multiaddr> {
    match event {
        SwarmEvent::NewListenAddr { address, .. } => Some(address.clone()),
        _ => None,
    }
}

/// The life of a peer that is online: it answers, and dials whom it is told to.
pub(super) async fn live(
    mut swarm: Swarm<identify::Behaviour>,
    mut dials: mpsc::Receiver<Multiaddr>,
) {
    loop {
        tokio::select! {
            address = dials.recv() => match address {
                Some(address) => {
                    let dial = DialOpts::unknown_peer_id().address(address);
                    // Should it fail, nobody comes, and whoever waits for it says so.
                    drop(swarm.dial(dial.allocate_new_port().build()));
                }
                None => return,
            },
            _ = swarm.select_next_some() => {}
        }
    }
}
