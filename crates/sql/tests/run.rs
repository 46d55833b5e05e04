//! Planned pipelines give what their SQL says: graphs run here in one task and one epoch over generated events, and the rows that
//! reach the sink are compared with plain loops over the same events.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use arrow::util::display::array_value_to_string;
use millstream_connectors::{SourcePoll, SourceSpec, connector};
use millstream_dataflow::graph::{Node, NodeKind, SourceNode};
use millstream_dataflow::operators::{EpochContext, Operator, Step, operator};
use millstream_dataflow::{DeltaBatch, now};
use millstream_plan::{Epoch, EpochPlan, SourcePlan, SplitRange, Watermark};
use millstream_sql::plan;

const NOW_MS: i64 = 1_600_000_000_123;

const NEXMARK: &str = "
CREATE TABLE nexmark (
  event_type INT,
  person ROW<id BIGINT, name STRING, emailAddress STRING, creditCard STRING, city STRING, state STRING, `dateTime` TIMESTAMP(3), extra STRING>,
  auction ROW<id BIGINT, itemName STRING, description STRING, initialBid BIGINT, reserve BIGINT, `dateTime` TIMESTAMP(3), expires TIMESTAMP(3), seller BIGINT, category BIGINT, extra STRING>,
  bid ROW<auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, `dateTime` TIMESTAMP(3), extra STRING>,
  `dateTime` AS CASE WHEN event_type = 0 THEN person.`dateTime` WHEN event_type = 1 THEN auction.`dateTime` ELSE bid.`dateTime` END,
  WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND
) WITH ('connector' = 'nexmark', 'number-of-rows' = '20000', 'event-rate' = '500');
CREATE VIEW bid AS SELECT bid.auction, bid.bidder, bid.price, bid.channel, bid.url, `dateTime`, bid.extra FROM nexmark WHERE event_type = 2;
";

/// Rows that reach the sink with these columns, as text, sorted.
fn run(columns: &str, query: &str) -> Vec<Vec<String>> {
    let sql =
        format!("{NEXMARK} CREATE TABLE sink ({columns}) WITH ('connector' = 'blackhole'); INSERT INTO sink {query};");
    let pipeline = plan(&sql, &BTreeMap::new(), 1).unwrap_or_else(|e| panic!("{e}"));
    let sources =
        pipeline.sources.iter().map(|s| SourcePlan { source: s.id, watermark: Watermark::MAX, ranges: Vec::new() });
    let epoch = EpochPlan {
        epoch: Epoch(1),
        now_ms: NOW_MS,
        sources: sources.collect(),
        checkpoint: false,
        flush: true,
        last: true,
    };
    now::set(NOW_MS);
    let mut outputs: Vec<Vec<RecordBatch>> = Vec::new();
    for node in &pipeline.graph.nodes {
        let output = match &node.kind {
            NodeKind::Source(source) => read(node, source, &pipeline.sources[usize::from(source.source.0)]),
            NodeKind::Sink(_) => outputs[usize::from(node.inputs[0].from.0)].clone(),
            _ => process(node, &epoch, &outputs),
        };
        outputs.push(output);
    }
    let (sink, _) = pipeline.graph.sinks().next().unwrap();
    let mut rows = Vec::new();
    for batch in &outputs[usize::from(sink.id.0)] {
        assert_eq!(batch.schema(), sink.output.schema);
        for row in 0..batch.num_rows() {
            rows.push(batch.columns().iter().map(|c| array_value_to_string(c, row).unwrap()).collect());
        }
    }
    rows.sort();
    rows
}

fn read(node: &Node, source: &SourceNode, spec: &SourceSpec) -> Vec<RecordBatch> {
    let factory = (connector("nexmark").unwrap().source)(spec.clone()).unwrap();
    let discovery = factory.enumerator().unwrap().discover(&BTreeMap::new(), NOW_MS).unwrap();
    let mut reader = factory.reader(0).unwrap();
    let mut rows = Vec::new();
    for split in discovery.splits {
        let range = SplitRange { split: split.split, task: 0, from: split.start, to: split.end, tag: split.tag };
        loop {
            match reader.poll(&range).unwrap() {
                SourcePoll::Done => break,
                SourcePoll::Pending => {}
                SourcePoll::Batch(batch) => {
                    let count = batch.rows.num_rows();
                    let columns =
                        source.columns.iter().map(|c| c.expr.evaluate(&batch.rows).unwrap().into_array(count).unwrap());
                    rows.push(RecordBatch::try_new(node.output.schema.clone(), columns.collect()).unwrap());
                }
            }
        }
    }
    rows
}

