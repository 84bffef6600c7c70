//! Shares of a full store over restarts.

use futures::{StreamExt, executor::block_on};
use libp2p_peerstore::{Datastore, MemoryDatastore};
use libp2p_swarm::StreamProtocol;

use super::*;

impl Node {
    /// A node that goes on with what an earlier run left.
    fn open(local: PeerId, memory: &MemoryDatastore) -> Self {
        let config = Config::default().with_clock(ManualClock::default());
        let config = config.with_max_peers(size(CAPACITY));
        let store = PeerStore::open(local, memory.clone(), config);
        Self::of(block_on(store).unwrap())
    }
}

/// How a peer comes, and what it then tells of itself.
type Comes = dyn Fn(&mut Node, PeerId, u32) -> ConnectedPoint;

#[test]
fn after_a_restart_peers_are_in_the_share_of_where_they_came_from() {
    let relay = PeerId::random();
    let through = at("/ip4/9.9.9.9/tcp/1")
        .with(Protocol::P2p(relay))
        .with(Protocol::P2pCircuit);
    let by_address = |node: &mut Node, peer: PeerId, n: u32| {
        let endpoint = listener(&at(&format!(
            "/ip4/70.1.{}.{}/tcp/1",
            n / 250 % 250,
            n % 250
        )));
        node.established(peer, &endpoint);
        node.store
            .learned(Source::Identify)
            .replace(peer, &[spread(n, 15_000)]);
        endpoint
    };
    let by_relay = move |node: &mut Node, peer: PeerId, n: u32| {
        let endpoint = ConnectedPoint::Listener {
            local_addr: through.clone(),
            send_back_addr: Protocol::P2p(peer).into(),
        };
        node.established(peer, &endpoint);
        node.store
            .learned(Source::Identify)
            .replace(peer, &[spread(n, 15_000)]);
        endpoint
    };
    let without_address = |node: &mut Node, peer: PeerId, n: u32| {
        let endpoint = listener(&at(&format!("/ip6/2a01:4f8:{n:x}::1/tcp/1")));
        node.established(peer, &endpoint);
        node.store
            .learned(Source::Identify)
            .protocols(peer, &[StreamProtocol::new("/x")]);
        endpoint
    };
    let ways: [(&str, &Comes); 3] = [
        ("address", &by_address),
        ("relay", &by_relay),
        ("no address", &without_address),
    ];
    for (way, comes) in ways {
        let (local, memory) = (PeerId::random(), MemoryDatastore::default());
        for run in 1..=3 {
            let mut node = Node::open(local, &memory);
            // More than there is room for, so that shares bind.
            for n in 0..2_000 {
                let peer = PeerId::random();
                let endpoint = comes(&mut node, peer, n);
                node.closed(peer, &endpoint);
            }
            let held = node.store.len();
            assert!(
                (1..=CAPACITY / 32).contains(&held),
                "{way}, run {run}: {held}"
            );
            drop(node.behaviour);
            block_on(node.store.shutdown()).unwrap();
        }
    }
}

#[test]
fn a_peer_that_moved_is_in_its_new_share_after_a_restart_and_its_address_goes_nowhere() {
    let (local, memory) = (PeerId::random(), MemoryDatastore::default());
    let peer = PeerId::random();
    let told = ip(60, 1);
    for from in ["/ip4/70.1.200.201/tcp/5", "/ip4/80.1.202.203/tcp/5"] {
        let mut node = Node::open(local, &memory);
        node.identify(peer, &at(from), std::slice::from_ref(&told), false);
        drop(node.behaviour);
        block_on(node.store.shutdown()).unwrap();
    }
    let values: Vec<(String, Vec<u8>)> = block_on(async {
        let mut values = Vec::new();
        let mut entries = memory.query("/");
        while let Some(entry) = entries.next().await {
            values.push(entry.unwrap());
        }
        values
    });
    let [(key, value)] = &values[..] else {
        panic!("{values:?}");
    };
    assert!(key.starts_with("/peers/addrs/"));
    // Field 22: the /16 and its kind, and nothing of the rest.
    let mut field = vec![];
    prost::encoding::uint64::encode(22, &(1 << 56 | 80 << 9 | 1 << 1 | 1), &mut field);
    assert!(value.windows(field.len()).any(|part| part == field));
    assert!(
        !value
            .windows(2)
            .any(|part| part == [202, 203] || part == [200, 201])
    );
}
