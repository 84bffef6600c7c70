//! A reader and writer of protobuf fields, and js-libp2p's view of the values, made without the code under test.

// Every test file uses its own part of this.
#![allow(dead_code)]

/// The value of one protobuf field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    Varint(u64),
    Bytes(Vec<u8>),
    Fixed(Vec<u8>),
    /// What begins and ends with a key of its own; nobody uses it any longer.
    Group(Vec<(u64, Field)>),
}

impl Field {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Field::Bytes(bytes) => bytes,
            other => panic!("{other:?} is not bytes"),
        }
    }

    pub fn number(&self) -> u64 {
        match self {
            Field::Varint(number) => *number,
            other => panic!("{other:?} is not a number"),
        }
    }
}

/// Takes a varint off the front.
fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
        shift += 7;
    }
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

/// The fields of a message, in their order; `None` when it is cut short.
pub fn try_fields(mut bytes: &[u8]) -> Option<Vec<(u64, Field)>> {
    read(&mut bytes, None)
}

/// The fields of a message, in their order.
pub fn fields(bytes: &[u8]) -> Vec<(u64, Field)> {
    try_fields(bytes).expect("the message is cut short")
}

/// Reads fields to the end, or to the end of the group of this number.
fn read(bytes: &mut &[u8], group: Option<u64>) -> Option<Vec<(u64, Field)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = take_varint(bytes)?;
        let number = key >> 3;
        let value = match key & 7 {
            0 => Field::Varint(take_varint(bytes)?),
            1 => Field::Fixed(take(bytes, 8)?.to_vec()),
            2 => {
                let len = take_varint(bytes)?;
                Field::Bytes(take(bytes, len as usize)?.to_vec())
            }
            3 => Field::Group(read(bytes, Some(number))?),
            4 if group == Some(number) => return Some(fields),
            5 => Field::Fixed(take(bytes, 4)?.to_vec()),
            other => panic!("wire type {other}"),
        };
        fields.push((number, value));
    }
    group.is_none().then_some(fields)
}

/// The values of one field of a message.
pub fn all(bytes: &[u8], number: u64) -> Vec<Field> {
    let fields = fields(bytes).into_iter();
    fields
        .filter(|(other, _)| *other == number)
        .map(|(_, value)| value)
        .collect()
}

/// The value of a field that stands there at most once.
pub fn one(bytes: &[u8], number: u64) -> Option<Field> {
    let mut values = all(bytes, number);
    assert!(values.len() <= 1, "{values:?}");
    values.pop()
}

pub fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A field of bytes (or a message, or a string).
pub fn bytes_field(number: u64, value: &[u8]) -> Vec<u8> {
    let mut field = varint(number << 3 | 2);
    field.extend(varint(value.len() as u64));
    field.extend(value);
    field
}

pub fn varint_field(number: u64, value: u64) -> Vec<u8> {
    let mut field = varint(number << 3);
    field.extend(varint(value));
    field
}

pub fn fixed64_field(number: u64, value: u64) -> Vec<u8> {
    let mut field = varint(number << 3 | 1);
    field.extend(value.to_le_bytes());
    field
}

/// An address as js-libp2p 0.30 writes it.
pub fn js_address(multiaddr: &[u8], certified: bool) -> Vec<u8> {
    let mut message = bytes_field(1, multiaddr);
    message.extend(varint_field(2, certified.into()));
    message
}

// --- what js-libp2p 0.30 sees ------------------------------------------------------------------------------

/// The value under `/peers/addrs/`.
#[derive(Debug, PartialEq, Eq)]
pub struct JsAddresses {
    /// Each address, and whether it is certified.
    pub addresses: Vec<(Vec<u8>, bool)>,
    /// The sequence number and the envelope.
    pub record: Option<(u64, Vec<u8>)>,
}

impl JsAddresses {
    /// Reads the fields that js-libp2p knows and skips the rest, as it does.
    pub fn decode(value: &[u8]) -> Self {
        let addresses = all(value, 1).into_iter().map(|message| {
            let message = message.bytes();
            let multiaddr = one(message, 1).expect("the field is required");
            let certified = one(message, 2).is_some_and(|flag| flag.number() == 1);
            (multiaddr.bytes().to_vec(), certified)
        });
        let record = one(value, 2).map(|record| {
            let record = record.bytes();
            let seq = one(record, 1).map_or(0, |seq| seq.number());
            (seq, one(record, 2).unwrap().bytes().to_vec())
        });
        Self {
            addresses: addresses.collect(),
            record,
        }
    }
}

/// The protocols under `/peers/protos/`.
pub fn js_protocols(value: &[u8]) -> Vec<String> {
    let names = all(value, 1).into_iter();
    names
        .map(|name| String::from_utf8(name.bytes().to_vec()).unwrap())
        .collect()
}

/// Whether multiaddr 8.1.2 takes the bytes for an address: it knows these codes and the lengths of their values
/// in bits; -1 stands for a length before the value.
pub fn js_parses(mut multiaddr: &[u8]) -> bool {
    const TABLE: [(u64, i32); 29] = [
        (4, 32),
        (6, 16),
        (33, 16),
        (41, 128),
        (42, -1),
        (53, -1),
        (54, -1),
        (55, -1),
        (56, -1),
        (132, 16),
        (273, 16),
        (275, 0),
        (276, 0),
        (277, 0),
        (290, 0),
        (301, 0),
        (302, 0),
        (400, -1),
        (421, -1),
        (443, 0),
        (444, 96),
        (445, 296),
        (446, -1),
        (460, 0),
        (477, 0),
        (478, 0),
        (479, 0),
        (480, 0),
        (777, -1),
    ];
    let mut protocol = || {
        let code = take_varint(&mut multiaddr)?;
        let (_, bits) = TABLE.iter().find(|(known, _)| *known == code)?;
        let len = match bits {
            -1 => take_varint(&mut multiaddr)? as usize,
            bits => *bits as usize / 8,
        };
        take(&mut multiaddr, len)?;
        Some(multiaddr.is_empty())
    };
    loop {
        match protocol() {
            Some(false) => {}
            end => return end.is_some(),
        }
    }
}
