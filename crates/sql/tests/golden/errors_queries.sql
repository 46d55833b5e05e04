CREATE TABLE orders (
  id BIGINT, amount DOUBLE, city STRING, customer ROW<name STRING, age INT>, ts TIMESTAMP(3), created TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '10' SECOND
) WITH ('connector' = 'kafka', 'topic' = 'orders', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
CREATE TABLE sink (city STRING, n BIGINT) WITH ('connector' = 'print');
-- case: unknown column
INSERT INTO sink
SELECT citty, 1 FROM orders;
-- case: unknown column of an alias
INSERT INTO sink SELECT o.city, o.idd FROM orders o;
-- case: unknown field
INSERT INTO sink SELECT customer.nam, 1 FROM orders;
-- case: unknown table
INSERT INTO sink SELECT city, id FROM order;
-- case: unknown function
INSERT INTO sink SELECT uper(city), id FROM orders;
-- case: wrong argument
INSERT INTO sink SELECT city, abs(city) FROM orders;
-- case: unknown sink
INSERT INTO snik SELECT city, id FROM orders;
-- case: writing a view
CREATE VIEW v AS SELECT city FROM orders;
INSERT INTO v SELECT city FROM orders;
-- case: too few columns
INSERT INTO sink SELECT city FROM orders;
-- case: too many columns
INSERT INTO sink (n) SELECT id, city FROM orders;
-- case: unknown column in the list
INSERT INTO sink (city, m) SELECT city, id FROM orders;
-- case: a type that does not fit
INSERT INTO sink
SELECT city,
       amount FROM orders;
-- case: except by name
INSERT INTO sink SELECT city, id FROM orders EXCEPT BY NAME SELECT city, id FROM orders;
-- case: order by
INSERT INTO sink SELECT city, id FROM orders
ORDER BY id;
-- case: limit
INSERT INTO sink SELECT city, id FROM orders LIMIT 10;
-- case: random
INSERT INTO sink SELECT city, CAST(random() * 10 AS BIGINT) FROM orders;
-- case: collect_list
INSERT INTO sink SELECT array_to_string(collect_list(city), ','), count(*) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;
-- case: values
INSERT INTO sink VALUES ('a', 1);
-- case: without a table
INSERT INTO sink SELECT 'a', 1;
-- case: syntax
INSERT INTO sink SELECT city, FROM orders;
-- case: trailing words
INSERT INTO sink SELECT city, id FROM orders o x y;
-- case: window over a column without watermark
INSERT INTO sink (n) SELECT count(*) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(created), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;
-- case: window over a changed time
INSERT INTO sink (n) SELECT count(*) FROM TABLE(TUMBLE((SELECT ts + INTERVAL '1' HOUR AS ts FROM orders), DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;
-- case: window over a number
INSERT INTO sink (n) SELECT count(*) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(id), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;
-- case: window of months
INSERT INTO sink (n) SELECT count(*) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MONTH)) GROUP BY window_start, window_end;
-- case: window without a size
INSERT INTO sink (n) SELECT count(*) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts))) GROUP BY window_start, window_end;
-- case: misspelled window
INSERT INTO sink (n) SELECT count(*) FROM TABLE(TUMBEL(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;
-- case: cumulate that does not divide
INSERT INTO sink (n) SELECT count(*) FROM TABLE(CUMULATE(TABLE orders, DESCRIPTOR(ts), INTERVAL '7' MINUTE, INTERVAL '1' HOUR)) GROUP BY window_start, window_end;
-- case: session keys that differ
INSERT INTO sink SELECT city, count(*) FROM TABLE(SESSION(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY city, window_start, window_end;
-- case: session rows
INSERT INTO sink SELECT city, id FROM TABLE(SESSION(TABLE orders PARTITION BY city, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) WHERE window_start < ts;
-- case: Spark window over an expression
INSERT INTO sink (n) SELECT count(*) FROM orders GROUP BY window(date_trunc('hour', ts), '5 minutes');
-- case: two windows
INSERT INTO sink (n) SELECT count(*) FROM orders GROUP BY window(ts, '5 minutes'), window(ts, '1 minute');
-- case: column that is not grouped
INSERT INTO sink SELECT city, count(*) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;
-- case: mistake inside a view
CREATE VIEW broken AS
SELECT city,
  random() AS n FROM orders;
INSERT INTO sink SELECT city, n FROM broken;
-- case: union of different types
INSERT INTO sink (n) SELECT customer FROM orders UNION ALL SELECT id FROM orders;
-- case: unknown option of a source
CREATE TABLE other (a BIGINT) WITH ('connector' = 'kafka', 'topik' = 't', 'properties.bootstrap.servers' = 'x:1', 'format' = 'json');
INSERT INTO sink (n) SELECT a FROM other;
-- case: missing format
CREATE TABLE other (a BIGINT) WITH ('connector' = 'kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'x:1');
INSERT INTO sink (n) SELECT a FROM other;
-- case: reading a sink
CREATE TABLE other (a BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO sink (n) SELECT a FROM other;
-- case: column of a wrong table
INSERT INTO sink SELECT o.city, orders.id FROM orders o;
-- case: a constant that does not fit
CREATE TABLE small (a TINYINT) WITH ('connector' = 'print');
INSERT INTO small SELECT 300 FROM orders;
-- case: arithmetic of a text
INSERT INTO sink SELECT city, city * 2 FROM orders;
-- case: two columns of one name
CREATE VIEW v AS SELECT id AS x, city AS x FROM orders;
-- case: distinct average of several
INSERT INTO sink (n) SELECT count(DISTINCT id, city) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;
-- case: aggregate in WHERE
INSERT INTO sink SELECT city, id FROM orders WHERE count(*) > 1;
-- case: comparison of a row
INSERT INTO sink SELECT city, id FROM orders WHERE customer > 3;
-- case: filter that is not true or false
INSERT INTO sink SELECT city, id FROM orders WHERE id;
-- case: a window of a window with its columns
INSERT INTO sink (n) SELECT count(*) FROM TABLE(TUMBLE((SELECT * FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE))), DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY window_start, window_end;
-- case: recursive
INSERT INTO sink WITH RECURSIVE r AS (SELECT city, id FROM orders UNION ALL SELECT city, id FROM r) SELECT * FROM r;
-- case: not null column left out
CREATE TABLE strict_sink (a BIGINT NOT NULL, b BIGINT) WITH ('connector' = 'print');
INSERT INTO strict_sink (b) SELECT id FROM orders;
-- case: regular expression
INSERT INTO sink SELECT regexp_extract(city, '(', 1), id FROM orders;
-- case: REGEXP_EXTRACT without a pattern
INSERT INTO sink SELECT regexp_extract(city), id FROM orders;
-- case: date pattern
INSERT INTO sink SELECT DATE_FORMAT(ts, 'YYYY-MM'), id FROM orders;
-- case: option of a table that is not used
CREATE TABLE other (a BIGINT) WITH ('connector' = 'print', 'colour' = 'red');
INSERT INTO sink SELECT city, id FROM orders;
