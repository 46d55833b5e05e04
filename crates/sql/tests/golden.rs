//! Pipelines and what the planner says about them: `golden/*.sql` beside the expected `golden/*.txt`.
//!
//! A file holds cases, each after a line `-- case: name`; what stands before the first is put in front of each. The answer to a case is its
//! error as a user sees it, or `explain`. `UPDATE_GOLDEN=1 cargo test -p millstream-sql --test golden` writes the expected files anew.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use millstream_sql::{explain, plan};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// (name, text) of each case.
fn cases(text: &str) -> Vec<(String, String)> {
    let mut parts = text.split("-- case: ");
    let prelude = parts.next().unwrap_or_default();
    let case = |part: &str| {
        let (name, sql) = part.split_once('\n').unwrap_or((part, ""));
        (name.trim().to_owned(), format!("{prelude}{}", sql.trim_end()))
    };
    parts.map(case).collect()
}

fn answer(sql: &str) -> String {
    match plan(sql, &BTreeMap::new(), 4) {
        // Fingerprints change with every change of a plan and tell nothing to a reader.
        Ok(pipeline) => explain(&pipeline)
            .lines()
            .filter(|l| !l.starts_with("Fingerprint"))
            .fold(String::new(), |t, l| t + l + "\n"),
        Err(error) => format!("{error}\n"),
    }
}

#[test]
fn answers_are_as_expected() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = String::new();
    let mut count = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "sql") {
            continue;
        }
        let mut answers = String::new();
        for (name, sql) in cases(&std::fs::read_to_string(&path).unwrap()) {
            count += 1;
            let _ = writeln!(answers, "-- case: {name}\n{}", answer(&sql));
        }
        let expected = path.with_extension("txt");
        if update {
            std::fs::write(&expected, &answers).unwrap();
        } else {
            let expected_text = std::fs::read_to_string(&expected).unwrap_or_default();
            for (want, have) in expected_text.split("-- case: ").zip(answers.split("-- case: ")) {
                if want != have {
                    let _ = writeln!(wrong, "{}: expected\n{want}\nfound\n{have}", expected.display());
                }
            }
            if expected_text.matches("-- case: ").count() != answers.matches("-- case: ").count() {
                let _ = writeln!(wrong, "{}: another number of cases", expected.display());
            }
        }
    }
    assert!(count > 50, "only {count} cases were found");
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_error_case_has_a_place_and_every_other_case_plans() {
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "sql") {
            continue;
        }
        let wants_error = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("error"));
        for (name, sql) in cases(&std::fs::read_to_string(&path).unwrap()) {
            match plan(&sql, &BTreeMap::new(), 4) {
                Ok(_) if wants_error => panic!("{}: case {name} plans", path.display()),
                Err(e) if !wants_error => panic!("{}: case {name}:\n{e}", path.display()),
                Err(e) if e.line == 0 && !name.contains("without a place") => panic!("case {name} has no place: {e}"),
                Ok(_) | Err(_) => {}
            }
        }
    }
}

#[test]
fn examples_plan_and_their_fingerprints_repeat() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/nexmark");
    let mut count = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let sql = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let print =
            |parallelism| plan(&sql, &BTreeMap::new(), parallelism).unwrap_or_else(|e| panic!("{e}")).graph.fingerprint;
        assert_eq!(print(2), print(2));
        assert_ne!(print(2), print(3));
        count += 1;
    }
    assert!(count >= 7);
}

/// Queries made to exhaust a parser or a planner are refused in time, and long ones that are harmless are not.
#[test]
fn bombs_are_refused() {
    let tables = "CREATE TABLE t (a BIGINT) WITH ('connector' = 'datagen');
        CREATE TABLE s (a BIGINT) WITH ('connector' = 'blackhole');\n";
    let insert = |expr: &str| format!("{tables}INSERT INTO s SELECT {expr} FROM t;");
    let views = |step: &str| {
        let mut sql = format!("{tables}CREATE VIEW v0 AS SELECT a FROM t;");
        for i in 1..40 {
            sql += &format!("CREATE VIEW v{i} AS {};", step.replace("prev", &format!("v{}", i - 1)));
        }
        sql + "INSERT INTO s SELECT a FROM v39 WHERE a > 1;"
    };
    let bombs = [
        insert(&format!("{}a{}", "(".repeat(30_000), ")".repeat(30_000))),
        insert(&vec!["a"; 20_000].join(" + ")),
        insert(&format!("{}a", "- ".repeat(20_000))),
        insert(&format!("{} a", "NOT ".repeat(20_000))),
        insert(&format!("{}a{}", "CASE WHEN a = 1 THEN ".repeat(5_000), " END".repeat(5_000))),
        insert(&format!("a{}", "[1]".repeat(10_000))),
        insert(&vec!["a"; 60_000].join(",")),
        views("SELECT a FROM prev UNION ALL SELECT a FROM prev"),
        views("SELECT a + a AS a FROM prev"),
        format!("{tables}{}", "CREATE VIEW v AS SELECT * FROM (".repeat(5_000)),
    ];
    for bomb in &bombs {
        let error = plan(bomb, &BTreeMap::new(), 2).map(|_| ()).unwrap_err();
        assert!(!error.message.contains("bug"), "{}: {error}", &bomb[..200]);
    }
    let list: Vec<String> = (0..5_000).map(|i| i.to_string()).collect();
    let long = format!("{tables}INSERT INTO s SELECT a FROM t WHERE a IN ({});", list.join(", "));
    plan(&long, &BTreeMap::new(), 2).unwrap_or_else(|e| panic!("{}", e.message));
}
