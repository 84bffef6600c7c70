//! Who may hold how much of the store, once it is full.
//!
//! Addresses can be invented for nothing, connections cannot. So what others told of a peer has one share in all,
//! and what peers told of themselves a share for each group of addresses from which they came. Whoever exceeds a
//! share takes the place of another who has it too, chosen at random: nobody can shut others out by being first.

use std::time::Duration;

use crate::{
    config::Config,
    event::Cause,
    record::Class,
    seat::{List, Seat},
    state::{Now, State},
};

/// A share is never less than so many peers: in a small store a fraction of it says nothing about an attack.
pub(crate) const MIN_SHARE: usize = 8;

/// So many peers beyond a share go at most for one that comes, so that each change takes a bounded time.
const MAX_TRIM: usize = 4;

/// So many records are looked at for expired ones when room is needed.
pub(crate) const MAX_EXPIRED: usize = 16;

/// Whether shares are limited now: while the store is full, and for a time after somebody had to go, so that a flood
/// cannot use the room that a limit has just made.
#[derive(Debug, Default)]
pub(crate) struct Pressure {
    until: Option<Duration>,
}

impl Pressure {
    fn build(&mut self, now: Now, config: &Config) {
        self.until = Some(now.elapsed.saturating_add(config.hearsay_lifetime()));
    }

    fn is_on(&self, now: Now) -> bool {
        self.until.is_some_and(|until| now.elapsed < until)
    }
}

/// A share of the capacity, in peers.
fn share(config: &Config, fraction: f64) -> usize {
    let peers = config.max_peers().get() as f64 * fraction.clamp(0.0, 1.0);
    (peers as usize).max(MIN_SHARE)
}

impl State {
    /// Makes room for a new peer: within its own share if that is used up, else in the place of the least valuable
    /// one. `false` when all others are worth more.
    pub(crate) fn make_room(&mut self, newcomer: Seat, now: Now) -> bool {
        let capacity = self.config.max_peers().get();
        if self.table.len() >= capacity {
            // What has expired goes first.
            self.collect(MAX_EXPIRED, now);
        }
        if self.table.len() >= capacity {
            self.pressure.build(now, &self.config);
        }
        if !self.pressure.is_on(now) {
            return true;
        }
        self.trim(newcomer, None, now);
        while self.table.len() >= capacity {
            let Some((class, victim)) = self.table.least_valuable(self.order()) else {
                return false;
            };
            if class == Class::Pinned || class > newcomer.list.class() && !self.yields(newcomer) {
                return false;
            }
            self.remove(victim, Cause::Evicted, now);
        }
        true
    }

    /// Holds the shares that a peer counts in, after it changed.
    pub(crate) fn keep_shares(&mut self, slot: u32, now: Now) {
        if self.pressure.is_on(now)
            && let Some(seat) = self.table.seat(slot)
        {
            self.trim(seat, Some(slot), now);
        }
    }

    /// Who makes room before whom now.
    pub(crate) fn order(&self) -> &'static [&'static [List]] {
        let protected = share(&self.config, self.config.accepted_share());
        if self.table.count(List::Accepted) > protected {
            List::ORDER_ACCEPTED
        } else {
            List::ORDER
        }
    }

    /// Removes a few peers beyond the shares of a seat: `spared` sits there, or else somebody is about to.
    fn trim(&mut self, seat: Seat, spared: Option<u32>, now: Now) {
        let coming = usize::from(spared.is_none());
        for _ in 0..MAX_TRIM {
            let Some(victim) = self.beyond_share(seat, coming, spared) else {
                return;
            };
            self.remove(victim, Cause::Evicted, now);
            self.pressure.build(now, &self.config);
        }
    }

    fn beyond_share(&mut self, seat: Seat, coming: usize, spared: Option<u32>) -> Option<u32> {
        let config = self.config.clone();
        let exceeds = |count: usize, fraction| count + coming > share(&config, fraction);
        match (seat.list, seat.group) {
            (List::Names, _) if exceeds(self.table.count(List::Names), config.dns_share()) => self
                .table
                .worst_of(List::Names)
                .filter(|worst| Some(*worst) != spared),
            (List::Names | List::Hearsay, _) => {
                let all = List::BY_HEARSAY.map(|list| self.table.count(list));
                let all = all.iter().sum();
                if !exceeds(all, config.hearsay_share()) {
                    return None;
                }
                self.table.random_in(&List::BY_HEARSAY, spared)
            }
            (List::Inbound | List::SelfTold | List::Accepted, Some(group))
                if !group.is_claimed()
                    && exceeds(
                        self.table.count_group(seat.list, group),
                        config.source_share(),
                    ) =>
            {
                self.table.random_of(seat.list, group, spared)
            }
            _ => None,
        }
    }

    /// Whether the most crowded group of proven peers has more than its share, so that it makes room for others who
    /// told of themselves.
    fn yields(&self, newcomer: Seat) -> bool {
        let share = share(&self.config, self.config.proven_share());
        newcomer.list.class() == Class::SelfTold
            && self.table.max_group(List::Proven) > share
            && newcomer.group.is_none_or(|group| {
                let proven = self.table.count_group(List::Proven, group.of_addresses());
                proven < self.table.max_group(List::Proven)
            })
    }
}
