//! The handle that applications use.

use std::{ops::ControlFlow, sync::Arc, thread, time::Duration};

use futures::{FutureExt, channel::oneshot};
use libp2p_identity::PeerId;
use libp2p_swarm::NetworkBehaviour;

use crate::{
    address::Source,
    book::{AddressBook, KeyBook, MetadataBook, ProtocolBook, TagBook},
    bootstrap,
    config::Config,
    datastore::Datastore,
    error::{FlushError, OpenError},
    event::{Cause, Event, Subscription},
    inner::{Inner, PAGE, marked, open_and_run},
    observe::{Learned, Observed, Teach},
    peer::Peer,
    persist::LoadReport,
    record::Latency,
    refusal::Refusals,
    state::{Now, State},
    view::View,
};

/// A handle to a peer store. Cheap to clone; every clone is the same store, usable from any thread.
///
/// Reads and writes answer at once, from memory: no call but [`PeerStore::open`], [`PeerStore::flush`] and
/// [`PeerStore::shutdown`] waits for anything. No user code (a filter, a subscriber, a waker) runs while the
/// store's lock is held, so that any of them may use the store.
///
/// Dropping the last handle (the behaviour and every [`Observed`] hold one each) without
/// [`PeerStore::shutdown`] saves what is unsaved, for at most
/// [`Config::drop_deadline`](crate::Config::drop_deadline), and logs how many peers could not be saved.
#[derive(Clone, Debug)]
pub struct PeerStore {
    shared: Arc<Shared>,
}

/// What all handles have in common: its end is the end of the last handle.
#[derive(Debug)]
struct Shared {
    inner: Arc<Inner>,
}

impl PeerStore {
    /// Opens a store on a datastore and loads every peer from it. `local_peer_id` is never stored.
    ///
    /// An empty datastore is a normal start. [`PeerStore::load_report`] tells what was found. Loading runs on
    /// the store's own thread (or [`Config::with_executor`](crate::Config::with_executor)); dropping the
    /// future gives up and closes the datastore.
    ///
    /// # Errors
    ///
    /// When the datastore cannot be read, or the thread cannot be started.
    #[tracing::instrument(level = "debug", name = "PeerStore::open", skip_all, fields(%local_peer_id))]
    pub async fn open(
        local_peer_id: PeerId,
        datastore: impl Datastore,
        config: Config,
    ) -> Result<Self, OpenError> {
        let datastore: Arc<dyn Datastore> = Arc::new(datastore);
        let config = config.with_times_that_can_be_kept();
        let (sender, receiver) = oneshot::channel();
        let executor = config.executor().cloned();
        let engine = marked(open_and_run(local_peer_id, datastore, config, sender));
        match executor {
            Some(executor) => executor(engine.boxed()),
            None => {
                thread::Builder::new()
                    .name("peerstore".to_owned())
                    .spawn(move || futures::executor::block_on(engine))
                    .map_err(OpenError::Thread)?;
            }
        }
        receiver.await.map_err(|_| OpenError::ExecutorGone)?
    }

