//! What the store offers for a dial.

use libp2p_identity::PeerId;
use libp2p_peerstore::{PeerStore, Source, Standing};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::support::*;

/// The ports of what is offered, each with the id of the peer.
fn offered(swarm: &mut Swarm, peer: PeerId) -> Vec<u16> {
    let port = |address: &Multiaddr| (1..=9).find(|port| with_id(at(*port), peer) == *address);
    let offers = swarm.offers(peer);
    offers.iter().map(|offer| port(offer).unwrap()).collect()
}

fn self_told(store: &PeerStore, peer: PeerId, told: &[Multiaddr]) {
    store.learned(Source::Identify).add(peer, told);
}

#[test]
fn the_best_tier_that_is_not_in_back_off_is_offered_alone() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    let offers = |swarm: &mut Swarm| offered(swarm, peer(1));
    assert!(swarm.offers(peer(1)).is_empty());

    swarm.accepted(peer(1), at(4));
    assert_eq!(offers(&mut swarm), [4]);
    gossip(&store, peer(1), &ports([3]));
    assert_eq!(offers(&mut swarm), [3]);
    // The word of the peer, signed or not, and a pin are one tier.
    store.addresses().pin(peer(1), ports([6]));
    assert_eq!(offers(&mut swarm), [6]);
    self_told(&store, peer(1), &ports([2, 5]));
    store
        .learned(Source::Identify)
        .certify(peer(1), &ports([5]));
    assert_eq!(offers(&mut swarm), [2, 5, 6]);
    swarm.proved(peer(1), at(1));
    assert_eq!(offers(&mut swarm), [1]);

    // Each failure sends it to the next tier.
    for (failed, next) in [
        (vec![1], vec![2, 5, 6]),
        (vec![2, 5], vec![6]),
        (vec![6], vec![3]),
        (vec![3], vec![4]),
    ] {
        swarm.dial_failed(peer(1), ports(failed.clone()));
        swarm.dial_failed(peer(1), ports(failed));
        assert_eq!(offers(&mut swarm), next);
    }
    swarm.dial_failed(peer(1), ports([4]));
    // The longest that two failures can cost, with all chance.
    clock.advance(300 * SECOND);
    assert_eq!(offers(&mut swarm), [1]);
}

#[test]
fn when_all_are_in_back_off_dialling_again_comes_to_each_of_them() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    gossip(&store, peer(1), &ports([1, 2, 3]));
    for port in 1..=3 {
        // Back-offs of half an hour at least.
        for _ in 0..6 {
            swarm.dial_failed(peer(1), ports([port]));
        }
        clock.advance(2 * STEP);
    }
    for port in [1, 2, 3, 1, 2] {
        assert_eq!(offered(&mut swarm, peer(1)), [port]);
        swarm.dial_failed(peer(1), ports([port]));
        clock.advance(2 * STEP);
    }
}

#[test]
fn at_most_four_are_offered_and_half_as_many_beside_a_very_good_one() {
    let store = store();
    let mut swarm = Swarm::of(&store);
    self_told(&store, peer(1), &ports(1..=6));
    assert_eq!(offered(&mut swarm, peer(1)), [1, 2, 3, 4]);
    (1..=6).for_each(|port| swarm.proved(peer(2), at(port)));
    let best = store.addresses().infos(&peer(2)).unwrap().remove(0);
    assert!(best.confidence <= 0.9, "{best:?}");
    assert_eq!(offered(&mut swarm, peer(2)).len(), 4);

    swarm.proved(peer(2), at(5));
    let best = store.addresses().infos(&peer(2)).unwrap().remove(0);
    assert!(best.confidence > 0.9 && best.address == at(5), "{best:?}");
    let offers = offered(&mut swarm, peer(2));
    assert_eq!((offers.len(), offers[0]), (2, 5));
}

#[test]
fn how_many_are_offered_is_the_users_to_say() {
    for (max, of_good, of_very_good) in [(1, 1, 1), (3, 3, 2), (8, 6, 4)] {
        let store = store_with(|config| config.with_max_dial_addresses(size(max)));
        let mut swarm = Swarm::of(&store);
        (1..=6).for_each(|port| swarm.proved(peer(1), at(port)));
        assert_eq!(swarm.offers(peer(1)).len(), of_good);
        swarm.proved(peer(1), at(1));
        assert_eq!(swarm.offers(peer(1)).len(), of_very_good);
    }
}

