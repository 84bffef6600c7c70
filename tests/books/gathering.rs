//! Who brings an address in, who takes it away, and who cannot bring it back.

use std::time::Duration;

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_peerstore::{Cause, Learned, PeerStore, Refused, Source, Sources, Standing, Teach};

use crate::support::*;

/// Events of a discovery protocol, one type for each source.
macro_rules! heard_from {
    ($($event:ident: $source:expr),*) => {
        $(
            struct $event(PeerId, Vec<Multiaddr>);
            impl Teach for $event {
                const SOURCE: Source = $source;
                fn teach(&self, learned: &mut Learned<'_>) {
                    learned.add(self.0, &self.1);
                }
            }
        )*
    };
}

heard_from!(
    FromIdentify: Source::Identify,
    FromKademlia: Source::Kademlia,
    FromRendezvous: Source::Rendezvous,
    FromMdns: Source::Mdns,
    FromElsewhere: Source::Discovery
);

/// An event type that does not name its source.
struct FromNowhere(PeerId, Vec<Multiaddr>);

impl Teach for FromNowhere {
    fn teach(&self, learned: &mut Learned<'_>) {
        learned.add(self.0, &self.1);
    }
}

fn sources(store: &PeerStore, n: u8) -> Sources {
    store.addresses().infos(&peer(n)).unwrap()[0].sources
}

fn known(store: &PeerStore, n: u8) -> Vec<Multiaddr> {
    sorted(store.addresses().get(&peer(n)).unwrap_or_default())
}

#[test]
fn the_store_learns_from_an_event_under_its_source() {
    let store = store();
    store.learn(&FromIdentify(peer(1), ports([1])));
    store.learn(&FromKademlia(peer(2), ports([1])));
    store.learn(&FromRendezvous(peer(3), ports([1])));
    store.learn(&FromMdns(peer(4), ports([1])));
    store.learn(&FromElsewhere(peer(5), ports([1])));
    store.learn(&FromNowhere(peer(6), ports([1])));
    let found: Vec<Sources> = (1..=6).map(|n| sources(&store, n)).collect();
    assert_eq!(
        found,
        [
            Sources::IDENTIFY,
            Sources::KADEMLIA,
            Sources::RENDEZVOUS,
            Sources::MDNS,
            Sources::DISCOVERY,
            Sources::DISCOVERY,
        ]
    );
    // Another source of a known address is remembered, and changes nothing else.
    let mut events = store.subscribe();
    store.learn(&FromMdns(peer(2), ports([1])));
    assert_eq!(sources(&store, 2), Sources::KADEMLIA | Sources::MDNS);
    assert_eq!(heard(&mut events), []);
}

#[test]
fn what_the_user_took_away_does_not_come_back_by_hearsay() {
    let store = store();
    store.addresses().add(peer(1), ports([1, 2]));
    store.addresses().remove(peer(1), ports([1]));
    let mut events = store.subscribe();
    store.learn(&FromKademlia(peer(1), ports([1])));
    store.learn(&FromRendezvous(peer(1), ports([1])));
    store.learn(&FromMdns(peer(1), vec![with_id(at(1), peer(1))]));
    store.learn(&FromElsewhere(peer(1), ports([1])));
    Swarm::of(&store).found(peer(1), &at(1));
    assert_eq!(known(&store, 1), ports([2]));
    assert_eq!(heard(&mut events), []);
    assert_eq!(store.refusals().get(Refused::DroppedAddress), 5);
    assert_eq!(store.refusals().total(), 5);

    // What comes along with it is stored.
    let told = gossip(&store, peer(1), &ports([1, 3]));
    assert_eq!(did(told), (true, 1));
    assert_eq!(known(&store, 1), ports([2, 3]));
}

#[test]
fn what_a_set_of_the_user_left_out_does_not_come_back_by_hearsay() {
    let store = store();
    store.addresses().set(peer(1), ports([1, 2]));
    store.addresses().set(peer(1), ports([2]));
    assert_eq!(did(gossip(&store, peer(1), &ports([1]))), (false, 1));
    assert_eq!(known(&store, 1), ports([2]));
}

#[test]
fn what_the_peer_dropped_does_not_come_back_by_hearsay() {
    let store = store();
    gossip(&store, peer(1), &ports([1, 2]));
    assert_eq!(did(identify(&store, peer(1), &ports([2, 3]))), (true, 0));
    assert_eq!(known(&store, 1), ports([2, 3]));
    assert_eq!(did(gossip(&store, peer(1), &ports([1, 2]))), (false, 1));
    assert_eq!(known(&store, 1), ports([2, 3]));
}

#[test]
fn a_dropped_address_comes_back_by_the_peer_itself() {
    let store = store();
    identify(&store, peer(1), &ports([1, 2]));
    identify(&store, peer(1), &ports([2]));
    store.learn(&FromIdentify(peer(1), ports([1])));
    assert_eq!(known(&store, 1), ports([1, 2]));
    // It is dropped no longer: hearsay is heard of it again.
    assert_eq!(did(gossip(&store, peer(1), &ports([1]))), (false, 0));
    assert_eq!(store.refusals().total(), 0);

    identify(&store, peer(1), &ports([2]));
    identify(&store, peer(1), &ports([1, 2]));
    assert_eq!(known(&store, 1), ports([1, 2]));
}

