//! Questions about many peers, in the order in which one would say them.

mod condition;
mod order;
mod scan;

use std::{fmt, ops::ControlFlow, time::Duration};

use libp2p_identity::PeerId;

use condition::Conditions;
pub use order::Order;
use scan::{Scan, candidates};

use crate::{inner::Inner, peer::Peer, store::PeerStore};

/// What a user asks of a peer by code of their own.
type Predicate<'a> = Box<dyn FnMut(&Peer) -> bool + Send + 'a>;

/// A question about the peers of a store, from [`PeerStore::query`].
///
/// It is said first, and asked by its last call: [`Query::ids`], [`Query::peers`], [`Query::count`], [`Query::first`],
/// [`Query::for_each`], or a `for` loop.
///
/// A peer must meet every condition. Those that take a name ([`Query::speaks`], [`Query::tagged`], …) can be said several
/// times, and each must be met; of those that set one value ([`Query::connected`], [`Query::seen_within`],
/// [`Query::min_confidence`]) the last call counts.
///
/// ```
/// # use libp2p_identity::PeerId;
/// # use libp2p_peerstore::{Config, PeerStore};
/// # use std::time::Duration;
/// use libp2p_peerstore::Order;
///
/// # let store = PeerStore::in_memory(PeerId::random(), Config::default());
/// # let friend = PeerId::random();
/// # store.protocols().add(friend, ["/chat/1.0.0"]);
/// # store.addresses().add(friend, ["/ip4/8.8.8.8/tcp/4001".parse()?]);
/// // The ten chat partners that are most likely to answer, and that are not connected yet.
/// let partners = store
///     .query()
///     .speaks_any(["/chat/2.0.0", "/chat/1.0.0"])
///     .connected(false)
///     .seen_within(Duration::from_secs(24 * 60 * 60))
///     .with_public_address()
///     .order_by(Order::Confidence)
///     .limit(10)
///     .ids();
/// assert_eq!(partners, [friend]);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// # What it costs
///
/// The records are looked at where they lie, 64 under one hold of the store's lock, and copied only when they are
/// returned. A question for protocols looks at those alone who speak them, and one for connected peers at the connections; any
/// other looks at all. A predicate of the user ([`Query::matching`]) runs without the lock, so that each peer it is asked
/// about is copied first: say what you can by the other conditions.
///
/// An order needs to know all peers that meet the conditions, as 16 bytes each (40 for a distance); with a limit and
/// without a predicate, only as many as are returned. Without an order, nothing is kept.
///
/// # What it sees
///
/// Not one moment: peers that come, go or change meanwhile may or may not be met, and one that goes and comes back may be met
/// twice. No other peer is left out or met twice. What is returned met the conditions when it was copied.
#[must_use = "a question is only asked by its last call, such as `ids` or `peers`"]
pub struct Query<'a> {
    inner: &'a Inner,
    conditions: Conditions,
    predicates: Vec<Predicate<'a>>,
    order: Option<Order>,
    offset: usize,
    limit: Option<usize>,
}

impl PeerStore {
    /// Begins a question about many peers: which ones, in which order, how many. See [`Query`].
    ///
    /// ```
    /// # use libp2p_identity::PeerId;
    /// # use libp2p_peerstore::{Config, PeerStore};
    /// # let store = PeerStore::in_memory(PeerId::random(), Config::default());
    /// let connected_kubo_nodes = store.query().connected(true).agent("kubo/").count();
    /// # assert_eq!(connected_kubo_nodes, 0);
    /// ```
    pub fn query(&self) -> Query<'_> {
        Query {
            inner: self.inner(),
            conditions: Conditions::default(),
            predicates: Vec::new(),
            order: None,
            offset: 0,
            limit: None,
        }
    }
}

impl<'a> Query<'a> {
    // --- which peers ---------------------------------------------------------------------------------------

