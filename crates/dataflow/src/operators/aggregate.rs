//! Second half of a windowed aggregation: partial states become one row per key and window, emitted once when the window closes, and
//! before that if early results are wanted (see [`early`](super::early)).
//!
//! **State.** Per pane, a list of sealed **parts** (key columns, state columns) and a **live** table. A checkpoint turns the live table into a
//! new part, so it writes each key that changed since the last checkpoint once, however often it changed, and never rewrites
//! what is already stored. A window is the merge of its panes' parts and live tables, in pane order, parts in order of
//! sealing; what windows share is merged once (see [`slices`](super::slices)). When parts of a pane become many they are merged into one at a checkpoint: part boundaries follow from the plans
//! alone, so a restored operator merges in the same order as one that never stopped.
//!
//! **Entries.** `pane end, pane start (big endian, sign flipped), part number` → Arrow IPC stream of one batch.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result as DfResult};
use millstream_plan::OperatorId;

use super::early::{EarlyWindows, parse_span, span_bytes};
use super::groups::{Aggregation, GroupTable};
use super::partial::pane_columns;
use super::slices::Slices;
use super::{EpochContext, Operator, StateChange, StateReport, Step, failed};
use crate::graph::{WindowAggregate, WindowOf};
use crate::ipc;
use crate::times::from_millis;
use crate::windows::{Panes, Span};
use crate::{DataflowError, DeltaBatch};

/// A pane with this many parts is compacted at the next checkpoint.
const COMPACT_PARTS: usize = 8;

pub(super) struct WindowAggregateOperator {
    id: OperatorId,
    aggregation: Aggregation,
    /// `None`: every pane is a window of its own (attached windows).
    panes_of: Option<Panes>,
    panes: BTreeMap<Span, Pane>,
    /// Windows with an end up to here have been emitted.
    closed: i64,
    /// Windows that are closed and not yet emitted.
    closing: Vec<Span>,
    /// Entries of panes that are gone.
    deleted: Vec<Vec<u8>>,
    early: Option<EarlyWindows>,
    /// What windows share, if they share much.
    slices: Option<Slices>,
}

#[derive(Default)]
struct Pane {
    parts: Vec<Part>,
    live: Option<GroupTable>,
    /// Number of the next part.
    next: u32,
}

struct Part {
    number: u32,
    rows: RecordBatch,
    stored: bool,
}

impl WindowAggregateOperator {
    pub(super) fn new(id: OperatorId, spec: &Arc<WindowAggregate>) -> Result<Self, DataflowError> {
        let panes_of = match &spec.window {
            WindowOf::Time { kind, .. } => Some(
                Panes::of(*kind)
                    .ok_or_else(|| DataflowError::Corrupt(format!("operator {id}: {kind:?} makes no windows")))?,
            ),
            WindowOf::Attached { .. } => None,
        };
        let error = failed(id, "window aggregate");
        Ok(Self {
            id,
            aggregation: Aggregation::new(spec).map_err(&error)?,
            early: spec.early.map(|interval| EarlyWindows::new(spec, interval)).transpose().map_err(error)?,
            slices: panes_of.and_then(|p| Slices::of(p.kind(), p.width())),
            panes_of,
            panes: BTreeMap::new(),
            closed: i64::MIN,
            closing: Vec::new(),
            deleted: Vec::new(),
        })
    }

    fn add(&mut self, rows: &RecordBatch) -> DfResult<()> {
        let keys = self.aggregation.key_count();
        let (starts, ends) = pane_columns(rows, keys)?;
        let mut columns = rows.columns().to_vec();
        columns.drain(keys..keys + 2);
        let span = |row: usize| Span { start: starts[row], end: ends[row] };
        // The partial half emits panes in ascending order, so runs are long; a shuffle keeps their order.
        let mut from = 0;
        for to in (1..rows.num_rows()).filter(|i| span(*i) != span(i - 1)).chain([rows.num_rows()]) {
            let cut: Vec<ArrayRef> = columns.iter().map(|c| c.slice(from, to - from)).collect();
            let pane = self.panes.entry(span(from)).or_default();
            let live = match &mut pane.live {
                Some(live) => live,
                None => pane.live.insert(GroupTable::new(&self.aggregation)?),
            };
            live.merge(&self.aggregation, &cut, to - from)?;
            if let Some(early) = &mut self.early {
                let windows = windows_of(self.panes_of, span(from));
                let open = windows.into_iter().filter(|w| w.end > self.closed);
                open.for_each(|w| early.early.touch(&span_bytes(w)));
            }
            from = to;
        }
        Ok(())
    }

