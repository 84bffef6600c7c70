//! Live heap per peer.

use std::{any::Any, process::exit};

use libp2p::PeerId;
use libp2p_peerstore::{Config, PeerStore};

use crate::{
    bed::{
        Size, children,
        node::{Node, other, some, take_other_events, tell, tell_other},
        peers::Peer,
        row::{Row, bytes},
    },
    blocks, live,
};

/// Makes a store of so many peers.
type Fill = fn(usize) -> Box<dyn Any>;

const THEIRS: &str = "live heap per peer, theirs: addresses";

/// Fills one kind of store and tells what it holds.
pub fn measure(size: Size, store: &str) -> Row {
    let peers = size.peers();
    let (what, target, fill): (_, _, Fill) = match store {
        "theirs" => (THEIRS, None, |peers| Box::new(theirs(peers))),
        "addresses" => ("live heap per peer: addresses", Some(250.0), |peers| {
            Box::new(told(peers))
        }),
        "addresses-dialled" => ("the same, every address dialled once", None, |peers| {
            Box::new(dialled(peers, told(peers)))
        }),
        "everything" => (
            "live heap per peer: everything, key in the id (ed25519)",
            Some(330.0),
            |peers| Box::new(met(peers)),
        ),
        "everything-dialled" => ("the same, every address dialled once", None, |peers| {
            Box::new(dialled(peers, met(peers)))
        }),
        "everything-rsa" => (
            "live heap per peer: everything, key kept (RSA, 294 bytes)",
            None,
            |peers| Box::new(met_rsa(peers)),
        ),
        unknown => {
            eprintln!("there is no store {unknown:?}");
            exit(2);
        }
    };
    let (before, blocks_before) = (live(), blocks());
    let resident = children::resident();
    let store = fill(peers);
    let each = |total: f64| total / peers as f64;
    let held = each(live() - before);
    let held_blocks = each(blocks() - blocks_before);
    let grown = each(children::resident() - resident);
    drop(store);
    // What generated the peers left nothing behind, so that all of it was the store's.
    let left = live() - before;
    assert!(left < 64.0 * 1_024.0, "{left} bytes outlived the store");
    let reached = format!(
        "{held:.0} B in {held_blocks:.2} blocks, resident {}",
        bytes(grown)
    );
    let row = Row::new(what, reached);
    match target {
        Some(most) => row.within(format!("≤ {most:.0} B"), held / most),
        None => row,
    }
}

/// Puts what theirs takes beside what ours does.
pub fn compare(rows: &mut Vec<Row>) {
    let held = |row: &Row| row.reached.split(' ').next()?.parse::<f64>().ok();
    let Some(at) = rows.iter().position(|row| row.what == THEIRS) else {
        return;
    };
    let theirs = rows.remove(at);
    if let Some(first) = rows.first_mut()
        && let (Some(ours), Some(other)) = (held(first), held(&theirs))
    {
        *first = first.clone().theirs(theirs.reached, ours / other);
    }
}

fn config(peers: usize) -> Config {
    Config::default().with_max_peers(some(peers))
}

/// Told by Kademlia: hearsay, which is counted for each address too.
fn told(peers: usize) -> PeerStore {
    let store = PeerStore::in_memory(PeerId::random(), config(peers));
    for number in 0..peers as u64 {
        let peer = Peer::keyless(number);
        tell(&store, peer.id, &peer.addresses());
    }
    assert_eq!(store.len(), peers, "nobody was refused");
    store
}

/// Dialled once, identified over that connection, and hung up.
fn met(peers: usize) -> PeerStore {
    let mut node = Node::new(config(peers));
    for number in 0..peers as u64 {
        let peer = Peer::ed25519(number);
        node.meet(&peer, peer.identify(peer.is_one_in(1_000)));
    }
    let store = node.store.clone();
    assert_eq!(store.len(), peers, "nobody was refused");
    store
}

fn met_rsa(peers: usize) -> PeerStore {
    let mut node = Node::new(config(peers));
    for number in 0..peers as u64 {
        let (peer, key) = Peer::rsa(number);
        node.meet(&peer, peer.identify_with(key, peer.is_one_in(1_000)));
    }
    node.store.clone()
}

/// Every address of every peer is dialled with success.
fn dialled(peers: usize, store: PeerStore) -> PeerStore {
    let keyless = store.contains(&Peer::keyless(0).id);
    let make = if keyless {
        Peer::keyless
    } else {
        Peer::ed25519
    };
    let mut node = Node::with(store.clone());
    for number in 0..peers as u64 {
        let peer = make(number);
        for address in peer.addresses() {
            node.dialled(peer.id, &address);
            node.closed(peer.id, &address);
        }
        node.take_events();
    }
    store
}

fn theirs(peers: usize) -> impl Any {
    let mut other = other(peers);
    for number in 0..peers as u64 {
        let peer = Peer::keyless(number);
        tell_other(&mut other, peer.id, &peer.addresses());
        take_other_events(&mut other);
    }
    assert_eq!(
        other.store().record_iter().count(),
        peers,
        "nobody was evicted"
    );
    other
}
