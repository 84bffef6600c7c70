//! How good an address is: the whole model, as `docs/address-quality.md` explains it.
//!
//! - [`Model::confidence`]: the estimated chance that a dial made now succeeds.
//! - [`Model::succeeded`] and [`Model::failed`]: what evidence does to it.
//! - [`lifetime`]: how long the address is remembered without news.
//! - [`back_off`]: how long it is left alone after failures.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use crate::{
    address::Standing,
    clock::Timestamp,
    config::Config,
    history::{Epoch, Flags, History, STEP},
};

/// The prior of each standing before this node has seen any outcome, and the bounds of what it may learn.
///
/// | standing | prior | lowest | highest | half-life |
/// | --- | --- | --- | --- | --- |
/// | inbound | 0.05 | 0.01 | 0.50 | 1 h |
/// | hearsay | 0.30 | 0.02 | 0.80 | 6 h |
/// | self-told | 0.50 | 0.05 | 0.95 | 12 h |
/// | proven | 0.80 | 0.20 | 0.98 | 3 d |
const STANDINGS: [Constants; 4] = [
    Constants::new(0.05, 0.01, 0.50, 3_600.0),
    Constants::new(0.30, 0.02, 0.80, 6.0 * 3_600.0),
    Constants::new(0.50, 0.05, 0.95, 12.0 * 3_600.0),
    Constants::new(0.80, 0.20, 0.98, 72.0 * 3_600.0),
];

/// The floor of a standing, as a share of its prior: what an address is worth of which nothing was heard for long.
const FLOOR_SHARE: f64 = 0.5;

/// Hearsay that has been told for long closes up to this share of the gap between the prior and 1; half of it after so many
/// seconds.
const LASTING_SHARE: f64 = 0.5;
const LASTING: f64 = 2.0 * 3_600.0;

/// So much longer than [`Config::hearsay_lifetime`] hearsay is remembered for each second for which it was told.
const LIFE_PER_TOLD: u32 = 8;

/// A success closes this share of the gap between the confidence and 1.
const SUCCESS: f64 = 0.8;

/// A failure leaves this share of the confidence; an answer by another peer leaves [`WRONG_PEER`] of it.
const FAILURE: f64 = 0.4;
const WRONG_PEER: f64 = 0.05;

/// As many outcomes the initial prior counts for, and after as many an outcome has lost half of its weight.
const PRIOR_WEIGHT: f64 = 8.0;
const OUTCOME_HALF_LIFE: f64 = 200.0;

/// Back-off after the first failure, and the longest; each further failure doubles it.
const FIRST_BACK_OFF: Duration = Duration::from_secs(2 * 60);
pub(crate) const LONGEST_BACK_OFF: Duration = Duration::from_secs(60 * 60);
/// A back-off is this share shorter or longer, by the address and the count, so that what failed together is not
/// tried again together.
const JITTER: f64 = 0.25;

/// Above this confidence of the best address, half as many are offered.
pub(crate) const VERY_GOOD: f64 = 0.9;

struct Constants {
    prior: f64,
    lowest: f64,
    highest: f64,
    half_life: f64,
}

impl Constants {
    const fn new(prior: f64, lowest: f64, highest: f64, half_life: f64) -> Self {
        Self {
            prior,
            lowest,
            highest,
            half_life,
        }
    }
}

/// What this node has learnt of how often dials succeed, by standing.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    learnt: [Learnt; STANDINGS.len()],
    /// When it learnt last; the beginning of time if it never did.
    pub(crate) learnt_at: Timestamp,
}

/// The decayed sums of a standing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Learnt {
    pub(crate) successes: f64,
    pub(crate) outcomes: f64,
}

impl Default for Model {
    fn default() -> Self {
        let learnt = STANDINGS.each_ref().map(|constants| Learnt {
            successes: constants.prior * PRIOR_WEIGHT,
            outcomes: PRIOR_WEIGHT,
        });
        Self {
            learnt,
            learnt_at: Timestamp::default(),
        }
    }
}

