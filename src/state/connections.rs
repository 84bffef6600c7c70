//! What dials and connections say.

use libp2p_core::{ConnectedPoint, Multiaddr};
use libp2p_identity::PeerId;

use super::{By, MAX_OWN, Now, State, Written, rules};
use crate::{
    address::bare_bytes,
    event::Cause,
    network::{Failure, Scope},
    record::{Books, Delta, Outcome, Record, Rules},
};

impl State {
    /// A dial failed for a reason that may lie with the network: it counts once that has proved to work.
    pub(crate) fn dial_failed(&mut self, peer: PeerId, address: &Multiaddr, now: Now) {
        self.dial_said_nothing(&peer, address, now);
        let address = address.clone();
        self.network.failed(Failure { peer, address });
    }

    /// A dial came to nothing, which does not count, or not yet.
    pub(crate) fn dial_said_nothing(&mut self, peer: &PeerId, address: &Multiaddr, now: Now) {
        let max_len = self.config.address_len_limit();
        if let Ok(Some(bare)) = bare_bytes(peer, address.as_ref(), max_len) {
            let scope = Scope::of(address);
            self.network.silent.note(peer, bare, scope, now.wall);
        }
    }

    fn dial_said_something(&mut self, peer: &PeerId, address: &Multiaddr) {
        let max_len = self.config.address_len_limit();
        if let Ok(Some(bare)) = bare_bytes(peer, address.as_ref(), max_len) {
            self.network.silent.clear(peer, bare);
        }
    }

    /// Something proved that the network works in the scope of an address.
    pub(crate) fn network_works(&mut self, address: &Multiaddr, now: Now) {
        self.scope_works(Scope::of(address), now);
    }

    pub(crate) fn scope_works(&mut self, scope: Scope, now: Now) {
        for Failure { peer, address } in self.network.proved(scope, now.elapsed) {
            self.dialled(peer, &address, Outcome::Failure, now);
        }
    }

    /// A dial said something about an address of a peer that is known.
    pub(crate) fn dialled(
        &mut self,
        peer: PeerId,
        address: &Multiaddr,
        outcome: Outcome,
        now: Now,
    ) -> Written {
        self.dial_said_something(&peer, address);
        self.edit_known(peer, By::Swarm, Cause::Dial, now, |record, rules, delta| {
            record.dialled(address, outcome, rules, delta);
        })
    }

    /// A dial of this node reached a peer, whether that is known or not.
    pub(crate) fn dial_succeeded(
        &mut self,
        peer: PeerId,
        address: &Multiaddr,
        now: Now,
    ) -> Written {
        let written = self.edit(peer, By::Swarm, Cause::Dial, now, |record, rules, delta| {
            record.dialled(address, Outcome::Success, rules, delta);
        });
        if self.gathering {
            self.anchors.reached(peer);
            self.save_anchors(false, now);
        }
        written
    }

    /// Has the peers written that this node dialled last, if they are others than before, and that is due.
    pub(crate) fn save_anchors(&mut self, at_once: bool, now: Now) {
        let due = self.anchors.take_due(at_once, now.elapsed);
        for peer in due.into_iter().flatten() {
            if let Some(slot) = self.table.find(&peer) {
                let books = (Books::ADDRESSES, Books::empty());
                self.mark(slot, peer, books, Vec::new(), now);
            }
        }
    }

    /// An address turned out to be this node's own.
    pub(crate) fn is_own(&mut self, peer: PeerId, address: Multiaddr, now: Now) -> Written {
        let cause = Cause::Dial;
        self.dial_said_something(&peer, &address);
        let written = self.edit_known(peer, By::Swarm, cause, now, |record, rules, delta| {
            record.is_own(&address, rules, delta);
        });
        if written.changed {
            self.remove_if_empty(&peer, cause, now);
        }
        if !self.own.contains(&address) {
            if self.own.len() >= MAX_OWN {
                self.own.pop_front();
            }
            self.own.push_back(address);
        }
        written
    }

    pub(crate) fn connections(&self, peer: &PeerId) -> usize {
        self.links.count(peer)
    }

