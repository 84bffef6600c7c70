//! What failed dials teach the store, and what they do not.

use std::{io, net::TcpListener};

use libp2p::{
    Multiaddr, PeerId, TransportError, connection_limits,
    connection_limits::ConnectionLimits,
    swarm::{
        ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour, dial_opts::DialOpts,
        dummy,
    },
};
use libp2p_peerstore::{Sources, Standing};

use super::told;
use crate::swarm::*;

in_every_order!(
    refused_ports_are_marked_failed_once_per_dial,
    an_address_that_nobody_had_told_is_not_kept_for_having_failed,
    a_success_clears_the_failures,
    another_peer_that_answers_is_told_of_and_the_expected_one_failed_there,
    an_address_of_the_wrong_peer_is_told_without_the_expected_suffix,
    an_address_that_no_transport_speaks_is_not_offered_again_and_did_not_fail,
    an_address_that_no_transport_speaks_does_not_fail_beside_one_that_answers,
    a_dial_that_has_no_address_is_no_evidence,
    a_dial_whose_condition_is_false_is_no_evidence,
    a_dial_that_was_broken_off_is_no_evidence,
    local_errors_are_no_evidence,
    denied_dials_are_no_evidence,
    a_dial_that_met_ourselves_is_no_evidence,
);

/// Waits for the next failure of a dial to `peer`.
async fn failure<B: NetworkBehaviour>(a: &mut Node<B>, peer: PeerId) {
    let before = a.dial_errors(peer).len();
    until(a, |a| a.dial_errors(peer).len() > before).await;
}

/// How often dials to an address have failed since the last success, and whether one ever did.
fn failures<B: NetworkBehaviour>(a: &Node<B>, peer: PeerId, address: &Multiaddr) -> (u32, bool) {
    let info = a.info(peer, address).unwrap();
    (info.failures, info.last_failure.is_some())
}

/// Tells the behaviour that a dial failed as no test can make it fail.
fn feed_failure<B: NetworkBehaviour>(
    a: &mut Node<B>,
    peer: PeerId,
    address: &Multiaddr,
    error: io::Error,
) {
    let error = DialError::Transport(vec![(with_id(address, peer), TransportError::Other(error))]);
    let event = DialFailure {
        peer_id: Some(peer),
        error: &error,
        connection_id: ConnectionId::new_unchecked(7),
    };
    let behaviour = a.swarm.behaviour_mut();
    behaviour.on_swarm_event(FromSwarm::DialFailure(event));
}

// --- evidence ------------------------------------------------------------------------------------------------

async fn refused_ports_are_marked_failed_once_per_dial<N: Alone>() {
    let mut a = alone::<N>();
    let peer = PeerId::random();
    a.store.addresses().add(peer, [refused(1), refused(2)]);
    a.news();
    for times in 1..=3 {
        // The first failure begins a back-off: then one address is offered for a dial, and the user names the other.
        let dialled = a.dial(peer);
        assert_eq!(dialled.len(), if times == 1 { 2 } else { 1 });
        failure(&mut a, peer).await;
        if times > 1 {
            let offered = &dialled[0];
            let both = [refused(1), refused(2)];
            let other = both.iter().find(|port| with_id(port, peer) != *offered);
            feed_failure(
                &mut a,
                peer,
                other.unwrap(),
                io::ErrorKind::ConnectionRefused.into(),
            );
        }
        assert_eq!(failures(&a, peer, &refused(1)), (times, true));
        assert_eq!(failures(&a, peer, &refused(2)), (times, true));
    }
    // Failures are not a change of addresses.
    assert!(a.news().is_empty());
    assert_eq!(a.addresses(peer), [refused(1), refused(2)]);

    // What did not fail comes first from now on.
    a.store.addresses().add(peer, [refused(3)]);
    assert_eq!(a.dial(peer)[0], with_id(&refused(3), peer));
}

async fn an_address_that_nobody_had_told_is_not_kept_for_having_failed<N: Alone>() {
    let mut a = alone::<N>();
    let (known, unknown) = (PeerId::random(), PeerId::random());
    a.store.addresses().add(known, [refused(1)]);
    a.news();
    for peer in [known, unknown] {
        a.swarm.dial(to(peer, &refused(2))).unwrap();
        failure(&mut a, peer).await;
    }
    assert_eq!(a.addresses(known), [refused(1)]);
    assert_eq!(failures(&a, known, &refused(1)), (0, false));
    assert!(!a.store.contains(&unknown));
    assert!(a.news().is_empty());
}