fn process(node: &Node, epoch: &EpochPlan, outputs: &[Vec<RecordBatch>]) -> Vec<RecordBatch> {
    let mut operator: Box<dyn Operator> = operator(node).unwrap().unwrap();
    let cx = EpochContext { plan: epoch };
    let mut out = Vec::new();
    for (i, input) in node.inputs.iter().enumerate() {
        for batch in &outputs[usize::from(input.from.0)] {
            let mut step = operator.process(i, DeltaBatch::appended(batch.clone()), &cx, &mut out).unwrap();
            while step == Step::More {
                step = operator.resume(&cx, &mut out).unwrap();
            }
        }
    }
    let mut step = operator.end_epoch(&cx, &mut out).unwrap();
    while step == Step::More {
        step = operator.resume(&cx, &mut out).unwrap();
    }
    out.into_iter().map(|b| b.rows).collect()
}

struct Bid {
    auction: i64,
    bidder: i64,
    price: i64,
    url: String,
    ms: i64,
}

fn bids() -> Vec<Bid> {
    let rows = run(
        "a BIGINT, b BIGINT, p BIGINT, u STRING, t BIGINT",
        "SELECT bid.auction, bid.bidder, bid.price, bid.url, CAST(bid.`dateTime` AS BIGINT) FROM nexmark WHERE bid IS NOT NULL",
    );
    let number = |s: &String| s.parse::<i64>().unwrap();
    let bids = rows.iter().map(|r| Bid {
        auction: number(&r[0]),
        bidder: number(&r[1]),
        price: number(&r[2]),
        url: r[3].clone(),
        ms: number(&r[4]),
    });
    let bids: Vec<Bid> = bids.collect();
    assert_eq!(bids.len(), 18_400);
    bids
}

fn sorted(rows: impl IntoIterator<Item = Vec<String>>) -> Vec<Vec<String>> {
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort();
    rows
}

/// Groups bids by (windows of their time, key).
fn grouped<K: Ord>(
    bids: &[Bid],
    windows: impl Fn(i64) -> Vec<(i64, i64)>,
    key: impl Fn(&Bid) -> K,
) -> BTreeMap<(i64, i64, K), Vec<&Bid>> {
    let mut groups: BTreeMap<_, Vec<&Bid>> = BTreeMap::new();
    for bid in bids {
        for (start, end) in windows(bid.ms) {
            groups.entry((start, end, key(bid))).or_default().push(bid);
        }
    }
    groups
}

fn tumble(size: i64) -> impl Fn(i64) -> Vec<(i64, i64)> {
    move |ms| vec![(ms - ms.rem_euclid(size), ms - ms.rem_euclid(size) + size)]
}

fn hop(size: i64, slide: i64) -> impl Fn(i64) -> Vec<(i64, i64)> {
    move |ms| {
        let last = ms - ms.rem_euclid(slide);
        (0..size / slide)
            .map(|i| last - i * slide)
            .map(|s| (s, s + size))
            .filter(|(s, e)| *s <= ms && ms < *e)
            .collect()
    }
}

#[test]
fn rows_are_filtered_and_computed() {
    let bids = bids();
    let found = run("a BIGINT, p BIGINT", "SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0");
    let wanted = bids.iter().filter(|b| b.auction % 123 == 0).map(|b| vec![b.auction.to_string(), b.price.to_string()]);
    assert_eq!(found, sorted(wanted));
    assert!(!found.is_empty());

    let found = run(
        "a STRING, b STRING",
        "SELECT SPLIT_INDEX(url, '/', 3), REGEXP_EXTRACT(url, '(&|^)channel_id=([^&]*)', 2) FROM bid",
    );
    let wanted = bids.iter().map(|b| {
        let channel = b.url.split_once("&channel_id=").map(|(_, id)| id.split('&').next().unwrap().to_owned());
        vec![b.url.split('/').nth(3).unwrap_or_default().to_owned(), channel.unwrap_or_default()]
    });
    assert_eq!(found, sorted(wanted));

    let found = run(
        "t STRING, n BIGINT",
        "SELECT DATE_FORMAT(now(), 'yyyy-MM-dd HH:mm:ss.SSS'), event_type FROM nexmark WHERE event_type <> 2",
    );
    assert_eq!(found.len(), 1_600);
    assert_eq!(found[0][0], "2020-09-13 12:26:40.123");
}

