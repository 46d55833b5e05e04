//! Joins: keys, residual condition, and what time bounds them.
//!
//! Both sides are shuffled by their keys (without keys: all rows to one task). What DataFusion's optimiser leaves as `on` are the keys, computed
//! before the shuffle where they are no plain columns; the rest is the residual.
//!
//! **Time.** A join is bounded if a match needs `right time ∈ [left time + least, left time + most]`, both being time attributes of
//! append-only inputs: from an equality of them, of bounds of windows, or from comparisons with constant distances. A left row is
//! of no use once its time + `most` is below the watermark, a right row once its time − `least` is. No row is dropped before the watermark has
//! passed its own time, so that rows expire in one order.
//!
//! A time attribute of the output is one whose values are never below the watermark of the epoch before: those of rows that have met a
//! row that cannot be older than them.
use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::{Column as Named, DFSchema, JoinType, NullEquality, ScalarValue};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, Join as LogicalJoin, Operator};
use datafusion::physical_expr::expressions::Column;
use millstream_dataflow::graph::{
    EdgeType, Exchange, Input, Join, JoinInput, JoinKind, Meets, NodeKind, Retention, TimeDomain,
};

use super::rel::{Part, Rel, Role, Value};
use super::{Lowering, common_domain, edge, plain};
use crate::error::{Mistake, Result};
use crate::types;
use crate::versions::as_of;

/// A condition on two times: `least ≤ right − left ≤ most`, in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TimePair {
    pub left: Named,
    pub right: Named,
    pub least: Option<i64>,
    pub most: Option<i64>,
}

/// What bounds a join, and what is known of its output.
pub(super) struct Bound {
    /// `None`: nothing waits for a time.
    pub domain: Option<TimeDomain>,
    pub retentions: [Option<Retention>; 2],
    /// Roles of the output columns of each side.
    pub roles: [Vec<Role>; 2],
    pub windows: Option<TimeDomain>,
}

/// A join whose inputs are lowered.
pub(super) struct Sides {
    pub kind: JoinKind,
    pub rels: [Rel; 2],
    pub on: Vec<(Expr, Expr)>,
    pub filter: Option<Expr>,
    pub null_equal: bool,
    /// A column of the right side that must be true.
    pub valid: Option<usize>,
    /// How many columns of the right side the query knows, if not all.
    pub width: Option<usize>,
    /// Which side's columns the query sees first.
    pub order: [usize; 2],
    pub meets: Meets,
    /// Of joins that are not symmetric; for others it is found.
    pub bound: Option<Bound>,
}

impl Sides {
    /// Left as right.
    pub fn turned(self, kind: JoinKind) -> Self {
        let [left, right] = self.rels;
        let on = self.on.into_iter().map(|(l, r)| (r, l)).collect();
        Self { kind, rels: [right, left], on, order: [1, 0], ..self }
    }
}

const WORDS: &[&str] = &["JOIN", "EXISTS", "IN", "NATURAL"];

