//! The coordinator: a state machine (state, event) → commands. It does no I/O and reads no clock; the shell performs the commands.
//!
//! ```text
//! Claiming ──► Starting ──► Deploying ──► Running ──► Draining ──► Done
//!                 ▲  ▲          │ ▲ │        │           │
//!                 │  └──────────┼─┼─┴────────┴───────────┤   a loss or a failure
//!                 └──────── BackingOff ◄─────────────────┘
//! ```
//!
//! # Order of writes, and why a crash between any two is safe
//! 1. The *generation*, by creating an object that only one driver can create and nobody deletes; then the *claim* record (or the genesis of a
//!    new pipeline). Until it is durable nothing else is done: an old leader may still be at work. The object alone would not do, because the
//!    old leader's records could land in the log for a while; the record alone would not do, because a driver that slept for long
//!    could write it into a part of the log that is truncated.
//! 2. `Deploy` to all executors, in a new era. They stop what they ran, fence their sinks, restore the checkpoint, and say which epochs
//!    their sinks have published (`Published`) and then `Ready`. Nothing runs before all have.
//! 3. The plans after the checkpoint, as the chain has them, then new ones: *append* and `Run` at the same time. A crash loses at most plans
//!    that nobody published, or leaves them in the chain, where the next leader adopts them.
//! 4. `Durable(n)` when the whole chain up to `n` is durable, and only then: from here on an epoch may be seen by others.
//! 5. The *manifest* of a checkpoint, when every task has uploaded its state and every sink has published the epoch. A crash before it
//!    leaves objects that no manifest names; a crash after it a complete checkpoint.
//! 6. Truncation of the log and collection of garbage, after a look has shown that nobody claimed the log since the manifest was written.
mod attempt;
mod checkpoint;
mod config;
mod executors;
mod lead;
mod run;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use millstream_connectors::Discovery;
use millstream_plan::{
    Attempt as AttemptNumber, ContentHash, Epoch, Era, ExecutorId, Generation, SinkId, SourceId, SplitId,
};
use millstream_protocol::messages::{Hello, OperatorReport, SplitReport, TaskState, ToDriver, ToExecutor};
use serde::{Deserialize, Serialize};

use crate::chain::{Fold, FoldError, Genesis, History, Reply, Slot, Tip, Writer, WriterCommand};
use crate::planner::{Planner, SplitWatermarks};
use crate::shape::Millis;
use attempt::Attempt;
pub use attempt::HeldUp;
pub use config::{Config, Executors};
use executors::{Executor, Failures};

/// What happened outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// A source's enumerator has answered.
    Available { source: SourceId, discovery: Discovery },
    /// An executor has connected; if its name is known, the older connection is gone.
    Joined(Hello),
    /// An executor's connection is gone.
    Left(ExecutorId),
    /// An executor says something.
    Message { from: ExecutorId, message: ToDriver },
    /// The generation is ours, or another driver (`holder`) has it.
    Generation { holder: Option<String> },
    /// The log has answered.
    Log(Reply),
    /// The manifest of this epoch is stored.
    ManifestWritten { epoch: Epoch },
    /// The epoch has a manifest by another writer.
    ManifestRefused(Box<Checkpoint>),
    /// Nobody knows whether the manifest is stored: try again.
    ManifestFailed { epoch: Epoch },
    /// Finish with a checkpoint and leave.
    StopRequested,
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Create the generation, which must not exist. Answer with [`Event::Generation`]; try for ever.
    ClaimGeneration {
        generation: Generation,
    },
    /// Answer with [`Event::Log`].
    Log(WriterCommand),
    Send {
        to: ExecutorId,
        message: ToExecutor,
    },
    /// Answer with [`Event::ManifestWritten`] or its like.
    WriteManifest(Box<Checkpoint>),
    /// Drop what only older checkpoints need: all manifests but the newest `keep`, what nothing names, and the log before `truncate_before`.
    Collect {
        keep: usize,
        protected: BTreeSet<ContentHash>,
        truncate_before: Slot,
    },
    /// Everything before these positions is published by all sinks.
    Published {
        positions: BTreeMap<SourceId, BTreeMap<SplitId, u64>>,
    },
    /// For people and metrics.
    Report(Report),
    /// The last command.
    Exit(Exit),
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The input has ended and everything is published.
    Finished,
    /// A stop was asked for; the next start goes on from a checkpoint of the last epoch.
    Drained,
    /// A stop was asked for, but the last epochs are not finished: the next start replays them.
    Abandoned,
    /// Somebody must do something.
    Failed(String),
    /// Another driver leads.
    Fenced(String),
}

