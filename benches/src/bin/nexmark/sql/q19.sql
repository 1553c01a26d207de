-- the ten highest bids of each auction
with ranked as (
    select
        auction, price, row_number() over (partition by auction order by price desc) as place
    from bids
)
select printf('%d|%d|%d', auction, place, price)
from ranked
where place <= 10
