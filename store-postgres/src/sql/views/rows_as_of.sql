-- of each key the newest visible version that ends at or before a moment, and where the next one
-- begins, of one moment; nothing when the generation is dropped, and one row without a key when
-- nothing is known
select
    generation.history_since, found.key, found.up_to, found.after, found.recorded_at, found.value,
    found.next_after
from annals.view_generation as generation
left join lateral (
    select
        wanted.key, base.up_to, base.after, base.recorded_at, base.value,
        next.after as next_after
    from pg_catalog.unnest($2::bytea[]) as wanted(key)
    left join lateral annals.visible_version(
        generation.id, generation.history_since, wanted.key, $3
    ) as base on true
    left join lateral (
        select version.after
        from annals.view_row_version as version
        where version.generation = $1 and version.key = wanted.key and version.up_to > $3
        order by version.up_to
        limit 1
    ) as next on true
    where base.up_to is not null or next.after is not null
) as found on true
where generation.id = $1 and generation.phase <> 3
order by found.key
