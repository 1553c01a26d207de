-- the highest bid of each auction while it was open
select printf('%d|%d', auctions.id, max(price))
from auctions
join bids on bids.auction = auctions.id and bids.time between auctions.time and auctions.expires
group by auctions.id
