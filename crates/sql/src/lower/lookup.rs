//! Joins in which the sides differ: one looks up the other, or takes its version at a time.
//!
//! **Lookup** ([`Meets::Known`]). The one side is read from files, in epochs of its own before anything else (see the planner of epochs). It goes to
//! every task; the rows of the other side stay where they are, meet it, and are gone: they keep their times and windows, and what has been taken
//! back is taken back. It is chosen
//! - for a plain join with tables of files that are read once (`'source.monitor' = 'false'`), where it gives what any join gives: all rows of those
//!   tables are there before the first row of the other side;
//! - for `FOR SYSTEM_TIME AS OF` a processing time: a row meets the rows of the files that were there when its epoch was planned, of a table
//!   with PRIMARY KEY the last one of each key.
//!
//! **Version** ([`Meets::Version`]). `FOR SYSTEM_TIME AS OF` an event time: the table has a PRIMARY KEY, by which it is joined, and a watermark.
use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::JoinType;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Join as LogicalJoin, LogicalPlan};
use datafusion::physical_expr::expressions::Column;
use millstream_dataflow::graph::{JoinKind, Meets, NodeKind, Retention, SideTable, TimeDomain};
use millstream_plan::OperatorId;

use super::join::{Bound, Sides};
use super::rel::{Rel, Role, Value};
use super::{Lowering, common_domain};
use crate::error::{Mistake, Result};
use crate::functions::is_plan_time;
use crate::types;
use crate::versions::{AsOf, versions};

/// Whose tables can be read before others.
const FILES: &str = "filesystem";
const WORDS: &[&str] = &["SYSTEM_TIME"];
/// A condition on the version alone.
const VALID: &str = "__valid";

/// The side of a join that has versions.
struct Versioned {
    rel: Rel,
    /// Columns that the query knows.
    width: usize,
    /// A column that is true if a row matches at all.
    valid: Option<usize>,
    /// Columns of the PRIMARY KEY.
    key: Vec<usize>,
}

