//! `peerstore stats`: counts, and small histograms.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::ControlFlow,
    time::SystemTime,
};

use libp2p_core::{Multiaddr, multiaddr::Protocol};
use libp2p_peerstore::{LoadReport, Peer, tool};
use serde_json::{Value, json};

use crate::{
    args::Stats,
    failure::{Failure, Outcome},
    json as shapes,
    load::Loaded,
    out::{BOLD, Out},
    table::cut,
    target::Target,
    words,
};

const BUCKETS: usize = 10;

/// Upper ends of the ages that are told apart, in seconds.
const AGES: [(&str, u64); 7] = [
    ("up to 10 min", 600),
    ("up to 1 h", 3_600),
    ("up to 6 h", 6 * 3_600),
    ("up to 1 d", 24 * 3_600),
    ("up to 3 d", 3 * 24 * 3_600),
    ("up to 14 d", 14 * 24 * 3_600),
    ("older", u64::MAX),
];

/// Names of software that are told apart; a stranger can make up any number.
const MOST_NAMES: usize = 100_000;

#[derive(Default)]
struct Counts {
    peers: usize,
    addresses: usize,
    without_addresses: usize,
    public: usize,
    tagged: usize,
    signed: usize,
    with_latency: usize,
    key_types: BTreeMap<String, usize>,
    standings: BTreeMap<&'static str, usize>,
    transports: HashMap<String, usize>,
    protocols: HashMap<String, usize>,
    agents: HashMap<String, usize>,
    groups: HashMap<String, usize>,
    confidence: [usize; BUCKETS],
    ages: [usize; AGES.len()],
}

impl Counts {
    fn add(&mut self, peer: &Peer, now: SystemTime) {
        self.peers += 1;
        self.addresses += peer.addresses.len();
        self.without_addresses += usize::from(peer.addresses.is_empty());
        self.tagged += usize::from(!peer.tags.is_empty());
        self.signed += usize::from(peer.signed_record.is_some());
        self.with_latency += usize::from(peer.latency.is_some());
        let is_public = |address: &Multiaddr| libp2p_peerstore::public_only(&peer.id, address);
        self.public += usize::from(peer.multiaddrs().any(is_public));
        let key = peer
            .public_key
            .as_ref()
            .map(|key| key.key_type().to_string());
        *self
            .key_types
            .entry(key.map_or_else(|| "not known".to_owned(), |key| key.to_lowercase()))
            .or_default() += 1;
        for info in &peer.addresses {
            *self
                .standings
                .entry(shapes::standing(info.standing))
                .or_default() += 1;
        }
        let transports: BTreeSet<String> = peer.multiaddrs().map(transport).collect();
        add_each(&mut self.transports, transports);
        let groups: BTreeSet<String> = peer.multiaddrs().filter_map(tool::address_group).collect();
        add_each(&mut self.groups, groups);
        add_each(
            &mut self.protocols,
            peer.protocols.iter().map(|name| name.as_ref().to_owned()),
        );
        let agent = peer.agent_version();
        add_each(
            &mut self.agents,
            [agent.map_or_else(|| "not known".to_owned(), |agent| software(&agent))],
        );
        if let Some(confidence) = peer.confidence() {
            // By the two digits that `ls` shows.
            let bucket = (confidence * 100.0).round() as usize * BUCKETS / 100;
            self.confidence[bucket.min(BUCKETS - 1)] += 1;
        }
        let age = words::since(peer.last_seen, now).as_secs();
        let bucket = AGES.iter().position(|(_, end)| age <= *end);
        self.ages[bucket.unwrap_or(AGES.len() - 1)] += 1;
    }
}

fn add_each(counts: &mut HashMap<String, usize>, names: impl IntoIterator<Item = String>) {
    for name in names {
        if counts.len() >= MOST_NAMES && !counts.contains_key(&name) {
            *counts.entry("(others)".to_owned()).or_default() += 1;
        } else {
            *counts.entry(name).or_default() += 1;
        }
    }
}

