//! The compact form of one record: one block of memory without gaps.
//!
//! ```text
//!  0     2     3       7       11                  15     17
//!  ├─────┼─────┼───────┼───────┼───────────────────┼──────┼────┬───────┬───────────────────────────┐
//!  │flags│dirty│ epoch │ heard │ addresses changed │ count│ id │ parts │ address, address, …       │
//!  └─────┴─────┴───────┴───────┴───────────────────┴──────┴────┴───────┴───────────────────────────┘
//!
//!  id       multihash code (1), length (1), digest
//!  parts    those whose flag is set, in this order:
//!           PROTOCOLS          number of the list (4), place among those who speak it (4)
//!           PROTOCOLS_CHANGED  when (4)
//!           AGENT              number of the text (4)
//!           VERSION            number of the text (4)
//!           PROVEN             when a dial first succeeded (4)
//!           LATENCY            mean (4), told (4)
//!           SOURCE             from where the peer last told of itself (8)
//!  address  length (1: seven bits, 127 if it follows in two more; the eighth: the history is long),
//!           history (6, or 16 if long), bytes
//! ```
//!
//! Numbers are little-endian, moments in seconds since 1970. What few peers have is not here, but in
//! [`Rare`](crate::record::Rare).

use bitflags::bitflags;
use libp2p_core::multihash::Multihash;
use libp2p_identity::PeerId;

use crate::{
    clock::Timestamp,
    group::Site,
    history::{Epoch, History},
    record::{Books, Latency},
};

bitflags! {
    /// What a record has, and what may change without moving anything.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub(crate) struct Has: u16 {
        const CONNECTED = 1;
        const ACCEPTED = 1 << 1;
        /// Books of which something may stand in the datastore: four flags in the order of [`Books`].
        const SAVED = 0b1111 << 2;
        /// It counts in the table of claims.
        const CLAIMS = 1 << 6;
        /// There is something of the peer in the table of what few have.
        const RARE = 1 << 7;
        const PROTOCOLS = 1 << 8;
        const PROTOCOLS_CHANGED = 1 << 9;
        const AGENT = 1 << 10;
        const VERSION = 1 << 11;
        const PROVEN = 1 << 12;
        const LATENCY = 1 << 13;
        const SOURCE = 1 << 14;
    }
}

const SAVED_SHIFT: u32 = Has::SAVED.bits().trailing_zeros();

const FLAGS: usize = 0;
const DIRTY: usize = 2;
const EPOCH: usize = 3;
const HEARD: usize = 7;
const ADDRESSES_CHANGED: usize = 11;
const COUNT: usize = 15;
const ID: usize = 17;

/// The length of each part, in their order.
const PARTS: [(Has, usize); 7] = [
    (Has::PROTOCOLS, 8),
    (Has::PROTOCOLS_CHANGED, 4),
    (Has::AGENT, 4),
    (Has::VERSION, 4),
    (Has::PROVEN, 4),
    (Has::LATENCY, 8),
    (Has::SOURCE, 8),
];

/// A length from which on it stands in two more bytes.
const LONG_ADDRESS: usize = 127;
const LONG_HISTORY: u8 = 1 << 7;

/// The longest address that can be kept, in bytes.
pub(crate) const MAX_ADDRESS_LEN: usize = u16::MAX as usize;

/// The most addresses that one peer can have.
pub(crate) const MAX_ADDRESSES: usize = u16::MAX as usize;

/// One address of a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Known<'a> {
    /// The bytes of the multiaddr.
    pub(crate) address: &'a [u8],
    pub(crate) history: History,
}

/// All of a record that has its place in the compact form, but for the addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) id: PeerId,
    pub(crate) epoch: Epoch,
    pub(crate) heard: Timestamp,
    pub(crate) addresses_changed: Timestamp,
    pub(crate) protocols_changed: Timestamp,
    pub(crate) saved: Books,
    pub(crate) connected: bool,
    pub(crate) accepted: bool,
    pub(crate) claims: bool,
    pub(crate) rare: bool,
    pub(crate) dirty: u8,
    /// The number of the list of protocols, and the place among those who speak it.
    pub(crate) protocols: Option<(u32, u32)>,
    pub(crate) agent: Option<u32>,
    pub(crate) version: Option<u32>,
    pub(crate) first_proven: Option<Timestamp>,
    pub(crate) latency: Option<Latency>,
    pub(crate) source: Option<Site>,
}

/// A record in its compact form; empty where there is none.
#[derive(Debug, Default)]
pub(crate) struct Packed(Box<[u8]>);

impl Packed {
    pub(crate) fn is_vacant(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a record into its compact form, by way of `scratch`.
    pub(crate) fn pack<'a>(
        &mut self,
        head: &Head,
        addresses: impl ExactSizeIterator<Item = Known<'a>>,
        scratch: &mut Vec<u8>,
    ) {
        scratch.clear();
        write_head(head, addresses.len(), scratch);
        for known in addresses {
            write_address(&known, scratch);
        }
        // Nearly always a change keeps the length, and what is there already needs no new place.
        if self.0.len() == scratch.len() {
            self.0.copy_from_slice(scratch);
        } else {
            self.0 = Box::from(&scratch[..]);
        }
    }

