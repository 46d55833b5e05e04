//! Declared options: every option of a connector, a format or the pipeline is one [`OptionSpec`] in a table, with its
//! synonyms in the Flink and Spark dialects. [`resolve`] checks what a user gave against the tables.
use std::collections::BTreeMap;
use std::time::Duration;

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// Canonical name.
    pub name: &'static str,
    /// Other names that mean exactly the same.
    pub synonyms: &'static [&'static str],
    /// What a value must look like.
    pub kind: OptionKind,
    /// Value when the user gives none.
    pub default: Option<&'static str>,
    /// One sentence for the reference page, with the unit.
    pub text: &'static str,
}

/// Type of an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionKind {
    Text,
    Integer,
    Bool,
    /// `500 ms`, `10s`, `1 minute`, `INTERVAL`-less Flink and Spark forms; a bare number is milliseconds.
    Duration,
    /// `64mb`, `128 MiB`, a bare number is bytes. Units are binary.
    Bytes,
    /// One of these, in any case.
    Choice(&'static [&'static str]),
}

/// A user's mistake in an option. `option` is the name as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OptionError {
    pub option: String,
    pub message: String,
    pub hint: Option<String>,
}

impl OptionError {
    /// An error about `option` without a hint.
    #[must_use]
    pub fn new(option: &str, message: impl Into<String>) -> Self {
        Self { option: option.to_owned(), message: message.into(), hint: None }
    }

    /// Adds what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Checked options: canonical names, valid values, defaults filled in.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    values: BTreeMap<&'static str, (String, Option<String>)>,
    /// Options whose name begins with a pass-through prefix, the prefix taken off.
    pub passed: BTreeMap<String, String>,
}

impl Resolved {
    /// The value, or `None` if it was neither given nor has a default.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(v, _)| v.as_str())
    }

    /// The name under which the user gave the option; the canonical one if it is a default.
    #[must_use]
    pub fn given_as<'a>(&'a self, name: &'a str) -> &'a str {
        self.values.get(name).and_then(|(_, given)| given.as_deref()).unwrap_or(name)
    }

    /// True if the user gave it.
    #[must_use]
    pub fn is_given(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|(_, given)| given.is_some())
    }

    /// Value of an `Integer` option.
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.text(name).and_then(|v| v.trim().parse().ok())
    }

    /// Value of a `Bool` option; false if absent.
    #[must_use]
    pub fn is_true(&self, name: &str) -> bool {
        self.text(name).is_some_and(|v| v.eq_ignore_ascii_case("true"))
    }

    /// Value of a `Duration` option.
    #[must_use]
    pub fn duration(&self, name: &str) -> Option<Duration> {
        self.text(name).and_then(parse_duration)
    }

    /// Value of a `Bytes` option.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<u64> {
        self.text(name).and_then(parse_bytes)
    }

    /// All values with the name under which each was given (`None`: default), ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str, Option<&str>)> {
        self.values.iter().map(|(name, (value, given))| (*name, value.as_str(), given.as_deref()))
    }
}

/// Checks `given` against `tables`. Names under one of the `pass_through` prefixes (such as `properties.`) need no
/// declaration. Two synonyms that disagree, an unknown name and a value of the wrong form are errors.
///
/// # Errors
/// The first mistake, in the order of the given names.
pub fn resolve(
    tables: &[&[OptionSpec]],
    pass_through: &[&str],
    given: &BTreeMap<String, String>,
) -> Result<Resolved, OptionError> {
    let mut resolved = Resolved::default();
    let specs = || tables.iter().flat_map(|t| t.iter());
    for (key, value) in given {
        let spec = specs().find(|s| s.name == key || s.synonyms.contains(&key.as_str()));
        let Some(spec) = spec else {
            if let Some(rest) = pass_through.iter().find_map(|p| key.strip_prefix(p)) {
                if let Some(other) = resolved.passed.insert(rest.to_owned(), value.clone())
                    && other != *value
                {
                    return Err(OptionError::new(
                        key,
                        format!("option '{key}' is given twice: '{other}' and '{value}'"),
                    ));
                }
                continue;
            }
            return Err(unknown(key, specs()));
        };
        check(spec, key, value)?;
        match resolved.values.get(spec.name) {
            Some((other, Some(as_name))) if other != value => {
                return Err(OptionError::new(
                    key,
                    format!("'{as_name}' = '{other}' and '{key}' = '{value}' are the same option"),
                )
                .with_hint("keep one of the two"));
            }
            _ => resolved.values.insert(spec.name, (value.clone(), Some(key.clone()))),
        };
    }
    for spec in specs() {
        if let (Some(default), false) = (spec.default, resolved.values.contains_key(spec.name)) {
            resolved.values.insert(spec.name, (default.to_owned(), None));
        }
    }
    Ok(resolved)
}

