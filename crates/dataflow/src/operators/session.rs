//! Session windows: rows of a key with at most `gap` between neighbours, `[first, last + gap)`, as Flink and Spark have them.
//!
//! The partial half turns the rows of an epoch into **fragments** (key, first, last, partial states): a row joins its key's latest
//! fragment if it is within the gap of it. The final half merges fragments and open sessions of a key that are within the gap of each
//! other, in order of their start, and emits a session when the watermark has passed `last + gap`: a row at that very moment would still join it.
//!
//! **State.** Open sessions are rows of sealed **parts** (keys, first, last, states), found by an index on the encoded key. A merge writes a new row;
//! the rows that went into it are dead. A later row of a key covers every earlier row that it replaces, which is how a restored operator tells
//! dead rows from open ones without a list of deletions; sessions emitted before the checkpoint are told by its watermark. A part is
//! dropped when no row of it is open and rewritten when fewer than a quarter are.
//!
//! **Entries.** `part number` (big endian) → Arrow IPC stream; `closed` → watermark of the checkpoint.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::compute::{filter_record_batch, interleave, is_not_null};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use datafusion::error::Result as DfResult;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use hashbrown::HashMap;
use millstream_plan::OperatorId;

use super::early::{Early, Replaced, parse_span, span_bytes};
use super::groups::{Aggregation, NumberedGroups};
use super::partial::pane_columns;
use super::{EpochContext, Operator, StateChange, StateReport, Step, failed};
use crate::graph::{WindowAggregate, WindowOf};
use crate::ipc;
use crate::times::{from_millis, to_millis};
use crate::windows::Span;
use crate::{DataflowError, DeltaBatch};

/// First half: rows of an epoch become fragments.
pub(super) struct PartialSession {
    id: OperatorId,
    aggregation: Aggregation,
    time: Arc<dyn PhysicalExpr>,
    gap: i64,
    gathered: Fragments,
}

/// Fragments of the epoch at hand.
struct Fragments {
    /// `None` without key columns.
    keys: Option<Box<dyn GroupValues>>,
    /// Latest fragment of each key.
    latest: Vec<usize>,
    /// Key of each fragment.
    key_of: Vec<u32>,
    first: Vec<i64>,
    last: Vec<i64>,
    groups: NumberedGroups,
}

impl Fragments {
    fn new(aggregation: &Aggregation) -> DfResult<Self> {
        let keys = aggregation.key_count();
        let schema = Arc::new(aggregation.part.project(&(0..keys).collect::<Vec<_>>())?);
        Ok(Self {
            keys: if keys == 0 { None } else { Some(new_group_values(schema, &GroupOrdering::None)?) },
            latest: Vec::new(),
            key_of: Vec::new(),
            first: Vec::new(),
            last: Vec::new(),
            groups: NumberedGroups::new(aggregation)?,
        })
    }
}

impl PartialSession {
    pub(super) fn new(id: OperatorId, spec: &Arc<WindowAggregate>, gap: i64) -> Result<Self, DataflowError> {
        let WindowOf::Time { time, .. } = &spec.window else {
            return Err(DataflowError::Corrupt(format!("operator {id}: a session without a time")));
        };
        let aggregation = Aggregation::new(spec).map_err(failed(id, "session"))?;
        let gathered = Fragments::new(&aggregation).map_err(failed(id, "session"))?;
        Ok(Self { id, aggregation, time: time.clone(), gap, gathered })
    }

    fn add(&mut self, rows: &RecordBatch) -> DfResult<()> {
        let times = to_millis(&self.time.evaluate(rows)?.into_array(rows.num_rows())?)?;
        if times.null_count() > 0 {
            let kept = filter_record_batch(rows, &is_not_null(&times)?)?;
            return if kept.num_rows() > 0 { self.add(&kept) } else { Ok(()) };
        }
        let input = self.aggregation.arguments(rows)?;
        let f = &mut self.gathered;
        let mut key_ids = Vec::with_capacity(input.rows);
        match &mut f.keys {
            Some(keys) => keys.intern(&input.keys, &mut key_ids)?,
            None => key_ids.resize(input.rows, 0),
        }
        let fragments = key_ids.into_iter().zip(times.values()).map(|(key, &time)| {
            if key >= f.latest.len() {
                f.latest.resize(key + 1, usize::MAX);
            }
            let at = f.latest[key];
            if at != usize::MAX
                && time.saturating_add(self.gap) >= f.first[at]
                && time <= f.last[at].saturating_add(self.gap)
            {
                f.first[at] = f.first[at].min(time);
                f.last[at] = f.last[at].max(time);
                return at;
            }
            f.latest[key] = f.first.len();
            f.first.push(time);
            f.last.push(time);
            f.key_of.push(key as u32);
            f.latest[key]
        });
        let fragments: Vec<usize> = fragments.collect();
        f.groups.update(&input, &fragments, f.first.len())
    }