    /// A store without a datastore: it forgets with the process.
    ///
    /// It has no task of its own. What has expired is never returned, but its memory is freed and its events are sent only
    /// by the next write, by [`PeerStore::len`], or by a [`PeerStoreBehaviour`](crate::PeerStoreBehaviour) that is polled.
    ///
    /// ```
    /// use libp2p_identity::PeerId;
    /// use libp2p_peerstore::{Config, PeerStore};
    ///
    /// let store = PeerStore::in_memory(PeerId::random(), Config::default());
    /// let friend = PeerId::random();
    /// store.addresses().add(friend, ["/ip4/192.0.2.1/tcp/4001".parse()?]);
    /// assert!(store.contains(&friend));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn in_memory(local_peer_id: PeerId, config: Config) -> Self {
        let config = config.with_times_that_can_be_kept();
        let started = config.clock().started();
        let state = State::new(local_peer_id, Arc::new(config), false);
        Self::new(Inner::new(state, LoadReport::default(), started))
    }

    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self {
            shared: Arc::new(Shared { inner }),
        }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.shared.inner
    }

    // --- the books -----------------------------------------------------------------------------------------

    /// The addresses of peers.
    pub fn addresses(&self) -> AddressBook<'_> {
        AddressBook::new(self.inner())
    }

    /// The protocols that peers speak.
    pub fn protocols(&self) -> ProtocolBook<'_> {
        ProtocolBook::new(self.inner())
    }

    /// The public keys of peers.
    pub fn keys(&self) -> KeyBook<'_> {
        KeyBook::new(self.inner())
    }

    /// What else is known of peers, as bytes by string key.
    pub fn metadata(&self) -> MetadataBook<'_> {
        MetadataBook::new(self.inner())
    }

    /// The tags of peers: values from 0 to 100 by name.
    pub fn tags(&self) -> TagBook<'_> {
        TagBook::new(self.inner())
    }

    // --- whole peers ---------------------------------------------------------------------------------------

    /// Everything that is known about a peer, from all books at once; `None` for one that is not known.
    pub fn get(&self, peer: &PeerId) -> Option<Peer> {
        let peer = self.inner().read(|state, now| {
            let view = state.known(peer, now)?;
            Some(view.peer(state.rules(now)))
        });
        peer.map(Peer::with_inlined_key)
    }

    /// Whether anything is known about a peer.
    pub fn contains(&self, peer: &PeerId) -> bool {
        self.inner()
            .read(|state, now| state.known(peer, now).is_some())
    }

    /// How many peers are known.
    pub fn len(&self) -> usize {
        let inner = self.inner();
        // What has expired does not count; a few at a time, so that nobody waits for long.
        while inner.with(|state, now| state.collect(PAGE, now)) {}
        inner.read(|state, _| state.table.len())
    }

    /// Whether no peer is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All peers, copied. Where that is too much, use [`PeerStore::for_each`], [`PeerStore::filter`] or
    /// [`PeerStore::peer_ids`].
    pub fn peers(&self) -> Vec<Peer> {
        self.filter(|_| true)
    }

    /// The ids of all peers.
    pub fn peer_ids(&self) -> Vec<PeerId> {
        let mut ids = Vec::new();
        self.inner().walk(
            |view, _| Some(view.id()),
            |id| {
                ids.push(id);
                ControlFlow::Continue(())
            },
        );
        ids
    }

    /// Shows every peer to `visit`, until it breaks. Peers are copied a few at a time, so that neither memory
    /// nor the wait of others grows with the store. Peers that come or go meanwhile may or may not be met; no
    /// other is left out or met twice.
    ///
    /// ```
    /// # use libp2p_peerstore::{Config, PeerStore};
    /// # use libp2p_identity::PeerId;
    /// use std::ops::ControlFlow;
    ///
    /// # let store = PeerStore::in_memory(PeerId::random(), Config::default());
    /// let mut addresses = 0;
    /// store.for_each(|peer| {
    ///     addresses += peer.addresses.len();
    ///     ControlFlow::<()>::Continue(())
    /// });
    /// ```
    pub fn for_each<B>(&self, mut visit: impl FnMut(&Peer) -> ControlFlow<B>) -> Option<B> {
        let mut broken = None;
        self.inner().walk(
            |view, rules| Some(view.peer(rules)),
            |peer| match visit(&peer.with_inlined_key()) {
                ControlFlow::Continue(()) => ControlFlow::Continue(()),
                ControlFlow::Break(value) => {
                    broken = Some(value);
                    ControlFlow::Break(())
                }
            },
        );
        broken
    }

    /// The peers for which `predicate` holds. Only they are kept; see [`PeerStore::for_each`].
    pub fn filter(&self, mut predicate: impl FnMut(&Peer) -> bool) -> Vec<Peer> {
        let mut found = Vec::new();
        self.inner().walk(
            |view, rules| Some(view.peer(rules)),
            |peer| {
                let peer = peer.with_inlined_key();
                if predicate(&peer) {
                    found.push(peer);
                }
                ControlFlow::Continue(())
            },
        );
        found
    }

    /// The peers that speak a protocol. What that costs depends on how many they are, not on how many are known.
    pub fn peers_supporting(&self, protocol: &str) -> Vec<PeerId> {
        self.query().speaks(protocol).ids()
    }

    /// Forgets a peer, in all books and on disk. Returns whether anything was known about it.
    ///
    /// If it is still connected, or in Kademlia's routing table, it is soon learnt of again; see
    /// [`PeerStore::delete_for`].
    pub fn delete(&self, peer: &PeerId) -> bool {
        self.inner()
            .with(|state, now| state.delete(*peer, None, now))
    }

    /// Forgets a peer, and for `duration` ignores what the swarm learns of it. What the application itself
    /// stores about the peer is stored, and ends the ban.
    ///
    /// At most 1,024 peers are ignored at once; beyond that the ban that would end first ends now. A ban does
    /// not outlive the process.
    pub fn delete_for(&self, peer: &PeerId, duration: Duration) -> bool {
        self.inner()
            .with(|state, now| state.delete(*peer, Some(duration), now))
    }

    // --- starting again ------------------------------------------------------------------------------------

    /// Up to `n` remembered peers to dial first after a restart, in the order in which to dial them: at most one from
    /// each address group. First the last two outbound peers of the previous run; then, of the proven ones, some by
    /// confidence, a third that have been proven for more than a week, and a third at random; and if there are not enough, others.
    /// "By confidence", and among those of long standing too, is the most confident of eight random ones each time.
    ///
    /// So chosen because an attacker with many reliable hosts would be first in a list that is sorted by
    /// reliability. Use your bootstrap nodes too when few of these answer. Costs a walk over all peers.
    pub fn bootstrap_peers(&self, n: usize) -> Vec<PeerId> {
        let inner = self.inner();
        let mut candidates = Vec::new();
        inner.walk(
            |view, rules| view.candidate(rules),
            |candidate| {
                candidates.push(candidate);
                ControlFlow::Continue(())
            },
        );
        let mut random = inner.random();
        bootstrap::choose(candidates, n, inner.now().wall, &mut random)
    }

    /// Fills Kademlia's routing table with up to `n` remembered peers, chosen as by
    /// [`PeerStore::bootstrap_peers`], each with the addresses that would be offered for a dial. Returns how many
    /// Kademlia took. Follow it with `kad.bootstrap()`.
    #[cfg(feature = "kad")]
    pub fn seed_kademlia<S>(&self, kad: &mut libp2p_kad::Behaviour<S>, n: usize) -> usize
    where
        S: libp2p_kad::store::RecordStore + Send + 'static,
    {
        let mut seeded = 0;
        for peer in self.bootstrap_peers(n) {
            let mut taken = false;
            for address in self.inner().offers(&peer).unwrap_or_default() {
                let update = kad.add_address(&peer, address);
                taken |= !matches!(update, libp2p_kad::RoutingUpdate::Failed);
            }
            seeded += usize::from(taken);
        }
        seeded
    }

    // --- connections ---------------------------------------------------------------------------------------

    /// Whether the swarm has a connection to a peer now. Without a live
    /// [`PeerStoreBehaviour`](crate::PeerStoreBehaviour) nobody is connected.
    pub fn is_connected(&self, peer: &PeerId) -> bool {
        self.connections(peer) > 0
    }

    /// How many connections the swarm has to a peer now.
    pub fn connections(&self, peer: &PeerId) -> usize {
        self.inner().read(|state, _| state.connections(peer))
    }

    /// The peers to which the swarm has a connection now.
    pub fn connected_peers(&self) -> Vec<PeerId> {
        self.inner()
            .read(|state, _| state.connected_peers().copied().collect())
    }

    // --- events --------------------------------------------------------------------------------------------

    /// A stream of all events from now on. Every subscription sees every event.
    pub fn subscribe(&self) -> Subscription {
        let store = Arc::downgrade(self.inner());
        self.inner().with(|state, _| {
            let capacity = state.config.event_capacity().get();
            state.bus.subscribe(None, Vec::new(), capacity, store)
        })
    }

    /// A stream of the events of one peer: first what is known now, as events with the cause
    /// [`Cause::Datastore`], then each change. The peer need not be known yet.
    pub fn watch(&self, peer: PeerId) -> Subscription {
        let store = Arc::downgrade(self.inner());
        self.inner().with(|state, now| {
            let view = state.known(&peer, now);
            let backlog = view.map(|view| backlog(view, state, now));
            let capacity = state.config.event_capacity().get();
            state
                .bus
                .subscribe(Some(peer), backlog.unwrap_or_default(), capacity, store)
        })
    }

    // --- gathering -----------------------------------------------------------------------------------------

    /// Lets the store learn from a behaviour whose events tell about peers: identify, Kademlia, mDNS,
    /// rendezvous, or one of your own whose event type implements [`Teach`]. Works round `Toggle` too.
    pub fn observe<B>(&self, behaviour: B) -> Observed<B>
    where
        B: NetworkBehaviour,
        B::ToSwarm: Teach,
    {
        Observed::new(behaviour, self.clone())
    }

    /// Lets the store learn from a behaviour of another crate, for whose event type [`Teach`] cannot be
    /// implemented here: `teach` is shown each event and tells the sink what it says about peers.
    ///
    /// ```
    /// # use libp2p_identity::PeerId;
    /// # use libp2p_peerstore::{Config, PeerStore};
    /// use libp2p::rendezvous;
    ///
    /// # let store = PeerStore::in_memory(PeerId::random(), Config::default());
    /// # fn client() -> rendezvous::client::Behaviour {
    /// #     rendezvous::client::Behaviour::new(libp2p::identity::Keypair::generate_ed25519())
    /// # }
    /// let observed = store.observe_with(client(), |event, learned| {
    ///     if let rendezvous::client::Event::Discovered { registrations, .. } = event {
    ///         for registration in registrations {
    ///             let record = &registration.record;
    ///             learned.add(record.peer_id(), record.addresses());
    ///         }
    ///     }
    /// });
    /// ```
    pub fn observe_with<B>(
        &self,
        behaviour: B,
        teach: impl FnMut(&B::ToSwarm, &mut Learned<'_>) + Send + 'static,
    ) -> Observed<B>
    where
        B: NetworkBehaviour,
    {
        Observed::with(behaviour, self.clone(), teach)
    }

    /// Lets the store learn from an event by hand, for applications that pass events on from their own event
    /// loop instead of wrapping the behaviour with [`PeerStore::observe`].
    pub fn learn<E: Teach>(&self, event: &E) {
        event.teach(&mut Learned::new(self, E::SOURCE));
    }

    /// The sink itself, for what comes from neither a behaviour nor an event: what it is told is kept as learnt
    /// from `source`.
    pub fn learned(&self, source: Source) -> Learned<'_> {
        Learned::new(self, source)
    }

    // --- operation -----------------------------------------------------------------------------------------

    /// The id of the local peer, which is never stored.
    pub fn local_peer_id(&self) -> PeerId {
        self.inner().read(|state, _| state.local)
    }

    /// What [`PeerStore::open`] found in the datastore. All zero for a store in memory.
    pub fn load_report(&self) -> LoadReport {
        self.inner().load_report
    }

    /// What the store refused since it was opened, by reason.
    pub fn refusals(&self) -> Refusals {
        self.inner().read(|state, _| state.refusals())
    }

    /// Peers with changes that are not on disk for certain. Zero for a store in memory. What the application changes after
    /// [`PeerStore::shutdown`] is not for the disk, and does not count.
    pub fn unsaved(&self) -> usize {
        self.inner().read(|state, _| state.unsaved())
    }

    /// Writes every change made before the call, and returns when all of it is durable.
    ///
    /// Commits of other changes, by threshold or delay, go on as before. Dropping the future takes nothing
    /// back. A store in memory has nothing to write.
    ///
    /// # Errors
    ///
    /// When the datastore refuses, or does not answer within
    /// [`Config::flush_deadline`](crate::Config::flush_deadline); the error says how many peers are unsaved.
    /// They are kept, and tried again.
    #[tracing::instrument(level = "debug", name = "PeerStore::flush", skip_all)]
    pub async fn flush(&self) -> Result<(), FlushError> {
        self.inner().save(false).await
    }

    /// Stops gathering, writes what is unsaved, closes the datastore and ends all subscriptions.
    ///
    /// Afterwards reads work; writes of the application change the memory only. A second call returns at once.
    ///
    /// # Errors
    ///
    /// As [`PeerStore::flush`]; a commit that fails is tried twice more, at once, and then the datastore is closed all the
    /// same, unless it hangs. [`FlushError::Closed`] when the store had ended before (by an earlier call, or because its
    /// executor is gone), and not every change is on disk: one that could not be saved by then, or one that was made since.
    #[tracing::instrument(level = "debug", name = "PeerStore::shutdown", skip_all)]
    pub async fn shutdown(&self) -> Result<(), FlushError> {
        match self.inner().save(true).await {
            // It has ended before, with nothing left to save.
            Err(FlushError::Closed) if self.inner().read(|state, _| state.pending.is_saved()) => {
                Ok(())
            }
            result => result,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.inner.last_handle_dropped();
    }
}

