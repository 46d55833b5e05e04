//! `from_json(text, schema)` of Spark: a text's values as a struct, array or map. A text that is no JSON gives a struct of nulls, or null; a
//! value that does not fit its type is null.
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, ListArray, MapArray, StringArray, StructArray, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, FieldRef, Fields};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::ReturnFieldArgs;

use super::scan::{Kind as JsonKind, check, compact, elements, members, unquoted};
use crate::functions::pattern::read_default;
use crate::functions::plain::{Call, Kind, Plain, text_at, written};
use crate::functions::zone::Zone;
use crate::types;

const DAY: i64 = 86_400_000_000;

pub(super) fn functions() -> Vec<Plain> {
    vec![Plain::new("from_json", &[&[Kind::Text, Kind::Text]], schema, from_json)]
}

/// `a INT, b ARRAY<STRING>`, or a whole type.
fn schema(args: &ReturnFieldArgs<'_>, zone: &Zone) -> Result<DataType> {
    let Some(text) = written(args, 1) else {
        return plan_err!(
            "from_json: the schema is a text that is written in the query, such as 'id BIGINT, name STRING'"
        );
    };
    let begins = |word: &str| {
        let rest = text.trim_start().get(word.len()..).map(str::trim_start);
        text.trim_start().get(..word.len()).is_some_and(|w| w.eq_ignore_ascii_case(word))
            && rest.is_some_and(|r| r.starts_with(['<', '(']))
    };
    let parsed = match ["ARRAY", "MAP", "STRUCT", "ROW"].into_iter().any(begins) {
        true => types::parse_text(text),
        false => types::parse_text(&format!("ROW<{text}>")),
    };
    match parsed {
        Ok(t @ (DataType::Struct(_) | DataType::List(_) | DataType::Map(..))) => match unsupported(&t) {
            None => Ok(zone.zoned(&relaxed(&t))),
            Some(inner) => plan_err!("from_json: {} is not supported in a schema", types::name(&inner)),
        },
        Ok(_) => plan_err!("from_json: the schema is one of fields, of an ARRAY or of a MAP"),
        Err(mistake) => plan_err!("from_json: {}", mistake.message),
    }
}

/// The type without NOT NULL: what a record does not have is null, whatever the schema says.
fn relaxed(data_type: &DataType) -> DataType {
    let field = |f: &FieldRef| Arc::new(f.as_ref().clone().with_data_type(relaxed(f.data_type())).with_nullable(true));
    match data_type {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        DataType::List(item) => DataType::List(field(item)),
        DataType::Map(entries, sorted) => match entries.data_type() {
            DataType::Struct(kv) if kv.len() == 2 => {
                let kv = DataType::Struct(Fields::from(vec![kv[0].clone(), field(&kv[1])]));
                DataType::Map(Arc::new(entries.as_ref().clone().with_data_type(kv)), *sorted)
            }
            _ => data_type.clone(),
        },
        other => other.clone(),
    }
}

fn unsupported(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::Struct(fields) => fields.iter().find_map(|f| unsupported(f.data_type())),
        DataType::List(item) => unsupported(item.data_type()),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(kv) if kv.first().is_some_and(|k| *k.data_type() == DataType::Utf8) => {
                kv.get(1).and_then(|v| unsupported(v.data_type()))
            }
            other => Some(other.clone()),
        },
        DataType::Utf8 | DataType::Boolean | DataType::Decimal128(..) | DataType::Date32 | DataType::Timestamp(..) => {
            None
        }
        t if t.is_numeric() => None,
        t => Some(t.clone()),
    }
}

fn from_json(call: &Call<'_>) -> Result<ArrayRef> {
    let json = call.text(0)?;
    let is_struct = matches!(call.gives(), DataType::Struct(_));
    let value = |row: usize| {
        let text = text_at(&json, row)?;
        let found = check(text).map(|w| w.of(text));
        // As Spark's PERMISSIVE mode: a bad text is a row of nulls.
        if is_struct { Some(found.filter(|v| v.starts_with('{')).unwrap_or("{}")) } else { found }
    };
    let rows: Vec<Option<&str>> = (0..call.rows()).map(value).collect();
    build(call.gives(), &rows, call.zone)
}

