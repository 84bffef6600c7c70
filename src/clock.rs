//! Time as the store sees it: one injectable source for ages, deadlines and waiting.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;

/// Where the store takes its time from.
///
/// The default is [`SystemClock`]. Tests use [`ManualClock`], so that an hour passes in one call.
pub trait Clock: Send + Sync + 'static {
    /// The wall-clock time at which this clock started.
    ///
    /// It is read once, when the store opens: within a run every age follows [`Clock::elapsed`], so that a
    /// wall clock that is set forward or back neither expires nor revives anything.
    fn started(&self) -> SystemTime;

    /// The time that has passed since the clock started. Never goes back.
    fn elapsed(&self) -> Duration;

    /// A future that completes when `elapsed` reaches `deadline`. It must not need a particular runtime.
    fn sleep_until(&self, deadline: Duration) -> BoxFuture<'static, ()>;
}

/// The machine's own clock: wall time at start, monotonic time since.
#[derive(Debug, Clone)]
pub struct SystemClock {
    started: SystemTime,
    origin: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self {
            started: SystemTime::now(),
            origin: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn started(&self) -> SystemTime {
        self.started
    }

    fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    fn sleep_until(&self, deadline: Duration) -> BoxFuture<'static, ()> {
        // No platform's `Instant` overflows within thirty years; who sets more means "never".
        const LONGEST: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
        let wait = deadline.saturating_sub(self.elapsed()).min(LONGEST);
        futures_timer::Delay::new(wait).boxed()
    }
}

/// A clock that moves only when told to, for tests.
///
/// ```
/// use libp2p_peerstore::{Clock, ManualClock};
/// use std::time::Duration;
///
/// let clock = ManualClock::default();
/// clock.advance(Duration::from_secs(3600));
/// assert_eq!(clock.elapsed(), Duration::from_secs(3600));
/// ```
#[derive(Clone, Default)]
pub struct ManualClock(Arc<Mutex<Manual>>);

struct Manual {
    started: SystemTime,
    elapsed: Duration,
    sleepers: Vec<(Duration, futures::channel::oneshot::Sender<()>)>,
}

impl Default for Manual {
    fn default() -> Self {
        Self {
            // 2025-01-01: any date will do, as long as it is the same in every test run.
            started: UNIX_EPOCH + Duration::from_secs(1_735_689_600),
            elapsed: Duration::ZERO,
            sleepers: Vec::new(),
        }
    }
}

impl ManualClock {
    /// A clock that starts at the given wall-clock time.
    pub fn starting_at(started: SystemTime) -> Self {
        let clock = Self::default();
        clock.0.lock().started = started;
        clock
    }

    /// Lets `by` pass and wakes whoever waits for a moment up to then.
    pub fn advance(&self, by: Duration) {
        let due: Vec<_> = {
            let mut manual = self.0.lock();
            manual.elapsed = manual.elapsed.saturating_add(by);
            let now = manual.elapsed;
            manual
                .sleepers
                .extract_if(.., |(at, _)| *at <= now)
                .collect()
        };
        for (_, sleeper) in due {
            // The sleeper may have given up in the meantime.
            let _ = sleeper.send(());
        }
    }

    /// How many futures wait for this clock. A test awaits a change of state by this, not by sleeping.
    pub fn sleepers(&self) -> usize {
        let mut manual = self.0.lock();
        manual
            .sleepers
            .retain(|(_, sleeper)| !sleeper.is_canceled());
        manual.sleepers.len()
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualClock")
            .field("elapsed", &self.0.lock().elapsed)
            .finish()
    }
}

impl Clock for ManualClock {
    fn started(&self) -> SystemTime {
        self.0.lock().started
    }

    fn elapsed(&self) -> Duration {
        self.0.lock().elapsed
    }

    fn sleep_until(&self, deadline: Duration) -> BoxFuture<'static, ()> {
        let mut manual = self.0.lock();
        if manual.elapsed >= deadline {
            return futures::future::ready(()).boxed();
        }
        let (sender, receiver) = futures::channel::oneshot::channel();
        manual.sleepers.push((deadline, sender));
        receiver.map(|_| ()).boxed()
    }
}

/// A moment, in whole seconds since the Unix epoch. What comes before the epoch counts as the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Timestamp(pub(crate) u64);

impl Timestamp {
    pub(crate) fn new(started: SystemTime, elapsed: Duration) -> Self {
        let since_epoch = started.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(since_epoch.saturating_add(elapsed).as_secs())
    }

    /// The elapsed time at which a clock that started then comes to this moment: the inverse of [`Timestamp::new`].
    pub(crate) fn elapsed(self, started: SystemTime) -> Duration {
        let since_epoch = started.duration_since(UNIX_EPOCH).unwrap_or_default();
        Duration::from_secs(self.0).saturating_sub(since_epoch)
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    pub(crate) fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }

    /// The moment `duration` from here, rounded up to a whole second.
    pub(crate) fn after(self, duration: Duration) -> Self {
        let part = u64::from(duration.subsec_nanos() > 0);
        Self(
            self.0
                .saturating_add(duration.as_secs())
                .saturating_add(part),
        )
    }

    pub(crate) fn to_system_time(self) -> SystemTime {
        // Ten thousand years are enough, and no platform's `SystemTime` overflows within them.
        const LATEST: u64 = 253_402_300_799;
        UNIX_EPOCH + Duration::from_secs(self.0.min(LATEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_for_a_moment_goes_off_when_that_moment_has_come() {
        let second = Duration::from_secs(1);
        let starts = [
            UNIX_EPOCH,
            UNIX_EPOCH - second * 10_000_000,
            UNIX_EPOCH + Duration::from_millis(1_735_689_600_250),
        ];
        for started in starts {
            for ahead in [second / 2, second, second * 100_000] {
                let moment = Timestamp::new(started, ahead);
                let elapsed = moment.elapsed(started);
                assert_eq!(Timestamp::new(started, elapsed), moment);
                assert!(elapsed <= ahead && ahead - elapsed < second, "{started:?}");
            }
        }
        assert_eq!(Timestamp(0).elapsed(starts[2]), Duration::ZERO);
    }
}
