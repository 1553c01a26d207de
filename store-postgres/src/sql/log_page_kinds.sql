-- as log_page_small, of events of some types, oldest first. the index of kinds is left alone: it is
-- for types that are rare.
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
    where event.position > $1 and event.position <= least($2, head.position)
        and event.kind + 0 = any (
            array(select kind.key from annals.kind where kind.key <> 0 and kind.type = any ($5))
        )
    order by position
    limit $3
) as page on true
