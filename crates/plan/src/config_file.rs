//! The configuration file of the daemons: TOML whose entry `key` in `[section]` stands for the variable `MILLSTREAM__SECTION__KEY`.
//!
//! So a file can say whatever the environment can: a program's flags in its own section, and the pipeline's settings under their
//! names. Flags win over variables, variables over the file.
//!
//! ```toml
//! checkpointLocation = "s3://bucket/orders"
//! [driver]
//! listen = "0.0.0.0:7070"
//! [checkpoint]
//! interval = "10 s"
//! ```
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use toml::{Table, Value};

/// Names the file; `--config` does too.
pub const VARIABLE: &str = "MILLSTREAM__CONFIG";
const FLAG: &str = "--config";

/// The file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigFileError {
    #[error("the configuration file {path} is not TOML: {reason}")]
    Syntax { path: String, reason: String },
    #[error("the configuration file {path}: '{key}' is {kind}; write a text, a number, true or false")]
    Kind { path: String, key: String, kind: &'static str },
}

/// The file that the flag names, or else the variable. Looked at before flags are parsed, because it gives defaults to them.
#[must_use]
pub fn path_among(arguments: impl IntoIterator<Item = OsString>, variable: Option<OsString>) -> Option<PathBuf> {
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        if argument == FLAG {
            return arguments.next().map(PathBuf::from);
        }
        if let Some(path) = argument.to_str().and_then(|a| a.strip_prefix(FLAG)?.strip_prefix('=')) {
            return Some(PathBuf::from(path));
        }
    }
    variable.map(PathBuf::from)
}

/// The variables that a file's text stands for, with their values. `path` is named in errors.
///
/// # Errors
/// It is not TOML, or has an entry that no variable could hold.
pub fn variables(path: &str, text: &str) -> Result<BTreeMap<String, String>, ConfigFileError> {
    let table: Table = text
        .parse()
        .map_err(|e: toml::de::Error| ConfigFileError::Syntax { path: path.to_owned(), reason: e.to_string() })?;
    let mut found = BTreeMap::new();
    flatten(path, "", table, &mut found)?;
    Ok(found)
}

fn flatten(
    path: &str,
    prefix: &str,
    table: Table,
    found: &mut BTreeMap<String, String>,
) -> Result<(), ConfigFileError> {
    for (key, value) in table {
        let key = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        let text = match value {
            Value::String(text) => text,
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Boolean(yes) => yes.to_string(),
            Value::Table(inner) => {
                flatten(path, &key, inner, found)?;
                continue;
            }
            Value::Array(_) => return Err(ConfigFileError::Kind { path: path.to_owned(), key, kind: "a list" }),
            Value::Datetime(_) => return Err(ConfigFileError::Kind { path: path.to_owned(), key, kind: "a date" }),
        };
        let variable = key.to_uppercase().replace('.', "__").replace('-', "_");
        found.insert(format!("MILLSTREAM__{variable}"), text);
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn entries_are_the_variables_of_their_names() {
        let text = "checkpointLocation = 's3://b/o'\n[driver]\nlisten = '0.0.0.0:7070'\nexecutors = 3\n\
                    [epoch]\nmax-bytes = '1 mb'\n['source.kafka']\nx = true";
        let found: Vec<_> = variables("f", text).unwrap().into_iter().collect();
        let expected = [
            ("MILLSTREAM__CHECKPOINTLOCATION", "s3://b/o"),
            ("MILLSTREAM__DRIVER__EXECUTORS", "3"),
            ("MILLSTREAM__DRIVER__LISTEN", "0.0.0.0:7070"),
            ("MILLSTREAM__EPOCH__MAX_BYTES", "1 mb"),
            ("MILLSTREAM__SOURCE__KAFKA__X", "true"),
        ];
        assert_eq!(found, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn mistakes_name_file_and_place() {
        let said = |text: &str| variables("m.toml", text).unwrap_err().to_string();
        assert!(said("a = [1]").contains("m.toml: 'a' is a list"), "{}", said("a = [1]"));
        assert!(said("x = 1\ny = = 2").contains("line 2"), "{}", said("x = 1\ny = = 2"));
    }

    #[test]
    fn the_flag_comes_before_the_variable() {
        let of = |arguments: &[&str]| {
            path_among(arguments.iter().map(OsString::from), Some("v".into())).map(|p| p.display().to_string())
        };
        assert_eq!(of(&["x", "--config", "a", "-f", "b"]), Some("a".to_owned()));
        assert_eq!(of(&["x", "--config=a"]), Some("a".to_owned()));
        assert_eq!(of(&["x"]), Some("v".to_owned()));
    }
}
