//! The names under which a peer stands in a datastore: those of js-libp2p 0.28 to 0.35.
//!
//! | key | value |
//! | --- | --- |
//! | `/peers/addrs/<b32>` | addresses |
//! | `/peers/protos/<b32>` | protocols |
//! | `/peers/keys/<b32>` | public key |
//! | `/peers/metadata/<b32>/<key>` | one metadata value |
//!
//! `<b32>` is the peer id as a CIDv1 (codec libp2p-key) in lower-case base32 without padding, with its multibase
//! prefix `b`. No other spelling of a peer id is ours.

use libp2p_identity::PeerId;
use multibase::Base;

/// Everything that belongs to the peer store.
pub(crate) const ROOT: &str = "/peers/";

pub(crate) const ADDRESSES: &str = "/peers/addrs/";
pub(crate) const PROTOCOLS: &str = "/peers/protos/";
pub(crate) const KEYS: &str = "/peers/keys/";
pub(crate) const METADATA: &str = "/peers/metadata/";

/// Version 1 of a CID, and the codec libp2p-key: both are varints of one byte.
const CID_PREFIX: [u8; 2] = [0x01, 0x72];

/// The longest spelling of a peer id: far above what 42 inlined bytes or a SHA-512 hash need.
const MAX_B32: usize = 160;

/// A key of the datastore, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    Addresses(PeerId),
    Protocols(PeerId),
    Keys(PeerId),
    Metadata(PeerId, String),
}

impl Key {
    pub(crate) fn peer(&self) -> PeerId {
        match self {
            Key::Addresses(peer)
            | Key::Protocols(peer)
            | Key::Keys(peer)
            | Key::Metadata(peer, _) => *peer,
        }
    }
}

pub(crate) fn addresses(b32: &str) -> String {
    format!("{ADDRESSES}{b32}")
}

pub(crate) fn protocols(b32: &str) -> String {
    format!("{PROTOCOLS}{b32}")
}

pub(crate) fn public_key(b32: &str) -> String {
    format!("{KEYS}{b32}")
}

pub(crate) fn metadata(b32: &str, key: &str) -> String {
    format!("{METADATA}{b32}/{key}")
}

/// What all metadata keys of a peer begin with. The slash at its end keeps `foo` apart from `foobar`.
pub(crate) fn metadata_prefix(b32: &str) -> String {
    format!("{METADATA}{b32}/")
}

/// The peer id as the datastore spells it.
pub(crate) fn b32(peer: &PeerId) -> String {
    let mut cid = CID_PREFIX.to_vec();
    cid.extend(peer.to_bytes());
    multibase::encode(Base::Base32Lower, cid)
}

/// Takes a key of the datastore apart; `None` when it is not one of ours.
pub(crate) fn parse(key: &str) -> Option<Key> {
    if let Some(b32) = key.strip_prefix(ADDRESSES) {
        return Some(Key::Addresses(peer_id(b32)?));
    }
    if let Some(b32) = key.strip_prefix(PROTOCOLS) {
        return Some(Key::Protocols(peer_id(b32)?));
    }
    if let Some(b32) = key.strip_prefix(KEYS) {
        return Some(Key::Keys(peer_id(b32)?));
    }
    let (b32, name) = key.strip_prefix(METADATA)?.split_once('/')?;
    if name.is_empty() {
        return None;
    }
    Some(Key::Metadata(peer_id(b32)?, name.to_owned()))
}

fn peer_id(spelt: &str) -> Option<PeerId> {
    // The decoder takes capitals for small letters.
    if spelt.len() > MAX_B32 || spelt.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    // Another base, padding, bits behind the last byte, a longer varint: not our spelling.
    let (Base::Base32Lower, cid) = multibase::decode(spelt).ok()? else {
        return None;
    };
    let id = cid.strip_prefix(&CID_PREFIX)?;
    let peer = PeerId::from_bytes(id).ok()?;
    (peer.to_bytes() == id).then_some(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the fixture that js-libp2p 0.30.13 wrote.
    const PEER: &str = "12D3KooWFEQvgU4qPPJLwdTqsMkZKFD4zpgHYworfyUW79QyqAs6";
    const B32: &str = "bafzaajaiaejcaudtpxz3yxyx5xbsitgz4yq3ahocyq4zsbc32p27qq2pybko6ap5";

    /// Another one, whose id is a hash.
    const RSA: &str = "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC";

    fn peer() -> PeerId {
        PEER.parse().expect("a peer id")
    }

    #[test]
    fn a_peer_id_is_spelt_as_js_libp2p_spells_it() {
        assert_eq!(b32(&peer()), B32);
        assert_eq!(parse(&addresses(B32)), Some(Key::Addresses(peer())));
        assert_eq!(parse(&protocols(B32)), Some(Key::Protocols(peer())));
        assert_eq!(parse(&public_key(B32)), Some(Key::Keys(peer())));
    }

    #[test]
    fn everything_behind_the_peer_is_the_metadata_key() {
        for name in ["a", "a/b", "/", "..", "a/b/../c", "ключ", "a\0b"] {
            let key = metadata(B32, name);
            assert_eq!(parse(&key), Some(Key::Metadata(peer(), name.to_owned())));
            assert!(key.starts_with(&metadata_prefix(B32)));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_two_spellings_are_one_peer(at in 0..B32.len(), other in "[ -~]", rest in "[a-z2-7]{0,3}") {
            let mut spelt = B32.to_owned();
            spelt.replace_range(at..=at, &other);
            spelt.push_str(&rest);
            if let Some(peer) = peer_id(&spelt) {
                proptest::prop_assert_eq!(b32(&peer), spelt);
            }
        }
    }

    #[test]
    fn what_is_not_spelt_as_we_spell_it_is_foreign() {
        let upper = B32.to_uppercase();
        let longer = format!("{}a", addresses(B32));
        // 65 characters hold 40 bytes and 5 bits, of which all must be zero.
        let id = RSA.parse::<PeerId>().expect("a peer id");
        let spelt = b32(&id);
        let (last, rest) = (spelt.chars().last(), &spelt[..spelt.len() - 1]);
        let others = ('a'..='z').filter(|other| Some(*other) != last);
        for other in others {
            let same = parse(&addresses(&format!("{rest}{other}")));
            assert_ne!(same, Some(Key::Addresses(id)), "{other}");
        }
        let other_last_bits = addresses(&format!("{rest}z"));
        let padded = addresses(&format!("{spelt}======"));
        let mixed = addresses(&spelt.replacen('a', "A", 1));
        // Its version, a number of seven bits, in two bytes.
        let cid = [&[0x81, 0x00, 0x72], &id.to_bytes()[..]].concat();
        let longer_varint = addresses(&multibase::encode(Base::Base32Lower, cid));
        let long = addresses(&"b".repeat(10_000));
        for key in [
            "",
            "/",
            "/peers/",
            "/peers/addrs/",
            "/peers/addrs/bafy",
            "/peers/other/x",
            "/peers/metadata/x",
            &metadata_prefix(B32),
            &addresses(&upper),
            &addresses(PEER),
            &other_last_bits,
            &padded,
            &longer_varint,
            &mixed,
            &longer,
            &long,
            "/other",
        ] {
            assert_eq!(parse(key), None, "{key}");
        }
    }
}
