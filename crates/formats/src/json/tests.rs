use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{self as t, DataType, Field, Fields, Schema, TimeUnit};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    Accept, BadFields, DecodeSpec, Decoded, FormatKind, FormatOptions, PreFilter, TimestampStandard, decoder, encoder,
};

fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

fn row(fields: Vec<Field>) -> DataType {
    DataType::Struct(Fields::from(fields))
}

fn list(element: DataType) -> DataType {
    DataType::List(Arc::new(field("element", element)))
}

fn map(value: DataType) -> DataType {
    let pair = vec![Field::new("key", DataType::Utf8, false), field("value", value)];
    DataType::Map(Arc::new(Field::new("entries", row(pair), false)), false)
}

fn spec(fields: Vec<Field>) -> DecodeSpec {
    DecodeSpec { schema: Arc::new(Schema::new(fields)), options: FormatOptions::new(FormatKind::Json), prefilter: None }
}

fn decode(spec: DecodeSpec, messages: &[&str]) -> Decoded {
    let messages: Vec<&[u8]> = messages.iter().map(|m| m.as_bytes()).collect();
    let decoded = decoder(spec).unwrap().decode(&messages).unwrap();
    decoded.rows.columns().iter().for_each(|c| c.to_data().validate_full().unwrap());
    decoded
}

/// Rows as JSON, by the encoder; its own tests hold it against literals.
fn shown(rows: &RecordBatch) -> Vec<String> {
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    encoder(&rows.schema(), &FormatOptions::new(FormatKind::Json)).unwrap().encode(rows, &mut out, &mut ends).unwrap();
    let begins = std::iter::once(0).chain(ends.iter().copied());
    begins.zip(&ends).map(|(b, e)| String::from_utf8(out[b..*e].to_vec()).unwrap()).collect()
}

