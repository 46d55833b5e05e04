//! What is known of one attempt: the tasks between a `Deploy` and the next one.
use std::collections::{BTreeMap, BTreeSet};

use millstream_plan::{Epoch, Era, ExecutorId, OperatorId, SinkId, TaskId};
use millstream_protocol::messages::{OperatorReport, SplitReport, TaskDone, TaskState};

use crate::shape::Millis;

/// One attempt.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub era: Era,
    pub placement: BTreeMap<TaskId, ExecutorId>,
    /// The checkpoint that it started from.
    pub restored: Epoch,
    /// When the attempt began, for the report of the recovery; `None` when that is reported.
    pub(super) recovering_since: Option<Millis>,
    /// Last epoch that had been planned before the attempt.
    pub(super) replay_to: Epoch,
    /// Next epoch to dispatch.
    pub(super) next: Epoch,
    /// All tasks have processed everything up to here.
    pub(super) done: Epoch,
    pub(super) done_at: Millis,
    /// Epochs that are dispatched and not yet both processed and published.
    pub(super) flights: BTreeMap<Epoch, Flight>,
    /// Up to which epoch each sink task has published; absent: not known.
    published: BTreeMap<(SinkId, TaskId), Epoch>,
    /// Reported as published by all.
    pub(super) published_all: Epoch,
    pub(super) uploads: BTreeMap<Epoch, BTreeMap<TaskId, TaskState>>,
    /// When epochs with a checkpoint were dispatched.
    pub(super) checkpoints: BTreeMap<Epoch, Millis>,
    /// While something is waited for: a number that grows with all that moves, since when it is what it is, and for how long when that was last
    /// said.
    held_up: Option<(u64, Millis, u64)>,
}

/// What a pipeline waits for in which nothing moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldUp {
    /// The first epoch that is not processed, or the last that is.
    pub epoch: Epoch,
    pub seconds: u64,
    /// Tasks that have not processed it.
    pub processing: BTreeSet<TaskId>,
    /// Sink tasks that could publish, and which epoch is next for each.
    pub publishing: BTreeMap<(SinkId, TaskId), Epoch>,
}

/// When nothing moves for so long that is worth a word, and again whenever the time has doubled.
const LONG_MS: u64 = 10_000;

/// One epoch under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Flight {
    pub(super) dispatched_at: Millis,
    pub(super) durable_at: Option<Millis>,
    pub(super) expected_bytes: u64,
    pub(super) flush: bool,
    pub(super) done: BTreeSet<TaskId>,
    pub(super) complete: bool,
    pub(super) splits: Vec<SplitReport>,
    pub(super) operators: BTreeMap<OperatorId, OperatorReport>,
    pub(super) busy_micros: u64,
    pub(super) output_bytes: u64,
    pub(super) unsealed_bytes: u64,
    pub(super) published_rows: u64,
    pub(super) published_bytes: u64,
}

impl Attempt {
    pub(super) fn new(
        era: Era,
        placement: BTreeMap<TaskId, ExecutorId>,
        restored: Epoch,
        replay_to: Epoch,
        now: Millis,
    ) -> Self {
        Self {
            era,
            placement,
            restored,
            recovering_since: Some(now),
            replay_to,
            next: restored.next(),
            done: restored,
            done_at: now,
            flights: BTreeMap::new(),
            published: BTreeMap::new(),
            published_all: restored,
            uploads: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            held_up: None,
        }
    }

    /// What the pipeline waits for, if nothing has moved for long and that was not just said. `sinks`: the sink tasks, and whether they gather
    /// rows until an epoch with a flush.
    pub(super) fn held_up(
        &mut self,
        now: Millis,
        tasks: impl Iterator<Item = TaskId>,
        sinks: impl Iterator<Item = (SinkId, TaskId, bool)>,
    ) -> Option<HeldUp> {
        let unfinished = self.flights.iter().find(|(_, f)| !f.complete);
        let processing =
            unfinished.map_or_else(BTreeSet::new, |(_, f)| tasks.filter(|t| !f.done.contains(t)).collect());
        let complete = || self.flights.iter().rev().filter(|(_, f)| f.complete);
        let due = [complete().next(), complete().find(|(_, f)| f.flush)].map(|found| found.map(|(epoch, _)| *epoch));
        let mut moved = self.done.0;
        let mut publishing = BTreeMap::new();
        for (sink, task, gathers) in sinks {
            let published = self.published.get(&(sink, task)).copied().unwrap_or_default().max(self.restored);
            moved += published.0;
            if due[usize::from(gathers)].is_some_and(|due| published < due) {
                publishing.insert((sink, task), published.next());
            }
        }
        if processing.is_empty() && publishing.is_empty() {
            self.held_up = None;
            return None;
        }
        let (_, since, said) = match self.held_up {
            Some(held) if held.0 == moved => held,
            _ => *self.held_up.insert((moved, now, 0)),
        };
        let waited = u64::try_from(now.saturating_sub(since)).unwrap_or(0);
        if waited < LONG_MS.max(2 * said) {
            return None;
        }
        self.held_up = Some((moved, since, waited));
        let epoch = unfinished.map_or(self.done, |(epoch, _)| *epoch);
        Some(HeldUp { epoch, seconds: waited / 1000, processing, publishing })
    }

