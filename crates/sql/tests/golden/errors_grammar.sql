CREATE TABLE orders (
  id BIGINT, amount DOUBLE, price DECIMAL(10, 2), city STRING, customer ROW<name STRING, age INT>, tags MAP<STRING, STRING>,
  words ARRAY<STRING>, flag BOOLEAN, `day` DATE, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '10' SECOND
) WITH ('connector' = 'kafka', 'topic' = 'orders', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
CREATE TABLE people (id BIGINT, city STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '10' SECOND)
WITH ('connector' = 'kafka', 'topic' = 'people', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
CREATE TABLE hole (n BIGINT) WITH ('connector' = 'blackhole');
-- case: VALUES in FROM
INSERT INTO hole SELECT x FROM (VALUES (1), (2)) AS v(x);
-- case: VALUES in a union
INSERT INTO hole SELECT id FROM orders UNION ALL VALUES (1);
-- case: TABLE as a query
INSERT INTO hole TABLE orders;
-- case: a union in brackets with a limit
INSERT INTO hole (SELECT id FROM orders UNION ALL SELECT id FROM people) LIMIT 3;
-- case: UNION BY NAME
INSERT INTO hole SELECT id FROM orders UNION BY NAME SELECT id FROM people;
-- case: UNION ALL BY NAME
INSERT INTO hole SELECT id FROM orders UNION ALL BY NAME SELECT id FROM people;
-- case: UNION of different numbers of columns
INSERT INTO hole SELECT id FROM orders UNION ALL SELECT id, city FROM people;
-- case: INSERT in a query
INSERT INTO hole WITH x AS (INSERT INTO hole SELECT 1) SELECT id FROM x;
-- case: WITH RECURSIVE
INSERT INTO hole WITH RECURSIVE x AS (SELECT id FROM orders UNION ALL SELECT id + 1 FROM x) SELECT id FROM x;
-- case: SELECT without FROM
INSERT INTO hole SELECT 1;
-- case: SELECT without FROM in a subquery
INSERT INTO hole SELECT x FROM (SELECT 1 AS x);
-- case: SELECT of everything
INSERT INTO hole SELECT * FROM people;
-- case: SELECT of everything replaced
INSERT INTO hole SELECT * REPLACE (id + 1 AS id) FROM people;
-- case: SELECT TOP
INSERT INTO hole SELECT TOP 3 id FROM orders;
-- case: SELECT INTO
INSERT INTO hole SELECT id INTO x FROM orders;
-- case: SELECT DISTINCT ON
INSERT INTO hole SELECT DISTINCT ON (city) id FROM orders;
-- case: SELECT AS STRUCT
INSERT INTO hole SELECT AS STRUCT id FROM orders;
-- case: PREWHERE
INSERT INTO hole SELECT id FROM orders PREWHERE id > 1;
-- case: CONNECT BY
INSERT INTO hole SELECT id FROM orders START WITH id = 1 CONNECT BY PRIOR id = amount;
-- case: GROUP BY ALL
INSERT INTO hole SELECT id FROM orders GROUP BY ALL;
-- case: GROUP BY with totals
INSERT INTO hole SELECT count(*) FROM orders GROUP BY city WITH TOTALS;
-- case: GROUP BY a position that is not there
INSERT INTO hole SELECT count(*) FROM orders GROUP BY 3;
-- case: GROUP BY a map
INSERT INTO hole SELECT count(*) FROM orders GROUP BY tags;
-- case: HAVING without an aggregate
INSERT INTO hole SELECT id FROM orders HAVING id > 3;
-- case: CLUSTER BY
INSERT INTO hole SELECT id FROM orders CLUSTER BY id;
-- case: DISTRIBUTE BY
INSERT INTO hole SELECT id FROM orders DISTRIBUTE BY id;
-- case: SORT BY
INSERT INTO hole SELECT id FROM orders SORT BY id;
-- case: a window that is not declared
INSERT INTO hole SELECT sum(id) OVER w FROM orders;
-- case: ORDER BY
INSERT INTO hole SELECT id FROM orders ORDER BY id;
-- case: ORDER BY ALL
INSERT INTO hole SELECT id FROM orders ORDER BY ALL LIMIT 3;
-- case: LIMIT
INSERT INTO hole SELECT id FROM orders LIMIT 3;
-- case: LIMIT in a subquery
INSERT INTO hole SELECT id FROM (SELECT id FROM orders LIMIT 3) AS x;
-- case: LIMIT of an expression
INSERT INTO hole SELECT id FROM orders ORDER BY id LIMIT id;
-- case: a negative LIMIT
INSERT INTO hole SELECT id FROM orders ORDER BY id LIMIT -1;
-- case: LIMIT BY
INSERT INTO hole SELECT id FROM orders ORDER BY id LIMIT 1 BY city;
-- case: LIMIT 0
INSERT INTO hole SELECT id FROM orders ORDER BY id LIMIT 0;
-- case: OFFSET
INSERT INTO hole SELECT id FROM orders OFFSET 3;
-- case: FETCH
INSERT INTO hole SELECT id FROM orders ORDER BY id FETCH FIRST 3 ROWS WITH TIES;
-- case: FOR UPDATE
INSERT INTO hole SELECT id FROM orders FOR UPDATE;
-- case: FOR JSON
INSERT INTO hole SELECT id FROM orders FOR JSON AUTO;
-- case: SETTINGS
INSERT INTO hole SELECT id FROM orders SETTINGS a = 1;
-- case: FORMAT
INSERT INTO hole SELECT id FROM orders FORMAT JSON;
-- case: pipes
INSERT INTO hole SELECT id FROM orders |> WHERE id > 3;
-- case: TABLESAMPLE
INSERT INTO hole SELECT id FROM orders TABLESAMPLE (10 PERCENT);
-- case: a table of a database
INSERT INTO hole SELECT id FROM db.orders;
-- case: a partition of a table
INSERT INTO hole SELECT id FROM orders PARTITION (p0);
-- case: a table with arguments
INSERT INTO hole SELECT id FROM orders(1);
-- case: a table function that is none
INSERT INTO hole SELECT x FROM generate_series(1, 3) AS t(x);
-- case: TABLE of a function that is none
INSERT INTO hole SELECT x FROM TABLE(generate_series(1, 3)) AS t(x);
-- case: LATERAL of a function
INSERT INTO hole SELECT o.id FROM orders AS o, LATERAL TABLE(explode(words)) AS l(w);
-- case: JSON_TABLE
INSERT INTO hole SELECT x FROM orders, JSON_TABLE(city, '$[*]' COLUMNS (x INT PATH '$')) AS t;
-- case: XMLTABLE
INSERT INTO hole SELECT x FROM XMLTABLE('/a' PASSING '<a/>' COLUMNS x INT PATH '.');
-- case: PIVOT
INSERT INTO hole SELECT * FROM orders PIVOT (sum(id) FOR city IN ('a', 'b'));
-- case: UNPIVOT
INSERT INTO hole SELECT * FROM orders UNPIVOT (x FOR y IN (id, amount));
-- case: ASOF JOIN
INSERT INTO hole SELECT o.id FROM orders AS o ASOF JOIN people AS p MATCH_CONDITION (o.ts >= p.ts) ON o.id = p.id;
-- case: CROSS APPLY
INSERT INTO hole SELECT o.id FROM orders AS o CROSS APPLY people AS p;
-- case: STRAIGHT_JOIN
INSERT INTO hole SELECT o.id FROM orders AS o STRAIGHT_JOIN people AS p ON o.id = p.id;
-- case: a join of maps
INSERT INTO hole SELECT o.id FROM orders AS o JOIN orders AS p ON o.tags = p.tags;
-- case: a join using a column of one side
INSERT INTO hole SELECT o.id FROM orders AS o JOIN people AS p USING (amount);
-- case: IN with two columns
INSERT INTO hole SELECT id FROM orders WHERE (id, city) IN (SELECT id, city FROM people);
-- case: IN of two columns
INSERT INTO hole SELECT id FROM orders WHERE id IN (SELECT id, city FROM people);
-- case: NOT IN
INSERT INTO hole SELECT id FROM orders WHERE id NOT IN (SELECT id FROM people);
-- case: IN or
INSERT INTO hole SELECT id FROM orders WHERE id > 3 OR id IN (SELECT id FROM people);
-- case: EXISTS in SELECT
INSERT INTO hole SELECT CASE WHEN EXISTS (SELECT 1 FROM people AS p WHERE p.id = o.id) THEN 1 ELSE 0 END FROM orders AS o;
-- case: EXISTS with a limit
INSERT INTO hole SELECT id FROM orders AS o WHERE EXISTS (SELECT 1 FROM people AS p WHERE p.id = o.id LIMIT 1);
-- case: a subquery of several rows
INSERT INTO hole SELECT (SELECT id FROM people) FROM orders;
-- case: a correlated subquery of several rows
INSERT INTO hole SELECT (SELECT p.id FROM people AS p WHERE p.id = o.id) FROM orders AS o;
-- case: a subquery of two columns
INSERT INTO hole SELECT (SELECT max(id), max(city) FROM people) FROM orders;
-- case: a subquery that compares by less
INSERT INTO hole SELECT (SELECT max(p.id) FROM people AS p WHERE p.id < o.id) FROM orders AS o;
-- case: ANY
INSERT INTO hole SELECT id FROM orders WHERE id = ANY (SELECT id FROM people);
-- case: ALL
INSERT INTO hole SELECT id FROM orders WHERE id > ALL (SELECT id FROM people);
-- case: a subquery in GROUP BY
INSERT INTO hole SELECT count(*) FROM orders GROUP BY (SELECT max(id) FROM people);
-- case: a subquery in an aggregate
INSERT INTO hole SELECT sum((SELECT max(id) FROM people)) FROM orders;
-- case: an aggregate in an aggregate
INSERT INTO hole SELECT sum(count(*)) FROM orders GROUP BY city;
-- case: an aggregate in WHERE
INSERT INTO hole SELECT id FROM orders WHERE sum(id) > 3;
-- case: an aggregate that is none
INSERT INTO hole SELECT summ(id) FROM orders;
-- case: an aggregate of too many arguments
INSERT INTO hole SELECT sum(id, id) FROM orders;
-- case: a sum of texts
INSERT INTO hole SELECT sum(city) FROM orders;
-- case: lag of a column's distance
INSERT INTO hole SELECT lag(id, id) OVER (ORDER BY ts) FROM orders;
-- case: OVER in OVER
INSERT INTO hole SELECT sum(sum(id) OVER (ORDER BY ts)) OVER (ORDER BY ts) FROM orders;
-- case: OVER in GROUP BY
INSERT INTO hole SELECT count(*) FROM orders GROUP BY row_number() OVER (ORDER BY ts);
-- case: OVER a map
INSERT INTO hole SELECT sum(id) OVER (PARTITION BY tags ORDER BY ts) FROM orders;
-- case: random
INSERT INTO hole SELECT id FROM orders WHERE random() > 0.5;
-- case: uuid
INSERT INTO hole SELECT id FROM orders WHERE uuid() > city;
-- case: the current time of day
INSERT INTO hole SELECT id FROM orders WHERE CURRENT_TIME IS NULL;
-- case: IS TRUE of a number
INSERT INTO hole SELECT id FROM orders WHERE id IS TRUE;
-- case: IS NORMALIZED
INSERT INTO hole SELECT id FROM orders WHERE city IS NFC NORMALIZED;
-- case: IN UNNEST
INSERT INTO hole SELECT id FROM orders WHERE city IN UNNEST(words);
-- case: addition of a flag
INSERT INTO hole SELECT id + flag FROM orders;
-- case: power with a star
INSERT INTO hole SELECT id ** 2 FROM orders;
-- case: a custom operator
INSERT INTO hole SELECT id FROM orders WHERE id OPERATOR(pg_catalog.+) 1 > 2;
-- case: LIKE of a number
INSERT INTO hole SELECT id FROM orders WHERE id LIKE 'a%';
-- case: LIKE with an escape
INSERT INTO hole SELECT id FROM orders WHERE city LIKE 'a!%' ESCAPE '!';
-- case: SIMILAR TO with an escape
INSERT INTO hole SELECT id FROM orders WHERE city SIMILAR TO 'a' ESCAPE '!';
-- case: a regular expression that is none
INSERT INTO hole SELECT id FROM orders WHERE city ~ '(';
-- case: a factorial
INSERT INTO hole SELECT id! FROM orders;
-- case: CONVERT
INSERT INTO hole SELECT CONVERT(city, SIGNED) FROM orders;
-- case: a cast to a type that is none
INSERT INTO hole SELECT CAST(city AS NUMBERS) FROM orders;
-- case: a cast that is not possible
INSERT INTO hole SELECT CAST(customer AS BIGINT) FROM orders;
-- case: a cast with a format
INSERT INTO hole SELECT id FROM orders WHERE CAST(city AS DATE FORMAT 'YYYY') IS NULL;
-- case: COLLATE
INSERT INTO hole SELECT id FROM orders WHERE city COLLATE "de_DE" = 'a';
-- case: a prefixed literal
INSERT INTO hole SELECT id FROM orders WHERE city = _utf8'a';
-- case: a typed literal that is wrong
INSERT INTO hole SELECT id FROM orders WHERE `day` = DATE '2020-13-01';
-- case: a number that is too large
INSERT INTO hole SELECT 99999999999999999999999999999999999999999999 FROM orders;
-- case: a placeholder
INSERT INTO hole SELECT id FROM orders WHERE id = $1;
-- case: another placeholder
INSERT INTO hole SELECT id FROM orders WHERE id = ?;
-- case: a variable
INSERT INTO hole SELECT @x FROM orders;
-- case: CASE of different types
INSERT INTO hole SELECT CASE WHEN flag THEN id ELSE customer END FROM orders;
-- case: a tuple
INSERT INTO hole SELECT (id, city) FROM orders;
-- case: a STRUCT
INSERT INTO hole SELECT STRUCT(id AS a).a FROM orders;
-- case: a dictionary
INSERT INTO hole SELECT {'a': id} FROM orders;
-- case: an ARRAY of different types
INSERT INTO hole SELECT id FROM orders WHERE ARRAY[1, customer] IS NULL;
-- case: an element of a number
INSERT INTO hole SELECT id[1] FROM orders;
-- case: an interval that is none
INSERT INTO hole SELECT id FROM orders WHERE ts > ts + INTERVAL '3' LUNCHES;
-- case: an interval without a number
INSERT INTO hole SELECT id FROM orders WHERE ts > ts + INTERVAL 'x' DAY;
-- case: a timestamp times two
INSERT INTO hole SELECT id FROM orders WHERE ts * 2 IS NULL;
-- case: a timestamp compared with a number
INSERT INTO hole SELECT id FROM orders WHERE ts > 5;
-- case: MATCH AGAINST
INSERT INTO hole SELECT id FROM orders WHERE MATCH (city) AGAINST ('a');
-- case: an old outer join
INSERT INTO hole SELECT o.id FROM orders o, people p WHERE o.id = p.id (+);
-- case: MEMBER OF
INSERT INTO hole SELECT id FROM orders WHERE city MEMBER OF (words);
-- case: a star of a table that is not there
INSERT INTO hole SELECT x.* FROM orders;
-- case: a column of two tables
INSERT INTO hole SELECT id FROM orders, people WHERE orders.id = people.id;
-- case: a table twice
INSERT INTO hole SELECT orders.id FROM orders, orders;
-- case: a function with a named argument
INSERT INTO hole SELECT abs(x => id) FROM orders;
-- case: a function of too few arguments
INSERT INTO hole SELECT abs() FROM orders;
-- case: a function of too many arguments
INSERT INTO hole SELECT abs(id, 2) FROM orders;
-- case: a function of a database
INSERT INTO hole SELECT db.abs(id) FROM orders;
-- case: WHERE of a number
INSERT INTO hole SELECT id FROM orders WHERE id;
-- case: DISTINCT of maps
INSERT INTO hole SELECT id FROM (SELECT DISTINCT id, tags FROM orders) WHERE tags IS NULL;
-- case: the smallest map
INSERT INTO hole SELECT count(*) FROM (SELECT min(tags) AS m FROM orders GROUP BY city) WHERE m IS NULL;
-- case: nothing after WHERE
INSERT INTO hole SELECT id FROM orders WHERE;
-- case: a bracket too many
INSERT INTO hole SELECT id FROM orders WHERE (id > 3));
-- case: two queries
INSERT INTO hole SELECT id FROM orders SELECT id FROM people;
-- case: a reserved word
INSERT INTO hole SELECT select FROM orders;
