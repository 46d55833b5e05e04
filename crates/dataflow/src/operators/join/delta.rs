//! Joins whose output changes: an input takes rows back, or an unmatched row leaves before it is known to stay unmatched.
//!
//! At the end of an epoch its input is consolidated per side and applied to both states, with weights before (o) and after (n) at hand.
//! Only keys that were touched are visited, and each pair (a, b) of which a row changed once:
//!
//! - pair: nₐ·n_b − oₐ·o_b;
//! - unmatched row, row of a semi or anti join: nₐ·f(its matches now) − oₐ·f(its matches before), f being "has some" for semi joins and "has
//!   none" otherwise.
//!
//! Without a residual, matches are the rows of the other side with the key, so f is known per key. With one, each row that needs it has the weight
//! of its matches (`count`), brought up to date by a pass over the changed pairs before any output. Then come a pass for what is
//! taken back and one for what is added; rows whose weight has become 0 go at the end.
//!
//! If both inputs are append-only no row needs an identity: equal rows are rows of their own, and all weights are 1.
use std::collections::HashMap;

use arrow::array::{Array, Int64Array, UInt32Array};
use arrow::compute::{concat, concat_batches, filter, take_record_batch};
use arrow::record_batch::RecordBatch;
use arrow::row::Rows;
use arrow::util::display::array_value_to_string;
use datafusion::error::Result;
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::Core;
use super::keys::split_nulls;
use super::stream::passing;
use crate::DeltaBatch;
use crate::graph::JoinKind;
use crate::operators::{BATCH_ROWS, Step};

/// A retraction of a row that is not in the state.
pub(super) struct Absent {
    pub side: usize,
    pub row: String,
}

/// Where the work stands.
#[derive(Default)]
pub(super) struct Delta {
    pending: [Vec<DeltaBatch>; 2],
    run: Option<Run>,
}

/// A key that was touched in this epoch.
struct Group {
    slot: u32,
    /// Per side: whether the key had rows before, and has some now.
    before: [bool; 2],
    after: [bool; 2],
    /// Some row of it lost weight, or gained some: without the one no pair is taken back, without the other none is added.
    loses: bool,
    gains: bool,
    /// Per side: where its rows are in `Run::touched` and `Run::affected`.
    touched: [std::ops::Range<usize>; 2],
    affected: [std::ops::Range<usize>; 2],
}

/// The changes of an epoch on their way out.
struct Run {
    /// In order of first appearance, left rows first.
    groups: Vec<Group>,
    /// Changed rows by group.
    touched: [Vec<u64>; 2],
    /// Change of weight of each changed row, if rows have an identity.
    change: [HashMap<u64, i64>; 2],
    /// First id of this epoch.
    start: [u64; 2],
    /// Rows that match nothing because of a null, with their weights.
    nulls: Vec<(usize, RecordBatch, Vec<i64>)>,
    /// Counts before this epoch, of rows whose count has changed.
    recounted: [HashMap<u64, i64>; 2],
    /// With a residual: rows that may have found or lost their matches, by group.
    affected: [Vec<u64>; 2],
    /// (group, id) while counting.
    counted: [Vec<(u32, u64)>; 2],
    cursor: Cursor,
    pairs: Pairs,
    alone: Alone,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Count,
    Retract,
    Add,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Changed left rows with all right rows.
    LeftPairs,
    /// Changed right rows with the unchanged left rows.
    RightPairs,
    /// Rows of this side without a match (semi: with one).
    Alone(usize),
}

struct Cursor {
    pass: Pass,
    group: usize,
    stage: Stage,
    /// Index in the list at hand.
    at: usize,
    /// Next id of the chain; `None`: it has not begun.
    chain: Option<Option<u64>>,
}

/// Candidates that wait for the residual.
#[derive(Default)]
struct Pairs {
    left: Vec<u64>,
    right: Vec<u64>,
    weights: Vec<i64>,
    groups: Vec<u32>,
}

/// Rows that wait to leave alone.
#[derive(Default)]
struct Alone {
    side: usize,
    ids: Vec<u64>,
    weights: Vec<i64>,
}

