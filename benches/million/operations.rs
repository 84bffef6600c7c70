//! The operations of the swarm, one by one, with a million peers and with few.

use std::{cell::RefCell, collections::VecDeque, hint::black_box, thread};

use fastrand::Rng;
use libp2p::{
    Multiaddr, PeerId,
    core::Endpoint,
    identify,
    swarm::{ConnectionId, NetworkBehaviour},
};
use libp2p_peer_store::Store;
use libp2p_peerstore::{Config, PeerStore, Source, Subscription};

use crate::{
    bed::{
        Size,
        node::{Node, Other, Script, drain, other, some, take_other_events, tell, tell_other},
        peers::{Peer, RARE_PROTOCOL},
        row::{Row, nanos},
        time::{each, in_turn},
    },
    readers,
};

/// Operations of one round.
const BATCH: usize = 1_000;
/// Reports of identify at a time: in a node each one comes fresh from the wire.
const REPORTS: usize = 128;
/// Peers that speak the rare protocol.
const SPEAKERS: usize = 1_000;

/// Both stores, with the same peers.
pub struct Bed {
    pub size: usize,
    pub peers: Vec<Peer>,
    /// Told by Kademlia.
    hearsay: PeerStore,
    /// Met: dialled, identified, gone.
    pub met: Node,
    other: Other,
    /// Numbers of peers that nobody knows yet.
    newcomers: u64,
    random: Rng,
}

impl Bed {
    fn new(size: usize) -> Self {
        // Newcomers must never be refused or displace anybody, until that is what is measured.
        let capacity = size + 3 * BATCH;
        let config = Config::default().with_max_peers(some(capacity));
        let peers = Peer::many(0..size as u64);
        let (peers, config) = (&peers, &config);
        let (hearsay, met, other) = thread::scope(|scope| {
            let met = scope.spawn(|| {
                let mut met = Node::new(config.clone());
                for peer in peers {
                    met.meet(peer, report(peer, size));
                }
                met
            });
            // As a crawler has it: what is full of hearsay stays full of it.
            let config = config.clone().with_hearsay_share(1.0);
            let hearsay = PeerStore::in_memory(PeerId::random(), config);
            let mut other = other(capacity);
            for peer in peers {
                tell(&hearsay, peer.id, &peer.addresses());
                tell_other(&mut other, peer.id, &peer.addresses());
                take_other_events(&mut other);
            }
            (hearsay, met.join().expect("no panic"), other)
        });
        assert_eq!((hearsay.len(), met.store.len()), (size, size));
        assert_eq!(other.store().record_iter().count(), size);
        Self {
            size,
            peers: peers.clone(),
            hearsay,
            met,
            other,
            newcomers: size as u64,
            random: Rng::with_seed(1),
        }
    }

    /// Peers that are known, at random.
    fn some_peers(&mut self, count: usize) -> Vec<Peer> {
        let random = &mut self.random;
        let peers = &self.peers;
        (0..count)
            .map(|_| peers[random.usize(..peers.len())])
            .collect()
    }

    fn some_ids(&mut self) -> Vec<PeerId> {
        self.some_peers(BATCH).iter().map(|peer| peer.id).collect()
    }

    /// Identify repeats what some peer has always said.
    pub fn hear_one(&mut self) {
        for peer in self.some_peers(1) {
            self.met.receive(report(&peer, self.size));
            self.met.said.clear();
        }
    }

    /// Peers that nobody knows.
    fn newcomers(&mut self) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let from = self.newcomers;
        self.newcomers += BATCH as u64;
        let peers = (from..self.newcomers).map(Peer::keyless);
        peers.map(|peer| (peer.id, peer.addresses())).collect()
    }
}

fn report(peer: &Peer, of: usize) -> identify::Event {
    peer.identify(peer.is_one_in((of / SPEAKERS).max(1) as u64))
}

/// Nanoseconds of one operation: ours in its forms, then theirs.
type Figures<const N: usize> = [f64; N];

/// Everything that is measured in a bed.
struct Measured {
    add: Figures<4>,
    read: Figures<3>,
    offer: Figures<2>,
    identify: Figures<4>,
    supporting: Figures<1>,
    poll: Figures<1>,
    evict: Figures<3>,
    shrink: Figures<1>,
}

fn measure(bed: &mut Bed, rounds: usize) -> Measured {
    Measured {
        read: read(bed, rounds),
        offer: offer(bed, rounds),
        identify: identify(bed, rounds),
        supporting: supporting(bed, rounds),
        poll: poll(bed, rounds),
        add: add(bed, rounds),
        // Last: it fills the stores.
        evict: evict(bed, rounds),
        shrink: shrink(bed, rounds),
    }
}

