//! Says which partitions there are and how far each can be read.
//!
//! The end of a partition is its last stable offset (under `read_committed`), asked for all partitions at once with one ListOffsets
//! request per broker. Metadata, topic ids and the beginnings of partitions are looked at every discovery interval.
//!
//! Where a partition starts and ends is decided once, at the pipeline's first start, and kept in the log: options such as `latest` would
//! mean something else after a restart. A partition that came later is read from its beginning, or is no part of a bounded input.
//!
//! A topic that was deleted and created again is recognised by its id (brokers of 2.8 and later have ids), which travels in the
//! split's tag, and by ends that lie before what was planned.
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::{Duration, Instant};

use millstream_plan::SplitId;
use rdkafka::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use super::bounds::{Bound, Bounds, Partition, Topics};
use super::client::{Contact, Lookup, connect, missing_topic, topic_error};
use super::native::describe::describe_topics;
use crate::{ConnectorError, Discovery, SplitEnumerator, SplitState};

/// Limit of one request once the first contact is made.
const REQUEST: Duration = Duration::from_secs(3);

/// A new leader may not know the end of its partition for a moment; only after this long it is lost data.
const GRACE: Duration = Duration::from_secs(3);

/// What the enumerator needs to know.
pub(super) struct Scan {
    pub table: String,
    pub topics: Topics,
    pub start: Bounds,
    pub end: Option<Bounds>,
    pub fail_on_data_loss: bool,
    pub discovery: Duration,
    /// Where partitions without a committed offset start under `group-offsets`.
    pub without_commit: Bound,
}

/// What the options meant for one partition at the first start.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Limits {
    start: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<u64>,
}

struct Known {
    partition: Partition,
    split: SplitId,
    start: u64,
    /// The offset at which a bounded input ends.
    bound: Option<u64>,
    /// First offset that is still there, as of the last look.
    beginning: u64,
    tag: String,
    warned: bool,
    /// Since when the end lies before the position.
    behind: Option<Instant>,
}

/// The enumerator of a Kafka source.
pub(super) struct KafkaEnumerator {
    scan: Scan,
    client: Lookup,
    group: bool,
    known: Vec<Known>,
    index: HashMap<Partition, usize>,
    /// Id of each topic when it was first seen; after a restart, by the log.
    ids: BTreeMap<String, String>,
    looked: Option<Instant>,
    /// Of every partition that was there at the first start.
    limits: Option<BTreeMap<SplitId, Limits>>,
}

impl KafkaEnumerator {
    /// Connects and checks that the topics are there.
    pub(super) fn new(scan: Scan, mut config: ClientConfig) -> Result<Self, ConnectorError> {
        config.set("enable.auto.commit", "false");
        let group = config.get("group.id").is_some();
        let uses_group = |b: &Bounds| b.other == Bound::Group;
        if !group && (uses_group(&scan.start) || scan.end.as_ref().is_some_and(uses_group)) {
            return Err(ConnectorError::user(
                format!("table '{}': mode 'group-offsets' needs a consumer group", scan.table),
                "add 'properties.group.id' = '…'",
            ));
        }
        let first = match &scan.topics {
            Topics::Named(names) => names.first().map(String::as_str),
            Topics::Pattern(_) => None,
        };
        let (client, _) = connect(&config, first, Contact::First)?;
        let mut enumerator = Self {
            scan,
            client,
            group,
            known: Vec::new(),
            index: HashMap::new(),
            ids: BTreeMap::new(),
            looked: None,
            limits: None,
        };
        enumerator.partitions()?;
        Ok(enumerator)
    }

    /// All partitions of the topics as the cluster has them now, topics in the order of the option or by name.
    fn partitions(&mut self) -> Result<Vec<Partition>, ConnectorError> {
        let mut found = Vec::new();
        let mut add = |topic: &rdkafka::metadata::MetadataTopic| {
            let mut indexes: Vec<i32> =
                topic.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect();
            indexes.sort_unstable();
            found.extend(indexes.into_iter().map(|index| Partition { topic: topic.name().to_owned(), index }));
        };
        match &self.scan.topics {
            Topics::Named(names) => {
                for name in names {
                    let metadata = self.client.fetch_metadata(Some(name), REQUEST).map_err(|e| retry(&e))?;
                    let Some(topic) = metadata.topics().iter().find(|t| t.name() == name) else {
                        return Err(missing_topic(name));
                    };
                    if let Some(error) = topic.error() {
                        return Err(topic_error(name, error.into()));
                    }
                    add(topic);
                }
            }
            Topics::Pattern(pattern) => {
                let metadata = self.client.fetch_metadata(None, REQUEST).map_err(|e| retry(&e))?;
                let mut topics: Vec<_> = metadata
                    .topics()
                    .iter()
                    .filter(|t| t.error().is_none() && !t.name().starts_with("__") && pattern.is_match(t.name()))
                    .collect();
                topics.sort_unstable_by_key(|t| t.name());
                topics.into_iter().for_each(&mut add);
            }
        }
        Ok(found)
    }

