//! What is there when a datastore is opened again.

use super::{
    Outcome, Subject, calls::commit_dropped_after, commit, delete, ensure, expect_query, is_whole,
    peer_keys, put, put_old_peer, put_peer,
};
use crate::datastore::{Batch, Datastore, KeyValue};

/// Writes in several ways. Returns what shall be there.
async fn write(datastore: &impl Datastore) -> Outcome<Vec<KeyValue>> {
    let mut batch = Batch::default();
    for n in 0..300 {
        put_peer(&mut batch, n, b"value");
    }
    batch.put("/empty", Vec::new());
    batch.put("/large", vec![7; 1_000_000]);
    batch.put("/deleted", b"1".to_vec());
    batch.put("/replaced", b"old".to_vec());
    batch.put("/a/../b", b"odd".to_vec());
    commit(datastore, batch).await?;
    put(datastore, "/replaced", b"new").await?;
    put(datastore, "/alone", b"1").await?;
    delete(datastore, "/deleted").await?;
    let mut batch = Batch::default();
    for n in 100..300 {
        peer_keys(n).into_iter().for_each(|key| batch.delete(key));
    }
    commit(datastore, batch).await?;
    let rest = [
        ("/empty", Vec::new()),
        ("/large", vec![7; 1_000_000]),
        ("/replaced", b"new".to_vec()),
        ("/a/../b", b"odd".to_vec()),
        ("/alone", b"1".to_vec()),
    ];
    let peers = (0..100).flat_map(|n| {
        let [kept @ .., _] = peer_keys(n);
        kept.map(|key| (key, b"value".to_vec()))
    });
    Ok(rest
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .chain(peers)
        .collect())
}

async fn close(datastore: &impl Datastore) -> Outcome {
    let closed = datastore.close().await;
    closed.map_err(|error| super::said("close()", &error))
}

pub(super) async fn what_was_committed_is_there_after_closing<D: Datastore>(
    subject: &Subject<'_, D>,
) -> Outcome {
    let datastore = subject.make().await;
    let expected = write(&datastore).await?;
    close(&datastore).await?;
    let datastore = subject.reopen(datastore).await;
    expect_query(&datastore, "", expected).await
}

pub(super) async fn what_was_committed_is_there_without_closing<D: Datastore>(
    subject: &Subject<'_, D>,
) -> Outcome {
    let datastore = subject.make().await;
    let expected = write(&datastore).await?;
    let datastore = subject.reopen(datastore).await;
    expect_query(&datastore, "", expected).await
}

pub(super) async fn it_may_be_opened_many_times<D: Datastore>(subject: &Subject<'_, D>) -> Outcome {
    // Empty at first.
    let mut datastore = subject.make().await;
    let mut expected = Vec::new();
    for round in 0..6_u8 {
        if round % 2 == 0 {
            close(&datastore).await?;
        }
        datastore = subject.reopen(datastore).await;
        expect_query(&datastore, "", expected.iter().cloned()).await?;
        put(&datastore, &format!("/{round}"), &[round]).await?;
        expected.push((format!("/{round}"), vec![round]));
    }
    expect_query(&datastore, "", expected).await
}

pub(super) async fn what_was_cut_short_is_whole_or_not_at_all<D: Datastore>(
    subject: &Subject<'_, D>,
) -> Outcome {
    for polls in 0..10 {
        let datastore = subject.make().await;
        let (mut old, mut new) = (Batch::default(), Batch::default());
        for n in 0..3 {
            put_old_peer(&mut old, n);
            put_peer(&mut new, n, b"new");
        }
        commit(&datastore, old).await?;
        let ended = commit_dropped_after(&datastore, new, polls).await;
        let datastore = subject.reopen(datastore).await;
        for n in 0..3 {
            ensure!(
                is_whole(&datastore, n, b"new").await?,
                "half of a peer is there after reopening"
            );
        }
        if ended {
            break;
        }
    }
    Ok(())
}
