//! The conformance suite notices what is wrong with a datastore: one flaw after the other, and every check at least
//! once.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    panic,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    thread::{self, ThreadId},
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    executor::block_on,
    future::{BoxFuture, pending, poll_fn},
    stream::{self, BoxStream},
};
use libp2p_peerstore::{
    Batch, Datastore, DatastoreError, KeyValue, MemoryDatastore,
    testing::{Conformance, DEFAULT_CHECK_DEADLINE, Report},
};

/// What is wrong with [`Flawed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    SharesItsContent,
    AbsentIsAnError,
    DeletingNothingIsAnError,
    DeletesNothing,
    DeletesWhatIsBelow,
    KeepsTheFirstValue,
    EmptyIsAbsent,
    ValuesAreText,
    ValuesAreCut,
    KeysEndAtZero,
    KeysHaveNoCase,
    KeysArePaths,
    KeysAreShort,
    HasIsAlwaysTrue,
    PutIsForgotten,
    MixedBatchesLoseDeletions,
    EmptyBatchesFail,
    BatchesAreInsertions,
    BatchesAreLimited,
    EveryTenthCommitIsLost,
    PrefixesArePaths,
    PrefixesArePatterns,
    PagesOverlap,
    PagesLeaveGaps,
    QueriesLockCommits,
    DroppedQueriesLockCommits,
    QueriesShareACursor,
    QueriesPageByNumber,
    ReadsFailDuringCommits,
    IsBoundToItsThread,
    OneReaderAtATime,
    FuturesAreBoundToTheirThread,
    WorksBeforeItIsPolled,
    YieldsBetweenKeys,
    TakesAndPutsBack,
    CloseFails,
    PanicsOnceClosed,
    GoesOnAfterAnError,
    WritesWhenItIsClosed,
    IsLostWithoutClosing,
    ForgetsLargeValues,
    OpeningAddsAKey,
}

use Flaw as F;

/// Each flaw, and a check that must notice it.
const FLAWS: [(Flaw, &str); 42] = [
    (F::SharesItsContent, "a_new_one_is_empty"),
    (F::AbsentIsAnError, "an_absent_key_is_none"),
    (F::DeletingNothingIsAnError, "an_absent_key_is_none"),
    (F::DeletesNothing, "what_is_deleted_is_gone"),
    (F::DeletesWhatIsBelow, "what_is_deleted_is_gone"),
    (F::KeepsTheFirstValue, "the_last_put_counts"),
    (F::EmptyIsAbsent, "an_empty_value_is_a_value"),
    (F::ValuesAreText, "values_are_bytes"),
    (F::ValuesAreCut, "large_values_are_kept"),
    (F::KeysEndAtZero, "a_key_may_hold_any_character"),
    (F::KeysHaveNoCase, "similar_keys_are_apart"),
    (F::KeysArePaths, "similar_keys_are_apart"),
    (F::KeysAreShort, "long_keys_are_kept"),
    (F::HasIsAlwaysTrue, "the_short_calls_agree_with_the_others"),
    (F::PutIsForgotten, "the_short_calls_agree_with_the_others"),
    (F::MixedBatchesLoseDeletions, "a_batch_puts_and_deletes"),
    (F::EmptyBatchesFail, "an_empty_batch_changes_nothing"),
    (F::BatchesAreInsertions, "a_batch_may_be_committed_twice"),
    (F::BatchesAreLimited, "a_large_batch_is_applied"),
    (F::EveryTenthCommitIsLost, "commits_follow_each_other"),
    (
        F::PrefixesArePaths,
        "a_query_answers_the_prefix_and_no_other",
    ),
    (
        F::PrefixesArePatterns,
        "a_query_answers_the_prefix_and_no_other",
    ),
    (F::PagesOverlap, "each_key_is_answered_once"),
    (F::PagesLeaveGaps, "each_key_is_answered_once"),
    (
        F::QueriesLockCommits,
        "a_query_that_nobody_reads_holds_nothing_up",
    ),
    (F::DroppedQueriesLockCommits, "a_query_may_be_dropped"),
    (F::QueriesShareACursor, "queries_do_not_disturb_each_other"),
    (F::QueriesPageByNumber, "a_query_goes_on_while_others_write"),
    (F::ReadsFailDuringCommits, "reads_overlap_with_a_commit"),
    (F::IsBoundToItsThread, "it_works_on_a_plain_thread"),
    (F::OneReaderAtATime, "threads_may_read_at_once"),
    (
        F::FuturesAreBoundToTheirThread,
        "a_future_may_change_threads",
    ),
    (
        F::WorksBeforeItIsPolled,
        "a_commit_that_was_never_polled_is_whole_or_not_at_all",
    ),
    (
        F::YieldsBetweenKeys,
        "a_commit_that_is_dropped_half_way_is_whole_or_not_at_all",
    ),
    (F::TakesAndPutsBack, "a_read_may_be_dropped_half_way"),
    (F::CloseFails, "closing_is_no_error"),
    (
        F::PanicsOnceClosed,
        "calls_after_closing_may_fail_and_nothing_worse",
    ),
    (
        F::GoesOnAfterAnError,
        "calls_after_closing_may_fail_and_nothing_worse",
    ),
    (
        F::WritesWhenItIsClosed,
        "what_was_committed_is_there_without_closing",
    ),
    (
        F::IsLostWithoutClosing,
        "what_was_cut_short_is_whole_or_not_at_all",
    ),
    (
        F::ForgetsLargeValues,
        "what_was_committed_is_there_after_closing",
    ),
    (F::OpeningAddsAKey, "it_may_be_opened_many_times"),
];

