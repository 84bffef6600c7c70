//! Who may open it, and from where.

use std::{sync::Arc, thread};

use futures::{TryStreamExt, executor::block_on};
use libp2p::PeerId;
use libp2p_peerstore::{Config, Datastore, DatastoreError, PeerStore, RedisConfig, RedisDatastore};

use super::{FORGETFUL, addr, keys, open, quick, shown, support::Server, told};

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
        let shown = shown(&datastore) + &datastore.location();
        assert!(datastore.location().contains(&server.port.to_string()));
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
