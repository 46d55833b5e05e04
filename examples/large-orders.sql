-- The large orders of one Kafka topic, copied to another: each exactly once, whatever is killed meanwhile.
SET 'pipeline.name' = 'large-orders';

CREATE TABLE orders (
  id BIGINT, customer BIGINT, cents BIGINT, ts TIMESTAMP(3)
) WITH (
  'connector' = 'kafka', 'topic' = 'orders',
  'properties.bootstrap.servers' = 'localhost:9092',
  'scan.startup.mode' = 'earliest-offset', 'format' = 'json');

CREATE TABLE large_orders (
  id BIGINT, customer BIGINT, cents BIGINT, ts TIMESTAMP(3)
) WITH (
  'connector' = 'kafka', 'topic' = 'large-orders',
  'properties.bootstrap.servers' = 'localhost:9092',
  'format' = 'json', 'sink.delivery-guarantee' = 'exactly-once');

INSERT INTO large_orders
SELECT id, customer, cents, ts FROM orders WHERE cents >= 500000;
