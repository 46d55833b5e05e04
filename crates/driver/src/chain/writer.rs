//! The leader's end of the log: which record goes into which slot, and up to where the chain is durable.
//!
//! Records are appended without waiting for each other. A slot that turns out to hold a void record is skipped: the record that was
//! meant for it takes the next one, and those behind it wait until it has found its place (if they ran ahead, their own copies would
//! stand in its way for ever). So every slot that is passed over is known to be taken.
//!
//! A success reply proves that the record is in its slot, but not that we still lead: another driver may have claimed the log behind
//! it while we were asleep. So what is confirmed becomes durable only if the leadership was seen a short time ago
//! ([`CONFIRM_WITHIN_MS`]): by a success of an append that was sent since, or by a look at the slot after it. A look also asks for the
//! newest generation that anyone has claimed: the log may have been truncated beyond the place where we believe its end to be, and then
//! its slots look free.
use std::collections::VecDeque;

use millstream_plan::{ContentHash, Epoch, Generation};

use super::fold::FoldError;
use super::record::{Body, Record, Slot, WriterId};
use super::tip::{Tip, Verdict};
use crate::bugs::{Bug, planted};
use crate::shape::Millis;

/// How long after the leader last saw its generation in the log a success reply still counts by itself.
pub const CONFIRM_WITHIN_MS: Millis = 2_000;

/// What the store answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The record with this hash is in its slot, durably.
    Appended { slot: Slot, hash: ContentHash },
    /// The slot already holds these bytes.
    Refused { slot: Slot, hash: ContentHash, found: Vec<u8> },
    /// Nobody knows whether the record with this hash is in its slot: try again.
    Failed { slot: Slot, hash: ContentHash },
    /// What a look found: the slot's record, and the newest generation that anyone has claimed.
    Looked { slot: Slot, found: Option<Vec<u8>>, newest: Generation },
}

/// What the store is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriterCommand {
    /// Put the bytes into the slot if it is free.
    Append { slot: Slot, hash: ContentHash, bytes: Vec<u8> },
    /// Read the slot, and then the newest generation.
    Look { slot: Slot },
}

/// What a reply meant.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Nothing new.
    Nothing,
    /// All records up to this one are durable. `epoch` is the last plan among them, if it is newer than before.
    Durable { epoch: Option<Epoch> },
    /// Another driver's valid record stands where ours belongs: it leads now.
    Overtaken { record: Box<Record>, slot: Slot, hash: ContentHash },
    /// Another driver has claimed this generation.
    Replaced { generation: Generation },
}

#[derive(Clone, Debug)]
struct Pending {
    /// `None`: waits for those before it.
    slot: Option<Slot>,
    hash: ContentHash,
    /// End of the chain before it; its `next` is meaningless here.
    before: Tip,
    record: Record,
    sent_at: Millis,
    confirmed: bool,
    /// A plan that a later record takes out.
    void: bool,
}

/// Appends records for one leadership.
#[derive(Clone, Debug)]
pub struct Writer {
    generation: Generation,
    id: WriterId,
    /// End of the chain before everything appended.
    start: Tip,
    /// End of the chain after everything appended; its `next` is the slot after the last one used.
    tip: Tip,
    /// Not yet durable, in order.
    pending: VecDeque<Pending>,
    /// When a request was sent whose answer showed that nobody had claimed the log behind us.
    leading_since: Millis,
    /// A look is under way: (slot, sent at).
    look: Option<(Slot, Millis)>,
    durable: Option<Epoch>,
}

impl Writer {
    /// A writer that continues the chain at `tip` in this generation. The first thing that it appends must be its claim (or the genesis).
    #[must_use]
    pub fn new(tip: Tip, generation: Generation, id: WriterId) -> Self {
        Self {
            generation,
            id,
            start: tip.clone(),
            tip,
            pending: VecDeque::new(),
            leading_since: Millis::MIN,
            look: None,
            durable: None,
        }
    }

    /// The leadership.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// End of the chain that it continues.
    #[must_use]
    pub fn start(&self) -> &Tip {
        &self.start
    }

