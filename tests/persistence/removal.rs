//! What is forgotten goes from the datastore as well, and nothing else goes with it.

use futures::executor::block_on;
use libp2p::PeerId;
use libp2p_peerstore::{Batch, Config, Datastore, MemoryDatastore, PeerStore, PeerStoreBehaviour};

use crate::{
    support::{
        Act, Hand, Recording, addr, addrs_key, b32, deletes, keys_key, keys_of, metadata_key,
        protos_key, puts, sorted,
    },
    swarm::{Gossip, Told, dialled, inbound},
};

fn put(memory: &MemoryDatastore, key: impl AsRef<str>, value: &[u8]) {
    block_on(memory.put(key.as_ref(), value.to_vec())).unwrap();
}

/// Room for three peers.
fn three(config: Config) -> Config {
    config.with_max_peers(3.try_into().unwrap())
}

fn with_all_books(store: &PeerStore) -> PeerId {
    let peer = PeerId::random();
    store.addresses().add(peer, [addr(1)]);
    store.protocols().add(peer, ["/p"]);
    store.metadata().set(peer, "AgentVersion", "x").unwrap();
    peer
}

// --- eviction ----------------------------------------------------------------------------------------------

#[test]
fn an_evicted_peer_goes_in_the_batch_that_writes_its_successor() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open_with(datastore.clone(), three);
    let old: Vec<PeerId> = (0..3).map(|_| with_all_books(&store)).collect();
    hand.flush(&store);
    assert_eq!(datastore.take_commit().len(), 9);

    let new = PeerId::random();
    store.learn(&Told(new, addr(1)));
    let evicted = old.iter().find(|peer| !store.contains(peer)).unwrap();
    hand.flush(&store);
    let batch = datastore.take_commit();
    assert_eq!(puts(&batch), [addrs_key(&new)]);
    let gone = [
        addrs_key(evicted),
        keys_key(evicted),
        metadata_key(evicted, "AgentVersion"),
        protos_key(evicted),
    ];
    assert_eq!(deletes(&batch), sorted(gone));
    assert_eq!(datastore.memory.len(), 7);
}

#[test]
fn a_peer_that_was_never_saved_costs_no_delete() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open_with(datastore.clone(), three);
    // A hundred come and go before the commit; none waits for it but the last three.
    for port in 1..=100 {
        store.learn(&Gossip(PeerId::random(), addr(port)));
    }
    assert_eq!((store.len(), store.unsaved()), (3, 3));
    hand.flush(&store);
    let batch = datastore.take_commit();
    assert_eq!(puts(&batch), sorted(store.peer_ids().iter().map(addrs_key)));
    assert_eq!(deletes(&batch), Vec::<String>::new());
    assert_eq!(datastore.queries(), ["/peers/"]);
}

#[test]
fn an_inbound_peer_that_goes_costs_no_delete() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let mut behaviour = PeerStoreBehaviour::new(store.clone()).unwrap();
    let stranger = PeerId::random();
    inbound(&mut behaviour, stranger, &addr(50_001));
    store.addresses().delete(&stranger);
    hand.flush(&store);
    assert_eq!(datastore.started(), 0);
}

#[test]
fn the_file_does_not_grow_with_gossip() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open_with(datastore.clone(), three);
    for _ in 0..200 {
        store.learn(&Gossip(PeerId::random(), addr(1)));
        store.learn(&Gossip(PeerId::random(), addr(2)));
        hand.flush(&store);
        assert!(datastore.memory.len() <= 3);
    }
    assert_eq!(
        keys_of(&datastore.memory),
        sorted(store.peer_ids().iter().map(addrs_key))
    );
}

