//! `ls` and `stats`.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    process::Stdio,
};

use libp2p_identity::PeerId;
use libp2p_peerstore::tool;
use unicode_width::UnicodeWidthStr;

use crate::{api::peer, support::*};

fn ids(url: &str, args: &[&str]) -> Vec<String> {
    let all = [&["ls", url, "--ids"], args].concat();
    run(&all).ok().lines().map(str::to_owned).collect()
}

fn set(peers: impl IntoIterator<Item = PeerId>) -> BTreeSet<String> {
    peers.into_iter().map(|peer| peer.to_string()).collect()
}

#[cfg(unix)]
#[test]
fn no_line_of_a_table_is_wider_than_the_terminal() {
    let place = Place::new();
    let url = full(&place);
    for width in ["10", "20", "40", "60", "80", "100", "150", "200"] {
        for args in [["ls", &url, "--expired"], ["stats", &url, "--expired"]] {
            let out = run_on_a_terminal(&args, width).ok();
            assert!(out.lines().count() > 5);
            for line in out.lines().filter(|line| !line.starts_with("redb:")) {
                let most: usize = width.parse().unwrap();
                // The names of counts are not cut.
                let is_table = args[0] == "ls" || most >= 60;
                assert!(!is_table || line.width() <= most, "{width}: {line}");
            }
        }
    }
}

#[test]
fn in_a_pipe_nothing_is_cut() {
    let place = Place::new();
    let url = full(&place);
    // Shells that export their width say nothing of the pipe.
    for columns in [&[][..], &[("COLUMNS", "20")]] {
        let out = run_with(&["ls", &url], columns, b"").ok();
        assert!(out.contains(&peer(DIALLED).to_string()));
        assert!(out.contains("/dns4/node.example.org/tcp/443/wss") || out.contains("203.0.113.7"));
        assert!(out.contains(SOFTWARE));
        let out = run_with(&["stats", &url], columns, b"").ok();
        assert!(
            !out.contains('…') && out.contains(r"evil\r\nline\u{7}"),
            "{out}"
        );
    }
}

#[test]
fn each_filter_leaves_out_who_does_not_meet_it() {
    let place = Place::new();
    let url = full(&place);
    let alive: BTreeSet<String> = ids(&url, &[]).into_iter().collect();
    assert!(!alive.contains(&peer(EXPIRED).to_string()));
    let all = ids(&url, &["--expired"]);
    assert_eq!(all.len(), alive.len() + 1);
    assert!(all.contains(&peer(EXPIRED).to_string()));

    let only = |args: &[&str], expected: &[u8]| {
        let found: BTreeSet<String> = ids(&url, args).into_iter().collect();
        assert_eq!(found, set(expected.iter().map(|n| peer(*n))), "{args:?}");
    };
    only(&["--protocol", "/chat/1.0.0"], &[DIALLED]);
    only(&["--protocol", "/chat/1.0.0", "--protocol", "/x"], &[]);
    only(&["--agent", "kubo/0.36"], &[DIALLED]);
    only(&["--agent", "kubo/"], &[DIALLED, HOSTILE]);
    only(&["--transport", "quic-v1"], &[DIALLED]);
    only(&["--transport", "wss"], &[TOLD, 40, 41]);
    only(&["--tag", "keep"], &[DIALLED]);
    only(&["--seen-within", "1s"], &[]);
    only(&["--seen-within", "52w", "--transport", "ws"], &[HOSTILE]);
    only(&["--min-confidence", "1"], &[]);
    only(
        &["--min-confidence", "0.05", "--agent", "kubo/0.36"],
        &[DIALLED],
    );
    only(&["--public", "--transport", "quic-v1"], &[DIALLED]);
    let near = ids(&url, &["--near", &peer(HOSTILE).to_string(), "-n", "1"]);
    assert_eq!(near, [peer(HOSTILE).to_string()]);
    let sorted = ids(&url, &["--sort", "latency"]);
    assert_eq!(sorted[0], peer(DIALLED).to_string());
    assert_eq!(
        ids(&url, &["--sort", "latency", "--offset", "1", "-n", "2"]),
        sorted[1..3]
    );
}

#[test]
fn what_an_option_does_not_take_is_a_usage_error() {
    for args in [
        ["--min-confidence", "2"],
        ["--seen-within", "yesterday"],
        ["--sort", "name"],
    ] {
        let all = [&["ls", "redb:x.redb"][..], &args].concat();
        run(&all).failed(2, &[args[1]]);
    }
}

#[test]
fn json_has_every_peer_in_one_shape() {
    let place = Place::new();
    let url = full(&place);
    let peers = json_lines(&run(&["ls", &url, "--json", "--expired"]).ok());
    assert_eq!(peers.len(), ids(&url, &["--expired"]).len());
    let keys = |value: &serde_json::Value| {
        let keys = value.as_object().unwrap().keys();
        keys.cloned().collect::<Vec<String>>()
    };
    for found in &peers {
        assert_eq!(keys(found), keys(&peers[0]));
        for address in found["addresses"].as_array().unwrap() {
            assert!(address["confidence"].is_number() && address["standing"].is_string());
        }
    }
    let of = |n: u8| {
        let id = peer(n).to_string();
        peers.iter().find(|found| found["id"] == id).unwrap()
    };
    let dialled = of(DIALLED);
    assert_eq!(dialled["agent"], SOFTWARE);
    assert_eq!(dialled["b32"], tool::b32(&peer(DIALLED)));
    assert_eq!(dialled["latencyMicros"], 12_500);
    assert_eq!(dialled["tags"]["keep"]["value"], 50);
    assert_eq!(dialled["metadata"]["a/../b"], "00ff");
    assert_eq!(dialled["expired"], false);
    assert_eq!(of(EXPIRED)["expired"], true);
    assert_eq!(of(TOLD)["signedRecord"]["format"], "interop");
    assert_eq!(of(40)["signedRecord"]["format"], "legacy");
    assert_eq!(
        of(HOSTILE)["agent"],
        HOSTILE_TEXT,
        "as it was written, once it is parsed"
    );
}

