-- rows with these keys, and how far the generation had come, of one moment; nothing when it is gone. the page ends behind so many bytes of
-- values.
select part, key, value, entry, slot, partition, position, event from annals.view_state($1)
union all
select 2, page.key, page.value, ''::bytea, null, null, null, null
from (
    select
        found.key,
        found.value,
        sum(octet_length(found.value)) over (order by found.key rows between unbounded preceding and 1 preceding) as bytes_before
    from (
        select view_row.key, view_row.value
        from unnest($2::bytea[]) as wanted(key)
        join annals.view_row on view_row.generation = $1 and view_row.key = wanted.key
        order by view_row.key
        limit $3
    ) as found
) as page
where coalesce(page.bytes_before, 0) < $4
order by part, slot, partition, key
