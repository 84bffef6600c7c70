//! Tests that cannot run here say so where it is seen.

use std::{
    env,
    io::{self, Write},
    thread,
};

/// The tools that are there for sure, apart by blanks: a test that misses one of them fails. `.ci/run` sets it.
pub const NEEDED: &str = "PEERSTORE_TEST_NEEDS";

/// Says that this thread's test is skipped for want of a tool.
pub fn skipped(tool: &str, why: &str) {
    let thread = thread::current();
    let test = thread.name().filter(|name| *name != "main");
    let test = test.unwrap_or("a test");
    let needed = env::var(NEEDED).unwrap_or_default();
    let is_needed = needed.split(' ').any(|needed| needed == tool);
    assert!(!is_needed, "{test} may not be skipped here: {why}");
    // What `eprintln!` says, nobody sees while the test passes.
    let _ = writeln!(io::stderr(), "skipped: {test}: {why}");
}
