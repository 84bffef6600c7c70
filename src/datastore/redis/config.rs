//! Settings of [`RedisDatastore`](super::RedisDatastore).

use std::time::Duration;

/// Default of [`RedisConfig::timeout`]: 5 s. Far above what a healthy server needs, and below the time within which a
/// cluster finds out that a primary is gone (15 s by default).
pub const DEFAULT_REDIS_TIMEOUT: Duration = Duration::from_secs(5);

/// Default of [`RedisConfig::retry_for`]: 10 s, so that `flush` and `shutdown`, which wait for 30 s, learn why.
pub const DEFAULT_REDIS_RETRY_FOR: Duration = Duration::from_secs(10);

/// Default of [`RedisConfig::replica_timeout`]: 2 s. A replica in the same region needs milliseconds.
pub const DEFAULT_REDIS_REPLICA_TIMEOUT: Duration = Duration::from_secs(2);

/// Default of [`RedisConfig::max_value_len`]: 4 MiB. What a peer store writes is far below with any sensible limits.
pub const DEFAULT_REDIS_MAX_VALUE_LEN: usize = 4 * 1024 * 1024;

/// Default of [`RedisConfig::rewrite_memory`]: 32 MiB, some 30,000 peers.
pub const DEFAULT_REDIS_REWRITE_MEMORY: usize = 32 * 1024 * 1024;

/// How a [`RedisDatastore`](super::RedisDatastore) uses its server or cluster.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    pub(super) prefix: String,
    pub(super) reading_also: Vec<String>,
    pub(super) timeout: Duration,
    pub(super) retry_for: Duration,
    pub(super) replica_timeout: Duration,
    pub(super) max_value_len: usize,
    pub(super) rewrite_memory: usize,
}

impl RedisConfig {
    /// Keys begin with `prefix`: `node-7` makes `node-7/peers/addrs/{<b32>}`.
    ///
    /// One node at a time writes under a prefix. Prefixes of several nodes in one database must not begin with one
    /// another and a `/` (`a` and `a/b`): each would list the other's keys as foreign ones. Braces are refused, since
    /// they would put a whole fleet into one slot of a cluster, and so is what is longer than 256 bytes.
    ///
    /// With an empty prefix keys are those of the peer store themselves, `/peers/addrs/{<b32>}`, and the store takes
    /// the whole database for its own: a query for all keys answers with everything in it that is a string. That is
    /// for a server, or a database number, that one node has to itself.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            reading_also: Vec::new(),
            timeout: DEFAULT_REDIS_TIMEOUT,
            retry_for: DEFAULT_REDIS_RETRY_FOR,
            replica_timeout: DEFAULT_REDIS_REPLICA_TIMEOUT,
            max_value_len: DEFAULT_REDIS_MAX_VALUE_LEN,
            rewrite_memory: DEFAULT_REDIS_REWRITE_MEMORY,
        }
    }

    /// What keys begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Further prefixes that are read, never written: what other nodes of the fleet know. Default: none.
    pub fn reading_also(&self) -> &[String] {
        &self.reading_also
    }

    /// Sets [`RedisConfig::reading_also`].
    ///
    /// A peer is read whole from one prefix: from [`RedisConfig::prefix`] if it is there, else from the first of these
    /// where it is. What is read from these is copied under the own prefix as soon as it changes here, not before, and a
    /// peer that is deleted here comes back at the next start as long as another node keeps it.
    #[must_use]
    pub fn with_reading_also<P: Into<String>>(
        mut self,
        prefixes: impl IntoIterator<Item = P>,
    ) -> Self {
        self.reading_also = prefixes.into_iter().map(Into::into).collect();
        self
    }

    /// How long one request to a server, or a connection to it, may take: from 2 ms to 1 hour. Default: [`DEFAULT_REDIS_TIMEOUT`].
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sets [`RedisConfig::timeout`].
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long a call tries again, with pauses from 50 ms to 2 s, while a server does not answer or a cluster elects
    /// another primary. The request under way is not cut off. Default: [`DEFAULT_REDIS_RETRY_FOR`].
    pub fn retry_for(&self) -> Duration {
        self.retry_for
    }

    /// Sets [`RedisConfig::retry_for`]; zero is one attempt.
    #[must_use]
    pub fn with_retry_for(mut self, retry_for: Duration) -> Self {
        self.retry_for = retry_for;
        self
    }

    /// In a cluster: how long a commit waits for a replica to take it over. At most half of
    /// [`RedisConfig::timeout`] is used. Default: [`DEFAULT_REDIS_REPLICA_TIMEOUT`].
    pub fn replica_timeout(&self) -> Duration {
        self.replica_timeout
    }

    /// Sets [`RedisConfig::replica_timeout`].
    #[must_use]
    pub fn with_replica_timeout(mut self, replica_timeout: Duration) -> Self {
        self.replica_timeout = replica_timeout;
        self
    }

    /// Length of a value in bytes. A longer one is not written: its key is deleted, the rest of the commit is written, and the
    /// log warns of it. It is never fetched either: `get` answers with an error, a query leaves it out and logs its key.
    ///
    /// Choose it above what the store may write: a value of metadata has up to
    /// [`Config::max_metadata_value_len`](crate::Config::max_metadata_value_len) bytes, a list of protocols some 100 KB.
    /// Default: [`DEFAULT_REDIS_MAX_VALUE_LEN`].
    pub fn max_value_len(&self) -> usize {
        self.max_value_len
    }

    /// Sets [`RedisConfig::max_value_len`].
    #[must_use]
    pub fn with_max_value_len(mut self, max_value_len: usize) -> Self {
        self.max_value_len = max_value_len;
        self
    }

    /// Bytes that what was committed in the last minute may take, to be written again if its primary is replaced.
    /// Beyond it the oldest is let go, which is logged. Default: [`DEFAULT_REDIS_REWRITE_MEMORY`].
    pub fn rewrite_memory(&self) -> usize {
        self.rewrite_memory
    }

    /// Sets [`RedisConfig::rewrite_memory`].
    #[must_use]
    pub fn with_rewrite_memory(mut self, rewrite_memory: usize) -> Self {
        self.rewrite_memory = rewrite_memory;
        self
    }

    /// The prefixes in the order in which they are read, each once.
    pub(super) fn prefixes(&self) -> Vec<&str> {
        let mut prefixes = vec![self.prefix.as_str()];
        for prefix in &self.reading_also {
            if !prefixes.contains(&prefix.as_str()) {
                prefixes.push(prefix);
            }
        }
        prefixes
    }

    /// How long `WAIT` waits, which must end before the request does.
    pub(super) fn wait(&self) -> Duration {
        // A `WAIT` of zero would wait for ever.
        let wait = self.replica_timeout.min(self.timeout / 2);
        wait.max(Duration::from_millis(1))
    }

    /// What is wrong with it, and what to do.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        for prefix in self.prefixes() {
            if prefix.contains(['{', '}']) {
                return Err("a prefix must not have braces in it; choose another one");
            }
            if prefix.len() > MAX_PREFIX_LEN {
                return Err("a prefix must not be longer than 256 bytes; choose a shorter one");
            }
        }
        if !(MIN_TIME..=MAX_TIME).contains(&self.timeout) {
            return Err("the timeout of a request must be from 2 ms to 1 hour; set another one");
        }
        if self.retry_for > MAX_TIME {
            return Err("a call must not be tried again for more than 1 hour; set a shorter time");
        }
        Ok(())
    }
}

