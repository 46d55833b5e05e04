//! Where reading starts and ends, in both dialects, as data: no client is needed to parse it.
use std::collections::BTreeMap;

use millstream_plan::SplitId;
use millstream_plan::options::Resolved;

use crate::ConnectorError;

/// A partition of a topic. Its split is named `topic/partition`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Partition {
    pub topic: String,
    pub index: i32,
}

impl Partition {
    pub(super) fn split(&self) -> SplitId {
        SplitId(format!("{}/{}", self.topic, self.index))
    }

    /// Inverse of [`split`](Self::split).
    pub(super) fn of(split: &SplitId) -> Option<Self> {
        let (topic, index) = split.0.rsplit_once('/')?;
        Some(Self { topic: topic.to_owned(), index: index.parse().ok()? })
    }
}

/// One end of a partition's range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Earliest,
    Latest,
    /// What the consumer group has committed.
    Group,
    /// The first record with this timestamp (ms) or a later one; the end if there is none.
    Timestamp(i64),
    Offset(u64),
}

/// Bounds of all partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// For partitions that are not listed.
    pub other: Bound,
    pub listed: BTreeMap<Partition, Bound>,
}

impl Bounds {
    pub(super) fn of(&self, partition: &Partition) -> Bound {
        self.listed.get(partition).copied().unwrap_or(self.other)
    }

    fn all(bound: Bound) -> Self {
        Self { other: bound, listed: BTreeMap::new() }
    }
}

/// Which topics.
#[derive(Clone, Debug)]
pub(super) enum Topics {
    Named(Vec<String>),
    Pattern(regex::Regex),
}

/// Reads `topic` or `topic-pattern`.
pub(super) fn topics(table: &str, options: &Resolved) -> Result<Topics, ConnectorError> {
    match (options.text("topic"), options.text("topic-pattern")) {
        (Some(list), None) => {
            let mut names: Vec<String> = Vec::new();
            for name in list.split([',', ';']).map(str::trim).filter(|n| !n.is_empty()) {
                if !names.iter().any(|n| n == name) {
                    names.push(name.to_owned());
                }
            }
            if names.is_empty() {
                return Err(no_topic(table));
            }
            Ok(Topics::Named(names))
        }
        (None, Some(pattern)) => regex::Regex::new(&format!("^(?:{pattern})$")).map(Topics::Pattern).map_err(|e| {
            ConnectorError::user(
                format!("'{}' = '{pattern}' is not a regular expression", options.given_as("topic-pattern")),
                e.to_string().lines().last().unwrap_or_default().trim().to_owned(),
            )
        }),
        (Some(_), Some(_)) => Err(ConnectorError::user(
            format!(
                "table '{table}': '{}' and '{}' exclude each other",
                options.given_as("topic"),
                options.given_as("topic-pattern")
            ),
            "keep one of the two",
        )),
        (None, None) => Err(no_topic(table)),
    }
}

fn no_topic(table: &str) -> ConnectorError {
    ConnectorError::user(format!("table '{table}': no topic is named"), "add 'topic' = '…' or 'topic-pattern' = '…'")
}

/// Where a new pipeline starts.
pub(super) fn start(options: &Resolved, topics: &Topics) -> Result<Bounds, ConnectorError> {
    let given = one_of(
        options,
        &["scan.startup.mode", "startingOffsets", "startingOffsetsByTimestamp", "scan.startup.timestamp-millis"],
        "scan.startup.mode",
        "timestamp",
        "scan.startup.timestamp-millis",
    )?;
    match given {
        Some("startingOffsets") => spark_offsets(options, "startingOffsets", true),
        Some("startingOffsetsByTimestamp") => {
            let json = spark_json(options, "startingOffsetsByTimestamp")?;
            let listed = json.into_iter().map(|(p, ms)| (p, Bound::Timestamp(ms))).collect();
            Ok(Bounds { other: Bound::Earliest, listed })
        }
        Some("scan.startup.timestamp-millis") => timestamp(options, "scan.startup.timestamp-millis").map(Bounds::all),
        _ => {
            let mode = options.text("scan.startup.mode").unwrap_or("earliest-offset").to_ascii_lowercase();
            match mode.as_str() {
                "latest-offset" => Ok(Bounds::all(Bound::Latest)),
                "group-offsets" => Ok(Bounds::all(Bound::Group)),
                "timestamp" => timestamp(options, "scan.startup.timestamp-millis").map(Bounds::all),
                "specific-offsets" => flink_offsets(options, "scan.startup.specific-offsets", topics, Bound::Earliest),
                _ => Ok(Bounds::all(Bound::Earliest)),
            }
        }
    }
}