impl Model {
    /// What an earlier run had learnt, one for each standing from the least on; `None` unless it is what a model can
    /// have learnt.
    pub(crate) fn loaded(learnt: Vec<Learnt>, learnt_at: Timestamp) -> Option<Self> {
        // Decayed sums come no higher than this, and no lower than they start.
        let most = 1.0 / (1.0 - (-1.0 / OUTCOME_HALF_LIFE).exp2());
        let is_sound = |learnt: &Learnt| {
            (1.0..=most.ceil()).contains(&learnt.outcomes)
                && (0.0..=learnt.outcomes).contains(&learnt.successes)
        };
        let learnt = <[Learnt; STANDINGS.len()]>::try_from(learnt).ok()?;
        learnt
            .iter()
            .all(is_sound)
            .then_some(Self { learnt, learnt_at })
    }

    /// What [`Model::loaded`] takes; `None` while nothing was learnt.
    pub(crate) fn kept(&self) -> Option<&[Learnt]> {
        (self.learnt_at > Timestamp::default()).then_some(&self.learnt)
    }

    /// The chance of success of an address of this standing of which nothing else is known.
    pub(crate) fn prior(&self, standing: Standing) -> f64 {
        let (constants, learnt) = (
            &STANDINGS[standing as usize],
            self.learnt[standing as usize],
        );
        (learnt.successes / learnt.outcomes).clamp(constants.lowest, constants.highest)
    }

    /// Notes the outcome of a dial to an address of this standing.
    pub(crate) fn learn(&mut self, standing: Standing, success: bool, now: Timestamp) {
        self.learnt_at = now;
        let learnt = &mut self.learnt[standing as usize];
        let keep = (-1.0 / OUTCOME_HALF_LIFE).exp2();
        learnt.successes = learnt.successes * keep + f64::from(success);
        learnt.outcomes = learnt.outcomes * keep + 1.0;
    }

    /// The estimated chance that a dial made now succeeds: from what it was at the last evidence (or the prior, at
    /// the last time it was heard of) it moves towards the floor of its standing, half of the way in each
    /// half-life, from above or from below.
    pub(crate) fn confidence(
        &self,
        history: &History,
        epoch: Epoch,
        standing: Standing,
        now: Timestamp,
    ) -> f64 {
        let prior = self.prior(standing);
        let (level, since) = if history.flags.contains(Flags::EVIDENCE) {
            (f64::from(history.level) / 255.0, history.evidence)
        } else {
            let level = match standing {
                Standing::Hearsay => told(prior, history, epoch),
                _ => prior,
            };
            (level, history.last_heard)
        };
        let age = now.since(epoch.time(since).unwrap_or(now)).as_secs_f64();
        let floor = prior * FLOOR_SHARE;
        let faded = (-age / STANDINGS[standing as usize].half_life).exp2();
        (floor + (level - floor) * faded).clamp(0.0, 1.0)
    }

    /// A dial succeeded.
    pub(crate) fn succeeded(
        &self,
        history: &mut History,
        epoch: Epoch,
        standing: Standing,
        now: Timestamp,
    ) {
        let confidence = self.confidence(history, epoch, standing, now);
        // Rounded up: its own success never lowers an address.
        let level = (confidence + (1.0 - confidence) * SUCCESS) * 255.0;
        history.level = level.ceil().min(255.0) as u8;
        history.flags.insert(Flags::EVIDENCE);
        history.flags.remove(Flags::WRONG_PEER);
        history.evidence = epoch.step(now);
        history.successes = history.successes.saturating_add(1);
        history.failures = 0;
    }

    /// A dial failed; `wrong_peer` when somebody else answered.
    pub(crate) fn failed(
        &self,
        history: &mut History,
        epoch: Epoch,
        standing: Standing,
        wrong_peer: bool,
        now: Timestamp,
    ) {
        let confidence = self.confidence(history, epoch, standing, now);
        // Rounded down: its own failure never raises an address.
        let level = confidence * if wrong_peer { WRONG_PEER } else { FAILURE } * 255.0;
        history.level = level.floor() as u8;
        history.flags.insert(Flags::EVIDENCE);
        history.flags.set(Flags::WRONG_PEER, wrong_peer);
        history.evidence = epoch.step(now);
        history.failure = epoch.step(now);
        history.failures = history.failures.saturating_add(1);
    }
}

/// The confidence in hearsay that was never dialled, when it was last heard of: the prior, and more the longer it
/// has been told. Lies and stale records come and go; what is true is told for as long as it is true.
fn told(prior: f64, history: &History, epoch: Epoch) -> f64 {
    let told = told_for(history, epoch).as_secs_f64() / LASTING;
    prior + (1.0 - prior) * LASTING_SHARE * told / (1.0 + told)
}

