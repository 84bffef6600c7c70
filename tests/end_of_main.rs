//! What becomes of a store at the end of `main`, and of one that is still in use there. Without the test harness, whose
//! `main` it would be: this program runs itself in each role.

#![allow(clippy::unwrap_used)]

use std::{
    env,
    path::Path,
    process::Command,
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use futures::executor::block_on;
use libp2p_identity::PeerId;
use libp2p_peerstore::{Config, PeerStore, RedbDatastore};

const ROLE: &str = "PEERSTORE_TEST_ROLE";
const FILE: &str = "PEERSTORE_TEST_FILE";

static KEPT: OnceLock<PeerStore> = OnceLock::new();

thread_local! {
    static LOCAL: OnceLock<PeerStore> = const { OnceLock::new() };
}

fn open(path: impl AsRef<Path>) -> PeerStore {
    let datastore = RedbDatastore::open(path).unwrap();
    block_on(PeerStore::open(
        PeerId::random(),
        datastore,
        Config::default(),
    ))
    .unwrap()
}

fn main() {
    let Ok(role) = env::var(ROLE) else {
        return test();
    };
    let store = open(env::var_os(FILE).unwrap());
    let address = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
    store.addresses().add(PeerId::random(), [address]);
    match role.as_str() {
        // The last handle goes with `main`.
        "end" => {}
        "exit" => std::process::exit(0),
        "static" => KEPT.set(store).unwrap(),
        "thread-local of main" => LOCAL.with(|local| local.set(store).unwrap()),
        "thread-local of a thread" => {
            let thread = thread::spawn(|| LOCAL.with(|local| local.set(store).unwrap()));
            thread.join().unwrap();
        }
        "in use by a thread" => {
            let (saved, is_saved) = mpsc::channel();
            thread::spawn(move || {
                loop {
                    if block_on(store.flush()).is_ok() {
                        let _ = saved.send(());
                    }
                }
            });
            is_saved.recv().unwrap();
        }
        other => panic!("{other}"),
    }
}

fn test() {
    for (role, is_saved) in [
        ("end", true),
        // Nobody dropped it, nobody asked for it to be saved: all that is promised is that it does not hang.
        ("exit", false),
        ("static", false),
        ("thread-local of main", false),
        ("thread-local of a thread", true),
        ("in use by a thread", true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.redb");
        let start = Instant::now();
        let status = Command::new(env::current_exe().unwrap())
            .env(ROLE, role)
            .env(FILE, &path)
            .status()
            .unwrap();
        let took = start.elapsed();
        assert!(status.success(), "{role}: {status}");
        assert!(took < Duration::from_secs(30), "{role}: {took:?}");
        let store = open(&path);
        assert!(store.len() == 1 || !is_saved, "{role}: it is not saved");
        assert_eq!(store.load_report().undecodable, 0, "{role}");
        block_on(store.shutdown()).unwrap();
        println!("{role}: ok");
    }
}
