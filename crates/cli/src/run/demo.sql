-- Bids of a generated auction site, per channel and second.
SET 'pipeline.name' = 'demo';

CREATE TABLE events (
  event_type INT,
  bid ROW<price BIGINT, channel STRING, `dateTime` TIMESTAMP(3)>,
  ts AS bid.`dateTime`,
  WATERMARK FOR ts AS ts
) WITH (
  'connector' = 'nexmark', 'rows-per-second' = '10000');

CREATE TABLE per_second (
  `second` TIMESTAMP(3), channel STRING, bids BIGINT, average_price BIGINT, highest_price BIGINT
) WITH (
  'connector' = 'print');

CREATE VIEW bids AS
SELECT ts, bid.price AS price,
  CASE WHEN bid.channel LIKE 'channel-%' THEN 'all others' ELSE bid.channel END AS channel
FROM events WHERE event_type = 2;

INSERT INTO per_second
SELECT window_start, channel, count(*), CAST(avg(price) AS BIGINT), max(price)
FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '1' SECOND))
GROUP BY window_start, window_end, channel;
