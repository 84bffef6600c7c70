//! How the keys of a [`Datastore`](crate::Datastore) are spelt in Redis.
//!
//! | key | in Redis |
//! | --- | --- |
//! | `/peers/addrs/<b32>` (also `protos`, `keys`) | `<prefix>/peers/addrs/{<b32>}` |
//! | `/peers/metadata/<b32>/<key>` | `<prefix>/peers/metadata/{<b32>}/<key>` |
//! | any other `<key>` | `<prefix><key>` |
//! | | `<prefix>/peers/metadata/names:{<b32>}`: a set, the metadata keys of the peer |
//!
//! Redis takes what stands between the first braces as the slot's name, so that all of one peer is in one slot. The
//! braces are put round whatever stands in the place of `<b32>`, its own braces included: no two keys meet. Nothing
//! else in a book begins with a brace or with `names:`, so that the set meets no key.

use crate::persist::key::{ADDRESSES, KEYS, METADATA, PROTOCOLS};

/// How many slots a Redis Cluster has.
pub(crate) const SLOTS: u16 = 16_384;

const BOOKS: [&str; 4] = [ADDRESSES, PROTOCOLS, KEYS, METADATA];

/// What the name of the set begins with that holds the metadata keys of a peer.
const NAMES: &str = "names:";

/// A key in the book of a peer: the book, what stands in the place of `<b32>`, and the rest from the next `/` on.
fn split(key: &str) -> Option<(&'static str, &str, &str)> {
    let book = BOOKS.into_iter().find(|book| key.starts_with(book))?;
    let peer_and_rest = &key[book.len()..];
    let end = peer_and_rest.find('/').unwrap_or(peer_and_rest.len());
    let (peer, rest) = peer_and_rest.split_at(end);
    Some((book, peer, rest))
}

/// What stands in the place of `<b32>`.
pub(crate) fn peer(key: &str) -> Option<&str> {
    split(key).map(|(_, peer, _)| peer)
}

pub(crate) fn physical(prefix: &str, key: &str) -> String {
    match split(key) {
        Some((book, peer, rest)) => format!("{prefix}{book}{{{peer}}}{rest}"),
        None => format!("{prefix}{key}"),
    }
}

/// The set in which a metadata key is listed, and its name there.
pub(crate) fn listed<'a>(prefix: &str, key: &'a str) -> Option<(String, &'a str)> {
    match split(key) {
        Some((METADATA, peer, rest)) => Some((names(prefix, peer), rest.strip_prefix('/')?)),
        _ => None,
    }
}

/// The set that holds the metadata keys of a peer.
pub(crate) fn names(prefix: &str, peer: &str) -> String {
    format!("{prefix}{METADATA}{NAMES}{{{peer}}}")
}

/// The peer of whom alone a query for metadata asks, and the beginning of the names that it asks for.
pub(crate) fn metadata_of_one(query: &str) -> Option<(&str, &str)> {
    match split(query) {
        Some((METADATA, peer, rest)) => Some((peer, rest.strip_prefix('/')?)),
        _ => None,
    }
}

/// The metadata key of a peer.
pub(crate) fn metadata(peer: &str, name: &str) -> String {
    format!("{METADATA}{peer}/{name}")
}

/// The keys of the books of a peer that are one value each.
pub(crate) fn single_books(prefix: &str, peer: &str) -> [String; 3] {
    [ADDRESSES, PROTOCOLS, KEYS].map(|book| physical(prefix, &format!("{book}{peer}")))
}

/// The way back from [`physical`]; `None` when the key is not under the prefix, or was not spelt by it.
pub(crate) fn logical(prefix: &str, physical: &str) -> Option<String> {
    let key = physical.strip_prefix(prefix)?;
    let Some((book, braced, rest)) = split(key) else {
        return Some(key.to_owned());
    };
    let peer = braced.strip_prefix('{')?.strip_suffix('}')?;
    Some(format!("{book}{peer}{rest}"))
}

