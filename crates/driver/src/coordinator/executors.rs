//! Executors: who is there, and the attempts to run the pipeline's tasks on them.
use std::collections::BTreeMap;

use millstream_plan::{Epoch, ExecutorId, TaskId};
use millstream_protocol::messages::{Deployment, Failure, Hello, Restore, ToExecutor};

use super::attempt::Attempt;
use super::{Command, Coordinator, Exit, Report, State};
use crate::schedule;
use crate::shape::Millis;

const FIRST_BACK_OFF_MS: Millis = 100;
const LONGEST_BACK_OFF_MS: Millis = 10_000;

/// A connected executor.
#[derive(Clone, Debug)]
pub(super) struct Executor {
    slots: u16,
    shuffle: String,
    pub(super) seen_at: Millis,
    pub(super) memory_bytes: u64,
}

/// Failures in a row without an epoch being processed.
#[derive(Clone, Debug, Default)]
pub(super) struct Failures {
    /// The epoch that does not get done.
    pub(super) epoch: Epoch,
    pub(super) count: u32,
    /// Those among them in which an executor died.
    pub(super) crashes: u32,
    since: Millis,
}

impl Failures {
    fn add(&mut self, epoch: Epoch, crash: bool, now: Millis) {
        if self.count == 0 || self.epoch < epoch {
            *self = Self { epoch, count: 0, crashes: 0, since: now };
        }
        self.count += 1;
        self.crashes += u32::from(crash);
    }

    /// An epoch is processed.
    pub(super) fn progress(&mut self, done: Epoch) {
        if done >= self.epoch {
            *self = Self::default();
        }
    }

    fn back_off(&self) -> Millis {
        FIRST_BACK_OFF_MS.saturating_mul(1 << self.count.saturating_sub(1).min(20)).min(LONGEST_BACK_OFF_MS)
    }
}

impl Coordinator {
    pub(super) fn joined(&mut self, now: Millis, hello: Hello, out: &mut Vec<Command>) {
        if hello.version != self.config.version {
            let message = format!(
                "executor {} is version {}, this driver is {}: it is sent away",
                hello.executor, hello.version, self.config.version
            );
            out.push(Command::Report(Report::Failure { epoch: None, message }));
            out.push(Command::Send { to: hello.executor, message: ToExecutor::Shutdown });
            return;
        }
        if self.executors.contains_key(&hello.executor) {
            self.left(now, &hello.executor, "it has started again", out);
        }
        out.push(Command::Report(Report::Joined { executor: hello.executor.clone() }));
        let executor = Executor { slots: hello.slots.max(1), shuffle: hello.shuffle, seen_at: now, memory_bytes: 0 };
        self.executors.insert(hello.executor, executor);
        match &self.state {
            State::Starting { .. } => self.try_deploy(now, out),
            // The others take it in at the next attempt or the next checkpoint.
            State::Claiming
            | State::BackingOff { .. }
            | State::Deploying { .. }
            | State::Running(_)
            | State::Draining(_)
            | State::Done => {}
        }
    }

    pub(super) fn left(&mut self, now: Millis, executor: &ExecutorId, reason: &str, out: &mut Vec<Command>) {
        if self.executors.remove(executor).is_none() {
            return;
        }
        out.push(Command::Report(Report::Lost { executor: executor.clone(), reason: reason.to_owned() }));
        let failed = match &mut self.state {
            State::Deploying { attempt, waiting, .. } => {
                waiting.remove(executor);
                attempt.hosts(executor)
            }
            State::Running(attempt) | State::Draining(attempt) => attempt.hosts(executor),
            State::Claiming | State::Starting { .. } | State::BackingOff { .. } | State::Done => return,
        };
        if failed {
            let epoch = self.oldest_undone();
            self.failures.add(epoch, true, now);
            if self.failures.crashes >= self.config.max_crashes {
                let message = format!(
                    "executors were lost {} times in epoch {epoch} (last: {executor}, {reason}); {}",
                    self.failures.crashes,
                    self.describe(epoch)
                );
                self.exit(Exit::Failed(message), out);
                return;
            }
            self.again(now, self.failures.crashes > 1, out);
        } else {
            self.run_if_ready(now, out);
        }
    }

    pub(super) fn check_heartbeats(&mut self, now: Millis, out: &mut Vec<Command>) {
        let limit = self.config.heartbeat_timeout_ms;
        let silent: Vec<ExecutorId> = self
            .executors
            .iter()
            .filter(|(_, e)| now > e.seen_at.saturating_add(limit))
            .map(|(id, _)| id.clone())
            .collect();
        for executor in silent {
            self.left(now, &executor, &format!("no heartbeat for {limit} ms"), out);
        }
    }

    /// An executor says that the era cannot go on.
    pub(super) fn failed(
        &mut self,
        now: Millis,
        task: Option<TaskId>,
        epoch: Option<Epoch>,
        failure: Failure,
        out: &mut Vec<Command>,
    ) {
        let place = match (task, epoch) {
            (Some(task), Some(epoch)) => format!(" (task {task}, epoch {epoch})"),
            (Some(task), None) => format!(" (task {task})"),
            (None, Some(epoch)) => format!(" (epoch {epoch})"),
            (None, None) => String::new(),
        };
        match failure {
            Failure::User(message) | Failure::Fatal(message) => {
                self.exit(Exit::Failed(format!("{message}{place}")), out);
            }
            Failure::Retry(message) => self.attempt_failed(now, epoch, format!("{message}{place}"), out),
        }
    }

