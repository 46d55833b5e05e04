//! INTERSECT and EXCEPT: both inputs go to the task that owns the row.
use std::collections::HashMap;
use std::sync::Arc;

use arrow::row::{RowConverter, SortField};
use datafusion::common::{DFSchema, DFSchemaRef};
use millstream_dataflow::graph::{Exchange, Input, NodeKind, SetKind, SetOperation, TimeDomain};

use super::rel::{Rel, Role};
use super::{Lowering, common_role, edge, mismatch, plain};
use crate::error::{Mistake, Result};
use crate::set::SetNode;
use crate::types;

impl Lowering<'_> {
    pub(super) fn set_operation(&mut self, node: &SetNode) -> Result<Rel> {
        let words: &[&str] = match node.kind {
            SetKind::Intersect => &["INTERSECT"],
            SetKind::Except => &["EXCEPT", "MINUS"],
        };
        let mut rels = Vec::new();
        for input in [&node.left, &node.right] {
            let rel = self.lower(input)?;
            rels.push(self.materialise(rel)?);
        }
        let right_nullable = |i: usize| rels[1].schema.field(i).is_nullable();
        let fields = rels[0].schema.iter().enumerate().map(|(i, (qualifier, field))| {
            let nullable = field.is_nullable() || right_nullable(i);
            (qualifier.cloned(), Arc::new(field.as_ref().clone().with_nullable(nullable)))
        });
        let schema = DFSchema::new_with_metadata(fields.collect(), HashMap::new()).map_err(|e| self.failed(&e))?;
        if let Some((i, odd)) = mismatch(&schema, &rels[1].schema) {
            let own = types::name(schema.field(i).data_type());
            let message = format!("column {} of {} is {own} here and {odd} there", i + 1, words[0]);
            return Err(Mistake::new(self.place(words), message).hint("CAST one of them"));
        }
        let unfit = |f: &&Arc<arrow::datatypes::Field>| {
            !RowConverter::supports_fields(&[SortField::new(f.data_type().clone())])
        };
        if let Some(field) = schema.fields().iter().find(unfit) {
            let name = types::name(field.data_type());
            return Err(self.unsupported(&format!("{} of values of type {name}", words[0]), words));
        }
        let roles: Vec<Role> = (0..schema.fields().len())
            .map(|i| common_role(rels[0].columns[i].1.clone(), rels[1].columns[i].1.clone()))
            .collect();
        let windows = rels.iter().map(|r| r.windows.clone()).reduce(|a, b| super::common_domain(a?, b?)).flatten();
        let flat = schema.fields().iter().enumerate().filter(|(_, f)| !f.data_type().is_nested());
        let columns: Vec<usize> = flat.map(|(i, _)| i).collect();
        let mut inputs = Vec::new();
        for rel in rels {
            let from = self.finish_as(rel, schema.inner())?;
            inputs.push(Input { from, exchange: Exchange::Hash { columns: columns.clone() } });
        }
        let grow_only = inputs.iter().all(|i| self.output(i.from).append_only);
        let closes = |(i, role): (usize, &Role)| Some((i, role.time.clone().filter(|d| self.has_watermark(d))?));
        let bound = roles.iter().enumerate().find_map(closes).filter(|_| grow_only);
        let append_only = grow_only && node.kind == SetKind::Intersect;
        let key = (!node.all).then(|| (0..roles.len()).collect());
        let schema: DFSchemaRef = Arc::new(schema);
        let roles = if append_only { roles } else { vec![Role::default(); roles.len()] };
        let mut output = edge(schema.inner().clone(), &roles, key);
        output.append_only = append_only;
        let spec = SetOperation { kind: node.kind, all: node.all, bound };
        let base = self.push(NodeKind::Set(spec), inputs, output)?;
        Ok(plain(base, schema, roles, windows.filter(|_| append_only)))
    }

    /// True if the time gets on: its tables have watermarks that are kept.
    fn has_watermark(&self, domain: &TimeDomain) -> bool {
        match domain.clock().0 {
            TimeDomain::Event(sources) => self.nodes.iter().all(|n| match &n.kind {
                NodeKind::Source(source) => !sources.contains(&source.source) || source.watermark.is_some(),
                _ => true,
            }),
            _ => true,
        }
    }
}