/// A column of the values of these JSON texts, none of which is wrong.
fn build(data_type: &DataType, rows: &[Option<&str>], zone: &Zone) -> Result<ArrayRef> {
    let of = |kind: JsonKind| move |value: &&str| JsonKind::of(value) == kind;
    Ok(match data_type {
        DataType::Struct(fields) => {
            let objects: Vec<Option<&str>> = rows.iter().map(|r| r.filter(of(JsonKind::Object))).collect();
            structs(fields, &objects, zone)?
        }
        DataType::List(item) => {
            let mut values = Vec::new();
            let mut lengths = Vec::with_capacity(rows.len());
            let lists: Vec<Option<&str>> = rows.iter().map(|r| r.filter(of(JsonKind::Array))).collect();
            for list in &lists {
                let before = values.len();
                if let Some((text, whole)) = list.and_then(|t| Some((t, check(t)?))) {
                    values.extend(elements(text, whole).map(|v| Some(v.of(text))));
                }
                lengths.push(values.len() - before);
            }
            let nulls = NullBuffer::from_iter(lists.iter().map(Option::is_some));
            let values = build(item.data_type(), &values, zone)?;
            Arc::new(ListArray::try_new(item.clone(), OffsetBuffer::from_lengths(lengths), values, Some(nulls))?)
        }
        DataType::Map(entries, sorted) => {
            let DataType::Struct(kv) = entries.data_type() else { return exec_err!("from_json: not a map") };
            let (mut keys, mut values, mut lengths) = (Vec::new(), Vec::new(), Vec::with_capacity(rows.len()));
            let maps: Vec<Option<&str>> = rows.iter().map(|r| r.filter(of(JsonKind::Object))).collect();
            for map in &maps {
                let before = values.len();
                if let Some((text, whole)) = map.and_then(|t| Some((t, check(t)?))) {
                    for (key, value) in members(text, whole) {
                        keys.push(unquoted(key).into_owned());
                        values.push(Some(value.of(text)));
                    }
                }
                lengths.push(values.len() - before);
            }
            let nulls = NullBuffer::from_iter(maps.iter().map(Option::is_some));
            let columns = vec![Arc::new(StringArray::from(keys)) as ArrayRef, build(kv[1].data_type(), &values, zone)?];
            let entry_rows = StructArray::try_new(kv.clone(), columns, None)?;
            let offsets = OffsetBuffer::from_lengths(lengths);
            Arc::new(MapArray::try_new(entries.clone(), offsets, entry_rows, Some(nulls), *sorted)?)
        }
        scalar => scalars(scalar, rows, zone)?,
    })
}

fn structs(fields: &Fields, objects: &[Option<&str>], zone: &Zone) -> Result<ArrayRef> {
    let mut columns: Vec<Vec<Option<&str>>> = vec![vec![None; objects.len()]; fields.len()];
    for (row, object) in objects.iter().enumerate() {
        let Some((text, whole)) = object.and_then(|t| Some((t, check(t)?))) else { continue };
        for (key, value) in members(text, whole) {
            let key = unquoted(key);
            if let Some(field) = fields.iter().position(|f| *f.name() == *key) {
                columns[field][row] = Some(value.of(text));
            }
        }
    }
    let arrays = fields.iter().zip(&columns).map(|(f, c)| build(f.data_type(), c, zone)).collect::<Result<Vec<_>>>()?;
    let nulls = NullBuffer::from_iter(objects.iter().map(Option::is_some));
    Ok(match fields.is_empty() {
        true => Arc::new(StructArray::new_empty_fields(objects.len(), Some(nulls))),
        false => Arc::new(StructArray::try_new(fields.clone(), arrays, Some(nulls))?),
    })
}

fn scalars(data_type: &DataType, rows: &[Option<&str>], zone: &Zone) -> Result<ArrayRef> {
    let present = rows.iter().map(|r| r.filter(|v| JsonKind::of(v) != JsonKind::Null));
    let plain = |value: &str| match JsonKind::of(value) {
        JsonKind::Text => unquoted(value).into_owned(),
        _ => {
            let mut out = String::new();
            compact(value, &mut out);
            out
        }
    };
    Ok(match data_type {
        DataType::Utf8 => Arc::new(present.map(|v| v.map(plain)).collect::<StringArray>()),
        DataType::Boolean => {
            let value = |v: &str| if JsonKind::of(v) == JsonKind::Bool { Some(v == "true") } else { None };
            Arc::new(present.map(|v| v.and_then(value)).collect::<BooleanArray>())
        }
        DataType::Date32 => {
            let days = |v: &str| i32::try_from(read_default(&plain(v))?.local.div_euclid(DAY)).ok();
            Arc::new(present.map(|v| v.filter(|v| v.starts_with('"')).and_then(days)).collect::<Date32Array>())
        }
        DataType::Timestamp(_, of) => {
            let clock = zone.clock();
            let micros = |v: &str| {
                let read = read_default(&plain(v))?;
                let instant = read.offset.map(|o| read.local - i64::from(o) * 1_000_000);
                Some(match (of, instant) {
                    (Some(_), instant) => instant.unwrap_or_else(|| clock.instant(read.local)),
                    (None, instant) => instant.map_or(read.local, |i| clock.local(i)),
                })
            };
            let texts = present.map(|v| v.filter(|v| v.starts_with('"')).and_then(micros));
            let micros = texts.collect::<TimestampMicrosecondArray>().with_timezone_opt(of.clone());
            cast(&micros, data_type)?
        }
        numeric if numeric.is_numeric() => {
            // A number in quotes is a text, as for Spark.
            let numbers = present.map(|v| v.filter(|v| JsonKind::of(v) == JsonKind::Number)).collect::<StringArray>();
            let safe = CastOptions { safe: true, ..CastOptions::default() };
            cast_with_options(&numbers, numeric, &safe)?
        }
        other => new_null_array(other, rows.len()),
    })
}
