//! The conformance suite notices what is wrong with a datastore: one flaw after the other, and every check at least
//! once.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used)]

#[path = "conformance/flawed.rs"]
mod flawed;

use std::{collections::BTreeSet, panic, thread, time::Duration};

use futures::executor::block_on;
use libp2p_peerstore::{
    Datastore, MemoryDatastore,
    testing::{Conformance, DEFAULT_CHECK_DEADLINE, Report},
};

use flawed::{Flawed, block_now};

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
