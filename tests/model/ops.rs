//! What can happen to a store, and how it is read from bytes: every [`BLOCK`] bytes are one operation (or a few that
//! belong together), whatever they are. So a property test and a fuzzer can make up runs, and taking a block out of a run leaves the others as they
//! are.

use std::{num::NonZeroUsize, time::Duration};

use libp2p_core::{Multiaddr, multiaddr::Protocol};
use libp2p_identity::PeerId;
use libp2p_peerstore::{Config, Source};

use super::universe::{self, LOCAL, PEERS, PLACES, places};

/// Bytes of one operation.
pub const BLOCK: usize = 10;

/// One operation. Peers, keys and names are numbers of the universe.
#[derive(Debug, Clone)]
pub enum Op {
    Add(PeerId, Vec<Multiaddr>),
    Set(PeerId, Vec<Multiaddr>),
    Pin(PeerId, Vec<Multiaddr>),
    Unpin(PeerId, Vec<Multiaddr>),
    Remove(PeerId, Vec<Multiaddr>),
    Tell(Source, PeerId, Vec<Multiaddr>),
    Identify(PeerId, Vec<Multiaddr>),
    Withdraw(Source, PeerId, Option<Vec<Multiaddr>>),
    Certify(PeerId, Vec<Multiaddr>),
    /// The swarm heard of an address from a behaviour that is not observed.
    Found(PeerId, Multiaddr),
    /// A dial made a connection, after it had failed at other addresses.
    Dialled(PeerId, Multiaddr, Vec<Multiaddr>),
    Accepted(PeerId, Multiaddr),
    /// The latest connection of a peer goes on at another address.
    Moved(PeerId, Multiaddr),
    /// The latest connection of a peer is gone.
    Closed(PeerId),
    DialFailed(PeerId, Vec<Multiaddr>, Failure),
    /// The one was expected at the address, the other answered.
    WrongPeer(PeerId, PeerId, Multiaddr),
    OwnAddressesChanged,
    Alive(PeerId),
    Latency(PeerId, Duration),
    SetProtocols(PeerId, Vec<String>),
    AddProtocols(PeerId, Vec<String>),
    RemoveProtocols(PeerId, Vec<String>),
    LearnProtocols(PeerId, Vec<String>),
    SetKey(PeerId, u8),
    LearnKey(PeerId, u8),
    SetMetadata(PeerId, String, Vec<u8>),
    LearnMetadata(PeerId, String, Vec<u8>),
    DeleteValue(PeerId, String),
    SetTag(PeerId, String, u8, Option<Duration>),
    RemoveTag(PeerId, String),
    /// One of the five books is emptied.
    DeleteBook(PeerId, Book),
    Delete(PeerId),
    DeleteFor(PeerId, Duration),
    /// Time passes; whether what expires at the end of it is collected at once.
    Pass(Duration, bool),
    Flush,
    Restart(Restart),
}

/// Why a dial failed.
#[derive(Debug, Clone, Copy)]
pub enum Failure {
    /// Somebody there said so.
    Refused,
    /// Nobody answered.
    TimedOut,
    /// This machine could not.
    Unreachable,
    /// No transport speaks the address.
    Unsupported,
}

#[derive(Debug, Clone, Copy)]
pub enum Book {
    Addresses,
    Protocols,
    Keys,
    Metadata,
    Tags,
}

/// In which order a run of the program ends.
#[derive(Debug, Clone, Copy)]
pub enum Restart {
    ShutdownThenDrop,
    DropBehaviourThenShutdown,
    /// Nobody says anything: the last handle saves.
    DropAll,
}

/// How a run begins.
#[derive(Debug, Clone)]
pub struct Setup {
    pub config: Config,
    /// Whether a filter decides what is learnt.
    pub filtered: bool,
    /// Whether there is a datastore, so that the run can begin again.
    pub persistent: bool,
    /// Whether each operation is written before the next one: then each must say by itself what there is to write.
    pub flushes: bool,
}

/// The setup and the operations that some bytes are.
pub fn read(bytes: &[u8]) -> (Setup, Vec<Op>) {
    let mut blocks = bytes.chunks(BLOCK);
    let setup = setup(&mut Bytes(blocks.next().unwrap_or_default()));
    (
        setup,
        blocks.flat_map(|block| ops(&mut Bytes(block))).collect(),
    )
}

