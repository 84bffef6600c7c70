//! What identify and identify-push teach the store, on real swarms and in every order of the behaviour's fields.

// `[address.clone()]` reads better than `std::slice::from_ref(&address)`.
#![allow(clippy::cloned_ref_to_slice_refs, clippy::unwrap_used)]

#[path = "gathering_identify/dropped.rs"]
mod dropped;
#[path = "support/speaker.rs"]
mod speaker;
#[path = "support/swarm.rs"]
mod swarm;
#[path = "gathering_identify/unobserved.rs"]
mod unobserved;

use libp2p::{
    Multiaddr, identify,
    identity::Keypair,
    kad,
    swarm::{NetworkBehaviour, SwarmEvent},
};
use libp2p_peerstore::{AGENT_VERSION, Cause, Event, PROTOCOL_VERSION, Sources, Standing};
use speaker::Speaker;
use swarm::*;

in_every_order!(
    identify_replaces_what_others_told_and_fills_every_book,
    identify_replaces_the_address_of_an_inbound_connection,
    a_push_of_listen_addresses_replaces,
    a_push_of_external_addresses_replaces,
    a_push_of_protocols_replaces,
    a_swap_of_protocols_is_one_change,
    pinned_addresses_stay,
    a_peer_that_lists_no_address_keeps_those_that_are_known,
    a_peer_that_lists_no_address_keeps_that_of_its_inbound_connection,
    a_signed_record_certifies_what_is_listed_and_adds_nothing,
    identify_that_repeats_itself_is_silent,
);

const KAD: &str = "/ipfs/kad/1.0.0";

/// Address lists of one peer, as the events tell them.
fn address_lists(news: &[Event]) -> Vec<(Vec<Multiaddr>, Cause)> {
    let lists = news.iter().filter_map(|event| match event {
        Event::AddressesChanged {
            addresses, cause, ..
        } => Some((sorted(addresses.to_vec()), *cause)),
        _ => None,
    });
    lists.collect()
}

/// Protocol lists of one peer, as the events tell them.
fn protocol_lists(news: &[Event]) -> Vec<(Vec<String>, Cause)> {
    let lists = news.iter().filter_map(|event| match event {
        Event::ProtocolsChanged {
            protocols, cause, ..
        } => Some((names(protocols), *cause)),
        _ => None,
    });
    lists.collect()
}

/// Waits until the first node has dialled the second and heard it identify itself.
async fn meet<A, B>(a: &mut Node<A>, b: &mut Node<B>, address: &Multiaddr)
where
    A: NetworkBehaviour<ToSwarm = Out>,
    B: NetworkBehaviour,
{
    connect(a, b, address).await;
    let (a_id, b_id) = (a.id, b.id);
    // Both ways, so that pushes are not held back.
    until((&mut *a, &mut *b), |(a, b)| {
        a.identified(b_id) > 0 && b.is_connected(a_id)
    })
    .await;
    a.news();
}

