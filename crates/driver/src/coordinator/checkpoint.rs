//! Checkpoints: when one is complete, and what may be dropped then.
use std::collections::{BTreeSet, VecDeque};

use millstream_plan::{ContentHash, Epoch};
use millstream_protocol::messages::ToExecutor;

use super::{Checkpoint, Command, Coordinator, Exit, JobPart, Report, State};
use crate::bugs::{Bug, planted};
use crate::chain::Slot;
use crate::shape::Millis;

/// Time before a manifest is written again after a failure.
const RETRY_MS: Millis = 200;

#[derive(Clone, Debug)]
struct Writing {
    checkpoint: Checkpoint,
    retry_at: Option<Millis>,
}

/// What is known of checkpoints.
#[derive(Clone, Debug)]
pub(super) struct Checkpoints {
    newest: Option<Checkpoint>,
    /// All that may still be there, oldest first: (epoch, slot from which its log is read on).
    stored: VecDeque<(Epoch, Slot)>,
    writing: Option<Writing>,
    collect_wanted: Option<Millis>,
}

impl Checkpoints {
    pub(super) fn new(newest: Option<Checkpoint>, older: Vec<(Epoch, Slot)>) -> Self {
        let mut stored: VecDeque<_> = older.into();
        stored.extend(newest.iter().map(|c| (c.epoch, c.job.tip.next)));
        Self { newest, stored, writing: None, collect_wanted: None }
    }

    pub(super) fn newest(&self) -> Option<&Checkpoint> {
        self.newest.as_ref()
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.newest.as_ref().map_or(Epoch(0), |c| c.epoch)
    }

    pub(super) fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    pub(super) fn failed(&mut self, now: Millis, epoch: Epoch) {
        if let Some(writing) = self.writing.as_mut().filter(|w| w.checkpoint.epoch == epoch) {
            writing.retry_at = Some(now.saturating_add(RETRY_MS));
        }
    }

    pub(super) fn retry(&mut self, now: Millis, out: &mut Vec<Command>) {
        if let Some(writing) = self.writing.as_mut()
            && writing.retry_at.take_if(|at| now >= *at).is_some()
        {
            out.push(Command::WriteManifest(Box::new(writing.checkpoint.clone())));
        }
    }

    /// When garbage became worth collecting.
    pub(super) fn collect_wanted(&self) -> Option<Millis> {
        self.collect_wanted
    }

    pub(super) fn collect(&mut self, keep: usize, protected: BTreeSet<ContentHash>) -> Command {
        self.collect_wanted = None;
        let keep = keep.max(2);
        while self.stored.len() > keep {
            self.stored.pop_front();
        }
        let oldest = if planted(Bug::TruncateTooMuch) { self.stored.back() } else { self.stored.front() };
        let truncate_before = oldest.map_or(Slot(0), |(_, slot)| *slot);
        Command::Collect { keep, protected, truncate_before }
    }
}

impl Coordinator {
    /// Writes the manifest of the oldest checkpoint that is complete.
    pub(super) fn complete_checkpoint(&mut self, out: &mut Vec<Command>) {
        if self.checkpoints.is_writing() {
            return;
        }
        let (State::Running(attempt) | State::Draining(attempt)) = &mut self.state else { return };
        let published = attempt.published_by(self.config.shape.sink_tasks(self.parallelism));
        let tasks = self.config.shape.stages.len() * usize::from(self.parallelism);
        let complete = attempt.uploads.iter().find(|(epoch, uploaded)| {
            uploaded.len() == tasks
                && attempt.done >= **epoch
                && (published >= **epoch || planted(Bug::ManifestBeforePublished))
        });
        let Some((&epoch, _)) = complete else { return };
        let uploaded = attempt.uploads.remove(&epoch);
        let era = attempt.era;
        let (Some(tasks), Some(logged), Some(history), Some(genesis)) =
            (uploaded, self.fold.plan(epoch), self.fold.history_at(epoch), self.fold.genesis.clone())
        else {
            return;
        };
        let job = JobPart { genesis, tip: logged.tip.clone(), history, watermarks: self.planner.split_watermarks() };
        let checkpoint = Checkpoint { epoch, era, tasks, job };
        out.push(Command::WriteManifest(Box::new(checkpoint.clone())));
        self.checkpoints.writing = Some(Writing { checkpoint, retry_at: None });
    }

    /// The manifest of the checkpoint in writing is stored: ours, or that of another writer.
    pub(super) fn manifest_written(
        &mut self,
        now: Millis,
        epoch: Epoch,
        other: Option<Checkpoint>,
        out: &mut Vec<Command>,
    ) {
        let Some(writing) = self.checkpoints.writing.take_if(|w| w.checkpoint.epoch == epoch) else { return };
        let checkpoint = other.unwrap_or(writing.checkpoint);
        self.checkpoints.stored.push_back((epoch, checkpoint.job.tip.next));
        let bytes = checkpoint.tasks.values().flat_map(|t| &t.files).map(|f| f.bytes).sum();
        self.checkpoints.newest = Some(checkpoint);
        self.checkpoints.collect_wanted = Some(now);
        let mut duration_ms = 0;
        // An attempt that began from an older checkpoint still needs the plans that it has not replayed.
        let mut replayed = epoch;
        if let State::Deploying { attempt, .. } | State::Running(attempt) | State::Draining(attempt) = &mut self.state {
            // An older attempt may have completed it: this one need not.
            duration_ms = attempt.checkpoint_complete(epoch, now);
            replayed = attempt.done.min(epoch);
            let era = attempt.era;
            self.broadcast(&ToExecutor::Checkpointed { era, epoch }, out);
        }
        self.fold.rebase(replayed);
        out.push(Command::Report(Report::Checkpoint { epoch, duration_ms, bytes }));
        if self.is_finished() {
            self.exit(Exit::Finished, out);
            return;
        }
        self.collect_if_leading(now, out);
        self.complete_checkpoint(out);
        self.rebalance(now, out);
        self.pump(now, out);
    }

    pub(super) fn manifest_refused(&mut self, now: Millis, other: Checkpoint, out: &mut Vec<Command>) {
        if other.era.generation > self.writer.generation() {
            let message = format!(
                "another driver has written the checkpoint of epoch {} in generation {}; this one (generation {}) stops",
                other.epoch,
                other.era.generation,
                self.writer.generation()
            );
            self.exit(Exit::Fenced(message), out);
            return;
        }
        // An earlier leader completed it after we had read the checkpoints. Its logical state is the same.
        self.manifest_written(now, other.epoch, Some(other), out);
    }
}
