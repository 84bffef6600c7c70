//! A cluster of three primaries and three replicas.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use libp2p::PeerId;
use libp2p_peerstore::{
    Batch, Config, Datastore, DatastoreError, PeerStore, RedisConfig, RedisDatastore,
};

use super::{
    addr, entries, keys,
    support::{Cluster, Server},
    told,
};

/// What the cluster needs to notice that a primary is gone.
const QUICK: Duration = Duration::from_millis(1_500);

/// So long that no replica takes over before a primary is back.
const PATIENT: Duration = Duration::from_secs(60);

/// Six servers at a time are enough for the machine.
pub static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn config() -> RedisConfig {
    RedisConfig::new("n")
        .with_timeout(Duration::from_secs(3))
        .with_retry_for(Duration::from_secs(2))
        .with_replica_timeout(Duration::from_secs(1))
}

async fn open(cluster: &Cluster, config: RedisConfig) -> RedisDatastore {
    RedisDatastore::open(cluster.urls(), config).await.unwrap()
}

/// A peer with its four books, all of one value.
fn put_peer(batch: &mut Batch, peer: &str, value: &str) {
    for book in ["addrs", "protos", "keys"] {
        batch.put(format!("/peers/{book}/{peer}"), value.into());
    }
    batch.put(format!("/peers/metadata/{peer}/x"), value.into());
}

async fn slot_of(server: &Server, peer: &str) -> u16 {
    server.ask(&format!("CLUSTER KEYSLOT {{{peer}}}")).await
}

/// As Redis knows the key of a book.
fn braced(key: &str) -> String {
    let (book, peer) = key.rsplit_once('/').unwrap();
    format!("n{book}/{{{peer}}}")
}

/// Some peers whose slots the first primary has.
async fn peers_of_the_first(cluster: &Cluster, count: usize) -> Vec<String> {
    let mut peers = Vec::new();
    for n in 0.. {
        let peer = format!("b{n}");
        if slot_of(&cluster.servers[0], &peer).await <= 5_460 {
            peers.push(peer);
        }
        if peers.len() == count {
            break;
        }
    }
    peers
}

/// Nodes flush while a primary dies and its replica is elected, and flush again when it is back. Whatever a flush
/// promised, and no more than was written, must be there in the end.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_flushed_is_lost_when_a_primary_is_killed_during_writes() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let Some(mut cluster) = Cluster::start(QUICK).await else {
        return;
    };
    let local = PeerId::random();
    let datastore = open(&cluster, config()).await;
    let store = PeerStore::open(local, datastore, Config::default())
        .await
        .unwrap();
    // What is known to be saved: the last value that a flush promised.
    let mut flushed: HashMap<PeerId, u16> = HashMap::new();
    let mut known: Vec<PeerId> = Vec::new();
    let mut deleted: Vec<PeerId> = Vec::new();
    let (mut kept, mut broken) = (0, 0);
    let mut killed = None;
    let mut rounds_after = 0;
    for round in 0.. {
        // Some new peers, some that change, one that goes.
        let mut changed: Vec<_> = (0..20).map(|_| PeerId::random()).collect();
        changed.extend(known.iter().rev().step_by(7).take(20));
        for peer in &changed {
            store.addresses().set(*peer, [addr(round)]);
            store
                .metadata()
                .set(*peer, "round", round.to_string())
                .unwrap();
        }
        let gone = (round % 3 == 2).then(|| known.swap_remove(round as usize % known.len()));
        if let Some(gone) = gone {
            store.delete(&gone);
            flushed.remove(&gone);
        }
        known.extend(&changed);
        known.sort();
        known.dedup();
        known.retain(|peer| Some(*peer) != gone);
        match store.flush().await {
            Ok(()) => {
                kept += 1;
                // All that was not saved before is saved by now, too.
                for peer in &known {
                    let round = &store.metadata().get(peer).unwrap()["round"];
                    flushed.insert(*peer, String::from_utf8_lossy(round).parse().unwrap());
                }
                deleted.extend(gone);
            }
            Err(_) => broken += 1,
        }
        match killed {
            None if round == 10 => {
                cluster.servers[0].kill();
                killed = Some(Instant::now());
            }
            Some(at) if at.elapsed() > QUICK * 4 => {
                if rounds_after == 0 {
                    // It comes back with nothing, and becomes the replica of its own.
                    cluster.servers[0].forget_everything();
                    cluster.servers[0].run();
                    cluster.until_whole().await;
                }
                rounds_after += 1;
                if rounds_after == 10 {
                    break;
                }
            }
            _ => {}
        }
    }
    assert!(kept >= 15, "{kept} flushes succeeded, {broken} did not");
    store.flush().await.unwrap();
    store.shutdown().await.unwrap();

    let again = open(&cluster, config()).await;
    let again = PeerStore::open(local, again, Config::default())
        .await
        .unwrap();
    assert!(flushed.len() > 200);
    for (peer, round) in &flushed {
        let metadata = again.metadata().get(peer).unwrap_or_default();
        let stored = metadata
            .get("round")
            .map(|round| String::from_utf8_lossy(round).into_owned());
        assert_eq!(stored, Some(round.to_string()), "{peer}");
        assert_eq!(again.get(peer).unwrap().addresses[0].address, addr(*round));
    }
    assert!(deleted.iter().all(|peer| !again.contains(peer)));
    let mut stored = again
        .peers()
        .into_iter()
        .map(|peer| peer.id)
        .collect::<Vec<_>>();
    stored.sort();
    assert!(
        stored == known,
        "{} are stored, {} known",
        stored.len(),
        known.len()
    );
    again.shutdown().await.unwrap();
}

