//! Calling the binary, and stores for it.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, SystemTime},
};

use futures::{TryStreamExt, executor::block_on};
use libp2p_core::{Multiaddr, PeerRecord};
use libp2p_identity::{Keypair, PeerId};
use libp2p_peerstore::{
    Batch, Config, Datastore, FsDatastore, ManualClock, PeerStore, RedbDatastore, Source,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::api::{Swarm, identify, peer, rsa_key};

pub const HOUR: Duration = Duration::from_secs(60 * 60);
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

// --- the binary --------------------------------------------------------------------------------------------

/// How a call ended.
#[derive(Debug)]
pub struct Ended {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, 0, "{self:?}");
        self.out
    }

    /// What it says must name all of these.
    #[track_caller]
    pub fn failed(self, status: i32, names: &[&str]) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        for name in names {
            assert!(self.err.contains(name), "no `{name}` in: {}", self.err);
        }
        self
    }
}

pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peerstore"));
    command.args(args).current_dir(env!("CARGO_MANIFEST_DIR"));
    for name in ["COLUMNS", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command
}

pub fn run(args: &[&str]) -> Ended {
    run_with(args, &[], b"")
}

pub fn run_with(args: &[&str], env: &[(&str, &str)], input: &[u8]) -> Ended {
    let mut command = command(args);
    command.envs(env.iter().copied());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    // It may end before it has read everything.
    let writing = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    Ended {
        status: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// As [`run`], with a terminal of so many columns as standard output, which shows no colours.
#[cfg(unix)]
pub fn run_on_a_terminal(args: &[&str], columns: &str) -> Ended {
    use rustix::{fs::Mode, fs::OFlags, pty};

    let ours = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).unwrap();
    pty::grantpt(&ours).unwrap();
    pty::unlockpt(&ours).unwrap();
    let name = pty::ptsname(&ours, Vec::new()).unwrap();
    let theirs = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let mut command = command(args);
    command.env("COLUMNS", columns).env("NO_COLOR", "1");
    command
        .stdin(Stdio::null())
        .stdout(theirs)
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    // It ends for us when nobody has it any longer.
    drop(command);
    let mut out = Vec::new();
    let read = fs::File::from(ours).read_to_end(&mut out);
    drop(read); // Linux tells of the end by an error.
    let output = child.wait_with_output().unwrap();
    Ended {
        status: output.status.code().unwrap_or(-1),
        out: String::from_utf8(out).unwrap().replace("\r\n", "\n"),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The lines of an answer in JSON.
#[track_caller]
pub fn json_lines(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What an answer in JSON says in its one line.
#[track_caller]
pub fn json(text: &str) -> Value {
    let lines = json_lines(text);
    assert_eq!(lines.len(), 1, "{text}");
    lines.into_iter().next().unwrap()
}

// --- stores ------------------------------------------------------------------------------------------------

/// A place for stores.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The URL of a file or folder here.
    pub fn url(&self, scheme: &str, name: &str) -> String {
        format!("{scheme}:{}", self.path(name).display())
    }

    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

pub fn redb(place: &Place) -> RedbDatastore {
    RedbDatastore::open(place.path("peers.redb")).unwrap()
}

pub fn folder(place: &Place) -> FsDatastore {
    FsDatastore::open(place.path("peers")).unwrap()
}

pub fn js_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/js-libp2p-0.30")
}

pub fn js_store() -> String {
    format!("fs:{}", js_folder().join("store").display())
}

/// What stands in a datastore.
pub fn entries(datastore: &dyn Datastore) -> BTreeMap<String, Vec<u8>> {
    block_on(datastore.query("").try_collect()).unwrap()
}

pub fn put(datastore: &dyn Datastore, found: &[(String, Vec<u8>)]) {
    let mut batch = Batch::default();
    for (key, value) in found {
        batch.put(key.clone(), value.clone());
    }
    block_on(datastore.commit(batch)).unwrap();
}

pub fn close(datastore: impl Datastore) {
    block_on(datastore.close()).unwrap();
}

/// The content of a file, or of all files below a folder, with their names.
pub fn bytes(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![path.to_path_buf()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let below = fs::read_dir(&path).unwrap();
            left.extend(below.map(|entry| entry.unwrap().path()));
            found.insert(path, Vec::new());
        } else {
            let content = fs::read(&path).unwrap();
            found.insert(path, content);
        }
    }
    found
}

/// The peers of [`filled`], by what they are good for.
pub const DIALLED: u8 = 1;
pub const TOLD: u8 = 2;
pub const EXPIRED: u8 = 3;
pub const HOSTILE: u8 = 4;
pub const PROTOCOLS_ALONE: u8 = 5;

/// A peer whose id does not contain its key.
pub fn rsa_peer() -> PeerId {
    rsa_key().to_peer_id()
}

pub const SOFTWARE: &str = "kubo/0.36.0/1a2b3c";
/// What a terminal would act on: clears the screen, turns the direction of text, ends the line.
pub const HOSTILE_TEXT: &str = "kubo/\u{1b}[2J\u{202e}evil\r\nline\u{7}";

pub fn at(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

/// Fills a datastore as a node does that heard of others four hours ago and ended an hour ago.
pub fn filled(datastore: impl Datastore) {
    let clock = ManualClock::starting_at(SystemTime::now() - 4 * HOUR);
    let config = Config::default().with_clock(clock.clone());
    let store = block_on(PeerStore::open(PeerId::random(), datastore, config)).unwrap();
    let mut swarm = Swarm::of(&store);

    let public = |last: u8, port: u16| at(&format!("/ip4/203.0.113.{last}/tcp/{port}"));
    identify(
        &store,
        peer(DIALLED),
        &[
            at("/ip4/8.8.8.8/tcp/4001"),
            at("/ip4/8.8.8.8/udp/4001/quic-v1"),
        ],
    );
    swarm.proved(peer(DIALLED), at("/ip4/8.8.8.8/tcp/4001"));
    swarm.dial_failed(peer(DIALLED), [at("/ip4/8.8.8.8/tcp/4001")]);
    let speaks = ["/ipfs/kad/1.0.0", "/chat/1.0.0"];
    store.protocols().set(peer(DIALLED), speaks);
    let metadata = store.metadata();
    metadata
        .set(peer(DIALLED), "AgentVersion", SOFTWARE)
        .unwrap();
    metadata.set(peer(DIALLED), "a/../b", vec![0, 255]).unwrap();
    metadata.set(peer(DIALLED), "empty", "").unwrap();
    let mut learned = store.learned(Source::Identify);
    learned.latency(peer(DIALLED), Duration::from_micros(12_500));
    store.tags().set(peer(DIALLED), "keep", 50, None).unwrap();
    store
        .tags()
        .set(peer(DIALLED), "soon", 1, Some(30 * DAY))
        .unwrap();

    for (n, last) in [(TOLD, 7), (40, 8), (41, 9)] {
        let key = Keypair::ed25519_from_bytes([n; 32]).unwrap();
        let addresses = vec![public(last, 1), at("/dns4/node.example.org/tcp/443/wss")];
        let record = match n {
            TOLD => PeerRecord::new_interop(&key, addresses),
            _ => PeerRecord::new(&key, addresses),
        };
        let record = record.unwrap().into_signed_envelope();
        store.consume_peer_record(record).unwrap();
    }
    identify(&store, peer(HOSTILE), &[at("/ip4/1.1.1.1/tcp/4001/ws")]);
    metadata
        .set(peer(HOSTILE), "AgentVersion", HOSTILE_TEXT)
        .unwrap();
    metadata
        .set(peer(HOSTILE), "\u{1b}[31m", HOSTILE_TEXT)
        .unwrap();
    store
        .tags()
        .set(peer(HOSTILE), "\u{202e}tag", 1, None)
        .unwrap();
    store
        .protocols()
        .set(peer(HOSTILE), ["/\u{1b}]0;evil\u{7}/1.0.0"]);

    store
        .protocols()
        .set(peer(PROTOCOLS_ALONE), ["/lonely/1.0.0"]);
    store.keys().set(rsa_peer(), rsa_key()).unwrap();
    clock.advance(3 * HOUR);
    drop(swarm);
    block_on(store.shutdown()).unwrap();
}

/// Puts the entries of an expired peer into a datastore: nothing was heard of it for 100 days.
pub fn add_expired(datastore: &dyn Datastore) {
    let clock = ManualClock::starting_at(SystemTime::now() - 100 * DAY);
    let config = Config::default().with_clock(clock);
    let memory = libp2p_peerstore::MemoryDatastore::default();
    let store = block_on(PeerStore::open(PeerId::random(), memory.clone(), config)).unwrap();
    identify(&store, peer(EXPIRED), &[at("/ip4/8.8.4.4/tcp/4001")]);
    block_on(store.shutdown()).unwrap();
    put(datastore, &Vec::from_iter(memory.entries()));
}

/// A file with everything in it.
pub fn full(place: &Place) -> String {
    filled(redb(place));
    let datastore = redb(place);
    add_expired(&datastore);
    close(datastore);
    place.url("redb", "peers.redb")
}
