//! Real swarms (TCP, Noise, Yamux) on the loopback interface, and a way to drive several of them until something
//! holds. Nothing here sleeps: a test that waits in vain ends at one deadline.

// Every test file compiles this for itself and uses its own part of it.
#![allow(dead_code, unused_macros, unused_imports)]

#[path = "swarm/compose.rs"]
mod compose;
#[path = "swarm/record.rs"]
mod record;

use std::{
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    StreamExt,
    future::{Either, poll_fn, select},
    pin_mut,
};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, Transport,
    core::{ConnectedPoint, transport::ListenerId, upgrade::Version},
    identify,
    identity::Keypair,
    kad,
    multiaddr::Protocol,
    noise,
    swarm::{
        self, DialError, NetworkBehaviour, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
        dummy,
    },
    tcp, yamux,
};
use libp2p_peerstore::{
    AddressInfo, Config, Datastore, Event, PeerStore, PeerStoreBehaviour, Subscription,
};

pub use compose::*;
pub use record::*;

/// How long any wait may last before its test fails: far more than a busy machine needs.
const DEADLINE: Duration = Duration::from_secs(90);

// --- building ----------------------------------------------------------------------------------------------

/// A node before its behaviour is known.
pub struct Setup {
    pub key: Keypair,
    pub store: PeerStore,
    smart_dial: bool,
    idle: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self::with_config(Config::default())
    }
}

impl Setup {
    pub fn with_config(config: Config) -> Self {
        let key = Keypair::generate_ed25519();
        let store = PeerStore::in_memory(key.public().to_peer_id(), config);
        Self::with_store(key, store)
    }

    pub fn with_key(key: Keypair) -> Self {
        let store = PeerStore::in_memory(key.public().to_peer_id(), Config::default());
        Self::with_store(key, store)
    }

    /// A store that writes every change at once.
    pub async fn with_datastore(datastore: impl Datastore) -> Self {
        let key = Keypair::generate_ed25519();
        let config = Config::default()
            .with_commit_threshold(1.try_into().unwrap())
            .with_min_commit_interval(Duration::ZERO);
        let id = key.public().to_peer_id();
        let store = PeerStore::open(id, datastore, config).await.unwrap();
        Self::with_store(key, store)
    }

    pub fn with_store(key: Keypair, store: PeerStore) -> Self {
        Self {
            key,
            store,
            smart_dial: false,
            idle: Duration::from_secs(3600),
        }
    }

    pub fn smart_dial(mut self, smart_dial: bool) -> Self {
        self.smart_dial = smart_dial;
        self
    }

    pub fn idle(mut self, timeout: Duration) -> Self {
        self.idle = timeout;
        self
    }

    /// A node with any behaviour.
    pub fn build<B: NetworkBehaviour>(
        self,
        behaviour: impl FnOnce(&PeerStore, &Keypair) -> B,
    ) -> Node<B> {
        let behaviour = behaviour(&self.store, &self.key);
        let dials = Dials::default();
        let recording = dials.clone();
        let swarm = SwarmBuilder::with_existing_identity(self.key)
            .with_tokio()
            .with_other_transport(|key| Recording {
                inner: tcp::tokio::Transport::new(tcp::Config::default())
                    .upgrade(Version::V1Lazy)
                    .authenticate(noise::Config::new(key).unwrap())
                    .multiplex(yamux::Config::default())
                    .boxed(),
                dials: recording,
            })
            .unwrap()
            .with_behaviour(|_| behaviour)
            .unwrap()
            .with_swarm_config(|config| {
                let config = config.with_idle_connection_timeout(self.idle);
                if self.smart_dial {
                    config.with_smart_dial()
                } else {
                    config
                }
            })
            .build();
        Node {
            id: *swarm.local_peer_id(),
            events: self.store.subscribe(),
            store: self.store,
            said: Vec::new(),
            dials,
            swarm,
        }
    }

    /// A node with the store's behaviour and two others, in the order of `N`.
    pub fn compose<N, A, B>(
        self,
        a: impl FnOnce(&PeerStore, &Keypair) -> A,
        b: impl FnOnce(&PeerStore, &Keypair) -> B,
    ) -> Node<N>
    where
        N: Order<A, B>,
    {
        self.build(|store, key| {
            let peer_store = PeerStoreBehaviour::new(store.clone()).unwrap();
            N::compose(peer_store, a(store, key), b(store, key))
        })
    }

