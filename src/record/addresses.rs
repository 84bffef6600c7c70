//! The rules for addresses: what adds, what replaces, what takes away, and who makes room for whom.

use super::{Books, Delta, Record, Rules};
use crate::{
    address::{Address, Entry, Sources, Standing, bare_bytes},
    claims::is_claim,
    clock::Timestamp,
    history::{Epoch, Flags, History, Step},
    quality,
    refusal::Refused,
};

/// How many dropped addresses of one peer are remembered as dropped.
const MAX_DROPPED: usize = 32;

impl Record {
    /// Adds what `sources` told. Nothing is dropped by it, except to make room.
    pub(crate) fn add_addresses(
        &mut self,
        told: &[impl AsRef<[u8]>],
        sources: Sources,
        rules: Rules<'_>,
        delta: &mut Delta,
    ) {
        let limit = rules.config.addresses_limit();
        delta.announced |= sources.contains(Sources::MDNS);
        let mut newcomers = Vec::new();
        for address in told {
            let Some(address) = self.normalise(address, rules, delta) else {
                continue;
            };
            if rules.is_own(&address, sources) {
                delta.refuse(Refused::OwnAddress);
                continue;
            }
            // Known ones are refreshed first, so that a newcomer does not displace one told in the same breath.
            if self.hear(&address, sources, rules, delta) || newcomers.contains(&address) {
                continue;
            }
            let refused = rules.refuses(self, &address, sources);
            if let Some(reason) =
                refused.or_else(|| self.refuses_name(&address, &newcomers, sources, rules))
            {
                delta.refuse(reason);
            } else if self.is_dropped(&address, sources, rules) {
                delta.refuse(Refused::DroppedAddress);
            } else if newcomers.len() < limit {
                newcomers.push(address);
            } else {
                delta.refuse(Refused::TooManyAddresses);
            }
        }
        for address in newcomers {
            let entry = self.entry(address, sources, rules);
            self.place(entry, rules, delta);
        }
    }

    /// Replaces the addresses by what `source` told as the complete list. Pinned ones stay. An empty list, or
    /// one of which nothing is fit to be stored, says nothing and changes nothing.
    pub(crate) fn replace_addresses(
        &mut self,
        told: &[impl AsRef<[u8]>],
        source: Sources,
        rules: Rules<'_>,
        delta: &mut Delta,
    ) {
        let limit = rules.config.addresses_limit();
        // Of a list that is too long the known ones are kept first: identify tells it in an order of chance, and
        // the book must not flap between two parts of it.
        let (mut complete, mut newcomers) = (Vec::new(), Vec::new());
        for address in told {
            let Some(address) = self.normalise(address, rules, delta) else {
                continue;
            };
            if rules.is_own(&address, source) {
                delta.refuse(Refused::OwnAddress);
                continue;
            }
            let part = match self.find(&address) {
                Some(_) => &mut complete,
                None => &mut newcomers,
            };
            if part.contains(&address) {
                continue;
            }
            if part.len() < limit {
                part.push(address);
            } else {
                delta.refuse(Refused::TooManyAddresses);
            }
        }
        for address in newcomers {
            if let Some(reason) = rules.refuses(self, &address, source) {
                delta.refuse(reason);
                continue;
            }
            if complete.len() < limit {
                complete.push(address);
            } else {
                delta.refuse(Refused::TooManyAddresses);
            }
        }
        if complete.is_empty() {
            return;
        }
        // What was dropped before is not in the list of today either: it stays dropped for as long again.
        let until = rules.now.after(rules.config.hearsay_lifetime());
        self.rare.keep_dropped(rules.now, |address| {
            (!complete.contains(address)).then_some(until)
        });

        let keep_proven = rules.config.keep_proven_on_replace();
        let (epoch, gone) = (self.epoch, &mut Vec::new());
        self.addresses.retain_mut(|entry| {
            if complete.contains(&entry.address) {
                return true;
            }
            let proven = rules.standing(&entry.history, epoch) == Standing::Proven;
            if entry.history.is_pinned() || (keep_proven && proven) {
                if entry.history.sources.contains(source) {
                    take_back(&mut entry.history, source);
                    delta.save_later |= Books::ADDRESSES;
                }
                return true;
            }
            gone.push(entry.clone());
            false
        });
        for entry in gone.drain(..) {
            self.drop_entry(entry, until, delta);
        }
        self.withdraw_signed(rules);
        self.add_addresses(&complete, source, rules, delta);
    }

