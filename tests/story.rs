//! What a node's log says at `info`: the story of its life in a few lines, and nothing that strangers could make it say.

#![allow(clippy::unwrap_used)]

#[path = "support/datastore.rs"]
mod support;

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use libp2p::{Multiaddr, PeerId, StreamProtocol, identity::Keypair};
use libp2p_peerstore::{
    AGENT_VERSION, MemoryDatastore, PeerStore, RedbDatastore, Source,
    testing::{Call, Fault, FaultyDatastore},
};
use tracing::{Level, subscriber::DefaultGuard};

use support::{Hand, addr};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// What this thread logs, as the formatter of `tracing-subscriber` writes it by default, without times and colours.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn at(level: Level) -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .without_time()
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// The lines since the last look.
    fn take(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The same node in every run.
fn local() -> PeerId {
    let key = Keypair::ed25519_from_bytes([7; 32]).unwrap();
    key.public().to_peer_id()
}

fn touch(store: &PeerStore, peers: usize) {
    for _ in 0..peers {
        store.addresses().add(PeerId::random(), [addr(1)]);
    }
}

/// Opens a store, which takes so long by its clock.
fn open_in(
    time: Duration,
    file: &Path,
    hand: &mut Hand,
) -> (PeerStore, FaultyDatastore<RedbDatastore>) {
    let datastore = FaultyDatastore::new(RedbDatastore::open(file).unwrap());
    datastore.hold(Call::Query);
    let open = PeerStore::open(local(), datastore.clone(), hand.config());
    let mut open = hand.start(open);
    hand.clock.advance(time);
    datastore.release();
    (hand.result(&mut open).unwrap().unwrap(), datastore)
}

/// The log in the documentation is that of this test, but for the folder.
#[test]
fn the_log_of_a_short_life_is_the_story_in_the_documentation() {
    let document = include_str!("../docs/operating.md");
    let (_, rest) = document.split_once("```text\n").unwrap();
    let (story, _) = rest.split_once("```").unwrap();
    let expected: Vec<&str> = story.lines().map(str::trim).collect();

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("peers.redb");
    let (log, _guard) = Log::at(Level::INFO);
    let mut hand = Hand::default();
    let (store, datastore) = open_in(Duration::from_millis(2), &file, &mut hand);
    // It learns of peers, and they are saved.
    touch(&store, 12);
    hand.advance(30 * SECOND);
    // The disk is full for a moment.
    datastore.fail_commit(0, Fault::Fail);
    datastore.fail_commit(1, Fault::Fail);
    touch(&store, 5);
    for _ in 0..4 {
        hand.advance(SECOND);
    }
    // It goes on learning, and stops.
    touch(&store, 3);
    hand.shutdown(store);
    drop(datastore);
    // It starts again.
    let (store, _datastore) = open_in(Duration::from_millis(3), &file, &mut hand);
    hand.shutdown(store);

    let folder = format!("{}/", folder.path().display());
    let told: Vec<String> = log.take();
    let told: Vec<String> = told.iter().map(|line| line.replace(&folder, "")).collect();
    assert_eq!(told, expected, "\n{}\n", told.join("\n"));
}

#[test]
fn a_busy_node_says_that_it_saves_once_in_ten_minutes_and_leaves_nothing_out() {
    let (mut hand, datastore) = (Hand::default(), MemoryDatastore::default());
    let (log, _guard) = Log::at(Level::INFO);
    let store = hand.open(datastore);
    for _ in 0..30 * 60 {
        touch(&store, 5);
        hand.advance(SECOND);
    }
    let told = log.take();
    let saved: Vec<u32> = (told.iter())
        .filter(|line| line.contains("saved peers"))
        .map(|line| line.split("peers=").nth(1).unwrap())
        .map(|rest| rest.split(' ').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!((told.len(), saved.len()), (4, 3), "{told:#?}");
    let (first, later) = saved.split_first().unwrap();
    assert_eq!(*first, 5);
    assert!(later.iter().all(|peers| *peers == 5 * 600), "{saved:?}");
}

#[test]
fn an_outage_is_told_once_and_its_end_once() {
    let mut hand = Hand::default();
    let datastore = FaultyDatastore::new(MemoryDatastore::default());
    let (log, _guard) = Log::at(Level::INFO);
    let store = hand.open(datastore.clone());
    for outage in 0..2 {
        log.take();
        datastore.fail_commits_at_random(1, 1.0, [Fault::Fail, Fault::Panic]);
        for _ in 0..60 {
            touch(&store, 5);
            hand.advance(MINUTE);
        }
        let told = log.take();
        assert_eq!(told.len(), 1, "outage {outage}: {told:#?}");
        assert!(told[0].starts_with("WARN") && told[0].contains("could not save peers"));
        datastore.recover();
        hand.advance(MINUTE);
        let told = log.take();
        assert_eq!(told.len(), 1, "{told:#?}");
        assert!(told[0].starts_with("INFO") && told[0].contains("peers=300 failures="));
    }
}

#[test]
fn a_store_that_cannot_save_at_its_end_warns() {
    let mut hand = Hand::default();
    let datastore = FaultyDatastore::new(MemoryDatastore::default());
    let store = hand.open(datastore.clone());
    touch(&store, 2);
    let (log, _guard) = Log::at(Level::INFO);
    // It is tried three times.
    (0..3).for_each(|n| datastore.fail_commit(n, Fault::Fail));
    hand.block(store.shutdown()).unwrap_err();
    hand.settle();
    let told = log.take();
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[1].ends_with("the peer store is shut down: changes stay in memory"));
    let end = "the peer store is shut down, and could not save everything saved=0 unsaved=2";
    assert!(
        told[0].starts_with("WARN") && told[0].contains(end),
        "{told:?}"
    );
}

#[test]
fn what_cannot_be_used_and_what_has_no_room_is_told_once_at_the_start() {
    let (mut hand, datastore) = (Hand::default(), MemoryDatastore::default());
    let store = hand.open(datastore.clone());
    touch(&store, 3);
    hand.shutdown(store);
    let key = format!("/peers/addrs/{}", support::b32(&PeerId::random()));
    hand.block(libp2p_peerstore::Datastore::put(
        &datastore,
        &key,
        vec![0xff],
    ))
    .unwrap();
    let (log, _guard) = Log::at(Level::INFO);
    let _store = hand.open_with(datastore, |config| {
        config.with_max_peers(2.try_into().unwrap())
    });
    let told = log.take();
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(told[0].contains("opened the peer store") && told[0].contains(" peers=2 "));
    assert!(told[1].starts_with("WARN") && told[1].contains("entries=1"));
    assert!(told[2].starts_with("WARN") && told[2].contains("peers=1"));
}

/// Nothing that remote peers do is a line at `info`: else they could fill a disk with it.
#[test]
fn strangers_cannot_write_into_the_log() {
    let mut hand = Hand::default();
    let config = hand.config().with_max_peers(50.try_into().unwrap());
    let store = PeerStore::in_memory(PeerId::random(), config);
    let (log, _guard) = Log::at(Level::INFO);
    let foreign: Multiaddr = addr(1).with_p2p(PeerId::random()).unwrap();
    for n in 0..2_000_u16 {
        let peer = PeerId::random();
        let mut learned = store.learned(Source::Identify);
        learned.replace(peer, &[addr(n), foreign.clone()]);
        let long = format!("/\u{1b}[2J\n WARN evil{}", "x".repeat(300));
        let long = StreamProtocol::try_from_owned(long).unwrap();
        learned.protocols(peer, &[long]);
        learned.metadata(peer, AGENT_VERSION, &[b'\n'; 10_000]);
        learned.public_key(peer, &Keypair::generate_ed25519().public());
        let mut learned = store.learned(Source::Kademlia);
        learned.add(peer, &[foreign.clone(), "/dnsaddr/evil".parse().unwrap()]);
    }
    hand.settle();
    assert_eq!(log.take(), [""; 0]);
    assert!(store.refusals().total() > 4_000);
}

#[test]
fn at_debug_a_new_peer_says_what_made_it_known_and_a_commit_names_its_span() {
    let (mut hand, datastore) = (Hand::default(), MemoryDatastore::default());
    let (log, _guard) = Log::at(Level::DEBUG);
    let store = hand.open(datastore);
    log.take();
    let peer = PeerId::random();
    store.learned(Source::Kademlia).add(peer, &[addr(1)]);
    store.learned(Source::Kademlia).add(peer, &[addr(2)]);
    let told = log.take();
    let line =
        format!("DEBUG libp2p_peerstore::inner: a peer became known peer={peer} cause=discovery");
    assert_eq!(told, [line]);
    hand.flush(&store);
    let told = log.take();
    let is_in_span = |line: &String| {
        line.contains("PeerStore::commit:") && line.contains("committing peers peers=1 keys=1")
    };
    assert!(told.iter().any(is_in_span), "{told:#?}");
}
