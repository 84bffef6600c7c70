//! Redis and Valkey, alone or as a cluster.
//!
//! [`keys`] spells keys, [`nodes`] holds connections and [`topology`] knows the primaries, [`mod@write`] commits, [`recent`]
//! keeps what was committed last and [`watch`] writes it again, [`scan`] queries. [`failure`] says what helps against an
//! error.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ::redis::{Cmd, ConnectionInfo, IntoConnectionInfo, Pipeline, Value};
use futures::{FutureExt, StreamExt, channel::mpsc, future::BoxFuture, stream, stream::BoxStream};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::{Batch, Datastore, DatastoreError};
use crate::datastore::KeyValue;

mod config;
mod failure;
pub(crate) mod keys;
mod nodes;
mod recent;
mod scan;
mod topology;
mod watch;
mod write;

pub use config::{
    DEFAULT_REDIS_MAX_VALUE_LEN, DEFAULT_REDIS_REPLICA_TIMEOUT, DEFAULT_REDIS_RETRY_FOR,
    DEFAULT_REDIS_REWRITE_MEMORY, DEFAULT_REDIS_TIMEOUT, RedisConfig,
};
use failure::{Failure, Remedy};
use nodes::{Attempts, Nodes};
use recent::Recent;
use scan::Page;

/// For how long what was committed is written again when its primary is replaced.
const REWRITE_WINDOW: Duration = Duration::from_secs(60);

/// How often the log is told of a value that is too long to be written.
const TOLD_OF_LENGTH: Duration = Duration::from_secs(600);