async fn identify_replaces_what_others_told_and_fills_every_book<N: Observing>() {
    let mut a = observing::<N>();
    // A key that the peer id does not contain.
    let key = Keypair::generate_ecdsa();
    let mut b = Setup::with_key(key.clone()).plain(identify);
    let peer = b.id;
    let (one, two) = (b.listen().await, b.listen().await);
    a.store.addresses().add(peer, [refused(1), two.clone()]);
    a.news();

    connect(&mut a, &mut b, &one).await;
    rounds(&mut a, &mut b, 1).await;

    let listed = sorted(vec![one.clone(), two.clone()]);
    assert_eq!(a.addresses(peer), listed);
    let info = a.info(peer, &one).unwrap();
    assert_eq!(info.standing, Standing::Proven);
    assert!(info.sources.contains(Sources::DIALLED | Sources::IDENTIFY));
    let info = a.info(peer, &two).unwrap();
    assert_eq!(info.standing, Standing::SelfTold);
    // What identify announces to the swarm as well is no claim of anybody else.
    assert_eq!(info.sources, Sources::APPLICATION | Sources::IDENTIFY);

    let spoken = a.listed_protocols(peer);
    assert!(spoken.contains(&KAD.to_owned()));
    assert_eq!(a.protocols(peer), spoken);
    assert_eq!(a.store.keys().get(&peer), Some(key.public()));
    let metadata = a.store.metadata().get(&peer).unwrap();
    assert_eq!(metadata[AGENT_VERSION], b"rule-tester/7");
    assert_eq!(metadata[PROTOCOL_VERSION], b"/rule/1.0.0");
    assert_eq!(metadata.len(), 2);

    // More rounds tell nothing new; each book has said once what is different.
    let news = a.news();
    let dialled = sorted(vec![refused(1), one.clone(), two.clone()]);
    assert_eq!(
        address_lists(&news),
        [(dialled, Cause::Dial), (listed, Cause::Identify)]
    );
    assert_eq!(protocol_lists(&news), [(spoken, Cause::Identify)]);
    let keys = news.iter().filter(
        |event| matches!(event, Event::PublicKeyKnown { peer: p, known: true } if *p == peer),
    );
    assert_eq!(keys.count(), 1);
    let metadata = news
        .iter()
        .filter(|event| matches!(event, Event::MetadataChanged { .. }));
    assert_eq!(metadata.count(), 2);
    assert_eq!(news.len(), 6);
}

async fn identify_replaces_the_address_of_an_inbound_connection<N: Observing>() {
    let (mut a, mut b) = (observing::<N>(), plain());
    let listed = b.listen().await;
    let seen = dialled_by(&mut a, &mut b).await;
    assert_ne!(seen, listed);
    let peer = b.id;
    until((&mut a, &mut b), |(a, _)| a.identified(peer) > 0).await;
    assert_eq!(a.addresses(peer), [listed.clone()]);
    assert_eq!(a.info(peer, &listed).unwrap().standing, Standing::SelfTold);
    assert_eq!(
        address_lists(&a.news()),
        [
            (vec![seen], Cause::Inbound),
            (vec![listed], Cause::Identify)
        ]
    );
}

async fn a_push_of_listen_addresses_replaces<N: Observing>() {
    let (mut a, mut b) = (observing::<N>(), plain());
    let one = b.listen().await;
    let (listener, two) = b.listener().await;
    let peer = b.id;
    meet(&mut a, &mut b, &one).await;
    assert_eq!(a.addresses(peer), sorted(vec![one.clone(), two]));

    b.stop_listening(listener).await;
    until((&mut a, &mut b), |(a, _)| a.identified(peer) == 2).await;
    assert_eq!(a.addresses(peer), [one.clone()]);
    assert_eq!(
        address_lists(&a.news()),
        [(vec![one.clone()], Cause::Identify)]
    );

    let three = b.listen().await;
    until((&mut a, &mut b), |(a, _)| a.identified(peer) == 3).await;
    let listed = sorted(vec![one, three]);
    assert_eq!(a.addresses(peer), listed);
    assert_eq!(address_lists(&a.news()), [(listed, Cause::Identify)]);
}

async fn a_push_of_external_addresses_replaces<N: Observing>() {
    let (mut a, mut b) = (observing::<N>(), plain());
    let one = b.listen().await;
    let (me, peer) = (a.id, b.id);
    meet(&mut a, &mut b, &one).await;

    let external: Multiaddr = "/dns4/node.example/tcp/4001".parse().unwrap();
    b.swarm.add_external_address(external.clone());
    b.swarm.behaviour_mut().identify.push([me]);
    let listed = sorted(vec![one.clone(), external.clone()]);
    until((&mut a, &mut b), |(a, _)| a.addresses(peer) == listed).await;

    b.swarm.remove_external_address(&external);
    b.swarm.behaviour_mut().identify.push([me]);
    until((&mut a, &mut b), |(a, _)| {
        a.addresses(peer) == [one.clone()]
    })
    .await;
    assert_eq!(
        address_lists(&a.news()),
        [(listed, Cause::Identify), (vec![one], Cause::Identify)]
    );
}

