//! What can go wrong apart from bad messages, which are data and not errors.
use crate::FormatKind;

/// Failures of this crate.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The user's schema does not fit the format.
    #[error("column `{column}`: {format} cannot hold {data_type}; {advice}")]
    Type { column: String, format: FormatKind, data_type: String, advice: &'static str },
    /// The prefilter does not fit its column; the planner must not push this one down.
    #[error("prefilter on `{column}`: {problem}")]
    PreFilter { column: String, problem: String },
    /// A format of whole files was asked to decode or encode single messages.
    #[error("format '{format}' holds whole files, not single messages; use it with the filesystem connector")]
    NotForMessages { format: FormatKind },
    /// The caller must decode fewer messages at once.
    #[error("{bytes} bytes of messages in one call; decode at most 2 GiB at once")]
    TooLarge { bytes: usize },
    /// The rows do not have the schema that the encoder or writer was made for.
    #[error("rows have another schema than the {format} encoder: {problem}")]
    Schema { format: FormatKind, problem: String },
    /// The file is damaged or not of the format; nothing more can be read from it.
    #[error("{problem} (at byte {offset} of the file)")]
    Damaged { offset: u64, problem: String },
    /// A file or a line is larger than the reader may hold.
    #[error("{what} is larger than {limit} bytes; raise the limit or split it")]
    Limit { what: String, limit: u64 },
    /// The columns of the file do not fit the declared ones.
    #[error("column `{column}` of the file: {problem}")]
    FileColumn { column: String, problem: String },
    /// Reading the underlying bytes failed.
    #[error("cannot read: {0}")]
    Read(#[from] std::io::Error),
    /// Arrow or Parquet refused what should be valid.
    #[error("{0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// As [`FormatError::Arrow`].
    #[error("{0}")]
    Parquet(#[from] parquet::errors::ParquetError),
}

impl FormatError {
    /// Adds the field that a type stands in, from the inside out.
    pub(crate) fn inside(mut self, field: &str) -> Self {
        if let Self::Type { column, .. } = &mut self {
            *column = if column.is_empty() { field.to_owned() } else { format!("{field}.{column}") };
        }
        self
    }
}