/// A [`Datastore`] in a Redis or Valkey server, or in a Redis Cluster, for a fleet of nodes that share one.
///
/// Each node has a prefix of its own ([`RedisConfig::new`]), and can read those of others as well
/// ([`RedisConfig::with_reading_also`]). Whether the server belongs to a cluster, it says itself.
///
/// ```no_run
/// use libp2p::PeerId;
/// use libp2p_peerstore::{Config, PeerStore, RedisConfig, RedisDatastore};
///
/// # async fn open(local: PeerId) -> Result<(), Box<dyn std::error::Error>> {
/// let urls = ["redis://user:password@10.0.0.1:6379", "redis://user:password@10.0.0.2:6379"];
/// let datastore = RedisDatastore::open(urls, RedisConfig::new("node-7")).await?;
/// let store = PeerStore::open(local, datastore, Config::default()).await?;
/// # Ok(()) }
/// ```
///
/// # What is promised
///
/// - All of one peer is in one slot and is written in one `MULTI`/`EXEC`: whole or not at all.
/// - **In a cluster** a commit is `Ok` only after one replica of each primary that it wrote to has acknowledged it
///   (`WAIT 1`). What was committed in the last minute is kept in memory ([`RedisConfig::rewrite_memory`]) and written
///   again when another process has become the primary of its slot. So nothing that was flushed is lost while the
///   node that wrote it lives, for a minute and until it saw the slot's primary in place, or while the replica that
///   acknowledged it lives and is the one that is elected. A primary without a connected replica takes no commit:
///   the store keeps its changes and tries again.
/// - **On a single server** a commit is `Ok` when the server has executed it. What a crash of the server takes is for
///   its configuration to say: with `appendonly yes` and `appendfsync always` nothing, with `everysec` up to about two
///   seconds, with `no` what the operating system had not written, with snapshots alone everything since the last
///   one. What this node committed in the last minute it writes again when the server has been restarted. With
///   another setting than `always` opening it logs a warning.
///
/// # How it behaves
///
/// - **Time.** Every request has a limit ([`RedisConfig::timeout`]), and what is worth it is tried again for a while
///   ([`RedisConfig::retry_for`]), with pauses that grow. A broken connection is opened anew.
/// - **Queries** go over all primaries with a cursor, and look at every key of the database for it, whatever its
///   prefix; only the metadata of one peer is found by a set that lists it
///   (`<prefix>/peers/metadata/names:{<b32>}`). Each key comes once; the memory for that is bounded (16 MiB). When
///   slots are moved or a primary is replaced meanwhile, the query begins anew, without telling again what it told;
///   when that does not end, it ends with an error.
/// - **Values** longer than [`RedisConfig::max_value_len`] are neither written nor fetched. The rest of a commit is written
///   and the commit is `Ok`, so that one record does not keep a node from saving all others; the key of such a value is
///   deleted, since what it held before is true no longer, and the log warns of it, at most once in ten minutes.
/// - **What is gone** is never told with [`DatastoreError::Lost`]. What this node committed in the last minute is written again to
///   a server that was restarted, as said above; what was emptied otherwise is there again as peers change, or after the
///   next start of this node.
/// - **The runtime** is tokio's, with I/O and time enabled. The work is done there, whoever polls the futures. On a
///   runtime of one thread, call [`PeerStore::shutdown`](crate::PeerStore::shutdown) and not only `drop`: that would
///   block the very thread that should write.
/// - **Other users of the server.** Keys with an expiry, eviction (`maxmemory-policy allkeys-*`) and `FLUSHALL` lose
///   peers; opening warns of the eviction. The user needs `info`, `cluster|slots`, `cluster|nodes`, `dbsize`, `scan`,
///   `sscan`, `scard`, `strlen`, `get`, `exists`, `multi`, `exec`, `set`, `del`, `sadd`, `srem`, `wait`, `asking` and
///   `select`, and for those warnings `config|get`.
///
/// # Passwords and TLS
///
/// A URL is `redis://[user][:password@]host[:port][/number]`, or `unix://path[?db=number&pass=password]`. Errors, logs
/// and `Debug` show host and port only. In a cluster the other nodes are reached with the user, the password and the
/// kind of connection of the first URL. `rediss://` is TLS, with the feature `redis-tls`; the certificates are checked
/// against those that the system trusts (or those in the file that `SSL_CERT_FILE` names).
#[derive(Clone)]
pub struct RedisDatastore {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Handle,
    config: RedisConfig,
    location: String,
    nodes: Nodes,
    closed: AtomicBool,
    /// Whoever writes holds it: an earlier value must not follow a later one.
    recent: tokio::sync::Mutex<Recent>,
    told_of_memory: AtomicBool,
    /// When the log was told of a value that is too long.
    told_of_length: Mutex<Option<Instant>>,
}

impl fmt::Debug for RedisDatastore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisDatastore")
            .field("location", &self.shared.location)
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

impl RedisDatastore {
    /// Connects to a server, or to a cluster, of which several nodes can be named: one that answers is enough.
    ///
    /// Must be called within a tokio runtime, whose handle is kept; [`RedisDatastore::open_on`] is for other executors.
    ///
    /// # Errors
    ///
    /// [`DatastoreError::Open`] when there is no tokio runtime, a URL or the configuration is not valid, no server
    /// answers, or it refuses the password.
    ///
    /// # Panics
    ///
    /// tokio panics when the runtime was built without I/O or without time.
    pub async fn open<U: AsRef<str>>(
        urls: impl IntoIterator<Item = U>,
        config: RedisConfig,
    ) -> Result<Self, DatastoreError> {
        let runtime = Handle::try_current().map_err(|error| DatastoreError::Open {
            location: "redis".to_owned(),
            hint: "there is no tokio runtime here; use `RedisDatastore::open_on`",
            source: error.into(),
        })?;
        Self::open_on(runtime, urls, config).await
    }

