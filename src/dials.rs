//! What the store offers for the dials that are under way. Several behaviours may ask for one dial, and learn more in
//! between: together they are to get no more than one of them would.

use std::collections::BTreeMap;

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;

/// So many dials are remembered, the latest ones. The swarm tells the end of each, unless it is dropped before.
const MAX_DIALS: usize = 1_024;

/// What was offered for which dial: at most [`Config::max_dial_addresses`](crate::Config::max_dial_addresses) each.
#[derive(Debug, Default)]
pub(crate) struct Dials(BTreeMap<ConnectionId, (PeerId, Vec<Multiaddr>)>);

impl Dials {
    /// What was offered for a dial so far.
    pub(crate) fn offered(&self, dial: ConnectionId, peer: &PeerId) -> &[Multiaddr] {
        let offered = self.0.get(&dial).filter(|(to, _)| to == peer);
        offered.map_or(&[], |(_, offers)| offers)
    }

    /// This is offered for a dial, beside what was before: both are dialled.
    pub(crate) fn offer(&mut self, dial: ConnectionId, peer: PeerId, offers: &[Multiaddr]) {
        // Whoever is asked next may know more.
        if offers.is_empty() {
            return;
        }
        let (to, all) = self.0.entry(dial).or_insert_with(|| (peer, Vec::new()));
        if *to != peer {
            (*to, *all) = (peer, Vec::new());
        }
        for offer in offers {
            if !all.contains(offer) {
                all.push(offer.clone());
            }
        }
        if self.0.len() > MAX_DIALS {
            self.0.pop_first();
        }
    }

    /// A dial has ended, whatever came of it.
    pub(crate) fn ended(&mut self, dial: ConnectionId) {
        self.0.remove(&dial);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_offered_is_kept_until_the_dial_ends_for_a_bounded_number_of_dials() {
        let mut dials = Dials::default();
        let (peer, offers) = (PeerId::random(), [Multiaddr::empty()]);
        let id = ConnectionId::new_unchecked;
        for n in 0..2 * MAX_DIALS {
            dials.offer(id(n), peer, &offers);
        }
        assert_eq!(dials.0.len(), MAX_DIALS);
        let last = id(2 * MAX_DIALS - 1);
        assert!(dials.offered(id(0), &peer).is_empty());
        assert_eq!(dials.offered(last, &peer), offers);
        assert!(dials.offered(last, &PeerId::random()).is_empty());
        // What is offered later comes to that.
        let more: Multiaddr = "/memory/1".parse().expect("an address");
        dials.offer(last, peer, &[more.clone(), offers[0].clone()]);
        assert_eq!(dials.offered(last, &peer), [offers[0].clone(), more]);
        dials.ended(last);
        assert!(dials.offered(last, &peer).is_empty());
    }
}
