-- rows of these keys and where they stand, in the order of the keys; nothing when the generation is gone, one row without a key when
-- none of them was ever written
select generation.history_since, found.key, found.version, found.value
from annals.view_generation as generation
left join lateral (
    select stand.key, stand.version, kept.value
    from annals.view_version as stand
    left join annals.view_row as kept on kept.generation = stand.generation and kept.key = stand.key
    where stand.generation = $1 and stand.key = any ($2) and stand.version > 0
) as found on true
where generation.id = $1 and generation.phase <> 3
order by found.key
