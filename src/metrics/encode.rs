//! One scrape: a copy of all numbers under one hold of the lock, then text.

use std::fmt::Error;

use prometheus_client::{
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, EncodeMetric,
    },
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, histogram::Histogram},
    registry::Unit,
};

use super::{
    Counts, Happened, Standings,
    meter::{Dialled, Meter, Rank},
    names::{self, CAUSES, CLASSES, STANDINGS},
};
use crate::{
    inner::{Inner, PAGE},
    refusal::{Refusals, Refused},
    seat::List,
    state::State,
};

/// All that stands under the store's lock, of one moment.
struct Numbers {
    peers: [usize; CLASSES.len()],
    connected: usize,
    standings: Standings,
    dirty: usize,
    committing: usize,
    counts: Counts,
    missed: u64,
    refusals: Refusals,
}

impl Numbers {
    fn of(state: &State) -> Self {
        let in_class = |(class, _)| {
            let lists = List::ALL.into_iter();
            let lists = lists.filter(|list| list.class() == class);
            lists.map(|list| state.table.count(list)).sum()
        };
        Self {
            peers: CLASSES.map(in_class),
            connected: state.connected_peers().len(),
            standings: *state.table.standings(),
            dirty: state.pending.dirty(),
            committing: state.pending.committing(),
            counts: state.counts.clone(),
            missed: state.bus.missed(),
            refusals: state.refusals(),
        }
    }
}

pub(super) fn encode(store: &Inner, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
    // What has expired does not count; a few at a time, so that nobody waits for long.
    while store.with(|state, now| state.collect(PAGE, now)) {}
    let numbers = store.read(|state, _| Numbers::of(state));
    let mut out = Out(encoder);
    peers(&mut out, &numbers, store.config().max_peers().get())?;
    changes(&mut out, &numbers)?;
    dials(&mut out, store.meter())?;
    saving(&mut out, &numbers, store.meter())
}

fn peers(out: &mut Out<'_>, numbers: &Numbers, max: usize) -> Result<(), Error> {
    let classes = CLASSES.iter().zip(numbers.peers);
    out.gauges(
        "peers",
        "Peers that the store knows, by what they are worth to it: each counts once, for the best that holds",
        classes.map(|((_, name), count)| ([("state", *name)], count as u64)),
    )?;
    out.gauge(
        "max_peers",
        "Peers that the store holds at most",
        max as u64,
    )?;
    out.gauge(
        "connected_peers",
        "Peers to which the swarm has a connection, known to the store or not",
        numbers.connected as u64,
    )?;
    out.gauges(
        "addresses",
        "Addresses of all peers, by standing",
        STANDINGS.map(|(standing, name)| ([("standing", name)], numbers.standings.get(standing))),
    )
}

fn changes(out: &mut Out<'_>, numbers: &Numbers) -> Result<(), Error> {
    let events = Happened::ALL.into_iter().flat_map(|what| {
        CAUSES.map(|(cause, name)| {
            let labels = [("event", names::of_event(what)), ("cause", name)];
            (labels, numbers.counts.get(what, cause))
        })
    });
    out.counters(
        "events",
        "Changes of what the store knows, whether anybody is subscribed to them or not",
        events,
    )?;
    out.counter(
        "missed_events",
        "Events that were lost to subscribers that did not keep up",
        numbers.missed,
    )?;
    let refusals = Refused::ALL.iter().map(|reason| {
        let labels = [("reason", names::of_reason(*reason))];
        (labels, numbers.refusals.get(*reason))
    });
    out.counters(
        "refusals",
        "What the store did not take, by reason",
        refusals,
    )
}

fn dials(out: &mut Out<'_>, meter: &Meter) -> Result<(), Error> {
    let dials = Dialled::ALL.into_iter().flat_map(|outcome| {
        Rank::ALL.map(|rank| {
            let labels = [
                ("outcome", names::of_outcome(outcome)),
                ("rank", names::of_rank(rank)),
            ];
            (labels, meter.dials(outcome, rank))
        })
    });
    out.counters(
        "dials",
        "Addresses that were dialled, by what came of it and by their place among those that the store offered",
        dials,
    )
}

fn saving(out: &mut Out<'_>, numbers: &Numbers, meter: &Meter) -> Result<(), Error> {
    out.gauge(
        "dirty_peers",
        "Peers with changes that wait for a commit",
        numbers.dirty as u64,
    )?;
    out.gauge(
        "committing_peers",
        "Peers in the commit that is under way",
        numbers.committing as u64,
    )?;
    let (succeeded, failed) = meter.commits();
    out.counters(
        "commits",
        "Commits to the datastore, by what came of them",
        [
            ([("outcome", "success")], succeeded),
            ([("outcome", "failure")], failed),
        ],
    )?;
    out.counter(
        "committed_peers",
        "Peers in commits that succeeded",
        meter.committed_peers(),
    )?;
    out.histogram(
        "commit_duration",
        "How long a commit took, failed ones included",
        &Unit::Seconds,
        &meter.commit_duration,
    )?;
    out.histogram(
        "commit_size",
        "Keys and values in one commit",
        &Unit::Bytes,
        &meter.commit_size,
    )?;
    out.one(
        "load_duration",
        "How long reading the datastore took when the store was opened",
        Some(&Unit::Seconds),
        &ConstGauge::new(meter.load_duration().as_secs_f64()),
    )
}

/// Writes metrics one after the other.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn one(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        metric: &impl EncodeMetric,
    ) -> Result<(), Error> {
        let help = format!("{help}.");
        let encoder = self
            .0
            .encode_descriptor(name, &help, unit, metric.metric_type())?;
        metric.encode(encoder)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        self.one(name, help, None, &ConstGauge::new(value))
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        self.one(name, help, None, &ConstCounter::new(value))
    }

    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        unit: &Unit,
        histogram: &Histogram,
    ) -> Result<(), Error> {
        self.one(name, help, Some(unit), histogram)
    }

    fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (L, V)>,
    ) -> Result<(), Error> {
        let series = series.into_iter();
        let series = series.map(|(labels, value)| (labels, ConstGauge::new(value)));
        self.family(name, help, MetricType::Gauge, series)
    }

    fn counters<L: EncodeLabelSet, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (L, V)>,
    ) -> Result<(), Error> {
        let series = series.into_iter();
        let series = series.map(|(labels, value)| (labels, ConstCounter::new(value)));
        self.family(name, help, MetricType::Counter, series)
    }

    fn family(
        &mut self,
        name: &str,
        help: &str,
        metric_type: MetricType,
        series: impl Iterator<Item = (impl EncodeLabelSet, impl EncodeMetric)>,
    ) -> Result<(), Error> {
        let help = format!("{help}.");
        let mut encoder = self.0.encode_descriptor(name, &help, None, metric_type)?;
        for (labels, metric) in series {
            metric.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