/// A complete checkpoint: the state at the end of `epoch`, and where the driver stood.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    pub epoch: Epoch,
    pub era: Era,
    pub tasks: BTreeMap<millstream_plan::TaskId, TaskState>,
    pub job: JobPart,
}

/// The driver's part of a checkpoint: all that is needed to read on in the log after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobPart {
    pub genesis: Genesis,
    /// End of the chain after the epoch's plan.
    pub tip: Tip,
    pub history: History,
    pub watermarks: SplitWatermarks,
}

/// For people and metrics; nothing depends on it.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// The driver leads.
    Leading {
        era: Era,
        adopted: Epoch,
    },
    /// All tasks have processed an epoch.
    Epoch(Box<EpochReport>),
    /// All sinks have published it.
    Published {
        epoch: Epoch,
        after_ms: u64,
        rows: u64,
        bytes: u64,
    },
    Checkpoint {
        epoch: Epoch,
        duration_ms: u64,
        bytes: u64,
    },
    /// Tasks start (again) from a checkpoint.
    Deploying {
        era: Era,
        restore: Epoch,
        replay_to: Epoch,
        executors: usize,
    },
    /// Everything that had to be replayed is processed.
    Recovered {
        era: Era,
        duration_ms: u64,
    },
    Joined {
        executor: ExecutorId,
    },
    Lost {
        executor: ExecutorId,
        reason: String,
    },
    Failure {
        epoch: Option<Epoch>,
        message: String,
    },
    /// Epochs were taken out of the chain to be planned again, smaller.
    Voided {
        from: Epoch,
    },
    /// Nothing has moved for long, and why.
    HeldUp(HeldUp),
}

/// What happened in an epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochReport {
    pub era: Era,
    pub plan: millstream_plan::EpochPlan,
    /// It had been planned by an earlier attempt.
    pub replayed: bool,
    pub dispatched_at: Millis,
    pub done_at: Millis,
    /// From dispatch until its record was durable; `None` if that is still to come, or long past.
    pub durable_after_ms: Option<u64>,
    pub splits: Vec<SplitReport>,
    /// One per operator, summed over its tasks.
    pub operators: Vec<OperatorReport>,
    pub busy_micros: u64,
    pub output_bytes: u64,
    /// Per source: position after the last available record of every split.
    pub latest: BTreeMap<SourceId, BTreeMap<SplitId, u64>>,
    /// Per source: positions that are available and not planned.
    pub backlog: BTreeMap<SourceId, u64>,
}

/// What the coordinator is doing. Every state carries what is known in it only.
#[derive(Debug)]
pub enum State {
    /// The claim is not durable yet.
    Claiming,
    /// Waits for executors.
    Starting {
        since: Millis,
    },
    /// Waits before the next attempt.
    BackingOff {
        until: Millis,
    },
    /// Waits for `Ready` of these.
    Deploying {
        attempt: Attempt,
        waiting: BTreeSet<ExecutorId>,
        since: Millis,
    },
    Running(Attempt),
    /// Reads nothing more; ends with a checkpoint.
    Draining(Attempt),
    Done,
}

/// What a driver finds in the log and the checkpoint store.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The chain, read from the newest checkpoint on.
    pub fold: Fold,
    /// That checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// The newest generation that anyone has claimed.
    pub generation: Generation,
    /// Older checkpoints, oldest first: (epoch, slot from which its log is read on).
    pub older: Vec<(Epoch, Slot)>,
}

