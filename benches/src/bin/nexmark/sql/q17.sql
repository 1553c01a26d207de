-- prices of each auction and day
select printf(
    '%d|%d|%d|%d|%d|%d|%d',
    auction, time / 86400000, count(*), min(price), max(price), sum(price) / count(*), sum(price)
)
from bids
group by auction, time / 86400000
