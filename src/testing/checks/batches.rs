//! Commits of several keys.

use super::{Outcome, Subject, commit, expect, expect_query, peer_keys, put, put_peer};
use crate::datastore::{Batch, Datastore, KeyValue};

fn entries<const N: usize>(entries: [(&str, &str); N]) -> [KeyValue; N] {
    entries.map(|(key, value)| (key.to_owned(), value.into()))
}

pub(super) async fn a_batch_puts_and_deletes<D: Datastore>(subject: &Subject<'_, D>) -> Outcome {
    let datastore = subject.make().await;
    for key in ["/a", "/b", "/c"] {
        put(&datastore, key, b"old").await?;
    }
    let mut batch = Batch::default();
    batch.put("/a", b"new".to_vec());
    batch.delete("/b");
    batch.put("/d", b"new".to_vec());
    batch.delete("/never there");
    commit(&datastore, batch).await?;
    let expected = entries([("/a", "new"), ("/c", "old"), ("/d", "new")]);
    expect_query(&datastore, "/", expected).await?;
    // Nothing but deletions.
    let mut batch = Batch::default();
    batch.delete("/a");
    batch.delete("/d");
    commit(&datastore, batch).await?;
    expect_query(&datastore, "/", entries([("/c", "old")])).await
}

pub(super) async fn an_empty_batch_changes_nothing<D: Datastore>(
    subject: &Subject<'_, D>,
) -> Outcome {
    let datastore = subject.make().await;
    commit(&datastore, Batch::default()).await?;
    put(&datastore, "/a", b"1").await?;
    commit(&datastore, Batch::default()).await?;
    expect_query(&datastore, "", entries([("/a", "1")])).await
}

pub(super) async fn a_batch_may_be_committed_twice<D: Datastore>(
    subject: &Subject<'_, D>,
) -> Outcome {
    let datastore = subject.make().await;
    put(&datastore, "/b", b"1").await?;
    let mut batch = Batch::default();
    batch.put("/a", b"1".to_vec());
    batch.put("/empty", Vec::new());
    batch.delete("/b");
    for _ in 0..3 {
        commit(&datastore, batch.clone()).await?;
        expect_query(&datastore, "/", entries([("/a", "1"), ("/empty", "")])).await?;
    }
    Ok(())
}

pub(super) async fn a_large_batch_is_applied<D: Datastore>(subject: &Subject<'_, D>) -> Outcome {
    let datastore = subject.make().await;
    let peers = 1_500;
    let mut batch = Batch::default();
    let mut expected = Vec::new();
    for n in 0..peers {
        put_peer(&mut batch, n, &n.to_be_bytes());
        let [kept @ .., _] = peer_keys(n);
        expected.extend(kept.map(|key| (key, n.to_be_bytes().to_vec())));
    }
    commit(&datastore, batch).await?;
    expect_query(&datastore, "/peers/", expected.iter().cloned()).await?;
    let [key, ..] = peer_keys(peers - 1);
    expect(&datastore, &key, Some(&(peers - 1).to_be_bytes())).await?;
    // All but the first peer go again.
    let mut batch = Batch::default();
    for n in 1..peers {
        peer_keys(n).into_iter().for_each(|key| batch.delete(key));
    }
    commit(&datastore, batch).await?;
    expect_query(&datastore, "", expected.into_iter().take(4)).await
}

pub(super) async fn commits_follow_each_other<D: Datastore>(subject: &Subject<'_, D>) -> Outcome {
    let datastore = subject.make().await;
    for round in 0..50_u8 {
        let mut batch = Batch::default();
        batch.put("/always", vec![round]);
        batch.put(format!("/{round}"), vec![round]);
        if round > 0 {
            batch.delete(format!("/{}", round - 1));
        }
        commit(&datastore, batch).await?;
        let expected = [
            ("/always".to_owned(), vec![round]),
            (format!("/{round}"), vec![round]),
        ];
        expect_query(&datastore, "", expected).await?;
    }
    Ok(())
}
