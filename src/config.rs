//! Every limit, time and switch of the store, with its default and the reason for it.

use std::{borrow::Cow, fmt, num::NonZeroUsize, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;

use crate::{
    clock::{Clock, SystemClock},
    compact::{MAX_ADDRESS_LEN, MAX_ADDRESSES},
    filter::AddressFilter,
    history::STEP,
};

/// Runs the persistence engine, see [`Config::with_executor`].
type Executor = Arc<dyn Fn(BoxFuture<'static, ()>) + Send + Sync>;

const fn size(n: usize) -> NonZeroUsize {
    match NonZeroUsize::new(n) {
        Some(n) => n,
        None => NonZeroUsize::MIN,
    }
}

/// 65,536 peers: several times the servers of the public IPFS DHT, so that an ordinary node never evicts.
pub const DEFAULT_MAX_PEERS: NonZeroUsize = size(65_536);
/// 32 addresses per peer: twice what a node with several interfaces and transports announces.
pub const DEFAULT_MAX_ADDRESSES_PER_PEER: NonZeroUsize = size(32);
/// 512 bytes per address: a DNS name of full length behind a relay of full length still fits.
pub const DEFAULT_MAX_ADDRESS_LEN: NonZeroUsize = size(512);
/// 256 protocols per peer: twice go-libp2p's in-memory limit.
pub const DEFAULT_MAX_PROTOCOLS_PER_PEER: NonZeroUsize = size(256);
/// 256 bytes per protocol name: above what multistream-select is used with anywhere.
pub const DEFAULT_MAX_PROTOCOL_LEN: NonZeroUsize = size(256);
/// 64 metadata keys per peer.
pub const DEFAULT_MAX_METADATA_PER_PEER: NonZeroUsize = size(64);
/// 256 bytes per metadata key.
pub const DEFAULT_MAX_METADATA_KEY_LEN: NonZeroUsize = size(256);
/// 4,096 bytes per metadata value: the agent version of the longest identify message fits.
pub const DEFAULT_MAX_METADATA_VALUE_LEN: NonZeroUsize = size(4_096);
/// 32 tags per peer.
pub const DEFAULT_MAX_TAGS_PER_PEER: NonZeroUsize = size(32);
/// 128 bytes per tag name.
pub const DEFAULT_MAX_TAG_NAME_LEN: NonZeroUsize = size(128);
/// 16 KiB per signed peer record: as many addresses of full length as the store keeps of a peer.
pub const DEFAULT_MAX_SIGNED_RECORD_LEN: NonZeroUsize = size(16 * 1_024);
/// 4 addresses offered for one dial: half of what rust-libp2p's swarm starts at once.
pub const DEFAULT_MAX_DIAL_ADDRESSES: NonZeroUsize = size(4);
/// 8 hours: what others said of a peer once. With 1 hour, as go-libp2p and js-libp2p keep an address at all, one reachable
/// peer in a hundred is not found; `docs/address-quality.md` has the figures.
pub const DEFAULT_HEARSAY_LIFETIME: Duration = Duration::from_secs(8 * 60 * 60);
/// 2 days: what others keep saying of a peer.
pub const DEFAULT_MAX_HEARSAY_LIFETIME: Duration = Duration::from_secs(2 * 24 * 60 * 60);
/// 1 hour: the port of a connection that came in, which hardly ever takes one.
pub const DEFAULT_INBOUND_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// 24 hours: what a peer says of itself.
pub const DEFAULT_SELF_TOLD_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// 14 days: how long a successful dial counts as proof of an address.
pub const DEFAULT_PROVEN_LIFETIME: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// 24 days: the longest lifetime of an address. For so long at least it is known when something was, also after a restart.
pub const MAX_LIFETIME: Duration = Duration::from_secs(24 * 24 * 60 * 60);
/// A lifetime of a year or more stands for ever.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// 6 hours: how long an address where another peer answered is not tried again for the one that was expected there.
pub const DEFAULT_WRONG_PEER_BLOCK: Duration = Duration::from_secs(6 * 60 * 60);
/// 5 dirty peers start a commit, as in js-libp2p.
pub const DEFAULT_COMMIT_THRESHOLD: NonZeroUsize = size(5);
/// 1 second between commits that the threshold starts, so that gossip does not become a loop of syncs.
pub const DEFAULT_MIN_COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// 30 seconds: the oldest unsaved change does not wait longer, even on a quiet node.
pub const DEFAULT_MAX_COMMIT_DELAY: Duration = Duration::from_secs(30);
/// 30 seconds: how long `flush` and `shutdown` wait for the datastore.
pub const DEFAULT_FLUSH_DEADLINE: Duration = Duration::from_secs(30);
/// 2 seconds: how long dropping the last handle waits for the datastore.
pub const DEFAULT_DROP_DEADLINE: Duration = Duration::from_secs(2);
/// 1,024 events wait for a subscriber before it is told that it missed some.
pub const DEFAULT_EVENT_CAPACITY: NonZeroUsize = size(1_024);

/// 40 %: what others told of peers, all together.
pub const DEFAULT_HEARSAY_SHARE: f64 = 0.4;
/// 2 %: what others told of peers at DNS names. One domain has endless names, and each dial asks its owner.
pub const DEFAULT_DNS_SHARE: f64 = 0.02;
/// 1/32: peers that came from one group of addresses and told of themselves. A rented network is worth no more.
pub const DEFAULT_SOURCE_SHARE: f64 = 1.0 / 32.0;
/// 1/16: peers that were proven in one group of addresses.
pub const DEFAULT_PROVEN_SHARE: f64 = 1.0 / 16.0;
/// 1/4: peers that are protected because they keep a connection which they opened.
pub const DEFAULT_ACCEPTED_SHARE: f64 = 0.25;
/// 8 peers of which only others say that they are at one IP address.
pub const DEFAULT_MAX_CLAIMS_PER_IP: NonZeroUsize = size(8);
/// 2 addresses with a DNS name that strangers tell of one peer.
pub const DEFAULT_MAX_HEARSAY_NAMES: usize = 2;

macro_rules! settings {
    ($( $(#[$doc:meta])* $name:ident / $with:ident: $type:ty = $default:expr; )*) => {
        /// Limits, times and switches of a store. [`Config::default`] is valid as it is.
        ///
        /// Every setting has a consuming `with_…` setter, and all but the clock, the executor and the filter have a getter
        /// of their own name, whose documentation says what the setting does, its unit and its default.
        #[derive(Clone)]
        pub struct Config {
            $( $name: $type, )*
            clock: Arc<dyn Clock>,
            executor: Option<Executor>,
            filter: Option<Arc<dyn AddressFilter>>,
        }

        impl Default for Config {
            fn default() -> Self {
                Self {
                    $( $name: $default, )*
                    clock: Arc::new(SystemClock::default()),
                    executor: None,
                    filter: None,
                }
            }
        }

        impl fmt::Debug for Config {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct("Config") $( .field(stringify!($name), &self.$name) )* .finish_non_exhaustive()
            }
        }

        impl Config {
            $(
                $(#[$doc])*
                pub fn $name(&self) -> $type {
                    self.$name
                }

                #[doc = concat!("Sets [`Config::", stringify!($name), "`].")]
                #[must_use]
                pub fn $with(mut self, $name: $type) -> Self {
                    self.$name = $name;
                    self
                }
            )*
        }
    };
}

settings! {
    /// Peers in all. When the store is full a new peer takes the place of the least valuable one (known by
    /// hearsay first, then from an inbound connection only, then by its own word, then proven by a dial, then
    /// connected; pinned ones never go), or is refused when all others are worth more.
    /// Default: [`DEFAULT_MAX_PEERS`].
    max_peers / with_max_peers: NonZeroUsize = DEFAULT_MAX_PEERS;

    /// Addresses of one peer. When they are full a new address takes the place of one that is worth less, or
    /// of one that is worth the same and was last heard of more than a quarter of its lifetime before; else it
    /// is refused. Pinned addresses and those of open connections that this node dialled never go.
    /// Default: [`DEFAULT_MAX_ADDRESSES_PER_PEER`].
    max_addresses_per_peer / with_max_addresses_per_peer: NonZeroUsize = DEFAULT_MAX_ADDRESSES_PER_PEER;

    /// Length of one address in bytes, in multiaddr's binary form and without `/p2p/<peer>` at its end. Longer
    /// ones are refused.
    /// Default: [`DEFAULT_MAX_ADDRESS_LEN`].
    max_address_len / with_max_address_len: NonZeroUsize = DEFAULT_MAX_ADDRESS_LEN;

    /// Protocols of one peer; what exceeds them is refused. Default: [`DEFAULT_MAX_PROTOCOLS_PER_PEER`].
    max_protocols_per_peer / with_max_protocols_per_peer: NonZeroUsize = DEFAULT_MAX_PROTOCOLS_PER_PEER;

    /// Length of one protocol name in bytes. Longer ones are refused. Default: [`DEFAULT_MAX_PROTOCOL_LEN`].
    max_protocol_len / with_max_protocol_len: NonZeroUsize = DEFAULT_MAX_PROTOCOL_LEN;

    /// Metadata keys of one peer; further ones are refused. Default: [`DEFAULT_MAX_METADATA_PER_PEER`].
    max_metadata_per_peer / with_max_metadata_per_peer: NonZeroUsize = DEFAULT_MAX_METADATA_PER_PEER;

    /// Length of a metadata key in bytes. Longer ones are refused. Default: [`DEFAULT_MAX_METADATA_KEY_LEN`].
    max_metadata_key_len / with_max_metadata_key_len: NonZeroUsize = DEFAULT_MAX_METADATA_KEY_LEN;

    /// Length of a metadata value in bytes. Longer ones are refused.
    /// Default: [`DEFAULT_MAX_METADATA_VALUE_LEN`].
    max_metadata_value_len / with_max_metadata_value_len: NonZeroUsize = DEFAULT_MAX_METADATA_VALUE_LEN;

    /// Tags of one peer; further ones are refused. Default: [`DEFAULT_MAX_TAGS_PER_PEER`].
    max_tags_per_peer / with_max_tags_per_peer: NonZeroUsize = DEFAULT_MAX_TAGS_PER_PEER;

    /// Length of a tag's name in bytes. Longer ones are refused. Default: [`DEFAULT_MAX_TAG_NAME_LEN`].
    max_tag_name_len / with_max_tag_name_len: NonZeroUsize = DEFAULT_MAX_TAG_NAME_LEN;

    /// Length of a signed peer record in bytes, its envelope included. Longer ones are refused.
    /// Default: [`DEFAULT_MAX_SIGNED_RECORD_LEN`].
    max_signed_record_len / with_max_signed_record_len: NonZeroUsize = DEFAULT_MAX_SIGNED_RECORD_LEN;

    /// Addresses offered to the swarm for one dial at most; half as many when the best one is very good.
    /// Default: [`DEFAULT_MAX_DIAL_ADDRESSES`].
    max_dial_addresses / with_max_dial_addresses: NonZeroUsize = DEFAULT_MAX_DIAL_ADDRESSES;

    /// The part of the capacity, from 0 to 1, that peers known by hearsay only can hold once the store has been full;
    /// beyond it a newcomer takes the place of a random one of them. This and the other shares bind while the store is
    /// full, and for [`Config::hearsay_lifetime`] after somebody had to go; none is less than 8 peers. With 1, as a
    /// crawler may want it, hearsay takes all that nothing better needs.
    /// Default: [`DEFAULT_HEARSAY_SHARE`].
    hearsay_share / with_hearsay_share: f64 = DEFAULT_HEARSAY_SHARE;

    /// The part of the capacity for peers known by hearsay only whose address is a DNS name.
    /// Default: [`DEFAULT_DNS_SHARE`].
    dns_share / with_dns_share: f64 = DEFAULT_DNS_SHARE;

    /// The part of the capacity for peers that told of themselves, or only connected, from one group of addresses
    /// (IPv4 /16, IPv6 /32, or one relay); beyond it a newcomer takes the place of a random one of them.
    /// Default: [`DEFAULT_SOURCE_SHARE`].
    source_share / with_source_share: f64 = DEFAULT_SOURCE_SHARE;

    /// The part of the capacity beyond which proven peers of one group of addresses make room for peers of other
    /// groups that told of themselves. Default: [`DEFAULT_PROVEN_SHARE`].
    proven_share / with_proven_share: f64 = DEFAULT_PROVEN_SHARE;

    /// The part of the capacity that is protected for peers that are connected by their own doing. What exceeds it
    /// is worth as much as its word. Default: [`DEFAULT_ACCEPTED_SHARE`].
    accepted_share / with_accepted_share: f64 = DEFAULT_ACCEPTED_SHARE;

    /// Peers, known by hearsay only, that strangers (Kademlia, rendezvous, another discovery) can say to be at one IPv4
    /// address or in one IPv6 /64, at whatever port; further ones are refused there. A peer that proves to be there
    /// takes the place of one of them, and does not count. Default: [`DEFAULT_MAX_CLAIMS_PER_IP`].
    max_claims_per_ip / with_max_claims_per_ip: NonZeroUsize = DEFAULT_MAX_CLAIMS_PER_IP;

    /// Addresses with a DNS name that strangers (Kademlia, rendezvous, another discovery) can tell of one peer; further
    /// ones are refused, and `/dnsaddr` always. Each dial to a name asks a server that its owner chose. What the peer
    /// itself, mDNS, the application or a dial tells does not count. Default: [`DEFAULT_MAX_HEARSAY_NAMES`].
    max_hearsay_names / with_max_hearsay_names: usize = DEFAULT_MAX_HEARSAY_NAMES;

    /// Whether strangers (Kademlia, rendezvous, another discovery) can always tell private, link-local and loopback
    /// addresses. By default they can while all direct connections of this node are in that network: in a private
    /// network, or before the first connection. Default: `false`.
    private_hearsay / with_private_hearsay: bool = false;

    /// How long an address that others told is remembered after it was last heard of, if it was heard of once: 8 times
    /// the time for which it was told comes to it, up to [`Config::max_hearsay_lifetime`]. "Last heard of" is kept in
    /// steps of a quarter of an hour, or of a quarter of this if that is less. What a peer dropped cannot come back by hearsay for
    /// as long as this. Lifetimes are kept to 64 seconds, see [`Config::proven_lifetime`].
    /// Default: [`DEFAULT_HEARSAY_LIFETIME`].
    hearsay_lifetime / with_hearsay_lifetime: Duration = DEFAULT_HEARSAY_LIFETIME;

    /// How long an address that others keep telling is remembered at most after it was last heard of. Up to
    /// [`Config::hearsay_lifetime`], all hearsay is remembered for just that. Kept to 64 seconds, see
    /// [`Config::proven_lifetime`].
    /// Default: [`DEFAULT_MAX_HEARSAY_LIFETIME`].
    max_hearsay_lifetime / with_max_hearsay_lifetime: Duration = DEFAULT_MAX_HEARSAY_LIFETIME;

    /// How long an address that was only seen on an inbound connection is remembered; halved by each failed dial in a
    /// row, down to a quarter. Kept to 64 seconds, see [`Config::proven_lifetime`].
    /// Default: [`DEFAULT_INBOUND_LIFETIME`].
    inbound_lifetime / with_inbound_lifetime: Duration = DEFAULT_INBOUND_LIFETIME;

    /// The same for what a peer says of itself. Where others keep telling the address, too, it is hearsay after that, for
    /// as long as their word lasts. A peer of which no address is known is remembered for as long after the last word of
    /// it, or the end of its last connection. "Last heard of" is kept in steps of a quarter of it. Kept to
    /// 64 seconds, see [`Config::proven_lifetime`].
    /// Default: [`DEFAULT_SELF_TOLD_LIFETIME`].
    self_told_lifetime / with_self_told_lifetime: Duration = DEFAULT_SELF_TOLD_LIFETIME;

    /// How long a successful dial proves an address, from the end of the connection.
    ///
    /// This and the other lifetimes end up to 64 seconds early: the times of an address are kept in steps of that. What is
    /// shorter counts as 64 seconds, and what is longer than [`MAX_LIFETIME`] as that, as no older time is known after a
    /// restart; but a year or more is for ever. Default: [`DEFAULT_PROVEN_LIFETIME`].
    proven_lifetime / with_proven_lifetime: Duration = DEFAULT_PROVEN_LIFETIME;

    /// How long an address where another peer answered is not offered for the one that was expected there. Unless it
    /// was pinned, certified or proven before, it is forgotten, and hearsay does not bring it back for as long. At most
    /// [`MAX_LIFETIME`], or a year or more for ever.
    /// Default: [`DEFAULT_WRONG_PEER_BLOCK`].
    wrong_peer_block / with_wrong_peer_block: Duration = DEFAULT_WRONG_PEER_BLOCK;

    /// Whether a proven address stays when identify no longer lists it. Default: `false`, identify replaces.
    keep_proven_on_replace / with_keep_proven_on_replace: bool = false;

    /// Whether [`Observed`](crate::Observed) passes on only those addresses of the inner behaviour for a dial
    /// that the store would offer itself. Default: `true`.
    gate_dials / with_gate_dials: bool = true;

    /// Whether [`PeerStoreBehaviour`](crate::PeerStoreBehaviour) yields the store's events to the swarm.
    /// Each one wakes the application's event loop; whoever listens through
    /// [`PeerStore::subscribe`](crate::PeerStore::subscribe) only can switch this off. Default: `true`.
    swarm_events / with_swarm_events: bool = true;

    /// Events that wait for one subscriber. When they are full, older events that a newer one has made
    /// obsolete are dropped first; what is lost beyond that is told as [`Event::Lagged`](crate::Event::Lagged).
    /// Default: [`DEFAULT_EVENT_CAPACITY`].
    event_capacity / with_event_capacity: NonZeroUsize = DEFAULT_EVENT_CAPACITY;

    /// Whether peers that are known by hearsay only are written to the datastore. Crawlers switch it off.
    /// Default: `true`.
    persist_hearsay / with_persist_hearsay: bool = true;

    /// Dirty peers that start a commit. Default: [`DEFAULT_COMMIT_THRESHOLD`].
    commit_threshold / with_commit_threshold: NonZeroUsize = DEFAULT_COMMIT_THRESHOLD;

    /// The least time between the end of a commit and the start of the next one, unless `flush` or `shutdown`
    /// ask for it. Default: [`DEFAULT_MIN_COMMIT_INTERVAL`].
    min_commit_interval / with_min_commit_interval: Duration = DEFAULT_MIN_COMMIT_INTERVAL;

    /// How long a change waits for the threshold before it is written anyway.
    /// Default: [`DEFAULT_MAX_COMMIT_DELAY`].
    max_commit_delay / with_max_commit_delay: Duration = DEFAULT_MAX_COMMIT_DELAY;

    /// How long `flush` and `shutdown` wait for the datastore before they report what is unsaved.
    /// Default: [`DEFAULT_FLUSH_DEADLINE`].
    flush_deadline / with_flush_deadline: Duration = DEFAULT_FLUSH_DEADLINE;

    /// How long dropping the last handle blocks its thread while the rest is saved.
    /// Default: [`DEFAULT_DROP_DEADLINE`].
    drop_deadline / with_drop_deadline: Duration = DEFAULT_DROP_DEADLINE;
}

impl Config {
    /// The source of time. Default: [`SystemClock`].
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Sets [`Config::clock`].
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Hands the persistence engine, one future for the life of the store, to `executor` instead of a thread
    /// of the store's own.
    ///
    /// The datastore then runs on that executor: one that blocks, blocks it. Dropping the last handle on the
    /// executor's only thread waits for [`Config::drop_deadline`] in vain; call
    /// [`PeerStore::shutdown`](crate::PeerStore::shutdown) instead.
    #[must_use]
    pub fn with_executor(
        mut self,
        executor: impl Fn(BoxFuture<'static, ()>) + Send + Sync + 'static,
    ) -> Self {
        self.executor = Some(Arc::new(executor));
        self
    }

    /// Learns only those addresses that a filter admits, from whatever source in the network: identify, discovery
    /// protocols, the swarm. What the application itself stores, and what this node dialled, is not asked for. What is
    /// not admitted is counted as [`Refused::Filtered`](crate::Refused::Filtered). Default: all are learnt.
    ///
    /// ```
    /// use libp2p_peerstore::{Config, public_only};
    ///
    /// let config = Config::default().with_address_filter(public_only);
    /// ```
    #[must_use]
    pub fn with_address_filter(mut self, filter: impl AddressFilter) -> Self {
        self.filter = Some(Arc::new(filter));
        self
    }

    /// Splits what was told of a peer into what the filter admits and the number of the rest. Calls the user's code.
    pub(crate) fn filtered<'a>(
        &self,
        peer: &PeerId,
        told: &'a [Multiaddr],
    ) -> (Cow<'a, [Multiaddr]>, usize) {
        let Some(filter) = &self.filter else {
            return (told.into(), 0);
        };
        let admitted: Vec<_> = told
            .iter()
            .filter(|address| filter.admits(peer, address))
            .cloned()
            .collect();
        let refused = told.len() - admitted.len();
        (admitted.into(), refused)
    }

    /// The longest address that is kept, in bytes.
    pub(crate) fn address_len_limit(&self) -> usize {
        self.max_address_len().get().min(MAX_ADDRESS_LEN)
    }

    /// The most addresses that one peer has.
    pub(crate) fn addresses_limit(&self) -> usize {
        self.max_addresses_per_peer().get().min(MAX_ADDRESSES)
    }

    /// With times that can be kept as they are documented: else an address whose age is no longer known would be as young
    /// at each start, and one that is younger than the grain of its times could have expired.
    pub(crate) fn with_times_that_can_be_kept(mut self) -> Self {
        for (time, least) in [
            (&mut self.hearsay_lifetime, STEP),
            (&mut self.max_hearsay_lifetime, STEP),
            (&mut self.inbound_lifetime, STEP),
            (&mut self.self_told_lifetime, STEP),
            (&mut self.proven_lifetime, STEP),
            (&mut self.wrong_peer_block, Duration::ZERO),
        ] {
            if *time < FOR_EVER {
                *time = (*time).clamp(least, MAX_LIFETIME);
            }
        }
        self
    }

    pub(crate) fn executor(&self) -> Option<&Executor> {
        self.executor.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_its_documented_constant() {
        let config = Config::default();
        assert_eq!(config.max_peers(), DEFAULT_MAX_PEERS);
        assert_eq!(
            config.max_addresses_per_peer(),
            DEFAULT_MAX_ADDRESSES_PER_PEER
        );
        assert_eq!(config.max_address_len(), DEFAULT_MAX_ADDRESS_LEN);
        assert_eq!(
            config.max_protocols_per_peer(),
            DEFAULT_MAX_PROTOCOLS_PER_PEER
        );
        assert_eq!(config.max_protocol_len(), DEFAULT_MAX_PROTOCOL_LEN);
        assert_eq!(
            config.max_metadata_per_peer(),
            DEFAULT_MAX_METADATA_PER_PEER
        );
        assert_eq!(config.max_metadata_key_len(), DEFAULT_MAX_METADATA_KEY_LEN);
        assert_eq!(
            config.max_metadata_value_len(),
            DEFAULT_MAX_METADATA_VALUE_LEN
        );
        assert_eq!(config.max_tags_per_peer(), DEFAULT_MAX_TAGS_PER_PEER);
        assert_eq!(config.max_tag_name_len(), DEFAULT_MAX_TAG_NAME_LEN);
        assert_eq!(
            config.max_signed_record_len(),
            DEFAULT_MAX_SIGNED_RECORD_LEN
        );
        assert_eq!(config.max_dial_addresses(), DEFAULT_MAX_DIAL_ADDRESSES);
        assert_eq!(config.hearsay_lifetime(), DEFAULT_HEARSAY_LIFETIME);
        assert_eq!(config.max_hearsay_lifetime(), DEFAULT_MAX_HEARSAY_LIFETIME);
        assert_eq!(config.inbound_lifetime(), DEFAULT_INBOUND_LIFETIME);
        assert_eq!(config.self_told_lifetime(), DEFAULT_SELF_TOLD_LIFETIME);
        assert_eq!(config.proven_lifetime(), DEFAULT_PROVEN_LIFETIME);
        assert_eq!(config.wrong_peer_block(), DEFAULT_WRONG_PEER_BLOCK);
        assert_eq!(config.hearsay_share(), DEFAULT_HEARSAY_SHARE);
        assert_eq!(config.dns_share(), DEFAULT_DNS_SHARE);
        assert_eq!(config.source_share(), DEFAULT_SOURCE_SHARE);
        assert_eq!(config.proven_share(), DEFAULT_PROVEN_SHARE);
        assert_eq!(config.accepted_share(), DEFAULT_ACCEPTED_SHARE);
        assert_eq!(config.max_claims_per_ip(), DEFAULT_MAX_CLAIMS_PER_IP);
        assert_eq!(config.max_hearsay_names(), DEFAULT_MAX_HEARSAY_NAMES);
        assert_eq!(config.event_capacity(), DEFAULT_EVENT_CAPACITY);
        assert_eq!(config.commit_threshold(), DEFAULT_COMMIT_THRESHOLD);
        assert_eq!(config.min_commit_interval(), DEFAULT_MIN_COMMIT_INTERVAL);
        assert_eq!(config.max_commit_delay(), DEFAULT_MAX_COMMIT_DELAY);
        assert_eq!(config.flush_deadline(), DEFAULT_FLUSH_DEADLINE);
        assert_eq!(config.drop_deadline(), DEFAULT_DROP_DEADLINE);
    }
}
