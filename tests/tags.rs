//! Tags: what they are, how long they last, and what they are good for.

#![allow(clippy::unwrap_used)]

use std::{num::NonZeroUsize, time::Duration};

use futures::executor::block_on;
use libp2p_core::Multiaddr;
use libp2p_identity::{Keypair, PeerId};
use libp2p_peerstore::{
    Clock, Config, Event, MAX_TAG_VALUE, ManualClock, MemoryDatastore, PeerStore, Refused, Source,
    Subscription,
};
use prost::Message;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What is told of a tag's end may come so much later.
const GRAIN: Duration = Duration::from_secs(64);

fn peer(n: u8) -> PeerId {
    let key = Keypair::ed25519_from_bytes([n; 32]).unwrap();
    key.public().to_peer_id()
}

fn at(port: u16) -> Multiaddr {
    format!("/ip4/198.51.100.1/tcp/{port}").parse().unwrap()
}

fn config(clock: &ManualClock) -> Config {
    Config::default().with_clock(clock.clone())
}

fn clocked() -> (PeerStore, ManualClock) {
    let clock = ManualClock::default();
    (PeerStore::in_memory(peer(255), config(&clock)), clock)
}

fn open(memory: &MemoryDatastore, clock: &ManualClock) -> PeerStore {
    block_on(PeerStore::open(peer(255), memory.clone(), config(clock))).unwrap()
}

/// The tags of a peer as name and value.
fn tags(store: &PeerStore, peer: PeerId) -> Vec<(String, u8)> {
    let tags = store.tags().get(&peer).unwrap_or_default();
    tags.into_iter().map(|(n, tag)| (n, tag.value)).collect()
}

fn named(tags: &[(&str, u8)]) -> Vec<(String, u8)> {
    tags.iter().map(|(n, v)| (n.to_string(), *v)).collect()
}

/// The events that wait, those about tags with what they say.
fn told(events: &mut Subscription) -> Vec<String> {
    std::iter::from_fn(|| events.try_next())
        .map(|event| match event {
            Event::PeerAdded { .. } => "added".to_owned(),
            Event::PeerRemoved { cause, .. } => format!("removed {cause:?}"),
            Event::AddressesChanged { addresses, .. } => format!("{} addresses", addresses.len()),
            Event::TagsChanged { tags, cause, .. } => {
                let tags: Vec<_> = tags
                    .iter()
                    .map(|(n, t)| format!("{n}={}", t.value))
                    .collect();
                format!("[{}] {cause:?}", tags.join(" "))
            }
            other => format!("{other:?}"),
        })
        .collect()
}

/// Any write collects what is due.
fn collect(store: &PeerStore) {
    store.addresses().add(peer(200), [at(1)]);
}

#[test]
fn a_value_is_from_0_to_100_and_anything_else_is_an_error() {
    let (store, _) = clocked();
    for value in 0..=MAX_TAG_VALUE {
        assert_eq!(store.tags().set(peer(1), "keep", value, None), Ok(true));
        assert_eq!(store.tags().get_value(&peer(1), "keep"), Some(value));
    }
    for value in MAX_TAG_VALUE + 1..=u8::MAX {
        let refused = store.tags().set(peer(1), "keep", value, None);
        assert_eq!(refused, Err(Refused::TagValueOutOfRange));
    }
    assert_eq!(store.tags().get_value(&peer(1), "keep"), Some(100));
    assert_eq!(store.refusals().get(Refused::TagValueOutOfRange), 155);
}

