CREATE TABLE orders (
  id BIGINT, amount DOUBLE, city STRING, customer ROW<name STRING, age INT>, ts TIMESTAMP(3), created TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '10' SECOND
) WITH ('connector' = 'kafka', 'topic' = 'orders', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
CREATE TABLE sink (city STRING, n BIGINT) WITH ('connector' = 'print');
-- case: json path
INSERT INTO sink SELECT JSON_VALUE(city, '$..a'), id FROM orders;
-- case: json clauses in the wrong order
INSERT INTO sink SELECT JSON_VALUE(city, '$.a' NULL ON ERROR NULL ON EMPTY), id FROM orders;
-- case: json type
INSERT INTO sink SELECT JSON_VALUE(city, '$.a' RETURNING DATE), id FROM orders;
-- case: json query as an array
INSERT INTO sink SELECT JSON_QUERY(city, '$.a' RETURNING ARRAY<STRING>), id FROM orders;
-- case: from_json with a schema of a column
INSERT INTO sink SELECT to_json(from_json(city, city)), id FROM orders;
-- case: current watermark
INSERT INTO sink SELECT city, id FROM orders WHERE ts > CURRENT_WATERMARK(ts);
-- case: unit of time
INSERT INTO sink SELECT city, TIMESTAMPDIFF(FORTNIGHT, ts, created) FROM orders;
-- case: shuffle
INSERT INTO sink SELECT array_to_string(shuffle(ARRAY[city]), ','), id FROM orders;
-- case: randn
SET 'sql.dialect' = 'spark';
INSERT INTO sink SELECT city, CAST(randn() AS BIGINT) FROM orders;
-- case: a pattern of dates in dialect spark
SET 'sql.dialect' = 'spark';
INSERT INTO sink SELECT city, unix_timestamp(city, 'yyyy-ww') FROM orders;
-- case: time zone
SET 'table.local-time-zone' = 'Berlin';
INSERT INTO sink SELECT city, id FROM orders;
-- case: dialect
SET 'sql.dialect' = 'hive';
INSERT INTO sink SELECT city, id FROM orders;

-- case: a field of EXTRACT that is none
INSERT INTO sink SELECT city, EXTRACT(LUNCH FROM ts) FROM orders;
-- case: a division that fails for every row
INSERT INTO sink SELECT city, 1 / 0 FROM orders;
-- case: a time zone that is none
INSERT INTO sink SELECT CAST(ts AT TIME ZONE 'Mars/Olympus' AS STRING), 1 FROM orders;
-- case: DISTINCT in a function of one row
INSERT INTO sink SELECT city, abs(DISTINCT id) FROM orders;
-- case: FILTER of a function of one row
INSERT INTO sink SELECT city, abs(id) FILTER (WHERE id > 0) FROM orders;
