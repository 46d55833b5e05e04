//! Tables that are read: one source per table, with the columns that any query uses.
use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema};
use arrow::row::{RowConverter, SortField};
use datafusion::common::DFSchema;
use datafusion::logical_expr::TableScan;
use datafusion::physical_expr::expressions::Column;
use millstream_connectors::{MetadataColumn, Reads, SourceSpec};
use millstream_dataflow::graph::{
    EdgeType, Exchange, FilterValues, Input, Keyed, KeyedInput, NamedExpr, NodeKind, SourceFilter, SourceNode,
    TimeDomain, WatermarkNode,
};
use millstream_formats::{Accept, FormatOptions, PreFilter, upsert_schema};
use millstream_plan::{OperatorId, SourceId};

use super::rel::{Physical, Rel, Role, Value};
use super::{Lowering, edge, plain};
use crate::error::{Mistake, Result};
use crate::table::{ColumnOrigin, StreamTable, Table};
use crate::types;
use crate::uses::TableUse;

impl Lowering<'_> {
    pub(super) fn scan(&mut self, scan: &TableScan) -> Result<Rel> {
        let Some(source) = scan.source.downcast_ref::<StreamTable>() else {
            return Err(self.unsupported("this table", &[]));
        };
        let table = source.table.clone();
        let uses = self.uses;
        let Some(used) = uses.get(&table.name.text) else { return Err(self.unsupported("this table", &[])) };
        let (base, id) = self.source(&table, used)?;
        let schema = self.output(base).schema.clone();
        // Columns of the source in the order of the scan.
        let wanted: Vec<usize> = match &scan.projection {
            Some(projection) => projection.clone(),
            None => (0..table.columns.len()).collect(),
        };
        let mut columns = Vec::new();
        let mut fields = Vec::new();
        for (i, column) in wanted.iter().enumerate() {
            let Some(index) = used.columns.keys().position(|c| c == column) else {
                return Err(self.unsupported("this column", &[]));
            };
            let expr: Physical = Arc::new(Column::new(schema.field(index).name(), index));
            columns.push((Value::Expr(expr), role(&table, *column, id)));
            fields.push((scan.projected_schema.qualified_field(i).0.cloned(), Arc::new(schema.field(index).clone())));
        }
        let names = DFSchema::new_with_metadata(fields, HashMap::new()).map_err(|e| self.failed(&e))?;
        Ok(Rel { columns, ..plain(base, Arc::new(names), Vec::new(), None) })
    }

    fn source(&mut self, table: &Arc<Table>, used: &TableUse) -> Result<(OperatorId, SourceId)> {
        if let Some(known) = self.by_table.get(&table.name.text) {
            return Ok(*known);
        }
        let id = SourceId(self.sources.len() as u16);
        let base = used.base_needs(self.catalog, table).map_err(|e| self.failed(&e))?;
        let options = table.source_options()?;
        // Decoded columns first, then metadata, as every batch has them.
        let mut decoded: Vec<FieldRef> = Vec::new();
        let mut metadata: Vec<(FieldRef, String)> = Vec::new();
        for (index, need) in &base {
            let field = table.base.field(*index);
            if *index < table.physical {
                let pruned = need.paths.prune(field.data_type());
                decoded.push(Arc::new(field.as_ref().clone().with_data_type(pruned)));
            } else {
                metadata.push((field.clone(), metadata_key(table, *index)?));
            }
        }
        if decoded.is_empty() && metadata.is_empty() && table.physical > 0 {
            // A row without columns could not be told from none: the first column is as good as any.
            decoded.push(table.base.field(0).clone());
        }
        let names = decoded.iter().chain(metadata.iter().map(|(f, _)| f)).map(|f| (None, f.clone())).collect();
        let names = DFSchema::new_with_metadata(names, HashMap::new()).map_err(|e| self.failed(&e))?;
        let mut columns = Vec::new();
        let mut fields: Vec<Field> = Vec::new();
        let mut roles = Vec::new();
        for index in used.columns.keys() {
            let column = &table.columns[*index];
            let expr = used.expr(self.catalog, table, *index).map_err(|e| self.failed(&e))?;
            let expr = self.physical(&expr, &names)?;
            let data_type = expr.data_type(names.as_arrow()).map_err(|e| self.failed(&e))?;
            let nullable = expr.nullable(names.as_arrow()).map_err(|e| self.failed(&e))?;
            fields.push(Field::new(column.field.name(), data_type, nullable));
            columns.push(NamedExpr { name: column.field.name().clone(), expr });
            roles.push(role(table, *index, id));
        }
        // A table that changes by other means than its records gives changes as they are.
        let changing = self.catalog.changing.get(&table.name.text);
        let reads = if changing.is_some() { Reads::Changes } else { table.reads() };
        let key = if reads == Reads::Upserts { self.upsert_key(table)? } else { Vec::new() };
        let only_new = !key.is_empty() && used.is_versions(table);
        let decoded = Arc::new(Schema::new(decoded));
        let prefilter = used
            .prefilter(table)
            .map(|(index, values)| SourceFilter { column: table.base.field(index).name().clone(), values });
        let idle = options.duration("watermark.idle-timeout").map(|d| d.as_millis() as u64).or(self.idle_timeout_ms);
        let watermark = match (&table.watermark, used.watermark) {
            (Some(watermark), true) => Some(WatermarkNode {
                column: used.columns.keys().position(|c| *c == watermark.column).unwrap_or_default(),
                expr: self.physical(&watermark.expr, &names)?,
                idle_timeout_ms: idle,
            }),
            _ => None,
        };
        let mut format = format_of(table, &options)?;
        if let Some(format) = &mut format {
            format.debezium.key.clone_from(&key);
        }
        // A record must have its key.
        let strict = decoded.fields().iter().map(|f| match key.contains(f.name()) {
            true => Arc::new(f.as_ref().clone().with_nullable(false)),
            false => f.clone(),
        });
        let spec = SourceSpec {
            id,
            table: table.name.text.clone(),
            pipeline: self.pipeline.to_owned(),
            options,
            format,
            schema: Arc::new(Schema::new(strict.collect::<Vec<_>>())),
            metadata: metadata
                .iter()
                .map(|(field, key)| MetadataColumn { field: field.clone(), key: key.clone() })
                .collect(),
            prefilter: prefilter.as_ref().map(accept),
            key: key.clone(),
            parallelism: self.parallelism,
        };
        let decoded = if key.is_empty() { decoded } else { upsert_schema(&decoded, &key) };
        let node = SourceNode {
            source: id,
            table: table.name.text.clone(),
            decoded,
            metadata,
            prefilter,
            columns,
            watermark,
            side: None,
            only_new,
        };
        let mut output = edge(Arc::new(Schema::new(fields)), &roles, None);
        output.append_only = reads == Reads::Appended || only_new;
        if let Some(key) = changing {
            let position = |name: &String| output.schema.index_of(name).ok();
            output.key = key.iter().map(position).collect::<Option<Vec<_>>>().filter(|k| !k.is_empty());
        }
        let source = NodeKind::Source(Box::new(node));
        let node = match key.is_empty() || only_new {
            true => self.push(source, Vec::new(), output)?,
            false => {
                let upserts = EdgeType { schema: upsert_schema(&output.schema, &key), ..output.clone() };
                let from = self.push(source, Vec::new(), upserts)?;
                let keys = key.iter().filter_map(|k| output.schema.index_of(k).ok()).collect();
                self.keyed(from, KeyedInput::Upserts, &table.name.text, keys, output)?
            }
        };
        self.sources.push(spec);
        self.by_table.insert(table.name.text.clone(), (node, id));
        Ok((node, id))
    }
}

