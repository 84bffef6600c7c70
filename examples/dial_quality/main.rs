//! How good are the addresses that this store offers, compared with what other stores would have offered?
//!
//! `cargo run --release --all-features --example dial_quality` plays weeks of a churning network under a virtual clock to
//! this store and to four competitors, through their public interfaces, and prints what came of the dials beside
//! the targets. `docs/address-quality.md` explains the figures.
//!
//! - `trace.rs`: the world, and what this node hears of it
//! - `rules.rs`: the competitors
//! - `measure.rs`: plays a trace to a rule, and counts
//! - `table.rs`, `plot.rs`: the output
//! - `real.rs`: a trace on real swarms, beside the simulator (`--real`)
//! - `floods.rs`: invented peers by the million (`--floods`)

mod floods;
mod measure;
mod plot;
mod random;
mod real;
mod rules;
mod table;
mod trace;

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use clap::Parser;

use measure::{Dialling, Figures};
use rules::Name;
use table::{Fitted, Runs};
use trace::{Settings, Trace};

/// Seeds from here on were used to choose constants, and are never reported.
const TRAINING: u64 = 1_000;

/// Simulates dials in a churning network with this store and with its competitors.
#[derive(Debug, Parser)]
struct Options {
    /// Seeds that are reported.
    #[arg(long, default_value_t = 10)]
    seeds: u64,
    /// Seeds of the settings that are only reported in passing.
    #[arg(long, default_value_t = 2)]
    side_seeds: u64,
    /// Days of each trace.
    #[arg(long, default_value_t = 21)]
    days: u64,
    /// Peers in the network.
    #[arg(long, default_value_t = 1_500)]
    peers: usize,
    /// Two seeds of ten days, and the main setting only.
    #[arg(long)]
    quick: bool,
    /// Training seeds instead of the reported ones; where forecasts are wrong, and which dials are lost.
    #[arg(long)]
    tune: bool,
    /// The floods instead of the dials.
    #[arg(long)]
    floods: bool,
    /// A short trace on real swarms, beside the simulator; with `--quick` a few hours of it.
    #[arg(long)]
    real: bool,
    /// Where to write the plot.
    #[arg(long)]
    plot: Option<PathBuf>,
}

const LARGE: NonZeroUsize = NonZeroUsize::new(100_000).expect("not zero");
const SMALL: NonZeroUsize = NonZeroUsize::new(1_000).expect("not zero");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut options = Options::parse();
    if options.real {
        return real::run(options.quick);
    }
    if options.floods {
        floods::run();
        return Ok(());
    }
    if options.quick {
        (options.seeds, options.side_seeds) = (options.seeds.min(2), 0);
        options.days = options.days.min(10);
    }
    if options.tune {
        options.side_seeds = 0;
    }
    let began = Instant::now();
    let first = if options.tune { TRAINING + 500 } else { 1 };
    let seeds: Vec<u64> = (first..first + options.seeds).collect();
    let side: Vec<u64> = (1..=options.side_seeds).collect();
    let main = Settings {
        seed: 0,
        days: options.days,
        peers: options.peers,
        lies: 0.3,
        private: false,
    };

    let names = [Name::Ours, Name::Hour];
    let training = play(
        main,
        &[TRAINING, TRAINING + 1],
        &names,
        LARGE,
        Dialling::Sequential,
    );
    let fitted = names.map(|name| (name, Fitted::from(&training[&name])));

    let few = [Name::Ours, Name::Upstream, Name::FiveLines];
    let more = [Name::Ours, Name::Hour, Name::Upstream, Name::FiveLines];
    let mut runs = HashMap::new();
    for (dialling, names, title) in [
        (
            Dialling::Sequential,
            &Name::ALL[..],
            "one address after the other",
        ),
        (
            Dialling::Concurrent,
            &more[..],
            "8 addresses at once, the swarm's default",
        ),
        (Dialling::Smart, &few[..], "smart dialling"),
    ] {
        let played = play(main, &seeds, names, LARGE, dialling);
        table::print(
            &format!("30 % false hearsay, 100,000 peers, {title}"),
            &played,
        );
        runs.insert(dialling, played);
    }
    if options.tune {
        table::print_bins(&runs[&Dialling::Sequential][&Name::Ours]);
        for name in [Name::Ours, Name::Hour] {
            table::print_lost(name, &runs[&Dialling::Sequential][&name]);
        }
    }
    if !side.is_empty() {
        for (title, settings, capacity) in [
            ("no false hearsay", Settings { lies: 0.0, ..main }, LARGE),
            ("10 % false hearsay", Settings { lies: 0.1, ..main }, LARGE),
            ("60 % false hearsay", Settings { lies: 0.6, ..main }, LARGE),
            (
                "30 % false hearsay, identify with private addresses",
                Settings {
                    private: true,
                    ..main
                },
                LARGE,
            ),
            ("30 % false hearsay, 1,000 peers", main, SMALL),
        ] {
            let played = play(settings, &side, &few, capacity, Dialling::Sequential);
            table::print(title, &played);
        }
    }
    for (name, fitted) in &fitted {
        table::print_targets(*name, &runs, fitted);
        table::print_outages(&runs[&Dialling::Sequential][name]);
    }
    if let Some(path) = &options.plot {
        std::fs::write(path, plot::svg(&runs[&Dialling::Sequential]))?;
        println!("\nThe plot is in {}", path.display());
    }
    println!("\n{} s", began.elapsed().as_secs());
    Ok(())
}

/// Plays the traces of some seeds to some rules, on all processors.
fn play(
    settings: Settings,
    seeds: &[u64],
    names: &[Name],
    capacity: NonZeroUsize,
    dialling: Dialling,
) -> Runs {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(u64, Name, Figures)>> = Mutex::default();
    let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let trace = Trace::new(Settings {
                        seed: *seed,
                        ..settings
                    });
                    for name in names {
                        let figures = measure::run(&trace, *name, capacity, dialling);
                        let mut results = results
                            .lock()
                            .unwrap_or_else(|poisoned| poisoned.into_inner());
                        results.push((*seed, *name, figures));
                    }
                }
            });
        }
    });
    let mut results = results
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    results.sort_by_key(|(seed, ..)| *seed);
    let mut runs = Runs::new();
    for (_, name, figures) in results {
        runs.entry(name).or_default().push(figures);
    }
    runs
}
