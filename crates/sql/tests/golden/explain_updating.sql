CREATE TABLE orders (
  id BIGINT, amount DOUBLE, city STRING, customer ROW<name STRING, age INT>, ts TIMESTAMP(3), created TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '10' SECOND
) WITH ('connector' = 'kafka', 'topic' = 'orders', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
CREATE TABLE sink (city STRING, n BIGINT) WITH ('connector' = 'print');
-- case: one row per key
INSERT INTO sink SELECT city, count(*) FROM orders GROUP BY city;
-- case: one row
INSERT INTO sink (n) SELECT count(*) FROM orders;
-- case: distinct rows
INSERT INTO sink SELECT DISTINCT city, id FROM orders;
-- case: union of distinct rows
INSERT INTO sink SELECT city, id FROM orders UNION SELECT city, id FROM orders;
-- case: grouping sets
INSERT INTO sink SELECT city, count(*) FROM orders GROUP BY GROUPING SETS ((city), ());
-- case: windows aggregated together
INSERT INTO sink SELECT city, count(*) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY city;
-- case: rollup with a name
INSERT INTO sink SELECT city, count(*) FROM orders GROUP BY ROLLUP (city, id) HAVING grouping(id) = 1;
-- case: distinct arguments
INSERT INTO sink SELECT city, count(DISTINCT id) FILTER (WHERE amount > 1) + count(DISTINCT id) FROM orders GROUP BY city;
-- case: an aggregation of an aggregation
INSERT INTO sink SELECT city, max(n) + count(DISTINCT n) FROM (SELECT city, id, count(*) AS n FROM orders GROUP BY city, id) GROUP BY city;
-- case: windows of distinct rows
INSERT INTO sink SELECT city, count(*) FROM TABLE(TUMBLE((SELECT DISTINCT city, ts FROM orders), DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY city, window_start, window_end;
-- case: an upsert sink
CREATE TABLE latest (city STRING, n BIGINT, PRIMARY KEY (city) NOT ENFORCED) WITH ('connector' = 'kafka', 'topic' = 'latest', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
INSERT INTO latest SELECT city, count(*) FROM orders GROUP BY city;
-- case: an upsert sink by another key
CREATE TABLE latest (city STRING, n BIGINT, PRIMARY KEY (n) NOT ENFORCED) WITH ('connector' = 'upsert-kafka', 'topic' = 'latest', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
INSERT INTO latest SELECT city, count(*) FROM orders GROUP BY city;
-- case: ordered values
INSERT INTO sink SELECT array_to_string(array_agg(city ORDER BY ts DESC), ','), CAST(median(id) AS BIGINT) FROM orders;
-- case: the example of the documentation
CREATE TABLE changes (city STRING, orders BIGINT, customers BIGINT, paid DOUBLE, ids ARRAY<BIGINT>) WITH ('connector' = 'blackhole');
INSERT INTO changes
SELECT city, count(*) AS orders, count(DISTINCT customer.name) AS customers, sum(amount) FILTER (WHERE amount > 0) AS paid,
  array_agg(id ORDER BY ts DESC) AS ids
FROM orders GROUP BY city HAVING count(*) > 10;
-- case: windows of an aggregation
CREATE TABLE changes (city STRING, n BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO changes SELECT city, count(*) FROM TABLE(TUMBLE((SELECT city, max(created) AS t FROM orders GROUP BY city), DESCRIPTOR(t), INTERVAL '1' MINUTE)) GROUP BY city, window_start, window_end;
-- case: sessions of an aggregation
CREATE TABLE changes (city STRING, n BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO changes SELECT city, count(*) FROM TABLE(SESSION((SELECT city, id, max(created) AS t FROM orders GROUP BY city, id) PARTITION BY city, DESCRIPTOR(t), INTERVAL '1' MINUTE)) GROUP BY city, window_start, window_end;
-- case: early results
SET 'emit.early' = '10 s';
CREATE TABLE changes (city STRING, n BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO changes SELECT city, count(*) FROM TABLE(HOP(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE)) GROUP BY city, window_start, window_end;
-- case: state that lapses
SET 'state.ttl' = '1 h';
CREATE TABLE changes (city STRING, n BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO changes SELECT city, count(*) FROM orders GROUP BY city;
-- case: distinct rows that lapse
SET 'state.ttl' = '90 min';
SET 'state.ttl.mode' = 'retract';
CREATE TABLE changes (city STRING, n BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO changes SELECT DISTINCT city, id FROM orders;