    /// Takes addresses away for good: hearsay alone does not bring them back.
    pub(crate) fn remove_addresses(
        &mut self,
        told: &[impl AsRef<[u8]>],
        rules: Rules<'_>,
        delta: &mut Delta,
    ) {
        let until = rules.now.after(rules.config.hearsay_lifetime());
        for address in told {
            let Some(address) = self.normalise(address, rules, delta) else {
                continue;
            };
            if let Some(at) = self.position(&address) {
                let entry = self.addresses.remove(at);
                self.drop_entry(entry, until, delta);
            }
        }
    }

    /// Forgets every address, the unreadable ones and the signed record included.
    pub(crate) fn clear_addresses(&mut self, delta: &mut Delta) {
        if !self.addresses.is_empty() {
            delta.change(Books::ADDRESSES);
        }
        if let Some(foreign) = &mut self.rare.foreign {
            foreign.clear_addresses();
            delta.save |= Books::ADDRESSES;
        }
        if self.rare.signed.take().is_some() {
            delta.save |= Books::ADDRESSES;
        }
        self.rare.withdrawn = None;
        self.addresses.clear();
        self.rare.dropped.clear();
    }

    /// Forgets what has expired.
    pub(crate) fn expire_addresses(&mut self, rules: Rules<'_>, delta: &mut Delta) {
        let epoch = self.epoch;
        let before = self.addresses.len();
        self.addresses
            .retain(|entry| !rules.has_expired(&entry.history, epoch));
        self.age_proofs(rules);
        if self.addresses.len() < before {
            delta.change(Books::ADDRESSES);
        }
    }

    /// Notes which proofs have become too old to count: a peer is not worth more for them.
    pub(crate) fn age_proofs(&mut self, rules: Rules<'_>) {
        let epoch = self.epoch;
        for entry in &mut self.addresses {
            if rules
                .proof_ends(&entry.history, epoch)
                .is_some_and(|at| at <= rules.now)
            {
                entry.history.flags.insert(Flags::PROOF_AGED);
            }
        }
    }

    /// A discovery protocol no longer vouches for `told`, or for anything of this peer when that is `None`.
    /// An address without another claim goes.
    pub(crate) fn withdraw(
        &mut self,
        told: Option<&[impl AsRef<[u8]>]>,
        source: Sources,
        rules: Rules<'_>,
        delta: &mut Delta,
    ) {
        let told: Option<Vec<_>> = told.map(|told| {
            let bare = told.iter().filter_map(|a| self.normalise(a, rules, delta));
            bare.collect()
        });
        let epoch = self.epoch;
        self.addresses.retain_mut(|entry| {
            let named = told
                .as_ref()
                .is_none_or(|told| told.contains(&entry.address));
            if !named || !entry.history.sources.intersects(source) {
                return true;
            }
            take_back(&mut entry.history, source);
            delta.save_later |= Books::ADDRESSES;
            // What is left of it may have been too long ago.
            if entry.history.sources.is_empty() || rules.has_expired(&entry.history, epoch) {
                delta.change(Books::ADDRESSES);
                return false;
            }
            true
        });
    }

    /// A signed record of the peer contains these addresses. It certifies those that are known, and adds none.
    pub(crate) fn certify(
        &mut self,
        signed: &[impl AsRef<[u8]>],
        rules: Rules<'_>,
        delta: &mut Delta,
    ) {
        for address in signed {
            let Some(address) = self.normalise(address, rules, delta) else {
                continue;
            };
            if let Some(entry) = self.find(&address)
                && !entry.history.sources.contains(Sources::CERTIFIED)
            {
                entry.history.sources.insert(Sources::CERTIFIED);
                delta.save_later |= Books::ADDRESSES;
            }
        }
    }

