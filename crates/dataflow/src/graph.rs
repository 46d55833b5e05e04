//! The stream graph: what SQL becomes. A pure value; the same SQL and the same build give the same graph.
//!
//! Nodes are in topological order and an [`OperatorId`] is the index of its node. Edges are either `Forward` (same task) or
//! `Hash` (a shuffle). Nodes that are connected by forward edges form a **stage**, which runs as `parallelism` tasks; a stage has no
//! inner shuffle.
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use millstream_plan::{Digest, OperatorId, SinkId, SourceId, StageId};

/// A pipeline as a graph.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Topologically ordered; `nodes[i].id == OperatorId(i)`.
    pub nodes: Vec<Node>,
    /// Stage of every node, and the stages in topological order.
    pub stages: Vec<Stage>,
    /// Digest over everything that state and results depend on.
    pub fingerprint: Digest,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    pub id: OperatorId,
    pub stage: StageId,
    pub kind: NodeKind,
    pub inputs: Vec<Input>,
    /// Type of what leaves the node. For sinks: of what enters.
    pub output: EdgeType,
}

/// One input of a node.
#[derive(Clone, Debug)]
pub struct Input {
    pub from: OperatorId,
    pub exchange: Exchange,
}

/// How rows get from a node to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Inside the task.
    Forward,
    /// To the task that owns the key group of these columns (no columns: everything to one task).
    Hash { columns: Vec<usize> },
}

/// Type of an edge.
#[derive(Clone, Debug)]
pub struct EdgeType {
    pub schema: SchemaRef,
    /// No weights but +1 ever.
    pub append_only: bool,
    /// Columns that identify a row, if known.
    pub key: Option<Vec<usize>>,
    /// Columns that are live time attributes: no row with a value below the attribute's watermark will come.
    pub time: Vec<TimeAttribute>,
}

/// A column over which windows can close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeAttribute {
    pub column: usize,
    pub domain: TimeDomain,
}

/// Which watermark a time attribute follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimeDomain {
    /// The minimum over these sources' watermarks. Ordered, without repetition.
    Event(Vec<SourceId>),
    /// The plan's `now_ms`.
    Processing,
}

/// A part of the graph between shuffles.
#[derive(Clone, Debug)]
pub struct Stage {
    pub id: StageId,
    /// Its nodes in topological order.
    pub nodes: Vec<OperatorId>,
}

/// What a node does.
#[derive(Clone, Debug)]
pub enum NodeKind {
    Source(Box<SourceNode>),
    /// Filter, then project. Linear: weights pass through.
    Calc(Calc),
    /// Rows × windows that hold them: appends `window_start`, `window_end`, `window_time`.
    WindowAssign(WindowAssign),
    /// First half of a windowed aggregation, before the shuffle: partial states per (key, pane), no state between epochs.
    /// Output: key columns, `pane` (Int64; sessions: `start`, `end`), state columns.
    PartialWindowAggregate(Arc<WindowAggregate>),
    /// Second half: merges partial states, emits a window once when it closes. Output: key columns, `window_start`,
    /// `window_end`, `window_time`, aggregates.
    WindowAggregate(Arc<WindowAggregate>),
    /// Rows × grouping sets. Linear: weights pass through.
    Expand(Expand),
    /// First half of an aggregation without a window, before the shuffle; no state between epochs. Output: the transfer.
    PartialGroupAggregate(Arc<GroupAggregate>),
    /// Second half: the result of every group that an epoch changed, old with −1, new with +1. Output: key columns, aggregates.
    GroupAggregate(Arc<GroupAggregate>),
    /// All inputs have the same schema; output is their multiset union.
    Union,
    Sink(Box<SinkNode>),
}

