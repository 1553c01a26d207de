-- what a slot of a generation keeps for itself besides its rows, such as windows that are open
create table annals_view_state (
    generation integer not null,
    slot integer not null,
    key blob not null,
    value blob not null,
    primary key (generation, slot, key)
) strict, without rowid;
