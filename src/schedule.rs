//! When which record must be looked at again because something of it expires.
//!
//! A record stands here at most once, at the moment when its first piece expires. News that move that moment away
//! change nothing: when the moment comes the record is looked at and put in again. News that bring it nearer, such as
//! a tag with a short time to live, move the record. Collecting so costs what is due, not what is stored.

use std::collections::BTreeMap;

use crate::clock::Timestamp;

/// A moment in the schedule, in seconds since the Unix epoch. Times of addresses are in steps of about a minute, so
/// that few moments differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due(u32);

impl Due {
    /// What does not fit, from the year 2106 on, never comes up here.
    pub(crate) const NEVER: Self = Self(u32::MAX);

    pub(crate) fn at(at: Timestamp) -> Self {
        u32::try_from(at.0).map_or(Self::NEVER, Self)
    }

    pub(crate) fn has_come(self, now: Timestamp) -> bool {
        self != Self::NEVER && self.time() <= now
    }

    fn time(self) -> Timestamp {
        Timestamp(self.0.into())
    }
}

/// A calendar: for each moment the slots that are due then. Each slot knows its place among them.
#[derive(Debug, Default)]
pub(crate) struct Schedule(BTreeMap<Due, Vec<u32>>);

impl Schedule {
    /// Adds a slot. Returns its place, with which it is removed.
    pub(crate) fn add(&mut self, due: Due, slot: u32) -> u32 {
        let slots = self.0.entry(due).or_default();
        slots.push(slot);
        (slots.len() - 1) as u32
    }

    /// Takes a slot out. Returns the one that moved into its place.
    pub(crate) fn remove(&mut self, due: Due, place: u32) -> Option<u32> {
        let slots = self.0.get_mut(&due)?;
        let place = place as usize;
        if place < slots.len() {
            slots.swap_remove(place);
        }
        let moved = slots.get(place).copied();
        if slots.is_empty() {
            self.0.remove(&due);
        } else if slots.len() < slots.capacity() / 4 {
            slots.shrink_to(slots.len() * 2);
        }
        moved
    }

    /// When the next record is due.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        let (due, _) = self.0.first_key_value()?;
        (*due != Due::NEVER).then(|| due.time())
    }

    /// Takes one record that is due, the last of those that are due first.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<u32> {
        let mut first = self.0.first_entry()?;
        if !first.key().has_come(now) {
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
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn a_record_that_was_moved_comes_out_once() {
        let mut schedule = Schedule::default();
        let (far, near) = (Due::at(Timestamp(1_000)), Due::at(Timestamp(100)));
        let place = schedule.add(far, 1);
        schedule.add(far, 2);
        assert_eq!(schedule.remove(far, place), Some(2), "it took the place");
        schedule.add(near, 1);
        assert_eq!(schedule.pop(Timestamp(200)), Some(1));
        assert_eq!(schedule.pop(Timestamp(u64::MAX - 1)), Some(2));
        assert_eq!(schedule.pop(Timestamp(u64::MAX - 1)), None);
    }
}
