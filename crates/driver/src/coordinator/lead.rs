//! Leadership: the claim, and what the log answers.
use millstream_plan::{ContentHash, Epoch, Generation};
use millstream_protocol::messages::ToExecutor;

use super::{Command, Coordinator, Exit, Report, State};
use crate::chain::{Body, Claim, Genesis, Outcome, Record, Reply, Slot, Tip, Writer, WriterCommand};
use crate::shape::Millis;

/// Longest time in which a leader does not notice that it has been replaced.
const LOOK_EVERY_MS: Millis = 3_000;

impl Coordinator {
    pub(super) fn generation_claimed(&mut self, now: Millis, holder: Option<String>, out: &mut Vec<Command>) {
        match (&self.state, holder) {
            (State::Claiming, None) => self.claim(now, out),
            (State::Claiming, Some(holder)) => self.replaced(self.writer.generation(), &holder, out),
            (
                State::Starting { .. }
                | State::BackingOff { .. }
                | State::Deploying { .. }
                | State::Running(_)
                | State::Draining(_)
                | State::Done,
                _,
            ) => {}
        }
    }

    fn replaced(&mut self, generation: Generation, who: &str, out: &mut Vec<Command>) {
        let message = format!(
            "another driver ({who}) leads pipeline '{}' in generation {generation}; this one (generation {}) stops",
            self.config.shape.name,
            self.writer.generation()
        );
        self.exit(Exit::Fenced(message), out);
    }

    /// Appends the first record of this leadership.
    pub(super) fn claim(&mut self, now: Millis, out: &mut Vec<Command>) {
        let body = match self.fold.tip.generation {
            Generation(0) => Body::Genesis(Genesis {
                pipeline: self.config.shape.name.clone(),
                fingerprint: self.config.shape.fingerprint,
                parallelism: self.parallelism,
                options: self.config.options.clone(),
            }),
            Generation(_) => Body::Claim(Claim { host: self.config.host.clone(), at_ms: now }),
        };
        if let Body::Genesis(genesis) = &body {
            self.fold.genesis = Some(genesis.clone());
        }
        self.fold.tip = self.append(now, body, out);
    }

    pub(super) fn append(&mut self, now: Millis, body: Body, out: &mut Vec<Command>) -> Tip {
        let mut commands = Vec::new();
        let tip = self.writer.append(now, body, &mut commands);
        out.extend(commands.into_iter().map(Command::Log));
        tip
    }

    pub(super) fn log(&mut self, now: Millis, reply: Reply, out: &mut Vec<Command>) {
        let mut commands: Vec<WriterCommand> = Vec::new();
        let outcome = self.writer.reply(now, reply, &mut commands);
        out.extend(commands.into_iter().map(Command::Log));
        match outcome {
            Err(error) => self.broken(&error, out),
            Ok(Outcome::Nothing) => {}
            Ok(Outcome::Durable { epoch }) => self.durable(now, epoch, out),
            Ok(Outcome::Overtaken { record, slot, hash }) => self.overtaken(now, &record, slot, hash, out),
            Ok(Outcome::Replaced { generation }) => self.replaced(generation, "a newer one", out),
        }
        self.collect_if_leading(now, out);
    }

    fn durable(&mut self, now: Millis, epoch: Option<Epoch>, out: &mut Vec<Command>) {
        match &mut self.state {
            State::Claiming => {
                // Everything that stands before the claim is adopted.
                self.durable = self.fold.head.last;
                self.state = State::Starting { since: now };
                out.push(Command::Report(Report::Leading { era: self.era(), adopted: self.durable }));
                if self.is_finished() {
                    self.exit(Exit::Finished, out);
                } else {
                    self.try_deploy(now, out);
                }
            }
            State::Starting { .. } | State::BackingOff { .. } | State::Deploying { .. } => {
                self.durable = epoch.unwrap_or(self.durable);
            }
            State::Running(attempt) | State::Draining(attempt) => {
                if let Some(epoch) = epoch {
                    self.durable = epoch;
                    for flight in attempt.flights.range_mut(..=epoch).map(|(_, f)| f) {
                        flight.durable_at.get_or_insert(now);
                    }
                    let era = attempt.era;
                    self.broadcast(&ToExecutor::Durable { era, epoch }, out);
                }
            }
            State::Done => {}
        }
    }

    /// The whole input is processed, published and in a checkpoint.
    pub(super) fn is_finished(&self) -> bool {
        self.fold.head.ended && self.checkpoints.newest().is_some_and(|c| c.epoch == self.fold.head.last)
    }

    fn overtaken(&mut self, now: Millis, record: &Record, slot: Slot, hash: ContentHash, out: &mut Vec<Command>) {
        let adopt = match (&self.state, &record.body) {
            // The old leader was quicker: what it wrote stands before our claim.
            (State::Claiming, Body::Plan(_) | Body::Void { .. }) => true,
            (State::Claiming, Body::Claim(_) | Body::Genesis(_)) => false,
            (
                State::Starting { .. }
                | State::BackingOff { .. }
                | State::Deploying { .. }
                | State::Running(_)
                | State::Draining(_)
                | State::Done,
                Body::Plan(_) | Body::Void { .. } | Body::Claim(_) | Body::Genesis(_),
            ) => false,
        };
        if !adopt {
            self.replaced(record.generation, &record.writer.0, out);
            return;
        }
        // The claim that was refused has moved the end of our chain: go back to the record before it.
        self.fold.tip = self.writer.start().clone();
        self.fold.tip.next = slot;
        if let Err(error) = self.fold.take(record, hash, slot) {
            self.broken(&error, out);
            return;
        }
        self.planner.rewind(self.fold.head.clone(), self.fold.last_checkpoint(), now);
        let tip = self.fold.tip.clone();
        self.writer = Writer::new(tip, self.writer.generation(), self.config.writer.clone());
        self.claim(now, out);
    }

    /// A leader that has nothing to append would never learn that it has been replaced: it looks from time to time.
    pub(super) fn look_around(&mut self, now: Millis, out: &mut Vec<Command>) {
        if now.saturating_sub(self.writer.leading_since()) > LOOK_EVERY_MS {
            self.look(now, out);
        }
    }

    fn look(&mut self, now: Millis, out: &mut Vec<Command>) {
        let mut commands = Vec::new();
        self.writer.look(now, &mut commands);
        out.extend(commands.into_iter().map(Command::Log));
    }

    /// Truncates and collects if nobody claimed the log since the newest manifest was written.
    pub(super) fn collect_if_leading(&mut self, now: Millis, out: &mut Vec<Command>) {
        let Some(wanted_at) = self.checkpoints.collect_wanted() else { return };
        if self.writer.leading_since() < wanted_at {
            self.look(now, out);
            return;
        }
        let protected = match &self.state {
            State::Deploying { attempt, .. } | State::Running(attempt) | State::Draining(attempt) => attempt
                .uploads
                .values()
                .flat_map(|tasks| tasks.values())
                .flat_map(|state| state.files.iter().map(|f| f.hash))
                .collect(),
            State::Claiming | State::Starting { .. } | State::BackingOff { .. } | State::Done => Default::default(),
        };
        out.push(self.checkpoints.collect(self.config.keep_checkpoints, protected));
    }
}
