//! Whether a node could read an entry: one answer, for [`migrate`](crate::migrate()) and for the command line.

use super::{
    codec::{self, StoredAddresses, Undecodable},
    key::Key,
};
use crate::{
    clock::{Clock, SystemClock, Timestamp},
    config::Config,
};

/// Reads the value under a key as a node with the default limits does. Addresses are returned, the other books not.
///
/// A node that allows for more reads larger values, too; which node will open a datastore, nobody can tell by its entries.
pub(crate) fn read(key: &Key, value: &[u8]) -> Result<Option<StoredAddresses>, Undecodable> {
    let config = Config::default();
    let now = Timestamp::new(SystemClock::default().started(), Default::default());
    match key {
        Key::Addresses(_) => codec::decode_addresses(value, &config, now).map(Some),
        Key::Protocols(_) => codec::decode_protocols(value, &config, now).map(|_| None),
        Key::Keys(peer) => codec::decode_public_key(value, peer).map(|_| None),
        Key::Metadata(..) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persist::limits::{MAX_VALUE_LEN, max_addresses_value, max_protocols_value};

    #[test]
    fn the_default_limits_read_no_value_beyond_the_general_one() {
        let config = Config::default();
        assert_eq!(max_addresses_value(&config), MAX_VALUE_LEN);
        assert_eq!(max_protocols_value(&config), MAX_VALUE_LEN);
    }
}
