//! Functions by their documentation: a call as it is written in SQL, and what it gives.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use datafusion::common::DFSchema;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::physical_expr::create_physical_expr;
use datafusion::sql::sqlparser::tokenizer::Location;
use millstream_dataflow::now;

use super::Dialect;
use super::zone::Zone;
use crate::catalog::Catalog;
use crate::lex;

/// 2024-03-10T12:00:00.5Z
const NOW_MS: i64 = 1_710_072_000_500;

/// The values of an expression over a column `x` of texts.
fn values(dialect: Dialect, zone: &str, expr: &str, x: &[Option<&str>]) -> Result<Vec<String>, String> {
    now::set(NOW_MS);
    let catalog = Catalog::new(dialect, Zone::parse(zone).unwrap());
    let column: ArrayRef = Arc::new(StringArray::from(x.to_vec()));
    let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Utf8, true)]));
    let scope = DFSchema::from_unqualified_fields(schema.fields().clone(), HashMap::new()).unwrap();
    let tokens = lex::statements(expr).unwrap().remove(0);
    let planned = catalog.plan_expr(&tokens, &scope, Location { line: 1, column: 1 }).map_err(|m| m.message)?;
    let scope = Arc::new(scope);
    let at = Location { line: 1, column: 1 };
    let typed = catalog.coerce(planned, &scope).map_err(|e| catalog.mistake(&e, at).message)?;
    let mut props = ExecutionProps::new();
    props.config_options = Some(catalog.config().clone());
    let physical = create_physical_expr(&typed, &scope, &props).map_err(|e| catalog.mistake(&e, at).message)?;
    let batch = RecordBatch::try_new(schema, vec![column]).unwrap();
    let found = physical.evaluate(&batch).map_err(|e| e.to_string())?.into_array(x.len()).unwrap();
    assert_eq!(*found.data_type(), physical.data_type(&batch.schema()).unwrap(), "{expr}");
    let shown = |row| if found.is_null(row) { "NULL".to_owned() } else { array_value_to_string(&found, row).unwrap() };
    Ok((0..x.len()).map(shown).collect())
}

/// The value of an expression of literals.
fn value(dialect: Dialect, zone: &str, expr: &str) -> String {
    let mut found = values(dialect, zone, expr, &[None]).unwrap_or_else(|e| panic!("{expr}: {e}"));
    found.remove(0)
}