    /// As [`RedisDatastore::open`], with the runtime that does the work. The future may be polled anywhere.
    ///
    /// # Errors
    ///
    /// As [`RedisDatastore::open`].
    pub async fn open_on<U: AsRef<str>>(
        runtime: Handle,
        urls: impl IntoIterator<Item = U>,
        config: RedisConfig,
    ) -> Result<Self, DatastoreError> {
        let urls = urls.into_iter();
        let seeds: Vec<_> = urls
            .map(|url| parse(url.as_ref()))
            .collect::<Result<_, _>>()?;
        let location = seeds.iter().map(nodes::shown).collect::<Vec<_>>().join(",");
        let location = format!("redis://{location}");
        let unusable = |hint, source: Failure| DatastoreError::Open {
            location: location.clone(),
            hint,
            source: source.into(),
        };
        if let Err(hint) = config.check() {
            return Err(unusable(
                hint,
                Failure::new("the configuration is not valid", Remedy::None),
            ));
        }
        install_tls();
        let several = seeds.len() > 1;
        let shared = Arc::new(Shared {
            runtime: runtime.clone(),
            nodes: Nodes::new(seeds, config.timeout),
            location: location.clone(),
            config,
            closed: AtomicBool::new(false),
            recent: Default::default(),
            told_of_memory: AtomicBool::new(false),
            told_of_length: Mutex::default(),
        });
        let discovering = shared.clone();
        let discovered = async move {
            let topology = discovering.nodes.discover().await?;
            discovering.warn_of_settings(topology.is_cluster).await;
            Ok(topology.is_cluster)
        };
        let discovered = runtime.spawn(discovered).await;
        let discovered = discovered.unwrap_or_else(|error| Err(Failure::of_runtime(&error)));
        let is_cluster = discovered.map_err(|failure| unusable(failure.hint, failure))?;
        if several && !is_cluster {
            return Err(unusable(
                "several addresses are for a cluster, and this server is none; name one of them",
                Failure::new("the addresses do not fit the server", Remedy::None),
            ));
        }
        runtime.spawn(watch::run(Arc::downgrade(&shared)));
        Ok(Self { shared })
    }

    /// Does some work on the runtime, so that whoever polls the future needs none.
    fn run<'a, T: Send + 'static>(
        &'a self,
        operation: &'static str,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> BoxFuture<'a, Result<T, DatastoreError>> {
        async move {
            self.shared.check_open(operation)?;
            // A task of its own also ends what it began when the future is dropped.
            let done = self.shared.runtime.spawn(work).await;
            let done = done.unwrap_or_else(|error| Err(Failure::of_runtime(&error)));
            done.map_err(|failure| self.shared.failed(operation, failure))
        }
        .boxed()
    }
}

impl Datastore for RedisDatastore {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        let (shared, key) = (self.shared.clone(), key.to_owned());
        self.run(
            "read",
            async move { shared.retrying(|| shared.get(&key)).await },
        )
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        let start = async move {
            let pages = match self.shared.check_open("read") {
                Ok(()) => {
                    let (sender, pages) = mpsc::channel(0);
                    let query = scan::run(self.shared.clone(), prefix.to_owned(), sender);
                    self.shared.runtime.spawn(query);
                    pages.left_stream()
                }
                Err(error) => stream::iter([Page::Error(error)]).right_stream(),
            };
            stream::unfold(Some(pages), move |pages| async move {
                let mut pages = pages?;
                match pages.next().await {
                    Some(Page::Some(page)) => {
                        Some((page.into_iter().map(Ok).collect(), Some(pages)))
                    }
                    Some(Page::End) => None,
                    Some(Page::Error(error)) => Some((vec![Err(error)], None)),
                    None => {
                        let failure = Failure::new(
                            "the query was cut off; its tokio runtime may have ended",
                            Remedy::None,
                        );
                        Some((vec![Err(self.shared.failed("read", failure))], None))
                    }
                }
            })
            .flat_map(stream::iter)
        };
        start.into_stream().flatten().boxed()
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        let shared = self.shared.clone();
        self.run("commit", async move { shared.commit(batch).await })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DatastoreError>> {
        async move {
            self.shared.closed.store(true, Ordering::Release);
            // A commit under way ends first.
            self.shared.recent.lock().await.clear();
            self.shared.nodes.close();
            Ok(())
        }
        .boxed()
    }

