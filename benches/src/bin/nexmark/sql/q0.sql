-- all bids
select printf('%d|%d|%d|%d', auction, bidder, price, time) from bids