/// Where the input ends; `None` if it does not.
pub(super) fn end(options: &Resolved, topics: &Topics) -> Result<Option<Bounds>, ConnectorError> {
    let given = one_of(
        options,
        &["scan.bounded.mode", "endingOffsets", "scan.bounded.timestamp-millis"],
        "scan.bounded.mode",
        "timestamp",
        "scan.bounded.timestamp-millis",
    )?;
    match given {
        Some("endingOffsets") => spark_offsets(options, "endingOffsets", false).map(Some),
        Some("scan.bounded.timestamp-millis") => {
            timestamp(options, "scan.bounded.timestamp-millis").map(|b| Some(Bounds::all(b)))
        }
        _ => {
            let mode = options.text("scan.bounded.mode").unwrap_or("unbounded").to_ascii_lowercase();
            match mode.as_str() {
                "latest-offset" => Ok(Some(Bounds::all(Bound::Latest))),
                "group-offsets" => Ok(Some(Bounds::all(Bound::Group))),
                "timestamp" => timestamp(options, "scan.bounded.timestamp-millis").map(|b| Some(Bounds::all(b))),
                "specific-offsets" => {
                    flink_offsets(options, "scan.bounded.specific-offsets", topics, Bound::Latest).map(Some)
                }
                _ => Ok(None),
            }
        }
    }
}

/// Which of these options the user gave; an error if more than one, except that `mode` = `with` goes together with `detail`.
fn one_of<'a>(
    options: &Resolved,
    names: &[&'a str],
    mode: &str,
    with: &str,
    detail: &str,
) -> Result<Option<&'a str>, ConnectorError> {
    let mut given = names.iter().copied().filter(|n| options.is_given(n));
    let Some(first) = given.next() else { return Ok(None) };
    let Some(second) = given.next() else { return Ok(Some(first)) };
    if first == mode && second == detail && options.text(mode).is_some_and(|m| m.eq_ignore_ascii_case(with)) {
        return Ok(Some(first));
    }
    Err(ConnectorError::user(
        format!("'{}' and '{}' contradict each other", options.given_as(first), options.given_as(second)),
        "keep one of the two",
    ))
}

fn timestamp(options: &Resolved, name: &str) -> Result<Bound, ConnectorError> {
    options.integer(name).map(Bound::Timestamp).ok_or_else(|| {
        ConnectorError::user(format!("mode 'timestamp' needs '{name}'"), "give it in milliseconds since 1970")
    })
}

/// `partition:0,offset:42;partition:1,offset:300`
fn flink_offsets(options: &Resolved, name: &str, topics: &Topics, other: Bound) -> Result<Bounds, ConnectorError> {
    let form = "write it as 'partition:0,offset:42;partition:1,offset:300'";
    let Some(text) = options.text(name) else {
        return Err(ConnectorError::user(format!("mode 'specific-offsets' needs '{name}'"), form));
    };
    let Topics::Named(names) = topics else {
        return Err(several_topics(name));
    };
    let [topic] = names.as_slice() else {
        return Err(several_topics(name));
    };
    let mut listed = BTreeMap::new();
    for entry in text.split(';').map(str::trim).filter(|e| !e.is_empty()) {
        let field = |key: &str| {
            entry
                .split(',')
                .find_map(|f| f.trim().strip_prefix(key)?.trim_start().strip_prefix(':')?.trim().parse().ok())
        };
        let (index, offset): (Option<u64>, Option<u64>) = (field("partition"), field("offset"));
        let (Some(index), Some(offset)) = (index.and_then(|i| i32::try_from(i).ok()), offset) else {
            return Err(ConnectorError::user(format!("'{name}': cannot read '{entry}'"), form));
        };
        listed.insert(Partition { topic: topic.clone(), index }, Bound::Offset(offset));
    }
    Ok(Bounds { other, listed })
}

fn several_topics(name: &str) -> ConnectorError {
    ConnectorError::user(
        format!("'{name}' is for one topic"),
        "for several topics use 'startingOffsets' or 'endingOffsets' with JSON",
    )
}

/// `earliest`, `latest`, or JSON with −2 and −1 for them.
fn spark_offsets(options: &Resolved, name: &str, earliest: bool) -> Result<Bounds, ConnectorError> {
    let text = options.text(name).unwrap_or_default().trim();
    if text.eq_ignore_ascii_case("latest") {
        return Ok(Bounds::all(Bound::Latest));
    }
    if earliest && text.eq_ignore_ascii_case("earliest") {
        return Ok(Bounds::all(Bound::Earliest));
    }
    let mut listed = BTreeMap::new();
    for (partition, offset) in spark_json(options, name)? {
        let bound = match (offset, u64::try_from(offset)) {
            (_, Ok(offset)) => Bound::Offset(offset),
            (-1, _) => Bound::Latest,
            (-2, _) if earliest => Bound::Earliest,
            _ => {
                return Err(ConnectorError::user(
                    format!(
                        "'{name}': {offset} is not an offset of partition {} of '{}'",
                        partition.index, partition.topic
                    ),
                    if earliest { "use -2 for the beginning and -1 for the end" } else { "use -1 for the end" },
                ));
            }
        };
        listed.insert(partition, bound);
    }
    Ok(Bounds { other: if earliest { Bound::Earliest } else { Bound::Latest }, listed })
}