    fn last_end(&self, pane: Span) -> i64 {
        self.panes_of.map_or(pane.end, |p| p.last_end(pane))
    }

    /// The rows of one window, which is `closed` or may grow.
    fn rows(&mut self, window: Span, closed: bool) -> DfResult<Option<RecordBatch>> {
        let slices = if closed { self.slices.take() } else { None };
        let merged = match slices {
            Some(mut slices) => {
                let parts = self.merged(&mut slices, window);
                self.slices = Some(slices);
                let parts = parts?;
                merge(&self.aggregation, &mut parts.iter())?
            }
            None => self.merged_panes(window, closed)?,
        };
        let Some(mut table) = merged else { return Ok(None) };
        let rows = table.len();
        let (keys, results) = table.take_results()?;
        if rows == 0 {
            return Ok(None);
        }
        Ok(Some(window_rows(&self.aggregation.spec.output, window, rows, keys, results)?))
    }

    /// What a closed window shares with others, and the rest of it.
    fn merged(&mut self, slices: &mut Slices, window: Span) -> DfResult<Vec<RecordBatch>> {
        let Self { panes, aggregation, .. } = self;
        let mut parts_of = |span: Span| -> DfResult<Vec<RecordBatch>> {
            let Some(pane) = panes.get_mut(&span) else { return Ok(Vec::new()) };
            pane.freeze(aggregation)?;
            Ok(pane.parts.iter().map(|p| p.rows.clone()).collect())
        };
        let mut merge = |parts: &[&RecordBatch]| -> DfResult<Option<RecordBatch>> {
            let table = merge(aggregation, &mut parts.iter().copied())?.filter(|t| t.len() > 0);
            table.map(|mut t| part_batch(aggregation, t.take_states()?)).transpose()
        };
        let parts = slices.window(window, &mut parts_of, &mut merge)?;
        slices.forget(window.start);
        Ok(parts)
    }

    /// The window's panes, merged.
    fn merged_panes(&mut self, window: Span, closed: bool) -> DfResult<Option<GroupTable>> {
        let inside: Vec<Span> =
            self.panes.keys().filter(|p| window.start <= p.start && p.end <= window.end).copied().collect();
        let attached = self.panes_of.is_none();
        let inside = inside.into_iter().filter(|p| !attached || *p == window);
        let alone = attached || self.panes_of.is_some_and(|p| p.is_window());
        let mut merged: Option<GroupTable> = None;
        for span in inside {
            let Some(pane) = self.panes.get_mut(&span) else { continue };
            if closed && alone && pane.parts.is_empty() {
                merged = pane.live.take();
                continue;
            }
            pane.freeze(&self.aggregation)?;
            if !closed && pane.parts.len() >= COMPACT_PARTS {
                pane.compact(span, &self.aggregation, &mut self.deleted)?;
            }
            let table = match &mut merged {
                Some(table) => table,
                None => merged.insert(GroupTable::new(&self.aggregation)?),
            };
            for part in &pane.parts {
                table.merge(&self.aggregation, part.rows.columns(), part.rows.num_rows())?;
            }
        }
        Ok(merged)
    }

    /// The next window to emit, and whether it is closed.
    fn next_window(&mut self) -> Option<(Span, bool)> {
        let closing = self.closing.pop().map(|w| (w, true));
        closing.or_else(|| self.early.as_mut()?.firing.pop().map(|w| (w, false)))
    }

    /// Forgets panes all of whose windows are emitted.
    fn forget(&mut self, watermark: i64) {
        let gone: Vec<Span> = self.panes.keys().filter(|p| self.last_end(**p) <= watermark).copied().collect();
        for span in gone {
            if let Some(pane) = self.panes.remove(&span) {
                self.deleted.extend(pane.parts.iter().filter(|p| p.stored).map(|p| entry_key(span, p.number)));
            }
        }
    }

