//! An attempt: the search for the preferred match that begins with one row.
//!
//! **Rule.** Threads are the ways in which the rows so far can be mapped to variables, in order of preference. Each row is offered to each thread; those
//! whose condition it meets go on in the ways that the automaton allows. Where a thread can end, its mapping is the best so far, and
//! the threads that are less preferred are dropped. The attempt is decided when no thread is left: what is best then is the match.
//!
//! Threads in one state that have the same values before their conditions have the same future, so that only the first of them is kept. Where
//! conditions look at the row and its neighbours alone there are never more threads than states.
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use hashbrown::HashSet;

use super::automaton::{Automaton, Next};
use crate::graph::{AggregateCall, Formula, Place, RowPattern, Slot};

/// More threads than this fail the pipeline.
const MAX_THREADS: usize = 10_000;

/// Rows that are mapped to variables, the last first.
pub(super) struct Mapped {
    /// Number of the row in its partition.
    pub row: u64,
    pub variable: usize,
    pub before: Option<Arc<Mapped>>,
}

impl Drop for Mapped {
    /// Long lists are not dropped by recursion.
    fn drop(&mut self) {
        let mut next = self.before.take();
        while let Some(mapped) = next {
            next = Arc::into_inner(mapped).and_then(|mut mapped| mapped.before.take());
        }
    }
}

/// The value of a slot that conditions see, as far as the rows so far tell it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Seen {
    /// The rows among which the slot's row is.
    Rows(Vec<u64>),
    Aggregate {
        state: Vec<ScalarValue>,
        value: ScalarValue,
    },
}

#[derive(Clone)]
struct Thread {
    state: usize,
    /// For each slot of [`Conditions::slots`].
    seen: Vec<Seen>,
    mapped: Option<Arc<Mapped>>,
}

/// What the conditions of a pattern need.
pub(super) struct Conditions {
    pub automaton: Automaton,
    /// Slots that running conditions see.
    slots: Vec<usize>,
    /// Nothing seen.
    nothing: Vec<Seen>,
}

/// Rows of partitions, and what is known of each of them.
pub(super) struct Rows {
    pub arguments: Vec<ArrayRef>,
    /// By slot, of aggregates: their arguments and their filter.
    pub aggregated: Vec<Option<(Vec<ArrayRef>, Option<BooleanArray>)>>,
    /// By variable: which rows meet its local condition.
    pub local: Vec<Option<BooleanArray>>,
}

/// A partition's part of the rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// Where it begins.
    pub at: usize,
    /// Number of its first row.
    pub base: u64,
}

impl Span {
    /// Where the row with this number is; `None` if it is before the first.
    pub fn index(self, row: u64) -> Option<usize> {
        Some(self.at + usize::try_from(row.checked_sub(self.base)?).ok()?)
    }
}

/// See the module.
pub(super) struct Attempt {
    /// Number of its first row.
    pub start: u64,
    /// The next row that is offered.
    pub next: u64,
    threads: Vec<Thread>,
    best: Option<Arc<Mapped>>,
}

impl Conditions {
    pub fn new(pattern: &RowPattern) -> Result<Self> {
        let Some(automaton) = Automaton::new(&pattern.pattern) else {
            return Err(DataFusionError::Internal("the pattern is too large".to_owned()));
        };
        let running = pattern.variables.iter().filter_map(|v| v.running.as_ref());
        let mut slots: Vec<usize> = running.flat_map(|f| f.slots.iter().copied()).collect();
        slots.sort_unstable();
        slots.dedup();
        let nothing = slots.iter().map(|slot| match &pattern.slots[*slot] {
            Slot::Row { .. } => Ok(Seen::Rows(Vec::new())),
            Slot::Aggregate { call, .. } => {
                let mut accumulator = call.function.create_accumulator()?;
                let value = accumulator.evaluate()?;
                Ok(Seen::Aggregate { state: accumulator.state()?, value })
            }
        });
        let nothing = nothing.collect::<Result<_>>()?;
        Ok(Self { automaton, slots, nothing })
    }

    /// What is seen after one more row.
    fn look(
        &self,
        pattern: &RowPattern,
        seen: &[Seen],
        variable: usize,
        row: u64,
        span: Span,
        rows: &Rows,
    ) -> Result<Vec<Seen>> {
        let mut seen = seen.to_vec();
        for (slot, seen) in self.slots.iter().zip(&mut seen) {
            match (&pattern.slots[*slot], seen) {
                (Slot::Row { variable: of, place, .. }, Seen::Rows(found)) if of.is_none_or(|v| v == variable) => {
                    match place {
                        Place::First(n) if found.len() as u64 > *n => {}
                        Place::First(_) => found.push(row),
                        Place::Last(n) => {
                            found.push(row);
                            if found.len() as u64 > n + 1 {
                                found.remove(0);
                            }
                        }
                    }
                }
                (Slot::Aggregate { variable: of, call }, Seen::Aggregate { state, value })
                    if of.is_none_or(|v| v == variable) =>
                {
                    let Some(index) = span.index(row) else { continue };
                    (*state, *value) = added(call, state, rows.aggregated[*slot].as_ref(), index)?;
                }
                _ => {}
            }
        }
        Ok(seen)
    }

