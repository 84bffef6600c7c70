//! What the runs say, in words and figures.

use std::collections::{BTreeMap, HashMap};

use libp2p_peerstore::Standing;

use crate::{
    measure::{Dialling, Figures, Lost, Scored, TOLD, median},
    rules::Name,
};

/// All runs of one setting: the figures of each seed, by rule.
pub type Runs = HashMap<Name, Vec<Figures>>;

/// What other seeds say of the base rate, for the comparison of forecasts.
#[derive(Debug, Clone)]
pub struct Fitted {
    pub offered: f64,
    pub stored: f64,
    pub by_standing: HashMap<Standing, f64>,
}

impl Fitted {
    pub fn from(training: &[Figures]) -> Self {
        let offered: Vec<Scored> = training
            .iter()
            .flat_map(|run| run.offered.clone())
            .collect();
        let stored: Vec<Scored> = training.iter().flat_map(|run| run.stored.clone()).collect();
        let mut by_standing: HashMap<Standing, Vec<Scored>> = HashMap::new();
        for scored in &offered {
            by_standing
                .entry(scored.standing)
                .or_default()
                .push(*scored);
        }
        let by_standing = by_standing.into_iter();
        Self {
            offered: rate(&offered),
            stored: rate(&stored),
            by_standing: by_standing
                .map(|(standing, scored)| (standing, rate(&scored)))
                .collect(),
        }
    }
}

/// How good the forecasts of one run are.
#[derive(Debug, Clone, Copy)]
pub struct Calibration {
    /// Brier skill over the base rate of other seeds, and over constants by standing of other seeds.
    pub skill: f64,
    pub over_constants: f64,
    /// Expected calibration error, in ten bins.
    pub error: f64,
    /// Brier skill of all stored addresses over their base rate.
    pub stored: f64,
}

impl Calibration {
    pub fn of(run: &Figures, fitted: &Fitted) -> Self {
        let own = brier(&run.offered, |scored| scored.confidence);
        let base = brier(&run.offered, |_| fitted.offered);
        let constants = brier(&run.offered, |scored| {
            fitted
                .by_standing
                .get(&scored.standing)
                .copied()
                .unwrap_or(fitted.offered)
        });
        let stored = brier(&run.stored, |scored| scored.confidence);
        let stored_base = brier(&run.stored, |_| fitted.stored);
        Self {
            skill: 1.0 - own / base,
            over_constants: 1.0 - own / constants,
            error: expected_error(&run.offered),
            stored: 1.0 - stored / stored_base,
        }
    }
}

fn weight(scored: &[Scored]) -> f64 {
    scored.iter().map(|scored| scored.weight).sum()
}

fn rate(scored: &[Scored]) -> f64 {
    let successes = scored.iter().filter(|scored| scored.success);
    successes.map(|scored| scored.weight).sum::<f64>() / weight(scored)
}

fn brier(scored: &[Scored], forecast: impl Fn(&Scored) -> f64) -> f64 {
    let error = |scored: &Scored| {
        let outcome = f64::from(u8::from(scored.success));
        scored.weight * (forecast(scored) - outcome).powi(2)
    };
    scored.iter().map(error).sum::<f64>() / weight(scored)
}

/// The weight, the mean forecast and the share of successes of each tenth of the scale.
pub fn bins(scored: &[Scored]) -> Vec<(f64, f64, f64)> {
    let mut bins: Vec<Vec<Scored>> = vec![Vec::new(); 10];
    for scored in scored {
        bins[((scored.confidence * 10.0) as usize).min(9)].push(*scored);
    }
    let bins = bins.iter().filter(|bin| !bin.is_empty());
    bins.map(|bin| {
        let mean = bin
            .iter()
            .map(|scored| scored.weight * scored.confidence)
            .sum::<f64>();
        (weight(bin), mean / weight(bin), rate(bin))
    })
    .collect()
}

fn expected_error(scored: &[Scored]) -> f64 {
    let errors = bins(scored).into_iter();
    let error: f64 = errors
        .map(|(weight, mean, rate)| weight * (mean - rate).abs())
        .sum();
    error / weight(scored)
}

