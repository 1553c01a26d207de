-- the columns that annals reads, of one stream
select
    position, stream, version, kind, append_index, occurred_at, recorded_at, id, tags, metadata,
    payload
from annals_events
where stream = ?1 and version >= ?2
order by version