    fn flush(&mut self) -> DfResult<Option<RecordBatch>> {
        if self.gathered.first.is_empty() {
            return Ok(None);
        }
        let fresh = Fragments::new(&self.aggregation)?;
        let mut f = std::mem::replace(&mut self.gathered, fresh);
        let mut columns = match &mut f.keys {
            Some(keys) => {
                let of = arrow::array::UInt32Array::from(std::mem::take(&mut f.key_of));
                let distinct = keys.emit(datafusion::logical_expr::EmitTo::All)?;
                distinct.iter().map(|c| arrow::compute::take(c, &of, None)).collect::<Result<Vec<_>, _>>()?
            }
            None => Vec::new(),
        };
        columns.push(Arc::new(Int64Array::from(f.first)));
        columns.push(Arc::new(Int64Array::from(f.last)));
        columns.extend(f.groups.take_states()?);
        Ok(Some(shaped(columns, &self.aggregation.partial)?))
    }
}

impl Operator for PartialSession {
    fn process(
        &mut self,
        _: usize,
        batch: DeltaBatch,
        _: &EpochContext<'_>,
        _: &mut Vec<DeltaBatch>,
    ) -> Result<Step, DataflowError> {
        if batch.weights.is_some() {
            return Err(DataflowError::Corrupt(format!("operator {}: weights on an append-only edge", self.id)));
        }
        if batch.num_rows() > 0 {
            self.add(&batch.rows).map_err(failed(self.id, "session"))?;
        }
        Ok(Step::Done)
    }

    fn end_epoch(&mut self, _: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        out.extend(self.flush().map_err(failed(self.id, "session"))?.map(DeltaBatch::appended));
        Ok(Step::Done)
    }
}

/// Second half: fragments become sessions.
pub(super) struct SessionAggregate {
    id: OperatorId,
    aggregation: Aggregation,
    gap: i64,
    encode: Option<RowConverter>,
    /// Open sessions of each key, ascending by start. Only looked up, never iterated.
    index: HashMap<Box<[u8]>, Vec<Session>>,
    /// (time of closing, key, first): the order of emission.
    timers: BTreeSet<(i64, Box<[u8]>, i64)>,
    parts: BTreeMap<u32, Part>,
    next_part: u32,
    /// Fragments of the epoch at hand.
    incoming: Vec<RecordBatch>,
    closed: i64,
    deleted: Vec<u32>,
    early: Option<Early>,
    /// Keys whose sessions fire in this epoch and have not yet.
    firing: Vec<Box<[u8]>>,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    first: i64,
    last: i64,
    part: u32,
    row: u32,
}

struct Part {
    rows: RecordBatch,
    open: usize,
    stored: bool,
}

impl Session {
    /// Tells it from the other sessions of its key.
    fn identity(&self) -> Vec<u8> {
        span_bytes(Span { start: self.first, end: self.last })
    }
}

/// Bytes before the key in [`scope`].
const SCOPE_HEAD: usize = 4;

/// The sessions of a key as a scope of early results: no scope begins with another.
fn scope(key: &[u8]) -> Vec<u8> {
    [&(key.len() as u32).to_be_bytes(), key].concat()
}

impl SessionAggregate {
    pub(super) fn new(id: OperatorId, spec: &Arc<WindowAggregate>, gap: i64) -> Result<Self, DataflowError> {
        let aggregation = Aggregation::new(spec).map_err(failed(id, "session"))?;
        let keys = aggregation.key_count();
        let encode = match keys {
            0 => None,
            _ => {
                let fields = aggregation.part.fields()[..keys].iter();
                Some(RowConverter::new(fields.map(|f| SortField::new(f.data_type().clone())).collect())?)
            }
        };
        let early = spec.early.map(|interval| Early::new(interval, &spec.output)).transpose();
        Ok(Self {
            id,
            early: early.map_err(failed(id, "session"))?,
            firing: Vec::new(),
            aggregation,
            gap,
            encode,
            index: HashMap::new(),
            timers: BTreeSet::new(),
            parts: BTreeMap::new(),
            next_part: 0,
            incoming: Vec::new(),
            closed: i64::MIN,
            deleted: Vec::new(),
        })
    }