#[test]
fn only_a_difference_is_a_change_and_an_event() {
    let (store, clock) = clocked();
    let mut events = store.subscribe();
    let set = |value, ttl| store.tags().set(peer(1), "keep", value, ttl);
    assert_eq!(set(5, None), Ok(true));
    assert_eq!(set(5, None), Ok(false));
    assert_eq!(set(6, None), Ok(true));
    assert_eq!(set(6, Some(HOUR)), Ok(true), "it expires now");
    assert_eq!(set(6, Some(HOUR)), Ok(false));
    clock.advance(MINUTE);
    assert_eq!(set(6, Some(HOUR)), Ok(true), "it expires later");
    assert!(!store.tags().remove(&peer(1), "other"));
    assert!(store.tags().remove(&peer(1), "keep"));
    assert_eq!(
        told(&mut events),
        [
            "added",
            "[keep=5] User",
            "[keep=6] User",
            "[keep=6] User",
            "[keep=6] User",
            "[] User",
        ]
    );
    // As when the last protocol or value is taken away.
    assert!(store.contains(&peer(1)));
    clock.advance(DAY);
    assert!(!store.contains(&peer(1)));
}

#[test]
fn expired_tags_vanish_from_reads_at_their_instant() {
    let (store, clock) = clocked();
    let set = |name, ttl| store.tags().set(peer(1), name, 1, ttl).unwrap();
    set("for ever", None);
    set("an hour", Some(HOUR));
    let tag = store.tags().get(&peer(1)).unwrap()["an hour"];
    assert_eq!(tag.expires, Some(clock.started() + HOUR));
    clock.advance(HOUR - SECOND);
    assert_eq!(tags(&store, peer(1)).len(), 2);
    clock.advance(SECOND);
    assert_eq!(tags(&store, peer(1)), named(&[("for ever", 1)]));
    assert_eq!(store.get(&peer(1)).unwrap().tags.len(), 1);
    assert_eq!(store.tags().get_value(&peer(1), "an hour"), None);
}

#[test]
fn a_tag_that_expires_is_told_although_the_peer_is_due_much_later() {
    let (store, clock) = clocked();
    store.addresses().pin(peer(1), [at(1)]);
    store.learned(Source::Identify).add(peer(1), &[at(2)]);
    let mut events = store.watch(peer(1));
    store
        .tags()
        .set(peer(1), "long", 1, Some(10 * DAY))
        .unwrap();
    store.tags().set(peer(1), "short", 2, Some(MINUTE)).unwrap();
    told(&mut events);
    clock.advance(MINUTE + GRAIN);
    collect(&store);
    assert_eq!(told(&mut events), ["[long=1] Expired"]);
    // The one that was there first is told at its own time.
    store.tags().set(peer(1), "short", 2, Some(MINUTE)).unwrap();
    told(&mut events);
    clock.advance(MINUTE + GRAIN);
    collect(&store);
    assert_eq!(told(&mut events), ["[long=1] Expired"]);
    clock.advance(10 * DAY);
    collect(&store);
    let last = told(&mut events);
    assert!(last.contains(&"[] Expired".to_owned()), "{last:?}");
}

#[test]
fn a_time_to_live_of_nothing_ends_the_tag_and_makes_no_peer() {
    let (store, _) = clocked();
    assert_eq!(
        store.tags().set(peer(1), "keep", 1, Some(Duration::ZERO)),
        Ok(false)
    );
    assert!(!store.contains(&peer(1)));
    store.addresses().add(peer(1), [at(1)]);
    store.tags().set(peer(1), "keep", 1, None).unwrap();
    assert_eq!(
        store.tags().set(peer(1), "keep", 1, Some(Duration::ZERO)),
        Ok(true)
    );
    assert_eq!(tags(&store, peer(1)), []);
    let forever = store.tags().set(peer(1), "keep", 1, Some(Duration::MAX));
    assert_eq!(forever, Ok(true), "the longest time overflows nothing");
    collect(&store);
    assert_eq!(tags(&store, peer(1)), named(&[("keep", 1)]));
}