impl Lowering<'_> {
    pub(super) fn join(&mut self, node: &LogicalJoin) -> Result<Rel> {
        if node.null_aware {
            let message =
                "NOT IN gives no row at all as soon as its subquery holds a null, so no result would ever be final";
            return Err(Mistake::new(self.place(&["NOT"]), message)
                .hint("write NOT EXISTS (SELECT … WHERE …), or declare both columns NOT NULL"));
        }
        let (kind, swapped) = match node.join_type {
            JoinType::Inner => (JoinKind::Inner, false),
            JoinType::Left => (JoinKind::Left, false),
            JoinType::Right => (JoinKind::Right, false),
            JoinType::Full => (JoinKind::Full, false),
            JoinType::LeftSemi => (JoinKind::Semi, false),
            JoinType::LeftAnti => (JoinKind::Anti, false),
            JoinType::RightSemi => (JoinKind::Semi, true),
            JoinType::RightAnti => (JoinKind::Anti, true),
            JoinType::LeftMark | JoinType::RightMark => {
                return Err(Mistake::new(
                    self.place(&["EXISTS", "IN"]),
                    "a subquery that is one of several conditions is not supported on streams",
                )
                .hint("join it by AND, or write the parts as two queries with UNION ALL"));
            }
        };
        let (as_of, filter) = as_of(node);
        let on = node.on.iter().flat_map(|(l, r)| [l, r]);
        if on.chain(&filter).any(Expr::is_volatile) {
            let message = "a join condition on the current time changes its result while no row comes";
            return Err(Mistake::new(self.place(WORDS), message)
                .hint("compare time columns of both sides, as in a.ts BETWEEN b.ts - INTERVAL '1' HOUR AND b.ts"));
        }
        if let Some(as_of) = as_of {
            return self.join_as_of(node, &as_of, filter);
        }
        let on = node.on.iter().cloned().map(|(l, r)| if swapped { (r, l) } else { (l, r) }).collect();
        let (left, right) = if swapped { (&node.right, &node.left) } else { (&node.left, &node.right) };
        let rels = [self.lower(left)?, self.lower(right)?];
        let [left, right] = rels.map(|rel| self.materialise(rel));
        let sides = Sides {
            kind,
            rels: [left?, right?],
            on,
            filter,
            null_equal: node.null_equality == NullEquality::NullEqualsNull,
            valid: None,
            width: None,
            order: [0, 1],
            meets: Meets::All,
            bound: None,
        };
        let sides = self.looked_up(sides);
        self.build(sides)
    }

    /// The node of a join, with keys and conditions over its inputs.
    pub(super) fn build(&mut self, sides: Sides) -> Result<Rel> {
        let Sides { kind, mut rels, on, filter, null_equal, valid, width, order, meets, bound } = sides;
        let widths = [rels[0].columns.len(), width.unwrap_or(rels[1].columns.len())];
        let mut keys = [Vec::new(), Vec::new()];
        for (l, r) in &on {
            for (side, expr) in [l, r].into_iter().enumerate() {
                let key = self.key(&mut rels[side], expr)?;
                keys[side].push(key);
            }
            self.check_key(&rels, [&keys[0], &keys[1]])?;
        }
        let combined = combined(&rels, kind).map_err(|e| self.failed(&e))?;
        let mut residual = match &filter {
            Some(Expr::Literal(ScalarValue::Boolean(Some(true)), _)) | None => None,
            Some(filter) => {
                let both = combined_for_residual(&rels).map_err(|e| self.failed(&e))?;
                Some(self.physical(filter, &both)?)
            }
        };
        if let Some(valid) = valid {
            let name = rels[1].schema.field(valid).name();
            let column: super::rel::Physical = Arc::new(Column::new(name, rels[0].columns.len() + valid));
            residual = Some(super::rel::and(residual, column));
        }
        let mut finished = Vec::new();
        for rel in &rels {
            finished.push(self.finish(rel.clone())?);
        }
        let append_only = finished.iter().all(|(_, edge)| edge.append_only);
        let on: Vec<(&Expr, &Expr)> = on.iter().map(|(l, r)| (l, r)).collect();
        let mut bound = match (&meets, append_only && !null_equal) {
            (Meets::All, true) => self.bound(kind, &rels, &time_pairs(&on, filter.as_ref()), &on)?,
            (Meets::All, false) => None,
            _ => bound,
        };
        if let Some(bound) = &mut bound {
            // Keys have been added since.
            for (roles, rel) in bound.roles.iter_mut().zip(&rels) {
                roles.resize(rel.columns.len(), Role::default());
            }
        }
        let retentions = bound.as_ref().map_or([None, None], |b| b.retentions);
        let inputs = [0, 1].map(|side| JoinInput {
            schema: finished[side].1.schema.clone(),
            append_only: finished[side].1.append_only,
            keys: keys[side].clone(),
            retention: retentions[side],
        });
        let domain = bound.as_ref().and_then(|b| b.domain.clone());
        let mut spec = Join { kind, inputs, null_equal, residual, bound: domain, meets };
        let is_lookup = matches!(spec.meets, Meets::Known { .. });
        if !is_lookup && !spec.append_only() {
            // Rows that are taken back, or leave and come again, must be known for ever.
            spec.bound = None;
            spec.inputs.iter_mut().for_each(|i| i.retention = None);
        }
        let bound = bound.filter(|_| is_lookup || spec.bound.is_some());
        let roles = self.output_roles(kind, &rels, bound.as_ref());
        let mut output = edge(Arc::new(Schema::new(combined.clone())), &roles, None);
        output.append_only = spec.append_only();
        let exchange = |side: usize| match (is_lookup, side) {
            (true, 0) => Exchange::Forward,
            (true, _) => Exchange::Broadcast,
            (false, _) => Exchange::Hash { columns: keys[side].clone() },
        };
        let edges = [0, 1].map(|side| Input { from: finished[side].0, exchange: exchange(side) });
        let base = self.push(NodeKind::Join(Arc::new(spec)), edges.to_vec(), output)?;
        self.joined(base, kind, &rels, &Shape { widths, order, roles }, bound.and_then(|b| b.windows))
    }

    /// Index of a key among the columns, which it joins if it is not one of them.
    fn key(&self, rel: &mut Rel, expr: &Expr) -> Result<usize> {
        if let Expr::Column(column) = expr {
            return rel.schema.index_of_column(column).map_err(|e| self.failed(&e));
        }
        let physical = self.physical(expr, &rel.schema)?;
        let data_type = physical.data_type(rel.schema.as_arrow()).map_err(|e| self.failed(&e))?;
        let value = Value::Expr(self.over_base(rel, expr)?);
        let index = rel.columns.len();
        self.add_column(rel, &format!("__key_{index}"), data_type, value)?;
        Ok(index)
    }

    /// A column that the query does not know.
    pub(super) fn add_column(&self, rel: &mut Rel, name: &str, data_type: DataType, value: Value) -> Result<()> {
        let mut fields: Vec<_> = rel.schema.iter().map(|(q, f)| (q.cloned(), f.clone())).collect();
        fields.push((None, Arc::new(Field::new(name, data_type, true))));
        let schema = DFSchema::new_with_metadata(fields, HashMap::new()).map_err(|e| self.failed(&e))?;
        rel.columns.push((value, Role::default()));
        rel.schema = Arc::new(schema);
        Ok(())
    }

    /// Both sides hash and compare their keys alike only if the types are the same.
    fn check_key(&self, rels: &[Rel; 2], keys: [&[usize]; 2]) -> Result<()> {
        let (Some(left), Some(right)) = (keys[0].last(), keys[1].last()) else { return Ok(()) };
        let (left, right) = (rels[0].schema.field(*left).data_type(), rels[1].schema.field(*right).data_type());
        if left != right {
            let message = format!("the join compares {} with {}", types::name(left), types::name(right));
            return Err(Mistake::new(self.place(WORDS), message).hint("CAST one of them"));
        }
        let is_nested = matches!(left, DataType::Map(..) | DataType::Union(..));
        if is_nested {
            let message = format!("a join cannot compare {}", types::name(left));
            return Err(Mistake::new(self.place(WORDS), message).hint("compare its parts"));
        }
        Ok(())
    }

    fn bound(
        &self,
        kind: JoinKind,
        rels: &[Rel; 2],
        pairs: &[TimePair],
        on: &[(&Expr, &Expr)],
    ) -> Result<Option<Bound>> {
        let index = |side: usize, column: &Named| rels[side].schema.index_of_column(column).ok();
        let role = |side: usize, i: usize| &rels[side].columns[i].1;
        // Equal windows.
        let equal = |part: Part| {
            on.iter().find_map(|(l, r)| {
                let (Expr::Column(l), Expr::Column(r)) = (l, r) else { return None };
                let (l, r) = (index(0, l)?, index(1, r)?);
                (role(0, l).part == Some(part) && role(1, r).part == Some(part)).then_some([l, r])
            })
        };
        let windows = || common_domain(rels[0].windows.clone()?, rels[1].windows.clone()?);
        if let (Some(ends), Some(domain)) = (equal(Part::End).or_else(|| equal(Part::Time)), windows()) {
            let hold_ms = if equal(Part::End).is_some() { -1 } else { 0 };
            let both = equal(Part::Start).is_some();
            let of_window = |role: &Role, side: usize| Role {
                time: role.part.filter(|p| *p == Part::Time).map(|_| domain.clone()),
                // One window has one start.
                part: role.part.filter(|p| side == 0 || both || *p != Part::Start),
            };
            let roles = [0, 1].map(|side| rels[side].columns.iter().map(|(_, r)| of_window(r, side)).collect());
            let retentions = ends.map(|column| Some(Retention { column, hold_ms }));
            return Ok(Some(Bound { windows: Some(domain.clone()), domain: Some(domain), retentions, roles }));
        }
        for pair in pairs {
            let (Some(l), Some(r)) = (index(0, &pair.left), index(1, &pair.right)) else { continue };
            // A window's end is a moment after a time attribute.
            let time = |side: usize, i: usize| match role(side, i) {
                Role { time: Some(domain), .. } => Some((domain.clone(), 0)),
                Role { part: Some(Part::End), .. } => Some((rels[side].windows.clone()?, -1)),
                Role { .. } => None,
            };
            let (Some((left, left_shift)), Some((right, right_shift))) = (time(0, l), time(1, r)) else { continue };
            let Some(domain) = common_domain(left, right) else { continue };
            let moved = |ms: Option<i64>| ms.map(|ms| ms + right_shift - left_shift);
            let (least, most) = (moved(pair.least), moved(pair.most));
            let is_fine = |side: usize, i: usize| {
                matches!(
                    rels[side].schema.field(i).data_type(),
                    DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, _)
                )
            };
            // Times are rounded down to milliseconds.
            let slack = i64::from(!is_fine(0, l) || !is_fine(1, r));
            let hold = |column: usize, shift: i64, ms: Option<i64>| {
                ms.map(|ms| Retention { column, hold_ms: ms.max(0) + slack + shift })
            };
            let retentions = [hold(l, left_shift, most), hold(r, right_shift, least.map(|ms| -ms))];
            let mut roles =
                [vec![Role::default(); rels[0].columns.len()], vec![Role::default(); rels[1].columns.len()]];
            let kept = || Role { time: Some(domain.clone()), part: None };
            if slack == 0 && left_shift == 0 && most.is_some_and(|ms| ms <= 0) {
                roles[0][l] = kept();
            }
            if slack == 0 && right_shift == 0 && least.is_some_and(|ms| ms >= 0) {
                roles[1][r] = kept();
            }
            let useful = retentions.iter().any(Option::is_some);
            let settles = (0..2).all(|side| !kind.keeps_unmatched(side) || retentions[side].is_some());
            if useful && settles {
                return Ok(Some(Bound { domain: Some(domain), retentions, roles, windows: None }));
            }
        }
        Ok(None)
    }

    /// What is known of the output columns. Where a side may be null, nothing is.
    fn output_roles(&self, kind: JoinKind, rels: &[Rel; 2], bound: Option<&Bound>) -> Vec<Role> {
        let sides = if kind.is_filter() { 1 } else { 2 };
        let of_side = |side: usize| match bound.filter(|_| !kind.keeps_unmatched(1 - side) || kind.is_filter()) {
            Some(bound) => bound.roles[side].clone(),
            None => vec![Role::default(); rels[side].columns.len()],
        };
        (0..sides).flat_map(of_side).collect()
    }

    /// The columns that the query knows, of those that leave the join.
    fn joined(
        &self,
        base: millstream_plan::OperatorId,
        kind: JoinKind,
        rels: &[Rel; 2],
        shape: &Shape,
        windows: Option<TimeDomain>,
    ) -> Result<Rel> {
        let Shape { widths, order, roles } = shape;
        let output: &EdgeType = self.output(base);
        let mut columns = Vec::new();
        let mut fields = Vec::new();
        for side in if kind.is_filter() { &[0][..] } else { order } {
            let (side, rel) = (*side, &rels[*side]);
            let from = if side == 0 { 0 } else { rels[0].columns.len() };
            for i in 0..widths[side] {
                let (qualifier, _) = rel.schema.qualified_field(i);
                let field: FieldRef = Arc::new(output.schema.field(from + i).clone());
                let column: super::rel::Physical = Arc::new(Column::new(field.name(), from + i));
                columns.push((Value::Expr(column), roles[from + i].clone()));
                fields.push((qualifier.cloned(), field));
            }
        }
        let windows = windows.filter(|_| columns.iter().any(|(_, role)| role.part.is_some()));
        let schema = DFSchema::new_with_metadata(fields, HashMap::new()).map_err(|e| self.failed(&e))?;
        Ok(Rel { columns, ..plain(base, Arc::new(schema), Vec::new(), windows) })
    }
}

