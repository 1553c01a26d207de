-- events of a stream in [version, version], oldest first
select
    position, stream, version, kind, append_index, occurred_at, recorded_at, id, tags, metadata,
    payload
from annals_events
where stream = ?1 and version >= ?2 and version <= ?3
order by version
limit ?4
