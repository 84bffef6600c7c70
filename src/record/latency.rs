//! The rule for latency: a mean that moves slowly, and is told when it has moved far.

use std::{num::NonZeroU32, time::Duration};

use super::{Books, Delta, Record};

/// The weight of a new measurement is one part in so many, as in go-libp2p.
const SMOOTHING: u64 = 10;

/// A change below this is no news, however small the mean is.
const LEAST_NEWS: u32 = 1_000;

/// The round-trip time of a peer, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Latency {
    mean: NonZeroU32,
    /// What the last event said.
    told: u32,
}

impl Latency {
    fn first(measured: Duration) -> Self {
        let mean = micros(measured);
        let told = mean.get();
        Self { mean, told }
    }

    /// What another run of the store knew. Zero, which nobody writes, is unknown.
    pub(crate) fn loaded(micros: u32) -> Option<Self> {
        let mean = NonZeroU32::new(micros)?;
        Some(Self { mean, told: micros })
    }

    /// From the compact form.
    pub(crate) fn restored(mean: u32, told: u32) -> Option<Self> {
        let mean = NonZeroU32::new(mean)?;
        Some(Self { mean, told })
    }

    pub(crate) fn told(self) -> u32 {
        self.told
    }

    pub(crate) fn mean(self) -> Duration {
        Duration::from_micros(self.mean.get().into())
    }

    pub(crate) fn as_micros(self) -> u32 {
        self.mean.get()
    }

    /// Takes a measurement in. Returns whether the mean is now far from what was told last.
    fn update(&mut self, measured: Duration) -> bool {
        let (mean, measured) = (
            u64::from(self.mean.get()),
            u64::from(micros(measured).get()),
        );
        let sum = mean * (SMOOTHING - 1) + measured + SMOOTHING / 2;
        let mean = u32::try_from(sum / SMOOTHING).unwrap_or(u32::MAX);
        self.mean = NonZeroU32::new(mean).unwrap_or(NonZeroU32::MIN);
        let moved = mean.abs_diff(self.told);
        let is_news = moved > self.told / 4 && moved >= LEAST_NEWS;
        if is_news {
            self.told = mean;
        }
        is_news
    }
}

fn micros(duration: Duration) -> NonZeroU32 {
    let micros = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
    NonZeroU32::new(micros).unwrap_or(NonZeroU32::MIN)
}

impl Record {
    /// A ping of this node took so long to come back.
    pub(crate) fn measured_latency(&mut self, measured: Duration, delta: &mut Delta) {
        let is_news = match &mut self.latency {
            Some(latency) => latency.update(measured),
            None => {
                self.latency = Some(Latency::first(measured));
                true
            }
        };
        if is_news {
            delta.changed |= Books::LATENCY;
            // It is measured anew after a crash.
            delta.save_later |= Books::ADDRESSES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extreme_measurements_neither_overflow_nor_vanish() {
        let mut latency = Latency::first(Duration::MAX);
        assert_eq!(latency.as_micros(), u32::MAX);
        latency.update(Duration::MAX);
        assert_eq!(latency.as_micros(), u32::MAX);
        for _ in 0..1_000 {
            latency.update(Duration::ZERO);
        }
        assert!(latency.mean() < Duration::from_micros(10) && latency.mean() > Duration::ZERO);
    }
}