impl Delta {
    pub fn process(&mut self, side: usize, batch: DeltaBatch) {
        if batch.num_rows() > 0 {
            self.pending[side].push(batch);
        }
    }

    /// Applies the epoch to the states. The changes are taken by [`resume`](Self::resume).
    pub fn end_epoch(&mut self, core: &mut Core) -> Result<Option<Absent>> {
        if self.pending.iter().all(Vec::is_empty) {
            return Ok(None);
        }
        let mut run = Run::new(core);
        let mut groups_of: HashMap<u32, u32> = HashMap::new();
        for side in 0..2 {
            let pending = std::mem::take(&mut self.pending[side]);
            if let Some(absent) = run.apply(core, side, &pending, &mut groups_of)? {
                return Ok(Some(absent));
            }
        }
        for group in &mut run.groups {
            for side in 0..2 {
                group.after[side] = has_rows(core, side, group.slot);
            }
        }
        self.run = Some(run);
        Ok(None)
    }

    pub fn resume(&mut self, core: &mut Core, out: &mut Vec<DeltaBatch>) -> Result<Step> {
        let Some(run) = &mut self.run else { return Ok(Step::Done) };
        if run.step(core, out)? == Step::More {
            return Ok(Step::More);
        }
        if let Some(run) = self.run.take() {
            for (side, touched) in core.sides.iter_mut().zip(&run.touched).filter(|(s, _)| s.traits.weights) {
                let gone = |id: &&u64| side.weight(**id) == 0;
                let gone: Vec<u64> = touched.iter().filter(gone).copied().collect();
                gone.into_iter().for_each(|id| side.kill(id, false));
            }
        }
        Ok(Step::Done)
    }
}

/// True if a key has a row with a weight.
fn has_rows(core: &mut Core, side: usize, slot: u32) -> bool {
    let side = &mut core.sides[side];
    let mut next = side.newest(slot);
    while let Some(id) = next {
        if side.weight(id) > 0 {
            return true;
        }
        next = side.older(id);
    }
    false
}

impl Run {
    fn new(core: &Core) -> Self {
        let counts = core.sides.iter().any(|s| s.traits.counts);
        let pass = if counts { Pass::Count } else { Pass::Retract };
        Self {
            groups: Vec::new(),
            touched: Default::default(),
            change: Default::default(),
            start: [core.sides[0].end(), core.sides[1].end()],
            nulls: Vec::new(),
            recounted: Default::default(),
            affected: Default::default(),
            counted: Default::default(),
            cursor: Cursor { pass, group: 0, stage: Stage::LeftPairs, at: 0, chain: None },
            pairs: Pairs::default(),
            alone: Alone::default(),
        }
    }

