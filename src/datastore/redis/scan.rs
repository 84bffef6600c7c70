//! Queries: a cursor over every primary, page by page, and each key once.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use futures::{SinkExt, channel::mpsc};
use redis::{Pipeline, ServerError, ServerErrorKind, Value};

use super::{
    Shared,
    failure::{Failure, Remedy},
    keys,
    nodes::Attempts,
};
use crate::datastore::{DatastoreError, KeyValue};

/// How many keys a server looks at for one page.
const PAGE: usize = 1_000;

/// Bytes of values that are fetched at a time, unless one alone is larger.
const PAGE_BYTES: usize = 1024 * 1024;

/// Keys that are remembered at a time, to answer with each once: 16 MiB. A database that holds more is read in parts,
/// with a cursor over all of it for each.
const REMEMBERED: u64 = 1_000_000;

/// What a query sends to its stream.
pub(super) enum Page {
    Some(Vec<KeyValue>),
    Error(DatastoreError),
    /// All was sent: a stream that ends without it was cut off.
    End,
}

/// Runs a query until its end, an error, or until nobody listens any longer.
pub(super) async fn run(shared: Arc<Shared>, query: String, mut pages: mpsc::Sender<Page>) {
    let last = match scan(&shared, &query, &mut pages).await {
        Ok(()) => Page::End,
        Err(Stop::Failed(failure)) => Page::Error(shared.failed("read", failure)),
        Err(Stop::Dropped) => return,
    };
    // Whoever asked may have gone.
    let _ = pages.send(last).await;
}

