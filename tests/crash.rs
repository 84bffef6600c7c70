//! Crashes at every moment that can be reached: what `flush` promised is there afterwards, and what it promised to be
//! gone stays away.
//!
//! The short forms run with all other tests. The long ones: `cargo test --release --test crash -- --ignored --nocapture`

#![allow(clippy::unwrap_used)]

#[path = "support/datastore.rs"]
mod support;
#[path = "support/workload.rs"]
mod workload;

#[path = "support/disk.rs"]
mod disk;

#[path = "crash/failing.rs"]
mod failing;
#[path = "crash/kill.rs"]
mod kill;
#[path = "crash/power.rs"]
mod power;

use std::time::Duration;

use futures::executor::block_on;
use libp2p::PeerId;
use libp2p_peerstore::{Config, Datastore, ManualClock, PeerStore};
use workload::Model;

/// Writes as soon as anything has changed, so that commits and changes overlap in every way.
fn eager(config: Config) -> Config {
    config
        .with_commit_threshold(3.try_into().unwrap())
        .with_min_commit_interval(Duration::ZERO)
}

/// What a datastore holds after a crash, for a program with this configuration: sound in every entry, and nothing
/// beside it.
fn recovered_with(datastore: impl Datastore, config: Config) -> Model {
    let store = block_on(PeerStore::open(PeerId::random(), datastore, config)).unwrap();
    let report = store.load_report();
    let found = Model::of(&store);
    let unsound = (
        report.undecodable,
        report.foreign,
        report.refused,
        report.local,
    );
    assert_eq!(unsound, (0, 0, 0, 0), "{report:?}");
    assert_eq!(report.entries, found.entries(), "{report:?}");
    assert_eq!(store.unsaved(), 0);
    block_on(store.shutdown()).unwrap();
    found
}

/// As [`recovered_with`], a while after the manual clock of a test has started.
fn recovered(datastore: impl Datastore) -> Model {
    let clock = ManualClock::default();
    clock.advance(Duration::from_secs(40 * 60));
    recovered_with(datastore, Config::default().with_clock(clock))
}
