//! What the behaviour adds to a swarm: connections made, identified and closed, with it and without.

use std::time::{Duration, Instant};

use futures::{
    StreamExt,
    future::{Either, select},
};
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, identify,
    identity::Keypair,
    noise,
    swarm::{
        NetworkBehaviour, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
    tcp, yamux,
};
use libp2p_peerstore::{Config, Event, Observed, PeerStore, PeerStoreBehaviour};

use crate::bed::{
    Size,
    node::{some, tell},
    peers::Peer,
    row::{Row, nanos},
    time::{median, thread_time},
};

/// Connections of one round.
const CONNECTIONS: usize = 100;

#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "Out")]
struct With {
    peer_store: PeerStoreBehaviour,
    identify: Observed<identify::Behaviour>,
}

#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "Out")]
struct Without {
    identify: identify::Behaviour,
}

#[allow(clippy::large_enum_variant)]
enum Out {
    Store(#[allow(dead_code)] Event),
    Identify(identify::Event),
}

impl From<Event> for Out {
    fn from(event: Event) -> Self {
        Self::Store(event)
    }
}

impl From<identify::Event> for Out {
    fn from(event: identify::Event) -> Self {
        Self::Identify(event)
    }
}

/// Two swarms of one kind, polled by one thread, which always has something to do: it is the machine that counts.
struct Pair<B: NetworkBehaviour> {
    dialler: Swarm<B>,
    listener: Swarm<B>,
    at: Multiaddr,
}

impl<B: NetworkBehaviour<ToSwarm = Out>> Pair<B> {
    async fn new(behaviour: impl Fn(&Keypair) -> B) -> Self {
        let mut dialler = swarm(&behaviour);
        let mut listener = swarm(&behaviour);
        // The dialler too has an address to tell.
        listen(&mut dialler).await;
        let at = listen(&mut listener).await;
        Self {
            dialler,
            listener,
            at,
        }
    }

    /// Makes a connection, waits until both sides know who the other one is, and closes it.
    async fn connect_once(&mut self) {
        let peer = *self.listener.local_peer_id();
        let dial = DialOpts::peer_id(peer)
            .condition(PeerCondition::Always)
            // Behaviours are asked all the same. Were their answer taken, identify alone would have this address dialled
            // twice, which the store prevents.
            .addresses(vec![self.at.clone()])
            // Or a connection that was closed would be in the way of the next one.
            .allocate_new_port()
            .build();
        self.dialler.dial(dial).expect("nobody forbids it");
        self.until(2, |event| {
            matches!(
                event,
                SwarmEvent::Behaviour(Out::Identify(identify::Event::Received { .. }))
            )
        })
        .await;
        self.dialler
            .disconnect_peer_id(peer)
            .expect("it is connected");
        self.until(2, |event| {
            matches!(event, SwarmEvent::ConnectionClosed { .. })
        })
        .await;
    }

    /// Polls both until so many such events came.
    async fn until(&mut self, count: usize, is_one: impl Fn(&SwarmEvent<Out>) -> bool) {
        let mut met = 0;
        while met < count {
            let next = select(
                self.dialler.select_next_some(),
                self.listener.select_next_some(),
            );
            let event = match next.await {
                Either::Left((event, _)) | Either::Right((event, _)) => event,
            };
            met += usize::from(is_one(&event));
        }
    }

    /// Wall and processor time of a connection.
    async fn round(&mut self, connections: usize) -> [f64; 2] {
        let (start, cpu) = (Instant::now(), thread_time());
        for _ in 0..connections {
            self.connect_once().await;
        }
        let each = |spent: Duration| spent.as_nanos() as f64 / connections as f64;
        [each(start.elapsed()), each(thread_time() - cpu)]
    }
}

fn swarm<B: NetworkBehaviour>(behaviour: impl Fn(&Keypair) -> B) -> Swarm<B> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .expect("the sockets of this machine")
        .with_behaviour(|key| behaviour(key))
        .expect("it cannot fail")
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build()
}

async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>) -> Multiaddr {
    let any = "/ip4/127.0.0.1/tcp/0".parse().expect("a multiaddr");
    swarm.listen_on(any).expect("loopback");
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}

fn identify(key: &Keypair) -> identify::Behaviour {
    identify::Behaviour::new(identify::Config::new("/bench/1.0.0".into(), key.public()))
}

/// A node with a store of so many peers.
fn with(key: &Keypair, peers: usize) -> With {
    let id: PeerId = key.public().to_peer_id();
    let config = Config::default().with_max_peers(some(2 * peers));
    let store = PeerStore::in_memory(id, config);
    for number in 0..peers as u64 {
        let peer = Peer::keyless(number);
        tell(&store, peer.id, &peer.addresses());
    }
    With {
        peer_store: PeerStoreBehaviour::new(store.clone()).expect("the first one"),
        identify: store.observe(identify(key)),
    }
}

pub fn rows(size: Size) -> Vec<Row> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("this machine has sockets");
    let (rounds, connections) = match size {
        Size::Full => (40, CONNECTIONS),
        Size::Quick => (15, CONNECTIONS),
        Size::Smoke => (1, 2),
    };
    let (ours, bare) = runtime.block_on(async {
        let mut ours = Pair::new(|key| with(key, size.peers())).await;
        let mut bare = Pair::new(|key| Without {
            identify: identify(key),
        })
        .await;
        ours.round(connections.div_ceil(10)).await;
        bare.round(connections.div_ceil(10)).await;
        let mut figures = (Vec::new(), Vec::new());
        for round in 0..rounds {
            // Who comes first takes turns too.
            if round % 2 == 0 {
                figures.0.push(ours.round(connections).await);
            }
            figures.1.push(bare.round(connections).await);
            if round % 2 != 0 {
                figures.0.push(ours.round(connections).await);
            }
        }
        figures
    });
    let of = |figures: &[[f64; 2]], at: usize| {
        median(&figures.iter().map(|figure| figure[at]).collect::<Vec<_>>())
    };
    let added = |at: usize| {
        let ratios = ours
            .iter()
            .zip(&bare)
            .map(|(ours, bare)| ours[at] / bare[at] - 1.0);
        median(&ratios.collect::<Vec<_>>())
    };
    let second = |nanos: f64| format!("{:.0} /s", 1e9 / nanos);
    let (wall, cpu) = (added(0), added(1));
    let (with, without) = (of(&ours, 0), of(&bare, 0));
    let reached = format!("{}: {:+.1} %", second(with), 100.0 * wall);
    let (cpu_with, cpu_without) = (of(&ours, 1), of(&bare, 1));
    let processor = format!("{} for both sides: {:+.1} %", nanos(cpu_with), 100.0 * cpu);
    vec![
        Row::new(
            "connections made, identified and closed, behaviour on both sides",
            reached,
        )
        .within("at most 3 % fewer", wall / 0.03)
        .theirs(format!("without: {}", second(without)), with / without),
        Row::new("the same: processor time of a connection", processor).theirs(
            format!("without: {}", nanos(cpu_without)),
            cpu_with / cpu_without,
        ),
    ]
}
