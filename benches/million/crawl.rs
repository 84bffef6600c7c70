//! A steady crawl: an hour in which peers change all the time, and what is written for it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use futures::executor::block_on;
use libp2p_peerstore::{Batch, Config, ManualClock, PeerStore, RedbDatastore, Source};
use redb::{Database, ReadableTable};

use crate::{
    bed::{
        Size, children,
        datastore::{Commit, Watched, bytes_of, open_with},
        node::some,
        peers::Peer,
        row::{Row, bytes},
    },
    disk::TABLE,
};

/// Peers that change in each second, and peers that say once more what they have said.
const CHANGES: usize = 200;
const REPEATS: usize = 400;

/// What was written, and for what.
#[derive(Debug, Default, Clone, Copy)]
struct Written {
    commits: usize,
    /// Keys and values that the store handed to the datastore.
    handed: usize,
    /// Of these, values that really were different from what stood there.
    changed: usize,
    changed_bytes: usize,
    /// Bytes that went into the store's file.
    ours: f64,
    /// Bytes that redb writes for nothing but the values that were different.
    redb: f64,
}

pub fn rows(size: Size, folder: &Path) -> Vec<Row> {
    let seconds = match size {
        Size::Full => 3_600,
        Size::Quick => 300,
        Size::Smoke => 5,
    };
    let changes = CHANGES.min(size.peers() / 10);
    let begun = Instant::now();
    let written = crawl(size, folder, seconds, changes);
    let spent = begun.elapsed();
    let peers = (seconds * changes) as f64;
    let changed = written.changed_bytes as f64;
    let beyond = (written.ours - written.redb) / changed;
    let reached = format!(
        "{} in the file, of these redb's pages {}; handed over {} with keys, own {}: {beyond:.2} × beyond",
        bytes(written.ours / peers),
        bytes(written.redb / peers),
        bytes(written.handed as f64 / peers),
        bytes(changed / peers),
    );
    let what = format!("disk: written per changed peer, {changes} a second for {seconds} s");
    vec![
        Row::new(what, reached).within("≤ 3 × own bytes beyond redb's", beyond / 3.0),
        Row::new(
            "the same: commits, values that changed, real time",
            format!("{}, {}, {spent:.0?}", written.commits, written.changed),
        ),
    ]
}

/// In memory where there is room: this is about bytes, not about the disk's patience.
fn place(folder: &Path) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let name = folder.file_name().unwrap_or_default();
    let place = if memory.is_dir() {
        memory.join(name)
    } else {
        folder.join("crawl")
    };
    fs::create_dir_all(&place).expect("the folder can be written");
    place
}

fn crawl(size: Size, folder: &Path, seconds: usize, changes: usize) -> Written {
    let place = place(folder);
    let (ours, reference) = (place.join("ours.redb"), place.join("reference.redb"));
    let clock = ManualClock::starting_at(std::time::SystemTime::now());
    let config = Config::default()
        .with_max_peers(some(size.peers()))
        .with_clock(clock.clone());

    // Everybody is known, by their own word: nobody expires within the hour.
    let store = disk_open(&ours, config.clone());
    for number in 0..size.peers() as u64 {
        let peer = Peer::keyless(number);
        hear(&store, &peer, 0);
    }
    block_on(store.shutdown()).expect("there is room");
    drop(store);
    fs::copy(&ours, &reference).expect("there is room");

    let reference = Database::builder()
        .set_cache_size(16 * 1_024 * 1_024)
        .create(&reference)
        .expect("it was written just now");
    let written = Arc::new(Mutex::new(Written::default()));
    let counts = written.clone();
    let datastore = Watched {
        redb: RedbDatastore::open(&ours).expect("it was written just now"),
        look: move |batch: Batch, commit: Commit<'_>| {
            let mut counts = counts.lock().expect("no panic");
            counts.commits += 1;
            counts.handed += bytes_of(&batch);
            let before = children::written();
            let committed = commit(batch.clone());
            counts.ours += children::written() - before;
            let before = children::written();
            let (changed, bytes) = apply(&reference, &batch);
            counts.redb += children::written() - before;
            counts.changed += changed;
            counts.changed_bytes += bytes;
            drop(counts);
            committed
        },
    };
    let store = open_with(datastore, config);
    let mut random = fastrand::Rng::with_seed(1);
    let mut moved = vec![0_u16; size.peers()];
    for _ in 0..seconds {
        for turn in 0..changes + REPEATS {
            let number = random.usize(..size.peers());
            moved[number] += u16::from(turn < changes);
            hear(&store, &Peer::keyless(number as u64), moved[number]);
        }
        clock.advance(Duration::from_secs(1));
        // The commit of this second, before anything happens in the next one.
        let deadline = Instant::now() + Duration::from_secs(5);
        while store.unsaved() > 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_micros(200));
        }
    }
    block_on(store.shutdown()).expect("there is room");
    drop(store);
    let _ = fs::remove_dir_all(place);
    *written.lock().expect("no panic")
}

fn disk_open(file: &Path, config: Config) -> PeerStore {
    let config = config.with_commit_threshold(some(usize::MAX));
    crate::bed::datastore::open(file, config)
}

/// A peer tells its addresses: the last port is one further with each move.
fn hear(store: &PeerStore, peer: &Peer, moves: u16) {
    let mut addresses = peer.addresses();
    if let (Some(last), Some(moved)) = (addresses.last_mut(), peer.moved_by(moves).pop()) {
        *last = moved;
    }
    store.learned(Source::Identify).replace(peer.id, &addresses);
}

/// Writes what is different in a batch, as one transaction; returns how many values, and their bytes.
fn apply(reference: &Database, batch: &Batch) -> (usize, usize) {
    let (mut changed, mut bytes) = (0, 0);
    let transaction = reference.begin_write().expect("nobody else writes");
    {
        let mut table = transaction
            .open_table(TABLE)
            .expect("it was written just now");
        for (key, value) in batch.iter() {
            let same = table
                .get(key)
                .expect("it can be read")
                .map(|old| old.value().to_vec());
            if same.as_deref() == value {
                continue;
            }
            changed += 1;
            bytes += value.map_or(0, <[u8]>::len);
            match value {
                Some(value) => table.insert(key, value).map(drop),
                None => table.remove(key).map(drop),
            }
            .expect("there is room");
        }
    }
    transaction.commit().expect("there is room");
    (changed, bytes)
}
