//! Settings by their variables: `MILLSTREAM__SECTION__KEY` is the setting `section.key`, in the environment as in a file.
use millstream_plan::options::{OptionSpec, did_you_mean};

use crate::error::SqlError;
use crate::settings::SETTINGS;

/// Beginning of every variable.
const PREFIX: &str = "MILLSTREAM__";
/// Variables that are flags of one program and not settings of a pipeline.
const PROGRAMS: &[&str] = &["MILLSTREAM__DRIVER__", "MILLSTREAM__EXECUTOR__", "MILLSTREAM__CONFIG"];

/// A setting that a variable gives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GivenSetting {
    /// Canonical name.
    pub name: &'static str,
    pub value: String,
    pub variable: String,
}

/// The setting that is called `key`, by any of its names.
#[must_use]
pub fn setting(key: &str) -> Option<&'static OptionSpec> {
    SETTINGS.iter().find(|s| s.name == key || s.synonyms.contains(&key))
}

/// The settings among the variables, ordered by name. Variables without the prefix, those of the programs, and `flags` are passed over.
///
/// # Errors
/// A variable that is no setting; the hint has the most similar one.
pub fn from_variables(
    variables: impl Iterator<Item = (String, String)>,
    flags: &[&str],
) -> Result<Vec<GivenSetting>, SqlError> {
    let mut found = Vec::new();
    for (variable, value) in variables {
        let Some(rest) = variable.strip_prefix(PREFIX) else { continue };
        if flags.contains(&variable.as_str()) || PROGRAMS.iter().any(|p| variable.starts_with(p)) {
            continue;
        }
        let key = rest.to_lowercase().replace("__", ".").replace('_', "-");
        let names = || {
            SETTINGS
                .iter()
                .flat_map(|s| std::iter::once((s.name, s.name)).chain(s.synonyms.iter().map(|n| (*n, s.name))))
        };
        let Some((_, name)) = names().find(|(n, _)| n.eq_ignore_ascii_case(&key)) else {
            let like = did_you_mean(&key, names().map(|(n, _)| n));
            let hint = like
                .map(|n| format!("did you mean {PREFIX}{}?", n.to_uppercase().replace('.', "__").replace('-', "_")));
            return Err(SqlError {
                message: format!("variable {variable}: there is no setting '{key}'"),
                line: 0,
                column: 0,
                source_line: String::new(),
                hint,
            });
        };
        found.push(GivenSetting { name, value, variable });
    }
    found.sort();
    Ok(found)
}
