//! DNS names that strangers tell: each dial to one asks a server that its owner chose, and one domain has endlessly
//! many of them.

use libp2p_core::multiaddr::Protocol;

use super::{Record, Rules};
use crate::{
    address::{Address, Entry, Sources, is_nameless, protocols},
    claims::is_claim,
    refusal::Refused,
};

impl Record {
    /// Why a name is not taken from these sources beside what is known of the peer and the other `newcomers`, if so.
    pub(super) fn refuses_name(
        &self,
        address: &Address,
        newcomers: &[Address],
        sources: Sources,
        rules: Rules<'_>,
    ) -> Option<Refused> {
        // What the peer signed is its own word here, whoever passed it on.
        if sources.contains(Sources::CERTIFIED) || !is_claim(sources) || !is_name(address) {
            return None;
        }
        // What stands behind it is for its owner to say, at each look-up anew, and may be any number of addresses.
        if protocols(address.as_ref()).any(|p| matches!(p, Protocol::Dnsaddr(_))) {
            return Some(Refused::DnsaddrByHearsay);
        }
        let known = self.addresses.iter().filter(|entry| is_strangers(entry));
        let known = known.filter(|entry| is_name(&entry.address)).count();
        let new = newcomers.iter().filter(|newcomer| is_name(newcomer));
        (known + new.count() >= rules.config.max_hearsay_names()).then_some(Refused::TooManyNames)
    }
}

/// Whether strangers alone tell it.
fn is_strangers(entry: &Entry) -> bool {
    let better = Sources::PINNED | Sources::SELF_TOLD | Sources::DIALLED;
    is_claim(entry.history.sources) && !entry.history.sources.intersects(better)
}

fn is_name(address: &Address) -> bool {
    let address = address.as_ref();
    !is_nameless(address)
        && protocols(address).any(|protocol| {
            matches!(
                protocol,
                Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_)
            )
        })
}
