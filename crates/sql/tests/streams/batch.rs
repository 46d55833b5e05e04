//! The judge: batch DataFusion over tables in memory.
//!
//! The batch query may be the stream's own text: `TABLE(TUMBLE(…))`, `HOP`, `CUMULATE` and `SESSION` are expanded here, row by row and by
//! their definition, into tables with `window_start`, `window_end` and `window_time`.
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::{SessionConfig, SessionContext};
use millstream_dataflow::times::{from_millis, to_millis};
use tokio::runtime::Runtime;

use crate::draws::mix;

/// Tables in memory to ask in SQL.
pub struct Batch {
    runtime: Runtime,
    context: SessionContext,
    expanded: usize,
}

impl Batch {
    pub fn new() -> Self {
        let mut config = SessionConfig::new().with_target_partitions(1);
        config.options_mut().sql_parser.enable_ident_normalization = false;
        config.options_mut().sql_parser.map_string_types_to_utf8view = false;
        let context = SessionContext::new_with_config(config);
        let hash = |args: &[ColumnarValue]| {
            let numbers = ColumnarValue::values_to_arrays(args)?.remove(0);
            let draw = |n: i64| (mix(n as u64 ^ 0x5eed) >> 2) as i64;
            Ok(ColumnarValue::Array(Arc::new(numbers.as_primitive::<Int64Type>().unary::<_, Int64Type>(draw))))
        };
        let rnd = create_udf("rnd", vec![DataType::Int64], DataType::Int64, Volatility::Immutable, Arc::new(hash));
        context.register_udf(rnd);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { runtime, context, expanded: 0 }
    }

    pub fn table(&self, name: &str, rows: &RecordBatch) {
        let table = MemTable::try_new(rows.schema(), vec![vec![rows.clone()]]).unwrap();
        self.context.register_table(name, Arc::new(table)).unwrap();
    }

    pub fn view(&mut self, name: &str, sql: &str) {
        let sql = format!("CREATE VIEW \"{name}\" AS {}", self.expand(sql));
        self.ask(&sql);
    }

    /// The rows of a query, in one batch.
    pub fn query(&mut self, sql: &str) -> RecordBatch {
        let sql = self.expand(sql);
        self.ask(&sql)
    }

    fn ask(&self, sql: &str) -> RecordBatch {
        let asked = self.runtime.block_on(async {
            let frame = self.context.sql(sql).await?;
            let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
            let batches = frame.collect().await?;
            Ok((schema, batches))
        });
        let (schema, batches) =
            asked.unwrap_or_else(|e: datafusion::error::DataFusionError| panic!("the batch query failed: {e}\n{sql}"));
        concat_batches(batches.first().map_or(&schema, |b| b.schema_ref()), &batches).unwrap()
    }

    /// Replaces window table functions by tables that hold their rows now.
    fn expand(&mut self, sql: &str) -> String {
        let Some((at, after, name, arguments)) = first_window(sql) else { return sql.to_owned() };
        let mut arguments = arguments.into_iter();
        let input = arguments.next().unwrap();
        let time = between(&arguments.next().unwrap(), '(', ')').trim().trim_matches(['`', '"']).to_owned();
        let lengths: Vec<i64> = arguments.map(|a| interval(&a)).collect();
        let input = input.trim();
        let named = input.strip_prefix("TABLE").unwrap_or(input).trim();
        let (table, by) = match named.starts_with('(') {
            true => named.split_at(closing(named, 0) + 1),
            false => named.split_at(named.find("PARTITION BY").unwrap_or(named.len())),
        };
        let query = match table.strip_prefix('(') {
            Some(subquery) => subquery[..subquery.len() - 1].to_owned(),
            None => format!("SELECT * FROM {table}"),
        };
        let by = by.trim().strip_prefix("PARTITION BY").unwrap_or_default().split(',');
        let by = by.map(|c| c.trim().trim_matches(['`', '"', '(', ')']).to_owned());
        let partition: Vec<String> = by.filter(|c| !c.is_empty()).collect();
        let rows = self.query(&query);
        let windowed = assign(&rows, &time, &name, &lengths, &partition);
        self.expanded += 1;
        let table = format!("__windows_{}", self.expanded);
        self.table(&table, &windowed);
        let rest = format!("{}{table}{}", &sql[..at], &sql[after..]);
        self.expand(&rest)
    }
}

/// Place, place after, name and arguments of the first `TABLE(name(…))` with a window function.
fn first_window(sql: &str) -> Option<(usize, usize, String, Vec<String>)> {
    let mut from = 0;
    while let Some(found) = sql[from..].find("TABLE(") {
        let at = from + found;
        let inner = &sql[at + 6..];
        let name = ["TUMBLE", "HOP", "CUMULATE", "SESSION"].into_iter().find(|n| inner.trim_start().starts_with(n));
        if let Some(name) = name {
            let open = at + 6 + inner.find('(').unwrap();
            let close = closing(sql, open);
            let after = close + 1 + sql[close + 1..].find(')').unwrap() + 1;
            return Some((at, after, name.to_owned(), split(&sql[open + 1..close])));
        }
        from = at + 6;
    }
    None
}

/// The bracket that closes the one at `open`.
fn closing(sql: &str, open: usize) -> usize {
    let mut depth = 0;
    let mut quoted = false;
    for (i, c) in sql[open..].char_indices() {
        match c {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => {
                depth -= 1;
                if depth == 0 {
                    return open + i;
                }
            }
            _ => {}
        }
    }
    panic!("a bracket is not closed: {sql}")
}

