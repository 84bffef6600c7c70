//! Where a peer stands when room is needed: in which list, and in which address group of it.

use crate::{
    address::{Entry, Sources},
    group::{Group, Site},
    history::Flags,
    record::{Class, Record},
};

/// The lists from which peers are taken when room is needed. What is told apart within a class has a budget of its
/// own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum List {
    /// Hearsay, at a DNS name.
    Names,
    Hearsay,
    Inbound,
    SelfTold,
    Proven,
    /// Connected, by the peer's own doing, and nothing is proven.
    Accepted,
    Connected,
    Pinned,
}

impl List {
    pub(crate) const ALL: [List; 8] = [
        List::Names,
        List::Hearsay,
        List::Inbound,
        List::SelfTold,
        List::Proven,
        List::Accepted,
        List::Connected,
        List::Pinned,
    ];

    /// All that is known by hearsay only.
    pub(crate) const BY_HEARSAY: [List; 2] = [List::Names, List::Hearsay];

    /// Who makes room before whom.
    pub(crate) const ORDER: &[&[List]] = &[
        &List::BY_HEARSAY,
        &[List::Inbound],
        &[List::SelfTold],
        &[List::Proven],
        &[List::Accepted],
        &[List::Connected],
        &[List::Pinned],
    ];

    /// The same while accepted connections are more than are protected.
    pub(crate) const ORDER_ACCEPTED: &[&[List]] = &[
        &List::BY_HEARSAY,
        &[List::Inbound],
        &[List::SelfTold, List::Accepted],
        &[List::Proven],
        &[List::Connected],
        &[List::Pinned],
    ];

    pub(crate) fn class(self) -> Class {
        match self {
            List::Names | List::Hearsay => Class::Hearsay,
            List::Inbound => Class::Inbound,
            List::SelfTold => Class::SelfTold,
            List::Proven => Class::Proven,
            List::Accepted | List::Connected => Class::Connected,
            List::Pinned => Class::Pinned,
        }
    }
}

/// A list, and a group in it: `None` for whoever is in no crowd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) list: List,
    pub(crate) group: Option<Group>,
}

impl Record {
    /// Where the peer stands: in the group of the address that gave it its class, so that who has many addresses
    /// does not stand in the emptiest of their groups. What a peer told of itself counts for the address from which
    /// it came.
    pub(crate) fn seat(&self) -> Seat {
        let class = self.class();
        let group = self.site_as(class).map(Site::group);
        let (list, group) = match class {
            Class::Hearsay if group.is_some_and(Group::is_dns) => (List::Names, group),
            Class::Hearsay => (List::Hearsay, group),
            Class::Inbound => (List::Inbound, group),
            Class::SelfTold if self.source.is_none() => (List::SelfTold, group.map(Group::claimed)),
            Class::SelfTold => (List::SelfTold, group),
            Class::Proven => (List::Proven, group),
            Class::Connected if self.accepted && !self.is_proven() => (List::Accepted, group),
            Class::Connected => (List::Connected, None),
            Class::Pinned => (List::Pinned, None),
        };
        Seat { list, group }
    }

    /// The site of the address that gave the peer its class.
    pub(crate) fn site(&self) -> Option<Site> {
        self.site_as(self.class())
    }

    fn site_as(&self, class: Class) -> Option<Site> {
        let of = |entry: &Entry| Site::of(&entry.address);
        let first = || self.addresses.first().and_then(of);
        match class {
            Class::Hearsay => first(),
            Class::Inbound => self.source.or_else(first),
            Class::SelfTold => self.source.or_else(|| {
                let mut entries = self.addresses.iter();
                let told =
                    entries.find(|entry| entry.history.sources.intersects(Sources::SELF_TOLD));
                told.and_then(of)
            }),
            Class::Proven => {
                let proven = self.addresses.iter().filter(|entry| entry.is_dialled());
                let last = proven.max_by_key(|entry| entry.history.success);
                last.and_then(of)
            }
            Class::Connected => self.source,
            Class::Pinned => None,
        }
    }

    pub(crate) fn is_proven(&self) -> bool {
        self.addresses.iter().any(Entry::is_dialled)
    }
}

impl Entry {
    /// Whether this node dialled it with success, and that is not too long ago to count.
    pub(crate) fn is_dialled(&self) -> bool {
        let history = &self.history;
        history.sources.contains(Sources::DIALLED) && !history.flags.contains(Flags::PROOF_AGED)
    }
}
