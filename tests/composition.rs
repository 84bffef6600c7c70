//! The ways in which people put behaviours together: switched on and off, wrapped, without one part or another.

// `[address.clone()]` reads better than `std::slice::from_ref(&address)`.
#![allow(clippy::cloned_ref_to_slice_refs, clippy::unwrap_used)]

#[path = "composition/events.rs"]
mod events;
#[path = "support/swarm.rs"]
mod swarm;

use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    identify, kad, ping,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, SwarmEvent, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm, behaviour::toggle::Toggle,
    },
};
use libp2p_peerstore::{
    AGENT_VERSION, BehaviourError, Config, Event, Observed, PeerStore, PeerStoreBehaviour, Source,
    Sources, Standing,
};
use swarm::*;

type Identify = identify::Behaviour;

/// Dials `b`, and waits until `a` has heard it identify itself.
async fn meet<A>(a: &mut Node<A>, b: &mut Node<Plain>) -> Multiaddr
where
    A: NetworkBehaviour<ToSwarm = Out>,
{
    let address = b.listen().await;
    connect(a, b, &address).await;
    rounds(a, b, 1).await;
    address
}

fn agent<B: NetworkBehaviour>(a: &Node<B>, peer: PeerId) -> Option<String> {
    a.store.get(&peer)?.agent_version()
}

/// How many events of the store the swarm has handed to the application.
fn told<B: NetworkBehaviour<ToSwarm = Out>>(a: &Node<B>) -> usize {
    a.count(|event| matches!(event, SwarmEvent::Behaviour(Out::Store(_))))
}

// --- switches ------------------------------------------------------------------------------------------------

/// A node with the store's behaviour and one other.
#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "Out")]
struct With<B> {
    peer_store: PeerStoreBehaviour,
    other: B,
}

fn with<B>(other: impl FnOnce(&PeerStore, Identify) -> B) -> Node<With<B>>
where
    B: NetworkBehaviour,
    Out: From<B::ToSwarm>,
{
    Setup::default().build(|store, key| With {
        peer_store: PeerStoreBehaviour::new(store.clone()).unwrap(),
        other: other(store, identify(key)),
    })
}

/// Waits until `b` has learnt that `a` does not speak identify: by then `a` would have asked `b` as well.
async fn nobody_answers<A: NetworkBehaviour>(a: &mut Node<A>, b: &mut Node<Plain>) {
    let me = a.id;
    until((a, b), |(_, b)| {
        b.said.iter().any(|event| {
            matches!(
                event,
                SwarmEvent::Behaviour(Out::Identify(identify::Event::Error { peer_id, .. })) if *peer_id == me
            )
        })
    })
    .await;
}

#[tokio::test]
async fn an_observer_can_be_switched_on() {
    let mut a = with(|store, identify| Toggle::from(Some(store.observe(identify))));
    let mut b = plain();
    let address = meet(&mut a, &mut b).await;
    assert_eq!(agent(&a, b.id).unwrap(), "rule-tester/7");
    assert_eq!(a.addresses(b.id), [address]);
}

#[tokio::test]
async fn an_observer_can_be_switched_off() {
    let mut a = with::<Toggle<Observed<Identify>>>(|_, _| None.into());
    let mut b = plain();
    let address = b.listen().await;
    connect(&mut a, &mut b, &address).await;
    nobody_answers(&mut a, &mut b).await;
    // The store goes on without it.
    assert_eq!(a.info(b.id, &address).unwrap().standing, Standing::Proven);
    assert_eq!(agent(&a, b.id), None);
    assert_eq!(a.dial(b.id), [with_id(&address, b.id)]);
}

#[tokio::test]
async fn a_switch_can_be_observed() {
    let mut a = with(|store, identify| store.observe(Toggle::from(Some(identify))));
    let mut b = plain();
    meet(&mut a, &mut b).await;
    assert_eq!(agent(&a, b.id).unwrap(), "rule-tester/7");

    let mut a = with::<Observed<Toggle<Identify>>>(|store, _| store.observe(None.into()));
    let address = b.listen().await;
    connect(&mut a, &mut b, &address).await;
    nobody_answers(&mut a, &mut b).await;
    assert!(a.store.is_connected(&b.id));
    assert_eq!(agent(&a, b.id), None);
    assert_eq!(a.protocols(b.id), [""; 0]);
}

