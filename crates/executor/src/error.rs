//! Errors of the executor, by what the driver can do about them.
use millstream_connectors::ConnectorError;
use millstream_dataflow::DataflowError;
use millstream_protocol::messages::Failure;
use millstream_protocol::transport::ConnectError;
use millstream_sql::SqlError;
use millstream_state::StateError;

/// What went wrong in an executor.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    #[error(transparent)]
    Connector(#[from] ConnectorError),
    #[error(transparent)]
    Dataflow(#[from] DataflowError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the pipeline cannot be planned: {0}")]
    Sql(#[from] SqlError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    /// A peer or a thread is gone; the next attempt may do.
    #[error("{0}")]
    Lost(String),
    /// Driver and executor do not fit together.
    #[error("{0}")]
    Mismatch(String),
}

impl ExecutorError {
    /// What the driver is told.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let text = self.to_string();
        match self {
            Self::Connector(ConnectorError::User { message, hint }) => Failure::User(match hint {
                Some(hint) => format!("{message}; {hint}"),
                None => message.clone(),
            }),
            Self::Connector(ConnectorError::Retry(_))
            | Self::State(StateError::Retry { .. } | StateError::NoSpace { .. }) => Failure::Retry(text),
            Self::Connect(_) | Self::Io { .. } | Self::Lost(_) | Self::Dataflow(DataflowError::Store(_)) => {
                Failure::Retry(text)
            }
            Self::Dataflow(DataflowError::Expression { .. }) | Self::State(StateError::Config { .. }) => {
                Failure::User(text)
            }
            Self::Connector(ConnectorError::Fatal(_))
            | Self::Dataflow(DataflowError::Corrupt(_))
            | Self::State(_)
            | Self::Sql(_)
            | Self::Mismatch(_) => Failure::Fatal(text),
        }
    }
}