/// Why a query ends early.
enum Stop {
    Failed(Failure),
    /// Nobody listens.
    Dropped,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

async fn scan(shared: &Shared, query: &str, pages: &mut mpsc::Sender<Page>) -> Result<(), Stop> {
    let prefixes = shared.config.prefixes().len() as u64;
    let keys = match keys::metadata_of_one(query) {
        Some(_) => 0,
        None => shared.retrying(|| size(shared)).await?,
    };
    // A key is remembered, and with several prefixes also where its peer was found.
    let parts = keys * prefixes.min(2) / REMEMBERED + 1;
    let hasher = RandomState::new();
    for part in 0..parts {
        let mut seen = Seen {
            hasher: &hasher,
            hashes: HashSet::new(),
            part,
            parts,
            ranked: prefixes > 1,
            missed: false,
            told_of_length: false,
        };
        let mut attempts = Attempts::during(shared.config.retry_for);
        loop {
            let found = seen.hashes.len();
            seen.missed = false;
            let passed = match keys::metadata_of_one(query) {
                Some((peer, begin)) => metadata_of_one(shared, peer, begin, &mut seen, pages).await,
                None => pass(shared, query, &mut seen, pages).await,
            };
            let failure = match passed {
                Ok(()) if !seen.missed => break,
                Ok(()) => {
                    let text = "keys may have been missed: slots were moved, or a primary was replaced, \
                                meanwhile; try again later";
                    Failure::new(text, Remedy::Refresh)
                }
                Err(Stop::Failed(failure)) if failure.remedy != Remedy::None => failure,
                Err(stop) => return Err(stop),
            };
            if seen.hashes.len() > found {
                attempts = Attempts::during(shared.config.retry_for);
            }
            tracing::debug!(error = %failure, "a query of Redis begins anew");
            if !attempts.again().await {
                return Err(failure.into());
            }
            if let Err(failure) = shared.nodes.refresh().await {
                tracing::debug!(error = %failure, "cannot ask the Redis cluster for its slots");
            }
        }
    }
    Ok(())
}

/// How many keys the database has, of whatever prefix.
async fn size(shared: &Shared) -> Result<u64, Failure> {
    let mut size = 0;
    for node in shared.nodes.refresh().await?.primaries() {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("DBSIZE");
        match shared.nodes.send_one(&node, &pipeline).await? {
            Value::Int(keys) => size += u64::try_from(keys).unwrap_or(0),
            _ => return Err(Failure::unexpected("DBSIZE", &node)),
        }
    }
    Ok(size)
}

/// One cursor over all keys of one part. What was moved meanwhile may have been missed: [`Seen::missed`].
async fn pass(
    shared: &Shared,
    query: &str,
    seen: &mut Seen<'_>,
    pages: &mut mpsc::Sender<Page>,
) -> Result<(), Stop> {
    let before = shared.nodes.primaries().await?;
    for (rank, prefix) in shared.config.prefixes().into_iter().enumerate() {
        let pattern = keys::pattern(prefix, query);
        for node in before.topology.primaries() {
            let mut cursor = b"0".to_vec();
            loop {
                if pages.is_closed() {
                    return Err(Stop::Dropped);
                }
                let mut pipeline = Pipeline::new();
                let command = pipeline.cmd("SCAN").arg(&cursor);
                command.arg("MATCH").arg(&pattern).arg("COUNT").arg(PAGE);
                let answer = shared.nodes.send_one(&node, &pipeline).await?;
                let (next, found) = page_of(answer, &node)?;
                let found = found.into_iter().filter_map(|physical| {
                    let physical = String::from_utf8(physical).ok()?;
                    let key = keys::logical(prefix, &physical)?;
                    let asked_for = key.starts_with(query) && seen.is_new(&key, rank);
                    asked_for.then_some((key, physical))
                });
                let found = found.collect();
                fetch(shared, &node, found, rank, seen, pages).await?;
                cursor = next;
                if cursor == b"0" {
                    break;
                }
            }
        }
    }
    let after = shared.nodes.primaries().await?;
    if let Some(failure) = before.failure.clone().or(after.failure.clone()) {
        return Err(failure.into());
    }
    seen.missed |= before.moving || after.moving || !before.are_the_same_as(&after);
    Ok(())
}

/// The answer to SCAN and SSCAN: the next cursor, and a page.
fn page_of(answer: Value, node: &str) -> Result<(Vec<u8>, Vec<Vec<u8>>), Failure> {
    redis::from_redis_value(answer).map_err(|_| Failure::unexpected("SCAN", node))
}

/// Fetches values and sends them on, in pieces. What is gone by now, is no string or is too long, is left out.
async fn fetch(
    shared: &Shared,
    node: &Arc<str>,
    mut found: Vec<KeyAndPhysical>,
    rank: usize,
    seen: &mut Seen<'_>,
    pages: &mut mpsc::Sender<Page>,
) -> Result<(), Stop> {
    // A page may name a key twice.
    found.sort();
    found.dedup();
    if found.is_empty() {
        return Ok(());
    }
    let mut pipeline = Pipeline::new();
    for (_, physical) in &found {
        pipeline.cmd("STRLEN").arg(physical);
    }
    let lengths = shared.nodes.send(node, &pipeline).await?;
    let mut pieces = vec![Vec::new()];
    let mut bytes = 0;
    for ((key, physical), length) in found.into_iter().zip(lengths) {
        let length = match length {
            Value::Int(length) => usize::try_from(length).unwrap_or(0),
            Value::ServerError(error) if error.code() == "WRONGTYPE" => continue,
            Value::ServerError(error) if is_elsewhere(&error) => {
                seen.missed = true;
                continue;
            }
            answer => return Err(shared.refused(&answer, "STRLEN", node).into()),
        };
        if length > shared.config.max_value_len {
            if std::mem::replace(&mut seen.told_of_length, true) {
                tracing::debug!(key = physical, bytes = length, "left out a long value");
            } else {
                tracing::warn!(
                    key = physical,
                    bytes = length,
                    "left out a value that is longer than `RedisConfig::max_value_len`, and perhaps others; delete it, or \
                     raise that limit"
                );
            }
            continue;
        }
        bytes += length;
        match pieces.last_mut() {
            Some(piece) if bytes <= PAGE_BYTES || piece.is_empty() => piece.push((key, physical)),
            _ => {
                bytes = length;
                pieces.push(vec![(key, physical)]);
            }
        }
    }
    for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
        fetch_piece(shared, node, piece, rank, seen, pages).await?;
    }
    Ok(())
}