/// What leaves a join.
struct Shape {
    /// Columns of each side that the query knows, and the order in which it names the sides.
    widths: [usize; 2],
    order: [usize; 2],
    /// Of the columns of both sides.
    roles: Vec<Role>,
}

/// Fields of the output.
fn combined(rels: &[Rel; 2], kind: JoinKind) -> datafusion::error::Result<Vec<FieldRef>> {
    let sides = if kind.is_filter() { 1 } else { 2 };
    let mut fields = Vec::new();
    for (side, rel) in rels.iter().enumerate().take(sides) {
        let may_be_null = !kind.is_filter() && kind.keeps_unmatched(1 - side);
        fields.extend(rel.schema.fields().iter().map(|f| match may_be_null {
            true => Arc::new(f.as_ref().clone().with_nullable(true)),
            false => f.clone(),
        }));
    }
    Ok(fields)
}

/// Columns of both sides under the names of the query; keys that were added are not to be found by theirs.
fn combined_for_residual(rels: &[Rel; 2]) -> datafusion::error::Result<DFSchema> {
    let fields = rels.iter().enumerate().flat_map(|(side, rel)| {
        rel.schema.iter().map(move |(qualifier, field)| {
            let hidden = field.name().starts_with("__key_") && qualifier.is_none();
            let name = if hidden { format!("{}_{side}", field.name()) } else { field.name().clone() };
            (qualifier.cloned(), Arc::new(field.as_ref().clone().with_name(name)))
        })
    });
    DFSchema::new_with_metadata(fields.collect(), HashMap::new())
}

