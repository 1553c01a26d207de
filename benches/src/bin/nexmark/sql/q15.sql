-- bids of each day in three bands of price, and how many bidders and auctions: Nexmark q15 with six
-- of its statistics
select printf(
    '%d|%d|%d|%d|%d|%d|%d',
    time / 86400000, count(*), sum(price < 10000), sum(price >= 10000 and price < 1000000),
    sum(price >= 1000000), count(distinct bidder), count(distinct auction)
)
from bids
group by time / 86400000
