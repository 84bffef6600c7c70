//! Writing: one MULTI/EXEC for what lies in one slot, pipelined to each primary, and in a cluster acknowledged by a
//! replica before it counts.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use redis::{Pipeline, Value};

use super::{
    failure::{Failure, Remedy},
    keys,
    nodes::{Attempts, Nodes, field_of},
};
use crate::datastore::Batch;

/// Bytes and operations of one pipeline at most, unless one slot alone has more.
const PIPELINE_BYTES: usize = 256 * 1024;
const PIPELINE_OPERATIONS: usize = 1_024;

/// Replicas that must have taken over a write in a cluster.
const REPLICAS: i64 = 1;

/// One key and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Operation {
    /// As Redis knows it.
    pub(super) key: Arc<str>,
    /// `None` deletes.
    pub(super) value: Option<Vec<u8>>,
    /// The set in which a metadata key is listed, and its name there.
    listed: Option<(String, String)>,
}

impl Operation {
    fn new(prefix: &str, key: &str, value: Option<Vec<u8>>) -> Self {
        let listed = keys::listed(prefix, key).map(|(set, name)| (set, name.to_owned()));
        Self {
            key: keys::physical(prefix, key).into(),
            value,
            listed,
        }
    }

    pub(super) fn size(&self) -> usize {
        let listed = self.listed.as_ref();
        let listed = listed.map_or(0, |(set, name)| set.len() + name.len());
        self.key.len() + self.value.as_ref().map_or(0, Vec::len) + listed
    }

    fn add_to(&self, pipeline: &mut Pipeline) {
        let listed = self.listed.as_ref();
        match &self.value {
            Some(value) => pipeline.cmd("SET").arg(&*self.key).arg(value.as_slice()),
            None => pipeline.cmd("DEL").arg(&*self.key),
        };
        if let Some((set, name)) = listed {
            let command = if self.value.is_some() { "SADD" } else { "SREM" };
            pipeline.cmd(command).arg(set).arg(name);
        }
    }
}

/// Operations by slot. All of one peer is in one slot, and what is in one slot is one MULTI/EXEC.
pub(super) type Slots = BTreeMap<u16, Vec<Operation>>;

pub(super) fn by_slot(prefix: &str, batch: Batch) -> Slots {
    let mut slots = Slots::new();
    for (key, value) in batch {
        let operation = Operation::new(prefix, &key, value);
        let slot = keys::slot(&operation.key);
        slots.entry(slot).or_default().push(operation);
    }
    slots
}

/// What became of a write.
pub(super) struct Written {
    /// The slots that are written as they should be, and the process that was their primary then.
    pub(super) done: HashMap<u16, Arc<str>>,
    /// Why the others are not, or may not be.
    pub(super) failure: Option<Failure>,
}

/// Writes, trying again for a time what helps to be tried again.
pub(super) async fn write(
    nodes: &Nodes,
    slots: &Slots,
    retry_for: Duration,
    wait: Duration,
) -> Written {
    let mut attempts = Attempts::during(retry_for);
    let mut done = HashMap::new();
    loop {
        let failure = attempt(nodes, slots, wait, &mut done).await;
        let Some(failure) = failure else {
            return Written { done, failure };
        };
        tracing::debug!(error = %failure, "a write to Redis failed");
        if failure.remedy == Remedy::None || !attempts.again().await {
            let failure = Some(failure);
            return Written { done, failure };
        }
        if let Err(failure) = nodes.refresh().await {
            tracing::debug!(error = %failure, "cannot ask the Redis cluster for its slots");
        }
    }
}

/// The operations of one slot.
type Part<'a> = (u16, &'a [Operation]);

/// The slots that are written, each with the process that was their primary, and why others are not.
#[derive(Default)]
struct Attempted {
    written: Vec<(u16, Arc<str>)>,
    failures: Vec<Failure>,
}