/// Distances of times that a match needs; of several conditions on the same two columns, the tightest.
pub(crate) fn time_pairs(on: &[(&Expr, &Expr)], filter: Option<&Expr>) -> Vec<TimePair> {
    let mut found: Vec<TimePair> = Vec::new();
    let mut add = |pair: TimePair| match found.iter_mut().find(|p| p.left == pair.left && p.right == pair.right) {
        Some(known) => {
            known.least = known.least.max(pair.least);
            known.most = [known.most, pair.most].into_iter().flatten().min();
        }
        None => found.push(pair),
    };
    for (l, r) in on {
        if let (Some((left, a)), Some((right, b))) = (shifted(l), shifted(r)) {
            add(TimePair { left, right, least: Some(a - b), most: Some(a - b) });
        }
    }
    for part in filter.into_iter().flat_map(split_conjunction) {
        let Expr::BinaryExpr(binary) = part else { continue };
        let (Some((x, a)), Some((y, b))) = (shifted(&binary.left), shifted(&binary.right)) else { continue };
        // Which of the two is left is known to those who have the schemas, so both ways are given.
        let (least, most) = match binary.op {
            Operator::LtEq | Operator::Lt => (Some(a - b), None),
            Operator::GtEq | Operator::Gt => (None, Some(a - b)),
            Operator::Eq => (Some(a - b), Some(a - b)),
            _ => continue,
        };
        add(TimePair { left: x.clone(), right: y.clone(), least, most });
        let opposite = |ms: Option<i64>| ms.map(|ms| -ms);
        add(TimePair { left: y, right: x, least: opposite(most), most: opposite(least) });
    }
    found
}

