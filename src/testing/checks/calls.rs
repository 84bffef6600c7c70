//! Threads, calls at once, calls that are dropped, and the end.

use std::{future::poll_fn, sync::Arc, task::Poll, thread, time::Duration};

use futures::{
    FutureExt, StreamExt, channel::oneshot, executor::block_on, future::BoxFuture,
    future::join_all, join,
};
use futures_timer::Delay;

use super::{
    Outcome, Subject, commit, ensure, expect, expect_query, is_whole, peer_keys, put, put_old_peer,
    put_peer, query,
};
use crate::datastore::{Batch, Datastore};

/// How long what was dropped may go on in the background.
const AFTERMATH: Duration = Duration::from_secs(5);

pub(super) async fn reads_overlap_with_a_commit<D: Datastore>(subject: &Subject<'_, D>) -> Outcome {
    let datastore = subject.make().await;
    put(&datastore, "/stays", b"old").await?;
    let mut batch = Batch::default();
    for n in 0..300 {
        put(&datastore, &format!("/{n}"), b"old").await?;
        batch.put(format!("/{n}"), b"new".to_vec());
    }
    let reads = join_all((0..300).map(|n| {
        let datastore = &datastore;
        async move {
            let key = format!("/{n}");
            let value = get_alone(datastore, &key).await?;
            let known = value.as_deref() == Some(b"old") || value.as_deref() == Some(b"new");
            ensure!(
                known,
                "`get({key:?})` during a commit answers neither the old nor the new value"
            );
            Ok(())
        }
    }));
    let queries = join_all((0..3).map(|_| query(&datastore, "/")));
    let (committed, read, queried) = join!(commit(&datastore, batch), reads, queries);
    committed?;
    read.into_iter().collect::<Outcome>()?;
    for entries in queried {
        let entries = entries?;
        ensure!(
            entries.len() == 301,
            "a query during a commit answers {} of 301 keys",
            entries.len()
        );
    }
    for n in 0..300 {
        expect(&datastore, &format!("/{n}"), Some(b"new")).await?;
    }
    expect(&datastore, "/stays", Some(b"old")).await
}

/// Without `has`, which may see another moment.
async fn get_alone(datastore: &impl Datastore, key: &str) -> Outcome<Option<Vec<u8>>> {
    let value = datastore.get(key).await;
    value.map_err(|error| super::said(&format!("get({key:?})"), &error))
}

/// Runs something on a thread that knows of no runtime.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    let (sender, receiver) = oneshot::channel();
    thread::spawn(move || drop(sender.send(work())));
    receiver
        .await
        .unwrap_or_else(|_| Err("it panicked on a plain thread".to_owned()))
}

pub(super) async fn it_works_on_a_plain_thread<D: Datastore>(subject: &Subject<'_, D>) -> Outcome {
    let datastore = Arc::new(subject.make().await);
    put(&*datastore, "/a", b"1").await?;
    let there = datastore.clone();
    on_thread(move || {
        block_on(async {
            expect(&*there, "/a", Some(b"1")).await?;
            let mut batch = Batch::default();
            batch.put("/b", b"2".to_vec());
            batch.delete("/a");
            commit(&*there, batch).await?;
            expect_query(&*there, "/", [("/b".to_owned(), b"2".to_vec())]).await
        })
    })
    .await?;
    expect(&*datastore, "/b", Some(b"2")).await?;
    on_thread(move || {
        let closed = block_on(datastore.close());
        closed.map_err(|error| super::said("close()", &error))
    })
    .await
}

pub(super) async fn threads_may_read_at_once<D: Datastore>(subject: &Subject<'_, D>) -> Outcome {
    let datastore = Arc::new(subject.make().await);
    let mut batch = Batch::default();
    for n in 0..300 {
        batch.put(format!("/{n}"), b"1".to_vec());
    }
    commit(&*datastore, batch).await?;
    let readers = (0..4).map(|_| {
        let there = datastore.clone();
        on_thread(move || {
            block_on(async {
                for n in 0..300 {
                    expect(&*there, &format!("/{n}"), Some(b"1")).await?;
                }
                let met = query(&*there, "/").await?.len();
                ensure!(
                    met >= 300,
                    "a query beside commits answers {met} of 300 keys"
                );
                Ok(())
            })
        })
    });
    let writer = async {
        for n in 300..330 {
            put(&*datastore, &format!("/{n}"), b"1").await?;
        }
        Ok(())
    };
    let (read, written) = join!(join_all(readers), writer);
    read.into_iter().chain([written]).collect()
}

pub(super) async fn a_future_may_change_threads<D: Datastore>(subject: &Subject<'_, D>) -> Outcome {
    let datastore = Arc::new(subject.make().await);
    for n in 0..10 {
        let there = datastore.clone();
        let key = format!("/{n}");
        let expected = key.clone();
        let mut work: BoxFuture<'static, Outcome> = async move {
            put(&*there, &key, b"1").await?;
            expect(&*there, &key, Some(b"1")).await
        }
        .boxed();
        let begun = poll_fn(|cx| Poll::Ready(work.poll_unpin(cx))).await;
        match begun {
            Poll::Ready(outcome) => outcome?,
            Poll::Pending => on_thread(move || block_on(work)).await?,
        }
        expect(&*datastore, &expected, Some(b"1")).await?;
    }
    Ok(())
}

