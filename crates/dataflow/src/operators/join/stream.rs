//! Joins whose output is only ever appended to: both inputs are append-only, and no unmatched row leaves before time has shown that it
//! stays so.
//!
//! A row is stored, then meets the rows of the other side that came before it, so each pair is met once, when its later row
//! arrives, and leaves at once. An outer join marks the rows that have met one; a row that expires unmarked leaves alone. A
//! semi join forgets a left row with its first match and an anti join too, which emits those that expire; if there is no residual
//! they need one right row per key.
use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::record_batch::RecordBatch;
use datafusion::error::Result;

use super::Core;
use super::keys::split_nulls;
use crate::DeltaBatch;
use crate::graph::JoinKind;
use crate::operators::{BATCH_ROWS, Step};

/// Where the work stands.
#[derive(Default)]
pub(super) struct Stream {
    probe: Option<Probe>,
    expiry: Option<Expiry>,
}

/// Rows that meet the other side.
struct Probe {
    side: usize,
    slots: Vec<u32>,
    /// Id of the first row.
    first: u64,
    row: usize,
    /// Next row of the other side for the row at hand; `None`: it has not begun.
    next: Option<Option<u64>>,
}

/// Rows that the watermark has passed.
struct Expiry {
    watermark: i64,
    gone: [Vec<u64>; 2],
    /// Those that leave unmatched: side and ids.
    unmatched: [Vec<u64>; 2],
    /// Side and position of the next one.
    at: (usize, usize),
}

impl Stream {
    pub fn process(
        &mut self,
        core: &mut Core,
        side: usize,
        rows: RecordBatch,
        out: &mut Vec<DeltaBatch>,
    ) -> Result<Step> {
        let spec = core.spec.clone();
        let input = &spec.inputs[side];
        // A condition on the time does not hold without one. Without a key a row still waits for its time to leave unmatched.
        let mut needed: Vec<usize> = core.sides[side].retention.map(|r| r.column).into_iter().collect();
        if !spec.null_equal && !spec.kind.keeps_unmatched(side) {
            needed.extend(&input.keys);
        }
        let rows = match split_nulls(&rows, &needed)? {
            None => rows,
            Some((whole, broken, _)) => {
                if spec.kind.keeps_unmatched(side) {
                    out.push(core.matcher.padded(side, broken.columns().to_vec(), broken.num_rows(), None)?);
                }
                whole
            }
        };
        let mut slots = core.keys.slots(&rows, &input.keys)?;
        let mut rows = rows;
        let one_per_key = side == 1 && spec.kind.is_filter() && !core.matcher.has_residual();
        if one_per_key {
            (rows, slots) = first_of_keys(core, &rows, &slots)?;
        }
        if rows.num_rows() == 0 {
            return Ok(Step::Done);
        }
        let first = core.sides[side].append(rows, &slots, None)?;
        self.probe = Some(Probe { side, slots, first, row: 0, next: None });
        self.resume(core, out)
    }

    pub fn resume(&mut self, core: &mut Core, out: &mut Vec<DeltaBatch>) -> Result<Step> {
        if let Some(probe) = &mut self.probe {
            let step = probe.step(core, out)?;
            if step == Step::Done {
                self.probe = None;
            }
            return Ok(step);
        }
        let Some(expiry) = &mut self.expiry else { return Ok(Step::Done) };
        if expiry.step(core, out)? == Step::More {
            return Ok(Step::More);
        }
        if let Some(expiry) = self.expiry.take() {
            for (side, gone) in core.sides.iter_mut().zip(&expiry.gone) {
                side.expire(gone, expiry.watermark);
            }
            core.closed = expiry.watermark;
        }
        Ok(Step::Done)
    }

    /// The epoch's input is complete: rows that the watermark has passed go.
    pub fn end_epoch(&mut self, core: &mut Core, watermark: i64, out: &mut Vec<DeltaBatch>) -> Result<Step> {
        if core.spec.bound.is_none() || watermark <= core.closed {
            return Ok(Step::Done);
        }
        let gone = [core.sides[0].expired(watermark)?, core.sides[1].expired(watermark)?];
        let unmatched = |side: usize| -> Vec<u64> {
            let is_alone = |id: &u64| !core.sides[side].traits.counts || core.sides[side].count(*id) == 0;
            match core.spec.kind.keeps_unmatched(side) {
                true => gone[side].iter().copied().filter(is_alone).collect(),
                false => Vec::new(),
            }
        };
        let unmatched = [unmatched(0), unmatched(1)];
        self.expiry = Some(Expiry { watermark, gone, unmatched, at: (0, 0) });
        self.resume(core, out)
    }
}

