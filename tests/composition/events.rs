//! What an observer passes on, what the store's behaviour yields, and what is told by hand.

use std::collections::VecDeque;

use futures::{FutureExt, StreamExt, task::noop_waker_ref};
use libp2p::{
    core::ConnectedPoint,
    swarm::{CloseConnection, behaviour::ConnectionEstablished, dial_opts::DialOpts, dummy},
};
use libp2p_peerstore::{Cause, Learned, Teach};

use super::*;

// --- what an observer passes on ------------------------------------------------------------------------------

#[derive(Debug)]
struct Found(PeerId, Multiaddr);

impl Teach for Found {
    const SOURCE: Source = Source::Mdns;

    fn teach(&self, learned: &mut Learned<'_>) {
        learned.add(self.0, std::slice::from_ref(&self.1));
    }
}

type Said = ToSwarm<Found, std::convert::Infallible>;

/// A behaviour that says what it is told to, and notes what it hears.
#[derive(Default)]
struct Scripted {
    script: VecDeque<Said>,
    heard: Vec<String>,
}

impl NetworkBehaviour for Scripted {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Found;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.heard.push(format!("{id} {local} {remote}"));
        Err(ConnectionDenied::new("full"))
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.heard.push(format!("{id} {peer} {local} {remote}"));
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.heard
            .push(format!("{id} {peer} {address} {role:?} {port_use:?}"));
        Err(ConnectionDenied::new("unwanted"))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.heard.push(format!("{event:?}"));
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.script.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// Everything that a behaviour can say to the swarm, apart from what needs a listener or a handler.
fn script(peer: PeerId) -> Scripted {
    let script = [
        ToSwarm::GenerateEvent(Found(peer, refused(1))),
        ToSwarm::Dial {
            opts: DialOpts::peer_id(peer).addresses(vec![refused(2)]).build(),
        },
        ToSwarm::NewExternalAddrCandidate(refused(3)),
        ToSwarm::ExternalAddrConfirmed(refused(3)),
        ToSwarm::ExternalAddrExpired(refused(3)),
        ToSwarm::NewExternalAddrOfPeer {
            peer_id: peer,
            address: refused(4),
        },
        ToSwarm::GenerateEvent(Found(peer, refused(5))),
        ToSwarm::CloseConnection {
            peer_id: peer,
            connection: CloseConnection::All,
        },
    ];
    Scripted {
        script: script.into(),
        heard: Vec::new(),
    }
}

/// Asks everything that the swarm can ask a behaviour, and tells what it answered.
fn answers(behaviour: &mut impl NetworkBehaviour<ToSwarm = Found>, peer: PeerId) -> Vec<String> {
    let id = ConnectionId::new_unchecked(3);
    let endpoint = ConnectedPoint::Dialer {
        address: refused(6),
        role_override: Endpoint::Dialer,
        port_use: PortUse::Reuse,
    };
    behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
        peer_id: peer,
        connection_id: id,
        endpoint: &endpoint,
        failed_addresses: &[],
        other_established: 0,
    }));
    let (local, remote) = (refused(1), refused(2));
    let pending = behaviour.handle_pending_inbound_connection(id, &local, &remote);
    let inbound = behaviour.handle_established_inbound_connection(id, peer, &local, &remote);
    let (role, reuse) = (Endpoint::Listener, PortUse::New);
    let outbound = behaviour.handle_established_outbound_connection(id, peer, &remote, role, reuse);
    let mut answers = vec![
        format!("{pending:?}"),
        format!("{}", inbound.is_ok()),
        format!("{:?}", outbound.map(|_| ())),
    ];
    let mut cx = Context::from_waker(noop_waker_ref());
    while let Poll::Ready(said) = behaviour.poll(&mut cx) {
        answers.push(match said {
            // Each dial has an id of its own.
            ToSwarm::Dial { opts } => format!("dial {:?}", opts.get_peer_id()),
            said => format!("{:?}", said.map_in(|_| "to the handler")),
        });
    }
    answers
}

#[test]
fn an_observer_changes_nothing_between_its_behaviour_and_the_swarm() {
    let store = PeerStore::in_memory(PeerId::random(), Config::default());
    let peer = PeerId::random();
    let mut plain = script(peer);
    let mut observed = store.observe(script(peer));
    let expected = answers(&mut plain, peer);
    assert_eq!(expected.len(), 3 + 8);
    assert_eq!(answers(&mut observed, peer), expected);
    assert_eq!(plain.heard.len(), 4);
    assert_eq!(observed.heard, plain.heard);

    // And still the store has learnt what was said about the peer, under the source of the event type.
    let infos = store.addresses().infos(&peer).unwrap();
    let learnt = infos
        .iter()
        .map(|info| (info.address.clone(), info.sources));
    let found = [1, 4, 5].map(|port| (refused(port), Sources::MDNS));
    assert_eq!(sorted_by_address(learnt.collect()), found);
}

fn sorted_by_address(mut infos: Vec<(Multiaddr, Sources)>) -> Vec<(Multiaddr, Sources)> {
    infos.sort_by(|(a, _), (b, _)| a.cmp(b));
    infos
}

