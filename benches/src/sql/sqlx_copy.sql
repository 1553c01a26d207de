-- what annals holds, as an application without annals would have it.
insert into baseline.by_hand
    (position, stream, version, kind, append_index, append_events, occurred_at, recorded_at, id,
    digest, tags, metadata, payload)
overriding system value
select position, stream, version, array_position($1, kind.type), append_index, append_events,
    occurred_at, recorded_at, id, digest, tags, metadata, payload
from annals.event
join annals.kind on kind.key = event.kind
order by position
