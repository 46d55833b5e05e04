CREATE TABLE orders (
  id BIGINT, amount DOUBLE, price DECIMAL(10, 2), city STRING, customer ROW<name STRING, age INT>, tags MAP<STRING, STRING>,
  words ARRAY<STRING>, flag BOOLEAN, `day` DATE, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '10' SECOND
) WITH ('connector' = 'kafka', 'topic' = 'orders', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
CREATE TABLE people (id BIGINT, city STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '10' SECOND)
WITH ('connector' = 'kafka', 'topic' = 'people', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
CREATE TABLE hole (n BIGINT) WITH ('connector' = 'blackhole');
-- case: a query in brackets
INSERT INTO hole (SELECT id FROM orders);
-- case: UNION DISTINCT
INSERT INTO hole SELECT id FROM orders UNION DISTINCT SELECT id FROM people;
-- case: WITH
INSERT INTO hole WITH x AS (SELECT id FROM orders) SELECT id FROM x;
-- case: SELECT of everything but
INSERT INTO hole SELECT * EXCEPT (city, ts) FROM people;
-- case: GROUP BY several grouping sets
INSERT INTO hole SELECT count(*) FROM orders GROUP BY CUBE (city, id), ROLLUP (flag);
-- case: grouping sets in windows
INSERT INTO hole SELECT count(*) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY GROUPING SETS ((city, window_start, window_end), (window_start, window_end));
-- case: LATERAL VIEW
INSERT INTO hole SELECT id FROM orders LATERAL VIEW explode(words) w AS word;
-- case: QUALIFY
INSERT INTO hole SELECT id FROM orders QUALIFY row_number() OVER (ORDER BY id) > amount;
-- case: LATERAL
INSERT INTO hole SELECT o.id FROM orders AS o, LATERAL (SELECT p.id FROM people AS p WHERE p.id = o.id) AS l;
-- case: UNNEST
INSERT INTO hole SELECT o.id FROM orders AS o CROSS JOIN UNNEST(o.words) AS u(word);
-- case: UNNEST in SELECT
INSERT INTO hole SELECT char_length(unnest(words)) FROM orders;
-- case: EXPLODE in SELECT
INSERT INTO hole SELECT char_length(explode(words)) FROM orders;
-- case: a join on the current time
INSERT INTO hole SELECT o.id FROM orders AS o JOIN people AS p ON o.id = p.id AND p.ts > now();
-- case: a join of texts with numbers
INSERT INTO hole SELECT o.id FROM orders AS o JOIN people AS p ON o.id = p.city;
-- case: a join of rows
INSERT INTO hole SELECT o.id FROM orders AS o JOIN orders AS p ON o.customer = p.customer;
-- case: a join without a condition
INSERT INTO hole SELECT o.id FROM orders AS o JOIN people AS p;
-- case: a subquery in ON
INSERT INTO hole SELECT o.id FROM orders AS o JOIN people AS p ON o.id = p.id AND o.id IN (SELECT id FROM people);
-- case: a subquery in HAVING
INSERT INTO hole SELECT count(*) FROM orders GROUP BY city HAVING count(*) > (SELECT count(*) FROM people);
-- case: an approximate aggregate
INSERT INTO hole SELECT approx_distinct(id) FROM orders;
-- case: a median
INSERT INTO hole SELECT CAST(median(id) AS BIGINT) FROM orders;
-- case: DISTINCT of an average
INSERT INTO hole SELECT CAST(avg(DISTINCT amount) AS BIGINT) FROM orders GROUP BY city;
-- case: a rank without an order
INSERT INTO hole SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY city) AS r FROM orders) WHERE r <= 3;
-- case: a frame of months
INSERT INTO hole SELECT sum(id) OVER (ORDER BY ts RANGE BETWEEN INTERVAL '1' MONTH PRECEDING AND CURRENT ROW) FROM orders;
-- case: a range of a text
INSERT INTO hole SELECT sum(id) OVER (ORDER BY city RANGE BETWEEN 1 PRECEDING AND CURRENT ROW) FROM orders;
-- case: DISTINCT in a frame
INSERT INTO hole SELECT count(DISTINCT id) OVER (PARTITION BY city ORDER BY ts) FROM orders;
-- case: array_agg in a frame
INSERT INTO hole SELECT cardinality(array_agg(id) OVER (PARTITION BY city ORDER BY ts)) FROM orders;
-- case: BETWEEN of a text and numbers
INSERT INTO hole SELECT id FROM orders WHERE city BETWEEN 1 AND DATE '2020-01-01';
-- case: bits of a double
INSERT INTO hole SELECT id FROM orders WHERE amount & 3 = 1;
-- case: SIMILAR TO
INSERT INTO hole SELECT id FROM orders WHERE city SIMILAR TO 'a(b|c)';
-- case: ANY of an array
INSERT INTO hole SELECT id FROM orders WHERE city = ANY (words);
-- case: TRY_CAST
INSERT INTO hole SELECT TRY_CAST(city AS BIGINT) FROM orders;
-- case: AT TIME ZONE
INSERT INTO hole SELECT id FROM orders WHERE ts AT TIME ZONE 'Europe/Paris' IS NULL;
-- case: EXTRACT
INSERT INTO hole SELECT CAST(EXTRACT(HOUR FROM ts) AS BIGINT) FROM orders;
-- case: POSITION
INSERT INTO hole SELECT POSITION('a' IN city) FROM orders;
-- case: SUBSTRING
INSERT INTO hole SELECT id FROM orders WHERE SUBSTRING(city FROM 2 FOR 3) = 'a';
-- case: TRIM
INSERT INTO hole SELECT id FROM orders WHERE TRIM(BOTH 'x' FROM city) = 'a';
-- case: OVERLAY
INSERT INTO hole SELECT id FROM orders WHERE OVERLAY(city PLACING 'x' FROM 1 FOR 2) = 'a';
-- case: a hexadecimal literal
INSERT INTO hole SELECT id FROM orders WHERE X'41' IS NULL;
-- case: CASE of a number as a condition
INSERT INTO hole SELECT CASE WHEN city THEN 1 END FROM orders;
-- case: a MAP
INSERT INTO hole SELECT id FROM orders WHERE MAP {'a': 1} IS NULL;
-- case: an ARRAY
INSERT INTO hole SELECT ARRAY[1, id][2] FROM orders;
-- case: a slice
INSERT INTO hole SELECT cardinality(words[1:2]) FROM orders;
-- case: WHERE of null
INSERT INTO hole SELECT id FROM orders WHERE NULL;
-- case: WHERE false
INSERT INTO hole SELECT id FROM orders WHERE false;
-- case: WHERE 1 = 1
INSERT INTO hole SELECT id FROM orders WHERE 1 = 1;
-- case: a comparison of maps
INSERT INTO hole SELECT id FROM orders WHERE tags = tags;
-- case: the smallest array
INSERT INTO hole SELECT cardinality(min(words)) FROM orders;
-- case: the smallest row
INSERT INTO hole SELECT count(*) FROM (SELECT min(customer) AS m FROM orders GROUP BY city) WHERE m IS NULL;
-- case: IS JSON
INSERT INTO hole SELECT id FROM orders WHERE city IS JSON;
-- case: CEIL to a part
INSERT INTO hole SELECT id FROM orders WHERE CEIL(ts TO DAY) IS NULL;
-- case: FLOOR to a part
INSERT INTO hole SELECT id FROM orders WHERE FLOOR(ts TO DAY) IS NULL;
