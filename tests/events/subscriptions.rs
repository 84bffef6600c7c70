//! How events reach their readers: backlog, bounds, wake-ups and the end.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
};

use futures::{Stream, StreamExt, executor::block_on};
use libp2p_identity::PeerId;
use libp2p_peerstore::{Cause, Event, PeerStore, Subscription};

use crate::support::*;

fn poll(subscription: &mut Subscription, waker: &Waker) -> Poll<Option<Told>> {
    let polled = Pin::new(subscription).poll_next(&mut Context::from_waker(waker));
    polled.map(|event| event.map(Told::from))
}

/// Counts how often it is woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Bell {
    fn rung(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// The rest of a subscription that has ended.
fn rest(subscription: Subscription) -> Vec<Told> {
    block_on(subscription.map(Told::from).collect())
}

fn adds(store: &PeerStore, n: u8, port: u16) -> [Told; 2] {
    store.addresses().add(peer(n), ports([port]));
    [
        Told::Added(peer(n)),
        Told::Addresses(peer(n), ports([port]), Cause::User),
    ]
}

#[test]
fn every_subscriber_sees_every_event_from_then_on() {
    let store = store();
    let mut first = store.subscribe();
    let one = adds(&store, 1, 1);
    let mut second = store.subscribe();
    let two = adds(&store, 2, 2);
    assert_eq!(heard(&mut first), [one, two.clone()].concat());
    assert_eq!(heard(&mut second), two);
    // One that is gone changes nothing for the other.
    drop(first);
    let three = adds(&store, 3, 3);
    assert_eq!(heard(&mut second), three);
}

#[test]
fn watch_tells_what_is_known_and_then_each_change() {
    let store = store();
    let rsa = rsa_key().to_peer_id();
    gossip(&store, rsa, &ports([1]));
    identify(&store, rsa, &ports([1, 2]));
    store.protocols().set(rsa, ["/b", "/a"]);
    store.keys().set(rsa, rsa_key()).unwrap();
    store.metadata().set(rsa, "b", "1").unwrap();
    store.metadata().set(rsa, "a", "1").unwrap();
    let mut watch = store.watch(rsa);
    store.addresses().remove(rsa, ports([1]));
    adds(&store, 2, 2);
    store.delete(&rsa);
    let names = |names: [&str; 2]| names.map(str::to_owned).to_vec();
    assert_eq!(
        heard(&mut watch),
        [
            Told::Added(rsa),
            Told::Addresses(rsa, ports([1, 2]), Cause::Datastore),
            Told::Protocols(rsa, names(["/b", "/a"]), Cause::Datastore),
            Told::Key(rsa, true),
            Told::Metadata(rsa, "a".to_owned()),
            Told::Metadata(rsa, "b".to_owned()),
            Told::Addresses(rsa, ports([2]), Cause::User),
            Told::Addresses(rsa, vec![], Cause::User),
            Told::Protocols(rsa, vec![], Cause::User),
            Told::Key(rsa, false),
            Told::Metadata(rsa, "a".to_owned()),
            Told::Metadata(rsa, "b".to_owned()),
            Told::Removed(rsa, Cause::User),
        ]
    );
}

#[test]
fn an_unknown_peer_can_be_watched() {
    let store = store();
    let mut watch = store.watch(peer(1));
    let mut also = store.watch(peer(1));
    assert_eq!(heard(&mut watch), []);
    adds(&store, 2, 2);
    let one = adds(&store, 1, 1);
    assert_eq!(heard(&mut watch), one);
    assert_eq!(heard(&mut also), one);
}

#[test]
fn watch_of_a_peer_without_anything_tells_only_that_it_is_known() {
    let store = store();
    adds(&store, 1, 1);
    store.addresses().remove(peer(1), ports([1]));
    assert_eq!(heard(&mut store.watch(peer(1))), [Told::Added(peer(1))]);
}

/// Peers become known, one event each besides its `PeerAdded`: no event makes another one obsolete.
fn storm(store: &PeerStore, peers: usize) -> Vec<Told> {
    let mut emitted = Vec::new();
    for _ in 0..peers {
        let peer = PeerId::random();
        store.addresses().add(peer, ports([1]));
        emitted.push(Told::Added(peer));
        emitted.push(Told::Addresses(peer, ports([1]), Cause::User));
    }
    emitted
}

#[test]
fn what_a_slow_subscriber_missed_and_what_it_received_is_all_that_was_emitted() {
    for capacity in 1..=9 {
        for peers in 0..=20 {
            let store = store_with(|config| config.with_event_capacity(size(capacity)));
            let mut slow = store.subscribe();
            let emitted = storm(&store, peers);
            let mut received = heard(&mut slow);
            let missed = match received.first() {
                Some(Told::Lagged(missed)) => *missed as usize,
                _ => 0,
            };
            if missed > 0 {
                received.remove(0);
            }
            assert!(received.len() <= capacity);
            assert_eq!(received.len() + missed, emitted.len());
            // What fits is not missed, and what is there is the end of the story.
            assert_eq!(missed > 0, emitted.len() > capacity);
            assert_eq!(received, emitted[missed..]);
        }
    }
}

#[test]
fn a_subscriber_that_keeps_up_again_misses_nothing_more() {
    let store = store_with(|config| config.with_event_capacity(size(8)));
    let mut slow = store.subscribe();
    storm(&store, 100);
    assert!(matches!(slow.try_next(), Some(Event::Lagged(_))));
    heard(&mut slow);
    let next = storm(&store, 4);
    assert_eq!(heard(&mut slow), next);
    // Each lag is told on its own, before what was left of the events then.
    storm(&store, 4);
    let last = slow.try_next().map(Told::from);
    assert!(matches!(last, Some(Told::Added(_))));
    storm(&store, 1);
    assert!(matches!(slow.try_next(), Some(Event::Lagged(2))));
}

#[test]
fn a_slow_subscriber_does_not_hold_up_another() {
    let store = store_with(|config| config.with_event_capacity(size(8)));
    let mut slow = store.subscribe();
    let mut fast = store.subscribe();
    for _ in 0..100 {
        let emitted = storm(&store, 1);
        assert_eq!(heard(&mut fast), emitted);
    }
    assert!(matches!(slow.try_next(), Some(Event::Lagged(_))));
}

#[test]
fn events_that_a_later_one_made_obsolete_are_not_missed() {
    let store = store_with(|config| config.with_event_capacity(size(8)));
    let mut slow = store.subscribe();
    let mut watch = store.watch(peer(1));
    for port in 1..=10_000 {
        store.addresses().set(peer(1), ports([port]));
    }
    let expected = Told::Addresses(peer(1), ports([10_000]), Cause::User);
    for subscription in [&mut slow, &mut watch] {
        let received = heard(subscription);
        assert!(received.len() <= 8);
        assert_eq!(received.first(), Some(&Told::Added(peer(1))));
        assert_eq!(received.last(), Some(&expected));
        assert!(!received.iter().any(|told| matches!(told, Told::Lagged(_))));
    }
}

#[test]
fn received_and_missed_are_what_was_emitted_less_what_became_obsolete() {
    let store = store_with(|config| config.with_event_capacity(size(4)));
    let mut slow = store.subscribe();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let metadata = |key: &str| Told::Metadata(peer(1), key.to_owned());

    adds(&store, 1, 1);
    store.addresses().set(peer(1), ports([2]));
    store.protocols().add(peer(1), ["/a"]);
    // Full. The first of two address events is obsolete by now, then the first of two protocol events.
    store.protocols().add(peer(1), ["/b"]);
    store.metadata().set(peer(1), "a", "1").unwrap();
    // Full again, and nothing is obsolete: the oldest is missed.
    store.metadata().set(peer(1), "b", "1").unwrap();
    let received = heard(&mut slow);
    assert_eq!(
        received,
        [
            Told::Lagged(1),
            Told::Addresses(peer(1), ports([2]), Cause::User),
            Told::Protocols(peer(1), names(&["/a", "/b"]), Cause::User),
            metadata("a"),
            metadata("b"),
        ]
    );
    let (emitted, obsolete, missed) = (7, 2, 1);
    assert_eq!(received.len() - 1 + missed, emitted - obsolete);
}

#[test]
fn a_subscription_ends_at_shutdown_once_what_was_waiting_is_read() {
    let store = store();
    let all = store.subscribe();
    let watch = store.watch(peer(1));
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    let mut idle = store.watch(peer(9));
    assert_eq!(poll(&mut idle, &waker), Poll::Pending);
    let one = adds(&store, 1, 1);

    block_on(store.shutdown()).unwrap();
    assert_eq!(bell.rung(), 1);
    assert_eq!(poll(&mut idle, &waker), Poll::Ready(None));
    // Later changes are told to nobody.
    adds(&store, 2, 2);
    assert_eq!(rest(all), one);
    assert_eq!(rest(watch), one);

    // Who comes later still hears what is known.
    assert_eq!(rest(store.subscribe()), []);
    assert_eq!(
        rest(store.watch(peer(1))),
        [
            Told::Added(peer(1)),
            Told::Addresses(peer(1), ports([1]), Cause::Datastore)
        ]
    );
}

#[test]
fn a_subscription_ends_when_the_last_handle_is_dropped() {
    let store = store();
    let other = store.clone();
    let swarm = Swarm::of(&store);
    let observed = store.observe_with(libp2p_swarm::dummy::Behaviour, |_, _| {});
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    let mut all = store.subscribe();
    let mut watch = store.watch(peer(1));
    let one = adds(&store, 1, 1);
    assert_eq!(heard(&mut watch), one);
    assert_eq!(poll(&mut watch, &waker), Poll::Pending);

    // The behaviour and observers hold a handle each.
    drop(store);
    drop(swarm);
    drop(other);
    assert_eq!(poll(&mut watch, &waker), Poll::Pending);
    assert_eq!(bell.rung(), 0);
    drop(observed);
    assert_eq!(bell.rung(), 1);
    assert_eq!(poll(&mut watch, &waker), Poll::Ready(None));
    assert_eq!(poll(&mut watch, &waker), Poll::Ready(None));
    // What was waiting still comes, though the store is gone.
    assert_eq!(heard(&mut all), one);
    assert_eq!(rest(all), []);
}

#[test]
fn a_waiting_reader_is_woken_once_by_an_event_of_its_peer() {
    let store = store();
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    let mut watch = store.watch(peer(1));
    assert_eq!(poll(&mut watch, &waker), Poll::Pending);
    adds(&store, 2, 2);
    assert_eq!(bell.rung(), 0);
    let one = adds(&store, 1, 1);
    assert_eq!(bell.rung(), 1);
    assert_eq!(poll(&mut watch, &waker), Poll::Ready(Some(one[0].clone())));
    store.protocols().add(peer(1), ["/x"]);
    assert_eq!(bell.rung(), 1);
    heard(&mut watch);
    assert_eq!(poll(&mut watch, &waker), Poll::Pending);

    // Only the task that polled last is woken.
    let later = Arc::new(Bell::default());
    assert_eq!(poll(&mut watch, &Waker::from(later.clone())), Poll::Pending);
    store.protocols().add(peer(1), ["/y"]);
    assert_eq!((bell.rung(), later.rung()), (1, 1));
    // Nobody is woken for a reader that is gone.
    heard(&mut watch);
    assert_eq!(poll(&mut watch, &waker), Poll::Pending);
    drop(watch);
    store.protocols().add(peer(1), ["/z"]);
    assert_eq!(bell.rung(), 1);
}

#[test]
fn a_reader_in_another_thread_hears_everything_until_the_end() {
    let store = store();
    let all = store.subscribe();
    let reader = thread::spawn(|| rest(all));
    let mut emitted = Vec::new();
    for n in 1..=100 {
        emitted.extend(adds(&store, n, u16::from(n)));
    }
    drop(store);
    assert_eq!(reader.join().unwrap(), emitted);
}

/// A waker that uses the store when it is woken and when it is dropped.
struct Busy {
    store: PeerStore,
    woken: AtomicUsize,
}

impl Busy {
    fn of(store: &PeerStore) -> Arc<Self> {
        Arc::new(Self {
            store: store.clone(),
            woken: AtomicUsize::new(0),
        })
    }

    fn use_store(&self, n: u8) {
        assert!(self.store.contains(&peer(1)));
        self.store.addresses().add(peer(n), ports([1]));
        self.store.peers();
        drop(self.store.subscribe());
    }
}

impl Wake for Busy {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::SeqCst);
        self.use_store(100);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.use_store(101);
    }
}