    /// Encoded key of every row.
    fn keys_of(&self, rows: &RecordBatch) -> DfResult<Vec<Box<[u8]>>> {
        Ok(match &self.encode {
            None => vec![Box::default(); rows.num_rows()],
            Some(encode) => {
                let encoded = encode.convert_columns(&rows.columns()[..self.aggregation.key_count()])?;
                encoded.iter().map(|r| r.data().into()).collect()
            }
        })
    }

    fn add_part(&mut self, rows: RecordBatch, stored: bool) -> u32 {
        let number = self.next_part;
        self.next_part += 1;
        self.parts.insert(number, Part { open: rows.num_rows(), rows, stored });
        number
    }

    /// A row of `part` is open no more.
    fn release(&mut self, part: u32) {
        let Some(entry) = self.parts.get_mut(&part) else { return };
        entry.open -= 1;
        if entry.open == 0 {
            if entry.stored {
                self.deleted.push(part);
            }
            self.parts.remove(&part);
        }
    }

    /// Merges the epoch's fragments with the open sessions of their keys.
    fn merge_incoming(&mut self) -> DfResult<()> {
        let batches = std::mem::take(&mut self.incoming);
        let Some(first) = batches.first() else { return Ok(()) };
        let fragments = arrow::compute::concat_batches(&first.schema(), &batches)?;
        let (firsts, lasts) = pane_columns(&fragments, self.aggregation.key_count())?;
        // Keys in order of their first fragment; fragments are numbered as a part that exists only here.
        let incoming = u32::MAX;
        let mut order: Vec<Box<[u8]>> = Vec::new();
        let mut by_key: HashMap<Box<[u8]>, Vec<Session>> = HashMap::new();
        for (row, key) in self.keys_of(&fragments)?.into_iter().enumerate() {
            let session = Session { first: firsts[row], last: lasts[row], part: incoming, row: row as u32 };
            match by_key.get_mut(&key) {
                Some(list) => list.push(session),
                None => {
                    by_key.insert(key.clone(), vec![session]);
                    order.push(key);
                }
            }
        }
        // Sources of every merged session, in order of their start.
        let mut merged: Vec<(Box<[u8]>, Vec<Session>)> = Vec::new();
        for key in order {
            let mut all = by_key.remove(&key).unwrap_or_default();
            let open = self.index.remove(&key).unwrap_or_default();
            all.extend(open);
            all.sort_by_key(|s| (s.first, s.last, s.part, s.row));
            let mut kept = Vec::new();
            let mut at = 0;
            while at < all.len() {
                let mut last = all[at].last;
                let mut to = at + 1;
                while to < all.len() && all[to].first <= last.saturating_add(self.gap) {
                    last = last.max(all[to].last);
                    to += 1;
                }
                let sources = &all[at..to];
                if sources.len() == 1 && sources[0].part != incoming {
                    kept.push(sources[0]);
                } else {
                    for old in sources.iter().filter(|s| s.part != incoming) {
                        self.timers.remove(&(old.last.saturating_add(self.gap), key.clone(), old.first));
                    }
                    merged.push((key.clone(), sources.to_vec()));
                }
                at = to;
            }
            if !kept.is_empty() {
                self.index.insert(key, kept);
            }
        }
        self.write_merged(&fragments, merged)
    }

