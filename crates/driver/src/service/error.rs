//! Why a driver cannot start.
use millstream_connectors::ConnectorError;
use millstream_sql::SqlError;
use millstream_state::StateError;

use crate::chain::FoldError;
use crate::coordinator::StartError;

/// Why a driver cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error(transparent)]
    Sql(#[from] SqlError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Log(#[from] FoldError),
    #[error(transparent)]
    Start(#[from] StartError),
    /// A source or sink; `table` is the table's name.
    #[error("table '{table}': {error}")]
    Connector { table: String, error: ConnectorError },
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("{message}")]
    Config { message: String, hint: Option<String> },
    #[error("{0}")]
    Internal(String),
}

impl DriverError {
    /// What to do, if that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Connector { error: ConnectorError::User { hint, .. }, .. }
            | Self::Config { hint, .. }
            | Self::State(StateError::Config { hint, .. }) => hint.as_deref(),
            Self::Sql(_)
            | Self::State(_)
            | Self::Log(_)
            | Self::Start(_)
            | Self::Connector { .. }
            | Self::Io { .. }
            | Self::Internal(_) => None,
        }
    }

    /// True if the user must change the pipeline or its settings (exit code 78).
    #[must_use]
    pub fn is_users(&self) -> bool {
        match self {
            Self::Sql(_)
            | Self::Start(_)
            | Self::Connector { error: ConnectorError::User { .. }, .. }
            | Self::Config { .. }
            | Self::State(StateError::Config { .. }) => true,
            Self::State(_) | Self::Log(_) | Self::Connector { .. } | Self::Io { .. } | Self::Internal(_) => false,
        }
    }
}
