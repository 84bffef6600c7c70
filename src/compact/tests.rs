//! A record that is packed and read again is the same, whatever it has.

use libp2p_core::multihash::Multihash;
use libp2p_identity::PeerId;
use proptest::{collection::vec, option, prelude::*};

use super::{Has, Head, Known, MAX_ADDRESS_LEN, MAX_ADDRESSES, Packed};
use crate::{
    clock::Timestamp,
    group::Site,
    history::{Epoch, Flags, History},
    record::{Books, Latency},
};

/// Lengths of addresses, those at the bounds of the form often.
fn len() -> impl Strategy<Value = usize> {
    prop_oneof![
        0..40_usize,
        Just(126),
        Just(127),
        Just(128),
        Just(255),
        Just(256),
        120..600_usize
    ]
}

/// Histories, long and short, in all their parts.
fn history() -> impl Strategy<Value = History> {
    (any::<[u8; History::LEN]>(), 0..4_u8).prop_map(|(mut bytes, kind)| {
        match kind {
            0 => bytes[History::SHORT_LEN..].fill(0),
            // Long for one of its bytes only.
            1 => {
                let last = usize::from(bytes[0]) % (History::LEN - History::SHORT_LEN);
                let kept = bytes[History::SHORT_LEN + last].max(1);
                bytes[History::SHORT_LEN..].fill(0);
                bytes[History::SHORT_LEN + last] = kept;
            }
            _ => {}
        }
        History::read(&bytes)
    })
}

fn address() -> impl Strategy<Value = (Vec<u8>, History)> {
    (len(), any::<u8>(), history()).prop_map(|(len, byte, history)| (vec![byte; len], history))
}

fn id() -> impl Strategy<Value = PeerId> {
    let hash = |code, digest: Vec<u8>| {
        let hash = Multihash::wrap(code, &digest).expect("a short digest");
        PeerId::from_multihash(hash).expect("a peer id")
    };
    prop_oneof![
        vec(any::<u8>(), 32).prop_map(move |digest| hash(0x12, digest)),
        vec(any::<u8>(), 0..=42).prop_map(move |digest| hash(0, digest)),
    ]
}

/// Seconds that have a place in the form.
fn moment() -> impl Strategy<Value = Timestamp> {
    any::<u32>().prop_map(|at| Timestamp(at.into()))
}

prop_compose! {
    fn head()(
        id in id(),
        epoch in any::<[u8; 4]>(),
        moments in (moment(), moment(), moment()),
        saved in 0..16_u8,
        flags in any::<[bool; 4]>(),
        dirty in any::<u8>(),
        protocols in option::of(any::<(u32, u32)>()),
        texts in any::<(Option<u32>, Option<u32>)>(),
        first_proven in option::of(moment()),
        latency in option::of((1..=u32::MAX, any::<u32>())),
        source in option::of(1..=u64::MAX),
    ) -> Head {
        Head {
            id,
            epoch: Epoch::from_bytes(epoch),
            heard: moments.0,
            addresses_changed: moments.1,
            protocols_changed: moments.2,
            saved: Books::from_bits_truncate(saved),
            connected: flags[0],
            accepted: flags[1],
            claims: flags[2],
            rare: flags[3],
            dirty,
            protocols,
            agent: texts.0,
            version: texts.1,
            first_proven,
            latency: latency.and_then(|(mean, told)| Latency::restored(mean, told)),
            source: source.and_then(Site::from_bits),
        }
    }
}

fn pack(packed: &mut Packed, head: &Head, addresses: &[(Vec<u8>, History)]) {
    let known = addresses.iter().map(|(address, history)| Known {
        address,
        history: *history,
    });
    packed.pack(head, known, &mut Vec::new());
}

/// Fails unless all of it is read as it was packed.
fn assert_holds(packed: &Packed, head: &Head, addresses: &[(Vec<u8>, History)]) {
    let text = |head: &Head| format!("{head:?}");
    assert_eq!(packed.head().as_ref().map(text), Some(text(head)));
    assert_eq!(packed.count(), addresses.len());
    let mut found = packed.addresses();
    for (address, history) in addresses {
        let known = found.next().expect("one more address");
        assert_eq!((known.address, known.history), (&address[..], *history));
    }
    assert_eq!(found.next(), None);
    let mut bytes = [0; 66];
    let len = super::id_bytes(&head.id, &mut bytes);
    assert_eq!(packed.id_bytes(), &bytes[..len]);
}

