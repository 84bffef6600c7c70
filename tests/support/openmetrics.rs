//! Reading what a registry tells, as strictly as OpenMetrics is written down.

use std::{collections::BTreeMap, mem};

use prometheus_client::{encoding::text::encode, registry::Registry};

/// One metric: all series of a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    pub kind: String,
    pub help: String,
    pub unit: Option<String>,
}

/// A metric with its labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// As Prometheus calls it, with `_total`, `_bucket`, `_sum` and `_count`.
    pub name: String,
    pub labels: Vec<(String, String)>,
}

impl Series {
    fn shown(&self) -> String {
        let labels = self.labels.iter();
        let labels: Vec<_> = labels
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        match labels.is_empty() {
            true => self.name.clone(),
            false => format!("{}{{{}}}", self.name, labels.join(",")),
        }
    }
}

/// All that one scrape told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scrape {
    pub families: BTreeMap<String, Family>,
    pub values: BTreeMap<Series, f64>,
}

impl Scrape {
    pub fn of(registry: &Registry) -> Self {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        Self::parse(&text)
    }

    /// Panics where the text is not OpenMetrics.
    pub fn parse(text: &str) -> Self {
        let text = text.strip_suffix("# EOF\n").expect("it has an end");
        let mut scrape = Self::default();
        let mut family = String::new();
        for line in text.lines() {
            match line.strip_prefix("# ") {
                Some(line) => scrape.describe(line, &mut family),
                None => scrape.sample(line, &family),
            }
        }
        scrape.check_histograms();
        scrape
    }

    fn describe(&mut self, line: &str, family: &mut String) {
        let (what, rest) = line.split_once(' ').unwrap();
        let (name, text) = rest.split_once(' ').unwrap();
        assert!(is_name(name), "{line}");
        match what {
            "HELP" => {
                assert!(text.ends_with('.') && !text.contains(['\\', '"']), "{line}");
                *family = name.to_owned();
                let new = Family {
                    kind: String::new(),
                    help: text.to_owned(),
                    unit: None,
                };
                let before = self.families.insert(name.to_owned(), new);
                assert_eq!(before, None, "{name} twice");
            }
            "TYPE" => {
                assert!(["gauge", "counter", "histogram"].contains(&text), "{line}");
                let described = self.families.get_mut(name).unwrap();
                let before = mem::replace(&mut described.kind, text.to_owned());
                assert_eq!(before, "", "{line}");
            }
            "UNIT" => {
                assert!(name.ends_with(&format!("_{text}")), "{line}");
                self.families.get_mut(name).unwrap().unit = Some(text.to_owned());
            }
            _ => panic!("what is {line}"),
        }
    }

    fn sample(&mut self, line: &str, family: &str) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let series = match series.split_once('{') {
            Some((name, labels)) => Series {
                name: name.to_owned(),
                labels: parse_labels(labels.strip_suffix('}').unwrap()),
            },
            None => Series {
                name: series.to_owned(),
                labels: Vec::new(),
            },
        };
        let suffix = series.name.strip_prefix(family).expect("of its family");
        let allowed: &[&str] = match &*self.families[family].kind {
            "gauge" => &[""],
            "counter" => &["_total"],
            _ => &["_bucket", "_sum", "_count"],
        };
        assert!(allowed.contains(&suffix), "{line}");
        let value: f64 = value.parse().unwrap();
        assert!(value >= 0.0, "{line}");
        let before = self.values.insert(series, value);
        assert_eq!(before, None, "{line} twice");
    }

    fn check_histograms(&self) {
        let histograms = self
            .families
            .iter()
            .filter(|(_, of)| of.kind == "histogram");
        for (name, _) in histograms {
            let bucket = format!("{name}_bucket");
            let mut buckets: Vec<(f64, f64)> = (self.values.iter())
                .filter(|(series, _)| series.name == bucket)
                .map(|(series, count)| (series.labels.last().unwrap().1.parse().unwrap(), *count))
                .collect();
            buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
            assert!(buckets.is_sorted_by_key(|(_, count)| *count), "{buckets:?}");
            let (end, all) = *buckets.last().unwrap();
            assert_eq!(
                (end, all),
                (f64::INFINITY, self.get(&format!("{name}_count")))
            );
        }
    }

    /// The value of a series, written as in [`moved`]; 0 when there is none.
    pub fn get(&self, shown: &str) -> f64 {
        let found = self
            .values
            .iter()
            .find(|(series, _)| series.shown() == shown);
        found.map_or(0.0, |(_, value)| *value)
    }

    /// All series of a name together.
    pub fn sum(&self, name: &str) -> f64 {
        let values = self.values.iter().filter(|(series, _)| series.name == name);
        values.map(|(_, value)| value).sum()
    }
}

/// What is different between two scrapes, like `peers{state=proven} +1`. Buckets are left out: their sum says it.
pub fn moved(before: &Scrape, after: &Scrape) -> Vec<String> {
    let series = |scrape: &Scrape| scrape.values.keys().cloned().collect::<Vec<_>>();
    assert_eq!(series(before), series(after), "series come or go");
    let moved = after.values.iter().filter_map(|(series, now)| {
        let by = now - before.values[series];
        let is_told = by != 0.0 && !series.name.ends_with("_bucket");
        is_told.then(|| format!("{} {by:+}", series.shown()))
    });
    moved.collect()
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_lowercase())
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !name.contains("__")
        && !name.ends_with('_')
}

/// `a="x",b="y"`, where a value may hold `\\`, `\"` and `\n`.
fn parse_labels(text: &str) -> Vec<(String, String)> {
    let mut labels: Vec<(String, String)> = Vec::new();
    let mut rest = text;
    loop {
        let (key, after) = rest.split_once("=\"").unwrap();
        assert!(is_name(key), "{text}");
        assert!(labels.iter().all(|(other, _)| other != key), "{text}");
        let (mut value, mut chars) = (String::new(), after.char_indices());
        let end = loop {
            match chars.next().expect("an end of the value") {
                (at, '"') => break at,
                (_, '\\') => match chars.next().unwrap().1 {
                    'n' => value.push('\n'),
                    c @ ('\\' | '"') => value.push(c),
                    c => panic!("\\{c} in {text}"),
                },
                (_, c) => value.push(c),
            }
        };
        labels.push((key.to_owned(), value));
        match &after[end + 1..] {
            "" => return labels,
            more => rest = more.strip_prefix(',').unwrap(),
        }
    }
}
