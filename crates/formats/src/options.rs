//! Options of the formats: the declared table, and what it is parsed into once.
use std::fmt;

use millstream_plan::options::{OptionError, OptionKind, OptionSpec, Resolved};

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FormatKind {
    /// One JSON object per message or line.
    Json,
    /// One record per message or line; columns by position.
    Csv,
    /// Whole files.
    Parquet,
    /// The message is the value of the only column.
    Raw,
    /// One change per message or line, as Debezium writes it: see [`crate::debezium`].
    DebeziumJson,
}

impl FormatKind {
    /// Name in SQL options.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
            Self::Raw => "raw",
            Self::DebeziumJson => "debezium-json",
        }
    }

    /// Its messages are changes of rows.
    #[must_use]
    pub fn is_changelog(self) -> bool {
        self == Self::DebeziumJson
    }

    /// The format called `name` in SQL options, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Json, Self::Csv, Self::Parquet, Self::Raw, Self::DebeziumJson];
        all.into_iter().find(|k| k.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for FormatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an unparsable field does to its row. Broken syntax makes the whole message bad in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BadFields {
    /// The row is bad.
    #[default]
    Reject,
    /// The field becomes null, unless it is declared NOT NULL.
    Null,
}

/// How timestamps are written. On input both forms and epoch milliseconds are always understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampStandard {
    /// `2020-01-01 00:00:00.123`
    #[default]
    Sql,
    /// `2020-01-01T00:00:00.123Z`
    Iso8601,
}

/// Compression of whole files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    /// Parquet only.
    Snappy,
    /// JSON and CSV only.
    Gzip,
    Zstd,
}

/// Options of JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonOptions {
    /// A declared column that is missing in a message makes it bad, also if it is nullable.
    pub fail_on_missing: bool,
    /// Leave null fields out instead of writing `null`.
    pub omit_nulls: bool,
}

/// Options of CSV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvOptions {
    /// Between fields.
    pub delimiter: u8,
    /// Around fields that hold a delimiter, a quote or a line end; a quote inside is doubled. `None`: no quoting.
    pub quote: Option<u8>,
    /// Makes the next byte ordinary. `None`: no escaping.
    pub escape: Option<u8>,
    /// Files begin with a line of names, skipped on input.
    pub header: bool,
    /// Unquoted text that means null. Unset, the empty field is null, on input and output.
    pub null_literal: Option<String>,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self { delimiter: b',', quote: Some(b'"'), escape: None, header: false, null_literal: None }
    }
}

/// Options of Parquet files that are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParquetOptions {
    /// Rows per row group; the last one of a file has fewer.
    pub row_group_rows: usize,
}

impl Default for ParquetOptions {
    fn default() -> Self {
        Self { row_group_rows: 1 << 20 }
    }
}

/// Options of changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DebeziumOptions {
    /// Columns by which rows are known: changes are then upserts, of what was there before only these columns count, and
    /// it may be missing. Empty: a change must say which row goes.
    pub key: Vec<String>,
    /// Messages are to be `{schema, payload}`. On input both forms are always understood.
    pub schema_include: bool,
}

/// A format with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatOptions {
    pub kind: FormatKind,
    pub bad_fields: BadFields,
    pub timestamp: TimestampStandard,
    /// Names of all physical columns of the table in declared order, for formats that know columns by position (CSV).
    /// If empty, the columns of the decoder's schema are all there are.
    pub columns: Vec<String>,
    /// Compression of files that are written. Files that are read say theirs themselves.
    pub compression: Compression,
    pub json: JsonOptions,
    pub csv: CsvOptions,
    pub parquet: ParquetOptions,
    pub debezium: DebeziumOptions,
}

impl FormatOptions {
    /// `kind` with the defaults.
    #[must_use]
    pub fn new(kind: FormatKind) -> Self {
        Self {
            kind,
            bad_fields: BadFields::default(),
            timestamp: TimestampStandard::default(),
            columns: Vec::new(),
            compression: if kind == FormatKind::Parquet { Compression::Snappy } else { Compression::None },
            json: JsonOptions::default(),
            csv: CsvOptions::default(),
            parquet: ParquetOptions::default(),
            debezium: DebeziumOptions::default(),
        }
    }

