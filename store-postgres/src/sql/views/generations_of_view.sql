-- the generations of a view that are not gone, oldest first
select id, view, version, phase, keeps, inline, partitions, slots, log, begun_at, history_since, handles, indexes
from annals.view_generation
where view = $1 and phase <> 3
order by id
