SELECT DISTINCT p.id, p.name, time_bucket(INTERVAL '10 seconds', p."dateTime") AS starttime
FROM person p JOIN auction a
ON p.id = a.seller AND epoch_ms(p."dateTime") // 10000 = epoch_ms(a."dateTime") // 10000
