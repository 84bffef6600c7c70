//! When which record must be looked at again because something of it expires.
//!
//! A record stands here at most once, at the moment when its first piece expires. News that move that moment away
//! change nothing: when the moment comes the record is looked at and put in again. News that bring it nearer, such as
//! a tag with a short time to live, move the record. Collecting so costs what is due, not what is stored.

use std::collections::BTreeSet;

use crate::clock::Timestamp;

/// A moment in the schedule, in seconds since the Unix epoch. Times of addresses are in steps of about a minute, so
/// that few moments differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due(u32);

impl Due {
    pub(crate) fn at(at: Timestamp) -> Self {
        Self(u32::try_from(at.0).unwrap_or(u32::MAX))
    }

    /// What does not fit, from the year 2106 on, never comes up here: it is hidden from readers all the same.
    fn time(self) -> Timestamp {
        Timestamp(if self.0 == u32::MAX {
            u64::MAX
        } else {
            u64::from(self.0)
        })
    }
}

#[derive(Debug, Default)]
pub(crate) struct Schedule(BTreeSet<(Due, u32)>);

impl Schedule {
    pub(crate) fn add(&mut self, due: Due, slot: u32) {
        self.0.insert((due, slot));
    }

    pub(crate) fn remove(&mut self, due: Due, slot: u32) {
        self.0.remove(&(due, slot));
    }

    /// When the next record is due.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.0.first().map(|(due, _)| due.time())
    }

    /// Takes one record that is due.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<u32> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_first().map(|(_, slot)| slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_when_they_are_due_and_never_before() {
        let mut schedule = Schedule::default();
        schedule.add(Due::at(Timestamp(1_000)), 1);
        schedule.add(Due::at(Timestamp(100)), 2);
        assert_eq!(schedule.pop(Timestamp(99)), None);
        assert_eq!(schedule.next(), Some(Timestamp(100)));
        assert_eq!(schedule.pop(Timestamp(100)), Some(2));
        assert_eq!(schedule.pop(Timestamp(999)), None);
        assert_eq!(schedule.pop(Timestamp(1_000)), Some(1));
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn a_moment_beyond_the_range_never_comes() {
        let mut schedule = Schedule::default();
        schedule.add(Due::at(Timestamp(u64::from(u32::MAX) + 7)), 1);
        assert_eq!(schedule.pop(Timestamp(u64::MAX - 1)), None);
    }

    #[test]
    fn a_record_that_was_moved_comes_out_once() {
        let mut schedule = Schedule::default();
        let (far, near) = (Due::at(Timestamp(1_000)), Due::at(Timestamp(100)));
        schedule.add(far, 1);
        schedule.remove(far, 1);
        schedule.add(near, 1);
        assert_eq!(schedule.pop(Timestamp(100)), Some(1));
        assert_eq!(schedule.pop(Timestamp(u64::MAX - 1)), None);
    }
}