impl Lowering<'_> {
    /// Names of the key's columns of a table of upserts.
    fn upsert_key(&self, table: &Table) -> Result<Vec<String>> {
        let name = |i: &usize| match &table.columns[*i].origin {
            ColumnOrigin::Physical(base) => Ok(table.base.field(*base).name().clone()),
            ColumnOrigin::Metadata { .. } | ColumnOrigin::Computed { .. } => {
                let column = &table.columns[*i];
                let message =
                    format!("PRIMARY KEY holds '{}', which is not a field of the record", column.field.name());
                Err(Mistake::new(column.at, message).hint("a table that is read by key has its key in its records"))
            }
        };
        table.primary_key.iter().map(name).collect()
    }

    /// The one row of each key of `from`, in the task that owns the key.
    pub(super) fn keyed(
        &mut self,
        from: OperatorId,
        input: KeyedInput,
        table: &str,
        keys: Vec<usize>,
        output: EdgeType,
    ) -> Result<OperatorId> {
        let unfit = |f: &&FieldRef| !RowConverter::supports_fields(&[SortField::new(f.data_type().clone())]);
        if let Some(field) = output.schema.fields().iter().find(unfit) {
            let place = self.place(&[field.name().as_str(), table]);
            let what = format!("column '{}' of table '{table}', whose rows have a key, is", field.name());
            return Err(Mistake::new(
                place,
                format!("{what} {}, which cannot be kept", types::name(field.data_type())),
            )
            .hint("CAST it to STRING, or leave it out"));
        }
        let output = EdgeType { append_only: false, key: Some(keys.clone()), ..output };
        let exchange = Exchange::Hash { columns: keys.clone() };
        let spec = Arc::new(Keyed { table: table.to_owned(), keys, input });
        self.push(NodeKind::Keyed(spec), vec![Input { from, exchange }], output)
    }
}