/// The figures of all rules in one setting: medians over the seeds.
pub fn print(title: &str, runs: &Runs) {
    println!("\n{title}");
    println!(
        "  {:26} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>21}",
        "rule",
        "coverage",
        "(1 dial)",
        "excess",
        "first",
        "wasted",
        "started",
        "outage",
        "restart: now/-30%/7 d"
    );
    for name in Name::ALL {
        let Some(runs) = runs.get(&name) else {
            continue;
        };
        let of = |figure: fn(&Figures) -> f64| median(&runs.iter().map(figure).collect::<Vec<_>>());
        println!(
            "  {:26} {:9.3} {:9.3} {:9.3} {:9.3} {:9.2} {:9.2} {:8.2} {:7.1}{:7.1}{:7.1}",
            name.text(),
            of(Figures::coverage),
            of(Figures::coverage_at_once),
            of(Figures::excess),
            of(Figures::first),
            of(Figures::wasted),
            of(Figures::started),
            of(Figures::kept),
            of(|run| median(&run.starts[0])),
            of(|run| median(&run.starts[1])),
            of(|run| median(&run.starts[2])),
        );
    }
}

/// One target: what was reached in each seed, and what it must be.
struct Target {
    what: String,
    reached: Vec<f64>,
    limit: f64,
    at_least: bool,
}

impl Target {
    fn print(&self) {
        let middle = median(&self.reached);
        let worst = if self.at_least { f64::min } else { f64::max };
        let worst = self
            .reached
            .iter()
            .copied()
            .reduce(worst)
            .unwrap_or(f64::NAN);
        let holds = |value: f64| {
            if self.at_least {
                value >= self.limit
            } else {
                value <= self.limit
            }
        };
        let verdict = match (holds(middle), holds(worst)) {
            (true, true) => "ok",
            (true, false) => "ok (median), MISSED (worst)",
            _ => "MISSED",
        };
        let sign = if self.at_least { "≥" } else { "≤" };
        println!(
            "  {:66} {sign} {:5.2}  {middle:7.3} {worst:7.3}  {verdict}",
            self.what, self.limit
        );
    }
}

/// The targets, with `ours` in the place of this store.
pub fn print_targets(ours: Name, runs: &HashMap<Dialling, Runs>, fitted: &Fitted) {
    let (sequential, concurrent) = (&runs[&Dialling::Sequential], &runs[&Dialling::Concurrent]);
    let own = |figure: &dyn Fn(&Figures) -> f64| -> Vec<f64> {
        sequential[&ours].iter().map(figure).collect()
    };
    let against = |runs: &Runs, other: Name, figure: &dyn Fn(&Figures) -> f64| -> Vec<f64> {
        let pairs = runs[&ours].iter().zip(&runs[&other]);
        pairs
            .map(|(ours, theirs)| figure(ours) / figure(theirs))
            .collect()
    };
    let calibrations: Vec<_> = sequential[&ours]
        .iter()
        .map(|run| Calibration::of(run, fitted))
        .collect();
    let calibration = |figure: fn(&Calibration) -> f64| calibrations.iter().map(figure).collect();
    let upstream = Name::Upstream;
    let restart = |at: usize| against(sequential, upstream, &move |run| median(&run.starts[at]));
    let target = |what: &str, reached: Vec<f64>, at_least: bool, limit: f64| Target {
        what: what.to_owned(),
        reached,
        limit,
        at_least,
    };
    println!(
        "\nTargets, {}: what was reached in the median and in the worst seed",
        ours.text()
    );
    let targets = [
        target("1. coverage", own(&Figures::coverage), true, 0.97),
        target(
            "1. coverage ÷ libp2p-peer-store's",
            against(sequential, upstream, &Figures::coverage),
            true,
            1.0,
        ),
        target(
            "2. excess attempts ÷ libp2p-peer-store's",
            against(sequential, upstream, &Figures::excess),
            false,
            0.35,
        ),
        target(
            "2. excess attempts ÷ the five-line rule's",
            against(sequential, Name::FiveLines, &Figures::excess),
            false,
            0.8,
        ),
        target("3. first address right", own(&Figures::first), true, 0.92),
        target(
            "3. first address right ÷ libp2p-peer-store's",
            against(sequential, upstream, &Figures::first),
            true,
            1.2,
        ),
        target(
            "4. attempts per unreachable dial ÷ libp2p-peer-store's (8 at once)",
            against(concurrent, upstream, &Figures::wasted),
            false,
            1.0,
        ),
        target(
            "4. dials started per success ÷ libp2p-peer-store's (8 at once)",
            against(concurrent, upstream, &Figures::started),
            false,
            0.75,
        ),
        target(
            "5. dials until 8 connections ÷ libp2p-peer-store's",
            restart(0),
            false,
            0.6,
        ),
        target(
            "5. the same, 30 % of the remembered peers gone",
            restart(1),
            false,
            0.6,
        ),
        target("5. the same, after 7 days off", restart(2), false, 0.6),
        target(
            "6. expected calibration error, offered addresses",
            calibration(|c| c.error),
            false,
            0.05,
        ),
        target(
            "6. Brier skill over the base rate",
            calibration(|c| c.skill),
            true,
            0.40,
        ),
        target(
            "6. Brier skill over constants by standing",
            calibration(|c| c.over_constants),
            true,
            0.05,
        ),
        target(
            "6. Brier skill of all stored addresses",
            calibration(|c| c.stored),
            true,
            0.0,
        ),
    ];
    targets.iter().for_each(Target::print);
}