#[test]
fn names_and_numbers_of_tags_are_bounded() {
    let clock = ManualClock::default();
    let size = |n| NonZeroUsize::new(n).unwrap();
    let config = config(&clock)
        .with_max_tags_per_peer(size(2))
        .with_max_tag_name_len(size(4));
    let store = PeerStore::in_memory(peer(255), config);
    let set = |name, ttl| store.tags().set(peer(1), name, 1, ttl);
    assert_eq!(set("", None), Err(Refused::EmptyTagName));
    assert_eq!(set("12345", None), Err(Refused::TagNameTooLong));
    assert!(!store.contains(&peer(1)));
    assert_eq!(set("1234", None), Ok(true));
    assert_eq!(set("b", Some(MINUTE)), Ok(true));
    assert_eq!(set("c", None), Err(Refused::TooManyTags));
    assert_eq!(set("b", Some(HOUR)), Ok(true), "it has its place");
    clock.advance(HOUR);
    assert_eq!(set("c", None), Ok(true), "what has expired makes room");
    let local = store.tags().set(peer(255), "me", 1, None);
    assert_eq!(local, Err(Refused::LocalPeer));
}

#[test]
fn a_tagged_peer_does_not_expire_and_goes_when_its_last_tag_does() {
    let (store, clock) = clocked();
    store.addresses().add(peer(1), [at(1)]);
    store.tags().set(peer(1), "keep", 0, None).unwrap();
    store.addresses().add(peer(2), [at(1)]);
    store
        .tags()
        .set(peer(2), "for a week", 0, Some(7 * DAY))
        .unwrap();
    store.addresses().add(peer(3), [at(1)]);
    let mut events = store.subscribe();
    clock.advance(6 * DAY);
    assert!(store.contains(&peer(1)) && store.contains(&peer(2)) && !store.contains(&peer(3)));
    assert_eq!(
        store.addresses().get(&peer(1)),
        Some(vec![]),
        "its address does expire"
    );
    clock.advance(DAY);
    assert!(!store.contains(&peer(2)));
    clock.advance(GRAIN);
    collect(&store);
    assert!(told(&mut events).contains(&"removed Expired".to_owned()));
    clock.advance(1_000 * DAY);
    assert!(store.contains(&peer(1)));
}

#[test]
fn a_tagged_peer_is_safe_from_eviction_by_what_others_say() {
    let clock = ManualClock::default();
    let config = config(&clock).with_max_peers(NonZeroUsize::new(4).unwrap());
    let store = PeerStore::in_memory(peer(255), config);
    store.addresses().add(peer(1), [at(1)]);
    store.tags().set(peer(1), "keep", 0, None).unwrap();
    for n in 2..100 {
        store.learned(Source::Kademlia).add(peer(n), &[at(1)]);
        store.learned(Source::Identify).add(peer(n + 100), &[at(1)]);
    }
    assert!(store.contains(&peer(1)));
    store.tags().delete(&peer(1));
    for n in 2..100 {
        store.learned(Source::Identify).add(peer(n), &[at(1)]);
    }
    assert!(
        !store.contains(&peer(1)),
        "without its tag it is like others"
    );
}

#[test]
fn a_deleted_peer_says_that_its_tags_are_gone() {
    let (store, _) = clocked();
    store.tags().set(peer(1), "a", 1, None).unwrap();
    store.tags().set(peer(1), "b", 2, None).unwrap();
    let mut watch = store.watch(peer(1));
    assert_eq!(told(&mut watch), ["added", "[a=1 b=2] Datastore"]);
    assert!(store.delete(&peer(1)));
    assert_eq!(told(&mut watch), ["[] User", "removed User"]);
}

