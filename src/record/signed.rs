//! The rules for signed peer records: which one holds, and what it does to the addresses.

use std::{hash::BuildHasher, num::NonZeroU64, sync::Arc};

use libp2p_core::Multiaddr;

use super::{Books, Delta, Record, Rules};
use crate::{
    address::{Address, Sources},
    refusal::Refused,
    signed::{SignedRecord, Verified},
};

/// What became of a signed peer record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It holds from now on.
    New,
    /// It held already.
    Repeat,
    /// One with a higher sequence number holds.
    Outdated { held: u64 },
    /// It held, until the peer itself dropped all of its addresses.
    Withdrawn,
    /// None of its addresses could be stored.
    NoAddress,
}

impl Record {
    /// Takes a record from wherever it comes: its addresses are added as certified.
    pub(crate) fn take_signed(
        &mut self,
        new: &Verified,
        rules: Rules<'_>,
        delta: &mut Delta,
    ) -> Verdict {
        let verdict = self.compare(&new.record, rules);
        match verdict {
            Verdict::New => {}
            // It adds nothing: what the peer or the user dropped since then would come back.
            Verdict::Repeat => {
                for address in &new.addresses {
                    if let Some(address) = self.normalise(address, rules, delta)
                        && !rules.is_own(&address, Sources::CERTIFIED)
                    {
                        self.hear(&address, Sources::CERTIFIED, rules, delta);
                    }
                }
                return verdict;
            }
            _ => {
                delta.refuse(Refused::OutdatedRecord);
                return verdict;
            }
        }
        let addresses = self.usable(&new.addresses, rules, delta);
        if addresses.is_empty() {
            return Verdict::NoAddress;
        }
        // Those of the record before make room for new ones, and are as they were if none of these is taken.
        let before = (
            self.addresses.clone(),
            self.rare.dropped.clone(),
            self.epoch,
        );
        let mut done = Delta::default();
        self.supersede(&addresses, &mut done);
        self.add_addresses(&addresses, Sources::CERTIFIED, rules, &mut done);
        delta.refused.merge(&done.refused);
        if !self.has_certified() {
            (self.addresses, self.rare.dropped, self.epoch) = before;
            return Verdict::NoAddress;
        }
        delta.changed |= done.changed;
        delta.save |= done.save;
        delta.save_later |= done.save_later;
        self.hold(&new.record);
        delta.save |= Books::ADDRESSES;
        Verdict::New
    }

    /// Takes a record that came beside the peer's own list of addresses: it certifies those that are known and adds
    /// none, as after a push identify still has the record of before.
    pub(crate) fn certify_by(&mut self, new: &Verified, rules: Rules<'_>, delta: &mut Delta) {
        match self.compare(&new.record, rules) {
            Verdict::Outdated { .. } => return delta.refuse(Refused::OutdatedRecord),
            Verdict::Repeat => return self.certify(&new.addresses, rules, delta),
            // The peer itself lists its addresses now, so that what it withdrew may hold again.
            _ => {}
        }
        let addresses = self.usable(&new.addresses, rules, delta);
        if !addresses.iter().any(|address| self.find(address).is_some()) {
            return;
        }
        self.supersede(&addresses, delta);
        self.certify(&addresses, rules, delta);
        if self.rare.signed.is_none() {
            delta.save |= Books::ADDRESSES;
        }
        // Peers of rust-libp2p sign anew at each exchange: that alone is not worth a commit.
        delta.save_later |= Books::ADDRESSES;
        self.hold(&new.record);
    }

    /// Whether this is the envelope that is held.
    pub(crate) fn holds(&self, envelope: &[u8]) -> bool {
        let held = self.rare.signed.as_deref();
        held.is_some_and(|held| *held.envelope == *envelope)
    }

    /// The addresses changed: without any of its own, the envelope goes.
    pub(crate) fn release_signed(&mut self) {
        if self.rare.signed.is_some() && !self.has_certified() {
            self.rare.signed = None;
        }
    }

    /// The peer told another list of addresses. If that leaves none of its signed record, the record does not come
    /// back by whoever still has a copy.
    pub(crate) fn withdraw_signed(&mut self, rules: Rules<'_>) {
        if !self.has_certified()
            && let Some(signed) = self.rare.signed.take()
        {
            self.rare.withdrawn = Some(fingerprint(&signed, rules));
        }
    }

    /// The signature of the record that was loaded from the datastore was checked: it is `checked`, or not sound.
    pub(crate) fn checked_stored(&mut self, bytes: &Arc<[u8]>, checked: Option<SignedRecord>) {
        let Some(held) = self.rare.signed.as_deref_mut() else {
            return;
        };
        if !Arc::ptr_eq(&held.envelope, bytes) {
            return;
        }
        match checked {
            Some(checked) => {
                held.verified = true;
                // The envelope counts, not what stands beside it.
                (held.seq, held.format) = (checked.seq, checked.format);
            }
            None => self.rare.signed = None,
        }
    }

    fn compare(&self, new: &SignedRecord, rules: Rules<'_>) -> Verdict {
        match self.rare.signed.as_deref() {
            Some(held) if held.envelope == new.envelope => Verdict::Repeat,
            Some(held) if held.seq > new.seq => Verdict::Outdated { held: held.seq },
            None if self.rare.withdrawn == Some(fingerprint(new, rules)) => Verdict::Withdrawn,
            _ => Verdict::New,
        }
    }

    fn usable(&self, addresses: &[Multiaddr], rules: Rules<'_>, delta: &mut Delta) -> Vec<Address> {
        let usable = addresses.iter();
        usable
            .filter_map(|address| self.normalise(address, rules, delta))
            .collect()
    }

    /// Takes the certified standing from addresses that are not in the new record.
    fn supersede(&mut self, new: &[Address], delta: &mut Delta) {
        for entry in &mut self.addresses {
            let sources = &mut entry.history.sources;
            if sources.contains(Sources::CERTIFIED) && !new.contains(&entry.address) {
                sources.remove(Sources::CERTIFIED);
                if sources.is_empty() {
                    // The peer no longer says it: what remains is that somebody did.
                    sources.insert(Sources::DISCOVERY);
                }
                delta.save_later |= Books::ADDRESSES;
            }
        }
    }

    fn hold(&mut self, new: &SignedRecord) {
        self.rare.signed = Some(Box::new(new.clone()));
        self.rare.withdrawn = None;
    }

    fn has_certified(&self) -> bool {
        let mut addresses = self.addresses.iter();
        addresses.any(|entry| entry.history.sources.contains(Sources::CERTIFIED))
    }
}

fn fingerprint(record: &SignedRecord, rules: Rules<'_>) -> NonZeroU64 {
    NonZeroU64::new(rules.secret.hash_one(&record.envelope)).unwrap_or(NonZeroU64::MIN)
}
