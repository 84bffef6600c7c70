//! The examples as a newcomer runs them: as programs, by what they print and how they end.
//!
//! `cargo test` builds them. With `--test examples` alone cargo does not: run `cargo build --examples` before.

#![cfg(all(
    unix,
    feature = "identify",
    feature = "kad",
    feature = "redb",
    feature = "fs",
    feature = "testing"
))]
#![allow(clippy::unwrap_used)]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, StreamProtocol, SwarmBuilder, identify, kad, noise, swarm::NetworkBehaviour, tcp,
    yamux,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// It brings its own tests along.
#[allow(dead_code)]
#[path = "../examples/soak/growth.rs"]
mod growth;
#[path = "../examples/shared/json.rs"]
mod json;
#[allow(dead_code)]
#[path = "../examples/shared/text.rs"]
mod text;

/// How long one line may take: far above what anything here needs, also on a machine under load.
const DEADLINE: Duration = Duration::from_secs(60);

/// What every node of the example speaks.
const PROTOCOLS: [&str; 4] = [
    "/ipfs/id/1.0.0",
    "/ipfs/id/push/1.0.0",
    "/ipfs/kad/1.0.0",
    "/ipfs/ping/1.0.0",
];

// --- Programs under test -------------------------------------------------------------------------------------

fn example(name: &str) -> Command {
    // target/<profile>/deps/<this test> lies beside target/<profile>/examples/<name>.
    let test = env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples").join(name);
    // Cargo writes down beside it what it was built from.
    let built_from = fs::read_to_string(program.with_extension("d")).unwrap_or_default();
    let newest = built_from
        .split_whitespace()
        .filter(|path| path.contains("/examples/") && path.ends_with(".rs"))
        .filter_map(|path| modified(Path::new(path)))
        .max();
    assert!(
        program.exists() && modified(&program) >= newest,
        "{} is missing or older than its source: run `cargo build --examples`",
        program.display()
    );
    let mut command = Command::new(program);
    // What it writes to stderr is then its own word, and no log of a library.
    command.env("RUST_LOG", "off");
    command
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

fn node(folder: &TempDir, store: &str, args: &[&str]) -> Command {
    let mut command = example("node");
    command.arg("--store").arg(folder.path().join(store));
    command.args(args);
    command
}

/// A running example, whose lines can be waited for. It ends with the test at the latest.
struct Running {
    child: Child,
    lines: Receiver<String>,
    errors: Option<JoinHandle<String>>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            // Nobody listens any longer once a test has what it wants.
            stdout
                .lines()
                .try_for_each(|line| sender.send(line.unwrap()))
        });
        let errors = thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        Self {
            child,
            lines,
            errors: Some(errors),
        }
    }

    /// The next line, or `None` after the last one.
    fn line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line within {DEADLINE:?}"),
        }
    }

    fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        kill.args(["-s", name, &self.child.id().to_string()]);
        assert!(kill.status().unwrap().success());
    }

    /// Reads until the program ends. Gives its status, the lines that were left, and what it wrote to stderr.
    fn end(mut self) -> (ExitStatus, Vec<String>, String) {
        let mut rest = Vec::new();
        while let Some(line) = self.line() {
            rest.push(line);
        }
        let status = self.child.wait().unwrap();
        let errors = self.errors.take().unwrap().join().unwrap();
        (status, rest, errors)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended long before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running `node --json`, with the events that it has told.
struct Node {
    running: Running,
    told: Vec<Value>,
    id: String,
    address: Multiaddr,
}

impl Node {
    fn start(folder: &TempDir, store: &str, args: &[&str]) -> Self {
        let args = [&["--json"], args].concat();
        let mut node = Self {
            running: Running::start(node(folder, store, &args)),
            told: Vec::new(),
            id: String::new(),
            address: Multiaddr::empty(),
        };
        let listening = node.wait_for("listening", |_| true);
        node.id = listening["peer"].as_str().unwrap().to_owned();
        node.address = listening["address"].as_str().unwrap().parse().unwrap();
        node
    }

    /// The address on which it listens, with its peer id and without.
    fn addresses(&self) -> (String, String) {
        let whole = self.address.to_string();
        let bare = whole.strip_suffix(&format!("/p2p/{}", self.id));
        (whole.clone(), bare.unwrap().to_owned())
    }

    /// The first event of a kind that fits, told already or still to come.
    fn wait_for(&mut self, kind: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut looked_at = 0;
        loop {
            for event in &self.told[looked_at..] {
                if event["event"] == kind && fits(event) {
                    return event.clone();
                }
            }
            looked_at = self.told.len();
            let Some(line) = self.running.line() else {
                panic!("it ended without the event {kind}: {:#?}", self.told);
            };
            self.told.push(parse(&line));
        }
    }

    fn count(&self, kind: &str) -> usize {
        let of_kind = self.told.iter().filter(|event| event["event"] == kind);
        of_kind.count()
    }

    /// Waits until the node has told of `other` all that there is to tell.
    fn wait_for_all_about(&mut self, other: &Node) {
        let is_other = |event: &Value| event["peer"] == other.id.as_str();
        let bare = other.addresses().1;
        self.wait_for("peer", is_other);
        self.wait_for("connected", is_other);
        self.wait_for("addresses", |event| {
            is_other(event) && event["addresses"] == json!([bare])
        });
        let event = self.wait_for("protocols", is_other);
        let mut protocols: Vec<&str> = event["protocols"]
            .as_array()
            .unwrap()
            .iter()
            .map(|protocol| protocol.as_str().unwrap())
            .collect();
        protocols.sort();
        assert_eq!(protocols, PROTOCOLS);
        assert_eq!(event["cause"], "identify");
        let event = self.wait_for("metadata", |event| event["key"] == "ProtocolVersion");
        assert_eq!(event["value"], "ipfs/0.1.0");
        self.wait_for("metadata", |event| event["key"] == "AgentVersion");
    }

    /// Stops the node as a service manager or a person does, and gives all that it has told.
    fn stop(mut self, signal: &str) -> Vec<Value> {
        self.running.signal(signal);
        let (status, rest, errors) = self.running.end();
        assert!(status.success(), "{status}: {errors}");
        assert_eq!(errors, "");
        self.told.extend(rest.iter().map(|line| parse(line)));
        self.told
    }
}

fn parse(line: &str) -> Value {
    assert!(is_plain(line), "{line:?}");
    let event: Value = serde_json::from_str(line).unwrap();
    assert!(event["event"].is_string(), "{line}");
    event
}

fn is_plain(line: &str) -> bool {
    line.chars().all(|char| matches!(char, ' '..='~'))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// How a program ended that is to fail by itself: its stderr.
fn failure(command: Command) -> String {
    let (status, lines, errors) = Running::start(command).end();
    assert!(!status.success(), "{lines:#?}");
    errors
}

// --- quickstart ----------------------------------------------------------------------------------------------

#[test]
fn quickstart_learns_all_peers_and_reaches_them_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = example("quickstart");
    command.env("TMPDIR", folder.path());
    let (status, lines, errors) = Running::start(command).end();

    assert!(status.success(), "{errors}\n{lines:#?}");
    assert_eq!(errors, "");
    assert_eq!(
        lines.last().unwrap(),
        "quickstart: ok, 5 peers known, 5 restored, 5 reconnected without a bootstrap node"
    );
    // The push of node 3 was told in the second part, and nothing like it anywhere else.
    let start_of = |part: &str| {
        let mut lines = lines.iter();
        lines.position(|line| line.starts_with(part)).unwrap()
    };
    let second_part = start_of("2.")..start_of("3.");
    let mut pushes = 0;
    for (number, line) in lines.iter().enumerate() {
        if line.ends_with("no longer speaks /ipfs/kad/1.0.0") {
            assert!(line.trim_start().starts_with("node 3 "), "{line}");
            assert!(second_part.contains(&number), "{lines:#?}");
            pushes += 1;
        }
    }
    // Once for each connection at most: there are two when both sides dialled at the same time.
    assert!(matches!(pushes, 1 | 2), "{lines:#?}");
    assert_eq!(
        fs::read_dir(&folder).unwrap().count(),
        0,
        "it left files behind"
    );
}

// --- one task each ---------------------------------------------------------------------------------------------

#[test]
fn the_examples_of_one_task_end_with_their_ok_line_and_leave_nothing_behind() {
    let tasks = [
        ("who_speaks", "2 can be pinged"),
        ("remember", "reached the peer without an address"),
        ("own_datastore", "the suite passed"),
        ("own_discovery", "1 peer is left"),
        ("from_memory_store", "2 peers taken over"),
        ("from_js", "24 peers"),
    ];
    for (name, end) in tasks {
        let folder = tempfile::tempdir().unwrap();
        let mut command = example(name);
        command.env("TMPDIR", folder.path());
        let (status, lines, errors) = Running::start(command).end();
        assert!(status.success() && errors.is_empty(), "{name}: {errors}");
        assert_eq!(*lines.last().unwrap(), format!("{name}: ok, {end}"));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "{name}");
    }
    let fixture = Path::new("tests/data/js-libp2p-0.30/store");
    assert!(!fixture.join(".libp2p-peerstore").exists());
}

