//! A process that is killed. The page cache survives it, so that this says nothing about syncing: `power.rs` does.

use std::{
    env,
    io::{BufRead, BufReader, Write, stdout},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use futures::executor::block_on;
use libp2p::PeerId;
use libp2p_peerstore::{Config, PeerStore, RedbDatastore};

use crate::{
    eager, recovered_with,
    workload::{Model, Op, ops},
};

/// The file and the seed for this program when it is its own child.
const FILE: &str = "PEERSTORE_TEST_FILE";
const SEED: &str = "PEERSTORE_TEST_SEED";

/// Works on the file until it is killed, and says after each flush how many operations are promised.
fn work(path: &Path, seed: u64) -> ! {
    let datastore = RedbDatastore::open(path).unwrap();
    let config = eager(Config::default());
    let store = block_on(PeerStore::open(PeerId::random(), datastore, config)).unwrap();
    for (n, op) in ops(seed).enumerate() {
        op.perform(&store);
        if matches!(op, Op::Flush) {
            block_on(store.flush()).unwrap();
            let mut out = stdout().lock();
            // On a line of its own, whatever the test harness has written.
            writeln!(out, "\n@ {}", n + 1).unwrap();
            out.flush().unwrap();
        }
    }
    unreachable!("there is no last operation");
}

/// When a child is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So long after its start: it may not even have opened the file.
    AfterStart(Duration),
    /// So long after so many promises.
    AfterPromises(usize, Duration),
}

impl Moment {
    fn random(random: &mut fastrand::Rng) -> Self {
        match random.u8(..5) {
            0 => Moment::AfterStart(Duration::from_micros(random.u64(..60_000))),
            _ => Moment::AfterPromises(
                random.usize(1..12),
                Duration::from_micros(random.u64(..6_000)),
            ),
        }
    }
}

/// Starts a child on the file and kills it. Returns the operations that it promised, and whether it had begun.
fn kill(test: &str, path: &Path, seed: u64, moment: Moment) -> usize {
    let mut child = Command::new(env::current_exe().unwrap())
        .args([
            test,
            "--exact",
            "--nocapture",
            "--include-ignored",
            "--test-threads",
            "1",
        ])
        .env(FILE, path)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut promised, mut promises) = (0, 0);
    let mut hear = |line: String| {
        if let Some((_, n)) = line.split_once("@ ") {
            (promised, promises) = (n.parse().unwrap(), promises + 1);
        }
        promises
    };
    match moment {
        Moment::AfterStart(delay) => thread::sleep(delay),
        Moment::AfterPromises(wanted, delay) => {
            for line in lines.by_ref() {
                if hear(line.unwrap()) == wanted {
                    break;
                }
            }
            // Finer than a sleep.
            let start = Instant::now();
            while start.elapsed() < delay {
                std::hint::spin_loop();
            }
        }
    }
    // SIGKILL.
    child.kill().unwrap();
    let status = child.wait().unwrap();
    #[cfg(unix)]
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9),
        "{status}"
    );
    // What it said before it died.
    for line in lines {
        hear(line.unwrap());
    }
    promised
}

fn killed_at_random(test: &str, times: u64) {
    if let (Some(path), Ok(seed)) = (env::var_os(FILE), env::var(SEED)) {
        work(&PathBuf::from(path), seed.parse().unwrap());
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.redb");
    let mut random = fastrand::Rng::new();
    let mut state = Model::default();
    let (mut promises, mut torn_away) = (0, 0);
    for run in 0..times {
        let (seed, moment) = (random.u64(..), Moment::random(&mut random));
        let promised = kill(test, &path, seed, moment);
        let done: Vec<Op> = ops(seed).take(promised).collect();
        // It may have done as much as comes before the end of the next flush.
        let until_flush = |op: &Op| !matches!(op, Op::Flush);
        let later: Vec<Op> = ops(seed).skip(promised).take_while(until_flush).collect();

        let expected = state.after(&done);
        let found = recovered_with(RedbDatastore::open(&path).unwrap(), Config::default());
        expected.assert_reaches(&found, &later, &(run, seed, moment, promised));
        promises += done.iter().filter(|op| matches!(op, Op::Flush)).count();
        torn_away += usize::from(found != expected);
        state = found;
    }
    println!(
        "{times} kills, {promises} flushes promised, nothing lost; {torn_away} times more was there than was promised"
    );
}

#[test]
fn a_killed_process_has_lost_nothing_that_it_promised() {
    killed_at_random(
        "kill::a_killed_process_has_lost_nothing_that_it_promised",
        20,
    );
}

#[test]
#[ignore = "the long form, for a release build"]
fn a_process_that_is_killed_300_times_has_lost_nothing_that_it_promised() {
    killed_at_random(
        "kill::a_process_that_is_killed_300_times_has_lost_nothing_that_it_promised",
        300,
    );
}
