-- prices in another currency, in thousandths
select printf('%d|%d|%d|%d', auction, bidder, price * 908, time) from bids
