//! Loading, and what is dirty, committed and refused.

use std::time::Duration;

use libp2p::PeerId;
use libp2p_peerstore::PeerStore;

use crate::{
    Bed, Watch,
    support::{Act, Hand, Recording, addr},
};

const SECOND: Duration = Duration::from_secs(1);

/// What moved, but for what the peers themselves move.
fn moved(bed: &mut Bed) -> Vec<String> {
    let mut moved = bed.moved();
    let of_peers = ["peers{", "addresses{", "events_total{"];
    moved.retain(|moved| !of_peers.iter().any(|of| moved.starts_with(of)));
    moved
}

fn touch(store: &PeerStore) -> PeerId {
    let peer = PeerId::random();
    assert!(store.addresses().add(peer, [addr(1)]).changed);
    peer
}

#[test]
fn a_peer_is_dirty_then_committing_then_neither() {
    let datastore = Recording::default();
    let mut bed = Bed::new(datastore.clone(), |config| config);
    let peer = touch(&bed.store);
    touch(&bed.store);
    assert_eq!(moved(&mut bed), ["dirty_peers +2"]);

    datastore.hold_commits();
    let store = bed.store.clone();
    let mut flush = bed.hand.start(async move { store.flush().await });
    assert_eq!(
        moved(&mut bed),
        [
            "commit_size_bytes_count +1",
            &size(&datastore).unwrap(),
            "committing_peers +2",
            "dirty_peers -2",
        ]
    );
    // Changed during its commit: it waits for the next one.
    bed.store.addresses().add(peer, [addr(2)]);
    assert_eq!(moved(&mut bed), ["dirty_peers +1"]);

    bed.hand.clock.advance(3 * SECOND);
    datastore.release();
    bed.hand.result(&mut flush).unwrap().unwrap();
    assert_eq!(
        moved(&mut bed),
        [
            "commit_duration_seconds_count +1",
            "commit_duration_seconds_sum +3",
            "commits_total{outcome=success} +1",
            "committed_peers_total +2",
            "committing_peers -2",
        ]
    );
}

/// The sum of sizes, as what was written says.
fn size(datastore: &Recording) -> Option<String> {
    let bytes: usize = (datastore.take_commits().iter())
        .flat_map(|batch| batch.iter())
        .map(|(key, value)| key.len() + value.map_or(0, <[u8]>::len))
        .sum();
    (bytes > 0).then(|| format!("commit_size_bytes_sum +{bytes}"))
}

#[test]
fn a_commit_that_fails_is_counted_as_such_and_its_peers_are_dirty_again() {
    for act in [Act::Fail, Act::Panic] {
        let datastore = Recording::default();
        let mut bed = Bed::new(datastore.clone(), |config| config);
        touch(&bed.store);
        moved(&mut bed);
        datastore.next([act]);
        bed.hand.block(bed.store.flush()).unwrap_err();
        bed.hand.settle();
        assert_eq!(
            moved(&mut bed),
            [
                "commit_duration_seconds_count +1".to_owned(),
                "commit_size_bytes_count +1".to_owned(),
                size(&datastore).unwrap(),
                "commits_total{outcome=failure} +1".to_owned(),
            ]
        );
        assert_eq!(bed.watch.now().get("dirty_peers"), 1.0);
        bed.hand.flush(&bed.store.clone());
        let moved = moved(&mut bed);
        assert!(moved.contains(&"commits_total{outcome=success} +1".to_owned()));
        assert!(moved.contains(&"dirty_peers -1".to_owned()));
    }
}

#[test]
fn a_flush_with_nothing_to_write_is_no_commit() {
    let mut bed = Bed::new(Recording::default(), |config| config);
    bed.hand.flush(&bed.store.clone());
    assert_eq!(moved(&mut bed), [""; 0]);
}

#[test]
fn the_load_time_is_that_of_the_datastore_and_loading_is_no_event() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let peers: Vec<PeerId> = (0..3).map(|_| touch(&store)).collect();
    hand.shutdown(store);

    datastore.hold_queries();
    let config = hand.config();
    let again = datastore.clone();
    let mut open = hand.start(PeerStore::open(PeerId::random(), again, config));
    hand.advance(5 * SECOND);
    datastore.release();
    let store = hand.result(&mut open).unwrap().unwrap();
    let now = Watch::new(&store).now();
    assert_eq!(now.get("load_duration_seconds"), 5.0);
    assert_eq!(now.get("peers{state=hearsay}"), peers.len() as f64);
    assert_eq!(
        (now.sum("events_total"), now.get("dirty_peers")),
        (0.0, 0.0)
    );

    // What had expired by then is gone, and that is no event either.
    hand.shutdown(store);
    hand.clock.advance(Duration::from_secs(100 * 24 * 60 * 60));
    let store = hand.open(datastore);
    let now = Watch::new(&store).now();
    assert_eq!((now.sum("peers"), now.sum("addresses")), (0.0, 0.0));
    assert_eq!(now.sum("events_total"), 0.0);
}
