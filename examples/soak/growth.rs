//! What the process holds, and whether that grows.

use std::{alloc::System, fmt, fs};

use stats_alloc::StatsAlloc;

/// Growth below these is noise: a node more or less holds as much.
const HEAP_NOISE: usize = 4 * 1024 * 1024;
const RESIDENT_NOISE: usize = 16 * 1024 * 1024;
const DESCRIPTOR_NOISE: usize = 16;

/// Reports after the warm-up without which nothing can be said.
const FEWEST: usize = 4;

/// What the process holds at one moment; where the system does not tell, 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Bytes that are allocated.
    pub heap: usize,
    /// Bytes of memory that the process has.
    pub resident: usize,
    pub descriptors: usize,
}

impl Held {
    pub fn now(allocator: &StatsAlloc<System>) -> Self {
        let stats = allocator.stats();
        Self {
            heap: stats
                .bytes_allocated
                .saturating_sub(stats.bytes_deallocated),
            resident: resident().unwrap_or(0),
            descriptors: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
        }
    }

    fn least(self, other: Self) -> Self {
        Self {
            heap: self.heap.min(other.heap),
            resident: self.resident.min(other.resident),
            descriptors: self.descriptors.min(other.descriptors),
        }
    }
}

fn resident() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: usize = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// What was held, report by report.
#[derive(Debug, Default)]
pub struct Series {
    /// The least since the last report.
    least: Option<Held>,
    reports: Vec<Held>,
}

impl Series {
    pub fn look(&mut self, held: Held) {
        self.least = Some(self.least.map_or(held, |least| least.least(held)));
    }

    /// Ends a report. What it says is the least that was held.
    pub fn report(&mut self) -> Held {
        let nothing = Held {
            heap: 0,
            resident: 0,
            descriptors: 0,
        };
        let held = self.least.take().unwrap_or(nothing);
        self.reports.push(held);
        held
    }

    /// Compares the halves of what comes after the first quarter: the second may hold more by this share.
    pub fn verdict(&self, growth: f64) -> Result<Verdict, String> {
        let warm = &self.reports[self.reports.len().div_ceil(4)..];
        if warm.len() < FEWEST {
            return Err(format!(
                "{} reports after the warm-up are too few to see growth: let it run longer",
                warm.len()
            ));
        }
        let halves = warm.split_at(warm.len() / 2);
        let of = |what: fn(&Held) -> usize| (median(halves.0, what), median(halves.1, what));
        let measured = [
            ("bytes of heap", of(|held| held.heap), HEAP_NOISE),
            ("bytes resident", of(|held| held.resident), RESIDENT_NOISE),
            ("descriptors", of(|held| held.descriptors), DESCRIPTOR_NOISE),
        ];
        for (what, (before, after), noise) in measured {
            if after as f64 > before as f64 * (1.0 + growth) && after > before + noise {
                return Err(format!("grew from {before} to {after} {what}"));
            }
        }
        Ok(Verdict(measured.map(|(what, halves, _)| (what, halves))))
    }
}

fn median(reports: &[Held], what: fn(&Held) -> usize) -> usize {
    let mut values: Vec<usize> = reports.iter().map(what).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// What was held in the first and in the second half after the warm-up.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict([(&'static str, (usize, usize)); 3]);

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (what, (before, after))) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{before} then {after} {what}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(heap: impl Fn(usize) -> usize, descriptors: impl Fn(usize) -> usize) -> Series {
        let mut series = Series::default();
        for minute in 0..30 {
            for moment in [3, 0, 7] {
                series.look(Held {
                    heap: heap(minute) + moment * 1_000_000,
                    resident: 200_000_000,
                    descriptors: descriptors(minute) + moment,
                });
            }
            series.report();
        }
        series
    }

    const MIB: usize = 1024 * 1024;

    #[test]
    fn what_only_varies_does_not_grow() {
        let swings = |minute: usize| (40 + minute % 3) * MIB;
        assert!(
            series(swings, |minute| 500 + minute % 7)
                .verdict(0.1)
                .is_ok()
        );
        let warms_up = |minute: usize| minute.min(7) * 20 * MIB;
        assert!(series(warms_up, |_| 500).verdict(0.1).is_ok());
    }

    #[test]
    fn a_megabyte_or_a_descriptor_of_forty_each_minute_is_growth() {
        let grows = series(|minute| (40 + minute) * MIB, |_| 500).verdict(0.1);
        assert!(grows.is_err_and(|error| error.contains("bytes of heap")));
        let grows = series(|_| 40 * MIB, |minute| 100 + 2 * minute).verdict(0.1);
        assert!(grows.is_err_and(|error| error.contains("descriptors")));
    }

    #[test]
    fn a_run_that_is_too_short_is_not_called_sound() {
        let mut series = Series::default();
        (0..5).for_each(|_| {
            series.report();
        });
        assert!(series.verdict(0.1).is_err());
    }
}
