//! `import`: once, twice, and with lines that are none.

use libp2p_peerstore::RedbDatastore;
use serde_json::json as value;

use crate::{
    api::{peer, rsa_key},
    support::*,
};

fn line(n: u8) -> String {
    value!({ "id": peer(n).to_string(), "addrs": [format!("/ip4/8.8.8.8/tcp/{n}")] }).to_string()
}

#[test]
fn what_is_there_already_is_not_written_again() {
    let place = Place::new();
    let url = full(&place);
    let lines = run(&["export", &url, "--metadata"]).ok();
    let target = place.url("redb", "other.redb");
    let first = run_with(&["import", &target, "--json"], &[], lines.as_bytes()).ok();
    let first = json(&first);
    assert_eq!(first["peers"], lines.lines().count());
    assert_eq!(
        (&first["unchanged"], &first["bad"]),
        (&value!(0), &value!(0))
    );
    let file = bytes(&place.path("other.redb"));
    let second = run_with(&["import", &target, "--json"], &[], lines.as_bytes()).ok();
    let second = json(&second);
    assert_eq!(second["written"], 0);
    assert_eq!(second["unchanged"], first["written"]);
    assert_eq!(bytes(&place.path("other.redb")).len(), file.len());
}

#[test]
fn what_a_line_does_not_mention_stays() {
    let place = Place::new();
    let url = full(&place);
    run_with(&["import", &url], &[], line(DIALLED).as_bytes()).failed(0, &[]);
    let found = json(&run(&["show", &url, &peer(DIALLED).to_string(), "--json"]).ok());
    assert_eq!(found["addresses"][0]["address"], "/ip4/8.8.8.8/tcp/1");
    assert_eq!(found["addresses"].as_array().unwrap().len(), 1);
    assert_eq!(found["agent"], SOFTWARE);
    assert_eq!(found["protocols"].as_array().unwrap().len(), 2);
}

#[test]
fn a_bad_line_ends_it_with_its_number_and_what_came_before_is_there() {
    let place = Place::new();
    let url = place.url("redb", "new.redb");
    let lines = [&line(1), "", "{\"id\":1}", &line(2)].join("\n");
    run_with(&["import", &url], &[], lines.as_bytes()).failed(1, &["line 3", &url, "--keep-going"]);
    let ids = run(&["ls", &url, "--ids"]).ok();
    assert_eq!(ids.lines().collect::<Vec<_>>(), [peer(1).to_string()]);
}

#[test]
fn bad_lines_can_be_skipped_and_each_has_its_reason() {
    let place = Place::new();
    let url = place.url("redb", "new.redb");
    let id = peer(5).to_string();
    let rsa = rsa_key().encode_protobuf();
    let bad = [
        ("{", "EOF"),
        ("[]", "invalid"),
        ("\u{ff}", "expected"),
        (&value!({ "id": "nobody" }).to_string(), "not a peer id"),
        (&value!({ "id": id, "b32": "bafy" }).to_string(), "`b32`"),
        (&value!({ "id": id, "addrs": ["nowhere"] }).to_string(), "`addrs[0]`"),
        (&value!({ "id": id, "addrBytes": ["04"] }).to_string(), "`addrBytes[0]`"),
        (&value!({ "id": id, "addrBytes": ["x"] }).to_string(), "hexadecimal"),
        (
            &value!({ "id": id, "addrs": ["/ip4/8.8.8.8/tcp/1"], "addrBytes": ["0408080808060002"] })
                .to_string(),
            "different addresses",
        ),
        (&value!({ "id": id, "pubKey": libp2p_peerstore::tool::hex(&rsa) }).to_string(), "`pubKey`"),
        (&value!({ "id": id, "addrsUnknown": "ff" }).to_string(), "`addrsUnknown`"),
        (&value!({ "id": id, "metadata": { "": "00" } }).to_string(), "empty key"),
        (&value!({ "id": id, "newField": 1 }).to_string(), "newField"),
        (
            &value!({ "id": id, "protocols": ["/a"], "raw": { "protos": "0a022f62" } }).to_string(),
            "`raw.protos`",
        ),
    ];
    let mut lines = vec![line(1)];
    lines.extend(bad.iter().map(|(line, _)| (*line).to_owned()));
    lines.push(line(2));
    let input = lines.join("\n");
    let args = ["import", &url, "--keep-going"];
    let ended = run_with(&args, &[], input.as_bytes()).failed(3, &[]);
    for (at, (line, reason)) in bad.iter().enumerate() {
        let number = format!("line {}:", at + 2);
        let said = ended.err.lines().find(|said| said.starts_with(&number));
        assert!(
            said.is_some_and(|said| said.contains(reason)),
            "{line}: {said:?}"
        );
    }
    assert_eq!(ended.err.lines().count(), bad.len());
    assert!(
        ended.out.contains("2 peers") && ended.out.contains("14 bad lines"),
        "{}",
        ended.out
    );
    assert_eq!(run(&["ls", &url, "--ids"]).ok().lines().count(), 2);
    let args = ["import", &url, "--keep-going", "--json"];
    let ended = run_with(&args, &[], input.as_bytes()).failed(3, &[]);
    assert_eq!(json_lines(&ended.err)[0]["line"], 2);
    assert_eq!(json(&ended.out)["bad"], 14);
}

