//! What outlives every process: the log, manifests, objects, and what the sinks have published.
use std::collections::{BTreeMap, BTreeSet};

use millstream_plan::{ContentHash, Epoch, Era, Generation, SinkId, TaskId};

use super::truth::{Truth, output};
use crate::chain::Slot;
use crate::coordinator::Checkpoint;
use crate::shape::{Millis, PipelineShape};

/// What one sink task has published.
#[derive(Default)]
pub(super) struct Published {
    /// Lower eras are refused. Stays at zero for sinks that gather: nothing fences a file.
    fenced: Era,
    /// Last published epoch.
    pub(super) marker: Epoch,
    /// Sinks that gather: content by the epoch of the flush.
    files: BTreeMap<Epoch, u64>,
}

pub(super) struct Store {
    pub(super) log: BTreeMap<Slot, Vec<u8>>,
    pub(super) truth: Truth,
    /// Generations that were claimed, and by which driver.
    pub(super) generations: BTreeMap<Generation, u32>,
    /// By epoch, with the time at which each was written.
    pub(super) manifests: BTreeMap<Epoch, (Millis, Checkpoint)>,
    /// Content and time of every object.
    pub(super) objects: BTreeMap<ContentHash, (Millis, u64)>,
    pub(super) sinks: BTreeMap<(SinkId, TaskId), Published>,
    gathering: BTreeSet<SinkId>,
    pub(super) collected: u64,
}

pub(super) enum Publish {
    Done,
    Fenced,
}

impl Store {
    pub(super) fn new(shape: &PipelineShape) -> Self {
        Self {
            log: BTreeMap::new(),
            generations: BTreeMap::new(),
            truth: Truth::new(shape.tasks(shape.parallelism).collect()),
            manifests: BTreeMap::new(),
            objects: BTreeMap::new(),
            sinks: shape.sink_tasks(shape.parallelism).map(|t| (t, Published::default())).collect(),
            gathering: shape.sinks.iter().filter(|s| s.commit_interval_ms.is_some()).map(|s| s.id).collect(),
            collected: 0,
        }
    }

    /// Puts a record into a free slot, or returns what is there.
    pub(super) fn append(&mut self, slot: Slot, bytes: &[u8]) -> Result<Option<Vec<u8>>, String> {
        if let Some(found) = self.log.get(&slot) {
            return Ok(Some(found.clone()));
        }
        self.log.insert(slot, bytes.to_vec());
        self.truth.put(slot, bytes)?;
        Ok(None)
    }

    /// Fences a sink task; returns its marker, or `None` if a higher era is at work.
    pub(super) fn open(&mut self, sink: SinkId, task: TaskId, era: Era) -> Option<Epoch> {
        let gathering = self.gathering.contains(&sink);
        let partition = self.sinks.get_mut(&(sink, task)).unwrap();
        if partition.fenced > era {
            return None;
        }
        if !gathering {
            partition.fenced = era;
        }
        Some(partition.marker)
    }

    /// Publishes `epoch` of a sink task whose state after that epoch is `state`.
    pub(super) fn publish(
        &mut self,
        era: Era,
        (sink, task): (SinkId, TaskId),
        epoch: Epoch,
        state: u64,
    ) -> Result<Publish, String> {
        let gathering = self.gathering.contains(&sink);
        let partition = self.sinks.get_mut(&(sink, task)).unwrap();
        if partition.fenced > era {
            return Ok(Publish::Fenced);
        }
        let place = format!("sink {sink} task {task} epoch {epoch} era {era}");
        let Some(wanted) = self.truth.state(task, epoch) else {
            return Err(format!("{place}: published, but the chain ends at {}", self.truth.plans.len()));
        };
        if wanted != state {
            return Err(format!("{place}: published something else than the chain says"));
        }
        if gathering {
            let content = output(sink, state);
            let plan = self.truth.plan(epoch).map(|(p, _)| p.flush);
            if plan != Some(true) {
                return Err(format!("{place}: published without a flush"));
            }
            if *partition.files.entry(epoch).or_insert(content) != content {
                return Err(format!("{place}: another content stands there"));
            }
            partition.marker = partition.marker.max(epoch);
        } else if epoch <= partition.marker {
            return Err(format!("{place}: published again, the marker is at {}", partition.marker));
        } else if epoch != partition.marker.next() {
            return Err(format!("{place}: published out of order, the marker is at {}", partition.marker));
        } else {
            partition.marker = epoch;
        }
        self.truth.published = self.truth.published.max(epoch);
        Ok(Publish::Done)
    }

    /// Creates a manifest, or returns the one that is there.
    pub(super) fn manifest(&mut self, now: Millis, checkpoint: &Checkpoint) -> Result<Option<Checkpoint>, String> {
        let epoch = checkpoint.epoch;
        if let Some((_, found)) = self.manifests.get(&epoch) {
            return Ok((found != checkpoint).then(|| found.clone()));
        }
        let place = format!("manifest of epoch {epoch} by {}", checkpoint.era);
        let Some((plan, hash)) = self.truth.plan(epoch) else { return Err(format!("{place}: not in the chain")) };
        if checkpoint.job.tip.hash != *hash || !plan.checkpoint {
            return Err(format!("{place}: it stands on another record"));
        }
        if checkpoint.job.history != self.truth.history(epoch)? {
            return Err(format!("{place}: its history is not that of the chain"));
        }
        for ((sink, task), partition) in &self.sinks {
            if partition.marker < epoch {
                return Err(format!("{place}: sink {sink} task {task} has published only {}", partition.marker));
            }
        }
        // A request that was on its way for so long that its manifest had come and gone: older than all that is kept, it is never
        // read and goes with the next collection.
        let stale = self.manifests.keys().next().is_some_and(|oldest| epoch < *oldest);
        for (task, state) in checkpoint.tasks.iter().filter(|_| !stale) {
            for file in &state.files {
                let Some((_, content)) = self.objects.get(&file.hash) else {
                    return Err(format!("{place}: an object of task {task} is missing"));
                };
                if file.name == "state" && Some(*content) != self.truth.state(*task, epoch) {
                    return Err(format!("{place}: the state of task {task} is not that of the epoch"));
                }
            }
        }
        if checkpoint.tasks.len() != self.truth.state_count() {
            return Err(format!("{place}: it has {} tasks", checkpoint.tasks.len()));
        }
        self.manifests.insert(epoch, (now, checkpoint.clone()));
        Ok(None)
    }

    /// As the state crate collects: old manifests, then what nothing names and is older than the second newest manifest.
    pub(super) fn collect(&mut self, keep: usize, protected: &BTreeSet<ContentHash>, truncate_before: Slot) {
        self.log = self.log.split_off(&truncate_before);
        while self.manifests.len() > keep.max(2) {
            self.manifests.pop_first();
        }
        let Some((before, _)) = self.manifests.values().rev().nth(1) else { return };
        let before = *before;
        let named: BTreeSet<ContentHash> = self
            .manifests
            .values()
            .flat_map(|(_, c)| c.tasks.values())
            .flat_map(|t| t.files.iter().map(|f| f.hash))
            .collect();
        let count = self.objects.len();
        self.objects.retain(|hash, (at, _)| *at >= before || named.contains(hash) || protected.contains(hash));
        self.collected += (count - self.objects.len()) as u64;
    }
}
