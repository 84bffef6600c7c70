//! Time, in rounds.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// The processor time of this thread: the scheduler does not show in it, which gives the processor to others too.
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanos) = (time.tv_sec, time.tv_nsec);
    Duration::new(seconds.unsigned_abs(), u32::try_from(nanos).unwrap_or(0))
}

/// Nanoseconds of this thread's processor time for each of `times`.
pub fn each(times: usize, act: impl FnOnce()) -> f64 {
    let start = thread_time();
    act();
    (thread_time() - start).as_nanos() as f64 / times.max(1) as f64
}

/// Nanoseconds on the wall.
pub fn wall(act: impl FnOnce()) -> f64 {
    let start = Instant::now();
    act();
    start.elapsed().as_nanos() as f64
}

/// Lets each side measure once in each round, in turn, so that the machine's moods meet all of them; the median of each.
pub fn in_turn<const N: usize>(rounds: usize, sides: [&mut dyn FnMut() -> f64; N]) -> [f64; N] {
    let mut figures: [Vec<f64>; N] = std::array::from_fn(|_| Vec::with_capacity(rounds));
    for round in 0..rounds {
        for step in 0..N {
            let side = (round + step) % N;
            figures[side].push(sides[side]());
        }
    }
    figures.map(|figures| median(&figures))
}

pub fn median(figures: &[f64]) -> f64 {
    percentile(figures, 0.5)
}

/// The smallest figure that such a part of all does not exceed.
pub fn percentile(figures: &[f64], part: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    let at = (sorted.len() as f64 * part).ceil() as usize;
    sorted
        .get(at.saturating_sub(1).min(last))
        .copied()
        .unwrap_or(f64::NAN)
}
