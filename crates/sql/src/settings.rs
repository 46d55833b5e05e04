//! Settings of a pipeline: `SET` statements, overridden from outside (flags, environment, file), over defaults.
use std::collections::BTreeMap;
use std::time::Duration;

use millstream_dataflow::graph::{Ttl, TtlMode};
use millstream_plan::options::{OptionError, OptionKind, OptionSpec, parse_bytes, parse_duration, resolve};

use crate::cursor::Name;
use crate::error::{Mistake, Result};
use crate::functions::Dialect;
use crate::functions::zone::Zone;
use crate::statement::Statement;

/// Every setting of a pipeline.
pub const SETTINGS: &[OptionSpec] = &[
    option(
        "pipeline.name",
        &["spark.app.name", "jobName"],
        OptionKind::Text,
        None,
        "Name of the pipeline; part of transactional ids and group ids. Default: the name of the SQL file.",
    ),
    option(
        "checkpointLocation",
        &["checkpoint.location", "state.checkpoints.dir", "execution.checkpointing.dir"],
        OptionKind::Text,
        None,
        "Where plans and checkpoints are kept: a local path or s3://bucket/prefix.",
    ),
    option(
        "trigger",
        &["processingTime"],
        OptionKind::Text,
        Some("0 ms"),
        "Shortest time between two epochs (0: as soon as there is input), or availableNow: end when everything that is there now is processed, or once: the same in one epoch.",
    ),
    option(
        "sql.dialect",
        &[],
        OptionKind::Choice(Dialect::NAMES),
        Some("flink"),
        "Whose function a name means that Flink, Spark and DataFusion give to different ones; see functions.md.",
    ),
    option(
        "table.local-time-zone",
        &["spark.sql.session.timeZone"],
        OptionKind::Text,
        Some("UTC"),
        "Time zone of TIMESTAMP_LTZ, CURRENT_DATE and the functions that turn texts and numbers into times: a name such as Europe/Berlin, or an offset such as +02:00.",
    ),
    option(
        "parallelism",
        &["parallelism.default", "spark.sql.shuffle.partitions"],
        OptionKind::Integer,
        None,
        "Tasks per stage; fixed when the pipeline starts for the first time. Default: the number of cores.",
    ),
    option(
        "checkpoint.interval",
        &["execution.checkpointing.interval"],
        OptionKind::Duration,
        Some("10 s"),
        "Time between two checkpoints of state.",
    ),
    option(
        "log.durability",
        &[],
        OptionKind::Choice(&["local", "object-store"]),
        None,
        "What must hold an epoch's plan before its output is published. Default: object-store when checkpointLocation is one.",
    ),
    option(
        "dead-letter.location",
        &["deadLetterLocation"],
        OptionKind::Text,
        None,
        "Where records that take part in no result are kept. Default: dead-letters/ in checkpointLocation.",
    ),
    option(
        "watermark.idle-timeout",
        &["table.exec.source.idle-timeout"],
        OptionKind::Duration,
        None,
        "A split without rows for this long does not hold the watermark back, unless its table says otherwise.",
    ),
    option(
        "emit.early",
        &["table.exec.emit.early-fire.delay"],
        OptionKind::Duration,
        None,
        "Windows that are still open emit what they have so far, at most this often in processing time, and take it back when it changes. Their results are changes then. Default: a window is emitted once, when it closes.",
    ),
    option(
        "state.ttl",
        &["table.exec.state.ttl"],
        OptionKind::Duration,
        None,
        "State of a key that no row has touched for this long is dropped: of aggregations without a window and of DISTINCT. What is emitted then differs from a batch query over the same rows. Default: state is kept.",
    ),
    option(
        "state.ttl.mode",
        &[],
        OptionKind::Choice(&["freeze", "retract"]),
        Some("freeze"),
        "What dropped state means: freeze lets the last result stand, retract takes it back.",
    ),
    option(
        "epoch.max-records",
        &[],
        OptionKind::Integer,
        Some("1000000"),
        "Most records in one epoch, over all sources.",
    ),
    option(
        "epoch.max-bytes",
        &[],
        OptionKind::Bytes,
        Some("256 mb"),
        "Most bytes of records in one epoch, over all sources.",
    ),
    option(
        "state.memory",
        &[],
        OptionKind::Bytes,
        Some("1 gb"),
        "State that an executor keeps in memory. Joins, ranks and OVER read what is beyond it from the executor's disk when it is needed; other \
         operators keep their state in memory. Half as much again may be in use while a checkpoint is written.",
    ),
    option(
        "epoch.in-flight",
        &[],
        OptionKind::Integer,
        Some("4"),
        "Most epochs that are planned and not yet published.",
    ),
];

