-- rows with entries of an index and keys from one on, up to but without another, and how far the
-- generation had come, of one moment; nothing when it is dropped. the page ends after so many bytes
-- of values.
select part, key, value, entry, slot, partition, position, event from annals.view_state($1)
union all
select 2, page.key, page.value, page.entry, null, null, null, null
from (
    select
        found.entry,
        found.key,
        view_row.value,
        pg_catalog.sum(pg_catalog.octet_length(view_row.value)) over (
            order by found.entry /*desc*/, found.key /*desc*/
            rows between unbounded preceding and 1 preceding
        ) as bytes_before
    from (
        select entry, key
        from annals.view_index_entry
        where generation = $1 and index = $6 and (entry, key) >= ($7, $2)
        and (entry, key) < ($8, $3)
        order by entry /*desc*/, key /*desc*/
        limit $4
    ) as found
    join annals.view_row on view_row.generation = $1 and view_row.key = found.key
) as page
where coalesce(page.bytes_before, 0) < $5
order by part, slot, partition, entry /*desc*/, key /*desc*/
