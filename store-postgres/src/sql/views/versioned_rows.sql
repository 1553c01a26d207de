-- rows of these keys and their stream versions, in the order of the keys; nothing when the
-- generation is dropped, one row without a key when none of them was ever written
select generation.history_since, found.key, found.version, found.value
from annals.view_generation as generation
left join lateral (
    select known.key, known.version, kept.value
    from annals.view_stream_version as known
    left join annals.view_row as kept
        on kept.generation = known.generation and kept.key = known.key
    where known.generation = $1 and known.key = any ($2) and known.version > 0
) as found on true
where generation.id = $1 and generation.phase <> 3
order by found.key
