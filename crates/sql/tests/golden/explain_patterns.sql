CREATE TABLE ticker (
  symbol STRING, price BIGINT, tax BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'kafka', 'topic' = 'ticker', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json');
-- case: a price that falls and recovers
CREATE TABLE sink (symbol STRING, f TIMESTAMP(3), l TIMESTAMP(3)) WITH ('connector' = 'print');
INSERT INTO sink SELECT * FROM ticker MATCH_RECOGNIZE (
  PARTITION BY symbol ORDER BY ts
  MEASURES S.ts AS f, LAST(UP.ts) AS l
  ONE ROW PER MATCH AFTER MATCH SKIP TO LAST UP
  PATTERN (S DOWN+ UP)
  DEFINE DOWN AS DOWN.price < PREV(DOWN.price), UP AS UP.price > LAST(DOWN.price));
-- case: bounded by WITHIN, with aggregates, and windows over its result
CREATE TABLE sink (e TIMESTAMP(3), n BIGINT) WITH ('connector' = 'print');
CREATE VIEW m AS SELECT * FROM ticker MATCH_RECOGNIZE (
  PARTITION BY symbol ORDER BY ts, tax DESC
  MEASURES MATCH_ROWTIME() AS t, SUM(A.price * 2) - FINAL LAST(B.price) AS s, COUNT(*) AS n
  AFTER MATCH SKIP TO NEXT ROW
  PATTERN ((A | B){2,4} C*? D?) WITHIN INTERVAL '10' MINUTE
  DEFINE A AS AVG(A.price) < 10 AND tax > 1, D AS D.price > FIRST(A.price)) AS r;
INSERT INTO sink SELECT window_end, sum(n) FROM TABLE(TUMBLE(TABLE m, DESCRIPTOR(t), INTERVAL '1' MINUTE))
WHERE s > 3 GROUP BY window_start, window_end;
-- case: as many rows in every match, without a partition
CREATE TABLE sink (x BIGINT) WITH ('connector' = 'print');
INSERT INTO sink SELECT x FROM ticker MATCH_RECOGNIZE (
  ORDER BY ts MEASURES C.price AS x PATTERN (PERMUTE(A, B) C) DEFINE A AS A.tax = 1, B AS B.tax = 2, C AS C.tax = 3);
