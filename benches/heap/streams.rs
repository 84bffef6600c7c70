//! Loading and committing: how much memory they take beside what is in the store in the end.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use libp2p_peerstore::{Batch, Config, RedbDatastore};

use crate::{
    bed::{
        Size, children,
        datastore::{Commit, Watched, bytes_of, close, flush, on_demand, open, open_with},
        node::{some, tell},
        peers::Peer,
        row::{Row, bytes},
    },
    live,
};

/// Fills a store on `file` and commits everything, then loads it in a new process.
pub fn streams(size: Size, file: &str) -> Vec<Row> {
    let peers = size.peers();
    let largest = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let seen = largest.clone();
    let datastore = Watched {
        redb: RedbDatastore::open(file).expect("a new file"),
        look: move |batch: Batch, commit: Commit<'_>| {
            seen.0.fetch_max(batch.len(), Ordering::Relaxed);
            seen.1.fetch_max(bytes_of(&batch), Ordering::Relaxed);
            commit(batch)
        },
    };
    let store = open_with(datastore, on_demand(peers));
    for number in 0..peers as u64 {
        let peer = Peer::keyless(number);
        tell(&store, peer.id, &peer.addresses());
    }
    let dirty = live();
    let peak = Peak::watch();
    flush(&store);
    // What says that everybody is dirty is gone now.
    let clean = live();
    let (marks, beside) = (dirty - clean, peak.end() - clean);
    let keys = largest.0.load(Ordering::Relaxed);
    let batch = largest.1.load(Ordering::Relaxed) as f64;
    close(store);

    let [peak, last, most_resident, resident] = children::figures(size, &["load", file]);
    let share = beside / last;
    let commit = format!(
        "{} ({share:.2} of the store), {} while all are dirty; largest batch {keys} keys, {}",
        bytes(beside),
        bytes(marks),
        bytes(batch)
    );
    let load = format!(
        "{:.2} × of {} requested, {:.2} × of {} resident",
        peak / last,
        bytes(last),
        most_resident / resident,
        bytes(resident)
    );
    vec![
        Row::new("load: peak memory beside the final", load)
            .within("≤ 1.5 ×", (peak / last).max(most_resident / resident) / 1.5),
        Row::new("commit of everything: memory beside the store", commit)
            .within("no second copy: ≤ 0.5 of the store", share / 0.5),
    ]
}

/// In a process of its own: loads the file, and tells the peak and what is there in the end.
pub fn load(size: Size, file: &str) {
    let config = Config::default().with_max_peers(some(size.peers()));
    let before = live();
    let peak = Peak::watch();
    let store = open(Path::new(file), config);
    let peak = peak.end() - before;
    assert_eq!(store.load_report().peers, size.peers());
    let (last, resident) = (live() - before, children::resident());
    println!("{peak} {last} {} {resident}", children::most_resident());
}

/// The most that was live at any time, looked at a thousand times a second.
struct Peak {
    done: Arc<AtomicBool>,
    watcher: thread::JoinHandle<f64>,
}

impl Peak {
    fn watch() -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let ends = done.clone();
        let watcher = thread::spawn(move || {
            let mut most = live();
            while !ends.load(Ordering::Relaxed) {
                most = most.max(live());
                thread::sleep(Duration::from_millis(1));
            }
            most
        });
        Self { done, watcher }
    }

    fn end(self) -> f64 {
        self.done.store(true, Ordering::Relaxed);
        self.watcher.join().expect("no panic").max(live())
    }
}
