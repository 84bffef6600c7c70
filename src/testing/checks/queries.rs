//! Prefixes, pages, and what happens beside a query.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};

use super::{Outcome, Subject, commit, ensure, expect_query, peer_keys, put, said};
use crate::datastore::{Batch, Datastore};

pub(super) async fn a_query_answers_the_prefix_and_no_other<D: Datastore>(
    subject: &Subject<'_, D>,
) -> Outcome {
    let datastore = subject.make().await;
    let [peer, ..] = peer_keys(1);
    let half = &peer[..peer.len() - 3];
    let all = [
        "/",
        "/peer",
        "/peers",
        "/peers/",
        "/peers/a",
        "/peers/a/b",
        "/peers/a/b/c",
        "/peers/ab",
        "/peers/b",
        "/peers0",
        "/peerz",
        "/Peers/a",
        "/a%b",
        "/a_b",
        "/a*b",
        "/axb",
        "/\u{10ffff}",
        "/\u{10ffff}\u{10ffff}",
        &peer,
        "/peers/addrs/zzz",
    ];
    for key in all {
        put(&datastore, key, key.as_bytes()).await?;
    }
    let prefixes = [
        "",
        "/",
        "/p",
        "/peers",
        "/peers/",
        "/peers/a",
        "/peers/a/",
        "/peers/a/b",
        "/peers/c",
        "/x",
        "//",
        "/a%",
        "/a_",
        "/a*",
        "/a?",
        "/\u{10ffff}",
        half,
        &peer,
        "/peers/addrs/",
        "peers",
    ];
    for prefix in prefixes {
        let expected = all.iter().filter(|key| key.starts_with(prefix));
        let expected = expected.map(|key| ((*key).to_owned(), key.as_bytes().to_vec()));
        expect_query(&datastore, prefix, expected).await?;
    }
    Ok(())
}

pub(super) async fn each_key_is_answered_once<D: Datastore>(subject: &Subject<'_, D>) -> Outcome {
    let datastore = subject.make().await;
    // At, below and above what a datastore may read at a time.
    let counts = [
        1, 2, 9, 10, 11, 99, 100, 101, 255, 256, 257, 511, 512, 513, 999, 1_000, 1_001, 1_025,
        4_097,
    ];
    for count in counts {
        let folder = format!("/{count}/");
        let mut batch = Batch::default();
        let mut expected = BTreeMap::new();
        for n in 0..count {
            let (key, value) = (format!("{folder}{n}"), vec![n as u8; 3]);
            batch.put(key.clone(), value.clone());
            expected.insert(key, value);
        }
        commit(&datastore, batch).await?;
        expect_query(&datastore, &folder, expected).await?;
    }
    Ok(())
}

/// A datastore with so many keys below `/`.
async fn filled<D: Datastore>(subject: &Subject<'_, D>, keys: usize) -> Outcome<D> {
    let datastore = subject.make().await;
    let mut batch = Batch::default();
    for n in 0..keys {
        batch.put(format!("/{n:05}"), n.to_string().into_bytes());
    }
    commit(&datastore, batch).await?;
    Ok(datastore)
}

pub(super) async fn a_query_may_be_dropped<D: Datastore>(subject: &Subject<'_, D>) -> Outcome {
    let datastore = filled(subject, 1_000).await?;
    for take in [0, 1, 2, 255, 256, 257, 999, 1_000] {
        let entries = datastore.query("/").take(take);
        let entries: Vec<_> = entries
            .try_collect()
            .await
            .map_err(|error| said("query(\"/\")", &error))?;
        ensure!(
            entries.len() == take,
            "of 1000 entries only {} came",
            entries.len()
        );
        put(&datastore, "/00000", b"0").await?;
    }
    drop(datastore.query("/"));
    let all = (0..1_000).map(|n| (format!("/{n:05}"), n.to_string().into_bytes()));
    expect_query(&datastore, "/", all).await
}

pub(super) async fn a_query_goes_on_while_others_write<D: Datastore>(
    subject: &Subject<'_, D>,
) -> Outcome {
    let datastore = subject.make().await;
    let mut batch = Batch::default();
    for n in 0..1_000 {
        batch.put(format!("/stays/{n:04}"), b"old".to_vec());
        let folder = if n % 2 == 0 { "a" } else { "z" };
        batch.put(format!("/{folder}/{n:04}"), b"old".to_vec());
    }
    commit(&datastore, batch).await?;
    let mut met = BTreeMap::new();
    let mut entries = datastore.query("/");
    while let Some(entry) = entries.next().await {
        let (key, value) = entry.map_err(|error| said("query(\"/\")", &error))?;
        if met.len() % 100 == 0 {
            let n = met.len();
            let mut batch = Batch::default();
            batch.delete(key.replace("stays", "a"));
            batch.delete(format!("/z/{n:04}"));
            batch.put(format!("/new/{n}"), b"new".to_vec());
            // Replaced, and there all the time.
            for m in 0..20 {
                batch.put(
                    format!("/stays/{:04}", (n + m * 50) % 1_000),
                    b"new".to_vec(),
                );
            }
            commit(&datastore, batch).await?;
        }
        ensure!(
            value == b"old" || value == b"new",
            "{key:?} has a value that it never had"
        );
        ensure!(
            met.insert(key.clone(), value).is_none(),
            "{key:?} is answered twice"
        );
    }
    for n in 0..1_000 {
        let key = format!("/stays/{n:04}");
        ensure!(
            met.contains_key(&key),
            "{key:?} was there all the time and is missing"
        );
    }
    Ok(())
}

pub(super) async fn queries_do_not_disturb_each_other<D: Datastore>(
    subject: &Subject<'_, D>,
) -> Outcome {
    let datastore = filled(subject, 700).await?;
    let queries = ["/", "/0", "", "/00"].map(|prefix| (datastore.query(prefix).fuse(), 0));
    let mut queries = Vec::from(queries);
    let mut ended = false;
    while !ended {
        ended = true;
        // Steps of different lengths, so that their pages do not meet.
        for (step, (query, met)) in queries.iter_mut().enumerate() {
            for _ in 0..=step {
                if let Some(entry) = query.next().await {
                    entry.map_err(|error| said("query", &error))?;
                    *met += 1;
                    ended = false;
                }
            }
        }
    }
    for (_, met) in queries {
        ensure!(met == 700, "one of four queries has {met} of 700 entries");
    }
    Ok(())
}

pub(super) async fn a_query_that_nobody_reads_holds_nothing_up<D: Datastore>(
    subject: &Subject<'_, D>,
) -> Outcome {
    let datastore = filled(subject, 1_000).await?;
    let mut query = datastore.query("/");
    let first = query.next().await;
    ensure!(
        matches!(first, Some(Ok(_))),
        "a query of 1000 entries has no first one"
    );
    for n in 0..1_000 {
        if n % 100 == 0 {
            put(&datastore, &format!("/{n:05}"), b"new").await?;
        }
    }
    super::expect(&datastore, "/00000", Some(b"new")).await?;
    // It goes on where it was.
    let rest: Result<Vec<_>, _> = query.try_collect().await;
    let rest = rest.map_err(|error| said("query(\"/\")", &error))?;
    ensure!(
        rest.len() == 999,
        "a query that was left alone lost entries"
    );
    Ok(())
}
