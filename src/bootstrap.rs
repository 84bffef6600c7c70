//! Which remembered peers to dial first after a restart.
//!
//! An attacker who runs many reliable hosts would be first in any list that is sorted by reliability, and a node
//! that crashes often would soon know nobody else. So at most one peer is taken from each address group, and a
//! third each for long acquaintance, for chance, and for confidence. For the first and the last, the most confident of a
//! few random ones is taken: nearly as good as the best, and nobody can count on being it.

use std::{collections::HashMap, hash::Hash, time::Duration};

use libp2p_identity::PeerId;

use crate::clock::Timestamp;

/// A peer that was proven first so long ago, and still is, counts as an old acquaintance.
const LONG: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// So many of the last outbound peers of the previous run come first.
const ANCHORS: usize = 2;

/// Of so many random candidates the most confident one is taken. Among them an attacker whose hosts always seem best has
/// at most so many times its share of the groups.
const LOOKS: usize = 8;

/// A peer that could be dialled.
#[derive(Debug, Clone)]
pub(crate) struct Candidate<G> {
    pub(crate) peer: PeerId,
    /// The address group of its best address; `None` where groups mean nothing, in private networks.
    pub(crate) group: Option<G>,
    pub(crate) proven: bool,
    pub(crate) first_proven: Option<Timestamp>,
    pub(crate) last_success: Option<Timestamp>,
    pub(crate) confidence: f64,
}

/// Chooses up to `n` candidates; `random` yields numbers that nobody foresees.
pub(crate) fn choose<G: Clone + Eq + Hash>(
    candidates: Vec<Candidate<G>>,
    n: usize,
    now: Timestamp,
    mut random: impl FnMut() -> u64,
) -> Vec<PeerId> {
    let mut groups = Groups::new(candidates);
    let mut chosen = Vec::with_capacity(n.min(groups.len()));

    let mut anchors: Vec<_> = groups.all().filter(|c| c.last_success.is_some()).collect();
    anchors.sort_by_key(|candidate| std::cmp::Reverse(candidate.last_success));
    let anchors: Vec<PeerId> = anchors.iter().map(|candidate| candidate.peer).collect();
    for anchor in anchors {
        if chosen.len() < ANCHORS.min(n) {
            chosen.extend(groups.take(anchor));
        }
    }

    let third = n.div_ceil(3);
    let is_long =
        |c: &Candidate<G>| c.proven && c.first_proven.is_some_and(|first| now.since(first) > LONG);
    let of_long = |c: &Candidate<G>| if is_long(c) { c.confidence } else { 0.0 };
    let long = groups.draws(third.min(n - chosen.len()), LOOKS, &mut random, of_long);
    let left = n - chosen.len() - long.len();
    let by_chance = groups.draws(third.min(left), 1, &mut random, |c| f64::from(c.proven));
    let left = left - by_chance.len();
    // Proven ones first: however many peers others invent, they are not in the way.
    let of_proven = |c: &Candidate<G>| if c.proven { c.confidence } else { 0.0 };
    let confident = groups.draws(left, LOOKS, &mut random, of_proven);
    let left = left - confident.len();
    let others = groups.draws(left, LOOKS, &mut random, |c| c.confidence);
    // Those that will most probably answer are dialled first.
    chosen.extend(confident);
    chosen.extend(long);
    chosen.extend(by_chance);
    chosen.extend(others);
    chosen
}

/// Candidates by group. Whoever is taken takes its group along.
struct Groups<G>(Vec<Vec<Candidate<G>>>);

