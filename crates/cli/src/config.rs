//! What a pipeline gets: its text, and the settings around it.
//!
//! Later layers win: defaults, `SET` in the file, `MILLSTREAM__SECTION__KEY` variables, flags. Variables and flags travel together as
//! the overrides of the job, so that driver and executors plan the same.
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use millstream_sql::{Origin, SETTINGS, Settings, from_variables, setting};

use crate::args::{FLAG_VARIABLES, PipelineArgs, SettingArgs};
use crate::failure::Failure;

/// Most tasks per stage.
const MOST_TASKS: usize = 128;

/// A pipeline's text with its overrides.
#[derive(Clone, Debug)]
pub struct Job {
    pub sql: String,
    /// Overrides of its settings.
    pub conf: BTreeMap<String, String>,
    pub settings: Settings,
    /// Where each override comes from, by canonical name.
    origins: BTreeMap<&'static str, String>,
}

impl Job {
    /// The pipeline of a file.
    ///
    /// # Errors
    /// The file cannot be read, or a setting is wrong.
    pub fn load(args: &PipelineArgs) -> Result<Self, Failure> {
        let sql = read(&args.file)?;
        let stem = args.file.file_stem().map(|s| s.to_string_lossy().into_owned()).filter(|s| s != "-");
        Self::new(sql, stem.as_deref(), &args.settings, std::env::vars())
    }

    /// A pipeline from its text. `name` is what it is called if nobody says otherwise.
    ///
    /// # Errors
    /// A setting is wrong.
    pub fn new(
        sql: String,
        name: Option<&str>,
        flags: &SettingArgs,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Failure> {
        let mut origins = BTreeMap::new();
        let mut conf = BTreeMap::new();
        for given in from_variables(variables, FLAG_VARIABLES)? {
            origins.insert(given.name, format!("environment {}", given.variable));
            conf.insert(given.name.to_owned(), given.value);
        }
        // A flag replaces the variable, whichever of its names it uses.
        for (key, _) in &flags.conf {
            if let Some(spec) = setting(key) {
                conf.remove(spec.name);
                origins.insert(spec.name, "flag --conf".to_owned());
            }
        }
        for (key, value) in &flags.conf {
            if let Some(other) = conf.insert(key.clone(), value.clone())
                && other != *value
            {
                return Err(Failure::usage(
                    format!("--conf {key} is given twice: '{other}' and '{value}'"),
                    "keep one of the two",
                ));
            }
        }
        if let Some(tasks) = flags.parallelism {
            let given = flags.conf.iter().find(|(k, _)| setting(k).is_some_and(|s| s.name == "parallelism"));
            if let Some((key, value)) = given
                && value.trim() != tasks.to_string()
            {
                return Err(Failure::usage(
                    format!("-p {tasks} and --conf {key}={value} disagree"),
                    "keep one of the two",
                ));
            }
            origins.insert("parallelism", "flag -p".to_owned());
            conf.retain(|key, _| setting(key).is_none_or(|s| s.name != "parallelism"));
            conf.insert("parallelism".to_owned(), tasks.to_string());
        }
        let mut settings = millstream_sql::settings(&sql, &conf)?;
        if let (None, Some(name)) = (settings.text("pipeline.name"), name) {
            conf.insert("pipeline.name".to_owned(), name.to_owned());
            origins.insert("pipeline.name", "name of the file".to_owned());
            settings = millstream_sql::settings(&sql, &conf)?;
        }
        Ok(Self { sql, conf, settings, origins })
    }

    /// Tasks per stage at the first start.
    #[must_use]
    pub fn parallelism(&self) -> u16 {
        let given = self.settings.integer("parallelism").and_then(|p| u16::try_from(p).ok());
        given.unwrap_or_else(cores)
    }

    /// Plans it.
    ///
    /// # Errors
    /// The first mistake in its text.
    pub fn plan(&self) -> Result<millstream_sql::Pipeline, Failure> {
        Ok(millstream_sql::plan(&self.sql, &self.conf, self.parallelism())?)
    }

    /// Every setting in the order of the reference: name, value, where the value comes from.
    pub fn table(&self) -> Vec<(&'static str, Option<String>, String)> {
        let rows = SETTINGS.iter().map(|spec| {
            let given = self.settings.iter().find(|(name, ..)| *name == spec.name);
            let (value, origin) = match given {
                Some((_, value, Origin::Set)) => (Some(value.to_owned()), "SET in the file".to_owned()),
                Some((_, value, Origin::Override)) => {
                    let origin = self.origins.get(spec.name).cloned();
                    (Some(value.to_owned()), origin.unwrap_or_else(|| "flag --conf".to_owned()))
                }
                Some((_, value, Origin::Default)) => (Some(value.to_owned()), "default".to_owned()),
                None if spec.name == "parallelism" => (Some(cores().to_string()), "number of cores".to_owned()),
                None => (None, "not set".to_owned()),
            };
            (spec.name, value, origin)
        });
        rows.collect()
    }
}

/// Cores of this machine, at most as many as a stage can have tasks.
#[must_use]
pub fn cores() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    cores.min(MOST_TASKS) as u16
}

