//! Joins with a table that is looked up ([`Meets::Known`](crate::graph::Meets::Known)): a left row meets the right rows that have come before it
//! and is gone.
//!
//! Linear in the left input: its weights pass through, nothing waits, no left row is kept. Right rows are only added, or each takes the place
//! of the one with its key.
use arrow::array::{Array, BooleanArray, Int64Array, UInt32Array};
use arrow::compute::{filter_record_batch, take};
use arrow::record_batch::RecordBatch;
use datafusion::error::Result;

use super::Core;
use super::keys::{Keys, split_nulls};
use super::side::NONE;
use crate::DeltaBatch;
use crate::graph::JoinKind;
use crate::operators::{BATCH_ROWS, Step};

/// Where the work stands.
pub(super) struct Lookup {
    /// Columns of [`Meets::Known`](crate::graph::Meets::Known).
    replaces: Vec<usize>,
    /// `None`: has to be made from the state.
    newest: Option<Newest>,
    probe: Option<Probe>,
}

/// The one row of each key.
struct Newest {
    keys: Keys,
    ids: Vec<u64>,
}

/// A left batch that meets the right rows.
struct Probe {
    batch: DeltaBatch,
    slots: Vec<u32>,
    matched: Vec<bool>,
    row: usize,
    /// Next right row for the row at hand; `None`: it has not begun.
    next: Option<Option<u64>>,
}

impl Lookup {
    pub fn new(replaces: &[usize]) -> Self {
        Self { replaces: replaces.to_vec(), newest: None, probe: None }
    }

    /// The ids of the state are others now.
    pub fn renumbered(&mut self) {
        self.newest = None;
    }

    pub fn process(
        &mut self,
        core: &mut Core,
        side: usize,
        batch: DeltaBatch,
        out: &mut Vec<DeltaBatch>,
    ) -> Result<Step> {
        if side == 1 {
            self.learn(core, batch.rows)?;
            return Ok(Step::Done);
        }
        let slots = core.keys.slots(&batch.rows, &core.spec.inputs[0].keys)?;
        let matched = vec![false; batch.num_rows()];
        self.probe = Some(Probe { batch, slots, matched, row: 0, next: None });
        self.resume(core, out)
    }

    pub fn resume(&mut self, core: &mut Core, out: &mut Vec<DeltaBatch>) -> Result<Step> {
        let Some(probe) = &mut self.probe else { return Ok(Step::Done) };
        let step = probe.step(core, out)?;
        if step == Step::Done {
            self.probe = None;
        }
        Ok(step)
    }

    fn learn(&mut self, core: &mut Core, rows: RecordBatch) -> Result<()> {
        let mut rows = rows;
        if !self.replaces.is_empty() {
            rows = self.replace(core, &rows)?;
        }
        let keys = core.spec.inputs[1].keys.clone();
        if !core.spec.null_equal
            && self.replaces.is_empty()
            && let Some((whole, ..)) = split_nulls(&rows, &keys)?
        {
            rows = whole;
        }
        let slots = core.keys.slots(&rows, &keys)?;
        if rows.num_rows() > 0 {
            core.sides[1].append(rows, &slots, None)?;
        }
        Ok(())
    }

    /// Takes out the rows that these take the place of; returns the last one of each key.
    fn replace(&mut self, core: &mut Core, rows: &RecordBatch) -> Result<RecordBatch> {
        let mut newest = match self.newest.take() {
            Some(newest) => newest,
            None => Newest::of(core, &self.replaces)?,
        };
        let slots = newest.keys.slots(rows, &self.replaces)?;
        newest.ids.resize(newest.keys.len(), NONE);
        let mut last = vec![usize::MAX; newest.keys.len()];
        slots.iter().enumerate().for_each(|(row, slot)| last[*slot as usize] = row);
        let keep: BooleanArray =
            slots.iter().enumerate().map(|(row, slot)| Some(last[*slot as usize] == row)).collect();
        let kept = slots.iter().enumerate().filter(|(row, _)| keep.value(*row));
        for (next, (row, slot)) in (core.sides[1].end()..).zip(kept) {
            debug_assert_eq!(last[*slot as usize], row);
            let old = std::mem::replace(&mut newest.ids[*slot as usize], next);
            if old != NONE {
                core.sides[1].kill(old, false);
            }
        }
        self.newest = Some(newest);
        Ok(filter_record_batch(rows, &keep)?)
    }
}

