//! Why something was not stored: one list of reasons, used as an error and as a counter.

use std::fmt;

use smallvec::SmallVec;

/// Why the store did not take something.
///
/// Calls for a single item return it as an error; calls for many items count it in
/// [`Changed::refused`](crate::Changed). The store counts every reason, see
/// [`PeerStore::refusals`](crate::PeerStore::refusals).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Refused {
    /// An address without any component.
    #[error("the address is empty")]
    EmptyAddress,
    /// An address that is longer than [`Config::max_address_len`](crate::Config::max_address_len).
    #[error("the address is longer than `max_address_len`")]
    AddressTooLong,
    /// An address that ends in another peer's `/p2p/<peer id>`.
    #[error("the address ends in the id of another peer")]
    ForeignPeerId,
    /// More addresses than [`Config::max_addresses_per_peer`](crate::Config::max_addresses_per_peer), all at
    /// least as valuable.
    #[error("the peer has `max_addresses_per_peer` addresses already, none of them worth less")]
    TooManyAddresses,
    /// An address that the peer itself dropped, or the user removed, and that only others still mention.
    #[error("the peer dropped the address, and only others still mention it")]
    DroppedAddress,
    /// An address that turned out to be this node's own, whoever claims it.
    #[error("the address is one of this node's own")]
    OwnAddress,
    /// A private, link-local or loopback address, told by somebody who is not in that network.
    #[error("the address is of a local network, and told from outside of it")]
    OutOfScope,
    /// One more peer that is said to be at an IP address, where
    /// [`Config::max_claims_per_ip`](crate::Config::max_claims_per_ip) are said to be already.
    #[error("`max_claims_per_ip` peers are said to be at this IP address already")]
    TooManyClaims,
    /// A `/dnsaddr` name that only strangers told: Kademlia, rendezvous, or another discovery protocol.
    #[error("`/dnsaddr` is not taken from hearsay")]
    DnsaddrByHearsay,
    /// One more DNS name than [`Config::max_hearsay_names`](crate::Config::max_hearsay_names) that strangers told of
    /// a peer.
    #[error("strangers told `max_hearsay_names` names of the peer already")]
    TooManyNames,
    /// An address that the [filter](crate::Config::with_address_filter) does not admit.
    #[error("the configured filter does not admit the address")]
    Filtered,
    /// A protocol name that does not begin with a slash.
    #[error("a protocol name begins with a slash")]
    InvalidProtocol,
    /// A protocol name that is longer than [`Config::max_protocol_len`](crate::Config::max_protocol_len).
    #[error("the protocol name is longer than `max_protocol_len`")]
    ProtocolTooLong,
    /// More protocols than [`Config::max_protocols_per_peer`](crate::Config::max_protocols_per_peer).
    #[error("the peer has `max_protocols_per_peer` protocols already")]
    TooManyProtocols,
    /// A public key whose hash is not the peer id.
    #[error("the public key does not belong to the peer id")]
    KeyMismatch,
    /// A metadata key of zero length.
    #[error("a metadata key has at least one character")]
    EmptyMetadataKey,
    /// A metadata key that is longer than [`Config::max_metadata_key_len`](crate::Config::max_metadata_key_len).
    #[error("the metadata key is longer than `max_metadata_key_len`")]
    MetadataKeyTooLong,
    /// A metadata value that is longer than
    /// [`Config::max_metadata_value_len`](crate::Config::max_metadata_value_len).
    #[error("the metadata value is longer than `max_metadata_value_len`")]
    MetadataValueTooLong,
    /// More metadata keys than
    /// [`Config::max_metadata_per_peer`](crate::Config::max_metadata_per_peer).
    #[error("the peer has `max_metadata_per_peer` metadata keys already")]
    TooManyMetadata,
    /// A tag name of zero length.
    #[error("a tag name has at least one character")]
    EmptyTagName,
    /// A tag name that is longer than [`Config::max_tag_name_len`](crate::Config::max_tag_name_len).
    #[error("the tag name is longer than `max_tag_name_len`")]
    TagNameTooLong,
    /// The value of a tag above [`MAX_TAG_VALUE`](crate::MAX_TAG_VALUE).
    #[error("the value of a tag is from 0 to 100")]
    TagValueOutOfRange,
    /// More tags than [`Config::max_tags_per_peer`](crate::Config::max_tags_per_peer).
    #[error("the peer has `max_tags_per_peer` tags already")]
    TooManyTags,
    /// A signed peer record that is longer than
    /// [`Config::max_signed_record_len`](crate::Config::max_signed_record_len).
    #[error("the signed peer record is longer than `max_signed_record_len`")]
    RecordTooLong,
    /// A signed peer record that is forged, about another peer than its signer, empty, or not readable.
    #[error("the signed peer record is not valid")]
    InvalidRecord,
    /// A signed peer record that is older than the one that the store holds, or that the peer has since replaced.
    #[error("the signed peer record is out of date")]
    OutdatedRecord,
    /// The local peer: it is never stored.
    #[error("the local peer is not stored")]
    LocalPeer,
    /// A new peer, while the store holds [`Config::max_peers`](crate::Config::max_peers) that are worth more.
    #[error("the store holds `max_peers` peers, none of them worth less")]
    StoreFull,
    /// A peer that [`PeerStore::delete_for`](crate::PeerStore::delete_for) told to forget for a while.
    #[error("the peer was deleted for a time that is not over")]
    Ignored,
}

