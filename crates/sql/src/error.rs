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

/// Longer lines are shown in part.
const LINE_WIDTH: usize = 160;
/// Characters that are shown before the mistake in a long line.
const BEFORE: usize = 60;

impl SqlError {
    /// The line, or the part of it around the mistake, and what of that stands before the mistake.
    fn shown(&self) -> (String, String) {
        let at = self.column.saturating_sub(1) as usize;
        let length = self.source_line.chars().count();
        if length <= LINE_WIDTH {
            return (self.source_line.clone(), self.source_line.chars().take(at).collect());
        }
        let from = at.saturating_sub(BEFORE).min(length);
        let start = if from > 0 { "…" } else { "" };
        let part: String = self.source_line.chars().skip(from).take(LINE_WIDTH).collect();
        let end = if from + LINE_WIDTH < length { "…" } else { "" };
        let before: String = part.chars().take(at - from).collect();
        (format!("{start}{part}{end}"), format!("{start}{before}"))
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.line > 0 {
            let label = format!("LINE {}: ", self.line);
            let (shown, before) = self.shown();
            // Tabs stay tabs, so that the caret stands where the terminal puts the character.
            let pad: String = before.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            write!(f, "\n{label}{shown}\n{:width$}{pad}^", "", width = label.len())?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_shown_around_the_mistake() {
        let sql = format!("SELECT {}x", "a, ".repeat(200));
        let at = Location { line: 1, column: sql.len() as u64 };
        let text = Mistake::new(at, "no x").locate(&sql).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("LINE 1: …") && lines[1].ends_with('x'), "{text}");
        assert_eq!(lines[1].chars().count(), lines[2].chars().count());
    }
}