/// One attempt at each primary, at all of them at once. What succeeds is noted in `done`; of the failures, one that
/// nothing helps against is returned first.
async fn attempt(
    nodes: &Nodes,
    slots: &Slots,
    wait: Duration,
    done: &mut HashMap<u16, Arc<str>>,
) -> Option<Failure> {
    let topology = nodes.topology();
    let mut failures = Vec::new();
    let mut by_primary: BTreeMap<Arc<str>, Vec<Part<'_>>> = BTreeMap::new();
    for (slot, operations) in slots {
        if done.contains_key(slot) {
            continue;
        }
        match topology.primary(*slot) {
            Some(primary) => by_primary
                .entry(primary)
                .or_default()
                .push((*slot, operations)),
            None => {
                let text = format!("no node of the cluster is known to serve slot {slot}");
                failures.push(Failure::new(text, Remedy::Refresh));
            }
        }
    }
    let wait = topology.is_cluster.then_some(wait);
    let writes = by_primary.into_iter();
    let writes = writes.map(|(primary, parts)| to_primary(nodes, primary, parts, wait));
    for attempted in join_all(writes).await {
        done.extend(attempted.written);
        failures.extend(attempted.failures);
    }
    let hopeless = failures
        .iter()
        .position(|failure| failure.remedy == Remedy::None);
    let worst = hopeless.unwrap_or(0);
    failures.into_iter().nth(worst)
}

async fn to_primary(
    nodes: &Nodes,
    primary: Arc<str>,
    parts: Vec<Part<'_>>,
    wait: Option<Duration>,
) -> Attempted {
    let mut attempted = Attempted::default();
    for parts in pipelines(parts) {
        let (run_id, refusals) = match send(nodes, &primary, &parts, wait, false).await {
            Ok(answered) => answered,
            Err(failure) => {
                // What follows would hardly fare better.
                attempted.failures.push(failure);
                break;
            }
        };
        for (part, refusal) in parts.into_iter().zip(refusals) {
            match refusal {
                None => attempted.written.push((part.0, run_id.clone())),
                Some(Failure {
                    remedy: Remedy::Ask(other),
                    ..
                }) => {
                    let other = Nodes::beside(&primary, &other);
                    match send(nodes, &other, &[part], wait, true).await {
                        Ok((run_id, refusals)) => match refusals.into_iter().flatten().next() {
                            None => attempted.written.push((part.0, run_id)),
                            Some(failure) => attempted.failures.push(failure),
                        },
                        Err(failure) => attempted.failures.push(failure),
                    }
                }
                Some(failure) => attempted.failures.push(failure),
            }
        }
    }
    attempted
}