#[test]
fn what_a_terminal_would_act_on_never_reaches_it() {
    let place = Place::new();
    let url = full(&place);
    let hostile = peer(HOSTILE).to_string();
    for args in [
        &["ls", &url][..],
        &["ls", &url, "--json"],
        &["stats", &url],
        &["stats", &url, "--json"],
        &["show", &url, &hostile],
        &["show", &url, &hostile, "--json"],
        &["export", &url, "--metadata"],
        &["show", &url, "\u{1b}[2J"],
        &["import", &url, "no\u{1b}[2Jfile"],
        &["man", "\u{1b}[2J"],
    ] {
        let ended = run(args);
        for text in [&ended.out, &ended.err] {
            let acts = |c: char| c.is_control() && c != '\n' || c == '\u{202e}' || c == '\u{7}';
            assert!(!text.contains(acts), "{args:?}: {text:?}");
        }
    }
}

#[test]
fn colours_are_for_terminals_alone() {
    let place = Place::new();
    let url = full(&place);
    let coloured = |env: &[(&str, &str)]| run_with(&["ls", &url], env, b"").ok().contains('\u{1b}');
    assert!(!coloured(&[]));
    assert!(coloured(&[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[("NO_COLOR", "1")]));
}

/// Adds more peers than a pipe holds lines.
fn crowd(url: &str) {
    let mut lines = String::new();
    for n in 0..2_000_u32 {
        let mut hash = vec![0x12, 0x20];
        hash.extend([n.to_be_bytes(); 8].concat());
        let peer = PeerId::from_bytes(&hash).unwrap();
        let name = "x".repeat(100);
        lines += &format!("{{\"id\":\"{peer}\",\"protocols\":[\"/{name}\"]}}\n");
    }
    run_with(&["import", url], &[], lines.as_bytes()).failed(0, &[]);
}

/// What a pipe from `ls` to `rm` needs.
#[test]
fn a_list_that_is_still_being_read_keeps_nobody_out_of_the_store() {
    let place = Place::new();
    let url = full(&place);
    crowd(&url);
    let mut listing = command(&["ls", &url, "--ids"]);
    let mut child = listing.stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut first).unwrap();
    assert!(
        child.try_wait().unwrap().is_none(),
        "it waits for its reader"
    );
    run(&["rm", "-y", &url, first.trim()]).failed(0, &[]);
    drop(reader);
    assert!(child.wait().unwrap().success());
}

#[test]
fn whoever_stops_reading_ends_it_quietly() {
    let place = Place::new();
    let url = full(&place);
    crowd(&url);
    for args in [
        &["export", &url][..],
        &["ls", &url, "--json"],
        &["ls", &url],
    ] {
        let mut command = command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut first = String::new();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        reader.read_line(&mut first).unwrap();
        assert!(!first.is_empty());
        drop(reader);
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(0), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "{args:?}");
    }
}

#[test]
fn stats_count_what_is_there() {
    let place = Place::new();
    let url = full(&place);
    let stats = json(&run(&["stats", &url, "--json"]).ok());
    let alive = ids(&url, &[]).len();
    assert_eq!(stats["peers"], alive);
    assert_eq!(stats["store"]["expired"], 1);
    assert_eq!(stats["store"]["undecodable"], 0);
    assert_eq!(stats["withSignedRecord"], 3);
    assert_eq!(stats["tagged"], 2);
    assert_eq!(stats["withLatency"], 1);
    assert_eq!(stats["standings"]["proven"], 1);
    let sum = |list: &str| {
        let buckets = stats[list].as_array().unwrap().iter();
        buckets
            .map(|bucket| bucket["peers"].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(sum("ages"), alive as u64);
    let with_addresses = alive as u64 - stats["withoutAddresses"].as_u64().unwrap();
    assert_eq!(sum("confidence"), with_addresses);
    let top = |list: &str, name: &str| {
        let top = stats[list]["top"].as_array().unwrap();
        let found = top.iter().find(|one| one["name"] == name);
        found.map(|one| one["peers"].as_u64().unwrap())
    };
    assert_eq!(top("transports", "udp/quic-v1"), Some(1));
    assert_eq!(top("transports", "tcp/wss"), Some(3));
    assert_eq!(top("protocols", "/chat/1.0.0"), Some(1));
    assert_eq!(top("agents", "kubo/0.36.0"), Some(1), "without the commit");
    assert_eq!(top("groups", "*.example.org"), Some(3));
    let some = json(&run(&["stats", &url, "--json", "--protocol", "/chat/1.0.0"]).ok());
    assert_eq!(some["peers"], 1);
}
