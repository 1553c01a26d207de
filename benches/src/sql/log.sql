-- the columns that annals reads, in the order of the log
select
    position, stream, version, kind, append_index, occurred_at, recorded_at, id, tags, metadata,
    payload
from annals_events
where position >= ?1 and position <= ?2
order by position
