//! The program from outside: what it prints, and its exit codes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const ORDERS: &str = "\
CREATE TABLE orders (id BIGINT, city STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)
WITH ('connector' = 'kafka', 'topic' = 'orders', 'properties.bootstrap.servers' = 'localhost:1', 'format' = 'json');
CREATE TABLE sink (city STRING, n BIGINT) WITH ('connector' = 'print');
";

fn millstream(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    command.args(arguments).stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

/// Runs with `input` on standard input.
fn fed(arguments: &[&str], input: &str) -> Output {
    let mut command = millstream(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// (exit code, standard output, standard error)
fn outcome(output: &Output) -> (i32, String, String) {
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn example(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    path.to_str().unwrap().to_owned()
}

#[test]
fn every_command_has_help_with_examples() {
    for command in [
        &["--help"][..],
        &["run", "--help"],
        &["validate", "--help"],
        &["explain", "--help"],
        &["generate", "nexmark", "--help"],
        &["generate", "datagen", "--help"],
        &["bench", "nexmark", "--help"],
    ] {
        let (code, out, _) = outcome(&millstream(command).output().unwrap());
        assert!(code == 0 && out.contains("Examples:\n  millstream "), "{command:?}: {out}");
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    for command in [
        &[][..],
        &["rnu"],
        &["run"],
        &["run", "--demo", "-f", "x.sql"],
        &["run", "--demo", "-p", "0"],
        &["run", "--demo", "-D", "trigger"],
        &["run", "--demo", "-D", "trigger=1s", "-D", "trigger=2s"],
        &["run", "--demo", "-D", "parallelism=3", "-p", "2"],
        &["bench", "nexmark", "-q", "q99"],
        &["generate", "nexmark", "--topic", "t"],
    ] {
        let (code, _, err) = outcome(&millstream(command).output().unwrap());
        assert!(code == 2 && !err.is_empty(), "{command:?}: {code} {err}");
    }
}

#[test]
fn a_valid_pipeline_is_summed_up() {
    let output = millstream(&["validate", "-f", &example("orders-per-minute.sql")]).output().unwrap();
    let expected = "valid: pipeline 'orders-per-minute', 1 source, 1 sink, 5 operators in 2 stages\n";
    assert_eq!(outcome(&output), (0, expected.to_owned(), String::new()));

    let insert = format!("{ORDERS}INSERT INTO sink SELECT city, id FROM orders;");
    let (code, out, _) = outcome(&fed(&["validate", "-f", "-", "-o", "json"], &insert));
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["valid"], &answer["pipeline"]), (0, &true.into(), &"pipeline".into()));
}

#[test]
fn bad_sql_ends_with_78_and_its_place() {
    let insert = format!("{ORDERS}INSERT INTO sink SELECT citty, id FROM orders;");
    let expected = "\
error: there is no column 'citty' here
LINE 4: INSERT INTO sink SELECT citty, id FROM orders;
                                ^
HINT: did you mean 'city'?
";
    assert_eq!(outcome(&fed(&["validate", "-f", "-"], &insert)), (78, String::new(), expected.to_owned()));
    assert_eq!(outcome(&fed(&["explain", "-f", "-"], &insert)), (78, String::new(), expected.to_owned()));
    assert_eq!(outcome(&fed(&["run", "-f", "-"], &insert)), (78, String::new(), expected.to_owned()));

    let (code, out, _) = outcome(&fed(&["validate", "-f", "-", "-o", "json"], &insert));
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["line"], &answer["column"]), (78, &4.into(), &25.into()));
}

#[test]
fn bad_configuration_ends_with_78() {
    let demo = |command: &mut Command| outcome(&command.output().unwrap());
    let (code, _, err) = demo(&mut millstream(&["run", "--demo", "-D", "checkpoint.intervall=5s"]));
    assert_eq!(
        (code, err.as_str()),
        (78, "error: unknown setting 'checkpoint.intervall'\nHINT: did you mean 'checkpoint.interval'?\n")
    );

    let (code, _, err) = demo(millstream(&["run", "--demo"]).env("MILLSTREAM__CHECKPOINT__INTERVAL", "soon"));
    assert!(code == 78 && err.contains("'soon' is not a duration"), "{err}");

    let (code, _, err) = demo(&mut millstream(&["validate", "-f", "no-such-file.sql"]));
    assert!(code == 78 && err.starts_with("error: cannot read no-such-file.sql: "), "{err}");
}

#[test]
fn explain_shows_the_graph() {
    let query = format!(
        "{ORDERS}INSERT INTO sink SELECT city, count(*) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) \
         GROUP BY window_start, window_end, city;"
    );
    let (code, out, err) = outcome(&fed(&["explain", "-f", "-"], &query));
    assert_eq!((code, err.as_str()), (0, ""));
    for part in [
        "source orders (kafka)",
        "decodes    city STRING, ts TIMESTAMP(3)",
        "window     tumble 1 min over ",
        "sink sink (print)",
    ] {
        assert!(out.contains(part), "{part} is not in\n{out}");
    }
}

#[test]
fn every_setting_is_shown_with_its_origin() {
    let mut command = millstream(&["run", "-f", &example("orders-per-minute.sql"), "--show-config", "-p", "3"]);
    command.args(["-o", "json"]).env("MILLSTREAM__TRIGGER", "1 s");
    let (code, out, err) = outcome(&command.output().unwrap());
    assert_eq!((code, err.as_str()), (0, ""));
    let of = |name: &str| {
        let rows = out.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
        let row = rows.into_iter().find(|r| r["setting"] == name).unwrap();
        format!("{}, {}", row["value"].as_str().unwrap_or("-"), row["origin"].as_str().unwrap())
    };
    assert_eq!(of("parallelism"), "3, flag -p");
    assert_eq!(of("trigger"), "1 s, environment MILLSTREAM__TRIGGER");
    assert_eq!(of("checkpointLocation"), "s3://orders/checkpoints/per-minute, SET in the file");
    assert_eq!(of("checkpoint.interval"), "10 s, default");
    assert_eq!(of("dead-letter.location"), "-, not set");
}

#[test]
fn generated_events_are_the_same_for_the_same_seed() {
    let events = |seed: &str| {
        let command = ["generate", "nexmark", "--events", "100", "--seed", seed];
        outcome(&millstream(&command).output().unwrap())
    };
    let (code, first, _) = events("7");
    assert_eq!((code, first.lines().count()), (0, 100));
    let types = |n: u64| first.lines().filter(|l| l.starts_with(&format!("{{\"event_type\":{n},"))).count();
    assert_eq!((types(0), types(1), types(2)), (2, 6, 92));
    assert_eq!(events("7").1, first);
    assert_ne!(events("8").1, first);
}

#[test]
fn generated_rows_have_the_declared_columns() {
    let command = [
        "generate",
        "datagen",
        "--columns",
        "id BIGINT, name STRING",
        "--option",
        "fields.id.kind=sequence",
        "--option",
        "fields.id.start=5",
        "--option",
        "fields.id.end=7",
        "--option",
        "fields.name.length=3",
    ];
    let (code, out, err) = outcome(&millstream(&command).output().unwrap());
    let rows: Vec<Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let ids: Vec<i64> = rows.iter().map(|r| r["id"].as_i64().unwrap()).collect();
    assert_eq!((code, ids, err.as_str()), (0, vec![5, 6, 7], ""));
    assert!(rows.iter().all(|r| r["name"].as_str().unwrap().len() == 3));

    let (code, _, err) =
        outcome(&millstream(&["generate", "datagen", "--columns", "id BIGNIT", "--rows", "1"]).output().unwrap());
    assert!(code == 78 && err.contains("did you mean BIGINT?"), "{err}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut child = millstream(&["generate", "nexmark"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(first.starts_with("{\"event_type\":0,"), "{first}");
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

/// Counts the bids of 5,000 generated events per second of event time.
const BOUNDED: &str = "\
CREATE TABLE events (event_type INT, bid ROW<price BIGINT, `dateTime` TIMESTAMP(3)>, ts AS bid.`dateTime`,
  WATERMARK FOR ts AS ts)
WITH ('connector' = 'nexmark', 'number-of-rows' = '5000', 'event-rate' = '1000');
CREATE TABLE sink (s TIMESTAMP(3), n BIGINT) WITH ('connector' = 'print');
INSERT INTO sink SELECT window_start, count(*) FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '1' SECOND))
WHERE event_type = 2 GROUP BY window_start, window_end;
";