/// The format of a table's records, with the names of all its physical columns.
pub(crate) fn format_of(table: &Table, options: &millstream_plan::options::Resolved) -> Result<Option<FormatOptions>> {
    if !table.connector.has_format {
        return Ok(None);
    }
    let Some(mut format) = FormatOptions::from_resolved(options).map_err(|e| table.option_mistake(&e))? else {
        let message = format!("table '{}' has no format", table.name.text);
        return Err(Mistake::new(table.name.at, message).hint("add 'format' = 'json' (or csv, parquet, raw) to WITH"));
    };
    format.columns = table.base.fields()[..table.physical].iter().map(|f| f.name().clone()).collect();
    Ok(Some(format))
}

fn accept(filter: &SourceFilter) -> PreFilter {
    let accept = match &filter.values {
        FilterValues::Int(values) => Accept::Int(values.clone()),
        FilterValues::Text(values) => Accept::Text(values.clone()),
    };
    PreFilter { column: filter.column.clone(), accept }
}

fn metadata_key(table: &Table, base: usize) -> Result<String> {
    let key = table.columns.iter().find_map(|c| match &c.origin {
        ColumnOrigin::Metadata { base: b, key, .. } if *b == base => Some(key),
        _ => None,
    });
    let Some(key) = key else { return Err(Mistake::new(table.name.at, "a metadata column has no key")) };
    if table.connector.source_metadata.iter().any(|(k, _)| *k == key.text) {
        return Ok(key.text.clone());
    }
    Err(Mistake::new(
        key.at,
        format!("metadata '{}' of connector '{}' can only be written", key.text, table.connector.name),
    ))
}

fn role(table: &Table, column: usize, id: SourceId) -> Role {
    let time = match &table.columns[column].origin {
        ColumnOrigin::Computed { is_plan_time: true, .. } => Some(TimeDomain::Processing),
        _ if table.watermark.as_ref().is_some_and(|w| w.column == column) => Some(TimeDomain::Event(vec![id])),
        _ => None,
    };
    Role { time, part: None }
}
