//! A datastore by its URL.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use libp2p_peerstore::{Datastore, FsDatastore, RedbDatastore, RedisConfig, RedisDatastore};

use crate::failure::Failure;

#[derive(Clone, PartialEq, Eq)]
pub enum Target {
    Redb(PathBuf),
    Fs(PathBuf),
    Redis {
        /// As the client takes it, with the password.
        url: String,
        prefix: String,
    },
}

impl Target {
    /// What an argument names. clap does not know of it: it would repeat what it cannot use, with the password.
    pub fn named(text: &str) -> Result<Self, Failure> {
        text.parse().map_err(|reason| {
            Failure::usage(format!("`{}` names no store: {reason}", shown(text)))
                .help("`peerstore --help` explains how stores are named")
        })
    }
}

impl FromStr for Target {
    /// Why not, without anything that stands behind the scheme but paths of files that are there.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix("env:") {
            let url =
                env::var(name).map_err(|_| format!("there is no environment variable `{name}`"))?;
            if url.starts_with("env:") {
                return Err(format!("the variable `{name}` names another one"));
            }
            return Self::from_str(&url)
                .map_err(|reason| format!("the variable `{name}` holds none: {reason}"));
        }
        let path = |rest: &str| {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            match path.is_empty() {
                true => Err(format!("`{text}` has no path; say it behind the colon")),
                false => Ok(PathBuf::from(path)),
            }
        };
        match text.split_once(':') {
            Some(("redb", rest)) => Ok(Target::Redb(path(rest)?)),
            Some(("fs", rest)) => Ok(Target::Fs(path(rest)?)),
            Some(("redis" | "rediss" | "valkey" | "valkeys", rest)) if rest.starts_with("//") => {
                let (url, prefix) = without_prefix(text);
                match names_a_server(&url) {
                    true => Ok(Target::Redis { url, prefix }),
                    false => Err(NO_SERVER.to_owned()),
                }
            }
            Some((scheme, rest)) if is_socket(scheme) && rest.starts_with("//") => {
                let (url, prefix) = without_prefix(text);
                Ok(Target::Redis { url, prefix })
            }
            _ => {
                let guess = match fs::metadata(text) {
                    Ok(found) if found.is_dir() => format!("; did you mean `fs:{text}`?"),
                    Ok(_) => format!("; did you mean `redb:{text}`?"),
                    Err(_) => String::new(),
                };
                Err(format!(
                    "it is no URL of a store{guess} (redb:PATH, fs:FOLDER, redis://HOST:PORT/DB?prefix=P, env:NAME)"
                ))
            }
        }
    }
}

const NO_SERVER: &str = "its host and port cannot be told from the rest; in a user name or a password, `?`, `/` and `#` are written \
                         %3F, %2F and %23, and an IPv6 address stands in brackets";

/// As much of a text that was meant as a URL as can be repeated.
fn shown(text: &str) -> String {
    match text.split_once(':') {
        Some((scheme @ ("redb" | "fs" | "redis" | "rediss"), _)) => format!("{scheme}:…"),
        Some((scheme, rest)) if rest.starts_with("//") => format!("{scheme}://…"),
        Some(("env", name)) if !name.contains(':') => text.to_owned(),
        None if !text.contains('@') => text.to_owned(),
        _ => "…".to_owned(),
    }
}

/// Whether a URL, of which the prefix has been taken away, is one of a host and perhaps a port. If not, what looks like
/// them may be a part of a password.
fn names_a_server(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else {
        return false;
    };
    let (authority, behind) = match rest.find(['/', '?', '#']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let port = match host.rsplit_once(']') {
        Some((_, port)) => port.strip_prefix(':'),
        None => host.split_once(':').map(|(_, port)| port),
    };
    let is_number = |port: &str| port.bytes().all(|digit| digit.is_ascii_digit());
    port.is_none_or(is_number) && !behind.contains('@')
}

fn is_socket(scheme: &str) -> bool {
    matches!(scheme, "unix" | "redis+unix" | "valkey+unix")
}

/// Takes the prefix out of the URL: the client knows nothing of it.
fn without_prefix(text: &str) -> (String, String) {
    let (base, query) = text.split_once('?').unwrap_or((text, ""));
    let parts = query.split('&').filter(|part| !part.is_empty());
    let (mut prefix, mut others) = (String::new(), Vec::new());
    for part in parts {
        match part.strip_prefix("prefix=") {
            Some(found) => {
                // What is no percent encoding is meant as it stands.
                prefix = decoded(found).unwrap_or_else(|| found.to_owned());
            }
            None => others.push(part),
        }
    }
    let mut url = base.to_owned();
    if !others.is_empty() {
        url = format!("{url}?{}", others.join("&"));
    }
    (url, prefix)
}

/// Undoes percent encoding.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        rest = others;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, others) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?);
        rest = others;
    }
    String::from_utf8(bytes).ok()
}

