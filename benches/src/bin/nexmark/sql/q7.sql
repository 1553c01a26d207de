-- the highest bids of each ten seconds
with highest as (
    select time / 10000 * 10000 as start, max(price) as price from bids group by 1
)
select printf('%d|%d|%d|%d|%d', auction, bidder, bids.price, time, start)
from bids
join highest on highest.start = time / 10000 * 10000 and highest.price = bids.price