    // --- what has its fixed place --------------------------------------------------------------------------

    pub(crate) fn has(&self) -> Has {
        Has::from_bits_retain(u16::from_le_bytes(self.array(FLAGS)))
    }

    pub(crate) fn set(&mut self, flags: Has, on: bool) {
        let mut has = self.has();
        has.set(flags, on);
        self.put(FLAGS, &has.bits().to_le_bytes());
    }

    pub(crate) fn saved(&self) -> Books {
        let bits = (self.has() & Has::SAVED).bits() >> SAVED_SHIFT;
        Books::from_bits_truncate(bits as u8)
    }

    pub(crate) fn set_saved(&mut self, books: Books) {
        let bits = u16::from(books.bits()) << SAVED_SHIFT;
        self.set(Has::SAVED, false);
        self.set(Has::from_bits_retain(bits) & Has::SAVED, true);
    }

    /// What of the record is not saved yet, in bits that mean something to [`Pending`](crate::persist::Pending).
    pub(crate) fn dirty(&self) -> u8 {
        self.0.get(DIRTY).copied().unwrap_or_default()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch::from_bytes(self.array(EPOCH))
    }

    pub(crate) fn heard(&self) -> Timestamp {
        self.moment(HEARD)
    }

    pub(crate) fn set_heard(&mut self, heard: Timestamp) {
        self.put(HEARD, &seconds(heard).to_le_bytes());
    }

    pub(crate) fn addresses_changed(&self) -> Timestamp {
        self.moment(ADDRESSES_CHANGED)
    }

    /// How many addresses there are.
    pub(crate) fn count(&self) -> usize {
        u16::from_le_bytes(self.array(COUNT)).into()
    }

    // --- the id --------------------------------------------------------------------------------------------

    /// The id as [`id_bytes`] has it.
    pub(crate) fn id_bytes(&self) -> &[u8] {
        self.0.get(ID..self.parts_start()).unwrap_or_default()
    }

    pub(crate) fn id(&self) -> Option<PeerId> {
        let (&code, digest) = (self.0.get(ID)?, self.id_bytes().get(2..)?);
        let hash = Multihash::wrap(code.into(), digest).ok()?;
        PeerId::from_multihash(hash).ok()
    }

    // --- the parts -----------------------------------------------------------------------------------------

    /// The number of the list of protocols, and the place among those who speak it.
    pub(crate) fn protocols(&self) -> Option<(u32, u32)> {
        let at = self.part(Has::PROTOCOLS)?;
        Some((self.number(at), self.number(at + 4)))
    }

    pub(crate) fn set_protocols_place(&mut self, place: u32) {
        if let Some(at) = self.part(Has::PROTOCOLS) {
            self.put(at + 4, &place.to_le_bytes());
        }
    }

    pub(crate) fn protocols_changed(&self) -> Timestamp {
        let at = self.part(Has::PROTOCOLS_CHANGED);
        at.map(|at| self.moment(at)).unwrap_or_default()
    }

    pub(crate) fn agent(&self) -> Option<u32> {
        Some(self.number(self.part(Has::AGENT)?))
    }

    pub(crate) fn version(&self) -> Option<u32> {
        Some(self.number(self.part(Has::VERSION)?))
    }

    pub(crate) fn first_proven(&self) -> Option<Timestamp> {
        Some(self.moment(self.part(Has::PROVEN)?))
    }

    pub(crate) fn latency(&self) -> Option<Latency> {
        let at = self.part(Has::LATENCY)?;
        Latency::restored(self.number(at), self.number(at + 4))
    }

    pub(crate) fn source(&self) -> Option<Site> {
        Site::from_bits(u64::from_le_bytes(self.array(self.part(Has::SOURCE)?)))
    }

    /// Everything but the addresses; `None` where there is no record.
    pub(crate) fn head(&self) -> Option<Head> {
        let has = self.has();
        Some(Head {
            id: self.id()?,
            epoch: self.epoch(),
            heard: self.heard(),
            addresses_changed: self.addresses_changed(),
            protocols_changed: self.protocols_changed(),
            saved: self.saved(),
            connected: has.contains(Has::CONNECTED),
            accepted: has.contains(Has::ACCEPTED),
            claims: has.contains(Has::CLAIMS),
            rare: has.contains(Has::RARE),
            dirty: self.dirty(),
            protocols: self.protocols(),
            agent: self.agent(),
            version: self.version(),
            first_proven: self.first_proven(),
            latency: self.latency(),
            source: self.source(),
        })
    }

    // --- the addresses -------------------------------------------------------------------------------------