    /// The user no longer pins these addresses; they stay as what others told.
    pub(crate) fn unpin(&mut self, told: &[impl AsRef<[u8]>], rules: Rules<'_>, delta: &mut Delta) {
        for address in told {
            let Some(address) = self.normalise(address, rules, delta) else {
                continue;
            };
            let now = self.step(rules.now);
            if let Some(entry) = self.find(&address)
                && entry.history.is_pinned()
            {
                entry.history.sources.remove(Sources::PINNED);
                entry.history.sources.insert(Sources::APPLICATION);
                // Its time begins now: until now it was not to be forgotten.
                entry.history.last_heard = now;
                delta.save |= Books::ADDRESSES;
            }
        }
    }

    /// Others are known to be where these addresses are: what only strangers told goes.
    pub(crate) fn displace(&mut self, is_there: impl Fn(&[u8]) -> bool, delta: &mut Delta) {
        let before = self.addresses.len();
        self.addresses
            .retain(|entry| !is_claim(entry.history.sources) || !is_there(entry.address.as_ref()));
        if self.addresses.len() < before {
            delta.change(Books::ADDRESSES);
        }
    }

    pub(crate) fn find(&mut self, address: &Address) -> Option<&mut Entry> {
        self.addresses
            .iter_mut()
            .find(|entry| entry.address == *address)
    }

    pub(super) fn position(&self, address: &Address) -> Option<usize> {
        self.addresses
            .iter()
            .position(|entry| entry.address == *address)
    }

    pub(super) fn normalise(
        &self,
        address: &(impl AsRef<[u8]> + ?Sized),
        rules: Rules<'_>,
        delta: &mut Delta,
    ) -> Option<Address> {
        let max_len = rules.config.address_len_limit();
        match bare_bytes(&self.id, address.as_ref(), max_len) {
            Ok(address) => address.map(Address::from),
            Err(reason) => {
                delta.refuse(reason);
                None
            }
        }
    }

    /// The step of a moment; moves the epoch of the peer on when it does not reach so far.
    pub(super) fn step(&mut self, at: Timestamp) -> Step {
        if !self.epoch.fits(at) {
            let later = Epoch::for_time(at);
            for entry in &mut self.addresses {
                self.epoch.translate(later, &mut entry.history);
            }
            self.epoch = later;
        }
        self.epoch.step(at)
    }

    pub(super) fn entry(&mut self, address: Address, sources: Sources, rules: Rules<'_>) -> Entry {
        let now = self.step(rules.now);
        let mut history = History {
            sources,
            first_heard: now,
            last_heard: now,
            ..History::default()
        };
        history
            .flags
            .set(Flags::ANNOUNCED, sources.contains(Sources::MDNS));
        if self.connected {
            // It may have been dropped while a connection to it is open: whoever tells it again, it is in use.
            history.flags |= rules.links.flags(&self.id, address.as_ref());
            if history.flags.contains(Flags::IN_USE) {
                history.sources |= Sources::DIALLED;
                history.success = now;
            }
        }
        Entry { address, history }
    }

    /// Notes that `sources` told an address, if it is known.
    pub(super) fn hear(
        &mut self,
        address: &Address,
        sources: Sources,
        rules: Rules<'_>,
        delta: &mut Delta,
    ) -> bool {
        let now = self.step(rules.now);
        let epoch = self.epoch;
        let Some(entry) = self.find(address) else {
            return false;
        };
        let proven = rules.standing(&entry.history, epoch) == Standing::Proven;
        if sources.contains(Sources::MDNS) {
            entry.history.flags.insert(Flags::ANNOUNCED);
        }
        if !entry.history.sources.contains(sources) {
            // A first success must survive a crash; another source of hearsay may wait.
            let weight = (Sources::DIALLED | Sources::PINNED).intersects(sources);
            let books = if weight {
                &mut delta.save
            } else {
                &mut delta.save_later
            };
            *books |= Books::ADDRESSES;
            entry.history.sources.insert(sources);
        }
        if rules.is_word_stale(&entry.history, epoch) {
            entry.history.last_heard = now;
            // It is the proof that keeps a proven one.
            let books = if proven {
                &mut delta.save_later
            } else {
                &mut delta.save
            };
            *books |= Books::ADDRESSES;
        }
        if rules.is_proof_stale(&entry.history, epoch) {
            entry.history.success = now;
            delta.save |= Books::ADDRESSES;
        }
        true
    }

