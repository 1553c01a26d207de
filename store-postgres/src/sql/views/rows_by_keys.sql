-- rows with these keys, and how far the generation had come, of one moment; nothing when it is
-- dropped. the page ends after so many bytes of values. each key is looked up by itself (limit 1),
-- however few rows there were when that was planned.
select part, key, value, entry, slot, partition, position, event from annals.view_state($1)
union all
select 2, page.key, page.value, ''::bytea, null, null, null, null
from (
    select
        found.key,
        found.value,
        pg_catalog.sum(pg_catalog.octet_length(found.value)) over (
            order by found.key /*desc*/ rows between unbounded preceding and 1 preceding
        ) as bytes_before
    from (
        select wanted.key, kept.value
        from pg_catalog.unnest($2::bytea[]) as wanted(key)
        cross join lateral (
            select value from annals.view_row
            where generation = $1 and key = wanted.key
            limit 1
        ) as kept
        order by wanted.key /*desc*/
        limit $3
    ) as found
) as page
where coalesce(page.bytes_before, 0) < $4
order by part, slot, partition, key /*desc*/
