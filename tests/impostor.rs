//! Somebody gossips a fast address of his own for a victim, again and again.

#![allow(clippy::unwrap_used)]

#[path = "support/swarm.rs"]
mod swarm;

use std::time::Duration;

use libp2p::{
    Multiaddr,
    swarm::{NetworkBehaviour, dummy},
};
use libp2p_peerstore::{Config, ManualClock, Refused, Source, Standing};
use swarm::*;

in_every_order!(
    a_gossiped_impostor_spoils_no_dial_to_a_proven_peer,
    a_gossiped_impostor_gains_nothing_from_a_pause_of_the_proven_peer,
    an_impostor_is_found_out_and_stays_out,
);

const SECOND: Duration = Duration::from_secs(1);

/// A node that knows the victim by a dial, and the impostor.
struct Scene<N: NetworkBehaviour> {
    a: Node<N>,
    clock: ManualClock,
    victim: Node<dummy::Behaviour>,
    good: Multiaddr,
    impostor: Node<dummy::Behaviour>,
    evil: Multiaddr,
}

impl<N: Alone> Scene<N> {
    async fn new(smart: bool) -> Self {
        let clock = ManualClock::default();
        let config = Config::default().with_clock(clock.clone());
        let mut a: Node<N> = Setup::with_config(config).smart_dial(smart).alone();
        let (mut victim, mut impostor) = (silent(), silent());
        let (good, evil) = (victim.listen().await, impostor.listen().await);
        connect(&mut a, &mut victim, &good).await;
        disconnect(&mut a, &mut victim).await;
        Self {
            a,
            clock,
            victim,
            good,
            impostor,
            evil,
        }
    }

    /// Gossips the impostor's address for the victim each second, by whatever way there is.
    fn gossip_for(&mut self, seconds: u32) {
        let (a, peer) = (&mut self.a, self.victim.id);
        for _ in 0..seconds {
            for source in [Source::Kademlia, Source::Rendezvous, Source::Discovery] {
                let mut learned = a.store.learned(source);
                learned.add(peer, std::slice::from_ref(&self.evil));
            }
            a.swarm.add_peer_address(peer, self.evil.clone());
            self.clock.advance(SECOND);
        }
    }

    /// Dials the victim by its id, and tells what the transport was given and whether it succeeded.
    async fn dial(&mut self) -> (Vec<Multiaddr>, bool) {
        let peer = self.victim.id;
        let errors = self.a.dial_errors(peer).len();
        let given = self.a.dial(peer);
        let (a, victim, impostor) = (&mut self.a, &mut self.victim, &mut self.impostor);
        until((&mut *a, &mut *victim, impostor), |(a, ..)| {
            a.is_connected(peer) || a.dial_errors(peer).len() > errors
        })
        .await;
        let success = a.is_connected(peer);
        disconnect(a, victim).await;
        (given, success)
    }
}

async fn a_gossiped_impostor_spoils_no_dial_to_a_proven_peer<N: Alone>() {
    for smart in [false, true] {
        let mut scene = Scene::<N>::new(smart).await;
        let good = with_id(&scene.good, scene.victim.id);
        for minute in 0..10 {
            scene.gossip_for(60);
            let expected = (vec![good.clone()], true);
            assert_eq!(scene.dial().await, expected, "{minute} min, smart: {smart}");
        }
        // It was there all the time, it only never came to be dialled.
        let known = scene.a.info(scene.victim.id, &scene.evil).unwrap();
        assert_eq!(known.standing, Standing::Hearsay);
        // Not what came in there: a port that was free may be dialled by whoever knows it from before.
        assert_eq!((known.successes, known.failures), (0, 0));
        assert_eq!((known.last_success, known.last_failure), (None, None));
    }
}

/// While the victim's own address is in back-off anything may be tried; that is over when the back-off is.
async fn a_gossiped_impostor_gains_nothing_from_a_pause_of_the_proven_peer<N: Alone>() {
    let mut scene = Scene::<N>::new(false).await;
    let (peer, good) = (scene.victim.id, scene.good.clone());
    // Gone for a moment: nobody listens where it was.
    drop(std::mem::replace(&mut scene.victim, silent()));
    scene.victim.id = peer;
    scene.gossip_for(1);
    let errors = scene.a.dial_errors(peer).len();
    assert_eq!(scene.a.dial(peer), [with_id(&good, peer)]);
    until(&mut scene.a, |a| a.dial_errors(peer).len() > errors).await;

    scene.gossip_for(1);
    let errors = scene.a.dial_errors(peer).len();
    assert_eq!(scene.a.dial(peer), [with_id(&scene.evil, peer)]);
    until((&mut scene.a, &mut scene.impostor), |(a, _)| {
        a.dial_errors(peer).len() > errors
    })
    .await;
    // Found out, it is not tried again, however often it is told; the proven one is, once its back-off is over.
    scene.gossip_for(10 * 60);
    assert_eq!(scene.a.addresses(peer), std::slice::from_ref(&good));
    assert_eq!(scene.a.dial(peer), [with_id(&good, peer)]);
    assert!(scene.a.store.refusals().get(Refused::DroppedAddress) >= 4 * 10 * 60);
}

async fn an_impostor_is_found_out_and_stays_out<N: Alone>() {
    let mut a: Node<N> = alone();
    let (mut victim, mut impostor) = (silent(), silent());
    let (good, evil) = (victim.listen().await, impostor.listen().await);
    let peer = victim.id;
    // Nothing is proven yet: whoever answers first is found out by the handshake.
    a.store
        .learned(Source::Kademlia)
        .add(peer, std::slice::from_ref(&evil));
    a.dial(peer);
    until((&mut a, &mut impostor), |(a, _)| {
        !a.dial_errors(peer).is_empty()
    })
    .await;
    assert!(!a.addresses(peer).contains(&evil));

    a.store
        .learned(Source::Kademlia)
        .add(peer, &[evil.clone(), good.clone()]);
    assert_eq!(a.store.refusals().get(Refused::DroppedAddress), 1);
    assert_eq!(a.dial(peer), [with_id(&good, peer)]);
    until((&mut a, &mut victim, &mut impostor), |(a, _, _)| {
        a.is_connected(peer)
    })
    .await;
}
