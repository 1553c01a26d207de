-- bids on the auctions of one category, with who sells
select printf('%d|%d|%d|%d|%d', auction, bidder, price, bids.time, seller)
from bids
join auctions on auctions.id = bids.auction
where category = 10
