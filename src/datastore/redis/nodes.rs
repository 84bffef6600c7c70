//! The servers: connections to them, and which is the primary of which slot.
//!
//! The crate's own cluster connection is not used: it connects anew and sends again behind its caller's back, while
//! `WAIT` speaks only of what was written on its own connection, a cursor only belongs to one server, and what an
//! abandoned connection still carries must not be executed after what was written later.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::{join_all, select_ok};
use parking_lot::Mutex;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, Pipeline, Value,
    aio::MultiplexedConnection, io::tcp::socket2::TcpKeepalive,
};

use super::{
    failure::{Failure, Remedy, Secrets},
    topology::{Topology, array},
};

/// The first and the longest pause between two attempts; each is twice the one before.
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// How many nodes are asked at once which node is whose primary.
const ASKED_AT_ONCE: usize = 3;

pub(super) struct Nodes {
    seeds: Vec<ConnectionInfo>,
    pub(super) secrets: Secrets,
    timeout: Duration,
    connections: Mutex<Connections>,
    topology: Mutex<Arc<Topology>>,
}

#[derive(Default)]
struct Connections {
    /// With the number of the connection, so that nobody discards a newer one.
    open: HashMap<Arc<str>, (u64, MultiplexedConnection)>,
    made: u64,
    closed: bool,
}

impl Nodes {
    pub(super) fn new(seeds: Vec<ConnectionInfo>, timeout: Duration) -> Self {
        let mut secrets = Secrets::default();
        for seed in &seeds {
            let settings = seed.redis_settings();
            secrets.add(settings.password());
            secrets.add_user(settings.username());
        }
        let first: Arc<str> = seeds.first().map(shown).unwrap_or_default().into();
        Self {
            seeds,
            secrets,
            timeout,
            connections: Mutex::default(),
            topology: Mutex::new(Arc::new(Topology::single(first))),
        }
    }

    /// Finds out whether the first seed that answers belongs to a cluster, and if so, which.
    pub(super) async fn discover(&self) -> Result<Arc<Topology>, Failure> {
        let mut failure = Failure::new("no address was given", Remedy::None);
        for seed in &self.seeds {
            let node: Arc<str> = shown(seed).into();
            let asked = self.info(&node, "cluster", "cluster_enabled").await;
            match asked.as_deref() {
                Ok("1") => {
                    let known = Topology {
                        nodes: vec![node],
                        is_cluster: true,
                        ..Topology::default()
                    };
                    *self.topology.lock() = Arc::new(known);
                    return self.refresh().await;
                }
                Ok(_) => return Ok(self.topology()),
                Err(error) => failure = error.clone(),
            }
        }
        Err(failure)
    }

    pub(super) fn topology(&self) -> Arc<Topology> {
        self.topology.lock().clone()
    }

