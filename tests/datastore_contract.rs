//! What every datastore must do, checked on each one that this crate ships.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, executor::block_on};
use libp2p_peerstore::{Batch, Datastore, KeyValue};

/// Makes a test of each check, for each datastore.
macro_rules! contract {
    ($($check:ident)*) => {
        mod memory {
            $(
                #[test]
                fn $check() {
                    let datastore = libp2p_peerstore::MemoryDatastore::default();
                    super::block_on(super::$check(&datastore));
                }
            )*
        }

        mod shared {
            $(
                #[test]
                fn $check() {
                    let datastore = libp2p_peerstore::MemoryDatastore::default();
                    let datastore: std::sync::Arc<dyn super::Datastore> = std::sync::Arc::new(datastore);
                    super::block_on(super::$check(&datastore));
                }
            )*
        }

        mod redb {
            $(
                #[test]
                fn $check() {
                    let folder = tempfile::tempdir().unwrap();
                    let path = folder.path().join("peers.redb");
                    let datastore = libp2p_peerstore::RedbDatastore::open(path).unwrap();
                    super::block_on(super::$check(&datastore));
                }
            )*
        }
    };
}

contract! {
    an_empty_datastore_holds_nothing
    what_was_put_is_got_and_the_last_put_counts
    what_was_deleted_is_gone_and_deleting_nothing_is_no_error
    an_empty_value_is_not_an_absent_one
    a_batch_puts_and_deletes_at_once
    the_last_operation_of_a_key_in_a_batch_counts
    an_empty_batch_changes_nothing
    a_batch_may_be_committed_twice
    a_query_answers_every_key_with_the_prefix_and_no_other
    a_query_of_more_than_a_page_answers_each_key_once
    a_query_may_be_dropped_half_way
    a_query_goes_on_while_others_write
    keys_may_hold_any_character
    large_values_are_kept
    several_calls_may_run_at_once
    close_comes_after_everything
}

// --- helpers -----------------------------------------------------------------------------------------------

async fn query(datastore: &dyn Datastore, prefix: &str) -> Vec<KeyValue> {
    let mut entries: Vec<KeyValue> = datastore.query(prefix).try_collect().await.unwrap();
    entries.sort();
    entries
}

async fn keys(datastore: &dyn Datastore, prefix: &str) -> Vec<String> {
    let entries = query(datastore, prefix).await;
    entries.into_iter().map(|(key, _)| key).collect()
}

async fn put(datastore: &dyn Datastore, key: &str, value: &str) {
    datastore.put(key, value.into()).await.unwrap();
}

async fn get(datastore: &dyn Datastore, key: &str) -> Option<Vec<u8>> {
    let value = datastore.get(key).await.unwrap();
    assert_eq!(datastore.has(key).await.unwrap(), value.is_some(), "{key}");
    value
}

// --- checks ------------------------------------------------------------------------------------------------

async fn an_empty_datastore_holds_nothing(datastore: &dyn Datastore) {
    assert_eq!(get(datastore, "/a").await, None);
    assert_eq!(query(datastore, "/").await, []);
    assert_eq!(query(datastore, "").await, []);
    datastore.delete("/a").await.unwrap();
    datastore.close().await.unwrap();
}

async fn what_was_put_is_got_and_the_last_put_counts(datastore: &dyn Datastore) {
    put(datastore, "/a", "1").await;
    put(datastore, "/b", "2").await;
    put(datastore, "/a", "3").await;
    assert_eq!(get(datastore, "/a").await.unwrap(), b"3");
    assert_eq!(get(datastore, "/b").await.unwrap(), b"2");
    assert_eq!(get(datastore, "/").await, None);
    assert_eq!(get(datastore, "/a/").await, None);
    assert_eq!(keys(datastore, "").await, ["/a", "/b"]);
}

async fn what_was_deleted_is_gone_and_deleting_nothing_is_no_error(datastore: &dyn Datastore) {
    put(datastore, "/a", "1").await;
    put(datastore, "/ab", "2").await;
    for _ in 0..2 {
        datastore.delete("/a").await.unwrap();
        assert_eq!(get(datastore, "/a").await, None);
        assert_eq!(keys(datastore, "/a").await, ["/ab"]);
    }
    put(datastore, "/a", "3").await;
    assert_eq!(get(datastore, "/a").await.unwrap(), b"3");
}