/// Arguments at the top level. `PARTITION BY a, b` stays with its table.
fn split(arguments: &str) -> Vec<String> {
    let mut parts: Vec<String> = vec![String::new()];
    let (mut depth, mut quoted) = (0, false);
    for (i, c) in arguments.char_indices() {
        match c {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                let next = arguments[i + 1..].trim_start();
                if parts.len() > 1 || next.starts_with("DESCRIPTOR") {
                    parts.push(String::new());
                    continue;
                }
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(c);
    }
    parts
}

fn between(text: &str, open: char, close: char) -> &str {
    let from = text.find(open).unwrap_or_else(|| panic!("no '{open}' in {text}"));
    &text[from + 1..text.rfind(close).unwrap()]
}

/// Milliseconds of `INTERVAL 'n' UNIT`.
fn interval(text: &str) -> i64 {
    let mut parts = text.split('\'');
    let number: i64 =
        parts.nth(1).and_then(|n| n.trim().parse().ok()).unwrap_or_else(|| panic!("not an interval: {text}"));
    let unit = parts.next().unwrap_or_default().trim().trim_end_matches(['S', 's']).to_uppercase();
    number
        * match unit.as_str() {
            "MILLISECOND" => 1,
            "SECOND" => 1_000,
            "MINUTE" => 60_000,
            "HOUR" => 3_600_000,
            "DAY" => 86_400_000,
            other => panic!("no unit '{other}' in {text}"),
        }
}

/// Rows × the windows that hold them.
fn assign(rows: &RecordBatch, time: &str, name: &str, lengths: &[i64], partition: &[String]) -> RecordBatch {
    let time = rows.column_by_name(time).unwrap_or_else(|| panic!("no column '{time}' in {:?}", rows.schema()));
    let times = to_millis(time).unwrap();
    let (mut indices, mut starts, mut ends): (Vec<u32>, Vec<i64>, Vec<i64>) = Default::default();
    if name == "SESSION" {
        sessions(rows, &times, lengths[0], partition, |row, start, end| {
            indices.push(row);
            starts.push(start);
            ends.push(end);
        });
    } else {
        for row in (0..rows.num_rows()).filter(|r| times.is_valid(*r)) {
            for (start, end) in windows(times.value(row), name, lengths) {
                indices.push(row as u32);
                starts.push(start);
                ends.push(end);
            }
        }
    }
    let kept = take_record_batch(rows, &UInt32Array::from(indices)).unwrap();
    let lasts: Vec<i64> = ends.iter().map(|e| e - 1).collect();
    let mut fields: Vec<Field> = kept.schema().fields().iter().map(|f| f.as_ref().clone()).collect();
    let mut columns: Vec<ArrayRef> = kept.columns().to_vec();
    for (column, values) in [("window_start", starts), ("window_end", ends), ("window_time", lasts)] {
        fields.push(Field::new(column, time.data_type().clone(), false));
        columns.push(from_millis(Int64Array::from(values), time.data_type()).unwrap());
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// The windows that hold `t`, by definition: every candidate is looked at.
fn windows(t: i64, name: &str, lengths: &[i64]) -> Vec<(i64, i64)> {
    let floor = |t: i64, step: i64| t - t.rem_euclid(step);
    let holds = |(start, end): &(i64, i64)| *start <= t && t < *end;
    match (name, lengths) {
        ("TUMBLE", [size]) => vec![(floor(t, *size), floor(t, *size) + size)],
        ("TUMBLE", [size, offset]) => {
            let start = floor(t - offset, *size) + offset;
            vec![(start, start + size)]
        }
        ("HOP", [slide, size]) => {
            let last = floor(t, *slide);
            (0..=size / slide + 1).map(|i| (last - i * slide, last - i * slide + size)).filter(holds).collect()
        }
        ("CUMULATE", [step, size]) => {
            let start = floor(t, *size);
            (1..=size / step).map(|i| (start, start + i * step)).filter(holds).collect()
        }
        _ => panic!("{name} with {lengths:?}"),
    }
}

/// Calls `give` with every row and the bounds of its session.
fn sessions(
    rows: &RecordBatch,
    times: &Int64Array,
    gap: i64,
    partition: &[String],
    mut give: impl FnMut(u32, i64, i64),
) {
    let by: Vec<usize> = partition.iter().map(|c| rows.schema().index_of(c).unwrap()).collect();
    // DataFusion groups −0.0 and 0.0 apart, so their texts are what is compared.
    let options = FormatOptions::new().with_null("\0");
    let shown: Vec<_> = by.iter().map(|c| ArrayFormatter::try_new(rows.column(*c), &options).unwrap()).collect();
    let keys: Vec<Vec<String>> =
        (0..rows.num_rows()).map(|row| shown.iter().map(|c| c.value(row).to_string()).collect()).collect();
    let mut order: Vec<usize> = (0..rows.num_rows()).filter(|r| times.is_valid(*r)).collect();
    order.sort_by_key(|r| (keys.get(*r), times.value(*r)));
    let together = |a: &usize, b: &usize| keys.get(*a) == keys.get(*b) && times.value(*b) - times.value(*a) <= gap;
    for session in order.chunk_by(together) {
        let (start, end) = (times.value(session[0]), times.value(session[session.len() - 1]) + gap);
        session.iter().for_each(|row| give(*row as u32, start, end));
    }
}
