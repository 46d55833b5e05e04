CREATE TABLE orders (
  id BIGINT, currency STRING, product BIGINT, amount DOUBLE, tags ARRAY<STRING>, items ARRAY<ROW<sku STRING, n INT>>,
  ts TIMESTAMP(3), p AS PROCTIME(), WATERMARK FOR ts AS ts - INTERVAL '10' SECOND
) WITH ('connector' = 'kafka', 'topic' = 'orders', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
CREATE TABLE rates (
  currency STRING, rate DOUBLE, since TIMESTAMP(3), note STRING,
  PRIMARY KEY (currency) NOT ENFORCED, WATERMARK FOR since AS since - INTERVAL '1' MINUTE
) WITH ('connector' = 'kafka', 'topic' = 'rates', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
CREATE TABLE products (
  id BIGINT, name STRING, price DOUBLE
) WITH ('connector' = 'filesystem', 'path' = '/data/products', 'format' = 'parquet', 'source.monitor' = 'false');
CREATE TABLE prices (
  id BIGINT, price DOUBLE, PRIMARY KEY (id) NOT ENFORCED
) WITH ('connector' = 'filesystem', 'path' = '/data/prices', 'format' = 'parquet', 'source.monitor-interval' = '1 min');
CREATE TABLE sink (id BIGINT, name STRING, amount DOUBLE) WITH ('connector' = 'blackhole');
-- case: files that are read once
INSERT INTO sink SELECT o.id, p.name, o.amount FROM orders o JOIN products p ON o.product = p.id WHERE p.price > 10;
-- case: files on the left
INSERT INTO sink SELECT o.id, p.name, o.amount FROM products p RIGHT JOIN orders o ON o.product = p.id AND o.amount > p.price;
-- case: files that grow, the last row of each key
INSERT INTO sink SELECT o.id, o.currency, o.amount * p.price FROM orders o LEFT JOIN prices FOR SYSTEM_TIME AS OF o.p AS p ON o.product = p.id;
-- case: files that grow, without system time
INSERT INTO sink SELECT o.id, o.currency, o.amount * p.price FROM orders o JOIN prices p ON o.product = p.id;
-- case: a lookup before a window
INSERT INTO sink SELECT count(*), name, sum(amount) FROM TABLE(TUMBLE((SELECT o.ts, o.amount, p.name FROM orders o JOIN products p ON o.product = p.id), DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, name;
-- case: the version that is valid at a time
INSERT INTO sink SELECT o.id, r.note, o.amount * r.rate FROM orders o JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON o.currency = r.currency;
-- case: conditions on the version
INSERT INTO sink SELECT o.id, r.note, o.amount * r.rate FROM orders o LEFT JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON o.currency = r.currency AND r.rate > o.amount AND r.note <> '';
-- case: unnest
INSERT INTO sink SELECT o.id, u.tag, o.amount FROM orders o CROSS JOIN UNNEST(o.tags) AS u(tag) WHERE u.tag <> '';
-- case: unnest rows, also of none
INSERT INTO sink SELECT o.id, i.sku, o.amount * i.n FROM orders o LEFT JOIN UNNEST(o.items) AS i ON TRUE;
-- case: lateral view
INSERT INTO sink SELECT id, tag, amount FROM orders LATERAL VIEW OUTER explode(tags) t AS tag;
-- case: a lateral subquery
INSERT INTO sink SELECT o.id, x.note, o.amount FROM orders o CROSS JOIN LATERAL (SELECT r.note FROM rates r WHERE r.currency = o.currency) x;