async fn an_empty_value_is_not_an_absent_one(datastore: &dyn Datastore) {
    put(datastore, "/a", "").await;
    assert_eq!(get(datastore, "/a").await, Some(Vec::new()));
    assert_eq!(
        query(datastore, "/a").await,
        [("/a".to_owned(), Vec::new())]
    );
    put(datastore, "/a", "1").await;
    put(datastore, "/a", "").await;
    assert_eq!(get(datastore, "/a").await, Some(Vec::new()));
}

async fn a_batch_puts_and_deletes_at_once(datastore: &dyn Datastore) {
    for key in ["/a", "/b", "/c"] {
        put(datastore, key, "old").await;
    }
    let mut batch = Batch::default();
    batch.put("/a", b"new".to_vec());
    batch.delete("/b");
    batch.put("/d", b"new".to_vec());
    batch.delete("/never there");
    assert_eq!((batch.len(), batch.is_empty()), (4, false));
    datastore.commit(batch).await.unwrap();
    let entries = query(datastore, "/").await;
    let expected = [("/a", "new"), ("/c", "old"), ("/d", "new")];
    assert_eq!(entries, expected.map(|(k, v)| (k.to_owned(), v.into())));
}

async fn the_last_operation_of_a_key_in_a_batch_counts(datastore: &dyn Datastore) {
    put(datastore, "/b", "old").await;
    let mut batch = Batch::default();
    batch.put("/a", b"1".to_vec());
    batch.put("/a", b"2".to_vec());
    batch.put("/b", b"1".to_vec());
    batch.delete("/b");
    batch.delete("/c");
    batch.put("/c", b"1".to_vec());
    let operations: Vec<_> = batch.iter().collect();
    let expected: [(&str, Option<&[u8]>); 3] =
        [("/a", Some(b"2")), ("/b", None), ("/c", Some(b"1"))];
    assert_eq!(operations, expected);
    datastore.commit(batch).await.unwrap();
    assert_eq!(keys(datastore, "/").await, ["/a", "/c"]);
    assert_eq!(get(datastore, "/a").await.unwrap(), b"2");
}

async fn an_empty_batch_changes_nothing(datastore: &dyn Datastore) {
    put(datastore, "/a", "1").await;
    let batch = Batch::default();
    assert!(batch.is_empty());
    datastore.commit(batch).await.unwrap();
    assert_eq!(keys(datastore, "/").await, ["/a"]);
}

async fn a_batch_may_be_committed_twice(datastore: &dyn Datastore) {
    put(datastore, "/b", "1").await;
    let mut batch = Batch::default();
    batch.put("/a", b"1".to_vec());
    batch.delete("/b");
    for _ in 0..3 {
        datastore.commit(batch.clone()).await.unwrap();
        assert_eq!(keys(datastore, "/").await, ["/a"]);
    }
}

async fn a_query_answers_every_key_with_the_prefix_and_no_other(datastore: &dyn Datastore) {
    let all = [
        "/",
        "/peer",
        "/peers",
        "/peers/",
        "/peers/a",
        "/peers/a/b",
        "/peers/ab",
        "/peers/b",
        "/peers0",
        "/peerz",
        "0",
    ];
    for key in all {
        put(datastore, key, key).await;
    }
    for prefix in [
        "",
        "/",
        "/peers",
        "/peers/",
        "/peers/a",
        "/peers/a/",
        "/x",
        "0",
        "00",
    ] {
        let expected = all.iter().filter(|key| key.starts_with(prefix));
        let expected: Vec<KeyValue> = expected
            .map(|key| ((*key).to_owned(), key.as_bytes().to_vec()))
            .collect();
        assert_eq!(query(datastore, prefix).await, expected, "{prefix}");
    }
}

async fn a_query_of_more_than_a_page_answers_each_key_once(datastore: &dyn Datastore) {
    // At, below and above whatever a datastore may read at a time.
    for count in [1, 255, 256, 257, 511, 512, 513, 1_000, 5_000] {
        let folder = format!("/{count}/");
        let mut batch = Batch::default();
        let mut expected = BTreeMap::new();
        for n in 0..count {
            let (key, value) = (format!("{folder}{n}"), vec![n as u8; 3]);
            batch.put(key.clone(), value.clone());
            expected.insert(key, value);
        }
        datastore.commit(batch).await.unwrap();
        let entries = query(datastore, &folder).await;
        assert_eq!(entries, expected.into_iter().collect::<Vec<_>>(), "{count}");
    }
}

