//! A relation while its graph is built: the node below, and what still has to be done to its rows. Filters and projections
//! gather here and become one `Calc` when something needs their result.
use std::sync::Arc;

use datafusion::common::DFSchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::sql::sqlparser::tokenizer::Location;
use millstream_dataflow::graph::{TimeDomain, WindowKind};
use millstream_plan::OperatorId;

pub(super) type Physical = Arc<dyn PhysicalExpr>;

/// Bounds of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Start,
    End,
    /// The last moment inside.
    Time,
}

pub(super) const PARTS: [Part; 3] = [Part::Start, Part::End, Part::Time];

/// What a column means beside its value.
#[derive(Clone, Debug, Default)]
pub(super) struct Role {
    /// Windows can close by it.
    pub time: Option<TimeDomain>,
    /// It is a bound of the window that the row belongs to.
    pub part: Option<Part>,
}

/// The value of a column.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Over the node below.
    Expr(Physical),
    /// Of the window that is pending.
    Window(Part),
}

/// See the module.
#[derive(Clone)]
pub(super) struct Rel {
    pub base: OperatorId,
    /// Over the node below.
    pub filter: Option<Physical>,
    /// One per field of `schema`.
    pub columns: Vec<(Value, Role)>,
    /// Names as the logical plan has them, with the types that the rows really have (structs are pruned).
    pub schema: DFSchemaRef,
    /// A window function whose windows the rows have not been given yet.
    pub pending: Option<Pending>,
    /// By which time the windows close whose bounds are among the columns.
    pub windows: Option<TimeDomain>,
}

/// A window function that waits for its aggregation.
#[derive(Clone)]
pub(super) struct Pending {
    pub kind: WindowKind,
    /// Over the node below.
    pub time: Physical,
    /// What the query calls it.
    pub time_name: String,
    /// Over the node below; `None`: sessions per grouping key.
    pub partition: Option<Vec<Physical>>,
    /// Conditions on the window alone, over (start, end, time).
    pub filters: Vec<Physical>,
    pub at: Location,
}

/// Replaces the columns of `expr`.
pub(super) fn substitute(expr: Physical, replace: &dyn Fn(usize) -> Physical) -> DfResult<Physical> {
    let replaced = expr.transform(|e| match e.downcast_ref::<Column>() {
        // Nothing below a column is visited, so what is put in stays as it is.
        Some(column) => {
            Ok(Transformed::new(replace(column.index()), true, datafusion::common::tree_node::TreeNodeRecursion::Jump))
        }
        None => Ok(Transformed::no(e)),
    });
    replaced.map(|r| r.data)
}

/// Indexes of the columns in `expr`, with repetition.
pub(super) fn columns_in(expr: &Physical) -> Vec<usize> {
    let mut found: Vec<usize> = expr.downcast_ref::<Column>().map(Column::index).into_iter().collect();
    found.extend(expr.children().into_iter().flat_map(columns_in));
    found
}

/// Cheap enough to be computed twice.
pub(super) fn is_trivial(expr: &Physical) -> bool {
    if expr.downcast_ref::<Column>().is_some() || expr.downcast_ref::<Literal>().is_some() {
        return true;
    }
    let field = expr.downcast_ref::<ScalarFunctionExpr>().filter(|f| f.name() == "get_field");
    field.is_some_and(|f| f.args().iter().all(is_trivial))
}

pub(super) fn and(left: Option<Physical>, right: Physical) -> Physical {
    match left {
        Some(left) => Arc::new(BinaryExpr::new(left, Operator::And, right)),
        None => right,
    }
}

impl Rel {
    /// True if the columns are the node's own, unfiltered, and as many.
    pub fn is_plain(&self, width: usize) -> bool {
        self.filter.is_none() && self.pending.is_none() && self.columns.len() == width && self.is_prefix()
    }

    /// True if column `i` is the node's column `i`.
    pub fn is_prefix(&self) -> bool {
        self.columns.iter().enumerate().all(|(i, (value, _))| match value {
            Value::Expr(e) => e.downcast_ref::<Column>().is_some_and(|c| c.index() == i),
            Value::Window(_) => false,
        })
    }

    /// True if two columns are the same column of the node, so that it has two names.
    pub fn repeats_a_column(&self) -> bool {
        let mut seen = std::collections::BTreeSet::new();
        self.columns.iter().any(|(value, _)| match value {
            Value::Expr(e) => e.downcast_ref::<Column>().is_some_and(|c| !seen.insert(c.index())),
            Value::Window(_) => false,
        })
    }

    /// The pending window's bound in column `i`.
    pub fn window_part(&self, i: usize) -> Option<Part> {
        match self.columns[i].0 {
            Value::Window(part) => Some(part),
            Value::Expr(_) => None,
        }
    }
}
