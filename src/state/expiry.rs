//! What is forgotten when nothing more is heard of it.

use super::{Now, State, rules};
use crate::{clock::Timestamp, event::Cause, history::STEP, record::Delta, schedule::Due};

/// When the engine wakes for what expires then: a quiet machine is not woken more often than once in a step.
pub(super) fn end_of_step(at: Option<Timestamp>) -> Option<Timestamp> {
    let step = STEP.as_secs();
    at.map(|at| Timestamp(at.0.div_ceil(step).saturating_mul(step)))
}

impl State {
    /// Collects what had expired before it was loaded, without events, and notes when the rest does. Returns how
    /// many peers are gone.
    pub(crate) fn expire_loaded(&mut self, now: Now) -> usize {
        let before = self.table.len();
        for slot in 0..self.table.slots() as u32 {
            if self.collect_slot(slot, now) {
                self.update_claims(slot, &[]);
                self.reschedule(slot, now);
            }
        }
        before - self.table.len()
    }

    /// When something may expire next.
    pub(crate) fn next_expiry(&self) -> Option<Timestamp> {
        self.table.next_due()
    }

    /// Collects for the engine: what has expired in a step that is over. Returns whether more may be due, and when the
    /// engine is to come again.
    pub(crate) fn collect_for_engine(
        &mut self,
        records: usize,
        now: Now,
    ) -> (bool, Option<Timestamp>) {
        let is_due = |at: Timestamp| at <= now.wall;
        let next = end_of_step(self.next_expiry());
        let more = next.is_some_and(is_due) && self.collect(records, now);
        let next = end_of_step(self.next_expiry());
        self.pending.set_expiry_alarm(next);
        (more && next.is_some_and(is_due), next)
    }

    /// Collects what has expired, of at most `records` records. Returns whether more may be due.
    pub(crate) fn collect(&mut self, records: usize, now: Now) -> bool {
        for _ in 0..records {
            let Some(slot) = self.table.pop_due(now.wall) else {
                return false;
            };
            if self.collect_slot(slot, now) {
                self.reschedule(slot, now);
            }
        }
        true
    }

    /// Collects what has expired of one peer. Returns whether there still is one.
    pub(super) fn collect_slot(&mut self, slot: u32, now: Now) -> bool {
        let rules = self.rules(now);
        let Some(view) = self.table.view(slot) else {
            return false;
        };
        if view.next_expiry(rules).is_none_or(|at| at > now.wall) {
            return true;
        }
        if view.has_expired(rules) {
            self.remove(slot, Cause::Expired, now);
            return false;
        }
        let peer = view.id();
        let mut delta = Delta::default();
        let claimed = self.claimed(slot);
        let rules = rules!(self, now);
        self.table.change(slot, |record| {
            record.expire_addresses(rules, &mut delta);
            record.expire_tags(rules, &mut delta);
            record.stamp(delta.changed, now.wall);
        });
        self.update_claims(slot, &claimed);
        self.finish(slot, peer, delta, Cause::Expired, now);
        // Shares are held by what just happened, to whomever.
        self.table.view(slot).is_some_and(|view| view.id() == peer)
    }

    /// Puts a record into the schedule, if it is not there, or not early enough.
    pub(super) fn reschedule(&mut self, slot: u32, now: Now) {
        let view = self.table.view(slot);
        if let Some(at) = view.and_then(|view| view.next_expiry(self.rules(now))) {
            self.table.schedule(slot, Due::at(at));
        }
    }
}