impl Lowering<'_> {
    /// Whether one side of a plain join is to be looked up; then that side becomes the right one.
    pub(super) fn looked_up(&mut self, sides: Sides) -> Sides {
        let whole = |rel: &Rel| {
            let sources = self.sources_below(rel.base);
            self.output(rel.base).append_only
                && !sources.is_empty()
                && sources.iter().all(|s| self.reading(*s) == Some(SideTable::Whole))
        };
        let is_whole = [whole(&sides.rels[0]), whole(&sides.rels[1])];
        let sides = match (is_whole, sides.kind) {
            ([false, true], JoinKind::Inner | JoinKind::Left | JoinKind::Semi | JoinKind::Anti) => sides,
            ([true, false], JoinKind::Inner) => sides.turned(JoinKind::Inner),
            ([true, false], JoinKind::Right) => sides.turned(JoinKind::Left),
            _ => return sides,
        };
        self.look_up(sides, Vec::new())
    }

    fn look_up(&mut self, sides: Sides, replaces: Vec<usize>) -> Sides {
        for source in self.sources_below(sides.rels[1].base) {
            let reading = self.reading(source);
            if let NodeKind::Source(node) = &mut self.nodes[usize::from(source.0)].kind {
                node.side = reading;
            }
        }
        let roles = [0, 1].map(|side: usize| match side {
            0 => sides.rels[0].columns.iter().map(|(_, role)| role.clone()).collect(),
            _ => vec![Role::default(); sides.rels[1].columns.len()],
        });
        let windows = sides.rels[0].windows.clone();
        let bound = Bound { domain: None, retentions: [None, None], roles, windows };
        Sides { meets: Meets::Known { replaces }, bound: Some(bound), ..sides }
    }

    fn sources_below(&self, node: OperatorId) -> BTreeSet<OperatorId> {
        let draft = &self.nodes[usize::from(node.0)];
        match &draft.kind {
            NodeKind::Source(_) => BTreeSet::from([node]),
            _ => draft.inputs.iter().flat_map(|i| self.sources_below(i.from)).collect(),
        }
    }

    /// How the table of a source is read if it is looked up; `None`: it cannot be.
    fn reading(&self, source: OperatorId) -> Option<SideTable> {
        let NodeKind::Source(node) = &self.nodes[usize::from(source.0)].kind else { return None };
        let options = &self.sources[usize::from(node.source.0)].options;
        (options.text("connector") == Some(FILES)).then(|| match options.is_true("source.monitor") {
            true => SideTable::Refreshed,
            false => SideTable::Whole,
        })
    }

    /// A join with `FOR SYSTEM_TIME AS OF`.
    pub(super) fn join_as_of(&mut self, node: &LogicalJoin, as_of: &AsOf, filter: Option<Expr>) -> Result<Rel> {
        let is_right = node.right.schema().has_column(&as_of.column);
        let kind = match (node.join_type, is_right) {
            (JoinType::Inner, _) => JoinKind::Inner,
            (JoinType::Left, true) | (JoinType::Right, false) => JoinKind::Left,
            _ => return Err(self.unsupported("FOR SYSTEM_TIME AS OF in this kind of join", WORDS)),
        };
        let (left, right) = if is_right { (&node.left, &node.right) } else { (&node.right, &node.left) };
        let left = self.lower(left)?;
        let left = self.materialise(left)?;
        let Versioned { rel: right, width, valid, key } = self.versioned(right)?;
        let on = node.on.iter().map(|(l, r)| if is_right { (l.clone(), r.clone()) } else { (r.clone(), l.clone()) });
        let mut sides = Sides {
            kind,
            rels: [left, right],
            on: on.collect(),
            filter,
            null_equal: false,
            valid,
            width: Some(width),
            order: if is_right { [0, 1] } else { [1, 0] },
            meets: Meets::All,
            bound: None,
        };
        let domain = match &as_of.time {
            time if is_plan_time(time) => Some(TimeDomain::Processing),
            Expr::Column(time) => {
                let index = sides.rels[0].schema.index_of_column(time).map_err(|e| self.failed(&e))?;
                sides.rels[0].columns[index].1.time.clone()
            }
            _ => None,
        };
        match domain {
            Some(TimeDomain::Processing) => self.check_lookup(&sides)?,
            Some(domain) => return self.at_versions(sides, as_of, &domain, &key),
            None => {
                let message = "FOR SYSTEM_TIME AS OF needs a time attribute of the other side of the join";
                return Err(Mistake::new(self.place(WORDS), message).hint(
                    "name its WATERMARK column, unchanged, for the version at that time, or a column that is PROCTIME() for the rows that are known",
                ));
            }
        }
        sides = self.look_up(sides, key);
        self.build(sides)
    }

    /// The table, with hidden columns for its key and for what its filters say of each row: they hold for the version that is valid, and choose none.
    fn versioned(&mut self, plan: &LogicalPlan) -> Result<Versioned> {
        self.in_versions = true;
        let rel = self.lower(plan);
        self.in_versions = false;
        let mut rel = rel?;
        let width = rel.columns.len();
        let mut valid = None;
        if let Some(filter) = rel.filter.take() {
            valid = Some(rel.columns.len());
            self.add_column(&mut rel, VALID, DataType::Boolean, Value::Expr(filter))?;
        }
        let mut key = Vec::new();
        for name in versions(plan).map(|v| v.key.clone()).unwrap_or_default() {
            if let Some(known) = rel.schema.fields().iter().position(|f| *f.name() == name) {
                key.push(known);
                continue;
            }
            // Nothing above the table needs it.
            let base = self.output(rel.base).schema.clone();
            let Some((index, field)) = base.column_with_name(&name) else {
                return Err(self.unsupported("this key", WORDS));
            };
            key.push(rel.columns.len());
            let value = Value::Expr(Arc::new(Column::new(&name, index)));
            self.add_column(&mut rel, &name, field.data_type().clone(), value)?;
        }
        Ok(Versioned { rel, width, valid, key })
    }

    fn check_lookup(&self, sides: &Sides) -> Result<()> {
        let [left, right] = [0, 1].map(|side: usize| sides.rels[side].base);
        let reading: Vec<Option<SideTable>> = self.sources_below(right).into_iter().map(|s| self.reading(s)).collect();
        if reading.iter().any(Option::is_none) {
            let message =
                "FOR SYSTEM_TIME AS OF a processing time looks rows up in files, and this table is not read from files";
            return Err(Mistake::new(self.place(WORDS), message).hint(
                "take an event time of the other side, with PRIMARY KEY and WATERMARK in this table, or join the table without FOR SYSTEM_TIME",
            ));
        }
        if !self.output(right).append_only {
            let message =
                "FOR SYSTEM_TIME AS OF a processing time looks up rows that stay, and those of this table change";
            return Err(Mistake::new(self.place(WORDS), message)
                .hint("join the table without FOR SYSTEM_TIME: the result follows its changes"));
        }
        if !self.output(left).append_only && reading.contains(&Some(SideTable::Refreshed)) {
            let message = "rows that are taken back would be looked up again, and may find other rows than before";
            return Err(Mistake::new(self.place(WORDS), message).hint(
                "add 'source.monitor' = 'false' to the table's options, so that it is read once, or look up before the operator that changes rows",
            ));
        }
        Ok(())
    }

    /// The version that is valid at an event time.
    fn at_versions(&mut self, mut sides: Sides, as_of: &AsOf, own: &TimeDomain, key: &[usize]) -> Result<Rel> {
        let [left, right] = &sides.rels;
        let place = self.place(WORDS);
        let time = right.schema.index_of_column(&as_of.column).map_err(|e| self.failed(&e))?;
        let Some(domain) = right.columns[time].1.time.clone().and_then(|d| common_domain(own.clone(), d)) else {
            return Err(Mistake::new(place, "the versions of a table are known by its watermark, and this one has none")
                .hint("declare WATERMARK FOR ts AS ts - INTERVAL '10' SECOND in it, ts being the time from which a row is valid"));
        };
        if key.is_empty() {
            return Err(Mistake::new(place, "the table with versions has no key by which they follow each other")
                .hint("declare PRIMARY KEY (…) NOT ENFORCED in it"));
        }
        for (side, which) in sides.rels.iter().zip(["the other side of the join", "the table with versions"]) {
            if !self.output(side.base).append_only {
                let message = format!("{which} takes rows back, and a version that was emitted is final");
                return Err(Mistake::new(place, message)
                    .hint("join the table without FOR SYSTEM_TIME: the result follows its changes"));
            }
        }
        let Expr::Column(own_time) = &as_of.time else { return Err(self.unsupported("this time", WORDS)) };
        let own_time = left.schema.index_of_column(own_time).map_err(|e| self.failed(&e))?;
        // Equalities with the key find the versions, all others are conditions on the one that is valid.
        let column_of = |expr: &Expr| match expr {
            Expr::Column(column) => right.schema.index_of_column(column).ok(),
            _ => None,
        };
        let is_key = |pair: &(Expr, Expr)| column_of(&pair.1).is_some_and(|c| key.contains(&c));
        let mut seen = BTreeSet::new();
        let (mut on, mut rest) = (Vec::new(), Vec::new());
        for pair in &sides.on {
            let first = is_key(pair) && column_of(&pair.1).is_some_and(|c| seen.insert(c));
            if first { on.push(pair.clone()) } else { rest.push(pair.0.clone().eq(pair.1.clone())) }
        }
        if let Some(missing) = key.iter().find(|c| !seen.contains(c)) {
            let named = right.schema.field(*missing).name();
            let message =
                format!("the join does not say which '{named}' it means, a column of the table's PRIMARY KEY");
            return Err(Mistake::new(place, message).hint(format!("add … = {named} to ON")));
        }
        let data_type = left.schema.field(own_time).data_type();
        if !matches!(data_type, DataType::Timestamp(..)) {
            let message = format!("the time '{}' is {}", left.schema.field(own_time).name(), types::name(data_type));
            return Err(Mistake::new(place, message));
        }
        let mut roles = [left, right].map(|rel| vec![Role::default(); rel.columns.len()]);
        roles[0][own_time].time = Some(domain.clone());
        let retentions = [Some(Retention { column: own_time, hold_ms: 0 }), None];
        sides.bound = Some(Bound { domain: Some(domain), retentions, roles, windows: None });
        sides.filter = conjunction(sides.filter.take().into_iter().chain(rest));
        sides.on = on;
        sides.meets = Meets::Version { time };
        self.build(sides)
    }
}
