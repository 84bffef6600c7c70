//! What of a peer is not saved: as a change of its own, and as bits that its record holds.

use std::{borrow::Cow, collections::BTreeSet};

use bitflags::bitflags;

use crate::{AGENT_VERSION, PROTOCOL_VERSION, record::Books};

/// More changed metadata keys of one peer than this are not listed: all its metadata is written anew.
const MAX_LISTED_KEYS: usize = 256;

/// What of one peer must be written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Change {
    pub(crate) books: Books,
    /// The metadata keys that changed or went.
    pub(crate) metadata: BTreeSet<Cow<'static, str>>,
    /// Everything of the peer goes first, also what is not in memory; then what the record holds is written.
    pub(crate) purge: bool,
    /// There is more of it on disk than goes in one commit.
    pub(crate) surplus: bool,
    /// Whether the change asks for a commit. Others ride with the next one.
    pub(super) hard: bool,
    /// Whether it counts among those that nobody asked for: the peer made room, or expired.
    pub(super) evicted: bool,
}

impl Change {
    pub(super) fn merge(&mut self, other: Change) {
        self.books |= other.books;
        self.metadata.extend(other.metadata);
        self.purge |= other.purge;
        self.surplus |= other.surplus;
        self.hard |= other.hard;
        self.evicted |= other.evicted;
        if self.metadata.len() > MAX_LISTED_KEYS {
            self.metadata.clear();
            self.purge = true;
        }
    }

    /// Takes in what was marked since the change was taken. Returns whether everything of the peer must go first, which
    /// was not so before.
    pub(crate) fn note_since(&mut self, since: Change) -> bool {
        if since.purge && !self.purge {
            self.purge = true;
            return true;
        }
        self.books |= since.books;
        self.metadata.extend(since.metadata);
        false
    }
}

bitflags! {
    /// What of a record is not saved, in the byte that its compact form has for it. The first three are those of
    /// [`Books`].
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(super) struct Unwritten: u8 {
        const ADDRESSES = 1;
        const PROTOCOLS = 1 << 1;
        const KEY = 1 << 2;
        const AGENT = 1 << 3;
        const VERSION = 1 << 4;
        /// It asks for a commit.
        const HARD = 1 << 5;
    }
}

impl Unwritten {
    /// The keys that identify fills; any other is for [`Pending::mark`](super::Pending::mark).
    pub(super) fn of_key(key: &str) -> Option<Self> {
        match key {
            AGENT_VERSION => Some(Self::AGENT),
            PROTOCOL_VERSION => Some(Self::VERSION),
            _ => None,
        }
    }

    pub(super) fn into_change(self) -> Change {
        let keys = [
            (Self::AGENT, AGENT_VERSION),
            (Self::VERSION, PROTOCOL_VERSION),
        ];
        let keys = keys.into_iter().filter(|(flag, _)| self.contains(*flag));
        let metadata: BTreeSet<_> = keys.map(|(_, key)| Cow::Borrowed(key)).collect();
        let mut books = Books::from_bits_truncate(self.bits())
            & (Books::ADDRESSES | Books::PROTOCOLS | Books::KEY);
        books.set(Books::METADATA, !metadata.is_empty());
        Change {
            books,
            metadata,
            hard: self.contains(Self::HARD),
            ..Change::default()
        }
    }
}