    /// Looks for new partitions, for topics that were created again, and at the beginnings of partitions.
    fn look(&mut self, positions: &BTreeMap<SplitId, u64>) -> Result<(), ConnectorError> {
        let found = self.partitions()?;
        self.check_ids(&found)?;
        // They stay when anything below fails: asked again they would be others.
        let limits = match &self.limits {
            Some(limits) => limits.clone(),
            None => self.limits(&found, positions.is_empty())?,
        };
        self.limits = Some(limits.clone());
        let new: Vec<Partition> = found.into_iter().filter(|p| !self.index.contains_key(p)).collect();
        let earliest = Bounds { other: Bound::Earliest, listed: BTreeMap::new() };
        let beginnings = self.resolve(&new, &earliest, Self::check_start)?;
        for (partition, beginning) in new.into_iter().zip(beginnings) {
            let split = partition.split();
            let (start, bound) = match limits.get(&split) {
                Some(limits) => (limits.start, limits.end),
                None if self.scan.end.is_some() => continue,
                None => (beginning, None),
            };
            self.index.insert(partition.clone(), self.known.len());
            self.known.push(Known {
                split,
                tag: self.ids.get(&partition.topic).cloned().unwrap_or_default(),
                start,
                bound,
                beginning: 0,
                warned: false,
                behind: None,
                partition,
            });
        }
        let all: Vec<Partition> = self.known.iter().map(|k| k.partition.clone()).collect();
        let beginnings = self.offsets(&all, |_| Offset::Beginning)?;
        for (known, beginning) in self.known.iter_mut().zip(beginnings) {
            known.beginning = beginning;
        }
        self.looked = Some(Instant::now());
        Ok(())
    }

    /// What the options mean now. Only a pipeline that has never planned anything uses those for the start.
    fn limits(&self, partitions: &[Partition], new: bool) -> Result<BTreeMap<SplitId, Limits>, ConnectorError> {
        let earliest = Bounds { other: Bound::Earliest, listed: BTreeMap::new() };
        let start = if new { &self.scan.start } else { &earliest };
        let starts = self.resolve(partitions, start, Self::check_start)?;
        let ends: Vec<Option<u64>> = match &self.scan.end {
            Some(end) => self.resolve(partitions, end, |_, _, offset, _| Ok(offset))?.into_iter().map(Some).collect(),
            None => vec![None; partitions.len()],
        };
        let limits = starts.into_iter().zip(ends);
        let limits = limits.map(|(start, end)| Limits { start, end: end.map(|end| end.max(start)) });
        Ok(partitions.iter().map(Partition::split).zip(limits).collect())
    }

    fn check_ids(&mut self, found: &[Partition]) -> Result<(), ConnectorError> {
        let mut names: Vec<&str> = found.iter().map(|p| p.topic.as_str()).collect();
        names.dedup();
        if names.is_empty() {
            return Ok(());
        }
        for topic in describe_topics(self.client.client(), &names).map_err(|e| retry(&e))? {
            if let Some(error) = topic.error {
                return Err(topic_error(&topic.name, error));
            }
            match self.ids.get(&topic.name) {
                Some(id) if *id != topic.id && self.scan.fail_on_data_loss => {
                    return Err(ConnectorError::user(
                        format!(
                            "topic '{}' was deleted and created again: its id was {id} and is {}",
                            topic.name, topic.id
                        ),
                        "start with a new checkpoint location to read the new topic, or set 'failOnDataLoss' = 'false' to go \
                         on after the offsets that were already read",
                    ));
                }
                Some(id) if *id != topic.id => {
                    tracing::warn!(
                        topic = topic.name,
                        "the topic was created again; offsets already read are not read again"
                    );
                    for known in self.known.iter_mut().filter(|k| k.partition.topic == topic.name) {
                        known.tag.clone_from(&topic.id);
                    }
                    self.ids.insert(topic.name, topic.id);
                }
                Some(_) => {}
                None => {
                    self.ids.insert(topic.name, topic.id);
                }
            }
        }
        Ok(())
    }