    /// Reads the options of [`FORMAT_OPTIONS`]; `bad-records` = `null`, where declared, makes bad fields null. `None`
    /// if no format is given.
    ///
    /// # Errors
    /// A value that does not fit.
    pub fn from_resolved(resolved: &Resolved) -> Result<Option<Self>, OptionError> {
        let Some(name) = resolved.text("format") else { return Ok(None) };
        let Some(kind) = FormatKind::from_name(name) else {
            return Err(OptionError::new(resolved.given_as("format"), format!("there is no format '{name}'")));
        };
        let mut options = Self::new(kind);
        let null_fields = resolved.text("bad-records").is_some_and(|v| v.eq_ignore_ascii_case("null"));
        if null_fields || resolved.is_true("ignore-parse-errors") {
            options.bad_fields = BadFields::Null;
        }
        if resolved.text("timestamp-format.standard").is_some_and(|v| v.eq_ignore_ascii_case("ISO-8601")) {
            options.timestamp = TimestampStandard::Iso8601;
        }
        options.json.fail_on_missing = resolved.is_true("json.fail-on-missing-field");
        options.json.omit_nulls = resolved.is_true("json.encode.ignore-null-fields");
        options.debezium.schema_include = resolved.is_true("debezium-json.schema-include");
        options.csv = csv_options(resolved)?;
        if let Some(rows) = resolved.integer("parquet.row-group-rows") {
            options.parquet.row_group_rows = usize::try_from(rows).ok().filter(|r| *r > 0).ok_or_else(|| {
                OptionError::new(resolved.given_as("parquet.row-group-rows"), "a row group has at least one row")
            })?;
        }
        if let Some(compression) = resolved.text("compression") {
            options.compression = file_compression(kind, compression, resolved.given_as("compression"))?;
        }
        Ok(Some(options))
    }
}

fn csv_options(resolved: &Resolved) -> Result<CsvOptions, OptionError> {
    let mut csv = CsvOptions::default();
    if let Some(delimiter) = one_byte(resolved, "csv.field-delimiter")? {
        csv.delimiter = delimiter;
    }
    if let Some(quote) = one_byte(resolved, "csv.quote-character")? {
        csv.quote = Some(quote);
    }
    if resolved.is_true("csv.disable-quote-character") {
        csv.quote = None;
    }
    csv.escape = one_byte(resolved, "csv.escape-character")?.filter(|e| csv.quote != Some(*e));
    csv.header = resolved.is_true("csv.header");
    csv.null_literal = resolved.text("csv.null-literal").map(str::to_owned);
    let special = [Some(csv.delimiter), csv.quote, csv.escape];
    if special.contains(&Some(b'\n')) || special.contains(&Some(b'\r')) || csv.quote == Some(csv.delimiter) {
        let name = resolved.given_as("csv.field-delimiter");
        return Err(OptionError::new(
            name,
            "delimiter, quote and escape must differ from each other and from line ends",
        ));
    }
    Ok(csv)
}

/// The value of a one-character option, where `\t` and the like are understood as in Flink.
fn one_byte(resolved: &Resolved, name: &str) -> Result<Option<u8>, OptionError> {
    match resolved.text(name) {
        None => Ok(None),
        Some("\\t") => Ok(Some(b'\t')),
        Some("\\\\") => Ok(Some(b'\\')),
        Some(text) => match *text.as_bytes() {
            [byte] if byte.is_ascii() => Ok(Some(byte)),
            _ => Err(OptionError::new(resolved.given_as(name), format!("'{text}' is not one ASCII character"))),
        },
    }
}

fn file_compression(kind: FormatKind, value: &str, given_as: &str) -> Result<Compression, OptionError> {
    let compression = match value.to_ascii_lowercase().as_str() {
        "snappy" => Compression::Snappy,
        "gzip" => Compression::Gzip,
        "zstd" => Compression::Zstd,
        _ => Compression::None,
    };
    let (refused, instead) = match kind {
        FormatKind::Parquet => (Compression::Gzip, "snappy, zstd or none"),
        _ => (Compression::Snappy, "gzip, zstd or none"),
    };
    if compression == refused {
        return Err(OptionError::new(given_as, format!("{kind} files are not written with {value}"))
            .with_hint(format!("use {instead}")));
    }
    Ok(compression)
}

const fn option(
    name: &'static str,
    synonyms: &'static [&'static str],
    kind: OptionKind,
    default: Option<&'static str>,
    text: &'static str,
) -> OptionSpec {
    OptionSpec { name, synonyms, kind, default, text }
}

