//! What the store tells, and how it reaches people: bounded queues that a slow reader cannot grow.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    fmt, mem,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::Stream;
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_swarm::StreamProtocol;

use crate::{
    book::Tag, datastore::DatastoreError, escape::EscapedList, inner::Inner, metrics::Tally,
    sync::Mutex,
};

/// Something changed in the store.
///
/// Only a real difference is an event: a repeat of what is known is none, and neither is what was loaded from
/// the datastore. A copy of the books can be kept from events alone: [`PeerStore::peers`] once, then each
/// event; after [`Event::Lagged`] once more from the start. No event says that something is on disk; what is
/// promised there is said at [`PeerStore::flush`].
///
/// What is known *about* an address is no event either when it changes alone: its standing, its confidence, its times,
/// and the signed record that certifies it. Peers of rust-libp2p sign anew each time they identify themselves, and
/// each dial moves a confidence. Ask for these when they are needed: [`AddressBook::infos`],
/// [`PeerStore::signed_peer_record`].
///
/// [`AddressBook::infos`]: crate::AddressBook::infos
/// [`PeerStore::signed_peer_record`]: crate::PeerStore::signed_peer_record
/// [`PeerStore::peers`]: crate::PeerStore::peers
/// [`PeerStore::flush`]: crate::PeerStore::flush
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Event {
    /// A peer became known. Comes once, before anything else about the peer; once more if it was removed and
    /// is learnt of again.
    PeerAdded {
        /// The peer.
        #[cfg_attr(feature = "serde", serde(with = "crate::serial::peer_id"))]
        peer: PeerId,
    },
    /// The addresses of a peer are different from before.
    AddressesChanged {
        /// The peer.
        #[cfg_attr(feature = "serde", serde(with = "crate::serial::peer_id"))]
        peer: PeerId,
        /// All its addresses now, best first, without `/p2p/<peer>` at their end.
        #[cfg_attr(
            feature = "serde",
            serde(serialize_with = "crate::serial::shared::list")
        )]
        addresses: Arc<[Multiaddr]>,
        /// What changed them.
        cause: Cause,
    },
    /// The protocols of a peer are different from before.
    ProtocolsChanged {
        /// The peer.
        #[cfg_attr(feature = "serde", serde(with = "crate::serial::peer_id"))]
        peer: PeerId,
        /// All its protocols now.
        #[cfg_attr(
            feature = "serde",
            serde(serialize_with = "crate::serial::protocols::serialize")
        )]
        protocols: Arc<[StreamProtocol]>,
        /// What changed them.
        cause: Cause,
    },
    /// The public key of a peer was learnt, or (with `known` false) deleted. Keys that the peer id contains
    /// are always known and are no event.
    PublicKeyKnown {
        /// The peer.
        #[cfg_attr(feature = "serde", serde(with = "crate::serial::peer_id"))]
        peer: PeerId,
        /// Whether the key book holds the key now.
        known: bool,
    },
    /// One metadata value of a peer was set, changed or deleted.
    MetadataChanged {
        /// The peer.
        #[cfg_attr(feature = "serde", serde(with = "crate::serial::peer_id"))]
        peer: PeerId,
        /// The key of the value.
        #[cfg_attr(
            feature = "serde",
            serde(serialize_with = "crate::serial::shared::value")
        )]
        key: Arc<str>,
    },
    /// The tags of a peer are different from before. The cause is [`Cause::Expired`] when the time of one was over,
    /// which is told about a minute late at most; by a store with neither swarm nor datastore, with a later change.
    TagsChanged {
        /// The peer.
        #[cfg_attr(feature = "serde", serde(with = "crate::serial::peer_id"))]
        peer: PeerId,
        /// All its tags now, by name.
        #[cfg_attr(
            feature = "serde",
            serde(serialize_with = "crate::serial::shared::value")
        )]
        tags: Arc<BTreeMap<String, Tag>>,
        /// What changed them.
        cause: Cause,
    },
    /// The latency of a peer became known, or its mean has moved by more than a quarter, and at least a
    /// millisecond, since the last such event. Smaller moves are no events: there would be one for each ping.
    LatencyChanged {
        /// The peer.
        #[cfg_attr(feature = "serde", serde(with = "crate::serial::peer_id"))]
        peer: PeerId,
        /// How long a message to it and back takes in the mean.
        latency: Duration,
    },
    /// A peer is no longer known. When it was deleted, or nothing was left of it, events with empty sets came
    /// before, from each book that held something; when it was evicted, or all of it had expired, this one stands for
    /// all.
    PeerRemoved {
        /// The peer.
        #[cfg_attr(feature = "serde", serde(with = "crate::serial::peer_id"))]
        peer: PeerId,
        /// Why it went.
        cause: Cause,
    },
    /// The datastore did not take a commit. Nothing is lost: it is tried again, after a pause that grows to a
    /// minute while the failures last.
    CommitFailed {
        /// What the datastore said.
        #[cfg_attr(
            feature = "serde",
            serde(serialize_with = "crate::serial::shared::text")
        )]
        error: Arc<DatastoreError>,
        /// Peers with changes that are not saved.
        unsaved: usize,
    },
    /// This reader did not keep up, and so many events were lost to it.
    Lagged(u64),
}

