//! Starting again from what is remembered: who is dialled first, redial, feelers, and Kademlia's routing table.

#![allow(clippy::unwrap_used)]

#[path = "support/swarm.rs"]
mod swarm;

use std::{num::NonZeroUsize, time::Duration};

use libp2p::{
    Multiaddr, PeerId, identify,
    identity::Keypair,
    swarm::{NetworkBehaviour, SwarmEvent, dummy},
};
use libp2p_peerstore::{
    Config, ManualClock, MemoryDatastore, Observed, PeerStore, PeerStoreBehaviour, Standing,
};
use swarm::*;

fn size(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

/// Peers that listen and say nothing.
async fn listeners(n: usize) -> Vec<(Node<dummy::Behaviour>, Multiaddr)> {
    let mut nodes = Vec::new();
    for _ in 0..n {
        let mut node = silent();
        let address = node.listen().await;
        nodes.push((node, address));
    }
    nodes
}

/// A node that has dialled all of `peers` once, was shut down, and is opened again on the same datastore.
async fn remembering(peers: &mut [(Node<dummy::Behaviour>, Multiaddr)]) -> Setup {
    let key = Keypair::generate_ed25519();
    let datastore = MemoryDatastore::default();
    let id = key.public().to_peer_id();
    let store = PeerStore::open(id, datastore.clone(), Config::default())
        .await
        .unwrap();
    let mut node = Setup::with_store(key.clone(), store)
        .build(|store, _| PeerStoreBehaviour::new(store.clone()).unwrap());
    for (peer, address) in peers.iter_mut() {
        connect(&mut node, peer, address).await;
    }
    node.store.shutdown().await.unwrap();
    drop(node);
    let store = PeerStore::open(id, datastore, Config::default())
        .await
        .unwrap();
    assert_eq!(store.load_report().peers, peers.len());
    Setup::with_store(key, store)
}

/// Lets the node do all that it would do by itself: a dial of the application's is done after it.
async fn settle(node: &mut Node<PeerStoreBehaviour>) {
    let (mut last, address) = listeners(1).await.pop().unwrap();
    connect(node, &mut last, &address).await;
}

/// How many dials the behaviour has begun by itself: those of the application are not told.
fn dials<B: NetworkBehaviour>(node: &Node<B>) -> usize {
    node.count(|event| matches!(event, SwarmEvent::Dialing { .. }))
}

#[tokio::test]
async fn redial_reaches_so_many_remembered_peers_and_no_more() {
    let mut peers = listeners(6).await;
    let setup = remembering(&mut peers).await;
    let mut node = setup.build(|store, _| {
        let behaviour = PeerStoreBehaviour::new(store.clone()).unwrap();
        behaviour.with_redial(size(3), size(2))
    });
    let others: Vec<&mut Node<_>> = peers.iter_mut().map(|(node, _)| node).collect();
    until((&mut node, others), |(node, _)| {
        node.store.connected_peers().len() == 3
    })
    .await;
    settle(&mut node).await;
    assert_eq!(dials(&node), 3);
}

#[tokio::test]
async fn redial_goes_on_with_others_when_some_are_gone() {
    let mut peers = listeners(4).await;
    let setup = remembering(&mut peers).await;
    // Two of them are gone for good.
    peers.truncate(2);
    let mut node = setup.build(|store, _| {
        let behaviour = PeerStoreBehaviour::new(store.clone()).unwrap();
        behaviour.with_redial(size(2), size(1))
    });
    let others: Vec<&mut Node<_>> = peers.iter_mut().map(|(node, _)| node).collect();
    until((&mut node, others), |(node, _)| {
        node.store.connected_peers().len() == 2
    })
    .await;
}

#[tokio::test]
async fn without_redial_and_feelers_nothing_is_dialled() {
    let mut peers = listeners(3).await;
    let setup = remembering(&mut peers).await;
    let mut node = setup.build(|store, _| PeerStoreBehaviour::new(store.clone()).unwrap());
    settle(&mut node).await;
    assert_eq!(dials(&node), 0);
}

#[tokio::test]
async fn a_feeler_proves_an_address_that_nobody_needed() {
    let mut peers = listeners(1).await;
    let (peer, address) = peers.pop().unwrap();
    let mut peer = peer;
    let mut node = Setup::default().build(|store, _| {
        let behaviour = PeerStoreBehaviour::new(store.clone()).unwrap();
        behaviour.with_feelers(Duration::from_millis(1))
    });
    node.store.addresses().add(peer.id, [address.clone()]);
    assert_eq!(
        node.info(peer.id, &address).unwrap().standing,
        Standing::Hearsay
    );
    let id = peer.id;
    until((&mut node, &mut peer), |(node, _)| {
        let info = node.info(id, &address);
        info.is_some_and(|info| info.standing == Standing::Proven)
    })
    .await;
    // Its host is left in peace from now on, and so is a peer that is proven.
    settle(&mut node).await;
    assert_eq!(dials(&node), 1);
}

#[tokio::test]
async fn kademlia_is_filled_with_remembered_peers_and_finds_others_through_them() {
    #[derive(NetworkBehaviour)]
    #[behaviour(prelude = "libp2p::swarm::derive_prelude")]
    struct Whole {
        peer_store: PeerStoreBehaviour,
        identify: Observed<identify::Behaviour>,
        kad: Observed<Kad>,
    }
    let build = |setup: Setup| {
        setup.build(|store, key| Whole {
            peer_store: PeerStoreBehaviour::new(store.clone()).unwrap(),
            identify: store.observe(swarm::identify(key)),
            kad: store.observe(swarm::kad(key)),
        })
    };
    // `friend` knows `far`; the node has only ever met `friend`.
    let (mut friend, mut far) = (plain(), plain());
    let (friend_at, far_at) = (friend.listen().await, far.listen().await);
    friend
        .swarm
        .behaviour_mut()
        .kad
        .add_address(&far.id, far_at.clone());
    connect(&mut friend, &mut far, &far_at).await;

    let key = Keypair::generate_ed25519();
    let id = key.public().to_peer_id();
    let datastore = MemoryDatastore::default();
    let store = PeerStore::open(id, datastore.clone(), Config::default())
        .await
        .unwrap();
    let mut node = build(Setup::with_store(key.clone(), store));
    let friend_id = friend.id;
    connect(&mut node, &mut friend, &friend_at).await;
    until((&mut node, &mut friend, &mut far), |(node, _, _)| {
        node.speaks(friend_id, "/ipfs/kad/1.0.0")
    })
    .await;
    node.store.delete(&far.id);
    node.store.shutdown().await.unwrap();
    drop(node);

    let store = PeerStore::open(id, datastore, Config::default())
        .await
        .unwrap();
    let mut node = build(Setup::with_store(key, store.clone()));
    let seeded = store.seed_kademlia(&mut node.swarm.behaviour_mut().kad, 20);
    assert_eq!(seeded, 1);
    node.swarm.behaviour_mut().kad.bootstrap().unwrap();
    let far_id = far.id;
    until((&mut node, &mut friend, &mut far), |(node, _, _)| {
        node.store.contains(&far_id) && node.store.is_connected(&friend_id)
    })
    .await;
}

#[tokio::test]
async fn everybody_who_was_dialled_is_chosen_once() {
    let mut peers = listeners(5).await;
    let ids: Vec<PeerId> = peers.iter().map(|(node, _)| node.id).collect();
    let setup = remembering(&mut peers).await;
    // On loopback groups mean nothing.
    let chosen = setup.store.bootstrap_peers(10);
    assert_eq!(sorted(chosen), sorted(ids));
    assert_eq!(setup.store.bootstrap_peers(2).len(), 2);
    assert!(setup.store.bootstrap_peers(0).is_empty());
}

/// A run in which five peers are dialled, and then two of them once more. It is still running.
struct Dialled {
    node: Node<PeerStoreBehaviour>,
    peers: Vec<(Node<dummy::Behaviour>, Multiaddr)>,
    clock: ManualClock,
    datastore: MemoryDatastore,
}

impl Dialled {
    async fn new() -> Self {
        let clock = ManualClock::default();
        let (key, datastore) = (Keypair::generate_ed25519(), MemoryDatastore::default());
        let config = Config::default().with_clock(clock.clone());
        let store = PeerStore::open(key.public().to_peer_id(), datastore.clone(), config)
            .await
            .unwrap();
        let node = Setup::with_store(key, store)
            .build(|store, _| PeerStoreBehaviour::new(store.clone()).unwrap());
        let mut dialled = Self {
            peers: listeners(5).await,
            node,
            clock,
            datastore,
        };
        for n in [0, 1, 2, 3, 4] {
            dialled.dial(n).await;
        }
        dialled.node.store.flush().await.unwrap();
        for n in [3, 0] {
            dialled.dial(n).await;
        }
        dialled
    }

    async fn dial(&mut self, n: usize) {
        let (peer, address) = &mut self.peers[n];
        connect(&mut self.node, peer, address).await;
        disconnect(&mut self.node, peer).await;
        // More than the grain of times.
        self.clock.advance(Duration::from_secs(100));
    }

    /// Whom another run dials first that begins now, as if this one had been killed.
    async fn anchors_on_disk(&self) -> Vec<PeerId> {
        let config = Config::default().with_clock(self.clock.clone());
        let id = self.node.store.local_peer_id();
        let store = PeerStore::open(id, self.datastore.clone(), config).await;
        store.unwrap().bootstrap_peers(2)
    }

    fn ids(&self, n: [usize; 2]) -> Vec<PeerId> {
        n.map(|n| self.peers[n].0.id).to_vec()
    }
}

#[tokio::test]
async fn the_last_outbound_peers_are_the_first_to_be_dialled_the_latest_first() {
    let dialled = Dialled::new().await;
    dialled.node.store.flush().await.unwrap();
    assert_eq!(dialled.anchors_on_disk().await, dialled.ids([0, 3]));

    // And after an end in order.
    let store = dialled.node.store.clone();
    store.shutdown().await.unwrap();
    assert_eq!(dialled.anchors_on_disk().await, dialled.ids([0, 3]));
}

#[tokio::test]
async fn the_last_outbound_peers_are_written_without_a_flush() {
    let mut dialled = Dialled::new().await;
    // Of two in a minute the second is not written at once, but when anything happens after that minute.
    for n in [2, 1] {
        let (peer, address) = &mut dialled.peers[n];
        connect(&mut dialled.node, peer, address).await;
        disconnect(&mut dialled.node, peer).await;
        dialled.clock.advance(Duration::from_secs(30));
    }
    dialled.node.store.delete(&PeerId::random());
    dialled.clock.advance(Duration::from_secs(60));
    // The engine writes when it comes to it.
    while dialled.node.store.unsaved() > 0 {
        tokio::task::yield_now().await;
    }
    let anchors = dialled.anchors_on_disk().await;
    assert_eq!(sorted(anchors), sorted(dialled.ids([1, 2])));
}
