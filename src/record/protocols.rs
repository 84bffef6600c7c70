//! The rules for protocols.

use std::{collections::HashSet, sync::Arc};

use libp2p_swarm::StreamProtocol;

use super::{Books, Delta, Record, Rules};
use crate::{
    compact::same_set,
    config::Config,
    refusal::{Reasons, Refused},
};

impl Record {
    /// Replaces the protocols. Nothing happens when the set is equal, whatever the order.
    pub(crate) fn set_protocols(
        &mut self,
        mut protocols: Vec<StreamProtocol>,
        rules: Rules<'_>,
        delta: &mut Delta,
    ) {
        if same_set(self.protocols(), &protocols) {
            return;
        }
        cut_protocols(
            &mut protocols,
            rules.config.max_protocols_per_peer().get(),
            delta,
        );
        // Once more: the list may only differ in what was cut off.
        if !same_set(self.protocols(), &protocols) {
            self.put_protocols(protocols);
            delta.change(Books::PROTOCOLS);
        }
    }

    /// Replaces the protocols by a list that came over the wire, and is not checked yet.
    pub(crate) fn learn_protocols(
        &mut self,
        told: &[StreamProtocol],
        rules: Rules<'_>,
        delta: &mut Delta,
    ) {
        // What is nearly always the case costs nothing.
        if self.protocols() == told {
            return;
        }
        let protocols = check_protocols(told, rules.config, &mut delta.refused);
        self.set_protocols(protocols, rules, delta);
    }

    /// Adds protocols, as many as there is room for.
    pub(crate) fn add_protocols(
        &mut self,
        protocols: Vec<StreamProtocol>,
        rules: Rules<'_>,
        delta: &mut Delta,
    ) {
        let mut all = self.protocols().to_vec();
        for protocol in protocols {
            if all.contains(&protocol) {
                continue;
            }
            if all.len() < rules.config.max_protocols_per_peer().get() {
                all.push(protocol);
                delta.change(Books::PROTOCOLS);
            } else {
                delta.refuse(Refused::TooManyProtocols);
            }
        }
        self.put_protocols(all);
    }

    pub(crate) fn remove_protocols(&mut self, protocols: &[StreamProtocol], delta: &mut Delta) {
        let mut rest = self.protocols().to_vec();
        rest.retain(|protocol| !protocols.contains(protocol));
        if rest.len() != self.protocols().len() {
            self.put_protocols(rest);
            delta.change(Books::PROTOCOLS);
        }
    }

    pub(crate) fn clear_protocols(&mut self, delta: &mut Delta) {
        if self.protocols.take().is_some() {
            delta.change(Books::PROTOCOLS);
        }
        if let Some(foreign) = &mut self.rare.foreign {
            foreign.protocols.clear();
            delta.save |= Books::PROTOCOLS;
        }
    }

    /// Keeps a list that is checked and without duplicates.
    pub(crate) fn put_protocols(&mut self, protocols: impl Into<Arc<[StreamProtocol]>>) {
        let protocols = protocols.into();
        self.protocols = (!protocols.is_empty()).then_some(protocols);
    }
}

/// The valid, distinct protocol names among `names`, in their order; what is wrong with the others is counted.
pub(crate) fn check_protocols<I>(
    names: I,
    config: &Config,
    refused: &mut Reasons,
) -> Vec<StreamProtocol>
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    let mut seen = HashSet::new();
    let mut protocols = Vec::new();
    for name in names {
        let name = name.as_ref();
        if name.len() > config.max_protocol_len().get() {
            refused.count(Refused::ProtocolTooLong);
            continue;
        }
        let Ok(protocol) = StreamProtocol::try_from_owned(name.to_owned()) else {
            refused.count(Refused::InvalidProtocol);
            continue;
        };
        if seen.insert(protocol.clone()) {
            protocols.push(protocol);
        }
    }
    protocols
}

/// Cuts a list that is too long, so that the same names remain whatever its order: identify and the
/// connection handler report the same set in different orders, and the book must not flap between two halves.
fn cut_protocols(protocols: &mut Vec<StreamProtocol>, limit: usize, delta: &mut Delta) {
    if protocols.len() <= limit {
        return;
    }
    delta
        .refused
        .add(Refused::TooManyProtocols, protocols.len() - limit);
    let mut sorted: Vec<StreamProtocol> = protocols.clone();
    sorted.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
    let kept: HashSet<StreamProtocol> = sorted.into_iter().take(limit).collect();
    protocols.retain(|protocol| kept.contains(protocol));
}
