-- dead letters after a key, partition and position, in their order; nothing when the generation is
-- dropped, one row without a key when there is none
select
    generation.history_since, found.key, found.partition, found.position, found.event,
    found.attempts, found.dead_since, found.cause
from annals.view_generation as generation
left join lateral (
    select key, partition, position, event, attempts, dead_since, cause
    from annals.view_dead_letter
    where generation = $1 and (key, partition, position) > ($2, $3, $4)
    order by key, partition, position
    limit $5
) as found on true
where generation.id = $1 and generation.phase <> 3
order by found.key, found.partition, found.position