    fn emit_some(&mut self, cx: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        let mut emitted = 0;
        let error = failed(self.id, "window aggregate");
        while let Some((window, closed)) = self.next_window() {
            let rows = self.rows(window, closed).map_err(&error)?;
            let Some(rows) = rows else { continue };
            emitted += rows.num_rows();
            match &mut self.early {
                None => out.push(DeltaBatch::appended(rows)),
                Some(early) => early.replace(window, &rows, !closed, out).map_err(&error)?,
            }
            if emitted >= super::BATCH_ROWS {
                return Ok(Step::More);
            }
        }
        let watermark = cx.watermark(&self.aggregation.spec.domain);
        self.forget(watermark);
        Ok(Step::Done)
    }
}

/// Result rows of one window: keys, `window_start`, `window_end`, `window_time`, aggregates.
pub(super) fn window_rows(
    output: &SchemaRef,
    window: Span,
    rows: usize,
    mut columns: Vec<ArrayRef>,
    results: Vec<ArrayRef>,
) -> DfResult<RecordBatch> {
    let keys = columns.len();
    for (at, time) in [window.start, window.end, window.end - 1].into_iter().enumerate() {
        columns.push(from_millis(Int64Array::from_value(time, rows), output.field(keys + at).data_type())?);
    }
    columns.extend(results);
    let columns = columns
        .into_iter()
        .zip(output.fields())
        .map(|(c, f)| if c.data_type() == f.data_type() { Ok(c) } else { arrow::compute::cast(&c, f.data_type()) })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(output.clone(), columns)?)
}

/// Merges parts in this order; `None` of nothing.
fn merge(aggregation: &Aggregation, parts: &mut dyn Iterator<Item = &RecordBatch>) -> DfResult<Option<GroupTable>> {
    let mut merged: Option<GroupTable> = None;
    for part in parts {
        let table = match &mut merged {
            Some(table) => table,
            None => merged.insert(GroupTable::new(aggregation)?),
        };
        table.merge(aggregation, part.columns(), part.num_rows())?;
    }
    Ok(merged)
}

/// The windows that hold a pane.
fn windows_of(panes: Option<Panes>, pane: Span) -> Vec<Span> {
    panes.map_or_else(|| vec![pane], |p| p.windows_of(pane).collect())
}

impl Pane {
    /// Turns the live table into a part.
    fn freeze(&mut self, aggregation: &Aggregation) -> DfResult<()> {
        if let Some(mut live) = self.live.take()
            && live.len() > 0
        {
            let rows = part_batch(aggregation, live.take_states()?)?;
            self.parts.push(Part { number: self.next, rows, stored: false });
            self.next += 1;
        }
        Ok(())
    }

    /// Merges all parts into one; the keys of those that were stored go to `deleted`.
    fn compact(&mut self, span: Span, aggregation: &Aggregation, deleted: &mut Vec<Vec<u8>>) -> DfResult<()> {
        let mut table = GroupTable::new(aggregation)?;
        for part in self.parts.drain(..) {
            table.merge(aggregation, part.rows.columns(), part.rows.num_rows())?;
            if part.stored {
                deleted.push(entry_key(span, part.number));
            }
        }
        let rows = part_batch(aggregation, table.take_states()?)?;
        self.parts.push(Part { number: self.next, rows, stored: false });
        self.next += 1;
        Ok(())
    }
}

fn part_batch(aggregation: &Aggregation, columns: Vec<ArrayRef>) -> DfResult<RecordBatch> {
    if columns.is_empty() {
        return Err(DataFusionError::Internal("an aggregation without keys and aggregates".to_owned()));
    }
    let columns = columns
        .into_iter()
        .zip(aggregation.part.fields())
        .map(|(c, f)| if c.data_type() == f.data_type() { Ok(c) } else { arrow::compute::cast(&c, f.data_type()) })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(aggregation.part.clone(), columns)?)
}

impl Operator for WindowAggregateOperator {
    fn process(
        &mut self,
        _: usize,
        batch: DeltaBatch,
        _: &EpochContext<'_>,
        _: &mut Vec<DeltaBatch>,
    ) -> Result<Step, DataflowError> {
        if batch.num_rows() > 0 {
            self.add(&batch.rows).map_err(failed(self.id, "window aggregate"))?;
        }
        Ok(Step::Done)
    }

    fn resume(&mut self, cx: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        self.emit_some(cx, out)
    }

