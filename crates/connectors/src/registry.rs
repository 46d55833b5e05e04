//! Connectors by name, with the options that each declares.
use millstream_plan::options::{OptionKind, OptionSpec, Resolved};

use crate::{ConnectorError, SinkFactory, SinkSpec, SourceFactory, SourceSpec};
use crate::{console, files, generate, kafka};

/// In which place of a pipeline a table stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Source,
    Sink,
}

/// What of a table's declaration decides how its rows change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableForm {
    /// It has a PRIMARY KEY.
    pub has_key: bool,
    /// Its format holds changes.
    pub changelog_format: bool,
    /// It names a column for what a change is.
    pub changelog_column: bool,
}

/// What the rows of a source are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// New ones.
    Appended,
    /// Rows that come and rows that go.
    Changes,
    /// Each takes the place of the one with its key.
    Upserts,
}

/// What a sink can do with rows that are taken away again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Nothing: it takes appended rows. What makes it take changes.
    Refused { hint: &'static str },
    /// It keeps the last row of each key.
    ByKey,
    /// It publishes every change.
    All,
    /// It shows or counts them; nobody relies on what it has shown.
    Shown,
}

/// Of a source whose records are new rows always.
pub(crate) fn appended(_: &TableForm) -> Reads {
    Reads::Appended
}

/// Of a connector without a sink.
pub(crate) fn no_changes(_: &TableForm) -> Changes {
    Changes::Refused { hint: "" }
}

/// Of a sink that shows changes.
pub(crate) fn shown(_: &TableForm) -> Changes {
    Changes::Shown
}

/// A connector: its declared options and its factories.
pub struct Connector {
    pub name: &'static str,
    /// Option tables of a source (`None`: cannot be read), without the format's options.
    pub source_options: Option<&'static [&'static [OptionSpec]]>,
    /// Option tables of a sink (`None`: cannot be written), without the format's options.
    pub sink_options: Option<&'static [&'static [OptionSpec]]>,
    /// Prefixes of options that are passed through (`properties.`, `kafka.`).
    pub pass_through: &'static [&'static str],
    /// Metadata keys that a source offers, each with its SQL type.
    pub source_metadata: &'static [(&'static str, &'static str)],
    /// Metadata keys that a sink takes.
    pub sink_metadata: &'static [&'static str],
    /// True if records have a format of the user's choice.
    pub has_format: bool,
    /// What its source gives.
    pub reads: fn(&TableForm) -> Reads,
    /// What its sink can do with changes.
    pub changes: fn(&TableForm) -> Changes,
    pub source: fn(SourceSpec) -> Result<Box<dyn SourceFactory>, ConnectorError>,
    pub sink: fn(SinkSpec) -> Result<Box<dyn SinkFactory>, ConnectorError>,
}

static CONNECTORS: &[&Connector] = &[
    &generate::NEXMARK,
    &generate::DATAGEN,
    &files::FILESYSTEM,
    &console::PRINT,
    &console::BLACKHOLE,
    &kafka::KAFKA,
    &kafka::UPSERT_KAFKA,
];

/// The connector of this name.
#[must_use]
pub fn connector(name: &str) -> Option<&'static Connector> {
    CONNECTORS.iter().copied().find(|c| c.name == name)
}

/// Names of all connectors.
pub fn connector_names() -> impl Iterator<Item = &'static str> {
    CONNECTORS.iter().map(|c| c.name)
}

/// Options of every source whose records have a format.
pub const RECORD_OPTIONS: &[OptionSpec] = &[OptionSpec {
    name: "bad-records",
    synonyms: &[],
    kind: OptionKind::Choice(&["dead-letter", "fail", "drop", "null"]),
    default: Some("dead-letter"),
    text: "What becomes of a record that cannot be decoded: dead-letter (kept with its origin and reason), fail (the pipeline stops), drop (counted), null (fields that do not parse are null; a record that is broken altogether is a dead letter).",
}];

/// What becomes of records that cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRecords {
    DeadLetter,
    Fail,
    Drop,
    /// The decoder puts null where it can; what is left becomes a dead letter.
    Null,
}

impl BadRecords {
    /// Reads the option of [`RECORD_OPTIONS`].
    #[must_use]
    pub fn of(options: &Resolved) -> Self {
        match options.text("bad-records").map(str::to_ascii_lowercase).as_deref() {
            Some("fail") => Self::Fail,
            Some("drop") => Self::Drop,
            Some("null") => Self::Null,
            _ => Self::DeadLetter,
        }
    }
}

/// The error of a connector that can only be read.
pub(crate) fn not_a_sink(spec: &SinkSpec, connector: &str) -> ConnectorError {
    ConnectorError::user(
        format!("table '{}': connector '{connector}' can only be read", spec.table),
        "insert into a table with another connector, such as kafka, filesystem or print",
    )
}

/// The error of a connector that can only be written.
pub(crate) fn not_a_source(spec: &SourceSpec, connector: &str) -> ConnectorError {
    ConnectorError::user(
        format!("table '{}': connector '{connector}' can only be written", spec.table),
        "select from a table with another connector, such as kafka, filesystem or datagen",
    )
}
