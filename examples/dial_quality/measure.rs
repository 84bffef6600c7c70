//! Plays a trace to a rule, and counts.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet},
    io,
    num::NonZeroUsize,
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{
        ConnectedPoint, Endpoint,
        transport::{PortUse, TransportError},
    },
    multiaddr::Protocol,
    swarm::{ConnectionId, DialError},
};
use libp2p_peerstore::Standing;

use crate::{
    random::{hash, unit},
    rules::{Connection, Name, Rule},
    trace::{Answer, DAY, Event, HOUR, MINUTE, Peer, Secs, Trace, bare, full},
};

/// An application that wants a peer dials it so often, while something is offered that it has not tried.
pub const DIALS: usize = 3;
/// The time from a failed dial to the next.
pub const REDIAL: Secs = 30;
/// How long the application uses a connection that it dialled, at most.
pub const USED: Secs = 10 * MINUTE;
/// Days before the first start that is measured.
const WARM_UP: u64 = 3;
/// Connections that a node wants after its start.
const WANTED: usize = 8;

/// How the swarm goes through the addresses of a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialling {
    /// One after the other.
    Sequential,
    /// Eight at once: the default.
    Concurrent,
    /// In the swarm's own order, with delays.
    Smart,
}

/// A forecast that came to be tested.
#[derive(Debug, Clone, Copy)]
pub struct Scored {
    pub standing: Standing,
    pub confidence: f64,
    pub success: bool,
    pub weight: f64,
}

/// What happened in one run.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub reachable: u32,
    pub reached: u32,
    pub reached_at_once: u32,
    pub reachable_attempts: u32,
    /// Reachable dials of peers of which two or more addresses were told, and how many the first one offered won.
    pub choices: u32,
    pub first_right: u32,
    pub unreachable: u32,
    pub unreachable_attempts: u32,
    pub successes: u32,
    pub attempts: u32,
    /// Forecasts of offered addresses, and of all that are stored.
    pub offered: Vec<Scored>,
    pub stored: Vec<Scored>,
    /// Dials until eight connections, at every start: at once, with 30 % of the peers gone, after a week.
    pub starts: [Vec<f64>; 3],
    /// Peers whose first address had been proven when an outage began, and how many have it first afterwards.
    pub kept: (u32, u32),
    /// Failures that counted in outages, and attempts that failed in them.
    pub in_outages: (u32, u32),
    /// Why reachable dials did not succeed.
    pub lost: BTreeMap<Lost, u32>,
}

/// How one need of a connection ended.
pub struct Need {
    pub reachable: bool,
    /// Two or more addresses of the peer were told.
    pub choice: bool,
    pub attempts: u32,
    pub rounds: usize,
    pub success: bool,
    /// The first address that was tried answered.
    pub first: bool,
}

impl Figures {
    pub fn count(&mut self, need: &Need) {
        let success = u32::from(need.success);
        self.attempts += need.attempts;
        self.successes += success;
        if !need.reachable {
            self.unreachable += 1;
            self.unreachable_attempts += need.attempts;
            return;
        }
        self.reachable += 1;
        self.reachable_attempts += need.attempts;
        self.reached += success;
        self.reached_at_once += success * u32::from(need.rounds == 1);
        self.choices += u32::from(need.choice);
        self.first_right += u32::from(need.choice && need.first);
    }
}

/// Why a reachable dial did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lost {
    /// Whether the right address was held at the end, and whether it was offered.
    pub why: Why,
    /// Whether the peer itself had told it, or only others.
    pub self_told: bool,
    /// When the right address was last told: within an hour, 4 hours, a day, 3 days, or longer ago.
    pub told: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Nothing of the peer was held.
    Unknown,
    /// Other addresses were held, not the right one.
    OtherAddresses,
    /// The right address was held, and none of the dials came to it.
    NotOffered,
    /// It was offered: an outage, or its time was over before the dial.
    Offered,
}

/// The bounds of [`Lost::told`].
pub const TOLD: [Secs; 4] = [HOUR, 4 * HOUR, DAY, 3 * DAY];

impl Figures {
    pub fn coverage(&self) -> f64 {
        ratio(self.reached, self.reachable)
    }

    pub fn coverage_at_once(&self) -> f64 {
        ratio(self.reached_at_once, self.reachable)
    }

