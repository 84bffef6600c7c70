//! What is promised holds at whatever moment it is asked for: here something happens at each moment at which
//! the engine or a call looks at the clock, which they do before they take the store's lock.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{FutureExt, future::BoxFuture};
use libp2p::PeerId;
use libp2p_peerstore::{Clock, FlushError, ManualClock, PeerStore};
use parking_lot::Mutex;

use crate::support::{Act, Hand, Recording, addr, addrs_key, keys_of};

type Happening = Box<dyn FnOnce() + Send>;

/// A clock at which something happens when it is looked at for the nth time.
#[derive(Clone)]
struct Hooked {
    clock: ManualClock,
    hook: Arc<Mutex<Option<(usize, Happening)>>>,
}

impl Hooked {
    /// Lets `act` happen after so many looks at the clock.
    fn after(&self, looks: usize, act: impl FnOnce() + Send + 'static) {
        *self.hook.lock() = Some((looks, Box::new(act)));
    }

    fn is_armed(&self) -> bool {
        self.hook.lock().is_some()
    }
}

impl Clock for Hooked {
    fn started(&self) -> SystemTime {
        self.clock.started()
    }

    fn elapsed(&self) -> Duration {
        let act = {
            let mut hook = self.hook.lock();
            match hook.take() {
                Some((0, act)) => Some(act),
                later => {
                    *hook = later.map(|(looks, act)| (looks - 1, act));
                    None
                }
            }
        };
        if let Some(act) = act {
            act();
        }
        self.clock.elapsed()
    }

    fn sleep_until(&self, deadline: Duration) -> BoxFuture<'static, ()> {
        self.clock.sleep_until(deadline)
    }
}

/// A call that is started at one moment, and looked at later.
type Call = Arc<Mutex<Option<BoxFuture<'static, Result<(), FlushError>>>>>;

fn start(call: &Call, future: BoxFuture<'static, Result<(), FlushError>>) {
    let mut future = future;
    assert!(
        (&mut future)
            .now_or_never()
            .is_none_or(|done| done.is_err())
    );
    *call.lock() = Some(future);
}

/// What a call came to, if it is over.
fn outcome(call: &Call) -> Option<Result<(), FlushError>> {
    call.lock().take()?.now_or_never()
}

fn touch(store: &PeerStore) -> PeerId {
    let peer = PeerId::random();
    store.addresses().add(peer, [addr(1)]);
    peer
}

/// Runs `test` once for each moment, until there are no more of them. It gets the clock with the number of
/// looks to wait for, and says whether its moment came.
fn at_every_moment(mut test: impl FnMut(usize) -> bool) {
    let moments = (0..).take_while(|looks| test(*looks)).count();
    // Enough of them that the test means something.
    assert!(moments >= 5, "{moments}");
}

fn open(hand: &mut Hand, datastore: &Recording) -> (PeerStore, Hooked) {
    let hooked = Hooked {
        clock: hand.clock.clone(),
        hook: Arc::default(),
    };
    let clock = hooked.clone();
    let store = hand.open_with(datastore.clone(), |config| config.with_clock(clock));
    (store, hooked)
}

#[test]
fn a_shutdown_is_over_only_when_the_datastore_is_closed() {
    at_every_moment(|looks| {
        let (mut hand, datastore) = (Hand::default(), Recording::default());
        let (store, clock) = open(&mut hand, &datastore);
        touch(&store);
        let (call, closing) = (Call::default(), store.clone());
        let started = call.clone();
        clock.after(looks, move || {
            start(&started, async move { closing.shutdown().await }.boxed());
        });
        datastore.hold_closes();
        let flushing = store.clone();
        let flush = hand.start(async move { flushing.flush().await });
        if clock.is_armed() {
            return false;
        }
        let over = call.lock().as_mut().and_then(|call| call.now_or_never());
        assert!(over.is_none(), "after {looks} looks: {over:?}");
        datastore.release();
        hand.settle();
        drop(flush);
        let over = outcome(&call).expect("the call is over");
        assert!(over.is_ok(), "after {looks} looks: {over:?}");
        assert_eq!(datastore.closes(), 1, "after {looks} looks");
        assert_eq!((datastore.memory.len(), store.unsaved()), (1, 0));
        true
    });
}

