-- A literal with a point is a decimal in DuckDB, which gives the same digits here.
SELECT auction, bidder, CAST(0.908 * price AS DECIMAL(23, 3)) AS price, "dateTime", extra FROM bid
