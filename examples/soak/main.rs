//! Does a node that runs for days grow? Forty of them on the loopback interface, joining and leaving, with limits set low.
//!
//! ```text
//! cargo run --release --example soak -- --minutes 30
//! ```
//!
//! Each minute prints what the process holds and what the stores did; the last line is `soak: ok, …`, and the exit code
//! is not zero when memory or descriptors grew after the warm-up (the first quarter). `docs/reliability.md` holds
//! a run of half an hour.
//!
//! - `member.rs`: one node, which lives, leaves and comes back, as itself or as somebody else
//! - `growth.rs`: what the process holds, and whether that grows

mod growth;
mod member;

use std::{
    alloc::System,
    error::Error,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::{sync::watch, task::JoinSet, time::MissedTickBehavior};

use growth::{Held, Series};
use member::{Counts, Member, World};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How often it is looked at what the process holds: of each report the least counts, as what nodes that are there for a moment
/// hold is no growth.
const LOOKS_PER_REPORT: u32 = 60;

/// Runs nodes that join, leave and push, and watches what they hold.
#[derive(Debug, Parser)]
struct Options {
    /// How long it runs.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Nodes that are there at a time.
    #[arg(long, default_value_t = 40)]
    nodes: usize,
    /// Seconds from one report to the next.
    #[arg(long, default_value_t = 60.0)]
    every: f64,
    /// How much more may be held in the second half after the warm-up than in the first, as a share of that.
    #[arg(long, default_value_t = 0.1)]
    growth: f64,
    /// Seconds that a node stays, on average.
    #[arg(long, default_value_t = 60.0)]
    stay: f64,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<(), Box<dyn Error + Send + Sync>> {
    let folder = tempfile::tempdir().map_err(|e| format!("cannot create a folder: {e}"))?;
    let world = Arc::new(World::new(options.nodes, options.stay));
    let (stop, stopped) = watch::channel(false);
    let mut members = JoinSet::new();
    for number in 0..options.nodes {
        let path = folder.path().join(format!("{number}.redb"));
        let member = Member::new(number, path, world.clone());
        members.spawn(member.live(stopped.clone()));
    }

    println!("{}", Report::HEADER);
    let (began, every) = (Instant::now(), Duration::from_secs_f64(options.every));
    let length = Duration::from_secs_f64(options.minutes * 60.0);
    let mut ticks = tokio::time::interval(every / LOOKS_PER_REPORT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut series = Series::default();
    let mut next = every;
    let mut before = Counts::default();
    while began.elapsed() < length {
        tokio::select! {
            _ = ticks.tick() => series.look(Held::now(ALLOCATOR)),
            // A node ends by itself only when something is broken.
            Some(ended) = members.join_next() => ended??,
        }
        if began.elapsed() >= next {
            next += every;
            let held = series.report();
            let (counts, alive) = world.look();
            let report = Report {
                at: began.elapsed(),
                held,
                alive,
                counts: counts.since(&before),
            };
            println!("{report}");
            before = counts;
        }
    }
    stop.send_replace(true);
    while let Some(ended) = members.join_next().await {
        ended??;
    }
    let (counts, _) = world.look();
    for (reason, count) in world.refused() {
        println!("refused because {reason}: {count}");
    }
    let verdict = series.verdict(options.growth)?;
    println!(
        "soak: ok, {} lives, {} connections, {} commits, {} refusals; {verdict}",
        counts.lives, counts.connections, counts.commits, counts.refusals
    );
    Ok(())
}

/// One line of the table.
struct Report {
    at: Duration,
    held: Held,
    alive: (usize, usize),
    /// Since the last line.
    counts: Counts,
}

impl Report {
    const HEADER: &str = "seconds  heap KiB  resident KiB  descriptors  nodes  peers  joined  connections  pushes  commits  evicted  refused";
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (held, counts, (nodes, peers)) = (&self.held, &self.counts, self.alive);
        write!(
            f,
            "{:7.0}  {:8}  {:12}  {:11}  {nodes:5}  {peers:5}  {:6}  {:11}  {:6}  {:7}  {:7}  {:7}",
            self.at.as_secs_f64(),
            held.heap / 1024,
            held.resident / 1024,
            held.descriptors,
            counts.lives,
            counts.connections,
            counts.pushes,
            counts.commits,
            counts.evicted,
            counts.refusals,
        )
    }
}
