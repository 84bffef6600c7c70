//! Migrate from `libp2p-peer-store`: what its `MemoryStore` holds goes into a store that survives restarts.
//!
//! ```text
//! cargo run --example from_memory_store
//! ```
//!
//! You will see two peers move, with their addresses and what the application kept beside them. The crate documentation
//! (`guide`) says which call of the one is which call of the other.

use std::{error::Error, process::ExitCode};

use libp2p::PeerId;
use libp2p_peer_store::memory_store::{Config as OldConfig, MemoryStore};
use libp2p_peerstore::{Config, PeerStore, Source};

#[allow(dead_code)]
#[path = "shared/text.rs"]
mod text;

use text::{chain, plain_list};

/// What this application kept with each peer.
struct Note(String);

/// Takes everything over. Addresses come as what they are, the word of somebody: none is proven until it is dialled.
fn take_over(old: &MemoryStore<Note>, new: &PeerStore) -> Result<usize, Box<dyn Error>> {
    let mut taken = 0;
    for (peer, record) in old.record_iter() {
        // The old store holds the most recent address first; the new one wants the most recent last.
        let mut addresses: Vec<_> = record.addresses().cloned().collect();
        addresses.reverse();
        // `addresses().add` says that the application vouches for them; this, that they are hearsay.
        new.learned(Source::Discovery).add(*peer, &addresses);
        if let Some(Note(note)) = record.get_custom_data() {
            new.metadata().set(*peer, "my-app/note", note)?;
        }
        taken += 1;
    }
    Ok(taken)
}

fn main() -> ExitCode {
    match story() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("from_memory_store: failed: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn story() -> Result<(), Box<dyn Error>> {
    let mut old = MemoryStore::new(OldConfig::default());
    let (friend, other) = (PeerId::random(), PeerId::random());
    // At public addresses: private ones are only believed of peers in the same network.
    old.add_address(&friend, &"/ip4/8.8.8.8/tcp/4001".parse()?);
    old.add_address(&friend, &"/ip4/8.8.4.4/udp/4001/quic-v1".parse()?);
    old.insert_custom_data(&friend, Note("owes me a coffee".to_owned()));
    old.add_address(&other, &"/ip4/1.1.1.1/tcp/4001".parse()?);

    // In your application `PeerStore::open` with a datastore.
    let new = PeerStore::in_memory(PeerId::random(), Config::default());
    let taken = take_over(&old, &new)?;

    for peer in new.query() {
        let addresses = peer.addresses.iter().map(|info| &info.address);
        println!("{}: {}", peer.id, plain_list(addresses));
    }
    let note = new.metadata().get_value(&friend, "my-app/note");
    let note = String::from_utf8(note.unwrap_or_default())?;
    println!("a note on {friend}: {note}");
    println!("from_memory_store: ok, {taken} peers taken over");
    Ok(())
}
