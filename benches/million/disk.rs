//! The store on disk: loading it, committing to it, its size.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use libp2p_peerstore::{Batch, Config, RedbDatastore};
use redb::{Database, TableDefinition};
use rustix::fs::{Advice, fadvise};

use crate::bed::{
    Size, children,
    datastore::{Commit, Watched, bytes_of, close, flush, on_demand, open, open_with},
    node::{Node, some, tell},
    peers::Peer,
    row::{Row, bytes},
    time::median,
};

/// Where the store keeps everything in the file.
pub const TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("libp2p-peerstore");

/// Peers that a commit is about, of a million.
const DIRTY: usize = 10;

pub fn rows(size: Size, folder: &Path) -> Vec<Row> {
    let addresses = addresses(size, folder);
    let everything = everything(size, folder);
    let mut rows = vec![
        load(
            "load from redb: addresses",
            size,
            &addresses,
            size.rounds(3),
        ),
        load("load from redb: everything", size, &everything, 1),
        restart(
            "restart with a cold page cache: addresses",
            size,
            &addresses,
        ),
        restart(
            "restart with a cold page cache: everything",
            size,
            &everything,
        ),
    ];
    rows.extend(commit(size, &addresses));
    let each = |file: &Path| bytes(length(file) as f64 / size.peers() as f64);
    rows.push(Row::new(
        "disk: bytes in redb per peer, addresses",
        each(&addresses),
    ));
    rows.push(Row::new(
        "disk: bytes in redb per peer, everything, written in one go",
        each(&everything),
    ));
    rows
}

/// A file with what Kademlia told. `benches/heap` may have left one.
pub fn addresses(size: Size, folder: &Path) -> PathBuf {
    let file = folder.join("addresses.redb");
    if !file.exists() {
        let store = open(&file, on_demand(size.peers()));
        for number in 0..size.peers() as u64 {
            let peer = Peer::keyless(number);
            tell(&store, peer.id, &peer.addresses());
        }
        close(store);
    }
    file
}

/// A file with all that is known of peers that were met. The store encodes it, but it is written in one go: a million
/// peers by a row of commits take minutes.
pub fn everything(size: Size, folder: &Path) -> PathBuf {
    let file = folder.join("everything.redb");
    if !file.exists() {
        let gathered = Arc::new(Mutex::new(BTreeMap::new()));
        let gathers = gathered.clone();
        let datastore = Watched {
            redb: RedbDatastore::open(&file).expect("a folder that can be written"),
            look: move |batch: Batch, _: Commit<'_>| {
                gathers.lock().expect("no panic").extend(batch);
                Ok(())
            },
        };
        let mut node = Node::with(open_with(datastore, on_demand(size.peers())));
        for peer in Peer::many(0..size.peers() as u64) {
            node.meet(&peer, peer.identify(peer.is_one_in(1_000)));
        }
        let store = node.store.clone();
        drop(node);
        close(store);
        let raw = Database::create(&file).expect("the store has closed it");
        let gathered = gathered.lock().expect("no panic");
        let entries = gathered.iter();
        write(
            &raw,
            entries.map(|(key, value)| (key.as_str(), value.as_deref())),
        );
    }
    file
}

/// Writes all of it by redb alone, in one transaction.
fn write<'a>(raw: &Database, entries: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) {
    let transaction = raw.begin_write().expect("nobody else writes");
    {
        let mut table = transaction
            .open_table(TABLE)
            .expect("the table of the store");
        for (key, value) in entries {
            match value {
                Some(value) => table.insert(key, value).map(drop),
                None => table.remove(key).map(drop),
            }
            .expect("the disk has room");
        }
    }
    transaction.commit().expect("the disk has room");
}

fn length(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |file| file.len())
}

// --- loading ----------------------------------------------------------------------------------------------

/// In a process of its own: opens the file, and tells how long that took, its memory at most and in the end, and what
/// came from the disk.
pub fn load_here(size: Size, file: &str) {
    let start = Instant::now();
    let config = Config::default().with_max_peers(some(size.peers()));
    let store = open(Path::new(file), config);
    let spent = start.elapsed().as_secs_f64();
    assert_eq!(store.load_report().peers, size.peers());
    let (most, now) = (children::most_resident(), children::resident());
    println!("{spent} {most} {now} {}", children::fetched());
}