    pub(crate) fn addresses(&self) -> Addresses<'_> {
        let start = self.part_offset(Has::empty());
        Addresses {
            bytes: self.0.get(start..).unwrap_or_default(),
        }
    }

    // --- reading and writing bytes -------------------------------------------------------------------------

    fn parts_start(&self) -> usize {
        let digest = self.0.get(ID + 1).copied().unwrap_or_default();
        ID + 2 + usize::from(digest)
    }

    fn part(&self, part: Has) -> Option<usize> {
        self.has().contains(part).then(|| self.part_offset(part))
    }

    /// Where a part begins, or, for none, what follows the last.
    fn part_offset(&self, part: Has) -> usize {
        let has = self.has();
        let before = PARTS.iter().take_while(|(other, _)| *other != part);
        let present = before.filter(|(other, _)| has.contains(*other));
        self.parts_start() + present.map(|(_, len)| len).sum::<usize>()
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let bytes = self.0.get(at..at + N);
        bytes.and_then(|b| b.try_into().ok()).unwrap_or([0; N])
    }

    fn number(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    fn moment(&self, at: usize) -> Timestamp {
        Timestamp(self.number(at).into())
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.0.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

/// The id as it stands in the compact form: what finds a record is compared with it.
pub(crate) fn id_bytes(id: &PeerId, bytes: &mut [u8; 66]) -> usize {
    let hash: &Multihash<64> = id.as_ref();
    let digest = hash.digest();
    // Peer ids have the identity or SHA-256, which are below 128, and so few bytes.
    (bytes[0], bytes[1]) = (hash.code() as u8, digest.len() as u8);
    bytes[2..2 + digest.len()].copy_from_slice(digest);
    2 + digest.len()
}

/// The addresses of a record, in the order in which they came.
#[derive(Debug, Clone)]
pub(crate) struct Addresses<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for Addresses<'a> {
    type Item = Known<'a>;

    fn next(&mut self) -> Option<Known<'a>> {
        let (&first, mut rest) = self.bytes.split_first()?;
        let mut len = usize::from(first & !LONG_HISTORY);
        if len == LONG_ADDRESS {
            let (bytes, after) = rest.split_first_chunk()?;
            (len, rest) = (u16::from_le_bytes(*bytes).into(), after);
        }
        let history = match first & LONG_HISTORY {
            0 => History::SHORT_LEN,
            _ => History::LEN,
        };
        let (history, rest) = rest.split_at_checked(history)?;
        let (address, rest) = rest.split_at_checked(len)?;
        self.bytes = rest;
        Some(Known {
            address,
            history: History::read(history),
        })
    }
}

fn write_head(head: &Head, count: usize, bytes: &mut Vec<u8>) {
    let mut has = Has::from_bits_retain(u16::from(head.saved.bits()) << SAVED_SHIFT) & Has::SAVED;
    for (flag, on) in [
        (Has::CONNECTED, head.connected),
        (Has::ACCEPTED, head.accepted),
        (Has::CLAIMS, head.claims),
        (Has::RARE, head.rare),
        (Has::PROTOCOLS, head.protocols.is_some()),
        (
            Has::PROTOCOLS_CHANGED,
            head.protocols_changed > Timestamp::default(),
        ),
        (Has::AGENT, head.agent.is_some()),
        (Has::VERSION, head.version.is_some()),
        (Has::PROVEN, head.first_proven.is_some()),
        (Has::LATENCY, head.latency.is_some()),
        (Has::SOURCE, head.source.is_some()),
    ] {
        has.set(flag, on);
    }
    bytes.extend_from_slice(&has.bits().to_le_bytes());
    bytes.push(head.dirty);
    bytes.extend_from_slice(&head.epoch.to_bytes());
    bytes.extend_from_slice(&seconds(head.heard).to_le_bytes());
    bytes.extend_from_slice(&seconds(head.addresses_changed).to_le_bytes());
    bytes.extend_from_slice(&(count as u16).to_le_bytes());
    let mut id = [0; 66];
    let len = id_bytes(&head.id, &mut id);
    bytes.extend_from_slice(&id[..len]);

    let mut number = |number: u32| bytes.extend_from_slice(&number.to_le_bytes());
    if let Some((list, place)) = head.protocols {
        number(list);
        number(place);
    }
    if has.contains(Has::PROTOCOLS_CHANGED) {
        number(seconds(head.protocols_changed));
    }
    head.agent.into_iter().for_each(&mut number);
    head.version.into_iter().for_each(&mut number);
    head.first_proven
        .map(seconds)
        .into_iter()
        .for_each(&mut number);
    if let Some(latency) = head.latency {
        number(latency.as_micros());
        number(latency.told());
    }
    if let Some(source) = head.source {
        bytes.extend_from_slice(&source.bits().to_le_bytes());
    }
}

fn write_address(known: &Known<'_>, bytes: &mut Vec<u8>) {
    let long = match known.history.is_short() {
        true => 0,
        false => LONG_HISTORY,
    };
    let len = known.address.len();
    if len < LONG_ADDRESS {
        bytes.push(len as u8 | long);
    } else {
        bytes.push(LONG_ADDRESS as u8 | long);
        bytes.extend_from_slice(&(len as u16).to_le_bytes());
    }
    known.history.write(bytes);
    bytes.extend_from_slice(known.address);
}

/// A moment as it is kept: up to the year 2106.
fn seconds(at: Timestamp) -> u32 {
    u32::try_from(at.0).unwrap_or(u32::MAX)
}
