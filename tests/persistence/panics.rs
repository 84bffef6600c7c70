//! Tasks that panic as they are woken by the engine: that is their end, and not that of saving.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use futures::{Stream, executor::block_on};
use libp2p::PeerId;
use libp2p_peerstore::{Config, FlushError, PeerStore};

use crate::support::{Act, Recording, addr};

struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        panic!("as ordered");
    }
}

fn open(datastore: &Recording) -> PeerStore {
    let open = PeerStore::open(PeerId::random(), datastore.clone(), Config::default());
    let store = block_on(open).unwrap();
    store.addresses().add(PeerId::random(), [addr(1)]);
    store
}

#[test]
fn a_reader_that_panics_when_it_is_told_of_a_failure_does_not_end_saving() {
    let datastore = Recording::default();
    let store = open(&datastore);
    let mut events = pin!(store.subscribe());
    let waker = Waker::from(Arc::new(Bomb));
    let polled = events.as_mut().poll_next(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    datastore.next([Act::Fail]);
    let failed = block_on(store.flush());
    assert!(
        matches!(failed, Err(FlushError::Failed { .. })),
        "{failed:?}"
    );
    block_on(store.flush()).unwrap();
    block_on(store.shutdown()).unwrap();
    assert_eq!(datastore.memory.len(), 1);
}

#[test]
fn a_flush_whose_task_panics_when_it_is_answered_does_not_end_saving() {
    let datastore = Recording::default();
    let store = open(&datastore);
    datastore.hold_commits();
    let mut flush = Box::pin(store.flush());
    let waker = Waker::from(Arc::new(Bomb));
    let polled = flush.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(matches!(polled, Poll::Pending));
    datastore.release();
    block_on(datastore.commits_done(1));
    store.addresses().add(PeerId::random(), [addr(1)]);
    block_on(store.flush()).unwrap();
    drop(flush);
    block_on(store.shutdown()).unwrap();
    assert_eq!(datastore.memory.len(), 2);
}