    /// Those that speak this protocol.
    pub fn speaks(self, protocol: impl Into<String>) -> Self {
        self.speaks_any([protocol])
    }

    /// Those that speak at least one of these protocols. With an empty list, nobody.
    pub fn speaks_any(mut self, protocols: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let protocols = protocols.into_iter().map(Into::into).collect();
        self.conditions.speaks.push(protocols);
        self
    }

    /// Those to which the swarm has a connection now, or (with `false`) has none.
    pub fn connected(mut self, connected: bool) -> Self {
        self.conditions.connected = Some(connected);
        self
    }

    /// Those of which anything was heard so short ago, see [`Peer::last_seen`].
    pub fn seen_within(mut self, duration: Duration) -> Self {
        self.conditions.seen_within = Some(duration);
        self
    }

    /// Those with an address whose [confidence](crate::AddressInfo::confidence), from 0 to 1, is at least this.
    pub fn min_confidence(mut self, confidence: f64) -> Self {
        self.conditions.min_confidence = Some(confidence);
        self
    }

    /// Those with an address of the public internet, as [`public_only`](crate::public_only) defines it.
    pub fn with_public_address(mut self) -> Self {
        self.conditions.public = true;
        self
    }

    /// Those with an address that has this protocol in it, by its name in the text of an address: `quic-v1`, `ws`,
    /// `p2p-circuit`, `ip6`. An address of a websocket has `tcp` in it too.
    pub fn transport(mut self, name: impl Into<String>) -> Self {
        self.conditions.transports.push(name.into());
        self
    }

    /// Those with a tag of this name, whatever its value.
    pub fn tagged(mut self, name: impl Into<String>) -> Self {
        self.conditions.tags.push(name.into());
        self
    }

    /// Those whose software, as identify told it, has a name that begins so: `kubo/`, `rust-libp2p/0.57`. Capitals matter.
    pub fn agent(mut self, prefix: impl Into<Vec<u8>>) -> Self {
        self.conditions.agents.push(prefix.into());
        self
    }

    /// Those for which `predicate` holds. It is asked last, about peers that meet all other conditions, in the order of the
    /// question, and no longer than until enough are found. It runs without the store's lock and may use the store.
    ///
    /// ```
    /// # use libp2p_identity::PeerId;
    /// # use libp2p_peerstore::{Config, PeerStore};
    /// # let store = PeerStore::in_memory(PeerId::random(), Config::default());
    /// let in_two_places = store.query().matching(|peer| peer.addresses.len() > 1).ids();
    /// # assert!(in_two_places.is_empty());
    /// ```
    pub fn matching(mut self, predicate: impl FnMut(&Peer) -> bool + Send + 'a) -> Self {
        self.predicates.push(Box::new(predicate));
        self
    }

    // --- in which order, how many --------------------------------------------------------------------------

    /// In this order. Without one, peers come in no order that means anything, but in the same one each time.
    pub fn order_by(mut self, order: Order) -> Self {
        self.order = Some(order);
        self
    }

    /// Leaves out the first `n` of the peers that meet the conditions. Default: 0.
    pub fn offset(mut self, n: usize) -> Self {
        self.offset = n;
        self
    }

    /// At most `n` peers. Default: no limit.
    pub fn limit(mut self, n: usize) -> Self {
        self.limit = Some(n);
        self
    }

    // --- asking --------------------------------------------------------------------------------------------

    /// The ids of the peers. Nothing else of them is copied, unless there is a predicate.
    pub fn ids(self) -> Vec<PeerId> {
        if self.predicates.is_empty() {
            let scan = self.scan(|_, view, _| view.id());
            return scan.flatten().collect();
        }
        self.into_iter().map(|peer| peer.id).collect()
    }

    /// The peers, copied. Where they may be many, use a `for` loop, [`Query::for_each`] or [`Query::limit`].
    pub fn peers(self) -> Vec<Peer> {
        self.into_iter().collect()
    }