#[test]
fn an_address_that_failed_is_offered_again_after_its_back_off_which_grows() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    store.addresses().pin(peer(1), ports([1, 2]));
    let mut expected = 2 * MINUTE;
    for failures in 1..=8 {
        swarm.dial_failed(peer(1), ports([1]));
        let failed = info(&store, peer(1), &at(1)).unwrap();
        assert_eq!(failed.failures, failures);
        let back_off = failed.back_off.unwrap();
        // A quarter more or less by chance, and it counts from the step of the failure.
        let range = expected.mul_f64(0.74).saturating_sub(STEP)..=expected.mul_f64(1.26);
        assert!(range.contains(&back_off), "{back_off:?} of {expected:?}");
        assert_eq!(offered(&mut swarm, peer(1)), [2]);
        let seconds = Duration::from_secs(back_off.as_secs());
        clock.advance(seconds);
        assert_eq!(offered(&mut swarm, peer(1)), [2]);
        clock.advance(SECOND);
        assert_eq!(info(&store, peer(1), &at(1)).unwrap().back_off, None);
        // Its failures still count for the order.
        assert_eq!(offered(&mut swarm, peer(1)), [2, 1]);
        expected = (2 * expected).min(HOUR);
    }
    // A success ends it all.
    swarm.dial_failed(peer(1), ports([1]));
    swarm.proved(peer(1), at(1));
    assert_eq!(info(&store, peer(1), &at(1)).unwrap().back_off, None);
    assert_eq!(offered(&mut swarm, peer(1)), [1]);
}

// --- addresses that say nothing ------------------------------------------------------------------------------

/// No route to the host, or to its network.
fn unreachable(swarm: &mut Swarm, peer: PeerId, addresses: Vec<Multiaddr>) {
    for code in [101, 113] {
        let error = move || std::io::Error::from_raw_os_error(code);
        swarm.dial_failed_by(peer, addresses.clone(), error);
    }
}

#[test]
fn a_neighbour_that_has_moved_is_dialled_at_its_new_address_too() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    let [old, new] = ["/ip4/192.168.1.7/tcp/1", "/ip4/192.168.1.8/tcp/1"]
        .map(|address| address.parse::<Multiaddr>().unwrap());
    let other: Multiaddr = "/ip4/192.168.1.9/tcp/1".parse().unwrap();
    swarm.proved(peer(1), old.clone());
    store
        .learned(Source::Mdns)
        .add(peer(1), std::slice::from_ref(&new));
    let both = [&old, &new].map(|address| with_id(address.clone(), peer(1)));
    assert_eq!(swarm.offers(peer(1)), both[..1]);
    unreachable(&mut swarm, peer(1), vec![old.clone()]);
    // That others answer does not show that it would.
    swarm.proved(peer(2), other.clone());
    clock.advance(SECOND);
    swarm.proved(peer(2), other);
    assert_eq!(swarm.offers(peer(1)), both);
    assert_eq!(info(&store, peer(1), &old).unwrap().failures, 0);

    swarm.proved(peer(1), new.clone());
    let first = swarm.offers(peer(1)).remove(0);
    assert_eq!(first, with_id(new, peer(1)));
}

#[test]
fn where_a_family_of_addresses_does_not_work_the_other_one_comes_next() {
    let store = store();
    let mut swarm = Swarm::of(&store);
    let six = |n| format!("/ip6/2001:4860::{n}/tcp/1").parse().unwrap();
    let six: Vec<Multiaddr> = (1..=4).map(six).collect();
    let told: Vec<Multiaddr> = six.iter().cloned().chain([at(4)]).collect();
    identify(&store, peer(1), &told);
    let whole = |told: &[Multiaddr]| -> Vec<_> {
        let whole = told.iter().map(|told| with_id(told.clone(), peer(1)));
        whole.collect()
    };
    assert_eq!(swarm.offers(peer(1)), whole(&six));
    unreachable(&mut swarm, peer(1), six.clone());
    let next = [at(4), six[0].clone(), six[1].clone(), six[2].clone()];
    assert_eq!(swarm.offers(peer(1)), whole(&next));
}