pub fn rows(size: Size) -> Vec<Row> {
    let rounds = size.rounds(31);
    let small = measure(&mut Bed::new(size.few()), rounds);
    let mut bed = Bed::new(size.peers());
    let readers = readers::rows(&mut bed, size);
    let large = measure(&mut bed, rounds);
    drop(bed);
    let mut rows = compared(&large);
    rows.push(growth(size, &small, &large));
    rows.extend(readers);
    rows
}

fn compared(figures: &Measured) -> Vec<Row> {
    let beside = |what: &str, ours: f64, theirs: f64, most: f64| {
        let row = Row::new(what, nanos(ours)).theirs(nanos(theirs), ours / theirs);
        match most {
            most if most.is_finite() => row.within(format!("≤ {most} ×"), ours / (most * theirs)),
            _ => row,
        }
    };
    let below = |what: &str, ours: f64, most: f64| {
        Row::new(what, nanos(ours)).within(format!("< {}", nanos(most)), ours / most)
    };
    let report = f64::INFINITY;
    let [told, silent, by_hand, add_theirs] = figures.add;
    let [read, read_theirs, borrowed] = figures.read;
    let [offer, offer_theirs] = figures.offer;
    let [heard, bare, identify_theirs, checked] = figures.identify;
    let [hearsay, self_told, evict_theirs] = figures.evict;
    let [supporting] = figures.supporting;
    let [poll] = figures.poll;
    let [shrink] = figures.shrink;
    let evict = |what: &str, ours: f64| {
        below(what, ours, 2e3).theirs(nanos(evict_theirs), ours / evict_theirs)
    };
    vec![
        beside(
            "add a new peer (Kademlia's word; events taken)",
            told,
            add_theirs,
            0.5,
        ),
        beside("the same, nobody takes events", silent, add_theirs, 0.5),
        beside("the same, by `addresses().add`", by_hand, add_theirs, 0.5),
        beside(
            "read a peer's addresses, best first, owned",
            read,
            read_theirs,
            1.0,
        ),
        beside("the same; theirs borrowed", read, borrowed, report),
        beside("what is offered for a dial", offer, offer_theirs, report),
        beside(
            "a repeated identify and its echoes",
            heard - bare,
            identify_theirs,
            0.25,
        ),
        Row::new(
            "of that, outside this crate: the key's hash is checked",
            nanos(checked),
        ),
        below(
            &format!("list {SPEAKERS} that support a protocol"),
            supporting,
            1e6,
        ),
        below("poll of the behaviour, nothing has expired", poll, 1e3),
        evict("insert into a full store (Kademlia's word)", hearsay),
        evict(
            "insert into a full store (its own word; events taken)",
            self_told,
        ),
        Row::new(
            "insert where hearsay is beyond its share: four go for one",
            nanos(shrink),
        ),
    ]
}

fn growth(size: Size, small: &Measured, large: &Measured) -> Row {
    let grown = [
        ("add", large.add[0] / small.add[0]),
        ("read", large.read[0] / small.read[0]),
        ("offer", large.offer[0] / small.offer[0]),
        (
            "identify",
            (large.identify[0] - large.identify[1]) / (small.identify[0] - small.identify[1]),
        ),
        ("protocol", large.supporting[0] / small.supporting[0]),
        ("poll", large.poll[0] / small.poll[0]),
        ("evict", large.evict[0] / small.evict[0]),
    ];
    let worst = grown.iter().map(|(_, grown)| *grown).fold(0.0, f64::max);
    let all: Vec<String> = grown
        .iter()
        .map(|(what, by)| format!("{what} {by:.1}"))
        .collect();
    let theirs = [
        ("add", large.add[3] / small.add[3]),
        ("read", large.read[1] / small.read[1]),
        ("identify", large.identify[2] / small.identify[2]),
    ];
    let theirs: Vec<String> = theirs
        .iter()
        .map(|(what, by)| format!("{what} {by:.1}"))
        .collect();
    let what = format!("growth from {} to {} peers", size.few(), size.peers());
    let mut row = Row::new(what, all.join(", ")).within("≤ 3 ×", worst / 3.0);
    row.theirs = theirs.join(", ");
    row
}

// --- one by one -------------------------------------------------------------------------------------------

