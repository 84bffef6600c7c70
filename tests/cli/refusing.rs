//! What is not there, is held by somebody, or is to be left alone.

use std::fs;

use libp2p_peerstore::{Datastore, FsDatastore, RedbDatastore};

use crate::{api::peer, support::*};

/// All commands that only read, with what they need behind the store.
fn reading(url: &str) -> Vec<Vec<String>> {
    let id = peer(DIALLED).to_string();
    [
        &["ls", url][..],
        &["ls", url, "--expired"],
        &["show", url, &id],
        &["show", url, &id[id.len() - 9..]],
        &["stats", url],
        &["export", url, "--metadata"],
        &["check", url],
    ]
    .map(|args| args.iter().map(|arg| (*arg).to_owned()).collect())
    .into()
}

fn run_all(args: &[String]) -> Ended {
    run(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn what_only_reads_changes_no_byte_of_a_file() {
    let place = Place::new();
    let url = full(&place);
    let path = place.path("");
    let before = bytes(&path);
    let modified = fs::metadata(place.path("peers.redb"))
        .unwrap()
        .modified()
        .unwrap();
    for args in reading(&url) {
        run_all(&args).failed(0, &[]);
        assert_eq!(bytes(&path), before, "{args:?}");
    }
    let now = fs::metadata(place.path("peers.redb"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(now, modified);
}

#[test]
fn what_only_reads_changes_no_byte_of_a_folder() {
    let place = Place::new();
    filled(folder(&place));
    let (url, path) = (place.url("fs", "peers"), place.path("peers"));
    let before = bytes(&path);
    for args in reading(&url) {
        run_all(&args).failed(0, &[]);
        assert_eq!(bytes(&path), before, "{args:?}");
    }
    let js = js_folder().join("store");
    let before = bytes(&js);
    for command in ["ls", "stats", "export", "check"] {
        run(&[command, &js_store()]).failed(0, &[]);
    }
    assert_eq!(bytes(&js), before);
}

#[cfg(unix)]
#[test]
fn a_file_that_may_not_be_written_is_read() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let url = full(&place);
    fs::set_permissions(place.path("peers.redb"), fs::Permissions::from_mode(0o400)).unwrap();
    for args in reading(&url) {
        run_all(&args).failed(0, &[]);
    }
}

#[test]
fn a_file_that_a_crash_has_left_is_read_and_left_so() {
    let place = Place::new();
    filled(redb(&place));
    let datastore = redb(&place);
    // As it lies there while a node runs, and after that was killed.
    put(&datastore, &[("/peers/addrs/x".to_owned(), vec![1])]);
    fs::copy(place.path("peers.redb"), place.path("crashed.redb")).unwrap();
    let url = place.url("redb", "crashed.redb");
    let before = bytes(&place.path("crashed.redb"));
    let out = run(&["ls", &url, "--ids"]).ok();
    assert!(out.contains(&peer(DIALLED).to_string()));
    run(&["check", &url]).failed(3, &[]);
    assert_eq!(bytes(&place.path("crashed.redb")), before);
}

#[test]
fn a_store_that_is_not_there_is_not_made() {
    let place = Place::new();
    for (url, name) in [
        (place.url("redb", "none.redb"), "none.redb"),
        (place.url("fs", "none"), "none"),
    ] {
        let mut commands = reading(&url);
        commands.push(vec![
            "rm".into(),
            "-y".into(),
            url.clone(),
            peer(1).to_string(),
        ]);
        for args in commands {
            run_all(&args).failed(1, &[name, "check the path"]);
        }
        assert!(bytes(&place.path("")).len() == 1, "nothing was made");
    }
    // Nor in a folder that is something else.
    fs::create_dir(place.path("home")).unwrap();
    let url = place.url("fs", "home");
    run(&["ls", &url]).failed(1, &["home", "no peer store"]);
    run(&["rm", &url, &peer(1).to_string()]).failed(1, &["home", "no peer store"]);
    assert!(fs::read_dir(place.path("home")).unwrap().next().is_none());
}

#[test]
fn what_is_no_store_is_said_to_be_none() {
    let place = Place::new();
    let text = format!(
        "redb:{}",
        place.file("text", "not a database".repeat(1_000))
    );
    let empty = format!("redb:{}", place.file("empty", ""));
    for url in [text, empty, place.url("redb", "")] {
        let path = url.split_once(':').unwrap().1;
        run(&["ls", &url]).failed(1, &[&url, path, "help"]);
    }
    run(&["ls", &format!("fs:{}", place.file("text", "x"))]).failed(1, &["no folder"]);
    let file = place.file("peers.redb", "x");
    run(&["ls", &file]).failed(2, &["did you mean `redb:"]);
    run(&["ls", "http://example.org"]).failed(2, &["redb:PATH"]);
    run(&["frobnicate"]).failed(2, &["frobnicate"]);
}

#[test]
fn a_store_that_a_node_holds_is_said_to_be_held() {
    let place = Place::new();
    let url = full(&place);
    let datastore = redb(&place);
    let id = peer(DIALLED).to_string();
    let other = place.url("redb", "other.redb");
    let mut commands = reading(&url);
    commands.push(["rm", "-y", &url, &id].map(str::to_owned).into());
    commands.push(["import", &url].map(str::to_owned).into());
    commands.push(["migrate", &url, &other].map(str::to_owned).into());
    for args in commands {
        run_all(&args).failed(1, &["peers.redb", "running node", "stop"]);
    }
    close(datastore);

    filled(folder(&place));
    let datastore = folder(&place);
    let url = place.url("fs", "peers");
    for args in reading(&url) {
        run_all(&args).failed(1, &["peers", "running node", "stop"]);
    }
    close(datastore);
    run(&["ls", &url]).failed(0, &[]);
}

#[test]
fn two_readers_do_not_keep_each_other_out_and_a_node_waits_for_both() {
    let place = Place::new();
    let url = full(&place);
    let path = place.path("peers.redb");
    let reader = RedbDatastore::open_read_only(&path).unwrap();
    run(&["ls", &url]).failed(0, &[]);
    assert!(RedbDatastore::open(&path).is_err());
    let refused = futures::executor::block_on(reader.put("/x", vec![1]));
    assert!(refused.unwrap_err().to_string().contains("commit"));
    close(reader);
    close(RedbDatastore::open(&path).unwrap());

    filled(folder(&place));
    let path = place.path("peers");
    let reader = FsDatastore::open_read_only(&path).unwrap();
    run(&["ls", &place.url("fs", "peers")]).failed(0, &[]);
    assert!(FsDatastore::open(&path).is_err());
    let refused = futures::executor::block_on(reader.put("/x", vec![1]));
    assert!(refused.unwrap_err().to_string().contains("commit"));
    close(reader);
    close(FsDatastore::open(&path).unwrap());
}

#[test]
fn errors_are_json_where_it_was_asked_for() {
    let place = Place::new();
    let url = place.url("redb", "none.redb");
    let ended = run(&["ls", &url, "--json"]).failed(1, &[]);
    let error = json(&ended.err);
    assert!(error["error"].as_str().unwrap().contains(&url));
    assert!(error["help"].is_string() && !error["causes"].as_array().unwrap().is_empty());
    assert_eq!(error["status"], 1);
    assert_eq!(ended.out, "");

    // Also what is wrong with the command line itself.
    for (args, named) in [
        (&["ls", &url, "--json", "--sort", "name"][..], "'name'"),
        (&["--json", "frobnicate"], "'frobnicate'"),
        (&["ls", "--json"], "<STORE>"),
        (&["ls", "--json", "nowhere"], "`nowhere`"),
        (&["check", "--json", "env:NOT_THERE"], "`NOT_THERE`"),
        (&["man", "--json", "nothing"], "`nothing`"),
    ] {
        let ended = run(args).failed(2, &[]);
        let error = json(&ended.err);
        let said = error["error"].as_str().unwrap();
        assert!(said.contains(named) && !said.starts_with("error"), "{said}");
        assert!(!error["help"].as_str().unwrap().is_empty());
        assert_eq!(error["status"], 2);
        assert_eq!(ended.out, "");
    }
    // A file may be called so.
    let ended = run(&["import", "nowhere", "--", "--json"]).failed(2, &["`nowhere`"]);
    assert!(ended.err.starts_with("error: "), "{}", ended.err);
    assert!(run(&["ls", "--json", "--help"]).ok().contains("Usage"));
}

#[test]
fn no_error_repeats_a_password_wherever_a_url_was_put() {
    let place = Place::new();
    let url = full(&place);
    let id = peer(DIALLED).to_string();
    let env = [("STORE", "reddis://u:s3cret@h")];
    for wrong in [
        "reddis://u:s3cret@h",
        "redis:u:s3cret@h",
        "u:s3cret@h",
        "redis://u:s3cret",
        "redis://u:a?s3cret@127.0.0.1:1",
        "redis://u:a/s3cret@127.0.0.1:1",
        "redis://u:a#s3cret@127.0.0.1:1?prefix=p",
        "env:redis://u:s3cret@h",
        "env:STORE",
    ] {
        let commands = [
            &["ls", wrong][..],
            &["show", wrong, &id],
            &["stats", wrong],
            &["export", wrong],
            &["import", wrong],
            &["rm", "-y", wrong, &id],
            &["migrate", wrong, &url],
            &["migrate", &url, wrong],
            &["check", wrong],
        ];
        for args in commands {
            for args in [args, &[args, &["--json"]].concat()] {
                let ended = run_with(args, &env, b"").failed(2, &["names no store"]);
                assert!(!ended.err.contains("s3cret"), "{args:?}: {}", ended.err);
            }
        }
    }
    // In the place of something else, or where nothing belongs.
    for wrong in [
        "redis://u:s3cret@h",
        "redis://u:s3cret@h?prefix=p",
        "unix:///run/x?pass=s3cret",
    ] {
        for args in [
            &[wrong][..],
            &["ls", &url, wrong],
            &["ls", &url, "--sort", wrong],
            &["ls", &url, "--seen-within", wrong],
            &["ls", &url, "-n", wrong],
            &["ls", &url, &format!("-n{wrong}")],
            &["show", &url, wrong],
            &["rm", &url, wrong],
            &["import", &url, wrong],
            &["man", wrong],
            &["completions", wrong],
            &["ls", &url, &format!("--limit={wrong}")],
        ] {
            for args in [args, &[args, &["--json"]].concat()] {
                let ended = run(args);
                assert!([1, 2, 4].contains(&ended.status), "{ended:?}");
                assert!(!ended.err.contains("s3cret"), "{args:?}: {}", ended.err);
            }
        }
    }
}

#[test]
fn only_the_scheme_of_valkey_is_another_name() {
    // Nobody may have this name (RFC 6761), and nothing listens there.
    for (url, place) in [
        ("redis://valkey.invalid:1", "valkey.invalid:1"),
        ("valkey://valkey.invalid:1", "valkey.invalid:1"),
        ("unix:///nowhere/valkey.sock", "/nowhere/valkey.sock"),
        ("valkey+unix:///nowhere/valkey.sock", "/nowhere/valkey.sock"),
    ] {
        let ended = run(&["ls", url]).failed(1, &[place, "no server answers there"]);
        assert!(!ended.err.contains("redis.invalid"), "{}", ended.err);
    }
}

#[test]
fn a_url_can_stand_in_the_environment() {
    let place = Place::new();
    let url = full(&place);
    let env = [("PEERS", url.as_str()), ("BAD", "http://user:secret@host")];
    run_with(&["ls", "env:PEERS"], &env, b"").failed(0, &[]);
    let ended = run_with(&["ls", "env:BAD"], &env, b"").failed(2, &["`BAD`"]);
    assert!(!ended.err.contains("secret"), "{}", ended.err);
    run(&["ls", "env:NOT_THERE"]).failed(2, &["`NOT_THERE`"]);
}
