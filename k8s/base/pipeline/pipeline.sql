-- The example pipeline: orders from Kafka, counted per city and minute, to Parquet files. Overlays replace it.
SET 'pipeline.name' = 'orders-per-minute';

CREATE TABLE orders (
  id BIGINT, city STRING, cents BIGINT, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
) WITH (
  'connector' = 'kafka', 'topic' = 'orders',
  'properties.bootstrap.servers' = 'kafka-bootstrap.kafka:9092',
  'scan.startup.mode' = 'earliest-offset', 'format' = 'json');

CREATE TABLE per_minute (
  window_start TIMESTAMP(3), city STRING, orders BIGINT, cents BIGINT
) WITH (
  'connector' = 'filesystem', 'path' = 's3://millstream/orders-per-minute', 'format' = 'parquet');

INSERT INTO per_minute
SELECT window_start, city, count(*), sum(cents)
FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
GROUP BY window_start, window_end, city;
