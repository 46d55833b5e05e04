//! `emit.early`: what open windows have so far, beside the one result at their close.
//!
//! A **scope** is what changes together: a window with all its keys, or the sessions of a key. Scopes with new rows are **dirty**. At the end
//! of an epoch whose time is at least the interval past the last **firing** the dirty scopes fire: the rows that they would give now
//! replace those that they have emitted. At the close the final rows do. A row that stays the same is not emitted again, so a
//! window that fired after its last row says nothing at its close.
//!
//! **Entries.** `early` `e` scope, what identifies a row in it → bytes of the emitted row; `early` `f` → time of the last firing, dirty scopes.
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use arrow::array::Int64Array;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::error::Result as DfResult;

use super::{BATCH_ROWS, StateChange};
use crate::DeltaBatch;
use crate::graph::WindowAggregate;
use crate::windows::Span;

/// Emitted rows and dirty scopes of an operator.
pub(super) struct Early {
    interval: i64,
    output: SchemaRef,
    converter: RowConverter,
    /// By scope and identity.
    emitted: BTreeMap<Box<[u8]>, Box<[u8]>>,
    dirty: BTreeSet<Box<[u8]>>,
    /// Time of the last firing.
    last: i64,
    /// Entries that changed since the last seal.
    changed: BTreeSet<Box<[u8]>>,
    bytes: usize,
}

/// Rows that leave, encoded, with their weights.
#[derive(Default)]
pub(super) struct Replaced(Vec<(Box<[u8]>, i64)>);

const EMITTED: &[u8] = b"earlye";
const FIRING: &[u8] = b"earlyf";

impl Early {
    pub fn new(interval: i64, output: &SchemaRef) -> DfResult<Self> {
        let fields = output.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        Ok(Self {
            interval,
            output: output.clone(),
            converter: RowConverter::new(fields)?,
            emitted: BTreeMap::new(),
            dirty: BTreeSet::new(),
            last: i64::MIN,
            changed: BTreeSet::new(),
            bytes: 0,
        })
    }

    /// The scope has new rows.
    pub fn touch(&mut self, scope: &[u8]) {
        if !self.dirty.contains(scope) {
            self.dirty.insert(scope.into());
        }
    }

    /// The scopes that fire in an epoch at this time, ascending.
    pub fn fire(&mut self, now_ms: i64) -> Vec<Box<[u8]>> {
        if self.dirty.is_empty() || self.next_wake().is_some_and(|at| now_ms < at) {
            return Vec::new();
        }
        self.last = now_ms;
        std::mem::take(&mut self.dirty).into_iter().collect()
    }

    /// When the dirty scopes fire.
    pub fn next_wake(&self) -> Option<i64> {
        (!self.dirty.is_empty()).then(|| self.last.saturating_add(self.interval))
    }

    /// The scope is closed.
    pub fn settle(&mut self, scope: &[u8]) {
        self.dirty.remove(scope);
    }

    /// Rows of the output, for [`Self::replace`].
    pub fn encode(&self, rows: &RecordBatch) -> DfResult<Rows> {
        Ok(self.converter.convert_columns(rows.columns())?)
    }

    /// Puts rows (what identifies each in the scope, its bytes) in the place of those that the scope has emitted and that are `covered`. The new
    /// ones can be replaced again if `open`.
    pub fn replace<'a>(
        &mut self,
        scope: &[u8],
        rows: impl Iterator<Item = (Vec<u8>, &'a [u8])>,
        covered: impl Fn(&[u8]) -> bool,
        open: bool,
        out: &mut Replaced,
    ) {
        let after = (Bound::Included(scope), Bound::Unbounded);
        let of_scope = self.emitted.range::<[u8], _>(after).take_while(|(entry, _)| entry.starts_with(scope));
        let entries: Vec<Box<[u8]>> =
            of_scope.filter(|(entry, _)| covered(&entry[scope.len()..])).map(|(entry, _)| entry.clone()).collect();
        let mut old: BTreeMap<Box<[u8]>, Box<[u8]>> = BTreeMap::new();
        for entry in entries {
            if let Some(row) = self.emitted.remove(&entry) {
                self.bytes -= entry.len() + row.len();
                old.insert(entry, row);
            }
        }
        let mut added: Vec<(Box<[u8]>, i64)> = Vec::new();
        let mut same: BTreeSet<Box<[u8]>> = BTreeSet::new();
        for (identity, row) in rows {
            let entry: Box<[u8]> = [scope, &identity].concat().into();
            match old.remove(&entry) {
                Some(before) if *before == *row => {
                    same.insert(entry.clone());
                }
                before => {
                    added.extend(before.map(|before| (before, -1)));
                    added.push((row.into(), 1));
                }
            }
            if open {
                self.bytes += entry.len() + row.len();
                if !same.contains(&entry) {
                    self.changed.insert(entry.clone());
                }
                self.emitted.insert(entry, row.into());
            } else {
                self.changed.insert(entry);
            }
        }
        for (entry, row) in old {
            out.0.push((row, -1));
            self.changed.insert(entry);
        }
        out.0.append(&mut added);
    }