    fn location(&self) -> String {
        self.shared.location.clone()
    }
}

impl Shared {
    fn failed(&self, operation: &'static str, failure: Failure) -> DatastoreError {
        DatastoreError::failed(operation, &self.location, failure)
    }

    fn check_open(&self, operation: &'static str) -> Result<(), DatastoreError> {
        if !self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(DatastoreError::Closed {
            operation,
            location: self.location.clone(),
        })
    }

    /// The failure that an answer is.
    fn refused(&self, answer: &Value, command: &str, node: &str) -> Failure {
        let failure = Failure::in_answer(answer, node, &self.nodes.secrets);
        failure.unwrap_or_else(|| Failure::unexpected(command, node))
    }

    /// Tries again, for a time, what helps to be tried again.
    async fn retrying<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        mut act: impl FnMut() -> F,
    ) -> Result<T, Failure> {
        let mut attempts = Attempts::during(self.config.retry_for);
        loop {
            let failure = match act().await {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            if failure.remedy == Remedy::None || !attempts.again().await {
                return Err(failure);
            }
            if let Err(failure) = self.nodes.refresh().await {
                tracing::debug!(error = %failure, "cannot ask the Redis cluster for its slots");
            }
        }
    }

    /// Sends a command about one key to the primary of its slot; the answer is no error.
    async fn at(&self, key: &str, command: Cmd) -> Result<(Arc<str>, Value), Failure> {
        let slot = keys::slot(key);
        let node = self.nodes.topology().primary(slot).ok_or_else(|| {
            let text = format!("no node of the cluster is known to serve slot {slot}");
            Failure::new(text, Remedy::Refresh)
        })?;
        let mut pipeline = Pipeline::new();
        pipeline.add_command(command.clone());
        let asked = self.nodes.send_one(&node, &pipeline).await;
        let Err(Failure {
            remedy: Remedy::Ask(other),
            ..
        }) = &asked
        else {
            return asked.map(|answer| (node, answer));
        };
        let other = Nodes::beside(&node, other);
        let mut pipeline = Pipeline::new();
        pipeline.cmd("ASKING");
        pipeline.add_command(command);
        let answers = self.nodes.send(&other, &pipeline).await?;
        match answers.into_iter().next_back() {
            Some(Value::ServerError(error)) => {
                Err(self.refused(&Value::ServerError(error), "ASKING", &other))
            }
            Some(answer) => Ok((other, answer)),
            None => Err(Failure::unexpected("ASKING", &other)),
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        let prefixes = self.config.prefixes();
        for (rank, prefix) in prefixes.iter().enumerate() {
            let value = self.get_under(prefix, key).await?;
            if value.is_some() || rank + 1 == prefixes.len() {
                return Ok(value);
            }
            // A peer is taken whole from the first prefix that knows it.
            if let Some(peer) = keys::peer(key)
                && self.knows(prefix, peer).await?
            {
                break;
            }
        }
        Ok(None)
    }

    async fn get_under(&self, prefix: &str, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        let physical = keys::physical(prefix, key);
        let command = |name| {
            let mut command = ::redis::cmd(name);
            command.arg(&physical);
            command
        };
        let (node, length) = self.at(&physical, command("STRLEN")).await?;
        match length {
            Value::Int(length)
                if usize::try_from(length)
                    .is_ok_and(|length| length > self.config.max_value_len) =>
            {
                return Err(self.too_long(key, length));
            }
            Value::Int(_) => {}
            _ => return Err(Failure::unexpected("STRLEN", &node)),
        }
        // An empty value is not an absent one.
        match self.at(&physical, command("GET")).await? {
            (_, Value::BulkString(value)) => Ok(Some(value)),
            (_, Value::Nil) => Ok(None),
            (node, _) => Err(Failure::unexpected("GET", &node)),
        }
    }

    fn too_long(&self, key: &str, length: impl fmt::Display) -> Failure {
        let max = self.config.max_value_len;
        let text = format!(
            "the value of `{key}` has {length} bytes, more than {max} (`RedisConfig::max_value_len`); delete it, or raise that limit"
        );
        Failure::new(text, Remedy::None)
    }

    /// Whether a peer is there under a prefix.
    async fn knows(&self, prefix: &str, peer: &str) -> Result<bool, Failure> {
        let books = keys::single_books(prefix, peer);
        let set = keys::names(prefix, peer);
        let mut exists = ::redis::cmd("EXISTS");
        exists.arg(&books);
        let (_, books) = self.at(&set, exists).await?;
        let mut scard = ::redis::cmd("SCARD");
        scard.arg(&set);
        let (_, names) = self.at(&set, scard).await?;
        Ok([books, names]
            .iter()
            .any(|count| matches!(count, Value::Int(1..))))
    }

    /// A batch with what may be written. A key whose value is too long is deleted: what it held before is true no longer.
    fn fitting(&self, batch: Batch) -> Batch {
        let max = self.config.max_value_len;
        let is_too_long = |value: Option<&[u8]>| value.is_some_and(|value| value.len() > max);
        if !batch.iter().any(|(_, value)| is_too_long(value)) {
            return batch;
        }
        let mut fitting = Batch::default();
        for (key, value) in batch {
            if is_too_long(value.as_deref()) {
                self.tell_of_length(&key, value.map_or(0, |value| value.len()));
                fitting.delete(key);
            } else if let Some(value) = value {
                fitting.put(key, value);
            } else {
                fitting.delete(key);
            }
        }
        fitting
    }

    /// Not each time: a peer may come with one again and again.
    fn tell_of_length(&self, key: &str, length: usize) {
        let now = Instant::now();
        let is_due = {
            let mut told = self.told_of_length.lock();
            let is_due = told.is_none_or(|at| now.duration_since(at) >= TOLD_OF_LENGTH);
            if is_due {
                *told = Some(now);
            }
            is_due
        };
        let (location, max) = (&self.location, self.config.max_value_len);
        if is_due {
            tracing::warn!(
                location,
                ?key,
                bytes = length,
                max,
                "a value is not saved, and perhaps others in the next minutes: it is longer than \
                 `RedisConfig::max_value_len`; raise that limit, or set lower ones in `Config`"
            );
        } else {
            tracing::debug!(location, ?key, bytes = length, max, "a value is not saved");
        }
    }

    async fn commit(&self, batch: Batch) -> Result<(), Failure> {
        let slots = write::by_slot(&self.config.prefix, self.fitting(batch));
        let mut recent = self.recent.lock().await;
        let (retry_for, wait) = (self.config.retry_for, self.config.wait());
        let written = write::write(&self.nodes, &slots, retry_for, wait).await;
        // What failed may have been written in part: it is completed even if nobody tries it again.
        let limit = self.config.rewrite_memory;
        let gone = recent.add(slots, &written.done, Instant::now(), limit);
        if gone > 0 && !self.told_of_memory.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                keys = gone,
                bytes = limit,
                "cannot keep all that was committed in the last minute, to write it again if a primary is replaced; \
                 raise `RedisConfig::rewrite_memory`"
            );
        }
        written.failure.map_or(Ok(()), Err)
    }
}

/// Errors do not show the text: it may hold a password.
fn parse(url: &str) -> Result<ConnectionInfo, DatastoreError> {
    url.into_connection_info().map_err(|error| DatastoreError::Open {
        location: "redis".to_owned(),
        hint: "an address is not `redis://[user][:password@]host[:port][/number]` or `unix://path`; `rediss://` needs \
               the feature `redis-tls`",
        source: error.category().to_owned().into(),
    })
}

/// Without a provider of cryptography rustls panics; the application's choice stands.
fn install_tls() {
    #[cfg(feature = "redis-tls")]
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that another thread has just done it.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}