    /// Attempts beyond one, per success over reachable dials.
    pub fn excess(&self) -> f64 {
        ratio(self.reachable_attempts, self.reached) - 1.0
    }

    pub fn first(&self) -> f64 {
        ratio(self.first_right, self.choices)
    }

    pub fn wasted(&self) -> f64 {
        ratio(self.unreachable_attempts, self.unreachable)
    }

    pub fn started(&self) -> f64 {
        ratio(self.attempts, self.successes)
    }

    pub fn kept(&self) -> f64 {
        ratio(self.kept.0, self.kept.1)
    }
}

fn ratio(part: u32, whole: u32) -> f64 {
    f64::from(part) / f64::from(whole)
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[len / 2],
        len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2.0,
    }
}

/// Plays a trace to a rule.
pub fn run(trace: &Trace, name: Name, capacity: NonZeroUsize, dialling: Dialling) -> Figures {
    let rule = name.rule(capacity, trace.settings.seed);
    let mut node = Node {
        trace,
        rule,
        dialling,
        now: 0,
        connections: BinaryHeap::new(),
        open: HashMap::new(),
        ids: 0,
        told: BTreeMap::new(),
        snapshot: DAY,
        proven: HashSet::new(),
        before_outage: None,
        proven_after: false,
        failed_in_outage: HashSet::new(),
        failures_before: HashMap::new(),
        neighbour: PeerId::random(),
        figures: Figures::default(),
    };
    for (at, event) in &trace.events {
        node.advance(*at);
        node.event(*event);
    }
    node.figures
}

/// This node.
struct Node<'a> {
    trace: &'a Trace,
    rule: Box<dyn Rule>,
    dialling: Dialling,
    now: Secs,
    /// When which connection ends.
    connections: BinaryHeap<Reverse<(Secs, usize)>>,
    open: HashMap<usize, Connection>,
    ids: usize,
    /// Who was said to be where in the trace: last when, and whether ever by the peer itself.
    told: BTreeMap<(Peer, usize), (Secs, bool)>,
    snapshot: Secs,
    /// Where this node has reached whom.
    proven: HashSet<(Peer, Multiaddr)>,
    before_outage: Option<Vec<(Peer, Multiaddr)>>,
    /// Whether the network was proven since the last outage: until then no failure in it could count.
    proven_after: bool,
    /// Addresses that failed in the last outage, and have not been dialled since.
    failed_in_outage: HashSet<Multiaddr>,
    failures_before: HashMap<(PeerId, Multiaddr), u32>,
    /// A peer in the local network, which always answers.
    neighbour: PeerId,
    figures: Figures,
}

/// What came of one dial of the swarm.
struct Dialled {
    attempts: u32,
    /// The addresses of which the outcome was reported, in that order.
    outcomes: Vec<(Multiaddr, bool)>,
    success: bool,
}

