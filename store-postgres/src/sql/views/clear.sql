-- clears a little of one table of a generation that was dropped, from a place on, and says where to
-- go on: no number when nothing is left, no row when another session clears it or it is gone. what
-- is in braces is the table's.
with dropped as (
    select id from annals.view_generation where id = $1 and phase = 3 for update skip locked
),
doomed as materialized (
    select ctid, {columns}
    from annals.{table}
    where generation = (select id from dropped) and {after}
    order by {columns}
    limit $5
),
gone as (delete from annals.{table} where ctid = any (array(select ctid from doomed)))
select last.number, last.entry, last.next_key, $2::bigint, $3::bytea, $4::bytea
from dropped
left join lateral (select {next} from doomed order by ({columns}) desc limit 1) as last on true