/// Bytes that never end: after the last comes zero.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn peer(&mut self) -> PeerId {
        // Some peers come up more often, so that more happens to one of them.
        universe::peer(match self.next() {
            250.. => LOCAL,
            n if n % 16 < 5 => 1,
            n if n % 16 < 8 => 4,
            n => n % PEERS,
        })
    }

    /// An address, the first few more often.
    fn place(&mut self) -> Multiaddr {
        let n = match self.next() {
            n @ 128.. => n % 4,
            n => n % PLACES,
        };
        places()[usize::from(n)].address.clone()
    }

    /// An address of a peer as somebody may tell it.
    fn told(&mut self, peer: PeerId) -> Multiaddr {
        let byte = self.next();
        let place = &places()[usize::from(byte % 32 % PLACES)];
        let bare = place.address.clone();
        let of = |address: Multiaddr, peer| address.with(Protocol::P2p(peer));
        match byte / 32 {
            5 => of(bare, peer),
            6 if byte.is_multiple_of(2) => of(of(bare, peer), peer),
            6 => of(bare, universe::peer(byte % PEERS)),
            7 if byte.is_multiple_of(4) => Protocol::P2p(peer).into(),
            7 if byte % 4 == 1 => Multiaddr::empty(),
            _ => bare,
        }
    }

    fn list(&mut self, peer: PeerId) -> Vec<Multiaddr> {
        let len = self.next() % 7;
        (0..len).map(|_| self.told(peer)).collect()
    }

    /// A few addresses, or one several times.
    fn places(&mut self) -> Vec<Multiaddr> {
        let len = self.next();
        match len {
            128.. => vec![self.place(); usize::from(len % 4)],
            _ => (0..len % 4).map(|_| self.place()).collect(),
        }
    }

    /// Any names; or one of a few sets, in any order, as many peers speak just the same.
    fn protocols(&mut self) -> Vec<String> {
        let kind = self.next();
        if kind < 128 {
            let names = (0..kind % 7).map(|_| universe::protocol(self.next()));
            return names.collect();
        }
        let mut names: Vec<String> = (0..=kind % 3).map(universe::protocol).collect();
        let first = usize::from(self.next()) % names.len();
        names.rotate_left(first);
        names
    }

    fn source(&mut self) -> Source {
        match self.next() % 5 {
            0 => Source::Identify,
            1 => Source::Rendezvous,
            2 => Source::Mdns,
            3 => Source::Discovery,
            _ => Source::Kademlia,
        }
    }

    fn duration(&mut self) -> Duration {
        const SECONDS: [u64; 20] = [
            0, 1, 10, 63, 64, 300, 660, 901, 1_000, 1_800, 3_600, 21_600, 28_800, 86_400, 172_800,
            345_600, 1_123_200, 1_209_600, 5_184_000, 34_560_000,
        ];
        let (long, part) = (self.next(), self.next());
        Duration::from_secs(SECONDS[usize::from(long % 20)] + u64::from(part % 4))
    }
}

fn ops(bytes: &mut Bytes<'_>) -> Vec<Op> {
    let kind = bytes.next();
    let peer = bytes.peer();
    if kind % 84 < 80 {
        return vec![op(kind, peer, bytes)];
    }
    // Nothing is heard for a while after a dial has failed, and then that somebody is there: what counts depends on how
    // long such silences are. By chance they would hardly ever follow each other.
    let (tried, silence) = (vec![bytes.place()], u64::from(bytes.next()) * 4);
    vec![
        Op::DialFailed(peer, tried.clone(), Failure::TimedOut),
        Op::Pass(Duration::from_secs(silence), true),
        Op::DialFailed(peer, tried, Failure::Refused),
    ]
}