    /// Adds one side's input to its state.
    fn apply(
        &mut self,
        core: &mut Core,
        side: usize,
        pending: &[DeltaBatch],
        groups_of: &mut HashMap<u32, u32>,
    ) -> Result<Option<Absent>> {
        if pending.is_empty() {
            return Ok(None);
        }
        let spec = core.spec.clone();
        let rows = concat_batches(&spec.inputs[side].schema, pending.iter().map(|b| &b.rows))?;
        let weights = weights_of(pending)?;
        let keys = if spec.null_equal { &[][..] } else { &spec.inputs[side].keys };
        let (rows, weights) = match split_nulls(&rows, keys)? {
            None => (rows, weights),
            Some((whole, broken, is_whole)) => {
                if spec.kind.keeps_unmatched(side) {
                    let is_broken = arrow::compute::not(&is_whole)?;
                    let (broken, weights) = self.identified(core, side, broken, cut(&weights, &is_broken)?)?;
                    if broken.num_rows() > 0 {
                        self.nulls.push((side, broken, weights));
                    }
                }
                (whole, cut(&weights, &is_whole)?)
            }
        };
        let (rows, weights) = self.identified(core, side, rows, weights)?;
        let slots = core.keys.slots(&rows, &spec.inputs[side].keys)?;
        let groups: Vec<u32> = slots
            .iter()
            .map(|slot| {
                *groups_of.entry(*slot).or_insert_with(|| {
                    let before = [core.sides[0].newest(*slot).is_some(), core.sides[1].newest(*slot).is_some()];
                    let none = || [0..0, 0..0];
                    let (touched, affected) = (none(), none());
                    let after = [false; 2];
                    self.groups.push(Group {
                        slot: *slot,
                        before,
                        after,
                        loses: false,
                        gains: false,
                        touched,
                        affected,
                    });
                    self.groups.len() as u32 - 1
                })
            })
            .collect();
        for (group, weight) in groups.iter().zip(&weights) {
            let group = &mut self.groups[*group as usize];
            group.loses |= *weight < 0;
            group.gains |= *weight > 0;
        }
        let mut touched: Vec<(u32, u64)> = Vec::with_capacity(groups.len());
        if core.sides[side].traits.content {
            let state = &mut core.sides[side];
            let encoded = state.encode(rows.columns())?;
            let found = state.find(&encoded, &(0..rows.num_rows()).collect::<Vec<_>>())?;
            let mut new = Vec::new();
            for (row, found) in found.iter().enumerate() {
                let weight = found.map_or(0, |id| state.weight(id)) + weights[row];
                if weight < 0 {
                    return Ok(Some(Absent { side, row: shown(&rows, row)? }));
                }
                match found {
                    Some(id) => {
                        state.set_weight(*id, weight);
                        self.change[side].insert(*id, weights[row]);
                        touched.push((groups[row], *id));
                    }
                    None => new.push(row as u32),
                }
            }
            let pick = |values: &[u32]| -> Vec<u32> { new.iter().map(|row| values[*row as usize]).collect() };
            let new_weights: Vec<i64> = new.iter().map(|row| weights[*row as usize]).collect();
            if !new.is_empty() {
                let first = state.append(
                    take_record_batch(&rows, &UInt32Array::from(new.clone()))?,
                    &pick(&slots),
                    Some(&new_weights),
                )?;
                for (i, (group, weight)) in pick(&groups).into_iter().zip(new_weights).enumerate() {
                    let id = first + i as u64;
                    self.change[side].insert(id, weight);
                    touched.push((group, id));
                }
            }
        } else if rows.num_rows() > 0 {
            let first = core.sides[side].append(rows, &slots, None)?;
            touched.extend(groups.iter().enumerate().map(|(i, group)| (*group, first + i as u64)));
        }
        touched.sort_by_key(|(group, _)| *group);
        let ranges = ranges(&touched);
        for (group, range) in ranges {
            self.groups[group].touched[side] = range;
        }
        self.touched[side] = touched.into_iter().map(|(_, id)| id).collect();
        Ok(None)
    }

    /// Each distinct row once, in order of first appearance, with its weight, if that is not 0. Rows without an identity stay as they are.
    fn identified(
        &self,
        core: &Core,
        side: usize,
        rows: RecordBatch,
        weights: Vec<i64>,
    ) -> Result<(RecordBatch, Vec<i64>)> {
        if !core.sides[side].traits.content || rows.num_rows() == 0 {
            return Ok((rows, weights));
        }
        let encoded = core.sides[side].encode(rows.columns())?;
        let (kept, sums) = consolidate(&encoded, &weights);
        if kept.len() == rows.num_rows() {
            return Ok((rows, sums));
        }
        Ok((take_record_batch(&rows, &UInt32Array::from(kept))?, sums))
    }

    fn is_new(&self, side: usize, id: u64) -> bool {
        id >= self.start[side]
    }

    fn is_touched(&self, core: &Core, side: usize, id: u64) -> bool {
        if core.sides[side].traits.content { self.change[side].contains_key(&id) } else { self.is_new(side, id) }
    }

    /// Weight of a row before and after.
    fn weights(&self, core: &Core, side: usize, id: u64) -> (i64, i64) {
        let now = core.sides[side].weight(id);
        let change = match core.sides[side].traits.content {
            true => self.change[side].get(&id).copied().unwrap_or(0),
            false => i64::from(self.is_new(side, id)),
        };
        (now - change, now)
    }

