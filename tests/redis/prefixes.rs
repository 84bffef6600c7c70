//! Several nodes in one database.

use libp2p::PeerId;
use libp2p_peerstore::{Config, Datastore, DatastoreError, PeerStore, RedisConfig, RedisDatastore};

use super::{FORGETFUL, addr, batch, entries, keys, open, support::Server};

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
