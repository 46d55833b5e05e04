CREATE TABLE orders (
  id BIGINT, amount DOUBLE, city STRING, customer ROW<name STRING, age INT>, ts TIMESTAMP(3), created TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '10' SECOND
) WITH ('connector' = 'kafka', 'topic' = 'orders', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
CREATE TABLE sink (city STRING, n BIGINT) WITH ('connector' = 'print');
CREATE TABLE folder (city STRING, n BIGINT) WITH ('connector' = 'filesystem', 'path' = '/tmp/folder', 'format' = 'json');
-- case: intersect into files
INSERT INTO folder SELECT city, id FROM orders WHERE amount > 1 INTERSECT SELECT city, id FROM orders WHERE amount < 9;
-- case: except all of another type
INSERT INTO sink SELECT city, id FROM orders EXCEPT ALL SELECT customer.name, customer.age FROM orders;
-- case: intersect of windows
INSERT INTO sink (city)
SELECT city FROM (
  SELECT city, window_start, window_end, window_time FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY city, window_start, window_end, window_time
  INTERSECT
  SELECT customer.name, window_start, window_end, window_time FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY customer.name, window_start, window_end, window_time);
