//! How much memory a peer costs, here and in `libp2p-peer-store`, counted by the allocator.
//!
//! ```text
//! cargo run --release --example memory [-- --peers 100000]
//! ```

use std::{
    alloc::System,
    error::Error,
    num::NonZeroUsize,
    task::{Context, Waker},
};

use clap::Parser;
use libp2p::PeerId;
use libp2p_peer_store::{
    Store,
    memory_store::{self, MemoryStore},
};
use libp2p_peerstore::{Config, PeerStore};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};

// Also for `cargo bench`, so that each uses only a part of it.
#[allow(dead_code)]
#[path = "../benches/peers/mod.rs"]
mod peers;

use peers::{ADDRESSES, Peer};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[derive(Parser)]
#[command(about = "Prints the live heap bytes per peer of this store and of libp2p-peer-store")]
struct Args {
    /// How many peers each store holds.
    #[arg(long, default_value = "100000")]
    peers: NonZeroUsize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let peers = Args::parse().peers;
    println!("{peers} peers with {ADDRESSES} addresses each.");
    println!("Counted: the bytes and blocks that were asked of the allocator and not given back,");
    println!("after the store was filled, divided by the peers; the room that tables keep for");
    println!("growth is in it, what the allocator adds to each block is not. All that generated");
    println!("the peers is gone by then, and no two stores share an address.");
    println!();
    println!("{:<56}{:>12}{:>13}", "", "bytes/peer", "blocks/peer");

    measure("libp2p-peer-store, addresses", peers, || theirs(peers))?;
    measure("libp2p-peerstore, addresses", peers, || {
        ours(peers, |store, number| {
            let peer = Peer::ed25519(number);
            store.addresses().add(peer.id, peer.addresses());
        })
    })?;
    measure(
        "libp2p-peerstore, identified, key in the id (ed25519)",
        peers,
        || ours(peers, |store, n| store.learn(&Peer::ed25519(n).identify())),
    )?;
    measure(
        "libp2p-peerstore, identified, key kept (RSA, 2,048 bit)",
        peers,
        || ours(peers, |store, n| store.learn(&Peer::rsa(n).identify())),
    )?;

    println!();
    println!("identified: addresses, 20 protocols (50 distinct sets), agent and protocol version");
    println!("(200 distinct) and public key, learnt from identify's report.");
    Ok(())
}

fn ours(peers: NonZeroUsize, teach: impl Fn(&PeerStore, u64)) -> PeerStore {
    let config = Config::default().with_max_peers(peers);
    let store = PeerStore::in_memory(PeerId::random(), config);
    for number in 0..peers.get() as u64 {
        teach(&store, number);
    }
    assert_eq!(store.len(), peers.get(), "no peer was refused or evicted");
    store
}

fn theirs(peers: NonZeroUsize) -> MemoryStore {
    let config = memory_store::Config::default().set_peer_capacity(peers);
    let mut store = MemoryStore::new(config);
    let mut context = Context::from_waker(Waker::noop());
    for number in 0..peers.get() as u64 {
        let peer = Peer::ed25519(number);
        for address in peer.addresses() {
            store.add_address(&peer.id, &address);
        }
        // Its events wait for the swarm in a queue that grows: they are not the store, and are taken out.
        while store.poll(&mut context).is_ready() {}
    }
    let stored = store.record_iter().count();
    assert_eq!(stored, peers.get(), "no peer was evicted");
    store
}

/// Fills a store and prints what it holds; fails when something of that outlives the store.
fn measure<S>(
    name: &str,
    peers: NonZeroUsize,
    fill: impl FnOnce() -> S,
) -> Result<(), Box<dyn Error>> {
    let region = Region::new(&INSTRUMENTED_SYSTEM);
    let store = fill();
    let (bytes, blocks) = live(region.change());
    drop(store);
    let (left, _) = live(region.change());

    let peers = peers.get() as f64;
    println!(
        "{name:<56}{:>12.0}{:>13.1}",
        bytes as f64 / peers,
        blocks as f64 / peers
    );
    if left.abs() > 4_096 {
        return Err(format!("{left} bytes were not the store's: they are there without it").into());
    }
    Ok(())
}

/// Bytes and blocks that were taken and not given back.
fn live(stats: Stats) -> (isize, isize) {
    (
        stats.bytes_allocated as isize - stats.bytes_deallocated as isize,
        stats.allocations as isize - stats.deallocations as isize,
    )
}
