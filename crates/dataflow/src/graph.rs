//! The stream graph: what SQL becomes. A pure value; the same SQL and the same build give the same graph.
//!
//! Nodes are in topological order and an [`OperatorId`] is the index of its node. Edges are either `Forward` (same task) or
//! shuffles (`Hash`, `Broadcast`). Nodes that are connected by forward edges form a **stage**, which runs as `parallelism` tasks; a stage has no
//! inner shuffle.
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::logical_expr::WindowFrame;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::window::WindowExpr;
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
    /// Everything to every task.
    Broadcast,
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
    /// So many milliseconds behind another: of matches, which may be known only when their time is up, and by one of sessions, which end only
    /// when the watermark has passed their end (a row at that very moment still belongs to them).
    Delayed(Box<TimeDomain>, i64),
}

impl TimeDomain {
    /// The clock that it follows in the end, and how many milliseconds it is behind it.
    #[must_use]
    pub fn clock(&self) -> (&Self, i64) {
        match self {
            Self::Event(_) | Self::Processing => (self, 0),
            Self::Delayed(other, delay) => {
                let (clock, behind) = other.clock();
                (clock, behind.saturating_add(*delay))
            }
        }
    }
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
    /// The same for sessions of rows that come and go.
    SessionAssign(Arc<SessionAssign>),
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
    /// Rows × elements of their lists. Linear: weights pass through. Output: the input's columns, lists replaced by elements.
    Unnest(Unnest),
    /// All inputs have the same schema; output is their multiset union.
    Union,
    /// INTERSECT and EXCEPT of inputs 0 and 1, which have the output's schema.
    Set(SetOperation),
    /// Pairs of left (input 0) and right (input 1) rows. Output: left columns, then right columns; semi and anti: left columns.
    Join(Arc<Join>),
    /// First half of a rank, before the shuffle: the rows of an epoch that can be among those that are kept. Input and output are append-only.
    LocalRank(Arc<Rank>),
    /// Rows whose rank in their partition is in a range: top-N, deduplication, `ORDER BY … LIMIT`.
    Rank(Arc<Rank>),
    /// Functions over frames of ordered partitions. Output: the input's columns, then one per call.
    Over(Arc<Over>),
    /// `MATCH_RECOGNIZE`: one row per match. Input and output are append-only. Output: the partition's columns, then the measures.
    RowPattern(Arc<RowPattern>),
    /// The one row of each key: what a table of upserts holds, or what a sink is to hold.
    Keyed(Arc<Keyed>),
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
    /// The table is looked up, and read in epochs of its own, before rows of other tables.
    pub side: Option<SideTable>,
    /// Rows that go are left out: each row that comes is a version of its key.
    pub only_new: bool,
}

/// Which rows of a table that is looked up a row of another table meets. Those that were read in earlier epochs, in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SideTable {
    /// All: the table is read whole before anything else.
    Whole,
    /// Those that are there when its epoch is planned; more may come later.
    Refreshed,
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
    /// Rows of a key with at most `gap` between neighbours.
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

/// Rows in their sessions.
#[derive(Clone, Debug)]
pub struct SessionAssign {
    /// In order of their time.
    pub rows: Ordered,
    /// Time column of the input (a timestamp of any unit).
    pub time: usize,
    /// In milliseconds.
    pub gap: i64,
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
    /// Open windows emit what they have so far, at most this often (milliseconds of processing time). The output is changes then.
    pub early: Option<i64>,
}

/// How an aggregated row finds its window.
#[derive(Clone, Debug)]
pub enum WindowOf {
    /// By a time expression (timestamp of any unit) over the partial node's input. Rows whose time is null are in no window.
    Time { kind: WindowKind, time: Arc<dyn PhysicalExpr> },
    /// The rows carry `window_start` and `window_end` of an earlier window (cascaded aggregation).
    Attached { start: Arc<dyn PhysicalExpr>, end: Arc<dyn PhysicalExpr> },
}

/// Each row once per element of its lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unnest {
    /// Columns of lists.
    pub lists: Vec<usize>,
    /// A row without any element leaves once, with nulls.
    pub keeps_empty: bool,
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
    /// What sums do not determine is kept: rows may be taken away again, or a call needs its values, or they must be able to lapse.
    pub retracts: bool,
    /// Rows may be taken away again.
    pub updating: bool,
    /// What the first half hands to the second; see `group_transfer`.
    pub transfer: SchemaRef,
    /// Output of the second half: keys, aggregates.
    pub output: SchemaRef,
    /// When groups lapse that no row touches.
    pub ttl: Option<Ttl>,
}

