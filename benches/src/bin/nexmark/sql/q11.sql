-- how many bids a bidder made without a pause of more than ten seconds
with begun as (
    select
        bidder, time,
        coalesce(time - lag(time) over (partition by bidder order by time) > 10000, 1) as begins
    from bids
),
numbered as (
    select bidder, time, sum(begins) over (partition by bidder order by time) as session from begun
)
select printf('%d|%d|%d|%d', bidder, count(*), min(time), max(time) + 10000)
from numbered
group by bidder, session
