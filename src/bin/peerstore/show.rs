//! `peerstore show`: everything about one peer.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use libp2p_identity::PeerId;
use libp2p_peerstore::{
    AGENT_VERSION, AddressInfo, PROTOCOL_VERSION, Peer, RecordFormat, tool,
    tool::{Line, Values},
};
use serde_json::{Value, json};

use crate::{
    args::Show,
    entries,
    failure::{Failure, Outcome},
    json as shapes,
    load::{Loaded, See, of_entries},
    out::{BOLD, DIM, Out, by_confidence},
    target::Target,
    words,
};

/// Characters of a metadata value that are shown.
const MOST_TEXT: usize = 200;

/// A peer in all that is known of it.
struct Known {
    id: PeerId,
    /// As a node would have it; `None` when all of it has expired, or nothing can be decoded.
    alive: Option<Peer>,
    /// As it would be if nothing expired.
    whole: Option<Peer>,
    /// What stands in the datastore.
    line: Line,
    /// Keys whose values cannot be decoded, and why.
    undecodable: BTreeMap<String, String>,
}

impl Known {
    fn peer(&self) -> Option<&Peer> {
        self.alive.as_ref().or(self.whole.as_ref())
    }

    /// Addresses that stand in the datastore and count no longer.
    fn expired(&self) -> Vec<&AddressInfo> {
        let alive = |address| {
            let alive = self.alive.as_ref();
            alive.is_some_and(|peer| peer.multiaddrs().any(|known| known == address))
        };
        let whole = self.whole.iter().flat_map(|peer| &peer.addresses);
        whole.filter(|info| !alive(&info.address)).collect()
    }
}

pub async fn run(args: Show, out: &mut Out) -> Result<Outcome, Failure> {
    let store = Target::named(&args.store)?;
    let loaded = Loaded::open(&store, See::Alive).await?;
    let known = known(&args, &store, &loaded).await;
    drop(loaded.release().await);
    let known = known?;
    if out.json {
        out.json(&as_json(&known))?;
    } else {
        in_words(&known, out)?;
    }
    Ok(Outcome::Done)
}

async fn known(args: &Show, target: &Target, loaded: &Loaded) -> Result<Known, Failure> {
    let datastore = &*loaded.datastore;
    let texts = std::slice::from_ref(&args.peer);
    let found = entries::resolve(datastore, target, texts).await?;
    let id = found
        .into_iter()
        .next()
        .ok_or_else(|| Failure::no_peer("no peer was named"))?;
    let values = entries::values(datastore, target, &id, true).await?;
    let is_empty = |values: &Values| {
        let books = [&values.addresses, &values.protocols, &values.public_key];
        books.iter().all(|book| book.is_none())
            && values.metadata.as_ref().is_none_or(BTreeMap::is_empty)
    };
    if is_empty(&values) {
        return Err(
            Failure::no_peer(format!("the peer `{id}` is not in `{target}`"))
                .help("`peerstore ls --ids` lists the ids"),
        );
    }
    let line = Line::new(&id, &values);
    let entries = entries::entries(&id, values);
    let mut undecodable = BTreeMap::new();
    for (key, value) in &entries {
        if let Some((peer, book)) = tool::parse_key(key)
            && let Some(reason) = tool::inspect(&peer, &book, value).undecodable
        {
            undecodable.insert(key.clone(), reason);
        }
    }
    let everything = of_entries(entries, See::Everything).await;
    let everything = everything
        .map_err(|error| Failure::new(format!("cannot load the peer `{id}`")).because(&error))?;
    Ok(Known {
        id,
        alive: loaded.store.get(&id),
        whole: everything.get(&id),
        line,
        undecodable,
    })
}

fn as_json(known: &Known) -> Value {
    let mut object = match known.peer() {
        Some(peer) => shapes::peer(peer),
        None => {
            let object = json!({ "id": known.id.to_string(), "b32": tool::b32(&known.id) });
            object.as_object().cloned().unwrap_or_default()
        }
    };
    let expired: Vec<Value> = known.expired().into_iter().map(shapes::address).collect();
    if known.alive.is_none() {
        // They stand in `expiredAddresses`, and would be here twice.
        object.insert("addresses".to_owned(), json!([]));
        object.insert("confidence".to_owned(), Value::Null);
    }
    object.insert("expired".to_owned(), known.alive.is_none().into());
    object.insert("expiredAddresses".to_owned(), expired.into());
    object.insert("firstProven".to_owned(), known.line.first_proven.into());
    object.insert(
        "unreadableAddresses".to_owned(),
        known.line.unreadable.len().into(),
    );
    object.insert("undecodable".to_owned(), json!(known.undecodable));
    Value::Object(object)
}