    fn write_merged(&mut self, fragments: &RecordBatch, merged: Vec<(Box<[u8]>, Vec<Session>)>) -> DfResult<()> {
        let sources: Vec<Session> = merged.iter().flat_map(|(_, s)| s.iter().copied()).collect();
        let groups: Vec<usize> =
            merged.iter().enumerate().flat_map(|(g, (_, s))| std::iter::repeat_n(g, s.len())).collect();
        let gathered = self.gather(&sources, Some(fragments))?;
        let mut accumulators = NumberedGroups::new(&self.aggregation)?;
        let keys = self.aggregation.key_count();
        accumulators.merge(&self.aggregation, &gathered.columns()[keys + 2..], &groups, merged.len())?;
        // The key columns of a session are those of its first source.
        let mut heads = Vec::with_capacity(merged.len());
        let mut at = 0;
        for (_, sources) in &merged {
            heads.push(at);
            at += sources.len() as u32;
        }
        let heads = arrow::array::UInt32Array::from(heads);
        let mut columns = gathered.columns()[..keys]
            .iter()
            .map(|c| arrow::compute::take(c, &heads, None))
            .collect::<Result<Vec<_>, _>>()?;
        let first: Vec<i64> = merged.iter().map(|(_, s)| s[0].first).collect();
        let last: Vec<i64> = merged.iter().map(|(_, s)| s.iter().map(|s| s.last).max().unwrap_or(s[0].last)).collect();
        columns.push(Arc::new(Int64Array::from(first.clone())));
        columns.push(Arc::new(Int64Array::from(last.clone())));
        columns.extend(accumulators.take_states()?);
        let rows = shaped(columns, &self.aggregation.partial)?;
        let part = self.add_part(rows, false);
        for (row, (key, old)) in merged.into_iter().enumerate() {
            self.early.iter_mut().for_each(|e| e.touch(&scope(&key)));
            for source in old.iter().filter(|s| s.part != u32::MAX) {
                self.release(source.part);
            }
            let session = Session { first: first[row], last: last[row], part, row: row as u32 };
            self.open(key, session);
        }
        Ok(())
    }

    fn open(&mut self, key: Box<[u8]>, session: Session) {
        self.timers.insert((session.last.saturating_add(self.gap), key.clone(), session.first));
        let list = self.index.entry(key).or_default();
        let at = list.partition_point(|s| s.first < session.first);
        list.insert(at, session);
    }

    /// The rows of these sessions as one batch, in this order.
    fn gather(&self, sessions: &[Session], incoming: Option<&RecordBatch>) -> DfResult<RecordBatch> {
        let mut place: HashMap<u32, usize> = HashMap::new();
        let mut batches: Vec<&RecordBatch> = Vec::new();
        let mut indices = Vec::with_capacity(sessions.len());
        for s in sessions {
            let batch = match place.get(&s.part) {
                Some(at) => *at,
                None => {
                    let rows = match self.parts.get(&s.part) {
                        Some(part) => &part.rows,
                        None => incoming.ok_or_else(|| missing(s.part))?,
                    };
                    place.insert(s.part, batches.len());
                    batches.push(rows);
                    batches.len() - 1
                }
            };
            indices.push((batch, s.row as usize));
        }
        let schema = self.aggregation.partial.clone();
        let columns = (0..schema.fields().len())
            .map(|c| {
                let columns: Vec<&dyn Array> = batches.iter().map(|b| b.column(c).as_ref()).collect();
                interleave(&columns, &indices)
            })
            .collect::<Result<Vec<ArrayRef>, _>>()?;
        Ok(RecordBatch::try_new(schema, columns)?)
    }

    fn take_open(&mut self, key: &[u8], first: i64) -> Option<Session> {
        let list = self.index.get_mut(key)?;
        let at = list.iter().position(|s| s.first == first)?;
        let session = list.remove(at);
        if list.is_empty() {
            self.index.remove(key);
        }
        Some(session)
    }

    /// Emits sessions that end before the watermark: at most one batch.
    fn emit_some(&mut self, watermark: i64, out: &mut Vec<DeltaBatch>) -> DfResult<Step> {
        let mut closing = Vec::new();
        let mut keys = Vec::new();
        while closing.len() < super::BATCH_ROWS && self.timers.first().is_some_and(|t| t.0 < watermark) {
            let Some((_, key, first)) = self.timers.pop_first() else { break };
            if let Some(session) = self.take_open(&key, first) {
                closing.push(session);
                keys.push(key);
            }
        }
        if closing.is_empty() {
            return self.fire(out);
        }
        let rows = self.rows(&closing)?;
        match &mut self.early {
            None => out.push(DeltaBatch::appended(rows)),
            Some(early) => {
                let encoded = early.encode(&rows)?;
                let mut replaced = Replaced::default();
                for ((key, session), row) in keys.iter().zip(&closing).zip(encoded.iter()) {
                    // What the session has grown out of goes with it.
                    let inside = |identity: &[u8]| {
                        parse_span(identity).is_some_and(|s| session.first <= s.start && s.end <= session.last)
                    };
                    let new = std::iter::once((session.identity(), row.data()));
                    early.replace(&scope(key), new, inside, false, &mut replaced);
                }
                early.emit(replaced, out)?;
            }
        }
        for session in &closing {
            self.release(session.part);
        }
        Ok(Step::More)
    }

