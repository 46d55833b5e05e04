//! The steady state: what executors say, and the next epochs.
use millstream_plan::{Epoch, ExecutorId, TaskId};
use millstream_protocol::messages::{TaskDone, ToDriver, ToExecutor};

use super::attempt::{Attempt, Flight};
use super::{Command, Coordinator, EpochReport, Exit, Report, State};
use crate::bugs::{Bug, planted};
use crate::chain::Body;
use crate::planner::{Admission, EpochDone, Next};
use crate::shape::Millis;

/// Crashes in the same epoch after which it is planned again, smaller, if nothing of it is published.
const VOID_AFTER_CRASHES: u32 = 3;
/// Shortest checkpoint interval that slow replays lead to.
const MIN_CHECKPOINT_INTERVAL_MS: u64 = 1_000;
/// Published positions are told to lag tools this often.
const TELL_EVERY_MS: Millis = 1_000;

impl Coordinator {
    pub(super) fn message(&mut self, now: Millis, from: &ExecutorId, message: ToDriver, out: &mut Vec<Command>) {
        let Some(executor) = self.executors.get_mut(from) else { return };
        executor.seen_at = now;
        let current = match &self.state {
            State::Deploying { attempt, .. } | State::Running(attempt) | State::Draining(attempt) => Some(attempt.era),
            State::Claiming | State::Starting { .. } | State::BackingOff { .. } | State::Done => None,
        };
        let is_current = |era| Some(era) == current || planted(Bug::OldErasAccepted);
        match message {
            ToDriver::Heartbeat { memory_bytes } => executor.memory_bytes = memory_bytes,
            ToDriver::Bye => self.left(now, from, "it said good-bye", out),
            ToDriver::Hello(hello) => self.joined(now, hello, out),
            ToDriver::Ready { era } if is_current(era) => self.ready(now, from, out),
            ToDriver::TaskDone(done) if is_current(done.era) => self.task_done(now, *done, out),
            ToDriver::Published { era, sink, task, epoch, rows, bytes } if is_current(era) => {
                if let State::Deploying { attempt, .. } | State::Running(attempt) | State::Draining(attempt) =
                    &mut self.state
                {
                    attempt.task_published(sink, task, epoch, rows, bytes);
                }
                self.published(now, out);
                self.complete_checkpoint(out);
                self.pump(now, out);
            }
            ToDriver::Uploaded { era, task, epoch, state } if is_current(era) => {
                let newest = self.checkpoints.epoch();
                if let State::Running(attempt) | State::Draining(attempt) = &mut self.state
                    && epoch > newest
                {
                    attempt.uploads.entry(epoch).or_default().insert(task, state);
                }
                self.complete_checkpoint(out);
            }
            ToDriver::Failed { era, task, epoch, failure } if is_current(era) => {
                self.failed(now, task, epoch, failure, out);
            }
            // Of an attempt that is given up.
            ToDriver::Ready { .. }
            | ToDriver::TaskDone(_)
            | ToDriver::Published { .. }
            | ToDriver::Uploaded { .. }
            | ToDriver::Failed { .. } => {}
        }
    }

    fn ready(&mut self, now: Millis, from: &ExecutorId, out: &mut Vec<Command>) {
        if let State::Deploying { waiting, .. } = &mut self.state {
            waiting.remove(from);
            if planted(Bug::DispatchBeforeAllReady) {
                waiting.clear();
            }
        }
        self.run_if_ready(now, out);
    }

    /// Leaves `Deploying` when nobody is waited for.
    pub(super) fn run_if_ready(&mut self, now: Millis, out: &mut Vec<Command>) {
        let State::Deploying { attempt, waiting, .. } = &mut self.state else { return };
        if !waiting.is_empty() {
            return;
        }
        let attempt = attempt.clone();
        let era = attempt.era;
        self.state = match self.stop {
            Some(_) => State::Draining(attempt),
            None => State::Running(attempt),
        };
        if self.stop.is_some() {
            self.planner.finish();
        }
        self.void_if_stuck(now, out);
        self.broadcast(&ToExecutor::Durable { era, epoch: self.durable }, out);
        self.pump(now, out);
    }

