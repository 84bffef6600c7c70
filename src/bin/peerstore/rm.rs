//! `peerstore rm`: deletes peers.

use std::io::{self, IsTerminal};

use futures::StreamExt;
use libp2p_identity::PeerId;
use libp2p_peerstore::{
    Batch, Datastore,
    tool::{self, Book},
};
use serde_json::json;

use crate::{
    args::Rm,
    entries,
    failure::{Failure, Outcome},
    out::Out,
    target::{Missing, Target},
    words,
};

/// Peers in one commit.
const PEERS: usize = 256;

pub async fn run(args: Rm, out: &mut Out) -> Result<Outcome, Failure> {
    let store = Target::named(&args.store)?;
    let datastore = store.open_to_write(Missing::IsAnError).await?;
    let done = remove(&args, &store, &*datastore, out).await;
    let closed = datastore.close().await;
    let outcome = done?;
    closed.map_err(|error| Failure::of_store("cannot close the store", &store, &error))?;
    Ok(outcome)
}

async fn remove(
    args: &Rm,
    store: &Target,
    datastore: &dyn Datastore,
    out: &mut Out,
) -> Result<Outcome, Failure> {
    let peers = entries::resolve(datastore, store, &args.peers).await?;
    let mut found = Vec::new();
    for peer in &peers {
        let keys = keys(datastore, store, peer).await?;
        if keys.is_empty() {
            // Nothing is deleted when one of them is a typing error.
            return Err(
                Failure::no_peer(format!("the peer `{peer}` is not in `{store}`"))
                    .help("nothing was deleted; `peerstore ls --ids` lists the ids"),
            );
        }
        found.push((*peer, keys));
    }
    if !args.yes && io::stdin().is_terminal() && !confirmed(store, &peers)? {
        out.note("nothing was deleted")?;
        return Ok(Outcome::Done);
    }
    for peers in found.chunks(PEERS) {
        delete(store, datastore, peers, out).await?;
    }
    Ok(Outcome::Done)
}

/// Deletes some peers in one commit.
async fn delete(
    store: &Target,
    datastore: &dyn Datastore,
    peers: &[(PeerId, Vec<String>)],
    out: &mut Out,
) -> Result<(), Failure> {
    let mut batch = Batch::default();
    for key in peers.iter().flat_map(|(_, keys)| keys) {
        batch.delete(key);
    }
    let committed = datastore.commit(batch).await;
    committed.map_err(|error| {
        let first = peers.first().map(|(peer, _)| peer.to_string());
        let count = words::count(peers.len(), "peer", "peers");
        let what = format!(
            "cannot delete {count}, from `{}` on",
            first.unwrap_or_default()
        );
        Failure::of_store(what, store, &error)
    })?;
    for (peer, keys) in peers {
        let entries = keys.len();
        let told = if out.json {
            out.json(&json!({ "id": peer.to_string(), "entries": entries }))
        } else {
            let entries = words::count(entries, "entry", "entries");
            out.line(&format!("deleted {peer} ({entries})"))
        };
        Failure::unless_quiet(told)?;
    }
    Ok(())
}

/// All keys of a peer, whatever stands under them.
async fn keys(
    datastore: &dyn Datastore,
    target: &Target,
    peer: &PeerId,
) -> Result<Vec<String>, Failure> {
    let mut keys = Vec::new();
    for book in [Book::Addresses, Book::Protocols, Book::PublicKey] {
        let key = tool::key_of(peer, &book);
        let has = datastore.has(&key).await;
        let has =
            has.map_err(|error| Failure::of_store(format!("cannot read `{key}`"), target, &error))?;
        if has {
            keys.push(key);
        }
    }
    let prefix = tool::metadata_prefix(peer);
    let mut metadata = datastore.query(&prefix);
    while let Some(entry) = metadata.next().await {
        let (key, _) = entry.map_err(|error| {
            Failure::of_store(
                format!("cannot read the keys under `{prefix}`"),
                target,
                &error,
            )
        })?;
        keys.push(key);
    }
    Ok(keys)
}

fn confirmed(store: &Target, peers: &[PeerId]) -> Result<bool, Failure> {
    const SHOWN: usize = 10;
    for peer in peers.iter().take(SHOWN) {
        eprintln!("  {peer}");
    }
    if peers.len() > SHOWN {
        eprintln!("  and {} more", peers.len() - SHOWN);
    }
    let what = words::count(peers.len(), "peer", "peers");
    eprint!("Delete {what} from {store}? [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|error| {
        Failure::new("cannot read the answer")
            .because(&error)
            .help("--yes does not ask")
    })?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
