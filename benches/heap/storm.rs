//! What must leave no trace: an identify that repeats what is known, and a storm of events that nobody takes.

use futures::executor::block_on;
use libp2p::PeerId;
use libp2p_peerstore::{Config, Event, MemoryDatastore, PeerStore, Subscription};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region};

use crate::{
    bed::{
        Size,
        node::{Node, some},
        peers::Peer,
        row::{Row, bytes},
    },
    live,
};

/// Changes of the storm.
const CHANGES: usize = 100_000;

/// Counts what a repeated identify, its echoes included, allocates, marks as dirty, and tells.
pub fn repeat(size: Size) -> Vec<Row> {
    let peers: Vec<Peer> = (0..size.few() as u64).map(Peer::ed25519).collect();
    // The moments of commits are ours to choose.
    let never = std::time::Duration::from_secs(1 << 32);
    let config = Config::default()
        .with_commit_threshold(some(usize::MAX))
        .with_max_commit_delay(never);
    let open = PeerStore::open(PeerId::random(), MemoryDatastore::default(), config);
    let mut node = Node::with(block_on(open).expect("an empty datastore"));
    let report = |peer: &Peer| peer.identify(peer.is_one_in(10));
    for peer in &peers {
        node.meet(peer, report(peer));
    }
    let (mut allocations, mut dirty, mut events) = (0, 0, 0);
    for peer in &peers {
        // Connected anew, and identify has said it once on this connection, as at each beginning of one.
        let address = &peer.addresses()[0];
        node.dialled(peer.id, address);
        node.receive(report(peer));
        node.take_events();
        node.said.clear();
        node.identify.received(report(peer));
        block_on(node.store.flush()).expect("a datastore in memory");
        let region = Region::new(&INSTRUMENTED_SYSTEM);
        node.hear();
        let change = region.change();
        allocations += change.allocations + change.reallocations;
        dirty += node.store.unsaved();
        events += node.take_events();
        node.said.clear();
        node.closed(peer.id, address);
    }
    let what = "a repeated identify with its echoes: allocations, dirty, events";
    let each = |count: usize| format!("{:.2}", count as f64 / peers.len() as f64);
    let reached = format!("{}, {}, {}", each(allocations), each(dirty), each(events));
    vec![Row::new(what, reached).target("0, 0, 0", allocations + dirty + events == 0)]
}

/// Within one poll much changes: for few peers again and again, and for many peers once each.
pub fn storm(size: Size) -> Vec<Row> {
    let changes = if size == Size::Smoke { 5_000 } else { CHANGES };
    [("few peers", changes / 200), ("many peers", changes / 2)]
        .map(|(among, peers)| one_storm(changes, among, peers))
        .into()
}

fn one_storm(changes: usize, among: &str, peers: usize) -> Row {
    let ids: Vec<PeerId> = (0..peers as u64).map(|n| Peer::keyless(n).id).collect();
    let config = Config::default().with_max_peers(some(peers));
    let capacity = config.event_capacity().get();
    let store = PeerStore::in_memory(PeerId::random(), config);
    // In the end each peer has what it had in the beginning.
    let set = |turn: usize| {
        for id in &ids {
            let value = if turn.is_multiple_of(2) {
                b"even".to_vec()
            } else {
                b"odd.".to_vec()
            };
            store
                .metadata()
                .set(*id, "state", value)
                .expect("a short value");
        }
    };
    let turns = changes / peers;
    set(turns);
    let mut subscription = store.subscribe();
    // A queue keeps the room that it has once needed: it is there before the storm, too.
    set(turns + 1);
    take(&mut subscription);
    set(turns);
    take(&mut subscription);
    let before = live();
    for turn in 1..=turns {
        set(turn);
    }
    let waiting = live() - before;
    let (taken, missed) = take(&mut subscription);
    let after = live() - before;
    // While there is room for the peers, events of the same one were made one, and nothing of what is true now is lost.
    let few = peers <= capacity / 2;
    let told = taken <= capacity + 1 && few == (missed == 0);
    let reached = format!(
        "{taken} events, told of {missed} missed; {} waited, {} stayed",
        bytes(waiting),
        bytes(after)
    );
    let what = format!("{} changes of {among} within one poll", turns * peers);
    let target = match few {
        true => format!("≤ {capacity} events, 0 missed, nothing stays"),
        false => format!("≤ {} events, told, nothing stays", capacity + 1),
    };
    Row::new(what, reached).target(target, told && after < 4_096.0)
}

/// Takes all that waits; returns how many events it was, and how many were told to be lost.
fn take(subscription: &mut Subscription) -> (usize, u64) {
    let (mut taken, mut missed) = (0, 0);
    while let Some(event) = subscription.try_next() {
        taken += 1;
        if let Event::Lagged(lost) = event {
            missed += lost;
        }
    }
    (taken, missed)
}
