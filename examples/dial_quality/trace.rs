//! The world: which peer is online when and where, and what of it comes to the ears of this node.
//!
//! Nothing here depends on a store: all rules see the same trace, and the application dials the same peers at the
//! same moments, whatever they know.

use std::{collections::HashMap, net::Ipv4Addr};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol, multihash::Multihash};

use crate::random::{Random, hash};

/// Seconds since the trace began.
pub type Secs = u64;

pub const MINUTE: Secs = 60;
pub const HOUR: Secs = 60 * MINUTE;
pub const DAY: Secs = 24 * HOUR;

/// Peers that the application talks to again and again; the others it dials when it heard of them.
const FRIENDS: usize = 100;
/// How recently the application has heard of a stranger that it dials.
const NEWS: Secs = 30 * MINUTE;
/// The application does not dial a peer again within this time.
const PAUSE: Secs = 15 * MINUTE;
/// How old the address of a peer can be that is gossiped.
const STALE: Secs = DAY;
/// The trace goes on for so long after the last event, for restarts after a pause.
const AFTERMATH: Secs = 8 * DAY;

/// How a peer comes and goes. Session lengths are log-normal and heavy-tailed.
struct Class {
    share: f64,
    /// Median hours online and offline, and the sigma of both.
    online: f64,
    offline: f64,
    sigma: f64,
    /// The chance of another address at each return.
    moves: f64,
    /// The chance that the peer can be dialled at all; the others are behind a NAT.
    dialable: f64,
}

const CLASSES: [Class; 3] = [
    // Servers.
    Class {
        share: 0.08,
        online: 72.0,
        offline: 1.0,
        sigma: 1.0,
        moves: 0.03,
        dialable: 1.0,
    },
    // Desktops: hours.
    Class {
        share: 0.32,
        online: 6.0,
        offline: 6.0,
        sigma: 1.0,
        moves: 0.20,
        dialable: 0.6,
    },
    // The rest: mostly below an hour.
    Class {
        share: 0.60,
        online: 0.5,
        offline: 12.0,
        sigma: 1.2,
        moves: 0.40,
        dialable: 0.45,
    },
];

#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub seed: u64,
    pub days: u64,
    pub peers: usize,
    /// The share of hearsay with an address where the peer never was.
    pub lies: f64,
    /// Whether identify tells private addresses too, as rust-libp2p's does by default.
    pub private: bool,
}

/// The number of a peer.
pub type Peer = usize;
/// The number of an address.
pub type Place = usize;

#[derive(Debug)]
pub struct Node {
    pub id: PeerId,
    pub dialable: bool,
    sessions: Vec<Session>,
    private: Vec<Multiaddr>,
}

#[derive(Debug, Clone, Copy)]
struct Session {
    from: Secs,
    to: Secs,
    place: Place,
}

#[derive(Debug)]
struct Spot {
    address: Multiaddr,
    /// Peers that were there at some time.
    tenants: Vec<Peer>,
    /// Whether its host refuses connections when no peer listens, rather than to be silent.
    refuses: bool,
}

#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// Somebody says that `peer` is at `place`.
    Heard { peer: Peer, place: Place },
    /// A peer connects, and identifies itself; the connection lasts until `until`.
    Inbound { peer: Peer, port: u16, until: Secs },
    /// The application dials.
    Dial { peer: Peer },
    /// The node starts anew.
    Restart,
}

/// What is to be found at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Peer(Peer),
    Refused,
    Silence,
    /// This node has no route: an outage that the operating system knows of.
    NoRoute,
}

#[derive(Debug)]
pub struct Trace {
    pub settings: Settings,
    pub nodes: Vec<Node>,
    pub events: Vec<(Secs, Event)>,
    spots: Vec<Spot>,
    by_ip: HashMap<Ipv4Addr, Place>,
    outages: Vec<(Secs, Secs)>,
}

