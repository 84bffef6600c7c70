//! What is heard most of all: what is known already. It is recognised where the record lies, without a copy of anything.

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
#[cfg(feature = "identify")]
use {libp2p_identity::PublicKey, libp2p_swarm::StreamProtocol};

use super::{By, Now, State, Written};
#[cfg(feature = "identify")]
use crate::{
    address::Standing,
    compact::{Known, same_set},
    record::is_key_of,
};
use crate::{
    address::{Sources, bare_bytes},
    event::Cause,
    history::{Epoch, Flags, History},
    record::Rules,
    refusal::Refused,
    view::View,
};

/// Addresses of one peer that are compared in place; of more the rules make a list.
const MAX_COMPARED: usize = u64::BITS as usize;

/// All that a peer tells of itself by identify.
#[cfg(feature = "identify")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identified<'a> {
    pub(crate) addresses: &'a [Multiaddr],
    pub(crate) protocols: &'a [StreamProtocol],
    pub(crate) public_key: &'a PublicKey,
    pub(crate) agent: &'a str,
    pub(crate) version: &'a str,
}

impl State {
    /// Somebody told of addresses of a peer: they are added, unless `source` has told all of them before.
    pub(crate) fn hear_addresses(
        &mut self,
        peer: PeerId,
        told: &[Multiaddr],
        filtered: usize,
        (source, cause): (Sources, Cause),
        now: Now,
    ) -> Written {
        let slot = self.table.find(&peer);
        let known = slot.filter(|_| filtered == 0);
        if let Some(slot) = known
            && let Some(refused) = self.repeats_addresses(slot, &peer, told, source, now)
        {
            return Written::refused_only(Refused::OutOfScope, refused);
        }
        self.edit_at(slot, peer, By::Swarm, cause, now, |record, rules, delta| {
            delta.refused.add(Refused::Filtered, filtered);
            record.add_addresses(told, source, rules, delta);
        })
    }

    /// Whether `source` told these addresses of the peer before, so that nothing changes but that it was heard of. Returns how
    /// many were refused as before; `None` when it is not a repeat.
    fn repeats_addresses(
        &mut self,
        slot: u32,
        peer: &PeerId,
        told: &[Multiaddr],
        source: Sources,
        now: Now,
    ) -> Option<usize> {
        self.is_settled(slot, peer, now).then_some(())?;
        let (met, refused) = compare(&self.table.view(slot)?, told, source, self.rules(now))?;
        if met == 0 {
            return None;
        }
        self.refusals.add(Refused::OutOfScope, refused);
        if let Some(packed) = self.table.packed_mut(slot) {
            packed.set_heard(now.wall);
        }
        Some(refused)
    }

    /// As [`State::repeats_addresses`], for all that identify tells.
    #[cfg(feature = "identify")]
    pub(crate) fn repeats_identify(
        &mut self,
        peer: &PeerId,
        told: &Identified<'_>,
        source: Sources,
        now: Now,
    ) -> Option<usize> {
        let slot = self.table.find(peer)?;
        self.is_settled(slot, peer, now).then_some(())?;
        let view = self.table.view(slot)?;
        let site = self.links.source(peer);
        let same = (site.is_none() || site == view.packed().source())
            && view
                .agent()
                .is_some_and(|text| **text == *told.agent.as_bytes())
            && view
                .version()
                .is_some_and(|text| **text == *told.version.as_bytes())
            && same_set(view.protocols(), told.protocols)
            && is_key_of(told.public_key, view.id(), view.rare());
        if !same {
            return None;
        }
        let rules = self.rules(now);
        let (met, refused) = compare(&view, told.addresses, source, rules)?;
        if !is_complete(&view, met, source, rules) {
            return None;
        }
        self.refusals.add(Refused::OutOfScope, refused);
        let until = now.wall.after(self.config.hearsay_lifetime());
        if let Some(packed) = self.table.packed_mut(slot) {
            packed.set_heard(now.wall);
        }
        // What was dropped before is not in the list of today either: it stays dropped for as long again.
        if let Some(rare) = self.table.rare_mut(slot) {
            rare.keep_dropped(now.wall, |_| Some(until));
        }
        Some(refused)
    }

    /// Whether the peer in a slot may be heard of, and nothing of it has expired.
    fn is_settled(&mut self, slot: u32, peer: &PeerId, now: Now) -> bool {
        self.gathering
            && self.admit(peer, By::Swarm, now).is_ok()
            && !self.table.due(slot).has_come(now.wall)
    }
}

/// Compares what `source` tells with what is known: which addresses it names, by their places, and how many are refused.
/// `None` when anything of it is news.
fn compare(
    view: &View<'_>,
    told: &[Multiaddr],
    source: Sources,
    rules: Rules<'_>,
) -> Option<(u64, usize)> {
    let (id, epoch) = (view.id(), view.epoch());
    let max_len = rules.config.address_len_limit();
    if view.packed().count() > MAX_COMPARED || !rules.own.is_empty() {
        return None;
    }
    let (mut met, mut refused) = (0_u64, 0);
    for address in told {
        let address = bare_bytes(&id, address.as_ref(), max_len).ok()??;
        let mut known = view.known().enumerate();
        match known.find(|(_, known)| known.address == address) {
            Some((at, known)) if is_fresh(&known.history, source, epoch, rules) => met |= 1 << at,
            None if rules.is_out_of_scope(&id, address, source) => refused += 1,
            _ => return None,
        }
    }
    Some((met, refused))
}

/// Whether nothing goes when these addresses are all that `source` tells. A list of which nothing is fit to be stored
/// says nothing: that is for the rules.
#[cfg(feature = "identify")]
fn is_complete(view: &View<'_>, met: u64, source: Sources, rules: Rules<'_>) -> bool {
    let epoch = view.epoch();
    let stays = |Known { history, .. }: Known<'_>| {
        let proven = rules.standing(&history, epoch) == Standing::Proven;
        !history.sources.contains(source)
            && (history.is_pinned() || proven && rules.config.keep_proven_on_replace())
    };
    let mut known = view.known().enumerate();
    met != 0 && known.all(|(at, known)| met & 1 << at != 0 || stays(known))
}

/// Whether to hear of an address from this source again is no news.
fn is_fresh(history: &History, source: Sources, epoch: Epoch, rules: Rules<'_>) -> bool {
    let is_held = !source.contains(Sources::MDNS) || history.flags.contains(Flags::ANNOUNCED);
    history.sources.contains(source)
        && is_held
        && !rules.is_word_stale(history, epoch)
        && !rules.is_proof_stale(history, epoch)
}
