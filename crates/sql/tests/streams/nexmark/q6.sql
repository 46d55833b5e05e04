SELECT Q.seller, AVG(Q.final) OVER (
  PARTITION BY Q.seller ORDER BY Q.expires, Q.id ROWS BETWEEN 9 PRECEDING AND CURRENT ROW
) AS average
FROM (
  SELECT id, seller, price AS final, expires,
    ROW_NUMBER() OVER (PARTITION BY id ORDER BY price DESC, bid_time, bidder) AS rownum
  FROM (
    SELECT A.id, A.seller, A.expires, B.price, B.bidder, B.`dateTime` AS bid_time
    FROM auction A, bid B
    WHERE A.id = B.auction AND B.`dateTime` BETWEEN A.`dateTime` AND A.expires
  )
) Q
WHERE Q.rownum <= 1
