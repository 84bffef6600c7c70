//! `peerstore ls`: a table of peers.

use std::time::SystemTime;

use libp2p_peerstore::{LoadReport, Order, Peer, PeerStore, Query, tool};
use serde_json::Value;

use crate::{
    args::{Filter, Ls, Sort},
    failure::{Failure, Outcome},
    json,
    load::{Loaded, See},
    out::{BOLD, Out, by_confidence},
    table::{Column, Table},
    target::Target,
    words,
};

/// Long enough to be the end of one peer's id alone, in any store.
const SHORT_ID: usize = 11;
/// An id of an Ed25519 key, which nearly all have.
const WHOLE_ID: usize = 52;
/// From this width on ids are shown whole.
const WIDE: usize = 150;

const CONFIDENCE: usize = 1;

impl Filter {
    pub fn see(&self) -> See {
        match self.expired {
            true => See::Everything,
            false => See::Alive,
        }
    }

    /// The question that the flags ask.
    pub fn query<'a>(&self, store: &'a PeerStore) -> Query<'a> {
        let mut query = store.query();
        for protocol in &self.protocol {
            query = query.speaks(protocol);
        }
        for transport in &self.transport {
            query = query.transport(transport);
        }
        for tag in &self.tag {
            query = query.tagged(tag);
        }
        if let Some(agent) = &self.agent {
            query = query.agent(agent.as_bytes());
        }
        if let Some(within) = self.seen_within {
            query = query.seen_within(within);
        }
        if let Some(confidence) = self.min_confidence {
            query = query.min_confidence(confidence);
        }
        if self.public {
            query = query.with_public_address();
        }
        query
    }
}

pub async fn run(args: Ls, out: &mut Out) -> Result<Outcome, Failure> {
    let target = Target::named(&args.store)?;
    let loaded = Loaded::open(&target, args.filter.see()).await?;
    let alive = match args.filter.expired {
        true => Some(loaded.again(&target, See::Alive).await?),
        false => None,
    };
    let report = loaded.report();
    let store = loaded.release().await;
    let mut query = args.filter.query(&store).offset(args.offset);
    if let Some(limit) = args.limit {
        query = query.limit(limit);
    }
    let order = match (&args.near, args.sort) {
        (Some(near), _) => Some(match tool::peer_id(near) {
            Some(peer) => Order::distance_to_peer(&peer),
            None => Order::distance_to(near),
        }),
        (None, Sort::LastSeen) => Some(Order::LastSeen),
        (None, Sort::Confidence) => Some(Order::Confidence),
        (None, Sort::Latency) => Some(Order::Latency),
        (None, Sort::None) => None,
    };
    if let Some(order) = order {
        query = query.order_by(order);
    }
    let now = SystemTime::now();
    let table = Table::new(&columns(out.width), out.width);
    if !out.json && !args.ids {
        let titles = table.titles();
        let titles = out.styled(BOLD, &titles);
        out.line(&titles)?;
    }
    let mut shown = 0;
    for peer in query {
        shown += 1;
        let expired = alive.as_ref().map(|alive| !alive.contains(&peer.id));
        if args.ids {
            out.line(&peer.id.to_string())?;
        } else if out.json {
            let mut object = json::peer(&peer);
            if let Some(expired) = expired {
                object.insert("expired".to_owned(), expired.into());
            }
            out.json(&Value::Object(object))?;
        } else {
            let row = row(&table, &peer, expired == Some(true), now, out);
            out.line(&row)?;
        }
    }
    remarks(&args, &target, &report, shown, out)?;
    Ok(Outcome::Done)
}

fn columns(width: Option<usize>) -> Vec<Column> {
    let id = match width {
        Some(width) if width < WIDE => SHORT_ID,
        _ => WHOLE_ID,
    };
    vec![
        Column {
            keep_end: true,
            ..Column::left("PEER", id)
        },
        Column::right("CONF", 4),
        Column::right("SEEN", 4),
        Column::right("LATENCY", 7),
        Column::right("ADDRS", 5),
        Column::left("SOFTWARE", 16),
        Column::left("BEST ADDRESS", 20),
    ]
}

fn row(table: &Table, peer: &Peer, expired: bool, now: SystemTime, out: &Out) -> String {
    let confidence = peer.confidence();
    let shown = |number: f64| format!("{number:.2}");
    let dash = || "-".to_owned();
    let seen = match expired {
        // It is what matters most about such a peer.
        true => "gone".to_owned(),
        false => words::short(words::since(peer.last_seen, now)),
    };
    let agent = peer.agent_version();
    let best = peer.multiaddrs().next();
    let cells = [
        peer.id.to_string(),
        confidence.map_or_else(dash, shown),
        seen,
        peer.latency.map_or_else(dash, words::latency),
        peer.addresses.len().to_string(),
        agent.map_or_else(dash, |agent| tool::escaped(&agent)),
        best.map_or_else(dash, |address| tool::escaped(&address.to_string())),
    ];
    table.row(cells, |column, text| match (column, confidence) {
        (CONFIDENCE, Some(confidence)) => out.styled(by_confidence(confidence), text),
        _ => text.to_owned(),
    })
}

/// What the table does not say. On a terminal only, unless something is wrong.
fn remarks(
    args: &Ls,
    target: &Target,
    report: &LoadReport,
    shown: usize,
    out: &mut Out,
) -> Result<(), Failure> {
    if out.is_terminal {
        let of = words::count(report.peers, "peer", "peers");
        out.note(&format!("{shown} of {of}"))?;
        if report.expired > 0 && !args.filter.expired {
            let expired = words::count(report.expired, "peer has", "peers have");
            out.note(&format!("{expired} expired; --expired shows them too"))?;
        }
    }
    if report.undecodable > 0 {
        let entries = words::count(report.undecodable, "entry", "entries");
        out.note(&format!(
            "{entries} cannot be decoded and were left out; `peerstore check {target}` names them"
        ))?;
    }
    Ok(())
}
