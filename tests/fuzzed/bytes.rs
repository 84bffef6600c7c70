//! What a fuzzer made up, read as choices. After the last byte comes zero, for ever.

// Each target uses its own part of it.
#![allow(dead_code)]

pub struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn next(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u8) -> usize {
        usize::from(self.next() % n)
    }

    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// So many bytes, or what there is.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Up to `most` bytes, as many as the next one says.
    pub fn some(&mut self, most: u8) -> &'a [u8] {
        let len = self.below(most.saturating_add(1).max(1));
        self.take(len)
    }

    pub fn text(&mut self, most: u8) -> String {
        String::from_utf8_lossy(self.some(most)).into_owned()
    }

    pub fn number(&mut self) -> u64 {
        let mut number = [0; 8];
        let taken = self.some(8);
        number[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(number)
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[usize::from(self.next()) % from.len()].clone()
    }
}