    /// Asks the cluster anew who is whose primary; does nothing for a single server.
    pub(super) async fn refresh(&self) -> Result<Arc<Topology>, Failure> {
        let known = self.topology();
        if !known.is_cluster {
            return Ok(known);
        }
        let mut nodes = known.nodes.clone();
        // Not always the same one first: it could be one that the others have left.
        let turn = random() as usize % nodes.len().max(1);
        nodes.rotate_left(turn);
        nodes.extend(self.seeds.iter().map(|seed| shown(seed).into()));
        let mut failure = Failure::new("no node of the cluster is known", Remedy::Wait);
        for some in nodes.chunks(ASKED_AT_ONCE) {
            let asked = some.iter().map(|node| Box::pin(self.slots(node)));
            match select_ok(asked).await {
                Ok((topology, _)) => {
                    if let Some(slot) = topology.gap() {
                        let text = format!("no node of the cluster serves slot {slot}");
                        return Err(Failure::new(text, Remedy::Wait));
                    }
                    let topology = Arc::new(topology);
                    *self.topology.lock() = topology.clone();
                    return Ok(topology);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn slots(&self, node: &Arc<str>) -> Result<Topology, Failure> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("CLUSTER").arg("SLOTS");
        let answer = self.send_one(node, &pipeline).await?;
        let (host, _) = node.rsplit_once(':').unwrap_or((node, ""));
        Topology::parse(&answer, host).ok_or_else(|| Failure::unexpected("CLUSTER SLOTS", node))
    }

    /// One field of a section of `INFO`.
    async fn info(&self, node: &Arc<str>, section: &str, field: &str) -> Result<String, Failure> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("INFO").arg(section);
        let answer = self.send_one(node, &pipeline).await?;
        field_of(&answer, field).ok_or_else(|| Failure::unexpected("INFO", node))
    }

    /// The processes that are primaries, and whether slots are on their way from one to another.
    ///
    /// Primaries that do not answer are missing; the error of one of them is in [`Primaries::failure`].
    pub(super) async fn primaries(&self) -> Result<Primaries, Failure> {
        let topology = self.refresh().await?;
        let asked = topology.primaries().into_iter();
        let asked = asked.map(|node| self.primary(node, topology.is_cluster));
        let answers = join_all(asked).await;
        let mut primaries = Primaries {
            topology,
            run_ids: BTreeMap::new(),
            moving: false,
            failure: None,
        };
        for answer in answers {
            match answer {
                Ok((node, run_id, moving)) => {
                    primaries.run_ids.insert(node, run_id);
                    primaries.moving |= moving;
                }
                Err(failure) => primaries.failure = Some(failure),
            }
        }
        Ok(primaries)
    }

    async fn primary(
        &self,
        node: Arc<str>,
        is_cluster: bool,
    ) -> Result<(Arc<str>, Arc<str>, bool), Failure> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("INFO").arg("server");
        if is_cluster {
            pipeline.cmd("CLUSTER").arg("NODES");
        }
        let answers = self.send(&node, &pipeline).await?;
        let mut failures = answers.iter();
        let failure = failures.find_map(|answer| Failure::in_answer(answer, &node, &self.secrets));
        if let Some(failure) = failure {
            return Err(failure);
        }
        let run_id = answers.first().and_then(|info| field_of(info, "run_id"));
        let run_id = run_id.ok_or_else(|| Failure::unexpected("INFO", &node))?;
        // A node shows the slots on their way from it and to it, in brackets, in its own line.
        let moving = answers
            .get(1)
            .is_some_and(|nodes| text(nodes).contains('['));
        Ok((node, run_id.into(), moving))
    }

    /// What a server is configured to, `None` where it does not say.
    pub(super) async fn settings<const N: usize>(
        &self,
        node: &Arc<str>,
        names: [&str; N],
    ) -> [Option<String>; N] {
        let mut pipeline = Pipeline::new();
        for name in names {
            pipeline.cmd("CONFIG").arg("GET").arg(name);
        }
        let answers = self.send(node, &pipeline).await.unwrap_or_default();
        let mut answers = answers.iter();
        names.map(|_| match array(answers.next()?)? {
            [_, value] => Some(text(value)),
            _ => None,
        })
    }

    /// Sends a pipeline on one connection. Errors of single commands stand among the answers.
    pub(super) async fn send(
        &self,
        node: &Arc<str>,
        pipeline: &Pipeline,
    ) -> Result<Vec<Value>, Failure> {
        let (number, mut connection) = self.connection(node).await?;
        let sent = connection.send_packed_commands(pipeline, 0, pipeline.len());
        let answers = sent.await.map_err(|error| {
            let failure = Failure::of(&error, node, &self.secrets);
            if failure.remedy == Remedy::Reconnect {
                self.discard(node, number);
            }
            failure
        })?;
        if answers.len() == pipeline.len() {
            Ok(answers)
        } else {
            Err(Failure::unexpected("a pipeline", node))
        }
    }

    /// Sends a pipeline of one command.
    pub(super) async fn send_one(
        &self,
        node: &Arc<str>,
        pipeline: &Pipeline,
    ) -> Result<Value, Failure> {
        let answers = self.send(node, pipeline).await?;
        let answer = answers.into_iter().next();
        let answer = answer.ok_or_else(|| Failure::unexpected("a command", node))?;
        match Failure::in_answer(&answer, node, &self.secrets) {
            Some(failure) => Err(failure),
            None => Ok(answer),
        }
    }

    /// The address of a node that `node` named: without a host, it is on the same one.
    pub(super) fn beside(node: &str, named: &str) -> Arc<str> {
        match (named.strip_prefix(':'), node.rsplit_once(':')) {
            (Some(port), Some((host, _))) => format!("{host}:{port}").into(),
            _ => named.into(),
        }
    }

    /// Closes all connections, for good.
    pub(super) fn close(&self) {
        let mut connections = self.connections.lock();
        connections.closed = true;
        connections.open.clear();
    }

    async fn connection(&self, node: &Arc<str>) -> Result<(u64, MultiplexedConnection), Failure> {
        if let Some(open) = self.connections.lock().open.get(node) {
            return Ok(open.clone());
        }
        let failed = |error| Failure::of(&error, node, &self.secrets);
        let client = Client::open(self.connection_info(node)?).map_err(failed)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout));
        let connected = client.get_multiplexed_async_connection_with_config(&config);
        let connected = connected.await.map_err(failed)?;
        let mut connections = self.connections.lock();
        if connections.closed {
            return Err(Failure::new("the datastore is closed", Remedy::None));
        }
        connections.made += 1;
        let made = connections.made;
        let open = connections.open.entry(node.clone());
        // Whoever came first meanwhile: two connections would not keep the order of writes.
        Ok(open.or_insert((made, connected)).clone())
    }

    fn discard(&self, node: &Arc<str>, number: u64) {
        let mut connections = self.connections.lock();
        if matches!(connections.open.get(node), Some((open, _)) if *open == number) {
            connections.open.remove(node);
        }
    }

    fn connection_info(&self, node: &Arc<str>) -> Result<ConnectionInfo, Failure> {
        if let Some(seed) = self.seeds.iter().find(|seed| shown(seed) == **node) {
            return Ok(with_tcp_settings(seed.clone(), self.timeout));
        }
        // Another node of the cluster: as the first seed, but there.
        let template = self.seeds.first();
        let template = template.ok_or_else(|| Failure::unexpected("nothing", node))?;
        let parts = node.rsplit_once(':');
        let parts = parts.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
        let (host, port) = parts.ok_or_else(|| Failure::unexpected("CLUSTER SLOTS", node))?;
        let address = match template.addr().clone() {
            ConnectionAddr::TcpTls {
                insecure,
                tls_params,
                ..
            } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure,
                tls_params,
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        let info = template.clone().set_addr(address);
        Ok(with_tcp_settings(info, self.timeout))
    }
}