/// Options that every connector with a format takes.
pub const FORMAT_OPTIONS: &[OptionSpec] = &[
    option(
        "format",
        &["value.format"],
        OptionKind::Choice(&["json", "csv", "parquet", "raw", "debezium-json"]),
        None,
        "Format of the values or files; debezium-json holds changes of rows.",
    ),
    option(
        "ignore-parse-errors",
        &["json.ignore-parse-errors", "csv.ignore-parse-errors", "debezium-json.ignore-parse-errors"],
        OptionKind::Bool,
        Some("false"),
        "A field that cannot be parsed becomes null instead of making its row bad.",
    ),
    option(
        "timestamp-format.standard",
        &["json.timestamp-format.standard", "csv.timestamp-format.standard", "debezium-json.timestamp-format.standard"],
        OptionKind::Choice(&["SQL", "ISO-8601"]),
        Some("SQL"),
        "How timestamps are written: SQL is `2020-01-01 00:00:00.123`, ISO-8601 is `2020-01-01T00:00:00.123Z`. Both are always read.",
    ),
    option(
        "json.fail-on-missing-field",
        &[],
        OptionKind::Bool,
        Some("false"),
        "A message without one of the declared fields is bad; otherwise the field is null.",
    ),
    option(
        "json.encode.ignore-null-fields",
        &["ignoreNullFields", "debezium-json.encode.ignore-null-fields"],
        OptionKind::Bool,
        Some("false"),
        "Leave null fields out of written JSON.",
    ),
    option(
        "debezium-json.schema-include",
        &[],
        OptionKind::Bool,
        Some("false"),
        "Whether records are `{schema, payload}`. Both forms are always read; only the one without schema is written.",
    ),
    option(
        "csv.field-delimiter",
        &["delimiter", "sep"],
        OptionKind::Text,
        Some(","),
        "Character between fields; `\\t` is a tab.",
    ),
    option("csv.quote-character", &["quote"], OptionKind::Text, Some("\""), "Character around fields that need it."),
    option(
        "csv.disable-quote-character",
        &[],
        OptionKind::Bool,
        Some("false"),
        "Quotes are ordinary characters; fields cannot hold delimiters.",
    ),
    option("csv.escape-character", &["escape"], OptionKind::Text, None, "Character that makes the next one ordinary."),
    option("csv.header", &["header"], OptionKind::Bool, Some("false"), "Files begin with a line of column names."),
    option(
        "csv.null-literal",
        &["nullValue"],
        OptionKind::Text,
        None,
        "Unquoted text that means null; by default the empty field.",
    ),
    option(
        "compression",
        &["parquet.compression"],
        OptionKind::Choice(&["none", "uncompressed", "snappy", "gzip", "zstd"]),
        None,
        "Compression of written files: snappy (default of Parquet), zstd, gzip (JSON and CSV), none.",
    ),
    option(
        "parquet.row-group-rows",
        &[],
        OptionKind::Integer,
        Some("1048576"),
        "Rows per row group of written Parquet files.",
    ),
];

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use millstream_plan::options::resolve;

    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Option<FormatOptions>, OptionError> {
        let given = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        FormatOptions::from_resolved(&resolve(&[FORMAT_OPTIONS], &[], &given)?)
    }

    #[test]
    fn both_dialects() {
        assert_eq!(parse(&[]).unwrap(), None);
        let flink = parse(&[
            ("format", "csv"),
            ("csv.field-delimiter", "\\t"),
            ("csv.null-literal", "NULL"),
            ("csv.ignore-parse-errors", "true"),
        ]);
        let spark = parse(&[("format", "csv"), ("sep", "\t"), ("nullValue", "NULL"), ("ignore-parse-errors", "true")]);
        let flink = flink.unwrap().unwrap();
        assert_eq!(flink, spark.unwrap().unwrap());
        assert_eq!((flink.csv.delimiter, flink.bad_fields), (b'\t', BadFields::Null));
    }

    #[test]
    fn values_that_do_not_fit() {
        let error = parse(&[("format", "parquet"), ("compression", "gzip")]).unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("use snappy, zstd or none"));
        assert!(parse(&[("format", "csv"), ("sep", "::")]).unwrap_err().message.contains("one ASCII character"));
        assert!(parse(&[("format", "csv"), ("sep", "\"")]).unwrap_err().message.contains("must differ"));
        assert!(parse(&[("format", "parquet"), ("parquet.row-group-rows", "0")]).is_err());
    }
}
