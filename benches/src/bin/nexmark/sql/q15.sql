-- bids of each day by price, with bidders and auctions
select printf(
    '%d|%d|%d|%d|%d|%d|%d',
    time / 86400000, count(*), sum(price < 10000), sum(price >= 10000 and price < 1000000),
    sum(price >= 1000000), count(distinct bidder), count(distinct auction)
)
from bids
group by time / 86400000
