-- what rows of generation 1 were after one event each.
insert into annals.view_version (generation, key, up_to, after, recorded_at, value)
select 1, given.key, given.position, given.position - 1, given.recorded_at, given.value
from unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bytea[]) as given(key, position,
    recorded_at, value)