    /// Appends a record. Returns the end of the chain after it.
    pub fn append(&mut self, now: Millis, body: Body, out: &mut Vec<WriterCommand>) -> Tip {
        if let Body::Void { from } = &body {
            self.take_out(*from);
        }
        let record = Record { prev: self.tip.hash, generation: self.generation, writer: self.id.clone(), body };
        let hash = ContentHash::of(&record.encode());
        let before = self.tip.clone();
        let waits = self.pending.back().is_some_and(|p| p.slot.is_none());
        self.tip = Tip { next: before.next, ..before.after(&record, hash, before.next) };
        self.pending.push_back(Pending {
            slot: None,
            hash,
            before,
            record,
            sent_at: now,
            confirmed: false,
            void: false,
        });
        if !waits {
            self.place(now, out);
        }
        self.tip.clone()
    }

    /// Sends everything that waits, in order, into the slots after the last one used.
    fn place(&mut self, now: Millis, out: &mut Vec<WriterCommand>) {
        for at in 0..self.pending.len() {
            if self.pending[at].slot.is_none() {
                self.pending[at].slot = Some(self.tip.next);
                self.pending[at].sent_at = now;
                self.tip.next = self.tip.next.next();
                self.send(at, out);
            }
        }
    }

    /// Takes in what the store answered.
    ///
    /// # Errors
    /// A slot is damaged.
    pub fn reply(&mut self, now: Millis, reply: Reply, out: &mut Vec<WriterCommand>) -> Result<Outcome, FoldError> {
        match reply {
            Reply::Appended { slot, hash } => {
                if let Some(at) = self.position(slot, hash) {
                    self.confirm(at, now, out);
                }
            }
            Reply::Failed { slot, hash } => {
                if let Some(at) = self.position(slot, hash) {
                    self.send(at, out);
                }
            }
            Reply::Refused { slot, hash, found } => {
                if let Some(at) = self.position(slot, hash) {
                    if ContentHash::of(&found) == hash {
                        // Our own record: an earlier success reply was lost.
                        self.confirm(at, now, out);
                    } else {
                        let record = Record::decode(&found).map_err(|error| FoldError::Damaged { slot, error })?;
                        // A record of a higher generation that is not valid here may be valid where the chain really is.
                        let higher = record.generation > self.generation;
                        match self.pending[at].before.judge(&record) {
                            Verdict::Void(_) if !higher => self.skip(at, now, out),
                            Verdict::Valid | Verdict::Void(_) => {
                                let hash = ContentHash::of(&found);
                                return Ok(Outcome::Overtaken { record: Box::new(record), slot, hash });
                            }
                        }
                    }
                }
            }
            Reply::Looked { slot, found, newest } => {
                if let Some((_, sent_at)) = self.look.take_if(|(s, _)| *s == slot) {
                    if newest > self.generation && !planted(Bug::LookAtLogOnly) {
                        return Ok(Outcome::Replaced { generation: newest });
                    }
                    match found {
                        None => self.leading_since = self.leading_since.max(sent_at),
                        Some(found) => {
                            let record = Record::decode(&found).map_err(|error| FoldError::Damaged { slot, error })?;
                            let hash = ContentHash::of(&found);
                            if let Some(at) = self.pending.iter().position(|p| p.hash == hash) {
                                // Our own next record; its success counts as of the look only if it is where we sent it last.
                                if self.pending[at].slot == Some(slot) {
                                    self.leading_since = self.leading_since.max(sent_at);
                                }
                            } else if record.generation > self.generation {
                                return Ok(Outcome::Overtaken { record: Box::new(record), slot, hash });
                            } else {
                                // A void record of an old leader: the next free slot tells.
                                self.look = Some((slot.next(), now));
                                out.push(WriterCommand::Look { slot: slot.next() });
                            }
                        }
                    }
                }
            }
        }
        Ok(self.settle(now, out))
    }

