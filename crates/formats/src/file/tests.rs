use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;

use super::{FileWriter, LineReader, ParquetFile, ReadLimits, extension};
use crate::{Compression, DecodeSpec, FormatError, FormatKind, FormatOptions, decoder};

fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

fn schema() -> SchemaRef {
    let inner = Fields::from(vec![field("x", DataType::Int64), field("y", DataType::Utf8)]);
    Arc::new(Schema::new(vec![
        field("n", DataType::Int64),
        field("s", DataType::Utf8),
        field("ts", DataType::Timestamp(TimeUnit::Millisecond, None)),
        field("dec", DataType::Decimal128(10, 2)),
        field("row", DataType::Struct(inner)),
        field("arr", DataType::List(Arc::new(field("element", DataType::Utf8)))),
    ]))
}

fn rows(count: usize) -> RecordBatch {
    let lines: Vec<String> = (0..count)
        .map(|i| match i % 3 {
            0 => {
                format!(r#"{{"n":{i},"s":"row {i}","ts":{i},"dec":{i}.5,"row":{{"x":{i},"y":"y"}},"arr":["a","{i}"]}}"#)
            }
            1 => format!(r#"{{"n":{i},"row":{{"y":"only {i}"}},"arr":[]}}"#),
            _ => "{}".to_owned(),
        })
        .collect();
    let messages: Vec<&[u8]> = lines.iter().map(|l| l.as_bytes()).collect();
    let spec = DecodeSpec { schema: schema(), options: FormatOptions::new(FormatKind::Json), prefilter: None };
    decoder(spec).unwrap().decode(&messages).unwrap().rows
}

/// The file of `rows` that arrive `at_once` at a time.
fn written(rows: &RecordBatch, options: &FormatOptions, at_once: usize) -> Bytes {
    let mut writer = FileWriter::new(&rows.schema(), options).unwrap();
    for begin in (0..rows.num_rows()).step_by(at_once) {
        writer.write(&rows.slice(begin, at_once.min(rows.num_rows() - begin))).unwrap();
    }
    assert_eq!(writer.rows(), rows.num_rows() as u64);
    writer.finish().unwrap()
}

fn read(file: &Bytes, schema: &SchemaRef) -> Result<RecordBatch, FormatError> {
    let file = ParquetFile::open(file.clone(), schema)?;
    let mut all = Vec::new();
    for group in 0..file.row_groups() {
        let before: usize = all.iter().map(RecordBatch::num_rows).sum();
        for batch in file.read(group, 1000)? {
            all.push(batch?);
        }
        let after: usize = all.iter().map(RecordBatch::num_rows).sum();
        assert_eq!((after - before) as u64, file.rows(group));
    }
    Ok(arrow::compute::concat_batches(schema, &all)?)
}

#[test]
fn parquet_goes_there_and_back_by_row_group() {
    let rows = rows(25_000);
    for compression in [Compression::None, Compression::Snappy, Compression::Zstd] {
        let mut options = FormatOptions::new(FormatKind::Parquet);
        options.compression = compression;
        options.parquet.row_group_rows = 10_000;
        let file = written(&rows, &options, 777);
        assert_eq!(ParquetFile::open(file.clone(), &schema()).unwrap().row_groups(), 3);
        assert_eq!(read(&file, &schema()).unwrap(), rows);
    }
}

#[test]
fn bytes_do_not_depend_on_how_rows_arrive() {
    let rows = rows(30_000);
    for (kind, compression) in [
        (FormatKind::Parquet, Compression::Snappy),
        (FormatKind::Parquet, Compression::Zstd),
        (FormatKind::Json, Compression::Gzip),
        (FormatKind::Json, Compression::Zstd),
        (FormatKind::Json, Compression::None),
    ] {
        let mut options = FormatOptions::new(kind);
        options.compression = compression;
        let first = written(&rows, &options, 8192);
        for at_once in [1000, 30_000, 7] {
            assert!(written(&rows, &options, at_once) == first, "{kind} {compression:?} {at_once}");
        }
    }
}

#[test]
fn a_pruned_schema_reads_only_its_columns() {
    let file = written(&rows(100), &FormatOptions::new(FormatKind::Parquet), 100);
    let inner = Fields::from(vec![field("y", DataType::Utf8), field("new", DataType::Float64)]);
    let pruned = Arc::new(Schema::new(vec![field("row", DataType::Struct(inner)), field("absent", DataType::Int32)]));
    let batch = read(&file, &pruned).unwrap();
    assert_eq!((batch.num_rows(), batch.column(1).null_count()), (100, 100));
    let expected = rows(100);
    let expected = arrow::array::AsArray::as_struct(expected.column_by_name("row").unwrap()).clone();
    let got = arrow::array::AsArray::as_struct(batch.column(0)).clone();
    assert_eq!(got.column_by_name("y").unwrap(), expected.column_by_name("y").unwrap());
    assert_eq!(got.nulls(), expected.nulls());
    let nothing = Arc::new(Schema::empty());
    let file = ParquetFile::open(file, &nothing).unwrap();
    let count: usize = file.read(0, 64).unwrap().map(|b| b.unwrap().num_rows()).sum();
    assert_eq!(count, 100);
}

#[test]
fn types_must_fit() {
    let file = written(&rows(10), &FormatOptions::new(FormatKind::Parquet), 10);
    let as_type = |name: &str, data_type| Arc::new(Schema::new(vec![field(name, data_type)]));
    assert_eq!(read(&file, &as_type("n", DataType::Float64)).unwrap().num_rows(), 10);
    let error = read(&file, &as_type("s", DataType::Int64)).unwrap_err();
    assert_eq!(error.to_string(), "column `s` of the file: the file holds Utf8, declared is Int64");
    let inner = Fields::from(vec![field("y", DataType::Boolean)]);
    let error = read(&file, &as_type("row", DataType::Struct(inner))).unwrap_err();
    assert!(error.to_string().starts_with("column `row.y` of the file"), "{error}");
    let required = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    assert!(matches!(read(&file, &required), Err(FormatError::FileColumn { .. })));
}

#[test]
fn damaged_parquet_is_an_error_that_says_so() {
    let file = written(&rows(5000), &FormatOptions::new(FormatKind::Parquet), 5000);
    for length in [0, 3, 100, file.len() / 2, file.len() - 1] {
        let error = read(&file.slice(..length), &schema()).unwrap_err();
        assert!(matches!(error, FormatError::Damaged { .. }), "{length}: {error}");
    }
    let error = read(&file.slice(..file.len() - 1), &schema()).unwrap_err();
    assert!(error.to_string().starts_with("the Parquet file is cut off"), "{error}");
    let error = read(&Bytes::from_static(b"{\"a\":1}\n{\"a\":2}\n"), &schema()).unwrap_err();
    assert!(error.to_string().starts_with("not a Parquet file"), "{error}");
    let mut bytes = file.to_vec();
    bytes[20..200].fill(0xa5);
    assert!(matches!(read(&bytes.into(), &schema()), Err(FormatError::Damaged { .. })));
}

#[test]
fn text_files_go_there_and_back() {
    let all = rows(3000);
    for (kind, compression, name) in [
        (FormatKind::Json, Compression::None, "json"),
        (FormatKind::Json, Compression::Gzip, "json.gz"),
        (FormatKind::Csv, Compression::Zstd, "csv.zst"),
    ] {
        let mut options = FormatOptions::new(kind);
        options.compression = compression;
        options.csv.header = true;
        assert_eq!(extension(&options), name);
        let columns: &[usize] = if kind == FormatKind::Csv { &[0, 1, 2, 3] } else { &[0, 1, 2, 3, 4, 5] };
        let rows = all.project(columns).unwrap();
        let file = written(&rows, &options, 1000);
        let mut reader = LineReader::new(Cursor::new(file), &options, ReadLimits::default()).unwrap();
        let spec = DecodeSpec { schema: rows.schema(), options, prefilter: None };
        let mut decoder = decoder(spec).unwrap();
        let mut parts = Vec::new();
        while let Some(lines) = reader.next(700, usize::MAX).unwrap() {
            let decoded = decoder.decode(&lines.messages()).unwrap();
            assert_eq!(decoded.bad, []);
            parts.push(decoded.rows);
        }
        assert_eq!(arrow::compute::concat_batches(&rows.schema(), &parts).unwrap(), rows, "{name}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(1000))]

    #[test]
    fn no_parquet_file_makes_it_panic(
        edits in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<u8>()), 1..6),
        near_footer in proptest::prelude::any::<bool>(),
    ) {
        let mut bytes = written(&rows(60), &FormatOptions::new(FormatKind::Parquet), 60).to_vec();
        let first = if near_footer { bytes.len() / 2 } else { 0 };
        for (at, byte) in edits {
            let at = first + at.index(bytes.len() - first);
            bytes[at] = byte;
        }
        if let Err(error) = read(&bytes.into(), &schema()) {
            let known = matches!(error, FormatError::Damaged { .. } | FormatError::FileColumn { .. });
            proptest::prop_assert!(known, "{}", error);
        }
    }
}
