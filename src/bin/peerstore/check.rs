//! `peerstore check`: finds entries that a node could not read.

use futures::StreamExt;
use libp2p_peerstore::{Datastore, tool};
use serde_json::json;

use crate::{
    args::Check,
    failure::{Failure, Outcome},
    out::{BOLD, Out},
    progress::Progress,
    target::Target,
};

#[derive(Debug, Default)]
struct Counts {
    entries: u64,
    undecodable: u64,
    foreign: u64,
    unreadable_addresses: usize,
    unreadable_tags: usize,
    from_the_future: u64,
}

pub async fn run(args: Check, out: &mut Out) -> Result<Outcome, Failure> {
    let store = Target::named(&args.store)?;
    let datastore = store.open_to_read().await?;
    let counts = all(&store, &*datastore, out).await?;
    let _ = datastore.close().await;
    tell(&counts, out)?;
    Ok(match counts.undecodable + counts.foreign {
        0 => Outcome::Done,
        _ => Outcome::FoundProblems,
    })
}

async fn all(store: &Target, datastore: &dyn Datastore, out: &mut Out) -> Result<Counts, Failure> {
    let progress = Progress::counting("checking", "entries");
    let mut counts = Counts::default();
    let mut last = String::new();
    let mut entries = datastore.query(tool::ROOT);
    while let Some(entry) = entries.next().await {
        let (key, value) = entry.map_err(|error| {
            let what = match last.is_empty() {
                true => "cannot read the keys under `/peers/`".to_owned(),
                false => format!("cannot read on after `{}`", tool::escaped(&last)),
            };
            Failure::of_store(what, store, &error)
        })?;
        counts.entries += 1;
        progress.set(counts.entries);
        let Some((peer, book)) = tool::parse_key(&key) else {
            counts.foreign += 1;
            let reason = "the key is not one of a peer store: another layout, or another spelling of a peer id";
            problem("foreign", &key, reason, value.len(), out)?;
            last = key;
            continue;
        };
        let inspected = tool::inspect(&peer, &book, &value);
        if let Some(reason) = &inspected.undecodable {
            counts.undecodable += 1;
            problem("undecodable", &key, reason, value.len(), out)?;
        }
        counts.unreadable_addresses += inspected.unreadable_addresses;
        counts.unreadable_tags += inspected.unreadable_tags;
        counts.from_the_future += u64::from(inspected.from_the_future);
        last = key;
    }
    Ok(counts)
}

fn problem(
    kind: &str,
    key: &str,
    reason: &str,
    bytes: usize,
    out: &mut Out,
) -> Result<(), Failure> {
    if out.json {
        return out.json(&json!({
            "problem": kind,
            "key": key,
            "reason": reason,
            "bytes": bytes,
        }));
    }
    let kind = out.styled(BOLD, kind);
    out.line(&format!(
        "{kind} {}: {reason} ({bytes} bytes)",
        tool::escaped(key)
    ))
}

fn tell(counts: &Counts, out: &mut Out) -> Result<(), Failure> {
    let Counts {
        entries,
        undecodable,
        foreign,
        unreadable_addresses,
        unreadable_tags,
        from_the_future,
    } = counts;
    if out.json {
        return out.json(&json!({
            "entries": entries,
            "undecodable": undecodable,
            "foreign": foreign,
            "unreadableAddresses": unreadable_addresses,
            "unreadableTags": unreadable_tags,
            "fromTheFuture": from_the_future,
        }));
    }
    out.line(&format!(
        "{entries} entries: {undecodable} undecodable, {foreign} foreign"
    ))?;
    for (count, what) in [
        (
            *unreadable_addresses as u64,
            "addresses are of a kind that this version does not know; they are kept as they are",
        ),
        (
            *unreadable_tags as u64,
            "tags cannot be decoded; the next write of their peers drops them",
        ),
        (
            *from_the_future,
            "entries speak of the future: a clock was wrong; they count as of now",
        ),
    ] {
        if count > 0 {
            out.line(&format!("{count} {what}"))?;
        }
    }
    if undecodable + foreign > 0 {
        out.line(
            "A node skips these entries and leaves them where they are. What cannot be decoded goes when its peer is written \
             or deleted (`peerstore rm`).",
        )?;
    }
    Ok(())
}