const MAX_PREFIX_LEN: usize = 256;

/// `WAIT` counts in milliseconds and gets half of the time.
const MIN_TIME: Duration = Duration::from_millis(2);
const MAX_TIME: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_its_documented_constant() {
        let config = RedisConfig::new("n");
        assert_eq!(config.prefix(), "n");
        assert!(config.reading_also().is_empty());
        assert_eq!(config.timeout(), DEFAULT_REDIS_TIMEOUT);
        assert_eq!(config.retry_for(), DEFAULT_REDIS_RETRY_FOR);
        assert_eq!(config.replica_timeout(), DEFAULT_REDIS_REPLICA_TIMEOUT);
        assert_eq!(config.max_value_len(), DEFAULT_REDIS_MAX_VALUE_LEN);
        assert_eq!(config.rewrite_memory(), DEFAULT_REDIS_REWRITE_MEMORY);
    }

    #[test]
    fn braces_are_refused_in_every_prefix() {
        for prefix in ["{", "a}b", "{x}"] {
            assert!(RedisConfig::new(prefix).check().is_err());
            let others = RedisConfig::new("n").with_reading_also(["m", prefix]);
            assert!(others.check().is_err());
        }
        for prefix in ["", "n", "a/b:c", "*?[x]\\", " "] {
            assert_eq!(RedisConfig::new(prefix).check(), Ok(()));
        }
        assert!(RedisConfig::new("x".repeat(257)).check().is_err());
    }

    #[test]
    fn times_that_make_no_sense_are_refused() {
        for time in [Duration::ZERO, Duration::from_millis(1), Duration::MAX] {
            assert!(RedisConfig::new("n").with_timeout(time).check().is_err());
        }
        let config = RedisConfig::new("n");
        assert!(
            config
                .clone()
                .with_retry_for(Duration::MAX)
                .check()
                .is_err()
        );
        let config = config.with_retry_for(Duration::ZERO);
        assert_eq!(config.check(), Ok(()));
        let wait = |wait| config.clone().with_replica_timeout(wait).wait();
        assert_eq!(wait(Duration::ZERO), Duration::from_millis(1));
        assert_eq!(wait(Duration::MAX), DEFAULT_REDIS_TIMEOUT / 2);
    }

    #[test]
    fn each_prefix_is_read_once_and_the_own_one_first() {
        let config = RedisConfig::new("n").with_reading_also(["m", "n", "m", ""]);
        assert_eq!(config.prefixes(), ["n", "m", ""]);
    }
}
