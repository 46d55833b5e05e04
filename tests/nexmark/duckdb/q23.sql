SELECT B.auction, B.bidder, B.price, B."dateTime", P.name, P.city, P.state, A.id, A.itemName, A.category
FROM bid AS B
INNER JOIN person AS P ON B.bidder = P.id
INNER JOIN auction AS A ON A.seller = B.bidder
