//! The dashboard and the table of metrics say what a registry tells, and all of it.

use std::collections::{BTreeMap, BTreeSet};

use libp2p::PeerId;
use libp2p_peerstore::{Config, PeerStore};
use serde_json::Value;

use crate::{Watch, openmetrics::Scrape};

const DASHBOARD: &str = include_str!("../../docs/grafana.json");
const OPERATING: &str = include_str!("../../docs/operating.md");

fn told() -> Scrape {
    let store = PeerStore::in_memory(PeerId::random(), Config::default());
    Watch::new(&store).now()
}

/// The labels of each metric, without what Prometheus makes of histograms.
fn labels(scrape: &Scrape) -> BTreeMap<&str, BTreeSet<&str>> {
    let of = |family: &str| {
        let series = scrape.values.keys();
        let series = series.filter(move |series| family_of(scrape, &series.name) == Some(family));
        let keys = series.flat_map(|series| series.labels.iter().map(|(key, _)| key.as_str()));
        keys.filter(|key| *key != "le").collect()
    };
    let families = scrape.families.keys();
    families
        .map(|family| (family.as_str(), of(family)))
        .collect()
}

/// The metric to which a series belongs.
fn family_of<'a>(scrape: &'a Scrape, series: &str) -> Option<&'a str> {
    let is_it = |family: &&str| {
        let suffix = series.strip_prefix(*family);
        suffix.is_some_and(|suffix| ["", "_total", "_bucket", "_sum", "_count"].contains(&suffix))
    };
    scrape.families.keys().map(String::as_str).find(is_it)
}

/// Everything in the dashboard that is asked of Prometheus.
fn questions(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let asked = targets.flatten().map(|target| &target["expr"]);
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let listed = variables.iter().map(|variable| &variable["query"]["query"]);
    let all = asked.chain(listed).filter_map(Value::as_str);
    all.map(str::to_owned).collect()
}

/// The names behind the prefix in a question.
fn names(question: &str) -> Vec<&str> {
    let parts = question.split("${prefix}_").skip(1);
    let end = |part: &str| {
        let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        end.unwrap_or(part.len())
    };
    parts.map(|part| &part[..end(part)]).collect()
}

#[test]
fn every_metric_is_on_the_dashboard_and_every_name_on_it_is_a_metric() {
    let (scrape, dashboard) = (told(), serde_json::from_str::<Value>(DASHBOARD).unwrap());
    let series: BTreeSet<&str> = scrape.values.keys().map(|of| of.name.as_str()).collect();
    let mut missing: BTreeSet<&str> = scrape.families.keys().map(String::as_str).collect();
    for question in questions(&dashboard) {
        let names = names(&question);
        assert!(!names.is_empty(), "{question}");
        for name in names {
            assert!(series.contains(name), "{name} in {question}");
            missing.remove(family_of(&scrape, name).unwrap());
        }
    }
    assert_eq!(missing, BTreeSet::new(), "not on the dashboard");
}

#[test]
fn the_dashboard_sums_by_labels_that_are_there() {
    let (scrape, dashboard) = (told(), serde_json::from_str::<Value>(DASHBOARD).unwrap());
    let labels = labels(&scrape);
    let mut met = 0;
    for question in questions(&dashboard) {
        for part in question.split("by (").skip(1) {
            let (by, rest) = part.split_once(')').unwrap();
            let family = family_of(&scrape, names(rest)[0]).unwrap();
            let is_there = |label: &str| {
                label == "le" && scrape.families[family].kind == "histogram"
                    || labels[family].contains(label)
            };
            assert!(by.split(", ").all(is_there), "{question}");
            met += 1;
        }
        // Values that a question asks for by name.
        for (label, value) in [("outcome", "success"), ("outcome", "failure")] {
            if question.contains(&format!("{label}=\"{value}\"")) {
                let family = family_of(&scrape, names(&question)[0]).unwrap();
                let told = scrape.values.keys().any(|series| {
                    family_of(&scrape, &series.name) == Some(family)
                        && series
                            .labels
                            .contains(&(label.to_owned(), value.to_owned()))
                });
                assert!(told, "{question}");
            }
        }
    }
    assert!(met > 8, "{met}");
}

#[test]
fn the_dashboard_is_one_that_grafana_imports() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 36);
    assert!(
        dashboard["id"].is_null() && dashboard["uid"].is_string() && dashboard["title"].is_string()
    );
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let kinds: Vec<_> = variables
        .iter()
        .map(|variable| {
            (
                variable["name"].as_str().unwrap(),
                variable["type"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("datasource", "datasource"),
        ("prefix", "textbox"),
        ("instance", "query"),
    ];
    assert_eq!(kinds, expected);

    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let [x, y, w, h] =
            ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(w > 0 && h > 0 && x + w <= 24, "{title}");
        for cell in (y..y + h).flat_map(|y| (x..x + w).map(move |x| (x, y))) {
            assert!(cells.insert(cell), "{title} lies on another panel");
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(["timeseries", "stat", "gauge"].contains(&panel["type"].as_str().unwrap()));
        assert!(
            !panel["description"].as_str().unwrap().is_empty(),
            "{title}"
        );
        let targets = panel["targets"].as_array().unwrap();
        let mut letters = BTreeSet::new();
        for asking in targets.iter().chain([panel]) {
            assert_eq!(asking["datasource"]["uid"], "${datasource}", "{title}");
            assert_eq!(asking["datasource"]["type"], "prometheus", "{title}");
        }
        for target in targets {
            assert!(letters.insert(target["refId"].as_str().unwrap()), "{title}");
            let expr = target["expr"].as_str().unwrap();
            let [open, close] = ['(', ')'].map(|c| expr.matches(c).count());
            assert_eq!(open, close, "{expr}");
            assert!(expr.contains("instance=~\"$instance\""), "{expr}");
        }
        assert!(!letters.is_empty(), "{title}");
    }
}

#[test]
fn the_table_of_the_documentation_has_a_row_for_each_metric_with_its_type_and_labels() {
    let scrape = told();
    let rows = OPERATING.lines().filter_map(|line| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
        let kind = cells.next()?;
        let labels = cells.next()?.split(", ");
        let labels = labels.map(|label| label.trim_matches('`'));
        let labels: BTreeSet<&str> = labels.filter(|label| !label.is_empty()).collect();
        Some((name, (kind, labels)))
    });
    let rows: BTreeMap<_, _> = rows.collect();
    let labels = labels(&scrape);
    let expected: BTreeMap<_, _> = (scrape.families.iter())
        .map(|(name, family)| {
            let told = match &*family.kind {
                "counter" => format!("{name}_total"),
                _ => name.clone(),
            };
            (told, (family.kind.as_str(), labels[name.as_str()].clone()))
        })
        .collect();
    let rows: BTreeMap<_, _> = rows
        .into_iter()
        .map(|(name, row)| (name.to_owned(), row))
        .collect();
    assert_eq!(rows, expected);
}

#[test]
fn units_are_base_units_and_stand_in_the_name() {
    let scrape = told();
    let units: BTreeMap<_, _> = (scrape.families.iter())
        .filter_map(|(name, family)| Some((name.as_str(), family.unit.as_deref()?)))
        .collect();
    let expected = [
        ("commit_duration_seconds", "seconds"),
        ("commit_size_bytes", "bytes"),
        ("load_duration_seconds", "seconds"),
    ];
    assert_eq!(units, BTreeMap::from(expected));
}
