//! Whether a peer is among those that are asked for, seen where its record lies.

use std::time::Duration;

use libp2p_swarm::StreamProtocol;

use crate::{address::protocols, compact::Known, filter::is_public, record::Rules, view::View};

/// What a peer must meet, all of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Conditions {
    /// At least one protocol of each list.
    pub(super) speaks: Vec<Vec<String>>,
    pub(super) connected: Option<bool>,
    pub(super) seen_within: Option<Duration>,
    pub(super) min_confidence: Option<f64>,
    pub(super) public: bool,
    pub(super) transports: Vec<String>,
    pub(super) tags: Vec<String>,
    pub(super) agents: Vec<Vec<u8>>,
}

impl Conditions {
    /// What is cheap to know is asked first.
    pub(super) fn hold(&self, view: &View<'_>, rules: Rules<'_>) -> bool {
        self.connected
            .is_none_or(|connected| connected == view.connected())
            && self.is_software(view)
            && self.is_spoken(view.protocols())
            && self.is_tagged(view, rules)
            && !view.has_expired(rules)
            && self.seen_within.is_none_or(|within| {
                let seen = view.last_seen(rules);
                rules.now.since(seen) <= within
            })
            && self.is_reached(view, rules)
            && self.min_confidence.is_none_or(|min| {
                let best = view.confidence(rules);
                best.is_some_and(|best| best >= min)
            })
    }

    fn is_software(&self, view: &View<'_>) -> bool {
        self.agents.is_empty()
            || view
                .agent()
                .is_some_and(|agent| self.agents.iter().all(|prefix| agent.starts_with(prefix)))
    }

    fn is_spoken(&self, spoken: &[StreamProtocol]) -> bool {
        let speaks = |name: &String| spoken.iter().any(|other| other.as_ref() == name.as_str());
        self.speaks.iter().all(|any| any.iter().any(speaks))
    }

    fn is_tagged(&self, view: &View<'_>, rules: Rules<'_>) -> bool {
        self.tags.iter().all(|name| {
            let tags = view.rare().map(|rare| &rare.tags);
            tags.is_some_and(|tags| tags.holds(name, rules.now))
        })
    }

    fn is_reached(&self, view: &View<'_>, rules: Rules<'_>) -> bool {
        let has = |is_it: &dyn Fn(Known<'_>) -> bool| view.alive(rules).any(is_it);
        (!self.public || has(&|known| is_public(known.address)))
            && self.transports.iter().all(|name| {
                has(&|known| protocols(known.address).any(|protocol| protocol.tag() == name))
            })
    }
}
