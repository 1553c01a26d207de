-- keys with a version that ends after a position, up to and with another, in order, of one moment;
-- nothing when the generation is dropped, one row without a key when there are none or the history
-- does not go back so far
select generation.history_since, found.key
from annals.view_generation as generation
left join lateral annals.keys_changed(generation.id, $2, $3, $4, $5) as found(key)
    on $2 >= generation.history_since
where generation.id = $1 and generation.phase <> 3
order by found.key