/// A column plus a constant length of time, in milliseconds.
fn shifted(expr: &Expr) -> Option<(Named, i64)> {
    match expr {
        Expr::Column(column) => Some((column.clone(), 0)),
        Expr::BinaryExpr(binary) => {
            let constant = |e: &Expr| match e {
                Expr::Literal(value, _) => length(value),
                _ => None,
            };
            match (binary.op, constant(&binary.left), constant(&binary.right)) {
                (Operator::Plus, _, Some(ms)) => shifted(&binary.left).map(|(c, own)| (c, own + ms)),
                (Operator::Plus, Some(ms), _) => shifted(&binary.right).map(|(c, own)| (c, own + ms)),
                (Operator::Minus, _, Some(ms)) => shifted(&binary.left).map(|(c, own)| (c, own - ms)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Milliseconds of an interval of fixed length.
fn length(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::IntervalMonthDayNano(Some(i)) if i.months == 0 && i.nanoseconds % 1_000_000 == 0 => {
            Some(i64::from(i.days) * 86_400_000 + i.nanoseconds / 1_000_000)
        }
        ScalarValue::IntervalDayTime(Some(i)) => Some(i64::from(i.days) * 86_400_000 + i64::from(i.milliseconds)),
        ScalarValue::DurationMillisecond(Some(ms)) => Some(*ms),
        _ => None,
    }
}