    pub(crate) fn connected_peers(&self) -> impl ExactSizeIterator<Item = &PeerId> + '_ {
        self.links.peers()
    }

    pub(crate) fn connection_opened(&mut self, peer: PeerId, endpoint: &ConnectedPoint, now: Now) {
        self.links.open(peer, endpoint);
        self.dial_said_something(&peer, endpoint.get_remote_address());
        if let Some(slot) = self.table.find(&peer) {
            let moved = self.note_links(slot);
            let mut delta = Delta::default();
            if self.gathering {
                delta.save_later = moved;
            }
            self.finish(slot, peer, delta, Cause::Inbound, now);
        }
    }

    /// Notes who is connected, and from where: a signed record of a peer that was seen is more than a claim.
    fn note_links(&mut self, slot: u32) -> Books {
        let claimed = self.claimed(slot);
        let moved = self.table.note_links(slot, &self.links);
        self.update_claims(slot, &claimed);
        moved
    }

    /// A connection ended. Its address ages from now on, unless another connection uses it still.
    pub(crate) fn connection_closed(
        &mut self,
        peer: PeerId,
        address: &Multiaddr,
        dialled: bool,
        now: Now,
    ) {
        // While it is connected: else what has expired of it would say when it goes.
        let slot = self.find_collected(&peer, now);
        let Some(closed) = self.links.close(&peer, address, dialled) else {
            return;
        };
        if let Some(slot) = slot {
            self.note_links(slot);
            if closed.last {
                // It was there until now, however long ago it said anything.
                if let Some(packed) = self.table.packed_mut(slot) {
                    packed.set_heard(now.wall);
                }
                self.keep_shares(slot, now);
            }
        }
        if closed.unused {
            self.no_longer_in_use(peer, &closed.address, now);
        }
    }

    /// A connection goes on at another address: the one that was dialled ages from now on.
    pub(crate) fn connection_moved(
        &mut self,
        peer: PeerId,
        old: &Multiaddr,
        new: &Multiaddr,
        now: Now,
    ) {
        if let Some(unused) = self.links.moved(&peer, old, new) {
            self.no_longer_in_use(peer, &unused, now);
        }
    }

    fn no_longer_in_use(&mut self, peer: PeerId, address: &Multiaddr, now: Now) {
        // After shutdown too: it is no news, but the end of what held the address.
        self.change_silently(peer, now, |record, rules, delta| {
            record.no_longer_in_use(address, rules, delta);
        });
    }

    /// The store closes: what is in use now was good until now.
    pub(crate) fn touch_in_use(&mut self, now: Now) {
        let connected: Vec<PeerId> = self.links.peers().copied().collect();
        for peer in connected {
            self.change_silently(peer, now, |record, rules, delta| {
                record.touch_in_use(rules, delta);
            });
        }
    }

    /// What mDNS announces of a peer was good until now; `over` when it will announce nothing more.
    pub(crate) fn announced_until_now(&mut self, peer: PeerId, over: bool, now: Now) {
        self.change_silently(peer, now, |record, rules, delta| match over {
            true => record.no_longer_announced(rules, delta),
            false => record.touch_in_use(rules, delta),
        });
    }

    fn change_silently(
        &mut self,
        peer: PeerId,
        now: Now,
        rule: impl FnOnce(&mut Record, Rules<'_>, &mut Delta),
    ) {
        let Some(slot) = self.table.find(&peer) else {
            return;
        };
        let mut delta = Delta::default();
        let rules = rules!(self, now);
        self.table
            .change(slot, |record| rule(record, rules, &mut delta));
        if self.pending.is_closed() {
            // That something is no longer in use after the end is no change that was to be saved.
            delta.save_later = Books::empty();
        }
        self.finish(slot, peer, delta, Cause::Dial, now);
    }

    /// Something came over a live connection to a peer.
    pub(crate) fn heard_from(&mut self, peer: &PeerId, now: Now) {
        let used = self.links.scopes(peer);
        for scope in Scope::ALL.into_iter().filter(|scope| used[*scope as usize]) {
            self.scope_works(scope, now);
        }
    }

    /// The behaviour is gone, and with it what it knew of connections.
    pub(crate) fn all_connections_closed(&mut self, now: Now) {
        // As at shutdown: usually this comes just before it.
        self.touch_in_use(now);
        let connected: Vec<PeerId> = self.links.peers().copied().collect();
        for peer in connected {
            for (address, dialled) in self.links.addresses(&peer) {
                self.connection_closed(peer, &address, dialled, now);
            }
        }
    }
}
