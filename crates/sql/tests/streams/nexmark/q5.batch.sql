WITH counts AS (
  SELECT auction, count(*) AS num, window_start AS starttime, window_end AS endtime
  FROM TABLE(HOP(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
  GROUP BY auction, window_start, window_end
)
SELECT auction, num, endtime AS __end FROM counts c
WHERE num = (SELECT max(num) FROM counts d WHERE d.endtime = c.endtime)
