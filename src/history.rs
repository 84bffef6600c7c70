//! What happened to one address, in sixteen bytes.
//!
//! ```text
//!  0       2           4          6           8         10        12    13    14    15    16
//!  ├───────┼───────────┼──────────┼───────────┼─────────┼─────────┼─────┼─────┼─────┼─────┤
//!  │sources│first heard│last heard│evidence at│ success │ failure │flags│level│succ.│fail.│
//!  └───────┴───────────┴──────────┴───────────┴─────────┴─────────┴─────┴─────┴─────┴─────┘
//! ```
//!
//! That is how it lies in a compact record. Of an address that was never dialled only the first six bytes are kept: the others
//! are zero.
//!
//! A time is a number of steps of [`STEP`] since the [`Epoch`] of its peer; 0 is *never*. An epoch moves on when a time
//! would not fit any longer, at the earliest after 48 days: what is older than the new epoch then counts as of
//! its beginning.

use std::time::Duration;

use bitflags::bitflags;

use crate::{
    address::{Sources, Standing},
    clock::Timestamp,
};

/// The grain of all times of an address.
pub(crate) const STEP: Duration = Duration::from_secs(64);

/// Half of what a step counter can hold: what remains of the past when an epoch moves on, 24 days.
const KEPT_STEPS: u64 = 1 << 15;

bitflags! {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub(crate) struct Flags: u8 {
        /// A connection to it is open: it does not expire.
        const IN_USE = 1;
        /// No transport of this run speaks it.
        const UNSUPPORTED = 1 << 1;
        /// Another peer answered there at the last failure, or not long before it.
        const WRONG_PEER = 1 << 2;
        /// `level` holds what the evidence made of the confidence.
        const EVIDENCE = 1 << 3;
        /// A dial succeeded once, but longer ago than what counts as proof.
        const PROOF_AGED = 1 << 4;
        /// An inbound connection from it is open: it does not expire, and nothing is proven.
        const HELD = 1 << 5;
        /// mDNS told it in this run, and says when that is over: until then it does not expire. What mDNS hears again it
        /// does not tell again.
        const ANNOUNCED = 1 << 6;
    }
}

/// The moment from which the times of a peer's addresses are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Epoch(u32);

/// Steps since an epoch; 0 is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Step(u16);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct History {
    pub(crate) sources: Sources,
    pub(crate) flags: Flags,
    /// The confidence right after the last evidence, in 1/255.
    pub(crate) level: u8,
    pub(crate) evidence: Step,
    pub(crate) first_heard: Step,
    pub(crate) last_heard: Step,
    pub(crate) success: Step,
    pub(crate) failure: Step,
    /// Successes in all; stays at 255.
    pub(crate) successes: u8,
    /// Failures since the last success; stays at 255.
    pub(crate) failures: u8,
}

const _: () = assert!(size_of::<History>() == History::LEN);

impl History {
    /// Bytes in the compact form.
    pub(crate) const LEN: usize = 16;
    /// The same for an address that was never dialled: sources, first and last heard.
    pub(crate) const SHORT_LEN: usize = 6;

    pub(crate) fn is_pinned(&self) -> bool {
        self.sources.contains(Sources::PINNED)
    }

    pub(crate) fn is_inbound_only(&self) -> bool {
        self.sources == Sources::INBOUND
    }

    /// Whether this node dialled it with success, and that is not too long ago to count.
    pub(crate) fn is_dialled(&self) -> bool {
        self.sources.contains(Sources::DIALLED) && !self.flags.contains(Flags::PROOF_AGED)
    }

    /// What its sources alone make of an address, whatever came of dials.
    pub(crate) fn told(&self) -> Standing {
        if self.sources.intersects(Sources::SELF_TOLD) {
            Standing::SelfTold
        } else if self.sources == Sources::INBOUND {
            Standing::Inbound
        } else {
            Standing::Hearsay
        }
    }

    /// Whether anybody but the peer itself and its inbound connections tells it.
    pub(crate) fn is_told_by_others(&self) -> bool {
        let own = Sources::SELF_TOLD | Sources::INBOUND;
        !self.sources.difference(own).is_empty()
    }

    /// Whether nothing is lost when only its short form is kept.
    pub(crate) fn is_short(&self) -> bool {
        let told = Self {
            sources: self.sources,
            first_heard: self.first_heard,
            last_heard: self.last_heard,
            ..Self::default()
        };
        *self == told
    }

