//! Joins with the version of a row that was valid at a time ([`Meets::Version`](crate::graph::Meets::Version)).
//!
//! Left rows wait until the watermark has passed their time: no version that is valid at it can come any more. Then each meets the latest version
//! of its key that is not later, if there is one for which the residual holds, and is gone. So no order of arrival, of left rows or of
//! versions, makes a difference, but for versions of one key and time: the last one that came is valid.
//!
//! **State.** Left rows until the watermark has passed them. Of each key, the versions after the watermark and the one that is valid at it: when
//! the watermark passes a version, those before it go.
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use arrow::array::{Array, Int64Array, UInt32Array};
use arrow::compute::take;
use arrow::record_batch::RecordBatch;
use datafusion::error::Result;

use super::Core;
use super::keys::{NO_SLOT, split_nulls};
use crate::DeltaBatch;
use crate::graph::JoinKind;
use crate::operators::{BATCH_ROWS, Step};
use crate::times::to_millis;

/// Where the work stands.
pub(super) struct Versions {
    /// Time column of the right rows.
    time: usize,
    /// (time, id) of the versions that the watermark has not passed; `None`: has to be made from the state.
    coming: Option<BinaryHeap<Reverse<(i64, u64)>>>,
    run: Option<Run>,
}

/// Left rows on their way out.
struct Run {
    watermark: i64,
    due: Vec<u64>,
    at: usize,
    /// Versions by key, in order of (time, id).
    versions: HashMap<u32, Vec<(i64, u64)>>,
}

impl Versions {
    pub fn new(time: usize) -> Self {
        Self { time, coming: None, run: None }
    }

    /// The ids of the state are others now.
    pub fn renumbered(&mut self) {
        self.coming = None;
    }

    pub fn process(
        &mut self,
        core: &mut Core,
        side: usize,
        rows: RecordBatch,
        out: &mut Vec<DeltaBatch>,
    ) -> Result<()> {
        let spec = core.spec.clone();
        // A row without a time is never due, a version without one never valid.
        let mut needed = match side {
            0 => core.sides[0].retention.map(|r| r.column).into_iter().collect(),
            _ => vec![self.time],
        };
        if side == 1 && !spec.null_equal {
            needed.extend(&spec.inputs[1].keys);
        }
        let rows = match split_nulls(&rows, &needed)? {
            None => rows,
            Some((whole, broken, _)) => {
                if side == 0 && spec.kind == JoinKind::Left && broken.num_rows() > 0 {
                    out.push(core.matcher.padded(0, broken.columns().to_vec(), broken.num_rows(), None)?);
                }
                whole
            }
        };
        if rows.num_rows() == 0 {
            return Ok(());
        }
        if side == 0 {
            // Nobody looks for left rows by their keys.
            core.sides[0].append(rows.clone(), &vec![NO_SLOT; rows.num_rows()], None)?;
            return Ok(());
        }
        let times = to_millis(rows.column(self.time))?;
        let slots = core.keys.slots(&rows, &spec.inputs[1].keys)?;
        // Made before these rows are in the state.
        let mut coming = self.take_coming(core)?;
        let first = core.sides[1].append(rows, &slots, None)?;
        coming.extend(times.values().iter().zip(first..).map(|(time, id)| Reverse((*time, id))));
        self.coming = Some(coming);
        Ok(())
    }

    pub fn end_epoch(&mut self, core: &mut Core, watermark: i64, out: &mut Vec<DeltaBatch>) -> Result<Step> {
        if watermark <= core.closed {
            return Ok(Step::Done);
        }
        let due = core.sides[0].expired(watermark)?;
        self.run = Some(Run { watermark, due, at: 0, versions: HashMap::new() });
        self.resume(core, out)
    }

    pub fn resume(&mut self, core: &mut Core, out: &mut Vec<DeltaBatch>) -> Result<Step> {
        let Some(run) = &mut self.run else { return Ok(Step::Done) };
        if run.at < run.due.len() {
            run.step(core, self.time, out)?;
            return Ok(Step::More);
        }
        if let Some(run) = self.run.take() {
            core.sides[0].expire(&run.due, run.watermark);
            self.pass(core, run.watermark)?;
            core.closed = run.watermark;
        }
        Ok(Step::Done)
    }

    fn take_coming(&mut self, core: &Core) -> Result<BinaryHeap<Reverse<(i64, u64)>>> {
        if let Some(coming) = self.coming.take() {
            return Ok(coming);
        }
        let side = &core.sides[1];
        let mut coming = BinaryHeap::new();
        for part in &side.parts {
            let ids: Vec<u64> = side.ids_of(part).collect();
            for ids in ids.chunks(BATCH_ROWS) {
                let times = to_millis(&side.gather(ids, &[self.time])?[0])?;
                let timed = times.values().iter().zip(ids).filter(|(time, _)| **time >= core.closed);
                coming.extend(timed.map(|(time, id)| Reverse((*time, *id))));
            }
        }
        Ok(coming)
    }

