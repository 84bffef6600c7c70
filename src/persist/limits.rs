//! How long a value may be: what is written must be read again.

use std::num::NonZeroUsize;

use crate::config::Config;

/// Larger values are not decoded, unless the limits of the store allow for them: at their defaults a peer's largest
/// value takes some tens of kilobytes.
pub(crate) const MAX_VALUE_LEN: usize = 1024 * 1024;

/// Bytes in fields that this version does not know, of one value. More are not kept, so that a value does not outgrow
/// its limit when it is written again, and a datastore does not choose how much memory a peer takes.
pub(super) const MAX_UNKNOWN_LEN: usize = 16 * 1024;

/// What numbers, times and lengths take beside an address, a tag or a protocol name.
const OVERHEAD: usize = 160;

/// The longest value of a peer's addresses that is read: at least the longest that is written under these limits.
pub(super) fn max_addresses_value(config: &Config) -> usize {
    let of =
        |count: NonZeroUsize, len: usize| count.get().saturating_mul(len.saturating_add(OVERHEAD));
    let max_len = config.max_address_len().get();
    // One that does not parse may be twice as long as one that does.
    of(config.max_addresses_per_peer(), max_len.saturating_mul(3))
        .saturating_add(of(
            config.max_tags_per_peer(),
            config.max_tag_name_len().get(),
        ))
        .saturating_add(config.max_signed_record_len().get())
        .saturating_add(MAX_UNKNOWN_LEN + OVERHEAD)
        .max(MAX_VALUE_LEN)
}

/// As [`max_addresses_value`], for protocols.
pub(super) fn max_protocols_value(config: &Config) -> usize {
    let longest = config.max_protocol_len().get().saturating_add(OVERHEAD);
    longest
        .saturating_mul(config.max_protocols_per_peer().get())
        .saturating_add(MAX_UNKNOWN_LEN + OVERHEAD)
        .max(MAX_VALUE_LEN)
}
