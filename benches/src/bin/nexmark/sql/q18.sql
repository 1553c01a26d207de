-- the last bid of each bidder on each auction
select printf('%d|%d|%d', bidder, auction, max(time))
from bids
group by bidder, auction
