-- rows with keys from one on, up to but without another, and how far the generation had come, of
-- one moment; nothing when it is dropped. the page ends after so many bytes of values.
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
        select key, value from annals.view_row
        where generation = $1 and key >= $2 and key < $3
        order by key /*desc*/
        limit $4
    ) as found
) as page
where coalesce(page.bytes_before, 0) < $5
order by part, slot, partition, key /*desc*/
