CREATE TABLE orders (id BIGINT, customer BIGINT, city STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '10' SECOND)
WITH ('connector' = 'kafka', 'topic' = 'orders', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
CREATE TABLE customers (id BIGINT, name STRING NOT NULL, city STRING, changed TIMESTAMP(3) METADATA FROM 'timestamp', PRIMARY KEY (id) NOT ENFORCED)
WITH ('connector' = 'upsert-kafka', 'topic' = 'customers', 'properties.bootstrap.servers' = 'localhost:9092', 'key.format' = 'json', 'value.format' = 'json');
CREATE TABLE shop (id BIGINT, name STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
WITH ('connector' = 'kafka', 'topic' = 'shop', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'debezium-json');
CREATE TABLE stock (id BIGINT, n BIGINT, PRIMARY KEY (id) NOT ENFORCED)
WITH ('connector' = 'filesystem', 'path' = '/tmp/stock', 'format' = 'debezium-json');
-- case: a filter on a table of upserts keeps its key and is applied behind it
CREATE TABLE sink (name STRING) WITH ('connector' = 'print');
INSERT INTO sink SELECT name FROM customers WHERE city = 'Bergen';
-- case: joined with a table of upserts into a topic by key
CREATE TABLE sink (id BIGINT, name STRING, changed TIMESTAMP(3), PRIMARY KEY (id) NOT ENFORCED)
WITH ('connector' = 'kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json', 'outputMode' = 'update');
INSERT INTO sink SELECT o.id, c.name, c.changed FROM orders o JOIN customers c ON o.customer = c.id;
-- case: windows of changes
CREATE TABLE sink (n BIGINT) WITH ('connector' = 'print');
INSERT INTO sink SELECT count(*) FROM TABLE(TUMBLE(TABLE shop, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;
-- case: changes by key into a changelog
CREATE TABLE sink (n BIGINT, ids BIGINT, PRIMARY KEY (n) NOT ENFORCED)
WITH ('connector' = 'kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'debezium-json');
INSERT INTO sink SELECT n, count(*) FROM stock GROUP BY n;
-- case: the key of the query is that of the sink
CREATE TABLE sink (city STRING, n BIGINT, PRIMARY KEY (city) NOT ENFORCED)
WITH ('connector' = 'kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
INSERT INTO sink SELECT city, count(*) FROM orders GROUP BY city;
-- case: a changelog of a topic that keeps its records
CREATE TABLE kept (id BIGINT, name STRING, PRIMARY KEY (id) NOT ENFORCED)
WITH ('connector' = 'kafka', 'topic' = 'kept', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json', 'scan.compacted' = 'false');
CREATE TABLE folder (id BIGINT, name STRING) WITH ('connector' = 'filesystem', 'path' = '/tmp/folder', 'format' = 'parquet', 'changelog.column' = 'op');
INSERT INTO folder SELECT id, name FROM kept;
-- case: versions of a table of upserts
CREATE TABLE rates (currency STRING, rate DOUBLE, since TIMESTAMP(3), WATERMARK FOR since AS since - INTERVAL '1' MINUTE, PRIMARY KEY (currency) NOT ENFORCED)
WITH ('connector' = 'upsert-kafka', 'topic' = 'rates', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
CREATE TABLE sink (id BIGINT, rate DOUBLE) WITH ('connector' = 'print');
INSERT INTO sink SELECT o.id, r.rate FROM orders o JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON o.city = r.currency;
