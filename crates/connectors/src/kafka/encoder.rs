//! Rows into records.
//!
//! *Appending* sinks write one record per row, in order. *Upsert* sinks write at most one record per key and epoch: the rows of an
//! epoch are added up per key (an update is −old, +new), a key whose rows are all gone becomes a tombstone, and a key with two live
//! rows is an error, since one of them would silently win. Keys come out in the order in which the epoch first touched them.
//!
//! *Changelog* sinks (of a format that holds changes) write what is left of an epoch's rows when they are added up: per key, in the same order,
//! first the rows that go, then those that come. Without a key each row is its own.
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray, Int32Array, Int64Array, StringArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type, Schema, TimeUnit, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use millstream_formats::debezium::wrap;
use millstream_formats::{Encoder, FormatKind, FormatOptions, encoder};
use millstream_plan::EpochPlan;

use super::Writes;
use crate::{ConnectorError, EncodedEpoch, KafkaRecord, Payload, SinkEncoder, SinkSpec};

/// Accounted per record beside its bytes.
const RECORD_BYTES: u64 = size_of::<KafkaRecord>() as u64;

/// The encoder of a Kafka sink.
pub(super) struct KafkaEncoder {
    table: String,
    value: Part,
    key: Key,
    topic: Option<usize>,
    partition: Option<usize>,
    timestamp: Option<usize>,
    headers: Option<usize>,
    output: Output,
}

/// Columns that are encoded together.
struct Part {
    columns: Vec<usize>,
    encoder: Box<dyn Encoder>,
    schema: Arc<Schema>,
    /// In a raw format a null is not an empty value but none.
    raw: bool,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

enum Key {
    None,
    /// The bytes of a column.
    Column(usize),
    Fields(Part),
}

enum Output {
    Append(Vec<KafkaRecord>),
    Upsert(ByKey),
    Changelog { changes: ByKey, omit_nulls: bool },
}

impl KafkaEncoder {
    pub(super) fn new(spec: &SinkSpec, format: &FormatOptions, writes: Writes) -> Result<Self, ConnectorError> {
        let metadata = |key: &str| spec.metadata.iter().find(|(_, k)| k == key).map(|(column, _)| *column);
        if let Some((column, key)) = spec.metadata.iter().find(|(_, k)| !super::SINK_METADATA.contains(&k.as_str())) {
            return Err(ConnectorError::user(
                format!(
                    "column '{}': kafka records have no '{key}' that could be written",
                    spec.schema.field(*column).name()
                ),
                "there are key, headers, timestamp, topic and partition",
            ));
        }
        let key_fields = key_fields(spec, writes)?;
        // Of a change the row is encoded; what goes around it is known when the epoch ends.
        let format = &match writes {
            Writes::Changelog => FormatOptions { kind: FormatKind::Json, ..format.clone() },
            Writes::Append | Writes::Upsert => format.clone(),
        };
        let key = match (metadata("key"), key_fields.is_empty()) {
            (Some(_), false) => {
                return Err(ConnectorError::user(
                    format!("table '{}': the key is given twice", spec.table),
                    "have either a `key` metadata column, or 'key.fields' or a PRIMARY KEY",
                ));
            }
            (Some(column), true) => Key::Column(column),
            (None, true) => Key::None,
            (None, false) => Key::Fields(key_part(spec, format, &key_fields)?),
        };
        let except_key =
            spec.options.text("value.fields-include").is_some_and(|v| v.eq_ignore_ascii_case("EXCEPT_KEY"));
        let value_columns = (0..spec.schema.fields().len())
            .filter(|c| !(spec.metadata.iter().any(|(m, _)| m == c) || except_key && key_fields.contains(c)))
            .collect();
        Ok(Self {
            table: spec.table.clone(),
            value: Part::new(spec, value_columns, format, "")?,
            key,
            topic: metadata("topic"),
            partition: metadata("partition"),
            timestamp: metadata("timestamp"),
            headers: metadata("headers"),
            output: match writes {
                Writes::Append => Output::Append(Vec::new()),
                Writes::Upsert => Output::Upsert(ByKey::default()),
                Writes::Changelog => {
                    Output::Changelog { changes: ByKey::default(), omit_nulls: format.json.omit_nulls }
                }
            },
        })
    }