    /// Goes on until a batch has left or nothing is left to do.
    fn step(&mut self, core: &mut Core, out: &mut Vec<DeltaBatch>) -> Result<Step> {
        let before = out.len();
        while let Some(group) = self.groups.get(self.cursor.group) {
            let (slot, touched, affected) = (group.slot, group.touched.clone(), group.affected.clone());
            let has_pairs = match self.cursor.pass {
                Pass::Count => true,
                Pass::Retract => group.loses && !core.spec.kind.is_filter(),
                Pass::Add => group.gains && !core.spec.kind.is_filter(),
            };
            match self.cursor.stage {
                Stage::LeftPairs if has_pairs => self.visit_pairs(core, 0, slot, &touched[0]),
                Stage::RightPairs if has_pairs => self.visit_pairs(core, 1, slot, &touched[1]),
                Stage::Alone(side) if self.cursor.pass != Pass::Count && tracked(core.spec.kind, side) => {
                    let list = if core.sides[side].traits.counts { &affected[side] } else { &touched[side] };
                    self.visit_alone(core, side, list, out)?;
                }
                _ => self.cursor.next_stage(),
            }
            if self.pairs.left.len() >= BATCH_ROWS {
                self.flush_pairs(core, out)?;
                return Ok(Step::More);
            }
            if out.len() > before {
                return Ok(Step::More);
            }
        }
        self.flush_pairs(core, out)?;
        self.flush_alone(core, out)?;
        match self.cursor.pass {
            Pass::Count => self.counted(),
            Pass::Retract => self.flush_nulls(core, Pass::Retract, out)?,
            Pass::Add => {
                self.flush_nulls(core, Pass::Add, out)?;
                return Ok(Step::Done);
            }
        }
        let pass = if self.cursor.pass == Pass::Count { Pass::Retract } else { Pass::Add };
        self.cursor = Cursor { pass, group: 0, stage: Stage::LeftPairs, at: 0, chain: None };
        Ok(Step::More)
    }

    /// Pairs of the changed rows `list` of `side`, until the batch of candidates is full.
    fn visit_pairs(&mut self, core: &mut Core, side: usize, slot: u32, list: &std::ops::Range<usize>) {
        let other = 1 - side;
        while self.pairs.left.len() < BATCH_ROWS {
            let Some(own) = self.touched[side].get(list.start + self.cursor.at).filter(|_| self.cursor.at < list.len())
            else {
                self.cursor.next_stage();
                return;
            };
            let own = *own;
            let met = match self.cursor.chain {
                Some(next) => next,
                None => core.sides[other].newest(slot),
            };
            let Some(met) = met else {
                self.cursor.at += 1;
                self.cursor.chain = None;
                continue;
            };
            self.cursor.chain = Some(core.sides[other].older(met));
            // Pairs of two changed rows are visited from the left.
            if side == 1 && self.is_touched(core, 0, met) {
                continue;
            }
            let (left, right) = if side == 0 { (own, met) } else { (met, own) };
            let (before, after) = (self.weights(core, 0, left), self.weights(core, 1, right));
            let change = before.1 * after.1 - before.0 * after.0;
            let wanted = match self.cursor.pass {
                Pass::Count => true,
                Pass::Retract => change < 0,
                Pass::Add => change > 0,
            };
            if wanted {
                self.pairs.left.push(left);
                self.pairs.right.push(right);
                self.pairs.weights.push(change);
                if self.cursor.pass == Pass::Count {
                    self.pairs.groups.push(self.cursor.group as u32);
                }
            }
        }
    }

