//! The checks, and the rule that each stands for.

mod batches;
mod calls;
mod content;
mod queries;
mod reopening;

use futures::{TryStreamExt, future::BoxFuture};

use super::suite::Subject;
use crate::{
    datastore::{Batch, Datastore, DatastoreError, KeyValue},
    persist::key,
};

/// What a check found wrong.
pub(super) type Outcome<T = ()> = Result<T, String>;

/// What a check needs beyond a way to make datastores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    Reopen,
}

pub(super) struct Check<D> {
    pub(super) name: &'static str,
    pub(super) rule: &'static str,
    pub(super) needs: Needs,
    pub(super) run: for<'s, 'a> fn(&'s Subject<'a, D>) -> BoxFuture<'s, Outcome>,
}

/// Fails a check, with what was found.
macro_rules! ensure {
    ($holds:expr, $($found:tt)+) => {
        if !$holds {
            return Err(format!($($found)+));
        }
    };
}
use ensure;

macro_rules! checks {
    ($($needs:ident $module:ident::$name:ident $rule:literal)*) => {
        /// All checks, the simple ones first.
        pub(super) fn all<D: Datastore>() -> Vec<Check<D>> {
            vec![$(Check {
                name: stringify!($name),
                rule: $rule,
                needs: Needs::$needs,
                run: |subject| Box::pin($module::$name(subject)),
            }),*]
        }
    };
}

checks! {
    Nothing content::a_new_one_is_empty
        "the suite needs an empty datastore of its own for each check"
    Nothing content::an_absent_key_is_none
        "`get` answers `None` for a key without a value; that, and deleting it, is no error"
    Nothing content::the_last_put_counts
        "`get` answers the value that was committed last"
    Nothing content::what_is_deleted_is_gone
        "deleting takes a key away, and no other"
    Nothing content::an_empty_value_is_a_value
        "an empty value is not an absent one"
    Nothing content::values_are_bytes
        "values are bytes, kept as they are"
    Nothing content::large_values_are_kept
        "values may be large"
    Nothing content::a_key_may_hold_any_character
        "a key begins with `/` and may contain any character behind it"
    Nothing content::similar_keys_are_apart
        "keys that differ in any byte are different keys"
    Nothing content::long_keys_are_kept
        "keys of 512 bytes are usual"
    Nothing content::the_short_calls_agree_with_the_others
        "`has`, `put` and `delete` do what `get` and `commit` do"
    Nothing batches::a_batch_puts_and_deletes
        "a commit applies all operations of its batch"
    Nothing batches::an_empty_batch_changes_nothing
        "an empty batch is no error and changes nothing"
    Nothing batches::a_batch_may_be_committed_twice
        "a batch is harmless when it is applied twice"
    Nothing batches::a_large_batch_is_applied
        "a batch may hold thousands of keys of thousands of peers"
    Nothing batches::commits_follow_each_other
        "a commit is applied on top of the one that returned before it"
    Nothing queries::a_query_answers_the_prefix_and_no_other
        "`query` answers every key that begins with the prefix, as text and not as a path, with its value"
    Nothing queries::each_key_is_answered_once
        "`query` answers each key once, however many there are"
    Nothing queries::a_query_may_be_dropped
        "a query may be dropped before its end, and holds nothing up"
    Nothing queries::a_query_goes_on_while_others_write
        "what is committed during a query may or may not be seen; all else is, once, and neither waits for the other"
    Nothing queries::queries_do_not_disturb_each_other
        "several queries may be under way"
    Nothing queries::a_query_that_nobody_reads_holds_nothing_up
        "a query that waits to be read does not stop a commit"
    Nothing calls::reads_overlap_with_a_commit
        "reads may overlap with a commit, and answer the old value or the new one"
    Nothing calls::it_works_on_a_plain_thread
        "the store polls the futures on a thread of its own, without a runtime round it"
    Nothing calls::threads_may_read_at_once
        "a datastore is shared between threads"
    Nothing calls::a_future_may_change_threads
        "a future that was begun on one thread may end on another"
    Nothing calls::a_commit_that_was_never_polled_is_whole_or_not_at_all
        "a commit that is dropped leaves each peer as it was or as it shall be"
    Nothing calls::a_commit_that_is_dropped_half_way_is_whole_or_not_at_all
        "a commit that is dropped leaves each peer as it was or as it shall be"
    Nothing calls::a_read_may_be_dropped_half_way
        "a read that is dropped changes nothing"
    Nothing calls::closing_is_no_error
        "`close` comes after the last commit and succeeds"
    Nothing calls::calls_after_closing_may_fail_and_nothing_worse
        "calls after `close` may fail, not panic, hang or answer what is not true"
    Reopen reopening::what_was_committed_is_there_after_closing
        "what was committed is durable"
    Reopen reopening::what_was_committed_is_there_without_closing
        "what was committed is durable when `commit` returns, not when the datastore is closed"
    Reopen reopening::it_may_be_opened_many_times
        "opening changes nothing"
    Reopen reopening::what_was_cut_short_is_whole_or_not_at_all
        "a commit that was cut short leaves each peer as it was or as it shall be, also on disk"
}

// --- calls whose errors say what was called ----------------------------------------------------------------

