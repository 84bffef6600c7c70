//! What the model found, each as a test of its own.

use std::time::Duration;

use futures::executor::block_on;
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_peerstore::{
    AddressInfo, Config, MemoryDatastore, PeerStore, Refused, Source, Sources, Standing,
};

use super::check::support::*;

const DAY: Duration = Duration::from_secs(86_400);

fn info(store: &PeerStore, peer: PeerId, address: &Multiaddr) -> AddressInfo {
    let infos = store.addresses().infos(&peer).unwrap();
    let info = infos.into_iter().find(|info| info.address == *address);
    info.unwrap()
}

/// A dial by address alone gives a connection whose address has no `/p2p/<peer>`, a dial by peer id one that has. The
/// end of the one ended the use of the address by the other, so that it aged while it was connected.
#[test]
fn an_address_is_in_use_while_any_connection_is_there_in_whatever_form() {
    for forms in [[false, true], [true, false]] {
        let (store, clock) = clocked();
        let mut swarm = Swarm::of(&store);
        for full in forms {
            let address = if full { with_id(at(1), peer(1)) } else { at(1) };
            swarm.dialled(peer(1), address);
        }
        swarm.closed(peer(1));
        assert_eq!(info(&store, peer(1), &at(1)).expires, None);
        clock.advance(400 * DAY);
        assert_eq!(info(&store, peer(1), &at(1)).standing, Standing::Proven);
        swarm.closed(peer(1));
        assert!(info(&store, peer(1), &at(1)).expires.is_some());
    }
}

/// A list of which nothing is fit to be stored changes nothing. One that held only an address of this node itself took
/// all others away, and stored none.
#[test]
fn a_list_of_nothing_but_this_nodes_own_address_changes_nothing() {
    let store = store();
    let mut swarm = Swarm::of(&store);
    swarm.wrong_peer(peer(1), peer(LOCAL), at(9));
    identify(&store, peer(1), &ports([1, 2]));
    assert_eq!(did(identify(&store, peer(1), &ports([9]))), (false, 1));
    assert_eq!(did(store.addresses().set(peer(1), ports([9]))), (false, 1));
    assert_eq!(store.addresses().get(&peer(1)), Some(ports([1, 2])));
    assert_eq!(store.refusals().get(Refused::OwnAddress), 2);
    assert_eq!(store.refusals().total(), 2);
    // Beside others it is left out.
    assert_eq!(did(identify(&store, peer(1), &ports([9, 2]))), (true, 1));
    assert_eq!(store.addresses().get(&peer(1)), Some(ports([2])));
}

/// A peer that has two addresses at one IP address took the places of two others there.
#[test]
fn who_proves_to_be_at_an_ip_address_takes_one_place_there_with_however_many_addresses() {
    let store = store_with(|config| config.with_max_claims_per_ip(size(3)));
    let mut swarm = Swarm::of(&store);
    for n in 1..=3 {
        gossip(&store, peer(n), &ports([1]));
    }
    store.learned(Source::Identify).add(peer(9), &ports([2, 3]));
    swarm.dialled(peer(9), at(4));
    let left = (1..=3).filter(|n| store.contains(&peer(*n))).count();
    assert_eq!(left, 2);
}

/// The address of a connection may be one that is not stored. That was counted as refused once more when the connection
/// ended.
#[test]
fn the_end_of_a_connection_refuses_nothing() {
    let store = store_with(|config| config.with_max_address_len(size(7)));
    let mut swarm = Swarm::of(&store);
    swarm.proved(peer(1), at(1));
    assert_eq!(store.refusals().get(Refused::AddressTooLong), 1);
}

/// That identify left a pinned address out of its list was not written, unless something else was.
#[test]
fn what_the_peer_no_longer_says_of_a_pinned_address_stays_so_after_a_restart() {
    let datastore = MemoryDatastore::default();
    let open = || {
        let store = PeerStore::open(peer(LOCAL), datastore.clone(), Config::default());
        block_on(store).unwrap()
    };
    let store = open();
    store.addresses().pin(peer(1), ports([1]));
    identify(&store, peer(1), &ports([1, 2]));
    block_on(store.flush()).unwrap();
    identify(&store, peer(1), &ports([2]));
    let sources = |store: &PeerStore| info(store, peer(1), &at(1)).sources;
    assert_eq!(sources(&store), Sources::PINNED);
    block_on(store.shutdown()).unwrap();
    drop(store);
    assert_eq!(sources(&open()), Sources::PINNED);
}