impl Trace {
    pub fn new(settings: Settings) -> Self {
        let mut trace = Self {
            settings,
            nodes: Vec::new(),
            events: Vec::new(),
            spots: Vec::new(),
            by_ip: HashMap::new(),
            outages: Vec::new(),
        };
        let mut random = Random::new(hash(settings.seed));
        trace.populate(&mut random);
        trace.outages(&mut random);
        trace.gossip(&mut random);
        trace.inbound(&mut random);
        trace.application(&mut random);
        for day in 1..settings.days {
            trace.events.push((day * DAY + 4 * HOUR, Event::Restart));
        }
        trace.events.sort_by_key(|(at, _)| *at);
        trace
    }

    fn end(&self) -> Secs {
        self.settings.days * DAY
    }

    // --- the making of it ----------------------------------------------------------------------------------

    fn populate(&mut self, random: &mut Random) {
        for peer in 0..self.settings.peers {
            let mut pick = random.unit();
            let class = CLASSES.iter().find(|class| {
                pick -= class.share;
                pick < 0.0
            });
            let class = class.unwrap_or(&CLASSES[2]);
            let mut digest = [0; 32];
            digest
                .chunks_mut(8)
                .for_each(|chunk| chunk.copy_from_slice(&random.next().to_be_bytes()));
            let id = Multihash::wrap(0x12, &digest).ok();
            let id = id.and_then(|hash| PeerId::from_multihash(hash).ok());
            let dialable = random.chance(class.dialable);
            let host = Ipv4Addr::new(192, 168, random.below(4) as u8, 2 + random.below(200) as u8);
            self.nodes.push(Node {
                id: id.expect("a SHA-256 multihash is a peer id"),
                dialable,
                sessions: Vec::new(),
                private: vec![tcp(Ipv4Addr::LOCALHOST), tcp(host)],
            });
            let online =
                |random: &mut Random| HOUR as f64 * random.log_normal(class.online, class.sigma);
            let offline =
                |random: &mut Random| HOUR as f64 * random.log_normal(class.offline, class.sigma);
            // Begins somewhere in the past, so that day 0 is like any other.
            let mut at = -(DAY as f64) * 3.0 * random.unit();
            let mut place = self.new_place(peer, random);
            while at < (self.end() + AFTERMATH) as f64 {
                let to = at + online(random).max(60.0);
                if to > 0.0 {
                    let session = Session {
                        from: at.max(0.0) as Secs,
                        to: to as Secs,
                        place,
                    };
                    self.nodes[peer].sessions.push(session);
                }
                at = to + offline(random).max(60.0);
                if random.chance(class.moves) {
                    place = self.new_place(peer, random);
                }
            }
        }
    }

    /// An address for a peer: a new one, or, rarely, one that another peer once had.
    fn new_place(&mut self, peer: Peer, random: &mut Random) -> Place {
        let place = if random.chance(0.02) && !self.spots.is_empty() {
            random.below(self.spots.len())
        } else {
            self.nowhere(random)
        };
        self.spots[place].tenants.push(peer);
        place
    }

    /// An address where nobody is.
    fn nowhere(&mut self, random: &mut Random) -> Place {
        loop {
            let ip = Ipv4Addr::from(random.next() as u32);
            let [first, second, ..] = ip.octets();
            let reserved =
                ip.is_private() || ip.is_link_local() || ip.is_loopback() || ip.is_documentation();
            let shared = first == 100 && second & 0xc0 == 64;
            let special = (first == 192 && second == 0) || (first == 198 && second & 0xfe == 18);
            if reserved
                || shared
                || special
                || first == 0
                || first >= 224
                || self.by_ip.contains_key(&ip)
            {
                continue;
            }
            let place = self.spots.len();
            let address = if random.chance(0.5) {
                tcp(ip)
            } else {
                quic(ip)
            };
            self.spots.push(Spot {
                address,
                tenants: Vec::new(),
                refuses: random.chance(0.3),
            });
            self.by_ip.insert(ip, place);
            return place;
        }
    }

    fn outages(&mut self, random: &mut Random) {
        let mut at = 2.0 * DAY as f64;
        loop {
            at += random.exponential(3.0 * DAY as f64);
            // Half an hour to six hours, the short ones more often.
            let to = at + HOUR as f64 * 0.5 * 12_f64.powf(random.unit());
            if to > self.end() as f64 {
                return;
            }
            self.outages.push((at as Secs, to as Secs));
            at = to;
        }
    }

