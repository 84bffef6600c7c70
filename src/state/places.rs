//! Who is said to be where, by peers that are known by hearsay only.

use std::hash::BuildHasher;

use super::{Now, State};
use crate::{
    address::Sources,
    claims::{self, Spot, Spots, claims},
    compact::Has,
    crowd::pick,
    event::Cause,
    record::Delta,
    view::View,
};

impl State {
    /// What the peer in a slot claims, and is counted for.
    pub(super) fn claimed(&self, slot: u32) -> Spots {
        let view = self.table.view(slot);
        let counted = view.filter(|view| view.packed().has().contains(Has::CLAIMS));
        counted.map_or_else(Spots::new, |view| self.claims_of(view))
    }

    /// Brings up to date what a peer claims, that was counted for this before.
    pub(super) fn update_claims(&mut self, slot: u32, before: &[Spot]) {
        let Some(view) = self.table.view(slot) else {
            return;
        };
        let after = self.claims_of(view);
        for spot in before.iter().filter(|spot| !after.contains(spot)) {
            self.claims.remove(*spot, slot);
        }
        for spot in after.iter().filter(|spot| !before.contains(spot)) {
            self.claims.add(*spot, slot);
        }
        if (before.is_empty() != after.is_empty())
            && let Some(packed) = self.table.packed_mut(slot)
        {
            packed.set(Has::CLAIMS, !after.is_empty());
        }
    }

    fn claims_of(&self, view: View<'_>) -> Spots {
        let seen = view.packed().source().is_some();
        claims(view.known(), seen, &self.secret)
    }

    pub(super) fn withdraw_claims(&mut self, slot: u32) {
        for spot in self.claimed(slot) {
            self.claims.remove(spot, slot);
        }
    }

    /// A peer is known at first hand to be where as many as may be are said to be by hearsay: one of them makes room.
    pub(super) fn displace_claims(&mut self, slot: u32, now: Now) {
        let Some(view) = self.table.view(slot) else {
            return;
        };
        let (peer, secret, links) = (view.id(), &self.secret, &self.links);
        let limit = self.config.max_claims_per_ip().get();
        let spots = view.known().filter_map(|known| {
            let spot = claims::spot(known.address, secret)?;
            let sources = known.history.sources;
            let is_there =
                |address: &libp2p_core::Multiaddr| claims::spot(address, secret) == Some(spot);
            let is_known = known.history.is_dialled()
                || sources.intersects(Sources::SELF_TOLD) && links.is_at(&peer, is_there);
            is_known.then_some(spot)
        });
        let mut crowded = Spots::new();
        for spot in spots {
            // However many addresses it has there, it takes one place.
            if !crowded.contains(&spot) && self.claims.claimants(spot).count() >= limit {
                crowded.push(spot);
            }
        }
        for spot in crowded {
            let slots: Vec<u32> = self.claims.claimants(spot).collect();
            let random = self.secret.hash_one((spot, self.table.len(), now.elapsed));
            if let Some(displaced) = pick(&slots, random) {
                self.displace_claim(displaced, spot, now);
            }
        }
    }

    fn displace_claim(&mut self, slot: u32, spot: Spot, now: Now) {
        let Some(peer) = self.table.view(slot).map(|view| view.id()) else {
            return;
        };
        let claimed = self.claimed(slot);
        let secret = &self.secret;
        let mut delta = Delta::default();
        self.table.change(slot, |record| {
            record.displace(
                |address| claims::spot(address, secret) == Some(spot),
                &mut delta,
            );
            record.stamp(delta.changed, now.wall);
        });
        self.update_claims(slot, &claimed);
        self.finish(slot, peer, delta, Cause::Evicted, now);
        self.remove_if_empty(&peer, Cause::Evicted, now);
    }
}
