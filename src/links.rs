//! The connections of this node: who has how many, from where, and how far away.

use std::collections::HashMap;

use libp2p_core::{ConnectedPoint, Endpoint, Multiaddr};
use libp2p_identity::PeerId;

use crate::{
    address,
    group::{Reach, Site},
    history::Flags,
    network::Scope,
};

/// All connections: bounded by the swarm's own limits, not by the store's.
#[derive(Debug, Default)]
pub(crate) struct Links {
    peers: HashMap<PeerId, Vec<Link>>,
    /// How many direct connections there are of each [`Reach`].
    direct: [usize; 3],
}

#[derive(Debug, Clone)]
struct Link {
    /// Without `/p2p/<peer>` at its end: whether a dial gave it, differs from dial to dial.
    address: Multiaddr,
    /// This node dialled.
    dialled: bool,
    site: Option<Site>,
    /// `None` through a relay: that says nothing of where the peer is.
    reach: Option<Reach>,
    scope: Scope,
    /// It goes on at another address than the one where it was made: a datagram with a false sender is enough to
    /// say so, and the peer has not shown that it is there.
    moved: bool,
}

/// What the end of a connection means for its peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closed {
    /// The address of the connection.
    pub(crate) address: Multiaddr,
    /// No other connection uses the address.
    pub(crate) unused: bool,
    /// It was the last connection.
    pub(crate) last: bool,
}

impl Links {
    pub(crate) fn open(&mut self, peer: PeerId, endpoint: &ConnectedPoint) {
        let address = bare(&peer, endpoint.get_remote_address());
        let dialled = is_dialled(endpoint);
        // Who comes through a relay shows nothing but its id: the relay stands in our own address.
        let from = match endpoint {
            ConnectedPoint::Listener { local_addr, .. } if endpoint.is_relayed() => local_addr,
            _ => &address,
        };
        let reach = (!endpoint.is_relayed()).then(|| Reach::of(from));
        if let Some(reach) = reach {
            self.direct[reach as usize] += 1;
        }
        let site = Site::of(from);
        self.peers.entry(peer).or_default().push(Link {
            scope: Scope::of_connection(endpoint),
            address,
            dialled,
            site,
            reach,
            moved: false,
        });
    }

    /// The connection is over that was `dialled` by this node, or not, and was at the address.
    pub(crate) fn close(
        &mut self,
        peer: &PeerId,
        address: &Multiaddr,
        dialled: bool,
    ) -> Option<Closed> {
        let address = bare(peer, address);
        let links = self.peers.get_mut(peer)?;
        // A peer may come from the address at which it is dialled.
        let is_it = |link: &Link| link.address == address && link.dialled == dialled;
        let at = links.iter().rposition(is_it);
        let at = at.or_else(|| links.iter().rposition(|link| link.address == address));
        // Not to be counted for ever, should an address ever be unknown.
        let link = links.remove(at.unwrap_or(0));
        if let Some(reach) = link.reach {
            self.direct[reach as usize] -= 1;
        }
        let closed = Closed {
            unused: links.iter().all(|other| other.address != link.address),
            last: links.is_empty(),
            address: link.address,
        };
        if closed.last {
            self.peers.remove(peer);
        }
        Some(closed)
    }

    /// A connection goes on at another address. Returns the old one if no connection is left there.
    pub(crate) fn moved(
        &mut self,
        peer: &PeerId,
        old: &Multiaddr,
        new: &Multiaddr,
    ) -> Option<Multiaddr> {
        let old = bare(peer, old);
        let links = self.peers.get_mut(peer)?;
        let link = links.iter_mut().rfind(|link| link.address == old)?;
        (link.address, link.moved) = (bare(peer, new), true);
        // What goes through a relay stays there.
        if link.reach.is_some() {
            link.scope = Scope::of(new);
        }
        links.iter().all(|link| link.address != old).then_some(old)
    }

    /// Whether the peer is connected, whether only by its own doing, and from where: by one look.
    pub(crate) fn standing(&self, peer: &PeerId) -> (bool, bool, Option<Site>) {
        let links = self.of(peer);
        let accepted = !links.is_empty() && links.iter().all(|link| !link.dialled);
        let source = links.last().and_then(|link| link.site);
        (!links.is_empty(), accepted, source)
    }

    pub(crate) fn count(&self, peer: &PeerId) -> usize {
        self.peers.get(peer).map_or(0, Vec::len)
    }

    pub(crate) fn peers(&self) -> impl ExactSizeIterator<Item = &PeerId> + '_ {
        self.peers.keys()
    }

    /// Through which parts of the network there are connections to the peer.
    pub(crate) fn scopes(&self, peer: &PeerId) -> [bool; Scope::ALL.len()] {
        let mut scopes = [false; Scope::ALL.len()];
        for link in self.of(peer) {
            scopes[link.scope as usize] = true;
        }
        scopes
    }

    /// Where the connections of the peer are, and whether this node dialled them.
    pub(crate) fn addresses(&self, peer: &PeerId) -> Vec<(Multiaddr, bool)> {
        let links = self.of(peer).iter();
        links
            .map(|link| (link.address.clone(), link.dialled))
            .collect()
    }

    /// What the open connections of the peer make of an address: in use where this node dialled it, held where the peer
    /// came from it. That a connection moved there by itself says nothing.
    pub(crate) fn flags(&self, peer: &PeerId, address: &[u8]) -> Flags {
        let links = self.of(peer).iter();
        let at = links.filter(|link| link.address.as_ref() == address);
        at.fold(Flags::empty(), |flags, link| match link.dialled {
            true if link.moved => flags,
            true => flags | Flags::IN_USE,
            false => flags | Flags::HELD,
        })
    }

    /// From where the latest connection of the peer comes, or whither it goes.
    pub(crate) fn source(&self, peer: &PeerId) -> Option<Site> {
        self.of(peer).last()?.site
    }

    /// Whether the peer itself made, or took, a direct connection at this IP address.
    pub(crate) fn is_at(&self, peer: &PeerId, is_it: impl Fn(&Multiaddr) -> bool) -> bool {
        let mut links = self.of(peer).iter();
        links.any(|link| link.reach.is_some() && !link.moved && is_it(&link.address))
    }

    /// The nearest addresses that the peer can tell of itself: of this machine only when it is here, of local
    /// networks when it is there.
    pub(crate) fn nearest_from(&self, peer: &PeerId) -> Reach {
        let reaches = self.of(peer).iter().filter_map(|link| link.reach);
        reaches.min().unwrap_or_else(|| self.nearest_from_anybody())
    }

    /// The nearest addresses that somebody unknown can tell: as near as the farthest of all our own connections.
    pub(crate) fn nearest_from_anybody(&self) -> Reach {
        let reaches = [Reach::Public, Reach::Local];
        let farthest = reaches.into_iter().find(|r| self.direct[*r as usize] > 0);
        farthest.unwrap_or(Reach::Machine)
    }

    fn of(&self, peer: &PeerId) -> &[Link] {
        self.peers.get(peer).map_or(&[], Vec::as_slice)
    }
}

/// Whether this node dialled, and did not only punch a hole for the peer's dial.
pub(crate) fn is_dialled(endpoint: &ConnectedPoint) -> bool {
    matches!(
        endpoint,
        ConnectedPoint::Dialer {
            role_override: Endpoint::Dialer,
            ..
        }
    )
}

/// The address without the peer's own id; as it is where nothing else is in it.
fn bare(peer: &PeerId, address: &Multiaddr) -> Multiaddr {
    let bare = address::bare(peer, address, usize::MAX);
    bare.ok().flatten().unwrap_or_else(|| address.clone())
}