/// A batch of newcomers, then as many of those that came first go, off the clock: the tables neither grow nor are full.
fn add(bed: &mut Bed, rounds: usize) -> Figures<4> {
    let ids = || bed.peers.iter().map(|peer| peer.id);
    let (ours_there, theirs_there) = (ids().collect(), ids().collect());
    let ours_there: RefCell<VecDeque<PeerId>> = RefCell::new(ours_there);
    let theirs_there: RefCell<VecDeque<PeerId>> = RefCell::new(theirs_there);
    let bed = RefCell::new(bed);
    let ours = |add: &dyn Fn(&PeerStore, PeerId, &[Multiaddr]), taken: bool| {
        let bed = &mut **bed.borrow_mut();
        let told = bed.newcomers();
        let store = &bed.hearsay;
        let mut events = taken.then(|| store.subscribe());
        let spent = each(BATCH, || {
            for (peer, addresses) in &told {
                add(store, *peer, addresses);
                while let Some(event) = events.as_mut().and_then(Subscription::try_next) {
                    black_box(event);
                }
            }
        });
        let mut there = ours_there.borrow_mut();
        there.extend(told.iter().map(|(peer, _)| *peer));
        for peer in there.drain(..BATCH) {
            assert!(store.delete(&peer));
        }
        spent
    };
    let kademlia = |store: &PeerStore, peer: PeerId, addresses: &[Multiaddr]| {
        tell(store, peer, addresses);
    };
    let by_hand = |store: &PeerStore, peer: PeerId, addresses: &[Multiaddr]| {
        store.addresses().add(peer, addresses.iter().cloned());
    };
    let theirs = || {
        let bed = &mut **bed.borrow_mut();
        let told = bed.newcomers();
        let other = &mut bed.other;
        let spent = each(BATCH, || {
            for (peer, addresses) in &told {
                tell_other(other, *peer, addresses);
                take_other_events(other);
            }
        });
        let mut there = theirs_there.borrow_mut();
        there.extend(told.iter().map(|(peer, _)| *peer));
        for peer in there.drain(..BATCH) {
            let known = other.address_of_peer(&peer).into_iter().flatten();
            let known: Vec<Multiaddr> = known.cloned().collect();
            for address in known {
                other.store_mut().remove_address(&peer, &address);
            }
            take_other_events(other);
        }
        spent
    };
    in_turn(
        rounds,
        [
            &mut || ours(&kademlia, true),
            &mut || ours(&kademlia, false),
            &mut || ours(&by_hand, false),
            &mut { theirs },
        ],
    )
}

fn read(bed: &mut Bed, rounds: usize) -> Figures<3> {
    let bed = RefCell::new(bed);
    let batch = |read: &dyn Fn(&Bed, &PeerId)| {
        let bed = &mut **bed.borrow_mut();
        let ids = bed.some_ids();
        each(BATCH, || ids.iter().for_each(|id| read(bed, id)))
    };
    let ours = |bed: &Bed, id: &PeerId| {
        black_box(bed.hearsay.addresses().get(id));
    };
    let theirs = |bed: &Bed, id: &PeerId| {
        let found = bed.other.store().addresses_of_peer(id);
        black_box(found.map(|found| found.cloned().collect::<Vec<Multiaddr>>()));
    };
    let borrowed = |bed: &Bed, id: &PeerId| {
        for address in bed
            .other
            .store()
            .addresses_of_peer(id)
            .into_iter()
            .flatten()
        {
            black_box(address);
        }
    };
    in_turn(
        rounds,
        [&mut || batch(&ours), &mut || batch(&theirs), &mut || {
            batch(&borrowed)
        }],
    )
}

/// What the swarm asks each behaviour as it dials.
fn offer(bed: &mut Bed, rounds: usize) -> Figures<2> {
    fn batch<B: NetworkBehaviour>(behaviour: &mut B, ids: &[PeerId]) -> f64 {
        each(ids.len(), || {
            for id in ids {
                let connection = ConnectionId::new_unchecked(0);
                let offered = behaviour.handle_pending_outbound_connection(
                    connection,
                    Some(*id),
                    &[],
                    Endpoint::Dialer,
                );
                let _ = black_box(offered);
            }
        })
    }
    let bed = RefCell::new(bed);
    in_turn(
        rounds,
        [
            &mut || {
                let bed = &mut **bed.borrow_mut();
                let ids = bed.some_ids();
                batch(&mut bed.met.behaviour, &ids)
            },
            &mut || {
                let bed = &mut **bed.borrow_mut();
                let ids = bed.some_ids();
                batch(&mut bed.other, &ids)
            },
        ],
    )
}

