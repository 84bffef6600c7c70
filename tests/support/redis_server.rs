//! Real servers on loopback, in folders of their own, which end with the test.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use futures::future::join_all;
use redis::{FromRedisValue, aio::MultiplexedConnection};
use tempfile::TempDir;

use crate::skip::skipped;

/// The server's binary, or a message that the test is skipped.
fn binary() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let names = ["redis-server", "valkey-server"];
    let found = env::split_paths(&path)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|file| file.is_file());
    if found.is_none() {
        skipped(
            "redis",
            "neither redis-server nor valkey-server is installed (`apt-get install redis-server`)",
        );
    }
    found
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

pub struct Server {
    binary: PathBuf,
    folder: TempDir,
    args: Vec<String>,
    pub port: u16,
    pub bus: u16,
    child: Option<Child>,
}

impl Server {
    /// `None` when there is no binary, which a message says.
    pub fn start(args: &[&str]) -> Option<Self> {
        let binary = binary()?;
        // Somebody else may take a free port first.
        for _ in 0..10 {
            let mut server = Self {
                binary: binary.clone(),
                folder: tempfile::tempdir().unwrap(),
                args: args.iter().map(|arg| (*arg).to_owned()).collect(),
                port: free_port(),
                bus: free_port(),
                child: None,
            };
            if server.try_run() {
                return Some(server);
            }
        }
        panic!("no server could be started");
    }

    /// Starts the process again, in the same folder and at the same port.
    pub fn run(&mut self) {
        let until = Instant::now() + Duration::from_secs(20);
        while !self.try_run() {
            assert!(Instant::now() < until, "the server does not start again");
        }
    }

    fn try_run(&mut self) -> bool {
        assert!(self.child.is_none());
        let mut command = Command::new(&self.binary);
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"]);
        command.arg("--dir").arg(self.folder.path());
        if self.args.iter().any(|arg| arg == "--cluster-enabled") {
            command.args(["--cluster-port", &self.bus.to_string()]);
        }
        command.args(&self.args);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.by_ref().any(|line| {
            line.unwrap_or_default()
                .to_lowercase()
                .contains("ready to accept connections")
        });
        // Or a full pipe would hold the server up.
        thread::spawn(move || lines.for_each(drop));
        if ready {
            self.child = Some(child);
        } else {
            let _ = child.kill();
            child.wait().unwrap();
        }
        ready
    }

    /// As a crash of the machine would: at once, without a chance to save.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops the process from doing anything, or lets it go on.
    pub fn pause(&self, pause: bool) {
        let signal = if pause { "-STOP" } else { "-CONT" };
        let id = self.child.as_ref().unwrap().id().to_string();
        let done = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(done.success());
    }

    pub fn forget_everything(&self) {
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            // The file in which a node of a cluster knows itself stays.
            if path.file_name().is_none_or(|name| name != "nodes.conf") {
                let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
            }
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A connection of the test's own, which bears a busy machine.
    pub async fn connect(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        let patience = Some(Duration::from_secs(30));
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(patience)
            .set_response_timeout(patience);
        let connected = client.get_multiplexed_async_connection_with_config(&config);
        connected.await.unwrap()
    }

    /// One command, its arguments apart by blanks.
    pub async fn ask<T: FromRedisValue>(&self, command: &str) -> T {
        let mut words = command.split(' ');
        let mut asked = redis::cmd(words.next().unwrap());
        asked.arg(words.collect::<Vec<_>>());
        let answer = asked.query_async(&mut self.connect().await).await;
        answer.unwrap_or_else(|error| panic!("{command}: {error}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Three primaries, each with one replica: servers 0 to 2, and 3 to 5.
pub struct Cluster {
    pub servers: Vec<Server>,
}

impl Cluster {
    pub async fn start(node_timeout: Duration) -> Option<Self> {
        let node_timeout = node_timeout.as_millis().to_string();
        let args = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            &node_timeout,
            "--save",
            "",
            "--appendonly",
            "no",
            "--repl-diskless-sync-delay",
            "0",
        ];
        let servers: Option<Vec<_>> = (0..6).map(|_| Server::start(&args)).collect();
        let cluster = Self { servers: servers? };
        let servers = &cluster.servers;
        for (n, server) in servers.iter().enumerate() {
            let epoch = n + 1;
            let _: String = server
                .ask(&format!("CLUSTER SET-CONFIG-EPOCH {epoch}"))
                .await;
            if n < 3 {
                let (first, last) = ([0, 5_461, 10_923][n], [5_460, 10_922, 16_383][n]);
                let _: String = server
                    .ask(&format!("CLUSTER ADDSLOTSRANGE {first} {last}"))
                    .await;
            }
            let (port, bus) = (servers[0].port, servers[0].bus);
            let _: String = server
                .ask(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}"))
                .await;
        }
        cluster
            .until("all nodes know each other", async || {
                let known = servers.iter().map(async |server| {
                    let nodes: String = server.ask("CLUSTER NODES").await;
                    nodes.lines().count() == 6 && !nodes.contains("handshake")
                });
                join_all(known).await.into_iter().all(|known| known)
            })
            .await;
        for n in 0..3 {
            let id: String = servers[n].ask("CLUSTER MYID").await;
            let _: String = servers[n + 3].ask(&format!("CLUSTER REPLICATE {id}")).await;
        }
        cluster.until_whole().await;
        Some(cluster)
    }

    /// Waits until every primary has its replica, in the eyes of all.
    pub async fn until_whole(&self) {
        self.until("the cluster is whole", async || {
            let whole = self.servers.iter().map(async |server| {
                let info: String = server.ask("CLUSTER INFO").await;
                let nodes: String = server.ask("CLUSTER NODES").await;
                let replication: String = server.ask("INFO replication").await;
                info.contains("cluster_state:ok")
                    && nodes
                        .lines()
                        .filter(|line| line.contains("slave ") || line.contains("slave,"))
                        .count()
                        == 3
                    && !nodes.contains("fail")
                    && (replication.contains("connected_slaves:1")
                        || replication.contains("master_link_status:up"))
            });
            join_all(whole).await.into_iter().all(|whole| whole)
        })
        .await;
    }

    pub async fn until(&self, what: &str, mut done: impl AsyncFnMut() -> bool) {
        let until = Instant::now() + Duration::from_secs(30);
        while !done().await {
            assert!(Instant::now() < until, "never: {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(Server::url).collect()
    }
}