/// A datastore in memory with one flaw.
struct Flawed {
    flaw: Flaw,
    memory: MemoryDatastore,
    /// What survives.
    disk: MemoryDatastore,
    thread: ThreadId,
    closed: AtomicBool,
    busy: AtomicBool,
    readers: AtomicUsize,
    commits: AtomicUsize,
    /// Queries that keep commits out.
    locks: Arc<AtomicUsize>,
    cursor: AtomicUsize,
}

impl Flawed {
    fn new(flaw: Flaw, memory: MemoryDatastore) -> Self {
        Self {
            flaw,
            disk: memory.clone(),
            memory,
            thread: thread::current().id(),
            closed: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            readers: AtomicUsize::new(0),
            commits: AtomicUsize::new(0),
            locks: Arc::default(),
            cursor: AtomicUsize::new(0),
        }
    }

    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    fn key(&self, key: &str) -> String {
        match self.flaw {
            F::KeysEndAtZero => key.split('\0').next().unwrap().to_owned(),
            F::KeysHaveNoCase => key.to_lowercase(),
            F::KeysArePaths => {
                let mut parts: Vec<&str> = Vec::new();
                for part in key
                    .split('/')
                    .filter(|part| !part.is_empty() && *part != ".")
                {
                    if part == ".." {
                        parts.pop();
                    } else {
                        parts.push(part);
                    }
                }
                format!("/{}", parts.join("/"))
            }
            F::KeysAreShort => key.chars().take(255).collect(),
            _ => key.to_owned(),
        }
    }

    fn value(&self, mut value: Vec<u8>) -> Vec<u8> {
        match self.flaw {
            F::ValuesAreText => String::from_utf8_lossy(&value).into_owned().into_bytes(),
            F::ValuesAreCut => {
                value.truncate(65_535);
                value
            }
            _ => value,
        }
    }

    fn enter(&self) -> Result<(), DatastoreError> {
        let closed = self.closed.load(SeqCst);
        assert!(!(closed && self.is(F::PanicsOnceClosed)), "flawed");
        let here = thread::current().id() == self.thread;
        assert!(here || !self.is(F::IsBoundToItsThread), "flawed");
        if closed && self.is(F::GoesOnAfterAnError) {
            return refused();
        }
        Ok(())
    }

