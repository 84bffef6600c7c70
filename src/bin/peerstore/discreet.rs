//! Passwords on the command line: whoever refuses an argument in the wrong place repeats it.

use std::env;

/// A text of a message, without the logins that stand in the arguments of this process.
pub fn discreet(text: &str) -> String {
    let args = env::args_os().skip(1);
    args.fold(text.to_owned(), |text, arg| {
        hide(&text, &arg.to_string_lossy())
    })
}

fn hide(text: &str, arg: &str) -> String {
    match login(arg) {
        Some(secret) => text.replace(secret, "…"),
        None => text.to_owned(),
    }
}

/// What stands behind the colon of an argument that looks like a URL, if there may be a login in it. Which part of it
/// is the password, nobody can tell when it is not written as it should be.
fn login(arg: &str) -> Option<&str> {
    let (scheme, rest) = arg.split_once(':')?;
    // Some commands look for a text without what surrounds it.
    let rest = rest.trim().trim_matches('…');
    let is_drive = scheme.len() == 1 && rest.starts_with(['/', '\\']);
    if is_drive || matches!(scheme, "redb" | "fs") {
        return None;
    }
    let (base, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_prefix = |part: &str| part.is_empty() || part.starts_with("prefix=");
    let may_be = base.contains('@') || !query.split('&').all(is_prefix);
    may_be.then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_not_repeated_wherever_it_stands() {
        for arg in [
            "reddis://u:secret@h",
            "redis:u:secret@h",
            "u:secret@h",
            "redis://u:sec?secret@h",
            "--near=redis://u:secret@h?prefix=p",
            "-nredis://u:secret@h",
            "env:redis://u:secret@h",
            "unix:///run/redis.sock?pass=secret",
            "unux:///run/redis.sock?prefix=a&pass=s@secret",
        ] {
            let value = arg.trim_start_matches("--near=").trim_start_matches("-n");
            let hidden = hide(&format!("invalid value '{value}' for"), arg);
            assert!(!hidden.contains("secret"), "{hidden}");
            assert!(hidden.starts_with("invalid value '") && hidden.ends_with("' for"));
        }
    }

    #[test]
    fn what_has_no_login_is_repeated() {
        for arg in [
            "redis://127.0.0.1:6379/2?prefix=team@node",
            "redb:/data/me@home.redb",
            "fs:me@home",
            r"C:\me@home\peers.jsonl",
            "12D3KooW",
            "me@home",
        ] {
            let text = format!("cannot read `{arg}`");
            assert_eq!(hide(&text, arg), text);
        }
    }
}
