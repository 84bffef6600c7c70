//! How long the swarm waits for the store, while everything that holds its lock goes on.
//!
//! Measured from outside, as the time of each call that the swarm makes. On two cores with four busy threads most of the
//! long ones are the scheduler's: it takes the processor away in the middle of a call, or from whoever holds the lock. So the
//! same is measured with nothing else going on, and with all of it going on in another store: what is over there is not the
//! store's.

use std::{
    hint::black_box,
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use libp2p::{
    core::Endpoint,
    swarm::{ConnectionId, NetworkBehaviour},
};
use libp2p_peerstore::{DEFAULT_HEARSAY_LIFETIME, ManualClock, PeerStore};

use crate::bed::{
    Size,
    datastore::{flush, on_demand, open},
    node::{Node, some, tell},
    peers::Peer,
    row::{Row, nanos},
    time::{percentile, thread_time},
};

/// Peers that expire while it is measured.
const EXPIRING: usize = 20_000;
/// Between two calls of the swarm at most: they come by chance, so that they meet long holds as often as those last.
const PAUSE: u64 = 40_000;
/// With the noise in this store and in another one, by turns.
const PHASES: u32 = 10;

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

/// How long it is measured with nothing else going on; and in each of the other ways.
fn times(size: Size) -> (Duration, Duration) {
    match size {
        Size::Full => (Duration::from_secs(5), Duration::from_secs(20)),
        Size::Quick => (Duration::from_secs(1), Duration::from_secs(4)),
        Size::Smoke => (Duration::from_millis(20), Duration::from_millis(50)),
    }
}

/// What a process of its own measures: it ends in the midst of it all.
pub fn rows_here(size: Size, file: &str) -> Vec<Row> {
    let busy = Busy::new(size, Path::new(file));
    let mut node = Node::with(busy.store.clone());
    let mut bystander = Node::new(on_demand(2 * size.peers()));
    // The other store is as large, so that its records are as far from the processor.
    let known: Vec<Peer> = Peer::many(0..size.peers() as u64);
    for peer in &known {
        tell(&bystander.store, peer.id, &peer.addresses());
    }
    let mut random = Rng::with_seed(1);
    let (quiet_time, time) = times(size);
    let [mut quiet, mut elsewhere, mut loud] = <[Calls; 3]>::default();
    quiet.swarm(&mut node, &known, &mut random, quiet_time);
    let work = busy.during(|| {
        for _ in 0..PHASES {
            elsewhere.swarm(&mut bystander, &known, &mut random, time / PHASES);
            loud.swarm(&mut node, &known, &mut random, time / PHASES);
        }
    });
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
        .within(
            "99.9 % < 100 µs, worst < 2 ms",
            (p999 / 1e5).max(worst / 2e6),
        ),
        Row::new(
            "the same, the slowest kind of call",
            format!("{}: {call}", nanos(slowest)),
        )
        .within("99.9 % < 100 µs", slowest / 1e5),
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

    /// Commits everything, lists everybody and collects what expires, over and over; meanwhile, `act`. Nobody waits for
    /// the end of it.
    fn during(&self, act: impl FnOnce()) -> String {
        let counts = Arc::new(Counts::default());
        let (store, counted) = (self.store.clone(), counts.clone());
        thread::spawn(move || {
            for time in 0_u64.. {
                for id in store.peer_ids() {
                    let value = time.to_be_bytes().to_vec();
                    store
                        .metadata()
                        .set(id, "seen", value)
                        .expect("a short value");
                }
                counted.flushing.store(true, Ordering::Relaxed);
                flush(&store);
                counted.commits.fetch_add(1, Ordering::Relaxed);
            }
        });
        let (store, counted) = (self.store.clone(), counts.clone());
        thread::spawn(move || {
            loop {
                store.for_each(|peer| {
                    black_box(peer);
                    ControlFlow::<()>::Continue(())
                });
                counted.listings.fetch_add(1, Ordering::Relaxed);
            }
        });
        // The commit has begun before anything is measured.
        while !counts.flushing.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
        // Told now, since what the application has written about is kept.
        let expiring: Vec<Peer> = (0..EXPIRING.min(self.peers / 10) as u64)
            .map(|number| Peer::keyless(u64::MAX / 2 + number))
            .collect();
        for part in expiring.chunks(expiring.len().div_ceil(100)) {
            self.clock.advance(DEFAULT_HEARSAY_LIFETIME.mul_f64(0.009));
            for peer in part {
                tell(&self.store, peer.id, &peer.addresses());
            }
        }
        let (store, clock) = (self.store.clone(), self.clock.clone());
        thread::spawn(move || {
            // Slowly enough that there is something to collect all the time.
            let mut left = DEFAULT_HEARSAY_LIFETIME;
            while !left.is_zero() {
                let step = (DEFAULT_HEARSAY_LIFETIME / 2_000).min(left);
                clock.advance(step);
                left -= step;
                store.len();
                thread::sleep(Duration::from_millis(10));
            }
        });
        let begun = Instant::now();
        act();
        let expired = expiring
            .iter()
            .filter(|peer| !self.store.contains(&peer.id));
        format!(
            "for {:.0?}: commits of everybody, {} of them done; {} full listings; {} peers expired",
            begun.elapsed(),
            counts.commits.load(Ordering::Relaxed),
            counts.listings.load(Ordering::Relaxed),
            expired.count(),
        )
    }
}

/// What went on meanwhile.
#[derive(Default)]
struct Counts {
    flushing: AtomicBool,
    commits: AtomicUsize,
    listings: AtomicUsize,
}

// --- the swarm --------------------------------------------------------------------------------------------

impl Calls {
    /// A swarm's thread: one call after another, each timed, for so long.
    fn swarm(&mut self, node: &mut Node, known: &[Peer], random: &mut Rng, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            // What comes from the network is made before, and its end is off the clock.
            let peer = known[random.usize(..known.len())];
            let addresses = peer.addresses();
            let newcomer = Peer::keyless(random.u64(1 << 40..1 << 62));
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
                self.wall[call].push(start.elapsed().as_nanos() as f64);
                self.cpu[call].push((thread_time() - cpu).as_nanos() as f64);
            }
            node.said.clear();
            // The rest of the events, off the clock.
            node.take_events();
        }
    }
}