const fn option(
    name: &'static str,
    synonyms: &'static [&'static str],
    kind: OptionKind,
    default: Option<&'static str>,
    text: &'static str,
) -> OptionSpec {
    OptionSpec { name, synonyms, kind, default, text }
}

/// Where a value comes from; later ones win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    Default,
    /// A `SET` statement.
    Set,
    /// Given from outside: flag, environment variable or file.
    Override,
}

/// When epochs are planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// At least this long after the one before.
    Interval(Duration),
    /// Until everything that is there at the start is processed.
    AvailableNow,
    /// The same in one epoch.
    Once,
}

/// Checked settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<&'static str, (String, Origin)>,
    /// See [`Self::trigger`].
    trigger: Trigger,
    dialect: Dialect,
    zone: Zone,
}

impl Settings {
    /// The value, or `None` if it is neither given nor has a default.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(value, _)| value.as_str())
    }

    /// Value of an `Integer` setting.
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.text(name).and_then(|v| v.trim().parse().ok())
    }

    /// Value of a `Duration` setting.
    #[must_use]
    pub fn duration(&self, name: &str) -> Option<Duration> {
        self.text(name).and_then(parse_duration)
    }

    /// Value of a `Duration` setting in milliseconds.
    pub(crate) fn millis(&self, name: &str) -> Option<i64> {
        self.duration(name).map(|d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
    }

    /// `state.ttl` with its mode.
    pub(crate) fn ttl(&self) -> Option<Ttl> {
        let mode = match self.text("state.ttl.mode") {
            Some("retract") => TtlMode::Retract,
            _ => TtlMode::Freeze,
        };
        self.millis("state.ttl").filter(|ms| *ms > 0).map(|after_ms| Ttl { after_ms, mode })
    }

    /// Value of a `Bytes` setting.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<u64> {
        self.text(name).and_then(parse_bytes)
    }

    /// `trigger`, parsed.
    #[must_use]
    pub fn trigger(&self) -> Trigger {
        self.trigger
    }

    /// `sql.dialect`, parsed.
    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// `table.local-time-zone`, parsed.
    pub(crate) fn zone(&self) -> &Zone {
        &self.zone
    }

    /// All values with their origins, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str, Origin)> {
        self.values.iter().map(|(name, (value, origin))| (*name, value.as_str(), *origin))
    }
}

/// Settings of a script.
pub(crate) fn resolve_settings(script: &[Statement], overrides: &BTreeMap<String, String>) -> Result<Settings> {
    let mut given: BTreeMap<String, String> = BTreeMap::new();
    let mut places: BTreeMap<&str, &Name> = BTreeMap::new();
    for statement in script {
        match statement {
            Statement::Set { key, value } => {
                given.insert(key.text.clone(), value.text.clone());
                places.insert(&key.text, key);
            }
            Statement::Reset { key: Some(key) } => {
                given.remove(&key.text);
            }
            Statement::Reset { key: None } => given.clear(),
            Statement::CreateTable(_) | Statement::CreateView(_) | Statement::Insert(_) => {}
        }
    }
    let place = |e: OptionError| {
        let name = places.get(e.option.as_str());
        let mistake = Mistake::new(name.map(|n| n.at), e.message.replace("unknown option", "unknown setting"));
        match e.hint {
            Some(hint) => mistake.hint(hint),
            None => mistake,
        }
    };
    let mut values = BTreeMap::new();
    for (layer, origin) in [(&given, Origin::Set), (overrides, Origin::Override)] {
        let resolved = resolve(&[SETTINGS], &[], layer).map_err(place)?;
        for (name, value, given_as) in resolved.iter() {
            match given_as {
                Some(_) => values.insert(name, (value.to_owned(), origin)),
                None => values
                    .insert(name, values.get(name).cloned().unwrap_or_else(|| (value.to_owned(), Origin::Default))),
            };
        }
    }
    let given_place = |name: &str| {
        let spec = SETTINGS.iter().find(|s| s.name == name);
        spec.and_then(|s| std::iter::once(&s.name).chain(s.synonyms).find_map(|n| places.get(n))).map(|n| n.at)
    };
    let trigger = values.get("trigger").map_or("", |(v, _): &(String, Origin)| v.as_str());
    let trigger = parse_trigger(trigger).ok_or_else(|| {
        Mistake::new(given_place("trigger"), format!("'trigger' = '{trigger}' is not a trigger"))
            .hint("write a duration such as '500 milliseconds', or 'availableNow' or 'once'")
    })?;
    let text = |name: &str| values.get(name).map_or("", |(v, _)| v.as_str());
    let dialect = Dialect::parse(text("sql.dialect")).unwrap_or(Dialect::Flink);
    let zone = Zone::parse(text("table.local-time-zone")).ok_or_else(|| {
        let name = "table.local-time-zone";
        Mistake::new(given_place(name), format!("'{name}' = '{}' is not a time zone", text(name)))
            .hint("write a name such as 'Europe/Berlin', or an offset such as '+02:00'")
    })?;
    for (name, range) in [("parallelism", 1..=128), ("epoch.max-records", 1..=i64::MAX), ("epoch.in-flight", 1..=64)] {
        let value = values.get(name).and_then(|(v, _)| v.trim().parse::<i64>().ok());
        if let Some(value) = value.filter(|v| !range.contains(v)) {
            let message = format!("'{name}' = '{value}' is not between {} and {}", range.start(), range.end());
            return Err(Mistake::new(given_place(name), message));
        }
    }
    Ok(Settings { values, trigger, dialect, zone })
}

