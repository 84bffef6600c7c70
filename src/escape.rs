//! Text that strangers chose, where a person or a terminal may see it: addresses (names in them may hold anything)
//! and protocol names.

use std::fmt::{self, Write};

/// Shows what `T` displays, with control characters, those that turn the direction of text, other invisible ones and
/// the backslash escaped as in a Rust string.
pub(crate) struct Escaped<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Debug for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

/// As [`Escaped`], for a list.
pub(crate) struct EscapedList<'a, T>(pub(crate) &'a [T]);

impl<T: fmt::Display> fmt::Debug for EscapedList<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(Escaped)).finish()
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '"' | '\'' => self.0.write_char(c)?,
                _ => write!(self.0, "{}", c.escape_debug())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_plain_text_is_escaped_and_the_rest_is_as_it_was() {
        let shown = |text: &str| format!("{:?}", Escaped(text));
        assert_eq!(shown("/ip4/1.2.3.4/é\"'x"), "/ip4/1.2.3.4/é\"'x");
        assert_eq!(
            shown("a\u{1b}[2J\r\n\0\u{202e}b\u{200b}\\"),
            "a\\u{1b}[2J\\r\\n\\0\\u{202e}b\\u{200b}\\\\"
        );
        assert_eq!(format!("{:?}", EscapedList(&["\n", "b"])), "[\\n, b]");
    }
}
