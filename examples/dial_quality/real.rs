//! The same trace on real swarms, to show that the simulator tells the truth.
//!
//! Every peer is a swarm of its own (TCP, Noise, Yamux, identify) while it is online, and gone while it is not. It listens
//! at an address of the loopback network that stands for the place where the trace says it is; behind a NAT it tells
//! such an address and does not listen. Where the trace says that a host is silent a socket accepts and says nothing;
//! where it refuses, nobody listens. This node is a swarm with [`PeerStoreBehaviour`] and an observed identify, which
//! dials by peer id: which addresses are tried, and what comes of it, is the swarm's doing.
//!
//! Nothing sleeps: the store's clock moves from event to event, the clock that a silent attempt waits for moves when
//! nothing else is left, and each step is awaited. The loopback network has many hosts on Linux only.

#[path = "real/attempts.rs"]
mod attempts;
#[path = "real/peers.rs"]
mod peers;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap, HashSet},
    error::Error,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    num::{NonZeroU8, NonZeroUsize},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures::{StreamExt, future::poll_fn};
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, Transport,
    core::{ConnectedPoint, Endpoint, upgrade::Version},
    identify,
    identity::Keypair,
    multiaddr::Protocol,
    noise,
    swarm::{
        ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
    tcp, yamux,
};
use libp2p_peerstore::{
    Config, ManualClock, MemoryDatastore, Observed, PeerStore, PeerStoreBehaviour, Source,
};
use tokio::sync::mpsc;

use crate::{
    measure::{self, DIALS, Dialling, Figures, Need, REDIAL, USED},
    random::hash,
    rules::Name,
    trace::{Answer, Event, HOUR, Peer, Place, Secs, Settings, Trace, bare},
};
use attempts::{Attempts, Witness};
use peers::{Remote, Up, identify_as, listening, live, online};

/// Peers of the trace: all of them are friends of the application.
const PEERS: usize = 100;
const CAPACITY: NonZeroUsize = NonZeroUsize::new(100_000).expect("not zero");
/// A step that takes so long never ends: far more than a busy machine needs.
const STUCK: Duration = Duration::from_secs(60);

