SELECT bidder, count(*) AS bid_count, window_start AS starttime, window_end AS endtime, window_end AS __end_now
FROM TABLE(TUMBLE((SELECT bidder, __now AS p_time FROM bid), DESCRIPTOR(p_time), INTERVAL '10' SECOND))
GROUP BY bidder, window_start, window_end