async fn a_success_clears_the_failures<N: Alone>() {
    let (mut a, mut b) = (alone::<N>(), silent());
    let address = b.listen().await;
    let peer = b.id;
    a.store.addresses().add(peer, [address.clone()]);
    feed_failure(
        &mut a,
        peer,
        &address,
        io::ErrorKind::ConnectionRefused.into(),
    );
    assert_eq!(failures(&a, peer, &address), (1, true));

    a.dial(peer);
    until((&mut a, &mut b), |(a, _)| a.is_connected(peer)).await;
    let info = a.info(peer, &address).unwrap();
    assert_eq!((info.successes, info.failures), (1, 0));
    assert_eq!(info.standing, Standing::Proven);
}

async fn another_peer_that_answers_is_told_of_and_the_expected_one_failed_there<N: Alone>() {
    let (mut a, mut c) = (alone::<N>(), silent());
    let address = c.listen().await;
    let (expected, obtained) = (PeerId::random(), c.id);
    // Once pinned, else it would be forgotten there; that is told of below.
    a.store.addresses().pin(expected, [address.clone()]);
    a.news();
    assert_eq!(a.dial(expected), [with_id(&address, expected)]);
    until((&mut a, &mut c), |(a, _)| {
        !a.dial_errors(expected).is_empty()
    })
    .await;
    assert!(matches!(
        a.dial_errors(expected)[..],
        [DialError::WrongPeerId { obtained: who, .. }] if *who == obtained
    ));

    assert_eq!(failures(&a, expected, &address), (1, true));
    assert_eq!(
        a.info(expected, &address).unwrap().standing,
        Standing::Hearsay
    );
    let info = a.info(obtained, &address).unwrap();
    assert_eq!(info.standing, Standing::SelfTold);
    assert_eq!(info.sources, Sources::IDENTIFY);
    assert_eq!((info.successes, info.last_success), (0, None));
    assert_eq!((info.failures, info.last_failure), (0, None));
    assert!(!a.store.is_connected(&obtained));

    let news = a.news();
    let [(who, addresses, _)] = &told(&news)[..] else {
        panic!("one change of addresses expected: {news:?}");
    };
    assert_eq!((who, &addresses[..]), (&obtained, &[address.clone()][..]));

    // Hearsay is forgotten by it.
    let stranger = PeerId::random();
    a.store.addresses().add(stranger, [address.clone()]);
    a.dial(stranger);
    until((&mut a, &mut c), |(a, _)| {
        !a.dial_errors(stranger).is_empty()
    })
    .await;
    assert!(a.info(stranger, &address).is_none());

    // It is what a dial to it begins with.
    let peer = obtained;
    a.dial(peer);
    until((&mut a, &mut c), |(a, _)| a.is_connected(peer)).await;
}

async fn an_address_of_the_wrong_peer_is_told_without_the_expected_suffix<N: Alone>() {
    let (mut a, mut c) = (alone::<N>(), silent());
    let address = c.listen().await;
    // Nothing is known of the expected peer: nothing is kept of it either.
    let expected = PeerId::random();
    let opts = DialOpts::peer_id(expected).addresses(vec![with_id(&address, expected)]);
    a.swarm.dial(opts.build()).unwrap();
    until((&mut a, &mut c), |(a, _)| {
        !a.dial_errors(expected).is_empty()
    })
    .await;
    assert_eq!(a.addresses(c.id), [address]);
    assert_eq!(a.store.peer_ids(), [c.id]);
}

async fn an_address_that_no_transport_speaks_is_not_offered_again_and_did_not_fail<N: Alone>() {
    let mut a = alone::<N>();
    let peer = PeerId::random();
    a.store.addresses().add(peer, [unsupported(), refused(1)]);
    assert_eq!(a.dial(peer).len(), 2);
    failure(&mut a, peer).await;
    let Some(DialError::Transport(attempts)) = a.dial_errors(peer).pop() else {
        panic!("the transport refuses both");
    };
    assert!(attempts.iter().any(|(address, error)| {
        *address == with_id(&unsupported(), peer)
            && matches!(error, TransportError::MultiaddrNotSupported(_))
    }));
    assert_eq!(failures(&a, peer, &unsupported()), (0, false));
    assert_eq!(failures(&a, peer, &refused(1)), (1, true));

    // It stays known: another node, or another run, may speak it.
    assert_eq!(a.addresses(peer), sorted(vec![unsupported(), refused(1)]));
    assert_eq!(a.dial(peer), [with_id(&refused(1), peer)]);

    // With nothing else left there is nothing to dial.
    a.store.addresses().remove(peer, [refused(1)]);
    let error = a.swarm.dial(always(peer).build()).unwrap_err();
    assert!(matches!(error, DialError::NoAddresses));
    assert_eq!(a.addresses(peer), [unsupported()]);
}