/// Where forecasts and outcomes differ, by standing: for tuning.
pub fn print_bins(runs: &[Figures]) {
    for standing in [
        Standing::Proven,
        Standing::SelfTold,
        Standing::Hearsay,
        Standing::Inbound,
    ] {
        for (what, all) in [("offered", 0), ("stored", 1)] {
            let scored: Vec<Scored> = runs
                .iter()
                .flat_map(|run| if all == 0 { &run.offered } else { &run.stored })
                .filter(|scored| scored.standing == standing)
                .copied()
                .collect();
            let bins: Vec<_> = bins(&scored)
                .into_iter()
                .map(|(weight, mean, rate)| format!("{mean:.2}→{rate:.2} ({weight:.0})"))
                .collect();
            println!("  {standing:?} {what}: {}", bins.join("  "));
        }
    }
}

/// How many failures counted in outages, in all runs of a rule.
pub fn print_outages(runs: &[Figures]) {
    let counted: u32 = runs.iter().map(|run| run.in_outages.0).sum();
    let failed: u32 = runs.iter().map(|run| run.in_outages.1).sum();
    println!(
        "  Of {failed} attempts that failed in outages, with a LAN peer that answered, {counted} counted"
    );
}

/// Why reachable dials were lost, in all runs of a rule, and the share of the reachable dials.
pub fn print_lost(name: Name, runs: &[Figures]) {
    let reachable: u32 = runs.iter().map(|run| run.reachable).sum();
    let mut all: BTreeMap<Lost, u32> = BTreeMap::new();
    for (lost, count) in runs.iter().flat_map(|run| &run.lost) {
        *all.entry(*lost).or_default() += count;
    }
    println!("\nReachable dials lost, {}, of {reachable}", name.text());
    println!("  last told: within           1 h      4 h      1 d      3 d   longer");
    let mut rows: Vec<_> = all.keys().map(|lost| (lost.why, lost.self_told)).collect();
    rows.dedup();
    for (why, self_told) in rows {
        let counts: Vec<String> = (0..=TOLD.len())
            .map(|told| {
                let lost = Lost {
                    why,
                    self_told,
                    told,
                };
                format!("{:8}", all.get(&lost).copied().unwrap_or_default())
            })
            .collect();
        let by = if self_told { "itself" } else { "others" };
        println!("  {:16} {by:6} {}", format!("{why:?}"), counts.join(" "));
    }
}