/// `state.ttl`: how long state is kept that nothing touches, in time of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    pub after_ms: i64,
    pub mode: TtlMode,
}

/// What is emitted when state lapses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlMode {
    /// Nothing: the last result stands.
    Freeze,
    /// The result is taken back.
    Retract,
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

/// INTERSECT or EXCEPT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetOperation {
    pub kind: SetKind,
    /// Rows count as often as they are there.
    pub all: bool,
    /// A column that is a time attribute of both inputs, and the watermark by which rows leave the state. Both inputs are append-only then.
    pub bound: Option<(usize, TimeDomain)>,
}

/// Which rows are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetKind {
    /// Rows of both inputs.
    Intersect,
    /// Rows of the left input that are not in the right one.
    Except,
}

impl SetOperation {
    /// How often a row is in the result that is so often in the left and in the right input.
    #[must_use]
    pub fn count(&self, left: i64, right: i64) -> i64 {
        match (self.kind, self.all) {
            (SetKind::Intersect, true) => left.min(right),
            (SetKind::Intersect, false) => left.min(right).min(1),
            (SetKind::Except, true) => (left - right).max(0),
            (SetKind::Except, false) => i64::from(left > 0 && right == 0),
        }
    }

    /// As SQL.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match (self.kind, self.all) {
            (SetKind::Intersect, false) => "INTERSECT",
            (SetKind::Intersect, true) => "INTERSECT ALL",
            (SetKind::Except, false) => "EXCEPT",
            (SetKind::Except, true) => "EXCEPT ALL",
        }
    }
}

/// A join: equality of key columns and any further condition.
#[derive(Clone, Debug)]
pub struct Join {
    pub kind: JoinKind,
    /// Left and right.
    pub inputs: [JoinInput; 2],
    /// Null keys equal each other (`IS NOT DISTINCT FROM`); otherwise they match nothing.
    pub null_equal: bool,
    /// Over the left columns, then the right columns. A pair for which it is not true does not match.
    pub residual: Option<Arc<dyn PhysicalExpr>>,
    /// The watermark by which rows leave the state, if time bounds the join. Both inputs are append-only then.
    pub bound: Option<TimeDomain>,
    pub meets: Meets,
}

/// Which right rows a left row meets, of those with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meets {
    /// All, whichever of the two comes first.
    All,
    /// Those that have come before it; it is not kept. No right row leaves unmatched. The right input is append-only.
    Known {
        /// A right row takes the place of an earlier one with the same values in these columns; none: rows only add up.
        replaces: Vec<usize>,
    },
    /// The one version that is valid at its time: the latest whose time, this column, is not later; of several with one time the last that
    /// came. A left row waits until the watermark (`bound`) has passed its time (`retention`). Both inputs are append-only; inner and left joins.
    Version { time: usize },
}

/// Which rows of a join are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
    /// Left rows that have a match.
    Semi,
    /// Left rows that have none.
    Anti,
}

/// One side of a join.
#[derive(Clone, Debug)]
pub struct JoinInput {
    pub schema: SchemaRef,
    pub append_only: bool,
    /// As many on both sides, of equal types.
    pub keys: Vec<usize>,
    pub retention: Option<Retention>,
}

/// How long a row can still find a match: it cannot once `column` (a timestamp, in milliseconds) + `hold_ms` is below the watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub column: usize,
    pub hold_ms: i64,
}

impl JoinKind {
    /// True if rows of this side (0 left, 1 right) leave the join although they match nothing.
    #[must_use]
    pub fn keeps_unmatched(self, side: usize) -> bool {
        match self {
            Self::Inner | Self::Semi => false,
            Self::Left | Self::Anti => side == 0,
            Self::Right => side == 1,
            Self::Full => true,
        }
    }

    /// True if the output has left columns only.
    #[must_use]
    pub fn is_filter(self) -> bool {
        matches!(self, Self::Semi | Self::Anti)
    }
}

