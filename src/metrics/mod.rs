//! What a store tells Prometheus (feature `metrics`).
//!
//! Nothing is kept for it but numbers: those that change with the state stand beside it, under the same lock
//! ([`Counts`], [`Standings`], [`Tally`]), those of dials and commits outside of it ([`Meter`]). A scrape copies them at
//! once, so that its cost does not grow with the store. No label ever holds what a stranger chose.

mod counts;
mod dials;
mod encode;
mod meter;
mod names;

use std::sync::{Arc, Weak};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Registry};

pub(crate) use counts::{Counts, Happened, Standings, Tally};
pub(crate) use dials::Offered;
pub(crate) use meter::Meter;

use crate::{inner::Inner, store::PeerStore};

impl PeerStore {
    /// Registers everything that the store can tell Prometheus (feature `metrics`). Names have no prefix of their own:
    /// give one with the registry, and a label if several stores share it. The dashboard `docs/grafana.json` takes
    /// `peerstore` for the prefix unless it is told another one.
    ///
    /// ```
    /// use libp2p_identity::PeerId;
    /// use libp2p_peerstore::{Config, PeerStore};
    /// use prometheus_client::{encoding::text::encode, registry::Registry};
    ///
    /// let store = PeerStore::in_memory(PeerId::random(), Config::default());
    /// let mut registry = Registry::default();
    /// store.register_metrics(registry.sub_registry_with_prefix("peerstore"));
    ///
    /// let mut text = String::new();
    /// encode(&mut text, &registry)?;
    /// assert!(text.contains("peerstore_peers{state=\"proven\"} 0\n"));
    /// # Ok::<_, std::fmt::Error>(())
    /// ```
    ///
    /// Counters begin with the store, not with this call. A scrape takes the store's lock for about as long as a write
    /// does, however many peers there are, and collects what has expired first, as [`PeerStore::len`] does. Any number of
    /// registries can have them; none of them keeps the store alive, and a store that is gone tells nothing more.
    /// `docs/operating.md` lists the metrics.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let store = Arc::downgrade(self.inner());
        registry.register_collector(Box::new(StoreMetrics { store }));
    }
}

/// The metrics of one store, in one registry.
#[derive(Debug)]
struct StoreMetrics {
    store: Weak<Inner>,
}

impl Collector for StoreMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self.store.upgrade() {
            Some(store) => encode::encode(&store, encoder),
            None => Ok(()),
        }
    }
}
