//! Regular expressions: `REGEXP_EXTRACT`, `REGEXP_REPLACE`, `REGEXP_SUBSTR`, `REGEXP_EXTRACT_ALL`, and Spark's `split`.
//!
//! The syntax is that of the crate `regex`: Java's without look-around and back-references, and in time linear in the text. A pattern that is
//! written in the query and cannot be read fails there; one that comes from a row gives null, so that no record can stop a pipeline.
use std::sync::Arc;

use arrow::array::{ArrayRef, ListBuilder, StringArray, StringBuilder};
use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::logical_expr::{ReturnFieldArgs, ScalarUDF};
use regex::Regex;

use super::plain::{Call, Kind, Plain, at, text, text_at, texts, written};
use super::zone::Zone;
use Kind::{Integer, Text};

const TWO: &[&[Kind]] = &[&[Text, Text], &[Text, Text, Integer]];

pub(super) fn common(zone: &Zone) -> Vec<Arc<ScalarUDF>> {
    let replace = Plain::new("regexp_replace", &[&[Text, Text, Text]], text, replace)
        .checked(|a| pattern_at(a, "regexp_replace"));
    let substr = Plain::new("regexp_substr", &[&[Text, Text]], text, |c| extract(c, 0, None))
        .checked(|a| pattern_at(a, "regexp_substr"));
    let all =
        Plain::new("regexp_extract_all", TWO, texts, extract_all).checked(|a| pattern_at(a, "regexp_extract_all"));
    [replace, substr, all].map(|p| p.function(zone)).to_vec()
}

/// The whole match without a group, and null without a match.
pub(super) fn flink(zone: &Zone) -> Vec<Arc<ScalarUDF>> {
    let extract = Plain::new("regexp_extract", TWO, text, |c| extract(c, 0, None));
    vec![extract.checked(|a| pattern_at(a, "regexp_extract")).function(zone)]
}

/// The first group without a group, and the empty text without a match.
pub(super) fn spark(zone: &Zone) -> Vec<Arc<ScalarUDF>> {
    let extract = Plain::new("regexp_extract", TWO, text, |c| extract(c, 1, Some("")));
    let split = Plain::new("split", TWO, texts, split).checked(|a| pattern_at(a, "split"));
    [extract.checked(|a| pattern_at(a, "regexp_extract")), split].map(|p| p.function(zone)).to_vec()
}

fn pattern_at(args: &ReturnFieldArgs<'_>, function: &str) -> Result<()> {
    match written(args, 1) {
        Some(source) if Regex::new(source).is_err() => {
            plan_err!("{function}: '{source}' is not a regular expression")
        }
        _ => Ok(()),
    }
}

/// The pattern of each row; the last one is kept, as they are constant nearly always.
struct Patterns {
    texts: StringArray,
    known: Option<(String, Option<Regex>)>,
}

impl Patterns {
    fn new(call: &Call<'_>) -> Result<Self> {
        Ok(Self { texts: call.text(1)?, known: None })
    }

    fn get(&mut self, row: usize) -> Option<&Regex> {
        let source = text_at(&self.texts, row)?;
        if self.known.as_ref().is_none_or(|(known, _)| known != source) {
            self.known = Some((source.to_owned(), Regex::new(source).ok()));
        }
        self.known.as_ref().and_then(|(_, regex)| regex.as_ref())
    }
}

/// What the group of a row matched first. `instead`: where nothing matched, or the group took no part.
fn extract(call: &Call<'_>, group: i64, instead: Option<&str>) -> Result<ArrayRef> {
    let text = call.text(0)?;
    let mut patterns = Patterns::new(call)?;
    let groups = if call.count() > 2 { Some(call.integers(2)?) } else { None };
    let mut out = StringBuilder::with_capacity(call.rows(), text.values().len() / 4);
    for row in 0..call.rows() {
        let group = groups.as_ref().map_or(Some(group), |groups| at(groups, row));
        let (Some(text), Some(regex), Some(group)) = (text_at(&text, row), patterns.get(row), group) else {
            out.append_null();
            continue;
        };
        // The whole match is found faster than its groups.
        let found = match usize::try_from(group) {
            Ok(0) => regex.find(text).map(|m| m.as_str()),
            Ok(group) => regex.captures(text).and_then(|c| c.get(group)).map(|m| m.as_str()),
            Err(_) => None,
        };
        out.append_option(found.or(instead));
    }
    Ok(Arc::new(out.finish()))
}

