-- what is set aside behind a key, partition and position, in their order; nothing when the generation is gone, one row without a key when
-- there is none
select
    generation.history_since, found.key, found.partition, found.position, found.event, found.attempts, found.parked_at, found.cause
from annals.view_generation as generation
left join lateral (
    select key, partition, position, event, attempts, parked_at, cause
    from annals.view_parked
    where generation = $1 and (key, partition, position) > ($2, $3, $4)
    order by key, partition, position
    limit $5
) as found on true
where generation.id = $1 and generation.phase <> 3
order by found.key, found.partition, found.position