/// A table that is read.
#[derive(Clone, Debug)]
pub struct SourceNode {
    pub source: SourceId,
    pub table: String,
    /// Columns decoded from a record, pruned (also inside structs) to what is used.
    pub decoded: SchemaRef,
    /// Metadata columns in use, after the decoded ones in every batch: (field, metadata key).
    pub metadata: Vec<(FieldRef, String)>,
    /// Rows that cannot matter: only when every reader of the table filters by it and no watermark depends on the table's other rows.
    pub prefilter: Option<SourceFilter>,
    /// Output columns over (decoded ++ metadata): plain and computed columns of the table that are used.
    pub columns: Vec<NamedExpr>,
    /// The declared watermark, if some operator uses the table's time attribute.
    pub watermark: Option<WatermarkNode>,
}

/// `WATERMARK FOR column AS expr`.
#[derive(Clone, Debug)]
pub struct WatermarkNode {
    /// The time column among the source's output columns.
    pub column: usize,
    /// The watermark that a row gives (event time minus the declared delay), over (decoded ++ metadata).
    pub expr: Arc<dyn PhysicalExpr>,
    /// A split without rows for this long (milliseconds) does not hold the watermark back.
    pub idle_timeout_ms: Option<u64>,
}

/// A filter that the decoder can apply: a top-level column equals one of the values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFilter {
    pub column: String,
    pub values: FilterValues,
}

/// Values of a [`SourceFilter`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterValues {
    Int(Vec<i64>),
    Text(Vec<String>),
}

/// An expression and the name of the column that it gives.
#[derive(Clone, Debug)]
pub struct NamedExpr {
    pub name: String,
    pub expr: Arc<dyn PhysicalExpr>,
}

/// Filter and project.
#[derive(Clone, Debug)]
pub struct Calc {
    /// Over the input; rows for which it is not true are dropped.
    pub filter: Option<Arc<dyn PhysicalExpr>>,
    /// Over the filtered input; `None` keeps all columns.
    pub project: Option<Vec<NamedExpr>>,
}

/// A window function of rows. All times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    Tumble {
        size: i64,
        offset: i64,
    },
    /// Windows of `size` every `slide`.
    Hop {
        size: i64,
        slide: i64,
        offset: i64,
    },
    /// Windows that grow by `step` until `size`, then start anew.
    Cumulate {
        size: i64,
        step: i64,
        offset: i64,
    },
    /// Rows of a key with less than `gap` between neighbours.
    Session {
        gap: i64,
    },
}

/// Rows × windows.
#[derive(Clone, Debug)]
pub struct WindowAssign {
    /// Never `Session`.
    pub window: WindowKind,
    /// Time column of the input (a timestamp of any unit).
    pub time: usize,
}

/// A windowed aggregation. The partial and the final node share it.
#[derive(Clone, Debug)]
pub struct WindowAggregate {
    pub window: WindowOf,
    /// Which watermark closes windows.
    pub domain: TimeDomain,
    /// Grouping expressions without the window, over the partial node's input.
    pub keys: Vec<NamedExpr>,
    /// Aggregate calls over the partial node's input.
    pub aggregates: Vec<AggregateCall>,
    /// Output of the final node: keys, `window_start`, `window_end`, `window_time` (type of the time column), aggregates.
    pub output: SchemaRef,
}

/// How an aggregated row finds its window.
#[derive(Clone, Debug)]
pub enum WindowOf {
    /// By a time expression (timestamp of any unit) over the partial node's input. Rows whose time is null are in no window.
    Time { kind: WindowKind, time: Arc<dyn PhysicalExpr> },
    /// The rows carry `window_start` and `window_end` of an earlier window (cascaded aggregation).
    Attached { start: Arc<dyn PhysicalExpr>, end: Arc<dyn PhysicalExpr> },
}

/// GROUPING SETS: each row once per set, with the keys that are not in it null. Output: input, keys, grouping id.
#[derive(Clone, Debug)]
pub struct Expand {
    /// Over the input.
    pub keys: Vec<NamedExpr>,
    pub sets: Vec<GroupingSet>,
}

/// One grouping set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupingSet {
    /// By key: is null in this set.
    pub nulls: Vec<bool>,
    /// What tells its rows from those of other sets.
    pub id: u64,
}

