//! Functions that look into JSON.
//!
//! The clauses of SQL's functions come as arguments (see `json_clauses`): `JSON_VALUE(json, path, type, on empty, default, on error, default)`,
//! where the type is a null of that type; `JSON_QUERY(json, path, wrapper, on empty, on error)`; `JSON_EXISTS(json, path, on error)`.
//!
//! As in Flink (Calcite): a JSON null is empty; a path with `*` gives the array of what it finds; what is not there is empty for a lax path
//! and an error for a strict one.
use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, BooleanBuilder, Int32Array, ListBuilder, StringArray, StringBuilder, new_null_array,
};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::DataType;
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::ReturnFieldArgs;

use super::path::{Found, Path, Repeated, member};
use super::scan::{Kind as JsonKind, Span, check, compact, elements, members, quote, unquoted};
use crate::functions::plain::{Call, Kind, Plain, at, boolean, int, text, text_at, texts, written};
use Kind::{Any, Integer, Text};

pub(super) fn functions() -> Vec<Plain> {
    vec![
        Plain::new("get_json_object", &[&[Text, Text]], text, get_json_object)
            .checked(|a| path_at(a, Path::spark, "get_json_object")),
        Plain::new("json_value", &[&[Text, Text], &[Text, Text, Any, Text, Any, Text, Any]], value_type, json_value)
            .checked(|a| path_at(a, Path::sql, "json_value")),
        Plain::new("json_query", &[&[Text, Text], &[Text, Text, Text, Text, Text]], text, json_query)
            .checked(|a| path_at(a, Path::sql, "json_query")),
        Plain::new("json_exists", &[&[Text, Text], &[Text, Text, Text]], boolean, json_exists)
            .checked(|a| path_at(a, Path::sql, "json_exists")),
        Plain::new("is_json", &[&[Text, Text]], boolean, is_json),
        Plain::new("json_get", &[&[Text, Text], &[Text, Integer]], text, |c| get(c, false)),
        Plain::new("json_get_text", &[&[Text, Text], &[Text, Integer]], text, |c| get(c, true)),
        Plain::new("json_array_length", &[&[Text]], int, json_array_length),
        Plain::new("json_object_keys", &[&[Text]], texts, json_object_keys),
        Plain::new("json_unquote", &[&[Text]], text, json_unquote),
        Plain::new("json_quote", &[&[Text]], text, json_quote),
    ]
}

type ReadPath = fn(&str) -> std::result::Result<Path, String>;

/// A path that is written in the query fails there and not at the first row.
fn path_at(args: &ReturnFieldArgs<'_>, read: ReadPath, function: &str) -> Result<()> {
    match written(args, 1).map(read) {
        Some(Err(why)) => plan_err!("{function}: {why}"),
        _ => Ok(()),
    }
}

