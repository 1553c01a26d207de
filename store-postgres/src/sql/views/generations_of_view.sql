-- the generations of a view that are not dropped, oldest first
select
    id, view, version, phase, history, inline, partitions, slots, log, started_at, history_since,
    event_types, indexes
from annals.view_generation
where view = $1 and phase <> 3
order by id
