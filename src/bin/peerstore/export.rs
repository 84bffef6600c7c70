//! `peerstore export`: all peers as JSON Lines, without loss.
//!
//! The books of a peer lie apart in a datastore: who has addresses is written as they come, with the other books fetched by
//! key; then those who have protocols but no addresses, and so on. Nothing is kept in memory but the ids of those who have
//! metadata alone.

use std::collections::BTreeSet;

use futures::StreamExt;
use libp2p_identity::PeerId;
use libp2p_peerstore::{
    Datastore,
    tool::{self, Book, Line},
};

use crate::{
    args::Export,
    entries,
    failure::{Failure, Outcome},
    json,
    out::Out,
    progress::Progress,
    target::Target,
    words,
};

pub async fn run(args: Export, out: &mut Out) -> Result<Outcome, Failure> {
    let store = Target::named(&args.store)?;
    let datastore = store.open_to_read().await?;
    let progress = Progress::counting("exporting", "peers");
    let mut export = Exporting {
        datastore: &*datastore,
        target: &store,
        metadata: args.metadata,
        progress: &progress,
        peers: 0,
        foreign: 0,
    };
    let done = export.all(out).await;
    let (peers, foreign) = (export.peers, export.foreign);
    drop(progress);
    done?;
    if foreign > 0 {
        let entries = words::count(foreign, "foreign entry was", "foreign entries were");
        out.note(&format!(
            "{entries} left out; `peerstore check {store}` names them"
        ))?;
    }
    if out.is_terminal {
        out.note(&words::count(peers, "peer", "peers"))?;
    }
    // All is written: how a connection ends changes nothing.
    let _ = datastore.close().await;
    Ok(Outcome::Done)
}

struct Exporting<'a> {
    datastore: &'a dyn Datastore,
    target: &'a Target,
    metadata: bool,
    progress: &'a Progress,
    peers: usize,
    foreign: usize,
}

impl Exporting<'_> {
    async fn all(&mut self, out: &mut Out) -> Result<(), Failure> {
        let none: [Book; 0] = [];
        self.pass(tool::ADDRESSES, &none, out).await?;
        self.pass(tool::PROTOCOLS, &[Book::Addresses], out).await?;
        let before = [Book::Addresses, Book::Protocols];
        self.pass(tool::KEYS, &before, out).await?;
        let before = [Book::Addresses, Book::Protocols, Book::PublicKey];
        self.metadata_alone(&before, out).await
    }

    /// Writes the peers with keys that begin so, but for those with one of the books that came before.
    async fn pass(&mut self, prefix: &str, before: &[Book], out: &mut Out) -> Result<(), Failure> {
        let datastore = self.datastore;
        let mut entries = datastore.query(prefix);
        while let Some(entry) = entries.next().await {
            let (key, _) = entry.map_err(|error| self.failed(prefix, &error))?;
            match tool::parse_key(&key) {
                None => self.foreign += 1,
                Some((peer, _)) if self.has_any(&peer, before).await? => {}
                Some((peer, _)) => self.peer(&peer, out).await?,
            }
        }
        Ok(())
    }

    async fn metadata_alone(&mut self, before: &[Book], out: &mut Out) -> Result<(), Failure> {
        let mut alone: BTreeSet<PeerId> = BTreeSet::new();
        let mut last = None;
        let datastore = self.datastore;
        let mut entries = datastore.query(tool::METADATA);
        while let Some(entry) = entries.next().await {
            let (key, _) = entry.map_err(|error| self.failed(tool::METADATA, &error))?;
            let Some((peer, _)) = tool::parse_key(&key) else {
                self.foreign += 1;
                continue;
            };
            // Most datastores tell the values of a peer one after the other.
            if last == Some(peer) {
                continue;
            }
            last = Some(peer);
            if self.metadata && !alone.contains(&peer) && !self.has_any(&peer, before).await? {
                alone.insert(peer);
            }
        }
        for peer in alone {
            self.peer(&peer, out).await?;
        }
        Ok(())
    }

    async fn has_any(&self, peer: &PeerId, books: &[Book]) -> Result<bool, Failure> {
        for book in books {
            let key = tool::key_of(peer, book);
            let has = self.datastore.has(&key).await;
            if has.map_err(|error| self.failed(&key, &error))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn peer(&mut self, peer: &PeerId, out: &mut Out) -> Result<(), Failure> {
        let values = entries::values(self.datastore, self.target, peer, self.metadata).await?;
        let text = serde_json::to_string(&Line::new(peer, &values));
        let text = text.map_err(|error| {
            Failure::new(format!("cannot write the peer `{peer}`")).because(&error)
        })?;
        out.line(&json::ascii(&text))?;
        self.peers += 1;
        self.progress.set(self.peers as u64);
        Ok(())
    }

    fn failed(&self, key: &str, error: &libp2p_peerstore::DatastoreError) -> Failure {
        Failure::of_store(
            format!("cannot read `{}`", tool::escaped(key)),
            self.target,
            error,
        )
    }
}