    /// Looks whether anyone has claimed the log, so that [`leading_since`](Self::leading_since) becomes at least `now` if nobody has.
    pub fn look(&mut self, now: Millis, out: &mut Vec<WriterCommand>) {
        if self.look.is_none() {
            let slot = self.first_unconfirmed();
            self.look = Some((slot, now));
            out.push(WriterCommand::Look { slot });
        }
    }

    /// The leader has seen at this time or later that nobody had claimed the log behind it.
    #[must_use]
    pub fn leading_since(&self) -> Millis {
        self.leading_since
    }

    /// The slot in which a claim against us would stand.
    fn first_unconfirmed(&self) -> Slot {
        self.pending.iter().find(|p| !p.confirmed).and_then(|p| p.slot).unwrap_or(self.tip.next)
    }

    fn position(&self, slot: Slot, hash: ContentHash) -> Option<usize> {
        self.pending.iter().position(|p| p.slot == Some(slot) && p.hash == hash && !p.confirmed)
    }

    fn confirm(&mut self, at: usize, now: Millis, out: &mut Vec<WriterCommand>) {
        self.pending[at].confirmed = true;
        // Everything before it is in its slot: then nobody had claimed the log when this record was put into its own.
        if self.pending.iter().take(at).all(|p| p.confirmed) {
            self.leading_since = self.leading_since.max(self.pending[at].sent_at);
        }
        // Those that wait may go when all that were sent have their places.
        if self.pending.iter().all(|p| p.confirmed || p.slot.is_none()) {
            self.place(now, out);
        }
    }

    /// Sends a record, again with its first time: a success may be that of the first request.
    fn send(&self, at: usize, out: &mut Vec<WriterCommand>) {
        let pending = &self.pending[at];
        if let Some(slot) = pending.slot {
            out.push(WriterCommand::Append { slot, hash: pending.hash, bytes: pending.record.encode() });
        }
    }

    /// The slot of `pending[at]` holds a void record: it takes the next one, and those behind it wait.
    fn skip(&mut self, at: usize, now: Millis, out: &mut Vec<WriterCommand>) {
        for pending in self.pending.iter_mut().skip(at + 1) {
            pending.slot = None;
            pending.confirmed = false;
        }
        let pending = &mut self.pending[at];
        pending.slot = pending.slot.map(Slot::next);
        pending.sent_at = now;
        if let Some(slot) = pending.slot {
            self.tip.next = slot.next();
        }
        self.send(at, out);
    }

    /// Makes durable what can be.
    fn settle(&mut self, now: Millis, out: &mut Vec<WriterCommand>) -> Outcome {
        if planted(Bug::DurableWithGaps) {
            let epoch = self.pending.iter().rev().filter(|p| p.confirmed).find_map(plan_epoch);
            return self.advance(epoch);
        }
        if !self.pending.front().is_some_and(|p| p.confirmed) {
            return Outcome::Nothing;
        }
        if now.saturating_sub(self.leading_since) > CONFIRM_WITHIN_MS {
            self.look(now, out);
            return Outcome::Nothing;
        }
        let mut epoch = None;
        while let Some(done) = self.pending.pop_front_if(|p| p.confirmed) {
            epoch = plan_epoch(&done).or(epoch);
        }
        self.advance(epoch)
    }

    fn advance(&mut self, epoch: Option<Epoch>) -> Outcome {
        let newer = epoch.filter(|e| self.durable.is_none_or(|d| *e > d));
        self.durable = newer.or(self.durable);
        Outcome::Durable { epoch: newer }
    }

    /// Epochs from here on will be planned again: what is or becomes durable of the old ones counts no more.
    fn take_out(&mut self, from: Epoch) {
        self.durable = self.durable.map(|d| d.min(Epoch(from.0.saturating_sub(1))));
        for pending in &mut self.pending {
            pending.void |= plan_epoch(pending).is_some_and(|e| e >= from);
        }
    }
}

fn plan_epoch(pending: &Pending) -> Option<Epoch> {
    match &pending.record.body {
        Body::Plan(plan) if !pending.void => Some(plan.epoch),
        Body::Plan(_) | Body::Genesis(_) | Body::Claim(_) | Body::Void { .. } => None,
    }
}

#[cfg(test)]
mod tests;
