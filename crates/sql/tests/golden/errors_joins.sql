CREATE TABLE orders (
  id BIGINT, currency STRING, product BIGINT, amount DOUBLE, tags ARRAY<STRING>, items ARRAY<ROW<sku STRING, n INT>>, grid ARRAY<ARRAY<BIGINT>>,
  ts TIMESTAMP(3), p AS PROCTIME(), WATERMARK FOR ts AS ts - INTERVAL '10' SECOND
) WITH ('connector' = 'kafka', 'topic' = 'orders', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
CREATE TABLE rates (
  currency STRING, region STRING, rate DOUBLE, since TIMESTAMP(3), at TIMESTAMP(3),
  PRIMARY KEY (currency, region) NOT ENFORCED, WATERMARK FOR since AS since - INTERVAL '1' MINUTE
) WITH ('connector' = 'kafka', 'topic' = 'rates', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
CREATE TABLE events (
  currency STRING, rate DOUBLE, since TIMESTAMP(3), WATERMARK FOR since AS since - INTERVAL '1' MINUTE
) WITH ('connector' = 'kafka', 'topic' = 'events', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
CREATE TABLE prices (
  id BIGINT, price DOUBLE, PRIMARY KEY (id) NOT ENFORCED
) WITH ('connector' = 'filesystem', 'path' = '/data/prices', 'format' = 'parquet');
CREATE VIEW v AS SELECT * FROM rates;
CREATE TABLE sink (id BIGINT, amount DOUBLE) WITH ('connector' = 'blackhole');
-- case: a time that is no time attribute
INSERT INTO sink SELECT o.id, r.rate FROM orders o
JOIN rates FOR SYSTEM_TIME AS OF o.ts + INTERVAL '1' HOUR AS r ON o.currency = r.currency AND r.region = 'x';
-- case: a table without a watermark
INSERT INTO sink SELECT o.id, r.price FROM orders o
JOIN prices FOR SYSTEM_TIME AS OF o.ts AS r ON o.id = r.id;
-- case: a table without a key
INSERT INTO sink SELECT o.id, r.rate FROM orders o
JOIN events FOR SYSTEM_TIME AS OF o.ts AS r ON o.currency = r.currency;
-- case: a part of the key
INSERT INTO sink SELECT o.id, r.rate FROM orders o
JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON o.currency = r.currency;
-- case: a processing time and no files
INSERT INTO sink SELECT o.id, r.rate FROM orders o
JOIN rates FOR SYSTEM_TIME AS OF o.p AS r ON o.currency = r.currency;
-- case: rows that are taken back
INSERT INTO sink SELECT x.n, r.rate FROM (SELECT currency, count(*) AS n, max(ts) AS ts FROM orders GROUP BY currency) x
JOIN events FOR SYSTEM_TIME AS OF x.ts AS r ON x.currency = r.currency;
-- case: a view
INSERT INTO sink SELECT o.id, r.rate FROM orders o
JOIN v FOR SYSTEM_TIME AS OF o.ts AS r ON o.currency = r.currency;
-- case: the first table
INSERT INTO sink SELECT id, amount FROM orders FOR SYSTEM_TIME AS OF PROCTIME() AS o;
-- case: a full join
INSERT INTO sink SELECT o.id, r.rate FROM orders o FULL JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON o.currency = r.currency;
-- case: using
INSERT INTO sink SELECT o.id, r.rate FROM orders o JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r USING (currency);
-- case: updating rows look up files that grow
INSERT INTO sink SELECT x.n, r.price FROM (SELECT id, count(*) AS n FROM orders GROUP BY id) x
JOIN prices FOR SYSTEM_TIME AS OF PROCTIME() AS r ON x.id = r.id;
-- case: no array
INSERT INTO sink SELECT o.id, u.x FROM orders o CROSS JOIN UNNEST(o.amount) AS u(x);
-- case: too many names
INSERT INTO sink SELECT o.id, u.x FROM orders o CROSS JOIN UNNEST(o.tags) AS u(x, y);
-- case: a condition of a left join
INSERT INTO sink SELECT o.id, u.n FROM orders o LEFT JOIN UNNEST(o.items) AS u ON u.n > 1;
-- case: a right join
INSERT INTO sink SELECT o.id, u.n FROM orders o RIGHT JOIN UNNEST(o.items) AS u ON TRUE;
-- case: alone
INSERT INTO sink SELECT u.x, 1 FROM UNNEST(ARRAY[1, 2]) AS u(x);
-- case: a map function
INSERT INTO sink SELECT id, pos FROM orders LATERAL VIEW posexplode(tags) t AS pos, tag;
-- case: a lateral function
INSERT INTO sink SELECT id, x FROM orders, LATERAL f(id) AS t(x);
-- case: a lateral subquery with a limit
INSERT INTO sink SELECT o.id, x.rate FROM orders o CROSS JOIN LATERAL (SELECT r.rate FROM rates r WHERE r.currency = o.currency ORDER BY r.since DESC LIMIT 1) x;