// --- metrics -------------------------------------------------------------------------------------------------

#[cfg(feature = "metrics")]
#[test]
fn metrics_prints_what_prometheus_would_get_and_ends() {
    let (status, mut lines, errors) = Running::start(example("metrics")).end();
    assert!(status.success(), "{errors}\n{lines:#?}");
    assert_eq!(errors, "");
    let last = lines.pop().unwrap();
    assert_eq!(lines.last().unwrap(), "# EOF");
    let series = lines.iter().filter(|line| !line.starts_with('#')).count();
    assert_eq!(last, format!("metrics: ok, {series} series of 1 peer"));
    for line in [
        "peerstore_dials_total{outcome=\"failure\",rank=\"1\"} 1",
        "peerstore_dials_total{outcome=\"success\",rank=\"2\"} 1",
        "peerstore_peers{state=\"connected\"} 1",
        "peerstore_commits_total{outcome=\"success\"} 1",
        "peerstore_events_total{event=\"protocols_changed\",cause=\"identify\"} 1",
    ] {
        assert!(
            lines.iter().any(|other| other == line),
            "{line} in {lines:#?}"
        );
    }
}

// --- node ----------------------------------------------------------------------------------------------------

#[test]
fn a_restarted_node_is_the_same_peer_and_reaches_its_peers_from_its_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Node::start(&folder, "first.redb", &[]);
    assert_eq!(first.told[0], json!({ "event": "loaded", "peers": 0 }));
    let (address, _) = first.addresses();

    let mut second = Node::start(&folder, "second.redb", &["--dial", &address]);
    first.wait_for_all_about(&second);
    second.wait_for_all_about(&first);
    let second_id = second.id.clone();
    let told = second.stop("TERM");
    assert_eq!(
        *told.last().unwrap(),
        json!({ "event": "saved", "peers": 1 })
    );
    first.wait_for("disconnected", |event| event["peer"] == second_id.as_str());
    for file in ["second.redb", "second.redb.key"] {
        assert_eq!(mode(&folder.path().join(file)), 0o600, "{file}");
    }

    let first_id = first.id.clone();
    let mut second = Node::start(&folder, "second.redb", &["--dial-peer", &first_id]);
    assert_eq!(second.id, second_id);
    assert_eq!(second.told[0], json!({ "event": "loaded", "peers": 1 }));
    let connected = second.wait_for("connected", |_| true);
    assert_eq!(connected["peer"], first_id.as_str());
    assert_eq!(connected["address"], address.as_str());
    let (_, bare) = second.addresses();
    first.wait_for("addresses", |event| event["addresses"] == json!([bare]));

    // What was loaded is no news, for either of them.
    assert_eq!(first.count("peer"), 1);
    let told = second.stop("INT");
    let kinds: Vec<&str> = told.iter().map(|e| e["event"].as_str().unwrap()).collect();
    assert!(!kinds.contains(&"peer"), "{told:#?}");
    assert!(!kinds.contains(&"protocols"), "{told:#?}");
    assert_eq!(
        *told.last().unwrap(),
        json!({ "event": "saved", "peers": 1 })
    );
    let told = first.stop("TERM");
    assert_eq!(
        *told.last().unwrap(),
        json!({ "event": "saved", "peers": 1 })
    );
}