#[test]
fn tumbling_and_sliding_windows() {
    let bids = bids();
    let columns = "a BIGINT, n BIGINT, s BIGINT, e BIGINT";
    let select = "SELECT auction, count(*), CAST(window_start AS BIGINT), CAST(window_end AS BIGINT)";
    let wanted = |windows: &dyn Fn(i64) -> Vec<(i64, i64)>| {
        let groups = grouped(&bids, windows, |b| b.auction);
        sorted(groups.into_iter().map(|((s, e, a), b)| [a, b.len() as i64, s, e].map(|v| v.to_string()).to_vec()))
    };
    let query = "FROM TABLE(HOP(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '2' SECOND, INTERVAL '10' SECOND)) GROUP BY auction, window_start, window_end";
    assert_eq!(run(columns, &format!("{select} {query}")), wanted(&hop(10_000, 2_000)));
    let query = "FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '7' SECOND)) GROUP BY auction, window_start, window_end";
    assert_eq!(run(columns, &format!("{select} {query}")), wanted(&tumble(7_000)));
    // The rows in their windows first, by a condition that needs both.
    let query = "FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '7' SECOND)) WHERE dateTime < window_end GROUP BY auction, window_start, window_end";
    assert_eq!(run(columns, &format!("{select} {query}")), wanted(&tumble(7_000)));
    // Spark's form.
    let spark = "SELECT auction, count(*), CAST(window.start AS BIGINT), CAST(window.end AS BIGINT) FROM bid GROUP BY auction, window(dateTime, '10 seconds', '2 seconds')";
    assert_eq!(run(columns, spark), wanted(&hop(10_000, 2_000)));
}

#[test]
fn conditions_on_windows_and_groups() {
    let bids = bids();
    let groups = grouped(&bids, tumble(5_000), |b| b.auction);
    let first = groups.keys().map(|(s, ..)| *s).min().unwrap();
    let found = run(
        "s BIGINT, a BIGINT, n BIGINT, low BIGINT, who BIGINT, top BIGINT, mean DOUBLE",
        &format!(
            "SELECT CAST(window_start AS BIGINT), auction, count(*), count(*) FILTER (WHERE price < 10000), count(DISTINCT bidder), max(price), avg(price)
             FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '5' SECOND))
             WHERE CAST(window_start AS BIGINT) > {first} AND price > 500
             GROUP BY auction, window_start, window_end HAVING count(*) > 3"
        ),
    );
    let rows = groups.into_iter().filter(|((s, ..), _)| *s > first).filter_map(|((s, _, a), b)| {
        let b: Vec<&Bid> = b.into_iter().filter(|b| b.price > 500).collect();
        let low = b.iter().filter(|b| b.price < 10_000).count();
        let who = b.iter().map(|b| b.bidder).collect::<BTreeSet<_>>().len();
        let top = b.iter().map(|b| b.price).max()?;
        let mean = b.iter().map(|b| b.price as f64).sum::<f64>() / b.len() as f64;
        let mut row: Vec<String> = [s, a, b.len() as i64, low as i64, who as i64, top].map(|v| v.to_string()).to_vec();
        row.push(format!("{mean:?}"));
        (b.len() > 3).then_some(row)
    });
    assert_eq!(found, sorted(rows));
    assert!(!found.is_empty());
}