impl Newest {
    fn of(core: &Core, columns: &[usize]) -> Result<Self> {
        let side = &core.sides[1];
        let mut newest = Self { keys: Keys::new(&side.schema, columns, true)?, ids: Vec::new() };
        for part in &side.parts {
            let ids: Vec<u64> = side.ids_of(part).collect();
            for ids in ids.chunks(BATCH_ROWS) {
                let rows = side.rows(ids, columns)?;
                let slots = newest.keys.slots(&rows, &(0..columns.len()).collect::<Vec<_>>())?;
                newest.ids.resize(newest.keys.len(), NONE);
                slots.iter().zip(ids).for_each(|(slot, id)| newest.ids[*slot as usize] = *id);
            }
        }
        Ok(newest)
    }
}

impl Probe {
    /// Meets up to a batch of pairs; at the end, the rows that leave alone.
    fn step(&mut self, core: &mut Core, out: &mut Vec<DeltaBatch>) -> Result<Step> {
        let is_filter = core.spec.kind.is_filter();
        let first_is_enough = is_filter && !core.matcher.has_residual();
        let (mut own, mut met) = (Vec::new(), Vec::new());
        while own.len() < BATCH_ROWS && self.row < self.slots.len() {
            let next = match self.next {
                Some(_) if is_filter && self.matched[self.row] => None,
                Some(next) => next,
                None => core.sides[1].newest(self.slots[self.row]),
            };
            match next {
                Some(_) if first_is_enough => {
                    self.matched[self.row] = true;
                    self.row += 1;
                }
                Some(id) => {
                    own.push(self.row as u32);
                    met.push(id);
                    self.next = Some(core.sides[1].older(id));
                }
                None => {
                    self.row += 1;
                    self.next = None;
                }
            }
        }
        self.meet(core, own, met, out)?;
        if self.row < self.slots.len() {
            return Ok(Step::More);
        }
        self.alone(core, out)?;
        Ok(Step::Done)
    }

    fn meet(&mut self, core: &Core, own: Vec<u32>, met: Vec<u64>, out: &mut Vec<DeltaBatch>) -> Result<()> {
        let (mut own, mut met) = (UInt32Array::from(own), met);
        if let Some(passes) = core.matcher.passes_of(&self.batch.rows, &own, &core.sides[1], &met)? {
            let holds = |i: usize| passes.is_valid(i) && passes.value(i);
            let kept: Vec<usize> = (0..met.len()).filter(|i| holds(*i)).collect();
            own = kept.iter().map(|i| own.value(*i)).collect();
            met = kept.iter().map(|i| met[*i]).collect();
        }
        own.values().iter().for_each(|row| self.matched[*row as usize] = true);
        if met.is_empty() || core.spec.kind.is_filter() {
            return Ok(());
        }
        let weights =
            self.batch.weights.as_ref().map(|w| own.values().iter().map(|row| w.value(*row as usize)).collect());
        out.push(core.matcher.pairs_of(&self.batch.rows, &own, &core.sides[1], &met, weights)?);
        Ok(())
    }

    /// Rows of a semi join that have a match, of left and anti joins those that have none.
    fn alone(&self, core: &Core, out: &mut Vec<DeltaBatch>) -> Result<()> {
        let wanted = match core.spec.kind {
            JoinKind::Semi => true,
            JoinKind::Left | JoinKind::Anti => false,
            JoinKind::Inner | JoinKind::Right | JoinKind::Full => return Ok(()),
        };
        let rows: UInt32Array =
            (0..self.matched.len()).filter(|i| self.matched[*i] == wanted).map(|i| i as u32).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let columns = self.batch.rows.columns().iter().map(|c| take(c, &rows, None));
        let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
        let weights = self
            .batch
            .weights
            .as_ref()
            .map(|w: &Int64Array| rows.values().iter().map(|row| w.value(*row as usize)).collect());
        out.push(core.matcher.padded(0, columns, rows.len(), weights)?);
        Ok(())
    }
}
