CREATE TABLE orders (
  id BIGINT NOT NULL, amount DOUBLE, city STRING, tags MAP<STRING, STRING>, ts TIMESTAMP(3),
  kafka_ts TIMESTAMP(3) METADATA FROM 'timestamp', `partition` INT METADATA VIRTUAL,
  proc AS PROCTIME(),
  WATERMARK FOR ts AS ts - INTERVAL '10' SECOND
) WITH (
  'connector' = 'kafka', 'topic' = 'orders', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json',
  'watermark.idle-timeout' = '30 s');
CREATE TABLE refunds (id BIGINT, amount DOUBLE, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' MINUTE)
WITH ('connector' = 'kafka', 'topic' = 'refunds', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
-- case: Spark's window in GROUP BY
CREATE TABLE sink (s TIMESTAMP(3), e TIMESTAMP(3), city STRING, total DOUBLE) WITH ('connector' = 'print');
INSERT INTO sink SELECT window.start, window.end, city, sum(amount) FROM orders WHERE amount > 0 GROUP BY window(ts, '5 minutes'), city;
-- case: Spark's sliding window with a start, whole window selected
CREATE TABLE sink (w ROW<`start` TIMESTAMP(3), `end` TIMESTAMP(3)>, n BIGINT) WITH ('connector' = 'print');
INSERT INTO sink SELECT window(ts, '10 minutes', '5 minutes', '1 minute') AS w, count(*) FROM orders o GROUP BY w;
-- case: Spark's session_window
CREATE TABLE sink (city STRING, s TIMESTAMP(3), n BIGINT) WITH ('connector' = 'print');
INSERT INTO sink SELECT city, session_window.start, count(*) FROM orders GROUP BY session_window(ts, '30 seconds'), city;
-- case: Flink's older group windows
CREATE TABLE sink (s TIMESTAMP(3), e TIMESTAMP(3), n BIGINT) WITH ('connector' = 'print');
INSERT INTO sink SELECT TUMBLE_START(ts, INTERVAL '1' HOUR), TUMBLE_END(ts, INTERVAL '1' HOUR), count(*) FROM orders
GROUP BY TUMBLE(ts, INTERVAL '1' HOUR);
-- case: named arguments, CUMULATE, an offset
CREATE TABLE sink (s TIMESTAMP(3), n BIGINT) WITH ('connector' = 'print');
INSERT INTO sink SELECT window_start, count(*)
FROM TABLE(CUMULATE(DATA => TABLE orders, TIMECOL => DESCRIPTOR(ts), STEP => INTERVAL '1' HOUR, SIZE => INTERVAL '1' DAY, OFFSET => INTERVAL '30' MINUTE))
GROUP BY window_start, window_end;
-- case: rows in their windows, without an aggregation
CREATE TABLE sink (id BIGINT, s TIMESTAMP(3), e TIMESTAMP(3)) WITH ('connector' = 'print');
INSERT INTO sink SELECT id, window_start, window_end FROM TABLE(HOP(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '2' MINUTES)) WHERE amount > 1;
-- case: a union of two tables closes windows by the lower watermark
CREATE TABLE sink (s TIMESTAMP(3), n BIGINT, total DOUBLE) WITH ('connector' = 'print');
CREATE VIEW moves AS SELECT id, amount, ts FROM orders UNION ALL SELECT id, -amount, ts FROM refunds;
INSERT INTO sink SELECT window_start, count(*), sum(amount) FROM TABLE(TUMBLE(TABLE moves, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;
-- case: minutes into hours by window_time
CREATE TABLE sink (s TIMESTAMP(3), city STRING, peak DOUBLE) WITH ('connector' = 'print');
CREATE VIEW per_minute AS SELECT window_time AS rowtime, city, sum(amount) AS total
FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, window_time, city;
INSERT INTO sink SELECT window_start, city, max(total) FROM TABLE(TUMBLE(TABLE per_minute, DESCRIPTOR(rowtime), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, city;
-- case: metadata and a key of an upsert sink
CREATE TABLE sink (city STRING, n BIGINT, PRIMARY KEY (city) NOT ENFORCED)
WITH ('connector' = 'upsert-kafka', 'topic' = 'per-city', 'properties.bootstrap.servers' = 'localhost:9092', 'key.format' = 'json', 'value.format' = 'json');
INSERT INTO sink (n, city) SELECT count(*), city FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(proc), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, city;
-- case: metadata columns and a map
CREATE TABLE sink (id BIGINT, t TIMESTAMP(3), p INT, lang STRING, today DATE) WITH ('connector' = 'print');
INSERT INTO sink SELECT id, kafka_ts, `partition`, tags['lang'], CURRENT_DATE FROM orders WHERE ts > CURRENT_TIMESTAMP - INTERVAL '1' DAY;
-- case: names in any case, WITH, CASE, IN
CREATE TABLE sink (id BIGINT, `label` STRING) WITH ('connector' = 'print');
INSERT INTO SINK WITH big AS (SELECT ID, CITY FROM ORDERS WHERE Amount >= 100)
SELECT Id, CASE WHEN City IN ('Riga', 'Oslo', 'Rome', 'Bern', 'Kyiv') THEN 'known' ELSE 'other' END FROM BIG;
-- case: a filter on the window waits for the aggregation
CREATE TABLE sink (s TIMESTAMP(3), n BIGINT) WITH ('connector' = 'print');
INSERT INTO sink SELECT window_start, count(*) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
WHERE window_start > TIMESTAMP '2020-01-01 00:00:00' AND amount > 5 GROUP BY window_start, window_end;
-- case: a filter on rows and their window needs the rows in their windows
CREATE TABLE sink (s TIMESTAMP(3), n BIGINT) WITH ('connector' = 'print');
INSERT INTO sink SELECT window_start, count(*) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
WHERE ts - window_start < INTERVAL '10' SECOND GROUP BY window_start, window_end;