impl Join {
    /// True if what leaves the join is never taken back: nothing that it reads is, and no unmatched row leaves before it is known to stay so.
    #[must_use]
    pub fn append_only(&self) -> bool {
        let settles = |side: usize| !self.kind.keeps_unmatched(side) || self.inputs[side].retention.is_some();
        match self.meets {
            Meets::All => self.inputs.iter().all(|i| i.append_only) && settles(0) && settles(1),
            Meets::Known { .. } => self.inputs[0].append_only,
            Meets::Version { .. } => true,
        }
    }
}

/// Rows in partitions, each in an order. Ties are completed by the other columns from left to right, ascending, nulls first.
#[derive(Clone, Debug)]
pub struct Ordered {
    /// Schema of the rows.
    pub input: SchemaRef,
    /// None: all rows are one partition.
    pub partition: Vec<usize>,
    pub order: Vec<SortColumn>,
    /// Without it every row of a partition must be kept.
    pub append_only: bool,
    /// The partitions are those of a window: each is emitted once, when its window closes, and forgotten.
    pub close: Option<Close>,
}

/// A column by which rows are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortColumn {
    pub column: usize,
    pub descending: bool,
    pub nulls_first: bool,
}

/// When the partition of a window is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// End of the window, one of the partition's columns.
    pub end: usize,
    pub domain: TimeDomain,
}

/// Rows by rank.
#[derive(Clone, Debug)]
pub struct Rank {
    pub rows: Ordered,
    pub function: RankFunction,
    /// First rank that is kept, counted from 1.
    pub from: u64,
    /// Last rank that is kept; `u64::MAX`: no last one.
    pub to: u64,
    /// The rank is the last column of the output, after the input's.
    pub numbered: bool,
}

impl Rank {
    /// Rows after the last rank that is kept can never matter again.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.rows.append_only && self.to != u64::MAX
    }
}

/// How rows are ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankFunction {
    /// 1, 2, 3, 4
    RowNumber,
    /// Rows that are equal in the order share a rank: 1, 2, 2, 4
    Rank,
    /// 1, 2, 2, 3
    DenseRank,
}

/// Functions over frames.
#[derive(Clone, Debug)]
pub struct Over {
    pub rows: Ordered,
    pub calls: Vec<OverCall>,
    /// Each row is emitted once, when this watermark has passed it: the rows are append-only, their order begins with a time attribute,
    /// ascending, and every function says what it remembers.
    pub close: Option<TimeDomain>,
}

/// One function.
#[derive(Clone, Debug)]
pub struct OverCall {
    pub function: OverFunction,
    /// A row's result depends only on this many rows before and after it; `None`: on rows at any distance.
    pub reach: Option<(u64, u64)>,
    /// What it needs of the rows before, where rows come in order; `None`: it looks ahead.
    pub memory: Option<Memory>,
    /// As SQL.
    pub text: String,
}

/// What a function over a frame must remember of the rows before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// The last so many of them.
    Last(u64),
    /// Those of the last so many milliseconds.
    Millis(i64),
    /// The first so many of the partition.
    First(u64),
    /// What the aggregate has added up.
    Sum,
    /// How many they are.
    Rank(RankFunction),
    /// All of them.
    All,
}

/// What is computed for a row.
#[derive(Clone, Debug)]
pub enum OverFunction {
    /// An aggregate over the rows of the frame.
    Aggregate { call: AggregateCall, frame: Arc<WindowFrame> },
    /// A window function of DataFusion, with its frame, over the node's input.
    Window(Arc<dyn WindowExpr>),
}

/// Matches of a pattern of rows.
#[derive(Clone, Debug)]
pub struct RowPattern {
    /// The order begins with a time attribute, ascending, nulls last. Append-only.
    pub rows: Ordered,
    /// Rows are matched when this watermark has passed them.
    pub domain: TimeDomain,
    pub variables: Vec<PatternVariable>,
    /// Never matches without a row.
    pub pattern: Pattern,
    /// Where the search goes on after a match.
    pub skip: SkipTo,
    /// The last row of a match is less than this after its first.
    pub within_ms: Option<i64>,
    /// Over the input: what is looked up in rows.
    pub arguments: Vec<Arc<dyn PhysicalExpr>>,
    /// What conditions and measures see.
    pub slots: Vec<Slot>,
    pub measures: Vec<(String, Formula)>,
    /// As SQL.
    pub text: String,
}

