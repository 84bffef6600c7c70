//! A server that goes and comes.

use std::time::{Duration, Instant};

use futures::TryStreamExt;
use libp2p::PeerId;
use libp2p_peerstore::{Config, Datastore, PeerStore, RedisConfig};

use super::{DURABLE, FORGETFUL, addr, batch, entries, keys, open, quick, support::Server, told};

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