impl Node<'_> {
    fn advance(&mut self, now: Secs) {
        while let Some(Reverse((at, id))) = self.connections.peek().copied()
            && at <= now
        {
            self.connections.pop();
            self.now = self.now.max(at);
            self.rule.advance(self.now);
            if let Some(connection) = self.open.remove(&id) {
                self.rule.closed(&connection);
            }
        }
        self.now = self.now.max(now);
        self.rule.advance(self.now);
    }

    fn event(&mut self, event: Event) {
        self.outage();
        match event {
            Event::Heard { peer, place } => {
                self.told.entry((peer, place)).or_default().0 = self.now;
                let id = self.trace.nodes[peer].id;
                self.rule.heard(id, self.trace.address(place));
            }
            Event::Inbound { peer, port, until } => {
                let send_back_addr = self.trace.seen_from(peer, port, self.now);
                let local_addr = Multiaddr::from(std::net::Ipv4Addr::new(10, 0, 0, 1));
                let endpoint = ConnectedPoint::Listener {
                    local_addr,
                    send_back_addr,
                };
                self.connected(peer, endpoint, &[], until);
                if let Some(place) = self.trace.place(peer, self.now) {
                    self.told.insert((peer, place), (self.now, true));
                }
            }
            Event::Dial { peer } => {
                self.dials_neighbour();
                self.pings();
                self.application_dials(peer);
                if self.now >= self.snapshot {
                    self.snapshot += 6 * HOUR;
                    self.take_snapshot();
                }
            }
            Event::Restart => {
                self.advance_all_closed();
                if self.now / DAY >= WARM_UP && !self.trace.is_outage(self.now) {
                    self.start(0, 0.0, 0);
                    self.start(1, 0.3, 0);
                    self.start(2, 0.0, 7 * DAY);
                }
                self.rule.restart();
            }
        }
    }

    fn advance_all_closed(&mut self) {
        self.connections.clear();
        for (_, connection) in self.open.drain() {
            self.rule.closed(&connection);
        }
    }

    /// Live connections are pinged all the time; it is enough to say so now and then.
    fn pings(&mut self) {
        if !self.trace.is_outage(self.now) {
            let open: Vec<_> = self
                .open
                .values()
                .map(|connection| connection.peer)
                .collect();
            self.proven_after |= !open.is_empty();
            open.into_iter().for_each(|peer| self.rule.alive(peer));
        }
    }

    /// This node dials its neighbour in the local network, which answers in outages too.
    fn dials_neighbour(&mut self) {
        self.ids += 1;
        let address = Multiaddr::from(std::net::Ipv4Addr::new(10, 0, 0, 2));
        let endpoint = ConnectedPoint::Dialer {
            address: full(&address.with(Protocol::Tcp(4001)), self.neighbour),
            role_override: Endpoint::Dialer,
            port_use: PortUse::Reuse,
        };
        let connection = Connection {
            peer: self.neighbour,
            id: ConnectionId::new_unchecked(self.ids),
            endpoint,
        };
        self.rule.established(&connection, &[]);
        self.rule.alive(self.neighbour);
        self.rule.closed(&connection);
    }

    fn connected(
        &mut self,
        peer: Peer,
        endpoint: ConnectedPoint,
        failed: &[Multiaddr],
        until: Secs,
    ) {
        self.ids += 1;
        let id = ConnectionId::new_unchecked(self.ids);
        let connection = Connection {
            peer: self.trace.nodes[peer].id,
            id,
            endpoint,
        };
        self.rule.established(&connection, failed);
        self.proven_after |= !self.trace.is_outage(self.now);
        let told = self.trace.identifies(peer, self.now);
        self.rule.identified(connection.peer, &told);
        self.connections.push(Reverse((until, self.ids)));
        self.open.insert(self.ids, connection);
    }

    // --- dials ---------------------------------------------------------------------------------------------

    /// The application wants to talk to a peer.
    fn application_dials(&mut self, peer: Peer) {
        let began = self.now;
        let id = self.trace.nodes[peer].id;
        if let Some(before) = &mut self.before_outage
            && !self.trace.is_outage(began)
        {
            // What comes of this dial is not the outage's doing.
            before.retain(|(other, _)| *other != peer);
        }
        let place = self
            .trace
            .place(peer, began)
            .filter(|_| self.trace.nodes[peer].dialable);
        let told = place.and_then(|place| self.told.get(&(peer, place)).copied());
        let reachable = told.is_some();
        let choice = self.told.range((peer, 0)..(peer + 1, 0)).nth(1).is_some();
        let (mut tried, mut attempts, mut first) = (HashSet::new(), 0, None);
        let mut success = false;
        let mut rounds = 0;
        while rounds < DIALS && !success {
            if rounds > 0 {
                self.advance(began + REDIAL * rounds as Secs);
                self.pings();
            }
            let offers = self.rule.offers(id);
            if offers.iter().all(|offer| tried.contains(&bare(offer))) {
                break;
            }
            tried.extend(offers.iter().map(bare));
            let forecasts = self.rule.forecasts(Some(id));
            let dialled = self.swarm_dials(peer, offers);
            rounds += 1;
            if self.trace.is_outage(self.now) {
                self.figures.in_outages.1 += dialled.attempts;
            }
            attempts += dialled.attempts;
            success = dialled.success;
            first = first.or(dialled.outcomes.first().map(|(_, success)| *success));
            if !self.trace.is_outage(self.now) {
                let weight = 1.0 / dialled.outcomes.len() as f64;
                self.figures
                    .offered
                    .extend(dialled.outcomes.iter().filter_map(|(address, success)| {
                        let forecast = forecasts
                            .iter()
                            .find(|forecast| forecast.address == *address)?;
                        Some(Scored {
                            standing: forecast.standing,
                            confidence: forecast.confidence,
                            success: *success,
                            weight,
                        })
                    }));
            }
        }
        if self.trace.is_outage(began) {
            return;
        }
        if let (Some(place), Some((at, self_told)), false) = (place, told, success) {
            let held = self.rule.forecasts(Some(id));
            let address = self.trace.address(place);
            let why = if tried.contains(address) {
                Why::Offered
            } else if held.iter().any(|held| held.address == *address) {
                Why::NotOffered
            } else if held.is_empty() {
                Why::Unknown
            } else {
                Why::OtherAddresses
            };
            let told = TOLD.partition_point(|bound| at + bound < began);
            let lost = Lost {
                why,
                self_told,
                told,
            };
            *self.figures.lost.entry(lost).or_default() += 1;
        }
        self.figures.count(&Need {
            reachable,
            choice,
            attempts,
            rounds,
            success,
            first: first == Some(true),
        });
    }

    /// One dial of the swarm, and what it tells the rule.
    fn swarm_dials(&mut self, peer: Peer, offers: Vec<Multiaddr>) -> Dialled {
        let id = self.trace.nodes[peer].id;
        // When each attempt starts, what answers, and when.
        let now = self.now;
        let mut attempts: Vec<(Duration, Duration, Answer, Multiaddr)> = Vec::new();
        let mut clock = Duration::ZERO;
        for (rank, offer) in self.ranked(offers).into_iter().enumerate() {
            let answer = self.trace.answer(&offer, now);
            let start = match self.dialling {
                Dialling::Sequential => clock,
                Dialling::Concurrent => Duration::ZERO,
                Dialling::Smart => smart_delay(&offer, rank),
            };
            let end = start + latency(&offer, answer);
            clock = end;
            attempts.push((start, end, answer, full(&bare(&offer), id)));
        }
        attempts.sort_by_key(|(_, end, ..)| *end);
        // The first transport that answers ends the dial; who else was still trying is not heard of.
        for (.., address) in &attempts {
            match self.trace.is_outage(now) {
                true => self.failed_in_outage.insert(bare(address)),
                false => self.failed_in_outage.remove(&bare(address)),
            };
        }
        let won = attempts
            .iter()
            .position(|(_, _, answer, _)| matches!(answer, Answer::Peer(_)));
        let end = won.map_or(Duration::MAX, |won| attempts[won].1);
        let started = attempts.iter().filter(|(start, ..)| *start < end).count() as u32;
        let failed: Vec<_> = attempts[..won.unwrap_or(attempts.len())].to_vec();
        let mut outcomes: Vec<_> = failed
            .iter()
            .map(|(.., address)| (bare(address), false))
            .collect();
        let won = won.map(|won| attempts.swap_remove(won));
        match won {
            Some((_, _, Answer::Peer(other), address)) if other == peer => {
                outcomes.push((bare(&address), true));
                self.proven.insert((peer, bare(&address)));
                let failed: Vec<_> = failed.into_iter().map(|(.., address)| address).collect();
                let endpoint = ConnectedPoint::Dialer {
                    address,
                    role_override: Endpoint::Dialer,
                    port_use: PortUse::Reuse,
                };
                let until = self.trace.leaves(peer, now).min(now + USED);
                self.connected(peer, endpoint, &failed, until);
                return Dialled {
                    attempts: started,
                    outcomes,
                    success: true,
                };
            }
            Some((_, _, Answer::Peer(other), address)) => {
                // The errors of the others are lost, as in the swarm.
                outcomes = vec![(bare(&address), false)];
                let obtained = self.trace.nodes[other].id;
                self.rule
                    .dial_failed(id, &DialError::WrongPeerId { obtained, address });
            }
            _ if failed.is_empty() => self.rule.dial_failed(id, &DialError::NoAddresses),
            _ => {
                let failed = failed
                    .into_iter()
                    .map(|(_, _, answer, address)| (address, error(answer)));
                self.rule
                    .dial_failed(id, &DialError::Transport(failed.collect()));
            }
        }
        Dialled {
            attempts: started,
            outcomes,
            success: false,
        }
    }

    /// Smart dialling sorts by itself: private addresses first, QUIC before TCP.
    fn ranked(&self, mut offers: Vec<Multiaddr>) -> Vec<Multiaddr> {
        if self.dialling == Dialling::Smart {
            offers.sort_by_key(|offer| (!is_private(offer), !is_quic(offer)));
        }
        offers
    }

    // --- other figures -------------------------------------------------------------------------------------

    /// Compares what is believed of every stored address with what is true.
    fn take_snapshot(&mut self) {
        if self.trace.is_outage(self.now) {
            return;
        }
        let numbers: HashMap<_, _> = self
            .trace
            .nodes
            .iter()
            .enumerate()
            .map(|(peer, node)| (node.id, peer))
            .collect();
        for forecast in self.rule.forecasts(None) {
            if forecast.peer == self.neighbour {
                continue;
            }
            let answer = self.trace.answer(&forecast.address, self.now);
            let success = numbers
                .get(&forecast.peer)
                .is_some_and(|peer| answer == Answer::Peer(*peer));
            self.figures.stored.push(Scored {
                standing: forecast.standing,
                confidence: forecast.confidence,
                success,
                weight: 1.0,
            });
        }
    }

    /// How many peers a start takes; `gone` of them are gone for good.
    fn start(&mut self, figure: usize, gone: f64, pause: Secs) {
        let then = self.now + pause;
        if self.trace.is_outage(then) {
            return;
        }
        let (mut dials, mut connected) = (0, 0);
        for (id, offers) in self.rule.at_start(pause) {
            if id == self.neighbour {
                continue;
            }
            dials += 1;
            let bytes = id
                .to_bytes()
                .iter()
                .fold(self.now, |sum, byte| hash(sum ^ u64::from(*byte)));
            let reached = offers
                .iter()
                .any(|offer| match self.trace.answer(offer, then) {
                    Answer::Peer(peer) => self.trace.nodes[peer].id == id && unit(bytes) >= gone,
                    _ => false,
                });
            connected += usize::from(reached);
            if connected == WANTED {
                break;
            }
        }
        self.figures.starts[figure].push(f64::from(dials));
    }

    /// Compares what is offered first right before an outage, and after it, once something has proven that it is over.
    fn outage(&mut self) {
        let outage = self.trace.is_outage(self.now);
        match (&self.before_outage, outage) {
            (None, true) => {
                let mut first = Vec::new();
                for (peer, node) in self.trace.nodes.iter().enumerate() {
                    let offered = self.rule.offers(node.id).first().map(bare);
                    first.extend(offered.map(|first| (peer, first)));
                }
                first.retain(|first| self.proven.contains(first));
                self.before_outage = Some(first);
                self.proven_after = false;
                self.failed_in_outage.clear();
                self.failures_before = self.rule.failures().unwrap_or_default();
            }
            (Some(before), false) if self.proven_after => {
                for (peer, address) in before {
                    let offers = self.rule.offers(self.trace.nodes[*peer].id);
                    self.figures.kept.0 +=
                        u32::from(offers.first().map(bare).as_ref() == Some(address));
                    self.figures.kept.1 += 1;
                }
                self.before_outage = None;
                for (address, failures) in self.rule.failures().unwrap_or_default() {
                    if !self.failed_in_outage.contains(&address.1) {
                        continue;
                    }
                    let before = self.failures_before.get(&address).copied();
                    self.figures.in_outages.0 +=
                        failures.saturating_sub(before.unwrap_or_default());
                }
            }
            _ => {}
        }
    }
}

