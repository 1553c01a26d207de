-- all that is known of a stream, and how far the log went, in one moment
select
    head.position, head.changes, stream.key, stream.status, stream.truncated_before, stream.archived_before, coalesce(last.version, 0),
    case when stream.deletions > 0 then (
        select string_agg(concat_ws(' ', change.version, change.position, change.recorded_at), ',' order by change.key)
        from annals.stream_change as change
        where change.stream = stream.key and change.is_deletion
    ) end
from (
    select
        coalesce((select max(position) from annals.event), 0) as position,
        coalesce((select max(key) from annals.stream_change), 0) as changes
) as head
left join annals.stream on stream.name = $1
left join lateral (
    select event.version from annals.event where event.stream = stream.key order by event.version desc limit 1
) as last on true
