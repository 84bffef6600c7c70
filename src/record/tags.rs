//! The rules for tags.

use std::collections::BTreeMap;

use super::{Books, Delta, Record, Rules};
use crate::{
    book::{MAX_TAG_VALUE, Tag},
    clock::Timestamp,
    config::Config,
    refusal::Refused,
};

/// A tag as a record keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptTag {
    pub(crate) value: u8,
    /// `None` for never.
    pub(crate) expires: Option<Timestamp>,
    /// Protobuf fields of a newer version, kept until the tag is set anew.
    pub(crate) unknown: Box<[u8]>,
}

/// The tags of one peer. Few peers have any: the others pay a pointer, where a map would take three.
#[derive(Debug, Default)]
#[expect(clippy::box_collection)]
pub(crate) struct Tags(Option<Box<BTreeMap<String, KeptTag>>>);

impl Tags {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &KeptTag)> + '_ {
        self.0.iter().flat_map(|tags| tags.iter())
    }

    /// What is not expired, as people see it.
    pub(crate) fn view(&self, now: Timestamp) -> BTreeMap<String, Tag> {
        let alive = self.iter().filter(|(_, tag)| !tag.has_expired(now));
        alive
            .map(|(name, tag)| {
                let expires = tag.expires.map(Timestamp::to_system_time);
                let value = tag.value;
                (name.clone(), Tag { value, expires })
            })
            .collect()
    }

    /// Whether there is one of this name that has not expired.
    pub(crate) fn holds(&self, name: &str, now: Timestamp) -> bool {
        self.get(name).is_some_and(|tag| !tag.has_expired(now))
    }

    /// When the first of them expires.
    pub(crate) fn next_expiry(&self) -> Option<Timestamp> {
        self.iter().filter_map(|(_, tag)| tag.expires).min()
    }

    /// When the last of them expires: `None` for never.
    pub(crate) fn last_expiry(&self) -> Option<Timestamp> {
        let mut last = Timestamp::default();
        for (_, tag) in self.iter() {
            last = last.max(tag.expires?);
        }
        Some(last)
    }

    /// Takes a tag from the datastore, if it is within the limits.
    pub(crate) fn load(&mut self, name: String, tag: KeptTag, config: &Config) -> bool {
        let has_room = self.len() < config.max_tags_per_peer().get() || self.get(&name).is_some();
        let fits = has_room && check_tag(&name, tag.value, config).is_ok();
        if fits {
            self.insert(name, tag);
        }
        fits
    }

    fn get(&self, name: &str) -> Option<&KeptTag> {
        self.0.as_ref()?.get(name)
    }

    fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |tags| tags.len())
    }

    fn insert(&mut self, name: String, tag: KeptTag) {
        self.0.get_or_insert_default().insert(name, tag);
    }

    /// Keeps the tags for which `keep` holds. Returns whether others went.
    fn retain(&mut self, keep: impl Fn(&str, &KeptTag) -> bool) -> bool {
        let before = self.len();
        if let Some(tags) = &mut self.0 {
            tags.retain(|name, tag| keep(name, tag));
            if tags.is_empty() {
                self.0 = None;
            }
        }
        self.len() < before
    }
}

impl KeptTag {
    fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }
}

impl Record {
    /// Sets a tag. One that would expire at once is not kept, and ends the one of its name.
    pub(crate) fn set_tag(
        &mut self,
        name: &str,
        value: u8,
        expires: Option<Timestamp>,
        rules: Rules<'_>,
        delta: &mut Delta,
    ) {
        if let Err(reason) = check_tag(name, value, rules.config) {
            delta.refuse(reason);
            return;
        }
        let tag = KeptTag {
            value,
            expires,
            unknown: Box::default(),
        };
        if tag.has_expired(rules.now) {
            self.remove_tag(name, delta);
            return;
        }
        let kept = self.rare.tags.get(name);
        if kept.is_some_and(|kept| (kept.value, kept.expires) == (value, expires)) {
            return;
        }
        if kept.is_none() && self.rare.tags.len() >= rules.config.max_tags_per_peer().get() {
            delta.refuse(Refused::TooManyTags);
            return;
        }
        self.rare.tags.insert(name.to_owned(), tag);
        delta.change_tags();
    }

    pub(crate) fn remove_tag(&mut self, name: &str, delta: &mut Delta) {
        if self.rare.tags.retain(|kept, _| kept != name) {
            delta.change_tags();
        }
    }

    pub(crate) fn clear_tags(&mut self, delta: &mut Delta) {
        if self.rare.tags.retain(|_, _| false) {
            delta.change_tags();
        }
    }

    /// Forgets the tags that have expired.
    pub(crate) fn expire_tags(&mut self, rules: Rules<'_>, delta: &mut Delta) {
        if self.rare.tags.retain(|_, tag| !tag.has_expired(rules.now)) {
            delta.change_tags();
        }
    }
}

impl Delta {
    /// Tags are events of their own, and lie on disk beside the addresses.
    fn change_tags(&mut self) {
        self.changed |= Books::TAGS;
        self.save |= Books::ADDRESSES;
    }
}

/// Whether a tag is fit to be stored.
fn check_tag(name: &str, value: u8, config: &Config) -> Result<(), Refused> {
    if name.is_empty() {
        Err(Refused::EmptyTagName)
    } else if name.len() > config.max_tag_name_len().get() {
        Err(Refused::TagNameTooLong)
    } else if value > MAX_TAG_VALUE {
        Err(Refused::TagValueOutOfRange)
    } else {
        Ok(())
    }
}
