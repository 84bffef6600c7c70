//! Peers as a datastore holds them: which one a text means, and what stands under its keys.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use libp2p_identity::PeerId;
use libp2p_peerstore::{
    Datastore, KeyValue,
    tool::{self, Book, Values},
};

use crate::{failure::Failure, progress::Progress, target::Target};

/// More matches than this are not told apart.
const MOST: usize = 100_000;

/// How many of several matches are shown.
const SHOWN: usize = 5;

/// The peers that these texts mean: ids, or what ids in base58 (or as they stand in keys) begin or end with. Whole ids are
/// not looked up.
pub async fn resolve(
    datastore: &dyn Datastore,
    target: &Target,
    texts: &[String],
) -> Result<Vec<PeerId>, Failure> {
    let mut found: Vec<(&str, BTreeSet<PeerId>)> = Vec::new();
    for text in texts {
        // A table marks with it what it has cut.
        let text = text.trim().trim_matches('…');
        let whole = tool::peer_id(text);
        if text.is_empty() {
            return Err(Failure::usage("an empty text is no peer id"));
        }
        found.push((text, whole.into_iter().collect()));
    }
    if found.iter().any(|(_, peers)| peers.is_empty()) {
        let is_part: Vec<bool> = found.iter().map(|(_, peers)| peers.is_empty()).collect();
        let progress = Progress::counting("looking for the peer", "entries");
        let mut seen: u64 = 0;
        let mut entries = datastore.query(tool::ROOT);
        while let Some(entry) = entries.next().await {
            let (key, _) = entry.map_err(|error| {
                Failure::of_store("cannot read the keys under `/peers/`", target, &error)
            })?;
            seen += 1;
            progress.set(seen);
            let Some((peer, _)) = tool::parse_key(&key) else {
                continue;
            };
            let (base58, b32) = (peer.to_base58(), tool::b32(&peer));
            for ((text, peers), is_part) in found.iter_mut().zip(&is_part) {
                let fits = |id: &str| id.starts_with(&**text) || id.ends_with(&**text);
                if *is_part && peers.len() <= MOST && (fits(&base58) || fits(&b32)) {
                    peers.insert(peer);
                }
            }
        }
    }
    let mut all = Vec::new();
    for (text, peers) in found {
        let peer = one(text, peers, target)?;
        if !all.contains(&peer) {
            all.push(peer);
        }
    }
    Ok(all)
}

fn one(text: &str, peers: BTreeSet<PeerId>, target: &Target) -> Result<PeerId, Failure> {
    let count = peers.len();
    let examples: Vec<String> = peers.iter().take(SHOWN).map(PeerId::to_string).collect();
    let mut peers = peers.into_iter();
    match (peers.next(), count) {
        (Some(peer), 1) => Ok(peer),
        (None, _) => Err(Failure::no_peer(format!(
            "no peer id in `{target}` begins or ends with `{text}`"
        ))
        .help("`peerstore ls --ids` lists the ids; capitals matter")),
        (Some(_), count) => {
            let count = match count > MOST {
                true => format!("more than {MOST}"),
                false => count.to_string(),
            };
            Err(Failure::no_peer(format!(
                "{count} peer ids in `{target}` begin or end with `{text}`"
            ))
            .help(format!(
                "say more of the id; among them are {}",
                examples.join(", ")
            )))
        }
    }
}

/// What stands under the keys of a peer.
pub async fn values(
    datastore: &dyn Datastore,
    target: &Target,
    peer: &PeerId,
    with_metadata: bool,
) -> Result<Values, Failure> {
    let metadata = match with_metadata {
        true => Some(metadata(datastore, target, peer).await?),
        false => None,
    };
    Ok(Values {
        addresses: get(datastore, target, &tool::key_of(peer, &Book::Addresses)).await?,
        protocols: get(datastore, target, &tool::key_of(peer, &Book::Protocols)).await?,
        public_key: get(datastore, target, &tool::key_of(peer, &Book::PublicKey)).await?,
        metadata,
    })
}

pub async fn metadata(
    datastore: &dyn Datastore,
    target: &Target,
    peer: &PeerId,
) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let prefix = tool::metadata_prefix(peer);
    let mut found = BTreeMap::new();
    let mut entries = datastore.query(&prefix);
    while let Some(entry) = entries.next().await {
        let (key, value) = entry.map_err(|error| {
            Failure::of_store(
                format!("cannot read the keys under `{prefix}`"),
                target,
                &error,
            )
        })?;
        if let Some(name) = key.strip_prefix(&prefix).filter(|name| !name.is_empty()) {
            found.insert(name.to_owned(), value);
        }
    }
    Ok(found)
}

pub async fn get(
    datastore: &dyn Datastore,
    target: &Target,
    key: &str,
) -> Result<Option<Vec<u8>>, Failure> {
    let value = datastore.get(key).await;
    value.map_err(|error| Failure::of_store(format!("cannot read `{key}`"), target, &error))
}

/// The entries that these values are.
pub fn entries(peer: &PeerId, values: Values) -> Vec<KeyValue> {
    let books = [
        (Book::Addresses, values.addresses),
        (Book::Protocols, values.protocols),
        (Book::PublicKey, values.public_key),
    ];
    let books = books
        .into_iter()
        .filter_map(|(book, value)| Some((tool::key_of(peer, &book), value?)));
    let metadata = values.metadata.unwrap_or_default().into_iter();
    let metadata = metadata.map(|(name, value)| (tool::key_of(peer, &Book::Metadata(name)), value));
    books.chain(metadata).collect()
}