/// How far shares may be apart, and counts per dial. Only back-offs are drawn by chance, anew in each process, so that it
/// is a matter of single dials among a thousand: offers in another order are farther apart than this.
const MARGIN: f64 = 0.005;
const MARGIN_OF_COUNTS: f64 = 0.02;
/// In a short run, where a single dial is a fortieth of the choices, so many times as far.
const QUICK: f64 = 6.0;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Plays one trace to the simulator and to real swarms, prints both, and fails when they are not close.
pub fn run(quick: bool) -> Result<()> {
    let mut trace = Trace::new(Settings {
        seed: 1,
        days: 2,
        peers: PEERS,
        lies: 0.3,
        private: false,
    });
    // Long enough for a restart of the node, which comes after 28 hours.
    let end = if quick { 4 * HOUR } else { 40 * HOUR };
    trace.events.retain(|(at, _)| *at < end);
    let (shares, counts) = match quick {
        true => (MARGIN * QUICK, MARGIN_OF_COUNTS * QUICK),
        false => (MARGIN, MARGIN_OF_COUNTS),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    println!(
        "{PEERS} peers for {} hours, 30 % false hearsay; shares may differ by {shares:.3}, counts by {counts:.2}\n",
        end / HOUR
    );
    println!(
        "| dialling | | coverage | first | attempts per success | per unreachable dial | dials |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let mut apart = Vec::new();
    for (dialling, at_once, title) in [
        (Dialling::Sequential, 1, "one after the other"),
        (Dialling::Concurrent, 8, "8 at once"),
    ] {
        let simulated = measure::run(&trace, Name::Ours, CAPACITY, dialling);
        let at_once = NonZeroU8::new(at_once).unwrap_or(NonZeroU8::MIN);
        let real = runtime.block_on(async {
            let mut world = World::new(&trace, at_once).await?;
            world.play().await?;
            Ok::<_, Box<dyn Error>>(world.figures)
        })?;
        for (what, figures) in [("simulator", &simulated), ("real swarms", &real)] {
            println!(
                "| {title} | {what} | {:.3} | {:.3} | {:.2} | {:.2} | {} |",
                figures.coverage(),
                figures.first(),
                figures.excess() + 1.0,
                figures.wasted(),
                figures.reachable + figures.unreachable,
            );
        }
        let mut compare = |what, of: fn(&Figures) -> f64, margin: f64| {
            let (simulated, real) = (of(&simulated), of(&real));
            let difference = (simulated - real).abs();
            if difference.is_nan() || difference > margin {
                apart.push(format!(
                    "{title}: {what} {simulated:.3} and {real:.3} differ by more than {margin:.3}"
                ));
            }
        };
        compare("coverage", Figures::coverage, shares);
        compare("excess attempts", Figures::excess, counts);
        compare("wasted attempts", Figures::wasted, counts);
        if dialling == Dialling::Sequential {
            // Who of several answers first is a matter of latencies, which the loopback interface has none of.
            compare("first address", Figures::first, shares);
        }
    }
    if !apart.is_empty() {
        return Err(apart.join("; ").into());
    }
    println!("\nThe simulator and the real swarms agree.");
    Ok(())
}

// --- the world ---------------------------------------------------------------------------------------------

/// All peers of a trace, and this node among them.
struct World<'a> {
    trace: &'a Trace,
    now: Secs,
    /// The port of every place: free when the run began.
    port: u16,
    _reserved: TcpListener,
    remotes: Vec<Remote>,
    key: Keypair,
    at_once: NonZeroU8,
    clock: ManualClock,
    datastore: MemoryDatastore,
    node: Option<Node>,
    /// When which connection ends.
    connections: BinaryHeap<Reverse<(Secs, Closing)>>,
    open: HashMap<ConnectionId, PeerId>,
    told: BTreeSet<(Peer, Place)>,
    figures: Figures,
}

/// A connection that ends, in an order without meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Closing(ConnectionId);

impl PartialOrd for Closing {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Closing {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// This node.
struct Node {
    swarm: Swarm<Behaviour>,
    store: PeerStore,
    address: Multiaddr,
    attempts: Arc<Attempts>,
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    peer_store: PeerStoreBehaviour,
    identify: Observed<identify::Behaviour>,
}

/// What came of one dial of the swarm.
struct Dialled {
    attempts: Vec<Multiaddr>,
    /// The connection, and the address that made it.
    won: Option<(ConnectionId, Multiaddr)>,
}

impl<'a> World<'a> {
    async fn new(trace: &'a Trace, at_once: NonZeroU8) -> Result<Self> {
        let reserved = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let key = |n: usize| {
            let mut secret = [0; 32];
            secret[..8].copy_from_slice(&hash(n as u64 + 1).to_be_bytes());
            Keypair::ed25519_from_bytes(secret)
        };
        let remote = |n| {
            let key = key(n)?;
            Ok(Remote {
                id: key.public().to_peer_id(),
                key,
                up: None,
            })
        };
        let remotes: Result<Vec<Remote>> = (1..=trace.nodes.len()).map(remote).collect();
        let mut world = Self {
            trace,
            now: 0,
            port: reserved.local_addr()?.port(),
            _reserved: reserved,
            remotes: remotes?,
            key: key(0)?,
            at_once,
            clock: ManualClock::default(),
            datastore: MemoryDatastore::default(),
            node: None,
            connections: BinaryHeap::new(),
            open: HashMap::new(),
            told: BTreeSet::new(),
            figures: Figures::default(),
        };
        world.start().await?;
        Ok(world)
    }

    async fn play(&mut self) -> Result<()> {
        for (at, event) in &self.trace.events {
            self.advance(*at).await?;
            match *event {
                Event::Heard { peer, place } => {
                    self.told.insert((peer, place));
                    let (id, address) = (self.remotes[peer].id, self.address(place));
                    self.node()?.swarm.add_peer_address(id, address);
                }
                Event::Inbound { peer, until, .. } => {
                    self.come_and_go().await?;
                    let id = self.connect(peer).await?;
                    self.identified(id).await?;
                    self.keep(id, peer, until);
                    if let Some(place) = self.trace.place(peer, self.now) {
                        self.told.insert((peer, place));
                    }
                }
                Event::Dial { peer } => {
                    self.pings()?;
                    self.application_dials(peer).await?;
                }
                Event::Restart => self.restart().await?,
            }
        }
        Ok(())
    }

    fn node(&mut self) -> Result<&mut Node> {
        self.node.as_mut().ok_or_else(|| "the node is down".into())
    }

    /// The address that stands for a place.
    fn address(&self, place: Place) -> Multiaddr {
        let (high, low) = (place as u32 >> 16, place as u32 & 0xffff);
        let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + (high << 16) + low);
        Multiaddr::from(ip).with(Protocol::Tcp(self.port))
    }

    /// What the trace says is at an address now; `None` for the port of a connection that came in.
    fn answer(&self, address: &Multiaddr) -> Option<Answer> {
        let ip = match address.iter().next() {
            Some(Protocol::Ip4(ip)) if ip.octets()[1] > 0 => u32::from(ip),
            _ => return None,
        };
        let place = ip - u32::from(Ipv4Addr::new(127, 1, 0, 0));
        let address = self.trace.address(place as Place);
        Some(self.trace.answer(address, self.now))
    }

    async fn advance(&mut self, now: Secs) -> Result<()> {
        while let Some(Reverse((at, Closing(id)))) = self.connections.peek().copied()
            && at <= now
        {
            self.connections.pop();
            self.tick(at);
            self.close(id).await?;
        }
        self.tick(now);
        Ok(())
    }

    fn tick(&mut self, now: Secs) {
        self.clock
            .advance(Duration::from_secs(now.saturating_sub(self.now)));
        self.now = self.now.max(now);
    }

    // --- peers ---------------------------------------------------------------------------------------------

    /// Brings every peer to where it is now.
    async fn come_and_go(&mut self) -> Result<()> {
        for peer in 0..self.remotes.len() {
            let place = self.trace.place(peer, self.now);
            let wanted = place.map(|place| {
                let answer = self.trace.answer(self.trace.address(place), self.now);
                (place, answer == Answer::Peer(peer))
            });
            let up = self.remotes[peer].up.as_ref();
            if up.map(|up| (up.place, up.listens)) == wanted {
                continue;
            }
            if let Some(up) = self.remotes[peer].up.take() {
                // Its sockets are closed once the task is gone.
                drop(up.dials);
                up.task.await?;
            }
            if let Some((place, listens)) = wanted {
                let address = self.address(place);
                let swarm = online(&self.remotes[peer].key, address, listens).await?;
                let (dials, wanted) = mpsc::channel(1);
                self.remotes[peer].up = Some(Up {
                    place,
                    listens,
                    dials,
                    task: tokio::spawn(live(swarm, wanted)),
                });
            }
        }
        Ok(())
    }

    /// A peer connects to this node.
    async fn connect(&mut self, peer: Peer) -> Result<ConnectionId> {
        let address = self.node()?.address.clone();
        let id = self.remotes[peer].id;
        let up = self.remotes[peer].up.as_ref();
        let up = up.ok_or("a peer that is offline connects")?;
        up.dials.send(address).await?;
        self.until(|event| match event {
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint: ConnectedPoint::Listener { .. },
                ..
            } if *peer_id == id => Some(*connection_id),
            _ => None,
        })
        .await
    }

    // --- this node -----------------------------------------------------------------------------------------

    async fn start(&mut self) -> Result<()> {
        let config = Config::default()
            .with_max_peers(CAPACITY)
            .with_clock(self.clock.clone())
            .with_swarm_events(false);
        let local = self.key.public().to_peer_id();
        let store = PeerStore::open(local, self.datastore.clone(), config).await?;
        let (behaviour, attempts) = (Behaviour::new(&store, &self.key)?, Arc::default());
        let witness = Arc::clone(&attempts);
        let swarm = SwarmBuilder::with_existing_identity(self.key.clone())
            .with_tokio()
            .with_other_transport(|key| {
                Ok(Witness {
                    inner: tcp::tokio::Transport::new(tcp::Config::default())
                        .upgrade(Version::V1Lazy)
                        .authenticate(noise::Config::new(key)?)
                        .multiplex(yamux::Config::default())
                        .boxed(),
                    attempts: witness,
                })
            })?
            .with_behaviour(|_| behaviour)?
            .with_swarm_config(|config| {
                config
                    .with_idle_connection_timeout(Duration::MAX)
                    .with_dial_concurrency_factor(self.at_once)
            })
            .build();
        self.node = Some(Node {
            swarm,
            store,
            address: Multiaddr::empty(),
            attempts,
        });
        let any = Multiaddr::from(Ipv4Addr::LOCALHOST).with(Protocol::Tcp(0));
        self.node()?.swarm.listen_on(any)?;
        let address = self.until(listening).await?;
        self.node()?.address = address;
        Ok(())
    }

    async fn restart(&mut self) -> Result<()> {
        self.connections.clear();
        for id in self.open.keys().copied().collect::<Vec<_>>() {
            self.close(id).await?;
        }
        let node = self.node.take().ok_or("the node is down")?;
        drop(node.swarm);
        node.store.shutdown().await?;
        drop(node.store);
        self.start().await
    }

    /// Waits until an event of this node's swarm is what is waited for.
    async fn until<T>(
        &mut self,
        mut look: impl FnMut(&SwarmEvent<BehaviourEvent>) -> Option<T>,
    ) -> Result<T> {
        let (node, open) = (
            self.node.as_mut().ok_or("the node is down")?,
            &mut self.open,
        );
        let found = poll_fn(|cx| {
            node.attempts.waker.register(cx.waker());
            while let Poll::Ready(Some(event)) = node.swarm.poll_next_unpin(cx) {
                if let SwarmEvent::ConnectionClosed { connection_id, .. } = &event {
                    open.remove(connection_id);
                }
                if let Some(found) = look(&event) {
                    return Poll::Ready(found);
                }
            }
            node.attempts.give_up();
            Poll::Pending
        });
        Ok(tokio::time::timeout(STUCK, found).await?)
    }

    async fn identified(&mut self, id: ConnectionId) -> Result<()> {
        self.until(|event| match event {
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                connection_id,
                ..
            })) if *connection_id == id => Some(()),
            _ => None,
        })
        .await
    }

    fn keep(&mut self, id: ConnectionId, peer: Peer, until: Secs) {
        self.open.insert(id, self.remotes[peer].id);
        self.connections.push(Reverse((until, Closing(id))));
    }

    async fn close(&mut self, id: ConnectionId) -> Result<()> {
        if !self.open.contains_key(&id) || !self.node()?.swarm.close_connection(id) {
            return Ok(());
        }
        self.until(|event| match event {
            SwarmEvent::ConnectionClosed { connection_id, .. } if *connection_id == id => Some(()),
            _ => None,
        })
        .await
    }

    /// Live connections carry something all the time; it is enough to say so now and then.
    fn pings(&mut self) -> Result<()> {
        let peers: Vec<PeerId> = self.open.values().copied().collect();
        let store = &self.node()?.store;
        for peer in peers {
            store.learned(Source::Discovery).alive(peer);
        }
        Ok(())
    }

    // --- dials ---------------------------------------------------------------------------------------------

    /// The application wants to talk to a peer, as in the simulator.
    async fn application_dials(&mut self, peer: Peer) -> Result<()> {
        let began = self.now;
        let id = self.remotes[peer].id;
        let place = self.trace.place(peer, began);
        let place = place.filter(|_| self.trace.nodes[peer].dialable);
        let reachable = place.is_some_and(|place| self.told.contains(&(peer, place)));
        let choice = self.told.range((peer, 0)..(peer + 1, 0)).nth(1).is_some();
        let (mut tried, mut attempts, mut first) = (HashSet::new(), 0, None);
        let (mut success, mut rounds) = (false, 0);
        while rounds < DIALS && !success {
            if rounds > 0 {
                self.advance(began + REDIAL * rounds as Secs).await?;
                self.pings()?;
            }
            let offers = self.offers(id)?;
            if offers.iter().all(|offer| tried.contains(&bare(offer))) {
                break;
            }
            self.come_and_go().await?;
            let dialled = self.swarm_dials(id, &offers).await?;
            tried.extend(offers.iter().map(bare));
            rounds += 1;
            attempts += dialled.attempts.len() as u32;
            success = dialled.won.is_some();
            let won = dialled.won.as_ref().map(|(_, address)| bare(address));
            let tried_first = dialled.attempts.first().map(bare);
            first = first.or(tried_first.map(|tried| won == Some(tried)));
            if let Some((connection, _)) = dialled.won {
                self.identified(connection).await?;
                let until = self.trace.leaves(peer, self.now).min(self.now + USED);
                self.keep(connection, peer, until);
            }
        }
        self.figures.count(&Need {
            reachable,
            choice,
            attempts,
            rounds,
            success,
            first: first == Some(true),
        });
        Ok(())
    }

    /// What the swarm would be given for a dial now.
    fn offers(&mut self, peer: PeerId) -> Result<Vec<Multiaddr>> {
        let store = &mut self.node()?.swarm.behaviour_mut().peer_store;
        let id = ConnectionId::new_unchecked(usize::MAX);
        let offers =
            store.handle_pending_outbound_connection(id, Some(peer), &[], Endpoint::Dialer);
        store.on_swarm_event(FromSwarm::DialFailure(DialFailure {
            peer_id: Some(peer),
            error: &DialError::Aborted,
            connection_id: id,
        }));
        Ok(offers?)
    }

    /// One dial of the swarm, by peer id; `offers` is what it is about to be given.
    async fn swarm_dials(&mut self, peer: PeerId, offers: &[Multiaddr]) -> Result<Dialled> {
        let mut silent = HashMap::new();
        for offer in offers.iter().map(bare) {
            if self.answer(&offer) == Some(Answer::Silence) {
                silent.insert(offer.clone(), TcpListener::bind(socket(&offer)?)?);
            }
        }
        let node = self.node()?;
        node.attempts.expect_silence_at(silent.keys().cloned());
        let opts = DialOpts::peer_id(peer)
            .condition(PeerCondition::Always)
            .allocate_new_port()
            .build();
        let dial = opts.connection_id();
        node.swarm.dial(opts)?;
        let won = self
            .until(|event| match event {
                SwarmEvent::ConnectionEstablished {
                    connection_id,
                    endpoint,
                    ..
                } if *connection_id == dial => {
                    Some(Some((dial, endpoint.get_remote_address().clone())))
                }
                SwarmEvent::OutgoingConnectionError { connection_id, .. }
                    if *connection_id == dial =>
                {
                    Some(None)
                }
                _ => None,
            })
            .await?;
        let attempts = self.node()?.attempts.take();
        Ok(Dialled { attempts, won })
    }
}

impl Behaviour {
    fn new(store: &PeerStore, key: &Keypair) -> Result<Self> {
        Ok(Self {
            peer_store: PeerStoreBehaviour::new(store.clone())?,
            identify: store.observe(identify_as(key)),
        })
    }
}

fn socket(address: &Multiaddr) -> Result<SocketAddr> {
    let mut parts = address.iter();
    match (parts.next(), parts.next()) {
        (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port))) => Ok((ip, port).into()),
        _ => Err(format!("{address} is not an address of this world").into()),
    }
}