/// A primary that comes back empty before anybody noticed takes its replica's content with it: all copies are gone but
/// the writer's.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_primary_and_its_replica_lost_of_the_last_minute_is_written_again() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let Some(mut cluster) = Cluster::start(PATIENT).await else {
        return;
    };
    let datastore = open(&cluster, config()).await;
    let peers = peers_of_the_first(&cluster, 30).await;
    let mut batch = Batch::default();
    for peer in &peers {
        put_peer(&mut batch, peer, "value");
    }
    let expected: Vec<_> = batch
        .iter()
        .map(|(key, value)| (key.to_owned(), value.unwrap().to_vec()))
        .collect();
    batch.put("/peers/addrs/gone", Vec::new());
    datastore.commit(batch).await.unwrap();
    datastore.delete("/peers/addrs/gone").await.unwrap();
    assert_eq!(entries(&datastore, "").await, expected);

    cluster.servers[0].kill();
    cluster.servers[0].forget_everything();
    cluster.servers[0].run();
    cluster
        .until("all is there again, with the replica too", async || {
            let counts = [0, 3].map(|n| cluster.servers[n].ask::<usize>("DBSIZE"));
            let [primary, replica] = counts.map(Box::pin);
            // Each peer has a set that lists its metadata beside its four books.
            (primary.await, replica.await) == (5 * peers.len(), 5 * peers.len())
        })
        .await;
    assert_eq!(entries(&datastore, "").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_no_success_before_a_replica_has_it() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let Some(mut cluster) = Cluster::start(PATIENT).await else {
        return;
    };
    let datastore = open(&cluster, config()).await;
    let peers = peers_of_the_first(&cluster, 2).await;
    let mut batch = Batch::default();
    put_peer(&mut batch, &peers[0], "1");
    datastore.commit(batch.clone()).await.unwrap();
    let replica: usize = cluster.servers[3].ask("DBSIZE").await;
    assert_eq!(replica, 5);

    cluster.servers[3].kill();
    put_peer(&mut batch, &peers[1], "2");
    let begun = Instant::now();
    let error = datastore.commit(batch.clone()).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(
        told(&error).contains("no replica of 127.0.0.1"),
        "{error:?}"
    );
    // The other primaries have theirs.
    let mut others = Batch::default();
    for n in 0..100 {
        let peer = format!("c{n}");
        if slot_of(&cluster.servers[0], &peer).await > 5_460 {
            put_peer(&mut others, &peer, "3");
        }
    }
    datastore.commit(others).await.unwrap();

    cluster.servers[3].run();
    cluster.until_whole().await;
    datastore.commit(batch).await.unwrap();
    let replica: usize = cluster.servers[3].ask("DBSIZE").await;
    assert_eq!(replica, 10);

    // Which of several nodes is named does not matter, nor that some do not answer.
    cluster.servers[5].kill();
    let urls = [cluster.servers[5].url(), cluster.servers[4].url()];
    let other = RedisDatastore::open(urls, config()).await.unwrap();
    assert_eq!(keys(&other, "/peers/addrs/b").await.len(), 2);
    let url = cluster.servers[4].url() + "/3";
    let error = RedisDatastore::open([url], config()).await.unwrap_err();
    assert!(
        matches!(error, DatastoreError::Open { hint, .. } if hint.contains("number of the database"))
    );
}

