//! UNNEST and LATERAL.
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, RecordBatch, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Schema};
use std::sync::Arc;

use crate::batch::Batch;
use crate::harness::Case;

const COLUMNS: &str =
    "k BIGINT, v BIGINT, list ARRAY<BIGINT>, other ARRAY<BIGINT>, items ARRAY<ROW<sku BIGINT, n BIGINT>>,
    ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND";

/// 100 rows; some lists are null, some empty, some hold nulls.
fn rows() -> RecordBatch {
    let flat = Batch::new().query(
        "SELECT i AS k, rnd(i) % 5 AS v,
           CASE rnd(i * 3) % 5 WHEN 0 THEN NULL WHEN 1 THEN make_array() WHEN 2 THEN make_array(i % 4) WHEN 3 THEN make_array(i % 3, NULL, 7) ELSE make_array(1, 2, 3, i % 5) END AS list,
           CASE rnd(i * 7) % 3 WHEN 0 THEN NULL WHEN 1 THEN make_array(rnd(i + 1) % 9) ELSE make_array(rnd(i + 2) % 9, 5) END AS other,
           CASE WHEN rnd(i + 3) % 40 = 0 THEN NULL ELSE 1577836800000 + i * 211 END AS ts
         FROM (SELECT value AS i FROM generate_series(0, 99))",
    );
    let schema = Case::new().table("t", COLUMNS).schema();
    let items = items(&flat, &schema);
    let columns: Vec<ArrayRef> = schema
        .fields()
        .iter()
        .map(|f| match f.name().as_str() {
            "items" => items.clone(),
            name => arrow::compute::cast(flat.column_by_name(name).unwrap(), f.data_type()).unwrap(),
        })
        .collect();
    RecordBatch::try_new(schema, columns).unwrap()
}

/// Lists of (sku, n), as long as `list`.
fn items(flat: &RecordBatch, schema: &Schema) -> ArrayRef {
    let DataType::List(element) = schema.field_with_name("items").unwrap().data_type() else { panic!("no list") };
    let DataType::Struct(fields) = element.data_type() else { panic!("no rows") };
    let list = flat.column_by_name("list").unwrap().as_list::<i32>();
    let lengths: Vec<usize> =
        (0..list.len()).map(|i| if list.is_null(i) { 0 } else { list.value_length(i) as usize }).collect();
    let count: usize = lengths.iter().sum();
    let column = |step: i64| -> ArrayRef {
        Arc::new((0..count as i64).map(|i| (i % 7 != 3).then_some(i * step % 11)).collect::<Int64Array>())
    };
    let values = StructArray::new(fields.clone(), vec![column(3), column(5)], None);
    Arc::new(ListArray::new(
        element.clone(),
        OffsetBuffer::from_lengths(lengths),
        Arc::new(values),
        list.nulls().cloned(),
    ))
}

fn table(updating: bool) -> Case {
    let case = Case::new().table("a", COLUMNS).rows(rows());
    if updating { case.updating() } else { case }
}

#[test]
fn in_the_select_list() {
    for updating in [false, true] {
        table(updating).query("SELECT k, unnest(list) AS x FROM a WHERE v < 4").check();
        table(updating).query("SELECT k, unnest(list) AS x, unnest(other) AS y FROM a").check();
        table(updating).query("SELECT k, unnest(list) + v AS x FROM a").check();
        table(updating)
            .query("SELECT k, explode(list) AS x FROM a")
            .batch("SELECT k, unnest(list) AS x FROM a")
            .check();
    }
}

#[test]
fn in_from() {
    let plain = "SELECT k, v, unnest(list) AS x FROM a";
    let forms = [
        "SELECT a.k, a.v, u.x FROM a CROSS JOIN UNNEST(a.list) AS u(x)",
        "SELECT k, v, x FROM a, UNNEST(list) AS u(x)",
        "SELECT k, v, u FROM a CROSS JOIN UNNEST(list) AS u",
        "SELECT a.k, a.v, u.x FROM a JOIN UNNEST(a.list) AS u(x) ON TRUE",
        "SELECT k, v, x FROM a LATERAL VIEW explode(list) u AS x",
    ];
    for updating in [false, true] {
        for form in forms {
            table(updating).query(form).batch(plain).check();
        }
        let filtered =
            "SELECT a.k, u.x FROM a JOIN UNNEST(a.list) AS u(x) ON u.x > a.v WHERE a.k % 3 <> 0 AND u.x <> 7";
        let batch = "SELECT k, x FROM (SELECT k, v, unnest(list) AS x FROM a) WHERE x > v AND k % 3 <> 0 AND x <> 7";
        table(updating).query(filtered).batch(batch).check();
        let twice = "SELECT a.k, u.x, w.y FROM a CROSS JOIN UNNEST(a.list) AS u(x) CROSS JOIN UNNEST(a.other) AS w(y)";
        let batch = "SELECT k, x, unnest(other) AS y FROM (SELECT k, other, unnest(list) AS x FROM a)";
        table(updating).query(twice).batch(batch).check();
        let computed = "SELECT k, x FROM a CROSS JOIN UNNEST(array_append(list, v)) AS u(x)";
        table(updating).query(computed).batch("SELECT k, unnest(array_append(list, v)) AS x FROM a").check();
        table(updating)
            .query("SELECT k, x FROM a CROSS JOIN UNNEST(ARRAY[1, 2]) AS u(x)")
            .batch("SELECT k, unnest([1, 2]) AS x FROM a")
            .check();
    }
}

