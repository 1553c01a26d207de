-- what a slot keeps for itself after a key, by key, until so many bytes; nothing when the
-- generation is dropped, one row without a key when there is nothing
select generation.history_since, found.key, found.value
from annals.view_generation as generation
left join lateral (
    select key, value
    from (
        select
            key, value,
            sum(octet_length(key) + octet_length(value)) over (
                order by key rows between unbounded preceding and 1 preceding
            ) as bytes_before
        from annals.view_state
        where generation = $1 and slot = $2 and ($3::bytea is null or key > $3)
    ) as kept
    where bytes_before is null or bytes_before < $4
    order by key
) as found on true
where generation.id = $1 and generation.phase <> 3
order by found.key