async fn a_query_may_be_dropped_half_way(datastore: &dyn Datastore) {
    let mut batch = Batch::default();
    for n in 0..1_000 {
        batch.put(format!("/{n}"), Vec::new());
    }
    datastore.commit(batch).await.unwrap();
    for taken in [0, 1, 300, 1_000] {
        let entries = datastore.query("/").take(taken);
        let entries: Vec<_> = entries.try_collect().await.unwrap();
        assert_eq!(entries.len(), taken);
    }
    drop(datastore.query("/"));
    put(datastore, "/x", "").await;
    assert_eq!(keys(datastore, "/").await.len(), 1_001);
}

async fn a_query_goes_on_while_others_write(datastore: &dyn Datastore) {
    let mut batch = Batch::default();
    for n in 0..1_000 {
        batch.put(format!("/stays/{n:04}"), Vec::new());
        batch.put(
            format!("/{}/{n:04}", if n % 2 == 0 { "a" } else { "z" }),
            Vec::new(),
        );
    }
    datastore.commit(batch).await.unwrap();
    let mut met = Vec::new();
    let mut entries = datastore.query("/");
    while let Some(entry) = entries.next().await {
        let (key, _) = entry.unwrap();
        if met.len() % 100 == 0 {
            let mut batch = Batch::default();
            batch.delete(key.replace("stays", "a"));
            batch.delete(format!("/z/{:04}", met.len()));
            batch.put(format!("/new/{}", met.len()), Vec::new());
            datastore.commit(batch).await.unwrap();
        }
        met.push(key);
    }
    // What was there all the time is met, once; the rest may be.
    met.retain(|key| key.starts_with("/stays/"));
    met.sort();
    let expected: Vec<String> = (0..1_000).map(|n| format!("/stays/{n:04}")).collect();
    assert_eq!(met, expected);
}

async fn keys_may_hold_any_character(datastore: &dyn Datastore) {
    let odd = [
        "/".to_owned(),
        "//".to_owned(),
        "/a/../b".to_owned(),
        "/.".to_owned(),
        "/ ".to_owned(),
        "/\0".to_owned(),
        "/\n\r\t".to_owned(),
        "/\u{7f}\u{80}".to_owned(),
        "/%2f\\?*:|\"<>".to_owned(),
        "/ключ".to_owned(),
        "/💥".to_owned(),
        "/\u{10ffff}".to_owned(),
        "/A".to_owned(),
        "/a".to_owned(),
        format!("/{}", "long".repeat(1_000)),
    ];
    for key in &odd {
        put(datastore, key, key).await;
    }
    for key in &odd {
        assert_eq!(get(datastore, key).await.unwrap(), key.as_bytes());
        let found = query(datastore, key).await;
        assert!(found.iter().any(|(other, _)| other == key));
        assert!(
            found
                .iter()
                .all(|(other, _)| other.starts_with(key.as_str()))
        );
    }
    let mut expected = odd.to_vec();
    expected.sort();
    assert_eq!(keys(datastore, "/").await, expected);
    for key in &odd {
        datastore.delete(key).await.unwrap();
    }
    assert_eq!(query(datastore, "").await, []);
}

async fn large_values_are_kept(datastore: &dyn Datastore) {
    let value: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    datastore.put("/large", value.clone()).await.unwrap();
    assert!(datastore.get("/large").await.unwrap() == Some(value));
    put(datastore, "/large", "small").await;
    assert_eq!(get(datastore, "/large").await.unwrap(), b"small");
}

async fn several_calls_may_run_at_once(datastore: &dyn Datastore) {
    let puts = (0..20).map(|n| async move {
        let key = format!("/{n}");
        put(datastore, &key, &key).await;
        get(datastore, &key).await.unwrap()
    });
    let got = futures::future::join_all(puts).await;
    assert_eq!(got.len(), 20);
    assert_eq!(keys(datastore, "/").await.len(), 20);
}

async fn close_comes_after_everything(datastore: &dyn Datastore) {
    put(datastore, "/a", "1").await;
    datastore.close().await.unwrap();
}
