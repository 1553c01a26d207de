-- one of these versions of rows that is there already
select version.key, version.up_to
from unnest($2::bytea[], $3::bigint[]) as given(key, up_to)
join annals.view_row_version as version
    on version.generation = $1 and version.key = given.key and version.up_to = given.up_to
limit 1
