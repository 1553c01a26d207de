-- the auctions with the most bids in each ten seconds, every two seconds
with steps (step) as (values (0), (1), (2), (3), (4)),
counts as (
    select time / 2000 * 2000 - step * 2000 as start, auction, count(*) as count
    from bids, steps
    group by 1, 2
)
select printf('%d|%d|%d', start, auction, count)
from counts
where count = (select max(count) from counts as others where others.start = counts.start)
