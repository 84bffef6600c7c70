//! What was committed in the last minute, kept to be written again when the primary that took it is no longer there.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
    time::Instant,
};

use super::{
    REWRITE_WINDOW,
    write::{Operation, Slots},
};

/// What an entry costs beside its key and value: nodes of two trees, and the entry itself.
const OVERHEAD: usize = 192;

#[derive(Default)]
pub(super) struct Recent {
    entries: BTreeMap<Arc<str>, Entry>,
    /// By age, the oldest first.
    order: BTreeMap<u64, Arc<str>>,
    next: u64,
    bytes: usize,
}

struct Entry {
    slot: u16,
    operation: Operation,
    number: u64,
    at: Instant,
    /// The process that took it; `None` when it may have taken it or not.
    run_id: Option<Arc<str>>,
}

impl Recent {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Adds what was written, or was tried to be, and returns how many of the oldest had to go for want of memory.
    pub(super) fn add(
        &mut self,
        slots: Slots,
        done: &HashMap<u16, Arc<str>>,
        now: Instant,
        limit: usize,
    ) -> usize {
        for (slot, operations) in slots {
            for operation in operations {
                self.remove(&operation.key);
                self.next += 1;
                self.bytes += operation.size() + OVERHEAD;
                self.order.insert(self.next, operation.key.clone());
                let entry = Entry {
                    slot,
                    number: self.next,
                    at: now,
                    run_id: done.get(&slot).cloned(),
                    operation,
                };
                self.entries.insert(entry.operation.key.clone(), entry);
            }
        }
        let mut gone = 0;
        while self.bytes > limit {
            let Some((_, oldest)) = self.order.first_key_value() else {
                break;
            };
            let oldest = oldest.clone();
            self.remove(&oldest);
            gone += 1;
        }
        gone
    }

    fn remove(&mut self, key: &str) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.number);
            self.bytes -= entry.operation.size() + OVERHEAD;
        }
    }

    /// Forgets what is old, and was found with the process that took it.
    pub(super) fn forget(&mut self, is_primary: impl Fn(u16, &str) -> bool, now: Instant) {
        let old = self.entries.values().filter(|entry| {
            let age = now.saturating_duration_since(entry.at);
            age >= REWRITE_WINDOW && !entry.is_stale(&is_primary)
        });
        let old: Vec<_> = old.map(|entry| entry.operation.key.clone()).collect();
        for key in old {
            self.remove(&key);
        }
    }

    /// The values to be put under keys that begin with `begin`.
    pub(super) fn puts<'a>(&'a self, begin: &'a str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let range = (Bound::Included(begin), Bound::Unbounded);
        let entries = self.entries.range::<str, _>(range);
        let entries = entries.take_while(move |(key, _)| key.starts_with(begin));
        entries.filter_map(|(key, entry)| Some((&**key, entry.operation.value.as_deref()?)))
    }

    /// The slots that another process serves by now, as long as they fit into `bytes`, but one at least.
    pub(super) fn stale(&self, is_primary: impl Fn(u16, &str) -> bool, bytes: usize) -> Slots {
        let mut slots = Slots::new();
        let mut size = 0;
        // By age, so that what has waited longest comes first; whole slots, so that no peer is torn.
        for key in self.order.values() {
            let Some(entry) = self.entries.get(key) else {
                continue;
            };
            if !entry.is_stale(&is_primary) || slots.contains_key(&entry.slot) {
                continue;
            }
            if size >= bytes {
                break;
            }
            size += entry.operation.size();
            slots.insert(entry.slot, Vec::new());
        }
        for entry in self.entries.values() {
            if let Some(operations) = slots.get_mut(&entry.slot) {
                operations.push(entry.operation.clone());
            }
        }
        slots
    }
}