impl Probe {
    /// Meets up to a batch of pairs.
    fn step(&mut self, core: &mut Core, out: &mut Vec<DeltaBatch>) -> Result<Step> {
        let other = 1 - self.side;
        let is_filter = core.spec.kind.is_filter();
        let first_only = is_filter && self.side == 0 && !core.matcher.has_residual();
        let (mut own_ids, mut other_ids) = (Vec::new(), Vec::new());
        while own_ids.len() < BATCH_ROWS && self.row < self.slots.len() {
            let own = self.first + self.row as u64;
            let met = match self.next {
                // Of a left row of a semi or anti join, the first match is enough.
                Some(_) if is_filter && self.side == 0 && !core.sides[0].is_live(own) => None,
                Some(next) => next,
                None => core.sides[other].newest(self.slots[self.row]),
            };
            match met {
                Some(id) => {
                    own_ids.push(own);
                    other_ids.push(id);
                    self.next = Some(if first_only { None } else { core.sides[other].older(id) });
                }
                None => {
                    self.row += 1;
                    self.next = None;
                }
            }
        }
        let is_done = self.row == self.slots.len();
        let (left, right) = if self.side == 0 { (own_ids, other_ids) } else { (other_ids, own_ids) };
        core.meet(&left, &right, out)?;
        Ok(if is_done { Step::Done } else { Step::More })
    }
}

impl Expiry {
    fn step(&mut self, core: &Core, out: &mut Vec<DeltaBatch>) -> Result<Step> {
        while let Some(ids) = self.unmatched.get(self.at.0) {
            let rest = &ids[self.at.1..];
            if rest.is_empty() {
                self.at = (self.at.0 + 1, 0);
                continue;
            }
            let chunk = &rest[..rest.len().min(BATCH_ROWS)];
            out.push(core.matcher.alone(&core.sides, self.at.0, chunk, None)?);
            self.at.1 += chunk.len();
            return Ok(Step::More);
        }
        Ok(Step::Done)
    }
}

impl Core {
    /// Candidates with equal keys, of which no pair has been met before.
    fn meet(&mut self, left: &[u64], right: &[u64], out: &mut Vec<DeltaBatch>) -> Result<()> {
        let passes = self.matcher.passes(&self.sides, left, right)?;
        let (left, right) = match passes {
            Some(passes) => (passing(left, &passes), passing(right, &passes)),
            None => (left.to_vec(), right.to_vec()),
        };
        if left.is_empty() {
            return Ok(());
        }
        if self.spec.kind.is_filter() {
            let mut seen = std::collections::HashSet::with_capacity(left.len());
            let matched: Vec<u64> =
                left.into_iter().filter(|id| self.sides[0].is_live(*id) && seen.insert(*id)).collect();
            if self.spec.kind == JoinKind::Semi && !matched.is_empty() {
                out.push(self.matcher.alone(&self.sides, 0, &matched, None)?);
            }
            matched.iter().for_each(|id| self.sides[0].kill(*id, false));
            return Ok(());
        }
        for (side, ids) in self.sides.iter_mut().zip([&left, &right]).filter(|(s, _)| s.traits.counts) {
            ids.iter().for_each(|id| side.set_count(*id, 1));
        }
        out.push(self.matcher.pairs(&self.sides, &left, &right, None)?);
        Ok(())
    }
}

pub(super) fn passing(ids: &[u64], passes: &BooleanArray) -> Vec<u64> {
    ids.iter().zip(passes).filter(|(_, passes)| *passes == Some(true)).map(|(id, _)| *id).collect()
}

/// The rows whose keys have no right row yet.
fn first_of_keys(core: &mut Core, rows: &RecordBatch, slots: &[u32]) -> Result<(RecordBatch, Vec<u32>)> {
    let mut seen = std::collections::HashSet::new();
    let keep: Vec<bool> = slots.iter().map(|s| core.sides[1].newest(*s).is_none() && seen.insert(*s)).collect();
    let slots = slots.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(slot, _)| *slot).collect();
    Ok((filter_record_batch(rows, &BooleanArray::from(keep))?, slots))
}
