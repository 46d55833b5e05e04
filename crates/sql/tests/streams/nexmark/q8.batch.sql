SELECT DISTINCT P.id, P.name, P.window_start AS starttime, P.window_end AS __end
FROM TABLE(TUMBLE(TABLE person, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND)) P
JOIN TABLE(TUMBLE(TABLE auction, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND)) A
ON P.id = A.seller AND P.window_end = A.window_end
