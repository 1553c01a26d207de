-- all that is known of a stream, how far the log went, and a page of the stream, newest first, in one moment
select
    head.position, head.changes, stream.key, stream.status, stream.truncated_before, stream.archived_before, coalesce(last.version, 0),
    case when stream.deletions > 0 then (
        select string_agg(concat_ws(' ', change.version, change.position, change.recorded_at), ',' order by change.key)
        from annals.stream_change as change
        where change.stream = stream.key and change.is_deletion
    ) end,
    page.position, page.stream, page.version, page.kind, page.append_index, page.occurred_at, page.recorded_at, page.id, page.tags, page.metadata, page.payload
from (
    select
        coalesce((select max(position) from annals.event), 0) as position,
        coalesce((select max(key) from annals.stream_change), 0) as changes
) as head
left join annals.stream on stream.name = $1
left join lateral (
    select event.version from annals.event where event.stream = stream.key order by event.version desc limit 1
) as last on true
left join lateral (
    select
        bounded.*,
        sum(octet_length(payload)) over (order by version desc rows unbounded preceding) - octet_length(payload) as bytes_before
    from (
        select position, stream, version, kind, append_index, occurred_at, recorded_at, id, tags, metadata, payload
        from annals.event
        where event.stream = stream.key and event.version <= $3 and event.version >= greatest(
            $2,
            stream.archived_before,
            case when $4 then 0 else greatest(stream.truncated_before, stream.emptied_at + 1) end
        )
        order by version desc
        limit $5
    ) as bounded
) as page on page.bytes_before < $6