async fn an_address_that_no_transport_speaks_does_not_fail_beside_one_that_answers<N: Alone>() {
    let (mut a, mut b) = (alone::<N>(), silent());
    let address = b.listen().await;
    let peer = b.id;
    let webtransport: Multiaddr = "/ip4/127.0.0.1/udp/1/quic-v1/webtransport".parse().unwrap();
    let told = [webtransport.clone(), refused(1), address.clone()];
    a.store.addresses().add(peer, told);
    assert_eq!(a.dial(peer).len(), 3);
    until((&mut a, &mut b), |(a, _)| a.is_connected(peer)).await;
    assert_eq!(failures(&a, peer, &webtransport), (0, false));
    assert_eq!(failures(&a, peer, &refused(1)), (1, true));
    assert_eq!(failures(&a, peer, &address), (0, false));
}

// --- no evidence ---------------------------------------------------------------------------------------------

async fn a_dial_that_has_no_address_is_no_evidence<N: Alone>() {
    let mut a = alone::<N>();
    let (unknown, known) = (PeerId::random(), PeerId::random());
    a.store.protocols().add(known, ["/chat/1"]);
    a.news();
    for peer in [unknown, known] {
        let error = a.swarm.dial(peer).unwrap_err();
        assert!(matches!(error, DialError::NoAddresses));
    }
    assert!(!a.store.contains(&unknown));
    assert_eq!(a.addresses(known), []);
    assert!(a.news().is_empty());
}

async fn a_dial_whose_condition_is_false_is_no_evidence<N: Alone>() {
    let (mut a, mut b) = (alone::<N>(), silent());
    let address = b.listen().await;
    let peer = b.id;
    a.store.addresses().add(peer, [address.clone(), refused(1)]);
    a.dial_with(to(peer, &address));
    // The first dial is still under way.
    let error = a.swarm.dial(peer).unwrap_err();
    assert!(matches!(error, DialError::DialPeerConditionFalse(_)));
    until((&mut a, &mut b), |(a, _)| a.is_connected(peer)).await;
    // And now there is a connection.
    let error = a.swarm.dial(peer).unwrap_err();
    assert!(matches!(error, DialError::DialPeerConditionFalse(_)));

    assert_eq!(failures(&a, peer, &address), (0, false));
    assert_eq!(failures(&a, peer, &refused(1)), (0, false));
    assert_eq!(a.info(peer, &address).unwrap().successes, 1);
}

async fn a_dial_that_was_broken_off_is_no_evidence<N: Alone>() {
    let mut a = alone::<N>();
    let peer = PeerId::random();
    // The kernel takes the connection, and nobody ever answers on it.
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = at(hanging.local_addr().unwrap().port());
    a.store.addresses().add(peer, [address.clone()]);
    a.dial(peer);
    let _ = a.swarm.disconnect_peer_id(peer);
    failure(&mut a, peer).await;
    assert!(matches!(a.dial_errors(peer)[..], [DialError::Aborted]));
    assert_eq!(failures(&a, peer, &address), (0, false));
    assert_eq!(a.dial(peer), [with_id(&address, peer)]);
}

