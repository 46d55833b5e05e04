//! The ways to fail, each with its exit code.
use std::fmt;
use std::process::ExitCode;

use millstream_connectors::ConnectorError;
use millstream_driver::DriverError;
use millstream_sql::SqlError;

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub enum Failure {
    /// The job failed: exit code 1.
    Job { message: String, hint: Option<String> },
    /// The command line asks for something that does not go together: exit code 2, as clap's own errors.
    Usage { message: String, hint: Option<String> },
    /// Bad SQL or configuration: exit code 78 (`EX_CONFIG`).
    Config(Box<SqlError>),
}

impl Failure {
    /// A failed job about which there is no more to say.
    pub fn job(message: impl Into<String>) -> Self {
        Self::Job { message: message.into(), hint: None }
    }

    /// A wrong command line.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: Some(hint.into()) }
    }

    /// Wrong configuration outside the SQL text.
    pub fn config(message: impl Into<String>, hint: Option<String>) -> Self {
        Self::Config(Box::new(SqlError {
            message: message.into(),
            line: 0,
            column: 0,
            source_line: String::new(),
            hint,
        }))
    }

    /// What the process ends with.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Job { .. } => 1,
            Self::Usage { .. } => 2,
            Self::Config(_) => 78,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Job { message, hint } | Self::Usage { message, hint } => {
                f.write_str(message)?;
                match hint {
                    Some(hint) => write!(f, "\nHINT: {hint}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        Self::Config(Box::new(error))
    }
}

impl From<ConnectorError> for Failure {
    fn from(error: ConnectorError) -> Self {
        match error {
            ConnectorError::User { message, hint } => Self::config(message, hint),
            ConnectorError::Retry(message) | ConnectorError::Fatal(message) => Self::job(message),
        }
    }
}

impl From<DriverError> for Failure {
    fn from(error: DriverError) -> Self {
        let is_users = error.is_users();
        let hint = error.hint().map(str::to_owned);
        let message = match error {
            DriverError::Sql(error) => return error.into(),
            // Most connectors name their table themselves.
            DriverError::Connector { table, error } => match error.to_string() {
                named if named.contains(&format!("table '{table}'")) => named,
                other => format!("table '{table}': {other}"),
            },
            other => other.to_string(),
        };
        if is_users { Self::config(message, hint) } else { Self::Job { message, hint } }
    }
}
