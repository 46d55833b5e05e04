//! SQL types of both dialects ⇄ Arrow types.
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use datafusion::sql::sqlparser::tokenizer::Token;

use crate::cursor::Cursor;
use crate::error::{Mistake, Result};

const MAX_DEPTH: usize = 16;

const TYPE_NAMES: &[&str] = &[
    "STRING",
    "VARCHAR",
    "CHAR",
    "TEXT",
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INT",
    "INTEGER",
    "BIGINT",
    "LONG",
    "FLOAT",
    "REAL",
    "DOUBLE",
    "DECIMAL",
    "NUMERIC",
    "BYTES",
    "BINARY",
    "VARBINARY",
    "DATE",
    "TIME",
    "TIMESTAMP",
    "TIMESTAMP_LTZ",
    "TIMESTAMP_NTZ",
    "ROW",
    "STRUCT",
    "ARRAY",
    "MAP",
];

/// Reads a type, with `[NOT] NULL` after nested ones.
pub(crate) fn parse(cursor: &mut Cursor<'_>) -> Result<DataType> {
    parse_nested(cursor, MAX_DEPTH)
}

/// Reads a type from text, such as a connector's declaration of a metadata column.
pub(crate) fn parse_text(text: &str) -> Result<DataType> {
    let statements = crate::lex::statements(text)?;
    match statements.first() {
        Some(tokens) => parse(&mut Cursor::new(tokens)),
        None => Err(Mistake::new(None, "expected a type, found nothing")),
    }
}

fn parse_nested(cursor: &mut Cursor<'_>, depth: usize) -> Result<DataType> {
    let name = cursor.name("a type")?;
    if depth == 0 {
        return Err(Mistake::new(name.at, format!("types are nested more than {MAX_DEPTH} levels deep")));
    }
    Ok(match name.text.to_ascii_uppercase().as_str() {
        "STRING" | "TEXT" => DataType::Utf8,
        "VARCHAR" | "CHAR" => {
            length(cursor)?;
            DataType::Utf8
        }
        "BOOLEAN" | "BOOL" => DataType::Boolean,
        "TINYINT" | "BYTE" => DataType::Int8,
        "SMALLINT" | "SHORT" => DataType::Int16,
        "INT" | "INTEGER" => DataType::Int32,
        "BIGINT" | "LONG" => DataType::Int64,
        "FLOAT" | "REAL" => DataType::Float32,
        "DOUBLE" => {
            cursor.take_words(&["PRECISION"]);
            DataType::Float64
        }
        "DECIMAL" | "DEC" | "NUMERIC" => decimal(cursor)?,
        "BYTES" => DataType::Binary,
        "BINARY" | "VARBINARY" => {
            length(cursor)?;
            DataType::Binary
        }
        "DATE" => DataType::Date32,
        "TIME" => match precision(cursor, 0)? {
            TimeUnit::Second | TimeUnit::Millisecond => DataType::Time32(TimeUnit::Millisecond),
            unit => DataType::Time64(unit),
        },
        "TIMESTAMP" => {
            let unit = precision(cursor, 6)?;
            if cursor.take_words(&["WITH", "LOCAL", "TIME", "ZONE"]) || cursor.take_words(&["WITH", "TIME", "ZONE"]) {
                DataType::Timestamp(unit, Some("UTC".into()))
            } else {
                cursor.take_words(&["WITHOUT", "TIME", "ZONE"]);
                DataType::Timestamp(unit, None)
            }
        }
        "TIMESTAMP_LTZ" => DataType::Timestamp(precision(cursor, 6)?, Some("UTC".into())),
        "TIMESTAMP_NTZ" => DataType::Timestamp(precision(cursor, 6)?, None),
        "ARRAY" => {
            cursor.expect(&Token::Lt)?;
            let item = nullable(cursor, depth)?;
            close(cursor)?;
            DataType::List(Arc::new(Field::new("item", item.0, item.1)))
        }
        "MAP" => {
            cursor.expect(&Token::Lt)?;
            let key = nullable(cursor, depth)?;
            cursor.expect(&Token::Comma)?;
            let value = nullable(cursor, depth)?;
            close(cursor)?;
            let entry = Fields::from(vec![Field::new("key", key.0, false), Field::new("value", value.0, value.1)]);
            DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entry), false)), false)
        }
        "ROW" | "STRUCT" => row(cursor, depth)?,
        other => {
            let mistake = Mistake::new(name.at, format!("unknown type '{}'", name.text));
            return Err(match millstream_plan::options::did_you_mean(other, TYPE_NAMES.iter().copied()) {
                Some(like) => mistake.hint(format!("did you mean {like}?")),
                None => mistake.hint(format!("types are {}", TYPE_NAMES.join(", "))),
            });
        }
    })
}

/// A type and whether it may be null.
fn nullable(cursor: &mut Cursor<'_>, depth: usize) -> Result<(DataType, bool)> {
    let data_type = parse_nested(cursor, depth - 1)?;
    let not_null = cursor.take_words(&["NOT", "NULL"]);
    if !not_null {
        cursor.take_words(&["NULL"]);
    }
    Ok((data_type, !not_null))
}

