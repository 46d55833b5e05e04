use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use proptest::prelude::*;

use crate::file::{LineReader, ReadLimits};
use crate::{
    Accept, BadFields, CsvOptions, DecodeSpec, Decoded, FormatKind, FormatOptions, PreFilter, decoder, encoder,
};

fn spec(fields: Vec<Field>) -> DecodeSpec {
    DecodeSpec { schema: Arc::new(Schema::new(fields)), options: FormatOptions::new(FormatKind::Csv), prefilter: None }
}

fn fields() -> Vec<Field> {
    vec![
        Field::new("n", DataType::Int64, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("f", DataType::Float64, true),
        Field::new("b", DataType::Boolean, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true),
    ]
}

fn decode(spec: DecodeSpec, messages: &[&str]) -> Decoded {
    let messages: Vec<&[u8]> = messages.iter().map(|m| m.as_bytes()).collect();
    decoder(spec).unwrap().decode(&messages).unwrap()
}

fn encoded(rows: &RecordBatch, options: &FormatOptions) -> Vec<String> {
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    encoder(&rows.schema(), options).unwrap().encode(rows, &mut out, &mut ends).unwrap();
    let begins = std::iter::once(0).chain(ends.iter().copied());
    begins.zip(&ends).map(|(b, e)| String::from_utf8(out[b..*e].to_vec()).unwrap()).collect()
}

#[test]
fn records_go_there_and_back() {
    let records = ["1,a,0.5,true,2015-07-15 00:00:00.123", ",,,,", "-7,\"x,\"\"y\"\"\",NaN,false,", ",\"\",,,"];
    let decoded = decode(spec(fields()), &records);
    assert_eq!(decoded.bad, []);
    assert_eq!(encoded(&decoded.rows, &FormatOptions::new(FormatKind::Csv)), records);
}

#[test]
fn positions_come_from_the_declared_columns() {
    let mut pruned = spec(vec![Field::new("c", DataType::Int64, true), Field::new("a", DataType::Utf8, true)]);
    pruned.options.columns = ["a", "b", "c"].map(str::to_owned).to_vec();
    let decoded = decode(pruned, &["x,not a number,3\r\n", "y", "a,b,c", "a,b,3,4"]);
    assert_eq!(encoded(&decoded.rows, &FormatOptions::new(FormatKind::Csv)), ["3,x", ",y"]);
    let reasons: Vec<_> = decoded.bad.iter().map(|b| b.reason.as_str()).collect();
    assert_eq!(
        reasons,
        ["field `c`: expected BIGINT, found 'c' at byte 4", "more than the 3 fields declared, at byte 6"]
    );
}

#[test]
fn bad_records_and_fields() {
    let messages = ["1,a", "1.5,b", "\"1", "99999999999999999999,c", "\"2\"x,d", "3,e"];
    let two = || vec![Field::new("n", DataType::Int64, true), Field::new("s", DataType::Utf8, true)];
    let strict = decode(spec(two()), &messages);
    assert_eq!(strict.origin, [0, 5]);
    assert_eq!(strict.bad[1].reason, "the record ends inside a quoted field at byte 2");
    let mut lenient = spec(two());
    lenient.options.bad_fields = BadFields::Null;
    let lenient = decode(lenient, &messages);
    assert_eq!(lenient.origin, [0, 1, 3, 5]);
    assert_eq!(encoded(&lenient.rows, &FormatOptions::new(FormatKind::Csv)), ["1,a", ",b", ",c", "3,e"]);
    let invalid = decoder(spec(two())).unwrap().decode(&[b"1,\xff"]).unwrap();
    assert_eq!(invalid.bad[0].reason, "field `s`: not valid UTF-8 at byte 2");
}

#[test]
fn filters_nulls_and_refusals() {
    let mut filtered = spec(vec![Field::new("s", DataType::Utf8, false)]);
    filtered.options.columns = ["n", "s"].map(str::to_owned).to_vec();
    filtered.options.csv.null_literal = Some("NULL".to_owned());
    filtered.prefilter = Some(PreFilter { column: "n".to_owned(), accept: Accept::Int(vec![2, -3]) });
    let decoded = decode(filtered.clone(), &["2,a", "1,b", "-3,", "NULL,c", "2,NULL", "2,\"NULL\"", "02,d"]);
    assert_eq!(decoded.origin, [0, 2, 5, 6]);
    assert_eq!(decoded.bad[0].reason, "field `s`: null, but STRING NOT NULL is declared");
    filtered.prefilter = Some(PreFilter { column: "x".to_owned(), accept: Accept::Int(Vec::new()) });
    assert!(decoder(filtered).is_err());
    let nested = DataType::List(Arc::new(Field::new("element", DataType::Int64, true)));
    let error = decoder(spec(vec![Field::new("l", nested, true)])).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("csv cannot hold"), "{error}");
}

proptest! {
    #[test]
    fn any_text_survives(
        rows in prop::collection::vec((proptest::option::of("[a,;\"\\\\\n\r\u{e9}N]{0,8}"), any::<i64>()), 1..20),
        style in 0..4,
    ) {
        let mut options = FormatOptions::new(FormatKind::Csv);
        options.csv = match style {
            0 => CsvOptions::default(),
            1 => CsvOptions { delimiter: b';', escape: Some(b'\\'), ..CsvOptions::default() },
            2 => CsvOptions { null_literal: Some("N".to_owned()), ..CsvOptions::default() },
            _ => CsvOptions { quote: Some(b'a'), ..CsvOptions::default() },
        };
        let schema = Arc::new(Schema::new(vec![fields()[1].clone(), fields()[0].clone()]));
        let texts: arrow::array::StringArray = rows.iter().map(|(t, _)| t.as_deref()).collect();
        let numbers: arrow::array::Int64Array = rows.iter().map(|(_, n)| Some(*n)).collect();
        let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(texts), Arc::new(numbers)]).unwrap();
        let lines = encoded(&batch, &options);
        let messages: Vec<&str> = lines.iter().map(String::as_str).collect();
        let decoded = decode(DecodeSpec { schema, options: options.clone(), prefilter: None }, &messages);
        prop_assert_eq!(&decoded.bad, &[]);
        prop_assert_eq!(decoded.rows, batch);
        // The reader of files finds the same records.
        let file = std::io::Cursor::new(lines.join("\n"));
        let mut reader = LineReader::new(file, &options, ReadLimits::default()).unwrap();
        let mut found = Vec::new();
        while let Some(part) = reader.next(3, 50).unwrap() {
            found.extend(part.messages().iter().map(|m| String::from_utf8(m.to_vec()).unwrap()));
        }
        prop_assert_eq!(found, lines);
    }

    #[test]
    fn no_bytes_make_it_panic(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6)) {
        let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        let decoded = decoder(spec(fields())).unwrap().decode(&messages).unwrap();
        prop_assert_eq!(decoded.origin.len() + decoded.bad.len(), messages.len());
    }
}
