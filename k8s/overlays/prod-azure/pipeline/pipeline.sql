-- Replace it by your own. The user and the password of the brokers are variables, from the secret `millstream-kafka`.
SET 'pipeline.name' = 'orders-per-minute';

CREATE TABLE orders (
  id BIGINT, city STRING, cents BIGINT, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
) WITH (
  'connector' = 'kafka', 'topic' = 'orders',
  'properties.bootstrap.servers' = 'kafka.example.com:9094',
  'properties.security.protocol' = 'SASL_SSL', 'properties.sasl.mechanism' = 'SCRAM-SHA-512',
  'properties.sasl.username' = '${env:KAFKA_USERNAME}', 'properties.sasl.password' = '${env:KAFKA_PASSWORD}',
  'scan.startup.mode' = 'earliest-offset', 'format' = 'json');

CREATE TABLE per_minute (
  window_start TIMESTAMP(3), city STRING, orders BIGINT, cents BIGINT
) WITH (
  'connector' = 'filesystem', 'path' = 'abfss://millstream@examplemillstream.dfs.core.windows.net/orders-per-minute', 'format' = 'parquet');

INSERT INTO per_minute
SELECT window_start, city, count(*), sum(cents)
FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
GROUP BY window_start, window_end, city;
