//! Identify pushes on real connections: junk, storms, and a peer that cannot make up its mind.

use std::time::Duration;

use libp2p::Multiaddr;
use libp2p_peerstore::{
    Config, Event, ManualClock, PeerStore, Refused, Standing, testing::RecordingDatastore,
};

use crate::{Full, swarm::*};

/// Tells the first node, by a push, that the second is at these addresses, and at those where it listens.
async fn push(a: &mut Node<Full>, b: &mut Node<Plain>, told: &[Multiaddr]) {
    let before: Vec<Multiaddr> = b.swarm.external_addresses().cloned().collect();
    for address in before {
        b.swarm.remove_external_address(&address);
    }
    for address in told {
        b.swarm.add_external_address(address.clone());
    }
    let (me, peer) = (a.id, b.id);
    let heard = a.identified(peer);
    b.swarm.behaviour_mut().identify.push([me]);
    until((a, b), move |(a, _)| a.identified(peer) > heard).await;
}

fn address_events(news: &[Event]) -> usize {
    let is_one = |event: &&Event| matches!(event, Event::AddressesChanged { .. });
    news.iter().filter(is_one).count()
}

/// Both know each other, and nothing is said any more.
async fn met(a: &mut Node<Full>, b: &mut Node<Plain>) -> Multiaddr {
    let address = b.listen().await;
    connect(a, b, &address).await;
    let (a_id, b_id) = (a.id, b.id);
    until((&mut *a, &mut *b), |(a, b)| {
        a.identified(b_id) > 0 && b.is_connected(a_id)
    })
    .await;
    address
}

#[tokio::test]
async fn junk_of_four_kilobytes_at_every_push_fills_one_book_and_displaces_nobody() {
    const PUSHES: usize = 40;
    let config = Config::default().with_max_addresses_per_peer(8.try_into().unwrap());
    let mut a: Node<Full> = Setup::with_config(config).observing();
    let (mut honest, mut hostile) = (plain(), plain());
    let home = met(&mut a, &mut honest).await;
    let (friend, peer) = (honest.id, hostile.id);
    let address = met(&mut a, &mut hostile).await;
    let friends_book = a.addresses(friend);
    a.news();

    let mut events = 0;
    for n in 0..PUSHES {
        // As many as a swarm tells, and with what else identify says just below its limit of 4 KiB.
        let filler = ["junk"; 14].join(".junk-of-no-use.");
        let junk = (0..20).map(|m| format!("/dns4/{n:04}-{m:03}.{}/tcp/4001", &filler[..150]));
        let junk: Vec<Multiaddr> = junk.map(|address| address.parse().unwrap()).collect();
        push(&mut a, &mut hostile, &junk).await;
        let told = a.identifications(peer).last().unwrap();
        let bytes: usize = told.listen_addrs.iter().map(Multiaddr::len).sum();
        assert!(bytes > 3_300, "{bytes}");
        assert_eq!(a.addresses(peer).len(), 8);
        assert_eq!(a.info(peer, &address).unwrap().standing, Standing::Proven);
        let news = a.news();
        assert!(news.iter().all(|event| event.peer() == Some(peer)));
        events += address_events(&news);
    }
    assert!(events <= a.identified(peer), "{events}");
    assert_eq!(a.addresses(friend), friends_book);
    assert_eq!(a.info(friend, &home).unwrap().standing, Standing::Proven);
    let refused = a.store.refusals().get(Refused::TooManyAddresses);
    assert!(refused >= 13 * PUSHES as u64, "{refused}");
    assert_eq!(sorted(a.store.peer_ids()), sorted(vec![friend, peer]));
}

/// A node on a clock that stands still, and what it commits.
async fn recorded(
    configure: impl FnOnce(Config) -> Config,
) -> (Node<Full>, RecordingDatastore, ManualClock) {
    let (clock, datastore) = (ManualClock::default(), RecordingDatastore::default());
    let key = libp2p::identity::Keypair::generate_ed25519();
    let config = configure(Config::default().with_clock(clock.clone()));
    let id = key.public().to_peer_id();
    let store = PeerStore::open(id, datastore.clone(), config)
        .await
        .unwrap();
    (Setup::with_store(key, store).observing(), datastore, clock)
}

#[tokio::test]
async fn a_storm_of_equal_pushes_is_no_event_and_no_write() {
    let every_change_at_once = |config: Config| {
        let config = config.with_commit_threshold(1.try_into().unwrap());
        config.with_min_commit_interval(Duration::ZERO)
    };
    let (mut a, datastore, _clock) = recorded(every_change_at_once).await;
    let mut b = plain();
    met(&mut a, &mut b).await;
    push(&mut a, &mut b, &[]).await;
    a.store.flush().await.unwrap();
    a.news();
    let commits = datastore.commits_started();
    for _ in 0..150 {
        push(&mut a, &mut b, &[]).await;
    }
    // And as many as it can send at once.
    let (me, peer, heard) = (a.id, b.id, a.identified(b.id));
    (0..1_000).for_each(|_| b.swarm.behaviour_mut().identify.push([me]));
    until((&mut a, &mut b), |(a, _)| a.identified(peer) > heard).await;
    a.store.flush().await.unwrap();
    assert!(a.news().is_empty());
    assert_eq!(datastore.commits_started(), commits);
    assert_eq!(a.store.unsaved(), 0);
}

#[tokio::test]
async fn a_peer_that_alternates_two_lists_is_one_event_for_each_push_and_a_write_for_each_interval()
{
    let threshold_of_one = |config: Config| {
        let config = config.with_commit_threshold(1.try_into().unwrap());
        config.with_event_capacity(16.try_into().unwrap())
    };
    let (mut a, datastore, clock) = recorded(threshold_of_one).await;
    let mut b = plain();
    met(&mut a, &mut b).await;
    let list = |n: u8| -> Vec<Multiaddr> {
        let told = (1..=20).map(|m| format!("/ip4/9.9.{n}.{m}/tcp/1"));
        told.map(|address| address.parse().unwrap()).collect()
    };
    push(&mut a, &mut b, &list(0)).await;
    a.store.flush().await.unwrap();
    a.news();
    let (commits, heard) = (datastore.commits_started(), a.identified(b.id));
    let mut slow = a.store.subscribe();
    let (mut events, seconds) = (0, 4);
    for second in 1..=seconds {
        for n in 1..=25 {
            push(&mut a, &mut b, &list(n % 2)).await;
            events += address_events(&a.news());
        }
        // What was told in a second is one write, however often it changed.
        clock.advance(Duration::from_secs(1));
        datastore.until_commits_done(commits + second).await;
    }
    let pushes = a.identified(b.id) - heard;
    assert!(
        pushes >= 25 * seconds && events <= pushes,
        "{events} of {pushes}"
    );
    let written = datastore.commits_started() - commits;
    assert!(written <= 2 * seconds, "{written} commits in {seconds} s");
    // A reader that does not keep up finds a bounded queue, and at its end what holds.
    let waiting: Vec<Event> = std::iter::from_fn(|| slow.try_next()).collect();
    assert!(waiting.len() <= 17, "{}", waiting.len());
    let last = waiting.iter().rev().find_map(|event| match event {
        Event::AddressesChanged { addresses, .. } => Some(sorted(addresses.to_vec())),
        _ => None,
    });
    assert_eq!(last, Some(a.addresses(b.id)));
    // What one list dropped is not remembered without bound either.
    assert!(a.addresses(b.id).len() <= 32);
}