    /// Takes out versions that no row can need any more.
    fn pass(&mut self, core: &mut Core, watermark: i64) -> Result<()> {
        let mut coming = self.take_coming(core)?;
        let mut passed = Vec::new();
        while let Some(Reverse((time, id))) = coming.peek().copied().filter(|Reverse((time, _))| *time < watermark) {
            coming.pop();
            passed.push((time, id));
        }
        self.coming = Some(coming);
        let ids: Vec<u64> = passed.iter().map(|(_, id)| *id).collect();
        let keys = core.spec.inputs[1].keys.clone();
        for ids in ids.chunks(BATCH_ROWS) {
            let rows = core.sides[1].rows(ids, &keys)?;
            let mut slots = core.keys.slots(&rows, &(0..keys.len()).collect::<Vec<_>>())?;
            slots.sort_unstable();
            slots.dedup();
            for versions in versions_of(core, &slots, self.time)?.into_values() {
                let valid = versions.partition_point(|(time, _)| *time < watermark);
                versions[..valid.saturating_sub(1)].iter().for_each(|(_, id)| core.sides[1].kill(*id, false));
            }
        }
        Ok(())
    }
}

impl Run {
    /// The next rows that are due, with their versions.
    fn step(&mut self, core: &mut Core, time: usize, out: &mut Vec<DeltaBatch>) -> Result<()> {
        let ids = &self.due[self.at..self.due.len().min(self.at + BATCH_ROWS)];
        self.at += ids.len();
        let all: Vec<usize> = (0..core.sides[0].schema.fields().len()).collect();
        let rows = RecordBatch::try_new(core.sides[0].schema.clone(), core.sides[0].gather(ids, &all)?)?;
        let own_time = core.sides[0].retention.map_or(0, |r| r.column);
        let times: Int64Array = to_millis(rows.column(own_time))?;
        let slots = core.keys.slots(&rows, &core.spec.inputs[0].keys)?;
        let mut new: Vec<u32> = slots.iter().copied().filter(|s| !self.versions.contains_key(s)).collect();
        new.sort_unstable();
        new.dedup();
        self.versions.extend(versions_of(core, &new, time)?);
        let (mut own, mut met) = (Vec::new(), Vec::new());
        for (row, slot) in slots.iter().enumerate() {
            let versions = self.versions.get(slot).map_or(&[][..], Vec::as_slice);
            let valid = versions.partition_point(|(time, _)| *time <= times.value(row));
            if let Some((_, id)) = valid.checked_sub(1).and_then(|i| versions.get(i)) {
                own.push(row as u32);
                met.push(*id);
            }
        }
        let mut own = UInt32Array::from(own);
        if let Some(passes) = core.matcher.passes_of(&rows, &own, &core.sides[1], &met)? {
            let kept: Vec<usize> = (0..met.len()).filter(|i| passes.is_valid(*i) && passes.value(*i)).collect();
            own = kept.iter().map(|i| own.value(*i)).collect();
            met = kept.iter().map(|i| met[*i]).collect();
        }
        if !met.is_empty() {
            out.push(core.matcher.pairs_of(&rows, &own, &core.sides[1], &met, None)?);
        }
        if core.spec.kind == JoinKind::Left && met.len() < rows.num_rows() {
            let mut matched = vec![false; rows.num_rows()];
            own.values().iter().for_each(|row| matched[*row as usize] = true);
            let alone: UInt32Array = (0..matched.len()).filter(|i| !matched[*i]).map(|i| i as u32).collect();
            let columns = rows.columns().iter().map(|c| take(c, &alone, None));
            let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
            out.push(core.matcher.padded(0, columns, alone.len(), None)?);
        }
        Ok(())
    }
}

/// The versions of these keys, in order of (time, id).
fn versions_of(core: &mut Core, slots: &[u32], time: usize) -> Result<HashMap<u32, Vec<(i64, u64)>>> {
    let side = &mut core.sides[1];
    let mut found: Vec<(u32, u64)> = Vec::new();
    for slot in slots {
        let mut next = side.newest(*slot);
        while let Some(id) = next {
            found.push((*slot, id));
            next = side.older(id);
        }
    }
    let mut versions: HashMap<u32, Vec<(i64, u64)>> = slots.iter().map(|slot| (*slot, Vec::new())).collect();
    for found in found.chunks(BATCH_ROWS) {
        let ids: Vec<u64> = found.iter().map(|(_, id)| *id).collect();
        let times = to_millis(&side.gather(&ids, &[time])?[0])?;
        for ((slot, id), time) in found.iter().zip(times.values()) {
            versions.entry(*slot).or_default().push((*time, *id));
        }
    }
    versions.values_mut().for_each(|v| v.sort_unstable());
    Ok(versions)
}