#[test]
fn a_waker_may_use_the_store() {
    finishes(|| {
        let store = store();
        let busy = Busy::of(&store);
        let waker = Waker::from(busy.clone());
        let (mut all, mut watch) = (store.subscribe(), store.watch(peer(1)));
        assert_eq!(poll(&mut all, &waker), Poll::Pending);
        assert_eq!(poll(&mut watch, &waker), Poll::Pending);
        let one = adds(&store, 1, 1);
        assert_eq!(busy.woken.load(Ordering::SeqCst), 2);
        assert_eq!(heard(&mut watch), one);
        assert_eq!(
            heard(&mut all),
            [
                one,
                [
                    Told::Added(peer(100)),
                    Told::Addresses(peer(100), ports([1]), Cause::User)
                ]
            ]
            .concat()
        );
        // At the end too.
        assert_eq!(poll(&mut all, &waker), Poll::Pending);
        block_on(store.shutdown()).unwrap();
        assert_eq!(busy.woken.load(Ordering::SeqCst), 3);
    });
}

#[test]
fn a_waker_may_use_the_store_when_it_is_dropped() {
    finishes(|| {
        let store = store();
        adds(&store, 1, 1);
        let mut all = store.subscribe();
        // Nobody but the subscription holds the first one: the second one takes its place.
        assert_eq!(
            poll(&mut all, &Waker::from(Busy::of(&store))),
            Poll::Pending
        );
        let bell = Arc::new(Bell::default());
        assert_eq!(poll(&mut all, &Waker::from(bell.clone())), Poll::Pending);
        assert!(store.contains(&peer(101)));
        assert_eq!(bell.rung(), 1);
        store.delete(&peer(101));
        heard(&mut all);

        assert_eq!(
            poll(&mut all, &Waker::from(Busy::of(&store))),
            Poll::Pending
        );
        drop(all);
        assert!(store.contains(&peer(101)));
    });
}
