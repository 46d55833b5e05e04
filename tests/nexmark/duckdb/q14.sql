SELECT auction, bidder, CAST(0.908 * price AS DECIMAL(23, 3)) AS price,
  CASE WHEN hour("dateTime") BETWEEN 8 AND 18 THEN 'dayTime'
    WHEN hour("dateTime") IN (7, 19) THEN 'otherTime' ELSE 'nightTime' END AS "bidTimeType",
  "dateTime", extra, len(list_filter(string_split(extra, ''), x -> x = 'c')) AS c_counts
FROM bid
WHERE price * 908 > 1000000000 AND price * 908 < 50000000000
