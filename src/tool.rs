//! What the command line needs of a datastore's entries, beyond the crate's interface. Not for programs: it changes with any
//! version.

use libp2p_core::{Multiaddr, multiaddr::Protocol};
use libp2p_identity::PeerId;

pub use crate::persist::codec::fields::{Line, LineError, Values, hex};
use crate::{
    escape::Escaped,
    group::Group,
    persist::{
        self,
        key::{self, Key},
    },
};

/// What all keys of a peer store begin with.
pub const ROOT: &str = key::ROOT;
/// The longest value of addresses or protocols that a node with the default limits reads, in bytes.
pub const MAX_VALUE_LEN: usize = persist::MAX_VALUE_LEN;
/// What the keys of addresses begin with.
pub const ADDRESSES: &str = key::ADDRESSES;
/// What the keys of protocols begin with.
pub const PROTOCOLS: &str = key::PROTOCOLS;
/// What the keys of public keys begin with.
pub const KEYS: &str = key::KEYS;
/// What the keys of metadata begin with.
pub const METADATA: &str = key::METADATA;

/// Which book a key belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Book {
    /// Addresses, tags, the signed record.
    Addresses,
    /// Protocols.
    Protocols,
    /// The public key.
    PublicKey,
    /// One value of metadata, by its name.
    Metadata(String),
}

/// The peer and the book of a key; `None` for a foreign one.
pub fn parse_key(text: &str) -> Option<(PeerId, Book)> {
    let key = key::parse(text)?;
    let peer = key.peer();
    let book = match key {
        key::Key::Addresses(_) => Book::Addresses,
        key::Key::Protocols(_) => Book::Protocols,
        key::Key::Keys(_) => Book::PublicKey,
        key::Key::Metadata(_, name) => Book::Metadata(name),
    };
    Some((peer, book))
}

/// The key of a book of a peer.
pub fn key_of(peer: &PeerId, book: &Book) -> String {
    let b32 = key::b32(peer);
    match book {
        Book::Addresses => key::addresses(&b32),
        Book::Protocols => key::protocols(&b32),
        Book::PublicKey => key::public_key(&b32),
        Book::Metadata(name) => key::metadata(&b32, name),
    }
}

/// What the metadata keys of a peer begin with.
pub fn metadata_prefix(peer: &PeerId) -> String {
    key::metadata_prefix(&key::b32(peer))
}

/// The peer id as it stands in keys.
pub fn b32(peer: &PeerId) -> String {
    key::b32(peer)
}

/// A peer id in base58, or as a CIDv1 in any base.
pub fn peer_id(text: &str) -> Option<PeerId> {
    const CID_PREFIX: [u8; 2] = [0x01, 0x72];
    if let Ok(peer) = text.parse() {
        return Some(peer);
    }
    let (_, cid) = multibase::decode(text).ok()?;
    PeerId::from_bytes(cid.strip_prefix(&CID_PREFIX)?).ok()
}

/// What one entry is like, for `check`.
#[derive(Debug, Default)]
pub struct Inspected {
    /// Why it cannot be decoded.
    pub undecodable: Option<String>,
    /// Addresses in it that this version cannot parse; they are kept as bytes.
    pub unreadable_addresses: usize,
    /// Tags in it that cannot be decoded.
    pub unreadable_tags: usize,
    /// Whether something in it is said to happen in the future.
    pub from_the_future: bool,
}

/// Decodes the value under a key that [`parse_key`] took apart, as a node with the default limits does.
pub fn inspect(peer: &PeerId, book: &Book, value: &[u8]) -> Inspected {
    let key = match book {
        Book::Addresses => Key::Addresses(*peer),
        Book::Protocols => Key::Protocols(*peer),
        Book::PublicKey => Key::Keys(*peer),
        Book::Metadata(_) => return Inspected::default(),
    };
    match persist::read(&key, value) {
        Ok(None) => Inspected::default(),
        Ok(Some(stored)) => Inspected {
            undecodable: None,
            unreadable_addresses: stored.unreadable.len(),
            unreadable_tags: stored.unreadable_tags,
            from_the_future: stored.from_the_future,
        },
        Err(error) => {
            let source = std::error::Error::source(&error);
            let reason =
                source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
            Inspected {
                undecodable: Some(reason),
                ..Inspected::default()
            }
        }
    }
}

/// A text with everything escaped that a terminal would act on.
pub fn escaped(text: &str) -> String {
    format!("{:?}", Escaped(text))
}

/// The group of an address, as crowds are counted by it, in words; `None` for addresses of private networks.
pub fn address_group(address: &Multiaddr) -> Option<String> {
    /// The kinds of `Group::number`.
    const KIND: u32 = 56;
    let number = Group::of(address)?.number();
    let rest = (number & ((1 << KIND) - 1)) >> 1;
    Some(match number >> KIND {
        1 => format!("{}.{}.0.0/16", rest >> 8 & 0xff, rest & 0xff),
        2 => {
            let (a, b, c) = (rest >> 32 & 0xffff, rest >> 16 & 0xffff, rest & 0xffff);
            match (a, b) {
                // Where a tunnel broker gives everybody a /48, see `Group`.
                (0x2001, 0x470) => format!("{a:x}:{b:x}:{c:x}::/36"),
                _ => format!("{a:x}:{b:x}::/32"),
            }
        }
        3 => address.iter().find_map(|part| match part {
            Protocol::Dns(name)
            | Protocol::Dns4(name)
            | Protocol::Dns6(name)
            | Protocol::Dnsaddr(name) => {
                let labels: Vec<&str> = name.trim_end_matches('.').rsplit('.').take(2).collect();
                let labels: Vec<&str> = labels.into_iter().rev().collect();
                Some(format!("*.{}", labels.join(".").to_lowercase()))
            }
            _ => None,
        })?,
        4 => {
            let mut relay = None;
            for part in address.iter() {
                match part {
                    Protocol::P2p(peer) => relay = Some(peer),
                    Protocol::P2pCircuit => break,
                    _ => {}
                }
            }
            match relay {
                Some(relay) => format!("relay {relay}"),
                None => "relay".to_owned(),
            }
        }
        _ => address.iter().next()?.tag().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_named_by_what_its_addresses_have_in_common() {
        let group = |address: &str| address_group(&address.parse().expect("a multiaddr"));
        let named = |address| group(address).unwrap_or_default();
        assert_eq!(named("/ip4/8.9.10.11/tcp/1"), "8.9.0.0/16");
        assert_eq!(named("/ip6/2a01:4f8:1::1/tcp/1"), "2a01:4f8::/32");
        assert_eq!(named("/dns4/a.B.Example.org/tcp/1"), "*.example.org");
        assert_eq!(group("/ip4/10.0.0.1/tcp/1"), None);
    }

    #[test]
    fn a_peer_id_is_taken_in_base58_and_as_a_cid_in_any_base() {
        let peer = PeerId::random();
        assert_eq!(peer_id(&peer.to_base58()), Some(peer));
        assert_eq!(peer_id(&b32(&peer)), Some(peer));
        let mut cid = vec![0x01, 0x72];
        cid.extend(peer.to_bytes());
        let base36 = multibase::encode(multibase::Base::Base36Lower, cid);
        assert_eq!(peer_id(&base36), Some(peer));
        for text in ["", "b", "bafy", "12D3", "zzz"] {
            assert_eq!(peer_id(text), None, "{text}");
        }
    }
}
