//! What has expired is collected: the cost of each peer that goes.

use std::time::Duration;

use libp2p::PeerId;
use libp2p_peerstore::{Config, ManualClock, PeerStore};

use crate::bed::{
    Size,
    node::{some, tell},
    peers::Peer,
    row::{Row, nanos},
    time::{each, in_turn},
};

/// How much of the store expires at a time.
const PART: usize = 100;
const ROUNDS: usize = 5;
/// Between the times at which two such parts expire.
const STEP: Duration = Duration::from_secs(6 * 60);

pub fn rows(size: Size) -> Vec<Row> {
    let small = collect(size.few());
    let large = collect(size.peers());
    let what = format!("collect 1 % that has expired, of {}: each", size.peers());
    let reached = format!("{} (of {}: {})", nanos(large), size.few(), nanos(small));
    vec![Row::new(what, reached).within("by what expired: ≤ 3 ×", large / (3.0 * small))]
}

/// Nanoseconds for each peer that expires, in a store of so many.
fn collect(peers: usize) -> f64 {
    let clock = ManualClock::default();
    let config = Config::default()
        .with_max_peers(some(peers))
        .with_clock(clock.clone());
    let lifetime = config.hearsay_lifetime();
    let store = PeerStore::in_memory(PeerId::random(), config);
    let mut random = fastrand::Rng::with_seed(1);
    let mut order: Vec<u64> = (0..peers as u64).collect();
    random.shuffle(&mut order);
    let mut told = order.into_iter().map(Peer::keyless);
    let part = peers / PART;
    for _ in 0..ROUNDS {
        for peer in told.by_ref().take(part) {
            tell(&store, peer.id, &peer.addresses());
        }
        clock.advance(STEP);
    }
    for peer in told {
        tell(&store, peer.id, &peer.addresses());
    }
    assert_eq!(store.len(), peers);
    clock.advance(lifetime - STEP * ROUNDS as u32 - Duration::from_secs(60));
    assert_eq!(store.len(), peers, "nothing has expired yet");
    clock.advance(Duration::from_secs(120));
    let mut left = peers;
    let mut ours = || {
        let spent = each(part, || left = store.len());
        clock.advance(STEP);
        spent
    };
    let [spent] = in_turn(ROUNDS, [&mut ours]);
    assert_eq!(left, peers - ROUNDS * part, "a part went each time");
    spent
}
