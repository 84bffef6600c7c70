//! What a node tells Prometheus of its peer store: two nodes on loopback meet, and one of them is scraped.
//!
//! Run it with
//!
//! ```text
//! cargo run --example metrics --features metrics
//! ```
//!
//! It takes no arguments and about a second, and touches nothing but this machine's loopback. You will see the text that
//! a Prometheus server would get: of peers and addresses, events, refusals, dials and their ranks, commits. The last line
//! tells what came of it.
//!
//! With `-- --serve` it then goes on answering at the address that it prints, until it is stopped: point a Prometheus
//! server there, and import `docs/grafana.json` into Grafana.

use std::{
    env,
    error::Error,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, Swarm, SwarmBuilder, identify,
    identity::Keypair,
    noise,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use libp2p_peerstore::{Config, MemoryDatastore, Observed, PeerStore, PeerStoreBehaviour};
use prometheus_client::{encoding::text::encode, registry::Registry};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// How long the two may take to meet.
const DEADLINE: Duration = Duration::from_secs(30);

#[derive(NetworkBehaviour)]
struct Behaviour {
    peer_store: PeerStoreBehaviour,
    identify: Observed<identify::Behaviour>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("metrics: failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let (mut friend, _) = node().await?;
    let (mut swarm, store) = node().await?;

    // One call; the prefix is the application's choice, and this is the one that the dashboard expects.
    let mut registry = Registry::default();
    store.register_metrics(registry.sub_registry_with_prefix("peerstore"));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let registry = Arc::new(registry);
    thread::spawn(move || answer(&listener, &registry));

    // The store knows an address that is out of date, and a good one.
    friend.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let good = tokio::time::timeout(DEADLINE, listening(&mut friend)).await?;
    let id = *friend.local_peer_id();
    let outdated: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse()?;
    store.addresses().add(id, [outdated, good]);
    swarm.dial(id)?;
    tokio::time::timeout(DEADLINE, identified(&mut swarm, &mut friend)).await?;
    store.flush().await?;

    let text = scrape(address)?;
    print!("{text}");
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    let succeeded = "peerstore_dials_total{outcome=\"success\",rank=\"2\"} 1";
    if !text.lines().any(|line| line == succeeded) {
        return Err("the dial to the second address is not among the metrics".into());
    }
    if env::args().any(|argument| argument == "--serve") {
        println!("metrics: answering at http://{address}/metrics");
        loop {
            swarm.select_next_some().await;
        }
    }
    store.shutdown().await?;
    println!("metrics: ok, {series} series of {} peer", store.len());
    Ok(())
}

async fn node() -> Result<(Swarm<Behaviour>, PeerStore)> {
    let key = Keypair::generate_ed25519();
    let config = Config::default();
    let store = PeerStore::open(key.public().into(), MemoryDatastore::default(), config).await?;
    let behaviour = Behaviour {
        peer_store: PeerStoreBehaviour::new(store.clone())?,
        identify: store.observe(identify::Behaviour::new(identify::Config::new(
            "/metrics-example/1.0.0".to_owned(),
            key.public(),
        ))),
    };
    let swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )?
        .with_behaviour(|_| behaviour)?
        // One address after the other, so that the ranks can be foreseen.
        .with_swarm_config(|config| {
            let one = 1.try_into().unwrap_or(std::num::NonZeroU8::MIN);
            config
                .with_dial_concurrency_factor(one)
                .with_idle_connection_timeout(DEADLINE)
        })
        .build();
    Ok((swarm, store))
}

async fn listening(swarm: &mut Swarm<Behaviour>) -> Multiaddr {
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}

/// Runs both until the first has heard what the other tells of itself.
async fn identified(swarm: &mut Swarm<Behaviour>, other: &mut Swarm<Behaviour>) {
    loop {
        tokio::select! {
            event = swarm.select_next_some() => {
                if let SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { .. })) = event {
                    return;
                }
            }
            _ = other.select_next_some() => {}
        }
    }
}

/// Answers every request with all metrics. A real node has an HTTP server for that.
fn answer(listener: &TcpListener, registry: &Registry) {
    for stream in listener.incoming().flatten() {
        if let Err(error) = answer_one(stream, registry) {
            eprintln!("metrics: a scrape failed: {error}");
        }
    }
}

fn answer_one(mut stream: TcpStream, registry: &Registry) -> io::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    let request = BufReader::new(stream.try_clone()?).take(64 * 1024).lines();
    for line in request {
        if line?.is_empty() {
            break;
        }
    }
    let mut text = String::new();
    encode(&mut text, registry).map_err(io::Error::other)?;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\n\
         Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n\
         Content-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    )
}

/// What Prometheus does.
fn scrape(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let (_, text) = response
        .split_once("\r\n\r\n")
        .ok_or("the answer has no end of its head")?;
    Ok(text.to_owned())
}
