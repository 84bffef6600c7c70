//! The engine: one future that waits until something is due, and commits it.

use std::{
    any::Any,
    collections::BTreeSet,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use libp2p_identity::PeerId;
use smallvec::SmallVec;
use tracing::Instrument;

use super::{
    change::Change,
    codec,
    dirty::InFlight,
    key,
    pending::{Begun, Due, Unsaved, Waiter},
    story::Story,
};
use crate::{
    datastore::{Batch, Datastore, DatastoreError},
    event::Event,
    inner::{InEngine, Inner, PAGE},
    quality::Model,
    record::{Books, Class},
    view::View,
};

/// Peers in one commit: a flush of everything is a row of commits, so that its copy in memory stays bounded.
const PEERS_PER_COMMIT: usize = 4_096;

/// Peers that are encoded under one hold of the store's lock.
const PEERS_PER_LOCK: usize = 16;

/// Peers that are marked under one hold of the store's lock.
const MARKED_PER_LOCK: usize = 256;

/// Metadata keys that one peer may have had under limits of earlier runs, when it is deleted. What is more goes in further
/// commits, so that a batch stays bounded.
const MAX_PURGED: usize = 1 << 16;

/// So many commits in a row delete what is too much for one, before that counts as a failure: a stream of keys may have
/// no end.
const PURGE_ROUNDS: usize = 8;

/// So often the rest is tried when the store closes. Nobody tries it later, and a failure may be the news that the
/// datastore has lost everything, or was to be opened anew.
const LAST_ROUNDS: usize = 3;

pub(crate) struct Engine {
    store: Arc<Inner>,
    datastore: Arc<dyn Datastore>,
    /// Dropped last: whoever is told of the end finds the datastore released.
    end: End,
}

impl Engine {
    pub(crate) fn new(store: Arc<Inner>, datastore: Arc<dyn Datastore>) -> Self {
        let end = End {
            store: store.clone(),
            last: None,
        };
        Self {
            store,
            datastore,
            end,
        }
    }

    /// Runs until the store is shut down or its last handle dropped.
    pub(crate) async fn run(mut self) {
        let mut story = Story::default();
        loop {
            self.until_due().await;
            let Saved {
                peers: saved,
                outcome,
                waiters,
                closing,
            } = self.save().await;
            if closing {
                self.close().await;
                let known = self.store.read(|state, _| state.table.len());
                Story::closed(saved, known, &outcome);
                self.end.last = Some((waiters, outcome));
                return;
            }
            story.tried(saved, &outcome, self.store.clock().elapsed());
            answer(waiters, &outcome);
        }
    }

    /// Writes all that is dirty, in as many commits as that takes.
    async fn save(&self) -> Saved {
        let (mut peers, mut all_waiters) = (0, Vec::new());
        let mut round = 0;
        loop {
            round += 1;
            let Begun {
                changes,
                records,
                waiters,
                closing,
            } = self.store.with(|state, _| state.pending.begin());
            all_waiters.extend(waiters);
            let may_postpone = round < PURGE_ROUNDS;
            let commit = self.commit(changes.into_vec(), records.into_vec(), may_postpone);
            let span = tracing::debug_span!("PeerStore::commit");
            let (saved, outcome) = commit.instrument(span).await;
            peers += saved;
            let again = match &outcome {
                Ok(Rest::Nothing) => {
                    // Whoever asked meanwhile asked for what this commit may not hold.
                    let is_asked = || self.store.read(|state, _| state.pending.is_asked());
                    closing && round < LAST_ROUNDS && is_asked()
                }
                Ok(Rest::Postponed) => true,
                Err(_) => closing && round < LAST_ROUNDS,
            };
            if !again {
                return Saved {
                    peers,
                    outcome: outcome.map(drop),
                    waiters: all_waiters,
                    closing,
                };
            }
        }
    }

    /// Waits until a commit is due. What expires meanwhile is collected, a little at a time.
    async fn until_due(&self) {
        let mut alarm: Option<(Duration, BoxFuture<'static, ()>)> = None;
        poll_fn(|cx: &mut Context<'_>| {
            loop {
                let waker = cx.waker().clone();
                let (more, due, expiry, _before) = self.store.with(|state, now| {
                    let before = state.pending.set_engine(waker);
                    let (more, expiry) = state.collect_for_engine(PAGE, now);
                    (more, state.pending.due(now.elapsed), expiry, before)
                });
                if more {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let expiry = expiry.map(|at| self.store.elapsed_at(at));
                let at = match (due, expiry) {
                    (Due::Commit, _) => return Poll::Ready(()),
                    (Due::Idle, None) => return Poll::Pending,
                    (Due::Idle, Some(at)) | (Due::At(at), None) => at,
                    (Due::At(at), Some(expiry)) => at.min(expiry),
                };
                let sleep = match &mut alarm {
                    Some((set, sleep)) if *set == at => sleep,
                    alarm => &mut alarm.insert((at, self.store.clock().sleep_until(at))).1,
                };
                if sleep.poll_unpin(cx).is_pending() {
                    return Poll::Pending;
                }
                // A timer may fire a little early: it is set anew then.
                alarm = None;
            }
        })
        .await;
    }

    /// Writes what was dirty; what it could not write is dirty again. Returns of how many peers it was written, too.
    async fn commit(
        &self,
        changes: Vec<(PeerId, Change)>,
        mut records: Vec<u32>,
        may_postpone: bool,
    ) -> (usize, Result<Rest, Unsaved>) {
        let in_flight = InFlight::new(&changes, PEERS_PER_COMMIT);
        self.store
            .with(|state, _| state.pending.set_in_flight(in_flight));
        let mut rest = changes.into_iter();
        let (mut unwritten, mut error, mut saved) = (Vec::new(), None, 0);
        let mut too_much = None;
        while error.is_none() {
            let mut part: Vec<_> = rest.by_ref().take(PEERS_PER_COMMIT).collect();
            if part.len() < PEERS_PER_COMMIT {
                self.take_records(&mut records, &mut part);
            }
            if part.is_empty() {
                break;
            }
            let peers = part.len();
            match self.commit_part(&mut part).await {
                Ok(postponed) => {
                    saved += part.len();
                    too_much = too_much.or(postponed.first().map(|(peer, _)| *peer));
                    self.give_back(postponed.into_iter());
                    self.store.with(|state, _| state.pending.committed(peers));
                }
                Err(refused) => (unwritten, error) = (part, Some(Arc::new(refused))),
            }
        }
        self.give_back(unwritten.into_iter().chain(rest));
        if let Some(peer) = too_much.filter(|_| error.is_none() && !may_postpone) {
            let prefix = key::metadata_prefix(&key::b32(&peer));
            let what =
                "there is more metadata under this key than is deleted at a time, if it has an end";
            error = Some(Arc::new(DatastoreError::failed("delete", prefix, what)));
        }
        for page in records.chunks(MARKED_PER_LOCK) {
            self.store
                .with(|state, now| state.pending.give_back_records(page, now.elapsed));
        }
        if matches!(error.as_deref(), Some(DatastoreError::Lost { .. })) {
            self.mark_everything();
        }
        let (unsaved, _over) = self.store.with(|state, now| {
            let (unsaved, over) = state.pending.end(error.is_some(), now.elapsed);
            if let Some(error) = error.clone() {
                state.bus.publish(Event::CommitFailed { error, unsaved });
            }
            (unsaved, over)
        });
        let outcome = match error {
            Some(error) => Err(Unsaved {
                peers: unsaved,
                error,
            }),
            None if too_much.is_some() => Ok(Rest::Postponed),
            None => Ok(Rest::Nothing),
        };
        (saved, outcome)
    }

    /// Marks again what was not written.
    fn give_back(&self, mut unwritten: impl Iterator<Item = (PeerId, Change)>) {
        loop {
            let page: Vec<_> = unwritten.by_ref().take(MARKED_PER_LOCK).collect();
            if page.is_empty() {
                break;
            }
            self.store.with(|state, now| state.give_back(page, now));
        }
    }

    /// Fills a part with what of the next records is not saved: from now on they are in flight.
    fn take_records(&self, slots: &mut Vec<u32>, part: &mut Vec<(PeerId, Change)>) {
        let before = part.len();
        while part.len() < PEERS_PER_COMMIT && !slots.is_empty() {
            let room = (PEERS_PER_COMMIT - part.len()).min(MARKED_PER_LOCK);
            let page = slots.split_off(slots.len().saturating_sub(room));
            self.store.with(|state, _| {
                part.extend(page.iter().filter_map(|slot| state.take_unwritten(*slot)));
            });
        }
        if part.len() > before {
            let in_flight = InFlight::new(part, part.len());
            self.store
                .with(|state, _| state.pending.set_in_flight(in_flight));
        }
    }

    /// Marks every peer, after the datastore has lost them. Whoever comes or goes meanwhile is marked for that.
    fn mark_everything(&self) {
        let mut at = Some(0);
        while let Some(start) = at {
            at = self.store.with(|state, now| {
                let (page, next) = state.table.page(start, MARKED_PER_LOCK);
                let peers: Vec<PeerId> = page.map(|view| view.id()).collect();
                for peer in peers {
                    state.pending.purge(peer, now.elapsed);
                }
                next
            });
        }
    }

    /// Writes a part, and takes out of it what is to be written in a further commit.
    async fn commit_part(
        &self,
        part: &mut Vec<(PeerId, Change)>,
    ) -> Result<Vec<(PeerId, Change)>, DatastoreError> {
        let (clock, meter) = (self.store.clock(), self.store.meter());
        let begun = clock.elapsed();
        let work = async {
            let (batch, postponed) = self.batch(part).await?;
            if batch.is_empty() {
                return Ok((false, postponed));
            }
            let peers = part.len() - postponed.len();
            tracing::debug!(peers, keys = batch.len(), "committing peers");
            meter.batch(&batch);
            self.datastore.commit(batch).await?;
            Ok((true, postponed))
        };
        let written = caught("commit", work).await;
        let took = clock.elapsed().saturating_sub(begun);
        match &written {
            Ok((true, postponed)) => meter.commit(Ok(part.len() - postponed.len()), took),
            Ok((false, _)) => {}
            Err(_) => meter.commit(Err(()), took),
        }
        // From the end on, so that the places of the others stay what they are.
        let postponed = written?.1.into_iter().rev();
        Ok(postponed.map(|at| part.swap_remove(at)).collect())
    }

    /// What is to be committed for these peers, and the places of those that are for a further commit, in order.
    async fn batch(
        &self,
        part: &mut [(PeerId, Change)],
    ) -> Result<(Batch, Vec<usize>), DatastoreError> {
        let (mut batch, mut postponed) = (Batch::default(), Vec::new());
        let mut budget = self.most_purged(part.len());
        let mut todo: Vec<usize> = (0..part.len()).collect();
        // Who is known to have too much waits for the others.
        todo.sort_by_key(|at| part[*at].1.surplus);
        // Once, and once more for those that were deleted meanwhile.
        while !todo.is_empty() {
            let mut writes = Vec::with_capacity(todo.len());
            for at in todo {
                let (peer, change) = &mut part[at];
                // First what goes, then what is written: the last operation of a key is the one that stands.
                if !change.purge || self.purge(peer, change, &mut budget, &mut batch).await? {
                    writes.push(at);
                } else {
                    postponed.push(at);
                }
            }
            todo = self.write(part, &writes, &mut batch);
        }
        postponed.sort_unstable();
        Ok((batch, postponed))
    }

    /// Deletes what stands in the datastore of a peer. `false` if that is too much for one commit: then some of its
    /// metadata goes with this one, and everything else stays together.
    async fn purge(
        &self,
        peer: &PeerId,
        change: &mut Change,
        budget: &mut usize,
        batch: &mut Batch,
    ) -> Result<bool, DatastoreError> {
        if *budget == 0 {
            return Ok(false);
        }
        let b32 = key::b32(peer);
        let prefix = key::metadata_prefix(&b32);
        let (mut found, mut seen, mut is_all) = (Vec::new(), 0, true);
        let mut entries = self.datastore.query(&prefix);
        while let Some(entry) = entries.next().await {
            let (key, _) = entry?;
            // A long key counts for what it takes.
            *budget = budget.saturating_sub(1 + key.len() / 256);
            if key.starts_with(&prefix) {
                found.push(key);
            }
            if *budget == 0 {
                is_all = false;
                break;
            }
            seen += 1;
            breathe(seen).await;
        }
        drop(entries);
        change.surplus |= !is_all;
        if is_all {
            batch.delete(key::addresses(&b32));
            batch.delete(key::protocols(&b32));
            batch.delete(key::public_key(&b32));
        } else {
            // What a peer still has may have been promised, and is written with the last of these commits only.
            let held: BTreeSet<String> = self.store.read(|state, _| {
                let view = state.table.get(peer);
                view.map(|view| view.metadata().into_keys().collect())
                    .unwrap_or_default()
            });
            found.retain(|key| !held.contains(&key[prefix.len()..]));
        }
        found.into_iter().for_each(|key| batch.delete(key));
        Ok(is_all)
    }

    /// Writes what changed of these peers, each as it is at one moment. Returns those that were deleted since the commit
    /// began, of which everything is to go first.
    fn write(
        &self,
        part: &mut [(PeerId, Change)],
        places: &[usize],
        batch: &mut Batch,
    ) -> Vec<usize> {
        let mut deleted = Vec::new();
        for page in places.chunks(PEERS_PER_LOCK) {
            let names: SmallVec<[String; PEERS_PER_LOCK]> =
                page.iter().map(|at| key::b32(&part[*at].0)).collect();
            self.store.with(|state, _| {
                let persist_hearsay = state.config.persist_hearsay();
                for (at, b32) in page.iter().zip(&names) {
                    let (peer, change) = &mut part[*at];
                    let slot = state.table.find(peer);
                    let packed = slot.and_then(|slot| state.table.packed(slot));
                    // Of its other books, too: a new list of protocols beside the old addresses was never true.
                    if change.note_since(state.pending.marked_since(peer, packed)) {
                        deleted.push(*at);
                        continue;
                    }
                    let Some(slot) = slot else {
                        continue;
                    };
                    let Some(view) = state.table.view(slot) else {
                        continue;
                    };
                    let saved = if persist_hearsay || view.class() > Class::Hearsay {
                        // What changed while it was hearsay was not written then.
                        let late = !persist_hearsay && view.saved().is_empty();
                        let whole = change.purge || late;
                        encode(&view, &state.model, change, whole, b32, batch)
                    } else if !view.saved().is_empty() {
                        take_back(&view, change, b32, batch);
                        Books::empty()
                    } else {
                        continue;
                    };
                    if let Some(packed) = state.table.packed_mut(slot) {
                        packed.set_saved(saved);
                    }
                }
            });
        }
        deleted
    }

    /// How many entries are read in one commit to find the metadata of peers that go.
    fn most_purged(&self, peers: usize) -> usize {
        let per_peer = self.store.config().max_metadata_per_peer().get().max(64);
        peers
            .saturating_mul(per_peer)
            .saturating_mul(4)
            .saturating_add(MAX_PURGED)
    }

    /// Closes the datastore, whatever became of the last commit.
    async fn close(&self) {
        let closed = caught("close", async { self.datastore.close().await }).await;
        if let Err(error) = closed {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "could not close the datastore in order"
            );
        }
    }
}

/// What a round of commits came to.
struct Saved {
    peers: usize,
    outcome: Result<(), Unsaved>,
    waiters: Vec<Waiter>,
    /// Whether the datastore is to be closed now.
    closing: bool,
}

/// What a commit that succeeded has left for the next one.
enum Rest {
    Nothing,
    Postponed,
}

/// The end of the engine, however it comes.
struct End {
    store: Arc<Inner>,
    /// Who waits for the shutdown, and what became of its commit.
    last: Option<(Vec<Waiter>, Result<(), Unsaved>)>,
}

impl Drop for End {
    fn drop(&mut self) {
        // Wakers that panic are caught, on whatever thread an executor drops the engine.
        let _in_engine = InEngine::enter();
        let ((late, _waker), unsaved) = self.store.with(|state, _| {
            state.bus.close();
            (state.pending.close(), state.pending.unsaved())
        });
        self.store.engine_ended();
        // Without an answer, whoever waits learns that the store is closed.
        let Some((waiters, outcome)) = self.last.take() else {
            late.into_iter().for_each(|waiter| told(|| drop(waiter)));
            return;
        };
        answer(waiters, &outcome);
        // Whoever asked after the last commit had begun may have asked for changes that it did not hold.
        if outcome.is_err() || unsaved == 0 {
            answer(late, &outcome);
        } else {
            late.into_iter().for_each(|waiter| told(|| drop(waiter)));
        }
    }
}

fn answer(waiters: Vec<Waiter>, outcome: &Result<(), Unsaved>) {
    for waiter in waiters {
        // Whoever asked may have given up.
        told(|| drop(waiter.send(outcome.clone())));
    }
}

/// Wakes somebody, whose panic is not to end the engine.
fn told(tell: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(tell)).is_err() {
        tracing::error!("a task that waits for the peer store panicked when it was woken");
    }
}