    /// Rows of `side` that begin or cease to leave alone. `list`: those that may without a change of the other side's rows.
    fn visit_alone(
        &mut self,
        core: &mut Core,
        side: usize,
        list: &std::ops::Range<usize>,
        out: &mut Vec<DeltaBatch>,
    ) -> Result<()> {
        let group = &self.groups[self.cursor.group];
        let wanted = |matched: bool| matched == (core.spec.kind == JoinKind::Semi);
        let counts = core.sides[side].traits.counts;
        let (before, after) = (wanted(group.before[1 - side]), wanted(group.after[1 - side]));
        let slot = group.slot;
        // Without counts, all rows of the key change together when the other side's first comes or last goes.
        let flips = !counts && before != after;
        if !counts && !before && !after {
            self.cursor.next_stage();
            return Ok(());
        }
        if self.alone.side != side {
            self.flush_alone(core, out)?;
            self.alone.side = side;
        }
        while self.alone.ids.len() < BATCH_ROWS {
            let id = if flips {
                let next = match self.cursor.chain {
                    Some(next) => next,
                    None => core.sides[side].newest(slot),
                };
                if let Some(id) = next {
                    self.cursor.chain = Some(core.sides[side].older(id));
                }
                next
            } else {
                let rows = if counts { &self.affected[side] } else { &self.touched[side] };
                let next = rows.get(list.start + self.cursor.at).filter(|_| self.cursor.at < list.len()).copied();
                self.cursor.at += 1;
                next
            };
            let Some(id) = id else {
                self.cursor.next_stage();
                return Ok(());
            };
            let (old, new) = self.weights(core, side, id);
            let (was, is) = match counts {
                true => {
                    let now = core.sides[side].count(id);
                    let then = self.recounted[side].get(&id).copied().unwrap_or(now);
                    (wanted(then > 0), wanted(now > 0))
                }
                false => (before, after),
            };
            let change = new * i64::from(is) - old * i64::from(was);
            if change < 0 && self.cursor.pass == Pass::Retract || change > 0 && self.cursor.pass == Pass::Add {
                self.alone.ids.push(id);
                self.alone.weights.push(change);
            }
        }
        self.flush_alone(core, out)
    }

    /// Tests the candidates, and counts or emits those that match.
    fn flush_pairs(&mut self, core: &mut Core, out: &mut Vec<DeltaBatch>) -> Result<()> {
        let Pairs { mut left, mut right, mut weights, groups } = std::mem::take(&mut self.pairs);
        if left.is_empty() {
            return Ok(());
        }
        let passes = core.matcher.passes(&core.sides, &left, &right)?;
        if self.cursor.pass == Pass::Count {
            for i in (0..left.len()).filter(|i| passes.as_ref().is_none_or(|p| p.is_valid(*i) && p.value(*i))) {
                self.count(core, 0, left[i], right[i], groups[i]);
                self.count(core, 1, right[i], left[i], groups[i]);
            }
            return Ok(());
        }
        if let Some(passes) = passes {
            left = passing(&left, &passes);
            right = passing(&right, &passes);
            weights = weights.into_iter().zip(&passes).filter(|(_, p)| *p == Some(true)).map(|(w, _)| w).collect();
        }
        if !left.is_empty() {
            out.push(core.matcher.pairs(&core.sides, &left, &right, Some(weights))?);
        }
        Ok(())
    }

    /// Adds the change of `other`'s weight to the count of `id`.
    fn count(&mut self, core: &mut Core, side: usize, id: u64, other: u64, group: u32) {
        if !core.sides[side].traits.counts {
            return;
        }
        let (old, new) = self.weights(core, 1 - side, other);
        let change = if self.is_new(side, id) { new } else { new - old };
        if change != 0 {
            let count = core.sides[side].count(id);
            self.recounted[side].entry(id).or_insert_with(|| {
                self.counted[side].push((group, id));
                count
            });
            core.sides[side].set_count(id, count + change);
        }
    }

    /// All counts are up to date: which rows may have found or lost their matches.
    fn counted(&mut self) {
        for side in 0..2 {
            let mut affected = std::mem::take(&mut self.counted[side]);
            for (i, group) in self.groups.iter().enumerate() {
                affected.extend(self.touched[side][group.touched[side].clone()].iter().map(|id| (i as u32, *id)));
            }
            affected.sort_unstable();
            affected.dedup();
            for (group, range) in ranges(&affected) {
                self.groups[group].affected[side] = range;
            }
            self.affected[side] = affected.into_iter().map(|(_, id)| id).collect();
        }
    }

    fn flush_alone(&mut self, core: &Core, out: &mut Vec<DeltaBatch>) -> Result<()> {
        let Alone { side, ids, weights } = std::mem::take(&mut self.alone);
        if !ids.is_empty() {
            out.push(core.matcher.alone(&core.sides, side, &ids, Some(weights))?);
        }
        self.alone.side = side;
        Ok(())
    }

