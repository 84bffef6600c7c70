//! What is known of one address, and how long it is remembered, as the documentation has it.

use std::time::Duration;

use libp2p_core::Multiaddr;
use libp2p_peerstore::{Config, Sources, Standing};

use super::{naive::STEP, naive_confidence::Evidence, universe::about};

/// One address of a peer, and what happened to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Address {
    pub address: Multiaddr,
    pub sources: Sources,
    pub first_heard: u64,
    pub last_heard: u64,
    pub success: Option<u64>,
    pub failure: Option<u64>,
    pub successes: u32,
    pub failures: u32,
    pub evidence: Evidence,
    /// A connection that this node dialled is open to it.
    pub in_use: bool,
    /// A connection that came from it is open.
    pub held: bool,
    /// mDNS tells it, and has not taken it back.
    pub announced: bool,
    /// By how much its times may be older on disk, in seconds: the end of a connection alone is not worth a commit.
    pub unwritten: u64,
    /// Another peer answered there.
    pub wrong_peer: bool,
    /// No transport speaks it.
    pub unsupported: bool,
}

impl Address {
    pub fn new(address: Multiaddr, sources: Sources, step: u64) -> Self {
        Self {
            address,
            sources,
            first_heard: step,
            last_heard: step,
            success: None,
            failure: None,
            successes: 0,
            failures: 0,
            evidence: Evidence::None,
            in_use: false,
            held: false,
            announced: sources.contains(Sources::MDNS),
            unwritten: 0,
            wrong_peer: false,
            unsupported: false,
        }
    }

    pub fn is_pinned(&self) -> bool {
        self.sources.contains(Sources::PINNED)
    }

    pub fn told(&self) -> Standing {
        if self
            .sources
            .intersects(Sources::IDENTIFY | Sources::CERTIFIED)
        {
            Standing::SelfTold
        } else if self.sources == Sources::INBOUND {
            Standing::Inbound
        } else {
            Standing::Hearsay
        }
    }

    pub fn is_told_by_others(&self) -> bool {
        let own = Sources::INBOUND | Sources::IDENTIFY | Sources::CERTIFIED;
        self.sources - own != Sources::empty()
    }

    /// The IP address at which only strangers say that it is, or a record that strangers may have passed on.
    pub fn claim(&self) -> Option<&'static str> {
        let trusted = Sources::APPLICATION | Sources::MDNS;
        let passed_on =
            self.sources.contains(Sources::CERTIFIED) && !self.sources.intersects(trusted);
        let spot = about(&self.address).spot;
        spot.filter(|_| passed_on || is_word_of_strangers(self.sources))
    }

    /// Whether only strangers tell it.
    pub fn is_strangers(&self) -> bool {
        let better = Sources::PINNED | Sources::IDENTIFY | Sources::CERTIFIED | Sources::DIALLED;
        is_word_of_strangers(self.sources) && !self.sources.intersects(better)
    }

    /// When it is forgotten if nothing more is heard of it.
    pub fn expires(&self, config: &Config) -> Option<u64> {
        if self.is_pinned() || self.in_use || self.held || self.announced {
            return None;
        }
        let told = match (self.told(), self.is_told_by_others()) {
            (Standing::SelfTold, true) => {
                let by_others = self.lifetime(Standing::Hearsay, config);
                self.lifetime(Standing::SelfTold, config).max(by_others)
            }
            (told, _) => self.lifetime(told, config),
        };
        let told = self.last_heard + told.as_secs();
        let proven = self.lifetime(Standing::Proven, config).as_secs();
        let proven = self.success.map(|at| at + proven);
        Some(proven.map_or(told, |proven| proven.max(told)))
    }

    /// How long it is remembered. Hearsay: longer by 8 times the time for which it was told, up to a limit, whatever
    /// came of dials. Else: halved by each failure in a row, down to a quarter.
    pub fn lifetime(&self, standing: Standing, config: &Config) -> Duration {
        let full = match standing {
            Standing::Proven => config.proven_lifetime(),
            Standing::SelfTold => config.self_told_lifetime(),
            Standing::Inbound => config.inbound_lifetime(),
            _ => {
                let once = config.hearsay_lifetime();
                let longest = config.max_hearsay_lifetime().max(once);
                let told = Duration::from_secs(self.last_heard - self.first_heard);
                return longest.min(once + told * 8);
            }
        };
        // What was told in this step has not expired.
        let least = Duration::from_secs(STEP);
        match self.failures {
            0 => full,
            1 => least.max(full / 2),
            _ => least.max(full / 4),
        }
    }

    /// The step in which "last heard of" is kept: a quarter of the lifetime, and of hearsay a quarter of an hour at most.
    pub fn grain(&self, standing: Standing, config: &Config) -> Duration {
        let quarter = self.lifetime(standing, config) / 4;
        match standing {
            Standing::Hearsay => quarter.min(Duration::from_secs(15 * 60)),
            _ => quarter,
        }
    }
}

/// Whether this is the word of Kademlia, rendezvous or another discovery, and neither the application nor a neighbour
/// says the same.
pub fn is_word_of_strangers(sources: Sources) -> bool {
    let strangers = Sources::KADEMLIA | Sources::RENDEZVOUS | Sources::DISCOVERY;
    sources.intersects(strangers) && !sources.intersects(Sources::APPLICATION | Sources::MDNS)
}