/// Writes what changed of a peer, or the whole of it, as it is now. Returns of which books something may stand in
/// the datastore from now on: also a commit that failed may have been applied.
fn encode(
    view: &View<'_>,
    model: &Model,
    change: &Change,
    whole: bool,
    b32: &str,
    batch: &mut Batch,
) -> Books {
    let books = if whole { Books::all() } else { change.books };
    let mut saved = view.saved();
    let mut write = |book: Books, key: String, value: Option<Vec<u8>>| match value {
        Some(value) => {
            saved.insert(book);
            batch.put(key, value);
        }
        None if saved.contains(book) => batch.delete(key),
        None => {}
    };
    if books.contains(Books::ADDRESSES) {
        let value = codec::encode_addresses(view, model);
        write(Books::ADDRESSES, key::addresses(b32), value);
    }
    if books.contains(Books::PROTOCOLS) {
        let value = codec::encode_protocols(view);
        write(Books::PROTOCOLS, key::protocols(b32), value);
    }
    if books.contains(Books::KEY) {
        let key = view.rare().and_then(|rare| rare.public_key.as_deref());
        let value = key.map(codec::encode_public_key);
        write(Books::KEY, key::public_key(b32), value);
    }
    if whole {
        for (name, value) in view.metadata() {
            write(Books::METADATA, key::metadata(b32, &name), Some(value));
        }
    } else {
        for name in &change.metadata {
            let value = view.metadata_value(name).map(<[u8]>::to_vec);
            write(Books::METADATA, key::metadata(b32, name), value);
        }
    }
    saved
}

/// Takes back what was written of a peer that is not worth it any longer.
fn take_back(view: &View<'_>, change: &mut Change, b32: &str, batch: &mut Batch) {
    batch.delete(key::addresses(b32));
    batch.delete(key::protocols(b32));
    batch.delete(key::public_key(b32));
    for name in view.metadata().keys() {
        batch.delete(key::metadata(b32, name));
    }
    for name in &change.metadata {
        batch.delete(key::metadata(b32, name));
    }
    // If this commit fails, the next one takes back what may still be there.
    change.purge = true;
}

/// Lets others have a turn now and then in a loop over a stream that is always ready, and that may never end.
pub(super) async fn breathe(turn: usize) {
    let mut rested = !turn.is_multiple_of(128);
    poll_fn(|cx| {
        if std::mem::replace(&mut rested, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Runs a call of the datastore, and makes an error of its panic.
pub(crate) async fn caught<T>(
    operation: &'static str,
    work: impl Future<Output = Result<T, DatastoreError>>,
) -> Result<T, DatastoreError> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => Err(DatastoreError::Panicked {
            operation,
            message: panic_message(&*panic),
        }),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