#[test]
fn a_dropped_address_comes_back_by_the_user() {
    let store = store();
    let book = store.addresses();
    for bring_back in ["add", "set", "pin"] {
        book.set(peer(1), ports([1, 2]));
        book.remove(peer(1), ports([1]));
        let written = match bring_back {
            "add" => book.add(peer(1), ports([1])),
            "set" => book.set(peer(1), ports([1, 2])),
            _ => book.pin(peer(1), ports([1])),
        };
        assert_eq!(did(written), (true, 0), "{bring_back}");
        assert_eq!(known(&store, 1), ports([1, 2]), "{bring_back}");
    }
}

#[test]
fn a_dropped_address_comes_back_by_a_verified_dial() {
    let store = store();
    identify(&store, peer(1), &ports([1, 2]));
    identify(&store, peer(1), &ports([2]));
    Swarm::of(&store).dialled(peer(1), at(1));
    assert_eq!(known(&store, 1), ports([1, 2]));
    assert_eq!(did(gossip(&store, peer(1), &ports([1]))), (false, 0));
}

#[test]
fn a_dropped_address_is_forgotten_after_the_lifetime_of_hearsay() {
    let lifetime = Duration::from_secs(100);
    let (store, clock) = clocked_with(|config| config.with_hearsay_lifetime(lifetime));
    store.addresses().set(peer(1), ports([1, 2]));
    store.addresses().remove(peer(1), ports([1]));
    clock.advance(lifetime - Duration::from_secs(1));
    assert_eq!(did(gossip(&store, peer(1), &ports([1]))), (false, 1));
    clock.advance(Duration::from_secs(1));
    assert_eq!(did(gossip(&store, peer(1), &ports([1]))), (true, 0));
}

#[test]
fn a_list_without_the_dropped_address_drops_it_for_as_long_again() {
    let lifetime = Duration::from_secs(100);
    let (store, clock) = clocked_with(|config| config.with_hearsay_lifetime(lifetime));
    identify(&store, peer(1), &ports([1, 2]));
    identify(&store, peer(1), &ports([2]));
    clock.advance(lifetime - Duration::from_secs(1));
    assert_eq!(did(identify(&store, peer(1), &ports([2]))), (false, 0));
    clock.advance(lifetime - Duration::from_secs(1));
    assert_eq!(did(gossip(&store, peer(1), &ports([1]))), (false, 1));
    clock.advance(Duration::from_secs(1));
    assert_eq!(did(gossip(&store, peer(1), &ports([1]))), (true, 0));
}

#[test]
fn dropped_addresses_are_remembered_up_to_a_bound() {
    let store = store_with(|config| config.with_max_addresses_per_peer(size(64)));
    store.addresses().add(peer(1), ports(1..=34));
    store.addresses().remove(peer(1), ports(1..=33));
    // The one that was dropped first is forgotten first.
    assert_eq!(did(gossip(&store, peer(1), &ports(1..=33))), (true, 32));
    assert_eq!(known(&store, 1), sorted(ports([1, 34])));
}

#[test]
fn the_claim_of_a_source_can_be_withdrawn() {
    for source in [Source::Mdns, Source::Rendezvous] {
        let store = store();
        let mut learned = store.learned(source);
        learned.add(peer(1), &ports([1, 2, 3]));
        gossip(&store, peer(1), &ports([2]));
        let mut events = store.subscribe();

        // What somebody else told too, stays, and is no event.
        let gone = learned.withdraw(peer(1), Some(&ports([2])));
        assert_eq!(did(gone), (false, 0));
        assert_eq!(heard(&mut events), []);
        // What was not told by this source is not its to withdraw.
        let gone = learned.withdraw(peer(1), Some(&ports([2, 9])));
        assert_eq!(did(gone), (false, 0));
        let gone = learned.withdraw(peer(1), Some(&[with_id(at(1), peer(1))]));
        assert_eq!(did(gone), (true, 0));
        assert_eq!(known(&store, 1), ports([2, 3]));
        // All of its claims at once.
        assert_eq!(did(learned.withdraw(peer(1), None)), (true, 0));
        assert_eq!(known(&store, 1), ports([2]));
        assert_eq!(
            heard(&mut events),
            [
                Told::Addresses(peer(1), ports([2, 3]), Cause::Expired),
                Told::Addresses(peer(1), ports([2]), Cause::Expired),
            ]
        );
        // It was withdrawn, not dropped: it may be found again.
        assert_eq!(did(gossip(&store, peer(1), &ports([1]))), (true, 0));
    }
}

