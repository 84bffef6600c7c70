//! One server alone.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, executor::block_on};
use libp2p::{Multiaddr, PeerId};
use libp2p_peerstore::{
    Batch, Config, Datastore, DatastoreError, MemoryDatastore, PeerStore, RedisConfig,
    RedisDatastore,
};

use super::{B32, batch, entries, keys, open, shown, support::Server, told};

/// Every write is on the disk before it is answered.
const DURABLE: [&str; 6] = [
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
    "--save",
    "",
];

/// Nothing is ever on a disk.
const FORGETFUL: [&str; 4] = ["--appendonly", "no", "--save", ""];

/// Impatient, for servers that do not answer.
fn quick(prefix: &str) -> RedisConfig {
    RedisConfig::new(prefix)
        .with_timeout(Duration::from_millis(400))
        .with_retry_for(Duration::from_millis(800))
}

fn addr(port: u16) -> Multiaddr {
    format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap()
}

// --- content -----------------------------------------------------------------------------------------------

/// Random batches, with keys that are ours, odd and alike, go to both; both must always answer the same.
#[tokio::test(flavor = "multi_thread")]
async fn it_holds_what_a_map_would_hold() {
    let Some(server) = Server::start(&FORGETFUL) else {
        return;
    };
    let parts = [
        "a",
        "b",
        "ab",
        "{a}",
        "",
        "a/b",
        "*",
        "ключ",
        "names:{a}",
        "a\0\n",
        "\\",
    ];
    let folders = [
        "/",
        "/peers/",
        "/peers/addrs/",
        "/peers/protos/",
        "/peers/keys/",
        "/peers/metadata/",
        "/peers/metadata/a/",
        "/peers/metadata/{a}/",
    ];
    for seed in 0..6 {
        let mut random = fastrand::Rng::with_seed(seed);
        let prefix = ["", "node", "a*[b]?\\", "/peers", "ключ", "x/"][seed as usize];
        let _: String = server.ask("FLUSHALL").await;
        let (redis, model) = (
            open(&server.url(), RedisConfig::new(prefix)).await,
            MemoryDatastore::default(),
        );
        let mut key = {
            let mut random = random.fork();
            move || {
                let folder = folders[random.usize(..folders.len())];
                format!("{folder}{}", parts[random.usize(..parts.len())])
            }
        };
        for _ in 0..40 {
            let mut batch = Batch::default();
            for _ in 0..random.usize(..30) {
                match random.u8(..3) {
                    0 => batch.delete(key()),
                    _ => batch.put(key(), vec![random.u8(..); random.usize(..40)]),
                }
            }
            model.commit(batch.clone()).await.unwrap();
            redis.commit(batch).await.unwrap();
            let key = key();
            assert_eq!(
                redis.get(&key).await.unwrap(),
                model.get(&key).await.unwrap(),
                "{key}"
            );
            assert_eq!(
                entries(&redis, &key).await,
                entries(&model, &key).await,
                "{key}"
            );
            let cut: String = key
                .chars()
                .take(random.usize(..key.chars().count() + 1))
                .collect();
            assert_eq!(
                entries(&redis, &cut).await,
                entries(&model, &cut).await,
                "{cut}"
            );
        }
        redis.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_of_many_pages_answers_each_key_once() {
    let Some(server) = Server::start(&FORGETFUL) else {
        return;
    };
    let datastore = open(&server.url(), RedisConfig::new("n")).await;
    let mut batch = Batch::default();
    for n in 0..20_000 {
        batch.put(format!("/peers/addrs/{n:05}"), vec![n as u8; n % 300]);
    }
    batch.put("/large", vec![7; 3_000_000]);
    let expected: Vec<_> = batch
        .iter()
        .map(|(key, value)| (key.to_owned(), value.unwrap().to_vec()))
        .collect();
    datastore.commit(batch).await.unwrap();
    assert!(entries(&datastore, "").await == expected);
    assert_eq!(keys(&datastore, "/peers/addrs/001").await.len(), 100);
    // Half of it, and nothing at all; the server does not care.
    let half: Vec<_> = datastore
        .query("")
        .take(10_000)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(half.len(), 10_000);
    drop(datastore.query(""));
    // While it grows to a multiple, its tables are moved about: that is when a cursor meets keys twice.
    let mut met = Vec::new();
    let mut query = datastore.query("/peers/addrs/");
    let mut more = 0;
    while let Some(entry) = query.next().await {
        met.push(entry.unwrap().0);
        if met.len() % 2_000 == 0 {
            let mut batch = Batch::default();
            for _ in 0..8_000 {
                more += 1;
                batch.put(format!("/more/{more}"), Vec::new());
            }
            datastore.commit(batch).await.unwrap();
        }
    }
    met.sort();
    assert_eq!(met.len(), 20_000);
    met.dedup();
    assert_eq!(met.len(), 20_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_spelt_as_documented_and_all_of_a_peer_is_one_transaction() {
    let Some(server) = Server::start(&FORGETFUL) else {
        return;
    };
    let datastore = open(&server.url(), RedisConfig::new("n")).await;
    let peer = |book| format!("/peers/{book}/{B32}");
    let mut batch = Batch::default();
    for book in ["addrs", "protos", "keys", "metadata"] {
        let key = peer(book) + if book == "metadata" { "/a/b" } else { "" };
        batch.put(key, vec![1]);
    }
    datastore.commit(batch.clone()).await.unwrap();
    let mut found: Vec<String> = server.ask("KEYS *").await;
    found.sort();
    let expected = [
        "addrs/{}",
        "keys/{}",
        "metadata/names:{}",
        "metadata/{}/a/b",
        "protos/{}",
    ];
    let expected =
        expected.map(|key| format!("n/peers/{}", key.replace("{}", &format!("{{{B32}}}"))));
    assert_eq!(found, expected);
    let stats: String = server.ask("INFO commandstats").await;
    let calls = |name: &str| {
        let line = stats
            .lines()
            .find(|line| line.starts_with(&format!("cmdstat_{name}:")));
        line.map_or("0", |line| line.split(['=', ',']).nth(1).unwrap())
            .to_owned()
    };
    assert_eq!(
        (calls("multi"), calls("exec"), calls("set")),
        ("1".into(), "1".into(), "4".into())
    );

    // A metadata query of one peer looks at that peer only.
    assert_eq!(
        keys(&datastore, &(peer("metadata") + "/")).await,
        [peer("metadata") + "/a/b"]
    );
    let stats: String = server.ask("INFO commandstats").await;
    assert!(!stats.contains("cmdstat_scan:"), "{stats}");

    let deletes = batch.iter().map(|(key, _)| (key, None)).collect::<Vec<_>>();
    datastore.commit(super::batch(&deletes)).await.unwrap();
    assert_eq!(server.ask::<Vec<String>>("KEYS *").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_is_left_alone() {
    let Some(server) = Server::start(&FORGETFUL) else {
        return;
    };
    for command in [
        "RPUSH n/list x",
        "HSET n/peers/addrs/{a} x y",
        "SET n/peers/addrs/b x",
        "SET m/peers/addrs/{b} x",
        "SET other x",
    ] {
        let _: redis::Value = server.ask(command).await;
    }
    let mut raw = server.connect().await;
    let not_utf8: &[u8] = b"n/\xff";
    let _: () = redis::cmd("SET")
        .arg(not_utf8)
        .arg("x")
        .query_async(&mut raw)
        .await
        .unwrap();
    let datastore = open(&server.url(), RedisConfig::new("n")).await;
    datastore.put("/mine", vec![1]).await.unwrap();
    assert_eq!(keys(&datastore, "").await, ["/mine"]);
    let error = datastore.get("/list").await.unwrap_err();
    assert!(told(&error).contains("WRONGTYPE"), "{error:?}");
    assert_eq!(server.ask::<u64>("DBSIZE").await, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_too_long_is_never_fetched() {
    let Some(server) = Server::start(&FORGETFUL) else {
        return;
    };
    let config = RedisConfig::new("n").with_max_value_len(1_000);
    let datastore = open(&server.url(), config).await;
    let mut raw = server.connect().await;
    for key in ["n/peers/addrs/{b}", "n/other"] {
        let mut set = redis::cmd("SET");
        set.arg(key).arg(vec![b'x'; 50_000_000]);
        set.exec_async(&mut raw).await.unwrap();
    }
    datastore.put("/fits", vec![1; 1_000]).await.unwrap();
    assert_eq!(keys(&datastore, "").await, ["/fits"]);
    let error = told(&datastore.get("/other").await.unwrap_err());
    assert!(
        error.contains("`/other` has 50000000 bytes") && error.contains("max_value_len"),
        "{error}"
    );
    let error = told(&datastore.put("/other", vec![1; 1_001]).await.unwrap_err());
    assert!(error.contains("`/other` has 1001 bytes"), "{error}");
    let stats: String = server.ask("INFO stats").await;
    let sent = stats
        .lines()
        .find_map(|line| line.strip_prefix("total_net_output_bytes:"))
        .unwrap();
    assert!(sent.trim().parse::<u64>().unwrap() < 100_000, "{sent}");
}

// --- prefixes ----------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn braces_in_a_prefix_are_refused() {
    for (own, other) in [("a{b}", "c"), ("a", "}")] {
        let config = RedisConfig::new(own).with_reading_also([other]);
        let error = RedisDatastore::open(["redis://127.0.0.1:1"], config)
            .await
            .unwrap_err();
        assert!(
            matches!(error, DatastoreError::Open { hint, .. } if hint.contains("braces")),
            "{error:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_prefixes_of_their_own_do_not_meet() {
    let Some(server) = Server::start(&FORGETFUL) else {
        return;
    };
    let prefixes = ["", "n", "n1", "n*", "N", "n/"];
    let mut nodes = Vec::new();
    for prefix in prefixes {
        let node = open(&server.url(), RedisConfig::new(prefix)).await;
        node.put("/peers/addrs/b", prefix.into()).await.unwrap();
        nodes.push(node);
    }
    for (node, prefix) in nodes.iter().zip(prefixes) {
        let expected = [("/peers/addrs/b".to_owned(), prefix.as_bytes().to_vec())];
        assert_eq!(entries(node, "/peers/").await, expected);
    }
    // The whole database is the own one of an empty prefix.
    assert_eq!(keys(&nodes[0], "").await.len(), prefixes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_read_whole_from_the_first_prefix_that_has_it() {
    let Some(server) = Server::start(&FORGETFUL) else {
        return;
    };
    for (prefix, content) in [
        (
            "own",
            &[
                ("/peers/addrs/b1", Some("own")),
                ("/peers/metadata/b4/x", Some("own")),
            ][..],
        ),
        (
            "second",
            &[
                ("/peers/addrs/b1", Some("second")),
                ("/peers/keys/b1", Some("second")),
                ("/peers/keys/b2", Some("second")),
                ("/x", Some("second")),
            ][..],
        ),
        (
            "third",
            &[
                ("/peers/addrs/b2", Some("third")),
                ("/peers/metadata/b3/x", Some("third")),
                ("/peers/metadata/b4/y", Some("third")),
                ("/peers/metadata/b1/y", Some("third")),
            ][..],
        ),
    ] {
        let node = open(&server.url(), RedisConfig::new(prefix)).await;
        node.commit(batch(content)).await.unwrap();
    }
    let config = RedisConfig::new("own").with_reading_also(["second", "own", "third"]);
    let node = open(&server.url(), config).await;
    let expected = [
        ("/peers/addrs/b1", "own"),
        ("/peers/keys/b2", "second"),
        ("/peers/metadata/b3/x", "third"),
        ("/peers/metadata/b4/x", "own"),
        ("/x", "second"),
    ];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()));
    assert_eq!(entries(&node, "").await, expected);
    for (key, value) in &expected {
        assert_eq!(node.get(key).await.unwrap().as_ref(), Some(value), "{key}");
    }
    for hidden in [
        "/peers/keys/b1",
        "/peers/addrs/b2",
        "/peers/metadata/b4/y",
        "/peers/metadata/b1/y",
    ] {
        assert_eq!(node.get(hidden).await.unwrap(), None, "{hidden}");
    }
    assert_eq!(
        keys(&node, "/peers/metadata/b3/").await,
        ["/peers/metadata/b3/x"]
    );
    assert_eq!(
        keys(&node, "/peers/metadata/b4/").await,
        ["/peers/metadata/b4/x"]
    );
    // Writes go to the own prefix only.
    node.commit(batch(&[
        ("/peers/keys/b2", None),
        ("/x", None),
        ("/peers/addrs/b3", Some("own")),
    ]))
    .await
    .unwrap();
    let second = open(&server.url(), RedisConfig::new("second")).await;
    assert_eq!(keys(&second, "").await.len(), 4);
    assert_eq!(
        keys(&node, "").await,
        [
            "/peers/addrs/b1",
            "/peers/addrs/b3",
            "/peers/keys/b2",
            "/peers/metadata/b4/x",
            "/x"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_starts_with_what_its_fleet_knows() {
    let Some(server) = Server::start(&FORGETFUL) else {
        return;
    };
    let (local, friend) = (PeerId::random(), PeerId::random());
    let other = open(&server.url(), RedisConfig::new("other")).await;
    let other = PeerStore::open(PeerId::random(), other, Config::default())
        .await
        .unwrap();
    other.addresses().add(friend, [addr(1)]);
    other.metadata().set(friend, "a", "b").unwrap();
    other.shutdown().await.unwrap();

    let config = RedisConfig::new("own").with_reading_also(["other"]);
    let store = open(&server.url(), config).await;
    let store = PeerStore::open(local, store, Config::default())
        .await
        .unwrap();
    assert_eq!(store.get(&friend).unwrap().addresses[0].address, addr(1));
    assert_eq!(store.metadata().get(&friend).unwrap()["a"], b"b");
    // It is forgotten here, and stays there.
    store.delete(&friend);
    store.shutdown().await.unwrap();
    let other = open(&server.url(), RedisConfig::new("other")).await;
    assert!(!keys(&other, "").await.is_empty());
}

// --- a server that goes and comes ---------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn peers_survive_a_crash_of_the_server() {
    let Some(mut server) = Server::start(&DURABLE) else {
        return;
    };
    let local = PeerId::random();
    let peers: Vec<_> = (0..300).map(|_| PeerId::random()).collect();
    let store = open(&server.url(), RedisConfig::new("n")).await;
    let store = PeerStore::open(local, store, Config::default())
        .await
        .unwrap();
    for (n, peer) in peers.iter().enumerate() {
        store.addresses().add(*peer, [addr(n as u16), addr(1)]);
        store.protocols().set(*peer, ["/a", "/b"]);
        store.metadata().set(*peer, "empty", "").unwrap();
    }
    store.flush().await.unwrap();
    store.delete(&peers[0]);
    store.shutdown().await.unwrap();
    server.kill();
    server.run();

    let again = open(&server.url(), RedisConfig::new("n")).await;
    let again = PeerStore::open(local, again, Config::default())
        .await
        .unwrap();
    assert_eq!(again.load_report().peers, 299);
    for peer in &peers[1..] {
        let (before, after) = (store.get(peer).unwrap(), again.get(peer).unwrap());
        assert_eq!(after.protocols, before.protocols);
        assert_eq!(after.metadata, before.metadata);
        assert_eq!(after.addresses.len(), before.addresses.len());
    }
    again.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_waits_for_a_server_that_comes_back() {
    let Some(mut server) = Server::start(&DURABLE) else {
        return;
    };
    let config = RedisConfig::new("n").with_retry_for(Duration::from_secs(30));
    let datastore = open(&server.url(), config).await;
    datastore.put("/a", vec![1]).await.unwrap();
    server.kill();
    let writing = datastore.clone();
    let writing = tokio::spawn(async move { writing.put("/b", vec![2]).await });
    let reading = datastore.clone();
    let reading = tokio::spawn(async move { reading.get("/a").await });
    let querying = datastore.clone();
    let querying = tokio::spawn(async move { querying.query("/a").try_collect::<Vec<_>>().await });
    // They try in vain for a while, which nothing but time can show.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!writing.is_finished() && !reading.is_finished() && !querying.is_finished());
    server.run();
    writing.await.unwrap().unwrap();
    assert_eq!(reading.await.unwrap().unwrap(), Some(vec![1]));
    assert_eq!(
        querying.await.unwrap().unwrap(),
        [("/a".to_owned(), vec![1])]
    );
    assert_eq!(keys(&datastore, "").await, ["/a", "/b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_ends_while_the_server_is_away_and_works_when_it_is_back() {
    let Some(mut server) = Server::start(&FORGETFUL) else {
        return;
    };
    let datastore = open(&server.url(), quick("n")).await;
    server.kill();
    let begun = Instant::now();
    let errors = [
        datastore.get("/a").await.unwrap_err(),
        datastore.put("/a", vec![1]).await.unwrap_err(),
        datastore
            .query("")
            .try_collect::<Vec<_>>()
            .await
            .unwrap_err(),
    ];
    assert!(
        begun.elapsed() < Duration::from_secs(6),
        "{:?}",
        begun.elapsed()
    );
    for error in errors {
        assert!(error.to_string().contains(&server.url()), "{error}");
    }
    server.run();
    datastore.put("/b", vec![1]).await.unwrap();
    assert_eq!(datastore.get("/b").await.unwrap(), Some(vec![1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_restarted_server_lost_of_the_last_minute_is_written_again() {
    let Some(mut server) = Server::start(&FORGETFUL) else {
        return;
    };
    let datastore = open(&server.url(), RedisConfig::new("n")).await;
    datastore
        .commit(batch(&[
            ("/a", Some("old")),
            ("/b", Some("b")),
            ("/peers/metadata/b/x", Some("x")),
        ]))
        .await
        .unwrap();
    datastore
        .commit(batch(&[("/a", Some("new")), ("/b", None)]))
        .await
        .unwrap();
    server.kill();
    server.run();
    let until = Instant::now() + Duration::from_secs(20);
    while datastore.get("/a").await.unwrap().is_none() {
        assert!(Instant::now() < until, "it is not written again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        entries(&datastore, "/a").await,
        [("/a".to_owned(), b"new".to_vec())]
    );
    assert_eq!(keys(&datastore, "").await, ["/a", "/peers/metadata/b/x"]);
    assert_eq!(
        keys(&datastore, "/peers/metadata/b/").await,
        ["/peers/metadata/b/x"]
    );
}

/// A store that deletes a peer asks which metadata there is. What the server lost, and will get again, counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_deleted_while_the_server_has_lost_it_does_not_come_back() {
    let Some(mut server) = Server::start(&FORGETFUL) else {
        return;
    };
    let datastore = open(&server.url(), RedisConfig::new("n")).await;
    let written = [
        ("/other", Some("1")),
        ("/peers/addrs/b", Some("2")),
        ("/peers/metadata/b/x", Some("3")),
        ("/peers/metadata/bb/x", Some("4")),
    ];
    datastore.commit(batch(&written)).await.unwrap();
    server.kill();
    server.run();
    let metadata = entries(&datastore, "/peers/metadata/b/").await;
    assert_eq!(
        metadata,
        [("/peers/metadata/b/x".to_owned(), b"3".to_vec())]
    );
    let deletes = [("/peers/addrs/b", None), (metadata[0].0.as_str(), None)];
    datastore.commit(batch(&deletes)).await.unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while keys(&datastore, "").await != ["/other", "/peers/metadata/bb/x"] {
        assert!(Instant::now() < until, "{:?}", keys(&datastore, "").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(server.ask::<u64>("DBSIZE").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_holds_nobody_up_and_executes_nothing_late() {
    let Some(server) = Server::start(&FORGETFUL) else {
        return;
    };
    let datastore = open(&server.url(), quick("n")).await;
    datastore.put("/a", b"first".to_vec()).await.unwrap();
    server.pause(true);
    let begun = Instant::now();
    let error = datastore.put("/a", b"second".to_vec()).await.unwrap_err();
    let read = datastore.get("/a").await.unwrap_err();
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        told(&error).contains("timed out") && told(&read).contains("timed out"),
        "{error:?} {read:?}"
    );
    server.pause(false);
    datastore.put("/a", b"third".to_vec()).await.unwrap();
    // What was sent to it before has been executed before.
    let clients: String = server.ask("CLIENT LIST").await;
    assert!(
        clients
            .lines()
            .all(|client| client.contains("qbuf=0") || client.contains("cmd=client")),
        "{clients}"
    );
    assert_eq!(datastore.get("/a").await.unwrap(), Some(b"third".to_vec()));
}

// --- who may not -------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn passwords_open_the_door_and_are_never_shown() {
    let Some(server) = Server::start(&[
        "--requirepass",
        "s3cr3t",
        "--user",
        "anneliese",
        "on",
        ">pa55w0rd",
        "~n*",
        "+@all",
    ]) else {
        return;
    };
    let url = |login: &str| format!("redis://{login}@127.0.0.1:{}", server.port);
    for login in [":s3cr3t", "anneliese:pa55w0rd"] {
        let datastore = open(&url(login), RedisConfig::new("n")).await;
        datastore.put("/a", vec![1]).await.unwrap();
        assert_eq!(keys(&datastore, "").await, ["/a"]);
        let shown = shown(&datastore);
        assert!(
            shown.contains("127.0.0.1")
                && !shown.contains("s3cr3t")
                && !shown.contains("anneliese"),
            "{shown}"
        );
        datastore.close().await.unwrap();
    }
    for (login, hint) in [
        (":wr0ng", "refuses the user name or the password"),
        ("robert:wr0ng", "refuses the user name or the password"),
    ] {
        let error = RedisDatastore::open([url(login)], RedisConfig::new("n"))
            .await
            .unwrap_err();
        let told = told(&error);
        assert!(told.contains(hint) && told.contains("127.0.0.1"), "{told}");
        assert!(
            !told.contains("wr0ng") && !told.contains("robert"),
            "{told}"
        );
    }
    let error = RedisDatastore::open([server.url()], RedisConfig::new("n"))
        .await
        .unwrap_err();
    assert!(
        told(&error).contains("refuses the user name or the password"),
        "{error:?}"
    );

    // Another prefix than the user may touch.
    let datastore = open(&url("anneliese:pa55w0rd"), RedisConfig::new("m")).await;
    let told = told(&datastore.put("/a", vec![1]).await.unwrap_err());
    assert!(
        told.contains("NoPerm") && !told.contains("pa55w0rd") && !told.contains("anneliese"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_none_is_an_error_that_does_not_repeat_it() {
    for url in [
        "",
        "s3cr3t",
        "http://x:s3cr3t@y",
        "redis://x:s3cr3t@",
        "redis://x:s3cr3t@y:notaport",
    ] {
        let error = RedisDatastore::open([url], quick("n")).await.unwrap_err();
        assert!(matches!(error, DatastoreError::Open { .. }), "{error:?}");
        assert!(!told(&error).contains("s3cr3t"), "{error:?}");
    }
    let none: [&str; 0] = [];
    assert!(RedisDatastore::open(none, quick("n")).await.is_err());
    // Where nobody listens.
    let error = RedisDatastore::open(["redis://127.0.0.1:1"], quick("n"))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("no server answers there"),
        "{error}"
    );
}

// --- runtimes ----------------------------------------------------------------------------------------------

#[test]
fn it_works_from_any_executor_with_a_runtime_of_its_own() {
    let Some(server) = Server::start(&FORGETFUL) else {
        return;
    };
    let error = block_on(RedisDatastore::open([server.url()], RedisConfig::new("n"))).unwrap_err();
    assert!(error.to_string().contains("open_on"), "{error}");

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let opened = RedisDatastore::open_on(
        runtime.handle().clone(),
        [server.url()],
        RedisConfig::new("n"),
    );
    let datastore = Arc::new(block_on(opened).unwrap());
    block_on(datastore.put("/a", vec![1])).unwrap();
    let other = datastore.clone();
    let read = thread::spawn(move || block_on(other.get("/a")).unwrap());
    assert_eq!(read.join().unwrap(), Some(vec![1]));
    smol::block_on(async { assert_eq!(keys(&*datastore, "").await, ["/a"]) });

    // A runtime that ended is an error, not a hang and not an end of the query.
    drop(runtime);
    assert!(block_on(datastore.get("/a")).is_err());
    assert!(block_on(datastore.query("").try_collect::<Vec<_>>()).is_err());
    block_on(datastore.close()).unwrap();
}

#[tokio::test]
async fn a_store_on_a_runtime_of_one_thread_saves() {
    let Some(server) = Server::start(&FORGETFUL) else {
        return;
    };
    let peer = PeerId::random();
    for run in 0..2 {
        let datastore = open(&server.url(), RedisConfig::new("n")).await;
        let store = PeerStore::open(PeerId::random(), datastore, Config::default())
            .await
            .unwrap();
        assert_eq!(store.contains(&peer), run == 1);
        store.addresses().add(peer, [addr(1)]);
        store.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_close_calls_say_so() {
    let Some(server) = Server::start(&FORGETFUL) else {
        return;
    };
    let datastore = open(&server.url(), RedisConfig::new("n")).await;
    datastore.put("/a", vec![1]).await.unwrap();
    datastore.close().await.unwrap();
    datastore.close().await.unwrap();
    let closed = |error| matches!(error, DatastoreError::Closed { .. });
    assert!(closed(datastore.get("/a").await.unwrap_err()));
    assert!(closed(datastore.put("/a", vec![2]).await.unwrap_err()));
    assert!(closed(
        datastore
            .query("")
            .try_collect::<Vec<_>>()
            .await
            .unwrap_err()
    ));
    let clients: String = server.ask("CLIENT LIST").await;
    assert_eq!(clients.lines().count(), 1, "{clients}");
}