/// A pattern for SCAN that finds every key that begins with `query`, and hardly any other.
pub(crate) fn pattern(prefix: &str, query: &str) -> String {
    let begin = match split(query) {
        Some((_, _, rest)) if !rest.is_empty() => physical(prefix, query),
        // The name of the peer may go on.
        Some((book, peer, _)) => format!("{prefix}{book}{{{peer}"),
        None => format!("{prefix}{query}"),
    };
    let mut pattern = String::with_capacity(begin.len() + 1);
    for character in begin.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('*');
    pattern
}

/// The slot of a key, as the Redis Cluster specification says it: CRC16 (XMODEM) of what stands between the first
/// braces, or of the whole key when there is nothing.
pub(crate) fn slot(key: &str) -> u16 {
    let tagged = key.split_once('{').and_then(|(_, rest)| {
        let (tag, _) = rest.split_once('}')?;
        (!tag.is_empty()).then_some(tag)
    });
    let mut crc = 0_u16;
    for byte in tagged.unwrap_or(key).bytes() {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            let carry = crc & 0x8000 != 0;
            crc <<= 1;
            if carry {
                crc ^= 0x1021;
            }
        }
    }
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    const B32: &str = "bafzaajaiaejcaudtpxz3yxyx5xbsitgz4yq3ahocyq4zsbc32p27qq2pybko6ap5";

    fn odd_keys() -> Vec<String> {
        let mut keys: Vec<String> = [
            "",
            "/",
            "0",
            "/peers",
            "/peers/",
            "/peers/addrs",
            "/other/{x}",
            "/a{b",
            "/}{",
        ]
        .map(str::to_owned)
        .into();
        for book in BOOKS {
            for peer in ["", "x", "{x}", "{", "}", "}{", "names:{x}", "names:", B32] {
                for rest in ["", "/", "/y", "/{y}", "/y/z", "/}"] {
                    keys.push(format!("{book}{peer}{rest}"));
                }
            }
        }
        keys
    }

    #[test]
    fn no_two_keys_are_spelt_alike_and_each_is_read_back() {
        for prefix in ["", "node-7", "/peers", "a/b:"] {
            let mut spelt = std::collections::BTreeSet::new();
            for key in odd_keys() {
                let physical = physical(prefix, &key);
                assert_eq!(logical(prefix, &physical), Some(key.clone()));
                assert!(spelt.insert(physical), "{key}");
                // The set beside a metadata key is none of the keys.
                let Some((names, _)) = listed(prefix, &key) else {
                    continue;
                };
                assert_eq!(logical(prefix, &names), None, "{names}");
            }
        }
    }

    #[test]
    fn all_of_one_peer_is_in_one_slot() {
        let at = slot(B32);
        for book in BOOKS {
            let key = format!("{book}{B32}");
            assert_eq!(physical("n", &key), format!("n{book}{{{B32}}}"));
            assert_eq!(slot(&physical("n", &key)), at);
            assert_eq!(slot(&physical("n", &format!("{key}/a{{b}}"))), at);
        }
        assert_eq!(slot(&names("n", B32)), at);
        // The check value of CRC16/XMODEM, and what a real cluster answers to CLUSTER KEYSLOT.
        assert_eq!(slot("123456789"), 0x31c3 % SLOTS);
        assert_eq!(slot("foo"), 12_182);
        assert_eq!(slot("{user1000}.following"), slot("user1000"));
        assert_eq!(slot("foo{}{bar}"), 8_363);
        assert_eq!(slot("foo{{bar}}zap"), slot("{bar"));
    }

    #[test]
    fn a_pattern_covers_every_key_that_begins_with_the_query() {
        for query in odd_keys() {
            let pattern = pattern("n*", &query).replace('\\', "");
            let begin = pattern.strip_suffix('*').expect("open at its end");
            for key in odd_keys().iter().filter(|key| key.starts_with(&query)) {
                let physical = physical("n*", key);
                assert!(physical.starts_with(begin), "{physical} for {query}");
            }
        }
        assert_eq!(pattern("n*", "/a?"), "n\\*/a\\?*");
        assert_eq!(pattern("", "/peers/addrs/ba"), "/peers/addrs/{ba*");
        assert_eq!(pattern("", "/peers/keys/ba/x"), "/peers/keys/{ba}/x*");
    }
}
