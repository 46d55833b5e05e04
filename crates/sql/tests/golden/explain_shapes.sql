CREATE TABLE orders (
  id BIGINT, amount DOUBLE, city STRING, item ROW<sku STRING, dims ROW<w INT, h INT>, note STRING>, raw_ts BIGINT,
  ts AS to_timestamp_millis(raw_ts), area AS item.dims.w * item.dims.h, big AS item.dims.w * item.dims.h > 100,
  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
) WITH ('connector' = 'kafka', 'topic' = 'orders', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
-- case: grouping by an expression and an ordinal
CREATE TABLE sink (c STRING, n BIGINT, mean DOUBLE) WITH ('connector' = 'print');
INSERT INTO sink SELECT upper(city), count(*), sum(amount) / count(amount)
FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) AS w GROUP BY 1, w.window_start, w.window_end;
-- case: nested fields are pruned through views and unions
CREATE TABLE sink (w INT, sku STRING) WITH ('connector' = 'print');
CREATE VIEW everything AS SELECT * FROM orders WHERE city = 'Riga' UNION ALL SELECT * FROM orders WHERE city = 'Oslo';
INSERT INTO sink SELECT item.dims.w, item.sku FROM everything;
-- case: a whole row
CREATE TABLE sink (item ROW<sku STRING, dims ROW<w INT, h INT>, note STRING>) WITH ('connector' = 'print');
INSERT INTO sink SELECT item FROM orders WHERE item.dims.h > 3;
-- case: a window of a union of windows
CREATE TABLE sink (s TIMESTAMP(3), n BIGINT) WITH ('connector' = 'print');
CREATE VIEW both_sides AS
  SELECT window_start AS s, window_end AS e, count(*) AS n FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) WHERE big GROUP BY window_start, window_end
  UNION ALL
  SELECT window_start, window_end, count(*) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) WHERE NOT big GROUP BY window_start, window_end;
INSERT INTO sink SELECT s, sum(n) FROM both_sides GROUP BY s, e;
-- case: a view with names for its columns, computed columns
CREATE TABLE sink (a INT, b BOOLEAN) WITH ('connector' = 'print');
CREATE VIEW sizes (size_of, is_big) AS SELECT area, big FROM orders;
INSERT INTO sink SELECT size_of, is_big FROM sizes WHERE size_of IS NOT NULL;
-- case: aggregates of cases, variance, two-sided HAVING, unused bounds
CREATE TABLE sink (n BIGINT, v DOUBLE, m DOUBLE) WITH ('connector' = 'print');
INSERT INTO sink SELECT sum(CASE WHEN big THEN 1 ELSE 0 END), var_samp(amount), median(amount)
FROM TABLE(HOP(TABLE orders, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, city
HAVING count(*) > 1 AND max(amount) < 1000;
-- case: the end of the window is enough for tumbling
CREATE TABLE sink (e TIMESTAMP(3), n BIGINT) WITH ('connector' = 'print');
INSERT INTO sink SELECT window_end, count(DISTINCT id) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_end;
-- case: an expression of the window is a key
CREATE TABLE sink (hour BIGINT, n BIGINT) WITH ('connector' = 'print');
INSERT INTO sink SELECT CAST(HOUR(window_start) AS BIGINT), count(*) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, HOUR(window_start);
-- case: the last moment of windows into wider windows, aggregated by their bounds
CREATE TABLE sink (s TIMESTAMP(3), n BIGINT) WITH ('connector' = 'print');
INSERT INTO sink
SELECT window_start, max(n) FROM TABLE(TUMBLE((
  SELECT window_time AS t, city, count(*) AS n FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY window_start, window_end, window_time, city
), DESCRIPTOR(t), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;
-- case: a constant alone
CREATE TABLE sink (one INT, t TIMESTAMP(3)) WITH ('connector' = 'print');
INSERT INTO sink SELECT 1, now() FROM orders;
-- case: everything twice
CREATE TABLE sink (a BIGINT, b BIGINT, c STRING) WITH ('connector' = 'print');
INSERT INTO sink SELECT id, id, lower(x) || lower(x) FROM (SELECT id, concat(city, 'x') AS x FROM orders) WHERE x <> 'y';
-- case: text prefilter of two readers
CREATE TABLE a (id BIGINT) WITH ('connector' = 'blackhole');
CREATE TABLE b (id BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO a SELECT id FROM orders WHERE city = 'Riga' OR city = 'Oslo';
INSERT INTO b SELECT id FROM orders WHERE city IN ('Oslo', 'Rome') AND amount > 1;
-- case: no prefilter if one reader needs all rows
CREATE TABLE a (id BIGINT) WITH ('connector' = 'blackhole');
CREATE TABLE b (id BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO a SELECT id FROM orders WHERE city = 'Riga';
INSERT INTO b SELECT id FROM orders;
-- case: functions of both dialects
CREATE TABLE sink (a STRING, b BIGINT, c STRING, d STRING, e STRING) WITH ('connector' = 'print');
INSERT INTO sink SELECT REGEXP_EXTRACT(city, '(a+)', 1), MOD(id, 7), IF(big, 'y', 'n'), DATE_FORMAT(ts, 'HH:mm'), IFNULL(city, '-')
FROM orders WHERE city LIKE 'R%' AND CHAR_LENGTH(city) > 2 AND COALESCE(amount, 0) BETWEEN 1 AND 2;
-- case: small constants
CREATE TABLE sink (a TINYINT, b INT, c SMALLINT) WITH ('connector' = 'print');
INSERT INTO sink SELECT 1, CASE WHEN big THEN 1 ELSE -1 END, NULL FROM orders;
-- case: Spark's processing time and times from numbers, a view that is replaced
CREATE TABLE sink (city STRING, n BIGINT) WITH ('connector' = 'print');
CREATE OR REPLACE TEMP VIEW v AS SELECT 1 AS one FROM orders;
CREATE OR REPLACE TEMP VIEW v AS SELECT city, current_timestamp() AS p FROM orders WHERE TO_TIMESTAMP_LTZ(raw_ts, 3) > timestamp_seconds(5);
INSERT INTO sink SELECT city, count(*) FROM v GROUP BY city, window(p, '10 seconds');