fn unknown<'a>(key: &str, specs: impl Iterator<Item = &'a OptionSpec>) -> OptionError {
    let names: Vec<&str> = specs.flat_map(|s| std::iter::once(s.name).chain(s.synonyms.iter().copied())).collect();
    let error = OptionError::new(key, format!("unknown option '{key}'"));
    match did_you_mean(key, names.iter().copied()) {
        Some(name) => error.with_hint(format!("did you mean '{name}'?")),
        None => error,
    }
}

/// The candidate most like `name`, if one is like it enough to be worth a hint.
pub fn did_you_mean<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    candidates
        .map(|c| (strsim::jaro_winkler(&name, &c.to_lowercase()), c))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}

fn check(spec: &OptionSpec, key: &str, value: &str) -> Result<(), OptionError> {
    let wrong = |want: &str| OptionError::new(key, format!("'{key}' = '{value}' is not {want}"));
    match spec.kind {
        OptionKind::Text => Ok(()),
        OptionKind::Integer => match value.trim().parse::<i64>() {
            Ok(_) => Ok(()),
            Err(_) => Err(wrong("a whole number")),
        },
        OptionKind::Bool if value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false") => Ok(()),
        OptionKind::Bool => Err(wrong("true or false")),
        OptionKind::Duration => match parse_duration(value) {
            Some(_) => Ok(()),
            None => {
                Err(wrong("a duration").with_hint("write a number and a unit, such as '500 ms', '10 s' or '1 minute'"))
            }
        },
        OptionKind::Bytes => match parse_bytes(value) {
            Some(_) => Ok(()),
            None => Err(wrong("a size").with_hint("write a number and a unit, such as '64 mb'")),
        },
        OptionKind::Choice(choices) if choices.iter().any(|c| c.eq_ignore_ascii_case(value)) => Ok(()),
        OptionKind::Choice(choices) => {
            let error = wrong(&format!("one of {}", choices.join(", ")));
            Err(match did_you_mean(value, choices.iter().copied()) {
                Some(choice) => error.with_hint(format!("did you mean '{choice}'?")),
                None => error,
            })
        }
    }
}

fn number_and_unit(text: &str) -> Option<(u64, String)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, text[digits..].trim().to_ascii_lowercase()))
}

/// Parses `500 ms`, `10s`, `1 minute`, `500 milliseconds`; a bare number is milliseconds.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let millis = match unit.as_str() {
        "" | "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1,
        "s" | "sec" | "secs" | "second" | "seconds" => 1_000,
        "m" | "min" | "mins" | "minute" | "minutes" => 60_000,
        "h" | "hour" | "hours" => 3_600_000,
        "d" | "day" | "days" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

/// Parses `64mb`, `128 MiB`, `1g`; units are binary, a bare number is bytes.
#[must_use]
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let factor = match unit.trim_end_matches("ytes").trim_end_matches('b').trim_end_matches('i') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const SPECS: &[OptionSpec] = &[
        OptionSpec { name: "topic", synonyms: &["subscribe"], kind: OptionKind::Text, default: None, text: "" },
        OptionSpec {
            name: "scan.startup.mode",
            synonyms: &["startingOffsets"],
            kind: OptionKind::Choice(&["earliest-offset", "latest-offset"]),
            default: Some("earliest-offset"),
            text: "",
        },
    ];

    fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn synonyms_defaults_and_pass_through() {
        let r = resolve(&[SPECS], &["properties."], &given(&[("subscribe", "a"), ("properties.x.y", "1")])).unwrap();
        assert_eq!((r.text("topic"), r.given_as("topic")), (Some("a"), "subscribe"));
        assert_eq!(r.text("scan.startup.mode"), Some("earliest-offset"));
        assert_eq!(r.passed.get("x.y").map(String::as_str), Some("1"));
    }

    #[test]
    fn mistakes_are_named() {
        let e = resolve(&[SPECS], &[], &given(&[("topik", "a")])).unwrap_err();
        assert_eq!((e.message.as_str(), e.hint.as_deref()), ("unknown option 'topik'", Some("did you mean 'topic'?")));
        let e = resolve(&[SPECS], &[], &given(&[("topic", "a"), ("subscribe", "b")])).unwrap_err();
        assert!(e.message.contains("are the same option"), "{e}");
        let e = resolve(&[SPECS], &[], &given(&[("startingOffsets", "earliest-offest")])).unwrap_err();
        assert_eq!(e.hint.as_deref(), Some("did you mean 'earliest-offset'?"));
    }

    #[test]
    fn durations_and_sizes() {
        for (text, ms) in
            [("500 milliseconds", 500), ("10s", 10_000), ("1 minute", 60_000), ("7", 7), ("2 h", 7_200_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(parse_duration("soon"), None);
        for (text, bytes) in [("64mb", 64 << 20), ("1 GiB", 1 << 30), ("12", 12), ("3 bytes", 3), ("2k", 2048)] {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
    }
}
