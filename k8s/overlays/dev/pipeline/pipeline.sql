SET 'pipeline.name' = 'bids-per-window';

CREATE TABLE nexmark (
  event_type INT,
  bid ROW<auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, `dateTime` TIMESTAMP(3), extra STRING>,
  person ROW<`dateTime` TIMESTAMP(3)>,
  auction ROW<`dateTime` TIMESTAMP(3)>,
  `dateTime` AS CASE WHEN event_type = 0 THEN person.`dateTime` WHEN event_type = 1 THEN auction.`dateTime`
    ELSE bid.`dateTime` END,
  WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND
) WITH ('connector' = 'nexmark', 'rows-per-second' = '1000');

CREATE TABLE bids_per_window (window_start TIMESTAMP(3), channel STRING, bids BIGINT, highest BIGINT)
WITH ('connector' = 'filesystem', 'path' = 's3://millstream/bids-per-window', 'format' = 'parquet');

INSERT INTO bids_per_window
SELECT window_start, bid.channel, count(*), max(bid.price)
FROM TABLE(TUMBLE(TABLE nexmark, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND))
WHERE event_type = 2
GROUP BY window_start, window_end, bid.channel;
