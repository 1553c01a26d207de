-- the mean of the final prices of each category
with finals as (
    select auctions.id, category, max(price) as price
    from auctions
    join bids on bids.auction = auctions.id
        and bids.time between auctions.time and auctions.expires
    group by auctions.id, category
)
select printf('%d|%d', category, sum(price) / count(*))
from finals
group by category