/// A text for each row.
fn each(call: &Call<'_>, mut row: impl FnMut(usize, &mut String) -> Result<bool>) -> Result<ArrayRef> {
    let mut out = StringBuilder::with_capacity(call.rows(), call.rows() * 16);
    let mut buffer = String::new();
    for i in 0..call.rows() {
        buffer.clear();
        match row(i, &mut buffer)? {
            true => out.append_value(&buffer),
            false => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// The path of each row; the last one is kept, as they are constant nearly always. `None`: the row's path is none.
struct Paths {
    texts: StringArray,
    parse: ReadPath,
    known: Option<(String, Option<Path>)>,
}

impl Paths {
    fn new(call: &Call<'_>, parse: ReadPath) -> Result<Self> {
        Ok(Self { texts: call.text(1)?, parse, known: None })
    }

    fn get(&mut self, row: usize) -> Option<&Path> {
        let source = text_at(&self.texts, row)?;
        if self.known.as_ref().is_none_or(|(known, _)| known != source) {
            self.known = Some((source.to_owned(), (self.parse)(source).ok()));
        }
        self.known.as_ref().and_then(|(_, path)| path.as_ref())
    }
}

/// Appends a scalar's characters or a structure's text.
fn write_plain(value: &str, out: &mut String) {
    match JsonKind::of(value) {
        JsonKind::Text => out.push_str(&unquoted(value)),
        _ => compact(value, out),
    }
}

fn write_list(text: &str, values: &[Span], out: &mut String) {
    out.push('[');
    for (i, value) in values.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        compact(value.of(text), out);
    }
    out.push(']');
}

fn get_json_object(call: &Call<'_>) -> Result<ArrayRef> {
    let json = call.text(0)?;
    let mut paths = Paths::new(call, Path::spark)?;
    each(call, |row, out| {
        let (Some(text), Some(path)) = (text_at(&json, row), paths.get(row)) else { return Ok(false) };
        let Some(whole) = check(text) else { return Ok(false) };
        match path.find(text, whole, Repeated::First) {
            Found::One(value) if JsonKind::of(value.of(text)) != JsonKind::Null => write_plain(value.of(text), out),
            Found::Nothing | Found::One(_) => return Ok(false),
            // Spark writes what one * finds as it is if it is one value.
            Found::Each(values) => match values.as_slice() {
                [] => return Ok(false),
                [one] => compact(one.of(text), out),
                many => write_list(text, many, out),
            },
        }
        Ok(true)
    })
}

fn value_type(args: &ReturnFieldArgs<'_>, _: &crate::functions::zone::Zone) -> Result<DataType> {
    match args.arg_fields.get(2).map(|f| f.data_type()) {
        None | Some(DataType::Utf8 | DataType::Null) => Ok(DataType::Utf8),
        Some(t @ (DataType::Boolean | DataType::Int32 | DataType::Int64 | DataType::Float64)) => Ok(t.clone()),
        Some(_) => plan_err!(
            "json_value: RETURNING takes STRING, BOOLEAN, INTEGER, BIGINT or DOUBLE; CAST the text to another type"
        ),
    }
}

/// What became of a row of a function with ON EMPTY and ON ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Null,
    Value,
    Empty,
    Error,
}

/// The value that `found` is for SQL, and whether it may be taken as a scalar or a structure.
fn sql_value<'t>(text: &'t str, found: &Found) -> Option<Cow<'t, str>> {
    match found {
        Found::Nothing => None,
        Found::One(value) => Some(Cow::Borrowed(value.of(text))),
        Found::Each(values) => {
            let mut list = String::new();
            write_list(text, values, &mut list);
            Some(Cow::Owned(list))
        }
    }
}

fn json_value(call: &Call<'_>) -> Result<ArrayRef> {
    let json = call.text(0)?;
    let mut paths = Paths::new(call, Path::sql)?;
    let mut outcomes = Vec::with_capacity(call.rows());
    let values = each(call, |row, out| {
        let outcome = match (text_at(&json, row), paths.get(row)) {
            (Some(text), Some(path)) => scalar(text, path, out),
            _ => Outcome::Null,
        };
        outcomes.push(outcome);
        Ok(outcome == Outcome::Value)
    })?;
    let safe = CastOptions { safe: true, ..CastOptions::default() };
    let typed = cast_with_options(&values, call.gives(), &safe)?;
    // What does not read as the type is an error too.
    for (row, outcome) in outcomes.iter_mut().enumerate() {
        if *outcome == Outcome::Value && typed.is_null(row) {
            *outcome = Outcome::Error;
        }
    }
    let typed = instead(call, typed, &outcomes, Outcome::Empty, 3)?;
    instead(call, typed, &outcomes, Outcome::Error, 5)
}

fn scalar(text: &str, path: &Path, out: &mut String) -> Outcome {
    let missing = if path.strict { Outcome::Error } else { Outcome::Empty };
    let Some(whole) = check(text) else { return Outcome::Error };
    let Some(value) = sql_value(text, &path.find(text, whole, Repeated::Last)) else { return missing };
    match JsonKind::of(&value) {
        JsonKind::Null => Outcome::Empty,
        kind if kind.is_scalar() => {
            write_plain(&value, out);
            Outcome::Value
        }
        _ => missing,
    }
}

