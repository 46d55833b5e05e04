//! Windows from merged panes: what windows share is merged once.
//!
//! A cumulating window is the one before it and a pane more. A sliding window of many panes is cut at the bounds of **blocks** (van Herk,
//! Pattern Recognition Letters 1992; Gil and Werman, PAMI 1993): the end of a block, blocks between, the beginning of a block. Ends are
//! merged backwards once per block, beginnings forwards as panes close, so a window is the merge of two parts and a few
//! whole blocks, whatever the number of its panes.
//!
//! Nothing of it is state: what is missing (after a restore) is merged again from the panes, pane by pane in the same order, so that the bits are the
//! same. A pane is merged only when it is closed, and does not change after that.
use std::collections::BTreeMap;

use arrow::record_batch::RecordBatch;
use datafusion::error::Result as DfResult;

use crate::graph::WindowKind;
use crate::windows::Span;

/// A block has at most so many panes.
const MAX_BLOCK: i64 = 64;
/// Sliding windows of fewer panes are merged from the panes themselves: below this, what is remembered costs more than it saves (measured with
/// 1,000 and 20,000 keys; at 600 panes it saves three quarters and more).
const MIN_SLIDING: i64 = 48;
/// The same of cumulating windows.
const MIN_CUMULATING: i64 = 12;

/// See the module. All times in milliseconds.
pub(super) struct Slices {
    pane: i64,
    /// Length of a block.
    block: i64,
    offset: i64,
    /// Windows begin where blocks do.
    cumulates: bool,
    /// Beginnings of the block, by their end.
    beginning: Option<(Span, Option<RecordBatch>)>,
    /// Whole blocks by their start.
    blocks: BTreeMap<i64, Option<RecordBatch>>,
    /// Ends of one block, by their start, and its start.
    ends: (i64, BTreeMap<i64, Option<RecordBatch>>),
}

/// Merges parts, in this order, into one; `None` of nothing.
pub(super) type Merge<'a> = dyn FnMut(&[&RecordBatch]) -> DfResult<Option<RecordBatch>> + 'a;

/// The parts of a closed pane; none if it has no rows.
pub(super) type Pane<'a> = dyn FnMut(Span) -> DfResult<Vec<RecordBatch>> + 'a;

impl Slices {
    /// `None` if windows share too little.
    pub fn of(kind: WindowKind, pane: i64) -> Option<Self> {
        let (block, offset, cumulates) = match kind {
            WindowKind::Cumulate { size, offset, .. } if size / pane >= MIN_CUMULATING => (size, offset, true),
            WindowKind::Hop { size, slide, offset } if slide < size && size / pane >= MIN_SLIDING => {
                ((size / pane).min(MAX_BLOCK) * pane, offset, false)
            }
            WindowKind::Hop { .. }
            | WindowKind::Cumulate { .. }
            | WindowKind::Tumble { .. }
            | WindowKind::Session { .. } => return None,
        };
        let (beginning, blocks, ends) = (None, BTreeMap::new(), (i64::MIN, BTreeMap::new()));
        Some(Self { pane, block, offset, cumulates, beginning, blocks, ends })
    }

    fn block_of(&self, time: i64) -> i64 {
        time - (time - self.offset).rem_euclid(self.block)
    }

    /// What a closed window is the merge of, in the order of time. Windows come in the order of their ends.
    pub fn window(&mut self, window: Span, pane: &mut Pane<'_>, merge: &mut Merge<'_>) -> DfResult<Vec<RecordBatch>> {
        let first = self.block_of(window.start);
        if self.cumulates || window.end <= first + self.block && window.start == first {
            return Ok(self.beginning(first, window.end, pane, merge)?.into_iter().collect());
        }
        let mut parts = Vec::new();
        let mut at = first;
        if window.start > first {
            parts.extend(self.end(first, window.start, pane, merge)?);
            at += self.block;
        }
        while at + self.block <= window.end {
            parts.extend(self.whole(at, pane, merge)?);
            at += self.block;
        }
        if at < window.end {
            parts.extend(self.beginning(at, window.end, pane, merge)?);
        }
        Ok(parts)
    }

    /// Panes of a block up to `to`.
    fn beginning(
        &mut self,
        block: i64,
        to: i64,
        pane: &mut Pane<'_>,
        merge: &mut Merge<'_>,
    ) -> DfResult<Option<RecordBatch>> {
        let known = self.beginning.take().filter(|(span, _)| span.start == block && span.end <= to);
        let (mut span, mut part) = known.unwrap_or((Span { start: block, end: block }, None));
        while span.end < to {
            let next = Span { start: span.end, end: span.end + self.pane };
            part = add(part, &pane(next)?, false, merge)?;
            span.end = next.end;
            if span.end == block + self.block && !self.cumulates {
                self.blocks.insert(block, part.clone());
            }
        }
        self.beginning = Some((span, part.clone()));
        Ok(part)
    }