    /// Identify and Kademlia, both observed.
    pub fn observing<N: Observing>(self) -> Node<N> {
        self.compose(
            |store, key| store.observe(identify(key)),
            |store, key| store.observe(kad(key)),
        )
    }

    /// Identify and Kademlia without a store.
    pub fn plain(self, identify: impl FnOnce(&Keypair) -> identify::Behaviour) -> Node<Plain> {
        self.build(|_, key| Plain {
            identify: identify(key),
            kad: kad(key),
        })
    }

    /// Nothing but the store's behaviour.
    pub fn alone<N: Alone>(self) -> Node<N> {
        self.compose(|_, _| dummy::Behaviour, |_, _| dummy::Behaviour)
    }
}

pub fn observing<N: Observing>() -> Node<N> {
    Setup::default().observing()
}

pub fn alone<N: Alone>() -> Node<N> {
    Setup::default().alone()
}

/// A peer that has no store, identifies itself, and serves Kademlia.
pub fn plain() -> Node<Plain> {
    plain_with(identify)
}

pub fn plain_with(identify: impl FnOnce(&Keypair) -> identify::Behaviour) -> Node<Plain> {
    Setup::default().plain(identify)
}

/// A peer that says nothing of itself.
pub fn silent() -> Node<dummy::Behaviour> {
    Setup::default().build(|_, _| dummy::Behaviour)
}

#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "Out")]
pub struct Plain {
    pub identify: identify::Behaviour,
    pub kad: Kad,
}

// --- a node ------------------------------------------------------------------------------------------------

pub struct Node<B: NetworkBehaviour> {
    pub id: PeerId,
    pub swarm: Swarm<B>,
    pub store: PeerStore,
    /// The events of the store since the last look.
    pub events: Subscription,
    /// What the swarm said since it was built.
    pub said: Vec<SwarmEvent<B::ToSwarm>>,
    dials: Dials,
}

impl<B: NetworkBehaviour> Node<B> {
    /// Listens on a port of the loopback interface.
    pub async fn listen(&mut self) -> Multiaddr {
        self.listener().await.1
    }

    pub async fn listener(&mut self) -> (ListenerId, Multiaddr) {
        let id = self.swarm.listen_on(at(0)).unwrap();
        let address = |node: &mut &mut Self| {
            node.said.iter().find_map(|event| match event {
                SwarmEvent::NewListenAddr {
                    listener_id,
                    address,
                } if *listener_id == id => Some(address.clone()),
                _ => None,
            })
        };
        (id, get(self, address).await)
    }

    /// Stops listening, and waits until the port is closed.
    pub async fn stop_listening(&mut self, listener: ListenerId) {
        assert!(self.swarm.remove_listener(listener));
        until(&mut *self, |node| {
            node.said.iter().any(|event| {
                matches!(event, SwarmEvent::ListenerClosed { listener_id, .. } if *listener_id == listener)
            })
        })
        .await;
        // The socket goes with the next poll after that.
        let mut node = self;
        poll_fn(|cx| {
            while node.drive(cx) {}
            Poll::Ready(())
        })
        .await;
    }

    /// How many of the swarm's events so far are like this.
    pub fn count(&self, like: impl Fn(&SwarmEvent<B::ToSwarm>) -> bool) -> usize {
        self.said.iter().filter(|event| like(event)).count()
    }

    pub fn is_connected(&self, peer: PeerId) -> bool {
        self.swarm.is_connected(&peer)
    }

    /// The addresses that were handed to the transport since the last look, in the order in which they were.
    pub fn dialled(&self) -> Vec<Multiaddr> {
        std::mem::take(&mut *self.dials.lock().unwrap())
    }

    /// Dials a peer by its id, whatever else is going on, and tells which addresses the transport was given.
    pub fn dial(&mut self, peer: PeerId) -> Vec<Multiaddr> {
        self.dial_with(always(peer).build())
    }

    pub fn dial_with(&mut self, opts: DialOpts) -> Vec<Multiaddr> {
        self.dialled();
        self.swarm.dial(opts).unwrap();
        self.dialled()
    }

