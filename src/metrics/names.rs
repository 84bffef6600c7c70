//! The values of labels. They are closed sets: none holds anything that a stranger chose.

use super::{
    Happened,
    meter::{Dialled, Rank},
};
use crate::{address::Standing, event::Cause, record::Class, refusal::Refused};

pub(super) const CLASSES: [(Class, &str); 6] = [
    (Class::Hearsay, "hearsay"),
    (Class::Inbound, "inbound"),
    (Class::SelfTold, "self_told"),
    (Class::Proven, "proven"),
    (Class::Connected, "connected"),
    (Class::Pinned, "pinned"),
];

pub(super) const STANDINGS: [(Standing, &str); 4] = [
    (Standing::Inbound, "inbound"),
    (Standing::Hearsay, "hearsay"),
    (Standing::SelfTold, "self_told"),
    (Standing::Proven, "proven"),
];

pub(super) const CAUSES: [(Cause, &str); super::counts::CAUSES] = [
    (Cause::Identify, "identify"),
    (Cause::Dial, "dial"),
    (Cause::Inbound, "inbound"),
    (Cause::Discovery, "discovery"),
    (Cause::User, "user"),
    (Cause::Expired, "expired"),
    (Cause::Evicted, "evicted"),
];

pub(super) fn of_event(what: Happened) -> &'static str {
    match what {
        Happened::PeerAdded => "peer_added",
        Happened::AddressesChanged => "addresses_changed",
        Happened::ProtocolsChanged => "protocols_changed",
        Happened::PublicKeyKnown => "public_key_known",
        Happened::MetadataChanged => "metadata_changed",
        Happened::TagsChanged => "tags_changed",
        Happened::LatencyChanged => "latency_changed",
        Happened::PeerRemoved => "peer_removed",
    }
}

pub(super) fn of_outcome(outcome: Dialled) -> &'static str {
    match outcome {
        Dialled::Success => "success",
        Dialled::Failure => "failure",
        Dialled::WrongPeer => "wrong_peer",
        Dialled::Unsupported => "unsupported",
        Dialled::LocalError => "local_error",
    }
}

pub(super) fn of_rank(rank: Rank) -> &'static str {
    match rank {
        Rank::First => "1",
        Rank::Second => "2",
        Rank::Third => "3",
        Rank::Later => "4+",
        Rank::NotOffered => "not_offered",
    }
}

pub(super) fn of_reason(reason: Refused) -> &'static str {
    match reason {
        Refused::EmptyAddress => "empty_address",
        Refused::AddressTooLong => "address_too_long",
        Refused::ForeignPeerId => "foreign_peer_id",
        Refused::TooManyAddresses => "too_many_addresses",
        Refused::DroppedAddress => "dropped_address",
        Refused::OwnAddress => "own_address",
        Refused::OutOfScope => "out_of_scope",
        Refused::TooManyClaims => "too_many_claims",
        Refused::DnsaddrByHearsay => "dnsaddr_by_hearsay",
        Refused::TooManyNames => "too_many_names",
        Refused::Filtered => "filtered",
        Refused::InvalidProtocol => "invalid_protocol",
        Refused::ProtocolTooLong => "protocol_too_long",
        Refused::TooManyProtocols => "too_many_protocols",
        Refused::KeyMismatch => "key_mismatch",
        Refused::EmptyMetadataKey => "empty_metadata_key",
        Refused::MetadataKeyTooLong => "metadata_key_too_long",
        Refused::MetadataValueTooLong => "metadata_value_too_long",
        Refused::TooManyMetadata => "too_many_metadata",
        Refused::EmptyTagName => "empty_tag_name",
        Refused::TagNameTooLong => "tag_name_too_long",
        Refused::TagValueOutOfRange => "tag_value_out_of_range",
        Refused::TooManyTags => "too_many_tags",
        Refused::RecordTooLong => "record_too_long",
        Refused::InvalidRecord => "invalid_record",
        Refused::OutdatedRecord => "outdated_record",
        Refused::LocalPeer => "local_peer",
        Refused::StoreFull => "store_full",
        Refused::Ignored => "ignored",
    }
}
