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
use std::io;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::options::did_you_mean;

/// Names the file; `--config` does too.
pub const VARIABLE: &str = "MILLSTREAM__CONFIG";
const FLAG: &str = "--config";

/// The file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigFileError {
    #[error("cannot read the configuration file {path}: {reason}")]
    Read { path: String, reason: String },
    #[error("the configuration file {path} is not TOML: {reason}")]
    Syntax { path: String, reason: String },
    #[error("the configuration file {path}: '{key}' is {kind}; write a text, a number, true or false")]
    Kind { path: String, key: String, kind: &'static str },
    #[error("the configuration file {path}: [{section}] has no option '{key}'; {}", match like {
        Some(like) => format!("did you mean '{like}'?"),
        None => "see --help".to_owned(),
    })]
    Unknown { path: String, section: String, key: String, like: Option<String> },
}

/// What a file says and nobody has taken yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFile {
    path: String,
    variables: BTreeMap<String, String>,
}

impl ConfigFile {
    /// The file that the flag names, or else the variable; without either it is empty. Looked at before flags are parsed, because it
    /// gives defaults to them.
    ///
    /// # Errors
    /// `read` fails, it is not TOML, or it has an entry that no variable could hold.
    pub fn find(
        arguments: impl IntoIterator<Item = OsString>,
        variable: Option<OsString>,
        read: impl FnOnce(&Path) -> io::Result<String>,
    ) -> Result<Self, ConfigFileError> {
        let Some(path) = path_among(arguments, variable) else { return Ok(Self::default()) };
        let shown = path.display().to_string();
        match read(&path) {
            Ok(text) => Self::parse(shown, &text),
            Err(e) => Err(ConfigFileError::Read { path: shown, reason: e.to_string() }),
        }
    }

    fn parse(path: String, text: &str) -> Result<Self, ConfigFileError> {
        let table: Table = match text.parse::<Table>() {
            Ok(table) => table,
            Err(e) => return Err(ConfigFileError::Syntax { path, reason: e.to_string() }),
        };
        let mut variables = BTreeMap::new();
        flatten(&path, "", table, &mut variables)?;
        Ok(Self { path, variables })
    }

    /// Takes the options of one program: those flags that the file has a value for. `flags` are all of the program's flags with their
    /// variables, and `section` is what those variables begin with.
    ///
    /// # Errors
    /// The file has an entry in this section that is no flag.
    pub fn take_flags<Id>(
        &mut self,
        section: &str,
        flags: impl IntoIterator<Item = (Id, String)>,
    ) -> Result<Vec<(Id, String)>, ConfigFileError> {
        let (mut taken, mut known) = (Vec::new(), Vec::new());
        for (id, variable) in flags {
            taken.extend(self.variables.remove(&variable).map(|value| (id, value)));
            known.extend(variable.strip_prefix(section).map(key_of));
        }
        match self.variables.keys().find_map(|v| v.strip_prefix(section)) {
            None => Ok(taken),
            Some(unknown) => {
                let key = key_of(unknown);
                let like = did_you_mean(&key, known.iter().map(String::as_str)).map(str::to_owned);
                let section = section.trim_start_matches("MILLSTREAM__").trim_end_matches("__").to_lowercase();
                Err(ConfigFileError::Unknown { path: self.path.clone(), section, key, like })
            }
        }
    }

    /// What is left, as variables with their values.
    #[must_use]
    pub fn into_variables(self) -> BTreeMap<String, String> {
        self.variables
    }
}

/// How a variable's last part is written in a file.
fn key_of(rest: &str) -> String {
    rest.to_lowercase().replace('_', "-")
}

fn path_among(arguments: impl IntoIterator<Item = OsString>, variable: Option<OsString>) -> Option<PathBuf> {
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
        let found: Vec<_> = ConfigFile::parse("f".to_owned(), text).unwrap().into_variables().into_iter().collect();
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
        let said = |text: &str| ConfigFile::parse("m.toml".to_owned(), text).unwrap_err().to_string();
        assert!(said("a = [1]").contains("m.toml: 'a' is a list"), "{}", said("a = [1]"));
        assert!(said("x = 1\ny = = 2").contains("line 2"), "{}", said("x = 1\ny = = 2"));
    }

    #[test]
    fn a_program_takes_its_flags_and_leaves_the_rest() {
        let flags =
            || ["LISTEN", "STATE_DIR"].into_iter().enumerate().map(|(i, f)| (i, format!("MILLSTREAM__DRIVER__{f}")));
        let take = |text: &str| {
            let mut file = ConfigFile::parse("m.toml".to_owned(), text).unwrap();
            let taken = file.take_flags("MILLSTREAM__DRIVER__", flags()).map_err(|e| e.to_string())?;
            Ok::<_, String>((taken, file.into_variables().into_keys().collect::<Vec<_>>()))
        };
        let (taken, left) = take("parallelism = 2\n[driver]\nstate-dir = 'd'\n[executor]\nx = 1").unwrap();
        assert_eq!(taken, [(1, "d".to_owned())]);
        assert_eq!(left, ["MILLSTREAM__EXECUTOR__X", "MILLSTREAM__PARALLELISM"]);
        let said = "the configuration file m.toml: [driver] has no option 'stat-dir'; did you mean 'state-dir'?";
        assert_eq!(take("[driver]\nstat-dir = 'd'").unwrap_err(), said);
        assert!(take("[driver]\nzzz = 1").unwrap_err().ends_with("has no option 'zzz'; see --help"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let missing = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
        let error = ConfigFile::find([], Some("m.toml".into()), missing).unwrap_err().to_string();
        assert!(error.starts_with("cannot read the configuration file m.toml: "), "{error}");
        assert_eq!(ConfigFile::find([], None, missing), Ok(ConfigFile::default()));
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
