//! Keys: of a datastore, of the files of `FsDatastore`, and as Redis has them. What was built is read back as it was,
//! and what is read is spelt just so.

use libp2p_core::multihash::Multihash;
use libp2p_identity::PeerId;

#[cfg(feature = "fs")]
use crate::datastore::fs::name as file;
#[cfg(feature = "redis")]
use crate::datastore::redis::keys as redis;
use crate::persist::key::{self, Key, b32};

// It needs none of the many dependencies of its feature, which a fuzzer would have to build.
#[cfg(not(feature = "redis"))]
#[allow(dead_code)]
#[path = "../datastore/redis/keys.rs"]
mod redis;

/// Reads the bytes as a key of each kind, and makes keys of them.
///
/// # Panics
///
/// When what is read back is not what was written, or a key is where it must not be.
pub fn keys(bytes: &[u8]) {
    let (kind, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let text = String::from_utf8_lossy(rest);
    match kind % 4 {
        0 => {
            read(&text);
            // Nearly all that a fuzzer makes up is refused by its beginning.
            for book in [key::ADDRESSES, key::PROTOCOLS, key::KEYS, key::METADATA] {
                read(&format!("{book}{text}"));
            }
        }
        1 => built(rest),
        #[cfg(feature = "fs")]
        2 => file_names(&text, rest),
        _ => redis_keys(&text),
    }
}

/// What is taken for a key is spelt as this crate spells it.
fn read(text: &str) -> Option<Key> {
    let parsed = key::parse(text)?;
    let b32 = b32(&parsed.peer());
    let built = match &parsed {
        Key::Addresses(_) => key::addresses(&b32),
        Key::Protocols(_) => key::protocols(&b32),
        Key::Keys(_) => key::public_key(&b32),
        Key::Metadata(_, name) => {
            assert!(!name.is_empty());
            key::metadata(&b32, name)
        }
    };
    assert_eq!(built, text);
    Some(parsed)
}

/// The keys of a peer, whatever its id, are read back.
fn built(bytes: &[u8]) {
    let (kind, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let (id, name) = rest.split_at(rest.len().min(usize::from(kind / 4)));
    let peer = match kind % 4 {
        0 => PeerId::from_bytes(id).ok(),
        1 => hashed(0, id),
        2 => hashed(0x12, id),
        _ => hashed(0x13, id),
    };
    let Some(peer) = peer else {
        return;
    };
    let b32 = b32(&peer);
    assert_eq!(read(&key::addresses(&b32)), Some(Key::Addresses(peer)));
    assert_eq!(read(&key::protocols(&b32)), Some(Key::Protocols(peer)));
    assert_eq!(read(&key::public_key(&b32)), Some(Key::Keys(peer)));
    let name = String::from_utf8_lossy(name).into_owned();
    let metadata = key::metadata(&b32, &name);
    assert!(metadata.starts_with(&key::metadata_prefix(&b32)));
    let expected = (!name.is_empty()).then(|| Key::Metadata(peer, name.clone()));
    assert_eq!(read(&metadata), expected);
    // All of a peer is in one slot, and in the folders where js-libp2p looks.
    let slot = redis::slot(&b32);
    for key in [key::addresses(&b32), metadata.clone()] {
        assert_eq!(redis::peer(&key), Some(&b32[..]));
        assert_eq!(redis::slot(&redis::physical("n", &key)), slot);
    }
    assert_eq!(redis::slot(&redis::names("n", &b32)), slot);
    #[cfg(feature = "fs")]
    {
        let place = file::Names::Portable.place(&key::addresses(&b32));
        assert_eq!(place.folder, "/peers/addrs");
        assert_eq!(place.file, format!("{b32}.data"));
    }
}

fn hashed(code: u64, digest: &[u8]) -> Option<PeerId> {
    PeerId::from_multihash(Multihash::wrap(code, digest).ok()?).ok()
}

/// Where a key stands in a folder says which key it is, and is nowhere else.
#[cfg(feature = "fs")]
fn file_names(text: &str, bytes: &[u8]) {
    for names in [file::Names::Exact, file::Names::Portable] {
        for key in [text, &format!("/{text}")] {
            let place = names.place(key);
            for (depth, part) in place.folder.split('/').skip(1).enumerate() {
                assert!(names.is_folder(part, depth == 0), "{key:?}");
            }
            assert!(
                place.file.len() <= 255 && !place.file.contains(['/', '\0']),
                "{key:?}"
            );
            assert!(place.folder.len() <= 512 && place.folder != "/.libp2p-peerstore");
            assert_eq!(file::Place::found(&place.folder, place.file.clone()), place);
            match file::kind(&place.file) {
                file::Kind::Value(last) => {
                    assert_eq!(format!("{}/{last}", place.folder), key);
                    let folded = key
                        .replace("AgentVersion", "")
                        .replace("ProtocolVersion", "");
                    let capital = folded.chars().any(|c| !c.is_ascii() || c.is_uppercase());
                    assert!(names == file::Names::Exact || !capital, "{key:?}");
                }
                file::Kind::Keyed => {
                    let content = [&file::header(key)[..], bytes].concat();
                    assert_eq!(file::split(&content), Some((key, bytes)));
                }
                file::Kind::Foreign => panic!("{key:?} at {place:?}"),
            }
            let beginnings = key.char_indices().map(|(at, _)| at);
            for end in beginnings.take(32).chain([key.len()]) {
                let (folder, rest) = names.folders(&key[..end]);
                assert!(folder.is_empty() || rest.len() < end);
                let below = place.folder.strip_prefix(folder);
                assert!(below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
            }
        }
    }
    if let Some((key, value)) = file::split(bytes) {
        assert_eq!([&file::header(key)[..], value].concat(), bytes);
    }
}

/// A key in Redis says which key it is, no other key is spelt alike, and every question finds it.
fn redis_keys(text: &str) {
    for prefix in ["", "node-7", "a*[b\\"] {
        if let Some(key) = redis::logical(prefix, text) {
            assert_eq!(redis::physical(prefix, &key), text);
        }
        for book in ["", key::ADDRESSES, key::METADATA] {
            let key = &format!("{book}{text}");
            let spelt = redis::physical(prefix, key);
            assert_eq!(redis::logical(prefix, &spelt).as_ref(), Some(key));
            assert!(redis::slot(&spelt) < redis::SLOTS);
            if let Some((set, name)) = redis::listed(prefix, key) {
                assert_eq!(redis::logical(prefix, &set), None, "{set} is a key, too");
                let peer = redis::peer(key).expect("it is listed for a peer");
                assert_eq!(redis::names(prefix, peer), set);
                assert_eq!(redis::metadata(peer, name), *key);
                assert_eq!(redis::metadata_of_one(key), Some((peer, name)));
            }
            let beginnings = key.char_indices().map(|(at, _)| at);
            for end in beginnings.skip(book.len()).take(16).chain([key.len()]) {
                let pattern = redis::pattern(prefix, &key[..end]);
                assert!(spelt.starts_with(&begin(&pattern)), "{pattern} for {spelt}");
            }
        }
    }
}

/// What everything begins with that a pattern finds, taken as Redis takes it.
fn begin(pattern: &str) -> String {
    let mut begin = String::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => begin.extend(characters.next()),
            '*' => {
                assert_eq!(characters.next(), None, "open before its end: {pattern}");
                return begin;
            }
            '?' | '[' | ']' => panic!("not taken literally: {pattern}"),
            character => begin.push(character),
        }
    }
    panic!("closed at its end: {pattern}")
}