impl fmt::Debug for Event {
    /// As derived, but for addresses and protocol names: strangers chose them, and they are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::PeerAdded { peer } => f.debug_struct("PeerAdded").field("peer", peer).finish(),
            Event::AddressesChanged {
                peer,
                addresses,
                cause,
            } => f
                .debug_struct("AddressesChanged")
                .field("peer", peer)
                .field("addresses", &EscapedList(addresses))
                .field("cause", cause)
                .finish(),
            Event::ProtocolsChanged {
                peer,
                protocols,
                cause,
            } => f
                .debug_struct("ProtocolsChanged")
                .field("peer", peer)
                .field("protocols", &EscapedList(protocols))
                .field("cause", cause)
                .finish(),
            Event::PublicKeyKnown { peer, known } => f
                .debug_struct("PublicKeyKnown")
                .field("peer", peer)
                .field("known", known)
                .finish(),
            Event::MetadataChanged { peer, key } => f
                .debug_struct("MetadataChanged")
                .field("peer", peer)
                .field("key", key)
                .finish(),
            Event::TagsChanged { peer, tags, cause } => f
                .debug_struct("TagsChanged")
                .field("peer", peer)
                .field("tags", tags)
                .field("cause", cause)
                .finish(),
            Event::LatencyChanged { peer, latency } => f
                .debug_struct("LatencyChanged")
                .field("peer", peer)
                .field("latency", latency)
                .finish(),
            Event::PeerRemoved { peer, cause } => f
                .debug_struct("PeerRemoved")
                .field("peer", peer)
                .field("cause", cause)
                .finish(),
            Event::CommitFailed { error, unsaved } => f
                .debug_struct("CommitFailed")
                .field("error", error)
                .field("unsaved", unsaved)
                .finish(),
            Event::Lagged(missed) => f.debug_tuple("Lagged").field(missed).finish(),
        }
    }
}

impl Event {
    /// The peer that the event is about, if it is about one.
    pub fn peer(&self) -> Option<PeerId> {
        match self {
            Event::PeerAdded { peer }
            | Event::AddressesChanged { peer, .. }
            | Event::ProtocolsChanged { peer, .. }
            | Event::PublicKeyKnown { peer, .. }
            | Event::MetadataChanged { peer, .. }
            | Event::TagsChanged { peer, .. }
            | Event::LatencyChanged { peer, .. }
            | Event::PeerRemoved { peer, .. } => Some(*peer),
            Event::CommitFailed { .. } | Event::Lagged(_) => None,
        }
    }

