CREATE TABLE nexmark (
  event_type INT,
  person ROW<id BIGINT, name STRING, emailAddress STRING, creditCard STRING, city STRING, state STRING,
    `dateTime` TIMESTAMP(3), extra STRING>,
  auction ROW<id BIGINT, itemName STRING, description STRING, initialBid BIGINT, reserve BIGINT,
    `dateTime` TIMESTAMP(3), expires TIMESTAMP(3), seller BIGINT, category BIGINT, extra STRING>,
  bid ROW<auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING,
    `dateTime` TIMESTAMP(3), extra STRING>,
  `dateTime` AS CASE WHEN event_type = 0 THEN person.`dateTime` WHEN event_type = 1 THEN auction.`dateTime`
    ELSE bid.`dateTime` END,
  WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND
) WITH ('connector' = 'nexmark');
CREATE VIEW bid AS SELECT bid.auction, bid.bidder, bid.price, bid.channel, bid.url, `dateTime`, bid.extra
FROM nexmark WHERE event_type = 2;
CREATE VIEW person AS SELECT person.id, person.name, `dateTime` FROM nexmark WHERE event_type = 0;
-- case: q0 prefilters and decodes only what it passes
CREATE TABLE sink (auction BIGINT, bidder BIGINT, price BIGINT, ts TIMESTAMP(3), extra STRING) WITH ('connector' = 'blackhole');
INSERT INTO sink SELECT auction, bidder, price, dateTime, extra FROM bid;
-- case: q1 casts to the sink
CREATE TABLE sink (auction BIGINT, price DECIMAL(23, 3)) WITH ('connector' = 'blackhole');
INSERT INTO sink SELECT auction, 0.908 * price FROM bid;
-- case: q2
CREATE TABLE sink (auction BIGINT, price BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO sink SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0;
-- case: q5 counts in sliding windows
CREATE TABLE sink (auction BIGINT, num BIGINT, s TIMESTAMP(3), e TIMESTAMP(3)) WITH ('connector' = 'blackhole');
INSERT INTO sink SELECT auction, COUNT(*) AS num, window_start AS starttime, window_end AS endtime
FROM TABLE(HOP(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
GROUP BY auction, window_start, window_end;
-- case: q5 second half: an aggregation over the windows of another
CREATE TABLE sink (maxn BIGINT, s TIMESTAMP(3), e TIMESTAMP(3)) WITH ('connector' = 'blackhole');
INSERT INTO sink SELECT MAX(CountBids.num) AS maxn, CountBids.starttime, CountBids.endtime FROM (
  SELECT COUNT(*) AS num, window_start AS starttime, window_end AS endtime
  FROM TABLE(HOP(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
  GROUP BY auction, window_start, window_end
) AS CountBids GROUP BY CountBids.starttime, CountBids.endtime;
-- case: q8 one side: distinct keys per window
CREATE TABLE sink (id BIGINT, name STRING, s TIMESTAMP(3)) WITH ('connector' = 'blackhole');
INSERT INTO sink SELECT id, name, window_start
FROM TABLE(TUMBLE(TABLE person, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND)) GROUP BY id, name, window_start, window_end;
-- case: q11 sessions
CREATE TABLE sink (bidder BIGINT, n BIGINT, s TIMESTAMP(3), e TIMESTAMP(3)) WITH ('connector' = 'blackhole');
INSERT INTO sink SELECT bidder, COUNT(*), window_start, window_end
FROM TABLE(SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND))
GROUP BY bidder, window_start, window_end;
-- case: q12 processing time needs no watermark
CREATE TABLE sink (bidder BIGINT, n BIGINT, s TIMESTAMP(3), e TIMESTAMP(3)) WITH ('connector' = 'blackhole');
INSERT INTO sink SELECT bidder, COUNT(*) AS bid_count, window_start AS starttime, window_end AS endtime
FROM TABLE(TUMBLE((SELECT *, PROCTIME() AS p_time FROM bid), DESCRIPTOR(p_time), INTERVAL '10' SECOND))
GROUP BY bidder, window_start, window_end;
-- case: q22
CREATE TABLE sink (auction BIGINT, a STRING, b STRING, c STRING) WITH ('connector' = 'blackhole');
INSERT INTO sink SELECT auction, SPLIT_INDEX(url, '/', 3), SPLIT_INDEX(url, '/', 4), SPLIT_INDEX(url, '/', 5) FROM bid;
-- case: two inserts share one read whose prefilter accepts what either needs
CREATE TABLE bids (auction BIGINT) WITH ('connector' = 'blackhole');
CREATE TABLE people (name STRING) WITH ('connector' = 'print');
EXECUTE STATEMENT SET BEGIN
INSERT INTO bids SELECT auction FROM bid;
INSERT INTO people SELECT name FROM person;
END;
-- case: distinct counts with filters over tumbling days, HAVING
CREATE TABLE sink (`day` STRING, n BIGINT, low BIGINT, bidders BIGINT, avgp DOUBLE) WITH ('connector' = 'blackhole');
INSERT INTO sink SELECT DATE_FORMAT(window_start, 'yyyy-MM-dd'), COUNT(*), COUNT(*) FILTER (WHERE price < 10000),
  COUNT(DISTINCT bidder) FILTER (WHERE price >= 10000), AVG(price)
FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '1' DAY))
GROUP BY window_start, window_end HAVING COUNT(*) > 10 AND window_start > TIMESTAMP '2015-01-01 00:00:00';
