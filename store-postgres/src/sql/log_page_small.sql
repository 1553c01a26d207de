-- the head, and a page of the log after a position up to another; a payload of more than some bytes
-- is null
select
    head.position, page.position, page.stream, page.version, page.kind, page.append_index,
    page.occurred_at, page.recorded_at, page.id, page.tags, page.metadata,
    case when pg_catalog.octet_length(page.payload) <= $4 then page.payload end
from (select coalesce(pg_catalog.max(position), 0) as position from annals.event) as head
left join lateral (
    select
        position, stream, version, kind, append_index, occurred_at, recorded_at, id, tags, metadata,
        payload
    from annals.event
    where event.position > $1 and event.position <= least($2, head.position) and kind > 0
    order by position /*desc*/
    limit $3
) as page on true
