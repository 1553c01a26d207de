-- the positions of the events that touched a key, after one and up to and with another, in order;
-- nothing when the generation is dropped, one row without a position when there are none
select generation.history_since, found.position
from annals.view_generation as generation
left join lateral (
    select position
    from annals.view_touched
    where generation = $1 and key = $2 and position > $3 and position <= $4
    order by position
    limit $5
) as found on true
where generation.id = $1 and generation.phase <> 3
order by found.position