    /// Rows with null keys leave alone, whatever the other side holds.
    fn flush_nulls(&self, core: &Core, pass: Pass, out: &mut Vec<DeltaBatch>) -> Result<()> {
        for (side, rows, weights) in &self.nulls {
            let wanted = |weight: &i64| if pass == Pass::Retract { *weight < 0 } else { *weight > 0 };
            let kept: Vec<u32> = (0..rows.num_rows() as u32).filter(|row| wanted(&weights[*row as usize])).collect();
            for kept in kept.chunks(BATCH_ROWS) {
                let weights = kept.iter().map(|row| weights[*row as usize]).collect();
                let rows = take_record_batch(rows, &UInt32Array::from(kept.to_vec()))?;
                out.push(core.matcher.padded(*side, rows.columns().to_vec(), kept.len(), Some(weights))?);
            }
        }
        Ok(())
    }
}

impl Cursor {
    fn next_stage(&mut self) {
        (self.at, self.chain) = (0, None);
        self.stage = match self.stage {
            Stage::LeftPairs => Stage::RightPairs,
            Stage::RightPairs => Stage::Alone(0),
            Stage::Alone(0) => Stage::Alone(1),
            Stage::Alone(_) => {
                self.group += 1;
                Stage::LeftPairs
            }
        };
    }
}

/// True if rows of this side may leave alone.
fn tracked(kind: JoinKind, side: usize) -> bool {
    if kind.is_filter() { side == 0 } else { kind.keeps_unmatched(side) }
}

/// Where each group's rows are in a list that is sorted by group.
fn ranges(rows: &[(u32, u64)]) -> Vec<(usize, std::ops::Range<usize>)> {
    let mut ranges = Vec::new();
    let mut from = 0;
    for to in (1..=rows.len()).filter(|i| *i == rows.len() || rows[*i].0 != rows[i - 1].0) {
        ranges.push((rows[from].0 as usize, from..to));
        from = to;
    }
    ranges
}

fn weights_of(batches: &[DeltaBatch]) -> Result<Vec<i64>> {
    if batches.iter().all(|b| b.weights.is_none()) {
        return Ok(vec![1; batches.iter().map(DeltaBatch::num_rows).sum()]);
    }
    let each = batches.iter().map(|b| b.weights.clone().unwrap_or_else(|| Int64Array::from_value(1, b.num_rows())));
    let each: Vec<Int64Array> = each.collect();
    let all: Vec<&dyn Array> = each.iter().map(|a| a as &dyn Array).collect();
    Ok(values(concat(&all)?.as_ref()))
}

fn values(weights: &dyn Array) -> Vec<i64> {
    use arrow::array::AsArray;
    weights.as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()
}

fn cut(weights: &[i64], keep: &arrow::array::BooleanArray) -> Result<Vec<i64>> {
    Ok(values(filter(&Int64Array::from(weights.to_vec()), keep)?.as_ref()))
}

/// First row of each distinct content whose weights do not cancel, with their sum.
fn consolidate(encoded: &Rows, weights: &[i64]) -> (Vec<u32>, Vec<i64>) {
    let mut table: HashTable<usize> = HashTable::with_capacity(weights.len());
    let mut distinct: Vec<(u32, u64, i64)> = Vec::new();
    for (row, weight) in weights.iter().enumerate() {
        let hash = xxh3_64(encoded.row(row).data());
        let same = |at: &usize| {
            let (first, other, _) = distinct[*at];
            other == hash && encoded.row(first as usize) == encoded.row(row)
        };
        match table.find(hash, same) {
            Some(at) => distinct[*at].2 += weight,
            None => {
                table.insert_unique(hash, distinct.len(), |at| distinct[*at].1);
                distinct.push((row as u32, hash, *weight));
            }
        }
    }
    distinct.into_iter().filter(|(.., sum)| *sum != 0).map(|(row, _, sum)| (row, sum)).unzip()
}

fn shown(rows: &RecordBatch, row: usize) -> Result<String> {
    let shown = rows
        .columns()
        .iter()
        .zip(rows.schema_ref().fields())
        .map(|(column, field)| Ok(format!("{} {}", field.name(), array_value_to_string(column, row)?)));
    Ok(shown.collect::<Result<Vec<_>>>()?.join(", "))
}