/// `<name type, …>`, `(name type, …)` or Spark's `<name: type, …>`.
fn row(cursor: &mut Cursor<'_>, depth: usize) -> Result<DataType> {
    let round = cursor.take(&Token::LParen);
    if !round {
        cursor.expect(&Token::Lt)?;
    }
    let mut fields: Vec<Field> = Vec::new();
    loop {
        let name = cursor.name("the name of a field")?;
        cursor.take(&Token::Colon);
        let (data_type, null) = nullable(cursor, depth)?;
        if cursor.take_words(&["COMMENT"]) {
            cursor.string("a comment in single quotes")?;
        } else if matches!(cursor.peek(), Token::SingleQuotedString(_)) {
            cursor.advance();
        }
        if fields.iter().any(|f| *f.name() == name.text) {
            return Err(Mistake::new(name.at, format!("field '{}' is declared twice", name.text)));
        }
        fields.push(Field::new(name.text, data_type, null));
        if !cursor.take(&Token::Comma) {
            break;
        }
    }
    if round {
        cursor.expect(&Token::RParen)?
    } else {
        close(cursor)?
    }
    Ok(DataType::Struct(fields.into()))
}

/// `>`; the lexer has made two of `>>`.
fn close(cursor: &mut Cursor<'_>) -> Result<()> {
    cursor.expect(&Token::Gt)
}

fn length(cursor: &mut Cursor<'_>) -> Result<()> {
    if cursor.take(&Token::LParen) {
        if !cursor.take_words(&["MAX"]) {
            cursor.number("a length")?;
        }
        cursor.expect(&Token::RParen)?;
    }
    Ok(())
}

fn precision(cursor: &mut Cursor<'_>, default: u64) -> Result<TimeUnit> {
    let at = cursor.at();
    let mut digits = default;
    if cursor.take(&Token::LParen) {
        digits = cursor.number("a precision from 0 to 9")?;
        cursor.expect(&Token::RParen)?;
    }
    match digits {
        0 => Ok(TimeUnit::Second),
        1..=3 => Ok(TimeUnit::Millisecond),
        4..=6 => Ok(TimeUnit::Microsecond),
        7..=9 => Ok(TimeUnit::Nanosecond),
        _ => Err(Mistake::new(at, format!("precision {digits} is not between 0 and 9"))),
    }
}

fn decimal(cursor: &mut Cursor<'_>) -> Result<DataType> {
    let at = cursor.at();
    let (mut digits, mut scale) = (10, 0);
    if cursor.take(&Token::LParen) {
        digits = cursor.number("a number of digits")?;
        if cursor.take(&Token::Comma) {
            scale = cursor.number("a number of decimals")?;
        }
        cursor.expect(&Token::RParen)?;
    }
    match (u8::try_from(digits), i8::try_from(scale)) {
        (Ok(p @ 1..=38), Ok(s)) if u64::from(p) >= scale => Ok(DataType::Decimal128(p, s)),
        _ => Err(Mistake::new(at, format!("DECIMAL({digits}, {scale}) is not possible"))
            .hint("write 1 to 38 digits and at most as many decimals")),
    }
}

/// The SQL spelling of an Arrow type, as error messages and `explain` show it.
pub(crate) fn name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "STRING".into(),
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::Float32 => "FLOAT".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Decimal128(p, s) => format!("DECIMAL({p}, {s})"),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTES".into(),
        DataType::Date32 => "DATE".into(),
        DataType::Time32(_) => "TIME(3)".into(),
        DataType::Time64(unit) => format!("TIME({})", digits(*unit)),
        DataType::Timestamp(unit, None) => format!("TIMESTAMP({})", digits(*unit)),
        DataType::Timestamp(unit, Some(_)) => format!("TIMESTAMP_LTZ({})", digits(*unit)),
        DataType::List(item) => format!("ARRAY<{}>", name(item.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<_> = fields.iter().map(|f| format!("{} {}", f.name(), name(f.data_type()))).collect();
            format!("ROW<{}>", fields.join(", "))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(f) if f.len() == 2 => {
                format!("MAP<{}, {}>", name(f[0].data_type()), name(f[1].data_type()))
            }
            _ => "MAP".into(),
        },
        DataType::Null => "NULL".into(),
        DataType::Interval(_) => "INTERVAL".into(),
        other => other.to_string(),
    }
}

fn digits(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn types_of_both_dialects() {
        for (sql, shown) in [
            ("varchar(20)", "STRING"),
            ("INTEGER", "INT"),
            ("TIMESTAMP", "TIMESTAMP(6)"),
            ("TIMESTAMP(3) WITH LOCAL TIME ZONE", "TIMESTAMP_LTZ(3)"),
            ("DECIMAL(23, 3)", "DECIMAL(23, 3)"),
            ("ROW<a BIGINT NOT NULL, `b c` ARRAY<ROW<d INT>>>", "ROW<a BIGINT, b c ARRAY<ROW<d INT>>>"),
            ("STRUCT<a: LONG, b: MAP<STRING, DOUBLE>>", "ROW<a BIGINT, b MAP<STRING, DOUBLE>>"),
            ("ROW(a INT 'a comment', b TIME)", "ROW<a INT, b TIME(3)>"),
        ] {
            assert_eq!(name(&parse_text(sql).unwrap()), shown);
        }
    }

    #[test]
    fn mistakes_in_types() {
        for (sql, part) in
            [("STRNG", "unknown type 'STRNG'"), ("DECIMAL(40, 2)", "not possible"), ("TIMESTAMP(12)", "not between")]
        {
            assert!(parse_text(sql).unwrap_err().message.contains(part), "{sql}");
        }
        let deep = format!("{}INT{}", "ARRAY<".repeat(1000), ">".repeat(1000));
        assert!(parse_text(&deep).unwrap_err().message.contains("nested more than"));
    }
}