/// What is known of a peer, as events.
fn backlog(view: View<'_>, state: &State, now: Now) -> Vec<Event> {
    let (peer, cause) = (view.id(), Cause::Datastore);
    let mut events = vec![Event::PeerAdded { peer }];
    let addresses: Arc<[_]> = view.multiaddrs(state.rules(now)).into();
    if !addresses.is_empty() {
        events.push(Event::AddressesChanged {
            peer,
            addresses,
            cause,
        });
    }
    if let Some(protocols) = view.shared_protocols().cloned() {
        events.push(Event::ProtocolsChanged {
            peer,
            protocols,
            cause,
        });
    }
    if view.rare().is_some_and(|rare| rare.public_key.is_some()) {
        events.push(Event::PublicKeyKnown { peer, known: true });
    }
    events.extend(
        view.metadata()
            .into_keys()
            .map(|key| Event::MetadataChanged {
                peer,
                key: key.into(),
            }),
    );
    let tags = view.rare().map(|rare| rare.tags.view(now.wall));
    let tags = tags.unwrap_or_default();
    if !tags.is_empty() {
        let tags = Arc::new(tags);
        events.push(Event::TagsChanged { peer, tags, cause });
    }
    if let Some(latency) = view.latency().map(Latency::mean) {
        events.push(Event::LatencyChanged { peer, latency });
    }
    events
}
