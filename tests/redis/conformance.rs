//! The conformance suite of datastores, on real servers.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use libp2p_peerstore::{RedisConfig, RedisDatastore, testing::Conformance};

use super::{
    cluster::ONE_AT_A_TIME,
    support::{Cluster, Server},
};

/// Every check has a prefix of its own; a datastore that is opened again has that of the one before it.
async fn check(urls: &[String]) {
    let opened = &AtomicUsize::new(0);
    let open = move |n: usize| async move {
        let config = RedisConfig::new(format!("c{n}"));
        RedisDatastore::open(urls, config).await.unwrap()
    };
    let suite = Conformance::new(move || open(opened.fetch_add(1, Ordering::Relaxed)));
    let suite = suite.with_reopen(move |old| async move {
        drop(old);
        open(opened.load(Ordering::Relaxed) - 1).await
    });
    let report = suite.run().await;
    report.assert();
    assert_eq!(report.left_out, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_server_keeps_every_rule() {
    let Some(server) = Server::start(&["--save", ""]) else {
        return;
    };
    check(&[server.url()]).await;
}

#[tokio::test]
async fn a_single_server_keeps_every_rule_on_a_runtime_of_one_thread() {
    let Some(server) = Server::start(&["--save", ""]) else {
        return;
    };
    check(&[server.url()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_keeps_every_rule() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(cluster) = Cluster::start(Duration::from_secs(5)).await else {
        return;
    };
    check(&cluster.urls()).await;
}
