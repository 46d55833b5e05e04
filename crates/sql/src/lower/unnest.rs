//! UNNEST: lists become rows.
use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::DFSchema;
use datafusion::logical_expr::Unnest as LogicalUnnest;
use millstream_dataflow::graph::{Exchange, Input, NodeKind, Unnest};

use super::rel::{Rel, Role};
use super::{Lowering, edge, plain};
use crate::error::{Mistake, Result};
use crate::types;

const WORDS: &[&str] = &["UNNEST", "EXPLODE"];

impl Lowering<'_> {
    pub(super) fn unnest(&mut self, node: &LogicalUnnest) -> Result<Rel> {
        let rel = self.lower(&node.input)?;
        let rel = self.materialise(rel)?;
        if !node.struct_type_columns.is_empty() {
            return Err(Mistake::new(self.place(WORDS), "UNNEST takes arrays, and this is a ROW")
                .hint("select its fields by name"));
        }
        let is_deep = node.list_type_columns.iter().any(|(_, list)| list.depth != 1);
        if is_deep || node.dependency_indices.len() != rel.columns.len() {
            return Err(Mistake::new(self.place(WORDS), "an array of arrays takes a step for each")
                .hint("write UNNEST in a subquery, and UNNEST of its elements around it"));
        }
        let lists: Vec<usize> = node.list_type_columns.iter().map(|(list, _)| *list).collect();
        let mut fields: Vec<Field> = rel.schema.fields().iter().map(|f| f.as_ref().clone()).collect();
        for list in &lists {
            let DataType::List(element) = fields[*list].data_type() else {
                let message = format!("UNNEST takes arrays, and this is {}", types::name(fields[*list].data_type()));
                return Err(Mistake::new(self.place(WORDS), message));
            };
            fields[*list] = Field::new(fields[*list].name(), element.data_type().clone(), true);
        }
        let mut roles: Vec<Role> = rel.columns.iter().map(|(_, role)| role.clone()).collect();
        lists.iter().for_each(|list| roles[*list] = Role::default());
        let windows = rel.windows.clone();
        let named = node.schema.iter().zip(&fields);
        let named = named.map(|((q, name), f)| (q.cloned(), Arc::new(f.clone().with_name(name.name()))));
        let schema = DFSchema::new_with_metadata(named.collect(), HashMap::new()).map_err(|e| self.failed(&e))?;
        let (from, _) = self.finish(rel)?;
        let output = edge(Arc::new(Schema::new(fields)), &roles, None);
        let unnest = Unnest { lists, keeps_empty: node.options.preserve_nulls };
        let input = vec![Input { from, exchange: Exchange::Forward }];
        let base = self.push(NodeKind::Unnest(unnest), input, output)?;
        Ok(plain(base, Arc::new(schema), roles, windows))
    }
}