async fn a_push_of_protocols_replaces<N: Observing>() {
    let (mut a, mut b) = (observing::<N>(), plain());
    let one = b.listen().await;
    let peer = b.id;
    meet(&mut a, &mut b, &one).await;
    let with = a.listed_protocols(peer);
    let mut without = with.clone();
    without.retain(|protocol| protocol != KAD);
    assert_eq!(without.len() + 1, with.len());
    assert_eq!(a.store.peers_supporting(KAD), [peer]);

    for (mode, spoken) in [
        (kad::Mode::Client, &without),
        (kad::Mode::Server, &with),
        (kad::Mode::Client, &without),
    ] {
        b.swarm.behaviour_mut().kad.set_mode(Some(mode));
        until((&mut a, &mut b), |(a, _)| a.protocols(peer) == *spoken).await;
        // Neither the other way of hearing of protocols nor anything else has anything to add.
        let pushes = a.identified(peer);
        b.swarm.behaviour_mut().identify.push([a.id]);
        until((&mut a, &mut b), |(a, _)| a.identified(peer) > pushes).await;
        let news = a.news();
        assert_eq!(
            protocol_lists(&news),
            [(spoken.clone(), Cause::Identify)],
            "{news:?}"
        );
        assert_eq!(news.len(), 1);
    }
    assert!(a.store.peers_supporting(KAD).is_empty());
    assert_eq!(a.addresses(peer), [one]);
}

#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "Out")]
struct Speaking {
    identify: identify::Behaviour,
    speaker: Speaker,
}