fn op(kind: u8, peer: PeerId, bytes: &mut Bytes<'_>) -> Op {
    match kind % 84 {
        0..=2 => Op::Add(peer, bytes.list(peer)),
        3..=4 => Op::Set(peer, bytes.list(peer)),
        5..=6 => Op::Pin(peer, bytes.list(peer)),
        7 => Op::Unpin(peer, bytes.list(peer)),
        8..=9 => Op::Remove(peer, bytes.list(peer)),
        10..=14 => Op::Tell(bytes.source(), peer, bytes.list(peer)),
        15..=19 | 74..=75 => Op::Identify(peer, bytes.list(peer)),
        20..=21 => {
            let source = bytes.source();
            let all = bytes.next().is_multiple_of(4);
            Op::Withdraw(source, peer, (!all).then(|| bytes.list(peer)))
        }
        22 => Op::Certify(peer, bytes.list(peer)),
        23..=24 => Op::Found(peer, bytes.told(peer)),
        25..=28 => {
            let address = bytes.place();
            let own = bytes.next().is_multiple_of(2);
            let address = if own {
                address.with(Protocol::P2p(peer))
            } else {
                address
            };
            Op::Dialled(peer, address, bytes.places())
        }
        29..=30 => Op::Accepted(peer, bytes.place()),
        31 => Op::Moved(peer, bytes.place()),
        32..=34 => Op::Closed(peer),
        35..=37 | 63..=68 => {
            let failure = match bytes.next() % 8 {
                0..=2 => Failure::Refused,
                3..=5 => Failure::TimedOut,
                6 => Failure::Unreachable,
                _ => Failure::Unsupported,
            };
            Op::DialFailed(peer, bytes.places(), failure)
        }
        38 => {
            let other = bytes.peer();
            Op::WrongPeer(peer, other, bytes.place())
        }
        39 if peer == universe::peer(0) => Op::OwnAddressesChanged,
        39 => Op::Alive(peer),
        40 | 69..=73 => {
            let micros = u64::from(bytes.next()) * u64::from(bytes.next()) * 10;
            Op::Latency(peer, Duration::from_micros(micros))
        }
        41 | 76 => Op::SetProtocols(peer, bytes.protocols()),
        42..=43 => Op::AddProtocols(peer, bytes.protocols()),
        44 => Op::RemoveProtocols(peer, bytes.protocols()),
        45..=46 | 77 => Op::LearnProtocols(peer, bytes.protocols()),
        47 => Op::SetKey(peer, bytes.next() % 3),
        48 => Op::LearnKey(peer, bytes.next() % 3),
        49 => Op::SetMetadata(
            peer,
            universe::metadata_key(bytes.next()),
            universe::metadata_value(bytes.next()),
        ),
        50..=51 => Op::LearnMetadata(
            peer,
            universe::metadata_key(bytes.next()),
            universe::metadata_value(bytes.next()),
        ),
        52 => Op::DeleteValue(peer, universe::metadata_key(bytes.next())),
        53..=54 => {
            let (name, value) = (universe::tag(bytes.next()), bytes.next() % 103);
            let ttl = match bytes.next() % 4 {
                0 => None,
                1 => Some(Duration::from_millis(u64::from(bytes.next()) * 10)),
                _ => Some(bytes.duration()),
            };
            Op::SetTag(peer, name, value, ttl)
        }
        55 => Op::RemoveTag(peer, universe::tag(bytes.next())),
        56 => {
            let books = [
                Book::Addresses,
                Book::Protocols,
                Book::Keys,
                Book::Metadata,
                Book::Tags,
            ];
            Op::DeleteBook(peer, books[usize::from(bytes.next() % 5)])
        }
        57 => Op::Delete(peer),
        58 => Op::DeleteFor(peer, bytes.duration()),
        59..=61 => Op::Pass(bytes.duration(), !bytes.next().is_multiple_of(4)),
        62 if kind < 128 => Op::Flush,
        62 => Op::Pass(bytes.duration(), true),
        _ => Op::Restart(match bytes.next() % 3 {
            0 => Restart::ShutdownThenDrop,
            1 => Restart::DropBehaviourThenShutdown,
            _ => Restart::DropAll,
        }),
    }
}

fn setup(bytes: &mut Bytes<'_>) -> Setup {
    let size = |n: u8| NonZeroUsize::new(n.into()).unwrap();
    let long = Duration::from_secs(1_000_000_000);
    // Nothing is written but when the run asks for it: else each run would be another one.
    let mut config = Config::default()
        .with_commit_threshold(NonZeroUsize::MAX)
        .with_max_commit_delay(long)
        .with_drop_deadline(Duration::from_secs(60))
        .with_max_claims_per_ip(NonZeroUsize::MAX);
    let limits = bytes.next();
    if limits & 1 != 0 {
        // So few that no share of the store is less than all of it.
        config = config.with_max_peers(size(3 + bytes.next() % 4));
    }
    if limits & 2 != 0 {
        config = config.with_max_addresses_per_peer(size(1 + bytes.next() % 5));
    }
    if limits & 4 != 0 {
        config = config
            .with_max_protocols_per_peer(size(3))
            .with_max_metadata_per_peer(size(2))
            .with_max_tags_per_peer(size(2));
    }
    if limits & 8 != 0 {
        config = config.with_max_claims_per_ip(size(1 + bytes.next() % 2));
    }
    if limits & 16 != 0 {
        config = config.with_max_address_len(NonZeroUsize::new(199).unwrap());
    }
    if limits & 32 != 0 {
        config = config.with_max_hearsay_names(usize::from(bytes.next() % 4));
    }
    let rules = bytes.next();
    if rules & 1 != 0 {
        let longest = [0, 5_000, 20_000][usize::from(bytes.next() % 3)];
        // A proof that ends before the word of the peer, too.
        let proven = [40_000, 1_500][usize::from(bytes.next() % 2)];
        config = config
            .with_hearsay_lifetime(Duration::from_secs(1_000))
            .with_max_hearsay_lifetime(Duration::from_secs(longest))
            .with_inbound_lifetime(Duration::from_secs(700))
            .with_self_told_lifetime(Duration::from_secs(2_500))
            .with_proven_lifetime(Duration::from_secs(proven))
            .with_wrong_peer_block(Duration::from_secs(1_800));
    }
    let filtered = rules & 2 != 0;
    if filtered {
        config = config
            .with_address_filter(|_: &PeerId, address: &Multiaddr| universe::is_admitted(address));
    }
    config = config
        .with_keep_proven_on_replace(rules & 4 != 0)
        .with_private_hearsay(rules & 8 != 0);
    let persistent = rules & 16 != 0;
    Setup {
        config,
        filtered,
        persistent,
        flushes: rules & 32 != 0,
    }
}
