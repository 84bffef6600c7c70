//! The key book.

use libp2p_identity::{Keypair, PeerId};
use libp2p_peerstore::{Refused, Source};

use crate::support::*;

#[test]
fn a_key_that_the_peer_id_contains_is_answered_from_it_and_not_stored() {
    let inlined = [
        Keypair::generate_ed25519().public(),
        Keypair::generate_secp256k1().public(),
    ];
    for key in inlined {
        let (store, id) = (store(), key.to_peer_id());
        let mut events = store.subscribe();
        assert_eq!(store.keys().get(&id), Some(key.clone()));
        assert_eq!(store.keys().set(id, key.clone()), Ok(false));
        assert!(!store.contains(&id));
        assert!(!store.keys().delete(&id));
        assert_eq!(store.keys().get(&id), Some(key.clone()));
        assert_eq!(heard(&mut events), []);

        // A known peer shows it too.
        store.addresses().add(id, ports([1]));
        assert_eq!(store.get(&id).unwrap().public_key, Some(key));
    }
}

#[test]
fn a_key_that_the_peer_id_only_hashes_is_stored() {
    for key in [rsa_key(), Keypair::generate_ecdsa().public()] {
        let (store, id) = (store(), key.to_peer_id());
        assert_eq!(store.keys().get(&id), None);
        assert_eq!(store.keys().set(id, key.clone()), Ok(true));
        assert_eq!(store.keys().get(&id), Some(key.clone()));
        assert_eq!(store.get(&id).unwrap().public_key, Some(key.clone()));
        // A second one can only be equal.
        assert_eq!(store.keys().set(id, key), Ok(false));
    }
}

#[test]
fn a_peer_id_that_looks_like_a_key_and_is_none_has_no_key() {
    let (store, id) = (store(), PeerId::random());
    assert_eq!(store.keys().get(&id), None);
    assert_eq!(store.keys().set(id, key(1)), Err(Refused::KeyMismatch));
    store.addresses().add(id, ports([1]));
    assert_eq!(store.get(&id).unwrap().public_key, None);
}

#[test]
fn a_key_that_does_not_hash_to_the_peer_id_is_refused() {
    let store = store();
    let rsa = rsa_key().to_peer_id();
    let book = store.keys();
    assert_eq!(book.set(peer(1), key(2)), Err(Refused::KeyMismatch));
    assert_eq!(book.set(rsa, key(1)), Err(Refused::KeyMismatch));
    assert_eq!(book.set(peer(1), rsa_key()), Err(Refused::KeyMismatch));
    assert!(store.is_empty());
    assert_eq!(store.refusals().get(Refused::KeyMismatch), 3);

    // Neither does it overwrite the right one.
    book.set(rsa, rsa_key()).unwrap();
    assert_eq!(book.set(rsa, key(1)), Err(Refused::KeyMismatch));
    assert_eq!(book.get(&rsa), Some(rsa_key()));
}

#[test]
fn delete_tells_whether_a_key_was_stored() {
    let store = store();
    let rsa = rsa_key().to_peer_id();
    assert!(!store.keys().delete(&rsa));
    store.keys().set(rsa, rsa_key()).unwrap();
    assert!(store.keys().delete(&rsa));
    assert!(!store.keys().delete(&rsa));
    assert_eq!(store.keys().get(&rsa), None);
    assert!(!store.contains(&rsa));

    store.keys().set(rsa, rsa_key()).unwrap();
    store.addresses().add(rsa, ports([1]));
    assert!(store.keys().delete(&rsa));
    assert_eq!(store.get(&rsa).unwrap().public_key, None);
    assert_eq!(store.addresses().get(&rsa), Some(ports([1])));
}

#[test]
fn a_learnt_key_is_checked_like_any_other() {
    let store = store();
    let rsa = rsa_key().to_peer_id();
    let mut learned = store.learned(Source::Identify);
    assert_eq!(did(learned.public_key(rsa, &key(1))), (false, 1));
    assert_eq!(did(learned.public_key(rsa, &rsa_key())), (true, 0));
    assert_eq!(did(learned.public_key(rsa, &rsa_key())), (false, 0));
    assert_eq!(did(learned.public_key(peer(1), &key(1))), (false, 0));
    assert_eq!(store.keys().get(&rsa), Some(rsa_key()));
    assert_eq!(store.len(), 1);
}
