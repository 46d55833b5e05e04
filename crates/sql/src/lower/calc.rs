//! Filters and projections: gathered in a [`Rel`], made a `Calc` node where needed.
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::physical_expr::expressions::Column;
use millstream_dataflow::graph::{Calc, EdgeType, Exchange, Input, NamedExpr, NodeKind, TimeDomain};
use millstream_plan::OperatorId;

use super::rel::{Part, Physical, Rel, Role, Value, and, columns_in, is_trivial, substitute};
use super::{Lowering, edge};
use crate::error::Result;
use crate::functions::is_plan_time;
use crate::versions::is_as_of;

impl Lowering<'_> {
    pub(super) fn filter(&mut self, mut rel: Rel, predicate: &Expr) -> Result<Rel> {
        // Of a join with versions, an equality of columns may have brought a copy of its time here.
        for part in split_conjunction(predicate).into_iter().filter(|part| !is_as_of(part)) {
            let physical = self.physical(part, &rel.schema)?;
            let bounds: Vec<Option<Part>> = columns_in(&physical).into_iter().map(|c| rel.window_part(c)).collect();
            if !bounds.is_empty() && bounds.iter().all(Option::is_some) {
                // Of the window alone: it can wait for the aggregation and then drop whole windows.
                let over_parts = substitute(physical, &|c| {
                    let part = rel.window_part(c).unwrap_or(Part::Start);
                    Arc::new(Column::new("window", part as usize))
                });
                let over_parts = over_parts.map_err(|e| self.failed(&e))?;
                if let Some(pending) = &mut rel.pending {
                    pending.filters.push(over_parts);
                }
                continue;
            }
            if bounds.iter().any(Option::is_some) {
                rel = self.materialise(rel)?;
            }
            let over_base = self.replaced(&rel, physical)?;
            rel.filter = Some(and(rel.filter, over_base));
        }
        Ok(rel)
    }

    pub(super) fn project(&mut self, mut rel: Rel, exprs: &[Expr], schema: &DFSchemaRef) -> Result<Rel> {
        let plain: Vec<Expr> = exprs.iter().map(|e| e.clone().unalias_nested().data).collect();
        let mut uses: BTreeMap<usize, usize> = BTreeMap::new();
        let mut mixes_window = false;
        for expr in plain.iter().filter(|e| !matches!(e, Expr::Column(_))) {
            for column in columns_in(&self.physical(expr, &rel.schema)?) {
                *uses.entry(column).or_default() += 1;
                mixes_window |= rel.window_part(column).is_some();
            }
        }
        if mixes_window {
            rel = self.materialise(rel)?;
        }
        let twice = uses.iter().any(|(column, count)| match &rel.columns[*column].0 {
            Value::Expr(e) => *count > 1 && !is_trivial(e),
            Value::Window(_) => false,
        });
        if twice {
            rel = self.settle(rel, true)?;
        }
        let mut columns = Vec::with_capacity(plain.len());
        let mut fields = Vec::with_capacity(plain.len());
        for (i, expr) in plain.iter().enumerate() {
            let (qualifier, named) = schema.qualified_field(i);
            let (value, role, field) = match expr {
                Expr::Column(column) => {
                    let index = rel.schema.index_of_column(column).map_err(|e| self.failed(&e))?;
                    let (value, role) = rel.columns[index].clone();
                    (value, role, rel.schema.field(index).as_ref().clone())
                }
                expr => {
                    let physical = self.physical(expr, &rel.schema)?;
                    let (data_type, nullable) = self.typed(&physical, rel.schema.inner())?;
                    let time = is_plan_time(expr).then_some(TimeDomain::Processing);
                    let value = Value::Expr(self.replaced(&rel, physical)?);
                    (value, Role { time, part: None }, Field::new("", data_type, nullable))
                }
            };
            columns.push((value, role));
            fields.push((qualifier.cloned(), Arc::new(field.with_name(named.name()))));
        }
        let schema = DFSchema::new_with_metadata(fields, HashMap::new()).map_err(|e| self.failed(&e))?;
        Ok(Rel { columns, schema: Arc::new(schema), ..rel })
    }

    fn typed(&self, expr: &Physical, schema: &Schema) -> Result<(arrow::datatypes::DataType, bool)> {
        let typed = expr.data_type(schema).and_then(|t| Ok((t, expr.nullable(schema)?)));
        typed.map_err(|e| self.failed(&e))
    }

    /// A logical expression over the columns of `rel`, as one over the node below. It holds no bound of a pending window.
    pub(super) fn over_base(&self, rel: &Rel, expr: &Expr) -> Result<Physical> {
        self.replaced(rel, self.physical(expr, &rel.schema)?)
    }

    fn replaced(&self, rel: &Rel, physical: Physical) -> Result<Physical> {
        let replaced = substitute(physical, &|c| match &rel.columns[c].0 {
            Value::Expr(e) => e.clone(),
            // Callers have given the rows their windows before they mix them with other columns.
            Value::Window(part) => Arc::new(Column::new("window", usize::MAX - *part as usize)),
        });
        replaced.map_err(|e| self.failed(&e))
    }

    /// Makes what has gathered a node, so that the columns (of a pending window: all but its bounds, and its time) are plain columns of
    /// the node below. Does nothing if they are already, unless `always`.
    pub(super) fn settle(&mut self, rel: Rel, always: bool) -> Result<Rel> {
        let base_schema = self.output(rel.base).schema.clone();
        let is_column = |e: &Physical| e.downcast_ref::<Column>().is_some();
        let settled = rel.filter.is_none()
            && !rel.repeats_a_column()
            && rel.columns.iter().all(|(v, _)| match v {
                Value::Expr(e) => is_column(e),
                Value::Window(_) => true,
            })
            && rel.pending.as_ref().is_none_or(|p| is_column(&p.time) && p.partition.iter().flatten().all(is_column));
        if settled && !always {
            return Ok(rel);
        }
        // Columns of the new node: each expression once.
        let mut project: Vec<NamedExpr> = Vec::new();
        let mut fields: Vec<Field> = Vec::new();
        let mut roles: Vec<Role> = Vec::new();
        let mut place = |expr: &Physical, name: &str, role: Role, this: &Self| -> Result<Physical> {
            let index = match project.iter().position(|p| p.expr.as_ref() == expr.as_ref() && p.name == name) {
                Some(index) => index,
                None => {
                    let (data_type, nullable) = this.typed(expr, &base_schema)?;
                    project.push(NamedExpr { name: name.to_owned(), expr: expr.clone() });
                    fields.push(Field::new(name, data_type, nullable));
                    roles.push(role);
                    project.len() - 1
                }
            };
            Ok(Arc::new(Column::new(name, index)))
        };
        let mut columns = Vec::with_capacity(rel.columns.len());
        for (i, (value, role)) in rel.columns.iter().enumerate() {
            let value = match value {
                Value::Expr(e) => Value::Expr(place(e, rel.schema.field(i).name(), role.clone(), self)?),
                Value::Window(part) => Value::Window(*part),
            };
            columns.push((value, role.clone()));
        }
        let mut pending = rel.pending.clone();
        if let Some(pending) = &mut pending {
            let known = rel
                .columns
                .iter()
                .position(|(v, _)| matches!(v, Value::Expr(e) if e.as_ref() == pending.time.as_ref()));
            pending.time = match known.map(|i| columns[i].0.clone()) {
                Some(Value::Expr(column)) => column,
                _ => {
                    let role = Role { time: rel.windows.clone(), part: None };
                    let name = pending.time_name.clone();
                    place(&pending.time, &name, role, self)?
                }
            };
            for (i, by) in pending.partition.iter_mut().flatten().enumerate() {
                let known =
                    rel.columns.iter().position(|(v, _)| matches!(v, Value::Expr(e) if e.as_ref() == by.as_ref()));
                *by = match known.map(|i| columns[i].0.clone()) {
                    Some(Value::Expr(column)) => column,
                    _ => place(by, &format!("partition_{i}"), Role::default(), self)?,
                };
            }
        }
        let unchanged = project.len() == base_schema.fields().len()
            && project.iter().enumerate().all(|(i, p)| {
                p.expr
                    .downcast_ref::<Column>()
                    .is_some_and(|c| c.index() == i && base_schema.field(i).name() == &p.name)
            });
        let (schema, project) = match unchanged {
            true => (base_schema, None),
            false => (Arc::new(Schema::new(fields)) as SchemaRef, Some(project)),
        };
        let base = self.calc(rel.base, rel.filter.clone(), project, schema, &roles)?;
        Ok(Rel { base, filter: None, columns, pending, ..rel })
    }

    fn calc(
        &mut self,
        from: OperatorId,
        filter: Option<Physical>,
        project: Option<Vec<NamedExpr>>,
        schema: SchemaRef,
        roles: &[Role],
    ) -> Result<OperatorId> {
        let key = self.key_after(from, project.as_deref());
        let calc = NodeKind::Calc(Calc { filter, project });
        self.push(calc, vec![Input { from, exchange: Exchange::Forward }], edge(schema, roles, key))
    }

    /// The key of `from`'s rows after a projection that keeps its columns.
    fn key_after(&self, from: OperatorId, project: Option<&[NamedExpr]>) -> Option<Vec<usize>> {
        let key = self.output(from).key.clone()?;
        let Some(project) = project else { return Some(key) };
        let position =
            |k: &usize| project.iter().position(|p| p.expr.downcast_ref::<Column>().is_some_and(|c| c.index() == *k));
        key.iter().map(position).collect()
    }

    /// Makes everything a node whose columns are exactly those of `rel`.
    pub(super) fn finish(&mut self, rel: Rel) -> Result<(OperatorId, EdgeType)> {
        let schema = rel.schema.inner().clone();
        let id = self.finish_as(rel, &schema)?;
        Ok((id, self.output(id).clone()))
    }

    /// The same with the names and nullability of `schema`.
    pub(super) fn finish_as(&mut self, rel: Rel, schema: &SchemaRef) -> Result<OperatorId> {
        let rel = match rel.pending {
            Some(_) => self.materialise(rel)?,
            None => rel,
        };
        let below = self.output(rel.base).schema.clone();
        let roles: Vec<Role> = rel.columns.iter().map(|(_, role)| role.clone()).collect();
        let same_fields = below.fields() == schema.fields();
        if rel.is_plain(below.fields().len()) && same_fields {
            return Ok(rel.base);
        }
        let only_filters = same_fields && rel.is_prefix() && rel.columns.len() == below.fields().len();
        let project = rel.columns.iter().zip(schema.fields()).map(|((value, _), field)| match value {
            Value::Expr(expr) => Ok(NamedExpr { name: field.name().clone(), expr: expr.clone() }),
            Value::Window(_) => Err(self.unsupported("this window", &[])),
        });
        let project = if only_filters { None } else { Some(project.collect::<Result<Vec<_>>>()?) };
        self.calc(rel.base, rel.filter, project, schema.clone(), &roles)
    }
}