/// A variable of a pattern. A row that is mapped to it meets both conditions.
#[derive(Clone, Debug)]
pub struct PatternVariable {
    pub name: String,
    /// Over the row and its neighbours, whatever has been matched.
    pub local: Option<Formula>,
    /// Over the match so far, which ends with the row.
    pub running: Option<Formula>,
    /// As SQL.
    pub text: String,
}

/// A pattern. What is written first is preferred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// By index.
    Variable(usize),
    Concat(Vec<Pattern>),
    Either(Vec<Pattern>),
    Repeat {
        pattern: Box<Pattern>,
        from: u32,
        to: Option<u32>,
        greedy: bool,
    },
}

/// An expression over slots.
#[derive(Clone, Debug)]
pub struct Formula {
    pub expr: Arc<dyn PhysicalExpr>,
    /// Its columns, in order.
    pub slots: Vec<usize>,
    pub schema: SchemaRef,
}

/// A value of a match: of one row, or of all.
#[derive(Clone, Debug)]
pub enum Slot {
    /// `arguments[argument]` in the row that is `back` rows before the one at `place` among those mapped to `variable` (`None`: to any).
    Row { variable: Option<usize>, place: Place, back: u64, argument: usize },
    /// Of the rows mapped to `variable`.
    Aggregate { variable: Option<usize>, call: AggregateCall },
}

/// A row among others, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    First(u64),
    /// From the end.
    Last(u64),
}

/// `AFTER MATCH SKIP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipTo {
    PastLastRow,
    NextRow,
    /// The first row mapped to this variable; the next row if there is none or the match begins with it.
    First(usize),
    /// The same with the last.
    Last(usize),
}

impl Pattern {
    /// True if it can match without a row.
    #[must_use]
    pub fn is_nullable(&self) -> bool {
        match self {
            Self::Variable(_) => false,
            Self::Concat(parts) => parts.iter().all(Self::is_nullable),
            Self::Either(parts) => parts.iter().any(Self::is_nullable),
            Self::Repeat { pattern, from, to, .. } => *from == 0 || *to == Some(0) || pattern.is_nullable(),
        }
    }

    /// Places of variables when repetitions are written out.
    #[must_use]
    pub fn places(&self) -> u64 {
        match self {
            Self::Variable(_) => 1,
            Self::Concat(parts) | Self::Either(parts) => parts.iter().map(Self::places).fold(0, u64::saturating_add),
            Self::Repeat { pattern, from, to, .. } => {
                let times = to.map_or(u64::from(*from) + 1, u64::from);
                pattern.places().saturating_mul(times)
            }
        }
    }

    /// How many rows a match has, if that is always the same.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Variable(_) => Some(1),
            Self::Concat(parts) => parts.iter().map(Self::length).sum(),
            Self::Either(parts) => {
                let mut lengths = parts.iter().map(Self::length);
                let first = lengths.next()??;
                lengths.all(|l| l == Some(first)).then_some(first)
            }
            Self::Repeat { pattern, from, to, .. } if Some(*from) == *to => {
                pattern.length()?.checked_mul(u64::from(*from))
            }
            Self::Repeat { .. } => None,
        }
    }
}

impl RowPattern {
    /// A match is known as soon as its last row has come.
    #[must_use]
    pub fn is_prompt(&self) -> bool {
        self.pattern.length().is_some()
    }

    /// How many rows before a match are looked at.
    #[must_use]
    pub fn back(&self) -> u64 {
        let back = |slot: &Slot| match slot {
            Slot::Row { back, .. } => *back,
            Slot::Aggregate { .. } => 0,
        };
        self.slots.iter().map(back).max().unwrap_or_default()
    }
}

/// A table with one row per key.
#[derive(Clone, Debug)]
pub struct Keyed {
    /// Its name, for messages.
    pub table: String,
    /// The key's columns.
    pub keys: Vec<usize>,
    pub input: KeyedInput,
}

/// What a [`Keyed`] node reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyedInput {
    /// A row takes the place of the one with its key; with a negative weight it takes it away, and only its key counts.
    Upserts,
    /// Changes. Two rows of one key at an epoch's end are an error.
    Changes,
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
