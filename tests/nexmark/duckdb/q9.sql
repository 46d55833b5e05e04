SELECT a.*, b.auction, b.bidder, b.price, b."dateTime" AS "bid_dateTime", b.extra AS bid_extra
FROM auction a JOIN bid b ON b.auction = a.id AND b."dateTime" >= a."dateTime" AND b."dateTime" <= a.expires
QUALIFY row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b."dateTime", b.bidder, b.extra) = 1