#[test]
fn a_node_without_other_traffic_comes_to_every_address() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    gossip(&store, peer(1), &ports([3]));
    self_told(&store, peer(1), &ports([2]));
    swarm.proved(peer(1), at(1));
    for next in [vec![1], vec![1, 2], vec![1, 3]] {
        assert_eq!(offered(&mut swarm, peer(1)), next);
        swarm.timed_out(peer(1), ports(next));
    }
    // When nothing is left that might answer, the best is as good as any.
    assert_eq!(offered(&mut swarm, peer(1)), [1]);
    clock.advance(HOUR);
    assert_eq!(offered(&mut swarm, peer(1)), [1]);
}

#[test]
fn who_dials_again_seldom_comes_to_every_address_too() {
    for pause in [MINUTE, 5 * MINUTE, 20 * MINUTE, 50 * MINUTE] {
        let (store, clock) = clocked();
        let mut swarm = Swarm::of(&store);
        self_told(&store, peer(1), &ports([2]));
        swarm.proved(peer(1), at(1));
        let mut dials = 0;
        while offered(&mut swarm, peer(1)) == [1] {
            swarm.timed_out(peer(1), ports([1]));
            dials += 1;
            assert!(dials <= 6, "{pause:?}");
            clock.advance(pause);
        }
        assert_eq!(offered(&mut swarm, peer(1)), [1, 2]);
    }
}

#[test]
fn silence_is_forgotten_after_two_minutes_and_with_anything_that_is_heard_of_the_address() {
    let (store, clock) = clocked();
    let mut swarm = Swarm::of(&store);
    let silent = |swarm: &mut Swarm| {
        self_told(&store, peer(1), &ports([2]));
        unreachable(swarm, peer(1), ports([1]));
        assert_eq!(offered(swarm, peer(1)), [1, 2]);
    };
    swarm.proved(peer(1), at(1));
    self_told(&store, peer(1), &ports([2]));
    swarm.timed_out(peer(1), ports([1]));
    clock.advance(2 * MINUTE - SECOND);
    assert_eq!(offered(&mut swarm, peer(1)), [1, 2]);
    clock.advance(SECOND);
    assert_eq!(offered(&mut swarm, peer(1)), [1]);

    silent(&mut swarm);
    swarm.proved(peer(1), at(1));
    assert_eq!(offered(&mut swarm, peer(1)), [1]);
    // A failure that counts is for the back-off.
    silent(&mut swarm);
    swarm.dial_failed(peer(1), ports([1]));
    assert_eq!(offered(&mut swarm, peer(1)), [2]);
    clock.advance(3 * MINUTE);
    assert_eq!(offered(&mut swarm, peer(1)), [1]);
    // Nothing was heard for half an hour: that was an outage, and it is over.
    silent(&mut swarm);
    clock.advance(31 * MINUTE);
    unreachable(&mut swarm, peer(1), ports([1]));
    swarm.proved(peer(2), at(9));
    assert_eq!(offered(&mut swarm, peer(1)), [1]);
}

#[test]
fn beside_what_said_nothing_there_is_room_for_others_however_few_are_offered() {
    for (max, offers) in [
        (1, vec![5]),
        (2, vec![1, 5]),
        (3, vec![1, 5, 6]),
        (4, vec![1, 2, 5, 6]),
    ] {
        let store = store_with(|config| config.with_max_dial_addresses(size(max)));
        let mut swarm = Swarm::of(&store);
        (1..=4).for_each(|port| swarm.proved(peer(1), at(port)));
        self_told(&store, peer(1), &ports([5, 6, 7]));
        unreachable(&mut swarm, peer(1), ports(1..=4));
        let mut expected = offered(&mut swarm, peer(1));
        // All are proven alike.
        expected.sort();
        assert_eq!(expected, offers, "{max}");
    }
}

