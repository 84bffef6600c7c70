//! What one server holds, and how it is spelt there.

use futures::{StreamExt, TryStreamExt};
use libp2p_peerstore::{Batch, Config, Datastore, MemoryDatastore, PeerStore, RedisConfig};

use super::{B32, FORGETFUL, entries, keys, open, support::Server, told};

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
        set.arg(key).arg(vec![b'x'; 5_000_000]);
        set.exec_async(&mut raw).await.unwrap();
    }
    datastore.put("/fits", vec![1; 1_000]).await.unwrap();
    assert_eq!(keys(&datastore, "").await, ["/fits"]);
    let error = told(&datastore.get("/other").await.unwrap_err());
    assert!(
        error.contains("`/other` has 5000000 bytes") && error.contains("max_value_len"),
        "{error}"
    );
    let stats: String = server.ask("INFO stats").await;
    let sent = stats
        .lines()
        .find_map(|line| line.strip_prefix("total_net_output_bytes:"))
        .unwrap();
    assert!(sent.trim().parse::<u64>().unwrap() < 100_000, "{sent}");
}

/// It keeps nobody else from being saved, and what it replaced does not come back as if it were still true.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_too_long_is_left_out_of_its_commit_and_its_old_value_deleted() {
    let Some(server) = Server::start(&FORGETFUL) else {
        return;
    };
    let config = RedisConfig::new("n").with_max_value_len(1_000);
    let datastore = open(&server.url(), config).await;
    let metadata = |name: &str| format!("/peers/metadata/{B32}/{name}");
    let commit = async |length: usize, other: &str| {
        let mut batch = Batch::default();
        batch.put(format!("/peers/addrs/{B32}"), vec![1; length]);
        batch.put(metadata("note"), vec![1; length]);
        batch.put(metadata("other"), other.into());
        batch.put("/peers/addrs/b", other.into());
        batch.delete("/peers/protos/b");
        datastore.commit(batch).await.unwrap();
    };
    datastore.put("/peers/protos/b", vec![1]).await.unwrap();
    commit(1_000, "first").await;
    assert_eq!(keys(&datastore, "").await.len(), 4);
    for round in ["second", "third"] {
        commit(1_001, round).await;
        let expected = [
            ("/peers/addrs/b".to_owned(), round.into()),
            (metadata("other"), round.into()),
        ];
        assert_eq!(entries(&datastore, "").await, expected);
        assert_eq!(datastore.get(&metadata("note")).await.unwrap(), None);
        let of_peer = format!("/peers/metadata/{B32}/");
        assert_eq!(keys(&datastore, &of_peer).await, [metadata("other")]);
    }
    // It fits again.
    commit(999, "fourth").await;
    assert_eq!(keys(&datastore, "").await.len(), 4);
}

/// A node whose operator chose too low a limit saves and loads all that fits.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_saves_everybody_beside_a_peer_whose_value_is_too_long() {
    let Some(server) = Server::start(&FORGETFUL) else {
        return;
    };
    let config = RedisConfig::new("n").with_max_value_len(1_000);
    let local = libp2p::PeerId::random();
    let datastore = open(&server.url(), config.clone()).await;
    let store = PeerStore::open(local, datastore, Config::default());
    let store = store.await.unwrap();
    let hostile = libp2p::PeerId::random();
    let protocols = (0..100).map(|n| format!("/{n}/{}", "x".repeat(100)));
    store
        .protocols()
        .set(hostile, protocols.collect::<Vec<_>>());
    store.addresses().add(hostile, [super::addr(1)]);
    for port in 2..40 {
        store
            .addresses()
            .add(libp2p::PeerId::random(), [super::addr(port)]);
    }
    store.flush().await.unwrap();
    store.shutdown().await.unwrap();
    let again = open(&server.url(), config).await;
    let again = PeerStore::open(local, again, Config::default());
    let again = again.await.unwrap();
    assert_eq!(again.len(), 39);
    let found = again.get(&hostile).unwrap();
    assert!(found.protocols.is_empty() && found.addresses.len() == 1);
    again.shutdown().await.unwrap();
}