/// What identify yields anew about peers that are connected, which say what they have always said: ours; the same without
/// a store, which is what the measurement itself costs; theirs; and the check of the key alone.
fn identify(bed: &mut Bed, rounds: usize) -> Figures<4> {
    let bed = RefCell::new(bed);
    let ours = || {
        let bed = &mut **bed.borrow_mut();
        let peers = bed.some_peers(REPORTS);
        for peer in &peers {
            bed.met.dialled(peer.id, &peer.addresses()[0]);
        }
        bed.met.take_events();
        peers
            .iter()
            .for_each(|peer| bed.met.identify.received(report(peer, bed.size)));
        let spent = each(REPORTS, || bed.met.hear());
        bed.met.said.clear();
        for peer in &peers {
            bed.met.closed(peer.id, &peer.addresses()[0]);
        }
        assert_eq!(bed.met.take_events(), 0, "nothing was new");
        spent
    };
    let bare = || {
        let bed = &mut **bed.borrow_mut();
        let (mut script, mut said) = (Script::default(), Vec::with_capacity(REPORTS));
        for peer in bed.some_peers(REPORTS) {
            script.received(report(&peer, bed.size));
        }
        each(REPORTS, || {
            drain(&mut script, &mut said, |event| {
                black_box(event);
            });
        })
    };
    let theirs = || {
        let bed = &mut **bed.borrow_mut();
        let peers = bed.some_peers(REPORTS);
        let told: Vec<_> = peers
            .iter()
            .map(|peer| (peer.id, peer.addresses()))
            .collect();
        each(REPORTS, || {
            for (peer, addresses) in &told {
                tell_other(&mut bed.other, *peer, addresses);
            }
        })
    };
    let key = || {
        let bed = &mut **bed.borrow_mut();
        let peers = bed.some_peers(REPORTS);
        let reports: Vec<_> = peers.iter().map(|peer| report(peer, bed.size)).collect();
        each(REPORTS, || {
            for report in &reports {
                if let identify::Event::Received { info, .. } = report {
                    black_box(info.public_key.to_peer_id());
                }
            }
        })
    };
    in_turn(
        rounds,
        [&mut { ours }, &mut { bare }, &mut { theirs }, &mut { key }],
    )
}

fn supporting(bed: &mut Bed, rounds: usize) -> Figures<1> {
    let mut ours = || {
        each(1, || {
            let found = bed.met.store.peers_supporting(RARE_PROTOCOL);
            assert_eq!(found.len(), SPEAKERS.min(bed.size));
        })
    };
    in_turn(rounds, [&mut ours])
}

fn poll(bed: &mut Bed, rounds: usize) -> Figures<1> {
    bed.met.take_events();
    let mut ours = || {
        each(BATCH, || {
            for _ in 0..BATCH {
                let _ = black_box(bed.met.poll());
            }
        })
    };
    in_turn(rounds, [&mut ours])
}

/// Newcomers for whom others must go: hearsay among hearsay, those that tell of themselves among those that were dialled.
fn evict(bed: &mut Bed, rounds: usize) -> Figures<3> {
    // Filled up, and a little beyond.
    for _ in 0..4 {
        for (peer, addresses) in bed.newcomers() {
            tell(&bed.hearsay, peer, &addresses);
            bed.met
                .store
                .learned(Source::Identify)
                .add(peer, &addresses);
            tell_other(&mut bed.other, peer, &addresses);
        }
        take_other_events(&mut bed.other);
    }
    let full = bed.hearsay.len();
    let bed = RefCell::new(bed);
    let ours = |store: &dyn Fn(&Bed) -> PeerStore, source: Source| {
        let bed = &mut **bed.borrow_mut();
        bed.met.take_events();
        let told = bed.newcomers();
        let store = store(bed);
        let refused = store.refusals().total();
        let spent = each(BATCH, || {
            for (peer, addresses) in &told {
                store.learned(source).add(*peer, addresses);
            }
        });
        assert_eq!(
            (store.refusals().total(), store.len()),
            (refused, full),
            "each for another"
        );
        spent
    };
    let theirs = || {
        let bed = &mut **bed.borrow_mut();
        let told = bed.newcomers();
        each(BATCH, || {
            for (peer, addresses) in &told {
                tell_other(&mut bed.other, *peer, addresses);
                take_other_events(&mut bed.other);
            }
        })
    };
    in_turn(
        rounds,
        [
            &mut || ours(&|bed| bed.hearsay.clone(), Source::Kademlia),
            &mut || ours(&|bed| bed.met.store.clone(), Source::Identify),
            &mut { theirs },
        ],
    )
}

/// A store that hearsay has filled up shrinks to the share that hearsay has: a few go for each that comes.
fn shrink(bed: &mut Bed, rounds: usize) -> Figures<1> {
    let full = PeerStore::in_memory(
        PeerId::random(),
        Config::default().with_max_peers(some(bed.size)),
    );
    for peer in &bed.peers {
        tell(&full, peer.id, &peer.addresses());
    }
    let mut ours = || {
        let told = bed.newcomers();
        each(BATCH, || {
            for (peer, addresses) in &told {
                tell(&full, *peer, addresses);
            }
        })
    };
    in_turn(rounds, [&mut ours])
}