/// The primaries at one moment.
pub(super) struct Primaries {
    pub(super) topology: Arc<Topology>,
    /// By address, the number of the process: another one after a restart.
    run_ids: BTreeMap<Arc<str>, Arc<str>>,
    /// Whether keys are being moved between them.
    pub(super) moving: bool,
    /// Why some do not answer.
    pub(super) failure: Option<Failure>,
}

impl Primaries {
    /// The process that has a slot, if it answers.
    pub(super) fn of(&self, slot: u16) -> Option<&str> {
        let node = self.topology.primary(slot)?;
        self.run_ids.get(&node).map(|run_id| &**run_id)
    }

    /// Replicas do not matter: two nodes may disagree on them for long.
    pub(super) fn are_the_same_as(&self, others: &Self) -> bool {
        self.topology.slots == others.topology.slots && self.run_ids == others.run_ids
    }
}

/// A host that vanished breaks its connection instead of keeping it busy for as long as the system's default.
fn with_tcp_settings(info: ConnectionInfo, timeout: Duration) -> ConnectionInfo {
    // In whole seconds, as systems want it.
    let silence = Duration::from_secs(2 * timeout.as_secs() + 1);
    let keepalive = TcpKeepalive::new().with_time(silence);
    let settings = info.tcp_settings().clone().set_nodelay(true);
    let settings = settings.set_keepalive(keepalive);
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let settings = settings.set_user_timeout(silence);
    info.set_tcp_settings(settings)
}

/// The address of a node, without credentials.
pub(super) fn shown(info: &ConnectionInfo) -> String {
    info.addr().to_string()
}

/// The value of one line of an answer to `INFO`.
pub(super) fn field_of(answer: &Value, field: &str) -> Option<String> {
    text(answer).lines().find_map(|line| {
        let (name, value) = line.trim_end().split_once(':')?;
        (name == field).then(|| value.to_owned())
    })
}

fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.clone(),
        _ => String::new(),
    }
}

/// Attempts until a time, with pauses that grow.
pub(super) struct Attempts {
    until: Instant,
    pause: Duration,
}

impl Attempts {
    pub(super) fn during(time: Duration) -> Self {
        Self {
            until: Instant::now() + time,
            pause: MIN_PAUSE,
        }
    }

    /// Waits before the next attempt; `false` when there is no time for one.
    pub(super) async fn again(&mut self) -> bool {
        // From half of it to the whole: a fleet does not come back in step.
        let share = 0.5 + 0.5 * (random() as f64 / u64::MAX as f64);
        let pause = self.pause.mul_f64(share);
        self.pause = (2 * self.pause).min(MAX_PAUSE);
        if Instant::now() + pause >= self.until {
            return false;
        }
        tokio::time::sleep(pause).await;
        true
    }
}

/// A number that no two processes share; nothing secret hangs on it.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
