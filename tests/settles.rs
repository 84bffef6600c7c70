//! Nodes to which nothing happens have nothing to tell: identify over and over, Kademlia, connections that come and
//! go, and not one event or commit.

// `[address.clone()]` reads better than `std::slice::from_ref(&address)`.
#![allow(clippy::cloned_ref_to_slice_refs, clippy::unwrap_used)]

#[path = "support/swarm.rs"]
mod swarm;

use libp2p::Multiaddr;
use libp2p_peerstore::Sources;
use swarm::*;

in_every_order!(
    rounds_of_identify_change_nothing,
    reconnects_change_nothing,
    a_third_node_that_gossips_changes_nothing,
    what_a_peer_dropped_does_not_flap,
);

/// A node that identifies without a pause and writes every change at once.
async fn restless<N: Observing>(ledger: &Ledger) -> Node<N> {
    let setup = Setup::with_datastore(ledger.clone()).await;
    setup.compose(
        |store, key| store.observe(restless_identify(key)),
        |store, key| store.observe(kad(key)),
    )
}

/// What must not grow while nothing changes.
struct Quiet {
    commits: Vec<Vec<String>>,
    swarm_events: usize,
}

async fn settle<N: Observing>(a: &mut Node<N>, ledger: &Ledger) -> Quiet {
    a.store.flush().await.unwrap();
    a.news();
    let quiet = Quiet {
        commits: ledger.commits(),
        swarm_events: store_events(a),
    };
    assert!(!quiet.commits.is_empty() && quiet.swarm_events > 0);
    quiet
}

impl Quiet {
    /// Nothing was told, and nothing was written that was not written before.
    async fn still_holds<N: Observing>(&self, a: &mut Node<N>, ledger: &Ledger) {
        let news = a.news();
        assert!(news.is_empty(), "{news:?}");
        assert_eq!(store_events(a), self.swarm_events);
        assert_eq!(a.store.unsaved(), 0, "{:?}", a.store.peers());
        a.store.flush().await.unwrap();
        let commits = ledger.commits();
        let since = &commits[self.commits.len()..];
        assert!(since.is_empty(), "{since:?}");
    }
}

fn store_events<N: Observing>(a: &Node<N>) -> usize {
    use libp2p::swarm::SwarmEvent::Behaviour;
    a.count(|event| matches!(event, Behaviour(Out::Store(_))))
}

/// Both nodes have heard each other say everything so many times more.
async fn both<A: Observing, B: Observing>(a: &mut Node<A>, b: &mut Node<B>, times: usize) {
    rounds(a, b, times).await;
    rounds(b, a, times).await;
}

/// Opens a connection and lets both sides say everything twice.
async fn reconnect<A: Observing, B: Observing>(
    a: &mut Node<A>,
    b: &mut Node<B>,
    address: Option<&Multiaddr>,
) {
    match address {
        Some(address) => connect(a, b, address).await,
        None => {
            let (a_id, b_id) = (a.id, b.id);
            a.dial(b_id);
            until((&mut *a, &mut *b), |(a, b)| {
                a.is_connected(b_id) && b.is_connected(a_id)
            })
            .await;
        }
    }
    both(a, b, 2).await;
}

async fn rounds_of_identify_change_nothing<N: Observing>() {
    let (a_ledger, b_ledger) = (Ledger::default(), Ledger::default());
    let mut a = restless::<N>(&a_ledger).await;
    let mut b = restless::<N>(&b_ledger).await;
    let address = b.listen().await;
    a.listen().await;
    reconnect(&mut a, &mut b, Some(&address)).await;
    both(&mut a, &mut b, 3).await;

    let a_quiet = settle(&mut a, &a_ledger).await;
    let b_quiet = settle(&mut b, &b_ledger).await;
    both(&mut a, &mut b, 15).await;
    a_quiet.still_holds(&mut a, &a_ledger).await;
    b_quiet.still_holds(&mut b, &b_ledger).await;
}

