//! Where a peer stands when room is needed: in which list, and in which address group of it.

use crate::{
    address::Sources,
    claims::is_first_hand,
    compact::Known,
    group::{Group, Site},
    record::{Class, Facts},
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

/// What a peer is worth when room is needed.
pub(crate) fn class<'a>(addresses: impl Iterator<Item = Known<'a>>, facts: &Facts) -> Class {
    let (mut sources, mut proven) = (Sources::empty(), false);
    for Known { history, .. } in addresses {
        sources |= history.sources;
        proven |= history.is_dialled();
    }
    if sources.contains(Sources::PINNED) {
        Class::Pinned
    } else if facts.connected {
        Class::Connected
    } else if proven || facts.cared_for {
        Class::Proven
    } else if is_first_hand(sources, facts.source.is_some())
        || (Sources::INBOUND | Sources::CERTIFIED).contains(sources) && facts.speaks
    {
        Class::SelfTold
    } else if sources == Sources::INBOUND {
        Class::Inbound
    } else {
        Class::Hearsay
    }
}

/// Where a peer stands: in the group of the address that gave it its class, so that who has many addresses
/// does not stand in the emptiest of their groups. What a peer told of itself counts for the address from which
/// it came.
pub(crate) fn seat<'a>(addresses: impl Iterator<Item = Known<'a>> + Clone, facts: &Facts) -> Seat {
    let class = class(addresses.clone(), facts);
    let group = site_as(class, addresses.clone(), facts).map(Site::group);
    let (list, group) = match class {
        Class::Hearsay if group.is_some_and(Group::is_dns) => (List::Names, group),
        Class::Hearsay => (List::Hearsay, group),
        Class::Inbound => (List::Inbound, group),
        Class::SelfTold if facts.source.is_none() => (List::SelfTold, group.map(Group::claimed)),
        Class::SelfTold => (List::SelfTold, group),
        Class::Proven => (List::Proven, group),
        Class::Connected if facts.accepted && !addresses.clone().any(is_dialled) => {
            (List::Accepted, group)
        }
        Class::Connected => (List::Connected, None),
        Class::Pinned => (List::Pinned, None),
    };
    Seat { list, group }
}

/// The site of the address that gave a peer its class.
pub(crate) fn site<'a>(
    addresses: impl Iterator<Item = Known<'a>> + Clone,
    facts: &Facts,
) -> Option<Site> {
    site_as(class(addresses.clone(), facts), addresses, facts)
}

fn site_as<'a>(
    class: Class,
    mut addresses: impl Iterator<Item = Known<'a>>,
    facts: &Facts,
) -> Option<Site> {
    let of = |known: Known<'_>| Site::of(known.address);
    match class {
        Class::Hearsay => addresses.next().and_then(of),
        Class::Inbound => facts.source.or_else(|| addresses.next().and_then(of)),
        Class::SelfTold => facts.source.or_else(|| {
            let told = addresses.find(|known| known.history.sources.intersects(Sources::SELF_TOLD));
            told.and_then(of)
        }),
        Class::Proven => {
            let proven = addresses.filter(|known| is_dialled(*known));
            let last = proven.max_by_key(|known| known.history.success);
            last.and_then(of)
        }
        Class::Connected => facts.source,
        Class::Pinned => None,
    }
}

fn is_dialled(known: Known<'_>) -> bool {
    known.history.is_dialled()
}