    pub(super) fn attempt_failed(
        &mut self,
        now: Millis,
        epoch: Option<Epoch>,
        message: String,
        out: &mut Vec<Command>,
    ) {
        out.push(Command::Report(Report::Failure { epoch, message: message.clone() }));
        let epoch = epoch.unwrap_or_else(|| self.oldest_undone());
        self.failures.add(epoch, false, now);
        if now.saturating_sub(self.failures.since) >= self.config.give_up_ms {
            let message = format!(
                "epoch {epoch} has failed {} times in {} s, last: {message}; {}",
                self.failures.count,
                now.saturating_sub(self.failures.since) / 1000,
                self.describe(epoch)
            );
            self.exit(Exit::Failed(message), out);
            return;
        }
        self.again(now, true, out);
    }

    /// Ends this attempt and begins the next one, at once or after a pause.
    fn again(&mut self, now: Millis, pause: bool, out: &mut Vec<Command>) {
        if pause {
            self.state = State::BackingOff { until: now.saturating_add(self.failures.back_off()) };
        } else {
            self.state = State::Starting { since: now.saturating_sub(self.config.executors.wait_ms) };
            self.try_deploy(now, out);
        }
    }

    fn oldest_undone(&self) -> Epoch {
        match &self.state {
            State::Running(attempt) | State::Draining(attempt) | State::Deploying { attempt, .. } => {
                attempt.done.next()
            }
            State::Claiming | State::Starting { .. } | State::BackingOff { .. } | State::Done => {
                self.checkpoints.epoch().next()
            }
        }
    }

    /// The ranges of an epoch, for a message.
    fn describe(&self, epoch: Epoch) -> String {
        let Some(logged) = self.fold.plan(epoch) else { return "it was not planned yet".to_owned() };
        let name = |id| self.config.shape.sources.iter().find(|s| s.id == id).map_or("?", |s| s.name.as_str());
        let ranges: Vec<String> = logged
            .plan
            .sources
            .iter()
            .flat_map(|s| {
                s.ranges.iter().map(move |r| format!("{} {} [{}, {})", name(s.source), r.split, r.from, r.to))
            })
            .take(8)
            .collect();
        format!("it reads {}", if ranges.is_empty() { "nothing".to_owned() } else { ranges.join(", ") })
    }

    /// Deploys if there are enough executors.
    pub(super) fn try_deploy(&mut self, now: Millis, out: &mut Vec<Command>) {
        let since = match &self.state {
            State::Starting { since } => *since,
            State::BackingOff { .. } => now.saturating_sub(self.config.executors.wait_ms),
            State::Claiming | State::Deploying { .. } | State::Running(_) | State::Draining(_) | State::Done => return,
        };
        let waited = now >= since.saturating_add(self.config.executors.wait_ms);
        if self.executors.is_empty() || (self.executors.len() < self.config.executors.expected && !waited) {
            self.state = State::Starting { since };
            return;
        }
        self.deploy(now, out);
    }

    /// Begins the next attempt.
    pub(super) fn deploy(&mut self, now: Millis, out: &mut Vec<Command>) {
        self.attempt = self.attempt.next();
        let era = self.era();
        let tasks: Vec<TaskId> = self.config.shape.tasks(self.parallelism).collect();
        self.placement = schedule::place(&tasks, &self.slots(), &self.placement);
        let restore = self.checkpoints.newest().map(|c| Restore { epoch: c.epoch, tasks: c.tasks.clone() });
        let restored = restore.as_ref().map_or(Epoch(0), |r| r.epoch);
        let deployment = Deployment {
            era,
            job: self.config.job.clone(),
            fingerprint: self.config.shape.fingerprint,
            parallelism: self.parallelism,
            placement: self.placement.clone(),
            peers: self.executors.iter().map(|(id, e)| (id.clone(), e.shuffle.clone())).collect(),
            restore,
        };
        self.planner.restarted(self.failures.count);
        let attempt = Attempt::new(era, self.placement.clone(), restored, self.fold.head.last, now);
        out.push(Command::Report(Report::Deploying {
            era,
            restore: restored,
            replay_to: self.fold.head.last,
            executors: self.executors.len(),
        }));
        self.broadcast(&ToExecutor::Deploy(Box::new(deployment)), out);
        let waiting = self.executors.keys().cloned().collect();
        self.state = State::Deploying { attempt, waiting, since: now };
    }

    fn slots(&self) -> BTreeMap<ExecutorId, u16> {
        self.executors.iter().map(|(id, e)| (id.clone(), e.slots)).collect()
    }

    /// Takes executors in that joined since the last attempt. Only right after a checkpoint, when that costs next to nothing.
    pub(super) fn rebalance(&mut self, now: Millis, out: &mut Vec<Command>) {
        let State::Running(attempt) = &self.state else { return };
        let idle = self.executors.keys().any(|e| !attempt.hosts(e));
        if !idle {
            return;
        }
        let tasks: Vec<TaskId> = self.config.shape.tasks(self.parallelism).collect();
        let better = schedule::place(&tasks, &self.slots(), &self.placement);
        if schedule::moves(&self.placement, &better) > 0 {
            self.deploy(now, out);
        }
    }

    /// Heartbeat age and memory of every executor.
    pub fn health(&self, now: Millis) -> impl Iterator<Item = (&ExecutorId, Millis, u64)> {
        self.executors.iter().map(move |(id, e)| (id, now.saturating_sub(e.seen_at), e.memory_bytes))
    }
}