fn spark_json(options: &Resolved, name: &str) -> Result<BTreeMap<Partition, i64>, ConnectorError> {
    let text = options.text(name).unwrap_or_default();
    let topics: BTreeMap<String, BTreeMap<i32, i64>> = serde_json::from_str(text).map_err(|e| {
        ConnectorError::user(
            format!("'{name}' = '{text}' cannot be read: {e}"),
            "write JSON such as {\"topic\":{\"0\":23,\"1\":42}}, or earliest or latest where the option takes them",
        )
    })?;
    Ok(topics
        .into_iter()
        .flat_map(|(topic, partitions)| {
            partitions.into_iter().map(move |(index, value)| (Partition { topic: topic.clone(), index }, value))
        })
        .collect())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use millstream_plan::options::resolve;

    use super::super::options::SOURCE_OPTIONS;
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Resolved {
        let given = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        resolve(&[SOURCE_OPTIONS], &[], &given).unwrap()
    }

    fn named() -> Topics {
        Topics::Named(vec!["t".to_owned()])
    }

    fn start_of(pairs: &[(&str, &str)]) -> Result<Bounds, ConnectorError> {
        start(&options(pairs), &named())
    }

    fn partition(topic: &str, index: i32) -> Partition {
        Partition { topic: topic.to_owned(), index }
    }

    #[test]
    fn both_dialects_say_the_same() {
        assert_eq!(start_of(&[]).unwrap(), Bounds::all(Bound::Earliest));
        assert_eq!(
            start_of(&[("startingOffsets", "latest")]).unwrap(),
            start_of(&[("scan.startup.mode", "latest-offset")]).unwrap()
        );
        assert_eq!(
            start_of(&[("startingTimestamp", "5")]).unwrap(),
            start_of(&[("scan.startup.mode", "timestamp"), ("scan.startup.timestamp-millis", "5")]).unwrap()
        );
        let flink = start_of(&[
            ("scan.startup.mode", "specific-offsets"),
            ("scan.startup.specific-offsets", "partition:0, offset:42; partition:3,offset:7"),
        ]);
        let spark = start_of(&[("startingOffsets", r#"{"t":{"0":42,"3":7}}"#)]);
        assert_eq!(flink.unwrap(), spark.unwrap());
        let b = start_of(&[("startingOffsets", r#"{"t":{"0":-2,"1":-1}}"#)]).unwrap();
        assert_eq!((b.of(&partition("t", 0)), b.of(&partition("t", 1))), (Bound::Earliest, Bound::Latest));
        let b = start_of(&[("startingOffsetsByTimestamp", r#"{"t":{"1":9}}"#)]).unwrap();
        assert_eq!((b.of(&partition("t", 1)), b.of(&partition("t", 0))), (Bound::Timestamp(9), Bound::Earliest));
    }

    #[test]
    fn ends() {
        let of = |pairs: &[(&str, &str)]| end(&options(pairs), &named()).unwrap();
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("scan.bounded.mode", "latest-offset")]), Some(Bounds::all(Bound::Latest)));
        assert_eq!(of(&[("endingOffsets", r#"{"t":{"0":50}}"#)]).unwrap().of(&partition("t", 0)), Bound::Offset(50));
        assert_eq!(of(&[("endingTimestamp", "8")]), Some(Bounds::all(Bound::Timestamp(8))));
    }

    #[test]
    fn contradictions_and_mistakes() {
        let message = |pairs: &[(&str, &str)]| start_of(pairs).unwrap_err().to_string();
        assert!(
            message(&[("startingOffsets", "latest"), ("scan.startup.mode", "earliest-offset")]).contains("contradict")
        );
        assert!(message(&[("scan.startup.mode", "timestamp")]).contains("needs 'scan.startup.timestamp-millis'"));
        assert!(message(&[("startingOffsets", "latst")]).contains("cannot be read"));
        assert!(message(&[("startingOffsets", r#"{"t":{"0":-7}}"#)]).contains("-7 is not an offset"));
        assert!(
            message(&[("scan.startup.mode", "specific-offsets"), ("scan.startup.specific-offsets", "0:5")])
                .contains("'0:5'")
        );
        assert!(topics("x", &options(&[])).is_err());
        assert!(topics("x", &options(&[("topic", "a"), ("topic-pattern", "b")])).is_err());
        assert!(topics("x", &options(&[("topic-pattern", "(")])).is_err());
    }

    #[test]
    fn topic_lists_and_patterns() {
        let Topics::Named(names) = topics("x", &options(&[("subscribe", "b, a;b")])).unwrap() else { unreachable!() };
        assert_eq!(names, ["b", "a"]);
        let Topics::Pattern(p) = topics("x", &options(&[("subscribePattern", "a.*|b")])).unwrap() else {
            unreachable!()
        };
        assert!(p.is_match("ab") && p.is_match("b") && !p.is_match("xb"));
    }

    #[test]
    fn split_names() {
        let p = partition("a.b-c", 12);
        assert_eq!(p.split(), SplitId("a.b-c/12".to_owned()));
        assert_eq!(Partition::of(&p.split()), Some(p));
        assert_eq!(Partition::of(&SplitId("a".to_owned())), None);
    }
}