/// How one connects to an address, in the names that addresses use.
fn transport(address: &Multiaddr) -> String {
    let mut names = Vec::new();
    for part in address.iter() {
        match part {
            Protocol::P2pCircuit => return "p2p-circuit".to_owned(),
            Protocol::Ip4(_)
            | Protocol::Ip6(_)
            | Protocol::Ip6zone(_)
            | Protocol::Dns(_)
            | Protocol::Dns4(_)
            | Protocol::Dns6(_)
            | Protocol::P2p(_)
            | Protocol::Certhash(_)
            | Protocol::Sni(_)
            | Protocol::HttpPath(_) => {}
            other => names.push(other.tag()),
        }
    }
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join("/"),
    }
}

/// Name and version of a software without what follows: `kubo/0.36.0/abc123` is `kubo/0.36.0`.
fn software(agent: &str) -> String {
    let mut parts = agent.splitn(3, '/');
    let name = parts.next().unwrap_or_default();
    match parts.next() {
        Some(version) => format!("{name}/{version}"),
        None => name.to_owned(),
    }
}

pub async fn run(args: Stats, out: &mut Out) -> Result<Outcome, Failure> {
    let target = Target::named(&args.store)?;
    let loaded = Loaded::open(&target, args.filter.see()).await?;
    let report = loaded.report();
    let store = loaded.release().await;
    let now = SystemTime::now();
    let mut counts = Counts::default();
    args.filter.query(&store).for_each(|peer| {
        counts.add(peer, now);
        ControlFlow::<()>::Continue(())
    });
    if out.json {
        out.json(&as_json(&counts, &report, args.top))?;
    } else {
        in_words(&counts, &report, args.top, &target, out)?;
    }
    Ok(Outcome::Done)
}

/// The largest first, of equal ones by name.
fn sorted(counts: &HashMap<String, usize>) -> Vec<(&str, usize)> {
    let mut sorted: Vec<_> = counts.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    sorted.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    sorted
}

fn as_json(counts: &Counts, report: &LoadReport, top: usize) -> Value {
    let list = |counts: &HashMap<String, usize>| {
        let all = sorted(counts).into_iter();
        let top = all.take(top);
        let top: Vec<Value> = top
            .map(|(name, peers)| json!({ "name": name, "peers": peers }))
            .collect();
        json!({ "distinct": counts.len(), "top": top })
    };
    let bucket = |(at, peers): (usize, &usize)| {
        let (from, to) = (at as f64 / 10.0, (at + 1) as f64 / 10.0);
        json!({ "from": from, "to": to, "peers": peers })
    };
    let confidence: Vec<Value> = counts.confidence.iter().enumerate().map(bucket).collect();
    let ages = AGES.iter().zip(&counts.ages).map(|((_, end), peers)| {
        let end = (*end < u64::MAX).then_some(end);
        json!({ "upTo": end, "peers": peers })
    });
    json!({
        "peers": counts.peers,
        "addresses": counts.addresses,
        "withoutAddresses": counts.without_addresses,
        "withPublicAddress": counts.public,
        "tagged": counts.tagged,
        "withSignedRecord": counts.signed,
        "withLatency": counts.with_latency,
        "keyTypes": counts.key_types,
        "standings": counts.standings,
        "transports": list(&counts.transports),
        "protocols": list(&counts.protocols),
        "agents": list(&counts.agents),
        "groups": list(&counts.groups),
        "confidence": confidence,
        "ages": ages.collect::<Vec<_>>(),
        "store": {
            "entries": report.entries,
            "peers": report.peers,
            "expired": report.expired,
            "undecodable": report.undecodable,
            "foreign": report.foreign,
            "unreadableAddresses": report.unreadable_addresses,
        },
    })
}

