//! Metadata of records as columns.
//!
//! | key | type | value |
//! |---|---|---|
//! | `topic` | STRING | |
//! | `partition` | INT | |
//! | `offset` | BIGINT | |
//! | `timestamp` | TIMESTAMP(3) | null if the record has none |
//! | `timestamp-type` | STRING, or INT as in Spark | `NoTimestampType` (-1), `CreateTime` (0), `LogAppendTime` (1) |
//! | `headers` | MAP<STRING, BYTES> | of headers with the same name, all entries in order |
//! | `key` | BYTES, or STRING | STRING: null if it is not UTF-8 |
//!
//! A declared type other than these is reached by a cast.
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryBuilder, Int32Array, Int64Array, MapBuilder, MapFieldNames, StringArray, StringBuilder,
    TimestampMillisecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use super::bounds::Partition;
use super::native::fetch::{Messages, TimestampType};
use crate::{ConnectorError, MetadataColumn};

/// Metadata keys of a source with their SQL types.
pub(super) const SOURCE_METADATA: &[(&str, &str)] = &[
    ("topic", "STRING"),
    ("partition", "INT"),
    ("offset", "BIGINT"),
    ("timestamp", "TIMESTAMP(3)"),
    ("timestamp-type", "STRING"),
    ("headers", "MAP<STRING, BYTES>"),
    ("key", "BYTES"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Topic,
    Partition,
    Offset,
    Timestamp,
    TimestampType,
    Headers,
    Key,
}

/// Builds the metadata columns of a source.
pub(super) struct Columns(Vec<(Kind, MetadataColumn)>);

impl Columns {
    pub(super) fn new(table: &str, columns: &[MetadataColumn]) -> Result<Self, ConnectorError> {
        let kind = |column: &MetadataColumn| match column.key.as_str() {
            "topic" => Ok(Kind::Topic),
            "partition" => Ok(Kind::Partition),
            "offset" => Ok(Kind::Offset),
            "timestamp" => Ok(Kind::Timestamp),
            "timestamp-type" | "timestampType" => Ok(Kind::TimestampType),
            "headers" => Ok(Kind::Headers),
            "key" => Ok(Kind::Key),
            other => Err(ConnectorError::user(
                format!("table '{table}': kafka has no metadata '{other}'"),
                "there are topic, partition, offset, timestamp, timestamp-type, headers and key",
            )),
        };
        columns.iter().map(|c| kind(c).map(|k| (k, c.clone()))).collect::<Result<_, _>>().map(Self)
    }

    /// Columns for the messages at these indexes.
    pub(super) fn build(
        &self,
        partition: &Partition,
        messages: &Messages,
        rows: &[u32],
    ) -> Result<Vec<ArrayRef>, ConnectorError> {
        self.0
            .iter()
            .map(|(kind, column)| {
                let wanted = column.field.data_type();
                let array = array(*kind, wanted, partition, messages, rows);
                if array.data_type() == wanted {
                    return Ok(array);
                }
                cast(&array, wanted).map_err(|e| {
                    ConnectorError::user(
                        format!(
                            "metadata column '{}': kafka's '{}' is not a {wanted}: {e}",
                            column.field.name(),
                            column.key
                        ),
                        "declare the column with the type of the reference",
                    )
                })
            })
            .collect()
    }
}

fn array(kind: Kind, wanted: &DataType, partition: &Partition, messages: &Messages, rows: &[u32]) -> ArrayRef {
    let rows_of = || rows.iter().map(|r| *r as usize);
    match kind {
        Kind::Topic => Arc::new(StringArray::from_iter_values(rows.iter().map(|_| partition.topic.as_str()))),
        Kind::Partition => Arc::new(Int32Array::from_value(partition.index, rows.len())),
        // An offset fits: Kafka's own are signed.
        Kind::Offset => Arc::new(Int64Array::from_iter_values(rows_of().map(|r| messages.offset(r).cast_signed()))),
        Kind::Timestamp => Arc::new(rows_of().map(|r| messages.timestamp(r).0).collect::<TimestampMillisecondArray>()),
        Kind::TimestampType if wanted.is_integer() => {
            Arc::new(Int32Array::from_iter_values(rows_of().map(|r| match messages.timestamp(r).1 {
                TimestampType::Absent => -1,
                TimestampType::Create => 0,
                TimestampType::LogAppend => 1,
            })))
        }
        Kind::TimestampType => {
            Arc::new(StringArray::from_iter_values(rows_of().map(|r| match messages.timestamp(r).1 {
                TimestampType::Absent => "NoTimestampType",
                TimestampType::Create => "CreateTime",
                TimestampType::LogAppend => "LogAppendTime",
            })))
        }
        Kind::Headers => headers(wanted, messages, rows),
        Kind::Key => {
            let mut keys = BinaryBuilder::with_capacity(rows.len(), rows.len() * 8);
            rows_of().for_each(|r| keys.append_option(messages.key(r)));
            Arc::new(keys.finish())
        }
    }
}

fn headers(wanted: &DataType, messages: &Messages, rows: &[u32]) -> ArrayRef {
    // The names inside a map are the planner's choice; they are part of its type.
    let names = match wanted {
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => Some(MapFieldNames {
                entry: entries.name().clone(),
                key: fields[0].name().clone(),
                value: fields[1].name().clone(),
            }),
            _ => None,
        },
        _ => None,
    };
    let mut map = MapBuilder::new(names, StringBuilder::new(), BinaryBuilder::new());
    for row in rows {
        messages.headers(*row as usize, |name, value| {
            map.keys().append_value(name);
            map.values().append_option(value);
        });
        // Keys and values are appended in pairs, which is all that can be wrong here.
        if map.append(true).is_err() {
            tracing::error!("a header without a value builder entry");
        }
    }
    Arc::new(map.finish())
}