/// The pipeline cannot be started like this.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StartError {
    #[error(
        "the checkpoint location belongs to pipeline '{found}', not to '{wanted}'; set 'checkpointLocation' to a place of its own"
    )]
    OtherPipeline { found: String, wanted: String },
    #[error(
        "the SQL of pipeline '{pipeline}' does not fit its checkpoints (fingerprint {found}, now {wanted}); run the old text, or set \
         'checkpointLocation' to a new place to start anew"
    )]
    Fingerprint { pipeline: String, found: millstream_plan::Digest, wanted: millstream_plan::Digest },
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Coordinator {
    config: Config,
    state: State,
    parallelism: u16,
    fold: Fold,
    writer: Writer,
    planner: Planner,
    executors: BTreeMap<ExecutorId, Executor>,
    /// Number of the current or last attempt.
    attempt: AttemptNumber,
    /// Where tasks ran last.
    placement: BTreeMap<millstream_plan::TaskId, ExecutorId>,
    failures: Failures,
    /// The whole chain up to this epoch is durable.
    durable: Epoch,
    checkpoints: checkpoint::Checkpoints,
    /// When a stop was asked for.
    stop: Option<Millis>,
    /// When published positions were last told.
    told_at: Millis,
}

impl Coordinator {
    /// A coordinator that claims the leadership, and its first commands.
    ///
    /// # Errors
    /// What was found belongs to another pipeline or another SQL text.
    pub fn start(mut config: Config, found: Recovered, now: Millis) -> Result<(Self, Vec<Command>), StartError> {
        if let Some(genesis) = &found.fold.genesis {
            if genesis.pipeline != config.shape.name {
                return Err(StartError::OtherPipeline { found: genesis.pipeline.clone(), wanted: config.shape.name });
            }
            if genesis.fingerprint != config.shape.fingerprint {
                return Err(StartError::Fingerprint {
                    pipeline: config.shape.name,
                    found: genesis.fingerprint,
                    wanted: config.shape.fingerprint,
                });
            }
        }
        let parallelism = found.fold.genesis.as_ref().map_or(config.shape.parallelism, |g| g.parallelism);
        config.shape.parallelism = parallelism;
        let watermarks = found.checkpoint.as_ref().map(|c| c.job.watermarks.clone()).unwrap_or_default();
        let mut planner = Planner::new(
            config.shape.clone(),
            parallelism,
            config.plan,
            found.fold.head.clone(),
            &watermarks,
            found.fold.last_checkpoint(),
            now,
        );
        planner.restarted(0);
        let generation = found.generation.max(found.fold.tip.generation).next();
        let writer = Writer::new(found.fold.tip.clone(), generation, config.writer.clone());
        let coordinator = Self {
            state: State::Claiming,
            parallelism,
            fold: found.fold,
            writer,
            planner,
            executors: BTreeMap::new(),
            attempt: AttemptNumber(0),
            placement: BTreeMap::new(),
            failures: Failures::default(),
            durable: Epoch(0),
            checkpoints: checkpoint::Checkpoints::new(found.checkpoint, found.older),
            stop: None,
            told_at: Millis::MIN,
            config,
        };
        Ok((coordinator, vec![Command::ClaimGeneration { generation }]))
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The current leadership and attempt.
    #[must_use]
    pub fn era(&self) -> Era {
        Era { generation: self.writer.generation(), attempt: self.attempt }
    }

    /// Where every source stands after the last planned epoch.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.fold.head
    }

    /// Tasks per stage.
    #[must_use]
    pub fn parallelism(&self) -> u16 {
        self.parallelism
    }

    /// Connected executors.
    #[must_use]
    pub fn executors(&self) -> usize {
        self.executors.len()
    }

