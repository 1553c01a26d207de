-- clears away a little of the entries of indexes of a generation that was dropped, from a place on, and says where to go on: no number when
-- nothing is left, nothing at all when another clears it away or it is gone
with dropped as (select id from annals.view_generation where id = $1 and phase = 3 for update skip locked),
doomed as materialized (
    select ctid, index, entry, key
    from annals.view_entry
    where generation = (select id from dropped) and (index, entry, key) > ($2, $3, $4)
    order by index, entry, key
    limit $5
),
gone as (delete from annals.view_entry where ctid = any (array(select ctid from doomed)))
select last.number, last.entry, last.next_key
from dropped
left join lateral (
    select index as number, entry as entry, key as next_key from doomed order by index desc, entry desc, key desc limit 1
) as last on true
