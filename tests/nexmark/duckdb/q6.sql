WITH winners AS (
  SELECT a.id, a.seller, a.expires, max(b.price) AS final
  FROM auction a JOIN bid b ON b.auction = a.id AND b."dateTime" >= a."dateTime" AND b."dateTime" <= a.expires
  GROUP BY a.id, a.seller, a.expires
)
SELECT seller, avg(final) OVER (PARTITION BY seller ORDER BY expires, id ROWS 9 PRECEDING) AS average FROM winners