/// Peers as they were, and a batch that changes all of them.
async fn old_peers<D: Datastore>(datastore: &D, peers: u32) -> Outcome<Batch> {
    let (mut old, mut new) = (Batch::default(), Batch::default());
    for n in 0..peers {
        // Whatever an earlier round has left.
        peer_keys(n).into_iter().for_each(|key| old.delete(key));
        put_old_peer(&mut old, n);
        put_peer(&mut new, n, b"new");
    }
    commit(datastore, old).await?;
    Ok(new)
}

/// That every peer is whole, by the time that what was dropped has come to its end.
async fn all_whole<D: Datastore>(datastore: &D, peers: u32) -> Outcome {
    for n in 0..peers {
        let mut waited = Duration::ZERO;
        while !is_whole(datastore, n, b"new").await? {
            ensure!(
                waited < AFTERMATH,
                "half of a peer was written, and the other half not"
            );
            let step = Duration::from_millis(10);
            Delay::new(step).await;
            waited += step;
        }
    }
    Ok(())
}

pub(super) async fn a_commit_that_was_never_polled_is_whole_or_not_at_all<D: Datastore>(
    subject: &Subject<'_, D>,
) -> Outcome {
    let datastore = subject.make().await;
    let batch = old_peers(&datastore, 3).await?;
    drop(datastore.commit(batch));
    all_whole(&datastore, 3).await?;
    put(&datastore, "/a", b"1").await?;
    all_whole(&datastore, 3).await?;
    expect(&datastore, "/a", Some(b"1")).await
}

/// Drops a commit after so many polls. Returns whether it ended before.
pub(super) async fn commit_dropped_after<D: Datastore>(
    datastore: &D,
    batch: Batch,
    polls: usize,
) -> bool {
    let mut commit = datastore.commit(batch);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        commit.poll_unpin(cx).map(|_| true)
    })
    .await
}

pub(super) async fn a_commit_that_is_dropped_half_way_is_whole_or_not_at_all<D: Datastore>(
    subject: &Subject<'_, D>,
) -> Outcome {
    let datastore = subject.make().await;
    for polls in 1..40 {
        let batch = old_peers(&datastore, 3).await?;
        let ended = commit_dropped_after(&datastore, batch.clone(), polls).await;
        all_whole(&datastore, 3).await?;
        // The next commit is not spoilt by it, nor it by what goes on of the last.
        commit(&datastore, batch).await?;
        for n in 0..3 {
            let [.., kept, deleted] = peer_keys(n);
            expect(&datastore, &kept, Some(b"new")).await?;
            expect(&datastore, &deleted, None).await?;
        }
        if ended {
            break;
        }
    }
    Ok(())
}

pub(super) async fn a_read_may_be_dropped_half_way<D: Datastore>(
    subject: &Subject<'_, D>,
) -> Outcome {
    let datastore = subject.make().await;
    put(&datastore, "/a", b"1").await?;
    for polls in 0..10 {
        let mut get = datastore.get("/a");
        let mut query = datastore.query("/").fuse();
        for _ in 0..polls {
            let ended = poll_fn(|cx| {
                let _ = query.poll_next_unpin(cx);
                Poll::Ready(get.poll_unpin(cx).is_ready())
            });
            if ended.await {
                break;
            }
        }
        drop((get, query));
        expect(&datastore, "/a", Some(b"1")).await?;
        put(&datastore, "/a", b"1").await?;
    }
    expect_query(&datastore, "/", [("/a".to_owned(), b"1".to_vec())]).await
}

pub(super) async fn closing_is_no_error<D: Datastore>(subject: &Subject<'_, D>) -> Outcome {
    // Also when nothing was ever written.
    for puts in [0, 3] {
        let datastore = subject.make().await;
        for n in 0..puts {
            put(&datastore, &format!("/{n}"), b"1").await?;
        }
        let closed = datastore.close().await;
        closed.map_err(|error| super::said("close()", &error))?;
    }
    Ok(())
}

pub(super) async fn calls_after_closing_may_fail_and_nothing_worse<D: Datastore>(
    subject: &Subject<'_, D>,
) -> Outcome {
    let datastore = subject.make().await;
    put(&datastore, "/a", b"1").await?;
    let closed = datastore.close().await;
    closed.map_err(|error| super::said("close()", &error))?;
    if let Ok(value) = datastore.get("/a").await {
        ensure!(
            value.as_deref() == Some(b"1"),
            "`get` after `close` succeeds with a wrong answer"
        );
    }
    if datastore.put("/b", b"2".to_vec()).await.is_ok()
        && let Ok(value) = datastore.get("/b").await
    {
        ensure!(
            value.as_deref() == Some(b"2"),
            "`put` after `close` says that it succeeded, and did not"
        );
    }
    let mut query = datastore.query("/");
    let mut left = 3;
    while let Some(entry) = query.next().await {
        left -= 1;
        ensure!(left > 0, "`query` after `close` does not end");
        if entry.is_err() {
            let more = query.next().await;
            ensure!(more.is_none(), "`query` goes on after an error");
            break;
        }
    }
    let _ = datastore.close().await;
    Ok(())
}
