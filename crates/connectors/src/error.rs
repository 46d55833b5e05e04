//! What went wrong outside, by what the caller can do about it.

/// Error of a connector. Messages are lowercase and name the thing (topic, partition, offset, bucket, file).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectorError {
    /// The user must change something (wrong option, missing topic, denied access, bad record under `fail`).
    #[error("{message}")]
    User {
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The other side does not answer right now; the same call may succeed later.
    #[error("{0}")]
    Retry(String),
    /// A newer owner is at work, or the data contradicts what was published. Stop at once, do not retry.
    #[error("{0}")]
    Fatal(String),
}

impl ConnectorError {
    /// A user's mistake and what to do about it.
    pub fn user(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::User { message: message.into(), hint: Some(hint.into()) }
    }
}

impl From<millstream_plan::options::OptionError> for ConnectorError {
    fn from(e: millstream_plan::options::OptionError) -> Self {
        Self::User { message: e.message, hint: e.hint }
    }
}
