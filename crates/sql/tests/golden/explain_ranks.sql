CREATE TABLE bid (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'kafka', 'topic' = 'bid', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
-- case: the 10 highest of each key, with the rank (Nexmark q19)
CREATE TABLE sink (auction BIGINT, price BIGINT, r BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO sink SELECT auction, price, r FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price DESC) AS r FROM bid) WHERE r <= 10;
-- case: the last row of each key (Nexmark q18)
CREATE TABLE sink (auction BIGINT, bidder BIGINT, price BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO sink SELECT auction, bidder, price FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY bidder, auction ORDER BY ts DESC) AS r FROM bid) WHERE r <= 1;
-- case: conditions on the key, the rank and the rest
CREATE TABLE sink (auction BIGINT, price BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO sink SELECT auction, price FROM (
  SELECT auction, price, DENSE_RANK() OVER (PARTITION BY auction ORDER BY price DESC NULLS LAST) AS r FROM bid) AS t
  WHERE t.r BETWEEN 2 AND 3 AND auction > 7 AND price > 100;
-- case: QUALIFY with a computed order
CREATE TABLE sink (auction BIGINT, price BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO sink SELECT auction, price FROM bid QUALIFY RANK() OVER (PARTITION BY auction % 10 ORDER BY price * 2) = 1;
-- case: ORDER BY and LIMIT
CREATE TABLE sink (auction BIGINT, price BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO sink SELECT auction, price FROM bid ORDER BY ts DESC, price LIMIT 10 OFFSET 5;
-- case: DISTINCT ON
CREATE TABLE sink (auction BIGINT, price BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO sink SELECT DISTINCT ON (auction) auction, price FROM bid ORDER BY auction, price DESC;
-- case: ranks of windows go into any sink
CREATE TABLE sink (e TIMESTAMP(3), auction BIGINT, n BIGINT) WITH ('connector' = 'print');
INSERT INTO sink SELECT e, auction, n FROM (
  SELECT e, auction, n, ROW_NUMBER() OVER (PARTITION BY s, e ORDER BY n DESC) AS r FROM (
    SELECT window_start AS s, window_end AS e, auction, count(*) AS n
    FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY auction, window_start, window_end)) WHERE r <= 3;
-- case: a rank of updating rows keeps all of them
CREATE TABLE sink (price BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO sink SELECT price FROM (SELECT price FROM bid ORDER BY price LIMIT 5) ORDER BY price DESC LIMIT 2;
-- case: functions over frames
CREATE TABLE sink (auction BIGINT, m DOUBLE, l BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO sink SELECT auction, avg(price) OVER (PARTITION BY bidder ORDER BY ts ROWS BETWEEN 9 PRECEDING AND CURRENT ROW),
  lag(price) OVER (PARTITION BY bidder ORDER BY ts) FROM bid;
-- case: functions in the order of event time, into any sink
CREATE TABLE sink (auction BIGINT, m DOUBLE, l BIGINT, s BIGINT, n BIGINT) WITH ('connector' = 'print');
INSERT INTO sink SELECT auction, avg(price) OVER (PARTITION BY bidder ORDER BY ts RANGE BETWEEN INTERVAL '1' HOUR PRECEDING AND CURRENT ROW),
  lag(price, 2) OVER (PARTITION BY bidder ORDER BY ts), sum(price) OVER (PARTITION BY bidder ORDER BY ts), row_number() OVER (PARTITION BY bidder ORDER BY ts) FROM bid;
-- case: the first row of each key, into any sink
CREATE TABLE sink (auction BIGINT, price BIGINT) WITH ('connector' = 'print');
INSERT INTO sink SELECT auction, price FROM bid QUALIFY ROW_NUMBER() OVER (PARTITION BY auction ORDER BY ts) = 1;
-- case: a function that looks ahead
CREATE TABLE sink (auction BIGINT, l BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO sink SELECT auction, lead(price) OVER (PARTITION BY bidder ORDER BY ts) FROM bid;
-- case: several orders, a rank that nobody limits
CREATE TABLE sink (auction BIGINT, n BIGINT, t BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO sink SELECT auction, row_number() OVER (PARTITION BY bidder ORDER BY ts), sum(price) FILTER (WHERE price > 10) OVER (PARTITION BY auction) FROM bid;