    /// The replaced rows as changes.
    pub fn emit(&self, replaced: Replaced, out: &mut Vec<DeltaBatch>) -> DfResult<()> {
        let parser = self.converter.parser();
        for part in replaced.0.chunks(BATCH_ROWS) {
            let columns = self.converter.convert_rows(part.iter().map(|(row, _)| parser.parse(row)))?;
            let rows = RecordBatch::try_new(self.output.clone(), columns)?;
            out.push(DeltaBatch { rows, weights: Some(part.iter().map(|(_, w)| *w).collect::<Int64Array>()) });
        }
        Ok(())
    }

    pub fn seal(&mut self, sealed: &mut Vec<StateChange>) {
        for entry in std::mem::take(&mut self.changed) {
            let value = self.emitted.get(&entry).map(|row| row.to_vec());
            sealed.push(StateChange { key: [EMITTED, &entry].concat(), value });
        }
        let mut firing = self.last.to_le_bytes().to_vec();
        for scope in &self.dirty {
            firing.extend((scope.len() as u32).to_le_bytes());
            firing.extend_from_slice(scope);
        }
        sealed.push(StateChange { key: FIRING.to_vec(), value: Some(firing) });
    }

    /// Takes an entry if it is one of these; `None` if it is damaged.
    pub fn restore(&mut self, key: &[u8], value: &[u8]) -> Option<bool> {
        if let Some(entry) = key.strip_prefix(EMITTED) {
            self.bytes += entry.len() + value.len();
            self.emitted.insert(entry.into(), value.into());
            return Some(true);
        }
        if key != FIRING {
            return Some(false);
        }
        let (last, mut rest) = value.split_first_chunk::<8>()?;
        self.last = i64::from_le_bytes(*last);
        while !rest.is_empty() {
            let (length, scopes) = rest.split_first_chunk::<4>()?;
            let (scope, next) = scopes.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            self.dirty.insert(scope.into());
            rest = next;
        }
        Some(true)
    }

    pub fn bytes(&self) -> usize {
        self.bytes + (self.emitted.len() + self.dirty.len()) * 64
    }
}

/// Early results of windows.
pub(super) struct EarlyWindows {
    pub early: Early,
    /// Key columns identify a row in its window; `None` without keys.
    keys: Option<(RowConverter, usize)>,
    /// Windows that fire in this epoch and have not yet, last first.
    pub firing: Vec<Span>,
}

impl EarlyWindows {
    pub fn new(spec: &WindowAggregate, interval: i64) -> DfResult<Self> {
        let fields: Vec<SortField> =
            spec.output.fields()[..spec.keys.len()].iter().map(|f| SortField::new(f.data_type().clone())).collect();
        let width = fields.len();
        let keys = if width == 0 { None } else { Some((RowConverter::new(fields)?, width)) };
        Ok(Self { early: Early::new(interval, &spec.output)?, keys, firing: Vec::new() })
    }

    /// Puts rows in the place of what the window has emitted.
    pub fn replace(&mut self, window: Span, rows: &RecordBatch, open: bool, out: &mut Vec<DeltaBatch>) -> DfResult<()> {
        let encoded = self.early.encode(rows)?;
        let keys = self.keys.as_ref().map(|(k, width)| k.convert_columns(&rows.columns()[..*width])).transpose()?;
        let identity = |row: usize| keys.as_ref().map_or_else(Vec::new, |k| k.row(row).data().to_vec());
        let mut replaced = Replaced::default();
        let rows = encoded.iter().enumerate().map(|(row, bytes)| (identity(row), bytes.data()));
        self.early.replace(&span_bytes(window), rows, |_| true, open, &mut replaced);
        self.early.emit(replaced, out)
    }
}