    /// Offsets of these bounds. `check` gets an offset that the user or the group names, and the partition's range.
    fn resolve(
        &self,
        partitions: &[Partition],
        bounds: &Bounds,
        check: impl Fn(&Self, &Partition, u64, Range<u64>) -> Result<u64, ConnectorError>,
    ) -> Result<Vec<u64>, ConnectorError> {
        let committed = self.committed(partitions, bounds)?;
        let bound_of = |p: &Partition| match bounds.of(p) {
            Bound::Group => match committed.get(p) {
                Some(offset) => Bound::Offset(*offset),
                None => self.scan.without_commit,
            },
            bound => bound,
        };
        let asked = self.offsets(partitions, |p| match bound_of(p) {
            Bound::Earliest | Bound::Group => Offset::Beginning,
            Bound::Latest => Offset::End,
            Bound::Timestamp(ms) => Offset::Offset(ms),
            // Not what is asked for, but what it must not lie before.
            Bound::Offset(_) => Offset::Beginning,
        })?;
        let ends = self.offsets(partitions, |_| Offset::End)?;
        partitions
            .iter()
            .zip(asked.into_iter().zip(ends))
            .map(|(partition, (asked, end))| match bound_of(partition) {
                Bound::Offset(offset) => check(self, partition, offset, asked..end),
                Bound::Earliest | Bound::Latest | Bound::Group | Bound::Timestamp(_) => Ok(asked.min(end)),
            })
            .collect()
    }

    fn check_start(&self, partition: &Partition, offset: u64, held: Range<u64>) -> Result<u64, ConnectorError> {
        let Range { start: beginning, end } = held;
        if (beginning..=end).contains(&offset) {
            return Ok(offset);
        }
        if self.scan.fail_on_data_loss {
            return Err(ConnectorError::user(
                format!(
                    "topic '{}' partition {} cannot start at offset {offset}: it holds offsets {beginning} to {end}",
                    partition.topic, partition.index
                ),
                "name an offset in that range, or set 'failOnDataLoss' = 'false' to take the nearest",
            ));
        }
        Ok(offset.clamp(beginning, end))
    }

    fn committed(&self, partitions: &[Partition], bounds: &Bounds) -> Result<HashMap<Partition, u64>, ConnectorError> {
        let mut list = TopicPartitionList::new();
        for p in partitions.iter().filter(|p| bounds.of(p) == Bound::Group) {
            list.add_partition(&p.topic, p.index);
        }
        if list.count() == 0 {
            return Ok(HashMap::new());
        }
        let committed = self.client.committed_offsets(list, REQUEST * 2).map_err(|e| retry(&e))?;
        let mut offsets = HashMap::new();
        for entry in committed.elements() {
            if let Offset::Offset(offset) = entry.offset()
                && let Ok(offset) = u64::try_from(offset)
            {
                offsets.insert(Partition { topic: entry.topic().to_owned(), index: entry.partition() }, offset);
            }
        }
        Ok(offsets)
    }

    /// One ListOffsets request per broker. `Offset::Offset` is a timestamp here; without a record that late the answer is the
    /// end.
    fn offsets(&self, partitions: &[Partition], of: impl Fn(&Partition) -> Offset) -> Result<Vec<u64>, ConnectorError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let ask = |partitions: &[Partition], of: &dyn Fn(&Partition) -> Offset| {
            let mut list = TopicPartitionList::with_capacity(partitions.len());
            for p in partitions {
                list.add_partition_offset(&p.topic, p.index, of(p)).map_err(|e| retry(&e))?;
            }
            self.client.offsets_for_times(list, REQUEST).map_err(|e| retry(&e))
        };
        let list = ask(partitions, &of)?;
        let mut offsets = Vec::with_capacity(partitions.len());
        let mut without = Vec::new();
        for (i, (entry, partition)) in list.elements().iter().zip(partitions).enumerate() {
            entry.error().map_err(|e| partition_error(&partition.topic, &e))?;
            match entry.offset().to_raw().map(u64::try_from) {
                Some(Ok(offset)) => offsets.push(offset),
                _ => {
                    without.push(i);
                    offsets.push(0);
                }
            }
        }
        if !without.is_empty() {
            let late: Vec<Partition> = without.iter().map(|i| partitions[*i].clone()).collect();
            let ends = ask(&late, &|_| Offset::End)?;
            for (i, entry) in without.into_iter().zip(ends.elements()) {
                entry.error().map_err(|e| partition_error(&partitions[i].topic, &e))?;
                offsets[i] = entry.offset().to_raw().and_then(|o| u64::try_from(o).ok()).ok_or_else(|| {
                    ConnectorError::Retry(format!(
                        "topic '{}': no end of partition {}",
                        partitions[i].topic, partitions[i].index
                    ))
                })?;
            }
        }
        Ok(offsets)
    }

    /// Records that are to be read must still be there.
    fn check_loss(&mut self, at: usize, position: u64, end: u64) -> Result<(), ConnectorError> {
        let known = &mut self.known[at];
        let problem = if position < known.beginning {
            format!(
                "offsets {position} to {} are gone (the partition begins at {})",
                known.beginning - 1,
                known.beginning
            )
        } else if position > end {
            let since = known.behind.get_or_insert_with(Instant::now);
            if self.scan.fail_on_data_loss && since.elapsed() < GRACE {
                return Err(ConnectorError::Retry(format!(
                    "topic '{}' partition {} ends at {end}, before the next offset {position}; looking again",
                    known.partition.topic, known.partition.index
                )));
            }
            format!(
                "offset {position} was to be read next, but the partition ends at {end} (was the topic created again?)"
            )
        } else {
            known.behind = None;
            known.warned = false;
            return Ok(());
        };
        let message =
            format!("topic '{}' partition {}: data loss: {problem}", known.partition.topic, known.partition.index);
        if self.scan.fail_on_data_loss {
            return Err(ConnectorError::user(
                message,
                "keep records longer than a pipeline may be down ('retention.ms'); to go on with what is there, set \
                 'failOnDataLoss' = 'false'",
            ));
        }
        if !std::mem::replace(&mut known.warned, true) {
            tracing::warn!("{message}");
        }
        Ok(())
    }
}