impl Refused {
    /// Every reason, in the order of the enum.
    pub const ALL: &'static [Refused] = &[
        Refused::EmptyAddress,
        Refused::AddressTooLong,
        Refused::ForeignPeerId,
        Refused::TooManyAddresses,
        Refused::DroppedAddress,
        Refused::OwnAddress,
        Refused::OutOfScope,
        Refused::TooManyClaims,
        Refused::DnsaddrByHearsay,
        Refused::TooManyNames,
        Refused::Filtered,
        Refused::InvalidProtocol,
        Refused::ProtocolTooLong,
        Refused::TooManyProtocols,
        Refused::KeyMismatch,
        Refused::EmptyMetadataKey,
        Refused::MetadataKeyTooLong,
        Refused::MetadataValueTooLong,
        Refused::TooManyMetadata,
        Refused::EmptyTagName,
        Refused::TagNameTooLong,
        Refused::TagValueOutOfRange,
        Refused::TooManyTags,
        Refused::RecordTooLong,
        Refused::InvalidRecord,
        Refused::OutdatedRecord,
        Refused::LocalPeer,
        Refused::StoreFull,
        Refused::Ignored,
    ];
}

/// How often each reason for a refusal occurred since the store was opened.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Refusals([u64; Refused::ALL.len()]);

impl Refusals {
    /// How often the store refused something for this reason.
    pub fn get(&self, reason: Refused) -> u64 {
        self.0[reason as usize]
    }

    /// All refusals together.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons that occurred, each with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Refused, u64)> + '_ {
        Refused::ALL
            .iter()
            .map(|reason| (*reason, self.get(*reason)))
            .filter(|(_, count)| *count > 0)
    }

    #[cfg(feature = "serde")]
    pub(crate) fn set(&mut self, reason: Refused, count: u64) {
        self.0[reason as usize] = count;
    }

    pub(crate) fn count(&mut self, reason: Refused) {
        self.add(reason, 1);
    }

    pub(crate) fn add(&mut self, reason: Refused, times: usize) {
        let counter = &mut self.0[reason as usize];
        *counter = counter.saturating_add(times as u64);
    }

    pub(crate) fn merge(&mut self, reasons: &Reasons) {
        for (reason, times) in reasons.iter() {
            self.add(reason, times as usize);
        }
    }
}

/// Why one write refused what it did: nearly always for no reason at all.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Reasons(SmallVec<[(Refused, u64); 2]>);

impl Reasons {
    pub(crate) fn get(&self, reason: Refused) -> u64 {
        let mut reasons = self.iter();
        let found = reasons.find(|(other, _)| *other == reason);
        found.map_or(0, |(_, times)| times)
    }

    pub(crate) fn total(&self) -> u64 {
        self.iter().map(|(_, times)| times).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Refused, u64)> + '_ {
        self.0.iter().copied()
    }

    pub(crate) fn count(&mut self, reason: Refused) {
        self.add(reason, 1);
    }

    pub(crate) fn add(&mut self, reason: Refused, times: usize) {
        if times == 0 {
            return;
        }
        match self.0.iter_mut().find(|(other, _)| *other == reason) {
            Some((_, counter)) => *counter = counter.saturating_add(times as u64),
            None => self.0.push((reason, times as u64)),
        }
    }

    pub(crate) fn merge(&mut self, other: &Reasons) {
        for (reason, times) in other.iter() {
            self.add(reason, times as usize);
        }
    }
}

impl fmt::Debug for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
