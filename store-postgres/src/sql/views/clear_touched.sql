-- clears away a little of what touched its keys of a generation that was dropped, from a place on, and says where to go on: no number when
-- nothing is left, nothing at all when another clears it away or it is gone
with dropped as (select id from annals.view_generation where id = $1 and phase = 3 for update skip locked),
doomed as materialized (
    select ctid, key, position
    from annals.view_touched
    where generation = (select id from dropped) and (key, position) > ($4, $2)
    order by key, position
    limit $5
),
gone as (delete from annals.view_touched where ctid = any (array(select ctid from doomed)))
select last.number, last.entry, last.next_key
from dropped
left join lateral (
    select position as number, ''::bytea as entry, key as next_key from doomed order by key desc, position desc limit 1
) as last on true
