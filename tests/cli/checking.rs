//! `check`.

use libp2p_peerstore::tool::{self, Book};

use crate::{
    api::{peer, rsa_key},
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
    run(&["ls", &url]).failed(0, &["3 entries cannot be decoded", "peerstore check"]);
}