#[test]
fn rows_without_elements() {
    let batch =
        "SELECT k, unnest(list) AS x FROM a UNION ALL SELECT k, NULL FROM a WHERE coalesce(cardinality(list), 0) = 0";
    for updating in [false, true] {
        table(updating).query("SELECT k, x FROM a LEFT JOIN UNNEST(list) AS u(x) ON TRUE").batch(batch).check();
        table(updating).query("SELECT k, x FROM a LATERAL VIEW OUTER explode(list) u AS x").batch(batch).check();
        table(updating).query("SELECT k, x FROM a LATERAL VIEW explode_outer(list) u AS x").batch(batch).check();
    }
}

#[test]
fn elements_that_are_rows_and_their_numbers() {
    let batch =
        "SELECT k, get_field(x, 'sku') AS sku, get_field(x, 'n') AS n FROM (SELECT k, unnest(items) AS x FROM a)";
    for form in [
        "SELECT k, sku, n FROM a CROSS JOIN UNNEST(items)",
        "SELECT a.k, i.s, i.m FROM a CROSS JOIN UNNEST(a.items) AS i(s, m)",
        "SELECT a.k, i.x.sku, i.x.n FROM a CROSS JOIN UNNEST(a.items) AS i(x)",
        "SELECT k, s, m FROM a LATERAL VIEW inline(items) i AS s, m",
    ] {
        table(true).query(form).batch(batch).check();
    }
    let numbered = "SELECT k, x, n FROM a CROSS JOIN UNNEST(list) WITH ORDINALITY AS u(x, n)";
    let batch =
        "SELECT k, unnest(list) AS x, unnest(generate_series(1, CAST(array_length(list) AS BIGINT))) AS n FROM a";
    table(true).query(numbered).batch(batch).check();
}

#[test]
fn elements_are_rows_as_others() {
    let query = "SELECT window_end AS e, x, count(*) AS n FROM TABLE(TUMBLE((SELECT ts, x FROM a CROSS JOIN UNNEST(list) AS u(x)), DESCRIPTOR(ts), INTERVAL '3' SECOND))
         GROUP BY window_start, window_end, x";
    let batch =
        query.replace("SELECT ts, x FROM a CROSS JOIN UNNEST(list) AS u(x)", "SELECT ts, unnest(list) AS x FROM a");
    table(false).query(query).batch(&batch).closes_by("e").check();
    let query = "SELECT x, count(*) AS n, max(k) AS m FROM a CROSS JOIN UNNEST(list) AS u(x) GROUP BY x";
    let batch = "SELECT x, count(*) AS n, max(k) AS m FROM (SELECT k, unnest(list) AS x FROM a) GROUP BY x";
    for updating in [false, true] {
        table(updating).query(query).batch(batch).check();
    }
}

#[test]
fn laterals_that_are_joins() {
    const PLAIN: &str = "k BIGINT, v BIGINT";
    let tables = || {
        let rows = "CASE WHEN i % 7 = 0 THEN NULL ELSE rnd(i) % 6 END, rnd(i + 4) % 10";
        Case::new().table("a", PLAIN).generated(60, rows).updating().table("b", PLAIN).generated(40, rows).updating()
    };
    let queries = [
        "SELECT a.k, a.v, x.w FROM a CROSS JOIN LATERAL (SELECT b.v AS w FROM b WHERE b.k = a.k AND b.v > a.v) x",
        "SELECT a.k, a.v, x.w FROM a LEFT JOIN LATERAL (SELECT b.v AS w FROM b WHERE b.k = a.k) x ON TRUE",
        "SELECT a.k, a.v, x.n, x.m FROM a CROSS JOIN LATERAL (SELECT count(*) AS n, max(b.v) AS m FROM b WHERE b.k = a.k) x",
        "SELECT a.k, x.w FROM a, LATERAL (SELECT DISTINCT b.v AS w FROM b WHERE b.k = a.k) x",
    ];
    for query in queries {
        tables().query(query).check();
    }
}
