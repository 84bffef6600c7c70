//! How good an address seems to be, by the formulas of `docs/address-quality.md`.

use std::collections::BTreeMap;

use libp2p_peerstore::Standing;

use super::{
    naive::{Naive, STEP},
    naive_address::Address,
};

/// What lies further back, in seconds, may count as of later: 24 days.
pub const KEPT: u64 = 24 * 86_400;

/// What the last dial that said something left of an address.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Evidence {
    None,
    /// The confidence right after it in 1/255, and when that was.
    Level(f64, u64),
    /// A part of it may not have been written before a restart, or was too long ago.
    Unknown,
}

/// Successes and outcomes of this node's dials, by the standing that the address had.
#[derive(Debug, Clone, Default)]
pub struct Experience(BTreeMap<Standing, (f64, f64)>);

/// Initial prior, lowest, highest, and half-life in seconds.
fn constants(standing: Standing) -> (f64, f64, f64, f64) {
    const HOUR: f64 = 3_600.0;
    match standing {
        Standing::Inbound => (0.05, 0.01, 0.50, HOUR),
        Standing::Hearsay => (0.30, 0.02, 0.80, 6.0 * HOUR),
        Standing::SelfTold => (0.50, 0.05, 0.95, 12.0 * HOUR),
        _ => (0.80, 0.20, 0.98, 72.0 * HOUR),
    }
}

impl Experience {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As if eight outcomes had given the initial prior.
    fn sums(&self, standing: Standing) -> (f64, f64) {
        let initial = (constants(standing).0 * 8.0, 8.0);
        self.0.get(&standing).copied().unwrap_or(initial)
    }

    fn prior(&self, standing: Standing) -> f64 {
        let (successes, outcomes) = self.sums(standing);
        let (_, lowest, highest, _) = constants(standing);
        (successes / outcomes).clamp(lowest, highest)
    }

    pub fn learn(&mut self, standing: Standing, success: bool) {
        let (successes, outcomes) = self.sums(standing);
        let keep = (-1.0_f64 / 200.0).exp2();
        let one = if success { 1.0 } else { 0.0 };
        let sums = (successes * keep + one, outcomes * keep + 1.0);
        self.0.insert(standing, sums);
    }
}

impl Naive {
    /// The confidence in an address of this standing, as a range; `None` where it cannot be known.
    pub fn confidence(&self, address: &Address, standing: Standing) -> Option<(f64, f64)> {
        let prior = self.experience.as_ref()?.prior(standing);
        let (level, at) = match address.evidence {
            Evidence::Unknown => return None,
            Evidence::Level(level, at) => (level / 255.0, at),
            Evidence::None if standing == Standing::Hearsay => {
                let told = (address.last_heard - address.first_heard) as f64;
                let level = prior + (1.0 - prior) * 0.5 * told / (told + 2.0 * 3_600.0);
                (level, address.last_heard)
            }
            Evidence::None => (prior, address.last_heard),
        };
        let (floor, half_life) = (prior / 2.0, constants(standing).3);
        let since = |at: u64| {
            let age = (self.now - at) as f64;
            floor + (level - floor) * (-age / half_life).exp2()
        };
        let (one, other) = (
            since(at),
            since(at.max((self.now + STEP).saturating_sub(KEPT))),
        );
        Some((one.min(other), one.max(other)))
    }

    /// What a dial leaves of the confidence: a success closes four fifths of the gap to 1.
    pub fn succeeded(&self, address: &mut Address, standing: Standing) {
        self.judge(address, standing, |before| {
            ((before + (1.0 - before) * 0.8) * 255.0).ceil()
        });
    }

    /// A failure leaves two fifths, an answer by another peer a twentieth.
    pub fn failed(&self, address: &mut Address, standing: Standing, wrong_peer: bool) {
        let share = if wrong_peer { 0.05 } else { 0.4 };
        self.judge(address, standing, |before| (before * share * 255.0).floor());
    }

    fn judge(&self, address: &mut Address, standing: Standing, level: impl Fn(f64) -> f64) {
        address.evidence = match self.confidence(address, standing) {
            Some((lowest, highest)) if lowest == highest => {
                Evidence::Level(level(lowest).min(255.0), self.step())
            }
            _ => Evidence::Unknown,
        };
    }
}
