//! A small memory of what happened lately. It is bounded, and forgets what was noted longest ago.

use std::collections::HashMap;

/// Values by a keyed hash: two halves, of which the older goes when the younger is full.
#[derive(Debug)]
pub(crate) struct Recent<V> {
    young: HashMap<u64, V>,
    old: HashMap<u64, V>,
    /// The most entries of a half.
    half: usize,
}

impl<V: Copy> Recent<V> {
    /// Remembers `max` entries at most, and at least the latest half of so many.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            half: max.div_ceil(2),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }

    pub(crate) fn get(&self, key: u64) -> Option<V> {
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    pub(crate) fn note(&mut self, key: u64, value: V) {
        self.old.remove(&key);
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    pub(crate) fn forget(&mut self, key: u64) {
        self.young.remove(&key);
        self.old.remove(&key);
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        self.young.retain(|_, value| keep(value));
        self.old.retain(|_, value| keep(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_remembers_the_latest() {
        let mut recent = Recent::new(10);
        for n in 0..1_000 {
            recent.note(n, n);
            recent.note(n, n + 1);
            assert!(recent.young.len() + recent.old.len() <= 10);
            for earlier in n.saturating_sub(4)..=n {
                assert_eq!(recent.get(earlier), Some(earlier + 1));
            }
        }
        recent.retain(|value| *value != 1_000);
        assert_eq!((recent.get(999), recent.get(998)), (None, Some(999)));
        recent.forget(998);
        assert_eq!(recent.get(998), None);
        recent.retain(|_| false);
        assert!(recent.is_empty());
    }
}
