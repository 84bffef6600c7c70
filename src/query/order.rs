//! In which order the answers come.

use libp2p_identity::PeerId;
use sha2::{Digest, Sha256};

use super::{
    condition::Conditions,
    scan::{Marks, Scan, Slots, Spot},
};
use crate::{inner::Inner, record::Rules, view::View};

/// The order of the answers to a [`Query`](crate::Query). What is equal comes in no order that means anything, but in the
/// same one each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// The highest confidence first, as of the peer's most promising address; peers without addresses last.
    Confidence,
    /// Who was heard of last first, connected peers before all, see [`Peer::last_seen`](crate::Peer::last_seen).
    LastSeen,
    /// The lowest mean latency first; peers whose latency is not known last.
    Latency,
    /// The nearest first, by the metric of libp2p's Kademlia: the SHA-256 of the bytes of the peer id, xor what is given
    /// here, as a number. See [`Order::distance_to`] and [`Order::distance_to_peer`].
    Distance([u8; 32]),
}

impl Order {
    /// By distance to a key of Kademlia's: of a record, a provider, or anything else. The key is hashed, as Kademlia does.
    pub fn distance_to(key: impl AsRef<[u8]>) -> Self {
        Self::Distance(Sha256::digest(key).into())
    }

    /// By distance to a peer, whose own distance is zero.
    pub fn distance_to_peer(peer: &PeerId) -> Self {
        Self::distance_to(peer.to_bytes())
    }

    /// Where to look for what, in this order: `limit` peers at most, without the first `offset`.
    pub(super) fn sort(
        self,
        inner: &Inner,
        conditions: &Conditions,
        slots: Slots,
        offset: usize,
        limit: Option<usize>,
    ) -> Slots {
        let sorting = Sorting {
            inner,
            conditions,
            offset,
            limit,
        };
        match self {
            Order::Confidence => sorting.sort(slots, confidence, |key| key),
            Order::LastSeen => {
                let seen = |view: View<'_>, rules: Rules<'_>| !view.last_seen(rules).0;
                sorting.sort(slots, seen, |key| key)
            }
            Order::Latency => sorting.sort(slots, latency, |key| key),
            // Hashing takes longer than all the rest: it is done without the lock.
            Order::Distance(key) => sorting.sort(
                slots,
                |view, _| view.id(),
                move |id| {
                    let mut distance: [u8; 32] = Sha256::digest(id.to_bytes()).into();
                    distance.iter_mut().zip(key).for_each(|(a, b)| *a ^= b);
                    distance
                },
            ),
        }
    }
}

/// A number that grows as confidence falls. What is not negative is ordered as its bits are.
fn confidence(view: View<'_>, rules: Rules<'_>) -> u64 {
    let confidence = view.confidence(rules);
    confidence.map_or(u64::MAX, |of| (!of.max(0.0).to_bits()).saturating_sub(1))
}

fn latency(view: View<'_>, _: Rules<'_>) -> u64 {
    let latency = view.latency();
    latency.map_or(u64::MAX, |latency| latency.as_micros().into())
}

struct Sorting<'a> {
    inner: &'a Inner,
    conditions: &'a Conditions,
    offset: usize,
    limit: Option<usize>,
}

impl Sorting<'_> {
    /// Takes something of each record under the lock, and makes a key of it without.
    fn sort<T, K: Ord>(
        &self,
        slots: Slots,
        take: impl Fn(View<'_>, Rules<'_>) -> T + Send,
        key: impl Fn(T) -> K,
    ) -> Slots {
        /// So many more than are wanted are kept before they are sifted.
        const SPARE: usize = 1_024;
        let marks = Marks::default();
        let most = self.limit.map(|limit| limit.saturating_add(self.offset));
        let mut met: Vec<(K, Spot)> = Vec::new();
        if self.limit == Some(0) {
            return Slots::Sorted(Vec::new(), marks);
        }
        let copy = {
            let marks = marks.clone();
            move |slot, view: View<'_>, rules: Rules<'_>| {
                let mark = marks.of(&view);
                (Spot { slot, mark }, take(view, rules))
            }
        };
        for page in Scan::new(self.inner, self.conditions.clone(), slots, copy) {
            met.extend(page.into_iter().map(|(spot, taken)| (key(taken), spot)));
            if let Some(most) = most
                && met.len() >= most.saturating_mul(2).max(SPARE)
            {
                met.select_nth_unstable(most);
                met.truncate(most);
            }
        }
        met.sort_unstable();
        met.truncate(most.unwrap_or(usize::MAX));
        let sorted = met.into_iter().skip(self.offset).map(|(_, spot)| spot);
        Slots::Sorted(sorted.collect(), marks)
    }
}