/// Cuts what goes to one primary into pieces that are sent one after the other.
fn pipelines(parts: Vec<Part<'_>>) -> Vec<Vec<Part<'_>>> {
    let mut pipelines: Vec<Vec<Part<'_>>> = Vec::new();
    let (mut bytes, mut operations) = (PIPELINE_BYTES, 0);
    for part in parts {
        let size: usize = part.1.iter().map(Operation::size).sum();
        match pipelines.last_mut() {
            Some(last)
                if bytes + size <= PIPELINE_BYTES
                    && operations + part.1.len() <= PIPELINE_OPERATIONS =>
            {
                last.push(part);
                (bytes, operations) = (bytes + size, operations + part.1.len());
            }
            _ => {
                pipelines.push(vec![part]);
                (bytes, operations) = (size, part.1.len());
            }
        }
    }
    pipelines
}

/// Sends one pipeline. The answer is the process that executed it and, for each part, why it was not executed.
///
/// An error means that all of it may have been executed or not: it may not even be acknowledged.
async fn send(
    nodes: &Nodes,
    node: &Arc<str>,
    parts: &[Part<'_>],
    wait: Option<Duration>,
    asking: bool,
) -> Result<(Arc<str>, Vec<Option<Failure>>), Failure> {
    let mut pipeline = Pipeline::new();
    let mut ends = Vec::with_capacity(parts.len());
    for (_, operations) in parts {
        if asking {
            pipeline.cmd("ASKING");
        }
        pipeline.cmd("MULTI");
        for operation in *operations {
            operation.add_to(&mut pipeline);
        }
        pipeline.cmd("EXEC");
        ends.push(pipeline.len());
    }
    if let Some(wait) = wait {
        // It speaks of what its own connection has written, so it is in the same pipeline.
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        pipeline.cmd("WAIT").arg(REPLICAS).arg(millis);
    }
    pipeline.cmd("INFO").arg("server");
    let answers = nodes.send(node, &pipeline).await?;

    let failure = |answer: &Value| Failure::in_answer(answer, node, &nodes.secrets);
    let mut begin = 0;
    let refusals: Vec<_> = ends
        .into_iter()
        .map(|end| {
            let part = &answers[begin..end];
            begin = end;
            refusal(part, node, failure)
        })
        .collect();
    let (after, info) = answers.split_at(answers.len() - 1);
    if let (Some(wait), Some(answer)) = (wait, after.last()) {
        match answer {
            // Nothing was written, so that nothing is to be acknowledged.
            _ if refusals.iter().all(Option::is_some) => {}
            Value::Int(replicas) if *replicas >= REPLICAS => {}
            Value::Int(_) => {
                let text = format!(
                    "no replica of {node} took over the write within {wait:?}; see to it that every primary has a \
                     replica that is connected"
                );
                return Err(Failure::new(text, Remedy::None));
            }
            answer => {
                return Err(failure(answer).unwrap_or_else(|| Failure::unexpected("WAIT", node)));
            }
        }
    }
    let [info] = info else {
        return Err(Failure::unexpected("INFO", node));
    };
    match (failure(info), field_of(info, "run_id")) {
        (Some(failure), _) => Err(failure),
        (None, Some(run_id)) => Ok((run_id.into(), refusals)),
        (None, None) => Err(Failure::unexpected("INFO", node)),
    }
}

/// Why a MULTI/EXEC was not executed, or not whole.
fn refusal(
    answers: &[Value],
    node: &str,
    failure: impl Fn(&Value) -> Option<Failure>,
) -> Option<Failure> {
    // The first error of a command says more than the EXECABORT that follows.
    if let Some(failure) = answers.iter().find_map(&failure) {
        return Some(failure);
    }
    match answers.last() {
        Some(Value::Array(executed)) => executed.iter().find_map(&failure),
        _ => Some(Failure::unexpected("EXEC", node)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(slots: &Slots) -> Vec<Part<'_>> {
        slots
            .iter()
            .map(|(slot, operations)| (*slot, operations.as_slice()))
            .collect()
    }

    #[test]
    fn a_peer_is_one_part_and_no_pipeline_is_larger_than_it_must_be() {
        let mut batch = Batch::default();
        for peer in 0..2_000 {
            for book in ["addrs", "protos", "keys"] {
                batch.put(format!("/peers/{book}/b{peer}"), vec![0; 300]);
            }
            batch.put(format!("/peers/metadata/b{peer}/a"), Vec::new());
        }
        batch.put("/large", vec![0; 3 * PIPELINE_BYTES]);
        let slots = by_slot("n", batch);
        let of_seven: Vec<_> = slots
            .values()
            .filter(|part| part.iter().any(|op| op.key.contains("{b7}")))
            .collect();
        assert_eq!(of_seven.len(), 1);
        assert_eq!(
            of_seven[0]
                .iter()
                .filter(|op| op.key.contains("{b7}"))
                .count(),
            4
        );

        let pipelines = pipelines(parts(&slots));
        let count: usize = pipelines
            .iter()
            .flatten()
            .map(|(_, operations)| operations.len())
            .sum();
        assert_eq!(count, 8_001);
        assert!((4..20).contains(&pipelines.len()), "{}", pipelines.len());
        for pipeline in pipelines.iter().filter(|pipeline| pipeline.len() > 1) {
            let operations = || pipeline.iter().flat_map(|(_, operations)| *operations);
            assert!(operations().count() <= PIPELINE_OPERATIONS);
            assert!(operations().map(Operation::size).sum::<usize>() <= PIPELINE_BYTES);
        }
    }

    #[test]
    fn only_a_transaction_without_an_error_counts() {
        let refused = |answers: &[Value]| {
            refusal(answers, "h:1", |answer| {
                Failure::in_answer(answer, "h:1", &Default::default())
            })
        };
        let value = |line: &str| {
            redis::parse_redis_value(format!("{line}\r\n").as_bytes()).expect("a value")
        };
        let (ok, queued) = (value("+OK"), value("+QUEUED"));
        let done = Value::Array(vec![ok.clone()]);
        assert!(refused(&[ok.clone(), queued.clone(), done]).is_none());
        assert!(refused(&[ok.clone(), queued.clone(), Value::Nil]).is_some());
        assert!(refused(&[]).is_some());
        let full = value("-OOM command not allowed");
        let half = Value::Array(vec![ok.clone(), full.clone()]);
        assert!(refused(&[ok.clone(), queued, half]).is_some());
        let moved = refused(&[ok.clone(), value("-MOVED 5 h:2"), value("-EXECABORT x")]);
        assert_eq!(moved.map(|failure| failure.remedy), Some(Remedy::Refresh));
    }
}
