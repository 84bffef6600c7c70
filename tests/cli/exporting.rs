//! `export`, and that nothing is lost on the way from one store to another.

use std::{collections::BTreeMap, fs};

use libp2p_core::Multiaddr;
use libp2p_peerstore::{
    Datastore, FsDatastore,
    tool::{self, Book},
};
use serde_json::Value;

use crate::{api::peer, support::*};

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

pub fn field(number: u64, content: &[u8]) -> Vec<u8> {
    [
        varint(number << 3 | 2),
        varint(content.len() as u64),
        content.to_vec(),
    ]
    .concat()
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// Values that a store of ours would not write in this form, or not at all.
fn odd(n: u8) -> Vec<(String, Vec<u8>)> {
    let address: Multiaddr = "/ip4/9.9.9.9/tcp/1".parse().unwrap();
    let plain = field(1, &address.to_vec());
    let newer = [field(118, b"a newer field"), number(2_000_000, 1)].concat();
    let in_address = [plain.clone(), number(2, 1), newer.clone()].concat();
    let unreadable = field(1, &[0xff, 0xff, 0x03, 1]);
    let history = field(
        16,
        &[number(1, 4), number(2, 9), number(3, 9), number(99, 1)].concat(),
    );
    let of = |book| tool::key_of(&peer(n), &book);
    let addresses = match n % 6 {
        // Fields that nobody knows, at each level.
        0 => [
            field(1, &in_address),
            field(
                2,
                &[number(1, 5), field(2, b"envelope"), newer.clone()].concat(),
            ),
            field(
                18,
                &[field(1, b"tag"), number(2, 7), newer.clone()].concat(),
            ),
            newer.clone(),
        ]
        .concat(),
        // In another order, and an address that is unknown between two that are not.
        1 => [
            newer.clone(),
            field(1, &plain),
            field(1, &unreadable),
            field(1, &plain),
        ]
        .concat(),
        // A history with something new in it.
        2 => field(1, &[plain.clone(), history].concat()),
        // Not decodable.
        3 => vec![0xff; 40],
        // What js-libp2p cannot read, where it would look.
        4 => field(
            1,
            &field(1, &"/memory/7".parse::<Multiaddr>().unwrap().to_vec()),
        ),
        // Nothing.
        _ => Vec::new(),
    };
    vec![
        (of(Book::Addresses), addresses),
        (
            of(Book::Protocols),
            match n % 3 {
                0 => Vec::new(),
                1 => [field(1, b"/a"), field(1, b"/a"), newer].concat(),
                _ => vec![0x0a, 200],
            },
        ),
        (of(Book::PublicKey), vec![1, 2, 3]),
        (of(Book::Metadata("a/b".to_owned())), vec![n; 3]),
    ]
}

#[test]
fn export_and_import_lose_nothing_from_one_store_to_another() {
    let place = Place::new();
    filled(redb(&place));
    let datastore = redb(&place);
    add_expired(&datastore);
    for n in 100..112 {
        put(&datastore, &odd(n));
    }
    let before = entries(&datastore);
    close(datastore);
    let from = place.url("redb", "peers.redb");
    let folder_url = place.url("fs", "folder");
    let again = place.url("redb", "again.redb");

    let exported = run(&["export", &from, "--metadata"]).ok();
    run_with(&["import", &folder_url], &[], exported.as_bytes()).failed(0, &[]);
    let from_folder = run(&["export", &folder_url, "--metadata"]).ok();
    assert_eq!(sorted(&from_folder), sorted(&exported));
    run_with(&["import", &again], &[], from_folder.as_bytes()).failed(0, &[]);
    assert_eq!(
        run(&["export", &again, "--metadata"]).ok(),
        exported,
        "in order, too"
    );

    let datastore = libp2p_peerstore::RedbDatastore::open(place.path("again.redb")).unwrap();
    assert_eq!(entries(&datastore), before, "byte for byte");
    close(datastore);
}

#[test]
fn what_js_libp2p_wrote_is_exported_as_it_is_described() {
    let described = fs::read_to_string(js_folder().join("peers.jsonl")).unwrap();
    let exported = run(&["export", &js_store(), "--metadata"]).ok();
    let by_id = |text: &str| -> BTreeMap<String, Value> {
        let lines = json_lines(text).into_iter();
        lines
            .map(|line| (line["id"].as_str().unwrap().to_owned(), line))
            .collect()
    };
    let (described, exported) = (by_id(&described), by_id(&exported));
    assert_eq!(described.len(), 24);
    assert!(exported.keys().eq(described.keys()));
    for (id, described) in described {
        let exported = &exported[&id];
        for (name, value) in described.as_object().unwrap() {
            // The description knows of what kind a key is that js-libp2p did not store.
            let is_unknown = name == "keyType" && exported["pubKey"].is_null();
            assert!(
                is_unknown || exported[name] == *value,
                "{id} {name}: {}",
                exported[name]
            );
        }
    }
}

#[test]
fn the_description_of_a_js_store_makes_that_store_again() {
    let place = Place::new();
    let url = place.url("fs", "made");
    let described = js_folder().join("peers.jsonl");
    run(&["import", &url, described.to_str().unwrap()]).failed(0, &[]);
    let made = FsDatastore::open_read_only(place.path("made")).unwrap();
    let js = FsDatastore::open_read_only(js_folder().join("store")).unwrap();
    let (made, mut js) = (entries(&made), entries(&js));
    // js-libp2p writes an empty value when a peer speaks nothing; the description says only that it speaks nothing.
    js.retain(|key, value| !(key.starts_with("/peers/protos/") && value.is_empty()));
    assert_eq!(made, js);
}

#[test]
fn metadata_is_only_exported_when_it_is_asked_for() {
    let place = Place::new();
    let url = full(&place);
    let without = run(&["export", &url]).ok();
    assert!(!without.contains("metadata") && !without.contains(&tool::hex(SOFTWARE.as_bytes())));
    let with = run(&["export", &url, "--metadata"]).ok();
    assert!(with.contains(&tool::hex(SOFTWARE.as_bytes())));
    assert_eq!(without.lines().count(), with.lines().count());
}

#[test]
fn a_peer_of_metadata_alone_is_exported_with_it() {
    let place = Place::new();
    let datastore = redb(&place);
    for name in ["a", "b"] {
        let key = tool::key_of(&peer(9), &Book::Metadata(name.to_owned()));
        put(&datastore, &[(key, b"x".to_vec())]);
    }
    put(&datastore, &[("/peers/other/x".to_owned(), Vec::new())]);
    close(datastore);
    let url = place.url("redb", "peers.redb");
    assert_eq!(run(&["export", &url]).ok(), "");
    let line = json(&run(&["export", &url, "--metadata"]).ok());
    assert_eq!(
        line["metadata"],
        serde_json::json!({ "a": "78", "b": "78" })
    );
}

#[test]
fn foreign_entries_are_counted_and_left_out() {
    let place = Place::new();
    let datastore = redb(&place);
    put(&datastore, &[("/peers/addrs/QmOther".to_owned(), vec![1])]);
    close(datastore);
    let url = place.url("redb", "peers.redb");
    let said = ["1 foreign entry", "peerstore check", &url];
    let ended = run(&["export", &url]).failed(0, &said);
    assert_eq!(ended.out, "");
    // Whoever asks for JSON hears of it too, in JSON.
    let ended = run(&["export", &url, "--json"]).failed(0, &[]);
    assert_eq!(ended.out, "");
    let note = json(&ended.err);
    let note = note["note"].as_str().unwrap();
    assert!(said.iter().all(|part| note.contains(part)), "{note}");
}

#[test]
fn an_export_does_not_wait_for_a_store_to_fit_into_memory() {
    // The first line is there before the last entry is read: a peer that cannot be read ends it after the others.
    let place = Place::new();
    let url = full(&place);
    let lines = run(&["export", &url]).ok();
    let folder = place.path("folder");
    let target = format!("fs:{}", folder.display());
    run_with(&["import", &target], &[], lines.as_bytes()).failed(0, &[]);
    // Keys come last, and this one is a link, which is not followed.
    let link = folder.join("peers/keys/loop.data");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/nowhere", &link).unwrap();
        let ended = run(&["export", &target]).failed(1, &["/peers/keys/", &target, "link"]);
        assert!(ended.out.lines().count() > 3, "{ended:?}");
    }
    drop(link);
}

/// A datastore is not needed for it: what a line says is what its values are.
#[test]
fn a_line_and_its_values_say_the_same() {
    let memory = libp2p_peerstore::MemoryDatastore::default();
    filled(memory.clone());
    for (key, value) in entries(&memory) {
        let (peer, book) = tool::parse_key(&key).unwrap();
        let mut values = tool::Values::default();
        match book {
            Book::Addresses => values.addresses = Some(value),
            Book::Protocols => values.protocols = Some(value),
            Book::PublicKey => values.public_key = Some(value),
            Book::Metadata(name) => values.metadata = Some(BTreeMap::from([(name, value)])),
        }
        let line = tool::Line::new(&peer, &values);
        assert_eq!(
            line.raw,
            Default::default(),
            "fields say all that a store of ours writes: {key}"
        );
        assert_eq!(line.values().unwrap(), (peer, values), "{key}");
    }
    assert!(!futures::executor::block_on(memory.has("/peers/addrs/x")).unwrap());
}
