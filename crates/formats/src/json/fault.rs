//! Why a message is bad, and where.
use std::fmt::Write as _;

use crate::text::number::Misfit;

/// A failure inside one message. Boxed, so that the results of the hot path stay one word.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Byte of the message.
    at: usize,
    kind: FaultKind,
    /// Names of the fields around it, innermost first.
    path: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum FaultKind {
    /// The message is not JSON; nothing after it can be trusted.
    Syntax(String),
    /// The value does not fit its field.
    Value(String),
}

pub(crate) type Parsed<T> = Result<T, Box<Fault>>;

impl Fault {
    #[cold]
    pub(crate) fn syntax(at: usize, problem: impl Into<String>) -> Box<Self> {
        Box::new(Self { at, kind: FaultKind::Syntax(problem.into()), path: Vec::new() })
    }

    #[cold]
    pub(crate) fn value(at: usize, problem: impl Into<String>) -> Box<Self> {
        Box::new(Self { at, kind: FaultKind::Value(problem.into()), path: Vec::new() })
    }

    /// A value of the right kind that the type cannot hold.
    #[cold]
    pub(crate) fn misfit(at: usize, misfit: Misfit, expected: &str, text: &[u8]) -> Box<Self> {
        let text = excerpt(text);
        Self::value(
            at,
            match misfit {
                Misfit::Range => format!("{text} is out of the range of {expected}"),
                Misfit::Fraction => format!("{text} has a fraction, expected {expected}"),
                Misfit::Form => format!("expected {expected}, found {text}"),
            },
        )
    }

    /// True if the field could become null and the rest of the row be decoded.
    pub(crate) fn is_value(&self) -> bool {
        matches!(self.kind, FaultKind::Value(_))
    }

    #[cold]
    pub(crate) fn inside(mut self: Box<Self>, field: &str) -> Box<Self> {
        self.path.push(field.to_owned());
        self
    }

    /// "field `bid`.`price`: expected BIGINT, found string at byte 17"
    pub(crate) fn reason(&self) -> String {
        let mut reason = String::new();
        for (i, name) in self.path.iter().rev().enumerate() {
            let _ = write!(reason, "{}`{name}`", if i == 0 { "field " } else { "." });
        }
        if !reason.is_empty() {
            reason.push_str(": ");
        }
        let (FaultKind::Syntax(problem) | FaultKind::Value(problem)) = &self.kind;
        let _ = write!(reason, "{problem} at byte {}", self.at);
        reason
    }
}

/// `text` shortened for a message to people.
pub(crate) fn excerpt(text: &[u8]) -> String {
    const LONGEST: usize = 40;
    let shown = String::from_utf8_lossy(&text[..text.len().min(LONGEST)]);
    if text.len() > LONGEST { format!("'{shown}…'") } else { format!("'{shown}'") }
}
