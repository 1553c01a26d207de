-- begins a generation, with an id that is larger than all before
insert into annals.view_generation (
    view, version, phase, history, inline, partitions, slots, log, started_at, history_since,
    event_types, indexes
)
values ($1, $2, 0, $3, $4, $5, $6, $7, $8, $9, $10, $11)
returning id
