//! What a chain means: which epochs there are, and where every source stands after the last of them.
use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

use millstream_plan::{ContentHash, Epoch, EpochPlan, SourceId, SplitId, Watermark};
use serde::{Deserialize, Serialize};

use super::record::{Body, Genesis, Record, RecordError, Slot};
use super::tip::{Tip, Verdict};
use crate::bugs::{Bug, planted};

/// Where a pipeline stands after an epoch. A function of the plans up to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The epoch.
    pub last: Epoch,
    /// `now_ms` of that epoch.
    pub now_ms: i64,
    /// That epoch was the last one.
    #[serde(default)]
    pub ended: bool,
    pub sources: BTreeMap<SourceId, SourceHistory>,
}

/// Where a source stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceHistory {
    pub watermark: Watermark,
    pub splits: BTreeMap<SplitId, SplitHistory>,
}

/// Where a split stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitHistory {
    /// The source task that reads it.
    pub task: u16,
    /// First position of its first range.
    pub start: u64,
    /// Position after the last planned range.
    pub next: u64,
    /// Tag of the last planned range.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tag: String,
}

impl History {
    /// Takes the next epoch in.
    ///
    /// # Errors
    /// The plan does not continue this history.
    pub fn apply(&mut self, plan: &EpochPlan) -> Result<(), FoldError> {
        let broken = |what: String| FoldError::Broken { epoch: plan.epoch, what };
        if self.ended || plan.epoch != self.last.next() {
            return Err(broken(format!("it follows epoch {} (ended: {})", self.last, self.ended)));
        }
        if plan.now_ms < self.now_ms {
            return Err(broken(format!("its time {} is before {}", plan.now_ms, self.now_ms)));
        }
        for source in &plan.sources {
            let history = self.sources.entry(source.source).or_default();
            if source.watermark < history.watermark {
                return Err(broken(format!("the watermark of source {} goes back", source.source)));
            }
            history.watermark = source.watermark;
            for range in &source.ranges {
                match history.splits.get_mut(&range.split) {
                    Some(split) if split.next > range.from || range.to <= range.from || split.task != range.task => {
                        return Err(broken(format!(
                            "its range of split {} does not follow {}",
                            range.split, split.next
                        )));
                    }
                    Some(split) => {
                        split.next = range.to;
                        split.tag.clone_from(&range.tag);
                    }
                    None => {
                        let split = SplitHistory {
                            task: range.task,
                            start: range.from,
                            next: range.to,
                            tag: range.tag.clone(),
                        };
                        history.splits.insert(range.split.clone(), split);
                    }
                }
            }
        }
        self.last = plan.epoch;
        self.now_ms = plan.now_ms;
        self.ended = plan.last;
        Ok(())
    }
}

/// A plan and its record.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedPlan {
    pub plan: EpochPlan,
    /// End of the chain after its record.
    pub tip: Tip,
}

/// A chain as it is read: from its first slot, or from a checkpoint on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fold {
    /// End of the chain.
    pub tip: Tip,
    /// `None` before the first record.
    pub genesis: Option<Genesis>,
    /// After the oldest epoch that can be replayed from.
    pub base: History,
    /// Every plan after `base`, in order.
    pub plans: VecDeque<LoggedPlan>,
    /// After all of `plans`.
    pub head: History,
}

/// The log cannot be read. Nobody may go on from it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    #[error("slot {slot} of the plan log is damaged: {error}; restore it from another copy of the log")]
    Damaged { slot: Slot, error: RecordError },
    #[error("epoch {epoch} of the plan log does not fit: {what}")]
    Broken { epoch: Epoch, what: String },
    #[error("the plan log makes epoch {from} void, but a checkpoint of epoch {base} stands on it")]
    VoidBelowBase { from: Epoch, base: Epoch },
}

impl Fold {
    /// A chain that is read from a checkpoint on.
    #[must_use]
    pub fn from_checkpoint(genesis: Genesis, tip: Tip, history: History) -> Self {
        Self { tip, genesis: Some(genesis), base: history.clone(), plans: VecDeque::new(), head: history }
    }