    /// Emits the open sessions of keys that fire.
    fn fire(&mut self, out: &mut Vec<DeltaBatch>) -> DfResult<Step> {
        let firing = std::mem::take(&mut self.firing);
        let keys: Vec<&[u8]> = firing.iter().map(|scope| &scope[SCOPE_HEAD..]).collect();
        let of = |key: &&[u8]| self.index.get(*key).map_or(&[][..], Vec::as_slice);
        let open: Vec<Session> = keys.iter().flat_map(|k| of(k).iter().copied()).collect();
        let counts: Vec<usize> = keys.iter().map(|k| of(k).len()).collect();
        if open.is_empty() {
            return Ok(Step::Done);
        }
        let rows = self.rows(&open)?;
        let Some(early) = &mut self.early else { return Ok(Step::Done) };
        let encoded = early.encode(&rows)?;
        let mut replaced = Replaced::default();
        let mut from = 0;
        for (scope, count) in firing.iter().zip(counts) {
            let rows = (from..from + count).map(|i| (open[i].identity(), encoded.row(i).data()));
            early.replace(scope, rows, |_| true, true, &mut replaced);
            from += count;
        }
        early.emit(replaced, out)?;
        Ok(Step::Done)
    }

    /// Result rows of these sessions.
    fn rows(&self, sessions: &[Session]) -> DfResult<RecordBatch> {
        let rows = self.gather(sessions, None)?;
        let keys = self.aggregation.key_count();
        let mut accumulators = NumberedGroups::new(&self.aggregation)?;
        let groups: Vec<usize> = (0..sessions.len()).collect();
        accumulators.merge(&self.aggregation, &rows.columns()[keys + 2..], &groups, sessions.len())?;
        let output = self.aggregation.spec.output.clone();
        let mut columns = rows.columns()[..keys].to_vec();
        let ends = |minus: i64| sessions.iter().map(|s| s.last + self.gap - minus).collect::<Int64Array>();
        let times = [sessions.iter().map(|s| s.first).collect(), ends(0), ends(1)];
        for (at, times) in times.into_iter().enumerate() {
            columns.push(from_millis(times, output.field(keys + at).data_type())?);
        }
        columns.extend(accumulators.take_results()?);
        shaped(columns, &output)
    }

    /// All open sessions in parts of this kind, as new parts of one.
    fn rewrite(&mut self, which: impl Fn(&Part) -> bool) -> DfResult<()> {
        let old: BTreeSet<u32> = self.parts.iter().filter(|(_, p)| which(p)).map(|(n, _)| *n).collect();
        if old.is_empty() {
            return Ok(());
        }
        let mut moved = Vec::new();
        for (_, key, first) in &self.timers {
            let found = self.index.get(key).and_then(|l| l.iter().find(|s| s.first == *first));
            moved.extend(found.filter(|s| old.contains(&s.part)).map(|s| (key.clone(), *s)));
        }
        let rows = self.gather(&moved.iter().map(|(_, s)| *s).collect::<Vec<_>>(), None)?;
        let part = self.add_part(rows, false);
        for (row, (key, session)) in moved.into_iter().enumerate() {
            self.release(session.part);
            if let Some(s) = self.index.get_mut(&key).and_then(|l| l.iter_mut().find(|s| s.first == session.first)) {
                (s.part, s.row) = (part, row as u32);
            }
        }
        Ok(())
    }
}

fn missing(part: u32) -> datafusion::error::DataFusionError {
    datafusion::error::DataFusionError::Internal(format!("session part {part} is gone"))
}

