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
        Ok(pipeline) => explain(&pipeline),
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
