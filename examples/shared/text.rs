//! How the examples show text: what strangers wrote, what caused an event, why something failed.

use std::{error::Error, fmt::Display};

/// Text that a stranger had a hand in (a protocol name, an agent version, a DNS name in an address), fit for a
/// terminal. Everything but printable ASCII is shown as an escape: control characters could take the terminal
/// over, some invisible ones turn the reading direction round, and foreign letters can look like others.
pub fn plain(text: impl Display) -> String {
    let mut plain = String::new();
    for char in text.to_string().chars() {
        match char {
            ' '..='~' if char != '\\' => plain.push(char),
            _ => plain.extend(char.escape_default()),
        }
    }
    plain
}

/// A list of such texts, in one line.
pub fn plain_list<T: Display>(texts: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = texts.into_iter().map(plain).collect();
    texts.join(", ")
}

/// An error and all that caused it, in one line. What an error repeats of its cause is left out.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
        source = cause.source();
    }
    line
}
