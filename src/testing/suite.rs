//! Every rule of [`Datastore`], in one call.

use std::{any::Any, fmt, future::Future, panic::AssertUnwindSafe, time::Duration};

use futures::{
    FutureExt,
    future::{BoxFuture, Either, select},
};
use futures_timer::Delay;

use super::checks::{Check, Needs, Outcome, all};
use crate::datastore::Datastore;

/// 60 seconds for one check: far above what any of them needs, so that only what hangs runs into it.
pub const DEFAULT_CHECK_DEADLINE: Duration = Duration::from_secs(60);

/// Checks that a datastore keeps the rules of [`Datastore`].
///
/// `make` makes an empty datastore at each call, about 40 times, apart from the others. The checks that need a datastore
/// to be opened again are left out; [`Conformance::with_reopen`] adds them.
///
/// It runs on any runtime, or none, and takes seconds. It does not see whether a query holds a bounded part of the
/// result, or whether a commit survives a power cut: nothing outside of a datastore can.
///
/// # Panics
///
/// When a rule is broken, with a list of all that are. [`Conformance::run`] returns them instead.
///
/// ```
/// use libp2p_peerstore::{MemoryDatastore, testing};
///
/// # futures::executor::block_on(async {
/// testing::conformance(|| async { MemoryDatastore::default() }).await;
/// # });
/// ```
pub async fn conformance<D, F>(make: impl Fn() -> F + Send + Sync)
where
    D: Datastore,
    F: Future<Output = D> + Send,
{
    Conformance::new(make).run().await.assert();
}

type Make<'a, D> = Box<dyn Fn() -> BoxFuture<'a, D> + Send + Sync + 'a>;
type Reopen<'a, D> = Box<dyn Fn(D) -> BoxFuture<'a, D> + Send + Sync + 'a>;

/// [`conformance`] with choices.
///
/// ```
/// # #[cfg(feature = "redb")] {
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// use libp2p_peerstore::{RedbDatastore, testing::Conformance};
///
/// let folder = tempfile::tempdir()?;
/// let path = |n| folder.path().join(format!("{n}.redb"));
/// let (files, last) = (AtomicUsize::new(0), &AtomicUsize::new(0));
/// let checks = Conformance::new(|| async {
///     let n = files.fetch_add(1, Ordering::Relaxed);
///     last.store(n, Ordering::Relaxed);
///     RedbDatastore::open(path(n)).expect("a new file")
/// })
/// .with_reopen(|old| async move {
///     drop(old);
///     RedbDatastore::open(path(last.load(Ordering::Relaxed))).expect("the same file")
/// });
/// futures::executor::block_on(checks.run()).assert();
/// # }
/// # Ok::<_, std::io::Error>(())
/// ```
pub struct Conformance<'a, D> {
    make: Make<'a, D>,
    reopen: Option<Reopen<'a, D>>,
    deadline: Duration,
}

impl<D> fmt::Debug for Conformance<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conformance")
            .field("reopens", &self.reopen.is_some())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl<'a, D: Datastore> Conformance<'a, D> {
    /// `make` makes an empty datastore at each call.
    pub fn new<F>(make: impl Fn() -> F + Send + Sync + 'a) -> Self
    where
        F: Future<Output = D> + Send + 'a,
    {
        Self {
            make: Box::new(move || make().boxed()),
            reopen: None,
            deadline: DEFAULT_CHECK_DEADLINE,
        }
    }

    /// `reopen` gets the datastore that was made last and opens the same content anew. The datastore was closed, or
    /// not: a commit that returned is safe either way.
    pub fn with_reopen<F>(mut self, reopen: impl Fn(D) -> F + Send + Sync + 'a) -> Self
    where
        F: Future<Output = D> + Send + 'a,
    {
        self.reopen = Some(Box::new(move |datastore| reopen(datastore).boxed()));
        self
    }

    /// How long one check may take; [`DEFAULT_CHECK_DEADLINE`] by default. A datastore that blocks its thread for ever
    /// hangs the suite all the same.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs all checks, also after one has failed.
    pub async fn run(self) -> Report {
        let mut report = Report::default();
        let subject = Subject {
            make: self.make,
            reopen: self.reopen,
        };
        for check in all::<D>() {
            if check.needs == Needs::Reopen && subject.reopen.is_none() {
                report.left_out.push(check.name);
                continue;
            }
            match Self::one(&check, &subject, self.deadline).await {
                Ok(()) => report.passed.push(check.name),
                Err(found) => report.violations.push(Violation {
                    check: check.name,
                    rule: check.rule,
                    found,
                }),
            }
        }
        report
    }

    async fn one(check: &Check<D>, subject: &Subject<'a, D>, deadline: Duration) -> Outcome {
        let run = AssertUnwindSafe((check.run)(subject)).catch_unwind();
        match select(run, Delay::new(deadline)).await {
            Either::Left((Ok(outcome), _)) => outcome,
            Either::Left((Err(panic), _)) => Err(format!("it panicked: {}", message(&*panic))),
            Either::Right(_) => Err(format!("it did not end within {deadline:?}")),
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// The implementation under test.
pub(super) struct Subject<'a, D> {
    make: Make<'a, D>,
    reopen: Option<Reopen<'a, D>>,
}

impl<D: Datastore> Subject<'_, D> {
    pub(super) async fn make(&self) -> D {
        (self.make)().await
    }

    /// The same content, opened anew.
    pub(super) async fn reopen(&self, datastore: D) -> D {
        match &self.reopen {
            Some(reopen) => reopen(datastore).await,
            None => datastore,
        }
    }
}

/// What [`Conformance::run`] found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Report {
    /// The names of the checks that passed.
    pub passed: Vec<&'static str>,
    /// The names of the checks that were left out, as [`Conformance::with_reopen`] was not used.
    pub left_out: Vec<&'static str>,
    /// The rules that are broken.
    pub violations: Vec<Violation>,
}

impl Report {
    /// Panics with a list of the violations, if there are any.
    ///
    /// # Panics
    ///
    /// See above.
    pub fn assert(&self) {
        assert!(self.violations.is_empty(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, broken) = (self.passed.len(), self.violations.len());
        write!(f, "the datastore passes {passed} checks and fails {broken}")?;
        for violation in &self.violations {
            write!(f, "\n- {violation}")?;
        }
        Ok(())
    }
}

/// A rule that a datastore breaks.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Violation {
    /// The name of the check.
    pub check: &'static str,
    /// What the documentation of [`Datastore`] demands.
    pub rule: &'static str,
    /// What the datastore did.
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}. The rule: {}", self.check, self.found, self.rule)
    }
}
