//! A copy of the store that is kept from events alone is equal to the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use libp2p_identity::PeerId;
use libp2p_peerstore::{Event, ManualClock, PeerStore, Source, Subscription};
use libp2p_swarm::StreamProtocol;
use proptest::{collection::vec, prelude::*};

use crate::support::*;

/// What events can tell of a peer. The order of addresses is none of it: it changes with time alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Copied {
    addresses: BTreeSet<String>,
    protocols: BTreeSet<String>,
    key: bool,
    metadata: BTreeMap<String, Vec<u8>>,
}

impl Copied {
    /// A key that the peer id contains is always known, and no event.
    fn new(peer: &PeerId) -> Self {
        Self {
            key: *peer != rsa_key().to_peer_id(),
            ..Self::default()
        }
    }
}

fn copy(store: &PeerStore) -> BTreeMap<PeerId, Copied> {
    let peers = store.peers().into_iter().map(|peer| {
        let copied = Copied {
            addresses: peer.multiaddrs().map(ToString::to_string).collect(),
            protocols: peer.protocols.iter().map(ToString::to_string).collect(),
            key: peer.public_key.is_some(),
            metadata: peer.metadata,
        };
        (peer.id, copied)
    });
    peers.collect()
}

struct Mirror {
    store: PeerStore,
    events: Subscription,
    peers: BTreeMap<PeerId, Copied>,
    /// Whether it had to start again: then the events that wait may tell of what it has seen already.
    lagged: bool,
}

impl Mirror {
    fn of(store: &PeerStore) -> Self {
        Self {
            events: store.subscribe(),
            store: store.clone(),
            peers: copy(store),
            lagged: false,
        }
    }

    /// Reads what waits; returns how many events it was.
    fn read(&mut self) -> usize {
        let mut events = 0;
        while let Some(event) = self.events.try_next() {
            events += 1;
            self.apply(event);
        }
        events
    }

    fn apply(&mut self, event: Event) {
        let strict = !self.lagged;
        let Some(peer) = event.peer() else {
            assert!(matches!(event, Event::Lagged(1..)), "{event:?}");
            self.peers = copy(&self.store);
            self.lagged = true;
            return;
        };
        let known = self.peers.get(&peer).cloned();
        let is_addition = matches!(event, Event::PeerAdded { .. });
        assert!(
            !strict || known.is_none() == is_addition,
            "a peer is added first, and once: {event:?}"
        );
        let mut now = known.clone().unwrap_or_else(|| Copied::new(&peer));
        match &event {
            Event::PeerAdded { .. } => {}
            Event::AddressesChanged { addresses, .. } => {
                now.addresses = addresses.iter().map(ToString::to_string).collect();
                assert_eq!(now.addresses.len(), addresses.len());
            }
            Event::ProtocolsChanged { protocols, .. } => {
                now.protocols = protocols.iter().map(ToString::to_string).collect();
                assert_eq!(now.protocols.len(), protocols.len());
            }
            Event::PublicKeyKnown { known, .. } => now.key = *known,
            // The value is not in the event: it may be large.
            Event::MetadataChanged { key, .. } => {
                match self.store.metadata().get_value(&peer, key) {
                    Some(value) => now.metadata.insert(key.to_string(), value),
                    None => now.metadata.remove(&**key),
                };
            }
            Event::PeerRemoved { .. } => {
                self.peers.remove(&peer);
                return;
            }
            other => panic!("{other:?}"),
        }
        self.peers.insert(peer, now);
    }
}

/// Something that happens to the store.
#[derive(Debug, Clone)]
enum Happening {
    Add(u8, Vec<u16>),
    Set(u8, Vec<u16>),
    Remove(u8, Vec<u16>),
    Pin(u8, u16),
    Unpin(u8, u16),
    Gossip(u8, Vec<u16>),
    Identify(u8, Vec<u16>),
    Withdraw(u8, Option<u16>),
    Certify(u8, u16),
    Dialled(u8, u16),
    Accepted(u8, u16),
    Closed(u8),
    DialFailed(u8, u16),
    Protocols(u8, Vec<u8>),
    LearnProtocols(u8, Vec<u8>),
    AddProtocols(u8, Vec<u8>),
    RemoveProtocols(u8, Vec<u8>),
    Key(u8),
    Metadata(u8, u8, u8),
    DeleteValue(u8, u8),
    DeleteBook(u8, u8),
    Delete(u8),
    DeleteFor(u8),
    Pass(u16),
}