    /// The errors of the dials to a peer so far.
    pub fn dial_errors(&self, peer: PeerId) -> Vec<&DialError> {
        let errors = self.said.iter().filter_map(|event| match event {
            SwarmEvent::OutgoingConnectionError {
                peer_id: Some(dialled),
                error,
                ..
            } if *dialled == peer => Some(error),
            _ => None,
        });
        errors.collect()
    }

    /// What the store says of one address of a peer.
    pub fn info(&self, peer: PeerId, address: &Multiaddr) -> Option<AddressInfo> {
        let infos = self.store.addresses().infos(&peer)?;
        infos.into_iter().find(|info| info.address == *address)
    }

    /// The addresses of a peer in the order of the alphabet.
    pub fn addresses(&self, peer: PeerId) -> Vec<Multiaddr> {
        sorted(self.store.addresses().get(&peer).unwrap_or_default())
    }

    /// The protocols of a peer in the order of the alphabet.
    pub fn protocols(&self, peer: PeerId) -> Vec<String> {
        names(&self.store.protocols().get(&peer).unwrap_or_default())
    }

    /// Whether a peer speaks a protocol.
    pub fn speaks(&self, peer: PeerId, protocol: &str) -> bool {
        self.store.protocols().supports(&peer, [protocol]).len() == 1
    }

    /// The events of the store since the last look.
    pub fn news(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.try_next()).collect()
    }
}

impl<B: NetworkBehaviour<ToSwarm = Out>> Node<B> {
    /// How often a peer has identified itself, by an answer or a push.
    pub fn identified(&self, peer: PeerId) -> usize {
        self.identifications(peer).count()
    }

    /// What a peer has said of itself, in order.
    pub fn identifications(&self, peer: PeerId) -> impl Iterator<Item = &identify::Info> {
        self.said.iter().filter_map(move |event| match event {
            SwarmEvent::Behaviour(Out::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) if *peer_id == peer => Some(info),
            _ => None,
        })
    }

    /// The protocols that a peer listed when it last identified itself, in the order of the alphabet.
    pub fn listed_protocols(&self, peer: PeerId) -> Vec<String> {
        names(&self.identifications(peer).last().unwrap().protocols)
    }

    /// What Kademlia said.
    pub fn kad_events(&self) -> impl Iterator<Item = &kad::Event> {
        self.said.iter().filter_map(|event| match event {
            SwarmEvent::Behaviour(Out::Kad(event)) => Some(event),
            _ => None,
        })
    }
}

// --- addresses ---------------------------------------------------------------------------------------------

/// A port of the loopback interface.
pub fn at(port: u16) -> Multiaddr {
    format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
}

/// A port that refuses connections: nobody listens on the first ports of a machine, and none is ever given out.
pub fn refused(n: u16) -> Multiaddr {
    assert!((1..=6).contains(&n));
    at(n)
}

/// An address that no transport of the tests speaks.
pub fn unsupported() -> Multiaddr {
    "/ip4/127.0.0.1/udp/1/quic-v1".parse().unwrap()
}

/// The form in which the swarm dials.
pub fn with_id(address: &Multiaddr, peer: PeerId) -> Multiaddr {
    address.clone().with(Protocol::P2p(peer))
}

pub fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort();
    items
}

/// Protocols as text, in the order of the alphabet.
pub fn names(protocols: &[StreamProtocol]) -> Vec<String> {
    sorted(protocols.iter().map(|name| name.to_string()).collect())
}

/// A dial by peer id that takes place even if there is a connection already.
pub fn always(peer: PeerId) -> swarm::dial_opts::WithPeerId {
    DialOpts::peer_id(peer).condition(PeerCondition::Always)
}

/// A dial by an address of the application's own.
pub fn to(peer: PeerId, address: &Multiaddr) -> DialOpts {
    always(peer).addresses(vec![address.clone()]).build()
}

// --- driving -----------------------------------------------------------------------------------------------

/// One or more nodes that are polled together.
pub trait Drive {
    /// Whether any of them got on.
    fn drive(&mut self, cx: &mut Context<'_>) -> bool;
}

impl<B: NetworkBehaviour> Drive for &mut Node<B> {
    fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        match self.swarm.poll_next_unpin(cx) {
            Poll::Ready(Some(event)) => {
                self.said.push(event);
                true
            }
            _ => false,
        }
    }
}