#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "Out")]
struct Switched {
    identify: Observed<Identify>,
    peer_store: Toggle<PeerStoreBehaviour>,
}

fn switched(on: bool) -> Node<Switched> {
    Setup::default().build(|store, key| Switched {
        identify: store.observe(identify(key)),
        peer_store: on
            .then(|| PeerStoreBehaviour::new(store.clone()).unwrap())
            .into(),
    })
}

#[tokio::test]
async fn the_stores_own_behaviour_can_be_switched() {
    let mut b = plain();
    let mut a = switched(true);
    let address = meet(&mut a, &mut b).await;
    let info = a.info(b.id, &address).unwrap();
    assert_eq!(info.standing, Standing::Proven);
    assert!(a.store.is_connected(&b.id));
    // Added, dialled, protocols, agent and protocol version.
    until((&mut a, &mut b), |(a, _)| told(a) == 5).await;
    assert_eq!(a.news().len(), 5);

    let mut a = switched(false);
    let address = meet(&mut a, &mut b).await;
    // What events say is learnt all the same; what connections say is not.
    assert_eq!(agent(&a, b.id).unwrap(), "rule-tester/7");
    let info = a.info(b.id, &address).unwrap();
    assert_eq!(info.standing, Standing::SelfTold);
    assert_eq!(info.sources, Sources::IDENTIFY);
    assert!(!a.store.is_connected(&b.id));
    assert_eq!(told(&a), 0);
    assert_eq!(a.news().len(), 5);
}

// --- without the store's behaviour ---------------------------------------------------------------------------

#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "Out")]
struct OnlyObserved {
    identify: Observed<Identify>,
    kad: Observed<Kad>,
}

#[tokio::test]
async fn observers_learn_without_the_stores_behaviour() {
    let mut a = Setup::default().build(|store, key| OnlyObserved {
        identify: store.observe(identify(key)),
        kad: store.observe(kad(key)),
    });
    let mut b = plain();
    let listed = meet(&mut a, &mut b).await;
    let peer = b.id;
    assert_eq!(agent(&a, peer).unwrap(), "rule-tester/7");
    assert_eq!(a.protocols(peer), a.listed_protocols(peer));
    assert_eq!(a.addresses(peer), std::slice::from_ref(&listed));
    assert!(a.store.connected_peers().is_empty());

    let ghost = PeerId::random();
    let kad = &mut a.swarm.behaviour_mut().kad;
    kad.add_address(&ghost, refused(1));
    until(&mut a, |a| a.store.contains(&ghost)).await;

    // The observers still dial only what the store would offer.
    a.store.addresses().remove(peer, [listed.clone()]);
    let error = a.swarm.dial(always(peer).build()).unwrap_err();
    assert!(matches!(error, libp2p::swarm::DialError::NoAddresses));
    a.store.addresses().add(peer, [listed.clone()]);
    assert_eq!(a.dial(peer), [with_id(&listed, peer)]);
}

#[tokio::test]
async fn events_can_be_passed_by_hand() {
    let mut a = with(|_, identify| identify);
    let mut b = plain();
    let listed = meet(&mut a, &mut b).await;
    let peer = b.id;
    a.store.addresses().add(peer, [refused(1)]);
    assert_eq!(agent(&a, peer), None);
    for event in &a.said {
        if let SwarmEvent::Behaviour(Out::Identify(event)) = event {
            a.store.learn(event);
        }
    }
    assert_eq!(agent(&a, peer).unwrap(), "rule-tester/7");
    assert_eq!(a.addresses(peer), [listed]);
}

// --- attaching -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_store_has_one_behaviour_at_a_time() {
    let a = alone::<StoreFirst<_, _>>();
    let store = a.store.clone();
    // A refused one takes nothing with it: the next is refused as well.
    for _ in 0..2 {
        assert_eq!(
            PeerStoreBehaviour::new(store.clone()).unwrap_err(),
            BehaviourError::AlreadyAttached
        );
    }
    // Another store is another matter.
    let other = PeerStore::in_memory(a.id, Config::default());
    let behaviour = PeerStoreBehaviour::new(other.clone()).unwrap();
    assert_eq!(behaviour.store().local_peer_id(), a.store.local_peer_id());

    drop(a);
    let first = PeerStoreBehaviour::new(store.clone()).unwrap();
    assert!(PeerStoreBehaviour::new(store.clone()).is_err());
    drop(first);
    assert!(PeerStoreBehaviour::new(store).is_ok());
}

