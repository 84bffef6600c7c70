//! What stands behind every handle: the lock, the time, what follows a change once the lock is released, and saving.

use std::{
    cell::Cell,
    collections::HashSet,
    future::{Future, poll_fn},
    hash::{BuildHasher, RandomState},
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    time::{Duration, SystemTime},
};

use futures::{FutureExt, channel::oneshot};
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
use tracing::Instrument;

use crate::{
    clock::{Clock, Timestamp},
    config::Config,
    datastore::Datastore,
    dials::Dials,
    error::{FlushError, OpenError},
    group::Group,
    metrics::Meter,
    persist::{self, Engine, LoadReport, Unsaved},
    record::Rules,
    state::{Changed, Now, State, Written},
    store::PeerStore,
    sync::{Mutex, Once, thread_local},
    view::View,
};

/// Peers that a walk over the store copies under one hold of the lock.
pub(crate) const PAGE: usize = 64;

/// Peers that are met by chance when a feeler is due.
const FEELER_SAMPLE: usize = 64;

/// Records that each write looks at for what has expired: more than a write can add, so that it keeps pace.
const COLLECTED_PER_WRITE: usize = 4;

/// The store itself: one lock round the state, and the time.
pub(crate) struct Inner {
    state: Mutex<State>,
    config: Arc<Config>,
    started: SystemTime,
    pub(crate) load_report: LoadReport,
    meter: Meter,
    /// Whether a behaviour is attached.
    attached: AtomicBool,
    /// What an observed behaviour has just told the swarm about, and the store has dealt with already.
    announced: Mutex<Announced>,
    /// What was offered for the dials that are under way. Locked before the state, where both are.
    dials: Mutex<Dials>,
    /// The end of the engine, if there is one.
    ended: Once,
}

