WITH highest AS (
  SELECT a.id, any_value(a.category) AS category, max(b.price) AS final
  FROM auction a JOIN bid b ON b.auction = a.id AND b."dateTime" >= a."dateTime" AND b."dateTime" <= a.expires
  GROUP BY a.id
)
SELECT category, sum(final)::DOUBLE / count(*) AS average FROM highest GROUP BY category