fn is_elsewhere(error: &ServerError) -> bool {
    matches!(
        error.kind(),
        Some(ServerErrorKind::Moved | ServerErrorKind::Ask)
    )
}

/// A key, and how Redis spells it.
type KeyAndPhysical = (String, String);

async fn fetch_piece(
    shared: &Shared,
    node: &Arc<str>,
    piece: Vec<KeyAndPhysical>,
    rank: usize,
    seen: &mut Seen<'_>,
    pages: &mut mpsc::Sender<Page>,
) -> Result<(), Stop> {
    let mut pipeline = Pipeline::new();
    for (_, physical) in &piece {
        pipeline.cmd("GET").arg(physical);
    }
    let values = shared.nodes.send(node, &pipeline).await?;
    let mut page = Vec::with_capacity(piece.len());
    for ((key, _), value) in piece.into_iter().zip(values) {
        match value {
            Value::BulkString(value) => page.push((key, value)),
            Value::Nil => {}
            Value::ServerError(error) if error.code() == "WRONGTYPE" => {}
            Value::ServerError(error) if is_elsewhere(&error) => seen.missed = true,
            answer => return Err(shared.refused(&answer, "GET", node).into()),
        }
    }
    // Only now: what was not sent on must be met again when the query begins anew.
    for (key, _) in &page {
        seen.note(key, rank)?;
    }
    let sent = pages.send(Page::Some(page)).await;
    sent.map_err(|_| Stop::Dropped)
}

/// The metadata of one peer, from the set that lists it: a cursor over the whole database for each peer that is
/// deleted would be far too much.
async fn metadata_of_one(
    shared: &Shared,
    peer: &str,
    begin: &str,
    seen: &mut Seen<'_>,
    pages: &mut mpsc::Sender<Page>,
) -> Result<(), Stop> {
    // Whoever deletes a peer must be told also what would only be written again, or it would come back.
    let own = &shared.config.prefix;
    let coming = keys::physical(own, &keys::metadata(peer, begin));
    let recent = shared.recent.lock().await;
    let coming = recent.puts(&coming).filter_map(|(physical, value)| {
        let key = keys::logical(own, physical)?;
        seen.is_new(&key, 0).then(|| (key, value.to_vec()))
    });
    let coming: Vec<_> = coming.collect();
    drop(recent);
    for (key, _) in &coming {
        seen.note(key, 0)?;
    }
    if !coming.is_empty() {
        pages
            .send(Page::Some(coming))
            .await
            .map_err(|_| Stop::Dropped)?;
    }
    for (rank, prefix) in shared.config.prefixes().into_iter().enumerate() {
        let set = keys::names(prefix, peer);
        let mut cursor = b"0".to_vec();
        loop {
            let mut command = redis::cmd("SSCAN");
            command.arg(&set).arg(&cursor).arg("COUNT").arg(PAGE);
            let (node, answer) = shared.at(&set, command).await?;
            let (next, names) = page_of(answer, &node)?;
            let found = names.into_iter().filter_map(|name| {
                let name = String::from_utf8(name).ok()?;
                let key = keys::metadata(peer, &name);
                let physical = keys::physical(prefix, &key);
                let asked_for = name.starts_with(begin) && seen.is_new(&key, rank);
                asked_for.then_some((key, physical))
            });
            let found = found.collect();
            fetch(shared, &node, found, rank, seen, pages).await?;
            cursor = next;
            if cursor == b"0" {
                break;
            }
        }
        if seen.ranked && shared.knows(prefix, peer).await? {
            break;
        }
    }
    Ok(())
}