    fn one(&self, key: String, value: Option<Vec<u8>>) {
        let known = self.knows(&key);
        let mut batch = Batch::default();
        match value {
            Some(_) if known && self.is(F::KeepsTheFirstValue) => {}
            Some(value) if value.is_empty() && self.is(F::EmptyIsAbsent) => batch.delete(key),
            Some(value) => batch.put(key, self.value(value)),
            None if self.is(F::DeletesNothing) => {}
            None if self.is(F::DeletesWhatIsBelow) => {
                let below = self
                    .all()
                    .into_iter()
                    .filter(|(other, _)| other.starts_with(&key));
                below.for_each(|(other, _)| batch.delete(other));
            }
            None => batch.delete(key),
        }
        block_now(self.memory.commit(batch));
    }

    async fn apply(&self, batch: Batch) -> Result<(), DatastoreError> {
        let commits = self.commits.fetch_add(1, SeqCst);
        if batch.is_empty() && self.is(F::EmptyBatchesFail) {
            return refused();
        }
        if self.is(F::EveryTenthCommitIsLost) && commits % 10 == 9 {
            return Ok(());
        }
        while self.locks.load(SeqCst) > 0 {
            pending::<()>().await;
        }
        let deletes_absent = batch
            .iter()
            .any(|(key, value)| value.is_none() && !self.knows(key));
        let puts_known = batch
            .iter()
            .any(|(key, value)| value.is_some() && self.knows(key));
        let strict = self.is(F::BatchesAreInsertions) && batch.len() > 1 && puts_known;
        if (deletes_absent && self.is(F::DeletingNothingIsAnError)) || strict {
            return refused();
        }
        let mixed = batch.iter().any(|(_, value)| value.is_some());
        if self.is(F::ReadsFailDuringCommits) {
            self.busy.store(true, SeqCst);
            a_while().await;
            self.busy.store(false, SeqCst);
        }
        for (n, (key, value)) in batch.into_iter().enumerate() {
            let lost = value.is_none() && mixed && self.is(F::MixedBatchesLoseDeletions);
            if lost || (n >= 1_000 && self.is(F::BatchesAreLimited)) {
                continue;
            }
            if self.is(F::YieldsBetweenKeys) || self.is(F::IsLostWithoutClosing) {
                a_while().await;
            }
            self.one(self.key(&key), value);
        }
        Ok(())
    }

    fn knows(&self, key: &str) -> bool {
        block_now(self.memory.get(key)).is_some()
    }

    fn all(&self) -> Vec<KeyValue> {
        self.memory.entries()
    }