fn shaped(columns: Vec<ArrayRef>, schema: &SchemaRef) -> DfResult<RecordBatch> {
    let columns = columns
        .into_iter()
        .zip(schema.fields())
        .map(|(c, f)| if c.data_type() == f.data_type() { Ok(c) } else { arrow::compute::cast(&c, f.data_type()) })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

const CLOSED: &[u8] = b"closed";

impl Operator for SessionAggregate {
    fn process(
        &mut self,
        _: usize,
        batch: DeltaBatch,
        _: &EpochContext<'_>,
        _: &mut Vec<DeltaBatch>,
    ) -> Result<Step, DataflowError> {
        if batch.num_rows() > 0 {
            self.incoming.push(
                shaped(batch.rows.columns().to_vec(), &self.aggregation.partial).map_err(failed(self.id, "session"))?,
            );
        }
        Ok(Step::Done)
    }

    fn resume(&mut self, cx: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        self.emit_some(cx.watermark(&self.aggregation.spec.domain), out).map_err(failed(self.id, "session"))
    }

    fn end_epoch(&mut self, cx: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        self.merge_incoming().map_err(failed(self.id, "session"))?;
        self.closed = self.closed.max(cx.watermark(&self.aggregation.spec.domain));
        self.firing = self.early.as_mut().map_or_else(Vec::new, |e| e.fire(cx.plan.now_ms));
        self.resume(cx, out)
    }

    fn seal(&mut self) -> Result<Vec<StateChange>, DataflowError> {
        self.rewrite(|p| !p.stored || p.open * 4 < p.rows.num_rows()).map_err(failed(self.id, "session"))?;
        let mut changes = Vec::new();
        for (number, part) in self.parts.iter_mut().filter(|(_, p)| !p.stored) {
            part.stored = true;
            changes.push(StateChange { key: number.to_be_bytes().to_vec(), value: Some(ipc::encode(&part.rows)?) });
        }
        changes.extend(self.deleted.drain(..).map(|n| StateChange { key: n.to_be_bytes().to_vec(), value: None }));
        let closed = [self.closed.to_be_bytes().to_vec(), self.next_part.to_be_bytes().to_vec()].concat();
        changes.push(StateChange { key: CLOSED.to_vec(), value: Some(closed) });
        self.early.iter_mut().for_each(|e| e.seal(&mut changes));
        Ok(changes)
    }

    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), DataflowError> {
        let corrupt = |what: &str| DataflowError::Corrupt(format!("operator {}: state entry with {what}", self.id));
        if key == CLOSED {
            // The last entry: part numbers are smaller.
            let bytes = |r: std::ops::Range<usize>| value.get(r).ok_or_else(|| corrupt("a wrong watermark"));
            self.closed = i64::from_be_bytes(bytes(0..8)?.try_into().map_err(|_| corrupt("a wrong watermark"))?);
            self.next_part = u32::from_be_bytes(bytes(8..12)?.try_into().map_err(|_| corrupt("a wrong part number"))?);
            while self.timers.first().is_some_and(|t| t.0 < self.closed) {
                let Some((_, key, first)) = self.timers.pop_first() else { break };
                if let Some(session) = self.take_open(&key, first) {
                    self.release(session.part);
                }
            }
            return Ok(());
        }
        if let Some(early) = &mut self.early
            && early.restore(key, value).ok_or_else(|| corrupt("a wrong early result"))?
        {
            return Ok(());
        }
        let number = u32::from_be_bytes(key.try_into().map_err(|_| corrupt("a wrong key"))?);
        let rows =
            ipc::decode(value, &self.aggregation.partial).map_err(|e| corrupt(&format!("unreadable rows: {e}")))?;
        let keys = self.keys_of(&rows).map_err(failed(self.id, "session"))?;
        let (firsts, lasts) = pane_columns(&rows, self.aggregation.key_count()).map_err(failed(self.id, "session"))?;
        let sessions: Vec<Session> = (0..rows.num_rows())
            .map(|row| Session { first: firsts[row], last: lasts[row], part: number, row: row as u32 })
            .collect();
        self.parts.insert(number, Part { open: rows.num_rows(), rows: rows.clone(), stored: true });
        for (key, session) in keys.into_iter().zip(sessions) {
            let covered: Vec<Session> = self.index.get(&key).map_or_else(Vec::new, |l| {
                l.iter().filter(|s| session.first <= s.first && s.last <= session.last).copied().collect()
            });
            for old in covered {
                self.timers.remove(&(old.last.saturating_add(self.gap), key.clone(), old.first));
                if let Some(old) = self.take_open(&key, old.first) {
                    self.release(old.part);
                }
            }
            self.open(key, session);
        }
        Ok(())
    }

    fn report(&self) -> StateReport {
        StateReport {
            keys: self.timers.len() as u64,
            bytes: self.parts.values().map(|p| p.rows.get_array_memory_size() as u64).sum::<u64>()
                + self.early.as_ref().map_or(0, |e| e.bytes() as u64),
            next_timer: self.timers.first().map(|t| t.0.saturating_add(1)),
        }
    }

    fn next_wake(&self) -> Option<i64> {
        self.early.as_ref().and_then(Early::next_wake)
    }
}
