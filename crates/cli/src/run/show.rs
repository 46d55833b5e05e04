//! Progress lines on standard error: one per second for people, one per epoch with Spark's keys for programs.
use std::time::Instant;

use millstream_driver::{Driver, Progress, Status};
use serde_json::json;

use super::engine::Observer;

/// One line per second.
pub struct Lines {
    pub demo: bool,
    pub forgets: bool,
    second: Second,
    since: Instant,
    published: u64,
    last_doing: String,
    /// What was last said about a pipeline without epochs.
    told: String,
}

/// What happened since the last line.
#[derive(Default)]
struct Second {
    epochs: u64,
    newest: u64,
    replayed: u64,
    rows: u64,
    late: u64,
    bad: u64,
    backlog: u64,
    slowest_ms: u64,
    watermark: Option<String>,
}

impl Lines {
    pub fn new(demo: bool, forgets: bool) -> Self {
        Self {
            demo,
            forgets,
            second: Second::default(),
            since: Instant::now(),
            published: 0,
            last_doing: String::new(),
            told: String::new(),
        }
    }
}

impl Observer for Lines {
    fn started(&mut self, driver: &Driver) {
        let status = driver.status();
        eprintln!("pipeline '{}'", status.name());
        if let Some(address) = driver.http_address() {
            eprintln!("metrics   http://{address}/metrics");
            eprintln!("progress  http://{address}/api/v1/jobs/{}/progress", status.name());
        }
        if self.forgets && !self.demo {
            eprintln!("state     in a temporary folder, forgotten at the end: SET 'checkpointLocation' to keep it");
        }
        if self.demo {
            let program = std::env::args().next().unwrap_or_else(|| "millstream".to_owned());
            eprintln!("try next  {program} bench nexmark -q q0,q5 --source memory --events 1000000");
        }
    }

    fn epoch(&mut self, progress: &Progress) {
        let second = &mut self.second;
        second.epochs += 1;
        second.newest = progress.batch_id;
        second.replayed += u64::from(progress.replayed);
        second.rows += progress.num_input_rows;
        second.late += progress.late_rows;
        second.bad += progress.bad_rows;
        second.backlog = progress.backlog_rows;
        second.slowest_ms = second.slowest_ms.max(progress.batch_duration);
        second.watermark = progress.event_time.get("watermark").cloned();
    }

    fn second(&mut self, status: &Status) {
        let doing = status.doing();
        if self.second.epochs == 0 {
            // What has been going on for a whole second is said once.
            let is_news = doing == self.last_doing && doing != self.told && doing != "running" && doing != "done";
            if is_news {
                eprintln!("{doing}");
                self.told.clone_from(&doing);
            }
            self.last_doing = doing;
            return;
        }
        let seconds = self.since.elapsed().as_secs_f64().max(0.001);
        let published = status.rows_published();
        let out = published.saturating_sub(self.published);
        eprintln!("{}", line(&self.second, out, seconds));
        self.published = published;
        self.last_doing = doing;
        self.told.clear();
        self.second = Second::default();
        self.since = Instant::now();
    }
}

/// The line about the last `seconds`, in which `out` rows were published.
fn line(second: &Second, out: u64, seconds: f64) -> String {
    let rate = |rows: u64| thousands((rows as f64 / seconds).round() as u64);
    let mut line = format!(
        "epoch {:>6} | {:>11} rows/s in | {:>11} rows/s out | backlog {:>9} | slowest epoch {:>4} ms",
        second.newest,
        rate(second.rows),
        rate(out),
        thousands(second.backlog),
        second.slowest_ms,
    );
    if let Some(watermark) = &second.watermark {
        line.push_str(&format!(" | watermark {watermark}"));
    }
    for (count, what) in [(second.late, "late"), (second.bad, "bad"), (second.replayed, "epochs replayed")] {
        if count > 0 {
            line.push_str(&format!(" | {} {what}", thousands(count)));
        }
    }
    line
}

/// `1234567` as `1,234,567`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// One JSON object per epoch.
pub struct JsonLines;

impl Observer for JsonLines {
    fn started(&mut self, driver: &Driver) {
        let http = driver.http_address().map(|a| format!("http://{a}"));
        eprintln!("{}", json!({"pipeline": driver.status().name(), "http": http}));
    }

    fn epoch(&mut self, progress: &Progress) {
        if let Ok(line) = serde_json::to_string(progress) {
            eprintln!("{line}");
        }
    }

    fn second(&mut self, _status: &Status) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_happened_in_its_second() {
        let second = Second {
            epochs: 9,
            newest: 42,
            rows: 2_469_134,
            late: 3,
            backlog: 1_000,
            slowest_ms: 17,
            watermark: Some("2015-07-15T00:00:10.000Z".to_owned()),
            ..Second::default()
        };
        assert_eq!(
            line(&second, 2_000, 2.0),
            "epoch     42 |   1,234,567 rows/s in |       1,000 rows/s out | backlog     1,000 | slowest epoch   17 ms | \
             watermark 2015-07-15T00:00:10.000Z | 3 late"
        );
    }

    #[test]
    fn large_numbers_are_grouped() {
        let of = |n| thousands(n);
        assert_eq!([of(0), of(999), of(1_000), of(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
    }
}
