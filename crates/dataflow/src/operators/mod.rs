//! Operators: what a node of the graph does inside a task.
//!
//! An operator sees the epochs of its task in order: any number of [`Operator::process`] calls, then [`Operator::end_epoch`], and at a
//! checkpoint epoch [`Operator::seal`] after that. What it emits is a function of its state, the epoch's input in the given order and the
//! [`EpochContext`], never of time, threads or memory pressure.
//!
//! Operators are resumable: after [`Step::More`] the caller takes the output away and calls [`Operator::resume`] until [`Step::Done`]
//! before anything else, so no operator needs to hold an unbounded output.
mod aggregate;
mod assign;
mod calc;
mod early;
mod expand;
mod group;
mod groups;
mod join;
mod keyed;
mod ordered;
mod over;
mod partial;
mod pattern;
mod rank;
mod session;
mod session_assign;
mod set;
mod slices;
mod ttl;
mod union;
mod unnest;

use std::sync::Arc;

use millstream_plan::{EpochPlan, OperatorId, Watermark};

use crate::cold::ColdState;
use crate::graph::{Node, NodeKind, TimeDomain, WindowKind, WindowOf};
use crate::{DataflowError, DeltaBatch};

/// Rows of one emitted batch, at most.
pub const BATCH_ROWS: usize = 8192;

/// What an operator may look at beside its input.
#[derive(Clone, Copy, Debug)]
pub struct EpochContext<'a> {
    pub plan: &'a EpochPlan,
}

impl EpochContext<'_> {
    /// The watermark of a time domain in this epoch, in milliseconds.
    #[must_use]
    pub fn watermark(&self, domain: &TimeDomain) -> i64 {
        match domain {
            TimeDomain::Event(sources) => {
                sources.iter().map(|s| self.plan.watermark(*s)).min().unwrap_or(Watermark::MIN).0
            }
            TimeDomain::Processing if self.plan.last => i64::MAX,
            TimeDomain::Processing => self.plan.now_ms,
            TimeDomain::Delayed(other, delay) => match self.watermark(other) {
                // The input has ended, or has not begun.
                end @ (i64::MIN | i64::MAX) => end,
                watermark => watermark.saturating_sub(*delay),
            },
        }
    }
}

/// Whether an operator has emitted all that it has to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take the output away and call [`Operator::resume`].
    More,
    Done,
}

/// One change of an operator's persistent state: `value` is `None` for a deletion. Keys are unique in an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

/// Size of an operator's state, and when it wants to run without new input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateReport {
    pub keys: u64,
    /// Whether in memory or not.
    pub bytes: u64,
    /// Watermark (of the operator's own time domain, in milliseconds) at which it has something to do.
    pub next_timer: Option<i64>,
}

/// What an operator's state takes in memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    pub resident: u64,
    /// Of an operator that can let go of state: what it cannot let go of before it is sealed.
    pub unsealed: u64,
}

/// An operator inside one task.
pub trait Operator: Send {
    /// Takes one batch of input `input`.
    ///
    /// # Errors
    /// See [`DataflowError`].
    fn process(
        &mut self,
        input: usize,
        batch: DeltaBatch,
        cx: &EpochContext<'_>,
        out: &mut Vec<DeltaBatch>,
    ) -> Result<Step, DataflowError>;

    /// Goes on after [`Step::More`].
    ///
    /// # Errors
    /// See [`DataflowError`].
    fn resume(&mut self, _cx: &EpochContext<'_>, _out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        Ok(Step::Done)
    }

    /// All input of the epoch has been processed.
    ///
    /// # Errors
    /// See [`DataflowError`].
    fn end_epoch(&mut self, _cx: &EpochContext<'_>, _out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        Ok(Step::Done)
    }

    /// What has changed since the last seal. Afterwards the operator behaves exactly as one restored from all changes so far.
    ///
    /// # Errors
    /// See [`DataflowError`].
    fn seal(&mut self) -> Result<Vec<StateChange>, DataflowError> {
        Ok(Vec::new())
    }

    /// Takes one entry of the last checkpoint; called in key order before the first epoch.
    ///
    /// # Errors
    /// `Corrupt` if the entry is not one of this operator's.
    fn restore(&mut self, _key: &[u8], _value: &[u8]) -> Result<(), DataflowError> {
        Err(DataflowError::Corrupt("an operator without state was given some".to_owned()))
    }

    /// Tells where sealed state can be read again, before anything is restored, and how many bytes to keep in memory while much is restored. Operators
    /// that cannot let go of state need not listen.
    fn attach(&mut self, _cold: Arc<dyn ColdState>, _keep: u64) {}