/// Puts the default of argument `mode + 1` where the outcome is `which`, or fails, by what argument `mode` says.
fn instead(call: &Call<'_>, values: ArrayRef, outcomes: &[Outcome], which: Outcome, mode: usize) -> Result<ArrayRef> {
    let said = if mode < call.count() { call.constant(mode).flatten() } else { None };
    if !outcomes.contains(&which) || said.is_none_or(|m| m == "null") {
        return Ok(values);
    }
    if said == Some("error") {
        return exec_err!("json_value: {}", failed(which));
    }
    let mask: BooleanArray = outcomes.iter().map(|o| Some(*o == which)).collect();
    let default = cast(&call.array(mode + 1)?, call.gives())?;
    Ok(zip(&mask, &default, &values)?)
}

fn failed(which: Outcome) -> &'static str {
    match which {
        Outcome::Empty => "the path finds nothing in a record, and the query says ERROR ON EMPTY",
        _ => "a record does not fit the path or the type, and the query says ERROR ON ERROR",
    }
}

fn json_query(call: &Call<'_>) -> Result<ArrayRef> {
    let json = call.text(0)?;
    let mut paths = Paths::new(call, Path::sql)?;
    let mode = |i: usize| if i < call.count() { call.constant(i).flatten().unwrap_or("null") } else { "null" };
    let wrapper = mode(2);
    each(call, |row, out| {
        let (Some(text), Some(path)) = (text_at(&json, row), paths.get(row)) else { return Ok(false) };
        let outcome = structure(text, path, wrapper, out);
        let said = match outcome {
            Outcome::Value => return Ok(true),
            Outcome::Null => return Ok(false),
            Outcome::Empty => mode(3),
            Outcome::Error => mode(4),
        };
        match said {
            "empty array" => out.push_str("[]"),
            "empty object" => out.push_str("{}"),
            "error" => return exec_err!("json_query: {}", failed(outcome)),
            _ => return Ok(false),
        }
        Ok(true)
    })
}

fn structure(text: &str, path: &Path, wrapper: &str, out: &mut String) -> Outcome {
    let missing = if path.strict { Outcome::Error } else { Outcome::Empty };
    let Some(whole) = check(text) else { return Outcome::Error };
    let Some(value) = sql_value(text, &path.find(text, whole, Repeated::Last)) else { return missing };
    let kind = JsonKind::of(&value);
    let wrapped = match wrapper {
        "unconditional" => true,
        "conditional" => kind != JsonKind::Array,
        _ => false,
    };
    match (kind, wrapped) {
        (JsonKind::Null, _) => return Outcome::Empty,
        (_, true) => {
            out.push('[');
            compact(&value, out);
            out.push(']');
        }
        (kind, false) if kind.is_scalar() => return missing,
        (_, false) => compact(&value, out),
    }
    Outcome::Value
}

fn json_exists(call: &Call<'_>) -> Result<ArrayRef> {
    let json = call.text(0)?;
    let mut paths = Paths::new(call, Path::sql)?;
    let said = if call.count() > 2 { call.constant(2).flatten().unwrap_or("false") } else { "false" };
    let mut out = BooleanBuilder::with_capacity(call.rows());
    for row in 0..call.rows() {
        let (Some(text), Some(path)) = (text_at(&json, row), paths.get(row)) else {
            out.append_null();
            continue;
        };
        let found = check(text).map(|whole| path.find(text, whole, Repeated::Last));
        match found {
            Some(Found::One(value)) => out.append_value(JsonKind::of(value.of(text)) != JsonKind::Null),
            Some(Found::Each(values)) => out.append_value(!values.is_empty()),
            Some(Found::Nothing) if !path.strict => out.append_value(false),
            Some(Found::Nothing) | None => match said {
                "true" => out.append_value(true),
                "unknown" => out.append_null(),
                "error" => return exec_err!("json_exists: {}", failed(Outcome::Error)),
                _ => out.append_value(false),
            },
        }
    }
    Ok(Arc::new(out.finish()))
}