/// One of six peers; the last one has a key that its id does not contain.
fn who(n: u8) -> PeerId {
    match n {
        5 => rsa_key().to_peer_id(),
        n => peer(n + 1),
    }
}

fn names(numbers: &[u8]) -> Vec<StreamProtocol> {
    let name = |n| StreamProtocol::try_from_owned(format!("/{n}")).unwrap();
    numbers.iter().map(name).collect()
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    let who = || 0..6_u8;
    let port = || 1..7_u16;
    let some_ports = || vec(1..7_u16, 0..6);
    let some_names = || vec(0..6_u8, 0..6);
    prop_oneof![
        (who(), some_ports()).prop_map(|(a, b)| Add(a, b)),
        (who(), some_ports()).prop_map(|(a, b)| Set(a, b)),
        (who(), some_ports()).prop_map(|(a, b)| Remove(a, b)),
        (who(), port()).prop_map(|(a, b)| Pin(a, b)),
        (who(), port()).prop_map(|(a, b)| Unpin(a, b)),
        (who(), some_ports()).prop_map(|(a, b)| Gossip(a, b)),
        (who(), some_ports()).prop_map(|(a, b)| Identify(a, b)),
        (who(), proptest::option::of(port())).prop_map(|(a, b)| Withdraw(a, b)),
        (who(), port()).prop_map(|(a, b)| Certify(a, b)),
        (who(), port()).prop_map(|(a, b)| Dialled(a, b)),
        (who(), port()).prop_map(|(a, b)| Accepted(a, b)),
        who().prop_map(Closed),
        (who(), port()).prop_map(|(a, b)| DialFailed(a, b)),
        (who(), some_names()).prop_map(|(a, b)| Protocols(a, b)),
        (who(), some_names()).prop_map(|(a, b)| LearnProtocols(a, b)),
        (who(), some_names()).prop_map(|(a, b)| AddProtocols(a, b)),
        (who(), some_names()).prop_map(|(a, b)| RemoveProtocols(a, b)),
        who().prop_map(Key),
        (who(), 0..5_u8, 0..2_u8).prop_map(|(a, b, c)| Metadata(a, b, c)),
        (who(), 0..5_u8).prop_map(|(a, b)| DeleteValue(a, b)),
        (who(), 0..4_u8).prop_map(|(a, b)| DeleteBook(a, b)),
        who().prop_map(Delete),
        who().prop_map(DeleteFor),
        (0..1_000_u16).prop_map(Pass),
    ]
}

/// A store so small that everything is full soon.
struct World {
    store: PeerStore,
    swarm: Swarm,
    clock: ManualClock,
}

impl World {
    fn new(event_capacity: usize) -> Self {
        let (store, clock) = clocked_with(|config| {
            config
                .with_max_peers(size(4))
                .with_max_addresses_per_peer(size(3))
                .with_max_protocols_per_peer(size(3))
                .with_max_metadata_per_peer(size(3))
                .with_hearsay_lifetime(Duration::from_secs(1_000))
                .with_self_told_lifetime(Duration::from_secs(2_000))
                .with_proven_lifetime(Duration::from_secs(3_000))
                .with_event_capacity(size(event_capacity))
        });
        let swarm = Swarm::of(&store);
        Self {
            store,
            swarm,
            clock,
        }
    }

    /// Lets something happen, and collects what has expired by then: else it is hidden, and not told yet.
    fn happen(&mut self, happening: &Happening) {
        self.act(happening);
        assert_eq!(self.store.len(), self.store.peer_ids().len());
    }