fn parse_trigger(text: &str) -> Option<Trigger> {
    match text.to_ascii_lowercase().as_str() {
        "availablenow" | "available-now" => Some(Trigger::AvailableNow),
        "once" => Some(Trigger::Once),
        _ => parse_duration(text).map(Trigger::Interval),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::statement::parse_script;

    fn settings(sql: &str, overrides: &[(&str, &str)]) -> Result<Settings> {
        let overrides = overrides.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        resolve_settings(&parse_script(sql).unwrap(), &overrides)
    }

    #[test]
    fn overrides_beat_set_beats_defaults_also_by_synonym() {
        let sql = "SET 'execution.checkpointing.interval' = '5 s'; SET 'trigger' = 'availableNow';";
        let found = settings(sql, &[("checkpoint.interval", "7 s")]).unwrap();
        assert_eq!(found.duration("checkpoint.interval"), Some(Duration::from_secs(7)));
        assert_eq!(found.trigger(), Trigger::AvailableNow);
        let origin = |name| found.iter().find(|(n, ..)| *n == name).map(|(.., origin)| origin);
        assert_eq!(origin("checkpoint.interval"), Some(Origin::Override));
        assert_eq!(origin("trigger"), Some(Origin::Set));
        assert_eq!(origin("epoch.max-bytes"), Some(Origin::Default));
    }

    #[test]
    fn dialect_and_zone() {
        let found = settings("", &[]).unwrap();
        assert_eq!((found.dialect(), found.zone().to_string().as_str()), (Dialect::Flink, "UTC"));
        let sql = "SET 'sql.dialect' = 'spark'; SET 'spark.sql.session.timeZone' = 'America/New_York';";
        let found = settings(sql, &[]).unwrap();
        assert_eq!((found.dialect(), found.zone().to_string().as_str()), (Dialect::Spark, "America/New_York"));
    }

    #[test]
    fn mistakes_stand_at_their_set() {
        let e = settings("SET 'trigger' = '1 s';\nSET 'checkpointLocatoin' = '/x';", &[]).unwrap_err();
        assert_eq!((e.at.unwrap().line, e.hint.as_deref()), (2, Some("did you mean 'checkpointLocation'?")));
        let e = settings("SET 'parallelism' = '1000';", &[]).unwrap_err();
        assert!(e.at.is_some() && e.message.contains("not between 1 and 128"));
        assert!(settings("", &[("trigger", "soon")]).unwrap_err().at.is_none());
        let e = settings("SET 'spark.sql.session.timeZone' = 'Berlin';", &[]).unwrap_err();
        assert!(e.at.is_some() && e.message.contains("not a time zone"), "{e}");
        assert!(settings("SET 'sql.dialect' = 'hive';", &[]).unwrap_err().at.is_some());
    }
}