    fn gossip(&mut self, random: &mut Random) {
        for peer in 0..self.nodes.len() {
            // One lie is told again and again, others once.
            let mut lies: Vec<Place> = Vec::new();
            let mut at = 0.0;
            while at < self.end() as f64 {
                let mean = self.silence(peer, at as Secs);
                let next = at + random.exponential(mean as f64);
                // What happens before the state changes again is drawn anew there.
                let change = self.next_change(peer, at as Secs) as f64;
                if next > change {
                    at = change;
                    continue;
                }
                at = next;
                let now = at as Secs;
                let fresh = random.chance(0.7);
                let age = if fresh {
                    0
                } else {
                    random.below(STALE as usize) as Secs
                };
                let Some(last) = self.last_session(peer, now.saturating_sub(age)) else {
                    continue;
                };
                if self.is_outage(now) || now.saturating_sub(last.to) > STALE {
                    continue;
                }
                let mut place = last.place;
                if random.chance(self.settings.lies) {
                    place = if !lies.is_empty() && random.chance(0.5) {
                        lies[random.below(lies.len())]
                    } else {
                        self.lie(random)
                    };
                    lies.push(place);
                }
                self.events.push((now, Event::Heard { peer, place }));
            }
        }
    }

    /// How long it takes on average until a peer is mentioned. Kademlia keeps old contacts: who has been online for
    /// an hour stands in many tables; who has left is mentioned less, and then no more.
    fn silence(&self, peer: Peer, now: Secs) -> Secs {
        match self.session(peer, now) {
            Some(session) if now - session.from >= HOUR => 20 * MINUTE,
            Some(_) => HOUR,
            None => 4 * HOUR,
        }
    }

    /// An address where a peer is not: mostly nobody's, sometimes somebody else's.
    fn lie(&mut self, random: &mut Random) -> Place {
        if random.chance(0.1) {
            random.below(self.spots.len())
        } else {
            self.nowhere(random)
        }
    }

    fn inbound(&mut self, random: &mut Random) {
        let mut at = 0.0;
        while at < self.end() as f64 {
            at += random.exponential(MINUTE as f64);
            let now = at as Secs;
            let peer = random.below(self.nodes.len());
            let Some(session) = self.session(peer, now).filter(|_| !self.is_outage(now)) else {
                continue;
            };
            let until = (at + random.exponential(30.0 * MINUTE as f64)) as Secs;
            let port = 32_768 + random.below(28_000) as u16;
            let until = until.min(session.to);
            self.events
                .push((now, Event::Inbound { peer, port, until }));
        }
    }

    /// One dial a minute: half to friends, half to peers of which it was told shortly before.
    fn application(&mut self, random: &mut Random) {
        let mut heard: Vec<(Secs, Peer)> = self
            .events
            .iter()
            .filter_map(|(at, event)| match event {
                Event::Heard { peer, .. } => Some((*at, *peer)),
                _ => None,
            })
            .collect();
        heard.sort_unstable();
        let mut dialled: HashMap<Peer, Secs> = HashMap::new();
        for minute in 60..self.end() / MINUTE {
            let now = minute * MINUTE;
            let peer = if random.chance(0.5) {
                random.below(FRIENDS)
            } else {
                let from = heard.partition_point(|(at, _)| *at + NEWS < now);
                let to = heard.partition_point(|(at, _)| *at < now);
                if from == to {
                    continue;
                }
                heard[from + random.below(to - from)].1
            };
            if dialled.get(&peer).is_some_and(|at| at + PAUSE > now) {
                continue;
            }
            dialled.insert(peer, now);
            self.events.push((now, Event::Dial { peer }));
        }
    }

    // --- looking at it -------------------------------------------------------------------------------------

    pub fn is_outage(&self, now: Secs) -> bool {
        self.outages
            .iter()
            .any(|(from, to)| (*from..*to).contains(&now))
    }

