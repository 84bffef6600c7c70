//! `check`.

use futures::executor::block_on;
use libp2p_identity::PeerId;
use libp2p_peerstore::{
    Config, PeerStore, RedbDatastore,
    tool::{self, Book},
};

use crate::{
    api::{peer, rsa_key},
    exporting::field,
    support::*,
};

#[test]
fn a_sound_store_has_no_problems() {
    let place = Place::new();
    let url = full(&place);
    let out = run(&["check", &url]).ok();
    assert!(out.contains("0 undecodable, 0 foreign"), "{out}");
    run(&["check", &js_store()]).failed(0, &[]);
}

#[test]
fn each_entry_that_a_node_would_skip_is_named_with_the_reason() {
    let place = Place::new();
    filled(redb(&place));
    let of = |n: u8, book| tool::key_of(&peer(n), &book);
    let upper = tool::key_of(&peer(1), &Book::Addresses).to_uppercase();
    let bad = [
        (
            of(90, Book::Addresses),
            vec![0xff; 5],
            "undecodable",
            "protobuf",
        ),
        (
            of(91, Book::Protocols),
            vec![0x0a, 9, 1],
            "undecodable",
            "protobuf",
        ),
        (
            of(92, Book::PublicKey),
            rsa_key().encode_protobuf(),
            "undecodable",
            "does not belong",
        ),
        (
            format!("/peers/{upper}"),
            Vec::new(),
            "foreign",
            "another spelling",
        ),
        (
            "/peers/new\u{1b}book/x".to_owned(),
            Vec::new(),
            "foreign",
            "another layout",
        ),
    ];
    let datastore = redb(&place);
    put(
        &datastore,
        &bad.clone().map(|(key, value, ..)| (key, value)),
    );
    close(datastore);
    let url = place.url("redb", "peers.redb");
    let ended = run(&["check", &url]).failed(3, &[]);
    for (key, _, problem, reason) in &bad {
        let key = tool::escaped(key);
        let line = ended.out.lines().find(|line| line.contains(&key));
        let said = line.is_some_and(|line| line.starts_with(problem) && line.contains(reason));
        assert!(said, "{key}: {line:?}");
    }
    assert!(
        ended.out.contains("3 undecodable, 2 foreign"),
        "{}",
        ended.out
    );
    let lines = json_lines(&run(&["check", &url, "--json"]).failed(3, &[]).out);
    let (summary, problems) = lines.split_last().unwrap();
    assert_eq!(problems.len(), bad.len());
    assert!(problems.iter().any(|problem| problem["key"] == bad[4].0));
    assert_eq!(
        (&summary["undecodable"], &summary["foreign"]),
        (&3.into(), &2.into())
    );
    // The others are shown all the same, and that some are not is said.
    let said = ["3 entries cannot be decoded", "peerstore check"];
    run(&["ls", &url]).failed(0, &said);
    let note = json(&run(&["ls", &url, "--json"]).failed(0, &[]).err);
    let note = note["note"].as_str().unwrap();
    assert!(said.iter().all(|part| note.contains(part)), "{note}");
}

/// The addresses of a peer, more than a node with the default limits reads.
fn too_large(n: u8) -> (String, Vec<u8>) {
    let addresses = (0..60_000_u32).flat_map(|n| {
        let (ip, port) = (n / 10_000 + 1, n % 10_000 + 1);
        let address = at(&format!(
            "/ip4/8.8.8.{ip}/tcp/{port}/tls/ws/p2p-circuit/http"
        ));
        field(1, &field(1, &address.to_vec()))
    });
    let value: Vec<u8> = addresses.collect();
    assert!(value.len() > 1_024 * 1_024, "{}", value.len());
    (tool::key_of(&peer(n), &Book::Addresses), value)
}

#[test]
fn every_command_takes_for_unreadable_what_a_node_and_a_migration_do() {
    let place = Place::new();
    filled(redb(&place));
    let (key, value) = too_large(90);
    let datastore = redb(&place);
    put(&datastore, &[(key.clone(), value.clone())]);
    close(datastore);
    let url = place.url("redb", "peers.redb");
    let id = peer(90).to_string();

    let ended = run(&["check", &url]).failed(3, &[]);
    let line = ended.out.lines().find(|line| line.contains(&key)).unwrap();
    assert!(
        line.starts_with("undecodable") && line.contains("are the most"),
        "{line}"
    );
    assert!(
        ended.out.contains("1 undecodable, 0 foreign"),
        "{}",
        ended.out
    );
    let stats = json(&run(&["stats", &url, "--json"]).ok());
    assert_eq!(stats["store"]["undecodable"], 1);
    run(&["ls", &url]).failed(0, &["1 entry cannot be decoded", "peerstore check"]);
    assert!(!run(&["ls", &url, "--ids", "--expired"]).ok().contains(&id));
    let shown = json(&run(&["show", &url, &id, "--json"]).ok());
    assert!(
        shown["undecodable"][&key]
            .as_str()
            .unwrap()
            .contains("are the most")
    );

    let to = place.url("redb", "readable.redb");
    let report = json(&run(&["migrate", &url, &to, "--only-readable", "--json"]).ok());
    assert_eq!(
        (&report["undecodable"], &report["leftOut"]),
        (&1.into(), &1.into())
    );
    run(&["check", &to]).failed(0, &[]);

    // Nothing is lost all the same: an export has the bytes, and an import takes them as they are.
    let lines = run(&["export", &url]).ok();
    let again = place.url("redb", "again.redb");
    run_with(&["import", &again], &[], lines.as_bytes()).failed(0, &[]);
    assert_eq!(run(&["export", &again]).ok(), lines);
    let datastore = RedbDatastore::open(place.path("again.redb")).unwrap();
    assert_eq!(entries(&datastore)[&key], value);

    // A node agrees.
    let open = PeerStore::open(PeerId::random(), datastore, Config::default());
    let store = block_on(open).unwrap();
    assert_eq!(store.load_report().undecodable, 1);
}

#[test]
fn what_no_node_would_read_is_not_imported() {
    let place = Place::new();
    let url = place.url("redb", "peers.redb");
    let address = "/ip4/8.8.8.8/tcp/1";
    let addresses = vec![address; 120_000];
    let line = serde_json::json!({ "id": peer(1).to_string(), "addrs": addresses }).to_string();
    let ended = run_with(&["import", &url], &[], line.as_bytes());
    ended.failed(1, &["line 1", "a node could not read", "are the most"]);
}
