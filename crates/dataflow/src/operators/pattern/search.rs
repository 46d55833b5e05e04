//! The search through the rows of one partition.
use std::sync::Arc;

use datafusion::error::Result;

use super::attempt::{Attempt, Conditions, Mapped, Rows, Span};
use super::automaton::Next;
use crate::graph::{Place, RowPattern, SkipTo};
use crate::operators::ordered::TimedPartitions;

/// The rows of a partition that can be searched, in a batch that holds many such pieces.
pub(super) struct Piece {
    pub key: Arc<[u8]>,
    pub slot: u32,
    /// Where they begin.
    pub at: usize,
    pub times: Vec<i64>,
}

/// How far the search of a partition has come. Rows are numbered from its first one on.
#[derive(Default)]
pub(super) struct Live {
    /// The first row that is kept.
    pub base: u64,
    /// Undecided, by their first row; only one unless they do not depend on each other.
    pub attempts: Vec<Attempt>,
    /// The next row that begins an attempt.
    next: u64,
}

impl Live {
    pub fn restored(conditions: &Conditions, next: u64, open: &[u64]) -> Self {
        Self { base: 0, attempts: open.iter().map(|start| Attempt::new(conditions, *start)).collect(), next }
    }

    /// What is to be known after a restore, counted from the first row that is kept.
    pub fn mark(&self) -> Vec<u64> {
        let numbers = std::iter::once(self.next).chain(self.attempts.iter().map(|a| a.start));
        numbers.map(|n| n - self.base).collect()
    }

    /// As a partition that has not been searched.
    pub fn is_idle(&self) -> bool {
        self.attempts.is_empty() && self.next == self.base
    }

    /// Counts the rows that are not needed any more, which are no longer kept from now on.
    pub fn forget(&mut self, back: u64) -> u64 {
        let first = self.attempts.first().map_or(self.next, |a| a.start.min(self.next));
        let gone = first.saturating_sub(back).saturating_sub(self.base);
        self.base += gone;
        gone
    }
}

/// A match: its rows in the batch, in order, with their variables.
pub(super) struct Found {
    span: Span,
    /// Numbers of rows.
    rows: Vec<(u64, usize)>,
}

impl Found {
    fn new(mapped: Arc<Mapped>, span: Span) -> Self {
        let mut rows = Vec::new();
        let mut next = Some(&mapped);
        while let Some(mapped) = next {
            rows.push((mapped.row, mapped.variable));
            next = mapped.before.as_ref();
        }
        rows.reverse();
        Self { span, rows }
    }

    fn of(&self, variable: Option<usize>) -> impl DoubleEndedIterator<Item = u64> {
        self.rows.iter().filter(move |(_, v)| variable.is_none_or(|wanted| wanted == *v)).map(|(row, _)| *row)
    }

    /// The place of its first row in the batch.
    pub fn first(&self) -> usize {
        self.of(None).next().and_then(|row| self.span.index(row)).unwrap_or_default()
    }

    /// The place of a row in the batch.
    pub fn row(&self, variable: Option<usize>, place: Place, back: u64) -> Option<usize> {
        let row = match place {
            Place::First(n) => self.of(variable).nth(usize::try_from(n).ok()?),
            Place::Last(n) => self.of(variable).rev().nth(usize::try_from(n).ok()?),
        };
        self.span.index(row?.checked_sub(back)?)
    }

    /// The places of the rows of a variable in the batch.
    pub fn rows(&self, variable: Option<usize>) -> Vec<usize> {
        self.of(variable).filter_map(|row| self.span.index(row)).collect()
    }
}

/// See the module.
pub(super) struct Search<'a> {
    pub pattern: &'a RowPattern,
    pub conditions: &'a Conditions,
    pub rows: &'a Rows,
    pub piece: &'a Piece,
    pub within: Option<i64>,
    pub timed: &'a TimedPartitions,
}

impl Search<'_> {
    /// Goes as far as the rows reach.
    pub fn run(&self, live: &mut Live, found: &mut Vec<Found>) -> Result<()> {
        let span = Span { at: self.piece.at, base: live.base };
        let end = live.base + self.piece.times.len() as u64;
        if self.pattern.skip == SkipTo::NextRow {
            let starts = (live.next..end).filter(|row| self.can_start(*row, span));
            live.attempts.extend(starts.map(|row| Attempt::new(self.conditions, row)));
            live.next = end.max(live.next);
            for mut attempt in std::mem::take(&mut live.attempts) {
                self.feed(&mut attempt, span, end)?;
                match attempt.is_decided() {
                    true => found.extend(attempt.into_match().map(|m| Found::new(m, span))),
                    false => live.attempts.push(attempt),
                }
            }
            return Ok(());
        }
        loop {
            let mut attempt = match live.attempts.pop() {
                Some(attempt) => attempt,
                None => {
                    while live.next < end && !self.can_start(live.next, span) {
                        live.next += 1;
                    }
                    if live.next >= end {
                        return Ok(());
                    }
                    live.next += 1;
                    Attempt::new(self.conditions, live.next - 1)
                }
            };
            self.feed(&mut attempt, span, end)?;
            if !attempt.is_decided() {
                live.attempts.push(attempt);
                return Ok(());
            }
            let start = attempt.start;
            live.next = start + 1;
            if let Some(mapped) = attempt.into_match() {
                let one = Found::new(mapped, span);
                live.next = self.after(&one, start);
                found.push(one);
            }
        }
    }

    /// Whether a row meets what can be told of it alone of those that begin a match.
    fn can_start(&self, row: u64, span: Span) -> bool {
        let Some(index) = span.index(row) else { return false };
        self.conditions.automaton.start.iter().any(|next| match next {
            Next::Row(state) => {
                let variable = self.conditions.automaton.states[*state].variable;
                let local = self.rows.local[variable].as_ref();
                local.is_none_or(|met| arrow::array::Array::is_valid(met, index) && met.value(index))
            }
            Next::End => false,
        })
    }

    fn time(&self, base: u64, row: u64) -> Option<i64> {
        self.piece.times.get(usize::try_from(row.checked_sub(base)?).ok()?).copied()
    }

    /// The time that the match which begins with a row must not reach.
    pub fn limit(&self, base: u64, start: u64) -> Option<i64> {
        Some(self.time(base, start)?.saturating_add(self.within?))
    }

    /// Offers the rows up to `end` to an attempt.
    fn feed(&self, attempt: &mut Attempt, span: Span, end: u64) -> Result<()> {
        let limit = self.limit(span.base, attempt.start);
        while !attempt.is_decided() && attempt.next < end {
            let is_late = |limit: i64| self.time(span.base, attempt.next).is_some_and(|time| time >= limit);
            if limit.is_some_and(is_late) {
                attempt.end();
                break;
            }
            attempt.offer(self.pattern, self.conditions, span, self.rows)?;
        }
        if self.timed.has_ended() || limit.is_some_and(|limit| self.timed.has_reached(limit)) {
            attempt.end();
        }
        Ok(())
    }

    /// Where the search goes on after a match.
    fn after(&self, found: &Found, start: u64) -> u64 {
        let row = match self.pattern.skip {
            SkipTo::NextRow => None,
            SkipTo::PastLastRow => found.of(None).next_back().map(|row| row + 1),
            SkipTo::First(variable) => found.of(Some(variable)).next(),
            SkipTo::Last(variable) => found.of(Some(variable)).next_back(),
        };
        row.filter(|row| *row > start).unwrap_or(start + 1)
    }
}