fn said(call: &str, error: &DatastoreError) -> String {
    let mut text = format!("`{call}` failed: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

/// What `get` answers; `has` must say the same.
async fn get(datastore: &impl Datastore, key: &str) -> Outcome<Option<Vec<u8>>> {
    let value = datastore.get(key).await;
    let value = value.map_err(|error| said(&format!("get({key:?})"), &error))?;
    let has = datastore.has(key).await;
    let has = has.map_err(|error| said(&format!("has({key:?})"), &error))?;
    ensure!(
        has == value.is_some(),
        "`has({key:?})` is {has}, and `get` says otherwise"
    );
    Ok(value)
}

/// That `get` answers this.
async fn expect(datastore: &impl Datastore, key: &str, expected: Option<&[u8]>) -> Outcome {
    let value = get(datastore, key).await?;
    ensure!(
        value.as_deref() == expected,
        "`get({key:?})` answers {}, not {}",
        shown(value.as_deref()),
        shown(expected)
    );
    Ok(())
}

fn shown(value: Option<&[u8]>) -> String {
    match value {
        None => "nothing".to_owned(),
        Some(value) if value.len() > 40 => format!("{} bytes", value.len()),
        Some(value) => format!("b\"{}\"", value.escape_ascii()),
    }
}

async fn commit(datastore: &impl Datastore, batch: Batch) -> Outcome {
    let keys = batch.len();
    let committed = datastore.commit(batch).await;
    committed.map_err(|error| said(&format!("commit(a batch of {keys} keys)"), &error))
}

async fn put(datastore: &impl Datastore, key: &str, value: &[u8]) -> Outcome {
    let put = datastore.put(key, value.to_vec()).await;
    put.map_err(|error| said(&format!("put({key:?})"), &error))
}

async fn delete(datastore: &impl Datastore, key: &str) -> Outcome {
    let deleted = datastore.delete(key).await;
    deleted.map_err(|error| said(&format!("delete({key:?})"), &error))
}

/// What a query answers, sorted.
async fn query(datastore: &impl Datastore, prefix: &str) -> Outcome<Vec<KeyValue>> {
    let entries: Result<Vec<KeyValue>, _> = datastore.query(prefix).try_collect().await;
    let mut entries = entries.map_err(|error| said(&format!("query({prefix:?})"), &error))?;
    entries.sort();
    Ok(entries)
}

/// That a query answers exactly these.
async fn expect_query(
    datastore: &impl Datastore,
    prefix: &str,
    expected: impl IntoIterator<Item = KeyValue>,
) -> Outcome {
    let entries = query(datastore, prefix).await?;
    let mut expected: Vec<KeyValue> = expected.into_iter().collect();
    expected.sort();
    if entries == expected {
        return Ok(());
    }
    for pair in entries.windows(2) {
        ensure!(
            pair[0].0 != pair[1].0,
            "`query({prefix:?})` answers {:?} twice",
            pair[0].0
        );
    }
    for (key, value) in &entries {
        let known = expected.iter().find(|(other, _)| other == key);
        ensure!(
            known.is_some_and(|(_, other)| other == value),
            "`query({prefix:?})` answers {key:?} with {}, not {}",
            shown(Some(value)),
            shown(known.map(|(_, value)| value.as_slice()))
        );
    }
    let missing = expected.iter().find(|entry| !entries.contains(entry));
    Err(format!(
        "`query({prefix:?})` answers {} of {} keys; {:?} is missing",
        entries.len(),
        expected.len(),
        missing.map(|(key, _)| key)
    ))
}

// --- peers -------------------------------------------------------------------------------------------------

/// The keys of a peer as the store writes them: a peer's part of a batch is whole or not at all.
fn peer_keys(n: u32) -> [String; 5] {
    // A SHA-256 hash that nobody has a key for.
    let mut id = vec![0x12, 0x20];
    id.extend([0; 28]);
    id.extend(n.to_be_bytes());
    let b32 = match libp2p_identity::PeerId::from_bytes(&id) {
        Ok(peer) => key::b32(&peer),
        // Not so, and only a name here.
        Err(_) => n.to_string(),
    };
    [
        key::addresses(&b32),
        key::protocols(&b32),
        key::public_key(&b32),
        key::metadata(&b32, "AgentVersion"),
        key::metadata(&b32, "a/b"),
    ]
}

/// All of a peer but its last key, with one value.
fn put_peer(batch: &mut Batch, n: u32, value: &[u8]) {
    let [kept @ .., last] = peer_keys(n);
    for key in kept {
        batch.put(key, value.to_vec());
    }
    batch.delete(last);
}

/// A peer before [`put_peer`]: half of its keys, and the last one.
fn put_old_peer(batch: &mut Batch, n: u32) {
    let [first, second, .., last] = peer_keys(n);
    for key in [first, second, last] {
        batch.put(key, b"old".to_vec());
    }
}

/// Whether a peer is as [`put_old_peer`] left it, or as [`put_peer`] did.
async fn is_whole(datastore: &impl Datastore, n: u32, new: &[u8]) -> Outcome<bool> {
    let mut values = Vec::new();
    for key in peer_keys(n) {
        values.push(get(datastore, &key).await?);
    }
    let values: Vec<Option<&[u8]>> = values.iter().map(Option::as_deref).collect();
    let (old, new) = (Some(&b"old"[..]), Some(new));
    Ok(values == [old, old, None, None, old] || values == [new, new, new, new, None])
}
