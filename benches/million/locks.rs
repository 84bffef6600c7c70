//! How long the swarm waits for the store, while everything that holds its lock goes on.
//!
//! Measured from outside, as the time of each call that the swarm makes. On two cores with four busy threads most of the
//! long ones are the scheduler's: it takes the processor away in the middle of a call, or from whoever holds the lock. So the
//! same is measured with nothing else going on, and with all of it going on in another store: what is over there is not the
//! store's.

use std::{
    fs,
    hint::black_box,
    ops::ControlFlow,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use libp2p::{
    core::Endpoint,
    swarm::{ConnectionId, NetworkBehaviour},
};
use libp2p_peerstore::{ManualClock, PeerStore};

use crate::{
    bed::{
        Size,
        datastore::{flush, on_demand, open},
        node::{Node, some, tell},
        peers::Peer,
        row::{Row, nanos},
        time::{percentile, thread_time},
    },
    disk,
};

/// Peers that expire while it is measured.
const EXPIRING: usize = 20_000;
/// Between two calls of the swarm at most: they come by chance, so that they meet long holds as often as those last.
const PAUSE: u64 = 40_000;

/// What the swarm calls.
const CALLS: [&str; 7] = [
    "dial",
    "connected",
    "identify",
    "closed",
    "Kademlia",
    "new peer",
    "poll",
];

/// Times of all calls, on the wall and of the processor, by call.
#[derive(Default)]
struct Calls {
    wall: [Vec<f64>; CALLS.len()],
    cpu: [Vec<f64>; CALLS.len()],
}

pub fn rows(size: Size, folder: &Path) -> Vec<Row> {
    let (file, _) = disk::everything(size, folder);
    let busy = Busy::new(size, &file);
    let mut node = Node::with(busy.store.clone());
    let bystander = Node::new(on_demand(size.peers()));
    let mut bystander = bystander;
    // The other store is as large, so that its records are as far from the processor.
    let known: Vec<Peer> = Peer::many(0..size.peers() as u64);
    for peer in &known {
        tell(&bystander.store, peer.id, &peer.addresses());
    }
    let mut random = Rng::with_seed(1);
    let quiet_time = Duration::from_secs(size.rounds(5) as u64).mul_f64(if size == Size::Smoke {
        0.05
    } else {
        1.0
    });
    let deadline = |time: Duration| {
        let end = Instant::now() + time;
        move || Instant::now() >= end
    };
    let quiet = swarm(&mut node, &known, &mut random, deadline(quiet_time));
    let (elsewhere, _) = busy.during(|done| swarm(&mut bystander, &known, &mut random, done));
    let (loud, work) = busy.during(|done| swarm(&mut node, &known, &mut random, done));
    drop(node);
    drop(busy);
    let _ = fs::remove_file(file);
    rows_of(&quiet, &elsewhere, &loud, &work)
}

fn rows_of(quiet: &Calls, elsewhere: &Calls, loud: &Calls, work: &str) -> Vec<Row> {
    let all = |calls: &[Vec<f64>]| calls.concat();
    let line = |figures: &[f64]| {
        let [p99, p999, worst] = [0.99, 0.999, 1.0].map(|part| nanos(percentile(figures, part)));
        format!("{p99}, {p999}, {worst}")
    };
    let wall = all(&loud.wall);
    let (p999, worst) = (percentile(&wall, 0.999), percentile(&wall, 1.0));
    let slowest = CALLS
        .iter()
        .zip(&loud.wall)
        .map(|(call, wall)| (percentile(wall, 0.999), *call));
    let (slowest, call) = slowest.fold((0.0, ""), |a, b| if b.0 > a.0 { b } else { a });
    let head = "99 %, 99.9 %, worst";
    let mut rows = vec![
        Row::new(
            format!("a call of the swarm meanwhile: {head}"),
            line(&wall),
        )
        .target("99.9 % < 100 µs, worst < 2 ms", p999 < 1e5 && worst < 2e6),
        Row::new(
            "the same, the slowest kind of call",
            format!("{}: {call}", nanos(slowest)),
        )
        .target("99.9 % < 100 µs", slowest < 1e5),
        Row::new(
            "the same, all of it in another store",
            line(&all(&elsewhere.wall)),
        ),
        Row::new("the same, nothing else going on", line(&all(&quiet.wall))),
        Row::new(
            "processor time of these calls meanwhile",
            line(&all(&loud.cpu)),
        ),
        Row::new("meanwhile", work),
    ];
    for (at, call) in CALLS.iter().enumerate() {
        let reached = format!("{}; alone {}", line(&loud.wall[at]), line(&quiet.wall[at]));
        rows.push(Row::new(format!("{call}: {head}"), reached));
    }
    rows
}

// --- what goes on -----------------------------------------------------------------------------------------

/// A store in which everything goes on that holds its lock.
struct Busy {
    store: PeerStore,
    clock: ManualClock,
    peers: usize,
}

impl Busy {
    fn new(size: Size, file: &Path) -> Self {
        let peers = size.peers();
        let clock = ManualClock::starting_at(std::time::SystemTime::now());
        let config = on_demand(peers).with_max_peers(some(peers + 4 * EXPIRING + 100_000));
        let store = open(file, config.with_clock(clock.clone()));
        Self {
            store,
            clock,
            peers,
        }
    }

    /// Commits everything, lists everybody and collects what expires, until the commit is done; meanwhile, `act`.
    fn during<T>(&self, act: impl FnOnce(&dyn Fn() -> bool) -> T) -> (T, String) {
        // Everything is changed.
        for id in self.store.peer_ids() {
            let value = format!("{:?}", self.clock).into_bytes();
            self.store
                .metadata()
                .set(id, "seen", value)
                .expect("a short value");
        }
        // And much expires, bit by bit.
        let expiring = EXPIRING.min(self.peers / 10);
        let lifetime = self.store_lifetime();
        for number in 0..expiring as u64 {
            if number.is_multiple_of(100) {
                self.clock
                    .advance(lifetime.mul_f64(0.9) * 100 / expiring as u32);
            }
            let peer = Peer::keyless(u64::MAX / 2 + number);
            tell(&self.store, peer.id, &peer.addresses());
        }
        let before = self.store.len();
        let (done, listings, collected) = (
            AtomicBool::new(false),
            AtomicUsize::new(0),
            AtomicUsize::new(0),
        );
        let begun = Instant::now();
        let result = thread::scope(|scope| {
            scope.spawn(|| {
                flush(&self.store);
                done.store(true, Ordering::Relaxed);
            });
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    self.store.for_each(|peer| {
                        black_box(peer);
                        match done.load(Ordering::Relaxed) {
                            true => ControlFlow::Break(()),
                            false => ControlFlow::Continue(()),
                        }
                    });
                    listings.fetch_add(1, Ordering::Relaxed);
                }
            });
            scope.spawn(|| {
                let mut left = lifetime;
                while !done.load(Ordering::Relaxed) {
                    let step = Duration::from_secs(1).min(left);
                    self.clock.advance(step);
                    left -= step;
                    let there = self.store.len();
                    collected.fetch_max(before.saturating_sub(there), Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(2));
                }
            });
            act(&|| done.load(Ordering::Relaxed))
        });
        let work = format!(
            "a commit of everybody in {:.1?}, {} full listings, {} peers expired",
            begun.elapsed(),
            listings.into_inner(),
            collected.into_inner(),
        );
        (result, work)
    }

    fn store_lifetime(&self) -> Duration {
        libp2p_peerstore::DEFAULT_HEARSAY_LIFETIME
    }
}

