WITH counts AS (
  SELECT auction, starttime, count(*) AS num
  FROM (
    SELECT auction, unnest(generate_series(0, 4)) * 2000 AS back, epoch_ms("dateTime") AS ms FROM bid
  ) CROSS JOIN LATERAL (SELECT (ms // 2000) * 2000 - back AS starttime)
  GROUP BY auction, starttime
)
SELECT auction, num FROM counts QUALIFY num = max(num) OVER (PARTITION BY starttime)