/// From when it was first heard of until it was last heard of.
fn told_for(history: &History, epoch: Epoch) -> Duration {
    let first = epoch.time(history.first_heard).unwrap_or_default();
    let last = epoch.time(history.last_heard).unwrap_or_default();
    last.since(first)
}

/// Whether a success says more than what is on disk: else each reconnect of a quiet node would be a write.
pub(crate) fn is_worth_saving(
    before: &History,
    after: &History,
    epoch: Epoch,
    standing: Standing,
) -> bool {
    /// More than a second success in a row adds to the first, in 1/255.
    const NOTICEABLE: u8 = 38;
    let stale = Duration::from_secs_f64(STANDINGS[standing as usize].half_life / 4.0);
    let time = |history: &History| epoch.time(history.evidence).unwrap_or_default();
    before.failures > 0
        || before
            .flags
            .intersection(Flags::EVIDENCE | Flags::WRONG_PEER)
            != Flags::EVIDENCE
        || before.level.abs_diff(after.level) >= NOTICEABLE
        || time(after).since(time(before)) > stale
}

/// How long an address is remembered after it was last heard of, or its connection ended.
///
/// What is first-hand or proven: the lifetime of its standing, halved by each failure in a row, down to a quarter: a
/// peer that is away for some days is not to be forgotten because it was called meanwhile. Hearsay: longer the longer
/// it has been told, and failures do not shorten it. They mostly mean that the peer is away, and nobody else will
/// tell this node where the peer was.
pub(crate) fn lifetime(
    standing: Standing,
    history: &History,
    epoch: Epoch,
    config: &Config,
) -> Duration {
    let full = match standing {
        Standing::Proven => config.proven_lifetime(),
        Standing::SelfTold => config.self_told_lifetime(),
        Standing::Inbound => config.inbound_lifetime(),
        Standing::Hearsay => {
            let first = config.hearsay_lifetime();
            let more = told_for(history, epoch).saturating_mul(LIFE_PER_TOLD);
            let longest = config.max_hearsay_lifetime().max(first);
            return first.saturating_add(more).min(longest).max(STEP);
        }
    };
    // Never less than the grain of the times: what was heard of just now has not expired.
    (full / (1 << history.failures.min(2))).max(STEP)
}

/// How long what its sources say of an address is remembered: as long as the word of any of them is. That the peer tells
/// the address itself, too, does not shorten the days that others who keep telling it have given it.
pub(crate) fn told_lifetime(history: &History, epoch: Epoch, config: &Config) -> Duration {
    let told = lifetime(history.told(), history, epoch, config);
    if history.is_told_by_others() {
        told.max(lifetime(Standing::Hearsay, history, epoch, config))
    } else {
        told
    }
}

/// The lifetime of which a quarter is the grain of "last heard of". For hearsay it is an hour at most, however long it
/// is remembered: by these times one tells what is true from what once was.
pub(crate) fn refreshed_by(standing: Standing, lifetime: Duration) -> Duration {
    match standing {
        Standing::Hearsay => lifetime.min(Duration::from_secs(60 * 60)),
        _ => lifetime,
    }
}

/// How long an address is left alone after so many failures in a row. Nothing of it is stored: it follows from the
/// address, the count, and a secret of this process.
pub(crate) fn back_off(failures: u8, address: &[u8], secret: &RandomState) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let chance = secret.hash_one((address, failures)) as f64 / u64::MAX as f64;
    full_back_off(failures).mul_f64(1.0 + JITTER * (2.0 * chance - 1.0))
}