#[test]
fn a_line_without_end_is_refused_without_being_kept() {
    let place = Place::new();
    let url = place.url("redb", "new.redb");
    let mut input = vec![b'x'; 17 * 1024 * 1024];
    input.push(b'\n');
    input.extend(line(1).as_bytes());
    let args = ["import", &url, "--keep-going"];
    run_with(&args, &[], &input).failed(3, &["line 1", "bytes"]);
    assert_eq!(run(&["ls", &url, "--ids"]).ok().lines().count(), 1);
}

#[test]
fn the_later_of_two_lines_about_a_peer_counts() {
    let place = Place::new();
    let url = place.url("redb", "new.redb");
    let of = |port: u16| {
        let address = format!("/ip4/8.8.8.8/tcp/{port}");
        value!({ "id": peer(1).to_string(), "addrs": [address] }).to_string()
    };
    let lines = [of(1), of(2), of(1)].join("\n");
    run_with(&["import", &url], &[], of(1).as_bytes()).failed(0, &[]);
    run_with(&["import", &url], &[], lines.as_bytes()).failed(0, &[]);
    let found = json(&run(&["show", &url, &peer(1).to_string(), "--json"]).ok());
    assert_eq!(found["addresses"][0]["address"], "/ip4/8.8.8.8/tcp/1");
}

#[test]
fn a_file_that_is_not_there_makes_no_store() {
    let place = Place::new();
    let url = place.url("redb", "new.redb");
    run(&["import", &url, "/nowhere/x.jsonl"]).failed(1, &["/nowhere/x.jsonl"]);
    assert!(!place.path("new.redb").exists());
}

#[test]
fn a_node_opens_what_was_imported() {
    let place = Place::new();
    let url = full(&place);
    let lines = run(&["export", &url, "--metadata"]).ok();
    let target = place.url("redb", "other.redb");
    run_with(&["import", &target], &[], lines.as_bytes()).failed(0, &[]);
    let open = |name: &str| {
        let datastore = RedbDatastore::open(place.path(name)).unwrap();
        let local = libp2p_identity::PeerId::random();
        let open = libp2p_peerstore::PeerStore::open(local, datastore, Default::default());
        futures::executor::block_on(open).unwrap()
    };
    let (a, b) = (open("peers.redb"), open("other.redb"));
    assert_eq!(a.load_report(), b.load_report());
    let (a, b) = (
        a.get(&peer(DIALLED)).unwrap(),
        b.get(&peer(DIALLED)).unwrap(),
    );
    assert_eq!(
        (a.addresses, a.tags, a.latency),
        (b.addresses, b.tags, b.latency)
    );
}
