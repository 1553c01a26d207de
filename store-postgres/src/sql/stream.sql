-- the state of a stream, the head and the last change of any stream, in one moment
select
    head.position, head.changes, stream.key, stream.status, stream.truncated_before,
    stream.archived_before, coalesce(last.version, 0), coalesce(last.position, 0),
    case when stream.deletions > 0 then (
        select pg_catalog.string_agg(
            pg_catalog.concat_ws(' ', change.version, change.position, change.recorded_at),
            ',' order by change.key
        )
        from annals.stream_change as change
        where change.stream = stream.key and change.is_deletion
    ) end
from (
    select
        coalesce((select pg_catalog.max(position) from annals.event), 0) as position,
        coalesce((select pg_catalog.max(key) from annals.stream_change), 0) as changes
) as head
left join annals.stream on stream.name = $1
left join lateral (
    select event.version, event.position from annals.event
    where event.stream = stream.key
    order by event.version desc
    limit 1
) as last on true