// --- the swarm --------------------------------------------------------------------------------------------

/// A swarm's thread: one call after another, each timed, until it is enough.
fn swarm(node: &mut Node, known: &[Peer], random: &mut Rng, done: impl Fn() -> bool) -> Calls {
    let mut calls = Calls::default();
    let mut newcomers = u64::MAX / 4 + random.u64(..1 << 40);
    while !done() {
        // What comes from the network is made before, and its end is off the clock.
        let peer = known[random.usize(..known.len())];
        let addresses = peer.addresses();
        let newcomer = Peer::keyless(newcomers);
        newcomers += 1;
        let new_addresses = newcomer.addresses();
        node.identify.received(peer.identify(peer.is_one_in(1_000)));
        for call in 0..CALLS.len() {
            let pause = Duration::from_nanos(random.u64(..PAUSE));
            let start = Instant::now();
            while start.elapsed() < pause {
                std::hint::spin_loop();
            }
            let cpu = thread_time();
            let start = Instant::now();
            match call {
                0 => drop(node.behaviour.handle_pending_outbound_connection(
                    ConnectionId::new_unchecked(0),
                    Some(peer.id),
                    &[],
                    Endpoint::Dialer,
                )),
                1 => node.dialled(peer.id, &addresses[0]),
                2 => node.hear(),
                3 => node.closed(peer.id, &addresses[0]),
                4 => tell(&node.store, peer.id, &addresses),
                5 => tell(&node.store, newcomer.id, &new_addresses),
                _ => drop(node.poll()),
            }
            calls.wall[call].push(start.elapsed().as_nanos() as f64);
            calls.cpu[call].push((thread_time() - cpu).as_nanos() as f64);
        }
        node.said.clear();
        // The rest of the events, off the clock.
        node.take_events();
    }
    calls
}
