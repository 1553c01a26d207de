-- keys that have a row or a version, in order, of one moment; nothing when the generation is
-- dropped, one row without a key when there are none
select generation.history_since, found.key
from annals.view_generation as generation
left join lateral annals.history_keys(generation.id, generation.history_since, $2, $3, $4)
    as found(key) on true
where generation.id = $1 and generation.phase <> 3
order by found.key
