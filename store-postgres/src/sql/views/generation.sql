-- a generation that is not dropped
select
    id, view, version, phase, history, inline, partitions, slots, log, started_at, history_since,
    event_types, indexes
from annals.view_generation
where id = $1 and phase <> 3
