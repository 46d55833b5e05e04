//! Pipelines and what the planner says about them: `golden/*.sql` beside the expected `golden/*.txt`.
//!
//! A file holds cases, each after a line `-- case: name`; what stands before the first is put in front of each. The answer to a case is its
//! error as a user sees it, or `explain`. `UPDATE_GOLDEN=1 cargo test -p millstream-sql --test golden` writes the expected files anew.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::PhysicalExpr;
use millstream_dataflow::graph::{Exchange, Graph, Meets, Node, NodeKind, OverFunction, RowPattern, Slot, WindowOf};
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

/// Words of the planner that a user has no use for.
const INNER: [&str; 9] =
    ["a bug", "DataFusion", "LogicalPlan", "nternal", "physical", "not implemented", "optimizer", "__", "Arrow"];

/// `errors_grammar` goes through the grammar: every form that is refused has its case there, every other one in `grammar/planned.sql`.
#[test]
fn every_form_of_the_grammar_plans_or_says_what_to_do() {
    let planned = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grammar/planned.sql");
    let mut wrong = String::new();
    for (name, sql) in cases(&std::fs::read_to_string(planned).unwrap()) {
        if let Err(error) = plan(&sql, &BTreeMap::new(), 4) {
            let _ = writeln!(wrong, "{name}:\n{error}\n");
        }
    }
    for (name, sql) in cases(&std::fs::read_to_string(folder().join("errors_grammar.sql")).unwrap()) {
        let Err(error) = plan(&sql, &BTreeMap::new(), 4) else { continue };
        // What cannot be read at all is pointed at.
        let is_syntax = ["expected ", "unexpected ", "')' "].iter().any(|w| error.message.starts_with(w));
        let text = format!("{} {}", error.message, error.hint.as_deref().unwrap_or_default());
        if error.hint.is_none() && !is_syntax || INNER.iter().any(|word| text.contains(word)) {
            let _ = writeln!(wrong, "{name}:\n{error}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// A batch without rows.
fn empty(schema: &SchemaRef) -> RecordBatch {
    RecordBatch::new_empty(schema.clone())
}

/// Evaluates `expr` over no rows, which finds columns that are not there, and checks the type that comes out.
fn check(name: &str, expr: &Arc<dyn PhysicalExpr>, input: &SchemaRef, wanted: &DataType) {
    let value =
        expr.evaluate(&empty(input)).and_then(|v| v.into_array(0)).unwrap_or_else(|e| panic!("{name}: {expr}: {e}"));
    assert_eq!(value.data_type(), wanted, "{name}: {expr}");
}

#[test]
fn every_expression_gives_the_type_of_its_edge() {
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "sql")
            || !path.file_stem().unwrap().to_string_lossy().starts_with("explain")
        {
            continue;
        }
        for (name, sql) in cases(&std::fs::read_to_string(&path).unwrap()) {
            let pipeline = plan(&sql, &BTreeMap::new(), 4).unwrap_or_else(|e| panic!("{name}: {e}"));
            for node in &pipeline.graph.nodes {
                check_node(&name, node, &pipeline.graph);
            }
            for (node, sink) in pipeline.graph.sinks() {
                assert_eq!(node.output.schema, pipeline.sinks[usize::from(sink.sink.0)].schema, "{name}");
            }
        }
    }
}

fn check_node(name: &str, node: &Node, graph: &Graph) {
    let output = &node.output.schema;
    let input = || graph.node(node.inputs[0].from).output.schema.clone();
    match &node.kind {
        NodeKind::Source(source) => {
            let mut fields = source.decoded.fields().to_vec();
            fields.extend(source.metadata.iter().map(|(f, _)| f.clone()));
            let base: SchemaRef = Arc::new(Schema::new(fields));
            assert_eq!(source.columns.len(), output.fields().len(), "{name}");
            for (column, field) in source.columns.iter().zip(output.fields()) {
                check(name, &column.expr, &base, field.data_type());
            }
            if let Some(watermark) = &source.watermark {
                check(name, &watermark.expr, &base, output.field(watermark.column).data_type());
            }
        }
        NodeKind::Calc(calc) => {
            calc.filter.iter().for_each(|f| check(name, f, &input(), &DataType::Boolean));
            match &calc.project {
                Some(project) => {
                    assert_eq!(project.len(), output.fields().len(), "{name}");
                    for (column, field) in project.iter().zip(output.fields()) {
                        check(name, &column.expr, &input(), field.data_type());
                    }
                }
                None => assert_eq!(&input(), output, "{name}"),
            }
        }
        NodeKind::PartialWindowAggregate(spec) => {
            let input = input();
            for (i, key) in spec.keys.iter().enumerate() {
                check(name, &key.expr, &input, spec.output.field(i).data_type());
                assert_eq!(output.field(i).data_type(), spec.output.field(i).data_type(), "{name}");
            }
            let bounds = spec.output.field(spec.keys.len()).data_type();
            match &spec.window {
                WindowOf::Time { time, .. } => check(name, time, &input, bounds),
                WindowOf::Attached { start, end } => {
                    [start, end].into_iter().for_each(|e| check(name, e, &input, bounds))
                }
            }
            for call in &spec.aggregates {
                for arg in call.function.expressions() {
                    arg.evaluate(&empty(&input)).unwrap_or_else(|e| panic!("{name}: {arg}: {e}"));
                }
                call.filter.iter().for_each(|f| check(name, f, &input, &DataType::Boolean));
            }
        }
        NodeKind::WindowAggregate(spec) => assert_eq!(&spec.output, output, "{name}"),
        NodeKind::WindowAssign(assign) => {
            assert!(matches!(input().field(assign.time).data_type(), DataType::Timestamp(..)), "{name}");
            assert_eq!(input().fields().len() + 3, output.fields().len(), "{name}");
        }
        NodeKind::SessionAssign(spec) => {
            assert_eq!(input(), spec.rows.input, "{name}");
            assert_eq!(input().fields().len() + 3, output.fields().len(), "{name}");
            assert_eq!(node.inputs[0].exchange, Exchange::Hash { columns: spec.rows.partition.clone() }, "{name}");
        }
        NodeKind::Join(join) => {
            for (side, (from, own)) in node.inputs.iter().zip(&join.inputs).enumerate() {
                assert_eq!(graph.node(from.from).output.schema, own.schema, "{name}: side {side}");
                let exchange = match (&join.meets, side) {
                    (Meets::Known { .. }, 0) => Exchange::Forward,
                    (Meets::Known { .. }, _) => Exchange::Broadcast,
                    _ => Exchange::Hash { columns: own.keys.clone() },
                };
                assert_eq!(from.exchange, exchange, "{name}: side {side}");
                let times = own.retention.iter().map(|r| own.schema.field(r.column).data_type());
                assert!(times.into_iter().all(|t| matches!(t, DataType::Timestamp(..))), "{name}: side {side}");
            }
            let types = |side: usize| {
                let own = &join.inputs[side];
                own.keys.iter().map(|k| own.schema.field(*k).data_type().clone()).collect::<Vec<_>>()
            };
            assert_eq!(types(0), types(1), "{name}");
            let sides = if join.kind.is_filter() { 1 } else { 2 };
            let width: usize = join.inputs[..sides].iter().map(|i| i.schema.fields().len()).sum();
            assert_eq!(output.fields().len(), width, "{name}");
            assert_eq!(node.output.append_only, join.append_only(), "{name}");
        }
        NodeKind::Unnest(unnest) => {
            for (i, (from, to)) in input().fields().iter().zip(output.fields()).enumerate() {
                let element = match from.data_type() {
                    DataType::List(element) if unnest.lists.contains(&i) => element.data_type(),
                    own => own,
                };
                assert_eq!(element, to.data_type(), "{name}: column {i}");
            }
        }
        NodeKind::Expand(expand) => {
            let width = input().fields().len();
            assert_eq!(width + expand.keys.len() + 1, output.fields().len(), "{name}");
            for (i, key) in expand.keys.iter().enumerate() {
                check(name, &key.expr, &input(), output.field(width + i).data_type());
                assert!(expand.sets.iter().all(|s| s.nulls.len() == expand.keys.len()), "{name}");
            }
        }
        NodeKind::PartialGroupAggregate(spec) => {
            assert_eq!(&spec.transfer, output, "{name}");
            for (i, key) in spec.keys.iter().enumerate() {
                check(name, &key.expr, &input(), output.field(i).data_type());
            }
            for call in &spec.calls {
                call.filter.iter().for_each(|f| check(name, f, &input(), &DataType::Boolean));
            }
        }
        NodeKind::GroupAggregate(spec) => {
            assert_eq!(&spec.transfer, &input(), "{name}");
            assert_eq!(&spec.output, output, "{name}");
        }
        NodeKind::Union | NodeKind::Set(_) => {
            for from in &node.inputs {
                assert_eq!(&graph.node(from.from).output.schema, output, "{name}");
            }
        }
        NodeKind::LocalRank(_) => assert_eq!(&input(), output, "{name}"),
        NodeKind::Rank(spec) => {
            assert_eq!(input(), spec.rows.input, "{name}");
            let ranks = usize::from(spec.numbered);
            assert_eq!(&input().fields()[..], &output.fields()[..output.fields().len() - ranks], "{name}");
        }
        NodeKind::Over(spec) => {
            assert_eq!(input(), spec.rows.input, "{name}");
            let (kept, results) = output.fields().split_at(spec.rows.input.fields().len());
            assert_eq!(&input().fields()[..], kept, "{name}");
            for (call, field) in spec.calls.iter().zip(results) {
                let found = match &call.function {
                    OverFunction::Aggregate { call, .. } => call.function.field(),
                    OverFunction::Window(expr) => expr.field().unwrap(),
                };
                assert_eq!(found.data_type(), field.data_type(), "{name}: {}", call.text);
            }
        }
        NodeKind::RowPattern(spec) => {
            assert_eq!(input(), spec.rows.input, "{name}");
            let values: Vec<DataType> = spec.slots.iter().map(|slot| slot_type(slot, spec)).collect();
            let formulas = spec.variables.iter().flat_map(|v| v.local.iter().chain(&v.running));
            for formula in formulas.chain(spec.measures.iter().map(|(_, f)| f)) {
                let fields = formula.slots.iter().zip(formula.schema.fields());
                fields.for_each(|(slot, field)| {
                    assert_eq!(field.data_type(), &values[*slot], "{name}: {}", field.name())
                });
            }
            let partition = spec.rows.partition.len();
            assert_eq!(output.fields().len(), partition + spec.measures.len(), "{name}");
            for (i, (_, formula)) in spec.measures.iter().enumerate() {
                check(name, &formula.expr, &formula.schema, output.field(partition + i).data_type());
            }
        }
        NodeKind::Keyed(spec) => {
            let types = |schema: &SchemaRef| {
                schema.fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect::<Vec<_>>()
            };
            assert_eq!(types(&input()), types(output), "{name}");
            assert_eq!(node.inputs[0].exchange, Exchange::Hash { columns: spec.keys.clone() }, "{name}");
            assert_eq!(node.output.key.as_ref(), Some(&spec.keys), "{name}");
        }
        NodeKind::Sink(_) => assert_eq!(&input(), output, "{name}"),
    }
}

fn slot_type(slot: &Slot, spec: &RowPattern) -> DataType {
    match slot {
        Slot::Row { argument, .. } => spec.arguments[*argument].data_type(&spec.rows.input).unwrap(),
        Slot::Aggregate { call, .. } => call.function.field().data_type().clone(),
    }
}

#[test]
fn examples_plan_and_their_fingerprints_repeat() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut count = 0;
    for folder in [examples.join("nexmark"), examples] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|e| e != "sql") {
                continue;
            }
            let sql = std::fs::read_to_string(&path).unwrap();
            let print = |parallelism| {
                let planned = plan(&sql, &BTreeMap::new(), parallelism);
                planned.unwrap_or_else(|e| panic!("{}: {e}", path.display())).graph.fingerprint
            };
            assert_eq!(print(2), print(2));
            assert_ne!(print(2), print(3));
            count += 1;
        }
    }
    assert!(count >= 10);
}

