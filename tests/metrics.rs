//! What a store tells Prometheus: every metric moves when that happens which it names, and only then.

// `[address.clone()]` reads better than `std::slice::from_ref(&address)`.
#![allow(clippy::cloned_ref_to_slice_refs, clippy::unwrap_used)]

#[path = "metrics/dials.rs"]
mod dials;
#[path = "metrics/documents.rs"]
mod documents;
#[path = "metrics/numbers.rs"]
mod numbers;
#[path = "support/openmetrics.rs"]
mod openmetrics;
#[path = "metrics/saving.rs"]
mod saving;
#[path = "support/datastore.rs"]
mod support;
#[path = "support/swarm.rs"]
mod swarm;
// Its own tests use the rest of it.
#[allow(dead_code)]
#[path = "persistence/swarm.rs"]
mod told;

use libp2p_peerstore::{Config, Datastore, PeerStore};
use prometheus_client::registry::Registry;

use openmetrics::{Scrape, moved};
use support::Hand;

/// A registry, and what it told last.
struct Watch {
    registry: Registry,
    last: Scrape,
}

impl Watch {
    fn new(store: &PeerStore) -> Self {
        let mut registry = Registry::default();
        store.register_metrics(&mut registry);
        let last = Scrape::of(&registry);
        Self { registry, last }
    }

    /// What has moved since the last look.
    fn moved(&mut self) -> Vec<String> {
        let now = Scrape::of(&self.registry);
        let moved = moved(&self.last, &now);
        self.last = now;
        moved
    }

    fn now(&self) -> Scrape {
        Scrape::of(&self.registry)
    }
}

/// A store on a clock and an executor in the test's hand, and its metrics.
struct Bed {
    hand: Hand,
    store: PeerStore,
    watch: Watch,
}

impl Bed {
    fn new(datastore: impl Datastore, configure: impl FnOnce(Config) -> Config) -> Self {
        let mut hand = Hand::default();
        let store = hand.open_with(datastore, configure);
        let watch = Watch::new(&store);
        Self { hand, store, watch }
    }

    /// A store that saves nothing: what is dirty and saved does not move.
    fn in_memory(configure: impl FnOnce(Config) -> Config) -> Self {
        let hand = Hand::default();
        let config = configure(hand.config());
        let store = PeerStore::in_memory(libp2p::PeerId::random(), config);
        let watch = Watch::new(&store);
        Self { hand, store, watch }
    }

    fn moved(&mut self) -> Vec<String> {
        self.watch.moved()
    }
}