    /// What an event tells the state of: a later one of the same subject makes an earlier one obsolete.
    fn subject(&self) -> Option<(PeerId, u8, Option<Arc<str>>)> {
        match self {
            Event::AddressesChanged { peer, .. } => Some((*peer, 0, None)),
            Event::ProtocolsChanged { peer, .. } => Some((*peer, 1, None)),
            Event::PublicKeyKnown { peer, .. } => Some((*peer, 2, None)),
            Event::MetadataChanged { peer, key } => Some((*peer, 3, Some(key.clone()))),
            Event::TagsChanged { peer, .. } => Some((*peer, 4, None)),
            Event::LatencyChanged { peer, .. } => Some((*peer, 5, None)),
            // The coming and going of peers and failures are a history, not a state.
            _ => None,
        }
    }
}

/// What made the store change. Its text is its name in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Cause {
    /// Identify or identify-push.
    Identify,
    /// A dial of this node.
    Dial,
    /// An inbound connection.
    Inbound,
    /// A discovery protocol: Kademlia, rendezvous, mDNS or another.
    Discovery,
    /// The application, through a book or a call of the store.
    User,
    /// It was not heard of for too long, or what told it withdrew it.
    Expired,
    /// Something more valuable needed the place.
    Evicted,
    /// It was loaded: the backlog of [`PeerStore::watch`](crate::PeerStore::watch).
    Datastore,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Identify => "identify",
            Cause::Dial => "dial",
            Cause::Inbound => "inbound",
            Cause::Discovery => "discovery",
            Cause::User => "user",
            Cause::Expired => "expired",
            Cause::Evicted => "evicted",
            Cause::Datastore => "datastore",
        })
    }
}

/// A stream of [`Event`]s, from [`PeerStore::subscribe`](crate::PeerStore::subscribe) or
/// [`PeerStore::watch`](crate::PeerStore::watch).
///
/// It ends after [`PeerStore::shutdown`](crate::PeerStore::shutdown), or when the last handle is dropped; what
/// was waiting by then still comes. It does not keep the store alive, and it needs no particular runtime.
#[must_use = "a subscription does nothing unless it is polled"]
#[derive(Debug)]
pub struct Subscription {
    queue: Arc<Mutex<Queue>>,
    peer: Option<PeerId>,
    store: Weak<Inner>,
}

impl Subscription {
    /// The next event that is already there, without waiting.
    pub fn try_next(&mut self) -> Option<Event> {
        self.queue.lock().pop()
    }
}

impl Stream for Subscription {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        // A waker is the caller's code: it is cloned, and its predecessor dropped, without the lock.
        let mut waker = None;
        loop {
            let mut queue = self.queue.lock();
            if let Some(event) = queue.pop() {
                return Poll::Ready(Some(event));
            }
            if queue.closed {
                return Poll::Ready(None);
            }
            let is_set = queue.waker.as_ref();
            if is_set.is_some_and(|waker| waker.will_wake(cx.waker())) {
                return Poll::Pending;
            }
            if waker.is_some() {
                mem::swap(&mut queue.waker, &mut waker);
                drop(queue);
                return Poll::Pending;
            }
            drop(queue);
            waker = Some(cx.waker().clone());
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(store) = self.store.upgrade() {
            store.unsubscribe(&self.queue, self.peer);
        }
    }
}

/// Events that wait for one reader.
#[derive(Debug)]
struct Queue {
    events: VecDeque<Event>,
    capacity: usize,
    missed: u64,
    waker: Option<Waker>,
    closed: bool,
}

impl Queue {
    fn pop(&mut self) -> Option<Event> {
        // What is missing lies before everything that is still there.
        if self.missed > 0 {
            return Some(Event::Lagged(std::mem::take(&mut self.missed)));
        }
        let event = self.events.pop_front();
        if self.events.is_empty() {
            // A storm that is over leaves no memory behind.
            self.events.shrink_to(16);
        }
        event
    }

    /// Adds an event. Returns how many are lost for it.
    fn push(&mut self, event: Event) -> u64 {
        let before = self.missed;
        if self.events.len() >= self.capacity {
            self.make_room();
        }
        self.events.push_back(event);
        self.missed - before
    }