async fn denied_dials_are_no_evidence<N: Order<connection_limits::Behaviour, dummy::Behaviour>>() {
    for limits in [
        // The first denies before anything is dialled, the second once the connection stands.
        ConnectionLimits::default().with_max_pending_outgoing(Some(0)),
        ConnectionLimits::default().with_max_established_outgoing(Some(0)),
    ] {
        let mut a: Node<N> = Setup::default().compose(
            |_, _| connection_limits::Behaviour::new(limits),
            |_, _| dummy::Behaviour,
        );
        let mut b = silent();
        let address = b.listen().await;
        let peer = b.id;
        a.store.addresses().add(peer, [address.clone()]);
        a.news();
        match a.swarm.dial(peer) {
            Err(error) => assert!(matches!(error, DialError::Denied { .. })),
            Ok(()) => {
                until((&mut a, &mut b), |(a, _)| !a.dial_errors(peer).is_empty()).await;
                assert!(matches!(
                    a.dial_errors(peer)[..],
                    [DialError::Denied { .. }]
                ));
            }
        }
        assert_eq!(failures(&a, peer, &address), (0, false));
        let info = a.info(peer, &address).unwrap();
        assert_eq!(
            (info.standing, info.successes, info.sources),
            (Standing::Hearsay, 0, Sources::APPLICATION)
        );
        assert!(!a.store.is_connected(&peer));
        assert!(a.news().is_empty());
    }
}

/// The same error as a transport would hand it on from deep inside.
fn nested(error: io::Error) -> io::Error {
    io::Error::other(io::Error::other(Layer(error)))
}

#[derive(Debug)]
struct Layer(io::Error);

impl std::fmt::Display for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a layer of the transport failed")
    }
}

impl std::error::Error for Layer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

async fn local_errors_are_no_evidence<N: Alone>() {
    let mut a = alone::<N>();
    let peer = PeerId::random();
    a.store.addresses().add(peer, [at(1)]);
    let mut feed = |error: io::Error| {
        feed_failure(&mut a, peer, &at(1), error);
        a.info(peer, &at(1)).unwrap().failures
    };
    // Out of file descriptors: for the process, for the machine.
    const OWN_LIMITS: [i32; 2] = [24, 23];

    for error in OWN_LIMITS {
        assert_eq!(feed(io::Error::from_raw_os_error(error)), 0);
        assert_eq!(feed(nested(io::Error::from_raw_os_error(error))), 0);
    }
    for kind in [
        io::ErrorKind::NetworkUnreachable,
        io::ErrorKind::NetworkDown,
        io::ErrorKind::AddrNotAvailable,
        io::ErrorKind::PermissionDenied,
    ] {
        assert_eq!(feed(kind.into()), 0, "{kind}");
        assert_eq!(feed(nested(kind.into())), 0, "{kind}");
    }
    assert_eq!(feed(io::ErrorKind::ConnectionRefused.into()), 1);
    assert_eq!(feed(nested(io::ErrorKind::ConnectionRefused.into())), 2);
    // It says something once the network proves to work.
    assert_eq!(feed(nested(io::ErrorKind::TimedOut.into())), 2);
    assert_eq!(feed(io::ErrorKind::ConnectionRefused.into()), 4);
}

/// The kernel refuses to open a TCP connection to a multicast group: a local error that has come up through every
/// layer of a real transport, without a packet.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_local_error_is_recognised_through_every_layer_of_a_real_transport() {
    let mut a = alone::<StoreFirst<_, _>>();
    let peer = PeerId::random();
    let group: Multiaddr = "/ip4/224.0.0.1/tcp/4001".parse().unwrap();
    a.store.addresses().add(peer, [group.clone(), refused(1)]);
    a.dial(peer);
    failure(&mut a, peer).await;
    let Some(DialError::Transport(attempts)) = a.dial_errors(peer).pop() else {
        panic!("the kernel refuses both");
    };
    let text = format!("{attempts:?}");
    assert!(text.contains("NetworkUnreachable"), "{text}");
    assert_eq!(failures(&a, peer, &group), (0, false));
    assert_eq!(failures(&a, peer, &refused(1)), (1, true));
}

async fn a_dial_that_met_ourselves_is_no_evidence<N: Alone>() {
    let mut a = alone::<N>();
    let (local, peer) = (a.id, PeerId::random());
    a.store.addresses().add(peer, [at(1)]);
    a.news();
    let error = DialError::LocalPeerId { address: at(1) };
    for peer_id in [None, Some(local), Some(peer)] {
        let event = DialFailure {
            peer_id,
            error: &error,
            connection_id: ConnectionId::new_unchecked(7),
        };
        let behaviour = a.swarm.behaviour_mut();
        behaviour.on_swarm_event(FromSwarm::DialFailure(event));
    }
    assert_eq!(failures(&a, peer, &at(1)), (0, false));
    assert_eq!(a.store.peer_ids(), [peer]);
    assert!(a.news().is_empty());
}
