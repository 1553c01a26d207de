-- clears away a little of where rows stood of a generation that was dropped, from a place on, and says where to go on: no number when
-- nothing is left, nothing at all when another clears it away or it is gone
with dropped as (select id from annals.view_generation where id = $1 and phase = 3 for update skip locked),
doomed as materialized (
    select ctid, key
    from annals.view_version
    where generation = (select id from dropped) and key >= $4
    order by key
    limit $5
),
gone as (delete from annals.view_version where ctid = any (array(select ctid from doomed)))
select last.number, last.entry, last.next_key
from dropped
left join lateral (
    select 0::bigint as number, ''::bytea as entry, key || '\x00'::bytea as next_key from doomed order by key desc limit 1
) as last on true