    /// Drops what a later event has made obsolete; if that frees less than a quarter, the oldest as well.
    ///
    /// It frees a quarter each time, so that a storm pays for it once in so many events.
    fn make_room(&mut self) {
        let target = self.capacity - self.capacity.div_ceil(4);
        let mut later = HashSet::new();
        let mut kept: VecDeque<Event> = VecDeque::with_capacity(self.events.len());
        while let Some(event) = self.events.pop_back() {
            // A peer that was removed and came back is told from its removal on.
            if event.subject().is_none_or(|subject| later.insert(subject)) {
                kept.push_front(event);
            }
        }
        self.events = kept;
        while self.events.len() > target {
            self.events.pop_front();
            self.missed = self.missed.saturating_add(1);
        }
    }
}

/// All readers of one store. Lives under the store's lock, so that every reader sees changes in their order.
#[derive(Debug, Default)]
pub(crate) struct Bus {
    all: Vec<Arc<Mutex<Queue>>>,
    by_peer: HashMap<PeerId, Vec<Arc<Mutex<Queue>>>>,
    /// Readers to wake once the lock is released.
    wake: Vec<Waker>,
    closed: bool,
    /// Events that readers lost.
    missed: Tally,
}

impl Bus {
    /// Whether anybody would read an event about this peer: else it need not be made.
    pub(crate) fn has_reader(&self, peer: &PeerId) -> bool {
        !self.all.is_empty() || self.by_peer.contains_key(peer)
    }

    /// Adds a reader: of one peer, or of all.
    pub(crate) fn subscribe(
        &mut self,
        peer: Option<PeerId>,
        backlog: Vec<Event>,
        capacity: usize,
        store: Weak<Inner>,
    ) -> Subscription {
        let queue = Arc::new(Mutex::new(Queue {
            events: backlog.into(),
            capacity,
            missed: 0,
            waker: None,
            closed: self.closed,
        }));
        if !self.closed {
            match peer {
                Some(peer) => self.by_peer.entry(peer).or_default().push(queue.clone()),
                None => self.all.push(queue.clone()),
            }
        }
        Subscription { queue, peer, store }
    }

    fn unsubscribe(&mut self, queue: &Arc<Mutex<Queue>>, peer: Option<PeerId>) {
        let Some(peer) = peer else {
            self.all.retain(|other| !Arc::ptr_eq(other, queue));
            return;
        };
        if let Some(queues) = self.by_peer.get_mut(&peer) {
            queues.retain(|other| !Arc::ptr_eq(other, queue));
            if queues.is_empty() {
                self.by_peer.remove(&peer);
            }
        }
    }

    pub(crate) fn publish(&mut self, event: Event) {
        let watchers = event.peer().and_then(|peer| self.by_peer.get(&peer));
        for queue in self.all.iter().chain(watchers.into_iter().flatten()) {
            let mut queue = queue.lock();
            self.missed.add(queue.push(event.clone()));
            self.wake.extend(queue.waker.take());
        }
    }

    /// Events that were lost to readers so far.
    #[cfg(feature = "metrics")]
    pub(crate) fn missed(&self) -> u64 {
        self.missed.get()
    }

    /// Ends every subscription once what waits in it has been read.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        let watchers = std::mem::take(&mut self.by_peer);
        for queue in self.all.drain(..).chain(watchers.into_values().flatten()) {
            let mut queue = queue.lock();
            queue.closed = true;
            self.wake.extend(queue.waker.take());
        }
    }

    /// The readers that have something to read: the caller wakes them after it has released the lock.
    pub(crate) fn take_wakers(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.wake)
    }
}

impl Inner {
    fn unsubscribe(&self, queue: &Arc<Mutex<Queue>>, peer: Option<PeerId>) {
        self.with(|state, _| state.bus.unsubscribe(queue, peer));
    }
}