async fn reconnects_change_nothing<N: Observing>() {
    let (a_ledger, b_ledger) = (Ledger::default(), Ledger::default());
    let mut a = restless::<N>(&a_ledger).await;
    let mut b = restless::<N>(&b_ledger).await;
    let (a_address, b_address) = (a.listen().await, b.listen().await);
    let b_other = b.listen().await;
    // Often enough in every way that comes later: dialled by either side, by each address and by id.
    for address in [&b_address, &b_other, &b_address, &b_other] {
        reconnect(&mut a, &mut b, Some(address)).await;
        disconnect(&mut a, &mut b).await;
    }
    reconnect(&mut b, &mut a, Some(&a_address)).await;
    disconnect(&mut a, &mut b).await;
    for _ in 0..2 {
        reconnect(&mut a, &mut b, None).await;
        disconnect(&mut a, &mut b).await;
        reconnect(&mut b, &mut a, None).await;
        disconnect(&mut a, &mut b).await;
    }

    let a_quiet = settle(&mut a, &a_ledger).await;
    let b_quiet = settle(&mut b, &b_ledger).await;
    for round in 0..3 {
        let by_address = round == 1;
        reconnect(&mut a, &mut b, by_address.then_some(&b_address)).await;
        // A second connection beside the first is nothing new either.
        reconnect(&mut b, &mut a, by_address.then_some(&a_address)).await;
        disconnect(&mut a, &mut b).await;
        reconnect(&mut b, &mut a, by_address.then_some(&a_address)).await;
        disconnect(&mut b, &mut a).await;
    }
    a_quiet.still_holds(&mut a, &a_ledger).await;
    b_quiet.still_holds(&mut b, &b_ledger).await;
}

async fn a_third_node_that_gossips_changes_nothing<N: Observing>() {
    let (a_ledger, b_ledger) = (Ledger::default(), Ledger::default());
    let mut a = restless::<N>(&a_ledger).await;
    let mut b = restless::<N>(&b_ledger).await;
    let mut c = plain();
    let (b_address, c_address) = (b.listen().await, c.listen().await);
    reconnect(&mut a, &mut b, Some(&b_address)).await;
    connect(&mut a, &mut c, &c_address).await;
    connect(&mut b, &mut c, &c_address).await;
    c.swarm
        .behaviour_mut()
        .kad
        .add_address(&b.id, b_address.clone());

    // Whoever asks `c` about `b` hears the same every time.
    for warm in [true, false] {
        let quiet = match warm {
            true => None,
            false => Some(settle(&mut a, &a_ledger).await),
        };
        for _ in 0..3 {
            let answers = |a: &Node<N>| a.kad_events().filter(|event| is_closest(event)).count();
            let before = answers(&a);
            a.swarm.behaviour_mut().b().get_closest_peers(b.id);
            until((&mut a, &mut b, &mut c), |(a, _, _)| answers(a) > before).await;
            until((&mut a, &mut b, &mut c), |(a, b, c)| {
                a.identified(b.id) > 3 && a.identified(c.id) > 3
            })
            .await;
        }
        if let Some(quiet) = quiet {
            let info = a.info(b.id, &b_address).unwrap();
            assert!(info.sources.contains(Sources::KADEMLIA | Sources::IDENTIFY));
            quiet.still_holds(&mut a, &a_ledger).await;
        }
    }
}

fn is_closest(event: &libp2p::kad::Event) -> bool {
    use libp2p::kad::{Event, QueryResult};
    matches!(
        event,
        Event::OutboundQueryProgressed {
            result: QueryResult::GetClosestPeers(_),
            ..
        }
    )
}

async fn what_a_peer_dropped_does_not_flap<N: Observing>() {
    let (a_ledger, b_ledger) = (Ledger::default(), Ledger::default());
    let mut a = restless::<N>(&a_ledger).await;
    let mut b = restless::<N>(&b_ledger).await;
    let one = b.listen().await;
    let (second, two) = b.listener().await;
    let peer = b.id;
    reconnect(&mut a, &mut b, Some(&one)).await;
    a.swarm.behaviour_mut().b().add_address(&peer, two.clone());
    b.stop_listening(second).await;
    until((&mut a, &mut b), |(a, _)| {
        a.addresses(peer) == [one.clone()]
    })
    .await;
    for _ in 0..2 {
        disconnect(&mut a, &mut b).await;
        reconnect(&mut a, &mut b, None).await;
    }

    let quiet = settle(&mut a, &a_ledger).await;
    for _ in 0..4 {
        disconnect(&mut a, &mut b).await;
        // Kademlia's routing table and the application's own loop still offer what is gone.
        a.swarm.behaviour_mut().b().remove_peer(&peer);
        a.swarm.behaviour_mut().b().add_address(&peer, two.clone());
        a.swarm.behaviour_mut().b().add_address(&peer, one.clone());
        a.swarm.add_peer_address(peer, two.clone());
        reconnect(&mut a, &mut b, None).await;
    }
    assert_eq!(a.addresses(peer), [one]);
    quiet.still_holds(&mut a, &a_ledger).await;
}
