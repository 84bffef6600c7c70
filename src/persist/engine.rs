//! The engine: one future that waits until something is due, and commits it.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use libp2p_identity::PeerId;
use smallvec::SmallVec;

use super::{
    codec, key,
    pending::{Begun, Change, Due, InFlight, Unsaved, Waiter},
};
use crate::{
    datastore::{Batch, Datastore, DatastoreError},
    event::Event,
    inner::Inner,
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

/// Metadata keys that one peer may have had under limits of earlier runs, when it is deleted.
const MAX_PURGED: usize = 1 << 16;

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
        loop {
            self.until_due().await;
            let Begun {
                changes,
                records,
                waiters,
                closing,
            } = self.store.with(|state, _| state.pending.begin());
            let outcome = self.commit(changes.into_vec(), records.into_vec()).await;
            if closing {
                self.close().await;
                self.end.last = Some((waiters, outcome));
                return;
            }
            answer(waiters, &outcome);
        }
    }

    /// Waits until a commit is due.
    async fn until_due(&self) {
        let mut alarm: Option<(Duration, BoxFuture<'static, ()>)> = None;
        poll_fn(|cx: &mut Context<'_>| {
            loop {
                let waker = cx.waker().clone();
                let (due, _before) = self.store.with(|state, now| {
                    let before = state.pending.set_engine(waker);
                    (state.pending.due(now.elapsed), before)
                });
                let at = match due {
                    Due::Commit => return Poll::Ready(()),
                    Due::Idle => return Poll::Pending,
                    Due::At(at) => at,
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

    /// Writes what was dirty; what it could not write is dirty again.
    async fn commit(
        &self,
        changes: Vec<(PeerId, Change)>,
        mut records: Vec<u32>,
    ) -> Result<(), Unsaved> {
        let in_flight = InFlight::new(&changes, PEERS_PER_COMMIT);
        self.store
            .with(|state, _| state.pending.set_in_flight(in_flight));
        let mut rest = changes.into_iter();
        let (mut unwritten, mut error) = (Vec::new(), None);
        while error.is_none() {
            let mut part: Vec<_> = rest.by_ref().take(PEERS_PER_COMMIT).collect();
            if part.len() < PEERS_PER_COMMIT {
                self.take_records(&mut records, &mut part);
            }
            if part.is_empty() {
                break;
            }
            match self.commit_part(&mut part).await {
                Ok(()) => {
                    let written = part.len();
                    self.store.with(|state, _| state.pending.committed(written));
                }
                Err(refused) => (unwritten, error) = (part, Some(Arc::new(refused))),
            }
        }
        let mut unwritten = unwritten.into_iter().chain(rest);
        loop {
            let page: Vec<_> = unwritten.by_ref().take(MARKED_PER_LOCK).collect();
            if page.is_empty() {
                break;
            }
            self.store.with(|state, now| state.give_back(page, now));
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
        let Some(error) = error else {
            return Ok(());
        };
        tracing::warn!(
            unsaved,
            error = &*error as &dyn std::error::Error,
            "could not save peers; nothing is lost, it will be tried again"
        );
        Err(Unsaved {
            peers: unsaved,
            error,
        })
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

    async fn commit_part(&self, part: &mut [(PeerId, Change)]) -> Result<(), DatastoreError> {
        let work = async {
            let batch = self.batch(part).await?;
            if batch.is_empty() {
                return Ok(());
            }
            tracing::debug!(peers = part.len(), keys = batch.len(), "committing peers");
            self.datastore.commit(batch).await
        };
        caught("commit", work).await
    }

    async fn batch(&self, part: &mut [(PeerId, Change)]) -> Result<Batch, DatastoreError> {
        let mut batch = Batch::default();
        let (mut seen, most) = (0, self.most_purged(part.len()));
        // First what goes, then what is written: the last operation of a key is the one that stands.
        for (peer, _) in part.iter().filter(|(_, change)| change.purge) {
            let b32 = key::b32(peer);
            batch.delete(key::addresses(&b32));
            batch.delete(key::protocols(&b32));
            batch.delete(key::public_key(&b32));
            let prefix = key::metadata_prefix(&b32);
            let mut entries = self.datastore.query(&prefix);
            while let Some(entry) = entries.next().await {
                let (key, _) = entry?;
                // A long key counts for what it takes.
                seen += 1 + key.len() / 256;
                if key.starts_with(&prefix) {
                    batch.delete(key);
                }
                if seen > most {
                    let what = "the metadata under this key has no end";
                    return Err(DatastoreError::failed("delete", prefix.as_str(), what));
                }
                breathe(seen).await;
            }
        }
        for page in part.chunks_mut(PEERS_PER_LOCK) {
            let names: SmallVec<[String; PEERS_PER_LOCK]> =
                page.iter().map(|(peer, _)| key::b32(peer)).collect();
            self.store.with(|state, _| {
                let persist_hearsay = state.config.persist_hearsay();
                for ((peer, change), b32) in page.iter_mut().zip(&names) {
                    let Some(slot) = state.table.find(peer) else {
                        continue;
                    };
                    let Some(view) = state.table.view(slot) else {
                        continue;
                    };
                    let saved = if persist_hearsay || view.class() > Class::Hearsay {
                        // What changed while it was hearsay was not written then.
                        let late = !persist_hearsay && view.saved().is_empty();
                        let whole = change.purge || late;
                        encode(&view, &state.model, change, whole, b32, &mut batch)
                    } else if !view.saved().is_empty() {
                        take_back(&view, change, b32, &mut batch);
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
        Ok(batch)
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

/// The end of the engine, however it comes.
struct End {
    store: Arc<Inner>,
    /// Who waits for the shutdown, and what became of its commit.
    last: Option<(Vec<Waiter>, Result<(), Unsaved>)>,
}

impl Drop for End {
    fn drop(&mut self) {
        let ((late, _waker), unsaved) = self.store.with(|state, _| {
            state.bus.close();
            (state.pending.close(), state.pending.unsaved())
        });
        self.store.engine_ended();
        // Without an answer, whoever waits learns that the store is closed.
        let Some((waiters, outcome)) = self.last.take() else {
            return;
        };
        answer(waiters, &outcome);
        // Whoever asked after the last commit had begun may have asked for changes that it did not hold.
        if outcome.is_err() || unsaved == 0 {
            answer(late, &outcome);
        }
    }
}

fn answer(waiters: Vec<Waiter>, outcome: &Result<(), Unsaved>) {
    for waiter in waiters {
        // Whoever asked may have given up.
        let _ = waiter.send(outcome.clone());
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
