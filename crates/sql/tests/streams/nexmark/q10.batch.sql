SELECT auction, bidder, price, `dateTime`, extra, to_char(`dateTime`, '%Y-%m-%d') AS dt, to_char(`dateTime`, '%H:%M') AS hm
FROM bid