#[test]
fn a_second_node_on_the_same_file_fails_and_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let first = Node::start(&folder, "peers.redb", &[]);
    let key = fs::read(folder.path().join("peers.redb.key")).unwrap();

    // It does not even take the key of the first one, nor another one.
    let other_key = folder.path().join("other.key");
    let args = ["--json", "--key", other_key.to_str().unwrap()];
    let (status, lines, errors) = Running::start(node(&folder, "peers.redb", &args)).end();
    assert_eq!(status.code(), Some(1));
    assert_eq!(lines, Vec::<String>::new());
    assert!(errors.contains("peers.redb"), "{errors}");
    assert!(errors.contains("another process"), "{errors}");
    assert!(!other_key.exists());

    first.stop("TERM");
    let kept = fs::read(folder.path().join("peers.redb.key")).unwrap();
    assert_eq!(kept, key);
}

#[test]
fn a_failed_dial_is_told_and_the_node_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let stranger = libp2p::PeerId::random().to_string();
    let args = [
        "--dial-peer",
        &stranger,
        "--dial",
        "/ip4/127.0.0.1/udp/1/quic-v1",
    ];
    let mut node = Node::start(&folder, "peers.redb", &args);
    let failed = node.wait_for("dial_failed", |event| event["peer"] == stranger.as_str());
    assert_eq!(failed["error"], "Dial error: no addresses for peer.");
    let failed = node.wait_for("dial_failed", |event| event["peer"].is_null());
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("/udp/1/quic-v1"), "{error}");
    let told = node.stop("TERM");
    assert_eq!(
        *told.last().unwrap(),
        json!({ "event": "saved", "peers": 0 })
    );
}

