//! A datastore that fails when it is told to.

use std::{collections::BTreeMap, fmt};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream, stream::BoxStream};

use super::waiting::Waiting;
use crate::datastore::{Batch, Datastore, DatastoreError, KeyValue, MemoryDatastore};

/// What a call does in place of succeeding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It does nothing, and returns an error.
    Fail,
    /// It does everything, and returns an error all the same.
    FailAfterApplying,
    /// It panics.
    Panic,
}

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Call {
    /// [`Datastore::get`], and `has` which rests on it.
    Get,
    /// [`Datastore::query`].
    Query,
    /// [`Datastore::commit`], and `put` and `delete` which rest on it.
    Commit,
    /// [`Datastore::close`].
    Close,
}

/// Stands before another datastore and fails, panics or hangs when it is told to. Clones share their orders.
///
/// Without orders every call goes through. Calls count from 0, from the moment of the order on.
#[derive(Debug, Clone, Default)]
pub struct FaultyDatastore<D = MemoryDatastore> {
    inner: D,
    orders: Waiting<Orders>,
}

#[derive(Default)]
struct Orders {
    /// How many calls of each kind there were.
    calls: BTreeMap<Call, usize>,
    /// Which of them fail, and how.
    faults: BTreeMap<(Call, usize), Fault>,
    random: Option<Random>,
    held: Vec<Call>,
    /// How many held calls may go on all the same.
    let_through: usize,
    during_commit: Option<Box<dyn FnOnce() + Send>>,
}

#[derive(Debug)]
struct Random {
    rng: fastrand::Rng,
    probability: f64,
    faults: Vec<Fault>,
}

impl Random {
    fn next(&mut self) -> Option<Fault> {
        let fails = self.rng.f64() < self.probability;
        let fault = self.rng.choice(&self.faults);
        fault.copied().filter(|_| fails)
    }
}

impl fmt::Debug for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Orders")
            .field("calls", &self.calls)
            .field("faults", &self.faults)
            .field("random", &self.random)
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

impl<D: Datastore> FaultyDatastore<D> {
    /// Stands before `inner`.
    pub fn new(inner: D) -> Self {
        Self {
            inner,
            orders: Waiting::default(),
        }
    }

    /// The datastore behind it, for a look at what was really written.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// The `n`-th commit from now on fails: 0 is the next one. More orders add up.
    pub fn fail_commit(&self, n: usize, fault: Fault) {
        self.fail(Call::Commit, n, fault);
    }

    /// As [`FaultyDatastore::fail_commit`], for a call of any kind. A query fails with its first entry;
    /// [`Fault::FailAfterApplying`] makes it yield an error behind its last one.
    pub fn fail(&self, call: Call, n: usize, fault: Fault) {
        self.orders.change(|orders| {
            let made = orders.calls.get(&call).copied().unwrap_or_default();
            orders.faults.insert((call, made + n), fault);
        });
    }

    /// Each commit from now on fails with this probability (0 to 1), in one of these ways. The same seed gives the same
    /// sequence.
    pub fn fail_commits_at_random(
        &self,
        seed: u64,
        probability: f64,
        faults: impl IntoIterator<Item = Fault>,
    ) {
        let random = Random {
            rng: fastrand::Rng::with_seed(seed),
            probability,
            faults: faults.into_iter().collect(),
        };
        self.orders.change(|orders| orders.random = Some(random));
    }

    /// Nothing fails any more. What hangs goes on hanging.
    pub fn recover(&self) {
        self.orders.change(|orders| {
            orders.faults.clear();
            orders.random = None;
        });
    }

    /// Calls of this kind hang from now on, before they do anything.
    pub fn hold(&self, call: Call) {
        self.orders.change(|orders| orders.held.push(call));
    }

    /// Lets one call go on that hangs, or the next one that would: a slow datastore, by hand.
    pub fn release_one(&self) {
        self.orders.change(|orders| orders.let_through += 1);
    }

    /// Whatever hangs goes on, and nothing hangs from now on.
    pub fn release(&self) {
        self.orders.change(|orders| {
            orders.held.clear();
            orders.let_through = 0;
        });
    }

    /// Runs `act` once, inside the next commit, before it hangs, fails or writes, on whatever thread that runs on.
    pub fn during_next_commit(&self, act: impl FnOnce() + Send + 'static) {
        self.orders
            .change(|orders| orders.during_commit = Some(Box::new(act)));
    }

    /// What this call shall do. Counted when it is made.
    fn next(&self, call: Call) -> Option<Fault> {
        self.orders.change(|orders| {
            let made = orders.calls.entry(call).or_default();
            let at = (call, *made);
            *made += 1;
            let ordered = orders.faults.remove(&at);
            let random = orders.random.as_mut().filter(|_| call == Call::Commit);
            let random = random.and_then(Random::next);
            ordered.or(random)
        })
    }

    /// Waits while calls of this kind hang.
    async fn pass(&self, call: Call) {
        loop {
            let passes = |orders: &Orders| !orders.held.contains(&call) || orders.let_through > 0;
            self.orders.until(passes).await;
            // Another call may have taken the one permission meanwhile.
            let passed = self.orders.change(|orders| {
                if orders.held.contains(&call) {
                    orders
                        .let_through
                        .checked_sub(1)
                        .map(|left| orders.let_through = left)
                } else {
                    Some(())
                }
            });
            if passed.is_some() {
                return;
            }
        }
    }
}

impl Call {
    fn name(self) -> &'static str {
        match self {
            Call::Get => "get",
            Call::Query => "query",
            Call::Commit => "commit",
            Call::Close => "close",
        }
    }
}

fn refused(call: Call) -> DatastoreError {
    let operation = match call {
        Call::Get | Call::Query => "read",
        Call::Commit => "commit",
        Call::Close => "close",
    };
    DatastoreError::failed(operation, "faulty datastore", "told to fail")
}

/// Fails in place of the work, or after it.
async fn act<T>(
    call: Call,
    fault: Option<Fault>,
    work: BoxFuture<'_, Result<T, DatastoreError>>,
) -> Result<T, DatastoreError> {
    match fault {
        None => work.await,
        Some(Fault::Fail) => Err(refused(call)),
        Some(Fault::FailAfterApplying) => work.await.and(Err(refused(call))),
        Some(Fault::Panic) => panic!("told to panic in {}", call.name()),
    }
}

impl<D: Datastore> Datastore for FaultyDatastore<D> {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        async move {
            self.pass(Call::Get).await;
            act(Call::Get, self.next(Call::Get), self.inner.get(key)).await
        }
        .boxed()
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        let fault = self.next(Call::Query);
        assert!(fault != Some(Fault::Panic), "told to panic in query");
        let entries = async move {
            self.pass(Call::Query).await;
            let error = || stream::iter([Err(refused(Call::Query))]);
            match fault {
                None => self.inner.query(prefix),
                Some(Fault::FailAfterApplying) => self.inner.query(prefix).chain(error()).boxed(),
                Some(_) => error().boxed(),
            }
        };
        stream::once(entries).flatten().boxed()
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        async move {
            let during = self.orders.change(|orders| orders.during_commit.take());
            if let Some(during) = during {
                during();
            }
            self.pass(Call::Commit).await;
            let fault = self.next(Call::Commit);
            act(Call::Commit, fault, self.inner.commit(batch)).await
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DatastoreError>> {
        let fault = self.next(Call::Close);
        assert!(fault != Some(Fault::Panic), "told to panic in close");
        async move {
            self.pass(Call::Close).await;
            act(Call::Close, fault, self.inner.close()).await
        }
        .boxed()
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}