    /// Takes epochs that kill their executors out of the chain, if all sinks are fenced and have told what they published. Their input is
    /// planned again in smaller parts. Sinks that publish files are not fenced, so their epochs stay.
    fn void_if_stuck(&mut self, now: Millis, out: &mut Vec<Command>) {
        let (State::Running(attempt) | State::Draining(attempt)) = &mut self.state else { return };
        let fenced = self.config.shape.sinks.iter().all(|s| s.commit_interval_ms.is_none());
        if self.failures.crashes < VOID_AFTER_CRASHES || !fenced {
            return;
        }
        let Some(published) = attempt.newest_published(self.config.shape.sink_tasks(self.parallelism)) else { return };
        let from = match planted(Bug::VoidPublished) {
            true => self.failures.epoch,
            false => self.failures.epoch.max(published.next()),
        };
        let unpublished = self.fold.plans.iter().filter(|p| p.plan.epoch >= from).map(|p| p.plan.positions());
        let Some(largest) = unpublished.max().filter(|largest| *largest > 1) else { return };
        if from <= attempt.restored {
            return;
        }
        let tip = self.append(now, Body::Void { from }, out);
        let (State::Running(attempt) | State::Draining(attempt)) = &mut self.state else { return };
        attempt.replay_to = from.previous().unwrap_or_default();
        self.durable = self.durable.min(attempt.replay_to);
        if let Err(error) = self.fold.void_appended(from, tip) {
            self.broken(&error, out);
            return;
        }
        self.planner.rewind(self.fold.head.clone(), self.fold.last_checkpoint(), now);
        self.planner.too_large(largest);
        out.push(Command::Report(Report::Voided { from }));
    }

    fn task_done(&mut self, now: Millis, done: TaskDone, out: &mut Vec<Command>) {
        let (State::Running(attempt) | State::Draining(attempt)) = &mut self.state else { return };
        let (epoch, before) = (done.epoch, attempt.done_at);
        self.planner.report(done.task, &done.splits, &done.operators, now);
        let tasks = self.config.shape.stages.len() * usize::from(self.parallelism);
        if !attempt.task_done(done, tasks, now) {
            // A source's report may have made a timer due.
            self.pump(now, out);
            return;
        }
        self.failures.progress(epoch);
        if let (Some(flight), Some(logged)) = (attempt.flights.get(&epoch), self.fold.plan(epoch)) {
            let begun = flight.dispatched_at.max(before);
            self.planner.epoch_done(&EpochDone {
                plan: &logged.plan,
                splits: &flight.splits,
                service_ms: u64::try_from(now.saturating_sub(begun)).unwrap_or(0),
                output_bytes: flight.output_bytes,
                unsealed_bytes: flight.unsealed_bytes,
                executors: attempt.executors(),
            });
            out.push(Command::Report(Report::Epoch(Box::new(EpochReport {
                era: attempt.era,
                plan: logged.plan.clone(),
                replayed: epoch <= attempt.replay_to,
                dispatched_at: flight.dispatched_at,
                done_at: now,
                durable_after_ms: flight.durable_at.and_then(|at| u64::try_from(at - flight.dispatched_at).ok()),
                splits: flight.splits.clone(),
                operators: flight.operators.values().cloned().collect(),
                busy_micros: flight.busy_micros,
                output_bytes: flight.output_bytes,
                latest: self.config.shape.sources.iter().map(|s| (s.id, self.planner.latest(s.id))).collect(),
                backlog: self.config.shape.sources.iter().map(|s| (s.id, self.planner.backlog(s.id))).collect(),
            }))));
        }
        if epoch >= attempt.replay_to
            && let Some(since) = attempt.recovering_since.take()
        {
            let duration_ms = u64::try_from(now.saturating_sub(since)).unwrap_or(0);
            out.push(Command::Report(Report::Recovered { era: attempt.era, duration_ms }));
            if attempt.replay_to > attempt.restored && duration_ms > self.config.replay_target_ms {
                let interval = self.config.plan.checkpoint_interval_ms * self.config.replay_target_ms / duration_ms;
                let floor = MIN_CHECKPOINT_INTERVAL_MS.min(self.config.plan.checkpoint_interval_ms);
                self.planner.set_checkpoint_interval(interval.max(floor));
            }
        }
        self.published(now, out);
        self.complete_checkpoint(out);
        self.pump(now, out);
    }

    /// Tells what all sinks have published and forgets those epochs.
    fn published(&mut self, now: Millis, out: &mut Vec<Command>) {
        let (State::Running(attempt) | State::Draining(attempt)) = &mut self.state else { return };
        let published = attempt.published_by(self.config.shape.sink_tasks(self.parallelism)).min(attempt.done);
        if published <= attempt.published_all {
            return;
        }
        attempt.published_all = published;
        while let Some(entry) = attempt.flights.first_entry()
            && *entry.key() <= published
        {
            let (epoch, flight) = entry.remove_entry();
            out.push(Command::Report(Report::Published {
                epoch,
                after_ms: u64::try_from(now.saturating_sub(flight.dispatched_at)).unwrap_or(0),
                rows: flight.published_rows,
                bytes: flight.published_bytes,
            }));
        }
        if now >= self.told_at.saturating_add(TELL_EVERY_MS)
            && let Some(history) = self.fold.history_at(published)
        {
            self.told_at = now;
            let positions = history
                .sources
                .into_iter()
                .map(|(id, source)| (id, source.splits.into_iter().map(|(split, h)| (split, h.next)).collect()));
            out.push(Command::Published { positions: positions.collect() });
        }
    }