fn is_private(address: &Multiaddr) -> bool {
    matches!(address.iter().next(), Some(Protocol::Ip4(ip)) if ip.is_private() || ip.is_loopback())
}

fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|protocol| protocol == Protocol::QuicV1)
}

/// The delays of the swarm's `rank_dials`, for the addresses of this trace.
fn smart_delay(address: &Multiaddr, rank: usize) -> Duration {
    let step = if is_private(address) { 30 } else { 250 };
    Duration::from_millis(step * rank as u64)
}

fn latency(address: &Multiaddr, answer: Answer) -> Duration {
    let bits = address
        .as_ref()
        .iter()
        .fold(0, |sum, byte| hash(sum ^ u64::from(*byte)));
    match answer {
        Answer::Peer(_) | Answer::Refused => Duration::from_millis(50 + bits % 250),
        Answer::Silence => Duration::from_secs(10),
        Answer::NoRoute => Duration::from_millis(1),
    }
}

fn error(answer: Answer) -> TransportError<io::Error> {
    let kind = match answer {
        Answer::Refused => io::ErrorKind::ConnectionRefused,
        Answer::NoRoute => io::ErrorKind::NetworkUnreachable,
        Answer::Silence | Answer::Peer(_) => io::ErrorKind::TimedOut,
    };
    TransportError::Other(kind.into())
}