impl Entry {
    fn is_stale(&self, is_primary: impl Fn(u16, &str) -> bool) -> bool {
        !self
            .run_id
            .as_deref()
            .is_some_and(|run_id| is_primary(self.slot, run_id))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::datastore::{Batch, redis::write::by_slot};

    fn batch(keys: &[(&str, Option<&str>)]) -> Slots {
        let mut batch = Batch::default();
        for (key, value) in keys {
            match value {
                Some(value) => batch.put(*key, value.as_bytes().to_vec()),
                None => batch.delete(*key),
            }
        }
        by_slot("", batch)
    }

    fn all_by(slots: &Slots, run_id: &str) -> HashMap<u16, Arc<str>> {
        slots.keys().map(|slot| (*slot, run_id.into())).collect()
    }

    fn content(slots: Slots) -> Vec<(String, Option<Vec<u8>>)> {
        let all = slots.into_values().flatten();
        let mut all: Vec<_> = all.map(|op| (op.key.to_string(), op.value)).collect();
        all.sort();
        all
    }

    #[test]
    fn what_another_process_took_is_stale_until_it_is_written_again() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        let slots = batch(&[("/a", Some("1")), ("/b", None)]);
        let done = all_by(&slots, "first");
        recent.add(slots, &done, start, usize::MAX);
        assert!(recent.stale(|_, run_id| run_id == "first", 100).is_empty());

        let stale = recent.stale(|_, run_id| run_id == "second", 100);
        let expected = [
            ("/a".to_owned(), Some(b"1".to_vec())),
            ("/b".to_owned(), None),
        ];
        assert_eq!(content(stale.clone()), expected);
        // Old, but not found with the process that took it.
        let later = start + 2 * REWRITE_WINDOW;
        recent.forget(|_, run_id| run_id == "second", later);
        assert!(!recent.is_empty());

        let done = all_by(&stale, "second");
        recent.add(stale, &done, later, usize::MAX);
        assert!(recent.stale(|_, run_id| run_id == "second", 100).is_empty());
        let is_second = |_, run_id: &str| run_id == "second";
        recent.forget(is_second, later + REWRITE_WINDOW - Duration::from_millis(1));
        assert!(!recent.is_empty());
        recent.forget(is_second, later + REWRITE_WINDOW);
        assert!(recent.is_empty() && recent.bytes == 0 && recent.order.is_empty());
    }

    #[test]
    fn what_may_not_have_been_written_is_stale_for_every_process() {
        let mut recent = Recent::default();
        let slots = batch(&[("/a", Some("1"))]);
        recent.add(slots, &HashMap::new(), Instant::now(), usize::MAX);
        assert_eq!(recent.stale(|_, _| true, 100).len(), 1);
    }

    #[test]
    fn a_later_value_takes_the_place_of_an_earlier_one() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        for value in ["1", "22", "3"] {
            let slots = batch(&[("/a", Some(value))]);
            recent.add(slots, &HashMap::new(), now, usize::MAX);
        }
        let stale = recent.stale(|_, _| false, 100);
        assert_eq!(content(stale), [("/a".to_owned(), Some(b"3".to_vec()))]);
        assert_eq!((recent.entries.len(), recent.order.len()), (1, 1));
        assert_eq!(recent.bytes, "/a3".len() + OVERHEAD);
    }

    #[test]
    fn only_puts_under_a_prefix_are_told() {
        let mut recent = Recent::default();
        let slots = batch(&[
            ("/a", Some("1")),
            ("/a/b", Some("2")),
            ("/a/c", None),
            ("/b", Some("3")),
        ]);
        recent.add(slots, &HashMap::new(), Instant::now(), usize::MAX);
        let puts: Vec<_> = recent.puts("/a/").collect();
        assert_eq!(puts, [("/a/b", b"2".as_slice())]);
        assert_eq!(recent.puts("").count(), 3);
        assert_eq!(recent.puts("/c").count(), 0);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        let limit = 10 * (OVERHEAD + 10);
        let mut gone = 0;
        for n in 0..100 {
            let slots = batch(&[(&format!("/key/{n:04}"), Some("x"))]);
            gone += recent.add(slots, &HashMap::new(), now, limit);
            assert!(recent.bytes <= limit);
        }
        assert_eq!(gone, 90);
        let left = content(recent.stale(|_, _| false, usize::MAX));
        assert_eq!(left.first().map(|(key, _)| key.as_str()), Some("/key/0090"));
        // What alone is too large leaves nothing.
        let large = "x".repeat(limit);
        recent.add(
            batch(&[("/large", Some(&large))]),
            &HashMap::new(),
            now,
            limit,
        );
        assert!(recent.is_empty() && recent.bytes == 0);
    }

    #[test]
    fn what_is_written_again_at_once_is_bounded_and_whole_slots() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        for n in 0..50 {
            let (addrs, keys) = (format!("/peers/addrs/b{n}"), format!("/peers/keys/b{n}"));
            let slots = batch(&[(&addrs, Some("0123456789")), (&keys, Some("x"))]);
            recent.add(slots, &HashMap::new(), now, usize::MAX);
        }
        let stale = recent.stale(|_, _| false, 100);
        assert!((1..10).contains(&stale.len()), "{}", stale.len());
        assert!(stale.values().all(|operations| operations.len() >= 2));
    }
}