#[test]
fn a_peer_that_is_evicted_while_it_is_written_goes_all_the_same() {
    for act in [Act::Succeed, Act::Fail, Act::FailAfterApplying] {
        let (mut hand, datastore) = (Hand::default(), Recording::default());
        let store = hand.open_with(datastore.clone(), three);
        for _ in 0..3 {
            with_all_books(&store);
        }
        datastore.hold_commits();
        datastore.next([act]);
        let flushing = store.clone();
        let flush = hand.start(async move { flushing.flush().await });
        assert_eq!(datastore.in_flight(), 1);
        for _ in 0..3 {
            store.learn(&Told(PeerId::random(), addr(1)));
        }
        datastore.release();
        hand.settle();
        drop(flush);
        let _ = hand.block(store.flush());
        hand.flush(&store);
        assert_eq!(
            keys_of(&datastore.memory),
            sorted(store.peer_ids().iter().map(addrs_key))
        );
    }
}

#[test]
fn a_withdrawn_peer_goes_from_the_datastore() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let peer = PeerId::random();
    store.learn(&Gossip(peer, addr(1)));
    hand.flush(&store);
    assert_eq!(datastore.memory.len(), 1);
    let mut learned = store.learned(libp2p_peerstore::Source::Kademlia);
    assert!(learned.withdraw(peer, None).changed);
    assert!(!store.contains(&peer));
    hand.flush(&store);
    assert!(datastore.memory.is_empty());
}

// --- delete ------------------------------------------------------------------------------------------------

#[test]
fn delete_removes_every_key_of_the_peer_and_of_no_other() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let (gone, stays) = (with_all_books(&store), with_all_books(&store));
    hand.flush(&store);
    datastore.take_commit();

    assert!(store.delete(&gone));
    hand.flush(&store);
    let batch = datastore.take_commit();
    assert_eq!(puts(&batch), Vec::<String>::new());
    let left = [
        addrs_key(&stays),
        protos_key(&stays),
        metadata_key(&stays, "AgentVersion"),
    ];
    assert_eq!(keys_of(&datastore.memory), sorted(left));
    let again = hand.open(datastore.memory.clone());
    assert_eq!(again.peer_ids(), [stays]);
}

#[test]
fn delete_reaches_what_an_earlier_run_left_and_what_cannot_be_decoded() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let peer = PeerId::random();
    put(&memory, addrs_key(&peer), &[0xff]);
    put(&memory, protos_key(&peer), &[0x0a, 0xff]);
    put(&memory, keys_key(&peer), b"not a key");
    put(&memory, metadata_key(&peer, "old"), b"x");
    put(&memory, metadata_key(&peer, "old/er"), b"x");
    put(&memory, metadata_key(&peer, "huge"), &[0; 10_000]);
    let store = hand.open(memory.clone());
    let report = store.load_report();
    assert_eq!(
        (report.undecodable, report.refused, report.peers),
        (3, 1, 1)
    );

    assert!(store.delete(&peer));
    hand.flush(&store);
    assert_eq!(keys_of(&memory), Vec::<String>::new());
}

#[test]
fn delete_of_a_peer_that_is_not_in_memory_reaches_the_datastore_as_well() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let peer = PeerId::random();
    put(&memory, addrs_key(&peer), &[0xff]);
    put(&memory, keys_key(&peer), b"not a key");
    let store = hand.open(memory.clone());
    assert!(!store.contains(&peer));
    assert!(!store.delete(&peer));
    hand.flush(&store);
    assert!(memory.is_empty());
}

#[test]
fn delete_of_foo_does_not_touch_foobar() {
    let (mut hand, memory) = (Hand::default(), MemoryDatastore::default());
    let peer = PeerId::random();
    // Keys that only begin like those of the peer.
    let near = [
        format!("{}x", addrs_key(&peer)),
        format!("{}/x", addrs_key(&peer)),
        format!("/peers/metadata/{}", b32(&peer)),
        format!("/peers/metadata/{}x/note", b32(&peer)),
        format!("/peers/metadata/{}/note", b32(&peer).to_uppercase()),
        "/other".to_owned(),
    ];
    for key in &near {
        put(&memory, key, b"x");
    }
    let store = hand.open(memory.clone());
    for name in ["foo", "foobar", "foo/bar", "fo"] {
        store.metadata().set(peer, name, name).unwrap();
    }
    hand.flush(&store);
    assert!(store.metadata().delete_value(&peer, "foo"));
    hand.flush(&store);
    let again = hand.open(memory.clone());
    let left: Vec<String> = again.metadata().get(&peer).unwrap().into_keys().collect();
    assert_eq!(left, ["fo", "foo/bar", "foobar"]);

    store.delete(&peer);
    hand.flush(&store);
    assert_eq!(keys_of(&memory), sorted(near));
}

