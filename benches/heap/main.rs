//! What a million peers take in memory, here and in `libp2p-peer-store`, counted by the allocator.
//!
//! Each store is filled in a process of its own, so that what the system gave to it shows too. `benches/million` runs after
//! this, and prints these rows beside its own. A counting allocator slows whoever allocates, which is why no time is taken
//! here.

#[path = "../bed/mod.rs"]
mod bed;
mod fill;
mod storm;
mod streams;

use std::{alloc::System, fs, sync::Mutex, thread};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use bed::{
    Options, children,
    row::{Row, Table},
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What is measured, in the order in which it is printed.
const TASKS: [&str; 9] = [
    "addresses",
    "addresses-dialled",
    "everything",
    "everything-dialled",
    "everything-rsa",
    "theirs",
    "repeat",
    "storm",
    "streams",
];

fn main() {
    let options = Options::parse();
    if let Some(task) = &options.child {
        let words: Vec<&str> = task.iter().map(String::as_str).collect();
        return child(options.size, &words);
    }
    if !options.wants("heap") {
        return;
    }
    let folder = bed::folder();
    let file = folder.join("addresses.redb");
    // Two at a time: nobody takes the time here.
    let queue = Mutex::new(TASKS.into_iter().enumerate());
    let next = || queue.lock().expect("no panic").next();
    let mut measured: Vec<(usize, Vec<Row>)> = thread::scope(|scope| {
        let work = || {
            let mut done = Vec::new();
            while let Some((place, task)) = next() {
                let file = file.to_string_lossy();
                done.push((place, children::rows(options.size, &[task, &file])));
            }
            done
        };
        let workers = [scope.spawn(work), scope.spawn(work)];
        let done = workers.map(|worker| worker.join().expect("no panic"));
        done.into_iter().flatten().collect()
    });
    measured.sort_by_key(|(place, _)| *place);
    let mut rows: Vec<Row> = measured.into_iter().flat_map(|(_, rows)| rows).collect();
    fill::compare(&mut rows);
    println!("{}", Table(&rows));
    let lines: Vec<String> = rows.iter().map(Row::to_line).collect();
    fs::write(folder.join("heap.rows"), lines.join("\n")).expect("the folder can be written");
}

fn child(size: bed::Size, task: &[&str]) {
    let rows = match *task {
        ["repeat", ..] => storm::repeat(size),
        ["storm", ..] => storm::storm(size),
        ["streams", file] => streams::streams(size, file),
        ["load", file] => return streams::load(size, file),
        [store, ..] => vec![fill::measure(size, store)],
        [] => Vec::new(),
    };
    for row in rows {
        println!("{}", row.to_line());
    }
}

/// Bytes that were asked of the allocator and not given back.
pub fn live() -> f64 {
    let stats = INSTRUMENTED_SYSTEM.stats();
    stats.bytes_allocated as f64 - stats.bytes_deallocated as f64
}

/// Blocks likewise.
pub fn blocks() -> f64 {
    let stats = INSTRUMENTED_SYSTEM.stats();
    stats.allocations as f64 - stats.deallocations as f64
}
