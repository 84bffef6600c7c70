//! What went wrong, without credentials, and what helps.

use redis::{ErrorKind, RedisError, ServerErrorKind, Value};

/// Why a request was not answered as it should have been.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub(super) struct Failure {
    text: String,
    pub(super) remedy: Remedy,
    /// What the user can do when it happens at the start.
    pub(super) hint: &'static str,
}

const UNUSABLE: &str = "it cannot be used as it is; the source of this error says why";
const UNREACHABLE: &str =
    "no server answers there; check the address, and that a server runs there";
const WRONG_PASSWORD: &str = "the server refuses the user name or the password; check both";
const NO_SUCH_NUMBER: &str =
    "the server refuses the number of the database; a cluster has no other than 0";
const NOT_PERMITTED: &str = "the user may not run a command that is needed; `RedisDatastore` lists those that must be permitted";

/// What helps against a [`Failure`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Nothing that this datastore could do.
    None,
    /// Time.
    Wait,
    /// A new connection.
    Reconnect,
    /// To look anew which node is whose primary.
    Refresh,
    /// To ask another node, `host:port`, this once: the slot is being moved.
    Ask(String),
}

impl Failure {
    pub(super) fn new(text: impl Into<String>, remedy: Remedy) -> Self {
        Self {
            text: text.into(),
            remedy,
            hint: UNUSABLE,
        }
    }

    /// An error of the crate `redis`, at `node`.
    pub(super) fn of(error: &RedisError, node: &str, secrets: &Secrets) -> Self {
        let remedy = match error.kind() {
            // A slow server gets its time on the same connection: what waits in an abandoned one could be
            // executed after what a new one carries.
            _ if error.is_timeout() => Remedy::Wait,
            ErrorKind::Io | ErrorKind::Parse => Remedy::Reconnect,
            ErrorKind::Server(kind) => match kind {
                ServerErrorKind::Moved | ServerErrorKind::ReadOnly => Remedy::Refresh,
                ServerErrorKind::Ask => match error.redirect_node() {
                    Some((address, _slot)) => Remedy::Ask(address.to_owned()),
                    None => Remedy::Refresh,
                },
                ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::BusyLoading => Remedy::Wait,
                _ => Remedy::None,
            },
            ErrorKind::Extension => match error.code() {
                Some("UNBLOCKED" | "BUSY" | "NOREPLICAS" | "FAILOVER") => Remedy::Wait,
                _ => Remedy::None,
            },
            _ => Remedy::None,
        };
        let hint = match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
                WRONG_PASSWORD
            }
            (ErrorKind::Server(ServerErrorKind::NoPerm), _) => NOT_PERMITTED,
            (ErrorKind::Io, _) => UNREACHABLE,
            _ if error.to_string().contains("switch database") => NO_SUCH_NUMBER,
            _ => UNUSABLE,
        };
        Self {
            hint,
            ..Self::new(secrets.hide(&format!("{node}: {error}")), remedy)
        }
    }

    /// The task that did the work came to no end.
    pub(super) fn of_runtime(error: &tokio::task::JoinError) -> Self {
        let text = format!("the tokio runtime did not finish the work: {error}");
        Self::new(text, Remedy::None)
    }

    /// The error among the answers to a pipeline, if it is one.
    pub(super) fn in_answer(answer: &Value, node: &str, secrets: &Secrets) -> Option<Self> {
        match answer {
            Value::ServerError(error) => Some(Self::of(&error.clone().into(), node, secrets)),
            _ => None,
        }
    }

    /// An answer that is not what the command answers.
    pub(super) fn unexpected(command: &str, node: &str) -> Self {
        let text = format!("{node} gave an answer to {command} that is none");
        Self::new(text, Remedy::None)
    }
}

/// Shorter names of users are parts of many words, and tell nobody anything.
const MIN_USER: usize = 4;

/// What no error may show. A server without passwords answers with the whole command that it does not know.
#[derive(Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    pub(super) fn add(&mut self, secret: Option<&str>) {
        let secret = secret.filter(|secret| !secret.is_empty());
        self.0.extend(secret.map(str::to_owned));
        // What holds another one goes first.
        self.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// The name of the user whom servers know without one is no secret, and a word of many messages.
    pub(super) fn add_user(&mut self, name: Option<&str>) {
        self.add(name.filter(|name| *name != "default" && name.chars().count() >= MIN_USER));
    }

    pub(super) fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            text = text.replace(secret, "***");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_echoes_shows_no_password() {
        let mut secrets = Secrets::default();
        secrets.add(Some("hunter2"));
        secrets.add(Some("hunter"));
        secrets.add(Some(""));
        secrets.add(None);
        let echo = "ERR unknown command 'AUTH', with args beginning with: 'hunter' 'hunter2'";
        let answer = redis::parse_redis_value(format!("-{echo}\r\n").as_bytes()).expect("a value");
        let failure = Failure::in_answer(&answer, "h:1", &secrets).expect("an error");
        let text = format!("{failure} {failure:?}");
        assert!(
            text.contains("unknown command") && !text.contains("hunter"),
            "{text}"
        );
    }

    #[test]
    fn a_short_user_name_spoils_no_message() {
        let hidden = |user| {
            let mut secrets = Secrets::default();
            secrets.add_user(Some(user));
            secrets.hide("h:1: Connection refused for anneliese, not default")
        };
        for user in ["u", "ref", "default"] {
            assert_eq!(
                hidden(user),
                "h:1: Connection refused for anneliese, not default"
            );
        }
        assert_eq!(
            hidden("anneliese"),
            "h:1: Connection refused for ***, not default"
        );
    }

    #[test]
    fn each_error_has_its_remedy() {
        let remedy = |line: &str| {
            let answer =
                redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).expect("a value");
            let failure = Failure::in_answer(&answer, "h:1", &Secrets::default());
            failure.expect("an error").remedy
        };
        assert_eq!(remedy("MOVED 5 h:2"), Remedy::Refresh);
        assert_eq!(remedy("READONLY x"), Remedy::Refresh);
        assert_eq!(remedy("ASK 5 h:2"), Remedy::Ask("h:2".into()));
        assert_eq!(remedy("TRYAGAIN x"), Remedy::Wait);
        assert_eq!(remedy("CLUSTERDOWN x"), Remedy::Wait);
        assert_eq!(remedy("LOADING x"), Remedy::Wait);
        assert_eq!(remedy("UNBLOCKED x"), Remedy::Wait);
        assert_eq!(remedy("NOPERM x"), Remedy::None);
        assert_eq!(remedy("NOAUTH x"), Remedy::None);
        assert_eq!(remedy("OOM x"), Remedy::None);
        assert_eq!(remedy("ERR x"), Remedy::None);
        let closed = RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        let slow = RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        let of = |error| Failure::of(&error, "h:1", &Secrets::default()).remedy;
        assert_eq!(of(closed), Remedy::Reconnect);
        assert_eq!(of(slow), Remedy::Wait);
    }
}
