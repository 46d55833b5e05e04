//! The queries of Nexmark over generated events.
//!
//! The text of a query is that of its example, or stands in `nexmark/qN.sql` until the engine can run it as one. `nexmark/qN.batch.sql` is
//! what the batch is asked, where the text itself will not do: functions of other names, orders completed, `__end` for the end of a window.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use millstream_connectors::{SourcePoll, connector};
use millstream_plan::SplitRange;

use crate::harness::Case;

/// Queries that the planner refuses today. One that begins to work belongs out of this list: the test says so.
const REFUSED: &[&str] = &[];

/// Events of most tests; at 500 a second, 40 seconds of event time.
const EVENTS: u64 = 20_000;

const COLUMNS: &str = "
  event_type INT,
  person ROW<id BIGINT, name STRING, emailAddress STRING, creditCard STRING, city STRING, state STRING, `dateTime` TIMESTAMP(3), extra STRING>,
  auction ROW<id BIGINT, itemName STRING, description STRING, initialBid BIGINT, reserve BIGINT, `dateTime` TIMESTAMP(3), expires TIMESTAMP(3), seller BIGINT, category BIGINT, extra STRING>,
  bid ROW<auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, `dateTime` TIMESTAMP(3), extra STRING>";

const TIME: &str = "
  `dateTime` AS CASE WHEN event_type = 0 THEN person.`dateTime` WHEN event_type = 1 THEN auction.`dateTime` ELSE bid.`dateTime` END,
  WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND";

/// Name, type of event, columns.
const VIEWS: [(&str, u8, &[&str]); 3] = [
    ("person", 0, &["id", "name", "emailAddress", "creditCard", "city", "state", "dateTime", "extra"]),
    (
        "auction",
        1,
        &[
            "id",
            "itemName",
            "description",
            "initialBid",
            "reserve",
            "dateTime",
            "expires",
            "seller",
            "category",
            "extra",
        ],
    ),
    ("bid", 2, &["auction", "bidder", "price", "channel", "url", "dateTime", "extra"]),
];

/// Events as the connector makes them, all columns.
pub fn events(count: u64, rate: u64) -> RecordBatch {
    let sql = format!(
        "CREATE TABLE nexmark ({COLUMNS}) WITH ('connector' = 'nexmark', 'number-of-rows' = '{count}', 'event-rate' = '{rate}');
         CREATE TABLE sink ({COLUMNS}) WITH ('connector' = 'blackhole');
         INSERT INTO sink SELECT event_type, person, auction, bid FROM nexmark;"
    );
    let pipeline = millstream_sql::plan(&sql, &BTreeMap::new(), 1).unwrap_or_else(|e| panic!("{e}"));
    let spec = pipeline.sources[0].clone();
    let schema = spec.schema.clone();
    let factory = (connector("nexmark").unwrap().source)(spec).unwrap();
    let mut reader = factory.reader(0).unwrap();
    let mut batches = Vec::new();
    for split in factory.enumerator().unwrap().discover(&BTreeMap::new(), 0).unwrap().splits {
        let range = SplitRange { split: split.split, task: 0, from: split.start, to: split.end, tag: split.tag };
        loop {
            match reader.poll(&range).unwrap() {
                SourcePoll::Done => break,
                SourcePoll::Pending => {}
                SourcePoll::Batch(batch) => batches.push(batch.rows),
            }
        }
    }
    let rows = concat_batches(&schema, &batches).unwrap();
    assert_eq!(rows.num_rows() as u64, count);
    rows
}

/// The tables and views of Nexmark with these events.
fn auction_site(events: &RecordBatch) -> Case {
    let mut case = Case::new()
        .table("nexmark", &format!("{COLUMNS},{TIME}"))
        .rows(events.clone())
        .table("side_input", "`key` BIGINT, `value` STRING")
        .generated(10_000, "i, concat('side ', i)")
        .files()
        .with_now();
    for (name, kind, columns) in VIEWS {
        let fields: Vec<String> = columns
            .iter()
            .map(|c| if *c == "dateTime" { "`dateTime`".to_owned() } else { format!("{name}.{c}") })
            .collect();
        let stream = format!("SELECT {} FROM nexmark WHERE event_type = {kind}", fields.join(", "));
        let fields: Vec<String> = columns.iter().map(|c| format!("get_field(\"{name}\", '{c}') AS \"{c}\"")).collect();
        let batch = format!("SELECT {}, \"__now\" FROM nexmark WHERE event_type = {kind}", fields.join(", "));
        case = case.view_as(name, &stream, &batch);
    }
    case
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/streams/nexmark")
}

/// A query over these events, with the batch's text.
pub fn query(name: &str, events: &RecordBatch) -> Case {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../examples/nexmark/{name}.sql"));
    let mut case = auction_site(events).max_epochs(5);
    let query = match std::fs::read_to_string(&example) {
        Ok(text) => {
            let columns = text.split_once("CREATE TABLE result (").and_then(|(_, rest)| rest.split_once("\n)"));
            case = case.columns(columns.expect("the example has a table 'result'").0);
            let (_, insert) = text.split_once("INSERT INTO result").expect("the example fills 'result'");
            insert.trim().trim_end_matches(';').to_owned()
        }
        Err(_) => {
            let path = folder().join(format!("{name}.sql"));
            std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        }
    };
    case = case.query(&query);
    if let Ok(batch) = std::fs::read_to_string(folder().join(format!("{name}.batch.sql"))) {
        case = case.batch(&batch);
        if batch.contains("__end_now") {
            case = case.closes_by_now("__end_now");
        } else if batch.contains("__end") {
            case = case.closes_by("__end");
        }
    }
    case
}

/// True if the planner takes it.
pub fn runs(name: &str) -> bool {
    !REFUSED.contains(&name)
}

static SMALL: LazyLock<RecordBatch> = LazyLock::new(|| events(EVENTS, 500));

fn check(name: &str) {
    let case = query(name, &SMALL);
    // Of a query that is refused, too.
    assert!(!case.batch_result().1.is_empty(), "{name}: the batch has no rows");
    match (case.refused(), REFUSED.contains(&name)) {
        (None, false) => case.seeds(2).check(),
        (Some(error), false) => panic!("{name}: {error}"),
        (Some(error), true) => assert!(!error.message.contains("bug"), "{name}: {error}"),
        (None, true) => panic!("{name} is planned now: take it from REFUSED, and make it examples/nexmark/{name}.sql"),
    }
}

macro_rules! queries {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        /// All queries.
        pub const QUERIES: &[&str] = &[$(stringify!($name)),*];
    };
}

queries!(q0 q1 q2 q3 q4 q5 q6 q7 q8 q9 q10 q11 q12 q13 q14 q15 q16 q17 q18 q19 q20 q21 q22 q23);