    /// Whether the condition is true of what is seen.
    fn holds(&self, pattern: &RowPattern, formula: &Formula, seen: &[Seen], span: Span, rows: &Rows) -> Result<bool> {
        let columns = formula.slots.iter().zip(formula.schema.fields()).map(|(slot, field)| {
            let null = || new_null_array(field.data_type(), 1);
            let at = self.slots.binary_search(slot).ok();
            Ok(match (&pattern.slots[*slot], at.map(|at| &seen[at])) {
                (Slot::Row { place, back, argument, .. }, Some(Seen::Rows(found))) => {
                    let row = match place {
                        Place::First(n) => usize::try_from(*n).ok().and_then(|n| found.get(n)),
                        Place::Last(n) => found.first().filter(|_| found.len() as u64 == n + 1),
                    };
                    let index = row.and_then(|row| span.index(row.checked_sub(*back)?));
                    index.map_or_else(null, |index| rows.arguments[*argument].slice(index, 1))
                }
                (_, Some(Seen::Aggregate { value, .. })) => value.to_array()?,
                _ => null(),
            })
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let batch = RecordBatch::try_new_with_options(formula.schema.clone(), columns, &options)?;
        let result = formula.expr.evaluate(&batch)?.into_array(1)?;
        Ok(result.is_valid(0) && result.as_boolean().value(0))
    }
}

/// The state and the value of an aggregate with one row more.
fn added(
    call: &AggregateCall,
    state: &[ScalarValue],
    input: Option<&(Vec<ArrayRef>, Option<BooleanArray>)>,
    index: usize,
) -> Result<(Vec<ScalarValue>, ScalarValue)> {
    let mut accumulator = call.function.create_accumulator()?;
    let state = state.iter().map(|s| s.to_array()).collect::<Result<Vec<_>>>()?;
    accumulator.merge_batch(&state)?;
    if let Some((arguments, filter)) = input
        && filter.as_ref().is_none_or(|f| f.is_valid(index) && f.value(index))
    {
        let arguments: Vec<ArrayRef> = arguments.iter().map(|a| a.slice(index, 1)).collect();
        accumulator.update_batch(&arguments)?;
    }
    let value = accumulator.evaluate()?;
    Ok((accumulator.state()?, value))
}

impl Attempt {
    pub fn new(conditions: &Conditions, start: u64) -> Self {
        let threads = conditions.automaton.start.iter().filter_map(|next| match next {
            Next::Row(state) => Some(Thread { state: *state, seen: conditions.nothing.clone(), mapped: None }),
            Next::End => None,
        });
        Self { start, next: start, threads: threads.collect(), best: None }
    }

    /// No row can change the outcome.
    pub fn is_decided(&self) -> bool {
        self.threads.is_empty()
    }

    /// No further row is offered.
    pub fn end(&mut self) {
        self.threads.clear();
    }

    /// The match, once it is decided.
    pub fn into_match(self) -> Option<Arc<Mapped>> {
        self.best
    }

    /// Offers the next row.
    pub fn offer(&mut self, pattern: &RowPattern, conditions: &Conditions, span: Span, rows: &Rows) -> Result<()> {
        let row = self.next;
        self.next += 1;
        let Some(index) = span.index(row) else { return Ok(()) };
        let mut threads: Vec<Thread> = Vec::new();
        let mut known: HashSet<(usize, Vec<Seen>)> = HashSet::new();
        'threads: for thread in std::mem::take(&mut self.threads) {
            let state = &conditions.automaton.states[thread.state];
            let variable = state.variable;
            let meets = |met: &BooleanArray| met.is_valid(index) && met.value(index);
            if !rows.local[variable].as_ref().is_none_or(meets) {
                continue;
            }
            let seen = match conditions.slots.is_empty() {
                true => Vec::new(),
                false => conditions.look(pattern, &thread.seen, variable, row, span, rows)?,
            };
            if let Some(running) = &pattern.variables[variable].running
                && !conditions.holds(pattern, running, &seen, span, rows)?
            {
                continue;
            }
            let mapped = Some(Arc::new(Mapped { row, variable, before: thread.mapped }));
            for next in &state.next {
                match next {
                    Next::End => {
                        self.best.clone_from(&mapped);
                        break 'threads;
                    }
                    Next::Row(state) => {
                        // The first thread needs no comparison.
                        if threads.len() == 1 {
                            known.extend(threads.iter().map(|t| (t.state, t.seen.clone())));
                        }
                        if threads.is_empty() || known.insert((*state, seen.clone())) {
                            threads.push(Thread { state: *state, seen: seen.clone(), mapped: mapped.clone() });
                        }
                    }
                }
            }
            if threads.len() > MAX_THREADS {
                return Err(DataFusionError::Execution(format!(
                    "a pattern has more than {MAX_THREADS} ways to match the same rows: make its conditions exclude each other, or its repetitions shorter"
                )));
            }
        }
        self.threads = threads;
        Ok(())
    }
}