    /// The first of the peers.
    pub fn first(self) -> Option<Peer> {
        let limit = self.limit.unwrap_or(1).min(1);
        self.limit(limit).into_iter().next()
    }

    /// How many peers there are, offset and limit taken into account. Nothing is copied, unless there is a predicate.
    pub fn count(mut self) -> usize {
        self.order = None;
        if self.predicates.is_empty() {
            return self.scan(|_, _, _| ()).flatten().count();
        }
        self.into_iter().count()
    }

    /// Shows the peers to `visit`, until it breaks; returns what it broke with. At most 64 are in memory at a time, and
    /// nobody waits while `visit` runs: this is for exports.
    ///
    /// ```
    /// # use libp2p_identity::PeerId;
    /// # use libp2p_peerstore::{Config, PeerStore};
    /// use std::{io::Write, ops::ControlFlow};
    ///
    /// # let store = PeerStore::in_memory(PeerId::random(), Config::default());
    /// # let mut out = Vec::new();
    /// let failed = store.query().connected(false).for_each(|peer| match writeln!(out, "{}", peer.id) {
    ///     Ok(()) => ControlFlow::Continue(()),
    ///     Err(error) => ControlFlow::Break(error),
    /// });
    /// # assert!(failed.is_none());
    /// ```
    pub fn for_each<B>(self, mut visit: impl FnMut(&Peer) -> ControlFlow<B>) -> Option<B> {
        let broken = self.into_iter().try_for_each(|peer| visit(&peer));
        broken.break_value()
    }

    /// The pages of what meets the conditions: the window of the question when there is no predicate, else all.
    fn scan<T: 'a>(&self, take: scan::Take<T>) -> Scan<'a, T> {
        let slots = candidates(self.inner, &self.conditions);
        // A predicate decides who counts: what it leaves is cut by whoever asks it.
        let (offset, limit) = match self.predicates.is_empty() {
            true => (self.offset, self.limit),
            false => (0, None),
        };
        let Some(order) = &self.order else {
            let piece = self.limit.filter(|_| !self.predicates.is_empty());
            return Scan::new(self.inner, self.conditions.clone(), slots, take)
                .window(offset, limit)
                .in_pieces_of(piece);
        };
        let slots = order.sort(self.inner, &self.conditions, slots, offset, limit);
        Scan::new(self.inner, self.conditions.clone(), slots, take).in_pieces_of(self.limit)
    }
}

impl<'a> IntoIterator for Query<'a> {
    type Item = Peer;
    type IntoIter = Found<'a>;

    /// The peers, one after the other. At most 64 are in memory at a time, and the store's lock is not held in between: the
    /// iterator may be kept for as long as one likes, also across an `await`.
    fn into_iter(self) -> Found<'a> {
        let pages = self.scan(|_, view, rules| view.peer(rules));
        let peers = pages.flatten().map(Peer::with_inlined_key);
        if self.predicates.is_empty() {
            return Found(Box::new(peers));
        }
        let mut predicates = self.predicates;
        let found = peers.filter(move |peer| predicates.iter_mut().all(|holds| holds(peer)));
        let found = found.skip(self.offset);
        Found(match self.limit {
            Some(limit) => Box::new(found.take(limit)),
            None => Box::new(found),
        })
    }
}

impl fmt::Debug for Query<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query")
            .field("conditions", &self.conditions)
            .field("predicates", &self.predicates.len())
            .field("order", &self.order)
            .field("offset", &self.offset)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// The peers that a [`Query`] finds, copied as they are asked for.
#[must_use = "iterators are lazy"]
pub struct Found<'a>(Box<dyn Iterator<Item = Peer> + Send + 'a>);

impl Iterator for Found<'_> {
    type Item = Peer;

    fn next(&mut self) -> Option<Peer> {
        self.0.next()
    }
}

impl fmt::Debug for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found").finish_non_exhaustive()
    }
}
