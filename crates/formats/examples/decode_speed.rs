//! How many Nexmark events per second one core decodes: `cargo run --release -p millstream-formats --example
//! decode_speed [EVENTS]`.
//!
//! Events have the layout and the sizes of the real generator (mean 333 bytes), in batches of 8192 messages that lie
//! one after the other in memory, as they come from a broker. Time is the thread's CPU time, so that a busy machine
//! disturbs little (Linux only).
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::print_stdout, reason = "prints its result")]
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use millstream_formats::{Accept, DecodeSpec, FormatKind, FormatOptions, PreFilter, decoder, encoder};

const BATCH: usize = 8192;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn letters(&mut self, least: u64, most: u64) -> String {
        let n = least + self.below(most - least + 1);
        (0..n).map(|_| char::from(b'a' + self.below(26) as u8)).collect()
    }

    fn price(&mut self) -> u64 {
        let u = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        (100.0 * 10_f64.powf(6.0 * u)).round() as u64
    }
}

fn time(ms: u64) -> String {
    let second = ms / 1000 % 60;
    format!("2015-07-15 {:02}:{:02}:{second:02}.{:03}", ms / 3_600_000 % 24, ms / 60_000 % 60, ms % 1000)
}

fn event(k: u64, out: &mut String) {
    let mut r = Random(k);
    let (epoch, n, at) = (k / 50, k % 50, time(k / 10));
    match n {
        0 => {
            let (id, name, email) =
                (epoch + 1000, ["Peter Jones", "Vicky Noris"][r.below(2) as usize], r.letters(7, 7));
            let card = format!("{:04} {:04} {:04} {:04}", r.below(9999), r.below(9999), r.below(9999), r.below(9999));
            let extra = r.letters(80, 120);
            let _ = write!(
                out,
                "{{\"event_type\":0,\"person\":{{\"id\":{id},\"name\":\"{name}\",\"emailAddress\":\"{email}@abcde.com\",\
                 \"creditCard\":\"{card}\",\"city\":\"Portland\",\"state\":\"OR\",\"dateTime\":\"{at}\",\"extra\":\"{extra}\"}},\
                 \"auction\":null,\"bid\":null}}"
            );
        }
        1..4 => {
            let (id, item, text) = (3 * epoch + n + 999, r.letters(3, 20), r.letters(3, 100));
            let (first, expires, seller) = (r.price(), time(k / 10 + r.below(10_000)), 1000 + r.below(1 + epoch));
            let (reserve, category, extra) = (first + r.price(), 10 + r.below(5), r.letters(310, 470));
            let _ = write!(
                out,
                "{{\"event_type\":1,\"person\":null,\"auction\":{{\"id\":{id},\"itemName\":\"{item}\",\"description\":\"{text}\",\
                 \"initialBid\":{first},\"reserve\":{reserve},\"dateTime\":\"{at}\",\"expires\":\"{expires}\",\
                 \"seller\":{seller},\"category\":{category},\"extra\":\"{extra}\"}},\"bid\":null}}"
            );
        }
        _ => {
            let (auction, bidder, price) = (1000 + r.below(3 * epoch + 10), 1000 + r.below(epoch + 10), r.price());
            let path = format!("{}/{}/{}", r.letters(3, 5), r.letters(3, 5), r.letters(3, 5));
            let (channel, id) = match r.below(2) {
                0 => (["Google", "Facebook", "Baidu", "Apple"][r.below(4) as usize].to_owned(), String::new()),
                _ => (format!("channel-{}", r.below(10_000)), format!("&channel_id={}", r.below(1 << 31))),
            };
            let extra = r.letters(54, 82);
            let _ = write!(
                out,
                "{{\"event_type\":2,\"person\":null,\"auction\":null,\"bid\":{{\"auction\":{auction},\"bidder\":{bidder},\
                 \"price\":{price},\"channel\":\"{channel}\",\"url\":\"https://www.nexmark.com/{path}/item.htm?query=1{id}\",\
                 \"dateTime\":\"{at}\",\"extra\":\"{extra}\"}}}}"
            );
        }
    }
}

