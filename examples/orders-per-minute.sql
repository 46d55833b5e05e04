-- Orders of a Kafka topic, summed per city and minute, as Parquet files in a bucket.
SET 'pipeline.name' = 'orders-per-minute';
SET 'checkpointLocation' = 's3://orders/checkpoints/per-minute';

CREATE TABLE orders (
  id BIGINT, city STRING, cents BIGINT, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
) WITH (
  'connector' = 'kafka', 'topic' = 'orders',
  'properties.bootstrap.servers' = 'localhost:9092',
  'scan.startup.mode' = 'earliest-offset', 'format' = 'json');

CREATE TABLE per_minute (
  window_start TIMESTAMP(3), city STRING, orders BIGINT, cents BIGINT
) WITH (
  'connector' = 'filesystem', 'path' = 's3://orders/per-minute', 'format' = 'parquet');

INSERT INTO per_minute
SELECT window_start, city, count(*), sum(cents)
FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
GROUP BY window_start, window_end, city;