    /// Lets go of sealed state until about `keep` bytes are in memory, as far as possible. Changes nothing that is emitted or sealed.
    ///
    /// # Errors
    /// See [`DataflowError`].
    fn shrink(&mut self, _keep: u64) -> Result<(), DataflowError> {
        Ok(())
    }

    /// What the state takes in memory.
    fn footprint(&self) -> Footprint {
        Footprint { resident: self.report().bytes, unsealed: 0 }
    }

    /// Size of the state and next timer.
    fn report(&self) -> StateReport {
        StateReport::default()
    }

    /// Time of the plan (`now_ms`) at which it has something to do without new input, beside the timer of its time domain.
    fn next_wake(&self) -> Option<i64> {
        None
    }

    /// Retractions dropped since the task began, of rows that had lapsed under `state.ttl`.
    fn dropped(&self) -> u64 {
        0
    }
}

/// The operator of a node; `None` for sources and sinks, which the executor runs.
///
/// # Errors
/// `Corrupt` if the node contradicts itself.
pub fn operator(node: &Node) -> Result<Option<Box<dyn Operator>>, DataflowError> {
    let id = node.id;
    Ok(match &node.kind {
        NodeKind::Source(_) | NodeKind::Sink(_) => None,
        NodeKind::Calc(calc) => Some(Box::new(calc::CalcOperator::new(id, calc, node.output.schema.clone()))),
        NodeKind::WindowAssign(assign) => {
            Some(Box::new(assign::AssignOperator::new(id, assign, node.output.schema.clone())?))
        }
        NodeKind::SessionAssign(spec) => {
            let schema = node.output.schema.clone();
            Some(Box::new(session_assign::SessionAssignOperator::new(id, spec, schema)?))
        }
        NodeKind::PartialWindowAggregate(spec) => Some(match &spec.window {
            WindowOf::Time { kind: WindowKind::Session { gap }, .. } => {
                Box::new(session::PartialSession::new(id, spec, *gap)?)
            }
            _ => Box::new(partial::PartialAggregate::new(id, spec)?),
        }),
        NodeKind::WindowAggregate(spec) => Some(match &spec.window {
            WindowOf::Time { kind: WindowKind::Session { gap }, .. } => {
                Box::new(session::SessionAggregate::new(id, spec, *gap)?)
            }
            _ => Box::new(aggregate::WindowAggregateOperator::new(id, spec)?),
        }),
        NodeKind::Expand(expand) => Some(Box::new(expand::ExpandOperator::new(id, expand, node.output.schema.clone()))),
        NodeKind::PartialGroupAggregate(spec) => Some(group::first_half(id, spec)?),
        NodeKind::GroupAggregate(spec) => Some(group::second_half(id, spec, node.output.append_only)?),
        NodeKind::Unnest(unnest) => Some(Box::new(unnest::UnnestOperator::new(id, unnest, node.output.schema.clone()))),
        NodeKind::Union => Some(Box::new(union::UnionOperator)),
        NodeKind::Set(spec) => {
            Some(Box::new(set::SetOperator::new(id, spec, node.output.schema.clone(), node.output.append_only)?))
        }
        NodeKind::Join(spec) => Some(Box::new(join::JoinOperator::new(id, spec, node.output.schema.clone())?)),
        NodeKind::LocalRank(spec) => {
            Some(Box::new(rank::LocalRankOperator::new(id, spec, node.output.schema.clone())?))
        }
        NodeKind::Rank(spec) => Some(Box::new(rank::RankOperator::new(id, spec, node.output.schema.clone())?)),
        NodeKind::Over(spec) => Some(over::operator(id, spec, node.output.schema.clone())?),
        NodeKind::RowPattern(spec) => {
            Some(Box::new(pattern::PatternOperator::new(id, spec, node.output.schema.clone())?))
        }
        NodeKind::Keyed(spec) => Some(Box::new(keyed::KeyedOperator::new(id, spec, node.output.schema.clone())?)),
    })
}

/// Names an operator in an error.
fn failed(id: OperatorId, what: &str) -> impl Fn(datafusion::error::DataFusionError) -> DataflowError {
    let operator = format!("operator {id} ({what})");
    move |e| DataflowError::Expression { operator: operator.clone(), message: e.strip_backtrace() }
}

pub use group::group_transfer;
pub use groups::partial_schema;
pub use pattern::MAX_PATTERN_STATES;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