    /// The records of these rows.
    fn records(&mut self, rows: &RecordBatch) -> Result<Vec<KafkaRecord>, ConnectorError> {
        let values = self.value.encode(&self.table, rows)?;
        let keys = match &mut self.key {
            Key::None => vec![None; rows.num_rows()],
            Key::Fields(part) => part.encode(&self.table, rows)?,
            Key::Column(column) => {
                let keys = column_as(&self.table, rows, *column, &DataType::Binary)?;
                keys.as_binary::<i32>().iter().map(|k| k.map(<[u8]>::to_vec)).collect()
            }
        };
        let mut records: Vec<KafkaRecord> = keys
            .into_iter()
            .zip(values)
            .map(|(key, value)| KafkaRecord { key, value, ..KafkaRecord::default() })
            .collect();
        if let Some(column) = self.topic {
            let topics = column_as(&self.table, rows, column, &DataType::Utf8)?;
            for (record, topic) in records.iter_mut().zip(topics.as_string::<i32>()) {
                record.topic = topic.map(str::to_owned);
            }
        }
        if let Some(column) = self.partition {
            let partitions = column_as(&self.table, rows, column, &DataType::Int32)?;
            let partitions: &Int32Array = partitions.as_primitive::<Int32Type>();
            for (record, partition) in records.iter_mut().zip(partitions) {
                record.partition = partition;
            }
        }
        if let Some(column) = self.timestamp {
            let data_type = rows.schema_ref().field(column).data_type().clone();
            if data_type.is_integer() {
                let times = column_as(&self.table, rows, column, &DataType::Int64)?;
                let times: &Int64Array = times.as_primitive::<Int64Type>();
                records.iter_mut().zip(times).for_each(|(r, t)| r.timestamp_ms = t);
            } else {
                let times = column_as(&self.table, rows, column, &DataType::Timestamp(TimeUnit::Millisecond, None))?;
                let times = times.as_primitive::<TimestampMillisecondType>();
                records.iter_mut().zip(times).for_each(|(r, t)| r.timestamp_ms = t);
            }
        }
        if let Some(column) = self.headers {
            add_headers(&self.table, rows, column, &mut records)?;
        }
        Ok(records)
    }
}

impl SinkEncoder for KafkaEncoder {
    fn encode(&mut self, rows: &RecordBatch, weights: Option<&Int64Array>) -> Result<(), ConnectorError> {
        let records = self.records(rows)?;
        let weight = |i: usize| weights.map_or(1, |w| w.value(i));
        match &mut self.output {
            Output::Upsert(upserts) => {
                if records.iter().any(|r| r.key.is_none()) {
                    return Err(ConnectorError::user(
                        format!("table '{}': a row has no key", self.table),
                        "filter rows whose key is null, or choose another PRIMARY KEY",
                    ));
                }
                records.into_iter().enumerate().for_each(|(i, r)| upserts.add(r, weight(i)));
                Ok(())
            }
            Output::Changelog { changes, .. } => {
                records.into_iter().enumerate().for_each(|(i, r)| changes.add(r, weight(i)));
                Ok(())
            }
            Output::Append(list) if weights.is_none() => {
                list.extend(records);
                Ok(())
            }
            Output::Append(list) => {
                for (i, record) in records.into_iter().enumerate() {
                    if weight(i) < 0 {
                        return Err(ConnectorError::user(
                            format!(
                                "table '{}' only takes new rows, but the query changes rows it has written",
                                self.table
                            ),
                            "add PRIMARY KEY (…) NOT ENFORCED to the table to keep one record per key",
                        ));
                    }
                    for _ in 1..weight(i) {
                        list.push(record.clone());
                    }
                    if weight(i) > 0 {
                        list.push(record);
                    }
                }
                Ok(())
            }
        }
    }

