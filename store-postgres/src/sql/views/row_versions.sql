-- the visible versions of a key that end after a position, up to and with another, oldest first;
-- nothing when the generation is dropped, one row without a version when there are none. of what
-- ends before the history that is kept the newest is visible: it holds at its beginning.
select
    generation.history_since, found.up_to, found.after, found.recorded_at, found.value
from annals.view_generation as generation
left join lateral (
    select version.up_to, version.after, version.recorded_at, version.value
    from annals.view_row_version as version
    where version.generation = $1 and version.key = $2 and version.up_to <= $4
        and version.up_to > greatest(
            $3,
            coalesce(
                (
                    select base.up_to - 1
                    from annals.visible_version(
                        generation.id, generation.history_since, $2, generation.history_since
                    ) as base
                ),
                generation.history_since
            )
        )
    order by version.up_to
    limit $5
) as found on true
where generation.id = $1 and generation.phase <> 3
order by found.up_to
