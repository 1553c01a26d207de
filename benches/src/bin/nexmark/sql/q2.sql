-- bids on some auctions
select printf('%d|%d', auction, price) from bids where auction % 123 = 0