    /// How many executors run tasks.
    pub(super) fn executors(&self) -> usize {
        self.placement.values().collect::<BTreeSet<_>>().len()
    }

    /// True if the executor runs tasks.
    pub fn hosts(&self, executor: &ExecutorId) -> bool {
        self.placement.values().any(|e| e == executor)
    }

    /// Epochs that are not processed by all tasks.
    pub(super) fn in_flight(&self) -> usize {
        self.flights.values().filter(|f| !f.complete).count()
    }

    pub(super) fn in_flight_bytes(&self) -> u64 {
        self.flights.values().filter(|f| !f.complete).map(|f| f.expected_bytes).sum()
    }

    /// Output that is processed and not published by all sinks.
    pub(super) fn unpublished_bytes(&self) -> u64 {
        self.flights.values().map(|f| f.output_bytes).sum()
    }

    /// Epochs that are processed and that the sinks would publish now if they could.
    pub(super) fn unpublished(&self, gathering: bool) -> usize {
        let last = match gathering {
            true => self.flights.iter().rev().find(|(_, f)| f.flush).map(|(e, _)| *e),
            false => self.flights.keys().next_back().copied(),
        };
        self.flights.iter().take_while(|(e, _)| Some(**e) <= last).filter(|(_, f)| f.complete).count()
    }

    /// Takes in what a task did. Returns true if it was the last task of that epoch.
    pub(super) fn task_done(&mut self, done: TaskDone, tasks: usize, now: Millis) -> bool {
        let Some(flight) = self.flights.get_mut(&done.epoch) else { return false };
        if flight.complete || !flight.done.insert(done.task) {
            return false;
        }
        flight.splits.extend(done.splits);
        for report in done.operators {
            match flight.operators.get_mut(&report.operator) {
                Some(sum) => {
                    sum.keys += report.keys;
                    sum.bytes += report.bytes;
                    sum.next_timer = [sum.next_timer, report.next_timer].into_iter().flatten().min();
                    sum.next_wake = [sum.next_wake, report.next_wake].into_iter().flatten().min();
                    sum.dropped += report.dropped;
                }
                None => {
                    flight.operators.insert(report.operator, report);
                }
            }
        }
        flight.busy_micros += done.busy_micros;
        flight.output_bytes += done.output_bytes;
        flight.unsealed_bytes += done.unsealed_bytes;
        flight.complete = flight.done.len() == tasks;
        if flight.complete {
            self.done = self.done.max(done.epoch);
            self.done_at = now;
        }
        self.flights.get(&done.epoch).is_some_and(|f| f.complete)
    }

    /// The checkpoint of this epoch has its manifest: how long it took, and those up to it are forgotten.
    pub(super) fn checkpoint_complete(&mut self, epoch: Epoch, now: Millis) -> u64 {
        self.uploads.retain(|e, _| *e > epoch);
        let begun = self.checkpoints.remove(&epoch);
        self.checkpoints.retain(|e, _| *e > epoch);
        begun.and_then(|at| u64::try_from(now.saturating_sub(at)).ok()).unwrap_or(0)
    }

    /// Takes in what a sink task has published.
    pub(super) fn task_published(&mut self, sink: SinkId, task: TaskId, epoch: Epoch, rows: u64, bytes: u64) {
        let published = self.published.entry((sink, task)).or_default();
        *published = epoch.max(*published);
        if let Some(flight) = self.flights.get_mut(&epoch) {
            flight.published_rows += rows;
            flight.published_bytes += bytes;
        }
    }

    /// Up to which epoch every one of these sink tasks has published. What the checkpoint holds is published.
    pub(super) fn published_by(&self, sink_tasks: impl Iterator<Item = (SinkId, TaskId)>) -> Epoch {
        sink_tasks
            .map(|t| self.published.get(&t).copied().unwrap_or_default().max(self.restored))
            .min()
            .unwrap_or(self.done)
    }

    /// The newest epoch of which any part is published; `None` if some sink task has not told.
    pub(super) fn newest_published(&self, mut sink_tasks: impl Iterator<Item = (SinkId, TaskId)>) -> Option<Epoch> {
        sink_tasks.try_fold(self.restored, |newest, t| self.published.get(&t).map(|e| newest.max(*e)))
    }
}