/// An aggregation without a window. Both halves share it.
#[derive(Clone, Debug)]
pub struct GroupAggregate {
    /// Over the first half's input.
    pub keys: Vec<NamedExpr>,
    /// Keys of the groups that have a row also without input: the one group of an aggregation without keys, and of the
    /// grouping set without keys.
    pub always: RecordBatch,
    pub calls: Vec<GroupCall>,
    /// Rows may be taken away again.
    pub retracts: bool,
    /// What the first half hands to the second; see `group_transfer`.
    pub transfer: SchemaRef,
    /// Output of the second half: keys, aggregates.
    pub output: SchemaRef,
}

/// One aggregate of a [`GroupAggregate`].
#[derive(Clone, Debug)]
pub struct GroupCall {
    /// Without its DISTINCT.
    pub function: Arc<AggregateFunctionExpr>,
    /// `FILTER (WHERE …)`, over the first half's input.
    pub filter: Option<Arc<dyn PhysicalExpr>>,
    /// Equal arguments count once.
    pub distinct: bool,
}

/// One aggregate.
#[derive(Clone, Debug)]
pub struct AggregateCall {
    /// The function with its argument expressions; its accumulators merge partial states.
    pub function: Arc<AggregateFunctionExpr>,
    /// `FILTER (WHERE …)`.
    pub filter: Option<Arc<dyn PhysicalExpr>>,
}

/// A table that is written by one INSERT.
#[derive(Clone, Debug)]
pub struct SinkNode {
    pub sink: SinkId,
    pub table: String,
    /// Index of the INSERT in the pipeline, for messages.
    pub insert: usize,
}

impl GroupAggregate {
    /// True if each value of the call's arguments is kept.
    #[must_use]
    pub fn keeps_values(&self, call: &GroupCall) -> bool {
        call.distinct || self.retracts && !matches!(call.function.fun().name(), "count" | "sum" | "avg")
    }
}

impl Graph {
    /// The node with this id.
    #[must_use]
    pub fn node(&self, id: OperatorId) -> &Node {
        &self.nodes[usize::from(id.0)]
    }

    /// Nodes that read `id`'s output, each with the index of the input.
    pub fn readers(&self, id: OperatorId) -> impl Iterator<Item = (&Node, usize)> {
        self.nodes.iter().flat_map(move |n| {
            n.inputs.iter().enumerate().filter(move |(_, i)| i.from == id).map(move |(at, _)| (n, at))
        })
    }

    /// All sources, ordered by id.
    pub fn sources(&self) -> impl Iterator<Item = (&Node, &SourceNode)> {
        self.nodes.iter().filter_map(|n| match &n.kind {
            NodeKind::Source(s) => Some((n, &**s)),
            _ => None,
        })
    }

    /// All sinks, ordered by id.
    pub fn sinks(&self) -> impl Iterator<Item = (&Node, &SinkNode)> {
        self.nodes.iter().filter_map(|n| match &n.kind {
            NodeKind::Sink(s) => Some((n, &**s)),
            _ => None,
        })
    }

    /// Assigns stages: nodes joined by forward edges share one. Returns the stage of every node and the stages, numbered by their first node.
    #[must_use]
    pub fn stages_of(inputs: &[Vec<Input>]) -> (Vec<StageId>, Vec<Stage>) {
        let mut group: Vec<usize> = (0..inputs.len()).collect();
        let root = |group: &[usize], mut i: usize| {
            while group[i] != i {
                i = group[i];
            }
            i
        };
        for (node, ins) in inputs.iter().enumerate() {
            for input in ins.iter().filter(|i| i.exchange == Exchange::Forward) {
                let (a, b) = (root(&group, usize::from(input.from.0)), root(&group, node));
                group[a.max(b)] = a.min(b);
            }
        }
        let mut stages: Vec<Stage> = Vec::new();
        let mut number = BTreeMap::new();
        let of_node = (0..inputs.len())
            .map(|node| {
                let id = *number.entry(root(&group, node)).or_insert_with(|| {
                    let id = StageId(stages.len() as u16);
                    stages.push(Stage { id, nodes: Vec::new() });
                    id
                });
                stages[usize::from(id.0)].nodes.push(OperatorId(node as u16));
                id
            })
            .collect();
        (of_node, stages)
    }
}
