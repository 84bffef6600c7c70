//! Which node is the primary of which slot.

use std::sync::Arc;

use redis::Value;

use super::keys::SLOTS;

/// Which node is the primary of which slots.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Topology {
    /// First and last slot, sorted.
    pub(super) slots: Vec<(u16, u16, Arc<str>)>,
    /// Every node, replicas too.
    pub(super) nodes: Vec<Arc<str>>,
    pub(super) is_cluster: bool,
}

impl Topology {
    /// Of a single server: all slots are its own.
    pub(super) fn single(node: Arc<str>) -> Self {
        Self {
            slots: vec![(0, SLOTS - 1, node.clone())],
            nodes: vec![node],
            is_cluster: false,
        }
    }

    pub(super) fn primary(&self, slot: u16) -> Option<Arc<str>> {
        let after = self.slots.partition_point(|(first, _, _)| *first <= slot);
        let (_, last, node) = self.slots.get(after.checked_sub(1)?)?;
        (slot <= *last).then(|| node.clone())
    }

    pub(super) fn primaries(&self) -> Vec<Arc<str>> {
        let mut primaries: Vec<_> = self.slots.iter().map(|(_, _, node)| node.clone()).collect();
        primaries.sort();
        primaries.dedup();
        primaries
    }

    /// The first slot that no node has.
    pub(super) fn gap(&self) -> Option<u16> {
        let mut next = 0;
        for (first, last, _) in &self.slots {
            if *first > next {
                return Some(next);
            }
            next = last + 1;
        }
        (next < SLOTS).then_some(next)
    }

    /// From the answer to `CLUSTER SLOTS` of a node at `host`; `None` when it is not one.
    pub(super) fn parse(answer: &Value, host: &str) -> Option<Self> {
        let mut topology = Self {
            is_cluster: true,
            ..Self::default()
        };
        for range in array(answer)? {
            let [first, last, nodes @ ..] = array(range)? else {
                return None;
            };
            let nodes: Option<Vec<_>> = nodes.iter().map(|node| address(node, host)).collect();
            let nodes = nodes?;
            // An unknown primary is a gap.
            if let Some(Some(primary)) = nodes.first() {
                let range = (slot_number(first)?, slot_number(last)?, primary.clone());
                topology.slots.push(range);
            }
            topology.nodes.extend(nodes.into_iter().flatten());
        }
        topology.slots.sort();
        topology.nodes.sort();
        topology.nodes.dedup();
        Some(topology)
    }
}

pub(super) fn array(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

fn slot_number(value: &Value) -> Option<u16> {
    match value {
        Value::Int(number) => u16::try_from(*number).ok().filter(|slot| *slot < SLOTS),
        _ => None,
    }
}

/// The address of a node, `None` inside when the cluster does not know it.
fn address(node: &Value, answering: &str) -> Option<Option<Arc<str>>> {
    let [host, Value::Int(port), ..] = array(node)? else {
        return None;
    };
    let host = match host {
        Value::BulkString(host) if host == b"?" => return Some(None),
        Value::BulkString(host) if !host.is_empty() => String::from_utf8_lossy(host).into_owned(),
        // "Where you asked me."
        _ => answering.to_owned(),
    };
    Some(Some(format!("{host}:{port}").into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: &str, port: i64) -> Value {
        Value::Array(vec![
            Value::BulkString(host.into()),
            Value::Int(port),
            Value::BulkString("id".into()),
            Value::Array(Vec::new()),
        ])
    }

    fn range(first: i64, last: i64, nodes: Vec<Value>) -> Value {
        let mut items = vec![Value::Int(first), Value::Int(last)];
        items.extend(nodes);
        Value::Array(items)
    }

    #[test]
    fn each_slot_has_the_primary_that_the_cluster_says() {
        let answer = Value::Array(vec![
            range(8_192, 16_383, vec![node("h", 2), node("h", 4)]),
            range(0, 8_191, vec![node("", 1)]),
        ]);
        let topology = Topology::parse(&answer, "asked").expect("a topology");
        let primary = |slot| topology.primary(slot).map(|node| node.to_string());
        assert_eq!(primary(0).as_deref(), Some("asked:1"));
        assert_eq!(primary(8_191).as_deref(), Some("asked:1"));
        assert_eq!(primary(8_192).as_deref(), Some("h:2"));
        assert_eq!(primary(16_383).as_deref(), Some("h:2"));
        assert_eq!(topology.primaries().len(), 2);
        assert_eq!(topology.nodes.len(), 3);
        assert_eq!(topology.gap(), None);
    }

    #[test]
    fn a_slot_without_a_known_primary_is_a_gap() {
        for (ranges, gap) in [
            (vec![], 0),
            (vec![range(0, 99, vec![node("h", 1)])], 100),
            (vec![range(1, 16_383, vec![node("h", 1)])], 0),
            (
                vec![
                    range(0, 99, vec![node("?", 1)]),
                    range(100, 16_383, vec![node("h", 1)]),
                ],
                0,
            ),
        ] {
            let topology = Topology::parse(&Value::Array(ranges), "asked").expect("a topology");
            assert_eq!(topology.gap(), Some(gap));
            assert_eq!(topology.primary(gap), None);
        }
    }

    #[test]
    fn what_is_no_answer_to_cluster_slots_is_refused() {
        for answer in [
            Value::Nil,
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![Value::Array(vec![Value::Int(0)])]),
            Value::Array(vec![range(0, 16_384, vec![node("h", 1)])]),
            Value::Array(vec![range(-1, 5, vec![node("h", 1)])]),
            Value::Array(vec![range(0, 5, vec![Value::Int(1)])]),
        ] {
            assert_eq!(Topology::parse(&answer, "asked"), None, "{answer:?}");
        }
    }
}