#[test]
fn a_flush_is_over_only_when_what_came_before_it_is_on_disk() {
    for act in [Act::Succeed, Act::Fail, Act::FailAfterApplying] {
        for closing in [false, true] {
            at_every_moment(|looks| {
                let (mut hand, datastore) = (Hand::default(), Recording::default());
                let (store, clock) = open(&mut hand, &datastore);
                touch(&store);
                datastore.next([act]);
                let (call, late) = (Call::default(), Arc::new(Mutex::new(None)));
                let (started, peer, flushing) = (call.clone(), late.clone(), store.clone());
                clock.after(looks, move || {
                    *peer.lock() = Some(touch(&flushing));
                    start(&started, async move { flushing.flush().await }.boxed());
                });
                let _ = match closing {
                    true => hand.block(store.shutdown()),
                    false => hand.block(store.flush()),
                };
                hand.settle();
                if clock.is_armed() {
                    return false;
                }
                let late = late.lock().take().unwrap();
                let result = outcome(&call).expect("the call is over");
                if result.is_ok() {
                    let keys = keys_of(&datastore.memory);
                    assert!(keys.contains(&addrs_key(&late)), "after {looks} looks");
                }
                if !closing {
                    hand.flush(&store);
                    assert_eq!((datastore.memory.len(), store.unsaved()), (2, 0));
                }
                true
            });
        }
    }
}

#[test]
fn a_change_is_never_marked_clean_by_a_commit_that_does_not_hold_it() {
    at_every_moment(|looks| {
        let (mut hand, datastore) = (Hand::default(), Recording::default());
        let (store, clock) = open(&mut hand, &datastore);
        let peer = touch(&store);
        let changing = store.clone();
        clock.after(looks, move || {
            changing.addresses().add(peer, [addr(2)]);
            changing.metadata().set(peer, "late", "x").unwrap();
        });
        hand.flush(&store);
        if clock.is_armed() {
            return false;
        }
        let is_saved = datastore.memory.len() == 2;
        assert!(is_saved || store.unsaved() == 1, "after {looks} looks");
        hand.flush(&store);
        let again = hand.open(datastore.memory.clone());
        assert_eq!(again.addresses().get(&peer).unwrap().len(), 2);
        assert_eq!(again.metadata().get_value(&peer, "late").unwrap(), b"x");
        true
    });
}

#[test]
fn a_peer_that_goes_or_comes_back_is_on_disk_what_it_is_in_memory() {
    for comes_back in [false, true] {
        for act in [Act::Succeed, Act::Fail, Act::FailAfterApplying] {
            at_every_moment(|looks| {
                let (mut hand, datastore) = (Hand::default(), Recording::default());
                let (store, clock) = open(&mut hand, &datastore);
                let peer = touch(&store);
                store.metadata().set(peer, "old", "x").unwrap();
                datastore.next([act]);
                let changing = store.clone();
                clock.after(looks, move || {
                    changing.delete(&peer);
                    if comes_back {
                        changing.protocols().add(peer, ["/new"]);
                    }
                });
                let _ = hand.block(store.flush());
                hand.settle();
                if clock.is_armed() {
                    return false;
                }
                // The first commit may have had nothing to write, and the failure be still to come.
                let _ = hand.block(store.flush());
                hand.flush(&store);
                assert_eq!(store.unsaved(), 0);
                assert_eq!(datastore.memory.len(), usize::from(comes_back));
                true
            });
        }
    }
}

#[test]
fn the_last_handle_may_go_at_any_moment() {
    at_every_moment(|looks| {
        let (mut hand, datastore) = (Hand::default(), Recording::default());
        let (store, clock) = open(&mut hand, &datastore);
        touch(&store);
        let mut flush = store.flush().boxed_local();
        assert!((&mut flush).now_or_never().is_none());
        drop(flush);
        clock.after(looks, move || drop(store));
        hand.settle();
        hand.advance(Duration::from_secs(60));
        if clock.is_armed() {
            return false;
        }
        assert_eq!((datastore.memory.len(), datastore.closes()), (1, 1));
        assert!(!datastore.is_held(), "after {looks} looks");
        true
    });
}