/// A datastore that takes a prefix for the whole of the path may answer more than was asked for.
#[test]
fn delete_does_not_trust_the_answer_of_a_query() {
    struct All(Recording);
    impl Datastore for All {
        fn get<'a>(
            &'a self,
            key: &'a str,
        ) -> futures::future::BoxFuture<'a, Result<Option<Vec<u8>>, libp2p_peerstore::DatastoreError>>
        {
            self.0.get(key)
        }
        fn query<'a>(
            &'a self,
            _: &'a str,
        ) -> futures::stream::BoxStream<
            'a,
            Result<libp2p_peerstore::KeyValue, libp2p_peerstore::DatastoreError>,
        > {
            self.0.query("/")
        }
        fn commit(
            &self,
            batch: Batch,
        ) -> futures::future::BoxFuture<'_, Result<(), libp2p_peerstore::DatastoreError>> {
            self.0.commit(batch)
        }
    }
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(All(datastore.clone()));
    let (gone, stays) = (with_all_books(&store), with_all_books(&store));
    hand.flush(&store);
    store.delete(&gone);
    hand.flush(&store);
    assert_eq!(hand.open(datastore.memory.clone()).peer_ids(), [stays]);
    assert_eq!(datastore.memory.len(), 3);
}

#[test]
fn a_peer_that_is_deleted_and_added_again_is_on_disk_what_it_is_in_memory() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let peer = with_all_books(&store);
    store.metadata().set(peer, "old", "x").unwrap();
    hand.flush(&store);
    datastore.take_commit();

    store.delete(&peer);
    store.addresses().add(peer, [addr(2)]);
    store.metadata().set(peer, "new", "x").unwrap();
    hand.flush(&store);
    let batch = datastore.take_commit();
    assert_eq!(
        puts(&batch),
        sorted([addrs_key(&peer), metadata_key(&peer, "new")])
    );
    let again = hand.open(datastore.memory.clone());
    let peer_again = again.get(&peer).unwrap();
    assert_eq!(again.addresses().get(&peer).unwrap(), [addr(2)]);
    assert!(peer_again.protocols.is_empty());
    assert_eq!(peer_again.metadata.into_keys().collect::<Vec<_>>(), ["new"]);
    assert_eq!(datastore.memory.len(), 2);
}

#[test]
fn a_peer_that_is_added_and_deleted_leaves_nothing() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let peer = with_all_books(&store);
    store.delete(&peer);
    hand.flush(&store);
    assert_eq!(puts(&datastore.take_commit()), Vec::<String>::new());
    assert!(datastore.memory.is_empty());
}

#[test]
fn a_peer_whose_last_book_is_emptied_is_gone_after_a_restart() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let mut behaviour = PeerStoreBehaviour::new(store.clone()).unwrap();
    let (gone, connected) = (PeerId::random(), PeerId::random());
    store.addresses().add(gone, [addr(1)]);
    dialled(&mut behaviour, connected, &addr(1));
    hand.flush(&store);
    assert_eq!(datastore.memory.len(), 2);
    assert!(store.addresses().delete(&gone) && store.addresses().delete(&connected));
    assert_eq!(store.peer_ids(), [connected]);
    hand.flush(&store);
    assert!(datastore.memory.is_empty());
}

#[test]
fn a_delete_that_could_not_be_saved_is_not_forgotten() {
    let (mut hand, datastore) = (Hand::default(), Recording::default());
    let store = hand.open(datastore.clone());
    let peer = with_all_books(&store);
    hand.flush(&store);
    datastore.next([Act::Fail, Act::Panic]);
    store.delete(&peer);
    for _ in 0..2 {
        hand.block(store.flush()).unwrap_err();
    }
    hand.flush(&store);
    assert!(datastore.memory.is_empty());
}
