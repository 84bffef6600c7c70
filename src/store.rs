//! The handle that applications use, and what stands behind it.

use std::{
    cell::Cell,
    collections::HashSet,
    future::{Future, poll_fn},
    hash::{BuildHasher, RandomState},
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use futures::{FutureExt, channel::oneshot};
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_swarm::NetworkBehaviour;
use parking_lot::{Condvar, Mutex};

use crate::{
    address::Source,
    book::{AddressBook, KeyBook, MetadataBook, ProtocolBook, TagBook},
    bootstrap,
    clock::{Clock, Timestamp},
    config::Config,
    datastore::Datastore,
    error::{FlushError, OpenError},
    event::{Cause, Event, Subscription},
    group::Group,
    observe::{Learned, Observed, Teach},
    peer::Peer,
    persist::{self, Engine, LoadReport, Unsaved},
    record::{Latency, Record, shared},
    refusal::Refusals,
    state::{Changed, Now, State, Written},
};

/// Peers that a walk over the store copies under one hold of the lock.
const PAGE: usize = 64;

/// Peers that are met by chance when a feeler is due.
const FEELER_SAMPLE: usize = 64;

/// Records that each write looks at for what has expired: more than a write can add, so that it keeps pace.
const COLLECTED_PER_WRITE: usize = 4;

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
    pub async fn open(
        local_peer_id: PeerId,
        datastore: impl Datastore,
        config: Config,
    ) -> Result<Self, OpenError> {
        let datastore: Arc<dyn Datastore> = Arc::new(datastore);
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
        let state = State::new(local_peer_id, Arc::new(config), false);
        Self::new(Inner::new(state, LoadReport::default()))
    }

    fn new(inner: Arc<Inner>) -> Self {
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
        self.inner().read(|state, now| {
            let record = state.known(peer, now)?;
            Some(record.view(state.rules(now)))
        })
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
            |record, _| Some(record.id),
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
            |record, rules| Some(record.view(rules)),
            |peer| match visit(&peer) {
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
            |record, rules| Some(record.view(rules)),
            |peer| {
                if predicate(&peer) {
                    found.push(peer);
                }
                ControlFlow::Continue(())
            },
        );
        found
    }

    /// The peers that speak a protocol. Nothing else is copied.
    pub fn peers_supporting(&self, protocol: &str) -> Vec<PeerId> {
        let mut found = Vec::new();
        self.inner().walk(
            |record, _| {
                let speaks = record
                    .protocols
                    .iter()
                    .any(|known| known.as_ref() == protocol);
                speaks.then_some(record.id)
            },
            |id| {
                found.push(id);
                ControlFlow::Continue(())
            },
        );
        found
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

    /// Up to `n` remembered peers to dial first after a restart: at most one from each address group; first the last
    /// outbound peers of the previous run, then a third that have been proven for more than a week, a third at random
    /// among the proven ones, the rest by confidence, by chance in proportion to it.
    ///
    /// So chosen because an attacker with many reliable hosts would be first in a list that is sorted by
    /// reliability. Use your bootstrap nodes too when few of these answer. Costs a walk over all peers.
    pub fn bootstrap_peers(&self, n: usize) -> Vec<PeerId> {
        let inner = self.inner();
        let mut candidates = Vec::new();
        inner.walk(
            |record, rules| record.candidate(rules),
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
            let record = state.known(&peer, now);
            let backlog = record.map(|record| backlog(record, state, now));
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

    /// Peers with changes that are not on disk for certain. Zero for a store in memory.
    pub fn unsaved(&self) -> usize {
        self.inner().read(|state, _| state.pending.unsaved())
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
    pub async fn flush(&self) -> Result<(), FlushError> {
        self.inner().save(false).await
    }

    /// Stops gathering, writes what is unsaved, closes the datastore and ends all subscriptions.
    ///
    /// Afterwards reads work; writes of the application change the memory only. A second call returns at once.
    ///
    /// # Errors
    ///
    /// As [`PeerStore::flush`]; the datastore is closed all the same, unless it hangs.
    pub async fn shutdown(&self) -> Result<(), FlushError> {
        match self.inner().save(true).await {
            Err(FlushError::Closed) => Ok(()),
            result => result,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.inner.last_handle_dropped();
    }
}

/// The store itself: one lock round the state, and the time.
pub(crate) struct Inner {
    state: Mutex<State>,
    config: Arc<Config>,
    started: SystemTime,
    load_report: LoadReport,
    /// Whether a behaviour is attached.
    attached: AtomicBool,
    /// Set when the engine has ended (or there is none).
    ended: Mutex<bool>,
    end: Condvar,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("load_report", &self.load_report)
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn new(state: State, load_report: LoadReport) -> Arc<Self> {
        let ended = !state.pending.is_persistent();
        Arc::new(Self {
            started: state.config.clock().started(),
            config: state.config.clone(),
            state: Mutex::new(state),
            load_report,
            attached: AtomicBool::new(false),
            ended: Mutex::new(ended),
            end: Condvar::new(),
        })
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        self.config.clock()
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    fn now(&self) -> Now {
        now(&**self.clock(), self.started)
    }

    /// Looks at the state.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&State, Now) -> R) -> R {
        let now = self.now();
        look(&self.state.lock(), now)
    }

    /// Changes the state; wakes and logs what that calls for once the lock is released.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut State, Now) -> R) -> R {
        let now = self.now();
        let mut state = self.state.lock();
        state.collect(COLLECTED_PER_WRITE, now);
        let result = act(&mut state, now);
        let wakers = state.take_wakers();
        let written_after_close = state.pending.take_written_after_close();
        drop(state);
        wakers.into_iter().for_each(|waker| waker.wake());
        if written_after_close {
            tracing::warn!("the peer store is shut down: changes stay in memory");
        }
        result
    }

    /// A write that the caller wants the result of.
    pub(crate) fn write(
        &self,
        peer: PeerId,
        act: impl FnOnce(&mut State, Now) -> Written,
    ) -> Changed {
        let written = self.with(act);
        let refused = written.refused.total();
        if refused > 0 {
            tracing::debug!(%peer, reasons = ?written.refused, "refused to store");
        }
        Changed {
            changed: written.changed,
            refused: usize::try_from(refused).unwrap_or(usize::MAX),
        }
    }

    /// Copies something of each record, a page at a time, and shows it to `visit` without the lock.
    fn walk<T>(
        &self,
        copy: impl Fn(&Record, crate::record::Rules<'_>) -> Option<T>,
        mut visit: impl FnMut(T) -> ControlFlow<()>,
    ) {
        let mut at = Some(0);
        // What comes meanwhile does not prolong the walk: `visit` may itself add a peer for each one it meets.
        let mut end = None;
        while let Some(start) = at {
            let page: Vec<T>;
            (page, at) = self.read(|state, now| {
                let end = *end.get_or_insert(state.table.slots());
                let (records, next) = state.table.page(start, PAGE.min(end - start));
                let rules = state.rules(now);
                let alive = records.filter(|record| !record.has_expired(rules));
                (
                    alive.filter_map(|record| copy(record, rules)).collect(),
                    next.filter(|next| *next < end),
                )
            });
            for item in page {
                if visit(item).is_break() {
                    return;
                }
            }
        }
    }

    /// What the store offers for a dial to a peer; `None` when it has no opinion, as the peer is not known.
    pub(crate) fn offers(&self, peer: &PeerId) -> Option<Vec<Multiaddr>> {
        self.read(|state, now| {
            let record = state.known(peer, now)?;
            Some(record.offers(state.rules(now)))
        })
    }

    /// Numbers that nobody foresees.
    pub(crate) fn random(&self) -> impl FnMut() -> u64 + use<> {
        let (secret, mut count) = (RandomState::new(), 0_u64);
        move || {
            count += 1;
            secret.hash_one(count)
        }
    }

    /// Peers of which no address is proven, each with the address that a feeler would try: a few that were met by
    /// chance, first one of each address group, in no order that a stranger could foresee.
    pub(crate) fn feeler_candidates(&self) -> Vec<(PeerId, Multiaddr)> {
        let mut random = self.random();
        let mut met: Vec<(PeerId, Multiaddr)> = self.read(|state, now| {
            let rules = state.rules(now);
            let met = state.table.sample(FEELER_SAMPLE, &mut random).into_iter();
            met.filter_map(|record| Some((record.id, record.feeler(rules)?)))
                .collect()
        });
        met.sort_by_cached_key(|_| random());
        let mut groups = HashSet::new();
        let (mut first, more): (Vec<_>, Vec<_>) = met
            .into_iter()
            .partition(|(_, address)| Group::of(address).is_none_or(|group| groups.insert(group)));
        first.extend(more);
        first
    }

    /// Takes the one place for a behaviour.
    pub(crate) fn attach(&self) -> bool {
        !self.attached.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn detach(&self) {
        self.with(|state, now| state.all_connections_closed(now));
        self.attached.store(false, Ordering::Release);
    }

    // --- saving --------------------------------------------------------------------------------------------

    /// Asks the engine to write everything, and waits for it as long as the configuration allows.
    async fn save(&self, close: bool) -> Result<(), FlushError> {
        let (sender, receiver) = oneshot::channel();
        let deadline = self.with(|state, now| {
            state.gathering &= !close;
            if close {
                state.touch_in_use(now);
            }
            if state.pending.is_persistent() && !state.pending.is_closed() {
                state.pending.ask(Some(sender), close);
                return Ok(Some(state.config.flush_deadline()));
            }
            let was_closed = state.pending.is_closed();
            if close && !was_closed {
                state.bus.close();
                state.pending.close();
            }
            if was_closed {
                Err(FlushError::Closed)
            } else {
                Ok(None)
            }
        })?;
        let Some(deadline) = deadline else {
            return Ok(());
        };
        let until = self.clock().elapsed().saturating_add(deadline);
        let timeout = self.clock().sleep_until(until);
        futures::select_biased! {
            answer = receiver.fuse() => match answer {
                Ok(Ok(())) => Ok(()),
                Ok(Err(Unsaved { peers, error })) => Err(FlushError::Failed {
                    unsaved: peers,
                    source: error,
                }),
                // The engine ended without an answer: its executor is gone.
                Err(_) => Err(FlushError::Closed),
            },
            () = timeout.fuse() => Err(FlushError::Deadline {
                unsaved: self.read(|state, _| state.pending.unsaved()),
                deadline,
            }),
        }
    }

    /// Saves the rest in the background and waits a little for it.
    fn last_handle_dropped(&self) {
        let deadline = self.with(|state, now| {
            state.gathering = false;
            state.touch_in_use(now);
            if !state.pending.is_persistent() {
                state.bus.close();
            } else if !state.pending.is_closed() {
                state.pending.ask(None, true);
            }
            state.config.drop_deadline()
        });
        // A handle that is dropped inside the engine (by a datastore, or because nobody waits for `open` any
        // longer) would wait for itself.
        if IN_ENGINE.get() {
            return;
        }
        let mut ended = self.ended.lock();
        self.end
            .wait_while_for(&mut ended, |ended| !*ended, deadline);
        drop(ended);
        let unsaved = self.read(|state, _| state.pending.unsaved());
        if unsaved > 0 {
            tracing::error!(
                unsaved,
                ?deadline,
                "the peer store was dropped before everything was saved; await `PeerStore::shutdown` instead"
            );
        }
    }

    pub(crate) fn engine_ended(&self) {
        *self.ended.lock() = true;
        self.end.notify_all();
    }
}

thread_local! {
    /// Whether this thread is polling the engine of a store.
    static IN_ENGINE: Cell<bool> = const { Cell::new(false) };
}

/// Marks the thread as the engine's while it polls the engine.
fn marked(engine: impl Future<Output = ()> + Send + 'static) -> impl Future<Output = ()> + Send {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            IN_ENGINE.set(self.0);
        }
    }
    let mut engine = engine.boxed();
    poll_fn(move |cx| {
        let _restore = Restore(IN_ENGINE.replace(true));
        engine.poll_unpin(cx)
    })
}

/// Loads the store, hands it to whoever opens it, and goes on as its engine.
async fn open_and_run(
    local: PeerId,
    datastore: Arc<dyn Datastore>,
    config: Config,
    mut opener: oneshot::Sender<Result<PeerStore, OpenError>>,
) {
    let now = now(&**config.clock(), config.clock().started());
    let load = persist::load(&*datastore, local, Arc::new(config), now);
    let loaded = futures::select_biased! {
        loaded = persist::caught("read", load).boxed().fuse() => Some(loaded),
        // Nobody waits any longer, perhaps because the datastore hangs.
        () = opener.cancellation().fuse() => None,
    };
    match loaded {
        Some(Ok((state, report))) => {
            let inner = Inner::new(state, report);
            let engine = Engine::new(inner.clone(), datastore);
            // If the opener gave up, the handle in it is dropped here, and the engine closes the datastore.
            drop(opener.send(Ok(PeerStore::new(inner))));
            engine.run().await;
        }
        failed => {
            let closed = persist::caught("close", async { datastore.close().await }).await;
            if let Err(error) = closed {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "could not close the datastore in order");
            }
            drop(datastore);
            if let Some(Err(error)) = failed {
                // Nobody may be waiting any longer.
                let _ = opener.send(Err(OpenError::Load(error)));
            }
        }
    }
}

fn now(clock: &dyn Clock, started: SystemTime) -> Now {
    let elapsed = clock.elapsed();
    Now {
        wall: Timestamp::new(started, elapsed),
        elapsed,
    }
}

/// What is known of a peer, as events.
fn backlog(record: &Record, state: &State, now: Now) -> Vec<Event> {
    let (peer, cause) = (record.id, Cause::Datastore);
    let mut events = vec![Event::PeerAdded { peer }];
    let addresses = shared(record.multiaddrs(state.rules(now)));
    if !addresses.is_empty() {
        events.push(Event::AddressesChanged {
            peer,
            addresses,
            cause,
        });
    }
    if !record.protocols.is_empty() {
        let protocols = shared(record.protocols.clone());
        events.push(Event::ProtocolsChanged {
            peer,
            protocols,
            cause,
        });
    }
    if record.public_key.is_some() {
        events.push(Event::PublicKeyKnown { peer, known: true });
    }
    events.extend(record.metadata.keys().map(|key| Event::MetadataChanged {
        peer,
        key: key.as_str().into(),
    }));
    let tags = record.tags.view(now.wall);
    if !tags.is_empty() {
        let tags = Arc::new(tags);
        events.push(Event::TagsChanged { peer, tags, cause });
    }
    if let Some(latency) = record.latency.map(Latency::mean) {
        events.push(Event::LatencyChanged { peer, latency });
    }
    events
}