    fn matches(&self, prefix: &str, key: &str) -> bool {
        match self.flaw {
            F::PrefixesArePaths => {
                let folder = prefix.trim_end_matches('/');
                key.strip_prefix(folder)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            F::PrefixesArePatterns if prefix.contains(['_', '%', '*', '?']) => {
                let end = prefix.find(['_', '%', '*', '?']).unwrap();
                key.starts_with(&prefix[..end])
            }
            _ => key.starts_with(prefix),
        }
    }
}

fn refused<T>() -> Result<T, DatastoreError> {
    Err(DatastoreError::failed("do that", "flawed", "a flaw"))
}

fn block_now<T>(future: BoxFuture<'_, Result<T, DatastoreError>>) -> T {
    future.now_or_never().unwrap().unwrap()
}

async fn a_while() {
    let mut passed = false;
    poll_fn(|cx| {
        if passed {
            return Poll::Ready(());
        }
        passed = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Keeps commits out while it lives, or for longer.
struct Lock(Arc<AtomicUsize>, Flaw);

impl Drop for Lock {
    fn drop(&mut self) {
        if self.1 == F::QueriesLockCommits {
            self.0.fetch_sub(1, SeqCst);
        }
    }
}

impl Datastore for Flawed {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        async move {
            self.enter()?;
            if self.busy.load(SeqCst) {
                return refused();
            }
            if self.is(F::OneReaderAtATime) {
                let others = self.readers.fetch_add(1, SeqCst);
                thread::sleep(Duration::from_micros(200));
                self.readers.fetch_sub(1, SeqCst);
                if others > 0 {
                    return refused();
                }
            }
            if self.is(F::FuturesAreBoundToTheirThread) {
                let begun = thread::current().id();
                a_while().await;
                assert_eq!(begun, thread::current().id(), "flawed");
            }
            let key = self.key(key);
            let value = self.memory.get(&key).await?;
            if self.is(F::TakesAndPutsBack)
                && let Some(value) = value.clone()
            {
                self.memory.delete(&key).await?;
                a_while().await;
                self.memory.put(&key, value).await?;
            }
            match value {
                None if self.is(F::AbsentIsAnError) => refused(),
                value => Ok(value),
            }
        }
        .boxed()
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        if self.enter().is_err() {
            return stream::repeat_with(refused).take(2).boxed();
        }
        let found = self
            .all()
            .into_iter()
            .filter(move |(key, _)| self.matches(prefix, key));
        let found: Vec<KeyValue> = found.collect();
        match self.flaw {
            F::PagesOverlap => {
                let edge = found.get(256).cloned();
                stream::iter(found.into_iter().chain(edge).map(Ok)).boxed()
            }
            F::PagesLeaveGaps => {
                let entries = found
                    .into_iter()
                    .enumerate()
                    .filter(|(n, _)| n % 1_025 != 1_024);
                stream::iter(entries.map(|(_, entry)| Ok(entry))).boxed()
            }
            F::QueriesLockCommits | F::DroppedQueriesLockCommits => {
                let lock = (!found.is_empty()).then(|| {
                    self.locks.fetch_add(1, SeqCst);
                    Lock(self.locks.clone(), self.flaw)
                });
                let end = move || {
                    // Read to its end, it is released.
                    if let Some(lock) = &lock {
                        lock.0.store(0, SeqCst);
                    }
                    None
                };
                let entries = stream::iter(found.into_iter().map(Ok));
                entries.chain(stream::iter(std::iter::from_fn(end))).boxed()
            }
            F::QueriesShareACursor => {
                self.cursor.store(0, SeqCst);
                let next = move || {
                    let at = self.cursor.fetch_add(1, SeqCst);
                    found.get(at).cloned().map(Ok)
                };
                stream::iter(std::iter::from_fn(next)).boxed()
            }
            F::QueriesPageByNumber => {
                let next = move |at: usize| async move {
                    let entries = self.all().into_iter();
                    let entries = entries.filter(|(key, _)| self.matches(prefix, key));
                    let page: Vec<_> = entries.skip(at).take(100).map(Ok).collect();
                    (!page.is_empty()).then(|| (stream::iter(page), at + 100))
                };
                stream::unfold(0, next).flatten().boxed()
            }
            _ => stream::iter(found.into_iter().map(Ok)).boxed(),
        }
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        if self.is(F::WorksBeforeItIsPolled) {
            let half = batch.len().div_ceil(2);
            for (key, value) in batch.clone().into_iter().take(half) {
                self.one(key, value);
            }
        }
        async move {
            self.enter()?;
            self.apply(batch).await?;
            if self.is(F::ForgetsLargeValues) || !self.keeps_back() {
                self.save();
            }
            Ok(())
        }
        .boxed()
    }

    fn has<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, DatastoreError>> {
        async move {
            let has = self.get(key).await?.is_some();
            Ok(has || self.is(F::HasIsAlwaysTrue))
        }
        .boxed()
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        value: Vec<u8>,
    ) -> BoxFuture<'a, Result<(), DatastoreError>> {
        if self.is(F::PutIsForgotten) {
            return async { Ok(()) }.boxed();
        }
        let mut batch = Batch::default();
        batch.put(key, value);
        self.commit(batch)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DatastoreError>> {
        async move {
            self.closed.store(true, SeqCst);
            self.save();
            match self.is(F::CloseFails) {
                true => refused(),
                false => Ok(()),
            }
        }
        .boxed()
    }
}

impl Flawed {
    fn keeps_back(&self) -> bool {
        self.is(F::WritesWhenItIsClosed)
    }

    /// Writes what is in memory to what survives.
    fn save(&self) {
        if !self.keeps_back() && !self.is(F::ForgetsLargeValues) {
            return;
        }
        let mut batch = Batch::default();
        for (key, _) in self.disk.entries() {
            batch.delete(key);
        }
        for (key, value) in self.memory.entries() {
            if value.len() < 100_000 || !self.is(F::ForgetsLargeValues) {
                batch.put(key, value);
            }
        }
        block_now(self.disk.commit(batch));
    }
}

fn copy(memory: &MemoryDatastore) -> MemoryDatastore {
    let copy = MemoryDatastore::default();
    for (key, value) in memory.entries() {
        block_now(copy.put(&key, value));
    }
    copy
}

/// What the suite says of a flaw.
fn run(flaw: Flaw) -> Report {
    let common = MemoryDatastore::default();
    let make = || async {
        let memory = match flaw {
            F::SharesItsContent => common.clone(),
            _ => MemoryDatastore::default(),
        };
        let mut made = Flawed::new(flaw, memory);
        if made.keeps_back() || flaw == F::ForgetsLargeValues {
            made.disk = MemoryDatastore::default();
        }
        made
    };
    let reopen = |old: Flawed| async move {
        let mut again = Flawed::new(flaw, copy(&old.disk));
        if again.keeps_back() || flaw == F::ForgetsLargeValues {
            again.disk = copy(&old.disk);
        }
        if flaw == F::OpeningAddsAKey {
            block_now(again.memory.put("/opened", Vec::new()));
        }
        again
    };
    let suite = Conformance::new(make).with_reopen(reopen);
    // Some flaws hang.
    let deadline = match flaw {
        F::None => DEFAULT_CHECK_DEADLINE,
        _ => Duration::from_secs(3),
    };
    block_on(suite.with_deadline(deadline).run())
}

#[test]
fn every_flaw_is_noticed_and_every_check_notices_one() {
    // Flaws that panic would fill the screen.
    panic::set_hook(Box::new(|_| {}));
    let results: Vec<_> = thread::scope(|scope| {
        let run = |(flaw, check)| scope.spawn(move || (flaw, check, run(flaw)));
        let threads: Vec<_> = FLAWS.into_iter().map(run).collect();
        let results = threads.into_iter().map(|thread| thread.join().unwrap());
        results.collect()
    });
    let sound = run(F::None);
    let _ = panic::take_hook();
    sound.assert();
    let missed = results.into_iter().filter_map(|(flaw, check, report)| {
        let noticed: Vec<&str> = report.violations.iter().map(|found| found.check).collect();
        let missed = !noticed.contains(&check);
        missed.then(|| format!("{flaw:?} is not noticed by {check}, but by {noticed:?}"))
    });
    let missed: Vec<String> = missed.collect();
    assert!(missed.is_empty(), "{missed:#?}");
    let mut unused: BTreeSet<&str> = sound.passed.into_iter().collect();
    unused.retain(|check| FLAWS.iter().all(|(_, used)| used != check));
    assert_eq!(unused, BTreeSet::new(), "these checks noticed nothing");
}

#[test]
fn a_violation_names_the_rule_and_what_was_found() {
    let report = run(F::EmptyIsAbsent);
    let text = report.to_string();
    let expected = "an_empty_value_is_a_value: `get(\"/a\")` answers nothing, not b\"\". \
                    The rule: an empty value is not an absent one";
    assert!(text.contains(expected), "{text}");
    let panic = panic::catch_unwind(|| report.assert()).unwrap_err();
    assert_eq!(*panic.downcast::<String>().unwrap(), text);
}

#[test]
fn what_needs_reopening_is_left_out_and_said_so() {
    let suite = Conformance::new(|| async { MemoryDatastore::default() });
    let report = block_on(suite.run());
    report.assert();
    assert_eq!(report.left_out.len(), 4);
}

#[test]
fn the_suite_runs_on_other_runtimes() {
    let run = || Conformance::new(|| async { MemoryDatastore::default() }).run();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(run()).assert();
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    let suite = Conformance::new(|| async { MemoryDatastore::default() });
    runtime
        .block_on(async { tokio::spawn(suite.run()).await.unwrap() })
        .assert();
    async_std::task::block_on(run()).assert();
    smol::block_on(run()).assert();
}
