//! Without the feature `metrics` nothing is counted, and nothing of this costs anything.

use std::time::Duration;

use libp2p_core::{Endpoint, Multiaddr};
use libp2p_swarm::{ConnectionId, DialFailure, behaviour::ConnectionEstablished};

use crate::{datastore::Batch, event::Cause, history::History, record::Books};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Happened {
    PeerAdded,
    PeerRemoved,
}

#[derive(Debug, Default)]
pub(crate) struct Counts(());

impl Counts {
    pub(crate) fn count(&mut self, _: Happened, _: Cause) {}

    pub(crate) fn changed(&mut self, _: Books, _: usize, _: Cause) {}
}

#[derive(Debug, Default)]
pub(crate) struct Standings(());

impl Standings {
    pub(crate) fn join(&mut self, _: impl Iterator<Item = History>) {}

    pub(crate) fn leave(&mut self, _: impl Iterator<Item = History>) {}
}

#[derive(Debug, Default)]
pub(crate) struct Tally(());

impl Tally {
    pub(crate) fn add(&mut self, _: u64) {}
}

#[derive(Debug, Default)]
pub(crate) struct Offered(());

impl Offered {
    pub(crate) fn begun(&mut self, _: ConnectionId, _: Endpoint, _: &[Multiaddr]) {}

    pub(crate) fn established(&mut self, _: &ConnectionEstablished<'_>, _: &Meter) {}

    pub(crate) fn failed(&mut self, _: &DialFailure<'_>, _: &Meter) {}
}

#[derive(Debug, Default)]
pub(crate) struct Meter(());

impl Meter {
    pub(crate) fn loaded(&self, _: Duration) {}

    pub(crate) fn batch(&self, _: &Batch) {}

    pub(crate) fn commit(&self, _: Result<usize, ()>, _: Duration) {}
}
