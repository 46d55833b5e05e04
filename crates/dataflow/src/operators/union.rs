//! Union of changes: the sum of weighted sets, so batches pass through.
use super::{EpochContext, Operator, Step};
use crate::{DataflowError, DeltaBatch};

pub(super) struct UnionOperator;

impl Operator for UnionOperator {
    fn process(
        &mut self,
        _: usize,
        batch: DeltaBatch,
        _: &EpochContext<'_>,
        out: &mut Vec<DeltaBatch>,
    ) -> Result<Step, DataflowError> {
        out.push(batch);
        Ok(Step::Done)
    }
}