fn speaking(names: &[&'static str]) -> Node<Speaking> {
    Setup::default().build(|_, key| Speaking {
        identify: identify(key),
        speaker: Speaker::new(names),
    })
}

async fn a_swap_of_protocols_is_one_change<N: Observing>() {
    let (mut a, mut b) = (observing::<N>(), speaking(&["/one/1", "/both/1"]));
    let address = b.listen().await;
    let peer = b.id;
    meet(&mut a, &mut b, &address).await;
    let before = a.protocols(peer);
    assert!(before.contains(&"/one/1".to_owned()));

    b.swarm
        .behaviour_mut()
        .speaker
        .speak(&["/both/1", "/two/1"]);
    until((&mut a, &mut b), |(a, _)| a.speaks(peer, "/two/1")).await;
    // Whatever else the swap makes the connection report has been reported by the next answer.
    let pushes = a.identified(peer);
    b.swarm.behaviour_mut().identify.push([a.id]);
    until((&mut a, &mut b), |(a, _)| a.identified(peer) > pushes).await;

    let after: Vec<String> = before
        .into_iter()
        .map(|name| name.replace("/one/1", "/two/1"))
        .collect();
    assert_eq!(a.protocols(peer), sorted(after.clone()));
    assert_eq!(
        protocol_lists(&a.news()),
        [(sorted(after), Cause::Identify)]
    );
}

async fn pinned_addresses_stay<N: Observing>() {
    let (mut a, mut b) = (observing::<N>(), plain());
    let one = b.listen().await;
    let (listener, two) = b.listener().await;
    let peer = b.id;
    a.store.addresses().pin(peer, [refused(1), two.clone()]);
    a.store.addresses().add(peer, [refused(2)]);
    meet(&mut a, &mut b, &one).await;
    let all = sorted(vec![one.clone(), two.clone(), refused(1)]);
    assert_eq!(a.addresses(peer), all);

    // Also when the peer takes back what is pinned.
    b.stop_listening(listener).await;
    until((&mut a, &mut b), |(a, _)| a.identified(peer) == 2).await;
    assert_eq!(a.addresses(peer), all);
    assert_eq!(a.info(peer, &two).unwrap().standing, Standing::Hearsay);
    assert!(a.info(peer, &two).unwrap().is_pinned());
    assert!(address_lists(&a.news()).is_empty());

    // What is no longer pinned goes with the next list.
    a.store.addresses().unpin(peer, [refused(1)]);
    b.swarm.behaviour_mut().identify.push([a.id]);
    until((&mut a, &mut b), |(a, _)| a.identified(peer) == 3).await;
    assert_eq!(a.addresses(peer), sorted(vec![one, two]));
}

async fn a_peer_that_lists_no_address_keeps_those_that_are_known<N: Observing>() {
    let (mut a, mut b) = (observing::<N>(), plain());
    let peer = b.id;
    a.store.addresses().add(peer, [refused(1)]);
    dialled_by(&mut a, &mut b).await;
    until((&mut a, &mut b), |(a, _)| a.identified(peer) > 0).await;
    assert_eq!(
        a.identifications(peer).last().unwrap().listen_addrs,
        Vec::<Multiaddr>::new()
    );
    assert_eq!(a.addresses(peer), [refused(1)]);
    assert_eq!(
        a.info(peer, &refused(1)).unwrap().sources,
        Sources::APPLICATION
    );
    // The rest of what it says is heard.
    assert_eq!(a.store.peers_supporting(KAD), [peer]);
    assert_eq!(
        a.store.get(&peer).unwrap().agent_version().unwrap(),
        "rule-tester/7"
    );
}

async fn a_peer_that_lists_no_address_keeps_that_of_its_inbound_connection<N: Observing>() {
    let (mut a, mut b) = (observing::<N>(), plain());
    let peer = b.id;
    let seen = dialled_by(&mut a, &mut b).await;
    until((&mut a, &mut b), |(a, _)| a.identified(peer) > 0).await;
    assert_eq!(a.addresses(peer), [seen.clone()]);
    assert_eq!(a.info(peer, &seen).unwrap().standing, Standing::Inbound);
}

async fn a_signed_record_certifies_what_is_listed_and_adds_nothing<N: Observing>() {
    let mut a = observing::<N>();
    let mut b = plain_with(|key| {
        let config = identify::Config::new_with_signed_peer_record("/rule/1.0.0".to_owned(), key)
            .with_push_listen_addr_updates(true);
        identify::Behaviour::new(config)
    });
    let one = b.listen().await;
    let (listener, two) = b.listener().await;
    let peer = b.id;
    meet(&mut a, &mut b, &one).await;
    for address in [&one, &two] {
        assert!(a.info(peer, address).unwrap().is_certified());
    }

    // After a push identify still reports the record of the first answer, which lists both.
    b.stop_listening(listener).await;
    until((&mut a, &mut b), |(a, _)| a.identified(peer) == 2).await;
    let last = a.identifications(peer).last().unwrap();
    assert!(last.signed_peer_record.is_some());
    assert_eq!(last.listen_addrs, [one.clone()]);
    assert_eq!(a.addresses(peer), [one.clone()]);

    // What is new since is not in the old record.
    let three = b.listen().await;
    until((&mut a, &mut b), |(a, _)| a.identified(peer) == 3).await;
    assert_eq!(a.addresses(peer), sorted(vec![one.clone(), three.clone()]));
    assert!(a.info(peer, &one).unwrap().is_certified());
    assert!(!a.info(peer, &three).unwrap().is_certified());
}

async fn identify_that_repeats_itself_is_silent<N: Observing>() {
    let ledger = Ledger::default();
    let mut a: Node<N> = Setup::with_datastore(ledger.clone()).await.compose(
        |store, key| store.observe(restless_identify(key)),
        |store, key| store.observe(kad(key)),
    );
    let mut b = plain();
    let address = b.listen().await;
    b.listen().await;
    connect(&mut a, &mut b, &address).await;
    rounds(&mut a, &mut b, 3).await;
    a.store.flush().await.unwrap();
    let (commits, news) = (ledger.commits(), a.news());
    assert!(!commits.is_empty() && !news.is_empty());

    rounds(&mut a, &mut b, 10).await;
    assert_eq!(a.store.unsaved(), 0);
    a.store.flush().await.unwrap();
    assert_eq!(ledger.commits(), commits);
    assert!(a.news().is_empty());
    // The swarm has told the application as little.
    let told = a.count(|event| matches!(event, SwarmEvent::Behaviour(Out::Store(_))));
    assert_eq!(told, news.len());
}