    fn act(&mut self, happening: &Happening) {
        let store = &self.store;
        let (addresses, protocols) = (store.addresses(), store.protocols());
        let told = |told: &Vec<u16>| ports(told.iter().copied());
        match happening {
            Happening::Add(n, of) => _ = addresses.add(who(*n), told(of)),
            Happening::Set(n, of) => _ = addresses.set(who(*n), told(of)),
            Happening::Remove(n, of) => _ = addresses.remove(who(*n), told(of)),
            Happening::Pin(n, port) => _ = addresses.pin(who(*n), ports([*port])),
            Happening::Unpin(n, port) => _ = addresses.unpin(who(*n), ports([*port])),
            Happening::Gossip(n, of) => {
                store.learned(Source::Mdns).add(who(*n), &told(of));
            }
            Happening::Identify(n, of) => _ = identify(store, who(*n), &told(of)),
            Happening::Withdraw(n, port) => {
                let port = port.map(|port| ports([port]));
                store
                    .learned(Source::Mdns)
                    .withdraw(who(*n), port.as_deref());
            }
            Happening::Certify(n, port) => {
                store
                    .learned(Source::Identify)
                    .certify(who(*n), &ports([*port]));
            }
            Happening::Dialled(n, port) => self.swarm.dialled(who(*n), at(*port)),
            Happening::Accepted(n, port) => self.swarm.accepted(who(*n), at(*port)),
            Happening::Closed(n) => self.swarm.closed(who(*n)),
            Happening::DialFailed(n, port) => self.swarm.dial_failed(who(*n), [at(*port)]),
            Happening::Protocols(n, of) => _ = protocols.set(who(*n), names(of)),
            Happening::LearnProtocols(n, of) => {
                store
                    .learned(Source::Identify)
                    .protocols(who(*n), &names(of));
            }
            Happening::AddProtocols(n, of) => _ = protocols.add(who(*n), names(of)),
            Happening::RemoveProtocols(n, of) => _ = protocols.remove(who(*n), names(of)),
            Happening::Key(n) => _ = store.keys().set(who(*n), rsa_key()),
            Happening::Metadata(n, key, value) => {
                let key = key.to_string();
                _ = store.metadata().set(who(*n), &key, [*value]);
            }
            Happening::DeleteValue(n, key) => {
                store.metadata().delete_value(&who(*n), &key.to_string());
            }
            Happening::DeleteBook(n, book) => {
                let peer = who(*n);
                match book {
                    0 => addresses.delete(&peer),
                    1 => protocols.delete(&peer),
                    2 => store.keys().delete(&peer),
                    _ => store.metadata().delete(&peer),
                };
            }
            Happening::Delete(n) => _ = store.delete(&who(*n)),
            Happening::DeleteFor(n) => {
                store.delete_for(&who(*n), Duration::from_secs(500));
            }
            Happening::Pass(seconds) => self.clock.advance(Duration::from_secs((*seconds).into())),
        }
    }
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(256))]

    /// A mirror that keeps up is equal after every change, and no event comes without a real difference.
    #[test]
    fn a_mirror_kept_from_events_alone_equals_the_store(happenings in vec(happening(), 1..80)) {
        let mut world = World::new(1024);
        let mut mirror = Mirror::of(&world.store);
        for happening in &happenings {
            let before = copy(&world.store);
            world.happen(happening);
            let after = copy(&world.store);
            let events = mirror.read();
            prop_assert_eq!(&mirror.peers, &after, "{:?}", happening);
            prop_assert_eq!(events > 0, before != after, "{:?}", happening);
            prop_assert!(after.len() <= 4);
            for peer in after.values() {
                prop_assert!(peer.addresses.len() <= 3);
                prop_assert!(peer.protocols.len() <= 3);
                prop_assert!(peer.metadata.len() <= 3);
            }
        }
        prop_assert!(!mirror.lagged);
    }

    /// A mirror that does not keep up starts again when it is told to, and is equal once it has read everything.
    #[test]
    fn a_mirror_that_lagged_and_started_again_equals_the_store(
        capacity in 1..12_usize,
        rounds in vec(vec(happening(), 1..30), 1..6),
    ) {
        let mut world = World::new(capacity);
        let mut mirror = Mirror::of(&world.store);
        for happenings in &rounds {
            for happening in happenings {
                world.happen(happening);
            }
            // One `Lagged` may come before what waits: no more than that, however much happened.
            let events = mirror.read();
            prop_assert!(events <= capacity + 1, "{} events", events);
            prop_assert_eq!(&mirror.peers, &copy(&world.store));
        }
    }
}
