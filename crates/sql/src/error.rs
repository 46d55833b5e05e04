//! Errors that a user can act on: what is wrong, where it stands, what to write instead.
use std::fmt;

use datafusion::sql::sqlparser::tokenizer::Location;

/// A mistake in a pipeline's SQL or configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    /// What is wrong; lowercase, names the thing.
    pub message: String,
    /// 1-based; 0 if the mistake is not in the text (an override given on the command line).
    pub line: u64,
    /// 1-based, counted in characters.
    pub column: u64,
    /// The line of the text that holds the mistake.
    pub source_line: String,
    /// What to do.
    pub hint: Option<String>,
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.line > 0 {
            let label = format!("LINE {}: ", self.line);
            // Tabs stay tabs, so that the caret stands where the terminal puts the character.
            let before = self.source_line.chars().take(self.column.saturating_sub(1) as usize);
            let pad: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            write!(f, "\n{label}{}\n{:width$}{pad}^", self.source_line, "", width = label.len())?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\nHINT: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SqlError {}

/// A mistake before the text is at hand to show its line. Travels through DataFusion as an external error.
#[derive(Clone, Debug)]
pub(crate) struct Mistake {
    pub message: String,
    pub hint: Option<String>,
    pub at: Option<Location>,
}

pub(crate) type Result<T> = std::result::Result<T, Mistake>;

impl Mistake {
    pub fn new(at: impl Into<Option<Location>>, message: impl Into<String>) -> Self {
        let at = at.into().filter(|l| l.line > 0);
        Self { message: message.into(), hint: None, at }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Gives a mistake without a place this one.
    pub fn or_at(mut self, at: Location) -> Self {
        self.at = self.at.or(Some(at));
        self
    }

    /// Adds the line of `sql` that holds the mistake.
    pub fn locate(self, sql: &str) -> SqlError {
        let (line, column) = self.at.map_or((0, 0), |l| (l.line, l.column));
        let source_line = match line {
            0 => String::new(),
            n => sql.lines().nth(n as usize - 1).unwrap_or_default().to_owned(),
        };
        SqlError { message: self.message, line, column, source_line, hint: self.hint }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Mistake {}
