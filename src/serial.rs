//! The forms in which types of other crates are serialized, for `#[serde(with = "…")]`: as rust-libp2p has them. Text where people
//! read it, bytes elsewhere. Nothing that is read is trusted: what does not parse is an error.

use std::{fmt, marker::PhantomData};

use multibase::Base;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// One value that has a text for people and bytes for machines.
trait Form: Sized {
    const EXPECTED: &str;
    fn text(&self) -> String;
    fn bytes(&self) -> Vec<u8>;
    fn from_text(text: &str) -> Option<Self>;
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

fn write<S: Serializer>(value: &impl Form, serializer: S) -> Result<S::Ok, S::Error> {
    match serializer.is_human_readable() {
        true => serializer.serialize_str(&value.text()),
        false => serializer.serialize_bytes(&value.bytes()),
    }
}

fn read<'de, D: Deserializer<'de>, T: Form>(deserializer: D) -> Result<T, D::Error> {
    match deserializer.is_human_readable() {
        true => deserializer.deserialize_str(Visitor(PhantomData)),
        false => deserializer.deserialize_byte_buf(Visitor(PhantomData)),
    }
}

struct Visitor<T>(PhantomData<T>);

impl<'de, T: Form> de::Visitor<'de> for Visitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<T, E> {
        T::from_bytes(bytes).ok_or_else(|| E::invalid_value(de::Unexpected::Bytes(bytes), &self))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut sequence: A) -> Result<T, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = sequence.next_element()? {
            bytes.push(byte);
        }
        self.visit_bytes(&bytes)
    }
}

/// Makes a value of another crate out of its form, and the other way round.
struct Formed<T>(T);

impl<T> Serialize for Formed<&T>
where
    T: Form,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(self.0, serializer)
    }
}

impl<'de, T: Form> Deserialize<'de> for Formed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer).map(Self)
    }
}

/// Bytes as base64, with the prefix that says so (multibase).
fn base64(bytes: &[u8]) -> String {
    multibase::encode(Base::Base64, bytes)
}

fn unbase(text: &str) -> Option<Vec<u8>> {
    Some(multibase::decode(text).ok()?.1)
}

/// A peer id: in base58, as rust-libp2p writes it.
pub(crate) mod peer_id {
    use libp2p_identity::PeerId;
    use serde::{Deserializer, Serializer};

    use super::Form;

    impl Form for PeerId {
        const EXPECTED: &str = "a peer id";

        fn text(&self) -> String {
            self.to_base58()
        }

        fn bytes(&self) -> Vec<u8> {
            self.to_bytes()
        }

        fn from_text(text: &str) -> Option<Self> {
            text.parse().ok()
        }

        fn from_bytes(bytes: &[u8]) -> Option<Self> {
            PeerId::from_bytes(bytes).ok()
        }
    }

    pub(crate) fn serialize<S: Serializer>(id: &PeerId, serializer: S) -> Result<S::Ok, S::Error> {
        super::write(id, serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<PeerId, D::Error> {
        super::read(deserializer)
    }
}

/// Names of protocols, which begin with a slash.
pub(crate) mod protocols {
    use libp2p_swarm::StreamProtocol;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(
        names: &[StreamProtocol],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(names.iter().map(AsRef::<str>::as_ref))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<StreamProtocol>, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?.into_iter();
        names
            .map(|name| StreamProtocol::try_from_owned(name).map_err(D::Error::custom))
            .collect()
    }
}

/// A public key: its protobuf encoding.
pub(crate) mod public_key {
    use libp2p_identity::PublicKey;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Form, Formed};

    impl Form for PublicKey {
        const EXPECTED: &str =
            "a public key in its protobuf encoding, in multibase where it is text";

        fn text(&self) -> String {
            super::base64(&self.encode_protobuf())
        }

        fn bytes(&self) -> Vec<u8> {
            self.encode_protobuf()
        }

        fn from_text(text: &str) -> Option<Self> {
            Self::from_bytes(&super::unbase(text)?)
        }

        fn from_bytes(bytes: &[u8]) -> Option<Self> {
            PublicKey::try_decode_protobuf(bytes).ok()
        }
    }

    pub(crate) fn serialize<S: Serializer>(
        key: &Option<PublicKey>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        key.as_ref().map(Formed).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PublicKey>, D::Error> {
        let key = Option::<Formed<PublicKey>>::deserialize(deserializer)?;
        Ok(key.map(|Formed(key)| key))
    }
}

/// Bytes that are nothing else.
pub(crate) mod bytes {
    use std::sync::Arc;

    use serde::{Deserializer, Serializer};

    use super::Form;

    pub(super) struct Plain(pub(super) Vec<u8>);

    impl Form for Plain {
        const EXPECTED: &str = "bytes, in multibase where they are text";

        fn text(&self) -> String {
            super::base64(&self.0)
        }

        fn bytes(&self) -> Vec<u8> {
            self.0.clone()
        }

        fn from_text(text: &str) -> Option<Self> {
            super::unbase(text).map(Self)
        }

        fn from_bytes(bytes: &[u8]) -> Option<Self> {
            Some(Self(bytes.to_vec()))
        }
    }

    pub(crate) fn serialize<S: Serializer>(
        bytes: &Arc<[u8]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        super::write(&Plain(bytes.to_vec()), serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<[u8]>, D::Error> {
        let Plain(bytes) = super::read(deserializer)?;
        Ok(bytes.into())
    }
}

/// Metadata: bytes by name.
pub(crate) mod metadata {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Formed, bytes::Plain};

    pub(crate) fn serialize<S: Serializer>(
        metadata: &BTreeMap<String, Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let values = metadata.values().map(|value| Plain(value.clone()));
        let values: Vec<Plain> = values.collect();
        serializer.collect_map(metadata.keys().zip(values.iter().map(Formed)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, Vec<u8>>, D::Error> {
        let metadata = BTreeMap::<String, Formed<Plain>>::deserialize(deserializer)?;
        let metadata = metadata.into_iter();
        Ok(metadata
            .map(|(name, Formed(Plain(value)))| (name, value))
            .collect())
    }
}

/// What events share.
pub(crate) mod shared {
    use std::sync::Arc;

    use serde::{Serialize, Serializer};

    pub(crate) fn list<T: Serialize, S: Serializer>(
        list: &Arc<[T]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter())
    }

    pub(crate) fn value<T: Serialize + ?Sized, S: Serializer>(
        value: &Arc<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().serialize(serializer)
    }

    pub(crate) fn text<T: ToString, S: Serializer>(
        value: &Arc<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.to_string())
    }
}

/// Sources are the names of their flags, or their bits: as the crate `bitflags` has them.
impl Form for crate::Sources {
    const EXPECTED: &str = "names of sources with `|` in between";

    fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = bitflags::parser::to_writer(self, &mut text);
        text
    }

    fn bytes(&self) -> Vec<u8> {
        self.bits().to_le_bytes().to_vec()
    }

    fn from_text(text: &str) -> Option<Self> {
        bitflags::parser::from_str(text).ok()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bits = bytes.try_into().ok()?;
        Some(Self::from_bits_retain(u16::from_le_bytes(bits)))
    }
}

impl Serialize for crate::Sources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(self, serializer)
    }
}

impl<'de> Deserialize<'de> for crate::Sources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}

/// Refusals are a map from reasons to counts, of those that occurred.
impl Serialize for crate::Refusals {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for crate::Refusals {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let counts = std::collections::BTreeMap::deserialize(deserializer)?;
        let mut refusals = Self::default();
        for (reason, count) in counts {
            refusals.set(reason, count);
        }
        Ok(refusals)
    }
}