#[test]
fn what_the_dial_has_already_is_not_offered_twice() {
    use libp2p_core::Endpoint;
    use libp2p_swarm::{ConnectionId, NetworkBehaviour};

    let store = store();
    let mut swarm = Swarm::of(&store);
    self_told(&store, peer(1), &ports([1, 2]));
    let mut beside = |given: &[Multiaddr]| {
        let (id, peer) = (ConnectionId::new_unchecked(1), Some(peer(1)));
        let behaviour = &mut swarm.behaviour;
        behaviour.handle_pending_outbound_connection(id, peer, given, Endpoint::Dialer)
    };
    assert_eq!(beside(&ports([1])).unwrap(), [with_id(at(2), peer(1))]);
    let given = [with_id(at(2), peer(1))];
    assert_eq!(beside(&given).unwrap(), [with_id(at(1), peer(1))]);
}

#[derive(Debug, Clone)]
enum Happening {
    Accepted(u16),
    Gossip(u16),
    SelfTold(u16),
    Pin(u16),
    Proved(u16),
    Failed(u16),
    TimedOut(u16),
    WrongPeer(u16),
    Pass(u32),
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    let port = || 1..9_u16;
    prop_oneof![
        port().prop_map(Accepted),
        port().prop_map(Gossip),
        port().prop_map(SelfTold),
        port().prop_map(Pin),
        port().prop_map(Proved),
        port().prop_map(Failed),
        port().prop_map(TimedOut),
        port().prop_map(WrongPeer),
        (0..20_000_u32).prop_map(Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happened before, unless the proven one said nothing.
    #[test]
    fn an_unproven_address_is_never_offered_beside_a_proven_one_that_answers(happenings in vec(happening(), 1..40)) {
        let (store, clock) = clocked();
        let mut swarm = Swarm::of(&store);
        let mut silent = std::collections::BTreeSet::new();
        for happening in happenings {
            match happening {
                Happening::TimedOut(port) => _ = silent.insert(at(port)),
                Happening::Proved(port) | Happening::Failed(port) => _ = silent.remove(&at(port)),
                _ => {}
            }
            match happening {
                Happening::Accepted(port) => swarm.accepted(peer(1), at(port)),
                Happening::Gossip(port) => _ = gossip(&store, peer(1), &ports([port])),
                Happening::SelfTold(port) => self_told(&store, peer(1), &ports([port])),
                Happening::Pin(port) => _ = store.addresses().pin(peer(1), ports([port])),
                Happening::Proved(port) => swarm.proved(peer(1), at(port)),
                Happening::Failed(port) => swarm.dial_failed(peer(1), ports([port])),
                Happening::TimedOut(port) => swarm.timed_out(peer(1), ports([port])),
                Happening::WrongPeer(port) => swarm.wrong_peer(peer(1), peer(2), at(port)),
                Happening::Pass(seconds) => clock.advance(seconds * SECOND),
            }
            let offers = offered(&mut swarm, peer(1));
            let of = |port: &u16| info(&store, peer(1), &at(*port)).unwrap();
            let offers: Vec<_> = offers.iter().map(of).collect();
            prop_assert!(offers.len() <= 4);
            let proven = |info: &AddressInfo| info.standing == Standing::Proven;
            let answers = |info: &AddressInfo| proven(info) && !silent.contains(&info.address);
            prop_assert!(offers.iter().all(proven) || !offers.iter().any(answers), "{:?}", offers);
            let waiting = offers.iter().filter(|info| info.back_off.is_some()).count();
            prop_assert!(waiting == 0 || offers.len() == 1, "{:?}", offers);
            let infos = store.addresses().infos(&peer(1)).unwrap_or_default();
            if waiting == 1 {
                // Then there is nothing else that one could try, but for those where somebody else was.
                let others = infos.iter().filter(|info| info.back_off.is_none());
                prop_assert!(others.clone().all(|info| info.failures > 0), "{:?}", others.collect::<Vec<_>>());
            }
            let best = offers.iter().map(|info| info.standing).max();
            let untried = infos.iter().find(|info| proven(info) && info.failures == 0);
            prop_assert!(untried.is_none() || best == Some(Standing::Proven), "{:?}", infos);
        }
    }
}
