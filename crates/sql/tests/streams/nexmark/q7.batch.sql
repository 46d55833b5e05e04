SELECT auction, price, bidder, `dateTime`, extra, __end FROM (
  SELECT *, window_end AS __end, max(price) OVER (PARTITION BY window_end) AS maxprice
  FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND))
) WHERE price = maxprice
