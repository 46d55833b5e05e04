//! `PARTITIONED BY`: rows go to folders `column=value`, as Hive, Spark and Flink name them, and files hold the other columns.
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// What stands for null and for the empty text.
const NO_VALUE: &str = "__HIVE_DEFAULT_PARTITION__";
/// Characters that tools give a meaning in paths.
const ESCAPED: &str = "\"#%'*/:=?\\{}[]^";

/// Deals rows out to folders.
#[derive(Clone, Debug)]
pub struct Partitions {
    /// Columns that make the path, with their names.
    by: Vec<(usize, String)>,
    /// Columns that stand in the files.
    kept: Vec<usize>,
    file_schema: SchemaRef,
}

impl Partitions {
    pub fn new(schema: &SchemaRef, by: &[usize]) -> Self {
        let kept: Vec<usize> = (0..schema.fields().len()).filter(|i| !by.contains(i)).collect();
        let fields: Vec<_> = kept.iter().map(|i| Arc::clone(&schema.fields()[*i])).collect();
        let by = by.iter().map(|i| (*i, escape(schema.field(*i).name()))).collect();
        Self { by, kept, file_schema: Arc::new(Schema::new(fields)) }
    }

    /// Columns of the files.
    pub fn file_schema(&self) -> &SchemaRef {
        &self.file_schema
    }

    /// The rows of each folder, folders in the order of their first row. The folder of unpartitioned rows is the empty text; others end with `/`.
    pub fn split(&self, rows: &RecordBatch) -> Result<Vec<(String, RecordBatch)>, ArrowError> {
        if self.by.is_empty() {
            return Ok(vec![(String::new(), rows.clone())]);
        }
        let options = FormatOptions::new()
            .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"))
            .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f"));
        let columns = self.by.iter().map(|(column, name)| {
            let array = rows.column(*column);
            Ok((name, array, ArrayFormatter::try_new(array, &options)?))
        });
        let columns = columns.collect::<Result<Vec<_>, ArrowError>>()?;
        let mut folders: Vec<(String, Vec<u32>)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for row in 0..rows.num_rows() {
            let mut path = String::new();
            for (name, array, text) in &columns {
                let value = if array.is_null(row) { String::new() } else { text.value(row).try_to_string()? };
                let value = if value.is_empty() { NO_VALUE.to_owned() } else { escape(&value) };
                path += &format!("{name}={value}/");
            }
            let place = *places.entry(path).or_insert_with_key(|path| {
                folders.push((path.clone(), Vec::new()));
                folders.len() - 1
            });
            folders[place].1.push(row as u32);
        }
        let kept = rows.project(&self.kept)?;
        let part = |(path, rows): (String, Vec<u32>)| Ok((path, take_record_batch(&kept, &UInt32Array::from(rows))?));
        folders.into_iter().map(part).collect()
    }
}

/// Text as a part of a path: special characters as `%XX`.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match u8::try_from(c) {
            Ok(byte) if c.is_ascii_control() || ESCAPED.contains(c) => escaped += &format!("%{byte:02X}"),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray, TimestampMillisecondArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn folders_come_in_the_order_of_their_first_row_and_names_are_escaped() {
        let region: ArrayRef = Arc::new(StringArray::from(vec![Some("a/b"), None, Some(""), Some("a/b")]));
        let at: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![0, 0, 0, 0]));
        let n: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4]));
        let rows =
            RecordBatch::try_from_iter_with_nullable([("region", region, true), ("at", at, true), ("n", n, true)]);
        let rows = rows.unwrap();
        let partitions = Partitions::new(&rows.schema(), &[0, 1]);
        assert_eq!(partitions.file_schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["n"]);
        let split = partitions.split(&rows).unwrap();
        let found: Vec<(&str, Vec<i64>)> = split
            .iter()
            .map(|(path, rows)| (path.as_str(), rows.column(0).as_primitive::<Int64Type>().values().to_vec()))
            .collect();
        let day = "at=1970-01-01 00%3A00%3A00/";
        assert_eq!(
            found,
            [
                (format!("region=a%2Fb/{day}").as_str(), vec![1, 4]),
                (format!("region={NO_VALUE}/{day}").as_str(), vec![2, 3]),
            ]
        );
    }
}