    fn whole(&mut self, block: i64, pane: &mut Pane<'_>, merge: &mut Merge<'_>) -> DfResult<Option<RecordBatch>> {
        if let Some(part) = self.blocks.get(&block) {
            return Ok(part.clone());
        }
        self.beginning(block, block + self.block, pane, merge)
    }

    /// Panes of a block from `from` on.
    fn end(
        &mut self,
        block: i64,
        from: i64,
        pane: &mut Pane<'_>,
        merge: &mut Merge<'_>,
    ) -> DfResult<Option<RecordBatch>> {
        if self.ends.0 != block {
            let (mut part, mut at) = (None, block + self.block);
            let mut ends = BTreeMap::new();
            while at - self.pane > block {
                at -= self.pane;
                part = add(part, &pane(Span { start: at, end: at + self.pane })?, true, merge)?;
                ends.insert(at, part.clone());
            }
            self.ends = (block, ends);
        }
        Ok(self.ends.1.get(&from).cloned().flatten())
    }

    /// No window that is still to come begins before this.
    pub fn forget(&mut self, before: i64) {
        while self.blocks.first_key_value().is_some_and(|(start, _)| start + self.block <= before) {
            self.blocks.pop_first();
        }
        if self.ends.0.saturating_add(self.block) <= before {
            self.ends = (i64::MIN, BTreeMap::new());
        }
    }

    pub fn bytes(&self) -> usize {
        let parts = self.blocks.values().chain(self.ends.1.values()).chain(self.beginning.iter().map(|(_, p)| p));
        parts.flatten().map(RecordBatch::get_array_memory_size).sum()
    }
}

/// The merge of a part and a pane before or behind it.
fn add(
    part: Option<RecordBatch>,
    pane: &[RecordBatch],
    before: bool,
    merge: &mut Merge<'_>,
) -> DfResult<Option<RecordBatch>> {
    if pane.is_empty() {
        return Ok(part);
    }
    let own = part.iter();
    let all: Vec<&RecordBatch> = if before { pane.iter().chain(own).collect() } else { own.chain(pane).collect() };
    merge(&all)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, StringArray};

    use super::*;
    use crate::windows::Panes;

    fn text(part: &RecordBatch) -> String {
        part.column(0).as_string::<i32>().value(0).to_owned()
    }

    fn part(text: &str) -> RecordBatch {
        let column: ArrayRef = Arc::new(StringArray::from(vec![text]));
        RecordBatch::try_from_iter([("t", column)]).unwrap()
    }

    /// All windows up to a time from panes whose part is their number, every seventh empty; `fresh`: nothing is remembered.
    fn windows(kind: WindowKind, until: i64, fresh: bool) -> (Vec<(Span, String)>, usize) {
        let panes = Panes::of(kind).unwrap();
        let width = panes.width();
        let mut merges = 0;
        let mut slices = Slices::of(kind, width).unwrap();
        let mut all = Vec::new();
        let mut spans: Vec<Span> =
            (0..until / width).flat_map(|i| panes.windows_of(panes.pane_of(i * width))).collect();
        spans.retain(|w| w.start >= 0 && w.end <= until);
        spans.sort();
        spans.dedup();
        for window in spans {
            if fresh {
                slices = Slices::of(kind, width).unwrap();
            }
            let mut pane = |span: Span| {
                let number = span.start / width;
                Ok(if number % 7 == 3 { Vec::new() } else { vec![part(&format!("{number}"))] })
            };
            let mut merge = |parts: &[&RecordBatch]| {
                merges += 1;
                Ok(Some(part(&parts.iter().map(|p| text(p)).collect::<Vec<_>>().join(" "))))
            };
            let parts = slices.window(window, &mut pane, &mut merge).unwrap();
            all.push((window, parts.iter().map(text).collect::<Vec<_>>().join(" ")));
            slices.forget(window.start);
        }
        (all, merges)
    }

    #[test]
    fn windows_are_their_panes_in_order() {
        for kind in [
            WindowKind::Cumulate { size: 45, step: 3, offset: 0 },
            WindowKind::Hop { size: 96, slide: 2, offset: 0 },
            WindowKind::Hop { size: 400, slide: 2, offset: 0 },
            WindowKind::Hop { size: 144, slide: 15, offset: 0 },
        ] {
            let (found, merges) = windows(kind, 600, false);
            assert!(found.len() > 10);
            let width = Panes::of(kind).unwrap().width();
            for (window, panes) in &found {
                let numbers = (window.start / width..window.end / width).filter(|n| n % 7 != 3);
                let wanted = numbers.map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
                assert_eq!(*panes, wanted, "{kind:?} {window:?}");
            }
            // Each pane is merged a few times, and a restored operator merges the same parts.
            assert!(merges as i64 <= 3 * 600 / width, "{kind:?}: {merges}");
            assert_eq!(windows(kind, 600, true).0, found);
        }
        assert!(Slices::of(WindowKind::Hop { size: 10, slide: 2, offset: 0 }, 2).is_none());
        assert!(Slices::of(WindowKind::Tumble { size: 10, offset: 0 }, 10).is_none());
    }
}