#[tokio::test]
async fn a_store_goes_on_in_the_next_swarm() {
    let mut b = silent();
    let address = b.listen().await;
    let setup = Setup::default();
    let (key, store) = (setup.key.clone(), setup.store.clone());
    let mut a: Node<StoreFirst<_, _>> = setup.alone();
    connect(&mut a, &mut b, &address).await;
    let (me, peer) = (a.id, b.id);
    assert!(PeerStoreBehaviour::new(store.clone()).is_err());
    assert_eq!(store.connections(&peer), 1);
    assert!(store.get(&peer).unwrap().connected);
    drop(a);
    // The swarm told nobody that it closed; the end of the behaviour does.
    assert_eq!(store.connections(&peer), 0);
    assert!(!store.get(&peer).unwrap().connected);
    assert!(store.connected_peers().is_empty());
    until(&mut b, |b| !b.is_connected(me)).await;

    let mut a: Node<StoreFirst<_, _>> = Setup::with_store(key, store).alone();
    assert_eq!(a.dial(b.id), [with_id(&address, b.id)]);
    until((&mut a, &mut b), |(a, b)| a.store.is_connected(&b.id)).await;
    assert_eq!(a.store.connections(&peer), 1);
    assert_eq!(a.store.connected_peers(), [peer]);
}

// --- wrappers ------------------------------------------------------------------------------------------------

/// A user's own wrapper: it passes everything on and counts what the store yields.
struct Counting {
    inner: PeerStoreBehaviour,
    yielded: usize,
}

