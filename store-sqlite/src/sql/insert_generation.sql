-- begins a generation
insert into annals_view_generations
    (id, view, version, phase, history, partitions, slots, log, begun_at, history_since, handles,
    indexes, inline)
values (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
