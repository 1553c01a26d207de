-- the last position recorded at or before a moment, and the head, by binary search: recorded times
-- never go backwards, and positions have no holes
with recursive search (known, above) as (
    select 0::bigint, (select coalesce(pg_catalog.max(position), 0) + 1 from annals.event)
    union all
    select
        case when middle.recorded_at <= $1 then middle.position else search.known end,
        case when middle.recorded_at <= $1 then search.above else middle.position end
    from search
    cross join lateral (
        select position, recorded_at
        from annals.event
        where position = search.known + (search.above - search.known) / 2
    ) as middle
    where search.known + 1 < search.above
)
select pg_catalog.max(known), pg_catalog.max(above) - 1 from search