#[test]
fn what_a_node_cannot_start_with_is_named_on_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let start = |store: &str, args: &[&str]| failure(node(&folder, store, args));

    let errors = start("peers.redb", &["--listen", "/ip4/127.0.0.1/udp/0"]);
    assert!(
        errors.starts_with("node: cannot listen on /ip4/127.0.0.1/udp/0: "),
        "{errors}"
    );
    let errors = start("peers.redb", &["--dial", "nonsense"]);
    assert!(errors.contains("'nonsense'"), "{errors}");
    let errors = start("nowhere/peers.redb", &[]);
    assert!(errors.contains("nowhere/peers.redb"), "{errors}");
    assert!(errors.contains("No such file or directory"), "{errors}");

    // A key that cannot be read is the user's to repair: it is never replaced.
    let key = folder.path().join("broken.key");
    fs::write(&key, "no key").unwrap();
    let errors = start("peers.redb", &["--key", key.to_str().unwrap()]);
    assert!(
        errors.contains("broken.key holds no libp2p key"),
        "{errors}"
    );
    assert_eq!(fs::read(&key).unwrap(), b"no key");
}

// --- What strangers write ------------------------------------------------------------------------------------

/// Clears the screen, turns the reading direction round, and ends the line.
const HOSTILE: &str = "/nice\u{1b}[2J\u{202e}\u{9b}31m\né\u{1F980}\\";

#[derive(NetworkBehaviour)]
struct Stranger {
    identify: identify::Behaviour,
    kad: kad::Behaviour<kad::store::MemoryStore>,
}

