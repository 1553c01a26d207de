-- the generations of a view that were not dropped, oldest first
select id, view, version, phase, history, partitions, slots, log, begun_at, history_since, handles,
    indexes, inline
from annals_view_generations
where view = ?1 and phase <> 3
order by id