impl fmt::Display for Target {
    /// As on the command line, without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Redb(path) => write!(f, "redb:{}", path.display()),
            Target::Fs(path) => write!(f, "fs:{}", path.display()),
            Target::Redis { url, prefix } => {
                let (scheme, rest) = url.split_once("://").unwrap_or(("redis", url));
                let without_query = |text: &str| text.split('?').next().map(str::to_owned);
                let place = match scheme {
                    // Their login stands in the query.
                    _ if is_socket(scheme) => without_query(rest),
                    _ => rest.rsplit('@').next().and_then(without_query),
                };
                write!(f, "{scheme}://{}", place.unwrap_or_default())?;
                if !prefix.is_empty() {
                    write!(f, "?prefix={prefix}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What may become of a store that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    IsMade,
    IsAnError,
}

impl Target {
    /// Opens it to be read: nothing is ever written, made or moved.
    pub async fn open_to_read(&self) -> Result<Arc<dyn Datastore>, Failure> {
        let opened = match self {
            Target::Redb(path) => RedbDatastore::open_read_only(path).map(shared),
            Target::Fs(path) => FsDatastore::open_read_only(path).map(shared),
            Target::Redis { url, prefix } => self.connect(url, prefix).await,
        };
        opened.map_err(|error| Failure::of_store("cannot open the store", self, &error))
    }

    /// Opens it as a node does.
    pub async fn open_to_write(&self, missing: Missing) -> Result<Arc<dyn Datastore>, Failure> {
        if missing == Missing::IsAnError {
            self.check_that_it_is_there()?;
        }
        let opened = match self {
            Target::Redb(path) => RedbDatastore::open(path).map(shared),
            Target::Fs(path) => FsDatastore::open(path).map(shared),
            Target::Redis { url, prefix } => self.connect(url, prefix).await,
        };
        opened.map_err(|error| Failure::of_store("cannot open the store", self, &error))
    }

    async fn connect(
        &self,
        url: &str,
        prefix: &str,
    ) -> Result<Arc<dyn Datastore>, libp2p_peerstore::DatastoreError> {
        let opened = RedisDatastore::open([url], RedisConfig::new(prefix)).await;
        opened.map(shared)
    }

    /// Whoever deletes in a store made of a typing error would be told that all is well.
    fn check_that_it_is_there(&self) -> Result<(), Failure> {
        let missing = |what: &str| {
            Err(Failure::new(format!("{what} (store `{self}`)")).help("check the path"))
        };
        let is_there = |path: &Path| path.try_exists().unwrap_or(true);
        match self {
            Target::Redb(path) if !is_there(path) => missing("there is no such file"),
            Target::Fs(path) if !is_there(path) => missing("there is no such folder"),
            Target::Fs(path)
                if path.is_dir()
                    && !is_there(&path.join("peers"))
                    && !is_there(&path.join(".libp2p-peerstore")) =>
            {
                missing("there is no peer store in this folder")
            }
            _ => Ok(()),
        }
    }

    /// Whether both name the same store.
    pub fn is_same(&self, other: &Target) -> bool {
        match (self, other) {
            (Target::Redb(a), Target::Redb(b)) | (Target::Fs(a), Target::Fs(b)) => {
                match (a.canonicalize(), b.canonicalize()) {
                    (Ok(a), Ok(b)) => a == b,
                    _ => a == b,
                }
            }
            _ => self == other,
        }
    }
}

fn shared(datastore: impl Datastore) -> Arc<dyn Datastore> {
    Arc::new(datastore)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse().expect("a URL of a store")
    }

    #[test]
    fn paths_stand_behind_a_colon_with_or_without_slashes() {
        assert_eq!(target("redb:a.redb"), Target::Redb("a.redb".into()));
        assert_eq!(target("redb:///a/b"), Target::Redb("/a/b".into()));
        assert_eq!(target("fs:/a"), Target::Fs("/a".into()));
        for text in [
            "",
            "redis://u:secret",
            "redis://u:se?cret@h",
            "redis://u:se/cret@h",
            "redis://u:5/secret@h:6379",
            "redis://u:se#cret@h",
            "redis://::1/",
            "redb:",
            "a.redb",
            "http://x",
            "redis:x",
            "env:NOT_THERE_AT_ALL",
        ] {
            let reason = text.parse::<Target>().unwrap_err();
            assert!(
                !reason.contains("secret") && !reason.contains("cret@"),
                "{reason}"
            );
        }
    }

    #[test]
    fn what_is_no_store_is_named_without_a_password() {
        for (text, expected) in [
            ("reddis://u:secret@h", "reddis://…"),
            ("redis:u:secret@h", "redis:…"),
            ("u:secret@h", "…"),
            ("secret@h", "…"),
            ("peers.redb", "peers.redb"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn a_server_is_named_by_its_host_in_every_form() {
        for (url, shown) in [
            ("redis://h", "redis://h"),
            ("rediss://u:a@b@h:1/2#insecure", "rediss://h:1/2#insecure"),
            ("valkey://:a%3Fb@[::1]:6379/", "valkey://[::1]:6379/"),
            ("valkeys://[::1]?prefix=a@b", "valkeys://[::1]?prefix=a@b"),
            (
                "unix:///run/me@home.sock?pass=a@b",
                "unix:///run/me@home.sock",
            ),
            (
                "valkey+unix:///run/a.sock?db=1",
                "valkey+unix:///run/a.sock",
            ),
        ] {
            assert_eq!(target(url).to_string(), shown);
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        for url in [
            "redis://user:secret@host:1/2?prefix=n%2F7",
            "unix:///run/redis.sock?pass=secret&prefix=n%2F7",
        ] {
            let target = target(url);
            assert!(!format!("{target} {target:?}").contains("secret"));
            assert!(target.to_string().ends_with("?prefix=n/7"), "{target}");
        }
    }
}