    fn end_epoch(&mut self, plan: &EpochPlan) -> Result<EncodedEpoch, ConnectorError> {
        let records = match &mut self.output {
            Output::Append(list) => std::mem::take(list),
            Output::Upsert(upserts) => std::mem::take(upserts).upserts(&self.table)?,
            Output::Changelog { changes, omit_nulls } => std::mem::take(changes).changes(*omit_nulls),
        };
        let bytes = records.iter().map(|r| RECORD_BYTES + (len(r.key.as_ref()) + len(r.value.as_ref())) as u64).sum();
        let rows = records.len() as u64;
        let payload = if records.is_empty() { Payload::Empty } else { Payload::Kafka(records) };
        Ok(EncodedEpoch { epoch: plan.epoch, rows, bytes, payload })
    }
}

fn len(bytes: Option<&Vec<u8>>) -> usize {
    bytes.map_or(0, Vec::len)
}

/// Columns of the key: `key.fields`, or the PRIMARY KEY.
fn key_fields(spec: &SinkSpec, writes: Writes) -> Result<Vec<usize>, ConnectorError> {
    let named = match spec.options.text("key.fields") {
        None => return Ok(spec.primary_key.clone()),
        Some(list) => list
            .split([';', ','])
            .map(str::trim)
            .filter(|n| !n.is_empty())
            .map(|name| {
                spec.schema.index_of(name).map_err(|_| {
                    let names: Vec<&str> = spec.schema.fields().iter().map(|f| f.name().as_str()).collect();
                    ConnectorError::user(
                        format!("'key.fields': table '{}' has no column '{name}'", spec.table),
                        format!("its columns are {}", names.join(", ")),
                    )
                })
            })
            .collect::<Result<Vec<_>, _>>()?,
    };
    let (mut a, mut b) = (named.clone(), spec.primary_key.clone());
    a.sort_unstable();
    b.sort_unstable();
    if (writes == Writes::Upsert || !b.is_empty()) && a != b {
        return Err(ConnectorError::user(
            format!("table '{}': 'key.fields' and PRIMARY KEY differ", spec.table),
            "take 'key.fields' away; the key of the records is the PRIMARY KEY",
        ));
    }
    Ok(named)
}

fn key_part(spec: &SinkSpec, value_format: &FormatOptions, columns: &[usize]) -> Result<Part, ConnectorError> {
    let format = match spec.options.text("key.format").and_then(FormatKind::from_name) {
        Some(kind) => FormatOptions::new(kind),
        None => value_format.clone(),
    };
    let prefix = spec.options.text("key.fields-prefix").unwrap_or("");
    Part::new(spec, columns.to_vec(), &format, prefix)
}

impl Part {
    fn new(spec: &SinkSpec, columns: Vec<usize>, format: &FormatOptions, prefix: &str) -> Result<Self, ConnectorError> {
        let fields: Vec<_> = columns
            .iter()
            .map(|c| {
                let field = spec.schema.field(*c);
                let name = field.name();
                Arc::new(field.clone().with_name(name.strip_prefix(prefix).unwrap_or(name)))
            })
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let mut format = format.clone();
        format.columns.clear();
        let encoder = encoder(&schema, &format).map_err(|e| {
            ConnectorError::user(format!("table '{}': {e}", spec.table), "choose another 'format' or 'key.format'")
        })?;
        let raw = format.kind == FormatKind::Raw && columns.len() == 1;
        Ok(Self { columns, encoder, schema, raw, bytes: Vec::new(), ends: Vec::new() })
    }

    fn encode(&mut self, table: &str, rows: &RecordBatch) -> Result<Vec<Option<Vec<u8>>>, ConnectorError> {
        let columns: Vec<_> = self.columns.iter().map(|c| Arc::clone(rows.column(*c))).collect();
        let batch = RecordBatch::try_new_with_options(
            Arc::clone(&self.schema),
            columns,
            &arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows())),
        )
        .map_err(|e| ConnectorError::Fatal(format!("table '{table}': {e}")))?;
        self.bytes.clear();
        self.ends.clear();
        self.encoder
            .encode(&batch, &mut self.bytes, &mut self.ends)
            .map_err(|e| ConnectorError::Fatal(format!("table '{table}': {e}")))?;
        let mut from = 0;
        Ok(self
            .ends
            .iter()
            .enumerate()
            .map(|(row, end)| {
                let bytes = &self.bytes[std::mem::replace(&mut from, *end)..*end];
                (!(self.raw && batch.column(0).is_null(row))).then(|| bytes.to_vec())
            })
            .collect())
    }
}

fn column_as(
    table: &str,
    rows: &RecordBatch,
    column: usize,
    wanted: &DataType,
) -> Result<arrow::array::ArrayRef, ConnectorError> {
    let array = rows.column(column);
    if array.data_type() == wanted {
        return Ok(Arc::clone(array));
    }
    cast(array, wanted).map_err(|e| {
        let name = rows.schema_ref().field(column).name().clone();
        ConnectorError::user(
            format!("table '{table}': column '{name}' cannot be written as metadata: {e}"),
            "key: BYTES or STRING, headers: MAP<STRING, BYTES>, timestamp: TIMESTAMP(3), topic: STRING, partition: INT",
        )
    })
}