fn read(file: &Path) -> Result<String, Failure> {
    let read = if file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    read.map_err(|e| {
        let hint = match e.kind() {
            std::io::ErrorKind::NotFound => Some("give the path of a file of SQL statements, or - for standard input"),
            std::io::ErrorKind::InvalidData => Some("save the file as UTF-8"),
            _ => None,
        };
        Failure::config(format!("cannot read {}: {e}", file.display()), hint.map(str::to_owned))
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const SQL: &str = "SET 'checkpoint.interval' = '1 s'; SET 'trigger' = '2 s';";

    fn job(conf: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Job, Failure> {
        let own =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>();
        let flags = SettingArgs { conf: own(conf), parallelism: None };
        Job::new(SQL.to_owned(), Some("orders"), &flags, own(variables).into_iter())
    }

    #[test]
    fn flags_beat_variables_beat_the_file_beats_defaults() {
        let variables = [
            ("MILLSTREAM__CHECKPOINT__INTERVAL", "3 s"),
            ("MILLSTREAM__TRIGGER", "4 s"),
            ("MILLSTREAM__EPOCH__MAX_BYTES", "1 mb"),
            ("MILLSTREAM__EXECUTOR__SLOTS", "2"),
            ("PATH", "/bin"),
        ];
        let job = job(&[("execution.checkpointing.interval", "5 s")], &variables).unwrap();
        let of =
            |name: &str| job.table().into_iter().find(|(n, ..)| *n == name).map(|(_, v, o)| (v.unwrap_or_default(), o));
        let expect = |value: &str, origin: &str| Some((value.to_owned(), origin.to_owned()));
        assert_eq!(of("checkpoint.interval"), expect("5 s", "flag --conf"));
        assert_eq!(of("trigger"), expect("4 s", "environment MILLSTREAM__TRIGGER"));
        assert_eq!(of("epoch.max-bytes"), expect("1 mb", "environment MILLSTREAM__EPOCH__MAX_BYTES"));
        assert_eq!(of("pipeline.name"), expect("orders", "name of the file"));
        assert_eq!(of("epoch.in-flight").unwrap().1, "default");
    }

    #[test]
    fn mistakes_are_named() {
        let unknown = job(&[], &[("MILLSTREAM__CHECKPONT__INTERVAL", "3 s")]).unwrap_err().to_string();
        assert!(unknown.contains("did you mean MILLSTREAM__CHECKPOINT__INTERVAL?"), "{unknown}");
        let twice = job(&[("trigger", "1 s"), ("trigger", "2 s")], &[]).unwrap_err();
        assert!(matches!(twice, Failure::Usage { .. }));
        let synonyms = job(&[("trigger", "1 s"), ("processingTime", "2 s")], &[]).unwrap_err();
        assert!(matches!(synonyms, Failure::Config(_)), "{synonyms}");
    }
}
