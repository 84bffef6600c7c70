//! This store with a million peers, beside `libp2p-peer-store`: every target of `docs/benchmarks.md`, in one table.
//!
//! ```text
//! cargo bench                                  # everything, in nine minutes once it is built
//! cargo bench -- quick                         # a tenth of the peers, fewer rounds
//! cargo bench --bench million -- locks         # one part
//! cargo bench -- --svg docs/benchmarks.svg     # everything, and the plot
//! ```
//!
//! What memory it takes is measured before, by `benches/heap`. Our figures and theirs are medians of rounds in which both
//! take turns. The time of a single operation is processor time of the thread, wherever the operation waits for nothing.

#[path = "../bed/mod.rs"]
mod bed;
mod collect;
mod crawl;
mod disk;
mod locks;
mod operations;
mod plot;
mod readers;
mod swarms;

use std::{fs, process::exit, time::Instant};

use bed::{
    Options, Size, children,
    row::{Row, Table},
};

fn main() {
    let options = Options::parse();
    let size = options.size;
    if let Some(task) = &options.child {
        let words: Vec<&str> = task.iter().map(String::as_str).collect();
        return child(size, &words);
    }
    let begun = Instant::now();
    let folder = bed::folder();
    let mut rows = before(&folder);
    if options.wants("operations") {
        rows.extend(operations::rows(size));
    }
    if options.wants("collect") {
        rows.extend(collect::rows(size));
    }
    if options.wants("disk") {
        rows.extend(disk::rows(size, &folder));
    }
    if options.wants("crawl") {
        rows.extend(crawl::rows(size, &folder));
    }
    if options.wants("locks") {
        let file = disk::everything(size, &folder);
        rows.extend(children::rows(size, &["locks", &file.to_string_lossy()]));
    }
    if options.wants("swarms") {
        rows.extend(swarms::rows(size));
    }
    // Another run may need what is left there, but this one does not.
    let _ = fs::remove_dir_all(&folder);
    if rows.is_empty() {
        return;
    }
    let peers = size.peers();
    println!(
        "\n{peers} peers with {} addresses each; {:.0?} for these:\n",
        bed::peers::ADDRESSES,
        begun.elapsed()
    );
    println!("{}", Table(&rows));
    let missed = rows.iter().filter(|row| row.met == Some(false)).count();
    let met = rows.iter().filter(|row| row.met == Some(true)).count();
    println!("{met} targets are met, {missed} are not.");
    if let Some(path) = &options.svg {
        fs::write(path, plot::svg(&rows)).expect("the plot can be written");
    }
}

/// What is measured in a process of its own.
fn child(size: Size, task: &[&str]) {
    match *task {
        ["load", file] => disk::load_here(size, file),
        ["locks", file] => {
            for row in locks::rows_here(size, file) {
                println!("{}", row.to_line());
            }
            // Commits and listings go on for ever.
            exit(0);
        }
        _ => {}
    }
}

/// What `benches/heap` has just measured.
fn before(folder: &std::path::Path) -> Vec<Row> {
    let lines = fs::read_to_string(folder.join("heap.rows")).unwrap_or_default();
    lines.lines().filter_map(Row::from_line).collect()
}
