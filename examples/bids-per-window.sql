-- Bids per auction in windows of ten seconds of event time, from the Nexmark generator.
SET 'pipeline.name' = 'bids-per-window';

CREATE TABLE events (
  bid ROW<auction BIGINT, price BIGINT, `dateTime` TIMESTAMP(3)>,
  ts AS bid.`dateTime`,
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH (
  'connector' = 'nexmark', 'rows-per-second' = '10000');

CREATE TABLE busiest (
  window_start TIMESTAMP(3), auction BIGINT, bids BIGINT, highest BIGINT
) WITH (
  'connector' = 'print');

INSERT INTO busiest
SELECT window_start, bid.auction, count(*), max(bid.price)
FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '10' SECOND))
WHERE bid.auction % 1000 = 0
GROUP BY window_start, window_end, bid.auction;
