CREATE TABLE orders (
  id BIGINT, city STRING, tags MAP<STRING, STRING>, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '10' SECOND
) WITH ('connector' = 'kafka', 'topic' = 'orders', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
CREATE TABLE sink (city STRING, n BIGINT) WITH ('connector' = 'filesystem', 'path' = '/out', 'format' = 'json');
CREATE TABLE hole (city STRING, n BIGINT) WITH ('connector' = 'blackhole');
-- case: order by without a limit
INSERT INTO hole SELECT city, id FROM orders ORDER BY id;
-- case: order by without a limit in a subquery
INSERT INTO hole SELECT city, id FROM (SELECT city, id FROM orders ORDER BY id) WHERE id > 3;
-- case: limit without order by
INSERT INTO hole SELECT city, id FROM orders LIMIT 10;
-- case: fetch
INSERT INTO hole SELECT city, id FROM orders ORDER BY id FETCH FIRST 5 ROWS ONLY;
-- case: limit 0
INSERT INTO hole SELECT city, id FROM orders ORDER BY id LIMIT 0;
-- case: distinct on without an order
INSERT INTO hole SELECT DISTINCT ON (city) city, id FROM orders;
-- case: an updating top-N into a sink of appended rows
INSERT INTO sink SELECT city, id FROM (SELECT city, id, ROW_NUMBER() OVER (PARTITION BY city ORDER BY id) AS r FROM orders) WHERE r <= 3;
-- case: an updating limit into a sink of appended rows
INSERT INTO sink SELECT city, id FROM orders
ORDER BY id LIMIT 3;
-- case: functions over frames into a sink of appended rows
INSERT INTO sink SELECT city, sum(id) OVER (PARTITION BY city ORDER BY id) FROM orders;
-- case: a function that looks ahead into a sink of appended rows
INSERT INTO sink SELECT city, lead(id) OVER (PARTITION BY city ORDER BY ts) FROM orders;
-- case: rows that cannot be ordered
INSERT INTO hole SELECT city, id FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY city ORDER BY id) AS r FROM orders) WHERE r <= 3 AND tags IS NOT NULL;
-- case: a frame that ends before it begins
INSERT INTO hole SELECT city, sum(id) OVER (ORDER BY id ROWS BETWEEN CURRENT ROW AND 1 PRECEDING) FROM orders;
-- case: a filter of a function that takes none
INSERT INTO hole SELECT city, rank() FILTER (WHERE id > 1) OVER (ORDER BY id) FROM orders;
-- case: a window function in WHERE
INSERT INTO hole SELECT city, id FROM orders WHERE row_number() OVER (ORDER BY id) = 1;
-- case: lag with ignore nulls
INSERT INTO hole SELECT city, lag(id) IGNORE NULLS OVER (ORDER BY id) FROM orders;
