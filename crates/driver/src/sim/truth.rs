//! The reference: an independent reading of everything that was ever put into the log, and what tasks must have made of it.
use std::collections::{BTreeMap, BTreeSet};

use millstream_plan::{
    ContentHash, Digest, DigestBuilder, Epoch, EpochPlan, Generation, SinkId, SourceId, SplitId, TaskId,
};

use super::random::combine;
use crate::chain::{Body, History, Record, Slot, WriterId};

/// The state of every task before the first epoch.
pub(super) fn initial(task: TaskId) -> u64 {
    combine(u64::from(task.stage.0), u64::from(task.index))
}

/// The state of a task after an epoch.
pub(super) fn step(state: u64, plan: &EpochPlan) -> u64 {
    let mut digest = DigestBuilder::default();
    digest.add(&serde_json::to_vec(plan).unwrap());
    let Digest(plan) = digest.finish();
    combine(state, plan as u64)
}

/// What a sink task publishes of an epoch.
pub(super) fn output(sink: SinkId, state: u64) -> u64 {
    combine(u64::from(sink.0) + 1, state)
}

pub(super) struct Truth {
    tasks: Vec<TaskId>,
    /// Everything ever put, also what is truncated.
    slots: BTreeMap<Slot, Vec<u8>>,
    next: Slot,
    hash: ContentHash,
    pub(super) generation: Generation,
    writer: WriterId,
    pub(super) plans: Vec<(EpochPlan, ContentHash)>,
    /// After every epoch, from epoch 0 on.
    states: Vec<BTreeMap<TaskId, u64>>,
    /// Newest epoch of which something is published.
    pub(super) published: Epoch,
    pub(super) voids: u64,
    pub(super) skipped: u64,
    pub(super) claims: u64,
}

impl Truth {
    pub(super) fn new(tasks: Vec<TaskId>) -> Self {
        let states = vec![tasks.iter().map(|t| (*t, initial(*t))).collect()];
        Self {
            tasks,
            slots: BTreeMap::new(),
            next: Slot(0),
            hash: ContentHash::default(),
            generation: Generation(0),
            writer: WriterId::default(),
            plans: Vec::new(),
            states,
            published: Epoch(0),
            voids: 0,
            skipped: 0,
            claims: 0,
        }
    }

    /// A slot was written for the first time.
    pub(super) fn put(&mut self, slot: Slot, bytes: &[u8]) -> Result<(), String> {
        self.slots.entry(slot).or_insert_with(|| bytes.to_vec());
        while let Some(bytes) = self.slots.get(&self.next).cloned() {
            self.read(&bytes)?;
            self.next = self.next.next();
        }
        Ok(())
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), String> {
        let record = Record::decode(bytes).map_err(|e| format!("slot {}: {e}", self.next))?;
        let own = record.generation == self.generation && record.writer == self.writer;
        let valid = record.prev == self.hash
            && match &record.body {
                Body::Genesis(_) => self.generation == Generation(0),
                Body::Claim(_) => self.generation > Generation(0) && record.generation > self.generation,
                Body::Plan(_) | Body::Void { .. } => own,
            };
        if !valid {
            self.skipped += 1;
            return Ok(());
        }
        self.hash = ContentHash::of(bytes);
        self.generation = record.generation;
        self.writer = record.writer;
        match record.body {
            Body::Genesis(_) => {}
            Body::Claim(_) => self.claims += 1,
            Body::Plan(plan) => {
                if plan.epoch.0 != self.plans.len() as u64 + 1 {
                    return Err(format!("epoch {} in the chain follows {}", plan.epoch, self.plans.len()));
                }
                let before = &self.states[self.plans.len()];
                let after = self.tasks.iter().map(|t| (*t, step(before[t], &plan))).collect();
                self.states.push(after);
                self.plans.push((plan, self.hash));
            }
            Body::Void { from } => {
                if from <= self.published {
                    return Err(format!("epoch {from} is made void, but {} is published", self.published));
                }
                self.plans.truncate(from.0 as usize - 1);
                self.states.truncate(from.0 as usize);
                self.voids += 1;
            }
        }
        Ok(())
    }

    pub(super) fn state_count(&self) -> usize {
        self.tasks.len()
    }

    /// The state of a task after an epoch, if the whole chain up to it is in the log.
    pub(super) fn state(&self, task: TaskId, epoch: Epoch) -> Option<u64> {
        self.states.get(epoch.0 as usize)?.get(&task).copied()
    }

    pub(super) fn plan(&self, epoch: Epoch) -> Option<&(EpochPlan, ContentHash)> {
        self.plans.get(epoch.0.checked_sub(1)? as usize)
    }

    pub(super) fn history(&self, epoch: Epoch) -> Result<History, String> {
        let mut history = History::default();
        for (plan, _) in self.plans.iter().take(epoch.0 as usize) {
            history.apply(plan).map_err(|e| e.to_string())?;
        }
        Ok(history)
    }

    /// Every position of every split is in exactly one range.
    pub(super) fn covers(&self, totals: &BTreeMap<(SourceId, SplitId), u64>) -> Result<(), String> {
        let mut at: BTreeMap<(SourceId, SplitId), u64> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (plan, _) in &self.plans {
            for source in &plan.sources {
                for range in &source.ranges {
                    let key = (source.source, range.split.clone());
                    let next = at.entry(key.clone()).or_default();
                    if *next != range.from {
                        return Err(format!(
                            "epoch {}: split {} goes on at {}, not {next}",
                            plan.epoch, key.1, range.from
                        ));
                    }
                    *next = range.to;
                    seen.insert(key);
                }
            }
        }
        for (key, total) in totals {
            if at.get(key).copied().unwrap_or(0) != *total {
                return Err(format!("split {} was read up to {:?} of {total}", key.1, at.get(key)));
            }
        }
        if seen.len() != totals.len() { Err("there are splits that nobody has".to_owned()) } else { Ok(()) }
    }
}