/// Headers from a map, or from a list of structs of name and value.
fn add_headers(
    table: &str,
    rows: &RecordBatch,
    column: usize,
    records: &mut [KafkaRecord],
) -> Result<(), ConnectorError> {
    let array = rows.column(column);
    let wrong = || {
        ConnectorError::user(
            format!(
                "table '{table}': column '{}' cannot be written as headers",
                rows.schema_ref().field(column).name()
            ),
            "declare it as MAP<STRING, BYTES>",
        )
    };
    let (offsets, entries): (&[i32], &StructArray) = match array.data_type() {
        DataType::Map(..) => (array.as_map().value_offsets(), array.as_map().entries()),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            (list.value_offsets(), list.values().as_struct_opt().ok_or_else(wrong)?)
        }
        _ => return Err(wrong()),
    };
    if entries.num_columns() != 2 {
        return Err(wrong());
    }
    let names = cast(entries.column(0), &DataType::Utf8).map_err(|_| wrong())?;
    let values = cast(entries.column(1), &DataType::Binary).map_err(|_| wrong())?;
    let (names, values): (&StringArray, &BinaryArray) = (names.as_string(), values.as_binary());
    for (row, record) in records.iter_mut().enumerate() {
        if array.is_null(row) {
            continue;
        }
        record.headers = (offsets[row] as usize..offsets[row + 1] as usize)
            .filter(|i| names.is_valid(*i))
            .map(|i| (names.value(i).to_owned(), values.is_valid(i).then(|| values.value(i).to_vec())))
            .collect();
    }
    Ok(())
}

/// The rows of an epoch, added up per key; without a key each row is its own.
#[derive(Default)]
struct ByKey {
    /// In the order of first appearance; the map is only asked, never walked.
    keys: Vec<Changes>,
    index: HashMap<Vec<u8>, usize>,
}

struct Changes {
    /// Records of the key with their weights.
    rows: Vec<(KafkaRecord, i64)>,
    /// The one that came last.
    last: usize,
}

impl ByKey {
    fn add(&mut self, record: KafkaRecord, weight: i64) {
        let own = record.value.as_ref().filter(|_| record.key.is_none());
        let key = record.key.as_ref().or(own).map_or(&[][..], Vec::as_slice);
        let at = match self.index.get(key) {
            Some(at) => *at,
            None => {
                self.index.insert(key.to_vec(), self.keys.len());
                self.keys.push(Changes { rows: Vec::with_capacity(1), last: 0 });
                self.keys.len() - 1
            }
        };
        let Changes { rows, last } = &mut self.keys[at];
        *last = rows.iter().position(|(r, _)| *r == record).unwrap_or(rows.len());
        match rows.get_mut(*last) {
            Some((_, total)) => *total += weight,
            None => rows.push((record, weight)),
        }
    }

    /// All changes: of a key the rows that go, then those that come.
    fn changes(self, omit_nulls: bool) -> Vec<KafkaRecord> {
        let mut records = Vec::new();
        for Changes { rows, .. } in self.keys {
            for deleted in [true, false] {
                for (record, weight) in rows.iter().filter(|(_, w)| *w != 0 && (*w < 0) == deleted) {
                    let row = record.value.as_deref().unwrap_or(b"null");
                    let change = KafkaRecord { value: Some(wrap(row, deleted, omit_nulls)), ..record.clone() };
                    records.extend(std::iter::repeat_n(change, weight.unsigned_abs() as usize));
                }
            }
        }
        records
    }

    /// The row of each key, or its tombstone. Of rows that are only added the last one wins, as if each had been written by itself.
    fn upserts(self, table: &str) -> Result<Vec<KafkaRecord>, ConnectorError> {
        let mut records = Vec::with_capacity(self.keys.len());
        for mut changes in self.keys {
            if changes.rows.iter().all(|(_, weight)| *weight > 0) {
                records.push(changes.rows.swap_remove(changes.last).0);
                continue;
            }
            let live: i64 = changes.rows.iter().map(|(_, w)| (*w).max(0)).sum();
            if live > 1 {
                return Err(two_rows(table, &changes.rows));
            }
            let mut gone = None;
            let mut kept = None;
            for (record, weight) in changes.rows {
                match weight {
                    1.. => kept = Some(record),
                    0 => {}
                    _ => gone = Some(record),
                }
            }
            let tombstone = || gone.map(|r| KafkaRecord { value: None, timestamp_ms: None, headers: Vec::new(), ..r });
            records.extend(kept.or_else(tombstone));
        }
        Ok(records)
    }
}

fn two_rows(table: &str, rows: &[(KafkaRecord, i64)]) -> ConnectorError {
    let show = |bytes: Option<&Vec<u8>>| {
        let text: String = bytes.map(|b| String::from_utf8_lossy(b).chars().take(200).collect()).unwrap_or_default();
        text
    };
    let live: Vec<String> = rows.iter().filter(|(_, w)| *w > 0).map(|(r, _)| show(r.value.as_ref())).take(2).collect();
    let key = rows.first().map(|(r, _)| show(r.key.as_ref())).unwrap_or_default();
    ConnectorError::user(
        format!("table '{table}': several rows for key {key} in one epoch: {}", live.join(" and ")),
        "make the query return one row per PRIMARY KEY, for example by GROUP BY, or choose a longer key",
    )
}

#[cfg(test)]
#[path = "encoder_tests.rs"]
mod tests;