fn all_types() -> Vec<Field> {
    use DataType as D;
    vec![
        field("i8", D::Int8),
        field("i32", D::Int32),
        field("i64", D::Int64),
        field("u64", D::UInt64),
        field("f32", D::Float32),
        field("f64", D::Float64),
        field("dec", D::Decimal128(10, 2)),
        field("b", D::Boolean),
        field("s", D::Utf8),
        field("bin", D::Binary),
        field("d", D::Date32),
        field("t", D::Time32(TimeUnit::Millisecond)),
        field("ts", D::Timestamp(TimeUnit::Millisecond, None)),
        field("us", D::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        field("row", row(vec![field("x", D::Int64), field("y", D::Utf8)])),
        field("arr", list(D::Int64)),
        field("arr2", list(row(vec![field("k", D::Utf8), field("v", list(D::Utf8))]))),
        field("map", map(D::Float64)),
    ]
}

const FULL: &str = r#"{"i8":-128,"i32":2147483647,"i64":-9223372036854775808,"u64":18446744073709551615,"f32":0.1,"f64":-2.5e-7,"dec":12.30,"b":true,"s":"aü\"\n😀","bin":"Zm9v","d":"2015-07-15","t":"23:59:59.999","ts":"2015-07-15 00:00:00.123","us":"1969-12-31 23:59:59.999999","row":{"x":1,"y":null},"arr":[1,null,3],"arr2":[{"k":"a","v":["x","y"]},null,{"k":null,"v":[]}],"map":{"a":1.0,"b":null}}"#;

#[test]
fn every_type_goes_there_and_back() {
    let decoded = decode(spec(all_types()), &[FULL, "{}", FULL]);
    assert_eq!(decoded.bad, []);
    let lines = shown(&decoded.rows);
    let expected = FULL.replace("-2.5e-7", "-2.5e-07").replace("-2.5e-07", &serde_json::to_string(&-2.5e-7).unwrap());
    assert_eq!((lines[0].as_str(), lines[2].as_str()), (expected.as_str(), expected.as_str()));
    let nulls: Value = serde_json::from_str(&lines[1]).unwrap();
    assert!(nulls.as_object().unwrap().values().all(Value::is_null));
}

#[test]
fn order_of_keys_and_unknown_fields_do_not_matter() {
    let fields = || vec![field("a", DataType::Int64), field("b", row(vec![field("c", DataType::Utf8)]))];
    let decoded = decode(
        spec(fields()),
        &[
            r#"{"a":1,"b":{"c":"x"}}"#,
            r#"{"b":{"z":[{"c":1}],"c":"y"},"a":2}"#,
            r#" { "x" : {"a":[1,"}"]} , "a" : 3 , "b" : { } } "#,
            r#"{"\u0061":4,"b":null,"\\":"\""}"#,
            r#"{"A":1,"a_very_long_key_that_is_unknown":1,"a_very_long_key_that_is_other":2,"b":{"c":"w"}}"#,
            r#"{"b":{"c":"v"},"a":5}"#,
        ],
    );
    assert_eq!(decoded.bad, []);
    assert_eq!(
        shown(&decoded.rows),
        [
            r#"{"a":1,"b":{"c":"x"}}"#,
            r#"{"a":2,"b":{"c":"y"}}"#,
            r#"{"a":3,"b":{"c":null}}"#,
            r#"{"a":4,"b":null}"#,
            r#"{"a":null,"b":{"c":"w"}}"#,
            r#"{"a":5,"b":{"c":"v"}}"#
        ]
    );
}

#[test]
fn the_last_of_duplicate_keys_wins() {
    let fields = vec![
        field("a", DataType::Int64),
        field("s", DataType::Utf8),
        field("r", row(vec![field("x", DataType::Int64), field("y", DataType::Utf8)])),
        field("l", list(DataType::Utf8)),
    ];
    let decoded = decode(
        spec(fields),
        &[
            r#"{"a":1,"s":"long one","a":null,"s":"x","r":{"x":1,"y":"q"},"r":{"y":"p"},"l":["a","b"],"l":["c"]}"#,
            r#"{"s":"y","s":null,"r":{"x":1},"r":null,"l":["a"],"l":null}"#,
            r#"{"a":2,"s":"z","l":[]}"#,
        ],
    );
    assert_eq!(
        shown(&decoded.rows),
        [
            r#"{"a":null,"s":"x","r":{"x":null,"y":"p"},"l":["c"]}"#,
            r#"{"a":null,"s":null,"r":null,"l":null}"#,
            r#"{"a":2,"s":"z","r":null,"l":[]}"#
        ]
    );
}

#[test]
fn bad_rows_leave_no_trace() {
    let fields = all_types();
    let broken = format!("{},\"x\":tru}}", &FULL[..FULL.len() - 1]);
    let half_array = r#"{"i64":7,"s":"abc","row":{"x":1,"y":"q"},"arr":[1,2,3],"arr2":[{"k":"a","v":["x"#;
    let messages = [half_array, FULL, &broken, "{}", half_array, r#"{"arr":[9]}"#, r#"{"row":{"y":"z"},"i8":1000}"#];
    let decoded = decode(spec(fields), &messages);
    assert_eq!(decoded.origin, [1, 3, 5]);
    let lines = shown(&decoded.rows);
    let nulls: Value = serde_json::from_str(&lines[1]).unwrap();
    assert!(nulls.as_object().unwrap().values().all(Value::is_null));
    let last: Value = serde_json::from_str(&lines[2]).unwrap();
    assert_eq!((&last["arr"], &last["row"], &last["s"]), (&json!([9]), &Value::Null, &Value::Null));
    let reasons: Vec<_> = decoded.bad.iter().map(|b| (b.message, b.reason.as_str())).collect();
    assert_eq!(
        reasons,
        [
            (0, "field `arr2`.`element`.`v`.`element`: the message ends inside a string at byte 79"),
            (2, "expected a value, found boolean at byte 384"),
            (4, "field `arr2`.`element`.`v`.`element`: the message ends inside a string at byte 79"),
            (6, "field `i8`: '1000' is out of the range of TINYINT at byte 22"),
        ]
    );
}

#[test]
fn reasons_name_field_problem_and_place() {
    let fields = || {
        vec![
            field("n", DataType::Int32),
            field("bid", row(vec![field("price", DataType::Int64)])),
            field("s", DataType::Utf8),
            field("t", DataType::Timestamp(TimeUnit::Millisecond, None)),
            field("m", map(DataType::Int64)),
            field("bin", DataType::Binary),
        ]
    };
    for (message, reason) in [
        (r#"{"bid":{"price":"x"}}"#, "field `bid`.`price`: expected BIGINT, found 'x' at byte 16"),
        (r#"{"bid":{"price":[1]}}"#, "field `bid`.`price`: expected BIGINT, found array at byte 16"),
        (r#"{"bid":3}"#, "field `bid`: expected an object (ROW), found number at byte 7"),
        (r#"{"n":1.5}"#, "field `n`: '1.5' has a fraction, expected INT at byte 5"),
        (r#"{"n":2147483648}"#, "field `n`: '2147483648' is out of the range of INT at byte 5"),
        (r#"{"n":01}"#, "field `n`: not a number as JSON has them at byte 5"),
        (r#"{"n":NaN}"#, "field `n`: expected a value, found 'N' at byte 5"),
        (r#"{"n":nul}"#, "field `n`: expected INT, found null at byte 5"),
        (r#"{"n":1} x"#, "expected the end of the message, found 'x' at byte 8"),
        (r#"{"n":1"#, "expected a comma or the end of the object, found the end of the message at byte 6"),
        (r#"{"n" 1}"#, "expected a colon, found number at byte 5"),
        (r#"{"n":1,}"#, "expected a key, found '}' at byte 7"),
        ("", "the message is empty, expected a JSON object at byte 0"),
        ("[1]", "expected a JSON object, found array at byte 0"),
        (r#"{"s":"\ud800x"}"#, "field `s`: half of a surrogate pair in a string at byte 6"),
        (r#"{"s":"\q"}"#, "field `s`: unknown escape in a string at byte 6"),
        ("{\"s\":\"a\tb\"}", "field `s`: control character 0x09 in a string at byte 7"),
        (r#"{"t":"yesterday"}"#, "field `t`: expected TIMESTAMP, found 'yesterday' at byte 5"),
        (r#"{"m":{"a":1,"a":2}}"#, "field `m`: duplicate key 'a' in a map at byte 12"),
        (r#"{"bin":"***"}"#, "field `bin`: expected BYTES, found '***' at byte 7"),
        (r#"{"x":[1}"#, "expected the bracket that matches, found '}' at byte 7"),
    ] {
        let decoded = decode(spec(fields()), &[message]);
        assert_eq!(decoded.bad.first().map(|b| b.reason.as_str()), Some(reason), "{message}");
        assert_eq!(decoded.rows.num_rows(), 0);
    }
    let decoded = decoder(spec(fields())).unwrap().decode(&[b"{\"s\":\"a\xc3\"}"]).unwrap();
    assert_eq!(decoded.bad[0].reason, "field `s`: the string is not valid UTF-8 after 1 bytes of it, at byte 6");
}

#[test]
fn depth_is_limited_used_or_not() {
    let nested = |n: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(n), "]".repeat(n));
    for fields in [vec![field("b", DataType::Utf8)], vec![field("a", DataType::Utf8)]] {
        let decoded = decode(spec(fields), &[&nested(127), &nested(128), &nested(100_000)]);
        assert_eq!(decoded.origin, [0]);
        assert!(decoded.bad.iter().all(|b| b.reason.contains("nested deeper than 128 levels")), "{:?}", decoded.bad);
    }
}

#[test]
fn values_are_converted_as_documented() {
    let decoded = decode(
        spec(all_types()),
        &[
            r#"{"i8":"12","i32":12.0,"i64":" -7 ","u64":1e3,"f32":"0.5","f64":"NaN","dec":"1.005","b":"TRUE","s":12.50,"d":16631,"t":1000,"ts":1436918400123,"us":"2015-07-15T02:00:00.5+02:00"}"#,
            r#"{"f64":"-Infinity","s":true,"dec":1e2,"ts":"2015-07-15T00:00:00Z","us":1436918400123}"#,
            r#"{"s":{"a" : [1, "x"]},"f64":12345678901234567890}"#,
        ],
    );
    assert_eq!(decoded.bad, []);
    let lines: Vec<Value> = shown(&decoded.rows).iter().map(|l| serde_json::from_str(l).unwrap()).collect();
    let first = json!({"i8":12,"i32":12,"i64":-7,"u64":1000,"f32":0.5,"f64":"NaN","dec":1.01,"b":true,"s":"12.50",
        "d":"2015-07-15","t":"00:00:01.000","ts":"2015-07-15 00:00:00.123","us":"2015-07-15 00:00:00.500000",
        "bin":null,"row":null,"arr":null,"arr2":null,"map":null});
    assert_eq!(lines[0], first);
    assert_eq!(
        (&lines[1]["f64"], &lines[1]["s"], &lines[1]["dec"]),
        (&json!("-Infinity"), &json!("true"), &json!(100.0))
    );
    assert_eq!(lines[1]["us"], json!("2015-07-15 00:00:00.123000"));
    assert_eq!(lines[2]["s"], json!(r#"{"a" : [1, "x"]}"#));
}

#[test]
fn bad_fields_can_become_null() {
    let mut lenient = spec(vec![
        field("a", DataType::Int64),
        field("r", row(vec![field("x", DataType::Int64), field("y", DataType::Utf8)])),
        field("l", list(DataType::Int64)),
        Field::new("k", DataType::Int64, false),
    ]);
    lenient.options.bad_fields = BadFields::Null;
    let decoded = decode(
        lenient,
        &[
            r#"{"a":"x","r":{"x":[1,{}],"y":"q"},"l":[1,"y",3],"k":1}"#,
            r#"{"a":1,"r":7,"l":{"a":"]"},"k":2}"#,
            r#"{"a":1,"k":"x"}"#,
            r#"{"a":1 2,"k":3}"#,
        ],
    );
    assert_eq!(
        shown(&decoded.rows),
        [r#"{"a":null,"r":{"x":null,"y":"q"},"l":[1,null,3],"k":1}"#, r#"{"a":1,"r":null,"l":null,"k":2}"#]
    );
    assert_eq!(decoded.bad.iter().map(|b| b.message).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(decoded.bad[0].reason, "field `k`: null or missing, but BIGINT NOT NULL is declared at byte 15");
}

#[test]
fn required_fields() {
    let nested = row(vec![Field::new("x", DataType::Int64, false)]);
    let fields = vec![field("r", nested), Field::new("s", DataType::Utf8, false)];
    let decoded = decode(
        spec(fields.clone()),
        &[
            r#"{"s":"a"}"#,
            r#"{"r":{},"s":"a"}"#,
            r#"{"r":{"x":1}}"#,
            r#"{"r":null,"s":null}"#,
            r#"{"r":{"x":1},"s":""}"#,
        ],
    );
    assert_eq!(decoded.origin, [0, 4]);
    let mut all = spec(vec![field("a", DataType::Int64), field("b", DataType::Int64)]);
    all.options.json.fail_on_missing = true;
    let decoded = decode(all, &[r#"{"a":1}"#, r#"{"b":1}"#, r#"{"a":null,"b":2}"#, r#"{"b":3}"#]);
    assert_eq!(decoded.origin, [2]);
    assert_eq!(decoded.bad[0].reason, "field `b`: the field is missing at byte 7");
}

#[test]
fn the_prefilter_drops_rows_before_they_are_decoded() {
    let filter = |column: &str, accept| Some(PreFilter { column: column.to_owned(), accept });
    let messages = [
        r#"{"kind":2,"v":"a"}"#,
        r#"{"kind":1,"v":broken"#,
        r#"{"v":"b","kind":1}"#,
        r#"{"v":"c"}"#,
        r#"{"kind":null,"v":"d"}"#,
        r#"{"v":"e","kind":3}"#,
        r#"{"v":"f","kind":"x"}"#,
    ];
    for fields in [vec![field("v", DataType::Utf8)], vec![field("v", DataType::Utf8), field("kind", DataType::Int32)]] {
        let mut filtered = spec(fields);
        filtered.prefilter = filter("kind", Accept::Int(vec![3, 2]));
        let decoded = decode(filtered, &messages);
        assert_eq!(decoded.origin, [0, 5]);
        assert_eq!(decoded.rows.column(0).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("a"), Some("e")]);
        assert_eq!(decoded.bad.iter().map(|b| b.message).collect::<Vec<_>>(), [6]);
    }
    let mut filtered = spec(vec![field("kind", DataType::Int32)]);
    filtered.prefilter = filter("v", Accept::Text(vec!["e".to_owned(), "a".to_owned()]));
    let decoded = decode(filtered, &messages);
    assert_eq!(decoded.origin, [0, 5]);
    let mut refused = spec(vec![field("kind", DataType::Int32)]);
    refused.prefilter = filter("kind", Accept::Text(Vec::new()));
    assert!(decoder(refused).is_err());
}

#[test]
fn rows_without_columns_are_counted() {
    let decoded = decode(spec(Vec::new()), &[r#"{"a":1}"#, "{", "{}"]);
    assert_eq!((decoded.rows.num_rows(), decoded.origin), (2, vec![0, 2]));
}

#[test]
fn batches_do_not_depend_on_each_other() {
    let mut decoder = decoder(spec(all_types())).unwrap();
    let first = decoder.decode(&[FULL.as_bytes(), b"{\"arr\":[1,2", FULL.as_bytes()]).unwrap();
    let second = decoder.decode(&[FULL.as_bytes(), b"{}", FULL.as_bytes()]).unwrap();
    assert_eq!((first.origin, second.origin), (vec![0, 2], vec![0, 1, 2]));
    assert_eq!(shown(&first.rows)[1], shown(&second.rows)[2]);
    assert!(decoder.decode(&[]).unwrap().rows.num_rows() == 0);
}

#[test]
fn encoding_styles() {
    let decoded =
        decode(spec(all_types()), &[r#"{"s":"\u0001\u001f/\\","ts":"2015-07-15 00:00:00.123","f32":1e10,"map":{}}"#]);
    let mut options = FormatOptions::new(FormatKind::Json);
    options.json.omit_nulls = true;
    options.timestamp = TimestampStandard::Iso8601;
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    encoder(&decoded.rows.schema(), &options).unwrap().encode(&decoded.rows, &mut out, &mut ends).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        r#"{"f32":10000000000.0,"s":"\u0001\u001f/\\","ts":"2015-07-15T00:00:00.123Z","map":{}}"#
    );
    let other = RecordBatch::new_empty(Arc::new(Schema::new(vec![field("x", DataType::Int64)])));
    assert!(encoder(&decoded.rows.schema(), &options).unwrap().encode(&other, &mut Vec::new(), &mut ends).is_err());
}

/// Any JSON value; strings and keys are of a small alphabet so that keys collide with those of the schema.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1_000_000_000_i64..1_000_000_000).prop_map(|n| Value::from(n as f64 / 64.0)),
        "[a-c\"\\\\\n\u{e9}\u{1f600}]{0,20}".prop_map(Value::from),
        Just(json!("2015-07-15 00:00:00.123")),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec(("[a-e]", inner), 0..6).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn oracle_schema() -> Vec<Field> {
    vec![
        field("a", DataType::Int64),
        field("b", DataType::Utf8),
        field("c", row(vec![field("a", DataType::Float64), field("b", list(DataType::Utf8))])),
        field("d", map(DataType::Boolean)),
    ]
}

/// What the documented rules make of a value, said again in terms of `serde_json`. `Err` makes the row bad.
fn expect(value: &Value, data_type: &DataType) -> Result<Value, ()> {
    if value.is_null() {
        return Ok(Value::Null);
    }
    match (data_type, value) {
        (DataType::Int64, Value::Number(n)) => match (n.as_i64(), n.as_f64()) {
            (Some(i), _) => Ok(i.into()),
            (None, Some(f)) if n.is_f64() && f.fract() == 0.0 && f.abs() < 9e18 => Ok((f as i64).into()),
            _ => Err(()),
        },
        (DataType::Float64, Value::Number(n)) => Ok(n.as_f64().into()),
        (DataType::Int64 | DataType::Float64, _) => Err(()),
        (DataType::Boolean, Value::Bool(_)) | (DataType::Utf8, Value::String(_)) => Ok(value.clone()),
        (DataType::Boolean, _) => Err(()),
        (DataType::Utf8, other) => Ok(other.to_string().into()),
        (DataType::Struct(fields), Value::Object(map)) => fields
            .iter()
            .map(|f| Ok((f.name().clone(), expect(map.get(f.name()).unwrap_or(&Value::Null), f.data_type())?)))
            .collect::<Result<serde_json::Map<_, _>, ()>>()
            .map(Value::Object),
        (DataType::List(element), Value::Array(items)) => {
            items.iter().map(|i| expect(i, element.data_type())).collect::<Result<Vec<_>, ()>>().map(Value::from)
        }
        (DataType::Map(entries, _), Value::Object(map)) => {
            let DataType::Struct(pair) = entries.data_type() else { return Err(()) };
            map.iter()
                .map(|(k, v)| Ok((k.clone(), expect(v, pair[1].data_type())?)))
                .collect::<Result<serde_json::Map<_, _>, ()>>()
                .map(Value::Object)
        }
        _ => Err(()),
    }
}

fn all_valid(rows: &RecordBatch) {
    let check = |c: &ArrayRef| c.to_data().validate_full().unwrap();
    rows.columns().iter().for_each(check);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn agrees_with_serde(values in prop::collection::vec(any_json(), 1..8), pretty in any::<bool>()) {
        let schema = row(oracle_schema());
        let texts: Vec<String> = values
            .iter()
            .map(|v| if pretty { serde_json::to_string_pretty(v) } else { serde_json::to_string(v) }.unwrap())
            .collect();
        // Text of nested values is kept as it stands; the oracle writes it compactly.
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let decoded = decode(spec(oracle_schema()), &texts);
        let expected: Vec<_> = (0_u32..)
            .zip(&values)
            .filter_map(|(i, v)| v.is_object().then(|| expect(v, &schema).ok()).flatten().map(|e| (i, reread(&e))))
            .collect();
        let got: Vec<(u32, Value)> = decoded
            .origin
            .iter()
            .copied()
            .zip(shown(&decoded.rows).iter().map(|l| compact(&serde_json::from_str(l).unwrap())))
            .collect();
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn floats_are_exact(value in any::<f64>(), single in any::<f32>()) {
        prop_assume!(value.is_finite() && single.is_finite());
        let text = format!(r#"{{"f64":{value:e},"f32":{single}}}"#);
        let decoded = decode(spec(all_types()), &[&text]);
        let column = |name: &str| decoded.rows.column_by_name(name).unwrap();
        prop_assert_eq!(column("f64").as_primitive::<t::Float64Type>().value(0).to_bits(), value.to_bits());
        prop_assert_eq!(column("f32").as_primitive::<t::Float32Type>().value(0).to_bits(), single.to_bits());
    }

    #[test]
    fn no_bytes_make_it_panic(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..6)) {
        let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        let decoded = decoder(spec(all_types())).unwrap().decode(&messages).unwrap();
        prop_assert_eq!(decoded.origin.len() + decoded.bad.len(), messages.len());
        all_valid(&decoded.rows);
    }

    #[test]
    fn mutated_messages(
        edits in prop::collection::vec((0..FULL.len(), prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\",:\\ue0-.".to_vec())], 0..3_u8), 1..4),
        lenient in any::<bool>(),
    ) {
        let mut bytes = FULL.as_bytes().to_vec();
        for (at, byte, how) in edits {
            let at = at.min(bytes.len().saturating_sub(1));
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let mut of_all = spec(all_types());
        if lenient {
            of_all.options.bad_fields = BadFields::Null;
        }
        let decoded = decoder(of_all).unwrap().decode(&[FULL.as_bytes(), &bytes, FULL.as_bytes()]).unwrap();
        all_valid(&decoded.rows);
        prop_assert_eq!(decoded.origin.len() + decoded.bad.len(), 3);
        // The rows around it are untouched.
        let lines = shown(&decoded.rows);
        prop_assert_eq!(lines.first(), lines.last());
    }

    #[test]
    fn skipping_agrees_on_where_a_value_ends(value in any_json(), other in any::<i64>()) {
        let text = format!(r#"{{"skipped":{value},"n":{other}}}"#);
        let decoded = decode(spec(vec![field("n", DataType::Int64)]), &[&text]);
        prop_assert_eq!(decoded.rows.column(0).as_primitive::<t::Int64Type>().value(0), other);
    }
}

/// The value after `serde_json` has written and read it, which may change the last bit of a large float.
fn reread(value: &Value) -> Value {
    serde_json::from_str(&value.to_string()).unwrap()
}

/// Nested text inside strings parsed and written compactly again.
fn compact(value: &Value) -> Value {
    let mut value = value.clone();
    let texts = [value.pointer("/b").cloned()];
    if let [Some(Value::String(text))] = &texts
        && let Ok(inner @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str::<Value>(text)
    {
        value["b"] = inner.to_string().into();
    }
    if let Some(Value::Array(items)) = value.pointer_mut("/c/b") {
        for item in items {
            if let Value::String(text) = item
                && let Ok(inner @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str::<Value>(text)
            {
                *item = inner.to_string().into();
            }
        }
    }
    value
}
