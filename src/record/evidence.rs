//! The rules for addresses that were in use: what came of a dial, where a connection is and was, and what this node saw itself.

use libp2p_core::Multiaddr;

use super::{Books, Delta, Record, Rules, addresses::is_worth_saving};
use crate::{
    address::{Address, Sources, Standing},
    history::{Epoch, Flags, History, Step},
    quality,
};

/// What came of a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The handshake gave the peer's id.
    Success,
    /// Nobody answered, or not in the right way.
    Failure,
    /// Another peer answered.
    WrongPeer,
}

impl Record {
    /// A dial of this node to the address said something about it.
    pub(crate) fn dialled(
        &mut self,
        address: &Multiaddr,
        outcome: Outcome,
        rules: Rules<'_>,
        delta: &mut Delta,
    ) {
        let Some(address) = self.normalise(address, rules, delta) else {
            return;
        };
        match outcome {
            Outcome::Success => self.dial_succeeded(address, rules, delta),
            Outcome::Failure => self.dial_failed(&address, false, rules, delta),
            Outcome::WrongPeer => {
                self.dial_failed(&address, true, rules, delta);
                self.block(&address, rules, delta);
            }
        }
    }

    fn dial_succeeded(&mut self, address: Address, rules: Rules<'_>, delta: &mut Delta) {
        self.rare.dropped.retain(|(dropped, _)| *dropped != address);
        self.first_proven.get_or_insert(rules.now);
        let now = self.step(rules.now);
        let epoch = self.epoch;
        let Some(entry) = self.find(&address) else {
            let mut entry = self.entry(address, Sources::DIALLED, rules);
            // Proof is worth more than what it displaces, so that it counts before room is made.
            rules
                .model
                .succeeded(&mut entry.history, self.epoch, Standing::Hearsay, rules.now);
            entry.history.success = self.step(rules.now);
            entry.history.flags.insert(Flags::IN_USE);
            self.place(entry, rules, delta);
            return;
        };
        let standing = rules.standing(&entry.history, epoch);
        delta.outcomes.push((standing, true));
        let history = &mut entry.history;
        let before = *history;
        rules.model.succeeded(history, epoch, standing, rules.now);
        history.flags.insert(Flags::IN_USE);
        history.flags.remove(Flags::PROOF_AGED);
        if quality::is_worth_saving(&before, history, epoch, standing) {
            delta.save_later |= Books::ADDRESSES;
        }
        if is_worth_saving(history.success, now, epoch, rules) {
            delta.save |= Books::ADDRESSES;
        }
        history.success = now;
        self.hear(&address, Sources::DIALLED, rules, delta);
    }

    fn dial_failed(
        &mut self,
        address: &Address,
        wrong_peer: bool,
        rules: Rules<'_>,
        delta: &mut Delta,
    ) {
        self.step(rules.now);
        let epoch = self.epoch;
        let Some(entry) = self.find(address) else {
            return;
        };
        let standing = rules.standing(&entry.history, epoch);
        delta.outcomes.push((standing, false));
        let blocked = rules.is_blocked(&entry.history, epoch);
        rules
            .model
            .failed(&mut entry.history, epoch, standing, wrong_peer, rules.now);
        // That nobody answered since does not mean that the other peer is gone.
        entry
            .history
            .flags
            .set(Flags::WRONG_PEER, wrong_peer || blocked);
        delta.save_later |= Books::ADDRESSES;
    }

    /// Another peer answered there. Unless there was once reason to believe in the address, it goes, and hearsay
    /// does not bring it back for hours.
    fn block(&mut self, address: &Address, rules: Rules<'_>, delta: &mut Delta) {
        let Some(at) = self.position(address) else {
            return;
        };
        let history = &self.addresses[at].history;
        let trusted = Sources::PINNED | Sources::CERTIFIED | Sources::DIALLED;
        if history.sources.intersects(trusted) {
            return;
        }
        let entry = self.addresses.remove(at);
        let until = rules.now.after(rules.config.wrong_peer_block());
        self.drop_entry(entry, until, delta);
    }

    /// This node itself answered at the address: it goes, whoever told it. What the user pinned stays, as an address where
    /// another peer answered.
    pub(crate) fn is_own(&mut self, address: &Multiaddr, rules: Rules<'_>, delta: &mut Delta) {
        let address = &Address::from(address.as_ref());
        let Some(at) = self.position(address) else {
            return;
        };
        if self.addresses[at].history.is_pinned() {
            self.dial_failed(address, true, rules, delta);
        } else {
            self.addresses.remove(at);
            delta.change(Books::ADDRESSES);
        }
    }

