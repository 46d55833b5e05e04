//! The rule of ranks: one walk over the old and the new rows of a partition at once, which finds the rows that enter, leave or move inside
//! the range of ranks that is kept.
use crate::graph::{Rank, RankFunction};
use crate::operators::ordered::{Multiset, Row};

/// Ranks of equal rows.
#[derive(Clone, Copy, Default)]
struct Ranks {
    first: u64,
    /// Rows have ranks `first, first + 1, …` instead of all `first`.
    ascend: bool,
    count: u64,
}

/// The old or the new rows, as far as they have been walked.
#[derive(Default)]
struct Side {
    rows: u64,
    /// Values of the order columns.
    groups: u64,
    /// Rank of the rows that are equal in the order, once one of them has been met.
    shared: Option<u64>,
}

impl Side {
    fn take(&mut self, function: RankFunction, weight: i64) -> Ranks {
        let count = weight.unsigned_abs();
        if count == 0 {
            return Ranks::default();
        }
        let shared = *self.shared.get_or_insert_with(|| {
            self.groups += 1;
            if function == RankFunction::DenseRank { self.groups } else { self.rows + 1 }
        });
        let ascend = function == RankFunction::RowNumber;
        let first = if ascend { self.rows + 1 } else { shared };
        self.rows += count;
        Ranks { first, ascend, count }
    }

    /// True if no row that follows can have a rank up to `to`. `peer`: the next one may share the last one's rank.
    fn is_past(&self, function: RankFunction, to: u64, peer: bool) -> bool {
        match function {
            RankFunction::RowNumber => self.rows >= to,
            RankFunction::Rank => !peer && self.rows >= to,
            RankFunction::DenseRank => !peer && self.groups >= to,
        }
    }
}

impl Ranks {
    /// The part of the ranks inside `from..=to`.
    fn within(self, from: u64, to: u64) -> Self {
        if self.count == 0 {
            return self;
        }
        let last = if self.ascend { self.first.saturating_add(self.count - 1) } else { self.first };
        let (first, last) = (self.first.max(from), last.min(to));
        if first > last || (!self.ascend && first != self.first) {
            return Self { count: 0, ..self };
        }
        let count = if self.ascend { last - first + 1 } else { self.count };
        Self { first, count, ..self }
    }

    /// Calls `each` with every rank and how many rows have it, without those that `other` has too.
    fn without(self, other: Self, mut each: impl FnMut(u64, i64)) {
        if self.ascend {
            let shared = |rank: u64| other.count > 0 && rank >= other.first && rank - other.first < other.count;
            (self.first..self.first.saturating_add(self.count)).filter(|r| !shared(*r)).for_each(|r| each(r, 1));
        } else if self.count > 0 {
            let shared = if other.first == self.first { other.count } else { 0 };
            if self.count > shared {
                each(self.first, (self.count - shared) as i64);
            }
        }
    }
}

/// Finds what `changes` (consolidated, in row order) do to the ranked rows of a partition: calls `change` with the row, its rank and how often
/// it is added (negative: taken away). Without a rank column the rank is 0. Retractions of a row come before its insertions.
pub(super) fn changed<'a>(
    spec: &Rank,
    old: &'a Multiset,
    changes: &'a [(Row, i64)],
    mut change: impl FnMut(&'a Row, u64, i64),
) {
    let (mut before, mut after) = (Side::default(), Side::default());
    let mut old = old.iter().peekable();
    let mut changes = changes.iter().peekable();
    let mut group: Option<&[u8]> = None;
    loop {
        // The next row of either, with its weight in both.
        let from_old = match (old.peek(), changes.peek()) {
            (None, None) => return,
            (Some((row, _)), Some((changed, _))) => *row <= changed,
            (Some(_), None) => true,
            (None, Some(_)) => false,
        };
        let (row, was) = match from_old.then(|| old.next()).flatten() {
            Some((row, weight)) => (row, weight),
            None => match changes.peek() {
                Some((row, _)) => (row, 0),
                None => return,
            },
        };
        let delta = changes.next_if(|(changed, _)| changed == row).map_or(0, |(_, weight)| *weight);
        let peer = group.replace(row.order()) == Some(row.order());
        if before.is_past(spec.function, spec.to, peer) && after.is_past(spec.function, spec.to, peer) {
            return;
        }
        if !peer {
            (before.shared, after.shared) = (None, None);
        }
        let old = before.take(spec.function, was).within(spec.from, spec.to);
        // Fewer than none is found when the changes are applied.
        let new = after.take(spec.function, (was + delta).max(0)).within(spec.from, spec.to);
        if spec.numbered {
            old.without(new, |rank, weight| change(row, rank, -weight));
            new.without(old, |rank, weight| change(row, rank, weight));
        } else if old.count != new.count {
            change(row, 0, new.count as i64 - old.count as i64);
        }
    }
}

/// How many of the rows can ever have a rank up to `to` when rows are only added, how often the last of them, and whether rows after it are
/// of no interest.
pub(super) fn kept<'a>(spec: &Rank, rows: impl Iterator<Item = (&'a Row, i64)>) -> (usize, i64, bool) {
    let mut side = Side::default();
    let mut group: Option<&[u8]> = None;
    let (mut keep, mut last) = (0, 0);
    for (row, weight) in rows {
        let peer = group.replace(row.order()) == Some(row.order());
        if side.is_past(spec.function, spec.to, peer) {
            return (keep, last, true);
        }
        if !peer {
            side.shared = None;
        }
        (keep, last) = (keep + 1, weight);
        if spec.function == RankFunction::RowNumber {
            last = weight.min(i64::try_from(spec.to - side.rows).unwrap_or(i64::MAX));
        }
        side.take(spec.function, last);
    }
    (keep, last, side.is_past(spec.function, spec.to, false))
}