/// CPU time of this thread.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn row(name: &str, names: &[&str]) -> Field {
    let fields: Fields = names.iter().map(|n| Field::new(*n, column_type(n), true)).collect();
    Field::new(name, DataType::Struct(fields), true)
}

fn column_type(name: &str) -> DataType {
    match name {
        "dateTime" | "expires" => DataType::Timestamp(TimeUnit::Millisecond, None),
        "channel" | "url" | "extra" | "name" | "itemName" => DataType::Utf8,
        _ => DataType::Int64,
    }
}

fn main() {
    let events: u64 = std::env::args().nth(1).map_or(1_000_000, |n| n.parse().unwrap());
    let (mut text, mut ends) = (String::new(), Vec::new());
    for k in 0..events {
        event(k, &mut text);
        ends.push(text.len());
    }
    let begins = std::iter::once(0).chain(ends.iter().copied());
    let messages: Vec<&[u8]> = begins.zip(&ends).map(|(b, e)| &text.as_bytes()[b..*e]).collect();
    println!("{events} events, mean {} bytes", text.len() as u64 / events);

    let event_type = Field::new("event_type", DataType::Int32, true);
    let bids = Some(PreFilter { column: "event_type".to_owned(), accept: Accept::Int(vec![2]) });
    let whole_bid = ["auction", "bidder", "price", "channel", "url", "dateTime", "extra"];
    let cases = [
        (
            "q0: 5 of 7 bid columns, bids only",
            vec![row("bid", &["auction", "bidder", "price", "dateTime", "extra"])],
            bids.clone(),
        ),
        (
            "q0 unfiltered",
            vec![event_type.clone(), row("bid", &["auction", "bidder", "price", "dateTime", "extra"])],
            None,
        ),
        ("q2: auction, price, bids only", vec![row("bid", &["auction", "price"])], bids.clone()),
        (
            "q5: type, 3 dateTime, bid.auction of all events",
            vec![
                event_type,
                row("person", &["dateTime"]),
                row("auction", &["dateTime"]),
                row("bid", &["auction", "dateTime"]),
            ],
            None,
        ),
        ("all 7 bid columns, bids only", vec![row("bid", &whole_bid)], bids),
    ];
    for (name, fields, prefilter) in cases {
        let spec = DecodeSpec {
            schema: Arc::new(Schema::new(fields)),
            options: FormatOptions::new(FormatKind::Json),
            prefilter,
        };
        let mut decoder = decoder(spec).unwrap();
        let mut best = f64::MAX;
        let mut rows = 0;
        for _ in 0..5 {
            let start = cpu_seconds();
            rows = 0;
            for batch in messages.chunks(BATCH) {
                let decoded = decoder.decode(batch).unwrap();
                assert!(decoded.bad.is_empty(), "{:?}", decoded.bad);
                rows += decoded.rows.num_rows();
            }
            best = best.min(cpu_seconds() - start);
        }
        let (rate, nanos) = (events as f64 / best / 1e6, best * 1e9 / events as f64);
        println!("{rate:6.2} M events/s  {nanos:5.0} ns/event  {rows} rows  {name}");
    }
    encode(&messages);
}

fn encode(messages: &[&[u8]]) {
    let schema = Arc::new(Schema::new(vec![row("bid", &["auction", "bidder", "price", "dateTime", "extra"])]));
    let options = FormatOptions::new(FormatKind::Json);
    let spec = DecodeSpec { schema: schema.clone(), options: options.clone(), prefilter: None };
    let rows = decoder(spec).unwrap().decode(&messages[..messages.len().min(BATCH)]).unwrap().rows;
    let mut encoder = encoder(&schema, &options).unwrap();
    const TIMES: usize = 200;
    let start = cpu_seconds();
    for _ in 0..TIMES {
        let (mut out, mut ends) = (Vec::new(), Vec::new());
        encoder.encode(&rows, &mut out, &mut ends).unwrap();
    }
    let rate = (rows.num_rows() * TIMES) as f64 / (cpu_seconds() - start) / 1e6;
    println!("{rate:6.2} M rows/s encoded as JSON, 5 bid columns");
}
