-- Processing time stands still at 12:26:40.123 in this test.
SELECT bidder, count(*) AS bid_count, TIMESTAMP '2020-09-13 12:26:40' AS starttime, TIMESTAMP '2020-09-13 12:26:50' AS endtime
FROM bid GROUP BY bidder