fn is_json(call: &Call<'_>) -> Result<ArrayRef> {
    let json = call.text(0)?;
    let kind = call.constant(1).flatten().unwrap_or("value");
    let is = |text: &str| {
        let found = check(text).map(|value| JsonKind::of(value.of(text)));
        found.is_some_and(|found| match kind {
            "object" => found == JsonKind::Object,
            "array" => found == JsonKind::Array,
            "scalar" => found.is_scalar(),
            _ => true,
        })
    };
    Ok(Arc::new((0..call.rows()).map(|row| Some(text_at(&json, row).is_some_and(is))).collect::<BooleanArray>()))
}

/// `->` and `->>`: the member of this name, or the element at this place (from the end where it is negative).
fn get(call: &Call<'_>, as_text: bool) -> Result<ArrayRef> {
    let json = call.text(0)?;
    let by_name = call.args.args[1].data_type() == DataType::Utf8;
    let names = if by_name { Some(call.text(1)?) } else { None };
    let places = if by_name { None } else { Some(call.integers(1)?) };
    each(call, |row, out| {
        let Some(text) = text_at(&json, row) else { return Ok(false) };
        let Some(whole) = check(text) else { return Ok(false) };
        let found = match (&names, &places) {
            (Some(names), _) => text_at(names, row).and_then(|name| member(text, whole, name, Repeated::Last)),
            (None, Some(places)) => at(places, row).and_then(|place| {
                let count = if place < 0 { elements(text, whole).count() as i64 } else { 0 };
                usize::try_from(place + count).ok().and_then(|place| elements(text, whole).nth(place))
            }),
            (None, None) => None,
        };
        match found.map(|value| value.of(text)) {
            None => Ok(false),
            Some(value) if as_text && JsonKind::of(value) == JsonKind::Null => Ok(false),
            Some(value) if as_text => {
                write_plain(value, out);
                Ok(true)
            }
            Some(value) => {
                compact(value, out);
                Ok(true)
            }
        }
    })
}

fn json_array_length(call: &Call<'_>) -> Result<ArrayRef> {
    let json = call.text(0)?;
    let length = |text: &str| {
        let whole = check(text).filter(|w| JsonKind::of(w.of(text)) == JsonKind::Array)?;
        i32::try_from(elements(text, whole).count()).ok()
    };
    Ok(Arc::new(json.iter().map(|t| t.and_then(length)).collect::<Int32Array>()))
}

fn json_object_keys(call: &Call<'_>) -> Result<ArrayRef> {
    let json = call.text(0)?;
    let mut out = ListBuilder::new(StringBuilder::new());
    for text in &json {
        let whole = text.and_then(|t| check(t).filter(|w| JsonKind::of(w.of(t)) == JsonKind::Object));
        let (Some(text), Some(whole)) = (text, whole) else {
            out.append_null();
            continue;
        };
        members(text, whole).for_each(|(key, _)| out.values().append_value(unquoted(key)));
        out.append(true);
    }
    match json.is_empty() {
        true => Ok(new_null_array(call.gives(), 0)),
        false => Ok(Arc::new(out.finish())),
    }
}

/// A text in quotes is its characters; anything else stays as it is, as in Flink.
fn json_unquote(call: &Call<'_>) -> Result<ArrayRef> {
    let json = call.text(0)?;
    each(call, |row, out| {
        let Some(text) = text_at(&json, row) else { return Ok(false) };
        match check(text) {
            Some(value) if JsonKind::of(value.of(text)) == JsonKind::Text => out.push_str(&unquoted(value.of(text))),
            _ => out.push_str(text),
        }
        Ok(true)
    })
}

fn json_quote(call: &Call<'_>) -> Result<ArrayRef> {
    let plain = call.text(0)?;
    each(call, |row, out| {
        let Some(text) = text_at(&plain, row) else { return Ok(false) };
        quote(text, out);
        Ok(true)
    })
}
