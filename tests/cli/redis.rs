//! The same on a Redis server, where one is installed.

use crate::{
    api::peer,
    servers::{Server, free_port},
    support::*,
};

#[test]
fn peers_live_on_a_server_under_a_prefix() {
    let Some(server) = Server::start(&[
        "--appendonly",
        "no",
        "--save",
        "",
        "--requirepass",
        "valkey-secret",
    ]) else {
        return;
    };
    let place = Place::new();
    let file = full(&place);
    let host = format!("127.0.0.1:{}", server.port);
    let url = format!("redis://:valkey-secret@{host}?prefix=node-7");
    let other = format!("valkey://:valkey-secret@{host}?prefix=node-8");
    run(&["migrate", &file, &url]).failed(0, &[]);
    let lines = run(&["export", &file, "--metadata"]).ok();
    run_with(&["import", &other], &[], lines.as_bytes()).failed(0, &[]);
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let lines = sorted(lines);
    for url in [&url, &other] {
        assert_eq!(sorted(run(&["export", url, "--metadata"]).ok()), lines);
    }
    let out = run(&["show", &url, &peer(DIALLED).to_string()]).ok();
    assert!(out.contains("proven"), "{out}");
    run(&["rm", "-y", &url, &peer(DIALLED).to_string()]).failed(0, &[]);
    let ids = |url: &str| run(&["ls", url, "--ids", "--expired"]).ok();
    assert!(!ids(&url).contains(&peer(DIALLED).to_string()));
    assert!(ids(&other).contains(&peer(DIALLED).to_string()));
    run(&["check", &url]).failed(0, &[]);
    run(&["stats", &url]).failed(0, &[]);

    // Errors name the server and no password, also in JSON.
    let wrong = format!("redis://user:wr0ng@{host}?prefix=node-7");
    let nobody = format!("redis://user:wr0ng@127.0.0.1:{}?prefix=node-7", free_port());
    for url in [&wrong, &nobody] {
        for args in [&["ls", url][..], &["ls", url, "--json"]] {
            let ended = run(args).failed(1, &["127.0.0.1", "?prefix=node-7", "help"]);
            assert!(!ended.err.contains("wr0ng"), "{}", ended.err);
        }
    }
}