#[test]
fn a_closure_teaches_as_discovery_unless_told_otherwise() {
    let store = PeerStore::in_memory(PeerId::random(), Config::default());
    let teach = |found: &Found, learned: &mut Learned<'_>| {
        learned.add(found.0, std::slice::from_ref(&found.1));
    };
    let sources = |peer| {
        let infos = store.addresses().infos(&peer).unwrap();
        infos.iter().map(|info| info.sources).collect::<Vec<_>>()
    };
    let (one, two) = (PeerId::random(), PeerId::random());
    answers(&mut store.observe_with(script(one), teach), one);
    assert_eq!(sources(one), [Sources::DISCOVERY; 3]);
    let observed = store.observe_with(script(two), teach);
    answers(&mut observed.with_source(Source::Identify), two);
    assert_eq!(sources(two), [Sources::IDENTIFY; 3]);
}

#[test]
fn a_behaviour_that_is_taken_out_lets_go_of_the_store() {
    let store = PeerStore::in_memory(PeerId::random(), Config::default());
    let mut events = store.subscribe();
    let peer = PeerId::random();
    let mut observed = store.observe(script(peer));
    observed.heard.push("by DerefMut".to_owned());
    drop(store);
    // The observer holds the store.
    assert!(events.next().now_or_never().is_none());
    let mut inner: Scripted = observed.into_inner();
    assert_eq!(inner.heard, ["by DerefMut"]);
    assert!(events.next().now_or_never().unwrap().is_none());
    assert_eq!(answers(&mut inner, peer).len(), 3 + 8);
}

// --- what the store's behaviour yields -----------------------------------------------------------------------

/// What the application was given, and what a subscriber was, after the same conversation.
async fn conversation(config: Config) -> (Vec<String>, Vec<String>) {
    let mut a: Node<StoreFirst<_, _>> = Setup::with_config(config.clone()).observing();
    let mut b = plain();
    let peer = b.id;
    meet(&mut a, &mut b).await;
    a.store.metadata().set(peer, "last", b"word").unwrap();
    let subscribed: Vec<_> = a.news().iter().map(|event| format!("{event:?}")).collect();
    let expected = if config.swarm_events() {
        subscribed.len()
    } else {
        0
    };
    until((&mut a, &mut b), |(a, _)| told(a) >= expected).await;
    // Whatever else there was to tell would have been told by now.
    let me = a.id;
    let heard = b.identified(me);
    a.swarm.behaviour_mut().a.push([peer]);
    until((&mut a, &mut b), |(_, b)| b.identified(me) > heard).await;
    assert!(a.news().is_empty());
    let yielded = a.said.iter().filter_map(|event| match event {
        SwarmEvent::Behaviour(Out::Store(event)) => Some(format!("{event:?}")),
        _ => None,
    });
    (yielded.collect(), subscribed)
}

#[tokio::test]
async fn the_swarm_yields_what_a_subscriber_hears_in_the_same_order() {
    let (yielded, subscribed) = conversation(Config::default()).await;
    assert_eq!(yielded, subscribed);
    // Added, dialled, protocols, agent and protocol version, and what the application itself set.
    assert_eq!(yielded.len(), 6);
}

#[tokio::test]
async fn with_swarm_events_off_only_a_subscriber_hears() {
    let (yielded, subscribed) = conversation(Config::default().with_swarm_events(false)).await;
    assert_eq!(yielded, [""; 0]);
    assert_eq!(subscribed.len(), 6);
}

// --- by hand -------------------------------------------------------------------------------------------------

#[test]
fn the_sink_is_there_for_what_comes_from_no_behaviour() {
    let store = PeerStore::in_memory(PeerId::random(), Config::default());
    let mut events = store.subscribe();
    let peer = PeerId::random();
    let mut gossip = store.learned(Source::Rendezvous);
    let added = gossip.add(peer, &[refused(1), refused(2)]);
    assert_eq!((added.changed, added.refused), (true, 0));
    assert!(!gossip.add(peer, &[refused(2)]).changed);
    let infos = store.addresses().infos(&peer).unwrap();
    assert!(infos.iter().all(|info| info.sources == Sources::RENDEZVOUS));

    // The peer's own word replaces what others said.
    let mut own_word = store.learned(Source::Identify);
    assert!(own_word.replace(peer, &[refused(3)]).changed);
    assert_eq!(store.addresses().get(&peer).unwrap(), [refused(3)]);
    // Gossip takes back only what it told itself.
    assert!(!gossip.withdraw(peer, None).changed);
    assert!(own_word.metadata(peer, AGENT_VERSION, b"hand/1").changed);

    let told: Vec<_> = std::iter::from_fn(|| events.try_next()).collect();
    let causes = told.iter().filter_map(|event| match event {
        Event::AddressesChanged { cause, .. } => Some(*cause),
        _ => None,
    });
    let causes: Vec<_> = causes.collect();
    assert_eq!(causes, [Cause::Discovery, Cause::Identify]);
    // Besides: added, and the agent version.
    assert_eq!(told.len(), 4);

    // It is learnt, and not the application's own word: refused about the local peer and after a ban.
    let local = store.local_peer_id();
    assert_eq!(
        store
            .learned(Source::Mdns)
            .add(local, &[refused(1)])
            .refused,
        1
    );
    assert!(store.delete_for(&peer, Duration::from_secs(60)));
    let ignored = store.learned(Source::Identify).replace(peer, &[refused(4)]);
    assert_eq!((ignored.changed, ignored.refused), (false, 1));
    assert!(!store.contains(&peer));
}