fn in_words(known: &Known, out: &mut Out) -> Result<(), Failure> {
    let now = SystemTime::now();
    let title = out.styled(BOLD, &known.id.to_string());
    out.line(&title)?;
    out.line(&format!("  in keys       {}", tool::b32(&known.id)))?;
    if known.alive.is_none() {
        out.line("  expired       a node that starts forgets this peer")?;
    }
    let Some(peer) = known.peer() else {
        out.line("  nothing of it can be decoded")?;
        return damage(known, out);
    };
    about(known, peer, now, out)?;
    addresses(known, now, out)?;
    if !peer.protocols.is_empty() {
        section(out, &format!("Protocols ({})", peer.protocols.len()))?;
        let mut names: Vec<&str> = peer.protocols.iter().map(AsRef::as_ref).collect();
        names.sort_unstable();
        for name in names {
            out.line(&format!("  {}", tool::escaped(name)))?;
        }
    }
    let of_identify = |name: &str| name == AGENT_VERSION || name == PROTOCOL_VERSION;
    let metadata = peer.metadata.iter();
    let metadata: Vec<_> = metadata.filter(|(name, _)| !of_identify(name)).collect();
    if !metadata.is_empty() {
        section(out, &format!("Metadata ({})", metadata.len()))?;
        for (name, value) in metadata {
            out.line(&format!("  {}: {}", tool::escaped(name), text(value)))?;
        }
    }
    damage(known, out)
}

fn about(known: &Known, peer: &Peer, now: SystemTime, out: &mut Out) -> Result<(), Failure> {
    for (title, name) in [("software", AGENT_VERSION), ("protocol", PROTOCOL_VERSION)] {
        if let Some(value) = peer.metadata.get(name) {
            out.line(&format!("  {title:<13} {}", text(value)))?;
        }
    }
    out.line(&format!(
        "  last heard of {}",
        words::ago(peer.last_seen, now)
    ))?;
    if let Some(at) = known.line.first_proven {
        let at = UNIX_EPOCH
            .checked_add(Duration::from_secs(at))
            .unwrap_or(now);
        out.line(&format!("  first reached {}", words::ago(at, now)))?;
    }
    if let Some(latency) = peer.latency {
        out.line(&format!("  latency       {}", words::latency(latency)))?;
    }
    let key = match &peer.public_key {
        Some(key) => key.key_type().to_string(),
        None => "not known".to_owned(),
    };
    out.line(&format!("  public key    {key}"))?;
    if let Some(record) = &peer.signed_record {
        let format = match record.format {
            RecordFormat::Interop => "as go-libp2p and js-libp2p sign",
            _ => "as rust-libp2p alone signs",
        };
        let seq = record.seq;
        out.line(&format!("  signed record number {seq}, {format}"))?;
    }
    for (name, tag) in &peer.tags {
        let until = match tag.expires.map(|at| at.duration_since(now)) {
            Some(Ok(rest)) => format!(" for {} more", words::span(rest)),
            _ => String::new(),
        };
        let (name, value) = (tool::escaped(name), tag.value);
        out.line(&format!("  tag           {name}: {value}{until}"))?;
    }
    Ok(())
}

fn addresses(known: &Known, now: SystemTime, out: &mut Out) -> Result<(), Failure> {
    let alive = known.alive.iter().flat_map(|peer| &peer.addresses);
    let alive: Vec<_> = alive.collect();
    if !alive.is_empty() {
        section(out, &format!("Addresses, best first ({})", alive.len()))?;
    }
    for info in alive {
        let address = tool::escaped(&info.address.to_string());
        let address = out.styled(by_confidence(info.confidence), &address);
        out.line(&format!("  {address}"))?;
        for line in words::of_address(info, now) {
            out.line(&format!("      {line}"))?;
        }
    }
    let expired = known.expired();
    if !expired.is_empty() {
        let count = expired.len();
        section(out, &format!("Expired, still in the datastore ({count})"))?;
    }
    for info in expired {
        let address = tool::escaped(&info.address.to_string());
        let (standing, heard) = (words::standing(info.standing), info.last_heard);
        let heard = words::ago(heard, now);
        out.line(&format!("  {address} ({standing}, last heard of {heard})"))?;
    }
    Ok(())
}

/// What a node would skip.
fn damage(known: &Known, out: &mut Out) -> Result<(), Failure> {
    let unreadable = known.line.unreadable.len();
    if unreadable > 0 {
        let count = words::count(unreadable, "address", "addresses");
        let text = format!("{count} of a kind that this version does not know; kept as they are");
        out.line(&format!("  {}", out.styled(DIM, &text)))?;
    }
    if !known.undecodable.is_empty() {
        section(out, "Cannot be decoded")?;
        for (key, reason) in &known.undecodable {
            out.line(&format!("  {}: {reason}", tool::escaped(key)))?;
        }
    }
    Ok(())
}

fn section(out: &mut Out, title: &str) -> Result<(), Failure> {
    let title = out.styled(BOLD, title);
    out.line("")?;
    out.line(&title)
}

/// Bytes as text where they are, else as hexadecimal digits; cut where they are many.
fn text(value: &[u8]) -> String {
    let whole = match str::from_utf8(value) {
        Ok(text) => tool::escaped(text),
        Err(_) => format!("0x{}", tool::hex(value)),
    };
    if value.is_empty() {
        return "(empty)".to_owned();
    }
    match whole.char_indices().nth(MOST_TEXT) {
        Some((at, _)) => format!("{}… ({} bytes)", &whole[..at], value.len()),
        None => whole,
    }
}
