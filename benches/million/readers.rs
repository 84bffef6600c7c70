//! Reads from two threads, with a writer and without.

use std::{
    hint::black_box,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use libp2p::PeerId;

use crate::{
    bed::{Size, row::Row, time::in_turn},
    operations::Bed,
};

const READERS: usize = 2;
/// Identifies that the writer hears in a second.
const WRITES: u32 = 1_000;

pub fn rows(bed: &mut Bed, size: Size) -> Vec<Row> {
    let time = match size {
        Size::Full => Duration::from_secs(1),
        Size::Quick => Duration::from_millis(300),
        Size::Smoke => Duration::from_millis(20),
    };
    let ids: Vec<PeerId> = bed.peers.iter().map(|peer| peer.id).collect();
    let bed = std::cell::RefCell::new(bed);
    let reads =
        |readers: usize, writer: bool| reads(&mut bed.borrow_mut(), &ids, readers, writer, time);
    let [alone, together, contended] = in_turn(
        size.rounds(5),
        [
            &mut || reads(1, false),
            &mut || reads(READERS, false),
            &mut || reads(READERS, true),
        ],
    );
    let million = |each: f64| format!("{:.2} M/s", each / 1e6);
    vec![
        Row::new("reads by one thread", million(alone)),
        Row::new("reads by two threads", million(together)),
        Row::new(
            format!("the same, a writer hears {WRITES} identifies a second"),
            format!(
                "{} ({:.0} %)",
                million(contended),
                100.0 * contended / together
            ),
        ),
    ]
}

/// Reads of all readers in a second.
fn reads(bed: &mut Bed, ids: &[PeerId], readers: usize, writer: bool, time: Duration) -> f64 {
    let (done, read) = (AtomicBool::new(false), AtomicU64::new(0));
    let store = bed.met.store.clone();
    let start = Instant::now();
    thread::scope(|scope| {
        for reader in 0..readers {
            let (store, done, read) = (&store, &done, &read);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(reader as u64);
                let mut count = 0;
                while !done.load(Ordering::Relaxed) {
                    for _ in 0..64 {
                        black_box(store.addresses().get(&ids[random.usize(..ids.len())]));
                    }
                    count += 64;
                }
                read.fetch_add(count, Ordering::Relaxed);
            });
        }
        if writer {
            write(bed, time);
        } else {
            thread::sleep(time);
        }
        done.store(true, Ordering::Relaxed);
    });
    read.into_inner() as f64 / start.elapsed().as_secs_f64()
}

/// A swarm that hears identify at its pace; nothing of it is new.
fn write(bed: &mut Bed, time: Duration) {
    let start = Instant::now();
    for count in 0.. {
        let at = Duration::from_secs(1) * count / WRITES;
        if at >= time {
            return;
        }
        thread::sleep(at.saturating_sub(start.elapsed()));
        bed.hear_one();
    }
}