/// Which keys were met, in bounded memory: 64 bits of each, with a secret key, so that nobody can make two alike.
struct Seen<'a> {
    /// The same for all parts, or they would overlap.
    hasher: &'a RandomState,
    hashes: HashSet<u64>,
    part: u64,
    parts: u64,
    /// Whether there are several prefixes.
    ranked: bool,
    /// Whether a key was met where it cannot be read: its slot is being moved.
    missed: bool,
    /// Whether the log says already that a value is too long.
    told_of_length: bool,
}

impl Seen<'_> {
    /// Whether a key is of this part, was not sent yet, and belongs to no peer of a prefix that goes first.
    fn is_new(&self, key: &str, rank: usize) -> bool {
        let owner = keys::peer(key);
        // All of one peer is in one part.
        if self.hasher.hash_one(owner.unwrap_or(key)) % self.parts != self.part {
            return false;
        }
        let met = |hash: u64| self.hashes.contains(&hash);
        let first_elsewhere = owner.is_some_and(|owner| {
            let mut better = (0..rank).map(|rank| self.hasher.hash_one((rank, owner)));
            better.any(met)
        });
        !first_elsewhere && !met(self.hasher.hash_one(key))
    }

    fn note(&mut self, key: &str, rank: usize) -> Result<(), Failure> {
        self.hashes.insert(self.hasher.hash_one(key));
        if let Some(owner) = keys::peer(key).filter(|_| self.ranked) {
            self.hashes.insert(self.hasher.hash_one((rank, owner)));
        }
        if self.hashes.len() as u64 <= 2 * REMEMBERED {
            return Ok(());
        }
        let text = "the database grew to a multiple while it was read; read it again";
        Err(Failure::new(text, Remedy::None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(hasher: &RandomState, part: u64, parts: u64) -> Seen<'_> {
        Seen {
            hasher,
            hashes: HashSet::new(),
            part,
            parts,
            ranked: true,
            missed: false,
            told_of_length: false,
        }
    }

    #[test]
    fn each_key_is_of_one_part_and_all_of_a_peer_is_of_the_same() {
        let hasher = RandomState::new();
        let parts: Vec<_> = (0..5).map(|part| seen(&hasher, part, 5)).collect();
        for n in 0..100 {
            let of = |key: String| {
                let of: Vec<_> = parts.iter().filter(|part| part.is_new(&key, 0)).collect();
                assert_eq!(of.len(), 1, "{key}");
                of[0].part
            };
            let part = of(format!("/peers/addrs/b{n}"));
            assert_eq!(of(format!("/peers/keys/b{n}")), part);
            assert_eq!(of(format!("/peers/metadata/b{n}/x")), part);
            of(format!("/other/{n}"));
        }
    }

    #[test]
    fn a_peer_is_taken_whole_from_the_first_prefix_that_knows_it() -> Result<(), Failure> {
        let hasher = RandomState::new();
        let mut seen = seen(&hasher, 0, 1);
        assert!(seen.is_new("/peers/addrs/b1", 0));
        seen.note("/peers/addrs/b1", 0)?;
        assert!(!seen.is_new("/peers/addrs/b1", 0));
        // Another book of it, there and elsewhere.
        assert!(seen.is_new("/peers/keys/b1", 0));
        assert!(!seen.is_new("/peers/keys/b1", 1));
        assert!(!seen.is_new("/peers/metadata/b1/x", 2));
        // Another peer, and what belongs to none.
        assert!(seen.is_new("/peers/keys/b2", 1));
        seen.note("/peers/keys/b2", 1)?;
        assert!(seen.is_new("/peers/addrs/b2", 1));
        assert!(!seen.is_new("/peers/addrs/b2", 2));
        seen.note("/other", 0)?;
        assert!(!seen.is_new("/other", 1));
        Ok(())
    }
}