    /// Newest complete checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoints.newest()
    }

    /// Takes in an event. `now` never goes back.
    pub fn handle(&mut self, now: Millis, event: Event) -> Vec<Command> {
        let mut out = Vec::new();
        if matches!(self.state, State::Done) {
            return out;
        }
        match event {
            Event::Tick => self.tick(now, &mut out),
            Event::Available { source, discovery } => {
                self.planner.available(source, &discovery, now);
                self.pump(now, &mut out);
            }
            Event::Joined(hello) => self.joined(now, hello, &mut out),
            Event::Left(executor) => self.left(now, &executor, "its connection is gone", &mut out),
            Event::Message { from, message } => self.message(now, &from, message, &mut out),
            Event::Generation { holder } => self.generation_claimed(now, holder, &mut out),
            Event::Log(reply) => self.log(now, reply, &mut out),
            Event::ManifestWritten { epoch } => self.manifest_written(now, epoch, None, &mut out),
            Event::ManifestRefused(other) => self.manifest_refused(now, *other, &mut out),
            Event::ManifestFailed { epoch } => self.checkpoints.failed(now, epoch),
            Event::StopRequested => self.stop(now, &mut out),
        }
        out
    }

    /// Says what holds the pipeline up.
    fn watch(&mut self, now: Millis, out: &mut Vec<Command>) {
        let (State::Running(attempt) | State::Draining(attempt)) = &mut self.state else { return };
        let shape = &self.config.shape;
        let gathers = |sink: SinkId| shape.sinks.iter().any(|s| s.id == sink && s.commit_interval_ms.is_some());
        let sinks = shape.sink_tasks(self.parallelism).map(|(sink, task)| (sink, task, gathers(sink)));
        let held = attempt.held_up(now, shape.tasks(self.parallelism), sinks);
        out.extend(held.map(|held| Command::Report(Report::HeldUp(held))));
    }

    fn tick(&mut self, now: Millis, out: &mut Vec<Command>) {
        self.check_heartbeats(now, out);
        self.checkpoints.retry(now, out);
        self.look_around(now, out);
        match &self.state {
            State::Claiming | State::Done => {}
            State::Starting { .. } => self.try_deploy(now, out),
            State::BackingOff { until } if now >= *until => self.try_deploy(now, out),
            State::BackingOff { .. } => {}
            State::Deploying { since, .. } if now >= since.saturating_add(self.config.restore_timeout_ms) => {
                self.attempt_failed(now, None, "the executors did not get ready in time".to_owned(), out);
            }
            State::Deploying { .. } => {}
            State::Running(_) | State::Draining(_) => {
                self.pump(now, out);
                self.watch(now, out);
            }
        }
        if self.stop.is_some_and(|at| now >= at.saturating_add(self.config.drain_timeout_ms)) {
            self.exit(Exit::Abandoned, out);
        }
    }

    fn stop(&mut self, now: Millis, out: &mut Vec<Command>) {
        self.stop = self.stop.or(Some(now));
        match std::mem::replace(&mut self.state, State::Done) {
            State::Claiming | State::Starting { .. } | State::BackingOff { .. } => self.exit(Exit::Abandoned, out),
            State::Running(attempt) | State::Draining(attempt) => {
                self.planner.finish();
                self.state = State::Draining(attempt);
                self.pump(now, out);
            }
            // Drains when all are ready.
            deploying @ State::Deploying { .. } => self.state = deploying,
            State::Done => {}
        }
    }

    fn exit(&mut self, exit: Exit, out: &mut Vec<Command>) {
        self.state = State::Done;
        if !matches!(exit, Exit::Fenced(_)) {
            self.broadcast(&ToExecutor::Shutdown, out);
        }
        out.push(Command::Exit(exit));
    }

    fn broken(&mut self, error: &FoldError, out: &mut Vec<Command>) {
        self.exit(Exit::Failed(error.to_string()), out);
    }

    fn broadcast(&self, message: &ToExecutor, out: &mut Vec<Command>) {
        out.extend(self.executors.keys().map(|to| Command::Send { to: to.clone(), message: message.clone() }));
    }
}
