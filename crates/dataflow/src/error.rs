//! What can go wrong inside the dataflow.
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;

/// Error of an operator.
#[derive(Debug, thiserror::Error)]
pub enum DataflowError {
    /// An expression failed on the data (a cast, a division by zero, an overflow): the user must change the SQL or the data.
    #[error("{operator}: {message}")]
    Expression { operator: String, message: String },
    /// The graph or the state contradicts itself: a bug, or state of another build. The pipeline must stop.
    #[error("{0}")]
    Corrupt(String),
    /// The store of the task's state cannot be read.
    #[error("{0}")]
    Store(String),
}

impl From<ArrowError> for DataflowError {
    fn from(e: ArrowError) -> Self {
        Self::Expression { operator: "expression".to_owned(), message: e.to_string() }
    }
}

impl From<DataFusionError> for DataflowError {
    fn from(e: DataFusionError) -> Self {
        Self::Expression { operator: "expression".to_owned(), message: e.strip_backtrace() }
    }
}