/// The queries of some sections of the documentation.
#[test]
fn ranks_frames_and_patterns_in_the_documentation_plan() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/sql.md")).unwrap();
    let tables = "CREATE TABLE bid (auction BIGINT, bidder BIGINT, price BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '4' SECOND) WITH ('connector' = 'datagen');
        CREATE TABLE ticker (symbol STRING, price BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '4' SECOND) WITH ('connector' = 'datagen');
        CREATE TABLE hole (a BIGINT) WITH ('connector' = 'blackhole');";
    let mut count = 0;
    for title in ["### Top-N", "### OVER", "### MATCH_RECOGNIZE"] {
        let (_, section) = page.split_once(title).unwrap();
        let (_, block) = section.split_once("```sql\n").unwrap();
        let (block, _) = block.split_once("```").unwrap();
        // A view's mistakes are found where it is declared.
        for query in block.split(';').filter(|q| !q.trim().is_empty()) {
            let sql = format!("{tables} CREATE VIEW shown AS {query}; INSERT INTO hole SELECT auction FROM bid;");
            plan(&sql, &BTreeMap::new(), 2).unwrap_or_else(|e| panic!("{query}\n{e}"));
            count += 1;
        }
    }
    assert_eq!(count, 5);
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

/// The example of a section of the documentation.
#[test]
fn the_example_of_changes_in_the_documentation_plans() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/sql.md")).unwrap();
    let section = page.split("## Changes in and out").nth(1).unwrap();
    let example = section.split("```sql").nth(1).unwrap().split("```").next().unwrap();
    let pipeline = plan(example, &BTreeMap::new(), 2).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(pipeline.sinks.len(), 2);
}