    /// Whether the address was dropped not long ago, and only others mention it now.
    fn is_dropped(&mut self, address: &Address, sources: Sources, rules: Rules<'_>) -> bool {
        self.rare.dropped.retain(|(_, until)| *until > rules.now);
        if Sources::HEARSAY
            .difference(Sources::APPLICATION)
            .contains(sources)
        {
            return self
                .rare
                .dropped
                .iter()
                .any(|(dropped, _)| dropped == address);
        }
        self.rare.dropped.retain(|(dropped, _)| dropped != address);
        false
    }

    /// Notes what was taken away, so that hearsay alone does not bring it back.
    pub(super) fn drop_entry(&mut self, entry: Entry, until: Timestamp, delta: &mut Delta) {
        delta.change(Books::ADDRESSES);
        if entry.history.is_inbound_only() {
            // Nobody gossips the port of a connection.
            return;
        }
        if self.rare.dropped.len() >= MAX_DROPPED {
            self.rare.dropped.remove(0);
        }
        self.rare.dropped.push((entry.address, until));
    }

    /// Puts a new address in, in the place of a less valuable one when there is no room.
    pub(super) fn place(&mut self, entry: Entry, rules: Rules<'_>, delta: &mut Delta) {
        if self.addresses.len() >= rules.config.addresses_limit() {
            let Some(victim) = self.least_valuable(&entry, rules) else {
                delta.refuse(Refused::TooManyAddresses);
                return;
            };
            self.addresses.remove(victim);
        }
        delta.changed |= Books::ADDRESSES;
        if !entry.history.is_inbound_only() {
            delta.save |= Books::ADDRESSES;
        }
        self.addresses.push(entry);
    }

    /// The address that is worth less than `newcomer`, if there is one: never a pinned one, nor one in use.
    fn least_valuable(&self, newcomer: &Entry, rules: Rules<'_>) -> Option<usize> {
        let spared = |entry: &Entry| {
            entry.history.is_pinned() || entry.history.flags.contains(Flags::IN_USE)
        };
        let (at, victim) = self
            .addresses
            .iter()
            .enumerate()
            .filter(|(_, entry)| !spared(entry))
            .min_by_key(|(_, entry)| {
                (
                    !rules.has_expired(&entry.history, self.epoch),
                    rules.standing(&entry.history, self.epoch),
                    entry.history.last_heard,
                )
            })?;
        let worth = rules.standing(&victim.history, self.epoch);
        let needed = rules.standing(&newcomer.history, self.epoch);
        let heard = self
            .epoch
            .time(victim.history.last_heard)
            .unwrap_or_default();
        let lifetime = quality::lifetime(worth, &victim.history, self.epoch, rules.config);
        let lifetime = quality::refreshed_by(worth, lifetime);
        let yields = newcomer.history.is_pinned()
            || rules.has_expired(&victim.history, self.epoch)
            || worth < needed
            || (worth == needed && rules.is_stale(heard, lifetime));
        yields.then_some(at)
    }
}

/// Whether a success is worth a write: the first one in each quarter of the lifetime of a proof, counted from a fixed
/// moment. So what is on disk is in the same quarter as what is known, however often that changes.
pub(super) fn is_worth_saving(before: Step, now: Step, epoch: Epoch, rules: Rules<'_>) -> bool {
    let quarter = (rules.config.proven_lifetime() / 4).as_secs().max(1);
    let quarter_of = |step| epoch.time(step).map(|at: Timestamp| at.0 / quarter);
    quarter_of(before) != quarter_of(now)
}

/// Whoever told an address tells it no longer.
fn take_back(history: &mut History, source: Sources) {
    history.sources.remove(source);
    if source.contains(Sources::MDNS) {
        history.flags.remove(Flags::ANNOUNCED);
    }
}