proptest! {
    #[test]
    fn what_is_packed_is_read_again_and_packs_the_same(
        head in head(),
        addresses in vec(address(), 0..12),
    ) {
        let mut packed = Packed::default();
        prop_assert!(packed.is_vacant());
        pack(&mut packed, &head, &addresses);
        prop_assert!(!packed.is_vacant());
        assert_holds(&packed, &head, &addresses);

        let read: Vec<(Vec<u8>, History)> =
            packed.addresses().map(|known| (known.address.to_vec(), known.history)).collect();
        let mut again = Packed::default();
        pack(&mut again, &packed.head().expect("a record"), &read);
        prop_assert_eq!(format!("{packed:?}"), format!("{again:?}"));
    }

    /// One block takes the place of another, as long or not.
    #[test]
    fn nothing_of_what_was_packed_before_shows_through(
        one in (head(), vec(address(), 0..5)),
        other in (head(), vec(address(), 0..5)),
    ) {
        let mut packed = Packed::default();
        pack(&mut packed, &one.0, &one.1);
        pack(&mut packed, &other.0, &other.1);
        assert_holds(&packed, &other.0, &other.1);
        // Of the same length: only what happened differs.
        let mut changed = other.1.clone();
        for (_, history) in &mut changed {
            history.flags = history.flags.symmetric_difference(Flags::IN_USE);
        }
        pack(&mut packed, &other.0, &changed);
        assert_holds(&packed, &other.0, &changed);
    }

    #[test]
    fn what_changes_in_its_place_changes_nothing_else(
        before in head(),
        addresses in vec(address(), 0..4),
        now in head(),
    ) {
        let mut packed = Packed::default();
        pack(&mut packed, &before, &addresses);
        packed.set(Has::CONNECTED, now.connected);
        packed.set(Has::ACCEPTED, now.accepted);
        packed.set(Has::CLAIMS, now.claims);
        packed.set_saved(now.saved);
        packed.set_dirty(now.dirty);
        packed.set_heard(now.heard);
        let mut expected = Head {
            connected: now.connected,
            accepted: now.accepted,
            claims: now.claims,
            saved: now.saved,
            dirty: now.dirty,
            heard: now.heard,
            ..before
        };
        if let Some((_, place)) = &mut expected.protocols {
            *place = now.heard.0 as u32;
        }
        packed.set_protocols_place(now.heard.0 as u32);
        assert_holds(&packed, &expected, &addresses);
    }
}

fn plain() -> Head {
    Head {
        id: PeerId::random(),
        epoch: Epoch::default(),
        heard: Timestamp(7),
        addresses_changed: Timestamp::default(),
        protocols_changed: Timestamp::default(),
        saved: Books::empty(),
        connected: false,
        accepted: false,
        claims: false,
        rare: false,
        dirty: 0,
        protocols: None,
        agent: None,
        version: None,
        first_proven: None,
        latency: None,
        source: None,
    }
}

#[test]
fn the_longest_address_has_its_place_between_others() {
    let long = History::read(&[0xff; History::LEN]);
    let short = History::read(&[0xff; History::SHORT_LEN]);
    let mut addresses = Vec::new();
    for len in [0, 1, 126, 127, 128, 129, 255, 256, 32_767, MAX_ADDRESS_LEN] {
        addresses.push((vec![len as u8; len], long));
        addresses.push((vec![!len as u8; len], short));
    }
    let mut packed = Packed::default();
    pack(&mut packed, &plain(), &addresses);
    assert_holds(&packed, &plain_like(&packed), &addresses);
}

#[test]
fn as_many_addresses_as_there_may_be_are_kept_in_their_order() {
    let address = |n: usize| {
        let history = match n % 3 {
            0 => History::read(&[1; History::LEN]),
            _ => History::read(&[1; History::SHORT_LEN]),
        };
        (n.to_le_bytes()[..n % 8].to_vec(), history)
    };
    let addresses: Vec<_> = (0..MAX_ADDRESSES).map(address).collect();
    let mut packed = Packed::default();
    pack(&mut packed, &plain(), &addresses);
    assert_holds(&packed, &plain_like(&packed), &addresses);
}

/// The plain head with the id that was packed.
fn plain_like(packed: &Packed) -> Head {
    Head {
        id: packed.id().expect("a record"),
        ..plain()
    }
}

#[test]
fn each_part_is_found_beside_any_others() {
    for parts in 0..1_u32 << 7 {
        let has = |n: u32| parts & (1 << n) != 0;
        let head = Head {
            protocols: has(0).then_some((10, 11)),
            protocols_changed: Timestamp(if has(1) { 12 } else { 0 }),
            agent: has(2).then_some(13),
            version: has(3).then_some(14),
            first_proven: has(4).then_some(Timestamp(15)),
            latency: has(5).then(|| Latency::restored(16, 17)).flatten(),
            source: has(6).then(|| Site::from_bits(18)).flatten(),
            ..plain()
        };
        let mut packed = Packed::default();
        let addresses = [(vec![parts as u8; 3], History::read(&[parts as u8; 6]))];
        pack(&mut packed, &head, &addresses);
        assert_holds(&packed, &head, &addresses);
    }
}

#[test]
fn where_there_is_no_record_nothing_is_read() {
    let packed = Packed::default();
    assert!(packed.head().is_none() && packed.id().is_none());
    assert_eq!((packed.count(), packed.addresses().count()), (0, 0));
    assert!(packed.protocols().is_none() && packed.latency().is_none());
}