    /// Dispatches as many epochs as are admitted: first those of the chain, then new ones.
    pub(super) fn pump(&mut self, now: Millis, out: &mut Vec<Command>) {
        loop {
            let (State::Running(attempt) | State::Draining(attempt)) = &self.state else { return };
            // After crashes in a row one at a time, so that the epoch that is to blame shows itself.
            let most = if self.failures.crashes > 1 { 1 } else { self.config.max_in_flight };
            if attempt.in_flight() >= most
                || (attempt.in_flight() > 0 && attempt.in_flight_bytes() >= self.config.max_in_flight_bytes)
            {
                return;
            }
            if attempt.next <= self.fold.head.last {
                if !self.dispatch(now, attempt.next, out) {
                    return;
                }
                continue;
            }
            if self.is_congested(attempt) {
                return;
            }
            let admission = Admission {
                in_flight: attempt.in_flight(),
                checkpoint: !self.checkpoints.is_writing()
                    && self.planner.last_checkpoint() <= self.checkpoints.epoch(),
            };
            match self.planner.next(now, admission) {
                Next::Wait { .. } => return,
                Next::Complete => {
                    self.complete(out);
                    return;
                }
                Next::Plan(plan) => {
                    let tip = self.append(now, Body::Plan((*plan).clone()), out);
                    if let Err(error) = self.fold.plan_appended(*plan, tip) {
                        self.broken(&error, out);
                        return;
                    }
                }
            }
        }
    }

    /// So much is processed and waits for its sinks that the source has to wait.
    fn is_congested(&self, attempt: &Attempt) -> bool {
        let gathering = self.config.shape.sinks.iter().any(|s| s.commit_interval_ms.is_some());
        let waits_for_sinks = attempt.unpublished(gathering);
        waits_for_sinks >= self.config.max_unpublished
            || (waits_for_sinks > 0 && attempt.unpublished_bytes() >= self.config.max_unpublished_bytes)
    }

    fn dispatch(&mut self, now: Millis, epoch: Epoch, out: &mut Vec<Command>) -> bool {
        let Some(logged) = self.fold.plan(epoch) else { return false };
        let plan = logged.plan.clone();
        let (State::Running(attempt) | State::Draining(attempt)) = &mut self.state else { return false };
        attempt.next = epoch.next();
        let expected_bytes = self.planner.expected_bytes(&plan);
        let durable_at = (epoch <= self.durable).then_some(now);
        let flight = Flight { dispatched_at: now, durable_at, expected_bytes, flush: plan.flush, ..Flight::default() };
        attempt.flights.insert(epoch, flight);
        if plan.checkpoint {
            attempt.checkpoints.insert(epoch, now);
        }
        let era = attempt.era;
        self.broadcast(&ToExecutor::Run { era, plan }, out);
        if planted(Bug::PublishBeforeDurable) {
            self.broadcast(&ToExecutor::Durable { era, epoch }, out);
        }
        true
    }

    /// Nothing more will be planned: ends when the checkpoint of the last epoch is there.
    fn complete(&mut self, out: &mut Vec<Command>) {
        let last = self.fold.head.last;
        if let State::Running(attempt) = &self.state {
            self.state = State::Draining(attempt.clone());
        }
        if last == self.checkpoints.epoch() {
            let exit = if self.fold.head.ended { Exit::Finished } else { Exit::Drained };
            self.exit(exit, out);
        }
    }

    /// When a tick is needed at the latest although nothing happens: `None` means that the usual pace will do.
    #[must_use]
    pub fn wakeup(&self, now: Millis) -> Option<Millis> {
        match &self.state {
            State::BackingOff { until } => Some(*until),
            State::Running(attempt) | State::Draining(attempt) if attempt.next > self.fold.head.last => {
                self.planner.wakeup_at(now, attempt.in_flight())
            }
            State::Running(_)
            | State::Draining(_)
            | State::Claiming
            | State::Starting { .. }
            | State::Deploying { .. }
            | State::Done => None,
        }
    }

    /// Where a task runs.
    #[must_use]
    pub fn host(&self, task: TaskId) -> Option<&ExecutorId> {
        self.placement.get(&task)
    }
}