    /// The last connection to an address of this peer that this node dialled is closed: from now on it ages. The
    /// address is in the form that is stored.
    pub(crate) fn no_longer_in_use(
        &mut self,
        address: &Multiaddr,
        rules: Rules<'_>,
        delta: &mut Delta,
    ) {
        let now = self.step(rules.now);
        let epoch = self.epoch;
        let Some(entry) = self.find(&Address::from(address.as_ref())) else {
            return;
        };
        let history = &mut entry.history;
        if history.flags.contains(Flags::HELD) {
            history.flags.remove(Flags::HELD);
            ages_from_now(history, now, epoch, rules, delta);
        }
        if !history.flags.contains(Flags::IN_USE) {
            return;
        }
        history.flags.remove(Flags::IN_USE);
        if is_worth_saving(history.success, now, epoch, rules) {
            delta.save |= Books::ADDRESSES;
        }
        (history.success, history.last_heard) = (now, now);
    }

    /// What is in use was good until now: noted before the store closes, and used to find the last peers again.
    pub(crate) fn touch_in_use(&mut self, rules: Rules<'_>, delta: &mut Delta) {
        let now = self.step(rules.now);
        let epoch = self.epoch;
        for entry in &mut self.addresses {
            let history = &mut entry.history;
            let kept = (history.success, history.last_heard);
            if history.flags.contains(Flags::IN_USE) && kept != (now, now) {
                (history.success, history.last_heard) = (now, now);
                delta.save_later |= Books::ADDRESSES;
            } else if history.flags.intersects(Flags::HELD | Flags::ANNOUNCED)
                && is_worth_touching(history, epoch, rules)
            {
                history.last_heard = now;
                delta.save_later |= Books::ADDRESSES;
            }
        }
    }

    /// Nobody will say any more when what mDNS announced is over: from now on it ages.
    pub(crate) fn no_longer_announced(&mut self, rules: Rules<'_>, delta: &mut Delta) {
        let now = self.step(rules.now);
        let epoch = self.epoch;
        for entry in &mut self.addresses {
            let history = &mut entry.history;
            if history.flags.contains(Flags::ANNOUNCED) {
                history.flags.remove(Flags::ANNOUNCED);
                ages_from_now(history, now, epoch, rules, delta);
            }
        }
    }

    /// No transport of this run speaks the address.
    pub(crate) fn dial_unsupported(
        &mut self,
        address: &Multiaddr,
        rules: Rules<'_>,
        delta: &mut Delta,
    ) {
        let Some(address) = self.normalise(address, rules, delta) else {
            return;
        };
        if let Some(entry) = self.find(&address) {
            entry.history.flags.insert(Flags::UNSUPPORTED);
        }
    }

    /// An inbound connection came from the address: stored only while nothing better is known.
    pub(crate) fn seen_inbound(
        &mut self,
        address: &Multiaddr,
        rules: Rules<'_>,
        delta: &mut Delta,
    ) {
        if self
            .addresses
            .iter()
            .all(|entry| entry.history.is_inbound_only())
        {
            self.add_addresses(
                std::slice::from_ref(address),
                Sources::INBOUND,
                rules,
                delta,
            );
        }
    }

    /// If the peer has come from the address, that does not expire until the connection ends.
    pub(crate) fn hold_address(&mut self, address: &Multiaddr, rules: Rules<'_>) {
        if let Some(address) = self.normalise(address, rules, &mut Delta::default()) {
            let held = rules.links.flags(&self.id, address.as_ref()) & Flags::HELD;
            if let Some(entry) = self.find(&address) {
                entry.history.flags |= held;
            }
        }
    }
}

/// Whether what is on disk would be misleading about when an address was last heard of that is held until now. What was
/// only seen on inbound connections is not on disk.
fn is_worth_touching(history: &History, epoch: Epoch, rules: Rules<'_>) -> bool {
    let kept = epoch.time(history.last_heard).unwrap_or_default();
    let told = history.told();
    let lifetime = quality::lifetime(told, history, epoch, rules.config);
    !history.is_inbound_only() && rules.is_stale(kept, quality::refreshed_by(told, lifetime))
}

/// What did not age until now begins to.
fn ages_from_now(
    history: &mut History,
    now: Step,
    epoch: Epoch,
    rules: Rules<'_>,
    delta: &mut Delta,
) {
    if is_worth_touching(history, epoch, rules) {
        delta.save_later |= Books::ADDRESSES;
    }
    history.last_heard = now;
}