impl<G: Clone + Eq + Hash> Groups<G> {
    fn new(candidates: Vec<Candidate<G>>) -> Self {
        let mut groups: Vec<Vec<Candidate<G>>> = Vec::new();
        let mut places: HashMap<G, usize> = HashMap::new();
        for candidate in candidates {
            let place = candidate.group.clone().map(|group| {
                *places.entry(group).or_insert_with(|| {
                    groups.push(Vec::new());
                    groups.len() - 1
                })
            });
            match place {
                Some(place) => groups[place].push(candidate),
                None => groups.push(vec![candidate]),
            }
        }
        Self(groups)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn all(&self) -> impl Iterator<Item = &Candidate<G>> {
        self.0.iter().flatten()
    }

    fn take(&mut self, peer: PeerId) -> Option<PeerId> {
        let is_it = |group: &Vec<Candidate<G>>| group.iter().any(|c| c.peer == peer);
        let place = self.0.iter().position(is_it)?;
        self.0.swap_remove(place);
        Some(peer)
    }

    /// Draws up to `n` candidates, each the best by `score` of so many looks at random ones: first a group, then one of it,
    /// so that a crowd in one group weighs no more than one. Who has no score is never drawn.
    fn draws(
        &mut self,
        n: usize,
        looks: usize,
        random: &mut impl FnMut() -> u64,
        score: impl Fn(&Candidate<G>) -> f64,
    ) -> Vec<PeerId> {
        // Groups by their number, and those of their members who have a score.
        let groups = self.0.iter().enumerate().map(|(number, group)| {
            let members = group.iter().map(|c| (score(c), c.peer));
            let members: Vec<_> = members.filter(|(score, _)| *score > 0.0).collect();
            (number, members)
        });
        let mut groups: Vec<_> = groups.filter(|(_, members)| !members.is_empty()).collect();
        let (mut drawn, mut empty) = (Vec::new(), Vec::new());
        while drawn.len() < n {
            let looks = (0..looks).filter_map(|_| {
                let place = random().checked_rem(groups.len() as u64)? as usize;
                let members = &groups[place].1;
                let member = members[(random() % members.len() as u64) as usize];
                Some((place, member))
            });
            let best = looks.max_by(|(_, (one, _)), (_, (other, _))| one.total_cmp(other));
            let Some((place, (_, peer))) = best else {
                break;
            };
            empty.push(groups.swap_remove(place).0);
            drawn.push(peer);
        }
        // From behind, so that those before keep their numbers.
        empty.sort_unstable_by(|one, other| other.cmp(one));
        for number in empty {
            self.0.swap_remove(number);
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, hash::BuildHasher};

    use super::*;

    const NOW: Timestamp = Timestamp(1_735_689_600);

    fn random() -> impl FnMut() -> u64 {
        let (state, mut count) = (std::hash::RandomState::new(), 0_u64);
        move || {
            count += 1;
            state.hash_one(count)
        }
    }

    fn proven(group: u32, days: u64, confidence: f64) -> Candidate<u32> {
        Candidate {
            peer: PeerId::random(),
            group: Some(group),
            proven: true,
            first_proven: Some(Timestamp(NOW.0 - days * 86_400)),
            last_success: Some(Timestamp(NOW.0 - 3_600)),
            confidence,
        }
    }

    #[test]
    fn no_two_peers_of_one_group_are_chosen() {
        let candidates: Vec<_> = (0..100).map(|i| proven(i % 5, 1, 0.9)).collect();
        let groups: HashMap<PeerId, u32> = candidates
            .iter()
            .map(|c| (c.peer, c.group.unwrap_or(0)))
            .collect();
        let chosen = choose(candidates, 20, NOW, random());
        let distinct: HashSet<u32> = chosen.iter().map(|peer| groups[peer]).collect();
        assert_eq!((chosen.len(), distinct.len()), (5, 5));
    }

    #[test]
    fn in_a_private_network_everybody_may_be_chosen() {
        let mut candidates: Vec<_> = (0..8).map(|_| proven(0, 1, 0.9)).collect();
        candidates.iter_mut().for_each(|c| c.group = None);
        assert_eq!(choose(candidates, 20, NOW, random()).len(), 8);
    }

    #[test]
    fn the_last_outbound_peers_come_first() {
        let mut candidates: Vec<_> = (0..50).map(|i| proven(i, 1, 0.1)).collect();
        candidates[17].last_success = Some(NOW);
        candidates[33].last_success = Some(Timestamp(NOW.0 - 1));
        let anchors = [candidates[17].peer, candidates[33].peer];
        assert_eq!(choose(candidates, 10, NOW, random())[..2], anchors);
    }

    #[test]
    fn a_third_are_old_acquaintances_even_among_many_newer_and_better_ones() {
        let mut candidates: Vec<_> = (0..500).map(|i| proven(i, 1, 1.0)).collect();
        candidates.extend((500..510).map(|i| proven(i, 30, 0.1)));
        let old: HashSet<PeerId> = candidates[500..].iter().map(|c| c.peer).collect();
        let chosen = choose(candidates, 12, NOW, random());
        assert!(chosen.iter().filter(|peer| old.contains(peer)).count() >= 4);
    }

    #[test]
    fn the_more_confident_are_drawn_more_often_and_not_they_alone() {
        let mut random = random();
        let (mut good, mut all) = (0, 0);
        for _ in 0..200 {
            // Nobody is proven: all are drawn by confidence.
            let candidates = (0..100).map(|i| Candidate {
                proven: false,
                first_proven: None,
                last_success: None,
                ..proven(i, 0, if i < 20 { 0.9 } else { 0.5 })
            });
            let candidates: Vec<_> = candidates.collect();
            let best: HashSet<PeerId> = candidates[..20].iter().map(|c| c.peer).collect();
            let chosen = choose(candidates, 5, NOW, &mut random);
            all += chosen.len();
            good += chosen.iter().filter(|peer| best.contains(peer)).count();
        }
        assert_eq!(all, 1_000);
        assert!((700..=900).contains(&good), "{good} of 1,000");
    }

    #[test]
    fn a_crowd_in_one_group_is_drawn_no_more_often_than_one() {
        let mut random = random();
        let mut crowded = 0;
        for _ in 0..1_000 {
            let mut candidates: Vec<_> = (0..20).map(|i| proven(i, 1, 0.9)).collect();
            candidates.extend((0..200).map(|_| proven(20, 1, 0.9)));
            candidates.iter_mut().for_each(|c| c.last_success = None);
            let crowd: HashSet<PeerId> = candidates[20..].iter().map(|c| c.peer).collect();
            let chosen = choose(candidates, 1, NOW, &mut random);
            crowded += usize::from(crowd.contains(&chosen[0]));
        }
        // One of 21 groups.
        assert!((15..=95).contains(&crowded), "{crowded} of 1,000");
    }

    #[test]
    fn whatever_others_invent_proven_peers_are_chosen_before_it() {
        let mut candidates: Vec<_> = (0..10).map(|i| proven(i, 1, 0.5)).collect();
        let known: HashSet<PeerId> = candidates.iter().map(|c| c.peer).collect();
        candidates.extend((10..10_000).map(|i| Candidate {
            proven: false,
            first_proven: None,
            last_success: None,
            ..proven(i, 0, 0.6)
        }));
        let chosen = choose(candidates, 12, NOW, random());
        assert_eq!(chosen.len(), 12);
        assert!(chosen[..10].iter().all(|peer| known.contains(peer)));
    }

    #[test]
    fn peers_without_any_chance_are_not_chosen() {
        let mut hopeless = proven(1, 1, 0.0);
        hopeless.proven = false;
        hopeless.last_success = None;
        assert!(choose(vec![hopeless], 5, NOW, random()).is_empty());
    }

    /// An attacker with 30 % of the proven peers, in 20 groups, all of them always there and old enough.
    #[test]
    fn an_attacker_gets_at_most_two_fifths_over_a_thousand_restarts() {
        let mut random = random();
        let (mut taken, mut all, mut early) = (0, 0, 0);
        for _ in 0..1_000 {
            let mut candidates: Vec<_> = (0..300).map(|i| proven(i % 20, 60, 1.0)).collect();
            // They were even the last to be dialled, and so are the anchors.
            candidates
                .iter_mut()
                .for_each(|c| c.last_success = Some(NOW));
            let evil: HashSet<PeerId> = candidates.iter().map(|c| c.peer).collect();
            candidates.extend((0..700_u32).map(|i| {
                let days = u64::from(i % 20);
                let mut honest = proven(1_000 + i % 400, days, 0.6 + f64::from(i % 4) / 10.0);
                honest.last_success = Some(Timestamp(NOW.0 - u64::from(i) * 600));
                honest
            }));
            let chosen = choose(candidates, 20, NOW, &mut random);
            all += chosen.len();
            taken += chosen.iter().filter(|peer| evil.contains(peer)).count();
            early += chosen[..10].iter().filter(|p| evil.contains(p)).count();
        }
        assert!(taken * 5 <= all * 2, "{taken} of {all}");
        // Of those that are dialled first no more than half, even if all of its hosts seem better than all others.
        assert!(early * 2 <= 10 * 1_000, "{early} of the first 10,000");
    }
}
