-- a generation that is not gone
select id, view, version, phase, keeps, inline, partitions, slots, log, begun_at, history_since, handles, indexes
from annals.view_generation
where id = $1 and phase <> 3