#[track_caller]
fn all(dialects: &[Dialect], zone: &str, table: &[(&str, &str)]) {
    let mut wrong = String::new();
    for dialect in dialects {
        for (expr, wanted) in table {
            let found = match values(*dialect, zone, expr, &[None]) {
                Ok(mut found) => found.remove(0),
                Err(e) => format!("error: {e}"),
            };
            if found != *wanted {
                wrong += &format!("{dialect:?}: {expr}: wanted {wanted}, found {found}\n");
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

use Dialect::{DataFusion, Flink, Spark};

const BOTH: &[Dialect] = &[Flink, Spark];
const EVERY: &[Dialect] = &[Flink, Spark, DataFusion];

#[test]
fn texts() {
    all(
        EVERY,
        "UTC",
        &[
            ("SPLIT_INDEX('a/b//c', '/', 0)", "a"),
            ("SPLIT_INDEX('a/b//c', '/', 2)", ""),
            ("SPLIT_INDEX('a/b//c', '/', 4)", "NULL"),
            ("SPLIT_INDEX('a/b', '/', -1)", "NULL"),
            ("SPLIT_INDEX('a--b', '--', 1)", "b"),
            ("SPLIT_INDEX('', '/', 0)", ""),
            ("SPLIT_INDEX(NULL, '/', 0)", "NULL"),
            ("SPLIT_INDEX('a', NULL, 0)", "NULL"),
            ("LOCATE('bar', 'foobarbar')", "4"),
            ("LOCATE('bar', 'foobarbar', 5)", "7"),
            ("LOCATE('b', 'äb')", "2"),
            ("LOCATE('x', 'abc')", "0"),
            ("LOCATE('a', 'abc', 0)", "0"),
            ("LOCATE('a', 'abc', 9)", "0"),
            ("LOCATE('', 'abc')", "1"),
            ("LOCATE(CAST(NULL AS STRING), 'abc')", "NULL"),
            ("count_char('abcabc', 'c')", "2"),
            ("count_char('', 'c')", "0"),
            ("count_char(CAST(NULL AS STRING), 'c')", "NULL"),
            ("SUBSTRING_INDEX('www.apache.org', '.', 2)", "www.apache"),
            ("SUBSTRING_INDEX('www.apache.org', '.', -1)", "org"),
            ("CONCAT_WS('~', 'AA', NULL, 'BB', '', 'CC')", "AA~BB~~CC"),
            ("IF(5 > 3, 'a', 'b')", "a"),
            ("NVL(NULL, 'x')", "x"),
            ("IFNULL('y', 'x')", "y"),
            ("MD5('Spark')", "8cde774d6f7333752ed72cacddb05126"),
            ("SHA1('Spark')", "85f5955f4b27a9a4c2aab6ffe5d7189fc298b92c"),
            ("SHA2('Spark', 256)", "529bc3b07127ecb7e53a4dcf1991d9152c24537d919178022b2c42657f79a26b"),
            ("STARTSWITH('Spark', 'Sp')", "true"),
            ("ENDSWITH('Spark', 'Sp')", "false"),
            ("TO_BASE64('hello world')", "aGVsbG8gd29ybGQ="),
            ("FROM_BASE64('aGVsbG8gd29ybGQ=')", "hello world"),
            ("HEX('hello,world')", "68656C6C6F2C776F726C64"),
            ("HEX(100)", "64"),
            ("BIN(12)", "1100"),
            ("SIGN(-3)", "-1.0"),
            ("TRUNCATE(42.324, 2)", "42.32"),
            ("ROUND(E(), 3)", "2.718"),
            ("ISNULL(NULL)", "true"),
            ("URL_ENCODE('https://flink.apache.org/')", "https%3A%2F%2Fflink.apache.org%2F"),
            ("URL_DECODE('https%3A%2F%2Fflink.apache.org%2F')", "https://flink.apache.org/"),
        ],
    );
    all(
        BOTH,
        "UTC",
        &[
            ("CONCAT('AA', 'BB', 'CC')", "AABBCC"),
            ("CONCAT('AA', NULL)", "NULL"),
            ("SUBSTRING('Spark SQL', 5, 1)", "k"),
            ("SUBSTRING('Spark SQL' FROM -3)", "SQL"),
            ("SUBSTR('Spark SQL', 5)", "k SQL"),
            ("CHR(353)", "a"),
            ("CHR(97)", "a"),
            ("LOG(10, 100)", "2.0"),
            ("ROUND(LOG(E()), 6)", "1.0"),
            ("LOG(0)", "NULL"),
            ("PARSE_URL('http://facebook.com/path1/p.php?k1=v1&k2=v2#Ref1', 'HOST')", "facebook.com"),
            ("PARSE_URL('http://facebook.com/path1/p.php?k1=v1&k2=v2#Ref1', 'QUERY', 'k1')", "v1"),
            ("PARSE_URL('http://facebook.com/path1/p.php?k1=v1&k2=v2#Ref1', 'PATH')", "/path1/p.php"),
            ("PARSE_URL('inva lid://user:pass@host', 'HOST')", "NULL"),
            ("ENCODE('abc', 'utf-8')", "616263"),
            ("DECODE(ENCODE('abc', 'UTF-8'), 'UTF-8')", "abc"),
            ("ELEMENT_AT(ARRAY[1, 2, 3], 2)", "2"),
            ("ELEMENT_AT(ARRAY[1, 2, 3], -1)", "3"),
            ("ELEMENT_AT(ARRAY[1, 2, 3], 5)", "NULL"),
            ("ELEMENT_AT(MAP {'a': 1, 'b': 2}, 'b')", "2"),
            ("ELEMENT_AT(MAP {'a': 1}, 'x')", "NULL"),
            ("CARDINALITY(ARRAY[1, 2])", "2"),
            ("CARDINALITY(CAST(NULL AS ARRAY<INT>))", "NULL"),
            ("ARRAY_POSITION(ARRAY[3, 2, 1], 1)", "3"),
            ("ARRAY_POSITION(ARRAY[3, 2, 1], 7)", "0"),
            ("ARRAY_CONTAINS(ARRAY[1, 2], 2)", "true"),
            ("STR_TO_MAP('a:1,b:2', ',', ':')['b']", "2"),
        ],
    );
    all(
        &[Flink],
        "UTC",
        &[
            ("GREATEST(1, NULL, 3)", "NULL"),
            ("GREATEST(1, 2, 3)", "3"),
            ("LEAST('b', 'a')", "a"),
            ("LEAST(2, CAST(NULL AS INT))", "NULL"),
            ("SPLIT('a,b,,c', ',')", "[a, b, , c]"),
            ("SPLIT('abc', '')", "[a, b, c]"),
            ("SPLIT(CAST(NULL AS STRING), ',')", "NULL"),
            ("URL_DECODE('illegal % escape')", "NULL"),
            ("SHA256('Spark')", "529bc3b07127ecb7e53a4dcf1991d9152c24537d919178022b2c42657f79a26b"),
            ("SHA224('') = SHA2('', 224)", "true"),
        ],
    );
    all(
        &[Spark],
        "UTC",
        &[
            ("GREATEST(1, NULL, 3)", "3"),
            ("LEAST(2, CAST(NULL AS INT))", "2"),
            ("split('oneAtwoBthreeC', '[ABC]')", "[one, two, three, ]"),
            ("split('oneAtwoBthreeC', '[ABC]', 2)", "[one, twoBthreeC]"),
            ("split('abc', '')", "[a, b, c]"),
            ("size(array(1, 2))", "2"),
            ("size(CAST(NULL AS ARRAY<INT>))", "-1"),
            ("element_at(map('a', 1, 'b', 2), 'a')", "1"),
            ("TRY_URL_DECODE('illegal % escape')", "NULL"),
            ("pmod(-7, 3)", "2"),
            ("shiftleft(2, 1)", "4"),
            ("bit_get(11, 0)", "1"),
            ("bit_count(7)", "3"),
            ("concat('[', space(2), ']')", "[  ]"),
            ("factorial(5)", "120"),
            ("width_bucket(5.3, 0.2, 10.6, 5)", "3"),
            ("array_repeat('a', 2)", "[a, a]"),
            ("slice(array(1, 2, 3, 4), 2, 2)", "[2, 3]"),
            ("round(2.5, 0)", "3.0"),
            ("rint(12.3456)", "12.0"),
            ("hex(unhex('537061726B'))", "537061726B"),
            ("date_sub(DATE '2016-07-30', 1)", "2016-07-29"),
            ("date_add(DATE '2016-07-30', -1)", "2016-07-29"),
            ("from_utc_timestamp(TIMESTAMP '2016-08-31 00:00:00', 'Asia/Seoul')", "2016-08-31T09:00:00"),
            ("crc32('Spark')", "1557323817"),
            ("xxhash64('Spark', array(CAST(123 AS INT)), CAST(2 AS INT))", "5602566077635097486"),
            ("soundex('Miller')", "M460"),
            ("luhn_check('8112189876')", "true"),
            ("ascii('222')", "50"),
            ("base64('Spark SQL')", "U3BhcmsgU1FM"),
            ("map_from_arrays(array('a'), array(1))['a']", "1"),
            ("abs(-1)", "1"),
            ("ceil(-0.1)", "0"),
            ("floor(-0.1)", "-1"),
            ("elt(2, 'a', 'b')", "b"),
            ("format_string('%s-%d', 'a', 5)", "a-5"),
        ],
    );
    all(
        &[DataFusion],
        "UTC",
        &[
            ("CONCAT('AA', NULL)", "AA"),
            ("LOG(100)", "2.0"),
            ("GREATEST(1, NULL, 3)", "3"),
            ("regexp_replace('aaa', 'a', 'b')", "baa"),
        ],
    );
}

#[test]
fn regular_expressions() {
    all(
        BOTH,
        "UTC",
        &[
            ("REGEXP_EXTRACT('foothebar', 'foo(.*?)(bar)', 2)", "bar"),
            ("REGEXP_EXTRACT(CAST(NULL AS STRING), 'a', 0)", "NULL"),
            ("REGEXP_REPLACE('foobar', 'oo|ar', '')", "fb"),
            ("REGEXP_REPLACE('100-200', '(\\d+)', 'num')", "num-num"),
            ("REGEXP_REPLACE('ab', '(a)(b)', '$2$1')", "ba"),
            ("REGEXP_REPLACE('', 'a', 'b')", ""),
            ("REGEXP_REPLACE('a', NULL, 'b')", "NULL"),
            ("REGEXP_SUBSTR('Steven Jones and Stephen Smith', 'Ste(v|ph)en')", "Steven"),
            ("REGEXP_SUBSTR('Mary', 'Ste(v|ph)en')", "NULL"),
            ("REGEXP_EXTRACT_ALL('100-200, 300-400', '(\\d+)-(\\d+)', 1)", "[100, 300]"),
            ("REGEXP_EXTRACT_ALL('ab', '(a)', 3)", "NULL"),
            ("REGEXP_COUNT('Steven Jones and Stephen Smith', 'Ste(v|ph)en')", "2"),
            ("'foobar' RLIKE 'oo'", "true"),
            ("'foobar' NOT RLIKE 'oo'", "false"),
            ("REGEXP_LIKE('foobar', '^f')", "true"),
        ],
    );
    all(
        &[Flink],
        "UTC",
        &[("REGEXP_EXTRACT('100-200', '(\\d+)-(\\d+)')", "100-200"), ("REGEXP_EXTRACT('abc', 'x(y)', 1)", "NULL")],
    );
    all(
        &[Spark],
        "UTC",
        &[("regexp_extract('100-200', '(\\d+)-(\\d+)')", "100"), ("regexp_extract('abc', 'x(y)', 1)", "")],
    );
    // A pattern from a row that is none is null; one that is written is a mistake.
    let found = values(Flink, "UTC", "REGEXP_EXTRACT('aa', x, 0)", &[Some("a+"), Some("("), None]).unwrap();
    assert_eq!(found, ["aa", "NULL", "NULL"]);
    let mistake = values(Flink, "UTC", "REGEXP_REPLACE('aa', '(', '')", &[None]).unwrap_err();
    assert!(mistake.contains("'(' is not a regular expression"), "{mistake}");
}

#[test]
fn dates_and_times() {
    all(
        BOTH,
        "UTC",
        &[
            ("DATE_FORMAT(TIMESTAMP '2020-01-02 03:04:05.006', 'yyyy-MM-dd HH:mm:ss.SSS')", "2020-01-02 03:04:05.006"),
            ("DATE_FORMAT(DATE '2016-04-08', 'y')", "2016"),
            ("DATE_FORMAT('2016-04-08', 'MM')", "04"),
            ("DATE_FORMAT('yesterday', 'MM')", "NULL"),
            ("DATE_FORMAT('', 'MM')", "NULL"),
            ("DATE_FORMAT(NULL, 'MM')", "NULL"),
            ("FROM_UNIXTIME(44)", "1970-01-01 00:00:44"),
            ("FROM_UNIXTIME(0, 'yyyy')", "1970"),
            ("FROM_UNIXTIME(NULL)", "NULL"),
            ("UNIX_TIMESTAMP('1970-01-01 08:00:01.001', 'yyyy-MM-dd HH:mm:ss.SSS')", "28801"),
            ("UNIX_TIMESTAMP('1970-01-01 08:00:01.001 +0800', 'yyyy-MM-dd HH:mm:ss.SSS X')", "1"),
            ("UNIX_TIMESTAMP('1970-01-01 08:00:01.001', 'yyyy-MM-dd HH:mm:ss.SSS X')", "NULL"),
            ("UNIX_TIMESTAMP('2016-04-08', 'yyyy-MM-dd')", "1460073600"),
            ("UNIX_TIMESTAMP('1970-01-01 00:01:00')", "60"),
            ("UNIX_TIMESTAMP()", "1710072000"),
            ("TO_DATE('2016-12-31')", "2016-12-31"),
            ("TO_DATE('2016-12-31 01:02:03')", "2016-12-31"),
            ("TO_DATE('31.12.2016', 'dd.MM.yyyy')", "2016-12-31"),
            ("TO_DATE('2016-02-30')", "NULL"),
            ("TO_DATE('')", "NULL"),
            ("TO_TIMESTAMP_LTZ(4001, 3)", "1970-01-01T00:00:04.001Z"),
            ("TO_TIMESTAMP_LTZ(4, 0)", "1970-01-01T00:00:04Z"),
            ("TO_TIMESTAMP_LTZ('2023-01-01 00:00:00')", "2023-01-01T00:00:00Z"),
            ("TO_TIMESTAMP_LTZ('01.02.2023 00:00:00', 'dd.MM.yyyy HH:mm:ss', 'Asia/Shanghai')", "2023-01-31T16:00:00Z"),
            ("TIMESTAMP_MILLIS(1230219000123)", "2008-12-25T15:30:00.123Z"),
            ("CONVERT_TZ('1970-01-01 00:00:00', 'UTC', 'America/Los_Angeles')", "1969-12-31 16:00:00"),
            ("CONVERT_TZ('1970-01-01 00:00:00', 'UTC', 'Nowhere')", "NULL"),
            ("TIMESTAMPADD(WEEK, 1, TIMESTAMP '2003-01-02 00:00:00')", "2003-01-09T00:00:00"),
            ("TIMESTAMPADD(MONTH, 1, TIMESTAMP '2024-01-31 10:00:00')", "2024-02-29T10:00:00"),
            ("TIMESTAMPADD(SECOND, NULL, TIMESTAMP '2003-01-02 00:00:00')", "NULL"),
            ("TIMESTAMPDIFF(DAY, TIMESTAMP '2003-01-02 10:00:00', TIMESTAMP '2003-01-03 10:00:00')", "1"),
            ("TIMESTAMPDIFF(DAY, TIMESTAMP '2003-01-02 10:00:00', TIMESTAMP '2003-01-03 09:59:59')", "0"),
            ("TIMESTAMPDIFF(MONTH, TIMESTAMP '2018-07-31 00:00:00', TIMESTAMP '2018-08-30 00:00:00')", "0"),
            ("TIMESTAMPDIFF(YEAR, TIMESTAMP '2019-03-01 00:00:00', TIMESTAMP '2018-02-28 00:00:00')", "-1"),
            ("TIMESTAMPDIFF(HOUR, TIMESTAMP '2018-01-01 00:00:00', NULL)", "NULL"),
            ("TIMESTAMPADD(DAY, 1, '2018-01-01')", "2018-01-02T00:00:00"),
            ("TIMESTAMPADD(DAY, 1, 'soon')", "NULL"),
            ("FLOOR('soon' TO DAY)", "NULL"),
            ("EXTRACT(DAY FROM DATE '2006-06-05')", "5"),
            ("EXTRACT(DOW FROM DATE '1994-09-27')", "3"),
            ("YEAR(DATE '1994-09-27')", "1994"),
            ("QUARTER(DATE '1994-09-27')", "3"),
            ("WEEK(DATE '1994-09-27')", "39"),
            ("DAYOFYEAR(DATE '1994-09-27')", "270"),
            ("DAYOFMONTH(DATE '1994-09-27')", "27"),
            ("DAYOFWEEK(DATE '1994-09-27')", "3"),
            ("WEEKDAY(DATE '1994-09-27')", "1"),
            ("HOUR(TIMESTAMP '1994-09-27 13:14:15')", "13"),
            ("MINUTE(TIMESTAMP '1994-09-27 13:14:15')", "14"),
            ("SECOND(TIMESTAMP '1994-09-27 13:14:15')", "15"),
            ("FLOOR(TIMESTAMP '2024-03-10 12:44:31' TO MINUTE)", "2024-03-10T12:44:00"),
            ("FLOOR(TIMESTAMP '2024-03-13 12:44:31' TO WEEK)", "2024-03-10T00:00:00"),
            ("CEIL(TIMESTAMP '2024-03-10 12:44:31' TO MONTH)", "2024-04-01T00:00:00"),
            ("CEIL(TIMESTAMP '2024-03-01 00:00:00' TO MONTH)", "2024-03-01T00:00:00"),
            ("CEIL(TIMESTAMP '2024-03-01 00:00:00' TO QUARTER)", "2024-04-01T00:00:00"),
            ("DATE_TRUNC('HOUR', TIMESTAMP '2015-03-05 09:32:05.359')", "2015-03-05T09:00:00"),
            ("CURRENT_DATE", "2024-03-10"),
            ("CURRENT_TIMESTAMP", "2024-03-10T12:00:00.500Z"),
            ("LOCALTIMESTAMP", "2024-03-10T12:00:00.500"),
            ("ADD_MONTHS(DATE '2016-08-31', 1)", "2016-09-30"),
            ("DATE_ADD(DATE '2016-07-30', 1)", "2016-07-31"),
            ("DATEDIFF(DATE '2009-07-31', DATE '2009-07-30')", "1"),
            ("LAST_DAY(DATE '2009-01-12')", "2009-01-31"),
            ("NEXT_DAY(DATE '2015-01-14', 'TU')", "2015-01-20"),
            ("UNIX_MILLIS(TIMESTAMP '1970-01-01 00:00:01')", "1000"),
        ],
    );
    all(
        &[Flink],
        "UTC",
        &[
            ("TO_TIMESTAMP('2020-10-10 12:12:12.123')", "2020-10-10T12:12:12.123"),
            ("TO_TIMESTAMP('2020-10-10')", "2020-10-10T00:00:00"),
            ("TO_TIMESTAMP('10/10/2020 12:12', 'dd/MM/yyyy HH:mm')", "2020-10-10T12:12:00"),
            ("TO_TIMESTAMP('10/10/2020 12', 'dd/MM/yyyy HH:mm')", "NULL"),
            ("TO_TIMESTAMP('')", "NULL"),
            ("TO_TIMESTAMP(CAST(NULL AS STRING))", "NULL"),
            // As Java's SimpleDateFormat: what follows the pattern is not looked at.
            ("UNIX_TIMESTAMP('1970-01-01 08:00:01.001 +0800', 'yyyy-MM-dd HH:mm:ss.SSS')", "28801"),
            ("EXTRACT(EPOCH FROM TIMESTAMP '1970-01-01 00:01:00')", "60"),
        ],
    );
    all(
        &[Spark],
        "UTC",
        &[
            ("to_timestamp('2016-12-31 00:12:00')", "2016-12-31T00:12:00Z"),
            ("to_timestamp('2016-12-31', 'yyyy-MM-dd')", "2016-12-31T00:00:00Z"),
            ("to_timestamp('soon')", "NULL"),
            ("unix_timestamp('1970-01-01 08:00:01.001 +0800', 'yyyy-MM-dd HH:mm:ss.SSS')", "NULL"),
            ("to_unix_timestamp(TIMESTAMP '1970-01-01 00:01:00')", "60"),
            ("trunc(DATE '2019-08-04', 'MM')", "2019-08-01"),
            ("date_trunc('DD', TIMESTAMP '2015-03-05 09:32:05.359')", "2015-03-05T00:00:00"),
            ("dateadd(DAY, 1, TIMESTAMP '2016-07-30 00:00:00')", "2016-07-31T00:00:00"),
            ("datediff(HOUR, TIMESTAMP '2016-07-30 00:00:00', TIMESTAMP '2016-07-31 00:00:00')", "24"),
        ],
    );
    let mistake = values(Flink, "UTC", "TIMESTAMPADD(FORTNIGHT, 1, LOCALTIMESTAMP)", &[None]).unwrap_err();
    assert!(mistake.contains("'FORTNIGHT' is not a unit of time"), "{mistake}");
    let mistake = values(Flink, "UTC", "DATE_FORMAT(LOCALTIMESTAMP, 'YYYY')", &[None]).unwrap_err();
    assert!(mistake.contains("'YYYY'"), "{mistake}");
}

#[test]
fn times_of_a_zone() {
    // The examples of Flink's reference, and days on which clocks change.
    all(
        BOTH,
        "Europe/Berlin",
        &[
            ("UNIX_TIMESTAMP('1970-01-01 08:00:01.001', 'yyyy-MM-dd HH:mm:ss.SSS')", "25201"),
            ("UNIX_TIMESTAMP('1970-01-01 08:00:01.001 +0800', 'yyyy-MM-dd HH:mm:ss.SSS X')", "1"),
            ("FROM_UNIXTIME(44)", "1970-01-01 01:00:44"),
            ("CURRENT_TIMESTAMP", "2024-03-10T13:00:00.500+01:00"),
            ("LOCALTIMESTAMP", "2024-03-10T13:00:00.500"),
            ("HOUR(CURRENT_TIMESTAMP)", "13"),
            ("DATE_FORMAT(CURRENT_TIMESTAMP, 'HH:mm XXX')", "13:00 +01:00"),
            ("CAST(CURRENT_TIMESTAMP AS TIMESTAMP(3))", "2024-03-10T13:00:00.500"),
            ("CAST(CAST(CURRENT_TIMESTAMP AS TIMESTAMP(3)) AS TIMESTAMP_LTZ(3))", "2024-03-10T13:00:00.500+01:00"),
            ("CAST(TO_TIMESTAMP_LTZ(1711839600000, 3) AS DATE)", "2024-03-31"),
            ("TO_TIMESTAMP_LTZ(1711839600000, 3)", "2024-03-31T00:00:00+01:00"),
            ("TIMESTAMPADD(DAY, 1, TO_TIMESTAMP_LTZ(1711839600000, 3))", "2024-04-01T00:00:00+02:00"),
            ("TIMESTAMPADD(HOUR, 24, TO_TIMESTAMP_LTZ(1711839600000, 3))", "2024-04-01T01:00:00+02:00"),
            ("FLOOR(TO_TIMESTAMP_LTZ(1711843200000, 3) TO DAY)", "2024-03-31T00:00:00+01:00"),
            ("DATE_TRUNC('day', TO_TIMESTAMP_LTZ(1711843200000, 3))", "2024-03-31T00:00:00+01:00"),
            ("TO_DATE('2024-03-31 01:00:00')", "2024-03-31"),
        ],
    );
    all(
        &[Flink],
        "Asia/Tokyo",
        &[("FROM_UNIXTIME(44)", "1970-01-01 09:00:44"), ("TO_TIMESTAMP('1970-01-01 00:00:00')", "1970-01-01T00:00:00")],
    );
    all(
        &[Spark],
        "Asia/Tokyo",
        &[
            ("to_timestamp('1970-01-01 09:00:00')", "1970-01-01T09:00:00+09:00"),
            ("unix_seconds(to_timestamp('1970-01-01 09:00:01'))", "1"),
        ],
    );
    all(BOTH, "-11:00", &[("CURRENT_DATE", "2024-03-10"), ("HOUR(NOW())", "1")]);
}

#[test]
fn json_of_sql() {
    all(
        EVERY,
        "UTC",
        &[
            // Flink's reference.
            ("'1' IS JSON", "true"),
            ("'[]' IS JSON", "true"),
            ("'{}' IS JSON", "true"),
            ("'\"abc\"' IS JSON", "true"),
            ("'abc' IS JSON", "false"),
            ("CAST(NULL AS STRING) IS JSON", "false"),
            ("CAST(NULL AS STRING) IS NOT JSON", "true"),
            ("'1' IS JSON SCALAR", "true"),
            ("'1' IS JSON ARRAY", "false"),
            ("'{}' IS NOT JSON OBJECT", "false"),
            ("JSON_EXISTS('{\"a\": true}', '$.a')", "true"),
            ("JSON_EXISTS('{\"a\": true}', '$.b')", "false"),
            ("JSON_EXISTS('{\"a\": [{ \"b\": 1 }]}', '$.a[0].b')", "true"),
            ("JSON_EXISTS('{\"a\": true}', 'strict $.b' TRUE ON ERROR)", "true"),
            ("JSON_EXISTS('{\"a\": true}', 'strict $.b' FALSE ON ERROR)", "false"),
            ("JSON_EXISTS('{\"a\": true}', 'strict $.b' UNKNOWN ON ERROR)", "NULL"),
            ("JSON_EXISTS('nonsense', 'lax $.b' TRUE ON ERROR)", "true"),
            ("JSON_EXISTS('', '$')", "false"),
            ("JSON_EXISTS(CAST(NULL AS STRING), '$')", "NULL"),
            ("JSON_VALUE('{\"a\": true}', '$.a')", "true"),
            ("JSON_VALUE('{\"a\": true}', '$.a' RETURNING BOOLEAN)", "true"),
            ("JSON_VALUE('{\"a\": true}', 'lax $.b' DEFAULT FALSE ON EMPTY)", "false"),
            ("JSON_VALUE('{\"a\": true}', 'strict $.b' DEFAULT FALSE ON ERROR)", "false"),
            ("JSON_VALUE('{\"a.b\": [0.998,0.996]}', '$.[\"a.b\"][0]' RETURNING DOUBLE)", "0.998"),
            (
                "JSON_VALUE('{\"contains blank\": \"right\"}', 'strict $.[''contains blank'']' NULL ON EMPTY DEFAULT 'wrong' ON ERROR)",
                "right",
            ),
            ("JSON_VALUE('{\"a\": \"x\"}', '$.a' RETURNING INTEGER DEFAULT -1 ON ERROR)", "-1"),
            ("JSON_VALUE('{\"a\": \"7\"}', '$.a' RETURNING INTEGER) + 1", "8"),
            ("JSON_VALUE('{\"a\": 7000000000}', '$.a' RETURNING BIGINT)", "7000000000"),
            ("JSON_VALUE('{\"a\": {}}', '$.a')", "NULL"),
            ("JSON_VALUE('{\"a\": {}}', '$.a' DEFAULT 'empty' ON EMPTY DEFAULT 'error' ON ERROR)", "error"),
            ("JSON_VALUE('{\"a\": {}}', 'lax $.a' DEFAULT 'empty' ON EMPTY DEFAULT 'error' ON ERROR)", "empty"),
            ("JSON_VALUE('{\"a\": null}', '$.a' DEFAULT 'empty' ON EMPTY)", "empty"),
            ("JSON_VALUE('nonsense', 'lax $.a' DEFAULT 'empty' ON EMPTY DEFAULT 'error' ON ERROR)", "error"),
            ("JSON_VALUE('', '$.a')", "NULL"),
            ("JSON_VALUE(CAST(NULL AS STRING), '$.a' DEFAULT 'x' ON EMPTY DEFAULT 'y' ON ERROR)", "NULL"),
            ("JSON_VALUE('{\"a\": \"\\u00e9\\n\"}', '$.a') = 'é\n'", "true"),
            ("JSON_QUERY('{ \"a\": { \"b\": 1 } }', '$.a')", "{\"b\":1}"),
            ("JSON_QUERY('[1, 2]', '$')", "[1,2]"),
            ("JSON_QUERY(CAST(NULL AS STRING), '$')", "NULL"),
            ("JSON_QUERY('{\"a\":[{\"c\":\"c1\"},{\"c\":\"c2\"}]}', 'lax $.a[*].c')", "[\"c1\",\"c2\"]"),
            ("JSON_QUERY('{}', '$' WITH CONDITIONAL ARRAY WRAPPER)", "[{}]"),
            ("JSON_QUERY('[1, 2]', '$' WITH CONDITIONAL ARRAY WRAPPER)", "[1,2]"),
            ("JSON_QUERY('[1, 2]', '$' WITH UNCONDITIONAL ARRAY WRAPPER)", "[[1,2]]"),
            ("JSON_QUERY('1', '$')", "NULL"),
            ("JSON_QUERY('1', '$' WITH CONDITIONAL ARRAY WRAPPER)", "[1]"),
            ("JSON_QUERY('{}', 'lax $.invalid' EMPTY OBJECT ON EMPTY)", "{}"),
            ("JSON_QUERY('{}', 'strict $.invalid' EMPTY ARRAY ON ERROR)", "[]"),
            ("JSON_STRING(CAST(NULL AS INT))", "NULL"),
            ("JSON_STRING(1)", "1"),
            ("JSON_STRING(TRUE)", "true"),
            ("JSON_STRING('Hello, World!')", "\"Hello, World!\""),
            ("JSON_STRING(ARRAY[1, 2])", "[1,2]"),
            ("JSON_OBJECT()", "{}"),
            ("JSON_OBJECT('K1' VALUE 'V1', 'K2' VALUE 2)", "{\"K1\":\"V1\",\"K2\":2}"),
            ("JSON_OBJECT(KEY 'K1' VALUE CAST(NULL AS STRING) NULL ON NULL)", "{\"K1\":null}"),
            ("JSON_OBJECT(KEY 'K1' VALUE CAST(NULL AS STRING) ABSENT ON NULL)", "{}"),
            ("JSON_OBJECT(KEY 'K1' VALUE JSON_OBJECT(KEY 'K2' VALUE 'V'))", "{\"K1\":{\"K2\":\"V\"}}"),
            ("JSON_ARRAY()", "[]"),
            ("JSON_ARRAY(1, '2')", "[1,\"2\"]"),
            ("JSON_ARRAY(CAST(NULL AS STRING) NULL ON NULL)", "[null]"),
            ("JSON_ARRAY(CAST(NULL AS STRING) ABSENT ON NULL)", "[]"),
            ("JSON_ARRAY(JSON_ARRAY(1))", "[[1]]"),
            ("JSON_QUOTE('a\"b')", "\"a\\\"b\""),
            ("JSON_UNQUOTE('\"a\\\"b\"')", "a\"b"),
        ],
    );
    for (expr, part) in [
        ("JSON_VALUE(x, '$.a' ERROR ON ERROR)", "ERROR ON ERROR"),
        ("JSON_VALUE(x, 'lax $.a' ERROR ON EMPTY)", "ERROR ON EMPTY"),
        ("JSON_QUERY(x, 'lax $.a' ERROR ON EMPTY)", "ERROR ON EMPTY"),
        ("JSON_EXISTS(x, '$.a' ERROR ON ERROR)", "ERROR ON ERROR"),
        ("JSON_VALUE(x, '$..a')", "not supported"),
        ("JSON_VALUE(x, 'a.b')", "begins with $"),
        ("JSON_VALUE(x, '$.a' RETURNING DATE)", "RETURNING takes"),
    ] {
        let mistake = values(Flink, "UTC", expr, &[Some("{}")]).unwrap_err();
        assert!(mistake.contains(part), "{expr}: {mistake}");
    }
    let rows = [Some("{\"a\": 1}"), None, Some("{\"a\": \"b\"}"), Some("{}"), Some("{"), Some("")];
    let found = values(
        Flink,
        "UTC",
        "JSON_VALUE(x, 'lax $.a' RETURNING INTEGER DEFAULT 0 ON EMPTY DEFAULT -1 ON ERROR)",
        &rows,
    );
    assert_eq!(found.unwrap(), ["1", "NULL", "-1", "0", "-1", "-1"]);
}

#[test]
fn json_of_spark_and_postgres() {
    let store = r#"'{"store":{"fruit":[{"weight":8,"type":"apple"},{"weight":9,"type":"pear"}],"basket":[[1,2,{"b":"y","a":"x"}],[3,4],[5,6]],"bicycle":{"price":19.95,"color":"red"}},"email":"amy@only.net","owner":"amy","zip code":"94025","fb:testid":"1234"}'"#;
    let object = |path: &str| value(Spark, "UTC", &format!("get_json_object({store}, '{path}')"));
    for (path, wanted) in [
        ("$.owner", "amy"),
        ("$.store.bicycle", "{\"price\":19.95,\"color\":\"red\"}"),
        ("$.store.fruit[0].weight", "8"),
        ("$.store.fruit[*].type", "[\"apple\",\"pear\"]"),
        ("$.store.basket[0][2].b", "y"),
        ("$.store.basket[*]", "[[1,2,{\"b\":\"y\",\"a\":\"x\"}],[3,4],[5,6]]"),
        ("$.zip code", "94025"),
        ("$.fb:testid", "1234"),
        ("$[''zip code'']", "94025"),
        ("$.missing", "NULL"),
        ("$.store.fruit[9]", "NULL"),
    ] {
        assert_eq!(object(path), wanted, "{path}");
    }
    all(
        EVERY,
        "UTC",
        &[
            ("get_json_object('{\"a\":\"b\"}', '$.a')", "b"),
            ("get_json_object('{\"a\":null}', '$.a')", "NULL"),
            ("get_json_object('{\"a\":[{\"b\":\"x\"}]}', '$.a[*].b')", "\"x\""),
            ("get_json_object('nonsense', '$.a')", "NULL"),
            ("get_json_object('', '$.a')", "NULL"),
            ("get_json_object(CAST(NULL AS STRING), '$.a')", "NULL"),
            ("json_array_length('[1,2,3,{\"f1\":1,\"f2\":[5,6]},4]')", "5"),
            ("json_array_length('{}')", "NULL"),
            ("json_object_keys('{\"f1\":\"abc\",\"f2\":{\"f3\":\"a\", \"f4\":\"b\"}}')", "[f1, f2]"),
            ("json_object_keys('[]')", "NULL"),
            ("'[{\"a\":\"foo\"},{\"b\":\"bar\"},{\"c\":\"baz\"}]' -> 2", "{\"c\":\"baz\"}"),
            ("'[{\"a\":\"foo\"},{\"b\":\"bar\"},{\"c\":\"baz\"}]' -> -3", "{\"a\":\"foo\"}"),
            ("'{\"a\": {\"b\":\"foo\"}}' -> 'a'", "{\"b\":\"foo\"}"),
            ("'[1,2,3]' ->> 2", "3"),
            ("'{\"a\":1,\"b\":2}' ->> 'b'", "2"),
            ("'{\"a\": {\"b\":\"foo\"}}' -> 'a' ->> 'b'", "foo"),
            ("'{\"a\": \"x\"}' -> 'a'", "\"x\""),
            ("'{\"a\": null}' ->> 'a'", "NULL"),
            ("'{\"a\": null}' -> 'a'", "null"),
            ("'nonsense' -> 'a'", "NULL"),
            ("'{\"a\": 1}' -> 'a' = '1'", "true"),
            ("from_json('{\"a\":1, \"b\":0.8}', 'a INT, b DOUBLE')", "{a: 1, b: 0.8}"),
            ("from_json('{\"a\":\"1\", \"c\":[1]}', 'a INT, c ARRAY<BIGINT>')", "{a: , c: [1]}"),
            ("from_json('{\"time\":\"26/08/2015\"}', 'time STRING')", "{time: 26/08/2015}"),
            ("from_json('nonsense', 'a INT')", "{a: }"),
            ("from_json(CAST(NULL AS STRING), 'a INT')", "NULL"),
            ("from_json('[1, 2, null]', 'ARRAY<INT>')", "[1, 2, ]"),
            ("from_json('nonsense', 'ARRAY<INT>')", "NULL"),
            ("from_json('{\"a\": 1, \"b\": null}', 'MAP<STRING, INT>')", "{a: 1, b: }"),
            (
                "from_json('{\"teacher\": \"Alice\", \"student\": [{\"name\": \"Bob\", \"rank\": 1}, {\"name\": \"Charlie\"}]}', 'STRUCT<teacher: STRING, student: ARRAY<STRUCT<name: STRING, rank: INT>>>')",
                "{teacher: Alice, student: [{name: Bob, rank: 1}, {name: Charlie, rank: }]}",
            ),
            (
                "from_json('{\"t\": \"2015-08-26 01:02:03\", \"d\": \"2015-08-26\", \"m\": 1.25}', 't TIMESTAMP(3), d DATE, m DECIMAL(10, 2)')",
                "{t: 2015-08-26T01:02:03, d: 2015-08-26, m: 1.25}",
            ),
            ("to_json(named_struct('a', 1, 'b', 2))", "{\"a\":1,\"b\":2}"),
            ("to_json(named_struct('a', 1, 'b', CAST(NULL AS INT)))", "{\"a\":1}"),
            ("to_json(ARRAY[named_struct('a', 1)])", "[{\"a\":1}]"),
            ("to_json(MAP {'a': 1})", "{\"a\":1}"),
            ("json_tuple('{\"a\":1, \"b\":2}', 'a', 'b')", "{c0: 1, c1: 2}"),
        ],
    );
    for (expr, part) in [
        ("from_json(x, x)", "written in the query"),
        ("from_json(x, 'a NOTYPE')", "unknown type"),
        ("from_json(x, 'a MAP<INT, INT>')", "not supported in a schema"),
        ("get_json_object(x, 'a')", "begins with $"),
    ] {
        let mistake = values(Spark, "UTC", expr, &[Some("{}")]).unwrap_err();
        assert!(mistake.contains(part), "{expr}: {mistake}");
    }
    let rows = [Some("{\"a\": 1}"), None, Some("{\"a\": {\"b\": [1, 2]}}"), Some("x")];
    assert_eq!(values(Spark, "UTC", "x -> 'a'", &rows).unwrap(), ["1", "NULL", "{\"b\":[1,2]}", "NULL"]);
    assert_eq!(values(Spark, "UTC", "get_json_object(x, '$.a.b')", &rows).unwrap(), ["NULL", "NULL", "[1,2]", "NULL"]);
}

/// The queries of Nexmark that are made of functions, as the benchmark's own text for Flink has them, and as one writes them for Spark.
#[test]
fn nexmark_as_flink_and_spark_write_it() {
    let tables = "CREATE TABLE bid (auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, `dateTime` TIMESTAMP(3), extra STRING,
          WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND) WITH ('connector' = 'kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'b', 'format' = 'json');";
    let counts = "COUNT(*) AS total_bids,
          COUNT(*) FILTER (WHERE price < 10000) AS rank1_bids,
          COUNT(DISTINCT bidder) AS total_bidders,
          COUNT(DISTINCT bidder) FILTER (WHERE price >= 1000000) AS rank3_bidders";
    let flink = [
        (
            "auction BIGINT, bidder BIGINT, price DECIMAL(23, 3), bidTimeType VARCHAR, `dateTime` TIMESTAMP(3), extra VARCHAR, c_counts BIGINT",
            "SELECT auction, bidder, 0.908 * price AS price,
               CASE WHEN HOUR(`dateTime`) >= 8 AND HOUR(`dateTime`) <= 18 THEN 'dayTime'
                 WHEN HOUR(`dateTime`) <= 6 OR HOUR(`dateTime`) >= 20 THEN 'nightTime' ELSE 'otherTime' END AS bidTimeType,
               `dateTime`, extra, count_char(extra, 'c') AS c_counts
             FROM bid WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000"
                .to_owned(),
        ),
        (
            "channel VARCHAR, `day` VARCHAR, `minute` VARCHAR, a BIGINT, b BIGINT, c BIGINT, d BIGINT",
            format!(
                "SELECT channel, DATE_FORMAT(`dateTime`, 'yyyy-MM-dd') AS `day`, max(DATE_FORMAT(`dateTime`, 'HH:mm')) AS `minute`, {counts}
                 FROM bid GROUP BY channel, DATE_FORMAT(`dateTime`, 'yyyy-MM-dd')"
            ),
        ),
        (
            "auction BIGINT, bidder BIGINT, price BIGINT, channel VARCHAR, channel_id VARCHAR",
            "SELECT auction, bidder, price, channel,
               CASE WHEN lower(channel) = 'apple' THEN '0' WHEN lower(channel) = 'google' THEN '1'
                 WHEN lower(channel) = 'facebook' THEN '2' WHEN lower(channel) = 'baidu' THEN '3'
                 ELSE REGEXP_EXTRACT(url, '(&|^)channel_id=([^&]*)', 2) END AS channel_id
             FROM bid WHERE REGEXP_EXTRACT(url, '(&|^)channel_id=([^&]*)', 2) is not null
               OR lower(channel) IN ('apple', 'google', 'facebook', 'baidu')"
                .to_owned(),
        ),
        (
            "auction BIGINT, bidder BIGINT, price BIGINT, channel VARCHAR, dir1 VARCHAR, dir2 VARCHAR, dir3 VARCHAR",
            "SELECT auction, bidder, price, channel, SPLIT_INDEX(url, '/', 3) AS dir1, SPLIT_INDEX(url, '/', 4) AS dir2,
               SPLIT_INDEX(url, '/', 5) AS dir3 FROM bid"
                .to_owned(),
        ),
    ];
    let spark = [
        (
            flink[0].0,
            "SELECT auction, bidder, 0.908 * price AS price,
               CASE WHEN hour(dateTime) BETWEEN 8 AND 18 THEN 'dayTime'
                 WHEN hour(dateTime) <= 6 OR hour(dateTime) >= 20 THEN 'nightTime' ELSE 'otherTime' END AS bidTimeType,
               dateTime, extra, length(extra) - length(replace(extra, 'c', '')) AS c_counts
             FROM bid WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000"
                .to_owned(),
        ),
        (
            flink[1].0,
            format!(
                "SELECT channel, date_format(dateTime, 'yyyy-MM-dd') AS day, max(date_format(dateTime, 'HH:mm')) AS minute, {counts}
                 FROM bid GROUP BY channel, date_format(dateTime, 'yyyy-MM-dd')"
            ),
        ),
        (
            flink[2].0,
            "SELECT auction, bidder, price, channel,
               CASE lower(channel) WHEN 'apple' THEN '0' WHEN 'google' THEN '1' WHEN 'facebook' THEN '2' WHEN 'baidu' THEN '3'
                 ELSE regexp_extract(url, '(&|^)channel_id=([^&]*)', 2) END AS channel_id
             FROM bid WHERE regexp_extract(url, '(&|^)channel_id=([^&]*)', 2) <> ''
               OR lower(channel) IN ('apple', 'google', 'facebook', 'baidu')"
                .to_owned(),
        ),
        (
            flink[3].0,
            "SELECT auction, bidder, price, channel, split_part(url, '/', 4) AS dir1, split(url, '/')[4] AS dir2,
               element_at(split(url, '/'), 6) AS dir3 FROM bid"
                .to_owned(),
        ),
    ];
    for (dialect, queries) in [("flink", flink), ("spark", spark)] {
        for (columns, query) in queries {
            let sql = format!(
                "SET 'sql.dialect' = '{dialect}'; {tables} CREATE TABLE s ({columns}) WITH ('connector' = 'blackhole'); INSERT INTO s {query};"
            );
            crate::plan(&sql, &BTreeMap::new(), 2).unwrap_or_else(|e| panic!("{dialect}: {e}\n{query}"));
        }
    }
}

/// Spark's way to a stream of JSON: one column of text, parsed in the query or in a computed column.
#[test]
fn fields_of_parsed_json_plan() {
    let sql = "CREATE TABLE t (value STRING, parsed AS from_json(value, 'id BIGINT, user STRUCT<name: STRING>, tags ARRAY<STRING>'),
          at TIMESTAMP_LTZ(3) METADATA FROM 'timestamp')
          WITH ('connector' = 'kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'b', 'format' = 'raw');
        SET 'table.local-time-zone' = 'Europe/Berlin';
        CREATE TABLE s (a BIGINT, b STRING, c STRING, d STRING, e INT, f TIMESTAMP_LTZ(3)) WITH ('connector' = 'blackhole');
        INSERT INTO s SELECT parsed.id, parsed.user.name, parsed.tags[1], data.k, from_json(value, 'n INT').n, at
          FROM (SELECT *, from_json(value, 'k STRING') AS data FROM t) WHERE parsed.id > 1;";
    let pipeline = crate::plan(sql, &BTreeMap::new(), 2).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(pipeline.sources[0].schema.fields().len(), 1);
}

#[test]
fn aggregates_of_other_names_plan() {
    let sql = "CREATE TABLE t (a BIGINT, b BOOLEAN, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND) WITH ('connector' = 'datagen');
        CREATE TABLE s (a BIGINT, b BIGINT, c BOOLEAN, d BIGINT) WITH ('connector' = 'blackhole');
        INSERT INTO s SELECT try_sum(a), count_if(b), every(b), approx_count_distinct(a) FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR))
          GROUP BY window_start, window_end;";
    crate::plan(sql, &BTreeMap::new(), 2).unwrap_or_else(|e| panic!("{e}"));
}

/// A table with instants in a pipeline with a zone: they are read and written in UTC, and shown in the zone between.
#[test]
fn instants_of_a_table_are_shown_in_the_zone() {
    let sql = |zone: &str| {
        format!(
            "SET 'table.local-time-zone' = '{zone}';
             CREATE TABLE t (a TIMESTAMP_LTZ(3), r ROW<b TIMESTAMP_LTZ(3), c INT>, d AS CAST(a AS DATE), WATERMARK FOR a AS a - INTERVAL '1' SECOND)
               WITH ('connector' = 'kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'b', 'format' = 'json');
             CREATE TABLE s (a TIMESTAMP_LTZ(3), l TIMESTAMP(3), h STRING, d DATE, w TIMESTAMP_LTZ(3)) WITH ('connector' = 'blackhole');
             INSERT INTO s SELECT max(a), min(CAST(a AS TIMESTAMP(3))), max(DATE_FORMAT(a, 'HH')), d, window_start
               FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(a), INTERVAL '1' HOUR)) WHERE r.c > 1 GROUP BY d, window_start, window_end;"
        )
    };
    let planned = |zone: &str| crate::plan(&sql(zone), &BTreeMap::new(), 2).unwrap_or_else(|e| panic!("{zone}: {e}"));
    let (berlin, utc) = (planned("Europe/Berlin"), planned("UTC"));
    let utc_type = DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, Some("UTC".into()));
    for pipeline in [&berlin, &utc] {
        assert_eq!(*pipeline.sources[0].schema.field(0).data_type(), utc_type);
        assert_eq!(*pipeline.sinks[0].schema.field(0).data_type(), utc_type);
        assert_eq!(*pipeline.sinks[0].schema.field(4).data_type(), utc_type);
    }
    assert_ne!(berlin.graph.fingerprint, utc.graph.fingerprint);
    assert!(crate::explain(&berlin).contains("to_local_time"), "{}", crate::explain(&berlin));
    assert!(!crate::explain(&utc).contains("to_local_time"), "{}", crate::explain(&utc));
}

/// The example of the SQL page.
#[test]
fn the_documented_example_plans() {
    let page =
        std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/sql.md")).unwrap();
    let (_, section) = page.split_once("### Functions\n").unwrap();
    let example = section.split("```sql\n").nth(1).unwrap().split("```").next().unwrap();
    let (settings, query) = example.split_at(example.find("SELECT").unwrap());
    let sql = format!(
        "{settings} CREATE TABLE events (payload STRING, path STRING)
           WITH ('connector' = 'kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'b', 'format' = 'json');
         CREATE TABLE s (a STRING, b STRING, c DOUBLE, d STRING, e STRING) WITH ('connector' = 'blackhole');
         INSERT INTO s {query};"
    );
    crate::plan(&sql, &BTreeMap::new(), 2).unwrap_or_else(|e| panic!("{e}"));
}