/// Connects to a node as a peer whose agent version and protocol are [`HOSTILE`], for as long as the test runs.
async fn stranger(address: Multiaddr) {
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|key| {
            let id = key.public().to_peer_id();
            let identify = identify::Config::new("stranger".to_owned(), key.public())
                .with_agent_version(HOSTILE.to_owned());
            let protocol = StreamProtocol::try_from_owned(HOSTILE.to_owned()).unwrap();
            let mut kad = kad::Behaviour::with_config(
                id,
                kad::store::MemoryStore::new(id),
                kad::Config::new(protocol),
            );
            kad.set_mode(Some(kad::Mode::Server));
            Stranger {
                identify: identify::Behaviour::new(identify),
                kad,
            }
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(DEADLINE))
        .build();
    swarm.dial(address).unwrap();
    loop {
        swarm.select_next_some().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_write_reaches_scripts_exactly_and_a_terminal_as_escapes() {
    let folder = tempfile::tempdir().unwrap();
    let mut for_scripts = Node::start(&folder, "scripts.redb", &[]);
    tokio::spawn(stranger(for_scripts.address.clone()));
    let event = for_scripts.wait_for("metadata", |event| event["key"] == "AgentVersion");
    assert_eq!(event["value"], HOSTILE);
    let event = for_scripts.wait_for("protocols", |_| true);
    let protocols = event["protocols"].as_array().unwrap();
    assert!(protocols.contains(&json!(HOSTILE)), "{event}");
    for_scripts.stop("TERM");

    let mut for_people = Running::start(node(&folder, "people.redb", &[]));
    let mut lines = Vec::new();
    let mut line_with = |text: &str| {
        loop {
            let line = for_people.line().unwrap();
            lines.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    };
    let listening = line_with("listening on ");
    let address = listening.strip_prefix("listening on ").unwrap();
    tokio::spawn(stranger(address.parse().unwrap()));
    let escaped = r"/nice\u{1b}[2J\u{202e}\u{9b}31m\n\u{e9}\u{1f980}\\";
    line_with(&format!("AgentVersion: {escaped}"));
    let before = lines.iter().filter(|line| line.contains("protocols"));
    assert!(before.clone().any(|line| line.contains(escaped)));
    for_people.signal("TERM");
    let (status, rest, errors) = for_people.end();
    assert!(status.success(), "{errors}");
    lines.extend(rest);
    assert!(lines.iter().all(|line| is_plain(line)), "{lines:#?}");
    assert_eq!(lines.last().unwrap(), "saved 1 peers");
}

/// The loopback network has many hosts on Linux only.
#[cfg(target_os = "linux")]
#[test]
fn the_simulator_of_dials_and_real_swarms_agree() {
    let mut command = example("dial_quality");
    command.args(["--real", "--quick"]);
    let (status, lines, errors) = Running::start(command).end();
    assert!(status.success(), "{errors}{lines:#?}");
    let dials = |what: &str| {
        let rows = lines.iter().filter(|line| line.contains(what));
        let last = rows.filter_map(|row| row.trim_end_matches(" |").rsplit(' ').next());
        last.map(|dials| dials.parse::<u32>().unwrap())
            .collect::<Vec<_>>()
    };
    let (simulated, real) = (dials("| simulator |"), dials("| real swarms |"));
    assert_eq!(simulated, real);
    assert!(
        real.len() == 2 && real.iter().all(|dials| *dials > 100),
        "{real:?}"
    );
}

#[test]
fn a_line_of_json_is_ascii_and_parses_to_what_was_written() {
    let value = json!({ "text": format!("{HOSTILE}\"\u{7f}\u{0}"), "number": 7 });
    let line = json::line(&value);
    assert!(is_plain(&line), "{line:?}");
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
}

#[test]
fn an_error_chain_names_every_cause_once() {
    use std::io;
    let cause = io::Error::other(io::Error::other("the disk is full"));
    assert_eq!(text::chain(&cause), "the disk is full");
    let error = libp2p_peerstore::OpenError::Thread(io::Error::other("no threads left"));
    assert_eq!(
        text::chain(&error),
        "could not start the thread of the peer store: no threads left"
    );
}

// --- soak ----------------------------------------------------------------------------------------------------

#[test]
fn a_soak_of_seconds_ends_with_its_ok_line_and_one_that_is_too_short_with_an_error() {
    let soak = |minutes: &str| {
        let mut command = example("soak");
        command.args(["--nodes", "6", "--stay", "2", "--every", "1"]);
        // Within seconds nothing is warm: how growth is judged has tests of its own.
        command.args(["--minutes", minutes, "--growth", "100"]);
        command.output().unwrap()
    };
    let ran = soak("0.14");
    let said = String::from_utf8(ran.stdout).unwrap();
    let last = said.lines().last().unwrap();
    assert!(
        ran.status.success() && last.starts_with("soak: ok, "),
        "{said}"
    );
    assert!(
        said.lines().count() >= 9,
        "a header, reports, refusals: {said}"
    );

    let ran = soak("0.03");
    let complained = String::from_utf8(ran.stderr).unwrap();
    assert!(!ran.status.success());
    assert!(
        complained.starts_with("soak: ") && complained.contains("too few"),
        "{complained}"
    );
}
