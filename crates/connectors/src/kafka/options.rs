//! Declared options of the connector.
use millstream_plan::options::{OptionKind, OptionSpec};

const fn option(
    name: &'static str,
    synonyms: &'static [&'static str],
    kind: OptionKind,
    default: Option<&'static str>,
    text: &'static str,
) -> OptionSpec {
    OptionSpec { name, synonyms, kind, default, text }
}

/// Options of a source.
pub(super) const SOURCE_OPTIONS: &[OptionSpec] = &[
    option("topic", &["subscribe"], OptionKind::Text, None, "Topic, or several separated by commas."),
    option(
        "topic-pattern",
        &["subscribePattern"],
        OptionKind::Text,
        None,
        "Regular expression: all topics whose whole name matches, also those that are created later.",
    ),
    option(
        "scan.startup.mode",
        &[],
        OptionKind::Choice(&["earliest-offset", "latest-offset", "group-offsets", "timestamp", "specific-offsets"]),
        Some("earliest-offset"),
        "Where a new pipeline starts. A pipeline with a checkpoint goes on where it was; partitions that are found later start at their beginning.",
    ),
    option(
        "scan.startup.timestamp-millis",
        &["startingTimestamp"],
        OptionKind::Integer,
        None,
        "Start with the first record of this timestamp or later, in milliseconds; at the end of a partition without one.",
    ),
    option(
        "scan.startup.specific-offsets",
        &[],
        OptionKind::Text,
        None,
        "Start offsets of one topic's partitions: `partition:0,offset:42;partition:1,offset:300`. Others start at their beginning.",
    ),
    option(
        "startingOffsets",
        &[],
        OptionKind::Text,
        None,
        "earliest, latest, or JSON: `{\"topic\":{\"0\":23,\"1\":-2}}`, where -2 is the beginning and -1 the end.",
    ),
    option(
        "startingOffsetsByTimestamp",
        &[],
        OptionKind::Text,
        None,
        "JSON with a start timestamp in milliseconds per partition: `{\"topic\":{\"0\":1700000000000}}`.",
    ),
    option(
        "scan.bounded.mode",
        &[],
        OptionKind::Choice(&["unbounded", "latest-offset", "group-offsets", "timestamp", "specific-offsets"]),
        Some("unbounded"),
        "Where the input ends. The ends are found out once, when the pipeline starts.",
    ),
    option(
        "scan.bounded.timestamp-millis",
        &["endingTimestamp"],
        OptionKind::Integer,
        None,
        "End before the first record of this timestamp or later, in milliseconds.",
    ),
    option(
        "scan.bounded.specific-offsets",
        &[],
        OptionKind::Text,
        None,
        "End offsets (exclusive) of one topic's partitions: `partition:0,offset:42;partition:1,offset:300`.",
    ),
    option(
        "endingOffsets",
        &[],
        OptionKind::Text,
        None,
        "latest, or JSON: `{\"topic\":{\"0\":50,\"1\":-1}}`, where -1 is the end. The input then ends there.",
    ),
    option(
        "scan.topic-partition-discovery.interval",
        &[],
        OptionKind::Duration,
        Some("10 s"),
        "How often to look for new partitions, new topics of the pattern, and topics that were deleted and created again.",
    ),
    option(
        "failOnDataLoss",
        &[],
        OptionKind::Bool,
        Some("true"),
        "Stop when records that were to be read are gone (deleted by retention, or the topic was created again); otherwise go on with what is there.",
    ),
    option(
        "maxOffsetsPerTrigger",
        &[],
        OptionKind::Integer,
        None,
        "At most so many offsets per epoch, over all partitions.",
    ),
    option(
        "minOffsetsPerTrigger",
        &[],
        OptionKind::Integer,
        None,
        "Wait until so many offsets are there, but no longer than 'maxTriggerDelay'.",
    ),
    option(
        "maxTriggerDelay",
        &[],
        OptionKind::Duration,
        Some("15 min"),
        "How long to wait for 'minOffsetsPerTrigger'.",
    ),
    option(
        "watermark.idle-timeout",
        &["scan.watermark.idle-timeout"],
        OptionKind::Duration,
        None,
        "A partition without records for this long does not hold the watermark back.",
    ),
    option(
        "scan.compacted",
        &[],
        OptionKind::Bool,
        Some("true"),
        "Of a table with a PRIMARY KEY: compaction may take records away before a replay reads them again. Say false if the topic keeps every record for longer than the pipeline may be down (cleanup.policy without compact, or min.compaction.lag.ms).",
    ),
    option(
        "scan.unreachable-timeout",
        &[],
        OptionKind::Duration,
        Some("5 min"),
        "How long a task waits for a broker that is away before it gives up and is deployed again.",
    ),
];

/// Options of a sink.
pub(super) const SINK_OPTIONS: &[OptionSpec] = &[
    option(
        "topic",
        &[],
        OptionKind::Text,
        None,
        "Topic to write to; a `topic` metadata column may name another per row.",
    ),
    option(
        "sink.delivery-guarantee",
        &[],
        OptionKind::Choice(&["exactly-once", "at-least-once", "none"]),
        Some("exactly-once"),
        "exactly-once (transactions; read with isolation.level=read_committed), at-least-once (acknowledged), none (sent).",
    ),
    option(
        "sink.transactional-id-prefix",
        &["transactional-id-prefix"],
        OptionKind::Text,
        None,
        "Prefix of the transactional ids, unique in the cluster; by default `millstream.` and the pipeline's name.",
    ),
    option(
        "sink.marker-topic",
        &[],
        OptionKind::Text,
        None,
        "Compacted topic for the markers of published epochs; by default `__millstream.` and the pipeline's name and `.markers`.",
    ),
    option(
        "sink.accept-missing-marker",
        &[],
        OptionKind::Bool,
        Some("false"),
        "Start from a checkpoint although no marker says what was published after it; epochs since then may be written twice.",
    ),
    option(
        "sink.partitioner",
        &[],
        OptionKind::Choice(&["default", "fixed", "round-robin", "none"]),
        Some("default"),
        "Partition of a record: default (hash of the key as in the Java client, any partition without a key), fixed (by sink task), round-robin, none (any partition).",
    ),
    option("key.fields", &[], OptionKind::Text, None, "Columns that make up the key, separated by `;` or `,`."),
    option(
        "sink.timeout",
        &[],
        OptionKind::Duration,
        Some("45 s"),
        "How long one publication may take before the attempt is given up and what it wrote is looked up.",
    ),
];

/// Options of tables whose records have a key, read and written.
pub(super) const KEY_OPTIONS: &[OptionSpec] = &[
    option(
        "key.format",
        &[],
        OptionKind::Choice(&["json", "csv", "raw"]),
        None,
        "Format of the keys of a table with a PRIMARY KEY or `key.fields`; by default that of the values (of changes: json).",
    ),
    option(
        "key.fields-prefix",
        &[],
        OptionKind::Text,
        None,
        "Prefix of the key columns' names that is left out in the key.",
    ),
    option(
        "value.fields-include",
        &[],
        OptionKind::Choice(&["ALL", "EXCEPT_KEY"]),
        Some("ALL"),
        "Whether the key columns are in the value too. They are read from the key in either case.",
    ),
];