    /// Reads what stands in `slot`, which must be the slot after the last one read.
    ///
    /// # Errors
    /// The slot is damaged, or a valid record says something impossible.
    pub fn read(&mut self, slot: Slot, bytes: &[u8]) -> Result<Verdict, FoldError> {
        let record = Record::decode(bytes).map_err(|error| FoldError::Damaged { slot, error })?;
        let verdict = self.tip.judge(&record);
        match verdict {
            Verdict::Valid => self.take(&record, ContentHash::of(bytes), slot)?,
            Verdict::Void(_) => self.tip.next = slot.next(),
        }
        Ok(verdict)
    }

    /// Reads a listing of slots in ascending order up to the first free slot; slots before the end of the chain are passed over.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_listing<B: AsRef<[u8]>>(
        &mut self,
        slots: impl IntoIterator<Item = (Slot, B)>,
    ) -> Result<(), FoldError> {
        for (slot, bytes) in slots {
            if planted(Bug::ClaimAfterGap) {
                self.tip.next = self.tip.next.max(slot);
            }
            match slot.cmp(&self.tip.next) {
                Ordering::Less => {}
                Ordering::Equal => {
                    self.read(slot, bytes.as_ref())?;
                }
                Ordering::Greater => break,
            }
        }
        Ok(())
    }

    /// Takes in a valid record.
    ///
    /// # Errors
    /// The record says something impossible.
    pub fn take(&mut self, record: &Record, hash: ContentHash, slot: Slot) -> Result<(), FoldError> {
        let tip = self.tip.after(record, hash, slot);
        match &record.body {
            Body::Genesis(genesis) => self.genesis = Some(genesis.clone()),
            Body::Claim(_) => {}
            Body::Plan(plan) => {
                self.head.apply(plan)?;
                self.plans.push_back(LoggedPlan { plan: plan.clone(), tip: tip.clone() });
            }
            Body::Void { from } => self.void(*from)?,
        }
        self.tip = tip;
        Ok(())
    }

    /// Takes in a plan that this driver has appended; `tip` is the end of the chain after it.
    ///
    /// # Errors
    /// The plan does not follow.
    pub fn plan_appended(&mut self, plan: EpochPlan, tip: Tip) -> Result<(), FoldError> {
        self.head.apply(&plan)?;
        self.plans.push_back(LoggedPlan { plan, tip: tip.clone() });
        self.tip = tip;
        Ok(())
    }

    /// Takes in a void record that this driver has appended.
    ///
    /// # Errors
    /// A checkpoint stands on an epoch that it takes out.
    pub fn void_appended(&mut self, from: Epoch, tip: Tip) -> Result<(), FoldError> {
        self.void(from)?;
        self.tip = tip;
        Ok(())
    }

    fn void(&mut self, from: Epoch) -> Result<(), FoldError> {
        if from <= self.base.last {
            return Err(FoldError::VoidBelowBase { from, base: self.base.last });
        }
        self.plans.retain(|p| p.plan.epoch < from);
        self.head = self.base.clone();
        for logged in &self.plans {
            self.head.apply(&logged.plan)?;
        }
        Ok(())
    }

    /// The last epoch that takes a checkpoint, complete or not.
    #[must_use]
    pub fn last_checkpoint(&self) -> Epoch {
        self.plans.iter().rev().find(|p| p.plan.checkpoint).map_or(self.base.last, |p| p.plan.epoch)
    }

    /// The plan of this epoch, if it is after the base.
    #[must_use]
    pub fn plan(&self, epoch: Epoch) -> Option<&LoggedPlan> {
        let index = epoch.0.checked_sub(self.base.last.0 + 1)?;
        self.plans.get(usize::try_from(index).ok()?)
    }

    /// Where the pipeline stood after this epoch, if it is not before the base.
    #[must_use]
    pub fn history_at(&self, epoch: Epoch) -> Option<History> {
        let mut history = self.base.clone();
        for logged in self.plans.iter().take_while(|p| p.plan.epoch <= epoch) {
            history.apply(&logged.plan).ok()?;
        }
        (history.last == epoch).then_some(history)
    }

    /// Forgets plans up to this epoch: nothing before it will be replayed.
    pub fn rebase(&mut self, epoch: Epoch) {
        if let Some(history) = self.history_at(epoch) {
            self.base = history;
            self.plans.retain(|p| p.plan.epoch > epoch);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::chain::{Claim, WriterId};
    use millstream_plan::{Generation, SourcePlan, SplitRange};

    fn plan(epoch: u64, from: u64, to: u64) -> EpochPlan {
        EpochPlan {
            epoch: Epoch(epoch),
            now_ms: epoch as i64,
            sources: vec![SourcePlan {
                source: SourceId(0),
                watermark: Watermark(epoch as i64),
                ranges: vec![SplitRange { split: "s".into(), task: 0, from, to, tag: String::new() }],
            }],
            checkpoint: false,
            flush: false,
            last: false,
        }
    }

    struct Log(Vec<Vec<u8>>, ContentHash);

    impl Log {
        fn push(&mut self, generation: u64, body: Body) -> &mut Self {
            let record =
                Record { prev: self.1, generation: Generation(generation), writer: WriterId("w".into()), body };
            let bytes = record.encode();
            self.1 = ContentHash::of(&bytes);
            self.0.push(bytes);
            self
        }
    }

    fn read(log: &Log) -> Fold {
        let mut fold = Fold::default();
        for (slot, bytes) in log.0.iter().enumerate() {
            fold.read(Slot(slot as u64), bytes).unwrap();
        }
        fold
    }

    #[test]
    fn void_takes_epochs_back_and_others_may_follow() {
        let mut log = Log(Vec::new(), ContentHash::default());
        log.push(1, Body::Genesis(Genesis::default()))
            .push(1, Body::Plan(plan(1, 0, 5)))
            .push(1, Body::Plan(plan(2, 5, 9)))
            .push(2, Body::Claim(Claim::default()))
            .push(2, Body::Void { from: Epoch(2) })
            .push(2, Body::Plan(plan(2, 5, 6)));
        let mut fold = read(&log);
        assert_eq!(fold.head.last, Epoch(2));
        assert_eq!(fold.head.sources[&SourceId(0)].splits[&"s".into()].next, 6);
        assert_eq!(fold.plan(Epoch(2)).unwrap().plan, plan(2, 5, 6));
        assert_eq!(fold.history_at(Epoch(1)).unwrap().sources[&SourceId(0)].splits[&"s".into()].next, 5);
        fold.rebase(Epoch(1));
        assert_eq!((fold.plan(Epoch(1)), fold.plans.len()), (None, 1));
        assert!(matches!(fold.void(Epoch(1)), Err(FoldError::VoidBelowBase { .. })));
    }

    #[test]
    fn a_late_record_of_an_old_leader_is_skipped() {
        let mut log = Log(Vec::new(), ContentHash::default());
        log.push(1, Body::Genesis(Genesis::default())).push(1, Body::Plan(plan(1, 0, 5)));
        let before_claim = log.1;
        log.push(2, Body::Claim(Claim::default()));
        let after_claim = log.1;
        log.1 = before_claim;
        log.push(1, Body::Plan(plan(2, 5, 7)));
        log.1 = after_claim;
        log.push(2, Body::Plan(plan(2, 5, 9)));
        let fold = read(&log);
        assert_eq!(fold.head.sources[&SourceId(0)].splits[&"s".into()].next, 9);
        assert_eq!(fold.tip.next, Slot(5));
    }

    #[test]
    fn plans_that_do_not_follow_are_refused() {
        let mut history = History::default();
        history.apply(&plan(1, 0, 5)).unwrap();
        assert!(history.clone().apply(&plan(3, 5, 6)).is_err());
        assert!(history.clone().apply(&plan(2, 4, 6)).is_err());
        assert!(history.clone().apply(&EpochPlan { now_ms: 0, ..plan(2, 5, 6) }).is_err());
        history.apply(&plan(2, 5, 6)).unwrap();
    }
}