/// The same without chance.
pub(crate) fn full_back_off(failures: u8) -> Duration {
    let doublings = u32::from(failures.saturating_sub(1)).min(16);
    FIRST_BACK_OFF
        .saturating_mul(1 << doublings)
        .min(LONGEST_BACK_OFF)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::address::Sources;

    const NOW: Timestamp = Timestamp(1_735_689_600);
    const STANDING: [Standing; 4] = [
        Standing::Inbound,
        Standing::Hearsay,
        Standing::SelfTold,
        Standing::Proven,
    ];

    fn heard(at: Timestamp) -> (History, Epoch) {
        let epoch = Epoch::for_time(at);
        let history = History {
            first_heard: epoch.step(at),
            last_heard: epoch.step(at),
            ..History::default()
        };
        (history, epoch)
    }

    /// Some history: outcomes with the seconds before each.
    fn histories() -> impl Strategy<Value = Vec<(u32, bool)>> {
        prop::collection::vec((0..200_000_u32, any::<bool>()), 0..8)
    }

    fn after(
        model: &Model,
        outcomes: &[(u32, bool)],
        standing: Standing,
    ) -> (History, Epoch, Timestamp) {
        let (mut history, epoch) = heard(NOW);
        let mut now = NOW;
        for (pause, success) in outcomes {
            now = Timestamp(now.0 + u64::from(*pause));
            if *success {
                model.succeeded(&mut history, epoch, standing, now);
            } else {
                model.failed(&mut history, epoch, standing, false, now);
            }
        }
        (history, epoch, now)
    }

    proptest! {
        #[test]
        fn its_own_success_never_lowers_an_address(outcomes in histories(), pause in 0..200_000_u64, standing in 0..4_usize) {
            let (model, standing) = (Model::default(), STANDING[standing]);
            let (mut history, epoch, now) = after(&model, &outcomes, standing);
            let now = Timestamp(now.0 + pause);
            let before = model.confidence(&history, epoch, standing, now);
            model.succeeded(&mut history, epoch, standing, now);
            prop_assert!(model.confidence(&history, epoch, standing, now) >= before);
        }

        #[test]
        fn its_own_failure_never_raises_an_address(outcomes in histories(), pause in 0..200_000_u64, standing in 0..4_usize, wrong in any::<bool>()) {
            let (model, standing) = (Model::default(), STANDING[standing]);
            let (mut history, epoch, now) = after(&model, &outcomes, standing);
            let now = Timestamp(now.0 + pause);
            let before = model.confidence(&history, epoch, standing, now);
            model.failed(&mut history, epoch, standing, wrong, now);
            prop_assert!(model.confidence(&history, epoch, standing, now) <= before);
        }

        #[test]
        fn without_evidence_it_moves_to_the_floor_and_never_across(outcomes in histories(), pauses in prop::collection::vec(0..400_000_u64, 1..6), standing in 0..4_usize) {
            let (model, standing) = (Model::default(), STANDING[standing]);
            let (history, epoch, mut now) = after(&model, &outcomes, standing);
            let floor = model.prior(standing) * FLOOR_SHARE;
            let mut last = model.confidence(&history, epoch, standing, now);
            for pause in pauses {
                now = Timestamp(now.0 + pause);
                let confidence = model.confidence(&history, epoch, standing, now);
                if last >= floor {
                    prop_assert!(confidence <= last && confidence >= floor - 1e-9);
                } else {
                    prop_assert!(confidence >= last && confidence <= floor + 1e-9);
                }
                last = confidence;
            }
        }

        #[test]
        fn confidence_is_a_probability(outcomes in histories(), standing in 0..4_usize, learnt in prop::collection::vec((0..4_usize, any::<bool>()), 0..400)) {
            let mut model = Model::default();
            for (standing, success) in learnt {
                model.learn(STANDING[standing], success, NOW);
            }
            let (history, epoch, now) = after(&model, &outcomes, STANDING[standing]);
            let confidence = model.confidence(&history, epoch, STANDING[standing], now);
            prop_assert!((0.0..=1.0).contains(&confidence));
        }
    }

    #[test]
    fn the_prior_follows_what_this_node_sees_within_its_bounds() {
        let mut model = Model::default();
        for _ in 0..1_000 {
            model.learn(Standing::Hearsay, false, NOW);
        }
        assert!((model.prior(Standing::Hearsay) - 0.02).abs() < 1e-9);
        for _ in 0..2_000 {
            model.learn(Standing::Hearsay, true, NOW);
        }
        assert!((model.prior(Standing::Hearsay) - 0.80).abs() < 1e-9);
        assert!(
            (model.prior(Standing::SelfTold) - 0.50).abs() < 1e-9,
            "each for itself"
        );
    }

    #[test]
    fn what_was_learnt_is_loaded_and_nothing_else() {
        assert!(Model::default().kept().is_none());
        let mut model = Model::default();
        for n in 0..2_000 {
            model.learn(STANDING[n % 4], n % 3 == 0, NOW);
        }
        let kept = model.kept().map(<[_]>::to_vec).unwrap_or_default();
        let loaded = Model::loaded(kept.clone(), NOW).expect("it was learnt");
        for standing in STANDING {
            assert_eq!(loaded.prior(standing), model.prior(standing));
        }
        assert!(Model::loaded(kept[..3].to_vec(), NOW).is_none());
        for (successes, outcomes) in [
            (f64::NAN, 10.0),
            (1.0, f64::NAN),
            (-1.0, 10.0),
            (11.0, 10.0),
            (0.0, 0.0),
            (1.0, 1e9),
            (f64::INFINITY, f64::INFINITY),
        ] {
            let mut unsound = kept.clone();
            unsound[2] = Learnt {
                successes,
                outcomes,
            };
            assert!(
                Model::loaded(unsound, NOW).is_none(),
                "{successes} of {outcomes}"
            );
        }
    }

    #[test]
    fn back_off_grows_with_failures_and_differs_between_addresses() {
        let secret = RandomState::new();
        assert_eq!(back_off(0, b"a", &secret), Duration::ZERO);
        for failures in 1..=255 {
            let expected = (120.0 * f64::from(failures - 1).exp2()).min(3_600.0);
            let back_off = back_off(failures, b"a", &secret).as_secs_f64();
            assert!((expected * 0.749..=expected * 1.251).contains(&back_off));
        }
        let different =
            (0..100_u8).filter(|a| back_off(1, &[*a], &secret) != back_off(1, b"a", &secret));
        assert!(different.count() > 90);
    }

    #[test]
    fn lifetimes_of_what_is_first_hand_halve_with_each_failure_down_to_a_quarter() {
        let config = Config::default();
        let (mut history, epoch) = heard(NOW);
        for standing in [Standing::Inbound, Standing::SelfTold, Standing::Proven] {
            history.failures = 0;
            let full = lifetime(standing, &history, epoch, &config);
            history.failures = 1;
            assert_eq!(lifetime(standing, &history, epoch, &config), full / 2);
            history.failures = 255;
            assert_eq!(lifetime(standing, &history, epoch, &config), full / 4);
        }
    }

    #[test]
    fn what_others_gave_an_address_is_not_shortened_by_the_word_of_the_peer_itself() {
        let config = Config::default();
        let (mut history, epoch) = heard(NOW);
        history.last_heard = epoch.step(Timestamp(NOW.0 + 30 * 86_400));
        history.sources = Sources::KADEMLIA;
        assert_eq!(
            told_lifetime(&history, epoch, &config),
            config.max_hearsay_lifetime()
        );
        for failures in [0, 9] {
            history.failures = failures;
            history.sources = Sources::KADEMLIA | Sources::IDENTIFY;
            assert_eq!(
                told_lifetime(&history, epoch, &config),
                config.max_hearsay_lifetime()
            );
            history.sources = Sources::IDENTIFY;
            assert_eq!(
                told_lifetime(&history, epoch, &config),
                lifetime(Standing::SelfTold, &history, epoch, &config),
                "nobody else told it"
            );
        }
    }

    #[test]
    fn hearsay_lives_longer_the_longer_it_was_told_up_to_a_bound() {
        let config = Config::default();
        let lifetime = |told: u64, failures| {
            let (mut history, epoch) = heard(NOW);
            history.last_heard = epoch.step(Timestamp(NOW.0 + told));
            history.failures = failures;
            lifetime(Standing::Hearsay, &history, epoch, &config)
        };
        assert_eq!(lifetime(0, 0), config.hearsay_lifetime());
        let one = lifetime(6_400, 0);
        assert_eq!(
            one,
            config.hearsay_lifetime() + Duration::from_secs(8 * 6_400)
        );
        assert_eq!(lifetime(6_400, 9), one, "failures do not shorten it");
        assert_eq!(lifetime(30 * 86_400, 0), config.max_hearsay_lifetime());
        let short = Config::default().with_max_hearsay_lifetime(Duration::ZERO);
        let (history, epoch) = heard(NOW);
        assert_eq!(
            super::lifetime(Standing::Hearsay, &history, epoch, &short),
            short.hearsay_lifetime(),
            "a bound below the first lifetime only switches the growth off"
        );
    }
}
