//! Media that are full, read-only, gone, replaced, damaged: no panic, an error that says what and where, and memory stays
//! complete; when the medium recovers, the next commit saves everything.
//!
//! A second process on the file is in `redb.rs`, a sync that fails once in `crash/power.rs`.

#![allow(clippy::unwrap_used)]

#[path = "support/disk.rs"]
mod disk;
#[path = "support/skip.rs"]
mod skip;
#[path = "support/datastore.rs"]
mod support;

#[path = "bad_media/child.rs"]
mod child;
#[path = "bad_media/damage.rs"]
mod damage;
#[path = "bad_media/file.rs"]
mod file;
#[cfg(feature = "fs")]
#[path = "bad_media/folder.rs"]
mod folder;
#[path = "bad_media/storage.rs"]
mod storage;

use std::{collections::BTreeMap, error::Error, path::Path, time::Duration};

use futures::executor::block_on;
use libp2p::PeerId;
use libp2p_peerstore::{
    Config, Datastore, Event, FlushError, ManualClock, PeerStore, RedbDatastore, Subscription,
};

use support::{Hand, addr};

/// A store whose medium goes bad and recovers.
struct Patient {
    hand: Hand,
    store: PeerStore,
    events: Subscription,
}

/// What can be compared of all peers.
fn contents(store: &PeerStore) -> BTreeMap<PeerId, impl PartialEq + std::fmt::Debug + use<>> {
    let peers = store.peers().into_iter();
    peers
        .map(|peer| {
            let mut addresses: Vec<_> = peer.multiaddrs().cloned().collect();
            addresses.sort_by_key(ToString::to_string);
            (
                peer.id,
                (addresses, peer.protocols.clone(), peer.metadata.clone()),
            )
        })
        .collect()
}

fn learn(store: &PeerStore) -> PeerId {
    let peer = PeerId::random();
    store.addresses().add(peer, [addr(1), addr(2)]);
    store.protocols().add(peer, ["/a"]);
    store.metadata().set(peer, "note", vec![7; 300]).unwrap();
    peer
}

impl Patient {
    /// A store with peers that are on the medium.
    fn new(datastore: impl Datastore) -> Self {
        let mut hand = Hand::default();
        let store = hand.open(datastore);
        (0..60).for_each(|_| _ = learn(&store));
        hand.flush(&store);
        let mut events = store.subscribe();
        while events.try_next().is_some() {}
        Self {
            hand,
            store,
            events,
        }
    }

    fn on(path: &Path) -> Self {
        Self::new(RedbDatastore::open(path).unwrap())
    }

    /// Changes of every kind: new peers, changed ones, deleted ones.
    fn live(&mut self) {
        let ids = self.store.peer_ids();
        for peer in &ids[..5] {
            self.store.delete(peer);
        }
        for peer in &ids[5..10] {
            self.store.addresses().set(*peer, [addr(9)]);
            self.store.metadata().delete_value(peer, "note");
        }
        (0..20).for_each(|_| _ = learn(&self.store));
    }

    /// A flush fails and says why, with all causes; an event says the same, and how many peers are unsaved.
    fn flush_fails(&mut self) -> String {
        let Err(FlushError::Failed { unsaved, source }) = self.hand.block(self.store.flush())
        else {
            panic!("the flush did not fail");
        };
        assert!(unsaved >= 1 && unsaved == self.store.unsaved());
        let mut said = source.to_string();
        let mut cause = source.source();
        while let Some(error) = cause {
            said += &format!(": {error}");
            cause = error.source();
        }
        let mut told = false;
        while let Some(event) = self.events.try_next() {
            if let Event::CommitFailed { error, .. } = event {
                told |= error.to_string() == source.to_string();
            }
        }
        assert!(told, "no event says: {said}");
        said
    }

    /// The medium is well again: the engine saves everything by itself.
    fn recovers(&mut self) {
        for _ in 0..6 {
            self.hand.advance(Duration::from_secs(60));
        }
        let unsaved = self.store.unsaved();
        assert_eq!(unsaved, 0, "{:?}", self.hand.block(self.store.flush()));
        self.hand.flush(&self.store);
    }

    /// Whether another process would find exactly what is in memory; `more` peers may be there beside it.
    fn assert_saved<D: Datastore>(self, datastore: impl FnOnce() -> D, more: usize) {
        let (mut hand, expected) = (self.hand, contents(&self.store));
        hand.shutdown(self.store);
        let clock = ManualClock::default();
        clock.advance(Duration::from_secs(30 * 60));
        let config = Config::default().with_clock(clock);
        let store = block_on(PeerStore::open(PeerId::random(), datastore(), config)).unwrap();
        let report = store.load_report();
        assert_eq!((report.undecodable, report.foreign), (0, 0), "{report:?}");
        let mut found = contents(&store);
        assert_eq!(found.len(), expected.len() + more);
        found.retain(|peer, _| expected.contains_key(peer));
        assert!(found == expected, "{found:#?}\n{expected:#?}");
        block_on(store.shutdown()).unwrap();
    }
}