#[test]
fn sessions_per_key() {
    let bids = bids();
    let found = run(
        "b BIGINT, n BIGINT, s BIGINT, e BIGINT",
        "SELECT bidder, count(*), CAST(window_start AS BIGINT), CAST(window_end AS BIGINT)
         FROM TABLE(SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(dateTime), INTERVAL '1' SECOND)) GROUP BY bidder, window_start, window_end",
    );
    let mut times: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    bids.iter().for_each(|b| times.entry(b.bidder).or_default().push(b.ms));
    let mut wanted = Vec::new();
    for (bidder, mut times) in times {
        times.sort_unstable();
        let mut session: Option<(i64, i64, i64)> = None;
        for ms in times {
            session = match session {
                Some((start, last, n)) if ms - last <= 1_000 => Some((start, ms, n + 1)),
                before => {
                    wanted.extend(before.map(|(s, l, n)| [bidder, n, s, l + 1_000].map(|v| v.to_string()).to_vec()));
                    Some((ms, ms, 1))
                }
            };
        }
        wanted.extend(session.map(|(s, l, n)| [bidder, n, s, l + 1_000].map(|v| v.to_string()).to_vec()));
    }
    assert_eq!(found, sorted(wanted));
}

#[test]
fn windows_over_windows() {
    let bids = bids();
    let counts = grouped(&bids, hop(10_000, 2_000), |b| b.auction);
    let mut highest: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    for ((s, e, _), b) in &counts {
        let top = highest.entry((*s, *e)).or_default();
        *top = (*top).max(b.len() as i64);
    }
    let found = run(
        "n BIGINT, s BIGINT, e BIGINT",
        "SELECT max(num), CAST(s AS BIGINT), CAST(e AS BIGINT) FROM (
           SELECT count(*) AS num, window_start AS s, window_end AS e
           FROM TABLE(HOP(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '2' SECOND, INTERVAL '10' SECOND)) GROUP BY auction, window_start, window_end
         ) GROUP BY s, e",
    );
    assert_eq!(found, sorted(highest.into_iter().map(|((s, e), n)| [n, s, e].map(|v| v.to_string()).to_vec())));

    let found = run(
        "s BIGINT, n BIGINT, parts BIGINT",
        "SELECT CAST(window_start AS BIGINT), sum(n), count(*) FROM TABLE(TUMBLE((
           SELECT window_time AS t, count(*) AS n FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '1' SECOND)) GROUP BY window_start, window_end, window_time
         ), DESCRIPTOR(t), INTERVAL '10' SECOND)) GROUP BY window_start, window_end",
    );
    let wanted = grouped(&bids, tumble(10_000), |_| ()).into_iter().map(|((s, ..), b)| {
        let parts = b.iter().map(|b| b.ms / 1_000).collect::<BTreeSet<_>>().len();
        vec![s.to_string(), b.len().to_string(), parts.to_string()]
    });
    assert_eq!(found, sorted(wanted));
}

#[test]
fn processing_time_and_unions() {
    let bids = bids();
    let found = run(
        "b BIGINT, n BIGINT, s BIGINT",
        "SELECT bidder, count(*), CAST(window_start AS BIGINT)
         FROM TABLE(TUMBLE((SELECT *, PROCTIME() AS p FROM bid), DESCRIPTOR(p), INTERVAL '10' SECOND)) GROUP BY bidder, window_start, window_end",
    );
    let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
    bids.iter().for_each(|b| *counts.entry(b.bidder).or_default() += 1);
    let start = NOW_MS - NOW_MS.rem_euclid(10_000);
    assert_eq!(found, sorted(counts.into_iter().map(|(b, n)| [b, n, start].map(|v| v.to_string()).to_vec())));

    let found = run(
        "s BIGINT, n BIGINT, total BIGINT",
        "SELECT CAST(window_start AS BIGINT), count(*), sum(v) FROM TABLE(TUMBLE((
           SELECT bid.price AS v, dateTime FROM nexmark WHERE event_type = 2 UNION ALL SELECT auction.reserve, dateTime FROM nexmark WHERE event_type = 1
           UNION ALL SELECT 0, dateTime FROM nexmark WHERE event_type = 0
         ), DESCRIPTOR(dateTime), INTERVAL '10' SECOND)) GROUP BY window_start, window_end",
    );
    let rows: i64 = found.iter().map(|r| r[1].parse::<i64>().unwrap()).sum();
    assert_eq!(rows, 20_000);
    let reserves = run("r BIGINT", "SELECT auction.reserve FROM nexmark WHERE event_type = 1");
    let total: i64 =
        reserves.iter().map(|r| r[0].parse::<i64>().unwrap()).sum::<i64>() + bids.iter().map(|b| b.price).sum::<i64>();
    assert_eq!(found.iter().map(|r| r[2].parse::<i64>().unwrap()).sum::<i64>(), total);
}