fn in_words(
    counts: &Counts,
    report: &LoadReport,
    top: usize,
    target: &Target,
    out: &mut Out,
) -> Result<(), Failure> {
    let title = out.styled(BOLD, &target.to_string());
    out.line(&title)?;
    let mean = counts.addresses as f64 / counts.peers.max(1) as f64;
    for (title, text) in [
        ("peers", counts.peers.to_string()),
        ("expired peers", report.expired.to_string()),
        (
            "addresses",
            format!("{} ({mean:.1} for each peer)", counts.addresses),
        ),
        ("public address", counts.public.to_string()),
        ("no address", counts.without_addresses.to_string()),
        ("tagged", counts.tagged.to_string()),
        ("signed record", counts.signed.to_string()),
        ("latency known", counts.with_latency.to_string()),
        ("entries", report.entries.to_string()),
        ("undecodable", report.undecodable.to_string()),
        ("foreign", report.foreign.to_string()),
    ] {
        out.line(&format!("  {title:<15} {text}"))?;
    }
    let list = |counts: &HashMap<String, usize>| {
        let mut rows: Vec<(String, usize)> = Vec::new();
        let all = sorted(counts);
        rows.extend(
            all.iter()
                .take(top)
                .map(|(name, n)| (tool::escaped(name), *n)),
        );
        let rest = all.len().saturating_sub(top);
        (rows, rest)
    };
    let fixed = |rows: Vec<(String, usize)>| (rows, 0);
    let standings = counts.standings.iter();
    let standings = standings
        .map(|(name, n)| (name.replace('_', "-"), *n))
        .collect();
    let bucket =
        |(at, n): (usize, &usize)| (format!("0.{at} to {:.1}", (at + 1) as f64 / 10.0), *n);
    let confidence = counts.confidence.iter().enumerate().map(bucket).collect();
    let ages = AGES.iter().zip(&counts.ages);
    let ages = ages
        .map(|((name, _), n)| ((*name).to_owned(), *n))
        .collect();
    let keys = counts.key_types.iter().map(|(name, n)| (name.clone(), *n));
    for (title, (rows, rest)) in [
        ("Last heard of (peers)", fixed(ages)),
        ("Confidence of the best address (peers)", fixed(confidence)),
        ("Standing (addresses)", fixed(standings)),
        ("Transports (peers)", list(&counts.transports)),
        ("Protocols (peers)", list(&counts.protocols)),
        ("Software (peers)", list(&counts.agents)),
        ("Address groups (peers)", list(&counts.groups)),
        ("Keys (peers)", fixed(keys.collect())),
    ] {
        histogram(title, &rows, rest, out)?;
    }
    Ok(())
}

fn histogram(
    title: &str,
    rows: &[(String, usize)],
    rest: usize,
    out: &mut Out,
) -> Result<(), Failure> {
    const LABEL: usize = 34;
    const NUMBER: usize = 8;
    if rows.iter().all(|(_, n)| *n == 0) {
        return Ok(());
    }
    let title = out.styled(BOLD, title);
    out.line("")?;
    out.line(&title)?;
    // Without a width nothing is cut, and names that are too long push the rest aside.
    let is_cut = out.width;
    let cut = |text: &str, width| match is_cut {
        Some(_) => cut(text, width),
        None => text.to_owned(),
    };
    let width = out.width.unwrap_or(80);
    let label = LABEL.min(width.saturating_sub(NUMBER + 3)).max(1);
    let room = width.saturating_sub(label + NUMBER + 5).min(40);
    let most = rows.iter().map(|(_, n)| *n).max().unwrap_or(1).max(1);
    for (name, n) in rows {
        let name = cut(name, label);
        let padding =
            " ".repeat(label.saturating_sub(unicode_width::UnicodeWidthStr::width(&*name)));
        let bar = "█".repeat((n * room).div_ceil(most).min(room));
        let row = format!("  {name}{padding} {n:>NUMBER$}  {bar}");
        out.line(&cut(row.trim_end(), width))?;
    }
    if rest > 0 {
        out.line(&cut(&format!("  and {rest} more"), width))?;
    }
    Ok(())
}
