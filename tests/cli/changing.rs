//! `rm` and `migrate`.

use std::process::Stdio;

use libp2p_identity::PeerId;
use libp2p_peerstore::{
    FsDatastore, RedbDatastore,
    tool::{self, Book},
};

use crate::{api::peer, support::*};

#[test]
fn a_removed_peer_leaves_nothing_behind_and_the_others_stay() {
    let place = Place::new();
    filled(redb(&place));
    let datastore = redb(&place);
    // What cannot be decoded goes too.
    let key = tool::key_of(&peer(DIALLED), &Book::PublicKey);
    put(&datastore, &[(key, vec![0xff])]);
    let before = entries(&datastore);
    close(datastore);
    let url = place.url("redb", "peers.redb");
    let (id, end) = (peer(DIALLED).to_string(), rsa_peer().to_string());
    let out = run(&["rm", &url, &id, &end[end.len() - 9..]]).ok();
    assert!(out.contains(&id) && out.contains(&end), "{out}");

    let gone = [tool::b32(&peer(DIALLED)), tool::b32(&rsa_peer())];
    let is_gone = |key: &str| gone.iter().any(|b32| key.contains(b32));
    let datastore = redb(&place);
    let mut expected = before;
    expected.retain(|key, _| !is_gone(key));
    assert_eq!(entries(&datastore), expected);
}

#[test]
fn all_are_removed_though_nobody_reads_that_they_are() {
    let place = Place::new();
    let url = place.url("redb", "peers.redb");
    let peers: Vec<String> = (0..600_u32)
        .map(|n| {
            let hash = [vec![0x12, 0x20], [n.to_be_bytes(); 8].concat()].concat();
            PeerId::from_bytes(&hash).unwrap().to_string()
        })
        .collect();
    let line = |id: &String| format!("{{\"id\":\"{id}\",\"protocols\":[\"/a\"]}}\n");
    let lines: String = peers.iter().map(line).collect();
    run_with(&["import", &url], &[], lines.as_bytes()).failed(0, &[]);
    let mut args = vec!["rm", "-y", &url];
    args.extend(peers.iter().map(String::as_str));
    let mut child = command(&args).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
    assert_eq!(run(&["ls", &url, "--ids"]).ok(), "");
}

#[test]
fn nothing_is_removed_when_one_of_the_peers_is_not_there() {
    let place = Place::new();
    let url = full(&place);
    let before = run(&["export", &url, "--metadata"]).ok();
    let stranger = libp2p_identity::PeerId::random().to_string();
    let id = peer(DIALLED).to_string();
    run(&["rm", "--yes", &url, &id, &stranger])
        .failed(4, &[&stranger, &url, "nothing was deleted"]);
    run(&["rm", "--yes", &url, &id, "12D3KooW"]).failed(4, &["peer ids", &url]);
    assert_eq!(run(&["export", &url, "--metadata"]).ok(), before);
}

#[test]
fn peers_move_from_one_store_to_another_byte_for_byte() {
    let place = Place::new();
    let url = full(&place);
    let datastore = redb(&place);
    put(&datastore, &[("/peers/addrs/foreign".to_owned(), vec![7])]);
    let before = entries(&datastore);
    close(datastore);
    let target = place.url("fs", "moved");
    let first =
        run(&["migrate", &url, &target]).failed(0, &["1 entry is foreign", "peerstore check"]);
    assert!(
        first.out.contains(&format!("{} written", before.len())),
        "{}",
        first.out
    );
    let moved = FsDatastore::open(place.path("moved")).unwrap();
    assert_eq!(entries(&moved), before);
    close(moved);
    let again = json(&run(&["migrate", &url, &target, "--json"]).ok());
    assert_eq!(
        (&again["written"], &again["unchanged"]),
        (&0.into(), &before.len().into())
    );
    let only = place.url("redb", "only.redb");
    let report = json(&run(&["migrate", &target, &only, "--only-readable", "--json"]).ok());
    assert_eq!(report["leftOut"], 1);
}

#[test]
fn what_is_there_can_be_kept() {
    let place = Place::new();
    let url = full(&place);
    let key = tool::key_of(&peer(DIALLED), &Book::Addresses);
    let target = RedbDatastore::open(place.path("target.redb")).unwrap();
    put(&target, &[(key.clone(), Vec::new())]);
    close(target);
    let to = place.url("redb", "target.redb");
    let report = json(&run(&["migrate", &url, &to, "--keep-existing", "--json"]).ok());
    assert_eq!(report["kept"], 1);
    let target = RedbDatastore::open(place.path("target.redb")).unwrap();
    assert_eq!(entries(&target)[&key], b"");
}

#[test]
fn a_store_is_not_moved_onto_itself() {
    let place = Place::new();
    let url = full(&place);
    let same = place.url("redb", "./peers.redb");
    run(&["migrate", &url, &same]).failed(2, &[&url, "same store"]);
}

#[test]
fn a_source_that_is_not_there_makes_no_target() {
    let place = Place::new();
    let (from, to) = (
        place.url("redb", "none.redb"),
        place.url("redb", "new.redb"),
    );
    run(&["migrate", &from, &to]).failed(1, &["none.redb"]);
    assert!(!place.path("new.redb").exists() && !place.path("none.redb").exists());
}