#[test]
fn a_peer_whose_only_claim_is_withdrawn_is_no_longer_known() {
    let store = store();
    store.learn(&FromMdns(peer(1), ports([1])));
    store.learn(&FromMdns(peer(2), ports([1])));
    store.protocols().add(peer(2), ["/x"]);
    for n in [1, 2, 3] {
        store.learned(Source::Mdns).withdraw(peer(n), None);
    }
    assert_eq!(store.peer_ids(), [peer(2)]);
    assert_eq!(known(&store, 2), []);
}

#[test]
fn a_withdrawn_claim_leaves_what_was_proven_or_told_by_the_user() {
    let store = store();
    let mut swarm = Swarm::of(&store);
    store.learn(&FromMdns(peer(1), ports([1, 2, 3])));
    swarm.proved(peer(1), at(1));
    store.addresses().add(peer(1), ports([2]));
    let gone = store.learned(Source::Mdns).withdraw(peer(1), None);
    assert_eq!(did(gone), (true, 0));
    assert_eq!(known(&store, 1), ports([1, 2]));
}

#[test]
fn identify_replaces_proven_addresses_unless_told_to_keep_them() {
    for keep in [false, true] {
        let store = store_with(|config| config.with_keep_proven_on_replace(keep));
        let mut swarm = Swarm::of(&store);
        swarm.proved(peer(1), at(1));
        swarm.proved(peer(1), at(2));
        gossip(&store, peer(1), &ports([3]));
        identify(&store, peer(1), &ports([2, 4]));
        let expected: &[u16] = if keep { &[1, 2, 4] } else { &[2, 4] };
        assert_eq!(known(&store, 1), ports(expected.iter().copied()));
        // What remains keeps its proof.
        let infos = store.addresses().infos(&peer(1)).unwrap();
        let second = infos.iter().find(|info| info.address == at(2)).unwrap();
        assert_eq!(second.standing, Standing::Proven);
        assert_eq!(second.sources, Sources::DIALLED | Sources::IDENTIFY);
    }
}

#[test]
fn an_empty_list_of_the_peer_leaves_its_addresses() {
    let store = store();
    gossip(&store, peer(1), &ports([1]));
    assert_eq!(did(identify(&store, peer(1), &[])), (false, 0));
    assert_eq!(known(&store, 1), ports([1]));
    assert_eq!(did(identify(&store, peer(2), &[])), (false, 0));
    assert!(!store.contains(&peer(2)));
}

#[test]
fn an_inbound_address_is_stored_only_while_nothing_better_is_known() {
    let store = store();
    let mut swarm = Swarm::of(&store);
    swarm.accepted(peer(1), at(50001));
    swarm.accepted(peer(1), at(50002));
    assert_eq!(known(&store, 1), ports([50001, 50002]));
    assert_eq!(swarm.offers(peer(1)).len(), 2);
    let infos = store.addresses().infos(&peer(1)).unwrap();
    assert!(infos.iter().all(|info| info.standing == Standing::Inbound));
    assert!(infos.iter().all(|info| info.sources == Sources::INBOUND));

    // Beside anything better it is not offered, and no further one is stored.
    gossip(&store, peer(1), &ports([1]));
    assert_eq!(swarm.offers(peer(1)), [with_id(at(1), peer(1))]);
    swarm.accepted(peer(1), at(50003));
    assert_eq!(known(&store, 1), ports([1, 50001, 50002]));
    // It is the first thing that identify replaces.
    identify(&store, peer(1), &ports([2]));
    assert_eq!(known(&store, 1), ports([2]));
    swarm.accepted(peer(1), at(50001));
    assert_eq!(known(&store, 1), ports([2]));
}

#[test]
fn a_signed_record_certifies_what_is_known_and_adds_nothing() {
    let store = store();
    let mut learned = store.learned(Source::Identify);
    assert_eq!(did(learned.certify(peer(1), &ports([1]))), (false, 0));
    assert!(!store.contains(&peer(1)));
    gossip(&store, peer(1), &ports([1, 2]));
    learned.certify(peer(1), &[with_id(at(2), peer(1)), at(3)]);
    let infos = store.addresses().infos(&peer(1)).unwrap();
    let certified: Vec<_> = infos
        .iter()
        .map(|info| (info.address.clone(), info.is_certified(), info.standing))
        .collect();
    assert_eq!(
        certified,
        [
            (at(2), true, Standing::SelfTold),
            (at(1), false, Standing::Hearsay)
        ]
    );
}

#[test]
fn bad_addresses_among_what_is_learnt_are_counted_and_the_others_stored() {
    let store = store();
    let told = [at(1), with_id(at(2), peer(2)), Multiaddr::empty(), at(3)];
    assert_eq!(did(gossip(&store, peer(1), &told)), (true, 2));
    assert_eq!(known(&store, 1), ports([1, 3]));
    assert_eq!(did(identify(&store, peer(1), &told[1..])), (true, 2));
    assert_eq!(known(&store, 1), ports([3]));
    assert_eq!(store.refusals().get(Refused::ForeignPeerId), 2);
    assert_eq!(store.refusals().get(Refused::EmptyAddress), 2);
}