    fn end_epoch(&mut self, cx: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        let watermark = cx.watermark(&self.aggregation.spec.domain);
        if watermark > self.closed {
            let ends: BTreeSet<Span> = self
                .panes
                .keys()
                .take_while(|p| p.end <= watermark)
                .flat_map(|p| windows_of(self.panes_of, *p))
                .filter(|w| self.closed < w.end && w.end <= watermark)
                .collect();
            // Popped from the back: ascending by end.
            self.closing = ends.into_iter().rev().collect();
            self.closed = watermark;
        }
        if let Some(EarlyWindows { early, firing, .. }) = &mut self.early {
            self.closing.iter().for_each(|w| early.settle(&span_bytes(*w)));
            firing.extend(early.fire(cx.plan.now_ms).iter().rev().filter_map(|scope| parse_span(scope)));
        }
        self.emit_some(cx, out)
    }

    fn seal(&mut self) -> Result<Vec<StateChange>, DataflowError> {
        let error = failed(self.id, "window aggregate");
        let mut changes = Vec::new();
        for (span, pane) in &mut self.panes {
            pane.freeze(&self.aggregation).map_err(&error)?;
            if pane.parts.len() >= COMPACT_PARTS {
                pane.compact(*span, &self.aggregation, &mut self.deleted).map_err(&error)?;
            }
            for part in pane.parts.iter_mut().filter(|p| !p.stored) {
                part.stored = true;
                changes.push(StateChange { key: entry_key(*span, part.number), value: Some(ipc::encode(&part.rows)?) });
            }
        }
        changes.extend(self.deleted.drain(..).map(|key| StateChange { key, value: None }));
        // The watermark up to which windows are closed follows from the plans: it is the watermark of the checkpoint's epoch, and every later
        // plan has at least that. What it protects against, emitting a window twice, cannot happen once its panes are forgotten; a hop's
        // pane outlives its first windows, so it is kept.
        changes.push(StateChange { key: CLOSED.to_vec(), value: Some(self.closed.to_be_bytes().to_vec()) });
        self.early.iter_mut().for_each(|e| e.early.seal(&mut changes));
        Ok(changes)
    }

    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), DataflowError> {
        let corrupt = |what: &str| DataflowError::Corrupt(format!("operator {}: state entry with {what}", self.id));
        if key == CLOSED {
            self.closed = i64::from_be_bytes(value.try_into().map_err(|_| corrupt("a wrong watermark"))?);
            return Ok(());
        }
        if let Some(early) = &mut self.early
            && early.early.restore(key, value).ok_or_else(|| corrupt("a wrong early result"))?
        {
            return Ok(());
        }
        let (span, number) = parse_key(key).ok_or_else(|| corrupt("a wrong key"))?;
        let rows = ipc::decode(value, &self.aggregation.part).map_err(|e| corrupt(&format!("unreadable rows: {e}")))?;
        let pane = self.panes.entry(span).or_default();
        pane.parts.push(Part { number, rows, stored: true });
        pane.next = number + 1;
        Ok(())
    }

    fn report(&self) -> StateReport {
        let rows = |p: &Pane| {
            p.parts.iter().map(|p| p.rows.num_rows()).sum::<usize>() + p.live.as_ref().map_or(0, GroupTable::len)
        };
        let size = |p: &Pane| {
            p.parts.iter().map(|p| p.rows.get_array_memory_size()).sum::<usize>()
                + p.live.as_ref().map_or(0, GroupTable::size)
        };
        let next = self
            .panes
            .keys()
            .next()
            .and_then(|pane| windows_of(self.panes_of, *pane).iter().map(|w| w.end).find(|e| *e > self.closed));
        StateReport {
            keys: self.panes.values().map(rows).sum::<usize>() as u64,
            bytes: (self.panes.values().map(size).sum::<usize>()
                + self.early.as_ref().map_or(0, |e| e.early.bytes())
                + self.slices.as_ref().map_or(0, Slices::bytes)) as u64,
            next_timer: next,
        }
    }

    fn next_wake(&self) -> Option<i64> {
        self.early.as_ref().and_then(|e| e.early.next_wake())
    }
}

/// Entry of the watermark; shorter than every pane's key.
const CLOSED: &[u8] = b"closed";

fn entry_key(span: Span, number: u32) -> Vec<u8> {
    [&span_bytes(span)[..], &number.to_be_bytes()].concat()
}

fn parse_key(key: &[u8]) -> Option<(Span, u32)> {
    let (span, number) = key.split_last_chunk()?;
    let number = u32::from_be_bytes(*number);
    (span.len() == 16).then(|| Some((parse_span(span)?, number)))?
}
