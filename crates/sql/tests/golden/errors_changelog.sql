CREATE TABLE orders (id BIGINT, city STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '10' SECOND)
WITH ('connector' = 'kafka', 'topic' = 'orders', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
CREATE TABLE customers (id BIGINT, name STRING, PRIMARY KEY (id) NOT ENFORCED)
WITH ('connector' = 'upsert-kafka', 'topic' = 'customers', 'properties.bootstrap.servers' = 'localhost:9092', 'key.format' = 'json', 'value.format' = 'json');
CREATE TABLE shop (id BIGINT, name STRING)
WITH ('connector' = 'kafka', 'topic' = 'shop', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'debezium-json');
-- case: a table of upserts into files
CREATE TABLE folder (id BIGINT, name STRING) WITH ('connector' = 'filesystem', 'path' = '/tmp/folder', 'format' = 'json');
INSERT INTO folder SELECT id, name FROM customers WHERE id > 3;
-- case: changes of a database into a topic without a key
CREATE TABLE topic (id BIGINT, name STRING) WITH ('connector' = 'kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
INSERT INTO topic SELECT id, name FROM shop;
-- case: a changelog without a key
CREATE TABLE topic (city STRING, n BIGINT) WITH ('connector' = 'kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'debezium-json');
INSERT INTO topic SELECT city, count(*) FROM orders GROUP BY city;
-- case: a changelog of a topic that may be compacted
CREATE TABLE topic (name STRING, n BIGINT, PRIMARY KEY (name) NOT ENFORCED)
WITH ('connector' = 'kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'debezium-json');
INSERT INTO topic SELECT name, count(*) FROM customers GROUP BY name;
-- case: files of changes of a topic that may be compacted
CREATE TABLE folder (id BIGINT, name STRING) WITH ('connector' = 'filesystem', 'path' = '/tmp/folder', 'format' = 'json', 'changelog.column' = 'op');
INSERT INTO folder SELECT id, name FROM customers;
-- case: append mode
CREATE TABLE sink (city STRING, n BIGINT) WITH ('connector' = 'print', 'outputMode' = 'append');
INSERT INTO sink SELECT city, count(*) FROM orders GROUP BY city;
-- case: complete mode
CREATE TABLE sink (city STRING, n BIGINT) WITH ('connector' = 'print', 'outputMode' = 'complete');
INSERT INTO sink SELECT city, count(*) FROM orders GROUP BY city;
-- case: update mode without a key
CREATE TABLE topic (city STRING, n BIGINT) WITH ('connector' = 'kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json', 'outputMode' = 'update');
INSERT INTO topic SELECT city, count(*) FROM orders GROUP BY city;
-- case: an unknown mode
CREATE TABLE sink (city STRING, n BIGINT) WITH ('connector' = 'print', 'outputMode' = 'updates');
INSERT INTO sink SELECT city, count(*) FROM orders GROUP BY city;
-- case: upsert-kafka without a key
CREATE TABLE t (id BIGINT) WITH ('connector' = 'upsert-kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
CREATE TABLE sink (id BIGINT) WITH ('connector' = 'print');
INSERT INTO sink SELECT id FROM t;
-- case: upsert-kafka of changes
CREATE TABLE t (id BIGINT, PRIMARY KEY (id) NOT ENFORCED)
WITH ('connector' = 'upsert-kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'debezium-json');
CREATE TABLE sink (id BIGINT) WITH ('connector' = 'print');
INSERT INTO sink SELECT id FROM t;
-- case: a key that is not in the record
CREATE TABLE t (id BIGINT, k AS id + 1, PRIMARY KEY (k) NOT ENFORCED)
WITH ('connector' = 'upsert-kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
CREATE TABLE sink (id BIGINT) WITH ('connector' = 'print');
INSERT INTO sink SELECT id FROM t;
-- case: a map by key
CREATE TABLE t (id BIGINT, tags MAP<STRING, STRING>, PRIMARY KEY (id) NOT ENFORCED)
WITH ('connector' = 'upsert-kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
CREATE TABLE sink (id BIGINT, tags MAP<STRING, STRING>) WITH ('connector' = 'print');
INSERT INTO sink SELECT id, tags FROM t;
-- case: a column called as that of the changes
CREATE TABLE folder (op BIGINT, name STRING) WITH ('connector' = 'filesystem', 'path' = '/tmp/folder', 'format' = 'json', 'changelog.column' = 'op');
INSERT INTO folder SELECT id, name FROM shop;
-- case: versions of a table that is also read by its key
CREATE TABLE rates (currency STRING, rate DOUBLE, since TIMESTAMP(3), WATERMARK FOR since AS since - INTERVAL '1' MINUTE, PRIMARY KEY (currency) NOT ENFORCED)
WITH ('connector' = 'upsert-kafka', 'topic' = 'rates', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
CREATE TABLE sink (id BIGINT, rate DOUBLE) WITH ('connector' = 'print');
CREATE TABLE latest (rate DOUBLE) WITH ('connector' = 'print');
INSERT INTO latest SELECT rate FROM rates;
INSERT INTO sink SELECT o.id, r.rate FROM orders o JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON o.city = r.currency;
-- case: a lookup in rows that change
CREATE TABLE stock (id BIGINT, n BIGINT, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = '/tmp/stock', 'format' = 'debezium-json');
CREATE TABLE sink (id BIGINT, n BIGINT) WITH ('connector' = 'print');
INSERT INTO sink SELECT o.id, s.n FROM orders o JOIN stock FOR SYSTEM_TIME AS OF PROCTIME() AS s ON o.id = s.id;
