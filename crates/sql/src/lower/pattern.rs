//! `MATCH_RECOGNIZE`.
use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema};
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, SortExpr};
use millstream_dataflow::graph::{
    Exchange, Formula, Input, NodeKind, PatternVariable, Place, RowPattern, Slot, TimeDomain,
};

use super::aggregate::input_names;
use super::over::clock;
use super::rel::{Rel, Role};
use super::{Lowering, edge, plain};
use crate::error::{Mistake, Result};
use crate::pattern::{MatchRecognize, SlotDef, SlotValue};

impl Lowering<'_> {
    pub(super) fn row_pattern(&mut self, node: &MatchRecognize) -> Result<Rel> {
        let search = &node.search;
        let rel = self.lower(&node.input)?;
        let mut order = vec![SortExpr::new(node.time.clone(), true, false)];
        order.extend(node.then.iter().cloned());
        let (rel, mut rows) = self.ordered(rel, &node.partition, &order, "MATCH_RECOGNIZE")?;
        rows.close = None;
        if !rows.append_only {
            return Err(Mistake::new(
                self.place(&["MATCH_RECOGNIZE"]),
                "MATCH_RECOGNIZE takes only appended rows, but its input changes rows that were there",
            )
            .hint("search the table itself, or the result of a window: GROUP BY window_start, window_end"));
        }
        let Some(domain) = clock(&rel, &rows) else {
            let message = format!("'{}' is not a time attribute here, so no row would ever be searched", node.time);
            return Err(Mistake::new(search.order_at, message).hint(
                "order by a column for which its table declares WATERMARK FOR, selected unchanged and not in PARTITION BY",
            ));
        };
        let input = rows.input.clone();
        let names = input_names(&rel, &input).map_err(|e| self.failed(&e))?;
        let arguments = node.arguments.iter().map(|e| self.physical(e, &names)).collect::<Result<Vec<_>>>()?;
        let slots = search.slots.iter().map(|slot| {
            let variable = slot.variable;
            Ok(match slot.value {
                SlotValue::Row { place, back, argument } => Slot::Row { variable, place, back, argument },
                SlotValue::Aggregate(index) => {
                    Slot::Aggregate { variable, call: self.call(&node.aggregates[index], &names, &input)? }
                }
            })
        });
        let slots = slots.collect::<Result<Vec<_>>>()?;
        let variables = search.variables.iter().enumerate().map(|(i, variable)| {
            let parts = variable.condition.iter().flat_map(split_conjunction);
            let (local, running): (Vec<&Expr>, Vec<&Expr>) = parts.partition(|e| is_local(e, i, &search.slots));
            let both = |parts: Vec<&Expr>| {
                let joined = parts.into_iter().cloned().reduce(Expr::and);
                joined.map(|e| self.formula(&e, &search.slots)).transpose()
            };
            let (name, text) = (variable.name.clone(), variable.text.clone());
            Ok(PatternVariable { name, local: both(local)?, running: both(running)?, text })
        });
        let variables = variables.collect::<Result<Vec<_>>>()?;
        let measures = search.measures.iter().map(|(name, e)| Ok((name.clone(), self.formula(e, &search.slots)?)));
        let measures = measures.collect::<Result<Vec<_>>>()?;
        let (schema, roles) = self.matches(node, &rows.input, &rows.partition, &domain)?;
        let exchange = Exchange::Hash { columns: rows.partition.clone() };
        let spec = RowPattern {
            rows,
            domain,
            variables,
            pattern: search.pattern.clone(),
            skip: search.skip,
            within_ms: search.within_ms,
            arguments,
            slots,
            measures,
            text: search.text.clone(),
        };
        let output = edge(schema.inner().clone(), &roles, None);
        let inputs = vec![Input { from: rel.base, exchange }];
        let base = self.push(NodeKind::RowPattern(Arc::new(spec)), inputs, output)?;
        Ok(plain(base, schema, roles, None))
    }

    /// Columns of the result, and what they mean.
    fn matches(
        &self,
        node: &MatchRecognize,
        input: &Schema,
        partition: &[usize],
        domain: &TimeDomain,
    ) -> Result<(DFSchemaRef, Vec<Role>)> {
        let mut fields: Vec<(Option<_>, FieldRef)> = Vec::new();
        let mut roles = vec![Role::default(); partition.len()];
        for (i, column) in partition.iter().enumerate() {
            let from = input.field(*column);
            let name = node_field(node, i).name();
            fields.push((None, Arc::new(Field::new(name, from.data_type().clone(), from.is_nullable()))));
        }
        for measure in 0..node.search.measures.len() {
            fields.push((None, node_field(node, partition.len() + measure).clone()));
            let time = node.search.delay_ms().filter(|_| node.is_row_time(measure)).map(|delay| match delay {
                0 => domain.clone(),
                delay => TimeDomain::Delayed(Box::new(domain.clone()), delay),
            });
            roles.push(Role { time, part: None });
        }
        let schema = DFSchema::new_with_metadata(fields, HashMap::new()).map_err(|e| self.failed(&e))?;
        Ok((Arc::new(schema), roles))
    }

    /// An expression over slots, as one over those that it names.
    fn formula(&self, expr: &Expr, all: &[SlotDef]) -> Result<Formula> {
        let named = expr.column_refs();
        let slots: Vec<usize> =
            (0..all.len()).filter(|i| named.iter().any(|c| c.name == *all[*i].field.name())).collect();
        let fields = slots.iter().map(|i| (None, all[*i].field.clone())).collect();
        let schema = DFSchema::new_with_metadata(fields, HashMap::new()).map_err(|e| self.failed(&e))?;
        let expr = self.physical(expr, &schema)?;
        Ok(Formula { expr, slots, schema: schema.inner().clone() })
    }
}

fn node_field(node: &MatchRecognize, i: usize) -> &FieldRef {
    use datafusion::logical_expr::UserDefinedLogicalNodeCore as _;
    &node.schema().fields()[i]
}

/// True if a condition of `variable` looks at the row that is to be mapped and those before it, whatever has been matched.
fn is_local(expr: &Expr, variable: usize, slots: &[SlotDef]) -> bool {
    expr.column_refs().iter().all(|column| {
        slots.iter().filter(|s| *s.field.name() == column.name).all(|slot| {
            let of_row = matches!(slot.value, SlotValue::Row { place: Place::Last(0), .. });
            of_row && slot.variable.is_none_or(|v| v == variable)
        })
    })
}