/// A peer and the bytes of an address.
#[derive(Debug, Default)]
struct Announced {
    peer: Option<PeerId>,
    address: Vec<u8>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("load_report", &self.load_report)
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// `started` is what the clock said when the store was opened: it is not asked again.
    pub(crate) fn new(state: State, load_report: LoadReport, started: SystemTime) -> Arc<Self> {
        let ended = !state.pending.is_persistent();
        Arc::new(Self {
            started,
            config: state.config.clone(),
            state: Mutex::new(state),
            load_report,
            meter: Meter::default(),
            attached: AtomicBool::new(false),
            announced: Mutex::default(),
            dials: Mutex::default(),
            ended: Once::new(ended),
        })
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        self.config.clock()
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// What is counted outside of the lock.
    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    pub(crate) fn now(&self) -> Now {
        now(&**self.clock(), self.started)
    }

    /// The clock's elapsed time at a moment on the wall.
    pub(crate) fn elapsed_at(&self, wall: Timestamp) -> Duration {
        wall.elapsed(self.started)
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
        state.save_anchors(false, now);
        let result = act(&mut state, now);
        let wakers = state.take_wakers();
        let written_after_close = state.pending.take_written_after_close();
        drop(state);
        if written_after_close {
            tracing::warn!("the peer store is shut down: changes stay in memory");
        }
        wake_all(wakers);
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
        if let Some(cause) = written.added {
            tracing::debug!(%peer, %cause, "a peer became known");
        }
        Changed {
            changed: written.changed,
            refused: usize::try_from(refused).unwrap_or(usize::MAX),
        }
    }

    /// Copies something of each record, a page at a time, and shows it to `visit` without the lock.
    pub(crate) fn walk<T>(
        &self,
        copy: impl Fn(View<'_>, Rules<'_>) -> Option<T>,
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
                let alive = records.filter(|view| !view.has_expired(rules));
                (
                    alive.filter_map(|view| copy(view, rules)).collect(),
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

    /// What the store offers for this dial, whichever behaviour asks: what it offered before, and more only as far as that
    /// was less than it may offer. `None` when it has no opinion.
    pub(crate) fn offers_for(&self, dial: ConnectionId, peer: &PeerId) -> Option<Vec<Multiaddr>> {
        let mut dials = self.dials.lock();
        let before = dials.offered(dial, peer);
        let offers = self.read(|state, now| match state.known(peer, now) {
            Some(view) => Some(view.offers(before, state.rules(now))),
            // It went in the middle of the dial.
            None => (!before.is_empty()).then(Vec::new),
        })?;
        dials.offer(dial, *peer, &offers);
        Some(offers)
    }

    /// A dial has ended.
    pub(crate) fn dial_ended(&self, dial: ConnectionId) {
        self.dials.lock().ended(dial);
    }

    /// What the store offers for a dial to a peer; `None` when it has no opinion, as the peer is not known.
    #[cfg(feature = "kad")]
    pub(crate) fn offers(&self, peer: &PeerId) -> Option<Vec<Multiaddr>> {
        self.read(|state, now| {
            let view = state.known(peer, now)?;
            Some(view.offers(&[], state.rules(now)))
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
            met.filter_map(|view| Some((view.id(), view.feeler(rules)?)))
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

    /// An observed behaviour is about to tell the swarm about this address, and the store knows it from there.
    pub(crate) fn announce(&self, peer: &PeerId, address: &Multiaddr) {
        let mut announced = self.announced.lock();
        announced.peer = Some(*peer);
        announced.address.clear();
        announced.address.extend_from_slice(address.as_ref());
    }

    /// Whether this is what an observed behaviour has just announced. The swarm delivers such an event before
    /// it polls anything else, so that one place is enough.
    pub(crate) fn is_echo(&self, peer: &PeerId, address: &Multiaddr) -> bool {
        let mut announced = self.announced.lock();
        let is_it = announced.peer.as_ref() == Some(peer)
            && announced.address.as_slice() == address.as_ref() as &[u8];
        if is_it {
            announced.peer = None;
        }
        is_it
    }

    /// Takes the one place for a behaviour.
    pub(crate) fn attach(&self) -> bool {
        !self.attached.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn detach(&self) {
        self.dials.lock().clear();
        self.with(|state, now| state.all_connections_closed(now));
        self.announced_until_now(true);
        self.attached.store(false, Ordering::Release);
    }

    /// What mDNS announces was good until now. It is looked for a page at a time, among all peers: this is seldom.
    fn announced_until_now(&self, over: bool) {
        if !self.read(|state, _| state.announced) {
            return;
        }
        let announced = |view: View<'_>, _: Rules<'_>| view.is_announced().then(|| view.id());
        self.walk(announced, |peer| {
            self.with(|state, now| state.announced_until_now(peer, over, now));
            ControlFlow::Continue(())
        });
    }

    // --- saving --------------------------------------------------------------------------------------------

    /// Asks the engine to write everything, and waits for it as long as the configuration allows.
    pub(crate) async fn save(&self, close: bool) -> Result<(), FlushError> {
        let (sender, receiver) = oneshot::channel();
        if close {
            self.announced_until_now(false);
        }
        let mut gone = Vec::new();
        let deadline = self.with(|state, now| {
            let was_closed = state.pending.is_closed();
            if !was_closed {
                state.save_anchors(true, now);
            }
            state.gathering &= !close;
            if close && !was_closed {
                state.touch_in_use(now);
            }
            if state.pending.is_persistent() && !was_closed {
                gone = state.pending.ask(Some(sender), close);
                return Ok(Some(state.config.flush_deadline()));
            }
            if close && !was_closed {
                state.bus.close();
                state.pending.close();
            }
            if was_closed {
                Err(FlushError::Closed)
            } else {
                Ok(None)
            }
        });
        drop(gone);
        let Some(deadline) = deadline? else {
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
                unsaved: self.read(|state, _| state.unsaved()),
                deadline,
            }),
        }
    }

    /// Saves the rest in the background and waits a little for it.
    pub(crate) fn last_handle_dropped(&self) {
        self.announced_until_now(false);
        let (deadline, _gone) = self.with(|state, now| {
            state.gathering = false;
            let mut gone = Vec::new();
            if !state.pending.is_persistent() {
                state.bus.close();
            } else if !state.pending.is_closed() {
                state.save_anchors(true, now);
                state.touch_in_use(now);
                gone = state.pending.ask(None, true);
            }
            (state.config.drop_deadline(), gone)
        });
        // A handle that is dropped inside the engine (by a datastore, or because nobody waits for `open` any
        // longer) would wait for itself.
        if IN_ENGINE.with(Cell::get) {
            return;
        }
        self.ended.wait_for(deadline);
        let unsaved = self.read(|state, _| state.unsaved());
        if unsaved > 0 {
            tracing::error!(
                unsaved,
                ?deadline,
                "the peer store was dropped before everything was saved; await `PeerStore::shutdown` instead"
            );
        }
    }

    pub(crate) fn engine_ended(&self) {
        self.ended.happens();
    }
}

/// Wakes every reader and the engine, also when the waker of one reader panics: that panic goes on afterwards, unless it
/// would end the engine.
fn wake_all(wakers: Vec<Waker>) {
    let mut panicked = None;
    for waker in wakers {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
            panicked.get_or_insert(panic);
        }
    }
    match panicked {
        Some(_) if IN_ENGINE.with(Cell::get) => {
            tracing::error!("a task that reads the peer store panicked when it was woken");
        }
        Some(panic) => resume_unwind(panic),
        None => {}
    }
}

thread_local! {
    /// Whether this thread is polling the engine of a store.
    static IN_ENGINE: Cell<bool> = const { Cell::new(false) };
}

/// This thread is the engine's for as long as this lives.
pub(crate) struct InEngine(bool);

impl InEngine {
    pub(crate) fn enter() -> Self {
        Self(IN_ENGINE.with(|is_in| is_in.replace(true)))
    }
}

impl Drop for InEngine {
    fn drop(&mut self) {
        IN_ENGINE.with(|is_in| is_in.set(self.0));
    }
}

/// Marks the thread as the engine's while it polls the engine.
pub(crate) fn marked(
    engine: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = ()> + Send {
    let mut engine = engine.boxed();
    poll_fn(move |cx| {
        let _in_engine = InEngine::enter();
        engine.poll_unpin(cx)
    })
}

/// Loads the store, hands it to whoever opens it, and goes on as its engine.
pub(crate) async fn open_and_run(
    local: PeerId,
    datastore: Arc<dyn Datastore>,
    config: Config,
    mut opener: oneshot::Sender<Result<PeerStore, OpenError>>,
) {
    let clock = config.clock().clone();
    let started = clock.started();
    let now = now(&*clock, started);
    let load = async {
        let location = datastore.location();
        let loaded = persist::load(&*datastore, local, Arc::new(config), now).await?;
        Ok((loaded, location))
    };
    let load = load.instrument(tracing::debug_span!("PeerStore::load"));
    let loaded = futures::select_biased! {
        loaded = persist::caught("read", load).boxed().fuse() => Some(loaded),
        // Nobody waits any longer, perhaps because the datastore hangs.
        () = opener.cancellation().fuse() => None,
    };
    match loaded {
        Some(Ok(((state, report), location))) => {
            let inner = Inner::new(state, report, started);
            let elapsed = clock.elapsed().saturating_sub(now.elapsed);
            inner.meter().loaded(elapsed);
            opened(local, &report, elapsed, &location);
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

/// How the story of a node's log begins.
fn opened(local_peer_id: PeerId, report: &LoadReport, elapsed: Duration, location: &str) {
    let peers = report.peers;
    tracing::info!(%local_peer_id, peers, ?elapsed, location, "opened the peer store");
    tracing::debug!(?report, "loaded the peer store");
    if report.undecodable > 0 {
        tracing::warn!(
            entries = report.undecodable,
            location,
            "some entries cannot be decoded; they stay there until their peers are written or deleted"
        );
    }
    if report.left_on_disk > 0 {
        tracing::warn!(
            peers = report.left_on_disk,
            location,
            "not all peers have room in memory; `Config::max_peers` can be raised"
        );
    }
}

fn now(clock: &dyn Clock, started: SystemTime) -> Now {
    let elapsed = clock.elapsed();
    Now {
        wall: Timestamp::new(started, elapsed),
        elapsed,
    }
}
