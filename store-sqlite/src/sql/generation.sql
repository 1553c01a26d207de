-- a generation that was not dropped
select id, view, version, phase, history, partitions, slots, log, begun_at, history_since, handles,
    indexes, inline
from annals_view_generations
where id = ?1 and phase <> 3
