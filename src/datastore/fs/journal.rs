//! A batch as one file, so that a commit of many files is whole or not at all.
//!
//! | bytes | what |
//! | --- | --- |
//! | 28 | `libp2p-peerstore journal 1` and two line feeds |
//! | 32 | the SHA-256 hash of all that follows |
//! | per operation | 8: length of the key; the key; 1: `0` delete, `1` put; for a put 8: length of the value; the value |
//!
//! Numbers are big-endian. An operation says what a key shall be, so that doing it again changes nothing.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// What each key shall be: a value, or nothing.
pub(super) type Operations = BTreeMap<String, Option<Vec<u8>>>;

const MAGIC: &[u8] = b"libp2p-peerstore journal 1\n\n";

pub(super) fn encode(operations: &Operations) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in operations {
        write(&mut body, key.as_bytes());
        body.push(u8::from(value.is_some()));
        if let Some(value) = value {
            write(&mut body, value);
        }
    }
    [MAGIC, Sha256::digest(&body).as_slice(), &body].concat()
}

fn write(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend((bytes.len() as u64).to_be_bytes());
    body.extend(bytes);
}

/// `None` when it is not, byte for byte, what [`encode`] made.
pub(super) fn decode(bytes: &[u8]) -> Option<Operations> {
    let (hash, mut body) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<32>()?;
    if Sha256::digest(body).as_slice() != hash {
        return None;
    }
    let mut operations = Operations::new();
    while !body.is_empty() {
        let key = String::from_utf8(read(&mut body)?.to_vec()).ok()?;
        let (is_put, rest) = body.split_first()?;
        body = rest;
        let value = match is_put {
            0 => None,
            1 => Some(read(&mut body)?.to_vec()),
            _ => return None,
        };
        operations.insert(key, value);
    }
    Some(operations)
}

fn read<'a>(body: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = body.split_first_chunk()?;
    let len = usize::try_from(u64::from_be_bytes(*len)).ok()?;
    let (bytes, rest) = rest.split_at_checked(len)?;
    *body = rest;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_read_back_and_damage_is_noticed() {
        let operations = Operations::from([
            ("/a".into(), Some(vec![1, 2, 3])),
            ("/b".into(), None),
            ("/ключ\0".into(), Some(Vec::new())),
        ]);
        let bytes = encode(&operations);
        assert_eq!(decode(&bytes), Some(operations));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), None, "byte {at}");
            assert_eq!(decode(&bytes[..at]), None, "cut at {at}");
        }
        assert_eq!(decode(&[bytes.as_slice(), &[0]].concat()), None);
        assert_eq!(decode(&encode(&Operations::new())), Some(Operations::new()));
    }
}