impl NetworkBehaviour for Counting {
    type ConnectionHandler = <PeerStoreBehaviour as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner
            .handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner
            .handle_pending_outbound_connection(id, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner
            .handle_established_outbound_connection(id, peer, address, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner.on_connection_handler_event(peer, id, event);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        let event = std::task::ready!(self.inner.poll(cx));
        self.yielded += usize::from(matches!(event, ToSwarm::GenerateEvent(_)));
        Poll::Ready(event)
    }
}

#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "Out")]
struct Wrapped {
    identify: Identify,
    peer_store: Counting,
}

#[tokio::test]
async fn the_stores_behaviour_works_inside_a_wrapper_of_the_users_own() {
    let mut a = Setup::default().build(|store, key| Wrapped {
        identify: identify(key),
        peer_store: Counting {
            inner: PeerStoreBehaviour::new(store.clone()).unwrap(),
            yielded: 0,
        },
    });
    let mut b = plain();
    let address = meet(&mut a, &mut b).await;
    let peer = b.id;
    until((&mut a, &mut b), |(a, _)| !a.protocols(peer).is_empty()).await;
    assert_eq!(a.protocols(peer), a.listed_protocols(peer));
    assert_eq!(a.info(peer, &address).unwrap().standing, Standing::Proven);
    let told =
        |a: &Node<Wrapped>| a.count(|event| matches!(event, SwarmEvent::Behaviour(Out::Store(_))));
    // Added, addresses, protocols.
    until((&mut a, &mut b), |(a, _)| told(a) == 3).await;
    assert_eq!(a.swarm.behaviour().peer_store.yielded, 3);

    disconnect(&mut a, &mut b).await;
    assert_eq!(a.dial(peer), [with_id(&address, peer)]);
}

#[tokio::test]
async fn two_stores_can_observe_one_behaviour() {
    let other = PeerStore::in_memory(PeerId::random(), Config::default());
    let mut a = with(|store, identify| other.observe(store.observe(identify)));
    let mut b = plain();
    meet(&mut a, &mut b).await;
    for store in [&a.store, &other] {
        assert_eq!(
            store.metadata().get_value(&b.id, AGENT_VERSION).unwrap(),
            b"rule-tester/7"
        );
    }
}

// --- events of other crates, events in general ---------------------------------------------------------------

#[derive(NetworkBehaviour)]
struct Pinging {
    peer_store: PeerStoreBehaviour,
    ping: Observed<ping::Behaviour>,
}

#[tokio::test]
async fn an_event_type_of_another_crate_is_observed_by_a_closure() {
    let build = |store: &PeerStore| {
        let config = ping::Config::new().with_interval(Duration::from_millis(20));
        let observed = store.observe_with(ping::Behaviour::new(config), |event, learned| {
            if let Ok(rtt) = &event.result {
                learned.metadata(event.peer, "alive", b"yes");
                assert!(*rtt > Duration::ZERO);
                learned.add(event.peer, &[refused(1)]);
            }
        });
        Pinging {
            peer_store: PeerStoreBehaviour::new(store.clone()).unwrap(),
            ping: observed.with_source(Source::Rendezvous),
        }
    };
    let mut a = Setup::default().build(|store, _| build(store));
    let mut b = Setup::default().build(|store, _| build(store));
    let address = b.listen().await;
    let peer = b.id;
    connect(&mut a, &mut b, &address).await;
    let pings = |a: &Node<Pinging>| {
        a.count(|event| {
            matches!(event, SwarmEvent::Behaviour(PingingEvent::Ping(ping)) if ping.result.is_ok())
        })
    };
    until((&mut a, &mut b), |(a, _)| pings(a) >= 3).await;
    assert_eq!(
        a.store.metadata().get_value(&peer, "alive").unwrap(),
        b"yes"
    );
    // The source that the application has named for it.
    assert_eq!(
        a.info(peer, &refused(1)).unwrap().sources,
        Sources::RENDEZVOUS
    );
    // Added, dialled, alive, one more address: and each once.
    assert_eq!(a.news().len(), 4);
    let told = a.count(|event| matches!(event, SwarmEvent::Behaviour(PingingEvent::PeerStore(_))));
    assert_eq!(told, 4);
}

#[tokio::test]
async fn the_events_of_an_observed_behaviour_reach_the_application_unchanged() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let notes = seen.clone();
    let mut a = with(move |store, identify| {
        store.observe_with(identify, move |event, _| {
            notes.lock().unwrap().push(format!("{event:?}"));
        })
    });
    let mut b = plain();
    meet(&mut a, &mut b).await;
    let me = a.id;
    a.swarm.behaviour_mut().other.push([b.id]);
    b.swarm.behaviour_mut().identify.push([me]);
    let peer = b.id;
    until((&mut a, &mut b), |(a, b)| {
        a.identified(peer) == 2 && b.identified(me) == 2
    })
    .await;
    let heard: Vec<String> = a
        .said
        .iter()
        .filter_map(|event| match event {
            SwarmEvent::Behaviour(Out::Identify(event)) => Some(format!("{event:?}")),
            _ => None,
        })
        .collect();
    assert_eq!(heard, *seen.lock().unwrap());
    for kind in ["Received", "Sent", "Pushed"] {
        assert!(heard.iter().any(|event| event.starts_with(kind)), "{kind}");
    }
    // What it announces to the swarm arrives too.
    let announced = a.count(|event| {
        matches!(event, SwarmEvent::NewExternalAddrOfPeer { peer_id, .. } if *peer_id == peer)
    });
    assert_eq!(announced, 1);
}

#[tokio::test]
async fn the_methods_of_an_observed_behaviour_are_there() {
    let store = PeerStore::in_memory(PeerId::random(), Config::default());
    let key = libp2p::identity::Keypair::generate_ed25519();
    let mut observed = store.observe(kad(&key));
    assert_eq!(observed.mode(), kad::Mode::Server);
    observed.set_mode(Some(kad::Mode::Client));
    observed.add_address(&PeerId::random(), refused(1));
    let mut inner: Kad = observed.into_inner();
    assert_eq!(inner.mode(), kad::Mode::Client);
    assert_eq!(
        inner
            .kbuckets()
            .map(|bucket| bucket.num_entries())
            .sum::<usize>(),
        1
    );
}

#[tokio::test]
async fn the_swarm_need_not_carry_the_stores_events() {
    let config = Config::default().with_swarm_events(false);
    let mut a: Node<StoreFirst<_, _>> = Setup::with_config(config).observing();
    let mut b = plain();
    let address = b.listen().await;
    connect(&mut a, &mut b, &address).await;
    rounds(&mut a, &mut b, 1).await;
    assert_eq!(told(&a), 0);
    // Whoever subscribes hears them, and the store is as well informed as ever.
    assert!(matches!(a.news()[0], Event::PeerAdded { .. }));
    assert_eq!(agent(&a, b.id).unwrap(), "rule-tester/7");
    assert!(a.store.is_connected(&b.id));
    assert_eq!(a.protocols(b.id), a.listed_protocols(b.id));
}
