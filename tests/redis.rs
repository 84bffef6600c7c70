//! The datastore in Redis, on real servers: one alone, and a cluster. Without a server's binary the tests say that they
//! are skipped.

#![allow(clippy::unwrap_used)]

#[path = "redis/access.rs"]
mod access;
#[path = "redis/cluster.rs"]
mod cluster;
#[cfg(feature = "testing")]
#[path = "redis/conformance.rs"]
mod conformance;
#[path = "redis/content.rs"]
mod content;
#[path = "redis/outage.rs"]
mod outage;
#[path = "redis/prefixes.rs"]
mod prefixes;
#[path = "support/skip.rs"]
mod skip;
#[path = "support/redis_server.rs"]
mod support;
#[cfg(feature = "redis-tls")]
#[path = "redis/tls.rs"]
mod tls;

use std::{env, error::Error, fmt::Debug, process::Command, time::Duration};

use futures::TryStreamExt;
use libp2p::Multiaddr;
use libp2p_peerstore::{Batch, Datastore, DatastoreError, KeyValue, RedisConfig, RedisDatastore};

/// A peer's name as `<b32>` stands in keys.
const B32: &str = "bafzaajaiaejcaudtpxz3yxyx5xbsitgz4yq3ahocyq4zsbc32p27qq2pybko6ap5";

async fn open(url: &str, config: RedisConfig) -> RedisDatastore {
    RedisDatastore::open([url], config).await.unwrap()
}

async fn entries(datastore: &dyn Datastore, prefix: &str) -> Vec<KeyValue> {
    let mut entries: Vec<KeyValue> = datastore.query(prefix).try_collect().await.unwrap();
    entries.sort();
    entries
}

async fn keys(datastore: &dyn Datastore, prefix: &str) -> Vec<String> {
    let entries = entries(datastore, prefix).await;
    entries.into_iter().map(|(key, _)| key).collect()
}

/// All that an error says, in every way it can be shown.
fn told(error: &DatastoreError) -> String {
    fn all(error: &(dyn Error + 'static)) -> String {
        let source = error.source().map(all).unwrap_or_default();
        format!("{error} {error:?} {source}")
    }
    all(error)
}

fn shown(thing: &impl Debug) -> String {
    format!("{thing:?} {thing:#?}")
}

fn batch(operations: &[(&str, Option<&str>)]) -> Batch {
    let mut batch = Batch::default();
    for (key, value) in operations {
        match value {
            Some(value) => batch.put(*key, value.as_bytes().to_vec()),
            None => batch.delete(*key),
        }
    }
    batch
}

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

#[test]
fn a_test_without_a_server_says_that_it_is_skipped_and_fails_where_one_must_be() {
    let test = "access::passwords_open_the_door_and_are_never_shown";
    let run = |needed: &str| {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args([test, "--exact", "--test-threads", "2"]);
        command.env("PATH", "").env(skip::NEEDED, needed);
        command.output().unwrap()
    };
    for (needed, passes) in [
        ("", true),
        ("openssl js-wire", true),
        ("openssl redis", false),
    ] {
        let output = run(needed);
        assert_eq!(output.status.success(), passes, "{needed}: {output:?}");
        // The harness shows what a test says only if it fails.
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let skipped = format!("skipped: {test}: neither redis-server nor valkey-server");
        assert_eq!(said.contains(&skipped), passes, "{said}");
    }
}