    pub(crate) fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.sources.bits().to_le_bytes());
        bytes.extend_from_slice(&self.first_heard.0.to_le_bytes());
        bytes.extend_from_slice(&self.last_heard.0.to_le_bytes());
        if !self.is_short() {
            for step in [self.evidence, self.success, self.failure] {
                bytes.extend_from_slice(&step.0.to_le_bytes());
            }
            bytes.extend([self.flags.bits(), self.level, self.successes, self.failures]);
        }
    }

    /// Reads what [`History::write`] wrote: the short form, or all of it.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let word = |at: usize| match bytes.get(at..at + 2) {
            Some(&[low, high]) => u16::from_le_bytes([low, high]),
            _ => 0,
        };
        let byte = |at: usize| bytes.get(at).copied().unwrap_or_default();
        Self {
            sources: Sources::from_bits_retain(word(0)),
            first_heard: Step(word(2)),
            last_heard: Step(word(4)),
            evidence: Step(word(6)),
            success: Step(word(8)),
            failure: Step(word(10)),
            flags: Flags::from_bits_retain(byte(12)),
            level: byte(13),
            successes: byte(14),
            failures: byte(15),
        }
    }
}

impl Epoch {
    pub(crate) fn to_bytes(self) -> [u8; 4] {
        self.0.to_le_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(u32::from_le_bytes(bytes))
    }

    /// An epoch in which `now` and the 24 days before it have their place.
    pub(crate) fn for_time(now: Timestamp) -> Self {
        let steps = now.0 / STEP.as_secs();
        Self(u32::try_from(steps.saturating_sub(KEPT_STEPS)).unwrap_or(u32::MAX))
    }

    /// The step of a moment. What lies before the epoch counts as its beginning, what lies behind its end as that.
    pub(crate) fn step(self, at: Timestamp) -> Step {
        let since = (at.0 / STEP.as_secs()).saturating_sub(u64::from(self.0));
        Step(u16::try_from(since).unwrap_or(u16::MAX).max(1))
    }

    pub(crate) fn fits(self, at: Timestamp) -> bool {
        (at.0 / STEP.as_secs()).saturating_sub(u64::from(self.0)) <= u64::from(u16::MAX)
    }

    /// The moment of a step; `None` for never.
    pub(crate) fn time(self, step: Step) -> Option<Timestamp> {
        let steps = u64::from(self.0) + u64::from(step.0);
        (step.0 > 0).then(|| Timestamp(steps * STEP.as_secs()))
    }

    /// Moves the times of an address from this epoch into a later one.
    pub(crate) fn translate(self, later: Epoch, history: &mut History) {
        let shift = later.0.saturating_sub(self.0);
        for step in [
            &mut history.evidence,
            &mut history.first_heard,
            &mut history.last_heard,
            &mut history.success,
            &mut history.failure,
        ] {
            if step.0 > 0 {
                let moved = u32::from(step.0).saturating_sub(shift).max(1);
                step.0 = u16::try_from(moved).unwrap_or(u16::MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60;
    const NOW: Timestamp = Timestamp(1_735_689_600);

    #[test]
    fn the_history_of_an_address_takes_16_bytes() {
        assert_eq!(size_of::<History>(), 16);
    }

    #[test]
    fn times_keep_their_step_for_at_least_48_days() {
        let epoch = Epoch::for_time(NOW);
        for days in 0..24 {
            let at = Timestamp(NOW.0 + days * DAY);
            assert!(epoch.fits(at));
            let kept = epoch.time(epoch.step(at)).unwrap_or_default();
            assert!(at.since(kept) < STEP && kept <= at);
        }
    }

    #[test]
    fn a_new_epoch_keeps_the_last_24_days_and_never_makes_a_time_later() {
        let old = Epoch::for_time(NOW);
        let later = Timestamp(NOW.0 + 30 * DAY);
        assert!(!old.fits(later) || old.fits(later));
        let new = Epoch::for_time(later);
        for days in 0..24 {
            let at = Timestamp(NOW.0 + days * DAY);
            let mut history = History {
                last_heard: old.step(at),
                ..History::default()
            };
            old.translate(new, &mut history);
            let kept = new.time(history.last_heard).unwrap_or_default();
            assert!(kept <= at.max(new.time(Step(1)).unwrap_or_default()));
            assert_eq!(history.success, Step::default(), "never stays never");
        }
    }
}