fn extract_all(call: &Call<'_>) -> Result<ArrayRef> {
    let text = call.text(0)?;
    let mut patterns = Patterns::new(call)?;
    let groups = if call.count() > 2 { Some(call.integers(2)?) } else { None };
    let mut out = ListBuilder::new(StringBuilder::new());
    for row in 0..call.rows() {
        // Without a group, the first one if the pattern has one, as in Spark and Flink.
        let group = groups.as_ref().map_or(Some(1), |groups| at(groups, row));
        let (Some(text), Some(regex), Some(group)) = (text_at(&text, row), patterns.get(row), group) else {
            out.append_null();
            continue;
        };
        let last = regex.captures_len() - 1;
        match usize::try_from(group) {
            Ok(group) if group <= last => {
                for captures in regex.captures_iter(text) {
                    out.values().append_value(captures.get(group).map_or("", |m| m.as_str()));
                }
                out.append(true);
            }
            _ => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// Every match, by Java's replacement: `$1` is a group, `\` takes the next character as it is.
fn replace(call: &Call<'_>) -> Result<ArrayRef> {
    let (text, with) = (call.text(0)?, call.text(2)?);
    let mut patterns = Patterns::new(call)?;
    let mut out = StringBuilder::with_capacity(call.rows(), text.values().len());
    let mut known: Option<(&str, String)> = None;
    for row in 0..call.rows() {
        let (Some(text), Some(regex), Some(with)) = (text_at(&text, row), patterns.get(row), text_at(&with, row))
        else {
            out.append_null();
            continue;
        };
        if known.as_ref().is_none_or(|(source, _)| *source != with) {
            known = Some((with, replacement(with)));
        }
        let with = known.as_ref().map_or("", |(_, r)| r.as_str());
        out.append_value(regex.replace_all(text, with));
    }
    Ok(Arc::new(out.finish()))
}

fn replacement(java: &str) -> String {
    let mut out = String::with_capacity(java.len() + 4);
    let mut chars = java.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('$') => out.push_str("$$"),
                Some(c) => out.push(c),
                None => {}
            },
            '$' if chars.peek().is_some_and(char::is_ascii_digit) => {
                out.push_str("${");
                while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                    out.push(digit);
                }
                out.push('}');
            }
            '$' if chars.peek() != Some(&'{') => out.push_str("$$"),
            c => out.push(c),
        }
    }
    out
}

/// Spark's `split(text, pattern[, limit])`.
fn split(call: &Call<'_>) -> Result<ArrayRef> {
    let text = call.text(0)?;
    let mut patterns = Patterns::new(call)?;
    let limits = if call.count() > 2 { Some(call.integers(2)?) } else { None };
    let mut out = ListBuilder::new(StringBuilder::new());
    for row in 0..call.rows() {
        let limit = limits.as_ref().map_or(Some(-1), |limits| at(limits, row));
        let (Some(text), Some(regex), Some(limit)) = (text_at(&text, row), patterns.get(row), limit) else {
            out.append_null();
            continue;
        };
        let most = usize::try_from(limit).ok().filter(|l| *l > 0).unwrap_or(usize::MAX);
        let (mut from, mut parts) = (0, 1);
        for found in regex.find_iter(text) {
            // A match of nothing at the beginning or end separates nothing.
            let is_nothing = found.is_empty() && (found.start() == 0 || found.end() == text.len());
            if is_nothing {
                continue;
            }
            if parts == most {
                break;
            }
            out.values().append_value(&text[from..found.start()]);
            (from, parts) = (found.end(), parts + 1);
        }
        out.values().append_value(&text[from..]);
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacements_of_java() {
        for (java, rust) in
            [("$1x", "${1}x"), ("a\\$1", "a$$1"), ("\\\\", "\\"), ("5 $", "5 $$"), ("${name}", "${name}")]
        {
            assert_eq!(replacement(java), rust, "{java}");
        }
    }
}