fn load(what: &str, size: Size, file: &Path, rounds: usize) -> Row {
    let file = file.to_string_lossy();
    let runs = (0..rounds).map(|_| children::figures::<4>(size, &["load", &file]));
    let runs: Vec<[f64; 4]> = runs.collect();
    let of = |at: usize| median(&runs.iter().map(|run| run[at]).collect::<Vec<_>>());
    let (spent, most, last) = (of(0), of(1), of(2));
    let reached = format!("{spent:.2} s; peak {:.2} × of {}", most / last, bytes(last));
    Row::new(what, reached).within("< 4 s, peak ≤ 1.5 ×", (spent / 4.0).max(most / last / 1.5))
}

fn restart(what: &str, size: Size, file: &Path) -> Row {
    let opened = File::open(file).expect("it was written just now");
    opened.sync_all().expect("the disk has room");
    // Whole, and clean by now: nothing of it stays in memory.
    fadvise(&opened, 0, None, Advice::DontNeed).expect("a regular file");
    let [spent, _, _, fetched] = children::figures(size, &["load", &file.to_string_lossy()]);
    let reached = format!(
        "{spent:.2} s, of {} in the file {} read",
        bytes(length(file) as f64),
        bytes(fetched)
    );
    Row::new(what, reached)
}

// --- committing -------------------------------------------------------------------------------------------

/// Changes of a tenth of all peers are committed; then the same bytes by redb alone, into the same file as it was before.
fn commit(size: Size, file: &Path) -> Vec<Row> {
    let rounds = size.rounds(3);
    let dirty = size.peers() / DIRTY;
    let (ours_file, raw_file) = (file.with_extension("ours"), file.with_extension("raw"));
    let copy = |to: &Path| {
        fs::copy(file, to).expect("the disk has room");
        File::open(to)
            .and_then(|file| file.sync_all())
            .expect("the disk has room");
    };
    copy(&ours_file);
    copy(&raw_file);
    // Copying the batches is off the clock.
    let seen = Arc::new(Mutex::new((Vec::<Batch>::new(), Duration::ZERO)));
    let sees = seen.clone();
    let datastore = Watched {
        redb: RedbDatastore::open(&ours_file).expect("it was written just now"),
        look: move |batch: Batch, commit: Commit<'_>| {
            let start = Instant::now();
            let mut sees = sees.lock().expect("no panic");
            sees.0.push(batch.clone());
            sees.1 += start.elapsed();
            drop(sees);
            commit(batch)
        },
    };
    let store = open_with(datastore, on_demand(size.peers()));
    let raw = Database::create(&raw_file).expect("it was written just now");
    let mut random = fastrand::Rng::with_seed(1);
    let (mut ours, mut theirs, mut handed) = (Vec::new(), Vec::new(), 0);
    for round in 0..rounds {
        let numbers = random.choose_multiple(0..size.peers() as u64, dirty);
        for number in numbers {
            let peer = Peer::keyless(number);
            tell(&store, peer.id, &peer.moved_by(1 + round as u16)[..1]);
        }
        assert_eq!(store.unsaved(), dirty);
        let start = Instant::now();
        flush(&store);
        let spent = start.elapsed();
        let (batches, copying) = std::mem::take(&mut *seen.lock().expect("no panic"));
        ours.push((spent - copying).as_secs_f64());
        handed = batches.iter().map(bytes_of).sum();

        let start = Instant::now();
        write(&raw, batches.iter().flat_map(Batch::iter));
        theirs.push(start.elapsed().as_secs_f64());
    }
    close(store);
    drop(raw);
    let _ = (fs::remove_file(ours_file), fs::remove_file(raw_file));
    let (ours, theirs) = (median(&ours), median(&theirs));
    let reached = format!("{ours:.2} s ({} of redb's speed)", percent(theirs / ours));
    vec![
        Row::new(
            format!("commit {dirty} dirty peers, {}", bytes(handed as f64)),
            reached,
        )
        .within("≥ 50 % of redb's speed", 0.5 * ours / theirs)
        .theirs(format!("redb alone: {theirs:.2} s"), ours / theirs),
    ]
}

fn percent(part: f64) -> String {
    format!("{:.0} %", 100.0 * part)
}
