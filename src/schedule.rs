//! When which record must be looked at again because something of it expires.
//!
//! A record stands here at most once, at the moment when its first piece would expire as things stood then. News of
//! it only move that moment away, so that nothing is done for them: when the moment comes the record is looked at
//! and put in again. Collecting so costs what is due, not what is stored.

use std::collections::BTreeMap;

use crate::clock::Timestamp;

/// Moments are gathered in so many seconds: a record may be looked at that much too late, and never too early.
const GRAIN: u64 = 64;

#[derive(Debug, Default)]
pub(crate) struct Schedule(BTreeMap<u64, Vec<u32>>);

impl Schedule {
    pub(crate) fn add(&mut self, at: Timestamp, slot: u32) {
        self.0.entry(at.0.div_ceil(GRAIN)).or_default().push(slot);
    }

    /// When the next record is due.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        let (at, _) = self.0.first_key_value()?;
        Some(Timestamp(at * GRAIN))
    }

    /// Takes one record that is due.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<u32> {
        let mut first = self.0.first_entry()?;
        if first.key() * GRAIN > now.0 {
            return None;
        }
        let slot = first.get_mut().pop();
        if first.get().is_empty() {
            first.remove();
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_when_they_are_due_and_never_before() {
        let mut schedule = Schedule::default();
        schedule.add(Timestamp(1_000), 1);
        schedule.add(Timestamp(100), 2);
        assert_eq!(schedule.pop(Timestamp(99)), None);
        assert!(schedule.next().is_some_and(|at| at >= Timestamp(100)));
        assert_eq!(schedule.pop(Timestamp(128)), Some(2));
        assert_eq!(schedule.pop(Timestamp(999)), None);
        assert_eq!(schedule.pop(Timestamp(1_024)), Some(1));
        assert_eq!(schedule.next(), None);
    }
}
