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

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix("env:") {
            let url =
                env::var(name).map_err(|_| format!("there is no environment variable `{name}`"))?;
            if url.starts_with("env:") {
                return Err(format!("the variable `{name}` names another one"));
            }
            // What stands there may have a password in it: it is not repeated.
            return Self::from_str(&url)
                .map_err(|_| format!("the variable `{name}` does not hold the URL of a store"));
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
            Some(("redis" | "rediss" | "unix" | "redis+unix" | "valkey" | "valkeys", rest))
                if rest.starts_with("//") =>
            {
                Ok(redis(text))
            }
            _ => {
                let guess = match fs::metadata(text) {
                    Ok(found) if found.is_dir() => format!("; did you mean `fs:{text}`?"),
                    Ok(_) => format!("; did you mean `redb:{text}`?"),
                    Err(_) => String::new(),
                };
                Err(format!(
                    "no URL of a store{guess} (redb:PATH, fs:FOLDER, redis://HOST:PORT/DB?prefix=P, env:NAME)"
                ))
            }
        }
    }
}

/// Takes the prefix out of the URL: the client knows nothing of it.
fn redis(text: &str) -> Target {
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
    Target::Redis { url, prefix }
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
                let base = url.split('?').next().unwrap_or(url);
                let (scheme, rest) = base.split_once("://").unwrap_or(("redis", base));
                let host = rest.rsplit('@').next().unwrap_or(rest);
                write!(f, "{scheme}://{host}")?;
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
        // The client knows Valkey by Redis's name.
        let url = url.replacen("valkey", "redis", 1);
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
            "redb:",
            "a.redb",
            "http://x",
            "redis:x",
            "env:NOT_THERE_AT_ALL",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
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