impl SplitEnumerator for KafkaEnumerator {
    fn first_start(&mut self) -> Result<Option<String>, ConnectorError> {
        let partitions = self.partitions()?;
        let limits = self.limits(&partitions, true)?;
        let text = serde_json::to_string(&limits)
            .map_err(|e| ConnectorError::Fatal(format!("table '{}': {e}", self.scan.table)))?;
        self.limits = Some(limits);
        Ok(Some(text))
    }

    fn resume(&mut self, first: Option<&str>, tags: &BTreeMap<SplitId, String>) -> Result<(), ConnectorError> {
        if let Some(first) = first {
            let limits = serde_json::from_str(first).map_err(|e| {
                let table = &self.scan.table;
                ConnectorError::Fatal(format!("table '{table}': the log says '{first}' of its partitions: {e}"))
            })?;
            self.limits = Some(limits);
        }
        for (split, id) in tags.iter().filter(|(_, id)| !id.is_empty()) {
            if let Some(partition) = Partition::of(split) {
                self.ids.insert(partition.topic, id.clone());
            }
        }
        Ok(())
    }

    fn discover(&mut self, positions: &BTreeMap<SplitId, u64>, _now_ms: i64) -> Result<Discovery, ConnectorError> {
        // Serves callbacks and log lines; no message comes, since nothing is assigned.
        self.client.poll(Duration::ZERO);
        if self.looked.is_none_or(|at| at.elapsed() >= self.scan.discovery) {
            self.look(positions)?;
        }
        let all: Vec<Partition> = self.known.iter().map(|k| k.partition.clone()).collect();
        let ends = self.offsets(&all, |_| Offset::End)?;
        let mut splits = Vec::with_capacity(ends.len());
        let mut complete = self.scan.end.is_some();
        for (at, end) in ends.into_iter().enumerate() {
            let known = &self.known[at];
            let position = positions.get(&known.split).copied().unwrap_or(known.start);
            let limited = known.bound.map_or(end, |bound| bound.min(end));
            let closed = known.bound.is_some_and(|bound| end >= bound);
            let (split, tag, start) = (known.split.clone(), known.tag.clone(), known.start);
            // A bounded partition that was read to its end needs nothing any more.
            if !(closed && position >= limited) {
                self.check_loss(at, position, end)?;
            }
            complete &= closed;
            splits.push(SplitState { split, start, end: limited.max(position), tag, closed });
        }
        Ok(Discovery { splits, complete })
    }

    fn published(&mut self, positions: &BTreeMap<SplitId, u64>) {
        if !self.group {
            return;
        }
        let mut list = TopicPartitionList::new();
        for (split, position) in positions {
            let (Some(partition), Ok(offset)) = (Partition::of(split), i64::try_from(*position)) else { continue };
            if let Err(error) = list.add_partition_offset(&partition.topic, partition.index, Offset::Offset(offset)) {
                tracing::debug!(%error, "offset for lag tools");
            }
        }
        if let Err(error) = self.client.commit(&list, CommitMode::Async) {
            tracing::debug!(%error, "offsets for lag tools");
        }
    }
}

fn partition_error(topic: &str, error: &KafkaError) -> ConnectorError {
    topic_error(topic, error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))
}

fn retry(error: &KafkaError) -> ConnectorError {
    ConnectorError::Retry(format!("kafka: {}", error.to_string().to_lowercase()))
}
