//! What the store knows, in words.

use std::time::{Duration, SystemTime};

use libp2p_peerstore::{AddressInfo, Sources, Standing};

use crate::json;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// What an address keeps of the past at least: earlier times count as this.
const OLDEST: Duration = Duration::from_secs(24 * DAY - HOUR);

/// A time span in one unit, for a column: `12s`, `5m`, `3h`, `2d`.
pub fn short(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..MINUTE => format!("{seconds}s"),
        MINUTE..HOUR => format!("{}m", seconds / MINUTE),
        HOUR..DAY => format!("{}h", seconds / HOUR),
        _ => format!("{}d", seconds / DAY),
    }
}

/// The same for a sentence: `12 s`, `5 min`, `3 h`, `2 d`.
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => format!("{} min", seconds / MINUTE),
        HOUR..DAY => format!("{} h", seconds / HOUR),
        _ => format!("{} d", seconds / DAY),
    }
}

pub fn since(at: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(at).unwrap_or_default()
}

pub fn ago(at: SystemTime, now: SystemTime) -> String {
    format!("{} ago", span(since(at, now)))
}

pub fn latency(latency: Duration) -> String {
    match latency.as_micros() {
        micros @ 0..10_000 => format!("{:.1}ms", micros as f64 / 1_000.0),
        micros => format!("{}ms", micros / 1_000),
    }
}

/// A number with its noun.
pub fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// What is known of an address, a sentence in each line.
pub fn of_address(info: &AddressInfo, now: SystemTime) -> Vec<String> {
    let mut lines = vec![format!(
        "{}; a dial is expected to succeed with a chance of {:.0} %",
        of_standing(info, now),
        info.confidence * 100.0
    )];
    lines.push(of_sources(info, now));
    if let Some(failures) = of_failures(info, now) {
        lines.push(failures);
    }
    lines.push(match info.expires {
        None => "is not forgotten: it is pinned".to_owned(),
        Some(at) => match at.duration_since(now) {
            Ok(rest) => format!("forgotten in {} unless it is heard of again", span(rest)),
            Err(_) => format!("expired {}", ago(at, now)),
        },
    });
    lines
}

fn of_standing(info: &AddressInfo, now: SystemTime) -> String {
    let dialled = info.last_success.map(|at| {
        let times = match info.successes {
            0 | 1 => String::new(),
            255.. => ", at least 255 times in all".to_owned(),
            n => format!(", {n} times in all"),
        };
        format!("{}{times}", ago(at, now))
    });
    match (info.standing, dialled) {
        (Standing::Proven, Some(dialled)) => {
            format!("proven: the node last reached the peer there {dialled}")
        }
        (Standing::Proven, None) => "proven: the node reached the peer there".to_owned(),
        (standing, dialled) => {
            let words = match standing {
                Standing::SelfTold if info.is_certified() => "told by the peer itself, and signed",
                Standing::SelfTold => "told by the peer itself",
                Standing::Hearsay => "hearsay: others say that the peer is there",
                Standing::Inbound => "only seen: the peer called from there",
                _ => "of a standing that this version does not know",
            };
            match dialled {
                Some(dialled) => format!("{words}; the node reached it {dialled}"),
                None => format!("{words}; never reached by the node"),
            }
        }
    }
}

fn of_sources(info: &AddressInfo, now: SystemTime) -> String {
    let names = [
        (Sources::PINNED, "pinned by the application"),
        (Sources::CERTIFIED, "a signed record"),
        (Sources::IDENTIFY, "identify"),
        (Sources::KADEMLIA, "Kademlia"),
        (Sources::RENDEZVOUS, "rendezvous"),
        (Sources::MDNS, "mDNS"),
        (Sources::APPLICATION, "the application"),
        (Sources::DISCOVERY, "discovery"),
        (Sources::INBOUND, "an inbound connection"),
        (Sources::DIALLED, "a dial"),
    ];
    let known = names
        .iter()
        .filter(|(source, _)| info.sources.contains(*source));
    let mut from: Vec<&str> = known.map(|(_, name)| *name).collect();
    if from.is_empty() {
        from.push("nobody who is named");
    }
    let first = since(info.first_heard, now);
    let first = match first >= OLDEST {
        true => format!("more than {} ago", span(OLDEST)),
        false => format!("{} ago", span(first)),
    };
    format!(
        "known from {}; first heard of {first}, last {}",
        from.join(", "),
        ago(info.last_heard, now)
    )
}

fn of_failures(info: &AddressInfo, now: SystemTime) -> Option<String> {
    if info.failures == 0 {
        return None;
    }
    let failures = match info.failures {
        255.. => "at least 255 dials have failed since".to_owned(),
        1 => "one dial has failed since".to_owned(),
        n => format!("{n} dials have failed since"),
    };
    let last = info
        .last_failure
        .map(|at| format!(", the last {}", ago(at, now)));
    let rest = info
        .back_off
        .map(|rest| format!("; left alone for {} more", span(rest)));
    Some([failures, last.unwrap_or_default(), rest.unwrap_or_default()].concat())
}

/// The same in one word, for a list.
pub fn standing(standing: Standing) -> &'static str {
    match json::standing(standing) {
        "self_told" => "self-told",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_span_is_told_in_its_largest_unit() {
        let words: Vec<String> = [0, 59, 60, 3_599, 3_600, 86_399, 86_400, 864_000]
            .map(|seconds| short(Duration::from_secs(seconds)))
            .into();
        assert_eq!(words, ["0s", "59s", "1m", "59m", "1h", "23h", "1d", "10d"]);
        assert_eq!(span(Duration::from_secs(7_200)), "2 h");
        assert_eq!(latency(Duration::from_micros(1_250)), "1.2ms");
        assert_eq!(latency(Duration::from_millis(120)), "120ms");
    }
}
