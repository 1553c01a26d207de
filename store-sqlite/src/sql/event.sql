-- one event by its position
select
    position, stream, version, kind, append_index, occurred_at, recorded_at, id, tags, metadata,
    payload
from annals_events
where position = ?1