/// Bounds as bytes, in the order of windows: by end, then start.
pub(super) fn span_bytes(span: Span) -> Vec<u8> {
    let ordered = |v: i64| (v as u64 ^ (1 << 63)).to_be_bytes();
    [ordered(span.end), ordered(span.start)].concat()
}

/// The bounds of [`span_bytes`].
pub(super) fn parse_span(bytes: &[u8]) -> Option<Span> {
    let number = |at: usize| Some((u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?) ^ (1 << 63)) as i64);
    Some(Span { end: number(0)?, start: number(8)? })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    fn early() -> Early {
        let output = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        Early::new(10, &output).unwrap()
    }

    /// Replaces rows (identity, value) and gives the changes.
    fn replace(early: &mut Early, scope: &[u8], rows: &[(u8, i64)], open: bool) -> Vec<(i64, i64)> {
        let values: ArrayRef = Arc::new(rows.iter().map(|r| r.1).collect::<Int64Array>());
        let encoded = early.encode(&RecordBatch::try_new(early.output.clone(), vec![values]).unwrap()).unwrap();
        let mut replaced = Replaced::default();
        let rows = rows.iter().zip(encoded.iter()).map(|(r, row)| (vec![r.0], row.data().to_vec())).collect::<Vec<_>>();
        let rows = rows.iter().map(|(identity, row)| (identity.clone(), row.as_slice()));
        early.replace(scope, rows, |_| true, open, &mut replaced);
        let mut out = Vec::new();
        early.emit(replaced, &mut out).unwrap();
        let pairs = |b: &DeltaBatch| {
            let values = b.rows.column(0).as_primitive::<Int64Type>().values().to_vec();
            values.into_iter().zip(b.weights.clone().unwrap().values().to_vec()).collect::<Vec<_>>()
        };
        out.iter().flat_map(pairs).collect()
    }

    #[test]
    fn dirty_scopes_fire_at_most_once_in_an_interval() {
        let mut early = early();
        early.touch(b"b");
        early.touch(b"a");
        early.touch(b"b");
        assert_eq!(early.fire(5), [b"a".as_slice().into(), Box::from(b"b".as_slice())]);
        assert_eq!((early.fire(100), early.next_wake()), (vec![], None));
        early.touch(b"a");
        assert_eq!((early.next_wake(), early.fire(14)), (Some(15), vec![]));
        early.touch(b"c");
        early.settle(b"a");
        assert_eq!(early.fire(15), [Box::from(b"c".as_slice())]);
    }

    #[test]
    fn rows_replace_those_of_their_scope() {
        let mut early = early();
        assert_eq!(replace(&mut early, b"a", &[(1, 10), (2, 20)], true), [(10, 1), (20, 1)]);
        assert_eq!(replace(&mut early, b"b", &[(1, 7)], true), [(7, 1)]);
        let mut sealed = Vec::new();
        early.seal(&mut sealed);
        early.touch(b"b");
        assert_eq!(replace(&mut early, b"a", &[(3, 30), (2, 21)], true), [(10, -1), (30, 1), (20, -1), (21, 1)]);
        assert_eq!(replace(&mut early, b"a", &[(3, 30), (2, 22)], false), [(21, -1), (22, 1)]);
        // Nothing of the scope is left to be replaced.
        assert_eq!(replace(&mut early, b"a", &[], false), []);
        early.seal(&mut sealed);
        let mut restored = self::early();
        let mut store = BTreeMap::new();
        for change in sealed {
            match change.value {
                Some(value) => store.insert(change.key, value),
                None => store.remove(&change.key),
            };
        }
        for (key, value) in &store {
            assert_eq!(restored.restore(key, value), Some(true));
        }
        assert_eq!((&restored.emitted, &restored.dirty), (&early.emitted, &early.dirty));
        assert_eq!((restored.emitted.len(), restored.restore(b"closed", &[])), (1, Some(false)));
    }

    #[test]
    fn spans_are_ordered_by_their_bytes() {
        let spans = [(-5, 0), (0, 0), (3, 10), (4, 10), (0, 11)].map(|(start, end)| Span { start, end });
        assert!(spans.windows(2).all(|w| w[0] < w[1] && span_bytes(w[0]) < span_bytes(w[1])));
        assert!(spans.iter().all(|s| parse_span(&span_bytes(*s)) == Some(*s)));
    }
}