#[test]
fn tags_survive_a_restart_and_what_has_expired_meanwhile_is_taken_from_disk() {
    let (memory, clock) = (MemoryDatastore::default(), ManualClock::default());
    let store = open(&memory, &clock);
    store.tags().set(peer(1), "a", 100, None).unwrap();
    store.tags().set(peer(1), "b", 0, Some(2 * HOUR)).unwrap();
    store.tags().set(peer(1), "c", 7, Some(HOUR)).unwrap();
    store.tags().set(peer(2), "alone", 7, Some(HOUR)).unwrap();
    let before = store.tags().get(&peer(1)).unwrap();
    block_on(store.shutdown()).unwrap();
    drop(store);
    assert_eq!(memory.len(), 2, "written even without an address");

    let store = open(&memory, &clock);
    assert_eq!(store.tags().get(&peer(1)), Some(before));
    drop(store);

    let clock = ManualClock::starting_at(clock.started() + HOUR);
    let store = open(&memory, &clock);
    assert_eq!(tags(&store, peer(1)), named(&[("a", 100), ("b", 0)]));
    assert!(!store.contains(&peer(2)));
    block_on(store.shutdown()).unwrap();
    assert_eq!(
        memory.len(),
        1,
        "the peer that expired is gone from disk too"
    );
}

#[test]
fn a_tag_is_to_be_saved_and_so_is_its_end() {
    let (memory, clock) = (MemoryDatastore::default(), ManualClock::default());
    let store = open(&memory, &clock);
    store.addresses().pin(peer(1), [at(1)]);
    block_on(store.flush()).unwrap();
    store.tags().set(peer(1), "a", 1, Some(MINUTE)).unwrap();
    assert_eq!(store.unsaved(), 1);
    block_on(store.flush()).unwrap();
    clock.advance(MINUTE + GRAIN);
    assert_eq!(store.len(), 1);
    assert_eq!(store.unsaved(), 1);
    block_on(store.shutdown()).unwrap();
}

// --- on disk -------------------------------------------------------------------------------------------------

/// As another program, or a newer version of this one, would write it.
#[derive(Message)]
struct Value {
    #[prost(message, repeated, tag = "18")]
    tags: Vec<TagValue>,
    #[prost(uint32, optional, tag = "19")]
    latency: Option<u32>,
    #[prost(string, tag = "99")]
    later: String,
}

#[derive(Message)]
struct TagValue {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, optional, tag = "2")]
    value: Option<u32>,
    #[prost(uint64, optional, tag = "3")]
    expires: Option<u64>,
    #[prost(string, tag = "99")]
    later: String,
}

#[test]
fn a_stored_tag_without_value_is_0_one_out_of_range_is_refused_and_unknown_fields_survive() {
    let (memory, clock) = (MemoryDatastore::default(), ManualClock::default());
    let store = open(&memory, &clock);
    store.tags().set(peer(1), "a", 1, None).unwrap();
    block_on(store.shutdown()).unwrap();
    drop(store);
    let (key, _) = memory.entries().remove(0);
    let tag = |name: &str, value| TagValue {
        name: name.to_owned(),
        value,
        expires: None,
        later: "kept".to_owned(),
    };
    let written = Value {
        tags: vec![tag("none", None), tag("over", Some(101)), tag("", Some(1))],
        latency: None,
        later: "kept too".to_owned(),
    };
    put(&memory, &key, written.encode_to_vec());

    let store = open(&memory, &clock);
    assert_eq!(tags(&store, peer(1)), named(&[("none", 0)]));
    assert_eq!(store.load_report().refused, 2);
    store.tags().set(peer(1), "new", 3, None).unwrap();
    block_on(store.shutdown()).unwrap();
    let (_, value) = memory.entries().remove(0);
    let value = Value::decode(&value[..]).unwrap();
    assert_eq!(value.later, "kept too");
    let names: Vec<_> = value.tags.iter().map(|t| (&*t.name, &*t.later)).collect();
    assert_eq!(names, [("new", ""), ("none", "kept")]);
}

fn put(memory: &MemoryDatastore, key: &str, value: Vec<u8>) {
    use libp2p_peerstore::{Batch, Datastore};
    let mut batch = Batch::default();
    batch.put(key, value);
    block_on(memory.commit(batch)).unwrap();
}
