//! Results of one function for the rows of a partition, which are in order.
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{SortOptions, filter};
use arrow::datatypes::DataType;
use datafusion::common::{ScalarValue, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::window_state::WindowFrameContext;
use datafusion::logical_expr::{Accumulator, WindowFrame, WindowFrameBound, WindowFrameUnits};

use crate::graph::{AggregateCall, Ordered, OverCall, OverFunction};

/// How the aggregate of a frame follows from that of the frame before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frames {
    /// They all begin with the partition: rows are only added, from its first row on.
    Grow,
    /// Rows are added and taken away, without a trace of the order.
    Slide,
    /// Each is added up anew.
    Anew,
}

/// See the module.
pub(super) struct Evaluator {
    function: OverFunction,
    frames: Frames,
    order: Vec<usize>,
    options: Vec<SortOptions>,
}

impl Evaluator {
    pub fn new(call: &OverCall, rows: &Ordered) -> Result<Self> {
        let frames = match &call.function {
            OverFunction::Window(_) => Frames::Anew,
            OverFunction::Aggregate { call, frame } => frames_of(call, frame, rows)?,
        };
        let options = rows.order.iter();
        Ok(Self {
            function: call.function.clone(),
            frames,
            order: rows.order.iter().map(|s| s.column).collect(),
            options: options.map(|s| SortOptions { descending: s.descending, nulls_first: s.nulls_first }).collect(),
        })
    }

    /// Results of the rows in `wanted`. `rows` has all rows that they depend on.
    pub fn evaluate(&self, rows: &RecordBatch, wanted: Range<usize>) -> Result<ArrayRef> {
        match &self.function {
            OverFunction::Window(expr) => Ok(expr.evaluate(rows)?.slice(wanted.start, wanted.len())),
            OverFunction::Aggregate { call, frame } => self.aggregate(call, frame, rows, wanted, None),
        }
    }

    /// Results of the rows from row `from` on of an aggregate whose frames reach from the partition's first row to the row at hand.
    /// `sum` has added up the rows before.
    pub fn go_on(&self, rows: &RecordBatch, from: usize, sum: &mut Box<dyn Accumulator>) -> Result<ArrayRef> {
        match &self.function {
            OverFunction::Window(_) => internal_err!("a function that adds nothing up"),
            OverFunction::Aggregate { call, frame } => {
                self.aggregate(call, frame, rows, from..rows.num_rows(), Some(sum))
            }
        }
    }

    fn aggregate(
        &self,
        call: &AggregateCall,
        frame: &Arc<WindowFrame>,
        rows: &RecordBatch,
        wanted: Range<usize>,
        sum: Option<&mut Box<dyn Accumulator>>,
    ) -> Result<ArrayRef> {
        let count = rows.num_rows();
        let array = |e: &Arc<dyn datafusion::physical_expr::PhysicalExpr>| e.evaluate(rows)?.into_array(count);
        let arguments: Vec<ArrayRef> = call.function.expressions().iter().map(array).collect::<Result<_>>()?;
        let mask = call.filter.as_ref().map(array).transpose()?.map(|m| m.as_boolean().clone());
        let input = |range: Range<usize>| input(&arguments, mask.as_ref(), range);
        let order: Vec<ArrayRef> = self.order.iter().map(|c| rows.column(*c).clone()).collect();
        let mut bounds = WindowFrameContext::new(frame.clone(), self.options.clone());
        // Frames of values are found by a search that goes on from row to row.
        let nearby = frame.units == WindowFrameUnits::Rows && self.frames != Frames::Grow;
        let start = if nearby || sum.is_some() { wanted.start } else { 0 };
        let mut last = if sum.is_some() { 0..wanted.start } else { 0..0 };
        let mut own: Box<dyn Accumulator>;
        let accumulator = match sum {
            Some(sum) => sum,
            None => {
                own = self.accumulator(call)?;
                &mut own
            }
        };
        let mut value: Option<ScalarValue> = None;
        let mut results = Vec::with_capacity(wanted.len());
        for row in start..wanted.end {
            let range = bounds.calculate_range(&order, &last, count, row)?;
            // A frame may begin behind its end, and is empty then.
            let range = range.start..range.end.max(range.start);
            if range != last || value.is_none() {
                match self.frames {
                    // Some accumulators remember what they have lost.
                    Frames::Slide if range.is_empty() => *accumulator = self.accumulator(call)?,
                    Frames::Grow => accumulator.update_batch(&input(last.end..range.end)?)?,
                    Frames::Slide if range.start <= last.end => {
                        accumulator.update_batch(&input(last.end..range.end)?)?;
                        accumulator.retract_batch(&input(last.start..range.start)?)?;
                    }
                    Frames::Slide | Frames::Anew => {
                        *accumulator = self.accumulator(call)?;
                        accumulator.update_batch(&input(range.clone())?)?;
                    }
                }
                value = Some(accumulator.evaluate()?);
                last = range;
            }
            if row >= wanted.start {
                results.extend(value.clone());
            }
        }
        ScalarValue::iter_to_array(results)
    }

    fn accumulator(&self, call: &AggregateCall) -> Result<Box<dyn Accumulator>> {
        match self.frames {
            Frames::Slide => call.function.create_sliding_accumulator(),
            Frames::Grow | Frames::Anew => call.function.create_accumulator(),
        }
    }
}

fn frames_of(call: &AggregateCall, frame: &WindowFrame, rows: &Ordered) -> Result<Frames> {
    if matches!(&frame.start_bound, WindowFrameBound::Preceding(n) if n.is_null()) {
        return Ok(Frames::Grow);
    }
    let types = call.function.expressions().into_iter().map(|e| e.data_type(&rows.input));
    let types: Vec<DataType> = types.collect::<Result<_>>()?;
    // DataFusion's moving minimum is the one before if only nulls are left.
    let slides = call.function.fun().name() != "min"
        && types.iter().all(is_exact)
        && call.function.create_sliding_accumulator().is_ok_and(|a| a.supports_retract_batch());
    Ok(if slides { Frames::Slide } else { Frames::Anew })
}

/// Sums of such values do not depend on their order.
fn is_exact(data_type: &DataType) -> bool {
    data_type.is_integer()
        || data_type.is_decimal()
        || data_type.is_temporal()
        || matches!(data_type, DataType::Boolean | DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8)
}

/// Arguments of the rows in `range`, as far as the aggregate's filter lets them through.
fn input(arguments: &[ArrayRef], mask: Option<&BooleanArray>, range: Range<usize>) -> Result<Vec<ArrayRef>> {
    let (from, rows) = (range.start, range.end.saturating_sub(range.start));
    let cut = arguments.iter().map(|a| a.slice(from, rows));
    match mask {
        None => Ok(cut.collect()),
        Some(mask) => {
            let mask = mask.slice(from, rows);
            cut.map(|a| Ok(filter(&a, &mask)?)).collect()
        }
    }
}