#[test]
fn a_bounded_pipeline_runs_to_its_end() {
    let (code, out, err) = outcome(&fed(&["run", "-f", "-", "-p", "2", "-o", "json"], BOUNDED));
    assert_eq!(code, 0, "{err}");
    let mut rows: Vec<Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    rows.sort_by_key(|r| r["s"].as_str().unwrap().to_owned());
    let counts: Vec<i64> = rows.iter().map(|r| r["n"].as_i64().unwrap()).collect();
    assert_eq!(counts, [920; 5]);
    let progress: Vec<Value> = err.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
    let read: u64 = progress.iter().filter_map(|p| p["numInputRows"].as_u64()).sum();
    assert_eq!(read, 5_000, "{err}");
}

#[test]
fn a_finished_pipeline_does_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_str().unwrap();
    let run = || outcome(&fed(&["run", "-f", "-", "-p", "2", "-o", "json", "--state-dir", state], BOUNDED));
    let (first, second) = (run(), run());
    assert_eq!((first.0, first.1.lines().count()), (0, 5), "{}", first.2);
    assert_eq!((second.0, second.1.as_str()), (0, ""), "{}", second.2);
}

/// A running demo, killed when dropped.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.0.kill();
        self.0.wait().unwrap();
    }
}

#[test]
fn the_demo_shows_rows_answers_probes_and_drains() {
    let mut command = millstream(&["run", "--demo", "-o", "json"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut demo = Demo(child);
    let mut out = BufReader::new(demo.0.stdout.take().unwrap());
    let mut err = BufReader::new(demo.0.stderr.take().unwrap());
    let mut line = String::new();
    err.read_line(&mut line).unwrap();
    let started: Value = serde_json::from_str(&line).unwrap();
    // Nobody reads on but this thread: the pipe must not fill up.
    let rest = std::thread::spawn(move || {
        let mut text = String::new();
        err.read_to_string(&mut text).unwrap();
        text
    });

    let mut row = String::new();
    out.read_line(&mut row).unwrap();
    let row: Value = serde_json::from_str(&row).unwrap();
    assert!(row["bids"].as_i64() > Some(0) && row["channel"].is_string(), "{row}");

    let address = started["http"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
    let get = |path: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    for path in ["/livez", "/readyz", "/startupz"] {
        assert!(get(path).starts_with("HTTP/1.1 200 "), "{path}");
    }
    assert!(get("/metrics").contains("\nmillstream_source_records_total "));
    assert!(get("/api/v1/jobs/demo/progress").contains("\"batchId\":"));

    let pid = libc::pid_t::try_from(demo.0.id()).unwrap();
    // SAFETY: kill takes two numbers; the child has not been waited for.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
    std::io::copy(&mut out, &mut std::io::sink()).unwrap();
    assert_eq!(demo.0.wait().unwrap().code(), Some(0), "{}", rest.join().unwrap());
}

#[test]
fn executor_processes_need_their_program() {
    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("millstream");
    std::fs::copy(env!("CARGO_BIN_EXE_millstream"), &alone).unwrap();
    let output = Command::new(alone).args(["run", "--demo", "--executors", "2"]).output().unwrap();
    let (code, _, err) = outcome(&output);
    assert!(code == 2 && err.contains("millstream-executor, which is not there"), "{err}");
}

#[test]
fn a_benchmark_prints_one_object_per_query() {
    let command = ["bench", "nexmark", "-q", "q0,q5", "--source", "memory", "--events", "5000", "-o", "json"];
    let (code, out, err) = outcome(&millstream(&command).output().unwrap());
    let results: Vec<Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((code, results.len()), (0, 2), "{err}");
    for (result, query) in results.iter().zip(["q0", "q5"]) {
        assert_eq!(
            (&result["query"], &result["source"], &result["events"]),
            (&query.into(), &"memory".into(), &5000.into())
        );
        for key in ["seconds", "events_per_second", "cpu_seconds_per_million_events", "peak_rss_bytes", "rows_out"] {
            assert!(result[key].as_f64() > Some(0.0), "{key} of {result}");
        }
    }
    assert_eq!(results[0]["rows_out"], 4600);
    assert_eq!(results[0]["state_keys"], 0);
    for key in ["state_keys", "state_bytes", "checkpoint_bytes"] {
        assert!(results[1][key].as_u64() > Some(0), "{key} of {}", results[1]);
    }
}
