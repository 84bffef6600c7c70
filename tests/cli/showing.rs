//! `show`.

use libp2p_peerstore::tool::{self, Book};

use crate::{api::peer, support::*};

#[test]
fn each_address_is_told_in_words() {
    let place = Place::new();
    let url = full(&place);
    let out = run(&["show", &url, &peer(DIALLED).to_string()]).ok();
    for words in [
        "proven: the node last reached the peer there 4 h ago",
        "one dial has failed since",
        "told by the peer itself; never reached by the node",
        "forgotten in 6 d unless it is heard of again",
        "known from identify, a dial",
        "latency       12ms",
        "tag           keep: 50",
        "tag           soon: 1 for 29 d more",
        "a/../b: 0x00ff",
        "empty: (empty)",
        SOFTWARE,
    ] {
        assert!(out.contains(words), "no `{words}` in {out}");
    }
    let signed = run(&["show", &url, &peer(TOLD).to_string()]).ok();
    assert!(
        signed.contains("as go-libp2p and js-libp2p sign"),
        "{signed}"
    );
    assert!(
        signed.contains("told by the peer itself, and signed"),
        "{signed}"
    );
}

#[test]
fn a_peer_is_named_by_any_id_or_a_part_that_fits_it_alone() {
    let place = Place::new();
    let url = full(&place);
    let (id, b32) = (peer(DIALLED).to_string(), tool::b32(&peer(DIALLED)));
    let (end, cut) = (&id[id.len() - 8..], format!("…{}", &id[id.len() - 8..]));
    let start = rsa_peer().to_string();
    for name in [&id, &b32, end, &cut, &b32[b32.len() - 10..]] {
        let found = json(&run(&["show", &url, name, "--json"]).ok());
        assert_eq!(found["id"], id, "{name}");
    }
    let found = json(&run(&["show", &url, &start[..6], "--json"]).ok());
    assert_eq!(
        (&found["id"], &found["keyType"]),
        (&start.into(), &"rsa".into())
    );
    assert_eq!(found["addresses"].as_array().unwrap().len(), 0);
}

#[test]
fn a_part_that_fits_several_peers_says_how_many() {
    let place = Place::new();
    let url = full(&place);
    // All but the one with an RSA key, the expired one among them.
    let ed25519 = run(&["ls", &url, "--ids", "--expired"]).ok();
    let ed25519 = ed25519
        .lines()
        .filter(|id| id.starts_with("12D3KooW"))
        .count();
    run(&["show", &url, "12D3KooW"]).failed(4, &[&format!("{ed25519} peer ids"), &url]);
    run(&["show", &url, "nobody"]).failed(4, &["no peer id", "`nobody`", &url]);
    let stranger = libp2p_identity::PeerId::random().to_string();
    run(&["show", &url, &stranger]).failed(4, &[&stranger, &url]);
}

#[test]
fn what_has_expired_is_shown_and_said_to_be() {
    let place = Place::new();
    let url = full(&place);
    let id = peer(EXPIRED).to_string();
    let out = run(&["show", &url, &id]).ok();
    assert!(
        out.contains("a node that starts forgets this peer"),
        "{out}"
    );
    assert!(
        out.contains("/ip4/8.8.4.4/tcp/4001 (self-told, last heard of"),
        "{out}"
    );
    let found = json(&run(&["show", &url, &id, "--json"]).ok());
    assert_eq!(found["expired"], true);
    assert_eq!(found["addresses"], serde_json::json!([]));
    assert_eq!(
        found["expiredAddresses"][0]["address"],
        "/ip4/8.8.4.4/tcp/4001"
    );
}

#[test]
fn a_peer_of_which_nothing_decodes_is_shown_with_the_reasons() {
    let place = Place::new();
    let datastore = redb(&place);
    let key = tool::key_of(&peer(1), &Book::Addresses);
    put(&datastore, &[(key.clone(), vec![0xff; 9])]);
    close(datastore);
    let url = place.url("redb", "peers.redb");
    let out = run(&["show", &url, &peer(1).to_string()]).ok();
    assert!(
        out.contains("Cannot be decoded") && out.contains(&key),
        "{out}"
    );
    let found = json(&run(&["show", &url, &peer(1).to_string(), "--json"]).ok());
    assert!(found["undecodable"][&key].is_string(), "{found}");
}

#[test]
fn the_store_of_a_js_node_is_shown() {
    let id = "12D3KooWFEQvgU4qPPJLwdTqsMkZKFD4zpgHYworfyUW79QyqAs6";
    let out = run(&["show", &js_store(), id]).ok();
    assert!(out.contains("/ip4/1.135.251.247/tcp/19158"), "{out}");
    assert!(out.contains("js-libp2p/0.30.8"), "{out}");
    assert!(out.contains("app/note-72: slash 0"), "{out}");
}