/// Slots move from one primary to another: reads and writes go on where they can, and no query misses a key in silence.
#[tokio::test(flavor = "multi_thread")]
async fn a_query_while_slots_move_misses_nothing_or_says_so() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let Some(cluster) = Cluster::start(PATIENT).await else {
        return;
    };
    let datastore = open(&cluster, config()).await;
    let mut batch = Batch::default();
    for n in 0..3_000 {
        batch.put(format!("/peers/addrs/b{n}"), n.to_string().into_bytes());
    }
    let expected: Vec<_> = batch.iter().map(|(key, _)| key.to_owned()).collect();
    datastore.commit(batch).await.unwrap();
    assert_eq!(keys(&datastore, "").await, expected);

    let peer = &peers_of_the_first(&cluster, 1).await[0];
    let key = format!("/peers/addrs/{peer}");
    let slot = slot_of(&cluster.servers[0], peer).await;
    let (from, to) = (&cluster.servers[0], &cluster.servers[1]);
    let (from_id, to_id): (String, String) =
        (from.ask("CLUSTER MYID").await, to.ask("CLUSTER MYID").await);
    let _: () = to
        .ask(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}"))
        .await;
    let _: () = from
        .ask(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}"))
        .await;
    let moved: Vec<String> = from
        .ask(&format!("CLUSTER GETKEYSINSLOT {slot} 1000"))
        .await;
    for key in &moved {
        let _: () = from
            .ask(&format!("MIGRATE 127.0.0.1 {} {key} 0 1000", to.port))
            .await;
    }
    // What has moved is read there, and written there.
    assert!(datastore.get(&key).await.unwrap().is_some());
    datastore.put(&key, b"moved".to_vec()).await.unwrap();
    assert_eq!(datastore.get(&key).await.unwrap().unwrap(), b"moved");
    // A query tells each key at most once, and that it cannot be sure.
    let mut met = Vec::new();
    let query = datastore.query("").try_for_each(|(key, _)| {
        met.push(key);
        futures::future::ok(())
    });
    let error = query.await.unwrap_err();
    assert!(told(&error).contains("slots were moved"), "{error:?}");
    met.sort();
    let expected_now: Vec<_> = expected
        .iter()
        .filter(|key| !moved.contains(&braced(key)))
        .collect();
    assert!(!moved.is_empty() && met.iter().eq(expected_now));

    // The move ends while a query is under way: it begins anew, and its end is a success.
    let patient = config().with_retry_for(Duration::from_secs(20));
    let patient = open(&cluster, patient).await;
    let querying = tokio::spawn(async move { keys(&patient, "").await });
    // It sees the move at least once, which nothing but time can show.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!querying.is_finished());
    for server in [to, from, &cluster.servers[2]] {
        let _: () = server
            .ask(&format!("CLUSTER SETSLOT {slot} NODE {to_id}"))
            .await;
    }
    assert_eq!(querying.await.unwrap(), expected);
    // The old datastore still thinks that the slot is where it was.
    datastore.put(&key, b"again".to_vec()).await.unwrap();
    assert_eq!(datastore.get(&key).await.unwrap().unwrap(), b"again");
    assert_eq!(keys(&datastore, "").await, expected);
}