    fn last_session(&self, peer: Peer, now: Secs) -> Option<Session> {
        let sessions = &self.nodes[peer].sessions;
        let next = sessions.partition_point(|session| session.from <= now);
        next.checked_sub(1).map(|last| sessions[last])
    }

    fn session(&self, peer: Peer, now: Secs) -> Option<Session> {
        self.last_session(peer, now)
            .filter(|session| now < session.to)
    }

    fn next_change(&self, peer: Peer, now: Secs) -> Secs {
        let sessions = &self.nodes[peer].sessions;
        let next = sessions.partition_point(|session| session.to <= now);
        match sessions.get(next) {
            Some(session) if session.from > now => session.from,
            Some(session) if session.from + HOUR > now => session.to.min(session.from + HOUR),
            Some(session) => session.to,
            None => Secs::MAX,
        }
    }

    /// Where a peer is now, if it is online.
    pub fn place(&self, peer: Peer, now: Secs) -> Option<Place> {
        self.session(peer, now).map(|session| session.place)
    }

    /// When the session of a peer ends that is online now.
    pub fn leaves(&self, peer: Peer, now: Secs) -> Secs {
        self.session(peer, now).map_or(now, |session| session.to)
    }

    pub fn address(&self, place: Place) -> &Multiaddr {
        &self.spots[place].address
    }

    /// What a peer that is online tells of itself by identify.
    pub fn identifies(&self, peer: Peer, now: Secs) -> Vec<Multiaddr> {
        let private = if self.settings.private {
            self.nodes[peer].private.as_slice()
        } else {
            &[]
        };
        let public = self.place(peer, now).map(|place| self.address(place));
        private.iter().chain(public).cloned().collect()
    }

    /// Where a peer seems to come from when it connects.
    pub fn seen_from(&self, peer: Peer, port: u16, now: Secs) -> Multiaddr {
        let place = self.place(peer, now).unwrap_or_default();
        let ip = ip(self.address(place)).unwrap_or(Ipv4Addr::LOCALHOST);
        Multiaddr::from(ip).with(Protocol::Tcp(port))
    }

    /// Who answers at an address.
    pub fn answer(&self, address: &Multiaddr, now: Secs) -> Answer {
        let Some(ip) = ip(address) else {
            return Answer::Silence;
        };
        if let Some(outage) = self
            .outages
            .iter()
            .position(|(from, to)| (*from..*to).contains(&now))
            && !ip.is_loopback()
        {
            return if outage % 2 == 0 {
                Answer::Silence
            } else {
                Answer::NoRoute
            };
        }
        let Some(place) = self.by_ip.get(&ip) else {
            return if ip.is_loopback() {
                Answer::Refused
            } else {
                Answer::Silence
            };
        };
        let spot = &self.spots[*place];
        let tenant = spot.tenants.iter().find(|tenant| {
            self.nodes[**tenant].dialable && self.place(**tenant, now) == Some(*place)
        });
        // A port of an inbound connection takes no connections.
        let listens = bare(address) == spot.address;
        match tenant {
            Some(tenant) if listens => Answer::Peer(*tenant),
            _ if spot.refuses => Answer::Refused,
            _ => Answer::Silence,
        }
    }
}

fn tcp(ip: Ipv4Addr) -> Multiaddr {
    Multiaddr::from(ip).with(Protocol::Tcp(4001))
}

fn quic(ip: Ipv4Addr) -> Multiaddr {
    Multiaddr::from(ip)
        .with(Protocol::Udp(4001))
        .with(Protocol::QuicV1)
}

fn ip(address: &Multiaddr) -> Option<Ipv4Addr> {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(ip),
        _ => None,
    }
}

/// An address without the peer id at its end.
pub fn bare(address: &Multiaddr) -> Multiaddr {
    let mut bare = address.clone();
    if matches!(bare.iter().last(), Some(Protocol::P2p(_))) {
        bare.pop();
    }
    bare
}

/// An address with the peer id at its end, once.
pub fn full(address: &Multiaddr, peer: PeerId) -> Multiaddr {
    address
        .clone()
        .with_p2p(peer)
        .unwrap_or_else(|address| address)
}
