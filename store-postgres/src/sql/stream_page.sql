-- the state of a stream, the head, and a page of the stream, in one moment
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
    ) end,
    page.position, page.stream, page.version, page.kind, page.append_index, page.occurred_at,
    page.recorded_at, page.id, page.tags, page.metadata, page.payload
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
left join lateral (
    select
        bounded.*,
        pg_catalog.sum(pg_catalog.octet_length(payload))
            over (order by version /*desc*/ rows unbounded preceding)
            - pg_catalog.octet_length(payload) as bytes_before
    from (
        select
            position, stream, version, kind, append_index, occurred_at, recorded_at, id, tags,
            metadata, payload
        from annals.event
        where event.stream = stream.key and event.version <= $3 and event.version >= greatest(
            $2,
            stream.archived_before,
            case
                when $4 then 0
                else greatest(stream.truncated_before, stream.deleted_version + 1)
            end
        )
        order by version /*desc*/
        limit $5
    ) as bounded
) as page on page.bytes_before < $6