macro_rules! drive_together {
    ($($node:ident),*) => {
        impl<$($node: Drive),*> Drive for ($($node,)*) {
            #[allow(non_snake_case)]
            fn drive(&mut self, cx: &mut Context<'_>) -> bool {
                let ($($node,)*) = self;
                let mut progress = false;
                $(progress |= $node.drive(cx);)*
                progress
            }
        }
    };
}

drive_together!(A, B);
drive_together!(A, B, C);
drive_together!(A, B, C, D);

impl<T: Drive> Drive for Vec<T> {
    fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        self.iter_mut()
            .fold(false, |progress, node| node.drive(cx) | progress)
    }
}

/// Drives the nodes until there is an answer.
#[track_caller]
pub fn get<T: Drive, R>(
    mut nodes: T,
    mut answer: impl FnMut(&mut T) -> Option<R>,
) -> impl Future<Output = R> {
    let caller = std::panic::Location::caller();
    async move {
        let work = poll_fn(|cx| {
            loop {
                if let Some(answer) = answer(&mut nodes) {
                    return Poll::Ready(answer);
                }
                if !nodes.drive(cx) {
                    // Polling may have changed what the answer depends on without a word of the swarm.
                    return answer(&mut nodes).map_or(Poll::Pending, Poll::Ready);
                }
            }
        });
        let deadline = futures_timer::Delay::new(DEADLINE);
        pin_mut!(work, deadline);
        match select(work, deadline).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => panic!("nothing came of the wait at {caller}"),
        }
    }
}

/// Drives the nodes until something holds.
#[track_caller]
pub fn until<T: Drive>(
    nodes: T,
    mut holds: impl FnMut(&mut T) -> bool,
) -> impl Future<Output = ()> {
    get(nodes, move |nodes| holds(nodes).then_some(()))
}

/// Connects two nodes by an address of the second, given by the application.
#[track_caller]
pub fn connect<A: NetworkBehaviour, B: NetworkBehaviour>(
    a: &mut Node<A>,
    b: &mut Node<B>,
    address: &Multiaddr,
) -> impl Future<Output = ()> {
    let (a_id, b_id) = (a.id, b.id);
    a.swarm.dial(to(b_id, address)).unwrap();
    until((a, b), move |(a, b)| {
        a.is_connected(b_id) && b.is_connected(a_id)
    })
}

/// `b` dials `a` from a port that it does not listen on; returns how `a` sees it.
pub async fn dialled_by<A, B>(a: &mut Node<A>, b: &mut Node<B>) -> Multiaddr
where
    A: NetworkBehaviour,
    B: NetworkBehaviour,
{
    let listening = a.listen().await;
    let opts = always(a.id)
        .addresses(vec![listening])
        .allocate_new_port()
        .build();
    b.swarm.dial(opts).unwrap();
    get((a, b), |(a, b)| {
        let seen = a.said.iter().find_map(|event| match event {
            SwarmEvent::ConnectionEstablished {
                endpoint: ConnectedPoint::Listener { send_back_addr, .. },
                ..
            } => Some(send_back_addr.clone()),
            _ => None,
        })?;
        b.is_connected(a.id).then_some(seen)
    })
    .await
}

/// Closes every connection between two nodes, also one that Kademlia opens in the meantime.
#[track_caller]
pub fn disconnect<A: NetworkBehaviour, B: NetworkBehaviour>(
    a: &mut Node<A>,
    b: &mut Node<B>,
) -> impl Future<Output = ()> {
    let (a_id, b_id) = (a.id, b.id);
    let opened =
        |a: &Node<A>| a.count(|event| matches!(event, SwarmEvent::ConnectionEstablished { .. }));
    let mut closed = 0;
    until((a, b), move |(a, b)| {
        if closed < opened(a) {
            closed = opened(a);
            let _ = a.swarm.disconnect_peer_id(b_id);
        }
        !a.is_connected(b_id) && !b.is_connected(a_id)
    })
}

/// Drives two nodes until the first has heard the second identify itself so many times more.
#[track_caller]
pub fn rounds<A, B>(a: &mut Node<A>, b: &mut Node<B>, rounds: usize) -> impl Future<Output = ()>
where
    A: NetworkBehaviour<ToSwarm = Out>,
    B: NetworkBehaviour,
{
    let peer = b.id;
    let enough = a.identified(peer) + rounds;
    until((a, b), move |(a, _)| a.identified(peer) >= enough)
}
