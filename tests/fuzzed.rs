//! What the fuzzers in `fuzz/` run, on what they found before and on some random bytes. Keys and values, which cannot
//! be reached from outside, are tested in the same way in `src/fuzzing.rs`.

#![allow(clippy::unwrap_used)]

#[path = "fuzzed/load.rs"]
mod load;
