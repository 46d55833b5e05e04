CREATE TABLE orders (
  id BIGINT, amount DOUBLE, city STRING, customer ROW<name STRING, age INT>, ts TIMESTAMP(3), created TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '10' SECOND
) WITH ('connector' = 'kafka', 'topic' = 'orders', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
CREATE TABLE sink (city STRING, n BIGINT) WITH ('connector' = 'print');
CREATE TABLE folder (city STRING, n BIGINT) WITH ('connector' = 'filesystem', 'path' = '/tmp/folder', 'format' = 'json');
CREATE TABLE topic (city STRING, n BIGINT) WITH ('connector' = 'kafka', 'topic' = 'counts', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
-- case: changes into files
INSERT INTO folder SELECT city, count(*) FROM orders
GROUP BY city;
-- case: changes into a topic without a key
INSERT INTO topic SELECT city, count(*) FROM orders GROUP BY city;
-- case: one changing row into files
INSERT INTO folder (n) SELECT count(*) FROM orders;
-- case: below a filter and a union
INSERT INTO folder SELECT city, id FROM orders UNION ALL SELECT city, n FROM (SELECT city, max(id) AS n FROM orders GROUP BY city) WHERE n > 3;
-- case: distinct of changes into files
INSERT INTO folder SELECT DISTINCT city, n FROM (SELECT city, count(*) AS n FROM orders GROUP BY city);
-- case: sessions of changes
INSERT INTO sink SELECT city, count(*) FROM TABLE(SESSION(TABLE orders PARTITION BY city, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY city;
-- case: distinct on
INSERT INTO sink SELECT DISTINCT ON (city) city, id FROM orders;
-- case: rollup of MySQL
INSERT INTO sink SELECT city, count(*) FROM orders GROUP BY city WITH ROLLUP;
-- case: except into files
INSERT INTO folder SELECT city, id FROM orders EXCEPT SELECT city, id FROM orders WHERE amount > 1;
-- case: early results into files
SET 'emit.early' = '10 s';
INSERT INTO folder SELECT city, count(*) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY city, window_start, window_end;
-- case: a mode of state.ttl
SET 'state.ttl.mode' = 'thaw';
INSERT INTO folder SELECT city, id FROM orders;
-- case: first value in no order
INSERT INTO sink SELECT first_value(city), count(*) FROM orders;
-- case: nth value of a window
INSERT INTO sink SELECT nth_value(city, 2 ORDER BY id), count(*) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;
